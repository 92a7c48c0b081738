//! Spinel: a Redis-compatible in-memory data structure server, and a library that runs it in process.
//!
//! # A tour
//! The floors, from the ground up; a file imports from its own folder and from lower floors only.
//!
//! | floor | module | what it is |
//! | --- | --- | --- |
//! | 1 | [`stdx`], [`spec`] | tools that know no Redis; what a command is |
//! | 2 | [`resp`], [`config`], [`types`], [`observe`] | wire format, directives, data structures, what is measured |
//! | 3 | [`keyspace`] | databases, slots, shards, entries |
//! | 4 | [`client`], [`persist`] | what is known of a client; the write log |
//! | 6 | [`command`] | every command, and the way to it |
//! | 7 | [`server`] | sockets, workers, timers |

pub mod client;
pub mod command;
pub mod config;
pub mod keyspace;
pub mod observe;
pub mod persist;
pub mod resp;
pub mod server;
pub mod spec;
pub mod stdx;
pub mod types;

pub use resp::value::Value;
pub use server::builder::Builder;
pub use server::local::{Client, ReplyError};
pub use server::running::{Server, StartError};
pub use stdx::clock::{Clock, ManualClock};
