//! Lists: elements in order, cheap to add and remove at both ends.
//!
//! A small list is one [`Listpack`]. A larger one is a chain of them, each of at most as many bytes or
//! elements as [`Limit`] says, with elements that are too large for that in nodes of their own. When a
//! list becomes a chain and a listpack again can be seen (OBJECT ENCODING) and is just as in Redis.
//!
//! What must stay true: no node of a chain is empty, and `len` is the sum of the nodes' lengths. Nodes are
//! shared between clones and copied one at a time when they are changed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::types::listpack::{Item, Listpack, Needle, Place};

/// An end of a list, and the direction that begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The left one: index 0, and on to the right.
    Head,
    /// The right one: the last element, and on to the left.
    Tail,
}

/// How much a listpack may hold: `list-max-listpack-size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub i32);

/// A limit of elements is a limit of bytes too.
const SAFE_BYTES: usize = 8192;
/// What an element is taken to need beyond its own bytes when a node is asked for room.
const ELEMENT_OVERHEAD: usize = 8;
/// The counts of owners beside a node.
const COUNTED_BYTES: usize = 16;

impl Limit {
    /// The most bytes, where the limit is one of bytes: 4 KB for -1, twice as much for each further step to -5.
    fn bytes(self) -> Option<usize> {
        (self.0 < 0).then(|| 4096 << (-1 - self.0.max(-5)))
    }

    /// The most elements, where the limit is one of elements.
    fn elements(self) -> usize {
        usize::try_from(self.0).unwrap_or(0).max(1)
    }

    /// Whether so many bytes and elements are too many for one listpack.
    fn exceeded(self, bytes: usize, elements: usize) -> bool {
        match self.bytes() {
            Some(most) => bytes > most,
            None => bytes > SAFE_BYTES || elements > self.elements(),
        }
    }

    /// Whether an element is too large for a listpack.
    fn is_large(self, bytes: usize) -> bool {
        bytes > self.bytes().unwrap_or(SAFE_BYTES)
    }

    /// Whether a chain's only node is small enough to be the whole list: one `part`th of the limit.
    fn allows_listpack(self, bytes: usize, elements: usize, part: usize) -> bool {
        match self.bytes() {
            Some(most) => bytes <= most / part,
            None => elements <= self.elements() / part,
        }
    }
}

/// A list of byte strings.
#[derive(Debug, Clone)]
pub struct List(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Packed(Listpack),
    Chain(Box<Chain>),
}

#[derive(Debug, Clone, Default)]
struct Chain {
    nodes: VecDeque<Node>,
    len: usize,
}

/// A copy of a list shares its nodes; one that is written is copied first.
#[derive(Debug, Clone)]
enum Node {
    Packed(Arc<Listpack>),
    Large(Arc<[u8]>),
}

impl Node {
    fn new(element: &[u8], limit: Limit) -> Node {
        if limit.is_large(element.len()) {
            return Node::Large(element.into());
        }
        let mut pack = Listpack::new();
        pack.push_back(element);
        Node::packed(pack)
    }

    fn packed(pack: Listpack) -> Node {
        Node::Packed(Arc::new(pack))
    }

    fn part(&self) -> Part<'_> {
        match self {
            Node::Packed(pack) => Part::Packed(pack),
            Node::Large(bytes) => Part::Large(bytes),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Packed(pack) => pack.len(),
            Node::Large(_) => 1,
        }
    }

    /// The listpack, where it has room for another element of so many bytes.
    fn room(&mut self, bytes: usize, limit: Limit) -> Option<&mut Listpack> {
        match self {
            Node::Packed(pack)
                if !limit.is_large(bytes)
                    && !limit.exceeded(pack.byte_len() + bytes + ELEMENT_OVERHEAD, pack.len() + 1) =>
            {
                Some(Arc::make_mut(pack))
            }
            _ => None,
        }
    }

    fn shrink(&mut self) {
        // One that a copy shares was shrunk, or will be when that is written.
        if let Node::Packed(pack) = self
            && let Some(pack) = Arc::get_mut(pack)
        {
            pack.shrink();
        }
    }

    fn memory(&self) -> usize {
        match self {
            Node::Packed(pack) => COUNTED_BYTES + size_of::<Listpack>() + pack.memory(),
            Node::Large(bytes) => COUNTED_BYTES + bytes.len(),
        }
    }
}

impl Default for List {
    fn default() -> List {
        List(Repr::Packed(Listpack::new()))
    }
}

impl List {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Packed(pack) => pack.len(),
            Repr::Chain(chain) => chain.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Packed(_) => "listpack",
            Repr::Chain(_) => "quicklist",
        }
    }

    /// How many nodes it consists of.
    pub fn nodes(&self) -> usize {
        match &self.0 {
            Repr::Packed(_) => 1,
            Repr::Chain(chain) => chain.nodes.len(),
        }
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Repr::Packed(pack) => pack.memory(),
            Repr::Chain(chain) => {
                chain.nodes.capacity() * size_of::<Node>() + chain.nodes.iter().map(Node::memory).sum::<usize>()
            }
        }
    }

    /// Says that so many elements of so many bytes in all are about to be added: makes the list a chain where
    /// they are too many for a listpack.
    pub fn make_room(&mut self, bytes: usize, elements: usize, limit: Limit) {
        if let Repr::Packed(pack) = &mut self.0
            && limit.exceeded(pack.byte_len() + bytes, pack.len() + elements)
        {
            let (len, pack) = (pack.len(), std::mem::take(pack));
            let nodes = if pack.is_empty() { VecDeque::new() } else { VecDeque::from([Node::packed(pack)]) };
            self.0 = Repr::Chain(Box::new(Chain { nodes, len }));
        }
    }

    /// Makes the list a listpack where it is small enough: to be called after elements were removed.
    ///
    /// That is half of what would make it a chain, so that a list that grows and shrinks around the limit is not
    /// converted each time.
    pub fn shrink(&mut self, limit: Limit) {
        self.pack_if(limit, 2);
    }

    fn pack_if(&mut self, limit: Limit, part: usize) {
        if let Repr::Chain(chain) = &mut self.0
            && chain.nodes.len() == 1
            && let Some(Node::Packed(pack)) = chain.nodes.front_mut()
            && limit.allows_listpack(pack.byte_len(), chain.len, part)
        {
            let mut pack = Arc::unwrap_or_clone(std::mem::take(pack));
            pack.shrink();
            self.0 = Repr::Packed(pack);
        } else if let Repr::Chain(chain) = &self.0
            && chain.nodes.is_empty()
        {
            self.0 = Repr::Packed(Listpack::new());
        }
    }

    /// The list of these nodes, as a file holds them; empty listpacks are left out. It is a chain unless one
    /// listpack within the limit is all of it.
    pub fn from_parts(parts: impl IntoIterator<Item = OwnedPart>, limit: Limit) -> List {
        let mut chain = Chain::default();
        for part in parts {
            let node = match part {
                OwnedPart::Packed(pack) if pack.is_empty() => continue,
                OwnedPart::Packed(pack) => Node::Packed(Arc::new(pack)),
                OwnedPart::Large(bytes) => Node::Large(bytes.into()),
            };
            chain.len += node.len();
            chain.nodes.push_back(node);
        }
        let mut list = List(Repr::Chain(Box::new(chain)));
        list.pack_if(limit, 1);
        list
    }

    /// Its nodes, for a file.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let (one, many) = match &self.0 {
            Repr::Packed(pack) => (Some(Part::Packed(pack)), None),
            Repr::Chain(chain) => (None, Some(chain.nodes.iter().map(Node::part))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Adds an element at one end; [`List::make_room`] comes first.
    pub fn push(&mut self, end: End, element: &[u8], limit: Limit) {
        match (&mut self.0, end) {
            (Repr::Packed(pack), End::Head) => pack.push_front(element),
            (Repr::Packed(pack), End::Tail) => pack.push_back(element),
            (Repr::Chain(chain), end) => chain.push(end, element, limit),
        }
    }

    /// Adds an element before the one at `index`, or behind the last where `index` is the length.
    pub fn insert(&mut self, index: usize, element: &[u8], limit: Limit) {
        self.make_room(element.len(), 1, limit);
        match &mut self.0 {
            Repr::Packed(pack) => match pack.seek(index) {
                Some(place) => pack.insert_before(place, element),
                None => pack.push_back(element),
            },
            Repr::Chain(chain) => chain.insert(index, element, limit),
        }
    }

    /// Replaces the element at `index`, which must exist.
    pub fn set(&mut self, index: usize, element: &[u8], limit: Limit) {
        self.make_room(element.len(), 1, limit);
        match &mut self.0 {
            Repr::Packed(pack) => {
                if let Some(place) = pack.seek(index) {
                    pack.replace(place, element);
                }
            }
            Repr::Chain(chain) => chain.set(index, element, limit),
        }
        self.shrink(limit);
    }

    /// Removes `count` elements from `start` on, or as many as there are.
    pub fn remove_range(&mut self, start: usize, count: usize) {
        match &mut self.0 {
            Repr::Packed(pack) => pack.remove_range(start, count),
            Repr::Chain(chain) => chain.remove_range(start, count),
        }
    }

    /// Removes the first `most` elements, seen from an end, that are `needle`; returns how many there were.
    pub fn remove_equal(&mut self, needle: Needle<'_>, from: End, most: usize) -> usize {
        match &mut self.0 {
            Repr::Packed(pack) => remove_equal(pack, needle, from, most),
            Repr::Chain(chain) => chain.remove_equal(needle, from, most),
        }
    }

    /// The nodes with the `count` elements from `start` on, shared, and the index of the first of these in them.
    pub fn share(&self, start: usize, count: usize) -> (List, usize) {
        let Repr::Chain(chain) = &self.0 else { return (self.clone(), start) };
        let (at, offset) = chain.find(start);
        let mut part = Chain::default();
        for node in chain.nodes.range(at..) {
            if part.len >= offset + count {
                break;
            }
            part.len += node.len();
            part.nodes.push_back(node.clone());
        }
        (List(Repr::Chain(Box::new(part))), offset)
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        self.iter(index, End::Head).next()
    }

    /// Calls `f` with `count` elements from `index` on, or as many as there are.
    pub fn each<'a>(&'a self, index: usize, count: usize, mut f: impl FnMut(Item<'a>)) {
        let nodes = match &self.0 {
            Repr::Packed(pack) => {
                if let Some(first) = pack.seek(index) {
                    pack.each(first, count, f);
                }
                return;
            }
            Repr::Chain(chain) => chain,
        };
        let (first, offset) = nodes.find(index);
        let (mut offset, mut left) = (offset, count);
        let mut node = first;
        while left > 0
            && let Some(part) = nodes.nodes.get(node).map(Node::part)
        {
            left -= match part {
                Part::Packed(pack) => pack.seek(offset).map_or(0, |first| pack.each(first, left, &mut f)),
                Part::Large(bytes) => {
                    f(Item::Bytes(bytes));
                    1
                }
            };
            (node, offset) = (node + 1, 0);
        }
    }

    /// The elements from `index` on: to the right for [`End::Head`], to the left for [`End::Tail`].
    pub fn iter(&self, index: usize, direction: End) -> Iter<'_> {
        let (node, offset) = match &self.0 {
            Repr::Packed(_) => (0, index),
            Repr::Chain(chain) => chain.find(index),
        };
        let mut iter = Iter { list: self, direction, node, place: None };
        iter.place = match iter.part(node) {
            Some(Part::Packed(pack)) => pack.seek(offset).map(Some),
            Some(Part::Large(_)) => Some(None),
            None => None,
        };
        iter
    }
}

/// A node, or the whole of a list that is one listpack.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Some elements.
    Packed(&'a Listpack),
    /// One that is too large for a listpack.
    Large(&'a [u8]),
}

/// A node that is yet to become part of a list.
#[derive(Debug)]
pub enum OwnedPart {
    /// Some elements.
    Packed(Listpack),
    /// One that stands alone.
    Large(Vec<u8>),
}

/// Elements of a list in one direction.
pub struct Iter<'a> {
    list: &'a List,
    direction: End,
    node: usize,
    /// Where the next element is: in the node's listpack, or (the inner `None`) it is the node itself.
    place: Option<Option<Place>>,
}

impl<'a> Iter<'a> {
    fn part(&self, node: usize) -> Option<Part<'a>> {
        match &self.list.0 {
            Repr::Packed(pack) => (node == 0).then_some(Part::Packed(pack)),
            Repr::Chain(chain) => chain.nodes.get(node).map(Node::part),
        }
    }

    /// Goes to the near end of the next node.
    fn next_node(&mut self) {
        let next = match self.direction {
            End::Head => Some(self.node + 1),
            End::Tail => self.node.checked_sub(1),
        };
        self.place = next.and_then(|next| {
            self.node = next;
            Some(match (self.part(next)?, self.direction) {
                (Part::Packed(pack), End::Head) => Some(pack.first()?),
                (Part::Packed(pack), End::Tail) => Some(pack.last()?),
                (Part::Large(_), _) => None,
            })
        });
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let place = self.place?;
        match (self.part(self.node)?, place) {
            (Part::Packed(pack), Some(place)) => {
                let (item, next) = match self.direction {
                    End::Head => pack.step(place),
                    End::Tail => (pack.at(place), pack.prev(place)),
                };
                match next {
                    Some(next) => self.place = Some(Some(next)),
                    None => self.next_node(),
                }
                Some(item)
            }
            (Part::Large(bytes), None) => {
                self.next_node();
                Some(Item::Bytes(bytes))
            }
            _ => None,
        }
    }
}

fn remove_equal(pack: &mut Listpack, needle: Needle<'_>, from: End, most: usize) -> usize {
    let mut removed = 0;
    let mut next = if from == End::Head { pack.first() } else { pack.last() };
    while removed < most
        && let Some(place) = next
    {
        let found = needle.is(pack.at(place));
        next = match from {
            End::Head if found => pack.remove(place),
            End::Head => pack.next(place),
            End::Tail => {
                // What stands before is not moved by the removal.
                let prev = pack.prev(place);
                if found {
                    pack.remove(place);
                }
                prev
            }
        };
        removed += usize::from(found);
    }
    removed
}

impl Chain {
    /// The node that holds the element at `index`, and its index there; behind the end the number of nodes.
    fn find(&self, index: usize) -> (usize, usize) {
        if index >= self.len {
            return (self.nodes.len(), 0);
        }
        let mut left = index;
        if index <= self.len / 2 {
            for (i, node) in self.nodes.iter().enumerate() {
                let len = node.len();
                if left < len {
                    return (i, left);
                }
                left -= len;
            }
        } else {
            let mut behind = self.len - index;
            for (i, node) in self.nodes.iter().enumerate().rev() {
                let len = node.len();
                if behind <= len {
                    return (i, len - behind);
                }
                behind -= len;
            }
        }
        (self.nodes.len(), 0)
    }

    fn push(&mut self, end: End, element: &[u8], limit: Limit) {
        self.len += 1;
        let node = if end == End::Head { self.nodes.front_mut() } else { self.nodes.back_mut() };
        if let Some(node) = node {
            if let Some(pack) = node.room(element.len(), limit) {
                return if end == End::Head { pack.push_front(element) } else { pack.push_back(element) };
            }
            // Most likely nothing is added to it any more.
            node.shrink();
        }
        let node = Node::new(element, limit);
        if end == End::Head { self.nodes.push_front(node) } else { self.nodes.push_back(node) }
    }

    fn insert(&mut self, index: usize, element: &[u8], limit: Limit) {
        let (at, offset) = self.find(index);
        if at == self.nodes.len() {
            return self.push(End::Tail, element, limit);
        }
        self.len += 1;
        if let Some(pack) = self.nodes[at].room(element.len(), limit) {
            match pack.seek(offset) {
                Some(place) => pack.insert_before(place, element),
                None => pack.push_back(element),
            }
            return;
        }
        if offset == 0 {
            // Between two nodes: into the left one where it has room, else between them.
            match at.checked_sub(1).and_then(|left| self.nodes[left].room(element.len(), limit)) {
                Some(pack) => pack.push_back(element),
                None => self.nodes.insert(at, Node::new(element, limit)),
            }
            return;
        }
        // In the middle of a node without room: it becomes two, and the element goes to the end of the first
        // or between them.
        if let Node::Packed(pack) = &mut self.nodes[at] {
            let tail = Node::packed(Arc::make_mut(pack).split_off(offset));
            self.nodes.insert(at + 1, tail);
        }
        match self.nodes[at].room(element.len(), limit) {
            Some(pack) => pack.push_back(element),
            None => self.nodes.insert(at + 1, Node::new(element, limit)),
        }
        // From the right, so that indexes stay good.
        for left in (at.saturating_sub(1)..=at + 2).rev() {
            self.merge(left, limit);
        }
    }

    /// Joins a node with the one behind it, where both fit into one.
    fn merge(&mut self, left: usize, limit: Limit) {
        let (Some(Node::Packed(a)), Some(Node::Packed(b))) = (self.nodes.get(left), self.nodes.get(left + 1)) else {
            return;
        };
        if limit.exceeded(a.byte_len() + b.byte_len(), a.len() + b.len()) {
            return;
        }
        if let Some(Node::Packed(b)) = self.nodes.remove(left + 1)
            && let Some(Node::Packed(a)) = self.nodes.get_mut(left)
        {
            Arc::make_mut(a).append(&b);
        }
    }

    fn set(&mut self, index: usize, element: &[u8], limit: Limit) {
        let (at, offset) = self.find(index);
        match self.nodes.get_mut(at) {
            Some(Node::Packed(pack)) if !limit.is_large(element.len()) => {
                if let Some(place) = pack.seek(offset) {
                    Arc::make_mut(pack).replace(place, element);
                }
            }
            Some(Node::Large(bytes)) if limit.is_large(element.len()) => *bytes = element.into(),
            Some(_) => {
                self.insert(index, element, limit);
                self.remove_range(index + 1, 1);
            }
            None => {}
        }
    }

    fn remove_range(&mut self, start: usize, count: usize) {
        let mut left = count.min(self.len.saturating_sub(start));
        let (mut at, offset) = self.find(start);
        self.len -= left;
        if offset > 0
            && left > 0
            && let Some(Node::Packed(pack)) = self.nodes.get_mut(at)
        {
            let here = left.min(pack.len() - offset);
            Arc::make_mut(pack).remove_range(offset, here);
            left -= here;
            at += 1;
        }
        // Whole nodes, and the beginning of the last.
        let mut whole = at;
        while left > 0
            && let Some(node) = self.nodes.get_mut(whole)
        {
            let len = node.len();
            if len > left {
                if let Node::Packed(pack) = node {
                    Arc::make_mut(pack).remove_range(0, left);
                }
                break;
            }
            left -= len;
            whole += 1;
        }
        if whole == at + 1 {
            self.nodes.remove(at);
        } else {
            self.nodes.drain(at..whole);
        }
    }

    fn remove_equal(&mut self, needle: Needle<'_>, from: End, most: usize) -> usize {
        let mut removed = 0;
        let mut remove_from = |node: &mut Node| {
            let here = match node {
                // What does not have it is not copied for nothing.
                Node::Packed(pack) => match pack.first().and_then(|first| pack.find(first, &needle, 0)) {
                    Some(_) if removed < most => remove_equal(Arc::make_mut(pack), needle, from, most - removed),
                    _ => 0,
                },
                Node::Large(bytes) => usize::from(removed < most && needle.is(Item::Bytes(bytes))),
            };
            removed += here;
            match node {
                Node::Packed(pack) => !pack.is_empty(),
                Node::Large(_) => here == 0,
            }
        };
        if from == End::Head {
            self.nodes.retain_mut(remove_from);
        } else {
            for at in (0..self.nodes.len()).rev() {
                if !remove_from(&mut self.nodes[at]) {
                    self.nodes.remove(at);
                }
            }
        }
        self.len -= removed;
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl List {
        /// Whether the representation is what it must be.
        fn check(&self) {
            if let Repr::Chain(chain) = &self.0 {
                assert_eq!(chain.len, chain.nodes.iter().map(Node::len).sum::<usize>());
                assert!(chain.nodes.iter().all(|node| node.len() > 0));
            }
        }
    }

    fn texts(list: &List) -> Vec<Vec<u8>> {
        list.iter(0, End::Head).map(Item::to_vec).collect()
    }

    fn push(list: &mut List, element: &[u8], limit: Limit) {
        list.make_room(element.len(), 1, limit);
        list.push(End::Tail, element, limit);
    }

    #[test]
    fn a_list_becomes_a_chain_above_the_limit_and_a_listpack_at_half_of_it() {
        let limit = Limit(4);
        let mut list = List::default();
        let mut encodings = Vec::new();
        for i in 0..6 {
            push(&mut list, &[b'a' + i], limit);
            encodings.push(list.encoding());
        }
        assert_eq!(encodings, ["listpack", "listpack", "listpack", "listpack", "quicklist", "quicklist"]);
        assert_eq!(list.nodes(), 2);
        let mut shrunk = Vec::new();
        while !list.is_empty() {
            list.remove_range(list.len() - 1, 1);
            list.shrink(limit);
            shrunk.push(list.encoding());
        }
        assert_eq!(shrunk[..4], ["quicklist", "quicklist", "quicklist", "listpack"]);
    }

    #[test]
    fn negative_limits_are_bytes_and_all_limits_are_within_reason() {
        assert_eq!([-1, -2, -5, -6, i32::MIN].map(|n| Limit(n).bytes()), [4096, 8192, 65536, 65536, 65536].map(Some));
        assert_eq!([0, 1, 7].map(|n| Limit(n).elements()), [1, 1, 7]);
        let mut list = List::default();
        push(&mut list, &[0; 9000], Limit(-2));
        assert_eq!((list.encoding(), list.nodes()), ("quicklist", 1));
        push(&mut list, b"x", Limit(-2));
        assert_eq!(list.nodes(), 2);
    }

    #[test]
    fn a_long_list_takes_little_more_than_its_elements() {
        let limit = Limit(-2);
        let mut list = List::default();
        for i in 0..100_000 {
            push(&mut list, format!("element:{i:012}").as_bytes(), limit);
        }
        // 20 bytes each, and two of the entry.
        assert!(list.memory() < 100_000 * 23, "{}", list.memory());
        assert_eq!(list.get(77_777).map(Item::to_vec), Some(b"element:000000077777".to_vec()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(bool, Vec<u8>),
        Insert(usize, Vec<u8>),
        Set(usize, Vec<u8>),
        RemoveRange(usize, usize),
        RemoveEqual(bool, Vec<u8>, usize),
        Shrink,
        Clone,
        Rebuild,
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => (0i64..6).prop_map(|n| n.to_string().into_bytes()),
            2 => (0usize..600).prop_map(|n| vec![b'm'; n]),
            1 => (8000usize..9000).prop_map(|n| vec![b'l'; n]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<bool>(), element()).prop_map(|(e, v)| Step::Push(e, v)),
            3 => (0usize..60, element()).prop_map(|(i, v)| Step::Insert(i, v)),
            2 => (0usize..60, element()).prop_map(|(i, v)| Step::Set(i, v)),
            1 => (0usize..60, 0usize..20).prop_map(|(i, n)| Step::RemoveRange(i, n)),
            1 => (any::<bool>(), element(), 1usize..5).prop_map(|(e, v, n)| Step::RemoveEqual(e, v, n)),
            1 => Just(Step::Shrink),
            1 => Just(Step::Clone),
            1 => Just(Step::Rebuild),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_vector_holds_and_a_copy_stays_what_it_was(
            limit in prop_oneof![Just(-2), Just(-1), Just(0), Just(1), Just(3), Just(10)],
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let limit = Limit(limit);
            let (mut list, mut model) = (List::default(), Vec::<Vec<u8>>::new());
            let mut clones = Vec::new();
            for step in steps {
                match step {
                    Step::Push(head, v) => {
                        list.make_room(v.len(), 1, limit);
                        list.push(if head { End::Head } else { End::Tail }, &v, limit);
                        model.insert(if head { 0 } else { model.len() }, v);
                    }
                    Step::Insert(i, v) => if i <= model.len() { list.insert(i, &v, limit); model.insert(i, v) }
                    Step::Set(i, v) => if i < model.len() { list.set(i, &v, limit); model[i] = v }
                    Step::RemoveRange(i, n) => {
                        list.remove_range(i, n);
                        if i < model.len() { model.drain(i..(i + n).min(model.len())); }
                    }
                    Step::RemoveEqual(head, v, n) => {
                        let at: Vec<usize> = (0..model.len()).filter(|&i| model[i] == v).collect();
                        let at: Vec<usize> = if head { at.into_iter().take(n).collect() } else { at.into_iter().rev().take(n).rev().collect() };
                        let removed = list.remove_equal(Needle::new(&v), if head { End::Head } else { End::Tail }, n);
                        prop_assert_eq!(removed, at.len());
                        at.into_iter().rev().for_each(|i| { model.remove(i); });
                    }
                    Step::Shrink => list.shrink(limit),
                    Step::Clone => clones.push((list.clone(), model.clone())),
                    Step::Rebuild => {
                        let parts: Vec<OwnedPart> = list.parts().map(|part| match part {
                            Part::Packed(pack) => OwnedPart::Packed(pack.clone()),
                            Part::Large(bytes) => OwnedPart::Large(bytes.to_vec()),
                        }).collect();
                        list = List::from_parts(parts, limit);
                    }
                }
                list.check();
                prop_assert_eq!(list.len(), model.len());
            }
            prop_assert_eq!(&texts(&list), &model);
            for start in 0..model.len() {
                let count = (model.len() - start).min(7);
                let (part, at) = list.share(start, count);
                part.check();
                let shared: Vec<_> = part.iter(at, End::Head).take(count).map(Item::to_vec).collect();
                prop_assert_eq!(&shared[..], &model[start..start + count]);
                let mut each = Vec::new();
                list.each(start, count, |item| each.push(item.to_vec()));
                prop_assert_eq!(&each[..], &model[start..start + count]);
            }
            list.each(model.len(), 1, |item| panic!("{item:?} is beyond the end"));
            for i in 0..model.len() {
                prop_assert_eq!(list.get(i).map(Item::to_vec), model.get(i).cloned());
                prop_assert_eq!(
                    list.iter(i, End::Tail).map(Item::to_vec).collect::<Vec<_>>(),
                    model[..=i].iter().rev().cloned().collect::<Vec<_>>()
                );
            }
            prop_assert_eq!(list.get(model.len()), None);
            for (clone, model) in &clones {
                clone.check();
                prop_assert_eq!(&texts(clone), model);
            }
        }
    }
}
