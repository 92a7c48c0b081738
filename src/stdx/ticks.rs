//! Timestamps for durations of microseconds, at the price of reading a register (about 7 ns).
//!
//! On x86-64 with an invariant time-stamp counter a [`Ticks`] is that counter, elsewhere it is the
//! system's monotonic clock in nanoseconds. What stays true: two `Ticks` of one process compare and
//! subtract, on whatever cores they were taken; a difference that would be negative is zero.
//!
//! The counter's rate is measured against the system's clock without waiting: the first conversions
//! read both and use the ratio since the anchor, which is frozen once it stands on a tenth
//! of a second.
//! Until then a conversion costs a clock read more.
#![allow(unsafe_code, reason = "reading the time-stamp counter: a quarter of a clock read")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How long the counter must have been watched before its rate counts as known: at 20 ns of
/// uncertainty per clock read the error is then below one in a million.
const SETTLED_NS: u64 = 100_000_000;

/// Where the shortest acceptable measurement ends: 20 us, for an error below one in five hundred.
/// Only a conversion within the first 20 us after the anchor has to wait for it.
const SHORTEST_NS: u64 = 20_000;

/// A moment, for durations only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u64);

/// Nanoseconds per tick as a fraction of 2^32; 0 until the rate is settled.
static RATE: AtomicU64 = AtomicU64::new(0);

struct Anchor {
    counter: bool,
    ticks: u64,
    instant: Instant,
}

static ANCHOR: LazyLock<Anchor> = LazyLock::new(|| {
    let counter = counter_is_invariant();
    let instant = Instant::now();
    if !counter {
        RATE.store(1 << 32, Ordering::Relaxed);
    }
    Anchor { counter, ticks: if counter { read_counter() } else { 0 }, instant }
});

impl Ticks {
    /// This moment.
    #[inline]
    pub fn now() -> Ticks {
        let anchor = &*ANCHOR;
        if anchor.counter { Ticks(read_counter()) } else { Ticks(anchor.instant.elapsed().as_nanos() as u64) }
    }

    /// Nanoseconds from this moment until now.
    #[inline]
    pub fn elapsed_ns(self) -> u64 {
        Ticks::now().since_ns(self)
    }

    /// Microseconds from this moment until now, rounded down.
    #[inline]
    pub fn elapsed_us(self) -> u64 {
        self.elapsed_ns() / 1000
    }

    /// Nanoseconds from `earlier` to this moment; 0 if `earlier` is the later one.
    #[inline]
    pub fn since_ns(self, earlier: Ticks) -> u64 {
        let rate = match RATE.load(Ordering::Relaxed) {
            0 => measured_rate(),
            settled => settled,
        };
        ((u128::from(self.0.saturating_sub(earlier.0)) * u128::from(rate)) >> 32) as u64
    }

    /// Microseconds from `earlier` to this moment, rounded down; 0 if `earlier` is the later one.
    #[inline]
    pub fn since_us(self, earlier: Ticks) -> u64 {
        self.since_ns(earlier) / 1000
    }

    /// What the time is read from, as INFO's `monotonic_clock` names it.
    pub fn source() -> &'static str {
        if ANCHOR.counter { "X86 TSC" } else { "POSIX clock_gettime" }
    }
}

/// The ratio since the anchor, remembered once it is good enough.
#[cold]
fn measured_rate() -> u64 {
    loop {
        let passed_ns = ANCHOR.instant.elapsed().as_nanos() as u64;
        let passed_ticks = if ANCHOR.counter { read_counter().saturating_sub(ANCHOR.ticks) } else { passed_ns };
        // The processor may have been taken from us between the two reads; against the length that
        // settles the rate this is noise, and before that it is as good as it gets.
        if passed_ns >= SHORTEST_NS && passed_ticks > 0 {
            let rate = ((u128::from(passed_ns) << 32) / u128::from(passed_ticks)) as u64;
            if passed_ns >= SETTLED_NS {
                RATE.store(rate.max(1), Ordering::Relaxed);
            }
            return rate;
        }
        std::hint::spin_loop();
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn counter_is_invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn read_counter() -> u64 {
    // SAFETY: RDTSC reads a register and has no precondition; every x86-64 processor has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn counter_is_invariant() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
fn read_counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "an interpreter's clock is not that of the processor")]
    fn a_duration_agrees_with_the_systems_clock() {
        // Three chances: the processor may be taken from us between the two pairs of reads.
        let close = (0..3).any(|_| {
            let (ticks, instant) = (Ticks::now(), Instant::now());
            while instant.elapsed().as_micros() < 2_000 {
                std::hint::spin_loop();
            }
            let (ours, theirs) = (ticks.elapsed_ns() as f64, instant.elapsed().as_nanos() as f64);
            (ours / theirs - 1.0).abs() < 0.05
        });
        assert!(close);
    }

    #[test]
    fn a_duration_that_would_be_negative_is_zero() {
        let early = Ticks::now();
        let late = Ticks(early.0 + 1_000);
        assert_eq!(early.since_ns(late), 0);
        assert!(late.since_ns(early) > 0);
        assert_eq!(late.since_us(late), 0);
    }
}
