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
    last: Vec<u32>,
    base: u32,
}

thread_local! {
    static PLACES: RefCell<Places> = const { RefCell::new(Places { last: Vec::new(), base: 0 }) };
}

fn hash(bytes: &[u8]) -> usize {
    let three = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
    ((three >> (24 - HASH_BITS)).wrapping_sub(three.wrapping_mul(5)) & ((1 << HASH_BITS) - 1)) as usize
}

/// Appends `input` in compressed form to `out`; returns how many bytes that took, or `None` (and nothing appended)
/// where they would not be `saving` bytes fewer.
pub fn compress(input: &[u8], saving: usize, out: &mut Vec<u8>) -> Option<usize> {
    let room = input.len().checked_sub(saving)?;
    if input.len() < 3 || u32::try_from(input.len()).is_err() {
        return None;
    }
    let start = out.len();
    let done = PLACES.with_borrow_mut(|places| places.compress(input, room, out));
    if done.is_none() {
        out.truncate(start);
    }
    done.map(|()| out.len() - start)
}

impl Places {
    /// Makes place for an input of so many bytes: whatever was noted before it counts as never seen.
    fn begin(&mut self, len: u32) {
        if self.last.is_empty() || self.base.checked_add(len).is_none() {
            self.last = vec![0; 1 << HASH_BITS];
            self.base = 0;
        }
    }

    fn compress(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> Option<()> {
        self.begin(input.len() as u32);
        let base = self.base;
        self.base += input.len() as u32;
        let start = out.len();
        // The head of a run stands before its bytes, and is written when its length is known.
        let (mut head, mut run) = (start, 0);
        out.push(0);
        let mut at = 0;
        while at + 2 < input.len() {
            let slot = &mut self.last[hash(&input[at..])];
            // Position 0 is never referred to, and neither is what stood in an input before this one.
            let seen = slot.checked_sub(base).map_or(0, |seen| seen as usize);
            *slot = base + at as u32;
            let offset = at.wrapping_sub(seen).wrapping_sub(1);
            let repeats =
                seen > 0 && offset < MAX_OFFSET && at + 4 < input.len() && input[seen..seen + 3] == input[at..at + 3];
            if !repeats {
                if out.len() - start >= room {
                    return None;
                }
                literal(out, &mut head, &mut run, input[at]);
                at += 1;
                continue;
            }
            let most = (input.len() - at - 2).min(MAX_REFERENCE);
            let same = input[seen + 3..].iter().zip(&input[at + 3..]).take(most.saturating_sub(3));
            let len = 3 + same.take_while(|(a, b)| a == b).count();
            end_run(out, head, run);
            if out.len() - start + 4 >= room {
                return None;
            }
            let code = len - 2;
            out.push((offset >> 8) as u8 | (code.min(7) << 5) as u8);
            if code >= 7 {
                out.push((code - 7) as u8);
            }
            out.push(offset as u8);
            (head, run) = (out.len(), 0);
            out.push(0);
            for behind in [at + len - 2, at + len - 1] {
                if behind + 2 < input.len() {
                    self.last[hash(&input[behind..])] = base + behind as u32;
                }
            }
            at += len;
        }
        // At most three bytes are left, with the head of a run before them.
        if out.len() - start + 3 > room {
            return None;
        }
        input[at..].iter().for_each(|byte| literal(out, &mut head, &mut run, *byte));
        end_run(out, head, run);
        Some(())
    }
}

fn literal(out: &mut Vec<u8>, head: &mut usize, run: &mut usize, byte: u8) {
    out.push(byte);
    *run += 1;
    if *run == MAX_RUN {
        out[*head] = (*run - 1) as u8;
        (*head, *run) = (out.len(), 0);
        out.push(0);
    }
}

fn end_run(out: &mut Vec<u8>, head: usize, run: usize) {
    match run {
        0 => out.truncate(head),
        run => out[head] = (run - 1) as u8,
    }
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
            // It refers to bytes that it writes itself: a pattern that goes on.
            for i in 0..count {
                out.push(out[from + i]);
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
