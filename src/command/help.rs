//! What containers answer when they are asked for help, or for nothing in particular.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::resp::reply::Output;

/// One subcommand: how it is written, and lines about it.
pub type Topic = (&'static str, &'static [&'static str]);

/// Writes the help of `container` (upper case): its subcommands in the order given, HELP itself last.
///
/// # Errors
/// None; it is what a handler returns.
pub fn write(out: &mut Output, container: &str, topics: &[Topic]) -> Reply {
    const HELP: Topic = ("HELP", &["Print this help."]);
    let topics = || topics.iter().chain([&HELP]);
    out.array(1 + topics().map(|(_, lines)| 1 + lines.len()).sum::<usize>());
    out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for (form, lines) in topics() {
        out.simple(form);
        lines.iter().for_each(|line| out.simple(&format!("    {line}")));
    }
    DONE
}

/// Runs a container without its subcommand: never, as its arity asks for one and the table finds it.
///
/// # Errors
/// The one for a wrong number of arguments.
pub fn container(_: &mut Context<'_>, args: &Args<'_>) -> Reply {
    Err(Error::WrongArity(String::from_utf8_lossy(args.at(0)).to_lowercase()))
}

/// The error of a subcommand that exists, with arguments that it does not take.
pub fn wrong_form(container: &str, subcommand: &[u8]) -> Error {
    // A line break in what is repeated would end the reply; 128 bytes are enough to recognise it.
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]).replace(['\r', '\n'], " ");
    Error::text(format!("ERR unknown subcommand or wrong number of arguments for '{shown}'. Try {container} HELP."))
}
