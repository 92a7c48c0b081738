//! Replicas that come and go while a primary is written to without a pause, Redis and Spinel in both parts: some of
//! them come back with what they had saved, others with nothing; at rest the data sets are equal.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::interop::random::Commands;
use crate::support::client::Client;
use crate::support::server::{Server, scratch};
use crate::support::watch::{eventually, figure};

/// How often a replica is ended and started.
const RESTARTS: usize = 5;
/// So many commands are sent together.
const BATCH: usize = 50;
/// What there is before: so much that a data set is still on its way when it has changed already.
const KEYS: usize = 20_000;
/// Effects that nobody could guess: chance, the time, what comes first.
const RANDOM: &str = "local now = redis.call('TIME')
    redis.call('SADD', KEYS[1], math.random(100000), now[2])
    redis.call('SPOP', KEYS[1], 1)
    redis.call('LPUSH', KEYS[2], redis.call('SRANDMEMBER', KEYS[1]) or '', redis.call('RANDOMKEY') or '')
    redis.call('LTRIM', KEYS[2], 0, 100)
    redis.call('SET', KEYS[3], now[1], 'EX', 1000 + math.random(1000))";

/// A library of which each version does something else.
fn library(version: usize) -> String {
    format!(
        "#!lua name=gem\nredis.register_function('mark', function(keys, args)
            redis.call('XADD', keys[1], 'MAXLEN', '~', 200, '*', 'version', {version}, 'arg', args[1])
            return redis.call('HINCRBY', keys[2], 'calls', 1)
        end)"
    )
}

/// Has the writer stop however the test ends: it would be waited for.
struct Stop<'w>(&'w AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Writes until it is told to stop; returns how often it wrote.
fn write(primary: &mut Client, commands: &mut Commands, wanted: &AtomicBool, mut version: usize) -> usize {
    while wanted.load(Ordering::Relaxed) {
        version += 1;
        let mut batch = commands.next(BATCH);
        let text = version.to_string();
        for words in [
            vec!["EVAL", RANDOM, "3", "random:s", "random:l", "random:x"],
            vec!["FUNCTION", "LOAD", "REPLACE", &library(version / 10)],
            vec!["FCALL", "mark", "2", "mark:x", "mark:h", &text],
            vec!["SET", "volatile", &text, "PX", "30"],
        ] {
            batch.push(words.into_iter().map(str::to_owned).collect());
        }
        super::change(primary, &batch);
    }
    version
}

/// Restarts a replica, which `start` starts in a folder, while `primary` is written to.
fn run(primary: &Server, start: impl Fn(&Path) -> Option<Server>) {
    let mut commands = Commands::new(super::seed());
    let mut ours = primary.connect();
    ours.cmd(&["DEBUG", "POPULATE", &KEYS.to_string(), "here", "100"]);
    let mut dir = scratch();
    let Some(mut replica) = start(&dir) else { return };
    let mut version = 0;
    for restart in 0..RESTARTS {
        let wanted = AtomicBool::new(true);
        let mut writer = primary.connect();
        let (theirs, wrote) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| write(&mut writer, &mut commands, &wanted, version));
            let stop = Stop(&wanted);
            let mut theirs = replica.connect();
            super::linked(&mut theirs);
            let before = figure(&mut ours, "master_repl_offset");
            eventually("it follows what is written", || figure(&mut theirs, "slave_repl_offset") > before);
            let _ = theirs.ask(&["SHUTDOWN", "SAVE"]);
            drop(theirs);
            eventually("it has ended", || !replica.alive());
            if restart % 2 == 1 {
                // It comes back with nothing.
                let _ = std::fs::remove_dir_all(&dir);
                dir = scratch();
            }
            replica = start(&dir).expect("it was there before");
            let mut theirs = replica.connect();
            super::linked(&mut theirs);
            drop(stop);
            (theirs, writing.join().unwrap())
        });
        assert!(wrote > version, "it was written to meanwhile");
        version = wrote;
        let mut theirs = theirs;
        // Else it goes between the two looks.
        eventually("what lasts shortest has gone", || ours.cmd(&["EXISTS", "volatile"]) == b":0\r\n");
        super::assert_equal(&mut ours, &mut theirs, &format!("restart {restart}"));
        let list = ["FUNCTION", "LIST", "WITHCODE"];
        assert_eq!(ours.cmd(&list), theirs.cmd(&list), "restart {restart}");
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn with_dir<'a>(dir: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    ["--dir", dir.to_str().unwrap()].into_iter().chain(rest.iter().copied()).collect()
}

#[test]
fn a_spinel_replica_is_restarted_while_redis_is_written_to() {
    let Some(redis) = Server::oracle(super::AT_ONCE) else { return };
    let port = redis.port().to_string();
    run(&redis, |dir| Some(Server::subject(&with_dir(dir, &["--replicaof", "127.0.0.1", &port]))));
}

#[test]
fn a_redis_replica_is_restarted_while_spinel_is_written_to() {
    let spinel = Server::subject(super::AT_ONCE);
    let port = spinel.port().to_string();
    run(&spinel, |dir| Server::oracle(&with_dir(dir, &["--replicaof", "127.0.0.1", &port])));
}
