//! Reading a whole data set: a file becomes keys of the keyspace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::table::Config;
use crate::keyspace::hold::Hold;
use crate::keyspace::moment::{AccessPolicy, Moment};
use crate::keyspace::space::Keyspace;
use crate::observe::log::notice;
use crate::persist::rdb::file::{About, RawKey, Record, Records};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::{Decoded, Limits};
use crate::persist::rdb::{Dialect, Error, Reason, Result};
use crate::stdx::number::parse_i64;
use crate::stdx::priority::{Courtesy, stand_back};

/// How often who delays looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is told: after so many records.
const STRIDE: u64 = 256;

/// What becomes of keys whose deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// They are left out: a primary reads its own file.
    Drop,
    /// They are stored: it is for the primary, or for what follows in the log, to remove them.
    Keep,
}

/// What becomes of keys that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// The file is damaged.
    Refuse,
    /// The file's value takes the place of the other.
    Replace,
}

/// How a file is read.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// The configuration: encodings, number of databases, checksum.
    pub config: &'a Config,
    /// The time, and how accesses are noted.
    pub moment: Moment,
    /// Keys whose deadline has passed.
    pub overdue: Overdue,
    /// Keys that exist already.
    pub twice: Twice,
    /// Whether others are served meanwhile, who go first.
    pub behind: bool,
}

/// How far it is; for whoever asks meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// How many bytes were read.
    pub bytes: AtomicU64,
    /// Memory that was in use when the file was written, if it says so.
    pub used_memory: AtomicU64,
    /// Nobody wants it any longer.
    pub stopped: AtomicBool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// How many keys were stored.
    pub keys: u64,
    /// How many were left out because their deadline had passed.
    pub expired: u64,
    /// Which ones these were.
    pub late: Late,
    /// Keys without a value, which were left out.
    pub empty: Vec<Vec<u8>>,
    /// What the file says about itself.
    pub aux: Vec<(Vec<u8>, Vec<u8>)>,
    /// The sources of libraries of functions.
    pub functions: Vec<Vec<u8>>,
    /// Modules whose data beside their values was passed over.
    pub modules: Vec<String>,
}

/// Keys that were left out because their deadline had passed: replicas that have the data set of the file still have
/// them.
#[derive(Debug, Default)]
pub struct Late {
    /// The keys, each with its database, unless they are too many.
    pub keys: Vec<(usize, Vec<u8>)>,
    /// How many bytes of a stream it takes to tell of all of them, about.
    pub bytes: u64,
}

impl Late {
    /// What a DEL takes beside the name of its key, in bytes.
    const WORDS: usize = 30;

    fn add(&mut self, db: usize, key: &[u8], most: u64) {
        self.bytes += (key.len() + Late::WORDS) as u64;
        if self.bytes <= most {
            self.keys.push((db, key.to_vec()));
        }
    }

    fn join(&mut self, other: Late, most: u64) {
        self.bytes += other.bytes;
        if self.bytes <= most {
            self.keys.extend(other.keys);
        } else {
            self.keys = Vec::new();
        }
    }
}

impl Loaded {
    /// What the file says about itself under this name.
    pub fn aux(&self, name: &str) -> Option<&[u8]> {
        self.aux.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, text)| &**text)
    }
}

/// The clock of a key of which `about` is known.
pub fn clock(moment: &Moment, about: &About) -> u32 {
    match (moment.policy, about.idle_seconds, about.frequency) {
        (AccessPolicy::Lru, Some(seconds), _) => moment.clock_for_idle(seconds),
        (AccessPolicy::Lfu { .. }, _, Some(frequency)) => moment.clock_for_frequency(frequency),
        _ => moment.initial_clock(),
    }
}

/// So many bytes of keys are handed to a thread at once.
const BATCH_BYTES: usize = 64 * 1024;
/// How long a thread that stands behind others keeps a core from them.
const STORE_TIME: Duration = Duration::from_millis(1);

/// Keys on their way to a thread that reads and stores them.
struct Batch {
    db: usize,
    bytes: Vec<u8>,
    keys: Vec<RawKey>,
}

/// What stores keys: one for each thread.
struct Store<'a> {
    /// Where to; `None` where they are only read.
    keyspace: Option<(&'a Keyspace, Hold<'a>)>,
    manner: Manner<'a>,
    limits: Limits<'a>,
    progress: &'a Progress,
    stored: Stored,
}

/// What one thread has stored.
#[derive(Default)]
struct Stored {
    keys: u64,
    expired: u64,
    late: Late,
    empty: Vec<Vec<u8>>,
}

impl<'a> Store<'a> {
    fn new(
        keyspace: Option<&'a Keyspace>,
        manner: Manner<'a>,
        limits: Limits<'a>,
        progress: &'a Progress,
    ) -> Store<'a> {
        let keyspace = keyspace.map(|keyspace| (keyspace, keyspace.hold_none()));
        Store { keyspace, manner, limits, progress, stored: Stored::default() }
    }

    fn is_stopped(&self) -> bool {
        self.progress.stopped.load(Ordering::Relaxed)
    }

    /// Sleeps as long as somebody wants what is read.
    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn is_over(&self, about: &About) -> bool {
        let now_ms = self.manner.moment.now_ms;
        self.manner.overdue == Overdue::Drop && about.deadline.is_some_and(|deadline| deadline < now_ms)
    }

    /// Stores a key.
    ///
    /// # Errors
    /// What is to be said of a key that is there already.
    fn put(&mut self, db: usize, key: &[u8], about: &About, value: Decoded) -> std::result::Result<(), String> {
        let replace = self.manner.twice == Twice::Replace;
        if self.is_over(about) {
            self.stored.expired += 1;
            self.stored.late.add(db, key, self.manner.config.repl_backlog_size);
            return Ok(());
        }
        let Some((keyspace, hold)) = &mut self.keyspace else {
            self.stored.keys += 1;
            return Ok(());
        };
        let keyspace: &Keyspace = keyspace;
        let hash = keyspace.hasher().hash(key);
        let entry = value.into_entry(hash.bits(), key, about.deadline, clock(&self.manner.moment, about));
        let shard = hash.shard();
        let deadlines = [entry.deadline(), entry.field_deadline()];
        let twice = hold.visit(shard, |held| {
            let part = held.part_or_new(db);
            if part.find(hash, key).is_some() {
                if !replace {
                    return true;
                }
                part.remove(hash, key).into_iter().for_each(|old| keyspace.free(old));
            }
            part.insert(hash, entry);
            for deadline in deadlines.into_iter().flatten() {
                keyspace.note_deadline(shard, deadline);
            }
            false
        });
        if twice {
            return Err(format!("RDB has duplicated key '{}' in DB {db}", key.escape_ascii()));
        }
        self.stored.keys += 1;
        match self.manner.config.key_load_delay {
            0 => {}
            us @ 1.. => self.sleep(Duration::from_micros(us.unsigned_abs().into())),
            // A microsecond after so many keys.
            keys if self.stored.keys.is_multiple_of(keys.unsigned_abs().into()) => {
                std::thread::sleep(Duration::from_micros(1));
            }
            _ => {}
        }
        Ok(())
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        for raw in &batch.keys {
            let (key, value) = raw.read(&batch.bytes, self.limits)?;
            let Some(value) = value else {
                self.stored.empty.push(key);
                continue;
            };
            self.put(batch.db, &key, &raw.about, value)
                .map_err(|what| Error { offset: raw.offset, reason: Reason::Corrupt(what.into()) })?;
        }
        Ok(())
    }
}

/// Reads a file into the keyspace, of which the caller holds nothing, on `threads` threads. What it had read before an
/// error stays. `reader` stands behind the file when this returns.
///
/// One thread finds where keys begin and end, and sums; the others read and store them. Large values are read by the
/// first, as they come.
///
/// # Errors
/// Whatever is wrong with the file; [`Reason::Stopped`] where `progress` was told to stop.
pub fn load(
    keyspace: &Keyspace,
    reader: &mut Reader<'_>,
    manner: Manner<'_>,
    threads: usize,
    progress: &Progress,
) -> Result<Loaded> {
    read(Some(keyspace), reader, manner, threads, progress)
}

/// Reads a file as [`load`] does and keeps nothing of it, so that it is known to be good before anything is given up for it.
/// What goes unnoticed is a key that the file has twice.
///
/// # Errors
/// As with [`load`].
pub fn check(reader: &mut Reader<'_>, manner: Manner<'_>, threads: usize, progress: &Progress) -> Result<Loaded> {
    read(None, reader, manner, threads, progress)
}

fn read(
    keyspace: Option<&Keyspace>,
    reader: &mut Reader<'_>,
    manner: Manner<'_>,
    threads: usize,
    progress: &Progress,
) -> Result<Loaded> {
    let limits = Limits {
        config: manner.config,
        dialect: Dialect::Redis,
        now_ms: (manner.overdue == Overdue::Drop).then_some(manner.moment.now_ms),
    };
    let mut records = Records::new(reader, limits, manner.config.rdbchecksum)?;
    let limits = records.limits();
    let mut loaded = Loaded::default();
    // The first error of those who store; whoever sees it stops.
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let (sender, receiver) = sync_channel::<Batch>(2 * threads);
    let (receiver, finished) = (Mutex::new(receiver), Mutex::new(Vec::new()));
    let walked = std::thread::scope(|scope| {
        let work = || {
            let mut store = Store::new(keyspace, manner, limits, progress);
            if manner.behind {
                stand_back();
            }
            let mut courtesy = Courtesy::every(STORE_TIME);
            loop {
                let batch = receiver.lock().recv();
                let Ok(batch) = batch else { break };
                // After an error batches are only taken, so that nobody waits.
                if failed.lock().is_none()
                    && let Err(error) = store.put_batch(&batch)
                {
                    failed.lock().get_or_insert(error);
                }
                if manner.behind {
                    courtesy.give_way();
                }
            }
            finished.lock().push(store.stored);
        };
        let start = |_: &usize| std::thread::Builder::new().name("load".into()).spawn_scoped(scope, work).is_ok();
        // Where there is one core, or the system refuses threads, or it is to be slow, everything is done here.
        let apart = threads > 1 && manner.config.key_load_delay == 0;
        if apart && (0..threads).filter(start).count() > 0 {
            records.pass_over_keys();
        }
        let mut store = Store::new(keyspace, manner, limits, progress);
        let walked = walk(&mut records, &mut store, &mut loaded, progress, |batch| {
            // The receiver is there as long as we are.
            let _ = sender.send(batch);
            failed.lock().is_none()
        });
        drop(sender);
        finished.lock().push(store.stored);
        walked
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    walked?;
    for stored in finished.into_inner() {
        loaded.keys += stored.keys;
        loaded.expired += stored.expired;
        loaded.late.join(stored.late, manner.config.repl_backlog_size);
        loaded.empty.extend(stored.empty);
    }
    Ok(loaded)
}

/// Logs what a file says about itself.
fn tell(name: &[u8], text: &[u8], moment: &Moment, progress: &Progress) {
    let number = parse_i64(text);
    match (name, number) {
        (b"redis-ver", _) => notice!("Loading RDB produced by version {}", text.escape_ascii()),
        (b"valkey-ver", _) => notice!("Loading RDB produced by Valkey version {}", text.escape_ascii()),
        (b"ctime", Some(written)) => {
            let now = i64::try_from(moment.now_ms / 1000).unwrap_or(i64::MAX);
            notice!("RDB age {} seconds", now.saturating_sub(written).max(0));
        }
        (b"used-mem", Some(used)) => {
            notice!("RDB memory usage when created {:.2} Mb", used as f64 / (1024.0 * 1024.0));
            progress.used_memory.store(used.max(0).cast_unsigned(), Ordering::Relaxed);
        }
        (b"aof-base", Some(1)) => notice!("RDB is base AOF"),
        _ => {}
    }
}

/// Goes from record to record; `hand_over` gets keys that were passed over, and says whether to go on.
fn walk(
    records: &mut Records<'_, '_, '_>,
    store: &mut Store<'_>,
    loaded: &mut Loaded,
    progress: &Progress,
    mut hand_over: impl FnMut(Batch) -> bool,
) -> Result<()> {
    let databases = u64::from(store.manner.config.databases);
    let (mut db, mut count, mut keys) = (0, 0u64, Vec::new());
    while let Some(record) = records.next()? {
        count += 1;
        if count.is_multiple_of(STRIDE) {
            progress.bytes.store(records.reader.offset(), Ordering::Relaxed);
        }
        if store.is_stopped() {
            return Err(records.reader.error(Reason::Stopped));
        }
        match record {
            Record::Raw(key) => {
                keys.push(key);
                if records.collected() >= BATCH_BYTES
                    && !hand_over(Batch { db, bytes: records.batch(), keys: std::mem::take(&mut keys) })
                {
                    return Err(records.reader.error(Reason::Stopped));
                }
            }
            Record::Key(key, about, value) => {
                store.put(db, &key, &about, value).map_err(|what| records.reader.corrupt(what))?;
            }
            Record::Select(index) => {
                if !keys.is_empty() {
                    hand_over(Batch { db, bytes: records.batch(), keys: std::mem::take(&mut keys) });
                }
                if index >= databases {
                    return Err(records.reader.corrupt(format!(
                        "FATAL: Data file was created with a Redis server configured to handle more than {databases} databases. Exiting"
                    )));
                }
                db = index as usize;
            }
            Record::Empty(key) => store.stored.empty.push(key),
            Record::Aux(name, text) => {
                if store.keyspace.is_some() {
                    tell(&name, &text, &store.manner.moment, progress);
                }
                loaded.aux.push((name, text));
            }
            Record::Function(source) => loaded.functions.push(source),
            Record::ModuleAux(name) => loaded.modules.push(name),
            // Tables grow in small steps: there is nothing to be prepared.
            Record::Size(..) => {}
        }
    }
    if !keys.is_empty() {
        hand_over(Batch { db, bytes: records.batch(), keys });
    }
    progress.bytes.store(records.reader.offset(), Ordering::Relaxed);
    Ok(())
}
