//! Who may do what: users, their passwords, the commands, keys and channels that they may use.
//!
//! [`users`] holds the accounts, [`user`] and [`selector`] what one of them may do and how that is written
//! down, [`catalog`] what commands there are, [`log`] what was refused. Nothing here knows a connection or a
//! file: text comes in and goes out.

pub mod catalog;
pub mod log;
pub mod password;
pub mod selector;
pub mod user;
pub mod users;
