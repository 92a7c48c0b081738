//! Values by id, in order: what a stream keeps its chunks in, and its groups what is pending.
//!
//! Ids mostly come at the end and go at the front, so the map is a row of leaves of at most `LEAF`
//! pairs, found by the first id of each. Leaves are shared by clones and copied one at a time.
//!
//! What must stay true: no leaf is empty, a leaf's `first` is the id of its first pair, ids ascend
//! within leaves and from one to the next, and `len` is the number of pairs.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::types::stream::id::Id;

/// The most pairs of a leaf.
const LEAF: usize = 128;

/// A map from ids to values, ordered by id.
#[derive(Debug, Clone)]
pub struct Ordered<T> {
    leaves: VecDeque<Leaf<T>>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Leaf<T> {
    first: Id,
    pairs: Arc<VecDeque<(Id, T)>>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Ordered<T> {
        Ordered { leaves: VecDeque::new(), len: 0 }
    }
}

/// Where a pair is.
type At = (usize, usize);

impl<T> Ordered<T> {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are allocated, but for what the values refer to.
    pub fn memory(&self) -> usize {
        let pairs = |leaf: &Leaf<T>| 40 + leaf.pairs.capacity() * size_of::<(Id, T)>();
        self.leaves.capacity() * size_of::<Leaf<T>>() + self.leaves.iter().map(pairs).sum::<usize>()
    }

    /// The leaf that `id` is in, or would be: the last that begins at or before it, else the first.
    fn leaf(&self, id: Id) -> usize {
        // Most of what is asked for is new or old.
        match self.leaves.back() {
            Some(last) if last.first <= id => self.leaves.len() - 1,
            _ => self.leaves.partition_point(|leaf| leaf.first <= id).saturating_sub(1),
        }
    }

    /// Where the first pair at or behind `id` is; behind a leaf's last pair where there is none in it.
    fn lower(&self, id: Id) -> At {
        let at = self.leaf(id);
        (at, self.leaves.get(at).map_or(0, |leaf| leaf.pairs.partition_point(|(other, _)| *other < id)))
    }

    fn find(&self, id: Id) -> Option<At> {
        let (leaf, at) = self.lower(id);
        (self.leaves.get(leaf)?.pairs.get(at)?.0 == id).then_some((leaf, at))
    }

    /// The value of `id`.
    pub fn at(&self, id: Id) -> Option<&T> {
        let (leaf, at) = self.find(id)?;
        self.leaves[leaf].pairs.get(at).map(|(_, value)| value)
    }

    /// The least id and its value.
    pub fn first(&self) -> Option<(Id, &T)> {
        self.leaves.front()?.pairs.front().map(|(id, value)| (*id, value))
    }

    /// The greatest id and its value.
    pub fn last(&self) -> Option<(Id, &T)> {
        self.leaves.back()?.pairs.back().map(|(id, value)| (*id, value))
    }

    /// The pairs from `id` on, it included, in ascending order.
    pub fn from(&self, id: Id) -> Ascending<'_, T> {
        Ascending { map: self, at: self.lower(id) }
    }

    /// All pairs, in ascending order.
    pub fn iter(&self) -> Ascending<'_, T> {
        Ascending { map: self, at: (0, 0) }
    }

    /// The pairs from `id` down, it included, in descending order.
    pub fn down_from(&self, id: Id) -> Descending<'_, T> {
        let leaf = self.leaf(id);
        let before = self.leaves.get(leaf).map_or(0, |leaf| leaf.pairs.partition_point(|(other, _)| *other <= id));
        Descending { map: self, before: (leaf, before) }
    }
}

impl<T: Clone> Ordered<T> {
    /// The value of `id`, to be changed.
    pub fn at_mut(&mut self, id: Id) -> Option<&mut T> {
        let (leaf, at) = self.find(id)?;
        Arc::make_mut(&mut self.leaves[leaf].pairs).get_mut(at).map(|(_, value)| value)
    }

    /// Sets the value of `id`; returns the one it had.
    pub fn insert(&mut self, id: Id, value: T) -> Option<T> {
        let (at, place) = self.lower(id);
        let behind_all = at + 1 == self.leaves.len();
        let Some(leaf) = self.leaves.get_mut(at) else {
            self.len = 1;
            self.leaves.push_back(Leaf { first: id, pairs: Arc::new(VecDeque::from([(id, value)])) });
            return None;
        };
        if leaf.pairs.get(place).is_some_and(|(other, _)| *other == id) {
            let pair = &mut Arc::make_mut(&mut leaf.pairs)[place];
            return Some(std::mem::replace(&mut pair.1, value));
        }
        self.len += 1;
        if leaf.pairs.len() < LEAF {
            Arc::make_mut(&mut leaf.pairs).insert(place, (id, value));
            leaf.first = leaf.first.min(id);
            return None;
        }
        if behind_all && place == LEAF {
            // Ids that ascend leave full leaves behind them.
            self.leaves.push_back(Leaf { first: id, pairs: Arc::new(VecDeque::from([(id, value)])) });
            return None;
        }
        let pairs = Arc::make_mut(&mut leaf.pairs);
        let mut upper = pairs.split_off(LEAF / 2);
        pairs.shrink_to_fit();
        match place.checked_sub(LEAF / 2) {
            Some(place) => upper.insert(place, (id, value)),
            None => pairs.insert(place, (id, value)),
        }
        leaf.first = leaf.first.min(id);
        let first = upper.front().map_or(id, |(first, _)| *first);
        self.leaves.insert(at + 1, Leaf { first, pairs: Arc::new(upper) });
        None
    }

    /// Removes `id`; returns its value.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let (at, place) = self.find(id)?;
        let leaf = &mut self.leaves[at];
        let pairs = Arc::make_mut(&mut leaf.pairs);
        let (_, value) = pairs.remove(place)?;
        self.len -= 1;
        match pairs.front() {
            None => {
                self.leaves.remove(at);
            }
            Some((first, _)) => {
                leaf.first = *first;
                if pairs.len() < LEAF / 4 {
                    self.merge(at);
                }
            }
        }
        Some(value)
    }

    /// Joins a leaf of few pairs with a neighbour that has few too.
    fn merge(&mut self, at: usize) {
        let few = |at: usize| self.leaves.get(at).is_some_and(|leaf| leaf.pairs.len() < LEAF / 4);
        let left = match at.checked_sub(1) {
            Some(left) if few(left) => left,
            _ if few(at + 1) => at,
            _ => return,
        };
        if let Some(right) = self.leaves.remove(left + 1) {
            Arc::make_mut(&mut self.leaves[left].pairs).extend(right.pairs.iter().cloned());
        }
    }
}

/// Pairs in ascending order.
pub struct Ascending<'a, T> {
    map: &'a Ordered<T>,
    at: At,
}

impl<'a, T> Iterator for Ascending<'a, T> {
    type Item = (Id, &'a T);

    #[inline]
    fn next(&mut self) -> Option<(Id, &'a T)> {
        loop {
            let leaf = self.map.leaves.get(self.at.0)?;
            if let Some((id, value)) = leaf.pairs.get(self.at.1) {
                self.at.1 += 1;
                return Some((*id, value));
            }
            self.at = (self.at.0 + 1, 0);
        }
    }
}

/// Pairs in descending order.
pub struct Descending<'a, T> {
    map: &'a Ordered<T>,
    /// Behind the next one.
    before: At,
}

impl<'a, T> Iterator for Descending<'a, T> {
    type Item = (Id, &'a T);

    fn next(&mut self) -> Option<(Id, &'a T)> {
        loop {
            let leaf = self.map.leaves.get(self.before.0)?;
            if let Some(at) = self.before.1.checked_sub(1) {
                self.before.1 = at;
                return leaf.pairs.get(at).map(|(id, value)| (*id, value));
            }
            let leaf = self.before.0.checked_sub(1)?;
            self.before = (leaf, self.map.leaves[leaf].pairs.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(map: &Ordered<u32>) {
        assert!(map.leaves.iter().all(|leaf| leaf.pairs.front().is_some_and(|(id, _)| *id == leaf.first)));
        assert!(map.leaves.iter().all(|leaf| leaf.pairs.len() <= LEAF));
        assert_eq!(map.leaves.iter().map(|leaf| leaf.pairs.len()).sum::<usize>(), map.len());
    }

    fn pairs(model: &BTreeMap<Id, u32>) -> Vec<(Id, u32)> {
        model.iter().map(|(id, value)| (*id, *value)).collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(u64),
        Insert(u64, u64, u32),
        Remove(u64, u64),
        PopSome(usize),
        Change(u64, u64),
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u64..400).prop_map(Step::Append),
            3 => (0u64..300, 0u64..3, any::<u32>()).prop_map(|(ms, seq, v)| Step::Insert(ms, seq, v)),
            3 => (0u64..300, 0u64..3).prop_map(|(ms, seq)| Step::Remove(ms, seq)),
            1 => (0usize..200).prop_map(Step::PopSome),
            1 => (0u64..300, 0u64..3).prop_map(|(ms, seq)| Step::Change(ms, seq)),
            1 => Just(Step::Clone),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_btreemap_holds(steps in prop::collection::vec(step(), 1..60), from in 0u64..300) {
            let (mut map, mut model) = (Ordered::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for step in steps {
                match step {
                    Step::Append(n) => for _ in 0..n {
                        let id = model.last_key_value().map_or(Id::new(0, 1), |(id, _): (&Id, _)| Id::new(id.ms + id.seq % 2, id.seq + 1));
                        prop_assert_eq!(map.insert(id, 7), model.insert(id, 7));
                    }
                    Step::Insert(ms, seq, value) => {
                        prop_assert_eq!(map.insert(Id::new(ms, seq), value), model.insert(Id::new(ms, seq), value));
                    }
                    Step::Remove(ms, seq) => {
                        prop_assert_eq!(map.remove(Id::new(ms, seq)), model.remove(&Id::new(ms, seq)));
                    }
                    Step::PopSome(n) => for _ in 0..n {
                        let first = map.first().map(|(id, _)| id);
                        prop_assert_eq!(first.and_then(|id| map.remove(id)), model.pop_first().map(|(_, value)| value));
                    }
                    Step::Change(ms, seq) => {
                        if let Some(value) = map.at_mut(Id::new(ms, seq)) { *value ^= 1 }
                        if let Some(value) = model.get_mut(&Id::new(ms, seq)) { *value ^= 1 }
                    }
                    Step::Clone => copies.push((map.clone(), model.clone())),
                }
                check(&map);
            }
            copies.push((map, model));
            for (map, model) in copies {
                check(&map);
                let owned = |(id, value): (Id, &u32)| (id, *value);
                prop_assert_eq!(map.iter().map(owned).collect::<Vec<_>>(), pairs(&model));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                let from = Id::new(from, 1);
                prop_assert_eq!(map.from(from).map(owned).collect::<Vec<_>>(), model.range(from..).map(|(id, v)| (*id, *v)).collect::<Vec<_>>());
                prop_assert_eq!(map.down_from(from).map(owned).collect::<Vec<_>>(), model.range(..=from).rev().map(|(id, v)| (*id, *v)).collect::<Vec<_>>());
                prop_assert_eq!(map.at(from), model.get(&from));
                prop_assert_eq!(map.last().map(owned), model.last_key_value().map(|(id, v)| (*id, *v)));
                prop_assert_eq!(map.down_from(Id::MAX).map(owned).collect::<Vec<_>>(), pairs(&model).into_iter().rev().collect::<Vec<_>>());
            }
        }
    }
}
