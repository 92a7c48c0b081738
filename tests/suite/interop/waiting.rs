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
}

const SCENARIOS: &[Scenario] = &[
    Scenario { before: &[], waits: &["XREAD BLOCK 0 STREAMS s $"], then: &["XADD s 1-0 f v"] },
    Scenario { before: &["XADD s 5-0 f v"], waits: &["XREAD BLOCK 0 STREAMS s $"], then: &["XADD s 5-1 f v g w"] },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s 7-0", "XREAD BLOCK 0 COUNT 1 STREAMS s $"],
        then: &["XADD s 6-0 f v", "XADD s 7-0 f v"],
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s t $ $", "XREAD BLOCK 0 STREAMS t s $ $", "XREAD BLOCK 0 STREAMS u $"],
        then: &["XADD t 1-0 f v", "XADD s 6-0 f v"],
    },
    // What is gone again, or never was, serves nobody.
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["XADD s MAXLEN 0 6-0 f v", "XTRIM s MAXLEN 0", "XDEL s 5-0", "XSETID s 9-0", "XLEN s"],
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["DEL s", "SET s v", "DEL s", "XADD s 4-0 f v", "XADD s 6-0 f v"],
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["MULTI", "XADD s 6-0 f v", "DEL s", "RPUSH s a", "EXEC"],
    },
    Scenario {
        before: &["XADD s 5-0 f v"],
        waits: &["XREAD BLOCK 0 STREAMS s $"],
        then: &["MULTI", "XADD s 6-0 f v", "XADD s 7-0 f w", "XDEL s 6-0", "EXEC"],
    },
    Scenario { before: &["XADD other 5-0 f v"], waits: &["XREAD BLOCK 0 STREAMS s $"], then: &["RENAME other s"] },
    // A group hands each entry to one.
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP g b BLOCK 0 STREAMS s >"],
        then: &["XADD s 1-0 f v", "XPENDING s g", "XADD s 2-0 f v", "XPENDING s g", "XADD s 3-0 f v", "XPENDING s g"],
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
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XGROUP CREATE t g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s t > >"],
        then: &["XADD t 1-0 f v", "XADD s 2-0 f v", "XPENDING s g", "XPENDING t g"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XADD s 6-0 f v", "XDEL s 6-0"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >"],
        then: &["XADD s 5-0 f v", "XACK s g 6-0", "XGROUP CREATECONSUMER s g b", "XADD s 7-0 f v"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP g b BLOCK 0 STREAMS s >"],
        then: &["XADD s MAXLEN 0 1-0 f v", "XGROUP DELCONSUMER s g b", "XADD s 2-0 f v", "XADD s 3-0 f v"],
    },
    // Its group, or its stream, is gone, or another.
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "XGROUP CREATE s h $"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREADGROUP GROUP h a BLOCK 0 STREAMS s >"],
        then: &["XGROUP DESTROY s g", "XADD s 1-0 f v"],
    },
    Scenario {
        before: &["XGROUP CREATE s{t} g $ MKSTREAM", "XADD u{t} 1-0 f v"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s{t} >", "XREAD BLOCK 0 STREAMS s{t} 0"],
        then: &["RENAME u{t} s{t}"],
    },
    Scenario {
        before: &["XGROUP CREATE s{t} g $ MKSTREAM", "XGROUP CREATE u{t} g $ MKSTREAM", "XADD u{t} 1-0 f v"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s{t} >"],
        then: &["RENAME u{t} s{t}"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["DEL s", "XADD s 1-0 f v"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SET s v", "DEL s"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >"],
        then: &["MULTI", "DEL s", "RPUSH s a", "EXEC"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["FLUSHALL"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM", "SELECT 1", "RPUSH s a", "SELECT 0"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SWAPDB 0 1"],
    },
    Scenario {
        before: &["XGROUP CREATE s g $ MKSTREAM"],
        waits: &["XREADGROUP GROUP g a BLOCK 0 STREAMS s >", "XREAD BLOCK 0 STREAMS s $"],
        then: &["SWAPDB 0 1"],
    },
    // Lists and streams under one name leave each other alone.
    Scenario {
        before: &[],
        waits: &["BLPOP k 0", "XREAD BLOCK 0 STREAMS k $"],
        then: &["XADD k 1-0 f v", "DEL k", "RPUSH k a"],
    },
    Scenario {
        before: &[],
        waits: &["BLPOP k l 0", "BRPOP k 0", "BLMPOP 0 2 l k LEFT COUNT 2", "BLMOVE k m LEFT RIGHT 0"],
        then: &["RPUSH k 1 2 3 4 5 6", "LRANGE k 0 -1", "LRANGE m 0 -1"],
    },
    Scenario {
        before: &[],
        waits: &["BLPOP a b 0", "BLPOP b a 0"],
        then: &["MULTI", "RPUSH b 1", "RPUSH a 2", "EXEC"],
    },
    Scenario {
        before: &[],
        waits: &["BLMOVE a b LEFT RIGHT 0", "BRPOPLPUSH b c 0", "BLPOP c 0"],
        then: &["RPUSH a x", "EXISTS a b c"],
    },
];

/// Of the errors of Redis 7.0 what Redis 7.2 says instead: it runs the command again.
const SINCE_7_0: &[(&str, &str)] = &[(
    "-UNBLOCKED the stream key no longer exists\r\n",
    "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n",
)];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// All replies: to what happens, to the unblocking of each client, and of each client.
fn play(server: &Server, scenario: &Scenario, protocol: Protocol) -> Vec<(String, Vec<u8>)> {
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
    for (line, client, id) in &mut clients {
        let waited = main.cmd(&["CLIENT", "UNBLOCK", id]);
        replies.push((format!("is unblocked: {line}"), waited));
        replies.push(((*line).to_owned(), client.reply().unwrap_or_else(|e| panic!("no reply to {line}: {e}"))));
    }
    replies
}

fn compare(protocol: Protocol) {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let newer = oracle.is_redis_7_0(None) && !subject.is_redis_7_0(None);
    let mut differences = Vec::new();
    for scenario in SCENARIOS {
        let (ours, theirs) = (play(&subject, scenario, protocol), play(&oracle, scenario, protocol));
        for ((line, mut theirs), (_, ours)) in theirs.into_iter().zip(ours) {
            if let Some((_, since)) = SINCE_7_0.iter().find(|(before, _)| newer && before.as_bytes() == theirs) {
                theirs = since.as_bytes().to_vec();
            }
            if ours != theirs {
                let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
                differences.push(format!("{:?}: {line}\n  subject: {ours}\n  oracle:  {theirs}", scenario.then));
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
