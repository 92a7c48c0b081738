//! Shards: 64 neighbouring slots of every database, under one lock.
//!
//! What must stay true of a [`Part`]: `len` is the sum of its tables' lengths, `filled` has a bit for
//! each table that is not empty, `volatile` holds just the entries with a deadline, and `fields` just the hashes
//! with fields that have one. While a snapshot is taken of it, no entry is changed or removed before the snapshot has
//! it. So there is one way to change an entry, [`Part::update`], and one to take it out, which see to all of this.

use std::ops::ControlFlow;

use crate::keyspace::entry::{Entry, Parity};
use crate::keyspace::hash::KeyHash;
use crate::keyspace::listen::Listeners;
use crate::keyspace::slots::Slots;
use crate::keyspace::snapshot::Capture;
use crate::keyspace::volatile::{Fields, Sort, Volatile};
use crate::types::Object;
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
    /// The generation that new entries belong to.
    parity: Parity,
    /// Who listens to keys, if anybody does.
    listeners: Option<Box<Listeners>>,
}

impl Shard {
    /// Who listens to keys of this shard, if anybody does.
    #[inline]
    pub fn listeners(&self) -> Option<&Listeners> {
        self.listeners.as_deref()
    }

    /// Changes who listens; where nobody is left nothing is kept.
    pub fn with_listeners<R>(&mut self, f: impl FnOnce(&mut Listeners) -> R) -> R {
        let listeners = self.listeners.get_or_insert_default();
        let result = f(listeners);
        if listeners.is_empty() {
            self.listeners = None;
        }
        result
    }

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
        let parity = self.parity;
        self.place(db).get_or_insert_with(|| Box::new(Part { parity, ..Part::default() }))
    }

    /// Takes a database's part out and leaves it empty.
    pub fn take_part(&mut self, db: usize) -> Option<Box<Part>> {
        match db.checked_sub(1) {
            None => self.first.take(),
            Some(other) => self.others.get_mut(other)?.take(),
        }
    }

    /// Puts a database's part in, which is empty here.
    pub fn put_part(&mut self, db: usize, part: Box<Part>) {
        *self.place(db) = Some(part);
    }

    /// Gives back the parts that hold no key any more.
    pub fn release_empty_parts(&mut self) {
        for part in std::iter::once(&mut self.first).chain(&mut self.others) {
            drop(part.take_if(|part| part.is_empty() && part.capture.is_none()));
        }
    }

    /// Begins a new generation: what is here now belongs to a snapshot, for which `capture` is asked once per
    /// database that has keys.
    pub fn begin_generation(&mut self, mut capture: impl FnMut(usize, &Part) -> Capture) {
        self.parity = self.parity.other();
        for (db, part) in std::iter::once(&mut self.first).chain(&mut self.others).enumerate() {
            let Some(part) = part else { continue };
            // Its own: a part that was made elsewhere may be of another than its neighbours.
            part.parity = part.parity.other();
            part.capture = (!part.is_empty()).then(|| Box::new(capture(db, part)));
        }
    }

    /// The first part that a snapshot has yet to be done with.
    pub fn captured_mut(&mut self) -> Option<&mut Part> {
        let parts = std::iter::once(&mut self.first).chain(&mut self.others);
        parts.flatten().map(|part| &mut **part).find(|part| part.capture.is_some())
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

    /// The key that expires next: its database, itself, its deadline. Afterwards [`Shard::next_deadline`] is that deadline,
    /// but for what the index rounds.
    pub fn nearest(&mut self) -> Option<(usize, Vec<u8>, u64)> {
        let parts = std::iter::once(&mut self.first).chain(&mut self.others).enumerate();
        let nearest = parts.filter_map(|(db, part)| Some((db, part.as_mut()?.volatile.nearest()?)));
        nearest.min_by_key(|(_, (_, deadline))| *deadline).map(|(db, (key, deadline))| (db, key, deadline))
    }

    /// A time before which nothing in the shard is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.parts().flatten().flat_map(|part| [part.volatile.next(), part.fields.next()]).flatten().min()
    }
}

/// One database's slots in one shard.
#[derive(Debug)]
pub struct Part {
    slots: Slots,
    filled: u64,
    len: usize,
    volatile: Volatile,
    fields: Volatile<Fields>,
    /// The generation that new and changed entries belong to.
    parity: Parity,
    /// While a snapshot is taken: entries of the other generation go here before they are changed.
    capture: Option<Box<Capture>>,
}

impl Default for Part {
    fn default() -> Part {
        Part {
            slots: Slots::default(),
            filled: 0,
            len: 0,
            volatile: Volatile::default(),
            fields: Volatile::default(),
            parity: Parity::Even,
            capture: None,
        }
    }
}

/// What [`Part::remove_due_fields`] removed from one hash.
pub struct DueFields<'a> {
    /// The hash's key.
    pub key: &'a [u8],
    /// The names of the fields.
    pub names: Vec<Vec<u8>>,
    /// Their deadlines.
    pub deadlines: Vec<u64>,
    /// The hash itself, where these were its last fields; it is no longer in the part.
    pub emptied: Option<Entry>,
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

    /// How many of the hashes have fields that expire.
    pub fn with_volatile_fields(&self) -> usize {
        self.fields.len()
    }

    /// The hashes with fields that can expire.
    pub fn fields(&self) -> &Volatile<Fields> {
        &self.fields
    }

    /// Whether anything here can expire.
    #[inline]
    pub fn can_expire(&self) -> bool {
        !self.volatile.is_empty() || !self.fields.is_empty()
    }

    /// One slot's table, by its number within the shard.
    pub fn slot(&self, index: usize) -> &Table<Entry> {
        self.slots.table(index)
    }

    /// Bits of the slots that are not empty.
    pub fn filled(&self) -> u64 {
        self.filled
    }

    /// The entry for `key`, expired or not.
    #[inline]
    pub fn find(&self, hash: KeyHash, key: &[u8]) -> Option<&Entry> {
        self.slots.table(hash.slot_in_shard()).find(hash.table_hash(), |e| is(e, hash, key))
    }

    /// Asks the processor to load the head of the table where `find` will look.
    #[inline]
    pub fn prefetch_table(&self, hash: KeyHash) {
        prefetch(std::ptr::from_ref(self.slots.table(hash.slot_in_shard())).addr());
    }

    /// Asks the processor to load where `find` will look, the table's head being loaded.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.slots.table(hash.slot_in_shard()).prefetch(hash.table_hash());
    }

    /// Asks the processor to load the entry that `find` will most likely return.
    #[inline]
    pub fn prefetch_entry(&self, hash: KeyHash) {
        if let Some(entry) = self.slots.table(hash.slot_in_shard()).find(hash.table_hash(), |e| e.bits() == hash.bits())
        {
            entry.prefetch();
        }
    }

    /// Notes an access in the entry's clock.
    #[inline]
    pub fn touch(&mut self, hash: KeyHash, key: &[u8], clock: impl FnOnce(u32) -> u32) -> Option<&Entry> {
        let entry = self.slots.table_mut(hash.slot_in_shard())?.find_mut(hash.table_hash(), |e| is(e, hash, key))?;
        let now = clock(entry.clock());
        entry.set_clock(now);
        Some(entry)
    }

    /// Changes the entry for `key` in place by `change`, which may replace value, deadline and clock.
    #[inline]
    pub fn update<R>(&mut self, hash: KeyHash, key: &[u8], change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.slots.table_mut(hash.slot_in_shard())?.find_mut(hash.table_hash(), |e| is(e, hash, key))?;
        keep(entry, self.parity, &mut self.capture);
        Some(changed(entry, &mut self.volatile, &mut self.fields, change))
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
        if let Some(table) = self.slots.table_mut(hash.slot_in_shard())
            && let Some(entry) = table.find_mut(hash.table_hash(), |e| is(e, hash, key))
        {
            keep(entry, self.parity, &mut self.capture);
            changed(entry, &mut self.volatile, &mut self.fields, change);
            return false;
        }
        self.insert(hash, create());
        true
    }

    /// Adds an entry whose key is not here.
    #[inline]
    pub fn insert(&mut self, hash: KeyHash, mut entry: Entry) {
        if entry.parity() != self.parity {
            entry.set_parity(self.parity);
        }
        self.volatile.insert(&entry);
        self.fields.insert(&entry);
        let slot = hash.slot_in_shard();
        self.slots.table_or_new(slot).insert_unique(hash.table_hash(), entry, table_hash);
        self.filled |= 1 << slot;
        self.len += 1;
    }

    /// Takes the entry for `key` out.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8]) -> Option<Entry> {
        let entry = self.remove_unindexed(hash, key)?;
        if let Some(deadline) = entry.deadline() {
            self.volatile.remove(deadline, entry.id());
        }
        if let Some(deadline) = entry.field_deadline() {
            self.fields.remove(deadline, entry.id());
        }
        Some(entry)
    }

    fn remove_unindexed(&mut self, hash: KeyHash, key: &[u8]) -> Option<Entry> {
        let slot = hash.slot_in_shard();
        let table = self.slots.table_mut(slot)?;
        let mut entry = table.remove(hash.table_hash(), |e| is(e, hash, key), table_hash)?;
        keep(&mut entry, self.parity, &mut self.capture);
        self.len -= 1;
        if table.is_empty() {
            self.filled &= !(1 << slot);
            self.slots.release(slot, self.filled);
        }
        Some(entry)
    }

    /// What a snapshot has yet to collect.
    pub fn capture_mut(&mut self) -> Option<&mut Capture> {
        self.capture.as_deref_mut()
    }

    /// Has the snapshot that is being taken go on with this part, until it has enough at hand; returns what it
    /// collected, and whether it is done with the part.
    pub fn capture_some(&mut self) -> Option<(Capture, ControlFlow<()>)> {
        let capture = self.capture.as_deref_mut()?;
        let mut left = self.filled >> capture.slot << capture.slot;
        while left != 0 && !capture.is_full() {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            if slot != capture.slot {
                (capture.slot, capture.from) = (slot, 0);
            }
            let mut from = Some(capture.from);
            while let Some(hash) = from {
                let table = self.slots.table_mut(slot).expect("a slot that is filled has a table");
                let (flow, next) = table.visit_segment_mut(hash, Entry::prefetch, |entry| {
                    if entry.parity() != self.parity {
                        capture.take(entry);
                        entry.set_parity(self.parity);
                    }
                    if capture.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                if flow.is_break() {
                    // Entries that were taken are known by their parity: the segment is looked at again.
                    return Some((capture.collected(), ControlFlow::Continue(())));
                }
                from = next;
                capture.from = next.unwrap_or(0);
            }
            capture.slot = slot + 1;
            if capture.slot == SLOTS_PER_SHARD {
                break;
            }
        }
        if left == 0 || capture.slot == SLOTS_PER_SHARD {
            let done = *self.capture.take()?;
            return Some((done, ControlFlow::Break(())));
        }
        Some((capture.collected(), ControlFlow::Continue(())))
    }

    /// Removes entries whose deadline lies before `now`, about the oldest first, `limit` at most; returns
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
            if let Some(deadline) = entry.field_deadline() {
                self.fields.remove(deadline, entry.id());
            }
            removed(entry);
        }
        more
    }

    /// Removes fields of hashes whose deadline lies before `now`, about the oldest first, `limit` at most; calls
    /// `removed` once for each hash that lost some, and returns whether more may be due.
    pub fn remove_due_fields(
        &mut self,
        now: u64,
        limit: usize,
        hash: impl Fn(&[u8]) -> KeyHash,
        mut removed: impl FnMut(DueFields<'_>),
    ) -> bool {
        let (mut left, mut ids) = (limit, Vec::new());
        while left > 0 {
            let mut key = Vec::new();
            self.fields.take_due(now, 1, &mut ids, |due, _| key = due.to_vec());
            if ids.is_empty() {
                return false;
            }
            let hash = hash(&key);
            let slot = hash.slot_in_shard();
            let table = self.slots.table_mut(slot);
            let entry = table.and_then(|table| table.find_mut(hash.table_hash(), |e| is(e, hash, &key)));
            let entry = entry.expect("the index of deadlines holds only keys that exist");
            keep(entry, self.parity, &mut self.capture);
            let (mut names, mut deadlines) = (Vec::new(), Vec::new());
            let mut empty = false;
            if let Some(Object::Hash(fields)) = entry.object_mut() {
                left -= fields.take_due(now, left, |name, deadline| {
                    names.push(name.to_vec());
                    deadlines.push(deadline);
                });
                empty = fields.is_empty();
            }
            self.fields.insert(entry);
            let emptied = if empty { self.remove(hash, &key) } else { None };
            removed(DueFields { key: &key, names, deadlines, emptied });
        }
        self.fields.next().is_some_and(|next| next < now)
    }

    /// Its tables, without the index of deadlines: for what is about to be freed.
    pub fn into_slots(self) -> Slots {
        self.slots
    }

    /// Bytes of tables and indexes, without the entries themselves.
    pub fn overhead(&self) -> usize {
        size_of::<Part>() + self.slots.allocated_bytes() + self.volatile.memory() + self.fields.memory()
    }
}

/// Has the snapshot that is being taken, if one is, keep an entry that is about to change.
#[inline]
fn keep(entry: &mut Entry, parity: Parity, capture: &mut Option<Box<Capture>>) {
    if let Some(capture) = capture {
        keep_for(entry, parity, capture);
    }
}

#[cold]
fn keep_for(entry: &mut Entry, parity: Parity, capture: &mut Capture) {
    if entry.parity() != parity {
        capture.take_before_change(entry);
        entry.set_parity(parity);
    }
}

/// Runs `change` on an entry and mends the indexes of deadlines behind it.
#[inline]
fn changed<R>(
    entry: &mut Entry,
    volatile: &mut Volatile,
    fields: &mut Volatile<Fields>,
    change: impl FnOnce(&mut Entry) -> R,
) -> R {
    let (old_id, old_deadline, old_fields) = (entry.id(), entry.deadline(), Fields::of(entry));
    let result = change(entry);
    volatile.follow(old_id, old_deadline, entry);
    fields.follow(old_id, old_fields, entry);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::{Str, Value};
    use crate::keyspace::hash::{KeyHasher, Routing};
    use crate::types::hash::{Hash, Limits, Text};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A part and what it should hold: value and deadline of each key.
    struct Pair {
        part: Part,
        model: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>,
        hasher: KeyHasher,
        now: u64,
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Set a value of this length, the deadline kept, so that the entry may move.
        Set(u16, usize),
        /// The same with a deadline so far from now, or none.
        SetUntil(u16, usize, Option<i64>),
        Deadline(u16, Option<i64>),
        Touch(u16, u32),
        Remove(u16),
        /// Time passes, and so many at most are removed of what is due.
        Expire(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..60u16;
        let len = prop_oneof![0..12usize, 40..50usize, 100..400usize, 20_000..20_004usize];
        // Near, far, equal and past deadlines, so that chunks of the index get coarse and split.
        let until = prop::option::of(prop_oneof![-5..50i64, Just(100), 1000..2000i64, Just(4_000_000_000)]);
        prop_oneof![
            3 => (key.clone(), len.clone()).prop_map(|(k, n)| Step::Set(k, n)),
            4 => (key.clone(), len, until.clone()).prop_map(|(k, n, t)| Step::SetUntil(k, n, t)),
            3 => (key.clone(), until).prop_map(|(k, t)| Step::Deadline(k, t)),
            1 => (key.clone(), 0..1u32 << 24).prop_map(|(k, c)| Step::Touch(k, c)),
            2 => key.prop_map(Step::Remove),
            2 => (0..40u64, 1..9usize).prop_map(|(t, n)| Step::Expire(t, n)),
        ]
    }

    fn name(key: u16) -> Vec<u8> {
        format!("key:{key}").into_bytes()
    }

    fn bytes(key: u16, len: usize) -> Vec<u8> {
        (0..len).map(|i| b'a' + ((i + usize::from(key)) % 26) as u8).collect()
    }

    fn text(value: Value<'_>) -> Vec<u8> {
        match value {
            Value::Int(n) => n.to_string().into_bytes(),
            Value::Bytes(bytes) => bytes.to_vec(),
            Value::Large(large) => large.bytes().clone(),
            Value::Object(_) => Vec::new(),
        }
    }

    impl Pair {
        fn new() -> Pair {
            let hasher = KeyHasher::with_seed(Routing::Hash, 7);
            Pair { part: Part::default(), model: BTreeMap::new(), hasher, now: 1_000_000 }
        }

        fn at(&self, by: Option<i64>) -> Option<u64> {
            by.map(|by| self.now.saturating_add_signed(by))
        }

        fn set(&mut self, key: u16, len: usize, deadline: Option<Option<u64>>) {
            let (name, value) = (name(key), bytes(key, len));
            let hash = self.hasher.hash(&name);
            let known = self.model.get(&name).map(|(_, deadline)| *deadline);
            let deadline = deadline.or(known).flatten();
            let created = self.part.upsert(
                hash,
                &name,
                |entry| {
                    entry.set_string(Str::Bytes(&value));
                    entry.set_deadline(deadline);
                },
                || Entry::new(hash.bits(), &name, Str::Bytes(&value), deadline, 0),
            );
            assert_eq!(created, known.is_none());
            self.model.insert(name, (value, deadline));
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Set(key, len) => self.set(key, len, None),
                Step::SetUntil(key, len, by) => self.set(key, len, Some(self.at(by))),
                Step::Deadline(key, by) => {
                    let (name, deadline) = (name(key), self.at(by));
                    let hash = self.hasher.hash(&name);
                    let found = self.part.update(hash, &name, |entry| entry.set_deadline(deadline));
                    let known = self.model.get_mut(&name);
                    assert_eq!(found.is_some(), known.is_some());
                    if let Some(known) = known {
                        known.1 = deadline;
                    }
                }
                Step::Touch(key, clock) => {
                    let name = name(key);
                    let found = self.part.touch(self.hasher.hash(&name), &name, |_| clock).map(Entry::clock);
                    assert_eq!(found, self.model.contains_key(&name).then_some(clock));
                }
                Step::Remove(key) => {
                    let name = name(key);
                    let removed = self.part.remove(self.hasher.hash(&name), &name);
                    let known = self.model.remove(&name);
                    assert_eq!(removed.map(|entry| (text(entry.value()), entry.deadline())), known);
                }
                Step::Expire(passed, limit) => {
                    self.now += passed;
                    self.expire(limit);
                }
            }
            self.check();
        }

        /// What is removed was due, as many as the limit allows, and nothing that is due is forgotten.
        fn expire(&mut self, limit: usize) {
            let mut removed = Vec::new();
            let hasher = &self.hasher;
            let more = self.part.remove_due(
                self.now,
                limit,
                |key| hasher.hash(key),
                |entry| {
                    removed.push((entry.key().to_vec(), entry.deadline()));
                },
            );
            assert!(removed.len() <= limit);
            for (key, deadline) in &removed {
                let (_, known) = self.model.remove(key).expect("only what was there is removed");
                assert_eq!(known, *deadline);
                assert!(deadline.is_some_and(|deadline| deadline < self.now));
            }
            let due = self.model.values().filter_map(|(_, deadline)| *deadline).filter(|at| *at < self.now).count();
            assert!(due == 0 || more && removed.len() == limit, "{due} are due and forgotten");
        }

        fn check(&self) {
            assert_eq!((self.part.len(), self.part.is_empty()), (self.model.len(), self.model.is_empty()));
            let volatile: Vec<u64> = self.model.values().filter_map(|(_, deadline)| *deadline).collect();
            assert_eq!(self.part.volatile().len(), volatile.len());
            match (self.part.volatile().next(), volatile.iter().min()) {
                (Some(next), Some(first)) => assert!(next <= *first),
                (next, first) => assert!(next.is_none() && first.is_none()),
            }
            let mut slots = 0u64;
            for (name, (value, deadline)) in &self.model {
                let hash = self.hasher.hash(name);
                slots |= 1 << hash.slot_in_shard();
                let entry = self.part.find(hash, name).expect("what was set is there");
                assert_eq!((text(entry.value()), entry.deadline()), (value.clone(), *deadline));
            }
            assert_eq!(self.part.filled(), slots);
            let in_tables: usize = (0..SLOTS_PER_SHARD).map(|slot| self.part.slot(slot).len()).sum();
            assert_eq!(in_tables, self.model.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_part_agrees_with_a_map_and_forgets_no_deadline(
            steps in prop::collection::vec(step(), 0..if cfg!(miri) { 30 } else { 200 })
        ) {
            let mut pair = Pair::new();
            steps.into_iter().for_each(|step| pair.run(step));
            // In the end everything that can expire does.
            pair.now = u64::MAX;
            let stay = pair.model.values().filter(|(_, deadline)| deadline.is_none()).count();
            while !pair.part.volatile().is_empty() {
                pair.expire(7);
                pair.check();
            }
            prop_assert_eq!(pair.part.len(), stay);
        }
    }

    /// What a part should hold of hashes: the deadlines of each key and of its fields.
    type Hashes = BTreeMap<Vec<u8>, (Option<u64>, BTreeMap<Vec<u8>, Option<u64>>)>;

    #[derive(Debug, Clone)]
    enum HashStep {
        /// Sets a field with this deadline, in a hash that is created where it is missing.
        Set(u16, u16, Option<u64>),
        Field(u16, u16, Option<u64>),
        /// Sets or takes away the deadline of the key, so that the entry moves.
        Key(u16, Option<u64>),
        Remove(u16),
        Replace(u16),
        ExpireKeys(u64, usize),
        ExpireFields(u64, usize),
    }

    fn hash_step() -> impl Strategy<Value = HashStep> {
        let (key, field) = (0..12u16, 0..20u16);
        let at = prop::option::of(1..100u64);
        prop_oneof![
            8 => (key.clone(), field.clone(), at.clone()).prop_map(|(k, f, at)| HashStep::Set(k, f, at)),
            4 => (key.clone(), field, at.clone()).prop_map(|(k, f, at)| HashStep::Field(k, f, at)),
            3 => (key.clone(), at).prop_map(|(k, at)| HashStep::Key(k, at)),
            1 => key.clone().prop_map(HashStep::Remove),
            1 => key.prop_map(HashStep::Replace),
            1 => (0..110u64, 1..9usize).prop_map(|(now, limit)| HashStep::ExpireKeys(now, limit)),
            3 => (0..110u64, 1..9usize).prop_map(|(now, limit)| HashStep::ExpireFields(now, limit)),
        ]
    }

    fn set_field(entry: &mut Entry, field: &[u8], at: Option<u64>) {
        entry.edit(|object| {
            let Object::Hash(hash) = object else { panic!("only hashes are changed") };
            hash.set(field, Text::Bytes(b"v"), at, Limits { fields: 10, bytes: 64 });
        });
    }

    fn run_hashes(steps: Vec<HashStep>) {
        let (mut part, mut model) = (Part::default(), Hashes::new());
        let hasher = KeyHasher::with_seed(Routing::Hash, 7);
        for step in steps {
            match step {
                HashStep::Set(key, field, at) => {
                    let (key, field) = (name(key), name(field));
                    let hash = hasher.hash(&key);
                    if part.update(hash, &key, |entry| set_field(entry, &field, at)).is_none() {
                        let object = Object::Hash(Hash::default());
                        let mut entry = Entry::with_object(hash.bits(), &key, object, None, 0);
                        set_field(&mut entry, &field, at);
                        part.insert(hash, entry);
                    }
                    model.entry(key).or_default().1.insert(field, at);
                }
                HashStep::Field(key, field, at) => {
                    let (key, field) = (name(key), name(field));
                    part.update(hasher.hash(&key), &key, |entry| {
                        entry.edit(|object| match object {
                            Object::Hash(hash) => hash.set_deadline(&field, at),
                            _ => false,
                        })
                    });
                    if let Some(known) = model.get_mut(&key).and_then(|(_, fields)| fields.get_mut(&field)) {
                        *known = at;
                    }
                }
                HashStep::Key(key, at) => {
                    let key = name(key);
                    part.update(hasher.hash(&key), &key, |entry| entry.set_deadline(at));
                    if let Some(known) = model.get_mut(&key) {
                        known.0 = at;
                    }
                }
                HashStep::Remove(key) => {
                    let key = name(key);
                    assert_eq!(part.remove(hasher.hash(&key), &key).is_some(), model.remove(&key).is_some());
                }
                HashStep::Replace(key) => {
                    let key = name(key);
                    let hash = hasher.hash(&key);
                    if part.update(hash, &key, |entry| entry.set_string(Str::Int(1))).is_some() {
                        assert!(part.remove(hash, &key).is_some() && model.remove(&key).is_some());
                    }
                }
                HashStep::ExpireKeys(now, limit) => {
                    part.remove_due(
                        now,
                        limit,
                        |key| hasher.hash(key),
                        |entry| {
                            let (at, _) = model.remove(entry.key()).expect("only what was there is removed");
                            assert!(at.is_some_and(|at| at < now));
                        },
                    );
                }
                HashStep::ExpireFields(now, limit) => {
                    let mut removed = 0;
                    let more = part.remove_due_fields(
                        now,
                        limit,
                        |key| hasher.hash(key),
                        |due| {
                            let (_, fields) = model.get_mut(due.key).expect("only what was there loses fields");
                            for (field, at) in due.names.iter().zip(&due.deadlines) {
                                assert_eq!(fields.remove(field), Some(Some(*at)));
                                assert!(*at < now);
                            }
                            removed += due.names.len();
                            assert_eq!(due.emptied.is_some(), fields.is_empty());
                            if fields.is_empty() {
                                model.remove(due.key);
                            }
                        },
                    );
                    assert!(removed <= limit);
                    let due = model
                        .values()
                        .flat_map(|(_, fields)| fields.values())
                        .filter(|at| at.is_some_and(|at| at < now));
                    assert!(due.count() == 0 || more && removed == limit, "due and forgotten");
                }
            }
            let firsts = model.values().map(|(_, fields)| fields.values().filter_map(|at| *at).min());
            assert_eq!(part.fields().len(), firsts.clone().flatten().count());
            match (part.fields().next(), firsts.flatten().min()) {
                (Some(next), Some(first)) => assert!(next <= first),
                (next, first) => assert_eq!(next, first),
            }
            assert_eq!(part.volatile().len(), model.values().filter(|(at, _)| at.is_some()).count());
            assert_eq!(part.len(), model.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn deadlines_of_fields_are_followed_wherever_their_hash_goes(
            steps in prop::collection::vec(hash_step(), 0..if cfg!(miri) { 30 } else { 200 })
        ) {
            run_hashes(steps);
        }
    }

    #[test]
    fn many_keys_with_equal_and_stray_deadlines_go_in_order() {
        let mut pair = Pair::new();
        let keys = if cfg!(miri) { 150 } else { 3000 };
        for key in 0..keys {
            // A third at one moment, a third one by one, a third years apart.
            let until = match key % 3 {
                0 => 500,
                1 => u64::from(key),
                _ => u64::from(key) * 400_000_000,
            };
            pair.set(key, 5, Some(Some(pair.now + until)));
        }
        pair.check();
        for passed in [0, 100, 400, 1, 1, 5_000_000_000] {
            pair.now += passed;
            pair.expire(50);
            pair.expire(10_000);
            pair.check();
        }
    }

    #[test]
    fn parts_of_a_shard_are_apart_and_can_be_exchanged() {
        let mut shard = Shard::default();
        let hash = KeyHasher::with_seed(Routing::Hash, 7).hash(b"k");
        shard.part_or_new(3).insert(hash, Entry::new(hash.bits(), b"k", Str::Int(1), Some(50), 0));
        assert_eq!((shard.next_deadline(), shard.databases().collect::<Vec<_>>()), (Some(50), vec![3]));
        shard.swap_parts(3, 9);
        assert!(shard.part(3).is_none() && shard.part(9).is_some_and(|part| part.find(hash, b"k").is_some()));
        shard.part_or_new(1);
        shard.release_empty_parts();
        assert_eq!(shard.databases().collect::<Vec<_>>(), [9]);
        let taken = shard.take_part(9).expect("it was there");
        assert_eq!((taken.len(), shard.next_deadline(), shard.databases().count()), (1, None, 0));
    }
}
