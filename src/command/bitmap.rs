//! Bitmaps: strings as rows of bits that are set, counted, found and combined, and integers of any width in them.
//!
//! What must stay true: a string is as long as the farthest bit that was written, and zeros fill what is between.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::string::{bytes_of, edit};
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::{Expiry, Key};
use crate::keyspace::entry::Str;
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::parse_i64;
use crate::types::bitmap::{Field, Operation, Overflow, bit, combine, count_within, position, set_bit};

/// This family's commands.
pub const COMMANDS: &[Command] = &[BITCOUNT, BITFIELD, BITFIELD_RO, BITOP, BITPOS, GETBIT, SETBIT];

/// What most declarations of this file have in common.
const BITMAP: Command = Command {
    name: "",
    since: "2.2.0",
    group: Group::Bitmap,
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: getbit,
};

const BAD_OFFSET: Error = Error::Text(Cow::Borrowed("ERR bit offset is not an integer or out of range"));
const BAD_BIT: Error = Error::Text(Cow::Borrowed("ERR bit is not an integer or out of range"));
const BAD_TYPE: Error = Error::Text(Cow::Borrowed(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
));

/// The number of a bit; `#n` is the n-th field of a width, where there is one.
fn bit_offset(ctx: &Context<'_>, text: &[u8], width: Option<u32>) -> Result<u64, Error> {
    let offset = match (text.strip_prefix(b"#"), width) {
        (Some(n), Some(width)) => parse_i64(n).and_then(|n| n.checked_mul(width.into())),
        _ => parse_i64(text),
    };
    let offset = offset.and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset / 8 < ctx.config.proto_max_bulk_len).ok_or(BAD_OFFSET)
}

/// How many bytes a string has whose last bit is before `end`.
fn bytes_until(end: u64) -> usize {
    usize::try_from(end.div_ceil(8)).unwrap_or(usize::MAX)
}

/// Changes the bytes of a string, which is created or made `len` long where it is shorter; `change` is told
/// whether that was so.
fn change<R>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    len: usize,
    change: impl FnOnce(&mut [u8], bool) -> R,
) -> Result<R, Error> {
    let Some(old) = ctx.db.look(key).map(|entry| bytes_of(entry.value()).map(|bytes| bytes.len())).transpose()? else {
        let mut bytes = vec![0; len];
        let result = change(&mut bytes, true);
        ctx.db.set(key, Str::Large(Arc::new(bytes)), Expiry::Clear);
        return Ok(result);
    };
    let changed = ctx.db.update(key, |entry| edit(entry, len, |bytes| change(bytes, old < len)));
    changed.flatten().ok_or(Error::WrongType)
}

/// Sets or clears a bit; replies with what it was.
pub const SETBIT: Command = Command {
    name: "SETBIT",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key offset value:integer",
    summary: "Sets or clears the bit at offset of the string value. Creates the key if it doesn't exist.",
    run: setbit,
    ..BITMAP
};

fn setbit(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let offset = bit_offset(ctx, args.at(2), None)?;
    let on = match parse_i64(args.at(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(BAD_BIT),
    };
    let key = args.key(&ctx.db, 1);
    let (was, grown) = change(ctx, &key, bytes_until(offset + 1), |bytes, grown| (set_bit(bytes, offset, on), grown))?;
    if grown || was != on {
        ctx.db.note(&key, Class::String, "setbit");
    }
    ctx.out.integer(was.into());
    DONE
}

/// A bit; those beyond the end are 0.
pub const GETBIT: Command = Command {
    name: "GETBIT",
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly, Flag::Fast],
    usage: "key offset",
    summary: "Returns a bit value by offset.",
    run: getbit,
    ..BITMAP
};

fn getbit(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let offset = bit_offset(ctx, args.at(2), None)?;
    let key = args.key(&ctx.db, 1);
    let bytes = ctx.db.read(&key).map(|entry| bytes_of(entry.value())).transpose()?;
    let set = bytes.is_some_and(|bytes| bit(&bytes, offset));
    ctx.out.integer(set.into());
    DONE
}

/// What BITCOUNT and BITPOS look at: the arguments from `start` on.
struct Bounds {
    start: i64,
    end: Option<i64>,
    /// Both count bits, not bytes.
    bits: bool,
}

impl Bounds {
    /// Reads `[start [end [BYTE | BIT]]]`.
    fn parse(args: &Args<'_>, from: usize) -> Result<Option<Bounds>, Error> {
        if args.len() == from {
            return Ok(None);
        }
        if args.len() > from + 3 {
            return Err(Error::Syntax);
        }
        let start = args.integer(from)?;
        let unit = args.opt(from + 2).map(|unit| word(unit, &["BYTE", "BIT"]).ok_or(Error::Syntax)).transpose()?;
        let end = if args.len() > from + 1 { Some(args.integer(from + 1)?) } else { None };
        Ok(Some(Bounds { start, end, bits: unit == Some("BIT") }))
    }

    /// The bits that are meant, of a string of `len` bytes. Both ends are taken into it.
    fn of(&self, len: usize) -> Range<u64> {
        let unit = if self.bits { 1 } else { 8 };
        let total = (len as i64) * 8 / unit;
        let from_end = |at: i64| if at < 0 { (at + total).max(0) } else { at };
        let (start, last) = (from_end(self.start), self.end.map_or(total - 1, from_end).min(total - 1));
        if start > last { 0..0 } else { (start * unit) as u64..((last + 1) * unit) as u64 }
    }

    /// Whether both ends count from the end and lie the wrong way round.
    fn backwards(&self) -> bool {
        self.end.is_some_and(|end| self.start < 0 && end < 0 && self.start > end)
    }
}

/// How many bits are set.
pub const BITCOUNT: Command = Command {
    name: "BITCOUNT",
    since: "2.6.0",
    usage: "key [range{start:integer end:integer [unit(BYTE | BIT)]@7.0.0}]",
    summary: "Counts the number of set bits (population counting) in a string.",
    complexity: "O(N)",
    history: &[("7.0.0", "Added the `BYTE|BIT` option.")],
    run: bitcount,
    ..BITMAP
};

fn bitcount(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let bounds = Bounds::parse(args, 2)?;
    let key = args.key(&ctx.db, 1);
    let bytes = ctx.db.read(&key).map(|entry| bytes_of(entry.value())).transpose()?.unwrap_or_default();
    let set = match bounds {
        None => count_within(&bytes, 0..8 * bytes.len() as u64),
        Some(bounds) if bounds.backwards() => 0,
        Some(bounds) => count_within(&bytes, bounds.of(bytes.len())),
    };
    ctx.out.integer(set as i64);
    DONE
}

/// The first bit that is set, or that is not.
pub const BITPOS: Command = Command {
    name: "BITPOS",
    since: "2.8.7",
    arity: Arity::AtLeast(3),
    usage: "key bit:integer [range{start:integer [end-unit-block{end:integer [unit(BYTE | BIT)]@7.0.0}]}]",
    summary: "Finds the first set (1) or clear (0) bit in a string.",
    complexity: "O(N)",
    history: &[("7.0.0", "Added the `BYTE|BIT` option.")],
    run: bitpos,
    ..BITMAP
};

fn bitpos(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let wanted = match args.integer(2)? {
        0 => false,
        1 => true,
        _ => return Err(Error::text("ERR The bit argument must be 1 or 0.")),
    };
    let bounds = Bounds::parse(args, 3)?;
    let key = args.key(&ctx.db, 1);
    let Some(bytes) = ctx.db.read(&key).map(|entry| bytes_of(entry.value())).transpose()? else {
        ctx.out.integer(if wanted { -1 } else { 0 });
        return DONE;
    };
    let range = bounds.as_ref().map_or(0..8 * bytes.len() as u64, |bounds| bounds.of(bytes.len()));
    let found = position(&bytes, range.clone(), wanted);
    // Without an end given, zeros follow the string's.
    let open = !wanted && !range.is_empty() && bounds.is_none_or(|bounds| bounds.end.is_none());
    let found = found.or(open.then_some(range.end));
    ctx.out.integer(found.map_or(-1, |at| at as i64));
    DONE
}

/// Combines strings bit by bit into another; replies with its length.
pub const BITOP: Command = Command {
    name: "BITOP",
    since: "2.6.0",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[
        Keys::At { first: 2, access: Access::OVERWRITE },
        Keys::Range { first: 3, last: -1, step: 1, access: Access::READ },
    ],
    usage: "operation(AND | OR | XOR | NOT | DIFF@8.2.0 | DIFF1@8.2.0 | ANDOR@8.2.0 | ONE@8.2.0) destkey:key key...",
    summary: "Performs bitwise operations on multiple strings, and stores the result.",
    complexity: "O(N)",
    run: bitop,
    ..BITMAP
};

const OPERATIONS: &[(&str, Operation)] = &[
    ("AND", Operation::And),
    ("OR", Operation::Or),
    ("XOR", Operation::Xor),
    ("NOT", Operation::Not),
    ("DIFF", Operation::Diff),
    ("DIFF1", Operation::Diff1),
    ("ANDOR", Operation::AndOr),
    ("ONE", Operation::One),
];

fn bitop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (name, operation) = *OPERATIONS.iter().find(|(name, _)| args.is(1, name)).ok_or(Error::Syntax)?;
    let sources = args.len() - 3;
    match operation {
        Operation::Not if sources != 1 => {
            return Err(Error::text("ERR BITOP NOT must be called with a single source key."));
        }
        Operation::Diff | Operation::Diff1 | Operation::AndOr if sources < 2 => {
            return Err(Error::text(format!("ERR BITOP {name} must be called with at least two source keys.")));
        }
        _ => {}
    }
    let target = args.key(&ctx.db, 2);
    let keys: SmallVec<[Key<'_>; 8]> = (3..args.len()).map(|i| args.key(&ctx.db, i)).collect();
    for key in &keys {
        ctx.db.read(key).map(|entry| bytes_of(entry.value()).map(drop)).transpose()?;
    }
    let result = {
        let value = |key| ctx.db.beside(key).map_or(Ok(Cow::default()), |entry| bytes_of(entry.value()));
        let values = keys.iter().map(value).collect::<Result<SmallVec<[Cow<'_, [u8]>; 8]>, Error>>()?;
        let sources: SmallVec<[&[u8]; 8]> = values.iter().map(|value| &**value).collect();
        combine(operation, &sources)
    };
    let len = result.len();
    if len > 0 {
        ctx.db.set(&target, Str::Large(Arc::new(result)), Expiry::Clear);
        ctx.db.note(&target, Class::String, "set");
    } else if ctx.db.remove(&target) {
        ctx.db.note(&target, Class::Generic, "del");
    }
    ctx.out.integer(len as i64);
    DONE
}

/// What BITFIELD does with one field.
#[derive(Clone, Copy)]
enum Deed {
    Get,
    Set(i64),
    Add(i64),
}

/// One of the operations of BITFIELD.
struct Step {
    field: Field,
    deed: Deed,
    overflow: Overflow,
}

/// `i8` to `i64`, `u1` to `u63`.
fn field_type(text: &[u8]) -> Result<(bool, u32), Error> {
    let (signed, width) = match text.split_first() {
        Some((b'i', width)) => (true, width),
        Some((b'u', width)) => (false, width),
        _ => return Err(BAD_TYPE),
    };
    let most = if signed { 64 } else { 63 };
    let width = parse_i64(width).filter(|width| (1..=most).contains(width)).ok_or(BAD_TYPE)?;
    Ok((signed, width as u32))
}

fn steps(ctx: &Context<'_>, args: &Args<'_>) -> Result<SmallVec<[Step; 4]>, Error> {
    let mut steps = SmallVec::new();
    let mut overflow = Overflow::Wrap;
    let mut i = 2;
    while i < args.len() {
        let operands = match word(args.at(i), &["GET", "SET", "INCRBY", "OVERFLOW"]) {
            Some("OVERFLOW") if i + 1 < args.len() => {
                overflow = match word(args.at(i + 1), &["WRAP", "SAT", "FAIL"]) {
                    Some("WRAP") => Overflow::Wrap,
                    Some("SAT") => Overflow::Saturate,
                    Some(_) => Overflow::Fail,
                    None => return Err(Error::text("ERR Invalid OVERFLOW type specified")),
                };
                i += 2;
                continue;
            }
            Some("GET") => 2,
            Some("SET" | "INCRBY") => 3,
            _ => return Err(Error::Syntax),
        };
        if i + operands >= args.len() {
            return Err(Error::Syntax);
        }
        let (signed, width) = field_type(args.at(i + 1))?;
        let field = Field { signed, width, offset: bit_offset(ctx, args.at(i + 2), Some(width))? };
        let deed = match operands {
            2 => Deed::Get,
            _ if args.is(i, "SET") => Deed::Set(args.integer(i + 3)?),
            _ => Deed::Add(args.integer(i + 3)?),
        };
        steps.push(Step { field, deed, overflow });
        i += 1 + operands;
    }
    Ok(steps)
}

/// Reads, sets and adds to integers of any width at any offset.
pub const BITFIELD: Command = Command {
    name: "BITFIELD",
    since: "3.2.0",
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At {
        first: 1,
        access: Access::READ_UPDATE.varying().noted("This command allows both access and modification of the key"),
    }],
    usage: "key [operation(GET get-block{encoding offset} | write{[OVERFLOW overflow-block(WRAP | SAT | FAIL)] write-operation(SET set-block{encoding offset value:integer} | INCRBY incrby-block{encoding offset increment:integer})})...]",
    summary: "Performs arbitrary bitfield integer operations on strings.",
    complexity: "O(1) for each subcommand specified",
    run: bitfield,
    ..BITMAP
};

fn bitfield(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let steps = steps(ctx, args)?;
    let writes = steps.iter().filter(|step| !matches!(step.deed, Deed::Get));
    let Some(end) = writes.map(|step| step.field.end()).max() else { return read_fields(ctx, args, &steps) };
    let key = args.key(&ctx.db, 1);
    let mut results: SmallVec<[Option<i64>; 8]> = SmallVec::new();
    let changes = change(ctx, &key, bytes_until(end), |bytes, grown| {
        let mut changes = 0;
        for Step { field, deed, overflow } in &steps {
            let old = field.value(bytes);
            let (new, result) = match *deed {
                Deed::Get => (None, Some(old)),
                Deed::Set(value) => {
                    let new = field.fit(value, *overflow);
                    (new, new.map(|_| old))
                }
                Deed::Add(by) => {
                    let new = field.sum(old, by, *overflow);
                    (new, new)
                }
            };
            results.push(result);
            if let Some(new) = new {
                field.write(bytes, new);
                changes += u64::from(grown || new != old);
            }
        }
        // A string that has grown has changed, even where no field of it has.
        changes.max(grown.into())
    })?;
    if changes > 0 {
        ctx.db.note(&key, Class::String, "setbit");
        ctx.db.effects.dirty += changes - 1;
    }
    ctx.out.array(results.len());
    for result in results {
        match result {
            Some(value) => ctx.out.integer(value),
            None => ctx.out.null(),
        }
    }
    DONE
}

fn read_fields(ctx: &mut Context<'_>, args: &Args<'_>, steps: &[Step]) -> Reply {
    let key = args.key(&ctx.db, 1);
    let bytes = ctx.db.read(&key).map(|entry| bytes_of(entry.value())).transpose()?.unwrap_or_default();
    ctx.out.array(steps.len());
    steps.iter().for_each(|step| ctx.out.integer(step.field.value(&bytes)));
    DONE
}

/// Reads integers of any width at any offset.
pub const BITFIELD_RO: Command = Command {
    name: "BITFIELD_RO",
    since: "6.0.0",
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key [GET get-block{encoding offset}]...",
    summary: "Performs arbitrary read-only bitfield integer operations on strings.",
    run: bitfield_ro,
    ..BITFIELD
};

fn bitfield_ro(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let steps = steps(ctx, args)?;
    if steps.iter().any(|step| !matches!(step.deed, Deed::Get)) {
        return Err(Error::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(ctx, args, &steps)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::command::testing::Bench;

    #[test]
    fn bits_are_set_and_strings_grow() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SETBIT a 7 1"), ":0|");
        assert_eq!(bench.run("GET a"), "$1|\u{1}|");
        assert_eq!(bench.run("SETBIT a 7 0"), ":1|");
        assert_eq!(bench.run("SETBIT a 100000 1"), ":0|");
        assert_eq!(bench.run("STRLEN a"), ":12501|");
        assert_eq!(bench.run("SETBIT a 4000000000 1"), ":0|");
        assert_eq!(bench.run("STRLEN a"), ":500000001|");
        assert_eq!(bench.run("BITPOS a 1"), ":100000|");
        assert_eq!(bench.run("SETBIT a 4294967296 1"), "-ERR bit offset is not an integer or out of range|");
    }

    #[test]
    fn what_is_written_is_noted_and_what_is_not_is_not() {
        let mut bench = Bench::new();
        let dirty = |bench: &mut Bench, line: &str| {
            let before = bench.engine.dirty.load(Ordering::Relaxed);
            bench.run(line);
            bench.engine.dirty.load(Ordering::Relaxed) - before
        };
        for (line, changes) in [
            ("SETBIT a 7 0", 1),
            ("SETBIT a 7 0", 0),
            ("SETBIT a 7 1", 1),
            ("BITFIELD a GET u8 0", 0),
            ("BITFIELD a SET u8 0 1", 0),
            ("BITFIELD a SET u8 0 2 INCRBY u8 0 1", 2),
            ("BITFIELD a OVERFLOW FAIL INCRBY u2 100 9", 1),
            ("BITOP NOT b a", 1),
            ("BITOP NOT b none", 1),
            ("BITOP NOT b none", 0),
        ] {
            assert_eq!(dirty(&mut bench, line), changes, "{line}");
        }
    }

    #[test]
    fn a_huge_field_number_is_out_of_range() {
        let mut bench = Bench::new();
        let error = "-ERR bit offset is not an integer or out of range|";
        assert_eq!(bench.run("BITFIELD a SET u63 #9223372036854775807 1"), error);
        assert_eq!(bench.run("BITFIELD a SET u8 #-1 1"), error);
        assert_eq!(bench.run("SETBIT a #1 1"), error);
    }

    #[test]
    fn operations_that_came_later_need_two_sources() {
        let mut bench = Bench::new();
        bench.run("MSET a \"\\x0f\" b \"\\x3c\\xff\"");
        for (operation, result) in
            [("DIFF", "\\x03\\x00"), ("DIFF1", "0\\xff"), ("ANDOR", "\\x0c\\x00"), ("ONE", "3\\xff")]
        {
            assert_eq!(bench.run(&format!("BITOP {operation} c a b")), ":2|", "{operation}");
            let reply = bench.raw("GET c");
            assert_eq!(reply.escape_ascii().to_string(), format!("$2\\r\\n{result}\\r\\n"), "{operation}");
        }
        assert_eq!(bench.run("BITOP diff1 c a"), "-ERR BITOP DIFF1 must be called with at least two source keys.|");
        assert_eq!(bench.run("BITOP ONE c a"), ":1|");
    }
}
