//! The library `cmsgpack`: values to MessagePack and back.

use crate::script::lua::{Lua, Native, Raise, Type};

/// Its functions.
pub const FUNCTIONS: &[(&str, Native)] =
    &[("pack", pack), ("unpack", unpack), ("unpack_limit", unpack_limit), ("unpack_one", unpack_one)];

/// What it says about itself; scripts look for the name and version that they know.
pub const TEXTS: &[(&str, &str)] = &[
    ("_NAME", "cmsgpack"),
    ("_VERSION", "lua-cmsgpack 0.4.0"),
    ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
    ("_DESCRIPTION", "MessagePack C implementation for Lua"),
];

/// Tables nested deeper than this are packed as nil.
const PACK_DEPTH_MAX: usize = 16;
/// How deep what is unpacked may be nested: Lua's stack ends there.
const UNPACK_DEPTH_MAX: usize = 1990;

fn pack(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let arguments = lua.top();
    if arguments == 0 {
        return Err(Raise::placed("bad argument #0 to 'pack' (MessagePack pack needs input.)"));
    }
    if !lua.room(3) {
        return Err(Raise::placed("bad argument #0 to 'pack' (Too many arguments for MessagePack pack.)"));
    }
    let mut out = Vec::new();
    for at in 1..=arguments {
        append(lua, at, &mut out, 0);
    }
    lua.push_bytes(&out);
    Ok(1)
}

fn append(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, depth: usize) {
    match lua.type_of(at) {
        Type::String => append_string(out, lua.bytes(at).unwrap_or_default()),
        Type::Boolean => out.push(if lua.truth(at) { 0xC3 } else { 0xC2 }),
        Type::Number => append_number(out, lua.number(at).unwrap_or(0.0)),
        Type::Table if depth < PACK_DEPTH_MAX && lua.room(4) => append_table(lua, at, out, depth + 1),
        _ => out.push(0xC0),
    }
}

/// Appends the head of something with a length: in the byte of the kind itself, or in two or four behind it.
fn append_length(out: &mut Vec<u8>, len: usize, short: (u8, usize), two: u8) {
    if len <= short.1 {
        out.push(short.0 | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(two);
        out.extend(len.to_be_bytes());
    } else {
        out.push(two + 1);
        out.extend((len as u32).to_be_bytes());
    }
}

fn append_string(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(len) if len > 31 => out.extend([0xD9, len]),
        _ => append_length(out, bytes.len(), (0xA0, 31), 0xDA),
    }
    out.extend_from_slice(bytes);
}

fn append_number(out: &mut Vec<u8>, number: f64) {
    const RANGE: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    if !RANGE.contains(&number) || number as i64 as f64 != number {
        if f64::from(number as f32) == number {
            out.push(0xCA);
            out.extend((number as f32).to_be_bytes());
        } else {
            out.push(0xCB);
            out.extend(number.to_be_bytes());
        }
        return;
    }
    let n = number as i64;
    match n {
        -32..=127 => out.push(n as u8),
        128..=0xFF => out.extend([0xCC, n as u8]),
        0x100..=0xFFFF => {
            out.push(0xCD);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.push(0xCE);
            out.extend((n as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xCF);
            out.extend(n.to_be_bytes());
        }
        -0x80..=-33 => out.extend([0xD0, n as u8]),
        -0x8000..=-0x81 => {
            out.push(0xD1);
            out.extend((n as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xD2);
            out.extend((n as i32).to_be_bytes());
        }
        _ => {
            out.push(0xD3);
            out.extend(n.to_be_bytes());
        }
    }
}

fn append_table(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, depth: usize) {
    let at = lua.absolute(at);
    let (mut fields, mut most, mut array) = (0usize, 0.0, true);
    lua.push_nil();
    while lua.next(at) {
        fields += 1;
        let key = lua.top() - 1;
        match lua.number(key).filter(|_| lua.type_of(key) == Type::Number) {
            Some(number) if number > 0.0 && number.fract() == 0.0 => most = f64::max(most, number),
            _ => array = false,
        }
        lua.pop(1);
    }
    if array && most == fields as f64 {
        append_length(out, fields, (0x90, 15), 0xDC);
        for n in 1..=fields {
            lua.raw_element(at, n);
            let top = lua.top();
            append(lua, top, out, depth);
            lua.pop(1);
        }
        return;
    }
    append_length(out, fields, (0x80, 15), 0xDE);
    lua.push_nil();
    while lua.next(at) {
        let value = lua.top();
        append(lua, value - 1, out, depth);
        append(lua, value, out, depth);
        lua.pop(1);
    }
}

/// Why bytes could not be unpacked.
enum Bad {
    Short,
    Format,
    Deep,
    /// A value that cannot be a key.
    Key(&'static str),
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], Bad> {
        let taken = self.bytes[self.at..].get(..n).ok_or(Bad::Short)?;
        self.at += n;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn value(&mut self, lua: &mut Lua<'_>, depth: usize) -> Result<(), Bad> {
        if depth > UNPACK_DEPTH_MAX || !lua.room(4) {
            return Err(Bad::Deep);
        }
        let kind = self.fixed::<1>()?[0];
        match kind {
            0x00..=0x7F => lua.push_number(f64::from(kind)),
            0x80..=0x8F => self.map(lua, usize::from(kind & 15), depth)?,
            0x90..=0x9F => self.array(lua, usize::from(kind & 15), depth)?,
            0xA0..=0xBF => lua.push_bytes(self.take(usize::from(kind & 31))?),
            0xC0 => lua.push_nil(),
            0xC2 | 0xC3 => lua.push_boolean(kind == 0xC3),
            0xCA => lua.push_number(f64::from(f32::from_be_bytes(self.fixed()?))),
            0xCB => lua.push_number(f64::from_be_bytes(self.fixed()?)),
            0xCC => lua.push_number(f64::from(self.fixed::<1>()?[0])),
            0xCD => lua.push_number(f64::from(u16::from_be_bytes(self.fixed()?))),
            0xCE => lua.push_number(f64::from(u32::from_be_bytes(self.fixed()?))),
            0xCF => lua.push_number(u64::from_be_bytes(self.fixed()?) as f64),
            0xD0 => lua.push_number(f64::from(i8::from_be_bytes(self.fixed()?))),
            0xD1 => lua.push_number(f64::from(i16::from_be_bytes(self.fixed()?))),
            0xD2 => lua.push_number(f64::from(i32::from_be_bytes(self.fixed()?))),
            0xD3 => lua.push_number(i64::from_be_bytes(self.fixed()?) as f64),
            0xD9 => {
                let len = usize::from(self.fixed::<1>()?[0]);
                lua.push_bytes(self.take(len)?);
            }
            0xDA => {
                let len = usize::from(u16::from_be_bytes(self.fixed()?));
                lua.push_bytes(self.take(len)?);
            }
            0xDB => {
                let len = u32::from_be_bytes(self.fixed()?) as usize;
                lua.push_bytes(self.take(len)?);
            }
            0xDC => {
                let len = usize::from(u16::from_be_bytes(self.fixed()?));
                self.array(lua, len, depth)?;
            }
            0xDD => {
                let len = u32::from_be_bytes(self.fixed()?) as usize;
                self.array(lua, len, depth)?;
            }
            0xDE => {
                let len = usize::from(u16::from_be_bytes(self.fixed()?));
                self.map(lua, len, depth)?;
            }
            0xDF => {
                let len = u32::from_be_bytes(self.fixed()?) as usize;
                self.map(lua, len, depth)?;
            }
            0xE0..=0xFF => lua.push_number(f64::from(kind as i8)),
            _ => return Err(Bad::Format),
        }
        Ok(())
    }

    fn array(&mut self, lua: &mut Lua<'_>, len: usize, depth: usize) -> Result<(), Bad> {
        lua.push_table(0, 0);
        for n in 1..=len {
            self.value(lua, depth + 1)?;
            lua.set_element(-2, n);
        }
        Ok(())
    }

    fn map(&mut self, lua: &mut Lua<'_>, len: usize, depth: usize) -> Result<(), Bad> {
        lua.push_table(0, 0);
        for _ in 0..len {
            self.value(lua, depth + 1)?;
            self.value(lua, depth + 1)?;
            match lua.type_of(-2) {
                Type::Nil => return Err(Bad::Key("table index is nil")),
                Type::Number if lua.number(-2).is_some_and(f64::is_nan) => return Err(Bad::Key("table index is NaN")),
                _ => {}
            }
            lua.raw_set(-3);
        }
        Ok(())
    }
}

/// Unpacks `limit` values (0: all) from `offset` on; with a limit, the offset of what follows comes first, -1 at the end.
fn unpack_some(lua: &mut Lua<'_>, limit: i64, offset: i64) -> Result<usize, Raise> {
    if lua.text(1).is_none() {
        return Err(lua.wrong_type(1, "unpack", "string"));
    }
    let bytes = lua.expect_text(1, "unpack")?;
    if offset < 0 || limit < 0 {
        return Err(Raise::placed(format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            bytes.len()
        )));
    }
    if offset > bytes.len() as i64 {
        return Err(Raise::placed(format!("Start offset {offset} greater than input length {}.", bytes.len())));
    }
    let all = limit == 0;
    let mut reader = Reader { bytes: &bytes, at: usize::try_from(offset).unwrap_or(0) };
    let first = lua.top() + 1;
    let mut values = 0;
    while reader.at < bytes.len() && (all || values < limit) {
        match reader.value(lua, 0) {
            Ok(()) => values += 1,
            Err(Bad::Short) => return Err(Raise::placed("Missing bytes in input.")),
            Err(Bad::Key(why)) => return Err(Raise::Text(why.into())),
            Err(Bad::Format) => return Err(Raise::placed("Bad data format in input.")),
            Err(Bad::Deep) => return Err(Raise::placed("stack overflow (Function call stack overflow)")),
        }
    }
    if !all {
        let next = if reader.at < bytes.len() { reader.at as f64 } else { -1.0 };
        lua.push_number(next);
        lua.insert(first);
        values += 1;
    }
    Ok(usize::try_from(values).unwrap_or(0))
}

fn unpack(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    unpack_some(lua, 0, 0)
}

fn optional(lua: &Lua<'_>, at: i32, function: &str) -> Result<i64, Raise> {
    if matches!(lua.type_of(at), Type::None | Type::Nil) { Ok(0) } else { lua.expect_integer(at, function) }
}

fn unpack_one(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let offset = optional(lua, 2, "unpack_one")?;
    unpack_some(lua, 1, offset)
}

fn unpack_limit(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let limit = lua.expect_integer(2, "unpack_limit")?;
    let offset = optional(lua, 3, "unpack_limit")?;
    unpack_some(lua, limit, offset)
}
