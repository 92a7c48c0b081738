//! Freeing what is large off the data path.
//!
//! A flushed database or a huge collection is handed to a thread that drops it; how much is still to
//! be dropped is counted for INFO.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::stdx::priority::Courtesy;

/// A collection with more elements is freed off the data path.
pub const INLINE_FREE_MAX: usize = 64;

/// How long the thread keeps a core from others who want it, unless one value takes longer. Its priority is theirs: it must
/// keep up with them.
const FREE_TIME: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct Counts {
    pending: AtomicU64,
    /// Bytes of what is pending, as far as somebody has measured them.
    bytes: AtomicU64,
    freed: AtomicU64,
}

/// Something to be dropped: of how many objects it consists, how many bytes it is known to take.
type Waiting = (u64, u64, Box<dyn Any + Send>);

/// The way to the thread that frees. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Reclaimer {
    sender: Sender<Waiting>,
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
        self.free_measured(objects, 0, value);
    }

    /// The same for a value of which it is known how many bytes it takes.
    pub fn free_measured(&self, objects: u64, bytes: u64, value: impl Any + Send) {
        self.counts.pending.fetch_add(objects, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Err(back) = self.sender.send((objects, bytes, Box::new(value))) {
            // The thread is gone, as at the very end of the process: the value is dropped here.
            drop(back);
        }
    }

    /// Objects that wait to be freed.
    pub fn pending(&self) -> u64 {
        self.counts.pending.load(Ordering::Relaxed)
    }

    /// Bytes that will soon be free, as far as they were measured.
    pub fn pending_bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
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

fn run(receiver: &Receiver<Waiting>, counts: &Counts) {
    let mut courtesy = Courtesy::every(FREE_TIME);
    while let Ok((objects, bytes, value)) = receiver.recv() {
        drop(value);
        courtesy.give_way();
        counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
        counts.pending.fetch_sub(objects, Ordering::Relaxed);
        counts.freed.fetch_add(objects, Ordering::Relaxed);
    }
}
