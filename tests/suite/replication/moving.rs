//! An application moves from Redis to Spinel while it writes, and back: what docs/migration.md says, line by line.

use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::watch::{eventually, info};

/// Writes until the server says that it leads no more; returns how many writes were acknowledged.
fn write_until_it_leads_no_more(client: &mut Client, key: &str) -> usize {
    let mut acknowledged = 0;
    loop {
        let reply = client.cmd(&["RPUSH", key, &acknowledged.to_string()]);
        if reply.starts_with(b"-READONLY") {
            return acknowledged;
        }
        assert!(reply.starts_with(b":"), "{}", reply.escape_ascii());
        acknowledged += 1;
    }
}

/// Hands over from one to the other while somebody writes: nothing is lost that was acknowledged.
fn hand_over(from: &Server, to: &Server, key: &str) {
    let (mut old, mut new) = (from.connect(), to.connect());
    let mut writer = from.connect();
    let key_of_writer = key.to_owned();
    let application = std::thread::spawn(move || write_until_it_leads_no_more(&mut writer, &key_of_writer));
    eventually("it writes", || old.cmd(&["EXISTS", key]) == b":1\r\n");
    let asked = old.cmd(&["FAILOVER", "TO", "127.0.0.1", &to.port().to_string(), "TIMEOUT", "60000"]);
    assert_eq!(asked, b"+OK\r\n");
    let acknowledged = application.join().unwrap();
    eventually("the other leads", || new.cmd(&["ROLE"]).starts_with(b"*3\r\n$6\r\nmaster"));
    eventually("the old one follows", || info(&mut old, "master_link_status") == "up");
    assert_eq!(new.cmd(&["LLEN", key]), format!(":{acknowledged}\r\n").into_bytes());
    super::assert_equal(&mut new, &mut old, key);
}

#[test]
fn an_application_moves_to_spinel_and_back_without_losing_a_write() {
    let Some(redis) = Server::oracle(&["--repl-diskless-sync-delay", "0"]) else { return };
    let mut theirs = redis.connect();
    theirs.cmd(&["SET", "before", "1"]);
    let port = redis.port().to_string();
    let spinel = Server::subject(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
    let mut ours = spinel.connect();
    eventually("it follows", || info(&mut ours, "master_link_status") == "up");
    eventually("it is told of", || info(&mut theirs, "slave0").contains("state=online"));
    assert!(ours.cmd(&["SET", "a", "1"]).starts_with(b"-READONLY"));
    super::assert_equal(&mut theirs, &mut ours, "before the switch");
    hand_over(&redis, &spinel, "there");
    hand_over(&spinel, &redis, "back");
    // By hand, as with servers that know no FAILOVER.
    theirs.cmd(&["CLIENT", "PAUSE", "10000", "WRITE"]);
    super::caught_up(&mut theirs, &mut ours);
    assert_eq!(ours.cmd(&["REPLICAOF", "NO", "ONE"]), b"+OK\r\n");
    assert_eq!(theirs.cmd(&["REPLICAOF", "127.0.0.1", &spinel.port().to_string()]), b"+OK\r\n");
    ours.cmd(&["SET", "after", "1"]);
    super::assert_equal(&mut ours, &mut theirs, "after a switch by hand");
}

#[test]
fn what_had_begun_when_another_is_to_lead_is_not_lost() {
    let primary = Server::subject(super::AT_ONCE);
    let replica = Server::subject(super::AT_ONCE);
    let (mut old, mut new) = (primary.connect(), replica.connect());
    super::follow(&mut new, &primary);
    eventually("it is told of", || info(&mut old, "slave0").contains("state=online"));
    let mut writer = primary.connect();
    // Some tenths of a second: scripts see one time.
    let script = "for i = 1, 5e7 do end return redis.call('SET', 'late', '1')";
    let writing = std::thread::spawn(move || writer.cmd(&["EVAL", script, "1", "late"]));
    eventually("the script runs", || {
        String::from_utf8_lossy(&old.cmd(&["CLIENT", "LIST"])).lines().any(|line| line.contains("cmd=eval "))
    });
    assert_eq!(old.cmd(&["FAILOVER", "TIMEOUT", "60000"]), b"+OK\r\n");
    assert_eq!(writing.join().unwrap(), b"+OK\r\n");
    eventually("the other leads", || new.cmd(&["ROLE"]).starts_with(b"*3\r\n$6\r\nmaster"));
    assert_eq!(new.cmd(&["GET", "late"]), b"$1\r\n1\r\n");
    super::linked(&mut old);
    super::assert_equal(&mut new, &mut old, "after a script that had begun");
}
