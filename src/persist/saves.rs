//! What is known of saving and loading: for INFO, LASTSAVE, the save points, and those who are refused.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::keyspace::snapshot;
use crate::persist::rdb::load;

/// A save in the background.
#[derive(Debug, Clone)]
pub struct Running {
    /// Unix milliseconds of its start.
    pub started_ms: u64,
    /// How many keys it will have.
    pub keys: u64,
    /// How many changes had been made since the save before it.
    pub dirty: u64,
    /// How far it is.
    pub progress: snapshot::Progress,
}

/// A load that goes on.
#[derive(Debug, Default)]
pub struct Loading {
    /// Whether it does.
    pub active: AtomicBool,
    /// Whether one goes on aside: what is there is read meanwhile.
    pub aside: AtomicBool,
    /// Unix milliseconds of its start.
    pub started_ms: AtomicU64,
    /// How many bytes there are in all.
    pub total_bytes: AtomicU64,
    /// How far it is.
    pub progress: load::Progress,
}

/// A load that ends within so many milliseconds is not told of: whoever asks meanwhile waits for its end. Redis does not look
/// at its clients before it has loaded some megabytes.
const BRIEF_MS: u64 = 30;

impl Loading {
    /// Whether it may be over before anybody needs to be told.
    pub fn has_just_begun(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.started_ms.load(Ordering::Relaxed)) < BRIEF_MS
    }

    /// Notes that a load of so many bytes begins. One before it may have been told to stop.
    pub fn begin(&self, now_ms: u64, total_bytes: u64) {
        self.started_ms.store(now_ms, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.progress.bytes.store(0, Ordering::Relaxed);
        self.progress.stopped.store(false, Ordering::Relaxed);
    }
}

/// Saves, and what became of them.
#[derive(Debug)]
pub struct Saves {
    /// Unix seconds of the last one that succeeded, or of the start.
    pub last_s: AtomicU64,
    /// Unix milliseconds of the last attempt in the background.
    pub tried_ms: AtomicU64,
    /// Whether the last in the background failed.
    pub failed: AtomicBool,
    /// Seconds that it took; -1 before the first.
    pub took_s: AtomicI64,
    /// The most bytes that the last in the background had at hand: taken from the keyspace and not written yet.
    pub peak_bytes: AtomicU64,
    /// How many succeeded.
    pub count: AtomicU64,
    /// One is wanted as soon as nothing is in its way.
    pub scheduled: AtomicBool,
    /// The one that goes on in the background. Held shortly.
    pub running: Mutex<Option<Running>>,
    /// Held while it is decided whether the file of one takes its name, and while it does.
    pub naming: Mutex<()>,
    /// The load that goes on, or the last.
    pub loading: Loading,
    /// Keys that the last load stored.
    pub loaded_keys: AtomicU64,
    /// Keys that it left out because their deadline had passed.
    pub loaded_expired: AtomicU64,
}

impl Saves {
    /// Those of a server that starts now.
    pub fn new(now_ms: u64) -> Saves {
        Saves {
            last_s: AtomicU64::new(now_ms / 1000),
            tried_ms: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            took_s: AtomicI64::new(-1),
            peak_bytes: AtomicU64::new(0),
            count: AtomicU64::new(0),
            scheduled: AtomicBool::new(false),
            running: Mutex::new(None),
            naming: Mutex::new(()),
            loading: Loading::default(),
            loaded_keys: AtomicU64::new(0),
            loaded_expired: AtomicU64::new(0),
        }
    }

    /// Whether one goes on in the background.
    pub fn is_running(&self) -> bool {
        self.running.lock().is_some()
    }

    /// Has the one in the background stop; returns whether there is one. It ends soon after, and its file does not take the
    /// name after this returns.
    pub fn stop(&self) -> bool {
        let any = self.running.lock().as_ref().map(|running| running.progress.stop()).is_some();
        drop(self.naming.lock());
        any
    }

    /// Has the one in the background go on without delays, if there is one.
    pub fn hurry(&self) {
        self.running.lock().iter().for_each(|running| running.progress.hurry());
    }

    /// Notes that a save succeeded.
    pub fn succeeded(&self, now_ms: u64) {
        self.last_s.store(now_ms / 1000, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.failed.store(false, Ordering::Relaxed);
    }
}
