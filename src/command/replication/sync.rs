//! Full synchronisations: data sets for replicas, made of a snapshot, sent as they are made or from a file.
//!
//! Replicas that wait are collected for a while, and one snapshot serves all of them. At the point in time at which it
//! begins each is told the offset, and the stream is kept for it from there. What must stay true: a replica is sent the
//! stream from exactly the offset of its snapshot on; whoever makes data sets waits for replicas, and nobody else does.

use std::io::{self, Read, Write};
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
use crate::keyspace::snapshot::Snapshot;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::disk;
use crate::persist::rdb::save::{Audience, Failure, Head, Manner, encoder, write, write_without_keys};
use crate::persist::saves::Running;
use crate::replication::replicas::{Replica, Stage};
use crate::replication::transfer::MARK_LENGTH;
use crate::replication::{self, State};
use crate::stdx::random;

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
        (Stage::Saving(number), Some(at)) if other.about.parts == new.about.parts => Some((number, at)),
        _ => None,
    });
    if let (Some((number, at)), Some(replica)) = (other, replicas.find(id))
        && backlog.as_ref().is_some_and(|backlog| backlog.covers(at))
    {
        notice!("Waiting for end of BGSAVE for SYNC");
        start(replica, &history.id, at, Stage::Saving(number));
        return;
    }
    drop(state);
    look_at_waiting(engine);
}

/// Tells a replica which part of the stream its data set will be a result of, and keeps the rest for it.
fn start(replica: &mut Replica, id: &str, offset: u64, stage: Stage) {
    replica.stage = stage;
    if !replica.old {
        replica.feed.push(Bytes::from(format!("+FULLRESYNC {id} {offset}\r\n")));
    }
    replica.feed.keep_from(offset);
    replica.client.wake();
}

/// Begins to make a data set if replicas wait for one, and have waited long enough.
pub fn look_at_waiting(engine: &Engine) {
    let config = engine.config.load_full();
    let mut state = engine.replication.state();
    let waiting = |replica: &&Replica| replica.stage == Stage::Waiting && !replica.client.is_closing();
    let Some(parts) = state.replicas.iter().find(waiting).map(|replica| replica.about.parts) else { return };
    let busy = engine.saves.is_running() || engine.aof.is_rewriting() || engine.keyspace.snapshot().is_active();
    let loading = engine.saves.loading.active.load(Ordering::Relaxed);
    if busy || loading {
        return;
    }
    let now_ms = engine.clock.now_ms();
    let same = |replica: &&Replica| waiting(replica) && replica.about.parts == parts;
    let count = state.replicas.iter().filter(same).count();
    // What is not all of the data set is no file that we could keep.
    let partial = parts != Parts::default();
    let diskless = (config.repl_diskless_sync || partial) && state.replicas.iter().filter(same).all(|r| r.about.eof);
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
        engine.replication.state().making = None;
        return;
    }
    // From here on it is told as one that goes on.
    *running = Some(Running {
        started_ms: now_ms,
        keys: 0,
        dirty: engine.dirty.load(Ordering::Relaxed),
        progress: crate::keyspace::snapshot::Progress::default(),
    });
    drop(running);
    let shared = engine.arc();
    let work = move || {
        crash::prepare_thread();
        run(&shared, &config, making);
        shared.replication.state().making = None;
        *shared.saves.running.lock() = None;
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
        engine.replication.state().making = None;
        *engine.saves.running.lock() = None;
    }
}

/// Stops the making of a data set that nobody waits for any more; a file that save points ask for is made all the same.
pub fn stop_useless(engine: &Engine) {
    let state = engine.replication.state();
    let Some(making) = state.making else { return };
    let waits = |replica: &Replica| {
        matches!(replica.stage, Stage::Saving(n) | Stage::Streaming(n) | Stage::Sending(n) if n == making.number)
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
    let begun = match begin(engine, config, making) {
        Some(begun) => begun,
        // Something else began first: they go on waiting.
        None => return,
    };
    let done =
        if making.diskless { send(engine, config, making, begun) } else { through_file(engine, config, making, begun) };
    let number = making.number;
    let mine =
        |stage: Stage| matches!(stage, Stage::Saving(n) | Stage::Streaming(n) | Stage::Sending(n) if n == number);
    let now_ms = engine.clock.now_ms();
    let mut state = engine.replication.state();
    for replica in state.replicas.iter_mut().filter(|replica| mine(replica.stage)) {
        if let Err(reason) = &done {
            warning!("SYNC failed. {reason}: closing the connection of replica {}", replica.client.addr);
            replica.client.close();
            continue;
        }
        replica.heard_ms = now_ms;
        let kind = if making.diskless { "socket" } else { "disk" };
        if replica.about.rdb_only {
            notice!("RDB transfer completed, rdb only replica ({}) should be disconnected asap", replica.client.addr);
            replica.stage = Stage::Online;
            replica.feed.close_behind();
        } else if making.diskless {
            notice!(
                "Streamed replica synchronization with replica {} succeeded ({kind}). Waiting for REPLCONF ACK from replica to enable streaming",
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
}

/// What a making begins with: the snapshot, if there is to be one, and what stands before its keys.
struct Begun {
    snapshot: Option<Snapshot>,
    head: Head,
}

/// Begins the snapshot, at one point in time, and tells those who wait.
fn begin(engine: &Engine, config: &Config, making: Making) -> Option<Begun> {
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
    engine.log.cut(|| {
        let mut state = engine.replication.state();
        let offset = engine.replication.offset();
        let id = state.history.id.clone();
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
            start(replica, &id, offset, stage);
        }
    });
    Some(Begun { snapshot, head })
}

/// Sends to several replicas at once, as fast as the slowest takes it.
struct Several<'e> {
    engine: &'e Engine,
    to: Vec<(Arc<Shared>, Arc<Feed>)>,
}

impl<'e> Several<'e> {
    /// Those of a making that are at this stage.
    fn of(engine: &'e Engine, stage: Stage) -> Several<'e> {
        let state = engine.replication.state();
        let to = state.replicas.iter().filter(|replica| replica.stage == stage);
        let to = to.map(|replica| (replica.client.clone(), replica.feed.clone())).collect();
        Several { engine, to }
    }

    /// Whether the one in the background was told to stop.
    fn is_stopped(&self) -> bool {
        self.engine.saves.running.lock().as_ref().is_some_and(|running| running.progress.is_stopped())
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
            warning!("Diskless rdb transfer, last replica dropped, killing fork child.");
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a data set into `to`. The snapshot is over when this returns.
fn write_to(engine: &Engine, config: &Config, begun: Begun, to: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let manner = Manner::of(config);
    match begun.snapshot {
        None => Ok(write_without_keys(&begun.head, manner, to)?),
        Some(snapshot) => {
            let mut hold = engine.keyspace.hold_none();
            write(snapshot, engine.keyspace.snapshot(), &mut hold, &begun.head, manner, to)
        }
    }
}

/// Sends a data set as it is made.
fn send(engine: &Engine, config: &Config, making: Making, begun: Begun) -> Result<(), String> {
    let mut to = Several::of(engine, Stage::Streaming(making.number));
    let mark: [u8; MARK_LENGTH] = random::run_id();
    // What cannot be written is told by the walk, which must be made in any case.
    let _ = to.write_all(&[b"$EOF:", &mark[..], b"\r\n"].concat());
    let written = write_to(engine, config, begun, &mut to).map_err(|failure| failure.to_string());
    written.and_then(|()| to.write_all(&mark).map_err(|error| error.to_string()))?;
    notice!("Diskless rdb transfer, done reading from pipe, {} replicas still up.", to.to.len());
    Ok(())
}

/// Writes a data set to the file that every save writes, and sends that.
fn through_file(engine: &Engine, config: &Config, making: Making, begun: Begun) -> Result<(), String> {
    let started = Instant::now();
    let say = |failure: Failure| failure.to_string();
    let mut file = match save::create_for_sync(config) {
        Ok(file) => file,
        Err(error) => {
            begun.snapshot.iter().for_each(|snapshot| snapshot.progress.stop());
            let _ = write_to(engine, config, begun, &mut io::sink());
            return Err(error.to_string());
        }
    };
    write_to(engine, config, begun, &mut file).map_err(say)?;
    let path = save::path(config);
    file.commit(&path).map_err(|error| error.to_string())?;
    let took = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    engine.saves.took_s.store(took, Ordering::Relaxed);
    let dirty = engine.saves.running.lock().as_ref().map_or(0, |running| running.dirty);
    let rest = |now: u64| Some(now.saturating_sub(dirty));
    let _ = engine.dirty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    engine.saves.succeeded(engine.clock.now_ms());
    notice!("Background saving terminated with success");
    let sent = send_file(engine, making, &path);
    if config.rdb_del_sync_files && config.save.0.is_empty() && !config.appendonly {
        notice!("Removing the RDB file used to feed replicas in a persistence-less instance");
        disk::remove(&path);
    }
    sent
}

fn send_file(engine: &Engine, making: Making, path: &std::path::Path) -> Result<(), String> {
    // Nobody joins those who wait for the file from here on.
    for replica in engine.replication.state().replicas.iter_mut() {
        if replica.stage == Stage::Saving(making.number) {
            replica.stage = Stage::Sending(making.number);
        }
    }
    let mut to = Several::of(engine, Stage::Sending(making.number));
    if to.to.is_empty() {
        return Ok(());
    }
    let mut read = || -> io::Result<()> {
        let (mut file, length) = disk::open(path)?.ok_or(io::ErrorKind::NotFound)?;
        to.write_all(format!("${length}\r\n").as_bytes())?;
        let (mut piece, mut left) = (vec![0; PIECE_BYTES], length);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            file.read_exact(&mut piece[..most])?;
            to.write_all(&piece[..most])?;
            left -= most as u64;
        }
        Ok(())
    };
    read().map_err(|error| error.to_string())
}
