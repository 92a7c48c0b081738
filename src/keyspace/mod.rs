//! The keyspace: databases, slots, shards, entries; what changed is noted, commands are unknown here.
//!
//! [`Keyspace`](space::Keyspace) owns the shards. A command holds those of its keys
//! ([`Hold`](hold::Hold)) and works on them through [`Db`](db::Db), which hides expired keys, keeps
//! the access clocks and notes every change.

pub mod alarm;
pub mod change;
pub mod db;
pub mod deadlines;
pub mod entry;
pub mod evict;
pub mod gate;
pub mod hash;
pub mod hidden;
pub mod hold;
pub mod listen;
pub mod moment;
pub mod reclaim;
pub mod shard;
pub mod slots;
pub mod snapshot;
pub mod space;
mod volatile;
