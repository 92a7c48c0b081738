//! COMPATIBILITY.md: which commands and directives of Redis 7.2 there are, written from the tables.
//!
//! What stays true: the page in the repository is what [`page`] writes; a test holds it to that. Only
//! `REDIS`, docs/differences.md and docs/upstream.md are not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::command::table::{CommandTable, Entry};
use crate::config::table::{FILE_DIRECTIVES, State, directives};

/// The commands of Redis 7.2, by the capability that each belongs to. Sentinel's subcommands are left
/// out, as no data server has them.
const REDIS: &[(&str, &str)] = &[
    (
        "acl",
        "acl acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|load acl|log \
         acl|save acl|setuser acl|users acl|whoami",
    ),
    ("bitmaps", "bitcount bitfield bitfield_ro bitop bitpos getbit setbit"),
    ("client tracking", "client|caching client|getredir client|tracking client|trackinginfo"),
    (
        "cluster",
        "asking cluster cluster|addslots cluster|addslotsrange cluster|bumpepoch \
         cluster|count-failure-reports cluster|countkeysinslot cluster|delslots cluster|delslotsrange cluster|failover \
         cluster|flushslots cluster|forget cluster|getkeysinslot cluster|help cluster|info cluster|keyslot \
         cluster|links cluster|meet cluster|myid cluster|myshardid cluster|nodes cluster|replicas \
         cluster|replicate cluster|reset cluster|saveconfig cluster|set-config-epoch cluster|setslot \
         cluster|shards cluster|slaves cluster|slots migrate readonly readwrite restore-asking",
    ),
    (
        "connections",
        "auth client client|getname client|help client|id client|info client|kill client|list client|no-evict \
         client|no-touch client|pause client|reply client|setinfo client|setname client|unblock \
         client|unpause echo hello ping quit reset select",
    ),
    (
        "geo",
        "geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro \
         geosearch geosearchstore",
    ),
    (
        "hashes",
        "hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx \
         hstrlen hvals",
    ),
    ("hyperloglog", "pfadd pfcount pfdebug pfmerge pfselftest"),
    (
        "introspection",
        "command command|count command|docs command|getkeys command|getkeysandflags command|help command|info \
         command|list",
    ),
    (
        "keyspace",
        "copy dbsize del exists expire expireat expiretime flushall flushdb keys move object object|encoding \
         object|freq object|help object|idletime object|refcount persist pexpire pexpireat pexpiretime pttl \
         randomkey rename renamenx scan swapdb touch ttl type unlink",
    ),
    (
        "lists",
        "blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange \
         lrem lset ltrim rpop rpoplpush rpush rpushx",
    ),
    ("modules", "module module|help module|list module|load module|loadex module|unload"),
    ("persistence", "bgrewriteaof bgsave dump lastsave restore save"),
    (
        "pubsub",
        "psubscribe publish pubsub pubsub|channels pubsub|help pubsub|numpat pubsub|numsub \
         pubsub|shardchannels pubsub|shardnumsub punsubscribe spublish ssubscribe subscribe sunsubscribe \
         unsubscribe",
    ),
    ("replication", "failover psync replconf replicaof role slaveof sync wait waitaof"),
    (
        "scripting",
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro function function|delete function|dump function|flush \
         function|help function|kill function|list function|load function|restore function|stats script \
         script|debug script|exists script|flush script|help script|kill script|load",
    ),
    ("sentinel", "sentinel"),
    (
        "server",
        "config config|get config|help config|resetstat config|rewrite config|set debug info latency \
         latency|doctor latency|graph latency|help latency|histogram latency|history latency|latest \
         latency|reset lolwut memory memory|doctor memory|help memory|malloc-stats memory|purge memory|stats \
         memory|usage monitor shutdown slowlog slowlog|get slowlog|help slowlog|len slowlog|reset time",
    ),
    (
        "sets",
        "sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop \
         srandmember srem sscan sunion sunionstore",
    ),
    (
        "sorted sets",
        "bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore \
         zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore \
         zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore \
         zrevrank zscan zscore zunion zunionstore",
    ),
    ("sorting", "sort sort_ro"),
    (
        "streams",
        "xack xadd xautoclaim xclaim xdel xgroup xgroup|create xgroup|createconsumer xgroup|delconsumer \
         xgroup|destroy xgroup|help xgroup|setid xinfo xinfo|consumers xinfo|groups xinfo|help xinfo|stream \
         xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim",
    ),
    (
        "strings",
        "append decr decrby get getdel getex getrange getset incr incrby incrbyfloat lcs mget mset msetnx \
         psetex set setex setnx setrange strlen substr",
    ),
    ("transactions", "discard exec multi unwatch watch"),
];

/// What the tables cannot tell: differences that are meant, with their reasons.
const DIFFERENCES: &str = include_str!("../../docs/differences.md");

/// How Valkey's test suite fares; written after a run.
const UPSTREAM: &str = include_str!("../../docs/upstream.md");

const HEAD: &str = "\
# Compatibility

Written from the tables of commands and directives; `SPINEL_WRITE=1 cargo test --lib compatibility` writes it
anew. Spinel reports itself as Redis 7.2.4 and is compared with that version.
";

/// The text of COMPATIBILITY.md.
pub fn page() -> String {
    let table = CommandTable::new(&[]).expect("nothing is renamed");
    let mut known: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in table.entries() {
        entry.visit(&mut |entry| _ = known.insert(&entry.full_name, entry));
    }
    let mut text = format!("{HEAD}\n{}\n", DIFFERENCES.trim_end());
    write_commands(&mut text, &mut known);
    write_directives(&mut text);
    let _ = write!(text, "\n{}\n", UPSTREAM.trim_end());
    text
}

fn write_commands(text: &mut String, known: &mut BTreeMap<&str, &Entry>) {
    let names = || REDIS.iter().flat_map(|(_, names)| names.split_whitespace());
    let (all, there) = (names().count(), names().filter(|name| known.contains_key(name)).count());
    let _ = write!(
        text,
        "\n## Commands\n\n{there} of the {all} commands and subcommands of Redis 7.2 are complete.\n\n\
         | capability | complete | missing |\n| --- | --- | --- |\n"
    );
    for (capability, names) in REDIS {
        let (there, missing): (Vec<&str>, Vec<&str>) =
            names.split_whitespace().partition(|name| known.remove(name).is_some());
        let _ = writeln!(text, "| {capability} | {} | {} |", shown(&there), shown(&missing));
    }
    if !known.is_empty() {
        text.push_str("\nBeyond Redis 7.2:\n\n| command | what it does |\n| --- | --- |\n");
        for (name, entry) in known {
            let _ = writeln!(text, "| {} | {} |", shown(&[name]), entry.command.summary.replace('|', "\\|"));
        }
    }
}

/// Names of commands as they are typed.
fn shown(names: &[&str]) -> String {
    let typed = names.iter().map(|name| name.to_ascii_uppercase().replace('|', " "));
    typed.collect::<Vec<_>>().join(", ")
}

fn write_directives(text: &mut String) {
    let rows = directives().iter().filter(|directive| !directive.flags.hidden);
    let rows = rows.map(|directive| (directive.name, directive.aliases, directive.state));
    let mut rows: Vec<(&str, &[&str], State)> = rows.collect();
    rows.extend(FILE_DIRECTIVES.iter().map(|directive| (directive.name, &[][..], directive.state)));
    rows.sort_by_key(|(name, ..)| *name);
    let effective = rows.iter().filter(|(.., state)| *state == State::Effective).count();
    let _ = write!(
        text,
        "\n## Directives\n\nEvery directive of Redis 7.2 is accepted. {effective} of {} do what they say; the others are \
         kept and reported, because there is nothing for them to do by design, or until there is what they wait \
         for.\n\n\
         | directive | state |\n| --- | --- |\n",
        rows.len()
    );
    for (name, aliases, state) in rows {
        let also = if aliases.is_empty() { String::new() } else { format!(" ({})", aliases.join(", ")) };
        let state = match state {
            State::Effective => "effective".to_string(),
            State::Stored(capability) => format!("waits for: {capability}"),
            State::Moot(reason) => format!("nothing to do: {reason}"),
        };
        let _ = writeln!(text, "| {name}{also} | {state} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/COMPATIBILITY.md");

    #[test]
    fn the_page_in_the_repository_is_that_of_the_tables() {
        if std::env::var_os("SPINEL_WRITE").is_some() {
            std::fs::write(PATH, page()).unwrap();
        }
        let file = std::fs::read_to_string(PATH).unwrap();
        assert!(file == page(), "write it anew: SPINEL_WRITE=1 cargo test --lib compatibility");
    }

    #[test]
    fn every_command_is_on_the_page_once() {
        let mut seen = HashSet::new();
        for name in REDIS.iter().flat_map(|(_, names)| names.split_whitespace()) {
            assert!(seen.insert(name), "{name}");
            assert_eq!(name, name.to_ascii_lowercase());
        }
        let page = page();
        for entry in CommandTable::new(&[]).unwrap().entries() {
            entry.visit(&mut |entry| assert!(page.contains(&shown(&[&entry.full_name])), "{}", entry.full_name));
        }
    }

    #[test]
    fn what_is_there_is_not_missing() {
        let page = page();
        let row = page.lines().find(|line| line.starts_with("| strings |")).unwrap();
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(columns[2].split(", ").any(|name| name == "GET"), "{row}");
        assert!(!columns[3].split(", ").any(|name| name == "GET"), "{row}");
    }
}
