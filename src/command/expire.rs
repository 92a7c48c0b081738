//! Deadlines of keys: EXPIRE and its kin set them, TTL and its kin tell them, PERSIST takes them away.
//!
//! What must stay true: a deadline that has passed already removes the key; the log gets deadlines, never
//! times to live, so that a log that is read later means the same.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::time::{TimeUnit, absolute_ms};
use crate::keyspace::change::Class;
use crate::keyspace::db::Key;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};

/// This family's commands.
pub const COMMANDS: &[Command] = &[EXPIRE, EXPIREAT, EXPIRETIME, PERSIST, PEXPIRE, PEXPIREAT, PEXPIRETIME, PTTL, TTL];

/// Sets a key's time to live in seconds: 1, or 0 where the key is missing or the condition does not hold.
pub const EXPIRE: Command = Command {
    name: "EXPIRE",
    since: "1.0.0",
    group: Group::Generic,
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key seconds [condition(NX | XX | GT | LT)]@7.0.0",
    summary: "Sets the expiration time of a key in seconds.",
    complexity: "O(1)",
    tips: &[],
    history: &[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")],
    deprecated: None,
    subcommands: &[],
    run: |ctx, args| expire(ctx, args, TimeUnit::Seconds, Origin::Now, "expire"),
};

/// EXPIRE in milliseconds.
pub const PEXPIRE: Command = Command {
    name: "PEXPIRE",
    since: "2.6.0",
    usage: "key milliseconds [condition(NX | XX | GT | LT)]@7.0.0",
    summary: "Sets the expiration time of a key in milliseconds.",
    run: |ctx, args| expire(ctx, args, TimeUnit::Milliseconds, Origin::Now, "pexpire"),
    ..EXPIRE
};

/// Sets a key's deadline in Unix seconds.
pub const EXPIREAT: Command = Command {
    name: "EXPIREAT",
    since: "1.2.0",
    usage: "key unix-time-seconds [condition(NX | XX | GT | LT)]@7.0.0",
    summary: "Sets the expiration time of a key to a Unix timestamp.",
    run: |ctx, args| expire(ctx, args, TimeUnit::Seconds, Origin::Epoch, "expireat"),
    ..EXPIRE
};

/// Sets a key's deadline in Unix milliseconds.
pub const PEXPIREAT: Command = Command {
    name: "PEXPIREAT",
    since: "2.6.0",
    usage: "key unix-time-milliseconds [condition(NX | XX | GT | LT)]@7.0.0",
    summary: "Sets the expiration time of a key to a Unix milliseconds timestamp.",
    run: |ctx, args| expire(ctx, args, TimeUnit::Milliseconds, Origin::Epoch, "pexpireat"),
    ..EXPIRE
};

/// What a time is counted from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Now,
    Epoch,
}

/// When a deadline is to be set.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &Args<'_>, from: usize) -> Result<Conditions, Error> {
        let mut conditions = Conditions::default();
        for arg in args.from(from) {
            match word(arg, &["NX", "XX", "GT", "LT"]) {
                Some("NX") => conditions.nx = true,
                Some("XX") => conditions.xx = true,
                Some("GT") => conditions.gt = true,
                Some(_) => conditions.lt = true,
                None => return Err(Error::text(format!("ERR Unsupported option {}", String::from_utf8_lossy(arg)))),
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Error::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Error::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether `new` may replace the deadline `old`. A key without one lives for ever, longer than any other.
    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        let later = old.is_some_and(|old| i128::from(new) > i128::from(old));
        let earlier = old.is_none_or(|old| i128::from(new) < i128::from(old));
        !(self.nx && old.is_some() || self.xx && old.is_none() || self.gt && !later || self.lt && !earlier)
    }
}

fn expire(ctx: &mut Context<'_>, args: &Args<'_>, unit: TimeUnit, origin: Origin, name: &'static str) -> Reply {
    let conditions = Conditions::parse(args, 3)?;
    let now = ctx.db.now_ms();
    let base = (origin == Origin::Now).then_some(now);
    let deadline = absolute_ms(args.integer(2)?, unit, base).ok_or(Error::InvalidExpire(name))?;
    let key = args.key(&ctx.db, 1);
    let old = ctx.db.look(&key).map(|entry| entry.deadline());
    if !old.is_some_and(|old| conditions.allow(old, deadline)) {
        ctx.out.integer(0);
        return DONE;
    }
    match u64::try_from(deadline).ok().filter(|deadline| !ctx.db.has_passed(*deadline)) {
        Some(deadline) => set_deadline(ctx, &key, deadline),
        None => remove_expired(ctx, &key),
    }
    ctx.out.integer(1);
    DONE
}

fn set_deadline(ctx: &mut Context<'_>, key: &Key<'_>, deadline: u64) {
    ctx.db.set_deadline(key, Some(deadline));
    ctx.db.note(key, Class::Generic, "expire");
    ctx.db.effects.log_as(|| vec![vec![b"PEXPIREAT".to_vec(), key.bytes.to_vec(), deadline.to_string().into_bytes()]]);
}

/// Removes a key whose new deadline lies in the past.
fn remove_expired(ctx: &mut Context<'_>, key: &Key<'_>) {
    ctx.db.remove(key);
    ctx.db.note(key, Class::Generic, "del");
    ctx.db.effects.log_removal(key.bytes, ctx.config.lazyfree_lazy_expire);
}

/// The time to live in seconds; -1 where there is none, -2 where there is no key.
pub const TTL: Command = Command {
    name: "TTL",
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key",
    summary: "Returns the expiration time in seconds of a key.",
    tips: &["nondeterministic_output"],
    history: &[("2.8.0", "Added the -2 reply.")],
    run: |ctx, args| tell(ctx, args, TimeUnit::Seconds, Origin::Now),
    ..EXPIRE
};

/// The time to live in milliseconds.
pub const PTTL: Command = Command {
    name: "PTTL",
    since: "2.6.0",
    summary: "Returns the expiration time in milliseconds of a key.",
    run: |ctx, args| tell(ctx, args, TimeUnit::Milliseconds, Origin::Now),
    ..TTL
};

/// The deadline in Unix seconds; -1 where there is none, -2 where there is no key.
pub const EXPIRETIME: Command = Command {
    name: "EXPIRETIME",
    since: "7.0.0",
    summary: "Returns the expiration time of a key as a Unix timestamp.",
    tips: &[],
    history: &[],
    run: |ctx, args| tell(ctx, args, TimeUnit::Seconds, Origin::Epoch),
    ..TTL
};

/// The deadline in Unix milliseconds.
pub const PEXPIRETIME: Command = Command {
    name: "PEXPIRETIME",
    summary: "Returns the expiration time of a key as a Unix milliseconds timestamp.",
    run: |ctx, args| tell(ctx, args, TimeUnit::Milliseconds, Origin::Epoch),
    ..EXPIRETIME
};

fn tell(ctx: &mut Context<'_>, args: &Args<'_>, unit: TimeUnit, origin: Origin) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.now_ms();
    let told = match ctx.db.peek(&key).map(|entry| entry.deadline()) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => {
            let ms = if origin == Origin::Now { deadline.saturating_sub(now) } else { deadline };
            let n = if unit == TimeUnit::Seconds { ms.saturating_add(500) / 1000 } else { ms };
            i64::try_from(n).unwrap_or(i64::MAX)
        }
    };
    ctx.out.integer(told);
    DONE
}

/// Takes a key's deadline away: 1, or 0 where there is no key or no deadline.
pub const PERSIST: Command = Command {
    name: "PERSIST",
    since: "2.2.0",
    arity: Arity::Exactly(2),
    usage: "key",
    summary: "Removes the expiration time of a key.",
    history: &[],
    run: persist,
    ..EXPIRE
};

fn persist(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let volatile = ctx.db.look(&key).is_some_and(|entry| entry.deadline().is_some());
    if volatile {
        ctx.db.set_deadline(&key, None);
        ctx.db.note(&key, Class::Generic, "persist");
    }
    ctx.out.integer(volatile.into());
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn a_deadline_is_set_told_and_taken_away() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("EXPIRE a 1"), ":0|");
        assert_eq!(bench.run("TTL a"), ":-2|");
        bench.run("SET a 1");
        assert_eq!(bench.run("TTL a"), ":-1|");
        assert_eq!(bench.run("EXPIRE a 100"), ":1|");
        assert_eq!(bench.run("PTTL a"), ":100000|");
        assert_eq!(bench.run("EXPIRETIME a"), ":1000100|");
        assert_eq!(bench.run("PEXPIRETIME a"), ":1000100000|");
        bench.clock.advance(499);
        assert_eq!(bench.run("TTL a"), ":100|");
        bench.clock.advance(2);
        assert_eq!(bench.run("TTL a"), ":99|");
        assert_eq!(bench.run("PERSIST a"), ":1|");
        assert_eq!(bench.run("PERSIST a"), ":0|");
        bench.clock.advance(1_000_000);
        assert_eq!(bench.run("GET a"), "$1|1|");
    }

    #[test]
    fn replicas_are_told_how_a_key_was_removed_that_no_command_deleted() {
        // What decides it for each, and the request, as Redis 7.2 does it.
        let cases = [
            ("expire", "SET key v", "EXPIRE key -1"),
            ("expire", "SET key v", "GETEX key EXAT 1"),
            ("expire", "SET key v PX 1", "GET key"),
            ("server-del", "SADD key v", "SPOP key 5"),
            (
                "server-del",
                "SET key v",
                "RESTORE key 1 \"\\x00\\x01v\\n\\x00\\x91\\b\\xce\\xb2\\x198\\x8a\\xce\" REPLACE ABSTTL",
            ),
            ("user-del", "SET key v", "GETDEL key"),
        ];
        for (what, first, request) in cases {
            for (lazy, name) in [("yes", "UNLINK"), ("no", "DEL")] {
                let mut bench = Bench::new();
                for other in ["expire", "server-del", "eviction", "user-del"] {
                    let value = if (other == what) == (lazy == "yes") { "yes" } else { "no" };
                    bench.run(&format!("CONFIG SET lazyfree-lazy-{other} {value}"));
                }
                bench.run(first);
                bench.clock.advance(2);
                let logged = bench.logged(request);
                let name = if what == "user-del" { "DEL" } else { name };
                assert_eq!(logged, [[name, "key"]], "{request}, {what} {lazy}");
            }
        }
    }

    #[test]
    fn a_deadline_that_has_passed_removes_the_key() {
        let mut bench = Bench::new();
        for request in ["EXPIRE a 0", "EXPIRE a -1", "PEXPIREAT a -1", "EXPIREAT a 5", "PEXPIREAT a 1000000000"] {
            bench.run("SET a 1");
            assert_eq!(bench.run(request), ":1|");
            assert_eq!(bench.run("EXISTS a"), ":0|", "{request}");
        }
    }

    #[test]
    fn conditions_compare_with_the_present_deadline() {
        let allows = |words: &str, old: Option<u64>, new: i64| {
            let has = |word| words.contains(word);
            Conditions { nx: has("NX"), xx: has("XX"), gt: has("GT"), lt: has("LT") }.allow(old, new)
        };
        assert_eq!([None, Some(5)].map(|old| allows("NX", old, 6)), [true, false]);
        assert_eq!([None, Some(5)].map(|old| allows("XX", old, 6)), [false, true]);
        assert_eq!([None, Some(5), Some(6), Some(7)].map(|old| allows("GT", old, 6)), [false, true, false, false]);
        assert_eq!([None, Some(5), Some(6), Some(7)].map(|old| allows("LT", old, 6)), [true, false, false, true]);
        assert_eq!([None, Some(5), Some(7)].map(|old| allows("XX LT", old, 6)), [false, false, true]);
        assert!(allows("LT", Some(5), -1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_the_key_is_looked_at() {
        let mut bench = Bench::new();
        let nx = "-ERR NX and XX, GT or LT options at the same time are not compatible|";
        assert_eq!(bench.run("EXPIRE none 1 NX GT"), nx);
        assert_eq!(bench.run("EXPIRE none 1 GT LT"), "-ERR GT and LT options at the same time are not compatible|");
        assert_eq!(bench.run("EXPIRE none x AB"), "-ERR Unsupported option AB|");
        assert_eq!(bench.run("EXPIRE none x"), "-ERR value is not an integer or out of range|");
        let overflow = "-ERR invalid expire time in 'expire' command|";
        for n in ["9223372036854775807", "-9223372036854775808", "9223372036854775"] {
            assert_eq!(bench.run(&format!("EXPIRE none {n}")), overflow);
        }
        assert_eq!(bench.run("PEXPIRE none 9223372036854775807"), "-ERR invalid expire time in 'pexpire' command|");
        bench.run("SET a 1");
        assert_eq!(bench.run("PEXPIREAT a 9223372036854775807"), ":1|");
        assert_eq!(bench.run("PEXPIRETIME a"), ":9223372036854775807|");
    }
}
