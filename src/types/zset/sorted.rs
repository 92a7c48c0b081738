//! A large sorted set: members once, a tree that has them in order and an index that finds them by their bytes.
//!
//! What must stay true: tree and index hold the same members, a handle each.

use super::member::{Member, drop_pair};
use super::tree::{Key, Leaf, Tree};
use crate::stdx::hash::hash_bytes;
use crate::types::ahead::{self, Elements};
use crate::types::table::{CURSOR_SHIFT, Entry, SharedTable};

fn rehash(member: &Member) -> u64 {
    hash_bytes(member.bytes())
}

/// A large sorted set: members in order, and a table of them.
#[derive(Clone)]
pub struct Sorted {
    /// The members in order.
    pub tree: Tree,
    index: SharedTable<Member>,
    /// What the members' own allocations take.
    member_bytes: usize,
}

impl Default for Sorted {
    fn default() -> Sorted {
        Sorted { tree: Tree::new(), index: SharedTable::default(), member_bytes: 0 }
    }
}

impl Sorted {
    /// Its members by their names.
    #[inline]
    pub fn elements(&self) -> Elements<'_> {
        Elements::Scored(self)
    }

    /// The table of its members.
    #[inline]
    pub fn index(&self) -> &SharedTable<Member> {
        &self.index
    }

    /// Hints the processor at the leaf of a member that is there, which is returned.
    #[inline]
    pub fn ask_for_leaf(&self, member: &Member) -> &Leaf {
        self.tree.ask_for(&Key::new(member.score(), member.bytes()))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The score of a member.
    pub fn score(&self, bytes: &[u8]) -> Option<f64> {
        self.index.find(hash_bytes(bytes), |member| member.bytes() == bytes).map(Member::score)
    }

    /// Adds a member or changes its score to what `decide` says of the old one, if it says anything.
    pub fn upsert(&mut self, bytes: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) {
        match self.index.entry(hash_bytes(bytes), |member| member.bytes() == bytes, rehash) {
            Entry::Occupied(mut found) => {
                let old = found.get().score();
                if let Some(score) = decide(Some(old)).filter(|score| *score != old) {
                    self.tree.rescore(bytes, found.element_mut(), score);
                }
            }
            Entry::Vacant(place) => {
                if let Some(score) = decide(None) {
                    let (one, other) = Member::pair(score, bytes);
                    place.insert(one);
                    self.tree.insert(Key::new(score, bytes), other);
                    self.member_bytes += Member::memory(bytes.len());
                }
            }
        }
    }

    /// Removes a member; returns the score it had.
    pub fn remove(&mut self, bytes: &[u8]) -> Option<f64> {
        let indexed = self.index.remove(hash_bytes(bytes), |member| member.bytes() == bytes, rehash)?;
        let score = indexed.score();
        let ordered = self.tree.remove(Key::new(score, bytes)).expect("tree and index hold the same members");
        self.member_bytes -= Member::memory(bytes.len());
        drop_pair(indexed, ordered);
        Some(score)
    }

    /// Removes `count` members from `start` on, or as many as there are.
    pub fn remove_range(&mut self, start: usize, count: usize) {
        for _ in 0..count {
            let Some(ordered) = self.tree.remove_at(start) else { return };
            let bytes = ordered.bytes();
            self.member_bytes -= Member::memory(bytes.len());
            let indexed = self.index.remove(hash_bytes(bytes), |member| member.is(&ordered), rehash);
            drop_pair(indexed.expect("tree and index hold the same members"), ordered);
        }
        if count == 1 && self.len() >= ahead::LEAST {
            self.ask_for_next(start);
        }
    }

    /// Asks for the memory that the removal of the next member will touch, since who takes one from an end will soon
    /// take the one behind it: the place of the first in the index, and the second itself, whose place is asked for next.
    fn ask_for_next(&self, removed: usize) {
        let ask = |next: &mut dyn Iterator<Item = &Member>| {
            next.next().inspect(|first| self.index.prefetch(rehash(first)));
            next.next().inspect(|second| second.prefetch());
        };
        match removed {
            0 => ask(&mut self.tree.ascend(0)),
            last if last == self.len() => ask(&mut self.tree.descend(last - 1)),
            _ => {}
        }
    }

    /// How many members come before this one, and its score.
    pub fn rank(&self, bytes: &[u8]) -> Option<(usize, f64)> {
        let score = self.score(bytes)?;
        Some((self.tree.rank(Key::new(score, bytes)), score))
    }

    /// Calls `f` for members in the order of their hashes, from `cursor` on: see `Table::scan`.
    pub fn scan(&self, cursor: u64, budget: usize, f: impl FnMut(&Member)) -> Option<u64> {
        // Past the last place nothing is left.
        let from = cursor.checked_mul(1 << CURSOR_SHIFT)?;
        self.index.scan(from, budget, rehash, f).map(|next| next >> CURSOR_SHIFT)
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        size_of::<Sorted>() + self.member_bytes + self.tree.memory() + self.index.allocated_bytes()
    }

    /// Panics unless what the file says stays true does.
    #[cfg(test)]
    pub fn check(&self) {
        self.tree.check();
        assert_eq!(self.tree.len(), self.index.len());
        let mut bytes = 0;
        for member in self.tree.ascend(0) {
            let found = self.index.find(rehash(member), |other| other.bytes() == member.bytes());
            assert_eq!(found.map(Member::score), Some(member.score()));
            bytes += Member::memory(member.bytes().len());
        }
        assert_eq!(bytes, self.member_bytes);
    }
}
