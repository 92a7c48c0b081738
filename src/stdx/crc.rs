//! Checksums: CRC16 (XMODEM) of a key's hash tag is its slot, CRC64 closes snapshots and payloads.

use crc::{CRC_16_XMODEM, CRC_64_REDIS, Crc, Digest, Table};

/// The number of slots of a database.
pub const SLOTS: u16 = 16384;

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A CRC64 over bytes that come in pieces.
#[derive(Clone)]
pub struct Crc64(Digest<'static, u64, Table<16>>);

impl Crc64 {
    /// That of no bytes.
    pub fn new() -> Crc64 {
        Crc64(CRC64.digest())
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all bytes so far.
    pub fn sum(&self) -> u64 {
        self.0.clone().finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Crc64 {
        Crc64::new()
    }
}

/// The CRC64 of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    CRC64.checksum(bytes)
}

/// The slot of `key`, below [`SLOTS`].
///
/// What stands between the first `{` and the next `}` is hashed alone if it is not empty, so that keys
/// with one such tag are in one slot.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key)) & (SLOTS - 1)
}

/// The part of `key` that decides on its slot.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let tag = &key[open + 1..];
    match memchr::memchr(b'}', tag) {
        None | Some(0) => key,
        Some(close) => &tag[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_those_that_redis_documents() {
        assert_eq!(CRC16.checksum(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"somekey"), 11058);
        assert_eq!(key_slot(b"foo{hash_tag}"), 2515);
        assert_eq!(key_slot(b""), 0);
    }

    #[test]
    fn the_sum_of_a_snapshot_is_the_one_that_redis_documents() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let mut sum = Crc64::new();
        [&b"1234"[..], b"", b"56789"].iter().for_each(|piece| sum.update(piece));
        assert_eq!(sum.sum(), crc64(b"123456789"));
    }

    #[test]
    fn only_the_first_tag_counts_and_an_empty_one_does_not() {
        assert_eq!(hash_tag(b"{user1000}.following"), b"user1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
        assert_eq!(hash_tag(b"}foo{bar}"), b"bar");
    }

    proptest! {
        #[test]
        fn slots_agree_with_another_implementation(key in proptest::collection::vec(any::<u8>(), 0..80)) {
            let tag = hash_tag(&key);
            prop_assert_eq!(key_slot(&key), crc16::State::<crc16::XMODEM>::calculate(tag) % 16384);
        }
    }
}
