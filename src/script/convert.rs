//! Replies become values, and values replies.
//!
//! The rules are Redis': RESP2's null is `false`, RESP3's `nil`; a status, an error and whatever Lua has no type for is a
//! table with one field that says what it is.

use crate::resp::reply::{Output, Protocol};
use crate::script::lua::{Lua, Raise, Type};
use crate::stdx::number::{parse_f64, parse_i64};

/// How deep values may be nested in a reply: as deep as Redis' stack lets them.
const DEPTH_MAX: usize = 7995;

/// Pushes the reply at the start of `bytes`, which is whole and well formed; returns what follows it.
pub fn push_reply<'b>(lua: &mut Lua<'_>, bytes: &'b [u8]) -> Result<&'b [u8], Raise> {
    if !lua.room(8) {
        return Err(Raise::placed("stack overflow"));
    }
    let (kind, line, rest) = head(bytes);
    let count = || usize::try_from(parse_i64(line).unwrap_or(0)).unwrap_or(0);
    match kind {
        b'+' => {
            lua.push_table(0, 1);
            lua.push_bytes(line);
            lua.set_field(-2, "ok");
        }
        b'-' => {
            lua.shared().narrate_error_reply(line);
            lua.push_error_reply(line, true);
        }
        b':' => lua.push_number(parse_i64(line).unwrap_or(0) as f64),
        b'$' | b'*' if line == b"-1" => lua.push_boolean(false),
        b'$' => {
            let (text, rest) = rest.split_at(count());
            lua.push_bytes(text);
            return Ok(&rest[2..]);
        }
        b'*' | b'>' => return push_elements(lua, count(), rest),
        b'_' => lua.push_nil(),
        b'#' => lua.push_boolean(line == b"t"),
        b',' => {
            lua.push_table(0, 1);
            lua.push_number(parse_f64(line).unwrap_or(f64::NAN));
            lua.set_field(-2, "double");
        }
        b'(' => {
            lua.push_table(0, 1);
            lua.push_bytes(line);
            lua.set_field(-2, "big_number");
        }
        b'=' => {
            let (text, rest) = rest.split_at(count());
            lua.push_table(0, 1);
            lua.push_table(0, 2);
            lua.push_bytes(&text[..3]);
            lua.set_field(-2, "format");
            lua.push_bytes(&text[4..]);
            lua.set_field(-2, "string");
            lua.set_field(-2, "verbatim_string");
            return Ok(&rest[2..]);
        }
        b'%' => {
            lua.push_table(0, 1);
            lua.push_table(0, count());
            let mut rest = rest;
            for _ in 0..count() {
                rest = push_reply(lua, rest)?;
                rest = push_reply(lua, rest)?;
                set_pair(lua);
            }
            lua.set_field(-2, "map");
            return Ok(rest);
        }
        b'~' => {
            lua.push_table(0, 1);
            lua.push_table(0, count());
            let mut rest = rest;
            for _ in 0..count() {
                rest = push_reply(lua, rest)?;
                lua.push_boolean(true);
                set_pair(lua);
            }
            lua.set_field(-2, "set");
            return Ok(rest);
        }
        b'|' => {
            // Descriptions are not shown to scripts.
            let top = lua.top();
            let mut rest = rest;
            for _ in 0..2 * count() {
                rest = push_reply(lua, rest)?;
                lua.set_top(top);
            }
            return push_reply(lua, rest);
        }
        other => panic!("our own reply begins with byte {other}"),
    }
    Ok(rest)
}

/// Puts the pair on top into the table under it, unless its key can be none: a null in a set.
fn set_pair(lua: &mut Lua<'_>) {
    if lua.type_of(-2) == Type::Nil {
        lua.pop(2);
    } else {
        lua.raw_set(-3);
    }
}

fn push_elements<'b>(lua: &mut Lua<'_>, count: usize, mut rest: &'b [u8]) -> Result<&'b [u8], Raise> {
    lua.push_table(count, 0);
    for n in 1..=count {
        rest = push_reply(lua, rest)?;
        lua.set_element(-2, n);
    }
    Ok(rest)
}

/// The kind of a reply, the rest of its line, and what follows the line.
fn head(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let end = memchr::memchr(b'\r', bytes).expect("our own replies are whole");
    (bytes[0], &bytes[1..end], &bytes[end + 2..])
}

/// The errors in a reply of a script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Errors {
    /// Whether there is one.
    pub any: bool,
    /// Those that no statistics know of: their lines.
    pub uncounted: Vec<Vec<u8>>,
}

struct Writer<'o> {
    script: Protocol,
    out: &'o mut Output,
    errors: Errors,
}

/// Writes the value at `at` as a reply, and returns the errors in it. `script` is the protocol that the script has chosen: one that knows RESP3
/// means its booleans as such.
pub fn write_value(lua: &mut Lua<'_>, at: i32, script: Protocol, out: &mut Output) -> Errors {
    let mut writer = Writer { script, out, errors: Errors::default() };
    writer.write_nested(lua, at, 0);
    writer.errors
}

impl Writer<'_> {
    fn write_nested(&mut self, lua: &mut Lua<'_>, at: i32, depth: usize) {
        match lua.type_of(at) {
            Type::String => self.out.bulk(lua.bytes(at).unwrap_or_default()),
            Type::Number => self.out.integer(integer(lua.number(at).unwrap_or(0.0))),
            Type::Boolean if self.script == Protocol::Resp3 => self.out.boolean(lua.truth(at)),
            Type::Boolean if lua.truth(at) => self.out.integer(1),
            Type::Table => {
                if depth >= DEPTH_MAX || !lua.room(4) {
                    return self.out.error("ERR reached lua stack limit");
                }
                let at = lua.absolute(at);
                let top = lua.top();
                self.write_table(lua, at, depth + 1);
                lua.set_top(top);
            }
            _ => self.out.null(),
        }
    }

    fn write_table(&mut self, lua: &mut Lua<'_>, at: i32, depth: usize) {
        if lua.raw_field(at, "err") == Type::String {
            self.errors.any = true;
            let line = lua.bytes(-1).unwrap_or_default();
            self.out.error_bytes(line);
            let line = line.to_vec();
            lua.pop(1);
            if lua.raw_field(at, "ignore_error_stats_update") == Type::Nil {
                self.errors.uncounted.push(line);
            }
            return;
        }
        lua.pop(1);
        if lua.raw_field(at, "ok") == Type::String {
            self.out.raw(b"+");
            let line: Vec<u8> = lua
                .bytes(-1)
                .unwrap_or_default()
                .iter()
                .map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b })
                .collect();
            self.out.raw(&line);
            return self.out.raw(b"\r\n");
        }
        lua.pop(1);
        if lua.raw_field(at, "double") == Type::Number {
            return self.out.double(lua.number(-1).unwrap_or(0.0));
        }
        lua.pop(1);
        if lua.raw_field(at, "map") == Type::Table {
            let map = lua.top();
            let deferred = self.out.defer();
            let mut pairs = 0;
            lua.push_nil();
            while lua.next(map) {
                let value = lua.top();
                self.write_nested(lua, value - 1, depth);
                self.write_nested(lua, value, depth);
                lua.pop(1);
                pairs += 1;
            }
            return self.out.finish_map(deferred, pairs);
        }
        lua.pop(1);
        if lua.raw_field(at, "set") == Type::Table {
            let set = lua.top();
            let deferred = self.out.defer();
            let mut members = 0;
            lua.push_nil();
            while lua.next(set) {
                let member = lua.top() - 1;
                self.write_nested(lua, member, depth);
                lua.pop(1);
                members += 1;
            }
            return self.out.finish_set(deferred, members);
        }
        lua.pop(1);
        if lua.raw_field(at, "big_number") == Type::String {
            let digits: Vec<u8> = lua
                .bytes(-1)
                .unwrap_or_default()
                .iter()
                .map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b })
                .collect();
            return match self.out.protocol() {
                Protocol::Resp2 => self.out.bulk(&digits),
                Protocol::Resp3 => {
                    self.out.raw(b"(");
                    self.out.raw(&digits);
                    self.out.raw(b"\r\n");
                }
            };
        }
        lua.pop(1);
        if lua.raw_field(at, "verbatim_string") == Type::Table {
            let verbatim = lua.top();
            if lua.raw_field(verbatim, "format") == Type::String && lua.raw_field(verbatim, "string") == Type::String {
                let format = String::from_utf8_lossy(lua.bytes(-2).unwrap_or_default()).into_owned();
                return self.out.verbatim(&format, lua.bytes(-1).unwrap_or_default());
            }
            lua.set_top(verbatim);
        }
        lua.pop(1);
        let deferred = self.out.defer();
        let mut elements = 0;
        while lua.raw_element(at, elements + 1) != Type::Nil {
            let element = lua.top();
            self.write_nested(lua, element, depth);
            lua.pop(1);
            elements += 1;
        }
        self.out.finish_array(deferred, elements);
    }
}

/// What a C program makes of a double: everything that does not fit is the smallest integer.
fn integer(number: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) { number as i64 } else { i64::MIN }
}
