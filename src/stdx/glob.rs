//! Glob patterns as KEYS, SCAN, PSUBSCRIBE and CONFIG GET take them.
//!
//! `*` is any bytes, `?` any one byte, `[a-z]` one of a class, `[^a-z]` one of the others, `\x` is `x`. The time is bounded
//! by the product of both lengths: a failure goes back to the last `*` only, which is enough, since
//! everything else takes exactly one byte and so no earlier `*` could do better by taking more.

/// Whether letters match regardless of their case, in ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `a` is not `A`.
    Sensitive,
    /// `a` is `A`. An escaped byte in a class is compared as it is, as in Redis.
    Insensitive,
}

impl Case {
    #[inline]
    fn fold(self, byte: u8) -> u8 {
        match self {
            Case::Sensitive => byte,
            Case::Insensitive => byte.to_ascii_lowercase(),
        }
    }
}

/// Whether `pattern` matches the whole of `text`.
///
/// A class that is not closed ends with the pattern, and a `\` at its end is itself. Empty text is
/// matched by the empty pattern only, not by `*`: Redis is like that, and its callers treat a lone `*` apart.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and the first byte of the text that it has not taken.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        if let Some(next) = one(pattern, p, text[t], case) {
            p = next;
            t += 1;
            continue;
        }
        let Some((behind, taken)) = retry else { return false };
        retry = Some((behind, taken + 1));
        p = behind;
        t = taken + 1;
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches what begins at `pattern[p]`, which is no `*`, with one byte: where the pattern goes on.
#[inline]
fn one(pattern: &[u8], p: usize, byte: u8, case: Case) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte, case),
        b'\\' if p + 1 < pattern.len() => (case.fold(pattern[p + 1]) == case.fold(byte)).then_some(p + 2),
        literal => (case.fold(literal) == case.fold(byte)).then_some(p + 1),
    }
}

/// Matches a class, from behind its `[`, with one byte: where the pattern goes on.
fn class(pattern: &[u8], mut p: usize, byte: u8, case: Case) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    let folded = case.fold(byte);
    while p < pattern.len() {
        match pattern[p] {
            b'\\' if p + 1 < pattern.len() => {
                found |= pattern[p + 1] == byte;
                p += 2;
            }
            b']' => {
                p += 1;
                break;
            }
            low if p + 2 < pattern.len() && pattern[p + 1] == b'-' => {
                let high = pattern[p + 2];
                let (low, high) = if low <= high { (low, high) } else { (high, low) };
                found |= (case.fold(low)..=case.fold(high)).contains(&folded);
                p += 3;
            }
            literal => {
                found |= case.fold(literal) == folded;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}
