//! [`Hash`] against the standard library's map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { fields: 16, bytes: 20 };

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

impl Hash {
    /// Panics unless what the file says stays true does, and the hash holds what the model does.
    fn check(&self, model: &Model, now: u64) {
        let mut all = Model::new();
        self.view().for_each(|name, found| {
            let old = all.insert(name.to_vec(), (found.value.to_vec(), found.deadline));
            assert!(old.is_none(), "no name twice");
        });
        assert_eq!(&all, model);
        assert_eq!(self.len(), model.len());
        assert_eq!(self.first_deadline(), model.values().filter_map(|(_, deadline)| *deadline).min());
        for (name, (value, deadline)) in model {
            let found = self.view().find(name).expect("what was set is there");
            assert_eq!((found.value.to_vec(), found.deadline), (value.clone(), *deadline));
            assert_eq!(self.at(now).get(name).is_some(), deadline.is_none_or(|deadline| deadline >= now));
        }
        let living = model.values().filter(|(_, deadline)| deadline.is_none_or(|at| at >= now)).count();
        assert_eq!((self.at(now).len(), self.at(now).is_empty()), (living, living == 0));
        match &self.0 {
            Repr::Dense(dense) => {
                assert!(model.values().all(|(_, deadline)| deadline.is_none()));
                assert!(dense.run().end() <= dense::MAX && dense.run().count() == 2 * model.len());
            }
            Repr::Packed(_) => assert!(model.values().all(|(_, deadline)| deadline.is_none())),
            Repr::Timed(pack) => {
                let deadlines: Vec<u64> = pack
                    .iter()
                    .skip(2)
                    .step_by(3)
                    .map(|item| String::from_utf8(item.to_vec()).unwrap().parse().unwrap())
                    .collect();
                assert!(deadlines.is_sorted_by_key(|at| if *at == 0 { u64::MAX } else { *at }), "{deadlines:?}");
            }
            Repr::Table(large) => {
                large.fields.check(rehash);
                let timed = model.values().filter(|(_, deadline)| deadline.is_some()).count();
                assert_eq!(large.due.as_ref().map_or(0, |due| due.len()), timed);
                assert_eq!(large.due.is_some(), timed > 0, "no deadline, no index");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<u8>, Vec<u8>, Option<u64>),
    SetInt(Vec<u8>, i64),
    SetMany(u16, u16),
    /// As a file does.
    ToListpackAndBack,
    Deadline(Vec<u8>, Option<u64>),
    Remove(Vec<u8>),
    RemoveMany(u16, u16),
    Take(u64, usize),
    Clone,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..24u8).prop_map(|n| format!("f{n}").into_bytes()),
        4 => (0..12i64).prop_map(|n| (n * 37).to_string().into_bytes()),
        1 => Just(Vec::new()),
        1 => (0..300usize).prop_map(|n| vec![b'n'; n]),
    ]
}

fn deadline() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![2 => Just(None), 3 => (1..60u64).prop_map(Some)]
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..20),
        2 => (0..400usize).prop_map(|n| vec![b'v'; n]),
        1 => Just(vec![b'w'; field::INLINE_MAX + 1]),
    ];
    prop_oneof![
        8 => (name(), value, deadline()).prop_map(|(name, value, deadline)| Step::Set(name, value, deadline)),
        2 => (name(), any::<i64>()).prop_map(|(name, n)| Step::SetInt(name, n)),
        1 => (0..2000u16, 0..1500u16).prop_map(|(from, count)| Step::SetMany(from, count)),
        1 => Just(Step::ToListpackAndBack),
        6 => (name(), deadline()).prop_map(|(name, deadline)| Step::Deadline(name, deadline)),
        6 => name().prop_map(Step::Remove),
        1 => (0..2000u16, 0..1500u16).prop_map(|(from, count)| Step::RemoveMany(from, count)),
        1 => (0..70u64, 0..40usize).prop_map(|(now, limit)| Step::Take(now, limit)),
        1 => Just(Step::Clone),
    ]
}

fn run(steps: Vec<Step>, now: u64, limits: Limits) {
    let (mut hash, mut model) = (Hash::default(), Model::new());
    let mut clones = Vec::new();
    for step in steps {
        match step {
            Step::Set(name, value, deadline) => {
                let new = hash.set(&name, Text::Bytes(&value), deadline, limits);
                assert_eq!(new, model.insert(name, (value, deadline)).is_none());
            }
            Step::SetInt(name, n) => {
                hash.set(&name, Text::Int(n), None, limits);
                model.insert(name, (n.to_string().into_bytes(), None));
            }
            Step::SetMany(from, count) => {
                for n in from..from + if cfg!(miri) { count / 50 } else { count } {
                    let name = format!("many{n}").into_bytes();
                    let deadline = (n % 3 == 0).then_some(u64::from(n % 50) + 1);
                    hash.set(&name, Text::Bytes(b"x"), deadline, limits);
                    model.insert(name, (b"x".to_vec(), deadline));
                }
            }
            Step::ToListpackAndBack => {
                let pack = hash.view().listpack().map(|(pack, layout)| (pack.into_owned(), layout));
                if let Some((pack, layout)) = pack {
                    let again = Hash::from_listpack(pack.clone(), layout, limits).expect("it is a hash");
                    assert!(again.view().listpack().is_some_and(|(other, _)| *other == pack));
                    hash = again;
                }
            }
            Step::Deadline(name, deadline) => {
                let found = hash.set_deadline(&name, deadline);
                assert_eq!(found, model.contains_key(&name));
                if let Some(known) = model.get_mut(&name) {
                    known.1 = deadline;
                }
            }
            Step::Remove(name) => {
                assert_eq!(hash.remove(&name), model.remove(&name).is_some());
                hash.shrink();
            }
            Step::RemoveMany(from, count) => {
                for n in from..from + if cfg!(miri) { count / 50 } else { count } {
                    let name = format!("many{n}").into_bytes();
                    assert_eq!(hash.remove(&name), model.remove(&name).is_some());
                }
            }
            Step::Take(now, limit) => {
                let mut last = 0;
                let taken = hash.take_due(now, limit, |name, deadline| {
                    assert!(last <= deadline && deadline < now, "the earliest first");
                    last = deadline;
                    assert_eq!(model.remove(name).and_then(|(_, deadline)| deadline), Some(deadline));
                });
                let due = model.values().filter(|(_, deadline)| deadline.is_some_and(|at| at < now)).count();
                assert!(taken == limit || due == 0, "{due} are due and forgotten");
            }
            Step::Clone => clones.push((hash.clone(), model.clone())),
        }
        let small = model.len() <= limits.fields
            && model.iter().all(|(name, (value, _))| name.len().max(value.len()) <= limits.bytes);
        assert!(small || hash.view().encoding() == "hashtable");
        hash.check(&model, now);
    }
    clones.iter().for_each(|(hash, model)| hash.check(model, now));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 300 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_a_map_holds_and_a_clone_stays_what_it_was(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 60 }),
        now in 0..70u64,
    ) {
        run(steps.clone(), now, LIMITS);
        // So that it is a listpack above what is dense.
        run(steps, now, Limits { fields: 200, bytes: 150 });
    }
}

fn filled(fields: usize, deadline: impl Fn(usize) -> Option<u64>) -> Hash {
    let mut hash = Hash::default();
    for n in 0..fields {
        hash.set(format!("f{n}").as_bytes(), Text::Int(n as i64), deadline(n), LIMITS);
    }
    hash
}

#[test]
fn it_becomes_a_table_at_its_limits_and_stays_one() {
    let mut hash = filled(16, |_| None);
    assert_eq!(hash.view().encoding(), "listpack");
    hash.set(b"one more", Text::Int(0), None, LIMITS);
    assert_eq!(hash.view().encoding(), "hashtable");
    hash.remove(b"one more");
    assert_eq!((hash.view().encoding(), hash.len()), ("hashtable", 16));
    for (name, value) in [(&[b'n'; 21][..], &b"v"[..]), (b"n", &[b'v'; 21])] {
        let mut hash = filled(2, |_| None);
        hash.set(name, Text::Bytes(value), None, LIMITS);
        assert_eq!(hash.view().encoding(), "hashtable");
    }
    let mut timed = filled(16, |n| Some(n as u64 + 1));
    assert_eq!(timed.view().encoding(), "listpackex");
    timed.set(b"one more", Text::Int(0), None, LIMITS);
    assert_eq!((timed.view().encoding(), timed.first_deadline()), ("hashtable", Some(1)));
}

#[test]
fn a_scan_visits_every_living_field_once() {
    for fields in [10, if cfg!(miri) { 100 } else { 5000 }] {
        let hash = filled(fields, |n| (n % 4 == 0).then_some(5));
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            cursor = hash.at(6).scan(cursor, 7, |name, _| seen.push(name.to_vec()));
            assert!(cursor < 1 << 53);
            if cursor == 0 {
                break;
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), fields - fields.div_ceil(4));
        assert_eq!(hash.at(6).scan(u64::MAX, 7, |_, _| ()), 0);
    }
}

#[test]
fn random_fields_are_evenly_likely_and_alive() {
    for fields in [12, if cfg!(miri) { 40 } else { 400 }] {
        let hash = filled(fields, |n| (n % 4 == 0).then_some(5));
        let mut rng = fastrand::Rng::with_seed(7);
        let mut met = BTreeMap::<Vec<u8>, u32>::new();
        let tries = if cfg!(miri) { 40 } else { fields * 30 };
        for _ in 0..tries {
            assert!(hash.at(6).random(&mut rng, |name, _| *met.entry(name.to_vec()).or_default() += 1));
        }
        if !cfg!(miri) {
            assert_eq!(met.len(), fields - fields.div_ceil(4));
            assert!(met.values().all(|times| *times < 100), "{met:?}");
        }
    }
    let dead = filled(40, |n| Some(if n == 7 { 9 } else { 5 }));
    let mut rng = fastrand::Rng::with_seed(7);
    assert!(dead.at(6).random(&mut rng, |name, _| assert_eq!(name.to_vec(), b"f7")), "the only one that lives");
    assert!(!dead.at(10).random(&mut rng, |_, _| unreachable!("none lives")));
    assert!(!Hash::default().at(0).random(&mut rng, |_, _| unreachable!("there is none")));
}

#[test]
#[cfg_attr(miri, ignore = "a mean over many, of safe code")]
fn memory_is_what_a_field_needs_and_little_more() {
    let count = 50_000;
    let mut hash = Hash::default();
    for n in 0..count {
        hash.set(format!("field:{n:010}").as_bytes(), Text::Bytes(&[b'v'; 32]), None, LIMITS);
    }
    let each = hash.view().memory() as f64 / f64::from(count);
    println!("{each:.1} bytes a field of 16 bytes with a value of 32");
    assert!((59.0..72.0).contains(&each), "{each}");
}
