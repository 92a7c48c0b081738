//! Numbers with a mantissa of 64 bits: the `long double` of x86 in software, as far as INCRBYFLOAT needs it.
//!
//! Redis keeps INCRBYFLOAT's sums in 80-bit floats and prints them with seventeen decimals. Doubles would
//! give other digits (0.1 + 0.2 is 0.3 there), so addition, parsing and printing are done here as the
//! hardware and the C library do them: every result is the nearest value, the even one on a tie.

use super::decimal::{self, Decimal, Hexadecimal};

/// Exponents of the lowest mantissa bit: of the smallest number, and of the largest.
const EXPONENT_MIN: i32 = -16445;
const EXPONENT_MAX: i32 = 16320;
/// The longest text that is read, in bytes; Redis has a buffer of this size.
const TEXT_MAX: usize = 5 * 1024;
/// The decimals that are printed, before trailing zeros are cut off.
const DECIMALS: usize = 17;

/// A number `mantissa * 2^exponent`, or an infinity.
///
/// The mantissa's highest bit is set, except in zero and in numbers too small for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i32,
}

impl Extended {
    /// Zero, positive.
    pub const ZERO: Extended = Extended { negative: false, infinite: false, mantissa: 0, exponent: EXPONENT_MIN };

    /// Reads a number in any form of C, as [`super::parse_f64`] does, with the range of this type.
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.is_empty() || text.len() >= TEXT_MAX {
            return None;
        }
        let (negative, body) = decimal::sign(text);
        if decimal::is_infinity(body) {
            return Some(Extended { negative, infinite: true, ..Extended::ZERO });
        }
        let magnitude = if let Some(hex) = Hexadecimal::parse(body) {
            Extended::rounded(hex.mantissa, hex.sticky, hex.exponent)
        } else {
            from_decimal(&Decimal::parse(body)?)
        };
        let zero = magnitude.mantissa == 0;
        if magnitude.infinite || (zero && !spells_zero(body)) {
            return None;
        }
        Some(Extended { negative, ..magnitude })
    }

    /// Whether this is a number, not an infinity.
    pub fn is_finite(self) -> bool {
        !self.infinite
    }

    /// The sum, rounded; `None` if it is no number (infinities of both signs).
    pub fn plus(self, other: Extended) -> Option<Extended> {
        if self.infinite || other.infinite {
            if self.infinite && other.infinite && self.negative != other.negative {
                return None;
            }
            return Some(if self.infinite { self } else { other });
        }
        if self.mantissa == 0 && other.mantissa == 0 {
            return Some(Extended { negative: self.negative && other.negative, ..Extended::ZERO });
        }
        let (large, small) = if (self.order(), self.mantissa) >= (other.order(), other.mantissa) {
            (self, other)
        } else {
            (other, self)
        };
        // Sixty-three bits below the larger mantissa and one above it. Beyond those the smaller number only tells a tie
        // from no tie.
        let wide = u128::from(large.mantissa) << 63;
        let exponent = large.exponent - 63;
        let shift = small.exponent - exponent;
        let (addend, lost) = if shift >= 0 {
            (u128::from(small.mantissa) << shift, false)
        } else if shift > -64 {
            let mantissa = small.mantissa;
            (u128::from(mantissa >> -shift), mantissa.trailing_zeros() < shift.unsigned_abs())
        } else {
            (0, small.mantissa != 0)
        };
        let mut negative = large.negative;
        let sum = if large.negative == small.negative {
            Extended::rounded(wide + addend, lost, exponent)
        } else {
            // What was lost made the smaller number larger: one less, and something above that.
            Extended::rounded(wide - addend - u128::from(lost), lost, exponent)
        };
        if sum.mantissa == 0 {
            negative = false;
        }
        Some(Extended { negative, ..sum })
    }

    /// Appends the number with up to seventeen decimals and never an exponent, trailing zeros cut off; zero has no sign.
    pub fn append(self, out: &mut Vec<u8>) {
        let begin = out.len();
        if self.negative {
            out.push(b'-');
        }
        if self.infinite {
            out.extend_from_slice(b"inf");
            return;
        }
        self.append_magnitude(out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
        if out.last() == Some(&b'.') {
            out.pop();
        }
        if out[begin..] == *b"-0" {
            out.truncate(begin);
            out.push(b'0');
        }
    }

    /// All digits and all decimals.
    fn append_magnitude(self, out: &mut Vec<u8>) {
        const SCALE: u128 = 10u128.pow(DECIMALS as u32);
        let down = self.exponent.unsigned_abs();
        let (whole, decimals) = match self.exponent {
            0.. => {
                let mut whole = Natural::from(u128::from(self.mantissa));
                whole.shift_left(down);
                whole.append(out);
                (None, 0)
            }
            -63..0 => {
                let whole = self.mantissa >> down;
                let fraction = u128::from(self.mantissa & ((1 << down) - 1)) * SCALE;
                (Some(whole), nearest(fraction, down))
            }
            // Below one. Fifty-seven bits of the scale and sixty-four of the mantissa: nothing is left from 122 on.
            -121..-63 => (Some(0), nearest(u128::from(self.mantissa) * SCALE, down)),
            _ => (Some(0), 0),
        };
        if let Some(whole) = whole {
            super::append_u64(out, whole + u64::from(decimals == SCALE));
        }
        let decimals = format!(".{:0width$}", decimals % SCALE, width = DECIMALS);
        out.extend_from_slice(decimals.as_bytes());
    }

    /// The nearest number to `value * 2^exponent`, plus something less than `2^exponent` if `sticky`.
    fn rounded(value: u128, sticky: bool, exponent: i32) -> Extended {
        if value == 0 {
            return Extended::ZERO;
        }
        let drop = (64 - value.leading_zeros() as i32).max(EXPONENT_MIN.saturating_sub(exponent));
        let mut number =
            Extended { negative: false, infinite: false, mantissa: 0, exponent: exponent.saturating_add(drop) };
        if drop > 128 {
            return Extended::ZERO;
        } else if drop <= 0 {
            debug_assert!(!sticky || drop == 0, "bits that are missing cannot be rounded");
            number.mantissa = (value as u64) << -drop;
        } else {
            let (kept, rest) = if drop == 128 { (0, value) } else { (value >> drop, value & ((1 << drop) - 1)) };
            let half = 1u128 << (drop - 1);
            let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
            let kept = kept as u64;
            match kept.checked_add(u64::from(up)) {
                Some(mantissa) => number.mantissa = mantissa,
                None => {
                    number.mantissa = 1 << 63;
                    number.exponent += 1;
                }
            }
        }
        if number.exponent > EXPONENT_MAX {
            return Extended { infinite: true, ..Extended::ZERO };
        }
        number
    }

    /// Larger numbers are not below smaller ones by it; zero is lowest.
    fn order(self) -> i32 {
        if self.mantissa == 0 { i32::MIN } else { self.exponent }
    }
}

/// An integer, exactly.
impl From<i64> for Extended {
    fn from(value: i64) -> Extended {
        let magnitude = Extended::rounded(u128::from(value.unsigned_abs()), false, 0);
        Extended { negative: value < 0, ..magnitude }
    }
}

/// Whether a well-formed number is zero by its digits.
fn spells_zero(body: &[u8]) -> bool {
    match Hexadecimal::parse(body) {
        Some(hex) => hex.mantissa == 0,
        None => decimal::is_zero(body),
    }
}

/// `value / 2^down`, rounded to the nearest integer, the even one on a tie; `down` is 1 to 127.
fn nearest(value: u128, down: u32) -> u128 {
    let kept = value >> down;
    let rest = value & ((1 << down) - 1);
    let half = 1u128 << (down - 1);
    kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
}

/// The nearest number to a decimal.
fn from_decimal(decimal: &Decimal) -> Extended {
    let digits = &decimal.digits;
    // Of the first digit; far outside of the range nothing need be calculated.
    let magnitude = i64::from(decimal.exponent) + digits.len() as i64;
    if digits.is_empty() || magnitude < -5000 {
        return Extended::ZERO;
    }
    if magnitude > 5000 {
        return Extended { infinite: true, ..Extended::ZERO };
    }
    if digits.len() <= 19 && decimal.exponent.unsigned_abs() <= 27 {
        let value = digits.iter().fold(0u64, |value, &digit| value * 10 + u64::from(digit));
        let power = 5u64.pow(decimal.exponent.unsigned_abs());
        if decimal.exponent >= 0 {
            // Sixty-four bits by sixty-three.
            return Extended::rounded(u128::from(value) * u128::from(power), false, decimal.exponent);
        }
        let shift = u128::from(value).leading_zeros();
        let (dividend, divisor) = (u128::from(value) << shift, u128::from(power));
        return Extended::rounded(dividend / divisor, dividend % divisor != 0, decimal.exponent - shift as i32);
    }
    let mut value = Natural::default();
    for &digit in digits {
        value.multiply_add(10, u32::from(digit));
    }
    if decimal.exponent >= 0 {
        value.multiply_by_power_of_five(decimal.exponent.unsigned_abs());
        let (top, sticky, exponent) = value.top();
        return Extended::rounded(top, sticky, exponent + decimal.exponent);
    }
    // digits / (5^e * 2^e): the dividend is shifted until the quotient has at least 66 bits.
    let mut divisor = Natural::from(1);
    divisor.multiply_by_power_of_five(decimal.exponent.unsigned_abs());
    let shift = (divisor.bits() + 70).saturating_sub(value.bits());
    value.shift_left(shift);
    let (quotient, sticky, exponent) = value.divided_by(&divisor);
    Extended::rounded(quotient, sticky, exponent + decimal.exponent - shift as i32)
}

/// An integer of any size: 32 bits per limb, lowest first, the highest not zero.
#[derive(Clone, Default, PartialEq, Eq)]
struct Natural(Vec<u32>);

impl From<u128> for Natural {
    fn from(mut value: u128) -> Natural {
        let mut limbs = Vec::new();
        while value > 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        Natural(limbs)
    }
}

impl Natural {
    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_five(&mut self, mut power: u32) {
        while power > 0 {
            let step = power.min(13);
            self.multiply_add(5u32.pow(step), 0);
            power -= step;
        }
    }

    fn shift_left(&mut self, bits: u32) {
        if self.0.is_empty() {
            return;
        }
        self.multiply_add(1 << (bits % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, bits as usize / 32));
    }

    /// The 128 bits from bit `low` on, and whether anything is below them.
    fn window(&self, low: u32) -> (u128, bool) {
        let (limb, bit) = ((low / 32) as usize, low % 32);
        let at = |i: usize| u128::from(self.0.get(i).copied().unwrap_or(0));
        let mut value = (0..4).fold(0, |value, i| value | at(limb + i) << (32 * i)) >> bit;
        if bit > 0 {
            value |= at(limb + 4) << (128 - bit);
        }
        let below = self.0.iter().take(limb).any(|&limb| limb != 0) || at(limb) & ((1 << bit) - 1) != 0;
        (value, below)
    }

    /// The top 128 bits, whether anything is below them, and the exponent of the lowest of them.
    fn top(&self) -> (u128, bool, i32) {
        let low = self.bits().saturating_sub(128);
        let (value, below) = self.window(low);
        (value, below, low as i32)
    }

    /// The quotient's top bits, at most 128 of them, whether anything is below them, and the exponent of the lowest. The
    /// quotient must have fewer than 2^16 bits.
    fn divided_by(mut self, divisor: &Natural) -> (u128, bool, i32) {
        // Bit by bit: there are about seventy of them, unless the dividend has thousands of digits, and then the
        // first 128 are enough.
        let mut shift = self.bits().saturating_sub(divisor.bits());
        let mut scaled = divisor.clone();
        scaled.shift_left(shift);
        let mut quotient = 0u128;
        loop {
            quotient <<= 1;
            if self.at_least(&scaled) {
                self.subtract(&scaled);
                quotient |= 1;
            }
            if shift == 0 || quotient >> 127 == 1 {
                return (quotient, !self.0.is_empty(), shift as i32);
            }
            scaled.halve();
            shift -= 1;
        }
    }

    fn at_least(&self, other: &Natural) -> bool {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_ge()
    }

    fn subtract(&mut self, other: &Natural) {
        let mut borrow = false;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        self.trim();
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let next = *limb << 31;
            *limb = *limb >> 1 | carry;
            carry = next;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Appends the number in decimal.
    fn append(mut self, out: &mut Vec<u8>) {
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                let value = rest << 32 | u64::from(*limb);
                *limb = (value / 1_000_000_000) as u32;
                rest = value % 1_000_000_000;
            }
            self.trim();
            groups.push(rest);
        }
        let Some(first) = groups.pop() else { return out.push(b'0') };
        super::append_u64(out, first);
        for group in groups.iter().rev() {
            out.extend_from_slice(format!("{group:09}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let sum = Extended::parse(a.as_bytes())?.plus(Extended::parse(b.as_bytes())?)?;
        let mut text = Vec::new();
        sum.append(&mut text);
        Some(String::from_utf8(text).unwrap())
    }

    /// Every row was answered by a Redis server on x86.
    #[test]
    fn sums_are_those_of_redis() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("1", "1.123456789012345678", "2.12345678901234568"),
            ("-0.1", "0.1", "0"),
            ("0", "-0", "0"),
            ("1e20", "1e-17", "100000000000000000000"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("18446744073709551614", "0.5", "18446744073709551614"),
            ("1e4000", "-1e4000", "0"),
            ("1e30", "1", "1000000000000000000024696061952"),
            ("0x1p4", "0x.8", "16.5"),
            ("0x19d3d5fe55f4a9cd1.8p0", "-1", "29777061749994462416"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
            ("0.000000000000000005", "0", "0"),
            ("0.0000000000000000051", "0", "0.00000000000000001"),
            ("1e-400", "0", "0"),
            ("-1e-400", "0", "0"),
            ("123456789.123456789", "-0.000000001", "123456789.12345678800193127"),
            ("3.141592653589793238462643383279502884197", "0", "3.14159265358979324"),
            ("99999999999999999999.5", "0.5", "100000000000000000000"),
            (
                "1.7976931348623157e308",
                "1",
                "179769313486231569995921046774104434048386446944329178485314420765176628523124396354701868608387085564428793419425520689308708363451136055357897278026477617073498977686288394835618163294045594434929537447290627480669417384648879122776218333598953852832103282504751611691208117720159985926376802466863339536384",
            ),
            ("0.99999999999999999999999", "0", "1"),
            ("-17.50", "17.25", "-0.25"),
            ("1e-4950", "0", "0"),
            ("12345678901234567890123456789012345678901234567890e-30", "1e-19", "12345678901234567890"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_refused() {
        for text in [
            "", " 1", "1 ", ".", "1e", "e5", "nan", "-nan", "nan(1)", "infin", "0x", "0x1p", "1_0", "+-1", "1e5000",
            "1e-5000", "--1",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        assert!(Extended::parse("1".repeat(5 * 1024).as_bytes()).is_none());
        assert!(Extended::parse(b"0e5000").is_some());
        assert!(Extended::parse(b"1e-4940").is_some());
    }

    #[test]
    fn infinities_are_no_finite_sum() {
        let infinity = Extended::parse(b"inf").unwrap();
        assert!(!infinity.plus(Extended::from(1)).unwrap().is_finite());
        assert_eq!(infinity.plus(Extended::parse(b"-Infinity").unwrap()), None);
        let largest = Extended::parse(b"1.1e4932").unwrap();
        assert!(!largest.plus(largest).unwrap().is_finite());
    }

    proptest! {
        #[test]
        fn integers_add_as_integers(a in -(1i64 << 61)..1 << 61, b in -(1i64 << 61)..1 << 61) {
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()), Some((a + b).to_string()));
            prop_assert_eq!(Extended::from(a), Extended::parse(a.to_string().as_bytes()).unwrap());
        }

        #[test]
        fn decimals_add_as_fixed_point_numbers_do(a in -10i64.pow(12)..10i64.pow(12), b in -10i64.pow(12)..10i64.pow(12)) {
            // Twelve digits of the nineteen leave seven for the error: far below the last decimal that was given.
            let text = |n: i64| format!("{}{}.{:06}", if n < 0 { "-" } else { "" }, n.abs() / 1_000_000, n.abs() % 1_000_000);
            let got = sum(&text(a), &text(b)).unwrap();
            let (whole, decimals) = got.split_once('.').unwrap_or((&got, ""));
            let scaled: i128 = format!("{whole}{decimals:0<17}").parse().unwrap();
            let error = scaled - i128::from(a + b) * 10i128.pow(11);
            prop_assert!(error.abs() < 1_000_000, "{} + {} = {}", text(a), text(b), got);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[-+0-9.exXpPaAinf]{0,40}", other in "-?[0-9]{1,30}(\\.[0-9]{1,30})?(e-?[0-9]{1,4})?") {
            let _ = sum(&text, &other);
            let _ = sum(&other, &text);
        }

        #[test]
        fn long_and_short_ways_of_reading_agree(digits in 1u64..10_000_000_000_000_000_000, exponent in -27i32..27) {
            // More than nineteen digits take the way over large integers.
            let short = Extended::parse(format!("{digits}e{exponent}").as_bytes());
            let long = format!("{digits}0000000000000000000000000000001e{}", exponent - 31);
            let long = Extended::parse(long.as_bytes());
            let near = |n: Extended| i128::from(n.mantissa) ;
            prop_assert!((near(short.unwrap()) - near(long.unwrap())).abs() <= 1);
        }
    }
}
