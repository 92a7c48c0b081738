//! A client in the same process: commands on the same shards, without a socket.

use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::client::session::{Fate, Session};
use crate::client::shared::{Link, Shared};
use crate::command::blocking::Waiting;
use crate::command::dispatch::{Batch, Executor, Request, Stop};
use crate::command::engine::Engine;
use crate::command::transaction::forget_watched;
use crate::resp::reply::{Output, Protocol};
use crate::resp::value::Value;
use crate::server::connection::joined;
use crate::server::running::End;
use crate::server::subscription::Subscription;

/// What a client is told whose server has ended.
pub const ENDED: &str = "ERR the server was shut down";

/// What a client is told that was killed, once.
pub const KILLED: &str = "ERR the client was killed";

/// An error reply: its [`Display`](fmt::Display) is the text as a socket would have it, code first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyError(String);

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReplyError {}

/// Calls a server in the same process. Commands run on the calling thread, which waits only where
/// others hold the same keys.
///
/// There is a method for what is called most, with Rust types; [`Client::execute`] runs any command. A
/// client is what a connection is to others: CLIENT LIST shows it, SELECT is its own, AUTH is not asked
/// of it. A clone is another client, with database 0 selected: give each thread its own, so that they do
/// not wait for each other.
///
/// It keeps the keyspace's memory alive until it is dropped, also beyond the end of its server.
pub struct Client {
    engine: Arc<Engine>,
    end: Arc<End>,
    state: Mutex<State>,
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What wakes the calling thread.
pub(crate) fn this_thread() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// How long a caller waits before it looks whether the server still runs.
const LOOK_FOR_END: Duration = Duration::from_millis(50);

struct State {
    session: Session,
    executor: Executor,
    out: Output,
}

impl Clone for Client {
    fn clone(&self) -> Client {
        Client::new(self.engine.clone(), self.end.clone())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(id={})", self.state.lock().session.shared.id)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let session = &mut self.state.lock().session;
        let id = session.shared.id;
        forget_watched(&mut self.engine.keyspace.hold_none(), session);
        self.engine.monitors.remove(id);
        self.engine.clients.remove(id);
    }
}

type Result<T> = std::result::Result<T, ReplyError>;

impl Client {
    /// A client of `engine`.
    pub(crate) fn new(engine: Arc<Engine>, end: Arc<End>) -> Client {
        let session = connect(&engine);
        let executor = Executor::new(&engine, None);
        let state = Mutex::new(State { session, executor, out: Output::new(Protocol::Resp3) });
        Client { engine, end, state }
    }

    /// Runs a command; errors are [`Value::Error`]. Replies are those of RESP3.
    ///
    /// The first argument is the command's name. A command that works in pieces for a socket's sake (KEYS
    /// over a large keyspace) runs to its end. What is answered with nothing (SHUTDOWN, CLIENT REPLY OFF)
    /// returns [`Value::Nil`]. Once the server was shut down every command is answered with
    /// an error, [`ENDED`].
    ///
    /// CLIENT KILL does to it what it does to a connection whose program connects again: the next command
    /// is answered with an error, [`KILLED`], and from then on it is a new client, with database 0 selected.
    pub fn execute<A: AsRef<[u8]>>(&self, args: &[A]) -> Value {
        if args.is_empty() {
            return Value::Error(b"ERR no command".to_vec());
        }
        if self.end.has_begun() {
            return Value::Error(ENDED.as_bytes().to_vec());
        }
        let (buf, spans) = joined(args);
        let request = [Request { first: 0, args: spans.len(), start: 0 }];
        let mut state = self.state.lock();
        if state.session.shared.is_closing() {
            return self.begin_anew(&mut state);
        }
        let State { session, executor, out } = &mut *state;
        let (ran, mut stop) =
            executor.run(&self.engine, session, out, Batch { buf: &buf, spans: &spans, requests: &request });
        if ran == 0 && matches!(stop, Stop::Close) && session.shared.is_closing() {
            return self.begin_anew(&mut state);
        }
        while let Stop::Pending(pending) = stop {
            stop = executor.resume(&self.engine, session, out, pending).map_or(Stop::Done, Stop::Pending);
        }
        if let Stop::Waiting(waiting) = stop {
            self.wait(&waiting, session);
            executor.resume_wait(&self.engine, session, out, &waiting);
        }
        session.fate = Fate::Stay;
        self.engine.aof.appender.block_until_durable(session.logged);
        let bytes = out.to_vec();
        out.advance(bytes.len());
        match Value::decode(&bytes) {
            Ok(Some((value, _))) => value,
            // SHUTDOWN and CLIENT REPLY OFF answer nothing.
            _ => Value::Nil,
        }
    }

    /// Makes a new client of one that was ended by another; returns what it is told.
    fn begin_anew(&self, state: &mut State) -> Value {
        forget_watched(&mut self.engine.keyspace.hold_none(), &mut state.session);
        state.session = connect(&self.engine);
        state.out = Output::new(Protocol::Resp3);
        Value::Error(KILLED.as_bytes().to_vec())
    }

    /// SUBSCRIBE: receives what is published on these channels. The subscription is a client of its own; this one goes on.
    pub fn subscribe<C: AsRef<[u8]>>(&self, channels: &[C]) -> Subscription {
        let mut subscription = Subscription::new(self.engine.clone(), self.end.clone());
        channels.iter().for_each(|channel| subscription.subscribe(channel));
        subscription
    }

    /// PSUBSCRIBE: receives what is published on the channels that fit these patterns.
    pub fn psubscribe<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Subscription {
        let mut subscription = Subscription::new(self.engine.clone(), self.end.clone());
        patterns.iter().for_each(|pattern| subscription.psubscribe(pattern));
        subscription
    }

    /// PUBLISH: returns how many received the message.
    ///
    /// # Errors
    /// None that depends on the channel.
    pub fn publish(&self, channel: impl AsRef<[u8]>, message: impl AsRef<[u8]>) -> Result<i64> {
        self.integer(&[b"PUBLISH", channel.as_ref(), message.as_ref()])
    }

    /// Waits until a blocked command is over, or the server.
    fn wait(&self, waiting: &Waiting, session: &Session) {
        session.shared.set_waker(&this_thread());
        loop {
            // Whoever finds it woken already does not wake it again.
            session.shared.take_nudge();
            if waiting.is_over() {
                return;
            }
            let left = waiting.until_ms().map(|until| until.saturating_sub(self.engine.clock.now_ms()));
            if left == Some(0) || self.end.has_begun() {
                return waiting.time_out();
            }
            // The end of the server wakes nobody.
            thread::park_timeout(left.map_or(LOOK_FOR_END, Duration::from_millis).min(LOOK_FOR_END));
        }
    }

    fn call<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Value> {
        match self.execute(args) {
            Value::Error(text) => Err(ReplyError(String::from_utf8_lossy(&text).into_owned())),
            value => Ok(value),
        }
    }

    fn integer<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<i64> {
        let value = self.call(args)?;
        value.as_integer().ok_or_else(|| unexpected(&value))
    }

    fn bytes<A: AsRef<[u8]>>(&self, args: &[A]) -> Result<Option<Vec<u8>>> {
        Ok(bytes_of(self.call(args)?))
    }

    /// GET: the value of a string.
    ///
    /// # Errors
    /// Where the key holds another type.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.bytes(&[b"GET", key.as_ref()])
    }

    /// SET: replaces whatever the key holds.
    ///
    /// # Errors
    /// Where the server refuses writes.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.call(&[b"SET", key.as_ref(), value.as_ref()]).map(drop)
    }

    /// SET with PX: the key is gone after `ttl`, which is at least a millisecond.
    ///
    /// # Errors
    /// As [`Client::set`], and for a `ttl` of zero.
    pub fn set_for(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Duration) -> Result<()> {
        let ms = ttl.as_millis().to_string();
        self.call(&[b"SET", key.as_ref(), value.as_ref(), b"PX", ms.as_bytes()]).map(drop)
    }

    /// SET with NX: returns whether the key was missing, and is set now.
    ///
    /// # Errors
    /// As [`Client::set`].
    pub fn set_if_missing(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        Ok(!self.call(&[b"SET", key.as_ref(), value.as_ref(), b"NX"])?.is_nil())
    }

    /// SET with GET: returns the value before.
    ///
    /// # Errors
    /// As [`Client::get`] and [`Client::set`].
    pub fn swap(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.bytes(&[b"SET", key.as_ref(), value.as_ref(), b"GET"])
    }

    /// GETDEL: returns the value and removes the key.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.bytes(&[b"GETDEL", key.as_ref()])
    }

    /// MGET: the values of several keys, `None` for what is missing or no string.
    ///
    /// # Errors
    /// Where there is no key.
    pub fn mget<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let value = self.call(&prefixed(b"MGET", keys))?;
        Ok(value.into_vec().unwrap_or_default().into_iter().map(bytes_of).collect())
    }

    /// MSET: sets several keys at once.
    ///
    /// # Errors
    /// Where there is no pair, or the server refuses writes.
    pub fn mset<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, pairs: &[(K, V)]) -> Result<()> {
        let mut args: Vec<&[u8]> = vec![b"MSET"];
        pairs.iter().for_each(|(key, value)| args.extend([key.as_ref(), value.as_ref()]));
        self.call(&args).map(drop)
    }

    /// INCRBY: adds to an integer, 0 where the key is missing; returns the sum.
    ///
    /// # Errors
    /// Where the value is no integer, or the sum is too large for 64 bits.
    pub fn add(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64> {
        self.integer(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()])
    }

    /// APPEND: returns the new length.
    ///
    /// # Errors
    /// Where the key holds another type, or the string would be too long.
    pub fn append(&self, key: impl AsRef<[u8]>, tail: impl AsRef<[u8]>) -> Result<i64> {
        self.integer(&[b"APPEND", key.as_ref(), tail.as_ref()])
    }

    /// DEL: returns how many of the keys existed.
    ///
    /// # Errors
    /// Where there is no key.
    pub fn delete<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<i64> {
        self.integer(&prefixed(b"DEL", keys))
    }

    /// EXISTS, for one key.
    ///
    /// # Errors
    /// None that depends on the key.
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.integer(&[b"EXISTS", key.as_ref()])? == 1)
    }

    /// PEXPIRE: the key is gone after `ttl`; returns whether it exists.
    ///
    /// # Errors
    /// For a `ttl` beyond what 64 bits of milliseconds hold.
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        Ok(self.integer(&[b"PEXPIRE", key.as_ref(), ttl.as_millis().to_string().as_bytes()])? == 1)
    }

    /// PERSIST: returns whether the key had a time to live.
    ///
    /// # Errors
    /// None that depends on the key.
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.integer(&[b"PERSIST", key.as_ref()])? == 1)
    }

    /// PTTL: `None` where the key is missing, `Some(None)` where it has no time to live.
    ///
    /// # Errors
    /// None that depends on the key.
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Option<Duration>>> {
        Ok(match self.integer(&[b"PTTL", key.as_ref()])? {
            -2 => None,
            ms => Some(u64::try_from(ms).ok().map(Duration::from_millis)),
        })
    }

    /// RENAME.
    ///
    /// # Errors
    /// Where the key does not exist.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        self.call(&[b"RENAME", from.as_ref(), to.as_ref()]).map(drop)
    }

    /// KEYS: every key that fits a pattern.
    ///
    /// # Errors
    /// None.
    pub fn keys(&self, pattern: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let value = self.call(&[b"KEYS", pattern.as_ref()])?;
        Ok(value.into_vec().unwrap_or_default().into_iter().filter_map(bytes_of).collect())
    }

    /// SCAN: some keys from `cursor` on, and the next cursor, 0 at the end.
    ///
    /// # Errors
    /// None.
    pub fn scan(&self, cursor: u64, pattern: impl AsRef<[u8]>, count: usize) -> Result<(u64, Vec<Vec<u8>>)> {
        let (cursor, count) = (cursor.to_string(), count.max(1).to_string());
        let value = self.call(&[b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_ref(), b"COUNT", count.as_bytes()])?;
        let mut parts = value.into_vec().unwrap_or_default().into_iter();
        let next = parts.next().as_ref().and_then(Value::as_integer).unwrap_or(0);
        let keys = parts.next().and_then(Value::into_vec).unwrap_or_default();
        Ok((next.unsigned_abs(), keys.into_iter().filter_map(bytes_of).collect()))
    }

    /// DBSIZE: the number of keys.
    ///
    /// # Errors
    /// None.
    pub fn len(&self) -> Result<i64> {
        self.integer(&[b"DBSIZE"])
    }

    /// Whether there is no key.
    ///
    /// # Errors
    /// None.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// FLUSHALL: removes every key of every database.
    ///
    /// # Errors
    /// Where the server refuses writes.
    pub fn clear(&self) -> Result<()> {
        self.call(&[b"FLUSHALL"]).map(drop)
    }

    /// SELECT: works on another database from here on.
    ///
    /// # Errors
    /// Where there is none of this number.
    pub fn select(&self, db: usize) -> Result<()> {
        self.call(&[&b"SELECT"[..], db.to_string().as_bytes()]).map(drop)
    }
}

fn prefixed<'a, K: AsRef<[u8]>>(name: &'a [u8], keys: &'a [K]) -> Vec<&'a [u8]> {
    std::iter::once(name).chain(keys.iter().map(AsRef::as_ref)).collect()
}

/// The session of a client that begins, which others can see from here on.
fn connect(engine: &Engine) -> Session {
    let id = engine.clients.next_id();
    let now = engine.clock.now_ms();
    let shared = Arc::new(Shared::new(id, Link::InProcess, "in-process:0".into(), "in-process:0".into(), -1, now));
    engine.clients.add(shared.clone());
    let mut session = Session::new(shared, engine.users.owner().clone());
    session.in_process = true;
    session
}

fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => Some(bytes),
        other => other.as_bytes().map(<[u8]>::to_vec),
    }
}

fn unexpected(value: &Value) -> ReplyError {
    ReplyError(format!("ERR unexpected reply: {value:?}"))
}
