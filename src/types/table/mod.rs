//! [`Table`]: a hash table that grows and shrinks one small segment at a time.
//!
//! Extendible hashing: elements are parted by the top bits of their 64-bit hash (or of what is made of it, see
//! `directory::place`) into segments of at most 896, each a
//! `hashbrown::HashTable`. A full segment is split in two, two sparse ones become one, and no operation ever
//! rehashes more than one of them, so an insert costs microseconds at worst whatever the size of the table.
//! (Hashes of which very many agree in their top bits make segments outgrow that size; nothing else suffers.)
//!
//! What stays true: an element is in the segment of its hash's prefix; a table of one segment has no
//! directory; an empty one has no allocation; capacity is at most about four times what is used.
//!
//! A table that is a value is a [`SharedTable`]: cloned at no cost to speak of, and written one segment at a time.
//!
//! The table knows no hash function. The caller passes the hash of what it looks for, and a function that tells
//! an element's hash, always the same for the same element. Every operation uses the hash alone to pick the segment, so
//! hashes of which only the top 19 bits are ever set work as well (see `segment::spread` for how far).

mod directory;
mod ownership;
pub mod prefetch;
mod segment;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::{fmt, mem};

use directory::Directory;
pub use ownership::{Owned, Ownership, Shared};
use segment::{MOST_BUCKETS, Segment, spread};
use smallvec::SmallVec;

/// [`Table::scan`] orders elements by their hash without its lowest bits, so many of them: a cursor is a multiple of
/// `1 << CURSOR_SHIFT`, and shifted down by it stays below 2^53 (some clients keep cursors in doubles).
pub const CURSOR_SHIFT: u32 = 16;

/// So many elements are asked for ahead of a visit to them.
const ASKED_AHEAD: usize = 16;

/// Elements under 64-bit hashes that the caller computes. See the [module](self).
pub struct Table<T, O: Ownership<T> = Owned> {
    segments: Segments<T, O>,
}

/// A table that is a value: a clone costs a reference count for each segment (and a copy of the only one, where there
/// is no more), and a write to a table that was cloned a copy of one segment, so elements must be cheap to clone.
pub type SharedTable<T> = Table<T, Shared>;

enum Segments<T, O: Ownership<T>> {
    One(Segment<T>),
    Many(Box<Directory<T, O>>),
}

use Segments::{Many, One};

impl<T> Table<T> {
    /// An empty table that owns its segments; allocates nothing. (A [`SharedTable`] begins with `default`.)
    pub const fn new() -> Self {
        Self { segments: One(Segment::new()) }
    }
}

impl<T, O: Ownership<T>> Table<T, O> {
    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.segments {
            One(segment) => segment.len(),
            Many(directory) => directory.len,
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn segment(&self, hash: u64) -> &Segment<T> {
        match &self.segments {
            One(segment) => segment,
            Many(directory) => directory.segment(hash),
        }
    }

    #[inline]
    fn segment_mut(&mut self, hash: u64) -> &mut Segment<T> {
        match &mut self.segments {
            One(segment) => segment,
            Many(directory) => directory.segment_mut(hash),
        }
    }

    /// The element under `hash` that `eq` accepts. `eq` is asked about few others.
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&T> {
        self.segment(hash).table.find(spread(hash), eq)
    }

    /// As [`Table::find`], to change the element. Its hash must stay the same.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.segment_mut(hash).table.find_mut(spread(hash), eq)
    }

    /// Hints the processor at the memory where [`Table::find`] will look for `hash`: its first group of control bytes
    /// and the elements beside it. Call it for a batch of hashes, then find each: the misses overlap.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.segment(hash).prefetch(hash);
    }

    /// The step before [`Table::prefetch`], for a table of many segments: hints at what leads to that memory.
    #[inline]
    pub fn prefetch_segment(&self, hash: u64) {
        prefetch::prefetch(std::ptr::from_ref(self.segment(hash)).addr());
    }

    /// Adds an element which the caller knows to be absent; one that is present would be there twice.
    #[inline]
    pub fn insert_unique(&mut self, hash: u64, value: T, rehash: impl Fn(&T) -> u64) -> &mut T {
        if self.segment(hash).is_full() {
            self.make_room(hash, &rehash);
        }
        match &mut self.segments {
            One(segment) => segment.put(hash, value, &rehash),
            Many(directory) => {
                directory.len += 1;
                directory.segment_mut(hash).put(hash, value, &rehash)
            }
        }
    }

    /// The place of the element under `hash` that `eq` accepts, to be looked at, replaced, removed or filled.
    #[inline]
    pub fn entry<R: Fn(&T) -> u64>(&mut self, hash: u64, eq: impl FnMut(&T) -> bool, rehash: R) -> Entry<'_, T, R, O> {
        match self.segment(hash).table.find_bucket_index(spread(hash), eq) {
            Some(bucket) => Entry::Occupied(OccupiedEntry { table: self, hash, bucket, rehash }),
            None => Entry::Vacant(VacantEntry { table: self, hash, rehash }),
        }
    }

    /// Removes and returns the element under `hash` that `eq` accepts.
    #[inline]
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(&T) -> bool, rehash: impl Fn(&T) -> u64) -> Option<T> {
        let bucket = self.segment(hash).table.find_bucket_index(spread(hash), eq)?;
        Some(self.remove_bucket(hash, bucket, &rehash))
    }

    #[inline]
    fn remove_bucket(&mut self, hash: u64, bucket: usize, rehash: &impl Fn(&T) -> u64) -> T {
        let many = match &mut self.segments {
            One(_) => false,
            Many(directory) => {
                directory.len -= 1;
                true
            }
        };
        let segment = self.segment_mut(hash);
        let entry = segment.table.get_bucket_entry(bucket).ok().expect("the bucket was found under this borrow");
        let (value, _) = entry.remove();
        // Looking at the buddy costs a cache miss: every 16th time is often enough.
        if segment.is_sparse() || many && segment.len().is_multiple_of(16) {
            self.settle(hash, rehash);
        }
        value
    }

    /// Makes room for one more in the segment of `hash`, which is full.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, hash: u64, rehash: &impl Fn(&T) -> u64) {
        let segment = self.segment_mut(hash);
        let (len, capacity) = (segment.len(), segment.capacity());
        // Full of traces of removed elements rather than of elements: the same size will do.
        if len < capacity / 4 * 3 {
            return segment.rebuild(capacity, rehash);
        }
        if segment.table.num_buckets() < MOST_BUCKETS {
            return segment.rebuild(capacity + 1, rehash);
        }
        match &mut self.segments {
            One(segment) => {
                let (zeros, ones) = mem::replace(segment, Segment::new()).split(0, O::UNEVEN, hash, rehash);
                self.segments = Many(Box::new(Directory::new(zeros, ones)));
            }
            Many(directory) => {
                if !directory.split(hash, rehash) {
                    directory.segment_mut(hash).rebuild(capacity + 1, rehash);
                }
            }
        }
    }

    /// Gives memory back after the segment of `hash` lost elements.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, hash: u64, rehash: &impl Fn(&T) -> u64) {
        if self.is_empty() {
            return self.clear();
        }
        let segment = self.segment_mut(hash);
        if segment.is_sparse() {
            segment.rebuild(segment.len() * 2, rehash);
        }
        if let Many(directory) = &mut self.segments
            && let Some(last) = directory.merge(hash, rehash)
        {
            self.segments = One(last);
        }
    }

    /// Calls `f` for every element at or beyond `cursor` in the order of hashes (elements whose hashes agree but
    /// for their lowest [`CURSOR_SHIFT`] bits together, in any order) until at least `budget` were visited. Returns where
    /// to go on, or `None` when the end was reached. Start with 0.
    ///
    /// Elements that are present from the first call to the last are visited, whatever is inserted and removed between
    /// calls; none that stays is visited twice. A call looks at one segment more than it visits at most.
    pub fn scan(&self, cursor: u64, budget: usize, rehash: impl Fn(&T) -> u64, mut f: impl FnMut(&T)) -> Option<u64> {
        let mut from = cursor >> CURSOR_SHIFT;
        let mut left = budget.max(1);
        let mut found = Vec::new();
        loop {
            let (segment, end, depth) = match &self.segments {
                One(segment) => (segment, None, 0),
                Many(directory) => directory.segment_and_end(from << CURSOR_SHIFT),
            };
            if segment.len() <= left {
                for value in &segment.table {
                    if rehash(value) >> CURSOR_SHIFT >= from {
                        f(value);
                        left -= 1;
                    }
                }
            } else {
                // Those that come first. Hashes are spread evenly: most likely all in twice their share of the segment.
                let share = (u64::MAX >> CURSOR_SHIFT >> depth) / segment.len() as u64;
                let mut to = from.saturating_add(share.saturating_mul(left as u64 * 2 + 8));
                loop {
                    found.clear();
                    found.extend(segment.table.iter().filter_map(|value| {
                        let at = rehash(value) >> CURSOR_SHIFT;
                        (from <= at && at <= to).then_some((at, value))
                    }));
                    if found.len() > left || to == u64::MAX {
                        break;
                    }
                    to = u64::MAX;
                }
                if found.len() > left {
                    let last = found.select_nth_unstable_by_key(left - 1, |&(at, _)| at).1.0;
                    found.iter().filter(|&&(at, _)| at <= last).for_each(|&(_, value)| f(value));
                    return (last < u64::MAX >> CURSOR_SHIFT).then(|| (last + 1) << CURSOR_SHIFT);
                }
                found.iter().for_each(|&(_, value)| f(value));
                left -= found.len();
            }
            from = end? >> CURSOR_SHIFT;
            if left == 0 {
                return end;
            }
        }
    }

    /// Calls `f` for every element of the segment that `hash` belongs to, in no order, until it breaks off; returns
    /// whether it did, and where the next segment begins, if there is one. The elements' hashes must stay the same.
    ///
    /// `ask` is called for each some time before, to ask for memory that `f` will look at.
    pub fn visit_segment_mut(
        &mut self,
        hash: u64,
        ask: impl Fn(&T),
        mut f: impl FnMut(&mut T) -> ControlFlow<()>,
    ) -> (ControlFlow<()>, Option<u64>) {
        let end = match &self.segments {
            One(_) => None,
            Many(directory) => directory.segment_and_end(hash).1,
        };
        let mut elements = self.segment_mut(hash).table.iter_mut();
        let mut some = SmallVec::<[&mut T; ASKED_AHEAD]>::new();
        loop {
            some.extend(elements.by_ref().take(ASKED_AHEAD));
            if some.is_empty() {
                return (ControlFlow::Continue(()), end);
            }
            some.iter().for_each(|element| ask(element));
            for element in some.drain(..) {
                if f(element).is_break() {
                    return (ControlFlow::Break(()), end);
                }
            }
        }
    }

    /// All elements, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments().flat_map(|segment| segment.table.iter())
    }

    fn segments(&self) -> impl Iterator<Item = &Segment<T>> {
        let (one, many) = match &self.segments {
            One(segment) => (Some(segment), None),
            Many(directory) => (None, Some(directory.segments())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Takes all elements out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T, O> {
        mem::take(self).into_values()
    }

    /// All elements, in no order.
    pub fn into_values(self) -> impl Iterator<Item = T> + use<T, O> {
        let (one, many) = match self.segments {
            One(segment) => (Some(segment), None),
            Many(directory) => (None, Some(directory.into_segments())),
        };
        one.into_iter().chain(many.into_iter().flatten()).flat_map(|segment| segment.table)
    }

    /// Removes all elements and frees all memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes the elements for which `keep` is false, in one go.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool, rehash: impl Fn(&T) -> u64) {
        match &mut self.segments {
            One(segment) => segment.table.retain(keep),
            Many(directory) => {
                let mut len = 0;
                for segment in directory.segments_mut() {
                    segment.table.retain(&mut keep);
                    len += segment.len();
                }
                directory.len = len;
            }
        }
        let mut hash = Some(0);
        while let Some(at) = hash {
            self.settle(at, &rehash);
            hash = match &self.segments {
                One(_) => None,
                Many(directory) => directory.segment_and_end(at).1,
            };
        }
    }

    /// A random element, each as likely as any other (as long as no segment has outgrown its size).
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        // A segment is met as often as its share of all hashes says, and one of its buckets as often as if it had
        // the largest number for that share: so every bucket of the table is met equally often, empty ones
        // included. A few tries in all, as at least a fifth of the buckets are in use.
        for _ in 0..1000 {
            let found = match &self.segments {
                One(segment) => segment.table.get_bucket(rng.usize(..segment.table.num_buckets())),
                Many(directory) => {
                    let (segment, run) = directory.segment_and_run(rng.u64(..));
                    segment.table.get_bucket(rng.usize(..segment.table.num_buckets().max(MOST_BUCKETS) * run))
                }
            };
            if found.is_some() {
                return found;
            }
        }
        self.iter().nth(rng.usize(..self.len()))
    }

    /// Calls `f` for `count` elements (all, if there are fewer) that lie side by side from a place that `start` says,
    /// any number. Cheaper than as many calls of [`Table::random`], and what falls together stays together:
    /// good enough to choose what to evict.
    pub fn sample<'a>(&'a self, start: u64, count: usize, mut f: impl FnMut(&'a T)) {
        let mut left = count.min(self.len());
        let mut hash = start;
        while left > 0 {
            let (segment, end, _) = match &self.segments {
                One(segment) => (segment, None, 0),
                Many(directory) => directory.segment_and_end(hash),
            };
            let buckets = segment.table.num_buckets();
            for at in 0..buckets {
                let at = at.wrapping_add(start as usize) & (buckets - 1);
                if left == 0 {
                    return;
                }
                if let Some(value) = segment.table.get_bucket(at) {
                    f(value);
                    left -= 1;
                }
            }
            hash = end.unwrap_or(0);
        }
    }

    /// What its allocations ask for in bytes: buckets, segments, directory. Looks at every segment.
    pub fn allocated_bytes(&self) -> usize {
        let directory = match &self.segments {
            One(_) => 0,
            Many(directory) => directory.allocated_bytes(),
        };
        directory + self.segments().map(|segment| segment.table.allocation_size()).sum::<usize>()
    }

    /// Panics unless what the files of this module say stays true does.
    #[cfg(test)]
    pub(crate) fn check(&self, rehash: impl Fn(&T) -> u64) {
        let mut capacity = 0;
        for segment in self.segments() {
            segment.check(&rehash);
            capacity += segment.capacity();
        }
        assert_eq!(self.iter().count(), self.len());
        match &self.segments {
            One(_) => assert!(capacity <= self.len() * 4 + 4, "{capacity} for {}", self.len()),
            Many(directory) => directory.check(&rehash),
        }
        if self.is_empty() {
            assert_eq!(self.allocated_bytes(), 0);
        }
    }
}

impl<T: Clone> Clone for SharedTable<T> {
    fn clone(&self) -> Self {
        Self {
            segments: match &self.segments {
                One(segment) => One(segment.clone()),
                Many(directory) => Many(directory.clone()),
            },
        }
    }
}

impl<T, O: Ownership<T>> Default for Table<T, O> {
    fn default() -> Self {
        Self { segments: One(Segment::new()) }
    }
}

impl<T: fmt::Debug, O: Ownership<T>> fmt::Debug for Table<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What [`Table::entry`] found.
pub enum Entry<'a, T, R, O: Ownership<T> = Owned> {
    /// The element is there.
    Occupied(OccupiedEntry<'a, T, R, O>),
    /// It is not.
    Vacant(VacantEntry<'a, T, R, O>),
}

/// An element in its place.
pub struct OccupiedEntry<'a, T, R, O: Ownership<T> = Owned> {
    table: &'a mut Table<T, O>,
    hash: u64,
    bucket: usize,
    rehash: R,
}

impl<'a, T, R: Fn(&T) -> u64, O: Ownership<T>> OccupiedEntry<'a, T, R, O> {
    const FOUND: &'static str = "the bucket was found under this borrow";

    /// The element.
    #[inline]
    pub fn get(&self) -> &T {
        self.table.segment(self.hash).table.get_bucket(self.bucket).expect(Self::FOUND)
    }

    /// The element, to be changed; its hash must stay the same.
    #[inline]
    pub fn element_mut(&mut self) -> &mut T {
        self.table.segment_mut(self.hash).table.get_bucket_mut(self.bucket).expect(Self::FOUND)
    }

    /// As [`OccupiedEntry::element_mut`], for as long as the table is borrowed.
    #[inline]
    pub fn into_mut(self) -> &'a mut T {
        self.table.segment_mut(self.hash).table.get_bucket_mut(self.bucket).expect(Self::FOUND)
    }

    /// Puts another element with the same hash into its place and returns it.
    #[inline]
    pub fn replace(&mut self, value: T) -> T {
        mem::replace(self.element_mut(), value)
    }

    /// Removes and returns it.
    #[inline]
    pub fn remove(self) -> T {
        self.table.remove_bucket(self.hash, self.bucket, &self.rehash)
    }
}

/// The place of an element that is not there.
pub struct VacantEntry<'a, T, R, O: Ownership<T> = Owned> {
    table: &'a mut Table<T, O>,
    hash: u64,
    rehash: R,
}

impl<'a, T, R: Fn(&T) -> u64, O: Ownership<T>> VacantEntry<'a, T, R, O> {
    /// Adds it; its hash must be the one that was asked for.
    #[inline]
    pub fn insert(self, value: T) -> &'a mut T {
        self.table.insert_unique(self.hash, value, self.rehash)
    }
}
