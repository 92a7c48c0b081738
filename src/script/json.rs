//! The library `cjson`: values to JSON and back.

use crate::script::lua::{Lua, Native, Raise, Type};
use crate::stdx::number::parse_f64;

/// Its functions.
pub const FUNCTIONS: &[(&str, Native)] = &[
    ("decode", decode),
    ("decode_invalid_numbers", decode_invalid_numbers),
    ("decode_max_depth", decode_max_depth),
    ("encode", encode),
    ("encode_invalid_numbers", encode_invalid_numbers),
    ("encode_keep_buffer", encode_keep_buffer),
    ("encode_max_depth", encode_max_depth),
    ("encode_number_precision", encode_number_precision),
    ("encode_sparse_array", encode_sparse_array),
    ("new", new),
];

/// What it says about itself; scripts look for the name and version that they know.
pub const TEXTS: &[(&str, &str)] = &[("_NAME", "cjson"), ("_VERSION", "2.1.0")];

/// What becomes of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invalid {
    /// They are refused.
    Refuse,
    /// They are written and read as words of their own.
    Keep,
    /// They are written as null.
    Null,
}

/// How values are written and read; scripts may change it, for the interpreter's life.
#[derive(Debug, Clone)]
pub struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: usize,
    decode_depth: usize,
    precision: usize,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: Invalid,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refuse,
            decode_invalid: Invalid::Keep,
        }
    }
}

fn only_argument(lua: &Lua<'_>, function: &str) -> Result<(), Raise> {
    if lua.top() == 1 {
        return Ok(());
    }
    Err(Raise::placed(format!("bad argument #1 to '{function}' (expected 1 argument)")))
}

fn at_most(lua: &mut Lua<'_>, most: i32, function: &str) -> Result<(), Raise> {
    if lua.top() > most {
        return Err(Raise::placed(format!("bad argument #{} to '{function}' (found too many arguments)", most + 1)));
    }
    lua.set_top(most);
    Ok(())
}

/// An integer setting: changed where the argument is there, and pushed.
fn integer_setting(
    lua: &mut Lua<'_>,
    at: i32,
    function: &str,
    range: std::ops::RangeInclusive<i64>,
    old: i64,
) -> Result<i64, Raise> {
    let mut value = old;
    if lua.type_of(at) != Type::Nil {
        value = lua.expect_integer(at, function)?;
        if !range.contains(&value) {
            return Err(Raise::placed(format!(
                "bad argument #{at} to '{function}' (expected integer between {} and {})",
                range.start(),
                range.end()
            )));
        }
    }
    lua.push_number(value as f64);
    Ok(value)
}

fn flag_setting(lua: &mut Lua<'_>, at: i32, function: &str, old: bool) -> Result<bool, Raise> {
    let value = match lua.type_of(at) {
        Type::Nil => old,
        Type::Boolean => lua.truth(at),
        Type::String if lua.bytes(at) == Some(b"on") => true,
        Type::String if lua.bytes(at) == Some(b"off") => false,
        Type::String => {
            let given = lua.text(at).unwrap_or_default();
            return Err(Raise::placed(
                [format!("bad argument #{at} to '{function}' (invalid option '").as_bytes(), &given, b"')"].concat(),
            ));
        }
        _ => return Err(lua.wrong_type(at, function, "string")),
    };
    lua.push_boolean(value);
    Ok(value)
}

fn invalid_setting(lua: &mut Lua<'_>, function: &str, old: Invalid, null: bool) -> Result<Invalid, Raise> {
    let value = if null && lua.bytes(1) == Some(b"null") {
        Invalid::Null
    } else if lua.type_of(1) == Type::Nil {
        old
    } else if flag_setting(lua, 1, function, false)? {
        Invalid::Keep
    } else {
        Invalid::Refuse
    };
    match value {
        Invalid::Null => lua.push_bytes(b"null"),
        other => lua.push_boolean(other == Invalid::Keep),
    }
    Ok(value)
}

fn encode_sparse_array(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    const NAME: &str = "encode_sparse_array";
    at_most(lua, 3, NAME)?;
    let mut settings = lua.shared().json.borrow().clone();
    settings.sparse_convert = flag_setting(lua, 1, NAME, settings.sparse_convert)?;
    settings.sparse_ratio = integer_setting(lua, 2, NAME, 0..=i64::from(i32::MAX), settings.sparse_ratio)?;
    settings.sparse_safe = integer_setting(lua, 3, NAME, 0..=i64::from(i32::MAX), settings.sparse_safe)?;
    lua.shared().json.replace(settings);
    Ok(3)
}

fn encode_max_depth(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "encode_max_depth")?;
    let old = lua.shared().json.borrow().encode_depth as i64;
    let depth = integer_setting(lua, 1, "encode_max_depth", 1..=i64::from(i32::MAX), old)?;
    lua.shared().json.borrow_mut().encode_depth = usize::try_from(depth).unwrap_or(1);
    Ok(1)
}

fn decode_max_depth(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "decode_max_depth")?;
    let old = lua.shared().json.borrow().decode_depth as i64;
    let depth = integer_setting(lua, 1, "decode_max_depth", 1..=i64::from(i32::MAX), old)?;
    lua.shared().json.borrow_mut().decode_depth = usize::try_from(depth).unwrap_or(1);
    Ok(1)
}

fn encode_number_precision(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "encode_number_precision")?;
    let old = lua.shared().json.borrow().precision as i64;
    let precision = integer_setting(lua, 1, "encode_number_precision", 1..=14, old)?;
    lua.shared().json.borrow_mut().precision = usize::try_from(precision).unwrap_or(14);
    Ok(1)
}

fn encode_keep_buffer(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "encode_keep_buffer")?;
    let old = lua.shared().json.borrow().keep_buffer;
    let keep = flag_setting(lua, 1, "encode_keep_buffer", old)?;
    lua.shared().json.borrow_mut().keep_buffer = keep;
    Ok(1)
}

fn encode_invalid_numbers(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "encode_invalid_numbers")?;
    let old = lua.shared().json.borrow().encode_invalid;
    let invalid = invalid_setting(lua, "encode_invalid_numbers", old, true)?;
    lua.shared().json.borrow_mut().encode_invalid = invalid;
    Ok(1)
}

fn decode_invalid_numbers(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    at_most(lua, 1, "decode_invalid_numbers")?;
    let old = lua.shared().json.borrow().decode_invalid;
    let invalid = invalid_setting(lua, "decode_invalid_numbers", old, false)?;
    lua.shared().json.borrow_mut().decode_invalid = invalid;
    Ok(1)
}

/// A table of the same functions; its settings are those of the interpreter.
fn new(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    lua.push_table(0, FUNCTIONS.len() + TEXTS.len() + 1);
    for (name, native) in FUNCTIONS {
        lua.push_native(*native);
        lua.set_field(-2, name);
    }
    for (name, text) in TEXTS {
        lua.push_bytes(text.as_bytes());
        lua.set_field(-2, name);
    }
    lua.push_null();
    lua.set_field(-2, "null");
    Ok(1)
}

fn encode(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    only_argument(lua, "encode")?;
    let settings = lua.shared().json.borrow().clone();
    let mut out = Vec::new();
    append(lua, 1, &mut out, &settings, 0)?;
    lua.push_bytes(&out);
    Ok(1)
}

fn unserialisable(what: &str, why: &str) -> Raise {
    Raise::placed(format!("Cannot serialise {what}: {why}"))
}

fn append(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, settings: &Settings, depth: usize) -> Result<(), Raise> {
    match lua.type_of(at) {
        Type::String => append_string(out, lua.bytes(at).unwrap_or_default()),
        Type::Number => append_number(out, lua.number(at).unwrap_or(0.0), settings)?,
        Type::Boolean => out.extend_from_slice(if lua.truth(at) { b"true" } else { b"false" }),
        Type::Nil => out.extend_from_slice(b"null"),
        Type::LightUserdata if lua.is_null(at) => out.extend_from_slice(b"null"),
        Type::Table => append_table(lua, at, out, settings, depth + 1)?,
        other => return Err(unserialisable(other.name(), "type not supported")),
    }
    Ok(())
}

fn append_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | b'/' => out.extend([b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn append_number(out: &mut Vec<u8>, number: f64, settings: &Settings) -> Result<(), Raise> {
    if !number.is_finite() {
        match settings.encode_invalid {
            Invalid::Refuse => return Err(unserialisable("number", "must not be NaN or Inf")),
            Invalid::Null => out.extend_from_slice(b"null"),
            Invalid::Keep if number.is_nan() => out.extend_from_slice(b"nan"),
            Invalid::Keep => out.extend_from_slice(if number > 0.0 { b"inf" } else { b"-inf" }),
        }
        return Ok(());
    }
    append_general(out, number, settings.precision);
    Ok(())
}

/// A number as C's `%.{precision}g` writes it.
pub fn append_general(out: &mut Vec<u8>, number: f64, precision: usize) {
    if number == 0.0 {
        return out.extend_from_slice(if number.is_sign_negative() { b"-0" } else { b"0" });
    }
    let scientific = format!("{:.*e}", precision - 1, number);
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("which is a small number");
    let trimmed = |text: &str| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("{}e{sign}{:02}", trimmed(digits), exponent.abs()).as_bytes());
    } else {
        let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
        out.extend_from_slice(trimmed(&format!("{number:.decimals$}")).as_bytes());
    }
}

/// The length of the array that a table is; `None` where it is none, or has too many gaps and may be an object.
fn array_length(lua: &mut Lua<'_>, at: i32, settings: &Settings) -> Result<Option<usize>, Raise> {
    let (mut most, mut items) = (0.0, 0i64);
    let top = lua.top();
    lua.push_nil();
    while lua.next(at) {
        let key = lua.top() - 1;
        let number = lua.number(key).filter(|_| lua.type_of(key) == Type::Number);
        let Some(number) = number.filter(|number| *number >= 1.0 && number.fract() == 0.0) else {
            lua.set_top(top);
            return Ok(None);
        };
        most = f64::max(most, number);
        items += 1;
        lua.pop(1);
    }
    let ratio = settings.sparse_ratio;
    let sparse = ratio > 0 && most > (items * ratio) as f64 && most > settings.sparse_safe as f64;
    if sparse || most > items as f64 + HOLES_MAX {
        if !settings.sparse_convert {
            return Err(unserialisable("table", "excessively sparse array"));
        }
        return Ok(None);
    }
    Ok((items > 0).then_some(most as usize))
}

fn append_table(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, settings: &Settings, depth: usize) -> Result<(), Raise> {
    if depth > settings.encode_depth || depth > ENCODE_DEPTH_MAX || !lua.room(4) {
        return Err(Raise::placed(format!("Cannot serialise, excessive nesting ({depth})")));
    }
    let at = lua.absolute(at);
    if let Some(len) = array_length(lua, at, settings)? {
        out.push(b'[');
        for n in 1..=len {
            if n > 1 {
                out.push(b',');
            }
            lua.raw_element(at, n);
            let top = lua.top();
            append(lua, top, out, settings, depth)?;
            lua.pop(1);
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    let mut first = true;
    lua.push_nil();
    while lua.next(at) {
        let value = lua.top();
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match lua.type_of(value - 1) {
            Type::Number => {
                out.push(b'"');
                append_number(out, lua.number(value - 1).unwrap_or(0.0), settings)?;
                out.push(b'"');
            }
            Type::String => append_string(out, lua.bytes(value - 1).unwrap_or_default()),
            other => return Err(unserialisable(other.name(), "table key must be a number or string")),
        }
        out.push(b':');
        append(lua, value, out, settings, depth)?;
        lua.pop(1);
    }
    out.push(b'}');
    Ok(())
}

/// Deeper than this nothing is written, whatever scripts ask for: the native stack has an end.
const ENCODE_DEPTH_MAX: usize = 4000;
/// An array may lack so many elements, whatever a script says of sparse ones: nothing ends the loop that writes their nulls.
const HOLES_MAX: f64 = 1e6;
/// Deeper than this nothing is read.
const DECODE_DEPTH_MAX: usize = 2600;

fn decode(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    only_argument(lua, "decode")?;
    let text = lua.expect_text(1, "decode")?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Raise::placed("JSON parser does not support UTF-16 or UTF-32"));
    }
    let settings = lua.shared().json.borrow().clone();
    let mut parser = Parser { text: &text, at: 0, settings: &settings };
    let token = parser.next();
    parser.value(lua, token, 0)?;
    let token = parser.next();
    if !matches!(token.kind, Kind::End) {
        return Err(token.unexpected("the end"));
    }
    Ok(1)
}

/// What a piece of JSON is.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    End,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Bad(&'static str),
}

/// A piece of JSON and where it begins, counted from 0.
struct Token {
    kind: Kind,
    at: usize,
}

impl Token {
    fn unexpected(&self, expected: &str) -> Raise {
        let found = match &self.kind {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::String(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Bad(why) => why,
        };
        Raise::placed(format!("Expected {expected} but found {found} at character {}", self.at + 1))
    }
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    settings: &'t Settings,
}

impl Parser<'_> {
    fn next(&mut self) -> Token {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let Some(&byte) = self.text.get(at) else { return Token { kind: Kind::End, at } };
        self.at += 1;
        let kind = match byte {
            b'{' => Kind::ObjectBegin,
            b'}' => Kind::ObjectEnd,
            b'[' => Kind::ArrayBegin,
            b']' => Kind::ArrayEnd,
            b':' => Kind::Colon,
            b',' => Kind::Comma,
            b'"' => return self.string(at),
            b'-' | b'0'..=b'9' => self.number(at),
            // JSON has no such sign, but C reads it.
            b'+' if self.settings.decode_invalid == Invalid::Keep => self.number(at),
            _ => self.word(at),
        };
        Token { kind, at }
    }

    fn word(&mut self, at: usize) -> Kind {
        let rest = &self.text[at..];
        for (word, kind) in
            [(&b"true"[..], Kind::Boolean(true)), (b"false", Kind::Boolean(false)), (b"null", Kind::Null)]
        {
            if rest.starts_with(word) {
                self.at = at + word.len();
                return kind;
            }
        }
        let starts = |word: &[u8]| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word);
        if self.settings.decode_invalid == Invalid::Keep && (starts(b"inf") || starts(b"nan")) {
            return self.number(at);
        }
        Kind::Bad("invalid token")
    }

    /// A number as C reads it, unless it is none in JSON and only those are taken.
    fn number(&mut self, at: usize) -> Kind {
        let rest = &self.text[at..];
        let sign = usize::from(matches!(rest[0], b'-' | b'+'));
        let body = &rest[sign..];
        let lower = |i: usize| body.get(i).map(u8::to_ascii_lowercase);
        let hex = body.first() == Some(&b'0') && lower(1) == Some(b'x');
        let word = matches!(lower(0), Some(b'i' | b'n'));
        let octal = body.first() == Some(&b'0') && body.get(1).is_some_and(u8::is_ascii_digit);
        if (hex || word || octal) && self.settings.decode_invalid != Invalid::Keep {
            return Kind::Bad("invalid number");
        }
        let negate = |value: f64| if rest[0] == b'-' { -value } else { value };
        if word {
            let is = |word: &[u8]| body.len() >= word.len() && body[..word.len()].eq_ignore_ascii_case(word);
            let (value, len) = if is(b"infinity") {
                (f64::INFINITY, 8)
            } else if is(b"inf") {
                (f64::INFINITY, 3)
            } else if is(b"nan") {
                (f64::NAN, 3)
            } else {
                return Kind::Bad("invalid number");
            };
            self.at = at + sign + len;
            return Kind::Number(negate(value));
        }
        if hex {
            let digits = body[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            if digits > 0 {
                let value = body[2..2 + digits]
                    .iter()
                    .fold(0.0, |value, digit| value * 16.0 + f64::from(char::from(*digit).to_digit(16).unwrap_or(0)));
                self.at = at + sign + 2 + digits;
                return Kind::Number(negate(value));
            }
        }
        let digits = |from: usize| body[from.min(body.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut len = digits(0);
        let whole = len;
        let mut fraction = 0;
        if body.get(len) == Some(&b'.') {
            fraction = digits(len + 1);
            len += 1 + fraction;
        }
        if whole + fraction == 0 {
            return Kind::Bad("invalid number");
        }
        if lower(len) == Some(b'e') {
            let signed = usize::from(matches!(body.get(len + 1), Some(b'+' | b'-')));
            let exponent = digits(len + 1 + signed);
            if exponent > 0 {
                len += 1 + signed + exponent;
            }
        }
        self.at = at + sign + len;
        let text = std::str::from_utf8(&rest[..sign + len]).unwrap_or_default();
        let value = text.parse().ok().or_else(|| parse_f64(text.as_bytes()));
        value.map_or(Kind::Bad("invalid number"), Kind::Number)
    }

    fn string(&mut self, at: usize) -> Token {
        let mut out = Vec::new();
        loop {
            let start = self.at;
            let Some(&byte) = self.text.get(start) else {
                return Token { kind: Kind::Bad("unexpected end of string"), at: start };
            };
            self.at += 1;
            match byte {
                b'"' => return Token { kind: Kind::String(out), at },
                b'\\' => {
                    let escaped = self.text.get(self.at).copied();
                    self.at += 1;
                    match escaped {
                        Some(b'"' | b'\\' | b'/') => out.extend(escaped),
                        Some(b'b') => out.push(8),
                        Some(b't') => out.push(9),
                        Some(b'n') => out.push(10),
                        Some(b'f') => out.push(12),
                        Some(b'r') => out.push(13),
                        Some(b'u') => match self.unicode(start) {
                            Some(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
                            None => return Token { kind: Kind::Bad("invalid unicode escape code"), at: start },
                        },
                        _ => return Token { kind: Kind::Bad("invalid escape code"), at: start },
                    }
                }
                _ => out.push(byte),
            }
        }
    }

    /// The character of the escape that begins at `start`, which may need a second one behind it.
    fn unicode(&mut self, start: usize) -> Option<char> {
        let unit = |at: usize| -> Option<u32> {
            let digits = self.text.get(at..at + 6).filter(|text| text.starts_with(b"\\u"))?;
            digits[2..].iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
        };
        let first = unit(start)?;
        if let Some(char) = char::from_u32(first) {
            self.at = start + 6;
            return Some(char);
        }
        let second = unit(start + 6).filter(|second| (0xDC00..0xE000).contains(second))?;
        let char = (first < 0xDC00).then(|| 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))?;
        self.at = start + 12;
        char::from_u32(char)
    }

    fn value(&mut self, lua: &mut Lua<'_>, token: Token, depth: usize) -> Result<(), Raise> {
        match token.kind {
            Kind::String(ref text) => lua.push_bytes(text),
            Kind::Number(number) => lua.push_number(number),
            Kind::Boolean(value) => lua.push_boolean(value),
            Kind::Null => lua.push_null(),
            Kind::ObjectBegin | Kind::ArrayBegin => {
                let depth = depth + 1;
                if depth > self.settings.decode_depth || depth > DECODE_DEPTH_MAX || !lua.room(3) {
                    return Err(Raise::placed(format!(
                        "Found too many nested data structures ({depth}) at character {}",
                        self.at
                    )));
                }
                lua.push_table(0, 0);
                if token.kind == Kind::ObjectBegin { self.object(lua, depth)? } else { self.array(lua, depth)? }
            }
            _ => return Err(token.unexpected("value")),
        }
        Ok(())
    }

    fn object(&mut self, lua: &mut Lua<'_>, depth: usize) -> Result<(), Raise> {
        let mut token = self.next();
        if token.kind == Kind::ObjectEnd {
            return Ok(());
        }
        loop {
            match &token.kind {
                Kind::String(key) => lua.push_bytes(key),
                _ => return Err(token.unexpected("object key string")),
            }
            let colon = self.next();
            if colon.kind != Kind::Colon {
                return Err(colon.unexpected("colon"));
            }
            let value = self.next();
            self.value(lua, value, depth)?;
            lua.raw_set(-3);
            let after = self.next();
            match after.kind {
                Kind::ObjectEnd => return Ok(()),
                Kind::Comma => token = self.next(),
                _ => return Err(after.unexpected("comma or object end")),
            }
        }
    }

    fn array(&mut self, lua: &mut Lua<'_>, depth: usize) -> Result<(), Raise> {
        let mut token = self.next();
        if token.kind == Kind::ArrayEnd {
            return Ok(());
        }
        for n in 1.. {
            self.value(lua, token, depth)?;
            lua.set_element(-2, n);
            let after = self.next();
            match after.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(after.unexpected("comma or array end")),
            }
        }
        Ok(())
    }
}
