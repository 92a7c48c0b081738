//! Random commands on sorted sets.
//!
//! Scores are such as every version prints alike: whole, half, infinite. Ranges of bytes are asked of one key whose
//! scores are all the same, since nothing is promised of others.

use super::dice::{Dice, Same, Words};

fn member(dice: &mut Dice) -> String {
    dice.member()
}

fn score(dice: &mut Dice) -> String {
    match dice.u8(..20) {
        0 => "inf".into(),
        1 => "-inf".into(),
        2 => dice.pick(&["x", "nan", "", "0x3", "1e1", " 1"]).into(),
        3..=8 => format!("{}.5", dice.i64(1..5)),
        _ => dice.i64(-5..6).to_string(),
    }
}

fn end(dice: &mut Dice) -> String {
    let bar = dice.pick(&["", "", "("]);
    format!("{bar}{}", score(dice))
}

fn lex_end(dice: &mut Dice) -> String {
    match dice.u8(..6) {
        0 => "-".into(),
        1 => "+".into(),
        2 | 3 => format!("[{}", member(dice)),
        4 => format!("({}", member(dice)),
        _ => dice.pick(&["[", "(", "x", ""]).into(),
    }
}

fn rank(dice: &mut Dice) -> String {
    dice.i64(-12..12).to_string()
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let (k, k2) = (&dice.key("z"), &dice.key("z"));
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let mut limit = None;
    match dice.u8(..40) {
        0..=7 => {
            say(&["ZADD", k]);
            while dice.u8(..3) == 0 {
                say(&[dice.pick(&["NX", "XX", "GT", "LT", "CH", "INCR"])]);
            }
            for _ in 0..dice.several() {
                say(&[&score(dice), &member(dice)]);
            }
        }
        8 => say(&["ZINCRBY", k, &score(dice), &member(dice)]),
        9 | 10 => say(&["ZREM", k, &member(dice), &member(dice)]),
        11 => say(&[dice.pick(&["ZCARD", "TYPE"]), k]),
        12 => say(&["ZMSCORE", k, &member(dice), &member(dice)]),
        13 | 14 => say(&[dice.pick(&["ZRANK", "ZREVRANK", "ZSCORE"]), k, &member(dice)]),
        15 => say(&["ZCOUNT", k, &end(dice), &end(dice)]),
        16 | 17 => {
            say(&[dice.pick(&["ZRANGE", "ZREVRANGE"]), k, &rank(dice), &rank(dice)]);
            while dice.u8(..3) == 0 {
                say(&[dice.pick(&["WITHSCORES", "REV"])]);
            }
        }
        18 | 19 => {
            say(&[dice.pick(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]), k, &end(dice), &end(dice)]);
            limit = Some(["WITHSCORES"].as_slice());
        }
        20 | 21 => {
            say(&["ZRANGE", k, &end(dice), &end(dice), "BYSCORE"]);
            limit = Some(&["WITHSCORES", "REV"]);
        }
        22 => {
            say(&["ZRANGESTORE", k, k2, &rank(dice), &rank(dice)]);
            if dice.bool() {
                say(&["REV"]);
            }
        }
        23 => {
            // Redis 7.0 takes what it stores by scores through a listpack, where a negative zero is none: without zeros there.
            let first = if dice.newer { end(dice) } else { "(0".to_owned() };
            say(&["ZRANGESTORE", k, k2, &first, &end(dice), "BYSCORE"]);
            limit = Some(&["REV"]);
        }
        24 => say(&["ZREMRANGEBYRANK", k, &rank(dice), &rank(dice)]),
        25 => say(&["ZREMRANGEBYSCORE", k, &end(dice), &end(dice)]),
        26 => say(&[dice.pick(&["ZPOPMIN", "ZPOPMAX"]), k]),
        27 => say(&[dice.pick(&["ZPOPMIN", "ZPOPMAX"]), k, &rank(dice)]),
        28 => say(&["ZMPOP", "2", k, k2, dice.pick(&["MIN", "MAX"]), "COUNT", &rank(dice)]),
        29..=31 => {
            let name =
                dice.pick(&["ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]);
            say(&[name]);
            if name.ends_with("STORE") {
                say(&[&dice.key("z")]);
            }
            say(&["3", k, k2, &dice.key("z")]);
            if dice.bool() && !name.contains("DIFF") {
                say(&["AGGREGATE", dice.pick(&["SUM", "MIN", "MAX"])]);
            }
            if dice.u8(..3) == 0 {
                let weight = |dice: &mut Dice| dice.pick(&["1", "-1", "0", "1", "inf"]);
                say(&["WEIGHTS", weight(dice), weight(dice), weight(dice)]);
            }
            if dice.u8(..3) == 0 {
                say(&["WITHSCORES"]);
            }
        }
        32 => {
            say(&["ZRANDMEMBER", k, "5000"]);
            same = Same::Unordered;
        }
        33 => {
            say(&["ZSCAN", k, "0", "COUNT", "1000", "MATCH", dice.pick(&["*", "[a-f]", "?"])]);
            same = Same::Unordered;
        }
        34 | 35 => say(&["ZADD", "lex", "0", &member(dice), "0", &member(dice)]),
        36 => {
            say(&[dice.pick(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"]), "lex", &lex_end(dice), &lex_end(dice)]);
            limit = Some(&[]);
        }
        37 => {
            say(&["ZRANGE", "lex", &lex_end(dice), &lex_end(dice), "BYLEX"]);
            limit = Some(&["REV"]);
        }
        38 => say(&["ZLEXCOUNT", "lex", &lex_end(dice), &lex_end(dice)]),
        _ => match dice.u8(..4) {
            0 => say(&["ZREMRANGEBYLEX", "lex", &lex_end(dice), &lex_end(dice)]),
            1 => say(&["COPY", k, k2, "REPLACE"]),
            _ => {
                say(&["OBJECT", "ENCODING", k]);
                same = Same::Encoding;
            }
        },
    }
    if let Some(options) = limit {
        for option in options {
            if dice.u8(..3) == 0 {
                say(&[option]);
            }
        }
        if dice.u8(..3) == 0 {
            say(&["LIMIT", &dice.i64(-1..4).to_string(), &dice.i64(-2..6).to_string()]);
        }
    }
    (words, same)
}
