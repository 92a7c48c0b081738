//! Writing a whole data set: a snapshot of the keyspace as a file, for a disk or for a replica.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::config::choice::MaxmemoryPolicy;
use crate::config::table::Config;
use crate::keyspace::entry::Entry;
use crate::keyspace::hold::Hold;
use crate::keyspace::moment::Moment;
use crate::keyspace::shard::{SHARDS, SLOTS_PER_SHARD};
use crate::keyspace::snapshot::{BATCH_BYTES, Encode, Piece, Progress, Relief, Running, Snapshot};
use crate::keyspace::space::Keyspace;
use crate::persist::rdb::file::{self, About};
use crate::persist::rdb::opcode;
use crate::persist::rdb::writer::{Compression, Writer};
use crate::stdx::crc::Crc64;

/// How often a delay between keys looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(5);

/// What of the access clocks is written: what the eviction policy goes by.
#[derive(Debug, Clone, Copy)]
enum Clocks {
    None,
    Idle,
    Frequency,
}

/// Who reads what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever is given a file, which tells all.
    File,
    /// Replicas, which do not say what version they are. One of Redis 7.0 ends itself over a form that it does not know, so
    /// they are not told when consumers of streams were active, but when they were seen.
    Replicas,
}

/// Makes records of entries.
struct Records {
    audience: Audience,
    compression: Compression,
    clocks: Clocks,
    moment: Moment,
    /// See [`Writer::vain`]: to find that a large value cannot be compressed takes longer than all else, and those of one
    /// data set are alike.
    vain: AtomicU32,
}

impl Encode for Records {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>, relief: Relief<'_>) {
        let mut writer = Writer::onto(std::mem::take(out), self.compression, relief);
        writer.tells_activity = self.audience == Audience::File;
        writer.vain = Some(self.vain.load(Ordering::Relaxed));
        let about = match self.clocks {
            Clocks::None => About::default(),
            Clocks::Idle => About { idle_seconds: Some(self.moment.idle_seconds(entry.clock())), ..About::default() },
            Clocks::Frequency => {
                About { frequency: Some(self.moment.frequency(entry.clock()) as u8), ..About::default() }
            }
        };
        file::write_key(&mut writer, entry, about);
        self.vain.store(writer.vain.unwrap_or(0), Ordering::Relaxed);
        *out = writer.bytes;
    }
}

/// What makes records of entries at `moment`: to be handed to [`Snapshot::begin`].
pub fn encoder(config: &Config, moment: Moment, audience: Audience) -> Arc<dyn Encode> {
    let clocks = match config.maxmemory_policy {
        MaxmemoryPolicy::AllkeysLru | MaxmemoryPolicy::VolatileLru => Clocks::Idle,
        MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu => Clocks::Frequency,
        _ => Clocks::None,
    };
    Arc::new(Records { audience, compression: config.rdbcompression.into(), clocks, moment, vain: AtomicU32::new(0) })
}

/// What stands before the keys.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Auxiliary fields: names and texts.
    pub aux: Vec<(&'static str, Vec<u8>)>,
    /// The sources of the libraries of functions.
    pub functions: Vec<Vec<u8>>,
}

/// How a snapshot is written.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whether it ends in a checksum, or in zeros.
    pub checksum: bool,
    /// How long to wait after each key: for tests, and for those who want it slow.
    pub key_delay: Duration,
}

impl Manner {
    /// What the configuration says.
    pub fn of(config: &Config) -> Manner {
        let delay = match config.rdb_key_save_delay {
            us @ 0.. => Duration::from_micros(us.unsigned_abs().into()),
            // A microsecond after so many keys.
            keys => Duration::from_nanos(1000 / u64::from(keys.unsigned_abs())),
        };
        Manner { checksum: config.rdbchecksum, key_delay: delay }
    }
}

/// Why a snapshot was not written.
#[derive(Debug)]
pub enum Failure {
    /// The disk or the peer does not take it.
    Io(io::Error),
    /// Nobody wants it any longer.
    Stopped,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Io(error) => write!(f, "{error}"),
            Failure::Stopped => f.write_str("stopped"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// A sink that sums what it passes on.
struct Summing<'s> {
    sink: &'s mut (dyn Write + Send),
    sum: Option<Crc64>,
}

impl Summing<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(sum) = &mut self.sum {
            sum.update(bytes);
        }
        self.sink.write_all(bytes)
    }

    fn end(mut self) -> io::Result<()> {
        self.put(&[opcode::EOF])?;
        let sum = self.sum.take().map_or(0, |sum| sum.sum());
        self.sink.write_all(&sum.to_le_bytes())?;
        self.sink.flush()
    }
}

/// Writes all that is there as a file into `sink`; `hold` holds everything. A snapshot that is being taken goes on.
///
/// # Errors
/// The first of `sink`.
pub fn write_held(
    keyspace: &Keyspace,
    hold: &mut Hold<'_>,
    encoder: &dyn Encode,
    head: &Head,
    manner: Manner,
    sink: &mut (dyn Write + Send),
) -> io::Result<()> {
    let mut sink = Summing { sink, sum: manner.checksum.then(Crc64::new) };
    let mut writer = Writer::new(Compression::Lzf);
    write_front(&mut writer, head);
    let never = Progress::default();
    for (db, counts) in keyspace.counts(hold, 0) {
        file::write_select(&mut writer, db);
        file::write_size(&mut writer, counts.keys, counts.volatile);
        for shard in 0..SHARDS {
            let Some(part) = hold.shard_ref(shard).part(db) else { continue };
            for slot in 0..SLOTS_PER_SHARD {
                for entry in part.slot(slot).iter() {
                    let mut failed = None;
                    let mut relief = |bytes: &mut Vec<u8>| {
                        if failed.is_none() {
                            failed = sink.put(bytes).err();
                        }
                        bytes.clear();
                    };
                    encoder.encode(entry, &mut writer.bytes, Some(&mut relief));
                    failed.map_or(Ok(()), Err)?;
                    wait(manner.key_delay, &never);
                    if writer.bytes.len() >= BATCH_BYTES {
                        sink.put(&writer.bytes)?;
                        writer.bytes.clear();
                    }
                }
            }
        }
    }
    sink.put(&writer.bytes)?;
    sink.end()
}

/// Writes a file without keys into `sink`.
///
/// # Errors
/// The first of `sink`.
pub fn write_without_keys(head: &Head, manner: Manner, sink: &mut (dyn Write + Send)) -> io::Result<()> {
    let mut sink = Summing { sink, sum: manner.checksum.then(Crc64::new) };
    let mut writer = Writer::new(Compression::Lzf);
    write_front(&mut writer, head);
    sink.put(&writer.bytes)?;
    sink.end()
}

fn write_front(writer: &mut Writer, head: &Head) {
    file::write_head(writer);
    head.aux.iter().for_each(|(name, text)| file::write_aux(writer, name, text));
    head.functions.iter().for_each(|source| file::write_function(writer, source));
}

/// Writes `snapshot` as a file into `sink`, walking over the shards of `hold`, which holds nothing or everything.
///
/// The snapshot is over when this returns, whatever it returns. `sink` gets batches of some ten kilobytes; it may
/// block, and no lock is held meanwhile (but for those that `hold` came with).
///
/// # Errors
/// The first of `sink`; [`Failure::Stopped`] where the snapshot's progress was told to stop.
pub fn write(
    snapshot: Snapshot,
    running: &Running,
    hold: &mut Hold<'_>,
    head: &Head,
    manner: Manner,
    sink: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let progress = snapshot.progress.clone();
    let mut sizes = snapshot.sizes.clone();
    let mut sink = Summing { sink, sum: manner.checksum.then(Crc64::new) };
    let mut writer = Writer::new(Compression::Lzf);
    write_front(&mut writer, head);
    // A head that cannot be written is told by the walk, which must be made in any case.
    let mut begun = Some(sink.put(&writer.bytes));
    let mut selected = None;
    let walked = snapshot.walk(running, hold, |piece: Piece<'_>| {
        if let Some(Err(error)) = begun.take() {
            return Err(error);
        }
        if selected != Some(piece.db) {
            selected = Some(piece.db);
            let mut writer = Writer::new(Compression::None);
            file::write_select(&mut writer, piece.db);
            if let Some(size) = sizes.remove(&piece.db) {
                file::write_size(&mut writer, size.keys, size.volatile);
            }
            sink.put(&writer.bytes)?;
        }
        sink.put(piece.bytes)?;
        wait(manner.key_delay.saturating_mul(u32::try_from(piece.keys).unwrap_or(u32::MAX)), &progress);
        Ok(())
    });
    match (begun, walked) {
        (Some(Err(error)), _) | (_, Err(Some(error))) => return Err(error.into()),
        (_, Err(None)) => return Err(Failure::Stopped),
        (_, Ok(())) => {}
    }
    Ok(sink.end()?)
}

fn wait(time: Duration, progress: &Progress) {
    if time.is_zero() {
        return;
    }
    let until = Instant::now() + time;
    while !progress.is_stopped() && !progress.is_hurried() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::moment::AccessPolicy;
    use crate::persist::aof::commands::Commands;
    use crate::types::Object;
    use crate::types::set::{Limits, Probe, Set};

    #[test]
    fn a_large_value_is_given_away_piece_by_piece() {
        let mut set = Set::default();
        let limits = Limits { intset_entries: 5, listpack_entries: 5, listpack_value: 64 };
        for n in 0..40_000 {
            set.add(&Probe::new(format!("member:{n}").as_bytes()), &limits);
        }
        let entry = Entry::with_object(0, b"key", Object::Set(set), Some(5), 0);
        let moment = Moment { now_ms: 1000, policy: AccessPolicy::Lru };
        let records = encoder(&Config::default(), moment, Audience::File);
        for encode in [&*records, &Commands] {
            let mut whole = b"before".to_vec();
            encode.encode(&entry, &mut whole, None);
            assert!(whole.len() > 6 * BATCH_BYTES);
            let (mut given, mut rest) = (Vec::new(), b"before".to_vec());
            let mut relief = |bytes: &mut Vec<u8>| {
                assert!((BATCH_BYTES..BATCH_BYTES + 4096).contains(&bytes.len()), "{} bytes", bytes.len());
                given.append(bytes);
            };
            encode.encode(&entry, &mut rest, Some(&mut relief));
            assert!(rest.len() < BATCH_BYTES);
            given.append(&mut rest);
            assert!(given == whole);
        }
    }
}
