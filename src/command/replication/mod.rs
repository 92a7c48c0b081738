//! Replication: who follows whom, how far they are, and who waits for that.
//!
//! What a replica asks for and acknowledges is here; [`sync`] makes data sets for replicas, [`role`] makes a primary of a
//! replica and the other way round, [`wait`] is for clients that want to be sure, [`failover`] changes the roles of two, [`farewell`] ends a
//! primary; [`own`] is about keys that only a replica has.

pub mod failover;
pub mod farewell;
pub mod own;
pub mod role;
pub mod sync;
pub mod wait;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::client::feed::{Feed, Introduction, Parts};
use crate::client::shared::Mark;
use crate::command::args::{Args, word};
use crate::command::client;
use crate::command::context::{Context, DONE, Reply, later};
use crate::command::engine::{Engine, Refusal};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::config::table::Config;
use crate::observe::log::{notice, warning};
use crate::observe::stats::Counter;
use crate::persist::log::Wants;
use crate::replication::handshake::{FOLLOWS_SLOTS, TWO_CHANNELS};
use crate::replication::history::History;
use crate::replication::replicas::{Late, Replica, Stage};
use crate::replication::{Failover, Stage as LinkStage, State};
use crate::spec::{Arity, Category, Flag, Group};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] =
    &[failover::FAILOVER, PSYNC, REPLCONF, REPLICAOF, ROLE, SLAVEOF, SYNC, wait::WAIT, wait::WAITAOF];

/// What most declarations of this folder have in common.
const BASE: Command = Command {
    name: "",
    since: "2.8.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: role,
};

/// Replies what part the server has in replication, how far it is, and who else has a part.
pub const ROLE: Command = Command {
    name: "ROLE",
    since: "2.8.12",
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Admin, Category::Dangerous],
    summary: "Returns the replication role.",
    complexity: "O(1)",
    run: role,
    ..BASE
};

fn role(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let replication = &ctx.engine.replication;
    let state = replication.state();
    if replication.is_following() {
        let primary = &state.primary;
        ctx.out.array(5);
        ctx.out.bulk(b"slave");
        ctx.out.bulk(primary.host.as_bytes());
        ctx.out.integer(primary.port.into());
        ctx.out.bulk(primary.stage().name().as_bytes());
        let connected = primary.stage() == LinkStage::Connected;
        ctx.out.integer(if connected { replication.offset().cast_signed() } else { -1 });
        return DONE;
    }
    ctx.out.array(3);
    ctx.out.bulk(b"master");
    ctx.out.integer(replication.offset().cast_signed());
    let online = || state.replicas.iter().filter(|replica| replica.is_online());
    ctx.out.array(online().count());
    for replica in online() {
        ctx.out.array(3);
        ctx.out.bulk(replica.ip().as_bytes());
        ctx.out.bulk(replica.about.port.to_string().as_bytes());
        ctx.out.bulk(replica.acked.to_string().as_bytes());
    }
    DONE
}

/// What a replica says of itself, and acknowledges.
pub const REPLCONF: Command = Command {
    name: "REPLCONF",
    since: "3.0.0",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::AllowBusy, Flag::System],
    summary: "An internal command for configuring the replication stream.",
    complexity: "O(1)",
    run: replconf,
    ..BASE
};

/// A name of a host is no longer.
const HOST_BYTES: usize = 255;

fn replconf(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len().is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    let mut about = ctx.session.introduction.as_deref().cloned().unwrap_or_default();
    let mut at = 1;
    while at < args.len() {
        let value = args.at(at + 1);
        const WORDS: &[&str] = &[
            "LISTENING-PORT",
            "IP-ADDRESS",
            "CAPA",
            "ACK",
            "GETACK",
            "RDB-ONLY",
            "RDB-FILTER-ONLY",
            "RDB-CHANNEL",
            "SET-RDB-CLIENT-ID",
            "VERSION",
        ];
        match word(args.at(at), WORDS) {
            Some("LISTENING-PORT") => {
                let port = args.integer(at + 1)?;
                about.port = u16::try_from(port).map_err(|_| Error::NotInteger)?;
            }
            Some("IP-ADDRESS") => {
                if value.len() > HOST_BYTES {
                    let sent = value.len();
                    return Err(Error::text(format!(
                        "ERR REPLCONF ip-address provided by replica instance is too long: {sent} bytes"
                    )));
                }
                about.ip = Some(value.to_vec()).filter(|ip| !ip.is_empty());
            }
            // What is not known is no concern of ours.
            Some("CAPA") => match word(value, &["EOF", "PSYNC2", TWO_CHANNELS]) {
                Some("EOF") => about.eof = true,
                Some("PSYNC2") => about.psync2 = true,
                // Where this may not be, it is nothing that is known.
                Some(_) => about.two_channels |= may_use_two_channels(ctx.config),
                None => about.follows_slots |= value.eq_ignore_ascii_case(FOLLOWS_SLOTS.as_bytes()),
            },
            // These are not answered: the stream is on its way in the other direction.
            Some("ACK") => return acknowledged(ctx, args, at),
            Some("GETACK") => {
                if ctx.session.follows.is_some() {
                    ctx.engine.replication.want_ack();
                }
                return DONE;
            }
            Some("RDB-ONLY") => about.rdb_only = switch(args, at + 1)?,
            Some("RDB-FILTER-ONLY") => about.parts = parts(value)?,
            Some("RDB-CHANNEL") => about.is_second = switch(args, at + 1)?,
            Some("SET-RDB-CLIENT-ID") => {
                let id = args.integer(at + 1)?;
                if ctx.engine.debug.stops.load(Ordering::Relaxed) {
                    ctx.session.introduction = Some(Box::new(about));
                    return wait_for_stop(id, ctx);
                }
                about.second = Some(second(ctx.engine, id)?);
            }
            // Said by replicas of Valkey alone.
            Some(_) => match version(value) {
                Some(version) => about.follows_slots |= version >= SLOTS_SINCE,
                None => {
                    let value = String::from_utf8_lossy(value).into_owned();
                    return Err(Error::text(format!("ERR Unrecognized version format: {value}")));
                }
            },
            None => {
                let option = String::from_utf8_lossy(args.at(at)).into_owned();
                return Err(Error::text(format!("ERR Unrecognized REPLCONF option: {option}")));
            }
        }
        at += 2;
    }
    ctx.session.introduction = Some(Box::new(about));
    ctx.out.ok();
    DONE
}

/// The second connection of this number.
fn second(engine: &Engine, id: i64) -> Result<u64, Error> {
    let known = |id: &u64| engine.replication.state().replicas.is_second(*id);
    let unknown = || Error::text(format!("ERR Unrecognized RDB client id {id}"));
    u64::try_from(id).ok().filter(known).ok_or_else(unknown)
}

/// Has a first connection wait where the process is to stop once the second has the data set: it is not attached before.
fn wait_for_stop(id: i64, ctx: &mut Context<'_>) -> Reply {
    if ctx.engine.replication.state().making.is_some() {
        std::thread::yield_now();
        return later(id, wait_for_stop);
    }
    let second = second(ctx.engine, id)?;
    ctx.session.introduction.get_or_insert_default().second = Some(second);
    ctx.out.ok();
    DONE
}

/// Whether a data set may go by a connection of its own.
fn may_use_two_channels(config: &Config) -> bool {
    config.dual_channel_replication_enabled && config.repl_diskless_sync
}

/// The first version of Valkey whose replicas follow slots on their way.
const SLOTS_SINCE: [u8; 3] = [8, 0, 0];

/// The three numbers of a version.
fn version(text: &[u8]) -> Option<[u8; 3]> {
    let number = |part: &[u8]| {
        let digits = part.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(part).ok().filter(|_| digits)?.parse::<u8>().ok()
    };
    let parts: Option<Vec<u8>> = text.split(|byte| *byte == b'.').map(number).collect();
    parts?.try_into().ok()
}

fn switch(args: &Args<'_>, at: usize) -> Result<bool, Error> {
    match args.integer(at)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::text("ERR value is out of range, value must between 0 and 1")),
    }
}

/// The parts of a data set that these words name.
fn parts(names: &[u8]) -> Result<Parts, Error> {
    let mut parts = Parts { keys: false, functions: false };
    for name in names.split(|byte| *byte == b' ').filter(|name| !name.is_empty()) {
        if !name.eq_ignore_ascii_case(b"functions") {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(Error::text(format!("ERR Unsupported rdb-filter-only parameter: {name}")));
        }
        parts.functions = true;
    }
    Ok(parts)
}

/// REPLCONF ACK offset \[FACK offset\].
fn acknowledged(ctx: &mut Context<'_>, args: &Args<'_>, at: usize) -> Reply {
    let number = |i: usize| args.opt(i).and_then(parse_i64).and_then(|n| u64::try_from(n).ok());
    let Some(offset) = number(at + 1) else { return DONE };
    let fsynced =
        if args.opt(at + 2).is_some_and(|word| word.eq_ignore_ascii_case(b"FACK")) { number(at + 3) } else { None };
    let (engine, id) = (ctx.engine, ctx.session.shared.id);
    let mut state = engine.replication.state();
    let now_ms = engine.clock.now_ms();
    state.replicas.ack(id, offset, fsynced, now_ms);
    if let Some(replica) =
        state.replicas.find(id).filter(|replica| matches!(replica.stage, Stage::Loading | Stage::Beside))
    {
        replica.stage = Stage::Online;
        replica.feed.stream();
        replica.client.wake();
        notice!("Synchronization with replica {} succeeded", replica.client.addr);
    }
    drop(state);
    look_at_acks(engine);
    DONE
}

/// Goes by what replicas have acknowledged: ends waits, and says whether enough of them are good.
pub fn look_at_acks(engine: &Engine) {
    wait::end_those_done(engine);
    let config = engine.config.load();
    let (least, lag_s) = (config.min_replicas_to_write, config.min_replicas_max_lag);
    let wanted = least > 0 && lag_s > 0 && !engine.replication.is_following();
    let few = wanted && engine.replication.state().replicas.good(lag_s.into(), engine.clock.now_ms()) < least as usize;
    engine.refuse(Refusal::FewReplicas, few);
}

/// Asks for the data set and the stream behind it, or for the stream from where the replica stopped.
pub const PSYNC: Command = Command {
    name: "PSYNC",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading, Flag::NoMulti],
    usage: "replicationid offset:integer",
    summary: "An internal command used in replication.",
    run: psync,
    ..BASE
};

/// The same in the way of old: always all of it.
pub const SYNC: Command = Command {
    name: "SYNC",
    since: "1.0.0",
    arity: Arity::Exactly(1),
    usage: "",
    run: |ctx, _| {
        if !may_sync(ctx)? {
            return DONE;
        }
        begin_full(ctx, true);
        DONE
    },
    ..PSYNC
};

/// Whether a client may be given the stream; `false` where it is already.
fn may_sync(ctx: &mut Context<'_>) -> Result<bool, Error> {
    if ctx.session.feed.is_some() {
        return Ok(false);
    }
    if ctx.session.in_process {
        return Err(Error::text("ERR replicas need a connection"));
    }
    let replication = &ctx.engine.replication;
    let state = replication.state();
    if state.takeover.stage != Failover::None {
        return Err(Error::text("NOMASTERLINK Can't SYNC while failing over"));
    }
    if replication.is_following() && state.primary.stage() != LinkStage::Connected {
        return Err(Error::text("NOMASTERLINK Can't SYNC while not connected with my master"));
    }
    if !ctx.out.is_empty() {
        return Err(Error::text("ERR SYNC and PSYNC are invalid with pending output"));
    }
    // A part of the data set is no file that could be kept, so it can only be sent as it is made; by a second connection it is.
    let no_file = |about: &Introduction| about.parts != Parts::default() || about.is_second;
    if ctx.session.introduction.as_ref().is_some_and(|about| no_file(about) && !about.eof) {
        return Err(Error::text("ERR Filtered replica requires EOF capability"));
    }
    Ok(true)
}

fn psync(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.session.feed.is_some() {
        return DONE;
    }
    let id = String::from_utf8_lossy(args.at(1)).into_owned();
    if args.len() > 3 && args.is(3, "FAILOVER") {
        notice!("Failover request received for replid {id}.");
        if !ctx.engine.replication.is_following() {
            return Err(Error::text("ERR PSYNC FAILOVER can't be sent to a master."));
        }
        if !id.eq_ignore_ascii_case(&ctx.engine.replication.state().history.id) {
            return Err(Error::text("ERR PSYNC FAILOVER replid must match my replid."));
        }
        // To become a primary takes more than what is held here.
        return Ok(crate::command::context::Outcome::Continue(role::take_over(ctx, id, args.at(2).to_vec())));
    }
    answer_psync(ctx, &id, args.at(2))
}

/// What is done about PSYNC once the server has the part that it is to have.
fn answer_psync(ctx: &mut Context<'_>, id: &str, offset: &[u8]) -> Reply {
    if !may_sync(ctx)? {
        return DONE;
    }
    let addr = ctx.session.shared.addr.clone();
    notice!("Replica {addr} asks for synchronization");
    let Some(from) = parse_i64(offset) else {
        warning!("Replica {addr} asks for synchronization but with a wrong offset");
        return Err(Error::NotInteger);
    };
    if go_on(ctx, id, from) {
        ctx.engine.stats.add(Counter::SyncPartialOk, 1);
        return DONE;
    }
    if id != "?" {
        ctx.engine.stats.add(Counter::SyncPartialErr, 1);
    }
    if ctx.session.introduction.as_ref().is_some_and(|about| about.two_channels) {
        notice!(
            "Replica {addr} is capable of dual channel synchronization, and partial sync isn't possible. Full sync will continue with dedicated RDB channel."
        );
        ctx.out.simple("DUALCHANNELSYNC");
        return DONE;
    }
    begin_full(ctx, false);
    DONE
}

/// Has a replica go on where it stopped, if that is possible.
fn go_on(ctx: &mut Context<'_>, id: &str, from: i64) -> bool {
    let engine = ctx.engine;
    let mut state = engine.replication.state();
    let addr = &ctx.session.shared.addr;
    // The first byte that is missing, counted from 1.
    let Some(has) = from.checked_sub(1).and_then(|has| u64::try_from(has).ok()) else {
        notice!("Full resync requested by replica {addr}");
        return false;
    };
    if !state.history.shares(id, has) {
        if id != "?" {
            notice!("Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{id}')");
        }
        return false;
    }
    if !state.backlog.as_ref().is_some_and(|backlog| backlog.covers(has)) {
        notice!("Unable to partial resync with replica {addr} for lack of backlog (Replica request was: {from}).");
        return false;
    }
    let about = ctx.session.introduction.as_deref().cloned().unwrap_or_default();
    let reply = match about.psync2 {
        true => format!("+CONTINUE {}\r\n", state.history.id),
        false => "+CONTINUE\r\n".to_owned(),
    };
    let feed = Arc::new(Feed::default());
    feed.push(Bytes::from(reply));
    feed.keep_from(has);
    feed.stream();
    notice!(
        "Partial resynchronization request from {addr} accepted. Sending {} bytes of backlog starting from offset {from}.",
        engine.replication.offset() - has
    );
    let second = about.second.filter(|second| state.replicas.is_second(*second));
    let stage = if second.is_some() { Stage::Beside } else { Stage::Online };
    join(ctx, &mut state, about, feed, stage, false);
    if let Some(second) = second {
        // From here on it is held for this connection.
        state.replicas.attach(second);
    }
    if let Some(replica) = state.replicas.find(ctx.session.shared.id) {
        replica.acked = has;
    }
    true
}

/// Makes a replica of a client.
fn join(ctx: &mut Context<'_>, state: &mut State, about: Introduction, feed: Arc<Feed>, stage: Stage, old: bool) {
    let now_ms = ctx.engine.clock.now_ms();
    let client = ctx.session.shared.clone();
    client.mark(Mark::Replica, true);
    ctx.session.feed = Some(feed.clone());
    state.replicas.add(Replica {
        client,
        feed,
        about,
        old,
        stage,
        acked: 0,
        fsynced: 0,
        heard_ms: now_ms,
        asked_ms: now_ms,
    });
    state.alone_since_ms = None;
    ctx.engine.replication.note_listening(state);
    // What is to be sent first is there already.
    ctx.session.shared.wake();
}

/// Has a client wait for a data set.
fn begin_full(ctx: &mut Context<'_>, old: bool) {
    let engine = ctx.engine;
    engine.stats.add(Counter::SyncFull, 1);
    let about = ctx.session.introduction.as_deref().cloned().unwrap_or_default();
    let mut state = engine.replication.state();
    join(ctx, &mut state, about, Arc::new(Feed::default()), Stage::Waiting, old);
    let fresh = state.backlog.is_none() && !engine.replication.is_following();
    if fresh {
        // What was before nobody knows: those who name it have something else.
        state.history = History::begin();
    }
    engine.replication.keep_stream(&mut state);
    drop(state);
    feed_stream(engine);
    sync::attach_or_begin(engine, ctx.session.shared.id);
}

/// Has the changes made here be the stream, where they are.
pub fn feed_stream(engine: &Engine) {
    let replication = &engine.replication;
    let mut reader = replication.reader.lock();
    let wanted = !replication.is_following() && replication.state().backlog.is_some();
    match (*reader, wanted) {
        (None, true) => {
            let theirs = replication.clone();
            let read = move |bytes: &[u8]| theirs.append(bytes);
            *reader = Some(engine.log.join(Wants::Messages, |_| Box::new(read)));
        }
        (Some(number), false) => {
            engine.log.leave(number);
            *reader = None;
        }
        _ => {}
    }
}

/// Makes this server a replica of another, or of none.
pub const REPLICAOF: Command = Command {
    name: "REPLICAOF",
    since: "5.0.0",
    arity: Arity::Exactly(3),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale, Flag::NoAsyncLoading, Flag::Alone],
    usage: "args(host-port{host port:integer} | no-one{NO ONE})",
    summary: "Configures a server as replica of another, or promotes it to a master.",
    complexity: "O(1)",
    run: replicaof,
    ..BASE
};

/// The same by its old name.
pub const SLAVEOF: Command = Command {
    name: "SLAVEOF",
    since: "1.0.0",
    summary: "Sets a Redis server as a replica of another, or promotes it to being a master.",
    deprecated: Some(("5.0.0", "`REPLICAOF`")),
    ..REPLICAOF
};

fn replicaof(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.config.cluster_enabled {
        return Err(Error::text("ERR REPLICAOF not allowed in cluster mode."));
    }
    let engine = ctx.engine;
    if engine.replication.state().takeover.stage != Failover::None {
        return Err(Error::text("ERR REPLICAOF not allowed while failing over."));
    }
    let told = || String::from_utf8_lossy(&client::described(engine, &ctx.session.shared)).into_owned();
    if args.is(1, "NO") && args.is(2, "ONE") {
        if engine.replication.is_following() {
            role::lead(engine);
            notice!("MASTER MODE enabled (user request from '{}')", told());
        }
        ctx.out.ok();
        return DONE;
    }
    if ctx.session.feed.is_some() {
        return Err(Error::text("ERR Command is not valid when client is a replica."));
    }
    let port = parse_i64(args.at(2)).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(Error::text("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(args.at(1)).into_owned();
    let same = {
        let state = engine.replication.state();
        engine.replication.is_following()
            && state.primary.host.eq_ignore_ascii_case(&host)
            && state.primary.port == port
    };
    if same {
        notice!(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation performed."
        );
        ctx.out.simple("OK Already connected to specified master");
        return DONE;
    }
    role::follow(engine, &host, port);
    notice!("REPLICAOF {host}:{port} enabled (user request from '{}')", told());
    ctx.out.ok();
    DONE
}

/// What is done about replicas because time passes; called by the timers, which hold nothing.
pub fn tick(engine: &Engine, second: bool) {
    let replication = &engine.replication;
    if replication.has_news() {
        replication.wake_replicas();
    }
    failover::look(engine);
    farewell::look(engine);
    own::expire(engine);
    sync::stop_useless(engine);
    sync::look_at_waiting(engine);
    look_at_acks(engine);
    if second {
        each_second(engine);
    }
}

/// Shows replicas that we are there, and ends with those that are not.
fn each_second(engine: &Engine) {
    let replication = &engine.replication;
    let config = engine.config.load();
    let now_ms = engine.clock.now_ms();
    let mut state = replication.state();
    let pings = is_ping_due(engine, &config, &state, now_ms);
    for replica in state.replicas.iter().filter(|replica| replica.stage.is_quiet()) {
        replica.feed.push(Bytes::from_static(b"\n"));
        replica.client.wake();
    }
    give_up_late(engine, &config, &mut state, now_ms);
    for client in state.replicas.silent(u64::from(config.repl_timeout) * 1000, now_ms) {
        warning!("Disconnecting timedout replica (streaming sync): {}", client.addr);
        client.close();
    }
    give_up_backlog(engine, &config, &mut state, now_ms);
    drop(state);
    feed_stream(engine);
    if pings {
        replication.pinged_ms.store(now_ms, Ordering::Relaxed);
        engine.log.pass(&vec![b"PING".to_vec()]);
        replication.wake_replicas();
    }
}

/// Whether replicas are to have a PING by the stream.
fn is_ping_due(engine: &Engine, config: &Config, state: &State, now_ms: u64) -> bool {
    let replication = &engine.replication;
    // The first period begins with the server.
    let never = replication.pinged_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
    let pinged_ms = never.map_or_else(|pinged| pinged, |_| now_ms);
    let is_calm = state.takeover.stage == Failover::None || engine.pause.active(now_ms).is_none();
    let period_ms = u64::from(config.repl_ping_replica_period) * 1000;
    !replication.is_following()
        && !state.replicas.is_empty()
        && is_calm
        && now_ms.saturating_sub(pinged_ms) >= period_ms
}

/// Holds the stream no longer for those who had a data set by a second connection, and ask too late for what follows it.
fn give_up_late(engine: &Engine, config: &Config, state: &mut State, now_ms: u64) {
    let replication = &engine.replication;
    let most = match config.client_output_buffer_limit.replica.hard_bytes {
        0 => u64::MAX,
        most => most.max(config.repl_backlog_size),
    };
    for Late { client, .. } in state.replicas.take_costly(|at| replication.offset().saturating_sub(at) >= most) {
        engine.stats.add(Counter::OutputBufferDisconnections, 1);
        warning!(
            "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
            client.id,
            client.addr
        );
    }
    for Late { client, .. } in state.replicas.take_late(now_ms) {
        let waited_s = replication.late_ms.0.load(Ordering::Relaxed) / 1000;
        warning!(
            "Replica main channel failed to establish PSYNC within the grace period ({waited_s} seconds). Freeing RDB client {}.",
            client.id
        );
    }
}

/// Holds the stream no longer where nobody has followed it for long.
fn give_up_backlog(engine: &Engine, config: &Config, state: &mut State, now_ms: u64) {
    let ttl_ms = config.repl_backlog_ttl.saturating_mul(1000);
    let is_alone =
        state.replicas.are_gone() && state.alone_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > ttl_ms);
    if is_alone && ttl_ms > 0 && !engine.replication.is_following() && state.backlog.is_some() {
        notice!("Replication backlog freed after {} seconds without connected replicas.", config.repl_backlog_ttl);
        // Nobody can go on where he stopped: what is changed from here on is another stream.
        state.backlog = None;
        state.history = History::begin();
        state.alone_since_ms = None;
    }
}
