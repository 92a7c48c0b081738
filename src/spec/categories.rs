//! The ACL categories of commands, and the names of flags on the wire.
//!
//! Most categories follow from what a command is: its flags say whether it writes, is fast or dangerous,
//! its group which type it works on. Only what does not follow is declared.

use crate::spec::{Category, Command, Flag, Group};

impl Category {
    /// All of them, in the order of ACL CAT.
    pub const ALL: [Category; 21] = [
        Category::Keyspace,
        Category::Read,
        Category::Write,
        Category::Set,
        Category::SortedSet,
        Category::List,
        Category::Hash,
        Category::String,
        Category::Bitmap,
        Category::HyperLogLog,
        Category::Geo,
        Category::Stream,
        Category::PubSub,
        Category::Admin,
        Category::Fast,
        Category::Slow,
        Category::Blocking,
        Category::Dangerous,
        Category::Connection,
        Category::Transaction,
        Category::Scripting,
    ];

    /// The name, without `@`.
    pub fn wire(self) -> &'static str {
        match self {
            Category::Keyspace => "keyspace",
            Category::Read => "read",
            Category::Write => "write",
            Category::Set => "set",
            Category::SortedSet => "sortedset",
            Category::List => "list",
            Category::Hash => "hash",
            Category::String => "string",
            Category::Bitmap => "bitmap",
            Category::HyperLogLog => "hyperloglog",
            Category::Geo => "geo",
            Category::Stream => "stream",
            Category::PubSub => "pubsub",
            Category::Admin => "admin",
            Category::Fast => "fast",
            Category::Slow => "slow",
            Category::Blocking => "blocking",
            Category::Dangerous => "dangerous",
            Category::Connection => "connection",
            Category::Transaction => "transaction",
            Category::Scripting => "scripting",
        }
    }

    /// The category of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Category> {
        Category::ALL.into_iter().find(|category| category.wire().as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Group {
    /// The name that COMMAND DOCS prints.
    pub fn wire(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
            Group::HyperLogLog => "hyperloglog",
            Group::Cluster => "cluster",
            Group::Sentinel => "sentinel",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
        }
    }

    /// The category that all its commands have.
    fn category(self) -> Option<Category> {
        Some(match self {
            Group::String => Category::String,
            Group::List => Category::List,
            Group::Set => Category::Set,
            Group::SortedSet => Category::SortedSet,
            Group::Hash => Category::Hash,
            Group::Transactions => Category::Transaction,
            Group::Connection => Category::Connection,
            Group::Scripting => Category::Scripting,
            Group::HyperLogLog => Category::HyperLogLog,
            Group::Geo => Category::Geo,
            Group::Stream => Category::Stream,
            Group::Bitmap => Category::Bitmap,
            // What publishes and subscribes has a flag that says so; PUBSUB HELP does neither.
            Group::Generic | Group::Server | Group::Cluster | Group::Sentinel | Group::PubSub => return None,
        })
    }
}

impl Flag {
    /// Those that COMMAND INFO prints, in its order.
    pub const PRINTED: [Flag; 19] = [
        Flag::Write,
        Flag::ReadOnly,
        Flag::DenyOom,
        Flag::Admin,
        Flag::PubSub,
        Flag::NoScript,
        Flag::Blocking,
        Flag::Loading,
        Flag::Stale,
        Flag::SkipMonitor,
        Flag::SkipSlowlog,
        Flag::Asking,
        Flag::Fast,
        Flag::NoAuth,
        Flag::NoMandatoryKeys,
        Flag::NoAsyncLoading,
        Flag::NoMulti,
        Flag::MovableKeys,
        Flag::AllowBusy,
    ];

    /// The name that COMMAND INFO prints; `None` for what only this server knows about a command.
    pub fn wire(self) -> Option<&'static str> {
        Some(match self {
            Flag::Write => "write",
            Flag::ReadOnly => "readonly",
            Flag::DenyOom => "denyoom",
            Flag::Admin => "admin",
            Flag::PubSub => "pubsub",
            Flag::NoScript => "noscript",
            Flag::Blocking => "blocking",
            Flag::Loading => "loading",
            Flag::Stale => "stale",
            Flag::SkipMonitor => "skip_monitor",
            Flag::SkipSlowlog => "skip_slowlog",
            Flag::Asking => "asking",
            Flag::Fast => "fast",
            Flag::NoAuth => "no_auth",
            Flag::NoMandatoryKeys => "no_mandatory_keys",
            Flag::NoMulti => "no_multi",
            Flag::MovableKeys => "movablekeys",
            Flag::AllowBusy => "allow_busy",
            Flag::NoAsyncLoading => "no_async_loading",
            Flag::Alone | Flag::MayReplicate | Flag::OnlySentinel | Flag::Protected | Flag::NoTouch | Flag::System => {
                return None;
            }
        })
    }
}

impl<R> Command<R> {
    /// Whether it has `flag`.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// All of its ACL categories, in the order of [`Category::ALL`].
    ///
    /// A container has none by its group: it does nothing itself.
    pub fn all_categories(&self) -> impl Iterator<Item = Category> {
        let mut bits = 0u32;
        let mut add = |category: Category| bits |= 1 << category as u32;
        self.categories.iter().copied().for_each(&mut add);
        if self.subcommands.is_empty() {
            self.group.category().into_iter().for_each(&mut add);
        }
        let scripting = self.categories.contains(&Category::Scripting) || self.group == Group::Scripting;
        let implied = [
            (self.has(Flag::Write), Category::Write),
            (self.has(Flag::ReadOnly) && !scripting, Category::Read),
            (self.has(Flag::Admin), Category::Admin),
            (self.has(Flag::Admin), Category::Dangerous),
            (self.has(Flag::PubSub), Category::PubSub),
            (self.has(Flag::Blocking), Category::Blocking),
            (self.has(Flag::Fast), Category::Fast),
            (!self.has(Flag::Fast), Category::Slow),
        ];
        implied.iter().filter(|(is, _)| *is).for_each(|(_, category)| add(*category));
        Category::ALL.into_iter().filter(move |category| bits & 1 << *category as u32 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_found_by_name_and_stand_in_order() {
        for (i, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category as usize, i);
            assert_eq!(Category::named(category.wire().to_ascii_uppercase().as_bytes()), Some(category));
        }
        assert_eq!(Category::named(b"nosuch"), None);
    }

    #[test]
    fn every_flag_that_is_printed_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Flag::PRINTED.iter().map(|flag| flag.wire().unwrap()).collect();
        assert_eq!(names.len(), Flag::PRINTED.len());
    }
}
