//! The configuration: one table of directives, and what reads and writes it.
//!
//! [`table`] has a row for every directive. [`load`] reads files and the command line into a
//! [`table::Config`]; [`change`] is CONFIG GET and CONFIG SET; [`rewrite`] puts a configuration back
//! into its file. Nothing here opens a file or applies a change: the caller does, and keeps the old
//! [`table::Config`] to go back to.

pub mod change;
pub mod choice;
pub mod example;
pub mod load;
pub mod memory;
pub mod rewrite;
pub mod setting;
pub mod special;
pub mod table;

mod check;

pub use check::expand_title;
pub use table::{Config, Directive};
