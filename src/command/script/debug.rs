//! SCRIPT DEBUG: the client's next script runs in a session of the debugger.
//!
//! What must stay true: a session runs alone, over everything. In the server it holds everything until its client lets
//! it go; in a copy of the process nothing of what it does reaches a file, a replica or another client, and the copy
//! never leaves this file but by its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::client::session::{Fate, ReplyMode};
use crate::command::args::{Args, word};
use crate::command::call::write_error;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::script::evaluate_plainly;
use crate::command::script::run::Access;
use crate::observe::log::notice;
use crate::observe::stats::Counter;
use crate::script::debugger::state::Debugger;
use crate::script::debugger::{Debugging, Place, Side};

/// How long a script runs between two stops where `busy-reply-threshold` says nothing.
const PATIENCE_MS: u64 = 5000;

/// Handles SCRIPT DEBUG.
pub fn debug(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Replies that have not left yet would come behind what the debugger says.
    if !ctx.out.is_empty() {
        return Err(Error::text("ERR SCRIPT DEBUG must be called outside a pipeline"));
    }
    let place = match word(args.at(2), &["YES", "SYNC", "NO"]) {
        Some("YES") => Some(Place::Copy),
        Some("SYNC") => Some(Place::Server),
        Some(_) => None,
        None => return Err(Error::text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    };
    match place {
        Some(_) if ctx.session.in_process => {
            return Err(Error::text(
                "ERR SCRIPT DEBUG needs a connection: this client is inside of the server's process",
            ));
        }
        Some(Place::Copy) if !ctx.engine.host.may_fork() => {
            return Err(Error::text(
                "ERR SCRIPT DEBUG YES copies the server's process, and this one is not the server's own. Use SCRIPT DEBUG SYNC.",
            ));
        }
        // Who asked for SYNC before has it until NO.
        Some(place) if ctx.session.debugging.is_none() => {
            ctx.session.debugging = Some(Box::new(Debugging::new(place)));
        }
        Some(Place::Server) => {
            if let Some(debugging) = &mut ctx.session.debugging {
                debugging.place = Place::Server;
            }
        }
        Some(Place::Copy) => {}
        None => ctx.session.debugging = None,
    }
    ctx.out.ok();
    DONE
}

/// Runs EVAL in a session of the debugger, as the client has asked.
///
/// # Errors
/// The script's, or that there is no session.
pub fn evaluate(ctx: &mut Context<'_>, args: &Args<'_>, access: Access) -> Reply {
    if !ctx.is_inside() && ctx.session.reply == ReplyMode::On {
        // What was answered before comes first.
        let answered = ctx.out.to_vec();
        ctx.out.advance(answered.len());
        tell(ctx, &answered);
    }
    let Some(debugging) = &mut ctx.session.debugging else { return evaluate_plainly(ctx, args, access) };
    if debugging.is_copied {
        // A second script of a transaction whose first went on in the copy, and the client with it.
        return evaluate_plainly(ctx, args, access);
    }
    let forked = match (debugging.place, &mut debugging.line) {
        (Place::Copy, Some(line)) => Some(line.fork()),
        _ => None,
    };
    match forked {
        None => {
            notice!("A session of the Lua debugger begins: the server stands still");
            let reply = run(ctx, args, access);
            notice!("The session of the Lua debugger has ended");
            ctx.session.debugging = None;
            // So the client knows that the session is over.
            ctx.session.fate = Fate::CloseAfterReply;
            reply
        }
        Some(Ok(Side::Copy)) => {
            debugging.is_copy = true;
            // Nothing unwinds out of here.
            let _ = catch_unwind(AssertUnwindSafe(|| run_and_answer(ctx, args, access)));
            end_copy(ctx)
        }
        Some(Ok(Side::Server)) => {
            notice!("A copy of the process was made for a session of the Lua debugger");
            debugging.is_copied = true;
            ctx.engine.stats.add(Counter::Forks, 1);
            // It is the copy's client now.
            ctx.session.fate = Fate::Close;
            DONE
        }
        Some(Err(error)) => {
            ctx.session.debugging = None;
            let text = error.to_string();
            let why = text.split(" (os error").next().unwrap_or(&text);
            Err(Error::text(format!("ERR Fork() failed: can't run EVAL in debugging mode: {why}")))
        }
    }
}

/// The session: begins before the script is even read, and ends behind it.
fn run(ctx: &mut Context<'_>, args: &Args<'_>, access: Access) -> Reply {
    let patience_ms = match ctx.config.busy_reply_threshold {
        0 => PATIENCE_MS,
        patience_ms => patience_ms,
    };
    let debugger = Debugger::new(args.at(1), Duration::from_millis(patience_ms), Instant::now());
    if let Some(debugging) = &mut ctx.session.debugging {
        debugging.debugger = Some(Box::new(debugger));
    }
    let reply = evaluate_plainly(ctx, args, access);
    let debugger = ctx.session.debugging.as_mut().and_then(|debugging| debugging.debugger.take());
    if let Some(mut debugger) = debugger {
        debugger.tell("<endsession>");
        tell(ctx, &debugger.take_told());
    }
    reply
}

fn tell(ctx: &mut Context<'_>, bytes: &[u8]) {
    if let Some(line) = ctx.session.debugging.as_mut().and_then(|debugging| debugging.line.as_mut()) {
        line.tell(bytes);
    }
}

/// What the copy of the process does.
fn run_and_answer(ctx: &mut Context<'_>, args: &Args<'_>, access: Access) {
    if let Err(error) = run(ctx, args, access) {
        write_error(ctx, &error);
    }
    if ctx.session.reply == ReplyMode::On {
        let answer = ctx.out.to_vec();
        tell(ctx, &answer);
    }
}

fn end_copy(ctx: &mut Context<'_>) -> ! {
    match ctx.session.debugging.as_mut().and_then(|debugging| debugging.line.as_mut()) {
        Some(line) => line.end(),
        None => std::process::abort(),
    }
}
