//! Numbers as text, read and written as strictly as Redis does.
//!
//! What is accepted decides whether a string *is* an integer, and what is written is compared byte by
//! byte by clients: so neither follows Rust's own parsing and formatting where they differ.

mod decimal;
pub mod double;
//EXT

/// Reads a decimal integer: the whole of `text`, nothing but an optional `-` and digits, no leading
/// zeros, no `-0`. So text that parses is exactly what [`append_i64`] would write.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', digits @ ..] => match parse_u64(digits)? {
            0 => None,
            value => 0i64.checked_sub_unsigned(value),
        },
        digits => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// Reads a decimal integer without a sign: the whole of `text`, no leading zeros.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    let mut value = 0u64;
    // Nineteen digits cannot overflow; the twentieth is watched.
    for &byte in &text[..text.len().min(19)] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    if let Some(&byte) = text.get(19) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Reads a floating-point number in any of the forms of C: decimal, with exponent, hexadecimal, `inf`,
/// `infinity`, in any case and with a sign. The whole of `text`, no blanks, not NaN. What rounds to infinity, or to zero
/// without being zero, is refused.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    // Most scores are small integers.
    if text.len() <= 15 {
        if let Some(value) = parse_i64(text) {
            return Some(value as f64);
        }
    }
    let (negative, body) = decimal::sign(text);
    let magnitude = if decimal::is_infinity(body) {
        f64::INFINITY
    } else if let Some(hex) = decimal::Hexadecimal::parse(body) {
        hex.to_f64()?
    } else {
        // Rust and C agree on decimal forms, and both round correctly; what else Rust takes has a letter first.
        if !matches!(body.first()?, b'0'..=b'9' | b'.') {
            return None;
        }
        let value: f64 = std::str::from_utf8(body).ok()?.parse().ok()?;
        if value.is_infinite() || (value == 0.0 && !decimal::is_zero(body)) {
            return None;
        }
        value
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Appends `value` in decimal.
#[inline]
pub fn append_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `value` in decimal.
#[inline]
pub fn append_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
