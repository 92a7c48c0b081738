//! Holding shards: what a command may touch, locked in ascending order.
//!
//! What must stay true: locks are only ever taken in ascending order of shards, so no two holders can
//! wait for each other; a [`Hold`] hands out a shard only while it holds that shard's lock.
#![allow(unsafe_code, reason = "a set of locks that is chosen at run time has no guard type")]

use std::mem;

use parking_lot::Mutex;

use crate::keyspace::gate::lock_while;
use crate::keyspace::shard::{SHARDS, Shard};

/// A shard in cache lines of its own: neighbours' locks do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Locked(Mutex<Shard>);

/// All shards of a keyspace.
pub type Shards = [Locked];

/// A set of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardSet([u64; SHARDS / 64]);

impl ShardSet {
    /// Every shard.
    pub const ALL: ShardSet = ShardSet([u64::MAX; SHARDS / 64]);

    /// Adds a shard.
    #[inline]
    pub fn add(&mut self, shard: usize) {
        self.0[shard / 64] |= 1 << (shard % 64);
    }

    /// Adds every shard of `other`.
    pub fn add_all(&mut self, other: &ShardSet) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Whether a shard is in the set.
    #[inline]
    pub fn has(&self, shard: usize) -> bool {
        self.0[shard / 64] & 1 << (shard % 64) != 0
    }

    /// Whether every shard of `other` is in the set.
    pub fn covers(&self, other: &ShardSet) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| b & !a == 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Calls `f` with each, in ascending order.
    #[inline]
    pub fn for_each(&self, mut f: impl FnMut(usize)) {
        // Mostly there is one shard, in any of the words: which of them it is costs no guess of the processor's.
        let mut words = self.0.iter().enumerate().fold(0u32, |words, (i, word)| words | u32::from(*word != 0) << i);
        while words != 0 {
            let i = words.trailing_zeros() as usize;
            let mut left = self.0[i];
            while left != 0 {
                f(i * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
            words &= words - 1;
        }
    }
}

/// The shards that a command, or a batch of them, holds.
#[derive(Debug)]
pub struct Hold<'k> {
    shards: &'k Shards,
    held: ShardSet,
    waits: bool,
}

impl<'k> Hold<'k> {
    /// Holds nothing yet.
    pub fn none(shards: &'k Shards) -> Hold<'k> {
        Hold { shards, held: ShardSet::default(), waits: true }
    }

    /// Holds nothing, and never waits for a shard in [`Hold::look`]: for who may hold it already, and dies.
    pub fn impatient(shards: &'k Shards) -> Hold<'k> {
        Hold { waits: false, ..Hold::none(shards) }
    }

    /// Waits for every shard in `set`, in ascending order.
    #[inline]
    pub fn new(shards: &'k Shards, set: ShardSet) -> Hold<'k> {
        assert!(shards.len() == SHARDS);
        set.for_each(|i| mem::forget(shards[i].0.lock()));
        Hold { shards, held: set, waits: true }
    }

    /// Waits for every shard in `set`, in ascending order, as long as `patient` says so.
    #[inline]
    pub fn new_while(shards: &'k Shards, set: ShardSet, patient: impl Fn() -> bool) -> Option<Hold<'k>> {
        assert!(shards.len() == SHARDS);
        let mut hold = Hold::none(shards);
        let mut all = true;
        set.for_each(|i| {
            let lock = &shards[i].0;
            if let Some(guard) = all.then(|| lock.try_lock().or_else(|| lock_while(lock, &patient))).flatten() {
                mem::forget(guard);
                hold.held.add(i);
            } else {
                all = false;
            }
        });
        all.then_some(hold)
    }

    /// Waits for one shard, as long as `patient` says so.
    #[inline]
    pub fn one_while(shards: &'k Shards, index: usize, patient: impl Fn() -> bool) -> Option<Hold<'k>> {
        let lock = &shards[index].0;
        let guard = lock.try_lock().or_else(|| lock_while(lock, patient))?;
        let mut hold = Hold::none(shards);
        mem::forget(guard);
        hold.held.add(index);
        Some(hold)
    }

    /// What is held.
    pub fn held(&self) -> &ShardSet {
        &self.held
    }

    /// A held shard.
    #[inline]
    pub fn shard(&mut self, index: usize) -> &mut Shard {
        assert!(self.held.has(index), "shard {index} is touched but not held");
        // SAFETY: we hold this shard's lock, and `&mut self` lends it out once at a time.
        unsafe { &mut *self.shards[index].0.data_ptr() }
    }

    /// Holds one more shard, if nobody else has it; returns whether it is held now.
    pub fn try_add(&mut self, index: usize) -> bool {
        // Who waits for nobody cannot disturb the order of locks.
        if !self.held.has(index)
            && let Some(guard) = self.shards[index].0.try_lock()
        {
            mem::forget(guard);
            self.held.add(index);
        }
        self.held.has(index)
    }

    /// A held shard, only to be read: several can be at once.
    #[inline]
    pub fn shard_ref(&self, index: usize) -> &Shard {
        assert!(self.held.has(index), "shard {index} is touched but not held");
        // SAFETY: we hold this shard's lock, and as long as `&self` is borrowed nobody gets it to be changed.
        unsafe { &*self.shards[index].0.data_ptr() }
    }

    /// Runs `f` on a shard, which is locked for just that long where it is not held.
    ///
    /// A walk over the keyspace goes shard by shard this way. It must hold nothing, or everything:
    /// else the order of locks would be lost.
    pub fn visit<R>(&mut self, index: usize, f: impl FnOnce(&mut Shard) -> R) -> R {
        if self.held.has(index) {
            return f(self.shard(index));
        }
        assert!(self.held.is_empty(), "a walk over all shards while some are held");
        f(&mut self.shards[index].0.lock())
    }

    /// The same for who only tells about a shard: an [`impatient`](Hold::impatient) one leaves out what it cannot have.
    pub fn look<R>(&mut self, index: usize, f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        if self.waits { Some(self.visit(index, f)) } else { self.try_visit(index, f) }
    }

    /// The same, or `None` where somebody else has the shard at the moment.
    pub fn try_visit<R>(&mut self, index: usize, f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        if self.held.has(index) {
            return Some(f(self.shard(index)));
        }
        // Who waits for nobody cannot disturb the order of locks.
        Some(f(&mut *self.shards[index].0.try_lock()?))
    }
}

impl Drop for Hold<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: each lock in `held` was taken by us, and no borrow of its shard outlives us.
        self.held.for_each(|i| unsafe { self.shards[i].0.force_unlock() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn shards() -> Box<Shards> {
        (0..SHARDS).map(|_| Locked::default()).collect()
    }

    #[test]
    fn overlapping_holds_on_many_threads_exclude_each_other_and_never_deadlock() {
        let shards = shards();
        let inside: Vec<AtomicUsize> = (0..SHARDS).map(|_| AtomicUsize::new(0)).collect();
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (shards, inside) = (&shards, &inside);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    for _ in 0..rounds {
                        let mut set = ShardSet::default();
                        let picked: Vec<usize> = (0..5).map(|_| rng.usize(0..8) * 32).collect();
                        picked.iter().for_each(|&i| set.add(i));
                        let mut hold = Hold::new(shards, set);
                        set.for_each(|i| {
                            assert_eq!(inside[i].fetch_add(1, Ordering::SeqCst), 0);
                            hold.shard(i).part_or_new(0);
                            inside[i].fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
    }

    #[test]
    fn who_only_tries_a_shard_does_not_wait_for_it() {
        let shards = shards();
        let mut set = ShardSet::default();
        set.add(3);
        let mut hold = Hold::new(&shards, set);
        let mut other = Hold::none(&shards);
        assert_eq!(other.try_visit(3, |_| ()), None);
        assert_eq!(other.try_visit(4, |_| ()), Some(()));
        assert!(!other.try_add(3) && other.try_add(4) && other.try_add(4));
        assert_eq!(hold.try_visit(4, |_| ()), None);
        assert_eq!(hold.try_visit(3, |_| ()), Some(()), "who holds it has it");
        drop(hold);
        assert_eq!(other.try_visit(3, |_| ()), Some(()));
    }

    #[test]
    fn who_is_impatient_passes_over_what_even_its_own_thread_holds() {
        let shards = shards();
        let mut one = ShardSet::default();
        one.add(7);
        let hold = Hold::new(&shards, one);
        let mut impatient = Hold::impatient(&shards);
        assert_eq!((impatient.look(7, |_| ()), impatient.look(8, |_| ())), (None, Some(())));
        drop(hold);
        assert_eq!(impatient.look(7, |_| ()), Some(()));
    }

    #[test]
    fn who_loses_patience_holds_no_shard() {
        let shards = shards();
        let mut one = ShardSet::default();
        one.add(7);
        let mut three = one;
        three.add(3);
        three.add(200);
        let hold = Hold::new(&shards, one);
        assert!(Hold::new_while(&shards, three, || false).is_none());
        assert!(Hold::one_while(&shards, 7, || false).is_none());
        assert_eq!(Hold::none(&shards).try_visit(3, |_| ()), Some(()));
        drop(hold);
        assert!(Hold::new_while(&shards, three, || false).is_some_and(|hold| hold.held() == &three));
        assert!(Hold::one_while(&shards, 7, || false).is_some_and(|hold| hold.held() == &one));
        assert_eq!(Hold::none(&shards).try_visit(7, |_| ()), Some(()));
    }

    #[test]
    #[should_panic(expected = "not held")]
    fn a_shard_that_is_not_held_cannot_be_touched() {
        let shards = shards();
        let mut set = ShardSet::default();
        set.add(3);
        Hold::new(&shards, set).shard(4);
    }
}
