//! Keys that move to another server: to a real Redis, from one, and to one that takes its time.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::formats::{digest, fill};
use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::watch::{eventually, figure};

/// MIGRATE to a port of the loopback, of `rest`.
fn migrate(client: &mut Client, port: u16, rest: &[&str]) -> String {
    let port = port.to_string();
    let words = [&["MIGRATE", "127.0.0.1", &port], rest].concat();
    String::from_utf8_lossy(&client.cmd(&words)).trim_end().to_owned()
}

/// All keys of the selected database.
fn keys(client: &mut Client) -> Vec<String> {
    let reply = client.cmd(&["KEYS", "*"]);
    let text = String::from_utf8_lossy(&reply);
    text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with(['*', '$'])).map(str::to_owned).collect()
}

#[test]
fn a_data_set_moves_to_redis_and_back_and_is_the_same() {
    let Some((ours, theirs)) = Server::pair(&[]) else { return };
    let (mut here, mut there) = (ours.connect(), theirs.connect());
    fill(&mut here);
    let expected = digest(&mut here);
    for db in ["0", "9"] {
        here.cmd(&["SELECT", db]);
        for some in keys(&mut here).chunks(50) {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            let reply = migrate(&mut here, theirs.port(), &[&["", db, "5000", "KEYS"], &some[..]].concat());
            assert_eq!(reply, "+OK");
        }
        assert_eq!(here.cmd(&["DBSIZE"]), b":0\r\n");
    }
    assert_eq!(digest(&mut there), expected);
    for db in ["0", "9"] {
        there.cmd(&["SELECT", db]);
        for key in keys(&mut there) {
            assert_eq!(migrate(&mut there, ours.port(), &[&key, db, "5000"]), "+OK");
        }
    }
    assert_eq!(digest(&mut here), expected);
}

#[test]
fn what_is_replied_is_what_redis_replies() {
    let Some((ours, theirs)) = Server::pair(&[]) else { return };
    let Some(target) = Server::oracle(&["--requirepass", "sesame"]) else { return };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut there = target.connect();
    there.cmd(&["AUTH", "sesame"]);
    there.cmd(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all"]);
    for (port, rest) in [
        (target.port(), "missing 0 1000 AUTH sesame"),
        (target.port(), "a 0 1000"),
        (target.port(), "a 0 1000 AUTH wrong"),
        (target.port(), "a 0 1000 AUTH sesame"),
        (target.port(), "b 0 1000 AUTH2 bob wrong"),
        (target.port(), "b 0 1000 AUTH2 bob pw COPY"),
        (target.port(), "b 0 1000 AUTH2 bob pw"),
        (target.port(), "b 0 1000 AUTH2 bob pw REPLACE COPY"),
        (target.port(), "b 99 1000 AUTH sesame"),
        (target.port(), "b x 1000 AUTH sesame"),
        (target.port(), "b 0 x AUTH sesame"),
        (target.port(), "b 0 1000 AUTH"),
        (target.port(), "b 0 1000 AUTH2 bob"),
        (target.port(), "b 0 1000 NONSENSE"),
        (target.port(), "b 0 1000 KEYS a b"),
        (target.port(), "\"\" 0 1000 AUTH sesame KEYS"),
        (target.port(), "\"\" 0 1000 AUTH sesame KEYS c b missing d c"),
        (free, "b 0 200"),
        (free, "missing 0 200"),
    ] {
        let mut said = Vec::new();
        for server in [&ours, &theirs] {
            let mut client = server.connect();
            there.cmd(&["DEL", "a", "c", "d"]);
            there.cmd(&["SET", "b", "old"]);
            if rest.contains("COPY") && !rest.contains("REPLACE") {
                there.cmd(&["DEL", "b"]);
            }
            for key in ["a", "b", "c", "d"] {
                client.cmd(&["SET", key, "1"]);
                client.cmd(&["PEXPIRE", key, "100000"]);
            }
            client.cmd(&["CONFIG", "RESETSTAT"]);
            let rest: Vec<&str> = rest.split(' ').map(|word| if word == "\"\"" { "" } else { word }).collect();
            let reply = migrate(&mut client, port, &rest);
            let errors = String::from_utf8_lossy(&client.cmd(&["INFO", "errorstats"])).into_owned();
            let left = client.cmd(&["EXISTS", "a", "b", "c", "d"]);
            said.push((reply, errors, left, there.cmd(&["MGET", "a", "b", "c", "d"])));
        }
        assert_eq!(said[0], said[1], "{rest}");
    }
    // Where nobody can be found the texts tell of different steps.
    let mut client = ours.connect();
    let reply = client.cmd(&["MIGRATE", "nosuchhost.invalid", "1", "b", "0", "100"]);
    assert_eq!(reply, b"-IOERR error or timeout connecting to the client\r\n");
}

#[test]
fn times_to_live_move_along_and_the_log_is_told_of_deletions() {
    let (source, target) = (Server::subject(&["--appendonly", "yes"]), Server::subject(&[]));
    let (mut here, mut there) = (source.connect(), target.connect());
    here.cmd(&["SET", "a", "1", "PX", "90000"]);
    here.cmd(&["SET", "b", "2"]);
    assert_eq!(migrate(&mut here, target.port(), &["", "3", "5000", "KEYS", "a", "b"]), "+OK");
    there.cmd(&["SELECT", "3"]);
    let ttl = String::from_utf8(there.cmd(&["PTTL", "a"])).unwrap();
    let ttl: u64 = ttl[1..].trim_end().parse().unwrap();
    assert!((60_000..=90_000).contains(&ttl), "{ttl}");
    assert_eq!(there.cmd(&["PTTL", "b"]), b":-1\r\n");
    assert_eq!(here.cmd(&["DEBUG", "LOADAOF"]), b"+OK\r\n");
    assert_eq!(here.cmd(&["DBSIZE"]), b":0\r\n");
    assert_eq!(figure(&mut here, "migrate_cached_sockets"), 1);
}

#[test]
fn transactions_and_scripts_have_moved_their_keys_when_they_go_on() {
    let (source, target) = (Server::subject(&[]), Server::subject(&[]));
    let (mut here, mut there) = (source.connect(), target.connect());
    let port = target.port().to_string();
    here.cmd(&["MSET", "a", "1", "b", "2"]);
    for words in [&["MULTI"][..], &["MIGRATE", "127.0.0.1", &port, "a", "0", "5000"], &["EXISTS", "a"]] {
        here.cmd(words);
    }
    assert_eq!(here.cmd(&["EXEC"]), b"*2\r\n+OK\r\n:0\r\n");
    let script = "local r = redis.call('MIGRATE', '127.0.0.1', ARGV[1], KEYS[1], 0, 5000) \
                  return {r, redis.call('EXISTS', KEYS[1])}";
    assert_eq!(here.cmd(&["EVAL", script, "1", "b", &port]), b"*2\r\n+OK\r\n:0\r\n");
    assert_eq!(there.cmd(&["MGET", "a", "b"]), b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

/// A server that answers when the test says so.
struct Slow {
    listener: TcpListener,
}

impl Slow {
    fn new() -> Slow {
        Slow { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection, past its SELECT.
    fn accept(&self) -> (Client, TcpStream) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut answers = stream.try_clone().unwrap();
        let mut requests = Client::of(stream);
        assert!(requests.reply().unwrap().starts_with(b"*2\r\n$6\r\nSELECT\r\n"));
        answers.write_all(b"+OK\r\n").unwrap();
        (requests, answers)
    }
}

fn request(requests: &mut Client) -> String {
    String::from_utf8_lossy(&requests.reply().unwrap()).into_owned()
}

/// Whether no reply has come so far.
fn waits(client: &mut Client) -> bool {
    client.patience(Duration::from_millis(100)).unwrap();
    let waits = client.reply().is_err();
    client.patience(Duration::from_secs(20)).unwrap();
    waits
}

#[test]
fn a_key_on_its_way_is_read_but_not_changed_and_nobody_else_waits() {
    let (server, slow) = (Server::subject(&["--io-threads", "1"]), Slow::new());
    let mut others: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    others[0].cmd(&["MSET", "a", "1", "b", "2"]);
    let mut mover = server.connect();
    mover.send(format!("MIGRATE 127.0.0.1 {} a 0 20000\r\nPING\r\n", slow.port()).as_bytes()).unwrap();
    let (mut requests, mut answers) = slow.accept();
    assert!(request(&mut requests).contains("RESTORE\r\n$1\r\na\r\n"));

    assert_eq!(others[0].cmd(&["GET", "a"]), b"$1\r\n1\r\n");
    assert_eq!(others[0].cmd(&["INCR", "b"]), b":3\r\n");
    others[1].send(b"INCR b\r\nINCR a\r\nGET b\r\n").unwrap();
    others[2].send(b"MULTI\r\nAPPEND a x\r\nEXEC\r\n").unwrap();
    others[3].send(b"DEL b a\r\n").unwrap();
    assert_eq!(others[1].reply().unwrap(), b":4\r\n", "what came before it is answered");
    assert_eq!(others[2].reply().unwrap(), b"+OK\r\n");
    assert_eq!(others[2].reply().unwrap(), b"+QUEUED\r\n");
    assert!(others[1..].iter_mut().all(waits) && waits(&mut mover));

    answers.write_all(b"+OK\r\n").unwrap();
    assert_eq!(mover.reply().unwrap(), b"+OK\r\n");
    assert_eq!(mover.reply().unwrap(), b"+PONG\r\n");
    // The key was gone before any of them changed it; in which order they do then is up to them.
    let replies: Vec<Vec<u8>> = others[1..].iter_mut().map(|client| client.reply().unwrap()).collect();
    assert!([&b":1\r\n"[..], b"-ERR value is not an integer or out of range\r\n"].contains(&&replies[0][..]));
    assert!([&b"*1\r\n:1\r\n"[..], b"*1\r\n:2\r\n"].contains(&&replies[1][..]), "{}", replies[1].escape_ascii());
}

#[test]
fn what_is_changed_all_the_same_is_sent_again_and_what_is_gone_is_deleted_there() {
    let (server, slow) = (Server::subject(&[]), Slow::new());
    let (mut mover, mut other) = (server.connect(), server.connect());
    let script = "return redis.call(ARGV[1], 'a', ARGV[2])";
    // It is known to touch what it does not declare, so it runs over everything.
    assert_eq!(other.cmd(&["EVAL", script, "0", "SET", "1"]), b"+OK\r\n");
    mover.send(format!("MIGRATE 127.0.0.1 {} a 0 20000\r\n", slow.port()).as_bytes()).unwrap();
    let (mut requests, mut answers) = slow.accept();
    let first = request(&mut requests);
    assert!(first.starts_with("*4\r\n$7\r\nRESTORE\r\n$1\r\na\r\n"), "{first}");
    assert_eq!(other.cmd(&["EVAL", script, "0", "SET", "2"]), b"+OK\r\n");
    answers.write_all(b"+OK\r\n").unwrap();
    let second = request(&mut requests);
    assert!(second.starts_with("*5\r\n$7\r\nRESTORE\r\n$1\r\na\r\n") && second.ends_with("REPLACE\r\n"), "{second}");
    assert_eq!(other.cmd(&["FLUSHALL"]), b"+OK\r\n");
    answers.write_all(b"+OK\r\n").unwrap();
    assert_eq!(request(&mut requests), "*2\r\n$3\r\nDEL\r\n$1\r\na\r\n");
    answers.write_all(b":1\r\n").unwrap();
    assert_eq!(mover.reply().unwrap(), b"+OK\r\n");
    assert_eq!(figure(&mut other, "watching_clients"), 0);
    assert_eq!(other.cmd(&["SET", "a", "x"]), b"+OK\r\n");
}

#[test]
fn nothing_is_lost_or_held_back_when_the_other_server_stays_silent_or_goes() {
    let (server, slow) = (Server::subject(&[]), Slow::new());
    let (mut mover, mut other) = (server.connect(), server.connect());
    other.cmd(&["SET", "a", "1"]);
    let reading = b"-IOERR error or timeout reading to target instance\r\n";
    mover.send(format!("MIGRATE 127.0.0.1 {} a 0 50\r\n", slow.port()).as_bytes()).unwrap();
    let silent = slow.accept();
    assert_eq!(mover.reply().unwrap(), reading);
    assert_eq!(other.cmd(&["INCR", "a"]), b":2\r\n");
    drop(silent);
    mover.send(format!("MIGRATE 127.0.0.1 {} a 0 20000\r\n", slow.port()).as_bytes()).unwrap();
    drop(slow.accept());
    assert_eq!(mover.reply().unwrap(), reading);
    assert_eq!(other.cmd(&["INCR", "a"]), b":3\r\n");
    assert_eq!(other.cmd(&["CLIENT", "UNBLOCK", "1"]), b":0\r\n");
}

#[test]
fn a_key_arrives_even_if_nobody_waits_for_it_any_more_and_old_connections_are_renewed() {
    let (server, slow) = (Server::subject(&[]), Slow::new());
    let (mut mover, mut other) = (server.connect(), server.connect());
    other.cmd(&["MSET", "a", "1", "b", "2"]);
    mover.send(format!("MIGRATE 127.0.0.1 {} a 0 20000\r\n", slow.port()).as_bytes()).unwrap();
    let (mut requests, mut answers) = slow.accept();
    request(&mut requests);
    drop(mover);
    answers.write_all(b"+OK\r\n").unwrap();
    eventually("the key is gone", || other.cmd(&["EXISTS", "a"]) == b":0\r\n");
    assert_eq!(figure(&mut other, "migrate_cached_sockets"), 1);
    drop((requests, answers));
    other.send(format!("MIGRATE 127.0.0.1 {} b 0 20000\r\n", slow.port()).as_bytes()).unwrap();
    let (mut requests, mut answers) = slow.accept();
    request(&mut requests);
    answers.write_all(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n").unwrap();
    assert_eq!(
        other.reply().unwrap(),
        b"-ERR Target instance replied with error: OOM command not allowed when used memory > 'maxmemory'.\r\n"
    );
    assert_eq!(other.cmd(&["EXISTS", "b"]), b":1\r\n");
}
