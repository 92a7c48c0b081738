//! Reading: bytes from a file, a socket or a payload, as numbers, lengths and strings.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use crate::persist::rdb::{Error, Reason, Result};
use crate::stdx::crc::Crc64;
use crate::stdx::lzf;
use crate::stdx::number::append_i64;

/// How much is read at once.
const CHUNK_BYTES: usize = 128 * 1024;
/// How much memory is taken at once for a string whose length nothing vouches for.
const GROW_BYTES: usize = 1 << 20;

/// The two upper bits of a length that is none.
const ENCODED: u8 = 3;

/// A length, or what stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many.
    Plain(u64),
    /// A string in another form: the number of the encoding.
    Encoded(u8),
}

/// What is read, with the offset reached and the checksum of all before it.
pub struct Reader<'a> {
    source: Option<&'a mut dyn Read>,
    buffer: Cow<'a, [u8]>,
    at: usize,
    end: usize,
    /// How much of the buffer the checksum counts already.
    summed: usize,
    /// The offset of the buffer's first byte.
    base: u64,
    sum: Option<Crc64>,
    /// What was read since it was begun to be kept, up to `kept_from` of the buffer.
    kept: Option<Vec<u8>>,
    kept_from: usize,
}

impl<'a> Reader<'a> {
    /// Reads from a file or a stream. Bytes behind what is asked for may be read too: [`Reader::rest`] has them.
    pub fn new(source: &'a mut dyn Read) -> Reader<'a> {
        let buffer = Cow::Owned(vec![0; CHUNK_BYTES]);
        Reader {
            source: Some(source),
            buffer,
            at: 0,
            end: 0,
            summed: 0,
            base: 0,
            sum: Some(Crc64::new()),
            kept: None,
            kept_from: 0,
        }
    }

    /// Reads what is there already. No checksum is kept.
    pub fn of_bytes(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            source: None,
            end: bytes.len(),
            buffer: Cow::Borrowed(bytes),
            at: 0,
            summed: 0,
            base: 0,
            sum: None,
            kept: None,
            kept_from: 0,
        }
    }

    /// Keeps no checksum from here on.
    pub fn forget_sum(&mut self) {
        self.sum = None;
    }

    /// Reads what is there already and stood at `offset` of something larger: errors tell where that is.
    pub fn of_bytes_at(bytes: &'a [u8], offset: u64) -> Reader<'a> {
        Reader { base: offset, ..Reader::of_bytes(bytes) }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// What was read from the source and not asked for yet.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// Keeps a copy of what is read from here on, behind what `kept` holds, until [`Reader::kept`] is called.
    pub fn keep(&mut self, kept: Vec<u8>) {
        self.kept = Some(kept);
        self.kept_from = self.at;
    }

    /// What was to be kept.
    pub fn kept(&mut self) -> Vec<u8> {
        let mut kept = self.kept.take().unwrap_or_default();
        kept.extend_from_slice(&self.buffer[self.kept_from..self.at]);
        kept
    }

    /// The length that is next, without reading it; `None` where there is none, or not enough of it at hand.
    #[inline]
    pub fn peek_length(&self) -> Option<u64> {
        let bytes = &self.buffer[self.at..self.end];
        let (first, rest) = bytes.split_first()?;
        match first {
            0..0x40 => Some(u64::from(*first)),
            0x40..0x80 => Some(u64::from(first & 0x3f) << 8 | u64::from(*rest.first()?)),
            0x80 => rest.first_chunk().map(|bytes| u64::from(u32::from_be_bytes(*bytes))),
            0x81 => rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
            _ => None,
        }
    }

    /// Passes over a string; only its lengths are looked at.
    pub fn skip_string(&mut self) -> Result<()> {
        match self.length_or_encoding()? {
            Length::Plain(len) => self.skip(len),
            Length::Encoded(0) => self.skip(1),
            Length::Encoded(1) => self.skip(2),
            Length::Encoded(2) => self.skip(4),
            Length::Encoded(3) => {
                let (short, _) = (self.length()?, self.length()?);
                self.skip(short)
            }
            Length::Encoded(other) => Err(self.corrupt(format!("Unknown RDB string encoding type {other}"))),
        }
    }

    /// The checksum of everything read so far; `None` where none is kept.
    pub fn sum(&mut self) -> Option<u64> {
        let sum = self.sum.as_mut()?;
        sum.update(&self.buffer[self.summed..self.at]);
        self.summed = self.at;
        Some(sum.sum())
    }

    /// An error at this place.
    pub fn error(&self, reason: Reason) -> Error {
        Error { offset: self.offset(), reason }
    }

    /// An error of the format at this place.
    pub fn corrupt(&self, what: impl Into<Cow<'static, str>>) -> Error {
        self.error(Reason::Corrupt(what.into()))
    }

    /// Reads more; an error where there is no more.
    #[cold]
    fn refill(&mut self) -> Result<()> {
        self.sum();
        let Some(source) = &mut self.source else { return Err(self.error(Reason::End)) };
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&self.buffer[self.kept_from..self.at]);
            self.kept_from = 0;
        }
        let Cow::Owned(buffer) = &mut self.buffer else { unreachable!("who reads from a source owns the buffer") };
        self.base += self.at as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        loop {
            match source.read(buffer) {
                Ok(0) => return Err(self.error(Reason::End)),
                Ok(n) => {
                    self.end = n;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Reason::Io(error))),
            }
        }
    }

    /// One byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8> {
        if self.at == self.end {
            self.refill()?;
        }
        let byte = self.buffer[self.at];
        self.at += 1;
        Ok(byte)
    }

    /// A few bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        if let Some(bytes) = self.buffer[self.at..self.end].first_chunk() {
            self.at += N;
            return Ok(*bytes);
        }
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// Appends `len` bytes to `out`, whose memory grows with what is there.
    pub fn bytes_into(&mut self, len: u64, out: &mut Vec<u8>) -> Result<()> {
        let mut left = len;
        if self.source.is_none() && left > (self.end - self.at) as u64 {
            return Err(self.error(Reason::End));
        }
        out.reserve_exact(left.min(GROW_BYTES as u64) as usize);
        while left > 0 {
            if self.at == self.end {
                self.refill()?;
            }
            let n = left.min((self.end - self.at) as u64) as usize;
            out.extend_from_slice(&self.buffer[self.at..self.at + n]);
            self.at += n;
            left -= n as u64;
        }
        Ok(())
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        let mut left = len;
        while left > 0 {
            if self.at == self.end {
                self.refill()?;
            }
            let n = left.min((self.end - self.at) as u64) as usize;
            self.at += n;
            left -= n as u64;
        }
        Ok(())
    }

    /// A length, or the encoding of a string in its place.
    #[inline]
    pub fn length_or_encoding(&mut self) -> Result<Length> {
        let first = self.byte()?;
        Ok(Length::Plain(match (first >> 6, first) {
            (0, _) => u64::from(first),
            (1, _) => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            (ENCODED, _) => return Ok(Length::Encoded(first & 0x3f)),
            (_, 0x80) => u64::from(u32::from_be_bytes(self.array()?)),
            (_, 0x81) => u64::from_be_bytes(self.array()?),
            _ => return Err(self.corrupt(format!("Unknown length encoding {first} in rdbLoadLen()"))),
        }))
    }

    /// A length.
    #[inline]
    pub fn length(&mut self) -> Result<u64> {
        match self.length_or_encoding()? {
            Length::Plain(len) => Ok(len),
            Length::Encoded(_) => Err(self.corrupt("A string where a length should be")),
        }
    }

    /// A string, which takes the place of what `out` holds.
    pub fn string_into(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let n = match self.length_or_encoding()? {
            Length::Plain(len) => return self.bytes_into(len, out),
            Length::Encoded(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Encoded(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Encoded(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Encoded(3) => {
                let (short, len) = (self.length()?, self.length()?);
                let mut compressed = Vec::new();
                self.bytes_into(short, &mut compressed)?;
                let text = usize::try_from(len).ok().and_then(|len| lzf::decompress(&compressed, len));
                *out = text.ok_or_else(|| self.corrupt("Invalid LZF compressed string"))?;
                return Ok(());
            }
            Length::Encoded(other) => return Err(self.corrupt(format!("Unknown RDB string encoding type {other}"))),
        };
        append_i64(out, n);
        Ok(())
    }

    /// A string.
    pub fn string(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.string_into(&mut out)?;
        Ok(out)
    }

    /// A 64-bit number, lowest byte first.
    pub fn u64_le(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A double in its binary form.
    pub fn double(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A double as digits, as scores were written before version 8.
    pub fn double_text(&mut self) -> Result<f64> {
        let len = match self.byte()? {
            255 => return Ok(f64::NEG_INFINITY),
            254 => return Ok(f64::INFINITY),
            253 => return Ok(f64::NAN),
            len => len,
        };
        let mut text = Vec::new();
        self.bytes_into(u64::from(len), &mut text)?;
        let text = std::str::from_utf8(&text).ok().map(str::trim_start);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| self.corrupt("A score that is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives its bytes one by one.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(to.len()).min(1);
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn lengths_and_strings_are_read_in_every_form_however_the_bytes_come() {
        let bytes = [
            &[5][..],
            &[0x41, 2],
            &[0x80, 0, 1, 0, 0],
            &[0x81, 0, 0, 1, 0, 0, 0, 0, 0],
            &[3, b'a', b'b', b'c'],
            &[0xc0, 0xff],
            &[0xc1, 0, 1],
            &[0xc2, 0, 0, 0, 0x80],
            &[0xc3, 9, 0x40, 200, 1, b'x', b'x', 0xe0, 187, 0, 1, b'x', b'x'],
            &[4, b'-', b'1', b'e', b'3', 255, 254],
        ]
        .concat();
        let check = |mut reader: Reader<'_>| {
            let lengths: Vec<u64> = (0..4).map(|_| reader.length().unwrap()).collect();
            assert_eq!(lengths, [5, 258, 65536, 1 << 40]);
            let strings: Vec<Vec<u8>> = (0..5).map(|_| reader.string().unwrap()).collect();
            assert_eq!(strings, [&b"abc"[..], b"-1", b"256", b"-2147483648", &[b'x'; 200]]);
            let doubles: Vec<f64> = (0..3).map(|_| reader.double_text().unwrap()).collect();
            assert_eq!(doubles, [-1000.0, f64::NEG_INFINITY, f64::INFINITY]);
            assert_eq!(reader.offset(), bytes.len() as u64);
            assert!(matches!(reader.byte(), Err(Error { reason: Reason::End, .. })));
            reader.sum()
        };
        assert_eq!(check(Reader::of_bytes(&bytes)), None);
        let sum = Some(crate::stdx::crc::crc64(&bytes));
        assert_eq!(check(Reader::new(&mut Drops(&bytes))), sum);
        assert_eq!(check(Reader::new(&mut &bytes[..])), sum);
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let bytes = [&[0x81][..], &(u64::MAX - 1).to_be_bytes(), b"abc"].concat();
        assert!(matches!(Reader::of_bytes(&bytes).string(), Err(Error { reason: Reason::End, .. })));
        let mut source = &bytes[..];
        let mut out = Vec::new();
        assert!(Reader::new(&mut source).string_into(&mut out).is_err());
        assert!(out.capacity() <= 2 * GROW_BYTES);
    }
}
