//! Snapshots: the data set as it was at one point in time, collected while commands go on.
//!
//! To begin, somebody who runs alone flips the parity of every shard: all entries that are there belong to the
//! snapshot now, and whatever is stored from here on does not. A thread of its own then goes from shard to shard,
//! holds each for a bounded batch at a time, takes the entries of the old parity and gives them the new one. Whoever
//! is about to change or remove an entry of the old parity has it taken first ([`Part`] sees to that). So every entry
//! is taken once, as it was when the snapshot began, and memory grows by what is changed before the thread gets there.
//!
//! Taking an entry is cheap: a short string becomes bytes at once, anything else is copied (a large value by reference
//! to its segments) and becomes bytes when no lock is held. A part that is flushed is handed over as a whole.
//!
//! What is taken because somebody is about to change it would wait for the walk to come along, and while many write that
//! is a good part of the data set. So a part hands over what it has as soon as that is a few kilobytes, and the walk writes
//! what was handed over before it goes on: the order of keys does not matter to a snapshot, and each is written once
//! in any case.
//!
//! What must stay true: a walk ends with every entry at the new parity, even if nobody wants the snapshot any longer,
//! for the next one flips them again. There is one at a time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::keyspace::entry::{Entry, Value};
use crate::keyspace::hold::Hold;
use crate::keyspace::shard::{Part, SHARDS, Shard};
use crate::observe::crash::prepare_thread;
use crate::stdx::priority::{Courtesy, stand_back};

/// Takes bytes out of a buffer that is growing, so that a large value needs no buffer of its size.
pub type Relief<'r> = Option<&'r mut (dyn FnMut(&mut Vec<u8>) + 'r)>;

/// Makes bytes of entries; knows the format.
pub trait Encode: Send + Sync {
    /// Appends an entry to `out`. Whenever that holds [`BATCH_BYTES`] or more, `relief` may be called, between any two
    /// elements of the entry.
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>, relief: Relief<'_>);
}

/// A longer string is copied and encoded later: compressing it takes longer than copying it.
const AT_ONCE_BYTES: usize = 20;
/// So many bytes, or entries, are collected before the lock is given back.
pub const BATCH_BYTES: usize = 64 * 1024;
const BATCH_ENTRIES: u64 = 1024;
/// About so many bytes an element of a collection takes.
const ELEMENT_BYTES: usize = 32;
/// So many batches are captured before the first of them is encoded.
const AHEAD: usize = 4;
/// So many bytes are kept in a part that the walk has not come to. There are some hundred parts, and what they keep is
/// what a snapshot costs at least.
const PART_BYTES: usize = 4 * 1024;
/// How long the walk, and the thread that encodes, keep a core from others who want it.
const WALK_TIME: Duration = Duration::from_micros(300);
const ENCODE_TIME: Duration = Duration::from_millis(1);

/// What was taken of one database in one shard.
pub struct Capture {
    db: usize,
    wanted: Option<Arc<dyn Encode>>,
    bytes: Vec<u8>,
    /// Entries that are yet to be encoded, and about how many bytes they are.
    kept: Vec<Entry>,
    kept_bytes: usize,
    entries: u64,
    progress: Progress,
    /// Where the walk goes on: the slot, and the hash in it.
    pub(crate) slot: usize,
    pub(crate) from: u64,
}

impl Capture {
    /// Takes an entry that is about to be changed or removed.
    pub fn take_before_change(&mut self, entry: &Entry) {
        self.take(entry);
        // From here on the snapshot alone may refer to what was shared.
        let shared = match entry.value() {
            Value::Int(_) | Value::Bytes(_) => 0,
            Value::Large(large) => large.bytes().len(),
            Value::Object(object) => object.len() * ELEMENT_BYTES,
        };
        if self.wanted.is_some() {
            self.kept_bytes += shared;
            self.progress.keeps(shared);
        }
        if self.bytes.len() + self.kept_bytes >= PART_BYTES {
            let collected = self.collected();
            self.progress.0.handed_over.lock().push(collected);
        }
    }

    /// Takes an entry.
    pub fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        let Some(encode) = &self.wanted else { return };
        let bytes = match entry.value() {
            Value::Bytes(bytes) if bytes.len() > AT_ONCE_BYTES => bytes.len(),
            Value::Int(_) | Value::Bytes(_) => {
                let before = self.bytes.len();
                encode.encode(entry, &mut self.bytes, None);
                return self.progress.keeps(self.bytes.len() - before);
            }
            // What is shared costs little.
            Value::Large(_) | Value::Object(_) => size_of::<Entry>(),
        };
        let bytes = bytes + entry.key().len() + size_of::<Entry>();
        self.kept_bytes += bytes;
        self.kept.push(entry.copy_as(entry.bits(), entry.key(), entry.deadline()));
        self.progress.keeps(bytes);
    }

    /// Whether so much was collected that the lock is to be given back.
    pub(crate) fn is_full(&self) -> bool {
        self.entries >= BATCH_ENTRIES || self.bytes.len() + self.kept_bytes >= BATCH_BYTES
    }

    /// What was collected so far; the rest goes on empty.
    pub(crate) fn collected(&mut self) -> Capture {
        if self.progress.is_stopped() {
            self.wanted = None;
        }
        Capture {
            db: self.db,
            wanted: self.wanted.clone(),
            bytes: std::mem::take(&mut self.bytes),
            kept: std::mem::take(&mut self.kept),
            kept_bytes: std::mem::take(&mut self.kept_bytes),
            entries: std::mem::take(&mut self.entries),
            progress: self.progress.clone(),
            slot: self.slot,
            from: self.from,
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Capture({} entries of database {})", self.entries, self.db)
    }
}

/// How many keys a database had, and how many of them a deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// All keys.
    pub keys: u64,
    /// Those with a deadline.
    pub volatile: u64,
}

/// What those see of a snapshot who do not take it: how far it is, and a way to stop it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Figures>);

#[derive(Debug, Default)]
struct Figures {
    stopped: AtomicBool,
    hurried: AtomicBool,
    done: AtomicU64,
    kept_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// What parts have handed over before the walk came to them.
    handed_over: Mutex<Vec<Capture>>,
}

impl Progress {
    /// Says that nobody wants it any longer.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// Says that nobody wants it slow any longer.
    pub fn hurry(&self) {
        self.0.hurried.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub fn is_hurried(&self) -> bool {
        self.0.hurried.load(Ordering::Relaxed)
    }

    /// How many keys it has so far.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// About how many bytes were taken and not written yet. A collection that was about to be changed counts as if it were
    /// there twice, though only the segments that did change are.
    pub fn kept_bytes(&self) -> u64 {
        self.0.kept_bytes.load(Ordering::Relaxed)
    }

    /// The most that these ever were.
    pub fn peak_bytes(&self) -> u64 {
        self.0.peak_bytes.load(Ordering::Relaxed)
    }

    fn keeps(&self, bytes: usize) {
        let now = self.0.kept_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if now > self.0.peak_bytes.load(Ordering::Relaxed) {
            self.0.peak_bytes.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn gave(&self, bytes: usize) {
        self.0.kept_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// What a keyspace knows of the snapshot that is being taken.
#[derive(Debug, Default)]
pub struct Running {
    active: AtomicBool,
    /// Parts that were flushed before the snapshot had all of their entries.
    #[allow(clippy::vec_box, reason = "parts are taken out of their shards as they are: they are large")]
    flushed: Mutex<Vec<Box<Part>>>,
}

impl Running {
    /// Whether one is being taken.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Ends a snapshot that nobody can walk, without its reader; `hold` holds every shard.
    pub fn forget(&self, hold: &mut Hold<'_>) {
        let snapshot = Snapshot { sizes: BTreeMap::new(), progress: Progress::default() };
        snapshot.progress.stop();
        // It was stopped, which is what it says.
        let _ = snapshot.walk(self, hold, |_| Ok::<(), ()>(()));
    }

    /// Takes over a part that was flushed; gives it back where no snapshot needs it.
    pub fn take_over(&self, mut part: Box<Part>) -> Option<Box<Part>> {
        if part.capture_mut().is_none() {
            return Some(part);
        }
        self.flushed.lock().push(part);
        None
    }
}

/// A snapshot that has begun. It must be walked to the end, whatever happens to its reader.
#[must_use = "a snapshot that is not walked keeps every other from beginning"]
#[derive(Debug)]
pub struct Snapshot {
    /// How many keys each database had.
    pub sizes: BTreeMap<usize, Size>,
    /// How far it is, and the way to stop it.
    pub progress: Progress,
}

/// Some keys of one database.
pub struct Piece<'p> {
    /// The database that they were in when the snapshot began.
    pub db: usize,
    /// How many there are.
    pub keys: u64,
    /// What [`Encode`] made of them.
    pub bytes: &'p [u8],
}

impl Snapshot {
    /// Begins a snapshot of what `hold`, which holds every shard, has now; `None` while another is being taken.
    ///
    /// Costs some microseconds per database, whatever its size.
    pub fn begin(running: &Running, hold: &mut Hold<'_>, encode: Arc<dyn Encode>) -> Option<Snapshot> {
        Snapshot::begin_in(running, hold, 0..SHARDS, encode)
    }

    /// The same of these shards alone.
    pub fn begin_in(
        running: &Running,
        hold: &mut Hold<'_>,
        shards: impl IntoIterator<Item = usize>,
        encode: Arc<dyn Encode>,
    ) -> Option<Snapshot> {
        if running.active.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut snapshot = Snapshot { sizes: BTreeMap::new(), progress: Progress::default() };
        for shard in shards {
            hold.shard(shard).begin_generation(|db, part| {
                let size = snapshot.sizes.entry(db).or_default();
                size.keys += part.len() as u64;
                size.volatile += part.volatile().len() as u64;
                Capture {
                    db,
                    wanted: Some(encode.clone()),
                    bytes: Vec::new(),
                    kept: Vec::new(),
                    kept_bytes: 0,
                    entries: 0,
                    progress: snapshot.progress.clone(),
                    slot: 0,
                    from: 0,
                }
            });
        }
        Some(snapshot)
    }

    /// How many keys it has in all.
    pub fn keys(&self) -> u64 {
        self.sizes.values().map(|size| size.keys).sum()
    }

    /// Walks over all shards and calls `sink` for what it finds, batch by batch, with no lock held. `hold` holds
    /// nothing, or everything.
    ///
    /// # Errors
    /// The first of `sink`, which is not called again; `None` where the snapshot was stopped. It is over in any case
    /// when this returns.
    pub fn walk<E: Send>(
        self,
        running: &Running,
        hold: &mut Hold<'_>,
        mut sink: impl FnMut(Piece<'_>) -> Result<(), E> + Send,
    ) -> Result<(), Option<E>> {
        let progress = self.progress;
        let (bytes, sink) = (Vec::new(), &mut sink);
        let mut feed = Feed { db: 0, keys: 0, bytes, failed: None, progress: &progress, sink, courtesy: None };
        let apart = hold.held().is_empty()
            && thread::scope(|scope| {
                let (sender, receiver) = sync_channel(AHEAD);
                let (hold, feed) = (&mut *hold, &mut feed);
                let encode = move || {
                    prepare_thread();
                    stand_back();
                    feed.courtesy = Some(Courtesy::every(ENCODE_TIME));
                    for capture in receiver {
                        feed.add(capture);
                        feed.add_handed_over();
                    }
                };
                let walk = move || {
                    prepare_thread();
                    // After a panic of the sink's nobody receives, and all must be turned nevertheless.
                    let mut courtesy = Courtesy::every(WALK_TIME);
                    capture_all(hold, |capture| {
                        drop(sender.send(capture));
                        courtesy.give_way();
                    });
                };
                // Without a walk nothing is sent, and the one that encodes ends.
                let start = |name: &str| thread::Builder::new().name(name.into());
                start("encode").spawn_scoped(scope, encode).is_ok() && start("walk").spawn_scoped(scope, walk).is_ok()
            });
        if !apart {
            capture_all(hold, |capture| {
                feed.add(capture);
                feed.add_handed_over();
            });
        }
        // Whatever could still be flushed was done with, so nothing is added to these.
        for mut part in std::mem::take(&mut *running.flushed.lock()) {
            while let Some((capture, flow)) = part.capture_some() {
                feed.add(capture);
                if flow == ControlFlow::Break(()) {
                    break;
                }
            }
        }
        feed.add_handed_over();
        feed.pass_on();
        let failed = feed.failed;
        running.active.store(false, Ordering::Release);
        match failed {
            Some(error) => Err(Some(error)),
            None if progress.is_stopped() => Err(None),
            None => Ok(()),
        }
    }
}

/// Captures all that is there, batch by batch.
///
/// What becomes of the batches is another thread's work where there can be one: this one then sleeps most of the time, and
/// who sleeps most of the time is not sent to sleep by the system while it holds a shard that clients wait for. The other
/// one holds nothing, and lets clients go first.
fn capture_all(hold: &mut Hold<'_>, mut captured: impl FnMut(Capture)) {
    for shard in 0..SHARDS {
        while let Some((capture, _)) = hold.visit(shard, |shard: &mut Shard| shard.captured_mut()?.capture_some()) {
            captured(capture);
        }
    }
}

/// Encodes what was captured, and passes it on in pieces.
struct Feed<'f, S, E> {
    /// Of what database `bytes` are.
    db: usize,
    /// How many keys end in them.
    keys: u64,
    bytes: Vec<u8>,
    failed: Option<E>,
    progress: &'f Progress,
    sink: &'f mut S,
    /// Of the thread that does nothing else.
    courtesy: Option<Courtesy>,
}

impl<E, S: FnMut(Piece<'_>) -> Result<(), E>> Feed<'_, S, E> {
    fn add(&mut self, capture: Capture) {
        let Capture { db, wanted, bytes, kept, kept_bytes, entries, .. } = capture;
        if self.db != db {
            self.pass_on();
            self.db = db;
        }
        if let Some(encode) = wanted.filter(|_| !self.progress.is_stopped()) {
            self.bytes.extend_from_slice(&bytes);
            self.keys += entries - kept.len() as u64;
            for entry in kept {
                let Feed { keys, bytes, failed, progress, sink, courtesy, .. } = self;
                let mut relief = |bytes: &mut Vec<u8>| {
                    give(bytes, db, keys, failed, progress, sink);
                    courtesy.iter_mut().for_each(Courtesy::give_way);
                };
                encode.encode(&entry, bytes, Some(&mut relief));
                self.keys += 1;
                if self.bytes.len() >= BATCH_BYTES {
                    self.pass_on();
                }
            }
        }
        self.progress.gave(bytes.len() + kept_bytes);
        self.progress.0.done.fetch_add(entries, Ordering::Relaxed);
    }

    /// Adds what parts have handed over, and what they hand over meanwhile.
    fn add_handed_over(&mut self) {
        loop {
            let handed_over = std::mem::take(&mut *self.progress.0.handed_over.lock());
            if handed_over.is_empty() {
                return;
            }
            handed_over.into_iter().for_each(|capture| self.add(capture));
        }
    }

    fn pass_on(&mut self) {
        let Feed { db, keys, bytes, failed, progress, sink, courtesy } = self;
        give(bytes, *db, keys, failed, progress, sink);
        courtesy.iter_mut().for_each(Courtesy::give_way);
    }
}

fn give<E>(
    bytes: &mut Vec<u8>,
    db: usize,
    keys: &mut u64,
    failed: &mut Option<E>,
    progress: &Progress,
    sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
) {
    if failed.is_none()
        && !progress.is_stopped()
        && !bytes.is_empty()
        && let Err(error) = sink(Piece { db, keys: *keys, bytes })
    {
        *failed = Some(error);
        // The others are to be turned only, not encoded.
        progress.stop();
    }
    bytes.clear();
    *keys = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::change::Effects;
    use crate::keyspace::db::{Db, Expiry, Touch};
    use crate::keyspace::entry::Str;
    use crate::keyspace::hash::Routing;
    use crate::keyspace::hold::ShardSet;
    use crate::keyspace::moment::{AccessPolicy, Moment};
    use crate::keyspace::space::{Keyspace, Patience};
    use proptest::prelude::*;

    /// A line for each entry.
    struct Lines;

    impl Encode for Lines {
        fn encode(&self, entry: &Entry, out: &mut Vec<u8>, _relief: Relief<'_>) {
            out.extend_from_slice(entry.key());
            out.push(b'=');
            match entry.value() {
                Value::Int(n) => out.extend_from_slice(n.to_string().as_bytes()),
                Value::Bytes(bytes) => out.extend_from_slice(bytes),
                Value::Large(large) => out.extend_from_slice(large.bytes()),
                Value::Object(object) => out.extend_from_slice(object.len().to_string().as_bytes()),
            }
            if let Some(deadline) = entry.deadline() {
                out.extend_from_slice(format!("@{deadline}").as_bytes());
            }
            out.push(b'\n');
        }
    }

    type Model = BTreeMap<(usize, String), (String, Option<u64>)>;

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, u16, usize, Option<u64>),
        Append(usize, u16),
        Deadline(usize, u16, Option<u64>),
        Remove(usize, u16),
        Rename(usize, u16, u16),
        Expire,
        Flush(usize),
        Swap(usize, usize),
        Tidy,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (db, key) = (0..3usize, 0..80u16);
        let len = prop_oneof![4 => 0..60usize, 1 => 9000..9003usize];
        let deadline = prop::option::of(2000..2020u64);
        prop_oneof![
            30 => (db.clone(), key.clone(), len, deadline.clone()).prop_map(|(d, k, n, t)| Step::Set(d, k, n, t)),
            8 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Append(d, k)),
            4 => (db.clone(), key.clone(), deadline).prop_map(|(d, k, t)| Step::Deadline(d, k, t)),
            8 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Remove(d, k)),
            4 => (db.clone(), key.clone(), key).prop_map(|(d, k, l)| Step::Rename(d, k, l)),
            1 => Just(Step::Expire),
            1 => db.clone().prop_map(Step::Flush),
            1 => (db.clone(), db).prop_map(|(a, b)| Step::Swap(a, b)),
            1 => Just(Step::Tidy),
        ]
    }

    fn name(key: u16) -> String {
        format!("key:{key}")
    }

    /// Does a step to a keyspace and to what it should hold.
    fn run(keyspace: &Keyspace, model: &mut Model, step: Step) {
        let mut effects = Effects::default();
        match step {
            Step::Expire => {
                for shard in 0..SHARDS {
                    keyspace.expire_shard(shard, Patience::Wait, || 2010, &mut effects, |_, _| {});
                }
                return model.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline >= 2010));
            }
            Step::Tidy => return keyspace.release_empty(),
            _ => {}
        }
        let moment = Moment { now_ms: 1000, policy: AccessPolicy::Lru };
        let hold = keyspace.hold(ShardSet::ALL);
        let mut db = Db::new(keyspace, hold, &mut effects, 0, moment, Touch::Yes);
        match step {
            Step::Set(index, key, len, deadline) => {
                let (key, value) = (name(key), "v".repeat(len));
                db.select(index);
                let expiry = deadline.map_or(Expiry::Clear, Expiry::At);
                db.set(&db.key(key.as_bytes()), Str::Bytes(value.as_bytes()), expiry);
                model.insert((index, key), (value, deadline));
            }
            Step::Append(index, key) => {
                let key = name(key);
                db.select(index);
                let changed = db.update(&db.key(key.as_bytes()), |entry| {
                    if let Some(bytes) = entry.large_mut() {
                        return bytes.push(b'+');
                    }
                    let Value::Bytes(bytes) = entry.value() else { unreachable!("the others are large") };
                    let bytes = [bytes, b"+"].concat();
                    entry.set_string(Str::Raw(&bytes));
                });
                let known = model.get_mut(&(index, key));
                assert_eq!(changed.is_some(), known.is_some());
                known.into_iter().for_each(|(value, _)| value.push('+'));
            }
            Step::Deadline(index, key, deadline) => {
                let key = name(key);
                db.select(index);
                db.set_deadline(&db.key(key.as_bytes()), deadline);
                model.entry((index, key)).and_modify(|(_, known)| *known = deadline);
            }
            Step::Remove(index, key) => {
                let key = name(key);
                db.select(index);
                assert_eq!(db.remove(&db.key(key.as_bytes())), model.remove(&(index, key)).is_some());
            }
            Step::Rename(index, from, to) => {
                let (from, to) = (name(from), name(to));
                db.select(index);
                if let Some(entry) = db.take(&db.key(from.as_bytes())) {
                    let key = db.key(to.as_bytes());
                    db.remove(&key);
                    let deadline = entry.deadline();
                    db.insert(&key, entry.renamed(key.hash.bits(), to.as_bytes(), deadline));
                    let value = model.remove(&(index, from)).expect("it was there");
                    model.insert((index, to), value);
                }
            }
            Step::Flush(index) => {
                let mut flushed = keyspace.take_all(&mut db.hold, Some(index));
                while flushed.free_some(keyspace, 10) {}
                model.retain(|(at, _), _| *at != index);
            }
            Step::Swap(a, b) => {
                (0..SHARDS).filter(|_| a != b).for_each(|shard| db.hold.shard(shard).swap_parts(a, b));
                let turned = |db| {
                    if db == a {
                        b
                    } else if db == b {
                        a
                    } else {
                        db
                    }
                };
                *model = std::mem::take(model).into_iter().map(|((db, key), v)| ((turned(db), key), v)).collect();
            }
            Step::Expire | Step::Tidy => unreachable!("done above"),
        }
    }

    fn begin(keyspace: &Keyspace) -> Option<Snapshot> {
        Snapshot::begin(keyspace.snapshot(), &mut keyspace.hold(ShardSet::ALL), Arc::new(Lines))
    }

    /// What a snapshot holds during which a step of `meanwhile` happens after each batch.
    fn taken(keyspace: &Keyspace, model: &mut Model, meanwhile: &mut (dyn Iterator<Item = Step> + Send)) -> Model {
        let snapshot = begin(keyspace).expect("no other is being taken");
        assert!(begin(keyspace).is_none(), "there is one at a time");
        let (all, progress) = (snapshot.keys(), snapshot.progress.clone());
        assert_eq!(all, model.len() as u64);
        // Before the walk, too.
        (&mut *meanwhile).take(5).for_each(|step| run(keyspace, model, step));
        let mut found = Model::new();
        let walked = snapshot.walk(keyspace.snapshot(), &mut keyspace.hold_none(), |piece| {
            let text = std::str::from_utf8(piece.bytes).map_err(|_| ())?;
            assert_eq!(text.lines().count() as u64, piece.keys);
            for line in text.lines() {
                let (key, value) = line.split_once('=').ok_or(())?;
                let (value, deadline) = match value.split_once('@') {
                    Some((value, deadline)) => (value, deadline.parse().ok()),
                    None => (value, None),
                };
                let twice = found.insert((piece.db, key.to_owned()), (value.to_owned(), deadline));
                assert!(twice.is_none(), "{key} was taken twice");
            }
            meanwhile.next().into_iter().for_each(|step| run(keyspace, model, step));
            Ok::<(), ()>(())
        });
        assert_eq!(walked, Ok(()));
        assert_eq!(progress.done(), all);
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 100 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_snapshot_holds_what_was_there_when_it_began_whatever_happens_meanwhile(
            before in prop::collection::vec(step(), 0..300),
            meanwhile in prop::collection::vec(step(), 0..200),
            stopped in any::<bool>(),
        ) {
            let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
            let mut model = Model::new();
            before.into_iter().for_each(|step| run(&keyspace, &mut model, step));
            if stopped {
                // One that was stopped leaves everything as the next one needs it.
                let snapshot = begin(&keyspace).unwrap();
                run(&keyspace, &mut model, Step::Set(0, 1, 3, None));
                let walked = snapshot.walk(keyspace.snapshot(), &mut keyspace.hold_none(), |_| Err(5));
                prop_assert!(matches!(walked, Ok(()) | Err(Some(5))));
            }
            let mut meanwhile = meanwhile.into_iter();
            for _ in 0..3 {
                let was = model.clone();
                prop_assert_eq!(taken(&keyspace, &mut model, &mut meanwhile), was);
            }
        }
    }

    #[test]
    fn many_keys_are_walked_in_bounded_batches() {
        let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
        let mut model = Model::new();
        let keys = if cfg!(miri) { 300 } else { 60_000 };
        let db = |index, f: &mut dyn FnMut(&mut Db<'_>)| {
            let mut effects = Effects::default();
            let moment = Moment { now_ms: 1000, policy: AccessPolicy::Lru };
            f(&mut Db::new(&keyspace, keyspace.hold(ShardSet::ALL), &mut effects, index, moment, Touch::Yes));
        };
        db(0, &mut |db| {
            for n in 0..keys {
                let (key, value) = (format!("key:{n}"), "v".repeat(n % 100));
                db.set(&db.key(key.as_bytes()), Str::Bytes(value.as_bytes()), Expiry::Clear);
                model.insert((0, key), (value, None));
            }
        });
        let was = model.clone();
        let mut steps = (0..u16::MAX).map(|n| Step::Set(0, n, 7, None));
        assert_eq!(taken(&keyspace, &mut model, &mut steps), was);
        let was = model.clone();
        assert_eq!(taken(&keyspace, &mut model, &mut std::iter::empty()), was);
    }

    #[test]
    fn what_is_changed_before_the_walk_comes_along_is_not_kept_until_then() {
        let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
        let keys = if cfg!(miri) { 50 } else { 60_000u32 };
        let set = |from: u32, to: u32, value: &str| {
            let mut effects = Effects::default();
            let moment = Moment { now_ms: 1000, policy: AccessPolicy::Lru };
            let mut db = Db::new(&keyspace, keyspace.hold(ShardSet::ALL), &mut effects, 0, moment, Touch::Yes);
            for n in from..to {
                let key = format!("key:{n}");
                db.set(&db.key(key.as_bytes()), Str::Bytes(value.as_bytes()), Expiry::Clear);
            }
        };
        let (before, after) = ("a".repeat(100), "b".repeat(100));
        set(0, keys, &before);
        let snapshot = begin(&keyspace).unwrap();
        let progress = snapshot.progress.clone();
        // As fast as the walk takes keys, others are changed.
        let (mut next, mut taken) = (0, 0);
        let walked = snapshot.walk(keyspace.snapshot(), &mut keyspace.hold_none(), |piece| {
            let text = std::str::from_utf8(piece.bytes).map_err(|_| ())?;
            assert!(text.lines().all(|line| line.ends_with(&before)));
            assert!(text.len() < 2 * BATCH_BYTES);
            taken += text.lines().count();
            let to = keys.min(next + 500);
            set(next, to, &after);
            next = to;
            Ok::<(), ()>(())
        });
        assert_eq!((walked, taken), (Ok(()), keys as usize));
        let (kept, most) = (progress.peak_bytes(), SHARDS * PART_BYTES + 4 * BATCH_BYTES);
        assert!(kept > 0 && kept < most as u64, "{kept} bytes were kept");
        assert_eq!(progress.kept_bytes(), 0);
    }

    #[test]
    fn a_stopped_snapshot_ends_without_an_error_of_its_own() {
        let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
        let mut model = Model::new();
        run(&keyspace, &mut model, Step::Set(0, 1, 3, None));
        let snapshot = begin(&keyspace).unwrap();
        snapshot.progress.clone().stop();
        let walked = snapshot.walk(keyspace.snapshot(), &mut keyspace.hold_none(), |_| Err::<(), i32>(5));
        assert_eq!(walked, Err(None));
        assert!(!keyspace.snapshot().is_active());
    }
}
