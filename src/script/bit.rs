//! The library `bit`: operations on 32 bits, results signed.

use crate::script::lua::{Lua, Native, Raise};

/// Its functions.
pub const FUNCTIONS: &[(&str, Native)] = &[
    ("arshift", arshift),
    ("band", band),
    ("bnot", bnot),
    ("bor", bor),
    ("bswap", bswap),
    ("bxor", bxor),
    ("lshift", lshift),
    ("rol", rol),
    ("ror", ror),
    ("rshift", rshift),
    ("tobit", tobit),
    ("tohex", tohex),
];

/// The low 32 bits of the nearest whole number.
fn bits(lua: &Lua<'_>, at: i32, function: &str) -> Result<u32, Raise> {
    const RANGE: f64 = 4_294_967_296.0;
    let number = lua.expect_number(at, function)?.round_ties_even();
    Ok(if number.is_finite() { number.rem_euclid(RANGE) as u32 } else { 0 })
}

fn push(lua: &mut Lua<'_>, bits: u32) -> Result<usize, Raise> {
    lua.push_number(f64::from(bits as i32));
    Ok(1)
}

fn fold(lua: &mut Lua<'_>, function: &str, f: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let mut all = bits(lua, 1, function)?;
    for at in 2..=lua.top() {
        all = f(all, bits(lua, at, function)?);
    }
    push(lua, all)
}

fn shift(lua: &mut Lua<'_>, function: &str, f: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let (value, by) = (bits(lua, 1, function)?, bits(lua, 2, function)?);
    push(lua, f(value, by & 31))
}

fn tobit(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let value = bits(lua, 1, "tobit")?;
    push(lua, value)
}

fn bnot(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let value = bits(lua, 1, "bnot")?;
    push(lua, !value)
}

fn bswap(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let value = bits(lua, 1, "bswap")?;
    push(lua, value.swap_bytes())
}

fn band(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    fold(lua, "band", |a, b| a & b)
}

fn bor(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    fold(lua, "bor", |a, b| a | b)
}

fn bxor(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    fold(lua, "bxor", |a, b| a ^ b)
}

fn lshift(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    shift(lua, "lshift", |value, by| value << by)
}

fn rshift(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    shift(lua, "rshift", |value, by| value >> by)
}

fn arshift(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    shift(lua, "arshift", |value, by| (value as i32 >> by) as u32)
}

fn rol(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    shift(lua, "rol", u32::rotate_left)
}

fn ror(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    shift(lua, "ror", u32::rotate_right)
}

fn tohex(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let value = bits(lua, 1, "tohex")?;
    let digits = if lua.top() < 2 { 8 } else { bits(lua, 2, "tohex")? as i32 };
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let shown = digits.unsigned_abs().min(8) as usize;
    lua.push_bytes(&text.as_bytes()[8 - shown..]);
    Ok(1)
}
