//! The data set on its way from a primary to a replica: how long it is, or by what mark it ends.
//!
//! ```text
//! $<bytes>\r\n<data set>             of a file, whose length is known
//! $EOF:<40 bytes>\r\n<data set><the same 40 bytes>   as it is made
//! ```
//! What must stay true: what is taken for the data set is exactly that, wherever reads cut it.

use crate::stdx::number::parse_i64;

/// The length of the mark.
pub const MARK_LENGTH: usize = 40;

/// How the end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So many bytes.
    Length(u64),
    /// Before these.
    Mark([u8; MARK_LENGTH]),
}

impl End {
    /// What the line before a data set says, without its end; an empty line only shows that the primary is there.
    ///
    /// # Errors
    /// What is to be logged of any other line.
    pub fn parse(line: &[u8]) -> Result<Option<End>, String> {
        let text = || String::from_utf8_lossy(line).into_owned();
        if line.is_empty() {
            return Ok(None);
        }
        if let Some(error) = line.strip_prefix(b"-") {
            let error = String::from_utf8_lossy(error);
            return Err(format!("MASTER aborted replication with an error: {error}"));
        }
        let Some(rest) = line.strip_prefix(b"$") else {
            return Err(format!(
                "Bad protocol from MASTER, the first byte is not '$' (we received '{}'), are you sure the host and port are right?",
                text()
            ));
        };
        if let Some(mark) = rest.strip_prefix(b"EOF:") {
            let mark = mark.try_into().map_err(|_| format!("Bad mark from MASTER: '{}'", text()))?;
            return Ok(Some(End::Mark(mark)));
        }
        let length = parse_i64(rest).and_then(|length| u64::try_from(length).ok());
        length.map(|length| Some(End::Length(length))).ok_or_else(|| format!("Bad length from MASTER: '{}'", text()))
    }
}

/// Cuts a data set out of what arrives.
#[derive(Debug)]
pub struct Cutter {
    end: End,
    taken: u64,
    /// What may be the mark: the last bytes that arrived.
    held: Vec<u8>,
    over: bool,
}

impl Cutter {
    /// For a data set that ends so.
    pub fn new(end: End) -> Cutter {
        Cutter { end, taken: 0, held: Vec::new(), over: end == End::Length(0) }
    }

    /// Whether all of it has come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How many bytes of the data set have come.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes what arrived: appends what is of the data set to `out`; returns how many bytes belong to it or its mark.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        if self.over {
            return 0;
        }
        let before = out.len();
        let used = match self.end {
            End::Length(length) => {
                let left = usize::try_from(length - self.taken).unwrap_or(usize::MAX);
                let used = left.min(bytes.len());
                out.extend_from_slice(&bytes[..used]);
                self.over = used == left;
                used
            }
            End::Mark(mark) => {
                let had = self.held.len();
                self.held.extend_from_slice(bytes);
                if let Some(at) = memchr::memmem::find(&self.held, &mark) {
                    out.extend_from_slice(&self.held[..at]);
                    self.over = true;
                    self.held = Vec::new();
                    at + MARK_LENGTH - had
                } else {
                    let sure = self.held.len().saturating_sub(MARK_LENGTH - 1);
                    out.extend(self.held.drain(..sure));
                    bytes.len()
                }
            }
        };
        self.taken += (out.len() - before) as u64;
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_line_before_says_how_it_ends() {
        let mark = "0123456789012345678901234567890123456789";
        assert_eq!(End::parse(b""), Ok(None));
        assert_eq!(End::parse(b"$12"), Ok(Some(End::Length(12))));
        let expected = End::Mark(mark.as_bytes().try_into().unwrap());
        assert_eq!(End::parse(format!("$EOF:{mark}").as_bytes()), Ok(Some(expected)));
        for wrong in [&b"$-1"[..], b"$x", b"$EOF:12", b"+OK", b"-ERR no", b"$99999999999999999999"] {
            assert!(End::parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_data_set_is_cut_out_wherever_reads_end(
            data in prop::collection::vec(prop_oneof![Just(b'm'), any::<u8>()], 0..300),
            behind in prop::collection::vec(any::<u8>(), 0..50),
            piece in 1..90usize,
            marked in any::<bool>(),
        ) {
            let mark = *b"mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm!";
            prop_assume!(memchr::memmem::find(&data, &mark).is_none());
            let end = if marked { End::Mark(mark) } else { End::Length(data.len() as u64) };
            let mut sent = data.clone();
            if marked {
                sent.extend(mark);
            }
            let whole = sent.len();
            sent.extend(&behind);
            let mut cutter = Cutter::new(end);
            let (mut out, mut used) = (Vec::new(), 0);
            for bytes in sent.chunks(piece) {
                used += cutter.take(bytes, &mut out);
            }
            prop_assert!(cutter.is_over());
            prop_assert_eq!(&out, &data);
            prop_assert_eq!(cutter.taken(), data.len() as u64);
            prop_assert_eq!(used, whole);
        }
    }
}
