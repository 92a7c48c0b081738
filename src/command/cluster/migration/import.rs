//! The side of a migration that is to have the slots: what the source sends is run as it comes.
//!
//! What must stay true: what comes over a connection of a migration changes keys of its slots alone, and nothing once it
//! has ended. The keys are hidden from before the first is there until the slots are taken over or the last is removed.

use bytes::Bytes;

use crate::client::session::{Fate, ReplyMode, Session};
use crate::client::shared::Mark;
use crate::cluster::migration::{Action, Event, Migration, Owner, Side, State};
use crate::cluster::node::Name;
use crate::cluster::shared::Cluster;
use crate::cluster::slots::SlotSet;
use crate::cluster::view::View;
use crate::command::args::Args;
use crate::command::cluster::migration::{check_node, fail, happen, ranges};
use crate::command::cluster::{cluster, keys};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::migrate::peer::Peer;
use crate::command::table::Entry;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::log::encode;
use crate::spec::{Flag, keys as specs};
use crate::stdx::crc::key_slot;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is said to the source when keys of an earlier migration are being removed still: it asks again.
pub const NOT_YET: &str = "TRYAGAIN Keys of these slots are still being removed";

/// The longest that the source is waited for when it is asked for slots.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// CLUSTER SYNCSLOTS.
pub fn syncslots(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    if args.is(2, "ESTABLISH") {
        return establish(ctx, cluster, args);
    }
    if args.is(2, "START") {
        return start(ctx, cluster, args);
    }
    let Some(name) = ctx.session.imports.map(Name) else {
        let word = String::from_utf8_lossy(args.at(2)).to_uppercase().replace(['\r', '\n'], " ");
        return fail(format!("CLUSTER SYNCSLOTS {word} should only be used by slot migration clients"));
    };
    let event = match args.at(2) {
        b"SNAPSHOT-EOF" => Event::SnapshotEnded,
        b"PAUSED" => Event::Ready,
        b"FAILOVER-GRANTED" => Event::Granted,
        b"ACK" => Event::Heard,
        _ => return Err(Error::Syntax),
    };
    let said = match event {
        Event::SnapshotEnded => "+SNAPSHOT-EOF\r\n",
        Event::Heard => "+ACK\r\n",
        _ => "",
    };
    if event == Event::Granted && ctx.engine.debug.leave_slots.load(Ordering::Relaxed) {
        return DONE;
    }
    let actions = happen(ctx.engine, cluster, &name, event);
    if !said.is_empty() {
        tell(ctx.session, said);
    }
    for action in actions {
        match action {
            Action::TellReady => tell(ctx.session, "+READY\r\n"),
            Action::Close => ctx.session.fate = Fate::Close,
            _ => {}
        }
    }
    DONE
}

/// Says something to the source: replies are not sent over its connection.
fn tell(session: &Session, line: &str) {
    session.shared.push(Bytes::copy_from_slice(line.as_bytes()));
}

/// SOURCE <node> NAME <name> SLOTSRANGE <first> <last> ...
struct Terms {
    node: Name,
    name: Name,
    slots: SlotSet,
}

fn read_terms(args: &Args<'_>, word: &str) -> Result<Terms, Error> {
    if args.len() < 10 || !args.is(3, word) || !args.is(5, "NAME") || !args.is(7, "SLOTSRANGE") {
        return Err(Error::Syntax);
    }
    let (Some(node), Some(name)) = (Name::parse(args.at(4)), Name::parse(args.at(6))) else {
        return fail("Invalid node name");
    };
    let (slots, end) = ranges(args, 8)?;
    if end != args.len() {
        return Err(Error::Syntax);
    }
    Ok(Terms { node, name, slots })
}

/// Somebody who has slots wants to send them here: from here on this connection brings them.
fn establish(ctx: &mut Context<'_>, cluster: &Cluster, args: &Args<'_>) -> Reply {
    let Terms { node: source, name, slots } = read_terms(args, "SOURCE")?;
    let view = cluster.view().load_full();
    check_node(ctx, &view)?;
    let Some(place) = view.place_of(&source) else { return fail("Unknown node name") };
    if place == View::MYSELF || owner(&view, &slots, source, view.endpoint(View::MYSELF).name) != Owner::Source {
        return fail("Slots are not owned by source node");
    }
    if ctx.session.imports.is_some() {
        return fail("This connection has a migration already");
    }
    if slots.iter().any(|slot| keys::count(ctx, slot) != 0) {
        return Err(Error::text(NOT_YET));
    }
    let known = cluster.migrations.look(&name, |one| {
        one.state == State::Asking && one.source == source && one.slots == slots && one.side == Side::Target
    });
    match known {
        Some(true) => _ = happen(ctx.engine, cluster, &name, Event::Established),
        Some(false) => return fail("A migration of this name is known already"),
        None => {
            let me = view.endpoint(View::MYSELF).name;
            let new = Migration::new(name, Side::Target, slots.clone(), source, me, ctx.engine.clock.now_ms());
            let added = cluster.migrations.add(vec![new]);
            added.map_err(|(slot, side)| super::busy(slot, side))?;
        }
    }
    slots.iter().for_each(|slot| ctx.engine.keyspace.hidden().set(slot, true));
    notice!("Slots {} are on their way here from {source}", super::told(&slots));
    ctx.session.imports = Some(name.0);
    ctx.session.reply = ReplyMode::Off;
    ctx.session.shared.mark(Mark::Imports, true);
    ctx.session.shared.mark(Mark::NoEvict, true);
    tell(ctx.session, "+OK\r\n");
    DONE
}

/// Somebody wants slots of this node: they are sent to him.
fn start(ctx: &mut Context<'_>, cluster: &Cluster, args: &Args<'_>) -> Reply {
    let Terms { node: target, name, slots } = read_terms(args, "TARGET")?;
    let view = cluster.view().load_full();
    check_node(ctx, &view)?;
    let me = view.endpoint(View::MYSELF).name;
    if view.place_of(&target).is_none_or(|place| place == View::MYSELF) {
        return fail("Unknown node name");
    }
    if owner(&view, &slots, me, target) != Owner::Source {
        return fail("Slots are not served by this node.");
    }
    if cluster.migrations.look(&name, |one| !one.state.is_over()) == Some(true) {
        return fail("A migration of this name is known already");
    }
    let new = Migration::new(name, Side::Source, slots, me, target, ctx.engine.clock.now_ms());
    cluster.migrations.add(vec![new]).map_err(|(slot, side)| super::busy(slot, side))?;
    ctx.engine.host.export_slots(&ctx.engine.arc(), name.0);
    ctx.out.ok();
    DONE
}

/// Who has the slots, as far as this node knows.
pub fn owner(view: &View, slots: &SlotSet, source: Name, target: Name) -> Owner {
    if view.is_replica {
        return Owner::Other;
    }
    let owned_by = |name: Name| {
        let place = view.place_of(&name);
        place.is_some() && slots.iter().all(|slot| u16::try_from(slot).is_ok_and(|slot| view.owner(slot) == place))
    };
    if owned_by(source) {
        Owner::Source
    } else if owned_by(target) {
        Owner::Target
    } else {
        Owner::Other
    }
}

/// What a request over a migration's connection is to be refused for.
///
/// # Errors
/// It is no change of the migration's slots, or the migration is over.
pub fn check(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    let (Some(name), Some(cluster)) = (session.imports.map(Name), &engine.cluster) else { return Ok(()) };
    if matches!(&*entry.full_name, "cluster|syncslots" | "multi" | "exec" | "ping") {
        return Ok(());
    }
    let fits = cluster.migrations.look(&name, |one| {
        let mut keyed = false;
        let mut inside = matches!(one.state, State::Snapshot | State::Tail);
        // Where a count is wrong there are no keys, and nothing is to be run without.
        let _ = specs::for_each(
            entry.command.keys,
            args.len(),
            |i| args.at(i),
            |i, _| {
                keyed = true;
                inside &= one.slots.has(key_slot(args.at(i)).into());
            },
        );
        keyed && inside
    });
    if fits == Some(true) && entry.has(Flag::Write) {
        return Ok(());
    }
    fail("This is no change of the slots that are on their way here")
}

/// A request over a migration's connection was answered with an error: it cannot go on.
pub fn failed(engine: &Engine, session: &mut Session, line: &[u8]) {
    let (Some(name), Some(cluster)) = (session.imports.map(Name), &engine.cluster) else { return };
    let line = String::from_utf8_lossy(line).into_owned();
    warning!("Slots that are on their way here could not be taken in: {line}");
    happen(engine, cluster, &name, Event::Broken(line));
    session.fate = Fate::Close;
}

/// A migration's connection is gone.
pub fn closed(engine: &Engine, session: &Session) {
    let (Some(name), Some(cluster)) = (session.imports.map(Name), &engine.cluster) else { return };
    happen(engine, cluster, &name, Event::Broken("Connection lost to source".into()));
}

/// Takes the slots over; returns what is left to be done by who has the connection.
pub fn take_over(engine: &Engine, cluster: &Cluster, name: &Name, slots: &SlotSet) -> Vec<Action> {
    let source = cluster.migrations.look(name, |one| one.source).unwrap_or(*name);
    let taken = cluster.with(engine.clock.now_ms(), |machine| machine.take_over(slots, &source.0));
    match taken {
        Ok(()) => {
            slots.iter().for_each(|slot| engine.keyspace.hidden().set(slot, false));
            notice!("Slots {} of {source} are served here now", super::told(slots));
            happen(engine, cluster, name, Event::Owner(Owner::Target))
        }
        Err(why) => happen(engine, cluster, name, Event::Broken(why)),
    }
}

/// Removes what came of slots that stay elsewhere, and shows the slots again. Called by a thread that holds nothing.
pub fn roll_back(engine: &Engine, cluster: &Cluster, slots: &SlotSet) {
    // Whatever runs over the connection was checked before the migration had ended: it comes to its end first.
    drop(engine.keyspace.gates().alone());
    let removed = keys::drop_slots(engine, slots);
    if removed > 0 {
        notice!("Removed {removed} keys of slots {} that stay elsewhere", super::told(slots));
    }
    for slot in slots.iter().filter(|slot| !cluster.migrations.is_coming(*slot)) {
        engine.keyspace.hidden().set(slot, false);
    }
}

/// What is due for migrations to here: some times a second.
pub fn tick(engine: &Engine) {
    let Some(cluster) = &engine.cluster else { return };
    let most = usize::try_from(engine.config.load().cluster_slot_migration_log_max_len).unwrap_or(usize::MAX);
    cluster.migrations.forget_but(most);
    if !cluster.migrations.any() {
        return;
    }
    let view = cluster.view().load_full();
    for name in cluster.migrations.going_on(Some(Side::Target)) {
        let owner = cluster.migrations.look(&name, |one| owner(&view, &one.slots, one.source, one.target));
        let event = match owner {
            Some(Owner::Other) if view.is_replica => Event::Broken("A failover occurred during slot import".into()),
            Some(owner) => Event::Owner(owner),
            None => continue,
        };
        happen(engine, cluster, &name, event);
        happen(engine, cluster, &name, Event::Tick);
    }
}

/// Asks the source for slots; on a thread of its own, for it may not answer.
pub fn ask(engine: &Engine, cluster: &Cluster, name: &Name) {
    let view = cluster.view().load_full();
    let Some((source, target, slots)) =
        cluster.migrations.look(name, |one| (one.source, one.target, one.slots.clone()))
    else {
        return;
    };
    let Some(place) = view.place_of(&source) else {
        happen(engine, cluster, name, Event::Broken("Unknown node name".into()));
        return;
    };
    let mut words: Vec<Vec<u8>> = ["CLUSTER", "SYNCSLOTS", "START", "TARGET"].map(|word| word.into()).into();
    words.extend([target.0.to_vec(), b"NAME".to_vec(), name.0.to_vec(), b"SLOTSRANGE".to_vec()]);
    words.extend(slots.ranges().flat_map(|(a, b)| [a, b]).map(|slot| slot.to_string().into_bytes()));
    let endpoint = view.endpoint(place);
    let config = engine.config.load();
    let login = config
        .masterauth
        .clone()
        .map_or_else(Vec::new, |password| config.masteruser.clone().into_iter().chain([password]).collect());
    let peer = Peer {
        host: endpoint.address.ip.clone(),
        port: endpoint.address.port(config.tls_cluster),
        db: 0,
        login,
        tls: config.tls_cluster,
        timeout: ASK_PATIENCE,
    };
    let (engine, name) = (engine.arc(), *name);
    let mut request = Vec::new();
    encode(&mut request, &words);
    let asked = std::thread::Builder::new().name("ask-slots".into()).spawn({
        let engine = engine.clone();
        move || {
            crash::prepare_thread();
            let answers = engine.host.ask(&peer, &request, 1);
            let refused = answers.refused.or_else(|| match answers.replies.into_iter().next() {
                Some(Ok(())) => None,
                Some(Err(line)) => Some(line),
                None => Some(b"Connection lost to source".to_vec()),
            });
            let why = refused.map(|line| String::from_utf8_lossy(&line).into_owned());
            if let (Some(why), Some(cluster)) = (why, &engine.cluster) {
                happen(&engine, cluster, &name, Event::Broken(why));
            }
        }
    });
    if let Err(error) = asked {
        warning!("Slots cannot be asked for: {error}");
    }
}
