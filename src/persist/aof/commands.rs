//! Commands that make an entry: a base for those who do not want a snapshot.

use crate::keyspace::entry::{Entry, Value};
use crate::keyspace::snapshot::{BATCH_BYTES, Encode, Relief};
use crate::resp::reply::{Output, Protocol};
use crate::stdx::number::double::append_double_17;
use crate::types::ObjectRef;
use crate::types::listpack::Item;
use crate::types::stream::Stream;
use crate::types::stream::id::Id;
use crate::types::zset::Direction;

/// So many elements go into one command.
const ELEMENTS: usize = 64;

/// Makes commands of entries.
#[derive(Debug, Clone, Copy)]
pub struct Commands;

impl Encode for Commands {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>, relief: Relief<'_>) {
        let mut commands = Writer { out, relief, key: entry.key(), name: "", words: Vec::new(), elements: 0 };
        match entry.value() {
            Value::Int(n) => commands.whole("SET", &[itoa::Buffer::new().format(n).as_bytes()]),
            Value::Bytes(bytes) => commands.whole("SET", &[bytes]),
            Value::Large(large) => commands.whole("SET", &[large.bytes()]),
            Value::Object(object) => write_object(&mut commands, object),
        }
        commands.finish();
        if let Some(deadline) = entry.deadline() {
            commands.whole("PEXPIREAT", &[deadline.to_string().as_bytes()]);
        }
    }
}

fn write_object(commands: &mut Writer<'_, '_>, object: ObjectRef<'_>) {
    match object {
        ObjectRef::List(list) => {
            commands.begin("RPUSH");
            list.each(0, usize::MAX, |item| commands.element(&[&item.to_vec()]));
        }
        ObjectRef::Set(set) => {
            commands.begin("SADD");
            set.iter().for_each(|member| commands.element(&[&member.to_vec()]));
        }
        ObjectRef::SortedSet(set) => {
            commands.begin("ZADD");
            let mut text = Vec::new();
            for (member, score) in set.iter(0, Direction::Up) {
                text.clear();
                append_double_17(&mut text, score);
                commands.element(&[&text, &member.to_vec()]);
            }
        }
        ObjectRef::Hash(hash) => {
            commands.begin("HMSET");
            hash.for_each(|name, found| {
                name.with(|name| found.value.with(|value| commands.element(&[name, value])));
            });
            commands.finish();
            hash.for_each(|name, found| {
                if let Some(deadline) = found.deadline {
                    let deadline = deadline.to_string();
                    name.with(|name| commands.whole("HPEXPIREAT", &[deadline.as_bytes(), b"FIELDS", b"1", name]));
                }
            });
        }
        ObjectRef::Stream(stream) => write_stream(commands, stream),
    }
}

fn write_stream(commands: &mut Writer<'_, '_>, stream: &Stream) {
    let counters = stream.log.counters();
    for entry in stream.log.entries(Id::MIN, Id::MAX) {
        let mut words = vec![entry.id.to_vec()];
        words.extend(entry.elements().map(Item::to_vec));
        commands.whole("XADD", &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let last = counters.last.to_vec();
    if stream.log.is_empty() {
        // A stream cannot be made without an entry, but can lose it.
        let id = counters.last.max(Id::new(0, 1)).to_vec();
        commands.whole("XADD", &[b"MAXLEN", b"0", &id, b"x", b"y"]);
    }
    let (added, deleted) = (counters.added.to_string(), counters.max_deleted.to_vec());
    commands.whole("XSETID", &[&last, b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", &deleted]);
    for (name, group) in stream.groups.iter() {
        let read = group.read.unwrap_or(-1).to_string();
        commands.sub("XGROUP", "CREATE", &[name, &group.last.to_vec(), b"ENTRIESREAD", read.as_bytes()]);
        for consumer in group.consumers() {
            commands.sub("XGROUP", "CREATECONSUMER", &[name, consumer.name()]);
        }
        for (id, pending) in group.pending().iter() {
            let (time, count) = (pending.delivered_ms.to_string(), pending.deliveries.to_string());
            let consumer = group.consumer(pending.consumer).name();
            let id = id.to_vec();
            let words: [&[u8]; 10] = [
                name,
                consumer,
                b"0",
                &id,
                b"TIME",
                time.as_bytes(),
                b"RETRYCOUNT",
                count.as_bytes(),
                b"JUSTID",
                b"FORCE",
            ];
            commands.whole("XCLAIM", &words);
        }
    }
}

/// Writes commands for one key.
struct Writer<'o, 'r> {
    out: &'o mut Vec<u8>,
    relief: Relief<'r>,
    key: &'o [u8],
    name: &'static str,
    words: Vec<u8>,
    elements: usize,
}

impl Writer<'_, '_> {
    /// One command.
    fn whole(&mut self, name: &str, words: &[&[u8]]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len() + 2).as_bytes());
        bulk(self.out, name.as_bytes());
        bulk(self.out, self.key);
        words.iter().for_each(|word| bulk(self.out, word));
        self.command_done();
    }

    /// One command whose key follows a word.
    fn sub(&mut self, name: &str, word: &str, words: &[&[u8]]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len() + 3).as_bytes());
        bulk(self.out, name.as_bytes());
        bulk(self.out, word.as_bytes());
        bulk(self.out, self.key);
        words.iter().for_each(|word| bulk(self.out, word));
        self.command_done();
    }

    /// The following elements are added by commands of this name.
    fn begin(&mut self, name: &'static str) {
        self.name = name;
    }

    fn element(&mut self, words: &[&[u8]]) {
        words.iter().for_each(|word| bulk(&mut self.words, word));
        self.elements += words.len();
        if self.elements >= ELEMENTS * words.len() {
            self.finish();
        }
    }

    /// Writes the command that was begun, if it has any elements.
    fn finish(&mut self) {
        if self.elements == 0 {
            return;
        }
        self.out.extend_from_slice(format!("*{}\r\n", self.elements + 2).as_bytes());
        bulk(self.out, self.name.as_bytes());
        bulk(self.out, self.key);
        self.out.append(&mut self.words);
        self.elements = 0;
        self.command_done();
    }

    fn command_done(&mut self) {
        if self.out.len() >= BATCH_BYTES
            && let Some(relief) = &mut self.relief
        {
            relief(self.out);
        }
    }
}

fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(word.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// The command that selects a database.
pub fn select(db: usize) -> Vec<u8> {
    let mut out = Output::new(Protocol::Resp2);
    out.array(2);
    out.bulk(b"SELECT");
    out.bulk(db.to_string().as_bytes());
    out.to_vec()
}
