//! What a script's functions share, and whom they ask.

use std::cell::{Cell, RefCell};

use crate::resp::reply::{Output, Protocol};
use crate::script::debugger::Heard;
use crate::script::debugger::state::Debugger;
use crate::script::json::Settings;
use crate::script::lua::{Kept, Lent, Raise};
use crate::script::source::Flags;
use crate::script::vm::Failure;

/// What became of a request of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It ran, and its reply is written; errors among them are counted.
    Replied,
    /// It may not run: the error reply's line, which is counted.
    Refused(Vec<u8>),
    /// The script has to end. [`Caller::tick`] gives the reason from now on.
    Stop,
}

/// Runs what a script asks for.
pub trait Caller {
    /// Runs one request and writes its reply in the protocol that `reply` has.
    fn call(&mut self, args: &[&[u8]], reply: &mut Output) -> Answer;

    /// Whether the user may run this request; `None` where there is no such command.
    fn permits(&mut self, args: &[&[u8]]) -> Option<bool>;

    /// Says where the effects of the requests that follow go.
    fn propagate(&mut self, to_log: bool, to_replicas: bool);

    /// Writes a line to the server's log, of level 0 (debug) to 3 (warning).
    fn log(&mut self, level: u8, text: &[u8]);

    /// Called while the script runs, a few thousand times a second; returns with what it should end.
    fn tick(&mut self) -> Option<Raise>;

    /// Sends bytes to the client of a debugger's session.
    fn tell(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Waits until the client of a debugger's session says something, and appends it.
    fn hear(&mut self, into: &mut Vec<u8>) -> Heard {
        let _ = into;
        Heard::Gone
    }
}

/// A function that a library registered while it was loaded.
#[derive(Debug)]
pub struct Registered {
    /// Its name.
    pub name: Vec<u8>,
    /// What it says about itself.
    pub description: Option<Vec<u8>>,
    /// What it may do.
    pub flags: Flags,
    /// The function.
    pub function: Kept,
}

/// What the functions of one interpreter share.
#[derive(Default)]
pub struct Shared {
    /// Whom they ask.
    pub caller: Lent,
    /// How replies come to the script: `redis.setresp`.
    pub protocol: Cell<Protocol>,
    /// Tables that scripts may read but not change: what stands for each, and the table itself.
    pub protected: RefCell<Vec<(usize, Kept)>>,
    /// The state of `math.random`.
    pub random: Cell<u64>,
    /// How JSON is written and read.
    pub json: RefCell<Settings>,
    /// What the library that is being loaded has registered; `None` while none is.
    pub registered: RefCell<Option<Vec<Registered>>>,
    /// The error that ended the last run.
    pub failure: RefCell<Option<Failure>>,
    /// Lua's own `next`.
    pub own_next: Cell<Option<Kept>>,
    /// Whether the script was told to end.
    pub stopped: Cell<bool>,
    /// Memory for replies.
    pub reply: RefCell<Option<Output>>,
    /// The session of the debugger that the script runs in, if it does.
    pub debugger: RefCell<Option<Box<Debugger>>>,
}

impl Shared {
    /// Asks; `None` where there is nobody, or it is being asked already.
    pub fn ask<R>(&self, f: impl FnOnce(&mut dyn Caller) -> R) -> Option<R> {
        self.caller.ask(f)
    }

    /// Called while scripts run; with what they should end.
    pub fn tick(&self) -> Option<Raise> {
        self.ask(|caller| caller.tick())?
    }
}
