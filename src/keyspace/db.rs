//! A database as a command sees it: the held keys, without those that have expired.
//!
//! What must stay true: every key that is touched belongs to a shard that is held; whatever changes
//! is noted in [`Effects`]; a key whose deadline has passed is removed when it is met, and never seen.

use smallvec::SmallVec;

use crate::keyspace::change::{Class, Due, Effects};
use crate::keyspace::entry::{Entry, Str};
use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::Hold;
use crate::keyspace::listen::Listeners;
use crate::keyspace::moment::Moment;
use crate::keyspace::shard::{Part, SHARDS};
use crate::keyspace::space::Keyspace;
use crate::types::Object;

/// How many expired fields of a hash are removed by who meets them.
const EXPIRE_FIELDS: usize = 64;

/// A key and where it lives.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The key itself.
    pub bytes: &'a [u8],
    /// Its slot and hash.
    pub hash: KeyHash,
}

/// What becomes of a key's deadline when its value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It stays what it was.
    Keep,
    /// The key lives on without one.
    Clear,
    /// Unix time in milliseconds.
    At(u64),
}

/// Whether reading a key counts as an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The access clock moves.
    Yes,
    /// It stays (CLIENT NO-TOUCH, OBJECT, TTL and the like).
    No,
}

/// The selected database, over what is held.
pub struct Db<'a> {
    keyspace: &'a Keyspace,
    /// What is held.
    pub hold: Hold<'a>,
    /// What was changed.
    pub effects: &'a mut Effects,
    index: usize,
    moment: Moment,
    touch: Touch,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys met after their deadline, and removed.
    pub expired: u64,
    /// Fields of hashes met after their deadline, and removed.
    pub expired_fields: u64,
}

impl<'a> Db<'a> {
    /// Database `index` at `moment`, over the shards in `hold`.
    #[inline]
    pub fn new(
        keyspace: &'a Keyspace,
        hold: Hold<'a>,
        effects: &'a mut Effects,
        index: usize,
        moment: Moment,
        touch: Touch,
    ) -> Db<'a> {
        Db { keyspace, hold, effects, index, moment, touch, hits: 0, misses: 0, expired: 0, expired_fields: 0 }
    }

    /// The number of the selected database.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Selects another one.
    pub fn select(&mut self, index: usize) {
        self.index = index;
    }

    /// Says whether reads count as accesses from here on.
    pub fn set_touch(&mut self, touch: Touch) {
        self.touch = touch;
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &'a Keyspace {
        self.keyspace
    }

    /// The moment at which the command runs.
    #[inline]
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Has what follows run at a later time.
    pub fn set_now(&mut self, now_ms: u64) {
        self.moment.now_ms = now_ms;
    }

    /// The time at which the command runs, in Unix milliseconds.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.moment.now_ms
    }

    /// The time by which fields of hashes are there or have expired: while a log is read all are there, as
    /// [`Db::has_passed`] says of keys.
    #[inline]
    pub fn fields_now_ms(&self) -> u64 {
        if self.effects.due == Due::Keep { 0 } else { self.moment.now_ms }
    }

    /// Whether a deadline has come, so that a key that gets it is removed. While a log is read none has: what follows
    /// in the log may still need the key; and on a replica none has until its primary says so.
    pub fn has_passed(&self, deadline: u64) -> bool {
        deadline <= self.moment.now_ms && self.effects.due == Due::Remove
    }

    /// The key with these bytes.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        Key { bytes, hash: self.keyspace.hasher().hash(bytes) }
    }

    /// Removes `key` where its deadline has passed, and fields of it whose deadline has. Nothing but a look where
    /// nothing in its shard is due. Returns whether the key is there but must not be seen: [`Due::Hide`].
    #[inline]
    fn expire_if_due(&mut self, key: &Key<'_>) -> bool {
        self.keyspace.may_be_due(key.hash.shard(), self.moment.now_ms) && self.meet_what_is_due(key)
    }

    #[cold]
    fn meet_what_is_due(&mut self, key: &Key<'_>) -> bool {
        match self.effects.due {
            Due::Keep => return false,
            Due::Remove => self.expire_what_is_due(key),
            Due::Hide => {
                let part = self.hold.shard_ref(key.hash.shard()).part(self.index);
                let entry = part.and_then(|part| part.find(key.hash, key.bytes));
                return entry.is_some_and(|entry| self.hides(entry.deadline()));
            }
        }
        false
    }

    /// Whether a key with this deadline is there and must not be seen.
    #[inline]
    fn hides(&self, deadline: Option<u64>) -> bool {
        self.effects.due == Due::Hide && deadline.is_some_and(|deadline| self.moment.now_ms > deadline)
    }

    #[cold]
    fn expire_what_is_due(&mut self, key: &Key<'_>) {
        let now = self.moment.now_ms;
        let part = self.hold.shard(key.hash.shard()).part(self.index);
        let Some(entry) = part.and_then(|part| part.find(key.hash, key.bytes)) else { return };
        if entry.deadline().is_some_and(|deadline| now > deadline) {
            self.expire_now(key);
        } else if entry.field_deadline().is_some_and(|deadline| now > deadline) {
            self.expire_fields(key);
        }
    }

    fn expire_now(&mut self, key: &Key<'_>) {
        let part = self.hold.shard(key.hash.shard()).part_mut(self.index);
        if let Some(entry) = part.and_then(|part| part.remove(key.hash, key.bytes)) {
            self.keyspace.free(entry);
            self.expired += 1;
            self.effects.note_expired(self.index, key.bytes);
            let shard = self.hold.shard(key.hash.shard());
            if shard.listeners().is_some() {
                shard.with_listeners(|listeners| listeners.expire(self.index, key.bytes));
            }
        }
    }

    /// Removes some of a hash's fields whose deadline has passed, or all of it where none has a later one. Others that
    /// are due stay for the timer: those who read look past them.
    #[cold]
    fn expire_fields(&mut self, key: &Key<'_>) {
        let now = self.moment.now_ms;
        let Some(part) = self.hold.shard(key.hash.shard()).part_mut(self.index) else { return };
        let mut names = Vec::new();
        let empty = part.update(key.hash, key.bytes, |entry| match entry.object_mut() {
            Some(Object::Hash(hash)) => {
                hash.take_due(now, EXPIRE_FIELDS, |name, _| names.push(name.to_vec()));
                hash.at(now).is_empty()
            }
            _ => false,
        });
        self.expired_fields += names.len() as u64;
        self.touched(key);
        self.effects.note_expired_fields(self.index, key.bytes, names);
        if empty == Some(true)
            && let Some(entry) = self.part(key).and_then(|part| part.remove(key.hash, key.bytes))
        {
            self.effects.note_emptied(self.index, key.bytes, entry.field_deadline().is_some());
            self.keyspace.free(entry);
        }
    }

    #[inline]
    fn part(&mut self, key: &Key<'_>) -> Option<&mut Part> {
        self.hold.shard(key.hash.shard()).part_mut(self.index)
    }

    /// The entry for `key`, read by a command: counts as hit or miss, moves the access clock.
    #[inline]
    pub fn read(&mut self, key: &Key<'_>) -> Option<&Entry> {
        self.read_as(key, self.touch)
    }

    /// The entry for `key`, asked about but not used (EXISTS, TYPE, TTL): counts as hit or miss, leaves
    /// the access clock alone.
    #[inline]
    pub fn peek(&mut self, key: &Key<'_>) -> Option<&Entry> {
        self.read_as(key, Touch::No)
    }

    #[inline]
    fn read_as(&mut self, key: &Key<'_>, touch: Touch) -> Option<&Entry> {
        let hidden = self.expire_if_due(key);
        let moment = self.moment;
        // The borrow of the part is taken field by field, so that the counts can be kept beside it.
        let part = self.hold.shard(key.hash.shard()).part_mut(self.index);
        let found = part.filter(|_| !hidden).and_then(|part| match touch {
            Touch::Yes => part.touch(key.hash, key.bytes, |clock| moment.accessed(clock)),
            Touch::No => part.find(key.hash, key.bytes),
        });
        match found {
            Some(_) => self.hits += 1,
            None => {
                self.misses += 1;
                self.effects.notify(self.index, key.bytes, Class::Miss, "keymiss");
            }
        }
        found
    }

    /// The entry for `key`, looked up by a command that is about to change it: no hit, no miss.
    #[inline]
    pub fn look(&mut self, key: &Key<'_>) -> Option<&Entry> {
        if self.expire_if_due(key) {
            return None;
        }
        self.part(key)?.find(key.hash, key.bytes)
    }

    /// The entry for `key`, for a command that uses several keys side by side: it must have looked each of them up
    /// ([`Db::read`], [`Db::look`]) before, since what has expired is not removed here.
    #[inline]
    pub fn beside(&self, key: &Key<'_>) -> Option<&Entry> {
        let found = self.hold.shard_ref(key.hash.shard()).part(self.index)?.find(key.hash, key.bytes)?;
        (!self.hides(found.deadline())).then_some(found)
    }

    /// Whether the key exists.
    #[inline]
    pub fn exists(&mut self, key: &Key<'_>) -> bool {
        self.look(key).is_some()
    }

    /// Stores a string, whatever was there. Returns whether the key is new.
    #[inline]
    pub fn set(&mut self, key: &Key<'_>, value: Str<'_>, expiry: Expiry) -> bool {
        self.expire_if_due(key);
        let (clock, bits) = (self.moment.initial_clock(), key.hash.bits());
        let value = std::cell::Cell::new(Some(value));
        let part = self.hold.shard(key.hash.shard()).part_or_new(self.index);
        let mut replaced = None;
        let new = part.upsert(
            key.hash,
            key.bytes,
            |entry| {
                replaced = entry.take_object();
                entry.set_string(value.take().expect("upsert calls one of the two, once"));
                entry.set_clock(clock);
                match expiry {
                    Expiry::Keep => {}
                    Expiry::Clear => entry.set_deadline(None),
                    Expiry::At(deadline) => entry.set_deadline(Some(deadline)),
                }
            },
            || {
                let deadline = if let Expiry::At(deadline) = expiry { Some(deadline) } else { None };
                let value = value.take().expect("upsert calls one of the two, once");
                Entry::new(bits, key.bytes, value, deadline, clock)
            },
        );
        if let Some(object) = replaced {
            self.keyspace.free_object(object);
        }
        if let Expiry::At(deadline) = expiry {
            self.keyspace.note_deadline(key.hash.shard(), deadline);
        }
        if new {
            self.effects.notify(self.index, key.bytes, Class::New, "new");
        }
        new
    }

    /// Adds an entry made for `key`, which must not exist.
    pub fn insert(&mut self, key: &Key<'_>, entry: Entry) {
        for deadline in [entry.deadline(), entry.field_deadline()].into_iter().flatten() {
            self.keyspace.note_deadline(key.hash.shard(), deadline);
        }
        self.hold.shard(key.hash.shard()).part_or_new(self.index).insert(key.hash, entry);
        self.effects.notify(self.index, key.bytes, Class::New, "new");
    }

    /// Stores a collection, whatever was there; the key lives on without a deadline.
    pub fn put(&mut self, key: &Key<'_>, object: Object) {
        let entry = Entry::with_object(key.hash.bits(), key.bytes, object, None, self.moment.initial_clock());
        if self.remove(key) {
            if let Some(deadline) = entry.field_deadline() {
                self.keyspace.note_deadline(key.hash.shard(), deadline);
            }
            self.hold.shard(key.hash.shard()).part_or_new(self.index).insert(key.hash, entry);
        } else {
            self.insert(key, entry);
        }
    }

    /// Changes the value of a living entry in place, not its deadline; `None` where there is none. Moves
    /// the access clock.
    #[inline]
    pub fn update<R>(&mut self, key: &Key<'_>, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        if self.expire_if_due(key) {
            return None;
        }
        let (moment, touch, keyspace) = (self.moment, self.touch, self.keyspace);
        self.part(key)?.update(key.hash, key.bytes, |entry| {
            if touch == Touch::Yes {
                entry.set_clock(moment.changed(entry.clock()));
            }
            let result = change(entry);
            if let Some(deadline) = entry.field_deadline() {
                keyspace.note_deadline(key.hash.shard(), deadline);
            }
            result
        })
    }

    /// Takes a living entry out.
    pub fn take(&mut self, key: &Key<'_>) -> Option<Entry> {
        self.expire_if_due(key);
        self.part(key)?.remove(key.hash, key.bytes)
    }

    /// Removes a key; returns whether it existed.
    pub fn remove(&mut self, key: &Key<'_>) -> bool {
        match self.take(key) {
            Some(entry) => {
                self.keyspace.free(entry);
                true
            }
            None => false,
        }
    }

    /// Sets or removes the deadline of a living key; returns whether there is one.
    pub fn set_deadline(&mut self, key: &Key<'_>, deadline: Option<u64>) -> bool {
        self.expire_if_due(key);
        if let Some(deadline) = deadline {
            self.keyspace.note_deadline(key.hash.shard(), deadline);
        }
        let Some(part) = self.part(key) else { return false };
        part.update(key.hash, key.bytes, |entry| entry.set_deadline(deadline)).is_some()
    }

    /// Notes that a key changed.
    #[inline]
    pub fn note(&mut self, key: &Key<'_>, class: Class, event: &'static str) {
        self.touched(key);
        self.effects.note(self.index, key.bytes, class, event);
    }

    /// Notes an event of a key that comes with a change that is noted already: the other key of RENAME, the
    /// removal of what was emptied.
    #[inline]
    pub fn notify(&mut self, key: &Key<'_>, class: Class, event: &'static str) {
        self.touched(key);
        self.effects.notify(self.index, key.bytes, class, event);
    }

    /// Tells those who listen to this key.
    #[inline]
    fn touched(&mut self, key: &Key<'_>) {
        if let Some(listeners) = self.hold.shard(key.hash.shard()).listeners()
            && listeners.touch(self.index, key.bytes)
        {
            self.effects.note_ready(self.index, key.bytes);
        }
    }

    /// Removes what is due of the keys that are watched in one of these databases, in all of them: a key that
    /// is due already must not seem to expire anew where it comes to stand. Every shard is held.
    pub fn expire_watched(&mut self, dbs: [usize; 2]) {
        let selected = self.index;
        for shard in 0..SHARDS {
            let keys = self.hold.shard(shard).listeners().map(Listeners::watched_keys).unwrap_or_default();
            for (_, bytes, hash) in keys.iter().filter(|(db, ..)| dbs.contains(db)) {
                for db in dbs {
                    self.index = db;
                    self.expire_if_due(&Key { bytes, hash: *hash });
                }
            }
        }
        self.index = selected;
    }

    /// Tells those who listen to keys that are about to change all at once: databases are emptied or exchanged.
    ///
    /// For each database `concerned` says where a key of that name must exist for its listeners to be told; nowhere
    /// for a database that does not change. What is due counts as gone.
    pub fn touch_all(&mut self, concerned: impl Fn(usize) -> SmallVec<[usize; 2]>) {
        let now_ms = self.moment.now_ms;
        for shard in 0..SHARDS {
            let effects = &mut *self.effects;
            self.hold.visit(shard, |shard| {
                let Some(listeners) = shard.listeners() else { return };
                for (db, key, hash) in listeners.keys() {
                    let lives = |entry: &Entry| entry.deadline().is_none_or(|deadline| now_ms <= deadline);
                    let exists = |db: &usize| shard.part(*db).and_then(|part| part.find(hash, &key)).is_some_and(lives);
                    if concerned(db).iter().any(exists) && listeners.touch(db, &key) {
                        effects.note_ready(db, &key);
                    }
                }
            });
        }
    }
}
