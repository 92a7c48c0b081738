//! One command, run: its handler called, its changes passed on, its time and its outcome counted.
//!
//! What must stay true: what a command changed is passed on before its shards are released; nothing secret
//! reaches a log, a monitor or a crash report.

use std::fmt::Write;
use std::hint::cold_path;

use bytes::Bytes;

use crate::client::session::{ReplyMode, Session};
use crate::client::shared::Link;
use crate::command::args::Args;
use crate::command::blocking::{Wait, serve_ready};
use crate::command::client::tracking;
use crate::command::cluster::migration::import;
use crate::command::context::{Context, Job, Outcome, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::replication::own;
use crate::command::table::{Entry, Way};
use crate::config::table::Config;
use crate::observe::crash;
use crate::observe::latency::Latency;
use crate::observe::slowlog::SlowLog;
use crate::observe::stats::{Counter, ErrorOrigin, Outcome as Ended};
use crate::resp::reply::Mark;
use crate::spec::Flag;
use crate::stdx::ticks::Ticks;

/// How a command goes on that did not end.
pub enum Rest {
    /// It works in pieces.
    Job(Job),
    /// It waits for a key.
    Wait(Box<Wait>),
    /// It has to run again, with everything held.
    Alone,
}

/// Runs one command that was sent; returns when it ended, or the rest of it.
#[inline]
pub fn call(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>, before: Ticks) -> Result<Ticks, Rest> {
    let engine = context.engine;
    let mark = context.out.mark();
    let mode = context.session.reply;
    let interest = engine.interest();
    context.db.effects.begin(interest);
    if engine.is_refusing_any() {
        cold_path();
        own::judge(context, entry);
    }
    context.session.shared.figures.note_command(Some(entry.index));
    let (ended, rest) = match run(context, entry, args) {
        Ok(Outcome::Done) => (Ended::Done, None),
        Ok(Outcome::Failed) => (Ended::Failed, None),
        Ok(Outcome::Continue(job)) => (Ended::Done, Some(Rest::Job(job))),
        Ok(Outcome::Wait(wait)) => (Ended::Done, Some(Rest::Wait(wait))),
        Ok(Outcome::Alone) => (Ended::Done, Some(Rest::Alone)),
        Err(error) => {
            cold_path();
            write_error(context, &error);
            (Ended::Failed, None)
        }
    };
    if is_monitored(engine, entry) {
        feed_monitors(context, args);
    }
    // What the first piece changed is passed on while its shards are held: other commands run before the next
    // piece does.
    if context.db.effects.any() {
        engine.pass_on(context.db.index(), context.db.effects, args);
        if engine.is_refusing_any() {
            cold_path();
            own::note(context, entry, args);
        }
        if !context.db.effects.ready.is_empty() {
            serve_ready(context);
        }
    }
    if context.session.tracks_reads {
        cold_path();
        tracking::remember(context, entry, args);
        tracking::end_exception(context.session, entry);
    }
    if let Some(rest) = rest {
        cold_path();
        return Err(rest);
    }
    if mode != ReplyMode::On || context.session.reply != ReplyMode::On {
        finish_reply_mode(context, mode, mark);
    }
    Ok(conclude(context, entry, args, ended, before))
}

/// Runs one command inside of another, over what that one holds, and writes its reply; what it changes goes to the
/// log with the group of the outer one. Returns whether it failed.
///
/// Nothing waits here: what works in pieces is run to its end, what would wait for a key gives up at once.
pub fn call_inside(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>) -> Ended {
    let before = Ticks::now();
    let engine = context.engine;
    context.db.effects.begin(engine.interest());
    if engine.is_refusing_any() {
        own::judge(context, entry);
    }
    let mut reply = run(context, entry, args);
    let ended = loop {
        match reply {
            Ok(Outcome::Done) => break Ended::Done,
            Ok(Outcome::Failed) => break Ended::Failed,
            Ok(Outcome::Continue(mut job)) => reply = job(context),
            Ok(Outcome::Wait(wait)) => {
                (wait.denied)(context.out);
                break Ended::Done;
            }
            Ok(Outcome::Alone) => panic!("{} asks for more where everything is held", entry.full_name),
            Err(error) => {
                write_error(context, &error);
                break Ended::Failed;
            }
        }
    };
    if is_monitored(engine, entry) {
        feed_monitors(context, args);
    }
    if context.db.effects.any() {
        engine.pass_on(context.db.index(), context.db.effects, args);
        if engine.is_refusing_any() {
            own::note(context, entry, args);
        }
    }
    if context.session.tracks_reads {
        tracking::remember(context, entry, args);
    }
    conclude(context, entry, args, ended, before);
    ended
}

/// Answers a command that may not run inside of another.
pub fn refuse_inside(context: &mut Context<'_>, entry: &Entry, error: &Error) {
    write_error(context, error);
    if let Some(worker) = context.worker {
        context.engine.stats.worker(worker).rejected(entry.index);
    }
}

/// Calls the handler.
#[inline]
fn run(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>) -> Reply {
    let run = entry.command.run;
    let hide = context.config.hide_user_data_from_log;
    crash::running(&|to| tell_command(entry, args, hide, to), || run(context, args))
}

/// Counts a command that ended, and notes it where it was slow; returns when that was.
#[inline]
fn conclude(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>, ended: Ended, before: Ticks) -> Ticks {
    let engine = context.engine;
    let after = Ticks::now();
    let ns = after.since_ns(before);
    count_call(engine, context.worker, entry.index, ns, ended, context.config);
    // CONFIG SET is itself measured by what it has set.
    let changed = (entry.way != Way::Batched).then(|| engine.config.load_full());
    let config = changed.as_deref().unwrap_or(context.config);
    if ns >= changed.as_deref().map_or(context.notable_ns, notable_ns) {
        cold_path();
        let event = if entry.has(Flag::Fast) { "fast-command" } else { "command" };
        let shown = (!entry.has(Flag::SkipSlowlog)).then_some(|| visible(&context.hidden, args));
        note_slow(engine, config, context.session, ns, event, shown);
    }
    context.hidden.clear();
    after
}

/// Leaves a reply out, or not, and moves CLIENT REPLY on.
#[cold]
fn finish_reply_mode(context: &mut Context<'_>, before: ReplyMode, mark: Mark) {
    let silent = matches!(context.session.reply, ReplyMode::Off | ReplyMode::SkipNext)
        || matches!(before, ReplyMode::Off | ReplyMode::Skip) && context.session.reply == before;
    if silent {
        context.out.truncate(mark);
    }
    context.session.next_command();
}

/// Writes an error reply, and counts it.
pub fn write_error(context: &mut Context<'_>, error: &Error) {
    count_error(context.engine, error, context.worker);
    if context.session.imports.is_some() {
        import::failed(context.engine, context.session, &error.line());
    }
    context.out.error_bytes(&error.line());
}

/// Counts an error reply by its code.
pub fn count_error(engine: &Engine, error: &Error, worker: Option<usize>) {
    if let Error::Line { counted: true, .. } = error {
        return;
    }
    let line = error.line();
    let code = line.split(|byte| *byte == b' ').next().unwrap_or(b"ERR");
    // The codes of scripts are whatever their authors thought of.
    let origin = if matches!(error, Error::Line { .. }) { ErrorOrigin::Script } else { ErrorOrigin::Server };
    engine.stats.error(worker, code, origin);
}

/// Counts a command that ended after `ns` nanoseconds.
#[inline]
pub fn count_call(engine: &Engine, worker: Option<usize>, index: u16, ns: u64, ended: Ended, config: &Config) {
    match worker {
        Some(worker) => {
            let stats = engine.stats.worker(worker);
            stats.called(index, ns, ended, config.latency_tracking);
            stats.add(Counter::CommandsProcessed, 1);
        }
        None => {
            engine.stats.called(index, ns, ended, config.latency_tracking);
            engine.stats.add(Counter::CommandsProcessed, 1);
        }
    }
}

/// Notes a command in LATENCY, and in SLOWLOG where it may be shown, if it took long enough.
pub fn note_slow(
    engine: &Engine,
    config: &Config,
    session: &Session,
    ns: u64,
    event: &'static str,
    request: Option<impl FnOnce() -> Vec<Vec<u8>>>,
) {
    let us = ns / 1000;
    if Latency::wants(config.latency_monitor_threshold, us / 1000) {
        engine.latency.record(event, engine.clock.now_ms() / 1000, us / 1000);
    }
    if let Some(request) = request
        && SlowLog::wants(config.slowlog_log_slower_than, us)
    {
        let name = session.shared.names.lock().name.clone();
        let most = usize::try_from(config.slowlog_max_len).unwrap_or(usize::MAX);
        engine.slowlog.record(engine.clock.now_ms() / 1000, us, &request(), &session.shared.addr, &name, most);
    }
}

/// Shows a command that runs a script to those that follow MONITOR: before what the script itself does.
pub fn show_script(context: &Context<'_>, args: &Args<'_>) {
    if context.engine.monitors.any() {
        feed_monitors(context, args);
    }
}

/// Whether somebody follows MONITOR, and may see this command.
#[inline]
fn is_monitored(engine: &Engine, entry: &Entry) -> bool {
    engine.monitors.any() && !entry.has(Flag::SkipMonitor) && !entry.has(Flag::Admin)
}

/// Sends a command to those that follow MONITOR.
///
/// It comes after the command ran, so that SELECT is shown with the database it selected and a login
/// with its password hidden; one that works in pieces is shown as it begins.
#[cold]
fn feed_monitors(context: &Context<'_>, args: &Args<'_>) {
    let now_us = context.engine.clock.now_us();
    let shared = &context.session.shared;
    let mut line = format!("+{}.{:06} [{} ", now_us / 1_000_000, now_us % 1_000_000, context.session.db).into_bytes();
    match shared.link {
        // A socket's path is shown without the port that stands for none.
        _ if context.scripted => line.extend_from_slice(b"lua"),
        Link::Unix => line.extend_from_slice(format!("unix:{}", shared.addr.trim_end_matches(":0")).as_bytes()),
        Link::Tcp | Link::Tls | Link::InProcess => line.extend_from_slice(shared.addr.as_bytes()),
    }
    line.push(b']');
    for arg in visible(&context.hidden, args) {
        line.extend_from_slice(b" \"");
        escape(&mut line, &arg);
        line.push(b'"');
    }
    line.extend_from_slice(b"\r\n");
    context.engine.monitors.send(&Bytes::from(line));
}

/// How much of an argument a crash report shows.
const TOLD_BYTES: usize = 128;

/// Writes a command into a crash report, without an allocation: nothing is sure in a process that dies.
///
/// Which of a running command's arguments are secret is not known before it has ended; of those that
/// may carry a password only their names are told, of all others only where the log may have them.
#[cold]
fn tell_command(entry: &Entry, args: &Args<'_>, hide: bool, to: &mut dyn Write) {
    let secret = entry.has(Flag::NoAuth) || entry.has(Flag::Admin) && entry.command.name != "DEBUG";
    // Nothing can be done about a report that cannot be written.
    let _ = write!(to, "command: {}, argc: {}", entry.full_name, args.len());
    if hide || secret {
        return;
    }
    for (i, arg) in args.from(0).enumerate() {
        let _ = write!(to, "\nargv[{i}]: \"{}\"", arg[..arg.len().min(TOLD_BYTES)].escape_ascii());
        if arg.len() > TOLD_BYTES {
            let _ = write!(to, " and {} bytes more", arg.len() - TOLD_BYTES);
        }
    }
}

/// What stands for an argument that logs may not show.
const REDACTED: &[u8] = b"(redacted)";

/// The arguments as logs may show them.
fn visible(hidden: &[usize], args: &Args<'_>) -> Vec<Vec<u8>> {
    let show = |(i, arg): (usize, &[u8])| if hidden.contains(&i) { REDACTED.to_vec() } else { arg.to_vec() };
    args.from(0).enumerate().map(show).collect()
}

/// Writes bytes as a person reads them: quotes and what does not print are escaped.
pub fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            0x20..=0x7e => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

/// From how many nanoseconds on a command may belong in SLOWLOG or LATENCY.
pub fn notable_ns(config: &Config) -> u64 {
    let slow = u64::try_from(config.slowlog_log_slower_than).map_or(u64::MAX, |us| us.saturating_mul(1000));
    let latency = match config.latency_monitor_threshold {
        0 => u64::MAX,
        ms => ms.saturating_mul(1_000_000),
    };
    slow.min(latency)
}
