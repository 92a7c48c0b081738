//! The write log: every change as a command that can be run again with the same result, in one order.
//!
//! What must stay true: a change is appended while the shards it touched are still held, so the log's
//! order is the order in which each key changed. Readers get the same bytes; an offset counts them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::keyspace::change::{Effect, Only, Words};

/// A reader of the log: called with the bytes of one command, or of those that took effect together, with a SELECT
/// before each that is for another database, in the log's order, under the log's lock. It must be quick and must not touch keys.
pub type Reader = Box<dyn FnMut(&[u8]) + Send>;

/// What a reader is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Changes of data.
    Changes,
    /// Also messages, which change no data.
    Messages,
}

/// The log of one server.
#[derive(Default)]
pub struct WriteLog {
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: Vec<(u64, Wants, Reader)>,
    /// The number of the next reader.
    next: u64,
    /// The database that the last command was for, as every reader knows it.
    db: Option<usize>,
    offset: u64,
    /// The bytes of the commands at hand: the memory serves the next ones.
    bytes: Vec<u8>,
}

/// So much memory is kept for the next commands.
const KEPT_BYTES: usize = 64 * 1024;

impl WriteLog {
    /// Adds a reader of changes; it begins with the next command, which a SELECT precedes.
    pub fn read_with(&self, reader: Reader) {
        self.join(Wants::Changes, |_| reader);
    }

    /// The same with the reader that `make` makes of the offset that the log has reached; returns a number by which it
    /// can [`WriteLog::leave`].
    pub fn join(&self, wants: Wants, make: impl FnOnce(u64) -> Reader) -> u64 {
        let mut state = self.state.lock();
        let (number, reader) = (state.next, make(state.offset));
        state.next += 1;
        state.readers.push((number, wants, reader));
        state.db = None;
        self.active.store(true, Ordering::Release);
        number
    }

    /// Removes a reader: it is not called again once this returns.
    pub fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        state.readers.retain(|(known, ..)| *known != number);
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

    /// How many bytes were appended since the start, messages not counted.
    pub fn offset(&self) -> u64 {
        self.state.lock().offset
    }

    /// The database that the last command was for; `None` where the next one is preceded by a SELECT in any case.
    pub fn selected(&self) -> Option<usize> {
        self.state.lock().db
    }

    /// Appends commands that took effect together, each on its database; returns the offset behind them.
    pub fn append(&self, effects: &[(usize, Effect)]) -> u64 {
        if let [(db, effect)] = effects {
            return self.append_one(*db, effect);
        }
        let mut state = self.state.lock();
        if effects.is_empty() {
            return state.offset;
        }
        encode(&mut state.bytes, &Word("MULTI"));
        for (db, effect) in effects {
            state.select(*db);
            encode(&mut state.bytes, effect);
        }
        encode(&mut state.bytes, &Word("EXEC"));
        state.end(Wants::Changes)
    }

    /// The same where some of the commands, by their place, are not for everybody.
    pub fn append_apart(&self, effects: &[(usize, Effect)], only: &[(Range<usize>, Only)]) -> u64 {
        let mut state = self.state.lock();
        for (who, reads) in [(Only::File, Wants::Changes), (Only::Replicas, Wants::Messages)] {
            let told = |at: usize| only.iter().all(|(places, only)| *only == who || !places.contains(&at));
            let effects = effects.iter().enumerate().filter(|(at, _)| told(*at)).map(|(_, effect)| effect);
            let count = effects.clone().count();
            if count == 0 {
                continue;
            }
            // Neither knows what the other was told, so both are told of the database each time.
            state.db = None;
            if count > 1 {
                encode(&mut state.bytes, &Word("MULTI"));
            }
            for (db, effect) in effects {
                state.select(*db);
                encode(&mut state.bytes, effect);
            }
            if count > 1 {
                encode(&mut state.bytes, &Word("EXEC"));
            }
            let State { readers, bytes, offset, .. } = &mut *state;
            if who == Only::File {
                *offset += bytes.len() as u64;
            }
            readers.iter_mut().filter(|(_, wants, _)| *wants == reads).for_each(|(_, _, reader)| reader(bytes));
            bytes.clear();
        }
        state.db = None;
        state.offset
    }

    /// Appends a command on database `db`; returns the offset behind it.
    pub fn append_one(&self, db: usize, command: &dyn Words) -> u64 {
        let mut state = self.state.lock();
        state.select(db);
        encode(&mut state.bytes, command);
        state.end(Wants::Changes)
    }

    /// Hands a command that changes no data to those who want messages.
    pub fn pass(&self, command: &dyn Words) {
        let mut state = self.state.lock();
        encode(&mut state.bytes, command);
        state.end(Wants::Messages);
    }

    /// The same with one that a client sent while it had `db` selected, which is told where somebody wants messages.
    pub fn pass_in(&self, db: usize, command: &dyn Words) {
        let mut state = self.state.lock();
        if state.readers.iter().any(|(_, wants, _)| *wants == Wants::Messages) {
            state.select(db);
            // All readers know one selected database.
            state.end(Wants::Changes);
        }
        encode(&mut state.bytes, command);
        state.end(Wants::Messages);
    }
}

impl State {
    fn select(&mut self, db: usize) {
        if self.db != Some(db) {
            self.db = Some(db);
            let mut digits = itoa::Buffer::new();
            encode(&mut self.bytes, &Select(digits.format(db)));
        }
    }

    /// Hands out what was encoded to those who want it; returns the offset behind it.
    fn end(&mut self, what: Wants) -> u64 {
        let State { readers, bytes, offset, .. } = self;
        if what == Wants::Changes {
            *offset += bytes.len() as u64;
        }
        for (_, wants, reader) in readers.iter_mut() {
            if what == Wants::Changes || *wants == Wants::Messages {
                reader(bytes);
            }
        }
        bytes.clear();
        if bytes.capacity() > KEPT_BYTES {
            *bytes = Vec::new();
        }
        *offset
    }
}

struct Word(&'static str);

impl Words for Word {
    fn count(&self) -> usize {
        1
    }

    fn word(&self, _: usize) -> &[u8] {
        self.0.as_bytes()
    }
}

struct Select<'d>(&'d str);

impl Words for Select<'_> {
    fn count(&self) -> usize {
        2
    }

    fn word(&self, i: usize) -> &[u8] {
        if i == 0 { b"SELECT" } else { self.0.as_bytes() }
    }
}

/// Appends a command as clients send it.
pub fn encode(out: &mut Vec<u8>, command: &dyn Words) {
    let header = |sign: u8, n: usize, out: &mut Vec<u8>| {
        if n < 10 {
            return out.extend_from_slice(&[sign, b'0' + n as u8, b'\r', b'\n']);
        }
        out.push(sign);
        out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(b'*', command.count(), out);
    for i in 0..command.count() {
        let word = command.word(i);
        header(b'$', word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
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
    fn messages_go_to_those_who_want_them_and_to_no_file() {
        let log = WriteLog::default();
        let file = Arc::new(Mutex::new(Vec::new()));
        let stream = Arc::new(Mutex::new(Vec::new()));
        for (wants, seen) in [(Wants::Changes, &file), (Wants::Messages, &stream)] {
            let theirs = seen.clone();
            log.join(wants, |_| Box::new(move |bytes| theirs.lock().extend_from_slice(bytes)));
        }
        log.append(&[(0, vec![b"X".to_vec()])]);
        let before = log.offset();
        log.pass(&vec![b"M".to_vec()]);
        log.append(&[(0, vec![b"Y".to_vec()])]);
        assert_eq!(log.offset() - before, 11);
        let seen = (file.lock().clone(), stream.lock().clone());
        assert_eq!(seen.1.len(), seen.0.len() + 11);
        assert!(seen.1.ends_with(b"*1\r\n$1\r\nM\r\n*1\r\n$1\r\nY\r\n"));
        // A client's message names its database where that is another one, to all.
        log.pass_in(0, &vec![b"M".to_vec()]);
        log.pass_in(7, &vec![b"N".to_vec()]);
        log.append(&[(7, vec![b"Z".to_vec()])]);
        let (file, stream) = (file.lock().clone(), stream.lock().clone());
        let (select, z) = ("*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n", "*1\r\n$1\r\nZ\r\n");
        assert_eq!(file[seen.0.len()..], *format!("{select}{z}").as_bytes());
        let expected = format!("*1\r\n$1\r\nM\r\n{select}*1\r\n$1\r\nN\r\n{z}");
        assert_eq!(stream[seen.1.len()..], *expected.as_bytes());
    }

    #[test]
    fn what_is_for_one_kind_of_reader_reaches_no_other() {
        let log = WriteLog::default();
        let seen: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
        for (wants, seen) in [Wants::Changes, Wants::Messages].into_iter().zip(&seen) {
            let theirs = seen.clone();
            log.join(wants, |_| Box::new(move |bytes| theirs.lock().extend_from_slice(bytes)));
        }
        let taken = |n: usize| {
            let bytes = std::mem::take(&mut *seen[n].lock());
            let text = String::from_utf8(bytes).unwrap();
            let words = text.split("\r\n").filter(|word| !word.starts_with(['*', '$']) && !word.is_empty());
            words.collect::<Vec<_>>().join(" ")
        };
        let commands: Vec<_> = ["a", "b", "c"].map(|name| (2, vec![name.as_bytes().to_vec()])).into();
        let before = log.offset();
        log.append_apart(&commands, &[(0..1, Only::File), (1..2, Only::Replicas)]);
        let length = seen[0].lock().len() as u64;
        assert_eq!(log.offset() - before, length);
        assert_eq!((taken(0), taken(1)), ("MULTI SELECT 2 a c EXEC".into(), "MULTI SELECT 2 b c EXEC".into()));
        log.append_apart(&commands[..1], &[(0..1, Only::Replicas)]);
        assert_eq!((taken(0), taken(1)), (String::new(), "SELECT 2 a".into()));
        log.append(&commands[..1]);
        assert_eq!((taken(0), taken(1)), ("SELECT 2 a".into(), "SELECT 2 a".into()));
    }

    #[test]
    fn a_reader_comes_and_goes_and_a_cut_selects_the_database_again() {
        let log = WriteLog::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        let ping = || vec![b"X".to_vec()];
        assert!(!log.is_active());
        let number = log.join(Wants::Changes, |offset| {
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
