//! FCALL and FUNCTION: libraries of functions that the server keeps.

use std::sync::Arc;

use crate::command::args::{Args, word};
use crate::command::call::show_script;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::script::prepare::{cannot_load, checked_key_count, unkilled};
use crate::command::script::run::{self, Access as DataAccess, Loader, Subject};
use crate::command::script::{ONLY_READS, RUNS_SCRIPTS, WORST, WORST_READ, free_later};
use crate::command::table::Command;
use crate::observe::log::warning;
use crate::persist::rdb::file::write_function;
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::writer::{Compression, Writer};
use crate::persist::rdb::{opcode, payload};
use crate::script::Scripts;
use crate::script::library::{Libraries, Library};
use crate::script::running::Kind;
use crate::script::source::library_head;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};
use crate::stdx::glob::{Case, matches};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[FCALL, FCALL_RO, FUNCTION];

/// Runs a function and replies with what it returns.
pub const FCALL: Command = Command {
    name: "FCALL",
    since: "7.0.0",
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ_UPDATE.noted(WORST) }],
    usage: "function numkeys [key...] [arg...]",
    summary: "Invokes a function.",
    complexity: "Depends on the function that is executed.",
    run: |ctx, args| call(ctx, args, DataAccess::ReadWrite),
    ..RUNS_SCRIPTS
};

/// The same for a function that may not write.
pub const FCALL_RO: Command = Command {
    name: "FCALL_RO",
    flags: ONLY_READS,
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ.noted(WORST_READ) }],
    summary: "Invokes a read-only function.",
    run: |ctx, args| call(ctx, args, DataAccess::ReadOnly),
    ..FCALL
};

fn call(ctx: &mut Context<'_>, args: &Args<'_>, access: DataAccess) -> Reply {
    show_script(ctx, args);
    let libraries = ctx.engine.scripts.libraries.load();
    let (library, function) = libraries.function(args.at(1)).ok_or(Error::text("ERR Function not found"))?;
    let count = parse_i64(args.at(2)).ok_or(Error::text("ERR Bad number of keys provided"))?;
    let keys = checked_key_count(args, count)?;
    run::run(ctx, args, keys, Subject::Function(library, function), access)
}

/// The container.
pub const FUNCTION: Command = Command {
    name: "FUNCTION",
    arity: Arity::AtLeast(2),
    flags: &[],
    categories: &[],
    summary: "A container for function commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[DELETE, DUMP, FLUSH, HELP, KILL, LIST, LOAD, RESTORE, STATS],
    ..SUB
};

/// What subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "7.0.0",
    group: Group::Scripting,
    arity: Arity::Exactly(2),
    flags: &[Flag::NoScript],
    categories: &[Category::Scripting],
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

/// How clients of a cluster send what changes libraries.
const EVERYWHERE: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

/// Changes the libraries, one change after the other; `Ok` where it did.
fn change<R>(scripts: &Scripts, f: impl FnOnce(&mut Libraries) -> Result<R, Error>) -> Result<R, Error> {
    let _one_at_a_time = scripts.change.lock();
    let mut all = Libraries::clone(&scripts.libraries.load());
    let changed = f(&mut all)?;
    scripts.libraries.store(Arc::new(all));
    Ok(changed)
}

const LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::NoScript],
    usage: "[REPLACE] function-code",
    summary: "Creates a library.",
    complexity: "O(1) (considering compilation time is redundant)",
    tips: EVERYWHERE,
    run: load,
    ..SUB
};

fn load(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let code = args.at(args.len() - 1);
    let mut replace = false;
    for at in 2..args.len() - 1 {
        if !args.is(at, "REPLACE") {
            let shown = String::from_utf8_lossy(args.at(at)).into_owned();
            return Err(Error::text(format!("ERR Unknown option given: {shown}")));
        }
        replace = true;
    }
    let known = ctx.session.replaying || ctx.session.follows.is_some();
    let loader = if known { Loader::for_known() } else { Loader::for_new() };
    let library =
        read(&ctx.engine.scripts, code, loader, |name, all| if replace { Ok(()) } else { refuse_known(name, all) })?;
    let name = library.name.clone();
    change(&ctx.engine.scripts, |all| insert(all, library))?;
    ctx.db.effects.dirty += 1;
    ctx.out.bulk(&name);
    DONE
}

fn refuse_known(name: &[u8], all: &Libraries) -> Result<(), Error> {
    if all.by_name(name).is_none() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(name);
    Err(Error::text(format!("ERR Library '{shown}' already exists")))
}

/// Reads a library and runs its code once, which registers its functions. `permits` is asked about its name before.
fn read(
    scripts: &Scripts,
    code: &[u8],
    mut loader: Loader,
    permits: impl FnOnce(&[u8], &Libraries) -> Result<(), Error>,
) -> Result<Arc<Library>, Error> {
    let head = library_head(code).map_err(|bad| Error::text(format!("ERR {bad}")))?;
    permits(&head.name, &scripts.libraries.load())?;
    let mut vm = scripts.machines.lease(&scripts.cache);
    let library = vm.read_library(&head.name, code, head.begin, &mut loader).map_err(cannot_load)?;
    // Whether it becomes one of the server's is not decided yet.
    vm.unload(&head.name);
    Ok(library)
}

fn insert(all: &mut Libraries, library: Arc<Library>) -> Result<(), Error> {
    all.insert(library).map_err(|function| {
        let shown = String::from_utf8_lossy(&function).into_owned();
        Error::text(format!("ERR Function {shown} already exists"))
    })
}

const DELETE: Command = Command {
    name: "DELETE",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::NoScript],
    usage: "library-name",
    summary: "Deletes a library and its functions.",
    tips: EVERYWHERE,
    run: delete,
    ..SUB
};

fn delete(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    change(&ctx.engine.scripts, |all| match all.remove(args.at(2)) {
        true => Ok(()),
        false => Err(Error::text("ERR Library not found")),
    })?;
    ctx.db.effects.dirty += 1;
    ctx.out.ok();
    DONE
}

const FLUSH: Command = Command {
    name: "FLUSH",
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::NoScript],
    usage: "[flush-type(ASYNC | SYNC)]",
    summary: "Deletes all libraries and functions.",
    complexity: "O(N) where N is the number of functions deleted",
    tips: EVERYWHERE,
    run: flush,
    ..SUB
};

fn flush(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() > 3 {
        return Err(help::wrong_form("FUNCTION", args.at(1)));
    }
    if args.len() == 3 && word(args.at(2), &["ASYNC", "SYNC"]).is_none() {
        return Err(Error::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    let forgotten = ctx.engine.scripts.libraries.load_full();
    change(&ctx.engine.scripts, |all| {
        all.clear();
        Ok(())
    })?;
    free_later(ctx, args.opt(2), forgotten.functions(), forgotten);
    ctx.engine.scripts.machines.clear();
    ctx.db.effects.dirty += 1;
    ctx.out.ok();
    DONE
}

const DUMP: Command = Command {
    name: "DUMP",
    summary: "Dumps all libraries into a serialized binary payload.",
    complexity: "O(N) where N is the number of functions",
    run: dump,
    ..SUB
};

fn dump(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let mut writer = Writer::new(Compression::from(ctx.config.rdbcompression));
    ctx.engine.scripts.libraries.load().iter().for_each(|library| write_function(&mut writer, &library.code));
    ctx.out.bulk(&payload::seal(writer));
    DONE
}

const RESTORE: Command = Command {
    name: "RESTORE",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::NoScript],
    usage: "serialized-value [policy(FLUSH | APPEND | REPLACE)]",
    summary: "Restores all libraries from a payload.",
    complexity: "O(N) where N is the number of functions on the payload",
    tips: EVERYWHERE,
    run: restore,
    ..SUB
};

fn restore(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() > 4 {
        return Err(help::wrong_form("FUNCTION", args.at(1)));
    }
    let policy = match args.opt(3).map(|policy| word(policy, &["FLUSH", "APPEND", "REPLACE"])) {
        None => "APPEND",
        Some(Some(policy)) => policy,
        Some(None) => {
            return Err(Error::text(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let scripts = &ctx.engine.scripts;
    let sources = sources(args.at(2))?;
    let libraries: Vec<_> =
        sources.iter().map(|code| read(scripts, code, Loader::for_new(), |_, _| Ok(()))).collect::<Result<_, _>>()?;
    change(scripts, |all| {
        if policy == "FLUSH" {
            all.clear();
        }
        for library in libraries {
            if policy != "REPLACE" && all.by_name(&library.name).is_some() {
                let shown = String::from_utf8_lossy(&library.name).into_owned();
                return Err(Error::text(format!("ERR Library {shown} already exists")));
            }
            insert(all, library)?;
        }
        Ok(())
    })?;
    ctx.db.effects.dirty += 1;
    ctx.out.ok();
    DONE
}

/// The texts of the libraries in a payload.
fn sources(payload: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let (_, bytes) = payload::verify(payload, payload::Checksum::Required)
        .ok_or(Error::text("ERR DUMP payload version or checksum are wrong"))?;
    let mut reader = Reader::of_bytes(bytes);
    let mut sources = Vec::new();
    while !reader.rest().is_empty() {
        match reader.byte().map_err(|_| Error::text(BAD_LIBRARY))? {
            opcode::FUNCTION2 => sources.push(reader.string().map_err(|_| Error::text(BAD_LIBRARY))?),
            opcode::FUNCTION_PRE_GA => return Err(Error::text("ERR Pre-GA function format not supported")),
            _ => return Err(Error::text("ERR given type is not a function")),
        }
    }
    Ok(sources)
}

const BAD_LIBRARY: &str = "ERR Failed loading library payload";

/// Takes over the libraries of a file that was loaded, in place of those of their names where they may `replace` them.
///
/// # Errors
/// What is wrong with one of them: it is there already, or is no library.
pub fn adopt(scripts: &Scripts, sources: &[Vec<u8>], replace: bool) -> Result<(), Error> {
    for code in sources {
        let library = read(
            scripts,
            code,
            Loader::for_known(),
            |name, all| if replace { Ok(()) } else { refuse_known(name, all) },
        )?;
        change(scripts, |all| insert(all, library))?;
    }
    Ok(())
}

/// Forgets all libraries.
pub fn forget_all(scripts: &Scripts) {
    let _one_at_a_time = scripts.change.lock();
    scripts.libraries.store(Arc::default());
    scripts.machines.clear();
}

/// Has the libraries of a data set take the place of all others; what is wrong with one of them is logged.
pub fn replace(scripts: &Scripts, sources: &[Vec<u8>]) {
    forget_all(scripts);
    if let Err(error) = adopt(scripts, sources, true) {
        warning!("Failed to load a library of functions: {}", String::from_utf8_lossy(&error.line()));
    }
}

const LIST: Command = Command {
    name: "LIST",
    arity: Arity::AtLeast(2),
    usage: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    summary: "Returns information about all libraries.",
    complexity: "O(N) where N is the number of functions",
    tips: &["nondeterministic_output_order"],
    run: list,
    ..SUB
};

fn list(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (mut pattern, mut with_code, mut at) = (None, false, 2);
    while at < args.len() {
        if !with_code && args.is(at, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && args.is(at, "LIBRARYNAME") {
            at += 1;
            pattern = Some(args.opt(at).ok_or(Error::text("ERR library name argument was not given"))?);
        } else {
            let shown = String::from_utf8_lossy(args.at(at)).into_owned();
            return Err(Error::text(format!("ERR Unknown argument {shown}")));
        }
        at += 1;
    }
    let all = ctx.engine.scripts.libraries.load();
    let fits =
        |library: &&Arc<Library>| pattern.is_none_or(|pattern| matches(pattern, &library.name, Case::Insensitive));
    let out = &mut *ctx.out;
    out.array(all.iter().filter(fits).count());
    for library in all.iter().filter(fits) {
        out.map(if with_code { 4 } else { 3 });
        out.bulk(b"library_name");
        out.bulk(&library.name);
        out.bulk(b"engine");
        out.bulk(b"LUA");
        out.bulk(b"functions");
        out.array(library.functions.len());
        for function in &library.functions {
            out.map(3);
            out.bulk(b"name");
            out.bulk(&function.name);
            out.bulk(b"description");
            match &function.description {
                Some(description) => out.bulk(description),
                None => out.null(),
            }
            out.bulk(b"flags");
            out.set(function.flags.names().count());
            function.flags.names().for_each(|name| out.simple(name));
        }
        if with_code {
            out.bulk(b"library_code");
            out.bulk(&library.code);
        }
    }
    DONE
}

const STATS: Command = Command {
    name: "STATS",
    flags: &[Flag::NoScript, Flag::AllowBusy],
    summary: "Returns information about a function during execution.",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    run: stats,
    ..SUB
};

fn stats(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let scripts = &ctx.engine.scripts;
    let running = scripts.running.oldest();
    if let Some(run) = running.as_ref().filter(|run| run.kind == Kind::Script)
        && scripts.running.busy().is_some()
    {
        return Err(Error::Busy(run.kind));
    }
    let out = &mut *ctx.out;
    out.map(2);
    out.bulk(b"running_script");
    match running.filter(|run| run.kind == Kind::Function) {
        Some(run) => {
            out.map(3);
            out.bulk(b"name");
            out.bulk(&run.name);
            out.bulk(b"command");
            out.array(run.command.len());
            run.command.iter().for_each(|word| out.bulk(word));
            out.bulk(b"duration_ms");
            out.integer(i64::try_from(run.lasts().as_millis()).unwrap_or(i64::MAX));
        }
        None => out.null(),
    }
    out.bulk(b"engines");
    out.map(1);
    out.bulk(b"LUA");
    out.map(2);
    let all = scripts.libraries.load();
    out.bulk(b"libraries_count");
    out.integer(all.len() as i64);
    out.bulk(b"functions_count");
    out.integer(all.functions() as i64);
    DONE
}

const KILL: Command = Command {
    name: "KILL",
    flags: &[Flag::NoScript, Flag::AllowBusy],
    summary: "Terminates a function during execution.",
    tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
    run: kill,
    ..SUB
};

fn kill(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.engine.scripts.running.kill(Kind::Function).map_err(unkilled)?;
    ctx.out.ok();
    DONE
}

const HELP: Command = Command {
    name: "HELP",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| help::write(ctx.out, "FUNCTION", TOPICS),
    ..SUB
};

const TOPICS: &[help::Topic] = &[
    ("LOAD [REPLACE] <FUNCTION CODE>", &["Create a new library with the given library name and code."]),
    ("DELETE <LIBRARY NAME>", &["Delete the given library."]),
    (
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        &[
            "Return general information on all the libraries:",
            "* Library name",
            "* The engine used to run the Library",
            "* Library description",
            "* Functions list",
            "* Library code (if WITHCODE is given)",
            "It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
        ],
    ),
    (
        "STATS",
        &[
            "Return information about the current function running:",
            "* Function name",
            "* Command used to run the function",
            "* Duration in MS that the function is running",
            "If no function is running, return nil",
            "In addition, returns a list of available engines.",
        ],
    ),
    ("KILL", &["Kill the current running function."]),
    (
        "FLUSH [ASYNC|SYNC]",
        &[
            "Delete all the libraries.",
            "When called without the optional mode argument, the behavior is determined by the",
            "lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "* ASYNC: Asynchronously flush the libraries.",
            "* SYNC: Synchronously flush the libraries.",
        ],
    ),
    (
        "DUMP",
        &[
            "Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
        ],
    ),
    (
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        &[
            "Restore the libraries represented by the given payload, it is possible to give a restore policy to",
            "control how to handle existing libraries (default APPEND):",
            "* FLUSH: delete all existing libraries.",
            "* APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
            "* REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
            "  libraries with the new libraries (notice that even on this option there is a chance of failure",
            "  in case of functions name collision with another library).",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    const LIBRARIES: [&[u8]; 2] = [
        b"#!lua name=a\nredis.register_function('f', function() return 1 end)",
        b"#!lua name=b\nredis.register_function{function_name='g', callback=function() return 2 end, flags={'no-writes'}}",
    ];

    fn payload(sources: &[&[u8]]) -> String {
        let mut writer = Writer::new(Compression::Lzf);
        sources.iter().for_each(|code| write_function(&mut writer, code));
        payload::seal(writer).iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn what_is_dumped_is_restored_by_each_policy() {
        let mut bench = Bench::new();
        let both = payload(&LIBRARIES);
        assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{both}\"")), "+OK|");
        assert_eq!((bench.run("FCALL f 0"), bench.run("FCALL_RO g 0")), (":1|".into(), ":2|".into()));
        let dumped = bench.raw("FUNCTION DUMP");
        assert_eq!(
            super::sources(&dumped[dumped.iter().position(|b| *b == b'\n').unwrap() + 1..dumped.len() - 2]).unwrap(),
            LIBRARIES
        );
        assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{both}\"")), "-ERR Library a already exists|");
        assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{both}\" REPLACE")), "+OK|");
        let first = payload(&LIBRARIES[..1]);
        assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{first}\" FLUSH")), "+OK|");
        assert_eq!(bench.run("FCALL g 0"), "-ERR Function not found|");
        assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{both}\"")), "-ERR Library a already exists|");
        assert_eq!(bench.run("FCALL g 0"), "-ERR Function not found|", "nothing of it was taken over");
    }

    #[test]
    fn a_payload_of_something_else_is_refused() {
        let mut bench = Bench::new();
        let sealed = |bytes: &[u8]| {
            let mut writer = Writer::new(Compression::None);
            writer.raw(bytes);
            payload::seal(writer).iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>()
        };
        let rows: [(&[u8], &str); 6] = [
            (b"\xf5\x05hello", "-ERR Missing library metadata|"),
            (b"\xf5", "-ERR Failed loading library payload|"),
            (b"\xf5\x10abc", "-ERR Failed loading library payload|"),
            (b"\xf6", "-ERR Pre-GA function format not supported|"),
            (b"\x00\x03abc", "-ERR given type is not a function|"),
            (b"", "+OK|"),
        ];
        for (bytes, reply) in rows {
            assert_eq!(bench.run(&format!("FUNCTION RESTORE \"{}\"", sealed(bytes))), reply);
        }
        assert_eq!(bench.run("FUNCTION RESTORE abc"), "-ERR DUMP payload version or checksum are wrong|");
    }
}
