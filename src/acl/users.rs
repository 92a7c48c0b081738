//! All users of a server, and the accounts that connections hold.
//!
//! A connection holds the [`Account`] it is logged in to, and reads its rules where it needs them: what
//! changes holds from the next request on, without anyone being told. What must stay true: there is a
//! default user always; changes come one after the other, each as a whole or not at all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::acl::catalog::Catalog;
use crate::acl::selector::{RuleError, has_spaces};
use crate::acl::user::{NewChannels, User, merged};

/// The name of the user that connections are until they log in as another one.
pub const DEFAULT: &[u8] = b"default";

/// A user as connections hold it.
#[derive(Debug)]
pub struct Account {
    name: Vec<u8>,
    rules: ArcSwap<User>,
    unrestricted: AtomicBool,
    open: AtomicBool,
    deleted: AtomicBool,
}

impl Account {
    fn new(name: &[u8], user: User) -> Account {
        Account {
            name: name.to_vec(),
            unrestricted: AtomicBool::new(user.is_unrestricted()),
            open: AtomicBool::new(user.is_open()),
            deleted: AtomicBool::new(false),
            rules: ArcSwap::from_pointee(user),
        }
    }

    /// The user's name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its rules now.
    pub fn rules(&self) -> Arc<User> {
        self.rules.load_full()
    }

    /// Whether everything is permitted: then nothing else need be asked.
    #[inline]
    pub fn is_unrestricted(&self) -> bool {
        self.unrestricted.load(Ordering::Relaxed)
    }

    /// Whether connections are logged in to it without being asked.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the user is gone; then nothing is permitted any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::SeqCst)
    }

    fn delete(&self, catalog: &Catalog) {
        self.deleted.store(true, Ordering::SeqCst);
        self.replace(User::new(NewChannels::None, catalog));
    }

    fn replace(&self, user: User) -> Arc<User> {
        // While the flags and the rules disagree, it is the stricter that counts.
        self.unrestricted.store(false, Ordering::Release);
        self.open.store(false, Ordering::Release);
        let (unrestricted, open) = (user.is_unrestricted(), user.is_open());
        let old = self.rules.swap(Arc::new(user));
        self.unrestricted.store(unrestricted, Ordering::Release);
        self.open.store(open, Ordering::Release);
        old
    }
}

/// What a change took from a user's connections.
#[derive(Debug)]
pub enum Loss {
    /// The user is gone.
    Deleted(Arc<Account>),
    /// It may no longer use all of the channels that it could.
    Channels(Arc<Account>),
}

/// Why the users of a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// A line is wrong; what is wrong with it.
    Line(String),
    /// A rule of this user cannot be followed by this server.
    Rule {
        /// The user.
        user: Vec<u8>,
        /// The rule.
        rule: Vec<u8>,
        /// What is wrong with it.
        error: RuleError,
    },
}

/// All users.
#[derive(Debug)]
pub struct Users {
    catalog: Catalog,
    accounts: RwLock<BTreeMap<Vec<u8>, Arc<Account>>>,
    default: Arc<Account>,
    owner: Arc<Account>,
    /// Held while users are changed.
    changing: Mutex<()>,
}

impl Users {
    /// The default user alone, who may do anything.
    pub fn new(catalog: Catalog) -> Users {
        let default = Arc::new(Account::new(DEFAULT, User::unrestricted(&catalog)));
        let accounts = RwLock::new(BTreeMap::from([(DEFAULT.to_vec(), default.clone())]));
        let owner = Arc::new(Account::new(DEFAULT, User::unrestricted(&catalog)));
        Users { catalog, accounts, default, owner, changing: Mutex::new(()) }
    }

    /// The commands that rules speak of.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The account of the default user.
    #[inline]
    pub fn default_account(&self) -> &Arc<Account> {
        &self.default
    }

    /// The account of whoever needs no permission: the program that the server is part of, our primary, our
    /// own log. Everything is permitted, whatever users there are.
    pub fn owner(&self) -> &Arc<Account> {
        &self.owner
    }

    /// The account of this user.
    pub fn account(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.accounts.read().get(name).cloned()
    }

    /// The account of this user, if this is a password of it.
    pub fn log_in(&self, name: &[u8], password: &[u8]) -> Option<Arc<Account>> {
        self.account(name).filter(|account| account.rules().admits(password))
    }

    /// All accounts in the order of their names.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.accounts.read().values().cloned().collect()
    }

    /// The lines of all users, each as ACL LIST shows it but for the word `user`.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let line = |account: &Arc<Account>| [account.name(), b" ", &account.rules().describe()].concat();
        self.all().iter().map(line).collect()
    }

    /// What is written to an ACL file.
    pub fn text(&self) -> Vec<u8> {
        self.lines().iter().flat_map(|line| [b"user ", line.as_slice(), b"\n"].concat()).collect()
    }

    /// Follows the rules for a user, which is made if there is none: all of them or none.
    ///
    /// # Errors
    /// Redis' text without its code.
    pub fn set(&self, name: &[u8], words: &[Vec<u8>], channels: NewChannels) -> Result<Option<Loss>, Vec<u8>> {
        let _one_at_a_time = self.changing.lock();
        let rules = merged(words)
            .map_err(|open| [b"Unmatched parenthesis in acl selector starting at '", open, b"'."].concat())?;
        let account = self.account(name);
        let mut user = match &account {
            Some(account) => User::clone(&account.rules()),
            None => User::new(channels, &self.catalog),
        };
        for rule in rules {
            user.apply(&rule, channels, &self.catalog).map_err(|error| {
                [b"Error in ACL SETUSER modifier '", rule.as_slice(), b"': ", error.to_string().as_bytes()].concat()
            })?;
        }
        Ok(self.put(name, user))
    }

    /// Gives a user these rules.
    fn put(&self, name: &[u8], user: User) -> Option<Loss> {
        let mut accounts = self.accounts.write();
        match accounts.entry(name.to_vec()) {
            Entry::Vacant(place) => {
                place.insert(Arc::new(Account::new(name, user)));
                None
            }
            Entry::Occupied(account) => {
                let account = account.get();
                let old = account.replace(user);
                old.loses_channels_to(&account.rules()).then(|| Loss::Channels(account.clone()))
            }
        }
    }

    /// Gives the default user this password alone, or none at all.
    pub fn set_default_password(&self, password: Option<&[u8]>) {
        let _one_at_a_time = self.changing.lock();
        let mut user = User::clone(&self.default.rules());
        let rule = password.map_or(b"nopass".to_vec(), |password| [b">", password].concat());
        for rule in [b"resetpass".to_vec(), rule] {
            user.apply(&rule, NewChannels::None, &self.catalog).expect("these are rules");
        }
        self.default.replace(user);
    }

    /// Removes a user, which is not the default one; `None` where there is none of this name.
    pub fn delete(&self, name: &[u8]) -> Option<Loss> {
        assert!(name != DEFAULT, "the default user stays");
        let _one_at_a_time = self.changing.lock();
        let account = self.accounts.write().remove(name)?;
        account.delete(&self.catalog);
        Some(Loss::Deleted(account))
    }

    /// Takes over the users that a configuration declares: their words, the name first. A user that is
    /// declared begins without any rights, the default one too.
    ///
    /// # Errors
    /// For the first that cannot be used.
    pub fn declare(&self, declared: &[&[Vec<u8>]], channels: NewChannels) -> Result<(), ConfigError> {
        for words in declared {
            let Some((name, rules)) = words.split_first() else { continue };
            let user = self.declared(name, rules, channels)?;
            self.put(name, user);
        }
        Ok(())
    }

    fn declared(&self, name: &[u8], words: &[Vec<u8>], channels: NewChannels) -> Result<User, ConfigError> {
        let wrong = |reason: &str| {
            let name = String::from_utf8_lossy(name);
            ConfigError::Line(format!("Error in user declaration '{name}': {reason}"))
        };
        if has_spaces(name) {
            return Err(wrong("Spaces not allowed in ACL usernames"));
        }
        let rules = merged(words).map_err(|_| wrong("Unmatched parenthesis in selector definition"))?;
        let mut user = User::new(channels, &self.catalog);
        for rule in rules {
            user.apply(&rule, channels, &self.catalog).map_err(|error| match error {
                RuleError::Unknown => ConfigError::Rule { user: name.to_vec(), rule: rule.clone(), error },
                error => ConfigError::Line(format!(
                    "Error in user declaration '{}': {error}",
                    String::from_utf8_lossy(&rule)
                )),
            })?;
        }
        Ok(user)
    }

    /// Takes over the users of an ACL file's text, which is called `file` in errors: all or none. Users that
    /// the file does not name go, but for the default one, which then may do anything.
    ///
    /// # Errors
    /// Everything that is wrong with it, in one line.
    pub fn load(&self, text: &[u8], file: &str, channels: NewChannels) -> Result<Vec<Loss>, String> {
        let mut users: BTreeMap<Vec<u8>, User> = BTreeMap::new();
        let mut errors = String::new();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let place = format!("{file}:{number}");
            if let Err(error) = self.load_line(&mut users, trim(line), &place, channels) {
                errors.push_str(&error);
            }
        }
        if !errors.is_empty() {
            errors.push_str("WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
            return Err(errors);
        }
        let default = users.remove(DEFAULT).unwrap_or_else(|| User::unrestricted(&self.catalog));
        users.insert(DEFAULT.to_vec(), default);
        Ok(self.replace_all(users))
    }

    fn load_line(
        &self,
        users: &mut BTreeMap<Vec<u8>, User>,
        line: &[u8],
        place: &str,
        channels: NewChannels,
    ) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        let words: Vec<Vec<u8>> = line.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
        let (b"user", Some((name, rules))) = (words[0].as_slice(), words[1..].split_first()) else {
            return Err(format!("{place} should start with user keyword followed by the username. "));
        };
        let shown = String::from_utf8_lossy(name);
        if has_spaces(name) {
            return Err(format!("'{place}: username '{shown}' contains invalid characters. "));
        }
        let mut errors = String::new();
        let mut user = User::new(channels, &self.catalog);
        let merged = merged(rules).unwrap_or_else(|_| {
            errors = format!("{place}: Unmatched parenthesis in selector definition.");
            Vec::new()
        });
        let mut told = false;
        for rule in &merged {
            match user.apply(trim(rule), channels, &self.catalog) {
                Ok(()) => {}
                Err(RuleError::Unknown) => {
                    let rule = String::from_utf8_lossy(trim(rule));
                    errors += &format!("{place}: Error in applying operation '{rule}': {}. ", RuleError::Unknown);
                }
                // What follows an error may be wrong because of it; and it may be a password.
                Err(_) if told => {}
                Err(error) => {
                    told = true;
                    errors += &format!("{place}: {error}. ");
                }
            }
        }
        match users.entry(name.clone()) {
            Entry::Occupied(_) => {
                let number = place.rsplit(':').next().unwrap_or_default();
                return Err(format!("WARNING: Duplicate user '{shown}' found on line {number}. "));
            }
            Entry::Vacant(vacant) => vacant.insert(user),
        };
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn replace_all(&self, users: BTreeMap<Vec<u8>, User>) -> Vec<Loss> {
        let _one_at_a_time = self.changing.lock();
        let mut losses = Vec::new();
        self.accounts.write().retain(|name, account| {
            let stays = users.contains_key(name);
            if !stays {
                account.delete(&self.catalog);
                losses.push(Loss::Deleted(account.clone()));
            }
            stays
        });
        losses.extend(users.into_iter().filter_map(|(name, user)| self.put(&name, user)));
        losses
    }
}

/// A line, or a word, without blanks at its ends.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = text.iter().position(|byte| !blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::catalog::tests::few;

    const NONE: NewChannels = NewChannels::None;

    fn words(rules: &str) -> Vec<Vec<u8>> {
        rules.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn set(users: &Users, name: &str, rules: &str) -> Result<Option<Loss>, String> {
        users.set(name.as_bytes(), &words(rules), NONE).map_err(|text| String::from_utf8(text).unwrap())
    }

    fn text(users: &Users) -> String {
        String::from_utf8(users.text()).unwrap()
    }

    const OPEN: &str = "user default on nopass sanitize-payload ~* &* +@all\n";

    #[test]
    fn a_change_is_seen_by_whoever_holds_the_account() {
        let users = Users::new(few());
        assert!(set(&users, "bob", "on >p ~* &* +@all").unwrap().is_none());
        let bob = users.log_in(b"bob", b"p").unwrap();
        assert!(bob.is_unrestricted() && !bob.is_open());
        assert!(matches!(set(&users, "bob", "resetchannels"), Ok(Some(Loss::Channels(_)))));
        assert!(!bob.is_unrestricted());
        assert!(matches!(users.delete(b"bob"), Some(Loss::Deleted(_))));
        assert!(bob.is_deleted() && bob.rules().selectors()[0].describe_commands() == b"-@all");
        assert!(users.account(b"bob").is_none() && users.delete(b"bob").is_none());
        assert!(users.log_in(b"bob", b"p").is_none() && users.log_in(b"default", b"").is_some());
    }

    #[test]
    fn rules_are_followed_all_or_none() {
        let users = Users::new(few());
        let error = set(&users, "bob", "on nosuch").unwrap_err();
        assert_eq!(error, "Error in ACL SETUSER modifier 'nosuch': Syntax error");
        assert_eq!(text(&users), OPEN);
        let error = set(&users, "bob", "on (+get").unwrap_err();
        assert_eq!(error, "Unmatched parenthesis in acl selector starting at '(+get'.");
        let error = set(&users, "default", "off (+get nosuch)").unwrap_err();
        assert_eq!(error, "Error in ACL SETUSER modifier '(+get nosuch)': Syntax error");
        assert_eq!(text(&users), OPEN);
    }

    #[test]
    fn the_default_users_password_is_the_one_of_the_configuration() {
        let users = Users::new(few());
        set(&users, "default", ">a").unwrap();
        users.set_default_password(Some(b"b"));
        assert!(users.log_in(b"default", b"a").is_none() && users.log_in(b"default", b"b").is_some());
        assert!(!users.default_account().is_open());
        users.set_default_password(None);
        assert!(users.default_account().is_open());
    }

    #[test]
    fn a_file_is_loaded_as_a_whole_and_what_it_does_not_name_goes() {
        let users = Users::new(few());
        set(&users, "gone", "on").unwrap();
        set(&users, "stays", "on &a &b").unwrap();
        set(&users, "default", "off").unwrap();
        let stays = users.account(b"stays").unwrap();
        let losses = users.load(b"\n user stays  on &a  +get\r\nuser new on nopass ( +get ~x )\n", "f", NONE).unwrap();
        let lost = |loss: &Loss| match loss {
            Loss::Deleted(account) => format!("-{}", String::from_utf8_lossy(account.name())),
            Loss::Channels(account) => format!("&{}", String::from_utf8_lossy(account.name())),
        };
        assert_eq!(losses.iter().map(lost).collect::<Vec<_>>(), ["-gone", "&stays"]);
        assert_eq!(
            text(&users),
            format!(
                "{OPEN}user new on nopass sanitize-payload resetchannels -@all (~x resetchannels -@all +get)\n\
                 user stays on sanitize-payload resetchannels &a -@all +get\n"
            )
        );
        assert!(!stays.is_deleted());
        let before = text(&users);
        let again = users.load(before.as_bytes(), "f", NONE).unwrap();
        assert!(again.is_empty());
        assert_eq!(text(&users), before);
    }

    #[test]
    fn everything_that_is_wrong_with_a_file_is_told_at_once() {
        let users = Users::new(few());
        let end = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        for (text, error) in [
            ("# comment", "f:1 should start with user keyword followed by the username. "),
            ("user", "f:1 should start with user keyword followed by the username. "),
            ("user a\nuser a", "WARNING: Duplicate user 'a' found on line 2. "),
            (
                "user a +nosuch x y",
                "f:1: Error in applying operation '+nosuch': Unknown command or category name in ACL. f:1: Syntax error. ",
            ),
            ("user a (+get", "f:1: Unmatched parenthesis in selector definition."),
            ("user a\tb on", "'f:1: username 'a\tb' contains invalid characters. "),
            (
                "\nuser a #x\nuser b x",
                "f:2: The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters. f:3: Syntax error. ",
            ),
        ] {
            assert_eq!(users.load(text.as_bytes(), "f", NONE).unwrap_err(), format!("{error}{end}"));
        }
        assert_eq!(self::text(&users), OPEN);
    }

    #[test]
    fn declared_users_begin_without_rights() {
        let users = Users::new(few());
        let (bob, default) = (words("bob on +get"), words("default on >p"));
        users.declare(&[&bob, &default], NewChannels::All).unwrap();
        assert!(
            text(&users).starts_with("user bob on sanitize-payload &* -@all +get\nuser default on sanitize-payload #")
        );
        let declare = |line: &str| users.declare(&[&words(line)], NONE).unwrap_err();
        assert_eq!(declare("x nosuch"), ConfigError::Line("Error in user declaration 'nosuch': Syntax error".into()));
        assert!(matches!(declare("x +nosuch"), ConfigError::Rule { .. }));
        assert!(matches!(declare("x (+get"), ConfigError::Line(_)));
    }
}
