//! Keys: every combination of conditions on expiry, and every number that may be refused.

use std::fmt::Write as _;

use crate::interop::strings::{NUMBERS, STATES, in_every_state, lifetimes, sequences};

/// The generated table: EXPIRE and its kin, COPY, SCAN.
pub fn options() -> String {
    let mut table = String::new();
    let states = [STATES[0], STATES[1], STATES[2], "SET k old PXAT 4102444800000"];
    for (command, values) in [
        ("EXPIRE", ["100", "2000", "-1"]),
        ("PEXPIRE", ["100000", "2000000", "0"]),
        ("EXPIREAT", ["4102444800", "4202444800", "1"]),
        ("PEXPIREAT", ["4102444800000", "4102444800001", "1"]),
    ] {
        let _ = writeln!(table, "== {command} with every sequence of conditions");
        for value in values {
            for options in sequences(&["NX", "xx", "GT", "lt"]) {
                in_every_state(&mut table, &states, &format!("{command} k {value} {options}"));
            }
            in_every_state(&mut table, &states[1..2], &format!("{command} k {value} NONSENSE"));
            in_every_state(&mut table, &states[1..2], &format!("{command} k {value} NX NONSENSE"));
        }
        let _ = writeln!(table, "== {command} with every number");
        for number in lifetimes() {
            in_every_state(&mut table, &states[..3], &format!("{command} k {number}"));
            let _ = writeln!(table, "SET k v\n{command} k {number} GT\n@approx 5 EXPIRETIME k");
            let _ = writeln!(table, "@approx 5000 PEXPIRETIME k\n@approx 5 TTL k\nPERSIST k");
        }
    }
    table.push_str("== numbers where a database is wanted\n");
    for number in NUMBERS {
        let _ = writeln!(table, "SET k v\nSELECT 15\nFLUSHDB\nSELECT 0\nSELECT {number}\nSELECT 0\nMOVE k {number}");
        let _ = writeln!(table, "SET k v\nCOPY k k2 DB {number}\nCOPY k k DB {number}\nSWAPDB 0 {number}");
        let _ = writeln!(table, "SWAPDB {number} 0\nSWAPDB {number} {number}\nFLUSHALL");
    }
    table.push_str("== COPY with every sequence of options\n");
    for options in sequences(&["REPLACE", "DB 0", "DB 3", "DB", "NONSENSE"]) {
        let _ = writeln!(table, "FLUSHALL\nSET k v EX 1000\nCOPY k k2 {options}\nCOPY k k2 {options}");
        let _ = writeln!(table, "COPY k k {options}\nCOPY none k2 {options}");
        let _ = writeln!(table, "@approx 5 TTL k2\nSELECT 3\nGET k2\nGET k\n@approx 5 TTL k2\nSELECT 0");
    }
    table.push_str("== SCAN with every sequence of options\nMSET aa 1 ab 2 b 3\n");
    for options in sequences(&["MATCH a*", "COUNT 1000", "TYPE string", "TYPE list", "TYPE nonsense", "COUNT", "X y"]) {
        // Options are read in order: what follows the unknown type is not looked at.
        let before = options.split("TYPE nonsense").next().unwrap_or_default();
        let wrong =
            ["COUNT TYPE", "COUNT MATCH", "COUNT COUNT", "COUNT X", "X y"].iter().any(|part| before.contains(part));
        let unknown =
            options.contains("TYPE nonsense") && !wrong && !before.trim_end().ends_with(" COUNT") && before != "COUNT ";
        let ours = r#"@ours "-ERR unknown type name 'nonsense'\r\n" "a misspelt type finds nothing" "#;
        let _ = writeln!(table, "{}@unordered SCAN 0 {options}", if unknown { ours } else { "" });
    }
    for number in NUMBERS {
        // A count below the number of keys may be answered with any part of them.
        if number.parse::<i64>().map_or(true, |n| !(1..10).contains(&n)) {
            let _ = writeln!(table, "@unordered SCAN 0 COUNT {number}");
        }
    }
    table.push_str("== patterns\n");
    let keys = [
        "hello", "hallo", "hxllo", "hllo", "heeello", "h[llo", "h*llo", "h?llo", "h\\\\llo", "h]llo", "h-llo", "h^llo",
    ];
    for key in keys {
        let _ = writeln!(table, "SET \"{key}\" 1");
    }
    for pattern in [
        "*",
        "h?llo",
        "h*llo",
        "h[ae]llo",
        "h[^e]llo",
        "h[a-b]llo",
        "h[b-a]llo",
        "h\\\\*llo",
        "h\\\\?llo",
        "h\\\\[llo",
        "h[\\\\]]llo",
        "h[]llo",
        "h[",
        "h[a",
        "h[a-",
        "*o",
        "**o",
        "h**",
        "?????",
        "h[^",
        "h[^]llo",
        "[h]*",
        "h\\\\",
        "",
        "h[*]llo",
        "h[?]llo",
        "h[-]llo",
        "h[a-x]llo",
        "h[\\\\-x]llo",
        "H*",
        "*l*l*",
        "h[--x]llo",
        "hello",
        "*hello*",
        "h[\\\\",
        "[^]*",
        "[]*",
        "h\\\\xllo",
        "h[!e]llo",
        "h*l*l*o*",
        "h****************llo",
    ] {
        let _ = writeln!(table, "@unordered KEYS \"{pattern}\"\n@unordered SCAN 0 COUNT 1000 MATCH \"{pattern}\"");
    }
    table
}
