//! What one connection is subscribed to.

use std::collections::HashSet;
use std::sync::Arc;

/// Names of one kind that a connection is subscribed to; each is shared with all who know it.
pub type Names = HashSet<Arc<[u8]>>;

/// What one connection is subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Channels.
    pub channels: Names,
    /// Patterns of channels.
    pub patterns: Names,
    /// Shard channels.
    pub shard_channels: Names,
}

impl Subscriptions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }

    /// The memory it takes, in bytes; names, which are shared, are not counted.
    pub fn memory(&self) -> usize {
        let names = [&self.channels, &self.patterns, &self.shard_channels];
        let places: usize = names.iter().map(|names| names.capacity()).sum();
        size_of::<Subscriptions>() + places * (size_of::<Arc<[u8]>>() + 1)
    }
}
