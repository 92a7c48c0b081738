//! Scripts as their callers, the log and those who monitor see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::client::shared::{Link, Shared};
use crate::command::testing::Bench;
use crate::observe::stats::Counter;
use crate::persist::log::Wants;
use crate::resp::reply::{Output, Protocol};
use crate::script::cache::{EVALUATED_MAX, Reach};
use crate::script::vm::sha;

/// What goes to the log from now on: the words of all commands.
fn logged(bench: &Bench) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    bench.engine.log.read_with(Box::new(move |bytes| theirs.lock().extend_from_slice(bytes)));
    seen
}

/// What replicas are told from now on, messages too.
fn told(bench: &Bench) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    bench.engine.log.join(Wants::Messages, |_| Box::new(move |bytes: &[u8]| theirs.lock().extend_from_slice(bytes)));
    seen
}

fn taken(seen: &Mutex<Vec<u8>>) -> String {
    let text = String::from_utf8(std::mem::take(&mut *seen.lock())).unwrap();
    let words: Vec<&str> =
        text.split("\r\n").filter(|line| !line.starts_with(['*', '$']) && !line.is_empty()).collect();
    words.join(" ")
}

fn reach(bench: &Bench, text: &str) -> Reach {
    bench.engine.scripts.cache.find(&sha(text.as_bytes())).map_or(Reach::Unknown, |script| script.learned.reach())
}

#[test]
fn a_script_calls_commands_and_replies_with_what_it_returns() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("EVAL 'return redis.call(\"SET\", KEYS[1], ARGV[1])' 1 k v"), "+OK|");
    assert_eq!(bench.run("EVAL 'return redis.call(\"GET\", KEYS[1])' 1 k"), "$1|v|");
    assert_eq!(bench.run("EVAL 'return {KEYS[1], ARGV[1], #KEYS, #ARGV}' 1 k a b"), "*4|$1|k|$1|a|:1|:2|");
    assert_eq!(bench.run("EVAL 'return redis.call(\"KEYS\", \"*\")' 0"), "*1|$1|k|");
    assert_eq!(bench.run("EVAL 'redis.call(\"SELECT\", 3) return redis.call(\"DBSIZE\")' 0"), ":0|");
    assert_eq!(bench.run("DBSIZE"), ":1|");
}

#[test]
fn what_a_script_calls_counts_as_its_client_s() {
    let mut bench = Bench::new();
    bench.run("EVAL 'redis.call(\"PING\") redis.pcall(\"NOSUCH\") return redis.call(\"PING\")' 0");
    assert_eq!(bench.session.shared.figures.commands.load(Ordering::Relaxed), 2);
}

#[test]
fn what_its_user_may_not_call_is_told_before_what_nobody_may_now() {
    let mut bench = Bench::new();
    bench.run("ACL SETUSER bob on nopass ~* +@all -set");
    bench.run("AUTH bob any");
    let call = "'return redis.pcall(\"SET\", \"a\", \"1\").err' 0";
    let told = "ERR ACL failure in script: User bob has no permissions to run the 'set' command|";
    assert!(bench.run(&format!("EVAL_RO {call}")).ends_with(told));
    bench.run("SETEX large 1000 1");
    bench.run("CONFIG SET maxmemory 1");
    assert!(bench.run(&format!("EVAL {call}")).ends_with(told));
}

#[test]
fn the_log_gets_what_a_script_did_as_one_thing() {
    let mut bench = Bench::new();
    let seen = logged(&bench);
    bench.run("EVAL 'return redis.call(\"GET\", KEYS[1])' 1 a");
    assert_eq!(taken(&seen), "");
    bench.run("EVAL 'return redis.call(\"INCR\", KEYS[1])' 1 a");
    assert_eq!(taken(&seen), "SELECT 0 INCR a");
    for _ in 0..2 {
        bench.run("EVAL 'redis.call(\"SET\", KEYS[1], 1) redis.call(\"DEL\", KEYS[1]) redis.pcall(\"NOSUCH\")' 1 a");
        assert_eq!(taken(&seen), "MULTI SET a 1 DEL a EXEC");
    }
    bench.run("EVAL 'redis.call(\"SET\", KEYS[1], 1) error(\"x\")' 1 a");
    assert_eq!(taken(&seen), "SET a 1", "what it did before it failed stays done");
    bench.run("EVAL 'redis.call(\"SELECT\", 2) redis.call(\"SET\", KEYS[1], 1)' 1 a");
    assert_eq!(taken(&seen), "SELECT 2 SET a 1");
    bench.run("EVAL 'redis.set_repl(redis.REPL_NONE) redis.call(\"SET\", KEYS[1], 2) redis.set_repl(redis.REPL_ALL) redis.call(\"SET\", KEYS[1], 3)' 1 a");
    assert_eq!(taken(&seen), "SELECT 0 SET a 3");
    bench.run("MULTI");
    bench.run("SET b 1");
    bench.run("EVAL 'redis.call(\"SET\", \"c\", 1)' 0");
    assert_eq!(bench.run("EXEC"), "*2|+OK|$-1|");
    assert_eq!(taken(&seen), "MULTI SET b 1 SET c 1 EXEC");
    bench.run("FUNCTION LOAD \"#!lua name=l\\nredis.register_function('f', function(k) return redis.call('INCR', k[1]) end)\"");
    assert!(taken(&seen).starts_with("FUNCTION LOAD #!lua name=l"));
    assert_eq!(bench.run("FCALL f 1 n"), ":1|");
    assert_eq!(taken(&seen), "INCR n");
}

#[test]
fn messages_are_told_in_their_place_and_to_replicas_alone() {
    let mut bench = Bench::new();
    let (file, replicas) = (logged(&bench), told(&bench));
    for line in ["MULTI", "SET a 1", "PUBLISH c m", "SET b 1", "EXEC"] {
        bench.run(line);
    }
    assert_eq!(taken(&replicas), "MULTI SELECT 0 SET a 1 PUBLISH c m SET b 1 EXEC");
    assert_eq!(taken(&file), "MULTI SELECT 0 SET a 1 SET b 1 EXEC");
    bench.run("EVAL 'redis.call(\"SET\", KEYS[1], 2) redis.call(\"SPUBLISH\", \"c\", \"m\") redis.call(\"DEL\", KEYS[1])' 1 a");
    assert_eq!(taken(&replicas), "MULTI SELECT 0 SET a 2 SPUBLISH c m DEL a EXEC");
    assert_eq!(taken(&file), "MULTI SELECT 0 SET a 2 DEL a EXEC");
    for line in ["MULTI", "PUBLISH c 1", "SET q 1", "EXEC", "MULTI", "PUBLISH c 2", "EXEC"] {
        bench.run(line);
    }
    assert_eq!(taken(&replicas), "MULTI SELECT 0 PUBLISH c 1 SET q 1 EXEC SELECT 0 PUBLISH c 2");
    assert_eq!(taken(&file), "SELECT 0 SET q 1");
    // Who is told nothing of the command is told nothing of its message, and what follows goes where it would.
    bench.run("EVAL 'redis.set_repl(redis.REPL_NONE) redis.call(\"PUBLISH\", \"c\", \"x\") redis.set_repl(redis.REPL_ALL) redis.call(\"SET\", \"a\", 1)' 0");
    assert_eq!((taken(&replicas), taken(&file)), ("SELECT 0 SET a 1".into(), "SELECT 0 SET a 1".into()));
    bench.run(
        "EVAL 'redis.set_repl(redis.REPL_AOF) redis.call(\"PUBLISH\", \"c\", \"x\") redis.call(\"SET\", \"a\", 1)' 0",
    );
    assert_eq!((taken(&replicas), taken(&file)), (String::new(), "SELECT 0 SET a 1".into()));
}

#[test]
fn what_keys_a_script_touches_is_learned_and_a_wrong_lesson_costs_nothing() {
    let mut bench = Bench::new();
    let honest = "return redis.call(\"INCR\", KEYS[1])";
    assert_eq!(bench.run(&format!("EVAL '{honest}' 1 a")), ":1|");
    assert_eq!(reach(&bench, honest), Reach::Declared);
    assert_eq!(bench.run(&format!("EVAL '{honest}' 1 a")), ":2|");
    let sly = "return redis.call(\"INCR\", \"hidden\")";
    bench.run(&format!("EVAL '{sly}' 0"));
    assert_eq!(reach(&bench, sly), Reach::Any);
    // It goes astray only when it is told to: before it has written, after that, and to see everything.
    let moody = "if ARGV[1] == \"w\" then redis.call(\"INCR\", KEYS[1]) end \
                 if ARGV[2] == \"k\" then return redis.call(\"INCR\", \"elsewhere\" .. ARGV[3]) end \
                 if ARGV[2] == \"a\" then return redis.call(\"DBSIZE\") end return redis.call(\"GET\", KEYS[1])";
    for (n, (first, second)) in [("w", "k"), ("r", "k"), ("w", "a"), ("r", "a")].into_iter().enumerate() {
        let moody = format!("{moody} -- {n}");
        let mut bench = Bench::new();
        bench.run("MSET x 1 y 2");
        // What stands in the shard of its key is no further than that.
        let shard = |key: &str| bench.engine.keyspace.hasher().hash(key.as_bytes()).shard();
        let far = (0..).find(|n| shard(&format!("elsewhere{n}")) != shard("x")).unwrap();
        assert_eq!(bench.run(&format!("EVAL '{moody}' 1 x r n")), "$1|1|");
        assert_eq!(reach(&bench, &moody), Reach::Declared);
        let expected = if second == "k" { ":1|" } else { ":2|" };
        assert_eq!(bench.run(&format!("EVAL '{moody}' 1 x {first} {second} {far}")), expected);
        assert_eq!(reach(&bench, &moody), Reach::Any);
        assert_eq!(bench.run("GET x"), if first == "w" { "$1|2|" } else { "$1|1|" });
        assert!(bench.engine.keyspace.hold_while(crate::keyspace::hold::ShardSet::ALL, || false).is_some());
    }
}

#[test]
fn the_text_of_a_script_is_shown_to_who_knows_its_sha() {
    let mut bench = Bench::new();
    let sha = bench.run("SCRIPT LOAD 'return 42'").split('|').nth(1).unwrap().to_owned();
    assert_eq!(bench.run(&format!("SCRIPT SHOW {}", sha.to_uppercase())), "$9|return 42|");
    assert_eq!(bench.run("SCRIPT SHOW 1234"), "-NOSCRIPT No matching script. Please use EVAL.|");
}

#[test]
fn of_the_operating_system_a_script_knows_its_own_time_alone() {
    let mut bench = Bench::new();
    let mut eval = |script: &str| bench.run(&format!("EVAL \"{script}\" 0"));
    assert_eq!(eval("local names = '' for name in pairs(os) do names = names .. name end return names"), "$5|clock|");
    assert_eq!(eval("local began = os.clock() while os.clock() - began < 0.01 do end return 1"), ":1|");
    assert!(eval("os.exit()").contains("attempt to call field 'exit' (a nil value)"));
    assert!(eval("os.exit = 1").contains("Attempt to modify a readonly table"));
}

#[test]
fn a_script_waits_for_no_disk() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("EVAL \"return redis.call('waitaof', '0', '1', '0')\" 0"), "*2|:0|:0|");
}

#[test]
fn what_is_refused_to_a_script_is_logged_as_its_own() {
    let mut bench = Bench::new();
    bench.run("ACL SETUSER bob on nopass ~* +@all -incr");
    bench.run("AUTH bob x");
    bench.run("EVAL 'redis.call(\"INCR\", KEYS[1])' 1 a");
    bench.run("AUTH default x");
    let log = bench.run("ACL LOG");
    assert!(log.contains("|lua|") && log.contains(" cmd=eval "), "{log}");
}

#[test]
fn scripts_of_eval_are_evicted_and_loaded_ones_are_not() {
    let mut bench = Bench::new();
    let loaded = bench.run("SCRIPT LOAD 'return 42'");
    let loaded = loaded.split('|').nth(1).unwrap().to_owned();
    for n in 0..EVALUATED_MAX + 10 {
        assert_eq!(bench.run(&format!("EVAL 'return {n}' 0")), format!(":{n}|"));
    }
    // One of them is the loaded one.
    assert_eq!(bench.engine.stats.total(Counter::EvictedScripts), 9);
    assert_eq!(bench.engine.scripts.cache.len(), EVALUATED_MAX + 1);
    assert_eq!(bench.run(&format!("EVALSHA {loaded} 0")), ":42|");
    assert!(bench.run("INFO memory").contains("number_of_cached_scripts:501"));
    bench.run("SCRIPT FLUSH");
    assert_eq!(bench.run(&format!("EVALSHA {loaded} 0")), "-NOSCRIPT No matching script. Please use EVAL.|");
}

#[test]
fn those_who_monitor_see_the_script_and_what_it_does() {
    let mut bench = Bench::new();
    let id = bench.engine.clients.next_id();
    let watcher = Arc::new(Shared::new(id, Link::Tcp, "9.9.9.9:9".into(), "1.2.3.4:6".into(), 10, 0));
    bench.engine.monitors.add(watcher.clone());
    bench.run("EVAL 'return redis.call(\"SET\", KEYS[1], 1)' 1 a");
    let mut out = Output::new(Protocol::Resp2);
    watcher.outbox.drain(&mut out);
    let lines = String::from_utf8(out.to_vec()).unwrap();
    let lines: Vec<&str> = lines.trim_end().split("\r\n").map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        [r#"[0 1.2.3.4:5] "EVAL" "return redis.call(\"SET\", KEYS[1], 1)" "1" "a""#, r#"[0 lua] "SET" "a" "1""#]
    );
}

#[test]
fn an_error_is_counted_once_wherever_it_arose() {
    let mut bench = Bench::new();
    bench.run("SET s x");
    bench.run("EVAL 'return redis.call(\"LPUSH\", KEYS[1], 1)' 1 s");
    let stats = bench.run("INFO errorstats");
    assert!(stats.contains("errorstat_WRONGTYPE:count=1"), "{stats}");
    bench.run("EVAL 'return redis.pcall(\"LPUSH\", KEYS[1], 1)' 1 s");
    bench.run("EVAL 'error({err=\"MINE it is\"})' 0");
    let stats = bench.run("INFO errorstats");
    assert!(stats.contains("errorstat_WRONGTYPE:count=2") && stats.contains("errorstat_MINE:count=1"), "{stats}");
}

#[test]
fn a_client_that_is_blocked_is_served_when_the_script_has_ended() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("EVAL 'return redis.call(\"BLPOP\", KEYS[1], 0)' 1 l"), "$-1|");
    assert_eq!(
        bench.run("EVAL 'redis.call(\"RPUSH\", KEYS[1], 1, 2) return redis.call(\"BLPOP\", KEYS[1], 0)' 1 l"),
        "*2|$1|l|$1|1|"
    );
}

#[test]
fn an_array_that_is_all_but_holes_is_not_written() {
    let mut bench = Bench::new();
    let encode = |bench: &mut Bench, table: &str| {
        bench.run(&format!("EVAL \"cjson.encode_sparse_array(true,0,0) return #cjson.encode({table})\" 0"))
    };
    assert_eq!(encode(&mut bench, "{[3]=1}"), ":13|");
    assert_eq!(encode(&mut bench, "{[1000000]=1}"), format!(":{}|", 999_999 * 5 + 3));
    // Of the next there would be no end.
    for table in ["{[2^53]=1}", "{[1e300]=1}"] {
        assert_eq!(encode(&mut bench, table), format!(":{}|", if table.contains("e300") { 12 } else { 24 }), "{table}");
    }
}
