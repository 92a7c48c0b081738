//! The latency monitor: which kinds of work took how long, as LATENCY shows it.
//!
//! Work that takes at least `latency-monitor-threshold` milliseconds leaves a sample under the name
//! of its event ("command", "expire-cycle", "aof-fsync-always" ...). An event keeps its last
//! [`SAMPLES`] samples, at most one a second, which is the worst of that second.

use std::collections::VecDeque;
use std::fmt::Write;

use parking_lot::Mutex;

/// How many samples an event keeps.
pub const SAMPLES: usize = 160;
/// Width and height of the graph.
const COLUMNS: usize = 80;
const ROWS: usize = 4;

/// One spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, unix seconds.
    pub time_s: u64,
    /// How long, milliseconds.
    pub latency_ms: u64,
}

/// An event's line in LATENCY LATEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its name.
    pub event: &'static str,
    /// Its last spike.
    pub last: Sample,
    /// The worst one since the last reset.
    pub worst_ms: u64,
}

/// What the samples of an event have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many samples there are.
    pub samples: usize,
    /// Their mean, milliseconds, rounded down.
    pub average_ms: u64,
    /// The shortest.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// The mean distance from the mean.
    pub deviation_ms: u64,
    /// Seconds from the oldest sample until now for each sample.
    pub period_s: f64,
    /// The worst since the last reset, also of samples that are no longer kept.
    pub worst_ms: u64,
}

#[derive(Debug)]
struct Series {
    event: &'static str,
    /// Oldest first; empty never.
    samples: VecDeque<Sample>,
    worst_ms: u64,
}

impl Series {
    fn add(&mut self, sample: Sample) {
        self.worst_ms = self.worst_ms.max(sample.latency_ms);
        match self.samples.back_mut() {
            Some(last) if last.time_s == sample.time_s => last.latency_ms = last.latency_ms.max(sample.latency_ms),
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
            }
        }
    }

    fn summary(&self, now_s: u64) -> Summary {
        let latencies = || self.samples.iter().map(|sample| sample.latency_ms);
        let count = self.samples.len().max(1) as u64;
        let average_ms = latencies().sum::<u64>() / count;
        let oldest_s = self.samples.front().map_or(now_s, |sample| sample.time_s);
        Summary {
            samples: self.samples.len(),
            average_ms,
            min_ms: latencies().min().unwrap_or(0),
            max_ms: latencies().max().unwrap_or(0),
            deviation_ms: latencies().map(|ms| ms.abs_diff(average_ms)).sum::<u64>() / count,
            period_s: now_s.saturating_sub(oldest_s) as f64 / count as f64,
            worst_ms: self.worst_ms,
        }
    }
}

/// The monitor of a server. There are few events, so a list is searched faster than a map.
#[derive(Debug, Default)]
pub struct Latency(Mutex<Vec<Series>>);

impl Latency {
    /// Nothing seen yet.
    pub fn new() -> Latency {
        Latency::default()
    }

    /// Whether work of this duration is a spike; a threshold of 0 turns the monitor off.
    #[inline]
    pub fn wants(threshold_ms: u64, latency_ms: u64) -> bool {
        threshold_ms > 0 && latency_ms >= threshold_ms
    }

    /// Adds a spike of an event.
    pub fn record(&self, event: &'static str, time_s: u64, latency_ms: u64) {
        let mut all = self.0.lock();
        let at = all.iter().position(|series| series.event == event).unwrap_or_else(|| {
            all.push(Series { event, samples: VecDeque::new(), worst_ms: 0 });
            all.len() - 1
        });
        all[at].add(Sample { time_s, latency_ms });
    }

    /// LATENCY LATEST: every event that had spikes.
    pub fn latest(&self) -> Vec<Latest> {
        let all = self.0.lock();
        let line = |series: &Series| {
            let last = *series.samples.back()?;
            Some(Latest { event: series.event, last, worst_ms: series.worst_ms })
        };
        all.iter().filter_map(line).collect()
    }

    /// LATENCY HISTORY: an event's samples, oldest first; empty if it had none.
    pub fn history(&self, event: &[u8]) -> Vec<Sample> {
        self.with(event, |series| series.samples.iter().copied().collect()).unwrap_or_default()
    }

    /// What an event's samples have in common; `None` if it had none.
    pub fn summary(&self, event: &[u8], now_s: u64) -> Option<Summary> {
        self.with(event, |series| series.summary(now_s))
    }

    /// LATENCY RESET: forgets these events, all if none is named; returns how many there were.
    pub fn reset<E: AsRef<[u8]>>(&self, events: &[E]) -> usize {
        let mut all = self.0.lock();
        let before = all.len();
        all.retain(|series| !events.is_empty() && !events.iter().any(|event| is(series, event.as_ref())));
        before - all.len()
    }

    /// LATENCY GRAPH: an event's samples drawn in characters; `None` if it had none.
    pub fn graph(&self, event: &[u8], now_s: u64) -> Option<String> {
        self.with(event, |series| graph(series, now_s))
    }

    /// LATENCY DOCTOR: what happened, in words, and what can be done about it.
    pub fn doctor(&self, now_s: u64, patient: &Patient) -> String {
        doctor(&self.0.lock(), now_s, patient)
    }

    fn with<R>(&self, event: &[u8], read: impl FnOnce(&Series) -> R) -> Option<R> {
        self.0.lock().iter().find(|series| is(series, event)).map(read)
    }
}

/// Names are compared as they are: LATENCY knows events by exact name.
fn is(series: &Series, event: &[u8]) -> bool {
    series.event.as_bytes() == event
}

fn graph(series: &Series, now_s: u64) -> String {
    let Summary { min_ms, max_ms, worst_ms, .. } = series.summary(now_s);
    // Writing to a string cannot fail, here and below.
    let mut text = String::new();
    let _ = writeln!(text, "{} - high {max_ms} ms, low {min_ms} ms (all time high {worst_ms} ms)", series.event);
    let _ = writeln!(text, "{}", "-".repeat(COLUMNS));
    let columns: Vec<(usize, String)> = series
        .samples
        .iter()
        .map(|sample| {
            let height = (sample.latency_ms - min_ms) * LEVELS / (max_ms - min_ms).max(1);
            (height as usize, age(now_s.saturating_sub(sample.time_s)))
        })
        .collect();
    for (n, part) in columns.chunks(COLUMNS).enumerate() {
        if n > 0 {
            text.push('\n');
        }
        draw(&mut text, part);
    }
    text
}

/// A cell shows one of three heights; the lowest column has height 0.
const MARKS: [char; 3] = ['_', 'o', '#'];
const LEVELS: u64 = (ROWS * MARKS.len() - 1) as u64;

/// Columns of a height and a label; labels are written downwards, below the columns.
fn draw(text: &mut String, columns: &[(usize, String)]) {
    for row in (0..ROWS).rev() {
        text.extend(columns.iter().map(|(height, _)| match (height / MARKS.len()).cmp(&row) {
            std::cmp::Ordering::Less => ' ',
            std::cmp::Ordering::Equal => MARKS[height % MARKS.len()],
            std::cmp::Ordering::Greater => '|',
        }));
        text.push('\n');
    }
    text.push('\n');
    let longest = columns.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    for at in 0..longest {
        text.extend(columns.iter().map(|(_, label)| label.as_bytes().get(at).map_or(' ', |byte| char::from(*byte))));
        text.push('\n');
    }
}

/// How long ago, in the largest unit that fits: `59s`, `3m`, `2h`, `5d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What LATENCY DOCTOR has to know about the server.
#[derive(Clone, Debug, Default)]
pub struct Patient {
    /// `latency-monitor-threshold`.
    pub threshold_ms: u64,
    /// `slowlog-log-slower-than`.
    pub slowlog_slower_than_us: i64,
    /// `slowlog-max-len`.
    pub slowlog_max_len: u64,
    /// Whether `appendfsync` is `always`.
    pub fsync_always: bool,
    /// Whether the kernel gives out huge pages unasked.
    pub transparent_huge_pages: bool,
}

fn doctor(all: &[Series], now_s: u64, patient: &Patient) -> String {
    if patient.threshold_ms == 0 {
        return "The latency monitor is off, so there is nothing to diagnose. Turn it on with \
                \"CONFIG SET latency-monitor-threshold <milliseconds>\"; 100 is a good value to begin with.\n"
            .to_owned();
    }
    if all.is_empty() {
        return format!(
            "No latency spike was observed: nothing took {} ms or longer since the monitor was turned on or reset.\n",
            patient.threshold_ms
        );
    }
    let mut text = String::from("Latency spikes were observed in this Spinel instance.\n\n");
    for (n, series) in all.iter().enumerate() {
        let Summary { samples, average_ms, deviation_ms, period_s, worst_ms, .. } = series.summary(now_s);
        let _ = writeln!(
            text,
            "{}. {}: {samples} latency spikes (average {average_ms}ms, mean deviation {deviation_ms}ms, \
             period {period_s:.2} sec). Worst all time event {worst_ms}ms.",
            n + 1,
            series.event
        );
    }
    let advice = advice(all, patient);
    if !advice.is_empty() {
        text.push_str("\nWhat can be done:\n\n");
        for one in advice {
            let _ = writeln!(text, "- {one}");
        }
    }
    text
}

fn advice(all: &[Series], patient: &Patient) -> Vec<String> {
    let seen = |prefix: &str| all.iter().any(|series| series.event.starts_with(prefix));
    let mut advice = Vec::new();
    let mut say = |words: &str| advice.push(words.to_owned());
    if seen("command") {
        let slower_than_us = u64::try_from(patient.slowlog_slower_than_us).ok();
        if slower_than_us.is_none_or(|us| us / 1000 > patient.threshold_ms) || patient.slowlog_max_len == 0 {
            say(&format!(
                "The slow log does not hold all commands that the monitor calls slow. \
                 Use \"CONFIG SET slowlog-log-slower-than {}\" and a slowlog-max-len above 0.",
                patient.threshold_ms * 1000
            ));
        }
        say("Look at SLOWLOG GET for the commands that are slow, and ask for less at a time: \
             SCAN instead of KEYS, ranges instead of whole collections.");
    }
    if seen("fast-command") {
        say("Commands that are normally fast were slow: the process did not get the processor, or memory was \
             swapped out. Look at the load, the steal time and the swap of this machine.");
    }
    if seen("expire-") || seen("eviction-") || seen("while-blocked") {
        say("Many keys expire or are evicted at the same time, or large ones. Spread deadlines by a random part, \
             split large keys, and leave lazyfree-lazy-expire and lazyfree-lazy-eviction on.");
    }
    if seen("aof-") {
        say("The disk is slow to take the append-only file. Move it to a disk of its own, and see whether backups \
             or other servers write to the same one.");
        if patient.fsync_always {
            say("appendfsync is \"always\": every batch of writes waits for the disk. \"everysec\" does not, and \
                 may lose the last second.");
        }
    }
    if seen("rdb-") || seen("snapshot") {
        say("A snapshot took the processor or the disk from commands: take snapshots less often (save), \
             or on a replica.");
    }
    if patient.transparent_huge_pages {
        say("Transparent huge pages are \"always\" in this kernel: page faults get longer. \
             \"echo madvise > /sys/kernel/mm/transparent_hugepage/enabled\" as root changes it.");
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(samples: &[(u64, u64)]) -> Latency {
        let latency = Latency::new();
        samples.iter().for_each(|(time_s, ms)| latency.record("command", *time_s, *ms));
        latency
    }

    #[test]
    fn a_second_has_one_sample_which_is_its_worst() {
        let latency = monitor(&[(10, 5), (10, 9), (10, 7), (11, 3)]);
        let samples: Vec<_> =
            latency.history(b"command").iter().map(|sample| (sample.time_s, sample.latency_ms)).collect();
        assert_eq!(samples, [(10, 9), (11, 3)]);
        let last = Sample { time_s: 11, latency_ms: 3 };
        assert_eq!(latency.latest(), [Latest { event: "command", last, worst_ms: 9 }]);
        assert!(latency.history(b"COMMAND").is_empty());
    }

    #[test]
    fn the_last_160_samples_are_kept_and_the_worst_for_ever() {
        let latency = monitor(&(0..200).map(|n| (n, 1000 - n)).collect::<Vec<_>>());
        let history = latency.history(b"command");
        assert_eq!((history.len(), history[0].time_s), (SAMPLES, 40));
        assert_eq!(latency.latest()[0].worst_ms, 1000);
    }

    #[test]
    fn reset_forgets_the_named_events_or_all() {
        let latency = monitor(&[(1, 5)]);
        latency.record("fork", 1, 6);
        assert_eq!(latency.reset(&["nothing"]), 0);
        assert_eq!(latency.reset(&["fork", "nothing"]), 1);
        assert_eq!(latency.latest().len(), 1);
        assert_eq!(latency.reset::<&str>(&[]), 1);
        assert!(latency.latest().is_empty());
    }

    #[test]
    fn the_summary_is_that_of_redis() {
        let latency = monitor(&[(336, 2), (337, 4), (339, 900), (340, 10)]);
        let summary = latency.summary(b"command", 341).unwrap();
        assert_eq!(
            summary,
            Summary {
                samples: 4,
                average_ms: 229,
                min_ms: 2,
                max_ms: 900,
                deviation_ms: 335,
                period_s: 1.25,
                worst_ms: 900
            }
        );
        let said = latency.doctor(341, &Patient { threshold_ms: 1, ..Patient::default() });
        let line = "1. command: 4 latency spikes (average 229ms, mean deviation 335ms, period 1.25 sec). \
                    Worst all time event 900ms.";
        assert!(said.contains(line), "{said}");
    }

    #[test]
    fn the_graph_shows_heights_and_ages() {
        let latency = monitor(&[(336, 2), (337, 450), (339, 900), (340, 10)]);
        let text = latency.graph(b"command", 400).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "command - high 900 ms, low 2 ms (all time high 900 ms)");
        assert_eq!(lines[1], "-".repeat(80));
        // Ages: 64, 63, 61 and 60 seconds.
        assert_eq!(lines[2..], ["  # ", "  | ", " #| ", "_||_", "", "1111", "mmmm"]);
        assert!(latency.graph(b"fork", 400).is_none());
        let flat = monitor(&[(1, 5), (2, 5)]).graph(b"command", 3).unwrap();
        assert!(flat.contains("\n__\n\n21\nss\n"), "{flat}");
    }

    #[test]
    fn more_samples_than_columns_are_drawn_below_each_other() {
        let latency = monitor(&(0..100).map(|n| (n, n + 1)).collect::<Vec<_>>());
        let text = latency.graph(b"command", 100).unwrap();
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert!(text.lines().any(|line| line.ends_with('#') && line.len() == 20), "{text}");
    }

    #[test]
    fn the_doctor_says_why_there_is_nothing_to_say() {
        assert!(monitor(&[(1, 5)]).doctor(2, &Patient::default()).contains("monitor is off"));
        let said = Latency::new().doctor(2, &Patient { threshold_ms: 100, ..Patient::default() });
        assert!(said.contains("No latency spike"));
    }

    #[test]
    fn the_doctor_asks_for_a_slow_log_that_sees_as_much_as_the_monitor() {
        let patient =
            |us| Patient { threshold_ms: 10, slowlog_slower_than_us: us, slowlog_max_len: 128, ..Patient::default() };
        let latency = monitor(&[(1, 50)]);
        assert!(latency.doctor(2, &patient(20_000)).contains("slowlog-log-slower-than 10000"));
        assert!(latency.doctor(2, &patient(-1)).contains("slowlog-log-slower-than 10000"));
        assert!(!latency.doctor(2, &patient(10_000)).contains("slowlog-log-slower-than"));
    }

    #[test]
    fn a_threshold_of_zero_wants_nothing() {
        assert!(!Latency::wants(0, u64::MAX));
        assert!(Latency::wants(5, 5) && !Latency::wants(5, 4));
    }
}
