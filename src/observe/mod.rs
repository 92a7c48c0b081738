//! What is measured and told: logs, statistics, slow log, latency, INFO.
//!
//! Nothing here decides anything. Workers write their own counters and histograms ([`stats`]),
//! commands that were slow leave a record ([`slowlog`]), the program tells what happens
//! ([`log`]).

pub mod histogram;
pub mod log;
pub mod slowlog;
pub mod stats;
mod system;
