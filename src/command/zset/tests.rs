//! Sorted set commands by their replies.

use crate::command::testing::Bench;
use crate::resp::reply::Protocol;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value|";

#[test]
fn nothing_is_between_bytes_that_all_members_are_beside_whatever_their_scores() {
    let mut bench = Bench::new();
    bench.run("ZADD z 2 b 3 1");
    assert_eq!(bench.run("ZRANGEBYLEX z [a +"), "*0|");
    assert_eq!(bench.run("ZREVRANGEBYLEX z + [a"), "*0|");
    assert_eq!(bench.run("ZLEXCOUNT z [a +"), ":0|");
    assert_eq!(bench.run("ZREMRANGEBYLEX z [a +"), ":0|");
    assert_eq!(bench.run("ZRANGEBYLEX z - [0"), "*0|");
    assert_eq!(bench.run("ZRANGEBYLEX z - [b"), "*2|$1|b|$1|1|");
}

#[test]
fn members_are_added_changed_and_the_empty_set_is_gone() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("ZADD z XX 1 a"), ":0|");
    assert_eq!(bench.run("EXISTS z"), ":0|");
    assert_eq!(bench.run("ZADD z 1 a 2 b 3 c"), ":3|");
    assert_eq!(bench.run("ZADD z CH 1 a 5 b 4 d"), ":2|");
    assert_eq!(bench.run("ZADD z NX CH 9 a 6 e"), ":1|");
    assert_eq!(bench.run("ZADD z GT CH 0 a 7 b"), ":1|");
    assert_eq!(bench.run("ZADD z LT INCR 1 a"), "$-1|");
    assert_eq!(bench.run("ZADD z INCR 1.5 a"), "$3|2.5|");
    assert_eq!(bench.run("ZINCRBY z -2.5 a"), "$1|0|");
    assert_eq!(bench.run("ZRANGE z 0 -1"), "*5|$1|a|$1|c|$1|d|$1|e|$1|b|");
    assert_eq!(bench.run("ZMSCORE z b none"), "*2|$1|7|$-1|");
    assert_eq!((bench.run("ZRANK z c"), bench.run("ZREVRANK z c")), (":1|".into(), ":3|".into()));
    assert_eq!(bench.run("ZREM z a b none"), ":2|");
    assert_eq!(bench.run("ZREMRANGEBYRANK z 0 -1"), ":3|");
    assert_eq!(bench.run("EXISTS z"), ":0|");
    assert_eq!(bench.run("ZADD z NX GT 1 a"), "-ERR GT, LT, and/or NX options at the same time are not compatible|");
    assert_eq!(bench.run("ZADD z inf a"), ":1|");
    assert_eq!(bench.run("ZINCRBY z -inf a"), "-ERR resulting score is not a number (NaN)|");
    assert_eq!(bench.run("ZADD z 1 a nan b"), "-ERR value is not a valid float|");
}

#[test]
fn every_command_refuses_a_string() {
    let mut bench = Bench::new();
    bench.run("SET s v");
    bench.run("ZADD z 1 a");
    for request in [
        "ZADD s 1 a",
        "ZINCRBY s 1 a",
        "ZREM s a",
        "ZCARD s",
        "ZSCORE s a",
        "ZMSCORE s a",
        "ZRANK s a",
        "ZREVRANK s a WITHSCORE",
        "ZRANGE s 0 1",
        "ZRANGESTORE d s 0 1",
        "ZCOUNT s 0 1",
        "ZLEXCOUNT s - +",
        "ZREMRANGEBYSCORE s 0 1",
        "ZPOPMIN s",
        "ZPOPMAX s 0",
        "ZMPOP 2 none s MIN",
        "ZRANDMEMBER s",
        "ZSCAN s 0",
        "ZUNION 2 z s nonsense",
        "ZINTERSTORE d 2 z s",
        "ZDIFF 2 none s",
        "ZINTERCARD 1 s",
    ] {
        assert_eq!(bench.run(request), WRONG_TYPE, "{request}");
    }
}

#[test]
fn ranges_are_of_ranks_scores_or_bytes_from_either_end() {
    for entries in [128, 0] {
        let mut bench = Bench::with(&format!("zset-max-listpack-entries {entries}"));
        bench.run("ZADD z 1 a 2 b 3 c 4 d");
        assert_eq!(bench.run("ZRANGE z 1 2 WITHSCORES"), "*4|$1|b|$1|2|$1|c|$1|3|");
        assert_eq!(bench.run("ZRANGE z 0 0 REV"), "*1|$1|d|");
        assert_eq!(bench.run("ZRANGE z (1 3 BYSCORE"), "*2|$1|b|$1|c|");
        assert_eq!(bench.run("ZRANGE z +inf 2 BYSCORE REV LIMIT 1 1"), "*1|$1|c|");
        assert_eq!(bench.run("ZREVRANGEBYSCORE z 3 (1"), "*2|$1|c|$1|b|");
        assert_eq!(bench.run("ZRANGEBYSCORE z -inf inf LIMIT -1 3"), "*0|");
        assert_eq!(bench.run("ZRANGEBYSCORE z 5 1"), "*0|");
        assert_eq!((bench.run("ZCOUNT z 2 (4"), bench.run("ZCOUNT z 9 0")), (":2|".into(), ":0|".into()));
        bench.run("ZADD l 0 a 0 b 0 c 0 12");
        assert_eq!(bench.run("ZRANGEBYLEX l [a (c"), "*2|$1|a|$1|b|");
        assert_eq!(bench.run("ZREVRANGEBYLEX l + - LIMIT 0 2"), "*2|$1|c|$1|b|");
        assert_eq!((bench.run("ZLEXCOUNT l - (b"), bench.run("ZLEXCOUNT l + -")), (":2|".into(), ":0|".into()));
        assert_eq!(bench.run("ZRANGESTORE d z 2 3"), ":2|");
        assert_eq!(bench.run("ZRANGE d 0 -1 WITHSCORES"), "*4|$1|c|$1|3|$1|d|$1|4|");
        assert_eq!(bench.run("ZRANGESTORE d z 7 9"), ":0|");
        assert_eq!(bench.run("EXISTS d"), ":0|");
        assert_eq!(bench.run("ZREMRANGEBYSCORE z (1 3"), ":2|");
        assert_eq!(bench.run("ZREMRANGEBYLEX l [b +"), ":2|");
        assert_eq!(bench.run("ZREMRANGEBYRANK z -1 -1"), ":1|");
        assert_eq!(bench.run("ZRANGE z 0 -1"), "*1|$1|a|");
    }
}

#[test]
fn pairs_are_told_apart_in_resp3() {
    let mut bench = Bench::new();
    bench.run("ZADD z 1 a 2.5 b 3 c");
    bench.out_as(Protocol::Resp3);
    assert_eq!(bench.run("ZRANGE z 0 0 WITHSCORES"), "*1|*2|$1|a|,1|");
    assert_eq!(bench.run("ZRANK z b WITHSCORE"), "*2|:1|,2.5|");
    assert_eq!(bench.run("ZUNION 1 z WITHSCORES"), "*3|*2|$1|a|,1|*2|$1|b|,2.5|*2|$1|c|,3|");
    assert_eq!(bench.run("ZPOPMIN z"), "*2|$1|a|,1|");
    assert_eq!(bench.run("ZPOPMAX z 1"), "*1|*2|$1|c|,3|");
    assert_eq!(bench.run("ZMPOP 1 z MAX COUNT 5"), "*2|$1|z|*1|*2|$1|b|,2.5|");
    assert_eq!(bench.run("ZMPOP 1 z MAX"), "_|");
}

#[test]
fn inputs_are_united_intersected_and_subtracted() {
    let mut bench = Bench::new();
    bench.run("ZADD x 1 a 2 b 3 c");
    bench.run("ZADD y 10 b 20 c 30 d");
    assert_eq!(bench.run("ZUNION 2 x y WITHSCORES"), "*8|$1|a|$1|1|$1|b|$2|12|$1|c|$2|23|$1|d|$2|30|");
    assert_eq!(bench.run("ZINTER 2 x y WEIGHTS 2 -1 WITHSCORES"), "*4|$1|c|$3|-14|$1|b|$2|-6|");
    assert_eq!(bench.run("ZINTER 2 x y AGGREGATE MAX WITHSCORES"), "*4|$1|b|$2|10|$1|c|$2|20|");
    assert_eq!(bench.run("ZDIFF 3 x y none WITHSCORES"), "*2|$1|a|$1|1|");
    assert_eq!((bench.run("ZINTERCARD 2 x y"), bench.run("ZINTERCARD 2 x y LIMIT 1")), (":2|".into(), ":1|".into()));
    assert_eq!(bench.run("ZUNIONSTORE x 2 x y AGGREGATE MIN"), ":4|");
    assert_eq!(bench.run("ZRANGE x 0 -1 WITHSCORES"), "*8|$1|a|$1|1|$1|b|$1|2|$1|c|$1|3|$1|d|$2|30|");
    assert_eq!(bench.run("ZDIFFSTORE x 2 x x"), ":0|");
    assert_eq!(bench.run("EXISTS x"), ":0|");
    bench.run("ZADD p inf a");
    bench.run("ZADD q -inf a");
    assert_eq!(bench.run("ZUNION 2 p q WITHSCORES"), "*2|$1|a|$1|0|");
    assert_eq!(bench.run("ZUNION 1 p WEIGHTS 0 WITHSCORES"), "*2|$1|a|$1|0|");
    assert_eq!(bench.run("ZUNION 0 p"), "-ERR at least 1 input key is needed for 'zunion' command|");
    assert_eq!(bench.run("ZDIFF 1 p WEIGHTS 1"), "-ERR syntax error|");
    assert_eq!(bench.run("ZUNIONSTORE d 1 p WITHSCORES"), "-ERR syntax error|");
    assert_eq!(bench.run("ZINTERCARD 1 p LIMIT -1"), "-ERR LIMIT can't be negative|");
    assert_eq!(bench.run("ZUNION 1 p WEIGHTS x"), "-ERR weight value is not a float|");
}

#[test]
fn random_members_are_members_and_differ_unless_they_need_not() {
    for entries in [128, 0] {
        let mut bench = Bench::with(&format!("zset-max-listpack-entries {entries}"));
        bench.run("ZADD z 1 a 2 b 3 c 4 d");
        for _ in 0..20 {
            let three = bench.run("ZRANDMEMBER z 3");
            let mut members: Vec<_> = three.split('|').filter(|part| part.len() == 1).collect();
            members.sort_unstable();
            members.dedup();
            assert_eq!(members.len(), 3, "{three}");
        }
        assert!(bench.run("ZRANDMEMBER z -10 WITHSCORES").starts_with("*20|$1|"));
        assert_eq!(bench.run("ZRANDMEMBER z 9"), "*4|$1|a|$1|b|$1|c|$1|d|");
        assert_eq!((bench.run("ZRANDMEMBER none"), bench.run("ZRANDMEMBER none 1")), ("$-1|".into(), "*0|".into()));
    }
}

#[test]
fn a_scan_tells_scores_as_the_encoding_keeps_them() {
    let mut bench = Bench::new();
    bench.run("ZADD z 0.1 a 3 12");
    assert_eq!(bench.run("ZSCAN z 0"), "*2|$1|0|*4|$1|a|$3|0.1|$2|12|$1|3|");
    assert_eq!(bench.run("ZSCAN z 0 MATCH 1* COUNT 1"), "*2|$1|0|*2|$2|12|$1|3|");
    bench.run("CONFIG SET zset-max-listpack-entries 0");
    bench.run("ZADD large 0.1 a");
    assert_eq!(bench.run("ZSCAN large 0"), "*2|$1|0|*2|$1|a|$19|0.10000000000000001|");
    assert_eq!(bench.run("OBJECT ENCODING large"), "$8|skiplist|");
    assert_eq!(bench.run("DEBUG DIGEST-VALUE large z").len(), bench.run("DEBUG DIGEST-VALUE z z").len());
}

#[test]
fn the_log_gets_what_says_the_same_to_a_replica() {
    let mut bench = Bench::new();
    bench.run("ZADD z 1 a 2 b 3 c");
    assert_eq!(bench.run("COPY z y"), ":1|");
    assert_eq!(bench.run("ZMPOP 1 z MIN COUNT 2"), "*2|$1|z|*2|*2|$1|a|$1|1|*2|$1|b|$1|2|");
    assert_eq!(
        (bench.run("ZCARD z"), bench.run("ZCARD y"), bench.run("TYPE y")),
        (":1|".into(), ":3|".into(), "+zset|".into())
    );
}
