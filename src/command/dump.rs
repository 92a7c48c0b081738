//! DUMP and RESTORE: a value as bytes that another server understands, and back.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::config::choice::SanitizeDumpPayload;
use crate::keyspace::change::Class;
use crate::observe::log::warning;
use crate::observe::stats::Counter;
use crate::persist::rdb::file::About;
use crate::persist::rdb::load::clock;
use crate::persist::rdb::payload;
use crate::persist::rdb::value::Limits;
use crate::persist::rdb::writer::Compression;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};

/// This family's commands.
pub const COMMANDS: &[Command] = &[DUMP, RESTORE, RESTORE_ASKING];

/// Replies a key's value as bytes, with version and checksum; nil where there is none.
pub const DUMP: Command = Command {
    name: "DUMP",
    since: "2.6.0",
    group: Group::Generic,
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly],
    categories: &[Category::Keyspace],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key",
    summary: "Returns a serialized representation of the value stored at a key.",
    complexity: "O(1) to access the key and additional O(N*M) to serialize it, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1).",
    tips: &["nondeterministic_output"],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: dump,
};

fn dump(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let compression = Compression::from(ctx.config.rdbcompression);
    match ctx.db.read(&key) {
        Some(entry) => {
            let payload = payload::write(entry.value(), compression);
            ctx.out.bulk(&payload);
        }
        None => ctx.out.null(),
    }
    DONE
}

/// Stores the value that DUMP told.
///
/// Whatever is wrong with it is found before anything changes. A time to live of 0 is none; one that is over already
/// stores nothing, and with REPLACE still removes what was there.
pub const RESTORE: Command = Command {
    name: "RESTORE",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Keyspace, Category::Dangerous],
    keys: &[Keys::At { first: 1, access: Access::OVERWRITE }],
    usage: "key ttl:integer serialized-value [REPLACE]@3.0.0 [ABSTTL]@5.0.0 [IDLETIME seconds]@5.0.0 [FREQ frequency:integer]@5.0.0",
    summary: "Creates a key from the serialized representation of a value.",
    complexity: "O(1) to create the new key and additional O(N*M) to reconstruct the serialized value, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1). However for sorted set values the complexity is O(N*M*log(N)) because inserting values into sorted sets is O(log(N)).",
    tips: &[],
    history: &[
        ("3.0.0", "Added the `REPLACE` modifier."),
        ("5.0.0", "Added the `ABSTTL` modifier."),
        ("5.0.0", "Added the `IDLETIME` and `FREQ` options."),
    ],
    run: restore,
    ..DUMP
};

/// RESTORE as servers of a cluster say it to each other: the key's slot may be on its way here.
const RESTORE_ASKING: Command = Command {
    name: "RESTORE-ASKING",
    since: "3.0.0",
    group: Group::Server,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Asking, Flag::System],
    summary: "An internal command for migrating keys in a cluster.",
    ..RESTORE
};

/// What RESTORE may be told beside the value.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    about: About,
}

fn options(args: &Args<'_>) -> Result<Options, Error> {
    let mut options = Options::default();
    let mut i = 4;
    while i < args.len() {
        let followed = i + 1 < args.len();
        match word(args.at(i), &["REPLACE", "ABSTTL", "IDLETIME", "FREQ"]) {
            Some("REPLACE") => options.replace = true,
            Some("ABSTTL") => options.absolute = true,
            Some("IDLETIME") if followed && options.about.frequency.is_none() => {
                i += 1;
                let seconds = u64::try_from(args.integer(i)?);
                let seconds = seconds.map_err(|_| Error::text("ERR Invalid IDLETIME value, must be >= 0"))?;
                options.about.idle_seconds = Some(seconds);
            }
            Some("FREQ") if followed && options.about.idle_seconds.is_none() => {
                i += 1;
                let frequency = u8::try_from(args.integer(i)?);
                let frequency =
                    frequency.map_err(|_| Error::text("ERR Invalid FREQ value, must be >= 0 and <= 255"))?;
                options.about.frequency = Some(frequency);
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    Ok(options)
}

fn restore(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = options(args)?;
    let key = args.key(&ctx.db, 1);
    // The errors come in Redis' order: a key that exists before a time to live that makes no sense.
    if !options.replace && ctx.db.exists(&key) {
        return Err(Error::text("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(args.integer(2)?).map_err(|_| Error::text("ERR Invalid TTL value, must be >= 0"))?;
    let (dialect, value) = payload::verify(args.at(3), ctx.engine.debug.checksums())
        .ok_or(Error::text("ERR DUMP payload version or checksum are wrong"))?;
    let moment = *ctx.db.moment();
    if ctx.config.sanitize_dump_payload != SanitizeDumpPayload::No {
        ctx.engine.stats.add(Counter::DumpPayloadSanitizations, 1);
    }
    let limits = Limits { config: ctx.config, dialect, now_ms: Some(moment.now_ms) };
    let decoded = payload::read(value, limits).map_err(|error| {
        warning!("RESTORE of a payload that is no value: {error}");
        Error::text("ERR Bad data format")
    })?;
    let deadline = match ttl {
        0 => None,
        ttl if options.absolute => Some(ttl),
        ttl => Some(moment.now_ms.saturating_add(ttl)),
    };
    let deleted = options.replace && ctx.db.remove(&key);
    if deadline.is_some_and(|deadline| ctx.db.has_passed(deadline)) {
        if deleted {
            ctx.db.note(&key, Class::Generic, "del");
            ctx.db.effects.log_removal(key.bytes, ctx.config.lazyfree_lazy_server_del);
        }
        ctx.out.ok();
        return DONE;
    }
    let clock = clock(&moment, &options.about);
    ctx.db.insert(&key, decoded.into_entry(key.hash.bits(), key.bytes, deadline, clock));
    ctx.db.note(&key, Class::Generic, "restore");
    if let Some(deadline) = deadline
        && !options.absolute
    {
        ctx.db.effects.log_as(|| {
            let mut words = args.to_vecs();
            words[2] = deadline.to_string().into_bytes();
            words.push(b"ABSTTL".to_vec());
            vec![words]
        });
    }
    ctx.out.ok();
    DONE
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;
    use crate::resp::reply::Protocol;

    fn debugged() -> Bench {
        Bench::with("enable-debug-command yes\n")
    }

    /// What DUMP replies, without the head of the bulk string.
    fn dumped(bench: &mut Bench, key: &str) -> Vec<u8> {
        let reply = bench.raw(&format!("DUMP {key}"));
        let at = reply.windows(2).position(|two| two == b"\r\n").expect("a bulk string") + 2;
        reply[at..reply.len() - 2].to_vec()
    }

    fn quoted(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    fn restore(bench: &mut Bench, key: &str, payload: &[u8], rest: &str) -> String {
        bench.run(&format!("RESTORE {key} \"{}\" {rest}", quoted(payload)))
    }

    #[test]
    fn payloads_are_those_of_redis() {
        let mut bench = debugged();
        bench.run("SET a 10");
        assert_eq!(dumped(&mut bench, "a"), b"\x00\xc0\x0a\x0a\x00\x6e\x9f\x57\x45\x0e\xae\x63\xbb");
        bench.out_as(Protocol::Resp3);
        assert_eq!(bench.run("DUMP none"), "_|");
    }

    #[test]
    fn what_was_dumped_is_restored() {
        let mut bench = debugged();
        bench.run("SET int -123456789012");
        bench.run("SET text \"some text\"");
        bench.run(&format!("SET large {}", "y".repeat(20_000)));
        bench.run("RPUSH list a 1 -70000 b");
        bench.run(&format!("RPUSH chain {} {} c", "z".repeat(9000), "y".repeat(60)));
        for key in ["int", "text", "large", "list", "chain"] {
            let payload = dumped(&mut bench, key);
            let digest = bench.run(&format!("DEBUG DIGEST-VALUE {key}"));
            let encoding = bench.run(&format!("OBJECT ENCODING {key}"));
            assert_eq!(
                restore(&mut bench, &format!("{key} 0"), &payload, ""),
                "-BUSYKEY Target key name already exists.|"
            );
            assert_eq!(restore(&mut bench, "copy 5000", &payload, "REPLACE"), "+OK|");
            assert_eq!(dumped(&mut bench, "copy"), payload);
            assert_eq!(bench.run("OBJECT ENCODING copy"), encoding);
            assert_eq!(bench.run("PTTL copy"), ":5000|");
            bench.run("PERSIST copy");
            assert_eq!(bench.run("DEBUG DIGEST-VALUE copy"), digest);
        }
    }

    #[test]
    fn options_and_times_are_checked_in_order() {
        let mut bench = debugged();
        bench.run("SET a 1");
        let payload = dumped(&mut bench, "a");
        let mut ask = |rest: &str, words: &str| restore(&mut bench, rest, &payload, words);
        assert_eq!(ask("b -1", ""), "-ERR Invalid TTL value, must be >= 0|");
        assert_eq!(ask("b x", ""), "-ERR value is not an integer or out of range|");
        assert_eq!(ask("b 0", "IDLETIME"), "-ERR syntax error|");
        assert_eq!(ask("b 0", "IDLETIME 5 FREQ 5"), "-ERR syntax error|");
        assert_eq!(ask("b 0", "IDLETIME -1"), "-ERR Invalid IDLETIME value, must be >= 0|");
        assert_eq!(ask("b 0", "FREQ 256"), "-ERR Invalid FREQ value, must be >= 0 and <= 255|");
        assert_eq!(ask("a x", "IDLETIME 1"), "-BUSYKEY Target key name already exists.|");
        assert_eq!(ask("b 0", "IDLETIME 1000"), "+OK|");
        assert_eq!(bench.run("OBJECT IDLETIME b"), ":1000|");
    }

    #[test]
    fn a_time_to_live_that_is_over_removes_the_key_and_stores_nothing() {
        let mut bench = debugged();
        bench.run("SET a 1");
        let payload = dumped(&mut bench, "a");
        assert_eq!(restore(&mut bench, "a 5", &payload, "ABSTTL REPLACE"), "+OK|");
        assert_eq!(bench.run("EXISTS a"), ":0|");
        assert_eq!(restore(&mut bench, "a 1000000001", &payload, "absttl"), "+OK|");
        assert_eq!(bench.run("PTTL a"), ":1|");
    }

    #[test]
    fn a_wrong_checksum_is_no_matter_to_who_says_so() {
        let mut bench = debugged();
        bench.run("SET a 10");
        let mut payload = dumped(&mut bench, "a");
        *payload.last_mut().unwrap() ^= 1;
        assert_eq!(restore(&mut bench, "b 0", &payload, ""), "-ERR DUMP payload version or checksum are wrong|");
        bench.run("DEBUG SET-SKIP-CHECKSUM-VALIDATION 1");
        assert_eq!(restore(&mut bench, "b 0", &payload, ""), "+OK|");
        assert_eq!(restore(&mut bench, "c 0", &payload[..8], ""), "-ERR DUMP payload version or checksum are wrong|");
    }

    #[test]
    fn damage_of_any_byte_and_any_cut_is_refused() {
        let mut bench = debugged();
        bench.run("RPUSH a x 1 70000 yy");
        let payload = dumped(&mut bench, "a");
        const WRONG: &str = "-ERR DUMP payload version or checksum are wrong|";
        for at in 0..payload.len() {
            assert_eq!(restore(&mut bench, "b 0", &payload[..at], ""), WRONG);
            let mut damaged = payload.clone();
            damaged[at] ^= 0x10;
            assert_eq!(restore(&mut bench, "b 0", &damaged, ""), WRONG);
        }
    }

    #[test]
    fn what_a_right_checksum_hides_is_refused_or_harmless() {
        let mut bench = debugged();
        bench.run("RPUSH list x 1 70000 yy");
        bench.run(&format!("SET text {}", "ab".repeat(40)));
        for key in ["list", "text"] {
            let payload = dumped(&mut bench, key);
            let value = &payload[..payload.len() - 10];
            let again = |value: &[u8]| {
                let mut bytes = [value, &[10, 0]].concat();
                bytes.extend_from_slice(&crate::stdx::crc::crc64(&bytes).to_le_bytes());
                bytes
            };
            for at in 0..value.len() {
                assert_eq!(restore(&mut bench, "b 0", &again(&value[..at]), "REPLACE"), "-ERR Bad data format|");
                for byte in 0..=255 {
                    let mut damaged = value.to_vec();
                    damaged[at] = byte;
                    let reply = restore(&mut bench, "b 0", &again(&damaged), "REPLACE");
                    assert!(reply == "+OK|" || reply == "-ERR Bad data format|", "{reply}");
                    // Whatever it is now, it can be used.
                    for command in ["DEBUG DIGEST-VALUE b", "LRANGE b 0 -1", "DUMP b", "OBJECT ENCODING b"] {
                        bench.raw(command);
                    }
                }
            }
        }
    }
}
