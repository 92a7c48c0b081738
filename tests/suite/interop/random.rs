//! Random commands of all families over few keys, to both servers: the same replies, and at intervals the same digest
//! of all data and the same encodings.
//!
//! A run is decided by its seed alone; a failure prints it, and `SPINEL_SEED` repeats it. `SPINEL_RANDOM_STEPS` says
//! how many commands there are. Times to live are long, past, or unlike each other, so that no reply depends on
//! which millisecond it is. The limits of encodings move while it goes on. Commands that the subject does not have are left out.

mod bitmaps;
mod dice;
mod hashes;
mod hyperloglog;
mod keys;
mod lists;
mod places;
mod sets;
mod streams;
mod strings;
mod zset;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;

use crate::support::client::Client;
use crate::support::reply::{Protocol, Tree};
use crate::support::server::{Server, tell};
use dice::{Dice, Same, Words};

/// Commands per run, if nobody says otherwise.
const STEPS: usize = 4000;
/// So many are sent before the first reply is read.
const BATCH: usize = 50;
/// All data are compared after so many batches.
const INTERVAL: usize = 20;
/// Databases that a run touches.
const DBS: i64 = 3;
/// So many differences are collected: after each one both servers begin anew.
const DIFFERENCES: usize = 12;
/// So many commands are remembered.
const REMEMBERED: usize = 3000;
/// So many of them are shown: the last that have to do with a difference.
const SHOWN: usize = 25;

/// What is said of a HyperLogLog whose registers make no sense.
const BROKEN: &[u8] = b"INVALIDOBJ";

/// A command, how its reply is compared.
type Asked = (Words, Same);

/// One command of some family.
fn command(dice: &mut Dice) -> Asked {
    match dice.u8(..17) {
        0 | 1 => strings::command(dice),
        2 | 3 => keys::command(dice),
        4 | 5 => lists::command(dice),
        6 | 7 => hashes::command(dice),
        8 | 9 => sets::command(dice),
        10 | 11 => zset::command(dice),
        12 => places::command(dice),
        13 => bitmaps::command(dice),
        14 => hyperloglog::command(dice),
        _ => streams::command(dice),
    }
}

/// Random commands of all families, for tests that only want data of every kind to be changed.
pub struct Commands(Dice);

impl Commands {
    /// Those of this seed.
    pub fn new(seed: u64) -> Commands {
        Commands(Dice::new(seed, false))
    }

    /// The next `n`, some of them in a transaction or a script.
    pub fn next(&mut self, n: usize) -> Vec<Vec<String>> {
        let dice = &mut self.0;
        let mut all = Vec::new();
        let plain = |words: &Words| !matches!(&*words[0], "CONFIG" | "SELECT" | "SWAPDB");
        while all.len() < n {
            let (one, _) = command(dice);
            let silent = one[0] == "BITFIELD" && one.iter().any(|word| word.eq_ignore_ascii_case("fail"));
            if one[0] == "CONFIG" || silent {
                // What one server is told the others do not know; and where a string grew but no field of it changed, Redis
                // 7.0 tells nobody.
                continue;
            } else if !plain(&one) {
                all.push(one);
            } else if dice.one_in(20) {
                all.push(words(&["MULTI"]));
                all.push(one);
                all.extend((0..3).map(|_| strings::command(dice).0).filter(plain));
                all.push(words(&["EXEC"]));
            } else if dice.one_in(20) {
                all.push(in_script(&one));
            } else {
                all.push(one);
            }
        }
        all
    }
}

/// Whether a HyperLogLog was found to be broken: Redis has changed it in part then, tells no replica, and is not what
/// Spinel is.
pub fn found_broken(replies: &[Vec<u8>]) -> bool {
    replies.iter().any(|reply| reply.windows(BROKEN.len()).any(|part| part == BROKEN))
}

/// Removes HyperLogLogs everywhere, whatever their keys are called.
pub fn forget_hyperloglogs(client: &mut Client) {
    let everywhere = format!(
        "for db = 0, {DBS} do redis.call('select', db) for _, key in ipairs(redis.call('keys', '*')) do \
         if redis.call('type', key).ok == 'string' and redis.call('getrange', key, 0, 3) == 'HYLL' then \
         redis.call('del', key) end end end"
    );
    client.cmd(&["EVAL", &everywhere, "0"]);
}

/// A command that would wait, but does not inside of a transaction.
fn impatient(dice: &mut Dice) -> Asked {
    let family = dice.pick(&["l", "z"]);
    let (a, b) = (dice.key(family), dice.key(family));
    let (side, end) = (dice.pick(&["LEFT", "RIGHT"]), dice.pick(&["MIN", "MAX"]));
    let words = match (family, dice.u8(..3)) {
        ("l", 0) => words(&[dice.pick(&["BLPOP", "BRPOP"]), &a, &b, "0"]),
        ("l", 1) => words(&["BLMOVE", &a, &b, side, "LEFT", "0"]),
        ("l", _) => words(&["BLMPOP", "0", "2", &a, &b, side, "COUNT", "2"]),
        (_, 0) => words(&["BZMPOP", "0", "2", &a, &b, end, "COUNT", "2"]),
        _ => words(&[dice.pick(&["BZPOPMIN", "BZPOPMAX"]), &a, &b, "0"]),
    };
    (words, Same::Bytes)
}

fn words(all: &[&str]) -> Words {
    all.iter().map(|w| (*w).to_owned()).collect()
}

/// The same command by way of a script.
fn in_script(words: &Words) -> Words {
    let mut script = self::words(&["EVAL", "return redis.pcall(unpack(ARGV))", "0"]);
    script.extend(words.iter().cloned());
    script
}

/// What both servers are asked, and what they said.
struct Run {
    ours: Client,
    theirs: Client,
    protocol: Protocol,
    newer: bool,
    /// Commands that both servers know, in lower case.
    known: HashSet<String>,
    /// The last commands, with replies of the oracle.
    recent: VecDeque<(Words, String)>,
    step: usize,
    differences: Vec<String>,
    /// How often each command was asked.
    asked: HashMap<String, usize>,
}

impl Run {
    fn agree(&self, same: Same, ours: &[u8], theirs: &[u8]) -> bool {
        if ours == theirs {
            return true;
        }
        match same {
            Same::Bytes => false,
            Same::Unordered => Tree::parse(ours).sorted() == Tree::parse(theirs).sorted(),
            Same::Near(by) => Tree::parse(ours).near(&Tree::parse(theirs), by),
            Same::Pending => {
                let kept = |reply: &[u8]| -> Vec<Vec<Tree>> {
                    let entries = Tree::parse(reply);
                    let told = |entry: &Tree| [&entry.items()[..2], &entry.items()[3..]].concat();
                    entries.items().iter().map(told).collect()
                };
                let errors = [ours, theirs].map(|reply| reply.starts_with(b"-"));
                errors == [false; 2] && kept(ours) == kept(theirs)
            }
            Same::Info => {
                let newer = ["idle", "inactive", "active-time"];
                let [ours, theirs] = [ours, theirs].map(|reply| Tree::parse(reply).without(&newer));
                // Redis may keep chunks in which nothing is left but removed entries.
                let chunks = |tree: &Tree| {
                    let mut fields = tree.items().iter().skip_while(|field| field.bytes() != Some(b"radix-tree-keys"));
                    match fields.nth(1) {
                        Some(Tree::Line(b':', count)) => String::from_utf8_lossy(count).parse::<u64>().ok(),
                        _ => None,
                    }
                };
                let empty = chunks(&theirs) > chunks(&ours);
                let [ours, theirs] = [ours, theirs].map(|tree| match empty {
                    true => tree.without(&["radix-tree-keys", "radix-tree-nodes"]),
                    false => tree,
                });
                ours.near_from(&theirs, 60_000, 1_000_000_000)
            }
            Same::Encoding => {
                // Redis 7.0 has no small lists and sets. In either version SORT makes a sorted set that it reads a
                // skiplist, and in 7.2 ZRANGESTORE by score one that it writes.
                let (ours, theirs) = (Tree::parse(ours), Tree::parse(theirs));
                let (ours, theirs) = (ours.bytes().unwrap_or_default(), theirs.bytes().unwrap_or_default());
                let lacking: [&[u8]; 2] = [b"quicklist", b"hashtable"];
                ours == b"listpack" && (theirs == b"skiplist" || lacking.contains(&theirs) && !self.newer)
            }
        }
    }

    /// Asks both servers all of this; returns what the oracle said. Notes the first difference.
    fn ask(&mut self, batch: &[Asked]) -> Vec<Vec<u8>> {
        let newer = self.newer;
        let lacks = |words: &Words| !newer && !streams::done_since_7_0(words).is_empty();
        let mut theirs = Vec::with_capacity(batch.len());
        for part in batch.split_inclusive(|(words, _)| lacks(words)) {
            theirs.extend(self.ask_together(part));
            if let (Some((words, _)), Some(reply)) = (part.last(), theirs.last())
                && lacks(words)
                && !reply.starts_with(b"-")
            {
                streams::done_since_7_0(words).iter().for_each(|words| _ = self.theirs.cmd(words));
            }
        }
        theirs
    }

    /// Whether the oracle is too old to do all that this does.
    fn lacks(&self, words: &Words) -> bool {
        !self.newer && !streams::done_since_7_0(words).is_empty()
    }

    fn ask_together(&mut self, batch: &[Asked]) -> Vec<Vec<u8>> {
        let requests: Vec<Words> = batch.iter().map(|(words, _)| words.clone()).collect();
        let ours = self.ours.pipeline(&requests).unwrap_or_else(|e| panic!("the subject answers: {e}"));
        let theirs = self.theirs.pipeline(&requests).unwrap_or_else(|e| panic!("the oracle answers: {e}"));
        for ((words, same), (ours, theirs)) in batch.iter().zip(ours.iter().zip(&theirs)) {
            self.step += 1;
            *self.asked.entry(words[0].to_lowercase()).or_default() += 1;
            if self.recent.len() == REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((words.clone(), short(theirs)));
            if !self.agree(*same, ours, theirs) {
                self.differ(words, ours, theirs);
                break;
            }
            if found_broken(std::slice::from_ref(theirs)) {
                // What follows may tell of what the oracle has changed.
                break;
            }
        }
        theirs
    }

    fn differ(&mut self, words: &Words, ours: &[u8], theirs: &[u8]) {
        let mut text =
            format!("step {}: {words:?}\n  subject: {}\n  oracle:  {}\n", self.step, short(ours), short(theirs));
        // What is at a key came from commands on it, and from those on whole databases.
        let keys: Vec<_> = words.iter().filter(|word| dice::is_key(word)).collect();
        let related = |other: &Words| {
            matches!(&*other[0], "SELECT" | "SWAPDB" | "FLUSHALL" | "FLUSHDB" | "CONFIG" | "MULTI" | "EXEC")
                || other.iter().any(|word| keys.contains(&word))
        };
        let mut shown: Vec<_> = self.recent.iter().rev().filter(|(w, _)| related(w)).take(SHOWN).collect();
        shown.reverse();
        for (words, reply) in shown {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    {words:?} -> {reply}");
        }
        self.differences.push(text);
        self.reset();
    }

    /// Everything as in the beginning.
    fn reset(&mut self) {
        for client in [&mut self.ours, &mut self.theirs] {
            client.cmd(&["DISCARD"]);
            client.cmd(&["FLUSHALL"]);
            client.cmd(&["SELECT", "0"]);
            client.cmd(&["CONFIG", "RESETSTAT"]);
        }
        self.recent.clear();
        // The limits of encodings are those that the oracle has.
        for pattern in ["*max-*-*", "*-max-*"] {
            let limits = Tree::parse(&self.theirs.cmd(&["CONFIG", "GET", pattern]));
            for pair in limits.items().chunks_exact(2) {
                if let (Some(name), Some(value)) = (pair[0].bytes(), pair[1].bytes())
                    && [&b"list"[..], b"hash", b"set", b"zset", b"hll", b"stre"].iter().any(|p| name.starts_with(p))
                {
                    self.ours.cmd(&[b"CONFIG", b"SET".as_slice(), name, value]);
                }
            }
        }
    }

    /// Compares all there is.
    fn compare(&mut self) {
        let before = self.differences.len();
        for db in 0..=DBS {
            let db = db.to_string();
            // Looking at a key removes it where it has expired unnoticed.
            let mut touch = words(&["TOUCH"]);
            touch.extend(dice::keys());
            let found = self.ask(&[
                (words(&["SELECT", &db]), Same::Bytes),
                (touch, Same::Bytes),
                (words(&["KEYS", "*"]), Same::Unordered),
            ]);
            let keys = Tree::parse(&found[2]).sorted();
            let mut batch = Vec::new();
            for key in keys.items().iter().filter_map(Tree::bytes) {
                let key = String::from_utf8_lossy(key).into_owned();
                batch.push((words(&["OBJECT", "ENCODING", &key]), Same::Encoding));
                batch.push((words(&["PEXPIRETIME", &key]), Same::Near(10_000)));
                batch.push((words(&["DEBUG", "DIGEST-VALUE", &key]), Same::Bytes));
                if self.knows("XINFO") {
                    batch.push((words(&["XINFO", "STREAM", &key, "FULL", "COUNT", "0"]), Same::Info));
                }
            }
            self.ask(&batch);
            if self.differences.len() > before {
                return;
            }
        }
        self.ask(&[(words(&["DEBUG", "DIGEST"]), Same::Bytes), (words(&["SELECT", "0"]), Same::Bytes)]);
    }

    /// Whether both servers can be asked this.
    fn knows(&self, name: &str) -> bool {
        self.known.contains(&name.to_lowercase())
    }

    /// The next commands: some inside of a transaction or a script.
    fn batch(&self, dice: &mut Dice) -> Vec<Asked> {
        let mut batch = Vec::with_capacity(BATCH + 2);
        while batch.len() < BATCH {
            if self.knows("multi") && dice.one_in(40) {
                batch.push((words(&["MULTI"]), Same::Bytes));
                let mut commands = 0;
                while commands < 5 {
                    let (words, same) = if dice.one_in(8) { impatient(dice) } else { command(dice) };
                    // What CONFIG SET changes is not what the commands behind it go by, as long as they are in EXEC.
                    let fit =
                        matches!(same, Same::Bytes | Same::Unordered) && words[0] != "CONFIG" && !self.lacks(&words);
                    if self.knows(&words[0]) && fit {
                        batch.push((words, Same::Bytes));
                        commands += 1;
                    }
                }
                batch.push((words(&["EXEC"]), Same::Unordered));
                continue;
            }
            let (words, same) = command(dice);
            if self.knows(&words[0]) {
                let fit =
                    !matches!(same, Same::Info) && !matches!(&*words[0], "SELECT" | "SWAPDB") && !self.lacks(&words);
                let scripted = fit && self.knows("eval") && dice.one_in(40);
                batch.push((if scripted { in_script(&words) } else { words }, same));
            }
        }
        batch
    }
}

/// A reply for people.
fn short(reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string();
    if text.len() > 2000 { format!("{}... ({} bytes)", &text[..2000], reply.len()) } else { text }
}

fn commands_of(client: &mut Client) -> HashSet<String> {
    let list = Tree::parse(&client.cmd(&["COMMAND", "LIST"]));
    list.items().iter().filter_map(Tree::bytes).map(|name| String::from_utf8_lossy(name).to_lowercase()).collect()
}

fn run(protocol: Protocol, args: &[&str]) {
    let Some((subject, oracle)) = Server::pair(args) else { return };
    let number =
        |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>().unwrap_or_else(|e| panic!("{name}={s}: {e}")));
    let seed = number("SPINEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let steps = number("SPINEL_RANDOM_STEPS").map_or(STEPS, |steps| steps as usize);
    tell(&format!("SPINEL_SEED={seed} repeats this run of random commands ({protocol:?}, {args:?})"));
    let newer = !oracle.is_redis_7_0(None);
    let mut dice = Dice::new(seed, newer);
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    if protocol == Protocol::Resp3 {
        ours.cmd(&["HELLO", "3"]);
        theirs.cmd(&["HELLO", "3"]);
    }
    let known = &commands_of(&mut ours) & &commands_of(&mut theirs);
    let mut run = Run {
        ours,
        theirs,
        protocol,
        newer,
        known,
        recent: VecDeque::new(),
        step: 0,
        differences: Vec::new(),
        asked: HashMap::new(),
    };
    let mut batches = 0;
    while run.step < steps && run.differences.len() < DIFFERENCES {
        let batch = run.batch(&mut dice);
        let told = run.ask(&batch);
        if found_broken(&told) {
            [&mut run.ours, &mut run.theirs].into_iter().for_each(forget_hyperloglogs);
        }
        batches += 1;
        if batches % INTERVAL == 0 {
            run.compare();
        }
    }
    run.compare();
    let Run { protocol, step, differences, asked, .. } = run;
    assert!(
        differences.is_empty(),
        "SPINEL_SEED={seed}, {protocol:?}, {args:?}: {} differences in {step} commands\n{}",
        differences.len(),
        differences.join("\n")
    );
    tell(&format!("{step} random commands of {} names agree", asked.len()));
}

/// Servers whose compact encodings end early.
const SMALL: &[&str] = &[
    "--hash-max-listpack-entries",
    "4",
    "--zset-max-listpack-entries",
    "4",
    "--set-max-intset-entries",
    "4",
    "--list-max-listpack-size",
    "3",
    "--list-compress-depth",
    "1",
    "--stream-node-max-entries",
    "3",
];

#[test]
fn random_commands_in_resp2() {
    run(Protocol::Resp2, &[]);
}

#[test]
fn random_commands_in_resp3() {
    run(Protocol::Resp3, &[]);
}

#[test]
fn random_commands_with_small_limits() {
    run(Protocol::Resp2, SMALL);
}
