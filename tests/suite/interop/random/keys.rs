//! Random commands on keys of whatever type, on databases and on what encodings depend on.

use super::DBS;
use super::dice::{Command, Dice, Same, Words};

/// A time of the given command or option: far ahead and unlike the others, or past.
pub fn time(dice: &mut Dice, option: &str) -> String {
    let option = option.to_uppercase();
    let scale: i64 = if option.starts_with('P') { 1000 } else { 1 };
    let base: i64 = if option.ends_with("AT") { 4_000_000_000 } else { 0 };
    match dice.u8(..12) {
        // The largest of them can be rounded to seconds without leaving 64 bits, where Redis goes wrong.
        0 => dice.pick(&["0", "-1", "abc", "9223372036854775000", "-9223372036854775808"]).into(),
        // As an absolute time this is past; as a relative one it is hours.
        1 => (10_000 * scale).to_string(),
        _ => ((base + dice.i64(10_000..1_000_000_000)) * scale).to_string(),
    }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2) = (dice.any_key(), dice.any_key());
    let command = match dice.u8(..40) {
        0..=5 => {
            let name = dice.pick(&["EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"]);
            let t = time(dice, name);
            Command::new(&[name, &k, &t]).options(dice, &["NX", "XX", "GT", "LT"])
        }
        6 => Command::new(&["PERSIST", &k]),
        7 | 8 => Command::new(&[dice.pick(&["TTL", "EXPIRETIME"]), &k]).compared(Same::Near(10)),
        9 | 10 => Command::new(&[dice.pick(&["PTTL", "PEXPIRETIME"]), &k]).compared(Same::Near(10_000)),
        11 | 12 => Command::new(&[dice.pick(&["DEL", "UNLINK"]), &k, &k2]),
        13 | 14 => Command::new(&[dice.pick(&["EXISTS", "TOUCH"]), &k, &k2]),
        15 | 16 => Command::new(&["TYPE", &k]),
        17..=19 => Command::new(&[dice.pick(&["RENAME", "RENAMENX"]), &k, &k2]),
        20..=22 => {
            let db = dice.i64(0..=DBS).to_string();
            Command::new(&["COPY", &k, &k2]).and_if(dice.one_in(4), &["DB", &db]).options(dice, &["REPLACE"])
        }
        23 => Command::new(&["MOVE", &k, &dice.i64(-1..DBS).to_string()]),
        24 => Command::new(&["SELECT", &dice.i64(0..DBS).to_string()]),
        25 if dice.one_in(4) => Command::new(&["SWAPDB", &dice.i64(0..DBS).to_string(), &dice.i64(0..DBS).to_string()]),
        26..=31 => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
        32 => {
            let pattern = dice.pick(&["*", "a", "[sz]?", "{t}?", "?", "*1", "[^a-l]?", "h[2-3]"]);
            Command::new(&["KEYS", pattern]).compared(Same::Unordered)
        }
        33 => {
            let kind = dice.pick(&["string", "list", "set", "zset", "hash", "stream"]);
            Command::new(&["SCAN", "0", "COUNT", "1000", "TYPE", kind]).compared(Same::Unordered)
        }
        34 | 35 => sort(dice),
        36 if dice.one_in(40) => Command::new(&[dice.pick(&["FLUSHDB", "FLUSHALL"])]),
        _ => limit(dice),
    };
    command.done()
}

/// SORT of lists, sets and sorted sets.
fn sort(dice: &mut Dice) -> Command {
    let family = dice.pick(&["l", "t", "z"]);
    let key = dice.key(family);
    let name = dice.pick(&["SORT", "SORT", "SORT_RO"]);
    let mut command = Command::new(&[name, &key]);
    let mut same = Same::Bytes;
    if dice.one_in(3) {
        command = command.and(&["BY", dice.pick(&["s*", "nosort", "h*->a", "none*", "*"])]);
        // Equal weights leave the order open.
        same = Same::Unordered;
    }
    if dice.one_in(3) && matches!(same, Same::Bytes) {
        let (offset, count) = (dice.i64(-1..4).to_string(), dice.i64(-1..6).to_string());
        command = command.and(&["LIMIT", &offset, &count]);
    }
    while dice.one_in(3) {
        command = command.and(&["GET", dice.pick(&["#", "s*", "h*->a", "h*->", "none*", "plain"])]);
    }
    command = command.options(dice, &["ASC", "DESC", "ALPHA"]);
    if dice.one_in(4) && matches!(same, Same::Bytes) {
        let target = dice.key("l");
        command = command.and(&["STORE", &target]);
    }
    command.compared(same)
}

/// Moves the borders at which encodings change.
fn limit(dice: &mut Dice) -> Command {
    let (name, values): (&str, &[&str]) = match dice.u8(..6) {
        0 => ("hash-max-listpack-entries", &["0", "1", "5", "128", "512", "512"]),
        1 => ("hash-max-listpack-value", &["1", "10", "64", "64", "64"]),
        2 => ("zset-max-listpack-entries", &["0", "1", "5", "128", "128"]),
        3 => ("zset-max-listpack-value", &["1", "10", "64", "64", "64"]),
        // Redis 7.0 leaves HyperLogLogs as they are where 7.2 does not.
        4 if dice.newer => ("hll-sparse-max-bytes", &["0", "100", "3000", "3000"]),
        // Those of lists and sets stay: what nodes or sets were made under another limit decides on what comes of them.
        _ => ("stream-node-max-entries", &["1", "2", "100", "100"]),
    };
    Command::new(&["CONFIG", "SET", name, dice.pick(values)])
}
