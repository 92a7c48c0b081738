//! Black-box tests over real sockets, one crate.
//!
//! `interop` puts the same commands to Spinel and to a real Redis and compares the replies byte by
//! byte; `protocol` does so for raw bytes; `limits` is for clients that ask too much, `memory` for what is
//! given back, `eviction` for what makes room, `histories` for what clients saw, `parallel` for many at once,
//! `scanning` for scans of what changes, `busy` for scripts that do not end, `debugger` for those that are debugged; `process` starts, signals and crashes it;
//! `formats` has its files read by others and theirs by it, `fault` kills it in the midst of writes, `migration` moves keys, `replication` has servers follow each other; `open_slots` and `slot_migration` move
//! slots between nodes; `tls` speaks to it in secret; `tools` drives the
//! programs and libraries that users have;
//! `house` holds the sources to their plan. The subject is the binary that cargo built, or the program
//! named by `SPINEL_SUBJECT`; the oracle is the `redis-server` on the `PATH`. Without an oracle the
//! tests that need one say so and pass, unless `SPINEL_REQUIRE_ORACLE=1`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod blocking;
mod busy;
mod cluster;
mod debugger;
mod embedding;
mod eviction;
mod fault;
mod formats;
mod histories;
mod house;
mod interop;
mod limits;
mod memory;
mod migration;
mod open_slots;
mod parallel;
mod process;
mod protocol;
mod replication;
mod scanning;
mod slot_migration;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod tools;
