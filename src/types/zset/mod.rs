//! Sorted sets: members in order of score, equal scores in order of bytes.
//!
//! A small set is one [`Listpack`], searched from end to end. A larger one is a counted tree with an index from
//! bytes to members ([`sorted`](self)): scores are found in O(1), ranks and ranges in O(log N). It becomes one where
//! [`Limits`] say so and never goes back, which can be seen (OBJECT ENCODING) and is just as in Redis.
//!
//! What must stay true: no score is NaN; members differ.

mod member;
mod packed;
mod sorted;
#[cfg(test)]
mod tests;
mod tree;

use std::cmp::Ordering;
use std::ops::Range;

use crate::types::listpack::{Item, Listpack};
use member::Member;
use sorted::Sorted;

/// What a listpack may hold: `zset-max-listpack-entries` and `zset-max-listpack-value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most members.
    pub entries: usize,
    /// The most bytes of a member.
    pub bytes: usize,
}

/// The way through a sorted set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest score to the highest.
    Up,
    /// From the highest score to the lowest.
    Down,
}

/// A set of byte strings, each with a score.
#[derive(Clone)]
pub struct ZSet(Repr);

#[derive(Clone)]
enum Repr {
    Packed(Listpack),
    Sorted(Box<Sorted>),
}

impl Default for ZSet {
    fn default() -> ZSet {
        ZSet(Repr::Packed(Listpack::new()))
    }
}

fn item(member: &Member) -> (Item<'_>, f64) {
    (Item::Bytes(member.bytes()), member.score())
}

impl ZSet {
    /// The number of members.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Packed(pack) => pack.len() / 2,
            Repr::Sorted(sorted) => sorted.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Packed(_) => "listpack",
            Repr::Sorted(_) => "skiplist",
        }
    }

    /// Bytes that it takes. Looks at every node of a large one.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Repr::Packed(pack) => pack.memory(),
            Repr::Sorted(sorted) => sorted.memory(),
        }
    }

    /// The listpack that it is, members and scores by turns, where it is small.
    pub fn listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Repr::Packed(pack) => Some(pack),
            Repr::Sorted(_) => None,
        }
    }

    /// The sorted set that a listpack of members and scores is, as files hold it; `None` where it is none: a member
    /// without a score or there twice, a score that is no number. It is put in order where it is not, and becomes a tree
    /// where it has more members than `limits` allow.
    pub fn from_listpack(mut pack: Listpack, limits: Limits) -> Option<ZSet> {
        if !pack.len().is_multiple_of(2) || !packed::has_scores(&pack) {
            return None;
        }
        if pack.len() / 2 <= limits.entries && packed::is_in_order(&pack) {
            pack.shrink();
            return Some(ZSet(Repr::Packed(pack)));
        }
        let mut set = ZSet::default();
        set.make_room(pack.len() / 2, 0, limits);
        let mut twice = false;
        for (member, score) in packed::ascend(&pack, 0) {
            set.upsert(&member.to_vec(), limits, |old| {
                twice |= old.is_some();
                Some(score)
            });
        }
        (!twice).then_some(set)
    }

    /// Says that so many members, the longest of so many bytes, are about to be added: a listpack that may
    /// not hold them becomes a tree.
    pub fn make_room(&mut self, members: usize, longest: usize, limits: Limits) {
        if let Repr::Packed(pack) = &self.0
            && (longest > limits.bytes || pack.len() / 2 + members > limits.entries)
        {
            let mut sorted = Sorted::new();
            for (member, score) in packed::ascend(pack, 0) {
                sorted.upsert(&member.to_vec(), |_| Some(score));
            }
            self.0 = Repr::Sorted(Box::new(sorted));
        }
    }

    /// Adds a member, or changes its score: `decide` is told the score it has, if it is there, and says which one it
    /// is to have, or `None` to leave everything as it is. It must not say NaN.
    pub fn upsert(&mut self, member: &[u8], limits: Limits, decide: impl FnOnce(Option<f64>) -> Option<f64>) {
        if let Repr::Packed(pack) = &mut self.0 {
            let found = packed::find(pack, member);
            let old = found.as_ref().map(|found| found.score);
            let Some(score) = decide(old).filter(|score| Some(*score) != old) else { return };
            debug_assert!(!score.is_nan());
            if let Some(found) = found {
                packed::remove(pack, &found);
                return packed::insert(pack, score, member);
            }
            self.make_room(1, member.len(), limits);
            match &mut self.0 {
                Repr::Packed(pack) => packed::insert(pack, score, member),
                Repr::Sorted(sorted) => sorted.upsert(member, |_| Some(score)),
            }
        } else if let Repr::Sorted(sorted) = &mut self.0 {
            sorted.upsert(member, decide);
        }
    }

    /// Adds a member with this score, or gives it this score.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: Limits) {
        self.upsert(member, limits, |_| Some(score));
    }

    /// Removes a member; returns the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Repr::Packed(pack) => {
                let found = packed::find(pack, member)?;
                packed::remove(pack, &found);
                Some(found.score)
            }
            Repr::Sorted(sorted) => sorted.remove(member),
        }
    }

    /// Removes the members at these positions, or as many as there are.
    pub fn remove_range(&mut self, range: Range<usize>) {
        let range = range.start..range.end.min(self.len());
        match &mut self.0 {
            Repr::Packed(pack) => pack.remove_range(2 * range.start, 2 * range.len()),
            Repr::Sorted(sorted) => sorted.remove_range(range.start, range.len()),
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Repr::Packed(pack) => packed::find(pack, member).map(|found| found.score),
            Repr::Sorted(sorted) => sorted.score(member),
        }
    }

    /// How many members come before this one, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match &self.0 {
            Repr::Packed(pack) => packed::find(pack, member).map(|found| (found.rank, found.score)),
            Repr::Sorted(sorted) => sorted.rank(member),
        }
    }

    /// The positions of the members for which `side` is `Equal`; `Less` are those before, `Greater` those behind.
    ///
    /// A small set is looked at from its beginning on: what comes out where `side` does not follow the order of the
    /// members (their bytes, while scores differ) is as in Redis.
    pub fn span(&self, side: impl Fn(Item<'_>, f64) -> Ordering) -> Range<usize> {
        match &self.0 {
            Repr::Packed(pack) => {
                let count = |from: usize, until: Ordering| {
                    packed::ascend(pack, from).take_while(|(item, score)| side(*item, *score) < until).count()
                };
                let start = count(0, Ordering::Equal);
                start..start + count(start, Ordering::Greater)
            }
            Repr::Sorted(sorted) => {
                let count = |until: Ordering| {
                    sorted.tree.partition(|member| {
                        let (item, score) = item(member);
                        side(item, score) < until
                    })
                };
                let start = count(Ordering::Equal);
                start..count(Ordering::Greater).max(start)
            }
        }
    }

    /// Members with their scores from `position` on, in either direction; none where there is no such position.
    pub fn iter(&self, position: usize, direction: Direction) -> impl Iterator<Item = (Item<'_>, f64)> {
        match (&self.0, direction) {
            (Repr::Packed(pack), Direction::Up) => Iter::PackedUp(packed::ascend(pack, position)),
            (Repr::Packed(pack), Direction::Down) => Iter::PackedDown(packed::descend(pack, position)),
            (Repr::Sorted(sorted), Direction::Up) => Iter::SortedUp(sorted.tree.ascend(position).map(item)),
            (Repr::Sorted(sorted), Direction::Down) => Iter::SortedDown(sorted.tree.descend(position).map(item)),
        }
    }

    /// The member at `position`, and its score.
    pub fn at(&self, position: usize) -> Option<(Item<'_>, f64)> {
        self.iter(position, Direction::Up).next()
    }

    /// Calls `f` for some members with their scores, about `budget`, from `cursor` on, which is 0 in the beginning; returns
    /// where to go on, `None` at the end. A small set comes as a whole. Those that are there from the first call
    /// to the last are visited, whatever happens to others between calls.
    pub fn scan(&self, cursor: u64, budget: usize, mut f: impl FnMut(Item<'_>, f64)) -> Option<u64> {
        match &self.0 {
            Repr::Packed(pack) => {
                packed::ascend(pack, 0).for_each(|(item, score)| f(item, score));
                None
            }
            Repr::Sorted(sorted) => sorted.scan(cursor, budget, |member| f(item(member).0, member.score())),
        }
    }

    /// Compares the bytes of a member, as [`ZSet::iter`] yields it.
    pub fn compare(member: Item<'_>, bytes: &[u8]) -> Ordering {
        packed::compare(member, bytes)
    }
}

/// The iterators of both forms in both directions, as one.
enum Iter<A, B, C, D> {
    PackedUp(A),
    PackedDown(B),
    SortedUp(C),
    SortedDown(D),
}

impl<T, A, B, C, D> Iterator for Iter<A, B, C, D>
where
    A: Iterator<Item = T>,
    B: Iterator<Item = T>,
    C: Iterator<Item = T>,
    D: Iterator<Item = T>,
{
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Iter::PackedUp(iter) => iter.next(),
            Iter::PackedDown(iter) => iter.next(),
            Iter::SortedUp(iter) => iter.next(),
            Iter::SortedDown(iter) => iter.next(),
        }
    }
}

impl std::fmt::Debug for ZSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter(0, Direction::Up)).finish()
    }
}
