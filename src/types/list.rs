//! Lists: elements in order, cheap to add and remove at both ends.
//!
//! A small list is one [`Listpack`]. A larger one is a chain of them, each of at most as many bytes or
//! elements as [`Limit`] says, with elements that are too large for that in nodes of their own. When a
//! list becomes a chain and a listpack again can be seen (OBJECT ENCODING) and is just as in Redis. Nodes far from
//! both ends may be compressed, and are opened again where they are changed or come near an end.
//!
//! What must stay true: no node of a chain is empty, `len` is the sum of the nodes' lengths, and as many nodes at each
//! end as the chain's depth says are open. Nodes are shared between clones and copied one at a time when they are changed.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::stdx::lzf;
use crate::types::listpack::{Item, Listpack, Needle, Place};

/// An end of a list, and the direction that begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The left one: index 0, and on to the right.
    Head,
    /// The right one: the last element, and on to the left.
    Tail,
}

/// How much a listpack may hold, and what is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `list-max-listpack-size`.
    pub size: i32,
    /// `list-compress-depth`: how many nodes at each end of a new chain stay open; 0 where all do.
    pub depth: u32,
}

/// A limit of elements is a limit of bytes too.
const SAFE_BYTES: usize = 8192;
/// What an element is taken to need beyond its own bytes when a node is asked for room.
const ELEMENT_OVERHEAD: usize = 8;
/// The counts of owners beside a node.
const COUNTED_BYTES: usize = 16;
/// A smaller node is not compressed.
const SQUEEZED_FROM: usize = 48;
/// Nor one that would not become so much smaller.
const SAVING: usize = 8;

impl Limit {
    /// The most bytes, where the limit is one of bytes: 4 KB for -1, twice as much for each further step to -5.
    fn bytes(self) -> Option<usize> {
        (self.size < 0).then(|| 4096 << (-1 - self.size.max(-5)))
    }

    /// The most elements, where the limit is one of elements.
    fn elements(self) -> usize {
        usize::try_from(self.size).unwrap_or(0).max(1)
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
    /// How many nodes at each end stay open; 0 where all do.
    depth: usize,
}

/// A copy of a list shares its nodes; one that is written is copied first.
#[derive(Debug, Clone)]
enum Node {
    Open(Content),
    Squeezed(Arc<Squeezed>),
}

/// What a node holds.
#[derive(Debug, Clone)]
enum Content {
    Packed(Arc<Listpack>),
    Large(Arc<[u8]>),
}

/// A node that is compressed.
#[derive(Debug)]
pub struct Squeezed {
    bytes: Box<[u8]>,
    /// How many bytes it has when it is open.
    open_bytes: usize,
    /// How many elements a listpack has; `None` for a large element.
    elements: Option<usize>,
}

impl Squeezed {
    /// The compressed bytes, in the form of LZF.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes they stand for.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Whether that is one large element, and no listpack.
    pub fn is_large(&self) -> bool {
        self.elements.is_none()
    }

    fn of(content: &Content) -> Option<Squeezed> {
        let (open, elements) = match content {
            Content::Packed(pack) => (pack.as_bytes(), Some(pack.len())),
            Content::Large(bytes) => (&**bytes, None),
        };
        if open.len() < SQUEEZED_FROM {
            return None;
        }
        let mut bytes = Vec::new();
        lzf::compress(open, SAVING, &mut bytes)?;
        Some(Squeezed { bytes: bytes.into(), open_bytes: open.len(), elements })
    }

    fn open(&self) -> Content {
        let bytes = lzf::decompress(&self.bytes, self.open_bytes).expect("it was compressed here");
        match self.elements {
            Some(_) => Content::packed(Listpack::from_bytes(bytes).expect("it was a listpack")),
            None => Content::Large(bytes.into()),
        }
    }
}

impl Content {
    fn packed(pack: Listpack) -> Content {
        Content::Packed(Arc::new(pack))
    }

    fn len(&self) -> usize {
        match self {
            Content::Packed(pack) => pack.len(),
            Content::Large(_) => 1,
        }
    }

    /// The listpack, where it has room for another element of so many bytes.
    fn room(&mut self, bytes: usize, limit: Limit) -> Option<&mut Listpack> {
        match self {
            Content::Packed(pack)
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
        if let Content::Packed(pack) = self
            && let Some(pack) = Arc::get_mut(pack)
        {
            pack.shrink();
        }
    }
}

impl Node {
    fn new(element: &[u8], limit: Limit) -> Node {
        if limit.is_large(element.len()) {
            return Node::Open(Content::Large(element.into()));
        }
        let mut pack = Listpack::new();
        pack.push_back(element);
        Node::packed(pack)
    }

    fn packed(pack: Listpack) -> Node {
        Node::Open(Content::packed(pack))
    }

    fn part(&self) -> Part<'_> {
        match self {
            Node::Open(Content::Packed(pack)) => Part::Packed(pack),
            Node::Open(Content::Large(bytes)) => Part::Large(bytes),
            Node::Squeezed(squeezed) => Part::Squeezed(squeezed),
        }
    }

    fn content(&self) -> Cow<'_, Content> {
        match self {
            Node::Open(content) => Cow::Borrowed(content),
            Node::Squeezed(squeezed) => Cow::Owned(squeezed.open()),
        }
    }

    /// Its content, to be changed: it is open from then on.
    fn open(&mut self) -> &mut Content {
        if let Node::Squeezed(squeezed) = self {
            *self = Node::Open(squeezed.open());
        }
        match self {
            Node::Open(content) => content,
            Node::Squeezed(_) => unreachable!("it was opened above"),
        }
    }

    /// Compresses it, where that is worth it.
    fn squeeze(&mut self) {
        if let Node::Open(content) = self
            && let Some(squeezed) = Squeezed::of(content)
        {
            *self = Node::Squeezed(Arc::new(squeezed));
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Open(content) => content.len(),
            Node::Squeezed(squeezed) => squeezed.elements.unwrap_or(1),
        }
    }

    /// Bytes and elements of its listpack, where it has one.
    fn pack_size(&self) -> Option<(usize, usize)> {
        match self {
            Node::Open(Content::Packed(pack)) => Some((pack.byte_len(), pack.len())),
            Node::Open(Content::Large(_)) => None,
            Node::Squeezed(squeezed) => squeezed.elements.map(|elements| (squeezed.open_bytes, elements)),
        }
    }

    fn memory(&self) -> usize {
        COUNTED_BYTES
            + match self {
                Node::Open(Content::Packed(pack)) => size_of::<Listpack>() + pack.memory(),
                Node::Open(Content::Large(bytes)) => bytes.len(),
                Node::Squeezed(squeezed) => size_of::<Squeezed>() + squeezed.bytes.len(),
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

    /// How many nodes at each end are kept open; 0 where all are.
    pub fn depth(&self) -> usize {
        match &self.0 {
            Repr::Packed(_) => 0,
            Repr::Chain(chain) => chain.depth,
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
            self.0 = Repr::Chain(Box::new(Chain { nodes, len, depth: limit.depth as usize }));
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
            && let Some(Node::Open(Content::Packed(pack))) = chain.nodes.front_mut()
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
        let mut chain = Chain { depth: limit.depth as usize, ..Chain::default() };
        for part in parts {
            let node = match part {
                OwnedPart::Packed(pack) if pack.is_empty() => continue,
                OwnedPart::Packed(pack) => Node::packed(pack),
                OwnedPart::Large(bytes) => Node::Open(Content::Large(bytes.into())),
            };
            chain.len += node.len();
            chain.nodes.push_back(node);
        }
        chain.settle(0..chain.nodes.len());
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

    /// The nodes with the `count` elements from `start` on, shared, and the index of the first of these in them: to be
    /// read only, as compressed ones may be at their ends.
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

    /// What `f` makes of the element at `index`.
    pub fn get<R>(&self, index: usize, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let (mut f, mut made) = (Some(f), None);
        self.walk(index, End::Head, |item| {
            made = f.take().map(|f| f(item));
            ControlFlow::Break(())
        });
        made
    }

    /// Calls `f` with `count` elements from `index` on, or as many as there are.
    pub fn each(&self, index: usize, count: usize, mut f: impl FnMut(Item<'_>)) {
        let chain = match &self.0 {
            Repr::Packed(pack) => {
                if let Some(first) = pack.seek(index) {
                    pack.each(first, count, f);
                }
                return;
            }
            Repr::Chain(chain) => chain,
        };
        let (first, mut offset) = chain.find(index);
        let mut left = count;
        for node in chain.nodes.range(first..) {
            if left == 0 {
                return;
            }
            left -= match &*node.content() {
                Content::Packed(pack) => pack.seek(offset).map_or(0, |first| pack.each(first, left, &mut f)),
                Content::Large(bytes) => {
                    f(Item::Bytes(bytes));
                    1
                }
            };
            offset = 0;
        }
    }

    /// The same in either direction.
    pub fn take(&self, index: usize, direction: End, count: usize, mut f: impl FnMut(Item<'_>)) {
        if direction == End::Head {
            return self.each(index, count, f);
        }
        let mut left = count;
        if left > 0 {
            self.walk(index, direction, |item| {
                f(item);
                left -= 1;
                if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
    }

    /// The index of the first element that is `needle`.
    pub fn position(&self, needle: &Needle<'_>) -> Option<usize> {
        let (mut at, mut found) = (0, None);
        self.walk(0, End::Head, |item| {
            if needle.is(item) {
                found = Some(at);
                return ControlFlow::Break(());
            }
            at += 1;
            ControlFlow::Continue(())
        });
        found
    }

    /// Calls `f` with the elements from `index` on, to the right for [`End::Head`], to the left for [`End::Tail`], until
    /// it has enough.
    pub fn walk(&self, index: usize, direction: End, mut f: impl FnMut(Item<'_>) -> ControlFlow<()>) {
        // Enough is enough: nothing is left to be said of it.
        let _ = match &self.0 {
            Repr::Packed(pack) => walk(pack, pack.seek(index), direction, &mut f),
            Repr::Chain(chain) => chain.walk(index, direction, &mut f),
        };
    }
}

/// A node, or the whole of a list that is one listpack.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Some elements.
    Packed(&'a Listpack),
    /// One that is too large for a listpack.
    Large(&'a [u8]),
    /// Either, compressed.
    Squeezed(&'a Squeezed),
}

/// A node that is yet to become part of a list.
#[derive(Debug)]
pub enum OwnedPart {
    /// Some elements.
    Packed(Listpack),
    /// One that stands alone.
    Large(Vec<u8>),
}

/// Calls `f` with the elements from `place` on, in one direction, until it has enough.
fn walk(
    pack: &Listpack,
    mut place: Option<Place>,
    direction: End,
    f: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    while let Some(at) = place {
        let (item, next) = match direction {
            End::Head => pack.step(at),
            End::Tail => (pack.at(at), pack.prev(at)),
        };
        f(item)?;
        place = next;
    }
    ControlFlow::Continue(())
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

    /// See [`List::walk`].
    fn walk(&self, index: usize, direction: End, f: &mut impl FnMut(Item<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let (first, offset) = self.find(index);
        let mut visit = |at: usize, node: &Node| match &*node.content() {
            Content::Packed(pack) => {
                let place = match direction {
                    _ if at == first => pack.seek(offset),
                    End::Head => pack.first(),
                    End::Tail => pack.last(),
                };
                walk(pack, place, direction, f)
            }
            Content::Large(bytes) => f(Item::Bytes(bytes)),
        };
        let beyond = (first + 1).min(self.nodes.len());
        match direction {
            End::Head => (first..).zip(self.nodes.range(first..)).try_for_each(|(at, node)| visit(at, node)),
            End::Tail if first == self.nodes.len() => ControlFlow::Continue(()),
            End::Tail => {
                (0..=first).rev().zip(self.nodes.range(..beyond).rev()).try_for_each(|(at, node)| visit(at, node))
            }
        }
    }

    /// Opens the nodes near the ends and compresses those of `touched` that are not: to be called where nodes may have
    /// come near an end, or were changed.
    fn settle(&mut self, touched: Range<usize>) {
        if self.depth == 0 {
            return;
        }
        let count = self.nodes.len();
        for at in 0..self.depth.min(count) {
            self.nodes[at].open();
            self.nodes[count - 1 - at].open();
        }
        let far = self.depth..count.saturating_sub(self.depth);
        for at in touched.start.max(far.start)..touched.end.min(far.end) {
            self.nodes[at].squeeze();
        }
    }

    fn push(&mut self, end: End, element: &[u8], limit: Limit) {
        self.len += 1;
        let node = if end == End::Head { self.nodes.front_mut() } else { self.nodes.back_mut() };
        if let Some(content) = node.map(Node::open) {
            if let Some(pack) = content.room(element.len(), limit) {
                return if end == End::Head { pack.push_front(element) } else { pack.push_back(element) };
            }
            // Most likely nothing is added to it any more.
            content.shrink();
        }
        let node = Node::new(element, limit);
        match end {
            End::Head => {
                self.nodes.push_front(node);
                self.settle(self.depth..self.depth + 1);
            }
            End::Tail => {
                self.nodes.push_back(node);
                let far = self.nodes.len().saturating_sub(self.depth);
                self.settle(far.saturating_sub(1)..far);
            }
        }
    }

    fn insert(&mut self, index: usize, element: &[u8], limit: Limit) {
        let (at, offset) = self.find(index);
        if at == self.nodes.len() {
            return self.push(End::Tail, element, limit);
        }
        self.len += 1;
        self.insert_at(at, offset, element, limit);
        self.settle(at.saturating_sub(1)..at + 3);
        if self.depth > 0 {
            // Two nodes more at most: so many have moved away from an end.
            let far = self.nodes.len().saturating_sub(self.depth);
            self.settle(self.depth..self.depth + 2);
            self.settle(far.saturating_sub(2)..far);
        }
    }

    fn insert_at(&mut self, at: usize, offset: usize, element: &[u8], limit: Limit) {
        if let Some(pack) = self.nodes[at].open().room(element.len(), limit) {
            match pack.seek(offset) {
                Some(place) => pack.insert_before(place, element),
                None => pack.push_back(element),
            }
            return;
        }
        if offset == 0 {
            // Between two nodes: into the left one where it has room, else between them.
            match at.checked_sub(1).and_then(|left| self.nodes[left].open().room(element.len(), limit)) {
                Some(pack) => pack.push_back(element),
                None => self.nodes.insert(at, Node::new(element, limit)),
            }
            return;
        }
        // In the middle of a node without room: it becomes two, and the element goes to the end of the first
        // or between them.
        if let Content::Packed(pack) = self.nodes[at].open() {
            let tail = Node::packed(Arc::make_mut(pack).split_off(offset));
            self.nodes.insert(at + 1, tail);
        }
        match self.nodes[at].open().room(element.len(), limit) {
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
        let size = |at: usize| self.nodes.get(at).and_then(Node::pack_size);
        let (Some(a), Some(b)) = (size(left), size(left + 1)) else { return };
        if limit.exceeded(a.0 + b.0, a.1 + b.1) {
            return;
        }
        if let Some(right) = self.nodes.remove(left + 1)
            && let Content::Packed(b) = &*right.content()
            && let Content::Packed(a) = self.nodes[left].open()
        {
            Arc::make_mut(a).append(b);
        }
    }

    fn set(&mut self, index: usize, element: &[u8], limit: Limit) {
        let (at, offset) = self.find(index);
        match self.nodes.get_mut(at).map(Node::open) {
            Some(Content::Packed(pack)) if !limit.is_large(element.len()) => {
                if let Some(place) = pack.seek(offset) {
                    Arc::make_mut(pack).replace(place, element);
                }
            }
            Some(Content::Large(bytes)) if limit.is_large(element.len()) => *bytes = element.into(),
            Some(_) => {
                self.insert(index, element, limit);
                self.remove_range(index + 1, 1);
            }
            None => {}
        }
        self.settle(at..at + 1);
    }

    fn remove_range(&mut self, start: usize, count: usize) {
        let mut left = count.min(self.len.saturating_sub(start));
        let (mut at, offset) = self.find(start);
        self.len -= left;
        if offset > 0
            && left > 0
            && let Some(Content::Packed(pack)) = self.nodes.get_mut(at).map(Node::open)
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
                if let Content::Packed(pack) = node.open() {
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
        self.settle(at.saturating_sub(1)..at + 1);
    }

    fn remove_equal(&mut self, needle: Needle<'_>, from: End, most: usize) -> usize {
        let mut removed = 0;
        let mut remove_from = |node: &mut Node| {
            // What does not have it is neither copied nor opened for nothing.
            let has = removed < most
                && match &*node.content() {
                    Content::Packed(pack) => pack.first().and_then(|first| pack.find(first, &needle, 0)).is_some(),
                    Content::Large(bytes) => needle.is(Item::Bytes(bytes)),
                };
            if !has {
                return true;
            }
            match node.open() {
                Content::Packed(pack) => {
                    removed += remove_equal(Arc::make_mut(pack), needle, from, most - removed);
                    !pack.is_empty()
                }
                Content::Large(_) => {
                    removed += 1;
                    false
                }
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
        if removed > 0 {
            self.settle(0..self.nodes.len());
        }
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
                let count = chain.nodes.len();
                for (at, node) in chain.nodes.iter().enumerate() {
                    let near = chain.depth == 0 || at.min(count - 1 - at) < chain.depth;
                    match node {
                        Node::Squeezed(squeezed) => {
                            assert!(!near, "node {at} of {count} is compressed, {} are open", chain.depth);
                            assert_eq!(squeezed.open().len(), node.len());
                        }
                        Node::Open(content) => {
                            assert!(near || Squeezed::of(content).is_none(), "node {at} of {count} is not compressed");
                        }
                    }
                }
            }
        }
    }

    fn limit(size: i32) -> Limit {
        Limit { size, depth: 0 }
    }

    /// The elements from `index` on, `count` at most.
    fn some(list: &List, index: usize, direction: End, count: usize) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        list.walk(index, direction, |item| {
            texts.push(item.to_vec());
            if texts.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        texts
    }

    fn texts(list: &List) -> Vec<Vec<u8>> {
        some(list, 0, End::Head, usize::MAX)
    }

    fn push(list: &mut List, element: &[u8], limit: Limit) {
        list.make_room(element.len(), 1, limit);
        list.push(End::Tail, element, limit);
    }

    #[test]
    fn a_list_becomes_a_chain_above_the_limit_and_a_listpack_at_half_of_it() {
        let limit = limit(4);
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
        assert_eq!([-1, -2, -5, -6, i32::MIN].map(|n| limit(n).bytes()), [4096, 8192, 65536, 65536, 65536].map(Some));
        assert_eq!([0, 1, 7].map(|n| limit(n).elements()), [1, 1, 7]);
        let mut list = List::default();
        push(&mut list, &[0; 9000], limit(-2));
        assert_eq!((list.encoding(), list.nodes()), ("quicklist", 1));
        push(&mut list, b"x", limit(-2));
        assert_eq!(list.nodes(), 2);
    }

    #[test]
    fn a_long_list_takes_little_more_than_its_elements() {
        let limit = limit(-2);
        let mut list = List::default();
        for i in 0..100_000 {
            push(&mut list, format!("element:{i:012}").as_bytes(), limit);
        }
        // 20 bytes each, and two of the entry.
        assert!(list.memory() < 100_000 * 23, "{}", list.memory());
        assert_eq!(list.get(77_777, |item| item.to_vec()), Some(b"element:000000077777".to_vec()));
    }

    #[test]
    fn nodes_far_from_the_ends_are_compressed_and_opened_again() {
        let limit = Limit { size: -2, depth: 2 };
        let mut list = List::default();
        for i in 0..20_000 {
            push(&mut list, format!("element:{i:012}").as_bytes(), limit);
        }
        list.check();
        assert!(list.memory() < 20_000 * 12, "{}", list.memory());
        assert_eq!(list.get(10_000, |item| item.to_vec()), Some(b"element:000000010000".to_vec()));
        let before = list.memory();
        list.remove_range(0, 19_000);
        list.check();
        assert!(list.memory() < before);
        assert_eq!(list.get(0, |item| item.to_vec()), Some(b"element:000000019000".to_vec()));
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
            size in prop_oneof![Just(-2), Just(-1), Just(0), Just(1), Just(3), Just(10)],
            depth in 0u32..4,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let limit = Limit { size, depth };
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
                            Part::Squeezed(squeezed) => match squeezed.open() {
                                Content::Packed(pack) => OwnedPart::Packed(Arc::unwrap_or_clone(pack)),
                                Content::Large(bytes) => OwnedPart::Large(bytes.to_vec()),
                            },
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
                prop_assert!(part.len() >= at + count);
                prop_assert_eq!(&some(&part, at, End::Head, count)[..], &model[start..start + count]);
                let mut each = Vec::new();
                list.each(start, count, |item| each.push(item.to_vec()));
                prop_assert_eq!(&each[..], &model[start..start + count]);
            }
            list.each(model.len(), 1, |item| panic!("{item:?} is beyond the end"));
            for i in 0..model.len() {
                prop_assert_eq!(list.get(i, |item| item.to_vec()), model.get(i).cloned());
                prop_assert_eq!(
                    some(&list, i, End::Tail, usize::MAX),
                    model[..=i].iter().rev().cloned().collect::<Vec<_>>()
                );
            }
            prop_assert_eq!(list.get(model.len(), |item| item.to_vec()), None);
            for (clone, model) in &clones {
                clone.check();
                prop_assert_eq!(&texts(clone), model);
            }
        }
    }
}
