//! Servers that follow each other: Spinel and Redis in both parts, cut off, restarted, exchanged.
//!
//! Data of all kinds are changed at random while links are cut; at rest the data sets are equal, to the digest of all
//! that is there. A run is decided by its seed, which a failure prints and `SPINEL_SEED` repeats.

mod hostile;
mod moving;
mod prompt;
mod restarts;
mod sentinel;
mod two_channels;

use std::process::Command;
use std::time::Duration;

use crate::interop::random::{Commands, forget_hyperloglogs, found_broken};
use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::{Server, have, scratch, tell};
use crate::support::watch::{eventually, figure, info};

/// So many commands are sent between two cuts.
const BATCH: usize = 150;
/// How often a link is cut in a run.
const CUTS: usize = 20;
/// What a primary is told, so that nobody waits for others who want the same.
const AT_ONCE: &[&str] = &["--repl-diskless-sync-delay", "0"];

fn ok(reply: &[u8]) {
    assert!(reply.starts_with(b"+OK"), "{}", reply.escape_ascii());
}

/// Has `replica` follow `primary`, and waits until it does.
fn follow(replica: &mut Client, primary: &Server) {
    ok(&replica.cmd(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]));
    linked(replica);
}

fn linked(replica: &mut Client) {
    eventually("the link is up", || info(replica, "master_link_status") == "up");
}

/// Waits until `replica` has all that `primary` has.
fn caught_up(primary: &mut Client, replica: &mut Client) {
    eventually("the replica has everything", || {
        let (theirs, ours) = (figure(primary, "master_repl_offset"), figure(replica, "slave_repl_offset"));
        info(replica, "master_link_status") == "up" && ours >= theirs
    });
}

/// Compares all data, and where they differ says of which keys.
fn assert_equal(primary: &mut Client, replica: &mut Client, what: &str) {
    caught_up(primary, replica);
    // What expires between the two looks is no difference, so there are a few of them.
    for _ in 0..5 {
        let [ours, theirs] = [&mut *primary, &mut *replica].map(|client| client.cmd(&["DEBUG", "DIGEST"]));
        if ours == theirs {
            return;
        }
        caught_up(primary, replica);
    }
    let mut different = Vec::new();
    for db in 0..16 {
        let db = db.to_string();
        for client in [&mut *primary, &mut *replica] {
            client.cmd(&["SELECT", &db]);
        }
        for client in [&mut *primary, &mut *replica].map(|client| client.cmd(&["KEYS", "*"])) {
            for key in Tree::parse(&client).items().iter().filter_map(Tree::bytes) {
                let ask = |client: &mut Client| client.cmd(&[b"DEBUG".as_slice(), b"DIGEST-VALUE", key]);
                if ask(primary) != ask(replica) {
                    let dump = |client: &mut Client| {
                        let dump = client.cmd(&[b"DUMP".as_slice(), key]);
                        String::from_utf8_lossy(&dump[..dump.len().min(400)]).escape_debug().to_string()
                    };
                    different.push(format!("{db}:{}\n  {}\n  {}\n", key.escape_ascii(), dump(primary), dump(replica)));
                }
            }
        }
    }
    panic!("{what}: data differ at\n{}", different.concat());
}

fn seed() -> u64 {
    let given = std::env::var("SPINEL_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("SPINEL_SEED is a number"));
    tell(&format!("SPINEL_SEED={seed} repeats this run of replication"));
    seed
}

/// Has a primary run commands of all kinds.
fn change(primary: &mut Client, batch: &[Vec<String>]) {
    let told = primary.pipeline(batch).unwrap();
    // What began a transaction and did not end it would have the next batch wait in it.
    primary.cmd(&["DISCARD"]);
    if found_broken(&told) {
        forget_hyperloglogs(primary);
    }
}

/// Changes data on `primary` while the links of all `replicas` are cut again and again; at rest all are equal. Each cut
/// costs what was missed meanwhile and no more: there are as many partial syncs as cuts, and one full one a replica.
fn run_with_cuts(primary: &Server, replicas: &[&Server]) {
    let seed = seed();
    let mut commands = Commands::new(seed);
    let mut ours = primary.connect();
    // What was there before is given as a whole, what changes later as a stream.
    change(&mut ours, &commands.next(BATCH));
    let mut above = primary;
    let mut theirs = Vec::new();
    let mut cuts = vec![0; replicas.len()];
    for replica in replicas {
        let mut client = replica.connect();
        follow(&mut client, above);
        theirs.push(client);
        above = replica;
    }
    for cut in 0..CUTS {
        change(&mut ours, &commands.next(BATCH));
        let n = cut % theirs.len();
        // The one before may be on its way to be mended.
        eventually("there is a link to cut", || theirs[n].cmd(&["CLIENT", "KILL", "TYPE", "master"]) == b":1\r\n");
        cuts[n] += 1;
        change(&mut ours, &commands.next(BATCH / 3));
        if cut % 5 == 4 {
            for client in &mut theirs {
                assert_equal(&mut ours, client, &format!("SPINEL_SEED={seed}, cut {cut}"));
            }
        }
    }
    let mut above = &mut ours;
    for (cuts, client) in cuts.into_iter().zip(&mut theirs) {
        let found = (figure(above, "sync_full"), figure(above, "sync_partial_ok"));
        assert_eq!(found, (1, cuts), "SPINEL_SEED={seed}: who was cut off goes on where it stopped");
        above = client;
    }
}

#[test]
fn a_link_that_was_killed_is_down_until_there_is_another() {
    let (primary, replica) = (Server::subject(AT_ONCE), Server::subject(&[]));
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    follow(&mut theirs, &primary);
    for cuts in 1..=10 {
        assert_eq!(theirs.cmd(&["CLIENT", "KILL", "TYPE", "master"]), b":1\r\n");
        linked(&mut theirs);
        assert_eq!((figure(&mut ours, "sync_full"), figure(&mut ours, "sync_partial_ok")), (1, cuts));
    }
}

#[test]
fn a_redis_replica_has_what_spinel_has() {
    let subject = Server::subject(AT_ONCE);
    let Some(oracle) = Server::oracle(&[]) else { return };
    run_with_cuts(&subject, &[&oracle]);
}

#[test]
fn a_spinel_replica_has_what_redis_has() {
    let Some(oracle) = Server::oracle(AT_ONCE) else { return };
    let subject = Server::subject(&[]);
    run_with_cuts(&oracle, &[&subject]);
}

#[test]
fn spinel_replicas_follow_each_other() {
    let primary = Server::subject(&["--repl-diskless-sync", "no"]);
    let middle = Server::subject(&["--repl-diskless-sync-delay", "0", "--appendonly", "yes"]);
    let last = Server::subject(&["--repl-diskless-load", "swapdb"]);
    run_with_cuts(&primary, &[&middle, &last]);
}

#[test]
fn functions_and_messages_reach_replicas() {
    let (primary, replica) = (Server::subject(AT_ONCE), Server::subject(&[]));
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    let library = |name: &str| format!("#!lua name={name}\nredis.register_function('{name}', function() return 1 end)");
    ours.cmd(&["FUNCTION", "LOAD", &library("before")]);
    follow(&mut theirs, &primary);
    ours.cmd(&["FUNCTION", "LOAD", &library("later")]);
    let mut listener = replica.connect();
    listener.cmd(&["SUBSCRIBE", "news"]);
    ours.cmd(&["PUBLISH", "news", "hello"]);
    assert_eq!(listener.reply().unwrap(), b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    caught_up(&mut ours, &mut theirs);
    assert_eq!(theirs.cmd(&["FCALL_RO", "before", "0"]).first(), Some(&b'-'), "it may write, as far as it says");
    let list = String::from_utf8_lossy(&theirs.cmd(&["FUNCTION", "LIST"])).into_owned();
    assert!(list.contains("before") && list.contains("later"), "{list}");
}

#[test]
fn a_replica_answers_as_its_configuration_says() {
    let (primary, replica) = (Server::subject(AT_ONCE), Server::subject(&[]));
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    ours.cmd(&["SET", "a", "1"]);
    follow(&mut theirs, &primary);
    caught_up(&mut ours, &mut theirs);
    let read_only = b"-READONLY You can't write against a read only replica.\r\n";
    assert_eq!(theirs.cmd(&["SET", "a", "2"]), read_only);
    let script = theirs.cmd(&["EVAL", "return redis.call('set', KEYS[1], 2)", "1", "a"]);
    assert!(script.starts_with(b"-READONLY You can't write"), "{}", script.escape_ascii());
    assert_eq!(theirs.cmd(&["GET", "a"]), b"$1\r\n1\r\n");
    theirs.cmd(&["CONFIG", "SET", "replica-read-only", "no"]);
    ok(&theirs.cmd(&["SET", "mine", "2"]));
    assert_eq!(ours.cmd(&["EXISTS", "mine"]), b":0\r\n");
    // Deadlines are the primary's affair: what has passed is not seen, and not removed.
    theirs.cmd(&["CONFIG", "SET", "replica-read-only", "yes"]);
    ours.cmd(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    ours.cmd(&["SET", "soon", "x", "PX", "20"]);
    caught_up(&mut ours, &mut theirs);
    eventually("it has passed", || theirs.cmd(&["GET", "soon"]) == b"$-1\r\n");
    assert_eq!(theirs.cmd(&["DBSIZE"]), b":3\r\n");
    assert_eq!(ours.cmd(&["GET", "soon"]), b"$-1\r\n");
    caught_up(&mut ours, &mut theirs);
    assert_eq!(theirs.cmd(&["DBSIZE"]), b":2\r\n");
    theirs.cmd(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    drop(ours);
    drop(primary);
    eventually("the link is down", || info(&mut theirs, "master_link_status") == "down");
    let down = b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n";
    assert_eq!(theirs.cmd(&["GET", "a"]), down);
    assert!(theirs.cmd(&["PING"]) == down || theirs.cmd(&["INFO"]).starts_with(b"$"));
    ok(&theirs.cmd(&["REPLICAOF", "NO", "ONE"]));
    assert_eq!(theirs.cmd(&["GET", "a"]), b"$1\r\n1\r\n");
}

#[test]
fn a_redis_replica_is_given_streams_in_a_form_that_its_version_knows() {
    let primary = Server::subject(AT_ONCE);
    let Some(replica) = Server::oracle(&[]) else { return };
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    ours.cmd(&["XADD", "s", "1-1", "a", "1"]);
    ok(&ours.cmd(&["XGROUP", "CREATE", "s", "g", "0"]));
    let ask = ["XREADGROUP", "GROUP", "g", "alice", "STREAMS", "s", ">"];
    ours.cmd(&ask);
    let before = ours.cmd(&["DUMP", "s"]).len();
    // From when it was seen at another time than active its dump has both.
    eventually("it is seen again", || ours.cmd(&ask) == b"*-1\r\n" && ours.cmd(&["DUMP", "s"]).len() > before);
    follow(&mut theirs, &primary);
    assert_equal(&mut ours, &mut theirs, "a stream with a consumer");
    assert_eq!(ours.cmd(&["XPENDING", "s", "g"]), theirs.cmd(&["XPENDING", "s", "g"]));
}

#[test]
fn a_paused_replica_reads_what_comes_and_applies_it_later() {
    let primary = Server::subject(&[AT_ONCE, &["--repl-ping-replica-period", "3600"]].concat());
    let replica = Server::subject(&[]);
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    follow(&mut theirs, &primary);
    ok(&ours.cmd(&["SET", "a", "1"]));
    caught_up(&mut ours, &mut theirs);
    let before = figure(&mut theirs, "slave_repl_offset");
    ok(&theirs.cmd(&["CLIENT", "PAUSE", "100000", "WRITE"]));
    ok(&ours.cmd(&["SET", "a", "2"]));
    let all = figure(&mut ours, "master_repl_offset");
    eventually("it is there", || figure(&mut theirs, "slave_read_repl_offset") == all);
    assert_eq!(figure(&mut theirs, "slave_repl_offset"), before);
    assert_eq!(theirs.cmd(&["GET", "a"]), b"$1\r\n1\r\n");
    ok(&theirs.cmd(&["CLIENT", "UNPAUSE"]));
    caught_up(&mut ours, &mut theirs);
    assert_eq!(theirs.cmd(&["GET", "a"]), b"$1\r\n2\r\n");
}

#[test]
fn who_wants_to_be_sure_waits_for_replicas_and_disks() {
    let primary = Server::subject(&["--repl-diskless-sync-delay", "0", "--appendonly", "yes"]);
    let replica = Server::subject(&["--appendonly", "yes"]);
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    assert_eq!(ours.cmd(&["WAIT", "0", "0"]), b":0\r\n");
    assert_eq!(ours.cmd(&["WAIT", "1", "10"]), b":0\r\n");
    follow(&mut theirs, &primary);
    eventually("the replica is online", || ours.cmd(&["WAIT", "1", "1000"]) == b":1\r\n");
    ours.cmd(&["SET", "a", "1"]);
    assert_eq!(ours.cmd(&["WAIT", "1", "0"]), b":1\r\n");
    assert_eq!(theirs.cmd(&["GET", "a"]), b"$1\r\n1\r\n");
    assert_eq!(ours.cmd(&["WAIT", "2", "50"]), b":1\r\n");
    ours.cmd(&["SET", "a", "2"]);
    // How far the replica's disk is meanwhile nobody knows.
    assert!(ours.cmd(&["WAITAOF", "1", "0", "0"]).starts_with(b"*2\r\n:1\r\n"));
    ours.cmd(&["SET", "a", "3"]);
    assert_eq!(ours.cmd(&["WAITAOF", "1", "1", "0"]), b"*2\r\n:1\r\n:1\r\n");
    ours.cmd(&["CONFIG", "SET", "min-replicas-to-write", "2"]);
    assert_eq!(ours.cmd(&["SET", "a", "4"]), b"-NOREPLICAS Not enough good replicas to write.\r\n");
    ours.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    ok(&ours.cmd(&["SET", "a", "4"]));
}

#[test]
fn a_restart_of_either_goes_on_where_it_stopped() {
    let dirs = [scratch(), scratch()];
    let [first_dir, second_dir] = [0, 1].map(|n: usize| dirs[n].to_str().unwrap().to_owned());
    let primary = Server::subject(&["--dir", &first_dir, "--repl-diskless-sync-delay", "0"]);
    let mut ours = primary.connect();
    ours.cmd(&["SET", "a", "1"]);
    let replica = Server::subject(&["--dir", &second_dir]);
    let mut theirs = replica.connect();
    follow(&mut theirs, &primary);
    ours.cmd(&["INCR", "a"]);
    caught_up(&mut ours, &mut theirs);
    // The replica comes back with what it has saved.
    let _ = theirs.ask(&["SHUTDOWN", "SAVE"]);
    drop(replica);
    ours.cmd(&["INCR", "a"]);
    let port = primary.port().to_string();
    let replica = Server::subject(&["--dir", &second_dir, "--replicaof", "127.0.0.1", &port]);
    let mut theirs = replica.connect();
    linked(&mut theirs);
    assert_equal(&mut ours, &mut theirs, "after a restart of the replica");
    assert_eq!((figure(&mut ours, "sync_full"), figure(&mut ours, "sync_partial_ok")), (1, 1));
    // The primary comes back with what it has saved; the replica knows its past.
    let _ = ours.ask(&["SHUTDOWN", "SAVE"]);
    drop(primary);
    let primary = Server::subject(&["--dir", &first_dir, "--repl-diskless-sync-delay", "0"]);
    let mut ours = primary.connect();
    assert_eq!(ours.cmd(&["GET", "a"]), b"$1\r\n3\r\n");
    follow(&mut theirs, &primary);
    ours.cmd(&["INCR", "a"]);
    assert_equal(&mut ours, &mut theirs, "after a restart of the primary");
    assert_eq!((figure(&mut ours, "sync_full"), figure(&mut ours, "sync_partial_ok")), (0, 1));
    dirs.iter().for_each(|dir| _ = std::fs::remove_dir_all(dir));
}

#[test]
fn a_primary_hands_over_to_its_replica_and_back() {
    let (one, other) = (Server::subject(AT_ONCE), Server::subject(AT_ONCE));
    let (mut first, mut second) = (one.connect(), other.connect());
    first.cmd(&["SET", "a", "1"]);
    follow(&mut second, &one);
    caught_up(&mut first, &mut second);
    for (from, to, target) in [(0, 1, &other), (1, 0, &one)] {
        let mut clients = [&mut first, &mut second];
        ok(&clients[from].cmd(&["FAILOVER", "TO", "127.0.0.1", &target.port().to_string(), "TIMEOUT", "30000"]));
        eventually("it has handed over", || info(clients[from], "master_failover_state") == "no-failover");
        eventually("the other leads", || info(clients[to], "role") == "master");
        linked(clients[from]);
        assert!(clients[to].cmd(&["APPEND", "a", "x"]).starts_with(b":"));
        let [a, b] = clients;
        let (primary, replica) = if to == 0 { (a, b) } else { (b, a) };
        assert_equal(primary, replica, "after a failover");
        assert_eq!(figure(primary, "sync_full"), i64::from(to == 0));
    }
    assert_eq!(first.cmd(&["FAILOVER", "ABORT"]), b"-ERR No failover in progress.\r\n");
    assert_eq!(second.cmd(&["FAILOVER"]), b"-ERR FAILOVER is not valid when server is a replica.\r\n");
}

#[test]
fn redis_cli_fetches_files_that_redis_loads() {
    static SAID: std::sync::Once = std::sync::Once::new();
    if !have("redis-cli", &SAID) {
        return;
    }
    let subject = Server::subject(AT_ONCE);
    let mut ours = subject.connect();
    change(&mut ours, &Commands::new(seed()).next(500));
    ours.cmd(&["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"]);
    let dir = scratch();
    let fetch = |option: &str, name: &str| {
        let path = dir.join(name);
        let port = subject.port().to_string();
        let done = Command::new("redis-cli").args(["-p", &port, option]).arg(&path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    fetch("--rdb", "dump.rdb");
    fetch("--functions-rdb", "functions.rdb");
    eventually("nobody follows", || figure(&mut ours, "connected_slaves") == 0);
    let load = |name: &str| Server::oracle(&["--dir", dir.to_str().unwrap(), "--dbfilename", name]);
    if let Some(oracle) = load("dump.rdb") {
        let mut theirs = oracle.connect();
        assert_eq!(ours.cmd(&["DEBUG", "DIGEST"]), theirs.cmd(&["DEBUG", "DIGEST"]));
        assert_eq!(ours.cmd(&["FUNCTION", "DUMP"]).len(), theirs.cmd(&["FUNCTION", "DUMP"]).len());
    }
    if let Some(oracle) = load("functions.rdb") {
        let mut theirs = oracle.connect();
        assert_eq!(theirs.cmd(&["DBSIZE"]), b":0\r\n");
        assert!(String::from_utf8_lossy(&theirs.cmd(&["FUNCTION", "LIST"])).contains("lib"));
    }
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn a_primary_that_ends_waits_for_its_replicas() {
    let mut primary = Server::subject(&["--repl-diskless-sync-delay", "0", "--shutdown-timeout", "60"]);
    let replica = Server::subject(&[]);
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    follow(&mut theirs, &primary);
    caught_up(&mut ours, &mut theirs);
    eventually("it is online", || ours.cmd(&["WAIT", "1", "1000"]) == b":1\r\n");
    // The replica is stopped: it hears of nothing.
    let mut stopper = replica.connect();
    stopper.send(&crate::support::client::request(&["DEBUG", "SLEEP", "2"])).unwrap();
    eventually("it sleeps", || {
        theirs.patience(Duration::from_millis(100)).unwrap();
        theirs.ask(&["PING"]).is_err()
    });
    ours.cmd(&["SET", "last", "1"]);
    let _ = ours.ask(&["SHUTDOWN"]);
    eventually("it has ended", || !primary.alive());
    drop(stopper);
    let mut theirs = replica.connect();
    assert_eq!(theirs.cmd(&["GET", "last"]), b"$1\r\n1\r\n");
}
