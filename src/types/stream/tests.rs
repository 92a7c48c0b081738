//! Streams against a map that is too simple to be wrong, and the bytes of their chunks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::chunk::{Chunk, Limits};
use super::group::{Group, Pending};
use super::id::Id;
use super::*;

type Pairs = Vec<Vec<u8>>;

const LIMITS: Limits = Limits { bytes: 300, entries: 7 };

fn owned(entry: Entry<'_>) -> (Id, Pairs) {
    (entry.id, entry.elements().map(|item| item.to_vec()).collect())
}

fn append(log: &mut Log, id: Id, elements: &[&str]) {
    log.append(id, elements.iter().map(|e| e.as_bytes()), LIMITS);
}

#[test]
fn a_chunk_has_the_bytes_of_the_format() {
    let mut log = Log::default();
    append(&mut log, Id::new(1000, 5), &["a", "1", "b", "x"]);
    append(&mut log, Id::new(1001, 2), &["a", "2", "b", "y"]);
    append(&mut log, Id::new(1002, 0), &["c", "3"]);
    assert!(log.delete(Id::new(1001, 2)));
    let (id, pack) = log.chunks().next().unwrap();
    let elements: Vec<String> = pack.iter().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
    let expected = [
        ["2", "1", "2", "a", "b", "0"].as_slice(),
        &["2", "0", "0", "1", "x", "5"],
        &["3", "1", "-3", "2", "y", "5"],
        &["0", "2", "-5", "1", "c", "3", "6"],
    ];
    assert_eq!((id, elements), (Id::new(1000, 5), expected.concat().into_iter().map(String::from).collect()));
}

#[test]
fn damaged_chunks_are_refused_and_never_panic() {
    let mut log = Log::default();
    for i in 1..6 {
        append(&mut log, Id::new(i * 300, i), &["field", "value", "n", "1000"]);
    }
    append(&mut log, Id::new(3000, 1), &["other", ""]);
    log.delete(Id::new(600, 2));
    let (id, pack) = log.chunks().next().unwrap();
    let good = pack.as_bytes().to_vec();
    let mut taken = 0;
    for at in 0..good.len() {
        for value in 0..=u8::MAX {
            let mut bad = good.clone();
            bad[at] = value;
            let Some(pack) = Listpack::from_bytes(bad) else { continue };
            let mut log = Log::default();
            if log.add_chunk(id, pack) {
                taken += 1;
                let up: Vec<_> = log.entries(Id::MIN, Id::MAX).map(owned).collect();
                let mut down: Vec<_> = log.entries_down(Id::MAX, Id::MIN).map(owned).collect();
                down.reverse();
                assert_eq!((up.len(), &up), (log.len(), &down));
            }
        }
    }
    assert!(taken > good.len(), "the bytes as they are, and other values");
    let mut log = Log::default();
    assert!(log.add_chunk(id, pack.clone()) && !log.add_chunk(id, pack.clone()));
}

#[test]
fn nodes_of_the_radix_tree_are_counted_as_redis_does() {
    // Ids and counts as a real server's XINFO STREAM tells them, one entry to a node.
    let expected = [(1, 2), (2, 4), (3, 5), (4, 6)];
    let mut log = Log::default();
    assert_eq!(log.radix_nodes(), 1);
    for (seq, nodes) in expected {
        log.append(Id::new(7, seq), [b"a".as_slice(), b"b"].into_iter(), Limits { bytes: 0, entries: 1 });
        assert_eq!(log.radix_nodes(), nodes, "{seq}");
    }
}

#[test]
fn lag_is_known_where_nothing_is_missing_ahead() {
    let mut log = Log::default();
    let mut group = Group::new(Id::MIN, None);
    assert_eq!(log.lag(&group), Some(0));
    for i in 1..=5 {
        append(&mut log, Id::new(i, 0), &["a", "b"]);
    }
    assert_eq!(log.lag(&group), Some(5));
    assert!(log.advance(&mut group, Id::new(1, 0)) && !log.advance(&mut group, Id::new(1, 0)));
    assert_eq!((group.read, log.lag(&group)), (Some(1), Some(4)));
    log.delete(Id::new(3, 0));
    assert_eq!(log.lag(&group), None);
    assert!(log.advance(&mut group, Id::new(2, 0)));
    assert_eq!((group.read, log.lag(&group)), (None, None));
    assert!(log.advance(&mut group, Id::new(5, 0)));
    assert_eq!((group.read, log.lag(&group)), (Some(5), Some(0)));
}

#[derive(Debug, Clone)]
enum Step {
    Append { ms: u64, seq: u64, fields: usize, value: String },
    Delete(usize),
    DeleteNone(u64),
    MaxLen(u64, bool, u64),
    MinId(u64, bool, u64),
    Clone,
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || prop_oneof![Just(0), 1u64..30];
    prop_oneof![
        12 => (0u64..3, 0u64..3, 0usize..4, prop_oneof!["[a-z]{0,12}", "[0-9]{1,5}", "[x]{80}"])
            .prop_map(|(ms, seq, fields, value)| Step::Append { ms, seq, fields, value }),
        4 => any::<prop::sample::Index>().prop_map(|i| Step::Delete(i.index(1000))),
        1 => (0u64..100).prop_map(Step::DeleteNone),
        2 => (0u64..60, any::<bool>(), limit()).prop_map(|(n, exact, limit)| Step::MaxLen(n, exact, limit)),
        2 => (0u64..80, any::<bool>(), limit()).prop_map(|(n, exact, limit)| Step::MinId(n, exact, limit)),
        1 => Just(Step::Clone),
        1 => Just(Step::Reload),
    ]
}

fn elements(fields: usize, value: &str) -> Pairs {
    let names: &[&str] = [&["a"][..], &["a", "b"], &["b", "12"], &["12", "b", "a"]][fields];
    names.iter().flat_map(|name| [name.as_bytes().to_vec(), value.as_bytes().to_vec()]).collect()
}

fn reload(log: &Log) -> Log {
    let mut again = Log::default();
    for (id, pack) in log.chunks() {
        assert!(again.add_chunk(id, Listpack::from_bytes(pack.as_bytes().to_vec()).unwrap()));
    }
    again.set_counters(log.counters());
    again
}

fn check(log: &Log, model: &BTreeMap<Id, Pairs>) {
    let pairs = |(id, pairs): (&Id, &Pairs)| (*id, pairs.clone());
    assert_eq!(log.len(), model.len());
    assert_eq!(
        log.entries(Id::MIN, Id::MAX).map(owned).collect::<Vec<_>>(),
        model.iter().map(pairs).collect::<Vec<_>>()
    );
    let down: Vec<_> = log.entries_down(Id::MAX, Id::MIN).map(owned).collect();
    assert_eq!(down, model.iter().rev().map(pairs).collect::<Vec<_>>());
    assert_eq!(log.first_id(), model.keys().next().copied().unwrap_or_default());
    assert_eq!(log.top_id(), model.keys().next_back().copied());
    assert!(log.chunks.iter().all(|(_, chunk)| chunk.living() > 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_log_holds_what_a_map_holds(steps in prop::collection::vec(step(), 1..150), from in 0u64..100, to in 0u64..100) {
        let (mut log, mut model) = (Log::default(), BTreeMap::<Id, Pairs>::new());
        let (mut added, mut max_deleted) = (0, Id::MIN);
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Append { ms, seq, fields, value } => {
                    let last = log.counters().last;
                    let id = if ms == 0 { Id::new(last.ms, last.seq + 1 + seq) } else { Id::new(last.ms + ms, seq) };
                    let elements = elements(fields, &value);
                    log.append(id, elements.iter().map(Vec::as_slice), LIMITS);
                    model.insert(id, elements);
                    added += 1;
                }
                Step::Delete(i) => if let Some(id) = model.keys().nth(i % model.len().max(1)).copied() {
                    model.remove(&id);
                    prop_assert!(log.delete(id) && !log.delete(id));
                    max_deleted = max_deleted.max(id);
                }
                Step::DeleteNone(ms) => prop_assert!(!log.delete(Id::new(ms, 77))),
                Step::MaxLen(most, exact, limit) => {
                    let before = model.len() as u64;
                    let precision = if exact { Precision::Exact } else { Precision::Chunks(limit) };
                    let removed = log.trim(Trim::MaxLen(most), precision);
                    let wanted = before.saturating_sub(most);
                    prop_assert!(removed <= wanted);
                    prop_assert!(!exact || removed == wanted);
                    prop_assert!(exact || limit == 0 || removed <= limit);
                    // No more than a chunk is left over.
                    prop_assert!(exact || limit > 0 || wanted - removed < LIMITS.entries);
                    (0..removed).for_each(|_| { model.pop_first(); });
                }
                Step::MinId(ms, exact, limit) => {
                    let least = Id::new(ms, 1);
                    let wanted = model.range(..least).count() as u64;
                    let precision = if exact { Precision::Exact } else { Precision::Chunks(limit) };
                    let removed = log.trim(Trim::MinId(least), precision);
                    prop_assert!(removed <= wanted);
                    prop_assert!(!exact || removed == wanted);
                    prop_assert!(exact || limit == 0 || removed <= limit);
                    (0..removed).for_each(|_| { model.pop_first(); });
                }
                Step::Clone => copies.push((log.clone(), model.clone())),
                Step::Reload => log = reload(&log),
            }
            prop_assert_eq!(log.len(), model.len());
        }
        prop_assert_eq!((log.counters().added, log.counters().max_deleted), (added, max_deleted));
        let (from, to) = (Id::new(from, 1), Id::new(to, 1));
        if from <= to {
            let expected: Vec<_> = model.range(from..=to).map(|(id, pairs)| (*id, pairs.clone())).collect();
            prop_assert_eq!(&log.entries(from, to).map(owned).collect::<Vec<_>>(), &expected);
            let mut down: Vec<_> = log.entries_down(to, from).map(owned).collect();
            down.reverse();
            prop_assert_eq!(down, expected);
        } else {
            prop_assert_eq!(log.entries(from, to).count() + log.entries_down(to, from).count(), 0);
        }
        prop_assert_eq!(log.entry(from).map(owned), model.get(&from).map(|pairs| (from, pairs.clone())));
        copies.push((log, model));
        copies.iter().for_each(|(log, model)| check(log, model));
    }
}

#[derive(Debug, Clone)]
enum GroupStep {
    Create(u8),
    Delete(u8),
    Assign(u64, u8, u64),
    Redeliver(u64),
    Acknowledge(u64),
    Clone,
}

fn group_step() -> impl Strategy<Value = GroupStep> {
    prop_oneof![
        2 => (0u8..5).prop_map(GroupStep::Create),
        1 => (0u8..5).prop_map(GroupStep::Delete),
        8 => (0u64..300, 0u8..5, 0u64..9).prop_map(|(id, who, n)| GroupStep::Assign(id, who, n)),
        1 => (0u64..300).prop_map(GroupStep::Redeliver),
        4 => (0u64..300).prop_map(GroupStep::Acknowledge),
        1 => Just(GroupStep::Clone),
    ]
}

/// By id: consumer, time, deliveries.
type PendingModel = BTreeMap<Id, (u8, u64, u64)>;

fn check_group(group: &Group, consumers: &BTreeSet<u8>, pending: &PendingModel) {
    assert_eq!(group.consumers().map(|c| c.name()[0]).collect::<BTreeSet<_>>(), *consumers);
    let all: PendingModel = group
        .pending()
        .iter()
        .map(|(id, p)| (id, (group.consumer(p.consumer).name()[0], p.delivered_ms, p.deliveries)))
        .collect();
    assert_eq!(all, *pending);
    for consumer in group.consumers() {
        let ids: Vec<Id> = consumer.pending().iter().map(|(id, ())| id).collect();
        let expected = pending.iter().filter(|(_, (who, ..))| *who == consumer.name()[0]);
        assert_eq!(ids, expected.map(|(id, _)| *id).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_pending_is_known_by_group_and_consumer_alike(steps in prop::collection::vec(group_step(), 1..200)) {
        let (mut group, mut consumers, mut model) = (Group::default(), BTreeSet::new(), PendingModel::new());
        let mut copies = Vec::new();
        for step in steps {
            match step {
                GroupStep::Create(who) => prop_assert_eq!(group.create(&[who], 5).is_some(), consumers.insert(who)),
                GroupStep::Delete(who) => {
                    let had = model.values().filter(|(owner, ..)| *owner == who).count();
                    model.retain(|_, (owner, ..)| *owner != who);
                    prop_assert_eq!(group.delete(&[who]), consumers.remove(&who).then_some(had));
                }
                GroupStep::Assign(id, who, n) => if let Some(consumer) = group.find(&[who]) {
                    group.assign(Id::new(id, 0), Pending { delivered_ms: id, deliveries: n, consumer });
                    model.insert(Id::new(id, 0), (who, id, n));
                }
                GroupStep::Redeliver(id) => {
                    group.redelivered(Id::new(id, 0), 9);
                    if let Some(pending) = model.get_mut(&Id::new(id, 0)) {
                        *pending = (pending.0, 9, pending.2 + 1);
                    }
                }
                GroupStep::Acknowledge(id) => {
                    let known = group.acknowledge(Id::new(id, 0)).map(|p| (p.delivered_ms, p.deliveries));
                    prop_assert_eq!(known, model.remove(&Id::new(id, 0)).map(|(_, at, n)| (at, n)));
                }
                GroupStep::Clone => copies.push((group.clone(), consumers.clone(), model.clone())),
            }
        }
        copies.push((group, consumers, model));
        copies.iter().for_each(|(group, consumers, model)| check_group(group, consumers, model));
    }
}

#[test]
fn a_clone_shares_all_chunks_but_those_that_change() {
    let mut log = Log::default();
    for i in 1..=5000 {
        append(&mut log, Id::new(i, 0), &["field", "value"]);
    }
    let copy = log.clone();
    append(&mut log, Id::new(9000, 0), &["field", "value"]);
    log.delete(Id::new(2500, 0));
    let same = |a: &Chunk, b: &Chunk| std::ptr::eq(a.pack().as_bytes(), b.pack().as_bytes());
    let shared = copy.chunks.iter().filter(|(id, chunk)| log.chunks.at(*id).is_some_and(|other| same(chunk, other)));
    assert!(copy.chunks.len() - shared.count() <= 2);
    assert_eq!((copy.len(), log.len()), (5000, 5000));
}
