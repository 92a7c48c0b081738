//! What outlives the end of the process: it is killed in the midst of writes, again and again, and started anew.

use crate::support::client::Client;
use crate::support::server::{Server, scratch};

/// A directory that outlives servers.
struct Dir(std::path::PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How many keys `key:0`, `key:1` ... there are without a gap, each with its number.
fn stored(client: &mut Client, most: usize) -> usize {
    let requests: Vec<Vec<String>> = (0..most).map(|n| vec!["GET".into(), format!("key:{n}")]).collect();
    let replies = client.pipeline(&requests).unwrap();
    let is = |n: usize| replies[n] == format!("${}\r\n{n}\r\n", n.to_string().len()).into_bytes();
    let count = (0..most).take_while(|n| is(*n)).count();
    for (n, reply) in replies.iter().enumerate().skip(count) {
        assert_eq!(reply, b"$-1\r\n", "key:{n} is there, but key:{count} is not");
    }
    count
}

/// Kills a server that logs with this policy while requests are on their way; every other round it rewrites its log
/// meanwhile. What was acknowledged must be there, but for `may_lose` of it.
fn rounds(policy: &str, may_lose: usize) {
    let dir = Dir(scratch());
    let path = dir.0.to_str().unwrap().to_owned();
    let args = ["--dir", &path, "--appendonly", "yes", "--appendfsync", policy];
    let (mut next, mut acknowledged) = (0, 0);
    for round in 0..6usize {
        let server = Server::subject(&args);
        let mut client = server.connect();
        let found = stored(&mut client, next + 1);
        assert!(found + may_lose >= acknowledged, "round {round}: {found} of {acknowledged} are there");
        assert!(found <= next, "round {round}: {found} of {next} that were sent");
        next = found;
        for batch in 0..5 + 7 * round {
            let requests: Vec<Vec<String>> =
                (next..next + 20).map(|n| vec!["SET".into(), format!("key:{n}"), n.to_string()]).collect();
            if round % 2 == 1 && batch % 6 == 2 {
                client.cmd(&["BGREWRITEAOF"]);
            }
            let replies = client.pipeline(&requests).unwrap();
            assert!(replies.iter().all(|reply| reply == b"+OK\r\n"));
            next += requests.len();
        }
        acknowledged = next;
        // And some that nobody hears of.
        for n in next..next + 200 {
            client.send(format!("SET key:{n} {n}\r\n").as_bytes()).unwrap();
        }
        next += 200;
        drop(server);
    }
}

#[test]
fn nothing_that_was_synced_before_it_was_acknowledged_is_lost() {
    rounds("always", 0);
}

#[test]
fn the_end_of_the_process_alone_loses_nothing_without_syncs() {
    rounds("no", 0);
}

#[test]
fn with_a_sync_each_second_what_is_there_has_no_gaps() {
    // While the file is being synced what comes meanwhile is in memory only.
    rounds("everysec", usize::MAX / 2);
}

#[test]
fn a_save_that_is_cut_off_leaves_the_file_before_it() {
    let dir = Dir(scratch());
    let path = dir.0.to_str().unwrap().to_owned();
    let server = Server::subject(&["--dir", &path]);
    let mut client = server.connect();
    client.cmd(&["SET", "key:0", "0"]);
    assert_eq!(client.cmd(&["SAVE"]), b"+OK\r\n");
    client.cmd(&["DEBUG", "POPULATE", "20000", "other"]);
    client.cmd(&["CONFIG", "SET", "rdb-key-save-delay", "1000"]);
    assert_eq!(client.cmd(&["BGSAVE"]), b"+Background saving started\r\n");
    drop(server);
    let server = Server::subject(&["--dir", &path]);
    let mut client = server.connect();
    assert_eq!(client.cmd(&["DBSIZE"]), b":1\r\n");
    assert_eq!(stored(&mut client, 1), 1);
}

#[test]
fn a_server_that_is_asked_to_end_saves_what_it_has() {
    let dir = Dir(scratch());
    let path = dir.0.to_str().unwrap().to_owned();
    for (args, save) in [(vec!["--appendonly", "yes"], ""), (vec![], " SAVE"), (vec!["--save", "900 1"], "")] {
        let args = [&["--dir", &path], &args[..]].concat();
        let mut server = Server::subject(&args);
        let mut client = server.connect();
        client.cmd(&["FLUSHALL"]);
        client.cmd(&["SET", "key:0", "0"]);
        client.send(format!("SHUTDOWN{save}\r\n").as_bytes()).unwrap();
        assert!(server.logs("bye bye"));
        while server.alive() {
            std::thread::yield_now();
        }
        let server = Server::subject(&args);
        assert_eq!(stored(&mut server.connect(), 1), 1, "{args:?}");
    }
}
