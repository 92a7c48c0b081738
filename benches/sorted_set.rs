//! A large sorted set: what its operations cost, and how long the slowest in a hundred and in ten thousand take.
//!
//! `SPINEL_BENCH_MEMBERS` says how many members it has: a million if nobody says otherwise.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use spinel::types::zset::{Direction, Limits, ZSet};

const LIMITS: Limits = Limits { entries: 128, bytes: 64 };
/// Operations whose times are sorted.
const TIMED: usize = 200_000;

fn member(n: u64) -> [u8; 20] {
    let mut name = *b"member:0000000000000";
    let mut rest = n;
    for digit in name[7..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

/// Prints how long `operation` takes: the median and the slowest.
fn tail(name: &str, mut operation: impl FnMut()) {
    let mut times: Vec<Duration> = (0..TIMED)
        .map(|_| {
            let began = Instant::now();
            operation();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |part: f64| times[(TIMED as f64 * part) as usize];
    println!("{name}: median {:?}, p99 {:?}, p99.99 {:?}, worst {:?}", at(0.5), at(0.99), at(0.9999), times[TIMED - 1]);
}

fn sorted_set(c: &mut Criterion) {
    let members = std::env::var("SPINEL_BENCH_MEMBERS").ok().and_then(|s| s.parse().ok()).unwrap_or(1_000_000);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut zset = ZSet::default();
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    for n in 0..members {
        let score = rng.f64();
        let began = Instant::now();
        zset.insert(&member(n), score, LIMITS);
        worst = worst.max(began.elapsed());
    }
    let each = zset.view().memory() as f64 / members as f64;
    println!("{members} members in {:?}, worst insert {worst:?}, {each:.1} bytes each", began.elapsed());

    tail("new score", || zset.insert(&member(rng.u64(..members)), rng.f64(), LIMITS));
    tail("rank", || _ = zset.view().rank(&member(rng.u64(..members))));
    tail("ten by rank", || _ = zset.view().iter(rng.usize(..members as usize), Direction::Up).take(10).count());

    let mut group = c.benchmark_group(format!("sorted set of {members}"));
    group.bench_function("new score", |b| b.iter(|| zset.insert(&member(rng.u64(..members)), rng.f64(), LIMITS)));
    group.bench_function("score", |b| b.iter(|| zset.view().score(&member(rng.u64(..members)))));
    group.bench_function("rank", |b| b.iter(|| zset.view().rank(&member(rng.u64(..members)))));
    group.bench_function("ten by rank", |b| {
        b.iter(|| {
            zset.view().iter(rng.usize(..members as usize), Direction::Up).take(10).map(|(_, score)| score).sum::<f64>()
        })
    });
    group.bench_function("pop the lowest and add it again", |b| {
        let mut next = 0;
        b.iter(|| {
            let lowest = zset.view().at(0).map(|(member, _)| member.to_vec());
            zset.remove_range(0..1);
            next += 1;
            lowest.inspect(|member| zset.insert(member, f64::from(next), LIMITS))
        })
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = sorted_set
}
criterion_main!(benches);
