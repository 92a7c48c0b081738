//! What becomes of clients that wait when a slot leaves: those that are blocked on its keys, those that listen to its shard
//! channels.

use crate::cluster::slots::SlotSet;
use crate::cluster::view::View;
use crate::command::cluster::keys::reads_replicas_of;
use crate::command::cluster::route::Refused;
use crate::command::engine::Engine;
use crate::command::pubsub;
use crate::pubsub::Kind;
use crate::stdx::crc::key_slot;

/// Sends away the clients that are blocked on keys which are not this node's to serve any more.
pub fn blocked(engine: &Engine, view: &View) {
    let config = engine.config.load();
    engine.clients.for_each(|client| {
        let Some(wait) = client.wait.lock().clone() else { return };
        let Some(first) = wait.first_key() else { return };
        let slot = key_slot(&first);
        let why = if view.is_down {
            Refused::Down
        } else {
            match view.owner(slot) {
                Some(View::MYSELF) => return,
                _ if view.is_importing(slot) => return,
                Some(owner) => {
                    let reads = view.is_replica && view.primary == Some(owner) && !wait.writes();
                    if reads && reads_replicas_of(client) {
                        return;
                    }
                    Refused::Moved(slot, owner)
                }
                None => Refused::Unbound,
            }
        };
        wait.fail(&why.error(view, &config, client).to_string());
    });
}

/// Ends the subscriptions to the shard channels of these slots, and tells those that had them.
pub fn channels(engine: &Engine, slots: &SlotSet) {
    for topic in engine.pubsub.topics(Kind::ShardChannel).all() {
        if slots.has(key_slot(topic.name()).into()) {
            pubsub::revoke(engine, &topic);
        }
    }
}
