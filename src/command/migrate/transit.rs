//! Keys that are on their way to another server: still here, and not to be changed until they are gone.
//!
//! What must stay true: a key is entered and removed under its shard's lock, and whoever wants to change it looks
//! here under that lock: so nobody changes a key between the moment it was copied and the moment it is deleted,
//! unless it is not known beforehand what he changes (a script, a client that is served). Those are found out by
//! the one who migrates, and the key is sent again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

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
    /// Database and shard of each, by its name.
    keys: HashMap<Vec<u8>, SmallVec<[(usize, usize); 1]>>,
    /// How many are of each shard.
    shards: BTreeMap<usize, usize>,
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
        self.inner.lock().keys.contains_key(key)
    }

    /// Whether one in these shards is.
    pub fn touches(&self, shards: &ShardSet) -> bool {
        self.inner.lock().shards.keys().any(|shard| shards.has(*shard))
    }

    /// Enters a key, whose shard is held.
    pub fn add(&self, db: usize, key: &[u8], shard: usize) {
        let mut inner = self.inner.lock();
        inner.keys.entry(key.to_vec()).or_default().push((db, shard));
        *inner.shards.entry(shard).or_default() += 1;
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Removes a key, whose shard is held: it is gone, or it stays. One that was entered twice is there once more.
    pub fn remove(&self, db: usize, key: &[u8]) {
        let mut inner = self.inner.lock();
        let Inner { keys, shards, .. } = &mut *inner;
        if let Some(of_name) = keys.get_mut(key)
            && let Some(at) = of_name.iter().position(|(other, _)| *other == db)
        {
            let (_, shard) = of_name.swap_remove(at);
            if of_name.is_empty() {
                keys.remove(key);
            }
            if let Entry::Occupied(mut left) = shards.entry(shard) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
            self.count.fetch_sub(1, Ordering::Release);
        }
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
