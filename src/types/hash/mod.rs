//! Hashes: values under names, the fields; each may have a deadline of its own.
//!
//! A small hash is a run of elements, searched from end to end: names and values in turn. It is [`Dense`] while it is
//! very small, which keyspaces keep inside of the key's entry, and a [`Listpack`] above; or, once a field has had
//! a deadline, a listpack of name, value and deadline (0 for none), the earliest deadline first and those without one
//! last. A larger hash is a table of [`Field`]s, beside which [`Due`] tells the deadlines in order, if there are any.
//! When a hash becomes a table can be seen (OBJECT ENCODING) and is just as in Redis. All that only reads goes
//! through a [`HashRef`], which looks the same for all of these.
//!
//! What must stay true: `due` holds the deadline of just those fields that have one. A field whose deadline has
//! passed is still here: who looks through [`HashRef::at`] does not see it, and [`Hash::take_due`] removes it. What
//! is dense has no more than [`MAX`](crate::types::dense::MAX) bytes.

pub mod due;
pub mod field;
#[cfg(test)]
mod tests;
pub mod view;

use crate::stdx::hash::hash_bytes;
use crate::types::dense::{self, Dense, Part, Written};
use crate::types::hash::due::Due;
use crate::types::hash::field::{Field, Outside};
use crate::types::hash::view::{Form, HashRef, Living};
use crate::types::listpack::{Item, Listpack, Needle, Place};
use crate::types::table::SharedTable;

/// How large a hash may be as a listpack: `hash-max-listpack-entries` and `hash-max-listpack-value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most fields.
    pub fields: usize,
    /// The most bytes of a name or a value.
    pub bytes: usize,
}

/// What a listpack holds of each field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Name and value.
    Plain,
    /// Name, value, and deadline or 0.
    Timed,
}

/// A name or a value, borrowed from its hash.
#[derive(Clone, Copy)]
pub enum Text<'a> {
    /// Text that is an integer.
    Int(i64),
    /// Any text.
    Bytes(&'a [u8]),
    /// Text in an allocation of its own, which can be shared.
    Outside(Outside<'a>),
}

impl<'a> From<Item<'a>> for Text<'a> {
    fn from(item: Item<'a>) -> Text<'a> {
        match item {
            Item::Int(n) => Text::Int(n),
            Item::Bytes(bytes) => Text::Bytes(bytes),
        }
    }
}

impl Text<'_> {
    /// The bytes.
    pub fn to_vec(self) -> Vec<u8> {
        self.with(<[u8]>::to_vec)
    }

    /// What `f` makes of the bytes.
    pub fn with<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Text::Int(n) => f(itoa::Buffer::new().format(n).as_bytes()),
            Text::Bytes(bytes) => f(bytes),
            Text::Outside(value) => f(value.bytes()),
        }
    }

    /// How many bytes there are.
    pub fn len(self) -> usize {
        self.with(<[u8]>::len)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a> Text<'a> {
    /// As an element of a dense run; a number where it is known to be one.
    fn part(self) -> Part<'a> {
        match self {
            Text::Int(n) => Part::Int(n),
            Text::Bytes(bytes) => Part::Text(bytes),
            Text::Outside(value) => Part::Text(value.bytes()),
        }
    }
}

/// What a hash knows of a field.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its value.
    pub value: Text<'a>,
    /// When it expires: Unix time in milliseconds.
    pub deadline: Option<u64>,
}

/// Values under names.
#[derive(Debug, Clone)]
pub struct Hash(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Dense(Dense),
    Packed(Listpack),
    Timed(Listpack),
    Table(Box<Large>),
}

#[derive(Debug, Clone, Default)]
struct Large {
    fields: SharedTable<Field>,
    due: Option<Box<Due>>,
}

#[inline]
fn rehash(field: &Field) -> u64 {
    hash_bytes(field.name())
}

impl Large {
    fn find(&self, name: &[u8]) -> Option<&Field> {
        self.fields.find(hash_bytes(name), |field| field.name() == name)
    }

    /// Sets value and deadline; returns whether the field is new.
    fn set(&mut self, name: &[u8], value: Text<'_>, deadline: Option<u64>) -> bool {
        let hash = hash_bytes(name);
        match self.fields.find_mut(hash, |field| field.name() == name) {
            Some(field) => {
                let old = field.deadline();
                field.set(value, deadline);
                self.moved(hash, old, deadline);
                false
            }
            None => {
                self.fields.insert_unique(hash, Field::new(name, value, deadline), rehash);
                self.moved(hash, None, deadline);
                true
            }
        }
    }

    /// Notes that a field's deadline changed.
    fn moved(&mut self, hash: u64, old: Option<u64>, new: Option<u64>) {
        if old == new {
            return;
        }
        let due = self.due.get_or_insert_default();
        if let Some(old) = old {
            let found = due.remove((old, hash));
            assert!(found, "a field with a deadline was not in the index");
        }
        match new {
            Some(new) => due.insert((new, hash)),
            None if due.is_empty() => self.due = None,
            None => {}
        }
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let hash = hash_bytes(name);
        let Some(field) = self.fields.remove(hash, |field| field.name() == name, rehash) else { return false };
        self.moved(hash, field.deadline(), None);
        true
    }

    /// Removes a field that is due, of which only its place is known.
    fn take_due(&mut self, now: u64) -> Option<Field> {
        let due = self.due.as_mut()?;
        let (deadline, hash) = due.take_before(now)?;
        if due.is_empty() {
            self.due = None;
        }
        let is_due = |field: &Field| field.deadline() == Some(deadline) && rehash(field) == hash;
        let field = self.fields.remove(hash, is_due, rehash);
        Some(field.expect("the index of deadlines holds only fields that exist"))
    }
}

/// The deadline at a place of a listpack: 0 stands for none.
fn deadline_at(pack: &Listpack, place: Place) -> Option<u64> {
    match pack.at(place) {
        Item::Int(n) => u64::try_from(n).ok().filter(|n| *n > 0),
        Item::Bytes(_) => None,
    }
}

fn after(pack: &Listpack, place: Place) -> Place {
    pack.next(place).expect("a field is a name and what belongs to it")
}

/// Where the field `name` begins, in a listpack of so many elements a field.
fn find_in(pack: &Listpack, stride: usize, name: &[u8]) -> Option<Place> {
    pack.find(pack.first()?, &Needle::new(name), stride - 1)
}

/// Adds a field to a listpack with deadlines, in its place among them.
fn insert_timed(pack: &mut Listpack, name: &[u8], value: &[u8], deadline: Option<u64>) {
    let mut next = pack.first().filter(|_| deadline.is_some());
    while let Some(name_at) = next {
        let at = after(pack, after(pack, name_at));
        if deadline_at(pack, at).is_none_or(|other| Some(other) > deadline) {
            break;
        }
        next = pack.next(at);
    }
    let deadline = deadline.unwrap_or(0).to_string();
    let parts = [deadline.as_bytes(), value, name];
    match next {
        // Each goes before the one that was there before it.
        Some(place) => parts.into_iter().for_each(|part| pack.insert_before(place, part)),
        None => parts.into_iter().rev().for_each(|part| pack.push_back(part)),
    }
}

/// Removes a field from a listpack of so many elements a field.
fn remove_in(pack: &mut Listpack, stride: usize, mut place: Place) {
    for _ in 0..stride {
        match pack.remove(place) {
            Some(next) => place = next,
            None => break,
        }
    }
}

impl Default for Hash {
    fn default() -> Hash {
        Hash(Repr::Dense(Dense::default()))
    }
}

impl Hash {
    /// The hash that a dense run is.
    #[inline]
    pub fn from_dense(dense: Dense) -> Hash {
        Hash(Repr::Dense(dense))
    }

    /// The dense run that it is, where it is very small.
    #[inline]
    pub fn dense(&self) -> Option<&Dense> {
        match &self.0 {
            Repr::Dense(dense) => Some(dense),
            _ => None,
        }
    }

    /// The hash, to be read.
    #[inline]
    pub fn view(&self) -> HashRef<'_> {
        HashRef::of(match &self.0 {
            Repr::Dense(dense) => Form::Dense(dense.run()),
            Repr::Packed(pack) => Form::Packed(pack),
            Repr::Timed(pack) => Form::Timed(pack),
            Repr::Table(large) => Form::Table(large),
        })
    }

    /// The number of fields, those included whose deadline has passed.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// The hash as it is at `now`. See [`HashRef::at`].
    pub fn at(&self, now: u64) -> Living<'_> {
        self.view().at(now)
    }

    /// The earliest deadline of a field.
    #[inline]
    pub fn first_deadline(&self) -> Option<u64> {
        self.view().first_deadline()
    }

    /// The hash that a listpack is, as files hold it: names and values in turn, or with `Layout::Timed` names, values
    /// and deadlines. `None` where it is none: a name without a value, a name that is there twice, a deadline that is no
    /// number. It becomes a table where it has more fields than `limits` allow.
    pub fn from_listpack(pack: Listpack, layout: Layout, limits: Limits) -> Option<Hash> {
        let stride = if layout == Layout::Timed { 3 } else { 2 };
        let fields = pack.len() / stride;
        if !pack.len().is_multiple_of(stride) {
            return None;
        }
        let (mut hashes, mut deadlines) = (Vec::with_capacity(fields), Vec::new());
        for (i, item) in pack.iter().enumerate() {
            match (i % stride, item) {
                (0, item) => hashes.push(Text::from(item).with(hash_bytes)),
                // None comes last.
                (2, Item::Int(n)) => deadlines.push(u64::try_from(n).ok()?.wrapping_sub(1)),
                (2, Item::Bytes(_)) => return None,
                _ => {}
            }
        }
        hashes.sort_unstable();
        let is_timed = !deadlines.is_empty();
        let as_it_is = fields <= limits.fields && hashes.is_sorted_by(|a, b| a < b) && deadlines.is_sorted();
        let mut hash = Hash(if is_timed { Repr::Timed(pack) } else { Repr::Packed(pack) });
        if as_it_is {
            hash.condense(dense::MAX);
            hash.shrink();
            return Some(hash);
        }
        let mut again = Hash::default();
        again.make_room(fields, 0, limits);
        let mut twice = false;
        hash.view().for_each(|name, found| {
            twice |= !name.with(|name| again.set(name, found.value, found.deadline, limits));
        });
        (!twice).then_some(again)
    }

    /// Says that so many fields are about to be added, the longest name or value of so many bytes: makes the hash a
    /// table where that is too much for a listpack.
    pub fn make_room(&mut self, fields: usize, longest: usize, limits: Limits) {
        if fields > limits.fields || longest > limits.bytes {
            self.make_table();
        }
    }

    fn make_table(&mut self) {
        if matches!(self.0, Repr::Table(_)) {
            return;
        }
        let mut large = Large::default();
        self.view().for_each(|name, found| {
            name.with(|name| large.set(name, found.value, found.deadline));
        });
        self.0 = Repr::Table(Box::new(large));
    }

    /// Sets a field's value and deadline; returns whether the field is new.
    pub fn set(&mut self, name: &[u8], value: Text<'_>, deadline: Option<u64>, limits: Limits) -> bool {
        self.make_room(0, name.len().max(value.len()), limits);
        if deadline.is_some() {
            self.make_timed();
        }
        self.make_packed(2, name.len() + value.len());
        let new = match &mut self.0 {
            Repr::Dense(dense) => {
                let (run, mut new) = (dense.run(), Written::new());
                match run.find(name) {
                    Some((at, _)) => {
                        let at = run.behind(at);
                        let old = at..run.behind(at);
                        dense::write(value.part(), &mut new);
                        dense.replace(old, &new);
                        false
                    }
                    None => {
                        let end = run.end();
                        dense::write(Part::Text(name), &mut new);
                        dense::write(value.part(), &mut new);
                        dense.replace(end..end, &new);
                        true
                    }
                }
            }
            Repr::Packed(pack) => value.with(|value| match find_in(pack, 2, name) {
                Some(place) => {
                    let at = after(pack, place);
                    pack.replace(at, value);
                    false
                }
                None => {
                    pack.push_back(name);
                    pack.push_back(value);
                    true
                }
            }),
            Repr::Timed(pack) => value.with(|value| {
                let old = find_in(pack, 3, name);
                if let Some(place) = old {
                    let at = after(pack, place);
                    if deadline_at(pack, after(pack, at)) == deadline {
                        pack.replace(at, value);
                        return false;
                    }
                    remove_in(pack, 3, place);
                }
                insert_timed(pack, name, value, deadline);
                old.is_none()
            }),
            Repr::Table(large) => large.set(name, value, deadline),
        };
        // A limit that was lowered is noticed by any write. Where it cannot be reached nothing is counted.
        let most = self.dense().map_or(usize::MAX, |dense| dense.run().end() / 2);
        if most > limits.fields && self.len() > limits.fields {
            self.make_table();
        }
        new
    }

    /// Makes a listpack of a run that has no room for so many bytes more, in so many elements.
    fn make_packed(&mut self, elements: usize, bytes: usize) {
        if let Repr::Dense(dense) = &self.0
            && !dense.has_room(elements, bytes)
        {
            self.0 = Repr::Packed(view::listpack_of(dense.run()));
        }
    }

    /// Makes a dense run of a listpack without deadlines that takes so many bytes, or fewer.
    fn condense(&mut self, bytes: usize) {
        let Repr::Packed(pack) = &self.0 else { return };
        if pack.byte_len() > bytes {
            return;
        }
        let (mut dense, mut all) = (Dense::default(), Written::new());
        for item in pack.iter() {
            dense::write(Text::from(item).part(), &mut all);
        }
        dense.replace(0..0, &all);
        self.0 = Repr::Dense(dense);
    }

    /// Gives each field room for a deadline.
    fn make_timed(&mut self) {
        if !matches!(self.0, Repr::Dense(_) | Repr::Packed(_)) {
            return;
        }
        let mut timed = Listpack::new();
        self.view().for_each(|name, found| {
            [name, found.value].into_iter().for_each(|part| part.with(|part| timed.push_back(part)));
            timed.push_back(b"0");
        });
        self.0 = Repr::Timed(timed);
    }

    /// Sets or removes a field's deadline; returns whether there is such a field.
    pub fn set_deadline(&mut self, name: &[u8], deadline: Option<u64>) -> bool {
        if deadline.is_some() {
            self.make_timed();
        }
        match &mut self.0 {
            Repr::Dense(dense) => dense.run().find(name).is_some(),
            Repr::Packed(pack) => find_in(pack, 2, name).is_some(),
            Repr::Timed(pack) => {
                let Some(place) = find_in(pack, 3, name) else { return false };
                let at = after(pack, place);
                if deadline_at(pack, after(pack, at)) != deadline {
                    let value = pack.at(at).to_vec();
                    remove_in(pack, 3, place);
                    insert_timed(pack, name, &value, deadline);
                }
                true
            }
            Repr::Table(large) => {
                let hash = hash_bytes(name);
                let Some(field) = large.fields.find_mut(hash, |field| field.name() == name) else { return false };
                let old = field.deadline();
                field.set_deadline(deadline);
                large.moved(hash, old, deadline);
                true
            }
        }
    }

    /// Removes a field; returns whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let stride = if matches!(self.0, Repr::Timed(_)) { 3 } else { 2 };
        match &mut self.0 {
            Repr::Dense(dense) => {
                let run = dense.run();
                let Some((at, _)) = run.find(name) else { return false };
                let behind = run.behind(run.behind(at));
                dense.replace(at..behind, &[]);
                true
            }
            Repr::Packed(pack) | Repr::Timed(pack) => {
                let Some(place) = find_in(pack, stride, name) else { return false };
                remove_in(pack, stride, place);
                true
            }
            Repr::Table(large) => large.remove(name),
        }
    }

    /// Gives back memory that is not used: to be called after fields were removed.
    pub fn shrink(&mut self) {
        // Half of what it may have: one that comes and goes about the limit stays what it is.
        self.condense(dense::MAX / 2);
        if let Repr::Packed(pack) | Repr::Timed(pack) = &mut self.0 {
            pack.shrink();
        }
    }

    /// Removes fields whose deadline lies before `now`, the earliest first, `limit` at most, and calls `f` for
    /// the name and deadline of each; returns how many.
    pub fn take_due(&mut self, now: u64, limit: usize, mut f: impl FnMut(&[u8], u64)) -> usize {
        for taken in 0..limit {
            let Some(deadline) = self.first_deadline().filter(|deadline| *deadline < now) else { return taken };
            match &mut self.0 {
                Repr::Dense(_) | Repr::Packed(_) => return taken,
                Repr::Timed(pack) => {
                    let Some(place) = pack.first() else { return taken };
                    Text::from(pack.at(place)).with(|name| f(name, deadline));
                    remove_in(pack, 3, place);
                }
                Repr::Table(large) => {
                    let Some(field) = large.take_due(now) else { return taken };
                    f(field.name(), deadline);
                }
            }
        }
        limit
    }
}
