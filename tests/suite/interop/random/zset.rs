//! Random commands on sorted sets.
//!
//! Scores are such as every version prints alike: whole, half, infinite. Ranges of bytes are asked of one key whose
//! scores are all the same, since nothing is promised of others.

use fastrand::Rng;

use super::{Same, Words, pick};

fn key<'a>(rng: &mut Rng) -> &'a str {
    pick(rng, &["z1", "z2", "z3", "z4", "a"])
}

fn member(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0 => "long".repeat(20),
        1 => pick(rng, &["", "012", "-3", "\r\n\u{0}", "1.5"]).into(),
        2..=4 => rng.i64(-20..20).to_string(),
        _ => char::from(rng.u8(b'a'..=b'p')).to_string(),
    }
}

fn score(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0 => "inf".into(),
        1 => "-inf".into(),
        2 => pick(rng, &["x", "nan", "", "0x3", "1e1", " 1"]).into(),
        3..=8 => format!("{}.5", rng.i64(1..5)),
        _ => rng.i64(-5..6).to_string(),
    }
}

fn end(rng: &mut Rng) -> String {
    let bar = pick(rng, &["", "", "("]);
    format!("{bar}{}", score(rng))
}

fn lex_end(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => "-".into(),
        1 => "+".into(),
        2 | 3 => format!("[{}", member(rng)),
        4 => format!("({}", member(rng)),
        _ => pick(rng, &["[", "(", "x", ""]).into(),
    }
}

fn rank(rng: &mut Rng) -> String {
    rng.i64(-12..12).to_string()
}

/// One command.
pub fn command(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let (k, k2) = (key(rng), key(rng));
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let mut limit = None;
    match rng.u8(..40) {
        0..=7 => {
            say(&["ZADD", k]);
            while rng.u8(..3) == 0 {
                say(&[pick(rng, &["NX", "XX", "GT", "LT", "CH", "INCR"])]);
            }
            for _ in 0..rng.usize(1..4) {
                say(&[&score(rng), &member(rng)]);
            }
        }
        8 => say(&["ZINCRBY", k, &score(rng), &member(rng)]),
        9 | 10 => say(&["ZREM", k, &member(rng), &member(rng)]),
        11 => say(&[pick(rng, &["ZCARD", "TYPE"]), k]),
        12 => say(&["ZMSCORE", k, &member(rng), &member(rng)]),
        13 | 14 => say(&[pick(rng, &["ZRANK", "ZREVRANK", "ZSCORE"]), k, &member(rng)]),
        15 => say(&["ZCOUNT", k, &end(rng), &end(rng)]),
        16 | 17 => {
            say(&[pick(rng, &["ZRANGE", "ZREVRANGE"]), k, &rank(rng), &rank(rng)]);
            while rng.u8(..3) == 0 {
                say(&[pick(rng, &["WITHSCORES", "REV"])]);
            }
        }
        18 | 19 => {
            say(&[pick(rng, &["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]), k, &end(rng), &end(rng)]);
            limit = Some(["WITHSCORES"].as_slice());
        }
        20 | 21 => {
            say(&["ZRANGE", k, &end(rng), &end(rng), "BYSCORE"]);
            limit = Some(&["WITHSCORES", "REV"]);
        }
        22 => {
            say(&["ZRANGESTORE", k, k2, &rank(rng), &rank(rng)]);
            if rng.bool() {
                say(&["REV"]);
            }
        }
        23 => {
            say(&["ZRANGESTORE", k, k2, &end(rng), &end(rng), "BYSCORE"]);
            limit = Some(&["REV"]);
        }
        24 => say(&["ZREMRANGEBYRANK", k, &rank(rng), &rank(rng)]),
        25 => say(&["ZREMRANGEBYSCORE", k, &end(rng), &end(rng)]),
        26 => say(&[pick(rng, &["ZPOPMIN", "ZPOPMAX"]), k]),
        27 => say(&[pick(rng, &["ZPOPMIN", "ZPOPMAX"]), k, &rank(rng)]),
        28 => say(&["ZMPOP", "2", k, k2, pick(rng, &["MIN", "MAX"]), "COUNT", &rank(rng)]),
        29..=31 => {
            let name =
                pick(rng, &["ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]);
            say(&[name]);
            if name.ends_with("STORE") {
                say(&[key(rng)]);
            }
            say(&["3", k, k2, key(rng)]);
            if rng.bool() && !name.contains("DIFF") {
                say(&["AGGREGATE", pick(rng, &["SUM", "MIN", "MAX"])]);
            }
            if rng.u8(..3) == 0 {
                let weight = |rng: &mut Rng| pick(rng, &["1", "-1", "0", "1", "inf"]);
                say(&["WEIGHTS", weight(rng), weight(rng), weight(rng)]);
            }
            if rng.u8(..3) == 0 {
                say(&["WITHSCORES"]);
            }
        }
        32 => {
            say(&["ZRANDMEMBER", k, "100"]);
            same = Same::Unordered;
        }
        33 => {
            say(&["ZSCAN", k, "0", "COUNT", "1000", "MATCH", pick(rng, &["*", "[a-f]", "?"])]);
            same = Same::Unordered;
        }
        34 | 35 => say(&["ZADD", "lex", "0", &member(rng), "0", &member(rng)]),
        36 => {
            say(&[pick(rng, &["ZRANGEBYLEX", "ZREVRANGEBYLEX"]), "lex", &lex_end(rng), &lex_end(rng)]);
            limit = Some(&[]);
        }
        37 => {
            say(&["ZRANGE", "lex", &lex_end(rng), &lex_end(rng), "BYLEX"]);
            limit = Some(&["REV"]);
        }
        38 => say(&["ZLEXCOUNT", "lex", &lex_end(rng), &lex_end(rng)]),
        _ => match rng.u8(..4) {
            0 => say(&["ZREMRANGEBYLEX", "lex", &lex_end(rng), &lex_end(rng)]),
            1 => say(&["COPY", k, k2, "REPLACE"]),
            _ => say(&["OBJECT", "ENCODING", k]),
        },
    }
    if let Some(options) = limit {
        for option in options {
            if rng.u8(..3) == 0 {
                say(&[option]);
            }
        }
        if rng.u8(..3) == 0 {
            say(&["LIMIT", &rng.i64(-1..4).to_string(), &rng.i64(-2..6).to_string()]);
        }
    }
    (words, same)
}
