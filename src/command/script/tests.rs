use crate::command::testing::Bench;

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
