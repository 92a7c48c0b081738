//! SLOWLOG: the commands that took longest, newest first, abridged to what a person wants to read.
//!
//! An entry never holds more than [`MOST_ARGS`] arguments of [`MOST_BYTES`] bytes each (and a
//! remark), whatever the command was. Ids grow as long as the process lives, also across a reset.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// An entry keeps this many arguments; the last of them says how many more there were.
pub const MOST_ARGS: usize = 32;
/// An argument is kept up to this length; a remark says how many bytes more it had.
pub const MOST_BYTES: usize = 128;

/// One command that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Unique in the life of the process, growing.
    pub id: u64,
    /// When it ended, unix seconds.
    pub time_s: u64,
    /// How long it ran, microseconds.
    pub duration_us: u64,
    /// The command and its arguments, abridged.
    pub args: Vec<Box<[u8]>>,
    /// The client's address as CLIENT LIST has it.
    pub addr: Box<str>,
    /// The client's name; empty if it has none.
    pub name: Box<[u8]>,
}

/// The log of a server.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Newest first.
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl SlowLog {
    /// An empty log.
    pub fn new() -> SlowLog {
        SlowLog::default()
    }

    /// Whether a command of this duration belongs in the log: `slower_than_us` is the value of
    /// `slowlog-log-slower-than`, 0 for all commands and negative for none.
    #[inline]
    pub fn wants(slower_than_us: i64, duration_us: u64) -> bool {
        u64::try_from(slower_than_us).is_ok_and(|limit| duration_us >= limit)
    }

    /// Adds a command, abridged, and forgets the oldest beyond `most` entries (`slowlog-max-len`).
    pub fn record<A: AsRef<[u8]>>(
        &self,
        time_s: u64,
        duration_us: u64,
        args: &[A],
        addr: &str,
        name: &[u8],
        most: usize,
    ) {
        // What is not kept takes no id, as in servers after 7.2.
        if most == 0 {
            return;
        }
        let args = abridged(args);
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.entries.push_front(Entry { id, time_s, duration_us, args, addr: addr.into(), name: name.into() });
        state.entries.truncate(most);
    }

    /// The newest `count` entries (`None`: all), newest first.
    pub fn newest(&self, count: Option<usize>) -> Vec<Entry> {
        self.0.lock().entries.iter().take(count.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the oldest entries beyond `most`, when `slowlog-max-len` was lowered.
    pub fn truncate(&self, most: usize) {
        self.0.lock().entries.truncate(most);
    }

    /// Forgets all entries; ids go on.
    pub fn reset(&self) {
        self.0.lock().entries.clear();
    }
}

/// The arguments as an entry keeps them.
fn abridged<A: AsRef<[u8]>>(args: &[A]) -> Vec<Box<[u8]>> {
    let whole = if args.len() > MOST_ARGS { MOST_ARGS - 1 } else { args.len() };
    let mut kept: Vec<Box<[u8]>> = args[..whole].iter().map(|arg| shortened(arg.as_ref())).collect();
    if args.len() > whole {
        kept.push(format!("... ({} more arguments)", args.len() - whole).into_bytes().into());
    }
    kept
}

fn shortened(arg: &[u8]) -> Box<[u8]> {
    if arg.len() <= MOST_BYTES {
        return arg.into();
    }
    let mut kept = arg[..MOST_BYTES].to_vec();
    kept.extend_from_slice(format!("... ({} more bytes)", arg.len() - MOST_BYTES).as_bytes());
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log: &SlowLog, word: &str, most: usize) {
        log.record(1, 20, &["GET", word], "127.0.0.1:1", b"", most);
    }

    #[test]
    fn the_oldest_go_first_and_ids_go_on_after_a_reset() {
        let log = SlowLog::new();
        ["a", "b", "c"].iter().for_each(|word| record(&log, word, 2));
        let ids = |log: &SlowLog| log.newest(None).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(&log), [2, 1]);
        assert_eq!(log.newest(Some(1))[0].args[1].as_ref(), b"c");
        log.reset();
        assert!(log.is_empty());
        record(&log, "d", 10);
        assert_eq!(ids(&log), [3]);
        record(&log, "e", 0);
        assert_eq!(ids(&log), [3], "slowlog-max-len 0 records nothing more");
    }

    #[test]
    fn thirty_two_arguments_are_kept_whole_and_of_more_the_last_is_a_remark() {
        let args = |n: usize| vec!["x"; n];
        assert_eq!(abridged(&args(32)).len(), 32);
        assert_eq!(abridged(&args(32))[31].as_ref(), b"x");
        let kept = abridged(&args(40));
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[30].as_ref(), b"x");
        assert_eq!(kept[31].as_ref(), b"... (9 more arguments)");
    }

    #[test]
    fn an_argument_longer_than_128_bytes_is_cut_with_a_remark() {
        assert_eq!(shortened(&[b'y'; 128]).len(), 128);
        let kept = shortened(&[b'y'; 131]);
        assert_eq!(&kept[..128], [b'y'; 128]);
        assert_eq!(&kept[128..], b"... (3 more bytes)");
    }

    #[test]
    fn a_negative_limit_wants_nothing_and_zero_wants_all() {
        assert!(!SlowLog::wants(-1, u64::MAX));
        assert!(SlowLog::wants(0, 0));
        assert!(SlowLog::wants(10, 10) && !SlowLog::wants(10, 9));
    }
}
