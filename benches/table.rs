//! Tables of 8-byte elements: how fast they are, and how long the worst single insert takes.
//!
//! The elements are made-up pointers that carry the top 19 bits of their hash, as the keyspace's do, and that are told
//! apart by all of their bits, as if each comparison looked at an entry.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use spinel::types::table::Table;

const MILLION: u64 = 1 << 20;
const SLOTS: u64 = 16384;
const BATCH: usize = 16;

/// SplitMix64.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A "pointer": 19 bits of hash above, a number below.
fn pointer(value: u64) -> u64 {
    (mix(value) >> 45 << 45) | value
}

fn hash(pointer: &u64) -> u64 {
    pointer >> 45 << 45
}

fn one_table(c: &mut Criterion) {
    for count in [64, 600, MILLION] {
        let mut group = c.benchmark_group(format!("table of {count}"));
        // At depth 11, 19 bits would be too few: full hashes, as in values.
        let full = |value: &u64| mix(*value);
        let mut table = Table::new();
        (0..count).for_each(|value| _ = table.insert_unique(full(&value), value, full));
        let mut rng = fastrand::Rng::with_seed(7);
        group.bench_function("find hit", |b| {
            b.iter(|| {
                let value = rng.u64(..count);
                table.find(full(&value), |other| *other == value).is_some()
            })
        });
        group.bench_function("find miss", |b| {
            b.iter(|| {
                let value = count + rng.u64(..count);
                table.find(full(&value), |other| *other == value).is_some()
            })
        });
        group.bench_function("remove and insert", |b| {
            b.iter(|| {
                let value = rng.u64(..count);
                let removed = table.remove(full(&value), |other| *other == value, full);
                table.insert_unique(full(&value), value, full);
                removed
            })
        });
        group.bench_function("scan 10", |b| {
            b.iter(|| {
                let mut sum = 0;
                table.scan(rng.u64(..), 10, full, |value| sum += value);
                sum
            })
        });
        group.finish();
    }
}

fn growth(c: &mut Criterion) {
    let full = |value: &u64| mix(*value);
    // The same insert costs the same in each round, but for interruptions by others: the best of five counts.
    let mut best = vec![Duration::MAX; MILLION as usize];
    let mut bytes = 0;
    for _ in 0..5 {
        let mut table = Table::new();
        for (value, best) in (0..).zip(&mut best) {
            let began = Instant::now();
            table.insert_unique(full(&value), value, full);
            *best = began.elapsed().min(*best);
        }
        bytes = table.allocated_bytes();
    }
    let worst = best.iter().max().expect("a million inserts");
    println!("worst insert of a million: {worst:?}; {:.1} bytes an element", bytes as f64 / MILLION as f64);

    let mut group = c.benchmark_group("growth");
    group.sample_size(10).throughput(Throughput::Elements(MILLION));
    group.bench_function("one table to a million", |b| {
        b.iter_batched(
            Table::new,
            |mut table| {
                (0..MILLION).for_each(|value| _ = table.insert_unique(full(&value), value, full));
                table
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

/// What the keyspace does with a batch of requests: a million keys in as many tables as there are slots.
fn batches(c: &mut Criterion) {
    let mut slots: Vec<Table<u64>> = (0..SLOTS).map(|_| Table::new()).collect();
    for value in 0..MILLION {
        slots[(value % SLOTS) as usize].insert_unique(hash(&pointer(value)), pointer(value), hash);
    }
    let mut group = c.benchmark_group("a batch of 16 over 16384 tables");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut rng = fastrand::Rng::with_seed(7);
    let find = |value: u64| {
        let wanted = pointer(value);
        slots[(value % SLOTS) as usize].find(hash(&wanted), |other| *other == wanted).is_some()
    };
    // As a request does: nothing of the next begins before this one's answer is known.
    let find_all =
        |batch: &[u64]| batch.iter().fold(0, |found, &value| found + u64::from(find(value + black_box(found) / 64)));
    group.bench_function("find", |b| {
        b.iter(|| {
            let batch: [u64; BATCH] = std::array::from_fn(|_| rng.u64(..MILLION));
            find_all(&batch)
        })
    });
    group.bench_function("prefetch, then find", |b| {
        b.iter(|| {
            let batch: [u64; BATCH] = std::array::from_fn(|_| rng.u64(..MILLION));
            for &value in &batch {
                slots[(value % SLOTS) as usize].prefetch(hash(&pointer(value)));
            }
            find_all(&batch)
        })
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = one_table, growth, batches
}
criterion_main!(benches);
