//! The deadlines of a large hash's fields, in order.
//!
//! A place is a deadline and the hash of a field's name; places lie in sorted chunks behind reference counts, so
//! that a clone costs one count a chunk, and a change of what was cloned the copy of one chunk.
//!
//! What must stay true: chunks are sorted, and so are the places in each; none is empty. Two fields may
//! have equal places (their hashes agree), and then there are two of them.

use std::sync::Arc;

/// When, and the hash of whose name.
pub type Place = (u64, u64);

/// A chunk of more places is split.
const CHUNK_LEN: usize = 256;

/// An index of deadlines; 16 bytes a field and what chunks leave free.
#[derive(Debug, Clone, Default)]
pub struct Due {
    chunks: Vec<Arc<Vec<Place>>>,
    len: usize,
}

impl Due {
    /// How many places there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<u64> {
        self.chunks.first().map(|chunk| chunk[0].0)
    }

    /// The chunk that `place` belongs to. There must be one.
    fn locate(&self, place: Place) -> usize {
        self.chunks.partition_point(|chunk| chunk[0] <= place).saturating_sub(1)
    }

    /// Adds a place.
    pub fn insert(&mut self, place: Place) {
        self.len += 1;
        if self.chunks.is_empty() {
            self.chunks.push(Arc::new(vec![place]));
            return;
        }
        let mut at = self.locate(place);
        if self.chunks[at].len() >= CHUNK_LEN {
            let full = Arc::make_mut(&mut self.chunks[at]);
            // In rising order chunks are filled, not halved.
            let half = if full[CHUNK_LEN - 1] <= place { Vec::new() } else { full.split_off(CHUNK_LEN / 2) };
            if half.is_empty() {
                self.chunks.insert(at + 1, Arc::new(vec![place]));
                return;
            }
            full.shrink_to_fit();
            let follows = half[0] <= place;
            self.chunks.insert(at + 1, Arc::new(half));
            at += usize::from(follows);
        }
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let index = chunk.partition_point(|other| *other <= place);
        chunk.insert(index, place);
    }

    /// Removes a place; returns whether it was there.
    pub fn remove(&mut self, place: Place) -> bool {
        if self.chunks.is_empty() {
            return false;
        }
        let at = self.locate(place);
        let Ok(index) = self.chunks[at].binary_search(&place) else { return false };
        self.len -= 1;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        chunk.remove(index);
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() * 4 <= chunk.capacity() {
            chunk.shrink_to(chunk.len() * 2);
        }
        true
    }

    /// How many deadlines lie before `now`.
    pub fn count_before(&self, now: u64) -> usize {
        let whole = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].0 < now);
        let sum: usize = self.chunks[..whole].iter().map(|chunk| chunk.len()).sum();
        sum + self.chunks.get(whole).map_or(0, |chunk| chunk.partition_point(|place| place.0 < now))
    }

    /// Takes out the first place whose deadline lies before `now`.
    pub fn take_before(&mut self, now: u64) -> Option<Place> {
        let place = *self.chunks.first()?.first()?;
        (place.0 < now && self.remove(place)).then_some(place)
    }

    /// Bytes of its allocations.
    pub fn memory(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| 16 + 24 + chunk.capacity() * size_of::<Place>()).sum();
        self.chunks.capacity() * size_of::<Arc<Vec<Place>>>() + chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Due {
        fn check(&self, model: &[Place]) {
            let places: Vec<Place> = self.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            assert_eq!(places, model);
            assert_eq!((self.len(), self.first()), (model.len(), model.first().map(|place| place.0)));
            assert!(self.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_LEN));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64, u64),
        InsertMany(u64, u64, u64),
        Remove(prop::sample::Index),
        Take(u64, usize),
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..50u64, 0..4u64).prop_map(|(at, hash)| Step::Insert(at, hash)),
            2 => (0..50u64, 0..3u64, 0..if cfg!(miri) { 60 } else { 600u64 }).prop_map(|(at, step, count)| Step::InsertMany(at, step, count)),
            4 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => (0..1000u64, 0..600usize).prop_map(|(now, limit)| Step::Take(now, limit)),
            1 => Just(Step::Clone),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_sorted_list_and_a_clone_stays_what_it_was(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 40 })) {
            let (mut due, mut model) = (Due::default(), Vec::<Place>::new());
            let mut clones = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(at, hash) => {
                        due.insert((at, hash));
                        model.push((at, hash));
                    }
                    Step::InsertMany(at, step, count) => {
                        for n in 0..count {
                            due.insert((at + n * step, n % 7));
                            model.push((at + n * step, n % 7));
                        }
                    }
                    Step::Remove(which) if !model.is_empty() => {
                        let place = model.remove(which.index(model.len()));
                        prop_assert!(due.remove(place));
                        prop_assert!(!due.remove((place.0, 99)));
                    }
                    Step::Take(now, limit) => {
                        prop_assert_eq!(due.count_before(now), model.iter().filter(|place| place.0 < now).count());
                        for _ in 0..limit {
                            let taken = due.take_before(now);
                            prop_assert_eq!(taken, model.first().copied().filter(|place| place.0 < now));
                            if taken.is_some() {
                                model.remove(0);
                            }
                        }
                    }
                    Step::Clone => clones.push((due.clone(), model.clone())),
                    Step::Remove(_) => {}
                }
                model.sort_unstable();
                due.check(&model);
            }
            clones.iter().for_each(|(due, model)| due.check(model));
        }
    }
}
