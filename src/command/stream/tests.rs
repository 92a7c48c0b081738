use std::sync::{Arc, Mutex};

use crate::command::testing::Bench;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value|";

/// A server whose log is kept; taken from it, one request a line.
fn logged() -> (Bench, impl Fn() -> Vec<String>) {
    let bench = Bench::new();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = bytes.clone();
    bench.engine.log.read_with(Box::new(move |more| kept.lock().unwrap().extend_from_slice(more)));
    let take = move || {
        let text = String::from_utf8(std::mem::take(&mut *bytes.lock().unwrap())).unwrap();
        let (mut lines, mut words) = (Vec::<String>::new(), text.split("\r\n").filter(|word| !word.is_empty()));
        while let Some(count) = words.next() {
            let count: usize = count[1..].parse().unwrap();
            let line: Vec<&str> = (0..count).map(|_| words.nth(1).unwrap()).collect();
            lines.push(line.join(" "));
        }
        lines.retain(|line| !line.starts_with("SELECT"));
        lines
    };
    (bench, take)
}

#[test]
fn ids_are_made_from_the_time_and_never_go_back() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("XADD s * a 1"), "$12|1000000000-0|");
    assert_eq!(bench.run("XADD s * a 1"), "$12|1000000000-1|");
    bench.clock.set(900_000_000);
    assert_eq!(bench.run("XADD s * a 1"), "$12|1000000000-2|");
    bench.clock.set(1_000_000_001);
    assert_eq!(bench.run("XADD s * a 1"), "$12|1000000001-0|");
    assert_eq!(bench.run("XADD s 1000000001-* a 1"), "$12|1000000001-1|");
    assert_eq!(
        bench.run("XADD s 1000000000-* a 1"),
        "-ERR The ID specified in XADD is equal or smaller than the target stream top item|"
    );
    assert_eq!(bench.run("XLEN s"), ":5|");
}

#[test]
fn the_log_gets_ids_lengths_and_times_and_not_how_they_were_found() {
    let (mut bench, log) = logged();
    bench.run("XADD s * a 1");
    bench.run("XADD s 1000000000-* a 2");
    bench.run("XADD s NOMKSTREAM MAXLEN ~ 1 LIMIT 10 * a 3");
    bench.run("XADD s MINID ~ 5 * a 4");
    bench.run("XADD s MAXLEN = 2 2000000000-0 a 5");
    bench.run("XADD none NOMKSTREAM * a 5");
    let expected = [
        "XADD s 1000000000-0 a 1",
        "XADD s 1000000000-1 a 2",
        "XADD s NOMKSTREAM MAXLEN = 3 1000000000-2 a 3",
        "XADD s MINID = 1000000000-0 1000000000-3 a 4",
        "XADD s MAXLEN = 2 2000000000-0 a 5",
    ];
    assert_eq!(log(), expected);
    bench.run("XTRIM s MAXLEN ~ 1");
    bench.run("XTRIM s MAXLEN 10");
    bench.run("XTRIM s MAXLEN ~ 0");
    bench.run("XTRIM s MAXLEN 0");
    assert_eq!(log(), ["XTRIM s MAXLEN = 0"]);
}

#[test]
fn what_is_delivered_is_told_to_the_log_as_claims() {
    let (mut bench, log) = logged();
    for id in 1..=3 {
        bench.run(&format!("XADD s {id}-0 a {id}"));
    }
    bench.run("XGROUP CREATE s g 0");
    log();
    let claim = |id: u64, consumer: &str, count: u64, last: u64| {
        format!("XCLAIM s g {consumer} 0 {id}-0 TIME 1000000000 RETRYCOUNT {count} FORCE JUSTID LASTID {last}-0")
    };
    bench.run("XREADGROUP GROUP g c COUNT 2 STREAMS s >");
    assert_eq!(log(), ["MULTI".into(), claim(1, "c", 1, 1), claim(2, "c", 1, 2), "EXEC".into()]);
    // What was delivered before is no news, but a consumer that did not exist is.
    bench.run("XREADGROUP GROUP g c STREAMS s 0");
    bench.run("XREADGROUP GROUP g d STREAMS s 0");
    assert_eq!(log(), ["XGROUP CREATECONSUMER s g d"]);
    bench.run("XREADGROUP GROUP g e NOACK STREAMS s >");
    assert_eq!(log(), ["MULTI", "XGROUP CREATECONSUMER s g e", "XGROUP SETID s g 3-0 ENTRIESREAD 3", "EXEC"]);
    bench.run("XREADGROUP GROUP g e NOACK STREAMS s >");
    assert_eq!(log(), [""; 0]);
    bench.run("XCLAIM s g d 0 1-0");
    assert_eq!(log(), [claim(1, "d", 3, 3)]);
    bench.run("XCLAIM s g d 0 9-0 LASTID 7-0");
    assert_eq!(log(), ["XGROUP SETID s g 7-0 ENTRIESREAD 3"]);
    bench.run("XDEL s 1-0");
    log();
    bench.run("XAUTOCLAIM s g e 0 - JUSTID");
    assert_eq!(log(), ["MULTI".into(), claim(1, "d", 3, 7), claim(2, "e", 2, 7), "EXEC".into()]);
    bench.run("XACK s g 2-0 5-0");
    bench.run("XACK s g 2-0");
    assert_eq!(log(), ["XACK s g 2-0 5-0"]);
}

#[test]
fn what_the_log_tells_leads_another_server_to_the_same_state() {
    let (mut bench, log) = logged();
    for request in [
        "XADD s MAXLEN ~ 3 1-1 a 1 b 2",
        "XADD s 1-2 a 1 c 2",
        "XADD s 1-* a 1 c 2",
        "XGROUP CREATE s g 0",
        "XGROUP CREATE s h $ ENTRIESREAD 5",
        "XREADGROUP GROUP g c COUNT 2 STREAMS s >",
        "XREADGROUP GROUP g d STREAMS s >",
        "XREADGROUP GROUP h d NOACK STREAMS s >",
        "XADD s MINID = 1-2 2-1 x y",
        "XCLAIM s g e 0 1-2 RETRYCOUNT 7",
        "XDEL s 1-3",
        "XAUTOCLAIM s g f 0 - COUNT 2 JUSTID",
        "XREADGROUP GROUP h d STREAMS s >",
        "XACK s h 2-1",
        "XGROUP DELCONSUMER s g c",
        "XSETID s 9-9 ENTRIESADDED 20",
    ] {
        assert!(!bench.run(request).starts_with('-'), "{request}");
    }
    let mut other = Bench::new();
    for request in log().iter().filter(|line| !["MULTI", "EXEC"].contains(&line.as_str())) {
        assert!(!other.run(request).starts_with('-'), "{request}");
    }
    for question in ["XRANGE s - +", "XPENDING s g", "XPENDING s g - + 10", "XPENDING s h", "DEBUG DIGEST"] {
        assert_eq!(bench.run(question), other.run(question), "{question}");
    }
    assert_eq!(bench.run("XPENDING s g"), "*4|:2|$3|1-2|$3|1-3|*2|*2|$1|d|$1|1|*2|$1|f|$1|1|");
}

#[test]
fn deliveries_and_idle_times_are_counted() {
    let mut bench = Bench::new();
    bench.run("XADD s 1-1 a 1");
    bench.run("XGROUP CREATE s g 0");
    bench.run("XREADGROUP GROUP g c STREAMS s >");
    bench.clock.advance(500);
    assert_eq!(bench.run("XPENDING s g - + 10"), "*1|*4|$3|1-1|$1|c|:500|:1|");
    bench.run("XREADGROUP GROUP g c STREAMS s 0");
    assert_eq!(bench.run("XPENDING s g - + 10"), "*1|*4|$3|1-1|$1|c|:0|:2|");
    bench.clock.advance(700);
    assert_eq!(bench.run("XPENDING s g IDLE 701 - + 10"), "*0|");
    assert_eq!(bench.run("XCLAIM s g d 701 1-1 JUSTID"), "*0|");
    assert_eq!(bench.run("XCLAIM s g d 700 1-1 JUSTID"), "*1|$3|1-1|");
    assert_eq!(bench.run("XPENDING s g - + 10"), "*1|*4|$3|1-1|$1|d|:0|:2|");
    assert_eq!(bench.run("XAUTOCLAIM s g d 0 -"), "*3|$3|0-0|*1|*2|$3|1-1|*2|$1|a|$1|1|*0|");
    bench.clock.advance(30);
    assert_eq!(
        bench.run("XINFO CONSUMERS s g"),
        "*2|*8|$4|name|$1|c|$7|pending|:0|$4|idle|:730|$8|inactive|:1230|\
         *8|$4|name|$1|d|$7|pending|:1|$4|idle|:30|$8|inactive|:30|"
    );
    bench.run("XGROUP CREATECONSUMER s g e");
    assert!(bench.run("XINFO CONSUMERS s g").ends_with("*8|$4|name|$1|e|$7|pending|:0|$4|idle|:0|$8|inactive|:-1|"));
    let full = bench.run("XINFO STREAM s FULL");
    let expected = "$9|consumers|*3|*10|$4|name|$1|c|$9|seen-time|:1000000500|$11|active-time|:1000000000|\
                    $9|pel-count|:0|$7|pending|*0|*10|$4|name|$1|d|$9|seen-time|:1000001200|$11|active-time|:1000001200|\
                    $9|pel-count|:1|$7|pending|*1|*3|$3|1-1|:1000001200|:3|*10|$4|name|$1|e|";
    assert!(full.contains(expected), "{full}");
}

#[test]
fn the_last_entry_can_be_asked_for() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("XREAD STREAMS s +"), "*-1|");
    bench.run("XADD s 1-0 a 1");
    bench.run("XADD s 2-0 a 2");
    assert_eq!(bench.run("XREAD STREAMS s +"), "*1|*2|$1|s|*1|*2|$3|2-0|*2|$1|a|$1|2|");
    bench.run("XDEL s 2-0");
    assert_eq!(bench.run("XREAD STREAMS s +"), "*1|*2|$1|s|*1|*2|$3|1-0|*2|$1|a|$1|1|");
    bench.run("XTRIM s MAXLEN 0");
    assert_eq!(bench.run("XREAD STREAMS s +"), "*-1|");
}

#[test]
fn every_stream_command_refuses_a_string() {
    let mut bench = Bench::new();
    bench.run("SET s v");
    for request in [
        "XADD s * a b",
        "XLEN s",
        "XRANGE s - +",
        "XREVRANGE s + -",
        "XDEL s x",
        "XTRIM s MAXLEN 1",
        "XSETID s 1",
        "XREAD STREAMS s 0",
        "XREADGROUP GROUP g c STREAMS s >",
        "XGROUP CREATE s g $ MKSTREAM",
        "XGROUP SETID s g $",
        "XGROUP DESTROY s g",
        "XGROUP CREATECONSUMER s g c",
        "XGROUP DELCONSUMER s g c",
        "XACK s g x",
        "XPENDING s g",
        "XCLAIM s g c 0 1",
        "XAUTOCLAIM s g c 0 0",
        "XINFO STREAM s",
        "XINFO GROUPS s",
        "XINFO CONSUMERS s g",
    ] {
        assert_eq!(bench.run(request), WRONG_TYPE, "{request}");
    }
    assert_eq!(bench.run("GET s"), "$1|v|");
}

#[test]
fn a_stream_stays_when_it_is_empty_and_a_copy_goes_its_own_way() {
    let mut bench = Bench::new();
    bench.run("XADD s 1-1 a 1");
    bench.run("XGROUP CREATE s g 0");
    bench.run("XREADGROUP GROUP g c STREAMS s >");
    assert_eq!(bench.run("COPY s t"), ":1|");
    assert_eq!(bench.run("XDEL s 1-1"), ":1|");
    assert_eq!((bench.run("EXISTS s"), bench.run("XLEN t")), (":1|".into(), ":1|".into()));
    assert_eq!(bench.run("XACK t g 1-1"), ":1|");
    assert_eq!(bench.run("XREADGROUP GROUP g c STREAMS s 0"), "*1|*2|$1|s|*1|*2|$3|1-1|*-1|");
    assert_eq!((bench.run("TYPE s"), bench.run("OBJECT ENCODING s")), ("+stream|".into(), "$6|stream|".into()));
}
