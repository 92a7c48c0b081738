//! Files and payloads any byte of which is another one: refused with a reason, or read as something that can be used.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use crate::command::save;
use crate::command::testing::Bench;
use crate::config::table::Config;
use crate::keyspace::entry::{Entry, Str};
use crate::keyspace::hash::Routing;
use crate::keyspace::hidden::Walked;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::moment::{AccessPolicy, Moment};
use crate::keyspace::space::Keyspace;
use crate::persist::rdb::load::{self, Loaded, Manner, Overdue, Progress, Twice};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::save::{self as writing, Head};
use crate::persist::rdb::value::{Decoded, Limits};
use crate::persist::rdb::writer::Compression;
use crate::persist::rdb::{Dialect, payload};

/// Small collections become large ones early.
const SMALL: &str = "hash-max-listpack-entries 3\nzset-max-listpack-entries 3\nset-max-intset-entries 3\n\
    set-max-listpack-entries 3\nlist-max-listpack-size 3\nstream-node-max-entries 2\n";

/// Some of every encoding.
const DATA: &[&str] = &[
    "SET int 12",
    "SET large-int 12345678901",
    "SET text hello",
    "SET volatile x EX 1000",
    "SET long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "RPUSH list a 1 -70000",
    "RPUSH chain a b c d e 12345678901234 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "HSET hash a 1 b c",
    "HSET large-hash a 1 b 2 c 3 d 4 e 5",
    "HSET timed a 1 b 2",
    "HPEXPIRE timed 100000 FIELDS 1 a",
    "HSET large-timed a 1 b 2 c 3 d 4 e 5",
    "HPEXPIRE large-timed 100000 FIELDS 2 a d",
    "ZADD zset 1.5 a -inf b",
    "ZADD large-zset 1.5 a -inf b 3 c 4 d 5 e",
    "SADD intset 1 2 70000",
    "SADD set a 1",
    "SADD large-set a b c d e",
    "XADD stream 1-1 a 1 b 2",
    "XADD stream 1-2 a 1 b 2",
    "XADD stream 2-0 c d",
    "XADD stream 3-0 a 1 b 2",
    "XDEL stream 1-2",
    "XGROUP CREATE stream group 0",
    "XREADGROUP GROUP group alice COUNT 2 STREAMS stream >",
    "PFADD hll a b c",
];

/// What becomes of a byte.
const CHANGES: [fn(u8) -> u8; 5] = [|b| b ^ 1, |b| b ^ 0x80, |b| b ^ 0x40, |b| if b == 0 { 1 } else { 0 }, |b| !b];

fn filled() -> Bench {
    let mut bench = Bench::with(SMALL);
    for line in DATA {
        let reply = bench.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    bench
}

fn entries(bench: &Bench, mut f: impl FnMut(&Entry)) {
    let keyspace = &bench.engine.keyspace;
    let mut cursor = 0;
    loop {
        cursor = keyspace.scan(&mut keyspace.hold(ShardSet::ALL), 0, Walked::All, cursor, 100, &mut f);
        if cursor == 0 {
            return;
        }
    }
}

fn entry_of(decoded: Decoded) -> Entry {
    match decoded {
        Decoded::Int(n) => Entry::new(0, b"key", Str::Bytes(n.to_string().as_bytes()), None, 0),
        Decoded::Bytes(bytes) => Entry::new(0, b"key", Str::Bytes(&bytes), None, 0),
        Decoded::Object(object) => Entry::with_object(0, b"key", *object, None, 0),
    }
}

/// What of a payload does not depend on the order of what is in a table.
fn sorted(payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload[..payload.len() - 10].to_vec();
    bytes.sort_unstable();
    bytes
}

#[test]
fn a_payload_with_another_byte_is_refused_or_a_value_that_can_be_written() {
    let bench = filled();
    let config = bench.engine.config.load_full();
    let limits = Limits { config: &config, dialect: Dialect::Redis, now_ms: None };
    let (mut refused, mut read) = (0, 0);
    entries(&bench, |entry| {
        for compression in [Compression::Lzf, Compression::None] {
            let whole = payload::write(entry.value(), compression);
            let bytes = &whole[..whole.len() - 10];
            assert!(payload::read(bytes, limits).is_ok());
            for len in 0..bytes.len() {
                assert!(payload::read(&bytes[..len], limits).is_err(), "{len} bytes of {}", entry.key().escape_ascii());
            }
            for at in 0..bytes.len() {
                for change in CHANGES {
                    let mut bytes = bytes.to_vec();
                    bytes[at] = change(bytes[at]);
                    match payload::read(&bytes, limits) {
                        Err(error) => {
                            assert!(!error.to_string().is_empty());
                            refused += 1;
                        }
                        Ok(decoded) => {
                            // Whatever it is now, it can be written and is read as the same.
                            let entry = entry_of(decoded);
                            let again = payload::write(entry.value(), compression);
                            let value = payload::read(&again[..again.len() - 10], limits);
                            let value = entry_of(value.expect("what was written can be read"));
                            assert_eq!(sorted(&payload::write(value.value(), compression)), sorted(&again));
                            read += 1;
                        }
                    }
                }
            }
        }
    });
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} read");
}

fn saved(bench: &Bench) -> Vec<u8> {
    let engine = &bench.engine;
    let config = engine.config.load_full();
    let (encoder, manner) =
        (writing::encoder(&config, engine.moment(&config), writing::Audience::File), writing::Manner::of(&config));
    let head = save::head(engine, save::Purpose::Snapshot);
    let mut bytes = Vec::new();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    writing::write_held(&engine.keyspace, &mut hold, &*encoder, &head, manner, &mut bytes).unwrap();
    bytes
}

fn loaded(keyspace: &Keyspace, config: &Config, bytes: &[u8], threads: usize) -> Result<Loaded, String> {
    let moment = Moment { now_ms: 1_000_000_000, policy: AccessPolicy::Lru };
    let manner = Manner { config, moment, overdue: Overdue::Keep, twice: Twice::Replace, behind: false };
    let mut source = bytes;
    load::load(keyspace, &mut Reader::new(&mut source), manner, threads, &Progress::default())
        .map_err(|error| error.to_string())
}

#[test]
fn a_file_with_another_byte_is_refused_and_without_its_checksum_does_no_harm() {
    let mut bench = filled();
    bench.run("FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 1 end)\"");
    let bytes = saved(&bench);
    let summed = bench.engine.config.load_full();
    let unsummed = Config { rdbchecksum: false, ..(*summed).clone() };
    let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
    let keys = loaded(&keyspace, &summed, &bytes, 2).unwrap().keys;
    assert_eq!(format!(":{keys}|"), bench.run("DBSIZE"));
    for len in 0..bytes.len() {
        let refused = loaded(&keyspace, &summed, &bytes[..len], len % 2 + 1);
        assert!(!refused.expect_err("it is not whole").is_empty(), "{len} bytes");
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] = CHANGES[at % CHANGES.len()](bytes[at]);
        let refused = loaded(&keyspace, &summed, &bytes, at % 2 + 1);
        assert!(!refused.expect_err("its sum is wrong").is_empty(), "byte {at}");
        // What is read of it is whatever it is.
        let _ = loaded(&keyspace, &unsummed, &bytes, 1);
    }
    // And all of that can be written.
    let (encoder, manner) = (
        writing::encoder(&summed, bench.engine.moment(&summed), writing::Audience::File),
        writing::Manner::of(&summed),
    );
    let (mut again, mut hold) = (Vec::new(), keyspace.hold(ShardSet::ALL));
    writing::write_held(&keyspace, &mut hold, &*encoder, &Head::default(), manner, &mut again).unwrap();
    drop(hold);
    let other = Keyspace::new(Routing::Hash, 1).unwrap();
    assert!(loaded(&other, &summed, &again, 1).unwrap().keys >= keys);
}

#[test]
fn a_log_with_another_byte_is_loaded_or_refused_and_then_left_as_it_is() {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    struct Dir(PathBuf);
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = Dir(env::temp_dir().join(format!("spinel-damaged-{}-{n}", process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    let config = format!("dir {}\nappendonly yes\n{SMALL}", dir.0.display());
    let mut bench = Bench::with(&config);
    save::load_at_start(&bench.engine).unwrap();
    for line in DATA.iter().chain(&["MULTI", "SET a 1", "INCR a", "EXEC"]) {
        assert!(!bench.run(line).starts_with('-'), "{line}");
    }
    bench.engine.aof.appender.flush().unwrap();
    drop(bench);
    let path = dir.0.join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut read) = (0, 0);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = CHANGES[at % CHANGES.len()](bytes[at]);
        fs::write(&path, &bytes).unwrap();
        let bench = Bench::with(&config);
        match save::load_at_start(&bench.engine) {
            Ok(()) => read += 1,
            Err(reason) => {
                assert!(!reason.is_empty());
                assert_eq!(fs::read(&path).unwrap(), bytes, "byte {at}: {reason}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}
