//! What a client does between MULTI and EXEC: commands that are queued, keys that are watched.
//!
//! What must stay true: a queued command was checked as one that runs at once is; the shards of its keys are
//! among those that EXEC holds.

use std::sync::Arc;

use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::listen::Watch;
use crate::resp::request::Span;

/// Commands that are queued since MULTI.
#[derive(Debug)]
pub struct Transaction {
    /// The words of all commands, one behind the other.
    buf: Vec<u8>,
    spans: Vec<Span>,
    /// Where the words of each command end among `spans`.
    ends: Vec<usize>,
    /// A command was refused: EXEC will be too.
    pub aborted: bool,
    /// The bytes of all requests since MULTI, that one included, as they were sent; counted where slots are.
    pub sent_bytes: u64,
    /// The shards of all their keys.
    pub shards: ShardSet,
    /// One of them cannot share the keyspace: it walks over all of it, or takes locks of its own.
    pub alone: bool,
    /// One of them may write.
    pub writes: bool,
    /// One of them changes data.
    pub changes: bool,
    /// One of them reads data.
    pub reads: bool,
    /// Each may be answered by a replica that is cut off.
    pub stale: bool,
    /// One of them may need more memory.
    pub grows: bool,
}

impl Default for Transaction {
    fn default() -> Transaction {
        Transaction {
            buf: Vec::new(),
            spans: Vec::new(),
            ends: Vec::new(),
            aborted: false,
            sent_bytes: 0,
            shards: ShardSet::default(),
            alone: false,
            writes: false,
            changes: false,
            reads: false,
            stale: true,
            grows: false,
        }
    }
}

impl Transaction {
    /// Queues a command, its name first.
    pub fn push<'w>(&mut self, words: impl Iterator<Item = &'w [u8]>) {
        for word in words {
            self.spans.push(Span { start: self.buf.len(), len: word.len() });
            self.buf.extend_from_slice(word);
        }
        self.ends.push(self.spans.len());
    }

    /// How many commands are queued.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes that they take.
    pub fn bytes(&self) -> usize {
        self.buf.capacity() + self.spans.capacity() * size_of::<Span>() + self.ends.capacity() * size_of::<usize>()
    }

    /// The words of all commands, and where those of each are in them.
    pub fn requests(&self) -> impl Iterator<Item = (&[u8], &[Span])> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| (&self.buf[..], &self.spans[begin..*end]))
    }
}

/// A key under WATCH.
#[derive(Debug)]
pub struct Watched {
    /// Its database.
    pub db: usize,
    /// The key.
    pub key: Vec<u8>,
    /// Where it lives.
    pub hash: KeyHash,
}

/// What it takes to listen to one key, its name not counted.
const LISTENER_BYTES: usize = 96;

/// All keys that a client watches.
#[derive(Debug, Default)]
pub struct Watching {
    /// What hears of their changes.
    pub watch: Arc<Watch>,
    /// Each key once.
    pub keys: Vec<Watched>,
}

impl Watching {
    /// The shards of the keys.
    pub fn shards(&self) -> ShardSet {
        let mut shards = ShardSet::default();
        self.keys.iter().for_each(|watched| shards.add(watched.hash.shard()));
        shards
    }

    /// The bytes that it takes to watch them, in the shards too.
    pub fn bytes(&self) -> usize {
        // Each stands in its shard's table by a name of its own, with a reference to `watch`.
        let names: usize = self.keys.iter().map(|watched| 2 * watched.key.len()).sum();
        names + self.keys.capacity() * size_of::<Watched>() + self.keys.len() * LISTENER_BYTES
    }

    /// Whether this key is among them.
    pub fn has(&self, db: usize, key: &[u8]) -> bool {
        self.keys.iter().any(|watched| watched.db == db && watched.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_commands_come_back_word_by_word() {
        let mut transaction = Transaction::default();
        let commands: [&[&[u8]]; 3] = [&[b"SET", b"a", b""], &[b"PING"], &[b"MGET", b"a", b"b", b"c"]];
        commands.iter().for_each(|words| transaction.push(words.iter().copied()));
        assert_eq!(transaction.len(), 3);
        let back: Vec<Vec<&[u8]>> =
            transaction.requests().map(|(buf, spans)| spans.iter().map(|span| span.of(buf)).collect()).collect();
        assert_eq!(back, commands);
    }
}
