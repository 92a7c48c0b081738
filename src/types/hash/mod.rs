//! Hashes: values under names, the fields; each may have a deadline of its own.
//!
//! A small hash is one [`Listpack`], searched from end to end: names and values in turn, or, once a field has had
//! a deadline, name, value and deadline (0 for none), the earliest deadline first and those without one last. A
//! larger hash is a table of [`Field`]s, beside which [`Due`] tells the deadlines in order, if there are any.
//! When a hash becomes a table can be seen (OBJECT ENCODING) and is just as in Redis.
//!
//! What must stay true: `due` holds the deadline of just those fields that have one. A field whose deadline has
//! passed is still here: who looks through [`Hash::at`] does not see it, and [`Hash::take_due`] removes it.

pub mod due;
pub mod field;
#[cfg(test)]
mod tests;

use crate::stdx::hash::hash_bytes;
use crate::types::hash::due::Due;
use crate::types::hash::field::{Field, Outside};
use crate::types::listpack::{Item, Listpack, Needle, Place};
use crate::types::table::{CURSOR_SHIFT, SharedTable};

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

/// Where a field of a large hash will be looked for: the way there can be loaded ahead of time, one step after the
/// other for many fields together. See [`Hash::ahead`].
pub struct Ahead<'a> {
    fields: &'a SharedTable<Field>,
    hash: u64,
}

impl Ahead<'_> {
    /// The first step.
    #[inline]
    pub fn prefetch_segment(&self) {
        self.fields.prefetch_segment(self.hash);
    }

    /// The second step.
    #[inline]
    pub fn prefetch_places(&self) {
        self.fields.prefetch(self.hash);
    }

    /// The last step: the field that it most likely is.
    #[inline]
    pub fn prefetch_field(&self) {
        if let Some(field) = self.fields.find(self.hash, |_| true) {
            field.prefetch();
        }
    }
}

/// How many elements of the listpack a field takes.
fn stride(pack: &Repr) -> usize {
    if matches!(pack, Repr::Timed(_)) { 3 } else { 2 }
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
        Hash(Repr::Packed(Listpack::new()))
    }
}

impl Hash {
    /// The number of fields, those included whose deadline has passed.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Packed(pack) | Repr::Timed(pack) => pack.len() / stride(&self.0),
            Repr::Table(large) => large.fields.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Packed(_) => "listpack",
            Repr::Timed(_) => "listpackex",
            Repr::Table(_) => "hashtable",
        }
    }

    /// Bytes that it takes. Of a large hash some hundred fields are looked at, and all taken to be alike.
    pub fn memory(&self) -> usize {
        const SAMPLES: usize = 512;
        match &self.0 {
            Repr::Packed(pack) | Repr::Timed(pack) => pack.memory(),
            Repr::Table(large) => {
                let (mut sum, mut seen) = (0, 0usize);
                large.fields.sample(0, SAMPLES, |field| {
                    sum += field.memory();
                    seen += 1;
                });
                let fields = sum.checked_div(seen).unwrap_or(0) * large.fields.len();
                let due = large.due.as_ref().map_or(0, |due| size_of::<Due>() + due.memory());
                size_of::<Large>() + large.fields.allocated_bytes() + fields + due
            }
        }
    }

    /// The hash as it is at `now`: without the fields whose deadline lies before.
    pub fn at(&self, now: u64) -> Living<'_> {
        Living { hash: self, now }
    }

    /// Where `name` will be looked for, in a hash that is too large to be in the processor's cache as a whole.
    #[inline]
    pub fn ahead(&self, name: &[u8]) -> Option<Ahead<'_>> {
        match &self.0 {
            Repr::Packed(_) | Repr::Timed(_) => None,
            Repr::Table(large) => Some(Ahead { fields: &large.fields, hash: hash_bytes(name) }),
        }
    }

    /// What is known of a field, whether its deadline has passed or not.
    pub fn find(&self, name: &[u8]) -> Option<Found<'_>> {
        match &self.0 {
            Repr::Packed(pack) => {
                let place = find_in(pack, 2, name)?;
                Some(Found { value: pack.at(after(pack, place)).into(), deadline: None })
            }
            Repr::Timed(pack) => {
                let value = after(pack, find_in(pack, 3, name)?);
                let deadline = deadline_at(pack, after(pack, value));
                Some(Found { value: pack.at(value).into(), deadline })
            }
            Repr::Table(large) => {
                let field = large.find(name)?;
                Some(Found { value: field.value(), deadline: field.deadline() })
            }
        }
    }

    /// Calls `f` for every field, whether its deadline has passed or not.
    pub fn for_each(&self, mut f: impl FnMut(Text<'_>, Found<'_>)) {
        match &self.0 {
            Repr::Packed(pack) => {
                let mut items = pack.iter();
                while let (Some(name), Some(value)) = (items.next(), items.next()) {
                    f(name.into(), Found { value: value.into(), deadline: None });
                }
            }
            Repr::Timed(pack) => {
                let mut next = pack.first();
                while let Some(name) = next {
                    let value = after(pack, name);
                    let deadline = after(pack, value);
                    let found = Found { value: pack.at(value).into(), deadline: deadline_at(pack, deadline) };
                    f(pack.at(name).into(), found);
                    next = pack.next(deadline);
                }
            }
            Repr::Table(large) => large.fields.iter().for_each(|field| {
                f(Text::Bytes(field.name()), Found { value: field.value(), deadline: field.deadline() });
            }),
        }
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
            hash.shrink();
            return Some(hash);
        }
        let mut again = Hash::default();
        again.make_room(fields, 0, limits);
        let mut twice = false;
        hash.for_each(|name, found| {
            twice |= !name.with(|name| again.set(name, found.value, found.deadline, limits));
        });
        (!twice).then_some(again)
    }

    /// The listpack that the hash is, if it is one.
    pub fn listpack(&self) -> Option<(&Listpack, Layout)> {
        match &self.0 {
            Repr::Packed(pack) => Some((pack, Layout::Plain)),
            Repr::Timed(pack) => Some((pack, Layout::Timed)),
            Repr::Table(_) => None,
        }
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
        self.for_each(|name, found| {
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
        let new = match &mut self.0 {
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
        // A limit that was lowered is noticed by any write.
        if self.len() > limits.fields {
            self.make_table();
        }
        new
    }

    /// Gives each field room for a deadline.
    fn make_timed(&mut self) {
        let Repr::Packed(pack) = &self.0 else { return };
        let mut timed = Listpack::new();
        for (i, item) in pack.iter().enumerate() {
            Text::from(item).with(|part| timed.push_back(part));
            if i % 2 == 1 {
                timed.push_back(b"0");
            }
        }
        self.0 = Repr::Timed(timed);
    }

    /// Sets or removes a field's deadline; returns whether there is such a field.
    pub fn set_deadline(&mut self, name: &[u8], deadline: Option<u64>) -> bool {
        if deadline.is_some() {
            self.make_timed();
        }
        match &mut self.0 {
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
        let stride = stride(&self.0);
        match &mut self.0 {
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
        if let Repr::Packed(pack) | Repr::Timed(pack) = &mut self.0 {
            pack.shrink();
        }
    }

    /// The earliest deadline of a field.
    #[inline]
    pub fn first_deadline(&self) -> Option<u64> {
        match &self.0 {
            Repr::Packed(_) => None,
            Repr::Timed(pack) => {
                let value = after(pack, pack.first()?);
                deadline_at(pack, after(pack, value))
            }
            Repr::Table(large) => large.due.as_ref()?.first(),
        }
    }

    /// Removes fields whose deadline lies before `now`, the earliest first, `limit` at most, and calls `f` for
    /// the name and deadline of each; returns how many.
    pub fn take_due(&mut self, now: u64, limit: usize, mut f: impl FnMut(&[u8], u64)) -> usize {
        for taken in 0..limit {
            let Some(deadline) = self.first_deadline().filter(|deadline| *deadline < now) else { return taken };
            match &mut self.0 {
                Repr::Packed(_) => return taken,
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

/// A hash as it is at one moment. See [`Hash::at`].
#[derive(Clone, Copy)]
pub struct Living<'a> {
    hash: &'a Hash,
    now: u64,
}

impl<'a> Living<'a> {
    fn lives(&self, deadline: Option<u64>) -> bool {
        deadline.is_none_or(|deadline| deadline >= self.now)
    }

    /// Whether some fields are there that are not to be seen.
    fn has_dead(&self) -> bool {
        self.hash.first_deadline().is_some_and(|first| first < self.now)
    }

    /// What is known of a field.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<Found<'a>> {
        self.hash.find(name).filter(|found| self.lives(found.deadline))
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        if !self.has_dead() {
            return self.hash.len();
        }
        match &self.hash.0 {
            Repr::Packed(pack) => pack.len() / 2,
            Repr::Timed(_) => {
                let mut living = 0;
                self.hash.for_each(|_, found| living += usize::from(self.lives(found.deadline)));
                living
            }
            Repr::Table(large) => large.fields.len() - large.due.as_ref().map_or(0, |due| due.count_before(self.now)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` for every field.
    pub fn for_each(&self, mut f: impl FnMut(Text<'_>, Found<'_>)) {
        self.hash.for_each(|name, found| {
            if self.lives(found.deadline) {
                f(name, found);
            }
        });
    }

    /// Calls `f` for a random field, each as likely as any other; returns false where there is none.
    pub fn random(&self, rng: &mut fastrand::Rng, mut f: impl FnMut(Text<'_>, Found<'_>)) -> bool {
        // Most often few of them are dead, if any; else it is the chance of those that are not that is looked for.
        for _ in 0..64 {
            match &self.hash.0 {
                Repr::Packed(pack) | Repr::Timed(pack) => {
                    let stride = stride(&self.hash.0);
                    let fields = pack.len() / stride;
                    if fields == 0 {
                        return false;
                    }
                    let name = pack.seek(rng.usize(..fields) * stride).expect("an index below the length");
                    let value = after(pack, name);
                    let deadline = if stride == 3 { deadline_at(pack, after(pack, value)) } else { None };
                    if self.lives(deadline) {
                        f(pack.at(name).into(), Found { value: pack.at(value).into(), deadline });
                        return true;
                    }
                }
                Repr::Table(large) => {
                    let Some(field) = large.fields.random(rng) else { return false };
                    if self.lives(field.deadline()) {
                        let found = Found { value: field.value(), deadline: field.deadline() };
                        f(Text::Bytes(field.name()), found);
                        return true;
                    }
                }
            }
        }
        let mut living = self.len();
        if living == 0 {
            return false;
        }
        living = rng.usize(..living);
        let mut at = 0;
        self.for_each(|name, found| {
            if at == living {
                f(name, found);
            }
            at += 1;
        });
        true
    }

    /// Visits fields from `cursor` on, `count` or a few more (all at once in a listpack); returns the next
    /// cursor, 0 at the end. What is there all the time is visited once, whatever is added and removed meanwhile.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(Text<'_>, Found<'_>)) -> u64 {
        let Repr::Table(large) = &self.hash.0 else {
            self.for_each(f);
            return 0;
        };
        let Some(from) = cursor.checked_mul(1 << CURSOR_SHIFT) else { return 0 };
        let next = large.fields.scan(from, count, rehash, |field| {
            let found = Found { value: field.value(), deadline: field.deadline() };
            if self.lives(found.deadline) {
                f(Text::Bytes(field.name()), found);
            }
        });
        next.map_or(0, |next| next >> CURSOR_SHIFT)
    }
}
