//! The append only file as a whole: opened and closed, turned on and off; [`load`] reads it, [`rewrite`] makes it short.
//!
//! What must stay true: whatever ends early, the manifest names files that make up the data set.

pub mod load;
pub mod paths;
pub mod rewrite;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::aof::paths::{directory, file, persist};
use crate::command::aof::rewrite::{begin_rewrite, write_held};
use crate::command::context::DONE;
use crate::command::engine::{Engine, Refusal};
use crate::command::error::Error;
use crate::command::replication::wait::{end_local, end_those_done};
use crate::command::save::NotSaved;
use crate::command::table::Command;
use crate::config::choice::AppendFsync;
use crate::config::table::Config;
use crate::keyspace::hold::ShardSet;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::aof::State;
use crate::persist::aof::appender::Policy;
use crate::persist::aof::manifest::Manifest;
use crate::persist::disk::{self, Append, plain};
use crate::persist::log::Wants;
use crate::spec::{Arity, Flag, Group};
use crate::stdx::affinity;

/// This family's commands.
pub const COMMANDS: &[Command] = &[BGREWRITEAOF];

/// Begins to make the log as short as it can be, and replies at once; where something is in the way, it begins after
/// that.
pub const BGREWRITEAOF: Command = Command {
    name: "BGREWRITEAOF",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "Asynchronously rewrites the append-only file to disk.",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: |ctx, _| {
        let aof = &ctx.engine.aof;
        if aof.is_rewriting() {
            return Err(Error::text("ERR Background append only file rewriting already in progress"));
        }
        // Who asks does not wait for the end of a row of failures.
        aof.failures.store(0, Ordering::Relaxed);
        if ctx.engine.saves.is_running() || ctx.engine.keyspace.snapshot().is_active() || ctx.is_in_group() {
            aof.scheduled.store(true, Ordering::Relaxed);
            ctx.out.simple("Background append only file rewriting scheduled");
            return DONE;
        }
        begin_rewrite(ctx.engine, ctx.engine.config.load_full()).map_err(|error| Error::text(format!("ERR Can't execute an AOF background rewriting. Please check the server logs for more information. ({error})")))?;
        ctx.out.simple("Background append only file rewriting started");
        DONE
    },
};

/// Opens the log to be written; where it has no files yet, it gets a base of what is there. Nobody changes anything
/// meanwhile.
fn open(engine: &Engine, config: &Config, mut manifest: Manifest) -> Result<(), String> {
    let failed = |what: &str, error: &io::Error| format!("{what}: {}", plain(error));
    disk::make_directory(&directory(config))
        .map_err(|error| failed("Can't create or open the append-only directory", &error))?;
    if manifest == Manifest::default() {
        let base = manifest.next_base(&config.appendfilename, config.aof_use_rdb_preamble);
        let mut hold = engine.keyspace.hold(ShardSet::ALL);
        write_held(engine, config, &mut hold, &base)
            .map_err(|error| failed("Error creating the AOF base file", &error))?;
        notice!("Creating AOF base file {} on server start", String::from_utf8_lossy(&base.name));
        manifest.base = Some(base);
    }
    let part = match manifest.increments.last() {
        Some(part) => {
            notice!("Opening AOF incr file {} on server start", String::from_utf8_lossy(&part.name));
            part.clone()
        }
        None => {
            let part = manifest.next_increment(&config.appendfilename);
            notice!("Creating AOF incr file {} on server start", String::from_utf8_lossy(&part.name));
            manifest.increments.push(part.clone());
            part
        }
    };
    let (file_of_part, size) =
        Append::open(&file(config, &part)).map_err(|error| failed("Can't open the append-only file", &error))?;
    persist(config, &manifest).map_err(|error| failed("Can't write the AOF manifest", &error))?;
    let total: u64 = manifest.parts().map(|part| disk::length(&file(config, part))).sum();
    engine.aof.others_bytes.store(total - size, Ordering::Relaxed);
    engine.aof.base_bytes.store(total, Ordering::Relaxed);
    *engine.aof.manifest.lock() = manifest;
    engine.aof.set_state(State::On);
    join(engine, config, file_of_part, size);
    Ok(())
}

/// Has the log go to `file`, which has `size` bytes, and starts the thread that serves it.
fn join(engine: &Engine, config: &Config, file: Append, size: u64) {
    let aof = &engine.aof;
    let mut reader = aof.reader.lock();
    if reader.is_some() {
        engine.log.cut(|| aof.appender.switch(file, size, 0));
        return;
    }
    aof.appender.set_always(config.appendfsync == AppendFsync::Always);
    aof.appender.stamps.store(config.aof_timestamp_enabled, Ordering::Relaxed);
    let weak = Arc::downgrade(&engine.arc());
    let (appender, clock) = (aof.appender.clone(), engine.clock.clone());
    *reader = Some(engine.log.join(Wants::Changes, |offset| {
        aof.appender.switch(file, size, offset);
        Box::new(move |bytes: &[u8]| {
            let stamp = appender.stamps.load(Ordering::Relaxed).then(|| clock.now_ms() / 1000);
            appender.push(bytes, stamp);
        })
    }));
    drop(reader);
    let turn = aof.next_turn();
    let serve = move || {
        crash::prepare_thread();
        if let Some(engine) = weak.upgrade() {
            affinity::keep_to(engine.config.load().bio_cpulist.as_deref());
        }
        while let Some(engine) = weak.upgrade() {
            if !engine.aof.is_turn(turn) {
                return;
            }
            engine.aof.appender.round(|| policy(&engine));
            end_those_done(&engine);
            engine.refuse(Refusal::LogFailed, engine.aof.appender.trouble().is_some());
        }
    };
    if let Err(error) = std::thread::Builder::new().name("aof".into()).spawn(serve) {
        // Replies must not wait for a thread that is not there.
        aof.appender.set_always(false);
        warning!("Can't start the thread that syncs the append only file: {}", plain(&error));
    }
}

fn policy(engine: &Engine) -> Policy {
    let config = engine.config.load();
    let busy = engine.saves.is_running() || engine.aof.is_rewriting();
    Policy { sync: config.appendfsync, hold: config.no_appendfsync_on_rewrite && busy }
}

/// Follows a changed configuration.
pub fn follow(engine: &Engine, new: &Config, old: &Config) {
    let aof = &engine.aof;
    aof.appender.stamps.store(new.aof_timestamp_enabled, Ordering::Relaxed);
    if new.appendfsync != old.appendfsync {
        aof.appender.set_always(aof.is_on() && new.appendfsync == AppendFsync::Always);
        aof.appender.ring();
    }
    match (old.appendonly, new.appendonly) {
        (false, true) => turn_on(engine),
        (true, false) => turn_off(engine),
        _ => {}
    }
}

fn turn_on(engine: &Engine) {
    let aof = &engine.aof;
    if aof.is_on() {
        return;
    }
    aof.set_state(State::Waiting);
    aof.failures.store(0, Ordering::Relaxed);
    let busy = engine.saves.is_running() || engine.keyspace.snapshot().is_active() || aof.is_rewriting();
    if busy {
        // One that began without the log would not have what comes after it.
        aof.stop_rewrite();
        aof.scheduled.store(true, Ordering::Relaxed);
        notice!(
            "AOF was enabled but there is already another background operation. An AOF background was scheduled to start when possible."
        );
    } else if begin_rewrite(engine, engine.config.load_full()).is_err() {
        aof.scheduled.store(true, Ordering::Relaxed);
    }
}

/// Turns the log off: what it has is synced.
pub fn turn_off(engine: &Engine) {
    let aof = &engine.aof;
    if aof.is_rewriting() {
        notice!("Killing AOF child: the append only file was turned off");
        aof.stop_rewrite();
    }
    aof.scheduled.store(false, Ordering::Relaxed);
    aof.set_state(State::Off);
    aof.next_turn();
    let reader = aof.reader.lock().take();
    reader.into_iter().for_each(|number| engine.log.leave(number));
    if let Err(error) = aof.appender.close() {
        warning!("Fail to fsync the AOF file: {}.", plain(&error));
    }
    aof.appender.set_always(false);
    engine.refuse(Refusal::LogFailed, false);
    end_local(engine);
}

/// Has the log begin anew with what is there, if there is one: the data set was replaced by another.
pub fn begin_anew(engine: &Engine) {
    if engine.aof.is_on() {
        turn_off(engine);
        turn_on(engine);
    }
}

/// What the end of the server does with the log.
///
/// # Errors
/// It has no base yet: what it has could not be read again.
pub fn end(engine: &Engine) -> Result<(), NotSaved> {
    let aof = &engine.aof;
    match aof.state() {
        State::Off => return Ok(()),
        State::Waiting => return Err(NotSaved),
        State::On => {}
    }
    if aof.is_rewriting() {
        warning!("There is a child rewriting the AOF. Killing it!");
        aof.stop_rewrite();
    }
    notice!("Calling fsync() on the AOF file.");
    if let Err(error) = aof.appender.flush() {
        warning!("Fail to fsync the AOF file: {}.", plain(&error));
    }
    Ok(())
}
