//! Dense runs: the elements of a small hash or sorted set one behind the other, in as few bytes as they need.
//!
//! ```text
//! 0 to 127    text of so many bytes, which follow
//! 128 to 239  the integers 0 to 111
//! 240 to 245  an integer of 1, 2, 3, 4, 6, 8 bytes, which follow
//! 246, 247    a float of 4, 8 bytes
//! 248         text; its length in two bytes, and the text
//! ```
//! Numbers are little endian. Nothing is counted and nothing leads backwards: what is small is walked from its
//! beginning. A listpack of the same elements takes a byte more for each of them and seven on top.
//!
//! What must stay true: a run is elements from end to end; each has one form alone, its shortest, so that equal
//! elements are equal bytes.

use std::ops::Range;

use smallvec::SmallVec;

use crate::types::listpack::{Item, Needle};

/// The most bytes of a run. More of them are walked too slowly, and save too little.
pub const MAX: usize = 512;

const SHORT_TEXT: u8 = 0x7f;
const SMALL_INT: u8 = 0x80;
const INTS: u8 = 240;
const FLOAT_4: u8 = 246;
const FLOAT_8: u8 = 247;
const LONG_TEXT: u8 = 248;
/// The integers below are in the first byte.
const SMALL_INTS: i64 = (INTS - SMALL_INT) as i64;
/// The widths of the other integers.
const WIDTHS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Doubles up to here hold every integer.
const EXACT: f64 = (1u64 << 53) as f64;

/// An element to be written.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Text, which may be that of an integer.
    Text(&'a [u8]),
    /// An integer.
    Int(i64),
    /// A number that is read by [`Run::number`] again; a negative zero loses its sign.
    Number(f64),
}

/// Elements that were written, to be put into a run.
pub type Written = SmallVec<[u8; 128]>;

/// Appends an element.
pub fn write(part: Part<'_>, out: &mut Written) {
    match part {
        Part::Text(text) => match Needle::new(text).integer() {
            Some(n) => write_int(n, out),
            None => {
                match u8::try_from(text.len()).ok().filter(|len| *len <= SHORT_TEXT) {
                    Some(len) => out.push(len),
                    None => {
                        let len = u16::try_from(text.len()).expect("what is longer than MAX is kept elsewhere");
                        out.push(LONG_TEXT);
                        out.extend_from_slice(&len.to_le_bytes());
                    }
                }
                out.extend_from_slice(text);
            }
        },
        Part::Int(n) => write_int(n, out),
        Part::Number(number) => {
            if number.abs() <= EXACT && number.fract() == 0.0 {
                write_int(number as i64, out);
            } else if f64::from(number as f32) == number {
                out.push(FLOAT_4);
                out.extend_from_slice(&(number as f32).to_le_bytes());
            } else {
                out.push(FLOAT_8);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

fn write_int(n: i64, out: &mut Written) {
    if (0..SMALL_INTS).contains(&n) {
        return out.push(SMALL_INT + n as u8);
    }
    // The bits that differ from the sign, and the sign.
    let bits = 65 - (n ^ n >> 63).leading_zeros() as usize;
    let form = WIDTHS.iter().position(|width| 8 * width >= bits).expect("64 bits are enough");
    out.push(INTS + form as u8);
    out.extend_from_slice(&n.to_le_bytes()[..WIDTHS[form]]);
}

fn int(bytes: &[u8]) -> i64 {
    // Sign-extended by shifting it up and down again.
    let mut le = [0; 8];
    le[8 - bytes.len()..].copy_from_slice(bytes);
    i64::from_le_bytes(le) >> (64 - 8 * bytes.len())
}

/// Elements, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Run<'a>(&'a [u8]);

impl<'a> Run<'a> {
    /// The run that these bytes are, which came from [`Run::bytes`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Run<'a> {
        Run(bytes)
    }

    /// The bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// How many bytes there are; also where an element behind all others goes.
    #[inline]
    pub fn end(self) -> usize {
        self.0.len()
    }

    /// The place behind the element at `at`.
    #[inline]
    pub fn behind(self, at: usize) -> usize {
        let first = self.0[at];
        at + match first {
            0..=SHORT_TEXT => 1 + usize::from(first),
            SMALL_INT..INTS => 1,
            INTS..FLOAT_4 => 1 + WIDTHS[usize::from(first - INTS)],
            FLOAT_4 => 5,
            FLOAT_8 => 9,
            _ => 3 + usize::from(u16::from_le_bytes([self.0[at + 1], self.0[at + 2]])),
        }
    }

    /// The text at `at`, and the place behind it.
    #[inline]
    pub fn item(self, at: usize) -> (Item<'a>, usize) {
        let (first, behind) = (self.0[at], self.behind(at));
        let item = match first {
            0..=SHORT_TEXT => Item::Bytes(&self.0[at + 1..behind]),
            SMALL_INT..INTS => Item::Int(i64::from(first - SMALL_INT)),
            INTS..FLOAT_4 => Item::Int(int(&self.0[at + 1..behind])),
            FLOAT_4 | FLOAT_8 => unreachable!("floats are read as numbers"),
            _ => Item::Bytes(&self.0[at + 3..behind]),
        };
        (item, behind)
    }

    /// The number at `at`, and the place behind it.
    #[inline]
    pub fn number(self, at: usize) -> (f64, usize) {
        let behind = self.behind(at);
        let bytes = &self.0[at + 1..behind];
        let number = match self.0[at] {
            FLOAT_4 => f64::from(f32::from_le_bytes(bytes.try_into().expect("its width is four bytes"))),
            FLOAT_8 => f64::from_le_bytes(bytes.try_into().expect("its width is eight bytes")),
            _ => match self.item(at).0 {
                Item::Int(n) => n as f64,
                Item::Bytes(_) => unreachable!("text is read as an item"),
            },
        };
        (number, behind)
    }

    /// How many elements there are. Walks over them.
    pub fn count(self) -> usize {
        let (mut at, mut count) = (0, 0);
        while at < self.0.len() {
            at = self.behind(at);
            count += 1;
        }
        count
    }

    /// Where the element behind `count` others begins; the end, or beyond, where there are not so many.
    pub fn seek(self, count: usize) -> usize {
        let (mut at, mut left) = (0, count);
        while left > 0 && at < self.0.len() {
            at = self.behind(at);
            left -= 1;
        }
        at
    }

    /// Where the text `text` stands among the first elements of each pair; and how many pairs come before it.
    #[inline]
    pub fn find(self, text: &[u8]) -> Option<(usize, usize)> {
        let (mut at, mut pairs) = (0, 0);
        if text.first().is_some_and(|first| first.is_ascii_digit() || *first == b'-') || text.len() > SHORT_TEXT.into()
        {
            let mut sought = Written::new();
            if text.len() > MAX {
                return None;
            }
            write(Part::Text(text), &mut sought);
            while at < self.0.len() {
                let behind = self.behind(at);
                if self.0[at..behind] == sought[..] {
                    return Some((at, pairs));
                }
                at = self.behind(behind);
                pairs += 1;
            }
            return None;
        }
        while at < self.0.len() {
            let behind = self.behind(at);
            if usize::from(self.0[at]) == text.len() && &self.0[at + 1..behind] == text {
                return Some((at, pairs));
            }
            at = self.behind(behind);
            pairs += 1;
        }
        None
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({})", self.0.escape_ascii())
    }
}

/// Elements, owned, to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dense(Vec<u8>);

impl Dense {
    /// The elements of a run, and room for some more.
    #[inline]
    pub fn from_run(run: Run<'_>) -> Dense {
        let mut bytes = Vec::with_capacity(run.0.len() + 48);
        bytes.extend_from_slice(run.0);
        Dense(bytes)
    }

    /// All elements, to be read.
    #[inline]
    pub fn run(&self) -> Run<'_> {
        Run(&self.0)
    }

    /// Bytes that are allocated.
    pub fn memory(&self) -> usize {
        self.0.capacity()
    }

    /// Whether it may take up texts of so many bytes in all, in so many elements.
    #[inline]
    pub fn has_room(&self, elements: usize, bytes: usize) -> bool {
        self.0.len() + bytes + 9 * elements <= MAX
    }

    /// Puts elements into the place of others, whole ones both.
    pub fn replace(&mut self, old: Range<usize>, new: &[u8]) {
        let len = self.0.len();
        let grown = len - old.len() + new.len();
        if grown > len {
            self.0.resize(grown, 0);
        }
        self.0.copy_within(old.end..len, old.start + new.len());
        self.0.truncate(grown);
        self.0[old.start..old.start + new.len()].copy_from_slice(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(part: Part<'_>) -> Vec<u8> {
        let mut out = Written::new();
        write(part, &mut out);
        out.to_vec()
    }

    #[test]
    fn each_element_takes_as_few_bytes_as_it_can() {
        assert_eq!(written(Part::Text(b"field0")), b"\x06field0");
        assert_eq!(written(Part::Text(b"")), [0]);
        assert_eq!(written(Part::Text(b"007")), b"\x03007");
        let sizes = [
            (0, 1),
            (111, 1),
            (112, 2),
            (-1, 2),
            (127, 2),
            (128, 3),
            (-129, 3),
            (1 << 15, 4),
            (1 << 23, 5),
            (1 << 31, 7),
            (1_700_000_000_000, 7),
            (1 << 47, 9),
            (i64::MAX, 9),
            (i64::MIN, 9),
        ];
        for (n, size) in sizes {
            assert_eq!(written(Part::Int(n)).len(), size, "{n}");
            assert_eq!(written(Part::Text(n.to_string().as_bytes())), written(Part::Int(n)));
        }
        for (number, size) in [(0.0, 1), (-0.0, 1), (-2.0, 2), (0.5, 5), (f64::INFINITY, 5), (0.1, 9), (1e300, 9)] {
            let bytes = written(Part::Number(number));
            assert_eq!((bytes.len(), Run::new(&bytes).number(0)), (size, (number, size)), "{number}");
        }
        assert_eq!(written(Part::Text(&[b'x'; 127])).len(), 128);
        assert_eq!(written(Part::Text(&[b'x'; 128])).len(), 131);
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (-300i64..300).prop_map(|n| n.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..9),
            (0usize..300).prop_map(|n| vec![b'-'; n]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_vector_of_pairs_holds(
            steps in prop::collection::vec((0usize..12, 0usize..3, text(), any::<f64>()), 1..40),
        ) {
            let (mut dense, mut model) = (Dense::default(), Vec::<(Vec<u8>, f64)>::new());
            for (at, what, text, number) in steps {
                let number = if number.is_nan() { 0.25 } else { number };
                let at = at.min(model.len());
                let from = dense.run().seek(2 * at);
                let to = if what > 0 { dense.run().seek(2 * at + 2) } else { from };
                let mut new = Written::new();
                if what < 2 {
                    write(Part::Text(&text), &mut new);
                    write(Part::Number(number), &mut new);
                }
                dense.replace(from..to, &new);
                let end = if what > 0 { (at + 1).min(model.len()) } else { at };
                model.splice(at..end, (what < 2).then_some((text, number)));

                let run = dense.run();
                prop_assert_eq!(run.count(), 2 * model.len());
                let mut place = 0;
                for (pairs, (text, number)) in model.iter().enumerate() {
                    let first = model.iter().position(|(other, _)| other == text);
                    prop_assert_eq!(run.find(text).map(|(_, pairs)| pairs), first);
                    if first == Some(pairs) {
                        prop_assert_eq!(run.find(text).map(|(at, _)| at), Some(place));
                    }
                    let (item, behind) = run.item(place);
                    let (score, behind) = run.number(behind);
                    prop_assert_eq!((item.to_vec(), score), (text.clone(), *number));
                    place = behind;
                }
                prop_assert_eq!(place, run.end());
                prop_assert_eq!(run.find(b"what is not there"), None);
            }
        }
    }
}
