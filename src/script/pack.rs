//! The library `struct`: values to bytes and back, by a format such as `>I2c0`.

use crate::script::lua::{Lua, Native, Raise, Type};

/// Its functions.
pub const FUNCTIONS: &[(&str, Native)] = &[("pack", pack), ("size", size), ("unpack", unpack)];

/// The widest integer, in bytes.
const INTEGER_MAX: usize = 32;
/// What `!` aligns to without a number.
const ALIGN_DEFAULT: usize = 8;
/// The longest result, in bytes.
const PACKED_MAX: usize = 512 * 1024 * 1024;

/// One letter of a format with what the number behind it and the letters before it mean for it.
#[derive(Debug, Clone, Copy)]
struct Item {
    letter: u8,
    size: usize,
    /// Bytes to be left out before it.
    padding: usize,
    little: bool,
}

/// Reads a format letter by letter.
struct Format<'f> {
    rest: &'f [u8],
    little: bool,
    align: usize,
    /// Whose format it is.
    function: &'static str,
}

impl<'f> Format<'f> {
    fn new(rest: &'f [u8], function: &'static str) -> Format<'f> {
        Format { rest, little: cfg!(target_endian = "little"), align: 1, function }
    }

    /// The number at the front, or `default`.
    fn number(&mut self, default: usize) -> Result<usize, Raise> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(default);
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let value = number.iter().try_fold(0usize, |value, digit| {
            value.checked_mul(10)?.checked_add(usize::from(digit - b'0')).filter(|value| *value <= i32::MAX as usize)
        });
        value.ok_or_else(|| Raise::placed("integral size overflow"))
    }

    /// The next item that stands for something, at `at` bytes from the beginning.
    fn next(&mut self, at: usize) -> Result<Option<Item>, Raise> {
        while let Some((&letter, rest)) = self.rest.split_first() {
            self.rest = rest;
            let size = match letter {
                b'b' | b'B' | b'x' => 1,
                b'h' | b'H' => 2,
                b'l' | b'L' | b'T' | b'd' => 8,
                b'f' => 4,
                b's' => 0,
                b'c' => self.number(1)?,
                b'i' | b'I' => {
                    let size = self.number(4)?;
                    if size > INTEGER_MAX {
                        return Err(Raise::placed(format!(
                            "integral size {size} is larger than limit of {INTEGER_MAX}"
                        )));
                    }
                    size
                }
                b' ' => continue,
                b'>' => {
                    self.little = false;
                    continue;
                }
                b'<' => {
                    self.little = true;
                    continue;
                }
                b'!' => {
                    self.align = self.number(ALIGN_DEFAULT)?;
                    if !self.align.is_power_of_two() {
                        return Err(Raise::placed(format!("alignment {} is not a power of 2", self.align)));
                    }
                    continue;
                }
                // What has no size adds nothing to one.
                _ if self.function == "size" => continue,
                other => {
                    let place = format!("bad argument #1 to '{}' (invalid format option '", self.function);
                    return Err(Raise::placed([place.as_bytes(), &[other], b"')"].concat()));
                }
            };
            let padding = if size == 0 || letter == b'c' {
                0
            } else {
                let unit = size.min(self.align);
                if unit.is_power_of_two() { (unit - (at & (unit - 1))) & (unit - 1) } else { 0 }
            };
            return Ok(Some(Item { letter, size, padding, little: self.little }));
        }
        Ok(None)
    }
}

fn pack(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let text = lua.expect_text(1, "pack")?;
    // An argument that is missing is told as nil.
    lua.push_nil();
    let mut format = Format::new(&text, "pack");
    let mut out = Vec::new();
    let mut argument = 1;
    while let Some(item) = format.next(out.len())? {
        out.resize(out.len() + item.padding, 0);
        match item.letter {
            b'x' => out.push(0),
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                argument += 1;
                let number = lua.expect_number(argument, "pack")?;
                append_integer(&mut out, number, item);
            }
            b'f' => {
                argument += 1;
                let number = lua.expect_number(argument, "pack")? as f32;
                out.extend(if item.little { number.to_le_bytes() } else { number.to_be_bytes() });
            }
            b'd' => {
                argument += 1;
                let number = lua.expect_number(argument, "pack")?;
                out.extend(if item.little { number.to_le_bytes() } else { number.to_be_bytes() });
            }
            _ => {
                argument += 1;
                let string = lua.expect_text(argument, "pack")?;
                let size = if item.size == 0 { string.len() } else { item.size };
                let Some(bytes) = string.get(..size) else {
                    return Err(Raise::placed(format!("bad argument #{} to 'pack' (string too short)", argument + 1)));
                };
                out.extend_from_slice(bytes);
                if item.letter == b's' {
                    out.push(0);
                }
            }
        }
        if out.len() > PACKED_MAX {
            return Err(Raise::placed("result too long"));
        }
    }
    lua.push_bytes(&out);
    Ok(1)
}

fn append_integer(out: &mut Vec<u8>, number: f64, item: Item) {
    const TWO_64: f64 = 18_446_744_073_709_551_616.0;
    // What is too large or no number becomes what Redis' processor makes of it.
    let value = if number.is_nan() || number < i64::MIN as f64 {
        1 << 63
    } else if number < 0.0 {
        number as i64 as u64
    } else if number < TWO_64 {
        number as u64
    } else {
        0
    };
    let mut bytes = [0; INTEGER_MAX];
    // Beyond eight bytes Redis has only zeros, for negative numbers too.
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    let bytes = &mut bytes[..item.size];
    if !item.little {
        bytes.reverse();
    }
    out.extend_from_slice(bytes);
}

fn unpack(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let text = lua.expect_text(1, "unpack")?;
    let data = lua.expect_text(2, "unpack")?;
    let position = if matches!(lua.type_of(3), Type::None | Type::Nil) { 1 } else { lua.expect_integer(3, "unpack")? };
    if position == 0 {
        return Err(Raise::placed("bad argument #3 to 'unpack' (offset must be 1 or greater)"));
    }
    let short = || Raise::placed("bad argument #2 to 'unpack' (data string too short)");
    let mut at = usize::try_from(position.saturating_sub(1)).map_err(|_| short())?;
    let mut format = Format::new(&text, "unpack");
    let mut results: usize = 0;
    while let Some(item) = format.next(at)? {
        at = at.saturating_add(item.padding);
        let rest = data.get(at..).filter(|rest| rest.len() >= item.size).ok_or_else(short)?;
        if !lua.room(2) {
            return Err(Raise::placed("too many results"));
        }
        let mut taken = item.size;
        match item.letter {
            b'x' => {
                at += taken;
                continue;
            }
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                lua.push_number(integer(&rest[..item.size], item));
            }
            b'f' => {
                let bytes = [rest[0], rest[1], rest[2], rest[3]];
                lua.push_number(f64::from(if item.little {
                    f32::from_le_bytes(bytes)
                } else {
                    f32::from_be_bytes(bytes)
                }));
            }
            b'd' => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&rest[..8]);
                lua.push_number(if item.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) });
            }
            b'c' => {
                if item.size == 0 {
                    if results == 0 || lua.type_of(-1) != Type::Number {
                        return Err(Raise::placed("format 'c0' needs a previous size"));
                    }
                    taken = lua.number(-1).filter(|size| *size >= 0.0).map_or(usize::MAX, |size| size as usize);
                    lua.pop(1);
                    results -= 1;
                }
                lua.push_bytes(rest.get(..taken).ok_or_else(short)?);
            }
            _ => {
                let Some(end) = memchr::memchr(0, rest) else { return Err(Raise::placed("unfinished string in data")) };
                lua.push_bytes(&rest[..end]);
                taken = end + 1;
            }
        }
        at += taken;
        results += 1;
    }
    lua.push_number((at + 1) as f64);
    Ok(results + 1)
}

fn integer(bytes: &[u8], item: Item) -> f64 {
    let mut low = [0; 8];
    for (i, to) in low.iter_mut().enumerate().take(bytes.len()) {
        *to = if item.little { bytes[i] } else { bytes[bytes.len() - 1 - i] };
    }
    let value = u64::from_le_bytes(low);
    if item.letter.is_ascii_uppercase() {
        return value as f64;
    }
    let unused = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    ((value << unused) as i64 >> unused) as f64
}

fn size(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    let text = lua.expect_text(1, "size")?;
    let mut format = Format::new(&text, "size");
    let mut at = 0usize;
    while let Some(item) = format.next(at)? {
        if item.letter == b's' {
            return Err(Raise::placed("bad argument #1 to 'size' (option 's' has no fixed size)"));
        }
        if item.letter == b'c' && item.size == 0 {
            return Err(Raise::placed("bad argument #1 to 'size' (option 'c0' has no fixed size)"));
        }
        at = at.saturating_add(item.padding + item.size);
    }
    lua.push_number(at as f64);
    Ok(1)
}
