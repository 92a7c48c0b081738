//! What administrators have this node do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::machine::{Bumped, FailoverKind, Machine, ResetKind, SetSlot};
use crate::cluster::migration::Side;
use crate::command::args::Args;
use crate::command::blocking::until_milliseconds;
use crate::command::cluster::{cluster, keys, refused, slot_of};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::help;
use crate::command::replication::wait;
use crate::replication::Waiter;
use crate::resp::reply::Output;
use crate::stdx::number::parse_i64;

/// Has the machine do something, and replies OK where it did.
fn order(ctx: &mut Context<'_>, f: impl FnOnce(&mut Machine) -> Result<(), String>) -> Reply {
    cluster(ctx)?.with(ctx.engine.clock.now_ms(), f).map_err(refused)?;
    ctx.out.ok();
    DONE
}

/// The slots that all arguments from the third on name.
fn slots_of(args: &Args<'_>) -> Result<Vec<usize>, Error> {
    args.from(2).map(slot_of).collect()
}

/// The slots of the ranges that all arguments from the third on name.
fn ranges_of(args: &Args<'_>, name: &str) -> Result<Vec<usize>, Error> {
    if args.len() % 2 == 1 {
        return Err(Error::WrongArity(format!("cluster|{name}")));
    }
    let mut slots = Vec::new();
    for at in (2..args.len()).step_by(2) {
        let (first, last) = (slot_of(args.at(at))?, slot_of(args.at(at + 1))?);
        if first > last {
            return Err(Error::text(format!("ERR start slot number {first} is greater than end slot number {last}")));
        }
        slots.extend(first..=last);
    }
    Ok(slots)
}

pub fn addslots(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let slots = slots_of(args)?;
    order(ctx, |machine| machine.add_slots(&slots))
}

pub fn addslotsrange(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let slots = ranges_of(args, "addslotsrange")?;
    order(ctx, |machine| machine.add_slots(&slots))
}

pub fn delslots(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let slots = slots_of(args)?;
    order(ctx, |machine| machine.delete_slots(&slots))
}

pub fn delslotsrange(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let slots = ranges_of(args, "delslotsrange")?;
    order(ctx, |machine| machine.delete_slots(&slots))
}

pub fn flushslots(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    cluster(ctx)?;
    if keys::any(ctx) {
        return Err(Error::text("ERR DB must be empty to perform CLUSTER FLUSHSLOTS."));
    }
    order(ctx, |machine| {
        machine.flush_slots();
        Ok(())
    })
}

/// How long replicas may take to hear of what CLUSTER SETSLOT is about to do, where it does not say, in milliseconds.
const SET_SLOT_MS: u64 = 2000;

/// What is done to a slot, once replicas know of it: a primary that did it first could die before they do, and the slot be
/// nobody's, or half of its keys be where nobody looks for them.
pub fn setslot(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let ordered_by_primary = ctx.session.follows.is_some();
    if cluster.view().load().is_replica && !ordered_by_primary {
        return Err(Error::text(NOT_A_PRIMARY));
    }
    let slot = slot_of(args.at(2))?;
    let node = || args.at(4).to_vec();
    let (to, end) = match args.len() {
        5.. if args.is(3, "MIGRATING") => (SetSlot::Migrating(node()), 5),
        5.. if args.is(3, "IMPORTING") => (SetSlot::Importing(node()), 5),
        4.. if args.is(3, "STABLE") => (SetSlot::Stable, 4),
        5.. if args.is(3, "NODE") => (SetSlot::Node(node()), 5),
        _ => return Err(Error::text(WRONG_SET_SLOT)),
    };
    if args.len() > end + 2 || args.len() > end && !args.is(end, "TIMEOUT") {
        return Err(Error::text(WRONG_SET_SLOT));
    }
    let keys = keys::count(ctx, slot);
    if ordered_by_primary {
        return order(ctx, |machine| machine.set_slot(slot, &to, keys));
    }
    if matches!(to, SetSlot::Migrating(_) | SetSlot::Importing(_)) {
        for (side, what) in [(Side::Target, "import"), (Side::Source, "export")] {
            if !cluster.migrations.going_on(Some(side)).is_empty() {
                return Err(Error::text(format!("ERR Slot {what} in progress.")));
            }
        }
    }
    let now_ms = ctx.engine.clock.now_ms();
    cluster.with(now_ms, |machine| machine.may_set_slot(slot, &to, keys)).map_err(refused)?;
    let until_ms = match args.opt(end + 1) {
        Some(timeout) => until_milliseconds(timeout, now_ms)?,
        None if args.len() > end => return Err(Error::text("ERR Missing timeout value")),
        None => Some(now_ms + SET_SLOT_MS),
    };
    let replicas = ctx.engine.replication.state().replicas.following_slots();
    if replicas.is_some() {
        let words: Vec<Vec<u8>> = args.from(0).take(end).map(<[u8]>::to_vec).collect();
        ctx.engine.log.pass(&words);
        ctx.engine.replication.wake_replicas();
    }
    match replicas {
        // What has to be done at once is told to them all the same.
        Some(replicas @ 1..) if !ctx.is_inside() => set_when_known(ctx, slot, to, replicas, until_ms),
        _ => order(ctx, |machine| machine.set_slot(slot, &to, keys)),
    }
}

const NOT_A_PRIMARY: &str = "ERR Please use SETSLOT only with masters.";
const WRONG_SET_SLOT: &str = "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP";

/// What replicas were told will be done to a slot. Where it is not done after all, because they did not all say that they
/// know, or because nobody waits for it any more, they are told how it is.
struct Announced {
    engine: Arc<Engine>,
    slot: usize,
    to: SetSlot,
    is_done: AtomicBool,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Some(cluster) = self.engine.cluster.as_ref().filter(|_| !*self.is_done.get_mut()) else { return };
        let now_ms = self.engine.clock.now_ms();
        let ways = cluster.with(now_ms, |machine| machine.me().is_primary().then(|| machine.ways_back(self.slot)));
        for way in ways.into_iter().flatten() {
            let (what, node) = match way {
                SetSlot::Stable => ("STABLE", None),
                // They have another owner in mind only if they were told of one.
                SetSlot::Node(_) if !matches!(self.to, SetSlot::Node(_)) => continue,
                SetSlot::Node(node) => ("NODE", Some(node)),
                SetSlot::Migrating(node) => ("MIGRATING", Some(node)),
                SetSlot::Importing(node) => ("IMPORTING", Some(node)),
            };
            let words = ["CLUSTER", "SETSLOT", &self.slot.to_string(), what].map(|word| word.as_bytes().to_vec());
            self.engine.log.pass(&words.into_iter().chain(node).collect::<Vec<_>>());
        }
        self.engine.replication.wake_replicas();
    }
}

/// Has the client wait until so many replicas have read all that was written until now, and sets the slot then.
fn set_when_known(ctx: &mut Context<'_>, slot: usize, to: SetSlot, replicas: usize, until_ms: Option<u64>) -> Reply {
    let offset = ctx.engine.replication.offset();
    let announced = Announced { engine: ctx.engine.arc(), slot, to, is_done: AtomicBool::new(false) };
    let answer = move |out: &mut Output| {
        let Announced { engine, to, is_done, .. } = &announced;
        let all_know = engine.replication.state().replicas.acked(offset) >= replicas;
        let Some(cluster) = &engine.cluster else { return Err(Error::text(NOT_A_PRIMARY)) };
        let keys = keys::count_now(engine, slot);
        // Much may have changed meanwhile: whoever has its last slot is followed by this node and by its replicas, who do not
        // say any more what they know.
        let done = cluster.with(engine.clock.now_ms(), |machine| match machine.me().is_primary() {
            false => Err(Error::text(NOT_A_PRIMARY)),
            true if !all_know && !machine.has_given(slot, to) => Err(Error::FewReplicas),
            true => machine.set_slot(slot, to, keys).map_err(refused),
        });
        is_done.store(done.is_ok(), Ordering::Relaxed);
        done.map(|()| out.ok())
    };
    let client = ctx.session.shared.clone();
    wait::block(ctx, Waiter { client, offset, replicas, on_disk: false, local: None, leads: true }, until_ms, answer)
}

pub fn meet(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    if args.len() > 5 {
        return Err(help::wrong_form("CLUSTER", args.at(1)));
    }
    let number = |at: usize, what: &str| {
        let shown = || refused(format!("Invalid {what} port specified: {}", String::from_utf8_lossy(args.at(at))));
        parse_i64(args.at(at)).ok_or_else(shown)
    };
    let port = number(3, "base")?;
    let bus_port = match args.len() {
        5 => number(4, "bus")?,
        _ => port.saturating_add(crate::cluster::machine::BUS_PORT_OFFSET.into()),
    };
    order(ctx, |machine| machine.meet(args.at(2), port, bus_port))
}

pub fn forget(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    order(ctx, |machine| machine.forget(args.at(2)))
}

pub fn replicate(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let has_keys = keys::any(ctx);
    order(ctx, |machine| machine.replicate(args.at(2), has_keys))
}

pub fn failover(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let kind = match args.len() {
        2 => FailoverKind::Agreed,
        3 if args.is(2, "FORCE") => FailoverKind::Forced,
        3 if args.is(2, "TAKEOVER") => FailoverKind::Takeover,
        3 => return Err(Error::Syntax),
        // What a primary that ends says to all of its replicas, and means for one.
        5 if ctx.session.follows.is_some() && args.is(2, "FORCE") && args.is(3, "REPLICAID") => {
            return order(ctx, |machine| match machine.me().name.0 == args.at(4) {
                true => machine.fail_over(FailoverKind::Forced),
                false => Ok(()),
            });
        }
        _ => return Err(help::wrong_form("CLUSTER", args.at(1))),
    };
    order(ctx, |machine| machine.fail_over(kind))
}

pub fn reset(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let kind = match args.len() {
        2 => ResetKind::Soft,
        3 if args.is(2, "HARD") => ResetKind::Hard,
        3 if args.is(2, "SOFT") => ResetKind::Soft,
        3 => return Err(Error::Syntax),
        _ => return Err(help::wrong_form("CLUSTER", args.at(1))),
    };
    if !cluster.view().load().is_replica && keys::any(ctx) {
        return Err(Error::text("ERR CLUSTER RESET can't be called with master nodes containing keys"));
    }
    order(ctx, |machine| {
        machine.reset(kind);
        Ok(())
    })
}

pub fn saveconfig(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let saved = cluster(ctx)?.save_now();
    saved.map_err(|error| {
        let text = error.to_string();
        refused(format!("error saving the cluster node config: {}", text.split(" (os error").next().unwrap_or(&text)))
    })?;
    ctx.out.ok();
    DONE
}

pub fn bumpepoch(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let line = match cluster(ctx)?.with(ctx.engine.clock.now_ms(), Machine::bump_epoch) {
        Bumped::Bumped(epoch) => format!("BUMPED {epoch}"),
        Bumped::Still(epoch) => format!("STILL {epoch}"),
    };
    ctx.out.simple(&line);
    DONE
}

pub fn set_config_epoch(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let epoch = args.integer(2)?;
    order(ctx, |machine| machine.set_config_epoch(epoch))
}
