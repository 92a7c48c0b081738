//! [`Deadlines`]: which items fall due when, in eight to eleven bytes each.
//!
//! Items lie in chunks of at most 256, unsorted; the chunks are ordered. An item is one word: 45 bits that name
//! it and 19 that say when, relative to its chunk and rounded down to the chunk's quantum (a power of two
//! milliseconds, 1 as long as the chunk spans less than nine minutes). Where rounding leaves a question open, the owner of the
//! items is asked for the exact deadline; that touches the item and is kept rare.
//!
//! What stays true: with items ordered by deadline and then by name, chunk `i` holds exactly those from its `low` to the
//! `low` of the next; the first also takes what is smaller. No chunk is empty. A chunk's `bound` is at most its
//! earliest deadline.

use std::collections::VecDeque;

/// Bits of an item's name.
pub const ITEM_BITS: u32 = 45;

const DELTA_BITS: u32 = 64 - ITEM_BITS;
const MOST_DELTA: u64 = (1 << DELTA_BITS) - 1;
/// A chunk is split when it would exceed this; only [`Deadlines::replace`] goes beyond.
const CHUNK_LEN: usize = 256;
/// Neighbours with so many items together become one.
const MERGED_LEN: usize = 64;
/// Chunks are not merged if that makes the quantum larger than both had and larger than about a second.
const MERGED_SHIFT: u32 = 10;

/// An index of deadlines (milliseconds, any value). See the [module](self).
#[derive(Debug, Default)]
pub struct Deadlines {
    chunks: VecDeque<Chunk>,
    len: usize,
}

/// When, and who: the order of items.
type Place = (u64, u64);

#[derive(Debug)]
struct Chunk {
    /// What separates this chunk from the one before.
    low: Place,
    /// Deltas count from here; at most the earliest deadline.
    base: u64,
    /// No deadline is earlier.
    bound: u64,
    /// The quantum is `1 << shift`.
    shift: u32,
    /// `item << DELTA_BITS | (deadline >> shift) - (base >> shift)`.
    items: Vec<u64>,
}

fn item(word: u64) -> u64 {
    word >> DELTA_BITS
}

fn delta(word: u64) -> u64 {
    word & MOST_DELTA
}

/// Room for `len` items: steps that allocators have size classes for.
fn room(len: usize) -> usize {
    if len <= 32 { len.next_power_of_two().max(4) } else { len.next_multiple_of(32) }
}

/// The smallest quantum, not below `least`, with which `top` can be told relative to `base`.
fn shift_for(base: u64, top: u64, least: u32) -> u32 {
    let mut shift = least;
    while (top >> shift) - (base >> shift) > MOST_DELTA {
        shift += 1;
    }
    shift
}

impl Chunk {
    fn new(low: Place) -> Self {
        Self { low, base: low.0, bound: u64::MAX, shift: 0, items: Vec::new() }
    }

    /// A chunk of places whose deadlines are exact, in the finest quantum that spans them.
    fn exact(low: Place, places: &[Place]) -> Self {
        let base = places.iter().map(|place| place.0).min().unwrap_or(low.0);
        let top = places.iter().map(|place| place.0).max().unwrap_or(low.0);
        let shift = shift_for(base, top, 0);
        let mut items = Vec::with_capacity(room(places.len()));
        items.extend(places.iter().map(|&(at, item)| (item << DELTA_BITS) | ((at >> shift) - (base >> shift))));
        Self { low, base, bound: base, shift, items }
    }

    /// The word of an item, if it can be told in this chunk as it is.
    fn word(&self, (deadline, item): Place) -> Option<u64> {
        let delta = (deadline >> self.shift).checked_sub(self.base >> self.shift)?;
        (delta <= MOST_DELTA).then_some((item << DELTA_BITS) | delta)
    }

    fn find(&self, place: Place) -> Option<usize> {
        let word = self.word(place)?;
        self.items.iter().position(|&other| other == word)
    }

    /// The deadline of a word, rounded down.
    fn floor(&self, word: u64) -> u64 {
        ((self.base >> self.shift) + delta(word)) << self.shift
    }

    fn earliest(&self) -> u64 {
        let least = self.items.iter().map(|&word| delta(word)).min();
        least.map_or(u64::MAX, |delta| self.floor(delta).max(self.base))
    }

    fn most_delta(&self) -> u64 {
        self.items.iter().map(|&word| delta(word)).max().unwrap_or(0)
    }

    /// Restates the items relative to an earlier (or the same) base in a coarser (or the same) quantum.
    fn restate(&mut self, base: u64, shift: u32) {
        let (old, new, coarser) = (self.base >> self.shift, base >> shift, shift - self.shift);
        for word in &mut self.items {
            *word = (*word & !MOST_DELTA) | (((old + delta(*word)) >> coarser) - new);
        }
        (self.base, self.shift) = (base, shift);
    }

    /// Makes `deadline` expressible.
    fn widen(&mut self, deadline: u64) {
        if self.items.is_empty() {
            (self.base, self.shift) = (deadline, 0);
            return;
        }
        let base = self.base.min(deadline);
        let top = self.floor(self.most_delta()).max(deadline);
        self.restate(base, shift_for(base, top, self.shift));
    }

    fn add(&mut self, place: Place) {
        let word = self.word(place).unwrap_or_else(|| {
            self.widen(place.0);
            self.word(place).expect("it was just widened for this deadline")
        });
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(room(self.items.len() + 1) - self.items.len());
        }
        self.items.push(word);
        // A deadline in the quantum of `base` may still be earlier than `base`.
        self.base = self.base.min(place.0);
        self.bound = self.bound.min(place.0);
    }

    /// Gives back what a quarter more items would not need.
    fn trim(&mut self) {
        let len = self.items.len();
        if len * 2 + 8 <= self.items.capacity() {
            self.items.shrink_to(room(len + len / 4));
        }
    }

    /// Whether all items are known to come before `place`.
    fn precedes(&self, place: Place) -> bool {
        let Some(word) = self.word(place) else { return place.0 > self.base };
        self.items.iter().all(|&other| match delta(other).cmp(&delta(word)) {
            std::cmp::Ordering::Less => true,
            // With a quantum of 1, equal deltas are equal deadlines.
            std::cmp::Ordering::Equal => self.shift == 0 && other < word,
            std::cmp::Ordering::Greater => false,
        })
    }

    fn places(&self, exact: &impl Fn(u64) -> u64) -> Vec<Place> {
        let mut places: Vec<Place> = self.items.iter().map(|&word| (exact(item(word)), item(word))).collect();
        places.sort_unstable();
        places
    }

    /// Parts the upper items off into a chunk of their own.
    fn split(&mut self, exact: &impl Fn(u64) -> u64) -> Self {
        self.items.sort_unstable_by_key(|&word| (delta(word), item(word)));
        let gap = |at: usize| delta(self.items[at]) - delta(self.items[at - 1]);
        if let Some(at) = cut(self.items.len(), gap) {
            let base = self.floor(self.items[at]);
            let skipped = (base >> self.shift) - (self.base >> self.shift);
            let items = self.items[at..].iter().map(|word| word - skipped).collect();
            self.items.truncate(at);
            self.items.shrink_to(room(at));
            return Self { low: (base, 0), base, bound: base, shift: self.shift, items };
        }
        if self.shift == 0 {
            // Equal deadlines in the middle: they are sorted by name.
            let at = self.items.len() / 2;
            let places: Vec<Place> = self.items[at..].iter().map(|&word| (self.floor(word), item(word))).collect();
            self.items.truncate(at);
            self.items.shrink_to(room(at));
            return Self::exact(places[0], &places);
        }
        let places = self.places(exact);
        let at = cut(places.len(), |at| places[at].0 - places[at - 1].0).unwrap_or(places.len() / 2);
        *self = Self::exact(self.low, &places[..at]);
        Self::exact(places[at], &places[at..])
    }
}

/// Where to cut so many sorted items, given the distance of each from the one before: at the widest gap, if it is as
/// wide as all others together (a chunk that holds a stray item is coarse for its sake), or else at the widest in
/// the middle half. `None` if nothing parts the middle.
fn cut(len: usize, gap: impl Fn(usize) -> u64) -> Option<usize> {
    let widest = (1..len).max_by_key(|&at| gap(at))?;
    let span: u64 = (1..len).map(&gap).sum();
    if gap(widest) > span / 2 {
        return Some(widest);
    }
    let at = (len / 4..=len - len / 4).max_by_key(|&at| gap(at))?;
    (gap(at) > 0).then_some(at)
}

impl Deadlines {
    /// An empty index; allocates nothing.
    pub const fn new() -> Self {
        Self { chunks: VecDeque::new(), len: 0 }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk that `place` belongs to. There must be one.
    fn locate(&self, place: Place) -> usize {
        self.chunks.partition_point(|chunk| chunk.low <= place).saturating_sub(1)
    }

    /// Adds `item` (below 2^45, not there yet) with its deadline. `exact` tells the deadline of any item that is
    /// in the index; it is asked when a full chunk is split whose items lie closer than its quantum.
    pub fn insert(&mut self, deadline: u64, item: u64, exact: impl Fn(u64) -> u64) {
        debug_assert!(item >> ITEM_BITS == 0);
        let place = (deadline, item);
        while !self.chunks.is_empty() {
            let at = self.locate(place);
            let chunk = &mut self.chunks[at];
            if chunk.items.len() < CHUNK_LEN {
                break;
            }
            if chunk.precedes(place) {
                // In rising order chunks are filled, not halved.
                self.chunks.insert(at + 1, Chunk::new(place));
                break;
            }
            let upper = chunk.split(&exact);
            self.chunks.insert(at + 1, upper);
        }
        self.put(place);
    }

    /// Adds an item to its chunk, full or not.
    fn put(&mut self, place: Place) {
        if self.chunks.is_empty() {
            self.chunks.push_back(Chunk::new(place));
        }
        let at = self.locate(place);
        let chunk = &mut self.chunks[at];
        chunk.low = chunk.low.min(place);
        chunk.add(place);
        self.len += 1;
    }

    /// Removes `item`, whose deadline is `deadline` (another one may or may not find it). False if it is not there.
    pub fn remove(&mut self, deadline: u64, item: u64) -> bool {
        let Some((at, index)) = self.find((deadline, item)) else { return false };
        self.chunks[at].items.swap_remove(index);
        self.len -= 1;
        self.settle(at);
        true
    }

    /// Gives `old_item` the name `new_item` (not there yet): it moved, its deadline is the same. False if it is not there.
    pub fn replace(&mut self, deadline: u64, old_item: u64, new_item: u64) -> bool {
        debug_assert!(new_item >> ITEM_BITS == 0);
        let Some((at, index)) = self.find((deadline, old_item)) else { return false };
        let place = (deadline, new_item);
        if self.locate(place) == at {
            let chunk = &mut self.chunks[at];
            chunk.low = chunk.low.min(place);
            chunk.items[index] = (new_item << DELTA_BITS) | delta(chunk.items[index]);
        } else {
            self.remove(deadline, old_item);
            self.put(place);
        }
        true
    }

    fn find(&self, place: Place) -> Option<(usize, usize)> {
        if place.1 >> ITEM_BITS != 0 {
            return None;
        }
        let at = self.locate(place);
        Some((at, self.chunks.get(at)?.find(place)?))
    }

    /// Gives memory back after the chunk lost items.
    fn settle(&mut self, at: usize) {
        if self.len == 0 {
            return self.clear();
        }
        if self.chunks[at].items.is_empty() {
            self.chunks.remove(at);
        } else {
            self.chunks[at].trim();
            if !self.merge(at) && at > 0 {
                self.merge(at - 1);
            }
        }
        if self.chunks.len() * 4 + 4 <= self.chunks.capacity() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// Merges a chunk with the next if both are nearly empty and their quanta allow it.
    fn merge(&mut self, at: usize) -> bool {
        let (Some(lower), Some(upper)) = (self.chunks.get(at), self.chunks.get(at + 1)) else { return false };
        if lower.items.len() + upper.items.len() > MERGED_LEN {
            return false;
        }
        let finest = lower.shift.max(upper.shift);
        let top = upper.floor(upper.most_delta());
        let base = lower.base.min(upper.base);
        if shift_for(base, top, finest) > finest.max(MERGED_SHIFT) {
            return false;
        }
        let Some(mut upper) = self.chunks.remove(at + 1) else { return false };
        let lower = &mut self.chunks[at];
        let shift = shift_for(base, top.max(lower.floor(lower.most_delta())), finest);
        lower.restate(base, shift);
        upper.restate(base, shift);
        lower.items.reserve_exact(room(lower.items.len() + upper.items.len()) - lower.items.len());
        lower.items.append(&mut upper.items);
        lower.bound = lower.bound.min(upper.bound);
        true
    }

    /// A time before which nothing falls due: at most the earliest deadline, often that very one. `None` when empty.
    pub fn next(&self) -> Option<u64> {
        self.chunks.front().map(|chunk| chunk.bound)
    }

    /// The item whose deadline is the earliest, as far as the first chunk's quantum tells. [`Deadlines::next`] says as much
    /// as is known of it afterwards.
    pub fn earliest(&mut self) -> Option<u64> {
        let chunk = self.chunks.front_mut()?;
        chunk.bound = chunk.earliest();
        chunk.items.iter().min_by_key(|&&word| delta(word)).map(|&word| item(word))
    }

    /// Moves items whose deadline is before `now` to `due`, at most `limit`, those of earlier chunks first. True if more may be
    /// due; otherwise [`Deadlines::next`] is at least `now` afterwards, so calling again before that time is in vain.
    /// `exact` is asked once or twice in the life of an item whose quantum is coarse, and never for others.
    pub fn take_due(&mut self, now: u64, limit: usize, exact: impl Fn(u64) -> u64, due: &mut Vec<u64>) -> bool {
        let mut left = limit;
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.bound >= now {
                return false;
            }
            if left == 0 {
                return true;
            }
            // Earlier quanta than that of `now` are due as a whole, later ones are not.
            let (now, base) = (now >> chunk.shift, chunk.base >> chunk.shift);
            let edge = now.saturating_sub(base);
            let before = due.len();
            chunk.items.retain(|&word| {
                let taken = left > 0 && delta(word) < edge;
                if taken {
                    due.push(item(word));
                    left -= 1;
                }
                !taken
            });
            self.len -= due.len() - before;
            if chunk.items.is_empty() {
                self.chunks.pop_front();
                continue;
            }
            if chunk.shift > 0 && left > 0 && now >= base && chunk.items.iter().any(|&word| delta(word) == edge) {
                self.sharpen(edge, &exact);
                continue;
            }
            chunk.bound = chunk.earliest();
            chunk.trim();
        }
        self.clear();
        false
    }

    /// Gives the items of the first chunk's first quantum, `edge`, a chunk of their own with exact deadlines.
    fn sharpen(&mut self, edge: u64, exact: &impl Fn(u64) -> u64) {
        let Some(mut rest) = self.chunks.pop_front() else { return };
        let mut places = Vec::new();
        let beyond = (rest.floor(edge).saturating_add(1 << rest.shift), 0);
        rest.items.retain(|&word| {
            if delta(word) == edge {
                places.push((exact(item(word)), item(word)));
            }
            delta(word) != edge
        });
        let first = Chunk::exact(rest.low, &places);
        if !rest.items.is_empty() {
            rest.trim();
            rest.low = beyond;
            rest.bound = rest.earliest();
            self.chunks.push_front(rest);
        }
        self.chunks.push_front(first);
    }

    /// All items, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().flat_map(|chunk| chunk.items.iter().map(|&word| item(word)))
    }

    /// Calls `f` for `count` items whose deadlines are the nearest (as far as quanta tell), nearest first.
    pub fn nearest(&self, count: usize, f: impl FnMut(u64)) {
        let sorted = self.chunks.iter().flat_map(|chunk| {
            let mut words = chunk.items.clone();
            words.sort_unstable_by_key(|&word| delta(word));
            words
        });
        sorted.take(count).map(item).for_each(f);
    }

    /// A random item, all about equally likely.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let mut tries = 64;
        loop {
            let items = &self.chunks[rng.usize(..self.chunks.len())].items;
            let at = rng.usize(..CHUNK_LEN.max(items.len()));
            tries -= 1;
            if let Some(&word) = items.get(if tries == 0 { at % items.len() } else { at }) {
                return Some(item(word));
            }
        }
    }

    /// Calls `f` for `count` random items; the same may come twice. None if there are none.
    pub fn sample(&self, rng: &mut fastrand::Rng, count: usize, f: impl FnMut(u64)) {
        (0..count).map_while(|_| self.random(rng)).for_each(f);
    }

    /// Removes all items and frees all memory.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// What its allocations ask for in bytes. Looks at every chunk.
    pub fn allocated_bytes(&self) -> usize {
        let items: usize = self.chunks.iter().map(|chunk| chunk.items.capacity()).sum();
        self.chunks.capacity() * size_of::<Chunk>() + items * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400_000;
    const NOW: u64 = 1_760_000_000_000;

    impl Deadlines {
        /// Panics unless what the file says stays true does.
        fn check(&self, exact: impl Fn(u64) -> u64) {
            let mut len = 0;
            for (at, chunk) in self.chunks.iter().enumerate() {
                assert!(!chunk.items.is_empty());
                assert!(chunk.items.len() <= chunk.items.capacity());
                assert!(chunk.items.capacity() <= room(chunk.items.len() * 2 + 8), "no more slack than twice");
                len += chunk.items.len();
                let next = self.chunks.get(at + 1).map(|next| next.low);
                for &word in &chunk.items {
                    let place = (exact(item(word)), item(word));
                    assert_eq!(Some(word), chunk.word(place), "{place:?} in {chunk:?}");
                    assert!(chunk.low <= place && next.is_none_or(|next| place < next), "{place:?} in {chunk:?}");
                    assert!(chunk.bound <= place.0 && chunk.base <= place.0);
                }
            }
            assert_eq!(len, self.len);
            if len == 0 {
                assert_eq!(self.allocated_bytes(), 0);
            }
        }
    }

    #[test]
    fn deltas_and_items_fill_a_word() {
        assert_eq!(size_of::<Chunk>(), 64);
        assert_eq!(Deadlines::new().allocated_bytes(), 0);
        assert_eq!(Deadlines::new().next(), None);
        let mut index = Deadlines::new();
        let largest = (1 << ITEM_BITS) - 1;
        index.insert(u64::MAX, largest, |_| unreachable!());
        index.insert(0, 0, |_| unreachable!());
        index.check(|item| if item == 0 { 0 } else { u64::MAX });
        assert!(!index.remove(u64::MAX, 0));
        assert!(!index.remove(5, 1 << ITEM_BITS));
        assert!(index.remove(u64::MAX, largest));
    }

    #[test]
    fn an_item_is_due_after_its_deadline_and_not_at_it() {
        let mut index = Deadlines::new();
        index.insert(NOW, 1, |_| unreachable!());
        let mut due = Vec::new();
        assert!(!index.take_due(NOW, 10, |_| unreachable!(), &mut due));
        assert!(due.is_empty());
        assert_eq!(index.next(), Some(NOW));
        assert!(!index.take_due(NOW + 1, 10, |_| unreachable!(), &mut due));
        assert_eq!(due, [1]);
        index.check(|_| unreachable!());
    }

    /// Bytes per item, and how often an exact deadline was asked for.
    fn cost(deadlines: impl Iterator<Item = u64>) -> (f64, usize) {
        let mut index = Deadlines::new();
        let mut known = Vec::new();
        let asked = Cell::new(0);
        for (item, deadline) in deadlines.enumerate() {
            known.push(deadline);
            index.insert(deadline, item as u64, |item| {
                asked.set(asked.get() + 1);
                known[item as usize]
            });
        }
        index.check(|item| known[item as usize]);
        (index.allocated_bytes() as f64 / known.len() as f64, asked.get())
    }

    #[test]
    fn it_takes_about_nine_bytes_an_item() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut random = |span: u64| (0..4000).map(|_| NOW + rng.u64(..span)).collect::<Vec<_>>();
        let sessions = (0..4000).map(|at| NOW + at * 50 + if at % 10 == 0 { 30 * DAY } else { 60_000 });
        let heavy = random(1 << 40).into_iter().map(|at| NOW + (1 << ((at - NOW) % 40)) + (at - NOW) % 1000);
        for (name, most, deadlines) in [
            ("equal", 9.0, vec![NOW; 4000]),
            ("rising", 9.0, (NOW..NOW + 4000).collect()),
            ("rising by a minute", 9.0, (0..4000).map(|at| NOW + at * 60_000).collect()),
            ("falling", 11.0, (NOW..NOW + 4000).rev().collect()),
            ("random within 30 s", 11.0, random(30_000)),
            ("random within 30 days", 11.0, random(30 * DAY)),
            ("random within 30 years", 11.0, random(30 * 365 * DAY)),
            ("rising, in a minute and in 30 days", 11.0, sessions.collect()),
            ("scattered over all scales", 16.0, heavy.collect()),
        ] {
            let (bytes, asked) = cost(deadlines.into_iter());
            println!("{name}: {bytes:.2} bytes an item, exact deadline asked for {asked} times in 4000");
            assert!(bytes <= most, "{name}: {bytes}");
            assert!(asked <= 4000, "{name}: {asked}");
        }
    }

    #[test]
    fn expiring_over_time_asks_for_an_exact_deadline_at_most_twice() {
        let mut rng = fastrand::Rng::with_seed(7);
        for span in [1000, 30 * DAY, 30 * 365 * DAY] {
            let known: Vec<u64> = (0..2000).map(|_| NOW + rng.u64(..span)).collect();
            let asked = Cell::new(0);
            let exact = |item: u64| {
                asked.set(asked.get() + 1);
                known[item as usize]
            };
            let mut index = Deadlines::new();
            (0..2000).for_each(|item| index.insert(known[item as usize], item, exact));
            asked.set(0);
            let (mut due, mut calls) = (Vec::new(), 0);
            while let Some(next) = index.next() {
                // As a timer would that wakes when `next` says.
                index.take_due(next + 1, usize::MAX, exact, &mut due);
                assert!(due.iter().all(|&item| known[item as usize] <= next));
                calls += 1;
            }
            assert_eq!(due.len(), 2000);
            assert!(calls <= 6000, "{calls}");
            assert!(asked.get() <= 4000, "{}", asked.get());
            assert!(due.is_sorted_by_key(|&item| known[item as usize]));
        }
    }

    #[test]
    fn random_items_are_about_equally_likely() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut index = Deadlines::new();
        (0..1000).for_each(|item| index.insert(rng.u64(..DAY), item, |_| 0));
        let mut met = HashMap::<u64, u32>::new();
        index.sample(&mut rng, 20_000, |item| *met.entry(item).or_default() += 1);
        assert_eq!(met.len(), 1000);
        assert!(met.values().all(|&times| times < 60));
        Deadlines::new().sample(&mut rng, 5, |_| unreachable!());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        InsertMany(u64, u64, u64),
        Remove(prop::sample::Index),
        RemoveMany(prop::sample::Index, usize),
        Replace(prop::sample::Index),
        Take(u64, usize),
        Nearest(usize),
    }

    fn deadline() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => NOW..NOW + 3,
            4 => NOW..NOW + DAY,
            4 => NOW..NOW + 30 * 365 * DAY,
            1 => Just(0u64),
            1 => Just(u64::MAX / 2),
            1 => Just(u64::MAX),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => deadline().prop_map(Op::Insert),
            4 => (deadline(), prop_oneof![Just(0u64), Just(1), Just(1000), Just(DAY), Just(1 << 50)], 0..600u64)
                .prop_map(|(from, step, count)| Op::InsertMany(from, step, count)),
            4 => any::<prop::sample::Index>().prop_map(Op::Remove),
            2 => (any::<prop::sample::Index>(), 0..500usize).prop_map(|(from, count)| Op::RemoveMany(from, count)),
            4 => any::<prop::sample::Index>().prop_map(Op::Replace),
            2 => (deadline(), 0..700usize).prop_map(|(now, limit)| Op::Take(now, limit)),
            1 => (0..600usize).prop_map(Op::Nearest),
        ]
    }

    fn run(ops: Vec<Op>) {
        let mut index = Deadlines::new();
        let mut model = BTreeSet::<Place>::new();
        let mut known = HashMap::new();
        // Names in no order, each used once.
        let mut last = 0u64;
        let mut name = || {
            last += 1;
            last.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> DELTA_BITS
        };
        let mut rng = fastrand::Rng::with_seed(7);
        for op in ops {
            match op {
                Op::Insert(at) => {
                    let item = name();
                    known.insert(item, at);
                    index.insert(at, item, |item| known[&item]);
                    model.insert((at, item));
                }
                Op::InsertMany(from, step, count) => {
                    for nth in 0..count {
                        // Some in order, some not.
                        let nth = if count % 2 == 0 { nth } else { rng.u64(..count) };
                        let (at, item) = (from.saturating_add(step.saturating_mul(nth)), name());
                        known.insert(item, at);
                        index.insert(at, item, |item| known[&item]);
                        model.insert((at, item));
                    }
                }
                Op::Remove(which) if !model.is_empty() => {
                    let place = *model.iter().nth(which.index(model.len())).unwrap();
                    model.remove(&place);
                    assert!(!index.remove(place.0, name()), "another item");
                    assert!(index.remove(place.0, place.1));
                    assert!(!index.remove(place.0, place.1));
                }
                Op::RemoveMany(which, count) if !model.is_empty() => {
                    let from = which.index(model.len());
                    let places: Vec<_> = model.iter().skip(from).take(count).copied().collect();
                    for place in places {
                        model.remove(&place);
                        assert!(index.remove(place.0, place.1));
                    }
                }
                Op::Replace(which) if !model.is_empty() => {
                    let place = *model.iter().nth(which.index(model.len())).unwrap();
                    let item = name();
                    assert!(!index.replace(place.0, item, place.1));
                    assert!(index.replace(place.0, place.1, item));
                    model.remove(&place);
                    model.insert((place.0, item));
                    known.insert(item, place.0);
                }
                Op::Take(now, limit) => {
                    let mut due = Vec::new();
                    let more = index.take_due(now, limit, |item| known[&item], &mut due);
                    assert!(due.len() <= limit);
                    for item in due {
                        assert!(known[&item] < now, "only what is due");
                        assert!(model.remove(&(known[&item], item)), "and only once");
                    }
                    let left = model.first().is_some_and(|place| place.0 < now);
                    assert!(more || !left, "all that is due, or the promise of more");
                    if !more {
                        assert!(index.next().is_none_or(|next| next >= now), "nothing to do before `next`");
                    }
                }
                Op::Nearest(count) => {
                    let mut seen = BTreeSet::new();
                    index.nearest(count, |item| assert!(seen.insert(item)));
                    assert_eq!(seen.len(), count.min(model.len()));
                }
                Op::Remove(_) | Op::RemoveMany(..) | Op::Replace(_) => {}
            }
            index.check(|item| known[&item]);
            assert_eq!(index.len(), model.len());
            assert!(index.next().unwrap_or(u64::MAX) <= model.first().map_or(u64::MAX, |place| place.0));
            assert_eq!(index.next().is_none(), model.is_empty());
        }
        let all: BTreeSet<u64> = index.iter().collect();
        assert_eq!(all, model.iter().map(|place| place.1).collect());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 200 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn behaves_like_an_ordered_set(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 8 } else { 60 })) {
            run(ops);
        }
    }
}
