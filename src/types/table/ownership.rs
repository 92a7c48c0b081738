//! How a table keeps its segments once there are several: for itself, or so that clones share them.
//!
//! What stays true: a segment that two tables share is never written; whoever wants to write copies it first.

use std::ops::Deref;
use std::sync::Arc;

use super::segment::Segment;

/// One of the two ways: [`Owned`] or [`Shared`].
pub trait Ownership<T> {
    /// What leads to a segment.
    type Pointer: Deref<Target = Segment<T>>;
    /// Bytes that one pointer's allocation takes.
    const ALLOCATED: usize;
    /// Whether segments get unequal shares of the hashes, so that they fill at different times: see
    /// `place` in `directory`.
    const UNEVEN: bool;

    /// Keeps a segment.
    fn keep(segment: Segment<T>) -> Self::Pointer;
    /// The segment, to be written: first copied where another table has it too.
    fn write(pointer: &mut Self::Pointer) -> &mut Segment<T>;
    /// The segment itself; a copy where another table has it too.
    fn take(pointer: Self::Pointer) -> Segment<T>;
}

/// Each segment belongs to one table: the least cost, and no clones.
pub enum Owned {}

impl<T> Ownership<T> for Owned {
    type Pointer = Box<Segment<T>>;
    const ALLOCATED: usize = size_of::<Segment<T>>();
    // A keyspace has thousands of these, of different sizes in any case, and gives them hashes of few bits.
    const UNEVEN: bool = false;

    #[inline]
    fn keep(segment: Segment<T>) -> Box<Segment<T>> {
        Box::new(segment)
    }

    #[inline]
    fn write(pointer: &mut Box<Segment<T>>) -> &mut Segment<T> {
        pointer
    }

    #[inline]
    fn take(pointer: Box<Segment<T>>) -> Segment<T> {
        *pointer
    }
}

/// Segments stand behind a reference count: a clone costs a count for each, a write to what is shared a copy of
/// one of them.
pub enum Shared {}

impl<T: Clone> Ownership<T> for Shared {
    type Pointer = Arc<Segment<T>>;
    const ALLOCATED: usize = size_of::<Segment<T>>() + 2 * size_of::<usize>();
    const UNEVEN: bool = true;

    fn keep(segment: Segment<T>) -> Arc<Segment<T>> {
        Arc::new(segment)
    }

    #[inline]
    fn write(pointer: &mut Arc<Segment<T>>) -> &mut Segment<T> {
        Arc::make_mut(pointer)
    }

    fn take(pointer: Arc<Segment<T>>) -> Segment<T> {
        Arc::unwrap_or_clone(pointer)
    }
}
