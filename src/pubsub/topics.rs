//! Topics by name: a table in many parts, each with a lock that is held for as long as a lookup takes.
//!
//! What must stay true: a topic that is not closed has a receiver and stands in the table; a table's lock is never
//! held while one waits for a topic's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::{Mutex, RwLock};

use crate::pubsub::Receiver;
use crate::pubsub::audience::Audience;
use crate::types::table::Table;

/// Parts of the table: so many that workers seldom meet in one.
const PARTS: usize = 64;

/// A channel or a pattern with its receivers.
#[derive(Debug)]
pub struct Topic<R> {
    name: Arc<[u8]>,
    audience: Mutex<Audience<R>>,
}

impl<R: Receiver> Topic<R> {
    /// What it is called.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Hands a message to each receiver; returns to how many. One after the other: they all get what is published
    /// here in the same order.
    pub fn hand_out(&self, mut deliver: impl FnMut(&Arc<R>)) -> usize {
        let audience = self.audience.lock();
        let mut count = 0;
        for receiver in audience.present() {
            deliver(receiver);
            count += 1;
        }
        count
    }

    /// How many receivers it has.
    pub fn receivers(&self) -> usize {
        self.audience.lock().present().count()
    }
}

type Part<R> = RwLock<Table<Arc<Topic<R>>>>;

/// Topics by name.
#[derive(Debug)]
pub struct Topics<R> {
    parts: Box<[Part<R>]>,
    hasher: RandomState,
    count: AtomicUsize,
}

impl<R> Default for Topics<R> {
    fn default() -> Topics<R> {
        Topics {
            parts: (0..PARTS).map(|_| RwLock::new(Table::new())).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }
}

impl<R: Receiver> Topics<R> {
    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, hash: u64) -> &Part<R> {
        // The table parts its elements by the upper bits.
        &self.parts[hash as usize % PARTS]
    }

    /// The topic of this name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<Topic<R>>> {
        if self.is_empty() { None } else { self.find_at(self.hasher.hash_one(name), name) }
    }

    fn find_at(&self, hash: u64, name: &[u8]) -> Option<Arc<Topic<R>>> {
        self.part(hash).read().find(hash, |topic| *topic.name == *name).cloned()
    }

    fn find_or_add(&self, hash: u64, name: &[u8]) -> Arc<Topic<R>> {
        let mut part = self.part(hash).write();
        if let Some(topic) = part.find(hash, |topic| *topic.name == *name) {
            return topic.clone();
        }
        let topic = Arc::new(Topic { name: name.into(), audience: Mutex::default() });
        part.insert_unique(hash, topic.clone(), |topic| self.hasher.hash_one(&*topic.name));
        self.count.fetch_add(1, Ordering::Relaxed);
        topic
    }

    /// Takes a closed topic out, unless somebody did already.
    fn forget(&self, hash: u64, topic: &Arc<Topic<R>>) {
        let rehash = |topic: &Arc<Topic<R>>| self.hasher.hash_one(&*topic.name);
        if self.part(hash).write().remove(hash, |other| Arc::ptr_eq(other, topic), rehash).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Adds a receiver that is not there yet; returns the topic's name.
    pub fn subscribe(&self, name: &[u8], receiver: &Arc<R>) -> Arc<[u8]> {
        let hash = self.hasher.hash_one(name);
        loop {
            let topic = self.find_at(hash, name).unwrap_or_else(|| self.find_or_add(hash, name));
            let mut audience = topic.audience.lock();
            if !audience.is_closed() {
                audience.add(receiver.clone());
                drop(audience);
                return topic.name.clone();
            }
            drop(audience);
            self.forget(hash, &topic);
        }
    }

    /// Removes receiver `id`, if it is there; returns whether the topic is gone with it.
    pub fn unsubscribe(&self, name: &[u8], id: u64) -> bool {
        let hash = self.hasher.hash_one(name);
        let Some(topic) = self.find_at(hash, name) else { return false };
        let gone = topic.audience.lock().remove(id);
        if gone {
            self.forget(hash, &topic);
        }
        gone
    }

    /// How many receivers `name` has.
    pub fn receivers(&self, name: &[u8]) -> usize {
        self.find(name).map_or(0, |topic| topic.receivers())
    }

    /// Every topic, in no order that means anything.
    pub fn all(&self) -> Vec<Arc<Topic<R>>> {
        let mut all = Vec::with_capacity(self.len());
        self.parts.iter().for_each(|part| all.extend(part.read().iter().cloned()));
        all
    }

    /// Calls `f` with the name of every topic that has receivers, and how many.
    pub fn for_each(&self, mut f: impl FnMut(&[u8], usize)) {
        for topic in self.all() {
            match topic.receivers() {
                0 => {}
                receivers => f(&topic.name, receivers),
            }
        }
    }
}
