//! Glob patterns, until they are in `stdx`: `*`, `?`, `[a-z]`, `[^a]`, and `\` before any of them.

/// Whether letters of either case are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// They are not.
    Sensitive,
    /// They are.
    Insensitive,
}

/// Whether all of `text` fits `pattern`. Costs their product at worst.
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last star, and the text from which it was tried.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(&byte) = text.get(t) {
            if let Some(width) = one(&pattern[p..], byte, case) {
                p += width;
                t += 1;
                continue;
            }
        } else {
            return p == pattern.len();
        }
        match star {
            Some((at, from)) => {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            None => return false,
        }
    }
}

/// How much of `pattern` takes `byte`.
fn one(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    let fold = |b: u8| if case == Case::Insensitive { b.to_ascii_lowercase() } else { b };
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (fold(*literal) == fold(byte)).then_some(2),
        [b'[', class @ ..] => {
            let negated = class.first() == Some(&b'^');
            let mut at = usize::from(negated);
            let mut found = false;
            loop {
                match &class[at.min(class.len())..] {
                    [] => break,
                    [b']', ..] => {
                        at += 1;
                        break;
                    }
                    [b'\\', literal, ..] => {
                        found |= fold(*literal) == fold(byte);
                        at += 2;
                    }
                    [from, b'-', to, ..] => {
                        let (from, to) = (fold(*from.min(to)), fold(*from.max(to)));
                        found |= (from..=to).contains(&fold(byte));
                        at += 3;
                    }
                    [literal, ..] => {
                        found |= fold(*literal) == fold(byte);
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(at + 1)
        }
        [literal, ..] => (fold(*literal) == fold(byte)).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("max*-p*", "maxmemory-policy", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b", "aXc", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("PORT", "port", true),
            ("[", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), Case::Insensitive), fits, "{pattern} {text}");
        }
        assert!(!matches(b"PORT", b"port", Case::Sensitive));
    }
}
