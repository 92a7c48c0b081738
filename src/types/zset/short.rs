//! A very small sorted set: a dense run of members in order, each followed by its score.

use std::ops::Range;

use smallvec::SmallVec;

use crate::types::dense::{self, Dense, Part, Run, Written};
use crate::types::listpack::{Item, Listpack};
use crate::types::zset::packed;

/// A member found: where it is with its score, what comes before it, its score.
pub struct Found {
    place: Range<usize>,
    /// How many members come before.
    pub rank: usize,
    /// Its score.
    pub score: f64,
}

/// The member with these bytes.
#[inline]
pub fn find(run: Run<'_>, bytes: &[u8]) -> Option<Found> {
    let (at, rank) = run.find(bytes)?;
    let (score, behind) = run.number(run.behind(at));
    Some(Found { place: at..behind, rank, score })
}

/// Removes a member that was found.
pub fn remove(dense: &mut Dense, found: &Found) {
    dense.replace(found.place.clone(), &[]);
}

/// Removes the members at these positions.
pub fn remove_range(dense: &mut Dense, range: Range<usize>) {
    let run = dense.run();
    let places = run.seek(2 * range.start)..run.seek(2 * range.end);
    dense.replace(places, &[]);
}

/// Adds a member, which is not there, in its place.
pub fn insert(dense: &mut Dense, score: f64, bytes: &[u8]) {
    let (run, mut at) = (dense.run(), 0);
    while at < run.end() {
        let behind = run.behind(at);
        let (other, next) = run.number(behind);
        if other > score || other == score && packed::compare(run.item(at).0, bytes).is_gt() {
            break;
        }
        at = next;
    }
    let mut new = Written::new();
    dense::write(Part::Text(bytes), &mut new);
    dense::write(Part::Number(score), &mut new);
    dense.replace(at..at, &new);
}

/// Members with their scores from `position` on, upwards.
pub fn ascend(run: Run<'_>, position: usize) -> impl Iterator<Item = (Item<'_>, f64)> {
    let mut at = run.seek(position.saturating_mul(2));
    std::iter::from_fn(move || {
        if at >= run.end() {
            return None;
        }
        let (member, behind) = run.item(at);
        let (score, behind) = run.number(behind);
        at = behind;
        Some((member, score))
    })
}

/// Members with their scores from `position` on, downwards; none where there is no such position.
pub fn descend(run: Run<'_>, position: usize) -> impl Iterator<Item = (Item<'_>, f64)> {
    // Nothing leads backwards.
    let (mut places, mut at) = (SmallVec::<[u16; 32]>::new(), 0);
    while at < run.end() && places.len() <= position {
        places.push(at as u16);
        at = run.behind(run.behind(at));
    }
    if places.len() <= position {
        places.clear();
    }
    std::iter::from_fn(move || {
        let (member, behind) = run.item(usize::from(places.pop()?));
        Some((member, run.number(behind).0))
    })
}

/// The listpack of the same members and scores.
pub fn listpack_of(run: Run<'_>) -> Listpack {
    let mut pack = Listpack::with_capacity(run.end() + run.count());
    for (member, score) in ascend(run, 0) {
        pack.push_back_item(member);
        pack.push_back(&packed::score_text(score));
    }
    pack
}

/// The run of the same members and scores as in a listpack, where it is not too long: scores may take more bytes.
pub fn dense_of(pack: &Listpack) -> Option<Dense> {
    let mut all = Written::new();
    for (member, score) in packed::ascend(pack, 0) {
        dense::write(
            match member {
                Item::Int(n) => Part::Int(n),
                Item::Bytes(bytes) => Part::Text(bytes),
            },
            &mut all,
        );
        dense::write(Part::Number(score), &mut all);
    }
    let mut dense = Dense::default();
    dense.replace(0..0, &all);
    (all.len() <= dense::MAX).then_some(dense)
}
