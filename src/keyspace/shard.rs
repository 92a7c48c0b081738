//! Shards: 64 neighbouring slots of every database, under one lock.
//!
//! What must stay true of a [`Part`]: `len` is the sum of its tables' lengths, `filled` has a bit for
//! each table that is not empty, and `volatile` holds just the entries with a deadline. So there is
//! one way to change an entry, [`Part::update`], which sees to it.

use crate::keyspace::entry::Entry;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::volatile::Volatile;
use crate::types::table::Table;
use crate::types::table::prefetch::prefetch;

/// Slots in a keyspace, as in a Redis Cluster.
pub const SLOTS: usize = 16384;
/// Neighbouring slots that share a lock.
pub const SLOTS_PER_SHARD: usize = 64;
/// Locks in a keyspace.
pub const SHARDS: usize = SLOTS / SLOTS_PER_SHARD;

/// A shard's slots of every database; a database's part is allocated with its first key.
#[derive(Debug, Default)]
pub struct Shard {
    /// Database 0, which nearly everyone uses alone: reached without a further load.
    first: Option<Box<Part>>,
    /// Database 1 and on.
    others: Vec<Option<Box<Part>>>,
}

impl Shard {
    /// A database's part, if it ever had a key here.
    #[inline]
    pub fn part(&self, db: usize) -> Option<&Part> {
        match db.checked_sub(1) {
            None => self.first.as_deref(),
            Some(other) => self.others.get(other)?.as_deref(),
        }
    }

    /// A database's part to be changed, if it ever had a key here.
    #[inline]
    pub fn part_mut(&mut self, db: usize) -> Option<&mut Part> {
        match db.checked_sub(1) {
            None => self.first.as_deref_mut(),
            Some(other) => self.others.get_mut(other)?.as_deref_mut(),
        }
    }

    /// Where a database's part hangs.
    fn place(&mut self, db: usize) -> &mut Option<Box<Part>> {
        let Some(other) = db.checked_sub(1) else { return &mut self.first };
        if self.others.len() <= other {
            self.others.resize_with(other + 1, || None);
        }
        &mut self.others[other]
    }

    /// A database's part, allocated where it is missing.
    #[inline]
    pub fn part_or_new(&mut self, db: usize) -> &mut Part {
        self.place(db).get_or_insert_default()
    }

    /// Takes a database's part out and leaves it empty.
    pub fn take_part(&mut self, db: usize) -> Option<Box<Part>> {
        match db.checked_sub(1) {
            None => self.first.take(),
            Some(other) => self.others.get_mut(other)?.take(),
        }
    }

    /// Exchanges two databases' parts.
    pub fn swap_parts(&mut self, a: usize, b: usize) {
        let part = self.place(a).take();
        let part = std::mem::replace(self.place(b), part);
        *self.place(a) = part;
    }

    fn parts(&self) -> impl Iterator<Item = &Option<Box<Part>>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Numbers of the databases that have a part here.
    pub fn databases(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts().enumerate().filter(|(_, part)| part.is_some()).map(|(db, _)| db)
    }

    /// A time before which nothing in the shard is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.parts().flatten().filter_map(|part| part.volatile.next()).min()
    }
}

/// One database's slots in one shard.
#[derive(Debug)]
pub struct Part {
    slots: [Table<Entry>; SLOTS_PER_SHARD],
    filled: u64,
    len: usize,
    volatile: Volatile,
}

impl Default for Part {
    fn default() -> Part {
        Part { slots: [const { Table::new() }; SLOTS_PER_SHARD], filled: 0, len: 0, volatile: Volatile::default() }
    }
}

#[inline]
fn table_hash(entry: &Entry) -> u64 {
    KeyHash::table_hash_of_bits(entry.bits())
}

/// Whether an entry is the one for `key`; the bits in the pointer decide nearly always, without touching the entry.
#[inline]
fn is(entry: &Entry, hash: KeyHash, key: &[u8]) -> bool {
    entry.bits() == hash.bits() && entry.key() == key
}

impl Part {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keys that can expire.
    pub fn volatile(&self) -> &Volatile {
        &self.volatile
    }

    /// One slot's table, by its number within the shard.
    pub fn slot(&self, index: usize) -> &Table<Entry> {
        &self.slots[index]
    }

    /// Bits of the slots that are not empty.
    pub fn filled(&self) -> u64 {
        self.filled
    }

    /// The entry for `key`, expired or not.
    #[inline]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<&Entry> {
        self.slots[hash.slot_in_shard()].find(hash.table_hash(), |e| is(e, hash, key))
    }

    /// Asks the processor to load the head of the table where `find` will look.
    #[inline]
    pub fn prefetch_table(&self, hash: KeyHash) {
        prefetch(std::ptr::from_ref(&self.slots[hash.slot_in_shard()]).addr());
    }

    /// Asks the processor to load where `find` will look, the table's head being loaded.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.slots[hash.slot_in_shard()].prefetch(hash.table_hash());
    }

    /// Asks the processor to load the entry that `find` will most likely return.
    #[inline]
    pub fn prefetch_entry(&self, hash: KeyHash) {
        if let Some(entry) = self.slots[hash.slot_in_shard()].find(hash.table_hash(), |e| e.bits() == hash.bits()) {
            entry.prefetch();
        }
    }

    /// Notes an access in the entry's clock.
    #[inline]
    pub fn touch(&mut self, hash: KeyHash, key: &[u8], clock: impl FnOnce(u32) -> u32) -> Option<&Entry> {
        let entry = self.slots[hash.slot_in_shard()].find_mut(hash.table_hash(), |e| is(e, hash, key))?;
        let now = clock(entry.clock());
        entry.set_clock(now);
        Some(entry)
    }

    /// Changes the entry for `key` in place by `change`, which may replace value, deadline and clock.
    #[inline]
    pub fn update<R>(&mut self, hash: KeyHash, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.slots[hash.slot_in_shard()].find_mut(hash.table_hash(), |e| is(e, hash, key))?;
        Some(changed(entry, &mut self.volatile, change))
    }

    /// Changes the entry for `key` by `change`, or adds the one that `create` makes; one probe for both.
    /// Returns whether the entry is new.
    #[inline]
    pub fn upsert(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        change: impl FnOnce(&mut Entry),
        create: impl FnOnce() -> Entry,
    ) -> bool {
        let slot = hash.slot_in_shard();
        let table = &mut self.slots[slot];
        if let Some(entry) = table.find_mut(hash.table_hash(), |e| is(e, hash, key)) {
            changed(entry, &mut self.volatile, change);
            return false;
        }
        self.insert(hash, create());
        true
    }

    /// Adds an entry whose key is not here.
    #[inline]
    pub fn insert(&mut self, hash: KeyHash, entry: Entry) {
        self.volatile.insert(&entry);
        let slot = hash.slot_in_shard();
        self.slots[slot].insert_unique(hash.table_hash(), entry, table_hash);
        self.filled |= 1 << slot;
        self.len += 1;
    }

    /// Takes the entry for `key` out.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8]) -> Option<Entry> {
        let entry = self.remove_unindexed(hash, key)?;
        if let Some(deadline) = entry.deadline() {
            self.volatile.remove(deadline, entry.id());
        }
        Some(entry)
    }

    fn remove_unindexed(&mut self, hash: KeyHash, key: &[u8]) -> Option<Entry> {
        let slot = hash.slot_in_shard();
        let table = &mut self.slots[slot];
        let entry = table.remove(hash.table_hash(), |e| is(e, hash, key), table_hash)?;
        self.len -= 1;
        if table.is_empty() {
            self.filled &= !(1 << slot);
        }
        Some(entry)
    }

    /// Removes entries whose deadline lies before `now`, oldest first, `limit` at most; returns
    /// whether more may be due.
    ///
    /// Walks the index of deadlines, not the tables, so the cost is what it removes, however many
    /// keys can expire.
    pub fn remove_due(
        &mut self,
        now: u64,
        limit: usize,
        hash: impl Fn(&[u8]) -> KeyHash,
        mut removed: impl FnMut(Entry),
    ) -> bool {
        let mut ids = Vec::new();
        let mut keys: Vec<(KeyHash, Vec<u8>)> = Vec::new();
        let more = self.volatile.take_due(now, limit, &mut ids, |key, _| keys.push((hash(key), key.to_vec())));
        for (hash, key) in keys {
            let entry = self.remove_unindexed(hash, &key).expect("the index of deadlines holds only keys that exist");
            removed(entry);
        }
        more
    }

    /// Its tables, without the index of deadlines: for what is about to be freed.
    pub fn into_slots(self) -> [Table<Entry>; SLOTS_PER_SHARD] {
        self.slots
    }

    /// Bytes of tables and indexes, without the entries themselves.
    pub fn overhead(&self) -> usize {
        size_of::<Part>() + self.slots.iter().map(Table::allocated_bytes).sum::<usize>() + self.volatile.memory()
    }
}

/// Runs `change` on an entry and mends the index of deadlines behind it.
#[inline]
fn changed<R>(entry: &mut Entry, volatile: &mut Volatile, change: impl FnOnce(&mut Entry) -> R) -> R {
    let (old_id, old_deadline) = (entry.id(), entry.deadline());
    let result = change(entry);
    match (old_deadline, entry.deadline()) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {
            if entry.id() != old_id {
                volatile.moved(old, old_id, entry.id());
            }
        }
        (old, new) => {
            if let Some(old) = old {
                volatile.remove(old, old_id);
            }
            if new.is_some() {
                volatile.insert(entry);
            }
        }
    }
    result
}
