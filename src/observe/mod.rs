//! What is measured and told: logs, statistics, slow log, latency, INFO.
//!
//! Nothing here decides anything. Workers write their own counters and histograms ([`stats`]),
//! commands that were slow leave a record ([`slowlog`], [`latency`]), the program tells what happens
//! ([`log`]) and, if it must die, why ([`crash`]), or what
//! its threads are doing ([`traces`]); [`info`] holds the table of what INFO prints, the
//! values come from the floors above.

pub mod allocator;
pub mod crash;
pub mod histogram;
pub mod info;
pub mod latency;
pub mod log;
pub mod process;
pub mod slowlog;
pub mod stats;
mod system;
pub mod traces;
