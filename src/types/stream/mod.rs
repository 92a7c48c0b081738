//! Streams: entries that are added at the end, each with an id, and groups of consumers that read them.
//!
//! Entries stand in [`chunk`]s of about a hundred, ordered by the id of each one's first entry. A clone
//! shares all chunks; what is changed afterwards copies one of them at a time.
//!
//! What must stay true: ids ascend over all chunks, each chunk has a living entry, there is a `tail` where there is
//! a chunk, `len` is the number of living entries, and `last` is not less than the id of any entry.

pub mod chunk;
pub mod group;
pub mod id;
pub mod ordered;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::listpack::Listpack;
use crate::types::stream::chunk::{Chunk, Entry, Limits};
use crate::types::stream::group::Group;
use crate::types::stream::id::Id;
use crate::types::stream::ordered::Ordered;

/// A stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Its entries.
    pub log: Log,
    /// Its groups.
    pub groups: Groups,
}

impl Stream {
    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        let groups = self.groups.iter().map(|(name, group)| 2 * name.len() + 48 + group.memory());
        self.log.memory() + groups.sum::<usize>()
    }
}

/// The entries of a stream.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// All chunks but the last.
    chunks: Ordered<Arc<Chunk>>,
    /// The last chunk and its id: at hand for what is added, and the only one of most streams.
    tail: Option<(Id, Arc<Chunk>)>,
    len: u64,
    last: Id,
    max_deleted: Id,
    added: u64,
}

/// What a stream keeps beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// The id of the last entry that was added, be it deleted or not.
    pub last: Id,
    /// The greatest id of those that were deleted singly.
    pub max_deleted: Id,
    /// How many entries were ever added.
    pub added: u64,
}

/// Which entries to remove from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// Those that are too many.
    MaxLen(u64),
    /// Those with lesser ids.
    MinId(Id),
}

/// How exactly to remove them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// All of them.
    Exact,
    /// Whole chunks, and no more than so many entries; 0 for no limit.
    Chunks(u64),
}

impl Log {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is kept beside the entries.
    pub fn counters(&self) -> Counters {
        Counters { last: self.last, max_deleted: self.max_deleted, added: self.added }
    }

    /// Sets what is kept beside the entries; `last` must not be less than the id of any entry.
    pub fn set_counters(&mut self, counters: Counters) {
        Counters { last: self.last, max_deleted: self.max_deleted, added: self.added } = counters;
    }

    /// The id of the first entry; [`Id::MIN`] where there is none.
    pub fn first_id(&self) -> Id {
        self.entries(Id::MIN, Id::MAX).next().map_or(Id::MIN, |entry| entry.id)
    }

    /// The id of the last entry that is there; `None` where there is none.
    pub fn top_id(&self) -> Option<Id> {
        self.entries_down(Id::MAX, Id::MIN).next().map(|entry| entry.id)
    }

    /// The id that an entry gets which is added at `now_ms`: the time, but behind the last one in any case.
    /// `None` where no greater id exists.
    pub fn next_id(&self, now_ms: u64) -> Option<Id> {
        if now_ms > self.last.ms { Some(Id::new(now_ms, 0)) } else { self.last.next() }
    }

    /// Adds an entry. `id` must be greater than the last one; `elements` are its fields and values in turn.
    pub fn append<'e>(&mut self, id: Id, elements: impl ExactSizeIterator<Item = &'e [u8]> + Clone, limits: Limits) {
        assert!(id > self.last, "ids ascend");
        let bytes = elements.clone().map(<[u8]>::len).sum();
        match &mut self.tail {
            Some((first, chunk)) if !chunk.is_full(bytes, limits) => {
                Arc::make_mut(chunk).append(*first, id, elements);
            }
            full => {
                if let Some(chunk) = full.as_mut().and_then(|(_, chunk)| Arc::get_mut(chunk)) {
                    chunk.shrink();
                }
                self.push(id, Chunk::new(elements));
            }
        }
        self.len += 1;
        self.added += 1;
        self.last = id;
    }

    /// Adds a chunk behind all others.
    fn push(&mut self, id: Id, chunk: Chunk) {
        if let Some((first, chunk)) = self.tail.replace((id, Arc::new(chunk))) {
            self.chunks.insert(first, chunk);
        }
    }

    fn tail(&self) -> impl Iterator<Item = (Id, &Arc<Chunk>)> {
        self.tail.iter().map(|(id, chunk)| (*id, chunk))
    }

    /// The chunks in ascending order, from the one on that begins at `first`.
    fn up_from(&self, first: Id) -> impl Iterator<Item = (Id, &Arc<Chunk>)> {
        self.chunks.from(first).chain(self.tail())
    }

    /// The chunks that begin at or before `id`, in descending order.
    fn down_from(&self, id: Id) -> impl Iterator<Item = (Id, &Arc<Chunk>)> {
        self.tail().filter(move |(first, _)| *first <= id).chain(self.chunks.down_from(id))
    }

    /// The first chunk.
    fn front(&self) -> Option<(Id, &Arc<Chunk>)> {
        self.chunks.first().or_else(|| self.tail().next())
    }

    /// The chunk that begins at `first`, to be changed.
    fn chunk_mut(&mut self, first: Id) -> Option<&mut Chunk> {
        let chunk = match &mut self.tail {
            Some((id, chunk)) if *id == first => Some(chunk),
            _ => self.chunks.at_mut(first),
        };
        chunk.map(Arc::make_mut)
    }

    /// Removes the chunk that begins at `first`.
    fn remove_chunk(&mut self, first: Id) {
        match &self.tail {
            Some((id, _)) if *id == first => {
                let last = self.chunks.last().map(|(id, _)| id);
                self.tail = last.and_then(|id| Some((id, self.chunks.remove(id)?)));
            }
            _ => {
                self.chunks.remove(first);
            }
        }
    }

    /// The entries from one id to another, both included, in ascending order.
    pub fn entries(&self, from: Id, to: Id) -> impl Iterator<Item = Entry<'_>> {
        let first = self.down_from(from).next().map_or(Id::MIN, |(id, _)| id);
        self.up_from(first)
            .flat_map(|(id, chunk)| chunk.entries(id))
            .skip_while(move |entry| entry.id < from)
            .take_while(move |entry| entry.id <= to)
    }

    /// The entries from one id down to another, both included, in descending order.
    pub fn entries_down(&self, from: Id, to: Id) -> impl Iterator<Item = Entry<'_>> {
        self.down_from(from)
            .flat_map(|(id, chunk)| chunk.entries_down(id))
            .skip_while(move |entry| entry.id > from)
            .take_while(move |entry| entry.id >= to)
    }

    /// The entry with this id.
    pub fn entry(&self, id: Id) -> Option<Entry<'_>> {
        self.entries(id, id).next()
    }

    /// Deletes the entry with this id; returns whether there was one.
    pub fn delete(&mut self, id: Id) -> bool {
        let Some((first, chunk)) = self.down_from(id).next() else { return false };
        if chunk.entries(first).take_while(|entry| entry.id <= id).all(|entry| entry.id != id) {
            return false;
        }
        if chunk.living() == 1 {
            self.remove_chunk(first);
        } else if let Some(chunk) = self.chunk_mut(first) {
            chunk.delete(first, id.next().unwrap_or(Id::MAX), |other| other == id);
        }
        self.len -= 1;
        self.max_deleted = self.max_deleted.max(id);
        true
    }

    /// Removes entries from the front; returns how many.
    pub fn trim(&mut self, trim: Trim, precision: Precision) -> u64 {
        let mut removed = 0;
        while let Some((first, chunk)) = self.front() {
            let living = chunk.living();
            let whole = match trim {
                Trim::MaxLen(most) if self.len <= most => break,
                Trim::MaxLen(most) => self.len - living >= most,
                Trim::MinId(least) => chunk.last_id(first) < least,
            };
            if let Precision::Chunks(limit) = precision
                && (limit > 0 && removed + living > limit || !whole)
            {
                break;
            }
            if whole {
                self.remove_chunk(first);
                self.len -= living;
                removed += living;
                continue;
            }
            removed += self.trim_within(first, trim);
            break;
        }
        removed
    }

    /// Removes entries from the front of the chunk `first`, in which some stay; returns how many.
    fn trim_within(&mut self, first: Id, trim: Trim) -> u64 {
        let (end, mut left) = match trim {
            Trim::MaxLen(most) => (Id::MAX, self.len - most),
            Trim::MinId(least) => (least, u64::MAX),
        };
        // What is not changed need not be copied.
        if trim == Trim::MinId(end) && self.front().is_none_or(|(id, _)| id >= end) {
            return 0;
        }
        let Some(chunk) = self.chunk_mut(first) else { return 0 };
        let removed = chunk.delete(first, end, |_| {
            let delete = left > 0;
            left = left.saturating_sub(1);
            delete
        });
        // The last one may have been deleted before all that stood in front of it.
        if chunk.living() == 0 {
            self.remove_chunk(first);
        }
        self.len -= removed;
        removed
    }

    /// Whether something at or behind `id` was deleted singly, as far as that is known.
    fn is_fragmented_from(&self, id: Id) -> bool {
        let deleted = self.max_deleted;
        self.len > 0 && deleted != Id::MIN && id <= deleted && self.first_id() <= deleted
    }

    /// How many entries were ever added up to the one with this id, it included; `None` where that cannot be told.
    pub fn position(&self, id: Id) -> Option<i64> {
        let (added, len) = (self.added as i64, self.len as i64);
        if self.added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last || id == self.last {
            return Some(added);
        }
        let first = self.first_id();
        if id > self.last || self.max_deleted != Id::MIN && self.max_deleted >= first {
            return None;
        }
        match id.cmp(&first) {
            std::cmp::Ordering::Less => Some(added.wrapping_sub(len)),
            std::cmp::Ordering::Equal => Some(added.wrapping_sub(len).wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// How many entries a group has not been given yet; `None` where that cannot be told.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.added == 0 {
            return Some(0);
        }
        let read = match group.read {
            Some(read) if !self.is_fragmented_from(group.last) => read,
            _ => self.position(group.last)?,
        };
        Some((self.added as i64).wrapping_sub(read))
    }

    /// Moves a group on to the entry `id`, which it is given; where it has been there before, nothing changes.
    /// Returns whether it moved.
    pub fn advance(&self, group: &mut Group, id: Id) -> bool {
        if id <= group.last {
            return false;
        }
        if let Some(read) = group.read.filter(|_| !self.is_fragmented_from(id)) {
            group.read = Some(read.wrapping_add(1));
        } else if self.added > 0 {
            group.read = self.position(id);
        }
        group.last = id;
        true
    }

    /// The chunks with their ids, as files hold them.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = (Id, &Listpack)> {
        let left = self.chunks.len() + usize::from(self.tail.is_some());
        Chunks { left, chunks: self.chunks.iter(), tail: self.tail.as_ref() }
    }

    /// Adds a chunk from a file behind all others; returns whether it is well formed and its ids ascend. One without
    /// living entries is left out. The counters are to be set afterwards.
    pub fn add_chunk(&mut self, id: Id, pack: Listpack) -> bool {
        let behind = self.tail.as_ref().is_none_or(|(first, chunk)| chunk.last_id(*first) < id);
        let Some(chunk) = Chunk::from_listpack(pack, id).filter(|_| behind) else { return false };
        let living = chunk.living();
        self.last = self.last.max(id);
        if living > 0 {
            self.last = self.last.max(chunk.last_id(id));
            self.len += living;
            self.push(id, chunk);
        }
        true
    }

    /// How many nodes Redis' radix tree would have for these chunks. Looks at the ids of all of them.
    pub fn radix_nodes(&self) -> usize {
        // A node where keys part, one for what a path has in common before, and one at the end of each key.
        // Paths to where neighbours part: the depth in bytes, and whether the node there is counted already.
        let mut nodes = 0;
        let mut open: Vec<usize> = Vec::new();
        let mut before: Option<Id> = None;
        // The node at depth `to` below the one at `from`: itself, and another for the bytes in between.
        let path = |from: Option<usize>, to: usize| 1 + usize::from(to > from.map_or(0, |from| from + 1));
        for (id, _) in self.up_from(Id::MIN) {
            if let Some(before) = before {
                let common = before.to_bytes().iter().zip(id.to_bytes()).take_while(|(a, b)| **a == *b).count();
                // The last key ends below where it parts from this one, or from the one before it.
                nodes += path(open.last().copied().max(Some(common)), 16);
                while let Some(depth) = open.pop_if(|depth| *depth > common) {
                    nodes += path(open.last().copied().max(Some(common)), depth);
                }
                if open.last() != Some(&common) {
                    open.push(common);
                }
            }
            before = Some(id);
        }
        if before.is_none() {
            return 1;
        }
        nodes += path(open.last().copied(), 16);
        while let Some(depth) = open.pop() {
            nodes += path(open.last().copied(), depth);
        }
        nodes
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        const ARC: usize = 16;
        let chunk = |(_, chunk): (Id, &Arc<Chunk>)| ARC + size_of::<Chunk>() + chunk.memory();
        self.chunks.memory() + self.up_from(Id::MIN).map(chunk).sum::<usize>()
    }
}

struct Chunks<'a> {
    left: usize,
    chunks: ordered::Ascending<'a, Arc<Chunk>>,
    tail: Option<&'a (Id, Arc<Chunk>)>,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (Id, &'a Listpack);

    fn next(&mut self) -> Option<(Id, &'a Listpack)> {
        let (id, chunk) = self.chunks.next().or_else(|| self.tail.take().map(|(id, chunk)| (*id, chunk)))?;
        self.left -= 1;
        Some((id, chunk.pack()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Chunks<'_> {}

/// The groups of a stream, by name.
#[derive(Debug, Clone, Default)]
pub struct Groups(BTreeMap<Box<[u8]>, Arc<Group>>);

impl Groups {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The groups in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.0.iter().map(|(name, group)| (&**name, &**group))
    }

    /// The group of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Group> {
        self.0.get(name).map(Arc::as_ref)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.0.get_mut(name).map(Arc::make_mut)
    }

    /// Adds a group; returns whether the name was free.
    pub fn add(&mut self, name: &[u8], group: Group) -> bool {
        let free = !self.0.contains_key(name);
        if free {
            self.0.insert(name.into(), Arc::new(group));
        }
        free
    }

    /// Removes a group; returns whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.0.remove(name).is_some()
    }
}
