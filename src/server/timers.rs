//! Timers: what happens because time passes. One thread, beside the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::shared::Mark;
use crate::command::client::tracking;
use crate::command::engine::Engine;
use crate::command::eviction::Eviction;
use crate::command::{aof, save};
use crate::keyspace::change::Effects;
use crate::keyspace::shard::SHARDS;
use crate::keyspace::space::Patience;
use crate::observe::crash;
use crate::observe::latency::Latency;
use crate::observe::log::verbose;
use crate::observe::stats::Counter;
use crate::stdx::memory;
use crate::stdx::ticks::Ticks;

/// How often due keys are looked for: half of it is how late a key goes on average.
const EXPIRE_EVERY: Duration = Duration::from_millis(5);
/// The same while there is neither a client nor a key that can expire.
const IDLE_EVERY: Duration = Duration::from_millis(100);
/// How often the memory of databases that have become empty is given back: seldom enough that a database which
/// gets and loses its only key again and again does not pay for it.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often rates are sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Starts the timers; they end once `stop` is set and they are unparked.
///
/// # Errors
/// Where the system refuses another thread.
pub fn start(engine: Arc<Engine>, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("timers".into()).spawn(move || {
        crash::prepare_thread();
        let mut timers = Timers {
            effects: Effects::default(),
            eviction: Eviction::default(),
            sampled: Instant::now(),
            tidied: Instant::now(),
            cron: Instant::now(),
        };
        while !stop.load(Ordering::Acquire) {
            let busy = timers.tick(&engine);
            std::thread::park_timeout(if busy { EXPIRE_EVERY } else { IDLE_EVERY });
        }
    })
}

struct Timers {
    effects: Effects,
    eviction: Eviction,
    sampled: Instant,
    tidied: Instant,
    cron: Instant,
}

impl Timers {
    /// Does what is due; returns whether more may be due soon.
    fn tick(&mut self, engine: &Engine) -> bool {
        let started = Instant::now();
        let volatile = engine.debug.active_expire.load(Ordering::Relaxed)
            // What is read from a log may still need a key whose time has come.
            && !engine.saves.loading.active.load(Ordering::Relaxed)
            && self.expire(engine);
        if !engine.saves.loading.active.load(Ordering::Relaxed) {
            self.make_room(engine);
        }
        if self.sampled.elapsed() >= SAMPLE_EVERY {
            self.sampled = Instant::now();
            engine.stats.sample(engine.clock.monotonic_us());
            engine.memory_peak.fetch_max(memory::used() as u64, Ordering::Relaxed);
        }
        if self.tidied.elapsed() >= TIDY_EVERY {
            self.tidied = Instant::now();
            let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
            engine.keyspace.release_empty();
        }
        let hz = engine.config.load().hz.max(1);
        if engine.debug.cron.load(Ordering::Relaxed) && self.cron.elapsed() >= Duration::from_secs(1) / hz {
            self.cron = Instant::now();
            disconnect_idle(engine);
            remind_slow_readers(engine);
            tracking::tidy(engine);
            save::look_at_save_points(engine);
            aof::look_at_growth(engine);
            let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
            for (counter, by) in [(Counter::LoopCycles, 1), (Counter::LoopUs, us), (Counter::LoopCronUs, us)] {
                engine.stats.add(counter, by);
            }
        }
        volatile || !engine.clients.is_empty()
    }

    /// Makes room while memory is above its limit and nobody sends commands: after CONFIG SET.
    fn make_room(&mut self, engine: &Engine) {
        let config = engine.config.load();
        if config.maxmemory > 0 {
            let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
            self.eviction.make_room(engine, &config, &engine.moment(&config));
        }
    }

    /// Removes keys and fields whose deadline has passed; returns whether there are any that can expire.
    fn expire(&mut self, engine: &Engine) -> bool {
        let started = Ticks::now();
        let mut removed = 0;
        let mut volatile = false;
        let now_ms = engine.clock.now_ms();
        // Those that somebody else has come second: who was taken off the processor with a shard in hand would
        // otherwise have all keys wait that are due elsewhere.
        let mut taken = Vec::new();
        for shard in 0..SHARDS {
            let Some(next) = engine.keyspace.next_due(shard) else { continue };
            volatile = true;
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
        volatile
    }

    /// Removes what is due in one shard; returns whether all of it: without `patience`, nobody waits for who has it.
    fn expire_shard(&mut self, engine: &Engine, shard: usize, patience: Patience, removed: &mut usize) -> bool {
        // The gate is taken for each shard anew: whoever wants to run alone waits for one at most.
        let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
        self.effects.begin(engine.interest());
        let pass_on = |effects: &mut Effects, late: &[u64]| {
            late.iter().for_each(|ms| engine.stats.expire_lag.record(ms * 1000));
            engine.pass_on(0, effects, Vec::new);
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
        let waits = client.has(Mark::Blocked) || client.has(Mark::Monitor) || client.figures.is_subscribed();
        if idle > timeout_ms && !waits {
            verbose!("Closing idle client");
            client.close();
        }
    }
}
