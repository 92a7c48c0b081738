//! Lines cut into words, and words made safe to stand in a line.
//!
//! Configuration files, inline commands and the command line share these rules: words are separated by
//! white space; `"..."` may hold escapes, `'...'` takes everything as it stands but for `\'`; quotes may
//! open in the middle of a word, but after a closing quote the word ends. What [`quoted`] writes,
//! [`split_words`] reads back byte for byte.

/// Cuts `line` into its words; `None` if a quote is not closed or something follows a closing quote.
///
/// Inside double quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` stand for that byte, and a backslash
/// before anything else for what follows. A NUL ends the line, as it does where lines are C strings.
/// Costs one allocation a word.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let end = line.iter().position(|&b| b == 0).unwrap_or(line.len());
    let mut rest = &line[..end];
    let mut words = Vec::new();
    loop {
        let start = rest.iter().position(|&b| !is_space(b)).unwrap_or(rest.len());
        rest = &rest[start..];
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = first_word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// The word that `text` begins with, and what follows it.
fn first_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => return double_quoted(text, at, word),
            b'\'' => return single_quoted(text, at, word),
            other => word.push(other),
        }
    }
    Some((word, &text[at..]))
}

fn double_quoted(text: &[u8], mut at: usize, mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match text.get(at..)? {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            [b'"', after @ ..] => return ends_here(after).then_some((word, after)),
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn single_quoted(text: &[u8], mut at: usize, mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match text.get(at..)? {
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                at += 2;
            }
            [b'\'', after @ ..] => return ends_here(after).then_some((word, after)),
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn ends_here(after: &[u8]) -> bool {
    after.first().is_none_or(|&b| is_space(b))
}

/// White space of the C locale: what `u8::is_ascii_whitespace` says, and the vertical tab.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// `text` in double quotes, with everything but printable ASCII escaped: one word of one line.
pub fn quoted(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            7 => out.extend(b"\\a"),
            8 => out.extend(b"\\b"),
            0x20..=0x7e => out.push(byte),
            _ => out.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Option<Vec<String>> {
        split_words(line.as_bytes())
            .map(|words| words.into_iter().map(|w| String::from_utf8_lossy(&w).into_owned()).collect())
    }

    #[test]
    fn words_are_separated_by_any_white_space() {
        assert_eq!(words("  set\tkey \r\n value\x0b").unwrap(), ["set", "key", "value\x0b"]);
        assert_eq!(words(" \t").unwrap(), [""; 0]);
    }

    #[test]
    fn double_quotes_know_escapes() {
        assert_eq!(split_words(br#""\x41\n\r\t\b\a\q\"\xZ" b"#).unwrap(), [&b"A\n\r\t\x08\x07q\"xZ"[..], b"b"]);
        assert_eq!(split_words(br#""\xfF""#).unwrap(), [[0xff]]);
    }

    #[test]
    fn single_quotes_take_everything_but_the_escaped_quote() {
        assert_eq!(words(r"'a\n\'b' c").unwrap(), [r"a\n'b", "c"]);
        assert_eq!(words("'' \"\"").unwrap(), ["", ""]);
    }

    #[test]
    fn a_quote_may_open_inside_a_word_but_must_end_it() {
        assert_eq!(words(r#"foo"bar baz""#).unwrap(), ["foobar baz"]);
        for bad in ["\"abc", "'abc", "\"a\"b", "'a'b", "\"a\\\"", "a\"", "'a\\'"] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_nul_ends_the_line() {
        assert_eq!(words("a b\0c d").unwrap(), ["a", "b"]);
        assert_eq!(words("\"a\0\""), None);
    }

    proptest! {
        #[test]
        fn quoted_words_are_read_back(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let line = texts.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(&b' ');
            prop_assert!(line.iter().all(|b| (0x20..0x7f).contains(b)));
            prop_assert_eq!(split_words(&line), Some(texts));
        }

        #[test]
        fn any_line_is_split_or_refused(line in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(words) = split_words(&line) {
                prop_assert!(words.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }
    }
}
