//! Chance: ids that nobody can guess, and a generator that a seed repeats.
#![allow(unsafe_code, reason = "the system call for randomness has no safe form in std")]

use std::hash::{BuildHasher, Hasher, RandomState};

/// 160 random bits as 40 lower-case hexadecimal digits: a run id, a replication id, a node name.
pub fn run_id() -> [u8; 40] {
    let mut bytes = [0; 20];
    fill(&mut bytes);
    let mut id = [0; 40];
    for (pair, byte) in id.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    id
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Fills `bytes` with randomness of the operating system.
///
/// Should the system refuse (before its pool is ready, or in a sandbox), the keys that std draws
/// for its hash maps are hashed instead: unpredictable from outside, though not meant for secrets.
pub fn fill(bytes: &mut [u8]) {
    let filled = fill_from_system(bytes);
    fill_from_hash_keys(&mut bytes[filled..]);
}

/// How many bytes the system filled: all but where it refuses.
#[cfg(target_os = "linux")]
fn fill_from_system(bytes: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is memory of ours that may be written for its whole length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) if got > 0 => filled += got,
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    filled
}

#[cfg(not(target_os = "linux"))]
fn fill_from_system(_bytes: &mut [u8]) -> usize {
    0
}

fn fill_from_hash_keys(bytes: &mut [u8]) {
    for (n, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_usize(n);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes()[..chunk.len()]);
    }
}

/// A random number of 64 bits from the operating system: a seed.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A fast generator for sampling (eviction, SRANDMEMBER, jitter): uniform, but predictable. The same
/// seed gives the same numbers, so a failing run can be repeated.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// A generator that nobody else repeats.
    pub fn new() -> Random {
        Random::seeded(seed())
    }

    /// The generator of this seed.
    pub fn seeded(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`; 0 where `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(..bound) }
    }

    /// Any 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number from 0 (included) to 1 (excluded).
    #[inline]
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }
}

impl Default for Random {
    fn default() -> Random {
        Random::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forty_hexadecimal_digits_and_never_the_same() {
        let ids: Vec<[u8; 40]> = (0..50).map(|_| run_id()).collect();
        for (n, id) in ids.iter().enumerate() {
            assert!(id.iter().all(|digit| HEX.contains(digit)));
            assert!(!ids[..n].contains(id));
        }
    }

    #[test]
    fn without_the_systems_randomness_bytes_still_differ() {
        let (mut a, mut b) = ([0; 21], [0; 21]);
        fill_from_hash_keys(&mut a);
        fill_from_hash_keys(&mut b);
        assert_ne!(a, b);
        assert_ne!(a[..8], a[8..16]);
        assert_ne!(a, [0; 21]);
    }

    #[test]
    fn a_seed_repeats_its_numbers_and_bounds_hold() {
        let (mut a, mut b) = (Random::seeded(7), Random::seeded(7));
        for bound in 0..100 {
            let n = a.below(bound);
            assert_eq!(n, b.below(bound));
            assert!(n < bound || (n, bound) == (0, 0));
        }
        assert_eq!(a.bits(), b.bits());
        assert!((0.0..1.0).contains(&a.unit()));
    }
}
