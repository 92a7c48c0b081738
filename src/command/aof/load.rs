//! The append only file read again: when the server starts, and for DEBUG LOADAOF.
//!
//! What must stay true: what is read is run as its clients sent it, alone, and goes to no log; what is cut off at the end of
//! the last file is left out where the configuration says so, and anything else that is wrong ends the start.

use crate::client::session::Session;
use crate::client::shared::{Link, Shared};
use crate::command::aof::open;
use crate::command::aof::paths::{as_path, directory, file, manifest_path, persist};
use crate::command::args::Args;
use crate::command::dispatch::{Batch, Executor, Request, Stop};
use crate::command::engine::{Engine, Refusal};
use crate::command::save::{self};
use crate::config::table::Config;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::observe::log::{notice, warning};
use crate::persist::aof::manifest::{Manifest, Part};
use crate::persist::aof::records::{Fault, Reason, Record, Records};
use crate::persist::disk::{self, plain};
use crate::persist::rdb::load::{self, Overdue, Twice};
use crate::persist::rdb::reader::Reader;
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::Span;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// So many requests of a log are run together.
const BATCH_REQUESTS: usize = 512;
/// So many bytes of a log are run together, and a request more.
const BATCH_BYTES: usize = 64 * 1024;

/// Reads the manifest; `None` where there is none. A log of Redis 6, which is one file, becomes the base of a new one.
fn read_manifest(config: &Config) -> Result<Option<Manifest>, String> {
    let path = manifest_path(config);
    let old = as_path(&config.dir.0).join(as_path(&config.appendfilename));
    let wrong = |what: String| format!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n{what}");
    let manifest = match disk::exists(&path) {
        true => {
            let text = disk::read_or_empty(&path).map_err(|error| wrong(plain(&error)))?;
            Some(Manifest::parse(&text).map_err(|error| wrong(error.to_string()))?)
        }
        false => None,
    };
    let upgraded = Manifest { base: Some(Part { name: config.appendfilename.clone(), seq: 1 }), ..Manifest::default() };
    // The manifest is written first, so that an upgrade that was cut off goes on here.
    let begun = manifest.as_ref().is_some_and(|manifest| *manifest == upgraded);
    if (manifest.is_none() || begun)
        && disk::exists(&old)
        && !disk::exists(&directory(config).join(as_path(&config.appendfilename)))
    {
        let name = String::from_utf8_lossy(&config.appendfilename).into_owned();
        let upgrade = || {
            disk::make_directory(&directory(config))?;
            persist(config, &upgraded)?;
            disk::rename(&old, &directory(config).join(as_path(&config.appendfilename)))
        };
        upgrade()
            .map_err(|error| format!("Error trying to move the old AOF file {name} into dir: {}", plain(&error)))?;
        notice!(
            "Successfully migrated an old-style AOF configuration ({name}) into the AOF directory ({}).",
            String::from_utf8_lossy(&config.appenddirname)
        );
        return Ok(Some(upgraded));
    }
    Ok(manifest)
}

/// Reads the log when the server starts, and opens it to be written.
///
/// # Errors
/// What is to be said before the server gives up.
pub fn start(engine: &Engine) -> Result<(), String> {
    let config = engine.config.load_full();
    let manifest = read_manifest(&config)?.unwrap_or_default();
    load(engine, &config, &manifest)?;
    open(engine, &config, manifest)
}

/// Reads all files of the log into the keyspace, of which the caller holds nothing; nobody else changes anything
/// meanwhile.
///
/// # Errors
/// What is to be said of a file that is missing or damaged.
fn load(engine: &Engine, config: &Config, manifest: &Manifest) -> Result<(), String> {
    let started = Instant::now();
    let parts: Vec<&Part> = manifest.parts().collect();
    for part in &parts {
        if !disk::exists(&file(config, part)) {
            let name = String::from_utf8_lossy(&part.name);
            return Err(format!("Can't open the append only file {name} for reading: No such file or directory"));
        }
    }
    let total: u64 = parts.iter().map(|part| disk::length(&file(config, part))).sum();
    engine.saves.loading.begin(engine.clock.now_ms(), total);
    let mut replay = Replay::new(engine);
    let mut before = 0;
    for (i, part) in parts.iter().enumerate() {
        let (path, name) = (file(config, part), String::from_utf8_lossy(&part.name).into_owned());
        let begun = Instant::now();
        let kind = if manifest.base.as_ref() == Some(*part) { "base" } else { "incr" };
        match replay.read_file(config, &path, before) {
            Ok(()) => {
                notice!("DB loaded from {kind} file {name}: {:.3} seconds", begun.elapsed().as_secs_f64());
            }
            Err(Wrong::Fault(Fault { whole, reason: Reason::Truncated }))
                if i + 1 == parts.len() && config.aof_load_truncated =>
            {
                warning!("!!! Warning: short read while loading the AOF file {name}!!!");
                warning!("AOF loaded anyway because aof-load-truncated is enabled");
                warning!("Truncating the AOF {name} at offset {whole}");
                disk::truncate(&path, whole)
                    .map_err(|error| format!("Error truncating the AOF file {name}: {}", plain(&error)))?;
            }
            Err(wrong) => return Err(wrong.say(&name)),
        }
        before += disk::length(&path);
    }
    engine.dirty.store(0, Ordering::Relaxed);
    if !parts.is_empty() {
        notice!("DB loaded from append only file: {:.3} seconds", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Why a file of the log cannot be read.
enum Wrong {
    Fault(Fault),
    /// The snapshot at its beginning is damaged.
    Preamble(String),
    /// There is no command of this name.
    Unknown(String),
    Stopped,
}

impl Wrong {
    fn say(self, name: &str) -> String {
        match self {
            Wrong::Fault(Fault { reason: Reason::Truncated, .. }) => format!(
                "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the 'aof-load-truncated' configuration option to yes and restart the server."
            ),
            Wrong::Fault(Fault { reason: Reason::Format, whole }) => format!(
                "Bad file format reading the append only file {name}: make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest> (offset {whole})"
            ),
            Wrong::Fault(Fault { reason: Reason::Io(error), .. }) => {
                format!("Unrecoverable error reading the append only file {name}: {}", plain(&error))
            }
            Wrong::Preamble(error) => {
                format!("Error reading the RDB preamble of the AOF file {name}, AOF loading aborted: {error}")
            }
            Wrong::Unknown(command) => format!("Unknown command '{command}' reading the append only file {name}"),
            Wrong::Stopped => format!("Loading of {name} was stopped"),
        }
    }
}

/// Runs what a log holds.
struct Replay<'e> {
    engine: &'e Engine,
    executor: Executor,
    session: Session,
    out: Output,
    text: Vec<u8>,
    spans: Vec<Span>,
    requests: Vec<Request>,
}

impl<'e> Replay<'e> {
    fn new(engine: &'e Engine) -> Replay<'e> {
        let shared = Shared::new(0, Link::InProcess, String::new(), String::new(), -1, engine.clock.now_ms());
        let mut session = Session::new(Arc::new(shared), engine.users.owner().clone());
        (session.replaying, session.in_process) = (true, true);
        Replay {
            engine,
            executor: Executor::new(engine, None),
            session,
            out: Output::new(Protocol::Resp2),
            text: Vec::new(),
            spans: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Runs a file; `before` bytes were read of others. What came before what is wrong has been run, but for a
    /// transaction without its end.
    fn read_file(&mut self, config: &Config, path: &Path, before: u64) -> Result<(), Wrong> {
        let io_error = |error| Wrong::Fault(Fault { whole: 0, reason: Reason::Io(error) });
        let Some((mut file, _)) = disk::open(path).map_err(io_error)? else { return Ok(()) };
        self.session.db = 0;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(5).read_to_end(&mut head).map_err(io_error)?;
        let is_snapshot = [&b"REDIS"[..], b"VALKE"].contains(&&head[..]);
        if !is_snapshot {
            let offset = head.len() as u64;
            return self.read_commands(&mut Records::new(&mut file, head, offset), before);
        }
        let mut source = head.as_slice().chain(&mut file);
        let (rest, offset) = {
            let mut reader = Reader::new(&mut source);
            let manner = load::Manner {
                config,
                moment: self.engine.moment(config),
                // Whether they are to go is for the log to say.
                overdue: Overdue::Keep,
                twice: Twice::Refuse,
                behind: false,
            };
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let progress = &self.engine.saves.loading.progress;
            let loaded = load::load(&self.engine.keyspace, &mut reader, manner, threads, progress);
            let loaded = loaded.map_err(|error| Wrong::Preamble(error.to_string()))?;
            save::tell(self.engine, &loaded, Twice::Refuse).map_err(|error| Wrong::Preamble(error.to_string()))?;
            (reader.rest().to_vec(), reader.offset() + reader.rest().len() as u64)
        };
        if !rest.is_empty() {
            notice!("Reading the remaining AOF tail...");
        }
        self.read_commands(&mut Records::new(&mut source, rest, offset), before)
    }

    fn read_commands(&mut self, records: &mut Records<'_>, before: u64) -> Result<(), Wrong> {
        // Where the transaction begins that is being read, and the first of its requests.
        let mut transaction: Option<(u64, usize)> = None;
        loop {
            let (start, first) = (records.whole(), self.spans.len());
            let read = records.next(&mut self.text, &mut self.spans);
            match read {
                Ok(Some(Record::Command(args))) => {
                    let request = Request { first, args, start: 0 };
                    let words = Args::new(&self.text, &self.spans[first..]);
                    if words.is(0, "MULTI") {
                        transaction.get_or_insert((start, self.requests.len()));
                    } else if words.is(0, "EXEC") {
                        transaction = None;
                    } else if self.engine.commands.resolve(words.at(0), words.opt(1)).is_err() {
                        return Err(Wrong::Unknown(String::from_utf8_lossy(words.at(0)).into_owned()));
                    } else {
                        self.requests.push(request);
                    }
                }
                Ok(Some(Record::Time(_))) => {}
                Ok(None) | Err(_) => {
                    let whole = transaction.map_or(records.whole(), |(start, kept)| {
                        self.requests.truncate(kept);
                        start
                    });
                    self.run()?;
                    let fault = match read {
                        Err(fault) => Some(fault.reason),
                        Ok(_) if transaction.is_some() => {
                            warning!("Revert incomplete MULTI/EXEC transaction from AOF file");
                            Some(Reason::Truncated)
                        }
                        Ok(_) => None,
                    };
                    return fault.map_or(Ok(()), |reason| Err(Wrong::Fault(Fault { whole, reason })));
                }
            }
            let full = self.requests.len() >= BATCH_REQUESTS || self.text.len() >= BATCH_BYTES;
            if full && transaction.is_none() {
                self.run()?;
                let progress = &self.engine.saves.loading.progress;
                progress.bytes.store(before + records.whole(), Ordering::Relaxed);
                if progress.stopped.load(Ordering::Relaxed) {
                    return Err(Wrong::Stopped);
                }
            }
        }
    }

    /// Runs what was collected. Replies are of no interest: what failed then fails now.
    fn run(&mut self) -> Result<(), Wrong> {
        let Replay { engine, executor, session, out, text, spans, requests } = self;
        let mut done = 0;
        while done < requests.len() {
            let (ran, mut stop) =
                executor.run(engine, session, out, Batch { buf: text, spans, requests: &requests[done..] });
            done += ran;
            while let Stop::Pending(pending) = stop {
                stop = executor.resume(engine, session, out, pending).map_or(Stop::Done, Stop::Pending);
            }
            if ran == 0 {
                return Err(Wrong::Stopped);
            }
        }
        let written = out.len();
        out.advance(written);
        text.clear();
        spans.clear();
        requests.clear();
        Ok(())
    }
}

/// DEBUG LOADAOF: forgets the data set and reads the log again. The caller runs alone, `hold` holds everything.
///
/// # Errors
/// The error reply's text.
pub fn reload<'k>(engine: &'k Engine, hold: &mut Hold<'k>) -> Result<(), &'static str> {
    const FAILED: &str = "ERR Error trying to load the AOF files, check server logs";
    let config = engine.config.load_full();
    if engine.aof.is_on() && engine.aof.appender.flush().is_err() {
        return Err(FAILED);
    }
    let flushed = engine.keyspace.take_all(hold, None);
    engine.keyspace.reclaimer().free(flushed.keys, flushed);
    // The gates stay closed: nobody but who replays touches a shard.
    *hold = engine.keyspace.hold_none();
    // Who is answered while a script of the log takes its time is told why it has to wait.
    engine.refuse(Refusal::Loading, true);
    let manifest = match engine.aof.is_on() {
        true => Ok(engine.aof.manifest.lock().clone()),
        false => read_manifest(&config).map(Option::unwrap_or_default),
    };
    let loaded = manifest.and_then(|manifest| load(engine, &config, &manifest));
    *hold = engine.keyspace.hold(ShardSet::ALL);
    engine.refuse(Refusal::Loading, false);
    loaded.map_err(|error| {
        warning!("{error}");
        FAILED
    })?;
    warning!("Append Only File loaded by DEBUG LOADAOF");
    Ok(())
}
