//! The append only file: every change since a base, as commands that are run again when the server starts.
//!
//! It is several files in a directory of its own. A base is the data set at one time, as a snapshot or as commands;
//! increments hold what changed since; the [`manifest`] says which files count, in which order. [`appender`] writes,
//! [`records`] reads, [`commands`] makes commands of entries for a base that is no snapshot.
//!
//! What must stay true: whatever the manifest on the disk names is there, and the files that it names are, one after
//! the other, the data set as it was acknowledged. So a file is made before the manifest names it, and removed after
//! the manifest has forgotten it.

pub mod appender;
pub mod commands;
mod crowd;
pub mod manifest;
pub mod records;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::keyspace::snapshot::Progress;
use crate::persist::aof::appender::Appender;
use crate::persist::aof::manifest::Manifest;

/// Whether the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It is not.
    Off = 0,
    /// It is to be, as soon as it has a base.
    Waiting = 1,
    /// It is.
    On = 2,
}

/// A rewrite that goes on.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Unix milliseconds of its start.
    pub started_ms: u64,
    /// How far its snapshot is, once that has begun.
    pub progress: Progress,
    /// Nobody wants it any longer.
    pub stopped: bool,
}

/// The append only file of one server.
pub struct Aof {
    /// What writes it.
    pub appender: Arc<Appender>,
    /// Which files it consists of.
    pub manifest: Mutex<Manifest>,
    /// The rewrite that goes on.
    pub rewrite: Mutex<Option<Rewrite>>,
    /// A rewrite is wanted as soon as nothing is in its way.
    pub scheduled: AtomicBool,
    /// Its number as a reader of the write log.
    pub reader: Mutex<Option<u64>>,
    state: AtomicU8,
    /// How often it was turned on or off: a thread that serves it ends with its turn.
    turn: AtomicU64,
    /// Bytes in all files but the one that is written.
    pub others_bytes: AtomicU64,
    /// Bytes in all files after the last rewrite, or when the server started.
    pub base_bytes: AtomicU64,
    /// Whether the last rewrite failed.
    pub failed: AtomicBool,
    /// How many failed since one succeeded.
    pub failures: AtomicU64,
    /// Unix milliseconds of the end of the last one.
    pub tried_ms: AtomicU64,
    /// Seconds that the last one took; -1 before the first.
    pub took_s: AtomicI64,
    /// How many began.
    pub rewrites: AtomicU64,
    /// The most bytes that the last one had at hand.
    pub peak_bytes: AtomicU64,
}

impl Default for Aof {
    fn default() -> Aof {
        Aof {
            appender: Arc::default(),
            manifest: Mutex::default(),
            rewrite: Mutex::default(),
            scheduled: AtomicBool::new(false),
            reader: Mutex::default(),
            state: AtomicU8::new(0),
            turn: AtomicU64::new(0),
            others_bytes: AtomicU64::new(0),
            base_bytes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            tried_ms: AtomicU64::new(0),
            took_s: AtomicI64::new(-1),
            rewrites: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
        }
    }
}

impl Aof {
    /// Whether it is written, or to be.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.state.load(Ordering::Acquire) != State::Off as u8
    }

    /// Whether it is written.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Off,
            1 => State::Waiting,
            _ => State::On,
        }
    }

    /// Sets whether it is written.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Begins another turn; returns its number.
    pub fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether a turn goes on.
    pub fn is_turn(&self, turn: u64) -> bool {
        self.turn.load(Ordering::Acquire) == turn
    }

    /// Whether a rewrite goes on.
    pub fn is_rewriting(&self) -> bool {
        self.rewrite.lock().is_some()
    }

    /// Has the rewrite stop that goes on; it ends soon after.
    pub fn stop_rewrite(&self) {
        if let Some(rewrite) = &mut *self.rewrite.lock() {
            rewrite.stopped = true;
            rewrite.progress.stop();
        }
    }

    /// Has the rewrite go on without delays, if there is one.
    pub fn hurry_rewrite(&self) {
        self.rewrite.lock().iter().for_each(|rewrite| rewrite.progress.hurry());
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.others_bytes.load(Ordering::Relaxed) + self.appender.size.load(Ordering::Relaxed)
    }
}
