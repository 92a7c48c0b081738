//! The keyspace as a whole: its shards, gates, and walks over all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::keyspace::alarm::Alarm;
use crate::keyspace::change::Effects;
use crate::keyspace::entry::{Entry, HASH_BITS};
use crate::keyspace::gate::Gates;
use crate::keyspace::hash::{KeyHash, KeyHasher, Routing};
use crate::keyspace::hidden::{Hidden, Walked};
use crate::keyspace::hold::{Hold, Locked, ShardSet, Shards};
use crate::keyspace::listen::Counts;
use crate::keyspace::reclaim::{INLINE_FREE_MAX, Reclaimer};
use crate::keyspace::shard::{Part, SHARDS, SLOTS_PER_SHARD, Shard};
use crate::keyspace::snapshot::Running;
use crate::types::Object;
use crate::types::table::Table;

/// All databases of one server.
#[derive(Debug)]
pub struct Keyspace {
    shards: Box<Shards>,
    hasher: KeyHasher,
    gates: Gates,
    reclaimer: Reclaimer,
    /// For each shard a time before which nothing in it is due, so that neither the timer nor a lookup need look
    /// further to learn that. Written under the shard's lock; [`NEVER`] where no key has a deadline.
    next_due: Box<[AtomicU64]>,
    alarm: Alarm,
    snapshot: Running,
    hidden: Hidden,
}

/// What stands for no deadline at all.
const NEVER: u64 = u64::MAX;

/// Counts of one database, for INFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DbCounts {
    /// Keys, expired ones that are still there included.
    pub keys: u64,
    /// Keys with a deadline.
    pub volatile: u64,
    /// Mean time to live of those, in milliseconds, estimated from a sample.
    pub mean_ttl_ms: u64,
    /// Hashes with fields that have a deadline.
    pub with_volatile_fields: u64,
}

/// Whether one waits for a shard that somebody else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For as long as it takes.
    Wait,
    /// Not at all.
    None,
}

/// What [`Keyspace::expire_shard`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Keys whose deadline had passed.
    pub keys: usize,
    /// Fields of hashes whose deadline had passed.
    pub fields: usize,
    /// Whether nothing is left that was due.
    pub all: bool,
}

/// How many due keys are removed per hold of a shard's lock: some 20 µs.
const EXPIRE_BATCH: usize = 64;

impl Keyspace {
    /// An empty keyspace for so many workers.
    ///
    /// # Errors
    /// Where the thread that frees large values cannot be started.
    pub fn new(routing: Routing, workers: usize) -> std::io::Result<Keyspace> {
        Ok(Keyspace {
            shards: (0..SHARDS).map(|_| Locked::default()).collect(),
            hasher: KeyHasher::new(routing),
            gates: Gates::new(workers),
            reclaimer: Reclaimer::start()?,
            next_due: (0..SHARDS).map(|_| AtomicU64::new(NEVER)).collect(),
            alarm: Alarm::default(),
            snapshot: Running::default(),
            hidden: Hidden::default(),
        })
    }

    /// What hashes keys.
    #[inline]
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// The gates.
    #[inline]
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Notes that a key of a held shard has this deadline.
    #[inline]
    pub fn note_deadline(&self, shard: usize, deadline: u64) {
        let next = &self.next_due[shard];
        if deadline < next.load(Ordering::Relaxed) {
            next.store(deadline, Ordering::Relaxed);
            self.alarm.note(deadline);
        }
    }

    /// Sleeps until a key is due, for `least` at least and for `most` at most; see [`Alarm::sleep`].
    pub fn sleep_until_due(&self, now_ms: u64, least: Duration, most: Duration) {
        let next = || (0..SHARDS).filter_map(|shard| self.next_due(shard)).min();
        self.alarm.sleep(now_ms, next, least, most);
    }

    /// Whether a key of a held shard can have a deadline before `now_ms`.
    #[inline]
    pub fn may_be_due(&self, shard: usize, now_ms: u64) -> bool {
        self.next_due[shard].load(Ordering::Relaxed) < now_ms
    }

    /// Says what is due next in a held shard.
    pub fn set_next_due(&self, shard: usize, deadline: Option<u64>) {
        self.next_due[shard].store(deadline.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// What frees large values.
    pub fn reclaimer(&self) -> &Reclaimer {
        &self.reclaimer
    }

    /// The snapshot that is being taken, if one is.
    pub fn snapshot(&self) -> &Running {
        &self.snapshot
    }

    /// Slots whose keys do not count yet.
    #[inline]
    pub fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// Holds the shards in `set`.
    #[inline]
    pub fn hold(&self, set: ShardSet) -> Hold<'_> {
        Hold::new(&self.shards, set)
    }

    /// The same, as long as `patient` says so.
    #[inline]
    pub fn hold_while(&self, set: ShardSet, patient: impl Fn() -> bool) -> Option<Hold<'_>> {
        Hold::new_while(&self.shards, set, patient)
    }

    /// Holds one shard, for as long as `patient` says so while waiting for it.
    #[inline]
    pub fn hold_one_while(&self, shard: usize, patient: impl Fn() -> bool) -> Option<Hold<'_>> {
        Hold::one_while(&self.shards, shard, patient)
    }

    /// Holds nothing; for walks that take one shard after the other.
    #[inline]
    pub fn hold_none(&self) -> Hold<'_> {
        Hold::none(&self.shards)
    }

    /// The same for who may hold any shard already, and tells what it can: see [`Hold::look`].
    pub fn hold_impatiently(&self) -> Hold<'_> {
        Hold::impatient(&self.shards)
    }

    /// How many keys somebody listens to in each way.
    pub fn listened(&self, hold: &mut Hold<'_>) -> Counts {
        (0..SHARDS).fold(Counts::default(), |sum, shard| {
            let more = hold.look(shard, |shard| shard.listeners().map(|listeners| listeners.counts()));
            sum + more.flatten().unwrap_or_default()
        })
    }

    /// Frees an entry: here where that is cheap, else on the thread for it.
    pub fn free(&self, mut entry: Entry) {
        if let Some(object) = entry.take_object() {
            self.free_object(object);
        }
    }

    /// Frees a collection: here where that is cheap, else on the thread for it.
    pub fn free_object(&self, object: Box<Object>) {
        if object.len() > INLINE_FREE_MAX {
            self.reclaimer.free(1, object);
        }
    }

    /// Frees an entry that takes so many bytes: here where that is cheap, else on the thread for it.
    pub fn free_measured(&self, mut entry: Entry, bytes: usize) {
        if let Some(object) = entry.take_object()
            && object.len() > INLINE_FREE_MAX
        {
            self.reclaimer.free_measured(1, bytes as u64, object);
        }
    }

    /// Removes every key of `db`, or of all databases; returns what was there, still to be freed, but for what
    /// belongs to a snapshot.
    ///
    /// The caller runs alone. The keys are gone when this returns, after some microseconds; freeing
    /// them is what takes long.
    pub fn take_all(&self, hold: &mut Hold<'_>, db: Option<usize>) -> Flushed {
        let mut flushed = Flushed::default();
        for i in 0..SHARDS {
            hold.visit(i, |shard| {
                let all: Vec<usize> = db.map_or_else(|| shard.databases().collect(), |db| vec![db]);
                for part in all.into_iter().filter_map(|db| shard.take_part(db)) {
                    flushed.keys += part.len() as u64;
                    flushed.parts.extend(self.snapshot.take_over(part));
                }
            });
        }
        flushed
    }

    /// An empty keyspace in which keys have the same places as here, so that they can [`Keyspace::move_in`].
    ///
    /// # Errors
    /// Where the thread that frees large values cannot be started.
    pub fn aside(&self) -> std::io::Result<Keyspace> {
        Ok(Keyspace { hasher: self.hasher.clone(), ..Keyspace::new(self.hasher.routing(), 0)? })
    }

    /// Has all keys of one that was made [`Keyspace::aside`] come here, where there are none; `hold` holds everything.
    pub fn move_in(&self, hold: &mut Hold<'_>, aside: Keyspace) {
        let mut from = aside.hold(ShardSet::ALL);
        for i in 0..SHARDS {
            let theirs = from.shard(i);
            for db in theirs.databases().collect::<Vec<_>>() {
                if let Some(part) = theirs.take_part(db) {
                    hold.shard(i).put_part(db, part);
                }
            }
            if let Some(deadline) = aside.next_due(i) {
                self.note_deadline(i, deadline);
            }
        }
    }

    /// Frees what a flush took out, on the calling thread.
    pub fn free_all(&self, mut flushed: Flushed) {
        while flushed.free_some(self, usize::MAX) {}
    }

    /// The counts of every database that has keys, by number.
    pub fn counts(&self, hold: &mut Hold<'_>, now_ms: u64) -> Vec<(usize, DbCounts)> {
        let mut counts: Vec<DbCounts> = Vec::new();
        let mut samples: Vec<(u64, u64)> = Vec::new();
        for i in 0..SHARDS {
            hold.visit(i, |shard| {
                for db in shard.databases().collect::<Vec<_>>() {
                    let Some(part) = shard.part(db) else { continue };
                    if counts.len() <= db {
                        counts.resize_with(db + 1, DbCounts::default);
                        samples.resize(db + 1, (0, 0));
                    }
                    counts[db].keys += part.len() as u64;
                    counts[db].volatile += part.volatile().len() as u64;
                    counts[db].with_volatile_fields += part.with_volatile_fields() as u64;
                    if let Some(deadline) = part.volatile().mean_deadline(4) {
                        // Deadlines may be as far away as numbers go.
                        samples[db].0 = samples[db].0.saturating_add(deadline.saturating_sub(now_ms));
                        samples[db].1 += 1;
                    }
                }
            });
        }
        for (count, (sum, n)) in counts.iter_mut().zip(samples) {
            count.mean_ttl_ms = sum.checked_div(n).unwrap_or(0);
        }
        counts.into_iter().enumerate().filter(|(_, c)| c.keys > 0).collect()
    }

    /// The number of keys in `db`.
    pub fn len(&self, hold: &mut Hold<'_>, db: usize) -> u64 {
        (0..SHARDS).map(|i| hold.visit(i, |shard| shard.part(db).map_or(0, Part::len) as u64)).sum()
    }

    /// The number of keys in `db` that clients are told of.
    pub fn visible_len(&self, hold: &mut Hold<'_>, db: usize) -> u64 {
        (0..SHARDS).map(|shard| self.visible_in(hold, db, shard)).sum()
    }

    fn visible_in(&self, hold: &mut Hold<'_>, db: usize, shard: usize) -> u64 {
        let hidden = self.hidden.of(shard);
        hold.visit(shard, |shard| {
            let Some(part) = shard.part(db) else { return 0 };
            let mut slots = part.filled() & hidden;
            let mut len = part.len();
            while slots != 0 {
                len -= part.slot(slots.trailing_zeros() as usize).len();
                slots &= slots - 1;
            }
            len as u64
        })
    }

    /// Bytes of tables and indexes of `db`: those of all keys, those of keys with a deadline.
    pub fn overhead(&self, hold: &mut Hold<'_>, db: usize) -> (u64, u64) {
        let mut sum = (0, 0);
        for i in 0..SHARDS {
            hold.visit(i, |shard| {
                if let Some(part) = shard.part(db) {
                    let volatile = part.volatile().memory();
                    sum.0 += (part.overhead() - volatile) as u64;
                    sum.1 += volatile as u64;
                }
            });
        }
        sum
    }

    /// A time before which nothing in `shard` is due, without touching it; `None` where no key can expire.
    #[inline]
    pub fn next_due(&self, shard: usize) -> Option<u64> {
        Some(self.next_due[shard].load(Ordering::Relaxed)).filter(|next| *next != NEVER)
    }

    /// Removes keys of one shard whose deadline has passed, and such fields of hashes, in bounded holds of its lock;
    /// returns how many, and whether it got to the end: without `patience` it stops where somebody else has the shard.
    ///
    /// `now_ms` tells the time. `pass_on` is called within each hold that removed any, with how late
    /// each was, in milliseconds.
    pub fn expire_shard(
        &self,
        shard: usize,
        patience: Patience,
        now_ms: impl Fn() -> u64,
        effects: &mut Effects,
        mut pass_on: impl FnMut(&mut Effects, &[u64]),
    ) -> Expired {
        let mut removed = Expired { keys: 0, fields: 0, all: true };
        let mut late = Vec::new();
        let mut more = true;
        while more {
            more = false;
            late.clear();
            let sweep = |held: &mut Shard| {
                let now_ms = now_ms();
                let listened = held.listeners().is_some();
                let (mut gone, mut shrunk) = (Vec::new(), Vec::new());
                for db in held.databases().collect::<Vec<_>>() {
                    let Some(part) = held.part_mut(db) else { continue };
                    let hash = |key: &[u8]| self.hasher.hash(key);
                    more |= part.remove_due(now_ms, EXPIRE_BATCH, hash, |entry| {
                        effects.note_expired(db, entry.key());
                        if listened {
                            gone.push((db, entry.key().to_vec()));
                        }
                        late.push(now_ms.saturating_sub(entry.deadline().unwrap_or(now_ms)));
                        self.free(entry);
                        removed.keys += 1;
                    });
                    more |= part.remove_due_fields(now_ms, EXPIRE_BATCH, hash, |due| {
                        late.extend(due.deadlines.iter().map(|deadline| now_ms.saturating_sub(*deadline)));
                        removed.fields += due.names.len();
                        if listened {
                            shrunk.push((db, due.key.to_vec()));
                        }
                        effects.note_expired_fields(db, due.key, due.names);
                        if let Some(entry) = due.emptied {
                            effects.note_emptied(db, due.key, false);
                            self.free(entry);
                        }
                    });
                }
                if !gone.is_empty() {
                    held.with_listeners(|listeners| gone.iter().for_each(|(db, key)| listeners.expire(*db, key)));
                }
                if let Some(listeners) = held.listeners() {
                    // Nobody is blocked on a hash: only those who watch it are told.
                    shrunk.iter().for_each(|(db, key)| _ = listeners.touch(*db, key));
                }
                self.set_next_due(shard, held.next_deadline());
                // What waits on these keys is served before anybody else can touch them.
                if !late.is_empty() {
                    pass_on(effects, &late);
                }
            };
            let mut hold = self.hold_none();
            match patience {
                Patience::Wait => hold.visit(shard, sweep),
                Patience::None => {
                    if hold.try_visit(shard, sweep).is_none() {
                        return Expired { all: false, ..removed };
                    }
                }
            }
        }
        removed
    }

    /// Gives back what databases without keys still hold, in all shards that nobody else has at the moment.
    pub fn release_empty(&self) {
        let mut hold = self.hold_none();
        for shard in 0..SHARDS {
            // Whoever has it will not have it the next time.
            let _ = hold.try_visit(shard, Shard::release_empty_parts);
        }
    }

    /// Calls `f` for every key of `db` in the slots `slots`, one shard's lock at a time.
    pub fn walk_slots(&self, hold: &mut Hold<'_>, db: usize, slot: usize, mut f: impl FnMut(&Entry)) {
        hold.visit(slot / SLOTS_PER_SHARD, |shard| {
            if let Some(part) = shard.part(db) {
                part.slot(slot % SLOTS_PER_SHARD).iter().for_each(&mut f);
            }
        });
    }

    /// The next slot at or after `slot` that has keys of `db`.
    pub fn next_filled(&self, hold: &mut Hold<'_>, db: usize, walked: Walked, mut slot: usize) -> Option<usize> {
        while slot < SHARDS * SLOTS_PER_SHARD {
            let filled = hold.visit(slot / SLOTS_PER_SHARD, |shard| shard.part(db).map_or(0, Part::filled));
            let filled = filled & !self.hidden.left_out(slot / SLOTS_PER_SHARD, walked);
            let left = filled >> (slot % SLOTS_PER_SHARD);
            if left != 0 {
                return Some(slot + left.trailing_zeros() as usize);
            }
            slot = (slot / SLOTS_PER_SHARD + 1) * SLOTS_PER_SHARD;
        }
        None
    }

    /// Visits entries from `cursor` on, in the order of their hashes, `budget` or a few more; returns
    /// the next cursor, 0 at the end.
    ///
    /// A cursor is a place in the order of hashes, less than 2^33: whatever is added or removed
    /// between calls, a key that is there all the time is visited, once.
    pub fn scan(
        &self,
        hold: &mut Hold<'_>,
        db: usize,
        walked: Walked,
        cursor: u64,
        budget: usize,
        mut f: impl FnMut(&Entry),
    ) -> u64 {
        const HASH_MASK: u64 = (1 << HASH_BITS) - 1;
        let mut slot = (cursor >> HASH_BITS) as usize;
        let mut from = (cursor & HASH_MASK) << (64 - HASH_BITS);
        let mut visited = 0;
        while let Some(filled) = self.next_filled(hold, db, walked, slot) {
            if filled != slot {
                (slot, from) = (filled, 0);
            }
            let next = hold.visit(slot / SLOTS_PER_SHARD, |shard| {
                let table = shard.part(db)?.slot(slot % SLOTS_PER_SHARD);
                table.scan(
                    from,
                    budget - visited,
                    |e| KeyHash::table_hash_of_bits(e.bits()),
                    |e| {
                        visited += 1;
                        f(e);
                    },
                )
            });
            match next {
                Some(next) => from = next,
                None => (slot, from) = (slot + 1, 0),
            }
            if visited >= budget {
                // A table goes on just behind what it visited, with more bits than an entry's hash has. Rounded down, the
                // last entry would be visited again; behind the last hash of all begins the next slot.
                let on = (slot as u64) << HASH_BITS;
                let on = on + from.div_ceil(1 << (64 - HASH_BITS));
                let more =
                    on & HASH_MASK != 0 || self.next_filled(hold, db, walked, (on >> HASH_BITS) as usize).is_some();
                return if more { on } else { 0 };
            }
        }
        0
    }

    /// A random key of `db` that clients are told of, each with about the same chance.
    pub fn random_key(
        &self,
        hold: &mut Hold<'_>,
        db: usize,
        rng: &mut fastrand::Rng,
    ) -> Option<(Vec<u8>, Option<u64>)> {
        let counts: Vec<u64> = (0..SHARDS).map(|shard| self.visible_in(hold, db, shard)).collect();
        let total: u64 = counts.iter().sum();
        let mut left = if total == 0 { return None } else { rng.u64(..total) };
        let shard = counts.iter().position(|&n| {
            if left < n {
                true
            } else {
                left -= n;
                false
            }
        })?;
        let hidden = self.hidden.of(shard);
        hold.visit(shard, |shard| {
            let part = shard.part(db)?;
            let mut slots = part.filled() & !hidden;
            while slots != 0 {
                let table = part.slot(slots.trailing_zeros() as usize);
                if left < table.len() as u64 {
                    return table.random(rng).map(|e| (e.key().to_vec(), e.deadline()));
                }
                left -= table.len() as u64;
                slots &= slots - 1;
            }
            None
        })
    }
}

/// What a flush took out: to be dropped in pieces, or on the thread that frees.
#[derive(Default)]
pub struct Flushed {
    /// How many keys there were.
    pub keys: u64,
    #[allow(clippy::vec_box, reason = "parts are taken out of their shards as they are: they are large")]
    parts: Vec<Box<Part>>,
    /// Tables of the part that is being freed.
    slots: Vec<Table<Entry>>,
    /// Entries of the table that is being freed.
    entries: Option<Box<dyn Iterator<Item = Entry> + Send>>,
}

impl Flushed {
    /// Frees `limit` keys, the large values among them on the thread for it; returns whether there is more.
    pub fn free_some(&mut self, keyspace: &Keyspace, mut limit: usize) -> bool {
        loop {
            if let Some(entries) = &mut self.entries {
                for entry in entries.by_ref().take(limit) {
                    keyspace.free(entry);
                    limit -= 1;
                }
                if limit == 0 {
                    return true;
                }
                self.entries = None;
            }
            if let Some(slot) = self.slots.pop() {
                self.entries = Some(Box::new(slot.into_values()));
            } else if let Some(part) = self.parts.pop() {
                self.slots.extend(part.into_slots().into_tables().filter(|slot| !slot.is_empty()));
            } else {
                return false;
            }
        }
    }
}

impl std::fmt::Debug for Flushed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flushed({} keys)", self.keys)
    }
}
