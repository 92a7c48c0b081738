//! Writing: numbers, lengths and strings into a buffer.

use crate::keyspace::snapshot::{BATCH_BYTES, Relief};
use crate::persist::rdb::VERSION;
use crate::stdx::lzf;
use crate::stdx::number::{append_i64, parse_i64};

/// Shorter strings are not worth compressing.
const COMPRESS_FROM: usize = 21;
/// What compression must save at least.
const SAVING: usize = 4;
/// A longer string is no integer of 32 bits.
const INTEGER_DIGITS: usize = 11;

/// After so many long strings in a row that compression does not make shorter, most that follow are written as they are.
const VAIN: u32 = 64;
/// One in so many of them is tried nevertheless.
const TRIED: u32 = 16;
/// A string of so many bytes is a long one. Shorter ones say nothing of it: names stand between documents.
const LONG: usize = 256;

/// What stands before a compressed string.
const LZF: u8 = 0xc3;

/// Whether long strings are compressed: `rdbcompression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// They are.
    Lzf,
    /// They are not.
    None,
}

impl From<bool> for Compression {
    fn from(compress: bool) -> Compression {
        if compress { Compression::Lzf } else { Compression::None }
    }
}

/// A buffer that is written.
pub struct Writer<'r> {
    /// What was written, but for what was given away.
    pub bytes: Vec<u8>,
    compression: Compression,
    /// The version that a reader must know.
    pub version: u32,
    /// Whether it is written when consumers of streams were active, which no version before Redis 7.2 can read.
    pub tells_activity: bool,
    /// How many long strings in a row were not worth compressing; `None` where each is to be tried, so that the same value is
    /// the same bytes always, and those of Redis.
    pub vain: Option<u32>,
    /// Takes what was written out of `bytes` when it gets much.
    relief: Relief<'r>,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} bytes)", self.bytes.len())
    }
}

impl<'r> Writer<'r> {
    /// An empty one.
    pub fn new(compression: Compression) -> Writer<'static> {
        Writer::onto(Vec::new(), compression, None)
    }

    /// One that goes on behind `bytes`, and has `relief` take what it has written between elements of what is large.
    pub fn onto(bytes: Vec<u8>, compression: Compression, relief: Relief<'r>) -> Writer<'r> {
        Writer { bytes, compression, version: VERSION, tells_activity: true, vain: None, relief }
    }

    /// An element is done: what was written may be given away.
    #[inline]
    pub fn element_done(&mut self) {
        if self.bytes.len() >= BATCH_BYTES
            && let Some(relief) = &mut self.relief
        {
            relief(&mut self.bytes);
        }
    }

    /// One byte: an opcode or a type.
    #[inline]
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length.
    #[inline]
    pub fn length(&mut self, len: u64) {
        match len {
            0..64 => self.byte(len as u8),
            64..16384 => self.raw(&(0x4000 | len as u16).to_be_bytes()),
            16384..=0xffff_ffff => {
                self.byte(0x80);
                self.raw(&(len as u32).to_be_bytes());
            }
            _ => {
                self.byte(0x81);
                self.raw(&len.to_be_bytes());
            }
        }
    }

    /// A number of things.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.length(count as u64);
    }

    /// A string, as an integer or compressed where that is shorter.
    pub fn string(&mut self, text: &[u8]) {
        if text.len() <= INTEGER_DIGITS
            && let Some(n) = parse_i64(text)
            && self.small_integer(n)
        {
            return;
        }
        if self.compression == Compression::Lzf && text.len() >= COMPRESS_FROM {
            let vain = self.vain.as_mut().filter(|_| text.len() >= LONG).map_or(0, |vain| {
                *vain = vain.wrapping_add(1);
                *vain - 1
            });
            if (vain < VAIN || vain.is_multiple_of(TRIED)) && self.compressed(text) {
                self.vain = self.vain.map(|vain| if text.len() >= LONG { 0 } else { vain });
                return;
            }
        }
        self.count(text.len());
        self.raw(text);
    }

    /// A string of `len` bytes that is compressed already, in the form of LZF.
    pub fn compressed_string(&mut self, compressed: &[u8], len: usize) {
        self.byte(LZF);
        self.count(compressed.len());
        self.count(len);
        self.raw(compressed);
    }

    /// A string that is an integer.
    pub fn integer(&mut self, n: i64) {
        if !self.small_integer(n) {
            let mut digits = Vec::with_capacity(20);
            append_i64(&mut digits, n);
            self.count(digits.len());
            self.raw(&digits);
        }
    }

    /// Writes an integer of up to 32 bits; returns whether it is one.
    fn small_integer(&mut self, n: i64) -> bool {
        if let Ok(n) = i8::try_from(n) {
            self.byte(0xc0);
            self.raw(&n.to_le_bytes());
        } else if let Ok(n) = i16::try_from(n) {
            self.byte(0xc1);
            self.raw(&n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(n) {
            self.byte(0xc2);
            self.raw(&n.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    fn compressed(&mut self, text: &[u8]) -> bool {
        let start = self.bytes.len();
        // The lengths stand before the bytes and are known after them: room for the longest forms is cut out again.
        const ROOM: usize = 1 + 9 + 9;
        self.bytes.resize(start + ROOM, 0);
        let Some(short) = lzf::compress(text, SAVING, &mut self.bytes) else {
            self.bytes.truncate(start);
            return false;
        };
        let mut head = Writer::new(Compression::None);
        head.byte(LZF);
        head.count(short);
        head.count(text.len());
        self.bytes[start..start + head.bytes.len()].copy_from_slice(&head.bytes);
        self.bytes.copy_within(start + ROOM.., start + head.bytes.len());
        self.bytes.truncate(start + head.bytes.len() + short);
        true
    }

    /// A 64-bit number, lowest byte first.
    pub fn u64_le(&mut self, n: u64) {
        self.raw(&n.to_le_bytes());
    }

    /// A double in its binary form.
    pub fn double(&mut self, n: f64) {
        self.raw(&n.to_le_bytes());
    }

    /// Says that a reader must know this version.
    pub fn needs(&mut self, version: u32) {
        self.version = self.version.max(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::rdb::reader::Reader;
    use proptest::prelude::*;

    #[test]
    fn strings_take_the_shortest_form() {
        let written = |text: &[u8], compression| {
            let mut writer = Writer::new(compression);
            writer.string(text);
            writer.bytes
        };
        assert_eq!(written(b"-5", Compression::Lzf), [0xc0, 0xfb]);
        assert_eq!(written(b"007", Compression::Lzf), *b"\x03007");
        assert_eq!(written(b"2147483648", Compression::Lzf), *b"\x0a2147483648");
        let x = [b'x'; 200];
        assert_eq!(written(&x, Compression::Lzf), [0xc3, 9, 0x40, 200, 1, b'x', b'x', 0xe0, 187, 0, 1, b'x', b'x']);
        assert_eq!(written(&x, Compression::None).len(), 202);
    }

    #[test]
    fn long_strings_that_cannot_be_compressed_are_not_all_tried_and_the_first_that_can_ends_that() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut noise = || std::iter::repeat_with(|| rng.u8(..)).take(LONG).collect::<Vec<u8>>();
        let (plain, short) = (vec![b'x'; LONG], [b'x'; LONG - 1]);
        let is_compressed = |writer: &mut Writer<'_>, text: &[u8]| {
            let before = writer.bytes.len();
            writer.string(text);
            writer.bytes.len() - before < text.len()
        };
        for adaptive in [false, true] {
            let mut writer = Writer::new(Compression::Lzf);
            writer.vain = adaptive.then_some(0);
            for _ in 0..VAIN + 1 {
                assert!(!is_compressed(&mut writer, &noise()));
                // What is short is tried each time, and is no sign of what is long.
                assert!(is_compressed(&mut writer, &short));
            }
            let missed = (0..2 * TRIED).take_while(|_| !is_compressed(&mut writer, &plain)).count() as u32;
            assert_eq!(missed, if adaptive { TRIED - 1 } else { 0 });
            assert!(is_compressed(&mut writer, &plain));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            lens in prop::collection::vec(any::<u64>().prop_map(|n| n >> (n % 64)), 0..20),
            texts in prop::collection::vec(prop_oneof![
                any::<i64>().prop_map(|n| (n >> (n & 63)).to_string().into_bytes()),
                "[ab]{0,100}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..300),
            ], 0..20),
        ) {
            let mut writer = Writer::new(Compression::Lzf);
            lens.iter().for_each(|len| writer.length(*len));
            texts.iter().for_each(|text| writer.string(text));
            lens.iter().for_each(|len| writer.integer(len.cast_signed()));
            let mut reader = Reader::of_bytes(&writer.bytes);
            for len in &lens {
                prop_assert_eq!(reader.length().unwrap(), *len);
            }
            for text in &texts {
                prop_assert_eq!(&reader.string().unwrap(), text);
            }
            for len in &lens {
                prop_assert_eq!(reader.string().unwrap(), len.cast_signed().to_string().into_bytes());
            }
            prop_assert!(reader.rest().is_empty());
        }
    }
}
