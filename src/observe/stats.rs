//! Statistics: what each worker did, and all of them together.
//!
//! Every worker has a [`WorkerStats`] and is its only writer, so that counting is a load and a store
//! of a cache line which no other core writes. Whoever wants a total reads all of them. What is
//! counted elsewhere (timers, replication links) goes to the shared slot of [`Stats`], with atomic
//! additions.
//!
//! CONFIG RESETSTAT does not touch the counters, which others are writing: it remembers them, and
//! totals are what came after. So a total never goes below zero and nothing is counted twice; what is
//! counted while the reset runs may fall on either side of it.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::observe::histogram::{Counts, Histogram, Lag};
use crate::observe::log;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted, by workers and by others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Counter] = &[$(Counter::$name,)*];
        }
    };
}

counters! {
    /// Commands executed.
    CommandsProcessed,
    /// Connections accepted.
    ConnectionsReceived,
    /// Connections refused because of `maxclients`.
    ConnectionsRejected,
    /// Bytes read from clients.
    NetInputBytes,
    /// Bytes written to clients.
    NetOutputBytes,
    /// Bytes read from the primary.
    NetReplInputBytes,
    /// Bytes written to replicas.
    NetReplOutputBytes,
    /// Lookups by reading commands that found their key.
    KeyspaceHits,
    /// Lookups by reading commands that did not.
    KeyspaceMisses,
    /// Keys removed because their time had come.
    ExpiredKeys,
    /// Hash fields removed because their time had come.
    ExpiredSubkeys,
    /// How often active expiry stopped at its time limit.
    ExpiredTimeCapReached,
    /// Microseconds spent in active expiry.
    ExpireCycleUs,
    /// Keys removed for `maxmemory`.
    EvictedKeys,
    /// Clients closed for `maxmemory-clients`.
    EvictedClients,
    /// Scripts dropped from the cache of EVAL.
    EvictedScripts,
    /// Microseconds during which memory was above `maxmemory`.
    EvictionExceededUs,
    /// Error replies.
    ErrorReplies,
    /// Error replies where none is expected (to the primary, in the log being loaded).
    UnexpectedErrorReplies,
    /// Deep checks of RESTORE and RDB payloads.
    DumpPayloadSanitizations,
    /// Reads from sockets.
    ReadsProcessed,
    /// Writes to sockets.
    WritesProcessed,
    /// Reply buffers made smaller.
    ReplyBufferShrinks,
    /// Reply buffers made larger.
    ReplyBufferExpands,
    /// Clients closed because of `client-query-buffer-limit`.
    QueryBufferDisconnections,
    /// Clients closed because of `client-output-buffer-limit`.
    OutputBufferDisconnections,
    /// Failed AUTH and HELLO AUTH.
    AccessDeniedAuth,
    /// Commands refused by ACL.
    AccessDeniedCommand,
    /// Keys refused by ACL.
    AccessDeniedKey,
    /// Channels refused by ACL.
    AccessDeniedChannel,
    /// Full synchronisations given to replicas.
    SyncFull,
    /// Partial synchronisations given to replicas.
    SyncPartialOk,
    /// Partial synchronisations refused to replicas.
    SyncPartialErr,
    /// Snapshots begun: what Redis forks for.
    Forks,
    /// Turns of the workers' loops.
    LoopCycles,
    /// Microseconds of those turns.
    LoopUs,
    /// Microseconds of those turns spent in writing the append-only file.
    LoopAofUs,
    /// Microseconds spent in timers.
    LoopCronUs,
}

macro_rules! peaks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is remembered as the largest seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Peak { $($(#[$doc])* $name,)* }

        const PEAKS: usize = [$(Peak::$name,)*].len();
    };
}

peaks! {
    /// Microseconds of the longest turn of a worker's loop.
    LoopUs,
    /// Commands in one turn of a worker's loop.
    CommandsPerCycle,
}

/// Distinct error codes that scripts and functions may invent before they are counted together.
pub const MOST_ERROR_CODES: usize = 128;
/// The server's own codes are few; this many in all is what the tables hold.
const ERROR_SLOTS: usize = MOST_ERROR_CODES * 2;
/// What further codes are counted as.
const OVERFLOW: &str = "ERRORSTATS_OVERFLOW";
/// An error code is remembered up to this length.
const MOST_CODE_BYTES: usize = 64;

/// Who chose the words of an error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// The server: its codes are always told apart.
    Server,
    /// A script or function: from [`MOST_ERROR_CODES`] codes on, new ones are counted together.
    Script,
}

/// How the call of a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and did not reply with an error.
    Done,
    /// It ran and replied with an error.
    Failed,
}

/// What one thread counted. One writer: the worker it belongs to; readers at any time.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    counters: [AtomicU64; Counter::ALL.len()],
    peaks: [AtomicU64; PEAKS],
    commands: Box<[CommandSlot]>,
    errors: Box<[AtomicU64]>,
}

/// One line of the cache, and a histogram from the first call on.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CommandSlot {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    histogram: OnceLock<Box<Histogram>>,
}

#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

fn zeros(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl WorkerStats {
    fn new(commands: usize) -> WorkerStats {
        WorkerStats {
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            peaks: [const { AtomicU64::new(0) }; PEAKS],
            commands: (0..commands).map(|_| CommandSlot::default()).collect(),
            errors: zeros(ERROR_SLOTS),
        }
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, by: u64) {
        bump(&self.counters[counter as usize], by);
    }

    /// Remembers `value` if it is the largest so far.
    #[inline]
    pub fn peak(&self, peak: Peak, value: u64) {
        let largest = &self.peaks[peak as usize];
        if value > largest.load(Ordering::Relaxed) {
            largest.store(value, Ordering::Relaxed);
        }
    }

    /// Notes that the command of this index ran for `ns` nanoseconds. `tracked` is the value of
    /// `latency-tracking`: whether the duration goes into the command's histogram too, which is
    /// allocated with the first one.
    ///
    /// # Panics
    /// If the index is not below the number of commands that [`Stats::new`] was given.
    #[inline]
    pub fn called(&self, command: u16, ns: u64, outcome: Outcome, tracked: bool) {
        let slot = &self.commands[usize::from(command)];
        bump(&slot.calls, 1);
        bump(&slot.nanoseconds, ns);
        if outcome == Outcome::Failed {
            bump(&slot.failed, 1);
        }
        if tracked {
            slot.histogram.get_or_init(Box::default).record_alone(ns);
        }
    }

    /// Adds time to a command without a call: what a blocked one takes when it is served.
    #[inline]
    pub fn took(&self, command: u16, ns: u64) {
        bump(&self.commands[usize::from(command)].nanoseconds, ns);
    }

    /// Notes that a command was refused before it ran.
    #[inline]
    pub fn rejected(&self, command: u16) {
        bump(&self.commands[usize::from(command)].rejected, 1);
    }

    /// Notes that a command failed after its call was counted as [`Outcome::Done`].
    #[inline]
    pub fn failed(&self, command: u16) {
        bump(&self.commands[usize::from(command)].failed, 1);
    }
}

/// What CONFIG RESETSTAT remembers.
#[derive(Debug, Default)]
struct Baseline {
    counters: Vec<u64>,
    commands: HashMap<u16, CommandTotals>,
    errors: Vec<u64>,
}

/// The figures of one command, since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandTotals {
    /// How often it ran.
    pub calls: u64,
    /// How long in all, nanoseconds.
    pub nanoseconds: u64,
    /// How often it was refused before it ran.
    pub rejected: u64,
    /// How often it ran and replied with an error.
    pub failed: u64,
    /// Its durations in nanoseconds; empty while `latency-tracking` is off.
    pub histogram: Counts,
}

impl CommandTotals {
    /// Whether INFO commandstats shows the command at all.
    pub fn any(&self) -> bool {
        self.calls > 0 || self.rejected > 0 || self.failed > 0
    }

    /// Microseconds in all, as commandstats prints them.
    pub fn usec(&self) -> u64 {
        self.nanoseconds / 1000
    }

    fn subtract(&mut self, earlier: &CommandTotals) {
        self.calls = self.calls.saturating_sub(earlier.calls);
        self.nanoseconds = self.nanoseconds.saturating_sub(earlier.nanoseconds);
        self.rejected = self.rejected.saturating_sub(earlier.rejected);
        self.failed = self.failed.saturating_sub(earlier.failed);
        self.histogram.subtract(&earlier.histogram);
    }
}

/// The value of `cmdstat_NAME`.
pub fn commandstat(totals: &CommandTotals) -> String {
    let per_call = if totals.calls == 0 { 0.0 } else { totals.usec() as f64 / totals.calls as f64 };
    format!(
        "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
        totals.calls,
        totals.usec(),
        totals.rejected,
        totals.failed
    )
}

/// The value of `latency_percentiles_usec_NAME` for these percentiles: `p50=0.501,p99.9=1.003`.
pub fn latencystat(durations: &Counts, percentiles: &[f64]) -> String {
    let mut line = String::new();
    for percent in percentiles {
        let ns = durations.percentile(*percent);
        let comma = if line.is_empty() { "" } else { "," };
        let _ = write!(line, "{comma}p{percent}={}.{:03}", ns / 1000, ns % 1000);
    }
    line
}

/// The statistics of a server.
#[derive(Debug)]
pub struct Stats {
    workers: Box<[WorkerStats]>,
    /// For whoever is no worker; several writers.
    shared: WorkerStats,
    codes: ErrorCodes,
    /// Held while reading too, so that a reset is not seen half done.
    baseline: RwLock<Baseline>,
    rates: Mutex<Rates>,
    /// How late keys and fields were removed, microseconds after their deadline.
    pub expire_lag: Lag,
}

impl Stats {
    /// Statistics of `workers` workers and of commands with indices below `commands`.
    pub fn new(workers: usize, commands: usize) -> Stats {
        Stats {
            workers: (0..workers).map(|_| WorkerStats::new(commands)).collect(),
            shared: WorkerStats::new(commands),
            codes: ErrorCodes::default(),
            baseline: RwLock::default(),
            rates: Mutex::default(),
            expire_lag: Lag::new(),
        }
    }

    /// The counters of one worker, which it alone may write.
    ///
    /// # Panics
    /// If there is no worker of this number.
    pub fn worker(&self, number: usize) -> &WorkerStats {
        &self.workers[number]
    }

    /// Adds to a counter from a thread that is no worker.
    pub fn add(&self, counter: Counter, by: u64) {
        self.shared.counters[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// Notes a call by a thread that is no worker (a replication link, the loading of a log); see
    /// [`WorkerStats::called`].
    pub fn called(&self, command: u16, ns: u64, outcome: Outcome, tracked: bool) {
        let slot = &self.shared.commands[usize::from(command)];
        slot.calls.fetch_add(1, Ordering::Relaxed);
        slot.nanoseconds.fetch_add(ns, Ordering::Relaxed);
        slot.failed.fetch_add(u64::from(outcome == Outcome::Failed), Ordering::Relaxed);
        if tracked {
            slot.histogram.get_or_init(Box::default).record(ns);
        }
    }

    /// Counts an error reply, `code` being its first word. `worker` is the caller's number, `None`
    /// for a thread that is no worker.
    ///
    /// Logs once, when scripts have used up the codes that are told apart.
    pub fn error(&self, worker: Option<usize>, code: &[u8], origin: ErrorOrigin) {
        let id = self.codes.id(code, origin);
        match worker {
            Some(number) => {
                let mine = &self.workers[number];
                mine.add(Counter::ErrorReplies, 1);
                bump(&mine.errors[id], 1);
            }
            None => {
                self.add(Counter::ErrorReplies, 1);
                self.shared.errors[id].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &WorkerStats> {
        self.workers.iter().chain([&self.shared])
    }

    fn raw(&self, counter: Counter) -> u64 {
        self.all().map(|one| one.counters[counter as usize].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// A counter's total since the last reset.
    pub fn total(&self, counter: Counter) -> u64 {
        let baseline = self.baseline.read();
        self.raw(counter).saturating_sub(baseline.counters.get(counter as usize).copied().unwrap_or(0))
    }

    /// The largest value seen since the last reset.
    pub fn largest(&self, peak: Peak) -> u64 {
        self.all().map(|one| one.peaks[peak as usize].load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    fn raw_command(&self, command: u16) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for one in self.all() {
            let slot = &one.commands[usize::from(command)];
            totals.calls += slot.calls.load(Ordering::Relaxed);
            totals.nanoseconds += slot.nanoseconds.load(Ordering::Relaxed);
            totals.rejected += slot.rejected.load(Ordering::Relaxed);
            totals.failed += slot.failed.load(Ordering::Relaxed);
            if let Some(histogram) = slot.histogram.get() {
                totals.histogram.add(histogram);
            }
        }
        totals
    }

    /// The figures of one command since the last reset.
    ///
    /// # Panics
    /// If the index is not below the number of commands.
    pub fn command(&self, command: u16) -> CommandTotals {
        let baseline = self.baseline.read();
        let mut totals = self.raw_command(command);
        if let Some(before) = baseline.commands.get(&command) {
            totals.subtract(before);
        }
        totals
    }

    /// The figures of every command that was called or refused since the last reset, by index.
    pub fn commands(&self) -> Vec<(u16, CommandTotals)> {
        let all = 0..self.shared.commands.len() as u16;
        all.map(|command| (command, self.command(command))).filter(|(_, totals)| totals.any()).collect()
    }

    fn raw_error(&self, id: usize) -> u64 {
        self.all().map(|one| one.errors[id].load(Ordering::Relaxed)).sum()
    }

    /// How often each error code was replied since the last reset, by code.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let baseline = self.baseline.read();
        let codes = self.codes.known.load();
        let since = |id: usize| self.raw_error(id).saturating_sub(baseline.errors.get(id).copied().unwrap_or(0));
        let known = codes.sorted.iter().map(|(code, id)| (String::from_utf8_lossy(code).into_owned(), since(*id)));
        let overflow = [(OVERFLOW.to_owned(), since(OVERFLOW_ID))];
        let mut all: Vec<_> = known.chain(overflow).filter(|(_, count)| *count > 0).collect();
        all.sort();
        all
    }

    /// CONFIG RESETSTAT: totals begin anew; workers need not stop.
    pub fn reset(&self) {
        let mut baseline = self.baseline.write();
        baseline.counters = Counter::ALL.iter().map(|counter| self.raw(*counter)).collect();
        let all = 0..self.shared.commands.len() as u16;
        baseline.commands =
            all.map(|command| (command, self.raw_command(command))).filter(|(_, totals)| totals.any()).collect();
        self.codes.forget();
        baseline.errors = (0..ERROR_SLOTS).map(|id| self.raw_error(id)).collect();
        for one in self.all() {
            one.peaks.iter().for_each(|peak| peak.store(0, Ordering::Relaxed));
        }
        *self.rates.lock() = Rates::default();
        self.expire_lag.reset();
    }

    /// Takes the figures that rates are made of. To be called every 100 ms or so, with a monotonic time.
    pub fn sample(&self, now_us: u64) {
        let values =
            Rate::ALL.map(|rate| rate.counters().iter().map(|counter| self.raw(*counter)).fold(0, u64::wrapping_add));
        self.rates.lock().take(now_us, values);
    }

    /// A rate over the last 16 samples (1.6 seconds); 0 before the second sample.
    pub fn rate(&self, rate: Rate) -> u64 {
        self.rates.lock().average(rate)
    }
}

/// What INFO calls instantaneous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Commands per second.
    Commands,
    /// Bytes per second from clients and the primary.
    NetInput,
    /// Bytes per second to clients and replicas.
    NetOutput,
    /// Bytes per second from the primary.
    NetReplInput,
    /// Bytes per second to replicas.
    NetReplOutput,
    /// Turns of the workers' loops per second.
    LoopCycles,
    /// Microseconds per turn of a loop.
    LoopUs,
}

/// How many samples a rate looks back on.
const SAMPLES: usize = 16;

impl Rate {
    const ALL: [Rate; 7] = [
        Rate::Commands,
        Rate::NetInput,
        Rate::NetOutput,
        Rate::NetReplInput,
        Rate::NetReplOutput,
        Rate::LoopCycles,
        Rate::LoopUs,
    ];

    /// The counters whose sum is measured.
    fn counters(self) -> &'static [Counter] {
        match self {
            Rate::Commands => &[Counter::CommandsProcessed],
            Rate::NetInput => &[Counter::NetInputBytes, Counter::NetReplInputBytes],
            Rate::NetOutput => &[Counter::NetOutputBytes, Counter::NetReplOutputBytes],
            Rate::NetReplInput => &[Counter::NetReplInputBytes],
            Rate::NetReplOutput => &[Counter::NetReplOutputBytes],
            Rate::LoopCycles => &[Counter::LoopCycles],
            Rate::LoopUs => &[Counter::LoopUs],
        }
    }
}

#[derive(Debug, Default)]
struct Rates {
    last: Option<(u64, [u64; Rate::ALL.len()])>,
    samples: [[u64; SAMPLES]; Rate::ALL.len()],
    next: usize,
}

impl Rates {
    fn take(&mut self, now_us: u64, values: [u64; Rate::ALL.len()]) {
        if let Some((then_us, before)) = self.last {
            let passed_us = now_us.saturating_sub(then_us);
            if passed_us == 0 {
                return;
            }
            let grown = |rate: Rate| values[rate as usize].saturating_sub(before[rate as usize]);
            for rate in Rate::ALL {
                self.samples[rate as usize][self.next] = match rate {
                    Rate::LoopUs => grown(rate).checked_div(grown(Rate::LoopCycles)).unwrap_or(0),
                    _ => (u128::from(grown(rate)) * 1_000_000 / u128::from(passed_us)) as u64,
                };
            }
            self.next = (self.next + 1) % SAMPLES;
        }
        self.last = Some((now_us, values));
    }

    fn average(&self, rate: Rate) -> u64 {
        self.samples[rate as usize].iter().sum::<u64>() / SAMPLES as u64
    }
}

/// The slot of what is no longer told apart.
const OVERFLOW_ID: usize = 0;

/// Which error code has which slot. Read without a lock by every error reply; grows rarely.
///
/// A reset forgets the codes and gives their slots to others: an error that is being counted at that
/// very moment may be counted under the new owner of its slot.
#[derive(Debug, Default)]
struct ErrorCodes {
    known: ArcSwap<Known>,
    /// Held by whoever replaces `known`.
    changing: Mutex<()>,
    /// Whether the log was told that the limit is reached.
    told: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// Code and slot, by code. Slots are given out in order, from 1 on.
    sorted: Vec<(Box<[u8]>, usize)>,
}

impl ErrorCodes {
    fn id(&self, code: &[u8], origin: ErrorOrigin) -> usize {
        let code = &code[..code.len().min(MOST_CODE_BYTES)];
        match self.known.load().find(code) {
            Ok(id) => id,
            Err(_) => self.learn(code, origin),
        }
    }

    #[cold]
    fn learn(&self, code: &[u8], origin: ErrorOrigin) -> usize {
        let _alone = self.changing.lock();
        let known = self.known.load();
        let at = match known.find(code) {
            Ok(id) => return id,
            Err(at) => at,
        };
        let most = if origin == ErrorOrigin::Script { MOST_ERROR_CODES } else { ERROR_SLOTS - 1 };
        if known.sorted.len() >= most {
            if !self.told.swap(true, Ordering::Relaxed) {
                log::warning!(
                    "Errorstats stopped adding new errors because the number of errors reached the limit ({most})."
                );
                log::warning!("Current errors code list: {}", known.list());
            }
            return OVERFLOW_ID;
        }
        let mut more = Known::clone(&known);
        let id = more.sorted.len() + 1;
        more.sorted.insert(at, (code.into(), id));
        self.known.store(std::sync::Arc::new(more));
        id
    }

    fn forget(&self) {
        let _alone = self.changing.lock();
        self.known.store(std::sync::Arc::default());
        self.told.store(false, Ordering::Relaxed);
    }
}

impl Known {
    fn find(&self, code: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|(known, _)| known.as_ref().cmp(code)).map(|at| self.sorted[at].1)
    }

    fn list(&self) -> String {
        let codes: Vec<_> = self.sorted.iter().map(|(code, _)| String::from_utf8_lossy(code)).collect();
        codes.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_the_sum_of_all_workers_and_of_whoever_is_none() {
        let stats = Stats::new(2, 1);
        stats.worker(0).add(Counter::KeyspaceHits, 3);
        stats.worker(1).add(Counter::KeyspaceHits, 4);
        stats.add(Counter::KeyspaceHits, 5);
        assert_eq!(stats.total(Counter::KeyspaceHits), 12);
        assert_eq!(stats.total(Counter::KeyspaceMisses), 0);
    }

    #[test]
    fn a_reset_starts_every_figure_anew() {
        let stats = Stats::new(1, 2);
        let count = || {
            stats.worker(0).add(Counter::CommandsProcessed, 1);
            stats.worker(0).called(1, 2_500, Outcome::Done, true);
            stats.worker(0).rejected(1);
            stats.called(1, 500, Outcome::Failed, true);
            stats.worker(0).peak(Peak::LoopUs, 70);
            stats.error(Some(0), b"ERR", ErrorOrigin::Server);
        };
        count();
        stats.reset();
        assert_eq!(stats.total(Counter::CommandsProcessed), 0);
        assert!(stats.commands().is_empty() && stats.errors().is_empty());
        assert_eq!(stats.largest(Peak::LoopUs), 0);
        count();
        assert_eq!(stats.total(Counter::CommandsProcessed), 1);
        assert_eq!(stats.largest(Peak::LoopUs), 70);
        assert_eq!(stats.errors(), [("ERR".to_owned(), 1)]);
        let commands = stats.commands();
        assert_eq!(commands.len(), 1);
        let (index, totals) = &commands[0];
        assert_eq!((*index, totals.histogram.total()), (1, 2));
        assert_eq!(commandstat(totals), "calls=2,usec=3,usec_per_call=1.50,rejected_calls=1,failed_calls=1");
    }

    #[test]
    fn a_command_that_was_only_refused_is_shown_without_dividing_by_zero() {
        let stats = Stats::new(1, 1);
        stats.worker(0).rejected(0);
        let totals = stats.command(0);
        assert!(totals.any());
        assert_eq!(commandstat(&totals), "calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0");
    }

    #[test]
    fn without_tracking_a_command_has_no_percentiles() {
        let stats = Stats::new(1, 1);
        stats.worker(0).called(0, 1_000, Outcome::Done, false);
        assert_eq!(stats.command(0).histogram, Counts::default());
        stats.worker(0).called(0, 9, Outcome::Done, true);
        let line = latencystat(&stats.command(0).histogram, &[0.0, 50.0, 99.9]);
        assert_eq!(line, "p0=0.009,p50=0.009,p99.9=0.009");
    }

    #[test]
    fn scripts_cannot_invent_more_than_128_codes_but_the_servers_own_are_always_told_apart() {
        let stats = Stats::new(1, 1);
        for n in 1..=1100 {
            stats.error(Some(0), n.to_string().as_bytes(), ErrorOrigin::Script);
        }
        stats.error(None, b"ERR", ErrorOrigin::Server);
        stats.error(Some(0), b"1", ErrorOrigin::Script);
        let errors: HashMap<_, _> = stats.errors().into_iter().collect();
        assert_eq!((errors[OVERFLOW], errors["ERR"], errors["1"], errors["128"]), (972, 1, 2, 1));
        assert!(!errors.contains_key("129"));
        assert_eq!(stats.total(Counter::ErrorReplies), 1102);
        stats.reset();
        stats.error(Some(0), b"129", ErrorOrigin::Script);
        assert_eq!(stats.errors(), [("129".to_owned(), 1)]);
    }

    #[test]
    fn a_rate_looks_back_on_sixteen_samples() {
        let stats = Stats::new(1, 1);
        let mut now_us = 5_000_000;
        stats.sample(now_us);
        for _ in 0..SAMPLES {
            now_us += 100_000;
            stats.worker(0).add(Counter::CommandsProcessed, 50);
            stats.worker(0).add(Counter::LoopCycles, 10);
            stats.worker(0).add(Counter::LoopUs, 300);
            stats.sample(now_us);
        }
        assert_eq!((stats.rate(Rate::Commands), stats.rate(Rate::LoopUs)), (500, 30));
        for _ in 0..SAMPLES {
            now_us += 100_000;
            stats.sample(now_us);
        }
        assert_eq!((stats.rate(Rate::Commands), stats.rate(Rate::LoopUs)), (0, 0));
        stats.sample(now_us);
        assert_eq!(stats.rate(Rate::Commands), 0, "no time passed: nothing to divide by");
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_while_resets_run_beside_workers() {
        let stats = Stats::new(2, 1);
        std::thread::scope(|scope| {
            let work = |number: usize| {
                let stats = &stats;
                move || (0..20_000).for_each(|_| stats.worker(number).add(Counter::CommandsProcessed, 1))
            };
            let both = [scope.spawn(work(0)), scope.spawn(work(1))];
            while both.iter().any(|one| !one.is_finished()) {
                stats.reset();
                assert!(stats.total(Counter::CommandsProcessed) <= 40_000);
            }
        });
        stats.reset();
        stats.worker(0).add(Counter::CommandsProcessed, 7);
        assert_eq!(stats.total(Counter::CommandsProcessed), 7);
    }
}
