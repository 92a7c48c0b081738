//! MONITOR: the connection hears of every command that runs.

use crate::client::shared::Mark;
use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::table::Command;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[MONITOR];

/// Sends every command that any client runs to this one, until RESET or the end of the connection.
///
/// Administrators' commands are not shown, nor what was refused before it ran; passwords are hidden. A
/// client that monitors may not touch keys.
pub const MONITOR: Command = Command {
    name: "MONITOR",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "Listens for all requests received by the server in real-time.",
    complexity: "",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: monitor,
};

fn monitor(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    // Asked for twice it is not even answered: a reply would stand among the lines.
    if ctx.session.monitor {
        return DONE;
    }
    ctx.session.monitor = true;
    ctx.session.shared.mark(Mark::Monitor, true);
    ctx.engine.monitors.add(ctx.session.shared.clone());
    ctx.out.ok();
    DONE
}
