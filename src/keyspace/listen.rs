//! Who listens to single keys of a shard: transactions that watch them, clients that are blocked on them.
//!
//! What must stay true: it is read and changed under the shard's lock only. A key that changed has its
//! watchers dirty before the lock is released; a key that somebody is blocked on is reported, so that
//! whoever changed it serves them before others can touch the key. A shard that nobody listens to has none
//! of this, and pays one look at a null pointer per change.

use std::any::Any;
use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::{Equivalent, HashMap};

use crate::keyspace::hash::KeyHash;

/// WATCH of one client, from its first key to EXEC, DISCARD or UNWATCH.
#[derive(Debug, Default)]
pub struct Watch {
    dirty: AtomicBool,
}

impl Watch {
    /// Notes that a watched key changed.
    pub fn spoil(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether a watched key changed.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }
}

/// A client that is blocked on keys, as a shard sees it.
pub trait Blocked: Any + Send + Sync {
    /// Whether it cannot wait for another key of a name when that key is gone.
    fn needs_key(&self) -> bool;

    /// The key has expired. Whoever needs it ends its wait by this; returns whether it did.
    fn key_expired(&self, key: &[u8]) -> bool;
}

/// The clients blocked on one key, in the order they came.
pub type Queue = VecDeque<Arc<dyn Blocked>>;

/// How many keys somebody listens to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clients are blocked on them.
    pub blocking: usize,
    /// Of these, the ones that some client needs: see [`Blocked::needs_key`].
    pub needed: usize,
    /// Transactions watch them.
    pub watched: usize,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            blocking: self.blocking + other.blocking,
            needed: self.needed + other.needed,
            watched: self.watched + other.watched,
        }
    }
}

/// Who listens to one key.
struct Ears {
    hash: KeyHash,
    watches: Vec<Arc<Watch>>,
    blocked: Queue,
}

/// A key of a database, to look one up by: hashes as the pair of both does.
#[derive(Hash)]
struct Place<'a>(usize, &'a [u8]);

impl Equivalent<(usize, Box<[u8]>)> for Place<'_> {
    fn equivalent(&self, other: &(usize, Box<[u8]>)) -> bool {
        self.0 == other.0 && *self.1 == *other.1
    }
}

/// Who listens to the keys of one shard.
#[derive(Default)]
pub struct Listeners {
    keys: HashMap<(usize, Box<[u8]>), Ears, ahash::RandomState>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listeners({} keys)", self.keys.len())
    }
}

impl Listeners {
    fn ears(&mut self, db: usize, key: &[u8], hash: KeyHash) -> &mut Ears {
        self.keys.entry((db, key.into())).or_insert_with(|| Ears { hash, watches: Vec::new(), blocked: Queue::new() })
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Has `watch` hear of changes to a key.
    pub fn watch(&mut self, db: usize, key: &[u8], hash: KeyHash, watch: Arc<Watch>) {
        self.ears(db, key, hash).watches.push(watch);
    }

    /// The opposite of [`Listeners::watch`].
    pub fn unwatch(&mut self, db: usize, key: &[u8], watch: &Arc<Watch>) {
        self.leave(db, key, |ears| ears.watches.retain(|other| !Arc::ptr_eq(other, watch)));
    }

    /// Has a client wait for a key, behind those that already do.
    pub fn block(&mut self, db: usize, key: &[u8], hash: KeyHash, client: Arc<dyn Blocked>) {
        self.ears(db, key, hash).blocked.push_back(client);
    }

    /// The opposite of [`Listeners::block`].
    pub fn unblock(&mut self, db: usize, key: &[u8], client: &Arc<dyn Blocked>) {
        self.leave(db, key, |ears| ears.blocked.retain(|other| !Arc::ptr_eq(other, client)));
    }

    /// The same for one that stands at `index`, or did: others may have left meanwhile.
    pub fn unblock_at(&mut self, db: usize, key: &[u8], index: usize, client: &Arc<dyn Blocked>) {
        self.leave(db, key, |ears| {
            if ears.blocked.get(index).is_some_and(|other| Arc::ptr_eq(other, client)) {
                ears.blocked.remove(index);
            } else {
                ears.blocked.retain(|other| !Arc::ptr_eq(other, client));
            }
        });
    }

    fn leave(&mut self, db: usize, key: &[u8], f: impl FnOnce(&mut Ears)) {
        let place = Place(db, key);
        let Some(ears) = self.keys.get_mut(&place) else { return };
        f(ears);
        if ears.watches.is_empty() && ears.blocked.is_empty() {
            self.keys.remove(&place);
        }
    }

    /// The client at `index` of those that are blocked on a key.
    pub fn blocked(&self, db: usize, key: &[u8], index: usize) -> Option<&Arc<dyn Blocked>> {
        self.keys.get(&Place(db, key))?.blocked.get(index)
    }

    /// How many keys somebody listens to in each way.
    pub fn counts(&self) -> Counts {
        let count = |f: fn(&Ears) -> bool| self.keys.values().filter(|ears| f(ears)).count();
        Counts {
            blocking: count(|ears| !ears.blocked.is_empty()),
            needed: count(|ears| ears.blocked.iter().any(|client| client.needs_key())),
            watched: count(|ears| !ears.watches.is_empty()),
        }
    }

    /// Notes that a key changed; returns whether somebody is blocked on it.
    pub fn touch(&self, db: usize, key: &[u8]) -> bool {
        let Some(ears) = self.keys.get(&Place(db, key)) else { return false };
        ears.watches.iter().for_each(|watch| watch.spoil());
        !ears.blocked.is_empty()
    }

    /// Notes that a key has expired and is gone.
    pub fn expire(&mut self, db: usize, key: &[u8]) {
        self.leave(db, key, |ears| {
            ears.watches.iter().for_each(|watch| watch.spoil());
            ears.blocked.retain(|client| !client.key_expired(key));
        });
    }

    /// Every key that somebody listens to: database, key and hash.
    pub fn keys(&self) -> Vec<(usize, Vec<u8>, KeyHash)> {
        self.keys.iter().map(|((db, key), ears)| (*db, key.to_vec(), ears.hash)).collect()
    }

    /// Those of them that are watched.
    pub fn watched_keys(&self) -> Vec<(usize, Vec<u8>, KeyHash)> {
        let mut keys = self.keys();
        keys.retain(|(db, key, _)| !self.keys[&Place(*db, key)].watches.is_empty());
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::hash::{KeyHasher, Routing};

    struct Client;

    impl Blocked for Client {
        fn needs_key(&self) -> bool {
            false
        }
        fn key_expired(&self, _: &[u8]) -> bool {
            false
        }
    }

    #[test]
    fn watchers_of_a_key_hear_of_it_alone_and_nothing_is_left_of_them() {
        let hasher = KeyHasher::new(Routing::Hash);
        let mut listeners = Listeners::default();
        let (a, b) = (Arc::new(Watch::default()), Arc::new(Watch::default()));
        listeners.watch(0, b"k", hasher.hash(b"k"), a.clone());
        listeners.watch(0, b"l", hasher.hash(b"l"), b.clone());
        assert!(!listeners.touch(1, b"k") && !a.is_dirty(), "another database");
        assert!(!listeners.touch(0, b"k"));
        assert!(a.is_dirty() && !b.is_dirty());
        listeners.unwatch(0, b"k", &a);
        listeners.expire(0, b"l");
        assert!(b.is_dirty());
        listeners.unwatch(0, b"l", &b);
        assert!(listeners.is_empty());
    }

    #[test]
    fn blocked_clients_stand_in_the_order_they_came() {
        let hasher = KeyHasher::new(Routing::Hash);
        let mut listeners = Listeners::default();
        let clients: Vec<Arc<dyn Blocked>> = vec![Arc::new(Client), Arc::new(Client), Arc::new(Client)];
        clients.iter().for_each(|client| listeners.block(2, b"k", hasher.hash(b"k"), client.clone()));
        assert!(listeners.touch(2, b"k"));
        listeners.unblock(2, b"k", &clients[1]);
        assert!(Arc::ptr_eq(listeners.blocked(2, b"k", 1).unwrap(), &clients[2]));
        assert_eq!(listeners.counts(), Counts { blocking: 1, ..Counts::default() });
        listeners.unblock(2, b"k", &clients[0]);
        listeners.unblock(2, b"k", &clients[2]);
        assert!(listeners.is_empty() && !listeners.touch(2, b"k"));
    }
}
