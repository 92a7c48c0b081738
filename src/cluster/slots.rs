//! Sets of slots, as nodes announce them and as people read them.

use crate::keyspace::shard::SLOTS;

const WORDS: usize = SLOTS / 64;

/// How many bytes a set of slots takes in a message.
pub const SLOT_BYTES: usize = SLOTS / 8;

/// A set of slots: 2048 bytes, whatever is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    words: Box<[u64; WORDS]>,
    len: usize,
}

impl Default for SlotSet {
    fn default() -> SlotSet {
        SlotSet { words: Box::new([0; WORDS]), len: 0 }
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl SlotSet {
    /// How many slots are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `slot`, which is less than 16384, is in it.
    #[inline]
    pub fn has(&self, slot: usize) -> bool {
        self.words[slot / 64] & 1 << (slot % 64) != 0
    }

    /// Adds a slot; returns whether it is new.
    pub fn add(&mut self, slot: usize) -> bool {
        let new = !self.has(slot);
        self.words[slot / 64] |= 1 << (slot % 64);
        self.len += usize::from(new);
        new
    }

    /// Adds slots.
    pub fn extend(&mut self, slots: impl IntoIterator<Item = usize>) {
        slots.into_iter().for_each(|slot| _ = self.add(slot));
    }

    /// Takes a slot out; returns whether it was there.
    pub fn remove(&mut self, slot: usize) -> bool {
        let there = self.has(slot);
        self.words[slot / 64] &= !(1 << (slot % 64));
        self.len -= usize::from(there);
        there
    }

    /// Its slots, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(i * 64 + bit)
            })
        })
    }

    /// Its slots as ranges, first and last slot of each.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut slots = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = slots.next()?;
            let mut last = first;
            while slots.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            Some((first, last))
        })
    }

    /// As it stands in messages: the first slot is the lowest bit of the first byte.
    pub fn to_bytes(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.words.iter()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What [`SlotSet::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> SlotSet {
        let mut set = SlotSet::default();
        for (word, from) in set.words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*from);
        }
        set.len = set.words.iter().map(|word| word.count_ones() as usize).sum();
        set
    }
}

impl FromIterator<usize> for SlotSet {
    fn from_iter<I: IntoIterator<Item = usize>>(slots: I) -> SlotSet {
        let mut set = SlotSet::default();
        slots.into_iter().for_each(|slot| _ = set.add(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_are_told_as_ranges() {
        let set: SlotSet = [0, 1, 2, 63, 64, 100, 16383].into_iter().collect();
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(0, 2), (63, 64), (100, 100), (16383, 16383)]);
        assert_eq!(SlotSet::default().ranges().count(), 0);
    }

    proptest! {
        #[test]
        fn it_is_a_set_and_survives_the_wire(steps in prop::collection::vec((any::<bool>(), 0..SLOTS), 0..200)) {
            let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
            for (add, slot) in steps {
                if add {
                    prop_assert_eq!(set.add(slot), model.insert(slot));
                } else {
                    prop_assert_eq!(set.remove(slot), model.remove(&slot));
                }
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(SlotSet::from_bytes(&set.to_bytes()), set);
        }
    }
}
