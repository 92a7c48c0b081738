//! Random commands for bitmaps: offsets around the ends of bytes, of words and of the sizes at which strings
//! are stored otherwise.

use fastrand::Rng;

use super::{Same, Words, key, pick, value};

fn bitmap_key(rng: &mut Rng) -> String {
    if rng.u8(..12) == 0 { key(rng) } else { pick(rng, &["m", "n", "{t}m", "{t}n"]).to_owned() }
}

fn offset(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0 => pick(rng, &["-1", "x", "4294967296", "#1", "99999999999999999999"]).into(),
        // Around 44, 8192 and 20000 bytes.
        1 => ([352, 65536, 160_000][rng.usize(..3)] + rng.u32(..40) - 20).to_string(),
        2..=5 => rng.u32(..3000).to_string(),
        _ => rng.u32(..150).to_string(),
    }
}

fn field(rng: &mut Rng) -> String {
    match rng.u8(..16) {
        0 => pick(rng, &["u64", "i65", "u0", "x8", "i"]).into(),
        1 => "i64".into(),
        2 => "u63".into(),
        _ => format!("{}{}", pick(rng, &["u", "i"]), rng.u8(1..=63)),
    }
}

fn number(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => rng.i64(..).to_string(),
        1 => pick(rng, &["9223372036854775807", "-9223372036854775808", "x", "0", "-1"]).into(),
        _ => rng.i64(-300..300).to_string(),
    }
}

/// One command.
pub fn command(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, k3) = (bitmap_key(rng), bitmap_key(rng), bitmap_key(rng));
    match rng.u8(..20) {
        0..=4 => {
            let o = offset(rng);
            say(&["SETBIT", &k, &o, pick(rng, &["0", "1", "1", "1", "2"])]);
        }
        5 => say(&["GETBIT", &k, &offset(rng)]),
        6 | 7 => {
            say(&["BITCOUNT", &k]);
            if rng.bool() {
                let (from, to) = (rng.i64(-900..900).to_string(), rng.i64(-900..900).to_string());
                say(&[&from, &to]);
                if rng.bool() {
                    say(&[pick(rng, &["BIT", "BYTE", "bit"])]);
                }
            }
        }
        8 | 9 => {
            say(&["BITPOS", &k, pick(rng, &["0", "1"])]);
            let (from, to) = (rng.i64(-900..900).to_string(), rng.i64(-900..900).to_string());
            match rng.u8(..4) {
                0 => {}
                1 => say(&[&from]),
                2 => say(&[&from, &to]),
                _ => say(&[&from, &to, pick(rng, &["BIT", "BYTE"])]),
            }
        }
        10..=12 => {
            say(&["BITOP", pick(rng, &["AND", "OR", "XOR", "NOT", "and", "nor"]), &k, &k2]);
            match rng.u8(..4) {
                0 => {}
                1 => say(&[&k3]),
                _ => say(&[&k3, &k, &bitmap_key(rng)]),
            }
        }
        13..=17 => {
            say(&["BITFIELD", &k]);
            for _ in 0..rng.u8(1..5) {
                let at = if rng.u8(..4) == 0 { format!("#{}", rng.u8(..20)) } else { offset(rng) };
                let (field, n) = (field(rng), number(rng));
                match rng.u8(..5) {
                    0 => words.extend(["OVERFLOW".into(), pick(rng, &["WRAP", "SAT", "FAIL", "fail", "no"]).into()]),
                    1 => words.extend(["GET".into(), field, at]),
                    2 => words.extend(["SET".into(), field, at, n]),
                    _ => words.extend(["INCRBY".into(), field, at, n]),
                }
            }
        }
        18 => say(&["BITFIELD_RO", &k, pick(rng, &["GET", "GET", "GET", "SET"]), &field(rng), &offset(rng)]),
        _ => say(&["SET", &k, &value(rng)]),
    }
    (words, Same::Bytes)
}
