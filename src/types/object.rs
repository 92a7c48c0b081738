//! What a key can hold: the six types, and the collections behind five of them.

use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::stream::Stream;
use crate::types::zset::ZSet;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the type of its name")]
pub enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    SortedSet = 3,
    Hash = 4,
    Stream = 5,
}

impl Kind {
    /// Every type, in the order of their numbers.
    pub const ALL: [Kind; 6] = [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash, Kind::Stream];

    /// The type with this number, as an entry's header keeps it.
    #[inline]
    pub fn from_bits(bits: u8) -> Kind {
        Kind::ALL[usize::from(bits)]
    }

    /// The word that TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::Hash => "hash",
            Kind::Stream => "stream",
        }
    }
}

/// A collection: the value of every key that is not a string.
#[derive(Debug)]
pub enum Object {
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A sorted set.
    SortedSet(ZSet),
    /// A hash.
    Hash(Hash),
    /// A stream.
    Stream(Box<Stream>),
}

impl Object {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Object::List(_) => Kind::List,
            Object::Set(_) => Kind::Set,
            Object::SortedSet(_) => Kind::SortedSet,
            Object::Hash(_) => Kind::Hash,
            Object::Stream(_) => Kind::Stream,
        }
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self {
            Object::List(list) => list.encoding(),
            Object::Set(set) => set.encoding(),
            Object::SortedSet(zset) => zset.encoding(),
            Object::Hash(hash) => hash.encoding(),
            Object::Stream(_) => "stream",
        }
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        size_of::<Object>()
            + match self {
                Object::List(list) => list.memory(),
                Object::Set(set) => set.memory(),
                Object::SortedSet(zset) => zset.memory(),
                Object::Hash(hash) => hash.memory(),
                Object::Stream(stream) => size_of::<Stream>() + stream.memory(),
            }
    }

    /// A copy that shares nothing that either can change.
    pub fn copy(&self) -> Object {
        match self {
            Object::List(list) => Object::List(list.clone()),
            Object::Set(set) => Object::Set(set.clone()),
            Object::SortedSet(zset) => Object::SortedSet(zset.clone()),
            Object::Hash(hash) => Object::Hash(hash.clone()),
            Object::Stream(stream) => Object::Stream(stream.clone()),
        }
    }

    /// How many elements it has: what freeing it costs.
    pub fn len(&self) -> usize {
        match self {
            Object::List(list) => list.len(),
            Object::Set(set) => set.len(),
            Object::SortedSet(zset) => zset.len(),
            Object::Hash(hash) => hash.len(),
            Object::Stream(stream) => stream.log.len(),
        }
    }

    /// Whether it has no elements left; a key that holds such a value is removed, but for streams, which stay.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.kind() != Kind::Stream
    }
}
