//! Entries: a key, its value and what is known of both, in one allocation behind an 8-byte pointer.
//!
//! ```text
//! Entry    63        48 47                        3 2   0
//!          | hash 18..3 |  address of the allocation | hash 2..0 |
//!
//! header   63   56 55        40 39          16 15    11 10  9   8    7     6..3      2..0
//!          |      | key length | access clock |        | width |snap|expiry| encoding | type |
//! body     [deadline: 8] [key length: 8, where it is over 65534] key value
//! value    Int: 1, 2, 4 or 8 bytes | Embstr, Raw, Dense: length in 1 or 2 bytes, bytes | Large, Object: a pointer
//! ```
//!
//! What must stay true: the size of the allocation follows from header and lengths alone, so that it
//! can be freed; the 19 hash bits in the pointer are those the entry was created with, so that a
//! table grows and splits without touching entries. Addresses use 47 bits and are multiples of 8.
#![allow(unsafe_code, reason = "one allocation and 8 bytes a key: 82 bytes a key instead of 150 (BENCHMARKS.md)")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::types::dense::{Dense, Run};
use crate::types::{Kind, Object, ObjectRef};

/// How many bits of its key's hash an entry carries in its pointer.
pub const HASH_BITS: u32 = 19;
/// A string value that is longer lives in an allocation of its own, which replies can refer to.
pub const INLINE_MAX: usize = 8 * 1024;
/// The longest value that SET stores as `embstr`.
pub const EMBSTR_MAX: usize = 44;

const ADDRESS: usize = 0x0000_ffff_ffff_fff8;
const HEADER: usize = 8;
const KEY_LEN_EXTENDED: usize = 0xffff;

const KIND_MASK: u64 = 0b111;
const ENCODING_SHIFT: u32 = 3;
const ENCODING_MASK: u64 = 0b1111 << ENCODING_SHIFT;
const EXPIRY: u64 = 1 << 7;
const PARITY: u64 = 1 << 8;
const WIDTH_SHIFT: u32 = 9;
const WIDTH_MASK: u64 = 0b11 << WIDTH_SHIFT;
const CLOCK_SHIFT: u32 = 16;
const CLOCK_MASK: u64 = 0xff_ffff << CLOCK_SHIFT;
const KEY_LEN_SHIFT: u32 = 40;
const KEY_LEN_MASK: u64 = 0xffff << KEY_LEN_SHIFT;

const INT: u64 = 0;
const EMBSTR: u64 = 1;
const RAW: u64 = 2;
const DENSE: u64 = 3;
// What follows has something hanging off the entry.
const LARGE: u64 = 4;
const OBJECT: u64 = 5;

/// Which of two generations an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "one is what the other is not")]
pub enum Parity {
    #[default]
    Even,
    Odd,
}

impl Parity {
    /// The other one.
    pub fn other(self) -> Parity {
        if self == Parity::Even { Parity::Odd } else { Parity::Even }
    }
}

/// An owned entry: 8 bytes in a table.
pub struct Entry(NonNull<u8>);

// SAFETY: an entry owns its allocation alone; what hangs off it (`Arc<Vec<u8>>`, `Box<Object>`) is Send.
unsafe impl Send for Entry {}
// SAFETY: `&Entry` only reads.
unsafe impl Sync for Entry {}

/// A string value to be stored.
#[derive(Debug, Clone)]
pub enum Str<'a> {
    /// A 64-bit integer.
    Int(i64),
    /// Bytes as SET stores them: `embstr` up to [`EMBSTR_MAX`], `raw` above.
    Bytes(&'a [u8]),
    /// Bytes that were changed in place: `raw` at any length.
    Raw(&'a [u8]),
    /// Bytes in an allocation of their own, taken over where they are longer than [`INLINE_MAX`].
    Large(Arc<Vec<u8>>),
}

/// A value, borrowed from its entry.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A string stored as an integer.
    Int(i64),
    /// A string inside the entry.
    Bytes(&'a [u8]),
    /// A string in an allocation of its own.
    Large(Large<'a>),
    /// Every other type.
    Object(ObjectRef<'a>),
}

/// The bytes of a large string, borrowed from their entry.
#[derive(Clone, Copy)]
pub struct Large<'a> {
    at: *const Vec<u8>,
    entry: PhantomData<&'a Entry>,
}

impl<'a> Large<'a> {
    /// The bytes.
    pub fn bytes(self) -> &'a Vec<u8> {
        // SAFETY: the entry holds one count of the Arc, and `'a` borrows the entry.
        unsafe { &*self.at }
    }

    /// One more owner of the bytes: what changes the entry from now on leaves them alone.
    pub fn share(self) -> Arc<Vec<u8>> {
        // SAFETY: the pointer came out of `Arc::into_raw`, and the entry keeps it alive.
        unsafe {
            Arc::increment_strong_count(self.at);
            Arc::from_raw(self.at)
        }
    }
}

impl Entry {
    /// Creates an entry for `key` with the 19 hash bits `bits`.
    pub fn new(bits: u32, key: &[u8], value: Str<'_>, deadline: Option<u64>, clock: u32) -> Entry {
        let shape = Shape::of(key.len(), &value, deadline.is_some());
        let entry = Entry::allocate(bits, &shape, clock, Kind::String);
        // SAFETY: `shape` says how much room there is, and that is what was allocated.
        unsafe {
            entry.write_head(key, deadline);
            entry.write_string(shape.value_at, value);
        }
        entry
    }

    /// Creates an entry that holds a collection; one that is dense comes to stand in the entry itself.
    pub fn with_object(bits: u32, key: &[u8], object: Object, deadline: Option<u64>, clock: u32) -> Entry {
        match object.dense() {
            Some(dense) => Entry::with_run(bits, key, object.kind(), dense.run(), deadline, clock),
            None => Entry::with_box(bits, key, Box::new(object), deadline, clock),
        }
    }

    fn with_run(bits: u32, key: &[u8], kind: Kind, run: Run<'_>, deadline: Option<u64>, clock: u32) -> Entry {
        let shape = Shape::inline(key.len(), DENSE, run.end(), deadline.is_some());
        let entry = Entry::allocate(bits, &shape, clock, kind);
        // SAFETY: as above.
        unsafe {
            entry.write_head(key, deadline);
            write_inline(entry.base().add(shape.value_at), run.bytes());
        }
        entry
    }

    fn with_box(bits: u32, key: &[u8], object: Box<Object>, deadline: Option<u64>, clock: u32) -> Entry {
        let kind = object.kind();
        let shape = Shape::sized(key.len(), OBJECT, 0, 8, deadline.is_some());
        let entry = Entry::allocate(bits, &shape, clock, kind);
        // SAFETY: as above; the pointer's 8 bytes follow the key.
        unsafe {
            entry.write_head(key, deadline);
            entry.base().add(shape.value_at).cast::<*mut Object>().write_unaligned(Box::into_raw(object));
        }
        entry
    }

    /// Allocates for `shape` and writes the header.
    fn allocate(bits: u32, shape: &Shape, clock: u32, kind: Kind) -> Entry {
        debug_assert!(bits < 1 << HASH_BITS);
        let layout = layout(shape.size);
        // SAFETY: the size is at least HEADER, never zero.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let header = kind as u64 | shape.bits | u64::from(clock) << CLOCK_SHIFT & CLOCK_MASK;
        // SAFETY: freshly allocated with room for the header, aligned to 8.
        unsafe { at.cast::<u64>().write(header) };
        Entry(tag(at, bits))
    }

    /// SAFETY: the allocation must have the room that the header promises.
    unsafe fn write_head(&self, key: &[u8], deadline: Option<u64>) {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut at = self.base().add(HEADER);
            if let Some(deadline) = deadline {
                at.cast::<u64>().write(deadline);
                at = at.add(8);
            }
            if key.len() >= KEY_LEN_EXTENDED {
                at.cast::<u64>().write(key.len() as u64);
                at = at.add(8);
            }
            ptr::copy_nonoverlapping(key.as_ptr(), at, key.len());
        }
    }

    /// SAFETY: `at` is where the value starts and the header's encoding and width fit `value`.
    unsafe fn write_string(&self, at: usize, value: Str<'_>) {
        // SAFETY: by the caller's promise.
        unsafe {
            let at = self.base().add(at);
            match value {
                Str::Int(n) => {
                    let le = n.to_le_bytes();
                    ptr::copy_nonoverlapping(le.as_ptr(), at, 1 << width_of_int(n));
                }
                Str::Bytes(bytes) | Str::Raw(bytes) if bytes.len() <= INLINE_MAX => write_inline(at, bytes),
                Str::Large(bytes) if bytes.len() <= INLINE_MAX => write_inline(at, &bytes),
                Str::Bytes(bytes) | Str::Raw(bytes) => {
                    at.cast::<*const Vec<u8>>().write_unaligned(Arc::into_raw(Arc::new(bytes.to_vec())));
                }
                Str::Large(bytes) => at.cast::<*const Vec<u8>>().write_unaligned(Arc::into_raw(bytes)),
            }
        }
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|a| a & ADDRESS)
    }

    #[inline]
    fn header(&self) -> u64 {
        // SAFETY: the header is initialised for as long as the entry lives.
        unsafe { self.base().cast::<u64>().read() }
    }

    #[inline]
    fn set_header(&mut self, header: u64) {
        // SAFETY: as above, and `&mut self` forbids a concurrent access.
        unsafe { self.base().cast::<u64>().write(header) }
    }

    /// The 19 bits of its key's hash, read from the pointer alone.
    #[inline]
    pub fn bits(&self) -> u32 {
        let a = self.0.addr().get();
        ((a >> 48) << 3 | a & 7) as u32
    }

    /// A number that identifies the allocation: less than 2^45, for the index of deadlines.
    #[inline]
    pub fn id(&self) -> u64 {
        (self.base().expose_provenance() >> 3) as u64
    }

    /// The deadline of the entry with this [`Entry::id`].
    ///
    /// # Safety
    /// The entry must be alive, must have a deadline, and must not be changed meanwhile.
    #[inline]
    pub unsafe fn deadline_of(id: u64) -> u64 {
        // SAFETY: by the caller's promise; the deadline stands right behind the header.
        unsafe { ptr::with_exposed_provenance::<u64>(((id << 3) as usize) + HEADER).read() }
    }

    /// The key of the entry with this [`Entry::id`].
    ///
    /// # Safety
    /// The entry must outlive `'a` and must not be changed meanwhile.
    pub unsafe fn key_of<'a>(id: u64) -> &'a [u8] {
        let at = ptr::with_exposed_provenance_mut::<u8>((id << 3) as usize);
        let entry = ManuallyDrop::new(Entry(NonNull::new(at).expect("the id of a living entry is not zero")));
        // SAFETY: by the caller's promise the bytes live as long as `'a`.
        unsafe { &*ptr::from_ref::<[u8]>(entry.key()) }
    }

    /// Calls `f` with the entry of this [`Entry::id`], of which all is known but the bits of its hash.
    ///
    /// # Safety
    /// The entry must be alive and must not be changed meanwhile.
    pub unsafe fn with_id<R>(id: u64, f: impl FnOnce(&Entry) -> R) -> R {
        let at = ptr::with_exposed_provenance_mut::<u8>((id << 3) as usize);
        f(&ManuallyDrop::new(Entry(NonNull::new(at).expect("the id of a living entry is not zero"))))
    }

    /// Asks the processor to load the entry's first cache line.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch is a hint and never faults.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(self.base().cast());
        }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        let header = self.header();
        let (at, len) = self.key_place(header);
        // SAFETY: the key was written there by the constructor.
        unsafe { std::slice::from_raw_parts(self.base().add(at), len) }
    }

    #[inline]
    fn key_place(&self, header: u64) -> (usize, usize) {
        let at = HEADER + if header & EXPIRY != 0 { 8 } else { 0 };
        let len = ((header & KEY_LEN_MASK) >> KEY_LEN_SHIFT) as usize;
        if len != KEY_LEN_EXTENDED {
            return (at, len);
        }
        // SAFETY: a key of this marker has its length written there.
        (at + 8, unsafe { self.base().add(at).cast::<u64>().read() } as usize)
    }

    /// The type of the value.
    #[inline]
    pub fn kind(&self) -> Kind {
        Kind::from_bits((self.header() & KIND_MASK) as u8)
    }

    /// When it expires: Unix time in milliseconds.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        // SAFETY: with the flag set the deadline stands behind the header.
        (self.header() & EXPIRY != 0).then(|| unsafe { self.base().add(HEADER).cast::<u64>().read() })
    }

    /// The earliest deadline of a field, where this is a hash whose fields have any.
    #[inline]
    pub fn field_deadline(&self) -> Option<u64> {
        // Most entries are told apart by a header that is at hand.
        if self.header() & KIND_MASK != Kind::Hash as u64 {
            return None;
        }
        match self.value() {
            Value::Object(ObjectRef::Hash(hash)) => hash.first_deadline(),
            _ => None,
        }
    }

    /// What [`Entry::field_deadline`] says of the entry with this [`Entry::id`].
    ///
    /// # Safety
    /// The entry must be alive and must not be changed meanwhile.
    pub unsafe fn field_deadline_of(id: u64) -> Option<u64> {
        let at = ptr::with_exposed_provenance_mut::<u8>((id << 3) as usize);
        ManuallyDrop::new(Entry(NonNull::new(at).expect("the id of a living entry is not zero"))).field_deadline()
    }

    /// The 24 bits of the access clock (LRU) or of the clock and counter (LFU).
    #[inline]
    pub fn clock(&self) -> u32 {
        ((self.header() & CLOCK_MASK) >> CLOCK_SHIFT) as u32
    }

    /// Notes an access; writes nothing where the clock already stands so.
    #[inline]
    pub fn set_clock(&mut self, clock: u32) {
        let header = self.header();
        let new = header & !CLOCK_MASK | u64::from(clock) << CLOCK_SHIFT & CLOCK_MASK;
        if new != header {
            self.set_header(new);
        }
    }

    /// Which of two generations the entry belongs to; see [`snapshot`](crate::keyspace::snapshot). A new one is even.
    #[inline]
    pub fn parity(&self) -> Parity {
        if self.header() & PARITY == 0 { Parity::Even } else { Parity::Odd }
    }

    /// Moves the entry to a generation.
    #[inline]
    pub fn set_parity(&mut self, parity: Parity) {
        let header = self.header() & !PARITY;
        self.set_header(if parity == Parity::Odd { header | PARITY } else { header });
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match (self.header() & ENCODING_MASK) >> ENCODING_SHIFT {
            INT => "int",
            EMBSTR => "embstr",
            RAW | LARGE => "raw",
            _ => match self.value() {
                Value::Object(object) => object.encoding(),
                _ => unreachable!("only objects have this encoding"),
            },
        }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> Value<'_> {
        let header = self.header();
        let (key_at, key_len) = self.key_place(header);
        let width = (header & WIDTH_MASK) >> WIDTH_SHIFT;
        // SAFETY: header, encoding and width are written together with the value that they describe.
        unsafe {
            let at = self.base().add(key_at + key_len);
            match (header & ENCODING_MASK) >> ENCODING_SHIFT {
                INT => Value::Int(read_int(at, width)),
                EMBSTR | RAW => Value::Bytes(read_inline(at, width)),
                DENSE => {
                    let kind = Kind::from_bits((header & KIND_MASK) as u8);
                    Value::Object(ObjectRef::from_dense(kind, Run::new(read_inline(at, width))))
                }
                LARGE => Value::Large(Large { at: at.cast::<*const Vec<u8>>().read_unaligned(), entry: PhantomData }),
                _ => Value::Object((*at.cast::<*const Object>().read_unaligned()).view()),
            }
        }
    }

    /// Calls `change` with the collection that the entry holds; `None` for strings. May move the entry, for what is
    /// small enough stands in the entry itself.
    #[inline]
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut Object) -> R) -> Option<R> {
        let header = self.header();
        match (header & ENCODING_MASK) >> ENCODING_SHIFT {
            OBJECT => {
                let object = self.object_mut()?;
                let result = change(object);
                if object.dense().is_some() {
                    self.move_inside();
                }
                Some(result)
            }
            DENSE => {
                let (key_at, key_len) = self.key_place(header);
                // SAFETY: this encoding means that a run stands behind the key, whose length has this width.
                let bytes =
                    unsafe { read_inline(self.base().add(key_at + key_len), (header & WIDTH_MASK) >> WIDTH_SHIFT) };
                let kind = Kind::from_bits((header & KIND_MASK) as u8);
                let mut object = Object::from_dense(kind, Dense::from_run(Run::new(bytes)));
                let result = change(&mut object);
                match object.dense() {
                    Some(dense) => self.set_run(dense.run()),
                    None => self.set_box(Box::new(object)),
                }
                Some(result)
            }
            _ => None,
        }
    }

    /// Takes into the entry what hangs off it and has become dense.
    #[cold]
    fn move_inside(&mut self) {
        let kind = self.kind();
        let Some(object) = self.take_object() else { return };
        if let Some(dense) = object.dense() {
            self.set_run(dense.run());
        }
        self.set_header(self.header() & !KIND_MASK | kind as u64);
    }

    /// Replaces a value that nothing hangs off by a run of the same type.
    fn set_run(&mut self, run: Run<'_>) {
        let header = self.header();
        let (key_at, key_len) = self.key_place(header);
        let shape = Shape::inline(key_len, DENSE, run.end(), header & EXPIRY != 0);
        debug_assert_eq!(shape.value_at, key_at + key_len);
        let old = self.size();
        if shape.size != old {
            self.resize(old, shape.size);
        }
        self.set_header(header & !(ENCODING_MASK | WIDTH_MASK) | shape.bits & (ENCODING_MASK | WIDTH_MASK));
        // SAFETY: the allocation has the new size now, and the header describes the run.
        unsafe { write_inline(self.base().add(shape.value_at), run.bytes()) };
    }

    /// Replaces a value that nothing hangs off by a collection of the same type.
    #[cold]
    fn set_box(&mut self, object: Box<Object>) {
        let header = self.header();
        let (key_at, key_len) = self.key_place(header);
        let (old, new) = (self.size(), key_at + key_len + 8);
        if new != old {
            self.resize(old, new);
        }
        self.set_header(header & !(ENCODING_MASK | WIDTH_MASK) | OBJECT << ENCODING_SHIFT);
        // SAFETY: the allocation has the new size now, with 8 bytes behind the key, and the header says what they are.
        unsafe { self.base().add(key_at + key_len).cast::<*mut Object>().write_unaligned(Box::into_raw(object)) };
    }

    /// The collection that hangs off the entry, to be changed in place; `None` for strings, and for what is small
    /// enough to stand in the entry itself: see [`Entry::edit`]. Lists, sets, streams and hashes whose fields have
    /// deadlines never are.
    #[inline]
    pub fn object_mut(&mut self) -> Option<&mut Object> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != OBJECT {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: this encoding means that a box's pointer stands behind the key; we own the box.
        Some(unsafe { &mut *self.base().add(key_at + key_len).cast::<*mut Object>().read_unaligned() })
    }

    /// Replaces the value by a string; deadline, clock and parity stay. May move the entry: its
    /// [`Entry::id`] may be another one afterwards.
    pub fn set_string(&mut self, value: Str<'_>) {
        let header = self.header();
        let (key_at, key_len) = self.key_place(header);
        let shape = Shape::of(key_len, &value, header & EXPIRY != 0);
        debug_assert_eq!(shape.value_at, key_at + key_len);
        let old = self.size();
        self.drop_outside();
        if shape.size != old {
            self.resize(old, shape.size);
        }
        let kept = header & !(KIND_MASK | ENCODING_MASK | WIDTH_MASK);
        self.set_header(kept | Kind::String as u64 | shape.bits & (ENCODING_MASK | WIDTH_MASK));
        // SAFETY: the allocation has the new size now, and the header describes `value`.
        unsafe { self.write_string(shape.value_at, value) };
    }

    /// The bytes of an inline string that is `raw`, to be changed in place without changing its length.
    pub fn raw_mut(&mut self) -> Option<&mut [u8]> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != RAW {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: an inline value stands behind the key; `&mut self` makes us its only user.
        unsafe {
            let bytes = read_inline(self.base().add(key_at + key_len), (header & WIDTH_MASK) >> WIDTH_SHIFT);
            Some(std::slice::from_raw_parts_mut(bytes.as_ptr().cast_mut(), bytes.len()))
        }
    }

    /// The bytes of a string in an allocation of its own, to be changed in place; whoever shares them
    /// (a reply on its way, a snapshot) keeps the old ones, which are copied then.
    pub fn large_mut(&mut self) -> Option<&mut Vec<u8>> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != LARGE {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: this encoding means that an Arc's pointer stands behind the key. It is taken out,
        // made unique and written back before anyone else can look.
        unsafe {
            let at = self.base().add(key_at + key_len).cast::<*const Vec<u8>>();
            let mut arc = ManuallyDrop::new(Arc::from_raw(at.read_unaligned()));
            let bytes: *mut Vec<u8> = Arc::make_mut(&mut arc);
            at.write_unaligned(Arc::as_ptr(&arc));
            Some(&mut *bytes)
        }
    }

    /// Sets or removes the deadline. Moves the entry where it gains or loses one.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        let header = self.header();
        let had = header & EXPIRY != 0;
        let size = self.size();
        // SAFETY: the body moves by 8 bytes inside an allocation that has room for it, before it
        // shrinks or after it has grown.
        unsafe {
            match (had, deadline) {
                (false, None) => {}
                (true, Some(deadline)) => self.base().add(HEADER).cast::<u64>().write(deadline),
                (false, Some(deadline)) => {
                    self.resize(size, size + 8);
                    let body = self.base().add(HEADER);
                    ptr::copy(body, body.add(8), size - HEADER);
                    body.cast::<u64>().write(deadline);
                    self.set_header(header | EXPIRY);
                }
                (true, None) => {
                    let body = self.base().add(HEADER);
                    ptr::copy(body.add(8), body, size - HEADER - 8);
                    self.set_header(header & !EXPIRY);
                    self.resize(size, size - 8);
                }
            }
        }
    }

    /// A copy under another key; large strings are shared until one of the two changes.
    pub fn copy_as(&self, bits: u32, key: &[u8], deadline: Option<u64>) -> Entry {
        let clock = self.clock();
        if let Some(run) = self.run() {
            return Entry::with_run(bits, key, self.kind(), run, deadline, clock);
        }
        match self.value() {
            Value::Int(n) => Entry::new(bits, key, Str::Int(n), deadline, clock),
            Value::Bytes(bytes) if self.encoding() == "raw" => Entry::new(bits, key, Str::Raw(bytes), deadline, clock),
            Value::Bytes(bytes) => Entry::new(bits, key, Str::Bytes(bytes), deadline, clock),
            Value::Large(large) => Entry::new(bits, key, Str::Large(large.share()), deadline, clock),
            Value::Object(_) => {
                let object = self.object().expect("what is no run hangs off the entry");
                Entry::with_box(bits, key, Box::new(object.copy()), deadline, clock)
            }
        }
    }

    /// The run that stands in the entry itself, if that is what it holds.
    fn run(&self) -> Option<Run<'_>> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != DENSE {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: this encoding means that a run stands behind the key, whose length has this width.
        let bytes = unsafe { read_inline(self.base().add(key_at + key_len), (header & WIDTH_MASK) >> WIDTH_SHIFT) };
        Some(Run::new(bytes))
    }

    /// The collection that hangs off the entry, if there is one.
    fn object(&self) -> Option<&Object> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != OBJECT {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: this encoding means that a box's pointer stands behind the key; `&self` forbids changes.
        Some(unsafe { &*self.base().add(key_at + key_len).cast::<*const Object>().read_unaligned() })
    }

    /// The same value, deadline and clock under another key; the value itself does not move, unless it is small.
    pub fn renamed(mut self, bits: u32, key: &[u8], deadline: Option<u64>) -> Entry {
        let clock = self.clock();
        if let Some(object) = self.take_object() {
            return Entry::with_box(bits, key, object, deadline, clock);
        }
        self.copy_as(bits, key, deadline)
    }

    /// Takes the collection out that hangs off the entry and leaves that an integer of 8 bytes; `None` where there is
    /// none: for strings, and for what stands in the entry itself.
    pub fn take_object(&mut self) -> Option<Box<Object>> {
        let header = self.header();
        if (header & ENCODING_MASK) >> ENCODING_SHIFT != OBJECT {
            return None;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: the box is taken out and the header no longer says that there is one. The value's 8
        // bytes become an integer of 8 bytes, so the size stays what it was.
        unsafe {
            let at = self.base().add(key_at + key_len);
            let object = Box::from_raw(at.cast::<*mut Object>().read_unaligned());
            let kept = header & !(KIND_MASK | ENCODING_MASK | WIDTH_MASK);
            self.set_header(kept | INT << ENCODING_SHIFT | 3 << WIDTH_SHIFT);
            Some(object)
        }
    }

    /// Bytes that it takes: its allocation and what hangs off it, without what others share.
    pub fn memory(&self) -> usize {
        self.size()
            + match self.value() {
                Value::Int(_) | Value::Bytes(_) => 0,
                // The counts of the Arc, the vector's three words, its buffer.
                Value::Large(large) => 16 + 24 + large.bytes().capacity(),
                // What stands in the entry is part of its size.
                Value::Object(_) => self.object().map_or(0, |object| object.view().memory()),
            }
    }

    /// The size of the entry's own allocation.
    fn size(&self) -> usize {
        let header = self.header();
        let (key_at, key_len) = self.key_place(header);
        let at = key_at + key_len;
        let width = (header & WIDTH_MASK) >> WIDTH_SHIFT;
        match (header & ENCODING_MASK) >> ENCODING_SHIFT {
            INT => at + (1 << width),
            // SAFETY: an inline value has its length there.
            EMBSTR | RAW | DENSE => at + width as usize + unsafe { read_inline(self.base().add(at), width) }.len(),
            _ => at + 8,
        }
    }

    fn resize(&mut self, old: usize, new: usize) {
        let bits = self.bits();
        // SAFETY: `old` is the size that the allocation was made with, `new` is at least HEADER.
        let moved = unsafe { realloc(self.base(), layout(old), new) };
        let Some(at) = NonNull::new(moved) else { handle_alloc_error(layout(new)) };
        self.0 = tag(at, bits);
    }

    /// Frees what hangs off the entry, and leaves it so that only its own allocation is to be freed.
    fn drop_outside(&mut self) {
        let header = self.header();
        let encoding = (header & ENCODING_MASK) >> ENCODING_SHIFT;
        if encoding < LARGE {
            return;
        }
        let (key_at, key_len) = self.key_place(header);
        // SAFETY: each encoding says what pointer stands there; the caller frees or overwrites the
        // entry next, so it is not used again.
        unsafe {
            let at = self.base().add(key_at + key_len);
            if encoding == LARGE {
                drop(Arc::from_raw(at.cast::<*const Vec<u8>>().read_unaligned()));
            } else {
                drop(Box::from_raw(at.cast::<*mut Object>().read_unaligned()));
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let size = self.size();
        self.drop_outside();
        // SAFETY: allocated with this layout; nothing refers to it any more.
        unsafe { dealloc(self.base(), layout(size)) }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:?}, {}, {:?})", String::from_utf8_lossy(self.key()), self.encoding(), self.deadline())
    }
}

/// What an entry will look like: header bits, where its value starts, how large it is.
struct Shape {
    bits: u64,
    value_at: usize,
    size: usize,
}

impl Shape {
    fn of(key_len: usize, value: &Str<'_>, expiry: bool) -> Shape {
        let (encoding, len) = match value {
            Str::Int(n) => return Shape::sized(key_len, INT, width_of_int(*n), 1 << width_of_int(*n), expiry),
            Str::Bytes(bytes) if bytes.len() <= EMBSTR_MAX => (EMBSTR, bytes.len()),
            Str::Bytes(bytes) | Str::Raw(bytes) => (RAW, bytes.len()),
            Str::Large(bytes) => (RAW, bytes.len()),
        };
        if len > INLINE_MAX {
            return Shape::sized(key_len, LARGE, 0, 8, expiry);
        }
        Shape::inline(key_len, encoding, len, expiry)
    }

    /// With a length and so many bytes.
    fn inline(key_len: usize, encoding: u64, len: usize, expiry: bool) -> Shape {
        let width = if len < 256 { 1 } else { 2 };
        Shape::sized(key_len, encoding, width, width as usize + len, expiry)
    }

    fn sized(key_len: usize, encoding: u64, width: u64, value_len: usize, expiry: bool) -> Shape {
        let extended = key_len >= KEY_LEN_EXTENDED;
        let value_at = HEADER + if expiry { 8 } else { 0 } + if extended { 8 } else { 0 } + key_len;
        let key_bits = if extended { KEY_LEN_EXTENDED } else { key_len } as u64;
        let bits = encoding << ENCODING_SHIFT
            | if expiry { EXPIRY } else { 0 }
            | width << WIDTH_SHIFT
            | key_bits << KEY_LEN_SHIFT;
        Shape { bits, value_at, size: value_at + value_len }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a key and an inline value are far smaller than isize::MAX")
}

fn tag(at: NonNull<u8>, bits: u32) -> NonNull<u8> {
    let bits = bits as usize;
    at.map_addr(|a| {
        assert!(a.get() & !ADDRESS == 0, "an address of more than 48 bits, or not a multiple of 8");
        a | (bits >> 3) << 48 | bits & 7
    })
}

/// log2 of the bytes that hold `n`.
#[inline]
fn width_of_int(n: i64) -> u64 {
    if n == i64::from(n as i8) {
        0
    } else if n == i64::from(n as i16) {
        1
    } else if n == i64::from(n as i32) {
        2
    } else {
        3
    }
}

/// SAFETY: `at` must have `1 << width` readable bytes.
#[inline]
unsafe fn read_int(at: *const u8, width: u64) -> i64 {
    // SAFETY: by the caller's promise.
    unsafe {
        match width {
            0 => i64::from(at.cast::<i8>().read()),
            1 => i64::from(at.cast::<i16>().read_unaligned()),
            2 => i64::from(at.cast::<i32>().read_unaligned()),
            _ => at.cast::<i64>().read_unaligned(),
        }
    }
}

/// SAFETY: a length of `width` (1 or 2) bytes and as many bytes must stand at `at`.
#[inline]
unsafe fn read_inline<'a>(at: *const u8, width: u64) -> &'a [u8] {
    // SAFETY: by the caller's promise.
    unsafe {
        let len = if width == 1 { usize::from(at.read()) } else { usize::from(at.cast::<u16>().read_unaligned()) };
        std::slice::from_raw_parts(at.add(width as usize), len)
    }
}

/// SAFETY: `at` must have room for the length and the bytes.
#[inline]
unsafe fn write_inline(at: *mut u8, bytes: &[u8]) {
    // SAFETY: by the caller's promise; INLINE_MAX fits 16 bits.
    unsafe {
        let width = if bytes.len() < 256 {
            at.write(bytes.len() as u8);
            1
        } else {
            at.cast::<u16>().write_unaligned(bytes.len() as u16);
            2
        };
        ptr::copy_nonoverlapping(bytes.as_ptr(), at.add(width), bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::{Hash, Limits, Text};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn text(entry: &Entry) -> Vec<u8> {
        match entry.value() {
            Value::Int(n) => n.to_string().into_bytes(),
            Value::Bytes(bytes) => bytes.to_vec(),
            Value::Large(large) => large.bytes().clone(),
            Value::Object(_) => unreachable!("only strings here"),
        }
    }

    #[test]
    fn an_entry_keeps_key_value_deadline_clock_and_bits() {
        for key_len in [0, 1, 20, 300, 65534, 65535, 70000] {
            let key = vec![b'k'; key_len];
            for deadline in [None, Some(1_700_000_000_123)] {
                let e = Entry::new(0x7_ffff, &key, Str::Bytes(b"value"), deadline, 0xab_cdef);
                assert_eq!((e.key(), e.deadline(), e.clock()), (&key[..], deadline, 0xab_cdef));
                assert_eq!((e.bits(), e.encoding(), text(&e)), (0x7_ffff, "embstr", b"value".to_vec()));
            }
        }
    }

    #[test]
    fn integers_take_as_few_bytes_as_they_need() {
        for (n, size) in [(0, 10), (-128, 10), (128, 11), (i64::from(i32::MIN), 13), (i64::MAX, 17)] {
            let e = Entry::new(1, b"k", Str::Int(n), None, 0);
            assert_eq!((text(&e), e.memory()), (n.to_string().into_bytes(), size));
        }
    }

    #[test]
    fn a_shared_large_string_does_not_see_later_changes() {
        let mut e = Entry::new(5, b"key", Str::Bytes(&vec![7; INLINE_MAX + 1]), None, 0);
        let Value::Large(large) = e.value() else { panic!("too long to be inline") };
        let shared = large.share();
        e.large_mut().unwrap()[0] = 8;
        assert_eq!((shared[0], text(&e)[0]), (7, 8));
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    const LIMITS: Limits = Limits { fields: 128, bytes: 600 };

    fn hash_of(entry: &Entry) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let Value::Object(ObjectRef::Hash(hash)) = entry.value() else { panic!("a hash") };
        let mut all = BTreeMap::new();
        hash.for_each(|name, found| assert!(all.insert(name.to_vec(), found.value.to_vec()).is_none()));
        all
    }

    #[test]
    fn a_small_hash_stands_in_its_entry_and_a_larger_one_beside_it() {
        let mut e = Entry::with_object(5, b"key", Object::Hash(Hash::default()), None, 7);
        let set = |e: &mut Entry, name: &[u8], value: &[u8]| {
            e.edit(|object| match object {
                Object::Hash(hash) => hash.set(name, Text::Bytes(value), None, LIMITS),
                _ => panic!("a hash"),
            })
        };
        assert_eq!(set(&mut e, b"name", b"text"), Some(true));
        assert_eq!((e.kind(), e.encoding(), e.memory()), (Kind::Hash, "listpack", 8 + 3 + 1 + 10));
        assert!(e.object_mut().is_none() && e.take_object().is_none());
        let copy = e.copy_as(9, b"other", Some(3));
        set(&mut e, b"long", &[b'v'; 550]);
        assert!(e.object_mut().is_some());
        assert_eq!((e.kind(), hash_of(&e).len(), hash_of(&copy).len()), (Kind::Hash, 2, 1));
        e.edit(|object| match object {
            Object::Hash(hash) => {
                hash.remove(b"long");
                hash.shrink();
            }
            _ => panic!("a hash"),
        });
        assert_eq!((e.kind(), e.memory(), e.bits(), e.clock()), (Kind::Hash, 22, 5, 7));
        assert_eq!((copy.key(), copy.deadline(), hash_of(&copy)), (&b"other"[..], Some(3), hash_of(&e)));
        e.set_string(Str::Bytes(b"text"));
        assert_eq!((e.kind(), text(&e), e.edit(|_| ())), (Kind::String, b"text".to_vec(), None));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Bytes(Vec<u8>),
        Raw(Vec<u8>),
        Int(i64),
        Deadline(Option<u64>),
        Clock(u32),
        Rename(Vec<u8>),
        /// A hash, if it is none, gets a field of this number and length.
        Field(u8, usize),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = if cfg!(miri) { 300usize } else { 9000 };
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64).prop_map(Step::Bytes),
            (0..len).prop_map(|n| Step::Bytes(vec![1; n])),
            (0..len).prop_map(|n| Step::Raw(vec![2; n])),
            any::<i64>().prop_map(Step::Int),
            any::<Option<u64>>().prop_map(Step::Deadline),
            (0..1u32 << 24).prop_map(Step::Clock),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Rename),
            (0..9u8, 0..200usize).prop_map(|(n, len)| Step::Field(n, len)),
            (0..9u8, 0..200usize).prop_map(|(n, len)| Step::Field(n, len)),
            (0..9u8).prop_map(Step::Remove),
            (0..9u8).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_sequence_of_changes_leaves_what_was_last_set(steps in prop::collection::vec(step(), 1..40)) {
            let mut e = Entry::new(3, b"", Str::Int(0), None, 0);
            let (mut key, mut value, mut deadline, mut clock) = (vec![], Ok(b"0".to_vec()), None, 0);
            for s in steps {
                match s {
                    Step::Bytes(v) => { e.set_string(Str::Bytes(&v)); value = Ok(v) }
                    Step::Raw(v) => { e.set_string(Str::Raw(&v)); value = Ok(v) }
                    Step::Int(n) => { e.set_string(Str::Int(n)); value = Ok(n.to_string().into_bytes()) }
                    Step::Deadline(d) => { e.set_deadline(d); deadline = d }
                    Step::Clock(c) => { e.set_clock(c); clock = c }
                    Step::Rename(k) => { e = e.renamed(9, &k, deadline); key = k }
                    Step::Field(n, len) => {
                        if value.is_ok() {
                            prop_assert!(e.edit(|_| ()).is_none());
                            e = Entry::with_object(3, &key, Object::Hash(Hash::default()), deadline, clock);
                            value = Err(BTreeMap::new());
                        }
                        let (name, text) = (vec![b'f', n], vec![n; len]);
                        e.edit(|object| match object {
                            Object::Hash(hash) => hash.set(&name, Text::Bytes(&text), None, LIMITS),
                            _ => false,
                        });
                        if let Err(fields) = &mut value { fields.insert(name, text); }
                    }
                    Step::Remove(n) => {
                        let name = [b'f', n];
                        let removed = e.edit(|object| match object {
                            Object::Hash(hash) => {
                                let removed = hash.remove(&name);
                                hash.shrink();
                                removed
                            }
                            _ => false,
                        });
                        let known = value.as_mut().err().map(|fields| fields.remove(&name[..]).is_some());
                        prop_assert_eq!(removed, known);
                    }
                }
                prop_assert_eq!(e.key(), &key[..]);
                match &value {
                    Ok(value) => prop_assert_eq!(&text(&e), value),
                    Err(fields) => prop_assert_eq!(&hash_of(&e), fields),
                }
                prop_assert_eq!((e.deadline(), e.clock()), (deadline, clock));
                if let Some(d) = deadline {
                    // SAFETY: the entry is alive and has this deadline.
                    prop_assert_eq!(unsafe { Entry::deadline_of(e.id()) }, d);
                }
            }
        }
    }
}
