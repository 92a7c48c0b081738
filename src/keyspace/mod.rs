//! The keyspace: databases, slots, shards, entries.
