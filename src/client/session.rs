//! What a connection's own commands see and change.

use std::sync::Arc;

use crate::acl::users::Account;
use crate::client::feed::{Feed, Introduction};
use crate::client::shared::Shared;
use crate::client::subscriptions::Subscriptions;
use crate::client::transaction::{Transaction, Watching};
use crate::script::debugger::Debugging;

/// Which replies are sent (CLIENT REPLY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// The next command's is left out.
    SkipNext,
    /// This command's is left out.
    Skip,
}

/// Whether a request is served whose slot is only on its way here (ASKING).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asking {
    /// It is not.
    #[default]
    No,
    /// The next one is.
    Next,
    /// This one is, or the transaction that began with it.
    Now,
}

/// What happens to the connection after the current command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It stays.
    #[default]
    Stay,
    /// It is closed when its reply has been sent.
    CloseAfterReply,
    /// It is closed at once.
    Close,
}

/// A link to a primary: what was read of its stream and has not taken effect, because a transaction goes on.
#[derive(Debug, Default)]
pub struct Follow {
    /// The link's time: with the next it ends.
    pub turn: u64,
    /// The bytes since MULTI.
    pub pending: Vec<u8>,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    /// What others see of it.
    pub shared: Arc<Shared>,
    /// The selected database.
    pub db: usize,
    /// Whether it has logged in, or need not: without it the default user must be one that anyone may use.
    pub authenticated: bool,
    /// The user it is: what it may do.
    pub account: Arc<Account>,
    /// The slot that the current command turned out to be about, where its arguments do not tell.
    pub slot: Option<u16>,
    /// Which replies are sent.
    pub reply: ReplyMode,
    /// Whether the connection goes on.
    pub fate: Fate,
    /// Whether it asks for what is only on its way here.
    pub asking: Asking,
    /// It follows MONITOR, and so may not touch keys.
    pub monitor: bool,
    /// CLIENT NO-TOUCH: its reads do not count as accesses.
    pub no_touch: bool,
    /// The keys that it reads are remembered, so that it can be told when they change.
    pub tracks_reads: bool,
    /// CLIENT CACHING: the keys of the next request are an exception.
    pub caching: bool,
    /// What it is subscribed to; nothing is kept where that is nothing.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What is queued since MULTI.
    pub transaction: Option<Box<Transaction>>,
    /// The keys under WATCH.
    pub watching: Option<Box<Watching>>,
    /// The next script of EVAL is to be debugged (SCRIPT DEBUG), or the one that runs is.
    pub debugging: Option<Box<Debugging>>,
    /// Executes for a caller in this process: there is no socket to close.
    pub in_process: bool,
    /// Executes what a log holds: nothing is refused that was done before.
    pub replaying: bool,
    /// Executes what a primary sends: nothing is refused that was done there.
    pub follows: Option<Box<Follow>>,
    /// The migration of slots whose commands it sends: 40 letters. Its keys are not this node's yet.
    pub imports: Option<[u8; 40]>,
    /// What it has said of itself, if it is to be a replica.
    pub introduction: Option<Box<Introduction>>,
    /// What is sent to it beside replies, since it is a replica.
    pub feed: Option<Arc<Feed>>,
    /// The offset in the stream to replicas behind its last change.
    pub streamed: u64,
    /// The offset in the log behind its last change: replies may have to wait until the disk has the log so far.
    pub logged: u64,
}

impl Session {
    /// A connection that was just accepted.
    ///
    /// `account` is the default user's; who need not log in to it is logged in already.
    pub fn new(shared: Arc<Shared>, account: Arc<Account>) -> Session {
        Session {
            shared,
            db: 0,
            authenticated: account.is_open(),
            account,
            slot: None,
            reply: ReplyMode::On,
            fate: Fate::Stay,
            asking: Asking::No,
            monitor: false,
            no_touch: false,
            tracks_reads: false,
            caching: false,
            subscriptions: None,
            transaction: None,
            watching: None,
            debugging: None,
            in_process: false,
            replaying: false,
            follows: None,
            imports: None,
            introduction: None,
            feed: None,
            streamed: 0,
            logged: 0,
        }
    }

    /// Whether commands are queued for EXEC.
    pub fn is_queueing(&self) -> bool {
        self.transaction.is_some()
    }

    /// Moves ASKING on by one command.
    #[inline]
    pub fn next_asking(&mut self) {
        self.asking = match self.asking {
            Asking::Next => Asking::Now,
            Asking::Now if self.is_queueing() => Asking::Now,
            Asking::Now | Asking::No => Asking::No,
        };
    }

    /// Moves CLIENT REPLY on by one command.
    pub fn next_command(&mut self) {
        self.reply = match self.reply {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            other => other,
        };
    }
}
