//! A member of a large sorted set: its score and its bytes, stored once and referred to by tree and index.
//!
//! ```text
//! score: f64 | references: u16 | length: u8, or 255 and u64 | bytes
//! ```
//! A handle is a pointer whose upper 16 bits are the holder's to use (the tree keeps a piece of the score there).
//!
//! What must stay true: the count is the number of handles; what they refer to is written only through
//! [`Member::set_score`], by one who has borrowed all of them.
#![allow(unsafe_code, reason = "one allocation behind two pointers: half of what an Arc for each takes")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering, fence};

use crate::types::table::prefetch::prefetch;

const REFERENCES_AT: usize = 8;
const LEN_AT: usize = 10;
const HEADER: usize = 11;
/// The length byte that says that the length follows in 8 bytes.
const LONG: u8 = 255;
const HEADER_LONG: usize = HEADER + 8;

/// The bits of a handle that are the address.
const ADDRESS: usize = (1 << TAG_SHIFT) - 1;
const TAG_SHIFT: u32 = 48;

/// Beyond so many references a clone is an allocation of its own. Far from where the count would overflow,
/// because threads that clone at the same time may each add one more.
const MOST_REFERENCES: u16 = if cfg!(miri) { 200 } else { u16::MAX / 2 };

/// A handle to a member: a counted pointer, whose upper bits are the holder's.
pub struct Member(NonNull<u8>);

// SAFETY: what is referred to does not change while more than one thread can see it (see `set_score`), and
// the count is atomic.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl Member {
    /// Two handles to a new member.
    pub fn pair(score: f64, bytes: &[u8]) -> (Member, Member) {
        let one = Member::allocate(score, bytes, 2);
        let other = Member(one.0);
        (one, other)
    }

    /// The caller makes as many handles as `references` says.
    fn allocate(score: f64, bytes: &[u8], references: u16) -> Member {
        let long = bytes.len() >= usize::from(LONG);
        let header = if long { HEADER_LONG } else { HEADER };
        let layout = layout(header + bytes.len());
        // SAFETY: the layout is not empty and has room for header and bytes; each field is written inside of it,
        // the first two at multiples of their alignment.
        unsafe {
            let Some(at) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            assert!(at.addr().get() & !ADDRESS == 0, "an address of more than 48 bits");
            at.cast::<f64>().write(score);
            at.add(REFERENCES_AT).cast::<AtomicU16>().write(AtomicU16::new(references));
            at.add(LEN_AT).write(if long { LONG } else { bytes.len() as u8 });
            if long {
                at.add(HEADER).cast::<u64>().write_unaligned(bytes.len() as u64);
            }
            ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr().add(header), bytes.len());
            Member(at)
        }
    }

    #[inline]
    fn base(&self) -> NonNull<u8> {
        // SAFETY: an allocation is never at address 0.
        self.0.map_addr(|at| unsafe { std::num::NonZeroUsize::new_unchecked(at.get() & ADDRESS) })
    }

    #[inline]
    fn references(&self) -> &AtomicU16 {
        // SAFETY: the allocation lives while there is a handle, and holds the count there.
        unsafe { self.base().add(REFERENCES_AT).cast::<AtomicU16>().as_ref() }
    }

    /// The score.
    #[inline]
    pub fn score(&self) -> f64 {
        // SAFETY: the allocation lives while there is a handle; nobody writes while handles are only shared.
        unsafe { self.base().cast::<f64>().read() }
    }

    /// Where the bytes begin and how many there are.
    #[inline]
    fn extent(&self) -> (usize, usize) {
        // SAFETY: the fields were written when the member was made, and never since.
        unsafe {
            match self.base().add(LEN_AT).read() {
                LONG => (HEADER_LONG, self.base().add(HEADER).cast::<u64>().read_unaligned() as usize),
                len => (HEADER, usize::from(len)),
            }
        }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let (at, len) = self.extent();
        // SAFETY: so many bytes were written there when the member was made, and never since.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr().add(at), len) }
    }

    /// Whether both are handles to the same member.
    #[inline]
    pub fn is(&self, other: &Member) -> bool {
        self.base() == other.base()
    }

    /// Bytes that a member of so many bytes takes.
    pub fn memory(len: usize) -> usize {
        len + if len >= usize::from(LONG) { HEADER_LONG } else { HEADER }
    }

    /// What this handle's holder has noted in it; 0 in the beginning and after a change of score.
    #[inline]
    pub fn tag(&self) -> u16 {
        (self.0.addr().get() >> TAG_SHIFT) as u16
    }

    /// Notes something in this handle, not in others to the same member.
    #[inline]
    pub fn set_tag(&mut self, tag: u16) {
        let base = self.base();
        self.0 = base.map_addr(|at| at | usize::from(tag) << TAG_SHIFT);
    }

    /// Gives the member of both handles, which have the same bytes, another score; whoever has further handles
    /// keeps the old one.
    pub fn set_score(one: &mut Member, other: &mut Member, score: f64) {
        if one.base() == other.base() && one.references().load(Ordering::Acquire) == 2 {
            // SAFETY: there are two handles, both are borrowed exclusively here, and they are not the same one, so
            // nobody can read or clone meanwhile. Acquire: whoever dropped a third one has done its reading.
            unsafe { one.base().cast::<f64>().write(score) }
            return;
        }
        (*one, *other) = Member::pair(score, one.bytes());
    }

    /// Hints the processor at the member.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.base().addr().get());
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a member is far smaller than isize::MAX")
}

impl Clone for Member {
    /// Another handle, with the same tag.
    fn clone(&self) -> Member {
        if self.references().load(Ordering::Relaxed) > MOST_REFERENCES {
            let mut copy = Member::allocate(self.score(), self.bytes(), 1);
            copy.set_tag(self.tag());
            return copy;
        }
        self.references().fetch_add(1, Ordering::Relaxed);
        Member(self.0)
    }
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        if self.references().fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let (at, len) = self.extent();
            // SAFETY: this was the last handle, and the layout is that of `allocate`.
            unsafe { dealloc(self.base().as_ptr(), layout(at + len)) }
        }
    }
}

/// Drops two handles to the same member: one change of its count instead of two.
pub fn drop_pair(one: Member, other: Member) {
    if one.base() != other.base() {
        return;
    }
    // The second handle's share is given up with the first one's, below.
    let other = ManuallyDrop::new(other);
    if one.references().load(Ordering::Acquire) != 2 {
        drop(ManuallyDrop::into_inner(other));
        return;
    }
    // Nobody else has a handle, so nobody can make one: the count needs no atomic change.
    one.references().store(1, Ordering::Relaxed);
    drop(one);
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", String::from_utf8_lossy(self.bytes()), self.score())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_keeps_score_and_bytes_of_any_length() {
        for len in [0, 1, 16, 254, 255, 256, 70_000] {
            let bytes = vec![b'm'; len];
            let (a, b) = Member::pair(-1.5, &bytes);
            assert_eq!((a.score(), a.bytes(), a.tag()), (-1.5, &bytes[..], 0));
            assert_eq!((b.score(), b.bytes()), (-1.5, &bytes[..]));
            drop(a);
            assert_eq!(b.bytes(), bytes);
        }
    }

    #[test]
    fn a_tag_belongs_to_its_handle() {
        let (mut a, b) = Member::pair(1.0, b"m");
        a.set_tag(0xffff);
        let c = a.clone();
        assert_eq!((a.tag(), b.tag(), c.tag()), (0xffff, 0, 0xffff));
        assert_eq!((a.score(), a.bytes()), (1.0, &b"m"[..]));
        a.set_tag(7);
        assert_eq!((a.tag(), c.tag()), (7, 0xffff));
    }

    #[test]
    fn a_new_score_is_not_seen_by_those_with_older_handles() {
        let (mut a, mut b) = Member::pair(1.0, b"m");
        let at = a.base();
        Member::set_score(&mut a, &mut b, 2.0);
        assert_eq!((a.score(), b.score(), a.base()), (2.0, 2.0, at));
        let old = a.clone();
        Member::set_score(&mut a, &mut b, 3.0);
        assert_eq!((a.score(), b.score(), old.score()), (3.0, 3.0, 2.0));
        assert_eq!((a.base(), a.bytes()), (b.base(), &b"m"[..]));
    }

    #[test]
    fn more_handles_than_can_be_counted_are_copies() {
        let (a, b) = Member::pair(1.0, b"m");
        let many: Vec<Member> = (0..u32::from(MOST_REFERENCES) * 5 / 4).map(|_| a.clone()).collect();
        assert!(many.iter().all(|m| (m.score(), m.bytes()) == (1.0, &b"m"[..])));
        assert!(a.references().load(Ordering::Relaxed) <= MOST_REFERENCES + 1);
        drop(many);
        assert_eq!(a.references().load(Ordering::Relaxed), 2);
        drop_pair(a, b);
    }

    #[test]
    fn a_pair_is_dropped_at_once_and_leaves_others_alone() {
        let (a, b) = Member::pair(1.0, b"m");
        let third = b.clone();
        drop_pair(a, b);
        assert_eq!((third.bytes(), third.references().load(Ordering::Relaxed)), (&b"m"[..], 1));
        let (a, b) = Member::pair(1.0, b"m");
        drop_pair(a, third.clone());
        assert_eq!(b.references().load(Ordering::Relaxed), 1);
    }

    #[test]
    fn threads_share_members() {
        let (a, b) = Member::pair(1.0, b"member");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mine = a.clone();
                scope.spawn(move || {
                    for _ in 0..100 {
                        assert_eq!((mine.clone().bytes(), mine.score()), (&b"member"[..], 1.0));
                    }
                });
            }
        });
        drop_pair(a, b);
    }
}
