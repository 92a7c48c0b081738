//! Random commands for HyperLogLogs: from none to thousands of elements, so that both forms and the way from one to
//! the other are met, and limits of the sparse form at which it changes soon.

use fastrand::Rng;

use super::{Same, Words, key, pick, value};

fn hll_key(rng: &mut Rng) -> String {
    if rng.u8(..15) == 0 { key(rng) } else { pick(rng, &["h", "i", "{t}h", "{t}i"]).to_owned() }
}

fn elements(rng: &mut Rng, words: &mut Words) {
    match rng.u8(..12) {
        0 => {
            let from = rng.u32(..100_000);
            words.extend((from..from + rng.u32(..1500)).map(|n| n.to_string()));
        }
        1 => words.extend((0..rng.u8(..120)).map(|_| rng.u64(..).to_string())),
        2 => {}
        _ => words.extend((0..rng.u8(1..6)).map(|_| value(rng))),
    }
}

/// One command.
pub fn command(rng: &mut Rng) -> (Words, Same) {
    let mut words: Words = Vec::new();
    let mut say = |all: &[&str]| words.extend(all.iter().map(|w| (*w).to_owned()));
    let (k, k2, k3) = (hll_key(rng), hll_key(rng), hll_key(rng));
    match rng.u8(..20) {
        0..=8 => {
            say(&["PFADD", &k]);
            elements(rng, &mut words);
        }
        9 | 10 => say(&["PFCOUNT", &k]),
        11 => say(&["PFCOUNT", &k, &k2, &k3]),
        12 => say(&["PFMERGE", &k, &k2, &k3]),
        13 => say(&["PFMERGE", &k, &k2]),
        14 => say(&["PFDEBUG", pick(rng, &["ENCODING", "DECODE", "DECODE", "GETREG", "TODENSE"]), &k]),
        15 | 16 => say(&["GET", &k]),
        17 => say(&["CONFIG", "SET", "hll-sparse-max-bytes", pick(rng, &["3000", "3000", "1000", "300", "17", "20"])]),
        18 => say(&["DEL", &k]),
        _ => say(&["STRLEN", &k]),
    }
    (words, Same::Bytes)
}
