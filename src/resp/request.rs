//! Requests: where the arguments of each request stand in the bytes that a client sent.
//!
//! The parser copies and allocates nothing for a request: it answers with [`Span`]s of the caller's
//! read buffer. It never looks at a byte twice: what it knows of a request that is not whole yet stays
//! in it, as positions relative to the request's start, so the caller may move the bytes meanwhile.
//! Nothing is reserved for what a client merely announces; memory follows the bytes that arrived.
//!
//! Leniences are Redis' own, because clients live by them: the byte after a `\r` is skipped unread, in
//! headers and after bulks, and a negative count is an empty request.

use std::fmt;

use crate::stdx::number::parse_i64;

/// What a header line or an inline command may not exceed while its end has not arrived, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The largest number of arguments that a header may announce.
pub const ARGUMENTS_MAX: i64 = i32::MAX as i64;
/// The largest number of arguments before the client has logged in.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
/// The largest argument, in bytes, before the client has logged in.
pub const UNAUTHENTICATED_BULK_MAX: i64 = 16 * 1024;
/// From this length on [`Parser::missing`] tells what a bulk still lacks, in bytes.
pub const LARGE_BULK: usize = 32 * 1024;

/// Capacity of the list of arguments that is kept between requests that arrive in pieces.
const KEPT_ARGUMENTS: usize = 1024;

/// An argument's place in the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The offset of its first byte.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl Span {
    /// The argument itself; `buf` is the buffer that was parsed, and panics if it is shorter than that.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start..self.start + self.len]
    }
}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`, in bytes; `usize::MAX` for a replication link, which Redis does not limit.
    pub max_bulk: usize,
    /// Whether the client has logged in, or need not.
    pub authenticated: bool,
}

/// What [`Parser::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole request of `args` arguments, whose spans were pushed. None at all for an empty one
    /// (`*0\r\n`, a negative count, a blank line): nothing to run and nothing to answer.
    Request {
        /// How many spans were pushed.
        args: usize,
        /// The request's length in bytes.
        consumed: usize,
    },
    /// A whole inline command with quotes, whose words differ from the bytes received.
    Inline {
        /// The words without their quotes and escapes.
        words: Vec<Vec<u8>>,
        /// The request's length in bytes.
        consumed: usize,
    },
    /// The request is not whole yet; no span was pushed.
    Incomplete,
}

/// A request that Redis would not read on after: the client is told so and disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of arguments is no number, or too large.
    InvalidMultibulkLength,
    /// More than [`UNAUTHENTICATED_ARGUMENTS_MAX`] arguments before login.
    UnauthenticatedMultibulkLength,
    /// A line that announces the number of arguments and does not end.
    TooBigMultibulkCount,
    /// An argument must begin with `$`; it begins with this.
    ExpectedDollar(u8),
    /// The length of an argument is no number, negative, or above [`Limits::max_bulk`].
    InvalidBulkLength,
    /// More than [`UNAUTHENTICATED_BULK_MAX`] bytes in an argument before login.
    UnauthenticatedBulkLength,
    /// A line that announces the length of an argument and does not end.
    TooBigBulkCount,
    /// An inline command that does not end.
    TooBigInline,
    /// A quote in an inline command is not closed, or is followed by something other than a blank.
    UnbalancedQuotes,
}

/// Redis' text, without `ERR ` before it.
impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::ExpectedDollar(byte) => {
                return write!(f, "Protocol error: expected '$', got '{}'", char::from(*byte));
            }
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulkLength => "unauthenticated bulk length",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
        };
        write!(f, "Protocol error: {text}")
    }
}

impl std::error::Error for ProtocolError {}

/// What is awaited next, at [`Parser::pos`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first byte of a request.
    Start,
    /// The rest of an inline command.
    Inline,
    /// The rest of the line with the number of arguments.
    Count,
    /// The line with the length of an argument.
    Length,
    /// So many bytes of an argument, and two more.
    Bulk(usize),
}

/// One connection's partial request.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// Where `state` begins, from the start of the request.
    pos: usize,
    /// How far the end of the line that begins at `pos` was searched in vain, from the start of the request.
    searched: usize,
    /// How many arguments are still to come.
    left: usize,
    /// The arguments so far, from the start of the request; empty between requests.
    args: Vec<Span>,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::new()
    }
}

impl Parser {
    /// A parser that awaits the start of a request.
    pub fn new() -> Parser {
        Parser { state: State::Start, pos: 0, searched: 0, left: 0, args: Vec::new() }
    }

    /// Finds the request that begins at `buf[at]`, whole or not.
    ///
    /// Pushes the arguments of a whole request to `spans`, as offsets into `buf`. Told `Incomplete`, the
    /// caller reads more and calls again with the same bytes and those that came after them, at the same
    /// `at` or another: nothing is scanned twice. After an error the parser is of no further use.
    ///
    /// # Errors
    /// What Redis answers before it disconnects; `spans` may then hold some arguments of the bad request.
    #[inline]
    pub fn next(
        &mut self,
        buf: &[u8],
        at: usize,
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Step, ProtocolError> {
        if self.state == State::Start {
            if limits.max_bulk >= SMALL_BULK_MAX
                && let Some((args, consumed)) = small(buf.get(at..).unwrap_or_default(), at, spans)
            {
                return Ok(Step::Request { args, consumed });
            }
            self.fresh(buf, at, limits, spans)
        } else {
            self.resume(buf, at, limits, spans)
        }
    }

    /// How many bytes the argument in progress still lacks, its `\r\n` included, if it is one of at least
    /// [`LARGE_BULK`] bytes, so that the caller can make room for exactly that; 0 otherwise.
    ///
    /// `available` is the number of bytes that have arrived of this request.
    pub fn missing(&self, available: usize) -> usize {
        match self.state {
            State::Bulk(len) if len >= LARGE_BULK => {
                self.pos.saturating_add(len).saturating_add(2).saturating_sub(available)
            }
            _ => 0,
        }
    }

    /// Where a long argument begins that is not whole yet, from the start of the request; 0 where none is awaited.
    pub fn awaited_from(&self) -> usize {
        match self.state {
            State::Bulk(len) if len >= LARGE_BULK => self.pos,
            _ => 0,
        }
    }

    /// Whether a request has begun that is not whole yet.
    pub fn is_mid_request(&self) -> bool {
        self.state != State::Start
    }

    /// A request of which nothing was seen before: its arguments go where the caller wants them.
    fn fresh(&mut self, buf: &[u8], at: usize, limits: &Limits, spans: &mut Vec<Span>) -> Result<Step, ProtocolError> {
        let Some(&first) = buf.get(at) else { return Ok(Step::Incomplete) };
        if first != b'*' {
            return self.inline(buf, at, spans);
        }
        self.pos = 1;
        self.searched = 1;
        self.state = State::Count;
        let begin = spans.len();
        let step = self.multibulk(&buf[at..], at, limits, spans)?;
        if step == Step::Incomplete {
            let partial = spans.drain(begin..);
            self.args.extend(partial.map(|span| Span { start: span.start - at, len: span.len }));
        }
        Ok(step)
    }

    /// A request that was seen before: its arguments are gathered here until it is whole, because moving
    /// them from and to the caller with each piece would take quadratic time.
    #[cold]
    fn resume(&mut self, buf: &[u8], at: usize, limits: &Limits, spans: &mut Vec<Span>) -> Result<Step, ProtocolError> {
        if self.state == State::Inline {
            return self.inline(buf, at, spans);
        }
        let mut args = std::mem::take(&mut self.args);
        let step = self.multibulk(buf.get(at..).unwrap_or_default(), 0, limits, &mut args);
        match step {
            Ok(Step::Request { consumed, .. }) => {
                let count = args.len();
                spans.extend(args.drain(..).map(|span| Span { start: span.start + at, len: span.len }));
                args.shrink_to(KEPT_ARGUMENTS);
                self.args = args;
                Ok(Step::Request { args: count, consumed })
            }
            other => {
                self.args = args;
                other
            }
        }
    }

    /// Goes on with the request that starts at `request[0]`; spans are pushed with `base` added.
    #[inline]
    fn multibulk(
        &mut self,
        request: &[u8],
        base: usize,
        limits: &Limits,
        out: &mut Vec<Span>,
    ) -> Result<Step, ProtocolError> {
        let begin = out.len();
        let mut pos = self.pos;
        if self.state == State::Count {
            let Some((count, after)) = number(request, pos, self.searched) else {
                // The limit counts the `*` too.
                if request.len() > LINE_BYTES_MAX {
                    return Err(ProtocolError::TooBigMultibulkCount);
                }
                self.searched = request.len();
                return Ok(Step::Incomplete);
            };
            let count = count.filter(|count| *count <= ARGUMENTS_MAX).ok_or(ProtocolError::InvalidMultibulkLength)?;
            if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedMultibulkLength);
            }
            if count <= 0 {
                self.state = State::Start;
                return Ok(Step::Request { args: 0, consumed: after });
            }
            self.left = count as usize;
            pos = after;
            self.searched = after;
            self.state = State::Length;
        }
        let mut bulk = match self.state {
            State::Bulk(len) => Some(len),
            _ => None,
        };
        let mut left = self.left;
        loop {
            let len = match bulk.take() {
                Some(len) => len,
                None => {
                    let Some((len, after)) = number(request, pos + 1, self.searched.max(pos + 1)) else {
                        if request.get(pos) == Some(&b'\r') && request.len() > pos + 1 {
                            return Err(ProtocolError::ExpectedDollar(b'\r'));
                        }
                        if request.len().saturating_sub(pos) > LINE_BYTES_MAX {
                            return Err(ProtocolError::TooBigBulkCount);
                        }
                        (self.state, self.pos, self.left) = (State::Length, pos, left);
                        self.searched = request.len();
                        return Ok(Step::Incomplete);
                    };
                    if request[pos] != b'$' {
                        return Err(ProtocolError::ExpectedDollar(request[pos]));
                    }
                    let len = len.filter(|len| *len >= 0).ok_or(ProtocolError::InvalidBulkLength)?;
                    if len as u64 > limits.max_bulk as u64 {
                        return Err(ProtocolError::InvalidBulkLength);
                    }
                    if len > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedBulkLength);
                    }
                    pos = after;
                    len as usize
                }
            };
            if request.len().saturating_sub(pos) < len.saturating_add(2) {
                (self.state, self.pos, self.left) = (State::Bulk(len), pos, left);
                return Ok(Step::Incomplete);
            }
            out.push(Span { start: base + pos, len });
            pos += len + 2;
            left -= 1;
            if left == 0 {
                self.state = State::Start;
                return Ok(Step::Request { args: out.len() - begin, consumed: pos });
            }
        }
    }

    /// Goes on with the inline command that starts at `buf[at]`.
    #[cold]
    fn inline(&mut self, buf: &[u8], at: usize, spans: &mut Vec<Span>) -> Result<Step, ProtocolError> {
        let request = buf.get(at..).unwrap_or_default();
        let from = if self.state == State::Inline { self.searched.min(request.len()) } else { 0 };
        let Some(newline) = memchr::memchr(b'\n', &request[from..]).map(|i| from + i) else {
            if request.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::TooBigInline);
            }
            self.state = State::Inline;
            self.searched = request.len();
            return Ok(Step::Incomplete);
        };
        self.state = State::Start;
        let line = &request[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let consumed = newline + 1;
        if memchr::memchr2(b'"', b'\'', line).is_some() {
            return Ok(Step::Inline { words: quoted_words(line)?, consumed });
        }
        let begin = spans.len();
        let mut i = 0;
        while i < line.len() {
            if is_blank(line[i]) {
                i += 1;
                continue;
            }
            let len = line[i..].iter().position(|&b| ends_word(b)).unwrap_or(line.len() - i);
            spans.push(Span { start: at + i, len });
            i += len;
        }
        Ok(Step::Request { args: spans.len() - begin, consumed })
    }
}

/// What two digits can announce.
const SMALL_BULK_MAX: usize = 99;

/// A request as most are: whole, of one to nine arguments of at most [`SMALL_BULK_MAX`] bytes, within the limits
/// of clients that have not logged in, too. Pushes its arguments with `base` added, and returns how many
/// there are and how long it is; `None`, and nothing pushed, where it is of any other form.
#[inline]
fn small(request: &[u8], base: usize, spans: &mut Vec<Span>) -> Option<(usize, usize)> {
    let [b'*', count @ b'1'..=b'9', b'\r', _, ..] = request else { return None };
    let args = usize::from(count - b'0');
    let begin = spans.len();
    let mut pos = 4;
    for _ in 0..args {
        let (len, after) = match request.get(pos..pos + 5) {
            Some(&[b'$', one @ b'0'..=b'9', b'\r', _, _]) => (usize::from(one - b'0'), pos + 4),
            Some(&[b'$', ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', _]) => {
                (usize::from(ten - b'0') * 10 + usize::from(one - b'0'), pos + 5)
            }
            _ => {
                spans.truncate(begin);
                return None;
            }
        };
        spans.push(Span { start: base + after, len });
        pos = after + len + 2;
    }
    if pos > request.len() {
        spans.truncate(begin);
        return None;
    }
    Some((args, pos))
}

/// Reads the number that begins at `bytes[from]` and ends before a `\r`, with the position after that and the byte
/// that follows it. `None` while these two have not arrived. The inner option is `None` if it is no
/// number as Redis takes it. No `\r` stands before `searched`.
#[inline]
fn number(bytes: &[u8], from: usize, searched: usize) -> Option<(Option<i64>, usize)> {
    // Nearly every header is one to four digits. What is not goes the general way.
    let rest = bytes.get(from..)?;
    let mut value = 0i64;
    for (i, &byte) in rest.iter().enumerate().take(5) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            if byte == b'\r' && i > 0 && (i == 1 || rest[0] != b'0') {
                return if rest.len() > i + 1 { Some((Some(value), from + i + 2)) } else { None };
            }
            break;
        }
        value = value * 10 + i64::from(digit);
    }
    number_of_any_form(bytes, from, searched)
}

/// [`number`] without a guess at its form.
#[cold]
fn number_of_any_form(bytes: &[u8], from: usize, searched: usize) -> Option<(Option<i64>, usize)> {
    // One byte back: the `\r` may have come last, without the byte that follows.
    let searched = searched.saturating_sub(1).clamp(from, bytes.len());
    let end = searched + memchr::memchr(b'\r', &bytes[searched..])?;
    if end + 1 >= bytes.len() {
        return None;
    }
    Some((parse_i64(&bytes[from..end]), end + 2))
}

/// What may stand between words; C's `isspace`, and NUL, which ends a word.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

/// What ends a word that is not quoted: vertical tab and form feed do not.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0)
}

/// Splits a line into words as a shell would: `"..."` with escapes, `'...'` with `\'` only. A word may
/// begin before its quote, but ends with it.
fn quoted_words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut words = Vec::new();
    let mut i = 0;
    loop {
        while i < line.len() && is_blank(line[i]) {
            i += 1;
        }
        if i == line.len() {
            return Ok(words);
        }
        let mut word = Vec::new();
        while i < line.len() && !ends_word(line[i]) {
            let byte = line[i];
            i += 1;
            if byte != b'"' && byte != b'\'' {
                word.push(byte);
                continue;
            }
            i = if byte == b'"' { double_quoted(line, i, &mut word) } else { single_quoted(line, i, &mut word) }
                .ok_or(ProtocolError::UnbalancedQuotes)?;
            if line.get(i).is_some_and(|&next| !is_blank(next)) {
                return Err(ProtocolError::UnbalancedQuotes);
            }
            break;
        }
        words.push(word);
    }
}

/// Reads up to the closing `"`, from behind the opening one; where it goes on behind that.
fn double_quoted(line: &[u8], mut i: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match *line.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => {
                let escaped = *line.get(i + 1)?;
                let hex = |at: usize| line.get(at).and_then(|&b| char::from(b).to_digit(16));
                if let (b'x', Some(high), Some(low)) = (escaped, hex(i + 2), hex(i + 3)) {
                    word.push((high * 16 + low) as u8);
                    i += 4;
                    continue;
                }
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                i += 2;
            }
            byte => {
                word.push(byte);
                i += 1;
            }
        }
    }
}

/// Reads up to the closing `'`, from behind the opening one; where it goes on behind that.
fn single_quoted(line: &[u8], mut i: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match *line.get(i)? {
            b'\'' => return Some(i + 1),
            b'\\' if line.get(i + 1) == Some(&b'\'') => {
                word.push(b'\'');
                i += 2;
            }
            byte => {
                word.push(byte);
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOGGED_IN: Limits = Limits { max_bulk: 512 * 1024 * 1024, authenticated: true };
    const LOGGED_OUT: Limits = Limits { authenticated: false, ..LOGGED_IN };

    type Words = Vec<Vec<u8>>;

    /// Feeds pieces as a connection does: what is consumed is cut off in front before the next piece comes.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> (Vec<Words>, Option<ProtocolError>) {
        let (mut parser, mut buf, mut spans, mut requests) = (Parser::new(), Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            let mut at = 0;
            loop {
                spans.clear();
                match parser.next(&buf, at, limits, &mut spans) {
                    Ok(Step::Request { args, consumed }) => {
                        assert_eq!(args, spans.len());
                        assert!(consumed > 0 && !parser.is_mid_request());
                        requests.push(spans.iter().map(|span| span.of(&buf).to_vec()).collect());
                        at += consumed;
                    }
                    Ok(Step::Inline { words, consumed }) => {
                        assert!(spans.is_empty());
                        requests.push(words);
                        at += consumed;
                    }
                    Ok(Step::Incomplete) => {
                        assert!(spans.is_empty());
                        assert_eq!(parser.is_mid_request(), at < buf.len());
                        break;
                    }
                    Err(error) => return (requests, Some(error)),
                }
            }
            buf.drain(..at);
        }
        (requests, None)
    }

    fn one(bytes: &[u8]) -> Result<Vec<Words>, ProtocolError> {
        let (requests, error) = feed([bytes], &LOGGED_IN);
        error.map_or(Ok(requests), Err)
    }

    fn words(words: &[&str]) -> Words {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn encode(args: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn requests_in_a_row_are_cut_apart() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\n*1\r\n$0\r\n\r\nPING\r\n*-1\r\n\r\n*1\r\n$4\r\nQ";
        let expected = vec![words(&["GET", "a"]), words(&[]), words(&[""]), words(&["PING"]), words(&[]), words(&[])];
        assert_eq!(one(bytes), Ok(expected));
    }

    #[test]
    fn the_byte_after_a_carriage_return_is_skipped_unread() {
        assert_eq!(one(b"*1\rX$4\rXPINGXX*1\r\n"), Ok(vec![words(&["PING"])]));
    }

    #[test]
    fn bad_requests_get_the_texts_of_redis() {
        let digits = "1".repeat(70_000);
        for (bytes, text) in [
            ("*2147483648\r\n", "invalid multibulk length"),
            ("*+1\r\n", "invalid multibulk length"),
            ("* 1\r\n", "invalid multibulk length"),
            ("*01\r\n", "invalid multibulk length"),
            ("*\r\n", "invalid multibulk length"),
            ("*1\n$4\r\nPING\r\n", "invalid multibulk length"),
            ("*-9223372036854775809\r\n", "invalid multibulk length"),
            ("*1\r\n:4\r\n", "expected '$', got ':'"),
            ("*1\r\n\r\n", "expected '$', got '\r'"),
            ("*1\r\n*1\r\n", "expected '$', got '*'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$\r\n", "invalid bulk length"),
            ("*1\r\n$04\r\n", "invalid bulk length"),
            ("*1\r\n$536870913\r\n", "invalid bulk length"),
            ("*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
            (&format!("*{digits}"), "too big mbulk count string"),
            (&format!("*{digits}\r\n"), "invalid multibulk length"),
            (&format!("*1\r\n${digits}"), "too big bulk count string"),
            (&format!("*1\r\n{digits}"), "too big bulk count string"),
            (&digits, "too big inline request"),
            ("ECHO \"a\"b\r\n", "unbalanced quotes in request"),
            ("ECHO 'a'b\r\n", "unbalanced quotes in request"),
            ("ECHO a\"b\r\n", "unbalanced quotes in request"),
            ("ECHO \"a\\\"\r\n", "unbalanced quotes in request"),
        ] {
            let error = one(bytes.as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), format!("Protocol error: {text}"), "{:.40}", bytes);
        }
    }

    #[test]
    fn lines_may_be_as_long_as_in_redis() {
        for line in
            ["*".to_string() + &"1".repeat(65_535), "*1\r\n$".to_string() + &"1".repeat(65_535), "a".repeat(65_536)]
        {
            assert_eq!(one(line.as_bytes()), Ok(vec![]));
            assert!(one((line + "1").as_bytes()).is_err());
        }
        assert_eq!(one(("a".repeat(70_000) + "\n").as_bytes()).map(|requests| requests.len()), Ok(1));
    }

    #[test]
    fn before_login_little_is_taken() {
        for (bytes, text) in [
            ("*11\r\n", "Protocol error: unauthenticated multibulk length"),
            ("*2\r\n$16385\r\n", "Protocol error: unauthenticated bulk length"),
        ] {
            let (_, error) = feed([bytes.as_bytes()], &LOGGED_OUT);
            assert_eq!(error.expect(text).to_string(), text);
        }
        assert_eq!(feed([b"*10\r\n$16384\r\n".as_slice()], &LOGGED_OUT), (vec![], None));
    }

    #[test]
    fn inline_commands_are_split_like_shell_words() {
        for (line, expected) in [
            ("PING\n", vec!["PING"]),
            ("  SET\ta  b \r\n", vec!["SET", "a", "b"]),
            ("\r\r\n", vec![]),
            ("  *1 \r\n", vec!["*1"]),
            ("ECHO a\\nb\r\n", vec!["ECHO", "a\\nb"]),
            ("\x0bECHO a\x0b\r\n", vec!["ECHO", "a\x0b"]),
            ("ECHO a\rb\r\n", vec!["ECHO", "a", "b"]),
            ("ECHO \"a\\x41\\n\\q\"\r\n", vec!["ECHO", "aA\nq"]),
            ("ECHO 'a\\'b\\n'\r\n", vec!["ECHO", "a'b\\n"]),
            ("ECHO a\"b c\"\r\n", vec!["ECHO", "ab c"]),
            ("ECHO '' \"\"\r\n", vec!["ECHO", "", ""]),
            ("ECHO \"a\"\x0b\r\n", vec!["ECHO", "a"]),
            ("ECHO \"a\\x4G\"\r\n", vec!["ECHO", "ax4G"]),
            ("ECHO \"a\rb\"\r\n", vec!["ECHO", "a\rb"]),
        ] {
            assert_eq!(one(line.as_bytes()), Ok(vec![words(&expected)]), "{line:?}");
        }
    }

    #[test]
    fn what_is_only_announced_reserves_nothing() {
        let (mut parser, mut spans) = (Parser::new(), Vec::new());
        let bytes = b"*1000000\r\n$536870912\r\nabc";
        assert_eq!(parser.next(bytes, 0, &LOGGED_IN, &mut spans), Ok(Step::Incomplete));
        assert!(spans.capacity() + parser.args.capacity() < 100);
        assert_eq!(parser.missing(bytes.len()), 536_870_912 + 2 - 3);
    }

    #[test]
    fn only_a_large_argument_is_told_to_be_missing() {
        let (mut parser, mut spans) = (Parser::new(), Vec::new());
        let buf = b"..*2\r\n$1\r\na\r\n$32768\r\n";
        assert_eq!(parser.next(buf, 2, &LOGGED_IN, &mut spans), Ok(Step::Incomplete));
        assert_eq!(parser.missing(buf.len() - 2), 32_770);
        assert_eq!(parser.missing(usize::MAX), 0);
        let mut parser = Parser::new();
        assert_eq!(parser.next(b"*1\r\n$32767\r\n", 0, &LOGGED_IN, &mut spans), Ok(Step::Incomplete));
        assert_eq!(parser.missing(13), 0);
    }

    #[test]
    fn a_replication_link_may_announce_anything_without_overflow() {
        let limits = Limits { max_bulk: usize::MAX, authenticated: true };
        let (mut parser, mut spans) = (Parser::new(), Vec::new());
        let bytes = b"*1\r\n$9223372036854775807\r\nabc";
        assert_eq!(parser.next(bytes, 0, &limits, &mut spans), Ok(Step::Incomplete));
        assert_eq!(parser.missing(bytes.len()), i64::MAX as usize + 2 - 3);
    }

    fn request() -> impl Strategy<Value = (Vec<u8>, Words)> {
        let arg =
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), proptest::collection::vec(Just(b'\r'), 0..20)];
        let multibulk = proptest::collection::vec(arg, 0..12).prop_map(|args| (encode(&args), args));
        let inline = proptest::collection::vec("[a-z]{1,8}", 0..5).prop_map(|args| {
            ((args.join(" ") + "\n").into_bytes(), args.into_iter().map(String::into_bytes).collect())
        });
        let quoted = proptest::collection::vec("[a-z ']{0,8}", 1..5).prop_map(|args| {
            let line = args.iter().map(|arg| format!("\"{arg}\"")).collect::<Vec<_>>().join(" ") + "\r\n";
            (line.into_bytes(), args.into_iter().map(String::into_bytes).collect())
        });
        prop_oneof![4 => multibulk, 1 => inline, 1 => quoted]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_requests(
            requests in proptest::collection::vec(request(), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
        ) {
            let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let expected: Vec<Words> = requests.into_iter().map(|(_, words)| words).collect();
            prop_assert_eq!(one(&bytes), Ok(expected.clone()));
            prop_assert_eq!(feed(bytes.chunks(1), &LOGGED_IN), (expected.clone(), None));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
            prop_assert_eq!(feed(pieces, &LOGGED_IN), (expected, None));
        }

        #[test]
        fn bad_bytes_give_the_same_in_one_piece_and_in_many(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[*$\r\n0-3'\" a-]{0,60}".prop_map(String::into_bytes),
                "(\\*[0-3]\r\n(\\$[0-3]\r\n.{0,3}\r\n){0,3}){0,3}".prop_map(String::into_bytes),
            ],
            size in 1usize..7,
        ) {
            prop_assert_eq!(feed([bytes.as_slice()], &LOGGED_IN), feed(bytes.chunks(size), &LOGGED_IN));
            feed([bytes.as_slice()], &LOGGED_OUT);
        }
    }
}
