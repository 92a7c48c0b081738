//! Slots that move as a whole: what administrators order and are told, and what two nodes say to each other.
//!
//! CLUSTER MIGRATESLOTS and its kin order it at the source, CLUSTER MIGRATION at the target; what happens is the same
//! ([`crate::cluster::migration`]). The source sends commands, as a client would, over a connection that began with
//! CLUSTER SYNCSLOTS ESTABLISH; what the target has to say goes back as lines.
//!
//! What must stay true: until the target has taken the slots over no client sees their keys there; if it does not, they
//! are removed again.

pub mod export;
pub mod import;

use crate::cluster::migration::{Event, Migration, Side, State, Terms};
use crate::cluster::migrations::Migrations;
use crate::cluster::node::Name;
use crate::cluster::shared::Cluster;
use crate::cluster::slots::SlotSet;
use crate::cluster::view::{Place, View};
use crate::command::args::Args;
use crate::command::cluster::{SUB, cluster, slot_of};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::table::Command;
use crate::config::table::Config;
use crate::spec::{Arity, Flag};
use crate::stdx::number::parse_i64;
use crate::stdx::random;

/// The flags of what only administrators do.
const ADMIN: &[Flag] = &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading];

/// Begins to move slots of this node to others.
pub const MIGRATESLOTS: Command = Command {
    name: "MIGRATESLOTS",
    since: "9.0.0",
    arity: Arity::AtLeast(4),
    flags: ADMIN,
    usage: "migration{SLOTSRANGE range{start-slot:integer end-slot:integer}... NODE node-id}...",
    summary: "Initiate server driven slot migration of all specified slot ranges to the designated target nodes.",
    complexity: "O(N) where N is the total number of the slots between all start slot and end slot arguments.",
    run: migrateslots,
    ..SUB
};

/// Replies with what is known of the migrations that go on and of those that ended lately.
pub const GETSLOTMIGRATIONS: Command = Command {
    name: "GETSLOTMIGRATIONS",
    since: "9.0.0",
    arity: Arity::Exactly(2),
    flags: ADMIN,
    summary: "Get the status of ongoing and recently finished slot import and export operations.",
    complexity: "O(N), where N is the number of active slot import and export jobs.",
    tips: &["nondeterministic_output"],
    run: getslotmigrations,
    ..SUB
};

/// Ends all migrations from this node.
pub const CANCELSLOTMIGRATIONS: Command = Command {
    name: "CANCELSLOTMIGRATIONS",
    since: "9.0.0",
    arity: Arity::Exactly(2),
    flags: ADMIN,
    summary: "Cancel all current ongoing slot migration operations.",
    complexity: "O(N), where N is the number of slot migration operations being cancelled.",
    run: cancelslotmigrations,
    ..SUB
};

/// Begins to move slots to this node, ends that, and tells how far it is.
pub const MIGRATION: Command = Command {
    name: "MIGRATION",
    since: "8.4.0",
    arity: Arity::AtLeast(4),
    flags: ADMIN,
    usage: "subcommand(IMPORT import{start-slot:integer end-slot:integer}... | CANCEL cancel(ID task-id | ALL) | STATUS status(ID task-id | ALL))",
    summary: "Start, monitor, and cancel atomic slot migration tasks.",
    complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
    run: migration,
    ..SUB
};

/// What nodes say to each other.
pub const SYNCSLOTS: Command = Command {
    name: "SYNCSLOTS",
    since: "9.0.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading, Flag::NoScript],
    usage: "operation [argument...]",
    summary: "Internal command to allow navigation of the atomic slot migration state machine.",
    complexity: "Depends on subcommand.",
    run: import::syncslots,
    ..SUB
};

/// The bounds that the configuration sets.
pub fn terms(config: &Config) -> Terms {
    Terms {
        lag_bytes: config.cluster_slot_migration_handoff_max_lag_bytes,
        pause_ms: config.cluster_slot_migration_write_pause_timeout.max(1),
        silence_ms: u64::from(config.repl_timeout).max(1) * 1000,
    }
}

fn fail<T>(text: impl AsRef<str>) -> Result<T, Error> {
    Err(Error::text(format!("ERR {}", text.as_ref())))
}

/// Slots as both forms of replies tell them: `0-5 7-7`.
fn told(slots: &SlotSet) -> String {
    slots.ranges().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" ")
}

/// Whether slots can move from or to this node at all.
fn check_node(ctx: &Context<'_>, view: &View) -> Result<(), Error> {
    let cluster = cluster(ctx)?;
    if view.is_replica {
        return fail("Slot migration can only be used on primary nodes.");
    }
    let (leave, come) = cluster
        .with(ctx.engine.clock.now_ms(), |machine| (!machine.migrating().is_empty(), !machine.importing().is_empty()));
    if leave {
        return fail("Slots are being manually migrated");
    }
    if come {
        return fail("Slots are being manually imported");
    }
    Ok(())
}

/// Reads ranges of slots from argument `at` on, as long as there are numbers; returns them and where they end.
fn ranges(args: &Args<'_>, mut at: usize) -> Result<(SlotSet, usize), Error> {
    let mut slots = SlotSet::default();
    let mut before: Vec<(usize, usize)> = Vec::new();
    while at < args.len() && parse_i64(args.at(at)).is_some() {
        let first = slot_of(args.at(at))?;
        let Some(end) = args.opt(at + 1) else { return fail("No end slot for final slot range") };
        let last = slot_of(end)?;
        if first > last {
            return fail(format!("Start slot number {first} is greater than end slot number {last}"));
        }
        if let Some((from, to)) = before.iter().find(|(from, to)| first <= *to && *from <= last) {
            return fail(format!("Slot range {first}-{last} overlaps with previous range {from}-{to}"));
        }
        before.push((first, last));
        slots.extend(first..=last);
        at += 2;
    }
    if slots.is_empty() {
        return fail("No slot ranges specified");
    }
    Ok((slots, at))
}

/// The one node that serves these slots.
fn owner_of(view: &View, slots: &SlotSet) -> Result<Place, Error> {
    let mut one = None;
    for slot in slots.iter() {
        let Some(owner) = u16::try_from(slot).ok().and_then(|slot| view.owner(slot)) else {
            return fail(format!("Slot {slot} has no node served"));
        };
        if *one.get_or_insert(owner) != owner {
            return fail("Requested slots span multiple shards");
        }
    }
    one.map_or_else(|| fail("No slot ranges specified"), Ok)
}

fn busy(slot: usize, side: Side) -> Error {
    let what = if side == Side::Source { "migrating" } else { "importing" };
    Error::text(format!("ERR I am already {what} slot {slot}."))
}

fn migrateslots(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let view = cluster.view().load_full();
    check_node(ctx, &view)?;
    let now = ctx.engine.clock.now_ms();
    let me = view.endpoint(View::MYSELF).name;
    let (mut new, mut all) = (Vec::new(), SlotSet::default());
    let mut at = 2;
    while at < args.len() {
        if !args.is(at, "SLOTSRANGE") {
            return Err(Error::Syntax);
        }
        let (slots, behind) = ranges(args, at + 1)?;
        let owner = owner_of(&view, &slots)?;
        let Some(target) = args.opt(behind + 1).filter(|_| args.is(behind, "NODE")) else { return Err(Error::Syntax) };
        let Some(target) = Name::parse(target) else { return fail("Invalid node name") };
        let Some(place) = view.place_of(&target) else { return fail("Unknown node name") };
        if owner != View::MYSELF {
            return fail("Slots are not served by this node.");
        }
        if place == View::MYSELF {
            return fail("Target node can not be this node");
        }
        if cluster.with(now, |machine| machine.find(&target.0).is_some_and(|key| machine.node(key).is_replica())) {
            return fail("Target node is not a primary");
        }
        if slots.iter().any(|slot| !all.add(slot)) {
            return fail("Slot ranges in migrations overlap");
        }
        new.push(Migration::new(Name(random::run_id()), Side::Source, slots, me, target, now));
        at = behind + 2;
    }
    let names: Vec<Name> = new.iter().map(|one| one.name).collect();
    cluster.migrations.add(new).map_err(|(slot, side)| busy(slot, side))?;
    let engine = ctx.engine.arc();
    names.iter().for_each(|name| engine.host.export_slots(&engine, name.0));
    ctx.out.ok();
    DONE
}

fn getslotmigrations(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let mut all = Vec::new();
    cluster.migrations.for_each(|one| all.push(one.clone()));
    ctx.out.array(all.len());
    for one in all {
        let side = if one.side == Side::Source { "EXPORT" } else { "IMPORT" };
        ctx.out.map(11);
        ctx.out.bulk(b"name");
        ctx.out.bulk(&one.name.0);
        ctx.out.bulk(b"operation");
        ctx.out.bulk(side.as_bytes());
        ctx.out.bulk(b"slot_ranges");
        ctx.out.bulk(told(&one.slots).as_bytes());
        ctx.out.bulk(b"target_node");
        ctx.out.bulk(&one.target.0);
        ctx.out.bulk(b"source_node");
        ctx.out.bulk(&one.source.0);
        for (name, ms) in
            [("create_time", one.created_ms), ("last_update_time", one.updated_ms), ("last_ack_time", one.heard_ms)]
        {
            ctx.out.bulk(name.as_bytes());
            ctx.out.integer((ms / 1000).cast_signed());
        }
        ctx.out.bulk(b"state");
        ctx.out.bulk(one.state.name(one.side).as_bytes());
        ctx.out.bulk(b"message");
        ctx.out.bulk(one.message.as_bytes());
        ctx.out.bulk(b"cow_size");
        // Nothing is copied on write by pages: what a snapshot keeps is told by INFO.
        ctx.out.integer(0);
    }
    DONE
}

fn cancel(engine: &Engine, cluster: &Cluster, names: &[Name]) {
    for name in names {
        happen(engine, cluster, name, Event::Cancelled);
    }
}

fn cancelslotmigrations(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let names = cluster.migrations.going_on(Some(Side::Source));
    if names.is_empty() {
        return fail("No migrations ongoing");
    }
    cancel(ctx.engine, cluster, &names);
    ctx.out.ok();
    DONE
}

fn migration(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    if args.is(2, "IMPORT") {
        return start_import(ctx, cluster, args);
    }
    let one = match args.len() {
        4 if args.is(3, "ALL") => None,
        5 if args.is(3, "ID") => Some(args.at(4)),
        _ => return Err(Error::Syntax),
    };
    let wanted = |name: &Name| one.is_none_or(|one| name.0 == one);
    if args.is(2, "CANCEL") {
        let mut names = cluster.migrations.going_on(None);
        names.retain(wanted);
        cancel(ctx.engine, cluster, &names);
        ctx.out.integer(names.len() as i64);
        return DONE;
    }
    if !args.is(2, "STATUS") {
        return Err(Error::Syntax);
    }
    status(ctx, &cluster.migrations, wanted)
}

fn start_import(ctx: &mut Context<'_>, cluster: &Cluster, args: &Args<'_>) -> Reply {
    let view = cluster.view().load_full();
    let (slots, end) = ranges(args, 3)?;
    if end != args.len() {
        return Err(Error::Syntax);
    }
    check_node(ctx, &view)?;
    let owner = owner_of(&view, &slots)?;
    if owner == View::MYSELF {
        return fail("This node is already the owner of the slot range");
    }
    let (source, me) = (view.endpoint(owner).name, view.endpoint(View::MYSELF).name);
    let name = Name(random::run_id());
    let new = Migration::asked_for(name, slots, source, me, ctx.engine.clock.now_ms());
    cluster.migrations.add(vec![new]).map_err(|(slot, side)| busy(slot, side))?;
    // The bus asks with its next tick.
    ctx.out.bulk(&name.0);
    DONE
}

fn status(ctx: &mut Context<'_>, migrations: &Migrations, wanted: impl Fn(&Name) -> bool) -> Reply {
    let mut all = Vec::new();
    migrations.for_each(|one| {
        if wanted(&one.name) {
            all.push(one.clone());
        }
    });
    ctx.out.array(all.len());
    for one in all {
        let operation = if one.side == Side::Source { "migrate" } else { "import" };
        let state = match one.state {
            State::Success => "completed",
            State::Failed => "failed",
            State::Cancelled => "canceled",
            other => other.name(one.side),
        };
        ctx.out.map(12);
        let slots = told(&one.slots);
        let texts: [(&str, &[u8]); 7] = [
            ("id", &one.name.0),
            ("slots", slots.as_bytes()),
            ("source", &one.source.0),
            ("dest", &one.target.0),
            ("operation", operation.as_bytes()),
            ("state", state.as_bytes()),
            ("last_error", one.message.as_bytes()),
        ];
        for (name, text) in texts {
            ctx.out.bulk(name.as_bytes());
            ctx.out.bulk(text);
        }
        let ended = if one.state.is_over() { one.updated_ms } else { 0 };
        let numbers = [
            ("retries", one.retries),
            ("create_time", one.created_ms),
            ("start_time", one.started_ms),
            ("end_time", ended),
            ("write_pause_ms", one.paused_ms),
        ];
        for (name, number) in numbers {
            ctx.out.bulk(name.as_bytes());
            ctx.out.integer(number.cast_signed());
        }
    }
    DONE
}

/// Has a migration go on by an event, and does what follows from it here; returns what is for who has the connection.
pub fn happen(engine: &Engine, cluster: &Cluster, name: &Name, event: Event) -> Vec<crate::cluster::migration::Action> {
    use crate::cluster::migration::Action;
    let terms = terms(&engine.config.load());
    let now = engine.clock.now_ms();
    let mut rest = Vec::new();
    for action in cluster.migrations.happen(name, now, &terms, event) {
        let slots = || cluster.migrations.look(name, |one| one.slots.clone()).unwrap_or_default();
        match action {
            Action::Hold => cluster.with(now, |machine| machine.hold_slots(&slots(), true)),
            Action::Release => {
                cluster.with(now, |machine| machine.hold_slots(&slots(), false));
                engine.pause.wake();
            }
            Action::RollBack => cluster.remove_keys(slots()),
            Action::TakeOver => rest.extend(import::take_over(engine, cluster, name, &slots())),
            Action::Ask => import::ask(engine, cluster, name),
            Action::Grant | Action::TellReady | Action::Close => rest.push(action),
        }
    }
    rest
}

/// Ends what goes on because all keys were removed, here and now.
pub fn flushed(engine: &Engine) {
    let Some(cluster) = engine.cluster.as_ref().filter(|cluster| cluster.migrations.any()) else { return };
    for name in cluster.migrations.going_on(None) {
        happen(engine, cluster, &name, Event::Broken("Data was flushed".into()));
    }
}
