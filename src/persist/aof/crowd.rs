//! How many wait for a sync, as the last ones tell: so that one sync serves all who would wait for it.
//!
//! Clients who are served send their next requests at once. Were the first of these enough for a sync to begin, the others
//! would wait for it and then for their own: half of the clients would always wait for the other half's sync. So a sync
//! waits a little for those whom the last one served, by a part of what it takes itself. Where they do not come back
//! that is seldom tried again.

use std::time::Duration;

/// A sync waits for so great a part of what syncs take, at most.
const PART: u32 = 4;
/// And no longer than this.
const LONGEST: Duration = Duration::from_millis(2);
/// After waiting in vain so often in a row it is done once in `1 << MOST_VAIN` syncs.
const MOST_VAIN: u32 = 6;

/// Who is expected, and what was seen of waiting for them.
#[derive(Debug, Default)]
pub struct Crowd {
    expected: usize,
    took: Duration,
    vain: u32,
    /// So many syncs do not wait.
    skip: u32,
}

impl Crowd {
    /// How many are worth waiting for, and how long, where `here` wait already; `None` where a sync is to begin at once.
    pub fn missing(&mut self, here: usize) -> Option<(usize, Duration)> {
        if self.expected < 2 || here >= self.expected {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some((self.expected, (self.took / PART).min(LONGEST)))
    }

    /// Where `before` waited and others were awaited, `after` wait now.
    pub fn awaited(&mut self, before: usize, after: usize) {
        let (came, missing) = (after.saturating_sub(before), self.expected.saturating_sub(before));
        if came * 2 >= missing {
            self.vain = 0;
        } else {
            self.vain = (self.vain + 1).min(MOST_VAIN);
            self.skip = (1 << self.vain) - 1;
        }
    }

    /// A sync took so long and served so many, while `left` others came who wait for the next.
    pub fn served(&mut self, took: Duration, served: usize, left: usize) {
        self.took = (self.took * 3 + took) / 4;
        self.expected = served + left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(4);

    fn crowd(served: usize, left: usize) -> Crowd {
        let mut crowd = Crowd { took: SYNC, ..Crowd::default() };
        crowd.served(SYNC, served, left);
        crowd
    }

    #[test]
    fn those_who_were_served_are_awaited_with_those_who_are_there() {
        let mut crowd = crowd(25, 25);
        assert_eq!(crowd.missing(25), Some((50, SYNC / PART)));
        assert_eq!(crowd.missing(50), None, "all are there");
    }

    #[test]
    fn who_is_alone_waits_for_nobody() {
        assert_eq!(crowd(1, 0).missing(0), None);
        assert_eq!(Crowd::default().missing(0), None);
    }

    #[test]
    fn who_does_not_come_back_is_awaited_ever_more_seldom() {
        let mut crowd = crowd(10, 0);
        let mut waits = Vec::new();
        for sync in 0..300 {
            if crowd.missing(1).is_some() {
                waits.push(sync);
                crowd.awaited(1, 2);
            }
        }
        assert_eq!(waits[..4], [0, 2, 6, 14]);
        assert!(waits.windows(2).all(|two| two[1] - two[0] <= 64), "{waits:?}");
        crowd.skip = 0;
        assert!(crowd.missing(1).is_some());
        crowd.awaited(1, 9);
        assert!(crowd.missing(1).is_some(), "now they do");
    }

    #[test]
    fn nobody_is_awaited_for_longer_than_it_can_pay() {
        let mut crowd = crowd(10, 0);
        for _ in 0..100 {
            crowd.served(Duration::from_secs(1), 10, 0);
        }
        assert_eq!(crowd.missing(1), Some((10, LONGEST)));
    }
}
