//! A user: how it logs in, and what it may do.

use smallvec::SmallVec;

use crate::acl::catalog::Catalog;
use crate::acl::password::Password;
use crate::acl::selector::{RuleError, Selector};
use crate::spec::channels::Channels;
use crate::spec::keys::{for_each, settled};
use crate::spec::{Access, Keys};

/// Which channels a user that was just made may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewChannels {
    /// All.
    All,
    /// None.
    None,
}

/// A request whose permission is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The number of its command.
    pub command: u16,
    /// The full name of its command, lower case.
    pub name: &'a str,
    /// Its command's own name, as declared.
    pub declared: &'a str,
    /// Whether everyone may run it, who is logged in or not.
    pub free: bool,
    /// Where its keys are.
    pub keys: &'a [Keys],
    /// All its arguments, the command's name first.
    pub args: &'a [&'a [u8]],
}

/// What is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// The key at this argument.
    Key(usize),
    /// The channel at this argument.
    Channel(usize),
}

/// A user's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Whether one can log in as this user.
    pub enabled: bool,
    /// Whether any password will do.
    pub nopass: bool,
    /// Whether RESTORE looks through what this user gives it.
    pub sanitizes: bool,
    /// Any of these will do.
    pub passwords: Vec<Password>,
    /// What is permitted: by the first of them, which is the user's own, or by any other.
    selectors: Vec<Selector>,
}

impl User {
    /// A user that was just made: it cannot log in and may do nothing.
    pub fn new(channels: NewChannels, catalog: &Catalog) -> User {
        let mut root = Selector::new(catalog);
        if channels == NewChannels::All {
            root.apply(b"allchannels", catalog).expect("this is a rule");
        }
        User { enabled: false, nopass: false, sanitizes: true, passwords: Vec::new(), selectors: vec![root] }
    }

    /// The default user as it is without configuration: anyone may log in and do anything.
    pub fn unrestricted(catalog: &Catalog) -> User {
        let mut user = User::new(NewChannels::All, catalog);
        for rule in ["+@all", "~*", "on", "nopass"] {
            user.apply(rule.as_bytes(), NewChannels::All, catalog).expect("these are rules");
        }
        user
    }

    /// Follows one rule. The empty one says nothing.
    ///
    /// # Errors
    /// Where it is none; the user is then what it was.
    pub fn apply(&mut self, rule: &[u8], channels: NewChannels, catalog: &Catalog) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        let hash = |text: &[u8]| Password::parse(text).ok_or(RuleError::BadHash);
        match rule {
            [] => {}
            _ if is("on") => self.enabled = true,
            _ if is("off") => self.enabled = false,
            _ if is("sanitize-payload") => self.sanitizes = true,
            _ if is("skip-sanitize-payload") => self.sanitizes = false,
            _ if is("nopass") || is("resetpass") => {
                self.nopass = is("nopass");
                self.passwords.clear();
            }
            [b'>', clear @ ..] => self.add_password(Password::of(clear)),
            [b'#', text @ ..] => self.add_password(hash(text)?),
            [b'<', clear @ ..] => self.remove_password(Password::of(clear))?,
            [b'!', text @ ..] => self.remove_password(hash(text)?)?,
            [b'(', rules @ .., b')'] => self.selectors.push(Selector::parse(rules, catalog)?),
            _ if is("clearselectors") => self.selectors.truncate(1),
            _ if is("reset") => *self = User::new(channels, catalog),
            rule => self.selectors[0].apply(rule, catalog)?,
        }
        Ok(())
    }

    fn add_password(&mut self, password: Password) {
        self.nopass = false;
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
    }

    fn remove_password(&mut self, password: Password) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == password).ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// Whether one may log in with this password. The time it takes tells nothing about the passwords but
    /// how many there are.
    pub fn admits(&self, password: &[u8]) -> bool {
        if !self.enabled || self.nopass {
            return self.enabled;
        }
        let given = Password::of(password);
        self.passwords.iter().fold(false, |found, known| found | known.matches(&given))
    }

    /// Whether connections are logged in as this user without being asked.
    pub fn is_open(&self) -> bool {
        self.enabled && self.nopass
    }

    /// The selectors, the user's own first.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Whether everything is permitted, so that nothing need be looked at.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_unrestricted)
    }

    /// Whether one selector permits the whole request.
    ///
    /// # Errors
    /// What is not permitted, by the selector that came closest.
    pub fn permits(&self, request: &Request<'_>) -> Result<(), Denied> {
        let mut keys: SmallVec<[(usize, Access); 8]> = SmallVec::new();
        let args = request.args;
        // Where a count is wrong the command itself says so, and touches no key.
        let followed = for_each(request.keys, args.len(), |i| args[i], |i, access| keys.push((i, access)));
        if followed.is_err() {
            keys.clear();
        }
        for (_, access) in &mut keys {
            *access = settled(request.declared, *access, args);
        }
        let channels = Channels::of(request.name);
        let mut closest = Denied::Command;
        for selector in &self.selectors {
            match permitted_by(selector, request, &keys, channels) {
                Ok(()) => return Ok(()),
                Err(denied) => closest = closest.max(denied),
            }
        }
        Err(closest)
    }

    /// Whether a request may follow names that stand in values (SORT BY and GET): one selector permits the
    /// command, and this access to any key.
    pub fn permits_any_key(&self, request: &Request<'_>, access: Access) -> bool {
        self.selectors.iter().any(|selector| {
            permitted_by(selector, &Request { keys: &[], ..*request }, &[], None).is_ok()
                && selector.permits_all_keys(access)
        })
    }

    /// Whether a subscription to this channel, or pattern, is permitted.
    pub fn permits_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors.iter().any(|selector| selector.permits_channel(channel, is_pattern))
    }

    /// Whether `self` permits subscriptions that `newer` may not: those have to be looked through.
    pub fn loses_channels_to(&self, newer: &User) -> bool {
        let mut upcoming = Vec::new();
        for selector in &newer.selectors {
            let Some(patterns) = selector.channel_patterns() else { return false };
            upcoming.extend(patterns);
        }
        self.selectors.iter().any(|selector| match selector.channel_patterns() {
            None => true,
            Some(patterns) => patterns.iter().any(|pattern| !upcoming.contains(&pattern)),
        })
    }

    /// The words that ACL GETUSER shows as flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let words = [
            (self.enabled, "on"),
            (!self.enabled, "off"),
            (self.nopass, "nopass"),
            (!self.sanitizes, "skip-sanitize-payload"),
            (self.sanitizes, "sanitize-payload"),
        ];
        words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word)
    }

    /// The rules that make this user of a new one, as ACL LIST shows them.
    pub fn describe(&self) -> Vec<u8> {
        let flags = self.flags().map(|flag| flag.as_bytes().to_vec());
        let passwords = self.passwords.iter().map(|password| format!("#{password}").into_bytes());
        let (own, others) = self.selectors.split_first().expect("a user has its own selector");
        let others = others.iter().map(|selector| [b"(", selector.describe().as_slice(), b")"].concat());
        let parts: Vec<Vec<u8>> = flags.chain(passwords).chain([own.describe()]).chain(others).collect();
        parts.join(&b' ')
    }
}

fn permitted_by(
    selector: &Selector,
    request: &Request<'_>,
    keys: &[(usize, Access)],
    channels: Option<Channels>,
) -> Result<(), Denied> {
    let args = request.args;
    let first = if request.name.contains('|') { 2 } else { 1 };
    if !request.free && !selector.permits_command(request.command, args.get(first).copied()) {
        return Err(Denied::Command);
    }
    for (at, access) in keys {
        if !selector.permits_key(args[*at], *access) {
            return Err(Denied::Key(*at));
        }
    }
    let Some(channels) = channels else { return Ok(()) };
    match channels.positions(args.len()).find(|at| !selector.permits_channel(args[*at], channels.patterns)) {
        Some(at) => Err(Denied::Channel(at)),
        None => Ok(()),
    }
}

/// The rules of a user, those of a selector that is written in several words put together.
///
/// # Errors
/// The word that opens a selector which is not closed.
pub fn merged(words: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, &[u8]> {
    let mut rules: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<&[u8]> = None;
    for word in words {
        let closes = word.ends_with(b")");
        match open {
            Some(_) => {
                let selector = rules.last_mut().expect("the word that opened it is there");
                selector.push(b' ');
                selector.extend_from_slice(word);
                if closes {
                    open = None;
                }
            }
            None => {
                if word.starts_with(b"(") && !closes {
                    open = Some(word);
                }
                rules.push(word.clone());
            }
        }
    }
    open.map_or(Ok(rules), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::catalog::tests::few;

    const NONE: NewChannels = NewChannels::None;

    fn words(rules: &str) -> Vec<Vec<u8>> {
        rules.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn user(rules: &str) -> User {
        let mut user = User::new(NONE, &few());
        for rule in merged(&words(rules)).unwrap() {
            user.apply(&rule, NONE, &few()).unwrap_or_else(|error| panic!("{rules}: {error}"));
        }
        user
    }

    fn shown(rules: &str) -> String {
        String::from_utf8(user(rules).describe()).unwrap()
    }

    fn asked(user: &User, line: &str, keys: &[Keys]) -> Result<(), Denied> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let name = String::from_utf8_lossy(args[0]).to_ascii_lowercase();
        let command = few().find(args[0]).unwrap();
        let declared = name.to_ascii_uppercase();
        user.permits(&Request { command, name: &name, declared: &declared, free: false, keys, args: &args })
    }

    #[test]
    fn a_user_is_shown_by_the_rules_that_make_it() {
        assert_eq!(shown(""), "off sanitize-payload resetchannels -@all");
        assert_eq!(
            String::from_utf8(User::unrestricted(&few()).describe()).unwrap(),
            "on nopass sanitize-payload ~* &* +@all"
        );
        let hash = Password::of(b"p");
        assert_eq!(
            shown("on >p skip-sanitize-payload ~a (+get %R~b) (&c +@read) +set"),
            format!(
                "on skip-sanitize-payload #{hash} ~a resetchannels -@all +set (%R~b resetchannels -@all +get) \
                 (resetchannels &c -@all +@read)"
            )
        );
        assert_eq!(shown("on >p +@all (+get) reset"), shown(""));
        assert_eq!(shown("(+get) clearselectors"), shown(""));
    }

    #[test]
    fn passwords_come_and_go() {
        let mut user = user("on >a >b >a");
        assert_eq!(user.passwords.len(), 2);
        assert!(user.admits(b"a") && user.admits(b"b") && !user.admits(b"c") && !user.admits(b""));
        user.apply(b"<a", NONE, &few()).unwrap();
        assert!(!user.admits(b"a"));
        assert_eq!(user.apply(b"<a", NONE, &few()), Err(RuleError::NoSuchPassword));
        assert_eq!(user.apply(b"#abc", NONE, &few()), Err(RuleError::BadHash));
        user.apply(format!("!{}", Password::of(b"b")).as_bytes(), NONE, &few()).unwrap();
        assert!(!user.admits(b"b") && !user.is_open());
        user.apply(b"nopass", NONE, &few()).unwrap();
        assert!(user.admits(b"anything") && user.is_open());
        user.apply(b">x", NONE, &few()).unwrap();
        assert!(!user.admits(b"anything") && user.admits(b"x"));
        user.apply(b"off", NONE, &few()).unwrap();
        assert!(!user.admits(b"x"));
    }

    #[test]
    fn what_came_closest_says_why_a_request_is_refused() {
        let at = |first| Keys::At { first, access: Access::READ };
        let user = user("+get ~a (+set ~b) (+get ~c)");
        assert_eq!(asked(&user, "get a", &[at(1)]), Ok(()));
        assert_eq!(asked(&user, "get c", &[at(1)]), Ok(()));
        assert_eq!(asked(&user, "get b", &[at(1)]), Err(Denied::Key(1)));
        assert_eq!(asked(&user, "mget a", &[at(1)]), Err(Denied::Command));
        assert_eq!(asked(&user, "set b x", &[Keys::At { first: 1, access: Access::OVERWRITE }]), Ok(()));
        let range = [Keys::Range { first: 1, last: -1, step: 1, access: Access::READ }];
        let user = super::tests::user("+mget ~a* ~b* (+mget ~a* ~c*)");
        assert_eq!(asked(&user, "mget a b c", &range), Err(Denied::Key(3)));
        assert_eq!(asked(&user, "mget a a", &range), Ok(()));
    }

    #[test]
    fn channels_are_asked_for_where_a_command_has_some() {
        let user = user("+publish &news");
        assert_eq!(asked(&user, "publish news x", &[]), Ok(()));
        assert_eq!(asked(&user, "publish other x", &[]), Err(Denied::Channel(1)));
        assert!(user.permits_channel(b"news", true) && !user.permits_channel(b"n*", true));
    }

    #[test]
    fn names_that_stand_in_values_need_a_right_to_all_keys() {
        let args: [&[u8]; 2] = [b"get", b"a"];
        let request = Request { command: 0, name: "get", declared: "GET", free: false, keys: &[], args: &args };
        assert!(user("+get ~*").permits_any_key(&request, Access::READ));
        assert!(user("+get %R~*").permits_any_key(&request, Access::READ));
        assert!(user("(+get %R~*)").permits_any_key(&request, Access::READ));
        assert!(!user("+get ~a (+set %R~*)").permits_any_key(&request, Access::READ));
        assert!(!user("+get %W~*").permits_any_key(&request, Access::READ));
    }

    #[test]
    fn channels_are_lost_where_a_pattern_goes() {
        let loses = |old: &str, new: &str| user(old).loses_channels_to(&user(new));
        assert!(loses("&a &b", "&a") && loses("allchannels", "&a") && loses("(&a)", ""));
        assert!(!loses("&a", "&b (&a)") && !loses("&a", "allchannels") && !loses("", ""));
    }

    #[test]
    fn selectors_may_be_written_in_several_words() {
        assert_eq!(merged(&words("a (b c) d ()")).unwrap(), [&b"a"[..], b"(b c)", b"d", b"()"]);
        assert_eq!(merged(&words("a (b c")).unwrap_err(), b"(b");
        assert_eq!(merged(&words("(")).unwrap_err(), b"(");
        assert_eq!(merged(&[]).unwrap(), Vec::<Vec<u8>>::new());
    }
}
