//! SCAN, HSCAN, SSCAN and ZSCAN while a third of the elements comes and goes: what is there throughout is returned.
//!
//! `SPINEL_SCAN_ELEMENTS` says how many elements there are; a run with 10000000 takes some minutes and is for
//! a quiet machine; `SPINEL_SCAN_ONLY` names one of the four, for it alone. What the server spent on each
//! returned element is told beside what a real Redis did.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::client::{Client, request};
use crate::support::server::{Server, tell};
use crate::support::watch::info;

/// What one call is asked to look at.
const COUNT: usize = 100;
/// How many commands are sent before their replies are read.
const BATCH: usize = 500;

/// One of the four.
#[derive(Clone, Copy)]
struct Family {
    scan: &'static str,
    /// Whether it walks the value at a key, and not the keys themselves.
    of_value: bool,
    add: &'static [&'static str],
    remove: &'static [&'static str],
}

const FAMILIES: [Family; 4] = [
    Family { scan: "SCAN", of_value: false, add: &["SET", "@", "v"], remove: &["DEL", "@"] },
    Family { scan: "HSCAN", of_value: true, add: &["HSET", "big", "@", "v"], remove: &["HDEL", "big", "@"] },
    Family { scan: "SSCAN", of_value: true, add: &["SADD", "big", "@"], remove: &["SREM", "big", "@"] },
    Family { scan: "ZSCAN", of_value: true, add: &["ZADD", "big", "1", "@"], remove: &["ZREM", "big", "@"] },
];

fn elements() -> usize {
    match std::env::var("SPINEL_SCAN_ELEMENTS") {
        Ok(number) => number.parse().expect("SPINEL_SCAN_ELEMENTS is a number"),
        Err(_) => 30_000,
    }
}

/// Sends a command for each element, its name in place of `@`.
fn each(client: &mut Client, command: &[&str], numbers: impl Iterator<Item = usize>, stop: &AtomicBool) {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(BATCH) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut batch = Vec::new();
        for n in some {
            let name = format!("m:{n}");
            let words: Vec<&str> = command.iter().map(|word| if *word == "@" { &name } else { *word }).collect();
            batch.extend(request(&words));
        }
        client.send(&batch).expect("sent");
        for _ in some {
            let reply = client.reply().expect("a reply");
            assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        }
    }
}

/// Every third element comes and goes, and as many that were never there before, so that tables grow and shrink.
fn change(client: &mut Client, family: Family, total: usize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        each(client, family.remove, (0..total).step_by(3), stop);
        each(client, family.add, total..total * 4 / 3, stop);
        each(client, family.add, (0..total).step_by(3), stop);
        each(client, family.remove, total..total * 4 / 3, stop);
    }
}

/// Scans once from beginning to end; returns which elements were returned, how many were in all, and in how many calls.
fn scan(client: &mut Client, family: Family, total: usize) -> (Vec<bool>, usize, usize) {
    let (mut seen, mut returned, mut calls) = (vec![false; total * 4 / 3 + 1], 0, 0);
    let (mut cursor, count) = ("0".to_owned(), COUNT.to_string());
    loop {
        let mut words = vec![family.scan];
        if family.of_value {
            words.push("big");
        }
        words.extend([&cursor, "COUNT", &count]);
        let reply = client.cmd(&words);
        calls += 1;
        let text = std::str::from_utf8(&reply).expect("all of it is ASCII");
        for name in text.split("\r\n").filter_map(|line| line.strip_prefix("m:")) {
            seen[name.parse::<usize>().expect("a number")] = true;
            returned += 1;
        }
        // An array of two, and the cursor is the first.
        let next = text.split("\r\n").nth(2).unwrap_or_else(|| panic!("no cursor in {text:?}")).to_owned();
        assert!(next.parse::<u64>().is_ok_and(|cursor| cursor < 1 << 53), "some clients keep {next} in a double");
        if next == "0" {
            return (seen, returned, calls);
        }
        cursor = next;
    }
}

/// What the server has spent on a command, in microseconds.
fn spent_us(client: &mut Client, command: &str) -> f64 {
    let line = info(client, &format!("cmdstat_{}", command.to_ascii_lowercase()));
    let usec = line.split(',').find_map(|field| field.strip_prefix("usec="));
    usec.and_then(|usec| usec.parse().ok()).unwrap_or_else(|| panic!("no time in {line:?}"))
}

/// Ends the changes when it goes, a panic included.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Scans one server while it changes; returns what a returned element cost, in nanoseconds.
fn scanned(server: &Server, family: Family, total: usize) -> f64 {
    let mut client = server.connect();
    client.cmd(&["FLUSHALL"]);
    client.cmd(&["CONFIG", "RESETSTAT"]);
    each(&mut client, family.add, 0..total, &AtomicBool::new(false));
    let stop = AtomicBool::new(false);
    let (returned, calls) = std::thread::scope(|scope| {
        let changer = scope.spawn(|| change(&mut server.connect(), family, total, &stop));
        let until_here = Stop(&stop);
        let (mut sums, mut lost) = ((0, 0), 0);
        for _ in 0..3 {
            let (seen, returned, calls) = scan(&mut client, family, total);
            lost += (0..total).filter(|n| n % 3 != 0 && !seen[*n]).count();
            sums = (sums.0 + returned, sums.1 + calls);
        }
        drop(until_here);
        changer.join().expect("changes were made");
        assert_eq!(lost, 0, "{} of {total} elements missed some that were there throughout", family.scan);
        sums
    });
    assert!(calls < 3 * (8 * total / COUNT + 1000), "{} calls of {} for {total} elements", calls, family.scan);
    spent_us(&mut client, family.scan) * 1000.0 / returned as f64
}

#[test]
fn what_is_there_throughout_is_returned_whatever_comes_and_goes() {
    let total = elements();
    let subject = Server::subject(&[]);
    let oracle = Server::oracle(&[]);
    let only = std::env::var("SPINEL_SCAN_ONLY").ok();
    for family in FAMILIES.into_iter().filter(|family| only.as_deref().is_none_or(|only| only == family.scan)) {
        if subject.connect().cmd(&["COMMAND", "INFO", family.scan]) == b"*1\r\n*-1\r\n" {
            tell(&format!("skipped: the subject does not know {}", family.scan));
            continue;
        }
        let ours = scanned(&subject, family, total);
        let theirs = oracle.as_ref().map(|oracle| scanned(oracle, family, total));
        let beside = theirs.map_or(String::new(), |ns| format!(", redis-server {ns:.0} ns"));
        tell(&format!("{} of {total}: {ours:.0} ns an element returned{beside}", family.scan));
    }
}
