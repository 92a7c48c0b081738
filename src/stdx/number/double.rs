//! Doubles as Redis 7.2 prints scores and RESP3 doubles.
//!
//! Integers are printed as such; all others by Grisu2 (Florian Loitsch, "Printing Floating-Point Numbers
//! Quickly and Accurately with Integers", 2010), as in Redis. Grisu2 always reads back as the same
//! double, but one result in 600 is not the shortest or not the closest, which is why no shortest-form crate
//! stands here: replies are compared byte by byte.

/// The largest magnitude that is printed as an integer: half of `i64`'s.
const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;

/// The decimal exponent of the first cached power, and the step from each to the next.
const POWER_FIRST: i32 = -348;
const POWER_STEP: i32 = 8;
/// The binary exponents between which a scaled number must lie: low enough for an integer part of 32 bits,
/// high enough for a fraction that can be multiplied by ten.
const EXPONENT_MIN: i32 = -60;
const EXPONENT_MAX: i32 = -32;

/// A number `mantissa * 2^exponent`.
#[derive(Clone, Copy)]
struct Scaled {
    mantissa: u64,
    exponent: i32,
}

impl Scaled {
    /// The product, its mantissa rounded to 64 bits.
    fn times(self, other: Scaled) -> Scaled {
        let product = u128::from(self.mantissa) * u128::from(other.mantissa) + (1 << 63);
        Scaled { mantissa: (product >> 64) as u64, exponent: self.exponent + other.exponent + 64 }
    }

    /// The same number with its mantissa's highest bit set.
    fn normalized(self) -> Scaled {
        let shift = self.mantissa.leading_zeros();
        Scaled { mantissa: self.mantissa << shift, exponent: self.exponent - shift as i32 }
    }
}

/// Appends `value` as Redis prints it: `3`, `3.5`, `1e+20`, `1.5e-7`, `inf`, `-inf`, `nan`, `-0`.
pub fn append_double(out: &mut Vec<u8>, value: f64) {
    if value != 0.0 && value.abs() <= INTEGER_MAX && value as i64 as f64 == value {
        super::append_i64(out, value as i64);
    } else {
        append_double_digits(out, value);
    }
}

/// The same, but that whole numbers are not treated as such: `1e+15`.
pub fn append_double_digits(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else {
        append_digits(out, value);
    }
}

fn append_digits(out: &mut Vec<u8>, value: f64) {
    if value < 0.0 {
        out.push(b'-');
    }
    let mut digits = [0; 20];
    let (count, exponent) = grisu2(value.abs(), &mut digits);
    // Redis cuts what would not fit into its buffer.
    let room = if value < 0.0 { 17 } else { 18 };
    layout(out, &digits[..count], exponent, room);
}

/// [`append_double`] to a value of its own.
pub fn format_double(value: f64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    append_double(&mut out, value);
    out
}

/// Appends `value` with seventeen significant digits, as C's `%.17g` prints it.
pub fn append_double_17(out: &mut Vec<u8>, value: f64) {
    append_significant(out, value, 17);
}

/// Appends `value` with so many significant digits at most, one at least, as C's `%.<digits>g` prints it.
pub fn append_significant(out: &mut Vec<u8>, value: f64, most: i32) {
    if !value.is_finite() || value == 0.0 {
        return append_double(out, value);
    }
    let behind_point = most as usize - 1;
    let text = format!("{:.behind_point$e}", value.abs());
    let (digits, exponent) = text.split_once('e').expect("this form has an exponent");
    let exponent: i32 = exponent.parse().expect("and a number behind it");
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_digit).collect();
    let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
    let digits = &digits[..kept];
    if value < 0.0 {
        out.push(b'-');
    }
    if !(-4..most).contains(&exponent) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        super::append_u64(out, u64::from(exponent.unsigned_abs()));
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + exponent.unsigned_abs() as usize - 1, b'0');
        out.extend_from_slice(digits);
    } else {
        let whole = exponent as usize + 1;
        out.extend_from_slice(&digits[..whole.min(digits.len())]);
        out.resize(out.len() + whole.saturating_sub(digits.len()), b'0');
        if digits.len() > whole {
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// Writes `digits * 10^exponent`, plainly or with an exponent, whichever Redis does.
fn layout(out: &mut Vec<u8>, digits: &[u8], exponent: i32, room: usize) {
    let count = digits.len() as i32;
    // Of the first digit.
    let magnitude = exponent + count - 1;
    if exponent >= 0 && magnitude < count + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + exponent as usize, b'0');
    } else if exponent < 0 && (exponent > -7 || magnitude.abs() < 4) {
        let whole = count + exponent;
        if whole <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + whole.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(whole as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        let digits = &digits[..digits.len().min(room)];
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if magnitude < 0 { b"e-" } else { b"e+" });
        super::append_u64(out, u64::from(magnitude.unsigned_abs()));
    }
}

/// The digits of a positive finite number and the power of ten to multiply them with: how many digits, and that power.
fn grisu2(value: f64, digits: &mut [u8; 20]) -> (usize, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let exact = match exponent {
        0 => Scaled { mantissa: fraction, exponent: -1074 },
        _ => Scaled { mantissa: fraction | 1 << 52, exponent: exponent - 1075 },
    };
    // Half way to the neighbours; the lower one is nearer below a power of two.
    let high = Scaled { mantissa: 2 * exact.mantissa + 1, exponent: exact.exponent - 1 }.normalized();
    let shift = if exact.mantissa == 1 << 52 { 2 } else { 1 };
    let low = (exact.mantissa << shift) - 1;
    let low = Scaled { mantissa: low << (exact.exponent - shift - high.exponent), exponent: high.exponent };

    let (power, decimal) = cached_power(high.exponent);
    let scaled = exact.normalized().times(power);
    // One unit inwards, since products are only exact to one unit.
    let high = Scaled { mantissa: high.times(power).mantissa - 1, ..high.times(power) };
    let low = low.times(power).mantissa + 1;
    let (count, kappa) = shortest_between(scaled.mantissa, low, high, digits);
    (count, kappa - decimal)
}

/// Generates the fewest digits of a number not above `high` and not below `low`, then moves the last one
/// towards `wanted`; all three have `high`'s exponent. How many digits, and the power of ten of the last.
fn shortest_between(wanted: u64, low: u64, high: Scaled, digits: &mut [u8; 20]) -> (usize, i32) {
    let point = -high.exponent as u32;
    let below_one = (1u64 << point) - 1;
    let mut whole = high.mantissa >> point;
    let mut fraction = high.mantissa & below_one;
    let mut width = high.mantissa - low;
    let mut distance = high.mantissa - wanted;
    let mut count = 0;

    let mut unit = 1_000_000_000u64;
    for kappa in (0..10).rev() {
        let digit = whole / unit;
        whole %= unit;
        if digit > 0 || count > 0 {
            digits[count] = b'0' + digit as u8;
            count += 1;
        }
        let rest = (whole << point) + fraction;
        if rest <= width {
            approach(&mut digits[count - 1], rest, width, distance, unit << point);
            return (count, kappa);
        }
        unit /= 10;
    }
    let mut kappa = 0;
    loop {
        fraction *= 10;
        width *= 10;
        distance *= 10;
        kappa -= 1;
        let digit = fraction >> point;
        fraction &= below_one;
        if digit > 0 || count > 0 {
            digits[count] = b'0' + digit as u8;
            count += 1;
        }
        if fraction < width {
            approach(&mut digits[count - 1], fraction, width, distance, below_one + 1);
            return (count, kappa);
        }
    }
}

/// Lowers the last digit so that the result is as close to what was wanted as it can be, the higher of two that
/// are: `rest` is how far it is below the upper bound, `distance` how far it should be, `width` how far it
/// may be, `unit` what one step of the digit is worth.
fn approach(digit: &mut u8, rest: u64, width: u64, distance: u64, unit: u64) {
    let Some(gap) = distance.checked_sub(rest) else { return };
    let (steps, left) = (gap / unit, gap % unit);
    let nearest = steps + u64::from(left > unit - left);
    // A digit has nine steps at most, and what is within the bounds has no more digits to give.
    *digit -= nearest.min((width - rest) / unit) as u8;
}

/// The power of ten that brings a number with this binary exponent between the bounds, and its decimal exponent.
fn cached_power(exponent: i32) -> (Scaled, i32) {
    // The lowest that reaches the range, as Redis picks it; a step is 26.6 bits.
    let wanted = EXPONENT_MIN - 64 - exponent;
    let mut index = ((wanted - power_exponent(0)) * 10 / 266 - 1).max(0) as usize;
    while power_exponent(index) < wanted {
        index += 1;
    }
    debug_assert!(exponent + power_exponent(index) + 64 <= EXPONENT_MAX);
    (Scaled { mantissa: POWERS[index], exponent: power_exponent(index) }, POWER_FIRST + POWER_STEP * index as i32)
}

/// The binary exponent that belongs to `POWERS[index]`: from the logarithm of ten, 217706 / 65536.
fn power_exponent(index: usize) -> i32 {
    (((POWER_FIRST + POWER_STEP * index as i32) * 217_706) >> 16) - 63
}

/// The mantissas of 10^-348, 10^-340 ... 10^340, correctly rounded.
#[rustfmt::skip]
static POWERS: [u64; 87] = [
    0xfa8fd5a0081c0288, 0xbaaee17fa23ebf76, 0x8b16fb203055ac76, 0xcf42894a5dce35ea, 0x9a6bb0aa55653b2d,
    0xe61acf033d1a45df, 0xab70fe17c79ac6ca, 0xff77b1fcbebcdc4f, 0xbe5691ef416bd60c, 0x8dd01fad907ffc3c,
    0xd3515c2831559a83, 0x9d71ac8fada6c9b5, 0xea9c227723ee8bcb, 0xaecc49914078536d, 0x823c12795db6ce57,
    0xc21094364dfb5637, 0x9096ea6f3848984f, 0xd77485cb25823ac7, 0xa086cfcd97bf97f4, 0xef340a98172aace5,
    0xb23867fb2a35b28e, 0x84c8d4dfd2c63f3b, 0xc5dd44271ad3cdba, 0x936b9fcebb25c996, 0xdbac6c247d62a584,
    0xa3ab66580d5fdaf6, 0xf3e2f893dec3f126, 0xb5b5ada8aaff80b8, 0x87625f056c7c4a8b, 0xc9bcff6034c13053,
    0x964e858c91ba2655, 0xdff9772470297ebd, 0xa6dfbd9fb8e5b88f, 0xf8a95fcf88747d94, 0xb94470938fa89bcf,
    0x8a08f0f8bf0f156b, 0xcdb02555653131b6, 0x993fe2c6d07b7fac, 0xe45c10c42a2b3b06, 0xaa242499697392d3,
    0xfd87b5f28300ca0e, 0xbce5086492111aeb, 0x8cbccc096f5088cc, 0xd1b71758e219652c, 0x9c40000000000000,
    0xe8d4a51000000000, 0xad78ebc5ac620000, 0x813f3978f8940984, 0xc097ce7bc90715b3, 0x8f7e32ce7bea5c70,
    0xd5d238a4abe98068, 0x9f4f2726179a2245, 0xed63a231d4c4fb27, 0xb0de65388cc8ada8, 0x83c7088e1aab65db,
    0xc45d1df942711d9a, 0x924d692ca61be758, 0xda01ee641a708dea, 0xa26da3999aef774a, 0xf209787bb47d6b85,
    0xb454e4a179dd1877, 0x865b86925b9bc5c2, 0xc83553c5c8965d3d, 0x952ab45cfa97a0b3, 0xde469fbd99a05fe3,
    0xa59bc234db398c25, 0xf6c69a72a3989f5c, 0xb7dcbf5354e9bece, 0x88fcf317f22241e2, 0xcc20ce9bd35c78a5,
    0x98165af37b2153df, 0xe2a0b5dc971f303a, 0xa8d9d1535ce3b396, 0xfb9b7cd9a4a7443c, 0xbb764c4ca7a44410,
    0x8bab8eefb6409c1a, 0xd01fef10a657842c, 0x9b10a4e5e9913129, 0xe7109bfba19c0c9d, 0xac2820d9623bf429,
    0x80444b5e7aa7cf85, 0xbf21e44003acdd2d, 0x8e679c2f5e44ff8f, 0xd433179d9c8cb841, 0x9e19db92b4e31ba9,
    0xeb96bf6ebadf77d9, 0xaf87023b9bf0ee6b,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::number::extended::Extended;
    use proptest::prelude::*;

    #[test]
    fn doubles_look_as_in_redis() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (3.0, "3"),
            (-17.5, "-17.5"),
            (3.125, "3.125"),
            (0.1, "0.1"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (0.001234567890123, "0.001234567890123"),
            (0.0001234567890123, "1.234567890123e-4"),
            (1e17, "100000000000000000"),
            (4e18, "4000000000000000000"),
            (1e19, "1e+19"),
            (1e20, "1e+20"),
            (1.2345678901234568e22, "12345678901234568000000"),
            (-2.5e300, "-2.5e+300"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            // Neither of these is the shortest form.
            (-623.797787815145, "-623.7977878151451"),
            (291.1449097981845, "291.14490979818447"),
        ] {
            assert_eq!(String::from_utf8(format_double(value)).unwrap(), expected);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of cases, of safe code")]
    fn the_last_digit_is_the_closest_within_the_bounds() {
        for unit in [1u64, 2, 7, 10] {
            for (rest, width, distance) in
                (0..30u64).flat_map(|r| (r..60).flat_map(move |w| (0..=w).map(move |d| (r, w, d))))
            {
                let most = ((width - rest) / unit).min(9);
                let closest = (0..=most).min_by_key(|steps| (rest + steps * unit).abs_diff(distance)).unwrap();
                if distance < rest + 9 * unit {
                    let mut digit = b'9';
                    approach(&mut digit, rest, width, distance, unit);
                    assert_eq!(u64::from(b'9' - digit), closest, "{rest} {width} {distance} {unit}");
                }
            }
        }
    }

    #[test]
    fn seventeen_digits_look_as_in_c() {
        for (value, expected) in [
            (0.1, "0.10000000000000001"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-2.5, "-2.5"),
            (1e20, "1e+20"),
            (1e16, "10000000000000000"),
            (123_456_789_012_345_678.0, "1.2345678901234568e+17"),
            (12_345_678_901_234_568.0, "12345678901234568"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (1e-300, "1e-300"),
            (1e15 + 0.25, "1000000000000000.2"),
            (1e15 + 0.75, "1000000000000000.8"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let mut out = Vec::new();
            append_double_17(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_cached_powers_are_the_nearest_ones() {
        for (index, &mantissa) in POWERS.iter().enumerate() {
            let decimal = POWER_FIRST + POWER_STEP * index as i32;
            let hex = format!("0x{mantissa:x}p{}", power_exponent(index));
            let nearest = Extended::parse(format!("1e{decimal}").as_bytes());
            assert_eq!(Extended::parse(hex.as_bytes()), nearest, "10^{decimal}");
        }
    }

    proptest! {
        #[test]
        fn every_double_reads_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = format_double(value);
            prop_assert_eq!(crate::stdx::number::parse_f64(&text), Some(value), "{}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn every_decimal_of_fifteen_digits_is_kept(digits in 1i64..1_000_000_000_000_000, decimals in 1usize..15) {
            let value: f64 = format!("{digits}e-{decimals}").parse().unwrap();
            let back: f64 = std::str::from_utf8(&format_double(value)).unwrap().parse().unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
