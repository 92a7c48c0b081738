//! Clients that ask for too much, read too slowly, or come in too great numbers: what they get, and
//! that others do not notice.
//!
//! Where a limit is reached the test says what is closed; where memory was taken it must come back.

use std::io;
use std::time::{Duration, Instant};

use crate::support::client::{Client, closed, request};
use crate::support::server::Server;
use crate::support::watch::{eventually, figure, rss_bytes, used_memory};

const MB: usize = 1 << 20;

/// A value that is sent by reference.
fn value(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Whether the server has closed this connection: everything it sent before is read.
fn is_closed(client: &mut Client) -> bool {
    match client.last_words() {
        Ok(_) => true,
        Err(error) if closed(&error) => true,
        Err(error) => panic!("neither data nor an end: {error}"),
    }
}

/// The number that CLIENT ID answers.
fn id(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.cmd(&["CLIENT", "ID"])).trim_start_matches(':').trim_end().to_owned()
}

#[test]
fn who_does_not_read_is_closed_at_the_hard_limit() {
    let server = Server::subject(&["--client-output-buffer-limit", "normal", "1mb", "0", "0"]);
    let mut good = server.connect();
    good.cmd(&[b"SET".as_slice(), b"large", &value(MB / 2)]);
    let mut slow = server.connect();
    // It is counted from here on.
    slow.cmd(&["PING"]);
    // More than the sockets' buffers take.
    slow.send(&request(&["GET", "large"]).repeat(64)).expect("requests are small");
    eventually("the slow client is gone", || figure(&mut good, "connected_clients") == 1);
    assert_eq!(figure(&mut good, "client_output_buffer_limit_disconnections"), 1);
    assert!(is_closed(&mut slow));
    assert!(server.logs("output buffer limits"));
    // One reply below the limit is no offence.
    assert_eq!(good.cmd(&["GET", "large"]).len(), MB / 2 + 11);
}

#[test]
fn who_does_not_read_for_too_long_is_closed_at_the_soft_limit_even_if_nothing_else_happens() {
    let server = Server::subject(&["--client-output-buffer-limit", "normal", "0", "1mb", "1"]);
    let mut good = server.connect();
    good.cmd(&[b"SET".as_slice(), b"large", &value(MB / 2)]);
    let mut slow = server.connect();
    slow.cmd(&["PING"]);
    let began = Instant::now();
    slow.send(&request(&["GET", "large"]).repeat(64)).expect("requests are small");
    eventually("the slow client is gone", || figure(&mut good, "connected_clients") == 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "closed after {:?}", began.elapsed());
    // As much, but read: allowed.
    let mut quick = server.connect();
    quick.send(&request(&["GET", "large"]).repeat(64)).expect("requests are small");
    for _ in 0..64 {
        assert_eq!(quick.reply().expect("it reads").len(), MB / 2 + 11);
    }
}

#[test]
fn who_follows_monitor_and_does_not_read_is_held_to_the_limit_of_replicas() {
    let server = Server::subject(&["--client-output-buffer-limit", "replica", "1mb", "0", "0"]);
    let mut good = server.connect();
    let mut monitor = server.connect();
    assert_eq!(monitor.cmd(&["MONITOR"]), b"+OK\r\n");
    let large = value(MB / 4);
    for _ in 0..200 {
        good.cmd(&[b"SET".as_slice(), b"large", &large]);
        if figure(&mut good, "connected_clients") == 1 {
            break;
        }
    }
    eventually("the monitor is gone", || figure(&mut good, "connected_clients") == 1);
    assert!(is_closed(&mut monitor));
}

#[test]
fn a_subscriber_that_does_not_read_is_held_to_the_limit_of_pubsub() {
    let server = Server::subject(&["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"]);
    let mut good = server.connect();
    let mut slow = server.connect();
    assert_eq!(slow.cmd(&["SUBSCRIBE", "c"]), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let large = value(MB / 4);
    let gone = (0..200).any(|_| good.cmd(&[b"PUBLISH".as_slice(), b"c", &large]) == b":0\r\n");
    assert!(gone, "nobody ended it");
    eventually("the subscriber is gone", || figure(&mut good, "connected_clients") == 1);
    assert!(is_closed(&mut slow));
    assert_eq!(figure(&mut good, "pubsub_channels"), 0);
}

#[test]
fn a_request_beyond_the_query_buffer_limit_closes_its_connection() {
    let server = Server::subject(&["--client-query-buffer-limit", "1mb"]);
    let mut good = server.connect();
    let mut greedy = server.connect();
    // The server may close in the middle of it.
    let _ = greedy.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4194304\r\n");
    let _ = greedy.send(&value(3 * MB));
    assert!(is_closed(&mut greedy));
    assert!(server.logs("max query buffer length"));
    assert_eq!(figure(&mut good, "client_query_buffer_limit_disconnections"), 1);
    assert_eq!(good.cmd(&["EXISTS", "k"]), b":0\r\n");
}

#[test]
fn what_is_queued_counts_in_the_query_buffer_limit() {
    let server = Server::subject(&["--client-query-buffer-limit", "1mb"]);
    let mut good = server.connect();
    let mut greedy = server.connect();
    let large = value(100_000);
    // What is discarded counts no more.
    for _ in 0..2 {
        assert_eq!(greedy.cmd(&["MULTI"]), b"+OK\r\n");
        for _ in 0..9 {
            assert_eq!(greedy.cmd(&[b"SET".as_slice(), b"k", &large]), b"+QUEUED\r\n");
        }
        assert_eq!(greedy.cmd(&["DISCARD"]), b"+OK\r\n");
    }
    assert_eq!(greedy.cmd(&["MULTI"]), b"+OK\r\n");
    for _ in 0..20 {
        // The server may close in the middle of it.
        let _ = greedy.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n");
        let _ = greedy.send(&large);
        let _ = greedy.send(b"\r\n");
    }
    assert!(is_closed(&mut greedy));
    assert_eq!(figure(&mut good, "client_query_buffer_limit_disconnections"), 1);
    assert_eq!(good.cmd(&["EXISTS", "k"]), b":0\r\n");
}

#[test]
fn what_a_header_promises_reserves_nothing() {
    const CLIENTS: usize = 200;
    let server = Server::subject(&[]);
    let mut good = server.connect();
    let before = (used_memory(&mut good), rss_bytes(&mut good));
    let promises = ["*1048576\r\n", "*1048576\r\n$536870912\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc"];
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|i| {
            let mut client = server.connect();
            // In pieces, so that both ways of reading meet it.
            let (head, tail) = promises[i % promises.len()].split_at(9);
            client.send(head.as_bytes()).expect("sent");
            client.send(tail.as_bytes()).expect("sent");
            client
        })
        .collect();
    let sent: usize = (0..CLIENTS).map(|i| promises[i % promises.len()].len()).sum();
    eventually("all of it has arrived", || {
        figure(&mut good, "total_net_input_bytes") as usize >= sent && figure(&mut good, "connected_clients") == 201
    });
    let after = (used_memory(&mut good), rss_bytes(&mut good));
    let each = (after.0 - before.0) / CLIENTS as i64;
    assert!(each < 48 * 1024, "{each} bytes each");
    assert!(after.1 - before.1 < 64 * MB as i64, "{} bytes resident", after.1 - before.1);
    drop(clients);
    eventually("all are gone", || figure(&mut good, "connected_clients") == 1);
    assert!(used_memory(&mut good) - before.0 < 256 * 1024);
}

#[test]
fn a_hundred_thousand_requests_in_one_write_are_answered_in_order() {
    const REQUESTS: usize = 100_000;
    let server = Server::subject(&[]);
    let (mut sender, mut reader) = server.connect().split().expect("a socket can be duplicated");
    let all: Vec<u8> = (0..REQUESTS).flat_map(|n| request(&["ECHO", &n.to_string()])).collect();
    let sending = std::thread::spawn(move || sender.send(&all).map(|()| sender));
    for n in 0..REQUESTS {
        let text = n.to_string();
        assert_eq!(reader.reply().expect("a reply"), format!("${}\r\n{text}\r\n", text.len()).as_bytes());
    }
    sending.join().expect("the sender ends").expect("all was sent");
}

#[test]
fn a_reply_by_reference_is_what_was_there_when_it_was_asked_for() {
    let large = value(100 * MB);
    let server = Server::subject(&[]);
    let mut other = server.connect();
    let before = used_memory(&mut other);
    assert_eq!(other.cmd(&[b"SET".as_slice(), b"large", &large]), b"+OK\r\n");
    for change in [
        &[b"SET".as_slice(), b"large", b"small"][..],
        &[b"SETRANGE", b"large", b"5", b"changed"],
        &[b"APPEND", b"large", b"more"],
        &[b"DEL", b"large"],
        &[b"FLUSHALL"],
    ] {
        other.cmd(&[b"SET".as_slice(), b"large", &large]);
        let mut slow = server.connect();
        slow.patience(Duration::from_secs(60)).expect("a socket");
        let so_far = figure(&mut other, "total_net_output_bytes");
        slow.send(&request(&["GET", "large"])).expect("sent");
        // Only what the sockets hold leaves the server; the rest waits there.
        eventually("the reply is on its way", || figure(&mut other, "total_net_output_bytes") - so_far > 1_000_000);
        other.cmd(change);
        let got = slow.reply().expect("the whole reply");
        assert!(got[..12] == *b"$104857600\r\n" && got[12..got.len() - 2] == large[..], "the reply is untouched");
    }
    other.cmd(&["FLUSHALL"]);
    eventually("its memory is given back", || used_memory(&mut other) - before < MB as i64);
}

#[test]
fn who_has_said_all_still_gets_every_reply() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    client.cmd(&[b"SET".as_slice(), b"large", &value(MB)]);
    client.send(&request(&["GET", "large"]).repeat(30)).expect("sent");
    client.send(&request(&["KEYS", "*"])).expect("sent");
    client.finish().expect("a socket");
    for _ in 0..30 {
        assert_eq!(client.reply().expect("a reply").len(), MB + 12);
    }
    assert_eq!(client.reply().expect("a reply"), b"*1\r\n$5\r\nlarge\r\n");
    let end = client.reply().expect_err("nothing follows");
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_client_that_is_killed_in_the_middle_of_a_reply_gets_no_more_of_it() {
    let server = Server::subject(&[]);
    let mut other = server.connect();
    let before = used_memory(&mut other);
    other.cmd(&[b"SET".as_slice(), b"large", &value(64 * MB)]);
    for finish in [false, true] {
        let mut slow = server.connect();
        let mine = id(&mut slow);
        slow.send(&request(&["GET", "large"])).expect("sent");
        if finish {
            slow.finish().expect("a socket");
        }
        let reply = other.cmd(&["CLIENT", "KILL", "ID", &mine]);
        assert_eq!(reply, b":1\r\n");
        let (got, _) = slow.last_words().expect("an end");
        assert!(got.len() < 64 * MB, "{} bytes", got.len());
    }
    other.cmd(&["DEL", "large"]);
    eventually("nobody holds the value", || used_memory(&mut other) - before < MB as i64);
}

#[test]
fn no_more_than_maxclients_are_let_in() {
    let server = Server::subject(&["--maxclients", "5"]);
    let mut held: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n"));
    let mut sixth = server.connect();
    assert_eq!(sixth.rest().expect("an end"), b"-ERR max number of clients reached\r\n");
    assert_eq!(figure(&mut held[0], "rejected_connections"), 1);
    held.pop();
    eventually("there is room again", || {
        let mut next = server.connect();
        next.ask(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n")
    });
}

#[test]
fn idle_clients_are_closed_after_the_timeout_and_busy_ones_are_not() {
    let server = Server::subject(&["--timeout", "1"]);
    let (mut idle, mut busy, mut monitor) = (server.connect(), server.connect(), server.connect());
    assert_eq!(idle.cmd(&["PING"]), b"+PONG\r\n");
    assert_eq!(monitor.cmd(&["MONITOR"]), b"+OK\r\n");
    let began = Instant::now();
    eventually("the idle one is gone", || figure(&mut busy, "connected_clients") == 2);
    assert!(began.elapsed() >= Duration::from_millis(900), "closed after {:?}", began.elapsed());
    assert!(is_closed(&mut idle));
    assert_eq!(busy.cmd(&["PING"]), b"+PONG\r\n");
    assert!(monitor.reply().is_ok(), "who follows MONITOR is not idle");
}

#[test]
fn thousands_that_come_and_go_leave_nothing_behind() {
    let server = Server::subject(&[]);
    let mut stays = server.connect();
    let come_and_go = |times: usize| {
        for i in 0..times {
            let mut client = server.connect();
            match i % 4 {
                0 => drop(client.cmd(&["CLIENT", "SETNAME", "visitor"])),
                1 => client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nhalf").expect("sent"),
                2 => drop(client.cmd(&["MONITOR"])),
                _ => {}
            }
        }
    };
    come_and_go(200);
    eventually("all are gone", || figure(&mut stays, "connected_clients") == 1);
    let before = used_memory(&mut stays);
    come_and_go(4000);
    eventually("all are gone", || figure(&mut stays, "connected_clients") == 1);
    eventually("their memory is given back", || used_memory(&mut stays) - before < 32 * 1024);
    assert_eq!(stays.cmd(&["CLIENT", "LIST"]).iter().filter(|byte| **byte == b'\n').count(), 3);
}

#[test]
fn shutdown_under_load_ends_the_process_and_every_connection() {
    let mut server = Server::subject(&["--io-threads", "4"]);
    let addr = server.addr();
    let load: Vec<_> = (0..8)
        .map(|n| {
            let mut client = Client::tcp(addr).expect("connected");
            std::thread::spawn(move || {
                let mut served = 0u64;
                for i in 0.. {
                    let (key, value) = (format!("key:{n}:{i}"), "x".repeat(100));
                    let batch = [["SET", &key, &value], ["SET", &value, &key]].map(|words| words.to_vec());
                    match client.pipeline(&batch) {
                        Ok(_) => served += 1,
                        Err(error) if closed(&error) => break,
                        Err(error) => panic!("neither a reply nor an end: {error}"),
                    }
                }
                served
            })
        })
        .collect();
    let mut admin = server.connect();
    eventually("the load runs", || figure(&mut admin, "total_commands_processed") > 5000);
    admin.send(&request(&["SHUTDOWN", "NOSAVE"])).expect("sent");
    assert!(is_closed(&mut admin));
    for client in load {
        assert!(client.join().expect("it saw an end") > 0);
    }
    eventually("the process is gone", || !server.alive());
    assert!(server.logs("bye bye"));
}

/// A connection that has sent all but the end of an argument of so many bytes.
fn filled(server: &Server, bytes: usize) -> Client {
    let mut client = server.connect();
    client.send(format!("*2\r\n$3\r\nGET\r\n${bytes}\r\n").as_bytes()).expect("a header");
    client.send(&value(bytes)).expect("the sockets take it, for the server reads");
    client
}

#[test]
fn the_largest_clients_go_when_all_together_take_too_much() {
    let server = Server::subject(&["--maxmemory-clients", "6mb"]);
    let mut control = server.connect();
    control.cmd(&["CLIENT", "NO-EVICT", "on"]);
    let _small: Vec<Client> = (0..3).map(|_| filled(&server, 200_000)).collect();
    let mut medium = filled(&server, MB);
    let mut large = filled(&server, 3 * MB);
    eventually("all is there", || figure(&mut control, "mem_clients_normal") > 4_700_000);
    assert_eq!(figure(&mut control, "connected_clients"), 6);
    // One more of the largest is too many: the older of the two goes.
    let mut another = filled(&server, 3 * MB);
    assert!(is_closed(&mut large));
    assert_eq!(figure(&mut control, "evicted_clients"), 1);
    assert!(server.logs("Evicting client: id="));
    // A lower limit is followed at once.
    assert_eq!(control.cmd(&["CONFIG", "SET", "maxmemory-clients", "1mb"]), b"+OK\r\n");
    assert_eq!(figure(&mut control, "connected_clients"), 4);
    assert!(is_closed(&mut another) && is_closed(&mut medium));
    // As a share of the memory for data, which is none without a limit of that.
    assert_eq!(control.cmd(&["CONFIG", "SET", "maxmemory-clients", "10%"]), b"+OK\r\n");
    assert_eq!(figure(&mut control, "connected_clients"), 4);
    assert_eq!(control.cmd(&["CONFIG", "SET", "maxmemory", "5mb"]), b"+OK\r\n");
    assert_eq!(figure(&mut control, "connected_clients"), 3, "the limit follows that of the data");
    // Who spares others is not spared itself.
    assert_eq!(control.cmd(&["CLIENT", "NO-EVICT", "off"]), b"+OK\r\n");
    control.send(b"*2\r\n$3\r\nGET\r\n$50000000\r\n").expect("a header");
    // The server may be gone before all is sent.
    let _ = control.send(&value(MB));
    assert!(is_closed(&mut control));
}

#[test]
fn who_queues_watches_or_follows_too_much_goes() {
    let server = Server::subject(&["--maxmemory-clients", "300kb"]);
    let mut control = server.connect();
    control.cmd(&["CLIENT", "NO-EVICT", "on"]);
    let mut gone = 0;
    let long = "x".repeat(20_000);
    for words in [&["SET", "a", &long][..], &["WATCH"], &["SUBSCRIBE"], &["PSUBSCRIBE"], &["CLIENT", "TRACKING"]] {
        let mut client = server.connect();
        let ended = (0..20_000).find(|n| {
            let name = format!("{n:05}");
            let request = match words[0] {
                "SET" if *n == 0 => vec!["MULTI"],
                "SET" => words.to_vec(),
                "CLIENT" => vec!["CLIENT", "TRACKING", "on", "BCAST", "PREFIX", &name],
                command => vec![command, &name],
            };
            client.ask(&request).is_err()
        });
        assert!(ended.is_some(), "{words:?}");
        gone += 1;
        assert_eq!(figure(&mut control, "evicted_clients"), gone, "{words:?}");
    }
}
