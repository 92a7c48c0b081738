//! Strings: every combination of options, and every number that may be refused.

use std::fmt::Write as _;

/// Words where an integer is wanted: good ones, bad ones, and those at the edges.
pub const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "100",
    "\"\"",
    "\" 1\"",
    "\"1 \"",
    "+1",
    "-0",
    "01",
    "1.0",
    "1e3",
    "0x10",
    "abc",
    "\"1\\x00\"",
    "-",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9223372036854775",
    "9223372036854776",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
];

/// [`NUMBERS`] to live for: without those so short that the key may or may not be seen again.
pub fn lifetimes() -> impl Iterator<Item = &'static str> {
    NUMBERS.iter().copied().filter(|n| !matches!(*n, "1" | "100"))
}

/// The ways a key may be found: absent, a string, one that expires, a counter.
pub const STATES: &[&str] = &["", "SET k old", "SET k old EX 1000", "SET k 10", "SET k 3.0e3"];

/// All sequences of one, two and three of `options`; of three only one order.
pub fn sequences(options: &[&str]) -> Vec<String> {
    let mut all = vec![String::new()];
    for (i, a) in options.iter().enumerate() {
        all.push((*a).to_owned());
        for (j, b) in options.iter().enumerate() {
            all.push(format!("{a} {b}"));
            if i < j {
                all.extend(options[j + 1..].iter().map(|c| format!("{a} {b} {c}")));
            }
        }
    }
    all
}

/// Sends `command` to the key `k` in each of its states, and looks at the key afterwards.
pub fn in_every_state(table: &mut String, states: &[&str], command: &str) {
    for state in states {
        let _ = writeln!(table, "DEL k\n{state}\n{command}\nGET k\n@approx 5000 PTTL k");
    }
}

/// The generated table: options of SET and GETEX, numbers everywhere.
pub fn options() -> String {
    let mut table = String::from("== SET with every sequence of up to three options\n");
    let times = ["EX 100", "PX 100000", "EXAT 4102444800", "PXAT 4102444800000"];
    let words = ["NX", "xx", "Get", "KEEPTTL", times[0], times[1], times[2], times[3]];
    for options in sequences(&words) {
        in_every_state(&mut table, &STATES[..3], &format!("SET k new {options}"));
    }
    table.push_str("== GETEX with every sequence of up to three options\n");
    for options in sequences(&["PERSIST", times[0], times[1], times[2], times[3], "KEEPTTL", "NX"]) {
        in_every_state(&mut table, &STATES[..3], &format!("GETEX k {options}"));
    }
    table.push_str("== numbers where a time is wanted\n");
    for number in lifetimes() {
        for option in ["EX", "PX", "EXAT", "PXAT"] {
            in_every_state(&mut table, &STATES[2..3], &format!("SET k new {option} {number}"));
            in_every_state(&mut table, &STATES[2..3], &format!("GETEX k {option} {number}"));
        }
        in_every_state(&mut table, &STATES[..2], &format!("SETEX k {number} new"));
        in_every_state(&mut table, &STATES[..2], &format!("PSETEX k {number} new"));
    }
    table.push_str("== numbers to count with\n");
    for number in NUMBERS {
        let _ = writeln!(table, "SET n {number}\nINCR n\nGET n\nSET n {number}\nDECR n\nGET n\nOBJECT ENCODING n");
        let _ = writeln!(table, "SET n {number}\nINCRBY n 5\nDECRBY n 7\nGET n");
        in_every_state(&mut table, STATES, &format!("INCRBY k {number}"));
        in_every_state(&mut table, STATES, &format!("DECRBY k {number}"));
        in_every_state(&mut table, STATES, &format!("INCRBYFLOAT k {number}"));
        let _ = writeln!(table, "SET k {number}\nOBJECT ENCODING k\nSTRLEN k\nAPPEND k 1\nGET k\nOBJECT ENCODING k");
    }
    table.push_str("== numbers to cut with\nSET k \"Hello, World\"\n");
    for a in NUMBERS {
        for b in NUMBERS {
            let _ = writeln!(table, "GETRANGE k {a} {b}");
        }
        let _ = writeln!(table, "SUBSTR k {a} -1\nSUBSTR k 0 {a}\nGETRANGE none {a} -1\nLCS k k IDX MINMATCHLEN {a}");
    }
    for a in -14..=14 {
        for b in -14..=14 {
            let _ = writeln!(table, "GETRANGE k {a} {b}");
        }
    }
    // Offsets that are valid but would make a string of hundreds of megabytes are left out.
    for offset in NUMBERS.iter().filter(|n| n.parse::<i64>().is_err() || !n.starts_with("2147")) {
        in_every_state(&mut table, &STATES[..2], &format!("SETRANGE k {offset} xyz"));
        in_every_state(&mut table, &STATES[..2], &format!("SETRANGE k {offset} \"\""));
    }
    table.push_str("== INCRBYFLOAT\n");
    for a in FLOATS {
        for b in FLOATS {
            let _ = writeln!(table, "SET f {a}\nINCRBYFLOAT f {b}\nGET f");
        }
        let _ = writeln!(table, "DEL f\nINCRBYFLOAT f {a}\nOBJECT ENCODING f");
    }
    table.push_str("== LCS with every sequence of up to three options\n");
    for (a, b) in [("ohmytext", "mynewtext"), ("", "x"), ("same", "same"), ("abcbdab", "bdcaba"), ("aaaa", "bbbb")] {
        let _ = writeln!(table, "MSET a \"{a}\" b \"{b}\"");
        for options in sequences(&["LEN", "IDX", "WITHMATCHLEN", "MINMATCHLEN 2", "MINMATCHLEN", "NONSENSE"]) {
            let _ = writeln!(table, "LCS a b {options}");
        }
    }
    table
}

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.1",
    "0.2",
    "1.5",
    "-2.25",
    "3.0e3",
    "1e10",
    "1e-10",
    "5.0e-324",
    "123456789.123456789",
    "99999999999999999",
    "1e17",
    "1e300",
    "1.7e308",
    "inf",
    "-inf",
    "nan",
    "abc",
    "\"\"",
    "\" 1\"",
    "\"1 \"",
    "0x10",
    "1e400",
    "1e5000",
    ".5",
    "5.",
    "+3",
    "1,5",
    "\"1\\x00\"",
    "3.14159265358979323846",
    "10000000000000000000000",
];
