//! The keyspace as requests use it, without a socket: lookups, inserts, whole requests, and how long the
//! slowest SET takes while the keyspace grows.
//!
//! `SPINEL_BENCH_KEYS` is the number of keys that the growth adds, a million unless it is set.
#![allow(unsafe_code, reason = "the processor time of a thread is the system's to tell")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spinel::client::session::Session;
use spinel::client::shared::{Link, Shared};
use spinel::command::dispatch::{Batch, Executor, Request, Stop};
use spinel::command::engine::{Engine, Host, ShutdownRequest};
use spinel::command::migrate::peer::{Answers, Peer};
use spinel::config::table::Config;
use spinel::keyspace::change::Effects;
use spinel::keyspace::db::{Db, Expiry, Touch};
use spinel::keyspace::entry::Str;
use spinel::keyspace::hash::Routing;
use spinel::keyspace::hold::ShardSet;
use spinel::keyspace::space::Keyspace;
use spinel::resp::reply::{Output, Protocol};
use spinel::resp::request::Span;
use spinel::stdx::clock::Clock;

// As the server has it: how memory is got is part of what is measured.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: spinel::stdx::memory::Counting<tikv_jemallocator::Jemalloc> =
    spinel::stdx::memory::Counting(tikv_jemallocator::Jemalloc);

const KEYS: u64 = 1_000_000;
const VALUE: [u8; 32] = [b'x'; 32];

/// There is no server around these engines.
#[derive(Default)]
struct Nowhere {
    scheduled: std::sync::atomic::AtomicBool,
}

impl Host for Nowhere {
    fn ask(&self, _: &Peer, _: &[u8], _: usize) -> Answers {
        Answers::default()
    }
    fn kept_peers(&self) -> usize {
        0
    }
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
    fn scheduled(&self) -> &std::sync::atomic::AtomicBool {
        &self.scheduled
    }
}

/// An engine and one client that runs batches on it.
struct Client {
    engine: Arc<Engine>,
    executor: Executor,
    session: Session,
    out: Output,
    buf: Vec<u8>,
    spans: Vec<Span>,
    requests: Vec<Request>,
}

impl Client {
    fn new() -> Client {
        let keyspace = Keyspace::new(Routing::Hash, 1).expect("threads can be started");
        let config = Config { io_threads: 1, ..Config::default() };
        let engine = Engine::shared(config, Clock::real(), Box::new(Nowhere::default()), keyspace)
            .expect("the defaults are good");
        let shared = Shared::new(1, Link::InProcess, String::new(), String::new(), -1, engine.clock.now_ms());
        Client {
            executor: Executor::new(&engine, Some(0)),
            session: Session::new(Arc::new(shared), engine.users.default_account().clone()),
            out: Output::new(Protocol::Resp2),
            engine,
            buf: Vec::new(),
            spans: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// A client of an engine that holds keys 0 to `keys`.
    fn with_keys(keys: u64) -> Client {
        let mut client = Client::new();
        let numbers: Vec<u64> = (0..keys).collect();
        for some in numbers.chunks(64) {
            client.clear();
            some.iter().for_each(|n| client.add(&[b"SET", &key(*n), &VALUE]));
            client.run();
        }
        client
    }

    fn clear(&mut self) {
        self.buf.clear();
        self.spans.clear();
        self.requests.clear();
    }

    /// Adds a request to the batch.
    fn add(&mut self, words: &[&[u8]]) {
        self.requests.push(Request { first: self.spans.len(), args: words.len(), start: self.buf.len() });
        for word in words {
            self.spans.push(Span { start: self.buf.len(), len: word.len() });
            self.buf.extend_from_slice(word);
        }
    }

    /// Runs the batch; returns how many bytes were replied.
    fn run(&mut self) -> usize {
        let Client { engine, executor, session, out, buf, spans, requests } = self;
        let (ran, stop) = executor.run(engine, session, out, Batch { buf, spans, requests });
        assert!(ran == requests.len() && matches!(stop, Stop::Done), "every request runs at once");
        let len = out.len();
        out.advance(len);
        len
    }
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut n = n;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    key
}

fn database(c: &mut Criterion) {
    let client = Client::with_keys(KEYS);
    let config = client.engine.config.load_full();
    let mut effects = Effects::default();
    let hold = client.engine.keyspace.hold(ShardSet::ALL);
    let moment = client.engine.moment(&config);
    let mut db = Db::new(&client.engine.keyspace, hold, &mut effects, 0, moment, Touch::Yes);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut group = c.benchmark_group("keyspace of a million");
    group.bench_function("lookup of a key that is there", |b| {
        b.iter(|| {
            let bytes = key(rng.u64(..KEYS));
            let key = db.key(&bytes);
            black_box(db.read(&key).is_some())
        });
    });
    group.bench_function("lookup of a key that is not", |b| {
        b.iter(|| {
            let bytes = key(KEYS + rng.u64(..KEYS));
            let key = db.key(&bytes);
            black_box(db.read(&key).is_some())
        });
    });
    let mut next = KEYS;
    group.bench_function("insert", |b| {
        b.iter(|| {
            let bytes = key(next);
            next += 1;
            let key = db.key(&bytes);
            db.set(&key, Str::Bytes(&VALUE), Expiry::Clear);
        });
    });
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut client = Client::with_keys(KEYS);
    let mut rng = fastrand::Rng::with_seed(7);
    for batch in [1, 16] {
        let mut group = c.benchmark_group(format!("{batch} together"));
        group.throughput(Throughput::Elements(batch));
        group.bench_function("GET", |b| {
            b.iter(|| {
                client.clear();
                (0..batch).for_each(|_| client.add(&[b"GET", &key(rng.u64(..KEYS))]));
                client.run()
            });
        });
        group.bench_function("SET", |b| {
            b.iter(|| {
                client.clear();
                (0..batch).for_each(|_| client.add(&[b"SET", &key(rng.u64(..KEYS)), &VALUE]));
                client.run()
            });
        });
        group.finish();
    }
}

/// Processor time that this thread has had, in nanoseconds: unlike the clock on the wall it stands still while
/// somebody else has the core.
fn processor_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the system writes one `timespec`, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Grows an empty keyspace key by key and prints how long single SETs took: a table that is copied when
/// it is full shows in the last columns. On a machine that is shared, processor time tells the SETs that are slow
/// from those that had to wait for a core.
fn growth(_: &mut Criterion) {
    let keys = std::env::var("SPINEL_BENCH_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(KEYS).max(1);
    let mut client = Client::new();
    let mut wall_ns = Vec::with_capacity(usize::try_from(keys).expect("as many as fit in memory"));
    let mut cpu_ns = Vec::with_capacity(wall_ns.capacity());
    let began = Instant::now();
    let mut cpu_before = processor_ns();
    for n in 0..keys {
        client.clear();
        client.add(&[b"SET", &key(n), &VALUE]);
        let before = Instant::now();
        client.run();
        wall_ns.push(u32::try_from(before.elapsed().as_nanos()).unwrap_or(u32::MAX));
        let cpu = processor_ns();
        cpu_ns.push(u32::try_from(cpu - cpu_before).unwrap_or(u32::MAX));
        cpu_before = cpu;
    }
    println!("growth to {keys} keys in {:.2} s; one SET in µs:", began.elapsed().as_secs_f64());
    for (clock, mut took_ns) in [("wall", wall_ns), ("processor", cpu_ns)] {
        took_ns.sort_unstable();
        let at = |share: f64| f64::from(took_ns[((keys as f64 * share) as usize).min(took_ns.len() - 1)]) / 1000.0;
        let beyond = |us: u32| took_ns.len() - took_ns.partition_point(|ns| *ns <= us * 1000);
        println!(
            "  {clock:9} p50 {:.2} p99 {:.2} p99.9 {:.2} p99.99 {:.2} max {:.2}; beyond 100 µs: {}, 500 µs: {}, 2 ms: {}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0),
            beyond(100),
            beyond(500),
            beyond(2000)
        );
    }
}

criterion_group!(benches, database, requests, growth);
criterion_main!(benches);
