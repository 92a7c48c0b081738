//! Keys that are on their way to another server: still here, and not to be changed until they are gone.
//!
//! What must stay true: a key is entered and removed under its shard's lock, and whoever wants to change it looks
//! here under that lock: so nobody changes a key between the moment it was copied and the moment it is deleted,
//! unless it is not known beforehand what he changes (a script, a client that is served). Those are found out by
//! the one who migrates, and the key is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::client::shared::Shared;
use crate::keyspace::hold::ShardSet;

/// The keys that are on their way.
#[derive(Debug, Default)]
pub struct Transit {
    count: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Database, key and shard of each.
    keys: Vec<(usize, Vec<u8>, usize)>,
    /// Clients that want to change one.
    waiting: BTreeMap<u64, Arc<Shared>>,
}

impl Transit {
    /// Whether any key is on its way.
    #[inline]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }

    /// Whether one of this name is, in whatever database: what a command will have selected is not known before it runs.
    pub fn has(&self, key: &[u8]) -> bool {
        self.inner.lock().keys.iter().any(|(_, name, _)| name == key)
    }

    /// Whether one in these shards is.
    pub fn touches(&self, shards: &ShardSet) -> bool {
        self.inner.lock().keys.iter().any(|(.., shard)| shards.has(*shard))
    }

    /// Enters a key, whose shard is held.
    pub fn add(&self, db: usize, key: &[u8], shard: usize) {
        let mut inner = self.inner.lock();
        inner.keys.push((db, key.to_vec(), shard));
        self.count.store(inner.keys.len(), Ordering::Release);
    }

    /// Removes a key, whose shard is held: it is gone, or it stays. One that was entered twice is there once more.
    pub fn remove(&self, db: usize, key: &[u8]) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.keys.iter().position(|(other, name, _)| *other == db && name == key) {
            inner.keys.swap_remove(at);
        }
        self.count.store(inner.keys.len(), Ordering::Release);
        // Whoever waits for another key looks again, and comes back.
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.values().for_each(|client| client.wake());
    }

    /// Wakes a client when a key arrives. It holds the shard of one that it waits for.
    pub fn wait(&self, client: Arc<Shared>) {
        self.inner.lock().waiting.insert(client.id, client);
    }
}
