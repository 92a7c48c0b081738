//! A small sorted set: a listpack of members in order, each followed by its score, as files hold it.

use std::cmp::Ordering;

use crate::stdx::hash::hash_bytes;
use crate::stdx::number::double::format_double;
use crate::stdx::number::{append_i64, parse_f64};
use crate::types::listpack::{Item, Listpack, Needle, Place};

/// A score as an element. Redis keeps integers as such, so that of a negative zero nothing but the zero is left.
pub fn score_text(score: f64) -> Vec<u8> {
    if score == 0.0 { b"0".to_vec() } else { format_double(score) }
}

/// The score that an element is.
fn score_of(item: Item<'_>) -> f64 {
    match item {
        Item::Int(n) => n as f64,
        // Nothing else is ever put there.
        Item::Bytes(text) => parse_f64(text).unwrap_or(0.0),
    }
}

/// Whether each second element is a number.
pub fn has_scores(pack: &Listpack) -> bool {
    pack.iter().skip(1).step_by(2).all(|item| match item {
        Item::Int(_) => true,
        Item::Bytes(text) => parse_f64(text).is_some_and(|score| !score.is_nan()),
    })
}

/// Whether members are in order of their scores, equal scores in order of their bytes, and surely differ.
pub fn is_in_order(pack: &Listpack) -> bool {
    let mut hashes = Vec::with_capacity(pack.len() / 2);
    let mut before: Option<(Vec<u8>, f64)> = None;
    for (member, score) in ascend(pack, 0) {
        let member = member.to_vec();
        hashes.push(hash_bytes(&member));
        if before.is_some_and(|(other, lower)| lower > score || lower == score && other >= member) {
            return false;
        }
        before = Some((member, score));
    }
    hashes.sort_unstable();
    hashes.is_sorted_by(|a, b| a < b)
}

/// Compares the bytes of an element.
pub fn compare(item: Item<'_>, bytes: &[u8]) -> Ordering {
    match item {
        Item::Int(n) => {
            let mut text = Vec::with_capacity(20);
            append_i64(&mut text, n);
            text.as_slice().cmp(bytes)
        }
        Item::Bytes(own) => own.cmp(bytes),
    }
}

/// The place of the score that follows a member.
fn score_place(pack: &Listpack, member: Place) -> Place {
    pack.next(member).expect("a score follows each member")
}

/// A member found: where it is, what comes before it, its score.
pub struct Found {
    place: Place,
    /// How many members come before.
    pub rank: usize,
    /// Its score.
    pub score: f64,
}

/// The member with these bytes.
pub fn find(pack: &Listpack, bytes: &[u8]) -> Option<Found> {
    let needle = Needle::new(bytes);
    let mut next = pack.first();
    let mut rank = 0;
    while let Some(place) = next {
        let (member, score) = pack.step(place);
        let score = score.expect("a score follows each member");
        if needle.is(member) {
            return Some(Found { place, rank, score: score_of(pack.at(score)) });
        }
        next = pack.next(score);
        rank += 1;
    }
    None
}

/// Removes a member that was found.
pub fn remove(pack: &mut Listpack, found: &Found) {
    if let Some(score) = pack.remove(found.place) {
        pack.remove(score);
    }
}

/// Adds a member, which is not there, in its place.
pub fn insert(pack: &mut Listpack, score: f64, bytes: &[u8]) {
    let mut next = pack.first();
    while let Some(place) = next {
        let behind = score_place(pack, place);
        let other = score_of(pack.at(behind));
        if other > score || other == score && compare(pack.at(place), bytes).is_gt() {
            pack.insert_before(place, &score_text(score));
            pack.insert_before(place, bytes);
            return;
        }
        next = pack.next(behind);
    }
    pack.push_back(bytes);
    pack.push_back(&score_text(score));
}

/// Members with their scores from `position` on, upwards.
pub fn ascend(pack: &Listpack, position: usize) -> impl Iterator<Item = (Item<'_>, f64)> {
    let mut next = pack.seek(2 * position);
    std::iter::from_fn(move || {
        let (member, score_place) = pack.step(next?);
        let (score, behind) = pack.step(score_place.expect("a score follows each member"));
        next = behind;
        Some((member, score_of(score)))
    })
}

/// Members with their scores from `position` on, downwards; none where there is no such position.
pub fn descend(pack: &Listpack, position: usize) -> impl Iterator<Item = (Item<'_>, f64)> {
    let mut next = pack.seek(2 * position + 1);
    std::iter::from_fn(move || {
        let score = next?;
        let member = pack.prev(score)?;
        next = pack.prev(member);
        Some((pack.at(member), score_of(pack.at(score))))
    })
}
