//! The manifest: which files make up the log, in which order.
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b
//! file appendonly.aof.4.incr.aof seq 4 type i
//! file appendonly.aof.3.incr.aof seq 3 type h
//! ```
//! There is one base at most (`b`), increments in ascending order (`i`), and what is of no use any more and yet to be
//! removed (`h`).

use std::fmt;

use crate::stdx::words::{quoted, split_words};

/// A line may be so long.
const LINE_BYTES: usize = 1024;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The data set at one time.
    Base,
    /// What changed since.
    Increment,
    /// Nothing any more.
    History,
}

/// A file that the manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the directory of the log.
    pub name: Vec<u8>,
    /// Its number: bases and increments count apart.
    pub seq: u64,
}

/// Which files make up the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Where it begins, if it has a base.
    pub base: Option<Part>,
    /// What follows.
    pub increments: Vec<Part>,
    /// What may be removed.
    pub history: Vec<Part>,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadManifest {
    /// The line, from 1 on.
    pub line: usize,
    /// Its text.
    pub text: Vec<u8>,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, text) = (self.line, self.text.escape_ascii());
        write!(f, "Reading the manifest file, at line {line}\n>>> '{text}'\n{}", self.reason)
    }
}

impl Manifest {
    /// Reads a manifest. `file`, `seq` and `type` may come in any order, words that are not known are passed over, and
    /// lines that begin with `#` are comments.
    ///
    /// # Errors
    /// The first line that is wrong: a name that leads elsewhere, a second base, increments that do not ascend.
    pub fn parse(text: &[u8]) -> Result<Manifest, BadManifest> {
        let mut manifest = Manifest::default();
        let mut rest = text;
        let mut number = 0;
        while !rest.is_empty() {
            number += 1;
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after.get(1..).unwrap_or_default();
            let wrong = |reason| BadManifest { line: number, text: line.to_vec(), reason };
            if line.first() == Some(&b'#') {
                continue;
            }
            if end.is_none() || line.len() >= LINE_BYTES {
                return Err(wrong("The AOF manifest file contains too long line"));
            }
            let (part, kind) = entry(line).map_err(wrong)?;
            match kind {
                Kind::Base if manifest.base.is_some() => {
                    return Err(wrong("Found duplicate base file information"));
                }
                Kind::Base => manifest.base = Some(part),
                Kind::Increment if manifest.increments.last().is_some_and(|last| last.seq >= part.seq) => {
                    return Err(wrong("Found a non-monotonic sequence number"));
                }
                Kind::Increment => manifest.increments.push(part),
                Kind::History => manifest.history.push(part),
            }
        }
        if number == 0 {
            return Err(BadManifest { line: 0, text: Vec::new(), reason: "Found an empty AOF manifest" });
        }
        Ok(manifest)
    }

    /// What the file holds.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.base.iter().for_each(|part| write_line(&mut text, part, Kind::Base));
        self.history.iter().for_each(|part| write_line(&mut text, part, Kind::History));
        self.increments.iter().for_each(|part| write_line(&mut text, part, Kind::Increment));
        text
    }

    /// The files that are to be loaded, in this order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.base.iter().chain(&self.increments)
    }

    /// The next base, in a file whose name begins with `name`.
    pub fn next_base(&self, name: &[u8], is_snapshot: bool) -> Part {
        // A number that the history has may still be the name of a file.
        let is_base = |part: &&Part| part.name.windows(6).any(|six| six == b".base.");
        let old = self.history.iter().filter(is_base);
        let seq = self.base.iter().chain(old).map(|part| part.seq).max().unwrap_or(0) + 1;
        let ending = if is_snapshot { "rdb" } else { "aof" };
        Part { name: [name, format!(".{seq}.base.{ending}").as_bytes()].concat(), seq }
    }

    /// The next increment, in a file whose name begins with `name`.
    pub fn next_increment(&self, name: &[u8]) -> Part {
        let is_increment = |part: &&Part| part.name.windows(6).any(|six| six == b".incr.");
        let old = self.history.iter().filter(is_increment);
        let seq = self.increments.iter().chain(old).map(|part| part.seq).max().unwrap_or(0) + 1;
        Part { name: [name, format!(".{seq}.incr.aof").as_bytes()].concat(), seq }
    }
}

/// Appends the line that names a file.
fn write_line(text: &mut Vec<u8>, part: &Part, kind: Kind) {
    let kind = match kind {
        Kind::Base => 'b',
        Kind::Increment => 'i',
        Kind::History => 'h',
    };
    text.extend_from_slice(b"file ");
    let is_plain = part.name.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\#".contains(byte));
    if is_plain {
        text.extend_from_slice(&part.name);
    } else {
        text.extend(quoted(&part.name));
    }
    text.extend_from_slice(format!(" seq {} type {kind}\n", part.seq).as_bytes());
}

/// The file that a line names.
fn entry(line: &[u8]) -> Result<(Part, Kind), &'static str> {
    const FORMAT: &str = "Invalid AOF manifest file format";
    let words = split_words(line).ok_or(FORMAT)?;
    if words.len() < 6 || !words.len().is_multiple_of(2) {
        return Err(FORMAT);
    }
    let (mut name, mut seq, mut kind) = (None, None, None);
    for pair in words.chunks_exact(2) {
        let value = &pair[1];
        if pair[0].eq_ignore_ascii_case(b"file") {
            // A name, not a way elsewhere.
            let is_name = !value.is_empty() && !value.contains(&b'/') && !value.contains(&b'\\') && !value.contains(&0);
            name = is_name.then(|| value.clone());
            name.as_ref().ok_or(FORMAT)?;
        } else if pair[0].eq_ignore_ascii_case(b"seq") {
            seq = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
        } else if pair[0].eq_ignore_ascii_case(b"type") {
            kind = match &value[..] {
                b"b" => Some(Kind::Base),
                b"i" => Some(Kind::Increment),
                b"h" => Some(Kind::History),
                _ => return Err("Unknown AOF file type"),
            };
        }
    }
    let seq = seq.filter(|seq| (1..u64::MAX / 2).contains(seq)).ok_or(FORMAT)?;
    let (part, kind) = (Part { name: name.ok_or(FORMAT)?, seq }, kind.ok_or(FORMAT)?);
    let mut written = Vec::new();
    write_line(&mut written, &part, kind);
    if written.len() > LINE_BYTES {
        // Bytes that are quoted take four times as much, and what is read must be read again.
        return Err("The AOF manifest file contains too long file name");
    }
    Ok((part, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(name: &str, seq: u64) -> Part {
        Part { name: name.into(), seq }
    }

    #[test]
    fn a_manifest_is_written_as_it_is_read() {
        let text = b"file a.aof.2.base.rdb seq 2 type b\nfile a.aof.3.incr.aof seq 3 type h\n\
            file a.aof.4.incr.aof seq 4 type i\nfile \"a b.aof\" seq 5 type i\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.base, Some(part("a.aof.2.base.rdb", 2)));
        assert_eq!(manifest.increments, [part("a.aof.4.incr.aof", 4), part("a b.aof", 5)]);
        assert_eq!(manifest.history, [part("a.aof.3.incr.aof", 3)]);
        assert_eq!(manifest.text(), text);
        assert_eq!(manifest.next_base(b"a.aof", true), part("a.aof.3.base.rdb", 3));
        assert_eq!(manifest.next_base(b"a.aof", false), part("a.aof.3.base.aof", 3));
        assert_eq!(manifest.next_increment(b"a.aof"), part("a.aof.6.incr.aof", 6));
        assert_eq!(Manifest::default().next_increment(b"x"), part("x.1.incr.aof", 1));
    }

    #[test]
    fn comments_and_words_of_later_versions_are_passed_over() {
        let text = b"#Fake\ntype i seq 1 file a startoffset 12\n# more\n";
        assert_eq!(Manifest::parse(text).unwrap().increments, [part("a", 1)]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let cases: [(&[u8], usize, &str); 10] = [
            (b"", 0, "Found an empty AOF manifest"),
            (b"\n", 1, "Invalid AOF manifest file format"),
            (b"file a seq 1 type b\nfile b seq 2 type b\n", 2, "Found duplicate base file information"),
            (b"file a seq 2 type i\nfile b seq 2 type i\n", 2, "Found a non-monotonic sequence number"),
            (b"file a/b seq 1 type b\n", 1, "Invalid AOF manifest file format"),
            (b"file a seq x type b\n", 1, "Invalid AOF manifest file format"),
            (b"file a seq 0 type b\n", 1, "Invalid AOF manifest file format"),
            (b"file a seq 1 type c\n", 1, "Unknown AOF file type"),
            (b"file a seq 1\n", 1, "Invalid AOF manifest file format"),
            (b"file a seq 1 type b", 1, "The AOF manifest file contains too long line"),
        ];
        for (text, line, reason) in cases {
            let error = Manifest::parse(text).unwrap_err();
            assert_eq!((error.line, error.reason), (line, reason), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_name_that_could_not_be_read_again_is_refused() {
        // Quoted, each of these bytes takes four.
        let line = |len: usize| [b"file ", &vec![0xff; len][..], b" seq 1 type i\n"].concat();
        let longest = Manifest::parse(&line(250)).unwrap();
        assert_eq!(Manifest::parse(&longest.text()), Ok(longest));
        let error = Manifest::parse(&line(251)).unwrap_err();
        assert_eq!(error.reason, "The AOF manifest file contains too long file name");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_refused_or_written_again_the_same(
            lines in prop::collection::vec("(file|seq|type|[a-z\"]{1,3}| |\n|1|2|b|i|h){0,12}\n", 0..4),
        ) {
            if let Ok(manifest) = Manifest::parse(lines.concat().as_bytes())
                && manifest != Manifest::default()
            {
                prop_assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
            }
        }
    }
}
