//! Slots whose keys are here but do not count yet: they are on their way from another node of a cluster.
//!
//! What must stay true: whoever walks over keys for a client leaves these out, and nothing but what comes from the other
//! node removes keys from them: what is to follow may still need a key whose time has passed here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::keyspace::shard::{SHARDS, SLOTS_PER_SHARD};

/// Which slots a walk is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// All of them.
    All,
    /// Those that are not hidden.
    Visible,
}

/// The hidden slots of a keyspace: a word for each shard.
#[derive(Debug)]
pub struct Hidden {
    count: AtomicUsize,
    words: Box<[AtomicU64]>,
}

impl Default for Hidden {
    fn default() -> Hidden {
        Hidden { count: AtomicUsize::new(0), words: (0..SHARDS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Hidden {
    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// The bits of the hidden slots of a shard.
    #[inline]
    pub fn of(&self, shard: usize) -> u64 {
        if self.any() { self.words[shard].load(Ordering::Acquire) } else { 0 }
    }

    /// Whether a slot is hidden.
    #[inline]
    pub fn has(&self, slot: usize) -> bool {
        self.of(slot / SLOTS_PER_SHARD) & 1 << (slot % SLOTS_PER_SHARD) != 0
    }

    /// Hides a slot, or shows it.
    pub fn set(&self, slot: usize, hide: bool) {
        let (word, bit) = (&self.words[slot / SLOTS_PER_SHARD], 1 << (slot % SLOTS_PER_SHARD));
        let before = if hide { word.fetch_or(bit, Ordering::AcqRel) } else { word.fetch_and(!bit, Ordering::AcqRel) };
        match (before & bit != 0, hide) {
            (false, true) => _ = self.count.fetch_add(1, Ordering::AcqRel),
            (true, false) => _ = self.count.fetch_sub(1, Ordering::AcqRel),
            _ => {}
        }
    }

    /// The bits of the slots of a shard that a walk leaves out.
    pub fn left_out(&self, shard: usize, walked: Walked) -> u64 {
        if walked == Walked::All { 0 } else { self.of(shard) }
    }
}
