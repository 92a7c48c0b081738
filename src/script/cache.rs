//! The scripts of EVAL that a server knows, by the SHA-1 of their text.
//!
//! A script that SCRIPT LOAD brought stays until SCRIPT FLUSH: clients rely on its SHA. Of those that came with EVAL only
//! the last [`EVALUATED_MAX`] that were used are kept, so that clients that write values into their scripts do not fill
//! the memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::RwLock;

use crate::script::source::ScriptHead;
use crate::script::vm::Sha;

/// How many scripts that came with EVAL are kept.
pub const EVALUATED_MAX: usize = 500;

/// What is known of the keys that a script touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reach {
    /// It has not run yet.
    Unknown,
    /// So far it touched the keys that were declared, and no others.
    Declared,
    /// It touched others.
    Any,
}

/// What was learned of a script's or a function's reach while it ran.
#[derive(Debug, Default)]
pub struct Learned(AtomicU8);

impl Learned {
    /// What is known.
    pub fn reach(&self) -> Reach {
        match self.0.load(Ordering::Relaxed) {
            0 => Reach::Unknown,
            1 => Reach::Declared,
            _ => Reach::Any,
        }
    }

    /// Notes what a run has touched. Once it was other keys than the declared ones, it stays so.
    pub fn note(&self, reach: Reach) {
        self.0.fetch_max(reach as u8, Ordering::Relaxed);
    }
}

/// A script.
#[derive(Debug)]
pub struct Script {
    /// The lowercase hexadecimal SHA-1 of its text.
    pub sha: Sha,
    /// Its text, first line included.
    pub text: Box<[u8]>,
    /// What its first line says.
    pub head: ScriptHead,
    /// Which keys it touches.
    pub learned: Learned,
    loaded: AtomicBool,
    used: AtomicU64,
}

impl Script {
    /// A script that was read.
    pub fn new(sha: Sha, text: &[u8], head: ScriptHead) -> Script {
        Script {
            sha,
            text: text.into(),
            head,
            learned: Learned::default(),
            loaded: AtomicBool::new(false),
            used: AtomicU64::new(0),
        }
    }

    fn memory(&self) -> usize {
        size_of::<Script>() + size_of::<(Sha, Arc<Script>)>() + self.text.len()
    }
}

/// All scripts of a server.
#[derive(Debug, Default)]
pub struct Cache {
    known: RwLock<HashMap<Sha, Arc<Script>, RandomState>>,
    /// Changes whenever all scripts are forgotten.
    life: AtomicU64,
    uses: AtomicU64,
    memory: AtomicUsize,
}

impl Cache {
    /// The script of this SHA, which counts as used.
    pub fn use_script(&self, sha: &Sha) -> Option<Arc<Script>> {
        let script = self.known.read().get(sha)?.clone();
        script.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(script)
    }

    /// The script of this SHA, only to be looked at.
    pub fn find(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.known.read().get(sha).cloned()
    }

    /// Adds a script, or finds that it is there; returns it, and how many others had to go for it. `loaded` ones stay.
    pub fn insert(&self, script: Script, loaded: bool) -> (Arc<Script>, usize) {
        let mut known = self.known.write();
        let script = known.entry(script.sha).or_insert_with(|| {
            self.memory.fetch_add(script.memory(), Ordering::Relaxed);
            Arc::new(script)
        });
        let script = script.clone();
        script.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        script.loaded.fetch_or(loaded, Ordering::Relaxed);
        let mut evicted = 0;
        loop {
            let evaluated = known.values().filter(|script| !script.loaded.load(Ordering::Relaxed));
            if known.len() <= EVALUATED_MAX || evaluated.clone().count() <= EVALUATED_MAX {
                return (script, evicted);
            }
            let oldest = evaluated.min_by_key(|script| script.used.load(Ordering::Relaxed)).map(|script| script.sha);
            if let Some(gone) = oldest.and_then(|sha| known.remove(&sha)) {
                self.memory.fetch_sub(gone.memory(), Ordering::Relaxed);
                evicted += 1;
            }
        }
    }

    /// Forgets all scripts; returns how many there were, and them, to be dropped where there is time for it.
    pub fn flush(&self) -> (usize, impl Send + use<>) {
        self.life.fetch_add(1, Ordering::AcqRel);
        let mut known = self.known.write();
        self.memory.store(0, Ordering::Relaxed);
        let scripts = std::mem::take(&mut *known);
        (scripts.len(), scripts)
    }

    /// Which life this is: another number after each [`Cache::flush`].
    pub fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that their texts take, in bytes.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::vm::sha;

    fn add(cache: &Cache, text: &str, loaded: bool) -> usize {
        let head = ScriptHead { flags: None, begin: 0 };
        cache.insert(Script::new(sha(text.as_bytes()), text.as_bytes(), head), loaded).1
    }

    #[test]
    fn of_evaluated_scripts_the_least_recently_used_go_and_loaded_ones_never() {
        let cache = Cache::default();
        add(&cache, "loaded", true);
        for n in 0..EVALUATED_MAX {
            assert_eq!(add(&cache, &format!("return {n}"), false), 0);
        }
        assert_eq!(cache.len(), EVALUATED_MAX + 1);
        assert!(cache.use_script(&sha(b"return 0")).is_some());
        assert_eq!(add(&cache, "one more", false), 1);
        assert!(cache.find(&sha(b"return 0")).is_some(), "it was used");
        assert!(cache.find(&sha(b"return 1")).is_none(), "it was not");
        assert!(cache.find(&sha(b"loaded")).is_some());
        add(&cache, "return 2", true);
        assert_eq!(add(&cache, "and another", false), 0, "one of them counts no longer");
        let memory = cache.memory();
        assert!(memory > EVALUATED_MAX * size_of::<Script>());
        let life = cache.life();
        cache.flush();
        assert_eq!((cache.len(), cache.memory()), (0, 0));
        assert_ne!(cache.life(), life);
    }

    #[test]
    fn a_script_that_once_went_astray_is_remembered_so() {
        let learned = Learned::default();
        assert_eq!(learned.reach(), Reach::Unknown);
        learned.note(Reach::Declared);
        assert_eq!(learned.reach(), Reach::Declared);
        learned.note(Reach::Any);
        learned.note(Reach::Declared);
        assert_eq!(learned.reach(), Reach::Any);
    }
}
