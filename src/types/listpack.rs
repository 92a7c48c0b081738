//! Listpacks: a few elements in one run of bytes, in Redis' format, which is also how files hold them.
//!
//! ```text
//! listpack  total bytes: u32 | elements: u16, 65535 where unknown | entry ... | 0xff
//! entry     encoding and data | length of both, backwards: 7 bits a byte, the lowest last
//! encoding  0xxxxxxx  0 to 127                 11110001  i16     11110000  string, length u32
//!           10xxxxxx  string, length 6 bits    11110010  i24     11110011  i32
//!           110xxxxx  i13, with the next byte  11110100  i64
//!           1110xxxx  string, length 12 bits, with the next byte
//! ```
//! Numbers of more than a byte are little endian, but for those of 12 and 13 bits.
//!
//! What must stay true: the bytes are a listpack at all times, so that reading needs no checks beyond
//! those of slices; what comes from outside is looked through by [`Listpack::from_bytes`] first. An allocation
//! is as large as the allocator would make it in any case, so its size need not be kept beside its pointer.

use crate::stdx::number::parse_i64;

const HEADER: usize = 6;
const END: u8 = 0xff;
/// The count that stands for "unknown".
const UNKNOWN: u16 = u16::MAX;

/// A run of elements.
#[derive(Clone)]
pub struct Listpack {
    /// The bytes, and behind them what the allocator has given in addition.
    room: Box<[u8]>,
}

/// How many bytes an allocator gives to one who wants `len`: eight, multiples of 16 up to 128, then four sizes until the
/// next power of two. So an eighth of all additions at most moves the bytes.
fn allotted(len: usize) -> usize {
    match len {
        0..=8 => 8,
        9..=128 => len.next_multiple_of(16),
        _ => len.next_multiple_of(1 << ((len - 1).ilog2() - 2)),
    }
}

/// Where an element stands; good until the listpack changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// An element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Text that is an integer.
    Int(i64),
    /// Any other.
    Bytes(&'a [u8]),
}

/// An element to be searched for: parsed once, compared with many.
#[derive(Debug, Clone, Copy)]
pub struct Needle<'a> {
    bytes: &'a [u8],
    int: Option<i64>,
}

/// The longest text of an integer: i64::MIN with its sign.
const INT_DIGITS: usize = 20;

fn integer(bytes: &[u8]) -> Option<i64> {
    if bytes.len() <= INT_DIGITS { parse_i64(bytes) } else { None }
}

impl<'a> Needle<'a> {
    /// To find elements with these bytes.
    pub fn new(bytes: &'a [u8]) -> Needle<'a> {
        Needle { bytes, int: integer(bytes) }
    }

    /// To find elements with the text of `n`, which is `bytes`.
    pub fn of_integer(n: i64, bytes: &'a [u8]) -> Needle<'a> {
        Needle { bytes, int: Some(n) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The integer whose text they are.
    pub fn integer(&self) -> Option<i64> {
        self.int
    }

    /// Whether `item` has these bytes.
    #[inline]
    pub fn is(&self, item: Item<'_>) -> bool {
        match item {
            Item::Int(n) => self.int == Some(n),
            Item::Bytes(bytes) => self.bytes == bytes,
        }
    }
}

impl<'a> Item<'a> {
    /// The bytes of the element, those of an integer written into `buffer`.
    pub fn text(self, buffer: &'a mut itoa::Buffer) -> &'a [u8] {
        match self {
            Item::Int(n) => buffer.format(n).as_bytes(),
            Item::Bytes(bytes) => bytes,
        }
    }

    /// The number, where the element is one.
    #[inline]
    pub fn int(self) -> Option<i64> {
        match self {
            Item::Int(n) => Some(n),
            Item::Bytes(_) => None,
        }
    }

    /// The bytes of the element.
    pub fn to_vec(self) -> Vec<u8> {
        match self {
            Item::Int(n) => n.to_string().into_bytes(),
            Item::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

/// An element as it will stand in the listpack: what goes before its bytes, and those.
struct Encoded<'a> {
    head: [u8; 9],
    head_len: usize,
    data: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn new(element: &'a [u8]) -> Encoded<'a> {
        match integer(element) {
            Some(n) => Encoded::int(n),
            None => Encoded::string(element),
        }
    }

    fn int(n: i64) -> Encoded<'a> {
        let mut head = [0; 9];
        let le = n.to_le_bytes();
        let head_len = if (0..128).contains(&n) {
            head[0] = n as u8;
            1
        } else if (-4096..4096).contains(&n) {
            let n = (n & 0x1fff) as u16;
            head[..2].copy_from_slice(&(0xc000 | n).to_be_bytes());
            2
        } else {
            let (encoding, width) = match n {
                _ if n == i64::from(n as i16) => (0xf1, 2),
                _ if (-(1 << 23)..1 << 23).contains(&n) => (0xf2, 3),
                _ if n == i64::from(n as i32) => (0xf3, 4),
                _ => (0xf4, 8),
            };
            head[0] = encoding;
            head[1..=width].copy_from_slice(&le[..width]);
            1 + width
        };
        Encoded { head, head_len, data: &[] }
    }

    fn string(data: &'a [u8]) -> Encoded<'a> {
        let mut head = [0; 9];
        let len = data.len();
        let head_len = if len < 64 {
            head[0] = 0x80 | len as u8;
            1
        } else if len < 4096 {
            head[..2].copy_from_slice(&(0xe000 | len as u16).to_be_bytes());
            2
        } else {
            head[0] = 0xf0;
            head[1..5].copy_from_slice(&u32::try_from(len).expect("an element shorter than 4 GB").to_le_bytes());
            5
        };
        Encoded { head, head_len, data }
    }

    fn len(&self) -> usize {
        self.head_len + self.data.len()
    }
}

/// How many bytes tell the length `len` of an entry backwards. The steps are Redis', not quite powers of two.
fn back_width(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

fn write_back_len(out: &mut [u8], len: usize) {
    let width = out.len();
    for (i, byte) in out.iter_mut().enumerate() {
        let bits = (len >> (7 * (width - 1 - i))) as u8 & 127;
        *byte = if i == 0 { bits } else { bits | 128 };
    }
}

/// The length of encoding and data of the entry that begins `bytes`; `None` where that is none.
fn entry_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    Some(match first {
        0..0x80 => 1,
        0x80..0xc0 => 1 + usize::from(first & 0x3f),
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 2 + (usize::from(first & 0x0f) << 8 | usize::from(*bytes.get(1)?)),
        0xf0 => 5usize.checked_add(u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?) as usize)?,
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        0xf4 => 9,
        _ => return None,
    })
}

/// The element whose encoding and data are `bytes`.
fn decode(bytes: &[u8]) -> Item<'_> {
    let first = bytes[0];
    let int = |bytes: &[u8]| {
        // Sign-extended by shifting it up and down again.
        let mut le = [0; 8];
        le[8 - bytes.len()..].copy_from_slice(bytes);
        i64::from_le_bytes(le) >> (64 - 8 * bytes.len())
    };
    match first {
        0..0x80 => Item::Int(i64::from(first)),
        0x80..0xc0 => Item::Bytes(&bytes[1..]),
        0xc0..0xe0 => {
            let n = i64::from(first & 0x1f) << 8 | i64::from(bytes[1]);
            Item::Int(if n >= 4096 { n - 8192 } else { n })
        }
        0xe0..0xf0 => Item::Bytes(&bytes[2..]),
        0xf0 => Item::Bytes(&bytes[5..]),
        _ => Item::Int(int(&bytes[1..])),
    }
}

/// Where [`Listpack::extend`] takes its elements.
pub struct Appender<'a> {
    pack: &'a mut Listpack,
    /// Where the next one goes.
    end: usize,
    added: usize,
}

impl Appender<'_> {
    /// Adds an element.
    #[inline]
    pub fn bytes(&mut self, element: &[u8]) {
        self.add(&Encoded::new(element));
    }

    /// Adds a number.
    #[inline]
    pub fn int(&mut self, n: i64) {
        self.add(&Encoded::int(n));
    }

    #[inline]
    fn add(&mut self, encoded: &Encoded<'_>) {
        let len = encoded.len();
        let width = back_width(len);
        let end = self.end + len + width;
        // One byte more ends them all.
        if end >= self.pack.room.len() {
            self.pack.resize(allotted(2 * end));
        }
        let entry = &mut self.pack.room[self.end..end];
        entry[..encoded.head_len].copy_from_slice(&encoded.head[..encoded.head_len]);
        entry[encoded.head_len..len].copy_from_slice(encoded.data);
        write_back_len(&mut entry[len..], len);
        self.end = end;
        self.added += 1;
    }
}

impl Place {
    /// The place that stands so many bytes further on, for what [`Listpack::set_int`] has moved.
    #[inline]
    pub fn moved(self, by: isize) -> Place {
        Place(self.0.wrapping_add_signed(by))
    }
}

impl Default for Listpack {
    fn default() -> Listpack {
        Listpack::new()
    }
}

impl Listpack {
    /// One without elements.
    pub fn new() -> Listpack {
        Listpack { room: Box::new([HEADER as u8 + 1, 0, 0, 0, 0, 0, END, 0]) }
    }

    /// One without elements, and room for so many bytes of them.
    pub fn with_capacity(bytes: usize) -> Listpack {
        Listpack::with_room(vec![HEADER as u8 + 1, 0, 0, 0, 0, 0, END], allotted(HEADER + 1 + bytes))
    }

    /// Takes over bytes from outside; `None` where they are not a listpack from end to end.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Listpack> {
        let total = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let count = u16::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
        if total != bytes.len() || total <= HEADER || *bytes.last()? != END {
            return None;
        }
        let (mut at, mut found, end) = (HEADER, 0usize, total - 1);
        while at < end {
            let len = entry_len(&bytes[at..end])?;
            let width = back_width(len);
            let back = bytes[..end].get(at.checked_add(len)?..at + len + width)?;
            let mut expected = [0; 5];
            write_back_len(&mut expected[..width], len);
            if *back != expected[..width] {
                return None;
            }
            at += len + width;
            found += 1;
        }
        (count == UNKNOWN || usize::from(count) == found).then(|| Listpack::with_room(bytes, allotted(total)))
    }

    /// These bytes, and as many more as are missing from `room`.
    fn with_room(mut bytes: Vec<u8>, room: usize) -> Listpack {
        bytes.reserve_exact(room - bytes.len());
        bytes.resize(room, 0);
        Listpack { room: bytes.into_boxed_slice() }
    }

    /// The bytes, as they stand in files.
    pub fn as_bytes(&self) -> &[u8] {
        &self.room[..self.byte_len()]
    }

    /// How many bytes it takes, header and end included.
    #[inline]
    pub fn byte_len(&self) -> usize {
        u32::from_le_bytes([self.room[0], self.room[1], self.room[2], self.room[3]]) as usize
    }

    /// Where the byte is that ends it.
    #[inline]
    fn end(&self) -> usize {
        self.byte_len() - 1
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        self.room.len()
    }

    /// The number of elements. They must be counted where there are more than 65534.
    pub fn len(&self) -> usize {
        match u16::from_le_bytes([self.room[4], self.room[5]]) {
            UNKNOWN => self.iter().count(),
            count => usize::from(count),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.byte_len() == HEADER + 1
    }

    /// The first element.
    pub fn first(&self) -> Option<Place> {
        (!self.is_empty()).then_some(Place(HEADER))
    }

    /// The last element.
    pub fn last(&self) -> Option<Place> {
        self.before(self.end())
    }

    /// The element behind one.
    pub fn next(&self, place: Place) -> Option<Place> {
        let next = self.behind(place);
        (next < self.end()).then_some(Place(next))
    }

    /// The element `n` places behind one.
    #[inline]
    pub fn skip(&self, place: Place, n: usize) -> Option<Place> {
        let mut at = place;
        for _ in 0..n {
            let next = self.behind(at);
            if next >= self.end() {
                return None;
            }
            at = Place(next);
        }
        Some(at)
    }

    /// The element before one.
    pub fn prev(&self, place: Place) -> Option<Place> {
        self.before(place.0)
    }

    /// The offset behind an entry.
    fn behind(&self, place: Place) -> usize {
        let len = entry_len(&self.room[place.0..]).expect("a place is where an entry begins");
        place.0 + len + back_width(len)
    }

    /// The entry that ends at `end`.
    fn before(&self, end: usize) -> Option<Place> {
        if end == HEADER {
            return None;
        }
        let (mut len, mut width) = (0, 0);
        loop {
            let byte = self.room[end - 1 - width];
            len |= usize::from(byte & 127) << (7 * width);
            width += 1;
            if byte & 128 == 0 {
                return Some(Place(end - width - len));
            }
        }
    }

    /// The element at `index`, from the nearer end where the number of elements is known.
    pub fn seek(&self, index: usize) -> Option<Place> {
        let len = self.len();
        if index >= len {
            return None;
        }
        if index <= len / 2 {
            (0..index).try_fold(self.first()?, |place, _| self.next(place))
        } else {
            (0..len - 1 - index).try_fold(self.last()?, |place, _| self.prev(place))
        }
    }

    /// The element at a place.
    #[inline]
    pub fn at(&self, place: Place) -> Item<'_> {
        let bytes = &self.room[place.0..];
        decode(&bytes[..entry_len(bytes).expect("a place is where an entry begins")])
    }

    /// The element at a place, and the place behind it.
    #[inline]
    pub fn step(&self, place: Place) -> (Item<'_>, Option<Place>) {
        let bytes = &self.room[place.0..];
        let len = entry_len(bytes).expect("a place is where an entry begins");
        let next = place.0 + len + back_width(len);
        (decode(&bytes[..len]), (next < self.end()).then_some(Place(next)))
    }

    /// Calls `f` with the elements from `from` on, `most` of them at most; returns how many there were.
    #[inline]
    pub fn each<'a>(&'a self, from: Place, most: usize, mut f: impl FnMut(Item<'a>)) -> usize {
        let entries = &self.room[..self.end()];
        let (mut at, mut done) = (from.0, 0);
        while done < most
            && let Some(&first) = entries.get(at)
        {
            let len = usize::from(first & 0x3f);
            // Most are short texts, whose lengths stand in the first byte.
            let (item, len) = match entries.get(at + 1..at + 1 + len) {
                Some(text) if first & 0xc0 == 0x80 => (Item::Bytes(text), 1 + len),
                _ => {
                    let len = entry_len(&entries[at..]).expect("a place is where an entry begins");
                    (decode(&entries[at..at + len]), len)
                }
            };
            f(item);
            at += len + back_width(len);
            done += 1;
        }
        done
    }

    /// The first element that `needle` finds among those at `from` and, passing over `skip` elements each time, behind.
    pub fn find(&self, from: Place, needle: &Needle<'_>, skip: usize) -> Option<Place> {
        let end = self.end();
        let mut at = from.0;
        while at < end {
            if needle.is(self.at(Place(at))) {
                return Some(Place(at));
            }
            for _ in 0..=skip {
                if at < end {
                    at = self.behind(Place(at));
                }
            }
        }
        None
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let mut next = self.first();
        std::iter::from_fn(move || {
            let item;
            (item, next) = self.step(next?);
            Some(item)
        })
    }

    /// Adds an element behind all others.
    pub fn push_back(&mut self, element: &[u8]) {
        self.splice(self.end(), 0, 0, Some(element));
    }

    /// Adds an element from elsewhere behind all others.
    pub fn push_back_item(&mut self, item: Item<'_>) {
        match item {
            Item::Int(n) => self.push_back(itoa::Buffer::new().format(n).as_bytes()),
            Item::Bytes(bytes) => self.push_back(bytes),
        }
    }

    /// Adds several elements behind all others, for which `spare` bytes are enough in most cases; the header is
    /// written once.
    ///
    /// Where the bytes must move, there is room for twice as many afterwards: this is for those who add again and
    /// again. [`Listpack::shrink`] gives the rest back.
    pub fn extend(&mut self, spare: usize, write: impl FnOnce(&mut Appender<'_>)) {
        let (count, end) = (self.len(), self.end());
        if end + spare >= self.room.len() {
            self.resize(allotted((end + spare + 1).max(2 * end)));
        }
        let mut appender = Appender { pack: self, end, added: 0 };
        write(&mut appender);
        let Appender { end, added, .. } = appender;
        self.room[end] = END;
        self.finish(end + 1, count + added);
    }

    /// Replaces the element at `place` by a number; returns by how many bytes what stands behind it has moved.
    pub fn set_int(&mut self, place: Place, n: i64) -> isize {
        let encoded = Encoded::int(n);
        let old = self.behind(place) - place.0;
        if encoded.len() + back_width(encoded.len()) == old {
            // The length backwards is the same too.
            self.room[place.0..place.0 + encoded.head_len].copy_from_slice(&encoded.head[..encoded.head_len]);
            return 0;
        }
        let before = self.byte_len();
        self.replace(place, itoa::Buffer::new().format(n).as_bytes());
        self.byte_len() as isize - before as isize
    }

    /// Adds an element before all others.
    pub fn push_front(&mut self, element: &[u8]) {
        self.splice(HEADER, 0, 0, Some(element));
    }

    /// Adds an element before the one at `place`, whose place the new one takes.
    pub fn insert_before(&mut self, place: Place, element: &[u8]) {
        self.splice(place.0, 0, 0, Some(element));
    }

    /// Replaces the element at `place`.
    pub fn replace(&mut self, place: Place, element: &[u8]) {
        self.splice(place.0, self.behind(place) - place.0, 1, Some(element));
    }

    /// Removes the element at `place`; returns the place of the one that followed it.
    pub fn remove(&mut self, place: Place) -> Option<Place> {
        self.splice(place.0, self.behind(place) - place.0, 1, None);
        (place.0 < self.end()).then_some(place)
    }

    /// Removes `count` elements from `index` on, or as many as there are.
    pub fn remove_range(&mut self, index: usize, count: usize) {
        let Some(from) = self.seek(index).filter(|_| count > 0) else { return };
        let (mut to, mut removed) = (self.behind(from), 1);
        while removed < count && to < self.end() {
            to = self.behind(Place(to));
            removed += 1;
        }
        self.splice(from.0, to - from.0, removed, None);
    }

    /// Moves the elements from `index` on to a listpack of their own.
    pub fn split_off(&mut self, index: usize) -> Listpack {
        let Some(from) = self.seek(index) else { return Listpack::new() };
        let (end, moved) = (self.end(), self.len() - index);
        let mut bytes = vec![0; HEADER];
        bytes.reserve_exact(allotted(HEADER + end + 1 - from.0) - HEADER);
        // With the byte that ends both.
        bytes.extend_from_slice(&self.room[from.0..=end]);
        let total = bytes.len();
        let mut tail = Listpack::with_room(bytes, allotted(total));
        tail.finish(total, moved);
        self.splice(from.0, end - from.0, moved, None);
        tail
    }

    /// Adds all elements of another behind its own.
    pub fn append(&mut self, other: &Listpack) {
        let (count, end) = (self.len() + other.len(), self.end());
        let added = &other.as_bytes()[HEADER..];
        let total = end + added.len();
        self.make_room(total);
        self.room[end..total].copy_from_slice(added);
        self.finish(total, count);
    }

    /// Gives back memory that is not used.
    pub fn shrink(&mut self) {
        let room = allotted(self.byte_len());
        if room < self.room.len() {
            self.resize(room);
        }
    }

    /// Moves to an allocation of `room` bytes.
    fn resize(&mut self, room: usize) {
        let mut bytes = std::mem::take(&mut self.room).into_vec();
        if room > bytes.len() {
            *self = Listpack::with_room(bytes, room);
        } else {
            bytes.truncate(room);
            self.room = bytes.into_boxed_slice();
        }
    }

    /// Sees to it that there is room for `total` bytes.
    #[inline]
    fn make_room(&mut self, total: usize) {
        if total > self.room.len() {
            self.resize(allotted(total));
        }
    }

    /// Replaces `len` bytes at `at`, which are `removed` entries, by an entry for `element`, if there is one.
    fn splice(&mut self, at: usize, len: usize, removed: usize, element: Option<&[u8]>) {
        let (count, old_total) = (self.len(), self.byte_len());
        let encoded = element.map(Encoded::new);
        let width = encoded.as_ref().map_or(0, |e| back_width(e.len()));
        let new = encoded.as_ref().map_or(0, Encoded::len) + width;
        let total = old_total - len + new;
        self.make_room(total);
        self.room.copy_within(at + len..old_total, at + new);
        if let Some(Encoded { head, head_len, data }) = encoded {
            let entry = &mut self.room[at..at + new];
            entry[..head_len].copy_from_slice(&head[..head_len]);
            entry[head_len..head_len + data.len()].copy_from_slice(data);
            write_back_len(&mut entry[head_len + data.len()..], head_len + data.len());
        }
        self.finish(total, count - removed + usize::from(element.is_some()));
        // Much less than there was: give back what is more than twice as much as is used.
        if total < old_total && allotted(2 * total) < self.room.len() {
            self.shrink();
        }
    }

    /// Writes the header.
    fn finish(&mut self, total: usize, count: usize) {
        let total = u32::try_from(total).expect("a listpack is kept far below 4 GB by what its owners put in");
        self.room[..4].copy_from_slice(&total.to_le_bytes());
        let count = u16::try_from(count).unwrap_or(UNKNOWN);
        self.room[4..HEADER].copy_from_slice(&count.to_le_bytes());
    }
}

impl PartialEq for Listpack {
    fn eq(&self, other: &Listpack) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Listpack {}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(pack: &Listpack) -> Vec<Vec<u8>> {
        pack.iter().map(Item::to_vec).collect()
    }

    fn backwards(pack: &Listpack) -> Vec<Vec<u8>> {
        let mut next = pack.last();
        std::iter::from_fn(|| {
            let place = next?;
            next = pack.prev(place);
            Some(pack.at(place).to_vec())
        })
        .collect()
    }

    #[test]
    fn each_encoding_has_the_bytes_of_the_format() {
        let entry = |element: &[u8]| {
            let mut pack = Listpack::new();
            pack.push_back(element);
            let bytes = pack.as_bytes();
            bytes[HEADER..bytes.len() - 1].to_vec()
        };
        assert_eq!(entry(b"127"), [127, 1]);
        assert_eq!(entry(b"-1"), [0xdf, 0xff, 2]);
        assert_eq!(entry(b"4095"), [0xcf, 0xff, 2]);
        assert_eq!(entry(b"-4096"), [0xd0, 0, 2]);
        assert_eq!(entry(b"4096"), [0xf1, 0, 0x10, 3]);
        assert_eq!(entry(b"-8388608"), [0xf2, 0, 0, 0x80, 4]);
        assert_eq!(entry(b"8388608"), [0xf3, 0, 0, 0x80, 0, 5]);
        assert_eq!(entry(b"2147483648"), [0xf4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9]);
        assert_eq!(entry(b""), [0x80, 1]);
        assert_eq!(entry(b"007"), [0x83, b'0', b'0', b'7', 4]);
        let long = entry(&[b'x'; 64]);
        assert_eq!((&long[..2], &long[long.len() - 1..]), (&[0xe0, 64][..], &[66][..]));
        let longer = entry(&vec![b'x'; 4096]);
        assert_eq!((&longer[..5], &longer[longer.len() - 2..]), (&[0xf0, 0, 0x10, 0, 0][..], &[32, 0x85][..]));
    }

    #[test]
    fn lengths_around_each_step_are_read_backwards() {
        for len in [0, 63, 64, 125, 126, 127, 128, 4095, 4096, 16_377, 16_378, 16_379, 2_097_145, 2_097_146, 2_097_147]
        {
            if cfg!(miri) && len > 1 << 20 {
                continue;
            }
            let mut pack = Listpack::new();
            pack.push_back(b"first");
            pack.push_back(&vec![b'x'; len]);
            let found = backwards(&pack);
            assert_eq!((found.len(), found[0].len(), &found[1][..]), (2, len, &b"first"[..]));
            assert!(Listpack::from_bytes(pack.as_bytes().to_vec()).is_some());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many elements, of safe code")]
    fn more_elements_than_the_header_can_tell_are_counted() {
        let mut pack = Listpack::new();
        for _ in 0..65_534 {
            pack.push_back(b"1");
        }
        assert_eq!(pack.as_bytes()[4..6], [0xfe, 0xff]);
        pack.push_back(b"2");
        assert_eq!((&pack.as_bytes()[4..6], pack.len()), (&[0xff, 0xff][..], 65_535));
        pack.push_back(b"3");
        assert_eq!((pack.len(), pack.seek(65_535).map(|p| pack.at(p))), (65_536, Some(Item::Int(3))));
        pack.remove_range(0, 2);
        assert_eq!((pack.len(), pack.as_bytes()[4]), (65_534, 0xfe));
    }

    #[test]
    fn allocations_are_as_large_as_allocators_make_them() {
        let sizes = [(1, 8), (8, 8), (9, 16), (118, 128), (128, 128), (129, 160), (256, 256), (257, 320), (8191, 8192)];
        for (len, size) in sizes {
            assert_eq!(allotted(len), size, "{len}");
        }
        let mut pack = Listpack::new();
        assert_eq!(pack.memory(), 8);
        (0..1000).for_each(|_| pack.push_back(b"element"));
        assert_eq!((pack.byte_len(), pack.memory()), (9007, 10_240));
        pack.remove_range(10, 990);
        assert_eq!((pack.byte_len(), pack.memory()), (97, 112));
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let mut pack = Listpack::new();
        for element in [&b"1"[..], b"-300", b"hello", &[b'y'; 200], b"123456789012"] {
            pack.push_back(element);
        }
        let good = pack.as_bytes().to_vec();
        for cut in 0..good.len() {
            assert!(Listpack::from_bytes(good[..cut].to_vec()).is_none());
        }
        for at in (0..good.len()).step_by(if cfg!(miri) { 9 } else { 1 }) {
            for value in [0, 1, 0x7f, 0x80, 0xc0, 0xe0, 0xf0, 0xf4, 0xf5, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Some(pack) = Listpack::from_bytes(bad) {
                    assert_eq!(texts(&pack).len(), backwards(&pack).len());
                }
            }
        }
    }

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (-5000i64..5000).prop_map(|n| n.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..8),
            (0usize..5000).prop_map(|n| vec![b'z'; n]),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Front(Vec<u8>),
        Back(Vec<u8>),
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Remove(usize),
        RemoveRange(usize, usize),
        SplitAndAppend(usize),
        Extend(Vec<Vec<u8>>, i64),
        SetInt(usize, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            element().prop_map(Step::Front),
            element().prop_map(Step::Back),
            (0usize..20, element()).prop_map(|(i, e)| Step::Insert(i, e)),
            (0usize..20, element()).prop_map(|(i, e)| Step::Replace(i, e)),
            (0usize..20).prop_map(Step::Remove),
            (0usize..20, 0usize..5).prop_map(|(i, n)| Step::RemoveRange(i, n)),
            (0usize..20).prop_map(Step::SplitAndAppend),
            (prop::collection::vec(element(), 0..4), any::<i64>()).prop_map(|(e, n)| Step::Extend(e, n)),
            (0usize..20, prop_oneof![any::<i64>(), -300i64..300]).prop_map(|(i, n)| Step::SetInt(i, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_vector_holds(steps in prop::collection::vec(step(), 1..40)) {
            let (mut pack, mut model) = (Listpack::new(), Vec::<Vec<u8>>::new());
            for step in steps {
                match step {
                    Step::Front(e) => { pack.push_front(&e); model.insert(0, e) }
                    Step::Back(e) => { pack.push_back(&e); model.push(e) }
                    Step::Insert(i, e) => if let Some(place) = pack.seek(i) { pack.insert_before(place, &e); model.insert(i, e) }
                    Step::Replace(i, e) => if let Some(place) = pack.seek(i) { pack.replace(place, &e); model[i] = e }
                    Step::Remove(i) => if let Some(place) = pack.seek(i) {
                        model.remove(i);
                        let next = pack.remove(place).map(|p| pack.at(p).to_vec());
                        prop_assert_eq!(next.as_ref(), model.get(i));
                    }
                    Step::RemoveRange(i, n) => {
                        pack.remove_range(i, n);
                        if i < model.len() { model.drain(i..(i + n).min(model.len())); }
                    }
                    Step::Extend(elements, n) => {
                        pack.extend(10, |to| {
                            to.int(n);
                            elements.iter().for_each(|e| to.bytes(e));
                        });
                        model.push(n.to_string().into_bytes());
                        model.extend(elements);
                    }
                    Step::SetInt(i, n) => if let Some(place) = pack.seek(i) {
                        let next = pack.next(place);
                        let by = pack.set_int(place, n);
                        prop_assert_eq!(pack.next(place), next.map(|next| next.moved(by)));
                        prop_assert_eq!(pack.skip(place, 2), pack.seek(i + 2));
                        model[i] = n.to_string().into_bytes();
                    }
                    Step::SplitAndAppend(i) => {
                        let tail = pack.split_off(i);
                        prop_assert_eq!(texts(&tail), model.get(i..).unwrap_or(&[]));
                        pack.append(&tail);
                    }
                }
                prop_assert_eq!(&texts(&pack), &model);
                let some = pack.len() / 2;
                if let Some(from) = pack.seek(some) {
                    let mut each = Vec::new();
                    prop_assert_eq!(pack.each(from, 3, |item| each.push(item.to_vec())), each.len());
                    prop_assert_eq!(&each[..], &model[some..model.len().min(some + 3)]);
                }
                prop_assert_eq!(backwards(&pack), model.iter().rev().cloned().collect::<Vec<_>>());
                prop_assert_eq!(pack.len(), model.len());
                if let Some(first) = pack.first() {
                    for skip in 0..3 {
                        let sought = model.last().unwrap();
                        let found = model.iter().step_by(skip + 1).position(|e| e == sought);
                        let place = found.and_then(|i| pack.seek(i * (skip + 1)));
                        prop_assert_eq!(pack.find(first, &Needle::new(sought), skip), place);
                    }
                }
                for (i, e) in model.iter().enumerate() {
                    let item = pack.at(pack.seek(i).unwrap());
                    prop_assert!(Needle::new(e).is(item));
                }
            }
            prop_assert_eq!(Listpack::from_bytes(pack.as_bytes().to_vec()), Some(pack));
        }
    }
}
