//! The moment a batch runs at: the time, read once, and how accesses are noted.

/// How the access clock of an entry is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessPolicy {
    /// The time of the last access, in seconds, modulo 2^24.
    Lru,
    /// The time of the last change, in seconds, modulo 2^24: reading does not count.
    Lrm,
    /// 16 bits of minutes when the counter was last halved, 8 bits of a logarithmic counter.
    Lfu {
        /// How many hits the counter takes to saturate, more or less exponentially.
        log_factor: u32,
        /// Minutes after which the counter loses one; 0 means never.
        decay_minutes: u32,
    },
}

/// What a new key's LFU counter starts with, so that it is not the first to go.
pub const LFU_INITIAL: u32 = 5;

/// The time at which a batch of commands runs, the same for all of them.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// How accesses are noted.
    pub policy: AccessPolicy,
}

const CLOCK_BITS: u64 = 0xff_ffff;

impl Moment {
    /// The access clock of a key that is created now.
    #[inline]
    pub fn initial_clock(&self) -> u32 {
        match self.policy {
            AccessPolicy::Lru | AccessPolicy::Lrm => self.seconds(),
            AccessPolicy::Lfu { .. } => self.minutes() << 8 | LFU_INITIAL,
        }
    }

    /// The clock after a change.
    #[inline]
    pub fn changed(&self, clock: u32) -> u32 {
        match self.policy {
            AccessPolicy::Lrm => self.seconds(),
            AccessPolicy::Lru | AccessPolicy::Lfu { .. } => self.accessed(clock),
        }
    }

    /// The clock after an access that changed nothing.
    #[inline]
    pub fn accessed(&self, clock: u32) -> u32 {
        match self.policy {
            AccessPolicy::Lru => self.seconds(),
            AccessPolicy::Lrm => clock,
            AccessPolicy::Lfu { log_factor, .. } => {
                self.minutes() << 8 | incremented(self.frequency(clock), log_factor)
            }
        }
    }

    /// The LFU counter that a clock stands for now, decay counted in.
    pub fn frequency(&self, clock: u32) -> u32 {
        let counter = clock & 0xff;
        let AccessPolicy::Lfu { decay_minutes, .. } = self.policy else { return counter };
        let passed = self.minutes().wrapping_sub(clock >> 8) & 0xffff;
        counter.saturating_sub(passed.checked_div(decay_minutes).unwrap_or(0))
    }

    /// Seconds since the access or change that an LRU clock notes.
    pub fn idle_seconds(&self, clock: u32) -> u64 {
        u64::from(self.seconds().wrapping_sub(clock)) & CLOCK_BITS
    }

    /// The clock of a key last accessed so many seconds ago.
    pub fn clock_for_idle(&self, seconds: u64) -> u32 {
        ((self.now_ms / 1000).wrapping_sub(seconds) & CLOCK_BITS) as u32
    }

    /// The clock of a key whose LFU counter stands at `frequency` now.
    pub fn clock_for_frequency(&self, frequency: u8) -> u32 {
        self.minutes() << 8 | u32::from(frequency)
    }

    #[inline]
    fn seconds(&self) -> u32 {
        ((self.now_ms / 1000) & CLOCK_BITS) as u32
    }

    fn minutes(&self) -> u32 {
        ((self.now_ms / 60_000) & 0xffff) as u32
    }
}

/// Counts a hit with a probability that falls as the counter rises (Morris counting).
fn incremented(counter: u32, log_factor: u32) -> u32 {
    if counter >= 255 {
        return 255;
    }
    let base = f64::from(counter.saturating_sub(LFU_INITIAL));
    let hit = fastrand::f64() < 1.0 / (base * f64::from(log_factor) + 1.0);
    counter + u32::from(hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lfu(now_ms: u64) -> Moment {
        Moment { now_ms, policy: AccessPolicy::Lfu { log_factor: 10, decay_minutes: 1 } }
    }

    #[test]
    fn an_unused_keys_counter_decays_by_the_minute() {
        let clock = lfu(0).initial_clock();
        assert_eq!([0, 59_999, 60_000, 180_000, 600_000].map(|t| lfu(t).frequency(clock)), [5, 5, 4, 2, 0]);
    }

    #[test]
    fn the_counter_rises_ever_more_slowly_and_stops_at_255() {
        let mut clock = lfu(0).initial_clock();
        for _ in 0..100 {
            clock = lfu(0).accessed(clock);
        }
        let after_100 = clock & 0xff;
        assert!((6..40).contains(&after_100), "{after_100}");
        clock |= 0xff;
        assert_eq!(lfu(0).accessed(clock) & 0xff, 255);
    }

    #[test]
    fn reading_does_not_move_a_clock_that_notes_changes() {
        let at = |s: u64| Moment { now_ms: s * 1000, policy: AccessPolicy::Lrm };
        let clock = at(100).initial_clock();
        assert_eq!(at(110).idle_seconds(at(105).accessed(clock)), 10);
        assert_eq!(at(110).idle_seconds(at(105).changed(clock)), 5);
    }

    #[test]
    fn idle_time_survives_the_wrap_of_24_bits() {
        let at = |s: u64| Moment { now_ms: s * 1000, policy: AccessPolicy::Lru };
        let clock = at((1 << 24) - 2).initial_clock();
        assert_eq!(at((1 << 24) + 3).idle_seconds(clock), 5);
    }
}
