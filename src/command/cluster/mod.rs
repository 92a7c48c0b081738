//! CLUSTER and its kin: what clients and administrators ask of the cluster, and the way of requests to the node that
//! serves their slot.
//!
//! What must stay true: a command that is about a slot of somebody else changes nothing here; keys of a slot that was lost
//! are gone before anybody can believe to own them.

mod ask;
pub mod keys;
pub mod migration;
mod order;
pub mod redirect;
pub mod route;
mod stats;

use crate::client::session::Asking;
use crate::client::shared::{Link, Mark, Shared};
use crate::cluster::node::Way;
use crate::cluster::shared::Cluster;
use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::{Command, Entry};
use crate::keyspace::shard;
use crate::spec::{Arity, Category, Flag, Group};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[ASKING, CLUSTER, READONLY, READWRITE];

/// What all declarations of this file have in common.
const BASE: Command = Command {
    name: "",
    since: "3.0.0",
    group: Group::Cluster,
    arity: Arity::AtLeast(2),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help::container,
};

/// The container of what concerns the cluster.
pub const CLUSTER: Command = Command {
    name: "CLUSTER",
    summary: "A container for Redis Cluster commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        ADDSLOTS,
        ADDSLOTSRANGE,
        BUMPEPOCH,
        migration::CANCELSLOTMIGRATIONS,
        COUNT_FAILURE_REPORTS,
        COUNTKEYSINSLOT,
        DELSLOTS,
        DELSLOTSRANGE,
        FAILOVER,
        FLUSHSLOTS,
        FORGET,
        GETKEYSINSLOT,
        migration::GETSLOTMIGRATIONS,
        HELP,
        INFO,
        KEYSLOT,
        LINKS,
        MEET,
        migration::MIGRATESLOTS,
        migration::MIGRATION,
        MYID,
        MYSHARDID,
        NODES,
        REPLICAS,
        REPLICATE,
        RESET,
        SAVECONFIG,
        SET_CONFIG_EPOCH,
        SETSLOT,
        SHARDS,
        SLAVES,
        SLOT_STATS,
        SLOTS,
        migration::SYNCSLOTS,
    ],
    ..BASE
};

/// What its subcommands have in common.
const SUB: Command = Command { flags: &[Flag::Stale], ..BASE };

/// The flags of what changes the cluster.
const ORDER: &[Flag] = &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading];

/// Has the next request be served although its slot is only on its way here.
pub const ASKING: Command = Command {
    name: "ASKING",
    arity: Arity::Exactly(1),
    flags: &[Flag::Fast],
    categories: &[Category::Connection],
    summary: "Signals that a cluster client is following an -ASK redirect.",
    complexity: "O(1)",
    run: |ctx, _| {
        cluster(ctx)?;
        ctx.session.asking = Asking::Next;
        ctx.out.ok();
        DONE
    },
    ..SUB
};

/// Has a replica answer what is read of its primary's slots.
pub const READONLY: Command = Command {
    name: "READONLY",
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    summary: "Enables read-only queries for a connection to a Redis Cluster replica node.",
    run: |ctx, _| read_only(ctx, true),
    ..ASKING
};

/// Ends READONLY.
pub const READWRITE: Command = Command {
    name: "READWRITE",
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    summary: "Enables read-write queries for a connection to a Reids Cluster replica node.",
    run: |ctx, _| read_only(ctx, false),
    ..ASKING
};

fn read_only(ctx: &mut Context<'_>, on: bool) -> Reply {
    // Who is sent from a replica to its primary may say that it wants to read all the same.
    if !ctx.session.shared.has(Mark::Redirect) {
        cluster(ctx)?;
    }
    ctx.session.shared.mark(Mark::ReadOnly, on);
    ctx.out.ok();
    DONE
}

/// The cluster that this server is a node of.
///
/// # Errors
/// It is none.
fn cluster<'a>(ctx: &Context<'a>) -> Result<&'a Cluster, Error> {
    ctx.engine.cluster.as_deref().ok_or(Error::text("ERR This instance has cluster support disabled"))
}

/// Whether a command tells of the cluster and nothing of keys: it is answered while data is loaded, so that whoever
/// watches over a cluster sees it whole while a replica is being filled. Redis refuses it then, Valkey does not.
pub fn tells_while_loading(entry: &Entry) -> bool {
    const TELL: [&str; 6] =
        ["cluster|info", "cluster|myid", "cluster|myshardid", "cluster|nodes", "cluster|shards", "cluster|slots"];
    TELL.contains(&&*entry.full_name)
}

/// The slot that an argument names.
fn slot_of(arg: &[u8]) -> Result<usize, Error> {
    let slot = parse_i64(arg).and_then(|slot| usize::try_from(slot).ok()).filter(|slot| *slot < shard::SLOTS);
    slot.ok_or(Error::text("ERR Invalid or out of range slot"))
}

/// How a client is connected, as far as the addresses that it is told depend on it.
fn way(client: &Shared) -> Way {
    Way::of(&client.addr, client.link == Link::Tls)
}

/// What a machine refused, as it stands in a reply.
fn refused(text: String) -> Error {
    // Whatever a client named stands in it, and a line break would end the reply.
    Error::text(format!("ERR {}", text.replace(['\r', '\n'], " ")))
}

const ADDSLOTS: Command = Command {
    name: "ADDSLOTS",
    arity: Arity::AtLeast(3),
    flags: ORDER,
    usage: "slot:integer...",
    summary: "Assigns new hash slots to a node.",
    complexity: "O(N) where N is the total number of hash slot arguments",
    run: order::addslots,
    ..SUB
};

const ADDSLOTSRANGE: Command = Command {
    name: "ADDSLOTSRANGE",
    since: "7.0.0",
    arity: Arity::AtLeast(4),
    flags: ORDER,
    usage: "range{start-slot:integer end-slot:integer}...",
    summary: "Assigns new hash slot ranges to a node.",
    complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    run: order::addslotsrange,
    ..SUB
};

const BUMPEPOCH: Command = Command {
    name: "BUMPEPOCH",
    arity: Arity::Exactly(2),
    flags: ORDER,
    summary: "Advances the cluster config epoch.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    run: order::bumpepoch,
    ..SUB
};

const COUNT_FAILURE_REPORTS: Command = Command {
    name: "COUNT-FAILURE-REPORTS",
    arity: Arity::Exactly(3),
    flags: &[Flag::Admin, Flag::Stale],
    usage: "node-id",
    summary: "Returns the number of active failure reports active for a node.",
    complexity: "O(N) where N is the number of failure reports",
    tips: &["nondeterministic_output"],
    run: ask::count_failure_reports,
    ..SUB
};

const COUNTKEYSINSLOT: Command = Command {
    name: "COUNTKEYSINSLOT",
    arity: Arity::Exactly(3),
    usage: "slot:integer",
    summary: "Returns the number of keys in a hash slot.",
    complexity: "O(1)",
    run: ask::countkeysinslot,
    ..SUB
};

const DELSLOTS: Command = Command {
    name: "DELSLOTS",
    arity: Arity::AtLeast(3),
    flags: ORDER,
    usage: "slot:integer...",
    summary: "Sets hash slots as unbound for a node.",
    complexity: "O(N) where N is the total number of hash slot arguments",
    run: order::delslots,
    ..SUB
};

const DELSLOTSRANGE: Command = Command {
    name: "DELSLOTSRANGE",
    since: "7.0.0",
    arity: Arity::AtLeast(4),
    flags: ORDER,
    usage: "range{start-slot:integer end-slot:integer}...",
    summary: "Sets hash slot ranges as unbound for a node.",
    complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    run: order::delslotsrange,
    ..SUB
};

const FAILOVER: Command = Command {
    name: "FAILOVER",
    arity: Arity::AtLeast(2),
    flags: ORDER,
    usage: "[options(FORCE | TAKEOVER)]",
    summary: "Forces a replica to perform a manual failover of its master.",
    complexity: "O(1)",
    run: order::failover,
    ..SUB
};

const FLUSHSLOTS: Command = Command {
    name: "FLUSHSLOTS",
    arity: Arity::Exactly(2),
    flags: ORDER,
    summary: "Deletes all slots information from a node.",
    complexity: "O(1)",
    run: order::flushslots,
    ..SUB
};

const FORGET: Command = Command {
    name: "FORGET",
    arity: Arity::Exactly(3),
    flags: ORDER,
    usage: "node-id",
    summary: "Removes a node from the nodes table.",
    complexity: "O(1)",
    run: order::forget,
    ..SUB
};

const GETKEYSINSLOT: Command = Command {
    name: "GETKEYSINSLOT",
    arity: Arity::Exactly(4),
    usage: "slot:integer count",
    summary: "Returns the key names in a hash slot.",
    complexity: "O(N) where N is the number of requested keys",
    tips: &["nondeterministic_output"],
    run: ask::getkeysinslot,
    ..SUB
};

const HELP: Command = Command {
    name: "HELP",
    since: "5.0.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    complexity: "O(1)",
    run: help,
    ..SUB
};

const INFO: Command = Command {
    name: "INFO",
    arity: Arity::Exactly(2),
    summary: "Returns information about the state of a node.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    run: ask::info,
    ..SUB
};

const KEYSLOT: Command = Command {
    name: "KEYSLOT",
    arity: Arity::Exactly(3),
    usage: "key:string",
    summary: "Returns the hash slot for a key.",
    complexity: "O(N) where N is the number of bytes in the key",
    run: ask::keyslot,
    ..SUB
};

const LINKS: Command = Command {
    name: "LINKS",
    since: "7.0.0",
    arity: Arity::Exactly(2),
    summary: "Returns a list of all TCP links to and from peer nodes.",
    complexity: "O(N) where N is the total number of Cluster nodes",
    tips: &["nondeterministic_output"],
    run: ask::links,
    ..SUB
};

const MEET: Command = Command {
    name: "MEET",
    arity: Arity::AtLeast(4),
    flags: ORDER,
    usage: "ip port:integer [cluster-bus-port:integer]@4.0.0",
    summary: "Forces a node to handshake with another node.",
    complexity: "O(1)",
    history: &[("4.0.0", "Added the optional `cluster_bus_port` argument.")],
    run: order::meet,
    ..SUB
};

const MYID: Command = Command {
    name: "MYID",
    arity: Arity::Exactly(2),
    summary: "Returns the ID of a node.",
    complexity: "O(1)",
    run: ask::myid,
    ..SUB
};

const MYSHARDID: Command = Command {
    name: "MYSHARDID",
    since: "7.2.0",
    arity: Arity::Exactly(2),
    summary: "Returns the shard ID of a node.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    run: ask::myshardid,
    ..SUB
};

const NODES: Command = Command {
    name: "NODES",
    arity: Arity::Exactly(2),
    summary: "Returns the cluster configuration for a node.",
    complexity: "O(N) where N is the total number of Cluster nodes",
    tips: &["nondeterministic_output"],
    run: ask::nodes,
    ..SUB
};

const REPLICAS: Command = Command {
    name: "REPLICAS",
    since: "5.0.0",
    arity: Arity::Exactly(3),
    flags: &[Flag::Admin, Flag::Stale],
    usage: "node-id",
    summary: "Lists the replica nodes of a master node.",
    complexity: "O(N) where N is the number of replicas.",
    tips: &["nondeterministic_output"],
    run: ask::replicas,
    ..SUB
};

const REPLICATE: Command = Command {
    name: "REPLICATE",
    arity: Arity::Exactly(3),
    flags: ORDER,
    usage: "node-id",
    summary: "Configure a node as replica of a master node.",
    complexity: "O(1)",
    run: order::replicate,
    ..SUB
};

const RESET: Command = Command {
    name: "RESET",
    arity: Arity::AtLeast(2),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale],
    usage: "[reset-type(HARD | SOFT)]",
    summary: "Resets a node.",
    complexity: "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
    run: order::reset,
    ..SUB
};

const SAVECONFIG: Command = Command {
    name: "SAVECONFIG",
    arity: Arity::Exactly(2),
    flags: ORDER,
    summary: "Forces a node to save the cluster configuration to disk.",
    complexity: "O(1)",
    run: order::saveconfig,
    ..SUB
};

const SET_CONFIG_EPOCH: Command = Command {
    name: "SET-CONFIG-EPOCH",
    arity: Arity::Exactly(3),
    flags: ORDER,
    usage: "config-epoch:integer",
    summary: "Sets the configuration epoch for a new node.",
    complexity: "O(1)",
    run: order::set_config_epoch,
    ..SUB
};

const SETSLOT: Command = Command {
    name: "SETSLOT",
    arity: Arity::AtLeast(4),
    flags: ORDER,
    usage: "slot:integer subcommand(IMPORTING importing/node-id | MIGRATING migrating/node-id | NODE node/node-id | STABLE)",
    summary: "Binds a hash slot to a node.",
    complexity: "O(1)",
    run: order::setslot,
    ..SUB
};

const SHARDS: Command = Command {
    name: "SHARDS",
    since: "7.0.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns the mapping of cluster slots to shards.",
    complexity: "O(N) where N is the total number of cluster nodes",
    tips: &["nondeterministic_output"],
    run: ask::shards,
    ..SUB
};

const SLOT_STATS: Command = Command {
    name: "SLOT-STATS",
    since: "8.0.0",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Loading, Flag::Stale],
    usage: "filter(SLOTSRANGE slotsrange{start-slot:integer end-slot:integer} | ORDERBY orderby{metric:string [LIMIT limit:integer] [order(ASC | DESC)]})",
    summary: "Return an array of slot usage statistics for slots assigned to the current node.",
    complexity: "O(N) where N is the total number of slots based on arguments. O(N*log(N)) with ORDERBY subcommand.",
    tips: &["nondeterministic_output", "request_policy:all_shards"],
    run: stats::slot_stats,
    ..SUB
};

const SLAVES: Command = Command {
    name: "SLAVES",
    arity: Arity::Exactly(3),
    flags: &[Flag::Admin, Flag::Stale],
    usage: "node-id",
    summary: "Lists the replica nodes of a master node.",
    complexity: "O(N) where N is the number of replicas.",
    tips: &["nondeterministic_output"],
    deprecated: Some(("5.0.0", "`CLUSTER REPLICAS`")),
    run: ask::replicas,
    ..SUB
};

const SLOTS: Command = Command {
    name: "SLOTS",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns the mapping of cluster slots to nodes.",
    complexity: "O(N) where N is the total number of Cluster nodes",
    tips: &["nondeterministic_output"],
    history: &[("4.0.0", "Added node IDs."), ("7.0.0", "Added additional networking metadata field.")],
    deprecated: Some(("7.0.0", "`CLUSTER SHARDS`")),
    run: ask::slots,
    ..SUB
};

fn help(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    cluster(ctx)?;
    help::write(
        ctx.out,
        "CLUSTER",
        &[
            ("ADDSLOTS <slot> [<slot> ...]", &["Serve these slots."]),
            ("ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]", &["Serve these ranges of slots."]),
            ("BUMPEPOCH", &["Take the newest configuration epoch."]),
            ("COUNT-FAILURE-REPORTS <node-id>", &["Count the primaries that do not reach a node."]),
            ("COUNTKEYSINSLOT <slot>", &["Count the keys of a slot that are here."]),
            ("DELSLOTS <slot> [<slot> ...]", &["Forget who serves these slots."]),
            (
                "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
                &["Forget who serves these ranges."],
            ),
            ("FAILOVER [FORCE|TAKEOVER]", &["Have this replica take the place of its primary."]),
            ("FORGET <node-id>", &["Forget a node."]),
            ("GETKEYSINSLOT <slot> <count>", &["List keys of a slot that are here."]),
            ("FLUSHSLOTS", &["Serve no slots any more."]),
            ("INFO", &["Tell of the cluster's state."]),
            ("KEYSLOT <key>", &["Tell the slot of a key."]),
            ("MEET <ip> <port> [<bus-port>]", &["Join the cluster of another node, or have it join this one."]),
            ("MYID", &["Tell this node's name."]),
            ("MYSHARDID", &["Tell the name of this node's shard."]),
            (
                "NODES",
                &[
                    "List all nodes that are known. A line is:",
                    "<id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
                ],
            ),
            ("REPLICATE <node-id>", &["Become a replica of a node."]),
            ("RESET [HARD|SOFT]", &["Know nobody and serve nothing. HARD: take another name, too."]),
            ("SET-CONFIG-EPOCH <epoch>", &["Set the configuration epoch of a new node."]),
            (
                "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>) [TIMEOUT <milliseconds>]",
                &["Say where a slot is, or which way it is on. Replicas are told first, and waited for."],
            ),
            ("REPLICAS <node-id>", &["List the replicas of a node."]),
            ("SAVECONFIG", &["Write nodes.conf."]),
            (
                "SLOTS",
                &["List ranges of slots: first, last, the primary and its replicas with address, port and name."],
            ),
            ("SHARDS", &["List shards: their slots, and what is known of their nodes."]),
            (
                "SLOT-STATS SLOTSRANGE <start slot> <end slot> | ORDERBY <metric> [LIMIT <limit>] [ASC|DESC]",
                &["Tell what slots hold and cost."],
            ),
            (
                "MIGRATESLOTS SLOTSRANGE <start slot> <end slot> [...] NODE <node-id> [...]",
                &["Move slots of this node to others, each range as a whole."],
            ),
            ("GETSLOTMIGRATIONS", &["Tell how far such moves are, and what became of them."]),
            ("CANCELSLOTMIGRATIONS", &["End those from this node."]),
            (
                "MIGRATION IMPORT <start slot> <end slot> [...] | CANCEL ID <id>|ALL | STATUS [ID <id>] [ALL]",
                &["Move slots to this node, end that, or tell how far it is."],
            ),
            ("LINKS", &["List the connections between this node and others, a map for each."]),
        ],
    )
}
