//! Scripts: Lua 5.1 in Redis' sandbox, with the libraries that Redis gives, and libraries of functions.
//!
//! A [`vm::Vm`] runs one script at a time. It knows no commands: what a script asks for goes up through [`host::Caller`]
//! as a whole request. [`source`] reads what stands in the first line of a script or library, [`cache`] keeps the scripts
//! of EVAL, [`library`] the libraries, [`machines`] the machines, [`running`] knows what takes long: together they are
//! the [`Scripts`] of a server. [`debugger`] runs one line by line for a client.

mod base;
mod bit;
pub mod cache;
pub mod convert;
pub mod debugger;
pub mod host;
mod json;
pub mod library;
pub mod lua;
pub mod machines;
mod msgpack;
mod pack;
mod redis;
pub mod running;
mod sandbox;
pub mod source;
pub mod vm;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::script::cache::Cache;
use crate::script::library::Libraries;
use crate::script::machines::Machines;
use crate::script::running::Running;

/// What a server has of scripts and functions.
#[derive(Debug, Default)]
pub struct Scripts {
    /// Scripts of EVAL.
    pub cache: Cache,
    /// Libraries of functions; replaced as a whole.
    pub libraries: ArcSwap<Libraries>,
    /// Held by whoever replaces them.
    pub change: Mutex<()>,
    /// What they run on.
    pub machines: Machines,
    /// Those that take long.
    pub running: Running,
}

impl Scripts {
    /// The memory that the texts of scripts and libraries take, in bytes.
    pub fn memory(&self) -> usize {
        self.cache.memory() + self.libraries.load().memory()
    }
}
