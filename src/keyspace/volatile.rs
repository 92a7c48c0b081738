//! The keys of a shard that can expire, by deadline; and the hashes with fields that can, by the earliest of those.
//!
//! What must stay true: the index holds the ids of just those entries of one shard's part that have a
//! deadline of its sort. Who owns the entries says so on every change: [`Volatile::insert`] when an entry comes
//! or gains a deadline, [`Volatile::remove`] before it goes or loses it, [`Volatile::moved`] after its
//! allocation moved.
#![allow(unsafe_code, reason = "the index refers to entries by address, 8 bytes a key")]

use std::marker::PhantomData;

use fastrand::Rng;

use crate::keyspace::deadlines::Deadlines;
use crate::keyspace::entry::Entry;

/// Which of an entry's deadlines an index is about.
pub trait Sort {
    /// The deadline of this sort that an entry has.
    fn of(entry: &Entry) -> Option<u64>;

    /// The same of the entry with this id.
    ///
    /// # Safety
    /// The entry must be alive, must have such a deadline, and must not be changed meanwhile.
    unsafe fn of_id(id: u64) -> u64;
}

/// The deadline of the key itself.
#[derive(Debug, Default)]
pub struct Keys;

/// The earliest deadline of a hash's fields.
#[derive(Debug, Default)]
pub struct Fields;

impl Sort for Keys {
    #[inline]
    fn of(entry: &Entry) -> Option<u64> {
        entry.deadline()
    }

    #[inline]
    unsafe fn of_id(id: u64) -> u64 {
        // SAFETY: by the caller's promise.
        unsafe { Entry::deadline_of(id) }
    }
}

impl Sort for Fields {
    #[inline]
    fn of(entry: &Entry) -> Option<u64> {
        entry.field_deadline()
    }

    unsafe fn of_id(id: u64) -> u64 {
        // SAFETY: by the caller's promise.
        unsafe { Entry::field_deadline_of(id) }.expect("an entry of this index has fields with deadlines")
    }
}

/// An index of the entries that have a deadline of one sort.
#[derive(Debug, Default)]
pub struct Volatile<S = Keys> {
    deadlines: Deadlines,
    sort: PhantomData<S>,
}

fn exact<S: Sort>(id: u64) -> u64 {
    // SAFETY: by this file's invariant every id is that of a living entry with a deadline, and the
    // entries belong to whoever calls with `&mut` access to both.
    unsafe { S::of_id(id) }
}

impl<S: Sort> Volatile<S> {
    /// Adds an entry that has a deadline.
    #[inline]
    pub fn insert(&mut self, entry: &Entry) {
        if let Some(deadline) = S::of(entry) {
            self.deadlines.insert(deadline, entry.id(), exact::<S>);
        }
    }

    /// Follows an entry that was changed: `old_id` and `old` are what its id and deadline were.
    #[inline]
    pub fn follow(&mut self, old_id: u64, old: Option<u64>, entry: &Entry) {
        match (old, S::of(entry)) {
            (None, None) => {}
            (Some(old), Some(new)) if old == new => {
                if entry.id() != old_id {
                    self.moved(old, old_id, entry.id());
                }
            }
            (old, _) => {
                if let Some(old) = old {
                    self.remove(old, old_id);
                }
                self.insert(entry);
            }
        }
    }

    /// Removes an entry by the id and deadline that it was added with. The entry may be gone already.
    pub fn remove(&mut self, deadline: u64, id: u64) {
        let found = self.deadlines.remove(deadline, id);
        assert!(found, "an entry with a deadline was not in the index");
    }

    /// Notes that an entry's allocation moved; its deadline is what it was.
    pub fn moved(&mut self, deadline: u64, old: u64, new: u64) {
        let found = self.deadlines.replace(deadline, old, new);
        assert!(found, "an entry with a deadline was not in the index");
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A time before which nothing is due.
    pub fn next(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Takes out entries whose deadline lies before `now`, `limit` at most, and calls
    /// `with` for the key and deadline of each; the entries themselves are still to be removed.
    /// Returns whether more may be due. Earlier chunks of the index go first, within a chunk any: so what stays
    /// longer than something that was due later does so by a few hundred keys at most.
    pub fn take_due(&mut self, now: u64, limit: usize, ids: &mut Vec<u64>, mut with: impl FnMut(&[u8], u64)) -> bool {
        ids.clear();
        let more = self.deadlines.take_due(now, limit, exact::<S>, ids);
        for &id in ids.iter() {
            // SAFETY: the entry is alive until its owner, who lent us `&mut self`, removes it.
            let (key, deadline) = unsafe { (Entry::key_of(id), S::of_id(id)) };
            with(key, deadline);
        }
        more
    }

    /// The key that expires next, as far as the index tells, and its deadline. [`Volatile::next`] says the same afterwards.
    pub fn nearest(&mut self) -> Option<(Vec<u8>, u64)> {
        let id = self.deadlines.earliest()?;
        // SAFETY: by this file's invariant the entry is alive, and `&mut self` keeps it as it is.
        Some(unsafe { (Entry::key_of(id).to_vec(), S::of_id(id)) })
    }

    /// Calls `f` for `count` entries at most that chance picks, some of them twice perhaps; returns how often.
    pub fn pick(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(&Entry)) -> usize {
        let count = count.min(self.len());
        for _ in 0..count {
            let Some(id) = self.deadlines.random(rng) else { return 0 };
            // SAFETY: by this file's invariant the entry is alive, and `&self` keeps it as it is.
            unsafe { Entry::with_id(id, &mut f) };
        }
        count
    }

    /// Bytes that the index takes.
    pub fn memory(&self) -> usize {
        self.deadlines.allocated_bytes()
    }

    /// The mean of up to `samples` deadlines, for INFO's avg_ttl.
    pub fn mean_deadline(&self, samples: usize) -> Option<u64> {
        let (mut sum, mut count) = (0u128, 0u128);
        for id in self.deadlines.iter().take(samples) {
            sum += u128::from(exact::<S>(id));
            count += 1;
        }
        (count > 0).then(|| (sum / count) as u64)
    }
}
