//! The receivers of one topic.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pubsub::Receiver;

/// From so many receivers on it is noted where each of them stands: below, looking for one is as quick.
const NOTED: usize = 64;

/// The receivers of one topic, in no order that means anything.
#[derive(Debug)]
pub struct Audience<R> {
    receivers: Vec<Arc<R>>,
    /// Where each receiver stands, once there are many.
    places: Option<HashMap<u64, u32>>,
    /// The last one has left: the topic is gone, and whoever comes makes a new one.
    closed: bool,
}

impl<R> Default for Audience<R> {
    fn default() -> Audience<R> {
        Audience { receivers: Vec::new(), places: None, closed: false }
    }
}

impl<R: Receiver> Audience<R> {
    /// Whether the topic is gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The receivers that are not about to leave.
    pub fn present(&self) -> impl Iterator<Item = &Arc<R>> {
        self.receivers.iter().filter(|receiver| !receiver.is_leaving())
    }

    /// Adds a receiver that is not there yet.
    pub fn add(&mut self, receiver: Arc<R>) {
        let place = self.receivers.len() as u32;
        if let Some(places) = &mut self.places {
            places.insert(receiver.id(), place);
        }
        self.receivers.push(receiver);
        if self.places.is_none() && self.receivers.len() >= NOTED {
            self.places = Some((0..).zip(&self.receivers).map(|(at, one)| (one.id(), at)).collect());
        }
    }

    /// Removes receiver `id`, if it is there, and closes the topic behind the last one; returns whether it did.
    pub fn remove(&mut self, id: u64) -> bool {
        let place = match &mut self.places {
            Some(places) => places.remove(&id).map(|place| place as usize),
            None => self.receivers.iter().position(|receiver| receiver.id() == id),
        };
        let Some(place) = place else { return false };
        self.receivers.swap_remove(place);
        if let (Some(places), Some(moved)) = (&mut self.places, self.receivers.get(place)) {
            places.insert(moved.id(), place as u32);
        }
        if self.receivers.len() < NOTED / 2 {
            self.places = None;
        }
        if self.receivers.len() < self.receivers.capacity() / 4 {
            self.receivers.shrink_to(self.receivers.len() * 2);
        }
        self.closed = self.receivers.is_empty();
        self.closed
    }
}
