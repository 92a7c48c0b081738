//! The table `redis`: how a script reaches the server.

use sha1::{Digest, Sha1};

use crate::resp::reply::{Output, Protocol};
use crate::script::convert::push_reply;
use crate::script::debugger::show;
use crate::script::debugger::state::Debugger;
use crate::script::host::{Answer, Registered};
use crate::script::lua::{Lua, Native, Raise, Type};
use crate::script::source::{Flags, is_name};
use crate::stdx::number::double::append_double;

/// What every script finds in `redis`.
pub const EVERYWHERE: &[(&str, Native)] = &[
    ("call", call),
    ("pcall", pcall),
    ("log", log),
    ("setresp", setresp),
    ("sha1hex", sha1hex),
    ("error_reply", error_reply),
    ("status_reply", status_reply),
    ("set_repl", set_repl),
    ("acl_check_cmd", acl_check_cmd),
];

/// What scripts of EVAL find besides.
pub const EVAL_ONLY: &[(&str, Native)] =
    &[("breakpoint", breakpoint), ("debug", debug), ("replicate_commands", replicate_commands)];

/// What a library finds while it is loaded.
pub const LOADING: &[(&str, Native)] = &[("register_function", register_function), ("log", log)];

/// Numbers in `redis`.
pub const LEVELS: &[(&str, f64)] =
    &[("LOG_DEBUG", 0.0), ("LOG_VERBOSE", 1.0), ("LOG_NOTICE", 2.0), ("LOG_WARNING", 3.0)];

/// More numbers in `redis`: where effects go.
pub const DESTINATIONS: &[(&str, f64)] =
    &[("REPL_NONE", 0.0), ("REPL_AOF", 1.0), ("REPL_SLAVE", 2.0), ("REPL_REPLICA", 2.0), ("REPL_ALL", 3.0)];

/// The lowercase hexadecimal SHA-1 of a text, by which scripts are called.
pub fn sha1_hex(text: &[u8]) -> [u8; 40] {
    let mut hex = [0; 40];
    for (i, byte) in Sha1::digest(text).iter().enumerate() {
        hex[2 * i] = b"0123456789abcdef"[usize::from(byte >> 4)];
        hex[2 * i + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    hex
}

const NO_ARGUMENT: &str = "ERR Please specify at least one argument for this redis lib call";
const BAD_ARGUMENT: &str = "ERR Lua redis lib command arguments must be strings or integers";

/// Whether the arguments of a request are strings and numbers, of which there is at least one.
fn check_request(lua: &Lua<'_>) -> Result<(), Raise> {
    if lua.top() == 0 {
        return Err(Raise::reply(NO_ARGUMENT));
    }
    let fits = |at| matches!(lua.type_of(at), Type::String | Type::Number);
    if (1..=lua.top()).all(fits) { Ok(()) } else { Err(Raise::reply(BAD_ARGUMENT)) }
}

/// A number as an argument.
fn append_number(text: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        text.extend_from_slice(if number.is_sign_negative() { b"-nan" } else { b"nan" });
    } else {
        append_double(text, number);
    }
}

/// Hands the arguments as one request to `f`.
fn with_request<R>(lua: &Lua<'_>, f: impl FnOnce(&[&[u8]]) -> R) -> R {
    let mut numbers = Vec::new();
    let mut ends = Vec::new();
    for at in 1..=lua.top() {
        if lua.type_of(at) == Type::Number {
            append_number(&mut numbers, lua.number(at).unwrap_or(0.0));
            ends.push(numbers.len());
        }
    }
    let (mut begin, mut ends) = (0, ends.into_iter());
    let args: smallvec::SmallVec<[&[u8]; 8]> = (1..=lua.top())
        .map(|at| {
            lua.bytes(at).unwrap_or_else(|| {
                let end = ends.next().unwrap_or(begin);
                let text = &numbers[begin..end];
                begin = end;
                text
            })
        })
        .collect();
    f(&args)
}

/// Has the request run and pushes its reply; whether that is an error.
fn run(lua: &mut Lua<'_>) -> Result<bool, Raise> {
    check_request(lua)?;
    let protocol = lua.shared().protocol.get();
    let mut reply = lua.shared().reply.take().unwrap_or_else(|| Output::new(protocol));
    reply.set_protocol(protocol);
    let ran = with_request(lua, |args| {
        lua.shared().narrate_request(args);
        lua.shared().ask(|caller| caller.call(args, &mut reply))
    });
    lua.set_top(0);
    match ran {
        Some(Answer::Replied) => {}
        Some(Answer::Refused(line)) => {
            lua.shared().reply.replace(Some(reply));
            return Err(Raise::Reply { text: line, counted: true });
        }
        Some(Answer::Stop) => {
            lua.shared().reply.replace(Some(reply));
            lua.stop();
            lua.shared().stopped.set(true);
            return Err(lua.shared().tick().unwrap_or_else(|| Raise::reply("ERR stopped")));
        }
        None => return Err(Raise::reply("ERR redis.call is not possible here")),
    }
    // Only what has large values in it is in more than one piece.
    let whole = if reply.only_piece().is_none() { Some(reply.to_vec()) } else { None };
    let bytes = whole.as_deref().or(reply.only_piece()).unwrap_or_default();
    let failed = bytes.first() == Some(&b'-');
    let pushed = push_reply(lua, bytes).map(drop);
    lua.shared().narrate_reply(bytes);
    reply.advance(reply.len());
    lua.shared().reply.replace(Some(reply));
    pushed?;
    Ok(failed)
}

/// Runs a command; an error that it replies is raised.
pub fn call(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if run(lua)? { Err(Raise::Top) } else { Ok(1) }
}

fn pcall(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    match run(lua) {
        Ok(_) => {}
        Err(raise @ Raise::Reply { .. }) if !lua.shared().stopped.get() => lua.push_raise(raise),
        Err(raise) => return Err(raise),
    }
    Ok(1)
}

fn acl_check_cmd(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    check_request(lua)?;
    match with_request(lua, |args| lua.shared().ask(|caller| caller.permits(args))).flatten() {
        Some(permitted) => lua.push_boolean(permitted),
        None => return Err(Raise::reply("ERR Invalid command passed to redis.acl_check_cmd()")),
    }
    Ok(1)
}

fn log(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.top() < 2 {
        return Err(Raise::reply("ERR redis.log() requires two arguments or more."));
    }
    let Some(level) = lua.number(1) else {
        return Err(Raise::reply("ERR First argument must be a number (log level)."));
    };
    let level = level as i64;
    let Some(level) = u8::try_from(level).ok().filter(|level| *level <= 3) else {
        return Err(Raise::reply("ERR Invalid debug level."));
    };
    let words: Vec<Vec<u8>> = (2..=lua.top()).filter_map(|at| lua.text(at)).collect();
    lua.shared().ask(|caller| caller.log(level, &words.join(&b' ')));
    Ok(0)
}

fn setresp(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.top() != 1 {
        return Err(Raise::reply("ERR redis.setresp() requires one argument."));
    }
    let protocol = match lua.number(1).map(|number| number as i64) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        _ => return Err(Raise::reply("ERR RESP version must be 2 or 3.")),
    };
    lua.shared().protocol.set(protocol);
    Ok(0)
}

fn sha1hex(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.top() != 1 {
        return Err(Raise::reply("ERR wrong number of arguments"));
    }
    let hex = sha1_hex(&lua.text(1).unwrap_or_default());
    lua.push_bytes(&hex);
    Ok(1)
}

/// The argument of `error_reply` and `status_reply`; `None`, and an error reply pushed, where it is not one string.
fn only_text(lua: &mut Lua<'_>) -> Option<Vec<u8>> {
    if lua.top() != 1 || lua.type_of(1) != Type::String {
        const WRONG: &[u8] = b"ERR wrong number or type of arguments";
        lua.shared().narrate_error(WRONG);
        lua.push_error_reply(WRONG, false);
        return None;
    }
    lua.text(1)
}

fn error_reply(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if let Some(text) = only_text(lua) {
        let line = text.strip_prefix(b"-").unwrap_or(&text);
        lua.shared().narrate_error_reply(line);
        let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        // The first word is the error's code where something follows it.
        let code: &[u8] = if line.contains(&b' ') { b"" } else { b"ERR " };
        lua.push_error_reply(&[code, &line[..end]].concat(), false);
    }
    Ok(1)
}

fn status_reply(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if let Some(text) = only_text(lua) {
        lua.push_table(0, 1);
        lua.push_bytes(&text);
        lua.set_field(-2, "ok");
    }
    Ok(1)
}

fn set_repl(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.top() != 1 {
        return Err(Raise::reply("ERR redis.set_repl() requires one argument."));
    }
    let to = lua.number(1).unwrap_or(0.0) as i64;
    if !(0..=3).contains(&to) {
        return Err(Raise::reply("ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."));
    }
    lua.shared().ask(|caller| caller.propagate(to & 1 != 0, to & 2 != 0));
    Ok(0)
}

fn replicate_commands(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    // Effects are what is replicated, always.
    lua.push_boolean(true);
    Ok(1)
}

fn breakpoint(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let debugged = match lua.shared().debugger.borrow_mut().as_deref_mut() {
        Some(debugger) => {
            debugger.ask_to_stop();
            true
        }
        None => false,
    };
    lua.push_boolean(debugged);
    Ok(1)
}

fn debug(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let Some(line) = lua.shared().debugger.borrow().as_deref().map(Debugger::current) else { return Ok(0) };
    let values: Vec<Vec<u8>> = (1..=lua.top()).map(|at| show::value(lua, at)).collect();
    let text = [format!("<debug> line {line}: ").as_bytes(), &values.join(&b", "[..])].concat();
    if let Some(debugger) = lua.shared().debugger.borrow_mut().as_deref_mut() {
        debugger.tell(text);
    }
    Ok(0)
}

fn register_function(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let refuse = |text: &str| Err(Raise::reply(format!("ERR {text}")));
    if !matches!(lua.top(), 1 | 2) {
        return refuse("wrong number of arguments to redis.register_function");
    }
    if lua.shared().registered.borrow().is_none() {
        return refuse("redis.register_function can only be called on FUNCTION LOAD command");
    }
    let (name, description, flags) = if lua.top() == 2 {
        let Some(name) = lua.text(1) else {
            return refuse("first argument to redis.register_function must be a string");
        };
        if lua.type_of(2) != Type::Function {
            return refuse("second argument to redis.register_function must be a function");
        }
        (name, None, Flags::default())
    } else {
        named_arguments(lua)?
    };
    if !is_name(&name) {
        return refuse(NAME_RULE);
    }
    let taken = lua.shared().registered.borrow().iter().flatten().any(|function| function.name == name);
    if taken {
        return refuse("Function already exists in the library");
    }
    let function = lua.keep();
    if let Some(registered) = &mut *lua.shared().registered.borrow_mut() {
        registered.push(Registered { name, description, flags, function });
    }
    Ok(0)
}

/// What names may be made of.
pub const NAME_RULE: &str =
    "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// What a function is called, what is said about it, and what it may do.
type Described = (Vec<u8>, Option<Vec<u8>>, Flags);

/// Reads the table form of `register_function` and leaves the function on top.
fn named_arguments(lua: &mut Lua<'_>) -> Result<Described, Raise> {
    let refuse = |text: &str| Err(Raise::reply(format!("ERR {text}")));
    if lua.type_of(1) != Type::Table {
        return refuse(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        );
    }
    let (mut name, mut description, mut flags, mut function) = (None, None, Flags::default(), None);
    lua.push_nil();
    while lua.next(1) {
        let value = lua.top();
        let Some(key) = lua.text(value - 1) else {
            return refuse("named argument key given to redis.register_function is not a string");
        };
        match &key.to_ascii_lowercase()[..] {
            b"function_name" => match lua.text(value) {
                Some(text) => name = Some(text),
                None => return refuse("function_name argument given to redis.register_function must be a string"),
            },
            b"description" => match lua.text(value) {
                Some(text) => description = Some(text),
                None => return refuse("description argument given to redis.register_function must be a string"),
            },
            b"callback" if lua.type_of(value) == Type::Function => {
                lua.push_value(value);
                function = Some(lua.keep());
            }
            b"callback" => return refuse("callback argument given to redis.register_function must be a function"),
            b"flags" if lua.type_of(value) == Type::Table => {
                let mut n = 1;
                while lua.raw_element(value, n) != Type::Nil {
                    let known = lua.bytes(-1).and_then(Flags::by_name);
                    let Some(flag) = known else { return refuse("unknown flag given") };
                    flags.add(flag);
                    lua.pop(1);
                    n += 1;
                }
                lua.pop(1);
            }
            b"flags" => {
                return refuse("flags argument to redis.register_function must be a table representing function flags");
            }
            _ => return refuse("unknown argument given to redis.register_function"),
        }
        lua.pop(1);
    }
    let Some(name) = name else { return refuse("redis.register_function must get a function name argument") };
    let Some(function) = function else { return refuse("redis.register_function must get a callback argument") };
    lua.push_kept(function);
    lua.forget(function);
    Ok((name, description, flags))
}
