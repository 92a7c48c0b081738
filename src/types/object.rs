//! What a key can hold: the six types, and the collections behind five of them.

use crate::types::ahead::Elements;
use crate::types::dense::{Dense, Run};
use crate::types::hash::Hash;
use crate::types::hash::view::HashRef;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::stream::Stream;
use crate::types::zset::ZSet;
use crate::types::zset::view::ZSetRef;

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

    /// The collection, to be read.
    #[inline]
    pub fn view(&self) -> ObjectRef<'_> {
        match self {
            Object::List(list) => ObjectRef::List(list),
            Object::Set(set) => ObjectRef::Set(set),
            Object::SortedSet(zset) => ObjectRef::SortedSet(zset.view()),
            Object::Hash(hash) => ObjectRef::Hash(hash.view()),
            Object::Stream(stream) => ObjectRef::Stream(stream),
        }
    }

    /// The collection that a dense run is; `kind` is one of those that can be.
    #[inline]
    pub fn from_dense(kind: Kind, dense: Dense) -> Object {
        match kind {
            Kind::Hash => Object::Hash(Hash::from_dense(dense)),
            Kind::SortedSet => Object::SortedSet(ZSet::from_dense(dense)),
            _ => unreachable!("only hashes and sorted sets are ever dense"),
        }
    }

    /// The dense run that it is, where it is that small.
    #[inline]
    pub fn dense(&self) -> Option<&Dense> {
        match self {
            Object::SortedSet(zset) => zset.dense(),
            Object::Hash(hash) => hash.dense(),
            Object::List(_) | Object::Set(_) | Object::Stream(_) => None,
        }
    }

    /// How many elements it has: what freeing it costs.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether it has no elements left; a key that holds such a value is removed, but for streams, which stay.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
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
}

/// A collection, borrowed: from an [`Object`], or from the entry that a small one stands in.
#[derive(Clone, Copy)]
pub enum ObjectRef<'a> {
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A sorted set.
    SortedSet(ZSetRef<'a>),
    /// A hash.
    Hash(HashRef<'a>),
    /// A stream.
    Stream(&'a Stream),
}

impl<'a> ObjectRef<'a> {
    /// The collection of this kind that a dense run is. See [`Object::from_dense`].
    #[inline]
    pub fn from_dense(kind: Kind, run: Run<'a>) -> ObjectRef<'a> {
        match kind {
            Kind::Hash => ObjectRef::Hash(HashRef::dense(run)),
            Kind::SortedSet => ObjectRef::SortedSet(ZSetRef::dense(run)),
            _ => unreachable!("only hashes and sorted sets are ever dense"),
        }
    }

    /// The table that has its elements by their names, where it is large and has one.
    #[inline]
    pub fn elements(self) -> Option<Elements<'a>> {
        match self {
            ObjectRef::Hash(hash) => hash.elements(),
            ObjectRef::Set(set) => set.elements(),
            ObjectRef::SortedSet(zset) => zset.elements(),
            ObjectRef::List(_) | ObjectRef::Stream(_) => None,
        }
    }

    /// Its type.
    pub fn kind(self) -> Kind {
        match self {
            ObjectRef::List(_) => Kind::List,
            ObjectRef::Set(_) => Kind::Set,
            ObjectRef::SortedSet(_) => Kind::SortedSet,
            ObjectRef::Hash(_) => Kind::Hash,
            ObjectRef::Stream(_) => Kind::Stream,
        }
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(self) -> &'static str {
        match self {
            ObjectRef::List(list) => list.encoding(),
            ObjectRef::Set(set) => set.encoding(),
            ObjectRef::SortedSet(zset) => zset.encoding(),
            ObjectRef::Hash(hash) => hash.encoding(),
            ObjectRef::Stream(_) => "stream",
        }
    }

    /// Bytes that it takes, where it is an [`Object`].
    pub fn memory(self) -> usize {
        size_of::<Object>()
            + match self {
                ObjectRef::List(list) => list.memory(),
                ObjectRef::Set(set) => set.memory(),
                ObjectRef::SortedSet(zset) => zset.memory(),
                ObjectRef::Hash(hash) => hash.memory(),
                ObjectRef::Stream(stream) => size_of::<Stream>() + stream.memory(),
            }
    }

    /// How many elements it has.
    pub fn len(self) -> usize {
        match self {
            ObjectRef::List(list) => list.len(),
            ObjectRef::Set(set) => set.len(),
            ObjectRef::SortedSet(zset) => zset.len(),
            ObjectRef::Hash(hash) => hash.len(),
            ObjectRef::Stream(stream) => stream.log.len(),
        }
    }

    /// Whether it has none left. See [`Object::is_empty`].
    pub fn is_empty(self) -> bool {
        match self {
            ObjectRef::List(list) => list.is_empty(),
            ObjectRef::Set(set) => set.is_empty(),
            ObjectRef::SortedSet(zset) => zset.is_empty(),
            ObjectRef::Hash(hash) => hash.is_empty(),
            ObjectRef::Stream(_) => false,
        }
    }
}
