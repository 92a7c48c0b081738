//! Integer sets: a few integers in ascending order in one run of bytes, in Redis' format, which is also how
//! files hold them.
//!
//! ```text
//! intset  bytes of an integer, 2, 4 or 8: u32 | how many there are: u32 | the integers, ascending
//! ```
//! All numbers are little endian. The width grows with the first integer that needs it, and never shrinks.
//!
//! What must stay true: the bytes are an intset at all times, its integers in order and each there once; what
//! comes from outside is looked through by [`Intset::from_bytes`] first.

const HEADER: usize = 8;

/// A set of integers.
#[derive(Clone, PartialEq, Eq)]
pub struct Intset {
    bytes: Vec<u8>,
}

/// How many bytes an integer needs.
fn width_of(n: i64) -> usize {
    if n == i64::from(n as i16) {
        2
    } else if n == i64::from(n as i32) {
        4
    } else {
        8
    }
}

/// The integer that `bytes`, 2, 4 or 8 of them, are.
#[inline]
fn decode(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("an integer is 2, 4 or 8 bytes wide"),
    }
}

impl Default for Intset {
    fn default() -> Intset {
        Intset::new()
    }
}

impl Intset {
    /// One without integers.
    pub fn new() -> Intset {
        Intset { bytes: vec![2, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// Takes over bytes from outside; `None` where they are not an intset from end to end.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Intset> {
        let width = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let count = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?) as usize;
        if !matches!(width, 2 | 4 | 8) || count.checked_mul(width)? != bytes.len() - HEADER {
            return None;
        }
        let set = Intset { bytes };
        let ascends = set.iter().zip(set.iter().skip(1)).all(|(a, b)| a < b);
        ascends.then_some(set)
    }

    /// The bytes, as they stand in files.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.bytes[0])
    }

    /// How many integers there are.
    #[inline]
    pub fn len(&self) -> usize {
        (self.bytes.len() - HEADER) / self.width()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    /// The integer at a place in their order.
    #[inline]
    pub fn at(&self, index: usize) -> Option<i64> {
        let (width, at) = (self.width(), index.checked_mul(self.width())?.checked_add(HEADER)?);
        self.bytes.get(at..at + width).map(decode)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.bytes[HEADER..].chunks_exact(self.width()).map(decode)
    }

    /// Where `n` is, or where it would be.
    fn search(&self, n: i64) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            let there = self.at(middle).expect("the middle lies before the end");
            match there.cmp(&n) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    /// Whether `n` is among them.
    #[inline]
    pub fn contains(&self, n: i64) -> bool {
        width_of(n) <= self.width() && self.search(n).is_ok()
    }

    /// Adds `n`; returns whether it was missing.
    pub fn insert(&mut self, n: i64) -> bool {
        let Err(index) = self.search(n) else { return false };
        let width = width_of(n).max(self.width());
        if width > self.width() {
            self.widen(width);
        }
        let (at, end) = (HEADER + index * width, self.bytes.len());
        if self.bytes.capacity() - end < width {
            // A little more than is needed, so that an eighth of all additions at most moves the bytes.
            self.bytes.reserve_exact(width.max(end / 8));
        }
        self.bytes.resize(end + width, 0);
        self.bytes.copy_within(at..end, at + width);
        self.bytes[at..at + width].copy_from_slice(&n.to_le_bytes()[..width]);
        self.finish();
        true
    }

    /// Removes `n`; returns whether it was there.
    pub fn remove(&mut self, n: i64) -> bool {
        let Ok(index) = self.search(n) else { return false };
        let (width, at) = (self.width(), HEADER + index * self.width());
        self.bytes.drain(at..at + width);
        self.finish();
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        true
    }

    /// Makes each integer `width` bytes wide.
    fn widen(&mut self, width: usize) {
        let mut wide = Vec::with_capacity(HEADER + (self.len() + 1) * width);
        wide.extend_from_slice(&self.bytes[..HEADER]);
        self.iter().for_each(|n| wide.extend_from_slice(&n.to_le_bytes()[..width]));
        wide[0] = width as u8;
        self.bytes = wide;
    }

    /// Writes the count.
    fn finish(&mut self) {
        let count =
            u32::try_from(self.len()).expect("an intset is kept far below 2^32 integers by what its owners put in");
        self.bytes[4..HEADER].copy_from_slice(&count.to_le_bytes());
    }
}

impl std::fmt::Debug for Intset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut set = Intset::new();
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert!(set.insert(5) && set.insert(-1) && !set.insert(5));
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 5, 0]);
        assert!(set.insert(70_000));
        assert_eq!(set.as_bytes(), [4, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0x70, 0x11, 1, 0]);
        assert!(set.insert(i64::MIN) && set.remove(70_000) && !set.remove(70_000));
        assert_eq!(set.as_bytes()[..8], [8, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [i64::MIN, -1, 5]);
        assert_eq!((set.at(0), set.at(2), set.at(3), set.at(usize::MAX)), (Some(i64::MIN), Some(5), None, None));
        assert_eq!(Intset::from_bytes(set.as_bytes().to_vec()), Some(set));
    }

    #[test]
    fn bytes_that_are_no_intset_are_refused() {
        for bytes in [
            &[][..],
            &[2, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 1, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0, 1],
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0],
            &[8, 0, 0, 0, 255, 255, 255, 255, 1, 0],
        ] {
            assert_eq!(Intset::from_bytes(bytes.to_vec()), None, "{bytes:?}");
        }
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -20i64..20,
            1 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_tree_holds(steps in prop::collection::vec((any::<bool>(), number()), 1..100)) {
            let (mut set, mut model) = (Intset::new(), BTreeSet::new());
            for (insert, n) in steps {
                let same = if insert { set.insert(n) == model.insert(n) } else { set.remove(n) == model.remove(&n) };
                prop_assert!(same);
                prop_assert_eq!(set.contains(n), insert);
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((0..).map_while(|at| set.at(at)).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Intset::from_bytes(set.as_bytes().to_vec()), Some(set));
        }
    }
}
