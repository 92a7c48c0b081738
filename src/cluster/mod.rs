//! Redis Cluster: which node serves which slot, and how nodes agree on it.
//!
//! [`machine::Machine`] is one node's knowledge and its rules: messages, orders and the time go in, actions come out.
//! It opens no sockets and reads no clock, so that a whole cluster runs inside one test, from one seed
//! (`simulation`). [`message`] is what goes over the bus, byte for byte; [`file`](mod@file) is `nodes.conf`; [`view`] is what
//! commands look at, without a lock, to find out whether a key is theirs. [`migration`] is one
//! move of whole slots, [`migrations`] all of a node's.

pub mod file;
pub mod machine;
pub mod message;
pub mod migration;
pub mod migrations;
pub mod node;
pub mod shared;
#[cfg(test)]
mod simulation;
pub mod slots;
pub mod stats;
pub mod view;
