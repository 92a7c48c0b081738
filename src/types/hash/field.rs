//! A field of a large hash: its name, its value and perhaps a deadline, in one allocation behind an 8-byte pointer.
//!
//! ```text
//! short    name length: 1 byte, below 240 | value length: 1 byte | name | value
//! long     flags: 1 byte, from 240 on | name length: 2 or 8 bytes | value length: 2 bytes | [deadline: 8] | name | value
//! ```
//! A value of more than [`INLINE_MAX`] bytes is kept outside, behind a reference count of its own: a copy of
//! the field shares it, and so can a reply. The value's length is then 8, that of the pointer.
//!
//! What must stay true: the size of the allocation follows from its first bytes alone, so that it can be freed.
#![allow(unsafe_code, reason = "two bytes beside name and value: a fifth of a hash's memory")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::types::hash::Text;
use crate::types::table::prefetch::prefetch;

/// A longer value lives in an allocation of its own, which replies and copies can share.
pub const INLINE_MAX: usize = 8 * 1024;

/// A first byte from here on is one of flags.
const LONG: u8 = 240;
const LONG_NAME: u8 = 1;
const OUTSIDE: u8 = 2;
const DEADLINE: u8 = 4;

/// A field, owned.
pub struct Field(NonNull<u8>);

// SAFETY: a field owns its allocation alone; what hangs off it (`Arc<Vec<u8>>`) is Send and Sync.
unsafe impl Send for Field {}
// SAFETY: `&Field` only reads.
unsafe impl Sync for Field {}

/// A value that is kept outside its field, borrowed from it.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    at: *const Vec<u8>,
    field: PhantomData<&'a Field>,
}

impl<'a> Outside<'a> {
    /// The bytes.
    pub fn bytes(self) -> &'a Vec<u8> {
        // SAFETY: the field holds one count of the Arc, and `'a` borrows the field.
        unsafe { &*self.at }
    }

    /// One more owner of the bytes.
    pub fn share(self) -> Arc<Vec<u8>> {
        // SAFETY: the pointer came out of `Arc::into_raw`, and the field keeps it alive.
        unsafe {
            Arc::increment_strong_count(self.at);
            Arc::from_raw(self.at)
        }
    }
}

/// What stands where in an allocation.
#[derive(Clone, Copy)]
struct Shape {
    flags: u8,
    name_at: usize,
    name_len: usize,
    value_len: usize,
}

impl Shape {
    /// For a field like this; `value_len` is what is kept inside.
    fn of(name_len: usize, value_len: usize, outside: bool, deadline: bool) -> Shape {
        if name_len < usize::from(LONG) && value_len <= usize::from(u8::MAX) && !outside && !deadline {
            return Shape { flags: 0, name_at: 2, name_len, value_len };
        }
        let mut flags = LONG;
        let mut name_at = 1 + 2 + 2;
        if name_len > usize::from(u16::MAX) {
            flags |= LONG_NAME;
            name_at += 6;
        }
        if outside {
            flags |= OUTSIDE;
        }
        if deadline {
            flags |= DEADLINE;
            name_at += 8;
        }
        Shape { flags, name_at, name_len, value_len }
    }

    /// SAFETY: `at` must be the beginning of a field's allocation.
    #[inline]
    unsafe fn read(at: *const u8) -> Shape {
        // SAFETY: by the caller's promise; the flags say what follows them.
        unsafe {
            let first = at.read();
            if first < LONG {
                let value_len = usize::from(at.add(1).read());
                return Shape { flags: 0, name_at: 2, name_len: usize::from(first), value_len };
            }
            let (name_len, value_at) = if first & LONG_NAME != 0 {
                (u64::from_le(at.add(1).cast::<u64>().read_unaligned()) as usize, 9)
            } else {
                (usize::from(u16::from_le(at.add(1).cast::<u16>().read_unaligned())), 3)
            };
            let value_len = usize::from(u16::from_le(at.add(value_at).cast::<u16>().read_unaligned()));
            let name_at = value_at + 2 + if first & DEADLINE != 0 { 8 } else { 0 };
            Shape { flags: first, name_at, name_len, value_len }
        }
    }

    fn value_at(self) -> usize {
        self.name_at + self.name_len
    }

    fn layout(self) -> Layout {
        let size = self.value_at() + self.value_len;
        Layout::from_size_align(size, 1).expect("a name and an inline value are far smaller than isize::MAX")
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Field {
    /// A field; a value of more than [`INLINE_MAX`] bytes is kept outside, or shared where it is already.
    pub fn new(name: &[u8], value: Text<'_>, deadline: Option<u64>) -> Field {
        match value {
            Text::Int(n) => Field::inline(name, n.to_string().as_bytes(), deadline),
            Text::Bytes(bytes) if bytes.len() <= INLINE_MAX => Field::inline(name, bytes, deadline),
            Text::Bytes(bytes) => Field::outside(name, Arc::new(bytes.to_vec()), deadline),
            Text::Outside(bytes) => Field::outside(name, bytes.share(), deadline),
        }
    }

    fn inline(name: &[u8], value: &[u8], deadline: Option<u64>) -> Field {
        let shape = Shape::of(name.len(), value.len(), false, deadline.is_some());
        let field = Field::allocate(shape, name, deadline);
        // SAFETY: the shape has room for the value behind the name.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), field.0.as_ptr().add(shape.value_at()), value.len()) };
        field
    }

    fn outside(name: &[u8], value: Arc<Vec<u8>>, deadline: Option<u64>) -> Field {
        let shape = Shape::of(name.len(), size_of::<*const Vec<u8>>(), true, deadline.is_some());
        let field = Field::allocate(shape, name, deadline);
        // SAFETY: the shape has room for the pointer behind the name; its flags say that one stands there.
        unsafe {
            let at = field.0.as_ptr().add(shape.value_at()).cast::<*const Vec<u8>>();
            at.write_unaligned(Arc::into_raw(value));
        }
        field
    }

    /// Allocates for `shape` and writes everything but the value.
    fn allocate(shape: Shape, name: &[u8], deadline: Option<u64>) -> Field {
        let layout = shape.layout();
        // SAFETY: the size is two bytes at least, never zero.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let mut head = [0; 19];
        if shape.flags == 0 {
            head[..2].copy_from_slice(&[shape.name_len as u8, shape.value_len as u8]);
        } else {
            let value_at = if shape.has(LONG_NAME) { 9 } else { 3 };
            head[0] = shape.flags;
            head[1..9].copy_from_slice(&(shape.name_len as u64).to_le_bytes());
            head[value_at..value_at + 2].copy_from_slice(&(shape.value_len as u16).to_le_bytes());
            if let Some(deadline) = deadline {
                head[value_at + 2..value_at + 10].copy_from_slice(&deadline.to_le_bytes());
            }
        }
        // SAFETY: freshly allocated with room for head and name, which do not overlap.
        unsafe {
            ptr::copy_nonoverlapping(head.as_ptr(), at.as_ptr(), shape.name_at);
            ptr::copy_nonoverlapping(name.as_ptr(), at.as_ptr().add(shape.name_at), name.len());
        }
        Field(at)
    }

    /// Asks the processor to load its beginning.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.0.addr().get());
    }

    #[inline]
    fn shape(&self) -> Shape {
        // SAFETY: we own an allocation that was written by `allocate`.
        unsafe { Shape::read(self.0.as_ptr()) }
    }

    /// Its name.
    #[inline]
    pub fn name(&self) -> &[u8] {
        let shape = self.shape();
        // SAFETY: so many bytes of the name stand there.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(shape.name_at), shape.name_len) }
    }

    /// Its value.
    #[inline]
    pub fn value(&self) -> Text<'_> {
        let shape = self.shape();
        // SAFETY: the value stands behind the name; the flags say whether it is a pointer.
        unsafe {
            let at = self.0.as_ptr().add(shape.value_at());
            if shape.has(OUTSIDE) {
                return Text::Outside(Outside { at: at.cast::<*const Vec<u8>>().read_unaligned(), field: PhantomData });
            }
            Text::Bytes(std::slice::from_raw_parts(at, shape.value_len))
        }
    }

    /// When it expires: Unix time in milliseconds.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        let shape = self.shape();
        if !shape.has(DEADLINE) {
            return None;
        }
        // SAFETY: with this flag the deadline stands before the name.
        Some(u64::from_le(unsafe { self.0.as_ptr().add(shape.name_at - 8).cast::<u64>().read_unaligned() }))
    }

    /// Replaces value and deadline; in place where neither changes how the field is laid out.
    pub fn set(&mut self, value: Text<'_>, deadline: Option<u64>) {
        let shape = self.shape();
        match value {
            Text::Bytes(bytes) if shape.flags == 0 && deadline.is_none() && bytes.len() == shape.value_len => {
                // SAFETY: as many bytes of the old value stand there, and `&mut self` makes us their only user.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(shape.value_at()), bytes.len()) };
            }
            value => *self = Field::new(self.name(), value, deadline),
        }
    }

    /// Sets or removes the deadline.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        let shape = self.shape();
        match deadline {
            Some(deadline) if shape.has(DEADLINE) => {
                // SAFETY: with this flag the deadline stands before the name.
                unsafe { self.0.as_ptr().add(shape.name_at - 8).cast::<u64>().write_unaligned(deadline.to_le()) };
            }
            deadline => *self = Field::new(self.name(), self.value(), deadline),
        }
    }

    /// Bytes of its allocation and of what hangs off it.
    pub fn memory(&self) -> usize {
        let outside = match self.value() {
            // The counts of the Arc, the vector's three words, its buffer.
            Text::Outside(value) => 16 + 24 + value.bytes().capacity(),
            _ => 0,
        };
        self.shape().layout().size() + outside
    }
}

impl Clone for Field {
    /// A copy of name and deadline; a value that is kept outside is shared.
    fn clone(&self) -> Field {
        Field::new(self.name(), self.value(), self.deadline())
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        let shape = self.shape();
        // SAFETY: what the flags say stands there is ours; the allocation was made with this layout, and
        // nothing refers to it any more.
        unsafe {
            if shape.has(OUTSIDE) {
                let at = self.0.as_ptr().add(shape.value_at()).cast::<*const Vec<u8>>();
                drop(Arc::from_raw(at.read_unaligned()));
            }
            dealloc(self.0.as_ptr(), shape.layout());
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(self.name());
        write!(f, "Field({name:?}, {} bytes, {:?})", self.value().len(), self.deadline())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_field_takes_two_bytes_beside_its_text() {
        let field = Field::new(&[b'n'; 16], Text::Bytes(&[b'v'; 32]), None);
        assert_eq!((size_of::<Field>(), field.memory()), (8, 50));
        let field = Field::new(&[b'n'; 16], Text::Bytes(&[b'v'; 32]), Some(1));
        assert_eq!(field.memory(), 61);
    }

    #[test]
    fn a_copy_shares_a_value_that_is_kept_outside_until_one_of_the_two_changes() {
        let mut field = Field::new(b"name", Text::Bytes(&vec![7; INLINE_MAX + 1]), None);
        let copy = field.clone();
        let Text::Outside(value) = copy.value() else { panic!("too long to be inside") };
        assert_eq!(Arc::strong_count(&value.share()), 3);
        field.set(Text::Int(5), None);
        assert_eq!(Arc::strong_count(&value.share()), 2);
        assert_eq!((field.value().to_vec(), value.bytes().len()), (b"5".to_vec(), INLINE_MAX + 1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(Vec<u8>, Option<u64>),
        SetInt(i64),
        Deadline(Option<u64>),
        Copy,
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (230..260usize).prop_map(|n| vec![1; n]),
            (INLINE_MAX - 2..INLINE_MAX + 3).prop_map(|n| vec![2; n]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (bytes(), any::<Option<u64>>()).prop_map(|(value, deadline)| Step::Set(value, deadline)),
            any::<i64>().prop_map(Step::SetInt),
            any::<Option<u64>>().prop_map(Step::Deadline),
            Just(Step::Copy),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_sequence_of_changes_leaves_what_was_last_set(
            name in prop_oneof![4 => bytes(), 1 => (65_530..65_540usize).prop_map(|n| vec![3; n])],
            steps in prop::collection::vec(step(), 1..12),
        ) {
            let mut field = Field::new(&name, Text::Bytes(b""), None);
            let (mut value, mut deadline, mut copies) = (Vec::new(), None, Vec::new());
            for step in steps {
                match step {
                    Step::Set(new, until) => { field.set(Text::Bytes(&new), until); (value, deadline) = (new, until) }
                    Step::SetInt(n) => { field.set(Text::Int(n), deadline); value = n.to_string().into_bytes() }
                    Step::Deadline(until) => { field.set_deadline(until); deadline = until }
                    Step::Copy => copies.push((field.clone(), value.clone(), deadline)),
                }
                prop_assert_eq!(field.name(), &name[..]);
                prop_assert_eq!((field.value().to_vec(), field.deadline()), (value.clone(), deadline));
                prop_assert_eq!(field.value().len(), value.len());
            }
            for (copy, value, deadline) in copies {
                prop_assert_eq!((copy.name().to_vec(), copy.value().to_vec(), copy.deadline()), (name.clone(), value, deadline));
            }
        }
    }
}
