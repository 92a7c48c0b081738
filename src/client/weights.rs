//! What clients weigh together, so that those go that need most memory when all need too much (`maxmemory-clients`).
//!
//! Clients stand in classes by size, each holding those up to twice as heavy as the class before, so that the heaviest
//! are found without looking at all. What must stay true: `total` is the sum of what was noted of all clients that
//! stand in some class; a client that may not be evicted, or is gone, stands in none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::client::shared::{Link, Mark, Shared};

/// The lightest class ends here, in powers of two: below it nobody is worth telling from another.
const LIGHTEST: u32 = 15;
/// The heaviest class begins here.
const HEAVIEST: u32 = 33;
/// How many classes there are.
const CLASSES: usize = (HEAVIEST - LIGHTEST + 1) as usize;

/// What was noted of one client.
#[derive(Debug, Default)]
pub struct Weighed {
    bytes: u64,
    class: Option<usize>,
    gone: bool,
}

/// All clients by weight.
#[derive(Debug, Default)]
pub struct Weights {
    /// Bytes; 0 for no limit, and then nothing is noted.
    limit: AtomicU64,
    total: AtomicU64,
    classes: [Mutex<BTreeMap<u64, Arc<Shared>>>; CLASSES],
    evicting: Mutex<()>,
}

fn class_of(bytes: u64) -> usize {
    (bytes.max(1).ilog2().clamp(LIGHTEST, HEAVIEST) - LIGHTEST) as usize
}

impl Weights {
    /// Whether there is a limit.
    #[inline]
    pub fn are_limited(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    /// Sets the limit for all clients together; 0 for none. Returns whether there was none, so that each has to be
    /// noted first.
    pub fn set_limit(&self, bytes: u64) -> bool {
        self.limit.swap(bytes, Ordering::Relaxed) == 0
    }

    /// What all clients that may be evicted weigh, as far as was noted.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether they weigh more than they may.
    #[inline]
    pub fn are_too_heavy(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != 0 && self.total() > limit
    }

    /// Held by who makes room, so that two do not take one too many.
    pub fn evicting(&self) -> MutexGuard<'_, ()> {
        self.evicting.lock()
    }

    /// Notes what a client weighs now.
    pub fn note(&self, client: &Arc<Shared>) {
        let ours = [Mark::NoEvict, Mark::Replica, Mark::Primary].iter().any(|mark| client.has(*mark));
        let may_go = client.link != Link::InProcess && !ours && !client.is_closing();
        self.put(client, may_go.then(|| client.memory() as u64));
    }

    /// Forgets a client that is gone, for good.
    pub fn forget(&self, client: &Arc<Shared>) {
        client.weighed.lock().gone = true;
        self.put(client, None);
    }

    fn put(&self, client: &Arc<Shared>, bytes: Option<u64>) {
        let mut weighed = client.weighed.lock();
        let bytes = bytes.filter(|_| !weighed.gone);
        let class = bytes.map(class_of);
        let bytes = bytes.unwrap_or(0);
        if bytes >= weighed.bytes {
            self.total.fetch_add(bytes - weighed.bytes, Ordering::Relaxed);
        } else {
            self.total.fetch_sub(weighed.bytes - bytes, Ordering::Relaxed);
        }
        weighed.bytes = bytes;
        if class != weighed.class {
            if let Some(old) = weighed.class {
                self.classes[old].lock().remove(&client.id);
            }
            if let Some(new) = class {
                self.classes[new].lock().insert(client.id, client.clone());
            }
            weighed.class = class;
        }
    }

    /// One of the heaviest clients, the oldest of its class, which is forgotten; `None` where there is none.
    pub fn take_heaviest(&self) -> Option<Arc<Shared>> {
        let heaviest = || self.classes.iter().rev().find_map(|class| class.lock().values().next().cloned());
        loop {
            let client = heaviest()?;
            let mut weighed = client.weighed.lock();
            // It may have gone since it was seen: then somebody else is the heaviest.
            let is_there = weighed.class.is_some_and(|class| self.classes[class].lock().remove(&client.id).is_some());
            if is_there {
                self.total.fetch_sub(weighed.bytes, Ordering::Relaxed);
                *weighed = Weighed { gone: true, ..Weighed::default() };
                drop(weighed);
                return Some(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u64, bytes: usize) -> Arc<Shared> {
        let shared = Shared::new(id, Link::Tcp, String::new(), String::new(), -1, 0);
        shared.figures.query_bytes.store(bytes, Ordering::Relaxed);
        Arc::new(shared)
    }

    #[test]
    fn the_heaviest_go_first_and_of_the_same_class_the_oldest() {
        let weights = Weights::default();
        let clients = [client(1, 100), client(2, 5_000_000), client(3, 70_000), client(4, 6_000_000), client(5, 0)];
        clients.iter().for_each(|client| weights.note(client));
        let expected: u64 = clients.iter().map(|client| client.memory() as u64).sum();
        assert_eq!(weights.total(), expected);
        let gone: Vec<u64> = std::iter::from_fn(|| weights.take_heaviest()).map(|client| client.id).collect();
        assert_eq!(gone, [2, 4, 3, 1, 5]);
        assert_eq!(weights.total(), 0);
        clients.iter().for_each(|client| weights.note(client));
        assert_eq!(weights.total(), 0, "who is gone does not come back");
    }

    #[test]
    fn what_a_client_weighs_follows_what_it_takes_and_who_is_spared_weighs_nothing() {
        let weights = Weights::default();
        let one = client(1, 1_000_000);
        weights.note(&one);
        one.figures.query_bytes.store(10, Ordering::Relaxed);
        weights.note(&one);
        assert_eq!(weights.total(), one.memory() as u64);
        one.mark(Mark::NoEvict, true);
        weights.note(&one);
        assert!(weights.total() == 0 && weights.take_heaviest().is_none());
        one.mark(Mark::NoEvict, false);
        weights.note(&one);
        assert!(weights.set_limit(1) && weights.are_too_heavy());
        assert!(!weights.set_limit(weights.total()) && !weights.are_too_heavy());
        weights.forget(&one);
        assert!(weights.total() == 0 && weights.take_heaviest().is_none());
    }
}
