//! Reading: the commands of a file, one after the other, and how far it is whole.
//!
//! ```text
//! command     *<arguments>\r\n  ($<bytes>\r\n<argument>\r\n) ...
//! annotation  #<anything>\r\n, of which #TS:<Unix seconds> is known
//! ```
//! What must stay true: memory grows with what is there, not with what a header says; whatever follows the last whole
//! command is told apart: an end in the midst of one, which a crash leaves, and bytes that are no command.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use crate::resp::request::Span;
use crate::stdx::number::parse_i64;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// A header is no longer than this.
const HEADER_BYTES: usize = 128;
/// An annotation is no longer than this.
const ANNOTATION_BYTES: usize = 64 * 1024;
/// The most arguments of a command.
const ARGUMENTS: i64 = 1 << 30;
/// The most bytes of an argument.
const ARGUMENT_BYTES: i64 = 1 << 42;

/// Why no further command can be read.
#[derive(Debug)]
pub struct Fault {
    /// Where the last whole command ends.
    pub whole: u64,
    /// What is there instead of another.
    pub reason: Reason,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Reason {
    /// It ends in the midst of a command.
    Truncated,
    /// What follows is no command.
    Format,
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Truncated => f.write_str("Unexpected end of file")?,
            Reason::Format => f.write_str("Bad file format")?,
            Reason::Io(error) => write!(f, "{error}")?,
        }
        write!(f, " (offset {})", self.whole)
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A command of so many arguments.
    Command(usize),
    /// What follows was written at this time: Unix seconds.
    Time(i64),
}

/// Reads a file from some place on.
pub struct Records<'r> {
    source: &'r mut dyn Read,
    buffer: Vec<u8>,
    at: usize,
    /// The offset of the buffer's first byte.
    base: u64,
    whole: u64,
}

impl<'r> Records<'r> {
    /// Reads from `source`, of which `offset` bytes were read before; the last of those, `ahead`, are yet to be looked
    /// at.
    pub fn new(source: &'r mut dyn Read, ahead: Vec<u8>, offset: u64) -> Records<'r> {
        let base = offset - ahead.len() as u64;
        Records { source, buffer: ahead, at: 0, base, whole: base }
    }

    /// Where the last whole record ends.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// Reads the next record; a command's arguments are appended to `text`, their places to `spans`. `None` at the end.
    ///
    /// # Errors
    /// Why there is none, although the file goes on. `text` and `spans` may have some of it then.
    pub fn next(&mut self, text: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<Option<Record>, Fault> {
        loop {
            if self.at == self.buffer.len() && !self.more()? {
                return Ok(None);
            }
            let record = match self.buffer[self.at] {
                b'#' => {
                    let line = self.line(ANNOTATION_BYTES)?;
                    let time = line.strip_prefix(b"#TS:").and_then(parse_i64).map(Record::Time);
                    self.whole = self.base + self.at as u64;
                    match time {
                        Some(time) => time,
                        None => continue,
                    }
                }
                b'*' => {
                    let count = self.header(b'*', 1, ARGUMENTS)?;
                    for _ in 0..count {
                        let len = self.header(b'$', 0, ARGUMENT_BYTES)?;
                        spans.push(Span { start: text.len(), len });
                        self.bytes(len, text)?;
                        // Redis passes over these two without a look as well.
                        let end = text.len();
                        self.bytes(2, text)?;
                        text.truncate(end);
                    }
                    Record::Command(count)
                }
                _ => return Err(self.fault(Reason::Format)),
            };
            self.whole = self.base + self.at as u64;
            return Ok(Some(record));
        }
    }

    fn fault(&self, reason: Reason) -> Fault {
        Fault { whole: self.whole, reason }
    }

    /// Reads more; returns whether there was any.
    fn more(&mut self) -> Result<bool, Fault> {
        self.base += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + CHUNK_BYTES, 0);
        loop {
            match self.source.read(&mut self.buffer[had..]) {
                Ok(n) => {
                    self.buffer.truncate(had + n);
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(had);
                    return Err(self.fault(Reason::Io(error)));
                }
            }
        }
    }

    /// A line without its end.
    fn line(&mut self, most: usize) -> Result<Vec<u8>, Fault> {
        let mut looked = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.at + looked..]) {
                let line = &self.buffer[self.at..self.at + looked + end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at += looked + end + 1;
                return Ok(line);
            }
            looked = self.buffer.len() - self.at;
            if looked > most {
                return Err(self.fault(Reason::Format));
            }
            if !self.more()? {
                return Err(self.fault(Reason::Truncated));
            }
        }
    }

    /// The number in a header that begins with `sign`.
    fn header(&mut self, sign: u8, least: i64, most: i64) -> Result<usize, Fault> {
        // A short one that is at hand costs no copy.
        let bytes = &self.buffer[self.at..];
        let at_hand = memchr::memchr(b'\n', &bytes[..bytes.len().min(HEADER_BYTES)]);
        let (found, number) = match at_hand {
            Some(end) => {
                let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
                self.at += end + 1;
                (line.first().copied(), line.get(1..).and_then(parse_i64))
            }
            None => {
                if bytes.first().is_some_and(|first| *first != sign) {
                    return Err(self.fault(Reason::Format));
                }
                let line = self.line(HEADER_BYTES)?;
                (line.first().copied(), line.get(1..).and_then(parse_i64))
            }
        };
        let number = number.filter(|n| found == Some(sign) && (least..=most).contains(n));
        number.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| self.fault(Reason::Format))
    }

    /// Appends `len` bytes to `out`.
    fn bytes(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut left = len;
        while left > 0 {
            if self.at == self.buffer.len() && !self.more()? {
                return Err(self.fault(Reason::Truncated));
            }
            let n = left.min(self.buffer.len() - self.at);
            out.extend_from_slice(&self.buffer[self.at..self.at + n]);
            self.at += n;
            left -= n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    type Commands = Vec<Vec<Vec<u8>>>;

    fn read(bytes: &[u8], piece: usize) -> (Commands, Option<Fault>, u64) {
        let mut source = Pieces(bytes, piece);
        let mut records = Records::new(&mut source, Vec::new(), 0);
        let mut commands = Vec::new();
        loop {
            let (mut text, mut spans) = (Vec::new(), Vec::new());
            match records.next(&mut text, &mut spans) {
                Ok(Some(Record::Command(n))) => {
                    assert_eq!(n, spans.len());
                    commands.push(spans.iter().map(|span| span.of(&text).to_vec()).collect());
                }
                Ok(Some(Record::Time(_))) => {}
                Ok(None) => return (commands, None, records.whole()),
                Err(fault) => return (commands, Some(fault), records.whole()),
            }
        }
    }

    fn encode(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(format!("*{}\r\n", command.len()).bytes());
            for word in command {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
        }
        bytes
    }

    #[test]
    fn annotations_stand_between_commands() {
        let (commands, fault, whole) = read(b"#TS:1700000000\r\n*1\r\n$4\r\nPING\r\n# any\r\n", 3);
        assert_eq!((commands, whole), (vec![vec![b"PING".to_vec()]], 37));
        assert!(fault.is_none());
    }

    #[test]
    fn what_is_no_command_is_told_from_an_end_in_the_midst() {
        for (text, whole, truncated) in [
            ("*1\r\n$4\r\nPING\r\nxyz", 14, false),
            ("*1\r\n$4\r\nPING\r\n*", 14, true),
            ("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI", 14, true),
            ("*0\r\n", 0, false),
            ("*1\r\n:4\r\n", 0, false),
            ("*1\r\n$-1\r\n", 0, false),
            ("*1\r\n$99999999999999999999\r\n", 0, false),
            ("*2\r\n$4\r\nPING\r\n", 0, true),
        ] {
            let (_, fault, _) = read(text.as_bytes(), 5);
            let fault = fault.unwrap();
            assert_eq!((fault.whole, matches!(fault.reason, Reason::Truncated)), (whole, truncated), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn commands_are_read_as_they_were_written_and_a_cut_leaves_whole_ones(
            commands in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 0..6),
            piece in 1..200usize,
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = encode(&commands);
            let (found, fault, whole) = read(&bytes, piece);
            prop_assert!(fault.is_none());
            prop_assert_eq!(&found, &commands);
            prop_assert_eq!(whole, bytes.len() as u64);
            let cut = cut.index(bytes.len() + 1);
            let (found, fault, whole) = read(&bytes[..cut], piece);
            let fits = (0..=commands.len()).rev().find(|n| encode(&commands[..*n]).len() <= cut).unwrap();
            prop_assert_eq!(&found[..], &commands[..fits]);
            prop_assert_eq!(whole as usize, encode(&commands[..fits]).len());
            prop_assert_eq!(fault.is_some(), whole as usize != cut);
            prop_assert!(fault.is_none_or(|fault| matches!(fault.reason, Reason::Truncated)));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'#'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'2'), any::<u8>()], 0..80)) {
            let (_, fault, whole) = read(&bytes, 7);
            prop_assert!(fault.is_some() || whole == bytes.len() as u64);
        }
    }
}
