//! Whether a request is this node's to serve, and whom else its client is sent to.
//!
//! What must stay true: a request is judged by one picture of the cluster, before it runs; where its slot is on the way
//! to or from another node it is judged again once its keys are held, for they may have been moved meanwhile.

use smallvec::SmallVec;

use crate::client::session::{Asking, Session};
use crate::client::shared::Shared;
use crate::cluster::view::{Place, View};
use crate::command::args::Args;
use crate::command::cluster::keys::reads_replicas;
use crate::command::cluster::way;
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::script::prepare;
use crate::command::table::{Entry, Way};
use crate::config::table::Config;
use crate::keyspace::hold::Hold;
use crate::spec::{Flag, Keys, keys};
use crate::stdx::crc::key_slot;

/// Why a request is not served here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Its keys are of several slots.
    CrossSlot,
    /// Some of its keys have been moved and some have not.
    Unstable,
    /// The cluster serves nobody.
    Down,
    /// The cluster serves only those that read.
    DownForWrites,
    /// Nobody serves its slot.
    Unbound,
    /// It may be that this one request is served elsewhere.
    Ask(u16, Place),
    /// Its slot is served elsewhere.
    Moved(u16, Place),
}

impl Refused {
    /// The error reply to this client.
    pub fn error(&self, view: &View, config: &Config, client: &Shared) -> Error {
        let to = |word: &str, slot: u16, place: Place| {
            let way = way(client);
            let node = view.endpoint(place);
            let address = node.preferred(config.cluster_preferred_endpoint_type, way);
            Error::text(format!("{word} {slot} {address}:{}", node.address.port(way.tls)))
        };
        match *self {
            Refused::CrossSlot => Error::text("CROSSSLOT Keys in request don't hash to the same slot"),
            Refused::Unstable => Error::text("TRYAGAIN Multiple keys request during rehashing of slot"),
            Refused::Down => Error::text("CLUSTERDOWN The cluster is down"),
            Refused::DownForWrites => Error::text("CLUSTERDOWN The cluster is down and only accepts read commands"),
            Refused::Unbound => Error::text("CLUSTERDOWN Hash slot not served"),
            Refused::Ask(slot, place) => to("ASK", slot, place),
            Refused::Moved(slot, place) => to("MOVED", slot, place),
        }
    }
}

/// The slot of a request's keys, if they have one.
#[derive(Debug, Default)]
struct Keyed<'a> {
    first: Option<(&'a [u8], u16)>,
    /// Whether there is a key beside the first.
    several: bool,
    crosses: bool,
    keys: SmallVec<[&'a [u8]; 4]>,
}

impl<'a> Keyed<'a> {
    fn add(&mut self, key: &'a [u8]) {
        let slot = key_slot(key);
        match self.first {
            None => self.first = Some((key, slot)),
            Some((_, other)) if other != slot => self.crosses = true,
            Some((first, _)) => self.several |= first != key,
        }
        self.keys.push(key);
    }

    fn add_all(&mut self, entry: &Entry, args: &Args<'a>) {
        // Where a count is wrong there are no keys, and the command itself says what is wrong.
        let _ = keys::for_each(entry.command.keys, args.len(), |i| args.at(i), |i, _| self.add(args.at(i)));
        for spec in entry.command.keys {
            if let Keys::NotKey { first, last, step } = *spec {
                let last = if last < 0 {
                    args.len().wrapping_add_signed(last.into())
                } else {
                    usize::from(last.unsigned_abs())
                };
                let last = last.min(args.len().saturating_sub(1));
                (usize::from(first)..=last).step_by(usize::from(step)).for_each(|i| self.add(args.at(i)));
            }
        }
    }
}

/// The slot of the shard channel that a request names.
pub fn channel_slot(entry: &Entry, args: &Args<'_>) -> Option<usize> {
    let mut keyed = Keyed::default();
    keyed.add_all(entry, args);
    keyed.first.map(|(_, slot)| slot.into())
}

/// Whether a request has to be looked at at all.
#[inline]
pub fn concerns(entry: &Entry) -> bool {
    !entry.command.keys.is_empty() || entry.way == Way::Transaction
}

/// Judges a request. `hold` is what is held: the request's keys, or nothing; without it all keys are taken to be here,
/// because the request will be judged again.
///
/// # Errors
/// Why it is not served here.
pub fn judge(
    engine: &Engine,
    view: &View,
    session: &Session,
    entry: &Entry,
    args: &Args<'_>,
    mut hold: Option<&mut Hold<'_>>,
) -> Result<Option<u16>, Refused> {
    let mut keyed = Keyed::default();
    let mut writes = entry.has(Flag::Write) || entry.way == Way::Script && prepare::says_it_writes(engine, entry, args);
    let mut is_channel = entry.has(Flag::PubSub);
    if entry.way == Way::Transaction {
        let Some(queued) = &session.transaction else { return Ok(None) };
        for (buf, spans) in queued.requests() {
            let args = Args::new(buf, spans);
            let Ok(entry) = engine.commands.resolve(args.at(0), args.opt(1)) else { continue };
            writes |=
                entry.has(Flag::Write) || entry.way == Way::Script && prepare::says_it_writes(engine, entry, &args);
            is_channel |= entry.has(Flag::PubSub) && !entry.command.keys.is_empty();
            keyed.add_all(entry, &args);
        }
    } else {
        keyed.add_all(entry, args);
    }
    let Some((_, slot)) = keyed.first else { return Ok(None) };
    let Some(owner) = view.owner(slot) else { return Err(Refused::Unbound) };
    if keyed.crosses {
        return Err(Refused::CrossSlot);
    }
    let config = engine.config.load();
    if view.is_down {
        if is_channel {
            if !config.cluster_allow_pubsubshard_when_down {
                return Err(Refused::Down);
            }
        } else if !config.cluster_allow_reads_when_down {
            return Err(Refused::Down);
        } else if writes {
            return Err(Refused::DownForWrites);
        }
    }
    let may_read = reads_replicas(session) || is_channel;
    // A replica answers those who read as its primary would.
    let (ours, answers) = match view.is_replica {
        true => (view.primary, reads_replicas(session)),
        false => (Some(View::MYSELF), true),
    };
    let target = view.migrating(slot).filter(|_| answers && Some(owner) == ours);
    let imports = answers && target.is_none() && view.is_importing(slot);
    if target.is_some() || imports {
        if entry.command.name == "MIGRATE" && !view.is_replica {
            return Ok(Some(slot));
        }
        let missing = match &mut hold {
            Some(hold) if !is_channel => keyed.keys.iter().filter(|key| !is_here(engine, hold, key)).count(),
            _ => 0,
        };
        if let Some(target) = target.filter(|_| missing > 0) {
            let some_are_here = missing < keyed.keys.len();
            return Err(if some_are_here { Refused::Unstable } else { Refused::Ask(slot, target) });
        }
        if imports && (session.asking == Asking::Now || entry.has(Flag::Asking)) {
            return if keyed.several && missing > 0 { Err(Refused::Unstable) } else { Ok(Some(slot)) };
        }
    }
    if owner == View::MYSELF || may_read && !writes && view.is_replica && view.primary == Some(owner) {
        return Ok(Some(slot));
    }
    Err(Refused::Moved(slot, owner))
}

/// Whether a request is to wait because another node is about to take its slot over. `writes` says whether it may write.
#[cold]
pub fn holds_back(
    engine: &Engine,
    view: &View,
    session: &Session,
    entry: &Entry,
    args: &Args<'_>,
    writes: bool,
) -> bool {
    let queued = session.transaction.as_ref().filter(|_| entry.way == Way::Transaction);
    if !(writes || queued.is_some_and(|queued| queued.writes)) {
        return false;
    }
    let mut keyed = Keyed::default();
    match queued {
        None => keyed.add_all(entry, args),
        Some(queued) => {
            for (buf, spans) in queued.requests() {
                let args = Args::new(buf, spans);
                if let Ok(entry) = engine.commands.resolve(args.at(0), args.opt(1)) {
                    keyed.add_all(entry, &args);
                }
            }
        }
    }
    // What names no key may change any.
    keyed.keys.is_empty() || keyed.keys.iter().any(|key| view.holds(key_slot(key)))
}

/// Whether a key exists, whose time is not up.
fn is_here(engine: &Engine, hold: &mut Hold<'_>, key: &[u8]) -> bool {
    let hash = engine.keyspace.hasher().hash(key);
    let now = engine.clock.now_ms();
    hold.visit(hash.shard(), |shard| {
        let entry = shard.part(0).and_then(|part| part.find(hash, key));
        entry.is_some_and(|entry| entry.deadline().is_none_or(|deadline| now <= deadline))
    })
}
