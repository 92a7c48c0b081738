//! The data set of a primary as it comes over a link: into memory as it comes, or by a file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::wire::{READ_BYTES, Wire};
use crate::command::aof;
use crate::command::engine::Engine;
use crate::command::replication::role::{Arrival, Taking, check, take};
use crate::config::choice::ReplDisklessLoad;
use crate::config::table::Config;
use crate::observe::log::notice;
use crate::persist::disk::{self, Temporary};
use crate::replication::Stage;
use crate::replication::transfer::{Cutter, End};

/// A data set is synced every few megabytes while it is written to a file.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// A data set as it comes over the link.
struct Incoming<'w, 'e> {
    wire: &'w mut Wire<'e>,
    cutter: Cutter,
    ready: Vec<u8>,
    given: usize,
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            if self.cutter.is_over() {
                return Ok(0);
            }
            self.ready.clear();
            self.given = 0;
            let wire = &mut *self.wire;
            if wire.at == wire.buf.len() {
                wire.read().map_err(io::Error::other)?;
            }
            let used = self.cutter.take(&wire.buf[wire.at..], &mut self.ready);
            wire.at += used;
            let now_ms = wire.engine.clock.now_ms();
            let mut state = wire.engine.replication.state();
            state.primary.read_bytes = self.cutter.taken();
            state.primary.read_ms = now_ms;
            drop(state);
            wire.show();
        }
        let n = to.len().min(self.ready.len() - self.given);
        to[..n].copy_from_slice(&self.ready[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// A file that is read while the primary is shown that we are there.
struct Shown<'w, 'e> {
    file: File,
    wire: &'w mut Wire<'e>,
}

impl Read for Shown<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.wire.check().map_err(io::Error::other)?;
        self.wire.show();
        self.file.read(to)
    }
}

/// Takes over the data set that follows: what the stream was at that point, where it is named.
///
/// # Errors
/// What is to be logged.
pub fn receive(config: &Config, wire: &mut Wire<'_>, stream: Option<(String, u64)>) -> Result<(), String> {
    let engine = wire.engine;
    let received = take_over(engine, config, wire, stream);
    let kept = received.is_err() && engine.replication.state().primary.resumes;
    if !kept {
        // What the log held was of another data set: it begins anew with this one.
        aof::begin_anew(engine);
    }
    received
}

fn take_over(
    engine: &Arc<Engine>,
    config: &Config,
    wire: &mut Wire<'_>,
    stream: Option<(String, u64)>,
) -> Result<(), String> {
    {
        let mut state = engine.replication.state();
        state.primary.stage = Stage::Transfer;
        state.primary.total_bytes = None;
        state.primary.read_bytes = 0;
        state.primary.read_ms = engine.clock.now_ms();
    }
    let end = loop {
        if let Some(end) = End::parse(&wire.line()?)? {
            break end;
        }
        engine.replication.state().primary.read_ms = engine.clock.now_ms();
    };
    let total = match end {
        End::Length(length) => Some(length),
        End::Mark(_) => None,
    };
    engine.replication.state().primary.total_bytes = total;
    let empty = || {
        let mut hold = engine.keyspace.hold_none();
        engine.keyspace.counts(&mut hold, 0).is_empty() && engine.scripts.libraries.load().is_empty()
    };
    let same = stream.as_ref().is_some_and(|(id, _)| *id == engine.replication.state().history.id);
    let taking = match config.repl_diskless_load {
        ReplDisklessLoad::Disabled => None,
        ReplDisklessLoad::OnEmptyDb => empty().then_some(Taking::Emptied),
        // What is there may be read meanwhile where it is an earlier state of what comes.
        ReplDisklessLoad::SwapDb => Some(if same { Taking::Aside } else { Taking::AsideInSilence }),
        ReplDisklessLoad::FlushBeforeLoad => Some(Taking::Emptied),
    };
    let to = if taking.is_some() { "parser" } else { "disk" };
    match total {
        Some(length) => notice!("MASTER <-> REPLICA sync: receiving {length} bytes from master to {to}"),
        None => notice!("MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to {to}"),
    }
    let turn = wire.turn;
    let mut incoming = Incoming { wire, cutter: Cutter::new(end), ready: Vec::new(), given: 0 };
    if let Some(taking) = taking {
        let arrival = Arrival { source: &mut incoming, taking, stream, turn, total_bytes: total.unwrap_or(0) };
        take(engine, arrival)?;
        // What stands between the last key and the end is nothing, or the data set was not what it seemed.
        let mut rest = [0; 1];
        return match incoming.read(&mut rest) {
            Ok(0) => Ok(()),
            _ => Err("Replication stream EOF marker is broken".into()),
        };
    }
    let received = save_to_file(engine, config, &mut incoming)?;
    let wire = incoming.wire;
    if !empty() {
        // Nothing is given up for a data set that cannot be read.
        let opened = disk::open(received.path()).ok().flatten();
        let (file, _) = opened.ok_or("Failed trying to open the RDB file that was received")?;
        check(engine, &mut Shown { file, wire: &mut *wire })?;
    }
    let path = crate::command::save::path(config);
    received.commit(&path).map_err(|error| {
        format!(
            "Failed trying to rename the temp DB into {} in MASTER <-> REPLICA synchronization: {error}",
            String::from_utf8_lossy(&config.dbfilename)
        )
    })?;
    let (file, length) =
        disk::open(&path).ok().flatten().ok_or("Failed trying to open the RDB file that was received")?;
    let mut shown = Shown { file, wire };
    take(engine, Arrival { source: &mut shown, taking: Taking::Emptied, stream, turn, total_bytes: length })?;
    if config.rdb_del_sync_files && config.save.0.is_empty() && !config.appendonly {
        notice!("Removing the RDB file obtained from the master. This replica has persistence disabled");
        disk::remove(&path);
    }
    Ok(())
}

/// Writes a data set to a file beside that which saves are written to.
fn save_to_file(engine: &Engine, config: &Config, incoming: &mut Incoming<'_, '_>) -> Result<Temporary, String> {
    use std::os::unix::ffi::OsStrExt;
    let say = |error: io::Error| {
        format!(
            "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA synchronization: {error}"
        )
    };
    let dir = Path::new(std::ffi::OsStr::from_bytes(&config.dir.0));
    let name = format!("temp-{}.{}.rdb", engine.clock.now_ms() / 1000, std::process::id());
    let mut file = Temporary::create(&dir.join(name), Some(SYNC_EVERY_BYTES)).map_err(say)?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match incoming.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => file.write_all(&bytes[..n]).map_err(say)?,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(file)
}
