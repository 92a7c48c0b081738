//! Amounts of memory as text: `100`, `64mb`, `1g`.
//!
//! `k`, `m` and `g` are powers of a thousand, `kb`, `mb` and `gb` powers of 1024, in any case.

/// Longer digits than this are not a number.
const MAX_DIGITS: usize = 127;

/// The number of bytes that `text` names; `None` if it is not an amount.
///
/// Amounts too large for `u128` are cut to its largest value, so the caller's own limit refuses them.
/// No digits at all are 0, as in Redis.
pub fn parse_bytes(text: &[u8]) -> Option<u128> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let unit: u128 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    if digits > MAX_DIGITS {
        return None;
    }
    let number = number.iter().fold(0u128, |n, b| n.saturating_mul(10).saturating_add(u128::from(b - b'0')));
    Some(number.saturating_mul(unit))
}

/// `bytes` in the largest binary unit that divides it: `1gb`, `1536kb`, `1000`.
pub fn format_bytes(bytes: u128) -> String {
    for (size, unit) in [(1u128 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")] {
        if bytes != 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_decimal_without_b_and_binary_with_it() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1k", 1000),
            ("1kb", 1024),
            ("2M", 2_000_000),
            ("2Mb", 2 << 20),
            ("3g", 3_000_000_000),
            ("3gB", 3 << 30),
            ("", 0),
        ] {
            assert_eq!(parse_bytes(text.as_bytes()), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["-1", "1.5mb", "1tb", "mb1", "1 mb", "0x10"] {
            assert_eq!(parse_bytes(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_bytes(&[b'9'; 128]), None);
        assert_eq!(parse_bytes(&[b'9'; 127]), Some(u128::MAX));
    }

    proptest! {
        #[test]
        fn formatted_amounts_are_read_back(bytes: u64) {
            prop_assert_eq!(parse_bytes(format_bytes(bytes.into()).as_bytes()), Some(bytes.into()));
        }
    }
}
