//! Sends the slots of a migration to their new node: a thread for each, with its socket.
//!
//! What must stay true: commands never wait for this thread, but for those that would write while the slots are handed
//! over; a snapshot that was begun is walked to its end, whatever becomes of the migration.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::migration::{Action, Event, State};
use crate::cluster::node::Name;
use crate::cluster::shared::Cluster;
use crate::cluster::slots::SlotSet;
use crate::command::cluster::migration::export::{self, Export, Tail};
use crate::command::cluster::migration::{happen, import};
use crate::command::engine::Engine;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::log::encode;
use crate::server::outbound::Outbound;
use crate::server::tls::Tls;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a word of the target is waited for before something else is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How long is waited where somebody else's snapshot is in the way, or keys of an earlier migration.
const AGAIN: Duration = Duration::from_millis(20);
/// For how long a target may say that it is not ready for these slots.
const NOT_YET_FOR: Duration = Duration::from_secs(30);
/// How often the target is asked whether it lives.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// The longest line that is read.
const LINE_BYTES: usize = 64 * 1024;

/// Begins to send the slots of the migration of this name.
pub fn start(engine: &Arc<Engine>, name: Name, tls: Arc<Tls>) {
    let shared = engine.clone();
    let thread = std::thread::Builder::new().name("export".into()).spawn(move || {
        crash::prepare_thread();
        run(&shared, name, &tls);
    });
    if let (Err(error), Some(cluster)) = (thread, &engine.cluster) {
        happen(engine, cluster, &name, Event::Broken(error.to_string()));
    }
}

fn run(engine: &Arc<Engine>, name: Name, tls: &Tls) {
    let Some(cluster) = engine.cluster.clone() else { return };
    let Some(slots) = cluster.migrations.look(&name, |one| one.slots.clone()) else { return };
    let mut sender =
        Sender { engine, cluster: &cluster, tls, name, slots, line: Vec::new(), stream: None, asked: Instant::now() };
    if let Err(why) = sender.migrate() {
        warning!("Slot migration {name} failed: {why}");
        sender.say(Event::Broken(why));
    }
    // Where the slots were granted nobody knows yet what becomes of them.
    while !sender.is_over() {
        std::thread::sleep(LOOK);
        sender.look_at_owner();
        sender.say(Event::Tick);
    }
    let told = cluster.migrations.look(&name, |one| (one.state.name(one.side), one.paused_ms));
    if let Some((state, paused_ms)) = told {
        notice!("Slot migration {name} ended: {state}, writes were held back for {paused_ms} ms");
    }
}

/// The end of a migration that nobody has to be told of.
fn over<T>() -> Result<T, String> {
    Err("The migration is over".into())
}

struct Sender<'e> {
    engine: &'e Arc<Engine>,
    cluster: &'e Cluster,
    tls: &'e Tls,
    name: Name,
    slots: SlotSet,
    stream: Option<Outbound>,
    /// What was read of a line that is not whole.
    line: Vec<u8>,
    /// When the target was asked last whether it lives.
    asked: Instant,
}

impl Sender<'_> {
    fn state(&self) -> State {
        self.cluster.migrations.look(&self.name, |one| one.state).unwrap_or(State::Failed)
    }

    fn is_over(&self) -> bool {
        self.state().is_over() || self.engine.is_refusing(crate::command::engine::Refusal::Ending)
    }

    fn say(&self, event: Event) -> Vec<Action> {
        happen(self.engine, self.cluster, &self.name, event)
    }

    fn look_at_owner(&self) {
        let view = self.cluster.view().load_full();
        let owner =
            self.cluster.migrations.look(&self.name, |one| import::owner(&view, &one.slots, one.source, one.target));
        if let Some(owner) = owner {
            self.say(Event::Owner(owner));
        }
    }

    /// # Errors
    /// Why the slots cannot be moved.
    fn migrate(&mut self) -> Result<(), String> {
        self.establish()?;
        self.say(Event::Established);
        let Export { snapshot, tail, reader: _reading } = self.begin()?;
        self.say(Event::SnapshotBegun);
        let limit = self.engine.config.load().client_output_buffer_limit.replica.hard_bytes;
        let progress = snapshot.progress.clone();
        let mut hold = self.engine.keyspace.hold_none();
        let walked = snapshot.walk(self.engine.keyspace.snapshot(), &mut hold, |piece| {
            if self.is_over() {
                return over();
            }
            check(&tail, limit)?;
            self.look_at_owner();
            self.send(piece.bytes)
        });
        drop(hold);
        walked.map_err(|why| why.unwrap_or_else(|| "The snapshot was stopped".into()))?;
        let keys = progress.done();
        self.send_words(&["CLUSTER", "SYNCSLOTS", "SNAPSHOT-EOF"])?;
        let mut paused = false;
        loop {
            if self.is_over() {
                return Ok(());
            }
            self.look_at_owner();
            self.say(Event::Tick);
            check(&tail, limit)?;
            let may_pause = !self.engine.debug.keep_slots.load(Ordering::Relaxed);
            // Once nobody writes any more everything is on its way: what changes from then on is that the keys leave.
            if matches!(self.state(), State::Snapshot | State::Tail) {
                let bytes = tail.take();
                if !bytes.is_empty() {
                    self.send(&bytes)?;
                }
            }
            if self.state() == State::Tail {
                let held = self.say(Event::Lag { bytes: tail.len() as u64, may_pause });
                paused = held.is_empty() && self.state() == State::Paused;
            }
            if std::mem::take(&mut paused) {
                // Whoever had looked before writes were held back has ended when this has been alone.
                drop(self.engine.keyspace.gates().alone());
                let last = tail.take();
                check(&tail, limit)?;
                self.send(&last)?;
                self.send_words(&["CLUSTER", "SYNCSLOTS", "PAUSED"])?;
                notice!("Slot migration {}: all that {keys} keys became is on its way", self.name);
            }
            if self.asked.elapsed() >= ACK_EVERY {
                self.asked = Instant::now();
                self.send_words(&["CLUSTER", "SYNCSLOTS", "ACK"])?;
            }
            while let Some(line) = self.hear()? {
                self.heard(&line)?;
            }
        }
    }

    fn heard(&mut self, line: &[u8]) -> Result<(), String> {
        let event = match line {
            b"+SNAPSHOT-EOF" => Event::SnapshotEnded,
            b"+READY" => Event::Ready,
            b"+ACK" => Event::Heard,
            _ => return Err(String::from_utf8_lossy(line).trim_start_matches('-').to_owned()),
        };
        if self.say(event).contains(&Action::Grant) {
            self.send_words(&["CLUSTER", "SYNCSLOTS", "FAILOVER-GRANTED"])?;
        }
        Ok(())
    }

    /// Connects, and has the target agree.
    fn establish(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let view = self.cluster.view().load_full();
            let ends = self.cluster.migrations.look(&self.name, |one| (one.source, one.target));
            let Some((source, target)) = ends else { return over() };
            let place = view.place_of(&target).ok_or("Unknown node name")?;
            let endpoint = view.endpoint(place);
            let config = self.engine.config.load_full();
            self.connect(&endpoint.address.ip, endpoint.address.port(config.tls_cluster))?;
            if let Some(password) = &config.masterauth {
                let mut words = vec![b"AUTH".to_vec()];
                words.extend(config.masteruser.clone());
                words.push(password.clone());
                self.send(&encoded(&words))?;
                self.await_ok()?;
            }
            let mut words: Vec<Vec<u8>> = ["CLUSTER", "SYNCSLOTS", "ESTABLISH", "SOURCE"].map(Into::into).into();
            words.extend([source.0.to_vec(), b"NAME".to_vec(), self.name.0.to_vec(), b"SLOTSRANGE".to_vec()]);
            words.extend(self.slots.ranges().flat_map(|(a, b)| [a, b]).map(|slot| slot.to_string().into_bytes()));
            self.send(&encoded(&words))?;
            match self.await_ok() {
                Err(why) if why == import::NOT_YET && began.elapsed() < NOT_YET_FOR => std::thread::sleep(AGAIN),
                other => return other,
            }
        }
    }

    fn connect(&mut self, host: &str, port: u16) -> Result<(), String> {
        let failed = |error: io::Error| format!("Unable to connect to target node: {error}");
        let addr = (host, port).to_socket_addrs().map_err(failed)?.next();
        let addr = addr.ok_or("Unable to connect to target node: no address")?;
        let stream = TcpStream::connect_timeout(&addr, CONNECT).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(LOOK)).map_err(failed)?;
        let patience = Duration::from_secs(u64::from(self.engine.config.load().repl_timeout).max(1));
        stream.set_write_timeout(Some(patience)).map_err(failed)?;
        let tls = self.engine.config.load().tls_cluster.then_some(self.tls);
        self.line.clear();
        self.stream = Some(Outbound::begin(stream, host, tls, CONNECT).map_err(failed)?);
        Ok(())
    }

    /// Waits for its turn and begins the snapshot.
    fn begin(&mut self) -> Result<Export, String> {
        loop {
            if self.is_over() {
                return over();
            }
            let engine = self.engine;
            if !engine.saves.is_running()
                && !engine.aof.is_rewriting()
                && let Some(export) = export::begin(engine, &self.slots)
            {
                return Ok(export);
            }
            std::thread::sleep(AGAIN);
            self.look_at_owner();
            self.say(Event::Heard);
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stream = self.stream.as_mut().ok_or("Connection lost to target")?;
        stream.write_all(bytes).map_err(|_| "Connection lost to target".to_owned())
    }

    fn send_words(&mut self, words: &[&str]) -> Result<(), String> {
        self.send(&encoded(&words.iter().map(|word| word.as_bytes().to_vec()).collect()))
    }

    fn await_ok(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let patience = Duration::from_secs(u64::from(self.engine.config.load().repl_timeout).max(1));
        while began.elapsed() < patience {
            if self.is_over() {
                return over();
            }
            match self.hear()? {
                Some(line) if line.starts_with(b"+") => return Ok(()),
                Some(line) => return Err(String::from_utf8_lossy(&line).trim_start_matches('-').to_owned()),
                None => {}
            }
        }
        Err("Timed out after too long with no interaction with the target".into())
    }

    /// The next line, if it is there.
    fn hear(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(end) = self.line.windows(2).position(|two| two == b"\r\n") {
                let rest = self.line.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.line, rest);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.line.len() > LINE_BYTES {
                return Err("The target talks too much".into());
            }
            let stream = self.stream.as_mut().ok_or("Connection lost to target")?;
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk) {
                Ok(0) => return Err("Connection lost to target".into()),
                Ok(n) => self.line.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(_) => return Err("Connection lost to target".into()),
            }
        }
    }
}

fn encoded(words: &Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, words);
    bytes
}

/// Whether the tail can still be sent.
fn check(tail: &Tail, limit: u64) -> Result<(), String> {
    if tail.is_flushed() {
        return Err("Data was flushed".into());
    }
    if limit != 0 && tail.len() as u64 > limit {
        return Err("More was changed than client-output-buffer-limit lets wait for a replica".into());
    }
    Ok(())
}
