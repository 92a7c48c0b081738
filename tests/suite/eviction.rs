//! The memory limit: kept whatever is written by however many, by every policy, in a time that no client notices.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::support::client::{Client, request};
use crate::support::server::{Server, tell};
use crate::support::watch::{eventually, figure, used_memory};

/// How much data each of eight writers writes, in bytes: several times what there is room for.
const WRITTEN: usize = if cfg!(debug_assertions) { 4 << 20 } else { 16 << 20 };
/// What data has room for.
const ROOM: i64 = 8 << 20;

/// Sets the limit so that data has `room`; returns it.
fn limit(client: &mut Client, policy: &str, room: i64) -> i64 {
    let limit = used_memory(client) + room;
    assert_eq!(client.cmd(&["CONFIG", "SET", "maxmemory-policy", policy]), b"+OK\r\n");
    assert_eq!(client.cmd(&["CONFIG", "SET", "maxmemory", &limit.to_string()]), b"+OK\r\n");
    limit
}

/// Writes until so many bytes are written, 16 requests at a time; what is replied is counted as fine or as OOM.
fn write(client: &mut Client, seed: usize, value: &str, extra: &[&str]) -> (usize, usize) {
    let (mut written, mut n, mut fine, mut refused) = (0, 0, 0, 0);
    while written < WRITTEN {
        let mut batch = Vec::new();
        for _ in 0..16 {
            let key = format!("{seed}:{n}");
            let mut words = vec!["SET", key.as_str(), value];
            words.extend(extra);
            batch.extend(request(&words));
            written += key.len() + value.len();
            n += 1;
        }
        client.send(&batch).expect("sent");
        for _ in 0..16 {
            match client.reply().expect("a reply").as_slice() {
                b"+OK\r\n" => fine += 1,
                b"-OOM command not allowed when used memory > 'maxmemory'.\r\n" => refused += 1,
                other => panic!("{}", other.escape_ascii()),
            }
        }
    }
    (fine, refused)
}

#[test]
fn eight_writers_do_not_get_memory_above_its_limit() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl", "allkeys-lrm"] {
        let server = Server::subject(&["--io-threads", "4"]);
        let mut client = server.connect();
        let limit = limit(&mut client, policy, ROOM);
        let value = "x".repeat(1000);
        let (done, most) = (AtomicBool::new(false), AtomicI64::new(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|seed| {
                    let (mut client, value) = (server.connect(), &value);
                    scope.spawn(move || write(&mut client, seed, value, &["EX", "100000"]))
                })
                .collect();
            scope.spawn(|| {
                let mut client = server.connect();
                while !done.load(Ordering::Relaxed) {
                    most.fetch_max(used_memory(&mut client), Ordering::Relaxed);
                }
            });
            for writer in writers {
                let (_, refused) = writer.join().unwrap();
                assert_eq!(refused, 0, "{policy}");
            }
            done.store(true, Ordering::Relaxed);
        });
        let most = most.into_inner();
        let evicted = figure(&mut client, "evicted_keys");
        tell(&format!("{policy}: {most} bytes at most, limit {limit}, {evicted} keys evicted"));
        assert!(evicted > 0, "{policy}");
        // A hundredth, and what eight commands take while they run.
        assert!(most <= limit + limit / 100 + 8 * 64 * 1024, "{policy}: {most} bytes, limit {limit}");
        let left = figure(&mut client, "used_memory");
        assert!(left > limit - limit / 10, "{policy}: too much was evicted: {left} bytes, limit {limit}");
    }
}

#[test]
fn where_no_key_can_go_writing_is_refused_and_all_else_works() {
    for policy in ["noeviction", "volatile-lru", "volatile-ttl", "volatile-random"] {
        let server = Server::subject(&[]);
        let mut client = server.connect();
        let limit = limit(&mut client, policy, ROOM / 4);
        let (fine, refused) = write(&mut client, 0, &"x".repeat(1000), &[]);
        assert!(fine > 0 && refused > 0, "{policy}: {fine} written, {refused} refused");
        assert!(used_memory(&mut client) < limit + limit / 100 + 64 * 1024);
        assert_eq!(client.cmd(&["STRLEN", "0:200"]), b":1000\r\n");
        for n in 0..100 {
            assert_eq!(client.cmd(&["EXPIRE", &format!("0:{n}"), "1000"]), b":1\r\n");
        }
        assert_eq!(
            client.cmd(&["LPUSH", "list", "x"]).first(),
            Some(&if policy == "noeviction" { b'-' } else { b':' })
        );
        assert_eq!(figure(&mut client, "evicted_keys") > 0, policy != "noeviction");
        // What is deleted can be written again.
        for n in 100..300 {
            client.cmd(&["DEL", &format!("0:{n}")]);
        }
        eventually("there is room again", || client.cmd(&["SET", "again", "x"]) == b"+OK\r\n");
    }
}

#[test]
fn keys_that_are_used_stay() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-lrm"] {
        let server = Server::subject(&["--maxmemory-samples", "10", "--lfu-decay-time", "0"]);
        let mut client = server.connect();
        let value = "x".repeat(1000);
        assert_eq!(client.cmd(&["CONFIG", "SET", "maxmemory-policy", policy]), b"+OK\r\n");
        for n in 0..100 {
            client.cmd(&["SET", &format!("used:{n}"), &value]);
        }
        limit(&mut client, policy, ROOM / 4);
        // Clocks count seconds: what was written in the same one cannot be told apart, so each of them sees less
        // than there is room for.
        let second = |client: &mut Client| figure(client, "server_time_usec") / 1_000_000;
        let writes = if policy == "allkeys-lfu" { 20_000 } else { 5000 };
        for n in 0..writes {
            if n % 700 == 0 && policy != "allkeys-lfu" {
                let now = second(&mut client);
                eventually("a second has passed", || second(&mut client) > now);
            }
            if n % 100 == 0 {
                for used in 0..100 {
                    let key = format!("used:{used}");
                    match policy {
                        "allkeys-lrm" => client.cmd(&["APPEND", &key, ""]),
                        _ => client.cmd(&["GET", &key]),
                    };
                }
            }
            client.cmd(&["SET", &format!("other:{n}"), &value]);
        }
        let mut stayed = 0;
        for n in 0..100 {
            stayed += i32::from(client.cmd(&["STRLEN", &format!("used:{n}")]) == b":1000\r\n");
        }
        tell(&format!("{policy}: {stayed} of 100 keys in use stayed"));
        assert!(stayed >= 90, "{policy}: {stayed} of 100");
    }
}

#[test]
fn a_lower_limit_is_reached_without_a_command() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let before = used_memory(&mut client);
    client.cmd(&["DEBUG", "POPULATE", "100000", "key", "100"]);
    limit(&mut client, "allkeys-random", -1);
    let target = before + (used_memory(&mut client) - before) / 2;
    assert_eq!(client.cmd(&["CONFIG", "SET", "maxmemory", &target.to_string()]), b"+OK\r\n");
    eventually("memory is below its new limit", || used_memory(&mut client) <= target);
    let size = String::from_utf8(client.cmd(&["DBSIZE"])).unwrap();
    assert!(size.starts_with(':') && size.len() > 5, "{size}");
}

#[test]
fn a_huge_collection_makes_room_once() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let start = used_memory(&mut client);
    let members: Vec<String> = (0..200_000).map(|n| format!("member:{n:020}")).collect();
    for some in members.chunks(10_000) {
        let mut words = vec!["SADD", "huge"];
        words.extend(some.iter().map(String::as_str));
        client.cmd(&words);
    }
    for n in 0..1000 {
        client.cmd(&["SETEX", &format!("small:{n}"), "100000", "x"]);
    }
    client.cmd(&["EXPIRE", "huge", "100"]);
    let taken = used_memory(&mut client) - start;
    limit(&mut client, "volatile-ttl", -taken / 2);
    eventually("the collection is gone", || used_memory(&mut client) < start + taken / 4);
    // It was the next to expire, and freeing it takes a while: nothing else had to go meanwhile.
    assert_eq!(figure(&mut client, "evicted_keys"), 1);
    assert_eq!(client.cmd(&["DBSIZE"]), b":1000\r\n");
}

#[test]
fn what_makes_room_is_told_in_the_words_that_the_configuration_asks_for() {
    for (lazy, name) in [("no", "DEL"), ("yes", "UNLINK")] {
        let server = Server::subject(&["--appendonly", "yes", "--lazyfree-lazy-eviction", lazy]);
        let mut client = server.connect();
        assert_eq!(client.cmd(&["SET", "victim", &"x".repeat(100_000)]), b"+OK\r\n");
        limit(&mut client, "allkeys-random", -50_000);
        assert_eq!(client.cmd(&["DBSIZE"]), b":0\r\n");
        let told = format!("*2\r\n${}\r\n{name}\r\n$6\r\nvictim\r\n", name.len());
        let file = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
        eventually(&told, || std::fs::read(&file).expect("a log").ends_with(told.as_bytes()));
    }
}
