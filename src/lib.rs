//! Spinel: a Redis-compatible in-memory data structure server, and a library that runs it in process.
//!
//! A program that embeds it starts a [`Server`] and calls it through a [`Client`], or lets any Redis
//! client connect to [`Server::addr`]. Nothing of a server is global: there may be several in a process.
//! It installs no signal handlers and never ends the process.
//!
//! ```
//! use spinel::{Clock, Server, Value};
//! use std::time::Duration;
//!
//! // Time stands still until the test moves it; without `clock` it is the system's.
//! let (clock, hands) = Clock::manual(1_700_000_000_000);
//! let server = Server::builder().directive("databases", "4").clock(clock).start()?;
//!
//! let client = server.client();
//! client.set_for("session", "open", Duration::from_secs(30))?;
//! client.execute(&["RPUSH", "jobs", "wash", "dry"]);
//! assert_eq!(client.execute(&["LLEN", "jobs"]), Value::Integer(2));
//!
//! hands.advance(30_001);
//! assert_eq!(client.get("session")?, None);
//! println!("redis-cli -p {}", server.addr().expect("it listens").port());
//! server.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Builder`] says how a server is to be: directives of redis.conf by name, a port, none, or a free one.
//! [`Server::observe`] tells of every change of a key, [`Server::read_log`] hands out every write as a
//! command that can be run again elsewhere. `examples/embedded.rs` shows all of it. The items above and
//! those named at the root of the crate are what is meant for others; the modules are public so that
//! benchmarks, fuzz targets and the curious can reach them, and change as the house does.
//!
//! # A tour
//!
//! The floors, from the ground up; a file imports from its own folder and from lower floors only.
//!
//! | floor | module | what it is | begin with |
//! | --- | --- | --- | --- |
//! | 1 | [`stdx`] | tools that know no Redis: clock, numbers, patterns, checksums, memory | [`stdx::clock`] |
//! | 1 | [`spec`] | what a command is: arity, flags, key specifications, usage | [`spec::Command`] |
//! | 2 | [`resp`] | requests in, replies out: bytes only | [`resp::request::Parser`], [`resp::reply::Output`] |
//! | 2 | [`config`] | one table of directives, and what reads and writes it | [`config::table::Config`] |
//! | 2 | [`types`] | data structures: no key, no lock, no clock | [`types::table::Table`], [`types::list::List`] |
//! | 2 | [`observe`] | statistics, slow log, latency, logs, crash reports | [`observe::stats::Stats`] |
//! | 3 | [`keyspace`] | databases, slots, shards, entries, deadlines | [`keyspace::space::Keyspace`], [`keyspace::db::Db`] |
//! | 3 | [`script`] | Lua in its sandbox, libraries of functions | [`script::vm::Vm`] |
//! | 4 | [`client`] | what is known of a client | [`client::session::Session`], [`client::shared::Shared`] |
//! | 4 | [`pubsub`] | who listens to which channel | [`pubsub::PubSub`] |
//! | 4 | [`persist`] | the write log, and the one door to files | [`persist::log::WriteLog`] |
//! | 5 | [`cluster`] | who serves which slot, and how nodes agree on it | [`cluster::machine::Machine`], [`cluster::view::View`] |
//! | 5 | [`replication`] | streams of changes, and servers that follow them | [`replication::Replication`] |
//! | 6 | [`command`] | every command, and the way of a request to it | [`command::dispatch::Executor`], [`command::table`] |
//! | 7 | [`server`] | sockets, workers, timers, the process | [`server::running::Server`] |
//!
//! ARCHITECTURE.md is the map: one request from end to end, threads and locks, layouts, and decisions
//! with their figures.

pub mod acl;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod keyspace;
pub mod observe;
pub mod persist;
pub mod pubsub;
pub mod replication;
pub mod resp;
pub mod script;
pub mod server;
pub mod spec;
pub mod stdx;
pub mod types;

pub use command::engine::ShutdownRequest;
pub use keyspace::change::Change;
pub use resp::value::Value;
pub use server::builder::Builder;
pub use server::local::{Client, ReplyError};
pub use server::running::{Server, StartError};
pub use server::subscription::{Message, Subscription};
pub use stdx::clock::{Clock, ManualClock};
