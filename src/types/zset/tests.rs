//! Sorted sets of both forms against a vector that is sorted anew each time.

use super::*;
use proptest::prelude::*;

/// Members in order, compared as scores first: what a sorted set is.
type Model = Vec<(f64, Vec<u8>)>;

fn position(model: &Model, member: &[u8]) -> Option<usize> {
    model.iter().position(|(_, other)| other == member)
}

fn put(model: &mut Model, member: &[u8], score: f64) {
    model.retain(|(_, other)| other != member);
    let at = model.partition_point(|(s, m)| (*s, m.as_slice()).partial_cmp(&(score, member)) == Some(Ordering::Less));
    model.insert(at, (score, member.to_vec()));
}

fn contents(zset: &ZSet, direction: Direction) -> Model {
    let from = if direction == Direction::Up { 0 } else { zset.len().saturating_sub(1) };
    zset.view().iter(from, direction).map(|(item, score)| (score, item.to_vec())).collect()
}

fn check(zset: &ZSet) {
    match &zset.0 {
        Repr::Dense(dense) => assert!(dense.run().end() <= dense::MAX),
        Repr::Packed(_) => {}
        Repr::Sorted(sorted) => sorted.check(),
    }
    if let Some(pack) = zset.view().listpack() {
        let again = ZSet::from_listpack(pack.clone().into_owned(), SMALL).expect("it is a sorted set");
        assert!(again.view().listpack().is_some_and(|other| other == pack));
    }
}

fn same(zset: &ZSet, model: &Model) {
    check(zset);
    assert_eq!(zset.len(), model.len());
    assert_eq!(&contents(zset, Direction::Up), model);
    assert!(contents(zset, Direction::Down).iter().eq(model.iter().rev()));
}

const SMALL: Limits = Limits { entries: 128, bytes: 64 };
const LARGE: Limits = Limits { entries: 0, bytes: 0 };

#[derive(Debug, Clone)]
enum Step {
    /// A run of members from a number on, all with about this score.
    Add(u32, u32, f64),
    /// One member, looked at before.
    Upsert(u32, f64, bool),
    Remove(u32, u32),
    RemoveRange(usize, usize),
    Scores(f64, f64),
    Bytes(u32, u32),
    /// The copy becomes what the set is now; it must stay that.
    Clone,
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-20i32..20).prop_map(f64::from),
        2 => any::<f64>().prop_filter("a number", |s| !s.is_nan()),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => (0u32..4).prop_map(|n| 1e12 + f64::from(n) * 1e-4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let most = if cfg!(miri) { 40u32 } else { 600 };
    prop_oneof![
        3 => (0..2000u32, 1..most, score()).prop_map(|(m, n, s)| Step::Add(m, n, s)),
        4 => (0..2000u32, score(), any::<bool>()).prop_map(|(m, s, only_if_higher)| Step::Upsert(m, s, only_if_higher)),
        3 => (0..2000u32, 1..most).prop_map(|(m, n)| Step::Remove(m, n)),
        2 => (0..1000usize, 0..most as usize).prop_map(|(start, n)| Step::RemoveRange(start, n)),
        2 => (score(), score()).prop_map(|(a, b)| Step::Scores(a, b)),
        1 => (0..2000u32, 0..2000u32).prop_map(|(a, b)| Step::Bytes(a, b)),
        1 => Just(Step::Clone),
    ]
}

fn name(n: u32) -> Vec<u8> {
    match n % 7 {
        // Numbers, texts, and one that is too long for a listpack.
        0 => n.to_string().into_bytes(),
        6 if n % 91 == 6 => vec![b'm'; 300 + n as usize],
        _ => format!("member:{n:05}").into_bytes(),
    }
}

fn run(steps: Vec<Step>, limits: Limits) {
    let (mut zset, mut model) = (ZSet::default(), Model::new());
    let (mut copy, mut copied) = (zset.clone(), model.clone());
    for step in steps {
        match step {
            Step::Add(from, count, score) => {
                for n in from..from + count {
                    // A pattern of ties, ascents and descents.
                    let score = if n % 3 == 0 { score } else { score + f64::from(n % 50) };
                    let score = if score.is_nan() { 0.0 } else { score };
                    zset.insert(&name(n), score, limits);
                    put(&mut model, &name(n), score);
                }
            }
            Step::Upsert(n, score, only_if_higher) => {
                let old = position(&model, &name(n)).map(|at| model[at].0);
                let new = (!only_if_higher || old.is_none_or(|old| score > old)).then_some(score);
                zset.upsert(&name(n), limits, |found| {
                    assert_eq!(found, old);
                    new
                });
                if let Some(new) = new {
                    put(&mut model, &name(n), new);
                }
            }
            Step::Remove(from, count) => {
                for n in from..from + count {
                    let found = position(&model, &name(n)).map(|at| model.remove(at).0);
                    assert_eq!(zset.remove(&name(n)), found);
                }
            }
            Step::RemoveRange(start, count) => {
                zset.remove_range(start..start + count);
                let end = (start + count).min(model.len());
                model.drain(start.min(end)..end);
            }
            Step::Scores(a, b) => {
                let (low, high) = (a.min(b), a.max(b));
                let span = zset.view().span(|_, score| {
                    if score < low {
                        Ordering::Less
                    } else if score > high {
                        Ordering::Greater
                    } else {
                        Ordering::Equal
                    }
                });
                let start = model.iter().filter(|(score, _)| *score < low).count();
                let end = model.iter().filter(|(score, _)| *score <= high).count();
                assert_eq!(span, start..end);
            }
            Step::Bytes(a, b) => {
                for n in [a, b] {
                    let at = position(&model, &name(n));
                    assert_eq!(zset.view().rank(&name(n)), at.map(|at| (at, model[at].0)));
                    assert_eq!(zset.view().score(&name(n)), at.map(|at| model[at].0));
                    let at = n as usize;
                    assert_eq!(zset.view().at(at).map(|(m, s)| (s, m.to_vec())), model.get(at).cloned());
                    let down = zset.view().iter(at, Direction::Down).take(200).map(|(m, s)| (s, m.to_vec()));
                    let expected = model.get(..=at).unwrap_or(&[]).iter().rev().take(200).cloned();
                    assert!(down.eq(expected));
                }
            }
            Step::Clone => {
                same(&copy, &copied);
                (copy, copied) = (zset.clone(), model.clone());
            }
        }
        same(&zset, &model);
    }
    same(&copy, &copied);
    copy.insert(b"one more", 0.5, limits);
    put(&mut copied, b"one more", 0.5);
    same(&copy, &copied);
    drop(copy);
    same(&zset, &model);
    zset.remove_range(0..usize::MAX);
    same(&zset, &Model::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 96 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_small_one_holds_what_a_sorted_vector_holds(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 6 } else { 12 })) {
        run(steps, SMALL);
    }

    #[test]
    fn a_large_one_holds_what_a_sorted_vector_holds(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 10 } else { 30 })) {
        run(steps, LARGE);
    }

    #[test]
    fn spans_of_bytes_follow_the_bytes_where_scores_are_equal(
        members in prop::collection::btree_set(0..3000u32, 0..400), low in 0..3000u32, high in 0..3000u32, large: bool,
    ) {
        let mut zset = ZSet::default();
        for n in &members {
            zset.insert(&name(*n), 1.0, if large { LARGE } else { Limits { entries: 1000, bytes: 10_000 } });
        }
        let (low, high) = (name(low), name(high));
        let span = zset.view().span(|item, _| {
            if ZSet::compare(item, &low).is_lt() {
                Ordering::Less
            } else if ZSet::compare(item, &high).is_gt() {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        });
        let mut sorted: Vec<_> = members.iter().map(|n| name(*n)).collect();
        sorted.sort();
        let expected: Vec<_> = sorted.into_iter().filter(|m| low <= *m && *m <= high).collect();
        let found: Vec<_> = zset.view().iter(span.start, Direction::Up).take(span.len()).map(|(m, _)| m.to_vec()).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn it_grows_and_shrinks_in_any_order_through_several_levels() {
    let count = if cfg!(miri) { 300 } else { 60_000u32 };
    let orders: [fn(u32, u32) -> f64; 4] = [
        |n, _| f64::from(n),
        |n, count| f64::from(count - n),
        |n, _| f64::from(n.wrapping_mul(2_654_435_761)),
        |_, _| 0.0,
    ];
    for order in orders {
        let mut zset = ZSet::default();
        (0..count).for_each(|n| zset.insert(&name(n), order(n, count), LARGE));
        check(&zset);
        let mut copy = zset.clone();
        (0..count).for_each(|n| zset.insert(&name(n), order(count - n, count) / 3.0, LARGE));
        check(&zset);
        (0..count).rev().for_each(|n| assert_eq!(zset.remove(&name(n)), Some(order(count - n, count) / 3.0)));
        check(&zset);
        assert!(zset.is_empty());
        check(&copy);
        while !copy.is_empty() {
            let middle = copy.len() / 2;
            copy.remove_range(middle..middle + 7);
            copy.remove_range(0..1);
        }
        check(&copy);
    }
}

#[test]
fn a_scan_visits_whatever_stays_while_a_third_changes() {
    let (count, changes) = if cfg!(miri) { (90, 4) } else { (9000u32, 40) };
    let mut zset = ZSet::default();
    (0..count).for_each(|n| zset.insert(&name(n), f64::from(n), LARGE));
    let mut seen = std::collections::HashSet::new();
    let (mut cursor, mut turn) = (0, 0);
    loop {
        let next = zset.view().scan(cursor, 10, |item, score| {
            let text = item.to_vec();
            assert!(score.fract() == 0.0 || score.fract() == 0.5);
            seen.insert(text);
        });
        // Members with numbers divisible by three are removed, or get another score; new ones come.
        turn += 1;
        for n in (turn * changes..(turn + 1) * changes).map(|n| n * 3 % count) {
            if n % 2 == 0 {
                zset.remove(&name(n));
            } else {
                zset.insert(&name(n), 0.5, LARGE);
            }
            zset.insert(format!("new:{turn}:{n}").as_bytes(), 1.0, LARGE);
        }
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    for n in (0..count).filter(|n| n % 3 != 0) {
        assert!(seen.contains(&name(n)), "{n}");
    }
}

#[test]
fn the_encoding_follows_the_limits_and_does_not_return() {
    let limits = Limits { entries: 3, bytes: 5 };
    let mut zset = ZSet::default();
    for (n, member) in [&b"1"[..], b"b", b"12345"].into_iter().enumerate() {
        zset.insert(member, n as f64, limits);
    }
    zset.insert(b"b", -0.0, limits);
    assert_eq!((zset.view().encoding(), zset.view().score(b"b")), ("listpack", Some(0.0)));
    let mut longer = zset.clone();
    longer.remove(b"1");
    longer.insert(b"123456", 1.0, limits);
    assert_eq!((longer.view().encoding(), longer.len()), ("skiplist", 3));
    zset.insert(b"d", 1.5, limits);
    assert_eq!((zset.view().encoding(), zset.view().rank(b"d")), ("skiplist", Some((2, 1.5))));
    zset.remove_range(0..3);
    assert_eq!((zset.view().encoding(), zset.len()), ("skiplist", 1));
}

#[test]
fn a_large_one_takes_little_more_than_its_members() {
    if cfg!(miri) {
        return;
    }
    let mut zset = ZSet::default();
    let count = 200_000u64;
    for n in 0..count {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        zset.insert(format!("{mixed:016x}").as_bytes(), (mixed >> 40) as f64, LARGE);
    }
    let each = zset.view().memory() as u64 / count;
    assert!((40..63).contains(&each), "{each} bytes a member");
}
