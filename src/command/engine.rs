//! What is there once per server: the keyspace, the configuration, the clients, what is measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::acl::log::AclLog;
use crate::acl::users::Users;
use crate::client::registry::Registry;
use crate::client::shared::Shared;
use crate::client::tracking::Tracking;
use crate::client::weights::Weights;
use crate::cluster::machine::Settings;
use crate::cluster::shared::Cluster;
use crate::command::acl;
use crate::command::client::{eviction, tracking};
use crate::command::migrate::peer::{Answers, Peer};
use crate::command::migrate::transit::Transit;
use crate::command::pubsub::events;
use crate::command::replication::farewell::Farewell;
use crate::command::table::CommandTable;
use crate::config::choice::MaxmemoryPolicy;
use crate::config::load::LoadError;
use crate::config::table::Config;
use crate::keyspace::change::{Change, Effects, Interest, Only, Removal, Words, removal};
use crate::keyspace::moment::{AccessPolicy, Moment};
use crate::keyspace::space::Keyspace;
use crate::observe::latency::Latency;
use crate::observe::process;
use crate::observe::slowlog::SlowLog;
use crate::observe::stats::{Counter, Stats};
use crate::persist::aof::Aof;
use crate::persist::log::WriteLog;
use crate::persist::rdb::payload::Checksum;
use crate::persist::saves::Saves;
use crate::pubsub::PubSub;
use crate::replication::Replication;
use crate::replication::history::random_id;
use crate::script::Scripts;
use crate::stdx::clock::Clock;
use crate::stdx::random::Random;

/// Which commands CLIENT PAUSE holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseMode {
    /// Those that may write.
    Write,
    /// All.
    All,
}

/// For so long those wait at a time whose writes are held back while another server takes over.
const HAND_OVER_MS: u64 = 1000;

/// CLIENT PAUSE.
#[derive(Debug, Default)]
pub struct Pause {
    /// Unix milliseconds of its end; 0 while there is none.
    until_ms: AtomicU64,
    all: AtomicBool,
    /// Writes are held back because another server is to take over.
    failover: AtomicBool,
    /// Writes are held back because the server is to end.
    end: AtomicBool,
    /// Connections that wait for its end.
    waiting: Mutex<BTreeMap<u64, Arc<Shared>>>,
}

impl Pause {
    /// Holds commands back until `until_ms`. A running pause is never shortened, nor made milder.
    pub fn start(&self, until_ms: u64, mode: PauseMode, now_ms: u64) {
        let running = self.until_ms.load(Ordering::Acquire);
        let goes_on = running > now_ms;
        self.all.store(mode == PauseMode::All || goes_on && self.all.load(Ordering::Acquire), Ordering::Release);
        self.until_ms.store(if goes_on { running.max(until_ms) } else { until_ms }, Ordering::Release);
        // Those that wait look again: the new end may be a later one.
        self.wake();
    }

    /// Ends it.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
        self.wake();
    }

    /// Holds writes back for as long as it takes to hand over to another server, or no longer.
    pub fn hold_writes(&self, hold: bool) {
        self.failover.store(hold, Ordering::Release);
        self.wake();
    }

    /// Holds writes back until the server has ended, or no longer.
    pub fn end_writes(&self, hold: bool) {
        self.end.store(hold, Ordering::Release);
        self.wake();
    }

    /// Whether writes are held back because another server is to take over.
    pub fn is_handing_over(&self) -> bool {
        self.failover.load(Ordering::Relaxed)
    }

    /// Whether writes are held back because the server is to end.
    pub fn is_ending(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Has those that wait look again.
    pub fn wake(&self) {
        // They are woken without the lock: whoever has to wait on comes back.
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.values().for_each(|client| client.wake());
    }

    /// What is held back at `now_ms`, and until when.
    #[inline]
    pub fn active(&self, now_ms: u64) -> Option<(PauseMode, u64)> {
        let until = self.until_ms.load(Ordering::Relaxed);
        if until <= now_ms {
            // Whoever waits for so long looks again.
            return (self.is_handing_over() || self.is_ending()).then_some((PauseMode::Write, now_ms + HAND_OVER_MS));
        }
        let mode = if self.all.load(Ordering::Acquire) { PauseMode::All } else { PauseMode::Write };
        Some((mode, until))
    }

    /// Wakes `client` when the pause ends early.
    pub fn wait(&self, client: Arc<Shared>) {
        self.waiting.lock().insert(client.id, client);
    }

    /// Forgets a client that waits no longer: it ended, or the pause was over by itself.
    pub fn forget(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// Whether this client waits.
    pub fn holds(&self, id: u64, now_ms: u64) -> bool {
        self.active(now_ms).is_some() && self.waiting.lock().contains_key(&id)
    }

    /// How many clients wait.
    pub fn waiting(&self, now_ms: u64) -> usize {
        if self.active(now_ms).is_some() { self.waiting.lock().len() } else { 0 }
    }
}

/// How SHUTDOWN was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownRequest {
    /// Save the data set even if no save points are configured.
    pub save: bool,
    /// Do not save it even if they are.
    pub nosave: bool,
    /// Do not wait for replicas.
    pub now: bool,
    /// Go even if saving fails.
    pub force: bool,
    /// Have a replica take over before, in a cluster.
    pub failover: bool,
}

/// What a command asks of the server around it: whatever concerns sockets, files and the process.
pub trait Host: Send + Sync {
    /// Ends the server; returns at once.
    ///
    /// # Errors
    /// The error reply's text where the server stays.
    fn shutdown(&self, request: ShutdownRequest) -> Result<(), String>;

    /// Takes back a shutdown that waits.
    ///
    /// # Errors
    /// The error reply's text where none waits.
    fn abort_shutdown(&self) -> Result<(), String>;
    /// Whether a signal asked for a shutdown that has yet to begin; ABORT takes it back.
    fn scheduled(&self) -> &AtomicBool;

    /// Makes what runs follow a changed configuration: listeners, TLS, the log, the process. `changed` are the directives
    /// that were set, those included that say what they said before, where that may mean something else by now.
    ///
    /// # Errors
    /// The name of the directive that could not be applied, and why; nothing has changed then.
    fn apply(&self, new: &Config, old: &Config, changed: &[&'static str]) -> Result<(), (&'static str, String)>;

    /// Writes the configuration back to its file: what changed, or `all` directives. `users` are the lines
    /// of all users, which stand there unless a file of their own holds them.
    ///
    /// # Errors
    /// The error reply's text.
    fn rewrite_config(&self, config: &Config, users: &[Vec<u8>], all: bool) -> Result<(), String>;

    /// The configuration file's path, if there is one.
    fn config_file(&self) -> Option<String>;

    /// The program's path.
    fn executable(&self) -> String;

    /// The port that is listened on, 0 for none.
    fn port(&self) -> u16;

    /// Logs what the process would leave behind in a crash, and ends it by a signal.
    fn crash(&self);

    /// Stops the process until somebody has it go on, where it is the server's own.
    fn stand_still(&self) {}

    /// Sends requests, `count` of them, to another server, and waits for what it answers: as long as `peer` allows.
    fn ask(&self, peer: &Peer, requests: &[u8], count: usize) -> Answers;

    /// Sends the slots of a migration that begins now to their new node, on a thread of its own.
    fn export_slots(&self, engine: &Arc<Engine>, name: [u8; 40]) {
        let _ = (engine, name);
    }

    /// How many connections to other servers are kept for the next such request.
    fn kept_peers(&self) -> usize;

    /// Closes those that were not used for a while.
    fn tidy_peers(&self) {}

    /// Lets the calling thread's other clients have their say while a script keeps it: they are told that the server is
    /// busy, and may end the script. Called again and again; mostly it does nothing.
    fn serve_while_busy(&self) {}

    /// Whether the process is the server's own, and may be copied (SCRIPT DEBUG YES).
    fn may_fork(&self) -> bool {
        false
    }
}

/// Clients that follow MONITOR.
#[derive(Debug, Default)]
pub struct Monitors {
    any: AtomicBool,
    clients: RwLock<BTreeMap<u64, Arc<Shared>>>,
}

impl Monitors {
    /// Whether there is one.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Adds a client.
    pub fn add(&self, client: Arc<Shared>) {
        let mut clients = self.clients.write();
        clients.insert(client.id, client);
        self.any.store(true, Ordering::Release);
    }

    /// Removes a client, if it is one.
    pub fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.remove(&id);
        self.any.store(!clients.is_empty(), Ordering::Release);
    }

    /// Sends a line to each.
    pub fn send(&self, line: &bytes::Bytes) {
        self.clients.read().values().for_each(|client| {
            client.push(line.clone());
        });
    }
}

/// Who a server is.
#[derive(Debug)]
pub struct Identity {
    /// 40 random hexadecimal digits, new with each start.
    pub run_id: String,
    /// Unix milliseconds of the start.
    pub started_ms: u64,
}

/// Switches that DEBUG throws.
#[derive(Debug)]
pub struct DebugSwitches {
    /// Whether due keys are removed by the timer.
    pub active_expire: AtomicBool,
    /// Whether CONFIG REWRITE writes every directive.
    pub rewrite_all: AtomicBool,
    /// Whether timers do their periodic work.
    pub cron: AtomicBool,
    /// Whether scripts may call the commands that are denied to them.
    pub scripts_may_all: AtomicBool,
    /// Whether payloads are restored whose checksum is wrong.
    pub ignore_checksums: AtomicBool,
    /// Whether slots that move are not handed over, though all is ready.
    pub keep_slots: AtomicBool,
    /// Whether slots that were granted are not taken over.
    pub leave_slots: AtomicBool,
    /// Whether the process stops once a data set has gone to replicas, and before a replica asks for the stream beside one.
    pub stops: AtomicBool,
}

impl DebugSwitches {
    /// What is asked of the checksums of payloads.
    pub fn checksums(&self) -> Checksum {
        if self.ignore_checksums.load(Ordering::Relaxed) { Checksum::Ignored } else { Checksum::Required }
    }
}

/// How often who is to stop the process looks whether it is time.
const STOP_LOOK: Duration = Duration::from_millis(1);

/// Why commands may be refused that are right in themselves. While there is no reason, that costs one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Data is being loaded.
    Loading = 1 << 0,
    /// The last save in the background failed.
    SaveFailed = 1 << 1,
    /// The data set was saved for the last time: what changes now would be lost.
    Ending = 1 << 2,
    /// The append only file cannot be written.
    LogFailed = 1 << 3,
    /// A primary is followed, and clients may not write.
    Following = 1 << 4,
    /// A primary is followed, and the link to it is down.
    CutOff = 1 << 5,
    /// Fewer replicas than `min-replicas-to-write` were heard of.
    FewReplicas = 1 << 6,
    /// Data is being loaded aside, to take the place of what is there.
    LoadingAside = 1 << 7,
}

/// Hears of a change while the key's shard is still held: it must be quick and must not touch keys.
pub type Observer = Box<dyn Fn(&Change) + Send + Sync>;

/// What is there once per server.
pub struct Engine {
    /// All databases.
    pub keyspace: Keyspace,
    /// The configuration; replaced as a whole.
    pub config: Arc<ArcSwap<Config>>,
    /// Held while CONFIG SET replaces the configuration.
    pub config_change: Mutex<()>,
    /// All connections.
    pub clients: Registry,
    /// What these take, where that is limited.
    pub weights: Weights,
    /// All commands.
    pub commands: CommandTable,
    /// Who may do what.
    pub users: Users,
    /// What was refused to whom.
    pub acl_log: AclLog,
    /// Scripts and functions.
    pub scripts: Scripts,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub stats: Stats,
    /// Commands that were slow.
    pub slowlog: SlowLog,
    /// Events that took long.
    pub latency: Latency,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// Keys on their way to another server.
    pub transit: Transit,
    /// Clients that follow MONITOR.
    pub monitors: Monitors,
    /// Clients that follow channels.
    pub pubsub: PubSub<Shared>,
    /// Clients that are told of changes to what they have read.
    pub tracking: Tracking,
    /// Every change, in order.
    pub log: WriteLog,
    /// What the server around it does.
    pub host: Box<dyn Host>,
    /// Who the server is.
    pub identity: Identity,
    /// Switches that DEBUG throws.
    pub debug: DebugSwitches,
    /// Changes since the last save.
    pub dirty: AtomicU64,
    /// Saves and loads.
    pub saves: Saves,
    /// The append only file.
    pub aof: Aof,
    /// Replicas, and the primary.
    pub replication: Arc<Replication>,
    /// The end that waits for replicas.
    pub farewell: Farewell,
    /// The cluster, where the server is a node of one.
    pub cluster: Option<Arc<Cluster>>,
    refusals: AtomicU8,
    myself: OnceLock<Weak<Engine>>,
    observers: RwLock<Vec<Observer>>,
    interest: AtomicU8,
    /// The most memory that was in use, as the timer saw it.
    pub memory_peak: AtomicU64,
    /// Memory in use when the server was ready.
    pub memory_startup: AtomicU64,
    /// Bytes of memory that the machine, or our control group, has; 0 where the system does not tell.
    pub machine_memory: u64,
    /// Since when eviction cannot keep memory below its limit, in monotonic microseconds; 0 while it can.
    pub exceeded_since_us: AtomicU64,
}

impl Engine {
    /// A server's engine.
    ///
    /// # Errors
    /// Redis' text for a bad `rename-command`, or for users that cannot be used.
    pub fn shared(
        config: Config,
        clock: Clock,
        host: Box<dyn Host>,
        keyspace: Keyspace,
    ) -> Result<Arc<Engine>, String> {
        let engine = Arc::new(Engine::new(config, clock, host, keyspace)?);
        eviction::follow(&engine, &engine.config.load());
        // It was made a moment ago and nobody else has it yet.
        let _ = engine.myself.set(Arc::downgrade(&engine));
        Ok(engine)
    }

    /// One more owner, for a thread that works beside the commands.
    pub fn arc(&self) -> Arc<Engine> {
        let shared = self.myself.get().and_then(Weak::upgrade);
        shared.expect("an engine is shared from its beginning, and whoever calls this has it from an owner")
    }

    fn new(config: Config, clock: Clock, host: Box<dyn Host>, keyspace: Keyspace) -> Result<Engine, String> {
        let commands = CommandTable::new(&renamed_commands(&config))?;
        let users = acl::configured_users(&commands, &config)?;
        let workers = usize::try_from(config.io_threads).unwrap_or(1);
        let interest = events_interest(&config);
        let cluster = config.cluster_enabled.then(|| {
            let settings = Settings::of(&config, config.port);
            Arc::new(Cluster::new(settings, Random::new(), clock.now_ms()))
        });
        Ok(Engine {
            cluster,
            keyspace,
            stats: Stats::new(workers, commands.count()),
            commands,
            users,
            acl_log: AclLog::default(),
            scripts: Scripts::default(),
            config: Arc::new(ArcSwap::from_pointee(config)),
            config_change: Mutex::new(()),
            clients: Registry::default(),
            weights: Weights::default(),
            slowlog: SlowLog::new(),
            latency: Latency::new(),
            pause: Pause::default(),
            transit: Transit::default(),
            monitors: Monitors::default(),
            pubsub: PubSub::default(),
            tracking: Tracking::default(),
            log: WriteLog::default(),
            host,
            identity: Identity { run_id: random_id(), started_ms: clock.now_ms() },
            debug: DebugSwitches {
                active_expire: AtomicBool::new(true),
                rewrite_all: AtomicBool::new(false),
                cron: AtomicBool::new(true),
                scripts_may_all: AtomicBool::new(false),
                ignore_checksums: AtomicBool::new(false),
                keep_slots: AtomicBool::new(false),
                leave_slots: AtomicBool::new(false),
                stops: AtomicBool::new(false),
            },
            dirty: AtomicU64::new(0),
            saves: Saves::new(clock.now_ms()),
            aof: Aof::default(),
            replication: Arc::default(),
            farewell: Farewell::default(),
            refusals: AtomicU8::new(0),
            myself: OnceLock::new(),
            clock,
            observers: RwLock::default(),
            interest: AtomicU8::new(interest.0),
            memory_peak: AtomicU64::new(0),
            memory_startup: AtomicU64::new(0),
            machine_memory: process::usable_memory_bytes(),
            exceeded_since_us: AtomicU64::new(0),
        })
    }

    /// Has the process stand still as soon as `is_time`, where a client has said that it is to stop here.
    pub fn stand_still_when(&self, is_time: impl Fn() -> bool) {
        if self.debug.stops.load(Ordering::Relaxed) {
            while !is_time() {
                std::thread::sleep(STOP_LOOK);
            }
            self.host.stand_still();
        }
    }

    /// The moment that a batch runs at.
    #[inline]
    pub fn moment(&self, config: &Config) -> Moment {
        Moment { now_ms: self.clock.now_ms(), policy: access_policy(config) }
    }

    /// `maxmemory` in bytes; 0 is no limit.
    #[inline]
    pub fn memory_limit(&self, config: &Config) -> u64 {
        config.maxmemory.limit(self.machine_memory)
    }

    /// Bytes that do not count towards `maxmemory`, because no key that goes would make them less: what replicas have yet
    /// to be sent, as far as it is more than the backlog, and what has yet to be written to the log's file.
    pub fn uncounted_memory(&self) -> u64 {
        self.own_of_replicas() + self.replication.beyond_bytes() + self.aof.appender.unwritten()
    }

    /// Bytes of what replicas have yet to be sent, and of their connections.
    pub fn replicas_memory(&self) -> u64 {
        match self.own_of_replicas() {
            // Nobody has yet to be sent what the last block of the backlog is too long by.
            0 => 0,
            own => own + self.replication.beyond_bytes(),
        }
    }

    fn own_of_replicas(&self) -> u64 {
        let state = self.replication.state();
        let own: usize = state.replicas.iter().map(|replica| replica.client.memory() + replica.feed.waiting()).sum();
        own as u64
    }

    /// Refuses commands for this reason from now on, or no longer.
    pub fn refuse(&self, reason: Refusal, refuse: bool) {
        if refuse {
            self.refusals.fetch_or(reason as u8, Ordering::Release);
        } else {
            self.refusals.fetch_and(!(reason as u8), Ordering::Release);
        }
    }

    /// Whether commands are refused for any reason.
    #[inline]
    pub fn is_refusing_any(&self) -> bool {
        self.refusals.load(Ordering::Acquire) != 0
    }

    /// Whether commands are refused for this reason.
    pub fn is_refusing(&self, reason: Refusal) -> bool {
        self.refusals.load(Ordering::Acquire) & reason as u8 != 0
    }

    /// Who wants to hear of changes.
    #[inline]
    pub fn interest(&self) -> Interest {
        let log = if self.log.is_active() { Interest::LOG.0 } else { 0 };
        Interest(self.interest.load(Ordering::Relaxed) | log)
    }

    /// Passes on what one request changed in database `db`: the only way from a handler to whoever
    /// listens. Called while the shards are still held.
    pub fn pass_on(&self, db: usize, effects: &mut Effects, request: &dyn Words) {
        if effects.replaying {
            (effects.dirty, effects.canonical) = (0, None);
            effects.removed.clear();
            effects.expired_fields.clear();
            effects.messages.clear();
            return effects.changes.clear();
        }
        let dirty = std::mem::take(&mut effects.dirty);
        self.dirty.fetch_add(dirty, Ordering::Relaxed);
        let keys = effects.removed.drain(..).map(|(db, key, why)| {
            let config = self.config.load();
            let lazy = match why {
                Removal::Expired => config.lazyfree_lazy_expire,
                Removal::Evicted => config.lazyfree_lazy_eviction,
            };
            (db, removal(key, lazy))
        });
        let fields = effects
            .expired_fields
            .drain(..)
            .map(|(db, key, names)| (db, [b"HDEL".to_vec(), key].into_iter().chain(names).collect()));
        let deletions = fields.chain(keys);
        // Inside of EXEC or a script it goes to the log when these end.
        match &mut effects.group {
            Some(group) => group.extend(deletions),
            None => deletions.for_each(|deletion| effects.logged = self.log.append(&[deletion])),
        }
        if self.log.is_active() {
            match (effects.canonical.take(), &mut effects.group) {
                (Some(commands), Some(group)) => group.extend(commands.into_iter().map(|command| (db, command))),
                (Some(commands), None) if commands.is_empty() => {}
                (Some(commands), None) => {
                    let commands: Vec<_> = commands.into_iter().map(|command| (db, command)).collect();
                    effects.logged = self.log.append(&commands);
                }
                (None, _) if dirty == 0 => {}
                (None, Some(group)) => group.push((db, request.to_effect())),
                (None, None) => effects.logged = self.log.append_one(db, request),
            }
        }
        self.pass_messages(effects);
        if !effects.changes.is_empty() {
            let mut changes = std::mem::take(&mut effects.changes);
            let classes = self.config.load().notify_keyspace_events;
            for change in changes.drain(..) {
                self.announce(&change);
                events::publish(self, effects, classes, &change);
                tracking::changed(self, effects, change);
            }
            // Its memory serves the next command.
            effects.changes = changes;
            if effects.group.is_none() {
                tracking::broadcast(self, effects);
            }
        }
    }

    /// Has what runs follow a changed configuration.
    pub fn follow(&self, new: &Config) {
        self.set_interest(Interest::EVENTS, events_interest(new) != Interest::NONE);
        if let Some(cluster) = &self.cluster {
            let settings = Settings::of(new, self.host.port());
            cluster.with(self.clock.now_ms(), |machine| machine.follow(settings));
        }
        eviction::follow(self, new);
    }

    /// Says whether somebody wants to hear of changes, and who.
    pub fn set_interest(&self, interest: Interest, on: bool) {
        if on {
            self.interest.fetch_or(interest.0, Ordering::Release);
        } else {
            self.interest.fetch_and(!interest.0, Ordering::Release);
        }
    }

    /// Ends what began when [`Effects::group`] was set: passes everything on that ran inside, as one.
    /// Called while the shards are still held.
    pub fn end_group(&self, effects: &mut Effects) {
        if let Some(group) = effects.group.take().filter(|group| !group.is_empty()) {
            effects.logged = match effects.only.is_empty() {
                true => self.log.append(&group),
                false => self.log.append_apart(&group, &effects.only),
            };
        }
        effects.only.clear();
        tracking::broadcast(self, effects);
    }

    /// Hands on what goes to replicas only, in its place among what it belongs to.
    #[inline]
    fn pass_messages(&self, effects: &mut Effects) {
        let Effects { messages, group, only, .. } = effects;
        for (db, message) in messages.drain(..) {
            match group {
                None => self.log.pass_in(db, &message),
                Some(group) => {
                    only.push((group.len()..group.len() + 1, Only::Replicas));
                    group.push((db, message));
                }
            }
        }
    }

    /// Sees to it that changes up to `offset` of the log are as safe as the configuration wants them before their
    /// replies leave; called with no shard held.
    pub fn commit(&self, offset: u64) {
        if self.aof.is_on() {
            self.aof.appender.commit(offset);
            if self.aof.appender.trouble().is_some() {
                self.refuse(Refusal::LogFailed, true);
            }
        }
    }

    /// Adds somebody who hears of every change.
    pub fn observe(&self, observer: Observer) {
        self.observers.write().push(observer);
        self.set_interest(Interest::OBSERVERS, true);
    }

    /// Tells everyone who listens to single changes.
    fn announce(&self, change: &Change) {
        self.observers.read().iter().for_each(|observer| observer(change));
    }

    /// Notes keys that were found expired.
    pub fn count_expired(&self, keys: u64) {
        self.stats.add(Counter::ExpiredKeys, keys);
    }
}

/// Checks the lines of `rename-command` one after the other.
///
/// # Errors
/// The first line that cannot be carried out.
pub fn check_renames(config: &Config) -> Result<(), LoadError> {
    let pairs = renamed_commands(config);
    let lines = config.lines.iter().filter(|line| line.directive == "rename-command");
    for (at, line) in lines.enumerate() {
        CommandTable::new(&pairs[..=at]).map_err(|reason| LoadError::at(&line.place, reason))?;
    }
    Ok(())
}

/// The pairs of `rename-command`: old name, new name or nothing.
fn renamed_commands(config: &Config) -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines = config.lines.iter().filter(|line| line.directive == "rename-command");
    lines.filter_map(|line| Some((line.words.first()?.clone(), line.words.get(1)?.clone()))).collect()
}

/// Whether keyspace events are published: of some class, on some channel.
fn events_interest(config: &Config) -> Interest {
    let classes = config.notify_keyspace_events;
    if classes.are_published() { Interest::EVENTS } else { Interest::NONE }
}

/// How the configuration wants accesses to be noted.
#[inline]
pub fn access_policy(config: &Config) -> AccessPolicy {
    match config.maxmemory_policy {
        MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu => {
            AccessPolicy::Lfu { log_factor: config.lfu_log_factor, decay_minutes: config.lfu_decay_time }
        }
        MaxmemoryPolicy::AllkeysLrm | MaxmemoryPolicy::VolatileLrm => AccessPolicy::Lrm,
        _ => AccessPolicy::Lru,
    }
}
