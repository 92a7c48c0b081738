//! The Lua debugger: a client that asked for it runs its next script line by line.
//!
//! [`orders`] reads what the client says while the script stands still, [`state`] knows where the script is and what
//! the client is told, [`show`] puts values and replies into words, [`session`] ties them to a running Lua. None of
//! them knows a socket: the client is at the other end of a [`Line`].
//! What must stay true: whatever the client sends, and whenever it goes, the script ends with a reply or an error.

pub mod orders;
pub mod session;
pub mod show;
pub mod state;

use std::fmt;
use std::io;

use crate::script::debugger::state::Debugger;

/// What came of waiting for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It said something.
    Bytes,
    /// It is gone.
    Gone,
    /// Whoever waited has no more patience.
    Nothing,
}

/// Where one goes on after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the server.
    Server,
    /// In a copy of its process, which has this session and nothing else.
    Copy,
}

/// The way to the client of a session: its connection, read and written directly while everything else stands still.
pub trait Line: fmt::Debug + Send {
    /// Sends bytes. That the client is gone is found out by the next [`Line::hear`].
    fn tell(&mut self, bytes: &[u8]);

    /// Waits until the client says something, and appends it; now and then asks `goes_on` whether to wait on.
    fn hear(&mut self, into: &mut Vec<u8>, goes_on: &dyn Fn() -> bool) -> Heard;

    /// Copies the process. The copy keeps nothing of the server's files and sockets but this line, and ends with the
    /// server at the latest.
    ///
    /// # Errors
    /// What the system says.
    fn fork(&mut self) -> io::Result<Side>;

    /// Ends the copy, and only the copy, unless it is told otherwise within so many seconds; 0 takes that back.
    fn end_after(&mut self, seconds: u32);

    /// Ends the copy.
    fn end(&mut self) -> !;
}

/// Where a session runs, and so what becomes of what its script writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a copy of the process, with which it is gone; the server goes on meanwhile.
    Copy,
    /// In the server, which stands still meanwhile.
    Server,
}

/// A client's wish to debug its next script, and the session once that runs.
#[derive(Debug)]
pub struct Debugging {
    /// Where it runs.
    pub place: Place,
    /// The way to the client, as soon as its connection has given it.
    pub line: Option<Box<dyn Line>>,
    /// The session.
    pub debugger: Option<Box<Debugger>>,
    /// Whether this process is the copy.
    pub is_copy: bool,
    /// Whether there is a copy, and this is the server: the client is the copy's from then on.
    pub is_copied: bool,
}

impl Debugging {
    /// A wish.
    pub fn new(place: Place) -> Debugging {
        Debugging { place, line: None, debugger: None, is_copy: false, is_copied: false }
    }
}
