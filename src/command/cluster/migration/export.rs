//! The side of a migration that has the slots: their data as it was at one point in time, and what was changed since.
//!
//! What must stay true: every change of the slots is either part of the snapshot or part of the tail, and never of both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::cluster::slots::SlotSet;
use crate::command::engine::Engine;
use crate::keyspace::entry::Entry;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::shard::SLOTS_PER_SHARD;
use crate::keyspace::snapshot::{Encode, Relief, Snapshot};
use crate::persist::aof::commands::Commands;
use crate::persist::log::Wants;
use crate::resp::request::{Limits, Parser, Span, Step};
use crate::spec::keys;
use crate::stdx::crc::key_slot;

/// Makes commands of the entries of some slots.
struct OfSlots(SlotSet);

impl Encode for OfSlots {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>, relief: Relief<'_>) {
        if self.0.has(key_slot(entry.key()).into()) {
            Commands.encode(entry, out, relief);
        }
    }
}

/// Changes of some slots that have yet to be sent.
#[derive(Default)]
pub struct Tail {
    bytes: Mutex<Vec<u8>>,
    /// Something was done that cannot be told slot by slot.
    flushed: AtomicBool,
}

impl Tail {
    /// Takes what there is.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock())
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.lock().len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all keys were removed, of these slots and of others.
    pub fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire)
    }
}

/// The data of slots from one point in time on.
pub struct Export {
    /// What they held then.
    pub snapshot: Snapshot,
    /// What was changed since.
    pub tail: Arc<Tail>,
    /// Fills the tail until it is dropped.
    pub reader: Reading,
}

/// A reader of the write log, which leaves it when it is dropped.
pub struct Reading {
    engine: Arc<Engine>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.engine.log.leave(self.number);
    }
}

/// Begins to export these slots; `None` while another snapshot is being taken. Called by a thread that holds nothing.
pub fn begin(engine: &Arc<Engine>, slots: &SlotSet) -> Option<Export> {
    let _alone = engine.keyspace.gates().alone();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    let shards: BTreeSet<usize> = slots.iter().map(|slot| slot / SLOTS_PER_SHARD).collect();
    let snapshot = Snapshot::begin_in(engine.keyspace.snapshot(), &mut hold, shards, Arc::new(OfSlots(slots.clone())))?;
    let tail = Arc::new(Tail::default());
    let mut filter = Filter {
        engine: Arc::downgrade(engine),
        slots: slots.clone(),
        tail: tail.clone(),
        spans: Vec::new(),
        kept: Vec::new(),
    };
    let number = engine.log.join(Wants::Changes, |_| Box::new(move |bytes| filter.read(bytes)));
    Some(Export { snapshot, tail, reader: Reading { engine: engine.clone(), number } })
}

/// Picks the commands that change some slots out of the log.
struct Filter {
    engine: std::sync::Weak<Engine>,
    slots: SlotSet,
    tail: Arc<Tail>,
    spans: Vec<Span>,
    /// Where the commands are that were picked.
    kept: Vec<(usize, usize)>,
}

impl Filter {
    fn read(&mut self, bytes: &[u8]) {
        let Some(engine) = self.engine.upgrade() else { return };
        let limits = Limits { max_bulk: usize::MAX, authenticated: true };
        let mut parser = Parser::new();
        let mut at = 0;
        self.kept.clear();
        while at < bytes.len() {
            self.spans.clear();
            let Ok(Step::Request { args, consumed }) = parser.next(bytes, at, &limits, &mut self.spans) else { break };
            if args > 0 && self.wants(&engine, bytes) {
                self.kept.push((at, at + consumed));
            }
            at += consumed;
        }
        let together = self.kept.len() > 1;
        let mut tail = self.tail.bytes.lock();
        if together {
            tail.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
        for (from, to) in &self.kept {
            tail.extend_from_slice(&bytes[*from..*to]);
        }
        if together {
            tail.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        }
    }

    /// Whether the command at `spans` changes one of the slots.
    fn wants(&self, engine: &Engine, bytes: &[u8]) -> bool {
        let arg = |i: usize| self.spans[i].of(bytes);
        let second = self.spans.get(1).map(|span| span.of(bytes));
        let Ok(entry) = engine.commands.resolve(arg(0), second) else { return false };
        if matches!(&*entry.full_name, "flushall" | "flushdb" | "swapdb") {
            self.tail.flushed.store(true, Ordering::Release);
            return false;
        }
        let mut ours = false;
        // What the log holds has run, so its keys can be found.
        let _ = keys::for_each(entry.command.keys, self.spans.len(), arg, |i, _| {
            ours |= self.slots.has(key_slot(arg(i)).into());
        });
        ours
    }
}
