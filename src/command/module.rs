//! MODULE: answers that there are none. Modules are shared libraries for the inside of another program, so that
//! none can be loaded here; programs that only ask which there are get an empty list.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::Command;
use crate::observe::log::warning;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[MODULE];

/// The container.
pub const MODULE: Command = Command {
    name: "MODULE",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for module commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[HELP, LIST, LOAD, LOADEX, UNLOAD],
    ..SUB
};

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "4.0.0",
    group: Group::Server,
    arity: Arity::Exactly(2),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help::container,
};

const NOT_ALLOWED: &str = "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", \
    you can run it from a local connection, otherwise you need to set this option in the configuration file, \
    and then restart the server.";

/// Whether the client may load and unload modules.
fn allowed(ctx: &Context<'_>) -> Result<(), Error> {
    if ctx.config.enable_module_command.allows(ctx.session.shared.is_local()) {
        return Ok(());
    }
    Err(Error::text(NOT_ALLOWED))
}

const HELP: Command = Command {
    name: "HELP",
    since: "5.0.0",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| {
        let topics = [
            ("LIST", &["Names the modules that are loaded: none."][..]),
            ("LOAD <path> [<arg> ...]", &["Is refused: modules cannot be loaded."]),
            (
                "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
                &["Is refused: modules cannot be loaded."],
            ),
            ("UNLOAD <name>", &["Is refused: no module is loaded."]),
        ];
        help::write(ctx.out, "MODULE", &topics)
    },
    ..SUB
};

const LIST: Command = Command {
    name: "LIST",
    flags: &[Flag::Admin, Flag::NoScript],
    summary: "Returns all loaded modules.",
    complexity: "O(N) where N is the number of loaded modules.",
    tips: &["nondeterministic_output_order"],
    run: |ctx, _| {
        ctx.out.array(0);
        DONE
    },
    ..SUB
};

const LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::AtLeast(3),
    usage: "path [arg...]",
    summary: "Loads a module.",
    run: load,
    ..SUB
};

fn load(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    allowed(ctx)?;
    warning!("Module {} failed to load: this server has no modules.", String::from_utf8_lossy(args.at(2)));
    Err(Error::text("ERR Error loading the extension. Please check the server logs."))
}

const LOADEX: Command = Command {
    name: "LOADEX",
    since: "7.0.0",
    usage: "path [CONFIG configs{name value}]... [ARGS args...]",
    summary: "Loads a module using extended parameters.",
    ..LOAD
};

const UNLOAD: Command = Command {
    name: "UNLOAD",
    arity: Arity::Exactly(3),
    usage: "name",
    summary: "Unloads a module.",
    run: |ctx, _| {
        allowed(ctx)?;
        Err(Error::text("ERR Error unloading module: no such module with that name"))
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn there_are_no_modules_and_none_can_be_loaded() {
        let mut bench = Bench::with("enable-module-command yes\n");
        assert_eq!(bench.run("MODULE LIST"), "*0|");
        assert!(bench.run("MODULE LOAD /tmp/x.so a").starts_with("-ERR Error loading the extension"));
        assert!(bench.run("MODULE LOADEX /tmp/x.so CONFIG a b").starts_with("-ERR Error loading the extension"));
        assert_eq!(bench.run("MODULE UNLOAD x"), "-ERR Error unloading module: no such module with that name|");
        let mut bench = Bench::new();
        assert_eq!(bench.run("MODULE LIST"), "*0|");
        for line in ["LOAD x", "LOADEX x", "UNLOAD x"] {
            assert_eq!(bench.run(&format!("MODULE {line}")), format!("-{}|", super::NOT_ALLOWED));
        }
    }
}
