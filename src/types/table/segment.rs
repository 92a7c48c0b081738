//! One segment of a [`Table`](super::Table): a `hashbrown::HashTable` whose size we choose.
//!
//! What stays true: hashbrown never grows by itself, because [`Segment::put`] is only called when there is room;
//! so the allocation changes in [`Segment::rebuild`] alone, and `base` is right or 0.

use std::mem;

use hashbrown::HashTable;

use super::directory::place;
use super::prefetch::prefetch;

/// Buckets beyond which a segment is split instead of doubled.
pub(super) const MOST_BUCKETS: usize = 1024;

/// The elements whose hashes share a prefix.
pub struct Segment<T> {
    pub(super) table: HashTable<T>,
    /// Where hashbrown's control bytes begin and, downward from there, its buckets: bucket `i` lies at
    /// `base - (i + 1) * size_of::<T>()`. hashbrown keeps it private; it follows from the address and the index
    /// of any element. 0 while there is none. Used for prefetching only, hence a number and not a pointer.
    base: usize,
}

/// The bits that hashbrown gets to see of a table hash: it takes the position from the low ones (ten at most, a
/// segment has 1024 buckets) and a tag of seven from the top.
///
/// Two kinds of hashes come here: full ones, and ones of which only the top 19 bits are known (the others are 0).
/// The segments' prefix uses them up from the top. Let `p` be bits 45..55 and `e` be bits 55..62.
///
/// * Full hashes: bits 0..10 are added to the position and bits 10..17 to the tag, so both are uniform and
///   independent of each other and of the prefix, down to depth 47.
/// * 19 bits: the position is `p * 33`, a permutation of `p` that spreads it over all buckets even when only its low
///   five bits are left (depth 14). The tag is `e` as far as the prefix has left it, exclusive or `p` rotated by
///   three: while `e` varies (depth 0 to 2) it is as good as seven more bits; deeper, the place of each bit lost
///   is taken by a low bit of `p`, and those tell neighbours in one group of buckets apart. So at
///   depth 9 all elements whose 19 bits differ still differ in position or tag.
#[inline(always)]
pub(super) const fn spread(hash: u64) -> u64 {
    let p = hash >> 45;
    let position = p.wrapping_mul(33).wrapping_add(hash) & 0x3ff;
    let tag = (hash >> 55) ^ (p << 3) ^ ((p >> 4) & 7) ^ (hash >> 10);
    position | (tag << 57)
}

/// How many elements hashbrown takes into so many buckets.
pub(super) const fn capacity_of(buckets: usize) -> usize {
    if buckets <= 8 { buckets - 1 } else { buckets / 8 * 7 }
}

impl<T: Clone> Clone for Segment<T> {
    /// hashbrown copies bucket for bucket, so an element's bucket is the same in the clone.
    fn clone(&self) -> Self {
        let mut segment = Self { table: self.table.clone(), base: 0 };
        if !segment.table.is_empty() {
            let first = (0..segment.table.num_buckets())
                .find_map(|index| Some((index, segment.table.get_bucket(index)?)))
                .expect("a table that is not empty has an element in some bucket");
            segment.base = base_of(first.1, first.0);
        }
        segment
    }
}

/// Where the control bytes of the table begin that has `element` in bucket `index`.
fn base_of<T>(element: &T, index: usize) -> usize {
    std::ptr::from_ref(element).addr().wrapping_add((index + 1) * size_of::<T>())
}

impl<T> Segment<T> {
    /// Allocates nothing.
    pub(super) const fn new() -> Self {
        Self { table: HashTable::new(), base: 0 }
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { table: HashTable::with_capacity(capacity), base: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many elements the buckets would take if none were lost to removals.
    pub(super) fn capacity(&self) -> usize {
        capacity_of(self.table.num_buckets())
    }

    /// Whether [`Segment::put`] needs [`Segment::rebuild`] or a split first.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.table.len() == self.table.capacity()
    }

    /// Whether three quarters of the buckets are unused and fewer would do.
    #[inline]
    pub(super) fn is_sparse(&self) -> bool {
        self.table.len() * 4 <= self.capacity()
    }

    /// Adds an element known to be absent; there must be room.
    #[inline]
    pub(super) fn put(&mut self, hash: u64, value: T, rehash: &impl Fn(&T) -> u64) -> &mut T {
        debug_assert!(!self.is_full(), "hashbrown must not grow by itself");
        let entry = self.table.insert_unique(spread(hash), value, |value| spread(rehash(value)));
        if self.base == 0 {
            self.base = base_of(entry.get(), entry.bucket_index());
        }
        entry.into_mut()
    }

    /// Moves everything into a new allocation for `capacity` elements (rounded up to whole sizes of hashbrown),
    /// or none for 0.
    pub(super) fn rebuild(&mut self, capacity: usize, rehash: &impl Fn(&T) -> u64) {
        let old = mem::replace(self, Self::with_capacity(capacity.max(self.len())));
        for value in old.table {
            self.put(rehash(&value), value, rehash);
        }
    }

    /// Parts the elements by bit `63 - depth` of their hashes' places, leaving room in the part that `newcomer` (a hash)
    /// belongs to.
    pub(super) fn split(self, depth: u32, uneven: bool, newcomer: u64, rehash: &impl Fn(&T) -> u64) -> (Self, Self) {
        let is_upper = |hash: u64| place(hash, uneven) & 1 << (63 - depth) != 0;
        let upper =
            self.table.iter().filter(|&value| is_upper(rehash(value))).count() + usize::from(is_upper(newcomer));
        let mut zeros = Self::with_capacity(self.len() + 1 - upper);
        let mut ones = Self::with_capacity(upper);
        for value in self.table {
            let hash = rehash(&value);
            if is_upper(hash) { &mut ones } else { &mut zeros }.put(hash, value, rehash);
        }
        (zeros, ones)
    }

    /// Takes in all elements of `other`.
    pub(super) fn absorb(&mut self, other: Self, rehash: &impl Fn(&T) -> u64) {
        if self.table.capacity() - self.len() < other.len() {
            self.rebuild(self.len() + other.len(), rehash);
        }
        for value in other.table {
            self.put(rehash(&value), value, rehash);
        }
    }

    /// Hints at the control bytes and the buckets where `hash` is looked for first. 16 buckets are compared at
    /// once, and the element is most often in the first few of them.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let at = spread(hash) as usize & (self.table.num_buckets() - 1);
        let bucket = self.base.wrapping_sub((at + 1) * size_of::<T>());
        prefetch(self.base.wrapping_add(at));
        prefetch(bucket);
        prefetch(bucket.wrapping_sub(64));
    }

    /// Panics unless what the file says stays true does.
    #[cfg(test)]
    pub(super) fn check(&self, rehash: &impl Fn(&T) -> u64) {
        assert_eq!(self.table.allocation_size() == 0, self.table.num_buckets() == 1);
        if self.table.is_empty() {
            assert_eq!(self.table.allocation_size(), 0, "an empty segment has no allocation");
        }
        for index in 0..self.table.num_buckets() {
            let Some(value) = self.table.get_bucket(index) else { continue };
            assert_eq!(base_of(value, index), self.base, "base");
            let same = |other: &T| std::ptr::eq(other, value);
            assert!(self.table.find(spread(rehash(value)), same).is_some(), "found under its hash");
        }
    }
}
