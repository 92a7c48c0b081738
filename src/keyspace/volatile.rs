//! The keys of a shard that can expire, by deadline.
//!
//! What must stay true: the index holds the ids of just those entries of one shard's part that have a
//! deadline. Who owns the entries says so on every change: [`Volatile::insert`] when an entry comes
//! or gains a deadline, [`Volatile::remove`] before it goes or loses it, [`Volatile::moved`] after its
//! allocation moved.
#![allow(unsafe_code, reason = "the index refers to entries by address, 8 bytes a key")]

use fastrand::Rng;

use crate::keyspace::deadlines::Deadlines;
use crate::keyspace::entry::Entry;

/// An index of the entries that have a deadline.
#[derive(Debug, Default)]
pub struct Volatile {
    deadlines: Deadlines,
}

fn exact(id: u64) -> u64 {
    // SAFETY: by this file's invariant every id is that of a living entry with a deadline, and the
    // entries belong to whoever calls with `&mut` access to both.
    unsafe { Entry::deadline_of(id) }
}

impl Volatile {
    /// Adds an entry that has a deadline.
    pub fn insert(&mut self, entry: &Entry) {
        if let Some(deadline) = entry.deadline() {
            self.deadlines.insert(deadline, entry.id(), exact);
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
        let more = self.deadlines.take_due(now, limit, exact, ids);
        for &id in ids.iter() {
            // SAFETY: the entry is alive until its owner, who lent us `&mut self`, removes it.
            let (key, deadline) = unsafe { (Entry::key_of(id), Entry::deadline_of(id)) };
            with(key, deadline);
        }
        more
    }

    /// The key that expires next, as far as the index tells, and its deadline. [`Volatile::next`] says the same afterwards.
    pub fn nearest(&mut self) -> Option<(Vec<u8>, u64)> {
        let id = self.deadlines.earliest()?;
        // SAFETY: by this file's invariant the entry is alive, and `&mut self` keeps it as it is.
        Some(unsafe { (Entry::key_of(id).to_vec(), Entry::deadline_of(id)) })
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
            sum += u128::from(exact(id));
            count += 1;
        }
        (count > 0).then(|| (sum / count) as u64)
    }
}
