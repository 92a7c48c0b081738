//! What was refused of late, newest first.
//!
//! What happens again within a minute is counted with what is there, so that one client that tries over and
//! over does not drive out all others.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The command is not permitted.
    Command,
    /// A key is not.
    Key,
    /// A channel is not.
    Channel,
    /// A login failed.
    Auth,
}

impl Reason {
    /// Its name in ACL LOG.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
        }
    }
}

/// Where something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A client sent it.
    Toplevel,
    /// It was to be queued by MULTI, or run by EXEC.
    Multi,
    /// A script called it.
    Lua,
    /// A module called it.
    Module,
}

impl Place {
    /// Its name in ACL LOG.
    pub fn name(self) -> &'static str {
        match self {
            Place::Toplevel => "toplevel",
            Place::Multi => "multi",
            Place::Lua => "lua",
            Place::Module => "module",
        }
    }
}

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Where.
    pub place: Place,
    /// The command, key or channel; the command that logs in.
    pub object: Vec<u8>,
    /// Who was refused.
    pub user: Vec<u8>,
    /// Its client, as CLIENT LIST describes it.
    pub client: Vec<u8>,
}

/// A refusal and its repetitions.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was refused, the client being the last one.
    pub refusal: Refusal,
    /// How often.
    pub count: u64,
    /// Unique while the server runs, growing.
    pub id: u64,
    /// Unix milliseconds of the first time.
    pub created_ms: u64,
    /// Unix milliseconds of the last time.
    pub updated_ms: u64,
}

/// Repetitions are counted with an entry that is not older.
const REPEATS_WITHIN_MS: u64 = 60_000;
/// And that is among so many of the newest.
const LOOKED_THROUGH: usize = 10;

/// The newest refusals.
#[derive(Debug, Default)]
pub struct AclLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl AclLog {
    /// Notes a refusal; at most `most` entries are kept.
    pub fn record(&self, refusal: Refusal, now_ms: u64, most: usize) {
        let mut state = self.state.lock();
        let same = |entry: &Entry| {
            let (a, b) = (&entry.refusal, &refusal);
            a.reason == b.reason
                && a.place == b.place
                && entry.updated_ms.abs_diff(now_ms) <= REPEATS_WITHIN_MS
                && a.object == b.object
                && a.user == b.user
        };
        let known = state.entries.iter().take(LOOKED_THROUGH).position(same);
        if let Some(mut entry) = known.and_then(|at| state.entries.remove(at)) {
            entry.refusal.client = refusal.client;
            entry.updated_ms = now_ms;
            entry.count += 1;
            state.entries.push_front(entry);
            return;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.entries.push_front(Entry { refusal, count: 1, id, created_ms: now_ms, updated_ms: now_ms });
        state.entries.truncate(most);
    }

    /// The newest entries, at most `count`, newest first.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.state.lock().entries.iter().take(count).cloned().collect()
    }

    /// Forgets all entries; numbers go on.
    pub fn reset(&self) {
        self.state.lock().entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str) -> Refusal {
        Refusal {
            reason: Reason::Key,
            place: Place::Toplevel,
            object: object.into(),
            user: b"bob".to_vec(),
            client: b"c".to_vec(),
        }
    }

    #[test]
    fn repetitions_within_a_minute_are_one_entry() {
        let log = AclLog::default();
        log.record(refusal("a"), 1000, 10);
        log.record(refusal("b"), 2000, 10);
        log.record(Refusal { client: b"d".to_vec(), ..refusal("a") }, 61_000, 10);
        let entries = log.newest(10);
        let told: Vec<_> =
            entries.iter().map(|e| (e.refusal.object.clone(), e.count, e.id, e.created_ms, e.updated_ms)).collect();
        assert_eq!(told, [(b"a".to_vec(), 2, 0, 1000, 61_000), (b"b".to_vec(), 1, 1, 2000, 2000)]);
        assert_eq!(entries[0].refusal.client, b"d");
        log.record(refusal("a"), 121_001, 10);
        assert_eq!(log.newest(10).len(), 3);
        log.record(Refusal { place: Place::Lua, ..refusal("a") }, 121_001, 10);
        log.record(Refusal { reason: Reason::Auth, ..refusal("a") }, 121_001, 10);
        log.record(Refusal { user: b"eve".to_vec(), ..refusal("a") }, 121_001, 10);
        assert_eq!(log.newest(10).len(), 6);
    }

    #[test]
    fn the_oldest_go_first_and_numbers_go_on() {
        let log = AclLog::default();
        (0..5).for_each(|i| log.record(refusal(&i.to_string()), i, 3));
        assert_eq!(log.newest(2).iter().map(|e| e.id).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(log.newest(9).len(), 3);
        log.reset();
        assert!(log.newest(9).is_empty());
        log.record(refusal("x"), 9, 0);
        assert!(log.newest(9).is_empty());
        log.record(refusal("x"), 9, 1);
        assert_eq!(log.newest(9)[0].id, 6);
    }
}
