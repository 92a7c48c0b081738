//! Checksums as a cluster uses them: CRC16 (XMODEM) of a key's hash tag is its slot.

use crc::{CRC_16_XMODEM, Crc, Table};

/// The number of slots of a database.
pub const SLOTS: u16 = 16384;

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

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
