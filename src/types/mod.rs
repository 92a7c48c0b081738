//! Data structures: no key, no client, no lock, no clock.

pub mod table;
