//! Primaries that send what they should not, or go in the midst of it: what a replica had before it keeps, and goes on
//! with where that is possible. And replicas that are slow, or ask for what they may not have.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::server::Server;
use crate::support::watch::{eventually, info};

/// A replication id.
const ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// Speaks as a primary up to PSYNC; returns the link and what was asked for.
fn greet(listener: &TcpListener) -> (TcpStream, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut next = || loop {
        let line = lines.next().unwrap().unwrap();
        if !line.is_empty() && !line.starts_with(['*', '$']) {
            return line;
        }
    };
    loop {
        match &*next() {
            "PING" => (&stream).write_all(b"+PONG\r\n").unwrap(),
            "REPLCONF" => (&stream).write_all(b"+OK\r\n").unwrap(),
            "PSYNC" => return (stream, format!("{} {}", next(), next())),
            _ => {}
        }
    }
}

/// A file that Spinel wrote, with one key.
pub fn good_file() -> Vec<u8> {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    client.cmd(&["SET", "theirs", &"x".repeat(100_000)]);
    client.cmd(&["CONFIG", "SET", "rdbcompression", "no"]);
    assert_eq!(client.cmd(&["SAVE"]), b"+OK\r\n");
    std::fs::read(server.dir().join("dump.rdb")).unwrap()
}

/// What a primary sends for a whole data set of these bytes.
fn full(data: &[u8]) -> Vec<u8> {
    [format!("+FULLRESYNC {ID} 1000\r\n${}\r\n", data.len()).as_bytes(), data].concat()
}

#[test]
fn a_broken_data_set_is_refused_and_the_old_one_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let good = good_file();
    let mut flipped = good.clone();
    flipped[50_000] ^= 1;
    let mut strange = good.clone();
    strange[4] = b'!';
    let spent = good.len() / 2;
    for load in ["disabled", "swapdb"] {
        let replica = Server::subject(&["--repl-diskless-load", load]);
        let mut ours = replica.connect();
        ours.cmd(&["SET", "ours", "1"]);
        assert_eq!(ours.cmd(&["REPLICAOF", "127.0.0.1", &port]), b"+OK\r\n");
        let broken: [(&str, Vec<u8>); 4] = [
            ("a sum that is wrong", full(&flipped)),
            ("no such file at all", full(&strange)),
            ("an end in its midst", full(&good[..spent])),
            ("a link that is cut", full(&good)[..spent].to_vec()),
        ];
        for (what, bytes) in broken {
            let (mut link, asked) = greet(&listener);
            assert!(!asked.starts_with('?'), "{what}: what it has is good as long as it is there, it asked {asked}");
            link.write_all(&bytes).unwrap();
            if bytes.len() < good.len() {
                drop(link);
            } else {
                // It ends the link itself.
                let mut end = Vec::new();
                let _ = std::io::Read::read_to_end(&mut link, &mut end);
            }
            // While it reads what has nothing to do with what it has, it answers nobody.
            let mut answer = |words: &[&str]| {
                let mut reply = Vec::new();
                eventually("it has given up", || {
                    reply = ours.cmd(words);
                    !reply.starts_with(b"-LOADING")
                });
                reply
            };
            assert_eq!(answer(&["GET", "ours"]), b"$1\r\n1\r\n", "{load}, {what}");
            assert_eq!(answer(&["DBSIZE"]), b":1\r\n", "{load}, {what}");
        }
        assert!(replica.logs("Internal error in RDB"), "it says why");
        assert!(replica.logs("Wrong RDB checksum"), "it says why");
        let (mut link, _) = greet(&listener);
        link.write_all(&full(&good)).unwrap();
        eventually("a good one is taken", || ours.cmd(&["EXISTS", "theirs"]) == b":1\r\n");
        assert_eq!(ours.cmd(&["EXISTS", "ours"]), b":0\r\n");
        drop(link);
        let (_link, asked) = greet(&listener);
        assert_eq!(asked, format!("{ID} 1001"), "it goes on from there");
    }
}

#[test]
fn a_full_sync_that_is_cut_off_costs_nothing_at_the_old_primary() {
    let primary = Server::subject(super::AT_ONCE);
    let replica = Server::subject(&[]);
    let (mut theirs, mut ours) = (primary.connect(), replica.connect());
    theirs.cmd(&["SET", "a", "1"]);
    super::follow(&mut ours, &primary);
    // Another one promises a data set and goes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert_eq!(ours.cmd(&["REPLICAOF", "127.0.0.1", &port]), b"+OK\r\n");
    let (mut link, _) = greet(&listener);
    link.write_all(format!("+FULLRESYNC {ID} 1000\r\n$1000000\r\nREDIS0009").as_bytes()).unwrap();
    eventually("it is on its way", || info(&mut ours, "master_sync_read_bytes") == "9");
    drop(link);
    theirs.cmd(&["SET", "a", "2"]);
    super::follow(&mut ours, &primary);
    super::assert_equal(&mut theirs, &mut ours, "after a detour");
    assert_eq!(super::figure(&mut theirs, "sync_full"), 1);
    assert_eq!(super::figure(&mut theirs, "sync_partial_ok"), 1);
}

#[test]
fn a_stream_that_is_none_ends_the_link_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let replica = Server::subject(&[]);
    let mut ours = replica.connect();
    assert_eq!(ours.cmd(&["REPLICAOF", "127.0.0.1", &port]), b"+OK\r\n");
    let (mut link, _) = greet(&listener);
    link.write_all(&full(&good_file())).unwrap();
    eventually("it is taken", || ours.cmd(&["EXISTS", "theirs"]) == b":1\r\n");
    for garbage in
        [&b"*99999999999\r\n"[..], b"*1\r\n$-5\r\n", b"no request\r\n", b"*2\r\n$3\r\nGET\r\n:1\r\n", b"\x00\xff\r\n"]
    {
        link.write_all(garbage).unwrap();
        let mut end = Vec::new();
        let _ = std::io::Read::read_to_end(&mut link, &mut end);
        let asked;
        (link, asked) = greet(&listener);
        assert_eq!(asked, format!("{ID} 1001"), "none of it counts: {}", garbage.escape_ascii());
        link.write_all(b"+CONTINUE\r\n").unwrap();
        eventually("the link is up", || info(&mut ours, "master_link_status") == "up");
    }
    link.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap();
    eventually("the stream goes on", || ours.cmd(&["GET", "a"]) == b"$1\r\n1\r\n");
    assert_eq!(ours.cmd(&["EXISTS", "theirs"]), b":1\r\n");
}

fn memmem(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_replica_that_asks_for_replies_is_shown_the_door() {
    let primary = Server::subject(super::AT_ONCE);
    let mut client = primary.connect();
    for (request, name) in [("PING\r\n", "ping"), ("XINFO HELP\r\n", "xinfo|help"), ("GET a\r\n", "get")] {
        let mut replica = primary.connect();
        let before = super::figure(&mut client, "sync_full");
        replica.send(b"SYNC\r\n").expect("sent");
        eventually("it is one", || super::figure(&mut client, "sync_full") > before);
        replica.send(request.as_bytes()).expect("sent");
        eventually(name, || {
            primary.logs(&format!("Replica generated a reply to command '{name}', disconnecting it: id="))
        });
        let said = replica.rest().expect("it is gone");
        let answered = ["PONG", "-ERR", "XINFO <subcommand>"].iter().find(|reply| memmem(&said, reply.as_bytes()));
        assert_eq!(answered, None, "{}", said.escape_ascii());
    }
    assert!(primary.logs(
        "This master is sending an error to its replica: 'Replica can't interact with the keyspace' after processing the command 'get'"
    ));
    assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
}

/// Asks for the data set in the way of old.
fn sync(primary: &Server) -> BufReader<TcpStream> {
    let mut link = TcpStream::connect(primary.addr()).unwrap();
    link.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    link.write_all(b"SYNC\r\n").unwrap();
    BufReader::new(link)
}

/// Reads a data set, whose length comes first; returns that.
fn read_data_set(link: &mut impl BufRead) -> u64 {
    let mut line = String::new();
    while line.trim().is_empty() {
        line.clear();
        link.read_line(&mut line).unwrap();
    }
    let length = line.trim().strip_prefix('$').expect("the length comes first").parse().unwrap();
    let read = io::copy(&mut link.take(length), &mut io::sink()).unwrap();
    assert_eq!(read, length);
    length
}

/// Reads a command of the stream, and the one that selects its database if there is one.
fn read_stream_until(link: &mut impl BufRead, word: &str) {
    let mut line = String::new();
    while line.trim() != word {
        line.clear();
        assert_ne!(link.read_line(&mut line).unwrap(), 0, "the link goes on");
    }
}

#[test]
fn who_is_being_sent_a_file_is_in_nobodys_way() {
    let primary = Server::subject(&[
        "--repl-diskless-sync",
        "no",
        "--rdbcompression",
        "no",
        "--save",
        "",
        "--repl-timeout",
        "600",
    ]);
    let mut client = primary.connect();
    // More than sockets hold.
    client.cmd(&["SETRANGE", "big", "40000000", "x"]);
    let (mut slow, mut fast) = (sync(&primary), sync(&primary));
    assert!(read_data_set(&mut fast) > 40_000_000, "it does not wait for the other");
    client.cmd(&["SET", "a", "1"]);
    read_stream_until(&mut fast, "SET");
    eventually("the save is over", || info(&mut client, "rdb_bgsave_in_progress") == "0");
    let saved = super::figure(&mut client, "rdb_saves");
    assert!(client.cmd(&["BGSAVE"]).starts_with(b"+"));
    eventually("another save is as well", || super::figure(&mut client, "rdb_saves") > saved);
    // What ends a save does not end this.
    client.cmd(&["FLUSHALL"]);
    read_stream_until(&mut fast, "FLUSHALL");
    assert!(read_data_set(&mut slow) > 40_000_000);
    read_stream_until(&mut slow, "FLUSHALL");
    assert_eq!(info(&mut client, "connected_slaves"), "2");
}

#[test]
fn a_part_of_the_data_set_is_never_a_file() {
    let primary = Server::subject(super::AT_ONCE);
    let mut replica = primary.connect();
    assert_eq!(replica.cmd(&["REPLCONF", "rdb-filter-only", "functions"]), b"+OK\r\n");
    for request in [["SYNC"].as_slice(), &["PSYNC", "?", "-1"]] {
        assert_eq!(replica.cmd(request), b"-ERR Filtered replica requires EOF capability\r\n");
    }
}

/// Plays a primary for a replica, which has the data set and then a command that fails.
fn send_what_fails(listener: &TcpListener, data: &[u8]) -> TcpStream {
    let (mut link, _) = greet(listener);
    link.write_all(&full(data)).unwrap();
    link.write_all(b"*2\r\n$4\r\nLPOP\r\n$6\r\ntheirs\r\n").unwrap();
    link
}

#[test]
fn a_replica_that_is_told_to_stop_where_a_command_fails_does_so_in_a_program_of_its_own_or_not() {
    let good = good_file();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut replica = Server::subject(&["--replicaof", "127.0.0.1", &port, "--propagation-error-behavior", "panic"]);
    let _link = send_what_fails(&listener, &good);
    eventually("it has ended", || !replica.alive());
    assert!(replica.logs("This replica is sending an error to its master: 'WRONGTYPE Operation against a key holding"));

    // What it is sent it keeps in a file.
    let dir = replica.dir().display().to_string();
    let builder = spinel::Server::builder().directive("dir", &dir);
    let replica = builder.directive("propagation-error-behavior", "panic").start().unwrap();
    replica.client().execute(&["REPLICAOF", "127.0.0.1", &port]);
    let _link = send_what_fails(&listener, &good);
    replica.wait();
}

#[test]
fn who_followed_in_vain_has_no_stream_afterwards() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    assert_eq!(client.cmd(&["SET", "a", "1"]), b"+OK\r\n");
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    assert_eq!(client.cmd(&["REPLICAOF", "127.0.0.1", &port]), b"+OK\r\n");
    assert_eq!(info(&mut client, "repl_backlog_active"), "0");
    assert_eq!(client.cmd(&["REPLICAOF", "NO", "ONE"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["SET", "b", "1"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["ROLE"]), b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    assert_eq!(info(&mut client, "repl_backlog_active"), "0");
    // Whoever follows it now has all there is.
    let replica = Server::subject(&["--replicaof", &format!("127.0.0.1 {}", server.port())]);
    let mut client = replica.connect();
    eventually("the replica has it", || client.cmd(&["DBSIZE"]) == b":2\r\n");
}
