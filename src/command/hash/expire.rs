//! Deadlines of single fields.

use crate::keyspace::change::Effect;

/// What tells the log that fields have this deadline.
pub fn deadline_effect(key: &[u8], deadline: u64, names: &[&[u8]]) -> Effect {
    let head = [b"HPEXPIREAT".to_vec(), key.to_vec(), deadline.to_string().into_bytes()];
    let fields = [b"FIELDS".to_vec(), names.len().to_string().into_bytes()];
    head.into_iter().chain(fields).chain(names.iter().map(|name| name.to_vec())).collect()
}
