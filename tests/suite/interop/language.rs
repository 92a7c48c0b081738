//! The language of the tables: one command per line, quoted as in redis-cli.
//!
//! ```text
//! == SET with options           a section: new connections, empty databases
//! @needs RPUSH LRANGE           skips the rest of the section where the subject lacks one of these
//! @reset                        new connections and empty databases, within a section
//! # a comment
//! SET "a key" 'a \'value\'' "\x00\r\n"
//! ```
//!
//! Words with `@` before a command say how its replies are compared; without any, byte for byte:
//!
//! | word | meaning |
//! | --- | --- |
//! | `@unordered` | arrays, sets and maps are equal whatever the order of their members |
//! | `@approx N` | positive integers may differ by N: times to live, clocks |
//! | `@idle N` | the same, and 0 too: what is counted from a moment on |
//! | `@type` | only the type of the reply, and the code word of an error |
//! | `@fields` | the subject's text has at least the oracle's `name:` or `name=` fields |
//! | `@ignore REASON` | sent to both, not compared; the reason is one (quoted) word |
//! | `@version72 RAW` | Redis 7.2 answers this and the oracle is older: the exact bytes, in both protocols |
//! | `@ours RAW REASON` | we answer this on purpose, whatever the oracle says: the exact bytes, and why (see docs/differences.md) |
//! | `@swap72 FROM TO` | Redis 7.2 answers the same as the older oracle, but for this text |
//! | `@until TEXT` | asked again and again of each server, until its reply has this text; not compared |
//! | `@resp2`, `@resp3` | only in this protocol |
//! | `@replies N` | so many replies are read (default 1); 0 for CLIENT REPLY OFF |
//! | `@closes` | after its replies the connection is closed, and opened anew for the next command |
//! | `@on NAME` | on another connection of this name |

/// What a table consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A section of this title begins.
    Section(String),
    /// The rest of the section needs these commands.
    Needs(Vec<String>),
    /// New connections and empty databases.
    Reset,
    /// A command for both servers.
    Ask(Ask),
}

/// One command and how its replies are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Its line in the table, from 1.
    pub number: usize,
    /// The line as it was written.
    pub text: String,
    /// The command, word by word.
    pub args: Vec<Vec<u8>>,
    /// How replies are compared.
    pub compare: Compare,
    /// What Redis 7.2 answers, where older ones answer something else.
    pub version72: Option<Vec<u8>>,
    /// What we answer on purpose, where every Redis answers something else.
    pub ours: Option<Vec<u8>>,
    /// Texts of the oracle, and what Redis 7.2 says instead.
    pub swaps72: Vec<(Vec<u8>, Vec<u8>)>,
    /// What each reply has to have before it goes on.
    pub until: Option<Vec<u8>>,
    /// Only in this version of the protocol: 2 or 3.
    pub only: Option<u8>,
    /// How many replies to read.
    pub replies: usize,
    /// Whether the server closes the connection after them.
    pub closes: bool,
    /// The name of the connection; the usual one has none.
    pub on: String,
}

/// When two replies are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Equal bytes.
    Bytes,
    /// Equal but for the order of members.
    Unordered,
    /// Equal but for positive integers, which differ by so much at most.
    Approx(i128),
    /// Equal but for integers that are not negative, which differ by so much at most.
    Idle(i128),
    /// The same type.
    Kind,
    /// All of the oracle's fields are there.
    Fields,
    /// Always.
    Ignored,
}

/// Reads a table.
///
/// # Panics
/// Where a line is not of the language: with its number.
pub fn parse(table: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            steps.push(Step::Section(title.to_owned()));
            continue;
        }
        steps.push(step(at + 1, line).unwrap_or_else(|why| panic!("line {}: {why}: {line}", at + 1)));
    }
    steps
}

fn step(number: usize, line: &str) -> Result<Step, String> {
    let mut words = split(line.as_bytes())?.into_iter().peekable();
    let mut ask = Ask {
        number,
        text: line.to_owned(),
        args: Vec::new(),
        compare: Compare::Bytes,
        version72: None,
        ours: None,
        swaps72: Vec::new(),
        until: None,
        only: None,
        replies: 1,
        closes: false,
        on: String::new(),
    };
    while let Some(word) = words.next_if(|w| w.starts_with(b"@")) {
        let mut value = || words.next().ok_or("the word after a directive is missing");
        match word.as_slice() {
            b"@needs" => {
                return Ok(Step::Needs(words.map(|w| String::from_utf8_lossy(&w).into_owned()).collect()));
            }
            b"@reset" => return Ok(Step::Reset),
            b"@unordered" => ask.compare = Compare::Unordered,
            b"@approx" => ask.compare = Compare::Approx(number_of(&value()?)?),
            b"@idle" => ask.compare = Compare::Idle(number_of(&value()?)?),
            b"@type" => ask.compare = Compare::Kind,
            b"@fields" => ask.compare = Compare::Fields,
            b"@ignore" => {
                value()?;
                ask.compare = Compare::Ignored;
            }
            b"@version72" => ask.version72 = Some(value()?),
            b"@ours" => {
                ask.ours = Some(value()?);
                value()?;
            }
            b"@swap72" => {
                let (from, to) = (value()?, value()?);
                ask.swaps72.push((from, to));
            }
            b"@until" => {
                ask.until = Some(value()?);
                ask.compare = Compare::Ignored;
            }
            b"@resp2" => ask.only = Some(2),
            b"@resp3" => ask.only = Some(3),
            b"@replies" => ask.replies = number_of(&value()?)?,
            b"@closes" => ask.closes = true,
            b"@on" => ask.on = String::from_utf8_lossy(&value()?).into_owned(),
            _ => return Err(format!("unknown directive {}", word.escape_ascii())),
        }
    }
    ask.args = words.collect();
    if ask.args.is_empty() { Err("no command".into()) } else { Ok(Step::Ask(ask)) }
}

fn number_of<T: std::str::FromStr>(word: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(word);
    text.parse().map_err(|_| format!("{text} is no number"))
}

/// Splits a line into words as redis-cli does.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at == line.len() {
            return Ok(words);
        }
        let mut word = Vec::new();
        match line[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                loop {
                    match (line.get(at), quote) {
                        (None, _) => return Err("a quote is not closed".into()),
                        (Some(c), _) if *c == quote => break,
                        (Some(b'\\'), b'"') => {
                            at += 1;
                            at += escape(&line[at..], &mut word)?;
                        }
                        (Some(b'\\'), _) if line.get(at + 1) == Some(&b'\'') => {
                            word.push(b'\'');
                            at += 2;
                        }
                        (Some(c), _) => {
                            word.push(*c);
                            at += 1;
                        }
                    }
                }
                at += 1;
                if line.get(at).is_some_and(|c| !c.is_ascii_whitespace()) {
                    return Err("a closing quote is followed by something".into());
                }
            }
            _ => {
                while let Some(c) = line.get(at).filter(|c| !c.is_ascii_whitespace()) {
                    word.push(*c);
                    at += 1;
                }
            }
        }
        words.push(word);
    }
}

/// Appends what an escape (without its backslash) stands for; returns how many bytes it took.
fn escape(rest: &[u8], word: &mut Vec<u8>) -> Result<usize, String> {
    let (c, rest) = rest.split_first().ok_or("a line ends in a backslash")?;
    if *c == b'x' {
        let hex = rest.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        word.push(hex.and_then(|h| u8::from_str_radix(h, 16).ok()).ok_or("\\x wants two hexadecimal digits")?);
        return Ok(3);
    }
    word.push(match c {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        other => *other,
    });
    Ok(1)
}

#[test]
fn words_are_split_and_unquoted_as_in_redis_cli() {
    assert_eq!(
        split(br#"a "b \x41\r\n\"" 'c \'d\n' """#),
        Ok(vec![b"a".to_vec(), b"b A\r\n\"".to_vec(), b"c 'd\\n".to_vec(), b"".to_vec()])
    );
    assert!(split(b"\"a").is_err());
    assert!(split(b"\"a\"b").is_err());
}

#[test]
fn directives_precede_the_command() {
    let steps = parse("== one\n# no\n@approx 3 @on b TTL a\n@needs X Y\n@version72 \"+a\\r\\n\" PING");
    assert_eq!(steps[0], Step::Section("one".into()));
    assert_eq!(steps[2], Step::Needs(vec!["X".into(), "Y".into()]));
    let (Step::Ask(ttl), Step::Ask(ping)) = (&steps[1], &steps[3]) else { panic!("{steps:?}") };
    assert_eq!((ttl.number, ttl.compare, ttl.on.as_str(), ttl.args.len()), (3, Compare::Approx(3), "b", 2));
    assert_eq!(ping.version72.as_deref(), Some(&b"+a\r\n"[..]));
}
