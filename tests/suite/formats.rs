//! Files: what Spinel writes a real Redis reads, and the other way round.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use crate::support::client::{Client, request};
use crate::support::server::{Server, have, scratch, subject_program};

/// A directory for the files of several servers, one after the other.
struct Shared(PathBuf);

impl Shared {
    fn new() -> Shared {
        Shared(scratch())
    }

    fn args<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [&["--dir", self.0.to_str().unwrap()], rest].concat()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ok(client: &mut Client, words: &[&str]) {
    let reply = client.cmd(words);
    assert!(!reply.starts_with(b"-"), "{words:?}: {}", reply.escape_ascii());
}

/// Stores some of every type and encoding that Redis 7.0 has.
pub fn fill(client: &mut Client) {
    let long = "abcabcabc-".repeat(40);
    let huge = "0123456789abcdef".repeat(6000);
    for words in [
        &["SET", "int", "-12"][..],
        &["SET", "large-int", "123456789012"],
        &["SET", "text", "hello"],
        &["SET", "long", &long],
        &["SET", "huge", &huge],
        &["SET", "binary", "\u{1}\u{0}\r\n\u{ff}"],
        &["SET", "volatile", "x", "EX", "100000"],
        &["RPUSH", "list", "a", "1", "-70000", "12345678901234", &long],
        &["RPUSH", "chain", &huge, "b", &long],
        &["HSET", "hash", "a", "1", "b", &long],
        &["HSET", "wide-hash", "a", &huge],
        &["ZADD", "zset", "1.5", "a", "-inf", "b", "3", "12", "1024.5", &long],
        &["SADD", "intset", "1", "2", "3", "70000", "12345678901"],
        &["SADD", "set", "a", "b", "1"],
        &["SADD", "wide-set", &huge, "b"],
        &["XADD", "stream", "1-1", "a", "1", "b", &long],
        &["XADD", "stream", "1-2", "a", "2", "b", ""],
        &["XADD", "stream", "5-0", "other", "x"],
        &["XDEL", "stream", "1-2"],
        &["XGROUP", "CREATE", "stream", "group", "0"],
        &["XGROUP", "CREATE", "stream", "idle", "$"],
        &["XREADGROUP", "GROUP", "group", "alice", "COUNT", "1", "STREAMS", "stream", ">"],
        &["XGROUP", "CREATECONSUMER", "stream", "group", "never-active"],
        &["XADD", "empty-stream", "MAXLEN", "0", "7-7", "a", "b"],
        &["SELECT", "9"],
        &["SET", "elsewhere", "1"],
        &["SELECT", "0"],
    ] {
        ok(client, words);
    }
    for i in 0..700 {
        let (n, member) = (i.to_string(), format!("member:{i}"));
        ok(client, &["HSET", "large-hash", &member, &n]);
        ok(client, &["ZADD", "large-zset", &format!("{}.25", i % 50), &member]);
        ok(client, &["SADD", "large-set", &member]);
        ok(client, &["SADD", "large-intset", &n]);
        ok(client, &["XADD", "long-stream", &format!("{i}-1"), "n", &n, &member, "x"]);
        ok(client, &["RPUSH", "long-list", &format!("{member}{}", "x".repeat(50))]);
        ok(client, &["SET", &format!("key:{i}"), &member]);
    }
}

/// Scores that servers print differently, and so digest differently: the shortest digits that mean them, or seventeen.
const EXTREMES: [(&str, f64); 5] = [
    ("big", 1e300),
    ("small", 5e-324),
    ("low", -1.7976931348623157e308),
    ("third", 0.1),
    ("exact", 9007199254740993.0),
];

/// Stores them beside what [`fill`] stores.
fn add_extremes(client: &mut Client) {
    for (member, score) in EXTREMES {
        ok(client, &["ZADD", "extremes", &format!("{score:e}"), member]);
    }
}

/// Holds that they are there, and removes them.
fn take_extremes(client: &mut Client) {
    for (member, score) in EXTREMES {
        let reply = String::from_utf8(client.cmd(&["ZSCORE", "extremes", member])).unwrap();
        let found: f64 = reply.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(f64::NAN);
        assert_eq!(found.to_bits(), score.to_bits(), "{member}: {reply}");
    }
    assert_eq!(client.cmd(&["DEL", "extremes"]), b":1\r\n");
}

/// What all keys of all databases come to.
pub fn digest(client: &mut Client) -> Vec<u8> {
    client.cmd(&["DEBUG", "DIGEST"])
}

#[test]
fn redis_loads_what_was_saved_and_its_files_are_loaded() {
    let Some(oracle) = Server::oracle(&[]) else { return };
    drop(oracle);
    for (first_is_ours, compress) in [(true, "yes"), (true, "no"), (false, "yes"), (false, "no")] {
        let shared = Shared::new();
        let args = shared.args(&["--rdbcompression", compress]);
        let start = |ours: bool| if ours { Server::subject(&args) } else { Server::oracle(&args).unwrap() };
        let writer = start(first_is_ours);
        let mut client = writer.connect();
        fill(&mut client);
        let expected = digest(&mut client);
        add_extremes(&mut client);
        assert_eq!(client.cmd(&["SAVE"]), b"+OK\r\n");
        drop(writer);
        let reader = start(!first_is_ours);
        let mut client = reader.connect();
        take_extremes(&mut client);
        assert_eq!(digest(&mut client), expected);
        for key in ["intset", "set", "large-set", "zset", "large-zset", "hash", "large-hash", "list", "chain"] {
            ok(&mut client, &["OBJECT", "ENCODING", key]);
        }
        // Back again.
        assert_eq!(client.cmd(&["SAVE"]), b"+OK\r\n");
        drop(reader);
        let again = start(first_is_ours);
        assert_eq!(digest(&mut again.connect()), expected);
    }
}

#[test]
fn the_checker_of_redis_finds_nothing_wrong() {
    static SAID: Once = Once::new();
    if !have("redis-check-rdb", &SAID) {
        return;
    }
    let shared = Shared::new();
    let server = Server::subject(&shared.args(&[]));
    let mut client = server.connect();
    fill(&mut client);
    assert_eq!(client.cmd(&["BGSAVE"]), b"+Background saving started\r\n");
    assert!(server.logs("Background saving terminated with success"));
    let checked = Command::new("redis-check-rdb").arg(shared.0.join("dump.rdb")).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && text.contains("Checksum OK"), "{text}");
}

#[test]
fn while_a_file_is_loaded_commands_are_refused_but_for_some() {
    let shared = Shared::new();
    let server = Server::subject(&shared.args(&[]));
    let mut client = server.connect();
    assert_eq!(client.cmd(&["DEBUG", "POPULATE", "20000"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["SAVE"]), b"+OK\r\n");
    drop(server);
    let server = Server::subject_that_loads(&shared.args(&["--key-load-delay", "1000"]));
    let mut client = server.connect();
    assert_eq!(client.cmd(&["GET", "key:1"]), b"-LOADING Redis is loading the dataset in memory\r\n");
    let info = String::from_utf8_lossy(&client.cmd(&["INFO", "persistence"])).into_owned();
    for field in ["loading:1", "loading_start_time:", "loading_loaded_perc:", "loading_eta_seconds:"] {
        assert!(info.contains(field), "{field} in {info}");
    }
    assert!(client.cmd(&["PING"]).starts_with(b"-LOADING"));
    // It is let go by a configuration that does not wait.
    ok(&mut client, &["CONFIG", "GET", "dir"]);
    client.send(b"SHUTDOWN NOSAVE\r\n").unwrap();
    assert!(server.logs("bye bye"));
}

#[test]
fn redis_reads_the_append_only_file_and_its_own_is_read() {
    let Some(oracle) = Server::oracle(&[]) else { return };
    drop(oracle);
    for (first_is_ours, preamble) in [(true, "yes"), (true, "no"), (false, "yes"), (false, "no")] {
        let shared = Shared::new();
        // Synced always: redis-server puts off what it would write while a sync of every second goes on, and is killed here.
        let args = shared.args(&["--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", preamble]);
        let start = |ours: bool| if ours { Server::subject(&args) } else { Server::oracle(&args).unwrap() };
        let writer = start(first_is_ours);
        let mut client = writer.connect();
        fill(&mut client);
        assert!(client.cmd(&["BGREWRITEAOF"]).starts_with(b"+"));
        ok(&mut client, &["SET", "behind", "1", "EX", "1000"]);
        ok(&mut client, &["INCR", "behind"]);
        wait_for_rewrite(&mut client);
        ok(&mut client, &["LPOP", "list"]);
        let expected = digest(&mut client);
        add_extremes(&mut client);
        drop(writer);
        let reader = start(!first_is_ours);
        let mut client = reader.connect();
        take_extremes(&mut client);
        assert_eq!(digest(&mut client), expected, "ours first: {first_is_ours}, preamble {preamble}");
        ok(&mut client, &["SET", "more", "1"]);
        let expected = digest(&mut client);
        drop(reader);
        let again = start(first_is_ours);
        assert_eq!(digest(&mut again.connect()), expected);
    }
}

#[test]
fn logs_are_checked_in_the_words_of_redis() {
    static SAID: Once = Once::new();
    if !have("redis-check-aof", &SAID) {
        return;
    }
    let dir = Shared::new();
    let command = |words: &[&str]| request(words);
    let (set, multi) = (command(&["SET", "foo", "hello"]), command(&["MULTI"]));
    let stamped = |n: u32| [format!("#TS:{}\r\n", 100 + n).into_bytes(), set.clone()].concat();
    let manifest = |base: &str| format!("file {base} seq 1 type b\nfile whole seq 1 type i\n").into_bytes();
    let files: [(&str, Vec<u8>); 10] = [
        ("whole", set.repeat(2)),
        ("broken", [&set[..], b"!!!"].concat()),
        ("cut", [&set[..], b"*3\r\n$3\r\nse"].concat()),
        ("open", [&set[..], &multi, &set].concat()),
        ("stamped", (0..4).flat_map(stamped).collect()),
        ("empty", Vec::new()),
        ("manifest", manifest("whole")),
        ("manifest-empty", manifest("empty")),
        ("manifest-open", manifest("open")),
        ("manifest-stamped", manifest("stamped")),
    ];
    let answer = |ours: bool, options: &[&str], file: &str, said: &str| {
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.0.join(name), bytes).unwrap());
        let mut program = match ours {
            true => Command::new(subject_program()),
            false => Command::new("redis-check-aof"),
        };
        let program = if ours { program.arg("--check-aof") } else { &mut program };
        let mut child = program
            .args(options)
            .arg(file)
            .current_dir(&dir.0)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Who does not ask does not listen.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), said.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // What is wrong at which byte is told in words of each one's own.
        let text: Vec<String> = text.lines().filter(|line| !line.starts_with("0x")).map(str::to_owned).collect();
        let left: Vec<u64> = files.iter().map(|(name, _)| dir.0.join(name).metadata().unwrap().len()).collect();
        (text, output.status.code(), left)
    };
    for (file, _) in &files {
        for (options, said) in [
            (&[][..], ""),
            (&["--fix"], "y\n"),
            (&["--fix"], "n\n"),
            (&["--truncate-to-timestamp", "102"], ""),
            (&["--truncate-to-timestamp", "99"], ""),
            (&["--truncate-to-timestamp", "103"], ""),
            (&["--truncate-to-timestamp", "x"], ""),
        ] {
            assert_eq!(answer(true, options, file, said), answer(false, options, file, said), "{options:?} {file}");
        }
    }
}

#[test]
fn a_rewrite_goes_by_the_configuration_that_it_began_with() {
    let server = Server::subject(&["--appendonly", "yes"]);
    let mut client = server.connect();
    let directory = server.dir().join("appendonlydir");
    for round in 0..30 {
        let (now, then, ending) = if round % 2 == 0 { ("yes", "no", "rdb") } else { ("no", "yes", "aof") };
        ok(&mut client, &["CONFIG", "SET", "aof-use-rdb-preamble", now]);
        let changed = ["CONFIG", "SET", "aof-use-rdb-preamble", then].map(String::from).to_vec();
        let replies = client.pipeline(&[vec!["BGREWRITEAOF".to_owned()], changed]).unwrap();
        assert!(replies.iter().all(|reply| reply.starts_with(b"+")), "{replies:?}");
        wait_for_rewrite(&mut client);
        let manifest = std::fs::read_to_string(directory.join("appendonly.aof.manifest")).unwrap();
        let base = format!("appendonly.aof.{}.base.{ending}", round + 2);
        assert!(manifest.contains(&base), "no {base} in {manifest}");
    }
}

/// Waits until no rewrite goes on.
fn wait_for_rewrite(client: &mut Client) {
    loop {
        let info = String::from_utf8_lossy(&client.cmd(&["INFO", "persistence"])).into_owned();
        if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
            assert!(info.contains("aof_last_bgrewrite_status:ok"), "{info}");
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_checker_of_redis_finds_nothing_wrong_with_the_log() {
    static SAID: Once = Once::new();
    if !have("redis-check-aof", &SAID) {
        return;
    }
    for timestamps in ["no", "yes"] {
        let shared = Shared::new();
        let server = Server::subject(&shared.args(&["--appendonly", "yes", "--aof-timestamp-enabled", timestamps]));
        let mut client = server.connect();
        fill(&mut client);
        assert!(client.cmd(&["BGREWRITEAOF"]).starts_with(b"+"));
        wait_for_rewrite(&mut client);
        ok(&mut client, &["SET", "behind", "1"]);
        let manifest = shared.0.join("appendonlydir/appendonly.aof.manifest");
        let checked = Command::new("redis-check-aof").arg(manifest).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && text.contains("All AOF files and manifest are valid"), "{text}");
    }
}
