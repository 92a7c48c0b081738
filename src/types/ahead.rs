//! The way to an element of a large value, loaded ahead of time: one step after the other for many elements together,
//! so that the misses of all of them overlap.

use crate::stdx::hash::hash_bytes;
use crate::types::hash::field::Field;
use crate::types::member::Member;
use crate::types::table::SharedTable;
use crate::types::zset::Scored;

/// Values of fewer elements are most likely in the processor's cache as a whole.
pub const LEAST: usize = 2000;

/// Where an element will be looked for.
pub struct Ahead<'a> {
    table: Elements<'a>,
    hash: u64,
}

/// The table that has a value's elements by their names.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    /// A hash's.
    Fields(&'a SharedTable<Field>),
    /// A set's.
    Members(&'a SharedTable<Member>),
    /// A sorted set's.
    Scored(&'a SharedTable<Scored>),
}

impl<'a> Elements<'a> {
    fn len(self) -> usize {
        match self {
            Elements::Fields(table) => table.len(),
            Elements::Members(table) => table.len(),
            Elements::Scored(table) => table.len(),
        }
    }

    /// The way to `name`, where it is worth going.
    #[inline]
    pub fn ahead(self, name: &[u8]) -> Option<Ahead<'a>> {
        (self.len() >= LEAST).then(|| Ahead { table: self, hash: hash_bytes(name) })
    }
}

impl Ahead<'_> {
    /// The first step.
    #[inline]
    pub fn prefetch_segment(&self) {
        match self.table {
            Elements::Fields(table) => table.prefetch_segment(self.hash),
            Elements::Members(table) => table.prefetch_segment(self.hash),
            Elements::Scored(table) => table.prefetch_segment(self.hash),
        }
    }

    /// The second step.
    #[inline]
    pub fn prefetch_places(&self) {
        match self.table {
            Elements::Fields(table) => table.prefetch(self.hash),
            Elements::Members(table) => table.prefetch(self.hash),
            Elements::Scored(table) => table.prefetch(self.hash),
        }
    }

    /// The last step: the element that it most likely is.
    #[inline]
    pub fn prefetch_element(&self) {
        match self.table {
            Elements::Fields(table) => table.find(self.hash, |_| true).into_iter().for_each(Field::prefetch),
            Elements::Members(table) => table.find(self.hash, |_| true).into_iter().for_each(Member::prefetch),
            Elements::Scored(table) => table.find(self.hash, |_| true).into_iter().for_each(Scored::prefetch),
        }
    }
}
