//! The replicas of a primary: how far each is, when it was last heard of, and who waits for that.
//!
//! Bookkeeping without sockets: what must stay true is that a replica counts for WAIT only once it is online, and only
//! up to the offset that it has acknowledged itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::client::feed::{Feed, Introduction};
use crate::client::shared::Shared;

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a data set to be begun.
    Waiting,
    /// Its data set is being written to a file, of the making of this number.
    Saving(u64),
    /// Its data set is sent as it is made.
    Streaming(u64),
    /// Its data set is on its way, from a file.
    Sending(u64),
    /// Its data set was sent as it was made; the stream follows when it says that it has all of it.
    Loading,
    /// It is sent the stream, and its data set by another connection; it goes by the stream when it says so.
    Beside,
    /// It is sent the stream.
    Online,
}

impl Stage {
    /// What INFO calls it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Waiting | Stage::Saving(_) | Stage::Streaming(_) => "wait_bgsave",
            Stage::Sending(_) => "send_bulk",
            Stage::Beside => "bg_transfer",
            Stage::Loading | Stage::Online => "online",
        }
    }

    /// Whether it is to be told so, now and then, that we are there: nothing else is sent to it.
    pub fn is_quiet(self) -> bool {
        matches!(self, Stage::Waiting | Stage::Saving(_))
    }
}

/// A replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its connection.
    pub client: Arc<Shared>,
    /// What is sent to it.
    pub feed: Arc<Feed>,
    /// What it has said of itself.
    pub about: Introduction,
    /// It asked in the way of old: it acknowledges nothing.
    pub old: bool,
    /// How far it is.
    pub stage: Stage,
    /// How many bytes of the stream it has, as it says.
    pub acked: u64,
    /// How many of them it has on its disk, as it says.
    pub fsynced: u64,
    /// When it was last heard of, in milliseconds.
    pub heard_ms: u64,
    /// When it asked for a data set.
    pub asked_ms: u64,
}

impl Replica {
    /// The address that clients are to reach it at.
    pub fn ip(&self) -> String {
        match &self.about.ip {
            Some(ip) => String::from_utf8_lossy(ip).into_owned(),
            None => host_of(&self.client.addr),
        }
    }

    /// Whether it goes by the stream, or is about to; who wants no more than a data set never does.
    pub fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Online | Stage::Loading) && !self.about.rdb_only
    }

    /// What INFO calls its connection.
    pub fn channel(&self) -> &'static str {
        match self.stage {
            _ if self.about.is_second => "rdb-channel",
            Stage::Beside => "main-channel",
            _ => "replica",
        }
    }

    /// From where on the stream is held for it. That of a second connection is for the first, and so it is held beyond its
    /// end once the data set was sent.
    fn needs_from(&self) -> Option<u64> {
        let outlives = self.about.is_second && self.stage == Stage::Online;
        self.feed.position().filter(|_| outlives || !self.client.is_closing())
    }

    /// Seconds since it was heard of.
    pub fn lag_s(&self, now_ms: u64) -> u64 {
        if self.is_online() { now_ms.saturating_sub(self.heard_ms) / 1000 } else { 0 }
    }
}

/// The address of `host:port` without brackets.
fn host_of(addr: &str) -> String {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), |ip| ip.to_string())
}

/// A replica whose data set was sent, and whose second connection has ended, before the first has asked for the stream.
#[derive(Debug, Clone)]
pub struct Late {
    /// The second connection, as it was.
    pub client: Arc<Shared>,
    /// From where on it will ask for it.
    at: u64,
    /// Until when it is waited for, in milliseconds.
    until_ms: u64,
}

/// All replicas.
#[derive(Debug, Default)]
pub struct Replicas {
    /// In the order in which they asked: INFO and ROLE tell them so.
    all: Vec<Replica>,
    /// By the number of the second connection.
    late: BTreeMap<u64, Late>,
}

impl Replicas {
    /// Adds one.
    pub fn add(&mut self, replica: Replica) {
        self.all.push(replica);
    }

    /// Removes one; returns whether it was there. Where it was a second connection and has done its part, what the first has
    /// yet to ask for is held until `until_ms`.
    pub fn remove(&mut self, id: u64, until_ms: u64) -> bool {
        let Some(at) = self.iter().position(|replica| replica.client.id == id) else { return false };
        let replica = self.all.remove(at);
        if replica.about.is_second
            && replica.stage == Stage::Online
            && let Some(at) = replica.feed.position()
        {
            self.late.insert(id, Late { client: replica.client, at, until_ms });
        }
        true
    }

    /// How many second connections there are, or were, whose first has not asked for the stream.
    pub fn waiting(&self) -> usize {
        let waits = |replica: &&Replica| replica.about.is_second && replica.feed.position().is_some();
        self.iter().filter(waits).count() + self.late.len()
    }

    /// Whether a first connection may still ask for the stream in the name of this second one.
    pub fn is_second(&self, id: u64) -> bool {
        let is_one = |replica: &Replica| replica.about.is_second && replica.feed.position().is_some();
        self.late.contains_key(&id) || self.get(id).is_some_and(is_one)
    }

    /// Says that the first connection is given the stream, so that nothing is held for it in the name of the second.
    pub fn attach(&mut self, second: u64) {
        self.late.remove(&second);
        self.get(second).inspect(|replica| replica.feed.release());
    }

    /// Takes those out for whom too much is held, as `is_much` says of where that begins.
    pub fn take_costly(&mut self, is_much: impl Fn(u64) -> bool) -> Vec<Late> {
        self.late.extract_if(.., |_, late| is_much(late.at)).map(|(_, late)| late).collect()
    }

    /// Takes those out who are waited for no longer.
    pub fn take_late(&mut self, now_ms: u64) -> Vec<Late> {
        self.late.extract_if(.., |_, late| late.until_ms <= now_ms).map(|(_, late)| late).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether there is none, nor one that is waited for.
    pub fn are_gone(&self) -> bool {
        self.all.is_empty() && self.late.is_empty()
    }

    /// The one of this connection.
    pub fn find(&mut self, id: u64) -> Option<&mut Replica> {
        self.iter_mut().find(|replica| replica.client.id == id)
    }

    fn get(&self, id: u64) -> Option<&Replica> {
        self.iter().find(|replica| replica.client.id == id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.all.iter()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.all.iter_mut()
    }

    /// The connections of those at a stage, and what goes to them.
    pub fn of_stage(&self, stage: Stage) -> Vec<(Arc<Shared>, Arc<Feed>)> {
        let found = self.iter().filter(|replica| replica.stage == stage);
        found.map(|replica| (replica.client.clone(), replica.feed.clone())).collect()
    }

    /// From where on the stream is needed by somebody; `None` where nobody needs any of it, as those do not any more whose
    /// connection is to be closed.
    pub fn needed_from(&self) -> Option<u64> {
        let late = self.late.values().map(|late| late.at);
        self.iter().filter_map(Replica::needs_from).chain(late).min()
    }

    /// How many are online, of replicas all of which can follow slots on their way; `None` where nobody follows, or somebody
    /// does who cannot.
    pub fn following_slots(&self) -> Option<usize> {
        // Who wants no more than a data set is sent none of it.
        let mut all = self.iter().filter(|replica| !replica.about.rdb_only).peekable();
        all.peek()?;
        let mut online = 0;
        for replica in all {
            if !replica.about.follows_slots {
                return None;
            }
            online += usize::from(replica.stage == Stage::Online);
        }
        Some(online)
    }

    /// How many are online and were heard of within `lag_s` seconds.
    pub fn good(&self, lag_s: u64, now_ms: u64) -> usize {
        self.iter().filter(|replica| replica.is_online() && replica.lag_s(now_ms) <= lag_s).count()
    }

    /// How many have the stream up to `offset`, as they say.
    pub fn acked(&self, offset: u64) -> usize {
        self.iter().filter(|replica| replica.is_online() && replica.acked >= offset).count()
    }

    /// How many have it on their disks.
    pub fn fsynced(&self, offset: u64) -> usize {
        self.iter().filter(|replica| replica.is_online() && replica.fsynced >= offset).count()
    }

    /// Notes that one is there, though it says nothing else.
    pub fn hear(&mut self, id: u64, now_ms: u64) {
        if let Some(replica) = self.find(id) {
            replica.heard_ms = now_ms;
        }
    }

    /// Notes what one says that it has; an offset never goes back.
    pub fn ack(&mut self, id: u64, offset: u64, fsynced: Option<u64>, now_ms: u64) {
        if let Some(replica) = self.find(id) {
            replica.acked = replica.acked.max(offset);
            replica.fsynced = replica.fsynced.max(fsynced.unwrap_or(0));
            replica.heard_ms = now_ms;
        }
    }

    /// Those that were not heard of for longer than `timeout_ms`, though they should have been: who asked in the way of
    /// old says nothing.
    pub fn silent(&self, timeout_ms: u64, now_ms: u64) -> Vec<Arc<Shared>> {
        let silent = |replica: &&Replica| {
            let speaks = replica.is_online() || replica.stage == Stage::Beside;
            !replica.old && speaks && now_ms.saturating_sub(replica.heard_ms) > timeout_ms
        };
        self.iter().filter(silent).map(|replica| replica.client.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shared::Link;

    fn replica(id: u64, stage: Stage) -> Replica {
        let client = Shared::new(id, Link::Tcp, "[::1]:7".into(), String::new(), 3, 0);
        Replica {
            client: Arc::new(client),
            feed: Arc::default(),
            about: Introduction::default(),
            old: false,
            stage,
            acked: 0,
            fsynced: 0,
            heard_ms: 0,
            asked_ms: 0,
        }
    }

    #[test]
    fn only_those_online_count_and_only_for_what_they_acknowledged() {
        let mut replicas = Replicas::default();
        replicas.add(replica(1, Stage::Online));
        replicas.add(replica(2, Stage::Online));
        replicas.add(replica(3, Stage::Sending(1)));
        replicas.ack(1, 100, Some(40), 5000);
        replicas.ack(2, 90, None, 1000);
        replicas.ack(2, 80, None, 2000);
        replicas.ack(3, 100, Some(100), 5000);
        replicas.ack(4, 100, None, 5000);
        assert_eq!([0, 80, 90, 91, 101].map(|offset| replicas.acked(offset)), [2, 2, 2, 1, 0]);
        assert_eq!([0, 40, 41].map(|offset| replicas.fsynced(offset)), [2, 1, 0]);
        assert_eq!([0, 2, 3].map(|lag| replicas.good(lag, 5000)), [1, 1, 2]);
        let silent: Vec<u64> = replicas.silent(2999, 5000).iter().map(|client| client.id).collect();
        assert_eq!(silent, [2]);
        assert!(replicas.remove(2, 0) && !replicas.remove(2, 0) && replicas.len() == 2);
    }

    #[test]
    fn slots_on_their_way_are_told_where_all_understand() {
        let mut replicas = Replicas::default();
        assert_eq!(replicas.following_slots(), None);
        for (id, stage) in [(1, Stage::Online), (2, Stage::Loading), (3, Stage::Waiting)] {
            let mut one = replica(id, stage);
            one.about.follows_slots = true;
            replicas.add(one);
        }
        assert_eq!(replicas.following_slots(), Some(1));
        let mut copies = replica(4, Stage::Online);
        copies.about.rdb_only = true;
        replicas.add(copies);
        assert_eq!(replicas.following_slots(), Some(1));
        replicas.add(replica(5, Stage::Waiting));
        assert_eq!(replicas.following_slots(), None);
    }

    #[test]
    fn the_stream_is_needed_from_where_the_slowest_is() {
        let mut replicas = Replicas::default();
        assert_eq!(replicas.needed_from(), None);
        for (id, at) in [(1, None), (2, Some(70)), (3, Some(50))] {
            let replica = replica(id, Stage::Online);
            at.into_iter().for_each(|at| replica.feed.keep_from(at));
            replicas.add(replica);
        }
        assert_eq!(replicas.needed_from(), Some(50));
        replicas.find(3).unwrap().feed.leave();
        assert_eq!(replicas.needed_from(), Some(70));
        replicas.find(2).unwrap().client.close();
        assert_eq!(replicas.needed_from(), None);
    }

    #[test]
    fn the_stream_is_held_for_a_first_connection_until_it_has_come() {
        let mut replicas = Replicas::default();
        let second = |id, at, stage| {
            let mut second = replica(id, stage);
            second.about.is_second = true;
            second.feed.keep_from(at);
            second
        };
        replicas.add(second(1, 50, Stage::Streaming(1)));
        assert!(replicas.is_second(1) && !replicas.is_second(2) && replicas.waiting() == 1);
        // It goes before it has its data set: nobody will ask.
        replicas.find(1).unwrap().client.close();
        assert_eq!(replicas.needed_from(), None);
        assert!(replicas.remove(1, 1000));
        assert!(replicas.are_gone() && !replicas.is_second(1));
        // It has it, and goes.
        replicas.add(second(2, 60, Stage::Online));
        replicas.find(2).unwrap().client.close();
        assert_eq!(replicas.needed_from(), Some(60));
        assert!(replicas.remove(2, 1000));
        assert_eq!((replicas.needed_from(), replicas.waiting(), replicas.len()), (Some(60), 1, 0));
        assert!(replicas.is_second(2) && replicas.is_empty() && !replicas.are_gone());
        assert!(replicas.take_late(999).is_empty() && replicas.take_costly(|at| at < 60).is_empty());
        replicas.attach(2);
        assert_eq!((replicas.needed_from(), replicas.waiting()), (None, 0));
        // Too late, or too much.
        for (id, at) in [(3, 70), (4, 80)] {
            replicas.add(second(id, at, Stage::Online));
            assert!(replicas.remove(id, 10 * id));
        }
        let numbers = |late: Vec<Late>| late.iter().map(|late| late.client.id).collect::<Vec<_>>();
        assert_eq!(numbers(replicas.take_costly(|at| at < 75)), [3]);
        assert_eq!(numbers(replicas.take_late(40)), [4]);
        // One that is still there lets go as well.
        replicas.add(second(5, 90, Stage::Streaming(2)));
        replicas.attach(5);
        assert_eq!((replicas.needed_from(), replicas.waiting()), (None, 0));
    }

    #[test]
    fn who_wants_a_data_set_alone_counts_for_nothing() {
        let mut replicas = Replicas::default();
        let mut copies = replica(1, Stage::Online);
        copies.about.rdb_only = true;
        replicas.add(copies);
        replicas.ack(1, 100, Some(100), 5000);
        assert_eq!((replicas.acked(0), replicas.fsynced(0), replicas.good(2, 5000)), (0, 0, 0));
    }

    #[test]
    fn it_is_reached_where_it_says_or_where_it_comes_from() {
        let mut one = replica(1, Stage::Online);
        assert_eq!(one.ip(), "::1");
        one.about.ip = Some(b"example.org".to_vec());
        assert_eq!(one.ip(), "example.org");
        assert_eq!(host_of("1.2.3.4:5"), "1.2.3.4");
    }
}
