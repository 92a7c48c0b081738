//! Entries by their ids: XRANGE and XREVRANGE.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::stream::{STREAM, add, ids, stream, write_entry};
use crate::command::table::Command;
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::stream::chunk::Entry;

/// The entries from one id to another.
pub const XRANGE: Command = Command {
    name: "XRANGE",
    arity: Arity::AtLeast(4),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key start end [COUNT count]",
    summary: "Returns the messages from a stream within a range of IDs.",
    complexity: "O(N) with N being the number of elements being returned. If N is constant (e.g. always asking for the first 10 elements with COUNT), you can consider it O(1).",
    history: &[("6.2.0", "Added exclusive ranges.")],
    run: |ctx, args| xrange(ctx, args, Direction::Up),
    ..STREAM
};

/// The entries from one id down to another.
pub const XREVRANGE: Command = Command {
    name: "XREVRANGE",
    usage: "key end start [COUNT count]",
    summary: "Returns the messages from a stream within a range of IDs in reverse order.",
    complexity: "O(N) with N being the number of elements returned. If N is constant (e.g. always asking for the first 10 elements with COUNT), you can consider it O(1).",
    run: |ctx, args| xrange(ctx, args, Direction::Down),
    ..XRANGE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

fn xrange(ctx: &mut Context<'_>, args: &Args<'_>, direction: Direction) -> Reply {
    let (from, to) = if direction == Direction::Up { (2, 3) } else { (3, 2) };
    let (from, to) = (ids::from(args.at(from))?, ids::to(args.at(to))?);
    let mut count = None;
    let mut i = 4;
    while i < args.len() {
        if !args.is(i, "COUNT") || i + 1 == args.len() {
            return Err(Error::Syntax);
        }
        count = Some(add::count(args.at(i + 1))?);
        i += 2;
    }
    let key = args.key(&ctx.db, 1);
    let Some(stream) = ctx.db.read(&key).map(stream).transpose()? else {
        ctx.out.array(0);
        return DONE;
    };
    if count == Some(0) {
        ctx.out.null_array();
        return DONE;
    }
    let most = count.unwrap_or(usize::MAX);
    match direction {
        Direction::Up => write_entries(ctx.out, stream.log.entries(from, to), most),
        Direction::Down => write_entries(ctx.out, stream.log.entries_down(to, from), most),
    };
    DONE
}

/// Writes an array of entries, `most` at most; returns how many there were.
pub fn write_entries<'a>(out: &mut Output, entries: impl Iterator<Item = Entry<'a>>, most: usize) -> usize {
    let deferred = out.defer();
    let count = entries.take(most).map(|entry| write_entry(out, entry)).count();
    out.finish_array(deferred, count);
    count
}
