//! MEMORY: what takes how much of it, and what the allocator says.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::Command;
use crate::keyspace::entry::Entry;
use crate::keyspace::hold::Hold;
use crate::observe::allocator::{self, Figures};
use crate::observe::process;
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::memory;

/// This family's commands.
pub const COMMANDS: &[Command] = &[MEMORY];

/// The memory of the process at one moment, in bytes: what INFO and MEMORY STATS are made of.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Allocated, as the program asked for it.
    pub used: u64,
    /// The most that was ever allocated.
    pub peak: u64,
    /// Allocated when the server was ready.
    pub startup: u64,
    /// In the machine's memory.
    pub resident: u64,
    /// What the allocator says; where it says nothing, what can be said without it.
    pub allocator: Figures,
    /// Connections: what is known of them, and their buffers.
    pub clients: u64,
    /// For each database with keys: its number, its tables, its index of deadlines.
    pub databases: Vec<(usize, u64, u64)>,
    /// Keys of all databases.
    pub keys: u64,
}

impl Usage {
    /// The memory as it is now. Walks shards, not keys; `hold` holds nothing or everything.
    pub fn now(engine: &Engine, hold: &mut Hold<'_>, now_ms: u64) -> Usage {
        let used = memory::used() as u64;
        let resident = process::resident_bytes();
        let counts = engine.keyspace.counts(hold, now_ms);
        let with_overhead = |&(db, _): &(usize, _)| {
            let (tables, deadlines) = engine.keyspace.overhead(hold, db);
            (db, tables, deadlines)
        };
        Usage {
            used,
            peak: engine.memory_peak.fetch_max(used, Ordering::Relaxed).max(used),
            startup: engine.memory_startup.load(Ordering::Relaxed),
            resident,
            allocator: allocator::figures().unwrap_or(Figures { allocated: used, active: resident, resident }),
            clients: engine.clients.all().iter().map(|client| client.memory() as u64).sum(),
            keys: counts.iter().map(|(_, counts)| counts.keys).sum(),
            databases: counts.iter().map(with_overhead).collect(),
        }
    }

    /// What is not data: the server itself, its connections, tables and indexes.
    pub fn overhead(&self) -> u64 {
        self.startup
            + self.clients
            + self.databases.iter().map(|(_, tables, deadlines)| tables + deadlines).sum::<u64>()
    }

    /// What is: keys and values.
    pub fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead())
    }

    /// What was allocated since the server was ready.
    pub fn since_startup(&self) -> u64 {
        self.used.saturating_sub(self.startup)
    }

    /// Pages that the allocator has given out, beyond what was asked of it: their ratio and difference.
    pub fn fragmentation(&self) -> Share {
        Share(self.allocator.active, self.allocator.allocated)
    }

    /// Pages that the allocator holds beyond those in use.
    pub fn retained(&self) -> Share {
        Share(self.allocator.resident, self.allocator.active)
    }

    /// Memory of the process that the allocator knows nothing of: code, stacks.
    pub fn beyond_allocator(&self) -> Share {
        Share(self.resident, self.allocator.resident)
    }

    /// All memory of the process, against what was asked for.
    pub fn in_all(&self) -> Share {
        Share(self.resident, self.used)
    }
}

/// Two amounts of memory that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u64, pub u64);

impl Share {
    /// How many times the first is of the second; 0 where there is no second.
    pub fn ratio(self) -> f64 {
        if self.1 == 0 { 0.0 } else { self.0 as f64 / self.1 as f64 }
    }

    /// How much more the first is; negative where it is less.
    pub fn bytes(self) -> i64 {
        self.0 as i64 - self.1 as i64
    }

    /// The first in percent of the second; 0 where there is no second.
    pub fn percent(self) -> f64 {
        self.ratio() * 100.0
    }
}

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "4.0.0",
    group: Group::Server,
    arity: Arity::Exactly(2),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help::container,
};

/// The container.
pub const MEMORY: Command = Command {
    name: "MEMORY",
    arity: Arity::AtLeast(2),
    summary: "A container for memory diagnostics commands.",
    complexity: "Depends on subcommand.",
    tips: &[],
    subcommands: &[DOCTOR, HELP, MALLOC_STATS, PURGE, STATS, USAGE],
    ..SUB
};

const USAGE: Command = Command {
    name: "USAGE",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 2, access: Access::META }],
    usage: "key [SAMPLES count]",
    summary: "Estimates the memory usage of a key.",
    complexity: "O(N) where N is the number of samples.",
    tips: &[],
    run: usage,
    ..SUB
};

/// What an entry's place in the index of deadlines takes.
const DEADLINE_BYTES: usize = 10;

fn usage(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut i = 3;
    while i < args.len() {
        if !args.is(i, "SAMPLES") || i + 1 >= args.len() {
            return Err(Error::Syntax);
        }
        // Collections know their size, so nothing is sampled; the number must be one all the same.
        if args.integer(i + 1)? < 0 {
            return Err(Error::Syntax);
        }
        i += 2;
    }
    let key = args.key(&ctx.db, 2);
    let Some(own) = ctx.db.look(&key).map(|e| e.memory() + e.deadline().map_or(0, |_| DEADLINE_BYTES)) else {
        ctx.out.null();
        return DONE;
    };
    let db = ctx.db.index();
    let place = ctx.db.hold.shard(key.hash.shard()).part(db).map_or(size_of::<Entry>(), |part| {
        let table = part.slot(key.hash.slot_in_shard());
        table.allocated_bytes() / table.len().max(1)
    });
    ctx.out.integer((own + place) as i64);
    DONE
}

const STATS: Command = Command { name: "STATS", summary: "Returns details about memory usage.", run: stats, ..SUB };

fn stats(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let now_ms = ctx.db.now_ms();
    let usage = Usage::now(ctx.engine, &mut ctx.db.hold, now_ms);
    let out = &mut *ctx.out;
    let map = out.defer();
    let mut rows = 0;
    let mut name = |out: &mut crate::resp::reply::Output, name: &str| {
        rows += 1;
        out.bulk(name.as_bytes());
    };
    // Of what Spinel has no counterpart to yet (backlog, replicas, bus, append only file),
    // Redis without use of it shows zero too.
    let first = [
        ("peak.allocated", usage.peak),
        ("total.allocated", usage.used),
        ("startup.allocated", usage.startup),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", usage.clients),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", ctx.engine.scripts.cache.memory() as u64),
        ("functions.caches", ctx.engine.scripts.libraries.load().memory() as u64),
    ];
    for (field, bytes) in first {
        name(out, field);
        out.integer(bytes as i64);
    }
    for (db, tables, deadlines) in &usage.databases {
        name(out, &format!("db.{db}"));
        out.map(3);
        let parts =
            [("overhead.hashtable.main", *tables), ("overhead.hashtable.expires", *deadlines), (SLOT_TO_KEYS, 0)];
        for (field, bytes) in parts {
            out.bulk(field.as_bytes());
            out.integer(bytes as i64);
        }
    }
    let integers = [
        ("overhead.total", usage.overhead()),
        ("keys.count", usage.keys),
        ("keys.bytes-per-key", usage.since_startup().checked_div(usage.keys).unwrap_or(0)),
        ("dataset.bytes", usage.dataset()),
    ];
    for (field, value) in integers {
        name(out, field);
        out.integer(value as i64);
    }
    name(out, "dataset.percentage");
    out.double(Share(usage.dataset(), usage.since_startup()).percent());
    name(out, "peak.percentage");
    out.double(Share(usage.used, usage.peak).percent());
    let allocator = [
        ("allocator.allocated", usage.allocator.allocated),
        ("allocator.active", usage.allocator.active),
        ("allocator.resident", usage.allocator.resident),
    ];
    for (field, bytes) in allocator {
        name(out, field);
        out.integer(bytes as i64);
    }
    let shares = [
        ("allocator-fragmentation.ratio", "allocator-fragmentation.bytes", usage.fragmentation()),
        ("allocator-rss.ratio", "allocator-rss.bytes", usage.retained()),
        ("rss-overhead.ratio", "rss-overhead.bytes", usage.beyond_allocator()),
        ("fragmentation", "fragmentation.bytes", usage.in_all()),
    ];
    for (ratio, bytes, share) in shares {
        name(out, ratio);
        out.double(share.ratio());
        name(out, bytes);
        out.integer(share.bytes());
    }
    out.finish_map(map, rows);
    DONE
}

/// The slots of a cluster are where the keys are: there is no list beside them.
const SLOT_TO_KEYS: &str = "overhead.hashtable.slot-to-keys";

const DOCTOR: Command = Command {
    name: "DOCTOR",
    summary: "Outputs a memory problems report.",
    run: |ctx, _| {
        let now_ms = ctx.db.now_ms();
        let usage = Usage::now(ctx.engine, &mut ctx.db.hold, now_ms);
        let connections = ctx.engine.clients.len() as u64;
        ctx.out.verbatim("txt", diagnosis(&usage, connections).as_bytes());
        DONE
    },
    ..SUB
};

/// Below this nothing can be said about memory: what the process itself needs outweighs the data.
const DOCTOR_LEAST: u64 = 5 << 20;

/// What is wrong with the memory, in words, and what can be done about it.
fn diagnosis(usage: &Usage, connections: u64) -> String {
    if usage.used < DOCTOR_LEAST {
        return "This instance is empty or uses very little memory: there is nothing to diagnose yet.\n".to_owned();
    }
    let wasteful = |share: Share, ratio: f64| share.ratio() > ratio && share.bytes() > 10 << 20;
    let mut found = Vec::new();
    let mut say = |words: String| found.push(words);
    if usage.peak as f64 / usage.used as f64 > 1.5 {
        say("Peak memory: in the past this instance used more than 150 % of what it uses now. The allocator may \
             keep the pages, which makes the fragmentation ratio look worse than it is; MEMORY PURGE gives back \
             what is free."
            .to_owned());
    }
    if wasteful(usage.in_all(), 1.4) {
        say("High total RSS: the process takes more than 1.4 times the memory that was asked for. See below for \
             the reasons."
            .to_owned());
    }
    if wasteful(usage.fragmentation(), 1.1) {
        say("High allocator fragmentation: pages are only partly used, after values of many sizes were removed. \
             A restart or a replica that takes over has compact memory."
            .to_owned());
    }
    if wasteful(usage.retained(), 1.1) {
        say("High allocator RSS overhead: the allocator holds pages that nothing is in. MEMORY PURGE gives them \
             back; jemalloc-bg-thread does it all the time."
            .to_owned());
    }
    if wasteful(usage.beyond_allocator(), 1.1) {
        say("High process RSS overhead: much memory of the process was not taken by the allocator.".to_owned());
    }
    if connections > 0 && usage.clients / connections > 200 << 10 {
        say("Big client buffers: connections take more than 200 kB each on average. Look at CLIENT LIST for \
             those with large omem, and at client-output-buffer-limit."
            .to_owned());
    }
    if found.is_empty() {
        return "No memory problem was found in this instance.\n".to_owned();
    }
    let mut text = String::from("Memory problems were found in this instance:\n\n");
    for one in found {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " * {one}\n");
    }
    text
}

const MALLOC_STATS: Command = Command {
    name: "MALLOC-STATS",
    summary: "Returns the allocator statistics.",
    complexity: "Depends on how much memory is allocated, could be slow",
    run: |ctx, _| {
        match allocator::report() {
            Some(text) => ctx.out.verbatim("txt", text.as_bytes()),
            None => ctx.out.bulk(b"Stats not supported for the current allocator"),
        }
        DONE
    },
    ..SUB
};

const PURGE: Command = Command {
    name: "PURGE",
    summary: "Asks the allocator to release memory.",
    complexity: "Depends on how much memory is allocated, could be slow",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    run: |ctx, _| {
        // An allocator that cannot is no error, as in Redis.
        if allocator::is_jemalloc() && !allocator::purge() {
            return Err(Error::text("ERR Error purging dirty pages"));
        }
        ctx.out.ok();
        DONE
    },
    ..SUB
};

const HELP: Command = Command {
    name: "HELP",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    tips: &[],
    run: |ctx, _| {
        help::write(
            ctx.out,
            "MEMORY",
            &[
                ("DOCTOR", &["Return memory problems reports."]),
                ("MALLOC-STATS", &["Return internal statistics report from the memory allocator."]),
                ("PURGE", &["Attempt to purge dirty pages for reclamation by the allocator."]),
                ("STATS", &["Return information about the memory usage of the server."]),
                (
                    "USAGE <key> [SAMPLES <count>]",
                    &[
                        "Return memory in bytes used by <key> and its value. Nested values are",
                        "sampled up to <count> times (default: 5, 0 means sample all).",
                    ],
                ),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    fn integer(reply: &str) -> usize {
        reply.trim_start_matches(':').trim_end_matches('|').parse().unwrap_or_else(|_| panic!("{reply}"))
    }

    #[test]
    fn usage_grows_with_the_value_and_with_a_deadline() {
        let mut bench = Bench::new();
        bench.run("SET a 1");
        bench.run(&format!("SET b {}", "x".repeat(1000)));
        let (a, b) = (integer(&bench.run("MEMORY USAGE a")), integer(&bench.run("MEMORY USAGE b SAMPLES 0")));
        assert!((10..200).contains(&a) && b > a + 950 && b < a + 1050, "{a} {b}");
        bench.run("SET a 1 EX 100");
        assert!(integer(&bench.run("MEMORY USAGE a")) > a);
        assert_eq!(bench.run("MEMORY USAGE none"), "$-1|");
    }

    #[test]
    fn options_of_usage_are_read_before_the_key() {
        let mut bench = Bench::new();
        for bad in ["SAMPLES", "FOO", "FOO 5", "SAMPLES -1"] {
            assert_eq!(bench.run(&format!("MEMORY USAGE none {bad}")), "-ERR syntax error|", "{bad}");
        }
        let reply = bench.run("MEMORY USAGE none SAMPLES abc");
        assert_eq!(reply, "-ERR value is not an integer or out of range|");
        assert_eq!(bench.run("MEMORY USAGE none SAMPLES 5 SAMPLES 0"), "$-1|");
    }

    #[test]
    fn stats_tell_each_database_with_keys() {
        let mut bench = Bench::new();
        let empty = bench.run("MEMORY STATS");
        assert!(empty.starts_with("*54|$14|peak.allocated|:") && !empty.contains("db."), "{empty}");
        bench.run("SET a 1 EX 100");
        let one = bench.run("MEMORY STATS");
        assert!(one.starts_with("*56|") && one.contains("|$4|db.0|*6|$23|overhead.hashtable.main|:"), "{one}");
        assert!(one.contains("|$10|keys.count|:1|"), "{one}");
    }

    #[test]
    fn the_doctor_names_what_is_wrong() {
        let fine = Usage {
            used: 100 << 20,
            peak: 110 << 20,
            resident: 105 << 20,
            allocator: Figures { allocated: 100 << 20, active: 101 << 20, resident: 102 << 20 },
            ..Usage::default()
        };
        assert!(diagnosis(&Usage::default(), 1).contains("very little memory"));
        assert!(diagnosis(&fine, 1).contains("No memory problem"));
        let peak = Usage { peak: 200 << 20, ..fine.clone() };
        assert!(diagnosis(&peak, 1).contains("Peak memory"));
        let figures = Figures { active: 150 << 20, resident: 151 << 20, ..fine.allocator };
        let fragmented = Usage { allocator: figures, resident: 155 << 20, ..fine.clone() };
        let said = diagnosis(&fragmented, 1);
        assert!(said.contains("High total RSS") && said.contains("High allocator fragmentation"), "{said}");
        assert!(!said.contains("Big client buffers"), "{said}");
        assert!(diagnosis(&Usage { clients: 10 << 20, ..fine }, 10).contains("Big client buffers"));
    }

    #[test]
    fn the_allocator_answers() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("MEMORY PURGE"), "+OK|");
        assert!(bench.run("MEMORY MALLOC-STATS").starts_with('$'));
        assert!(bench.run("MEMORY HELP").starts_with("*14|+MEMORY <subcommand>"));
    }
}
