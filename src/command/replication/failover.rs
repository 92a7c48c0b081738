//! FAILOVER: a primary hands its part to one of its replicas, without losing anything.
//!
//! Writes are held back, a replica is waited for that has acknowledged all of the stream, then this server follows it
//! and asks it, with its PSYNC, to lead. What must stay true: as long as the outcome is open nothing is written here;
//! wherever it is given up, this server leads again.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::replication::role;
use crate::command::table::Command;
use crate::keyspace::hold::ShardSet;
use crate::observe::log::notice;
use crate::replication::replicas::Replica;
use crate::replication::{Failover, State, Takeover};
use crate::spec::{Arity, Flag, Group};

/// Has a replica take over.
pub const FAILOVER: Command = Command {
    name: "FAILOVER",
    since: "6.2.0",
    group: Group::Server,
    arity: Arity::AtLeast(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "[TO target{host port:integer [FORCE]}] [ABORT] [TIMEOUT milliseconds]",
    summary: "Starts a coordinated failover from a server to one of its replicas.",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: failover,
};

fn failover(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.config.cluster_enabled {
        return Err(Error::text("ERR FAILOVER not allowed in cluster mode."));
    }
    let (mut target, mut timeout_ms, mut force, mut abort) = (None, None, false, false);
    let mut at = 1;
    while at < args.len() {
        match word(args.at(at), &["TO", "FORCE", "ABORT", "TIMEOUT"]) {
            Some("TIMEOUT") if timeout_ms.is_none() && at + 1 < args.len() => {
                let ms = u64::try_from(args.integer(at + 1)?).ok().filter(|ms| *ms > 0);
                timeout_ms = Some(ms.ok_or(Error::text("ERR FAILOVER timeout must be greater than 0"))?);
                at += 1;
            }
            Some("TO") if target.is_none() && at + 2 < args.len() => {
                let port = u16::try_from(args.integer(at + 2)?).map_err(|_| Error::NotInteger)?;
                target = Some((String::from_utf8_lossy(args.at(at + 1)).into_owned(), port));
                at += 2;
            }
            Some("FORCE") if !force => force = true,
            Some("ABORT") if !abort => abort = true,
            _ => return Err(Error::Syntax),
        }
        at += 1;
    }
    let engine = ctx.engine;
    let stage = engine.replication.state().takeover.stage;
    if stage != Failover::None {
        if !abort {
            return Err(Error::text("ERR FAILOVER already in progress."));
        }
        // What is to be undone takes more than is held here: the timers do it.
        engine.replication.state().takeover.until_ms = Some(0);
        engine.replication.state().takeover.aborted = true;
        if stage == Failover::Waiting {
            give_up(engine, "Failover manually aborted");
        }
        ctx.out.ok();
        return DONE;
    }
    if abort {
        return Err(Error::text("ERR No failover in progress."));
    }
    if engine.replication.is_following() {
        return Err(Error::text("ERR FAILOVER is not valid when server is a replica."));
    }
    let mut state = engine.replication.state();
    if state.replicas.is_empty() {
        return Err(Error::text("ERR FAILOVER requires connected replicas."));
    }
    if force && (timeout_ms.is_none() || target.is_none()) {
        return Err(Error::text("ERR FAILOVER with force option requires both a timeout and target HOST and IP."));
    }
    if let Some(target) = &target {
        let replica = find(&state, target);
        match replica.map(|replica| replica.is_online()) {
            None => return Err(Error::text("ERR FAILOVER target HOST and PORT is not a replica.")),
            Some(false) => return Err(Error::text("ERR FAILOVER target replica is not online.")),
            Some(true) => {}
        }
    }
    match &target {
        Some((host, port)) => notice!("FAILOVER requested to {host}:{port}."),
        None => notice!("FAILOVER requested."),
    }
    let until_ms = timeout_ms.map(|ms| engine.clock.now_ms() + ms);
    state.takeover = Takeover { stage: Failover::Waiting, target, until_ms, force, aborted: false };
    drop(state);
    engine.pause.hold_writes(true);
    ctx.out.ok();
    DONE
}

fn find<'s>(state: &'s State, (host, port): &(String, u16)) -> Option<&'s Replica> {
    state.replicas.iter().find(|replica| replica.about.port == *port && replica.ip().eq_ignore_ascii_case(host))
}

/// Gives it up: whoever had begun to follow leads again. The caller holds nothing, or runs a command while nothing but
/// writes are held back.
fn give_up(engine: &Engine, why: &str) {
    notice!("Aborting failover: {why}");
    engine.replication.state().takeover = Takeover::default();
    engine.pause.hold_writes(false);
}

/// Notes that the replica has agreed, or not, to take over. Called by the link, which holds nothing.
pub fn answered(engine: &Engine, agreed: bool) {
    if !agreed {
        return lead_again(engine, "Failover target rejected psync request");
    }
    let mut state = engine.replication.state();
    if state.takeover.stage == Failover::Going {
        state.takeover = Takeover::default();
        drop(state);
        engine.pause.hold_writes(false);
    }
}

fn lead_again(engine: &Engine, why: &str) {
    {
        let _alone = engine.keyspace.gates().alone();
        let _hold = engine.keyspace.hold(ShardSet::ALL);
        let mut state = engine.replication.state();
        if state.takeover.stage != Failover::Going {
            // The replica has agreed meanwhile, and leads.
            return;
        }
        state.takeover = Takeover::default();
        drop(state);
        role::lead(engine);
    }
    give_up(engine, why);
}

/// Whether the link that is to be made asks the other to lead.
pub fn is_going(engine: &Engine) -> bool {
    engine.replication.state().takeover.stage == Failover::Going
}

/// Sees how far it is; called by the timers, which hold nothing.
pub fn look(engine: &Engine) {
    let now_ms = engine.clock.now_ms();
    let state = engine.replication.state();
    let takeover = state.takeover.clone();
    match takeover.stage {
        Failover::None => return,
        Failover::Going => {
            drop(state);
            if takeover.aborted {
                lead_again(engine, "Failover manually aborted");
            }
            return;
        }
        Failover::Waiting => {}
    }
    let late = takeover.until_ms.is_some_and(|until| now_ms >= until);
    if late && !takeover.force {
        drop(state);
        return give_up(engine, "Replica never caught up before timeout");
    }
    if next(engine, &state, late).is_none() {
        drop(state);
        let words = [&b"REPLCONF"[..], b"GETACK", b"*"];
        engine.log.pass(&words.map(<[u8]>::to_vec).to_vec());
        return engine.replication.wake_replicas();
    }
    drop(state);
    let _alone = engine.keyspace.gates().alone();
    let _hold = engine.keyspace.hold(ShardSet::ALL);
    // What had begun before writes were held back, a script perhaps, is over only now, and the replica may lack it.
    let mut state = engine.replication.state();
    let Some((host, port)) = next(engine, &state, late).filter(|_| state.takeover.stage == Failover::Waiting) else {
        return;
    };
    match late {
        true => notice!("Failover to {host}:{port} time out exceeded, failing over."),
        false => notice!("Failover target {host}:{port} is synced, failing over."),
    }
    state.takeover.stage = Failover::Going;
    drop(state);
    role::follow(engine, &host, port);
}

/// Who can take over: a replica that has all of the stream, or the one that is to in any case where it is `late`.
fn next(engine: &Engine, state: &State, late: bool) -> Option<(String, u16)> {
    let offset = engine.replication.offset();
    let has_all = |replica: &&Replica| replica.is_online() && replica.acked >= offset;
    match &state.takeover.target {
        Some(target) if late => Some(target.clone()),
        Some(target) => find(state, target).filter(has_all).map(|_| target.clone()),
        None => state.replicas.iter().find(has_all).map(|replica| (replica.ip(), replica.about.port)),
    }
}
