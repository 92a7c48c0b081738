//! Which segment holds which hashes, once a table has more than one: those whose places ([`place`]) have its prefix.
//!
//! What stays true: there are `2^bits` entries, `bits >= 1`. A segment of depth `d` serves a run of
//! `2^(bits - d)` entries and lies in the first of them, whose number is a multiple of the run; the others
//! are `None`. So clearing the lowest set bits of a number leads to the owner, and doubling copies one word
//! per entry. Some segment has depth `bits`.

use std::mem;

use super::ownership::{Ownership, Shared};
use super::segment::Segment;

/// A split makes the directory at most so deep; deeper, segments outgrow their size.
const DEEPEST: u32 = 24;

/// A directory is doubled only if this many elements per entry remain. Good hashes leave several hundred; bad ones
/// must not make the directory explode, their segments outgrow their size instead.
const LEAST_SHARE: usize = 32;

/// Two segments with so many elements together become one: half of what makes one segment split.
const MERGED_LEN: usize = 448;

/// The place of a hash among all: what prefixes are taken of. Greater hashes have greater places, or the same.
///
/// Where every place is as likely as any other, all segments of a table fill up and are split at about the same number
/// of elements, and shortly afterwards half of their buckets are empty. So places are bent: low ones are about twice as
/// likely as high ones. Low segments are split first and high ones when low ones are about to be split again, and at
/// every size the table is as full as it is on average: 14.3 bytes an element of 8, and not from 10 to 20.
#[inline(always)]
pub(super) const fn place(hash: u64, uneven: bool) -> u64 {
    if !uneven {
        return hash;
    }
    // 11/16 x + 5/16 x^2, of the upper half: a cursor (see `CURSOR_SHIFT`) can tell where each segment begins.
    let x = hash >> 32;
    ((x << 32) >> 4) * 11 + ((x * x) >> 4) * 5
}

/// The first hash whose place is not below `at`.
fn first_hash(at: u64, uneven: bool) -> u64 {
    if !uneven {
        return at;
    }
    let (mut low, mut high) = (0, 1 << 32);
    while low < high {
        let middle = (low + high) / 2;
        if place(middle << 32, true) < at { low = middle + 1 } else { high = middle }
    }
    low << 32
}

pub(super) struct Directory<T, O: Ownership<T>> {
    entries: Box<[Option<O::Pointer>]>,
    bits: u32,
    /// Segments of depth `bits`.
    deepest: usize,
    /// Elements in all segments.
    pub(super) len: usize,
}

impl<T: Clone> Clone for Directory<T, Shared> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), ..*self }
    }
}

impl<T, O: Ownership<T>> Directory<T, O> {
    /// The two halves of a split segment of depth 0.
    pub(super) fn new(zeros: Segment<T>, ones: Segment<T>) -> Self {
        let len = zeros.len() + ones.len();
        Self { entries: Box::new([Some(O::keep(zeros)), Some(O::keep(ones))]), bits: 1, deepest: 2, len }
    }

    /// The number of the entry that owns the segment of `hash`.
    #[inline]
    fn owner(&self, hash: u64) -> usize {
        self.owner_of(place(hash, O::UNEVEN))
    }

    /// The number of the entry that owns the segment of a place.
    #[inline]
    fn owner_of(&self, place: u64) -> usize {
        let mut at = (place >> (64 - self.bits)) as usize;
        while self.entries[at].is_none() {
            at &= at - 1;
        }
        at
    }

    #[inline]
    pub(super) fn segment(&self, hash: u64) -> &Segment<T> {
        self.entries[self.owner(hash)].as_deref().expect("an owner has a segment")
    }

    #[inline]
    pub(super) fn segment_mut(&mut self, hash: u64) -> &mut Segment<T> {
        let at = self.owner(hash);
        O::write(self.entries[at].as_mut().expect("an owner has a segment"))
    }

    /// How many entries the segment at `owner` serves.
    fn run(&self, owner: usize) -> usize {
        let mut run = 1;
        while self.entries.get(owner + run).is_some_and(Option::is_none) {
            run *= 2;
        }
        run
    }

    /// The segment of `hash`, the first hash beyond it (`None` at the end) and how many bits its hashes share.
    pub(super) fn segment_and_end(&self, hash: u64) -> (&Segment<T>, Option<u64>, u32) {
        let owner = self.owner(hash);
        let run = self.run(owner);
        let end = owner + run;
        let end = (end < self.entries.len()).then(|| first_hash((end as u64) << (64 - self.bits), O::UNEVEN));
        (self.segment(hash), end, self.bits - run.ilog2())
    }

    /// The segment of a place and how many entries it serves.
    pub(super) fn segment_and_run(&self, place: u64) -> (&Segment<T>, usize) {
        let owner = self.owner_of(place);
        (self.entries[owner].as_deref().expect("an owner has a segment"), self.run(owner))
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment<T>> {
        self.entries.iter().filter_map(Option::as_deref)
    }

    pub(super) fn segments_mut(&mut self) -> impl Iterator<Item = &mut Segment<T>> {
        self.entries.iter_mut().flatten().map(O::write)
    }

    pub(super) fn into_segments(self) -> impl Iterator<Item = Segment<T>> {
        self.entries.into_iter().flatten().map(O::take)
    }

    /// Splits the segment of `hash` and makes room for one more there. False, and nothing done, if that would make
    /// the directory too large for what it holds.
    pub(super) fn split(&mut self, hash: u64, rehash: &impl Fn(&T) -> u64) -> bool {
        if self.run(self.owner(hash)) == 1 {
            if self.bits == DEEPEST || self.len / LEAST_SHARE < self.entries.len() * 2 {
                return false;
            }
            self.double();
        }
        let owner = self.owner(hash);
        let half = self.run(owner) / 2;
        let depth = self.bits - half.ilog2() - 1;
        let segment = self.entries[owner].take().expect("an owner has a segment");
        let (zeros, ones) = O::take(segment).split(depth, O::UNEVEN, hash, rehash);
        self.entries[owner] = Some(O::keep(zeros));
        self.entries[owner + half] = Some(O::keep(ones));
        if half == 1 {
            self.deepest += 2;
        }
        true
    }

    fn double(&mut self) {
        let old = mem::take(&mut self.entries);
        self.entries = old.into_iter().flat_map(|entry| [entry, None]).collect();
        self.bits += 1;
        self.deepest = 0;
    }

    /// Merges the segment of `hash` with its buddy as long as both are sparse, then gives back what the directory does
    /// not need. Returns the segment when it is the only one left, which ends this directory.
    pub(super) fn merge(&mut self, hash: u64, rehash: &impl Fn(&T) -> u64) -> Option<Segment<T>> {
        loop {
            let owner = self.owner(hash);
            let run = self.run(owner);
            let buddy = owner ^ run;
            let len = |at: usize| self.entries[at].as_ref().map_or(0, |segment| segment.len());
            if self.run(buddy) != run || len(owner) + len(buddy) > MERGED_LEN {
                return None;
            }
            let mut large = self.entries[owner].take().expect("an owner has a segment");
            let mut small = self.entries[buddy].take().expect("an owner has a segment");
            if large.len() < small.len() {
                mem::swap(&mut large, &mut small);
            }
            let segment = O::write(&mut large);
            segment.absorb(O::take(small), rehash);
            if segment.is_sparse() {
                segment.rebuild(segment.len() * 2, rehash);
            }
            if self.entries.len() == run * 2 {
                return Some(O::take(large));
            }
            self.entries[owner.min(buddy)] = Some(large);
            if run == 1 {
                self.deepest -= 2;
                while self.deepest == 0 {
                    self.halve();
                }
            }
        }
    }

    fn halve(&mut self) {
        let old = mem::take(&mut self.entries);
        self.entries = old.into_iter().step_by(2).collect();
        self.bits -= 1;
        self.deepest = self.entries.chunks_exact(2).filter(|pair| pair[1].is_some()).count() * 2;
    }

    /// Bytes of the directory itself and of its segments' headers.
    pub(super) fn allocated_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries) + self.segments().count() * O::ALLOCATED
    }

    /// Panics unless what the file says stays true does.
    #[cfg(test)]
    pub(super) fn check(&self, rehash: &impl Fn(&T) -> u64) {
        assert!(self.bits >= 1 && self.entries.len() == 1 << self.bits);
        let (mut at, mut deepest, mut len) = (0, 0, 0);
        while at < self.entries.len() {
            let run = self.run(at);
            assert_eq!(at % run, 0, "a run starts at a multiple of its length");
            assert!(self.entries[at + 1..at + run].iter().all(Option::is_none));
            let segment = self.entries[at].as_ref().expect("a run starts with its owner");
            for value in &segment.table {
                let entry = (place(rehash(value), O::UNEVEN) >> (64 - self.bits)) as usize;
                assert!((at..at + run).contains(&entry), "an element is in the segment of its prefix");
            }
            deepest += usize::from(run == 1);
            len += segment.len();
            at += run;
        }
        assert_eq!((deepest, len), (self.deepest, self.len));
        assert!(deepest > 0, "the directory is no larger than needed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_hashes_and_lead_back_to_them() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!((place(0, true), first_hash(0, true)), (0, 0));
        assert!(place(u64::MAX, true) > u64::MAX - (1 << 34));
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let (a, b) = (rng.u64(..), rng.u64(..));
            assert_eq!(a >> 32 < b >> 32, place(a, true) < place(b, true));
            let at = rng.u64(..) >> 40 << 40;
            let first = first_hash(at, true);
            assert!(place(first, true) >= at && first.is_multiple_of(1 << 32));
            assert!(first == 0 || place(first - 1, true) < at);
        }
    }
}
