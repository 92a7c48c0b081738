//! Chunks: neighbouring entries of a stream in one listpack, in Redis' format, which is also how files hold them.
//!
//! ```text
//! chunk   living entries | deleted entries | n | field 1 ... field n | 0 | entry ...
//! entry   flags | ms | seq | value 1 ... value n | elements before this one         flags has SAME_FIELDS
//!         flags | ms | seq | m | field 1 | value 1 ... value m | elements before    otherwise
//! ```
//!
//! `ms` and `seq` are told as what must be added to the chunk's id, which is that of its first entry and
//! stands outside. The last element of an entry, and the 0 before the first one, let it be read backwards.
//!
//! What must stay true: the listpack has this form from end to end (what comes from outside is looked
//! through by [`Chunk::from_listpack`] first); `living` and `deleted` are the numbers of such entries;
//! ids ascend; at least one entry lives, and none before `head`.

use crate::types::listpack::{Item, Listpack, Needle, Place};
use crate::types::stream::id::Id;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// What an entry's own numbers take in most cases, in bytes: flags, two differences, the count.
const ENTRY_OVERHEAD: usize = 16;
/// The same for each element.
const ELEMENT_OVERHEAD: usize = 2;

/// How much a chunk may hold: `stream-node-max-bytes` and `stream-node-max-entries`, 0 for no limit.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes.
    pub bytes: u64,
    /// The most entries, deleted ones included.
    pub entries: u64,
}

/// Neighbouring entries.
#[derive(Clone)]
pub struct Chunk {
    pack: Listpack,
    /// Where the first entry is that may live.
    head: Place,
}

/// An entry, borrowed from its chunk.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Its id.
    pub id: Id,
    pack: &'a Listpack,
    /// The first field, where the fields are those of the chunk.
    fields: Option<Place>,
    /// The first value, or field.
    at: Place,
    pairs: usize,
}

impl<'a> Entry<'a> {
    /// How many pairs of field and value there are.
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there is no pair, which only a file can bring about.
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// Fields and values in turn.
    pub fn elements(self) -> impl Iterator<Item = Item<'a>> {
        let (mut field, mut value) = (self.fields, Some(self.at));
        let same = field.is_some();
        (0..2 * self.pairs).map_while(move |i| {
            let next = if same && i % 2 == 0 { &mut field } else { &mut value };
            let place = (*next)?;
            *next = self.pack.next(place);
            Some(self.pack.at(place))
        })
    }
}

/// An entry as it stands in the listpack, deleted ones too.
struct Raw {
    id: Id,
    flags: i64,
    at: Place,
    pairs: usize,
    next: Option<Place>,
}

impl Raw {
    fn lives(&self) -> bool {
        self.flags & DELETED == 0
    }
}

/// What stands before the entries.
#[derive(Clone, Copy)]
struct Master {
    fields: usize,
    first_field: Place,
}

const WELL_FORMED: &str = "a chunk was made by us or looked through when it was read";

impl Chunk {
    /// A chunk of one entry, whose id is the chunk's. `elements` are its fields and values in turn.
    pub fn new<'e>(elements: impl ExactSizeIterator<Item = &'e [u8]> + Clone) -> Chunk {
        let pairs = elements.len() / 2;
        let bytes: usize = elements.clone().map(|e| e.len() + ELEMENT_OVERHEAD).sum();
        // Many streams have one entry: what the first one does not need is left to the second one to ask for.
        let mut pack = Listpack::with_capacity(bytes + 2 * ENTRY_OVERHEAD);
        pack.extend(0, |to| {
            [1, 0, pairs as i64].into_iter().for_each(|n| to.int(n));
            elements.clone().step_by(2).for_each(|field| to.bytes(field));
            to.int(0);
            [SAME_FIELDS, 0, 0].into_iter().for_each(|n| to.int(n));
            elements.skip(1).step_by(2).for_each(|value| to.bytes(value));
            to.int(pairs as i64 + 3);
        });
        Chunk::whole(pack)
    }

    fn whole(pack: Listpack) -> Chunk {
        let head = pack.first().expect(WELL_FORMED);
        let mut chunk = Chunk { pack, head };
        let master = chunk.master();
        chunk.head = chunk.pack.skip(master.first_field, master.fields + 1).expect(WELL_FORMED);
        chunk
    }

    /// Takes over a listpack from outside, of the chunk with id `id`; `None` where it is not of the form above.
    ///
    /// Where no entry lives it is of that form too; such a chunk must not be kept.
    pub fn from_listpack(pack: Listpack, id: Id) -> Option<Chunk> {
        let mut next = pack.first();
        let mut take = || {
            let place = next?;
            next = pack.next(place);
            pack.at(place).int()
        };
        let (living, deleted, fields) = (take()?, take()?, take()?);
        let fields = usize::try_from(fields).ok().filter(|n| *n <= pack.byte_len())?;
        let terminator = pack.skip(next?, fields)?;
        if pack.at(terminator).int()? != 0 {
            return None;
        }
        let mut at = pack.next(terminator);
        let (mut found, mut last) = ([0i64; 2], None);
        while let Some(entry) = at {
            let int = |place: Place| pack.at(place).int();
            let (ms, seq) = (pack.next(entry)?, pack.skip(entry, 2)?);
            let flags = int(entry)?;
            let entry_id = Id::new(id.ms.wrapping_add_signed(int(ms)?), id.seq.wrapping_add_signed(int(seq)?));
            let (elements, behind) = if flags & SAME_FIELDS != 0 {
                (fields, seq)
            } else {
                let count = pack.next(seq)?;
                let pairs = usize::try_from(int(count)?).ok().filter(|n| *n <= pack.byte_len())?;
                (2 * pairs, count)
            };
            let last_element = pack.skip(behind, elements + 1)?;
            let before = 3 + usize::from(flags & SAME_FIELDS == 0) + elements;
            if int(last_element)? != before as i64 || last.is_some_and(|last| entry_id <= last) || entry_id < id {
                return None;
            }
            last = Some(entry_id);
            found[usize::from(flags & DELETED != 0)] += 1;
            at = pack.next(last_element);
        }
        (found == [living, deleted]).then(|| Chunk::whole(pack))
    }

    /// The listpack, as it stands in files.
    pub fn pack(&self) -> &Listpack {
        &self.pack
    }

    fn counter(&self, place: Place) -> u64 {
        self.pack.at(place).int().and_then(|n| u64::try_from(n).ok()).expect(WELL_FORMED)
    }

    fn first_place(&self) -> Place {
        self.pack.first().expect(WELL_FORMED)
    }

    /// How many entries live.
    pub fn living(&self) -> u64 {
        self.counter(self.first_place())
    }

    /// How many entries there are, deleted ones included.
    fn total(&self) -> u64 {
        self.living() + self.counter(self.pack.next(self.first_place()).expect(WELL_FORMED))
    }

    fn master(&self) -> Master {
        let count = self.pack.skip(self.first_place(), 2).expect(WELL_FORMED);
        let first_field = self.pack.next(count).expect(WELL_FORMED);
        Master { fields: self.counter(count) as usize, first_field }
    }

    /// Whether an entry of so many bytes of fields and values goes into a chunk of its own.
    pub fn is_full(&self, bytes: usize, limits: Limits) -> bool {
        self.pack.byte_len() + bytes >= most_bytes(limits) || limits.entries > 0 && self.total() >= limits.entries
    }

    /// Adds an entry behind all others; `chunk` is the chunk's id.
    pub fn append<'e>(&mut self, chunk: Id, id: Id, elements: impl ExactSizeIterator<Item = &'e [u8]> + Clone) {
        let pairs = elements.len() / 2;
        let mut bytes = ENTRY_OVERHEAD;
        elements.clone().for_each(|element| bytes += element.len() + ELEMENT_OVERHEAD);
        let by = self.pack.set_int(self.first_place(), self.living() as i64 + 1);
        self.head = self.head.moved(by);
        let same = self.has_fields(pairs, elements.clone().step_by(2));
        self.pack.extend(bytes, |to| {
            to.int(if same { SAME_FIELDS } else { 0 });
            to.int(id.ms.wrapping_sub(chunk.ms) as i64);
            to.int(id.seq.wrapping_sub(chunk.seq) as i64);
            if same {
                elements.skip(1).step_by(2).for_each(|value| to.bytes(value));
                to.int(pairs as i64 + 3);
            } else {
                to.int(pairs as i64);
                elements.for_each(|element| to.bytes(element));
                to.int(2 * pairs as i64 + 4);
            }
        });
    }

    /// Whether the chunk's own fields are these.
    fn has_fields<'e>(&self, count: usize, fields: impl Iterator<Item = &'e [u8]>) -> bool {
        let master = self.master();
        let mut at = Some(master.first_field);
        count == master.fields
            && fields.into_iter().all(|field| {
                at.is_some_and(|place| {
                    at = self.pack.next(place);
                    match self.pack.at(place) {
                        Item::Bytes(bytes) => bytes == field,
                        item @ Item::Int(_) => Needle::new(field).is(item),
                    }
                })
            })
    }

    /// Gives back memory that is not used: nothing is added any more.
    pub fn shrink(&mut self) {
        self.pack.shrink();
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        self.pack.memory()
    }

    /// The entry that begins at `place`.
    fn raw(&self, chunk: Id, master: Master, place: Place) -> Raw {
        let int = |place: Place| self.pack.at(place).int().expect(WELL_FORMED);
        let next = |place: Place| self.pack.next(place).expect(WELL_FORMED);
        let flags = int(place);
        let ms = next(place);
        let seq = next(ms);
        let id = Id::new(chunk.ms.wrapping_add_signed(int(ms)), chunk.seq.wrapping_add_signed(int(seq)));
        let mut at = next(seq);
        let (pairs, elements) = if flags & SAME_FIELDS != 0 {
            (master.fields, master.fields)
        } else {
            let pairs = int(at) as usize;
            at = next(at);
            (pairs, 2 * pairs)
        };
        let end = self.pack.skip(at, elements).expect(WELL_FORMED);
        Raw { id, flags, at, pairs, next: self.pack.next(end) }
    }

    fn entry(&self, master: Master, raw: &Raw) -> Entry<'_> {
        let same = raw.flags & SAME_FIELDS != 0;
        Entry { id: raw.id, pack: &self.pack, fields: same.then_some(master.first_field), at: raw.at, pairs: raw.pairs }
    }

    /// The living entries in ascending order.
    pub fn entries(&self, chunk: Id) -> impl Iterator<Item = Entry<'_>> {
        let master = self.master();
        let mut next = Some(self.head);
        std::iter::from_fn(move || {
            loop {
                let raw = self.raw(chunk, master, next?);
                next = raw.next;
                if raw.lives() {
                    return Some(self.entry(master, &raw));
                }
            }
        })
    }

    /// The entry that ends before `end`, the place behind it, or the listpack's end; `None` where there is none.
    fn before(&self, end: Option<Place>) -> Option<Place> {
        let last = match end {
            Some(end) => self.pack.prev(end),
            None => self.pack.last(),
        }?;
        let count = self.pack.at(last).int().expect(WELL_FORMED);
        // The 0 before the first entry.
        if count == 0 {
            return None;
        }
        (0..count).try_fold(last, |place, _| self.pack.prev(place))
    }

    /// The living entries in descending order.
    pub fn entries_down(&self, chunk: Id) -> impl Iterator<Item = Entry<'_>> {
        let master = self.master();
        let mut next = self.before(None);
        std::iter::from_fn(move || {
            loop {
                let place = next?;
                let raw = self.raw(chunk, master, place);
                next = self.before(Some(place));
                if raw.lives() {
                    return Some(self.entry(master, &raw));
                }
            }
        })
    }

    /// The id of the last entry, whether it lives or not.
    pub fn last_id(&self, chunk: Id) -> Id {
        let place = self.before(None).expect("a chunk has at least one entry");
        self.raw(chunk, self.master(), place).id
    }

    /// Marks the living entries as deleted for which `deleted` says so, up to the first at or behind `end`; returns
    /// how many there were. A chunk without living entries must not be kept.
    pub fn delete(&mut self, chunk: Id, end: Id, mut deleted: impl FnMut(Id) -> bool) -> u64 {
        let master = self.master();
        let (mut next, mut count, mut front) = (Some(self.head), 0, true);
        while let Some(place) = next {
            let raw = self.raw(chunk, master, place);
            if raw.id >= end {
                break;
            }
            next = raw.next;
            if raw.lives() && deleted(raw.id) {
                // One digit for another: nothing moves.
                self.pack.set_int(place, raw.flags | DELETED);
                count += 1;
            } else if raw.lives() {
                front = false;
            }
            if let Some(next) = next.filter(|_| front) {
                self.head = next;
            }
        }
        if count > 0 {
            let living = self.first_place();
            let by = self.pack.set_int(living, self.living() as i64 - count);
            self.head = self.head.moved(by);
            let dead = self.pack.next(living).expect(WELL_FORMED);
            let by = self.pack.set_int(dead, self.counter(dead) as i64 + count);
            self.head = self.head.moved(by);
        }
        count as u64
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pack.fmt(f)
    }
}

/// The most bytes of a chunk, never beyond what a listpack can hold.
fn most_bytes(limits: Limits) -> usize {
    let most = LISTPACK_MAX as u64;
    if limits.bytes == 0 { most as usize } else { limits.bytes.min(most) as usize }
}

/// The most bytes of fields and values of one entry, and of a chunk to which one may be added.
pub const LISTPACK_MAX: usize = 1 << 30;
