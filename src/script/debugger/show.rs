//! Values of Lua and replies of commands, in the words that the debugger uses.

use crate::script::lua::{Lua, Type};
use crate::stdx::number::double::append_significant;
use crate::stdx::number::parse_i64;
use crate::stdx::words::quoted;

/// So many tables are shown one in another.
const DEPTH_MAX: usize = 10;
/// How deep a reply is followed: deeper than any of our commands' goes.
const REPLY_DEPTH_MAX: usize = 128;

/// A value of a script, as a piece of Lua where there is one that makes it.
pub fn value(lua: &mut Lua<'_>, at: i32) -> Vec<u8> {
    let mut out = Vec::new();
    let at = lua.absolute(at);
    append_value(lua, at, &mut out, 0);
    out
}

fn append_value(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, depth: usize) {
    if depth == DEPTH_MAX || !lua.room(8) {
        return out.extend_from_slice(b"<max recursion level reached! Nested table?>");
    }
    let kind = match lua.type_of(at) {
        Type::None | Type::Nil => return out.extend_from_slice(b"nil"),
        Type::Boolean => return out.extend_from_slice(if lua.truth(at) { b"true" } else { b"false" }),
        Type::Number => {
            let number = lua.number(at).unwrap_or(0.0);
            if number.is_nan() && number.is_sign_negative() {
                out.push(b'-');
            }
            return append_significant(out, number, 6);
        }
        Type::String => return out.extend(quoted(lua.bytes(at).unwrap_or_default())),
        Type::Table => return append_table(lua, at, out, depth + 1),
        Type::Function => "function",
        Type::Userdata => "userdata",
        Type::LightUserdata => "light-userdata",
        Type::Thread => "thread",
    };
    let place = match lua.identity(at) {
        0 => "(nil)".to_owned(),
        place => format!("{place:#x}"),
    };
    out.extend_from_slice(format!("\"{kind}@{place}\"").as_bytes());
}

/// A table whose keys are 1 and so on, in this order, is shown without them.
fn append_table(lua: &mut Lua<'_>, at: i32, out: &mut Vec<u8>, depth: usize) {
    let top = lua.top();
    // Of one that scripts may not change it is the one behind that has anything in it.
    let identity = lua.identity(at);
    let behind = lua.shared().protected.borrow().iter().find(|(front, _)| *front == identity).map(|(_, kept)| *kept);
    match behind {
        Some(kept) => lua.push_kept(kept),
        None => lua.push_value(at),
    }
    let table = lua.top();
    let mut is_list = true;
    let (mut list, mut pairs) = (Vec::new(), Vec::new());
    let mut expected = 1.0;
    lua.push_nil();
    while lua.next(table) {
        let (key, value) = (lua.top() - 1, lua.top());
        is_list &= lua.type_of(key) == Type::Number && lua.number(key) == Some(expected);
        expected += 1.0;
        if !list.is_empty() || !pairs.is_empty() {
            list.extend_from_slice(b"; ");
            pairs.extend_from_slice(b"; ");
        }
        let begin = list.len();
        append_value(lua, value, &mut list, depth);
        pairs.push(b'[');
        append_value(lua, key, &mut pairs, depth);
        pairs.extend_from_slice(b"]=");
        pairs.extend_from_slice(&list[begin..]);
        lua.set_top(key);
    }
    lua.set_top(top);
    out.push(b'{');
    out.extend_from_slice(if is_list { &list } else { &pairs });
    out.push(b'}');
}

/// A reply; `bytes` are one of our own, whole and well formed.
pub fn reply(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_reply(bytes, &mut out, 0);
    out
}

/// Appends the reply at the beginning of `bytes`; returns what is behind it.
fn append_reply<'b>(bytes: &'b [u8], out: &mut Vec<u8>, depth: usize) -> &'b [u8] {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n").filter(|end| *end > 0) else { return &[] };
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let count = parse_i64(&line[1..]).unwrap_or(0);
    if depth > REPLY_DEPTH_MAX {
        return &[];
    }
    let items = usize::try_from(count).unwrap_or(0);
    match line[0] {
        b'$' | b'*' if count < 0 => out.extend_from_slice(b"NULL"),
        b'$' => {
            out.extend(quoted(rest.get(..items).unwrap_or_default()));
            return rest.get(items + 2..).unwrap_or_default();
        }
        b'=' => {
            // Behind the name of the format.
            out.extend(quoted(rest.get(4..items).unwrap_or_default()));
            return rest.get(items + 2..).unwrap_or_default();
        }
        b'+' | b'-' => out.extend(quoted(line)),
        b'_' => out.extend_from_slice(b"(null)"),
        b'#' => out.extend_from_slice(if line == b"#t" { b"#true" } else { b"#false" }),
        b',' => {
            out.extend_from_slice(b"(double) ");
            out.extend_from_slice(&line[1..]);
        }
        b'*' | b'>' => return append_items(rest, out, items, depth, (b"[", b",", b"]")),
        b'~' => return append_items(rest, out, items, depth, (b"~(", b",", b")")),
        b'%' => return append_pairs(rest, out, items, depth),
        // Numbers, of any length.
        _ => out.extend_from_slice(&line[1..]),
    }
    rest
}

fn append_items<'b>(
    mut rest: &'b [u8],
    out: &mut Vec<u8>,
    items: usize,
    depth: usize,
    (open, between, close): (&[u8], &[u8], &[u8]),
) -> &'b [u8] {
    out.extend_from_slice(open);
    for item in 0..items {
        if item > 0 {
            out.extend_from_slice(between);
        }
        rest = append_reply(rest, out, depth + 1);
    }
    out.extend_from_slice(close);
    rest
}

fn append_pairs<'b>(mut rest: &'b [u8], out: &mut Vec<u8>, pairs: usize, depth: usize) -> &'b [u8] {
    out.push(b'{');
    for pair in 0..pairs {
        if pair > 0 {
            out.push(b',');
        }
        rest = append_reply(rest, out, depth + 1);
        out.extend_from_slice(b" => ");
        rest = append_reply(rest, out, depth + 1);
    }
    out.push(b'}');
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::lua::Interpreter;

    fn shown(code: &str) -> String {
        let mut interpreter = Interpreter::new();
        let mut lua = interpreter.lua();
        assert!(lua.compile(code.as_bytes(), b"@test"));
        lua.call(0, 1, 0);
        let top = lua.top();
        let text = String::from_utf8(value(&mut lua, -1)).unwrap();
        assert_eq!(lua.top(), top, "the stack is as it was");
        text
    }

    #[test]
    fn values_are_shown_as_lua_writes_them() {
        for (code, text) in [
            ("return", "nil"),
            ("return true", "true"),
            ("return 'a\\n\"\\0\\255'", r#""a\n\"\x00\xff""#),
            ("return {}", "{}"),
            ("return {1, 'x', {false}}", r#"{1; "x"; {false}}"#),
            ("return {[2] = 1}", "{[2]=1}"),
            ("return {['1'] = 1}", r#"{["1"]=1}"#),
            ("return {{}, {a = {}}}", r#"{{}; {["a"]={}}}"#),
            ("return {1, nil, 3}", "{[1]=1; [3]=3}"),
        ] {
            assert_eq!(shown(code), text, "{code}");
        }
        assert!(shown("return print").starts_with("\"function@0x"));
        assert!(shown("return coroutine.create(function() end)").starts_with("\"thread@0x"));
    }

    #[test]
    fn numbers_have_six_digits() {
        let numbers = "return {1.5, 1e100, -0.1, 123456789, 2^53, 1/0, -1/0, 100000, 1000000, 1e15, 0, 0.00001}";
        let text = "{1.5; 1e+100; -0.1; 1.23457e+08; 9.0072e+15; inf; -inf; 100000; 1e+06; 1e+15; 0; 1e-05}";
        assert_eq!(shown(numbers), text);
    }

    #[test]
    fn tables_in_tables_end_somewhere() {
        let deep = "<max recursion level reached! Nested table?>";
        let text = shown("local a = {} a.a = a return a");
        assert_eq!(text.matches(deep).count(), 2, "{text}");
        assert_eq!(shown(&format!("return {}1{}", "{".repeat(13), "}".repeat(13))), {
            format!("{}{deep}{}", "{".repeat(10), "}".repeat(10))
        });
    }

    #[test]
    fn replies_of_both_protocols_are_shown() {
        for (bytes, text) in [
            ("+OK\r\n", r#""+OK""#),
            ("-ERR x\r\n", r#""-ERR x""#),
            (":-5\r\n", "-5"),
            ("$3\r\na\r\n\r\n", r#""a\r\n""#),
            ("$-1\r\n", "NULL"),
            ("*-1\r\n", "NULL"),
            ("*0\r\n", "[]"),
            ("*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n", r#"["a",NULL,[1]]"#),
            ("%2\r\n+a\r\n:1\r\n+b\r\n_\r\n", r#"{"+a" => 1,"+b" => (null)}"#),
            ("~2\r\n$1\r\nm\r\n#t\r\n", r#"~("m",#true)"#),
            (",1.5\r\n", "(double) 1.5"),
            ("(12345678901234567890\r\n", "12345678901234567890"),
            ("=7\r\ntxt:abc\r\n", r#""abc""#),
            ("", ""),
            ("*2\r\n:1\r\n", "[1,]"),
        ] {
            assert_eq!(String::from_utf8(reply(bytes.as_bytes())).unwrap(), text, "{bytes:?}");
        }
    }
}
