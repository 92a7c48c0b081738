//! Keys of a replica's own: those that its clients gave a deadline where it may be written to. Its primary does not know
//! them and will never say that they are gone, so it removes them itself.
//!
//! What must stay true: a key that came from the primary is removed by nobody else.

use crate::command::args::Args;
use crate::command::context::Context;
use crate::command::engine::{Engine, Refusal};
use crate::command::table::Entry;
use crate::keyspace::change::{Due, Effects};
use crate::keyspace::db::{Db, Touch};
use crate::keyspace::hold::ShardSet;
use crate::observe::stats::Counter;
use crate::spec::{Flag, keys};

fn is_concerned(ctx: &Context<'_>) -> bool {
    ctx.engine.is_refusing(Refusal::Following)
        && !ctx.config.replica_read_only
        && ctx.session.follows.is_none()
        && !ctx.session.replaying
}

/// Says what a deadline means to a command of a client, where this is a replica that may be written to: what only reads
/// does not see what has passed, what writes removes it.
#[cold]
pub fn judge(ctx: &mut Context<'_>, entry: &Entry) {
    if is_concerned(ctx) {
        ctx.db.effects.due = if entry.has(Flag::Write) { Due::Remove } else { Due::Hide };
    }
}

/// Notes those keys of a command that has written which have a deadline now, where this is such a replica.
#[cold]
pub fn note(ctx: &mut Context<'_>, entry: &Entry, args: &Args<'_>) {
    if !is_concerned(ctx) || !entry.has(Flag::Write) {
        return;
    }
    let mut places = Vec::new();
    // Where they cannot be found none was written.
    let _ = keys::for_each(entry.command.keys, args.len(), |i| args.at(i), |i, _| places.push(i));
    let db = ctx.db.index();
    for at in places {
        let key = args.key(&ctx.db, at);
        if ctx.db.look(&key).is_some_and(|entry| entry.deadline().is_some()) {
            ctx.engine.replication.own.lock().insert((db, args.at(at).to_vec()));
        }
    }
}

/// Removes those whose deadline has passed, and forgets those that are gone or have none any more; called by the timers, which
/// hold nothing.
pub fn expire(engine: &Engine) {
    if engine.replication.own.lock().is_empty() {
        return;
    }
    // A primary removes whatever is due.
    let following = engine.replication.is_following();
    let all = std::mem::take(&mut *engine.replication.own.lock());
    let config = engine.config.load();
    let moment = engine.moment(&config);
    for (index, key) in all.into_iter().filter(|_| following) {
        let _gate = engine.keyspace.gates().enter(engine.keyspace.gates().shared_index());
        let mut shards = ShardSet::default();
        shards.add(engine.keyspace.hasher().hash(&key).shard());
        let mut effects = Effects::default();
        effects.begin(engine.interest());
        effects.due = Due::Remove;
        let mut db = Db::new(&engine.keyspace, engine.keyspace.hold(shards), &mut effects, index, moment, Touch::No);
        let found = db.key(&key);
        let stays = db.look(&found).is_some_and(|entry| entry.deadline().is_some());
        let expired = db.expired;
        engine.pass_on(index, db.effects, &Vec::new());
        drop(db);
        engine.stats.add(Counter::ExpiredKeys, expired);
        if stays {
            engine.replication.own.lock().insert((index, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn a_replica_that_may_be_written_to_removes_what_its_clients_wrote_and_nothing_else() {
        let mut bench = Bench::new();
        bench.run("SET theirs 1 PX 1");
        bench.run("REPLICAOF 127.0.0.1 1");
        bench.run("CONFIG SET replica-read-only no");
        bench.run("SET mine 1 PX 1");
        bench.run("SET stays 1 PX 1");
        bench.run("PERSIST stays");
        bench.run("SET long 1 EX 1000");
        bench.clock.advance(2);
        assert_eq!(bench.run("EXISTS mine theirs"), ":0|");
        assert_eq!(bench.run("DBSIZE"), ":4|", "who reads removes nothing");
        expire(&bench.engine);
        assert_eq!(bench.run("DBSIZE"), ":3|");
        assert_eq!(bench.engine.replication.own.lock().len(), 1, "the one that is still due");
        assert_eq!(bench.run("INCR theirs"), ":1|", "who writes finds it gone");
        bench.run("REPLICAOF NO ONE");
        expire(&bench.engine);
        assert!(bench.engine.replication.own.lock().is_empty());
    }
}
