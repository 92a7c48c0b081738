//! `maxmemory-clients`: who needs most memory goes when all clients together need too much.

use std::sync::Arc;

use crate::client::shared::Shared;
use crate::command::client::described;
use crate::command::engine::Engine;
use crate::config::table::Config;
use crate::observe::log::notice;
use crate::observe::stats::Counter;

/// Notes what a client takes now, where that is limited, and makes room where all take too much: the client may be
/// closing afterwards.
#[inline]
pub fn note(engine: &Engine, client: &Arc<Shared>) {
    if engine.weights.are_limited() {
        engine.weights.note(client);
        if engine.weights.are_too_heavy() {
            make_room(engine);
        }
    }
}

/// Follows a changed limit.
pub fn follow(engine: &Engine, config: &Config) {
    let limit = config.maxmemory_clients.limit(engine.memory_limit(config));
    if engine.weights.set_limit(limit) {
        // Nobody was weighed so far.
        note_all(engine);
    }
    make_room(engine);
}

/// The same as [`note`] for all clients: before they are listed, so that the list is not of more than there may be.
pub fn note_all(engine: &Engine) {
    if engine.weights.are_limited() {
        engine.clients.all().iter().for_each(|client| engine.weights.note(client));
        make_room(engine);
    }
}

/// Closes clients, the heaviest first, until they take no more than they may.
#[cold]
fn make_room(engine: &Engine) {
    let _one_at_a_time = engine.weights.evicting();
    while engine.weights.are_too_heavy()
        && let Some(client) = engine.weights.take_heaviest()
    {
        notice!("Evicting client: {}", String::from_utf8_lossy(&described(engine, &client)));
        engine.stats.add(Counter::EvictedClients, 1);
        // Nobody finds it any more, although its connection has yet to end.
        engine.clients.remove(client.id);
        client.close();
    }
}
