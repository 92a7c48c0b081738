//! Replies: what is still to be sent to a client, in RESP2 or RESP3.
//!
//! One buffer takes what is written; large values that are shared with the keyspace stand between its
//! bytes by reference. A reply is written front to back, except for the length of an aggregate, which
//! may be told last ([`Output::defer`]).
//! Positions are counted from the connection's first byte on, so that a [`Mark`] survives that bytes before
//! it are sent meanwhile.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::stdx::number::append_i64;
use crate::stdx::number::double::append_double;

/// From this length on a shared value is sent by reference, in bytes: below, copying is cheaper.
pub const SHARED_BULK: usize = 16 * 1024;
/// The capacity that an idle buffer may keep, in bytes.
pub const IDLE_CAPACITY: usize = 64 * 1024;

/// Which version of the protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Strings, integers, arrays, errors.
    #[default]
    Resp2,
    /// Maps, sets, doubles, pushes and more.
    Resp3,
}

/// A position in the output; see [`Output::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// Where the header of an aggregate belongs whose length is not known yet; see [`Output::defer`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Deferred(u64);

/// What is still to be sent to one client.
#[derive(Debug, Default)]
pub struct Output {
    protocol: Protocol,
    /// Own bytes; the first `sent` of them are gone already.
    buf: Vec<u8>,
    sent: usize,
    /// How many own bytes were dropped from the front of `buf` so far.
    dropped: u64,
    /// Shared values, each to be sent before the own byte at its position.
    shared: VecDeque<Shared>,
    /// How much of the first shared value is gone already.
    shared_sent: usize,
    /// The bytes of all shared values.
    shared_bytes: usize,
}

#[derive(Debug)]
struct Shared {
    at: u64,
    value: Piece,
}

/// Bytes that somebody else has too.
#[derive(Debug)]
enum Piece {
    /// A value of the keyspace.
    Value(Arc<Vec<u8>>),
    /// A message that others get as well.
    Message(Bytes),
}

impl std::ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Value(value) => value,
            Piece::Message(message) => message,
        }
    }
}

/// Writing replies.
impl Output {
    /// Nothing to send yet.
    pub fn new(protocol: Protocol) -> Output {
        Output { protocol, ..Output::default() }
    }

    /// The protocol that replies are written in.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Writes what follows in another protocol.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// `+QUEUED`.
    #[inline]
    pub fn queued(&mut self) {
        self.raw(b"+QUEUED\r\n");
    }

    /// A status; `text` must not contain line ends.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a status is one line");
        self.buf.reserve(text.len() + 3);
        self.buf.push(b'+');
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An error; `text` begins with its code (`ERR ...`), and line ends in it become blanks.
    #[cold]
    pub fn error(&mut self, text: impl fmt::Display) {
        self.buf.push(b'-');
        let begin = self.buf.len();
        // Writing to a Vec cannot fail; a Display that claims so leaves what it wrote.
        let _ = write!(Text(&mut self.buf), "{text}");
        self.end_error(begin);
    }

    /// [`Output::error`] with text that may not be UTF-8.
    #[cold]
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.buf.push(b'-');
        let begin = self.buf.len();
        self.buf.extend_from_slice(text);
        self.end_error(begin);
    }

    fn end_error(&mut self, begin: usize) {
        for byte in &mut self.buf[begin..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A string of bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.buf.reserve(bytes.len() + 32);
        // Most are short, and their lengths need no general way of writing numbers.
        match bytes.len() as u64 {
            len @ 0..10 => {
                let mut whole = *b"$0\r\n\0\0\0\0\0\0\0\0\0\0\0";
                whole[1] += len as u8;
                let end = 4 + bytes.len();
                whole[4..end].copy_from_slice(bytes);
                whole[end..end + 2].copy_from_slice(b"\r\n");
                return self.buf.extend_from_slice(&whole[..end + 2]);
            }
            len @ 10..100 => {
                self.buf.extend_from_slice(&[b'$', b'0' + (len / 10) as u8, b'0' + (len % 10) as u8, b'\r', b'\n']);
            }
            len => self.header(b'$', len as i64),
        }
        self.buf.extend_from_slice(bytes);
        self.buf.extend_from_slice(b"\r\n");
    }

    /// An integer as a string.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        let mut digits = itoa::Buffer::new();
        self.bulk(digits.format(value).as_bytes());
    }

    /// A string of bytes that is shared: sent by reference from [`SHARED_BULK`] bytes on, else copied.
    pub fn bulk_shared(&mut self, value: Arc<Vec<u8>>) {
        if value.len() < SHARED_BULK {
            return self.bulk(&value);
        }
        self.header(b'$', value.len() as i64);
        let at = self.end();
        self.shared_bytes += value.len();
        self.shared.push_back(Shared { at, value: Piece::Value(value) });
        self.buf.extend_from_slice(b"\r\n");
    }

    /// Bytes that are encoded already and are sent by reference, however few they are: parts of a reply that is too
    /// large to be copied at once.
    pub fn raw_shared(&mut self, encoded: Arc<Vec<u8>>) {
        let at = self.end();
        self.shared_bytes += encoded.len();
        self.shared.push_back(Shared { at, value: Piece::Value(encoded) });
    }

    /// A message that is encoded already and goes to others too: sent by reference.
    pub fn raw_bytes(&mut self, message: Bytes) {
        let at = self.end();
        self.shared_bytes += message.len();
        self.shared.push_back(Shared { at, value: Piece::Message(message) });
    }

    /// No value: the null string of RESP2, the null of RESP3.
    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// No array: the null array of RESP2, the null of RESP3.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The head of an array of `n` replies, which follow.
    #[inline]
    pub fn array(&mut self, n: usize) {
        self.header(b'*', n as i64);
    }

    /// The head of a map of `n` pairs; their keys and values follow in turn. In RESP2 an array of both.
    pub fn map(&mut self, n: usize) {
        self.pairs(b'%', n);
    }

    /// The head of a set of `n` replies. In RESP2 an array.
    pub fn set(&mut self, n: usize) {
        self.elements(b'~', n);
    }

    /// The head of a message of `n` replies that answers no request. In RESP2 an array.
    pub fn push(&mut self, n: usize) {
        self.elements(b'>', n);
    }

    /// The head of `n` pairs that describe the reply behind them. RESP2 has no such thing: there the caller
    /// must leave out the pairs too, and nothing is written.
    pub fn attribute(&mut self, n: usize) {
        debug_assert!(self.protocol == Protocol::Resp3, "attributes are for RESP3 only");
        if self.protocol == Protocol::Resp3 {
            self.header(b'|', n as i64);
        }
    }

    /// A double; in RESP2 its text as a string.
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => {
                let mut text = Vec::with_capacity(24);
                append_double(&mut text, value);
                self.bulk(&text);
            }
            Protocol::Resp3 => {
                self.buf.push(b',');
                append_double(&mut self.buf, value);
                self.buf.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A number that is already text, where RESP3 has a double and RESP2 a string: INCRBYFLOAT-like results
    /// and distances with a fixed number of digits.
    pub fn double_text(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(b',', text),
        }
    }

    /// True or false; in RESP2 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        self.raw(match (self.protocol, value) {
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
        });
    }

    /// An integer of any size as decimal digits; in RESP2 a string.
    pub fn bignum(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Text with a format of three letters (`txt`, `mkd`), which is cut or filled up with blanks to three. In RESP2 a string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if self.protocol == Protocol::Resp2 {
            return self.bulk(text);
        }
        let mut padded = *b"   ";
        for (to, from) in padded.iter_mut().zip(format.bytes()) {
            *to = from;
        }
        self.header(b'=', text.len() as i64 + 4);
        self.buf.extend_from_slice(&padded);
        self.buf.push(b':');
        self.buf.extend_from_slice(text);
        self.buf.extend_from_slice(b"\r\n");
    }

    /// Bytes that are encoded already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Begins an aggregate whose length is told behind its elements, to one of the `finish_` methods. It costs a move
    /// of the elements' bytes; where the length is known, say it at once.
    pub fn defer(&mut self) -> Deferred {
        Deferred(self.end())
    }

    /// Ends an array of `n` replies that began at `deferred`.
    pub fn finish_array(&mut self, deferred: Deferred, n: usize) {
        self.finish(deferred, |head| head.array(n));
    }

    /// Ends a map of `n` pairs that began at `deferred`.
    pub fn finish_map(&mut self, deferred: Deferred, n: usize) {
        self.finish(deferred, |head| head.map(n));
    }

    /// Ends a set of `n` replies that began at `deferred`.
    pub fn finish_set(&mut self, deferred: Deferred, n: usize) {
        self.finish(deferred, |head| head.set(n));
    }

    /// Ends a push of `n` replies that began at `deferred`.
    pub fn finish_push(&mut self, deferred: Deferred, n: usize) {
        self.finish(deferred, |head| head.push(n));
    }

    fn finish(&mut self, deferred: Deferred, write: impl FnOnce(&mut Output)) {
        let mut head = Output::new(self.protocol);
        write(&mut head);
        let Some(at) = deferred.0.checked_sub(self.dropped).map(|at| at as usize) else {
            panic!("the elements of a deferred aggregate were sent before its head");
        };
        let grown = head.buf.len();
        let end = self.buf.len();
        self.buf.resize(end + grown, 0);
        self.buf.copy_within(at..end, at + grown);
        self.buf[at..at + grown].copy_from_slice(&head.buf);
        for shared in self.shared.iter_mut().rev().take_while(|shared| shared.at > deferred.0) {
            shared.at += grown as u64;
        }
    }

    #[inline]
    fn header(&mut self, kind: u8, n: i64) {
        self.buf.reserve(24);
        self.buf.push(kind);
        append_i64(&mut self.buf, n);
        self.buf.extend_from_slice(b"\r\n");
    }

    fn pairs(&mut self, kind: u8, n: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', 2 * n as i64),
            Protocol::Resp3 => self.header(kind, n as i64),
        }
    }

    fn elements(&mut self, kind: u8, n: usize) {
        self.header(if self.protocol == Protocol::Resp2 { b'*' } else { kind }, n as i64);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.buf.push(kind);
        self.buf.extend_from_slice(text);
        self.buf.extend_from_slice(b"\r\n");
    }
}

/// Where the output stands, and taking it away.
impl Output {
    /// How many bytes are still to be sent, those of shared values included.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len() - self.sent + self.shared_bytes - self.shared_sent
    }

    /// Whether nothing is to be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that the output holds, shared values not included, in bytes.
    pub fn capacity(&self) -> usize {
        self.buf.capacity() + self.shared.capacity() * size_of::<Shared>()
    }

    /// The present end, for [`Output::truncate`].
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark(self.end())
    }

    /// Takes back what was written since `mark`, as far as it is not sent yet.
    pub fn truncate(&mut self, mark: Mark) {
        let keep = (mark.0.saturating_sub(self.dropped) as usize).max(self.sent);
        // A shared value's head is written before it, so it stands strictly behind a mark that it must follow.
        while let Some(last) = self.shared.back() {
            if last.at <= mark.0 || (self.shared.len() == 1 && self.shared_sent > 0) {
                break;
            }
            self.shared_bytes -= last.value.len();
            self.shared.pop_back();
        }
        self.buf.truncate(keep);
    }

    /// Everything still to be sent, in one piece: for clients in process and for tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        let mut pieces = Pieces::of(self);
        while let Some(piece) = pieces.next() {
            all.extend_from_slice(piece);
        }
        all
    }

    /// Everything that was written, of which nothing was sent yet.
    pub fn into_vec(self) -> Vec<u8> {
        if self.shared.is_empty() && self.sent == 0 { self.buf } else { self.to_vec() }
    }

    /// Lends a buffer to an output that has nothing to send, so that replies need no allocation.
    pub fn lend(&mut self, buf: Vec<u8>) {
        if self.is_empty() && self.buf.capacity() < buf.capacity() {
            self.buf = buf;
            self.buf.clear();
            self.sent = 0;
        }
    }

    /// Takes the buffer back, unless something is still to be sent.
    pub fn take_back(&mut self) -> Option<Vec<u8>> {
        self.is_empty().then(|| std::mem::take(&mut self.buf))
    }

    /// All that is to be sent, where that is one piece.
    #[inline]
    pub fn only_piece(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.buf[self.sent..])
    }

    /// Puts the next bytes to be sent into `into`, `limit` bytes at most; how many slices were set.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>], limit: usize) -> usize {
        let mut pieces = Pieces::of(self);
        let (mut count, mut left) = (0, limit);
        while count < into.len() && left > 0 {
            let Some(piece) = pieces.next() else { break };
            let piece = &piece[..piece.len().min(left)];
            left -= piece.len();
            into[count] = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Forgets the next `n` bytes, which were sent. Panics if there are not so many.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "more was sent than there was");
        if n == self.len() && self.shared.is_empty() && self.buf.capacity() <= IDLE_CAPACITY {
            self.dropped += self.buf.len() as u64;
            self.sent = 0;
            self.buf.clear();
        } else {
            self.advance_over(n);
        }
    }

    fn advance_over(&mut self, mut n: usize) {
        while n > 0 {
            let own_end = match self.shared.front() {
                Some(shared) => (shared.at - self.dropped) as usize,
                None => self.buf.len(),
            };
            let own = own_end - self.sent;
            if n < own || self.shared.is_empty() {
                self.sent += n;
                break;
            }
            self.sent = own_end;
            n -= own;
            let left = self.shared.front().map_or(0, |shared| shared.value.len()) - self.shared_sent;
            if n < left {
                self.shared_sent += n;
                break;
            }
            n -= left;
            self.shared_bytes -= left + self.shared_sent;
            self.shared_sent = 0;
            self.shared.pop_front();
        }
        if self.sent == self.buf.len() && self.shared.is_empty() {
            self.dropped += self.sent as u64;
            self.sent = 0;
            self.buf.clear();
            if self.buf.capacity() > IDLE_CAPACITY {
                self.buf = Vec::new();
                self.shared = VecDeque::new();
            }
        } else if self.sent > IDLE_CAPACITY && self.sent >= self.buf.len() / 2 {
            // A client that always lags a little would otherwise keep everything it ever got. Each byte is moved
            // once at most for each byte that was sent.
            self.buf.drain(..self.sent);
            self.dropped += self.sent as u64;
            self.sent = 0;
        }
    }

    #[inline]
    fn end(&self) -> u64 {
        self.dropped + self.buf.len() as u64
    }
}

/// The pieces of an output that are still to be sent, in order.
struct Pieces<'a> {
    output: &'a Output,
    own: usize,
    shared: usize,
}

impl<'a> Pieces<'a> {
    fn of(output: &'a Output) -> Pieces<'a> {
        Pieces { output, own: output.sent, shared: 0 }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let next = self.output.shared.get(self.shared);
        let own_end = next.map_or(self.output.buf.len(), |shared| (shared.at - self.output.dropped) as usize);
        if self.own < own_end {
            let piece = &self.output.buf[self.own..own_end];
            self.own = own_end;
            return Some(piece);
        }
        let skip = if self.shared == 0 { self.output.shared_sent } else { 0 };
        self.shared += 1;
        next.map(|shared| &shared.value[skip..])
    }
}

/// Lets `write!` append to bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::value::Value;
    use proptest::prelude::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Output)) -> String {
        let mut output = Output::new(protocol);
        write(&mut output);
        assert_eq!(output.len(), output.to_vec().len());
        String::from_utf8(output.to_vec()).unwrap()
    }

    type Row = (fn(&mut Output), &'static str, &'static str);

    #[test]
    fn replies_have_both_forms() {
        let rows: [Row; 21] = [
            (|o| o.ok(), "+OK\r\n", "+OK\r\n"),
            (|o| o.queued(), "+QUEUED\r\n", "+QUEUED\r\n"),
            (|o| o.simple("string"), "+string\r\n", "+string\r\n"),
            (|o| o.error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (|o| o.error_bytes(b"ERR \n"), "-ERR  \r\n", "-ERR  \r\n"),
            (|o| o.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (|o| o.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (|o| o.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"),
            (|o| o.bulk_integer(-12), "$3\r\n-12\r\n", "$3\r\n-12\r\n"),
            (|o| o.null(), "$-1\r\n", "_\r\n"),
            (|o| o.null_array(), "*-1\r\n", "_\r\n"),
            (|o| o.array(2), "*2\r\n", "*2\r\n"),
            (|o| o.map(2), "*4\r\n", "%2\r\n"),
            (|o| o.set(2), "*2\r\n", "~2\r\n"),
            (|o| o.push(2), "*2\r\n", ">2\r\n"),
            (|o| o.double(3.125), "$5\r\n3.125\r\n", ",3.125\r\n"),
            (|o| o.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (|o| o.boolean(true), ":1\r\n", "#t\r\n"),
            (|o| o.boolean(false), ":0\r\n", "#f\r\n"),
            (
                |o| o.bignum("1234567999999999999999999999999999999"),
                "$37\r\n1234567999999999999999999999999999999\r\n",
                "(1234567999999999999999999999999999999\r\n",
            ),
            (|o| o.verbatim("tx", b"some"), "$4\r\nsome\r\n", "=8\r\ntx :some\r\n"),
        ];
        for (write, resp2, resp3) in rows {
            assert_eq!(written(Protocol::Resp2, write), resp2);
            assert_eq!(written(Protocol::Resp3, write), resp3);
        }
        assert_eq!(written(Protocol::Resp3, |o| o.attribute(1)), "|1\r\n");
    }

    #[test]
    fn lengths_can_be_told_last_and_nested() {
        let text = written(Protocol::Resp3, |o| {
            o.integer(0);
            let outer = o.defer();
            o.integer(1);
            let inner = o.defer();
            o.bulk_shared(Arc::new(vec![b'x'; SHARED_BULK]));
            o.finish_set(inner, 1);
            let empty = o.defer();
            o.finish_map(empty, 0);
            o.finish_array(outer, 3);
            o.integer(2);
        });
        let x = "x".repeat(SHARED_BULK);
        assert_eq!(text, format!(":0\r\n*3\r\n:1\r\n~1\r\n$16384\r\n{x}\r\n%0\r\n:2\r\n"));
    }

    #[test]
    fn a_large_shared_value_is_not_copied_and_a_small_one_is() {
        let mut output = Output::new(Protocol::Resp2);
        let small = Arc::new(vec![b's'; SHARED_BULK - 1]);
        output.bulk_shared(Arc::clone(&small));
        assert_eq!(Arc::strong_count(&small), 1);
        let large = Arc::new(vec![b'l'; SHARED_BULK]);
        output.bulk_shared(Arc::clone(&large));
        assert_eq!(Arc::strong_count(&large), 2);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(output.slices(&mut slices, usize::MAX), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        output.advance(output.len());
        assert_eq!(Arc::strong_count(&large), 1);
    }

    #[test]
    fn taking_back_frees_shared_values_too() {
        let mut output = Output::new(Protocol::Resp2);
        let large = Arc::new(vec![b'l'; SHARED_BULK]);
        output.bulk_shared(Arc::clone(&large));
        let mark = output.mark();
        output.bulk_shared(Arc::clone(&large));
        output.integer(1);
        output.truncate(mark);
        assert_eq!(Arc::strong_count(&large), 2);
        assert_eq!(output.len(), SHARED_BULK + "$16384\r\n\r\n".len());
        output.advance(output.len());
        assert!(output.is_empty());
        // What was sent stays sent.
        output.truncate(mark);
        assert!(output.is_empty());
    }

    #[test]
    fn a_buffer_that_grew_large_is_given_back_when_idle() {
        let mut output = Output::new(Protocol::Resp2);
        output.bulk(&[0; 2 * IDLE_CAPACITY]);
        output.advance(output.len() - 1);
        assert!(output.capacity() >= IDLE_CAPACITY);
        output.advance(1);
        assert_eq!(output.capacity(), 0);
        output.bulk(&[0; 1000]);
        let before = output.capacity();
        output.advance(output.len());
        assert_eq!(output.capacity(), before);
    }

    #[test]
    fn a_client_that_always_lags_does_not_keep_what_it_got() {
        let mut output = Output::new(Protocol::Resp2);
        for _ in 0..1000 {
            output.bulk(&[0; 10_000]);
            output.advance(10_009.min(output.len() - 1));
        }
        assert!(output.capacity() < 8 * IDLE_CAPACITY, "{}", output.capacity());
    }

    proptest! {
        #[test]
        fn what_is_drained_in_any_portions_is_what_was_written(
            steps in proptest::collection::vec((0u8..4, 0usize..40_000, any::<u8>()), 1..60),
        ) {
            let mut output = Output::new(Protocol::Resp2);
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (kind, size, byte) in steps {
                let before = output.len();
                match kind {
                    0 => output.bulk(&vec![byte; size / 20]),
                    1 => output.bulk_shared(Arc::new(vec![byte; size])),
                    2 => {
                        let mark = output.mark();
                        let kept = output.to_vec();
                        output.bulk_shared(Arc::new(vec![byte; size]));
                        output.truncate(mark);
                        prop_assert_eq!(output.to_vec(), kept);
                    }
                    _ => {
                        let mut slices = [IoSlice::new(&[]); 3];
                        let count = output.slices(&mut slices, size);
                        let portion: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                        prop_assert!(portion.len() <= size);
                        got.extend_from_slice(&portion);
                        output.advance(portion.len());
                        continue;
                    }
                }
                expected.extend_from_slice(&output.to_vec()[before..]);
            }
            got.extend_from_slice(&output.to_vec());
            output.advance(output.len());
            prop_assert!(got == expected);
            prop_assert!(output.is_empty() && output.mark() == Mark(output.dropped));
        }

        #[test]
        fn what_is_written_reads_back(n in any::<i64>(), bytes in proptest::collection::vec(any::<u8>(), 0..50), double in any::<f64>()) {
            let mut output = Output::new(Protocol::Resp3);
            let array = output.defer();
            output.integer(n);
            output.bulk(&bytes);
            output.double(double);
            output.verbatim("txt", &bytes);
            output.null();
            output.finish_array(array, 5);
            let bytes_written = output.to_vec();
            let (value, len) = Value::decode(&bytes_written).unwrap().unwrap();
            prop_assert_eq!(len, bytes_written.len());
            let items = value.into_vec().unwrap();
            prop_assert_eq!(&items[0], &Value::Integer(n));
            prop_assert_eq!(&items[1], &Value::Bulk(bytes.clone()));
            prop_assert!(matches!(items[2], Value::Double(d) if d == double || d.is_nan() && double.is_nan()));
            prop_assert_eq!(&items[3], &Value::Verbatim { format: *b"txt", text: bytes });
            prop_assert_eq!(&items[4], &Value::Nil);
        }
    }
}
