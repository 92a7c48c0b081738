//! One slot migration as one of its two nodes sees it: slots move whole, with their keys, and nobody is sent to and fro.
//!
//! The source connects, sends what the slots held at one point in time, then what was changed since. When little is
//! left it holds back writes to these slots, sends the rest, and grants the slots to the target, which takes them over
//! and tells the cluster. Until then the source serves the slots, and whatever goes wrong leaves them where they were.
//!
//! What must stay true: at no time do both nodes let clients write to the slots. The target takes over only within
//! [`Terms::pause_ms`] of the moment at which it said that it is ready; the source, which heard that later, lets nobody
//! write for longer than that. No clocks are compared, only times measured on either side, so this holds whatever the
//! clocks say as long as they run alike.

use crate::cluster::node::Name;
use crate::cluster::slots::SlotSet;

/// What the target has less time for than the source waits: what a message may take that tells of new owners.
const MARGIN_MS: u64 = 1000;
/// How long a target waits before it asks anew for slots that it could not get, in milliseconds.
const RETRY_MS: u64 = 1000;

/// Which of the two nodes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that has the slots.
    Source,
    /// The one that is to have them.
    Target,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The target has yet to ask the source for the slots, or waits for it.
    Asking,
    /// The source has yet to reach the target.
    Connecting,
    /// The source waits until it can take a snapshot.
    Waiting,
    /// What the slots held is on its way.
    Snapshot,
    /// What was changed since is on its way.
    Tail,
    /// Nobody writes any more; the rest is on its way, or all of it is there.
    Paused,
    /// The target may take over.
    Granted,
    /// The slots are the target's.
    Success,
    /// They are not, because something went wrong.
    Failed,
    /// They are not, because somebody wished so.
    Cancelled,
}

impl State {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, State::Success | State::Failed | State::Cancelled)
    }

    /// The state in the words of CLUSTER GETSLOTMIGRATIONS.
    pub fn name(self, side: Side) -> &'static str {
        match (self, side) {
            (State::Asking, _) => "asking-source",
            (State::Connecting, _) => "connecting",
            (State::Waiting, _) => "waiting-for-snapshot",
            (State::Snapshot, Side::Source) => "snapshotting",
            (State::Snapshot, Side::Target) => "receiving-snapshot",
            (State::Tail, Side::Source) => "waiting-to-pause",
            (State::Tail, Side::Target) => "waiting-for-paused",
            (State::Paused, Side::Source) => "failover-paused",
            (State::Paused, Side::Target) => "failover-requested",
            (State::Granted, _) => "failover-granted",
            (State::Success, _) => "success",
            (State::Failed, _) => "failed",
            (State::Cancelled, _) => "cancelled",
        }
    }
}

/// The bounds within which a migration goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Writes are held back once no more than so many bytes have yet to be sent.
    pub lag_bytes: u64,
    /// For how many milliseconds they are held back at most while the target may take over.
    pub pause_ms: u64,
    /// After how many milliseconds without a word the other side is given up.
    pub silence_ms: u64,
}

/// Who serves the slots, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The source serves all of them.
    Source,
    /// The target does.
    Target,
    /// Neither of them serves all, or this node has become a replica.
    Other,
}

/// What happens to a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection stands and the target has agreed.
    Established,
    /// The point in time is there whose data is sent first.
    SnapshotBegun,
    /// The target has all of that.
    SnapshotEnded,
    /// So many bytes have yet to be sent, and writes need not be held back where `may_pause` is not set.
    Lag {
        /// Bytes.
        bytes: u64,
        /// Whether writes may be held back now.
        may_pause: bool,
    },
    /// Nothing more will be changed, and the target has all: on either side.
    Ready,
    /// The source grants the slots.
    Granted,
    /// The slots have this owner.
    Owner(Owner),
    /// The other side lives.
    Heard,
    /// Time has passed.
    Tick,
    /// It cannot go on.
    Broken(String),
    /// It is not to go on.
    Cancelled,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Hold back writes to the slots.
    Hold,
    /// Let them go on.
    Release,
    /// Tell the target that it may take over.
    Grant,
    /// Tell the source that all is here.
    TellReady,
    /// Take the slots over, and tell everybody.
    TakeOver,
    /// Remove what came of the slots.
    RollBack,
    /// Ask the source for the slots.
    Ask,
    /// End the connection.
    Close,
}

/// A migration. Times are unix milliseconds where they are told, and are only ever subtracted where they decide.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its name, which both sides know.
    pub name: Name,
    /// Which side this is.
    pub side: Side,
    /// The slots.
    pub slots: SlotSet,
    /// The node that has them.
    pub source: Name,
    /// The node that is to have them.
    pub target: Name,
    /// How far it is.
    pub state: State,
    /// Why it failed; empty where there is nothing to say.
    pub message: String,
    /// When it was begun.
    pub created_ms: u64,
    /// When the last attempt was begun.
    pub started_ms: u64,
    /// When its state changed last.
    pub updated_ms: u64,
    /// When the other side was heard of last.
    pub heard_ms: u64,
    /// How often it was begun anew.
    pub retries: u64,
    /// For how many milliseconds writes were held back.
    pub paused_ms: u64,
    /// Whether the target asked for the slots: it goes on asking.
    persists: bool,
    /// When writes were held back, or this side said that it is ready.
    pause_began: Option<u64>,
    /// When the slots were granted.
    granted: Option<u64>,
    /// What became of it where that was known only after the slots had been granted.
    ending: Option<(State, String)>,
    /// When the source was asked last.
    asked: Option<u64>,
}

impl Migration {
    /// One that begins now, on `side`.
    pub fn new(name: Name, side: Side, slots: SlotSet, source: Name, target: Name, now: u64) -> Migration {
        let state = if side == Side::Source { State::Connecting } else { State::Snapshot };
        Migration {
            name,
            side,
            slots,
            source,
            target,
            state,
            message: String::new(),
            created_ms: now,
            started_ms: now,
            updated_ms: now,
            heard_ms: now,
            retries: 0,
            paused_ms: 0,
            persists: false,
            pause_began: None,
            granted: None,
            ending: None,
            asked: None,
        }
    }

    /// One that the target has yet to ask the source for, and goes on asking for until it has the slots.
    pub fn asked_for(name: Name, slots: SlotSet, source: Name, target: Name, now: u64) -> Migration {
        let new = Migration::new(name, Side::Target, slots, source, target, now);
        Migration { state: State::Asking, persists: true, ..new }
    }

    /// Whether the target asked for the slots.
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// Whether keys of the slots may be here although this node does not serve them.
    pub fn has_keys(&self) -> bool {
        matches!(self.state, State::Snapshot | State::Tail | State::Paused | State::Granted)
    }

    /// Goes on by one event; returns what is to be done, in this order.
    pub fn happen(&mut self, now: u64, terms: &Terms, event: Event) -> Vec<Action> {
        if self.state.is_over() {
            return Vec::new();
        }
        match (event, self.side) {
            (Event::Heard, _) => {
                self.heard_ms = now;
                Vec::new()
            }
            // The target may have heard of it: until its time is over nobody else can be sure.
            (Event::Broken(why), Side::Source) if self.state == State::Granted => self.end_later(State::Failed, why),
            (Event::Cancelled, Side::Source) if self.state == State::Granted => {
                self.end_later(State::Cancelled, String::new())
            }
            (Event::Broken(why), _) => self.fail(now, why),
            (Event::Cancelled, _) => {
                self.persists = false;
                self.end(now, State::Cancelled, String::new())
            }
            (Event::Owner(owner), side) => self.follow_owner(now, owner, side),
            (Event::Tick, side) => self.tick(now, terms, side),
            (Event::Established, Side::Source) if self.state == State::Connecting => self.enter(now, State::Waiting),
            (Event::Established, Side::Target) if self.state == State::Asking => self.enter(now, State::Snapshot),
            (Event::SnapshotBegun, Side::Source) if self.state == State::Waiting => self.enter(now, State::Snapshot),
            (Event::SnapshotEnded, _) if self.state == State::Snapshot => self.enter(now, State::Tail),
            (Event::Lag { bytes, may_pause }, Side::Source)
                if self.state == State::Tail && may_pause && bytes <= terms.lag_bytes =>
            {
                self.pause_began = Some(now);
                self.enter(now, State::Paused);
                vec![Action::Hold]
            }
            (Event::Ready, Side::Source) if self.state == State::Paused => {
                self.granted = Some(now);
                self.enter(now, State::Granted);
                vec![Action::Grant]
            }
            (Event::Ready, Side::Target) if self.state == State::Tail => {
                self.pause_began = Some(now);
                self.enter(now, State::Paused);
                vec![Action::TellReady]
            }
            (Event::Granted, Side::Target) if self.state == State::Paused => {
                if self.since(self.pause_began, now) > terms.pause_ms {
                    return self.fail(now, "The slots were granted too late".into());
                }
                self.enter(now, State::Granted);
                vec![Action::TakeOver]
            }
            // What comes out of turn changes nothing.
            _ => Vec::new(),
        }
    }

    fn since(&self, began: Option<u64>, now: u64) -> u64 {
        began.map_or(0, |began| now.saturating_sub(began))
    }

    fn enter(&mut self, now: u64, state: State) -> Vec<Action> {
        (self.state, self.updated_ms, self.heard_ms) = (state, now, now);
        Vec::new()
    }

    fn tick(&mut self, now: u64, terms: &Terms, side: Side) -> Vec<Action> {
        if self.state == State::Asking {
            if self.asked.is_some_and(|asked| now.saturating_sub(asked) < RETRY_MS) {
                return Vec::new();
            }
            self.asked = Some(now);
            return vec![Action::Ask];
        }
        let patience = terms.pause_ms + MARGIN_MS;
        let paused_for = match self.state {
            State::Paused => self.since(self.pause_began, now),
            State::Granted => self.since(self.granted.or(self.pause_began), now),
            _ => 0,
        };
        if side == Side::Source && paused_for > patience {
            let usual = || (State::Failed, "Unpaused before migration completed".into());
            let (state, why) = self.ending.take().unwrap_or_else(usual);
            return self.end(now, state, why);
        }
        if side == Side::Target && self.state == State::Paused && paused_for > terms.pause_ms {
            return self.fail(now, "The slots were not granted in time".into());
        }
        if self.since(Some(self.heard_ms), now) > terms.silence_ms {
            let other = if side == Side::Source { "target" } else { "source" };
            return self.fail(now, format!("Timed out after too long with no interaction with the {other}"));
        }
        Vec::new()
    }

    fn follow_owner(&mut self, now: u64, owner: Owner, side: Side) -> Vec<Action> {
        match (owner, side) {
            (Owner::Source, _) => Vec::new(),
            (Owner::Target, _) if self.state == State::Granted => {
                self.persists = false;
                self.end(now, State::Success, String::new())
            }
            (_, Side::Source) => self.fail(now, "Slots are no longer owned by myself".into()),
            (_, Side::Target) => {
                // Whoever has them now was not to be asked.
                self.persists = false;
                self.fail(now, "Slots are no longer owned by source node".into())
            }
        }
    }

    fn end_later(&mut self, state: State, why: String) -> Vec<Action> {
        self.ending.get_or_insert((state, why));
        Vec::new()
    }

    fn fail(&mut self, now: u64, why: String) -> Vec<Action> {
        if !self.persists {
            return self.end(now, State::Failed, why);
        }
        let had_begun = self.state != State::Asking;
        self.retries += 1;
        (self.state, self.message, self.updated_ms) = (State::Asking, why, now);
        (self.pause_began, self.asked, self.started_ms, self.heard_ms) = (None, Some(now), now, now);
        if had_begun { vec![Action::RollBack, Action::Close] } else { Vec::new() }
    }

    fn end(&mut self, now: u64, state: State, message: String) -> Vec<Action> {
        let before = std::mem::replace(&mut self.state, state);
        (self.message, self.updated_ms) = (message, now);
        let mut actions = Vec::new();
        if self.side == Side::Source && matches!(before, State::Paused | State::Granted) {
            self.paused_ms = self.since(self.pause_began, now);
            actions.push(Action::Release);
        }
        if self.side == Side::Target && state != State::Success && before != State::Asking {
            actions.push(Action::RollBack);
        }
        // The source ends the connection once it has heard who serves the slots.
        if self.side == Side::Source || state != State::Success {
            actions.push(Action::Close);
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::random::Random;
    use std::collections::VecDeque;

    const TERMS: Terms = Terms { lag_bytes: 100, pause_ms: 2000, silence_ms: 60_000 };

    fn name(letter: u8) -> Name {
        Name([letter; 40])
    }

    fn pair(now: u64) -> (Migration, Migration) {
        let slots: SlotSet = [5, 6, 9].into_iter().collect();
        let make = |side| Migration::new(name(b'a'), side, slots.clone(), name(b'b'), name(b'c'), now);
        (make(Side::Source), make(Side::Target))
    }

    #[test]
    fn all_goes_well() {
        let (mut source, mut target) = pair(0);
        let mut from = |event| source.happen(10, &TERMS, event);
        assert_eq!(from(Event::Established), []);
        assert_eq!(from(Event::SnapshotBegun), []);
        assert_eq!(from(Event::SnapshotEnded), []);
        assert_eq!(from(Event::Lag { bytes: 101, may_pause: true }), []);
        assert_eq!(from(Event::Lag { bytes: 0, may_pause: false }), []);
        assert_eq!(from(Event::Lag { bytes: 100, may_pause: true }), [Action::Hold]);
        let mut to = |event| target.happen(20, &TERMS, event);
        assert_eq!(to(Event::SnapshotEnded), []);
        assert_eq!(to(Event::Ready), [Action::TellReady]);
        assert_eq!(source.happen(30, &TERMS, Event::Ready), [Action::Grant]);
        assert_eq!(target.happen(40, &TERMS, Event::Granted), [Action::TakeOver]);
        assert_eq!(target.happen(41, &TERMS, Event::Owner(Owner::Target)), []);
        assert_eq!(source.happen(50, &TERMS, Event::Owner(Owner::Source)), []);
        assert_eq!(source.happen(60, &TERMS, Event::Owner(Owner::Target)), [Action::Release, Action::Close]);
        assert_eq!((source.state, target.state), (State::Success, State::Success));
        assert_eq!(source.paused_ms, 50);
        assert_eq!(source.happen(70, &TERMS, Event::Cancelled), []);
    }

    #[test]
    fn a_target_that_asked_goes_on_asking_until_it_is_cancelled() {
        let slots: SlotSet = [1].into_iter().collect();
        let mut target = Migration::asked_for(name(b'a'), slots, name(b'b'), name(b'c'), 5);
        assert_eq!(target.happen(5, &TERMS, Event::Tick), [Action::Ask]);
        assert_eq!(target.happen(6, &TERMS, Event::Tick), []);
        assert_eq!(target.happen(7, &TERMS, Event::Broken("no".into())), []);
        assert_eq!(target.happen(900, &TERMS, Event::Tick), []);
        assert_eq!(target.happen(1007, &TERMS, Event::Tick), [Action::Ask]);
        assert_eq!(target.happen(1010, &TERMS, Event::Established), []);
        assert_eq!(target.happen(1020, &TERMS, Event::Broken("gone".into())), [Action::RollBack, Action::Close]);
        assert_eq!((target.state, target.retries, &*target.message), (State::Asking, 2, "gone"));
        assert_eq!(target.happen(1021, &TERMS, Event::Cancelled), [Action::Close]);
        assert_eq!(target.state, State::Cancelled);
    }

    #[test]
    fn slots_that_went_elsewhere_end_it_on_both_sides() {
        for owner in [Owner::Other, Owner::Target] {
            let (mut source, mut target) = pair(0);
            assert_eq!(source.happen(1, &TERMS, Event::Owner(owner)), [Action::Close]);
            assert_eq!(source.message, "Slots are no longer owned by myself");
            assert_eq!(target.happen(1, &TERMS, Event::Owner(owner)), [Action::RollBack, Action::Close]);
            assert_eq!((source.state, target.state), (State::Failed, State::Failed));
        }
    }

    /// Whatever gets lost or late, at most one side lets clients write, and what was granted too late is not taken.
    #[test]
    fn never_do_both_sides_let_clients_write() {
        let seeds = std::env::var("SPINEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
        let (mut moved, mut stayed) = (0, 0);
        for seed in 0..seeds {
            let mut random = Random::seeded(seed);
            let (mut source, mut target) = pair(0);
            let (mut to_target, mut to_source) = (VecDeque::new(), VecDeque::new());
            // Whether the target owns the slots, and whether the source has heard so.
            let (mut taken, mut held) = (false, false);
            let mut known_from = None;
            source.happen(0, &TERMS, Event::Established);
            source.happen(0, &TERMS, Event::SnapshotBegun);
            to_target.push_back((random.below(500) as u64, Event::SnapshotEnded));
            let slow = [20, 400, 2500][random.below(3)];
            let mut now = 0;
            while now < 40_000 && !(source.state.is_over() && target.state.is_over()) {
                now += 1 + random.below(40) as u64;
                let late = |random: &mut Random, now: u64| now + random.below(slow) as u64;
                let mut events = vec![(Side::Source, Event::Tick), (Side::Target, Event::Tick)];
                if random.below(200) == 0 {
                    let lost = if random.below(2) == 0 { Side::Source } else { Side::Target };
                    events.push((lost, Event::Broken("cut".into())));
                }
                while to_target.front().is_some_and(|(at, _)| *at <= now) {
                    events.extend(to_target.pop_front().map(|(_, event)| (Side::Target, event)));
                }
                while to_source.front().is_some_and(|(at, _)| *at <= now) {
                    events.extend(to_source.pop_front().map(|(_, event)| (Side::Source, event)));
                }
                if source.state == State::Snapshot && target.state == State::Tail {
                    events.push((Side::Source, Event::SnapshotEnded));
                }
                events.push((Side::Source, Event::Lag { bytes: random.below(200) as u64, may_pause: true }));
                if let Some(at) = known_from
                    && now >= at
                {
                    events.push((Side::Source, Event::Owner(Owner::Target)));
                }
                for (side, event) in events {
                    let one = if side == Side::Source { &mut source } else { &mut target };
                    for action in one.happen(now, &TERMS, event) {
                        match action {
                            Action::Hold => {
                                held = true;
                                to_target.push_back((late(&mut random, now), Event::Ready));
                            }
                            Action::Release => held = false,
                            Action::Grant => to_target.push_back((late(&mut random, now), Event::Granted)),
                            Action::TellReady => to_source.push_back((late(&mut random, now), Event::Ready)),
                            Action::TakeOver => {
                                assert!(held, "seed {seed}: taken over at {now} while the source lets clients write");
                                taken = true;
                                // The bus tells it within the margin.
                                known_from = Some(now + random.below(MARGIN_MS as usize) as u64);
                            }
                            Action::RollBack => assert!(!taken, "seed {seed}: what was taken over is rolled back"),
                            Action::Ask | Action::Close => {}
                        }
                    }
                    if taken && target.state == State::Granted {
                        target.happen(now, &TERMS, Event::Owner(Owner::Target));
                    }
                }
                let source_writes = !held && known_from.is_none_or(|at| now < at);
                assert!(!(taken && source_writes), "seed {seed}: both let clients write at {now}");
            }
            if taken { moved += 1 } else { stayed += 1 }
        }
        assert!(moved > 0 && stayed > 0, "{moved} moved, {stayed} stayed");
    }
}
