//! Every command, and the way of a request to it.
//!
//! [`table`] finds a command, [`dispatch`] checks and runs it over the held shards, [`context`] is what
//! it may touch. A file per family holds handlers and declarations side by side.

pub mod args;
pub mod config;
pub mod context;
pub mod debug;
pub mod dispatch;
pub mod engine;
pub mod error;
pub mod help;
pub mod info;
pub mod latency;
pub mod lcs;
pub mod memory;
pub mod slowlog;
pub mod string;
pub mod table;
#[cfg(test)]
pub mod testing;
pub mod time;
