//! Changes: what commands did to keys, noted once and passed on in one place.

use std::collections::VecDeque;
use std::fmt;

/// The classes of keyspace events, as `notify-keyspace-events` selects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "each is the class of its name")]
pub enum Class {
    Generic = 1 << 0,
    String = 1 << 1,
    List = 1 << 2,
    Set = 1 << 3,
    Hash = 1 << 4,
    SortedSet = 1 << 5,
    Stream = 1 << 6,
    Expired = 1 << 7,
    Evicted = 1 << 8,
    New = 1 << 9,
    Miss = 1 << 10,
}

/// Who wants to hear of changes. While nobody does, a change costs an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest(pub u8);

impl Interest {
    /// Nobody.
    pub const NONE: Interest = Interest(0);
    /// Somebody listens to each change: any of those below.
    pub const CHANGES: Interest = Interest(Interest::OBSERVERS.0 | Interest::EVENTS.0 | Interest::TRACKING.0);
    /// The write log is fed: the AOF, replicas, an observer.
    pub const LOG: Interest = Interest(2);
    /// The program that the server is part of listens to each change.
    pub const OBSERVERS: Interest = Interest(1);
    /// Keyspace events are published.
    pub const EVENTS: Interest = Interest(4);
    /// Clients are told of changes to what they have read.
    pub const TRACKING: Interest = Interest(8);

    /// Whether `other` is part of it.
    #[inline]
    pub fn has(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }
}

/// What happened to one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The database.
    pub db: usize,
    /// The key.
    pub key: Vec<u8>,
    /// The class of the event.
    pub class: Class,
    /// The event's name, as keyspace events carry it.
    pub event: &'static str,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.db, self.event, String::from_utf8_lossy(&self.key))
    }
}

/// A command as it is written to the log: its arguments, name first.
pub type Effect = Vec<Vec<u8>>;

/// The words of a command, wherever they stand.
pub trait Words {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them; `i` is below [`Words::count`].
    fn word(&self, i: usize) -> &[u8];

    /// All of them, kept.
    fn to_effect(&self) -> Effect {
        (0..self.count()).map(|i| self.word(i).to_vec()).collect()
    }
}

impl Words for Effect {
    fn count(&self) -> usize {
        self.len()
    }

    fn word(&self, i: usize) -> &[u8] {
        &self[i]
    }
}

/// What becomes of keys whose deadline has passed, where commands meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// They are removed.
    #[default]
    Remove,
    /// They stay, and are not seen: on a replica it is for the primary to remove them.
    Hide,
    /// They are there: commands of a primary, or of a log, that still needed them when they ran there.
    Keep,
}

/// What one command changed.
#[derive(Debug, Default)]
pub struct Effects {
    interest: Interest,
    /// The number of the client whose commands these are the effects of; 0 for no client.
    pub origin: u64,
    /// That client has messages in its outbox which came of its own command, and follow the reply of it.
    pub echo: bool,
    /// Keys whose change is to be told to those who follow their prefixes, and the client that changed each.
    pub broadcast: Vec<(Vec<u8>, u64)>,
    /// How many changes, as `rdb_changes_since_last_save` counts them.
    pub dirty: u64,
    /// Each change, where somebody listens.
    pub changes: Vec<Change>,
    /// Keys that were removed before the command itself took effect: the database, the key, and why.
    pub removed: Vec<(usize, Vec<u8>, Removal)>,
    /// Fields that were found expired and removed: database, key, names.
    pub expired_fields: Vec<(usize, Vec<u8>, Vec<Vec<u8>>)>,
    /// What goes to the log instead of the request, where a handler said so.
    pub canonical: Option<Vec<Effect>>,
    /// The offset behind what was last appended to the log for this caller; whoever takes note of it sets it to 0.
    pub logged: u64,
    /// These are changes that were made before and are made again, from a log: they go to no log, and nothing expires
    /// meanwhile, because what expired is removed by the log.
    pub replaying: bool,
    /// What becomes of keys whose deadline has passed.
    pub due: Due,
    /// Messages on their way to replicas: they change no data, and so go to no file.
    pub messages: Vec<(usize, Effect)>,
    /// Changed keys that clients are blocked on, to be served before their shards are released.
    pub ready: VecDeque<(usize, Vec<u8>)>,
    /// Ready keys whose clients need shards that are not held: served as soon as these are released.
    pub postponed: Vec<(usize, Vec<u8>)>,
    /// While a command runs others inside of it (EXEC, a script): what goes to the log once it ends.
    pub group: Option<Vec<(usize, Effect)>>,
    /// Those of the group, by their place in it, that not everybody is told of who reads the log.
    pub only: Vec<(std::ops::Range<usize>, Only)>,
}

/// Why a key was removed that no command named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its deadline had passed, or its last field's.
    Expired,
    /// It had to make room.
    Evicted,
}

/// Who alone is told of a change, because a script wants it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// The log's file.
    File,
    /// Replicas.
    Replicas,
}

impl Effects {
    /// Starts on a command; `interest` is who listens now.
    #[inline]
    pub fn begin(&mut self, interest: Interest) {
        self.interest = interest;
        self.dirty = 0;
        if !self.is_quiet() {
            self.changes.clear();
            self.removed.clear();
            self.expired_fields.clear();
            self.canonical = None;
        }
    }

    #[inline]
    fn is_quiet(&self) -> bool {
        self.changes.is_empty()
            && self.removed.is_empty()
            && self.expired_fields.is_empty()
            && self.canonical.is_none()
            && self.messages.is_empty()
    }

    /// Whether anything is to be passed on.
    #[inline]
    pub fn any(&self) -> bool {
        self.dirty != 0 || !self.is_quiet() || !self.ready.is_empty()
    }

    /// Notes that a key changed.
    #[inline]
    pub fn note(&mut self, db: usize, key: &[u8], class: Class, event: &'static str) {
        self.dirty += 1;
        self.notify(db, key, class, event);
    }

    /// Notes an event that does not count as a change of data.
    #[inline]
    pub fn notify(&mut self, db: usize, key: &[u8], class: Class, event: &'static str) {
        if self.interest.has(Interest::CHANGES) {
            self.changes.push(Change { db, key: key.to_vec(), class, event });
        }
    }

    /// Notes that a key was found expired and is gone.
    pub fn note_expired(&mut self, db: usize, key: &[u8]) {
        self.notify(db, key, Class::Expired, "expired");
        if self.interest.has(Interest::LOG) {
            self.removed.push((db, key.to_vec(), Removal::Expired));
        }
    }

    /// Notes that a key had to make room and is gone.
    pub fn note_evicted(&mut self, db: usize, key: &[u8]) {
        self.notify(db, key, Class::Evicted, "evicted");
        if self.interest.has(Interest::LOG) {
            self.removed.push((db, key.to_vec(), Removal::Evicted));
        }
    }

    /// Notes that fields of a hash were found expired and are gone.
    pub fn note_expired_fields(&mut self, db: usize, key: &[u8], names: Vec<Vec<u8>>) {
        self.notify(db, key, Class::Hash, "hexpired");
        if self.interest.has(Interest::LOG) {
            self.expired_fields.push((db, key.to_vec(), names));
        }
    }

    /// Notes that a hash is gone with its last fields. `before_them` says that it went while some of them were left:
    /// then the log has to be told of the key itself.
    pub fn note_emptied(&mut self, db: usize, key: &[u8], before_them: bool) {
        self.notify(db, key, Class::Generic, "del");
        if before_them && self.interest.has(Interest::LOG) {
            self.removed.push((db, key.to_vec(), Removal::Expired));
        }
    }

    /// Notes a message for replicas, which changes no data, from a client that has `db` selected. `message` runs only
    /// while somebody reads the log.
    #[inline]
    pub fn pass_to_replicas(&mut self, db: usize, message: impl FnOnce() -> Effect) {
        if self.interest.has(Interest::LOG) {
            self.messages.push((db, message()));
        }
    }

    /// Whether somebody reads the log: what it gets need not be put together otherwise.
    #[inline]
    pub fn is_logged(&self) -> bool {
        self.interest.has(Interest::LOG)
    }

    /// Notes that a changed key has clients blocked on it.
    #[cold]
    pub fn note_ready(&mut self, db: usize, key: &[u8]) {
        if !self.ready.iter().any(|(other, name)| *other == db && name == key) {
            self.ready.push_back((db, key.to_vec()));
        }
    }

    /// Says what the log gets instead of the request. `effect` runs only while somebody reads the log.
    #[inline]
    pub fn log_as(&mut self, effect: impl FnOnce() -> Vec<Effect>) {
        if self.interest.has(Interest::LOG) {
            self.canonical = Some(effect());
        }
    }

    /// Says that the log gets the removal of a key instead of the request, as UNLINK where it is `lazy`.
    #[inline]
    pub fn log_removal(&mut self, key: &[u8], lazy: bool) {
        self.log_as(|| vec![removal(key.to_vec(), lazy)]);
    }
}

/// The removal of a key as the log has it: DEL, or UNLINK where it is `lazy`. Both do the same here; replicas and files are
/// told what a Redis with this configuration would tell them.
pub fn removal(key: Vec<u8>, lazy: bool) -> Effect {
    vec![if lazy { b"UNLINK".to_vec() } else { b"DEL".to_vec() }, key]
}
