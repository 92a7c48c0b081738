//! Publish and subscribe: who listens to which channel, and handing a message to all of them.
//!
//! This is a registry and nothing more: a [`Receiver`] is whatever messages are handed to, and what a message is
//! only the caller knows. Topics stand in tables of their own locks, so that a publisher holds a table's lock
//! for as long as it takes to find its channel. While messages are handed out it holds the lock of that one topic:
//! all receivers of a topic get its messages in the same order, and nobody gets one after having left it.

mod audience;
pub mod patterns;
pub mod topics;

use std::sync::Arc;

use crate::pubsub::patterns::Patterns;
use crate::pubsub::topics::{Topic, Topics};

/// What messages are handed to.
pub trait Receiver {
    /// Its number, which no other receiver has.
    fn id(&self) -> u64;

    /// Whether it is about to leave, and takes no more messages.
    fn is_leaving(&self) -> bool;
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Channels.
    Channel,
    /// Patterns of channels.
    Pattern,
    /// Channels that belong to a slot of a cluster.
    ShardChannel,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::ShardChannel];
}

/// Everything that is subscribed to.
#[derive(Debug)]
pub struct PubSub<R> {
    channels: Topics<R>,
    patterns: Patterns<R>,
    shard_channels: Topics<R>,
}

impl<R> Default for PubSub<R> {
    fn default() -> PubSub<R> {
        PubSub { channels: Topics::default(), patterns: Patterns::default(), shard_channels: Topics::default() }
    }
}

impl<R: Receiver> PubSub<R> {
    /// What of one kind is subscribed to.
    pub fn topics(&self, kind: Kind) -> &Topics<R> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => self.patterns.topics(),
            Kind::ShardChannel => &self.shard_channels,
        }
    }

    /// Subscribes a receiver, which must not be subscribed to this already; returns the name as it is kept, to be
    /// shared by whoever keeps it too.
    pub fn subscribe(&self, kind: Kind, name: &[u8], receiver: &Arc<R>) -> Arc<[u8]> {
        match kind {
            Kind::Pattern => self.patterns.subscribe(name, receiver),
            _ => self.topics(kind).subscribe(name, receiver),
        }
    }

    /// Ends the subscription of receiver `id`, if there is one. After this returns no message comes to it from there.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: u64) {
        match kind {
            Kind::Pattern => self.patterns.unsubscribe(name, id),
            _ => {
                self.topics(kind).unsubscribe(name, id);
            }
        }
    }

    /// Whether anybody may be subscribed to a channel, by its name or by a pattern.
    #[inline]
    pub fn has_listeners(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.topics().is_empty()
    }

    /// Has `hand_out` give a message on `channel` to the receivers of each topic that it concerns: the channel, and
    /// then each pattern that it fits, which `hand_out` is told; returns the sum of what that returns.
    pub fn publish(&self, channel: &[u8], mut hand_out: impl FnMut(Option<&[u8]>, &Topic<R>) -> usize) -> usize {
        let direct = self.channels.find(channel).map_or(0, |topic| hand_out(None, &topic));
        direct + self.patterns.matching(channel, |topic| hand_out(Some(topic.name()), topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::stdx::glob::{Case, matches};

    #[derive(Debug, Default)]
    pub struct Ear {
        id: u64,
        leaving: AtomicBool,
        heard: Mutex<Vec<(Option<String>, String)>>,
    }

    impl Receiver for Ear {
        fn id(&self) -> u64 {
            self.id
        }
        fn is_leaving(&self) -> bool {
            self.leaving.load(Ordering::Relaxed)
        }
    }

    fn ear(id: u64) -> Arc<Ear> {
        Arc::new(Ear { id, ..Ear::default() })
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn publish(pubsub: &PubSub<Ear>, channel: &str, what: &str) -> usize {
        pubsub.publish(channel.as_bytes(), |pattern, topic| {
            topic.hand_out(|ear| ear.heard.lock().push((pattern.map(text), what.to_owned())))
        })
    }

    fn heard(ear: &Ear) -> String {
        let heard = std::mem::take(&mut *ear.heard.lock());
        heard.iter().map(|(by, what)| format!("{}{what} ", by.as_deref().unwrap_or(""))).collect()
    }

    #[test]
    fn a_message_comes_by_name_first_and_then_by_each_pattern() {
        let pubsub = PubSub::default();
        let (a, b) = (ear(1), ear(2));
        assert!(!pubsub.has_listeners());
        pubsub.subscribe(Kind::Channel, b"news", &a);
        pubsub.subscribe(Kind::Pattern, b"n*", &a);
        pubsub.subscribe(Kind::Pattern, b"?ews", &b);
        assert_eq!(publish(&pubsub, "news", "1"), 3);
        assert_eq!(publish(&pubsub, "n", "2"), 1);
        assert_eq!(publish(&pubsub, "olds", "3"), 0);
        assert_eq!((heard(&a), heard(&b)), ("1 n*1 n*2 ".into(), "?ews1 ".into()));
        pubsub.unsubscribe(Kind::Pattern, b"n*", 1);
        pubsub.unsubscribe(Kind::Pattern, b"n*", 1);
        pubsub.unsubscribe(Kind::Channel, b"news", 2);
        assert_eq!(publish(&pubsub, "news", "4"), 2);
        assert_eq!((heard(&a), heard(&b)), ("4 ".into(), "?ews4 ".into()));
        pubsub.unsubscribe(Kind::Channel, b"news", 1);
        pubsub.unsubscribe(Kind::Pattern, b"?ews", 2);
        assert!(!pubsub.has_listeners());
        assert_eq!(publish(&pubsub, "news", "5"), 0);
    }

    #[test]
    fn shard_channels_are_a_world_of_their_own() {
        let pubsub = PubSub::default();
        let a = ear(1);
        pubsub.subscribe(Kind::ShardChannel, b"c", &a);
        assert_eq!(publish(&pubsub, "c", "1"), 0);
        let topic = pubsub.topics(Kind::ShardChannel).find(b"c").unwrap();
        assert_eq!(topic.hand_out(|ear| ear.heard.lock().push((None, "2".into()))), 1);
        assert_eq!(heard(&a), "2 ");
    }

    #[test]
    fn who_is_leaving_gets_nothing_and_does_not_count() {
        let pubsub = PubSub::default();
        let (a, b) = (ear(1), ear(2));
        pubsub.subscribe(Kind::Channel, b"c", &a);
        pubsub.subscribe(Kind::Channel, b"c", &b);
        a.leaving.store(true, Ordering::Relaxed);
        assert_eq!(publish(&pubsub, "c", "1"), 1);
        assert_eq!(pubsub.topics(Kind::Channel).receivers(b"c"), 1);
        b.leaving.store(true, Ordering::Relaxed);
        let mut names = Vec::new();
        pubsub.topics(Kind::Channel).for_each(|name, _| names.push(name.to_vec()));
        assert!(names.is_empty());
        assert_eq!(heard(&a), "");
    }

    #[test]
    fn nobody_hears_a_channel_that_it_has_left_whatever_the_others_do() {
        let pubsub = PubSub::<Ear>::default();
        let done = AtomicBool::new(false);
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    publish(&pubsub, "c", "x");
                }
            });
            let come_and_go = |id| {
                let ear = ear(id);
                for kind in [Kind::Channel, Kind::Pattern].into_iter().cycle().take(rounds) {
                    pubsub.subscribe(kind, b"c", &ear);
                    pubsub.unsubscribe(kind, b"c", id);
                    heard(&ear);
                    assert_eq!(publish(&pubsub, "none", "y"), 0);
                    assert_eq!(heard(&ear), "", "nothing comes after the end of the subscription");
                }
            };
            let others: Vec<_> = (0..3).map(|id| scope.spawn(move || come_and_go(id))).collect();
            others.into_iter().for_each(|other| other.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        assert!(!pubsub.has_listeners());
    }

    #[test]
    fn all_hear_the_messages_of_several_publishers_in_one_order() {
        let pubsub = PubSub::<Ear>::default();
        let ears: Vec<_> = (0..4).map(ear).collect();
        ears.iter().for_each(|ear| drop(pubsub.subscribe(Kind::Channel, b"c", ear)));
        std::thread::scope(|scope| {
            for publisher in 0..3 {
                let pubsub = &pubsub;
                scope.spawn(move || (0..200).for_each(|n| _ = publish(pubsub, "c", &format!("{publisher}:{n}"))));
            }
        });
        let first = heard(&ears[0]);
        assert_eq!(first.split_whitespace().count(), 600);
        ears[1..].iter().for_each(|ear| assert_eq!(heard(ear), first));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Subscribe(usize, u64, usize),
        Unsubscribe(usize, u64, usize),
        Publish(usize),
    }

    const NAMES: [&str; 8] = ["a", "b", "ab", "*", "a*", "?", "[ab]", "b*"];

    fn step() -> impl Strategy<Value = Step> {
        let (kind, id, name) = (0..2usize, 0..200u64, 0..NAMES.len());
        prop_oneof![
            6 => (kind.clone(), id.clone(), name.clone()).prop_map(|(k, i, n)| Step::Subscribe(k, i, n)),
            4 => (kind, id, name.clone()).prop_map(|(k, i, n)| Step::Unsubscribe(k, i, n)),
            1 => name.prop_map(Step::Publish),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 48 }))]
        #[test]
        fn it_is_a_set_of_receivers_for_each_name(steps in prop::collection::vec(step(), 0..900)) {
            let pubsub = PubSub::<Ear>::default();
            let ears: Vec<_> = (0..200).map(ear).collect();
            let mut model: BTreeMap<(usize, &str), BTreeSet<u64>> = BTreeMap::new();
            let kinds = [Kind::Channel, Kind::Pattern];
            for step in steps {
                match step {
                    Step::Subscribe(kind, id, name) => {
                        if model.entry((kind, NAMES[name])).or_default().insert(id) {
                            pubsub.subscribe(kinds[kind], NAMES[name].as_bytes(), &ears[id as usize]);
                        }
                    }
                    Step::Unsubscribe(kind, id, name) => {
                        model.entry((kind, NAMES[name])).or_default().remove(&id);
                        pubsub.unsubscribe(kinds[kind], NAMES[name].as_bytes(), id);
                    }
                    Step::Publish(name) => {
                        let channel = NAMES[name];
                        let fits = |(kind, topic): &(usize, &str)| match kind {
                            0 => *topic == channel,
                            _ => matches(topic.as_bytes(), channel.as_bytes(), Case::Sensitive),
                        };
                        let expected: usize = model.iter().filter(|(at, _)| fits(at)).map(|(_, ids)| ids.len()).sum();
                        prop_assert_eq!(publish(&pubsub, channel, "x"), expected);
                        for ear in &ears {
                            let times = model.iter().filter(|(at, ids)| fits(at) && ids.contains(&ear.id)).count();
                            prop_assert_eq!(ear.heard.lock().drain(..).count(), times);
                        }
                    }
                }
            }
            for (kind, of) in kinds.iter().enumerate() {
                let mut known = BTreeMap::new();
                pubsub.topics(*of).for_each(|name, receivers| _ = known.insert(text(name), receivers));
                let expected: BTreeMap<String, usize> = model
                    .iter()
                    .filter(|((k, _), ids)| *k == kind && !ids.is_empty())
                    .map(|((_, name), ids)| ((*name).to_owned(), ids.len()))
                    .collect();
                prop_assert_eq!(pubsub.topics(*of).len(), expected.len());
                prop_assert_eq!(known, expected);
            }
        }
    }
}
