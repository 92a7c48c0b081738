//! What each slot costs: processor time and traffic, counted while `cluster-slot-stats-enabled` says so.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::keyspace::shard::SLOTS;

/// What one request cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Nanoseconds of processor time.
    pub ns: u64,
    /// Bytes of the request.
    pub bytes_in: u64,
    /// Bytes of the reply.
    pub bytes_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    ns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The counts of all slots. They take no memory before the first is counted.
#[derive(Debug, Default)]
pub struct SlotStats(OnceLock<Box<[Counts]>>);

impl SlotStats {
    /// Adds to what a slot has cost.
    pub fn add(&self, slot: usize, cost: Cost) {
        let all = self.0.get_or_init(|| (0..SLOTS).map(|_| Counts::default()).collect());
        // Whole microseconds of each, as commands are told of one by one.
        all[slot].ns.fetch_add(cost.ns / 1000 * 1000, Ordering::Relaxed);
        all[slot].bytes_in.fetch_add(cost.bytes_in, Ordering::Relaxed);
        all[slot].bytes_out.fetch_add(cost.bytes_out, Ordering::Relaxed);
    }

    /// What a slot has cost.
    pub fn of(&self, slot: usize) -> Cost {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.0.get().map(|all| &all[slot]).map_or_else(Cost::default, |counts| Cost {
            ns: load(&counts.ns),
            bytes_in: load(&counts.bytes_in),
            bytes_out: load(&counts.bytes_out),
        })
    }

    /// Begins a slot anew.
    pub fn reset(&self, slot: usize) {
        if let Some(all) = self.0.get() {
            [&all[slot].ns, &all[slot].bytes_in, &all[slot].bytes_out]
                .iter()
                .for_each(|count| count.store(0, Ordering::Relaxed));
        }
    }

    /// Begins all slots anew.
    pub fn reset_all(&self) {
        (0..SLOTS).for_each(|slot| self.reset(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_costs_adds_up_until_it_begins_anew() {
        let stats = SlotStats::default();
        assert_eq!(stats.of(7), Cost::default());
        let cost = Cost { ns: 5999, bytes_in: 6, bytes_out: 7 };
        stats.add(7, cost);
        stats.add(7, cost);
        assert_eq!(stats.of(7), Cost { ns: 10_000, bytes_in: 12, bytes_out: 14 });
        assert_eq!(stats.of(8), Cost::default());
        stats.reset(7);
        assert_eq!(stats.of(7), Cost::default());
    }
}
