//! Memory that is given back: after a flush, after deletion, after expiry, and what an idle client costs;
//! and that MEMORY USAGE says of a key what its deletion gives back.

use crate::support::client::{Client, request};
use crate::support::server::{Server, tell};
use crate::support::watch::{eventually, figure, rss_bytes, used_memory};

/// How many keys are filled in; a build without optimisation takes a while for a million.
const KEYS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
/// What may be missing: a hundredth of what a small server takes.
const SLACK_BYTES: i64 = 1 << 20;
/// What a key takes in tables at most, beside its own allocations.
const PLACES_BYTES: i64 = 32;

/// Which time to live the keys with one get.
#[derive(Clone, Copy)]
enum Ttl {
    Long,
    Short,
}

/// Strings short and long, integers, and a third of each with a time to live.
fn fill(client: &mut Client, ttl: Ttl) {
    let ttl = match ttl {
        Ttl::Long => "1000000",
        Ttl::Short => "20",
    };
    let long = "x".repeat(200);
    let numbers: Vec<usize> = (0..KEYS).collect();
    for some in numbers.chunks(1000) {
        let mut batch = Vec::new();
        for n in some {
            let key = format!("key:{n}");
            let number = n.to_string();
            let value = match n % 3 {
                0 => number.as_str(),
                1 => "short",
                _ => long.as_str(),
            };
            match (ttl, n % 9 < 3) {
                ("20", _) | (_, true) => batch.extend(request(&["SET", &key, value, "PX", ttl])),
                _ => batch.extend(request(&["SET", &key, value])),
            }
        }
        client.send(&batch).expect("sent");
        for _ in some {
            assert_eq!(client.reply().expect("a reply"), b"+OK\r\n");
        }
    }
}

#[test]
fn memory_in_use_is_what_it_was_once_all_keys_are_gone() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    // What is allocated once and kept is allocated.
    fill(&mut client, Ttl::Long);
    client.cmd(&["FLUSHALL"]);
    let start = used_memory(&mut client);
    let slack = (start / 100).max(SLACK_BYTES / 10);
    let back = |client: &mut Client, how: &str| {
        let mut most = 0;
        eventually(&format!("memory is given back after {how}"), || {
            most = used_memory(client) - start;
            most.abs() <= slack
        });
        tell(&format!("{KEYS} keys gone by {how}: used_memory {most:+} bytes of {start}"));
    };
    for how in ["FLUSHALL", "FLUSHALL ASYNC", "FLUSHDB", "DEL", "UNLINK", "expiry"] {
        fill(&mut client, if how == "expiry" { Ttl::Short } else { Ttl::Long });
        match how {
            "DEL" | "UNLINK" => {
                assert!(used_memory(&mut client) - start > 50 * KEYS as i64);
                let numbers: Vec<String> = (0..KEYS).map(|n| format!("key:{n}")).collect();
                for some in numbers.chunks(1000) {
                    let words: Vec<&str> = std::iter::once(how).chain(some.iter().map(String::as_str)).collect();
                    assert_eq!(client.cmd(&words), format!(":{}\r\n", some.len()).as_bytes());
                }
            }
            "expiry" => eventually("all have expired", || client.cmd(&["DBSIZE"]) == b":0\r\n"),
            flush => {
                assert!(used_memory(&mut client) - start > 50 * KEYS as i64);
                let words: Vec<&str> = flush.split(' ').collect();
                assert_eq!(client.cmd(&words), b"+OK\r\n");
            }
        }
        assert_eq!(client.cmd(&["DBSIZE"]), b":0\r\n");
        back(&mut client, how);
    }
}

/// The requests that make a key of this kind, and how many such keys are made.
fn requests(kind: &str, key: &str) -> (Vec<Vec<String>>, usize) {
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    // In the order of a hash, so to speak: what comes in order is packed more tightly than what does not.
    let mixed = |n: usize| n.wrapping_mul(0x9e37_79b9) % 1_000_003;
    let many = |head: &str, count: usize, element: &dyn Fn(usize) -> String| -> Vec<Vec<String>> {
        let numbers: Vec<usize> = (0..count).collect();
        let request = |some: &[usize]| {
            let elements: Vec<String> = some.iter().map(|n| element(*n)).collect();
            words(format!("{head} {}", elements.join(" ")))
        };
        numbers.chunks(100).map(request).collect()
    };
    match kind {
        "int" => (vec![words(format!("SET {key} 123456"))], 1000),
        "embstr" => (vec![words(format!("SET {key} abcdefghijklmnop"))], 1000),
        "embstr with a time to live" => (vec![words(format!("SET {key} abcdefghijklmnop EX 100000"))], 1000),
        "raw" => (vec![words(format!("SET {key} {}", "x".repeat(1000)))], 100),
        "large" => (vec![words(format!("SET {key} {}", "x".repeat(100_000)))], 10),
        "small list" => (many(&format!("RPUSH {key}"), 20, &|n| format!("element:{n}")), 300),
        "list" => (many(&format!("RPUSH {key}"), 5000, &|n| format!("element:{n}")), 5),
        "small hash" => (many(&format!("HSET {key}"), 20, &|n| format!("field:{n} value:{n}")), 300),
        "hash" => (many(&format!("HSET {key}"), 5000, &|n| format!("field:{} value:{n}", mixed(n))), 5),
        "small sorted set" => (many(&format!("ZADD {key}"), 20, &|n| format!("{n} member:{n}")), 300),
        "sorted set" => (many(&format!("ZADD {key}"), 5000, &|n| format!("{} member:{n}", mixed(n))), 5),
        "small stream" => (vec![words(format!("XADD {key} * field value"))], 300),
        "stream" => {
            let add = |n: usize| words(format!("XADD {key} {}-1 temperature {} humidity {}", n + 1, n % 50, n % 90));
            ((0..3000).map(add).collect(), 5)
        }
        "stream with groups" => {
            let (mut requests, _) = requests("stream", key);
            for group in ["g", "h"] {
                requests.push(words(format!("XGROUP CREATE {key} {group} 0")));
                for consumer in ["alice", "bob", "carol"] {
                    let read = format!("XREADGROUP GROUP {group} {consumer} COUNT 700 STREAMS {key} >");
                    requests.push(words(read));
                }
            }
            (requests, 5)
        }
        _ => unreachable!("{kind}"),
    }
}

#[test]
fn memory_usage_is_what_deletion_gives_back() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    // What every shard allocates with its first key, and with its first deadline, is no single key's.
    fill(&mut client, Ttl::Long);
    let mut wrong = Vec::new();
    for kind in [
        "int",
        "embstr",
        "embstr with a time to live",
        "raw",
        "large",
        "small list",
        "list",
        "small hash",
        "hash",
        "small sorted set",
        "sorted set",
        "small stream",
        "stream",
        "stream with groups",
    ] {
        let keys: Vec<String> = (0..requests(kind, "").1).map(|n| format!("measured:{n}")).collect();
        let make = |client: &mut Client| -> i64 {
            let mut told = 0;
            for key in &keys {
                for request in requests(kind, key).0 {
                    let reply = client.cmd(&request);
                    assert!(!reply.starts_with(b"-"), "{request:?}: {}", reply.escape_ascii());
                }
            }
            for key in &keys {
                let reply = String::from_utf8(client.cmd(&["MEMORY", "USAGE", key])).expect("a number");
                told += reply[1..].trim_end().parse::<i64>().expect("a number");
            }
            told
        };
        let empty = |client: &mut Client| {
            keys.iter().for_each(|key| assert_eq!(client.cmd(&["DEL", key]), b":1\r\n"));
        };
        // What is allocated once and kept is allocated.
        make(&mut client);
        empty(&mut client);
        let told = make(&mut client);
        let full = used_memory(&mut client);
        empty(&mut client);
        // Large values are freed behind the scenes.
        let (mut freed, mut steady) = (0, 0);
        eventually("memory is given back", || {
            if figure(&mut client, "lazyfree_pending_objects") > 0 {
                return false;
            }
            let now = full - used_memory(&mut client);
            steady = if (now - freed).abs() < 1000 && now > 0 { steady + 1 } else { 0 };
            freed = now;
            steady >= 3
        });
        tell(&format!("{kind}: MEMORY USAGE says {told} of {} keys, {freed} bytes are given back", keys.len()));
        // Its places in the tables of keys and of deadlines stay for the next key.
        let places = PLACES_BYTES * keys.len() as i64;
        if (told - freed).abs() > freed / 20 + places + 2000 {
            wrong.push(format!("{kind}: told {told}, freed {freed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_idle_connection_costs_less_than_eight_kilobytes() {
    const CLIENTS: usize = 1000;
    const MOST_BYTES: i64 = 8 * 1024;
    let server = Server::subject(&["--maxclients", "2000"]);
    let mut stays = server.connect();
    let many = |count: usize| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n"));
        clients
    };
    drop(many(50));
    eventually("they are gone", || figure(&mut stays, "connected_clients") == 1);
    let before = (rss_bytes(&mut stays), used_memory(&mut stays));
    let clients = many(CLIENTS);
    let each = |bytes: i64| bytes / CLIENTS as i64;
    let (rss, used) = (each(rss_bytes(&mut stays) - before.0), each(used_memory(&mut stays) - before.1));
    tell(&format!("{CLIENTS} idle connections: {rss} bytes resident each, {used} of them allocated"));
    assert!(rss <= MOST_BYTES && used <= MOST_BYTES, "{rss} resident, {used} allocated");
    drop(clients);
    eventually("they are gone", || figure(&mut stays, "connected_clients") == 1);
    eventually("their memory is given back", || used_memory(&mut stays) - before.1 < 32 * 1024);
}
