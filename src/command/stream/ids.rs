//! Ids as clients write them: `ms-seq`, `ms`, and in places `-`, `+`, `(`, `*`.

use crate::command::error::Error;
use crate::stdx::number::{parse_i64, parse_u64};
use crate::types::stream::id::Id;

/// The longest text that is looked at.
const MOST: usize = 127;

/// An id for a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewId {
    /// `*`.
    Auto,
    /// `ms-*`.
    AutoSeq(u64),
    /// Both numbers.
    Given(Id),
}

fn invalid() -> Error {
    Error::text("ERR Invalid stream ID specified as stream command argument")
}

/// The text before the first NUL byte, where ids end for Redis.
fn text(arg: &[u8]) -> Result<&[u8], Error> {
    if arg.len() > MOST { Err(invalid()) } else { Ok(super::shown(arg)) }
}

/// One of the two numbers. What is not written as we would write it is read as C does: with blanks before
/// it, a sign, zeros.
fn number(text: &[u8]) -> Option<u64> {
    if let Some(n) = parse_u64(text) {
        return Some(n);
    }
    if parse_i64(text).is_some() {
        return None;
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let text = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { n.wrapping_neg() } else { n })
}

/// Both numbers; `missing` is the second where there is only one.
fn numbers(text: &[u8], missing: u64) -> Option<Id> {
    match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => Some(Id::new(number(&text[..dash])?, number(&text[dash + 1..])?)),
        None => Some(Id::new(number(text)?, missing)),
    }
}

/// An id and nothing else; 0 stands for a second number that is missing.
///
/// # Errors
/// Where it is none.
pub fn strict(arg: &[u8]) -> Result<Id, Error> {
    numbers(text(arg)?, 0).ok_or_else(invalid)
}

/// An id, `-` for the least or `+` for the greatest.
///
/// # Errors
/// Where it is none of these.
pub fn loose(arg: &[u8], missing: u64) -> Result<Id, Error> {
    match text(arg)? {
        b"-" => Ok(Id::MIN),
        b"+" => Ok(Id::MAX),
        text => numbers(text, missing).ok_or_else(invalid),
    }
}

/// An id for a new entry, `ms-*` included.
///
/// # Errors
/// Where it is none.
pub fn new(arg: &[u8]) -> Result<NewId, Error> {
    match text(arg)? {
        b"*" => Ok(NewId::Auto),
        [ms @ .., b'-', b'*'] if !ms.contains(&b'-') => number(ms).map(NewId::AutoSeq).ok_or_else(invalid),
        text => numbers(text, 0).map(NewId::Given).ok_or_else(invalid),
    }
}

/// The first id of an interval, which `(` leaves out.
///
/// # Errors
/// Where it is none, or nothing is behind it.
pub fn from(arg: &[u8]) -> Result<Id, Error> {
    match arg {
        [b'(', rest @ ..] if !rest.is_empty() => numbers(text(rest)?, 0)
            .ok_or_else(invalid)?
            .next()
            .ok_or(Error::text("ERR invalid start ID for the interval")),
        _ => loose(arg, 0),
    }
}

/// The last id of an interval, which `(` leaves out.
///
/// # Errors
/// Where it is none, or nothing is before it.
pub fn to(arg: &[u8]) -> Result<Id, Error> {
    match arg {
        [b'(', rest @ ..] if !rest.is_empty() => numbers(text(rest)?, u64::MAX)
            .ok_or_else(invalid)?
            .prev()
            .ok_or(Error::text("ERR invalid end ID for the interval")),
        _ => loose(arg, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        for (text, id) in [
            ("5-3", Some(Id::new(5, 3))),
            ("5", Some(Id::new(5, 0))),
            ("05- +7", Some(Id::new(5, 7))),
            ("5--07", Some(Id::new(5, 7u64.wrapping_neg()))),
            ("5\0-9", Some(Id::new(5, 0))),
            ("18446744073709551615-18446744073709551615", Some(Id::MAX)),
            ("18446744073709551616", None),
            ("5--7", None),
            ("5-", None),
            ("-5", None),
            ("-", None),
            ("+", None),
            ("*", None),
            ("", None),
            ("5-*", None),
            ("5-1x", None),
        ] {
            assert_eq!(strict(text.as_bytes()).ok(), id, "{text}");
        }
        assert!(strict(&[b'0'; MOST]).is_ok() && strict(&[b'0'; MOST + 1]).is_err());
    }

    #[test]
    fn intervals_and_new_entries_have_forms_of_their_own() {
        assert_eq!((loose(b"-", 7), loose(b"+", 7)), (Ok(Id::MIN), Ok(Id::MAX)));
        assert_eq!((from(b"5"), to(b"5")), (Ok(Id::new(5, 0)), Ok(Id::new(5, u64::MAX))));
        assert_eq!((from(b"(5"), to(b"(5-0")), (Ok(Id::new(5, 1)), Ok(Id::new(4, u64::MAX))));
        assert!(from(b"(").is_err() && from(b"(-").is_err() && to(b"(+").is_err() && to(b"(0-0").is_err());
        assert!(from(b"(18446744073709551615-18446744073709551615").is_err());
        assert_eq!((new(b"*"), new(b"5-*")), (Ok(NewId::Auto), Ok(NewId::AutoSeq(5))));
        assert!(new(b"-*").is_err() && new(b"5-1-*").is_err() && new(b"5-**").is_err());
    }
}
