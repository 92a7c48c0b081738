//! All connections, by id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::client::shared::Shared;

/// The connections of a server.
#[derive(Debug, Default)]
pub struct Registry {
    clients: RwLock<BTreeMap<u64, Arc<Shared>>>,
    count: AtomicUsize,
    last_id: AtomicU64,
}

impl Registry {
    /// A number for a new connection.
    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a connection.
    pub fn add(&self, client: Arc<Shared>) {
        let mut clients = self.clients.write();
        clients.insert(client.id, client);
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// Removes a connection.
    pub fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.remove(&id);
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection with this id.
    pub fn find(&self, id: u64) -> Option<Arc<Shared>> {
        self.clients.read().get(&id).cloned()
    }

    /// Calls `f` for every connection, oldest first; none can be added or removed meanwhile, so `f` must be quick.
    pub fn for_each(&self, f: impl FnMut(&Arc<Shared>)) {
        self.clients.read().values().for_each(f);
    }

    /// All connections, oldest first.
    pub fn all(&self) -> Vec<Arc<Shared>> {
        self.clients.read().values().cloned().collect()
    }
}
