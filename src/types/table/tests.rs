//! [`Table`] against the standard library's map.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::segment::{MOST_BUCKETS, Segment, spread};
use super::*;

/// SplitMix64: a good hash of a number.
fn full(value: &u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The same with only the top 19 bits known.
fn tagged(value: &u64) -> u64 {
    full(value) >> 45 << 45
}

/// Very bad: four values, all in their top bits.
fn bad(value: &u64) -> u64 {
    (value & 3) << 62
}

fn size(real: u64, under_miri: u64) -> u64 {
    if cfg!(miri) { under_miri } else { real }
}

fn filled(count: u64, rehash: fn(&u64) -> u64) -> Table<u64> {
    let mut table = Table::new();
    for value in 0..count {
        table.insert_unique(rehash(&value), value, rehash);
    }
    table.check(rehash);
    table
}

#[test]
fn an_empty_table_is_small_and_allocates_nothing() {
    assert!(size_of::<Table<u64>>() <= 40);
    let table = Table::<u64>::new();
    table.check(full);
    assert_eq!(table.allocated_bytes(), 0);
    assert_eq!(table.find(7, |_| true), None);
    assert!(table.is_empty());
    table.prefetch(7);
}

#[test]
fn it_grows_to_many_segments_and_back_to_nothing() {
    for rehash in [full, tagged] {
        let count = size(200_000, 1500);
        let mut table = filled(count, rehash);
        assert_eq!(table.len() as u64, count);
        assert!(table.segments().all(|segment| segment.table.num_buckets() <= MOST_BUCKETS));
        assert!(table.segments().all(|segment| segment.len() > 250), "a good hash splits evenly");
        for value in 0..count {
            table.prefetch(rehash(&value));
            assert_eq!(table.find(rehash(&value), |other| *other == value), Some(&value));
        }
        for value in count..count * 2 {
            assert_eq!(table.find(rehash(&value), |other| *other == value), None);
        }
        for value in 0..count {
            assert_eq!(table.remove(rehash(&value), |other| *other == value, rehash), Some(value));
            if value % (count / size(50, 5)) == 0 {
                table.check(rehash);
                let left = table.len();
                assert!(table.allocated_bytes() <= 4 * 12 * left + 1500, "{} for {left}", table.allocated_bytes());
            }
        }
        table.check(rehash);
        assert_eq!(table.allocated_bytes(), 0);
    }
}

#[test]
fn bad_hashes_cost_speed_and_not_memory() {
    let count = size(3000, 200);
    let mut table = filled(count, bad);
    assert!(table.allocated_bytes() < count as usize * 32);
    assert_eq!(table.find(bad(&77), |value| *value == 77), Some(&77));
    assert_eq!(table.sampled(5, 40).len(), 40);
    for value in 0..count {
        assert_eq!(table.remove(bad(&value), |other| *other == value, bad), Some(value));
    }
    table.check(bad);
}

impl Table<u64> {
    fn sampled(&self, start: u64, count: usize) -> HashSet<u64> {
        let mut seen = HashSet::new();
        self.sample(start, count, |value| assert!(seen.insert(*value), "sampled once"));
        seen
    }

    /// One whole scan.
    fn scanned(&self, budget: usize, rehash: fn(&u64) -> u64) -> Vec<u64> {
        let (mut seen, mut cursor) = (Vec::new(), 0);
        loop {
            let before = seen.len();
            match self.scan(cursor, budget, rehash, |value| seen.push(*value)) {
                Some(next) => {
                    assert!(next > cursor && next.is_multiple_of(1 << CURSOR_SHIFT));
                    assert!(seen.len() - before >= budget);
                    cursor = next;
                }
                None => return seen,
            }
        }
    }
}

#[test]
fn lookups_in_a_deep_segment_compare_few_other_elements() {
    // Comparing with another element costs a cache miss.
    let count = size(700, 100);
    let compared = |known: u32, depth: u32| {
        // Hashes of which the top `known` bits are known and the top `depth` are the same.
        let rehash = |value: &u64| {
            ((0x5a5a_5a5a << 32 >> (64 - depth) << (64 - depth)) | (full(value) >> depth)) >> (64 - known)
                << (64 - known)
        };
        let mut segment = Segment::new();
        for value in 0..count {
            if segment.is_full() {
                segment.rebuild(segment.capacity() + 1, &rehash);
            }
            segment.put(rehash(&value), value, &rehash);
        }
        let mut others = 0;
        for value in 0..count {
            let found = segment.table.find(spread(rehash(&value)), |other| {
                others += usize::from(*other != value);
                *other == value
            });
            assert_eq!(found, Some(&value));
        }
        f64::from(others as u32) / count as f64
    };
    for (known, depth, most) in [
        (64, 1, 0.03),
        (64, 7, 0.03),
        (64, 14, 0.03),
        (64, 20, 0.03),
        (19, 1, 0.03),
        (19, 4, 0.05),
        (19, 7, 0.2),
        (19, 9, 0.5),
    ] {
        let share = compared(known, depth);
        println!("{known} bits at depth {depth}: {share:.3} others compared per lookup");
        assert!(share <= most, "{known} bits at depth {depth}: {share}");
    }
}

#[test]
fn a_scan_returns_every_element_once_in_hash_order() {
    for rehash in [full, tagged, bad] {
        for count in [0, 1, 5, 100, size(20_000, 1000)] {
            let table = filled(if rehash(&9) == bad(&9) { count.min(size(2000, 100)) } else { count }, rehash);
            for budget in [1, 10, 1000] {
                if budget == 1 && count > 1000 || cfg!(miri) && budget < count as usize / 10 {
                    continue;
                }
                let mut seen = table.scanned(budget, rehash);
                assert_eq!(seen.len(), table.len());
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), table.len());
            }
        }
    }
}

#[test]
fn random_elements_are_evenly_likely() {
    let count = size(5000, 200);
    let table = filled(count, full);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut met = HashMap::<u64, u32>::new();
    for _ in 0..count * 20 {
        *met.entry(*table.random(&mut rng).unwrap()).or_default() += 1;
    }
    assert_eq!(met.len() as u64, count);
    assert!(met.values().all(|times| *times < 60), "{:?}", met.values().max());
    assert_eq!(Table::<u64>::new().random(&mut rng), None);
}

#[test]
fn a_sample_has_as_many_different_elements_as_asked_for() {
    let table = filled(size(5000, 1000), full);
    let mut rng = fastrand::Rng::with_seed(7);
    for count in [0, 1, 16, 900, table.len(), table.len() * 2] {
        assert_eq!(table.sampled(rng.u64(..), count).len(), count.min(table.len()));
    }
}

#[test]
fn retain_and_drain_give_memory_back() {
    let mut table = filled(size(50_000, 1000), full);
    let before = table.len();
    table.retain(|value| *value % 10 == 0, full);
    table.check(full);
    assert_eq!(table.len(), before / 10);
    assert!(table.allocated_bytes() < table.len() * 48 + 1000);
    let mut values: Vec<u64> = table.drain().collect();
    values.sort_unstable();
    assert_eq!(values, (0..before as u64).filter(|value| value % 10 == 0).collect::<Vec<_>>());
    table.check(full);
    assert_eq!(table.allocated_bytes(), 0);
}

#[test]
fn dropping_a_table_drops_each_element_once() {
    let value = std::rc::Rc::new(5);
    let mut table = Table::new();
    for at in 0..size(3000, 1200) {
        table.insert_unique(full(&at), (at, value.clone()), |(at, _)| full(at));
    }
    for at in 0..100 {
        drop(table.remove(full(&at), |(other, _)| *other == at, |(at, _)| full(at)));
    }
    assert_eq!(std::rc::Rc::strong_count(&value), 1 + table.len());
    drop(table);
    assert_eq!(std::rc::Rc::strong_count(&value), 1);
}

#[derive(Clone, Debug)]
enum Op {
    /// Through `entry`: inserted if absent, replaced or removed if present.
    Upsert(u64),
    Toggle(u64),
    Remove(u64),
    /// So many neighbouring numbers at once, to split and merge.
    InsertMany(u64, u64),
    RemoveMany(u64, u64),
    Scan(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..6000u64;
    prop_oneof![
        key.clone().prop_map(Op::Upsert),
        key.clone().prop_map(Op::Toggle),
        key.clone().prop_map(Op::Remove),
        (key.clone(), 0..3000u64).prop_map(|(from, count)| Op::InsertMany(from, count)),
        (key, 0..3000u64).prop_map(|(from, count)| Op::RemoveMany(from, count)),
        (1..300usize).prop_map(Op::Scan),
    ]
}

/// Runs `ops` on a table and a map; a scan goes on between them.
fn run(ops: Vec<Op>, rehash: fn(&u64) -> u64) {
    let key_hash = |(key, _): &(u64, u64)| rehash(key);
    let mut table = Table::new();
    let mut model = HashMap::new();
    // The running scan: its cursor, what was there when it began and since, what it saw.
    let mut cursor = 0;
    let (mut constant, mut seen) = (HashSet::new(), HashSet::new());
    for (now, op) in ops.into_iter().enumerate() {
        let now = now as u64;
        let (from, count, insert) = match op {
            Op::Upsert(key) => {
                match table.entry(rehash(&key), |(other, _)| *other == key, key_hash) {
                    Entry::Occupied(mut entry) => {
                        assert_eq!(entry.get(), &(key, model[&key]));
                        assert_eq!(entry.replace((key, now)), (key, model[&key]));
                        entry.element_mut().1 += 1;
                    }
                    Entry::Vacant(entry) => {
                        assert!(!model.contains_key(&key));
                        assert_eq!(entry.insert((key, now + 1)), &(key, now + 1));
                    }
                }
                model.insert(key, now + 1);
                (0, 0, true)
            }
            Op::Toggle(key) => {
                match table.entry(rehash(&key), |(other, _)| *other == key, key_hash) {
                    Entry::Occupied(entry) => {
                        let old = entry.remove();
                        assert_eq!(model.remove(&key), Some(old.1));
                        constant.remove(&key);
                    }
                    Entry::Vacant(entry) => {
                        entry.insert((key, now));
                        assert_eq!(model.insert(key, now), None);
                    }
                }
                (0, 0, true)
            }
            Op::Remove(key) => (key, 1, false),
            Op::InsertMany(from, count) => (from, count, true),
            Op::RemoveMany(from, count) => (from, count, false),
            Op::Scan(budget) => {
                if cursor == 0 {
                    constant = model.keys().copied().collect();
                    seen.clear();
                }
                let next = table.scan(cursor, budget, key_hash, |(key, _)| {
                    assert!(seen.insert(*key) || !constant.contains(key), "no element twice in a scan");
                });
                if next.is_none() {
                    assert!(constant.is_subset(&seen), "elements present throughout are seen");
                }
                cursor = next.unwrap_or(0);
                (0, 0, true)
            }
        };
        for key in from..from + if cfg!(miri) { count / 8 } else { count } {
            if insert && !model.contains_key(&key) {
                table.insert_unique(rehash(&key), (key, now), key_hash);
                model.insert(key, now);
            } else if !insert {
                let removed = table.remove(rehash(&key), |(other, _)| *other == key, key_hash);
                assert_eq!(removed, model.remove(&key).map(|value| (key, value)));
                constant.remove(&key);
            }
        }
        table.check(key_hash);
        assert_eq!(table.len(), model.len());
    }
    for key in (0..9000).step_by(if cfg!(miri) { 50 } else { 1 }) {
        assert_eq!(
            table.find(rehash(&key), |(other, _)| *other == key).map(|(_, value)| *value),
            model.get(&key).copied()
        );
        let found = table.find_mut(rehash(&key), |(other, _)| *other == key).map(|(_, value)| *value);
        assert_eq!(found, model.get(&key).copied());
    }
    let all: HashMap<u64, u64> = table.iter().copied().collect();
    assert_eq!(all, model);
}

/// An element that counts how often any is copied.
struct Counting(u64, std::rc::Rc<std::cell::Cell<usize>>);

impl Clone for Counting {
    fn clone(&self) -> Self {
        self.1.set(self.1.get() + 1);
        Self(self.0, self.1.clone())
    }
}

#[test]
fn a_clone_copies_no_element_and_a_write_to_it_one_segment() {
    let copied = std::rc::Rc::new(std::cell::Cell::new(0));
    let rehash = |element: &Counting| full(&element.0);
    let mut table = SharedTable::default();
    for value in 0..size(50_000, 3000) {
        table.insert_unique(full(&value), Counting(value, copied.clone()), rehash);
    }
    let mut clone = table.clone();
    assert_eq!(copied.get(), 0);
    assert!(clone.find(full(&7), |other| other.0 == 7).is_some());
    assert!(matches!(clone.entry(full(&7), |other| other.0 == 7, rehash), Entry::Occupied(_)));
    assert_eq!(copied.get(), 0, "looking copies nothing");
    assert_eq!(clone.remove(full(&7), |other| other.0 == 7, rehash).map(|element| element.0), Some(7));
    assert!((1..=MOST_BUCKETS).contains(&copied.get()), "{}", copied.get());
    let once = copied.get();
    table.insert_unique(full(&u64::MAX), Counting(u64::MAX, copied.clone()), rehash);
    assert!(copied.get() <= once + MOST_BUCKETS);
    assert_eq!(table.len(), clone.len() + 2);
    assert!(table.find(full(&7), |other| other.0 == 7).is_some());
    drop(table);
    let before = copied.get();
    clone.retain(|element| element.0 % 2 == 0, rehash);
    assert_eq!(copied.get(), before, "nobody else has the segments any more");
    clone.check(rehash);
}

#[test]
#[cfg_attr(miri, ignore = "many elements, of safe code")]
fn a_value_is_about_as_full_at_every_size() {
    let mut table = SharedTable::<u64>::default();
    let (mut next, mut least, mut most) = (40_000, f64::MAX, 0f64);
    for key in 0..700_000 {
        table.insert_unique(full(&key), key, full);
        if key == next {
            next = next * 21 / 20;
            let each = table.allocated_bytes() as f64 / table.len() as f64;
            (least, most) = (least.min(each), most.max(each));
        }
    }
    println!("{least:.2} to {most:.2} bytes an element of 8");
    assert!(least > 13.0 && most < 15.9);
}

/// What is done to the original (0) or its clone (1).
#[derive(Clone, Debug)]
enum ShareOp {
    /// The other one becomes a clone of it.
    Clone(usize),
    Insert(usize, u64, u64),
    Remove(usize, u64, u64),
    Change(usize, u64),
    Retain(usize, u64),
}

fn share_op() -> impl Strategy<Value = ShareOp> {
    let (side, key) = (0..2usize, 0..6000u64);
    prop_oneof![
        side.clone().prop_map(ShareOp::Clone),
        (side.clone(), key.clone(), 0..3000u64).prop_map(|(side, from, count)| ShareOp::Insert(side, from, count)),
        (side.clone(), key.clone(), 0..3000u64).prop_map(|(side, from, count)| ShareOp::Remove(side, from, count)),
        (side.clone(), key).prop_map(|(side, key)| ShareOp::Change(side, key)),
        (side, 2..9u64).prop_map(|(side, divisor)| ShareOp::Retain(side, divisor)),
    ]
}

fn run_shared(ops: Vec<ShareOp>) {
    let key_hash = |(key, _): &(u64, u64)| full(key);
    type Side = (SharedTable<(u64, u64)>, HashMap<u64, u64>);
    let mut sides: [Side; 2] = Default::default();
    for (now, op) in ops.into_iter().enumerate() {
        let now = now as u64;
        match op {
            ShareOp::Clone(side) => sides[1 - side] = sides[side].clone(),
            ShareOp::Insert(side, from, count) => {
                let (table, model) = &mut sides[side];
                for key in from..from + if cfg!(miri) { count / 8 } else { count } {
                    match table.entry(full(&key), |(other, _)| *other == key, key_hash) {
                        Entry::Occupied(mut entry) => entry.element_mut().1 = now,
                        Entry::Vacant(entry) => assert_eq!(entry.insert((key, now)), &(key, now)),
                    }
                    model.insert(key, now);
                }
            }
            ShareOp::Remove(side, from, count) => {
                let (table, model) = &mut sides[side];
                for key in from..from + if cfg!(miri) { count / 8 } else { count } {
                    let removed = table.remove(full(&key), |(other, _)| *other == key, key_hash);
                    assert_eq!(removed, model.remove(&key).map(|value| (key, value)));
                }
            }
            ShareOp::Change(side, key) => {
                let (table, model) = &mut sides[side];
                let found = table.find_mut(full(&key), |(other, _)| *other == key);
                assert_eq!(found.is_some(), model.contains_key(&key));
                if let Some(element) = found {
                    element.1 = now;
                    model.insert(key, now);
                }
            }
            ShareOp::Retain(side, divisor) => {
                let (table, model) = &mut sides[side];
                table.retain(|(key, _)| *key % divisor != 0, key_hash);
                model.retain(|key, _| key % divisor != 0);
            }
        }
        for (table, model) in &sides {
            table.check(key_hash);
            assert_eq!(&table.iter().copied().collect::<HashMap<_, _>>(), model);
            let (mut cursor, mut seen) = (Some(0), HashMap::new());
            while let Some(from) = cursor {
                cursor = table.scan(from, 300, key_hash, |(key, value)| assert!(seen.insert(*key, *value).is_none()));
                assert!(cursor.is_none_or(|next| next > from && next.is_multiple_of(1 << CURSOR_SHIFT)));
            }
            assert_eq!(&seen, model);
        }
    }
    let [(table, model), (clone, clone_model)] = sides;
    assert_eq!(table.into_values().collect::<HashMap<_, _>>(), model);
    assert_eq!(clone.into_values().collect::<HashMap<_, _>>(), clone_model);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 12 } else { 60 })) {
        run(ops, full);
    }

    #[test]
    fn behaves_like_a_map_with_19_bits(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 12 } else { 60 })) {
        run(ops, tagged);
    }

    #[test]
    fn what_is_done_to_a_clone_is_not_seen_by_the_original(
        ops in prop::collection::vec(share_op(), 1..if cfg!(miri) { 12 } else { 40 }),
    ) {
        run_shared(ops);
    }
}
