//! Commands that wait: what is sent while clients wait, what each of them gets, and which go on waiting.
//!
//! A scenario is played against both servers. A client begins to wait before the next one does; at the end those that
//! still wait are unblocked one by one, and the reply to that says which they were.

use crate::support::client::{Client, request};
use crate::support::reply::{Protocol, Tree};
use crate::support::server::Server;
use crate::support::watch::{eventually, figure};

struct Scenario {
    /// What is there before.
    before: &'static [&'static str],
    /// What the clients send, one each; all of them have to wait.
    waits: &'static [&'static str],
    /// What happens then.
    then: &'static [&'static str],
    /// What Redis 7.2 replies to each client where 7.0 replies something else: it runs the command again, which sees
    /// all keys and their types as they are by then.
    since_7_0: &'static [Option<&'static str>],
}

const SAME: Scenario = Scenario { before: &[], waits: &[], then: &[], since_7_0: &[] };
const NOTHING: &str = "*-1\r\n";
const NO_GROUP: &str = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

const SCENARIOS: &[Scenario] = &[
    Scenario { before: &[], waits: &["XREAD BLOCK 0 STREAMS s $"], then: &["XADD s 1-0 f v"], ..SAME },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["XADD s 5-1 f v g w"],
        ..SAME
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s 7-0", "XREAD BLOCK 0 COUNT 1 STREAMS s $"],
        then: &["XADD s 6-0 f v", "XADD s 7-0 f v"],
        ..SAME
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s t $ $", "XREAD BLOCK 0 STREAMS t s $ $", "XREAD BLOCK 0 STREAMS u $"],
        then: &["XADD t 1-0 f v", "XADD s 6-0 f v"],
        ..SAME
    },
    // What is gone again, or never was, serves nobody.
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["XADD s MAXLEN 0 6-0 f v", "XTRIM s MAXLEN 0", "XDEL s 5-0", "XSETID s 9-0", "XLEN s"],
        since_7_0: &[Some(NOTHING)],
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["DEL s", "SET s v", "DEL s", "XADD s 4-0 f v", "XADD s 6-0 f v"],
        ..SAME
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["MULTI", "XADD s 6-0 f v", "DEL s", "RPUSH s a", "EXEC"],
        ..SAME
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["MULTI", "XADD s 6-0 f v", "XADD s 7-0 f w", "XDEL s 6-0", "EXEC"],
        ..SAME
    },
    Scenario {
        before: &["XADD other 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["RENAME other s"],
        ..SAME
    },
    // A group hands each entry to one.
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP g b BLOCK 0 STREAMS s >"],
        then: &["XADD s 1-0 f v", "XPENDING s g", "XADD s 2-0 f v", "XPENDING s g", "XADD s 3-0 f v", "XPENDING s g"],
        ..SAME
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XGROUP CREATE s h $"],
        waits: &[
            "XREADGROUP GROUP g a COUNT 1 NOACK BLOCK 0 STREAMS s >",
            "XREADGROUP GROUP h b BLOCK 0 STREAMS s >",
            "XREAD BLOCK 0 STREAMS s 0",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
        ],
        then: &["MULTI", "XADD s 1-0 f v", "XADD s 2-0 f v", "EXEC", "XPENDING s g", "XPENDING s h", "XINFO GROUPS s"],
        ..SAME
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XGROUP CREATE t g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s t > >"],
        then: &["XADD t 1-0 f v", "XADD s 2-0 f v", "XPENDING s g", "XPENDING t g"],
        ..SAME
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XADD s 6-0 f v", "XDEL s 6-0"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >"],
        then: &["XADD s 5-0 f v", "XACK s g 6-0", "XGROUP CREATECONSUMER s g b", "XADD s 7-0 f v"],
        ..SAME
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP g b BLOCK 0 STREAMS s >"],
        then: &["XADD s MAXLEN 0 1-0 f v", "XGROUP DELCONSUMER s g b", "XADD s 2-0 f v", "XADD s 3-0 f v"],
        since_7_0: &[
            Some("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n2-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
            Some("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n3-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ],
    },
    // Its group, or its stream, is gone, or another.
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XGROUP CREATE s h $"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP h a BLOCK 0 STREAMS s >"],
        then: &["XGROUP DESTROY s g", "XADD s 1-0 f v"],
        since_7_0: &[Some(NO_GROUP), None],
    },
    Scenario {
        before: &["XGROUP CREATE s{t} g $ MKSTREAM", "XADD u{t} 1-0 f v"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s{t} >", "XREAD BLOCK 0 STREAMS s{t} 0"],
        then: &["RENAME u{t} s{t}"],
        since_7_0: &[
            Some("-NOGROUP No such key 's{t}' or consumer group 'g' in XREADGROUP with GROUP option\r\n"),
            None,
        ],
    },
    Scenario {
        before: &["XGROUP CREATE s{t} g $ MKSTREAM", "XGROUP CREATE u{t} g $ MKSTREAM", "XADD u{t} 1-0 f v"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s{t} >"],
        then: &["RENAME u{t} s{t}"],
        ..SAME
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["DEL s", "XADD s 1-0 f v"],
        since_7_0: &[Some(NO_GROUP), None],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SET s v", "DEL s"],
        since_7_0: &[Some(WRONG_TYPE), None],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >"],
        then: &["MULTI", "DEL s", "RPUSH s a", "EXEC"],
        since_7_0: &[Some(WRONG_TYPE)],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["FLUSHALL"],
        since_7_0: &[Some(NO_GROUP), None],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "SELECT 1", "RPUSH s a", "SELECT 0"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SWAPDB 0 1"],
        since_7_0: &[Some(WRONG_TYPE), None],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SWAPDB 0 1"],
        since_7_0: &[Some(NO_GROUP), None],
    },
    // Lists and streams under one name leave each other alone.
    Scenario {
        before: &[],
        waits: &["BLPOP k 0", "XREAD BLOCK 0 STREAMS k $"],
        then: &["XADD k 1-0 f v", "DEL k", "RPUSH k a"],
        ..SAME
    },
    Scenario {
        before: &[],
        waits: &["BLPOP k l 0", "BRPOP k 0", "BLMPOP 0 2 l k LEFT COUNT 2", "BLMOVE k m LEFT RIGHT 0"],
        then: &["RPUSH k 1 2 3 4 5 6", "LRANGE k 0 -1", "LRANGE m 0 -1"],
        ..SAME
    },
    Scenario {
        before: &[],
        waits: &["BLPOP a b 0", "BLPOP b a 0"],
        then: &["MULTI", "RPUSH b 1", "RPUSH a 2", "EXEC"],
        since_7_0: &[Some("*2\r\n$1\r\na\r\n$1\r\n2\r\n"), Some("*2\r\n$1\r\nb\r\n$1\r\n1\r\n")],
    },
    Scenario {
        before: &[],
        waits: &["BLMOVE a b LEFT RIGHT 0", "BRPOPLPUSH b c 0", "BLPOP c 0"],
        then: &["RPUSH a x", "EXISTS a b c"],
        ..SAME
    },
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// What was asked, and what was replied.
type Replies = Vec<(String, Vec<u8>)>;

/// All replies: to what happens, and to the unblocking of each client with its own.
fn play(server: &Server, scenario: &Scenario, protocol: Protocol) -> (Replies, Vec<[Vec<u8>; 2]>) {
    let connect = || {
        let mut client = server.connect();
        if protocol == Protocol::Resp3 {
            client.cmd(&["HELLO", "3"]);
        }
        client
    };
    let mut main = connect();
    let mut replies = Vec::new();
    let mut ask = |main: &mut Client, line: &str| replies.push((line.to_owned(), main.cmd(&words(line))));
    ["FLUSHALL", "SELECT 0"].iter().chain(scenario.before).for_each(|line| ask(&mut main, line));
    let mut clients = Vec::new();
    for line in scenario.waits {
        let mut client = connect();
        let id = Tree::parse(&client.cmd(&["CLIENT", "ID"]));
        let id = String::from_utf8_lossy(id.bytes().expect("an integer")).into_owned();
        client.send(&request(&words(line))).expect("sent");
        eventually(line, || figure(&mut main, "blocked_clients") == clients.len() as i64 + 1);
        clients.push((*line, client, id));
    }
    scenario.then.iter().for_each(|line| ask(&mut main, line));
    let end = |(line, mut client, id): (&str, Client, String)| {
        let waited = main.cmd(&["CLIENT", "UNBLOCK", &id]);
        [waited, client.reply().unwrap_or_else(|e| panic!("no reply to {line}: {e}"))]
    };
    let ends = clients.into_iter().map(end).collect();
    (replies, ends)
}

fn compare(protocol: Protocol) {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let newer = oracle.is_redis_7_0(None) && !subject.is_redis_7_0(None);
    let mut differences = Vec::new();
    for scenario in SCENARIOS {
        let mut differ = |line: &str, ours: &[u8], theirs: &[u8]| {
            if ours != theirs {
                let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
                differences.push(format!("{:?}: {line}\n  subject: {ours}\n  oracle:  {theirs}", scenario.then));
            }
        };
        let (ours, our_ends) = play(&subject, scenario, protocol);
        let (theirs, their_ends) = play(&oracle, scenario, protocol);
        for ((line, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            differ(line, ours, theirs);
        }
        for (at, (ours, theirs)) in our_ends.iter().zip(&their_ends).enumerate() {
            let line = scenario.waits[at];
            match scenario.since_7_0.get(at).copied().flatten().filter(|_| newer) {
                None => ours.iter().zip(theirs).for_each(|(ours, theirs)| differ(line, ours, theirs)),
                Some(reply) => {
                    let waited: &[u8] = if reply == NOTHING { b":1\r\n" } else { b":0\r\n" };
                    differ(line, &ours[0], waited);
                    // They are written here as RESP2 has them.
                    if protocol == Protocol::Resp2 || reply.starts_with('-') {
                        differ(line, &ours[1], reply.as_bytes());
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} replies differ\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn waiting_in_resp2() {
    compare(Protocol::Resp2);
}

#[test]
fn waiting_in_resp3() {
    compare(Protocol::Resp3);
}
