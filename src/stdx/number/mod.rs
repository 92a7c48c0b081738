//! Numbers as text, read and written as strictly as Redis does.
//!
//! What is accepted decides whether a string *is* an integer, and what is written is compared byte by
//! byte by clients: so neither follows Rust's own parsing and formatting where they differ.

mod decimal;
pub mod double;
pub mod extended;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "123456789012345678901",
            "0x1",
            "1.0",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    #[test]
    fn doubles_are_read_in_the_forms_of_c() {
        for (text, expected) in [
            ("5", 5.0),
            ("+5", 5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1e+5", -1e5),
            ("1E-3", 1e-3),
            ("0x10", 16.0),
            ("0X1P4", 16.0),
            ("-0x.8", -0.5),
            ("0x1.8p-1", 0.75),
            ("0x1fffffffffffff8p0", 144115188075855870.0),
            ("0x20000000000001p0", 9007199254740992.0),
            ("0x20000000000001.0000000000000000000000000000000000001p0", 9007199254740994.0),
            ("0x1p-1074", 5e-324),
            ("inf", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("0e400", 0.0),
            ("1e-310", 1e-310),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(expected), "{text}");
        }
        assert!(parse_f64(b"-0.0").is_some_and(|zero| zero.is_sign_negative()));
        for text in [
            "",
            " 5",
            "5 ",
            ".",
            "1e",
            "e1",
            "-",
            "+-1",
            "nan",
            "-NaN",
            "nan(12)",
            "infin",
            "0x",
            "0x.p1",
            "0x1p",
            "1_0",
            "1e400",
            "-1e400",
            "1e-400",
            "0x1p-1076",
            "0x1p1024",
            "5\0",
        ] {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(value in any::<i64>()) {
            let mut text = Vec::new();
            append_i64(&mut text, value);
            prop_assert_eq!(text.clone(), value.to_string().into_bytes());
            prop_assert_eq!(parse_i64(&text), Some(value));
        }

        #[test]
        fn what_parses_is_what_would_be_written(text in "[-+ 0-9]{0,22}") {
            if let Some(value) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(value.to_string(), text);
            }
        }

        #[test]
        fn hexadecimal_doubles_read_exactly(bits in any::<u64>()) {
            let value = f64::from_bits(bits & !(1 << 63));
            prop_assume!(value.is_finite());
            let (fraction, exponent) = (value.to_bits() & ((1 << 52) - 1), value.to_bits() >> 52);
            let (mantissa, exponent) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent as i32 - 1075) };
            let text = format!("0x{mantissa:x}p{exponent}");
            prop_assert_eq!(parse_f64(text.as_bytes()), Some(value));
        }
    }
}
