//! The end of a primary: it waits for its replicas, so that they have what it has acknowledged; in a cluster one of
//! them can take its place before it goes.
//!
//! What must stay true: from when the end is asked for until it comes, or is called off, nothing is written.

use parking_lot::Mutex;

use crate::cluster::machine::MANUAL_TIMEOUT_MS;
use crate::cluster::node::Name;
use crate::command::blocking::{Served, Wait};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::engine::{Engine, ShutdownRequest};
use crate::command::error::Error;
use crate::command::save;
use crate::keyspace::hold::ShardSet;
use crate::observe::log::{notice, warning};
use crate::resp::reply::Output;

/// An end that waits for replicas.
#[derive(Debug, Default)]
pub struct Farewell(Mutex<Option<Pending>>);

#[derive(Debug)]
struct Pending {
    request: ShutdownRequest,
    until_ms: u64,
    /// Until when a replica may take over that was asked to, in unix milliseconds.
    handing_until_ms: Option<u64>,
    /// Clients that asked for it.
    clients: Vec<std::sync::Arc<crate::client::shared::Shared>>,
}

impl Farewell {
    /// Whether this client waits for it.
    pub fn is_awaited_by(&self, id: u64) -> bool {
        self.0.lock().as_ref().is_some_and(|pending| pending.clients.iter().any(|client| client.id == id))
    }

    /// Unix milliseconds until which replicas are waited for, while they are.
    pub fn until_ms(&self) -> Option<u64> {
        self.0.lock().as_ref().map(|pending| pending.until_ms)
    }
}

/// What a client is told whose SHUTDOWN did not come to its end.
const FAILED: &str = "ERR Errors trying to SHUTDOWN. Check logs.";

/// Whether every replica that is online has all of the stream.
fn all_have_all(engine: &Engine) -> bool {
    let offset = engine.replication.offset();
    let state = engine.replication.state();
    state.replicas.iter().filter(|replica| replica.is_online()).all(|replica| replica.acked >= offset)
}

/// Asks for the end, and returns whether replicas are waited for before it comes.
pub fn waits(engine: &Engine, request: ShutdownRequest) -> bool {
    let mut pending = engine.farewell.0.lock();
    if pending.is_some() && !request.now {
        return true;
    }
    let timeout_s = engine.config.load().shutdown_timeout;
    let hands_over = request.failover && heir(engine).is_some();
    let need_not = timeout_s == 0 || all_have_all(engine);
    if request.now || engine.replication.is_following() || need_not && !hands_over {
        *pending = None;
        drop(pending);
        tell_replicas(engine);
        return false;
    }
    let until_ms = engine.clock.now_ms() + u64::from(timeout_s) * 1000;
    *pending = Some(Pending { request, until_ms, handing_until_ms: None, clients: Vec::new() });
    drop(pending);
    notice!("Waiting for replicas before shutting down.");
    engine.pause.end_writes(true);
    ask(engine);
    true
}

/// Says who has all of the stream and who has not; a replica, which nobody follows for what it wrote, says nothing.
fn tell_replicas(engine: &Engine) {
    if engine.replication.is_following() {
        return;
    }
    let (offset, now_ms) = (engine.replication.offset(), engine.clock.now_ms());
    let state = engine.replication.state();
    if state.replicas.is_empty() {
        return;
    }
    let mut in_sync = 0;
    for replica in state.replicas.iter() {
        if replica.acked >= offset {
            in_sync += 1;
            continue;
        }
        notice!(
            "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
            replica.client.addr,
            offset - replica.acked,
            replica.lag_s(now_ms),
            replica.stage.name()
        );
    }
    notice!("{in_sync} of {} replicas are in sync when shutting down.", state.replicas.len());
}

fn ask(engine: &Engine) {
    let words = [&b"REPLCONF"[..], b"GETACK", b"*"];
    engine.log.pass(&words.map(<[u8]>::to_vec).to_vec());
    engine.replication.wake_replicas();
}

/// The replica that is to take over, where this is a primary of a cluster that has one.
fn heir(engine: &Engine) -> Option<Name> {
    engine.cluster.as_ref()?.with(engine.clock.now_ms(), |machine| machine.heir())
}

/// Whether a replica is about to take over, which is waited for.
fn hands_over(engine: &Engine, pending: &mut Pending) -> bool {
    let now_ms = engine.clock.now_ms();
    let Some(cluster) = engine.cluster.as_ref().filter(|_| pending.request.failover) else { return false };
    if let Some(until_ms) = pending.handing_until_ms {
        if cluster.view().load().is_replica {
            notice!("A replica has taken over.");
            return false;
        }
        if now_ms >= until_ms {
            warning!("No replica has taken over.");
        }
        return now_ms < until_ms;
    }
    let Some(heir) = heir(engine) else { return false };
    notice!("Sending CLUSTER FAILOVER FORCE to replica {heir}");
    let words = [&b"CLUSTER"[..], b"FAILOVER", b"FORCE", b"REPLICAID", &heir.0];
    engine.log.pass(&words.map(<[u8]>::to_vec).to_vec());
    engine.replication.wake_replicas();
    pending.handing_until_ms = Some(now_ms + MANUAL_TIMEOUT_MS);
    true
}

/// Has the client that asked for the end wait for it.
pub fn wait(ctx: &mut Context<'_>) -> Reply {
    if let Some(pending) = &mut *ctx.engine.farewell.0.lock() {
        pending.clients.push(ctx.session.shared.clone());
    }
    Ok(Outcome::Wait(Box::new(Wait {
        keys: Vec::new(),
        until_ms: None,
        also: ShardSet::default(),
        serve: Box::new(|_, _| Ok(Served::No)),
        timed_out: |out| out.error(format_args!("{FAILED}")),
        answer: None,
        denied: Output::null,
        kind: None,
        aside: None,
        gone: None,
    })))
}

/// Calls it off; returns whether there was one.
pub fn call_off(engine: &Engine) -> bool {
    let Some(pending) = engine.farewell.0.lock().take() else { return false };
    notice!("Shutdown manually aborted.");
    release(engine, &pending);
    true
}

fn release(engine: &Engine, pending: &Pending) {
    engine.pause.end_writes(false);
    for client in &pending.clients {
        let waits = client.wait.lock().clone();
        waits.into_iter().for_each(|wait| _ = wait.time_out());
    }
}

/// Sees whether the time has come; called by the timers, which hold nothing.
pub fn look(engine: &Engine) {
    let Some(until_ms) = engine.farewell.until_ms() else { return };
    let is_handing = engine.farewell.0.lock().as_ref().is_some_and(|pending| pending.handing_until_ms.is_some());
    if !is_handing && !all_have_all(engine) && engine.clock.now_ms() < until_ms {
        return ask(engine);
    }
    let goes_on = engine.farewell.0.lock().as_mut().is_none_or(|pending| hands_over(engine, pending));
    if goes_on {
        return;
    }
    // Those that wait are known as such until the end has come: a role that changes just now ends other waits.
    let Some(request) = engine.farewell.0.lock().as_ref().map(|pending| pending.request) else { return };
    tell_replicas(engine);
    let ended = engine.scripts.running.interrupt(|| {
        let _alone = engine.keyspace.gates().alone();
        save::end(engine, &mut engine.keyspace.hold(ShardSet::ALL), request)
    });
    if let Err(reason) = ended
        && let Some(pending) = engine.farewell.0.lock().take()
    {
        warning!("{reason}");
        release(engine, &pending);
    }
}

/// SHUTDOWN ABORT.
///
/// # Errors
/// There is nothing to call off.
pub fn abort(ctx: &mut Context<'_>) -> Reply {
    if !call_off(ctx.engine) {
        ctx.engine.host.abort_shutdown().map_err(Error::text)?;
    }
    ctx.out.ok();
    DONE
}
