//! Freeing what is large off the data path.
//!
//! A flushed database or a huge collection is handed to a thread that drops it; how much is still to
//! be dropped is counted for INFO.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// A collection with more elements is freed off the data path.
pub const INLINE_FREE_MAX: usize = 64;

#[derive(Debug, Default)]
struct Counts {
    pending: AtomicU64,
    freed: AtomicU64,
}

/// The way to the thread that frees. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Reclaimer {
    sender: Sender<(u64, Box<dyn Any + Send>)>,
    counts: Arc<Counts>,
}

impl Reclaimer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system refuses another thread.
    pub fn start() -> std::io::Result<Reclaimer> {
        let (sender, receiver) = channel();
        let counts = Arc::new(Counts::default());
        let theirs = counts.clone();
        std::thread::Builder::new().name("reclaim".into()).spawn(move || run(&receiver, &theirs))?;
        Ok(Reclaimer { sender, counts })
    }

    /// Drops `value`, which consists of `objects` keys or values, some time soon.
    pub fn free(&self, objects: u64, value: impl Any + Send) {
        self.counts.pending.fetch_add(objects, Ordering::Relaxed);
        if let Err(back) = self.sender.send((objects, Box::new(value))) {
            // The thread is gone, as at the very end of the process: the value is dropped here.
            drop(back);
        }
    }

    /// Objects that wait to be freed.
    pub fn pending(&self) -> u64 {
        self.counts.pending.load(Ordering::Relaxed)
    }

    /// Objects freed since the start or the last [`Reclaimer::reset`].
    pub fn freed(&self) -> u64 {
        self.counts.freed.load(Ordering::Relaxed)
    }

    /// Starts the count of freed objects anew.
    pub fn reset(&self) {
        self.counts.freed.store(0, Ordering::Relaxed);
    }
}

fn run(receiver: &Receiver<(u64, Box<dyn Any + Send>)>, counts: &Counts) {
    while let Ok((objects, value)) = receiver.recv() {
        drop(value);
        counts.pending.fetch_sub(objects, Ordering::Relaxed);
        counts.freed.fetch_add(objects, Ordering::Relaxed);
    }
}
