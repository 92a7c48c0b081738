//! The backlog: the last part of the stream to replicas, held once for all of them.
//!
//! A replica that was cut off goes on from here where it stopped, and one that is connected reads from here what it
//! has not been sent yet. What must stay true: the bytes from the first that is held to the end are all there; what a
//! connected replica has yet to read is held, however long the backlog gets by that, and is given back once it has been
//! read.

use std::collections::VecDeque;

use bytes::Bytes;

/// A block of so many bytes is closed, and handed to readers without a copy.
const BLOCK_BYTES: usize = 16 * 1024;

/// The last part of a stream.
#[derive(Debug)]
pub struct Backlog {
    /// Blocks that are complete, oldest first, each with the offset of its first byte.
    closed: VecDeque<(u64, Bytes)>,
    /// The block that grows.
    open: Vec<u8>,
    /// How many bytes the stream had before the first that is held.
    first: u64,
    /// How many it has in all.
    end: u64,
}

impl Backlog {
    /// An empty one for a stream that had `at` bytes until now.
    pub fn new(at: u64) -> Backlog {
        Backlog { closed: VecDeque::new(), open: Vec::new(), first: at, end: at }
    }

    /// How many bytes the stream had before the first that is held.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many bytes the stream has in all.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are held.
    pub fn len(&self) -> u64 {
        self.end - self.first
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let closed = self.len() as usize - self.open.len();
        closed + self.closed.len() * size_of::<(u64, Bytes)>() + self.open.capacity()
    }

    /// Whether who has `at` bytes of the stream can go on from there.
    pub fn covers(&self, at: u64) -> bool {
        (self.first..=self.end).contains(&at)
    }

    /// Appends to the stream; returns whether there may be something to be given back by [`Backlog::trim`].
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut full = false;
        while !rest.is_empty() {
            if self.open.capacity() == 0 {
                self.open.reserve_exact(BLOCK_BYTES);
            }
            // A block takes as much memory as it has bytes: none grows beyond what was asked for it.
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - self.open.len()));
            self.open.extend_from_slice(now);
            self.end += now.len() as u64;
            if self.open.len() == BLOCK_BYTES {
                full = true;
                self.closed.push_back((self.end - BLOCK_BYTES as u64, std::mem::take(&mut self.open).into()));
            }
            rest = later;
        }
        full
    }

    /// Gives back what is older than the last `keep` bytes, but for what somebody needs who has `needed` bytes.
    pub fn trim(&mut self, keep: u64, needed: Option<u64>) {
        let least = self.end.saturating_sub(keep).min(needed.unwrap_or(u64::MAX));
        while let Some((start, block)) = self.closed.front() {
            let end = start + block.len() as u64;
            if end > least {
                break;
            }
            self.first = end;
            self.closed.pop_front();
        }
    }

    /// Some bytes for who has `at` of them; nothing at the end of the stream. `None` where they are not held.
    pub fn read(&self, at: u64) -> Option<Bytes> {
        if !self.covers(at) {
            return None;
        }
        let open = self.end - self.open.len() as u64;
        if at >= open {
            // The block grows while this is sent: so it is a copy, of a few kilobytes at most.
            return Some(Bytes::copy_from_slice(&self.open[(at - open) as usize..]));
        }
        let next = self.closed.partition_point(|(start, _)| *start <= at);
        let (start, block) = &self.closed[next.checked_sub(1)?];
        Some(block.slice((at - start) as usize..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Append(usize),
        Read(usize, usize),
        Trim(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![0..200usize, 5000..40_000usize].prop_map(Step::Append),
            4 => (0..3usize, 0..5usize).prop_map(|(reader, times)| Step::Read(reader, times)),
            2 => prop_oneof![0..100u64, 10_000..100_000u64].prop_map(Step::Trim),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn readers_see_every_byte_once_and_what_they_need_is_held(
            begins in 0..1000u64,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let mut backlog = Backlog::new(begins);
            let mut stream: Vec<u8> = Vec::new();
            let mut readers = [begins; 3];
            for step in steps {
                match step {
                    Step::Append(n) => {
                        let bytes: Vec<u8> = (0..n).map(|i| ((stream.len() + i) % 251) as u8).collect();
                        backlog.append(&bytes);
                        stream.extend(bytes);
                    }
                    Step::Read(reader, times) => {
                        for _ in 0..times {
                            let at = readers[reader];
                            let bytes = backlog.read(at).expect("what a reader needs is held");
                            prop_assert_eq!(bytes.is_empty(), at == backlog.end());
                            let from = (at - begins) as usize;
                            prop_assert_eq!(&bytes[..], &stream[from..from + bytes.len()]);
                            readers[reader] += bytes.len() as u64;
                        }
                    }
                    Step::Trim(keep) => {
                        let needed = readers.iter().min().copied();
                        let before = backlog.len();
                        backlog.trim(keep, needed);
                        prop_assert!(backlog.len() >= keep.min(before));
                        prop_assert!(backlog.first() <= needed.unwrap());
                        // No whole block is kept that nobody needs.
                        let least = keep.max(backlog.end() - needed.unwrap());
                        prop_assert!(backlog.len() < least + BLOCK_BYTES as u64);
                    }
                }
                prop_assert_eq!(backlog.end(), begins + stream.len() as u64);
            }
            prop_assert!(backlog.read(backlog.end() + 1).is_none());
        }
    }

    #[test]
    fn who_has_too_little_cannot_go_on() {
        let mut backlog = Backlog::new(100);
        for _ in 0..10 {
            backlog.append(&[0; BLOCK_BYTES]);
        }
        backlog.trim(3 * BLOCK_BYTES as u64, None);
        assert_eq!(backlog.len(), 3 * BLOCK_BYTES as u64);
        assert!(backlog.covers(backlog.first()) && !backlog.covers(backlog.first() - 1));
        assert!(backlog.read(100).is_none());
        assert!(backlog.memory() < 5 * BLOCK_BYTES);
    }
}
