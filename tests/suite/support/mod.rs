//! What every black-box test stands on: servers to talk to, a client that hides no byte, replies to compare.

pub mod client;
pub mod reply;
pub mod server;
pub mod watch;
