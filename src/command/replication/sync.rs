//! Full synchronisations: data sets for replicas, made of a snapshot, sent as they are made or from a file.
//!
//! Replicas that wait are collected for a while, and one snapshot serves all of them. At the point in time at which it
//! begins each is told the offset, and the stream is kept for it from there. What must stay true: a replica is sent the
//! stream from exactly the offset of its snapshot on; whoever makes data sets waits for replicas, and nobody else does.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::feed::{Feed, Parts};
use crate::client::shared::Shared;
use crate::command::engine::Engine;
use crate::command::save::{self, Purpose};
use crate::config::table::Config;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::snapshot::{Progress, Snapshot};
use crate::observe::crash;
use crate::observe::log::{debug, notice, warning};
use crate::persist::disk::{self, plain};
use crate::persist::rdb::save::{Audience, Failure, Head, Manner, encoder, write, write_without_keys};
use crate::persist::saves::Running;
use crate::replication::handshake::Begun;
use crate::replication::replicas::{Replica, Stage};
use crate::replication::transfer::MARK_LENGTH;
use crate::replication::{self, State};
use crate::stdx::{affinity, random};

/// The field of a data set that tells of slots on their way.
pub const OPEN_SLOTS: &str = "cluster-slot-states";
/// So many bytes may be on their way to a replica before who makes them waits.
const ON_THE_WAY_BYTES: usize = 1 << 20;
/// How often who waits for a replica looks whether that still has a purpose.
const LOOK: Duration = Duration::from_millis(100);
/// A file is read in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// A data set that is being made for replicas.
#[derive(Debug, Clone, Copy)]
struct Making {
    number: u64,
    parts: Parts,
    diskless: bool,
}

/// Has a replica that waits for a data set have that which is being written to a file, if it can; else sees whether
/// one is to be begun.
pub fn attach_or_begin(engine: &Engine, id: u64) {
    let mut state = engine.replication.state();
    let State { replicas, backlog, history, .. } = &mut *state;
    let Some(new) = replicas.find(id).cloned() else { return };
    let other = replicas.iter().find_map(|other| match (other.stage, other.feed.position()) {
        (Stage::Saving(number), Some(at)) if other.about.parts == new.about.parts && !new.about.is_second => {
            Some((number, at))
        }
        _ => None,
    });
    if let (Some((number, at)), Some(replica)) = (other, replicas.find(id))
        && backlog.as_ref().is_some_and(|backlog| backlog.covers(at))
    {
        notice!("Waiting for end of BGSAVE for SYNC");
        start(replica, &history.id, at, None, Stage::Saving(number));
        return;
    }
    if state.making.is_some_and(|making| making.diskless) {
        notice!("Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC");
    }
    drop(state);
    look_at_waiting(engine);
}

/// Tells a replica which part of the stream its data set will be a result of, and keeps the rest for it. `db` is the database
/// that the stream has selected there, unless it says so itself.
fn start(replica: &mut Replica, id: &str, offset: u64, db: Option<usize>, stage: Stage) {
    replica.stage = stage;
    if replica.about.is_second {
        let own = replica.client.id;
        let begun = Begun { offset, id: id.to_owned(), db, second: own };
        debug!("Add rdb replica {} to waiting psync, with cid {own}, tracking repl-backlog tail", replica.client.addr);
        replica.feed.push(begun.to_line().into());
    } else if !replica.old {
        replica.feed.push(Bytes::from(format!("+FULLRESYNC {id} {offset}\r\n")));
    }
    replica.feed.keep_from(offset);
    replica.client.wake();
}

/// Begins to make a data set if replicas wait for one, and have waited long enough.
pub fn look_at_waiting(engine: &Engine) {
    let config = engine.config.load_full();
    let busy = engine.saves.is_running() || engine.aof.is_rewriting() || engine.keyspace.snapshot().is_active();
    if busy || engine.saves.loading.active.load(Ordering::Relaxed) {
        return;
    }
    let mut state = engine.replication.state();
    if state.making.is_some() {
        return;
    }
    let waiting = |replica: &&Replica| replica.stage == Stage::Waiting && !replica.client.is_closing();
    let Some(parts) = state.replicas.iter().find(waiting).map(|replica| replica.about.parts) else { return };
    let now_ms = engine.clock.now_ms();
    let same = |replica: &&Replica| waiting(replica) && replica.about.parts == parts;
    let count = state.replicas.iter().filter(same).count();
    // What is not all of the data set is no file that we could keep.
    let partial = parts != Parts::default();
    let second = state.replicas.iter().filter(same).any(|replica| replica.about.is_second);
    let diskless =
        partial || second || config.repl_diskless_sync && state.replicas.iter().filter(same).all(|r| r.about.eof);
    let oldest_ms = state.replicas.iter().filter(same).map(|r| now_ms.saturating_sub(r.asked_ms)).max().unwrap_or(0);
    let delay_ms = u64::from(config.repl_diskless_sync_delay) * 1000;
    let enough = config.repl_diskless_sync_max_replicas > 0 && count >= config.repl_diskless_sync_max_replicas as usize;
    if config.repl_diskless_sync && oldest_ms < delay_ms && !enough {
        return;
    }
    state.makings += 1;
    let making = Making { number: state.makings, parts, diskless };
    state.making = Some(replication::Making { number: making.number, diskless });
    drop(state);
    let mut running = engine.saves.running.lock();
    if running.is_some() {
        drop(running);
        engine.replication.state().making = None;
        return;
    }
    // From here on it is told as one that goes on.
    *running = Some(Running {
        started_ms: now_ms,
        keys: 0,
        dirty: engine.dirty.load(Ordering::Relaxed),
        progress: Progress::default(),
    });
    drop(running);
    let shared = engine.arc();
    let work = move || {
        crash::prepare_thread();
        affinity::keep_to(config.bgsave_cpulist.as_deref());
        run(&shared, &config, making);
    };
    let target = if diskless { "replicas sockets" } else { "disk" };
    notice!("Starting BGSAVE for SYNC with target: {target}");
    let pid = std::process::id();
    match diskless {
        true => notice!("Background RDB transfer started by pid {pid}"),
        false => notice!("Background saving started by pid {pid}"),
    }
    if let Err(error) = std::thread::Builder::new().name("sync".into()).spawn(work) {
        warning!("BGSAVE for replication failed: {error}");
        end_making(engine);
    }
}

/// Says that no data set is being made any more.
fn end_making(engine: &Engine) {
    // In this order: nobody takes the next save for ours.
    engine.replication.state().making = None;
    *engine.saves.running.lock() = None;
}

/// Stops the making of a data set that nobody waits for any more; a file that save points ask for is made all the same.
pub fn stop_useless(engine: &Engine) {
    let state = engine.replication.state();
    let Some(making) = state.making else { return };
    let waits = |replica: &Replica| {
        matches!(replica.stage, Stage::Saving(n) | Stage::Streaming(n) if n == making.number)
            && !replica.client.is_closing()
    };
    let any = state.replicas.iter().any(|replica| waits(replica) || replica.stage == Stage::Waiting);
    drop(state);
    if !any && (making.diskless || engine.config.load().save.0.is_empty()) && engine.saves.stop() {
        match making.diskless {
            true => notice!("Diskless rdb transfer, last replica dropped, killing fork child."),
            false => notice!("No replica waits for the RDB that is being written: stopping it."),
        }
    }
}

/// The thread of one making.
fn run(engine: &Engine, config: &Config, making: Making) {
    // Where something else began first they go on waiting.
    let Some(ready) = begin(engine, config, making) else { return end_making(engine) };
    match ready.snapshot {
        Some(snapshot) if !making.diskless => through_file(engine, config, making, &ready.head, snapshot),
        snapshot => {
            let sent = send(engine, config, making, &ready.head, snapshot);
            match &sent {
                Ok(()) => notice!("Background RDB transfer terminated with success"),
                Err(_) => warning!("Background RDB transfer error"),
            }
            let mut feeds = Vec::new();
            for replica in engine.replication.state().replicas.iter_mut() {
                if replica.stage == Stage::Streaming(making.number) {
                    settle(engine, replica, &sent);
                    feeds.extend(replica.about.is_second.then(|| replica.feed.clone()));
                }
            }
            engine.stand_still_when(|| feeds.iter().all(|feed| feed.is_gone()));
            end_making(engine);
        }
    }
}

/// What follows for a replica once its data set was sent, or could not be.
fn settle(engine: &Engine, replica: &mut Replica, sent: &Result<(), String>) {
    if let Err(reason) = sent {
        warning!("SYNC failed. {reason}: closing the connection of replica {}", replica.client.addr);
        return replica.client.close();
    }
    replica.heard_ms = engine.clock.now_ms();
    let diskless = matches!(replica.stage, Stage::Streaming(_));
    if replica.about.rdb_only {
        notice!("RDB transfer completed, rdb only replica ({}) should be disconnected asap", replica.client.addr);
        replica.stage = Stage::Online;
        replica.feed.close_behind();
    } else if diskless {
        notice!(
            "Streamed replica synchronization with replica {} succeeded (socket). Waiting for REPLCONF ACK from replica to enable streaming",
            replica.client.addr
        );
        replica.stage = Stage::Loading;
    } else {
        notice!("Synchronization with replica {} succeeded", replica.client.addr);
        replica.stage = Stage::Online;
        replica.feed.stream();
    }
    replica.client.wake();
}

/// What a making begins with: the snapshot, if there is to be one, and what stands before its keys.
struct Ready {
    snapshot: Option<Snapshot>,
    head: Head,
}

/// Begins the snapshot, at one point in time, and tells those who wait.
fn begin(engine: &Engine, config: &Config, making: Making) -> Option<Ready> {
    let _alone = engine.keyspace.gates().alone();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    let encoder = encoder(config, engine.moment(config), Audience::Replicas);
    let snapshot = match making.parts.keys {
        true => Some(Snapshot::begin(engine.keyspace.snapshot(), &mut hold, encoder)?),
        false => None,
    };
    if let (Some(snapshot), Some(running)) = (&snapshot, &mut *engine.saves.running.lock()) {
        running.keys = snapshot.keys();
        running.progress = snapshot.progress.clone();
        running.dirty = engine.dirty.load(Ordering::Relaxed);
    }
    let mut head = save::head(engine, Purpose::Snapshot);
    if !making.parts.functions {
        head.functions.clear();
    }
    // Who does not know the field does not look at it, so it need not be known who will read this.
    let open =
        engine.cluster.as_ref().map(|cluster| cluster.with(engine.clock.now_ms(), |machine| machine.open_slots()));
    head.aux.extend(open.filter(|open| !open.is_empty()).map(|open| (OPEN_SLOTS, open.into_bytes())));
    engine.log.cut(|| {
        let mut state = engine.replication.state();
        let offset = engine.replication.offset();
        let id = state.history.id.clone();
        let db = engine.replication.is_following().then(|| engine.replication.db.load(Ordering::Relaxed));
        let stage = match making.diskless {
            true => Stage::Streaming(making.number),
            false => Stage::Saving(making.number),
        };
        let wants = |replica: &Replica| {
            replica.stage == Stage::Waiting
                && replica.about.parts == making.parts
                && (replica.about.eof || !making.diskless)
        };
        for replica in state.replicas.iter_mut().filter(|replica| wants(replica)) {
            start(replica, &id, offset, db, stage);
        }
    });
    Some(Ready { snapshot, head })
}

/// Sends to several replicas at once, as fast as the slowest takes it.
struct Several<'e> {
    engine: &'e Engine,
    to: Vec<(Arc<Shared>, Arc<Feed>)>,
    /// Whose end is the end of this, if anything's.
    progress: Option<Progress>,
}

impl Several<'_> {
    /// Whether what is being sent was told to stop.
    fn is_stopped(&self) -> bool {
        self.progress.as_ref().is_some_and(Progress::is_stopped)
    }

    /// Waits until one of them has room, or has taken nothing for too long; returns whether it goes on.
    fn wait_for(&self, client: &Shared, feed: &Feed) -> bool {
        let (mut left, mut since) = (usize::MAX, Instant::now());
        while !feed.wait_for_room(ON_THE_WAY_BYTES, LOOK) {
            if feed.is_gone() {
                return false;
            }
            if self.is_stopped() {
                return true;
            }
            let waiting = feed.waiting();
            if waiting < left {
                (left, since) = (waiting, Instant::now());
            }
            // As it is configured by now.
            if since.elapsed() > Duration::from_secs(self.engine.config.load().repl_timeout.into()) {
                warning!("Disconnecting timedout replica (full sync): {}", client.addr);
                client.close();
                return false;
            }
        }
        true
    }
}

impl Write for Several<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        for (client, feed) in &self.to {
            feed.push(piece.clone());
            client.wake();
        }
        let mut to = std::mem::take(&mut self.to);
        to.retain(|(client, feed)| self.wait_for(client, feed));
        self.to = to;
        if self.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        if self.to.is_empty() {
            if self.progress.is_some() {
                warning!("Diskless rdb transfer, last replica dropped, killing fork child.");
            }
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends a data set as it is made. The snapshot is over when this returns.
fn send(
    engine: &Engine,
    config: &Config,
    making: Making,
    head: &Head,
    snapshot: Option<Snapshot>,
) -> Result<(), String> {
    let progress = engine.saves.running.lock().as_ref().map(|running| running.progress.clone());
    let to = engine.replication.state().replicas.of_stage(Stage::Streaming(making.number));
    let mut to = Several { engine, to, progress };
    let mark: [u8; MARK_LENGTH] = random::run_id();
    // What cannot be written is told by the walk, which must be made in any case.
    let _ = to.write_all(&[b"$EOF:", &mark[..], b"\r\n"].concat());
    let manner = Manner::of(config);
    let written = match snapshot {
        None => write_without_keys(head, manner, &mut to).map_err(Failure::Io),
        Some(snapshot) => {
            let mut hold = engine.keyspace.hold_none();
            write(snapshot, engine.keyspace.snapshot(), &mut hold, head, manner, &mut to)
        }
    };
    let written = written.map_err(|failure| failure.to_string());
    written.and_then(|()| to.write_all(&mark).map_err(|error| error.to_string()))?;
    notice!("Diskless rdb transfer, done reading from pipe, {} replicas still up.", to.to.len());
    Ok(())
}

/// Writes a data set to the file that every save writes, and sends that to each who waits for it, as fast as that one takes it.
/// The making is over when the file is complete: what is saved or made thereafter does not meet those who are sent it.
fn through_file(engine: &Engine, config: &Config, making: Making, head: &Head, snapshot: Snapshot) {
    let mut opened = Err("the data set could not be saved".to_owned());
    save::save_snapshot(engine, config, head, snapshot, |saved| {
        if saved.is_ok() {
            let path = save::path(config);
            let found = disk::open(&path).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
            opened = found.map_err(|error| plain(&error));
            if config.rdb_del_sync_files && config.save.0.is_empty() && !config.appendonly {
                notice!("Removing the RDB file used to feed replicas in a persistence-less instance");
                disk::remove(&path);
            }
        }
        let mut state = engine.replication.state();
        // Nobody joins those who wait for the file from here on.
        for replica in state.replicas.iter_mut().filter(|replica| replica.stage == Stage::Saving(making.number)) {
            replica.stage = Stage::Sending(making.number);
        }
        state.making = None;
    });
    let to = engine.replication.state().replicas.of_stage(Stage::Sending(making.number));
    std::thread::scope(|scope| {
        for (client, feed) in to {
            let opened = &opened;
            scope.spawn(move || {
                crash::prepare_thread();
                let id = client.id;
                let sent = opened.as_ref().map_err(Clone::clone).and_then(|(file, length)| {
                    let to = Several { engine, to: vec![(client, feed)], progress: None };
                    send_file(file, *length, to).map_err(|error| plain(&error))
                });
                if let Some(replica) = engine.replication.state().replicas.find(id) {
                    settle(engine, replica, &sent);
                }
            });
        }
    });
}

fn send_file(file: &File, length: u64, mut to: Several<'_>) -> io::Result<()> {
    to.write_all(format!("${length}\r\n").as_bytes())?;
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    while at < length {
        let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        file.read_exact_at(&mut piece[..most], at)?;
        to.write_all(&piece[..most])?;
        at += most as u64;
    }
    Ok(())
}
