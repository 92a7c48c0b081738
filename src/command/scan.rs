//! What HSCAN, SSCAN and ZSCAN have in common: how they are asked, and the form of the reply.

use crate::command::args::{Args, word};
use crate::command::error::Error;
use crate::command::keyspace::parse_cursor;
use crate::resp::reply::Output;
use crate::stdx::glob::{self, Case};
use crate::stdx::number::parse_i64;

/// How many elements are visited where nothing is said.
const DEFAULT_COUNT: usize = 10;

/// From where a walk over a collection goes on.
///
/// # Errors
/// [`Error::InvalidCursor`].
pub fn cursor(args: &Args<'_>) -> Result<u64, Error> {
    parse_cursor(args.at(2)).ok_or(Error::InvalidCursor)
}

/// Replies that the walk is over and found nothing: what a missing key answers, whatever the options say.
pub fn write_nothing(out: &mut Output) {
    out.array(2);
    out.bulk(b"0");
    out.array(0);
}

/// What a walk returns, and how much of it at once.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How many elements to visit, about.
    pub count: usize,
    /// NOVALUES: names without their values.
    pub novalues: bool,
    pattern: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Reads the options behind key and cursor.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::NotInteger`].
    pub fn parse(args: &Args<'a>) -> Result<Options<'a>, Error> {
        let mut options = Options { count: DEFAULT_COUNT, novalues: false, pattern: None };
        let mut i = 3;
        while i < args.len() {
            match (word(args.at(i), &["MATCH", "COUNT", "NOVALUES"]), args.opt(i + 1)) {
                (Some("MATCH"), Some(pattern)) => options.pattern = (pattern != b"*").then_some(pattern),
                (Some("COUNT"), Some(count)) => {
                    let count = parse_i64(count).ok_or(Error::NotInteger)?;
                    options.count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or(Error::Syntax)?;
                }
                (Some("NOVALUES"), _) => {
                    if !args.is(0, "HSCAN") {
                        return Err(Error::text("ERR NOVALUES option can only be used in HSCAN"));
                    }
                    options.novalues = true;
                    i += 1;
                    continue;
                }
                _ => return Err(Error::Syntax),
            }
            i += 2;
        }
        Ok(options)
    }

    /// Whether an element is wanted.
    pub fn wants(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, element, Case::Sensitive))
    }
}

/// Replies with what `walk` writes, and with the cursor and number of replies that it returns.
pub fn write(out: &mut Output, walk: impl FnOnce(&mut Output) -> (u64, usize)) {
    let mut elements = Output::new(out.protocol());
    let (cursor, count) = walk(&mut elements);
    out.array(2);
    out.bulk(cursor.to_string().as_bytes());
    out.array(count);
    out.raw(&elements.to_vec());
}
