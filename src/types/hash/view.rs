//! Hashes as those see them who only read.

use std::borrow::Cow;

use crate::types::ahead::Elements;
use crate::types::dense::Run;
use crate::types::hash::due::Due;
use crate::types::hash::{Found, Large, Layout, Text, after, deadline_at, find_in, rehash};
use crate::types::listpack::Listpack;
use crate::types::table::CURSOR_SHIFT;

/// A hash, borrowed, whatever it is made of.
#[derive(Clone, Copy)]
pub struct HashRef<'a>(Form<'a>);

/// What it is made of.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    Dense(Run<'a>),
    Packed(&'a Listpack),
    Timed(&'a Listpack),
    Table(&'a Large),
}

/// The listpack of names and values that a dense run is.
pub(super) fn listpack_of(run: Run<'_>) -> Listpack {
    let mut pack = Listpack::with_capacity(run.end() + run.count());
    let mut at = 0;
    while at < run.end() {
        let (item, behind) = run.item(at);
        pack.push_back_item(item);
        at = behind;
    }
    pack
}

impl<'a> HashRef<'a> {
    /// The hash that a dense run of names and values is.
    #[inline]
    pub fn dense(run: Run<'a>) -> HashRef<'a> {
        HashRef(Form::Dense(run))
    }

    #[inline]
    pub(super) fn of(form: Form<'a>) -> HashRef<'a> {
        HashRef(form)
    }

    /// The number of fields, those included whose deadline has passed.
    pub fn len(self) -> usize {
        match self.0 {
            Form::Dense(run) => run.count() / 2,
            Form::Packed(pack) => pack.len() / 2,
            Form::Timed(pack) => pack.len() / 3,
            Form::Table(large) => large.fields.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        match self.0 {
            Form::Dense(run) => run.end() == 0,
            _ => self.len() == 0,
        }
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(self) -> &'static str {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) => "listpack",
            Form::Timed(_) => "listpackex",
            Form::Table(_) => "hashtable",
        }
    }

    /// Bytes that it takes beside those that it is borrowed from. Of a large hash some hundred fields are looked at, and all taken to be alike.
    pub fn memory(self) -> usize {
        const SAMPLES: usize = 512;
        match self.0 {
            Form::Dense(_) => 0,
            Form::Packed(pack) | Form::Timed(pack) => pack.memory(),
            Form::Table(large) => {
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
    pub fn at(self, now: u64) -> Living<'a> {
        Living { hash: self, now }
    }

    /// The table of its fields, where it is large.
    #[inline]
    pub fn elements(self) -> Option<Elements<'a>> {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) | Form::Timed(_) => None,
            Form::Table(large) => Some(Elements::Fields(&large.fields)),
        }
    }

    /// What is known of a field, whether its deadline has passed or not.
    pub fn find(self, name: &[u8]) -> Option<Found<'a>> {
        match self.0 {
            Form::Dense(run) => {
                let (at, _) = run.find(name)?;
                Some(Found { value: run.item(run.behind(at)).0.into(), deadline: None })
            }
            Form::Packed(pack) => {
                let place = find_in(pack, 2, name)?;
                Some(Found { value: pack.at(after(pack, place)).into(), deadline: None })
            }
            Form::Timed(pack) => {
                let value = after(pack, find_in(pack, 3, name)?);
                let deadline = deadline_at(pack, after(pack, value));
                Some(Found { value: pack.at(value).into(), deadline })
            }
            Form::Table(large) => {
                let field = large.find(name)?;
                Some(Found { value: field.value(), deadline: field.deadline() })
            }
        }
    }

    /// Calls `f` for every field, whether its deadline has passed or not.
    pub fn for_each(self, mut f: impl FnMut(Text<'_>, Found<'_>)) {
        match self.0 {
            Form::Dense(run) => {
                let mut at = 0;
                while at < run.end() {
                    let (name, behind) = run.item(at);
                    let (value, behind) = run.item(behind);
                    f(name.into(), Found { value: value.into(), deadline: None });
                    at = behind;
                }
            }
            Form::Packed(pack) => {
                let mut items = pack.iter();
                while let (Some(name), Some(value)) = (items.next(), items.next()) {
                    f(name.into(), Found { value: value.into(), deadline: None });
                }
            }
            Form::Timed(pack) => {
                let mut next = pack.first();
                while let Some(name) = next {
                    let value = after(pack, name);
                    let deadline = after(pack, value);
                    let found = Found { value: pack.at(value).into(), deadline: deadline_at(pack, deadline) };
                    f(pack.at(name).into(), found);
                    next = pack.next(deadline);
                }
            }
            Form::Table(large) => large.fields.iter().for_each(|field| {
                f(Text::Bytes(field.name()), Found { value: field.value(), deadline: field.deadline() });
            }),
        }
    }

    /// What the listpack holds of each field that the hash is where it is small.
    pub fn layout(self) -> Option<Layout> {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) => Some(Layout::Plain),
            Form::Timed(_) => Some(Layout::Timed),
            Form::Table(_) => None,
        }
    }

    /// The listpack that the hash is where it is small, as files hold it.
    pub fn listpack(self) -> Option<(Cow<'a, Listpack>, Layout)> {
        match self.0 {
            Form::Dense(run) => Some((Cow::Owned(listpack_of(run)), Layout::Plain)),
            Form::Packed(pack) => Some((Cow::Borrowed(pack), Layout::Plain)),
            Form::Timed(pack) => Some((Cow::Borrowed(pack), Layout::Timed)),
            Form::Table(_) => None,
        }
    }

    /// The earliest deadline of a field.
    #[inline]
    pub fn first_deadline(self) -> Option<u64> {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) => None,
            Form::Timed(pack) => {
                let value = after(pack, pack.first()?);
                deadline_at(pack, after(pack, value))
            }
            Form::Table(large) => large.due.as_ref()?.first(),
        }
    }
}

/// A hash as it is at one moment. See [`HashRef::at`].
#[derive(Clone, Copy)]
pub struct Living<'a> {
    hash: HashRef<'a>,
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
        match self.hash.0 {
            Form::Dense(_) | Form::Packed(_) => self.hash.len(),
            Form::Timed(_) => {
                let mut living = 0;
                self.hash.for_each(|_, found| living += usize::from(self.lives(found.deadline)));
                living
            }
            Form::Table(large) => large.fields.len() - large.due.as_ref().map_or(0, |due| due.count_before(self.now)),
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
            match self.hash.0 {
                Form::Dense(run) => {
                    let fields = run.count() / 2;
                    if fields == 0 {
                        return false;
                    }
                    let (name, behind) = run.item(run.seek(2 * rng.usize(..fields)));
                    f(name.into(), Found { value: run.item(behind).0.into(), deadline: None });
                    return true;
                }
                Form::Packed(pack) | Form::Timed(pack) => {
                    let stride = if matches!(self.hash.0, Form::Timed(_)) { 3 } else { 2 };
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
                Form::Table(large) => {
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
        let Form::Table(large) = self.hash.0 else {
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
