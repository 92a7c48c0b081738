//! What is counted of scripts: the commands that they are refused, the errors that they return, and what becomes of scripts
//! that say by their flags what a server must be like to run them.

use crate::support::client::{Client, request};
use crate::support::server::Server;
use crate::support::watch::{eventually, info};

/// Scripts, each with figures from zero. `!` begins one of EVAL_RO, `*` one in a transaction.
const SCRIPTS: &[&str] = &[
    "return 1",
    "redis.pcall('nosuch') return 1",
    "return redis.call('nosuch')",
    "return redis.pcall('nosuch')",
    "redis.pcall('multi') return 1",
    "redis.pcall('get') return 1",
    "return pcall(redis.call, 'get')",
    "return redis.pcall('get')",
    "redis.call('get')",
    "return {redis.pcall('lpush', 'a')}",
    "redis.pcall() return 1",
    "redis.call('set', 'k', 'v') return {redis.pcall('lpush', 'k', 'x')}",
    "redis.call('set', 'k', 'v') return redis.pcall('lpush', 'k', 'x')",
    "redis.call('set', 'k', 'v') redis.call('lpush', 'k', 'x')",
    "return redis.error_reply('A b')",
    "return redis.error_reply('A')",
    "return redis.error_reply('')",
    "return redis.error_reply(1)",
    "redis.error_reply('A b') return 1",
    "error(redis.error_reply('A b'))",
    "return {1, {err = 'B c'}, {{err = 'D e'}}}",
    "return {err = 'Z'}",
    "return {err = ''}",
    "return {err = '-A b'}",
    "error('x')",
    "*return redis.error_reply('A b')",
    "!return redis.pcall('set', 'a', 'b')",
    "!redis.call('set', 'a', 'b')",
    "#!lua\nreturn 1",
    "!#!lua\nreturn 1",
    "*#!lua\nreturn 1",
    "#!lua flags=no-writes\nreturn 1",
    "*#!lua flags=no-writes\nreturn 1",
    "#!lua flags=allow-oom\nreturn redis.call('set', 'a', 'b')",
    "#!lua flags=no-writes,allow-stale\nreturn 1",
    "#!lua flags=no-writes,allow-stale\nreturn redis.call('get', 'a')",
    "#!lua flags=allow-stale\nreturn 1",
    "return redis.call('echo', 'a')",
    "return redis.call('get', 'a')",
    "return redis.call('set', 'a', 'b')",
    "redis.pcall('set', 'a', 'b') return 2",
    "*redis.pcall('set', 'a', 'b') return 2",
];

/// States of a server in which it refuses some of them, and the way back.
const STATES: &[(&[&str], &[&str])] = &[
    (&["CONFIG SET maxmemory 0"], &[]),
    (&["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]),
    (&["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]),
    (
        &["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        &["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
    ),
    (&["CONFIG SET min-replicas-to-write 1"], &["CONFIG SET min-replicas-to-write 0"]),
];

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).replace("\r\n", "|")
}

fn ask(client: &mut Client, line: &str) -> String {
    text(&client.cmd(&line.split(' ').collect::<Vec<_>>()))
}

/// What was counted since the last reset: errors, and of each command how often it ran, was refused, and failed.
fn counted(client: &mut Client) -> Vec<String> {
    let info = ask(client, "INFO errorstats") + &ask(client, "INFO commandstats") + &ask(client, "INFO stats");
    let kept = |line: &&str| {
        line.starts_with("errorstat_")
            || line.starts_with("total_error_replies")
            || line.starts_with("cmdstat_") && !line.starts_with("cmdstat_config|") && !line.starts_with("cmdstat_info")
    };
    let without_times =
        |line: &str| line.split(',').filter(|part| !part.starts_with("usec")).collect::<Vec<_>>().join(",");
    let mut lines: Vec<String> = info.split("|").filter(kept).map(without_times).collect();
    lines.sort();
    lines
}

fn run(client: &mut Client, script: &str) -> Vec<String> {
    ask(client, "CONFIG RESETSTAT");
    let mut said = match script.strip_prefix('*') {
        Some(script) => {
            client.cmd(&["MULTI"]);
            vec![text(&client.cmd(&["EVAL", script, "0"])), text(&client.cmd(&["EXEC"]))]
        }
        None => {
            let (command, script) = script.strip_prefix('!').map_or(("EVAL", script), |script| ("EVAL_RO", script));
            vec![text(&client.cmd(&[command, script, "0"]))]
        }
    };
    said.extend(counted(client));
    said
}

#[test]
fn scripts_are_refused_and_counted_as_by_redis() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    let mut wrong = Vec::new();
    for (begin, end) in STATES {
        for client in [&mut ours, &mut theirs] {
            begin.iter().for_each(|line| assert_eq!(ask(client, line), "+OK|"));
        }
        for script in SCRIPTS {
            let said = [run(&mut ours, script), run(&mut theirs, script)];
            if said[0] != said[1] {
                wrong.push(format!("{begin:?} {script}\n  ours   {:?}\n  theirs {:?}", said[0], said[1]));
            }
        }
        for client in [&mut ours, &mut theirs] {
            end.iter().for_each(|line| assert_eq!(ask(client, line), "+OK|"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn who_waits_for_a_limited_time_is_counted_apart() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let counted = |server: &Server| {
        let waits = [["BLPOP", "list", "0"], ["BLPOP", "list", "100"], ["BRPOP", "list", "100"]];
        let mut waiting: Vec<Client> = waits.iter().map(|_| server.connect()).collect();
        waiting.iter_mut().zip(waits).for_each(|(client, wait)| client.send(&request(&wait)).unwrap());
        let mut client = server.connect();
        eventually("all wait", || info(&mut client, "blocked_clients") == "3");
        let during = info(&mut client, "clients_in_timeout_table");
        client.cmd(&["RPUSH", "list", "a", "b", "c"]);
        eventually("nobody waits", || info(&mut client, "blocked_clients") == "0");
        (during, info(&mut client, "clients_in_timeout_table"))
    };
    assert_eq!(counted(&subject), counted(&oracle));
}

#[test]
fn reads_writes_and_saves_are_counted_from_the_last_reset() {
    let Some((subject, oracle)) = Server::pair(&["--enable-debug-command", "yes"]) else { return };
    let counted = |server: &Server| {
        let mut client = server.connect();
        for line in ["SAVE", "CONFIG RESETSTAT", "PING", "PING"] {
            ask(&mut client, line);
        }
        let info = ask(&mut client, "INFO everything");
        let is_wanted = |line: &&str| {
            ["total_reads_processed:", "total_writes_processed:", "rdb_saves:", "aof_rewrites:"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        info.split('|').filter(is_wanted).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(counted(&subject), counted(&oracle));
}
