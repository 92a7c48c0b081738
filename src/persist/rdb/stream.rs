//! Streams: their chunks as they are, then what is kept beside them, then the groups.
//!
//! ```text
//! stream    chunks | (id: 16 bytes in a string, listpack) ... | entries | last id
//!           | [first id | greatest deleted id | entries ever added]         from form 2 on
//!           | groups | group ...
//! group     name | last id | [entries read]                                  from form 2 on
//!           | pending | (id: 16 bytes, delivered: u64, deliveries) ... | consumers | consumer ...
//! consumer  name | seen: u64 | [active: u64]                                 from form 3 on
//!           | pending | id: 16 bytes ...
//! ```
//! Form 3 is Redis 7.2's. It is written only where a consumer was active at another time than it was last seen,
//! because that alone the form before it cannot say. Of one that was never active that form says that it was when it
//! was seen: so little is not worth a file that Redis 7.0 does not read.

use std::collections::BTreeMap;

use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::form;
use crate::persist::rdb::writer::Writer;
use crate::persist::rdb::{Result, VERSION_7_2};
use crate::types::listpack::Listpack;
use crate::types::stream::group::{Group, Pending};
use crate::types::stream::id::Id;
use crate::types::stream::{Counters, Stream};

/// What stands for a consumer that was never given an entry.
const NEVER: u64 = u64::MAX;

/// The form that `writer` writes a stream in.
pub fn form_of(writer: &Writer<'_>, stream: &Stream) -> u8 {
    let mut consumers = stream.groups.iter().flat_map(|(_, group)| group.consumers());
    if !writer.tells_activity || consumers.all(|consumer| consumer.active_ms.is_none_or(|ms| ms == consumer.seen_ms)) {
        form::STREAM_LISTPACKS_2
    } else {
        form::STREAM_LISTPACKS_3
    }
}

fn write_id(writer: &mut Writer<'_>, id: Id) {
    writer.length(id.ms);
    writer.length(id.seq);
}

/// Writes a stream.
pub fn write(writer: &mut Writer<'_>, stream: &Stream) {
    let form = form_of(writer, stream);
    if form == form::STREAM_LISTPACKS_3 {
        writer.needs(VERSION_7_2);
    }
    let chunks = stream.log.chunks();
    writer.count(chunks.len());
    for (id, pack) in chunks {
        writer.string(&id.to_bytes());
        writer.string(pack.as_bytes());
        writer.element_done();
    }
    let counters = stream.log.counters();
    writer.count(stream.log.len());
    write_id(writer, counters.last);
    write_id(writer, stream.log.first_id());
    write_id(writer, counters.max_deleted);
    writer.length(counters.added);
    writer.count(stream.groups.len());
    for (name, group) in stream.groups.iter() {
        writer.string(name);
        write_id(writer, group.last);
        writer.length(group.read.unwrap_or(-1).cast_unsigned());
        writer.count(group.pending().len());
        for (id, pending) in group.pending().iter() {
            writer.raw(&id.to_bytes());
            writer.u64_le(pending.delivered_ms);
            writer.length(pending.deliveries);
            writer.element_done();
        }
        let consumers = group.consumers();
        writer.count(consumers.len());
        for consumer in consumers {
            writer.string(consumer.name());
            writer.u64_le(consumer.seen_ms);
            if form == form::STREAM_LISTPACKS_3 {
                writer.u64_le(consumer.active_ms.unwrap_or(NEVER));
            }
            writer.count(consumer.pending().len());
            consumer.pending().iter().for_each(|(id, ())| writer.raw(&id.to_bytes()));
        }
    }
}

fn read_id(reader: &mut Reader<'_>) -> Result<Id> {
    Ok(Id::new(reader.length()?, reader.length()?))
}

/// Reads a stream of the given form.
///
/// # Errors
/// Whatever is wrong with it.
pub fn read(reader: &mut Reader<'_>, form: u8) -> Result<Stream> {
    let mut stream = Stream::default();
    for _ in 0..reader.length()? {
        let id = reader.string()?;
        let id = id.try_into().map_err(|_| reader.corrupt("Stream node key entry is not the size of a stream ID"))?;
        let pack = Listpack::from_bytes(reader.string()?);
        let pack = pack.ok_or_else(|| reader.corrupt("Stream listpack integrity check failed."))?;
        if !stream.log.add_chunk(Id::from_bytes(id), pack) {
            return Err(reader.corrupt("Stream listpack integrity check failed."));
        }
    }
    let len = reader.length()?;
    let last = read_id(reader)?;
    let counters = if form == form::STREAM_LISTPACKS {
        Counters { last, max_deleted: Id::MIN, added: len }
    } else {
        read_id(reader)?;
        Counters { last, max_deleted: read_id(reader)?, added: reader.length()? }
    };
    if len != stream.log.len() as u64 {
        return Err(reader.corrupt("Stream length inconsistent with rax entries"));
    }
    if last < stream.log.counters().last {
        return Err(reader.corrupt("Stream entries beyond the last ID"));
    }
    stream.log.set_counters(counters);
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        let mut group = read_group(reader, form)?;
        if form == form::STREAM_LISTPACKS {
            // Nobody counted then; where nothing is missing from the stream it can be told.
            group.read = stream.log.position(group.last);
        }
        if !stream.groups.add(&name, group) {
            return Err(reader.corrupt("Duplicated consumer group name"));
        }
    }
    Ok(stream)
}

fn read_group(reader: &mut Reader<'_>, form: u8) -> Result<Group> {
    let last = read_id(reader)?;
    let read = match form {
        form::STREAM_LISTPACKS => None,
        _ => Some(reader.length()?.cast_signed()).filter(|read| *read >= 0),
    };
    let mut group = Group::new(last, read);
    let mut unowned = BTreeMap::new();
    for _ in 0..reader.length()? {
        let id = Id::from_bytes(reader.array()?);
        let about = (reader.u64_le()?, reader.length()?);
        if unowned.insert(id, about).is_some() {
            return Err(reader.corrupt("Duplicated global PEL entry loading stream consumer group"));
        }
    }
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        let seen_ms = reader.u64_le()?;
        let active_ms = match form {
            form::STREAM_LISTPACKS_3 => Some(reader.u64_le()?).filter(|ms| *ms != NEVER),
            _ => Some(seen_ms),
        };
        let number = group.create(&name, seen_ms);
        let number = number.ok_or_else(|| reader.corrupt("Duplicate stream consumer detected"))?;
        group.consumer_mut(number).active_ms = active_ms;
        for _ in 0..reader.length()? {
            let id = Id::from_bytes(reader.array()?);
            let about = unowned.remove(&id);
            let (delivered_ms, deliveries) =
                about.ok_or_else(|| reader.corrupt("Consumer entry not found in group global PEL"))?;
            group.assign(id, Pending { delivered_ms, deliveries, consumer: number });
        }
    }
    if unowned.is_empty() { Ok(group) } else { Err(reader.corrupt("NACK without consumer")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::rdb::writer::Compression;
    use crate::types::stream::chunk::Limits;

    #[test]
    fn groups_of_the_first_form_are_told_how_far_they_are_where_that_is_known() {
        let mut stream = Stream::default();
        for seq in 1..=3 {
            stream.log.append(Id::new(5, seq), [&b"f"[..], b"v"].into_iter(), Limits { bytes: 0, entries: 0 });
        }
        let mut writer = Writer::new(Compression::None);
        writer.count(1);
        for (id, pack) in stream.log.chunks() {
            writer.string(&id.to_bytes());
            writer.string(pack.as_bytes());
        }
        writer.count(3);
        write_id(&mut writer, Id::new(5, 3));
        let groups = [(0, Some(0)), (1, Some(1)), (2, None), (3, Some(3))];
        writer.count(groups.len());
        for (seq, _) in groups {
            writer.string(seq.to_string().as_bytes());
            write_id(&mut writer, Id::new(5, seq));
            // Nothing is pending, for nobody.
            writer.count(0);
            writer.count(0);
        }
        let read = read(&mut Reader::of_bytes(&writer.bytes), form::STREAM_LISTPACKS).unwrap();
        for (seq, expected) in groups {
            let group = read.groups.find(seq.to_string().as_bytes()).unwrap();
            assert_eq!(group.read, expected, "{seq}");
        }
        assert_eq!(read.log.counters().added, 3);
    }
}
