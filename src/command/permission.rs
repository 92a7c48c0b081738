//! Whether a client may run a request: asked before it runs, whoever passes it on.
//!
//! A user who may do anything costs one look at a flag. What is refused is counted and logged here.

use smallvec::SmallVec;

use crate::acl::log::{Place, Reason, Refusal};
use crate::acl::user::{Denied, Request};
use crate::client::session::Session;
use crate::client::shared::Shared;
use crate::command::args::Args;
use crate::command::client;
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::table::Entry;
use crate::observe::stats::Counter;
use crate::spec::{Access, Flag};

type Words<'a> = SmallVec<[&'a [u8]; 16]>;

fn words<'a>(args: &Args<'a>) -> Words<'a> {
    args.from(0).collect()
}

/// What is asked of a user's rules.
fn request<'a>(entry: &'a Entry, args: &'a [&'a [u8]]) -> Request<'a> {
    let command = entry.command;
    Request {
        command: entry.index,
        name: &entry.full_name,
        declared: command.name,
        free: entry.has(Flag::NoAuth),
        keys: command.keys,
        args,
    }
}

/// Whether a client may run a request that it sent, now or with the next EXEC.
///
/// # Errors
/// NOPERM, which is logged.
#[inline]
pub fn check(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    if session.account.is_unrestricted() {
        return Ok(());
    }
    let place = if session.is_queueing() { Place::Multi } else { Place::Toplevel };
    match denied(engine, session, entry, args, place) {
        None => Ok(()),
        Some(denied) => {
            let told = told(session.account.name(), entry, denied);
            Err(Error::text(format!("NOPERM {told}")))
        }
    }
}

/// Whether a request that was queued may still run: rules may have changed since it was.
///
/// # Errors
/// NOPERM as EXEC replies it, which is logged.
pub fn check_queued(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    if session.account.is_unrestricted() {
        return Ok(());
    }
    let Some(denied) = denied(engine, session, entry, args, Place::Multi) else { return Ok(()) };
    let reason = match denied {
        Denied::Command => "no permission to execute the command or subcommand",
        Denied::Key(_) => "no permission to touch the specified keys",
        Denied::Channel(_) => "no permission to access one of the channels used as arguments to the command",
    };
    Err(Error::text(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command \
         is no longer allowed for the following reason: {reason}"
    )))
}

/// Whether a script may run a request on behalf of its client.
///
/// # Errors
/// The refusal as scripts see it, which is logged.
pub fn check_scripted(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    if session.account.is_unrestricted() {
        return Ok(());
    }
    match denied(engine, session, entry, args, Place::Lua) {
        None => Ok(()),
        Some(denied) => {
            let told = told(session.account.name(), entry, denied);
            Err(Error::text(format!("ERR ACL failure in script: {told}")))
        }
    }
}

/// Whether a client may follow names that stand in values, which SORT does for BY and GET: its rules permit
/// the command to read any key.
pub fn may_read_any_key(session: &Session, entry: &Entry, args: &Args<'_>) -> bool {
    session.account.is_unrestricted()
        || session.account.rules().permits_any_key(&request(entry, &words(args)), Access::READ)
}

/// What of a request this user is not permitted, if anything; not logged.
pub fn ask(user: &crate::acl::user::User, entry: &Entry, args: &[&[u8]]) -> Result<(), Denied> {
    user.permits(&request(entry, args))
}

#[cold]
fn denied(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>, place: Place) -> Option<Denied> {
    let words = words(args);
    let denied = ask(&session.account.rules(), entry, &words).err()?;
    let (reason, object) = match denied {
        Denied::Command => (Reason::Command, entry.full_name.as_bytes()),
        Denied::Key(at) => (Reason::Key, words[at]),
        Denied::Channel(at) => (Reason::Channel, words[at]),
    };
    if place == Place::Toplevel || session.is_queueing() {
        // Inside of another command, that one is what the client runs.
        session.shared.figures.note_command(Some(entry.index));
    }
    note(engine, &session.shared, reason, place, object, session.account.name());
    Some(denied)
}

/// Says what is not permitted, without the names of keys and channels.
fn told(user: &[u8], entry: &Entry, denied: Denied) -> String {
    match denied {
        Denied::Command => {
            let user = String::from_utf8_lossy(user);
            format!("User {user} has no permissions to run the '{}' command", entry.full_name)
        }
        Denied::Key(_) => "No permissions to access a key".into(),
        Denied::Channel(_) => "No permissions to access a channel".into(),
    }
}

/// Counts a refusal, and logs it.
pub fn note(engine: &Engine, client: &Shared, reason: Reason, place: Place, object: &[u8], user: &[u8]) {
    engine.stats.add(
        match reason {
            Reason::Command => Counter::AccessDeniedCommand,
            Reason::Key => Counter::AccessDeniedKey,
            Reason::Channel => Counter::AccessDeniedChannel,
            Reason::Auth => Counter::AccessDeniedAuth,
        },
        1,
    );
    let refusal = Refusal {
        reason,
        place,
        object: object.to_vec(),
        user: user.to_vec(),
        client: client::described(engine, client),
    };
    let most = usize::try_from(engine.config.load().acllog_max_len).unwrap_or(usize::MAX);
    engine.acl_log.record(refusal, engine.clock.now_ms(), most);
}
