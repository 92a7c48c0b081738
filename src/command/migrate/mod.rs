//! MIGRATE: keys move to another server, whole and one at a time.
//!
//! What must stay true: the network is waited for by a thread of its own, with nothing held; a key is deleted here
//! only once the other server has confirmed that it has the very value that is deleted; what becomes of the client
//! meanwhile changes nothing about that.
//!
//! While keys are on their way those who want to change them wait ([`transit`]). Who changes one all the same is
//! noticed as WATCH notices it, and the key is sent again, or is deleted there if it is gone here. Within EXEC and
//! scripts all that is needed is held anyway, and their thread waits for the network itself.

pub mod peer;
pub mod transit;

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::acl::users::Account;
use crate::client::session::Session;
use crate::client::shared::Shared;
use crate::command::args::{Args, word};
use crate::command::blocking::{Answer, Wait};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::dispatch::Executor;
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::migrate::peer::{Answers, Break, Peer};
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::Key;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::listen::Watch;
use crate::observe::crash;
use crate::persist::rdb::payload;
use crate::persist::rdb::writer::Compression;
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};

/// This family's commands.
pub const COMMANDS: &[Command] = &[MIGRATE];

/// Moves keys to another server, or copies them there.
///
/// Where one of several keys is refused the others move all the same, and the first error is the reply.
pub const MIGRATE: Command = Command {
    name: "MIGRATE",
    since: "2.6.0",
    group: Group::Generic,
    arity: Arity::AtLeast(6),
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Dangerous],
    keys: &[
        Keys::AtOrAfter { first: 3, word: "KEYS", from: 6, others: &[("AUTH", 1), ("AUTH2", 2)], access: Access::TAKE },
        Keys::After { word: "KEYS", from: -2, last: -1, step: 1, access: Access::TAKE.partly() },
    ],
    usage: "host port:integer key-selector(key | empty-string=\"\") destination-db:integer timeout:integer [COPY]@3.0.0 [REPLACE]@3.0.0 [authentication(AUTH auth/password@4.0.7 | AUTH2 auth2{username password}@6.0.0)] [KEYS keys/key:key...]@3.0.6",
    summary: "Atomically transfers a key from one Redis instance to another.",
    complexity: "This command actually executes a DUMP+DEL in the source instance, and a RESTORE in the target instance. See the pages of these commands for time complexity. Also an O(N) data transfer between the two instances is performed.",
    tips: &["nondeterministic_output"],
    history: &[
        ("3.0.0", "Added the `COPY` and `REPLACE` options."),
        ("3.0.6", "Added the `KEYS` option."),
        ("4.0.7", "Added the `AUTH` option."),
        ("6.0.0", "Added the `AUTH2` option."),
    ],
    deprecated: None,
    subcommands: &[],
    run: migrate,
};

/// What MIGRATE is told.
struct Order<'a> {
    peer: Peer,
    copy: bool,
    replace: bool,
    keys: Vec<&'a [u8]>,
}

/// How long is waited where the timeout makes no sense.
const USUAL_TIMEOUT_MS: u64 = 1000;

fn order<'a>(ctx: &mut Context<'_>, args: &Args<'a>) -> Result<Order<'a>, Error> {
    let (mut copy, mut replace, mut login) = (false, false, Vec::new());
    let mut keys = vec![args.at(3)];
    let mut i = 6;
    while i < args.len() {
        let left = args.len() - i - 1;
        match word(args.at(i), &["COPY", "REPLACE", "AUTH", "AUTH2", "KEYS"]) {
            Some("COPY") => copy = true,
            Some("REPLACE") => replace = true,
            Some(option @ ("AUTH" | "AUTH2")) => {
                let words = if option == "AUTH" { 1 } else { 2 };
                if left < words {
                    return Err(Error::Syntax);
                }
                // Told before anything can go wrong, so that no log shows them.
                ctx.hidden.extend(i + 1..=i + words);
                login = (i + 1..=i + words).map(|at| args.at(at).to_vec()).collect();
                i += words;
            }
            Some("KEYS") => {
                if !args.at(3).is_empty() {
                    return Err(Error::text(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                keys = args.from(i + 1).collect();
                break;
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    let timeout = args.integer(5)?;
    let db = args.integer(4)?;
    let timeout_ms = u64::try_from(timeout).ok().filter(|ms| *ms > 0).unwrap_or(USUAL_TIMEOUT_MS);
    let peer = Peer {
        host: String::from_utf8_lossy(args.at(1)).into_owned(),
        port: port(args.at(2)),
        db,
        login,
        tls: ctx.config.tls_cluster,
        timeout: Duration::from_millis(timeout_ms),
    };
    Ok(Order { peer, copy, replace, keys })
}

/// The number that a text begins with, as far as a port can hold it: nobody listens on what is no port.
fn port(text: &[u8]) -> u16 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |port: u16, digit| port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0')))
}

/// Requests for the other server.
#[derive(Debug)]
struct Requests {
    out: Output,
    /// What its command is called there.
    restore: &'static [u8],
    compression: Compression,
}

impl Requests {
    fn new(ctx: &Context<'_>) -> Requests {
        // A server of a cluster takes keys of a slot that is not its own yet.
        let restore: &[u8] = if ctx.config.cluster_enabled { b"RESTORE-ASKING" } else { b"RESTORE" };
        Requests {
            out: Output::new(Protocol::Resp2),
            restore,
            compression: Compression::from(ctx.config.rdbcompression),
        }
    }

    /// Adds one that stores a key as it is now; returns whether there is one.
    fn store(&mut self, ctx: &mut Context<'_>, key: &Key<'_>, replace: bool) -> bool {
        let now_ms = ctx.db.now_ms();
        let Some(entry) = ctx.db.look(key) else { return false };
        // A deadline that is now is one that is yet to come: 0 would be none.
        let ttl = entry.deadline().map_or(0, |deadline| deadline.saturating_sub(now_ms).max(1));
        let value = payload::write(entry.value(), self.compression);
        self.out.array(if replace { 5 } else { 4 });
        [self.restore, key.bytes, ttl.to_string().as_bytes(), &value].into_iter().for_each(|word| self.out.bulk(word));
        if replace {
            self.out.bulk(b"REPLACE");
        }
        true
    }

    /// Adds one that deletes a key.
    fn delete(&mut self, key: &[u8]) {
        self.out.array(2);
        self.out.bulk(b"DEL");
        self.out.bulk(key);
    }

    fn take(&mut self) -> Vec<u8> {
        let bytes = self.out.to_vec();
        self.out.advance(bytes.len());
        bytes
    }
}

/// The error that a refusal or a broken conversation comes to; the other server's own words come first.
fn failure(refusal: Option<Vec<u8>>, broken: Option<Break>) -> Result<(), Error> {
    if let Some(words) = refusal {
        return Err(Error::Bytes([b"ERR Target instance replied with error: ", &words[..]].concat()));
    }
    match broken {
        None => Ok(()),
        Some(Break::Connecting) => Err(Error::text("IOERR error or timeout connecting to the client")),
        Some(Break::Writing) => Err(Error::text("IOERR error or timeout writing to target instance")),
        Some(Break::Reading) => Err(Error::text("IOERR error or timeout reading to target instance")),
    }
}

fn migrate(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let order = order(ctx, args)?;
    let mut requests = Requests::new(ctx);
    let (mut found, mut named): (Vec<&[u8]>, HashSet<&[u8]>) = Default::default();
    for name in &order.keys {
        let key = ctx.db.key(name);
        // A key that is named twice moves once.
        if named.insert(name) && requests.store(ctx, &key, order.replace) {
            found.push(name);
        }
    }
    if found.is_empty() {
        ctx.out.simple("NOKEY");
        return DONE;
    }
    if ctx.is_inside() {
        return migrate_now(ctx, &order, &found, requests.take());
    }
    let journey = Journey {
        engine: ctx.engine.arc(),
        shared: ctx.session.shared.clone(),
        account: ctx.session.account.clone(),
        db: ctx.db.index(),
        peer: order.peer,
        copy: order.copy,
        parcels: found.iter().map(|name| Parcel::new(ctx, name, order.copy)).collect(),
        bytes: requests.take(),
        refusal: None,
        broken: None,
        logged: 0,
    };
    Ok(Outcome::Wait(Box::new(Wait::aside(Box::new(|ctx, answer| journey.begin(ctx, answer))))))
}

/// The same where everything is held until the end: the calling thread waits.
fn migrate_now(ctx: &mut Context<'_>, order: &Order<'_>, found: &[&[u8]], bytes: Vec<u8>) -> Reply {
    let Answers { refused, replies, broken } = ctx.engine.host.ask(&order.peer, &bytes, found.len());
    let mut refusal = refused;
    let mut deleted = Vec::new();
    let welcome = refusal.is_none();
    for (name, reply) in found.iter().zip(replies) {
        match reply {
            Ok(()) if welcome && !order.copy => {
                let key = ctx.db.key(name);
                if ctx.db.remove(&key) {
                    ctx.db.note(&key, Class::Generic, "del");
                    deleted.push(name.to_vec());
                }
            }
            Ok(()) => {}
            Err(words) => _ = refusal.get_or_insert(words),
        }
    }
    log_deletions(ctx, deleted);
    failure(refusal, broken)?;
    ctx.out.ok();
    DONE
}

/// What the log gets: the keys are gone, wherever to.
fn log_deletions(ctx: &mut Context<'_>, deleted: Vec<Vec<u8>>) {
    ctx.db.effects.log_as(|| match deleted.is_empty() {
        true => Vec::new(),
        false => vec![[vec![b"DEL".to_vec()], deleted].concat()],
    });
}

/// A key on its way.
struct Parcel {
    key: Vec<u8>,
    hash: KeyHash,
    /// Hears of changes to it; nobody has to where it is only copied.
    watch: Option<Arc<Watch>>,
    /// It is gone here, and so it has to go there.
    recalled: bool,
}

impl Parcel {
    fn new(ctx: &mut Context<'_>, name: &[u8], copy: bool) -> Parcel {
        let hash = ctx.db.key(name).hash;
        let mut parcel = Parcel { key: name.to_vec(), hash, watch: None, recalled: false };
        if !copy {
            ctx.engine.transit.add(ctx.db.index(), name, hash.shard());
            parcel.listen(ctx);
        }
        parcel
    }

    fn key(&self) -> Key<'_> {
        Key { bytes: &self.key, hash: self.hash }
    }

    /// Hears of changes from now on.
    fn listen(&mut self, ctx: &mut Context<'_>) {
        let (db, watch) = (ctx.db.index(), Arc::new(Watch::default()));
        let theirs = watch.clone();
        let shard = ctx.db.hold.shard(self.hash.shard());
        shard.with_listeners(|listeners| listeners.watch(db, &self.key, self.hash, theirs));
        self.watch = Some(watch);
    }

    /// Hears no more of changes; returns whether there was one.
    fn was_changed(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(watch) = self.watch.take() else { return false };
        let db = ctx.db.index();
        let shard = ctx.db.hold.shard(self.hash.shard());
        if shard.listeners().is_some() {
            shard.with_listeners(|listeners| listeners.unwatch(db, &self.key, &watch));
        }
        watch.is_dirty()
    }
}

/// One MIGRATE, from the moment its client waits.
struct Journey {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    account: Arc<Account>,
    db: usize,
    peer: Peer,
    copy: bool,
    /// What is on its way, in the order of the requests.
    parcels: Vec<Parcel>,
    /// The requests.
    bytes: Vec<u8>,
    /// The first error of the other server.
    refusal: Option<Vec<u8>>,
    broken: Option<Break>,
    /// Where the log stands behind the deletions.
    logged: u64,
}

impl Journey {
    /// Sends the keys off.
    fn begin(self, ctx: &mut Context<'_>, answer: Answer) {
        // The thread takes them from where they can be taken back if there is no thread.
        let journey = Arc::new(Mutex::new(Some((self, answer))));
        let theirs = journey.clone();
        let work = move || {
            crash::prepare_thread();
            if let Some((journey, answer)) = theirs.lock().take() {
                journey.run(answer);
            }
        };
        if std::thread::Builder::new().name("migrate".into()).spawn(work).is_err()
            && let Some((mut journey, answer)) = journey.lock().take()
        {
            for mut parcel in mem::take(&mut journey.parcels) {
                journey.release(ctx, &mut parcel);
            }
            answer.end(failure(None, Some(Break::Connecting)).map(|()| Vec::new()), 0);
        }
    }

    fn run(mut self, answer: Answer) {
        let mut executor = Executor::new(&self.engine, None);
        while !self.parcels.is_empty() {
            let bytes = mem::take(&mut self.bytes);
            let answers = self.engine.host.ask(&self.peer, &bytes, self.parcels.len());
            let engine = self.engine.clone();
            let mut session = Session::new(self.shared.clone(), self.account.clone());
            session.db = self.db;
            let mut shards = ShardSet::default();
            self.parcels.iter().for_each(|parcel| shards.add(parcel.hash.shard()));
            if !executor.run_aside(&engine, &mut session, shards, |ctx| self.arrive(ctx, answers)) {
                // The server ends, and nobody is answered any more.
                return;
            }
            self.logged = self.logged.max(session.logged);
        }
        let reply = failure(self.refusal, self.broken).map(|()| b"+OK\r\n".to_vec());
        answer.end(reply, self.logged);
    }

    /// Has nobody wait for a key any more, nor listens to it.
    fn release(&self, ctx: &mut Context<'_>, parcel: &mut Parcel) {
        parcel.was_changed(ctx);
        if !self.copy {
            ctx.engine.transit.remove(self.db, &parcel.key);
        }
    }

    /// What has arrived is deleted here; what has changed meanwhile is sent again. All shards are held.
    fn arrive(&mut self, ctx: &mut Context<'_>, answers: Answers) {
        let Answers { refused, replies, broken } = answers;
        let welcome = refused.is_none();
        self.refusal = self.refusal.take().or(refused);
        self.broken = self.broken.or(broken);
        let mut replies = replies.into_iter();
        let mut requests = Requests::new(ctx);
        let mut deleted = Vec::new();
        for mut parcel in mem::take(&mut self.parcels) {
            let reply = replies.next();
            let changed = parcel.was_changed(ctx);
            match reply {
                Some(Ok(())) if welcome && !self.copy && !parcel.recalled => {
                    if !changed {
                        if ctx.db.remove(&parcel.key()) {
                            ctx.db.note(&parcel.key(), Class::Generic, "del");
                            deleted.push(parcel.key.clone());
                        }
                    } else {
                        if !requests.store(ctx, &parcel.key(), true) {
                            requests.delete(&parcel.key);
                            parcel.recalled = true;
                        }
                        parcel.listen(ctx);
                        self.parcels.push(parcel);
                        continue;
                    }
                }
                Some(Err(words)) => _ = self.refusal.get_or_insert(words),
                Some(Ok(())) | None => {}
            }
            self.release(ctx, &mut parcel);
        }
        self.bytes = requests.take();
        log_deletions(ctx, deleted);
    }
}
