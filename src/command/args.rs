//! The arguments of one request, as they stand in the bytes that were read.

use crate::command::error::Error;
use crate::keyspace::change::Words;
use crate::keyspace::db::{Db, Key};
use crate::keyspace::hash::KeyHash;
use crate::resp::request::Span;
use crate::stdx::number::parse_i64;

/// A request's arguments, its command's name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
    /// The hash of the first key, computed when the batch was looked through.
    first_key: Option<(usize, KeyHash)>,
}

impl Words for Args<'_> {
    fn count(&self) -> usize {
        self.len()
    }

    fn word(&self, i: usize) -> &[u8] {
        self.at(i)
    }
}

impl<'a> Args<'a> {
    /// The arguments at `spans` of `buf`.
    #[inline]
    pub fn new(buf: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { buf, spans, first_key: None }
    }

    /// The same, with the hash of the key at `index` known.
    #[inline]
    pub fn with_first_key(self, index: usize, hash: KeyHash) -> Args<'a> {
        Args { first_key: Some((index, hash)), ..self }
    }

    /// How many there are, the name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; the arity has been checked.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.spans[index].of(self.buf)
    }

    /// The argument at `index`, if there is one.
    pub fn opt(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| span.of(self.buf))
    }

    /// All from `index` on.
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buf = self.buf;
        self.spans[index.min(self.spans.len())..].iter().map(move |span| span.of(buf))
    }

    /// The key at `index`.
    #[inline]
    pub fn key(&self, db: &Db<'_>, index: usize) -> Key<'a> {
        let bytes = self.at(index);
        match self.first_key {
            Some((first, hash)) if first == index => Key { bytes, hash },
            _ => db.key(bytes),
        }
    }

    /// The integer at `index`.
    ///
    /// # Errors
    /// [`Error::NotInteger`].
    #[inline]
    pub fn integer(&self, index: usize) -> Result<i64, Error> {
        parse_i64(self.at(index)).ok_or(Error::NotInteger)
    }

    /// Whether the argument at `index` is `word`, which is in upper case, in any case.
    #[inline]
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.at(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// How many bytes the request takes as clients send it.
    pub fn wire_bytes(&self) -> u64 {
        let digits = |n: usize| n.checked_ilog10().map_or(1, |log| log as usize + 1);
        let words: usize = self.from(0).map(|word| digits(word.len()) + word.len() + 5).sum();
        (digits(self.len()) + 3 + words) as u64
    }

    /// Copies of all of them.
    pub fn to_vecs(&self) -> Vec<Vec<u8>> {
        self.from(0).map(<[u8]>::to_vec).collect()
    }
}

/// Which of `words` (upper case) an argument is, in any case.
///
/// The position in `words`, so that a handler can match on constants of its own.
pub fn word<'w>(arg: &[u8], words: &[&'w str]) -> Option<&'w str> {
    words.iter().copied().find(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
}
