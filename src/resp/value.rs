//! Replies read back: what a client in process, a replication link or a test makes of a server's bytes.
//!
//! What is decoded may come from anyone: nesting is limited, and memory follows the bytes that arrived,
//! never a length that was only announced.

use std::fmt;

use crate::stdx::number::{parse_f64, parse_i64};

/// How deep replies may be nested.
pub const DEPTH_MAX: usize = 128;
/// The longest string that is decoded, in bytes: the upper end of `proto-max-bulk-len` in practice.
pub const BULK_MAX: i64 = 4 << 30;
/// The longest line that is decoded, in bytes.
pub const LINE_MAX: usize = 64 * 1024;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value: RESP3's null, RESP2's null string or null array.
    Nil,
    /// A status such as `OK`.
    Simple(Vec<u8>),
    /// An error, with its code.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// Values in order.
    Array(Vec<Value>),
    /// Keys and values, in the order sent.
    Map(Vec<(Value, Value)>),
    /// Values whose order means nothing, in the order sent.
    Set(Vec<Value>),
    /// A double.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Decimal digits, perhaps with a sign.
    BigNumber(Vec<u8>),
    /// Text and its format of three letters.
    Verbatim {
        /// `txt`, `mkd` ...
        format: [u8; 3],
        /// The text itself.
        text: Vec<u8>,
    },
    /// A message that answers no request.
    Push(Vec<Value>),
    /// A reply with a description before it.
    Attribute {
        /// The description.
        pairs: Vec<(Value, Value)>,
        /// The reply that is described.
        reply: Box<Value>,
    },
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No type begins with this byte.
    UnknownType(u8),
    /// A line holds no number, or none of the size that is allowed.
    InvalidNumber,
    /// A boolean is neither `t` nor `f`, a verbatim string has no format, or a null is not empty.
    InvalidValue,
    /// A string is not followed by `\r\n`.
    MissingLineEnd,
    /// A line is longer than [`LINE_MAX`].
    LineTooLong,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::UnknownType(byte) => write!(f, "no reply begins with byte {byte:#04x}"),
            DecodeError::InvalidNumber => f.write_str("a reply holds an invalid number or length"),
            DecodeError::InvalidValue => f.write_str("a reply holds an invalid value"),
            DecodeError::MissingLineEnd => f.write_str("a string in a reply does not end with a line end"),
            DecodeError::LineTooLong => f.write_str("a line in a reply is too long"),
            DecodeError::TooDeep => f.write_str("a reply is nested too deep"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why decoding stopped before the end.
enum Stop {
    Incomplete,
    Bad(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Stop {
        Stop::Bad(error)
    }
}

impl Value {
    /// Decodes the reply at the start of `bytes`: it and its length, or `None` if it is not whole yet.
    ///
    /// Starts anew with each call, so a caller that reads in pieces had better wait for enough of them.
    ///
    /// # Errors
    /// If no continuation of `bytes` could make it a reply.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
        let mut decoder = Decoder { bytes, at: 0 };
        match decoder.value(0) {
            Ok(value) => Ok(Some((value, decoder.at))),
            Err(Stop::Incomplete) => Ok(None),
            Err(Stop::Bad(error)) => Err(error),
        }
    }

    /// Whether this is [`Value::Nil`].
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The bytes of anything that is text: strings, statuses, errors, big numbers.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text)
            | Value::Error(text)
            | Value::Bulk(text)
            | Value::BigNumber(text)
            | Value::Verbatim { text, .. } => Some(text),
            Value::Attribute { reply, .. } => reply.as_bytes(),
            _ => None,
        }
    }

    /// [`Value::as_bytes`] if they are UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An integer, a boolean as 0 or 1, or text that spells an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(value) => Some(*value),
            Value::Boolean(value) => Some(i64::from(*value)),
            Value::Attribute { reply, .. } => reply.as_integer(),
            Value::Error(_) => None,
            other => parse_i64(other.as_bytes()?),
        }
    }

    /// A double, an integer, or text that spells a number.
    pub fn as_double(&self) -> Option<f64> {
        match self {
            Value::Double(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            Value::Attribute { reply, .. } => reply.as_double(),
            Value::Error(_) => None,
            other => parse_f64(other.as_bytes()?),
        }
    }

    /// The elements of an array, a set or a push.
    pub fn as_slice(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            Value::Attribute { reply, .. } => reply.as_slice(),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push.
    pub fn into_vec(self) -> Option<Vec<Value>> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            Value::Attribute { reply, .. } => reply.into_vec(),
            _ => None,
        }
    }

    /// The pairs of a map, or of an array of an even length as RESP2 sends maps.
    pub fn into_pairs(self) -> Option<Vec<(Value, Value)>> {
        match self {
            Value::Map(pairs) => Some(pairs),
            Value::Attribute { reply, .. } => reply.into_pairs(),
            Value::Array(items) if items.len().is_multiple_of(2) => {
                let mut items = items.into_iter();
                let mut pairs = Vec::with_capacity(items.len() / 2);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(pairs)
            }
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::Bulk(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::Bulk(bytes)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Double(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Boolean(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::Array(items)
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep.into());
        }
        let &kind = self.bytes.get(self.at).ok_or(Stop::Incomplete)?;
        if !b"+-:$*%~,#(=>|_!".contains(&kind) {
            return Err(DecodeError::UnknownType(kind).into());
        }
        self.at += 1;
        let line = self.line()?;
        Ok(match kind {
            b'+' => Value::Simple(line.to_vec()),
            b'-' => Value::Error(line.to_vec()),
            b':' => Value::Integer(integer(line)?),
            b'$' => match self.string(line)? {
                None => Value::Nil,
                Some(bytes) => Value::Bulk(bytes.to_vec()),
            },
            b'!' => Value::Error(self.string(line)?.ok_or(DecodeError::InvalidNumber)?.to_vec()),
            b'=' => {
                let text = self.string(line)?.ok_or(DecodeError::InvalidNumber)?;
                let [a, b, c, b':', text @ ..] = text else { return Err(DecodeError::InvalidValue.into()) };
                Value::Verbatim { format: [*a, *b, *c], text: text.to_vec() }
            }
            b'*' => match count(line)? {
                None => Value::Nil,
                Some(n) => Value::Array(self.values(n, depth)?),
            },
            b'~' => Value::Set(self.values(present(line)?, depth)?),
            b'>' => Value::Push(self.values(present(line)?, depth)?),
            b'%' => Value::Map(self.pairs(present(line)?, depth)?),
            b'|' => {
                let pairs = self.pairs(present(line)?, depth)?;
                Value::Attribute { pairs, reply: Box::new(self.value(depth + 1)?) }
            }
            b',' if line.eq_ignore_ascii_case(b"nan") => Value::Double(f64::NAN),
            b',' => Value::Double(parse_f64(line).ok_or(DecodeError::InvalidNumber)?),
            b'(' => {
                let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(DecodeError::InvalidNumber.into());
                }
                Value::BigNumber(line.to_vec())
            }
            b'#' => match line {
                b"t" => Value::Boolean(true),
                b"f" => Value::Boolean(false),
                _ => return Err(DecodeError::InvalidValue.into()),
            },
            _ if line.is_empty() => Value::Nil,
            _ => return Err(DecodeError::InvalidValue.into()),
        })
    }

    fn values(&mut self, n: usize, depth: usize) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::new();
        for _ in 0..n {
            values.push(self.value(depth + 1)?);
        }
        Ok(values)
    }

    fn pairs(&mut self, n: usize, depth: usize) -> Result<Vec<(Value, Value)>, Stop> {
        let mut pairs = Vec::new();
        for _ in 0..n {
            pairs.push((self.value(depth + 1)?, self.value(depth + 1)?));
        }
        Ok(pairs)
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return Err(if rest.len() > LINE_MAX + 1 { DecodeError::LineTooLong.into() } else { Stop::Incomplete });
        };
        if end > LINE_MAX {
            return Err(DecodeError::LineTooLong.into());
        }
        self.at += end + 2;
        Ok(&rest[..end])
    }

    /// The string whose length is `line`, `None` for a null.
    fn string(&mut self, line: &[u8]) -> Result<Option<&'a [u8]>, Stop> {
        let len = integer(line)?;
        if len == -1 {
            return Ok(None);
        }
        if !(0..=BULK_MAX).contains(&len) {
            return Err(DecodeError::InvalidNumber.into());
        }
        let len = len as usize;
        let rest = &self.bytes[self.at..];
        if rest.len() < len + 2 {
            return Err(Stop::Incomplete);
        }
        if &rest[len..len + 2] != b"\r\n" {
            return Err(DecodeError::MissingLineEnd.into());
        }
        self.at += len + 2;
        Ok(Some(&rest[..len]))
    }
}

/// An integer; RESP allows a `+`.
fn integer(line: &[u8]) -> Result<i64, DecodeError> {
    parse_i64(line.strip_prefix(b"+").unwrap_or(line)).ok_or(DecodeError::InvalidNumber)
}

/// The length of an aggregate, `None` for a null.
fn count(line: &[u8]) -> Result<Option<usize>, DecodeError> {
    match integer(line)? {
        -1 => Ok(None),
        n => u32::try_from(n).map(|n| Some(n as usize)).map_err(|_| DecodeError::InvalidNumber),
    }
}

/// The length of an aggregate that cannot be null.
fn present(line: &[u8]) -> Result<usize, DecodeError> {
    count(line)?.ok_or(DecodeError::InvalidNumber)
}
