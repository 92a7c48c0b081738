//! Random commands over few keys, to both servers: the same replies, and the same keys at the end.
//!
//! A run is decided by its seed alone; a failure prints it, and `SPINEL_SEED` repeats it. Times to
//! live are long, past, or unlike each other, so that no reply depends on which millisecond it is.

mod bitmaps;
mod hyperloglog;
mod sets;
mod streams;
mod zset;

use std::collections::VecDeque;

use fastrand::Rng;

use crate::support::reply::{Protocol, Tree};
use crate::support::server::Server;

/// Commands per run.
const STEPS: usize = 4000;
/// Databases that a run touches.
const DBS: i64 = 3;

type Words = Vec<String>;

/// How the replies to a command are compared.
#[derive(Clone, Copy)]
enum Same {
    Bytes,
    Unordered,
    /// But for what a clock may have moved on by, in the unit of the reply.
    Near(i128),
    /// But for the encodings that sets have in Redis 7.2 and had not in 7.0, where the oracle is that old.
    Encoding,
    /// But for how long entries have been pending, which XPENDING tells of each.
    Pending,
    /// But for the times at which something happened to groups; and what only Redis 7.2 tells of consumers is left out.
    Info,
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn key(rng: &mut Rng) -> String {
    pick(rng, &["a", "b", "c", "{t}1", "{t}2", "\u{0}\r\n", "s"]).to_owned()
}

fn value(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => rng.i64(-1000..1000).to_string(),
        1 => {
            pick(rng, &["9223372036854775807", "-9223372036854775808", "9223372036854775808", "0", "-0", "007"]).into()
        }
        2 => pick(rng, &["0.5", "3.0e3", "1e10", "-2.25", "inf", "nan", " 1"]).into(),
        3 => String::new(),
        4 => "x".repeat(rng.usize(40..50)),
        5 => "ab".repeat(rng.usize(..300)),
        _ => pick(rng, &["hello", "Hello, World", "a\u{0}b", "\r\n", "foo"]).into(),
    }
}

fn integer(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0 => pick(rng, &["abc", "", " 1", "1.5", "9223372036854775807", "-9223372036854775808", "1e3", "+1"]).into(),
        1 => rng.i64(..).to_string(),
        _ => rng.i64(-30..30).to_string(),
    }
}

/// A time of the given command or option: far ahead and unlike the others, or past.
fn time(rng: &mut Rng, option: &str) -> String {
    let option = option.to_uppercase();
    let scale: i64 = if option.starts_with('P') { 1000 } else { 1 };
    let base: i64 = if option.ends_with("AT") { 4_000_000_000 } else { 0 };
    match rng.u8(..12) {
        // The largest of them can be rounded to seconds without leaving 64 bits, where Redis goes wrong.
        0 => pick(rng, &["0", "-1", "abc", "9223372036854775000", "-9223372036854775808"]).into(),
        // As an absolute time this is past; as a relative one it is hours.
        1 => (10_000 * scale).to_string(),
        _ => ((base + rng.i64(10_000..1_000_000_000)) * scale).to_string(),
    }
}

fn options(rng: &mut Rng, words: &mut Words, of: &[&str]) {
    while rng.u8(..3) == 0 {
        let option = pick(rng, of);
        words.push(option.to_owned());
        if matches!(option, "EX" | "PX" | "EXAT" | "PXAT") {
            words.push(time(rng, option));
        }
    }
}

/// One command of any family.
fn command(rng: &mut Rng) -> (Words, Same) {
    match rng.u8(..12) {
        0 => sets::command(rng),
        1 | 2 => zset::command(rng),
        3 => bitmaps::command(rng),
        4 => hyperloglog::command(rng),
        5..=7 => streams::command(rng),
        _ => general(rng),
    }
}

/// One command for strings, keys or databases.
fn general(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, v, n) = (key(rng), key(rng), value(rng), integer(rng));
    match rng.u8(..40) {
        0..=4 => {
            say(&["SET", &k, &v]);
            options(rng, &mut words, &["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "nonsense"]);
        }
        5 => {
            say(&["GETEX", &k]);
            options(rng, &mut words, &["PERSIST", "EX", "PX", "EXAT", "PXAT", "nonsense"]);
        }
        6 => say(&["GET", &k]),
        7 => say(&[pick(rng, &["GETDEL", "STRLEN", "TYPE", "INCR", "DECR"]), &k]),
        8 => say(&[pick(rng, &["GETSET", "SETNX", "APPEND"]), &k, &v]),
        9 => {
            let name = pick(rng, &["SETEX", "PSETEX"]);
            let t = time(rng, name);
            say(&[name, &k, &t, &v]);
        }
        10 => say(&["MSET", &k, &v, &k2, &n]),
        11 => say(&["MSETNX", &k, &v, &k2, &n]),
        12 => say(&["MGET", &k, &k2, &k]),
        13 | 14 => say(&[pick(rng, &["INCRBY", "DECRBY"]), &k, &n]),
        15 => {
            let by = pick(rng, &["0.5", "-2.25", "1e3", "abc", "100", "0.1", "3", "inf"]);
            say(&["INCRBYFLOAT", &k, by]);
        }
        16 => say(&["SETRANGE", &k, &rng.u8(..120).to_string(), &v]),
        17 => say(&[pick(rng, &["GETRANGE", "SUBSTR"]), &k, &n, &integer(rng)]),
        18 => {
            say(&["LCS", &k, &k2]);
            options(rng, &mut words, &["LEN", "IDX", "WITHMATCHLEN"]);
        }
        19..=23 => {
            let name = pick(rng, &["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"]);
            let t = time(rng, name);
            say(&[name, &k, &t]);
            options(rng, &mut words, &["NX", "XX", "GT", "LT"]);
        }
        24 => say(&["PERSIST", &k]),
        25 => {
            say(&[pick(rng, &["TTL", "EXPIRETIME"]), &k]);
            same = Same::Near(10);
        }
        26 => {
            say(&[pick(rng, &["PTTL", "PEXPIRETIME"]), &k]);
            same = Same::Near(10_000);
        }
        27 => say(&[pick(rng, &["DEL", "UNLINK", "EXISTS", "TOUCH"]), &k, &k2]),
        28 | 29 => say(&[pick(rng, &["RENAME", "RENAMENX"]), &k, &k2]),
        30 | 31 => {
            say(&["COPY", &k, &k2]);
            if rng.bool() {
                words.extend(["DB".to_owned(), rng.i64(0..=DBS).to_string()]);
            }
            options(rng, &mut words, &["REPLACE"]);
        }
        32 => say(&["MOVE", &k, &rng.i64(-1..DBS).to_string()]),
        33 | 34 => say(&["SELECT", &rng.i64(0..DBS).to_string()]),
        35 => say(&["SWAPDB", &rng.i64(0..DBS).to_string(), &rng.i64(0..DBS).to_string()]),
        36 => {
            say(&["OBJECT", "ENCODING", &k]);
            same = Same::Encoding;
        }
        37 => {
            say(&["KEYS", pick(rng, &["*", "a", "[ab]", "{t}?", "?", "*1"])]);
            same = Same::Unordered;
        }
        38 => {
            say(&["SCAN", "0", "COUNT", "1000", "TYPE", pick(rng, &["string", "list", "set"])]);
            same = Same::Unordered;
        }
        _ => match rng.u8(..12) {
            0 => say(&["FLUSHDB"]),
            // Not DBSIZE: keys that were born expired are counted until somebody notices.
            _ => {
                say(&["KEYS", "*"]);
                same = Same::Unordered;
            }
        },
    }
    (words, same)
}

/// The encodings of sets.
const OF_SETS: [&[u8]; 3] = [b"$6\r\nintset\r\n", b"$8\r\nlistpack\r\n", b"$9\r\nhashtable\r\n"];

fn agree(same: Same, ours: &[u8], theirs: &[u8], older: bool) -> bool {
    match same {
        Same::Encoding => ours == theirs || older && OF_SETS.contains(&ours) && OF_SETS.contains(&theirs),
        Same::Bytes => ours == theirs,
        Same::Unordered => Tree::parse(ours).sorted() == Tree::parse(theirs).sorted(),
        Same::Near(by) => Tree::parse(ours).near(&Tree::parse(theirs), by),
        Same::Pending => {
            let kept = |reply: &[u8]| -> Vec<Vec<Tree>> {
                let entries = Tree::parse(reply);
                let told = |entry: &Tree| [&entry.items()[..2], &entry.items()[3..]].concat();
                entries.items().iter().map(told).collect()
            };
            let errors = [ours, theirs].map(|reply| reply.starts_with(b"-"));
            if errors == [false; 2] { kept(ours) == kept(theirs) } else { ours == theirs }
        }
        Same::Info => {
            let newer = ["idle", "inactive", "active-time"];
            let [ours, theirs] = [ours, theirs].map(|reply| Tree::parse(reply).without(&newer));
            ours.near_from(&theirs, 60_000, 1_000_000_000)
        }
    }
}

fn run(protocol: Protocol, args: &[&str]) {
    let Some((subject, oracle)) = Server::pair(args) else { return };
    let older = oracle.is_redis_7_0(None);
    let seed = std::env::var("SPINEL_SEED")
        .ok()
        .map_or_else(|| fastrand::u64(..), |s| s.parse().unwrap_or_else(|e| panic!("SPINEL_SEED={s}: {e}")));
    eprintln!("SPINEL_SEED={seed} repeats this run ({protocol:?})");
    let mut rng = Rng::with_seed(seed);
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    if protocol == Protocol::Resp3 {
        ours.cmd(&["HELLO", "3"]);
        theirs.cmd(&["HELLO", "3"]);
    }
    let mut recent = VecDeque::new();
    let mut ask = |step: usize, words: &Words, same: Same| {
        let (a, b) = (ours.cmd(words), theirs.cmd(words));
        if recent.len() == 20 {
            recent.pop_front();
        }
        recent.push_back(format!("{words:?} -> {}", b.escape_ascii()));
        assert!(
            agree(same, &a, &b, older),
            "SPINEL_SEED={seed}, {protocol:?}, step {step}: {words:?}\n  subject: {}\n  oracle:  {}\nafter:\n{}",
            a.escape_ascii(),
            b.escape_ascii(),
            recent.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
        );
        b
    };
    for step in 0..STEPS {
        let (words, same) = command(&mut rng);
        ask(step, &words, same);
    }
    let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect::<Words>();
    for db in 0..=DBS {
        ask(STEPS, &words(&["SELECT", &db.to_string()]), Same::Bytes);
        let keys = Tree::parse(&ask(STEPS, &words(&["KEYS", "*"]), Same::Unordered)).sorted();
        for key in keys.items().iter().filter_map(Tree::bytes) {
            let key = String::from_utf8_lossy(key).into_owned();
            ask(STEPS, &words(&["GET", &key]), Same::Bytes);
            ask(STEPS, &words(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]), Same::Bytes);
            ask(STEPS, &words(&["XINFO", "STREAM", &key, "FULL", "COUNT", "0"]), Same::Info);
            ask(STEPS, &words(&["PEXPIRETIME", &key]), Same::Near(10_000));
            ask(STEPS, &words(&["SMEMBERS", &key]), Same::Unordered);
            ask(STEPS, &words(&["OBJECT", "ENCODING", &key]), Same::Encoding);
        }
    }
}

#[test]
fn random_commands_in_resp2() {
    run(Protocol::Resp2, &[]);
}

#[test]
fn random_commands_in_resp3() {
    run(Protocol::Resp3, &["--stream-node-max-entries", "4"]);
}
