//! Scripts: Lua 5.1 in Redis' sandbox, with the libraries that Redis gives, and libraries of functions.
//!
//! A [`vm::Vm`] belongs to one thread and runs one script at a time. It knows no commands: what a script asks for goes up
//! through [`host::Caller`] as a whole request. [`source`] reads what stands in the first line of a script or library;
//! [`library`] is the set of libraries that a server has.

mod base;
mod bit;
mod convert;
pub mod host;
mod json;
pub mod library;
pub mod lua;
mod msgpack;
mod pack;
mod redis;
mod sandbox;
pub mod source;
pub mod vm;
