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

/// A pattern with more `*` than this, neighbours counted once, matches nothing, as in Redis.
pub const STARS_MAX: usize = 1000;

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
    let mut stars = 0;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            while pattern.get(p) == Some(&b'*') {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > STARS_MAX {
                return false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn yes(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), Case::Sensitive)
    }

    #[test]
    fn a_pattern_of_too_many_stars_matches_nothing() {
        let text = "a".repeat(2000);
        assert!(yes(&"*?".repeat(STARS_MAX), &text));
        assert!(!yes(&"*?".repeat(STARS_MAX + 1), &text));
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, text) in [
            ("h?llo", "hallo"),
            ("h*llo", "hllo"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("[\\]]", "]"),
            ("a\\", "a\\"),
            ("[ab", "b"),
            ("*a*b", "xaxxbab"),
            ("a**", "a"),
            ("[^]", "x"),
            ("[a-", "-"),
        ] {
            assert!(yes(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("h[^e]llo", "hello"),
            ("[]", "]"),
            ("[]a]", "a]"),
            ("a*b", "abc"),
            ("?", ""),
            ("**", ""),
            ("a", "ab"),
            ("ab", "a"),
            ("a\\*b", "axb"),
        ] {
            assert!(!yes(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn case_is_ignored_in_letters_and_ranges_but_not_behind_an_escape_in_a_class() {
        let yes = |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes(), Case::Insensitive);
        assert!(yes("MAX*", "maxmemory"));
        assert!(yes("[A-Z]ax\\M", "maxm"));
        assert!(yes("[m]", "M"));
        assert!(!yes("[\\m]", "M"));
    }

    #[test]
    fn many_stars_on_a_long_text_take_no_exponential_time() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!yes(&pattern, &"a".repeat(20_000)));
    }

    /// By definition: a `*` takes nothing, or one byte and then may take more.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), None) => naive(rest, text),
            (Some((b'*', rest)), Some((_, shorter))) => naive(rest, text) || naive(pattern, shorter),
            (Some(_), None) => false,
            (Some(_), Some((&byte, shorter))) => {
                one(pattern, 0, byte, Case::Sensitive).is_some_and(|next| naive(&pattern[next..], shorter))
            }
        }
    }

    proptest! {
        #[test]
        fn going_back_to_the_last_star_is_enough(pattern in "[ab*?\\[\\]^-]{0,10}", text in "[ab\\]-]{1,10}") {
            prop_assert_eq!(yes(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()), "{} {}", pattern, text);
        }

        #[test]
        fn any_bytes_are_matched_without_a_panic(pattern in proptest::collection::vec(any::<u8>(), 0..20), text in proptest::collection::vec(any::<u8>(), 0..20)) {
            matches(&pattern, &text, Case::Insensitive);
        }
    }
}
