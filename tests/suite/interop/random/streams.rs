//! Random commands on streams and their groups.
//!
//! Ids stay among a few, so that commands meet each other's entries: mostly `8-*` and what has come of it. Idle times
//! are none or half an hour, so that no reply depends on which millisecond it is.

use super::dice::{Dice, Same, Words};

fn group<'a>(dice: &mut Dice) -> &'a str {
    dice.pick(&["g", "g", "h", "none"])
}

fn consumer<'a>(dice: &mut Dice) -> &'a str {
    dice.pick(&["x", "y", "z"])
}

fn id(dice: &mut Dice) -> String {
    match dice.u8(..30) {
        0 => dice.pick(&["x", "", "1-", "-1", "1-x", "8-*", "18446744073709551615"]).into(),
        1 => dice.u8(1..9).to_string(),
        2..=4 => format!("{}-{}", dice.u8(..8), dice.u8(..3)),
        5 => format!("8-{}", dice.u8(60..80)),
        _ => format!("8-{}", dice.u8(..25)),
    }
}

fn new_id(dice: &mut Dice) -> String {
    match dice.u8(..12) {
        0 => id(dice),
        1 | 2 => format!("{}-*", dice.u8(..8)),
        _ => "8-*".into(),
    }
}

fn end(dice: &mut Dice) -> String {
    match dice.u8(..4) {
        0 => dice.pick(&["-", "+"]).into(),
        1 => format!("({}", id(dice)),
        _ => id(dice),
    }
}

fn count(dice: &mut Dice) -> String {
    match dice.u8(..10) {
        0 => dice.pick(&["0", "-1", "x"]).into(),
        _ => dice.u8(1..12).to_string(),
    }
}

/// None, or so long that only what was claimed with `IDLE` has waited for it.
fn idle_ms<'a>(dice: &mut Dice) -> &'a str {
    dice.pick(&["0", "0", "1800000", "x"])
}

fn value(dice: &mut Dice) -> String {
    match dice.u8(..6) {
        0 => "x".repeat(dice.usize(..200)),
        1 => dice.i64(..).to_string(),
        _ => dice.i8(..).to_string(),
    }
}

fn trim(dice: &mut Dice, words: &mut Words) {
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let strategy = dice.pick(&["MAXLEN", "MINID"]);
    say(&[strategy]);
    let precision = dice.pick(&["", "=", "~", "~"]);
    if !precision.is_empty() {
        say(&[precision]);
    }
    match strategy {
        "MAXLEN" => say(&[&dice.u8(..40).to_string()]),
        _ => say(&[&id(dice)]),
    }
    if dice.u8(..4) == 0 {
        say(&["LIMIT", &dice.u8(..12).to_string()]);
    }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let (k, k2, g, c) = (&dice.key("x"), &dice.key("x"), group(dice), consumer(dice));
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    match dice.u8(..40) {
        0..=9 => {
            say(&["XADD", k]);
            if dice.u8(..8) == 0 {
                say(&["NOMKSTREAM"]);
            }
            if dice.u8(..5) == 0 {
                trim(dice, &mut words);
            }
            words.push(new_id(dice));
            for _ in 0..dice.u8(1..4) {
                words.extend([dice.pick(&["f", "g", "1"]).to_owned(), value(dice)]);
            }
        }
        10 => {
            say(&["XTRIM", k]);
            trim(dice, &mut words);
        }
        11 => say(&["XDEL", k, &id(dice), &id(dice), &id(dice)]),
        12 => {
            // Redis 7.0 does not go by the entries that were deleted before: most of them are below these.
            let known: &[&str] = if dice.newer { &["8-60", "8-90", "9-0"] } else { &["8-99", "9-0"] };
            say(&["XSETID", k, dice.pick(known)]);
            if dice.bool() {
                say(&["ENTRIESADDED", &dice.u8(..100).to_string(), "MAXDELETEDID", &id(dice)]);
            }
        }
        13 => say(&["XLEN", k]),
        14..=16 => {
            let name = dice.pick(&["XRANGE", "XREVRANGE"]);
            say(&[name, k, &end(dice), &end(dice)]);
            if dice.bool() {
                say(&["COUNT", &count(dice)]);
            }
        }
        17 => {
            say(&["XREAD", "COUNT", &count(dice), "STREAMS", k, k2]);
            say(&[dice.pick(&["0", "8-3", "$"]), &id(dice)]);
        }
        18..=23 => {
            say(&["XREADGROUP", "GROUP", g, c]);
            if dice.bool() {
                say(&["COUNT", &count(dice)]);
            }
            if dice.u8(..6) == 0 {
                say(&["NOACK"]);
            }
            say(&["STREAMS", k]);
            let two = dice.u8(..4) == 0;
            if two {
                say(&[k2]);
            }
            for _ in 0..=u8::from(two) {
                let after = if dice.u8(..3) == 0 { id(dice) } else { ">".to_owned() };
                say(&[&after]);
            }
        }
        24..=26 => {
            say(&["XGROUP", "CREATE", k, g, dice.pick(&["$", "0", "8-3", "8-9"])]);
            if dice.u8(..3) == 0 {
                say(&["ENTRIESREAD", &dice.i8(-1..30).to_string()]);
            }
            if dice.bool() {
                say(&["MKSTREAM"]);
            }
        }
        27 => {
            say(&["XGROUP", "SETID", k, g, &id(dice)]);
            if dice.bool() {
                say(&["ENTRIESREAD", &dice.i8(-1..30).to_string()]);
            }
        }
        28 => say(&["XGROUP", dice.pick(&["CREATECONSUMER", "DELCONSUMER"]), k, g, c]),
        29 if dice.u8(..3) == 0 => say(&["XGROUP", "DESTROY", k, g]),
        29..=31 => say(&["XACK", k, g, &id(dice), &id(dice), &id(dice)]),
        32 | 33 => {
            say(&["XCLAIM", k, g, c, idle_ms(dice), &id(dice), &id(dice)]);
            while dice.u8(..3) > 0 {
                match dice.pick(&["IDLE", "TIME", "RETRYCOUNT", "FORCE", "JUSTID", "LASTID"]) {
                    "IDLE" => say(&["IDLE", dice.pick(&["0", "3600000"])]),
                    "TIME" => say(&["TIME", dice.pick(&["1", "1000000000000"])]),
                    "RETRYCOUNT" => say(&["RETRYCOUNT", &dice.u8(..20).to_string()]),
                    "LASTID" => say(&["LASTID", &id(dice)]),
                    option => say(&[option]),
                }
            }
        }
        34 => {
            say(&["XAUTOCLAIM", k, g, c, idle_ms(dice), &end(dice)]);
            if dice.bool() {
                say(&["COUNT", &count(dice)]);
            }
            if dice.bool() {
                say(&["JUSTID"]);
            }
        }
        35 => say(&["XPENDING", k, g]),
        36 => {
            say(&["XPENDING", k, g]);
            if dice.u8(..3) == 0 {
                say(&["IDLE", idle_ms(dice)]);
            }
            say(&[&end(dice), &end(dice), &count(dice)]);
            if dice.bool() {
                say(&[c]);
            }
            same = Same::Pending;
        }
        37 => {
            match dice.u8(..4) {
                0 => say(&["XINFO", "STREAM", k]),
                1 => say(&["XINFO", "STREAM", k, "FULL"]),
                2 => say(&["XINFO", "GROUPS", k]),
                _ => say(&["XINFO", "CONSUMERS", k, g]),
            }
            same = Same::Info;
        }
        38 => say(&["COPY", k, k2, "REPLACE"]),
        _ => say(&[dice.pick(&["DEL", "TYPE"]), k]),
    }
    (words, same)
}

/// What Redis 7.2 does along with this request and 7.0 does not: who reads or claims becomes a consumer, even where
/// nothing is there for it.
pub fn done_since_7_0(words: &Words) -> Vec<Words> {
    let create = |key: &String, group: &String, consumer: &String| -> Words {
        let words = ["XGROUP", "CREATECONSUMER", key, group, consumer];
        words.map(str::to_owned).to_vec()
    };
    match words.first().map(String::as_str) {
        Some("XCLAIM" | "XAUTOCLAIM") => vec![create(&words[1], &words[2], &words[3])],
        Some("XREADGROUP") => {
            let keys = words.iter().position(|word| word == "STREAMS").map_or(words.len(), |at| at + 1);
            let count = (words.len() - keys) / 2;
            words[keys..keys + count].iter().map(|key| create(key, &words[2], &words[3])).collect()
        }
        _ => Vec::new(),
    }
}
