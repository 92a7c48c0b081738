//! WAIT and WAITAOF: clients that want to be sure that others, or a disk, have what they wrote.
//!
//! What must stay true: a client is told the number of replicas that have acknowledged its last write when its wait
//! ends, whatever ended it.

use std::sync::Arc;

use crate::command::args::Args;
use crate::command::blocking::{Served, Wait, until_milliseconds};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::table::Command;
use crate::keyspace::hold::ShardSet;
use crate::persist::aof::State;
use crate::replication::Waiter;
use crate::resp::reply::Output;
use crate::spec::{Arity, Category, Group};

/// Waits until so many replicas have what the client wrote; replies how many do.
pub const WAIT: Command = Command {
    name: "WAIT",
    since: "3.0.0",
    group: Group::Generic,
    arity: Arity::Exactly(3),
    flags: &[],
    categories: &[Category::Connection],
    keys: &[],
    usage: "numreplicas:integer timeout:integer",
    summary: "Blocks until the asynchronous replication of all preceding write commands sent by the connection is completed.",
    complexity: "O(1)",
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: wait,
};

/// The same for disks: our own, and those of replicas.
pub const WAITAOF: Command = Command {
    name: "WAITAOF",
    since: "7.2.0",
    arity: Arity::Exactly(4),
    usage: "numlocal:integer numreplicas:integer timeout:integer",
    summary: "Blocks until all of the preceding write commands sent by the connection are written to the append-only file of the master and/or replicas.",
    run: wait_aof,
    ..WAIT
};

fn wait(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.engine.replication.is_following() {
        return Err(Error::text(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let wanted = args.integer(1)?;
    let until_ms = until_milliseconds(args.at(2), ctx.db.now_ms())?;
    let offset = ctx.session.streamed;
    let acked = ctx.engine.replication.state().replicas.acked(offset);
    if acked as i64 >= wanted || ctx.is_inside() {
        ctx.out.integer(acked as i64);
        return DONE;
    }
    let engine = ctx.engine.arc();
    let answer = move |out: &mut Output| {
        let acked = engine.replication.state().replicas.acked(offset);
        out.integer(acked as i64);
        Ok(())
    };
    let replicas = usize::try_from(wanted).unwrap_or(0);
    block(
        ctx,
        Waiter { client: ctx.session.shared.clone(), offset, replicas, on_disk: false, local: None, leads: false },
        until_ms,
        answer,
    )
}

fn wait_aof(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let local = args.integer(1)?;
    if !(0..=1).contains(&local) {
        return Err(Error::text("ERR value is out of range, value must between 0 and 1"));
    }
    let wanted = u64::try_from(args.integer(2)?).map_err(|_| Error::NotPositive)?;
    let until_ms = until_milliseconds(args.at(3), ctx.db.now_ms())?;
    let engine = ctx.engine;
    if engine.replication.is_following() {
        return Err(Error::text(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not propagated.",
        ));
    }
    if local == 1 && !engine.aof.is_on() {
        return Err(Error::text(NO_LOG));
    }
    let (offset, logged) = (ctx.session.streamed, ctx.session.logged);
    let shared = engine.arc();
    let found = move |engine: &Engine| {
        let here = engine.aof.is_on() && on_disk(engine) >= logged;
        (i64::from(here), engine.replication.state().replicas.fsynced(offset) as i64)
    };
    let (here, there) = found(engine);
    let write = |out: &mut Output, here, there| {
        out.array(2);
        out.integer(here);
        out.integer(there);
    };
    if here >= local && there >= wanted as i64 || ctx.is_inside() {
        write(ctx.out, here, there);
        return DONE;
    }
    let answer = move |out: &mut Output| {
        let (here, there) = found(&shared);
        write(out, here, there);
        Ok(())
    };
    let waiter = Waiter {
        client: ctx.session.shared.clone(),
        offset,
        replicas: usize::try_from(wanted).unwrap_or(usize::MAX),
        on_disk: true,
        local: (local == 1).then_some(logged),
        leads: false,
    };
    engine.aof.appender.ring();
    block(ctx, waiter, until_ms, answer)
}

/// Has the client wait for what `waiter` says; `answer` ends its command, be it that or the time that is up.
pub fn block(
    ctx: &mut Context<'_>,
    waiter: Waiter,
    until_ms: Option<u64>,
    answer: impl Fn(&mut Output) -> Result<(), Error> + Send + Sync + 'static,
) -> Reply {
    let engine = ctx.engine;
    let mut state = engine.replication.state();
    state.waiters.retain(|other| other.client.id != waiter.client.id);
    state.waiters.push(waiter);
    let any = !state.replicas.is_empty();
    drop(state);
    if any {
        // Else they would tell within a second.
        let words = [&b"REPLCONF"[..], b"GETACK", b"*"];
        engine.log.pass(&words.map(<[u8]>::to_vec).to_vec());
        engine.replication.wake_replicas();
    }
    Ok(Outcome::Wait(Box::new(Wait {
        keys: Vec::new(),
        until_ms,
        also: ShardSet::default(),
        serve: Box::new(|_, _| Ok(Served::No)),
        timed_out: Output::null,
        answer: Some(Box::new(answer)),
        denied: Output::null,
        kind: None,
        aside: None,
        gone: None,
    })))
}

/// What WAITAOF says where there is no disk to wait for.
const NO_LOG: &str = "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

/// How much of the write log our disk has, in files that can be read again: without a base there is none.
fn on_disk(engine: &Engine) -> u64 {
    if engine.aof.state() == State::On { engine.aof.appender.synced() } else { 0 }
}

/// Ends the waits of those who wait for our disk, because the log is turned off.
pub fn end_local(engine: &Engine) {
    for client in engine.replication.waiting_for_disk() {
        let waits = client.wait.lock().clone();
        waits.into_iter().for_each(|wait| _ = wait.fail(NO_LOG));
    }
}

/// Ends the waits of those who have waited long enough. Nothing is held but maybe a gate.
pub fn end_those_done(engine: &Engine) {
    let done: Vec<Arc<_>> = engine.replication.satisfied(|| on_disk(engine));
    for client in done {
        let waits = client.wait.lock().clone();
        waits.into_iter().for_each(|wait| _ = wait.time_out());
    }
}
