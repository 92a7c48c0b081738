//! Eviction: which key goes where memory is at its limit, and its removal.
//!
//! The best of a few keys goes that chance has picked, and good ones that were seen before are remembered in
//! a [`Pool`]: near to true LRU and LFU, at a cost that does not depend on how many keys there are. What expires
//! next is not guessed, as every shard knows it.
//!
//! What must stay true: nothing is held between two steps, and one shard at a time within; a key that is removed is
//! noted, and whoever listens to it told, before its shard is released.

use fastrand::Rng;
use smallvec::SmallVec;

use crate::keyspace::change::Effects;
use crate::keyspace::entry::Entry;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::moment::Moment;
use crate::keyspace::shard::{Part, SHARDS, Shard};
use crate::keyspace::space::Keyspace;

/// Which key goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The one that was not accessed (or changed, as the access clocks are kept) for the longest time.
    LeastRecent,
    /// The one with the lowest LFU counter.
    LeastFrequent,
    /// Any.
    Random,
    /// The next to expire.
    NearestDeadline,
}

/// Which keys may go, and in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Only those that can expire.
    pub volatile: bool,
    /// Which of them first.
    pub order: Order,
}

impl Rule {
    /// How much a key deserves to go, compared with others.
    fn score(self, entry: &Entry, moment: &Moment) -> u64 {
        match self.order {
            Order::LeastRecent => moment.idle_seconds(entry.clock()),
            Order::LeastFrequent => u64::from(u8::MAX) - u64::from(moment.frequency(entry.clock())),
            Order::Random => 0,
            Order::NearestDeadline => u64::MAX - entry.deadline().unwrap_or(u64::MAX),
        }
    }
}

/// Candidates that are remembered.
const POOL: usize = 16;
/// Keys are picked for so many evictions at once: the way to where they are costs more than to look at a few more there.
const AHEAD: usize = 4;
/// So often keys are picked before it is given up to find one that can go: others may remove all that are picked.
const ROUNDS: usize = 16;

/// A key that may go soon.
#[derive(Debug)]
struct Candidate {
    score: u64,
    db: usize,
    key: Vec<u8>,
}

/// The best candidates that were seen, the best one last. For one thread.
#[derive(Debug, Default)]
pub struct Pool {
    candidates: Vec<Candidate>,
    rule: Option<Rule>,
    /// For so many evictions keys have been picked.
    picked_for: usize,
    rng: Rng,
}

impl Pool {
    fn consider(&mut self, score: u64, db: usize, key: &[u8]) {
        let full = self.candidates.len() == POOL;
        if full && self.candidates[0].score >= score {
            return;
        }
        if self.candidates.iter().any(|other| other.db == db && other.key == key) {
            return;
        }
        if full {
            self.candidates.remove(0);
        }
        let at = self.candidates.partition_point(|other| other.score <= score);
        self.candidates.insert(at, Candidate { score, db, key: key.to_vec() });
    }
}

impl Keyspace {
    /// Removes one key by `rule`, the best of about `samples`; returns how many bytes it took, `None` where
    /// no key can go.
    ///
    /// The caller holds no shard. `pass_on` is called while the key's shard is held.
    pub fn evict(
        &self,
        pool: &mut Pool,
        rule: Rule,
        samples: usize,
        moment: &Moment,
        effects: &mut Effects,
        mut pass_on: impl FnMut(&mut Effects),
    ) -> Option<usize> {
        if pool.rule != Some(rule) {
            // The scores of another rule say nothing.
            pool.candidates.clear();
            pool.picked_for = 0;
            pool.rule = Some(rule);
        }
        for _ in 0..ROUNDS {
            if pool.picked_for == 0 || pool.candidates.is_empty() {
                pool.picked_for = self.pick_by(pool, rule, samples, moment)?;
            }
            pool.picked_for -= 1;
            while let Some(best) = pool.candidates.pop() {
                let freed = self.evict_key(&best, rule, moment, effects, &mut pass_on);
                if freed.is_some() {
                    return freed;
                }
            }
        }
        None
    }

    /// Adds keys, `samples` for each eviction; returns for how many evictions, `None` where there is none that may go.
    fn pick_by(&self, pool: &mut Pool, rule: Rule, samples: usize, moment: &Moment) -> Option<usize> {
        match rule.order {
            // Where deadlines change faster than they can be followed, or hashes have fields whose deadlines hide
            // those of keys, the next to expire of a few keys will do.
            Order::NearestDeadline => {
                self.pick_nearest(pool).or_else(|| self.pick(pool, rule, samples, moment)).map(|()| 1)
            }
            Order::Random => self.pick(pool, rule, AHEAD, moment).map(|()| AHEAD),
            Order::LeastRecent | Order::LeastFrequent => self.pick(pool, rule, samples * AHEAD, moment).map(|()| AHEAD),
        }
    }

    /// Adds keys that chance picks; `None` where there is none that may go.
    fn pick(&self, pool: &mut Pool, rule: Rule, samples: usize, moment: &Moment) -> Option<()> {
        let mut left = samples;
        let hides = self.hidden().any();
        let start = pool.rng.usize(..SHARDS);
        for n in 0..SHARDS {
            if left == 0 {
                break;
            }
            // An odd step leads to every shard once. Neighbours would be picked together again and again.
            let shard = (start + n * 97) % SHARDS;
            self.hold_none().visit(shard, |shard| {
                for db in shard.databases().collect::<SmallVec<[usize; 4]>>() {
                    let Some(part) = shard.part(db) else { continue };
                    let mut rng = pool.rng.fork();
                    let seen = part.pick(&mut rng, samples, rule.volatile, |entry| {
                        if hides && self.hidden().has(self.hasher().hash(entry.key()).slot()) {
                            return;
                        }
                        pool.consider(rule.score(entry, moment), db, entry.key());
                    });
                    left = left.saturating_sub(seen);
                }
            });
        }
        (left < samples || !pool.candidates.is_empty()).then_some(())
    }

    /// Adds the key that expires next; `None` where no key can expire.
    fn pick_nearest(&self, pool: &mut Pool) -> Option<()> {
        for _ in 0..ROUNDS {
            let due = |shard: &usize| match self.hidden().of(*shard) {
                0 => self.next_due(*shard).unwrap_or(u64::MAX),
                // Its next may be one that stays.
                _ => u64::MAX,
            };
            let Some(shard) = (0..SHARDS).min_by_key(due).filter(|shard| due(shard) != u64::MAX) else { break };
            let known = due(&shard);
            let nearest = self.hold_none().visit(shard, |held| {
                let nearest = held.nearest();
                self.set_next_due(shard, held.next_deadline());
                nearest
            });
            // A shard may promise an earlier deadline than it has, and then another one may be next.
            if let Some((db, key, deadline)) = nearest {
                pool.consider(u64::MAX - deadline, db, &key);
                if deadline <= known || self.next_due(shard).is_some_and(|next| next <= known) {
                    break;
                }
            }
        }
        (!pool.candidates.is_empty()).then_some(())
    }

    /// Removes a candidate that deserves it still; returns how many bytes it took.
    fn evict_key(
        &self,
        candidate: &Candidate,
        rule: Rule,
        moment: &Moment,
        effects: &mut Effects,
        pass_on: &mut impl FnMut(&mut Effects),
    ) -> Option<usize> {
        let Candidate { score, db, key } = candidate;
        let hash: KeyHash = self.hasher().hash(key);
        if self.hidden().has(hash.slot()) {
            return None;
        }
        self.hold_none().visit(hash.shard(), |shard: &mut Shard| {
            let part = shard.part_mut(*db)?;
            let entry = part.find(hash, key)?;
            if rule.volatile && entry.deadline().is_none() || rule.score(entry, moment) < *score {
                // It was used since it was seen.
                return None;
            }
            let entry = part.remove(hash, key)?;
            let bytes = entry.memory();
            effects.note_evicted(*db, key);
            if shard.listeners().is_some() {
                shard.with_listeners(|listeners| listeners.expire(*db, key));
            }
            self.free_measured(entry, bytes);
            pass_on(effects);
            Some(bytes)
        })
    }
}

impl Part {
    /// Calls `f` for `count` keys at most that chance picks; returns for how many.
    fn pick(&self, rng: &mut Rng, count: usize, volatile: bool, mut f: impl FnMut(&Entry)) -> usize {
        if volatile {
            return self.volatile().pick(rng, count, f);
        }
        let mut found: SmallVec<[&Entry; 32]> = SmallVec::new();
        let start = rng.u32(..64);
        let mut slots = self.filled().rotate_right(start);
        while slots != 0 && found.len() < count {
            let slot = (slots.trailing_zeros() + start) % 64;
            slots &= slots - 1;
            self.slot(slot as usize).sample(rng.u64(..), count - found.len(), |entry| found.push(entry));
        }
        // Each is a cache miss: asked for together, they cost little more than one.
        found.iter().for_each(|entry| entry.prefetch());
        found.iter().for_each(|entry| f(entry));
        found.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::Str;
    use crate::keyspace::hash::Routing;
    use crate::keyspace::moment::AccessPolicy;

    /// A keyspace whose keys `0`, `1`, ... are as `make` says: clock and deadline.
    fn filled(count: u32, make: impl Fn(u32) -> (u32, Option<u64>)) -> Keyspace {
        let keyspace = Keyspace::new(Routing::Hash, 1).unwrap();
        for n in 0..count {
            let key = n.to_string();
            let hash = keyspace.hasher().hash(key.as_bytes());
            let (clock, deadline) = make(n);
            if let Some(deadline) = deadline {
                keyspace.note_deadline(hash.shard(), deadline);
            }
            let entry = Entry::new(hash.bits(), key.as_bytes(), Str::Bytes(b"value"), deadline, clock);
            keyspace.hold_none().visit(hash.shard(), |shard| shard.part_or_new(0).insert(hash, entry));
        }
        keyspace
    }

    const NOW: Moment = Moment { now_ms: 1_000_000_000, policy: AccessPolicy::Lru };

    /// Evicts `count` keys; their numbers.
    fn evicted(keyspace: &Keyspace, rule: Rule, moment: &Moment, count: usize) -> Vec<u32> {
        let (mut pool, mut effects) = (Pool::default(), Effects::default());
        pool.rng = Rng::with_seed(7);
        effects.begin(crate::keyspace::change::Interest::CHANGES);
        let mut gone = Vec::new();
        for _ in 0..count {
            let freed = keyspace.evict(&mut pool, rule, 5, moment, &mut effects, |effects| {
                gone.extend(effects.changes.drain(..).map(|change| {
                    assert_eq!(change.event, "evicted");
                    String::from_utf8(change.key).unwrap().parse::<u32>().unwrap()
                }));
            });
            if freed.is_none() {
                break;
            }
        }
        gone
    }

    #[test]
    fn what_was_idle_for_the_longest_time_goes_first_more_or_less() {
        let count = if cfg!(miri) { 100 } else { 4000 };
        let keyspace = filled(count, |n| (1000 + n, None));
        let gone = evicted(&keyspace, Rule { volatile: false, order: Order::LeastRecent }, &NOW, count as usize / 4);
        assert_eq!(gone.len(), count as usize / 4);
        // Chance alone would take a quarter of them from the oldest quarter.
        let old = gone.iter().filter(|n| **n < count / 2).count();
        assert!(old * 10 > gone.len() * 9, "{old} of {} are of the older half", gone.len());
    }

    #[test]
    fn what_is_seldom_used_goes_first_more_or_less() {
        let count = if cfg!(miri) { 100 } else { 4000 };
        let moment = Moment { policy: AccessPolicy::Lfu { log_factor: 10, decay_minutes: 0 }, ..NOW };
        let keyspace = filled(count, |n| (n * 250 / count, None));
        let gone =
            evicted(&keyspace, Rule { volatile: false, order: Order::LeastFrequent }, &moment, count as usize / 4);
        let seldom = gone.iter().filter(|n| **n < count / 2).count();
        assert!(seldom * 10 > gone.len() * 9, "{seldom} of {}", gone.len());
    }

    #[test]
    fn what_expires_next_goes_first() {
        let keyspace = filled(300, |n| (0, (n % 3 != 0).then_some(2_000_000 + u64::from(n * 7919 % 300) * 1000)));
        let gone = evicted(&keyspace, Rule { volatile: true, order: Order::NearestDeadline }, &NOW, 1000);
        let mut expected: Vec<u32> = (0..300).filter(|n| n % 3 != 0).collect();
        expected.sort_by_key(|n| n * 7919 % 300);
        assert_eq!(gone, expected);
    }

    #[test]
    fn only_keys_that_can_expire_go_where_the_rule_says_so() {
        for order in [Order::LeastRecent, Order::LeastFrequent, Order::Random, Order::NearestDeadline] {
            let keyspace = filled(200, |n| (n, (n % 2 == 0).then_some(5_000_000_000)));
            let mut gone = evicted(&keyspace, Rule { volatile: true, order }, &NOW, 1000);
            gone.sort_unstable();
            assert_eq!(gone, (0..200).step_by(2).collect::<Vec<_>>(), "{order:?}");
        }
    }

    #[test]
    fn every_key_goes_in_the_end_and_then_there_is_none() {
        for order in [Order::LeastRecent, Order::LeastFrequent, Order::Random] {
            let keyspace = filled(500, |n| (n, None));
            let mut gone = evicted(&keyspace, Rule { volatile: false, order }, &NOW, 1000);
            gone.sort_unstable();
            assert_eq!(gone, (0..500).collect::<Vec<_>>(), "{order:?}");
        }
    }
}
