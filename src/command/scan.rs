//! What SCAN, SSCAN, HSCAN and ZSCAN have in common: cursors, options, replies.
//!
//! A command that scans a value is one call of [`scan_value`] with two closures: which type the key must hold, and
//! how to walk that:
//!
//! ```ignore
//! fn sscan(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
//!     scan_value(ctx, args, set, |set, cursor, count, found| {
//!         set.scan(cursor, count, |member| found.add_if_matching(member))
//!     })
//! }
//! ```
//!
//! What must stay true: a cursor is where to go on in the order of hashes (see [`Table::scan`]), so that what is
//! there throughout is returned, whatever is added and removed meanwhile; 0 is both the beginning and the end.
//!
//! [`Table::scan`]: crate::types::table::Table::scan

use std::sync::Arc;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::keyspace::entry::Entry;
use crate::resp::reply::Output;
use crate::stdx::glob::{self, Case};
use crate::stdx::number::{append_i64, parse_i64};

/// How many elements a scan looks at where nothing else is asked for.
pub const DEFAULT_COUNT: usize = 10;
/// How many bytes of a long reply are kept together.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// A cursor as `strtoul` reads it: nothing at all is 0, a sign is allowed, leading blanks are not.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let n = digits.iter().try_fold(0u64, |n, digit| {
        digit.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?
    })?;
    Some(if negative { n.wrapping_neg() } else { n })
}

/// The argument of COUNT.
///
/// # Errors
/// Where it is no number, or none above 0.
pub fn parse_count(arg: &[u8]) -> Result<usize, Error> {
    let count = parse_i64(arg).ok_or(Error::NotInteger)?;
    usize::try_from(count).ok().filter(|n| *n > 0).ok_or(Error::Syntax)
}

/// The argument of MATCH; `None` where it matches everything.
pub fn pattern(arg: &[u8]) -> Option<&[u8]> {
    (arg != b"*").then_some(arg)
}

/// Whether `name` matches a [`pattern`].
#[inline]
pub fn matches(pattern: Option<&[u8]>, name: &[u8]) -> bool {
    pattern.is_none_or(|pattern| glob::matches(pattern, name, Case::Sensitive))
}

/// Strings for a reply whose length is known at the end only; a long one is sent by reference.
#[derive(Default)]
pub struct Strings {
    count: usize,
    blocks: Vec<Arc<Vec<u8>>>,
    last: Vec<u8>,
}

impl Strings {
    /// Adds one.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.last.len() >= BLOCK_BYTES {
            let full = std::mem::replace(&mut self.last, Vec::with_capacity(BLOCK_BYTES + 1024));
            self.blocks.push(Arc::new(full));
        }
        self.count += 1;
        self.last.push(b'$');
        append_i64(&mut self.last, bytes.len() as i64);
        self.last.extend_from_slice(b"\r\n");
        self.last.extend_from_slice(bytes);
        self.last.extend_from_slice(b"\r\n");
    }

    /// Adds the text of a number.
    pub fn add_integer(&mut self, n: i64) {
        self.add(itoa::Buffer::new().format(n).as_bytes());
    }

    /// Writes them as an array.
    pub fn write(self, out: &mut Output) {
        out.array(self.count);
        self.blocks.into_iter().for_each(|block| out.raw_shared(block));
        out.raw(&self.last);
    }
}

/// What a scan of a value has found.
pub struct Found<'a> {
    pattern: Option<&'a [u8]>,
    strings: Strings,
    /// NOVALUES, NOSCORES: the names of elements are wanted alone.
    pub names_only: bool,
}

impl Found<'_> {
    /// Whether an element of this name is wanted.
    #[inline]
    pub fn wants(&self, name: &[u8]) -> bool {
        matches(self.pattern, name)
    }

    /// Adds a part of an element to the reply.
    pub fn add(&mut self, part: &[u8]) {
        self.strings.add(part);
    }

    /// Adds an element that is nothing but its name, where that is wanted.
    pub fn add_if_matching(&mut self, name: &[u8]) {
        if self.wants(name) {
            self.add(name);
        }
    }
}

/// Runs `key cursor [MATCH pattern] [COUNT count]`, for HSCAN `[NOVALUES]` and for ZSCAN `[NOSCORES]`: `scan` gets what `typed` takes out of the key's entry, a cursor and
/// about how many elements to look at, and returns the next cursor, 0 at the end. A value in a compact encoding
/// looks at all of its elements at once, whatever the cursor is.
///
/// # Errors
/// As Redis has them: the cursor is looked at first, then the key, and where it exists the options.
pub fn scan_value<'c, V>(
    ctx: &'c mut Context<'_>,
    args: &Args<'_>,
    typed: impl FnOnce(&'c Entry) -> Result<V, Error>,
    scan: impl FnOnce(V, u64, usize, &mut Found<'_>) -> u64,
) -> Reply {
    let cursor = parse_cursor(args.at(2)).ok_or(Error::InvalidCursor)?;
    let key = args.key(&ctx.db, 1);
    let Some(value) = ctx.db.read(&key).map(typed).transpose()? else {
        ctx.out.array(2);
        ctx.out.bulk(b"0");
        ctx.out.array(0);
        return DONE;
    };
    let mut found = Found { pattern: None, strings: Strings::default(), names_only: false };
    let (mut count, mut i) = (DEFAULT_COUNT, 3);
    while i < args.len() {
        let names_only = [("HSCAN", "NOVALUES"), ("ZSCAN", "NOSCORES")];
        if names_only.iter().any(|(command, option)| args.is(i, option) && args.is(0, command)) {
            found.names_only = true;
            i += 1;
            continue;
        }
        let Some(arg) = args.opt(i + 1) else { return Err(Error::Syntax) };
        match word(args.at(i), &["MATCH", "COUNT"]) {
            Some("MATCH") => found.pattern = pattern(arg),
            Some(_) => count = parse_count(arg)?,
            None => return Err(Error::Syntax),
        }
        i += 2;
    }
    let next = scan(value, cursor, count, &mut found);
    ctx.out.array(2);
    ctx.out.bulk(next.to_string().as_bytes());
    found.strings.write(ctx.out);
    DONE
}
