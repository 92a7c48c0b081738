//! Data structures: a value, its encodings, its size; no key, no client, no lock, no clock.

pub mod ahead;
pub mod bitmap;
pub mod dense;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod intset;
pub mod list;
pub mod listpack;
pub mod member;
pub mod object;
pub mod set;
pub mod stream;
pub mod table;
pub mod zset;

pub use object::{Kind, Object, ObjectRef};
