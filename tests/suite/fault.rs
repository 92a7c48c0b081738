//! What outlives the end of the process: it is killed in the midst of writes, again and again, and started anew.

use std::time::{Duration, Instant};

use crate::support::client::{Client, request};
use crate::support::server::{Server, scratch, tell};
use crate::support::watch::{figure, used_memory};

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
fn what_is_acknowledged_to_many_at_once_is_in_the_file_by_then() {
    let server = Server::subject(&["--io-threads", "1", "--appendonly", "yes", "--appendfsync", "no"]);
    let file = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
    let mut clients: Vec<Client> = (0..21).map(|_| server.connect()).collect();
    for round in 0..50 {
        let key = |n: usize| format!("key-{round}-{n}.");
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&request(&["SET", &key(n), "x"])).unwrap();
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.reply().unwrap(), b"+OK\r\n");
            let log = std::fs::read(&file).unwrap();
            assert!(log.windows(key(n).len()).any(|bytes| bytes == key(n).as_bytes()), "{}", key(n));
        }
    }
}

/// So many clients write at once while the server is killed.
const WRITERS: usize = 20;
/// So many requests each of them sends before it reads replies.
const PIPELINE: usize = 5;

/// What one of them has done, over all rounds: how many keys it sent, and how many were acknowledged when.
#[derive(Default)]
struct Writer {
    sent: usize,
    acknowledged: Vec<(Instant, usize)>,
}

fn name(writer: usize, n: usize) -> String {
    format!("{writer}:{n}")
}

/// Writes until the server is gone.
fn write_on(client: &mut Client, number: usize, writer: &mut Writer) {
    loop {
        let (first, mut batch) = (writer.sent, Vec::new());
        for n in first..first + PIPELINE {
            batch.extend(request(&["SET", &name(number, n), &n.to_string()]));
        }
        writer.sent += PIPELINE;
        if client.send(&batch).is_err() {
            return;
        }
        for n in first..first + PIPELINE {
            match client.reply() {
                Ok(reply) => assert_eq!(reply, b"+OK\r\n"),
                Err(_) => return,
            }
            writer.acknowledged.push((Instant::now(), n + 1));
        }
    }
}

/// Kills a server under load, in the midst of a rewrite every third time, and looks for what it had acknowledged `age`
/// before that, or earlier. A writer's keys must be there without a gap.
fn killed_under_load(policy: &str, rounds: usize, load: std::ops::Range<u64>, age: Duration) {
    let dir = Dir(scratch());
    let path = dir.0.to_str().unwrap().to_owned();
    let args = ["--dir", &path, "--appendonly", "yes", "--appendfsync", policy];
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut writers: Vec<Writer> = Vec::new();
    writers.resize_with(WRITERS, Writer::default);
    let (mut acknowledged_in_all, mut lost_in_all) = (0, 0);
    for round in 0..rounds {
        let server = Server::subject(&args);
        let time = Duration::from_millis(rng.u64(load.clone()));
        let mut connections: Vec<Client> = (0..WRITERS).map(|_| server.connect()).collect();
        let killed = std::thread::scope(|scope| {
            for (number, (client, writer)) in connections.iter_mut().zip(&mut writers).enumerate() {
                scope.spawn(move || write_on(client, number, writer));
            }
            let mut client = server.connect();
            let until = Instant::now() + time;
            if round % 3 == 1 {
                client.cmd(&["BGREWRITEAOF"]);
            }
            while Instant::now() < until {
                client.cmd(&["PING"]);
            }
            let killed = Instant::now();
            drop(server);
            killed
        });
        let server = Server::subject(&args);
        let mut client = server.connect();
        for (number, writer) in writers.iter_mut().enumerate() {
            let old = |(when, _): &(Instant, usize)| killed.saturating_duration_since(*when) >= age;
            let must = writer.acknowledged.iter().filter(|known| old(known)).map(|(_, n)| *n).max().unwrap_or(0);
            let acknowledged = writer.acknowledged.last().map_or(0, |(_, n)| *n);
            // What earlier rounds have found is looked at once more at the end.
            let first = if round + 1 == rounds { 0 } else { must.saturating_sub(2000) };
            let mut found = first;
            for from in (first..writer.sent).step_by(1000) {
                let names: Vec<String> = (from..writer.sent.min(from + 1000)).map(|n| name(number, n)).collect();
                let requests: Vec<Vec<&str>> = names.iter().map(|name| vec!["GET", name]).collect();
                for (n, reply) in (from..).zip(client.pipeline(&requests).unwrap()) {
                    if reply == format!("${}\r\n{n}\r\n", n.to_string().len()).into_bytes() {
                        assert_eq!(
                            found, n,
                            "seed {seed}, round {round}: {number}:{n} is there, and one before it is not"
                        );
                        found += 1;
                    }
                }
            }
            assert!(found >= must, "seed {seed}, round {round}: {found} of {must} that were acknowledged");
            lost_in_all += acknowledged.saturating_sub(found);
            // It goes on where it was: what was lost is sent again.
            *writer = Writer { sent: found, acknowledged: vec![(killed, found)] };
            if round + 1 == rounds {
                acknowledged_in_all += found;
            }
        }
    }
    tell(&format!(
        "appendfsync {policy}: {rounds} rounds, {acknowledged_in_all} writes are there, {lost_in_all} younger than {age:?} were lost"
    ));
    assert!(acknowledged_in_all > 0);
}

/// How many rounds: `SPINEL_KILL_ROUNDS` for more.
fn kill_rounds(usual: usize) -> usize {
    std::env::var("SPINEL_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

#[test]
fn killed_under_load_a_server_that_syncs_always_has_lost_nothing_acknowledged() {
    killed_under_load("always", kill_rounds(4), 5..120, Duration::ZERO);
}

#[test]
fn killed_under_load_a_server_that_syncs_each_second_has_lost_nothing_older() {
    killed_under_load("everysec", kill_rounds(4).min(20), 1200..1800, Duration::from_secs(1));
}

#[test]
fn killed_under_load_a_server_that_never_syncs_has_what_the_system_has() {
    killed_under_load("no", kill_rounds(4), 5..120, Duration::ZERO);
}

/// The payload of a key as DUMP replies it.
fn dumped(client: &mut Client, key: &str) -> Vec<u8> {
    let reply = client.cmd(&["DUMP", key]);
    let start = reply.iter().position(|byte| *byte == b'\n').expect("a bulk reply") + 1;
    reply[start..reply.len() - 2].to_vec()
}

#[test]
fn payloads_with_another_byte_are_refused_or_used_in_bounded_memory() {
    let server = Server::subject(&["--sanitize-dump-payload", "no"]);
    let mut client = server.connect();
    crate::formats::fill(&mut client);
    let keys: Vec<String> = {
        let reply = String::from_utf8(client.cmd(&["KEYS", "*"])).unwrap();
        reply.lines().skip(1).filter(|line| !line.starts_with('$')).map(str::to_owned).collect()
    };
    assert_eq!(client.cmd(&["DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", "1"]), b"+OK\r\n");
    let before = used_memory(&mut client);
    client.cmd(&["CONFIG", "RESETSTAT"]);
    let (mut refused, mut accepted, mut types) = (0, 0, 0);
    for key in keys.iter().filter(|key| !key.starts_with("key:")) {
        let payload = dumped(&mut client, key);
        if payload.len() > 2000 {
            continue;
        }
        types += 1;
        for at in 0..payload.len() - 10 {
            for change in [0x01, 0x80, 0xff] {
                let mut payload = payload.clone();
                payload[at] ^= change;
                let mut batch = request(&[&b"RESTORE"[..], b"damaged", b"0", &payload, b"REPLACE"]);
                for words in [
                    &["DEBUG", "DIGEST-VALUE", "damaged"][..],
                    &["OBJECT", "ENCODING", "damaged"],
                    &["MEMORY", "USAGE", "damaged", "SAMPLES", "0"],
                    &["COPY", "damaged", "copied", "REPLACE"],
                    &["DEL", "damaged", "copied"],
                ] {
                    batch.extend(request(words));
                }
                client.send(&batch).unwrap();
                let replies: Vec<Vec<u8>> = (0..6).map(|_| client.reply().expect("it is still there")).collect();
                match replies[0].first() {
                    Some(b'-') => refused += 1,
                    _ => accepted += 1,
                }
            }
        }
        let peak = figure(&mut client, "used_memory_peak");
        assert!(peak < before + (64 << 20), "{key}: a damaged payload took {} bytes", peak - before);
    }
    tell(&format!("{types} values, {refused} damaged payloads refused, {accepted} read"));
    assert!(types > 10 && refused > 100 && accepted > 100);
    assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
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
