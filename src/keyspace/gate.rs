//! Gates: how a command runs alone.
//!
//! Every worker holds its gate while it executes a batch; whoever must run alone takes all gates, in
//! ascending order. Uncontended, a gate costs one atomic operation per batch.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

/// Gates for callers that are no workers (the embedding API, timers), shared by thread.
const SHARED_GATES: usize = 8;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Gate(Mutex<()>);

/// The gates of a keyspace: one for each worker, and a few that all other threads share.
#[derive(Debug)]
pub struct Gates {
    gates: Box<[Gate]>,
    workers: usize,
}

/// A gate that is held.
pub struct Entered<'g>(#[allow(dead_code, reason = "held until it is dropped")] MutexGuard<'g, ()>);

/// All gates, held: nobody else executes anything.
pub struct Alone<'g>(#[allow(dead_code, reason = "held until it is dropped")] Vec<MutexGuard<'g, ()>>);

impl Gates {
    /// Gates for so many workers.
    pub fn new(workers: usize) -> Gates {
        Gates { gates: (0..workers + SHARED_GATES).map(|_| Gate::default()).collect(), workers }
    }

    /// The number of a gate for the calling thread, which is no worker.
    pub fn shared_index(&self) -> usize {
        thread_local!(static MINE: usize = fastrand::usize(..));
        self.workers + MINE.with(|mine| mine % SHARED_GATES)
    }

    /// Enters gate `index`; waits while somebody runs alone.
    #[inline]
    pub fn enter(&self, index: usize) -> Entered<'_> {
        Entered(self.gates[index].0.lock())
    }

    /// Enters gate `index`; waits while somebody runs alone, as long as `patient` says so.
    #[inline]
    pub fn enter_while(&self, index: usize, patient: impl Fn() -> bool) -> Option<Entered<'_>> {
        let gate = &self.gates[index].0;
        if let Some(entered) = gate.try_lock() {
            return Some(Entered(entered));
        }
        lock_while(gate, patient).map(Entered)
    }

    /// Waits for every gate. The caller must hold none.
    pub fn alone(&self) -> Alone<'_> {
        Alone(self.gates.iter().map(|gate| gate.0.lock()).collect())
    }

    /// Waits for every gate as long as `patient` says so. The caller must hold none.
    pub fn alone_while(&self, patient: impl Fn() -> bool) -> Option<Alone<'_>> {
        self.gates.iter().map(|gate| lock_while(&gate.0, &patient)).collect::<Option<Vec<_>>>().map(Alone)
    }
}

/// How often those who wait are asked whether they still want to.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Locks, unless `patient` says no while that takes long.
#[cold]
pub fn lock_while<T>(mutex: &Mutex<T>, patient: impl Fn() -> bool) -> Option<MutexGuard<'_, T>> {
    loop {
        if let Some(guard) = mutex.try_lock_for(ASK_EVERY) {
            return Some(guard);
        }
        if !patient() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_loses_patience_holds_nothing() {
        let gates = Gates::new(2);
        let inside = gates.enter(1);
        assert!(gates.enter_while(0, || false).is_some());
        assert!(gates.enter_while(1, || false).is_none());
        assert!(gates.alone_while(|| false).is_none());
        drop(inside);
        assert!(gates.alone_while(|| false).is_some());
        assert!(gates.enter_while(1, || false).is_some());
    }
}
