//! The wrong number of arguments, for every command and subcommand that the oracle has; and what
//! COMMAND INFO says of each.

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::{Server, tell};

/// The row of COMMAND INFO: name, arity, flags, keys, categories, tips, key specifications, subcommands.
struct Row {
    /// The words of the command, a container first.
    words: Vec<String>,
    arity: i64,
    tree: Tree,
}

/// What Redis 7.2 declares differently from 7.0: blocking commands may be called by scripts.
const CHANGED_72: &[(&str, Change)] = &[
    ("blmove", Change::Without("noscript")),
    ("blpop", Change::Without("noscript")),
    ("brpop", Change::Without("noscript")),
    ("brpoplpush", Change::Without("noscript")),
    ("bzpopmax", Change::Without("noscript")),
    ("bzpopmin", Change::Without("noscript")),
    ("wait", Change::Without("noscript")),
    ("cluster|shards", Change::With("loading")),
    ("cluster|slots", Change::With("loading")),
    ("command|getkeys", Change::Arity(-3)),
    ("command|getkeysandflags", Change::Arity(-3)),
    ("zrank", Change::Arity(-3)),
    ("zrevrank", Change::Arity(-3)),
];

/// One such difference.
enum Change {
    /// The flag is gone.
    Without(&'static str),
    /// The flag is new.
    With(&'static str),
    /// The number of arguments is another.
    Arity(i64),
}

impl Row {
    /// The row as Redis 7.2 declares it.
    fn changed(mut self) -> Row {
        let name = self.words.join("|");
        for (_, change) in CHANGED_72.iter().filter(|(n, _)| *n == name) {
            let Tree::Many(_, Some(fields)) = &mut self.tree else { continue };
            if let Change::Arity(n) = change {
                (self.arity, fields[1]) = (*n, Tree::Line(b':', n.to_string().into_bytes()));
            }
            let Tree::Many(_, Some(flags)) = &mut fields[2] else { continue };
            match change {
                Change::Without(flag) => flags.retain(|f| f.bytes() != Some(flag.as_bytes())),
                Change::With(flag) => flags.push(Tree::Line(b'+', flag.as_bytes().to_vec())),
                Change::Arity(_) => {}
            }
        }
        self
    }
}

/// What the subject is held to: the rows of the oracle, as of 7.2 where the subject is newer.
fn expected(subject: &Server, oracle: &Server) -> Vec<Row> {
    let rows = rows(&mut oracle.connect());
    let newer = oracle.is_redis_7_0(None) && !subject.is_redis_7_0(None);
    if newer { rows.into_iter().map(Row::changed).collect() } else { rows }
}

/// Every command and subcommand a server has, as COMMAND says.
fn rows(client: &mut Client) -> Vec<Row> {
    let mut rows = Vec::new();
    for tree in Tree::parse(&client.cmd(&["COMMAND"])).items() {
        let row = row(tree);
        for sub in tree.items().get(9).map_or(&[][..], Tree::items) {
            rows.push(self::row(sub));
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| a.words.cmp(&b.words));
    rows
}

fn row(tree: &Tree) -> Row {
    let name = tree.items().first().and_then(Tree::bytes).expect("a row of COMMAND begins with a name");
    let arity = tree.items().get(1).and_then(Tree::bytes).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
    Row {
        words: String::from_utf8_lossy(name).split('|').map(str::to_owned).collect(),
        arity: arity.expect("then comes its arity"),
        tree: tree.clone(),
    }
}

/// Argument counts (name included) that `arity` refuses.
fn wrong_counts(words: usize, arity: i64) -> Vec<usize> {
    let need = usize::try_from(arity.unsigned_abs()).expect("an arity is small");
    let mut counts: Vec<usize> = (words..need).collect();
    if arity > 0 {
        counts.extend([need + 1, need + 2]);
    }
    counts
}

#[test]
fn every_command_refuses_the_wrong_number_of_arguments_in_the_same_words() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    let known: Vec<Vec<String>> = rows(&mut ours).into_iter().map(|r| r.words).collect();
    let (mut asked, mut unknown, mut wrong) = (0, Vec::new(), Vec::new());
    for row in expected(&subject, &oracle) {
        if !known.contains(&row.words) {
            unknown.push(row.words.join("|"));
            continue;
        }
        for count in wrong_counts(row.words.len(), row.arity) {
            let mut command = row.words.clone();
            command.resize(count, "x".to_owned());
            let (a, b) = (ours.cmd(&command), theirs.cmd(&command));
            let text = String::from_utf8_lossy(&b);
            assert!(text.starts_with('-') && text.contains("wrong number of arguments"), "{command:?}: {text}");
            asked += 1;
            if a != b {
                wrong.push(format!("{command:?}\n  subject: {}\n  oracle:  {}", a.escape_ascii(), b.escape_ascii()));
            }
        }
    }
    if !unknown.is_empty() {
        tell(&format!("skipped: arity of {} commands that the subject does not know: {unknown:?}", unknown.len()));
    }
    assert!(asked > 0, "the subject knows none of the oracle's commands");
    assert!(wrong.is_empty(), "{} replies differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_command_is_declared_as_redis_declares_it() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let known = rows(&mut subject.connect());
    let mut wrong = Vec::new();
    for row in expected(&subject, &oracle) {
        let Some(our) = known.iter().find(|r| r.words == row.words) else { continue };
        // Name, arity, flags, first key, last key, step, categories. Tips and key specifications
        // went on changing after the oracle's version.
        for field in 0..7 {
            let (a, b) = (our.tree.items().get(field), row.tree.items().get(field));
            let (a, b) = (a.cloned().map(Tree::sorted), b.cloned().map(Tree::sorted));
            if a != b {
                let (a, b) = (a.map(|t| t.print()), b.map(|t| t.print()));
                wrong.push(format!("{}, field {field}\n  subject: {a:?}\n  oracle:  {b:?}", row.words.join("|")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_container_refuses_unknown_subcommands_in_the_same_words() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    let known = rows(&mut ours);
    let containers: Vec<String> =
        expected(&subject, &oracle).into_iter().filter(|r| r.words.len() == 2).map(|r| r.words[0].clone()).collect();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (at, container) in containers.iter().enumerate() {
        if containers[..at].contains(container) || !known.iter().any(|r| r.words[0] == *container) {
            continue;
        }
        for rest in
            [&["nonsense"][..], &["NONSENSE", "a", "b"], &[""], &["two words"], &["new\r\nline"], &["help", "x"]]
        {
            let command = [&[container.as_str()], rest].concat();
            let (a, b) = (ours.cmd(&command), theirs.cmd(&command));
            assert!(b.starts_with(b"-"), "{command:?}: {}", b.escape_ascii());
            asked += 1;
            if a != b {
                wrong.push(format!("{command:?}\n  subject: {}\n  oracle:  {}", a.escape_ascii(), b.escape_ascii()));
            }
        }
    }
    assert!(asked > 0, "the subject has none of the oracle's containers");
    assert!(wrong.is_empty(), "{} replies differ\n{}", wrong.len(), wrong.join("\n"));
}
