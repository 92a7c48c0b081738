//! Linearizability: what many clients saw can be explained by one order of all their operations, in which none stands
//! before another that had ended before it began.
//!
//! Each seed makes a short history of counters and transfers on several workers: single commands, transactions over
//! watched keys, scripts where the server has them. It is checked by searching such an order (Wing and Gong, "Testing
//! and verifying concurrent objects", 1993), with the states that were visited remembered.

use std::collections::HashSet;
use std::sync::Barrier;
use std::time::Instant;

use crate::support::client::{Client, request};
use crate::support::reply::Tree;
use crate::support::server::Server;

const KEYS: [&str; 3] = ["account:a", "account:b", "account:c"];
const CLIENTS: u64 = 4;
const OPERATIONS: usize = 8;

type State = [i64; KEYS.len()];

#[derive(Debug, Clone)]
enum Kind {
    /// INCRBY; the reply is the sum.
    Add { key: usize, by: i64 },
    /// MGET of all keys.
    Look,
    /// WATCH, MGET, MULTI, DECRBY, INCRBY, EXEC; the reply is what was read and what came out, or nothing where the
    /// transaction was not run.
    Transfer { from: usize, to: usize, by: i64 },
    /// The same as a script: what came out.
    Script { from: usize, to: usize, by: i64 },
}

#[derive(Debug, Clone)]
struct Operation {
    kind: Kind,
    reply: Vec<i64>,
    began: Instant,
    ended: Instant,
}

impl Operation {
    /// The state after it, if this is what it would have replied.
    fn apply(&self, mut state: State) -> Option<State> {
        let expected = match self.kind {
            Kind::Add { key, by } => {
                state[key] += by;
                vec![state[key]]
            }
            Kind::Look => state.to_vec(),
            // A transaction may fail; then it did nothing.
            Kind::Transfer { .. } if self.reply.is_empty() => Vec::new(),
            Kind::Transfer { from, to, by } => {
                let before = [state[from], state[to]];
                state[from] -= by;
                state[to] += by;
                vec![before[0], before[1], state[from], state[to]]
            }
            Kind::Script { from, to, by } => {
                state[from] -= by;
                state[to] += by;
                vec![state[from], state[to]]
            }
        };
        (expected == self.reply).then_some(state)
    }
}

/// Whether some order explains the history.
fn is_linearizable(history: &[Operation]) -> bool {
    fn search(history: &[Operation], done: u64, state: State, seen: &mut HashSet<(u64, State)>) -> bool {
        let left = || (0..history.len()).filter(|i| done & 1 << i == 0);
        let Some(first_end) = left().map(|i| history[i].ended).min() else { return true };
        if !seen.insert((done, state)) {
            return false;
        }
        left()
            .filter(|i| history[*i].began <= first_end)
            .any(|i| history[i].apply(state).is_some_and(|state| search(history, done | 1 << i, state, seen)))
    }
    assert!(history.len() <= 64, "a history is a mask of 64 bits");
    search(history, 0, State::default(), &mut HashSet::new())
}

fn numbers(raw: &[u8]) -> Vec<i64> {
    let number = |item: &Tree| item.bytes().map_or(0, |b| String::from_utf8_lossy(b).parse().expect("a number"));
    let tree = Tree::parse(raw);
    match tree.items() {
        [] => tree.bytes().map(|_| number(&tree)).into_iter().collect(),
        items => items.iter().map(number).collect(),
    }
}

const SCRIPT: &str = "return {redis.call('DECRBY', KEYS[1], ARGV[1]), redis.call('INCRBY', KEYS[2], ARGV[1])}";

fn run(client: &mut Client, kind: &Kind) -> Vec<i64> {
    match *kind {
        Kind::Add { key, by } => numbers(&client.cmd(&["INCRBY", KEYS[key], &by.to_string()])),
        Kind::Look => numbers(&client.cmd(&[&["MGET"][..], &KEYS].concat())),
        Kind::Transfer { from, to, by } => {
            let (from, to, by) = (KEYS[from], KEYS[to], by.to_string());
            assert_eq!(client.cmd(&["WATCH", from, to]), b"+OK\r\n");
            let before = numbers(&client.cmd(&["MGET", from, to]));
            let words = [&["MULTI"][..], &["DECRBY", from, &by], &["INCRBY", to, &by], &["EXEC"]];
            client.send(&words.iter().flat_map(|words| request(words)).collect::<Vec<_>>()).expect("sent");
            let replies: Vec<Vec<u8>> = (0..4).map(|_| client.reply().expect("a reply")).collect();
            match numbers(&replies[3]) {
                after if after.is_empty() => after,
                after => [before, after].concat(),
            }
        }
        Kind::Script { from, to, by } => {
            numbers(&client.cmd(&["EVAL", SCRIPT, "2", KEYS[from], KEYS[to], &by.to_string()]))
        }
    }
}

fn kind(rng: &mut fastrand::Rng, scripts: bool) -> Kind {
    let from = rng.usize(..KEYS.len());
    let to = (from + rng.usize(1..KEYS.len())) % KEYS.len();
    let by = rng.i64(1..10);
    match rng.u8(..8) {
        0 | 1 => Kind::Add { key: from, by },
        2 | 3 => Kind::Look,
        4 | 5 if scripts => Kind::Script { from, to, by },
        _ => Kind::Transfer { from, to, by },
    }
}

#[test]
fn every_history_of_counters_and_transfers_has_an_order_that_explains_it() {
    let seeds: u64 = std::env::var("SPINEL_HISTORIES").map_or(200, |text| text.parse().expect("a number of histories"));
    let server = Server::subject(&["--io-threads", "4"]);
    let mut control = server.connect();
    let scripts = control.cmd(&["EVAL", "return 1", "0"]) == b":1\r\n";
    let mut failed = 0;
    for seed in 0..seeds {
        control.cmd(&[&["DEL"][..], &KEYS].concat());
        let barrier = Barrier::new(CLIENTS as usize);
        let mut history: Vec<Operation> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (server, barrier) = (&server, &barrier);
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(seed * CLIENTS + client);
                        let mut connection = server.connect();
                        barrier.wait();
                        let one = |_| {
                            let kind = kind(&mut rng, scripts);
                            let began = Instant::now();
                            let reply = run(&mut connection, &kind);
                            Operation { kind, reply, began, ended: Instant::now() }
                        };
                        (0..OPERATIONS).map(one).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no client fails")).collect()
        });
        failed += history.iter().filter(|op| op.reply.is_empty()).count();
        history.sort_by_key(|op| op.began);
        assert!(is_linearizable(&history), "seed {seed}: nothing explains {history:#?}");
    }
    eprintln!("{seeds} histories, {failed} transactions found their keys changed");
}

#[test]
fn a_history_that_no_order_explains_is_found() {
    let at = Instant::now();
    let later = |ms| at + std::time::Duration::from_millis(ms);
    let add = |reply, began, ended| Operation {
        kind: Kind::Add { key: 0, by: 1 },
        reply: vec![reply],
        began: later(began),
        ended: later(ended),
    };
    assert!(is_linearizable(&[add(2, 0, 5), add(1, 1, 3)]));
    assert!(!is_linearizable(&[add(1, 0, 5), add(1, 1, 3)]), "a lost update");
    assert!(!is_linearizable(&[add(2, 0, 1), add(1, 2, 3)]), "the wrong way round");
}
