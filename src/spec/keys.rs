//! Where the keys of a request are: the positions that its specifications lead to.

use crate::spec::{Access, Keys};

/// The specifications cannot be followed: a count that is no number, or runs past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Calls `f` with the position and the access of each key among `len` arguments.
///
/// # Errors
/// [`Invalid`] where a specification points past the end or its count is no number.
pub fn for_each<'a>(
    specs: &[Keys],
    len: usize,
    arg: impl Fn(usize) -> &'a [u8],
    mut f: impl FnMut(usize, Access),
) -> Result<(), Invalid> {
    for spec in specs {
        match *spec {
            Keys::At { first, access } => {
                let first = usize::from(first);
                if first >= len {
                    return Err(Invalid);
                }
                f(first, access);
            }
            Keys::AtOrAfter { first, word, from, others, access } => {
                let first = usize::from(first);
                if first >= len {
                    return Err(Invalid);
                }
                let mut i = usize::from(from);
                let is = |i: usize, word: &str| arg(i).eq_ignore_ascii_case(word.as_bytes());
                while i < len && !is(i, word) {
                    i += 1 + others.iter().find(|(other, _)| is(i, other)).map_or(0, |(_, takes)| usize::from(*takes));
                }
                match arg(first).is_empty() {
                    _ if i >= len => f(first, access),
                    true => (i + 1..len).for_each(|i| f(i, access)),
                    false => return Err(Invalid),
                }
            }
            Keys::After { access, .. } if access.incomplete => {}
            Keys::Range { first, last, step, access } => {
                let first = usize::from(first);
                let last =
                    if last < 0 { len.wrapping_add_signed(last.into()) } else { usize::from(last.unsigned_abs()) };
                if first >= len || last >= len || last < first {
                    return Err(Invalid);
                }
                (first..=last).step_by(usize::from(step)).for_each(|i| f(i, access));
            }
            Keys::Counted { count, first, step, access } => {
                let (count, first, step) = (usize::from(count), usize::from(first), usize::from(step));
                if count >= len {
                    return Err(Invalid);
                }
                let n = count_of(arg(count)).ok_or(Invalid)?;
                if n > (len.saturating_sub(first)) / step {
                    return Err(Invalid);
                }
                (0..n).for_each(|i| f(first + i * step, access));
            }
            Keys::After { word, from, last, step, access } => {
                let found = |i: &usize| arg(*i).eq_ignore_ascii_case(word.as_bytes());
                let at = if from >= 0 {
                    (usize::from(from.unsigned_abs())..len).find(found)
                } else {
                    (1..=len.wrapping_add_signed(from.into()).min(len - 1)).rev().find(found)
                };
                let Some(first) = at.map(|i| i + 1).filter(|first| *first < len) else { continue };
                let after = len - first;
                let count = match last {
                    -2 => after / 2,
                    -1 => after,
                    n => usize::from(n.unsigned_abs()) + 1,
                };
                (first..len).take(count).step_by(usize::from(step)).for_each(|i| f(i, access));
            }
            Keys::Option { word, from, others, access } => {
                let (mut i, mut found) = (usize::from(from), None);
                while i < len {
                    let is = |word: &str| arg(i).eq_ignore_ascii_case(word.as_bytes());
                    if is(word) {
                        found = Some(i + 1).filter(|at| *at < len).or(found);
                        i += 1;
                    } else if let Some((_, takes)) = others.iter().find(|(other, _)| is(other)) {
                        i += usize::from(*takes);
                    }
                    i += 1;
                }
                found.into_iter().for_each(|at| f(at, access));
            }
            Keys::Unknown { .. } | Keys::NotKey { .. } => {}
        }
    }
    Ok(())
}

/// Whether a request may touch keys that are not among its arguments: a `*` stands behind one of the words of
/// [`Keys::Unknown`]. It is said of a few requests too many, where such a word is something else.
pub fn reach_further<'a>(specs: &[Keys], len: usize, arg: impl Fn(usize) -> &'a [u8]) -> bool {
    let is_pattern = |words: &[&str], i: usize| {
        arg(i).contains(&b'*') && words.iter().any(|word| arg(i - 1).eq_ignore_ascii_case(word.as_bytes()))
    };
    specs.iter().any(|spec| match spec {
        Keys::Unknown { words, .. } => (1..len).any(|i| is_pattern(words, i)),
        _ => false,
    })
}

/// What `command` does to a key with these arguments, where its flags vary with them.
///
/// SET looks at the old value only to reply with it; BITFIELD writes only where it is told to.
pub fn settled(command: &str, access: Access, args: &[&[u8]]) -> Access {
    let has = |word: &str| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    match command {
        "SET" if access.variable && !has("GET") => Access::OVERWRITE,
        "BITFIELD"
            if access.variable && !args.iter().skip(2).step_by(3).any(|arg| !arg.eq_ignore_ascii_case(b"GET")) =>
        {
            Access::READ
        }
        _ => Access { variable: false, ..access },
    }
}

/// Whether some keys are not to be found by their position alone.
pub fn are_movable(specs: &[Keys]) -> bool {
    specs.iter().any(|spec| {
        matches!(
            spec,
            Keys::Counted { .. }
                | Keys::AtOrAfter { .. }
                | Keys::After { .. }
                | Keys::Option { .. }
                | Keys::Unknown { .. }
        )
    })
}

/// First key, last key and step, as clients asked before there were specifications: what can be said in
/// these three numbers of the keys that stand at fixed positions; zeros where nothing can.
pub fn legacy_range(specs: &[Keys]) -> (i16, i16, i16) {
    let fixed = |spec: &Keys| match *spec {
        Keys::At { first, .. } | Keys::AtOrAfter { first, .. } => Some((i16::from(first), i16::from(first), 1)),
        Keys::Range { first, last, step, .. } | Keys::NotKey { first, last, step } => {
            Some((i16::from(first), i16::from(last), i16::from(step)))
        }
        Keys::Counted { .. } | Keys::After { .. } | Keys::Option { .. } | Keys::Unknown { .. } => None,
    };
    if let [spec] = specs {
        return fixed(spec).unwrap_or_default();
    }
    let mut whole: Option<(i16, i16, i16)> = None;
    for (first, last, step) in specs.iter().filter_map(fixed) {
        whole = match whole {
            None if step == 1 => Some((first, last, step)),
            // Only ranges that touch can be told as one.
            Some((begin, end, _)) if step == 1 && end == first - 1 => Some((begin, last, step)),
            _ => break,
        };
    }
    whole.unwrap_or_default()
}

/// A number of keys: decimal digits and nothing else.
fn count_of(text: &[u8]) -> Option<usize> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(specs: &[Keys], words: &str) -> Option<Vec<usize>> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut found = vec![];
        for_each(specs, words.len(), |i| words[i], |i, _| found.push(i)).ok().map(|()| found)
    }

    #[test]
    fn ranges_count_from_either_end() {
        let access = Access::READ;
        assert_eq!(keys(&[Keys::Range { first: 1, last: -1, step: 2, access }], "mset a 1 b 2"), Some(vec![1, 3]));
        assert_eq!(keys(&[Keys::Range { first: 1, last: -2, step: 1, access }], "blpop a b 0"), Some(vec![1, 2]));
        assert_eq!(keys(&[Keys::Range { first: 1, last: 2, step: 1, access }], "rename a b"), Some(vec![1, 2]));
        assert_eq!(keys(&[Keys::At { first: 2, access }], "object encoding"), None);
    }

    #[test]
    fn counts_and_words_lead_to_keys() {
        let access = Access::READ;
        let counted = [Keys::Counted { count: 1, first: 2, step: 1, access }];
        assert_eq!(keys(&counted, "zunion 2 a b withscores"), Some(vec![2, 3]));
        assert_eq!(keys(&counted, "zunion 3 a b"), None);
        assert_eq!(keys(&counted, "zunion x a b"), None);
        let streams = [Keys::After { word: "STREAMS", from: 1, last: -2, step: 1, access }];
        assert_eq!(keys(&streams, "xread count 2 streams a b 0 0"), Some(vec![4, 5]));
    }

    #[test]
    fn a_key_that_is_left_empty_is_none_where_others_are_named() {
        let access = Access::TAKE;
        let specs = [
            Keys::AtOrAfter { first: 1, word: "KEYS", from: 2, others: &[("AUTH", 1)], access },
            Keys::After { word: "KEYS", from: -2, last: -1, step: 1, access: access.partly() },
        ];
        assert_eq!(keys(&specs, "migrate k copy"), Some(vec![1]));
        assert_eq!(keys(&specs, "migrate  copy keys a b"), Some(vec![4, 5]));
        assert_eq!(keys(&specs, "migrate  copy"), Some(vec![1]));
        assert_eq!(keys(&specs, "migrate  auth keys keys a keys b"), Some(vec![5, 6, 7]));
        assert_eq!(keys(&specs, "migrate k auth keys"), Some(vec![1]));
        assert_eq!(keys(&specs, "migrate k copy keys a b"), None);
        assert_eq!(legacy_range(&specs), (1, 1, 1));
    }

    #[test]
    fn the_last_of_an_option_leads_to_its_key_and_arguments_of_others_do_not() {
        let access = Access::OVERWRITE;
        let others = &[("BY", 1), ("LIMIT", 2)];
        let store = [Keys::Option { word: "STORE", from: 2, others, access }];
        for (words, at) in [
            ("sort a", vec![]),
            ("sort a store", vec![]),
            ("sort a store b", vec![3]),
            ("sort a STORE b desc store c by x", vec![6]),
            ("sort a by store b", vec![]),
            ("sort a limit store 1 store c", vec![6]),
            ("sort a store store b", vec![3]),
            ("sort a store by store b", vec![5]),
            ("sort a store b by", vec![3]),
        ] {
            assert_eq!(keys(&store, words), Some(at), "{words}");
        }
    }

    #[test]
    fn patterns_behind_their_words_reach_further() {
        let specs = [Keys::Unknown { words: &["BY", "GET"], access: Access::READ }];
        for (words, expected) in [
            ("sort a by x*", true),
            ("sort a desc get x*->f", true),
            ("sort a by nosort get #", false),
            ("sort a* limit 0 *", false),
            ("sort", false),
        ] {
            let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            assert_eq!(reach_further(&specs, words.len(), |i| words[i]), expected, "{words:?}");
        }
    }

    #[test]
    fn three_numbers_say_what_stands_at_fixed_positions() {
        let access = Access::READ;
        let at = |first| Keys::At { first, access };
        let counted = Keys::Counted { count: 2, first: 3, step: 1, access };
        assert_eq!(legacy_range(&[at(1)]), (1, 1, 1));
        assert_eq!(legacy_range(&[at(1), at(2)]), (1, 2, 1));
        assert_eq!(legacy_range(&[at(2), Keys::Range { first: 3, last: -1, step: 1, access }]), (2, -1, 1));
        assert_eq!(legacy_range(&[Keys::Range { first: 1, last: -1, step: 2, access }]), (1, -1, 2));
        assert_eq!(legacy_range(&[at(1), counted]), (1, 1, 1));
        assert_eq!((legacy_range(&[counted]), legacy_range(&[])), ((0, 0, 0), (0, 0, 0)));
        assert!(are_movable(&[at(1), counted]) && !are_movable(&[at(1)]));
    }
}
