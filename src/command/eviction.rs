//! The memory limit: looked at before commands run, and keys that make room when it is reached.
//!
//! What must stay true: no shard is held while room is made, and it takes no longer than
//! `maxmemory-eviction-tenacity` allows, whatever there is to do; who wants memory meanwhile waits, or is refused
//! where no key can go. What makes room is noted in the log before what needed it.

use std::hint::cold_path;
use std::sync::atomic::Ordering;

use crate::command::engine::Engine;
use crate::config::choice::MaxmemoryPolicy;
use crate::config::table::Config;
use crate::keyspace::change::Effects;
use crate::keyspace::evict::{Order, Pool, Rule};
use crate::keyspace::moment::Moment;
use crate::observe::latency::Latency;
use crate::observe::stats::Counter;
use crate::stdx::memory;
use crate::stdx::ticks::Ticks;

/// Whether there is memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Below the limit, or so little above it that commands may run while more is done.
    Enough,
    /// Above the limit; the time for making room is over, and there is more that can go.
    Soon,
    /// Above the limit, and no key can go.
    None,
}

/// The share of the limit by which it may be exceeded for a while: a two hundredth.
const TOLERATED: u64 = 200;
/// The share of the limit that a batch may take before memory is looked at again: with all workers together
/// that is a two hundredth.
const UNSEEN: u64 = 200;
/// So many keys go before the time is looked at.
const STRIDE: usize = 16;

/// Which keys make room, where any do.
fn rule(policy: MaxmemoryPolicy) -> Option<Rule> {
    use MaxmemoryPolicy as Policy;
    let (volatile, order) = match policy {
        Policy::NoEviction => return None,
        Policy::AllkeysLru | Policy::AllkeysLrm => (false, Order::LeastRecent),
        Policy::VolatileLru | Policy::VolatileLrm => (true, Order::LeastRecent),
        Policy::AllkeysLfu => (false, Order::LeastFrequent),
        Policy::VolatileLfu => (true, Order::LeastFrequent),
        Policy::AllkeysRandom => (false, Order::Random),
        Policy::VolatileRandom => (true, Order::Random),
        Policy::VolatileTtl => (true, Order::NearestDeadline),
    };
    Some(Rule { volatile, order })
}

/// Whether keys go by when or how often they were used.
pub fn needs_clocks(config: &Config) -> bool {
    matches!(rule(config.maxmemory_policy), Some(Rule { order: Order::LeastRecent | Order::LeastFrequent, .. }))
}

/// How long room is made in one go, in microseconds; `None` for as long as it takes.
fn budget_us(tenacity: u32) -> Option<u64> {
    match tenacity {
        0..=10 => Some(50 * u64::from(tenacity)),
        // To two minutes at 99, each step 15 % more.
        11..=99 => Some((500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64),
        _ => None,
    }
}

/// What one thread needs for making room.
#[derive(Debug, Default)]
pub struct Eviction {
    pool: Pool,
    effects: Effects,
}

impl Eviction {
    /// Makes room where memory is above `maxmemory`. Reads some cache lines where it is not.
    #[inline]
    pub fn make_room(&mut self, engine: &Engine, config: &Config, moment: &Moment) -> Room {
        let limit = engine.memory_limit(config);
        if limit == 0 || memory::used() as u64 <= limit + engine.replication.beyond_bytes() {
            if engine.exceeded_since_us.load(Ordering::Relaxed) != 0 {
                cold_path();
                exceeded(engine, false);
            }
            return Room::Enough;
        }
        self.make_room_now(engine, config, moment)
    }

    #[cold]
    fn make_room_now(&mut self, engine: &Engine, config: &Config, moment: &Moment) -> Room {
        let started = Ticks::now();
        let room = self.evict(engine, config, moment, started);
        exceeded(engine, room != Room::Enough);
        let ms = started.elapsed_us() / 1000;
        if Latency::wants(config.latency_monitor_threshold, ms) {
            engine.latency.record("eviction-cycle", engine.clock.now_ms() / 1000, ms);
        }
        room
    }

    fn evict(&mut self, engine: &Engine, config: &Config, moment: &Moment, started: Ticks) -> Room {
        let limit = engine.memory_limit(config) + engine.uncounted_memory();
        if memory::used() as u64 <= limit {
            return Room::Enough;
        }
        let Some(rule) = rule(config.maxmemory_policy) else { return Room::None };
        let budget_us = budget_us(config.maxmemory_eviction_tenacity);
        let samples = config.maxmemory_samples as usize;
        let Eviction { pool, effects } = self;
        effects.begin(engine.interest());
        // That others are told takes memory too, until they are. A key that goes for that is told of as well.
        let mut told = 0;
        for evicted in 1.. {
            // What is about to be freed elsewhere needs no second key to go.
            if memory::used() as u64 <= limit + told + engine.keyspace.reclaimer().pending_bytes() {
                break;
            }
            let pass_on = |effects: &mut Effects| {
                let before = memory::used_by_this_thread();
                engine.pass_on(0, effects, &Vec::new());
                let taken = memory::used_by_this_thread().wrapping_sub(before).cast_signed();
                told += taken.max(0).cast_unsigned();
            };
            if engine.keyspace.evict(pool, rule, samples, moment, effects, pass_on).is_none() {
                // Until the thread that frees has come to them, keys that went before take memory.
                let pending = engine.keyspace.reclaimer().pending() > 0;
                return if pending { Room::Soon } else { Room::None };
            }
            engine.stats.add(Counter::EvictedKeys, 1);
            if evicted % STRIDE == 0 && budget_us.is_some_and(|budget| started.elapsed_us() >= budget) {
                break;
            }
        }
        if memory::used() as u64 <= limit + told + limit / TOLERATED { Room::Enough } else { Room::Soon }
    }
}

/// How many bytes a batch may take before memory is looked at again.
pub fn unseen_bytes(engine: &Engine, config: &Config) -> u64 {
    engine.memory_limit(config) / UNSEEN / u64::from(config.io_threads.max(1))
}

/// Keeps the time during which memory was above its limit although room was made.
#[cold]
fn exceeded(engine: &Engine, is: bool) {
    let now = engine.clock.monotonic_us().max(1);
    let since = &engine.exceeded_since_us;
    if is {
        // Whoever was first has noted it.
        let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        return;
    }
    let began = since.swap(0, Ordering::Relaxed);
    if began != 0 {
        engine.stats.add(Counter::EvictionExceededUs, now.saturating_sub(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenacity_is_time_and_the_highest_has_no_end() {
        assert_eq!([0, 1, 10].map(budget_us), [Some(0), Some(50), Some(500)]);
        assert!(budget_us(11).is_some_and(|us| (570..580).contains(&us)));
        assert!(budget_us(99).is_some_and(|us| us > 60_000_000));
        assert_eq!(budget_us(100), None);
    }

    #[test]
    fn each_policy_has_its_rule() {
        assert_eq!(rule(MaxmemoryPolicy::NoEviction), None);
        for (name, policy) in MaxmemoryPolicy::NAMES {
            assert_eq!(rule(*policy).is_some_and(|rule| rule.volatile), name.starts_with("volatile"), "{name}");
        }
    }
}
