//! HyperLogLogs: elements added, counted and merged, and the inside of the strings that they are.
//!
//! What must stay true: a value is an ordinary string in Redis' format, whatever SET has put there, so each use
//! checks it; a string that turns out to be broken is left as it was.

use std::sync::Arc;

use fastrand::Rng;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply, later};
use crate::command::error::Error;
use crate::command::string::edit;
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::{Expiry, Key};
use crate::keyspace::entry::{Entry, Str, Value};
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::types::hyperloglog::selftest::SelfTest;
use crate::types::hyperloglog::{self, Encoding, Invalid, Registers};

/// This family's commands.
pub const COMMANDS: &[Command] = &[PFADD, PFCOUNT, PFDEBUG, PFMERGE, PFSELFTEST];

/// What most declarations of this file have in common.
const HYPERLOGLOG: Command = Command {
    name: "",
    since: "2.8.9",
    group: Group::HyperLogLog,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: pfadd,
};

/// What a client is told of a string that is no HyperLogLog.
fn refused(invalid: Invalid) -> Error {
    Error::text(match invalid {
        Invalid::Header => "WRONGTYPE Key is not a valid HyperLogLog string value.",
        Invalid::Registers => "INVALIDOBJ Corrupted HLL object detected",
    })
}

/// The bytes of a HyperLogLog, of which the header is known to be right.
fn checked(entry: &Entry) -> Result<&[u8], Error> {
    let bytes = match entry.value() {
        Value::Bytes(bytes) => bytes,
        Value::Large(large) => large.bytes(),
        Value::Int(_) => return Err(refused(Invalid::Header)),
        Value::Object(_) => return Err(Error::WrongType),
    };
    hyperloglog::encoding(bytes).map_err(refused)?;
    Ok(bytes)
}

fn sparse_max_bytes(ctx: &Context<'_>) -> usize {
    usize::try_from(ctx.config.hll_sparse_max_bytes).unwrap_or(usize::MAX)
}

/// Stores a value; a key that exists keeps its deadline.
fn store(ctx: &mut Context<'_>, key: &Key<'_>, hll: Vec<u8>) {
    let hll = Arc::new(hll);
    if ctx.db.update(key, |entry| entry.set_string(Str::Large(hll.clone()))).is_none() {
        ctx.db.set(key, Str::Large(hll), Expiry::Clear);
    }
}

/// Adds elements; replies whether the estimate may have changed.
pub const PFADD: Command = Command {
    name: "PFADD",
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::INSERT }],
    usage: "key [element...]",
    summary: "Adds elements to a HyperLogLog key. Creates the key if it doesn't exist.",
    complexity: "O(1) to add every element.",
    run: pfadd,
    ..HYPERLOGLOG
};

fn pfadd(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let sparse_max = sparse_max_bytes(ctx);
    let old = ctx.db.look(&key).map(|entry| {
        let bytes = checked(entry)?;
        // A dense one is changed where it lies.
        let large = matches!(entry.value(), Value::Large(_));
        let dense = hyperloglog::encoding(bytes) == Ok(Encoding::Dense);
        Ok::<_, Error>(if large && dense { None } else { Some(bytes.to_vec()) })
    });
    let raised = match old.transpose()? {
        Some(None) => {
            let raised = ctx.db.update(&key, |entry| {
                let hll = entry.large_mut().ok_or(Invalid::Header)?;
                let raised = hyperloglog::add_dense(hll, args.from(2))?;
                if raised > 0 {
                    hyperloglog::invalidate(hll);
                }
                Ok(raised)
            });
            raised.unwrap_or(Ok(0)).map_err(refused)?
        }
        Some(Some(mut hll)) => {
            let raised = hyperloglog::add(&mut hll, args.from(2), sparse_max).map_err(refused)?;
            if raised > 0 {
                hyperloglog::invalidate(&mut hll);
                store(ctx, &key, hll);
            }
            raised
        }
        None => {
            let mut hll = hyperloglog::empty();
            let raised = hyperloglog::add(&mut hll, args.from(2), sparse_max).map_err(refused)?;
            hyperloglog::invalidate(&mut hll);
            store(ctx, &key, hll);
            raised + 1
        }
    };
    if raised > 0 {
        ctx.db.note(&key, Class::String, "pfadd");
        ctx.db.effects.dirty += raised as u64 - 1;
    }
    ctx.out.integer((raised > 0).into());
    DONE
}

/// How many different elements were probably added, to one or to any of several.
pub const PFCOUNT: Command = Command {
    name: "PFCOUNT",
    flags: &[Flag::ReadOnly, Flag::MayReplicate],
    keys: &[Keys::Range {
        first: 1,
        last: -1,
        step: 1,
        access: Access { access: true, update: false, ..Access::UPDATE }
            .noted("RW because it may change the internal representation of the key, and propagate to replicas"),
    }],
    usage: "key...",
    summary: "Returns the approximated cardinality of the set(s) observed by the HyperLogLog key(s).",
    complexity: "O(1) with a very small average constant time when called with a single key. O(N) with N being the number of keys, and much bigger constant times, when called with multiple keys.",
    run: pfcount,
    ..HYPERLOGLOG
};

fn pfcount(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() > 2 {
        let mut registers = Registers::new();
        for i in 1..args.len() {
            merge(ctx, &args.key(&ctx.db, i), &mut registers)?;
        }
        ctx.out.integer(registers.cardinality() as i64);
        return DONE;
    }
    let key = args.key(&ctx.db, 1);
    let Some(hll) = ctx.db.read(&key).map(checked).transpose()? else {
        ctx.out.integer(0);
        return DONE;
    };
    let cardinality = match hyperloglog::cached(hll) {
        Some(cardinality) => cardinality,
        None => {
            let (len, cardinality) = (hll.len(), hyperloglog::count(hll).map_err(refused)?);
            ctx.db.update(&key, |entry| edit(entry, len, |hll| hyperloglog::cache(hll, cardinality)));
            // No data has changed, but whoever holds a copy of these bytes has others now.
            ctx.db.effects.dirty += 1;
            cardinality
        }
    };
    ctx.out.integer(cardinality as i64);
    DONE
}

/// Merges the value of a key; how it is encoded, where there is one.
fn merge(ctx: &mut Context<'_>, key: &Key<'_>, into: &mut Registers) -> Result<Option<Encoding>, Error> {
    let Some(hll) = ctx.db.read(key).map(checked).transpose()? else { return Ok(None) };
    into.merge(hll).and(hyperloglog::encoding(hll)).map(Some).map_err(refused)
}

/// Merges HyperLogLogs into the first.
pub const PFMERGE: Command = Command {
    name: "PFMERGE",
    keys: &[
        Keys::At { first: 1, access: Access { access: true, ..Access::INSERT } },
        Keys::Range { first: 2, last: -1, step: 1, access: Access::READ },
    ],
    usage: "destkey:key [sourcekey:key...]",
    summary: "Merges one or more HyperLogLog values into a single key.",
    complexity: "O(N) to merge N HyperLogLogs, but with high constant times.",
    run: pfmerge,
    ..HYPERLOGLOG
};

fn pfmerge(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut registers = Registers::new();
    let mut encoding = Encoding::Sparse;
    for i in 1..args.len() {
        if merge(ctx, &args.key(&ctx.db, i), &mut registers)? == Some(Encoding::Dense) {
            encoding = Encoding::Dense;
        }
    }
    let key = args.key(&ctx.db, 1);
    let sparse_max = sparse_max_bytes(ctx);
    let mut hll = match ctx.db.look(&key) {
        Some(entry) => checked(entry)?.to_vec(),
        None => hyperloglog::empty(),
    };
    hyperloglog::merge_into(&mut hll, &registers, encoding, sparse_max).map_err(refused)?;
    store(ctx, &key, hll);
    ctx.db.note(&key, Class::String, "pfadd");
    ctx.out.ok();
    DONE
}

/// Looks inside of a HyperLogLog.
pub const PFDEBUG: Command = Command {
    name: "PFDEBUG",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Admin, Flag::System],
    keys: &[Keys::At { first: 2, access: Access { access: true, update: false, ..Access::UPDATE } }],
    usage: "subcommand key",
    summary: "Internal commands for debugging HyperLogLog values.",
    complexity: "N/A",
    run: pfdebug,
    ..HYPERLOGLOG
};

fn pfdebug(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 2);
    let Some(entry) = ctx.db.look(&key) else {
        return Err(Error::text("ERR The specified key does not exist"));
    };
    let hll = checked(entry)?;
    match &args.at(1).to_ascii_uppercase()[..] {
        b"GETREG" => {
            let mut registers = Registers::new();
            registers.merge(hll).map_err(refused)?;
            make_dense(ctx, &key)?;
            ctx.out.array(registers.values().len());
            registers.values().iter().for_each(|value| ctx.out.integer((*value).into()));
        }
        b"DECODE" => match hyperloglog::decode(hll).map_err(refused)? {
            Some(text) => ctx.out.bulk(text.as_bytes()),
            None => return Err(Error::text("ERR HLL encoding is not sparse")),
        },
        b"ENCODING" => ctx.out.simple(match hyperloglog::encoding(hll).map_err(refused)? {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        }),
        b"TODENSE" => {
            let converted = make_dense(ctx, &key)?;
            ctx.out.integer(converted.into());
        }
        _ => {
            let name = String::from_utf8_lossy(args.at(1));
            return Err(Error::text(format!("ERR Unknown PFDEBUG subcommand '{name}'")));
        }
    }
    DONE
}

/// Makes the value of a key dense; returns whether it was sparse.
fn make_dense(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<bool, Error> {
    let Some(mut hll) = ctx.db.look(key).map(|entry| checked(entry).map(<[u8]>::to_vec)).transpose()? else {
        return Ok(false);
    };
    let converted = hyperloglog::to_dense(&mut hll).map_err(refused)?;
    if converted {
        store(ctx, key, hll);
        // Copies of the value elsewhere are to be converted too.
        ctx.db.effects.dirty += 1;
    }
    Ok(converted)
}

/// Tests registers and estimates, in pieces: it takes seconds.
pub const PFSELFTEST: Command = Command {
    name: "PFSELFTEST",
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::System],
    summary: "An internal command for testing HyperLogLog values.",
    complexity: "N/A",
    run: pfselftest,
    ..HYPERLOGLOG
};

fn pfselftest(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    self_test(Box::new(SelfTest::new(Rng::new(), sparse_max_bytes(ctx))), ctx)
}

/// Goes on with the test for a while.
fn self_test(mut test: Box<SelfTest>, ctx: &mut Context<'_>) -> Reply {
    if !test.step().map_err(|why| Error::text(format!("ERR {why}")))? {
        return later(test, self_test);
    }
    ctx.out.ok();
    DONE
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn elements_are_added_counted_and_merged() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("PFADD a"), ":1|");
        assert_eq!(bench.run("PFADD a"), ":0|");
        assert_eq!(bench.run("PFADD a x y z"), ":1|");
        assert_eq!(bench.run("PFADD a x"), ":0|");
        assert_eq!(bench.run("PFCOUNT a"), ":3|");
        bench.run("PFADD b z q");
        assert_eq!(bench.run("PFCOUNT a b none"), ":4|");
        assert_eq!(bench.run("PFMERGE c a b"), "+OK|");
        assert_eq!(bench.run("PFCOUNT c"), ":4|");
        assert_eq!(bench.run("TYPE c"), "+string|");
    }

    #[test]
    fn the_cardinality_is_kept_until_something_changes() {
        let mut bench = Bench::new();
        bench.run("PFADD a x y");
        assert_eq!(bench.raw("GETRANGE a 15 15"), b"$1\r\n\x80\r\n");
        bench.run("PFCOUNT a");
        assert_eq!(bench.raw("GETRANGE a 8 15"), b"$8\r\n\x02\0\0\0\0\0\0\0\r\n");
        bench.run("PFADD a x");
        assert_eq!(bench.raw("GETRANGE a 15 15"), b"$1\r\n\0\r\n");
        bench.run("PFADD a z");
        assert_eq!(bench.raw("GETRANGE a 15 15"), b"$1\r\n\x80\r\n");
    }

    #[test]
    fn a_dense_one_is_changed_in_place_and_keeps_its_deadline() {
        let mut bench = Bench::new();
        bench.run("PFADD a x");
        bench.run("EXPIRE a 100");
        assert_eq!(bench.run("PFDEBUG TODENSE a"), ":1|");
        assert_eq!(bench.run("PFDEBUG TODENSE a"), ":0|");
        assert_eq!(bench.run("PFADD a y"), ":1|");
        assert_eq!(bench.run("PFMERGE a none"), "+OK|");
        assert_eq!(bench.run("PFCOUNT a"), ":2|");
        assert_eq!(bench.run("TTL a"), ":100|");
        assert_eq!(bench.run("STRLEN a"), ":12304|");
    }

    #[test]
    fn what_is_no_hyperloglog_is_told_and_stays() {
        let mut bench = Bench::new();
        bench.run("SET s text");
        bench.run("SET i 1");
        bench.run("RPUSH l x");
        let not_one = "-WRONGTYPE Key is not a valid HyperLogLog string value.|";
        for command in ["PFADD s x", "PFCOUNT i", "PFCOUNT s none", "PFMERGE s", "PFMERGE x s", "PFDEBUG GETREG s"] {
            assert_eq!(bench.run(command), not_one, "{command}");
        }
        assert!(bench.run("PFADD l x").starts_with("-WRONGTYPE Operation"));
        bench.run("PFADD a x y z");
        bench.run("APPEND a hello");
        for command in ["PFCOUNT a", "PFCOUNT a s", "PFMERGE b a", "PFDEBUG TODENSE a"] {
            assert_eq!(bench.run(command), "-INVALIDOBJ Corrupted HLL object detected|", "{command}");
        }
        assert_eq!(bench.run("EXISTS b x"), ":0|");
    }
}
