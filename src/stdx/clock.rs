//! The time: of the system, or set by a test.
//!
//! Whoever needs the time is given a [`Clock`] and does not ask the system itself, so that a test
//! moves time instead of sleeping. Wall-clock time may jump with the system's; the monotonic time
//! never goes back, under a manual clock neither.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::stdx::ticks::Ticks;

/// Where the monotonic time of real clocks begins: one for the process, so that values of two clocks compare.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A source of time; cheap to clone, clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real,
    Manual(Arc<Hands>),
}

#[derive(Debug)]
struct Hands {
    wall_us: AtomicU64,
    monotonic_us: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub fn real() -> Clock {
        Clock(Source::Real)
    }

    /// A clock that stands at `start_ms` (unix milliseconds) and moves by its [`ManualClock`] only.
    pub fn manual(start_ms: u64) -> (Clock, ManualClock) {
        let hands = Arc::new(Hands { wall_us: AtomicU64::new(start_ms * 1000), monotonic_us: AtomicU64::new(0) });
        (Clock(Source::Manual(Arc::clone(&hands))), ManualClock(hands))
    }

    /// Whether it is the system's clock, which moves by itself.
    pub fn is_real(&self) -> bool {
        matches!(self.0, Source::Real)
    }

    /// Unix time in milliseconds; 0 if the system's clock stands before 1970.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// Unix time in microseconds; 0 if the system's clock stands before 1970.
    #[inline]
    pub fn now_us(&self) -> u64 {
        match &self.0 {
            Source::Real => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
            Source::Manual(hands) => hands.wall_us.load(Ordering::Acquire),
        }
    }

    /// [`Clock::now_ms`], read anew only where `recent` is older than some fifty microseconds.
    #[inline]
    pub fn recent_ms(&self, recent: &mut Recent) -> u64 {
        if let Source::Manual(_) = self.0 {
            return self.now_ms();
        }
        let now = Ticks::now();
        match recent.0 {
            Some((at, ms)) if now.since_ns(at) < RECENT_NS => ms,
            _ => {
                let ms = self.now_ms();
                recent.0 = Some((now, ms));
                ms
            }
        }
    }

    /// Microseconds since some fixed moment of this process; never goes back, whatever the wall clock does.
    #[inline]
    pub fn monotonic_us(&self) -> u64 {
        match &self.0 {
            Source::Real => START.elapsed().as_micros() as u64,
            Source::Manual(hands) => hands.monotonic_us.load(Ordering::Acquire),
        }
    }

    /// [`Clock::monotonic_us`] in milliseconds.
    #[inline]
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_us() / 1000
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::real()
    }
}

/// The last time that somebody read, for [`Clock::recent_ms`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent(Option<(Ticks, u64)>);

/// How old a time may be to be called recent.
const RECENT_NS: u64 = 50_000;

/// The hands of a clock that does not run by itself.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

impl ManualClock {
    /// Puts the wall clock to `ms` (unix milliseconds), forwards or backwards; monotonic time stands still.
    pub fn set(&self, ms: u64) {
        self.0.wall_us.store(ms * 1000, Ordering::Release);
    }

    /// Lets `ms` milliseconds pass, on the wall and monotonically.
    pub fn advance(&self, ms: u64) {
        self.advance_us(ms * 1000);
    }

    /// Lets `us` microseconds pass, on the wall and monotonically.
    pub fn advance_us(&self, us: u64) {
        self.0.wall_us.fetch_add(us, Ordering::AcqRel);
        self.0.monotonic_us.fetch_add(us, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_all_clones_with_it() {
        let (clock, hands) = Clock::manual(1_000);
        let other = clock.clone();
        assert_eq!((clock.now_ms(), clock.monotonic_us()), (1_000, 0));
        hands.advance(5);
        assert_eq!((other.now_ms(), other.now_us(), other.monotonic_ms()), (1_005, 1_005_000, 5));
        hands.set(10);
        assert_eq!((other.now_ms(), other.monotonic_ms()), (10, 5), "a jump of the wall clock is not time that passed");
    }

    #[test]
    fn a_recent_time_is_never_older_than_it_may_be() {
        let (clock, hands) = Clock::manual(7);
        let mut recent = Recent::default();
        assert_eq!(clock.recent_ms(&mut recent), 7);
        hands.advance(1);
        assert_eq!(clock.recent_ms(&mut recent), 8, "a manual clock is always read");
        let (clock, mut recent) = (Clock::real(), Recent::default());
        for _ in 0..10_000 {
            let before = clock.now_us();
            let ms = clock.recent_ms(&mut recent);
            assert!(ms + 1 >= (before - RECENT_NS / 1000) / 1000 && ms <= clock.now_ms(), "{ms} at {before}");
        }
    }

    #[test]
    fn a_real_clock_shows_this_century_and_does_not_go_back() {
        let clock = Clock::real();
        assert!(clock.now_ms() > 1_600_000_000_000);
        let first = clock.monotonic_us();
        assert!(clock.monotonic_us() >= first);
    }
}
