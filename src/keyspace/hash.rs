//! Where a key lives: its slot, and the bits of its hash that order it there.

use ahash::RandomState;

use crate::keyspace::entry::HASH_BITS;
use crate::keyspace::shard::{SLOTS, SLOTS_PER_SHARD};
use crate::stdx::crc::key_slot;

/// How keys are spread over slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// By the key's hash: keys that share a hash tag spread over all shards.
    Hash,
    /// By CRC16 of the hash tag, as a cluster agrees on.
    Slot,
}

/// The slot of a key and 19 more bits of its hash, computed once per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash {
    slot: u16,
    bits: u32,
}

impl KeyHash {
    /// The slot.
    #[inline]
    pub fn slot(self) -> usize {
        usize::from(self.slot)
    }

    /// The shard that holds the slot.
    #[inline]
    pub fn shard(self) -> usize {
        usize::from(self.slot) / SLOTS_PER_SHARD
    }

    /// The slot's place in its shard.
    #[inline]
    pub fn slot_in_shard(self) -> usize {
        usize::from(self.slot) % SLOTS_PER_SHARD
    }

    /// The bits that the entry carries in its pointer.
    #[inline]
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// What the slot's table is asked with: the bits from the top.
    #[inline]
    pub fn table_hash(self) -> u64 {
        KeyHash::table_hash_of_bits(self.bits)
    }

    /// The same from the bits that an entry carries.
    #[inline]
    pub fn table_hash_of_bits(bits: u32) -> u64 {
        u64::from(bits) << (64 - HASH_BITS)
    }
}

/// Hashes keys under a seed of its own, so that nobody outside can choose keys that collide.
#[derive(Debug, Clone)]
pub struct KeyHasher {
    state: RandomState,
    routing: Routing,
}

impl KeyHasher {
    /// A hasher with a fresh random seed.
    pub fn new(routing: Routing) -> KeyHasher {
        KeyHasher { state: RandomState::new(), routing }
    }

    /// A hasher with a given seed, for tests that must repeat.
    pub fn with_seed(routing: Routing, seed: usize) -> KeyHasher {
        KeyHasher { state: RandomState::with_seed(seed), routing }
    }

    /// How keys are spread over slots.
    pub fn routing(&self) -> Routing {
        self.routing
    }

    /// Where `key` lives.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let hash = self.state.hash_one(key);
        let slot = match self.routing {
            Routing::Hash => (hash >> 50) as u16,
            Routing::Slot => key_slot(key),
        };
        debug_assert!(usize::from(slot) < SLOTS);
        KeyHash { slot, bits: (hash >> 31) as u32 & ((1 << HASH_BITS) - 1) }
    }
}
