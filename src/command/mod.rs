//! Every command, and the way of a request to it.
//!
//! [`table`] finds a command, [`dispatch`] checks and runs it over the held shards, [`context`] is what
//! it may touch. A file per family holds handlers and declarations side by side.

pub mod acl;
pub mod aof;
pub mod args;
pub mod bitmap;
pub mod blocking;
pub mod call;
pub mod client;
pub mod cluster;
pub mod compatibility;
pub mod config;
pub mod connection;
pub mod context;
pub mod debug;
pub mod dispatch;
pub mod dump;
pub mod engine;
pub mod error;
pub mod eviction;
pub mod expire;
pub mod function;
pub mod gem;
pub mod geo;
pub mod hash;
pub mod help;
pub mod hyperloglog;
pub mod info;
pub mod introspect;
pub mod key;
pub mod keyspace;
pub mod latency;
pub mod lcs;
pub mod list;
pub mod memory;
pub mod migrate;
pub mod module;
pub mod monitor;
pub mod permission;
pub mod pubsub;
pub mod replication;
pub mod save;
pub mod scan;
pub mod script;
pub mod server;
pub mod set;
pub mod slowlog;
pub mod sort;
pub mod stream;
pub mod string;
pub mod table;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod time;
pub mod transaction;
pub mod zset;
