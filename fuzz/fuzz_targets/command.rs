//! Any requests, run by the server without its sockets: no panic, one whole reply to each, and a keyspace that
//! agrees with itself afterwards.
//!
//! Bytes from 0x80 on stand for words of the protocol, so that commands and options are found by chance; 0xff makes time pass.
//! A line is a request; where the input begins with `*` it is taken as it is.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use spinel::client::session::{Fate, Session};
use spinel::client::shared::{Link, Shared};
use spinel::command::client::tracking;
use spinel::command::dispatch::{Batch, Executor, Request, Stop};
use spinel::command::engine::{Engine, Host, ShutdownRequest};
use spinel::command::migrate::peer::{Answers, Break, Peer};
use spinel::command::pubsub;
use spinel::command::transaction::forget_watched;
use spinel::config::table::Config;
use spinel::keyspace::hash::Routing;
use spinel::keyspace::space::Keyspace;
use spinel::resp::reply::{Output, Protocol};
use spinel::resp::request::{Limits, Parser, Span, Step};
use spinel::resp::value::Value;
use spinel::stdx::clock::{Clock, ManualClock};

/// There is no server around the engine.
struct Nowhere;

impl Host for Nowhere {
    fn shutdown(&self, _: ShutdownRequest) -> Result<(), String> {
        Err("ERR nothing to shut down".into())
    }
    fn abort_shutdown(&self) -> Result<(), String> {
        Err("ERR No shutdown in progress.".into())
    }
    fn apply(&self, _: &Config, _: &Config, _: &[&'static str]) -> Result<(), (&'static str, String)> {
        Ok(())
    }
    fn rewrite_config(&self, _: &Config, _: &[Vec<u8>], _: bool) -> Result<(), String> {
        Err("ERR The server is running without a config file".into())
    }
    fn config_file(&self) -> Option<String> {
        None
    }
    fn executable(&self) -> String {
        String::new()
    }
    fn port(&self) -> u16 {
        0
    }
    fn crash(&self) {}
    fn scheduled(&self) -> &AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        &NEVER
    }
    fn ask(&self, _: &Peer, _: &[u8], _: usize) -> Answers {
        Answers { broken: Some(Break::Connecting), ..Answers::default() }
    }
    fn kept_peers(&self) -> usize {
        0
    }
}

/// Words that options and arguments are made of.
const WORDS: &[&str] = &[
    "a", "b", "c", "0", "1", "-1", "2", "10", "9223372036854775807", "-9223372036854775808", "1.5", "inf", "NX", "XX", "GT", "LT", "EX",
    "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "GET", "MATCH", "COUNT", "TYPE", "string", "list", "DB", "REPLACE", "LEFT", "RIGHT", "BEFORE",
    "AFTER", "RANK", "MAXLEN", "LEN", "IDX", "MINMATCHLEN", "WITHMATCHLEN", "BIT", "BYTE", "SYNC", "ASYNC", "HELP", "ID", "ADDR", "SKIPME",
    "YES", "NO", "ON", "OFF", "SKIP", "3", "AUTH", "default", "SETNAME", "*", "?", "[a-b]", "FILTERBY", "PATTERN", "MODULE", "ACLCAT",
];

/// What would end the process, take very long, or change what the next input meets.
fn is_excluded(words: &[&[u8]]) -> bool {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let Some(first) = words.first() else { return true };
    ["SHUTDOWN", "DEBUG", "MONITOR", "SAVE", "BGSAVE", "BGREWRITEAOF", "REPLICAOF", "SLAVEOF", "FAILOVER", "SYNC", "PSYNC", "REPLCONF"].iter().any(|name| is(first, name))
        || is(first, "CONFIG") && words.get(1).is_some_and(|word| is(word, "SET"))
        || is(first, "CLIENT") && words.get(1).is_some_and(|word| is(word, "PAUSE") || is(word, "KILL"))
}

struct World {
    engine: Arc<Engine>,
    clock: ManualClock,
    executor: Executor,
    vocabulary: Vec<Vec<u8>>,
    out: Output,
}

impl World {
    fn new() -> World {
        // Nothing is written to files.
        let mut config = Config { io_threads: 1, proto_max_bulk_len: 1 << 20, ..Config::default() };
        config.save.0.clear();
        let (clock, hands) = Clock::manual(1_000_000_000_000);
        let keyspace = Keyspace::new(Routing::Hash, 1).expect("threads can be started");
        let engine = Engine::shared(config, clock, Box::new(Nowhere), keyspace).expect("the defaults are good");
        let mut vocabulary: Vec<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
        for entry in engine.commands.entries() {
            entry.visit(&mut |entry| {
                let name = entry.full_name.replace('|', " ");
                vocabulary.push(name.into_bytes());
            });
        }
        let executor = Executor::new(&engine, Some(0));
        World { engine, clock: hands, executor, vocabulary, out: Output::new(Protocol::Resp2) }
    }

    fn connect(&mut self) -> Session {
        self.out.set_protocol(Protocol::Resp2);
        let id = self.engine.clients.next_id();
        let shared = Arc::new(Shared::new(id, Link::InProcess, "fuzz:0".into(), "fuzz:0".into(), -1, 0));
        self.engine.clients.add(shared.clone());
        Session::new(shared, self.engine.users.default_account().clone())
    }

    /// What is done when a connection ends.
    fn disconnect(&self, mut session: Session) {
        pubsub::leave(&self.engine, &mut session);
        tracking::stop(&self.engine, &mut session);
        forget_watched(&mut self.engine.keyspace.hold_none(), &mut session);
        self.engine.clients.remove(session.shared.id);
    }

    /// The requests that the bytes stand for, as a client would send them.
    fn spell(&self, bytes: &[u8]) -> Vec<u8> {
        if bytes.first() == Some(&b'*') {
            return bytes.to_vec();
        }
        let mut text = Vec::new();
        let mut bytes = bytes.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                0xff => self.clock.advance(7),
                0x80.. => {
                    let low = bytes.next().copied().unwrap_or(0);
                    let at = usize::from(byte & 0x7f) << 8 | usize::from(low);
                    text.extend_from_slice(&self.vocabulary[at % self.vocabulary.len()]);
                    text.push(b' ');
                }
                other => text.push(*other),
            }
        }
        text.push(b'\n');
        text
    }

    /// Runs all requests in `buf` in batches; returns how many of them and the bytes of all replies.
    fn run(&mut self, session: &mut Session, buf: &[u8]) -> (usize, Vec<u8>) {
        let limits = Limits { max_bulk: 1 << 20, authenticated: true };
        let (mut parser, mut at, mut count) = (Parser::new(), 0, 0);
        let mut more = true;
        while more {
            let (mut text, mut spans, mut requests): (Vec<u8>, Vec<Span>, Vec<Request>) = Default::default();
            while requests.len() < 64 {
                let mut found = Vec::new();
                let words: Vec<Vec<u8>> = match parser.next(buf, at, &limits, &mut found) {
                    Ok(Step::Request { consumed, .. }) => {
                        at += consumed;
                        found.iter().map(|span| span.of(buf).to_vec()).collect()
                    }
                    Ok(Step::Inline { words, consumed }) => {
                        at += consumed;
                        words
                    }
                    Ok(Step::Incomplete) | Err(_) => {
                        more = false;
                        break;
                    }
                };
                if is_excluded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()) {
                    continue;
                }
                requests.push(Request { first: spans.len(), args: words.len(), start: text.len() });
                for word in &words {
                    spans.push(Span { start: text.len(), len: word.len() });
                    text.extend_from_slice(word);
                }
            }
            let mut done = 0;
            while done < requests.len() {
                let World { engine, executor, out, .. } = self;
                let (ran, mut stop) = executor.run(engine, session, out, Batch { buf: &text, spans: &spans, requests: &requests[done..] });
                assert!(ran > 0, "nothing holds requests back");
                done += ran;
                while let Stop::Pending(pending) = stop {
                    stop = executor.resume(engine, session, out, pending).map_or(Stop::Done, Stop::Pending);
                }
                if let Stop::Waiting(waiting) = &stop {
                    waiting.leave(&engine.keyspace);
                }
                session.fate = Fate::Stay;
            }
            count += requests.len();
        }
        let bytes = self.out.to_vec();
        self.out.advance(bytes.len());
        (count, bytes)
    }
}

fn decoded(bytes: &[u8]) -> Vec<Value> {
    let (mut at, mut all) = (0, Vec::new());
    while at < bytes.len() {
        match Value::decode(&bytes[at..]) {
            Ok(Some((value, len))) => {
                all.push(value);
                at += len;
            }
            other => panic!("{other:?} at {at} of {}", bytes.escape_ascii()),
        }
    }
    all
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow_mut(|world| {
        let buf = world.spell(bytes);
        let mut session = world.connect();
        let (count, replies) = world.run(&mut session, &buf);
        let values = decoded(&replies);
        // CLIENT REPLY leaves some out, a subscription is told of for each channel, and who waits is told nothing.
        let says = |name: &[u8]| buf.windows(name.len()).any(|word| word.eq_ignore_ascii_case(name));
        let counts = ![&b"reply"[..], b"subscribe", b"bl", b"br", b"bz", b"block", b"wait"].iter().any(|name| says(name));
        assert!(values.len() == count || !counts, "{} replies to {count} requests: {}", values.len(), buf.escape_ascii());
        world.disconnect(session);

        let mut session = world.connect();
        let (_, replies) = world.run(&mut session, b"DBSIZE\nKEYS *\nFLUSHALL\nDBSIZE\n");
        let values = decoded(&replies);
        let keys = values[1].as_slice().map_or(0, <[Value]>::len) as i64;
        let size = values[0].as_integer().unwrap_or_else(|| panic!("DBSIZE is {:?} after {}", values[0], buf.escape_ascii()));
        // KEYS leaves out what has expired and DBSIZE does not.
        assert!(keys <= size, "{keys} keys of {size}");
        assert_eq!(values[3].as_integer(), Some(0));
        world.disconnect(session);
    });
});
