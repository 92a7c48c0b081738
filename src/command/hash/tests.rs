//! The commands of hashes on a server without sockets.

use crate::command::testing::Bench;
use crate::resp::reply::Protocol;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value|";

/// The strings of a reply, sorted.
fn sorted(reply: &str) -> Vec<String> {
    let mut words: Vec<String> =
        reply.split('|').filter(|w| !w.is_empty() && !w.starts_with(['*', '$', '%'])).map(str::to_owned).collect();
    words.sort();
    words
}

/// A bench with a hash `h` of so many fields `f0 v0 f1 v1` and on.
fn with_fields(fields: usize) -> Bench {
    let mut bench = Bench::new();
    for n in 0..fields {
        bench.run(&format!("HSET h f{n} v{n}"));
    }
    bench
}

#[test]
fn fields_are_set_read_and_removed_and_the_empty_hash_is_gone() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("HSET h a 1 b 2 a 3"), ":2|");
    assert_eq!(bench.run("HSET h a 4 c 5"), ":1|");
    assert_eq!(bench.run("HMSET h d x"), "+OK|");
    assert_eq!(bench.run("HSETNX h d y"), ":0|");
    assert_eq!(bench.run("HSETNX h e y"), ":1|");
    assert_eq!(bench.run("HMGET h a b c d e f"), "*6|$1|4|$1|2|$1|5|$1|x|$1|y|$-1|");
    assert_eq!((bench.run("HGET h a"), bench.run("HGET h zz"), bench.run("HGET none a")).2, "$-1|");
    assert_eq!(bench.run("HMGET none a b"), "*2|$-1|$-1|");
    assert_eq!(bench.run("HLEN h"), ":5|");
    assert_eq!((bench.run("HEXISTS h a"), bench.run("HEXISTS h zz")), (":1|".into(), ":0|".into()));
    assert_eq!((bench.run("HSTRLEN h a"), bench.run("HSTRLEN h zz")), (":1|".into(), ":0|".into()));
    assert_eq!(bench.run("HDEL h a a zz b"), ":2|");
    assert_eq!(sorted(&bench.run("HGETALL h")), ["5", "c", "d", "e", "x", "y"]);
    assert_eq!(bench.run("HDEL h c d e"), ":3|");
    assert_eq!((bench.run("EXISTS h"), bench.run("HDEL h c")), (":0|".into(), ":0|".into()));
    assert_eq!(bench.run("HGETALL h"), "*0|");
    assert_eq!(bench.run("HSET h a 1 b"), "-ERR wrong number of arguments for 'hset' command|");
    assert_eq!(bench.run("HMSET h a 1 b"), "-ERR wrong number of arguments for 'hmset' command|");
}

#[test]
fn every_hash_command_refuses_a_string() {
    let mut bench = Bench::new();
    bench.run("SET s v");
    for request in [
        "HSET s a 1",
        "HMSET s a 1",
        "HSETNX s a 1",
        "HGET s a",
        "HMGET s a",
        "HGETALL s",
        "HKEYS s",
        "HVALS s",
        "HLEN s",
        "HSTRLEN s a",
        "HEXISTS s a",
        "HDEL s a",
        "HINCRBY s a 1",
        "HINCRBYFLOAT s a 1",
        "HRANDFIELD s",
        "HRANDFIELD s 1",
        "HSCAN s 0",
    ] {
        assert_eq!(bench.run(request), WRONG_TYPE, "{request}");
    }
    bench.run("HSET h a 1");
    assert_eq!((bench.run("GET h"), bench.run("LPUSH h a")), (WRONG_TYPE.to_owned(), WRONG_TYPE.to_owned()));
}

#[test]
fn numbers_are_counted_up_within_their_range() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("HINCRBY h n 5"), ":5|");
    assert_eq!(bench.run("HINCRBY h n -7"), ":-2|");
    assert_eq!(bench.run("HINCRBYFLOAT h n 0.5"), "$4|-1.5|");
    assert_eq!(bench.run("HINCRBY h n 1"), "-ERR hash value is not an integer|");
    assert_eq!(bench.run("HINCRBY h n x"), "-ERR value is not an integer or out of range|");
    assert_eq!(bench.run("HINCRBYFLOAT h n x"), "-ERR value is not a valid float|");
    assert_eq!(bench.run("HINCRBYFLOAT h n inf"), "-ERR value is NaN or Infinity|");
    bench.run("HSET h max 9223372036854775807 text x");
    assert_eq!(bench.run("HINCRBY h max 1"), "-ERR increment or decrement would overflow|");
    assert_eq!(bench.run("HINCRBYFLOAT h text 1"), "-ERR hash value is not a float|");
    assert_eq!(bench.run("HINCRBYFLOAT fresh f 3.0e3"), "$4|3000|");
}

#[test]
fn random_fields_are_as_many_as_asked_for() {
    for fields in [5, 600] {
        let mut bench = with_fields(fields);
        for _ in 0..5 {
            assert!(bench.run("HRANDFIELD h").starts_with('$'));
            let words = sorted(&bench.run("HRANDFIELD h 4"));
            assert!(words.len() == 4 && words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
            assert_eq!(sorted(&bench.run("HRANDFIELD h -40")).len(), 40);
        }
        let all = sorted(&bench.run("HRANDFIELD h 100000 WITHVALUES"));
        assert_eq!(all, sorted(&bench.run("HGETALL h")));
        bench.out_as(Protocol::Resp3);
        assert!(bench.run("HRANDFIELD h 2 WITHVALUES").starts_with("*2|*2|$"));
        assert!(bench.run("HRANDFIELD h -2").starts_with("*2|$"));
    }
    let mut bench = with_fields(1);
    assert_eq!((bench.run("HRANDFIELD none"), bench.run("HRANDFIELD none 3")), ("$-1|".into(), "*0|".into()));
    assert_eq!(bench.run("HRANDFIELD h 0"), "*0|");
    for (request, error) in [
        ("HRANDFIELD h x", "value is not an integer or out of range"),
        ("HRANDFIELD h 1 VALUES", "syntax error"),
        ("HRANDFIELD h 1 WITHVALUES x", "syntax error"),
        ("HRANDFIELD h 9223372036854775807 WITHVALUES", "value is out of range"),
        (
            "HRANDFIELD h -9223372036854775808",
            "value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ),
    ] {
        assert_eq!(bench.run(request), format!("-ERR {error}|"));
    }
}

#[test]
fn a_scan_returns_every_field_once_and_only_what_is_asked_for() {
    let mut bench = with_fields(2000);
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let reply = bench.run(&format!("HSCAN h {cursor} COUNT 50 NOVALUES"));
        let words: Vec<&str> = reply.split('|').filter(|w| !w.is_empty() && !w.starts_with(['*', '$'])).collect();
        cursor = words[0].to_owned();
        seen.extend(words[1..].iter().map(|word| (*word).to_owned()));
        if cursor == "0" {
            break;
        }
    }
    let visits = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((visits, seen.len()), (2000, 2000));
    bench.run("HSET small a 1 b 2 c 3");
    assert_eq!(bench.run("HSCAN small 0 MATCH b"), "*2|$1|0|*2|$1|b|$1|2|");
    assert_eq!(bench.run("HSCAN small 0 MATCH [bc] NOVALUES"), "*2|$1|0|*2|$1|b|$1|c|");
    assert_eq!(bench.run("HSCAN none 0 NONSENSE"), "*2|$1|0|*0|");
    assert_eq!(bench.run("HSCAN small 0 NONSENSE"), "-ERR syntax error|");
    assert_eq!(bench.run("HSCAN small x"), "-ERR invalid cursor|");
}

#[test]
fn the_encoding_follows_the_size() {
    let mut bench = Bench::with("hash-max-listpack-entries 3\nhash-max-listpack-value 10");
    bench.run("HSET h a 1 b 2 c 3");
    assert_eq!(bench.run("OBJECT ENCODING h"), "$8|listpack|");
    bench.run("HSET h d 4");
    assert_eq!(bench.run("OBJECT ENCODING h"), "$9|hashtable|");
    for request in ["HSET v a 12345678901", "HSET v 12345678901 a", "HSETNX v a 12345678901", "HINCRBY v a 12345678901"]
    {
        bench.run("DEL v");
        bench.run(request);
        assert_eq!(bench.run("OBJECT ENCODING v"), "$9|hashtable|", "{request}");
    }
    assert_eq!((bench.run("TYPE h"), bench.run("COPY h m")), ("+hash|".into(), ":1|".into()));
    bench.run("HSET m a other e 5");
    assert_eq!((bench.run("HGET h a"), bench.run("HLEN h")), ("$1|1|".into(), ":4|".into()));
    assert_eq!((bench.run("HGET m a"), bench.run("HLEN m")), ("$5|other|".into(), ":5|".into()));
}

#[test]
fn equal_hashes_have_equal_digests_however_they_came_about() {
    let mut bench = Bench::with("hash-max-listpack-entries 3\nenable-debug-command yes");
    bench.run("HSET a x 1 y 2 z 3");
    bench.run("HSET b z 3 y 2 x 1 w 4");
    bench.run("HDEL b w");
    assert_ne!(bench.run("OBJECT ENCODING a"), bench.run("OBJECT ENCODING b"));
    let digests = bench.run("DEBUG DIGEST-VALUE a b");
    let digests: Vec<&str> = digests.split('|').skip(1).collect();
    assert_eq!(digests[0], digests[1]);
    bench.run("HSET b x 2");
    assert_ne!(bench.run("DEBUG DIGEST-VALUE a"), bench.run("DEBUG DIGEST-VALUE b"));
}
