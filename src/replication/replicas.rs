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
    /// It is sent the stream.
    Online,
}

impl Stage {
    /// What INFO calls it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Waiting | Stage::Saving(_) | Stage::Streaming(_) => "wait_bgsave",
            Stage::Sending(_) => "send_bulk",
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

    /// Whether it is sent the stream.
    pub fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Online | Stage::Loading)
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

/// All replicas, by the number of their connection.
#[derive(Debug, Default)]
pub struct Replicas {
    all: BTreeMap<u64, Replica>,
}

impl Replicas {
    /// Adds one.
    pub fn add(&mut self, replica: Replica) {
        self.all.insert(replica.client.id, replica);
    }

    /// Removes one; returns whether it was there.
    pub fn remove(&mut self, id: u64) -> bool {
        self.all.remove(&id).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one of this connection.
    pub fn find(&mut self, id: u64) -> Option<&mut Replica> {
        self.all.get_mut(&id)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.all.values()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.all.values_mut()
    }

    /// The connections of those at a stage, and what goes to them.
    pub fn of_stage(&self, stage: Stage) -> Vec<(Arc<Shared>, Arc<Feed>)> {
        let found = self.all.values().filter(|replica| replica.stage == stage);
        found.map(|replica| (replica.client.clone(), replica.feed.clone())).collect()
    }

    /// From where on the stream is needed by somebody; `None` where nobody needs any of it, as those do not any more whose
    /// connection is to be closed.
    pub fn needed_from(&self) -> Option<u64> {
        let stay = self.all.values().filter(|replica| !replica.client.is_closing());
        stay.filter_map(|replica| replica.feed.position()).min()
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

    /// Notes what one says that it has; an offset never goes back.
    pub fn ack(&mut self, id: u64, offset: u64, fsynced: Option<u64>, now_ms: u64) {
        if let Some(replica) = self.all.get_mut(&id) {
            replica.acked = replica.acked.max(offset);
            replica.fsynced = replica.fsynced.max(fsynced.unwrap_or(0));
            replica.heard_ms = now_ms;
        }
    }

    /// Those that were not heard of for longer than `timeout_ms`, though they should have been: who asked in the way of
    /// old says nothing.
    pub fn silent(&self, timeout_ms: u64, now_ms: u64) -> Vec<Arc<Shared>> {
        let silent = |replica: &&Replica| {
            !replica.old && replica.is_online() && now_ms.saturating_sub(replica.heard_ms) > timeout_ms
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
        assert!(replicas.remove(2) && !replicas.remove(2) && replicas.len() == 2);
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
    fn it_is_reached_where_it_says_or_where_it_comes_from() {
        let mut one = replica(1, Stage::Online);
        assert_eq!(one.ip(), "::1");
        one.about.ip = Some(b"example.org".to_vec());
        assert_eq!(one.ip(), "example.org");
        assert_eq!(host_of("1.2.3.4:5"), "1.2.3.4");
    }
}
