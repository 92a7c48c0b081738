//! Many clients that wait for one key: all that is pushed reaches one of them, and they are served in the order in
//! which they came.
//!
//! `SPINEL_BLOCKED` says how many clients wait, `SPINEL_PUSHES` how many elements are pushed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::client::{Client, request};
use crate::support::reply::Tree;
use crate::support::server::Server;

/// Clients that push at the same time.
const PUSHERS: usize = 20;
/// A thread that waits for replies needs little.
const STACK: usize = 256 * 1024;

fn number(name: &str, or: usize) -> usize {
    std::env::var(name).map_or(or, |s| s.parse().unwrap_or_else(|e| panic!("{name}={s}: {e}")))
}

fn blocked_clients(client: &mut Client) -> usize {
    let info = String::from_utf8_lossy(&client.cmd(&["INFO", "clients"])).into_owned();
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).expect("the field is there");
    line.trim().parse().expect("a number")
}

/// Asks until so many clients are blocked.
fn await_blocked(client: &mut Client, count: usize) {
    while blocked_clients(client) != count {
        thread::yield_now();
    }
}

/// The last string of a reply.
fn element(reply: &[u8]) -> String {
    let tree = Tree::parse(reply);
    let last = tree.items().last().unwrap_or_else(|| panic!("no element: {}", reply.escape_ascii()));
    String::from_utf8_lossy(last.bytes().expect("a string")).into_owned()
}

/// Has clients queue one after the other; who came first gets what comes first, whichever command makes the key ready.
fn served_in_order(wait: &[&str], push: &[&str], told: impl Fn(&[u8]) -> String) {
    let server = Server::subject(&[]);
    let count = number("SPINEL_BLOCKED", 100);
    let mut watcher = server.connect();
    let mut clients: Vec<Client> = (0..count)
        .map(|i| {
            let mut client = server.connect();
            client.send(&request(wait)).expect("the server reads");
            await_blocked(&mut watcher, i + 1);
            client
        })
        .collect();
    // Half of them by one command, the others one by one.
    let score = |i: usize| push.contains(&"ZADD").then(|| i.to_string());
    let args = |i: usize| score(i).into_iter().chain([format!("e{i}")]).collect::<Vec<_>>();
    let mut first: Vec<String> = push.iter().map(|w| (*w).to_owned()).collect();
    let head = first.clone();
    (0..count / 2).for_each(|i| first.extend(args(i)));
    watcher.cmd(&first);
    for i in count / 2..count {
        watcher.cmd(&[head.clone(), args(i)].concat());
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let reply = client.reply().unwrap_or_else(|e| panic!("client {i}: {e}"));
        assert_eq!(told(&reply), format!("e{i}"));
    }
    assert_eq!(blocked_clients(&mut watcher), 0);
    assert_eq!(watcher.cmd(&["DBSIZE"]), b":0\r\n");
}

#[test]
fn clients_that_wait_for_a_list_are_served_in_the_order_they_came() {
    served_in_order(&["BLPOP", "k", "0"], &["RPUSH", "k"], element);
}

#[test]
fn clients_that_wait_for_a_sorted_set_are_served_in_the_order_they_came() {
    served_in_order(&["BZPOPMIN", "none", "k", "0"], &["ZADD", "k"], |reply| {
        let member = Tree::parse(reply).items()[1].bytes().map(<[u8]>::to_vec);
        String::from_utf8_lossy(&member.expect("a member")).into_owned()
    });
}

#[test]
fn who_waits_for_several_keys_overtakes_nobody() {
    let server = Server::subject(&[]);
    let mut watcher = server.connect();
    let mut check = |waits: &[&str], changes: &[&str], replies: &[&[u8]]| {
        let mut clients: Vec<Client> = Vec::new();
        for (i, wait) in waits.iter().enumerate() {
            let mut client = server.connect();
            client.send(&request(&wait.split(' ').collect::<Vec<_>>())).expect("the server reads");
            await_blocked(&mut watcher, i + 1);
            clients.push(client);
        }
        watcher.cmd(&["MULTI"]);
        for change in changes {
            watcher.cmd(&change.split(' ').collect::<Vec<_>>());
        }
        assert!(watcher.cmd(&["EXEC"]).starts_with(b"*"));
        for (client, reply) in clients.iter_mut().zip(replies) {
            assert_eq!(client.reply().expect("it is served"), *reply, "{waits:?}");
        }
        // The others wait on, until they go.
        assert_eq!(blocked_clients(&mut watcher), waits.len() - replies.len());
        drop(clients);
        await_blocked(&mut watcher, 0);
        watcher.cmd(&["FLUSHALL"]);
    };
    check(
        &["BLPOP la 0", "BLPOP lb lc 0", "BLPOP la lb 0"],
        &["RPUSH la 1", "RPUSH lb 2"],
        &[b"*2\r\n$2\r\nla\r\n$1\r\n1\r\n", b"*2\r\n$2\r\nlb\r\n$1\r\n2\r\n"],
    );
    check(
        &["BZPOPMIN z3 0", "BZPOPMAX z2 z3 0", "BZPOPMAX z1 z3 z1 0"],
        &["ZINCRBY z1 1 b", "ZINCRBY z2 1 c", "RENAME z1 z3"],
        &[b"*3\r\n$2\r\nz3\r\n$1\r\nb\r\n$1\r\n1\r\n", b"*3\r\n$2\r\nz2\r\n$1\r\nc\r\n$1\r\n1\r\n"],
    );
}

#[test]
fn each_of_many_elements_reaches_one_of_many_clients_exactly_once() {
    let server = Server::subject(&["--io-threads", "4"]);
    let (waiters, each) = (number("SPINEL_BLOCKED", 100), number("SPINEL_PUSHES", 10_000) / PUSHERS);
    let got: Vec<AtomicUsize> = (0..PUSHERS * each).map(|_| AtomicUsize::new(0)).collect();
    let (server, got) = (&server, &got);
    thread::scope(|scope| {
        for name in 0..waiters {
            let wait = move || {
                let mut client = server.connect();
                let mut last = [None; PUSHERS];
                loop {
                    let told = element(&client.cmd(&["BLPOP", "queue", "0"]));
                    let Some((pusher, n)) = told.split_once(':') else { break };
                    let (pusher, n): (usize, usize) = (pusher.parse().expect("whose"), n.parse().expect("which"));
                    // What one client has pushed comes in its order.
                    assert!(last[pusher] < Some(n), "client {name} got {told} after {:?}", last[pusher]);
                    last[pusher] = Some(n);
                    got[pusher * each + n].fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, wait).expect("a thread");
        }
        await_blocked(&mut server.connect(), waiters);
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                scope.spawn(move || {
                    let mut client = server.connect();
                    for n in 0..each {
                        client.cmd(&["RPUSH", "queue", &format!("{pusher}:{n}")]);
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().expect("it has pushed");
        }
        let mut client = server.connect();
        (0..waiters).for_each(|_| _ = client.cmd(&["RPUSH", "queue", "end"]));
    });
    for (i, count) in got.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 1, "deliveries of element {} of client {}", i % each, i / each);
    }
    assert_eq!(server.connect().cmd(&["EXISTS", "queue"]), b":0\r\n");
}

#[test]
fn who_has_ended_a_wait_finds_it_counted() {
    let server = Server::subject(&["--io-threads", "2"]);
    let mut client = server.connect();
    let mut waiting: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for round in 1..=200 {
        let one = &mut waiting[round % 4];
        let id = String::from_utf8_lossy(&one.cmd(&["CLIENT", "ID"])).trim().trim_start_matches(':').to_owned();
        one.send(&crate::support::client::request(&["BLPOP", "key", "0"])).expect("the server reads");
        await_blocked(&mut client, 1);
        assert_eq!(client.cmd(&["CLIENT", "UNBLOCK", &id]), b":1\r\n");
        assert_eq!(blocked_clients(&mut client), 0);
        let stats = String::from_utf8_lossy(&client.cmd(&["INFO", "commandstats"])).into_owned();
        assert!(stats.contains(&format!("cmdstat_blpop:calls={round},")), "{stats}");
        assert_eq!(waiting[round % 4].reply().expect("the server answers"), b"*-1\r\n");
    }
}
