//! Histories: which stream of changes a data set is a result of, and how much of it.
//!
//! A replication id names a stream; an offset counts its bytes. Two servers with the same id and offset have the same
//! data. A replica that becomes a primary begins a stream of its own, and remembers the one that it followed: up to the
//! offset where they part both are the same, so those who followed the old primary can go on with the new one.

use crate::stdx::random;

/// The length of a replication id.
pub const ID_LENGTH: usize = 40;

/// What stands for no id.
pub const NO_ID: &str = "0000000000000000000000000000000000000000";

/// 40 random hexadecimal digits.
pub fn random_id() -> String {
    String::from_utf8_lossy(&random::run_id()).into_owned()
}

/// Whether `text` has the form of an id.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The streams that a data set is a result of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The present one.
    pub id: String,
    /// The one before it, or [`NO_ID`].
    pub second: String,
    /// How many bytes both have in common; `None` where there is none before.
    pub common: Option<u64>,
}

impl Default for History {
    fn default() -> History {
        History::begin()
    }
}

impl History {
    /// A stream that begins now.
    pub fn begin() -> History {
        History { id: random_id(), second: NO_ID.into(), common: None }
    }

    /// The stream of this name, of which nothing else is known.
    pub fn of(id: &str) -> History {
        History { id: id.into(), second: NO_ID.into(), common: None }
    }

    /// Begins a stream of its own where the one that it followed has `offset` bytes.
    pub fn part(&mut self, offset: u64) {
        self.second = std::mem::replace(&mut self.id, random_id());
        self.common = Some(offset);
    }

    /// Goes on with a stream of another name, which has the first `offset` bytes in common with the present one: the
    /// primary has begun one.
    pub fn rename(&mut self, id: &str, offset: u64) {
        if self.id != id {
            self.second = std::mem::replace(&mut self.id, id.into());
            self.common = Some(offset);
        }
    }

    /// Forgets the stream before the present one.
    pub fn forget_second(&mut self) {
        self.second = NO_ID.into();
        self.common = None;
    }

    /// Whether who has `offset` bytes of the stream `id` has nothing that this data set is not a result of, as far as
    /// streams go; whether so many bytes exist is another question.
    pub fn shares(&self, id: &str, offset: u64) -> bool {
        id.eq_ignore_ascii_case(&self.id)
            || self.common.is_some_and(|common| id.eq_ignore_ascii_case(&self.second) && offset <= common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_followed_the_old_primary_goes_on_with_the_new_one_up_to_where_they_part() {
        let mut history = History::begin();
        let old = history.id.clone();
        assert!(is_id(&old) && history.shares(&old, 7) && !history.shares(NO_ID, 7));
        history.part(100);
        assert_ne!(history.id, old);
        assert!(history.shares(&old, 100) && !history.shares(&old, 101));
        assert!(history.shares(&history.id.clone(), 101));
        assert!(history.shares(&old.to_uppercase(), 1));
        history.forget_second();
        assert!(!history.shares(&old, 1));
    }

    #[test]
    fn a_replica_takes_over_the_name_that_its_primary_took() {
        let mut history = History::of(&"a".repeat(40));
        history.rename(&"b".repeat(40), 9);
        history.rename(&"b".repeat(40), 12);
        assert_eq!((history.second.as_str(), history.common), ("a".repeat(40).as_str(), Some(9)));
        assert!(!history.shares("?", 0));
    }
}
