//! Patterns: each message is held against all of them, so they stand in a list too, which is read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::pubsub::Receiver;
use crate::pubsub::topics::{Topic, Topics};
use crate::stdx::glob::{Case, matches};

/// Patterns with their receivers.
#[derive(Debug)]
pub struct Patterns<R> {
    topics: Topics<R>,
    /// Counts the changes of `topics`.
    version: AtomicU64,
    /// All of `topics` as they were at a version. It is made anew when a message finds it out of date: that costs
    /// as much as holding the message against all of them.
    list: ArcSwap<List<R>>,
}

#[derive(Debug)]
struct List<R> {
    version: u64,
    topics: Vec<Arc<Topic<R>>>,
}

impl<R> Default for Patterns<R> {
    fn default() -> Patterns<R> {
        Patterns {
            topics: Topics::default(),
            version: AtomicU64::new(0),
            list: ArcSwap::from_pointee(List { version: 0, topics: Vec::new() }),
        }
    }
}

impl<R: Receiver> Patterns<R> {
    /// The patterns by their text.
    pub fn topics(&self) -> &Topics<R> {
        &self.topics
    }

    /// Adds a receiver that is not there yet; returns the pattern.
    pub fn subscribe(&self, pattern: &[u8], receiver: &Arc<R>) -> Arc<[u8]> {
        let name = self.topics.subscribe(pattern, receiver);
        // Also where others made the topic: they may not have come so far as to count it.
        self.version.fetch_add(1, Ordering::Release);
        name
    }

    /// Removes receiver `id`, if it is there.
    pub fn unsubscribe(&self, pattern: &[u8], id: u64) {
        if self.topics.unsubscribe(pattern, id) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Calls `f` for every pattern that `channel` fits; returns the sum of what that returns.
    pub fn matching(&self, channel: &[u8], f: impl FnMut(&Topic<R>) -> usize) -> usize {
        if self.topics.is_empty() {
            return 0;
        }
        let mut list = self.list.load();
        let version = self.version.load(Ordering::Acquire);
        if list.version != version {
            // What changes meanwhile has a later version.
            self.list.store(Arc::new(List { version, topics: self.topics.all() }));
            list = self.list.load();
        }
        let all = list.topics.iter().map(|topic| &**topic);
        all.filter(|topic| matches(topic.name(), channel, Case::Sensitive)).map(f).sum()
    }
}
