//! Runs a table against both servers and reports where they differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use crate::interop::language::{Ask, Compare, Step, parse};
use crate::support::client::{Client, closed};
use crate::support::reply::{Protocol, Tree, decode};
use crate::support::server::{Server, tell};

/// So many differences are printed; what follows the first is often its consequence.
const PRINTED: usize = 40;

/// How long is waited for a reply that says something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fields that tell about the C compiler.
const C_ONLY: &[&str] = &["gcc_version"];

/// One of the two servers, and the connections a table has opened to it.
struct Side {
    server: Server,
    protocol: Protocol,
    connections: BTreeMap<String, (Client, Protocol)>,
}

/// What a server did with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It replied.
    Reply(Vec<u8>),
    /// It closed the connection.
    Closed,
}

impl Answer {
    /// The same with every first of `swaps` replaced by the second.
    fn swapped(&self, swaps: &[(Vec<u8>, Vec<u8>)]) -> Answer {
        let Answer::Reply(raw) = self else { return Answer::Closed };
        Answer::Reply(swaps.iter().fold(raw.clone(), |raw, (from, to)| replaced(&raw, from, to)))
    }
}

fn replaced(raw: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let Some(at) = raw.windows(from.len()).position(|w| w == from) else { return raw.to_vec() };
    [&raw[..at], to, &replaced(&raw[at + from.len()..], from, to)].concat()
}

impl Side {
    fn new(server: Server, protocol: Protocol) -> Side {
        Side { server, protocol, connections: BTreeMap::new() }
    }

    /// New connections, empty databases.
    fn reset(&mut self, password: Option<&str>) {
        self.connections.clear();
        let mut client = self.server.connect();
        if let Some(password) = password {
            client.cmd(&["AUTH", password]);
        }
        let reply = client.cmd(&["FLUSHALL"]);
        assert_eq!(reply, b"+OK\r\n", "FLUSHALL answers {}", reply.escape_ascii());
    }

    fn connection(&mut self, name: &str) -> &mut (Client, Protocol) {
        let (server, protocol) = (&self.server, self.protocol);
        self.connections.entry(name.to_owned()).or_insert_with(|| {
            let mut client = server.connect();
            if protocol == Protocol::Resp3 {
                client.cmd(&["HELLO", "3"]);
            }
            (client, protocol)
        })
    }

    /// Sends the command and reads as many replies as it is said to have.
    fn ask(&mut self, ask: &Ask) -> Vec<Answer> {
        let (client, protocol) = self.connection(&ask.on);
        let mut answers = Vec::new();
        let sent = client.send(&crate::support::client::request(&ask.args));
        for n in 0..ask.replies {
            let reply = if n == 0 { sent_then(&sent, client) } else { client.reply() };
            match reply {
                Ok(raw) => {
                    spoken(protocol, &ask.args, &raw);
                    answers.push(Answer::Reply(raw));
                }
                Err(e) if closed(&e) => {
                    answers.push(Answer::Closed);
                    break;
                }
                Err(e) => panic!("line {}: {}: {e}", ask.number, ask.text),
            }
        }
        if ask.closes && !answers.contains(&Answer::Closed) {
            let rest = client.rest().unwrap_or_else(|e| panic!("line {}: not closed: {}: {e}", ask.number, ask.text));
            assert!(rest.is_empty(), "line {}: {}: more replies: {}", ask.number, ask.text, rest.escape_ascii());
            answers.push(Answer::Closed);
        }
        if answers.contains(&Answer::Closed) {
            self.connections.remove(&ask.on);
        }
        answers
    }

    /// Asks until the reply has `text`.
    fn wait_for(&mut self, ask: &Ask, text: &[u8]) {
        let began = Instant::now();
        loop {
            let answers = self.ask(ask);
            let has = |answer: &Answer| match answer {
                Answer::Reply(raw) => raw.windows(text.len()).any(|part| part == text),
                Answer::Closed => false,
            };
            if answers.iter().any(has) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "line {}: {}: {answers:?}", ask.number, ask.text);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn knows(&mut self, command: &str) -> bool {
        let (container, sub) = command.split_once('|').unwrap_or((command, ""));
        let (client, _) = self.connection("");
        let reply = Tree::parse(&client.cmd(&["COMMAND", "INFO", container]));
        let Some(Tree::Many(_, Some(info))) = reply.items().first() else { return false };
        let wanted = command.to_lowercase();
        sub.is_empty()
            || info.get(9).is_some_and(|subs| {
                subs.items().iter().any(|s| s.items().first().and_then(Tree::bytes) == Some(wanted.as_bytes()))
            })
    }
}

fn sent_then(sent: &io::Result<()>, client: &mut Client) -> io::Result<Vec<u8>> {
    match sent {
        Ok(()) => client.reply(),
        Err(e) => Err(e.kind().into()),
    }
}

/// Notes a change of the protocol that a connection speaks.
fn spoken(protocol: &mut Protocol, args: &[Vec<u8>], reply: &[u8]) {
    let is = |word: &str| args[0].eq_ignore_ascii_case(word.as_bytes());
    if is("HELLO") && !reply.starts_with(b"-") {
        *protocol = if reply.starts_with(b"%") { Protocol::Resp3 } else { Protocol::Resp2 };
    } else if is("RESET") && reply == b"+RESET\r\n" {
        *protocol = Protocol::Resp2;
    }
}

/// Runs `table` against a subject and an oracle started with `args`, in `protocol`.
///
/// # Panics
/// When a reply differs: with every line that does, up to a limit, and both replies.
pub fn run(name: &str, table: &str, protocol: Protocol, args: &[&str]) {
    let Some(pair) = Server::pair(args) else { return };
    run_on(name, table, protocol, args, pair);
}

/// The same against two servers that run already.
pub fn run_on(name: &str, table: &str, protocol: Protocol, args: &[&str], (subject, oracle): (Server, Server)) {
    let steps = parse(table);
    let password = args.iter().position(|a| *a == "--requirepass").and_then(|at| args.get(at + 1)).copied();
    let newer = oracle.is_redis_7_0(password) && !subject.is_redis_7_0(password);
    let (mut subject, mut oracle) = (Side::new(subject, protocol), Side::new(oracle, protocol));
    let mut differences = Vec::new();
    let (mut asked, mut skipped, mut skipping, mut section) = (0, 0, false, String::new());
    for step in &steps {
        match step {
            Step::Section(title) => {
                title.clone_into(&mut section);
                skipping = false;
                subject.reset(password);
                oracle.reset(password);
            }
            Step::Reset => {
                subject.reset(password);
                oracle.reset(password);
            }
            Step::Needs(commands) => {
                if let Some(missing) = commands.iter().find(|c| !subject.knows(c)) {
                    tell(&format!("skipped: the rest of {name}, \"{section}\": the subject does not know {missing}"));
                    skipping = true;
                }
            }
            Step::Ask(_) if skipping => skipped += 1,
            Step::Ask(ask) => {
                if ask.only.is_some_and(|only| (only == 3) != (protocol == Protocol::Resp3)) {
                    continue;
                }
                asked += 1;
                if let Some(text) = &ask.until {
                    subject.wait_for(ask, text);
                    oracle.wait_for(ask, text);
                    continue;
                }
                let (ours, theirs) = (subject.ask(ask), oracle.ask(ask));
                let spoken = subject.connections.get(&ask.on).map_or(protocol, |c| c.1);
                if let Some(why) = difference(ask, &ours, &theirs, newer, spoken) {
                    differences.push(format!("[{section}] line {}: {}\n{why}", ask.number, ask.text));
                }
            }
        }
    }
    eprintln!("{name} {protocol:?}: {asked} commands, {skipped} skipped, {} differences", differences.len());
    assert!(asked > 0, "{name}: nothing was asked");
    assert!(differences.is_empty(), "{}", report(name, protocol, &differences));
}

fn report(name: &str, protocol: Protocol, differences: &[String]) -> String {
    let mut text = format!("{name} {protocol:?}: {} replies differ\n", differences.len());
    for difference in differences.iter().take(PRINTED) {
        let _ = writeln!(text, "{difference}");
    }
    if differences.len() > PRINTED {
        let _ = writeln!(text, "... and {} more", differences.len() - PRINTED);
    }
    text
}

/// What is wrong with the subject's answers, if anything.
fn difference(ask: &Ask, ours: &[Answer], theirs: &[Answer], newer: bool, spoken: Protocol) -> Option<String> {
    let print = |answers: &[Answer]| -> String {
        let one = |a: &Answer| match a {
            Answer::Reply(raw) => format!("\"{}\"", raw.escape_ascii()),
            Answer::Closed => "(closed)".to_owned(),
        };
        answers.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let expected = match &ask.version72 {
        _ if newer && ask.ours.is_some() => ask.ours.iter().cloned().map(Answer::Reply).collect(),
        Some(raw) if newer => vec![Answer::Reply(raw.clone())],
        _ if newer => theirs.iter().map(|a| a.swapped(&ask.swaps72)).collect(),
        _ => theirs.to_vec(),
    };
    if ours.len() != expected.len() || !ours.iter().zip(&expected).all(|(a, b)| same(ask.compare, a, b)) {
        return Some(format!("  subject: {}\n  oracle:  {}", print(ours), print(&expected)));
    }
    // An independent reader must understand what we send wherever it understands Redis.
    for (a, b) in ours.iter().zip(&expected) {
        let (Answer::Reply(a), Answer::Reply(b)) = (a, b) else { continue };
        if let (Err(why), Ok(_)) = (decode(a, spoken), decode(b, spoken)) {
            return Some(format!("  subject: \"{}\"\n  which redis-protocol cannot read: {why}", a.escape_ascii()));
        }
    }
    None
}

fn same(compare: Compare, ours: &Answer, theirs: &Answer) -> bool {
    let (Answer::Reply(a), Answer::Reply(b)) = (ours, theirs) else { return ours == theirs };
    match compare {
        Compare::Bytes => a == b,
        Compare::Unordered => Tree::parse(a).sorted() == Tree::parse(b).sorted(),
        Compare::Approx(within) => Tree::parse(a).near(&Tree::parse(b), within),
        Compare::Idle(within) => Tree::parse(a).near_from(&Tree::parse(b), within, 0),
        Compare::Kind => Tree::parse(a).kind() == Tree::parse(b).kind(),
        Compare::Fields => {
            let (ours, theirs) = (Tree::parse(a), Tree::parse(b));
            let names = ours.fields();
            let wanted = |f: &&String| !C_ONLY.contains(&f.as_str());
            ours.kind() == theirs.kind() && theirs.fields().iter().filter(wanted).all(|f| names.contains(f))
        }
        Compare::Ignored => true,
    }
}

#[cfg(test)]
mod comparing {
    use super::{Answer, Protocol, difference};
    use crate::interop::language::{Ask, Step, parse};

    fn ask(line: &str) -> Ask {
        match parse(line).pop() {
            Some(Step::Ask(ask)) => ask,
            other => panic!("{other:?}"),
        }
    }

    /// Whether `line` lets these replies pass, of a subject that is newer than the oracle.
    fn passes(line: &str, ours: &str, theirs: &str) -> bool {
        let one = |raw: &str| [Answer::Reply(raw.as_bytes().to_vec())];
        difference(&ask(line), &one(ours), &one(theirs), true, Protocol::Resp2).is_none()
    }

    #[test]
    fn without_a_word_every_byte_counts() {
        assert!(passes("X", ":1\r\n", ":1\r\n"));
        assert!(!passes("X", ":1\r\n", ":2\r\n"));
        assert!(!passes("X", "$-1\r\n", "*-1\r\n"));
        assert!(!passes("X", "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n"));
    }

    #[test]
    fn each_word_forgives_one_thing() {
        assert!(passes("@unordered X", "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n"));
        assert!(!passes("@unordered X", "*2\r\n:1\r\n:1\r\n", "*2\r\n:2\r\n:1\r\n"));
        assert!(passes("@approx 5 X", ":100\r\n", ":97\r\n"));
        assert!(!passes("@approx 5 X", ":100\r\n", ":94\r\n"));
        assert!(!passes("@approx 5 X", ":-1\r\n", ":-2\r\n") && !passes("@approx 5 X", ":-1\r\n", ":1\r\n"));
        assert!(passes("@type X", "$1\r\na\r\n", "$2\r\nbc\r\n"));
        assert!(!passes("@type X", "$1\r\na\r\n", "$-1\r\n"));
        assert!(!passes("@type X", "-ERR a\r\n", "-WRONGTYPE a\r\n"));
        assert!(passes("@fields X", "$11\r\na:1\r\nb:2\r\nc\r\n", "$3\r\na:7\r\n"));
        assert!(!passes("@fields X", "$3\r\nb:2\r\n", "$3\r\na:7\r\n"));
    }

    #[test]
    fn what_redis_7_2_says_is_expected_of_a_newer_subject() {
        assert!(passes("@version72 \"+b\\r\\n\" X", "+b\r\n", "+a\r\n"));
        assert!(!passes("@version72 \"+b\\r\\n\" X", "+a\r\n", "+a\r\n"));
        assert!(passes("@swap72 \"HELLO A\" \"HELLO B\" X", "-x HELLO B y HELLO B\r\n", "-x HELLO A y HELLO A\r\n"));
        assert!(!passes("@swap72 \"HELLO A\" \"HELLO B\" X", "-x HELLO A\r\n", "-x HELLO A\r\n"));
    }

    #[test]
    fn what_we_answer_on_purpose_is_expected_of_us() {
        assert!(passes("@ours \"-b\\r\\n\" \"why\" X", "-b\r\n", "+a\r\n"));
        assert!(!passes("@ours \"-b\\r\\n\" \"why\" X", "+a\r\n", "+a\r\n"));
    }

    #[test]
    fn a_closed_connection_is_no_reply() {
        let reply = [Answer::Reply(b"+OK\r\n".to_vec())];
        assert!(difference(&ask("@type X"), &[Answer::Closed], &reply, false, Protocol::Resp2).is_some());
        assert!(difference(&ask("X"), &[Answer::Closed], &[Answer::Closed], false, Protocol::Resp2).is_none());
    }
}
