//! The table of all commands: found by name in a few nanoseconds, numbered for statistics.

use std::collections::HashMap;

use crate::acl::catalog::Catalog;
use crate::command::context::Handler;
use crate::command::{
    acl, aof, bitmap, cluster, config, connection, debug, dump, expire, function, geo, hash, hyperloglog, info,
    introspect, key, keyspace, latency, list, memory, migrate, module, monitor, pubsub, replication, save, script,
    server, set, slowlog, sort, stream, string, transaction, zset,
};
use crate::spec::{self, Flag, Group, Keys};

/// The declaration of a command with its handler.
pub type Command = spec::Command<Handler>;

/// Every family's commands.
#[rustfmt::skip]
const FAMILIES: &[&[Command]] = &[
    acl::COMMANDS,
    aof::COMMANDS,
    bitmap::COMMANDS,
    cluster::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    dump::COMMANDS,
    expire::COMMANDS,
    function::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    info::COMMANDS,
    introspect::COMMANDS,
    key::COMMANDS,
    keyspace::COMMANDS,
    latency::COMMANDS,
    list::COMMANDS,
    list::wait::COMMANDS,
    memory::COMMANDS,
    migrate::COMMANDS,
    module::COMMANDS,
    monitor::COMMANDS,
    pubsub::COMMANDS,
    replication::COMMANDS,
    save::COMMANDS,
    script::COMMANDS,
    server::COMMANDS,
    set::COMMANDS,
    slowlog::COMMANDS,
    sort::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
    zset::COMMANDS,
    zset::combine::COMMANDS,
    zset::pop::COMMANDS,
    zset::range::COMMANDS,
    zset::wait::COMMANDS,
    zset::walk::COMMANDS,
];

/// A command as the server looks at it.
#[derive(Debug)]
pub struct Entry {
    /// Its declaration.
    pub command: &'static Command,
    /// Its number in statistics.
    pub index: u16,
    /// Lower case, `config|get` for a subcommand; a renamed command keeps its own name here.
    pub full_name: String,
    /// Its subcommands.
    pub subcommands: Vec<Entry>,
    /// Where its only key is, if that is all there is to say.
    pub only_key: Option<u8>,
    /// How it is run.
    pub way: Way,
    /// Whether it takes the same short time whatever its keys hold, so that it may share its shards'
    /// hold with neighbours.
    pub brief: bool,
    /// What of the value of its only key can be loaded ahead.
    pub element: Option<Element>,
    /// Whether it may touch keys that are not among its arguments: see [`reach_further`].
    ///
    /// [`reach_further`]: crate::spec::keys::reach_further
    pub reaches_further: bool,
    flags: u32,
}

/// How a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Together with its neighbours in a batch, over the shards of their keys: it has keys, or is
    /// quick and needs none.
    Batched,
    /// By itself, holding nothing: it takes what locks it needs, or walks the keyspace shard by shard.
    Single,
    /// With all gates and all shards held.
    Alone,
    /// EXEC: over the shards of the queued commands' keys, or alone where that is not all they need.
    Transaction,
    /// EVAL and its kin: over the shards of its keys where it is known to touch no others, alone otherwise.
    Script,
}

impl Entry {
    fn new(command: &'static Command, container: Option<&str>, next: &mut u16) -> Entry {
        let name = command.name.to_ascii_lowercase();
        let full_name = container.map_or(name.clone(), |container| format!("{container}|{name}"));
        let index = *next;
        *next += 1;
        let subcommands = command.subcommands.iter().map(|sub| Entry::new(sub, Some(&full_name), next)).collect();
        let flags = command.flags.iter().fold(0, |bits, flag| bits | 1 << *flag as u32);
        let only_key = match command.keys {
            [Keys::At { first, .. }] => Some(*first),
            _ => None,
        };
        let has = |flag: Flag| command.flags.contains(&flag);
        let has_keys = command.keys.iter().any(|keys| !matches!(keys, Keys::NotKey { .. }));
        let way = if has(Flag::Alone) {
            Way::Alone
        } else if command.group == Group::Scripting && has_keys {
            Way::Script
        } else if command.group == Group::Cluster {
            // How the next request is judged depends on them.
            Way::Single
        } else if command.group == Group::Transactions && !has_keys {
            // What stands behind them is to be looked at in another light.
            if command.name == "EXEC" { Way::Transaction } else { Way::Single }
        } else if has_keys || has(Flag::Fast) && !has(Flag::NoAuth) && !has(Flag::Admin) && !has(Flag::ReadOnly) {
            // What reads keys but names none (DBSIZE) looks at every shard.
            Way::Batched
        } else {
            Way::Single
        };
        let brief = !has(Flag::Blocking) && (has(Flag::Fast) || command.complexity.starts_with("O(1)"));
        let reaches_further = command.keys.iter().any(|keys| matches!(keys, Keys::Unknown { .. }));
        let element = only_key.and_then(|_| element_of(command));
        Entry { command, index, full_name, subcommands, only_key, way, brief, element, reaches_further, flags }
    }

    /// Whether it ends the server, which it may do while a script keeps that busy.
    pub fn is_shutdown(&self) -> bool {
        self.command.name == "SHUTDOWN"
    }

    /// Whether it may forget keys that are watched.
    pub fn touches_watched(&self) -> bool {
        self.command.group == Group::Transactions || self.command.name == "RESET"
    }

    /// Whether it runs at once although MULTI has others queued.
    #[inline]
    pub fn is_never_queued(&self) -> bool {
        match self.command.group {
            Group::Transactions => self.command.name != "UNWATCH",
            Group::Connection => ["QUIT", "RESET"].contains(&self.command.name),
            _ => false,
        }
    }

    /// Whether the command has `flag`.
    #[inline]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u32 != 0
    }

    /// The subcommand with this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&Entry> {
        self.subcommands.iter().find(|sub| sub.command.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Itself and its subcommands.
    pub fn visit<'e>(&'e self, f: &mut impl FnMut(&'e Entry)) {
        f(self);
        self.subcommands.iter().for_each(|sub| sub.visit(f));
    }
}

/// The commands of one server, with its renamings.
#[derive(Debug)]
pub struct CommandTable {
    entries: Vec<Entry>,
    /// Open addressing over the first eight bytes of the name, folded: a power of two of places.
    places: Box<[Place]>,
    count: u16,
    /// Other names, or `None` for a command that is gone.
    renamed: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    head: u64,
    /// The place in `entries` plus one; 0 where there is none.
    entry: u16,
    len: u8,
    /// Whether `head` and `len` decide: eight letters or fewer, and folding mixes letters with nothing else.
    exact: bool,
}

const PLACES: usize = 2048;

/// An element of a value, named by an argument.
#[derive(Debug, Clone, Copy)]
pub struct Element {
    /// How far behind the key the argument mostly stands. Where it stands further back because of an option, something is
    /// loaded in vain.
    pub behind: u8,
    /// Whether its place in the order of a sorted set is looked for as well.
    pub ordered: bool,
}

/// See [`Entry::element`].
fn element_of(command: &Command) -> Option<Element> {
    let element = |behind, ordered| Some(Element { behind, ordered });
    match command.group {
        Group::Hash if command.usage.contains("field") => element(1, false),
        Group::Set if command.usage.contains("member") => element(1, false),
        Group::SortedSet if matches!(command.name, "ZADD" | "ZINCRBY") => element(2, true),
        Group::SortedSet if matches!(command.name, "ZREM" | "ZRANK" | "ZREVRANK") => element(1, true),
        Group::SortedSet if command.usage.contains("member") => element(1, false),
        _ => None,
    }
}

/// The first eight bytes of a name without regard to case: equal names have equal heads.
#[inline]
fn head(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = name.len().min(8);
    bytes[..n].copy_from_slice(&name[..n]);
    u64::from_le_bytes(bytes) | 0x2020_2020_2020_2020
}

#[inline]
fn place(head: u64, len: usize) -> usize {
    let mixed = (head ^ (len as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 53) as usize % PLACES
}

impl CommandTable {
    /// All commands. `renamed` are the pairs of `rename-command`: old name, new name or nothing.
    ///
    /// # Errors
    /// Redis' text where an old name does not exist or a new one does already.
    pub fn new(renamed: &[(Vec<u8>, Vec<u8>)]) -> Result<CommandTable, String> {
        let mut count = 0;
        let entries: Vec<Entry> =
            FAMILIES.iter().flat_map(|family| family.iter()).map(|c| Entry::new(c, None, &mut count)).collect();
        let mut names: HashMap<Vec<u8>, usize> =
            entries.iter().enumerate().map(|(i, e)| (e.full_name.clone().into_bytes(), i)).collect();
        let mut kept = Vec::new();
        for (old, new) in renamed {
            let at = names.remove(&old.to_ascii_lowercase()).ok_or("No such command in rename-command")?;
            if !new.is_empty() && names.insert(new.to_ascii_lowercase(), at).is_some() {
                return Err("Target command name already exists".into());
            }
            kept.push((String::from_utf8_lossy(old).into_owned(), String::from_utf8_lossy(new).into_owned()));
        }
        let mut table = CommandTable { entries, places: vec![Place::default(); PLACES].into(), count, renamed: kept };
        for (name, at) in names {
            let mut i = place(head(&name), name.len());
            while table.places[i].entry != 0 {
                i = (i + 1) % PLACES;
            }
            let entry = u16::try_from(at + 1).expect("fewer than 65535 commands");
            let exact = name.len() <= 8 && name.iter().all(u8::is_ascii_lowercase);
            let len = u8::try_from(name.len()).map_err(|_| "A command's name is too long")?;
            table.places[i] = Place { head: head(&name), entry, len, exact };
        }
        Ok(table)
    }

    /// The command with this name, in any case; a container for a subcommand.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        let head = head(name);
        let mut i = place(head, name.len());
        loop {
            let place = self.places[i];
            if place.entry == 0 {
                return None;
            }
            if place.head == head && usize::from(place.len) == name.len() {
                let entry = &self.entries[usize::from(place.entry) - 1];
                if place.exact || self.is_called(entry, name) {
                    return Some(entry);
                }
            }
            i = (i + 1) % PLACES;
        }
    }

    /// Whether `name` is what `entry` is called by.
    #[inline]
    fn is_called(&self, entry: &Entry, name: &[u8]) -> bool {
        if self.renamed.is_empty() {
            return entry.full_name.as_bytes().eq_ignore_ascii_case(name);
        }
        match self.renamed.iter().find(|(old, _)| old.eq_ignore_ascii_case(&entry.full_name)) {
            Some((_, new)) => new.as_bytes().eq_ignore_ascii_case(name),
            None => entry.full_name.as_bytes().eq_ignore_ascii_case(name),
        }
    }

    /// The command, or its subcommand where `sub` names one; `Err` with the container where it does not.
    ///
    /// # Errors
    /// `Some(container)` where the subcommand is unknown, `None` where the command is.
    #[inline]
    pub fn resolve(&self, name: &[u8], sub: Option<&[u8]>) -> Result<&Entry, Option<&Entry>> {
        let entry = self.find(name).ok_or(None)?;
        match sub {
            Some(sub) if !entry.subcommands.is_empty() => entry.subcommand(sub).ok_or(Some(entry)),
            _ => Ok(entry),
        }
    }

    /// All commands, containers without their subcommands.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        // A command that was renamed to nothing is not to be found, and so it is not listed.
        self.entries.iter().filter(|entry| {
            self.renamed.iter().all(|(old, new)| !new.is_empty() || !old.eq_ignore_ascii_case(&entry.full_name))
        })
    }

    /// The commands as access control sees them, with their original names and numbers.
    pub fn catalog(&self) -> Catalog {
        let mut commands = vec![("", Vec::new()); self.count()];
        for entry in &self.entries {
            entry
                .visit(&mut |e| commands[usize::from(e.index)] = (&*e.full_name, e.command.all_categories().collect()));
        }
        Catalog::new(commands)
    }

    /// How many numbers commands and subcommands take in statistics.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The full names by number.
    pub fn names(&self) -> Vec<&str> {
        let mut names = vec![""; self.count()];
        for entry in &self.entries {
            entry.visit(&mut |e| names[usize::from(e.index)] = &e.full_name);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::spec::Arity;
    use crate::spec::usage::{Argument, Kind, parse};

    #[test]
    fn every_command_is_found_in_any_case_and_nothing_else_is() {
        let table = CommandTable::new(&[]).unwrap();
        for entry in table.entries() {
            let found = table.find(entry.full_name.as_bytes()).unwrap();
            assert_eq!(found.index, entry.index);
            assert_eq!(table.find(entry.command.name.as_bytes()).unwrap().index, entry.index);
        }
        // Folded, these letters' neighbours in ASCII are other signs.
        assert!(["g\x05t", "GE\x14", "p)ng", "\x07et"].iter().all(|name| table.find(name.as_bytes()).is_none()));
        assert!(["", "ge", "gett", "get ", "nosuchcommand"].iter().all(|name| table.find(name.as_bytes()).is_none()));
    }

    #[test]
    fn a_renamed_command_is_found_by_its_new_name_only() {
        let pair = |a: &str, b: &str| (a.as_bytes().to_vec(), b.as_bytes().to_vec());
        let table = CommandTable::new(&[pair("GET", "fetch"), pair("append", "")]).unwrap();
        assert!(table.find(b"get").is_none() && table.find(b"append").is_none());
        assert_eq!(table.find(b"FETCH").unwrap().full_name, "get");
        assert!(CommandTable::new(&[pair("nosuch", "x")]).is_err());
        assert!(CommandTable::new(&[pair("get", "set")]).is_err());
    }

    /// Every command and subcommand, with how many words its name takes.
    fn for_every(mut f: impl FnMut(&Entry, usize)) {
        let table = CommandTable::new(&[]).unwrap();
        table.entries().for_each(|entry| entry.visit(&mut |e| f(e, 1 + usize::from(e.full_name.contains('|')))));
    }

    #[test]
    fn every_command_says_what_it_is() {
        for_every(|entry, _| {
            let command = entry.command;
            assert_eq!(command.name, command.name.to_ascii_uppercase());
            assert!(!command.summary.is_empty(), "{}", entry.full_name);
            let versions = [command.since].into_iter().chain(command.history.iter().map(|(since, _)| *since));
            for version in versions.chain(command.deprecated.map(|(since, _)| since)) {
                let parts: Vec<_> = version.split('.').map(str::parse::<u8>).collect();
                assert!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{} {version}", entry.full_name);
            }
            let both = entry.has(Flag::Write) && entry.has(Flag::ReadOnly);
            assert!(!both, "{} cannot write and only read", entry.full_name);
        });
    }

    #[test]
    fn the_arity_of_every_command_fits_its_usage() {
        let mut wrong = Vec::new();
        for_every(|entry, name_words| {
            let command = entry.command;
            // What a container takes itself is its subcommands' affair.
            if !command.subcommands.is_empty() {
                return;
            }
            let usage = parse(command.usage).unwrap_or_else(|why| panic!("{}: {why:?}", entry.full_name));
            let least = name_words + usage.iter().map(Argument::least).sum::<usize>();
            let expected = if usage.iter().all(Argument::is_fixed) {
                Arity::Exactly(least as u8)
            } else {
                Arity::AtLeast(least as u8)
            };
            // QUIT takes what it is given, DEBUG has help of its own, what servers tell each other nobody types, and slots
            // that are left out have an error of their own.
            let tells_nothing =
                ["quit", "debug", "psync", "replconf", "cluster|migrateslots"].contains(&&*entry.full_name);
            if command.arity != expected && !tells_nothing {
                wrong.push(format!("{} {}: {:?}", entry.full_name, command.usage, command.arity));
            }
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Where the first argument stands that key specification `spec` finds, optional ones before it left out.
    fn position(arguments: &[Argument<'_>], spec: usize, mut at: usize) -> Option<usize> {
        for argument in arguments {
            let inside = at + usize::from(argument.token.is_some());
            if argument.key_spec.map(usize::from) == Some(spec) {
                return Some(inside);
            }
            let found = match argument.kind {
                Kind::OneOf => argument.arguments.iter().find_map(|one| position(slice::from_ref(one), spec, inside)),
                _ => position(&argument.arguments, spec, inside),
            };
            if found.is_some() {
                return found;
            }
            at += argument.least();
        }
        None
    }

    #[test]
    fn the_keys_of_every_command_fit_its_usage() {
        for_every(|entry, name_words| {
            let command = entry.command;
            let usage = parse(command.usage).unwrap();
            for (i, spec) in command.keys.iter().enumerate() {
                let found = position(&usage, i, name_words);
                let expected = match *spec {
                    Keys::At { first, .. }
                    | Keys::AtOrAfter { first, .. }
                    | Keys::Range { first, .. }
                    | Keys::Counted { first, .. } => Some(first),
                    Keys::NotKey { .. } | Keys::After { .. } | Keys::Option { .. } | Keys::Unknown { .. } => continue,
                };
                assert_eq!(found, expected.map(usize::from), "{} {}", entry.full_name, command.usage);
            }
            usage.iter().for_each(|argument| {
                argument.visit(&mut |part| {
                    let spec = part.key_spec.map(|spec| command.keys.get(usize::from(spec)));
                    assert!(
                        !matches!(spec, Some(None | Some(Keys::NotKey { .. }))),
                        "{} {}",
                        entry.full_name,
                        part.name
                    );
                });
            });
        });
    }
}
