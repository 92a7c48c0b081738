//! The commands as access control sees them: names, numbers, categories.
//!
//! Numbers are those of the command table, so that a set of commands is a set of bits. Names are the
//! original ones: a renamed command keeps its rules.

use std::collections::HashMap;

use crate::spec::Category;

/// One command or subcommand.
#[derive(Debug)]
struct Known {
    /// Lower case, `config|get` for a subcommand.
    name: String,
    /// A bit per category.
    categories: u32,
    subcommands: Vec<u16>,
    is_subcommand: bool,
}

/// All commands, by name and by number.
#[derive(Debug, Default)]
pub struct Catalog {
    commands: Vec<Known>,
    by_name: HashMap<String, u16>,
}

impl Catalog {
    /// The commands in the order of their numbers: the name (`config|get` for a subcommand, which comes
    /// after its container) and the categories of each.
    pub fn new<'n>(commands: impl IntoIterator<Item = (&'n str, Vec<Category>)>) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, categories) in commands {
            let number = u16::try_from(catalog.commands.len()).expect("fewer than 65536 commands");
            let container = name.split_once('|').and_then(|(container, _)| catalog.find(container.as_bytes()));
            if let Some(container) = container {
                catalog.commands[usize::from(container)].subcommands.push(number);
            }
            catalog.commands.push(Known {
                name: name.to_owned(),
                categories: categories.iter().fold(0, |bits, category| bits | bit(*category)),
                subcommands: Vec::new(),
                is_subcommand: container.is_some(),
            });
            catalog.by_name.insert(name.to_owned(), number);
        }
        catalog
    }

    /// The number of a command's full name, in any case.
    pub fn find(&self, name: &[u8]) -> Option<u16> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        self.by_name.get(&name).copied()
    }

    /// The full name of a number.
    pub fn name(&self, number: u16) -> &str {
        &self.commands[usize::from(number)].name
    }

    /// How many there are, subcommands included.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The subcommands of a container; none for any other command.
    pub fn subcommands(&self, number: u16) -> &[u16] {
        &self.commands[usize::from(number)].subcommands
    }

    /// Whether it is the subcommand of a container.
    pub fn is_subcommand(&self, number: u16) -> bool {
        self.commands[usize::from(number)].is_subcommand
    }

    /// The commands and subcommands of a category, in the order of their numbers.
    pub fn of(&self, category: Category) -> impl Iterator<Item = u16> {
        let numbers = (0u16..).zip(&self.commands);
        numbers.filter(move |(_, known)| known.categories & bit(category) != 0).map(|(number, _)| number)
    }
}

fn bit(category: Category) -> u32 {
    1 << category as u32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A few commands to test rules with.
    pub fn few() -> Catalog {
        use Category::{Admin, Dangerous, Fast, Keyspace, PubSub, Read, Slow, String, Write};
        Catalog::new([
            ("get", vec![Read, String, Fast]),
            ("set", vec![Write, String, Slow]),
            ("config", vec![Slow]),
            ("config|get", vec![Admin, Slow, Dangerous]),
            ("config|set", vec![Admin, Slow, Dangerous]),
            ("config|help", vec![Slow]),
            ("select", vec![Fast]),
            ("keys", vec![Keyspace, Read, Slow, Dangerous]),
            ("publish", vec![PubSub, Fast]),
            ("mget", vec![Read, String, Fast]),
        ])
    }

    #[test]
    fn commands_are_found_by_name_and_by_category() {
        let catalog = few();
        let get = catalog.find(b"CONFIG|get").unwrap();
        assert_eq!((get, catalog.name(get)), (3, "config|get"));
        assert!(catalog.is_subcommand(get) && !catalog.is_subcommand(2));
        assert_eq!(catalog.subcommands(2), [3, 4, 5]);
        assert_eq!(catalog.find(b"config|nosuch"), None);
        assert_eq!(catalog.find(b"\xff"), None);
        assert_eq!(catalog.of(Category::Admin).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(catalog.of(Category::Geo).count(), 0);
        assert_eq!(catalog.len(), 10);
    }
}
