//! Replication: one stream of changes, and servers that have more or less of it.
//!
//! A primary's changes are a stream of commands; its name and the number of its bytes say what a data set is a result
//! of ([`history`]). The last part of it is kept ([`backlog`]) for replicas that are behind ([`replicas`]). A replica
//! introduces itself ([`handshake`]), is given the data set ([`transfer`]) unless it can go on where it stopped, and
//! keeps the stream as it comes, so that it can have replicas of its own, and take the primary's place.
//!
//! What must stay true: the offset and what is held of the stream change under one lock, [`Replication::state`], which
//! comes after the write log's; a replica's data set is a result of exactly the bytes that its offset counts.

pub mod arrived;
pub mod backlog;
pub mod handshake;
pub mod history;
pub mod replicas;
#[cfg(test)]
mod simulation;
pub mod transfer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::client::feed::Feed;
use crate::client::shared::Shared;
use crate::replication::arrived::Arrived;
use crate::replication::backlog::Backlog;
use crate::replication::history::History;
use crate::replication::replicas::Replicas;

/// For so long writers wait at most for a replica that was just seen to take something: the system tells of room in its
/// socket some times a second.
const PACED_MS: u64 = 250;
/// They wait for so long at most, and then not until that has been over for a while.
const PACED_MOST_MS: u64 = 10_000;
/// After so long without it is told again that they wait.
const UNPACED_MS: u64 = 10_000;

/// How far the link to the primary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// There is no primary.
    #[default]
    None,
    /// It is to be connected to.
    Connect,
    /// It is being connected to.
    Connecting,
    /// It is told who we are.
    Handshake,
    /// Its data set is on its way.
    Transfer,
    /// Its stream is followed.
    Connected,
}

impl Stage {
    /// What ROLE calls it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::None => "none",
            Stage::Connect => "connect",
            Stage::Connecting => "connecting",
            Stage::Handshake => "handshake",
            Stage::Transfer => "sync",
            Stage::Connected => "connected",
        }
    }
}

/// The primary that is followed, and the link to it.
#[derive(Debug, Clone, Default)]
pub struct Primary {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How far the link is.
    pub stage: Stage,
    /// The link, as others see it, while the stream is followed.
    pub client: Option<Arc<Shared>>,
    /// When something came over it, in milliseconds.
    pub heard_ms: u64,
    /// Since when there is none; 0 for never having been one.
    pub down_since_ms: u64,
    /// How many bytes the data set has that is on its way; `None` where that is not known.
    pub total_bytes: Option<u64>,
    /// How many of them have come.
    pub read_bytes: u64,
    /// When some of them came.
    pub read_ms: u64,
    /// How much of the stream was read; what was read and not yet run is more than the offset.
    pub read_offset: u64,
    /// Whether it may go on where it stopped, if the primary agrees.
    pub resumes: bool,
    /// How much of the stream is held that came while the data set did, by another connection.
    pub ahead_bytes: u64,
    /// How much that was at most, for the last data set that came so.
    pub ahead_peak_bytes: u64,
    /// A second connection for the data set was refused, so the first is to do.
    pub has_one_channel: bool,
}

impl Primary {
    /// How far the link is for who asks: one that was told to close is none any more, though it may take a moment to end.
    pub fn stage(&self) -> Stage {
        let closes = self.client.as_ref().is_some_and(|client| client.is_closing());
        if self.stage == Stage::Connected && closes { Stage::Connect } else { self.stage }
    }
}

/// A failover that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// There is none.
    #[default]
    None,
    /// A replica is waited for that has all of the stream.
    Waiting,
    /// It was asked to take over.
    Going,
}

impl Failover {
    /// What INFO calls it.
    pub fn name(self) -> &'static str {
        match self {
            Failover::None => "no-failover",
            Failover::Waiting => "waiting-for-sync",
            Failover::Going => "failover-in-progress",
        }
    }
}

/// A failover: how far it is, and what was asked for.
#[derive(Debug, Clone, Default)]
pub struct Takeover {
    /// How far it is.
    pub stage: Failover,
    /// Who is to take over; `None` for whoever is first.
    pub target: Option<(String, u16)>,
    /// When it is given up, or forced, in milliseconds.
    pub until_ms: Option<u64>,
    /// At that time it goes on, although the replica has not all of the stream.
    pub force: bool,
    /// It is to be undone.
    pub aborted: bool,
}

/// A client that waits until others have what it has written.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// Who waits.
    pub client: Arc<Shared>,
    /// How much of the stream is to be acknowledged.
    pub offset: u64,
    /// By so many replicas.
    pub replicas: usize,
    /// Whether it is to be on their disks.
    pub on_disk: bool,
    /// How much of the write log is to be on our own disk.
    pub local: Option<u64>,
    /// It waits for something that only a primary does, and says so itself where this is none any more.
    pub leads: bool,
}

/// What changes under one lock.
#[derive(Debug, Default)]
pub struct State {
    /// Which streams the data set is a result of.
    pub history: History,
    /// The last part of the stream; `None` while there never was a replica.
    pub backlog: Option<Backlog>,
    /// Those who follow us.
    pub replicas: Replicas,
    /// Since when nobody does, in milliseconds.
    pub alone_since_ms: Option<u64>,
    /// Whom we follow.
    pub primary: Primary,
    /// Clients that wait for replicas.
    pub waiters: Vec<Waiter>,
    /// The failover that goes on.
    pub takeover: Takeover,
    /// How many data sets were begun for replicas.
    pub makings: u64,
    /// The one that is being made.
    pub making: Option<Making>,
}

/// A data set that is being made for replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    /// Its number.
    pub number: u64,
    /// Whether it is sent as it is made, and no file remains.
    pub diskless: bool,
}

/// Milliseconds that may be changed: a minute, unless somebody says otherwise.
#[derive(Debug)]
pub struct LateMs(pub AtomicU64);

impl Default for LateMs {
    fn default() -> LateMs {
        LateMs(AtomicU64::new(60_000))
    }
}

/// What one server has to do with others.
#[derive(Debug, Default)]
pub struct Replication {
    following: AtomicBool,
    offset: AtomicU64,
    /// How many bytes of the stream are kept for those who come back.
    keep: AtomicU64,
    /// How much memory is taken beyond that, by what replicas have yet to be sent.
    beyond: AtomicU64,
    news: AtomicBool,
    /// Until when those who write wait for a replica that is about to be cut off.
    paced_until_ms: AtomicU64,
    /// Since when they have waited, with short interruptions at most.
    paced_since_ms: AtomicU64,
    state: Mutex<State>,
    listening: RwLock<Vec<(Arc<Shared>, Arc<Feed>)>>,
    /// How many they are.
    listeners: AtomicUsize,
    /// The database that the primary's stream has selected, as far as it was followed.
    pub db: AtomicUsize,
    /// How long the stream is held for a replica that has its data set and has yet to ask for it.
    pub late_ms: LateMs,
    /// How far the link is with what has come.
    pub arrived: Arrived,
    /// The primary asked how far we are.
    ack_wanted: AtomicBool,
    /// When replicas were pinged, in milliseconds.
    pub pinged_ms: AtomicU64,
    /// How often it was said whom to follow: a link that is of an earlier time ends.
    turn: AtomicU64,
    /// Keys that clients of a replica gave a deadline, each with its database.
    pub own: Mutex<BTreeSet<(usize, Vec<u8>)>>,
    /// Its number as a reader of the write log.
    pub reader: Mutex<Option<u64>>,
    /// How much of the stream the disk has, as far as it was followed from a primary: pairs of offsets in the write
    /// log and in the stream.
    pub logged: Mutex<std::collections::VecDeque<(u64, u64)>>,
}

impl Replication {
    /// What changes under one lock. It is held shortly, and no other lock of replication or of the log is taken under
    /// it.
    pub fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether we follow a primary.
    #[inline]
    pub fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    /// Says whether we do.
    pub fn set_following(&self, following: bool) {
        self.following.store(following, Ordering::Release);
    }

    /// Notes the database that the primary's stream has selected; one that is not there, of `databases`, is taken for the last.
    pub fn select(&self, db: usize, databases: u32) {
        self.db.store(db.min(databases.saturating_sub(1) as usize), Ordering::Relaxed);
    }

    /// Says that the primary asked how far we are.
    pub fn want_ack(&self) {
        self.ack_wanted.store(true, Ordering::Release);
    }

    /// Whether it asked since this was called last.
    pub fn take_ack_wanted(&self) -> bool {
        self.ack_wanted.swap(false, Ordering::AcqRel)
    }

    /// The number of the present link's time.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Ends the present link's time.
    pub fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How many bytes the stream has.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Says how many bytes the stream has: another one begins. What was held of the old one is forgotten.
    pub fn set_offset(&self, state: &mut State, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        if let Some(backlog) = &mut state.backlog {
            *backlog = Backlog::new(offset);
        }
        self.weigh(state);
    }

    /// Memory that the stream takes beyond what is kept of it in any case, in bytes: what replicas have yet to be sent. No
    /// key has to go for it, because the DEL that is told of would make it more.
    #[inline]
    pub fn beyond_bytes(&self) -> u64 {
        self.beyond.load(Ordering::Relaxed)
    }

    fn weigh(&self, state: &State) {
        let held = state.backlog.as_ref().map_or(0, |backlog| backlog.memory() as u64);
        self.beyond.store(held.saturating_sub(self.keep.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Gives back what nobody needs any more of what is held of the stream.
    fn trim(&self, state: &mut State) {
        let State { backlog, replicas, .. } = state;
        if let Some(backlog) = backlog {
            backlog.trim(self.keep.load(Ordering::Relaxed), replicas.needed_from());
        }
        self.weigh(state);
    }

    /// Says how many bytes of the stream are kept for those who come back.
    pub fn set_keep(&self, bytes: u64) {
        self.keep.store(bytes, Ordering::Relaxed);
        self.trim(&mut self.state.lock());
    }

    /// Begins to keep the stream, if it is not kept.
    pub fn keep_stream(&self, state: &mut State) {
        if state.backlog.is_none() {
            state.backlog = Some(Backlog::new(self.offset()));
        }
    }

    /// Appends to the stream, if it is kept.
    pub fn append(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let Some(backlog) = &mut state.backlog else {
            self.offset.fetch_add(bytes.len() as u64, Ordering::AcqRel);
            return;
        };
        let full = backlog.append(bytes);
        self.offset.store(backlog.end(), Ordering::Release);
        if full {
            self.trim(&mut state);
        }
        self.news.store(true, Ordering::Release);
    }

    /// Some of the stream for who has `at` bytes of it; nothing at its end. `None` where that is not held.
    pub fn read(&self, at: u64) -> Option<Bytes> {
        self.state.lock().backlog.as_ref()?.read(at)
    }

    /// Whether there are replicas that have yet to be told what the stream has grown by.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Has all replicas sent what there is of the stream. With time for it (`at_once`) it is sent here, before whoever asked
    /// for the change is answered: who is told of it and reads from a replica finds it there. Else, and where a socket does
    /// not take it, the replicas' connections are woken, which send what many have changed together.
    #[cold]
    pub fn tell_replicas(&self, at_once: bool) {
        if !self.news.swap(false, Ordering::AcqRel) {
            return;
        }
        if !at_once {
            return self.listening.read().iter().for_each(|(client, _)| client.wake());
        }
        // The list is not kept from who changes it: he has the state, which reading the stream waits for.
        let listening: SmallVec<[_; 4]> = self.listening.read().iter().cloned().collect();
        for (client, feed) in listening {
            // Who is to close may be here no more than in name: another stream has begun.
            if client.is_closing() || !feed.hurry(|at| self.read(at)) {
                client.wake();
            }
        }
    }

    /// Has those who write wait for a while, because a replica that takes what it is sent does so too slowly; says whether
    /// they had not to wait for a long time.
    pub fn pace(&self, now_ms: u64) -> bool {
        let before = self.paced_until_ms.load(Ordering::Relaxed);
        if before + PACED_MS < now_ms {
            self.paced_since_ms.store(now_ms, Ordering::Relaxed);
        } else if now_ms.saturating_sub(self.paced_since_ms.load(Ordering::Relaxed)) > PACED_MOST_MS {
            // It is no faster for it: the limit of what may wait for it is there for this.
            return false;
        }
        self.paced_until_ms.store(now_ms + PACED_MS, Ordering::Relaxed);
        before + UNPACED_MS < now_ms
    }

    /// Whether those who write wait for a replica.
    #[inline]
    pub fn is_paced(&self, now_ms: u64) -> bool {
        // A clock that was set back does not make it longer.
        let left = self.paced_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms);
        left > 0 && left <= PACED_MS
    }

    /// Wakes the connections of all replicas, so that they send what there is.
    pub fn wake_replicas(&self) {
        self.tell_replicas(false);
    }

    /// Says anew whose connections are to be woken.
    pub fn note_listening(&self, state: &State) {
        let mut listening = self.listening.write();
        *listening = state.replicas.iter().map(|replica| (replica.client.clone(), replica.feed.clone())).collect();
        self.listeners.store(listening.len(), Ordering::Relaxed);
    }

    /// Forgets a connection that ends; returns whether it was a replica's.
    pub fn forget(&self, id: u64, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        state.waiters.retain(|waiter| waiter.client.id != id);
        if !state.replicas.remove(id, now_ms + self.late_ms.0.load(Ordering::Relaxed)) {
            return false;
        }
        if state.replicas.is_empty() {
            state.alone_since_ms = Some(now_ms);
        }
        self.note_listening(&state);
        self.trim(&mut state);
        true
    }

    /// Takes those out who have waited long enough: enough replicas have what they wait for. `synced` is how much of
    /// the write log our own disk has.
    pub fn satisfied(&self, synced: impl FnOnce() -> u64) -> Vec<Arc<Shared>> {
        let mut state = self.state.lock();
        if state.waiters.is_empty() {
            return Vec::new();
        }
        let synced = synced();
        let State { waiters, replicas, .. } = &mut *state;
        let done = |waiter: &mut Waiter| {
            let found = if waiter.on_disk { replicas.fsynced(waiter.offset) } else { replicas.acked(waiter.offset) };
            let waits = waiter.client.wait.lock().is_some();
            waits && found >= waiter.replicas && waiter.local.is_none_or(|local| synced >= local)
        };
        waiters.extract_if(.., done).map(|waiter| waiter.client).collect()
    }

    /// Takes those out who wait for our own disk.
    pub fn waiting_for_disk(&self) -> Vec<Arc<Shared>> {
        let local = |waiter: &mut Waiter| waiter.local.is_some();
        self.state.lock().waiters.extract_if(.., local).map(|waiter| waiter.client).collect()
    }

    /// Takes those out who wait for something that only a primary does.
    pub fn waiting_for_primary(&self) -> Vec<Arc<Shared>> {
        self.state.lock().waiters.extract_if(.., |waiter| waiter.leads).map(|waiter| waiter.client).collect()
    }

    /// Forgets what a client waits for.
    pub fn end_wait(&self, id: u64) {
        self.state.lock().waiters.retain(|waiter| waiter.client.id != id);
    }

    /// Notes that what has come to `logged` in the write log is the stream up to `offset`.
    pub fn note_logged(&self, logged: u64, offset: u64) {
        let mut pairs = self.logged.lock();
        if let Some(last) = pairs.back_mut().filter(|last| last.0 == logged) {
            last.1 = offset;
        } else {
            pairs.push_back((logged, offset));
        }
    }

    /// How much of the stream the disk has, where it has `synced` of the write log.
    pub fn on_disk(&self, synced: u64) -> u64 {
        let mut pairs = self.logged.lock();
        while pairs.len() > 1 && pairs[1].0 <= synced {
            pairs.pop_front();
        }
        pairs.front().filter(|pair| pair.0 <= synced).map_or(0, |pair| pair.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::feed::{Feed, Introduction};
    use crate::client::shared::Link;
    use crate::replication::replicas::{Replica, Stage};

    #[test]
    fn the_stream_is_kept_from_its_first_replica_on() {
        let replication = Replication::default();
        replication.set_keep(1000);
        replication.append(b"abc");
        assert_eq!(replication.offset(), 3);
        assert!(replication.read(0).is_none());
        replication.keep_stream(&mut replication.state());
        replication.append(b"defg");
        assert_eq!(&replication.read(4).unwrap()[..], b"efg");
        assert!(replication.read(7).unwrap().is_empty() && replication.read(2).is_none());
        replication.set_offset(&mut replication.state(), 100);
        assert!(replication.read(7).is_none() && replication.read(100).unwrap().is_empty());
    }

    #[test]
    fn a_database_that_is_not_there_is_taken_for_the_last() {
        let replication = Replication::default();
        for (db, databases, expected) in [(3, 16, 3), (16, 16, 15), (usize::MAX, 16, 15), (5, 1, 0)] {
            replication.select(db, databases);
            assert_eq!(replication.db.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn who_waits_is_found_when_enough_have_what_it_wrote() {
        let replication = Replication::default();
        let client = |id| Arc::new(Shared::new(id, Link::Tcp, "1.1.1.1:1".into(), String::new(), 3, 0));
        for id in [1, 2] {
            replication.state().replicas.add(Replica {
                client: client(id),
                feed: Arc::new(Feed::default()),
                about: Introduction::default(),
                old: false,
                stage: Stage::Online,
                acked: 0,
                fsynced: 0,
                heard_ms: 0,
                asked_ms: 0,
            });
        }
        struct Never;
        impl crate::client::shared::Unblock for Never {
            fn time_out(&self) -> bool {
                false
            }
            fn fail(&self, _: &str) -> bool {
                false
            }
            fn first_key(&self) -> Option<Vec<u8>> {
                None
            }
            fn writes(&self) -> bool {
                false
            }
        }
        let wait = |id, replicas, on_disk, local| {
            let waiter = Waiter { client: client(id), offset: 10, replicas, on_disk, local, leads: false };
            *waiter.client.wait.lock() = Some(Arc::new(Never));
            replication.state().waiters.push(waiter);
        };
        wait(11, 1, false, None);
        wait(12, 2, false, None);
        wait(13, 1, true, Some(5));
        let found = |synced| replication.satisfied(|| synced).iter().map(|client| client.id).collect::<Vec<_>>();
        assert_eq!(found(0), Vec::<u64>::new());
        replication.state().replicas.ack(1, 10, None, 1);
        assert_eq!(found(0), [11]);
        replication.state().replicas.ack(2, 12, Some(10), 1);
        assert_eq!(found(4), [12]);
        assert!(replication.forget(2, 7) && !replication.forget(13, 7));
        assert_eq!(found(5), Vec::<u64>::new());
    }

    #[test]
    fn the_disk_has_what_was_logged_before_it_was_synced() {
        let replication = Replication::default();
        assert_eq!(replication.on_disk(100), 0);
        for (logged, offset) in [(10, 5), (10, 7), (20, 9), (30, 20)] {
            replication.note_logged(logged, offset);
        }
        assert_eq!([9, 10, 19, 20, 29, 30, 99].map(|synced| replication.on_disk(synced)), [0, 7, 7, 9, 9, 20, 20]);
    }
}
