//! The first line of scripts and libraries: `#!lua name=... flags=...`.

use std::fmt;

use crate::stdx::words::split_words;

/// One of the flags that scripts and functions may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// It writes nothing.
    NoWrites,
    /// It runs although memory is over its limit.
    AllowOom,
    /// It runs on a replica whose data may be old.
    AllowStale,
    /// It does not run in a cluster.
    NoCluster,
    /// Its keys may be in several slots.
    AllowCrossSlotKeys,
}

/// All flags with their names, in the order in which they are shown.
const FLAGS: [(&str, Flag); 5] = [
    ("no-writes", Flag::NoWrites),
    ("allow-oom", Flag::AllowOom),
    ("allow-stale", Flag::AllowStale),
    ("no-cluster", Flag::NoCluster),
    ("allow-cross-slot-keys", Flag::AllowCrossSlotKeys),
];

/// The flags of a script or function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The flag of a name.
    pub fn by_name(name: &[u8]) -> Option<Flag> {
        FLAGS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, flag)| *flag)
    }

    /// Adds a flag.
    pub fn add(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    /// Whether a flag is set.
    pub fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAGS.into_iter().filter(move |(_, flag)| self.has(*flag)).map(|(name, _)| name)
    }
}

/// A first line that is wrong; its `Display` is the error reply without the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSource(pub String);

impl fmt::Display for BadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn bad<T>(text: impl Into<String>) -> Result<T, BadSource> {
    Err(BadSource(text.into()))
}

/// Whether a library or function may be called so.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// What a script of EVAL says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptHead {
    /// Its flags; `None` where it has no such line and so keeps to the rules of old.
    pub flags: Option<Flags>,
    /// Where its text begins: at the end of the first line, which counts as one.
    pub begin: usize,
}

/// Reads the first line of a script of EVAL.
///
/// # Errors
/// Redis' text for what is wrong with it.
pub fn script_head(text: &[u8]) -> Result<ScriptHead, BadSource> {
    if !text.starts_with(b"#!") {
        return Ok(ScriptHead { flags: None, begin: 0 });
    }
    let Some(begin) = memchr::memchr(b'\n', text) else { return bad("Invalid script shebang") };
    let Some(words) = split_words(&text[..begin]).filter(|words| !words.is_empty()) else {
        return bad("Invalid engine in script shebang");
    };
    if words[0] != b"#!lua" {
        return bad(format!("Unexpected engine in script shebang: {}", String::from_utf8_lossy(&words[0])));
    }
    let mut flags = Flags::default();
    for word in &words[1..] {
        let Some(list) = word.strip_prefix(b"flags=") else {
            return bad(format!("Unknown lua shebang option: {}", String::from_utf8_lossy(word)));
        };
        for name in list.split(|byte| *byte == b',').filter(|_| !list.is_empty()) {
            match Flags::by_name(name) {
                Some(flag) => flags.add(flag),
                None => return bad(format!("Unexpected flag in script shebang: {}", String::from_utf8_lossy(name))),
            }
        }
    }
    Ok(ScriptHead { flags: Some(flags), begin })
}

/// What a library says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryHead {
    /// Its name.
    pub name: Vec<u8>,
    /// Where its code begins: at the end of the first line.
    pub begin: usize,
}

/// Reads the first line of a library.
///
/// # Errors
/// Redis' text for what is wrong with it.
pub fn library_head(text: &[u8]) -> Result<LibraryHead, BadSource> {
    if !text.starts_with(b"#!") {
        return bad("Missing library metadata");
    }
    let Some(begin) = memchr::memchr(b'\n', text) else { return bad("Invalid library metadata") };
    let Some(words) = split_words(&text[..begin]).filter(|words| !words.is_empty()) else {
        return bad("Invalid library metadata");
    };
    let engine = &words[0][2..];
    let mut name = None;
    for word in &words[1..] {
        if word.len() < 5 || !word[..5].eq_ignore_ascii_case(b"name=") {
            return bad(format!("Invalid metadata value given: {}", String::from_utf8_lossy(word)));
        }
        if name.replace(word[5..].to_vec()).is_some() {
            return bad("Invalid metadata value, name argument was given multiple times");
        }
    }
    let Some(name) = name else { return bad("Library name was not given") };
    if !is_name(&name) {
        return bad(crate::script::redis::NAME_RULE);
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return bad(format!("Engine '{}' not found", String::from_utf8_lossy(engine)));
    }
    Ok(LibraryHead { name, begin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_without_a_first_line_has_no_flags_of_its_own() {
        assert_eq!(script_head(b"return 1"), Ok(ScriptHead { flags: None, begin: 0 }));
        let head = script_head(b"#!lua flags=no-writes,allow-oom\nreturn 1").unwrap();
        assert_eq!(head.begin, 31);
        assert_eq!(head.flags.unwrap().names().collect::<Vec<_>>(), ["no-writes", "allow-oom"]);
    }

    #[test]
    fn what_is_wrong_with_a_first_line_is_said() {
        let said = |text: &[u8]| script_head(text).unwrap_err().to_string();
        assert_eq!(said(b"#!lua"), "Invalid script shebang");
        assert_eq!(said(b"#!lua 'a\n"), "Invalid engine in script shebang");
        assert_eq!(said(b"#!lua a=b\n"), "Unknown lua shebang option: a=b");
        let said = |text: &[u8]| library_head(text).unwrap_err().to_string();
        assert_eq!(said(b"x"), "Missing library metadata");
        assert_eq!(said(b"#!lua name=a"), "Invalid library metadata");
        assert_eq!(said(b"#!lua\n"), "Library name was not given");
        assert_eq!(said(b"#!foo name=a\n"), "Engine 'foo' not found");
        assert_eq!(library_head(b"#!lua name=a_1\nx"), Ok(LibraryHead { name: b"a_1".to_vec(), begin: 14 }));
    }
}
