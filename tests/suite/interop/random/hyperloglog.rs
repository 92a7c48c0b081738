//! Random commands for HyperLogLogs: from none to thousands of elements, so that both forms and the way from one to
//! the other are met, and limits of the sparse form at which it changes soon.

use super::dice::{Dice, Same, Words};

fn elements(dice: &mut Dice, words: &mut Words) {
    match dice.u8(..12) {
        0 => {
            let from = dice.u32(..100_000);
            words.extend((from..from + dice.u32(..1500)).map(|n| n.to_string()));
        }
        1 => words.extend((0..dice.u8(..120)).map(|_| dice.u64(..).to_string())),
        2 => {}
        _ => words.extend((0..dice.u8(1..6)).map(|_| dice.value())),
    }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, k3) = (dice.key("p"), dice.key("p"), dice.key("p"));
    match dice.u8(..20) {
        0..=8 => {
            say(&["PFADD", &k]);
            elements(dice, &mut words);
        }
        9 | 10 => say(&["PFCOUNT", &k]),
        11 => say(&["PFCOUNT", &k, &k2, &k3]),
        12 => say(&["PFMERGE", &k, &k2, &k3]),
        13 => say(&["PFMERGE", &k, &k2]),
        14 => say(&["PFDEBUG", dice.pick(&["ENCODING", "DECODE", "DECODE", "GETREG", "TODENSE"]), &k]),
        15 | 16 => say(&["GET", &k]),
        17 => say(&["CONFIG", "SET", "hll-sparse-max-bytes", dice.pick(&["3000", "3000", "1000", "300", "17", "20"])]),
        18 => say(&["DEL", &k]),
        _ => say(&["STRLEN", &k]),
    }
    (words, Same::Bytes)
}
