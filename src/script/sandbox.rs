//! The sandbox: which global variables scripts find, and that they can change none of them.
//!
//! Lua 5.1 has no tables that can only be read. So scripts never see the tables of global variables and of libraries
//! themselves but empty ones that stand for them: reading goes on to the table behind, writing meets an error. The
//! functions that look behind metatables (`pairs`, `rawset` ...) are our own and know which tables those are.
//! What must stay true: no function that scripts can reach returns or changes a table behind.

use crate::script::base;
use crate::script::lua::{Kept, Lua, Native, Type};
use crate::script::{bit, json, msgpack, pack, redis};

/// Lua's own functions that scripts keep.
const KEPT: &[&str] = &[
    "_VERSION",
    "assert",
    "collectgarbage",
    "coroutine",
    "error",
    "gcinfo",
    "ipairs",
    "math",
    "rawequal",
    "select",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "unpack",
    "xpcall",
];

/// The version of Redis that scripts are told.
const VERSION: (&str, f64) = ("7.2.4", 0x0007_0204 as f64);

/// The tables of global variables.
#[derive(Debug)]
pub struct Globals {
    /// That of EVAL's scripts: KEYS and ARGV are put in here.
    pub eval: Kept,
    /// The name `KEYS`, which is thus made once.
    pub keys: Kept,
    /// The name `ARGV`.
    pub argv: Kept,
    /// That of functions while they run.
    pub function: Kept,
    /// That of libraries while they are loaded.
    pub loading: Kept,
}

/// Puts the functions into the table at the top.
fn add_natives(lua: &mut Lua<'_>, natives: &[(&str, Native)]) {
    for (name, native) in natives {
        lua.push_native(*native);
        lua.set_field(-2, name);
    }
}

fn add_numbers(lua: &mut Lua<'_>, numbers: &[(&str, f64)]) {
    for (name, number) in numbers {
        lua.push_number(*number);
        lua.set_field(-2, name);
    }
}

fn add_version(lua: &mut Lua<'_>) {
    lua.push_bytes(VERSION.0.as_bytes());
    lua.set_field(-2, "REDIS_VERSION");
    lua.push_number(VERSION.1);
    lua.set_field(-2, "REDIS_VERSION_NUM");
}

/// Replaces the table on top by one that stands for it.
fn protect(lua: &mut Lua<'_>) {
    let behind = lua.top();
    lua.push_table(0, 0);
    let front = lua.top();
    lua.push_table(0, 3);
    lua.push_value(behind);
    lua.set_field(-2, "__index");
    lua.push_native(base::refuse_change);
    lua.set_field(-2, "__newindex");
    // What `getmetatable` shows: nothing that leads to the table behind.
    lua.push_boolean(false);
    lua.set_field(-2, "__metatable");
    lua.set_metatable(front);
    let identity = lua.identity(front);
    lua.push_value(behind);
    let kept = lua.keep();
    lua.shared().protected.borrow_mut().push((identity, kept));
    lua.insert(behind);
    lua.set_top(behind);
}

/// Pushes a protected library.
fn push_library(lua: &mut Lua<'_>, natives: &[(&str, Native)], texts: &[(&str, &str)]) {
    lua.push_table(0, natives.len() + texts.len());
    add_natives(lua, natives);
    for (name, text) in texts {
        lua.push_bytes(text.as_bytes());
        lua.set_field(-2, name);
    }
}

/// Gives the table on top a metatable that refuses variables it does not have.
fn refuse_unknown(lua: &mut Lua<'_>) {
    lua.push_table(0, 1);
    let metatable = lua.top();
    lua.push_native(base::refuse_unknown);
    lua.set_field(metatable, "__index");
    // What `getmetatable` shows: the same, but that it cannot be changed.
    lua.push_table(0, 1);
    lua.push_native(base::refuse_unknown);
    lua.set_field(-2, "__index");
    protect(lua);
    lua.set_field(metatable, "__metatable");
    lua.set_metatable(-2);
}

/// Builds the sandbox in a new interpreter, whose compiled functions see the variables of EVAL from now on.
pub fn build(lua: &mut Lua<'_>) -> Globals {
    lua.set_top(0);
    lua.push_globals();
    let own = lua.top();
    lua.raw_field(own, "next");
    let own_next = lua.keep();
    lua.shared().own_next.set(Some(own_next));
    // What both EVAL's scripts and functions see.
    lua.push_table(0, 64);
    let common = lua.top();
    for name in KEPT {
        lua.raw_field(own, name);
        if lua.type_of(-1) == Type::Table {
            if *name == "math" {
                add_natives(lua, base::MATH);
            }
            protect(lua);
        }
        lua.set_field(common, name);
    }
    add_natives(lua, base::FUNCTIONS);
    push_library(lua, base::OS, &[]);
    protect(lua);
    lua.set_field(common, "os");
    push_library(lua, bit::FUNCTIONS, &[]);
    protect(lua);
    lua.set_field(common, "bit");
    push_library(lua, pack::FUNCTIONS, &[]);
    protect(lua);
    lua.set_field(common, "struct");
    push_library(lua, msgpack::FUNCTIONS, msgpack::TEXTS);
    protect(lua);
    lua.set_field(common, "cmsgpack");
    push_library(lua, json::FUNCTIONS, json::TEXTS);
    lua.push_null();
    lua.set_field(-2, "null");
    protect(lua);
    lua.set_field(common, "cjson");
    protect_strings(lua, common);

    let eval = push_variables(lua, common, redis::EVAL_ONLY);
    let front = lua.top();
    lua.push_value(front);
    lua.set_globals();
    lua.set_top(common);
    let function = push_variables(lua, common, &[]);
    lua.set_top(common);
    let loading = push_loading(lua);
    lua.set_top(0);
    let [keys, argv] = ["KEYS", "ARGV"].map(|name| {
        lua.push_bytes(name.as_bytes());
        lua.keep()
    });
    Globals { eval, keys, argv, function, loading }
}

/// Methods of strings (`("x"):rep(3)`) come from the library, but do not lead to it.
fn protect_strings(lua: &mut Lua<'_>, common: i32) {
    lua.push_bytes(b"");
    let text = lua.top();
    if lua.push_metatable(text) {
        let metatable = lua.top();
        lua.push_table(0, 1);
        lua.raw_field(common, "string");
        lua.set_field(-2, "__index");
        protect(lua);
        lua.set_field(metatable, "__metatable");
    }
    lua.set_top(common);
}

/// Takes the table on top, through which scripts reach the server, as the variables `redis` and `server` of the table at
/// `variables`: the second is its name in Valkey.
fn set_both_names(lua: &mut Lua<'_>, variables: i32) {
    lua.push_value(-1);
    lua.set_field(variables, "server");
    lua.set_field(variables, "redis");
}

/// Makes a table of global variables out of the common ones and `redis`; keeps the table itself, and leaves the one
/// that stands for it on top.
fn push_variables(lua: &mut Lua<'_>, common: i32, more: &[(&str, Native)]) -> Kept {
    lua.push_table(0, 64);
    let variables = lua.top();
    lua.push_nil();
    while lua.next(common) {
        let value = lua.top();
        lua.push_value(value - 1);
        lua.push_value(value);
        lua.raw_set(variables);
        lua.pop(1);
    }
    push_library(lua, redis::EVERYWHERE, &[]);
    add_natives(lua, more);
    add_numbers(lua, redis::LEVELS);
    add_numbers(lua, redis::DESTINATIONS);
    add_version(lua);
    protect(lua);
    set_both_names(lua, variables);
    refuse_unknown(lua);
    lua.push_value(variables);
    protect(lua);
    lua.push_value(-1);
    lua.set_field(variables, "_G");
    lua.push_value(variables);
    lua.keep()
}

/// A library that is being loaded sees `redis`, and nothing else.
fn push_loading(lua: &mut Lua<'_>) -> Kept {
    lua.push_table(0, 1);
    let variables = lua.top();
    push_library(lua, redis::LOADING, &[]);
    add_numbers(lua, redis::LEVELS);
    add_version(lua);
    refuse_unknown(lua);
    protect(lua);
    set_both_names(lua, variables);
    refuse_unknown(lua);
    lua.keep()
}

/// Pushes an environment for a library: it reads from the variables at `variables` until [`change_environment`].
pub fn push_environment(lua: &mut Lua<'_>, variables: Kept) {
    lua.push_kept(variables);
    protect(lua);
}

/// Lets the environment on top read from other variables.
pub fn change_environment(lua: &mut Lua<'_>, variables: Kept) {
    let front = lua.top();
    if lua.push_metatable(front) {
        lua.push_kept(variables);
        lua.set_field(-2, "__index");
    }
    let identity = lua.identity(front);
    let mut was = None;
    if let Some((_, behind)) = lua.shared().protected.borrow_mut().iter_mut().find(|(is, _)| *is == identity) {
        was = Some(std::mem::replace(behind, variables));
    }
    was.into_iter().for_each(|was| lua.forget(was));
    lua.set_top(front);
}

/// Forgets an environment that is no longer used: the one on top, which is taken away.
pub fn drop_environment(lua: &mut Lua<'_>) {
    let identity = lua.identity(-1);
    lua.shared().protected.borrow_mut().retain(|(is, _)| *is != identity);
    lua.pop(1);
}
