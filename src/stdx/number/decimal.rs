//! Floating-point numbers as C reads them: what sign, digits and exponent a text holds.
//!
//! Shared by doubles and extended floats; nothing here rounds.

/// Cuts off an optional sign: whether it was `-`, and the rest.
pub(super) fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// Whether `body` spells infinity, in any case.
pub(super) fn is_infinity(body: &[u8]) -> bool {
    body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity")
}

/// Whether the digits of a well-formed decimal are all zeros.
pub(super) fn is_zero(body: &[u8]) -> bool {
    body.iter().take_while(|b| !matches!(b, b'e' | b'E')).all(|b| matches!(b, b'0' | b'.'))
}

/// Reads an optional exponent behind `marker` (lower case) up to the end; exponents beyond a million are as good as that.
fn exponent(text: &[u8], marker: u8) -> Option<i32> {
    let Some((&first, rest)) = text.split_first() else { return Some(0) };
    if first.to_ascii_lowercase() != marker {
        return None;
    }
    let (negative, digits) = sign(rest);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i32;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i32::from(byte - b'0')).min(1_000_000);
    }
    Some(if negative { -value } else { value })
}

/// A decimal number without its sign: `digits * 10^exponent`.
pub(super) struct Decimal {
    /// Values 0 to 9, without leading and trailing zeros; empty for zero.
    pub digits: Vec<u8>,
    /// Of the last digit.
    pub exponent: i32,
}

impl Decimal {
    /// Reads the whole of `body`: digits with or without a point, and an optional exponent.
    pub fn parse(body: &[u8]) -> Option<Decimal> {
        let mut digits = Vec::with_capacity(body.len());
        let mut seen = false;
        let mut point = false;
        let mut shift = 0i32;
        let mut at = 0;
        for &byte in body {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    if !(digits.is_empty() && byte == b'0') {
                        digits.push(byte - b'0');
                    }
                    shift = shift.saturating_sub(i32::from(point));
                }
                b'.' if !point => point = true,
                _ => break,
            }
            at += 1;
        }
        if !seen {
            return None;
        }
        let mut exponent = exponent(&body[at..], b'e')?.saturating_add(shift);
        while digits.last() == Some(&0) {
            digits.pop();
            exponent = exponent.saturating_add(1);
        }
        Some(Decimal { digits, exponent })
    }
}

/// A hexadecimal number without its sign: `(mantissa, more below it) * 2^exponent`.
pub(super) struct Hexadecimal {
    /// The leading digits, 124 bits at most and more than 116 of them if `sticky`.
    pub mantissa: u128,
    /// Whether digits that are not zero follow below the mantissa.
    pub sticky: bool,
    /// Of the mantissa's lowest bit.
    pub exponent: i32,
}

impl Hexadecimal {
    /// Reads the whole of `body`: `0x`, hexadecimal digits with or without a point, and an optional exponent of two.
    pub fn parse(body: &[u8]) -> Option<Hexadecimal> {
        let [b'0', b'x' | b'X', digits @ ..] = body else { return None };
        let mut number = Hexadecimal { mantissa: 0, sticky: false, exponent: 0 };
        let mut seen = false;
        let mut point = false;
        let mut at = 0;
        for &byte in digits {
            if byte == b'.' && !point {
                point = true;
            } else if let Some(digit) = char::from(byte).to_digit(16) {
                seen = true;
                if number.mantissa >> 120 == 0 {
                    number.mantissa = number.mantissa << 4 | u128::from(digit);
                    number.exponent = number.exponent.saturating_sub(if point { 4 } else { 0 });
                } else {
                    number.sticky |= digit != 0;
                    number.exponent = number.exponent.saturating_add(if point { 0 } else { 4 });
                }
            } else {
                break;
            }
            at += 1;
        }
        if !seen {
            return None;
        }
        number.exponent = number.exponent.saturating_add(exponent(&digits[at..], b'p')?);
        Some(number)
    }

    /// The nearest double, even on a tie; `None` if that is infinite, or zero without being so.
    pub fn to_f64(&self) -> Option<f64> {
        if self.mantissa == 0 {
            return Some(0.0);
        }
        let bits = 128 - self.mantissa.leading_zeros() as i32;
        // The exponent of the highest bit decides on how many bits a double has for the number.
        let top = self.exponent.saturating_add(bits - 1);
        if top > 1023 {
            return None;
        }
        let kept = if top >= -1022 { 53 } else { (53 - (-1022 - top)).max(-1) };
        let drop = bits - kept;
        let (value, exponent) = if drop <= 0 {
            (self.mantissa as u64, self.exponent)
        } else {
            let wide = self.mantissa << 1 | u128::from(self.sticky);
            // `drop` is at most 125, so that the shifts stay in range.
            let half = 1u128 << drop;
            let rest = wide & ((half << 1) - 1);
            let value = (wide >> (drop + 1)) as u64;
            let up = rest > half || (rest == half && value & 1 == 1);
            (value + u64::from(up), self.exponent + drop)
        };
        // Both factors and every product on the way are exact: powers of two, and no more bits than fit.
        let mut result = value as f64;
        let mut left = exponent;
        while left != 0 {
            let step = left.clamp(-1000, 1000);
            result *= f64::powi(2.0, step);
            left -= step;
        }
        (result.is_finite() && result != 0.0).then_some(result)
    }
}
