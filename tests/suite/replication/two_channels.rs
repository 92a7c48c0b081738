//! Data sets that come by a connection of their own: the replica keeps the stream meanwhile, and a link is whole or none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::client::{Client, request};
use crate::support::server::Server;
use crate::support::watch::{eventually, figure, info};

/// What both sides are told.
const TWO: &[&str] = &["--dual-channel-replication-enabled", "yes", "--repl-diskless-sync-delay", "0"];

/// A primary whose data sets take minutes to make, unless it is told to [`hurry`], and a client of it.
fn slow_primary(more: &[&str]) -> (Server, Client) {
    let primary = Server::subject(&[TWO, more].concat());
    let mut client = primary.connect();
    client.cmd(&["DEBUG", "POPULATE", "2000", "key", "100"]);
    client.cmd(&["CONFIG", "SET", "rdb-key-save-delay", "100000"]);
    (primary, client)
}

/// Has the data set be made at once.
fn hurry(primary: &mut Client) {
    super::ok(&primary.cmd(&["CONFIG", "SET", "rdb-key-save-delay", "0"]));
}

/// Has a server follow another, and waits until both connections are there.
fn begin(replica: &mut Client, primary: &Server, client: &mut Client) {
    super::ok(&replica.cmd(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]));
    both(client);
}

/// Waits until a replica has both connections.
fn both(primary: &mut Client) {
    eventually("both connections are there", || {
        let told = String::from_utf8_lossy(&primary.cmd(&["INFO", "replication"])).into_owned();
        let has = |state: &str, kind: &str| {
            told.lines().any(|line| line.contains(&format!("state={state},")) && line.ends_with(kind))
        };
        has("bg_transfer", "type=main-channel") && has("wait_bgsave", "type=rdb-channel")
    });
}

/// The number of the client that asked by this command last.
fn number_of(primary: &mut Client, command: &str) -> String {
    let list = String::from_utf8_lossy(&primary.cmd(&["CLIENT", "LIST"])).into_owned();
    let line = list.lines().find(|line| line.contains(&format!("cmd={command} "))).expect("it is there");
    line.split_once("id=").and_then(|(_, rest)| rest.split(' ').next()).expect("it has a number").to_owned()
}

#[test]
fn the_stream_waits_at_the_replica_and_not_at_the_primary() {
    for load in ["disabled", "swapdb"] {
        let (primary, mut client) = slow_primary(&["--repl-backlog-size", "100kb"]);
        let server = Server::subject(&[TWO, &["--repl-diskless-load", load]].concat());
        let mut replica = server.connect();
        client.cmd(&["SELECT", "3"]);
        begin(&mut replica, &primary, &mut client);
        let value = "v".repeat(10_000);
        for n in 0..500 {
            client.cmd(&["SET", &format!("new:{n}"), &value]);
        }
        // What came along with the answer to PSYNC is not counted.
        eventually("the replica has it", || figure(&mut replica, "replicas_repl_buffer_size") > 4_900_000);
        assert!(figure(&mut client, "mem_total_replication_buffers") < 1_000_000);
        assert_eq!(info(&mut replica, "master_sync_in_progress"), "1");
        hurry(&mut client);
        super::linked(&mut replica);
        super::assert_equal(&mut client, &mut replica, load);
        assert_eq!(replica.cmd(&["DBSIZE"]), b":2000\r\n");
        let figures = ["sync_full", "sync_partial_ok", "replicas_waiting_psync", "connected_slaves"];
        assert_eq!(figures.map(|name| figure(&mut client, name)), [1, 1, 0, 1]);
        let buffer = ["replicas_repl_buffer_size", "replicas_repl_buffer_peak"].map(|name| figure(&mut replica, name));
        assert!(buffer[0] == 0 && buffer[1] > 4_900_000, "{buffer:?}");
    }
}

#[test]
fn what_a_replica_may_not_keep_waits_at_the_primary() {
    let (primary, mut client) = slow_primary(&[]);
    let server = Server::subject(TWO);
    let mut replica = server.connect();
    replica.cmd(&["CONFIG", "SET", "client-output-buffer-limit", "replica 16384 0 0"]);
    begin(&mut replica, &primary, &mut client);
    let value = "v".repeat(10_000);
    // More than sockets hold.
    for n in 0..2000 {
        client.cmd(&["SET", &format!("new:{n}"), &value]);
    }
    eventually("it is full", || server.logs("Replication buffer limit reached, stopping buffering."));
    assert_eq!(figure(&mut replica, "replicas_repl_buffer_size"), 16384);
    eventually("the primary has the rest", || figure(&mut client, "mem_total_replication_buffers") > 2_000_000);
    hurry(&mut client);
    super::linked(&mut replica);
    super::assert_equal(&mut client, &mut replica, "a little buffer");
}

#[test]
fn where_one_of_the_two_ends_the_link_begins_anew() {
    let (primary, mut client) = slow_primary(&[]);
    let server = Server::subject(TWO);
    let mut replica = server.connect();
    begin(&mut replica, &primary, &mut client);
    for command in ["sync", "psync"] {
        let syncs = figure(&mut client, "sync_full");
        let ended = number_of(&mut client, command);
        assert_eq!(client.cmd(&["CLIENT", "KILL", "ID", &ended]), b":1\r\n");
        eventually("another begins", || figure(&mut client, "sync_full") > syncs);
        both(&mut client);
    }
    assert!(primary.logs("Background RDB transfer error"));
    hurry(&mut client);
    super::linked(&mut replica);
    super::assert_equal(&mut client, &mut replica, "after three data sets");
    // The next data set comes the usual way where it is to.
    replica.cmd(&["REPLICAOF", "NO", "ONE"]);
    replica.cmd(&["SET", "own", "1"]);
    replica.cmd(&["CONFIG", "SET", "dual-channel-replication-enabled", "no"]);
    let partial = figure(&mut client, "sync_partial_ok");
    super::follow(&mut replica, &primary);
    assert_eq!(figure(&mut client, "sync_partial_ok"), partial);
    super::assert_equal(&mut client, &mut replica, "by one connection");
}

/// Asks for a data set as a second connection does, and reads all of it until the primary closes; returns the name of the stream,
/// the offset, and the connection's number.
fn read_second(primary: &Server) -> (String, u64, String) {
    let link = TcpStream::connect(primary.addr()).unwrap();
    let mut link = BufReader::new(link);
    link.get_mut().write_all(&request(&["REPLCONF", "capa", "eof", "rdb-only", "1", "rdb-channel", "1"])).unwrap();
    let mut line = String::new();
    link.read_line(&mut line).unwrap();
    assert_eq!(line, "+OK\r\n");
    link.get_mut().write_all(&request(&["SYNC"])).unwrap();
    while !line.starts_with("$ENDOFF:") {
        assert!(!line.starts_with('-'), "{line}");
        line.clear();
        link.read_line(&mut line).unwrap();
    }
    let words: Vec<&str> = line["$ENDOFF:".len()..].split_ascii_whitespace().collect();
    assert_eq!(words[2], "-1", "the stream itself says which database it is of");
    let mut rest = Vec::new();
    link.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"$EOF:") && rest[45..].starts_with(b"\r\nREDIS"), "{}", rest.escape_ascii());
    (words[1].to_owned(), words[0].parse().unwrap(), words[3].to_owned())
}

#[test]
fn the_stream_is_held_for_who_asks_late_and_not_for_ever() {
    let primary = Server::subject(&[TWO, &["--repl-backlog-size", "16kb"]].concat());
    let mut client = primary.connect();
    let (id, offset, number) = read_second(&primary);
    eventually("it has ended", || figure(&mut client, "connected_slaves") == 0);
    assert_eq!(figure(&mut client, "replicas_waiting_psync"), 1);
    let value = "v".repeat(1000);
    for n in 0..100 {
        client.cmd(&["SET", &format!("new:{n}"), &value]);
    }
    let mut first = primary.connect();
    assert_eq!(first.cmd(&["REPLCONF", "set-rdb-client-id", "12345"]), b"-ERR Unrecognized RDB client id 12345\r\n");
    assert_eq!(first.cmd(&["REPLCONF", "set-rdb-client-id", &number]), b"+OK\r\n");
    first.send(&request(&["PSYNC", &id, &(offset + 1).to_string()])).unwrap();
    assert_eq!(first.reply().unwrap(), b"+CONTINUE\r\n");
    eventually("it is attached", || figure(&mut client, "replicas_waiting_psync") == 0);
    assert_eq!(first.reply().unwrap(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n");
    assert!(first.reply().unwrap().starts_with(b"*3\r\n$3\r\nSET\r\n$5\r\nnew:0\r\n"));
    assert!(info(&mut client, "slave0").contains("state=bg_transfer,"));
    first.send(&request(&["REPLCONF", "ACK", "0"])).unwrap();
    eventually("it is online", || info(&mut client, "slave0").contains("state=online,"));

    client.cmd(&["DEBUG", "DELAY-RDB-CLIENT-FREE-SECONDS", "0"]);
    let (_, _, number) = read_second(&primary);
    eventually("it is given up", || {
        primary.logs("Replica main channel failed to establish PSYNC within the grace period (0 seconds).")
    });
    assert_eq!(figure(&mut client, "replicas_waiting_psync"), 0);
    let answer = primary.connect().cmd(&["REPLCONF", "set-rdb-client-id", &number]);
    assert!(answer.starts_with(b"-ERR Unrecognized RDB client id"), "{}", answer.escape_ascii());
}

/// Where a primary is to be played, and a replica that follows it.
fn followed() -> (TcpListener, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::subject(TWO);
    let port = listener.local_addr().unwrap().port();
    super::ok(&server.connect().cmd(&["REPLICAOF", "127.0.0.1", &port.to_string()]));
    (listener, server)
}

/// Speaks as a primary that offers a second connection, up to the line that asks for data; returns what it is.
fn offer(listener: &TcpListener) -> (TcpStream, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut said = String::new();
    loop {
        let line = lines.next().unwrap().unwrap();
        said.push_str(&line);
        said.push(' ');
        match &*line {
            "PING" => (&stream).write_all(b"+PONG\r\n").unwrap(),
            "rdb-channel" => {
                (&stream).write_all(b"-ERR Unrecognized REPLCONF option: rdb-channel\r\n").unwrap();
                return (stream, said);
            }
            // A second connection says no PING.
            "REPLCONF" if said.contains("PING") => (&stream).write_all(b"+OK\r\n").unwrap(),
            "PSYNC" => return (stream, said),
            _ => {}
        }
    }
}

#[test]
fn a_primary_that_understands_no_second_connection_is_asked_for_none_again() {
    let (listener, _server) = followed();
    let (mut first, said) = offer(&listener);
    assert!(said.contains("dual-channel"), "{said}");
    first.write_all(b"+DUALCHANNELSYNC\r\n").unwrap();
    let (_second, said) = offer(&listener);
    assert!(said.contains("rdb-only"), "{said}");
    let (_again, said) = offer(&listener);
    assert!(said.contains("psync2") && !said.contains("dual-channel"), "{said}");
}

/// Reads until these words have come.
fn read_until(link: &mut TcpStream, words: &str) {
    let (mut said, mut piece) = (Vec::new(), [0; 1000]);
    while !String::from_utf8_lossy(&said).contains(words) {
        let n = link.read(&mut piece).unwrap();
        assert_ne!(n, 0, "{}", said.escape_ascii());
        said.extend_from_slice(&piece[..n]);
    }
}

#[test]
fn a_database_that_is_not_there_is_no_end_of_a_replica() {
    let file = super::hostile::good_file();
    let (listener, server) = followed();
    let mut replica = server.connect();
    let (mut first, _) = offer(&listener);
    first.write_all(b"+DUALCHANNELSYNC\r\n").unwrap();
    let (mut second, _) = listener.accept().unwrap();
    read_until(&mut second, "listening-port");
    second.write_all(b"+OK\r\n").unwrap();
    read_until(&mut second, "SYNC");
    let id = "0123456789abcdef0123456789abcdef01234567";
    second.write_all(format!("$ENDOFF:100 {id} 9000000000000000000 7\r\n${}\r\n", file.len()).as_bytes()).unwrap();
    second.write_all(&file).unwrap();
    read_until(&mut first, "set-rdb-client-id\r\n$1\r\n7\r\n");
    first.write_all(b"+OK\r\n").unwrap();
    read_until(&mut first, &format!("PSYNC\r\n$40\r\n{id}\r\n$3\r\n101\r\n"));
    first.write_all(b"+CONTINUE\r\n").unwrap();
    first.write_all(&request(&["SET", "a", "1"])).unwrap();
    super::linked(&mut replica);
    eventually("what it was sent is there", || info(&mut replica, "db15").contains("keys=1"));
    assert_eq!(replica.cmd(&["EXISTS", "theirs"]), b":1\r\n");
}

#[test]
fn a_second_connection_has_to_read_what_ends_by_a_mark() {
    let primary = Server::subject(TWO);
    let mut link = primary.connect();
    assert_eq!(link.cmd(&["REPLCONF", "rdb-channel", "1"]), b"+OK\r\n");
    assert_eq!(link.cmd(&["SYNC"]), b"-ERR Filtered replica requires EOF capability\r\n");
}

#[test]
fn a_replica_that_loads_for_long_is_heard_by_its_empty_lines() {
    let primary = Server::subject(&[super::AT_ONCE, &["--repl-timeout", "1"]].concat());
    let mut client = primary.connect();
    let mut link = primary.connect();
    assert_eq!(link.cmd(&["REPLCONF", "capa", "eof"]), b"+OK\r\n");
    link.send(&request(&["PSYNC", "?", "-1"])).unwrap();
    eventually("it has the data set", || info(&mut client, "slave0").contains("state=online"));
    // Three times as long as nothing may be heard of it.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        link.send(b"\n").unwrap();
        let told = info(&mut client, "slave0");
        assert!(told.contains("state=online") && told.contains("lag=0"), "{told}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    eventually("and is not, when there are none", || figure(&mut client, "connected_slaves") == 0);
    assert!(primary.logs("Disconnecting timedout replica (streaming sync)"));
}
