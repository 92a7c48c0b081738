//! Members in order: a counted B+tree.
//!
//! Leaves hold handles to members, inner nodes how many members each child has and what parts it from the one
//! before. So the member of a rank, the rank of a member and either end of a range are found on one way down. A leaf
//! keeps the upper 48 bits of each score beside the handle: 32 in an array of their own and 16 in the handle, so that
//! most comparisons look at no member.
//!
//! Nodes are shared by clones of a tree and copied one at a time when one of them is written.
//!
//! What must stay true: members ascend by (score, bytes); all leaves are equally deep; no node but the root of
//! an empty tree is empty; a separator is above all that is left of it, and not above what is right of it (it may be a
//! member that is long gone); the counts are right.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::member::Member;
use crate::types::table::prefetch::prefetch;

/// A leaf with so many members is split before another is added.
const LEAF_MOST: usize = 128;
/// An inner node with so many children is split before another is added.
const INNER_MOST: usize = 64;
/// Leaves grow by so many members: room for half a leaf would be a third of the whole tree.
const LEAF_STEP: usize = 16;

/// What members are sorted by.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    order: u64,
    bytes: &'a [u8],
}

impl<'a> Key<'a> {
    /// The place of a member with this score.
    pub fn new(score: f64, bytes: &'a [u8]) -> Key<'a> {
        Key { order: order(score), bytes }
    }

    fn of(member: &'a Member) -> Key<'a> {
        Key::new(member.score(), member.bytes())
    }

    fn high(&self) -> u32 {
        (self.order >> 32) as u32
    }

    fn tag(&self) -> u16 {
        (self.order >> 16) as u16
    }

    fn cmp(&self, other: &Key<'_>) -> Ordering {
        self.order.cmp(&other.order).then_with(|| self.bytes.cmp(other.bytes))
    }
}

/// A number that is ordered as scores are; both zeros are equal.
#[inline]
fn order(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 { bits ^ 1 << 63 } else { !bits }
}

/// See the [module](self).
#[derive(Clone)]
pub struct Tree {
    root: Node,
}

#[derive(Clone)]
enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// Members next to each other.
#[derive(Default)]
pub struct Leaf {
    /// Bits 32 to 63 of the scores' order; bits 16 to 31 are the handles' tags.
    highs: Vec<u32>,
    members: Vec<Member>,
}

struct Inner {
    children: Vec<Node>,
    /// How many members each child has.
    counts: Vec<usize>,
    /// What parts each child but the first from the one before it, and its order.
    separators: Vec<Member>,
    orders: Vec<u64>,
}

/// The right half of a node that was split, and what parts it from the left one.
struct Split {
    separator: Member,
    right: Node,
}

impl Clone for Leaf {
    fn clone(&self) -> Leaf {
        // A copy is made to be written, so it has the same room.
        let mut copy = Leaf::default();
        copy.highs.reserve_exact(self.highs.capacity());
        copy.members.reserve_exact(self.members.capacity());
        copy.highs.extend_from_slice(&self.highs);
        copy.members.extend_from_slice(&self.members);
        copy
    }
}

impl Clone for Inner {
    fn clone(&self) -> Inner {
        Inner {
            children: self.children.clone(),
            counts: self.counts.clone(),
            separators: self.separators.clone(),
            orders: self.orders.clone(),
        }
    }
}

impl Leaf {
    fn len(&self) -> usize {
        self.members.len()
    }

    #[inline]
    fn cmp(&self, at: usize, key: &Key<'_>) -> Ordering {
        let member = &self.members[at];
        self.highs[at]
            .cmp(&key.high())
            .then_with(|| member.tag().cmp(&key.tag()))
            .then_with(|| Key::of(member).cmp(key))
    }

    /// Where `key` is, or where it belongs.
    #[inline]
    fn search(&self, key: &Key<'_>) -> Result<usize, usize> {
        let high = key.high();
        // Counted, not halved: what is read does not depend on what was read before, so cache misses overlap.
        let below: u32 = self.highs.iter().map(|h| u32::from(*h < high)).sum();
        let (mut low, mut end) = (below as usize, self.len());
        while low < end {
            let middle = low + (end - low) / 2;
            match self.cmp(middle, key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => end = middle,
            }
        }
        Err(low)
    }

    /// Hints the processor at what a search reads first.
    pub fn prefetch(&self) {
        const LINE: usize = 64 / size_of::<u32>();
        self.highs.chunks(LINE).for_each(|line| prefetch(line.as_ptr().addr()));
    }

    fn insert(&mut self, at: usize, key: &Key<'_>, mut member: Member) {
        if self.len() == self.members.capacity() {
            self.highs.reserve_exact(LEAF_STEP);
            self.members.reserve_exact(LEAF_STEP);
        }
        member.set_tag(key.tag());
        self.highs.insert(at, key.high());
        self.members.insert(at, member);
    }

    fn remove(&mut self, at: usize) -> Member {
        self.highs.remove(at);
        let mut member = self.members.remove(at);
        member.set_tag(0);
        if self.members.capacity() > self.len() + 3 * LEAF_STEP {
            self.shrink();
        }
        member
    }

    fn shrink(&mut self) {
        let room = self.len() + LEAF_STEP;
        self.highs.shrink_to(room);
        self.members.shrink_to(room);
    }

    /// Moves the members from `at` on to a leaf of their own.
    fn split_off(&mut self, at: usize) -> Leaf {
        let right = Leaf { highs: self.highs.split_off(at), members: self.members.split_off(at) };
        self.shrink();
        right
    }

    fn append(&mut self, mut other: Leaf) {
        self.highs.reserve_exact(other.len());
        self.members.reserve_exact(other.len());
        self.highs.append(&mut other.highs);
        self.members.append(&mut other.members);
    }
}

impl Inner {
    /// The child whose share of all keys `key` is in.
    #[inline]
    fn child_of(&self, key: &Key<'_>) -> usize {
        let below = self.orders.partition_point(|order| *order < key.order);
        // Among equal scores bytes decide.
        let equal = self.orders[below..].partition_point(|order| *order == key.order);
        below + self.separators[below..below + equal].partition_point(|s| s.bytes() <= key.bytes)
    }

    /// The child that holds the member at `position`, and its position there.
    #[inline]
    fn child_at(&self, mut position: usize) -> (usize, usize) {
        let last = self.counts.len() - 1;
        for (i, count) in self.counts[..last].iter().enumerate() {
            if position < *count {
                return (i, position);
            }
            position -= count;
        }
        (last, position)
    }

    /// Adds the right half of child `at`, which was split.
    fn add(&mut self, at: usize, split: Split) -> Option<Split> {
        let moved = split.right.count();
        self.counts[at] -= moved;
        self.counts.insert(at + 1, moved);
        self.children.insert(at + 1, split.right);
        self.orders.insert(at, order(split.separator.score()));
        self.separators.insert(at, split.separator);
        if self.children.len() <= INNER_MOST {
            return None;
        }
        // What was added at the end is most likely followed by more: the left half stays full then.
        let middle = if at + 2 == self.children.len() { at + 1 } else { self.children.len() / 2 };
        let right = Inner {
            children: self.children.split_off(middle),
            counts: self.counts.split_off(middle),
            separators: self.separators.split_off(middle),
            orders: self.orders.split_off(middle),
        };
        self.orders.pop();
        let separator = self.separators.pop().expect("the left half has a child, so something parts it from the right");
        Some(Split { separator, right: Node::Inner(Arc::new(right)) })
    }

    /// Sees to it that child `at`, which has lost a member, is not empty, and not small beside a small neighbour.
    fn settle(&mut self, at: usize) {
        let size = self.children[at].size();
        if size == 0 {
            self.children.remove(at);
            self.counts.remove(at);
            if !self.separators.is_empty() {
                let parting = at.saturating_sub(1);
                self.separators.remove(parting);
                self.orders.remove(parting);
            }
        } else if size <= self.children[at].most() / 4 {
            let most = self.children[at].most() / 4 * 3;
            let fits = |left: usize| {
                left + 1 < self.children.len() && self.children[left].size() + self.children[left + 1].size() <= most
            };
            if let Some(left) = [Some(at), at.checked_sub(1)].into_iter().flatten().find(|left| fits(*left)) {
                self.merge(left);
            }
        }
    }

    /// Makes child `left` and the next one a single child.
    fn merge(&mut self, left: usize) {
        let right = self.children.remove(left + 1);
        self.counts[left] += self.counts.remove(left + 1);
        let (separator, order) = (self.separators.remove(left), self.orders.remove(left));
        match (&mut self.children[left], right) {
            (Node::Leaf(left), Node::Leaf(right)) => Arc::make_mut(left).append(Arc::unwrap_or_clone(right)),
            (Node::Inner(left), Node::Inner(right)) => {
                let (left, mut right) = (Arc::make_mut(left), Arc::unwrap_or_clone(right));
                left.separators.push(separator);
                left.orders.push(order);
                left.children.append(&mut right.children);
                left.counts.append(&mut right.counts);
                left.separators.append(&mut right.separators);
                left.orders.append(&mut right.orders);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }
}

impl Node {
    /// How many members there are below it.
    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.counts.iter().sum(),
        }
    }

    /// How many members or children it has itself.
    fn size(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    fn most(&self) -> usize {
        match self {
            Node::Leaf(_) => LEAF_MOST,
            Node::Inner(_) => INNER_MOST,
        }
    }

    fn insert(&mut self, key: &Key<'_>, member: Member) -> Option<Split> {
        match self {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let at = leaf.search(key).unwrap_or_else(|at| at);
                if leaf.len() < LEAF_MOST {
                    leaf.insert(at, key, member);
                    return None;
                }
                // As above: a set that is filled in order has full leaves.
                let middle = if at == LEAF_MOST { LEAF_MOST } else { LEAF_MOST / 2 };
                let mut right = leaf.split_off(middle);
                if at <= middle && middle < LEAF_MOST {
                    leaf.insert(at, key, member);
                } else {
                    right.insert(at - middle, key, member);
                }
                let mut separator = right.members[0].clone();
                separator.set_tag(0);
                Some(Split { separator, right: Node::Leaf(Arc::new(right)) })
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child_of(key);
                inner.counts[at] += 1;
                let split = inner.children[at].insert(key, member)?;
                inner.add(at, split)
            }
        }
    }

    /// Goes to a member, changes it with `change`, or removes it where that is what `change` returns.
    fn change(
        &mut self,
        target: Target<'_>,
        change: &mut impl FnMut(&mut Leaf, usize) -> ControlFlow<()>,
    ) -> Option<Member> {
        match self {
            Node::Leaf(leaf) => {
                let at = match target {
                    Target::Key(key) => leaf.search(&key).ok()?,
                    Target::Position(position) => position,
                };
                if at >= leaf.len() {
                    return None;
                }
                let leaf = Arc::make_mut(leaf);
                match change(leaf, at) {
                    ControlFlow::Continue(()) => Some(leaf.remove(at)),
                    ControlFlow::Break(()) => None,
                }
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let (at, target) = match target {
                    Target::Key(key) => (inner.child_of(&key), target),
                    Target::Position(position) => {
                        let (at, position) = inner.child_at(position);
                        (at, Target::Position(position))
                    }
                };
                let removed = inner.children[at].change(target, change)?;
                inner.counts[at] -= 1;
                inner.settle(at);
                Some(removed)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Target<'a> {
    Key(Key<'a>),
    Position(usize),
}

impl Tree {
    /// Without members.
    pub fn new() -> Tree {
        Tree { root: Node::Leaf(Arc::default()) }
    }

    /// How many members there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.root.count()
    }

    /// Adds a member, which must not be there.
    pub fn insert(&mut self, key: Key<'_>, member: Member) {
        if let Some(split) = self.root.insert(&key, member) {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
            self.root = Node::Inner(Arc::new(Inner {
                counts: vec![left.count(), split.right.count()],
                children: vec![left, split.right],
                orders: vec![order(split.separator.score())],
                separators: vec![split.separator],
            }));
        }
    }

    /// Removes the member at `key`.
    pub fn remove(&mut self, key: Key<'_>) -> Option<Member> {
        self.change(Target::Key(key), &mut |_, _| ControlFlow::Continue(()))
    }

    /// Removes the member at `position`.
    pub fn remove_at(&mut self, position: usize) -> Option<Member> {
        self.change(Target::Position(position), &mut |_, _| ControlFlow::Continue(()))
    }

    fn change(
        &mut self,
        target: Target<'_>,
        change: &mut impl FnMut(&mut Leaf, usize) -> ControlFlow<()>,
    ) -> Option<Member> {
        let removed = self.root.change(target, change)?;
        loop {
            let only = match &mut self.root {
                Node::Inner(inner) if inner.children.len() <= 1 => Arc::make_mut(inner).children.pop(),
                _ => return Some(removed),
            };
            self.root = only.unwrap_or_else(|| Node::Leaf(Arc::default()));
        }
    }

    /// Gives the member with these bytes, to which the index has the handle `indexed`, another score, and its place.
    pub fn rescore(&mut self, bytes: &[u8], indexed: &mut Member, score: f64) {
        let (old, new) = (Key::new(indexed.score(), bytes), Key::new(score, bytes));
        // While it is taken from its old place, the new one comes.
        self.ask_for(&new);
        let moved = self.change(Target::Key(old), &mut |leaf, at| {
            // Most changes are small: between the same neighbours it stays where it is.
            let stays = at > 0
                && at + 1 < leaf.len()
                && leaf.cmp(at - 1, &new) == Ordering::Less
                && leaf.cmp(at + 1, &new) == Ordering::Greater;
            if !stays {
                return ControlFlow::Continue(());
            }
            let member = &mut leaf.members[at];
            Member::set_score(member, indexed, score);
            member.set_tag(new.tag());
            leaf.highs[at] = new.high();
            ControlFlow::Break(())
        });
        if let Some(mut member) = moved {
            Member::set_score(&mut member, indexed, score);
            self.insert(new, member);
        }
    }

    /// Hints the processor at the leaf where `key` is or belongs, which is returned.
    pub fn ask_for(&self, key: &Key<'_>) -> &Leaf {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    prefetch(Arc::as_ptr(leaf).addr());
                    return leaf;
                }
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)],
            }
        }
    }

    /// How many members are below `key`.
    pub fn rank(&self, key: Key<'_>) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.search(&key).unwrap_or_else(|at| at),
                Node::Inner(inner) => {
                    let at = inner.child_of(&key);
                    rank += inner.counts[..at].iter().sum::<usize>();
                    node = &inner.children[at];
                }
            }
        }
    }

    /// How many members come before the first for which `before` is false; it must not become true again behind that.
    pub fn partition(&self, before: impl Fn(&Member) -> bool) -> usize {
        let (mut node, mut position) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return position + leaf.members.partition_point(before),
                Node::Inner(inner) => {
                    let at = inner.separators.partition_point(&before);
                    position += inner.counts[..at].iter().sum::<usize>();
                    node = &inner.children[at];
                }
            }
        }
    }

    /// The leaf that holds the member at `position`, and the position there.
    fn leaf_at(&self, mut position: usize) -> (&Leaf, usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return (leaf, position),
                Node::Inner(inner) => {
                    let (at, rest) = inner.child_at(position);
                    (node, position) = (&inner.children[at], rest);
                }
            }
        }
    }

    /// The members from `position` on, upwards.
    pub fn ascend(&self, position: usize) -> impl Iterator<Item = &Member> {
        let (mut leaf, mut at) = self.leaf_at(position);
        let mut next = position;
        std::iter::from_fn(move || {
            if at == leaf.len() {
                (leaf, at) = self.leaf_at(next);
            }
            let member = leaf.members.get(at)?;
            leaf.members.get(at + AHEAD).inspect(|member| member.prefetch());
            at += 1;
            next += 1;
            Some(member)
        })
    }

    /// The members from `position` on, downwards; none where there is no such position.
    pub fn descend(&self, position: usize) -> impl Iterator<Item = &Member> {
        // Both count from one, so that zero is the end.
        let (mut leaf, mut at) = self.leaf_at(position);
        at = if at < leaf.len() { at + 1 } else { 0 };
        let mut left = if at == 0 { 0 } else { position + 1 };
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            if at == 0 {
                (leaf, at) = self.leaf_at(left - 1);
                at += 1;
            }
            (at, left) = (at - 1, left - 1);
            if let Some(ahead) = at.checked_sub(AHEAD) {
                leaf.members[ahead].prefetch();
            }
            leaf.members.get(at)
        })
    }

    /// Bytes of its nodes, without the members.
    pub fn memory(&self) -> usize {
        fn of(node: &Node) -> usize {
            // Strong and weak count of the Arc.
            2 * size_of::<usize>()
                + match node {
                    Node::Leaf(leaf) => {
                        size_of::<Leaf>()
                            + leaf.highs.capacity() * size_of::<u32>()
                            + leaf.members.capacity() * size_of::<Member>()
                    }
                    Node::Inner(inner) => {
                        let each = size_of::<Node>() + size_of::<Member>() + size_of::<u64>() + size_of::<usize>();
                        size_of::<Inner>()
                            + inner.children.capacity() * each
                            + inner.children.iter().map(of).sum::<usize>()
                    }
                }
        }
        of(&self.root)
    }

    /// Panics unless what the file says stays true does.
    #[cfg(test)]
    pub fn check(&self) {
        fn depth(node: &Node, root: bool, low: Option<Key<'_>>, high: Option<Key<'_>>) -> usize {
            match node {
                Node::Leaf(leaf) => {
                    assert!(root || leaf.len() > 0, "no leaf is empty");
                    assert!(leaf.len() <= LEAF_MOST && leaf.highs.len() == leaf.len());
                    for (i, member) in leaf.members.iter().enumerate() {
                        let key = Key::of(member);
                        assert_eq!((leaf.highs[i], member.tag()), (key.high(), key.tag()));
                        assert!(i == 0 || Key::of(&leaf.members[i - 1]).cmp(&key).is_lt(), "members ascend");
                        assert!(low.is_none_or(|low| low.cmp(&key).is_le()), "not below the separator");
                        assert!(high.is_none_or(|high| key.cmp(&high).is_lt()), "below the next separator");
                    }
                    1
                }
                Node::Inner(inner) => {
                    let n = inner.children.len();
                    assert!(n > if root { 1 } else { 0 } && n <= INNER_MOST);
                    assert_eq!((inner.counts.len(), inner.separators.len(), inner.orders.len()), (n, n - 1, n - 1));
                    let mut depths = Vec::new();
                    for (i, child) in inner.children.iter().enumerate() {
                        assert_eq!(inner.counts[i], child.count());
                        let below = i.checked_sub(1).map(|i| Key::of(&inner.separators[i])).or(low);
                        let above = inner.separators.get(i).map(Key::of).or(high);
                        if let Some(separator) = inner.separators.get(i) {
                            assert_eq!(inner.orders[i], order(separator.score()));
                        }
                        depths.push(depth(child, false, below, above));
                    }
                    assert!(depths.windows(2).all(|d| d[0] == d[1]), "all leaves are equally deep");
                    depths[0] + 1
                }
            }
        }
        depth(&self.root, true, None, None);
    }
}

/// So many members ahead are asked for when all are read in turn.
const AHEAD: usize = 6;
