//! The write log: every change as a command that can be run again with the same result, in one order.
//!
//! What must stay true: a change is appended while the shards it touched are still held, so the log's
//! order is the order in which each key changed. Readers get the same bytes; an offset counts them.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::keyspace::change::Effect;
use crate::resp::reply::{Output, Protocol};

/// A reader of the log: called with the bytes of one command, or of those that took effect together, with a SELECT
/// before each that is for another database, in the log's order, under the log's lock. It must be quick and must not touch keys.
pub type Reader = Box<dyn FnMut(&[u8]) + Send>;

/// The log of one server.
#[derive(Default)]
pub struct WriteLog {
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: Vec<(u64, Reader)>,
    /// The number of the next reader.
    next: u64,
    /// The database that the last command was for.
    db: Option<usize>,
    offset: u64,
}

impl WriteLog {
    /// Adds a reader; it begins with the next command, which a SELECT precedes.
    pub fn read_with(&self, reader: Reader) {
        self.join(|_| reader);
    }

    /// The same with the reader that `make` makes of the offset that the log has reached; returns a number by which it
    /// can [`WriteLog::leave`].
    pub fn join(&self, make: impl FnOnce(u64) -> Reader) -> u64 {
        let mut state = self.state.lock();
        let (number, reader) = (state.next, make(state.offset));
        state.next += 1;
        state.readers.push((number, reader));
        state.db = None;
        self.active.store(true, Ordering::Release);
        number
    }

    /// Removes a reader: it is not called again once this returns.
    pub fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        state.readers.retain(|(known, _)| *known != number);
        self.active.store(!state.readers.is_empty(), Ordering::Release);
    }

    /// Runs `f` between two commands; a SELECT precedes the next one, so that what follows can be read by itself.
    pub fn cut<R>(&self, f: impl FnOnce() -> R) -> R {
        let mut state = self.state.lock();
        state.db = None;
        f()
    }

    /// Whether anybody reads.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// How many bytes were appended since the start.
    pub fn offset(&self) -> u64 {
        self.state.lock().offset
    }

    /// Appends commands that took effect together, each on its database; returns the offset behind them.
    pub fn append(&self, effects: &[(usize, Effect)]) -> u64 {
        if effects.is_empty() {
            return self.offset();
        }
        let mut state = self.state.lock();
        let mut bytes = Output::new(Protocol::Resp2);
        let grouped = effects.len() > 1;
        if grouped {
            encode(&mut bytes, &[b"MULTI".to_vec()]);
        }
        for (db, effect) in effects {
            if state.db != Some(*db) {
                state.db = Some(*db);
                encode(&mut bytes, &[b"SELECT".to_vec(), db.to_string().into_bytes()]);
            }
            encode(&mut bytes, effect);
        }
        if grouped {
            encode(&mut bytes, &[b"EXEC".to_vec()]);
        }
        let bytes = bytes.to_vec();
        state.offset += bytes.len() as u64;
        state.readers.iter_mut().for_each(|(_, reader)| reader(&bytes));
        state.offset
    }
}

fn encode(out: &mut Output, command: &[Vec<u8>]) {
    out.array(command.len());
    command.iter().for_each(|word| out.bulk(word));
}

impl std::fmt::Debug for WriteLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriteLog({} bytes)", self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_database_is_selected_once_and_commands_of_one_request_stay_together() {
        let log = WriteLog::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        log.read_with(Box::new(move |bytes| theirs.lock().extend_from_slice(bytes)));
        let del = |key: &str| vec![b"DEL".to_vec(), key.as_bytes().to_vec()];
        log.append(&[(3, del("a"))]);
        log.append(&[(3, del("b")), (3, del("c")), (0, del("d"))]);
        let text = String::from_utf8(seen.lock().clone()).unwrap();
        let words: Vec<&str> = text.split("\r\n").filter(|l| !l.starts_with(['*', '$']) && !l.is_empty()).collect();
        assert_eq!(
            words,
            ["SELECT", "3", "DEL", "a", "MULTI", "DEL", "b", "DEL", "c", "SELECT", "0", "DEL", "d", "EXEC"]
        );
        assert_eq!(log.offset(), text.len() as u64);
    }

    #[test]
    fn a_reader_comes_and_goes_and_a_cut_selects_the_database_again() {
        let log = WriteLog::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        let ping = || vec![b"X".to_vec()];
        assert!(!log.is_active());
        let number = log.join(|offset| {
            assert_eq!(offset, 0);
            Box::new(move |bytes| theirs.lock().extend_from_slice(bytes))
        });
        log.append(&[(0, ping())]);
        log.cut(|| ());
        let end = log.append(&[(0, ping())]);
        assert_eq!(end, log.offset());
        log.leave(number);
        assert!(!log.is_active());
        log.append(&[(0, ping())]);
        let text = String::from_utf8(seen.lock().clone()).unwrap();
        assert_eq!(text.matches("SELECT").count(), 2);
        assert_eq!(text.len() as u64, end);
    }
}
