//! Memory that is given back: after a flush, after deletion, after expiry, and what an idle client costs.

use crate::support::client::{Client, request};
use crate::support::server::{Server, tell};
use crate::support::watch::{eventually, figure, rss_bytes, used_memory};

/// How many keys are filled in; a build without optimisation takes a while for a million.
const KEYS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
/// What may be missing: a hundredth of what a small server takes.
const SLACK_BYTES: i64 = 1 << 20;

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
