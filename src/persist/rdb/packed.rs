//! The runs of bytes that older versions kept small collections in: ziplist and zipmap.
//!
//! ```text
//! ziplist  bytes: u32 | offset of the last entry: u32 | entries: u16 | entry ... | 0xff
//! entry    length of the one before: 1 byte, or 0xfe and u32 | encoding | data
//! zipmap   entries: u8 | (length, field, length, bytes unused, value, unused) ... | 0xff
//! ```
//! Listpacks, which followed them, are [`Listpack`](crate::types::listpack::Listpack)s of ours too.
//!
//! What must stay true: each function looks at every byte and at none beyond the end; what it returns borrows from
//! its input, so that it needs no more memory than the input had.

use crate::types::listpack::Item;

const END: u8 = 0xff;
/// The count that stands for "unknown".
const UNKNOWN: usize = u16::MAX as usize;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) as usize)
}

/// The elements of a ziplist; `None` where the bytes are not one from end to end.
pub fn ziplist(bytes: &[u8]) -> Option<Vec<Item<'_>>> {
    const HEADER: usize = 10;
    let (total, last, count) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?, u16_at(bytes, 8)?);
    if total != bytes.len() || total <= HEADER || bytes[total - 1] != END {
        return None;
    }
    let body = &bytes[..total - 1];
    let mut items = Vec::new();
    // Where an empty one's last entry would be is its end.
    let (mut at, mut tail, mut previous) = (HEADER, HEADER, 0);
    while at < body.len() {
        let start = at;
        let before = usize::from(body[at]);
        at += 1;
        let before = match before {
            0xfe => {
                at += 4;
                u32_at(body, at - 4)?
            }
            0xff => return None,
            short => short,
        };
        if before != previous {
            return None;
        }
        let (item, len) = ziplist_entry(body.get(at..)?)?;
        items.push(item);
        at += len;
        tail = start;
        previous = at - start;
    }
    (tail == last && (count == items.len() || count == UNKNOWN)).then_some(items)
}

/// The element whose encoding begins `bytes`, and how many bytes both take.
fn ziplist_entry(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    let first = *bytes.first()?;
    let text = |head: usize, len: usize| Some((Item::Bytes(bytes.get(head..head.checked_add(len)?)?), head + len));
    let int = |width: usize| {
        let data = bytes.get(1..=width)?;
        // Sign-extended by shifting it up and down again.
        let mut le = [0; 8];
        le[8 - width..].copy_from_slice(data);
        Some((Item::Int(i64::from_le_bytes(le) >> (64 - 8 * width)), 1 + width))
    };
    match first {
        0..0x40 => text(1, usize::from(first)),
        0x40..0x80 => text(2, usize::from(first & 0x3f) << 8 | usize::from(*bytes.get(1)?)),
        0x80 => text(5, u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize),
        0xc0 => int(2),
        0xd0 => int(4),
        0xe0 => int(8),
        0xf0 => int(3),
        0xfe => int(1),
        0xf1..=0xfd => Some((Item::Int(i64::from(first & 15) - 1), 1)),
        _ => None,
    }
}

/// The fields and values of a zipmap, one after the other; `None` where the bytes are not one from end to end.
pub fn zipmap(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (&count, mut rest) = bytes.split_first()?;
    let mut texts = Vec::new();
    loop {
        let (&first, behind) = rest.split_first()?;
        let (len, behind) = match first {
            END if behind.is_empty() && texts.len() % 2 == 0 => break,
            END => return None,
            254 => (u32_at(behind, 0)?, behind.get(4..)?),
            short => (usize::from(short), behind),
        };
        // A value may be followed by bytes that a longer one before it has left.
        let (unused, behind) = match texts.len() % 2 {
            1 => (usize::from(*behind.first()?), &behind[1..]),
            _ => (0, behind),
        };
        texts.push(behind.get(..len)?);
        rest = behind.get(len.checked_add(unused)?..)?;
    }
    // The count says nothing where it has reached its end.
    (count >= 254 || usize::from(count) == texts.len() / 2).then_some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ziplist of these entries, each given as its encoding and data.
    fn ziplist_of(entries: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        let (mut previous, mut last) = (0usize, 10);
        for entry in entries {
            let start = body.len();
            last = 10 + start;
            if previous < 254 {
                body.push(previous as u8);
            } else {
                body.push(254);
                body.extend_from_slice(&(previous as u32).to_le_bytes());
            }
            body.extend_from_slice(entry);
            previous = body.len() - start;
        }
        let mut bytes = (body.len() as u32 + 11).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(last as u32).to_le_bytes());
        bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes.push(END);
        bytes
    }

    #[test]
    fn every_encoding_of_a_ziplist_is_read() {
        let long = [&[0x41, 44][..], &[b'y'; 300]].concat();
        let longer = [&[0x80, 0, 0, 0x40, 0][..], &[b'z'; 0x4000]].concat();
        let entries: [&[u8]; 10] = [
            b"\x02ab",
            &long,
            &longer,
            &[0xc0, 0, 1],
            &[0xd0, 0, 0, 0, 0x80],
            &[0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xf0, 0xff, 0xff, 0xff],
            &[0xfe, 0x80],
            &[0xf1],
            &[0xfd],
        ];
        let bytes = ziplist_of(&entries);
        let texts: Vec<Vec<u8>> = ziplist(&bytes).unwrap().into_iter().map(Item::to_vec).collect();
        let expected: [&[u8]; 10] = [
            b"ab",
            &[b'y'; 300],
            &[b'z'; 0x4000],
            b"256",
            b"-2147483648",
            b"9223372036854775807",
            b"-1",
            b"-128",
            b"0",
            b"12",
        ];
        assert_eq!(texts, expected);
        assert_eq!(ziplist(&ziplist_of(&[])).unwrap().len(), 0);
    }

    #[test]
    fn a_zipmap_may_have_unused_bytes_and_long_values() {
        let long = [&[254, 44, 1, 0, 0, 2][..], &[b'v'; 300], b"??"].concat();
        let bytes = [b"\x02\x01a\x01\x00b\x02cc", &long[..], b"\xff"].concat();
        assert_eq!(zipmap(&bytes).unwrap(), [&b"a"[..], b"b", b"cc", &[b'v'; 300]]);
        assert_eq!(zipmap(b"\x00\xff").unwrap().len(), 0);
        for wrong in [&b""[..], b"\x00", b"\x01\xff", b"\x01\x01a\xff", b"\x01\x01a\x01\x05b\xff", b"\x00\xff\xff"] {
            assert!(zipmap(wrong).is_none(), "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damage_is_refused_or_harmless(at in 0..40usize, to in any::<u8>(), cut in 0..40usize) {
            let list = ziplist_of(&[b"\x02ab", &[0xc0, 0, 1], &[0xf1], b"\x05hello"]);
            let map = b"\x02\x01a\x01\x02b??\x02cc\x03\x00ddd\xff".to_vec();
            for bytes in [list, map] {
                let mut damaged = bytes.clone();
                let at = at % bytes.len();
                damaged[at] = to;
                for bytes in [&damaged[..], &bytes[..cut.min(bytes.len())]] {
                    let _ = (ziplist(bytes), zipmap(bytes));
                }
            }
        }
    }
}
