//! The cluster as the server's threads share it: the node's machine behind a lock, the picture of it that commands look
//! at, what is to be done outside, and the file.
//!
//! What must stay true: whoever has changed the machine publishes a new picture before it lets go of the lock, and
//! leaves what is to be done in the order in which it came up. The lock is held for computing, never for waiting.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::cluster::file::{self, BadLine};
use crate::cluster::machine::{Action, Durability, Machine, Replication, Settings};
use crate::cluster::migrations::Migrations;
use crate::cluster::slots::SlotSet;
use crate::cluster::stats::SlotStats;
use crate::cluster::view::View;
use crate::observe::log::notice;
use crate::persist::disk;
use crate::stdx::random::Random;

/// Says how far replication is.
type Facts = Box<dyn Fn() -> Replication + Send + Sync>;

/// Why a node cannot start with its file.
#[derive(Debug)]
pub enum OpenError {
    /// Somebody else uses it.
    Taken(PathBuf),
    /// It cannot be read or written.
    File(PathBuf, io::Error),
    /// What it says cannot be understood.
    Line(BadLine),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Taken(path) => write!(
                f,
                "Sorry, the cluster configuration file {} is already used by a different Redis Cluster node. Please make sure that different nodes use different cluster configuration files.",
                path.display()
            ),
            OpenError::File(path, error) => {
                write!(f, "Loading the cluster node config from {}: {error}", path.display())
            }
            OpenError::Line(line) => line.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// `nodes.conf`, which is this server's alone while it is open.
#[derive(Debug, Default)]
struct NodesFile {
    path: Option<PathBuf>,
    /// Keeps others from using it.
    lock: Option<File>,
}

impl NodesFile {
    fn save(&mut self, text: &str, durability: Durability) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        match durability {
            Durability::Machine => disk::replace(path, text.as_bytes())?,
            Durability::Process => disk::replace_unsynced(path, text.as_bytes())?,
        }
        // The name is another file's now: that one is locked before the lock of the old one ends.
        self.lock = disk::lock(path)?;
        Ok(())
    }
}

/// The cluster that this server is a node of.
pub struct Cluster {
    /// What each slot costs.
    pub stats: SlotStats,
    /// Slots that move as a whole, from here or to here.
    pub migrations: Migrations,
    machine: Mutex<Machine>,
    view: Arc<ArcSwap<View>>,
    version: AtomicU64,
    actions: Mutex<Vec<Action>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
    facts: OnceLock<Facts>,
    file: Mutex<NodesFile>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A node that knows nobody and has no file.
    pub fn new(settings: Settings, random: Random, now: u64) -> Cluster {
        let machine = Machine::new(settings, random, now);
        Cluster {
            stats: SlotStats::default(),
            migrations: Migrations::default(),
            view: Arc::new(ArcSwap::from_pointee(View::of(&machine))),
            version: AtomicU64::new(machine.version()),
            machine: Mutex::new(machine),
            actions: Mutex::new(Vec::new()),
            bell: OnceLock::new(),
            facts: OnceLock::new(),
            file: Mutex::default(),
        }
    }

    /// Becomes the node that the file at `path` tells of, and keeps everybody else from using that file.
    ///
    /// # Errors
    /// Somebody else uses it, or it cannot be read.
    pub fn open(&self, path: &Path, settings: Settings, now: u64) -> Result<(), OpenError> {
        let failed = |error| OpenError::File(path.to_owned(), error);
        let lock = disk::lock(path).map_err(failed)?.ok_or_else(|| OpenError::Taken(path.to_owned()))?;
        *self.file.lock() = NodesFile { path: Some(path.to_owned()), lock: Some(lock) };
        let text = disk::read_or_empty(path).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        match file::load(&text, settings.clone(), Random::new(), now).map_err(OpenError::Line)? {
            Some(machine) => *self.machine.lock() = machine,
            None => {
                let mut machine = self.machine.lock();
                machine.follow(settings);
                notice!("No cluster configuration found, I'm {}", machine.me().name);
            }
        }
        self.with(now, |machine| machine.save());
        let text = self.machine.lock().to_file();
        self.file.lock().save(&text, Durability::Machine).map_err(failed)
    }

    /// Says what is to be called when there is something to do outside, and how to find out how far replication is.
    pub fn attach(
        &self,
        bell: impl Fn() + Send + Sync + 'static,
        facts: impl Fn() -> Replication + Send + Sync + 'static,
    ) {
        // The first is the only one: a server has one bus.
        let _ = self.bell.set(Box::new(bell));
        let _ = self.facts.set(Box::new(facts));
    }

    /// Has the machine do something at `now`, in unix milliseconds.
    pub fn with<R>(&self, now: u64, f: impl FnOnce(&mut Machine) -> R) -> R {
        let facts = self.facts.get().map_or_else(Replication::default, |facts| facts());
        let mut machine = self.machine.lock();
        machine.enter(now, facts);
        let result = f(&mut machine);
        let actions = machine.leave();
        if machine.version() != self.version.load(Ordering::Relaxed) {
            self.view.store(Arc::new(View::of(&machine)));
            self.version.store(machine.version(), Ordering::Release);
        }
        if !actions.is_empty() {
            self.actions.lock().extend(actions);
            drop(machine);
            if let Some(bell) = self.bell.get() {
                bell();
            }
        }
        result
    }

    /// What is to be done outside, in this order; it is forgotten here.
    pub fn take_actions(&self) -> Vec<Action> {
        std::mem::take(&mut *self.actions.lock())
    }

    /// Has the keys of slots removed that were on their way here and stay elsewhere.
    pub fn remove_keys(&self, slots: SlotSet) {
        self.actions.lock().push(Action::RollBack(slots));
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// Bytes of messages that wait to be handed to their connections.
    pub fn waiting_bytes(&self) -> u64 {
        let bytes = |action: &Action| if let Action::Send(_, bytes) = action { bytes.len() as u64 } else { 0 };
        self.actions.lock().iter().map(bytes).sum()
    }

    /// The picture that commands look at.
    pub fn view(&self) -> &Arc<ArcSwap<View>> {
        &self.view
    }

    /// Which picture is the newest.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Writes `nodes.conf`.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, text: &str, durability: Durability) -> io::Result<()> {
        self.file.lock().save(text, durability)
    }

    /// Writes `nodes.conf` as it is to be now.
    ///
    /// # Errors
    /// What the system says.
    pub fn save_now(&self) -> io::Result<()> {
        let text = self.machine.lock().to_file();
        self.save(&text, Durability::Machine)
    }
}
