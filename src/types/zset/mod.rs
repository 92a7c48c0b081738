//! Sorted sets: members in order of score, equal scores in order of bytes.
//!
//! A small set is a run of members and scores, searched from end to end: [`Dense`] while it is very small, which
//! keyspaces keep inside of the key's entry, and a [`Listpack`] above. A larger one is a counted tree with an index from
//! bytes to members ([`sorted`](self)): scores are found in O(1), ranks and ranges in O(log N). It becomes one where
//! [`Limits`] say so and never goes back, which can be seen (OBJECT ENCODING) and is just as in Redis.
//!
//! All that only reads goes through a [`ZSetRef`], which looks the same for all of these.
//!
//! What must stay true: no score is NaN; members differ; what is dense has no more than
//! [`MAX`](crate::types::dense::MAX) bytes.

mod member;
mod packed;
mod short;
mod sorted;
#[cfg(test)]
mod tests;
mod tree;
pub mod view;

use std::cmp::Ordering;
use std::ops::Range;

use crate::types::dense::{self, Dense};
use crate::types::listpack::{Item, Listpack};
use crate::types::zset::view::{Form, ZSetRef};
pub use member::Member as Scored;
pub use sorted::Sorted;
pub use tree::Leaf;

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
    Dense(Dense),
    Packed(Listpack),
    Sorted(Box<Sorted>),
}

impl Default for ZSet {
    fn default() -> ZSet {
        ZSet(Repr::Dense(Dense::default()))
    }
}

impl ZSet {
    /// The sorted set that a dense run is.
    #[inline]
    pub fn from_dense(dense: Dense) -> ZSet {
        ZSet(Repr::Dense(dense))
    }

    /// The dense run that it is, where it is very small.
    #[inline]
    pub fn dense(&self) -> Option<&Dense> {
        match &self.0 {
            Repr::Dense(dense) => Some(dense),
            _ => None,
        }
    }

    /// The sorted set, to be read.
    #[inline]
    pub fn view(&self) -> ZSetRef<'_> {
        ZSetRef::of(match &self.0 {
            Repr::Dense(dense) => Form::Dense(dense.run()),
            Repr::Packed(pack) => Form::Packed(pack),
            Repr::Sorted(sorted) => Form::Sorted(sorted),
        })
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
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
            let mut set = ZSet(Repr::Packed(pack));
            set.condense(dense::MAX);
            return Some(set);
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
        let known = match &self.0 {
            // Each member and each score takes a byte at least.
            Repr::Dense(dense) if dense.run().end() / 2 + members <= limits.entries => 0,
            Repr::Dense(dense) => dense.run().count() / 2,
            Repr::Packed(pack) => pack.len() / 2,
            Repr::Sorted(_) => return,
        };
        if longest > limits.bytes || known + members > limits.entries {
            let mut sorted = Sorted::default();
            for (member, score) in self.view().iter(0, Direction::Up) {
                sorted.upsert(&member.to_vec(), |_| Some(score));
            }
            self.0 = Repr::Sorted(Box::new(sorted));
        }
    }

    /// Makes a listpack of a run that has no room for one more member of so many bytes.
    fn make_packed(&mut self, bytes: usize) {
        if let Repr::Dense(dense) = &self.0
            && !dense.has_room(2, bytes)
        {
            self.0 = Repr::Packed(short::listpack_of(dense.run()));
        }
    }

    /// Makes a dense run of a listpack that takes so many bytes, or fewer.
    fn condense(&mut self, bytes: usize) {
        if let Repr::Packed(pack) = &self.0
            && pack.byte_len() <= bytes
            && let Some(dense) = short::dense_of(pack)
        {
            self.0 = Repr::Dense(dense);
        }
    }

    /// Adds a member, or changes its score: `decide` is told the score it has, if it is there, and says which one it
    /// is to have, or `None` to leave everything as it is. It must not say NaN.
    pub fn upsert(&mut self, member: &[u8], limits: Limits, decide: impl FnOnce(Option<f64>) -> Option<f64>) {
        let (old, decided) = match &mut self.0 {
            Repr::Dense(dense) => {
                let found = short::find(dense.run(), member);
                let old = found.as_ref().map(|found| found.score);
                let Some(score) = decide(old).filter(|score| Some(*score) != old) else { return };
                if let Some(found) = &found {
                    short::remove(dense, found);
                }
                (old, score)
            }
            Repr::Packed(pack) => {
                let found = packed::find(pack, member);
                let old = found.as_ref().map(|found| found.score);
                let Some(score) = decide(old).filter(|score| Some(*score) != old) else { return };
                if let Some(found) = &found {
                    packed::remove(pack, found);
                }
                (old, score)
            }
            Repr::Sorted(sorted) => return sorted.upsert(member, decide),
        };
        debug_assert!(!decided.is_nan());
        if old.is_none() {
            self.make_room(1, member.len(), limits);
        }
        self.make_packed(member.len());
        match &mut self.0 {
            Repr::Dense(dense) => short::insert(dense, decided, member),
            Repr::Packed(pack) => packed::insert(pack, decided, member),
            Repr::Sorted(sorted) => sorted.upsert(member, |_| Some(decided)),
        }
    }

    /// Adds a member with this score, or gives it this score.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: Limits) {
        self.upsert(member, limits, |_| Some(score));
    }

    /// Removes a member; returns the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Repr::Dense(dense) => {
                let found = short::find(dense.run(), member)?;
                short::remove(dense, &found);
                Some(found.score)
            }
            Repr::Packed(pack) => {
                let found = packed::find(pack, member)?;
                packed::remove(pack, &found);
                // Half of what it may have: one that comes and goes about the limit stays what it is.
                self.condense(dense::MAX / 2);
                Some(found.score)
            }
            Repr::Sorted(sorted) => sorted.remove(member),
        }
    }

    /// Removes the members at these positions, or as many as there are.
    pub fn remove_range(&mut self, range: Range<usize>) {
        let range = range.start..range.end.min(self.len());
        match &mut self.0 {
            Repr::Dense(dense) => short::remove_range(dense, range),
            Repr::Packed(pack) => {
                pack.remove_range(2 * range.start, 2 * range.len());
                self.condense(dense::MAX / 2);
            }
            Repr::Sorted(sorted) => sorted.remove_range(range.start, range.len()),
        }
    }

    /// Compares the bytes of a member, as [`ZSetRef::iter`] yields it.
    pub fn compare(member: Item<'_>, bytes: &[u8]) -> Ordering {
        packed::compare(member, bytes)
    }
}

impl std::fmt::Debug for ZSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.view().iter(0, Direction::Up)).finish()
    }
}
