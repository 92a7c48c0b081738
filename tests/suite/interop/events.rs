//! Keyspace events: after each command a subscriber of either server must have heard the same, in the same order.

use std::time::{Duration, Instant};

use crate::interop::language::{Compare, Step, parse};
use crate::support::client::Client;
use crate::support::server::{Server, tell};

/// A server, a client of it, and another that hears of everything.
struct Side {
    client: Client,
    listener: Client,
    pings: u32,
}

impl Side {
    fn new(server: &Server) -> Side {
        let (mut client, mut listener) = (server.connect(), server.connect());
        assert_eq!(client.cmd(&["CONFIG", "SET", "notify-keyspace-events", "KEAmn"]), b"+OK\r\n");
        assert!(listener.cmd(&["PSUBSCRIBE", "__key*__:*"]).starts_with(b"*3\r\n$10\r\npsubscribe\r\n"));
        Side { client, listener, pings: 0 }
    }

    /// What the listener heard since the last time, a line for each event.
    fn heard(&mut self) -> Vec<String> {
        self.pings += 1;
        let mark = self.pings.to_string();
        let mut reply = self.listener.cmd(&["PING", &mark]);
        let mut events = Vec::new();
        while !reply.starts_with(b"*2\r\n$4\r\npong\r\n") {
            let text = String::from_utf8_lossy(&reply).into_owned();
            let fields: Vec<&str> = text.split("\r\n").filter(|field| !field.starts_with(['$', '*'])).collect();
            events.push(fields[1..].join(" ").trim_end().to_owned());
            reply = self.listener.reply().expect("the listener goes on");
        }
        events
    }
}

#[test]
fn every_command_has_the_events_of_redis() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (Side::new(&subject), Side::new(&oracle));
    let (mut differences, mut skip) = (Vec::new(), false);
    for step in parse(include_str!("events.table")) {
        let ask = match step {
            Step::Section(_) | Step::Reset => {
                skip = false;
                for side in [&mut ours, &mut theirs] {
                    side.client.cmd(&["SELECT", "0"]);
                    side.client.cmd(&["FLUSHALL"]);
                    side.heard();
                }
                continue;
            }
            Step::Needs(_) => continue,
            Step::Ask(ask) => ask,
        };
        if skip {
            continue;
        }
        let reply = ours.client.cmd(&ask.args);
        if reply.starts_with(b"-ERR unknown command") {
            tell(&format!("skipped: the rest of a section of events, from {}: the subject does not know it", ask.text));
            skip = true;
            continue;
        }
        theirs.client.cmd(&ask.args);
        let (mine, others) = (ours.heard(), theirs.heard());
        if mine != others && ask.compare != Compare::Ignored {
            differences.push(format!("line {}: {}\n  subject: {mine:?}\n  oracle:  {others:?}", ask.number, ask.text));
        }
    }
    assert!(differences.is_empty(), "{} commands differ\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn that_a_key_has_expired_is_told_at_its_deadline() {
    let server = Server::subject(&[]);
    let mut side = Side::new(&server);
    let began = Instant::now();
    side.client.cmd(&["SET", "a", "1", "PX", "30"]);
    let mut last = Vec::new();
    while !last.ends_with(b"__keyevent@0__:expired\r\n$1\r\na\r\n") {
        last = side.listener.reply().expect("the event comes");
    }
    assert!(began.elapsed() >= Duration::from_millis(30));
}
