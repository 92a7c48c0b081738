//! Consumer groups: how far a group has read, what it was given and has not acknowledged, and by whom.
//!
//! What is pending is kept twice: by the group with the consumer, the time and the number of deliveries,
//! and by each consumer as a set of ids.
//!
//! What must stay true: an id is in the group's pending entries just where it is in those of the
//! consumer that the group names, and in no other consumer's.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::stream::id::Id;
use crate::types::stream::ordered::Ordered;

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The id of the last entry that was delivered.
    pub last: Id,
    /// How many entries were ever added up to `last`, where that is known.
    pub read: Option<i64>,
    pending: Ordered<Pending>,
    /// By number; places of those that were deleted are used again.
    consumers: Vec<Option<Arc<Consumer>>>,
    names: BTreeMap<Arc<[u8]>, Number>,
}

/// A consumer's number in its group: good until the consumer is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(u32);

/// An entry that was delivered and is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// When it was last delivered: Unix time in milliseconds.
    pub delivered_ms: u64,
    /// How often it was delivered.
    pub deliveries: u64,
    /// To whom.
    pub consumer: Number,
}

/// Somebody who reads for a group.
#[derive(Debug, Clone)]
pub struct Consumer {
    name: Arc<[u8]>,
    /// When it last tried to read or claim: Unix time in milliseconds.
    pub seen_ms: u64,
    /// When it was last given an entry; `None` for never.
    pub active_ms: Option<u64>,
    pending: Ordered<()>,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The ids of what it was given and has not acknowledged.
    pub fn pending(&self) -> &Ordered<()> {
        &self.pending
    }
}

impl Group {
    /// A group that has read up to `last`; `read` is how many entries that are, where it is known.
    pub fn new(last: Id, read: Option<i64>) -> Group {
        Group { last, read, ..Group::default() }
    }

    /// All that was delivered and is not acknowledged.
    pub fn pending(&self) -> &Ordered<Pending> {
        &self.pending
    }

    /// The consumer of this number.
    ///
    /// # Panics
    /// Where it was deleted.
    pub fn consumer(&self, number: Number) -> &Consumer {
        self.consumers[number.0 as usize].as_deref().expect("a number is used while its consumer is there")
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// Where it was deleted.
    pub fn consumer_mut(&mut self, number: Number) -> &mut Consumer {
        let consumer = self.consumers[number.0 as usize].as_mut();
        Arc::make_mut(consumer.expect("a number is used while its consumer is there"))
    }

    /// The consumers in order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.names.values().map(|number| self.consumer(*number))
    }

    /// The number of the consumer with this name.
    pub fn find(&self, name: &[u8]) -> Option<Number> {
        self.names.get(name).copied()
    }

    /// The number of the consumer with this name, which is added where there is none; whether it was.
    pub fn find_or_create(&mut self, name: &[u8], now_ms: u64) -> (Number, bool) {
        match self.find(name) {
            Some(number) => (number, false),
            None => (self.add(name, now_ms), true),
        }
    }

    /// Adds a consumer; `None` where there is one of that name.
    pub fn create(&mut self, name: &[u8], now_ms: u64) -> Option<Number> {
        (!self.names.contains_key(name)).then(|| self.add(name, now_ms))
    }

    fn add(&mut self, name: &[u8], now_ms: u64) -> Number {
        let name: Arc<[u8]> = name.into();
        let pending = Ordered::default();
        let consumer = Arc::new(Consumer { name: name.clone(), seen_ms: now_ms, active_ms: None, pending });
        let at = self.consumers.iter().position(Option::is_none).filter(|_| self.names.len() < self.consumers.len());
        let at = match at {
            Some(at) => {
                self.consumers[at] = Some(consumer);
                at
            }
            None => {
                self.consumers.push(Some(consumer));
                self.consumers.len() - 1
            }
        };
        let number = Number(u32::try_from(at).expect("fewer consumers than fit into memory"));
        self.names.insert(name, number);
        number
    }

    /// Deletes a consumer and what it has pending; returns how many entries that were, `None` where there is no
    /// such consumer.
    pub fn delete(&mut self, name: &[u8]) -> Option<usize> {
        let number = self.names.remove(name)?;
        let consumer = self.consumers[number.0 as usize].take()?;
        for (id, ()) in consumer.pending.iter() {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Notes that an entry is pending for a consumer, whoever had it before.
    pub fn assign(&mut self, id: Id, pending: Pending) {
        let before = self.pending.insert(id, pending);
        if let Some(before) = before.filter(|before| before.consumer != pending.consumer) {
            self.consumer_mut(before.consumer).pending.remove(id);
        }
        if before.is_none_or(|before| before.consumer != pending.consumer) {
            self.consumer_mut(pending.consumer).pending.insert(id, ());
        }
    }

    /// Notes that a pending entry was delivered to its consumer once more.
    pub fn redelivered(&mut self, id: Id, now_ms: u64) {
        if let Some(pending) = self.pending.at_mut(id) {
            pending.delivered_ms = now_ms;
            pending.deliveries = pending.deliveries.saturating_add(1);
        }
    }

    /// Forgets a pending entry; returns what was known of it.
    pub fn acknowledge(&mut self, id: Id) -> Option<Pending> {
        let pending = self.pending.remove(id)?;
        self.consumer_mut(pending.consumer).pending.remove(id);
        Some(pending)
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        let consumer = |c: &Consumer| size_of::<Consumer>() + 32 + 3 * (c.name.len() + 16) + c.pending.memory();
        size_of::<Group>() + self.pending.memory() + self.consumers().map(consumer).sum::<usize>()
    }
}
