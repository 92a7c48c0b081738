//! Deadlines of fields, on a server without sockets whose clock stands still.

use std::sync::{Arc, Mutex};

use crate::command::testing::Bench;
use crate::keyspace::change::{Class, Effects};
use crate::keyspace::shard::SHARDS;
use crate::keyspace::space::Patience;

/// What the timer does, and how many fields it removed.
fn tick(bench: &Bench) -> usize {
    let mut effects = Effects::default();
    let mut removed = 0;
    for shard in 0..SHARDS {
        effects.begin(bench.engine.interest());
        let now = || bench.engine.clock.now_ms();
        let pass_on = |effects: &mut Effects, _: &[u64]| bench.engine.pass_on(0, effects, &Vec::new());
        removed += bench.engine.keyspace.expire_shard(shard, Patience::Wait, now, &mut effects, pass_on).fields;
    }
    removed
}

/// Every change from now on, as `event key`, lookups that find nothing left out.
fn events(bench: &Bench) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ours = seen.clone();
    bench.engine.observe(Box::new(move |change| {
        if change.class != Class::Miss {
            ours.lock().unwrap().push(format!("{} {}", change.event, String::from_utf8_lossy(&change.key)));
        }
    }));
    seen
}

fn taken(seen: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

/// Benches whose hash `h` of `a 1 b 2 c 3` is a listpack, and a table.
fn both() -> [Bench; 2] {
    ["", "hash-max-listpack-entries 1"].map(|config| {
        let mut bench = Bench::with(config);
        bench.run("HSET h a 1 b 2 c 3");
        bench
    })
}

#[test]
fn a_deadline_is_set_told_and_taken_away() {
    for mut bench in both() {
        assert_eq!(bench.run("HEXPIRE h 100 FIELDS 2 a zz"), "*2|:1|:-2|");
        assert_eq!(bench.run("HEXPIRE none 100 FIELDS 1 a"), "*1|:-2|");
        assert_eq!(bench.run("HPTTL h FIELDS 3 a b zz"), "*3|:100000|:-1|:-2|");
        assert_eq!(bench.run("HEXPIRETIME h FIELDS 1 a"), "*1|:1000100|");
        assert_eq!(bench.run("HPEXPIRETIME h FIELDS 1 a"), "*1|:1000100000|");
        assert_eq!(bench.run("HTTL none FIELDS 2 a b"), "*2|:-2|:-2|");
        bench.clock.advance(1);
        assert_eq!(bench.run("HTTL h FIELDS 1 a"), "*1|:100|");
        bench.clock.advance(999);
        assert_eq!(bench.run("HTTL h FIELDS 1 a"), "*1|:99|");
        assert_eq!(bench.run("HPERSIST h FIELDS 3 a b zz"), "*3|:1|:-1|:-2|");
        assert_eq!(bench.run("HPERSIST none FIELDS 1 a"), "*1|:-2|");
        bench.clock.advance(1_000_000);
        assert_eq!((bench.run("HGET h a"), tick(&bench)), ("$1|1|".into(), 0));
    }
}

#[test]
fn an_expired_field_is_never_seen_and_the_timer_removes_it() {
    for mut bench in both() {
        bench.run("HPEXPIRE h 10 FIELDS 2 a b");
        bench.clock.advance(10);
        assert_eq!((bench.run("HLEN h"), tick(&bench)), (":3|".into(), 0), "at its deadline a field is alive");
        bench.clock.advance(1);
        let seen = events(&bench);
        assert_eq!(tick(&bench), 2);
        assert_eq!((taken(&seen), tick(&bench)), (vec!["hexpired h".to_owned()], 0));
        assert_eq!(bench.run("HGETALL h"), "*2|$1|c|$1|3|");
        bench.run("HPEXPIRE h 10 FIELDS 1 c");
        bench.clock.advance(11);
        taken(&seen);
        assert_eq!((tick(&bench), bench.run("DBSIZE")), (1, ":0|".into()));
        assert_eq!(taken(&seen), ["hexpired h", "del h"]);
    }
}

#[test]
fn who_meets_an_expired_field_does_not_see_it() {
    for request in [
        ("HGET h a", "$-1|"),
        ("HMGET h a b", "*2|$-1|$1|2|"),
        ("HLEN h", ":2|"),
        ("HEXISTS h a", ":0|"),
        ("HSTRLEN h a", ":0|"),
        ("HSETNX h a 5", ":1|"),
        ("HSET h a 5", ":1|"),
        ("HDEL h a", ":0|"),
        ("HINCRBY h a 5", ":5|"),
        ("HINCRBYFLOAT h a 5", "$1|5|"),
        ("HTTL h FIELDS 1 a", "*1|:-2|"),
        ("HEXPIRE h 10 FIELDS 1 a", "*1|:-2|"),
        ("HPERSIST h FIELDS 1 a", "*1|:-2|"),
        ("HGETDEL h FIELDS 1 a", "*1|$-1|"),
        ("HGETEX h FIELDS 1 a", "*1|$-1|"),
        ("HSETEX h FNX FIELDS 1 a 5", ":1|"),
        ("HSETEX h FXX FIELDS 1 a 5", ":0|"),
        ("HRANDFIELD h -1 x", "-ERR syntax error|"),
    ] {
        for mut bench in both() {
            bench.run("HPEXPIRE h 10 FIELDS 1 a");
            bench.clock.advance(11);
            assert_eq!(bench.run(request.0), request.1, "{}", request.0);
        }
    }
    for mut bench in both() {
        bench.run("HPEXPIRE h 10 FIELDS 3 a b c");
        bench.run("HSET other x 1");
        bench.clock.advance(11);
        let seen = events(&bench);
        assert_eq!((bench.run("EXISTS h"), bench.run("TYPE h")), (":0|".into(), "+none|".into()));
        assert_eq!(taken(&seen), ["hexpired h", "del h"]);
        assert_eq!(bench.run("DBSIZE"), ":1|");
    }
}

#[test]
fn more_expired_fields_than_are_removed_at_once_are_hidden() {
    let mut bench = Bench::new();
    for n in 0..1000 {
        bench.run(&format!("HSET h f{n} v"));
    }
    let names: Vec<String> = (0..900).map(|n| format!("f{n}")).collect();
    bench.run(&format!("HPEXPIRE h 10 FIELDS 900 {}", names.join(" ")));
    bench.clock.advance(11);
    assert_eq!(bench.run("HLEN h"), ":100|");
    assert_eq!(bench.run("HGET h f899"), "$-1|");
    assert!(bench.run("HGETALL h").starts_with("*200|"));
    assert!(bench.run("HRANDFIELD h 1000").starts_with("*100|"));
    let left = tick(&bench);
    assert!(left > 0 && left < 900, "{left}");
    assert_eq!((bench.run("HLEN h"), tick(&bench)), (":100|".into(), 0));
}

#[test]
fn a_deadline_that_has_passed_removes_the_field() {
    for mut bench in both() {
        let seen = events(&bench);
        assert_eq!(bench.run("HEXPIRE h 0 FIELDS 1 a"), "*1|:2|");
        assert_eq!(bench.run("HPEXPIREAT h 1000000000 FIELDS 2 b b"), "*2|:2|:-2|");
        assert_eq!(bench.run("HEXPIREAT h 5 LT FIELDS 1 c"), "*1|:2|");
        assert_eq!(bench.run("EXISTS h"), ":0|");
        assert_eq!(taken(&seen), ["hdel h", "hdel h", "hdel h", "del h"]);
    }
}

#[test]
fn conditions_compare_with_the_present_deadline() {
    for mut bench in both() {
        assert_eq!(bench.run("HEXPIRE h 100 XX FIELDS 1 a"), "*1|:0|");
        assert_eq!(bench.run("HEXPIRE h 100 GT FIELDS 1 a"), "*1|:0|");
        assert_eq!(bench.run("HEXPIRE h 100 nx FIELDS 2 a b"), "*2|:1|:1|");
        assert_eq!(bench.run("HEXPIRE h 200 NX FIELDS 2 a c"), "*2|:0|:1|");
        assert_eq!(bench.run("HEXPIRE h 150 GT FIELDS 3 a b c"), "*3|:1|:1|:0|");
        assert_eq!(bench.run("HEXPIRE h 150 LT FIELDS 3 a b c"), "*3|:0|:0|:1|");
        assert_eq!(bench.run("HEXPIRE h 1 LT FIELDS 1 zz"), "*1|:-2|");
        assert_eq!(bench.run("HTTL h FIELDS 3 a b c"), "*3|:150|:150|:150|");
    }
}

#[test]
fn writing_a_value_takes_the_deadline_away_and_counting_up_does_not() {
    for mut bench in both() {
        bench.run("HEXPIRE h 100 FIELDS 3 a b c");
        bench.run("HSET h a 5");
        bench.run("HINCRBY h b 5");
        bench.run("HINCRBYFLOAT h c 0.5");
        assert_eq!(bench.run("HTTL h FIELDS 3 a b c"), "*3|:-1|:100|:100|");
        assert_eq!(bench.run("HMGET h a b c"), "*3|$1|5|$1|7|$3|3.5|");
    }
}

#[test]
fn getting_sets_removes_and_deletes_on_the_way() {
    for mut bench in both() {
        assert_eq!(bench.run("HGETEX h FIELDS 2 a zz"), "*2|$1|1|$-1|");
        assert_eq!(bench.run("HGETEX h EX 100 FIELDS 2 a b"), "*2|$1|1|$1|2|");
        assert_eq!(bench.run("HGETEX h PERSIST FIELDS 1 a"), "*1|$1|1|");
        assert_eq!(bench.run("HTTL h FIELDS 3 a b c"), "*3|:-1|:100|:-1|");
        assert_eq!(bench.run("HGETEX h PXAT 5 FIELDS 2 a a"), "*2|$1|1|$-1|");
        assert_eq!(bench.run("HGETEX none EX 5 FIELDS 1 a"), "*1|$-1|");
        assert_eq!(bench.run("HGETDEL h FIELDS 3 b b zz"), "*3|$1|2|$-1|$-1|");
        assert_eq!(bench.run("HGETDEL h FIELDS 1 c"), "*1|$1|3|");
        assert_eq!((bench.run("EXISTS h"), bench.run("HGETDEL h FIELDS 1 c")), (":0|".into(), "*1|$-1|".into()));
    }
}

#[test]
fn setting_with_a_deadline_is_all_or_nothing() {
    for mut bench in both() {
        assert_eq!(bench.run("HSETEX h FXX EX 100 FIELDS 2 a 5 zz 6"), ":0|");
        assert_eq!(bench.run("HSETEX h FNX FIELDS 2 a 5 zz 6"), ":0|");
        assert_eq!(bench.run("HSETEX h EX 100 FXX FIELDS 2 a 5 b 6"), ":1|");
        assert_eq!(bench.run("HSETEX h KEEPTTL FIELDS 2 a 7 c 8"), ":1|");
        assert_eq!(bench.run("HSETEX h FIELDS 1 b 9"), ":1|");
        assert_eq!(bench.run("HMGET h a b c"), "*3|$1|7|$1|9|$1|8|");
        assert_eq!(bench.run("HTTL h FIELDS 3 a b c"), "*3|:100|:-1|:-1|");
        assert_eq!(bench.run("HSETEX h PXAT 5 FIELDS 2 a 7 zz 8"), ":1|");
        assert_eq!((bench.run("HEXISTS h a"), bench.run("HEXISTS h zz")), (":0|".into(), ":0|".into()));
        assert_eq!(bench.run("HSETEX none PX 0 FIELDS 1 a 7"), ":1|");
        assert_eq!(bench.run("EXISTS none"), ":0|");
        assert_eq!(
            (bench.run("HSETEX h NX FIELDS 1 a 5"), bench.run("HSETEX none XX FIELDS 1 a 5")),
            (":0|".into(), ":0|".into())
        );
        assert_eq!(bench.run("HSETEX h XX FNX EX 9 FIELDS 1 new 5"), ":1|");
        assert_eq!(bench.run("HSETEX none NX FIELDS 1 a 5"), ":1|");
    }
}

#[test]
fn deadlines_of_fields_go_where_their_hash_goes() {
    for mut bench in both() {
        bench.run("HPEXPIRE h 10 FIELDS 1 a");
        bench.run("COPY h copy");
        bench.run("HPERSIST h FIELDS 1 a");
        bench.run("RENAME h renamed");
        bench.run("HPEXPIRE renamed 10 FIELDS 1 b");
        bench.run("COPY renamed other DB 1");
        bench.run("HSET moved x 1 y 2");
        bench.run("HPEXPIRE moved 10 FIELDS 1 x");
        bench.run("EXPIRE moved 1000");
        bench.run("MOVE moved 1");
        bench.clock.advance(11);
        assert_eq!(tick(&bench), 4);
        assert_eq!(bench.run("HKEYS copy").matches('$').count(), 2);
        assert_eq!((bench.run("HEXISTS renamed a"), bench.run("HEXISTS renamed b")), (":1|".into(), ":0|".into()));
        bench.run("SELECT 1");
        assert_eq!((bench.run("HLEN other"), bench.run("HLEN moved")), (":2|".into(), ":1|".into()));
        assert_eq!(bench.run("TTL moved"), ":1000|");
    }
}

#[test]
fn keys_that_go_or_change_their_type_leave_no_deadline_behind() {
    for mut bench in both() {
        bench.run("HPEXPIRE h 10 FIELDS 1 a");
        bench.run("SET h v");
        bench.run("HSET g a 1");
        bench.run("HPEXPIRE g 10 FIELDS 1 a");
        bench.run("DEL g");
        bench.run("HSET k a 1");
        bench.run("HPEXPIRE k 10 FIELDS 1 a");
        bench.run("PEXPIRE k 5");
        bench.run("HSET m a 1");
        bench.run("HPEXPIRE m 10 FIELDS 1 a");
        bench.run("EXPIRE m 100");
        bench.run("PERSIST m");
        bench.clock.advance(11);
        assert_eq!(tick(&bench), 1);
        assert_eq!((bench.run("GET h"), bench.run("DBSIZE")), ("$1|v|".into(), ":1|".into()));
    }
}

#[test]
fn the_encoding_tells_of_deadlines_in_a_small_hash() {
    let mut bench = Bench::with("hash-max-listpack-entries 3");
    bench.run("HSET h a 1 b 2 c 3");
    assert_eq!(bench.run("OBJECT ENCODING h"), "$8|listpack|");
    bench.run("HEXPIRE h 100 FIELDS 1 b");
    assert_eq!(bench.run("OBJECT ENCODING h"), "$10|listpackex|");
    bench.run("HSET h d 4");
    assert_eq!(bench.run("OBJECT ENCODING h"), "$9|hashtable|");
    assert_eq!(bench.run("HTTL h FIELDS 2 a b"), "*2|:-1|:100|");
}

#[test]
fn the_log_gets_deadlines_and_what_has_expired() {
    let mut bench = Bench::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let ours = log.clone();
    bench.engine.log.read_with(Box::new(move |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        for command in text.split('*').skip(1) {
            let words: Vec<&str> = command.split("\r\n").skip(2).step_by(2).filter(|word| !word.is_empty()).collect();
            if !["SELECT", "MULTI", "EXEC"].contains(&words[0]) {
                ours.lock().unwrap().push(words.join(" "));
            }
        }
    }));
    let taken = || std::mem::take(&mut *log.lock().unwrap());
    bench.run("HSET h a 1 b 2 c 3 d 4");
    taken();
    for (request, logged) in [
        ("HEXPIRE h 100 NX FIELDS 3 a zz b", &["HPEXPIREAT h 1000100000 FIELDS 2 a b"][..]),
        ("HEXPIRE h 100 NX FIELDS 1 a", &[]),
        ("HINCRBYFLOAT h a 1", &["HSET h a 2", "HPEXPIREAT h 1000100000 FIELDS 1 a"]),
        ("HGETEX h PERSIST FIELDS 2 a c", &["HPERSIST h FIELDS 2 a c"]),
        ("HGETEX h PX 5 FIELDS 1 a", &["HPEXPIREAT h 1000000005 FIELDS 1 a"]),
        ("HGETEX h FIELDS 1 a", &[]),
        ("HGETDEL h FIELDS 2 c zz", &["HDEL h c"]),
        ("HSETEX h KEEPTTL FIELDS 2 a 5 e 6", &["HSET h a 5 e 6", "HPEXPIREAT h 1000000005 FIELDS 1 a"]),
        ("HSETEX h PX 7 FIELDS 1 e 6", &["HSET h e 6", "HPEXPIREAT h 1000000007 FIELDS 1 e"]),
        ("HPEXPIRE h 0 FIELDS 1 b", &["HDEL h b"]),
    ] {
        bench.run(request);
        assert_eq!(taken(), logged, "{request}");
    }
    bench.clock.advance(6);
    bench.run("HGET h d");
    assert_eq!(taken(), ["HDEL h a"]);
    bench.clock.advance(2);
    tick(&bench);
    assert_eq!(taken(), ["HDEL h e"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut bench = Bench::new();
    bench.run("HSET h a 1");
    bench.run("SET s v");
    let fields = "Mandatory argument FIELDS is missing or not at the right position";
    let count = "Parameter `numFields` should be greater than 0";
    let positive = "Number of fields must be a positive integer";
    let matching = "The `numfields` parameter must match the number of arguments";
    for (request, error) in [
        ("HEXPIRE h -1 FIELDS 1 a", "invalid expire time, must be >= 0"),
        ("HEXPIRE h x FIELDS 1 a", "value is not an integer or out of range"),
        ("HEXPIRE h 70368744178 FIELDS 1 a", "invalid expire time in 'hexpire' command"),
        ("HPEXPIRE h 70368744177663 FIELDS 1 a", "invalid expire time in 'hpexpire' command"),
        ("HPEXPIREAT h 70368744177664 FIELDS 1 a", "invalid expire time in 'hpexpireat' command"),
        ("HEXPIREAT h 9223372036854775807 FIELDS 1 a", "invalid expire time in 'hexpireat' command"),
        ("HEXPIRE h 1 ZZ FIELDS 1 a", fields),
        ("HEXPIRE h 1 FIELDS 0 a", count),
        ("HEXPIRE h 1 FIELDS x a", count),
        ("HEXPIRE h 1 FIELDS 2 a", matching),
        ("HEXPIRE h 1 NX FIELDS 1", matching),
        ("HTTL h FIELDS 0 a", positive),
        ("HTTL h FIELDS 2 a", matching),
        ("HTTL h NX 1 a", fields),
        ("HPERSIST h FIELDS x a", positive),
        ("HGETEX h EX 1 a", fields),
        ("HGETEX h PERSIST 1 FIELDS 1 a", fields),
        ("HGETEX h EX -1 FIELDS 1 a", "invalid expire time, must be >= 0"),
        ("HGETEX h EX 1 FIELDS 2 a", matching),
        ("HGETDEL h FIELDS 9223372036854775808 a", positive),
        ("HSETEX h FIELDS 2 a 1", "wrong number of arguments for 'hsetex' command"),
        ("HSETEX h FIELDS 0 a 1", "invalid number of fields"),
        ("HSETEX h ZZ FIELDS 1 a 1", "unknown argument: ZZ"),
        ("HSETEX h NX XX FIELDS 1 a 1", "Only one of NX or XX arguments can be specified"),
        ("HSETEX h FNX FXX FIELDS 1 a 1", "Only one of FXX or FNX arguments can be specified"),
        ("HSETEX h EX 1 KEEPTTL FIELDS 1 a 1", "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"),
        ("HSETEX h FNX KEEPTTL EX 1", "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"),
    ] {
        assert_eq!(bench.run(request), format!("-ERR {error}|"), "{request}");
    }
    for request in [
        "HEXPIRE s x FIELDS 1 a",
        "HTTL s x 1 a",
        "HPERSIST s x 1 a",
        "HGETEX s x 1 a",
        "HGETDEL s x 1 a",
        "HSETEX s FIELDS 1 a 1",
    ] {
        assert!(bench.run(request).starts_with("-WRONGTYPE"), "{request}");
    }
    assert_eq!(bench.run("HPEXPIREAT h 70368744177663 FIELDS 1 a"), "*1|:1|");
}
