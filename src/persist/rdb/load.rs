//! Reading a whole data set: a file becomes keys of the keyspace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::table::Config;
use crate::keyspace::hold::Hold;
use crate::keyspace::moment::{AccessPolicy, Moment};
use crate::keyspace::space::Keyspace;
use crate::persist::rdb::file::{About, Record, Records};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::Limits;
use crate::persist::rdb::{Dialect, Reason, Result};

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
}

/// How far it is; for whoever asks meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    /// How many bytes were read.
    pub bytes: AtomicU64,
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
    /// Keys without a value, which were left out.
    pub empty: Vec<Vec<u8>>,
    /// What the file says about itself.
    pub aux: Vec<(Vec<u8>, Vec<u8>)>,
    /// The sources of libraries of functions.
    pub functions: Vec<Vec<u8>>,
    /// Modules whose data beside their values was passed over.
    pub modules: Vec<String>,
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

/// Reads a file into the keyspace; `hold` holds nothing or everything. What it had read before an error stays.
/// `reader` stands behind the file when this returns.
///
/// # Errors
/// Whatever is wrong with the file; [`Reason::Stopped`] where `progress` was told to stop.
pub fn load(
    keyspace: &Keyspace,
    hold: &mut Hold<'_>,
    reader: Reader<'_>,
    manner: Manner<'_>,
    progress: &Progress,
) -> Result<Loaded> {
    let now_ms = manner.moment.now_ms;
    let limits = Limits {
        config: manner.config,
        dialect: Dialect::Redis,
        now_ms: (manner.overdue == Overdue::Drop).then_some(now_ms),
    };
    let mut records = Records::new(reader, limits, manner.config.rdbchecksum)?;
    let mut loaded = Loaded::default();
    let (mut db, mut count) = (0, 0u64);
    while let Some(record) = records.next()? {
        count += 1;
        if count.is_multiple_of(STRIDE) {
            progress.bytes.store(records.reader.offset(), Ordering::Relaxed);
            if progress.stopped.load(Ordering::Relaxed) {
                return Err(records.reader.error(Reason::Stopped));
            }
        }
        match record {
            Record::Key(key, about, value) => {
                if manner.overdue == Overdue::Drop && about.deadline.is_some_and(|deadline| deadline < now_ms) {
                    loaded.expired += 1;
                    continue;
                }
                let hash = keyspace.hasher().hash(&key);
                let entry = value.into_entry(hash.bits(), &key, about.deadline, clock(&manner.moment, &about));
                let shard = hash.shard();
                let twice = hold.visit(shard, |held| {
                    let part = held.part_or_new(db);
                    let old = if part.find(hash, &key).is_some() {
                        if manner.twice == Twice::Refuse {
                            return true;
                        }
                        part.remove(hash, &key)
                    } else {
                        None
                    };
                    old.into_iter().for_each(|old| keyspace.free(old));
                    part.insert(hash, entry);
                    if let Some(deadline) = about.deadline {
                        keyspace.note_deadline(shard, deadline);
                    }
                    false
                });
                if twice {
                    let name = key.escape_ascii();
                    let what = format!("RDB has duplicated key '{name}' in DB {db}");
                    return Err(records.reader.corrupt(what));
                }
                loaded.keys += 1;
            }
            Record::Select(index) => {
                let databases = u64::from(manner.config.databases);
                if index >= databases {
                    return Err(records.reader.corrupt(format!(
                        "FATAL: Data file was created with a Redis server configured to handle more than {databases} databases. Exiting"
                    )));
                }
                db = index as usize;
            }
            Record::Empty(key) => loaded.empty.push(key),
            Record::Aux(name, text) => loaded.aux.push((name, text)),
            Record::Function(source) => loaded.functions.push(source),
            Record::ModuleAux(name) => loaded.modules.push(name),
            // Tables grow in small steps: there is nothing to be prepared.
            Record::Size(..) => {}
        }
    }
    progress.bytes.store(records.reader.offset(), Ordering::Relaxed);
    Ok(loaded)
}
