//! Random commands for sets: few keys, members of all sizes, enough of them to meet every encoding.

use fastrand::Rng;

use super::{Same, Words, integer, key, options, pick};

fn set_key(rng: &mut Rng) -> String {
    if rng.u8(..12) == 0 { key(rng) } else { pick(rng, &["s", "t", "{t}u", "{t}v"]).to_owned() }
}

fn member(rng: &mut Rng) -> String {
    match rng.u8(..12) {
        0 => pick(rng, &["", "01", "+1", "-0", " 1", "9223372036854775807", "9223372036854775808", "1e3"]).into(),
        1 => rng.i64(..).to_string(),
        2 => "m".repeat(rng.usize(60..70)),
        3 => "l".repeat(rng.usize(250..260)),
        4 | 5 => pick(rng, &["a", "b", "c", "hello", "\u{0}\r\n"]).into(),
        _ => rng.i64(-9..30).to_string(),
    }
}

/// Some members; now and then more than a compact set may have.
fn members(rng: &mut Rng, words: &mut Words) {
    match rng.u8(..20) {
        0 => {
            let from = rng.i64(0..300);
            words.extend((from..from + rng.i64(100..600)).map(|n| n.to_string()));
        }
        1 => words.extend((0..rng.i64(100..160)).map(|n| format!("x{n}"))),
        _ => words.extend((0..rng.u8(1..5)).map(|_| member(rng))),
    }
}

/// One command.
pub fn command(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut same = Same::Bytes;
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, k3, m) = (set_key(rng), set_key(rng), set_key(rng), member(rng));
    match rng.u8(..24) {
        0..=5 => {
            say(&["SADD", &k]);
            members(rng, &mut words);
        }
        6 | 7 => {
            say(&["SREM", &k]);
            members(rng, &mut words);
        }
        8 => say(&["SISMEMBER", &k, &m]),
        9 => {
            say(&["SMISMEMBER", &k]);
            members(rng, &mut words);
        }
        10 => say(&["SCARD", &k]),
        11 => {
            say(&["SMEMBERS", &k]);
            same = Same::Unordered;
        }
        12 => say(&["SMOVE", &k, &k2, &m]),
        // As many as there are: what chance would choose cannot be compared.
        13 => {
            say(&["SPOP", &k, pick(rng, &["0", "100000", "-1"])]);
            same = Same::Unordered;
        }
        14 => {
            say(&["SRANDMEMBER", &k, pick(rng, &["0", "100000", "x"])]);
            same = Same::Unordered;
        }
        15 | 16 => {
            say(&[pick(rng, &["SINTER", "SUNION", "SDIFF"]), &k, &k2, &k3]);
            same = Same::Unordered;
        }
        17..=19 => say(&[pick(rng, &["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]), &k, &k2, &k3]),
        20 => say(&["SINTERCARD", "2", &k, &k2, "LIMIT", &integer(rng)]),
        21 => {
            // Looks at everything at once, so that the cursor is 0 in any encoding.
            say(&["SSCAN", &k, "0", "COUNT", "100000"]);
            options(rng, &mut words, &["NONSENSE"]);
            same = Same::Unordered;
        }
        22 => {
            say(&["OBJECT", "ENCODING", &k]);
            same = Same::Encoding;
        }
        _ => say(&[pick(rng, &["DEL", "TYPE"]), &k]),
    }
    (words, same)
}
