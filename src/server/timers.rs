//! Timers: what happens because time passes. One thread, beside the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::shared::{Link, Mark};
use crate::command::client::tracking;
use crate::command::engine::Engine;
use crate::command::eviction::{Eviction, Room};
use crate::command::{aof, replication, save};
use crate::keyspace::change::Effects;
use crate::keyspace::shard::SHARDS;
use crate::keyspace::space::Patience;
use crate::observe::latency::Latency;
use crate::observe::log::verbose;
use crate::observe::stats::Counter;
use crate::server::beside::Beside;
use crate::stdx::memory;
use crate::stdx::ticks::Ticks;

/// How long due keys gather before they are removed: half of it is how late a key goes on average.
const GATHER: Duration = Duration::from_millis(5);
/// The longest that the timers sleep; at most as long as the period of what they do besides.
const REST: Duration = Duration::from_millis(100);
/// How often the memory of databases that have become empty is given back: seldom enough that a database which
/// gets and loses its only key again and again does not pay for it.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often rates are sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How much earlier a period may end.
const SLACK: Duration = Duration::from_millis(1);

/// Starts the timers.
///
/// # Errors
/// Where the system refuses another thread.
pub fn start(engine: Arc<Engine>) -> std::io::Result<Beside> {
    Beside::start("timers", engine, move |engine, stop| {
        let mut timers = Timers {
            effects: Effects::default(),
            eviction: Eviction::default(),
            sampled: Instant::now(),
            tidied: Instant::now(),
            cron: Instant::now(),
            second: Instant::now(),
        };
        while !stop.load(Ordering::Acquire) {
            let more = timers.tick(engine);
            let rest = if more { GATHER } else { REST };
            let most = (Duration::from_secs(1) / engine.config.load().hz.max(1)).min(rest);
            if engine.clock.is_real() {
                engine.keyspace.sleep_until_due(engine.clock.now_ms(), GATHER.min(most), most);
            } else {
                // By a clock that is moved by hand anything may be due at any time.
                std::thread::park_timeout(GATHER);
            }
        }
    })
}

struct Timers {
    effects: Effects,
    eviction: Eviction,
    sampled: Instant,
    tidied: Instant,
    cron: Instant,
    second: Instant,
}

impl Timers {
    /// Does what is due; returns whether there is more to do at once.
    fn tick(&mut self, engine: &Engine) -> bool {
        let started = Instant::now();
        // What is read from a log may still need a key whose time has come.
        let loading = engine.saves.loading.active.load(Ordering::Relaxed);
        // On a replica it is for the primary to say what has expired; and while clients are held back nothing changes.
        let held = loading || engine.replication.is_following() || engine.pause.active(engine.clock.now_ms()).is_some();
        if engine.debug.active_expire.load(Ordering::Relaxed) && !held {
            self.expire(engine);
        }
        if engine.replication.has_news() {
            engine.replication.wake_replicas();
        }
        let more = !loading && self.make_room(engine);
        // Who sleeps for a period wakes a little before or after its end.
        let over = |since: Instant, period: Duration| since.elapsed() + SLACK >= period;
        if over(self.sampled, SAMPLE_EVERY) {
            self.sampled = Instant::now();
            engine.stats.sample(engine.clock.monotonic_us());
            engine.memory_peak.fetch_max(memory::used() as u64, Ordering::Relaxed);
        }
        if over(self.tidied, TIDY_EVERY) {
            self.tidied = Instant::now();
            let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
            engine.keyspace.release_empty();
        }
        let hz = engine.config.load().hz.max(1);
        if engine.debug.cron.load(Ordering::Relaxed) && over(self.cron, Duration::from_secs(1) / hz) {
            self.cron = Instant::now();
            disconnect_idle(engine);
            remind_slow_readers(engine);
            tracking::tidy(engine);
            let second = over(self.second, Duration::from_secs(1));
            if second {
                self.second = Instant::now();
            }
            replication::tick(engine, second);
            engine.host.tidy_peers();
            save::look_at_save_points(engine);
            aof::rewrite::look_at_growth(engine);
            let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            for (counter, by) in [(Counter::LoopCycles, 1), (Counter::LoopUs, us), (Counter::LoopCronUs, us)] {
                engine.stats.add(counter, by);
            }
        }
        more
    }

    /// Makes room while memory is above its limit and nobody sends commands: after CONFIG SET. Returns whether
    /// there is more to do.
    fn make_room(&mut self, engine: &Engine) -> bool {
        let config = engine.config.load();
        if engine.memory_limit(&config) == 0 || config.replica_ignore_maxmemory && engine.replication.is_following() {
            return false;
        }
        let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
        self.eviction.make_room(engine, &config, &engine.moment(&config)) == Room::Soon
    }

    /// Removes keys and fields whose deadline has passed.
    fn expire(&mut self, engine: &Engine) {
        let started = Ticks::now();
        let mut removed = 0;
        let now_ms = engine.clock.now_ms();
        // Those that somebody else has come second: who was taken off the processor with a shard in hand would
        // otherwise have all keys wait that are due elsewhere.
        let mut taken = Vec::new();
        for shard in 0..SHARDS {
            let Some(next) = engine.keyspace.next_due(shard) else { continue };
            // What is on its way here expires where it comes from.
            if engine.keyspace.hidden().of(shard) != 0 {
                continue;
            }
            if next < now_ms && !self.expire_shard(engine, shard, Patience::None, &mut removed) {
                taken.push(shard);
            }
        }
        for shard in taken {
            self.expire_shard(engine, shard, Patience::Wait, &mut removed);
        }
        if removed > 0 {
            engine.stats.add(Counter::ExpiredKeys, removed as u64);
            let ms = started.elapsed_us() / 1000;
            if Latency::wants(engine.config.load().latency_monitor_threshold, ms) {
                engine.latency.record("expire-cycle", engine.clock.now_ms() / 1000, ms);
            }
        }
    }

    /// Removes what is due in one shard; returns whether all of it: without `patience`, nobody waits for who has it.
    fn expire_shard(&mut self, engine: &Engine, shard: usize, patience: Patience, removed: &mut usize) -> bool {
        // The gate is taken for each shard anew: whoever wants to run alone waits for one at most.
        let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
        self.effects.begin(engine.interest());
        let pass_on = |effects: &mut Effects, late: &[u64]| {
            late.iter().for_each(|ms| engine.stats.expire_lag.record(ms * 1000));
            engine.pass_on(0, effects, &Vec::new());
        };
        let now_ms = || engine.clock.now_ms();
        let expired = engine.keyspace.expire_shard(shard, patience, now_ms, &mut self.effects, pass_on);
        *removed += expired.keys;
        engine.stats.add(Counter::ExpiredSubkeys, expired.fields as u64);
        expired.all
    }
}

/// Has those look at their limits again who are over the soft one: a connection on which nothing moves would
/// not notice by itself that its time is over.
fn remind_slow_readers(engine: &Engine) {
    engine.clients.for_each(|client| {
        if client.figures.over_soft_limit_ms.load(Ordering::Relaxed) != 0 {
            client.wake();
        }
    });
}

/// Closes clients that were idle for longer than `timeout`.
fn disconnect_idle(engine: &Engine) {
    let timeout_ms = u64::from(engine.config.load().timeout) * 1000;
    if timeout_ms == 0 {
        return;
    }
    let now = engine.clock.now_ms();
    for client in engine.clients.all() {
        let idle = now.saturating_sub(client.figures.active_ms.load(Ordering::Relaxed));
        // Who is in this process keeps no connection open that could be saved.
        let stays = client.link == Link::InProcess
            || client.has(Mark::Blocked)
            || client.has(Mark::Monitor)
            || client.has(Mark::Replica)
            || client.has(Mark::Primary)
            || client.figures.is_subscribed();
        if idle > timeout_ms && !stays {
            verbose!("Closing idle client");
            client.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn timers_end_with_whoever_started_them() {
        let bench = Bench::new();
        let before = Arc::strong_count(&bench.engine);
        let running = start(bench.engine.clone()).unwrap();
        assert!(Arc::strong_count(&bench.engine) > before);
        drop(running);
        assert_eq!(Arc::strong_count(&bench.engine), before, "the thread has let go of the server");
    }
}
