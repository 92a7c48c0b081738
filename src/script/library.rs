//! Libraries of functions: what a server has of them, and that no two functions share a name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::script::cache::Learned;
use crate::script::source::Flags;

/// A function of a library.
#[derive(Debug)]
pub struct Function {
    /// Its name, which no other function of the server has.
    pub name: Vec<u8>,
    /// What it says about itself.
    pub description: Option<Vec<u8>>,
    /// What it may do.
    pub flags: Flags,
    /// Which keys it touches.
    pub learned: Learned,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: Vec<u8>,
    /// Its text, first line included.
    pub code: Vec<u8>,
    /// Where its code begins: at the end of the first line.
    pub begin: usize,
    /// Its functions, in the order in which they were registered.
    pub functions: Vec<Function>,
}

impl Library {
    /// The memory that its texts take, in bytes.
    pub fn memory(&self) -> usize {
        let function = |f: &Function| size_of::<Function>() + f.name.len() + f.description.as_ref().map_or(0, Vec::len);
        size_of::<Library>() + self.name.len() + self.code.len() + self.functions.iter().map(function).sum::<usize>()
    }
}

/// All libraries of a server. Cloning costs a pointer for each.
#[derive(Debug, Clone, Default)]
pub struct Libraries {
    by_name: BTreeMap<Vec<u8>, Arc<Library>>,
    functions: HashMap<Vec<u8>, (Arc<Library>, usize)>,
    /// Changes with each change.
    version: u64,
}

impl Libraries {
    /// All libraries, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// How many libraries there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Which state this is: a set that was changed has another number than before.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many functions there are.
    pub fn functions(&self) -> usize {
        self.iter().map(|library| library.functions.len()).sum()
    }

    /// The library of a name.
    pub fn by_name(&self, name: &[u8]) -> Option<&Arc<Library>> {
        self.by_name.get(name)
    }

    /// A function and its library. Its name is the same in capitals and in small letters.
    pub fn function(&self, name: &[u8]) -> Option<(&Arc<Library>, &Function)> {
        let (library, index) = self.functions.get(&name.to_ascii_lowercase())?;
        Some((library, &library.functions[*index]))
    }

    /// Adds a library in place of one of its name.
    ///
    /// # Errors
    /// The name of a function that another library has; nothing has changed then.
    pub fn insert(&mut self, library: Arc<Library>) -> Result<(), Vec<u8>> {
        for function in &library.functions {
            if let Some((other, _)) = self.functions.get(&function.name.to_ascii_lowercase())
                && other.name != library.name
            {
                return Err(function.name.clone());
            }
        }
        self.remove(&library.name);
        self.version += 1;
        for (index, function) in library.functions.iter().enumerate() {
            self.functions.insert(function.name.to_ascii_lowercase(), (library.clone(), index));
        }
        self.by_name.insert(library.name.clone(), library);
        Ok(())
    }

    /// Removes all libraries.
    pub fn clear(&mut self) {
        *self = Libraries { version: self.version + 1, ..Libraries::default() };
    }

    /// Removes a library; whether there was one of this name.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.by_name.remove(name) else { return false };
        self.version += 1;
        library.functions.iter().for_each(|function| drop(self.functions.remove(&function.name.to_ascii_lowercase())));
        true
    }

    /// The memory that all texts take, in bytes.
    pub fn memory(&self) -> usize {
        self.iter().map(|library| library.memory()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, functions: &[&str]) -> Arc<Library> {
        let function = |name: &&str| Function {
            name: name.as_bytes().to_vec(),
            description: None,
            flags: Flags::default(),
            learned: Learned::default(),
        };
        Arc::new(Library {
            name: name.as_bytes().to_vec(),
            code: b"#!lua".to_vec(),
            begin: 5,
            functions: functions.iter().map(function).collect(),
        })
    }

    #[test]
    fn a_function_belongs_to_one_library() {
        let mut all = Libraries::default();
        all.insert(library("a", &["f", "g"])).unwrap();
        assert_eq!(all.insert(library("b", &["h", "g"])), Err(b"g".to_vec()));
        assert_eq!(all.insert(library("b", &["G"])), Err(b"G".to_vec()), "capitals make no difference");
        assert!(all.by_name(b"b").is_none() && all.function(b"h").is_none() && all.function(b"F").is_some());
        all.insert(library("a", &["h"])).unwrap();
        assert!(all.function(b"f").is_none() && all.function(b"h").is_some());
        assert_eq!((all.len(), all.functions()), (1, 1));
        assert!(all.remove(b"a") && !all.remove(b"a") && all.functions() == 0);
    }
}
