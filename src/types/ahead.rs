//! The way to an element of a large value, loaded ahead of time: one step after the other for many elements together,
//! so that the misses of all of them overlap.

use crate::stdx::hash::hash_bytes;
use crate::types::hash::field::Field;
use crate::types::member::Member;
use crate::types::table::SharedTable;
use crate::types::zset::{Leaf, Scored, Sorted};

/// Values of fewer elements are most likely in the processor's cache as a whole.
pub const LEAST: usize = 2000;

/// Where an element will be looked for.
pub struct Ahead<'a> {
    table: Elements<'a>,
    hash: u64,
    /// Whether its place in the order is wanted too.
    ordered: bool,
    leaf: Option<&'a Leaf>,
}

/// A value that has its elements by their names in a table.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    /// A hash's.
    Fields(&'a SharedTable<Field>),
    /// A set's.
    Members(&'a SharedTable<Member>),
    /// A sorted set, which has them in order as well.
    Scored(&'a Sorted),
}

impl<'a> Elements<'a> {
    fn len(self) -> usize {
        match self {
            Elements::Fields(table) => table.len(),
            Elements::Members(table) => table.len(),
            Elements::Scored(zset) => zset.len(),
        }
    }

    /// The way to `name`, where it is worth going; with `ordered` to its place in the order as well, if it has one.
    #[inline]
    pub fn ahead(self, name: &[u8], ordered: bool) -> Option<Ahead<'a>> {
        (self.len() >= LEAST).then(|| Ahead { table: self, hash: hash_bytes(name), ordered, leaf: None })
    }
}

impl Ahead<'_> {
    /// The steps, in their order.
    pub const STEPS: [fn(&mut Self); 5] = [
        |ahead| ahead.prefetch_segment(),
        |ahead| ahead.prefetch_places(),
        |ahead| ahead.prefetch_element(),
        |ahead| ahead.prefetch_leaf(),
        |ahead| ahead.prefetch_order(),
    ];

    #[inline]
    fn prefetch_segment(&self) {
        match self.table {
            Elements::Fields(table) => table.prefetch_segment(self.hash),
            Elements::Members(table) => table.prefetch_segment(self.hash),
            Elements::Scored(zset) => zset.index().prefetch_segment(self.hash),
        }
    }

    #[inline]
    fn prefetch_places(&self) {
        match self.table {
            Elements::Fields(table) => table.prefetch(self.hash),
            Elements::Members(table) => table.prefetch(self.hash),
            Elements::Scored(zset) => zset.index().prefetch(self.hash),
        }
    }

    /// The element that it most likely is.
    #[inline]
    fn prefetch_element(&self) {
        match self.table {
            Elements::Fields(table) => table.find(self.hash, |_| true).into_iter().for_each(Field::prefetch),
            Elements::Members(table) => table.find(self.hash, |_| true).into_iter().for_each(Member::prefetch),
            Elements::Scored(zset) => zset.index().find(self.hash, |_| true).into_iter().for_each(Scored::prefetch),
        }
    }
    /// The members around it.
    #[inline]
    fn prefetch_leaf(&mut self) {
        if self.ordered
            && let Elements::Scored(zset) = self.table
        {
            self.leaf = zset.index().find(self.hash, |_| true).map(|member| zset.ask_for_leaf(member));
        }
    }

    /// What they are compared by.
    #[inline]
    fn prefetch_order(&mut self) {
        self.leaf.inspect(|leaf| leaf.prefetch());
    }
}
