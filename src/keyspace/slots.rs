//! The tables of 64 neighbouring slots, allocated eight at a time.
//!
//! A hundred keys are spread over as many slots. If all tables of a shard came with its first key, each of those keys
//! would cost kilobytes, and a memory limit that is close to what an empty server takes could not be kept.
//!
//! What must stay true: a group is there just while one of its tables has an element, once whoever takes elements out
//! has called [`Slots::release`].

use crate::keyspace::entry::Entry;
use crate::keyspace::shard::SLOTS_PER_SHARD;
use crate::types::table::Table;

/// Slots whose tables are allocated together.
const GROUP: usize = 8;

type Group = [Table<Entry>; GROUP];

const EMPTY: &Table<Entry> = &Table::new();

/// The tables of a part's slots.
#[derive(Debug, Default)]
pub struct Slots {
    groups: [Option<Box<Group>>; SLOTS_PER_SHARD / GROUP],
}

impl Slots {
    /// A slot's table.
    #[inline]
    pub fn table(&self, slot: usize) -> &Table<Entry> {
        self.groups[slot / GROUP].as_deref().map_or(EMPTY, |group| &group[slot % GROUP])
    }

    /// A slot's table, if it may have an element.
    #[inline]
    pub fn table_mut(&mut self, slot: usize) -> Option<&mut Table<Entry>> {
        Some(&mut self.groups[slot / GROUP].as_deref_mut()?[slot % GROUP])
    }

    /// A slot's table, to have an element added.
    #[inline]
    pub fn table_or_new(&mut self, slot: usize) -> &mut Table<Entry> {
        let group = self.groups[slot / GROUP].get_or_insert_with(|| Box::new([const { Table::new() }; GROUP]));
        &mut group[slot % GROUP]
    }

    /// Gives back what only empty tables need: to be called when `slot` has lost its last element, with the bits of the
    /// slots that have some.
    #[inline]
    pub fn release(&mut self, slot: usize, filled: u64) {
        let group = slot / GROUP;
        if filled >> (group * GROUP) & ((1 << GROUP) - 1) == 0 {
            self.groups[group] = None;
        }
    }

    /// All tables that may have an element.
    pub fn iter(&self) -> impl Iterator<Item = &Table<Entry>> {
        self.groups.iter().flatten().flat_map(|group| group.iter())
    }

    /// The tables themselves.
    pub fn into_tables(self) -> impl Iterator<Item = Table<Entry>> {
        self.groups.into_iter().flatten().flat_map(|group| *group)
    }

    /// Bytes of the tables, without the entries.
    pub fn allocated_bytes(&self) -> usize {
        let groups = self.groups.iter().flatten().count();
        groups * size_of::<Group>() + self.iter().map(Table::allocated_bytes).sum::<usize>()
    }
}
