//! Bitmaps: what is asked of a string as a row of bits. Bit 0 is the highest bit of the first byte.
//!
//! Functions over bytes and nothing else. What must stay true: bits beyond the end read as zero and are never
//! written; whole bytes are worked on in words, in loops that compilers turn into vector instructions.

use std::ops::Range;

/// What BITOP does to each bit of its sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Set in all of them.
    And,
    /// Set in at least one.
    Or,
    /// Set in an odd number of them.
    Xor,
    /// Not set in the only one.
    Not,
    /// Set in the first and in no other.
    Diff,
    /// Not set in the first, but in another.
    Diff1,
    /// Set in the first and in another.
    AndOr,
    /// Set in just one.
    One,
}

/// What becomes of a sum that does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The higher bits are lost.
    Wrap,
    /// The nearest value that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

/// An integer of some bits within a row of bits, its highest bit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Two's complement, or without a sign.
    pub signed: bool,
    /// 1 to 64 bits, 63 without a sign.
    pub width: u32,
    /// Where its highest bit is.
    pub offset: u64,
}

/// So many bytes of each source are combined at a time, so that they stay in the nearest cache.
const BLOCK: usize = 8 * 1024;

/// The bit at `offset`.
#[inline]
pub fn bit(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

/// Sets or clears the bit at `offset`, which must be within; returns what it was.
#[inline]
pub fn set_bit(bytes: &mut [u8], offset: u64, on: bool) -> bool {
    let (byte, mask) = (&mut bytes[(offset / 8) as usize], 0x80 >> (offset % 8));
    let was = *byte & mask != 0;
    *byte = if on { *byte | mask } else { *byte & !mask };
    was
}

/// How many bits are set.
pub fn count(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// How many of the bits in `range`, which must be within, are set.
pub fn count_within(bytes: &[u8], range: Range<u64>) -> u64 {
    let parts = Parts::new(bytes, range);
    let edge = |edge: Option<(u64, u8, u8)>| edge.map_or(0, |(_, byte, mask)| u64::from((byte & mask).count_ones()));
    edge(parts.head) + count(parts.middle.1) + edge(parts.tail)
}

/// The first of the bits in `range`, which must be within, that is `wanted`.
pub fn position(bytes: &[u8], range: Range<u64>, wanted: bool) -> Option<u64> {
    let parts = Parts::new(bytes, range);
    let in_edge = |edge: Option<(u64, u8, u8)>| {
        let (at, byte, mask) = edge?;
        let found = if wanted { byte & mask } else { !byte & mask };
        (found != 0).then(|| at + u64::from(found.leading_zeros()))
    };
    let in_middle = || {
        let (at, middle) = parts.middle;
        let skipped = if wanted { 0 } else { u8::MAX };
        let (words, rest) = middle.as_chunks::<8>();
        let other = [skipped; 8];
        let byte = match words.iter().position(|word| *word != other) {
            Some(word) => 8 * word + words[word].iter().position(|byte| *byte != skipped)?,
            None => middle.len() - rest.len() + rest.iter().position(|byte| *byte != skipped)?,
        };
        Some(at + 8 * byte as u64 + u64::from((middle[byte] ^ skipped).leading_zeros()))
    };
    in_edge(parts.head).or_else(in_middle).or_else(|| in_edge(parts.tail))
}

/// A range of bits as whole bytes, and the bytes of which only a part belongs to it: the number of
/// the byte's first bit, the byte, a mask of what belongs.
struct Parts<'a> {
    head: Option<(u64, u8, u8)>,
    middle: (u64, &'a [u8]),
    tail: Option<(u64, u8, u8)>,
}

impl<'a> Parts<'a> {
    fn new(bytes: &'a [u8], range: Range<u64>) -> Parts<'a> {
        let (mut first, end) = (range.start / 8, range.end / 8);
        let (after, before) = (u8::MAX >> (range.start % 8), !(u8::MAX >> (range.end % 8)));
        let edge = |at: u64, mask: u8| Some((8 * at, bytes[at as usize], mask));
        if range.is_empty() {
            return Parts { head: None, middle: (0, &[]), tail: None };
        }
        if first == end {
            return Parts { head: edge(first, after & before), middle: (0, &[]), tail: None };
        }
        let mut head = None;
        if after != u8::MAX {
            head = edge(first, after);
            first += 1;
        }
        let tail = if before != 0 { edge(end, before) } else { None };
        Parts { head, middle: (8 * first, &bytes[first as usize..end as usize]), tail }
    }
}

/// The sources combined bit by bit: as long as the longest of them, the others with zeros added.
///
/// [`Operation::Not`] looks at the first source only.
pub fn combine(operation: Operation, sources: &[&[u8]]) -> Vec<u8> {
    let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let Some((first, others)) = sources.split_first() else { return Vec::new() };
    let mut result = vec![0; len];
    // What the others have in common with each other, or more than once.
    let mut aside = [0; BLOCK];
    for (n, out) in result.chunks_mut(BLOCK).enumerate() {
        let len = out.len();
        let part = |source: &[u8]| (n * BLOCK).min(source.len())..(n * BLOCK + len).min(source.len());
        let aside = &mut aside[..len];
        let own = &first[part(first)];
        let others = others.iter().map(|source| &source[part(source)]);
        match operation {
            Operation::And => {
                out[..own.len()].copy_from_slice(own);
                for other in others {
                    each(out, other, |a, b| *a &= b);
                    out[other.len()..].fill(0);
                }
            }
            Operation::Or => {
                out[..own.len()].copy_from_slice(own);
                others.for_each(|other| each(out, other, |a, b| *a |= b));
            }
            Operation::Xor => {
                out[..own.len()].copy_from_slice(own);
                others.for_each(|other| each(out, other, |a, b| *a ^= b));
            }
            Operation::Not => each(out, own, |a, b| *a = !b),
            Operation::Diff | Operation::Diff1 | Operation::AndOr => {
                others.for_each(|other| each(out, other, |a, b| *a |= b));
                match operation {
                    Operation::Diff => {
                        each(out, own, |a, b| *a = b & !*a);
                        out[own.len()..].fill(0);
                    }
                    Operation::Diff1 => each(out, own, |a, b| *a &= !b),
                    _ => {
                        each(out, own, |a, b| *a &= b);
                        out[own.len()..].fill(0);
                    }
                }
            }
            Operation::One => {
                aside.fill(0);
                out[..own.len()].copy_from_slice(own);
                for other in others {
                    for ((once, more), byte) in out.iter_mut().zip(&mut *aside).zip(other) {
                        *more |= *once & byte;
                        *once |= byte;
                    }
                }
                each(out, aside, |a, b| *a &= !b);
            }
        }
    }
    result
}

/// Changes each byte with its counterpart, as far as there is one.
#[inline]
fn each(out: &mut [u8], other: &[u8], change: impl Fn(&mut u8, u8)) {
    out.iter_mut().zip(other).for_each(|(a, b)| change(a, *b));
}

impl Field {
    /// The bit behind its last one.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.width)
    }

    /// Its value; bits beyond the end of `bytes` are zero.
    pub fn value(&self, bytes: &[u8]) -> i64 {
        let bits = (self.load(bytes) >> self.shift()) as u64 & self.mask();
        if self.signed {
            // The field's highest bit becomes the word's, and goes back with its copies.
            let unused = 64 - self.width;
            ((bits << unused) as i64) >> unused
        } else {
            bits as i64
        }
    }

    /// Writes a value that fits; the field must be within.
    pub fn write(&self, bytes: &mut [u8], value: i64) {
        let mask = u128::from(self.mask()) << self.shift();
        let word = self.load(bytes) & !mask | (value as u128) << self.shift() & mask;
        let first = (self.offset / 8) as usize;
        let used = (self.end().div_ceil(8) - self.offset / 8) as usize;
        bytes[first..first + used].copy_from_slice(&word.to_be_bytes()[..used]);
    }

    /// What is stored where `value` is to be: `None` where it does not fit and that is a failure. Without a sign a
    /// negative value is a very large one; with one, where values saturate, so is a value that is lower than the
    /// highest by more than 2^63: Redis' difference of the two is taken modulo 2^64.
    pub fn fit(&self, value: i64, overflow: Overflow) -> Option<i64> {
        let most = (self.mask() >> 1) as i64;
        if self.signed && self.width < 64 && overflow == Overflow::Saturate && most.checked_sub(value).is_none() {
            return Some(most);
        }
        self.fit_wide(if self.signed { value.into() } else { (value as u64).into() }, overflow)
    }

    /// What is stored where `by` is added to `value`, which is one of the field's.
    pub fn sum(&self, value: i64, by: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(i128::from(value) + i128::from(by), overflow)
    }

    fn fit_wide(&self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = if self.signed {
            (-1i128 << (self.width - 1), (1i128 << (self.width - 1)) - 1)
        } else {
            (0, i128::from(self.mask()))
        };
        if (least..=most).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(least, most) as i64),
            Overflow::Wrap => {
                let bits = value as u64 & self.mask();
                let unused = 64 - self.width;
                Some(if self.signed { ((bits << unused) as i64) >> unused } else { bits as i64 })
            }
        }
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.width)
    }

    /// How far its lowest bit is from the lowest of the word that [`Field::load`] returns.
    fn shift(&self) -> u32 {
        128 - (self.offset % 8) as u32 - self.width
    }

    /// The sixteen bytes from its first on: nine of them may be its own.
    fn load(&self, bytes: &[u8]) -> u128 {
        let first = usize::try_from(self.offset / 8).unwrap_or(usize::MAX).min(bytes.len());
        let there = &bytes[first..(first + 16).min(bytes.len())];
        let mut word = [0; 16];
        word[..there.len()].copy_from_slice(there);
        u128::from_be_bytes(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bits as a row of booleans.
    fn row(bytes: &[u8]) -> Vec<bool> {
        bytes.iter().flat_map(|byte| (0..8).map(move |n| byte >> (7 - n) & 1 == 1)).collect()
    }

    fn bytes_of(row: &[bool]) -> Vec<u8> {
        row.chunks(8).map(|bits| bits.iter().enumerate().map(|(n, on)| u8::from(*on) << (7 - n)).sum()).collect()
    }

    #[test]
    fn bits_beyond_the_end_are_zero() {
        assert!(!bit(b"\xff", 8) && !bit(b"", 0) && !bit(b"\xff", u64::MAX) && bit(b"\x01", 7));
        let field = Field { signed: false, width: 8, offset: 4 };
        assert_eq!((field.value(b"\xff"), field.value(b"")), (0xf0, 0));
        assert_eq!(Field { signed: true, width: 64, offset: u64::MAX - 64 }.value(b"\xff"), 0);
    }

    #[test]
    fn a_row_of_equal_bytes_has_no_other_bit() {
        for len in [0, 1, 7, 8, 9, 63, 64, 100] {
            let ones = vec![0xff; len];
            assert_eq!(position(&ones, 0..8 * len as u64, false), None);
            assert_eq!(position(&ones, 0..8 * len as u64, true), (len > 0).then_some(0));
            assert_eq!(count(&ones), 8 * len as u64);
        }
    }

    #[test]
    fn fields_wrap_saturate_or_fail() {
        let i8 = Field { signed: true, width: 8, offset: 0 };
        assert_eq!(i8.sum(127, 1, Overflow::Wrap), Some(-128));
        assert_eq!(i8.sum(127, 1, Overflow::Saturate), Some(127));
        assert_eq!(i8.sum(-128, i64::MIN, Overflow::Saturate), Some(-128));
        assert_eq!(i8.sum(127, 1, Overflow::Fail), None);
        assert_eq!(i8.fit(-129, Overflow::Wrap), Some(127));
        let u8 = Field { signed: false, ..i8 };
        assert_eq!(u8.sum(250, 10, Overflow::Wrap), Some(4));
        assert_eq!(u8.sum(5, -6, Overflow::Saturate), Some(0));
        assert_eq!(u8.fit(-1, Overflow::Saturate), Some(255));
        assert_eq!(i8.fit(i64::MIN + 128, Overflow::Saturate), Some(-128));
        assert_eq!(i8.fit(i64::MIN + 127, Overflow::Saturate), Some(127));
        let i64 = Field { signed: true, width: 64, offset: 3 };
        assert_eq!(i64.sum(i64::MAX, 1, Overflow::Wrap), Some(i64::MIN));
        assert_eq!(i64.sum(i64::MIN, -1, Overflow::Saturate), Some(i64::MIN));
        assert_eq!(Field { signed: true, width: 1, offset: 0 }.sum(0, 1, Overflow::Wrap), Some(-1));
    }

    fn operation() -> impl Strategy<Value = Operation> {
        use Operation::*;
        prop::sample::select(vec![And, Or, Xor, Not, Diff, Diff1, AndOr, One])
    }

    /// Bytes of which many are alike, so that words are skipped.
    fn string() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(0u8), 4 => Just(0xff), 1 => any::<u8>()];
        prop_oneof![prop::collection::vec(byte, 0..40), prop::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn counting_and_finding_agree_with_a_row_of_booleans(bytes in string(), a in any::<u64>(), b in any::<u64>(), wanted: bool) {
            let row = row(&bytes);
            let len = row.len() as u64 + 1;
            let (start, end) = ((a % len).min(b % len), (a % len).max(b % len));
            let part = &row[start as usize..end as usize];
            prop_assert_eq!(count(&bytes), row.iter().filter(|on| **on).count() as u64);
            prop_assert_eq!(count_within(&bytes, start..end), part.iter().filter(|on| **on).count() as u64);
            let found = part.iter().position(|on| *on == wanted).map(|at| start + at as u64);
            prop_assert_eq!(position(&bytes, start..end, wanted), found);
        }

        #[test]
        fn combining_agrees_bit_by_bit(
            operation in operation(), mut sources in prop::collection::vec(string(), 1..5), large: bool,
        ) {
            if operation == Operation::Not {
                sources.truncate(1);
            }
            if large && !cfg!(miri) {
                sources[0].resize(BLOCK + 3, 0x5a);
            }
            let rows: Vec<Vec<bool>> = sources.iter().map(|source| row(source)).collect();
            let len = rows.iter().map(Vec::len).max().unwrap_or(0);
            let expected: Vec<bool> = (0..len).map(|at| {
                let bits: Vec<bool> = rows.iter().map(|row| row.get(at).copied().unwrap_or(false)).collect();
                let set = bits.iter().filter(|on| **on).count();
                let others = bits[1..].contains(&true);
                match operation {
                    Operation::And => set == bits.len(),
                    Operation::Or => set > 0,
                    Operation::Xor => set % 2 == 1,
                    Operation::Not => set == 0,
                    Operation::Diff => bits[0] && !others,
                    Operation::Diff1 => !bits[0] && others,
                    Operation::AndOr => bits[0] && others,
                    Operation::One => set == 1,
                }
            }).collect();
            let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(combine(operation, &sources), bytes_of(&expected));
        }

        #[test]
        fn fields_keep_what_is_written_and_touch_nothing_else(
            mut bytes in prop::collection::vec(any::<u8>(), 9..30), signed: bool, width in 1u32..=64, offset in 0u64..200, value: i64,
        ) {
            let field = Field { signed, width: if signed { width } else { width.min(63) }, offset };
            if field.end() > 8 * bytes.len() as u64 {
                bytes.resize(field.end().div_ceil(8) as usize, 0xa5);
            }
            let before = row(&bytes);
            let written = field.fit(value, Overflow::Wrap).unwrap();
            field.write(&mut bytes, written);
            prop_assert_eq!(field.value(&bytes), written);
            let after = row(&bytes);
            let own = field.offset as usize..field.end() as usize;
            for at in 0..before.len() {
                if !own.contains(&at) {
                    prop_assert_eq!(before[at], after[at]);
                }
            }
            let bits = after[own].iter().fold(0u64, |bits, on| bits << 1 | u64::from(*on));
            prop_assert_eq!(bits, written as u64 & u64::MAX >> (64 - field.width));
        }

        #[test]
        fn one_bit_changes_and_no_other(mut bytes in prop::collection::vec(any::<u8>(), 1..20), at: u64, on: bool) {
            let at = at % (8 * bytes.len() as u64);
            let mut row = row(&bytes);
            prop_assert_eq!(set_bit(&mut bytes, at, on), row[at as usize]);
            prop_assert_eq!(bit(&bytes, at), on);
            row[at as usize] = on;
            prop_assert_eq!(bytes, bytes_of(&row));
        }
    }
}
