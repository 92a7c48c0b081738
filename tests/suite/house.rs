//! Holds the sources to their plan: imports run down, files say what they are for, unsafe code is earned.
//!
//! Comments and strings are blanked out first, so that what is found is code.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The floors. A file imports from its own folder and from lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("stdx", 1),
    ("spec", 1),
    ("resp", 2),
    ("config", 2),
    ("types", 2),
    ("acl", 2),
    ("observe", 2),
    ("keyspace", 3),
    ("script", 3),
    ("client", 4),
    ("pubsub", 4),
    ("persist", 4),
    ("cluster", 5),
    ("replication", 5),
    ("command", 6),
    ("server", 7),
    ("lib", 8),
    ("main", 9),
];

/// Words that say nothing about what a file holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "manager", "misc"];

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
}

/// A source file: its path below `src`, its text, and the text with comments and strings blanked out.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// The modules it lies in, from the root: `types/table/split.rs` is in `types`, `table`, `split`.
    fn modules(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        if matches!(parts.last(), Some(&"mod")) || parts == ["lib"] || parts == ["main"] {
            parts.pop();
        }
        parts
    }

    /// The folder (or single file) on whose floor it stands.
    fn home(&self) -> &str {
        self.path.trim_end_matches(".rs").split('/').next().unwrap_or_default()
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    fn is_test_file(&self) -> bool {
        self.path.split('/').any(|p| matches!(p, "tests" | "tests.rs"))
    }
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("a directory can be read to its end").path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let all: Vec<Source> = files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let path = file.strip_prefix(&root).expect("it was found below the root");
            Source::new(&path.to_string_lossy().replace('\\', "/"), &text)
        })
        .collect();
    assert!(all.len() > 5, "the sources are where they are expected");
    all
}

/// Fails with all complaints about all sources.
fn hold(rule: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut text = String::new();
    for source in sources() {
        for (line, complaint) in rule(&source) {
            let _ = writeln!(text, "src/{}:{line}: {complaint}", source.path);
        }
    }
    assert!(text.is_empty(), "the house is not in order\n{text}");
}

/// The text with every comment, string and character literal replaced by blanks; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => comment(bytes, at),
            b'"' => string(bytes, at + 1),
            b'r' if !word_before(bytes, at) => raw(bytes, at).unwrap_or(at),
            b'b' if !word_before(bytes, at) && bytes.get(at + 1) == Some(&b'r') => raw(bytes, at + 1).unwrap_or(at),
            b'\'' => character(bytes, at).unwrap_or(at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn word_before(bytes: &[u8], at: usize) -> bool {
    // `br"..."` is a raw string too: its `b` is not part of another word.
    at > 0 && is_word(bytes[at - 1]) && !(bytes[at - 1] == b'b' && (at < 2 || !is_word(bytes[at - 2])))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `what` begins, at or after `from`; the end of the text where it does not.
fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|w| w == what).map_or(bytes.len(), |n| from + n)
}

fn comment(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some((find(bytes, at + 2 + hashes, &close) + close.len()).min(bytes.len()))
}

/// The end of a character literal; `None` for a lifetime.
fn character(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        return Some((find(bytes, at + 3, b"'") + 1).min(bytes.len()));
    }
    // One character of up to four bytes, then the quote.
    (2..=5)
        .find(|n| bytes.get(at + n) == Some(&b'\''))
        .filter(|n| std::str::from_utf8(&bytes[at + 1..at + n]).is_ok_and(|s| s.chars().count() == 1))
        .map(|n| at + n + 1)
}

/// Every place where `word` stands as a whole word.
fn words(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let bytes = code.as_bytes();
            (*at == 0 || !is_word(bytes[at - 1])) && bytes.get(at + word.len()).is_none_or(|b| !is_word(*b))
        })
        .collect()
}

/// The first names after `crate::` (or its like) at `rest`: several where braces follow.
fn first_names(rest: &str) -> Vec<String> {
    let name = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// How many inline modules (`mod tests {`) are open at `at`.
fn inline_modules(code: &str, at: usize) -> usize {
    let mut open = Vec::new();
    let mut since = 0;
    for (n, c) in code[..at].char_indices() {
        match c {
            '{' => {
                let head = code[since..n].trim();
                let mut last = head.rsplit(char::is_whitespace);
                let is_module = last.next().is_some_and(|w| !w.is_empty()) && last.next() == Some("mod");
                open.push(is_module);
                since = n + 1;
            }
            '}' => {
                open.pop();
                since = n + 1;
            }
            ';' => since = n + 1,
            _ => {}
        }
    }
    open.into_iter().filter(|m| *m).count()
}

/// Imports that go up, sideways, or through the crate's root.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let home = source.home();
    let Some(own) = floor(home) else { return vec![(1, format!("`{home}` has no floor in the plan"))] };
    let mut found: Vec<(usize, Vec<String>)> = Vec::new();
    for at in words(&source.code, "crate") {
        let rest = &source.code[at + "crate".len()..];
        if let Some(rest) = rest.strip_prefix("::") {
            found.push((at, first_names(rest)));
        }
    }
    for at in words(&source.code, "super") {
        // Only the first of a chain; the chain may reach the root and go down again elsewhere.
        if source.code[..at].ends_with("::") {
            continue;
        }
        let (mut rest, mut ups) = (&source.code[at..], 0);
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, ups) = (next, ups + 1);
        }
        let depth = source.modules().len() + inline_modules(&source.code, at);
        if ups >= depth {
            found.push((at, first_names(rest)));
        }
    }
    let mut complaints = Vec::new();
    for (at, names) in found {
        for name in names {
            let why = match floor(&name) {
                _ if name == home => continue,
                None => format!("`{name}` is reached through the crate's root, not by the folder that defines it"),
                Some(f) if f < own => continue,
                Some(f) if f == own => format!("`{home}` imports sideways from `{name}`: both are floor {f}"),
                Some(f) => format!("`{home}` (floor {own}) imports upward from `{name}` (floor {f})"),
            };
            complaints.push((source.line(at), why));
        }
    }
    complaints.sort();
    complaints
}

/// The parts of the code that only tests see: from an attribute to the end of what it stands on.
fn test_ranges(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for mark in ["#[cfg(test)]", "#[cfg(all(test", "#[test]", "proptest!"] {
        for (start, _) in code.match_indices(mark) {
            let (mut depth, mut end) = (0, code.len());
            for (n, c) in code[start + mark.len()..].char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => {
                        depth -= 1;
                        if depth <= 0 {
                            end = start + mark.len() + n + 1;
                            break;
                        }
                    }
                    ';' if depth == 0 => {
                        end = start + mark.len() + n + 1;
                        break;
                    }
                    _ => {}
                }
            }
            ranges.push(start..end);
        }
    }
    ranges
}

fn bare_unwraps(source: &Source) -> Vec<(usize, String)> {
    if source.is_test_file() {
        return Vec::new();
    }
    let tests = test_ranges(&source.code);
    source
        .code
        .match_indices(".unwrap()")
        .filter(|(at, _)| !tests.iter().any(|r| r.contains(at)))
        .map(|(at, _)| (source.line(at), "a bare unwrap: `expect` says why it cannot fail".to_owned()))
        .collect()
}

fn unearned_unsafe(source: &Source) -> Vec<(usize, String)> {
    // A file may need it with a feature only.
    let permits = |line: &str| {
        line.starts_with("#![allow(unsafe_code")
            || line.starts_with("#![cfg_attr(") && line.contains("allow(unsafe_code")
    };
    let earned = source.code.lines().any(permits);
    let places = words(&source.code, "unsafe");
    match (earned, places.first()) {
        (false, Some(at)) => vec![(source.line(*at), "unsafe code in a file without `#![allow(unsafe_code)]`".into())],
        (true, None) => vec![(1, "`#![allow(unsafe_code)]` without unsafe code".into())],
        (true, Some(_)) if !source.text.contains("SAFETY:") => vec![(1, "unsafe code without a SAFETY comment".into())],
        _ => Vec::new(),
    }
}

fn no_purpose(source: &Source) -> Vec<(usize, String)> {
    match source.text.lines().next() {
        Some(line) if line.starts_with("//! ") => Vec::new(),
        _ => vec![(1, "a file opens with `//!`: what it is for".into())],
    }
}

fn empty_names(source: &Source) -> Vec<(usize, String)> {
    let mut complaints: Vec<_> = source
        .path
        .trim_end_matches(".rs")
        .split(['/', '_'])
        .filter(|part| EMPTY_NAMES.contains(part))
        .map(|part| (1, format!("`{part}` says nothing about what is inside")))
        .collect();
    for (at, _) in source.code.match_indices("fn get_") {
        complaints.push((source.line(at), "a name that begins with `get_`".into()));
    }
    complaints
}

#[test]
fn imports_run_down() {
    hold(imports);
}

#[test]
fn every_file_says_what_it_is_for() {
    hold(no_purpose);
}

#[test]
fn unsafe_code_is_only_where_it_is_allowed() {
    hold(unearned_unsafe);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    hold(bare_unwraps);
}

#[test]
fn names_say_something() {
    hold(empty_names);
}

#[test]
fn every_module_of_the_crate_has_a_floor() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let lib = blank(&lib.expect("the crate has a lib.rs"));
    let modules: Vec<_> = lib.lines().filter_map(|l| l.trim().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(!modules.is_empty());
    for module in modules {
        assert!(floor(module).is_some(), "`{module}` has no floor in the plan");
    }
}

#[cfg(test)]
mod rules {
    use super::{Source, bare_unwraps, blank, empty_names, imports, no_purpose, unearned_unsafe};

    fn lines(found: Vec<(usize, String)>) -> Vec<usize> {
        found.into_iter().map(|f| f.0).collect()
    }

    #[test]
    fn an_import_upward_or_sideways_is_found_wherever_it_stands() {
        let text = "//! x\nuse crate::stdx::a;\nuse crate::types::b;\nuse crate::keyspace::Shard;\n\
                    use crate::config::C;\nuse crate::{\n    stdx::{a, b},\n    server::X,\n};\n\
                    fn f() { crate::command::g(); }\n// use crate::server;\nconst S: &str = \"crate::server::x\";\n\
                    use crate::Root;\nuse super::super::server::y;\nuse super::z;\n";
        assert_eq!(lines(imports(&Source::new("types/list.rs", text))), [4, 5, 6, 10, 13, 14]);
        assert_eq!(lines(imports(&Source::new("types/list/node.rs", text))), [4, 5, 6, 10, 13]);
        assert_eq!(lines(imports(&Source::new("server/mod.rs", "//! x\nuse crate::command::x;\n"))), [0; 0]);
        assert_eq!(lines(imports(&Source::new("server/mod.rs", "//! x\nuse super::command::x;\n"))), [0; 0]);
        assert_eq!(lines(imports(&Source::new("stdx/mod.rs", "//! x\nuse super::command::x;\n"))), [2]);
        assert_eq!(lines(imports(&Source::new("attic/mod.rs", "//! x\n"))), [1]);
    }

    #[test]
    fn a_test_module_reaches_its_own_file_and_folder() {
        let text = "//! x\nmod tests {\n    use super::a;\n    use super::super::b;\n    use super::super::super::server::c;\n}\n";
        assert_eq!(lines(imports(&Source::new("types/list.rs", text))), [5]);
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = "a /* b /* c */ d */ \"e\\\"f\" r#\"g\"h\"# 'i' '\\'' b'\"' 'life br\"j\" k // l\nm";
        let code: Vec<_> = blank(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(code, ["a", "b", "'life", "k", "m"]);
    }

    #[test]
    fn unwraps_and_unsafe_are_found_outside_tests_only() {
        let text = "//! x\nfn f() { a.unwrap(); }\n#[cfg(test)]\nmod tests {\n    fn g() { b.unwrap(); }\n}\n\
                    fn h() { c.unwrap(); }\n";
        assert_eq!(lines(bare_unwraps(&Source::new("types/a.rs", text))), [2, 7]);
        assert_eq!(lines(bare_unwraps(&Source::new("types/a/tests.rs", text))), [0; 0]);
        assert_eq!(lines(unearned_unsafe(&Source::new("types/a.rs", "//! x\nunsafe {}\n"))), [2]);
        let earned = "//! x\n#![allow(unsafe_code, reason = \"y\")]\n// SAFETY: z\nunsafe {}\n";
        assert_eq!(lines(unearned_unsafe(&Source::new("types/a.rs", earned))), [0; 0]);
        assert_eq!(lines(unearned_unsafe(&Source::new("types/a.rs", "//! unsafe\nfn unsafe_x() {}\n"))), [0; 0]);
    }

    #[test]
    fn names_and_openings_are_held() {
        assert_eq!(lines(empty_names(&Source::new("types/list_utils.rs", "//! x\nfn get_it() {}\n"))), [1, 2]);
        assert_eq!(lines(empty_names(&Source::new("types/list.rs", "//! x\nfn getset() {}\n"))), [0; 0]);
        assert_eq!(lines(no_purpose(&Source::new("a.rs", "use x;\n"))), [1]);
        assert_eq!(lines(no_purpose(&Source::new("a.rs", "//! x\n"))), [0; 0]);
    }
}
