//! Sorted sets as those see them who only read.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::types::ahead::Elements;
use crate::types::dense::Run;
use crate::types::listpack::{Item, Listpack};
use crate::types::zset::member::Member;
use crate::types::zset::sorted::Sorted;
use crate::types::zset::{Direction, packed, short};

/// A sorted set, borrowed, whatever it is made of.
#[derive(Clone, Copy)]
pub struct ZSetRef<'a>(Form<'a>);

/// What it is made of.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    Dense(Run<'a>),
    Packed(&'a Listpack),
    Sorted(&'a Sorted),
}

fn item(member: &Member) -> (Item<'_>, f64) {
    (Item::Bytes(member.bytes()), member.score())
}

impl<'a> ZSetRef<'a> {
    /// The sorted set that a dense run of members and scores is.
    #[inline]
    pub fn dense(run: Run<'a>) -> ZSetRef<'a> {
        ZSetRef(Form::Dense(run))
    }

    #[inline]
    pub(super) fn of(form: Form<'a>) -> ZSetRef<'a> {
        ZSetRef(form)
    }

    /// The number of members.
    pub fn len(self) -> usize {
        match self.0 {
            Form::Dense(run) => run.count() / 2,
            Form::Packed(pack) => pack.len() / 2,
            Form::Sorted(sorted) => sorted.len(),
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
            Form::Sorted(_) => "skiplist",
        }
    }

    /// Bytes that it takes beside those that it is borrowed from. Looks at every node of a large one.
    pub fn memory(self) -> usize {
        match self.0 {
            Form::Dense(_) => 0,
            Form::Packed(pack) => pack.memory(),
            Form::Sorted(sorted) => sorted.memory(),
        }
    }

    /// The listpack that it is, members and scores by turns, where it is small, as files hold it.
    pub fn listpack(self) -> Option<Cow<'a, Listpack>> {
        match self.0 {
            Form::Dense(run) => Some(Cow::Owned(short::listpack_of(run))),
            Form::Packed(pack) => Some(Cow::Borrowed(pack)),
            Form::Sorted(_) => None,
        }
    }

    /// The table of its members, where it is large.
    #[inline]
    pub fn elements(self) -> Option<Elements<'a>> {
        if let Form::Sorted(sorted) = self.0 { Some(sorted.elements()) } else { None }
    }

    /// The score of a member.
    pub fn score(self, member: &[u8]) -> Option<f64> {
        match self.0 {
            Form::Dense(run) => short::find(run, member).map(|found| found.score),
            Form::Packed(pack) => packed::find(pack, member).map(|found| found.score),
            Form::Sorted(sorted) => sorted.score(member),
        }
    }

    /// How many members come before this one, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(usize, f64)> {
        match self.0 {
            Form::Dense(run) => short::find(run, member).map(|found| (found.rank, found.score)),
            Form::Packed(pack) => packed::find(pack, member).map(|found| (found.rank, found.score)),
            Form::Sorted(sorted) => sorted.rank(member),
        }
    }

    /// The positions of the members for which `side` is `Equal`; `Less` are those before, `Greater` those behind.
    ///
    /// A small set is looked at from its beginning on: what comes out where `side` does not follow the order of the
    /// members (their bytes, while scores differ) is as in Redis.
    pub fn span(self, side: impl Fn(Item<'_>, f64) -> Ordering) -> Range<usize> {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) => {
                let count = |from: usize, until: Ordering| {
                    self.iter(from, Direction::Up).take_while(|(item, score)| side(*item, *score) < until).count()
                };
                let start = count(0, Ordering::Equal);
                start..start + count(start, Ordering::Greater)
            }
            Form::Sorted(sorted) => {
                let count = |until: Ordering| {
                    sorted.tree.partition(|member| {
                        let (item, score) = item(member);
                        side(item, score) < until
                    })
                };
                let start = count(Ordering::Equal);
                start..count(Ordering::Greater).max(start)
            }
        }
    }

    /// Members with their scores from `position` on, in either direction; none where there is no such position.
    pub fn iter(self, position: usize, direction: Direction) -> impl Iterator<Item = (Item<'a>, f64)> + use<'a> {
        match (self.0, direction) {
            (Form::Dense(run), Direction::Up) => Iter::DenseUp(short::ascend(run, position)),
            (Form::Dense(run), Direction::Down) => Iter::DenseDown(short::descend(run, position)),
            (Form::Packed(pack), Direction::Up) => Iter::PackedUp(packed::ascend(pack, position)),
            (Form::Packed(pack), Direction::Down) => Iter::PackedDown(packed::descend(pack, position)),
            (Form::Sorted(sorted), Direction::Up) => Iter::SortedUp(sorted.tree.ascend(position).map(item)),
            (Form::Sorted(sorted), Direction::Down) => Iter::SortedDown(sorted.tree.descend(position).map(item)),
        }
    }

    /// The member at `position`, and its score.
    pub fn at(self, position: usize) -> Option<(Item<'a>, f64)> {
        self.iter(position, Direction::Up).next()
    }

    /// Calls `f` for some members with their scores, about `budget`, from `cursor` on, which is 0 in the beginning; returns
    /// where to go on, `None` at the end. A small set comes as a whole. Those that are there from the first call
    /// to the last are visited, whatever happens to others between calls.
    pub fn scan(self, cursor: u64, budget: usize, mut f: impl FnMut(Item<'_>, f64)) -> Option<u64> {
        match self.0 {
            Form::Dense(_) | Form::Packed(_) => {
                self.iter(0, Direction::Up).for_each(|(item, score)| f(item, score));
                None
            }
            Form::Sorted(sorted) => sorted.scan(cursor, budget, |member| f(item(member).0, member.score())),
        }
    }
}

/// The iterators of all forms in both directions, as one.
enum Iter<A, B, C, D, E, F> {
    DenseUp(E),
    DenseDown(F),
    PackedUp(A),
    PackedDown(B),
    SortedUp(C),
    SortedDown(D),
}

impl<T, A, B, C, D, E, F> Iterator for Iter<A, B, C, D, E, F>
where
    A: Iterator<Item = T>,
    B: Iterator<Item = T>,
    C: Iterator<Item = T>,
    D: Iterator<Item = T>,
    E: Iterator<Item = T>,
    F: Iterator<Item = T>,
{
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Iter::DenseUp(iter) => iter.next(),
            Iter::DenseDown(iter) => iter.next(),
            Iter::PackedUp(iter) => iter.next(),
            Iter::PackedDown(iter) => iter.next(),
            Iter::SortedUp(iter) => iter.next(),
            Iter::SortedDown(iter) => iter.next(),
        }
    }
}
