//! A script, running: what it asks for is checked, run and collected.
//!
//! What must stay true: a script's requests are checked as a client's are, and what they change leaves the server as one
//! thing, when the script has ended. A script that may run beside others touches only shards that are held.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::command::args::Args;
use crate::command::call::{call_inside, count_error};
use crate::command::cluster::route::{self, Refused};
use crate::command::context::{Context, DONE, Hands, Outcome, Reply};
use crate::command::dispatch::{add_keys, write_refusal};
use crate::command::engine::Refusal;
use crate::command::error::Error;
use crate::command::permission;
use crate::command::script::prepare::{cannot_compile, cannot_load};
use crate::command::table::{Entry, Way};
use crate::keyspace::change::Only;
use crate::keyspace::hold::ShardSet;
use crate::observe::log::{debug, notice, verbose, warning};
use crate::resp::reply::Output;
use crate::resp::request::Span;
use crate::script::cache::{Learned, Reach, Script};
use crate::script::convert::Errors;
use crate::script::debugger::{Heard, Line};
use crate::script::host::{Answer, Caller};
use crate::script::library::{Function, Library};
use crate::script::lua::Raise;
use crate::script::machines::Lease;
use crate::script::running::{End, Kind, Run};
use crate::script::source::{self, Flags};
use crate::script::vm::Ended;
use crate::spec::Flag;
use crate::stdx::crc::key_slot;
use crate::stdx::ticks::Ticks;

/// Whether a script may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may, unless it says itself that it does not.
    ReadWrite,
    /// It was called by a command that only reads.
    ReadOnly,
}

/// What is to run.
#[derive(Clone, Copy)]
pub enum Subject<'s> {
    /// A script of EVAL.
    Script(&'s Script),
    /// A function, and its library.
    Function(&'s Arc<Library>, &'s Function),
}

impl<'s> Subject<'s> {
    fn kind(self) -> Kind {
        match self {
            Subject::Script(_) => Kind::Script,
            Subject::Function(..) => Kind::Function,
        }
    }

    /// What errors and logs call it.
    fn name(self) -> &'s [u8] {
        match self {
            Subject::Script(script) => &script.sha,
            Subject::Function(_, function) => &function.name,
        }
    }

    /// `None` for a script that says nothing of itself, and so follows the rules of old.
    fn flags(self) -> Option<Flags> {
        match self {
            Subject::Script(script) => script.head.flags,
            Subject::Function(_, function) => Some(function.flags),
        }
    }

    /// Whether it says this of itself.
    fn has(self, flag: source::Flag) -> bool {
        self.flags().is_some_and(|flags| flags.has(flag))
    }

    fn learned(self) -> &'s Learned {
        match self {
            Subject::Script(script) => &script.learned,
            Subject::Function(_, function) => &function.learned,
        }
    }

    /// Makes sure that a machine can run it.
    fn prepare(self, vm: &mut Lease<'_>, ctx: &Context<'_>) -> Result<(), Error> {
        match self {
            Subject::Script(script) => vm.compile(script).map_err(cannot_compile),
            Subject::Function(library, _) => {
                vm.keep_libraries(&ctx.engine.scripts.libraries.load());
                vm.load_library(library, &mut Loader::for_known()).map_err(cannot_load)
            }
        }
    }
}

/// Finds out whether a script may run as the server stands, by what it says of itself.
///
/// # Errors
/// Why it may not.
fn permit(ctx: &Context<'_>, subject: Subject<'_>, access: Access) -> Result<(), Error> {
    let engine = ctx.engine;
    if ctx.config.cluster_enabled && subject.has(source::Flag::NoCluster) {
        return Err(Error::text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
    }
    let may_write = subject.flags().is_some() && !subject.has(source::Flag::NoWrites);
    if access == Access::ReadOnly && may_write {
        return Err(Error::text("ERR Can not execute a script with write flag using *_ro command."));
    }
    if !ctx.has_room && may_write && !subject.has(source::Flag::AllowOom) {
        return Err(Error::text(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    if engine.is_refusing_any() && ctx.session.follows.is_none() {
        let serves_stale = ctx.config.replica_serve_stale_data || subject.has(source::Flag::AllowStale);
        if engine.is_refusing(Refusal::CutOff) && !serves_stale {
            return Err(Error::MasterDown);
        }
        if let Some(error) = may_write.then(|| write_refusal(engine)).flatten() {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs a script or a function whose first `keys` arguments are keys, and writes what it returns.
///
/// # Errors
/// Why it may not run, or how it failed.
pub fn run(ctx: &mut Context<'_>, args: &Args<'_>, keys: usize, subject: Subject<'_>, access: Access) -> Reply {
    permit(ctx, subject, access)?;
    let engine = ctx.engine;
    let mut vm = engine.scripts.machines.lease(&engine.scripts.cache);
    subject.prepare(&mut vm, ctx)?;
    let words: SmallVec<[&[u8]; 16]> = args.from(3).collect();
    let (keys, values) = words.split_at(keys);
    let mut declared = ShardSet::default();
    keys.iter().for_each(|key| declared.add(ctx.db.key(key).hash.shard()));
    let (db, name) = (ctx.session.db, subject.name());
    // In a transaction the group is EXEC's.
    let is_outermost = ctx.db.effects.group.is_none();
    ctx.db.effects.group.get_or_insert_default();
    ctx.scripted = true;
    let stood_still = ctx.stand_still();
    let short_of_room = !ctx.has_room && !subject.has(source::Flag::AllowOom);
    let debugged = ctx.session.debugging.as_ref().is_some_and(|debugging| debugging.debugger.is_some());
    let mut runner = Runner {
        ctx,
        debugged,
        short_of_room,
        subject,
        request: args,
        read_only: access == Access::ReadOnly || subject.has(source::Flag::NoWrites),
        tells: Tells::All,
        declared,
        // One that says nothing of itself may touch any slot that is served here, as before there were flags.
        one_slot: subject.flags().is_some_and(|flags| !flags.has(source::Flag::AllowCrossSlotKeys)),
        slot: keys.first().filter(|_| engine.cluster.is_some()).map(|key| key_slot(key)),
        strayed: false,
        needs_all: false,
        wrote: false,
        started: Ticks::now(),
        run: None,
        buf: Vec::with_capacity(USUAL_BYTES),
        spans: Vec::with_capacity(USUAL_ARGUMENTS),
    };
    if runner.debugged {
        let debugger = runner.ctx.session.debugging.as_mut().and_then(|debugging| debugging.debugger.take());
        vm.debug(debugger);
    }
    match subject {
        Subject::Script(script) => vm.run_script(&script.sha, keys, values, &mut runner),
        Subject::Function(library, function) => {
            vm.run_function(&library.name, &function.name, keys, values, &mut runner);
        }
    }
    if runner.debugged
        && let Some(debugging) = &mut runner.ctx.session.debugging
    {
        debugging.debugger = vm.debug(None);
    }
    let (strayed, needs_all) = (runner.strayed, runner.needs_all);
    runner.ctx.session.slot = runner.slot.filter(|_| runner.one_slot);
    if let Some(run) = runner.run.take() {
        engine.scripts.running.leave(&run);
        if run.end() == Some(End::Shutdown) {
            // Half of what it does must not reach any file.
            ctx.db.effects.group = Some(Vec::new());
            ctx.db.effects.ready.clear();
        }
    }
    subject.learned().note(if strayed { Reach::Any } else { Reach::Declared });
    if ctx.session.db != db {
        // What it selected was for itself.
        ctx.session.db = db;
        ctx.db.select(db);
    }
    ctx.scripted = false;
    if stood_still {
        ctx.hands = Hands::Move;
    }
    if ctx.session.debugging.as_ref().is_some_and(|debugging| debugging.is_copy) {
        // Nothing of it is anybody else's to know.
    } else if is_outermost {
        engine.end_group(ctx.db.effects);
    }
    if needs_all {
        vm.discard();
        return Ok(Outcome::Alone);
    }
    match vm.finish(name, ctx.out) {
        Ended::Replied(Errors { any: false, .. }) => DONE,
        Ended::Replied(Errors { uncounted, .. }) => {
            for line in uncounted {
                // What has no code is counted among those that have none of their own.
                let line = if line.contains(&b' ') { line } else { b"ERR ".to_vec() };
                count_error(engine, &Error::Line { line, counted: false }, ctx.worker);
            }
            Ok(Outcome::Failed)
        }
        Ended::Failed { line, counted } => Err(Error::Line { line, counted }),
    }
}

/// Who stands behind a library that is loaded: it may ask for nothing, and has so much time.
pub struct Loader(Option<Instant>);

impl Loader {
    /// For a library that is new, and loaded from now on: it must not take long.
    pub fn for_new() -> Loader {
        Loader(Some(Instant::now()))
    }

    /// For one that has been taken before, by a primary or into a file: however slow the machine is, it belongs to the data.
    pub fn for_known() -> Loader {
        Loader(None)
    }
}

/// How long the code of a library may run while it is loaded.
const LOADING_MAX: Duration = Duration::from_millis(500);

impl Caller for Loader {
    fn call(&mut self, _: &[&[u8]], _: &mut Output) -> Answer {
        refused("ERR redis.call is not possible here")
    }
    fn permits(&mut self, _: &[&[u8]]) -> Option<bool> {
        None
    }
    fn propagate(&mut self, _: bool, _: bool) {}
    fn log(&mut self, level: u8, text: &[u8]) {
        write_log(level, text);
    }
    fn tick(&mut self) -> Option<Raise> {
        self.0.is_some_and(|began| began.elapsed() > LOADING_MAX).then(|| Raise::reply("ERR FUNCTION LOAD timeout"))
    }
}

/// Writes a line to the server's log.
fn write_log(level: u8, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match level {
        0 => debug!("{text}"),
        1 => verbose!("{text}"),
        2 => notice!("{text}"),
        _ => warning!("{text}"),
    }
}

/// Who is told of what a script changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    All,
    Only(Only),
    Nobody,
}

/// Room for a request as most of them are.
const USUAL_BYTES: usize = 128;
const USUAL_ARGUMENTS: usize = 8;

/// Runs what one script asks for.
struct Runner<'r, 'c> {
    ctx: &'r mut Context<'c>,
    /// Whether it runs in a session of the debugger.
    debugged: bool,
    subject: Subject<'r>,
    /// The command that called it.
    request: &'r Args<'r>,
    read_only: bool,
    /// Whether memory is at its limit, and it did not say that this is no matter.
    short_of_room: bool,
    /// Who is told of what it changes: `redis.set_repl`.
    tells: Tells,
    /// The shards of the keys that it declared.
    declared: ShardSet,
    /// Whether all keys that it touches have to be of one slot, in a cluster.
    one_slot: bool,
    /// The slot of the first key that it declared or touched.
    slot: Option<u16>,
    /// Whether it touched others.
    strayed: bool,
    /// Whether it cannot go on beside others, and has to be run again alone.
    needs_all: bool,
    wrote: bool,
    started: Ticks,
    /// Once it takes long.
    run: Option<Arc<Run>>,
    /// The request that it asks for, and where its arguments are.
    buf: Vec<u8>,
    spans: Vec<Span>,
}

/// For how long a script that has changed something tries to get at keys that it did not declare.
const REACH_MAX: Duration = Duration::from_secs(2);

fn refused(text: &str) -> Answer {
    Answer::Refused(text.as_bytes().to_vec())
}

impl Runner<'_, '_> {
    fn request(&mut self, args: &Args<'_>, reply: &mut Output) -> Answer {
        let engine = self.ctx.engine;
        let Ok(entry) = engine.commands.resolve(args.at(0), args.opt(1)) else {
            return refused("ERR Unknown Redis command called from script");
        };
        if !entry.command.arity.accepts(args.len()) {
            return refused("ERR Wrong number of args calling Redis command from script");
        }
        if entry.has(Flag::NoScript) && !engine.debug.scripts_may_all.load(Ordering::Relaxed) {
            return refused("ERR This Redis command is not allowed from script");
        }
        let is_refusing = engine.is_refusing_any() && self.ctx.session.follows.is_none();
        let serves_stale = self.ctx.config.replica_serve_stale_data || entry.has(Flag::Stale);
        if is_refusing && engine.is_refusing(Refusal::CutOff) && !serves_stale {
            return refused("ERR Can not execute the command on a stale replica");
        }
        if let Err(error) = permission::check_scripted(engine, self.ctx.session, entry, args) {
            return Answer::Refused(error.line());
        }
        if self.read_only && (entry.has(Flag::Write) || entry.has(Flag::MayReplicate)) {
            return refused("ERR Write commands are not allowed from read-only scripts.");
        }
        let begins_to_write = is_refusing && entry.has(Flag::Write) && !self.wrote;
        if let Some(error) = begins_to_write.then(|| write_refusal(engine)).flatten() {
            return Answer::Refused(error.line());
        }
        // What has begun to write may go on, so that it is not left half done.
        if self.short_of_room && entry.has(Flag::DenyOom) && !self.wrote {
            return Answer::Refused(Error::OutOfMemory.line());
        }
        let mut shards = ShardSet::default();
        let Ok(first_key) = add_keys(engine, entry, args, &mut shards) else {
            return refused("ERR Wrong number of args calling Redis command from script");
        };
        if entry.way != Way::Batched {
            shards = ShardSet::ALL;
        }
        self.strayed |= !self.declared.covers(&shards);
        if !self.ctx.db.hold.held().covers(&shards) && !self.reach_for(&shards) {
            if self.wrote {
                return refused("ERR Another script holds a key that this one did not declare. Run it again.");
            }
            self.needs_all = true;
            return Answer::Stop;
        }
        if let Err(text) = self.stay_here(entry, args) {
            return refused(text);
        }
        let writes = entry.has(Flag::Write) && !self.wrote;
        if writes && self.run.as_ref().is_some_and(|run| !run.write()) {
            return Answer::Stop;
        }
        self.wrote |= writes;
        let args = first_key.map_or(*args, |(index, hash)| args.with_first_key(index, hash));
        self.run_inside(entry, &args, reply);
        Answer::Replied
    }

    /// Counts a request that did not run.
    #[cold]
    fn count_refused(&self, args: &Args<'_>, line: &[u8]) {
        let (engine, worker) = (self.ctx.engine, self.ctx.worker);
        count_error(engine, &Error::Line { line: line.to_vec(), counted: false }, worker);
        if let (Some(worker), Ok(entry)) = (worker, engine.commands.resolve(args.at(0), args.opt(1))) {
            engine.stats.worker(worker).rejected(entry.index);
        }
    }

    /// Sees to it that a script touches no keys of other nodes.
    fn stay_here(&mut self, entry: &Entry, args: &Args<'_>) -> Result<(), &'static str> {
        let engine = self.ctx.engine;
        // What a log or a primary says was right where it was done.
        let obeys = self.ctx.session.replaying || self.ctx.session.follows.is_some();
        let Some(cluster) = engine.cluster.as_ref().filter(|_| !obeys) else { return Ok(()) };
        if !route::concerns(entry) {
            return Ok(());
        }
        let view = cluster.view().load();
        match route::judge(engine, &view, self.ctx.session, entry, args, Some(&mut self.ctx.db.hold)) {
            Ok(None) => {}
            Ok(Some(slot)) if self.one_slot => {
                if *self.slot.get_or_insert(slot) != slot {
                    return Err("ERR Script attempted to access keys that do not hash to the same slot");
                }
            }
            Ok(Some(_)) => {}
            Err(Refused::DownForWrites) => {
                return Err("ERR Script attempted to execute a write command while the cluster is down and readonly");
            }
            Err(Refused::Down) => return Err("ERR Script attempted to execute a command while the cluster is down"),
            Err(_) => return Err("ERR Script attempted to access a non local key in a cluster node"),
        }
        Ok(())
    }

    /// Gets hold of more shards while others run, if that is possible; returns whether all of these are held.
    ///
    /// Who waits for a lock while it holds others might be waited for: so nobody waits here. One that has changed
    /// nothing yet gives up at once, and is run again. For one that has, all others who wait let go of what they hold,
    /// so that only another script like this one can stand in its way.
    fn reach_for(&mut self, shards: &ShardSet) -> bool {
        let hold = &mut self.ctx.db.hold;
        let mut try_all = || {
            let mut all = true;
            shards.for_each(|shard| all &= hold.try_add(shard));
            all
        };
        if !self.wrote {
            return try_all();
        }
        let began = Instant::now();
        self.ctx.engine.scripts.running.reach(|| {
            while !try_all() {
                if began.elapsed() > REACH_MAX {
                    return false;
                }
                std::thread::yield_now();
            }
            true
        })
    }

    fn run_inside(&mut self, entry: &Entry, args: &Args<'_>, reply: &mut Output) {
        let tells = self.tells;
        let before = self.ctx.db.effects.group.as_ref().map_or(0, Vec::len);
        std::mem::swap(self.ctx.out, reply);
        call_inside(self.ctx, entry, args);
        self.ctx.session.shared.figures.add_commands(1);
        std::mem::swap(self.ctx.out, reply);
        let effects = &mut *self.ctx.db.effects;
        if let Some(group) = &mut effects.group {
            match tells {
                Tells::All => {}
                Tells::Nobody => {
                    group.truncate(before);
                    effects.only.retain(|(places, _)| places.end <= before);
                }
                Tells::Only(only) if group.len() > before => effects.only.push((before..group.len(), only)),
                Tells::Only(_) => {}
            }
        }
    }
}

/// For so many seconds a command may run in a copy of the process: it may wait for a lock that another thread held as
/// the copy was made.
const COPY_MAX_SECONDS: u32 = 10;

impl Runner<'_, '_> {
    /// The line of the debugger's session, if it is one.
    fn line(&mut self) -> Option<&mut Box<dyn Line>> {
        self.ctx.session.debugging.as_mut()?.line.as_mut()
    }

    /// Runs `f`, in a copy of the process not for ever.
    fn guarded<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        if !self.ctx.session.debugging.as_ref().is_some_and(|debugging| debugging.is_copy) {
            return f(self);
        }
        self.line().into_iter().for_each(|line| line.end_after(COPY_MAX_SECONDS));
        let done = f(self);
        self.line().into_iter().for_each(|line| line.end_after(0));
        done
    }
}

impl Caller for Runner<'_, '_> {
    fn call(&mut self, words: &[&[u8]], reply: &mut Output) -> Answer {
        if self.needs_all || self.run.as_ref().is_some_and(|run| run.end().is_some()) {
            return Answer::Stop;
        }
        let (mut buf, mut spans) = (std::mem::take(&mut self.buf), std::mem::take(&mut self.spans));
        buf.clear();
        spans.clear();
        for word in words {
            spans.push(Span { start: buf.len(), len: word.len() });
            buf.extend_from_slice(word);
        }
        let args = Args::new(&buf, &spans);
        let answer = self.guarded(|this| this.request(&args, reply));
        if let Answer::Refused(line) = &answer {
            self.count_refused(&args, line);
        }
        (self.buf, self.spans) = (buf, spans);
        answer
    }

    fn permits(&mut self, words: &[&[u8]]) -> Option<bool> {
        let engine = self.ctx.engine;
        let entry = engine.commands.resolve(words[0], words.get(1).copied()).ok()?;
        let account = &self.ctx.session.account;
        Some(account.is_unrestricted() || permission::ask(&account.rules(), entry, words).is_ok())
    }

    fn propagate(&mut self, to_log: bool, to_replicas: bool) {
        self.tells = match (to_log, to_replicas) {
            (true, true) => Tells::All,
            (true, false) => Tells::Only(Only::File),
            (false, true) => Tells::Only(Only::Replicas),
            (false, false) => Tells::Nobody,
        };
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.guarded(|_| write_log(level, text));
    }

    fn tell(&mut self, bytes: &[u8]) {
        self.line().into_iter().for_each(|line| line.tell(bytes));
    }

    fn hear(&mut self, into: &mut Vec<u8>) -> Heard {
        let running = &self.ctx.engine.scripts.running;
        match self.line() {
            Some(line) => line.hear(into, &|| !running.is_interrupted()),
            None => Heard::Gone,
        }
    }

    fn tick(&mut self) -> Option<Raise> {
        if self.debugged {
            // It stops by itself when it runs for too long, and there is nobody who could be served meanwhile.
            let ends = self.ctx.engine.scripts.running.is_interrupted();
            return ends.then(|| Raise::reply("ERR Script ended by the shutdown of the server"));
        }
        if self.needs_all {
            return Some(Raise::reply("ERR It is run again"));
        }
        let engine = self.ctx.engine;
        let run = match &self.run {
            Some(run) => run,
            None => {
                let command = self.request.to_vecs();
                let now = Instant::now();
                let started = now.checked_sub(Duration::from_nanos(self.started.elapsed_ns())).unwrap_or(now);
                let run = Run::new(self.subject.kind(), self.subject.name().to_vec(), command, started);
                if self.wrote {
                    run.write();
                }
                let run = Arc::new(run);
                engine.scripts.running.enter(run.clone());
                self.run.insert(run)
            }
        };
        if let Some(end) = run.end() {
            return Some(Raise::reply(match end {
                End::Killed => "ERR Script killed by user with SCRIPT KILL...",
                End::Shutdown => "ERR Script ended by the shutdown of the server",
            }));
        }
        let patience_ms = self.ctx.config.busy_reply_threshold;
        let lasts_ms = u64::try_from(run.lasts().as_millis()).unwrap_or(u64::MAX);
        if patience_ms > 0 && lasts_ms >= patience_ms {
            if engine.scripts.running.note_overdue(run) {
                warning!(
                    "Slow script detected: still in execution after {lasts_ms} milliseconds. You can try killing the script using the {} command. Script name is: {}.",
                    if run.kind == Kind::Script { "SCRIPT KILL" } else { "FUNCTION KILL" },
                    String::from_utf8_lossy(&run.name)
                );
            }
            engine.host.serve_while_busy();
        }
        None
    }
}
