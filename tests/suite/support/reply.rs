//! Replies: taken apart to be compared loosely, and decoded by an independent implementation.

use redis_protocol::resp2::{decode::decode as decode2, types::OwnedFrame as Frame2};
use redis_protocol::resp3::{decode::complete::decode as decode3, types::OwnedFrame as Frame3};

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// What a connection starts with.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// A reply, taken apart; the type bytes are kept, so that equal trees are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// A line: its type and the rest.
    Line(u8, Vec<u8>),
    /// Bytes with a length: `None` is the null of RESP2.
    Bulk(u8, Option<Vec<u8>>),
    /// What holds other replies; a map's keys and values alternate.
    Many(u8, Option<Vec<Tree>>),
    /// An attribute and the reply it belongs to.
    Attribute(Vec<Tree>, Box<Tree>),
}

impl Tree {
    /// Takes one whole reply apart.
    ///
    /// # Panics
    /// Where the bytes are not one reply; [`Client::reply`](crate::support::client::Client::reply) returns nothing else.
    pub fn parse(raw: &[u8]) -> Tree {
        let mut rest = raw;
        let tree = Tree::take(&mut rest);
        assert!(rest.is_empty(), "more than one reply: {}", raw.escape_ascii());
        tree
    }

    fn take(rest: &mut &[u8]) -> Tree {
        let end = rest.windows(2).position(|w| w == b"\r\n").expect("a reply has a whole first line");
        let (line, tail) = rest.split_at(end);
        *rest = &tail[2..];
        let kind = line[0];
        let text = &line[1..];
        let count = || std::str::from_utf8(text).ok().and_then(|s| s.parse::<i64>().ok()).expect("a length");
        let many = |n: usize, rest: &mut &[u8]| (0..n).map(|_| Tree::take(rest)).collect::<Vec<_>>();
        match kind {
            b'$' | b'=' | b'!' => Tree::Bulk(
                kind,
                usize::try_from(count()).ok().map(|n| {
                    let (bytes, tail) = rest.split_at(n);
                    *rest = &tail[2..];
                    bytes.to_vec()
                }),
            ),
            b'*' | b'~' | b'>' => Tree::Many(kind, usize::try_from(count()).ok().map(|n| many(n, rest))),
            b'%' => Tree::Many(kind, usize::try_from(count()).ok().map(|n| many(2 * n, rest))),
            b'|' => {
                let attributes = many(2 * usize::try_from(count()).expect("a length"), rest);
                Tree::Attribute(attributes, Box::new(Tree::take(rest)))
            }
            _ => Tree::Line(kind, text.to_vec()),
        }
    }

    /// The same with the members of every array, set and push sorted, and every map sorted by its keys.
    pub fn sorted(self) -> Tree {
        match self {
            Tree::Many(b'%', Some(items)) => {
                let mut pairs: Vec<(Tree, Tree)> = Vec::new();
                let mut items = items.into_iter().map(Tree::sorted);
                while let (Some(k), Some(v)) = (items.next(), items.next()) {
                    pairs.push((k, v));
                }
                pairs.sort();
                Tree::Many(b'%', Some(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()))
            }
            Tree::Many(kind, Some(items)) => {
                let mut items: Vec<_> = items.into_iter().map(Tree::sorted).collect();
                items.sort();
                Tree::Many(kind, Some(items))
            }
            other => other,
        }
    }

    /// The same without the fields of these names, in maps and in arrays that stand for maps.
    pub fn without(self, names: &[&str]) -> Tree {
        let Tree::Many(kind, Some(items)) = self else { return self };
        let (mut kept, mut items) = (Vec::new(), items.into_iter());
        while let Some(item) = items.next() {
            if matches!(&item, Tree::Bulk(_, Some(name)) if names.iter().any(|left| left.as_bytes() == name)) {
                items.next();
            } else {
                kept.push(item.without(names));
            }
        }
        Tree::Many(kind, Some(kept))
    }

    /// Only the shape: type bytes, and the code word of errors.
    pub fn kind(&self) -> String {
        match self {
            Tree::Line(b'-', text) => format!("-{}", String::from_utf8_lossy(text).split(' ').next().unwrap_or("")),
            Tree::Line(kind, _) | Tree::Bulk(kind, Some(_)) | Tree::Many(kind, Some(_)) => {
                char::from(*kind).to_string()
            }
            Tree::Bulk(kind, None) | Tree::Many(kind, None) => format!("{}-1", char::from(*kind)),
            Tree::Attribute(_, of) => format!("|{}", of.kind()),
        }
    }

    /// Whether both are equal, where integers (and strings that are integers) may differ by `within`.
    pub fn near(&self, other: &Tree, within: i128) -> bool {
        self.near_from(other, within, 1)
    }

    /// The same for integers from `least` on: 0 may be an amount too.
    pub fn near_from(&self, other: &Tree, within: i128, least: i128) -> bool {
        let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|s| s.parse::<i128>().ok());
        let close = |a: &[u8], b: &[u8]| match (number(a), number(b)) {
            // -1 and -2, and mostly 0, are answers of their own, not amounts.
            (Some(a), Some(b)) if a >= least && b >= least => (a - b).abs() <= within,
            _ => a == b,
        };
        match (self, other) {
            (Tree::Line(k, a), Tree::Line(l, b)) => k == l && close(a, b),
            (Tree::Bulk(k, Some(a)), Tree::Bulk(l, Some(b))) => k == l && close(a, b),
            (Tree::Many(k, Some(a)), Tree::Many(l, Some(b))) => {
                k == l && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.near_from(b, within, least))
            }
            _ => self == other,
        }
    }

    /// The names in a text of `name=value` words or `name:value` lines, as INFO and CLIENT LIST print.
    pub fn fields(&self) -> Vec<String> {
        let Tree::Bulk(_, Some(text)) = self else { return Vec::new() };
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix("txt:").unwrap_or(&text);
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines
            .flat_map(|l| {
                if l.contains('=') && !l.contains(':') || l.starts_with("id=") {
                    l.split(' ').filter_map(|w| w.split_once('=')).map(|(n, _)| n.to_owned()).collect::<Vec<_>>()
                } else {
                    l.split_once(':').map(|(n, _)| n.to_owned()).into_iter().collect()
                }
            })
            .collect()
    }

    /// The members of an array, set or map; none for other replies.
    pub fn items(&self) -> &[Tree] {
        match self {
            Tree::Many(_, Some(items)) => items,
            _ => &[],
        }
    }

    /// For people: texts without their types.
    pub fn print(&self) -> String {
        match self {
            Tree::Many(_, Some(items)) => format!("[{}]", items.iter().map(Tree::print).collect::<Vec<_>>().join(" ")),
            other => other.bytes().map_or_else(|| "(nil)".to_owned(), |b| b.escape_ascii().to_string()),
        }
    }

    /// The bytes of a line or of a string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Tree::Line(_, text) | Tree::Bulk(_, Some(text)) => Some(text),
            _ => None,
        }
    }
}

/// A reply as the crate redis-protocol reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// As RESP2.
    Resp2(Frame2),
    /// As RESP3.
    Resp3(Frame3),
}

/// Decodes one whole reply with the crate redis-protocol.
///
/// # Errors
/// What the crate says where it refuses the bytes, wants more of them, or leaves some over.
pub fn decode(raw: &[u8], protocol: Protocol) -> Result<Decoded, String> {
    let (decoded, used) = match protocol {
        Protocol::Resp2 => decode2(raw).map_err(|e| e.to_string())?.map(|(f, n)| (Decoded::Resp2(f), n)),
        Protocol::Resp3 => decode3(raw).map_err(|e| e.to_string())?.map(|(f, n)| (Decoded::Resp3(f), n)),
    }
    .ok_or_else(|| "the reply is incomplete".to_owned())?;
    if used == raw.len() { Ok(decoded) } else { Err(format!("{} of {} bytes were read", used, raw.len())) }
}
