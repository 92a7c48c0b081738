//! What comes before a script runs: its text is found, read and compiled.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::command::args::Args;
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::table::Entry;
use crate::observe::stats::Counter;
use crate::script::cache::{Reach, Script};
use crate::script::running::Unkilled;
use crate::script::source::{Flag, Flags, script_head};
use crate::script::vm::{Sha, sha};
use crate::stdx::number::parse_i64;

/// The script of EVALSHA is not known.
pub const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

/// How many keys are declared, of EVAL and its kin.
///
/// # Errors
/// Where that is no number, or not one of so many arguments.
pub fn key_count(args: &Args<'_>) -> Result<usize, Error> {
    checked_key_count(args, parse_i64(args.at(2)).ok_or(Error::NotInteger)?)
}

/// The same for a number that was read.
///
/// # Errors
/// Where there are not so many arguments.
pub fn checked_key_count(args: &Args<'_>, count: i64) -> Result<usize, Error> {
    let Ok(keys) = usize::try_from(count) else {
        return Err(Error::text("ERR Number of keys can't be negative"));
    };
    if keys > args.len() - 3 {
        return Err(Error::text("ERR Number of keys can't be greater than number of args"));
    }
    Ok(keys)
}

/// A SHA as clients write it, in either case.
pub fn sha_of(text: &[u8]) -> Option<Sha> {
    let mut sha: Sha = text.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

/// What is known of the keys that a request of EVAL and its kin will touch.
pub fn reach(engine: &Engine, entry: &Entry, args: &Args<'_>) -> Reach {
    let scripts = &engine.scripts;
    let learned = |script: Option<Arc<Script>>| script.map_or(Reach::Unknown, |script| script.learned.reach());
    let by_text = || learned(scripts.cache.find(&sha_of_text(args.at(1))));
    let by_sha = || learned(sha_of(args.at(1)).and_then(|sha| scripts.cache.find(&sha)));
    match entry.command.name {
        // Each command that it runs is shown as it runs, so it must not be run twice.
        _ if engine.monitors.any() => Reach::Any,
        "EVAL" | "EVAL_RO" => by_text(),
        "EVALSHA" | "EVALSHA_RO" => by_sha(),
        _ => {
            let libraries = scripts.libraries.load();
            libraries.function(args.at(1)).map_or(Reach::Unknown, |(_, function)| function.learned.reach())
        }
    }
}

/// Whether a request of EVAL and its kin may change anything: it says otherwise by its name, or its script does by a
/// flag.
pub fn may_write(engine: &Engine, entry: &Entry, args: &Args<'_>) -> bool {
    !entry.command.name.ends_with("_RO") && flags(engine, entry, args).is_none_or(|flags| !flags.has(Flag::NoWrites))
}

/// Whether the script of a request has flags, and does not say by them that it changes nothing.
pub fn says_it_writes(engine: &Engine, entry: &Entry, args: &Args<'_>) -> bool {
    !entry.command.name.ends_with("_RO") && flags(engine, entry, args).is_some_and(|flags| !flags.has(Flag::NoWrites))
}

/// The flags of a request's script, where it has any and is known.
pub fn flags(engine: &Engine, entry: &Entry, args: &Args<'_>) -> Option<Flags> {
    let scripts = &engine.scripts;
    match entry.command.name {
        "EVAL" | "EVAL_RO" => script_head(args.at(1)).ok().and_then(|head| head.flags),
        "EVALSHA" | "EVALSHA_RO" => {
            sha_of(args.at(1)).and_then(|sha| scripts.cache.find(&sha)).and_then(|script| script.head.flags)
        }
        _ => scripts.libraries.load().function(args.at(1)).map(|(_, function)| function.flags),
    }
}

/// How many texts a thread knows the SHA of.
const RECENT: usize = 4;
/// Longer texts are not kept for that.
const RECENT_BYTES: usize = 4096;

/// The SHA of a script's text. Of the texts that were asked about last it is known.
fn sha_of_text(text: &[u8]) -> Sha {
    thread_local! {
        static KNOWN: RefCell<VecDeque<(Box<[u8]>, Sha)>> = const { RefCell::new(VecDeque::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some((_, sha)) = known.iter().find(|(other, _)| **other == *text) {
            return *sha;
        }
        let sha = sha(text);
        if text.len() <= RECENT_BYTES {
            known.truncate(RECENT - 1);
            known.push_front((text.into(), sha));
        }
        sha
    })
}

/// The script of this text, which is known from now on, and for good where it is `loaded`.
///
/// # Errors
/// What is wrong with its first line, or with its Lua.
pub fn script_of(engine: &Engine, text: &[u8], loaded: bool) -> Result<Arc<Script>, Error> {
    let sha = sha_of_text(text);
    let cache = &engine.scripts.cache;
    if let Some(known) = cache.use_script(&sha)
        && !loaded
    {
        return Ok(known);
    }
    let head = script_head(text).map_err(|bad| Error::text(format!("ERR {bad}")))?;
    let script = Script::new(sha, text, head);
    // What cannot be compiled is not kept.
    engine.scripts.machines.lease(cache).compile(&script).map_err(cannot_compile)?;
    let (script, evicted) = cache.insert(script, loaded);
    if evicted > 0 {
        engine.stats.add(Counter::EvictedScripts, evicted as u64);
    }
    Ok(script)
}

/// The error of a script that is not Lua.
pub fn cannot_compile(why: Vec<u8>) -> Error {
    Error::Line { line: [b"ERR Error compiling script (new function): ", &why[..]].concat(), counted: false }
}

/// The error of a library that cannot be loaded.
pub fn cannot_load(why: Vec<u8>) -> Error {
    Error::Line { line: [b"ERR ", &why[..]].concat(), counted: false }
}

/// The reply to whoever wanted to kill a script that goes on.
pub fn unkilled(why: Unkilled) -> Error {
    match why {
        Unkilled::NotBusy => Error::text("NOTBUSY No scripts in execution right now."),
        Unkilled::Wrote => Error::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
             script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        ),
        Unkilled::OtherKind(kind) => Error::Busy(kind),
    }
}
