//! What a command *is*: name, arity, flags, key specifications, categories, usage.
//!
//! One declaration per command; lookup, arity errors, COMMAND, COMMAND DOCS, ACL categories, locking
//! and cluster routing all read it. This floor knows no handler: [`Command`] is generic over what
//! runs it, so that every floor above can read declarations without seeing `command`.

pub mod categories;
pub mod channels;
pub mod keys;
pub mod usage;

/// The version of Redis that clients are told: what they may rely on is what it does.
pub const REDIS_VERSION: &str = "7.2.4";

/// The declaration of one command, or of one subcommand of a container.
#[derive(Debug)]
pub struct Command<R: 'static> {
    /// Upper case; a subcommand's is its own word only (`"GET"` for CONFIG GET).
    pub name: &'static str,
    /// The Redis version that introduced it.
    pub since: &'static str,
    /// The page of the documentation it stands on.
    pub group: Group,
    /// How many arguments it takes, its own name (and its container's) included.
    pub arity: Arity,
    /// What it does and where it may run.
    pub flags: &'static [Flag],
    /// ACL categories beyond those that follow from `flags` and `group`; see [`Command::all_categories`].
    pub categories: &'static [Category],
    /// Where its keys are and what it does to them.
    pub keys: &'static [Keys],
    /// Its arguments: `key [condition(NX | XX)] {score:double member}...`; the grammar is in [`usage`].
    pub usage: &'static str,
    /// One line for COMMAND DOCS.
    pub summary: &'static str,
    /// For COMMAND DOCS, in Redis' words.
    pub complexity: &'static str,
    /// Tips for clients and proxies (`nondeterministic_output`, `request_policy:all_shards` ...).
    pub tips: &'static [&'static str],
    /// What changed since it exists: version and words, oldest first.
    pub history: &'static [(&'static str, &'static str)],
    /// Deprecated since which version, and what to use instead.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// The subcommands of a container; empty for all others.
    pub subcommands: &'static [Command<R>],
    /// What runs it; a container without a form of its own has one that answers the usual error.
    pub run: R,
}

/// How many arguments a command takes, its name included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// Just so many.
    Exactly(u8),
    /// So many or more.
    AtLeast(u8),
}

impl Arity {
    /// Whether `n` arguments, the name included, are acceptable.
    #[inline]
    pub fn accepts(self, n: usize) -> bool {
        match self {
            Arity::Exactly(want) => n == usize::from(want),
            Arity::AtLeast(least) => n >= usize::from(least),
        }
    }

    /// The number that COMMAND INFO prints: negative where more are allowed.
    pub fn wire(self) -> i64 {
        match self {
            Arity::Exactly(n) => i64::from(n),
            Arity::AtLeast(n) => -i64::from(n),
        }
    }
}

/// What a command does and where it may run; [`Flag::wire`] is the name that COMMAND INFO prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// May change data.
    Write,
    /// Reads keys only.
    ReadOnly,
    /// Refused when memory is over its limit.
    DenyOom,
    /// For administrators.
    Admin,
    /// Concerns publish and subscribe.
    PubSub,
    /// Not from scripts.
    NoScript,
    /// May block the client.
    Blocking,
    /// Answered while data is being loaded.
    Loading,
    /// Answered by a replica with stale data.
    Stale,
    /// Hidden from MONITOR.
    SkipMonitor,
    /// Hidden from SLOWLOG.
    SkipSlowlog,
    /// Implies ASKING in a cluster.
    Asking,
    /// Constant or logarithmic time.
    Fast,
    /// Allowed before AUTH.
    NoAuth,
    /// May be propagated although not a write.
    MayReplicate,
    /// Not inside MULTI.
    NoMulti,
    /// Keys are found by looking at the arguments.
    MovableKeys,
    /// Runs while a script is over its time limit.
    AllowBusy,
    /// Refused while data is being replaced by a replica that loads in the background.
    NoAsyncLoading,
    /// May be called without any of its keys.
    NoMandatoryKeys,
    /// Of the servers among themselves: not for clients.
    System,
    /// Touches every key or none in particular: runs alone, with all gates held.
    Alone,
    /// For Sentinel only.
    OnlySentinel,
    /// Its last argument may be hidden: the handler names what to hide in logs.
    Protected,
    /// Does not touch the LRU clock or LFU counter of its keys.
    NoTouch,
}

/// The categories of ACL, each with the name that ACL CAT prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the category of its name")]
pub enum Category {
    Keyspace,
    Read,
    Write,
    Set,
    SortedSet,
    List,
    Hash,
    String,
    Bitmap,
    HyperLogLog,
    Geo,
    Stream,
    PubSub,
    Admin,
    Fast,
    Slow,
    Blocking,
    Dangerous,
    Connection,
    Transaction,
    Scripting,
}

/// The page of the documentation that a command stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the group of its name")]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
    HyperLogLog,
    Cluster,
    Sentinel,
    Geo,
    Stream,
    Bitmap,
}

/// Where keys stand among the arguments, and what is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// One key at argument `first`.
    At {
        /// Position, the command's name being 0.
        first: u8,
        /// What is done to it.
        access: Access,
    },
    /// One key at argument `first`, or where that is empty all those behind an option (MIGRATE). COMMAND INFO tells
    /// it as [`Keys::At`], and a [`Keys::After`] beside it, which is incomplete, of the rest.
    AtOrAfter {
        /// Position, the command's name being 0.
        first: u8,
        /// The option, upper case.
        word: &'static str,
        /// Position of the first option.
        from: u8,
        /// Other options that have arguments, and how many.
        others: &'static [(&'static str, u8)],
        /// What is done to it.
        access: Access,
    },
    /// Keys from `first` to `last` (negative: counted from the end, -1 the last argument), every `step`.
    Range {
        /// Position of the first.
        first: u8,
        /// Position of the last, relative to the end where negative.
        last: i8,
        /// Distance from one key to the next.
        step: u8,
        /// What is done to them.
        access: Access,
    },
    /// As many keys as argument `count` says, from the argument after `first - 1` on.
    Counted {
        /// Position of the number.
        count: u8,
        /// Position of the first key.
        first: u8,
        /// Distance from one key to the next.
        step: u8,
        /// What is done to them.
        access: Access,
    },
    /// Keys after a word (`STREAMS`, `STORE`), looked for from argument `from` on (negative: from the end backwards).
    /// What is incomplete is only told: another specification finds its keys.
    After {
        /// The word, upper case.
        word: &'static str,
        /// Where the search starts.
        from: i8,
        /// Position of the last key relative to the first: 0 one key, -1 up to the end, -2 as many
        /// as fill the first half of what follows (`STREAMS k1 k2 id1 id2`).
        last: i8,
        /// Distance from one key to the next.
        step: u8,
        /// What is done to them.
        access: Access,
    },
    /// The one key after an option, wherever among the options that stands; the last counts (`SORT ... STORE`).
    /// COMMAND INFO calls this unknown.
    Option {
        /// The option, upper case.
        word: &'static str,
        /// Position of the first option.
        from: u8,
        /// Other options that have arguments, and how many.
        others: &'static [(&'static str, u8)],
        /// What is done to it.
        access: Access,
    },
    /// Keys that only the command itself can find: their names are made from patterns with a `*` behind these
    /// words (SORT BY).
    Unknown {
        /// The words, upper case.
        words: &'static [&'static str],
        /// What is done to them.
        access: Access,
    },
    /// Like [`Keys::At`], but the argument is a channel or otherwise no key: it routes only.
    NotKey {
        /// Position of the first.
        first: u8,
        /// Position of the last, relative to the end where negative.
        last: i8,
        /// Distance from one to the next.
        step: u8,
    },
}

/// What a command does to a key: the flags of Redis' key specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// RO, RW, OW or RM.
    pub mode: Mode,
    /// The command returns, copies or uses the value's content.
    pub access: bool,
    /// The command writes new content that depends on the arguments or the old content.
    pub update: bool,
    /// The command adds content without looking at the old.
    pub insert: bool,
    /// The command may remove the content.
    pub delete: bool,
    /// Which keys are used cannot be told from the arguments alone.
    pub incomplete: bool,
    /// The flags depend on the arguments (SET with GET).
    pub variable: bool,
    /// A remark for whoever reads COMMAND INFO; empty for none.
    pub notes: &'static str,
}

/// How a key's value is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// RO: read only.
    Read,
    /// RW: read and written.
    ReadWrite,
    /// OW: overwritten without being looked at.
    Overwrite,
    /// RM: removed.
    Remove,
}

impl Access {
    const fn new(mode: Mode) -> Access {
        Access {
            mode,
            access: false,
            update: false,
            insert: false,
            delete: false,
            incomplete: false,
            variable: false,
            notes: "",
        }
    }
    /// RO, ACCESS: the value is read.
    pub const READ: Access = Access { access: true, ..Access::new(Mode::Read) };
    /// RO: only the key's metadata is looked at (TTL, EXISTS, TYPE, STRLEN).
    pub const META: Access = Access::new(Mode::Read);
    /// RW, UPDATE: changed in place, the old value is not returned.
    pub const UPDATE: Access = Access { update: true, ..Access::new(Mode::ReadWrite) };
    /// RW, ACCESS, UPDATE: changed in place, and old or new content is returned.
    pub const READ_UPDATE: Access = Access { access: true, ..Access::UPDATE };
    /// RW, INSERT: content is added.
    pub const INSERT: Access = Access { insert: true, ..Access::new(Mode::ReadWrite) };
    /// OW, UPDATE: replaced whatever it was.
    pub const OVERWRITE: Access = Access { update: true, ..Access::new(Mode::Overwrite) };
    /// OW, INSERT: created or replaced.
    pub const CREATE: Access = Access { insert: true, ..Access::new(Mode::Overwrite) };
    /// RM, DELETE: removed.
    pub const REMOVE: Access = Access { delete: true, ..Access::new(Mode::Remove) };
    /// RW, DELETE: content is removed without being returned.
    pub const DELETE: Access = Access { delete: true, ..Access::new(Mode::ReadWrite) };
    /// RW, ACCESS, DELETE: content is returned and removed.
    pub const TAKE: Access = Access { access: true, ..Access::DELETE };
    /// The same with VARIABLE_FLAGS.
    pub const fn varying(self) -> Access {
        Access { variable: true, ..self }
    }
    /// The same with INCOMPLETE.
    pub const fn partly(self) -> Access {
        Access { incomplete: true, ..self }
    }
    /// The same with a remark.
    pub const fn noted(self, notes: &'static str) -> Access {
        Access { notes, ..self }
    }

    /// The names of its flags, as COMMAND INFO prints them.
    pub fn wire(&self) -> impl Iterator<Item = &'static str> {
        let mode = match self.mode {
            Mode::Read => "RO",
            Mode::ReadWrite => "RW",
            Mode::Overwrite => "OW",
            Mode::Remove => "RM",
        };
        let flags = [
            (true, mode),
            (self.access, "access"),
            (self.update, "update"),
            (self.insert, "insert"),
            (self.delete, "delete"),
            (self.incomplete, "incomplete"),
            (self.variable, "variable_flags"),
        ];
        flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name)
    }
}
