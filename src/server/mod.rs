//! The outside: workers, listeners, connections, timers; the server as a library runs it.
//!
//! [`running::Server`] is one server: its threads, and the handle to them. [`builder::Builder`] makes
//! one, [`local::Client`] calls it without a socket.

mod beside;
pub mod builder;
mod bus;
mod check;
mod connection;
mod debug_line;
pub mod host;
mod listener;
pub mod local;
mod outbound;
mod peers;
pub mod process;
mod reactor;
pub mod replica_link;
pub mod running;
mod slot_export;
pub mod standalone;
mod stream;
pub mod subscription;
mod timers;
mod tls;
mod worker;
