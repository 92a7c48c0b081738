//! What a script's functions share, and whom they ask.

use std::cell::{Cell, RefCell};

use crate::resp::reply::{Output, Protocol};
use crate::script::json::Settings;
use crate::script::lua::{Kept, Raise};
use crate::script::source::Flags;
use crate::script::vm::Failure;

/// Runs what a script asks for.
pub trait Caller {
    /// Runs one request and writes its reply, or an error, in the protocol that `reply` has.
    fn call(&mut self, args: &[&[u8]], reply: &mut Output);

    /// Whether the user may run this request; `None` where there is no such command.
    fn permits(&mut self, args: &[&[u8]]) -> Option<bool>;

    /// Says where the effects of the requests that follow go.
    fn propagate(&mut self, to_log: bool, to_replicas: bool);

    /// Writes a line to the server's log, of level 0 (debug) to 3 (warning).
    fn log(&mut self, level: u8, text: &[u8]);

    /// Called while the script runs, a few thousand times a second; returns with what it should end.
    fn tick(&mut self) -> Option<Raise>;
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
    caller: RefCell<Option<Box<dyn Caller>>>,
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
    /// Memory for replies.
    pub reply: RefCell<Option<Output>>,
}

impl Shared {
    /// Puts in place whom scripts ask from now on; returns whom they asked before.
    pub fn set_caller(&self, caller: Option<Box<dyn Caller>>) -> Option<Box<dyn Caller>> {
        self.caller.replace(caller)
    }

    /// Asks; `None` where there is nobody, or it is being asked already.
    pub fn ask<R>(&self, f: impl FnOnce(&mut dyn Caller) -> R) -> Option<R> {
        // It is taken out: whoever is asked may stop this stack for a while, and no borrow may last so long.
        let mut caller = self.caller.take()?;
        let answer = f(&mut *caller);
        self.caller.replace(Some(caller));
        Some(answer)
    }

    /// Called while scripts run; with what they should end.
    pub fn tick(&self) -> Option<Raise> {
        self.ask(|caller| caller.tick())?
    }
}
