//! Random commands on streams and their groups.
//!
//! Ids stay among a few, so that commands meet each other's entries: mostly `8-*` and what has come of it. Idle times
//! are none or half an hour, so that no reply depends on which millisecond it is.

use fastrand::Rng;

use super::{Same, Words, pick};

fn key<'a>(rng: &mut Rng) -> &'a str {
    pick(rng, &["s1", "s1", "s2", "s3", "a"])
}

fn group<'a>(rng: &mut Rng) -> &'a str {
    pick(rng, &["g", "g", "h", "none"])
}

fn consumer<'a>(rng: &mut Rng) -> &'a str {
    pick(rng, &["x", "y", "z"])
}

fn id(rng: &mut Rng) -> String {
    match rng.u8(..30) {
        0 => pick(rng, &["x", "", "1-", "-1", "1-x", "8-*", "18446744073709551615"]).into(),
        1 => rng.u8(1..9).to_string(),
        2..=4 => format!("{}-{}", rng.u8(..8), rng.u8(..3)),
        5 => format!("8-{}", rng.u8(60..80)),
        _ => format!("8-{}", rng.u8(..25)),
    }
}

fn new_id(rng: &mut Rng) -> String {
    match rng.u8(..12) {
        0 => id(rng),
        1 | 2 => format!("{}-*", rng.u8(..8)),
        _ => "8-*".into(),
    }
}

fn end(rng: &mut Rng) -> String {
    match rng.u8(..4) {
        0 => pick(rng, &["-", "+"]).into(),
        1 => format!("({}", id(rng)),
        _ => id(rng),
    }
}

fn count(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0 => pick(rng, &["0", "-1", "x"]).into(),
        _ => rng.u8(1..12).to_string(),
    }
}

/// None, or so long that only what was claimed with `IDLE` has waited for it.
fn idle_ms<'a>(rng: &mut Rng) -> &'a str {
    pick(rng, &["0", "0", "1800000", "x"])
}

fn value(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => "x".repeat(rng.usize(..200)),
        1 => rng.i64(..).to_string(),
        _ => rng.i8(..).to_string(),
    }
}

fn trim(rng: &mut Rng, words: &mut Words) {
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let strategy = pick(rng, &["MAXLEN", "MINID"]);
    say(&[strategy]);
    let precision = pick(rng, &["", "=", "~", "~"]);
    if !precision.is_empty() {
        say(&[precision]);
    }
    match strategy {
        "MAXLEN" => say(&[&rng.u8(..40).to_string()]),
        _ => say(&[&id(rng)]),
    }
    if rng.u8(..4) == 0 {
        say(&["LIMIT", &rng.u8(..12).to_string()]);
    }
}

/// One command.
pub fn command(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let (k, k2, g, c) = (key(rng), key(rng), group(rng), consumer(rng));
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    match rng.u8(..40) {
        0..=9 => {
            say(&["XADD", k]);
            if rng.u8(..8) == 0 {
                say(&["NOMKSTREAM"]);
            }
            if rng.u8(..5) == 0 {
                trim(rng, &mut words);
            }
            words.push(new_id(rng));
            for _ in 0..rng.u8(1..4) {
                words.extend([pick(rng, &["f", "g", "1"]).to_owned(), value(rng)]);
            }
        }
        10 => {
            say(&["XTRIM", k]);
            trim(rng, &mut words);
        }
        11 => say(&["XDEL", k, &id(rng), &id(rng), &id(rng)]),
        12 => {
            say(&["XSETID", k, pick(rng, &["8-60", "8-90", "9-0"])]);
            if rng.bool() {
                say(&["ENTRIESADDED", &rng.u8(..100).to_string(), "MAXDELETEDID", &id(rng)]);
            }
        }
        13 => say(&["XLEN", k]),
        14..=16 => {
            let name = pick(rng, &["XRANGE", "XREVRANGE"]);
            say(&[name, k, &end(rng), &end(rng)]);
            if rng.bool() {
                say(&["COUNT", &count(rng)]);
            }
        }
        17 => {
            say(&["XREAD", "COUNT", &count(rng), "STREAMS", k, k2]);
            say(&[pick(rng, &["0", "8-3", "$"]), &id(rng)]);
        }
        18..=23 => {
            say(&["XREADGROUP", "GROUP", g, c]);
            if rng.bool() {
                say(&["COUNT", &count(rng)]);
            }
            if rng.u8(..6) == 0 {
                say(&["NOACK"]);
            }
            say(&["STREAMS", k]);
            let two = rng.u8(..4) == 0;
            if two {
                say(&[k2]);
            }
            for _ in 0..=u8::from(two) {
                let after = if rng.u8(..3) == 0 { id(rng) } else { ">".to_owned() };
                say(&[&after]);
            }
        }
        24..=26 => {
            say(&["XGROUP", "CREATE", k, g, pick(rng, &["$", "0", "8-3", "8-9"])]);
            if rng.u8(..3) == 0 {
                say(&["ENTRIESREAD", &rng.i8(-1..30).to_string()]);
            }
            if rng.bool() {
                say(&["MKSTREAM"]);
            }
        }
        27 => {
            say(&["XGROUP", "SETID", k, g, &id(rng)]);
            if rng.bool() {
                say(&["ENTRIESREAD", &rng.i8(-1..30).to_string()]);
            }
        }
        28 => say(&["XGROUP", pick(rng, &["CREATECONSUMER", "DELCONSUMER"]), k, g, c]),
        29 if rng.u8(..3) == 0 => say(&["XGROUP", "DESTROY", k, g]),
        29..=31 => say(&["XACK", k, g, &id(rng), &id(rng), &id(rng)]),
        32 | 33 => {
            say(&["XCLAIM", k, g, c, idle_ms(rng), &id(rng), &id(rng)]);
            while rng.u8(..3) > 0 {
                match pick(rng, &["IDLE", "TIME", "RETRYCOUNT", "FORCE", "JUSTID", "LASTID"]) {
                    "IDLE" => say(&["IDLE", pick(rng, &["0", "3600000"])]),
                    "TIME" => say(&["TIME", pick(rng, &["1", "1000000000000"])]),
                    "RETRYCOUNT" => say(&["RETRYCOUNT", &rng.u8(..20).to_string()]),
                    "LASTID" => say(&["LASTID", &id(rng)]),
                    option => say(&[option]),
                }
            }
        }
        34 => {
            say(&["XAUTOCLAIM", k, g, c, idle_ms(rng), &end(rng)]);
            if rng.bool() {
                say(&["COUNT", &count(rng)]);
            }
            if rng.bool() {
                say(&["JUSTID"]);
            }
        }
        35 => say(&["XPENDING", k, g]),
        36 => {
            say(&["XPENDING", k, g]);
            if rng.u8(..3) == 0 {
                say(&["IDLE", idle_ms(rng)]);
            }
            say(&[&end(rng), &end(rng), &count(rng)]);
            if rng.bool() {
                say(&[c]);
            }
            same = Same::Pending;
        }
        37 => {
            match rng.u8(..4) {
                0 => say(&["XINFO", "STREAM", k]),
                1 => say(&["XINFO", "STREAM", k, "FULL"]),
                2 => say(&["XINFO", "GROUPS", k]),
                _ => say(&["XINFO", "CONSUMERS", k, g]),
            }
            same = Same::Info;
        }
        38 => say(&["COPY", k, k2, "REPLACE"]),
        _ => say(&[pick(rng, &["DEL", "TYPE"]), k]),
    }
    (words, same)
}
