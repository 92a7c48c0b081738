//! Commands that wait for keys: clients are queued at the keys, and served by whoever makes one ready.
//!
//! What must stay true: a key that was made ready is offered to the clients blocked on it, in the order they came,
//! before its shard is released: nobody else sees what they were given. What a client is given is passed on as a
//! command of its own, behind the one that made the key ready. A wait ends once: served, failed, or timed out.
//!
//! A client that needs another shard to be served (BLMOVE) gets it if it is free at that moment; else it is served
//! as soon as the shards are released, and may find that others were faster.

use std::any::Any;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::acl::users::Account;
use crate::client::session::{ReplyMode, Session};
use crate::client::shared::{Mark, Shared, Unblock};
use crate::client::tracking::Choice;
use crate::command::args::Args;
use crate::command::client::tracking;
use crate::command::context::Context;
use crate::command::error::Error;
use crate::command::permission;
use crate::command::table::Entry;
use crate::keyspace::db::Key;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::listen::Blocked;
use crate::observe::crash;
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::Span;
use crate::spec::Flag;
use crate::stdx::number::{parse_f64, parse_i64};
use crate::types::object::Kind;

/// Whether a client got what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Its reply is written.
    Yes,
    /// There is nothing for it yet.
    No,
}

/// Tries to serve a client by one of its keys, which is held: changes keys and writes the reply as a handler does,
/// and says by `log_as` what the log gets. An error ends the wait.
pub type Serve = dyn FnMut(&mut Context<'_>, &Key<'_>) -> Result<Served, Error> + Send;

/// The error that ends a wait when this key is gone.
pub type Gone = dyn Fn(&[u8]) -> Error + Send + Sync;

/// Writes what a command replies whose wait ends; called once, by a thread that holds nothing.
pub type Told = dyn Fn(&mut Output) -> Result<(), Error> + Send + Sync;

/// Does something elsewhere while the client waits, and ends the wait; called with what the command holds.
pub type Aside = dyn FnOnce(&mut Context<'_>, Answer) + Send;

/// What a command waits for.
pub struct Wait {
    /// The keys, in the order in which they are looked at.
    pub keys: Vec<Vec<u8>>,
    /// Unix milliseconds at which it gives up; `None` for never.
    pub until_ms: Option<u64>,
    /// Shards that serving needs beside that of the key.
    pub also: ShardSet,
    /// Serves the client.
    pub serve: Box<Serve>,
    /// Writes what it replies when it gives up.
    pub timed_out: fn(&mut Output),
    /// Writes that instead of `timed_out`, where it is to be found out at the end.
    pub answer: Option<Box<Told>>,
    /// Writes what it replies where nothing may wait: inside EXEC, in a script.
    pub denied: fn(&mut Output),
    /// The type of the values that it is served by.
    pub kind: Option<Kind>,
    /// The error that ends the wait when a key expires, for a command that cannot wait for another of that name.
    pub gone: Option<Box<Gone>>,
    /// What ends the wait, where that is nothing that others do to keys; then nobody else may end it.
    pub aside: Option<Box<Aside>>,
}

impl Wait {
    /// For what is done elsewhere, by `aside`, which ends it.
    pub fn aside(aside: Box<Aside>) -> Wait {
        Wait {
            keys: Vec::new(),
            until_ms: None,
            also: ShardSet::default(),
            serve: Box::new(|_, _| Ok(Served::No)),
            timed_out: |_| (),
            denied: |_| (),
            kind: None,
            gone: None,
            aside: Some(aside),
            answer: None,
        }
    }
}

/// The right to end one client's wait.
pub struct Answer(Arc<Waiter>);

impl Answer {
    /// Ends it with a reply, as it goes over the wire, or with an error. The reply leaves when the log is as safe up to
    /// `logged` as it is to be.
    pub fn end(self, reply: Result<Vec<u8>, Error>, logged: u64) {
        self.0.logged.fetch_max(logged, Ordering::AcqRel);
        self.0.end(reply.map_or_else(Ending::Failed, Ending::Served));
    }
}

/// How a wait ended.
enum Ending {
    Served(Vec<u8>),
    Failed(Error),
    TimedOut,
}

enum Stage {
    Waiting(Box<Serve>),
    /// Somebody tries to serve it; how it ends if that fails, should something else end it meanwhile.
    Serving(Option<Ending>),
    Over(Option<Ending>),
}

/// A client that waits, as it stands in the queues of its keys.
struct Waiter {
    shared: Arc<Shared>,
    account: Arc<Account>,
    protocol: Protocol,
    db: usize,
    keys: Vec<(Vec<u8>, KeyHash)>,
    also: ShardSet,
    kind: Option<Kind>,
    gone: Option<Box<Gone>>,
    index: u16,
    name: &'static str,
    writes: bool,
    request: (Vec<u8>, Vec<Span>),
    stage: Mutex<Stage>,
    /// It stands in no queue any more.
    is_out: AtomicBool,
    /// The offset in the log behind what was done for it.
    logged: AtomicU64,
    /// Its user's rules do not permit its command any more.
    is_refused: AtomicBool,
    /// Only the holder of its [`Answer`] may end the wait.
    is_aside: bool,
}

/// What came of an attempt to serve a client.
enum Attempt {
    /// Its wait is over, by this attempt or before.
    Over,
    Nothing,
    /// A shard that it needs is somebody else's.
    Postponed,
}

impl Waiter {
    /// Ends the wait; returns whether it was not over already.
    fn end(&self, ending: Ending) -> bool {
        let mut stage = self.stage.lock();
        match &mut *stage {
            Stage::Waiting(_) => *stage = Stage::Over(Some(ending)),
            // Who serves it decides first.
            Stage::Serving(otherwise) => {
                otherwise.get_or_insert(ending);
                return true;
            }
            Stage::Over(_) => return false,
        }
        drop(stage);
        self.shared.wake();
        true
    }

    fn is_over(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Over(_))
    }

    /// Offers `key` of the waiter's database, which is ready and held.
    fn attempt(&self, context: &mut Context<'_>, key: &Key<'_>) -> Attempt {
        let mut all = true;
        self.also.for_each(|shard| all &= context.db.hold.try_add(shard));
        if !all {
            return Attempt::Postponed;
        }
        let mut serve = {
            let mut stage = self.stage.lock();
            match mem::replace(&mut *stage, Stage::Serving(None)) {
                Stage::Waiting(serve) => serve,
                other => {
                    *stage = other;
                    return Attempt::Over;
                }
            }
        };
        let result = self.serve(context, key, &mut *serve);
        let mut stage = self.stage.lock();
        let otherwise = match mem::replace(&mut *stage, Stage::Over(None)) {
            Stage::Serving(otherwise) => otherwise,
            Stage::Waiting(_) | Stage::Over(_) => None,
        };
        *stage = match (result, otherwise) {
            (Ok(Some(reply)), _) => Stage::Over(Some(Ending::Served(reply))),
            (Err(error), _) => Stage::Over(Some(Ending::Failed(error))),
            (Ok(None), Some(ending)) => Stage::Over(Some(ending)),
            (Ok(None), None) => {
                *stage = Stage::Waiting(serve);
                return Attempt::Nothing;
            }
        };
        drop(stage);
        if self.keys.len() == 1 {
            self.is_out.store(true, Ordering::Release);
        }
        self.shared.wake();
        Attempt::Over
    }

    /// Has its command look at its keys again, on its behalf; returns the reply.
    fn serve(&self, context: &mut Context<'_>, key: &Key<'_>, serve: &mut Serve) -> Result<Option<Vec<u8>>, Error> {
        let engine = context.engine;
        let mut session = Session::new(self.shared.clone(), self.account.clone());
        session.db = self.db;
        session.authenticated = true;
        let tracked = &self.shared.tracked;
        session.tracks_reads = tracked.has(Choice::On) && !tracked.has(Choice::Broadcast);
        let (words, spans) = &self.request;
        let args = Args::new(words, spans);
        let entry = engine.commands.resolve(args.at(0), args.opt(1)).ok();
        if let Some(entry) = entry {
            // Its user's rules may have changed since it asked.
            permission::check(engine, &session, entry, &args)
                .inspect_err(|_| self.is_refused.store(true, Ordering::Release))?;
        }
        let origin = mem::replace(&mut context.db.effects.origin, self.shared.id);
        let mut out = Output::new(self.protocol);
        let before = context.db.index();
        mem::swap(context.session, &mut session);
        mem::swap(context.out, &mut out);
        context.db.select(self.db);
        // The command that made the key ready may have taken long, and the key have expired meanwhile.
        context.db.set_now(engine.clock.now_ms());
        let mut result = Ok(Served::No);
        for (name, hash) in &self.keys {
            let ready = &context.db.effects.ready;
            let is_ready = *name == key.bytes || ready.iter().any(|(db, other)| *db == self.db && other == name);
            if !is_ready || !context.db.hold.held().has(hash.shard()) {
                continue;
            }
            context.db.effects.begin(engine.interest());
            let tell = |to: &mut dyn std::fmt::Write| _ = write!(to, "command: {}, served", self.name);
            result = crash::running(&tell, || serve(context, &Key { bytes: name, hash: *hash }));
            if context.db.effects.any() {
                engine.pass_on(self.db, context.db.effects, &args);
                self.logged.fetch_max(context.db.effects.logged, Ordering::AcqRel);
            }
            if let Some(entry) = entry.filter(|_| context.session.tracks_reads) {
                tracking::remember(context, entry, &args);
            }
            if result != Ok(Served::No) {
                break;
            }
        }
        context.db.effects.origin = origin;
        context.db.select(before);
        mem::swap(context.out, &mut out);
        mem::swap(context.session, &mut session);
        result.map(|served| (served == Served::Yes).then(|| out.to_vec()))
    }
}

impl Blocked for Waiter {
    fn needs_key(&self) -> bool {
        self.gone.is_some()
    }

    fn key_expired(&self, key: &[u8]) -> bool {
        self.gone.as_ref().is_some_and(|gone| self.end(Ending::Failed(gone(key))))
    }
}

impl Unblock for Waiter {
    fn time_out(&self) -> bool {
        !self.is_aside && self.end(Ending::TimedOut)
    }

    fn fail(&self, text: &str) -> bool {
        !self.is_aside && self.end(Ending::Failed(Error::text(text.to_owned())))
    }

    fn first_key(&self) -> Option<Vec<u8>> {
        self.keys.first().map(|(key, _)| key.clone())
    }

    fn writes(&self) -> bool {
        self.writes
    }
}

/// A client's wait, as its connection sees it.
pub struct Waiting {
    waiter: Arc<Waiter>,
    timed_out: fn(&mut Output),
    answer: Option<Box<Told>>,
    until_ms: Option<u64>,
    mode: ReplyMode,
    /// The command's number in statistics.
    pub index: u16,
    /// What it took before it had to wait.
    pub spent_ns: u64,
}

impl Waiting {
    /// The slot of the first key that it waits for.
    pub fn slot(&self) -> Option<usize> {
        self.waiter.keys.first().map(|(_, hash)| hash.slot())
    }

    /// Whether it is over, and its command can end.
    pub fn is_over(&self) -> bool {
        self.waiter.is_over()
    }

    /// Unix milliseconds at which it is to be given up.
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// Gives it up.
    pub fn time_out(&self) {
        self.waiter.end(Ending::TimedOut);
    }

    /// The words of its command.
    pub fn request(&self) -> Vec<Vec<u8>> {
        let (words, spans) = &self.waiter.request;
        Args::new(words, spans).to_vecs()
    }

    /// How many bytes its command has as a request.
    pub fn sent_bytes(&self) -> u64 {
        let (words, spans) = &self.waiter.request;
        Args::new(words, spans).wire_bytes()
    }

    /// Whether its command was refused in the end, and so has not run.
    pub fn is_refused(&self) -> bool {
        self.waiter.is_refused.load(Ordering::Acquire)
    }

    /// The offset in the log that its reply has to wait for.
    pub fn logged(&self) -> u64 {
        self.waiter.logged.load(Ordering::Acquire)
    }

    /// Which replies the client wanted when it sent the command.
    pub fn mode(&self) -> ReplyMode {
        self.mode
    }

    /// Leaves the queues of its keys. The caller holds nothing.
    pub fn leave(&self, keyspace: &crate::keyspace::space::Keyspace) {
        let waiter = &self.waiter;
        waiter.end(Ending::TimedOut);
        *waiter.shared.wait.lock() = None;
        if waiter.is_out.swap(true, Ordering::AcqRel) {
            return;
        }
        let client: Arc<dyn Blocked> = waiter.clone();
        let mut hold = keyspace.hold_none();
        for (key, hash) in &waiter.keys {
            hold.visit(hash.shard(), |shard| {
                if shard.listeners().is_some() {
                    shard.with_listeners(|listeners| listeners.unblock(waiter.db, key, &client));
                }
            });
        }
    }

    /// Writes how it ended, which it did; returns the error, which is to be counted and written.
    pub fn write_end(&self, out: &mut Output) -> Result<(), Error> {
        let mut stage = self.waiter.stage.lock();
        let ending = match &mut *stage {
            Stage::Over(ending) => ending.take(),
            Stage::Waiting(_) | Stage::Serving(_) => None,
        };
        // The answer may need what they hold who would end the wait now.
        drop(stage);
        match ending {
            Some(Ending::Served(reply)) => out.raw(&reply),
            Some(Ending::Failed(error)) => return Err(error),
            Some(Ending::TimedOut) | None => match &self.answer {
                Some(answer) => return answer(out),
                None => (self.timed_out)(out),
            },
        }
        Ok(())
    }
}

/// Queues the client at its keys, whose shards are held.
pub fn enqueue(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>, wait: Wait, spent_ns: u64) -> Box<Waiting> {
    let mut keys: Vec<(Vec<u8>, KeyHash)> = Vec::with_capacity(wait.keys.len());
    for key in wait.keys {
        if !keys.iter().any(|(other, _)| *other == key) {
            let hash = context.db.key(&key).hash;
            keys.push((key, hash));
        }
    }
    let (mut words, mut spans) = (Vec::new(), Vec::with_capacity(args.len()));
    for word in args.from(0) {
        spans.push(Span { start: words.len(), len: word.len() });
        words.extend_from_slice(word);
    }
    let shared = context.session.shared.clone();
    let waiter = Arc::new(Waiter {
        account: context.session.account.clone(),
        protocol: context.out.protocol(),
        db: context.db.index(),
        also: wait.also,
        kind: wait.kind,
        gone: wait.gone,
        index: entry.index,
        name: entry.command.name,
        writes: entry.has(Flag::Write),
        request: (words, spans),
        stage: Mutex::new(Stage::Waiting(wait.serve)),
        is_out: AtomicBool::new(keys.is_empty()),
        logged: AtomicU64::new(0),
        is_refused: AtomicBool::new(false),
        is_aside: wait.aside.is_some(),
        keys,
        shared: shared.clone(),
    });
    shared.mark(Mark::Blocked, true);
    shared.mark(Mark::Timed, wait.until_ms.is_some());
    *shared.wait.lock() = Some(waiter.clone());
    for (key, hash) in &waiter.keys {
        let shard = context.db.hold.shard(hash.shard());
        shard.with_listeners(|listeners| listeners.block(waiter.db, key, *hash, waiter.clone()));
    }
    if let Some(aside) = wait.aside {
        aside(context, Answer(waiter.clone()));
    }
    let mode = context.session.reply;
    Box::new(Waiting {
        timed_out: wait.timed_out,
        answer: wait.answer,
        until_ms: wait.until_ms,
        mode,
        index: waiter.index,
        spent_ns,
        waiter,
    })
}

/// Serves the clients that are blocked on keys which were made ready, and those on keys that these make ready in
/// turn. The shards of the command that made them ready are still held.
#[cold]
pub fn serve_ready(context: &mut Context<'_>) {
    while let Some((db, name)) = context.db.effects.ready.pop_front() {
        let hash = context.db.key(&name).hash;
        // What was changed by walking over the shards is held no more.
        if !context.db.hold.try_add(hash.shard()) || !serve_key(context, db, &Key { bytes: &name, hash }) {
            context.db.effects.postponed.push((db, name));
        }
    }
}

/// The type of what is at a key of this database.
fn kind_at(context: &mut Context<'_>, db: usize, key: &Key<'_>) -> Option<Kind> {
    let before = context.db.index();
    context.db.select(db);
    let kind = context.db.beside(key).map(|entry| entry.kind());
    context.db.select(before);
    kind
}

/// Serves the clients that are blocked on one key as long as it has what they wait for; returns whether none of them has
/// to be served later. Where it has nothing left, those who wait for other keys too are served in the order in which
/// they came to those.
fn serve_key(context: &mut Context<'_>, db: usize, key: &Key<'_>) -> bool {
    let mut kind = kind_at(context, db, key);
    let mut at = 0;
    loop {
        let shard = context.db.hold.shard(key.hash.shard());
        let next = shard.listeners().and_then(|listeners| listeners.blocked(db, key.bytes, at)).cloned();
        let Some(client) = next else { return true };
        let known: &dyn Any = &*client;
        let waiter = known.downcast_ref::<Waiter>();
        let Some(waiter) = waiter.filter(|waiter| kind.is_some() && kind == waiter.kind || waiter.gone.is_some())
        else {
            at += 1;
            continue;
        };
        match waiter.attempt(context, key) {
            Attempt::Over => {
                let shard = context.db.hold.shard(key.hash.shard());
                shard.with_listeners(|listeners| listeners.unblock_at(db, key.bytes, at, &client));
                kind = kind_at(context, db, key);
            }
            Attempt::Nothing => at += 1,
            Attempt::Postponed => return false,
        }
    }
}

/// The shards that serving the clients of a key may need. The key's is held.
pub fn shards_to_serve(context: &mut Context<'_>, db: usize, key: &Key<'_>) -> ShardSet {
    let mut shards = ShardSet::default();
    shards.add(key.hash.shard());
    let shard = context.db.hold.shard(key.hash.shard());
    let mut at = 0;
    while let Some(client) = shard.listeners().and_then(|listeners| listeners.blocked(db, key.bytes, at)) {
        let known: &dyn Any = &**client;
        if let Some(waiter) = known.downcast_ref::<Waiter>() {
            shards.add_all(&waiter.also);
        }
        at += 1;
    }
    shards
}

/// When a command gives up: `arg` in seconds, with a fraction, as most take it; `None` for 0, which is never.
///
/// # Errors
/// A text that names the timeout.
pub fn until_seconds(arg: &[u8], now_ms: u64) -> Result<Option<u64>, Error> {
    let seconds = parse_f64(arg).ok_or(Error::text("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    // The largest that a 64-bit integer holds, as nearly as a float can say it.
    if ms >= i64::MAX as f64 {
        return Err(Error::text("ERR timeout is out of range"));
    }
    until(ms as i64, now_ms)
}

/// The same for commands that take milliseconds.
///
/// # Errors
/// A text that names the timeout.
pub fn until_milliseconds(arg: &[u8], now_ms: u64) -> Result<Option<u64>, Error> {
    until(parse_i64(arg).ok_or(Error::text("ERR timeout is not an integer or out of range"))?, now_ms)
}

fn until(ms: i64, now_ms: u64) -> Result<Option<u64>, Error> {
    let ms = u64::try_from(ms).map_err(|_| Error::text("ERR timeout is negative"))?;
    if ms == 0 {
        return Ok(None);
    }
    let until = now_ms.checked_add(ms).filter(|until| i64::try_from(*until).is_ok());
    Ok(Some(until.ok_or(Error::text("ERR timeout is out of range"))?))
}
