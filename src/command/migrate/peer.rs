//! What MIGRATE asks of the server around it: requests to another server, and what came of them.

use std::time::Duration;

/// Another server, and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database that it keeps the keys in; it says itself whether it has one of this number.
    pub db: i64,
    /// AUTH's arguments: a password, or a user and a password.
    pub login: Vec<Vec<u8>>,
    /// Whether it is spoken to with TLS.
    pub tls: bool,
    /// How long a connection may take, and each read and each write after that.
    pub timeout: Duration,
}

/// Where a conversation broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Before there was a connection: there is no such host.
    Connecting,
    /// Before all was sent.
    Writing,
    /// Before all was answered.
    Reading,
}

/// What another server answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Why it would not let us in, or has no such database: its own words, without the `-`.
    pub refused: Option<Vec<u8>>,
    /// One for each request that was answered: nothing, or the error, without the `-`.
    pub replies: Vec<Result<(), Vec<u8>>>,
    /// Why the others were not.
    pub broken: Option<Break>,
}
