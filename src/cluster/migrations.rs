//! The slot migrations of one node: those that go on and those that ended lately.
//!
//! What must stay true: a slot is part of one migration at most that goes on; what is to be done for one is carried
//! out by the thread or connection that brought the event, with nothing of this locked.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::cluster::migration::{Action, Event, Migration, Side, Terms};
use crate::cluster::node::Name;

/// All migrations of a node, in the order in which they began.
#[derive(Debug, Default)]
pub struct Migrations {
    all: Mutex<Vec<Migration>>,
    active: AtomicUsize,
}

impl Migrations {
    /// Whether any goes on.
    #[inline]
    pub fn any(&self) -> bool {
        self.active.load(Ordering::Acquire) != 0
    }

    /// How many go on.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Adds new ones, all of them or none.
    ///
    /// # Errors
    /// The first slot that is on its way already, and which way that is.
    pub fn add(&self, new: Vec<Migration>) -> Result<(), (usize, Side)> {
        let mut all = self.all.lock();
        for one in &new {
            for other in all.iter().filter(|other| !other.state.is_over()) {
                if let Some(slot) = one.slots.iter().find(|slot| other.slots.has(*slot)) {
                    return Err((slot, other.side));
                }
            }
        }
        all.extend(new);
        self.count(&all);
        Ok(())
    }

    fn count(&self, all: &[Migration]) {
        self.active.store(all.iter().filter(|one| !one.state.is_over()).count(), Ordering::Release);
    }

    /// Looks at one.
    pub fn look<R>(&self, name: &Name, f: impl FnOnce(&Migration) -> R) -> Option<R> {
        self.all.lock().iter().rev().find(|one| one.name == *name).map(f)
    }

    /// Has one go on by an event; returns what is to be done.
    pub fn happen(&self, name: &Name, now: u64, terms: &Terms, event: Event) -> Vec<Action> {
        let mut all = self.all.lock();
        let Some(one) = all.iter_mut().rev().find(|one| one.name == *name) else { return Vec::new() };
        let actions = one.happen(now, terms, event);
        self.count(&all);
        actions
    }

    /// Those that go on, on this side or on either.
    pub fn going_on(&self, side: Option<Side>) -> Vec<Name> {
        let all = self.all.lock();
        all.iter()
            .filter(|one| !one.state.is_over() && side.is_none_or(|side| one.side == side))
            .map(|one| one.name)
            .collect()
    }

    /// Calls `f` for each, the newest first.
    pub fn for_each(&self, f: impl FnMut(&Migration)) {
        self.all.lock().iter().rev().for_each(f);
    }

    /// Whether a slot is on its way here.
    pub fn is_coming(&self, slot: usize) -> bool {
        self.any()
            && self.all.lock().iter().any(|one| one.side == Side::Target && one.has_keys() && one.slots.has(slot))
    }

    /// Forgets the oldest that have ended but `most`.
    pub fn forget_but(&self, most: usize) {
        let mut all = self.all.lock();
        let over = all.iter().filter(|one| one.state.is_over()).count();
        let mut surplus = over.saturating_sub(most);
        all.retain(|one| {
            let goes = surplus > 0 && one.state.is_over();
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::slots::SlotSet;

    const TERMS: Terms = Terms { lag_bytes: 0, pause_ms: 1000, silence_ms: 1000 };

    fn one(letter: u8, slots: &[usize]) -> Migration {
        let slots: SlotSet = slots.iter().copied().collect();
        Migration::new(Name([letter; 40]), Side::Source, slots, Name([b'x'; 40]), Name([b'y'; 40]), 0)
    }

    #[test]
    fn a_slot_is_on_one_way_at_a_time_and_what_ended_is_forgotten_in_time() {
        let all = Migrations::default();
        assert_eq!(all.add(vec![one(b'a', &[1, 2]), one(b'b', &[3])]), Ok(()));
        assert_eq!(all.add(vec![one(b'c', &[7]), one(b'd', &[2])]), Err((2, Side::Source)));
        assert_eq!(all.active(), 2);
        assert_eq!(all.happen(&Name([b'a'; 40]), 1, &TERMS, Event::Cancelled), [Action::Close]);
        assert_eq!(all.add(vec![one(b'd', &[2])]), Ok(()));
        assert_eq!(all.happen(&Name([b'b'; 40]), 1, &TERMS, Event::Broken("x".into())), [Action::Close]);
        all.forget_but(1);
        let mut names = Vec::new();
        all.for_each(|one| names.push(one.name.0[0]));
        assert_eq!(names, [b'd', b'b']);
        assert_eq!(all.going_on(Some(Side::Target)), []);
        assert_eq!(all.going_on(None), [Name([b'd'; 40])]);
    }
}
