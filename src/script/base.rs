//! Functions of Lua's base library that differ here: they know protected tables, take no compiled chunks, and draw the
//! same random numbers as Redis.

use crate::observe::process::{self, Whose};
use crate::script::lua::{Called, Lua, Native, Raise, Type};

/// These functions, by the names that scripts know them by.
pub const FUNCTIONS: &[(&str, Native)] = &[
    ("getmetatable", getmetatable),
    ("load", load),
    ("loadstring", loadstring),
    ("next", next),
    ("pairs", pairs),
    ("pcall", pcall),
    ("rawget", rawget),
    ("rawset", rawset),
    ("setmetatable", setmetatable),
];

/// Those of `math`.
pub const MATH: &[(&str, Native)] = &[("random", random), ("randomseed", randomseed)];

/// Those of `os`.
pub const OS: &[(&str, Native)] = &[("clock", clock)];

const READ_ONLY: &str = "Attempt to modify a readonly table";

/// `__newindex` of protected tables.
pub fn refuse_change(_: &mut Lua<'_>) -> Result<usize, Raise> {
    Err(Raise::placed(READ_ONLY))
}

/// `__index` of the global variables.
pub fn refuse_unknown(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let name = lua.text(2).unwrap_or_default();
    Err(Raise::placed([b"Script attempted to access nonexistent global variable '", &name[..], b"'"].concat()))
}

/// Puts the table that the one at `at` stands for in its place, if it stands for one.
fn unveil(lua: &mut Lua<'_>, at: i32) -> bool {
    if lua.type_of(at) != Type::Table {
        return false;
    }
    let identity = lua.identity(at);
    let kept = lua.shared().protected.borrow().iter().find(|(is, _)| *is == identity).map(|(_, kept)| *kept);
    let Some(kept) = kept else { return false };
    lua.push_kept(kept);
    lua.replace(at);
    true
}

fn pairs(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.expect_table(1, "pairs")?;
    lua.set_top(1);
    lua.push_value(1);
    if unveil(lua, 2) {
        // The table itself stays hidden: `next` looks behind the one that stands for it.
        lua.push_native(next);
    } else {
        lua.push_own_next();
    }
    lua.push_value(1);
    lua.push_nil();
    Ok(3)
}

fn next(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.expect_table(1, "next")?;
    lua.set_top(2);
    unveil(lua, 1);
    if !lua.has_key(1, 2) {
        // A field that was set to nil during the walk is still a place to go on from, which only Lua's own
        // function knows.
        lua.push_own_next();
        lua.insert(1);
        return match lua.call(2, -1, 0) {
            Called::Done => Ok(usize::try_from(lua.top()).unwrap_or(0)),
            _ => Err(Raise::Top),
        };
    }
    if lua.next(1) {
        return Ok(2);
    }
    lua.push_nil();
    Ok(1)
}

fn rawget(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.expect_table(1, "rawget")?;
    lua.set_top(2);
    unveil(lua, 1);
    lua.raw_get(1);
    Ok(1)
}

fn rawset(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.expect_table(1, "rawset")?;
    lua.set_top(3);
    if unveil(lua, 1) {
        return Err(Raise::Text(READ_ONLY.into()));
    }
    match lua.type_of(2) {
        Type::Nil => return Err(Raise::Text(b"table index is nil".to_vec())),
        Type::Number if lua.number(2).is_some_and(f64::is_nan) => {
            return Err(Raise::Text(b"table index is NaN".to_vec()));
        }
        _ => {}
    }
    lua.raw_set(1);
    Ok(1)
}

fn getmetatable(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.type_of(1) == Type::None {
        return Err(Raise::placed("bad argument #1 to 'getmetatable' (value expected)"));
    }
    let identity = lua.identity(1);
    let behind = lua.shared().protected.borrow().iter().find(|(is, _)| *is == identity).map(|(_, behind)| *behind);
    if let Some(behind) = behind {
        // That a table stands for another is not to be seen.
        lua.set_top(0);
        lua.push_kept(behind);
    }
    if !lua.push_metatable(1) {
        lua.push_nil();
        return Ok(1);
    }
    let metatable = lua.top();
    if lua.raw_field(metatable, "__metatable") == Type::Nil {
        lua.pop(1);
    }
    Ok(1)
}

fn setmetatable(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.expect_table(1, "setmetatable")?;
    if !matches!(lua.type_of(2), Type::Nil | Type::Table) {
        return Err(Raise::placed("bad argument #2 to 'setmetatable' (nil or table expected)"));
    }
    lua.set_top(2);
    let identity = lua.identity(1);
    if lua.shared().protected.borrow().iter().any(|(is, _)| *is == identity) {
        return Err(Raise::Text(READ_ONLY.into()));
    }
    if lua.push_metatable(1) {
        if lua.raw_field(3, "__metatable") != Type::Nil {
            return Err(Raise::placed("cannot change a protected metatable"));
        }
        lua.set_top(2);
    }
    lua.set_metatable(1);
    Ok(1)
}

/// Calls a function and returns its error instead of raising it: of an error reply only the text, as scripts of
/// all ages expect.
fn pcall(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.top() == 0 {
        lua.push_boolean(false);
        lua.push_bytes(b"bad argument #1 to '?' (value expected)");
        return Ok(2);
    }
    let arguments = lua.top() - 1;
    let called = lua.call(arguments, -1, 0);
    let top = lua.top();
    if called != Called::Done && lua.type_of(top) == Type::Table {
        if lua.raw_field(top, "err") == Type::String {
            lua.insert(top);
        }
        lua.set_top(top);
    }
    if !lua.room(1) {
        lua.set_top(0);
        lua.push_boolean(false);
        lua.push_bytes(b"stack overflow");
        return Ok(2);
    }
    lua.push_boolean(called == Called::Done);
    lua.insert(1);
    Ok(usize::try_from(lua.top()).unwrap_or(0))
}

fn finish_load(lua: &mut Lua<'_>, text: &[u8], name: &[u8]) -> usize {
    if lua.compile(text, name) {
        return 1;
    }
    lua.push_nil();
    lua.insert(-2);
    2
}

fn loadstring(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let text = lua.expect_text(1, "loadstring")?;
    let name = match lua.type_of(2) {
        Type::None | Type::Nil => text.clone(),
        _ => lua.expect_text(2, "loadstring")?,
    };
    Ok(finish_load(lua, &text, &name))
}

/// The most text that `load` puts together.
const LOAD_MAX: usize = 64 * 1024 * 1024;

fn load(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    if lua.type_of(1) != Type::Function {
        return Err(lua.wrong_type(1, "load", "function"));
    }
    let name = match lua.type_of(2) {
        Type::None | Type::Nil => b"=(load)".to_vec(),
        _ => lua.expect_text(2, "load")?,
    };
    let mut text = Vec::new();
    loop {
        lua.set_top(1);
        lua.push_value(1);
        if lua.call(0, 1, 0) != Called::Done {
            lua.push_nil();
            lua.insert(-2);
            return Ok(2);
        }
        match lua.text(-1) {
            Some(piece) if !piece.is_empty() && text.len() + piece.len() <= LOAD_MAX => text.extend_from_slice(&piece),
            None if lua.type_of(-1) != Type::Nil => {
                lua.push_nil();
                lua.push_bytes(b"reader function must return a string");
                return Ok(2);
            }
            _ => break,
        }
    }
    Ok(finish_load(lua, &text, &name))
}

/// The next 31 bits of the generator that POSIX calls `lrand48`.
fn draw(lua: &Lua<'_>) -> u32 {
    let state = &lua.shared().random;
    let next = state.get().wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & 0xFFFF_FFFF_FFFF;
    state.set(next);
    (next >> 17) as u32
}

/// Where the generator begins for a seed.
pub fn seeded(seed: i64) -> u64 {
    u64::from(seed as u32) << 16 | 0x330E
}

/// Where it begins unless a script says otherwise: where the generator of POSIX does.
pub const UNSEEDED: u64 = 0x1234_ABCD_330E;

fn random(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    const MOST: u32 = i32::MAX as u32;
    let part = f64::from(draw(lua) % MOST) / f64::from(MOST);
    let drawn = match lua.top() {
        0 => part,
        1 => {
            let most = lua.expect_integer(1, "random")?;
            if most < 1 {
                return Err(Raise::placed("bad argument #1 to 'random' (interval is empty)"));
            }
            (part * most as f64).floor() + 1.0
        }
        2 => {
            let (least, most) = (lua.expect_integer(1, "random")?, lua.expect_integer(2, "random")?);
            if least > most {
                return Err(Raise::placed("bad argument #2 to 'random' (interval is empty)"));
            }
            (part * most.saturating_sub(least).saturating_add(1) as f64).floor() + least as f64
        }
        _ => return Err(Raise::placed("wrong number of arguments")),
    };
    lua.push_number(drawn);
    Ok(1)
}

/// The processor time that the thread of the script has used, in seconds: what is used between two calls is the script's.
fn clock(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let used = process::cpu_time(Whose::Thread);
    lua.push_number((used.user + used.system).as_secs_f64());
    Ok(1)
}

fn randomseed(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let seed = lua.expect_integer(1, "randomseed")?;
    lua.shared().random.set(seeded(seed));
    Ok(0)
}
