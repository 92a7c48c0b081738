//! Hashes of bytes that nobody outside can foresee.
//!
//! What stays true: the seed is drawn once per process, so the same bytes have the same hash for as long as it runs,
//! wherever they stand; a hash is never written to a file or sent to anybody.

use std::sync::LazyLock;

use ahash::RandomState;

static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of `bytes` under this process' seed. Whoever chooses the bytes cannot make hashes collide.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    SEED.hash_one(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_the_same_hash_and_others_another() {
        assert_eq!(hash_bytes(b"member"), hash_bytes(&Box::<[u8]>::from(&b"member"[..])));
        let mut all: Vec<u64> = (0..10_000u32).map(|n| hash_bytes(&n.to_le_bytes())).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
        // Tables part their elements by the top bits.
        let ones = all.iter().filter(|hash| **hash >> 63 == 1).count();
        assert!((4500..5500).contains(&ones), "{ones}");
    }
}
