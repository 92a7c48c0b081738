//! The keyspace: databases, slots, shards, entries.

pub mod deadlines;
