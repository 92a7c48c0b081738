//! Passwords: kept as their SHA-256 only, compared in a time that tells nothing.

use std::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 of a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; 32]);

impl Password {
    /// Of the clear text.
    pub fn of(clear: &[u8]) -> Password {
        Password(Sha256::digest(clear).into())
    }

    /// Of its text: 64 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Password> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        if text.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Password(hash))
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Password) -> bool {
        let differs = self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Password {
    /// Not even the hash: whoever logs a user must not publish what could be guessed at leisure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_its_hash() {
        // The hash of "abc" that FIPS 180 gives.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let password = Password::of(b"abc");
        assert_eq!(password.to_string(), text);
        assert!(Password::parse(text.as_bytes()).unwrap().matches(&password));
        assert!(!Password::of(b"abd").matches(&password));
        assert!(!format!("{password:?}").contains("ba78"));
    }

    #[test]
    fn only_64_lower_case_digits_are_a_hash() {
        let digits = "0".repeat(64);
        assert!(Password::parse(digits.as_bytes()).is_some());
        for bad in
            ["", &digits[1..], &format!("{digits}0"), &digits.replacen('0', "A", 1), &digits.replacen('0', "g", 1)]
        {
            assert!(Password::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
