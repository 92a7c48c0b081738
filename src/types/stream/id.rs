//! The ids of entries: a time and a number within it, ordered by both.

use std::fmt;

/// An id: Unix milliseconds and a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id {
    /// Unix time in milliseconds, or whatever the client counts by.
    pub ms: u64,
    /// The number among those of the same time.
    pub seq: u64,
}

impl Id {
    /// The least one, which no entry has.
    pub const MIN: Id = Id { ms: 0, seq: 0 };
    /// The greatest one.
    pub const MAX: Id = Id { ms: u64::MAX, seq: u64::MAX };
    /// The most bytes of its text.
    pub const TEXT: usize = 41;

    /// The id of these two numbers.
    pub const fn new(ms: u64, seq: u64) -> Id {
        Id { ms, seq }
    }

    /// The one that follows; `None` for [`Id::MAX`].
    pub fn next(self) -> Option<Id> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Id { seq, ..self }),
            None => Some(Id { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The one before; `None` for [`Id::MIN`].
    pub fn prev(self) -> Option<Id> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Id { seq, ..self }),
            None => Some(Id { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Its text, `ms-seq`, written into `buf`.
    #[inline]
    pub fn text(self, buf: &mut [u8; Id::TEXT]) -> &[u8] {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (ms, seq) = (ms.format(self.ms).as_bytes(), seq.format(self.seq).as_bytes());
        buf[..ms.len()].copy_from_slice(ms);
        buf[ms.len()] = b'-';
        let len = ms.len() + 1 + seq.len();
        buf[ms.len() + 1..len].copy_from_slice(seq);
        &buf[..len]
    }

    /// Its text in an allocation of its own.
    pub fn to_vec(self) -> Vec<u8> {
        self.text(&mut [0; Id::TEXT]).to_vec()
    }

    /// Sixteen bytes that are ordered as ids are, as files hold it.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The id of these sixteen bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Id {
        let both = u128::from_be_bytes(bytes);
        Id { ms: (both >> 64) as u64, seq: both as u64 }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_carry_over_between_both_numbers() {
        assert_eq!(Id::new(1, u64::MAX).next(), Some(Id::new(2, 0)));
        assert_eq!(Id::new(2, 0).prev(), Some(Id::new(1, u64::MAX)));
        assert_eq!((Id::MAX.next(), Id::MIN.prev()), (None, None));
        assert_eq!(Id::new(7, 3).next().and_then(Id::prev), Some(Id::new(7, 3)));
    }

    #[test]
    fn text_and_bytes_say_both_numbers() {
        assert_eq!(Id::MAX.to_vec(), Id::MAX.to_string().into_bytes());
        assert_eq!((Id::MAX.to_vec().len(), Id::new(5, 0).to_vec()), (Id::TEXT, b"5-0".to_vec()));
        assert_eq!(Id::from_bytes(Id::new(3, 9).to_bytes()), Id::new(3, 9));
        assert!(Id::new(3, 9).to_bytes() < Id::new(256, 0).to_bytes());
    }
}
