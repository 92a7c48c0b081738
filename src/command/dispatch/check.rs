//! Everything that is checked before a request runs, in one fixed order: arity, login, permission, whose it is to serve,
//! memory, pause.

use std::hint::cold_path;

use crate::client::session::Session;
use crate::client::shared::Mark;
use crate::cluster::view::View;
use crate::command::args::Args;
use crate::command::cluster::{self, migration::import, route};
use crate::command::engine::{Engine, PauseMode, Refusal};
use crate::command::error::Error;
use crate::command::eviction::Room;
use crate::command::script::prepare;
use crate::command::table::{Entry, Way};
use crate::command::{permission, pubsub};
use crate::keyspace::hold::Hold;
use crate::replication::Failover;
use crate::script::cache::Reach;
use crate::script::source::{self, Flags};
use crate::spec::Flag;

/// Who waits until a slot has been handed over looks after so many milliseconds: he may have begun to wait just as it was.
const HAND_OVER_MS: u64 = 20;

/// Who waits for a replica that is about to be cut off looks after so many milliseconds whether it has come nearer.
const PACE_MS: u64 = 5;

/// Who waits for a load that has just begun looks after so many milliseconds whether it has ended.
const LOADING_LOOK_MS: u64 = 2;

/// What becomes of a request after the checks.
pub(super) enum Verdict<'e> {
    Run(&'e Entry),
    Queue(&'e Entry),
    Refuse(Option<&'e Entry>, Error),
    /// It is another server's to serve.
    Redirect(&'e Entry, Error),
    Hold(u64),
}

/// How things stand when requests are looked at.
#[derive(Clone, Copy)]
pub(super) struct Standing<'v> {
    pub(super) now_ms: u64,
    pub(super) room: Room,
    /// The pause that concerns this session, and its end.
    pub(super) pause: Option<(PauseMode, u64)>,
    /// Whether those who write wait for a replica.
    pub(super) paced: bool,
    /// The cluster, where requests may be another node's.
    pub(super) view: Option<&'v View>,
}

/// Everything that is checked before a command runs, in this order.
#[inline]
pub(super) fn check<'e>(
    engine: &'e Engine,
    session: &Session,
    args: &Args<'_>,
    standing: &Standing<'_>,
) -> Verdict<'e> {
    let Standing { now_ms, room, pause, paced, view } = *standing;
    let entry = match engine.commands.resolve(args.at(0), args.opt(1)) {
        Ok(entry) => entry,
        Err(container) => {
            cold_path();
            return Verdict::Refuse(None, unknown(container, args));
        }
    };
    if !entry.command.arity.accepts(args.len()) {
        cold_path();
        return Verdict::Refuse(Some(entry), Error::WrongArity(entry.full_name.clone()));
    }
    if session.replaying {
        cold_path();
        return Verdict::Run(entry);
    }
    if session.follows.is_some() {
        cold_path();
        if let Some((_, until_ms)) = pause.filter(|pause| is_held_back(pause.0, engine, session, entry, args)) {
            return Verdict::Hold(until_ms);
        }
        let queued = session.transaction.is_some() && !entry.is_never_queued();
        return if queued { Verdict::Queue(entry) } else { Verdict::Run(entry) };
    }
    if !session.authenticated && !entry.has(Flag::NoAuth) && !engine.users.default_account().is_open() {
        cold_path();
        return Verdict::Refuse(Some(entry), Error::NoAuth);
    }
    if let Err(error) = permission::check(engine, session, entry, args) {
        cold_path();
        return Verdict::Refuse(Some(entry), error);
    }
    if session.imports.is_some()
        && let Err(error) = import::check(engine, session, entry, args)
    {
        cold_path();
        return Verdict::Refuse(Some(entry), error);
    }
    if let Some(view) = view
        && let Some(error) = elsewhere(engine, view, session, entry, args, None)
    {
        cold_path();
        return Verdict::Redirect(entry, error);
    }
    if engine.is_refusing(Refusal::Following)
        && session.shared.has(Mark::Redirect)
        && let Some(verdict) = lead_on(engine, session, entry, now_ms)
    {
        cold_path();
        return verdict;
    }
    if session.subscriptions.is_some() && !pubsub::may_run(session, entry) {
        cold_path();
        return Verdict::Refuse(Some(entry), Error::text(pubsub::refused(&entry.full_name)));
    }
    if (session.monitor || session.feed.is_some()) && is_data_command(entry) {
        cold_path();
        // Redis counts those that monitor among its replicas, and this is what it tells them.
        return Verdict::Refuse(Some(entry), Error::text(NO_DATA));
    }
    if let Some(kind) = engine.scripts.running.busy()
        && !may_run_while_busy(session, entry)
    {
        cold_path();
        let loading = engine.is_refusing(Refusal::Loading) && !entry.has(Flag::Loading);
        return Verdict::Refuse(Some(entry), if loading { Error::Loading } else { Error::Busy(kind) });
    }
    if room != Room::Enough && needs_room(engine, session, entry, args, room) {
        cold_path();
        return match room {
            Room::Soon => Verdict::Hold(now_ms + 1),
            _ => Verdict::Refuse(Some(entry), Error::OutOfMemory),
        };
    }
    if engine.is_refusing_any()
        && let Some(error) = refusal(engine, session, entry, args)
    {
        cold_path();
        if matches!(error, Error::Loading) && !session.in_process && engine.saves.loading.has_just_begun(now_ms) {
            return Verdict::Hold(now_ms + LOADING_LOOK_MS);
        }
        return Verdict::Refuse(Some(entry), error);
    }
    if let Some(view) = view
        && view.holds_any()
        && route::holds_back(engine, view, session, entry, args, may_write(engine, entry, args))
    {
        cold_path();
        return Verdict::Hold(now_ms + HAND_OVER_MS);
    }
    if let Some((_, until_ms)) = pause.filter(|pause| is_held_back(pause.0, engine, session, entry, args)) {
        cold_path();
        return Verdict::Hold(until_ms);
    }
    if paced && is_held_back(PauseMode::Write, engine, session, entry, args) {
        cold_path();
        return Verdict::Hold(now_ms + PACE_MS);
    }
    if session.transaction.is_some() && !entry.is_never_queued() {
        cold_path();
        if entry.has(Flag::NoMulti) {
            return Verdict::Refuse(Some(entry), Error::text("ERR Command not allowed inside a transaction"));
        }
        return Verdict::Queue(entry);
    }
    Verdict::Run(entry)
}

/// How long a client waits at most before it is looked at again who leads.
const LOOK_MS: u64 = 100;

/// What replicas, and those who follow MONITOR, are told where they want data.
pub const NO_DATA: &str = "ERR Replica can't interact with the keyspace";

/// Whether a command is about data, so that a replica may not run it here.
pub fn is_data_command(entry: &Entry) -> bool {
    [Flag::Write, Flag::ReadOnly, Flag::MayReplicate].iter().any(|flag| entry.has(*flag))
}

/// What becomes on a replica of a request that reads or writes data, of a client that can be sent elsewhere: it is sent to the
/// primary, as soon as it is certain who that is.
#[cold]
fn lead_on<'e>(engine: &'e Engine, session: &Session, entry: &'e Entry, now_ms: u64) -> Option<Verdict<'e>> {
    if engine.config.load().cluster_enabled {
        return None;
    }
    let queued = session.transaction.as_ref().filter(|_| entry.way == Way::Transaction);
    let writes = entry.has(Flag::Write) || queued.is_some_and(|queued| queued.changes);
    let reads = entry.has(Flag::ReadOnly) || queued.is_some_and(|queued| queued.reads);
    if !writes && (!reads || session.shared.has(Mark::ReadOnly)) {
        return None;
    }
    let state = engine.replication.state();
    if state.takeover.stage != Failover::None {
        return Some(Verdict::Hold(now_ms + LOOK_MS));
    }
    let primary = &state.primary;
    Some(Verdict::Redirect(entry, Error::text(format!("REDIRECT {}:{}", primary.host, primary.port))))
}

/// Whether the cluster has changed since this picture of it was made.
pub(super) fn is_outdated(engine: &Engine, view: &View) -> bool {
    engine.cluster.as_ref().is_some_and(|cluster| cluster.version() != view.version)
}

/// What a client is told whose request is another node's to serve.
pub(super) fn elsewhere(
    engine: &Engine,
    view: &View,
    session: &Session,
    entry: &Entry,
    args: &Args<'_>,
    hold: Option<&mut Hold<'_>>,
) -> Option<Error> {
    if !route::concerns(entry) {
        return None;
    }
    let refused = route::judge(engine, view, session, entry, args, hold).err()?;
    Some(refused.error(view, &engine.config.load(), &session.shared))
}

/// Whether a pause of this kind holds a request back.
#[cold]
fn is_held_back(mode: PauseMode, engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> bool {
    mode == PauseMode::All
        || may_write(engine, entry, args)
        || entry.way == Way::Transaction && session.transaction.as_ref().is_some_and(|queued| queued.writes)
}

/// Whether CLIENT PAUSE does not concern this session.
#[inline]
pub(super) fn ignores_pause(session: &Session) -> bool {
    session.in_process || session.monitor || session.feed.is_some()
}

/// Whether a command may run while a script keeps everybody waiting, and maybe this very thread: it may need no lock
/// of a shard, which the watching of keys does.
pub(super) fn may_run_while_busy(session: &Session, entry: &Entry) -> bool {
    let needs_no_lock = entry.way == Way::Single && (session.watching.is_none() || !entry.touches_watched());
    entry.has(Flag::AllowBusy) && (needs_no_lock || entry.is_shutdown())
}

/// Whether a request runs a script that touches no more than the keys that it declares, as far as is known. One that is
/// debugged may be told to touch any.
pub(super) fn is_content(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> bool {
    entry.way == Way::Script && session.debugging.is_none() && prepare::reach(engine, entry, args) == Reach::Declared
}

/// Why nothing may be written at the moment, if it may not.
pub fn write_refusal(engine: &Engine) -> Option<Error> {
    let config = engine.config.load();
    if engine.is_refusing(Refusal::Following) {
        return config.replica_read_only.then_some(Error::ReadOnly);
    }
    if engine.is_refusing(Refusal::SaveFailed) && config.stop_writes_on_bgsave_error && !config.save.0.is_empty() {
        return Some(Error::SaveFailed);
    }
    if engine.is_refusing(Refusal::LogFailed)
        && let Some(trouble) = engine.aof.appender.trouble()
    {
        return Some(Error::LogFailed(trouble.reason));
    }
    engine.is_refusing(Refusal::FewReplicas).then_some(Error::FewReplicas)
}

/// Why a command is not run that is right in itself, if it is not.
#[cold]
fn refusal(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Option<Error> {
    let queued = session.transaction.as_ref().filter(|_| entry.way == Way::Transaction);
    let script = script_flags(engine, entry, args);
    let writes = changes(entry, script) || queued.is_some_and(|queued| queued.changes);
    if let Some(error) = (writes || entry.full_name == "ping").then(|| write_refusal(engine)).flatten() {
        // PING tells that nothing can be saved, and of nothing else.
        if writes || matches!(error, Error::SaveFailed | Error::LogFailed(_)) {
            return Some(error);
        }
    }
    let may_be_stale = may_be_stale(entry, script) && queued.is_none_or(|queued| queued.stale);
    if engine.is_refusing(Refusal::CutOff) && !may_be_stale && !engine.config.load().replica_serve_stale_data {
        return Some(Error::MasterDown);
    }
    if engine.is_refusing(Refusal::LoadingAside) && entry.has(Flag::NoAsyncLoading) {
        return Some(Error::Loading);
    }
    let may_load = entry.has(Flag::Loading) || cluster::tells_while_loading(entry);
    (engine.is_refusing(Refusal::Loading) && !may_load).then_some(Error::Loading)
}

/// Whether a command may have something to tell replicas.
pub(super) fn may_write(engine: &Engine, entry: &Entry, args: &Args<'_>) -> bool {
    entry.has(Flag::Write)
        || entry.has(Flag::MayReplicate)
        || entry.way == Way::Script && prepare::may_write(engine, entry, args)
}

/// What a script says of itself, if it says anything.
pub(super) fn script_flags(engine: &Engine, entry: &Entry, args: &Args<'_>) -> Option<Flags> {
    if entry.way == Way::Script { prepare::flags(engine, entry, args) } else { None }
}

/// Whether a command changes data, or a script by what it says of itself; of one that says nothing it is not known.
pub(super) fn changes(entry: &Entry, script: Option<Flags>) -> bool {
    entry.has(Flag::Write) || script.is_some_and(|flags| !flags.has(source::Flag::NoWrites))
}

/// Whether a command, or a script by what it says of itself, may be run where data may be old.
pub(super) fn may_be_stale(entry: &Entry, script: Option<Flags>) -> bool {
    entry.has(Flag::Stale) && script.is_none_or(|flags| flags.has(source::Flag::AllowStale))
}

/// Whether a command, or a script by what it says of itself, may need more memory.
pub(super) fn grows(entry: &Entry, script: Option<Flags>) -> bool {
    let allows = [source::Flag::AllowOom, source::Flag::NoWrites];
    entry.has(Flag::DenyOom) || script.is_some_and(|flags| !allows.iter().any(|flag| flags.has(*flag)))
}

/// Whether a request may need more memory: what is queued for EXEC takes some itself.
#[cold]
fn needs_room(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>, room: Room) -> bool {
    match &session.transaction {
        Some(queued) if entry.way == Way::Transaction => queued.grows,
        Some(_) => !entry.is_never_queued(),
        // Of scripts that say nothing only those need it that write, and they find out themselves; but none runs where
        // room is being made.
        None => grows(entry, script_flags(engine, entry, args)) || entry.way == Way::Script && room == Room::Soon,
    }
}

/// Whether a browser was made to talk to us: no client sends these words.
pub(super) fn is_web_request(args: &Args<'_>) -> bool {
    args.is(0, "POST") || args.is(0, "HOST:")
}

/// How much of an unknown command's words is repeated to the client.
const QUOTED_BYTES: usize = 128;

fn unknown(container: Option<&Entry>, args: &Args<'_>) -> Error {
    // Redis prints these words as C strings: up to the first NUL byte.
    let cut = |bytes: &[u8], most: usize| -> Vec<u8> {
        bytes.iter().copied().take(most).take_while(|byte| *byte != 0).collect()
    };
    if let Some(container) = container {
        return Error::UnknownSubcommand(cut(args.at(1), QUOTED_BYTES), container.command.name.to_owned());
    }
    let mut words = [b"'", &cut(args.at(0), QUOTED_BYTES)[..], b"', with args beginning with: "].concat();
    let mut room = QUOTED_BYTES;
    for arg in args.from(1) {
        if room == 0 {
            break;
        }
        let part = cut(arg, room);
        words.extend([b"'", &part[..], b"' "].concat());
        room = room.saturating_sub(part.len() + 3);
    }
    Error::UnknownCommand(words)
}
