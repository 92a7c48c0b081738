//! LZF, the compression of strings in snapshots: fast, and better than nothing.
//!
//! ```text
//! 000lllll                    a run: l + 1 bytes follow as they are
//! lllooooo oooooooo           a reference, l from 1 to 6: l + 2 bytes from o + 1 bytes before
//! 111ooooo llllllll oooooooo  a longer one: l + 9 bytes
//! ```
//!
//! What must stay true: what is compressed is what Redis makes of the same bytes, position for position (the same
//! hash of three bytes, the same greedy choice, the same point at which it gives up), so that payloads can be
//! compared; decompression writes no more than it was told to expect.

use std::cell::RefCell;

const HASH_BITS: u32 = 16;
const MAX_OFFSET: usize = 1 << 13;
const MAX_REFERENCE: usize = (1 << 8) + (1 << 3);
const MAX_RUN: usize = 1 << 5;

/// How many times longer than its compressed form a text can be: 264 bytes for three.
const MOST: usize = MAX_REFERENCE / 3;

/// Where three bytes with a certain hash stood last, counted over all inputs of a thread, so that nothing has to be
/// cleared between two of them.
struct Places {
    last: Box<[u32; 1 << HASH_BITS]>,
    base: u32,
}

thread_local! {
    static PLACES: RefCell<Option<Places>> = const { RefCell::new(None) };
}

/// The hash of three bytes, the first of them highest.
fn hash(three: u32) -> usize {
    ((three >> (24 - HASH_BITS)).wrapping_sub(three.wrapping_mul(5)) & ((1 << HASH_BITS) - 1)) as usize
}

fn three(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

/// Appends `input` in compressed form to `out`; returns how many bytes that took, or `None` (and nothing appended)
/// where they would not be `saving` bytes fewer.
pub fn compress(input: &[u8], saving: usize, out: &mut Vec<u8>) -> Option<usize> {
    let room = input.len().checked_sub(saving)?;
    if input.len() < 3 || u32::try_from(input.len()).is_err() {
        return None;
    }
    let start = out.len();
    let done = PLACES.with_borrow_mut(|places| {
        let len = input.len() as u32;
        // Where the count would end it begins anew: whatever was noted counts as never seen.
        let places = match places {
            Some(places) if places.base.checked_add(len).is_some() => places,
            places => places.insert(Places::new()),
        };
        let done = places.compress(input, room, out);
        places.base += len;
        done
    });
    if done.is_none() {
        out.truncate(start);
    }
    done.map(|()| out.len() - start)
}

impl Places {
    fn new() -> Places {
        let last = vec![0; 1 << HASH_BITS].try_into().expect("as many as there are hashes");
        Places { last, base: 0 }
    }

    fn compress(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Option<()> {
        let Places { ref mut last, base } = *self;
        let start = out.len();
        let end = input.len() - 2;
        // A run is written when its length is known. Until then it counts with its head, even an empty one.
        let (mut run, mut at) = (0, 0);
        while at < end {
            let given_up = (run + room).saturating_sub(out.len() - start + 1);
            let stop = end.min(run + MAX_RUN).min(given_up + 1);
            let Some(seen) = find(last, base, input, &mut at, stop) else {
                if at > given_up {
                    return None;
                }
                if at - run == MAX_RUN {
                    append_run(out, &input[run..at]);
                    run = at;
                }
                continue;
            };
            let most = (input.len() - at - 2).min(MAX_REFERENCE);
            let len = 3 + common(&input[seen + 3..], &input[at + 3..at + most.max(3)]);
            append_run(out, &input[run..at]);
            if out.len() - start + 4 >= room {
                return None;
            }
            let (code, offset) = (len - 2, at - seen - 1);
            out.push((offset >> 8) as u8 | (code.min(7) << 5) as u8);
            if code >= 7 {
                out.push((code - 7) as u8);
            }
            out.push(offset as u8);
            for behind in [at + len - 2, at + len - 1] {
                if behind < end {
                    last[hash(three(&input[behind..]))] = base + behind as u32;
                }
            }
            at += len;
            run = at;
        }
        // At most three bytes are left, with the head of a run before them.
        if out.len() - start + 1 + at - run + 3 > room {
            return None;
        }
        let (first, second) = input[run..].split_at((input.len() - run).min(MAX_RUN));
        append_run(out, first);
        append_run(out, second);
        Some(())
    }
}

/// Notes where three bytes stand, from `at` on, until they stood somewhere before: returns where, and leaves `at` there.
/// Ends at `stop`, two before the input's end at the latest.
///
/// What is random has nothing else done to it, so this loop is what it costs to find that it is.
#[inline]
fn find(last: &mut [u32; 1 << HASH_BITS], base: u32, input: &[u8], at: &mut usize, stop: usize) -> Option<usize> {
    let mut behind = u32::from(*input.get(*at)?) << 8 | u32::from(*input.get(*at + 1)?);
    for (&byte, here) in input.get(*at + 2..stop + 2)?.iter().zip(*at..) {
        behind = behind << 8 | u32::from(byte);
        let slot = &mut last[hash(behind & 0xff_ffff)];
        let seen = std::mem::replace(slot, base + here as u32);
        // Position 0 is never referred to, and neither is what stood in an input before this one.
        if seen > base {
            let seen = (seen - base) as usize;
            let near = here - seen <= MAX_OFFSET && here + 4 < input.len();
            if near && input[seen..seen + 3] == input[here..here + 3] {
                *at = here;
                return Some(seen);
            }
        }
    }
    *at = stop;
    None
}

/// Appends bytes as they are, 32 at most.
fn append_run(out: &mut Vec<u8>, run: &[u8]) {
    if let Some(head) = run.len().checked_sub(1) {
        out.push(head as u8);
        out.extend_from_slice(run);
    }
}

/// How many bytes `a` and `b` begin with are the same. Eight at a time: most of the time goes here.
fn common(a: &[u8], b: &[u8]) -> usize {
    let (a8, a_rest) = a[..b.len().min(a.len())].as_chunks::<8>();
    let (b8, b_rest) = b[..b.len().min(a.len())].as_chunks::<8>();
    for (n, (a, b)) in a8.iter().zip(b8).enumerate() {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if different != 0 {
            return n * 8 + (different.trailing_zeros() / 8) as usize;
        }
    }
    a8.len() * 8 + a_rest.iter().zip(b_rest).take_while(|(a, b)| a == b).count()
}

/// The bytes, `len` of them, whose compressed form is `input`; `None` where it is damaged.
///
/// A length that `input` cannot reach is refused before memory is taken for it.
pub fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > input.len().saturating_mul(MOST) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while let Some((&control, behind)) = rest.split_first() {
        let control = usize::from(control);
        if control < MAX_RUN {
            let (run, behind) = behind.split_at_checked(control + 1)?;
            if out.len() + run.len() > len {
                return None;
            }
            out.extend_from_slice(run);
            rest = behind;
            continue;
        }
        let (more, behind) = if control >> 5 == 7 { behind.split_at_checked(1)? } else { (&behind[..0], behind) };
        let (&low, behind) = behind.split_first()?;
        let count = (control >> 5) + more.first().map_or(0, |more| usize::from(*more)) + 2;
        let from = out.len().checked_sub(((control & 31) << 8 | usize::from(low)) + 1)?;
        if out.len() + count > len {
            return None;
        }
        let period = out.len() - from;
        if period >= count {
            out.extend_from_within(from..from + count);
        } else {
            // It refers to bytes that it writes itself: a pattern that goes on, of which there is twice as much each time.
            let end = out.len() + count;
            while out.len() < end {
                let some = (out.len() - from).min(end - out.len());
                out.extend_from_within(from..from + some);
            }
        }
        rest = behind;
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressed(input: &[u8], saving: usize) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let len = compress(input, saving, &mut out);
        assert_eq!(&out[..6], b"before");
        match len {
            Some(len) => assert_eq!(out.len(), 6 + len),
            None => assert_eq!(out.len(), 6),
        }
        len.map(|_| out.split_off(6))
    }

    #[test]
    fn repetition_is_compressed_and_its_absence_is_not() {
        let x = [b'x'; 200];
        assert_eq!(compressed(&x, 4).unwrap(), [1, b'x', b'x', 0xe0, 187, 0, 1, b'x', b'x']);
        assert!(compressed(b"abcdefghijklmnopqrstuvwxyz", 4).is_none());
        assert!(compressed(b"", 4).is_none() && compressed(b"aaa", 4).is_none());
    }

    #[test]
    fn damaged_input_and_boundless_lengths_are_refused() {
        let x = compressed(&[b'x'; 200], 4).unwrap();
        assert_eq!(decompress(&x, 200).unwrap(), [b'x'; 200]);
        assert!(decompress(&x, 199).is_none() && decompress(&x, 201).is_none());
        assert!(decompress(&x[..8], 200).is_none());
        assert!(decompress(&[0xe0, 255, 0], usize::MAX).is_none());
        assert!(decompress(&[0x20, 0], 3).is_none(), "it refers to what stands before the beginning");
    }

    /// Text of few different bytes and longer repetitions.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::collection::vec(prop_oneof![4 => b'a'..b'd', 1 => any::<u8>()], 0..40);
        (prop::collection::vec(word, 1..6), prop::collection::vec(0..6usize, 0..400))
            .prop_map(|(words, order)| order.into_iter().flat_map(|i| words[i % words.len()].clone()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_compressed_comes_back_and_another_implementation_agrees(text in text()) {
            if let Some(short) = compressed(&text, 4) {
                prop_assert!(short.len() + 4 <= text.len());
                prop_assert_eq!(&decompress(&short, text.len()).unwrap(), &text);
                prop_assert_eq!(&lzf::decompress(&short, text.len()).unwrap(), &text);
                prop_assert_eq!(&lzf::compress(&text).unwrap(), &short);
            }
        }

        #[test]
        fn no_input_makes_decompression_panic(input in prop::collection::vec(any::<u8>(), 0..60), len in 0..4000usize) {
            if let Some(out) = decompress(&input, len) {
                prop_assert_eq!(out.len(), len);
                prop_assert_eq!(&lzf::decompress(&input, len).unwrap(), &out);
            }
        }
    }
}
