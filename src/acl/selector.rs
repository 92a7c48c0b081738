//! One set of permissions: which commands, on which keys and channels.
//!
//! Commands are bits by number; beside them stand the rules that set these bits, in an order that sets them
//! again: that is what ACL LIST shows. What stays true: the rules shown, applied to nothing, give the bits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::acl::catalog::Catalog;
use crate::spec::{Access, Category};
use crate::stdx::glob::{Case, matches};
use crate::stdx::words::split_words;

/// Why a rule was refused; the text is Redis'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// There is no such command or category.
    Unknown,
    /// It is no rule.
    Syntax,
    /// A pattern of keys where all keys are allowed.
    AllKeysAlready,
    /// A pattern of channels where all channels are allowed.
    AllChannelsAlready,
    /// A password to be removed that is not there.
    NoSuchPassword,
    /// Not the hash of a password.
    BadHash,
    /// A first argument after a subcommand.
    FirstArgOfSubcommand,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::AllKeysAlready => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AllChannelsAlready => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        })
    }
}

/// Keys that may be read, written, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    /// As KEYS has it.
    pub pattern: Vec<u8>,
    /// Whether their content may be read.
    pub read: bool,
    /// Whether they may be changed.
    pub write: bool,
}

impl KeyPattern {
    /// Whether it allows what `access` does.
    fn allows(&self, access: Access) -> bool {
        let writes = access.insert || access.delete || access.update;
        (self.read || !access.access) && (self.write || !writes)
    }

    /// The rule that makes it.
    fn append_to(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(match (self.read, self.write) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        });
        text.extend_from_slice(&self.pattern);
    }
}

/// What is allowed of many.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope<T> {
    All,
    Only(Vec<T>),
}

/// A set of permissions. A new one permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// A bit per command.
    commands: Vec<u64>,
    /// Begun with `+@all`: what is not known yet is allowed too.
    future_commands: bool,
    /// No rule takes anything away from that: no bit need be looked at.
    all_commands: bool,
    /// First arguments, in lower case, that allow a command whose bit is not set.
    first_args: BTreeMap<u16, BTreeSet<Vec<u8>>>,
    /// Each with its sign, in lower case, no two of the same words.
    rules: Vec<Vec<u8>>,
    keys: Scope<KeyPattern>,
    channels: Scope<Vec<u8>>,
}

impl Selector {
    /// Permits nothing.
    pub fn new(catalog: &Catalog) -> Selector {
        Selector {
            commands: vec![0; catalog.len().div_ceil(64)],
            future_commands: false,
            all_commands: false,
            first_args: BTreeMap::new(),
            rules: Vec::new(),
            keys: Scope::Only(Vec::new()),
            channels: Scope::Only(Vec::new()),
        }
    }

    /// Reads the rules between the parentheses of a user's further selector.
    ///
    /// # Errors
    /// For the first rule that is none.
    pub fn parse(text: &[u8], catalog: &Catalog) -> Result<Selector, RuleError> {
        let mut selector = Selector::new(catalog);
        for rule in split_words(text).ok_or(RuleError::Syntax)? {
            selector.apply(&rule, catalog)?;
        }
        Ok(selector)
    }

    /// Follows one rule about commands, keys or channels.
    ///
    /// # Errors
    /// Where it is none; the selector is then what it was.
    pub fn apply(&mut self, rule: &[u8], catalog: &Catalog) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || is("~*") => self.keys = Scope::All,
            _ if is("resetkeys") => self.keys = Scope::Only(Vec::new()),
            _ if is("allchannels") || is("&*") => self.channels = Scope::All,
            _ if is("resetchannels") => self.channels = Scope::Only(Vec::new()),
            _ if is("allcommands") || is("+@all") => self.begin(true),
            _ if is("nocommands") || is("-@all") => self.begin(false),
            [b'~', pattern @ ..] => self.add_keys(pattern, true, true)?,
            [b'%', rest @ ..] => self.add_keys_for(rest)?,
            [b'&', pattern @ ..] => self.add_channels(pattern)?,
            [sign @ (b'+' | b'-'), b'@', name @ ..] => self.add_category(name, *sign == b'+', catalog)?,
            [b'+', command @ ..] => self.add_command(command, catalog)?,
            [b'-', command @ ..] => {
                let number = catalog.find(command).ok_or(RuleError::Unknown)?;
                self.set_command(number, false, catalog);
                self.note(catalog.name(number).as_bytes(), false);
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn begin(&mut self, all: bool) {
        self.commands.fill(if all { u64::MAX } else { 0 });
        (self.all_commands, self.future_commands) = (all, all);
        self.first_args.clear();
        self.rules.clear();
    }

    fn add_keys_for(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        if self.keys == Scope::All {
            return Err(RuleError::AllKeysAlready);
        }
        let end = rest.iter().position(|byte| *byte == b'~').unwrap_or(rest.len());
        let (mut read, mut write) = (false, false);
        for letter in &rest[..end] {
            match letter.to_ascii_uppercase() {
                b'R' if !read => read = true,
                b'W' if !write => write = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if !(read || write) {
            return Err(RuleError::Syntax);
        }
        self.add_keys(rest.get(end + 1..).unwrap_or_default(), read, write)
    }

    fn add_keys(&mut self, pattern: &[u8], read: bool, write: bool) -> Result<(), RuleError> {
        let Scope::Only(patterns) = &mut self.keys else { return Err(RuleError::AllKeysAlready) };
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match patterns.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => {
                known.read |= read;
                known.write |= write;
            }
            None => patterns.push(KeyPattern { pattern: pattern.to_vec(), read, write }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        let Scope::Only(patterns) = &mut self.channels else { return Err(RuleError::AllChannelsAlready) };
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !patterns.iter().any(|known| known == pattern) {
            patterns.push(pattern.to_vec());
        }
        Ok(())
    }

    fn add_category(&mut self, name: &[u8], allow: bool, catalog: &Catalog) -> Result<(), RuleError> {
        let category = Category::named(name).ok_or(RuleError::Unknown)?;
        catalog.of(category).for_each(|number| self.set_command(number, allow, catalog));
        self.note(&[b"@", name].concat(), allow);
        Ok(())
    }

    fn add_command(&mut self, command: &[u8], catalog: &Catalog) -> Result<(), RuleError> {
        let Some(bar) = command.iter().rposition(|byte| *byte == b'|') else {
            let number = catalog.find(command).ok_or(RuleError::Unknown)?;
            self.set_command(number, true, catalog);
            self.note(catalog.name(number).as_bytes(), true);
            return Ok(());
        };
        let (name, word) = (&command[..bar], &command[bar + 1..]);
        let number = catalog.find(name).ok_or(RuleError::Unknown)?;
        if catalog.is_subcommand(number) {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        // A word with blanks could not be written down with the others.
        if word.is_empty() || has_spaces(word) {
            return Err(RuleError::Syntax);
        }
        if catalog.subcommands(number).is_empty() {
            self.first_args.entry(number).or_default().insert(word.to_ascii_lowercase());
        } else {
            self.set_command(catalog.find(command).ok_or(RuleError::Unknown)?, true, catalog);
        }
        self.note(command, true);
        Ok(())
    }

    /// Sets or clears the bits of a command and of its subcommands.
    fn set_command(&mut self, number: u16, allow: bool, catalog: &Catalog) {
        self.first_args.remove(&number);
        for number in std::iter::once(&number).chain(catalog.subcommands(number)) {
            let (word, bit) = (usize::from(number / 64), 1 << (number % 64));
            if allow {
                self.commands[word] |= bit;
            } else {
                self.commands[word] &= !bit;
            }
        }
    }

    /// Keeps a rule, behind those that it does not replace: the same words with either sign, and those
    /// about subcommands or first arguments of the same command.
    fn note(&mut self, words: &[u8], allow: bool) {
        let words = words.to_ascii_lowercase();
        self.rules.retain(|rule| match rule[1..].strip_prefix(words.as_slice()) {
            Some(rest) => !(rest.is_empty() || rest[0] == b'|'),
            None => true,
        });
        self.rules.push([if allow { b"+" } else { b"-" }, words.as_slice()].concat());
        self.all_commands = self.future_commands && self.rules.iter().all(|rule| rule[0] == b'+');
    }

    /// Whether it permits everything: then nothing need be looked at.
    pub fn is_unrestricted(&self) -> bool {
        self.all_commands && self.keys == Scope::All && self.channels == Scope::All
    }

    /// Whether it permits the command of this number, with this first argument.
    pub fn permits_command(&self, number: u16, first_arg: Option<&[u8]>) -> bool {
        self.all_commands
            || self.commands[usize::from(number / 64)] & 1 << (number % 64) != 0
            || self
                .first_args
                .get(&number)
                .is_some_and(|words| first_arg.is_some_and(|first| words.contains(&first.to_ascii_lowercase())))
    }

    /// Whether it permits this access to this key.
    pub fn permits_key(&self, key: &[u8], access: Access) -> bool {
        match &self.keys {
            Scope::All => true,
            Scope::Only(patterns) => {
                patterns.iter().any(|pattern| pattern.allows(access) && matches(&pattern.pattern, key, Case::Sensitive))
            }
        }
    }

    /// Whether it permits this access to every key there is or could be.
    pub fn permits_all_keys(&self, access: Access) -> bool {
        match &self.keys {
            Scope::All => true,
            Scope::Only(patterns) => patterns.iter().any(|known| known.pattern == b"*" && known.allows(access)),
        }
    }

    /// Whether it permits this channel. A pattern is permitted only where it stands as it is: what it
    /// fits may be more than another pattern does.
    pub fn permits_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        match &self.channels {
            Scope::All => true,
            Scope::Only(patterns) => patterns
                .iter()
                .any(|known| if is_pattern { known == channel } else { matches(known, channel, Case::Sensitive) }),
        }
    }

    /// Its patterns of channels; `None` where it permits all.
    pub fn channel_patterns(&self) -> Option<&[Vec<u8>]> {
        match &self.channels {
            Scope::All => None,
            Scope::Only(patterns) => Some(patterns),
        }
    }

    /// The rules about commands as ACL GETUSER shows them.
    pub fn describe_commands(&self) -> Vec<u8> {
        let start: &[u8] = if self.future_commands { b"+@all" } else { b"-@all" };
        let rules: Vec<&[u8]> = std::iter::once(start).chain(self.rules.iter().map(Vec::as_slice)).collect();
        rules.join(&b' ')
    }

    /// The rules about keys as ACL GETUSER shows them.
    pub fn describe_keys(&self) -> Vec<u8> {
        let Scope::Only(patterns) = &self.keys else { return b"~*".to_vec() };
        let mut text = Vec::new();
        for pattern in patterns {
            if !text.is_empty() {
                text.push(b' ');
            }
            pattern.append_to(&mut text);
        }
        text
    }

    /// The rules about channels as ACL GETUSER shows them.
    pub fn describe_channels(&self) -> Vec<u8> {
        let Scope::Only(patterns) = &self.channels else { return b"&*".to_vec() };
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| [b"&", pattern.as_slice()].concat()).collect();
        patterns.join(&b' ')
    }

    /// All of its rules, as ACL LIST shows them.
    pub fn describe(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let keys = self.describe_keys();
        if !keys.is_empty() {
            parts.push(keys);
        }
        if self.channels != Scope::All {
            parts.push(b"resetchannels".to_vec());
        }
        let channels = self.describe_channels();
        if !channels.is_empty() {
            parts.push(channels);
        }
        parts.push(self.describe_commands());
        parts.join(&b' ')
    }
}

/// Whether there is a blank or a NUL in it: then it could not be written down.
pub fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::catalog::tests::few;
    use proptest::prelude::*;

    fn selector(rules: &str) -> Selector {
        Selector::parse(rules.as_bytes(), &few()).unwrap_or_else(|error| panic!("{rules}: {error}"))
    }

    fn refused(rules: &str) -> RuleError {
        Selector::parse(rules.as_bytes(), &few()).unwrap_err()
    }

    fn shown(rules: &str) -> String {
        String::from_utf8(selector(rules).describe()).unwrap()
    }

    fn may(selector: &Selector, command: &str, first: &str) -> bool {
        selector.permits_command(few().find(command.as_bytes()).unwrap(), Some(first.as_bytes()))
    }

    #[test]
    fn rules_are_kept_in_the_order_that_makes_them() {
        for (rules, text) in [
            ("", "resetchannels -@all"),
            ("+get", "resetchannels -@all +get"),
            ("+@all ~* &*", "~* &* +@all"),
            ("allcommands allkeys allchannels", "~* &* +@all"),
            ("+GET -get +Get", "resetchannels -@all +get"),
            ("+@string -set +@STRING", "resetchannels -@all -set +@string"),
            ("+config|get +config|set -config", "resetchannels -@all -config"),
            ("+config -config|get", "resetchannels -@all +config -config|get"),
            ("+select|0 +SELECT|0 +select|1", "resetchannels -@all +select|0 +select|1"),
            ("+get +@all -set", "resetchannels +@all -set"),
            ("-@all +@all nocommands", "resetchannels -@all"),
            ("~a %R~b %W~c %RW~d &x &y ~a", "~a %R~b %W~c ~d resetchannels &x &y -@all"),
            ("%R~a %W~a", "~a resetchannels -@all"),
        ] {
            assert_eq!(shown(rules), text, "{rules}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (rules, error) in [
            ("+nosuch", RuleError::Unknown),
            ("-config|nosuch", RuleError::Unknown),
            ("+config|nosuch", RuleError::Unknown),
            ("+@nosuch", RuleError::Unknown),
            ("-select|0", RuleError::Unknown),
            ("+config|get|x", RuleError::FirstArgOfSubcommand),
            ("+select|", RuleError::Syntax),
            ("nosuch", RuleError::Syntax),
            ("on", RuleError::Syntax),
            ("\"\"", RuleError::Syntax),
            ("%~x", RuleError::Syntax),
            ("%RR~x", RuleError::Syntax),
            ("%X~x", RuleError::Syntax),
            ("\"~a b\"", RuleError::Syntax),
            ("\"&a b\"", RuleError::Syntax),
            ("~* ~a", RuleError::AllKeysAlready),
            ("~* %x", RuleError::AllKeysAlready),
            ("&* &a", RuleError::AllChannelsAlready),
            ("\"open", RuleError::Syntax),
        ] {
            assert_eq!(refused(rules), error, "{rules}");
        }
    }

    #[test]
    fn commands_are_permitted_by_name_category_and_first_argument() {
        let s = selector("+@read -keys +select|0 +config|get");
        assert!(may(&s, "get", "") && may(&s, "mget", "") && !may(&s, "keys", "") && !may(&s, "set", ""));
        assert!(may(&s, "select", "0") && !may(&s, "select", "1"));
        assert!(may(&s, "config|get", "") && !may(&s, "config|set", "") && !may(&s, "config", ""));
        // A container stands for its subcommands, whatever their categories.
        assert!(may(&selector("+@slow"), "config|set", ""));
        assert!(!may(&selector("+@all -@slow"), "config|help", ""));
        // Once the command is allowed as a whole, or forbidden, its first argument says nothing.
        assert!(!may(&selector("+select|0 -select"), "select", "0"));
        assert!(may(&selector("+select|0 +select"), "select", "7"));
    }

    #[test]
    fn keys_are_permitted_for_what_is_done_to_them() {
        let s = selector("%R~r* %W~w* ~b*");
        let permits = |key: &str| {
            [Access::READ, Access::META, Access::OVERWRITE, Access::READ_UPDATE]
                .map(|a| s.permits_key(key.as_bytes(), a))
        };
        assert_eq!(permits("r"), [true, true, false, false]);
        assert_eq!(permits("w"), [false, true, true, false]);
        assert_eq!(permits("b"), [true; 4]);
        assert_eq!(permits("x"), [false; 4]);
        assert!(!s.permits_all_keys(Access::READ));
        assert!(selector("%R~*").permits_all_keys(Access::READ) && !selector("%R~*").permits_all_keys(Access::REMOVE));
        assert!(selector("~*").permits_all_keys(Access::READ_UPDATE));
    }

    #[test]
    fn a_pattern_of_channels_is_permitted_only_as_it_stands() {
        let s = selector("&news.* &exact");
        assert!(s.permits_channel(b"news.sport", false) && s.permits_channel(b"exact", false));
        assert!(s.permits_channel(b"news.*", true) && !s.permits_channel(b"news.s*", true));
        assert!(!s.permits_channel(b"other", false));
        assert!(selector("&*").permits_channel(b"any*", true));
    }

    proptest! {
        #[test]
        fn what_is_shown_gives_the_same_permissions(
            rules in prop::collection::vec(prop::sample::select(vec![
                "+@all", "-@all", "+get", "-get", "+config", "-config", "+config|get", "-config|get", "+@read",
                "-@read", "+@slow", "-@slow", "+select|1", "+select|2", "-select", "+select", "~a", "%R~a", "%W~b",
                "resetkeys", "allkeys", "&c", "&d", "allchannels", "resetchannels",
            ]), 0..30),
        ) {
            let catalog = few();
            let mut made = Selector::new(&catalog);
            for rule in rules {
                let before = made.clone();
                if made.apply(rule.as_bytes(), &catalog).is_err() {
                    prop_assert_eq!(&made, &before);
                }
            }
            let again = Selector::parse(&made.describe(), &catalog).unwrap();
            prop_assert_eq!(&made.commands, &again.commands);
            prop_assert_eq!(made.describe(), again.describe());
            prop_assert_eq!((&made.keys, &made.channels, &made.first_args), (&again.keys, &again.channels, &again.first_args));
            prop_assert_eq!(made.is_unrestricted(), again.is_unrestricted());
        }

        #[test]
        fn any_rule_is_followed_or_refused(rule in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut selector = Selector::new(&few());
            if selector.apply(&rule, &few()).is_ok() {
                prop_assert!(Selector::parse(&selector.describe(), &few()).is_ok() || selector.describe().contains(&b'"') || selector.describe().contains(&b'\''));
            }
        }
    }
}
