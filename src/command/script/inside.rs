//! A command that another one runs.

use crate::command::args::Args;
use crate::command::call::write_error;
use crate::command::context::{Context, Outcome};
use crate::command::table::Entry;
use crate::observe::stats::Outcome as Ended;
use crate::stdx::ticks::Ticks;

/// Runs a command inside of another.
pub fn call_inside(context: &mut Context<'_>, entry: &Entry, args: &Args<'_>) {
    let engine = context.engine;
    let before = Ticks::now();
    let outer = std::mem::take(context.db.effects);
    context.db.effects.begin(engine.interest());
    let db = context.db.index();
    let mut reply = (entry.command.run)(context, args);
    while let Ok(Outcome::Continue(mut job)) = reply {
        reply = job(context);
    }
    let ended = if reply.is_err() { Ended::Failed } else { Ended::Done };
    if let Err(error) = reply {
        write_error(context, &error, None);
    }
    let mut inner = std::mem::replace(context.db.effects, outer);
    let group = context.db.effects.group.get_or_insert_default();
    group.extend(inner.expired.drain(..).map(|(db, key)| (db, vec![b"DEL".to_vec(), key])));
    match inner.canonical.take() {
        Some(commands) => group.extend(commands.into_iter().map(|command| (db, command))),
        None if inner.dirty > 0 => group.push((db, args.to_vecs())),
        None => {}
    }
    context.db.effects.dirty += inner.dirty;
    context.db.effects.changes.append(&mut inner.changes);
    engine.stats.called(entry.index, before.elapsed_ns(), ended, context.config.latency_tracking);
}

/// Writes the group to the log, as far as it is of one database at a time.
pub fn end_group(context: &mut Context<'_>) {
    let group = context.db.effects.group.take().unwrap_or_default();
    for commands in group.chunk_by(|a, b| a.0 == b.0) {
        let effects: Vec<_> = commands.iter().map(|(_, command)| command.clone()).collect();
        context.engine.log.append(commands[0].0, &effects);
    }
    context.db.effects.canonical = Some(Vec::new());
}
