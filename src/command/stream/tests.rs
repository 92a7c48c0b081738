//! Tests of the stream commands: what goes by time, what the log is told, and who waits for what.

use std::sync::{Arc, Mutex};

use crate::command::testing::Bench;
use crate::resp::reply::Protocol;

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
    // One that leaves nothing leaves nothing elsewhere, too.
    bench.run("XADD t MINID ~ 9-0 5-0 a 1");
    assert_eq!(bench.run("XLEN t"), ":0|");
    assert_eq!(log(), [format!("XADD t MINID = {0}-{0} 5-0 a 1", u64::MAX)]);
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
    let progress = "XGROUP SETID s g 2-0 ENTRIESREAD 2".to_owned();
    assert_eq!(log(), ["MULTI".into(), claim(1, "c", 1, 1), claim(2, "c", 1, 2), progress, "EXEC".into()]);
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
    for question in
        ["XRANGE s - +", "XPENDING s g", "XPENDING s g - + 10", "XPENDING s h", "XINFO GROUPS s", "DEBUG DIGEST"]
    {
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

#[test]
fn a_reader_waits_for_any_of_its_streams() {
    let mut bench = Bench::new();
    let mut client = bench.another();
    bench.run("XADD a 5-0 f 1");
    assert_eq!(client.run("XREAD BLOCK 0 COUNT 1 STREAMS a b c $ 2-0 $"), "");
    assert!(client.is_waiting());
    bench.run("XADD b 1-0 f 2");
    bench.run("XADD b 2-0 f 3");
    bench.run("XDEL a 5-0");
    assert_eq!(client.woken(), None, "it has seen all of that");
    bench.run("XADD b 2-1 f 4");
    assert_eq!(client.woken().unwrap(), "*1|*2|$1|b|*1|*2|$3|2-1|*2|$1|f|$1|4|");
    client.run("XREAD BLOCK 0 STREAMS a b $ $");
    for line in ["MULTI", "XADD b 3-0 f 5", "XADD a 6-0 f 6", "EXEC"] {
        bench.run(line);
    }
    let [a, b] = ["*2|$1|a|*1|*2|$3|6-0|*2|$1|f|$1|6|", "*2|$1|b|*1|*2|$3|3-0|*2|$1|f|$1|5|"];
    assert_eq!(client.woken().unwrap(), format!("*2|{a}{b}"), "what became ready together is read together");
    client.out_as(Protocol::Resp3);
    client.run("XREAD BLOCK 0 STREAMS b +");
    client.run("XREAD BLOCK 0 STREAMS b $");
    bench.run("XADD b 4-0 f 7");
    assert_eq!(client.woken().unwrap(), "%1|$1|b|*1|*2|$3|4-0|*2|$1|f|$1|7|");
}

#[test]
fn a_reader_gives_up_and_is_not_served_by_what_is_gone_again() {
    let mut bench = Bench::new();
    let mut client = bench.another();
    client.run("XREAD BLOCK 100 STREAMS s $");
    bench.run("XADD s MAXLEN 0 1-0 f 1");
    for line in ["MULTI", "XADD s 2-0 f 1", "DEL s", "RPUSH s x", "EXEC", "DEL s", "SET s v", "DEL s"] {
        bench.run(line);
    }
    assert_eq!(client.woken(), None);
    bench.clock.advance(100);
    assert_eq!(client.woken().unwrap(), "*-1|");
    for line in ["XREAD BLOCK x STREAMS s $", "XREAD BLOCK 1.5 STREAMS s $"] {
        assert_eq!(client.run(line), "-ERR timeout is not an integer or out of range|");
    }
    assert_eq!(client.run("XREAD BLOCK -1 STREAMS s $"), "-ERR timeout is negative|");
    for line in ["MULTI", "XREAD BLOCK 0 STREAMS s $", "XGROUP CREATE s g $ MKSTREAM"] {
        client.run(line);
    }
    client.run("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
    assert_eq!(client.run("EXEC"), "*3|*-1|+OK|*-1|", "nobody waits inside of a transaction");
}

#[test]
fn an_entry_goes_to_the_consumer_who_came_first() {
    let (mut bench, log) = logged();
    bench.run("XGROUP CREATE s g $ MKSTREAM");
    log();
    let mut clients: Vec<Bench> = (0..3).map(|_| bench.another()).collect();
    clients[0].run("XREADGROUP GROUP g c COUNT 1 BLOCK 0 STREAMS s >");
    clients[1].run("XREADGROUP GROUP g d BLOCK 0 NOACK STREAMS s >");
    clients[2].run("XREAD BLOCK 0 STREAMS s $");
    assert_eq!(log(), ["XGROUP CREATECONSUMER s g c", "XGROUP CREATECONSUMER s g d"]);
    bench.run("XADD s 1-0 f v");
    let served = "*1|*2|$1|s|*1|*2|$3|1-0|*2|$1|f|$1|v|";
    assert_eq!(clients[0].woken().unwrap(), served);
    assert_eq!(clients[1].woken(), None);
    assert_eq!(clients[2].woken().unwrap(), served, "who reads without a group takes nothing away");
    let claim = "XCLAIM s g c 0 1-0 TIME 1000000000 RETRYCOUNT 1 FORCE JUSTID LASTID 1-0";
    assert_eq!(log(), ["XADD s 1-0 f v", "MULTI", claim, "XGROUP SETID s g 1-0 ENTRIESREAD 1", "EXEC"]);
    bench.run("XADD s 2-0 f w");
    assert_eq!(clients[1].woken().unwrap(), "*1|*2|$1|s|*1|*2|$3|2-0|*2|$1|f|$1|w|");
    assert_eq!(log(), ["XADD s 2-0 f w", "XGROUP SETID s g 2-0 ENTRIESREAD 2"]);
    assert_eq!(bench.run("XPENDING s g"), "*4|:1|$3|1-0|$3|1-0|*1|*2|$1|c|$1|1|");
}

#[test]
fn a_consumer_hears_that_its_group_is_gone() {
    let gone = "-NOGROUP No such key 's{t}' or consumer group 'g' in XREADGROUP with GROUP option|";
    for (line, expected) in [
        ("DEL s{t}", gone),
        ("UNLINK s{t}", gone),
        ("FLUSHALL", gone),
        ("FLUSHDB", gone),
        ("SWAPDB 0 1", gone),
        ("MOVE s{t} 1", gone),
        ("XGROUP DESTROY s{t} g", gone),
        ("RENAME s{t} u{t}", gone),
        ("RENAME t{t} s{t}", gone),
        ("PEXPIREAT s{t} 1", gone),
        ("SET s{t} v", WRONG_TYPE),
        ("LATER", gone),
    ] {
        let mut bench = Bench::new();
        let mut client = bench.another();
        bench.run("XGROUP CREATE s{t} g $ MKSTREAM");
        bench.run("XADD t{t} 1-0 f v");
        client.run("XREADGROUP GROUP g c BLOCK 0 STREAMS s{t} >");
        if line == "LATER" {
            bench.run("PEXPIRE s{t} 10");
            assert_eq!(client.woken(), None);
            bench.clock.advance(11);
            bench.run("GET s{t}");
        } else {
            bench.run(line);
        }
        assert_eq!(client.woken().as_deref(), Some(expected), "{line}");
    }
}

#[test]
fn a_consumer_of_several_streams_hears_which_one_has_expired() {
    let mut bench = Bench::new();
    let [mut client, mut other] = [bench.another(), bench.another()];
    bench.run("XGROUP CREATE a g $ MKSTREAM");
    bench.run("XGROUP CREATE b g $ MKSTREAM");
    client.run("XREADGROUP GROUP g c BLOCK 0 STREAMS a b > >");
    other.run("XREAD BLOCK 0 STREAMS b c $ $");
    let figures = |bench: &mut Bench| {
        let info = bench.run("INFO clients");
        let keys = info.split('|').filter(|line| line.starts_with("total_blocking_keys"));
        keys.map(|line| line.rsplit(':').next().unwrap().parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(figures(&mut bench), [3, 2]);
    bench.run("PEXPIRE b 10");
    bench.clock.advance(11);
    bench.run("EXISTS b");
    let gone = "-NOGROUP No such key 'b' or consumer group 'g' in XREADGROUP with GROUP option|";
    assert_eq!(client.woken().as_deref(), Some(gone));
    assert_eq!((other.woken(), figures(&mut bench)), (None, vec![2, 0]));
}
