//! Many clients at once on several workers: what a command does is done at once or not at all, nobody
//! waits for ever, and walks find what was there all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Client, request};
use crate::support::reply::Tree;
use crate::support::server::{Server, tell};

/// How long the threads of a test go at each other.
const SPAN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 10 });

/// What one thread does over and over with its own connection.
type Actor = Box<dyn Fn(&mut Client, &mut Random) + Send>;

/// Runs every actor on a thread of its own until the time is over; a panic in one ends all.
fn together(server: &Server, actors: Vec<Actor>) -> u64 {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let until = Instant::now() + SPAN;
    std::thread::scope(|scope| {
        for (seed, actor) in actors.into_iter().enumerate() {
            let (stop, rounds) = (&stop, &rounds);
            let mut client = server.connect();
            scope.spawn(move || {
                let _told = Told(stop);
                let mut random = Random(seed as u64 + 1);
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    actor(&mut client, &mut random);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    rounds.into_inner()
}

/// Tells the others to stop when its thread panics.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Numbers that repeat from run to run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn texts(raw: &[u8]) -> Vec<Option<Vec<u8>>> {
    Tree::parse(raw).items().iter().map(|item| item.bytes().map(<[u8]>::to_vec)).collect()
}

#[test]
fn several_keys_are_written_and_read_at_once() {
    let server = Server::subject(&["--io-threads", "4"]);
    let keys = ten_keys();
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..3 {
        let keys = keys.clone();
        actors.push(Box::new(move |client, random| {
            let value = random.below(1_000_000).to_string();
            let words: Vec<&str> =
                std::iter::once("MSET").chain(keys.iter().flat_map(|k| [k.as_str(), &value])).collect();
            assert_eq!(client.cmd(&words), b"+OK\r\n");
        }));
        let keys = ten_keys();
        actors.push(Box::new(move |client, _| {
            let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let found = texts(&client.cmd(&words));
            assert!(found.iter().all(|value| *value == found[0]), "torn: {found:?}");
        }));
    }
    // All or none, also where somebody flushes or deletes them all.
    actors.push(Box::new(|client, _| {
        client.cmd(&["FLUSHALL"]);
    }));
    let keys = ten_keys();
    actors.push(Box::new(move |client, _| {
        let words: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
        let reply = client.cmd(&words);
        assert!(reply == b":0\r\n" || reply == b":10\r\n", "{}", reply.escape_ascii());
    }));
    tell(&format!("{} rounds of MSET, MGET, DEL, FLUSHALL", together(&server, actors)));
}

fn ten_keys() -> Vec<String> {
    (0..10).map(|n| format!("key:{n}")).collect()
}

#[test]
fn a_key_that_is_renamed_is_never_missing_nor_there_twice() {
    let server = Server::subject(&["--io-threads", "4"]);
    server.connect().cmd(&["SET", "a", "1"]);
    let mut actors: Vec<Actor> = Vec::new();
    for names in [["a", "b"], ["b", "a"], ["b", "c"], ["c", "a"]] {
        actors.push(Box::new(move |client, _| {
            let reply = client.cmd(&["RENAME", names[0], names[1]]);
            assert!(reply == b"+OK\r\n" || reply == b"-ERR no such key\r\n", "{}", reply.escape_ascii());
        }));
        actors.push(Box::new(|client, _| assert_eq!(client.cmd(&["EXISTS", "a", "b", "c"]), b":1\r\n")));
    }
    together(&server, actors);
}

#[test]
fn databases_are_swapped_at_once() {
    let server = Server::subject(&["--io-threads", "4"]);
    let keys = ten_keys();
    for db in ["0", "1"] {
        let mut client = server.connect();
        client.cmd(&["SELECT", db]);
        let words: Vec<&str> = std::iter::once("MSET").chain(keys.iter().flat_map(|k| [k.as_str(), db])).collect();
        client.cmd(&words);
    }
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..4 {
        let keys = keys.clone();
        actors.push(Box::new(move |client, random| {
            client.cmd(&["SELECT", if random.below(2) == 0 { "0" } else { "1" }]);
            let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let found = texts(&client.cmd(&words));
            assert!(found[0].is_some() && found.iter().all(|value| *value == found[0]), "torn: {found:?}");
        }));
    }
    for _ in 0..2 {
        actors.push(Box::new(|client, _| assert_eq!(client.cmd(&["SWAPDB", "0", "1"]), b"+OK\r\n")));
    }
    together(&server, actors);
}

#[test]
fn random_commands_over_many_keys_on_eight_threads_never_wait_for_ever() {
    let server = Server::subject(&["--io-threads", "8"]);
    let key = |random: &mut Random| format!("key:{}", random.below(64));
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..8 {
        actors.push(Box::new(move |client, random| {
            let keys: Vec<String> = (0..1 + random.below(12)).map(|_| key(random)).collect();
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            let (first, last) = (names[0], names[names.len() - 1]);
            let pairs: Vec<&str> = names.iter().flat_map(|name| [*name, "value"]).collect();
            let words: Vec<&str> = match random.below(20) {
                0 => [&["DEL"], &names[..]].concat(),
                1 => [&["EXISTS"], &names[..]].concat(),
                2 | 3 => [&["MGET"], &names[..]].concat(),
                4 | 5 => [&["MSET"], &pairs[..]].concat(),
                6 => [&["MSETNX"], &pairs[..]].concat(),
                7 => vec!["RENAME", first, last],
                8 => vec!["RENAMENX", first, last],
                9 => vec!["COPY", first, last, "REPLACE"],
                10 => vec!["COPY", first, last, "DB", "1"],
                11 => vec!["MOVE", first, "1"],
                12 => vec!["LCS", first, last],
                13 => vec!["KEYS", "key:1*"],
                14 => vec!["DBSIZE"],
                15 => vec!["RANDOMKEY"],
                16 => vec!["PEXPIRE", first, "3"],
                17 => vec!["SCAN", "0", "COUNT", "100"],
                18 if random.below(10) == 0 => vec!["SWAPDB", "0", "1"],
                19 if random.below(10) == 0 => vec!["FLUSHALL"],
                _ => vec!["APPEND", first, "x"],
            };
            // Alone, or behind others in one batch.
            let batch = 1 + random.below(4) as usize;
            client.send(&request(&words).repeat(batch)).expect("sent");
            for _ in 0..batch {
                let reply = client.reply().unwrap_or_else(|e| panic!("no reply to {words:?}: {e}"));
                let expected = [&b"-ERR no such key"[..], b"-ERR source and destination objects are the same"];
                let known = reply[0] != b'-' || expected.iter().any(|error| reply.starts_with(error));
                assert!(known, "{words:?}: {}", reply.escape_ascii());
            }
        }));
    }
    tell(&format!("{} batches on eight threads", together(&server, actors)));
    assert_eq!(server.connect().cmd(&["PING"]), b"+PONG\r\n");
}

#[test]
fn walks_find_every_key_that_is_there_all_the_time() {
    const STAY: usize = 20_000;
    let server = Server::subject(&["--io-threads", "4"]);
    let mut client = server.connect();
    let numbers: Vec<usize> = (0..STAY).collect();
    for some in numbers.chunks(1000) {
        let all: Vec<u8> = some.iter().flat_map(|n| request(&["SET", &format!("stay:{n}"), "1"])).collect();
        client.send(&all).expect("sent");
        some.iter().for_each(|_| assert_eq!(client.reply().expect("a reply"), b"+OK\r\n"));
    }
    let mut actors: Vec<Actor> = Vec::new();
    // Grows and shrinks, so that tables split and merge meanwhile.
    actors.push(Box::new(|client, random| {
        let round = random.below(1000);
        for name in ["SET", "DEL"] {
            let all: Vec<u8> = (0..2000)
                .flat_map(|n| {
                    let key = format!("goes:{round}:{n}");
                    if name == "SET" { request(&[name, &key, "1"]) } else { request(&[name, &key]) }
                })
                .collect();
            client.send(&all).expect("sent");
            (0..2000).for_each(|_| drop(client.reply().expect("a reply")));
        }
    }));
    let stayed = |found: &BTreeMap<Vec<u8>, usize>| {
        (0..STAY).filter(|n| found.contains_key(format!("stay:{n}").as_bytes())).count()
    };
    actors.push(Box::new(move |client, _| {
        let mut found: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        texts(&client.cmd(&["KEYS", "*"])).into_iter().flatten().for_each(|key| *found.entry(key).or_default() += 1);
        assert_eq!(stayed(&found), STAY);
        assert!(found.values().all(|times| *times == 1), "KEYS names a key once");
    }));
    actors.push(Box::new(move |client, random| {
        let (mut cursor, mut found) = ("0".to_owned(), BTreeMap::new());
        let count = (1 + random.below(3000)).to_string();
        loop {
            let reply = Tree::parse(&client.cmd(&["SCAN", &cursor, "COUNT", &count]));
            let [next, keys] = reply.items() else { panic!("SCAN replies with two") };
            cursor = next.print();
            for key in keys.items() {
                *found.entry(key.bytes().expect("a key").to_vec()).or_default() += 1;
            }
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(stayed(&found), STAY);
    }));
    together(&server, actors);
}

#[test]
fn all_subscribers_hear_all_publishers_in_one_order() {
    const EACH: usize = 2000;
    let server = Server::subject(&["--io-threads", "4"]);
    let subscribers: Vec<Client> = (0..6)
        .map(|n| {
            let mut client = server.connect();
            let request: &[&str] = if n % 2 == 0 { &["SUBSCRIBE", "c"] } else { &["PSUBSCRIBE", "[c]"] };
            client.cmd(request);
            client
        })
        .collect();
    let (heard, counts) = std::thread::scope(|scope| {
        let listeners: Vec<_> = subscribers
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let last = |reply: Vec<u8>| reply.rsplit(|byte| *byte == b'\n').nth(1).map(<[u8]>::to_vec);
                    (0..3 * EACH).map(|_| last(client.reply().expect("it comes")).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        let publishers: Vec<_> = (0..3)
            .map(|n| {
                let mut client = server.connect();
                scope.spawn(move || {
                    let commands: Vec<Vec<String>> =
                        (0..EACH).map(|i| vec!["PUBLISH".into(), "c".into(), format!("{n}:{i}")]).collect();
                    client.pipeline(&commands).expect("it is answered")
                })
            })
            .collect();
        let counts: Vec<Vec<u8>> = publishers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (listeners.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>(), counts)
    });
    assert!(counts.iter().all(|count| count == b":6\r\n"));
    // Who listens by the same topic hears the same.
    for (n, one) in heard.iter().enumerate() {
        assert!(*one == heard[n % 2], "subscriber {n} heard another order");
        for publisher in 0..3 {
            let mark = format!("{publisher}:");
            let own = one.iter().filter(|message| message.starts_with(mark.as_bytes()));
            let expected = (0..EACH).map(|i| format!("{publisher}:{i}\r").into_bytes());
            assert!(own.cloned().eq(expected), "subscriber {n} misses messages of publisher {publisher}");
        }
    }
}

/// Has eight clients do the same over and over while `round` does something else, so many times; returns what they were
/// answered.
fn beside(
    server: &Server,
    words: impl Fn(usize) -> Vec<String> + Sync,
    rounds: usize,
    mut round: impl FnMut(),
) -> Vec<Vec<u8>> {
    let answers = Mutex::new(Vec::new());
    for _ in 0..rounds {
        let begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (answers, begun, words) = (&answers, &begun, &words);
                scope.spawn(move || {
                    let words = words(number);
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let mut client = server.connect();
                    let mut heard = BTreeSet::new();
                    while client.send(&request(&words)).is_ok() {
                        let Ok(answer) = client.reply() else { break };
                        if heard.is_empty() {
                            begun.fetch_add(1, Ordering::Relaxed);
                        }
                        heard.insert(answer);
                    }
                    answers.lock().unwrap().extend(heard);
                });
            }
            while begun.load(Ordering::Relaxed) < 8 {
                std::thread::yield_now();
            }
            round();
        });
    }
    answers.into_inner().unwrap()
}

#[test]
fn who_is_ended_in_a_transaction_sees_nothing_of_it() {
    let server = Server::subject(&["--io-threads", "4"]);
    let mut admin = server.connect();
    let mut transact = |commands: &[&[&str]]| {
        admin.cmd(&["MULTI"]);
        commands.iter().for_each(|words| assert_eq!(admin.cmd(words), b"+QUEUED\r\n"));
        assert!(admin.cmd(&["EXEC"]).starts_with(b"*"));
    };
    let one_each = |number: usize| vec!["INCR".into(), format!("x:{number}")];
    let heard = beside(&server, one_each, 40, || {
        transact(&[&["REPLICAOF", "127.0.0.1", "1"], &["CLIENT", "KILL", "TYPE", "normal"]]);
        transact(&[&["REPLICAOF", "NO", "ONE"]]);
    });
    let wrong = heard.iter().find(|answer| answer.starts_with(b"-"));
    assert_eq!(wrong.map(|answer| String::from_utf8_lossy(answer)), None);
    let flag = |_| vec!["GET".into(), "flag".into()];
    let heard = beside(&server, flag, 40, || {
        transact(&[&["SET", "flag", "1"], &["CLIENT", "KILL", "TYPE", "normal"]]);
        transact(&[&["DEL", "flag"]]);
    });
    assert!(heard.iter().all(|answer| answer == b"$-1\r\n"), "it was seen");
}

#[test]
fn who_is_no_user_any_more_is_told_nothing() {
    let server = Server::subject(&["--io-threads", "4"]);
    let mut admin = server.connect();
    for _ in 0..40 {
        admin.cmd(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all"]);
        let begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = server.connect();
                    assert_eq!(client.cmd(&["AUTH", "bob", "pw"]), b"+OK\r\n");
                    begun.fetch_add(1, Ordering::Relaxed);
                    while client.send(&request(&["GET", "a"])).is_ok() {
                        let Ok(answer) = client.reply() else { break };
                        assert_eq!(answer, b"$-1\r\n");
                    }
                });
            }
            while begun.load(Ordering::Relaxed) < 8 {
                std::thread::yield_now();
            }
            assert_eq!(admin.cmd(&["ACL", "DELUSER", "bob"]), b":1\r\n");
        });
    }
}

#[test]
fn what_a_transaction_configures_for_a_moment_is_seen_by_nobody() {
    let server = Server::subject(&["--io-threads", "4"]);
    let mut admin = server.connect();
    let one_each = |number: usize| vec!["INCR".into(), format!("x:{number}")];
    let heard = beside(&server, one_each, 3, || {
        for _ in 0..100 {
            admin.cmd(&["MULTI"]);
            admin.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
            admin.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
            assert_eq!(admin.cmd(&["EXEC"]), b"*2\r\n+OK\r\n+OK\r\n");
        }
        admin.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    });
    let wrong = heard.iter().find(|answer| answer.starts_with(b"-"));
    assert_eq!(wrong.map(|answer| String::from_utf8_lossy(answer)), None);
}

#[test]
fn nothing_is_written_after_a_pause_was_answered() {
    let server = Server::subject(&["--io-threads", "4"]);
    let mut admin = server.connect();
    let same = |_| vec!["INCR".into(), "x".into()];
    beside(&server, same, 1, || {
        for _ in 0..300 {
            assert_eq!(admin.cmd(&["CLIENT", "PAUSE", "10000", "WRITE"]), b"+OK\r\n");
            let before = admin.cmd(&["GET", "x"]);
            (0..10).for_each(|_| assert_eq!(admin.cmd(&["GET", "x"]), before));
            assert_eq!(admin.cmd(&["CLIENT", "UNPAUSE"]), b"+OK\r\n");
            while admin.cmd(&["GET", "x"]) == before {}
        }
        admin.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
    });
}
