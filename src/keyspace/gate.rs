//! Gates: how a command runs alone.
//!
//! Every worker holds its gate while it executes a batch; whoever must run alone takes all gates, in
//! ascending order. Uncontended, a gate costs one atomic operation per batch.

use std::time::{Duration, Instant};

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

    /// Enters gate `index`, or gives up after `patience`.
    pub fn enter_within(&self, index: usize, patience: Duration) -> Option<Entered<'_>> {
        self.gates[index].0.try_lock_for(patience).map(Entered)
    }

    /// Waits for every gate. The caller must hold none.
    pub fn alone(&self) -> Alone<'_> {
        Alone(self.gates.iter().map(|gate| gate.0.lock()).collect())
    }

    /// The same, or `None` where that takes longer than `patience`.
    pub fn alone_within(&self, patience: Duration) -> Option<Alone<'_>> {
        let until = Instant::now() + patience;
        self.gates.iter().map(|gate| gate.0.try_lock_until(until)).collect::<Option<Vec<_>>>().map(Alone)
    }
}
