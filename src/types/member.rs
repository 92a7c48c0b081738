//! Byte strings of 8 bytes for the tables of sets and hashes: short ones inside, others in an allocation that
//! has no byte more than they have.
//!
//! ```text
//! up to 7 bytes   63                                            8 7    3 2 0
//!                 |                the bytes, first one lowest   | length | 1 |
//! up to 256       63        48 47                               1  0
//!                 |  length    | address of the bytes           |  0 |
//! longer          |  0         | address of a counted box       |  0 |
//! ```
//!
//! What must stay true: the length in the word is that of the allocation, so that it can be freed; long strings are
//! shared by their clones, so cloning a segment of a table copies a bounded number of bytes. Addresses use 47
//! bits and are even, and the machine is little endian, so that the bytes of a short string lie in order.
#![allow(unsafe_code, reason = "8 bytes and an exact allocation instead of the 16 and more of a boxed slice")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::stdx::hash::hash_bytes;
use crate::types::table::prefetch::prefetch;

const _: () = assert!(cfg!(target_endian = "little") && size_of::<usize>() == 8);

/// The longest string that lies in the word itself.
pub const INLINE_MAX: usize = 7;
/// The longest string whose clones are copies; longer ones are shared.
pub const COPIED_MAX: usize = 256;

const INLINE: usize = 1;
const INLINE_LEN_SHIFT: u32 = 3;
const LEN_SHIFT: u32 = 48;
const ADDRESS: usize = (1 << LEN_SHIFT) - 1;

/// What a long string lies in: a count, and where its bytes are.
type Long = Box<[u8]>;

/// An owned string of bytes, never changed.
pub struct Member(NonNull<u8>);

// SAFETY: a member owns its allocation, or one count of an `Arc` of bytes; both may be freed by any thread.
unsafe impl Send for Member {}
// SAFETY: `&Member` only reads.
unsafe impl Sync for Member {}

/// Which of the three forms a word has.
enum Form {
    Inline(usize),
    Copied(usize),
    Long,
}

impl Member {
    /// A string with these bytes.
    pub fn new(bytes: &[u8]) -> Member {
        match bytes.len() {
            len @ 0..=INLINE_MAX => {
                let mut word = [0; 8];
                word[0] = (len << INLINE_LEN_SHIFT | INLINE) as u8;
                word[1..=len].copy_from_slice(bytes);
                let word = usize::from_ne_bytes(word);
                Member(NonNull::new(ptr::without_provenance_mut(word)).expect("the lowest bit is set"))
            }
            len @ ..=COPIED_MAX => {
                let layout = layout(len);
                // SAFETY: the length is more than INLINE_MAX, so not zero.
                let at = unsafe { alloc(layout) };
                let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
                // SAFETY: freshly allocated for as many bytes, so it is no part of `bytes`.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr(), len) };
                debug_assert!(at.addr().get() <= ADDRESS);
                Member(at.map_addr(|address| address | len << LEN_SHIFT))
            }
            _ => {
                let at = Arc::into_raw(Arc::new(Long::from(bytes)));
                Member(NonNull::new(at.cast_mut()).expect("an Arc is somewhere").cast())
            }
        }
    }

    #[inline]
    fn form(&self) -> Form {
        let word = self.0.addr().get();
        if word & INLINE != 0 {
            return Form::Inline(word >> INLINE_LEN_SHIFT & INLINE_MAX);
        }
        match word >> LEN_SHIFT {
            0 => Form::Long,
            len => Form::Copied(len),
        }
    }

    #[inline]
    fn address(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|word| word & ADDRESS)
    }

    #[inline]
    fn long(&self) -> *const Long {
        self.address().cast_const().cast()
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self.form() {
            // SAFETY: the bytes follow the lowest one of the word, which `&self` keeps in its place; the length is 7
            // at most.
            Form::Inline(len) => unsafe { std::slice::from_raw_parts(ptr::from_ref(self).cast::<u8>().add(1), len) },
            // SAFETY: so many bytes were written there by `new`, and they live as long as `self`.
            Form::Copied(len) => unsafe { std::slice::from_raw_parts(self.address(), len) },
            // SAFETY: the pointer came out of `Arc::into_raw`, and we hold one count of it.
            Form::Long => unsafe { &*self.long() },
        }
    }

    /// Asks the processor to load its bytes.
    #[inline]
    pub fn prefetch(&self) {
        if !matches!(self.form(), Form::Inline(_)) {
            prefetch(self.address().addr());
        }
    }

    /// The hash that tables of members are asked with: [`hash_bytes`] of its bytes.
    #[inline]
    pub fn hash(&self) -> u64 {
        hash_bytes(self.bytes())
    }

    /// Bytes that it takes beside its word. Long strings count in full, though clones share them.
    pub fn allocated_bytes(&self) -> usize {
        match self.form() {
            Form::Inline(_) => 0,
            Form::Copied(len) => len,
            Form::Long => size_of::<Long>() + 2 * size_of::<usize>() + self.bytes().len(),
        }
    }
}

/// How a string of 8 to 256 bytes is allocated: at an even address.
fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, 2).expect("a few bytes can be allocated")
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        match self.form() {
            Form::Inline(_) => {}
            // SAFETY: `new` allocated it with this layout, and nobody else has it.
            Form::Copied(len) => unsafe { dealloc(self.address(), layout(len)) },
            // SAFETY: this gives back the count that `new` or `clone` took.
            Form::Long => drop(unsafe { Arc::from_raw(self.long()) }),
        }
    }
}

impl Clone for Member {
    fn clone(&self) -> Member {
        match self.form() {
            Form::Inline(_) => Member(self.0),
            Form::Copied(_) => Member::new(self.bytes()),
            Form::Long => {
                // SAFETY: the pointer came out of `Arc::into_raw` and is alive; the new member owns the new count.
                unsafe { Arc::increment_strong_count(self.long()) };
                Member(self.0)
            }
        }
    }
}

impl PartialEq for Member {
    #[inline]
    fn eq(&self, other: &Member) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Member {}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_of_every_length_come_back_and_take_what_they_should() {
        assert_eq!(size_of::<Member>(), 8);
        assert_eq!(size_of::<Option<Member>>(), 8);
        for len in (0..300).step_by(if cfg!(miri) { 7 } else { 1 }).chain([1000, 65_535, 65_536]) {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            let member = Member::new(&bytes);
            assert_eq!(member.bytes(), bytes);
            let beyond = match len {
                short if short <= INLINE_MAX => 0,
                copied if copied <= COPIED_MAX => len,
                _ => len + 32,
            };
            assert_eq!(member.allocated_bytes(), beyond);
            let clone = member.clone();
            drop(member);
            assert_eq!(clone.bytes(), bytes);
        }
    }

    #[test]
    fn long_strings_are_shared_by_their_clones() {
        let member = Member::new(&[7; COPIED_MAX + 1]);
        let clone = member.clone();
        assert_eq!(member.bytes().as_ptr(), clone.bytes().as_ptr());
        let moved = std::thread::spawn(move || (clone.bytes().len(), clone)).join().unwrap();
        drop(member);
        assert_eq!(moved.1.bytes(), [7; COPIED_MAX + 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn members_are_equal_where_their_bytes_are(
            a in prop::collection::vec(0u8..3, 0..10), b in prop::collection::vec(0u8..3, 0..10),
        ) {
            let (x, y) = (Member::new(&a), Member::new(&b));
            prop_assert_eq!(x == y, a == b);
            prop_assert_eq!(x.hash() == y.hash(), a == b);
            prop_assert_eq!(x.bytes(), &a[..]);
        }
    }
}
