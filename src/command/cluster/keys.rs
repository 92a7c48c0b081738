//! The keys of slots: counted, listed, removed.

use crate::client::session::Session;
use crate::client::shared::{Mark, Shared};
use crate::cluster::slots::SlotSet;
use crate::cluster::view::View;
use crate::command::context::Context;
use crate::command::engine::Engine;
use crate::keyspace::change::{Class, Effects, removal};
use crate::keyspace::db::{Db, Touch};
use crate::keyspace::hidden::Walked;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::shard::{Part, SLOTS_PER_SHARD};

/// How many keys are removed in one hold of a shard.
const REMOVE_BATCH: usize = 128;

/// Whether there are keys at all.
pub fn any(ctx: &mut Context<'_>) -> bool {
    ctx.engine.keyspace.len(&mut ctx.db.hold, 0) != 0
}

/// How many keys a slot has.
pub fn count(ctx: &mut Context<'_>, slot: usize) -> usize {
    count_held(&mut ctx.db.hold, slot)
}

/// The same for a thread that holds nothing.
pub fn count_now(engine: &Engine, slot: usize) -> usize {
    count_held(&mut engine.keyspace.hold_none(), slot)
}

fn count_held(hold: &mut Hold<'_>, slot: usize) -> usize {
    hold.visit(slot / SLOTS_PER_SHARD, |shard| shard.part(0).map_or(0, |part| part.slot(slot % SLOTS_PER_SHARD).len()))
}

/// `most` keys of a slot, or all of them.
pub fn some(ctx: &mut Context<'_>, slot: usize, most: usize) -> Vec<Vec<u8>> {
    keys_of(&mut ctx.db.hold, slot, most)
}

fn keys_of(hold: &mut Hold<'_>, slot: usize, most: usize) -> Vec<Vec<u8>> {
    hold.visit(slot / SLOTS_PER_SHARD, |shard| {
        let keys = |part: &Part| {
            part.slot(slot % SLOTS_PER_SHARD).iter().take(most).map(|entry| entry.key().to_vec()).collect()
        };
        shard.part(0).map_or_else(Vec::new, keys)
    })
}

/// The slots that have keys.
pub fn filled(engine: &Engine) -> Vec<usize> {
    let mut hold = engine.keyspace.hold_none();
    let mut slots = Vec::new();
    let mut at = 0;
    while let Some(slot) = engine.keyspace.next_filled(&mut hold, 0, Walked::All, at) {
        slots.push(slot);
        at = slot + 1;
    }
    slots
}

/// Removes the keys of slots that are somebody else's by now, in small steps, and tells everybody whom it concerns;
/// returns how many there were. Called by a thread that holds nothing.
pub fn drop_slots(engine: &Engine, slots: &SlotSet) -> usize {
    let mut effects = Effects::default();
    let mut removed = 0;
    for slot in slots.iter() {
        loop {
            // The gate is taken for each step anew: whoever wants to run alone waits for one at most.
            let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
            let mut shards = ShardSet::default();
            shards.add(slot / SLOTS_PER_SHARD);
            let mut hold = engine.keyspace.hold(shards);
            if is_ours(engine, slot) {
                break;
            }
            let keys = keys_of(&mut hold, slot, REMOVE_BATCH);
            if keys.is_empty() {
                break;
            }
            effects.begin(engine.interest());
            let config = engine.config.load();
            let moment = engine.moment(&config);
            let mut db = Db::new(&engine.keyspace, hold, &mut effects, 0, moment, Touch::No);
            for bytes in &keys {
                let key = db.key(bytes);
                if db.remove(&key) {
                    db.note(&key, Class::Generic, "del");
                    removed += 1;
                }
            }
            let lazy = config.lazyfree_lazy_server_del;
            db.effects.log_as(|| keys.iter().map(|key| removal(key.clone(), lazy)).collect());
            engine.pass_on(0, db.effects, &Vec::new());
            // Nobody is blocked on keys that have gone but those who want to know that they have, and these are told by
            // their connection, which is sent away.
            db.effects.ready.clear();
        }
    }
    engine.commit(std::mem::take(&mut effects.logged));
    removed
}

/// Whether keys of a slot belong here, for it came back meanwhile.
fn is_ours(engine: &Engine, slot: usize) -> bool {
    let Some(cluster) = &engine.cluster else { return true };
    let view = cluster.view().load();
    u16::try_from(slot).is_ok_and(|slot| {
        let owner = view.owner(slot);
        let by_primary = view.is_replica && owner.is_some() && owner == view.primary;
        owner == Some(View::MYSELF)
            || by_primary
            || view.is_importing(slot)
            || cluster.migrations.is_coming(slot.into())
    })
}

/// Removes all keys, without a word to anybody: what a replica had of a cluster that it has left.
pub fn empty(engine: &Engine) {
    let flushed = {
        let _alone = engine.keyspace.gates().alone();
        engine.keyspace.take_all(&mut engine.keyspace.hold(ShardSet::ALL), None)
    };
    engine.keyspace.free_all(flushed);
}

/// Whether the client of this session reads on replicas.
pub fn reads_replicas(session: &Session) -> bool {
    reads_replicas_of(&session.shared)
}

/// Whether a client reads on replicas.
pub fn reads_replicas_of(client: &Shared) -> bool {
    client.has(Mark::ReadOnly)
}
