//! The wrong number of arguments, for every command and subcommand that the oracle has; and what
//! COMMAND INFO says of each.

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::Server;

/// The row of COMMAND INFO: name, arity, flags, keys, categories, tips, key specifications, subcommands.
struct Row {
    /// The words of the command, a container first.
    words: Vec<String>,
    arity: i64,
    tree: Tree,
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
    for row in rows(&mut theirs) {
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
    eprintln!("arity: {asked} commands asked; the subject does not know {}: {unknown:?}", unknown.len());
    assert!(asked > 0, "the subject knows none of the oracle's commands");
    assert!(wrong.is_empty(), "{} replies differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_command_is_declared_as_redis_declares_it() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    let known = rows(&mut ours);
    let mut wrong = Vec::new();
    for row in rows(&mut theirs) {
        let Some(our) = known.iter().find(|r| r.words == row.words) else { continue };
        // Name, arity, flags, first key, last key, step, categories. Tips and key specifications
        // went on changing after the oracle's version.
        for field in 0..7 {
            let (a, b) = (our.tree.items().get(field), row.tree.items().get(field));
            let (a, b) = (a.cloned().map(Tree::sorted), b.cloned().map(Tree::sorted));
            if a != b {
                wrong.push(format!("{}, field {field}\n  subject: {a:?}\n  oracle:  {b:?}", row.words.join("|")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields differ\n{}", wrong.len(), wrong.join("\n"));
}
