//! Random commands for bitmaps: offsets around the ends of bytes, of words and of the sizes at which strings
//! are stored otherwise.

use super::dice::{Dice, Same, Words};

fn offset(dice: &mut Dice) -> String {
    match dice.u8(..20) {
        0 => dice.pick(&["-1", "x", "4294967296", "#1", "99999999999999999999"]).into(),
        // Around 44, 8192 and 20000 bytes.
        1 => ([352, 65536, 160_000][dice.usize(..3)] + dice.u32(..40) - 20).to_string(),
        2..=5 => dice.u32(..3000).to_string(),
        _ => dice.u32(..150).to_string(),
    }
}

fn field(dice: &mut Dice) -> String {
    match dice.u8(..16) {
        0 => dice.pick(&["u64", "i65", "u0", "x8", "i"]).into(),
        1 => "i64".into(),
        2 => "u63".into(),
        _ => format!("{}{}", dice.pick(&["u", "i"]), dice.u8(1..=63)),
    }
}

fn number(dice: &mut Dice) -> String {
    match dice.u8(..6) {
        0 => dice.i64(..).to_string(),
        1 => dice.pick(&["9223372036854775807", "-9223372036854775808", "x", "0", "-1"]).into(),
        _ => dice.i64(-300..300).to_string(),
    }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, k3) = (dice.key("b"), dice.key("b"), dice.key("b"));
    match dice.u8(..20) {
        0..=4 => {
            let o = offset(dice);
            say(&["SETBIT", &k, &o, dice.pick(&["0", "1", "1", "1", "2"])]);
        }
        5 => say(&["GETBIT", &k, &offset(dice)]),
        6 | 7 => {
            say(&["BITCOUNT", &k]);
            if dice.bool() {
                let (from, to) = (dice.i64(-900..900).to_string(), dice.i64(-900..900).to_string());
                say(&[&from, &to]);
                if dice.bool() {
                    say(&[dice.pick(&["BIT", "BYTE", "bit"])]);
                }
            }
        }
        8 | 9 => {
            say(&["BITPOS", &k, dice.pick(&["0", "1"])]);
            let (from, to) = (dice.i64(-900..900).to_string(), dice.i64(-900..900).to_string());
            match dice.u8(..4) {
                0 => {}
                1 => say(&[&from]),
                2 => say(&[&from, &to]),
                _ => say(&[&from, &to, dice.pick(&["BIT", "BYTE"])]),
            }
        }
        10..=12 => {
            say(&["BITOP", dice.pick(&["AND", "OR", "XOR", "NOT", "and", "nor"]), &k, &k2]);
            match dice.u8(..4) {
                0 => {}
                1 => say(&[&k3]),
                _ => say(&[&k3, &k, &dice.key("b")]),
            }
        }
        13..=17 => {
            say(&["BITFIELD", &k]);
            for _ in 0..dice.u8(1..5) {
                let at = if dice.u8(..4) == 0 { format!("#{}", dice.u8(..20)) } else { offset(dice) };
                let (field, n) = (field(dice), number(dice));
                match dice.u8(..5) {
                    0 => words.extend(["OVERFLOW".into(), dice.pick(&["WRAP", "SAT", "FAIL", "fail", "no"]).into()]),
                    1 => words.extend(["GET".into(), field, at]),
                    2 => words.extend(["SET".into(), field, at, n]),
                    _ => words.extend(["INCRBY".into(), field, at, n]),
                }
            }
        }
        18 => say(&["BITFIELD_RO", &k, dice.pick(&["GET", "GET", "GET", "SET"]), &field(dice), &offset(dice)]),
        _ => say(&["SET", &k, &dice.value()]),
    }
    (words, Same::Bytes)
}
