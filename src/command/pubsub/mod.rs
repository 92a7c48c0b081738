//! Publish and subscribe: messages to whoever listens, without a key, without a trace.
//!
//! A message is encoded once for each protocol and put into the outboxes of its receivers, whose own tasks send
//! it. What a command pushes to its own client follows the command's reply. To subscribe and to leave is
//! confirmed by a message for each name, also to those who want no replies (CLIENT REPLY): after the
//! confirmation that a channel was left nothing comes from there.

pub mod events;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::acl::users::Account;
use crate::client::session::{ReplyMode, Session};
use crate::client::shared::Shared;
use crate::client::subscriptions::{Names, Subscriptions};
use crate::cluster::message::PUBLISHED_MAX;
use crate::cluster::stats::Cost;
use crate::command::args::Args;
use crate::command::client;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::{Command, Entry};
use crate::keyspace::change::Effects;
use crate::observe::log::warning;
use crate::observe::stats::Counter;
use crate::pubsub::topics::Topic;
use crate::pubsub::{Kind, Receiver};
use crate::resp::push::Push;
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Arity, Flag, Group, Keys};
use crate::stdx::crc::key_slot;
use crate::stdx::glob::{Case, matches};

/// This family's commands.
pub const COMMANDS: &[Command] =
    &[PSUBSCRIBE, PUBLISH, PUBSUB, PUNSUBSCRIBE, SPUBLISH, SSUBSCRIBE, SUBSCRIBE, SUNSUBSCRIBE, UNSUBSCRIBE];

/// What most declarations of this file have in common.
const BASE: Command = Command {
    name: "",
    since: "2.0.0",
    group: Group::PubSub,
    arity: Arity::AtLeast(2),
    flags: &[Flag::PubSub, Flag::NoScript, Flag::Loading, Flag::Stale],
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

impl Receiver for Shared {
    fn id(&self) -> u64 {
        self.id
    }

    fn is_leaving(&self) -> bool {
        self.is_closing()
    }
}

/// How the messages of one kind are called.
struct Words {
    message: &'static str,
    subscribed: &'static str,
    left: &'static str,
}

fn words(kind: Kind) -> &'static Words {
    match kind {
        Kind::Channel => &Words { message: "message", subscribed: "subscribe", left: "unsubscribe" },
        Kind::Pattern => &Words { message: "pmessage", subscribed: "psubscribe", left: "punsubscribe" },
        Kind::ShardChannel => &Words { message: "smessage", subscribed: "ssubscribe", left: "sunsubscribe" },
    }
}

fn names(subscriptions: &mut Subscriptions, kind: Kind) -> &mut Names {
    match kind {
        Kind::Channel => &mut subscriptions.channels,
        Kind::Pattern => &mut subscriptions.patterns,
        Kind::ShardChannel => &mut subscriptions.shard_channels,
    }
}

/// How many subscriptions a confirmation tells: shard channels are counted apart.
fn count(subscriptions: Option<&Subscriptions>, kind: Kind) -> usize {
    subscriptions.map_or(0, |all| match kind {
        Kind::ShardChannel => all.shard_channels.len(),
        Kind::Channel | Kind::Pattern => all.channels.len() + all.patterns.len(),
    })
}

/// Tells others what a client is subscribed to, by numbers.
fn tell(session: &mut Session) {
    let figures = &session.shared.figures;
    let none = Subscriptions::default();
    let all = session.subscriptions.as_deref().unwrap_or(&none);
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    figures.channels.store(small(all.channels.len()), Ordering::Relaxed);
    figures.patterns.store(small(all.patterns.len()), Ordering::Relaxed);
    figures.shard_channels.store(small(all.shard_channels.len()), Ordering::Relaxed);
    figures.subscription_bytes.store(if all.is_empty() { 0 } else { all.memory() }, Ordering::Relaxed);
    if all.is_empty() {
        session.subscriptions = None;
    }
}

/// What a client may still run that is subscribed to something: in RESP2 its replies could not be told from messages.
pub fn may_run(session: &Session, entry: &Entry) -> bool {
    const ALLOWED: [&str; 9] = [
        "ping",
        "subscribe",
        "psubscribe",
        "ssubscribe",
        "unsubscribe",
        "punsubscribe",
        "sunsubscribe",
        "quit",
        "reset",
    ];
    session.shared.figures.protocol.load(Ordering::Relaxed) > 2 || ALLOWED.contains(&&*entry.full_name)
}

/// What it is told about all other commands.
pub fn refused(full_name: &str) -> String {
    format!(
        "ERR Can't execute '{full_name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    )
}

/// Ends all subscriptions of a client without a word.
pub fn leave(engine: &Engine, session: &mut Session) {
    let Some(mut all) = session.subscriptions.take() else { return };
    for kind in Kind::ALL {
        names(&mut all, kind).iter().for_each(|name| engine.pubsub.unsubscribe(kind, name, session.shared.id));
    }
    tell(session);
}

/// Ends the connections of a user's clients that are subscribed to what its rules do not permit any more.
pub fn end_unpermitted(ctx: &mut Context<'_>, account: &Account) {
    let rules = account.rules();
    let mut lost: Vec<Arc<Shared>> = Vec::new();
    for kind in Kind::ALL {
        let mut topics = ctx.engine.pubsub.topics(kind).all();
        topics.retain(|topic| !rules.permits_channel(topic.name(), kind == Kind::Pattern));
        for topic in topics {
            topic.hand_out(|client| {
                if client.names.lock().user == account.name() {
                    lost.push(client.clone());
                }
            });
        }
    }
    lost.iter().for_each(|client| client::end(ctx, client));
}

/// Ends all subscriptions to a shard channel whose slot has left; its clients are told by their own tasks.
pub fn revoke(engine: &Engine, topic: &Topic<Shared>) {
    let mut clients: Vec<Arc<Shared>> = Vec::new();
    topic.hand_out(|client| clients.push(client.clone()));
    for client in clients {
        engine.pubsub.unsubscribe(Kind::ShardChannel, topic.name(), client.id);
        client.revoked.lock().push(topic.name().into());
        client.wake();
    }
}

/// Tells a client of the subscriptions that ended without it.
pub fn settle(session: &mut Session) {
    let revoked = std::mem::take(&mut *session.shared.revoked.lock());
    if revoked.is_empty() {
        return;
    }
    for name in revoked {
        let subscriptions = session.subscriptions.as_deref_mut();
        if subscriptions.is_some_and(|all| all.shard_channels.remove(&name)) {
            let left = count(session.subscriptions.as_deref(), Kind::ShardChannel);
            let push = Push::new(|out: &mut Output| {
                out.push(3);
                out.bulk(words(Kind::ShardChannel).left.as_bytes());
                out.bulk(&name);
                out.integer(left as i64);
            });
            session.shared.push_as(|protocol| Some(push.encoded(protocol)));
        }
    }
    tell(session);
}

/// Has the other nodes of the cluster hand a message to their clients, too.
fn spread(ctx: &mut Context<'_>, args: &Args<'_>, sharded: bool) {
    let Some(cluster) = &ctx.engine.cluster else {
        return ctx.db.effects.pass_to_replicas(ctx.session.db, || args.to_vecs());
    };
    if !ctx.session.replaying {
        cluster.with(ctx.engine.clock.now_ms(), |machine| machine.publish(args.at(1), args.at(2), sharded));
    }
}

/// Whether other nodes can be sent a message as well, where there are any.
fn fits_the_bus(ctx: &Context<'_>, args: &Args<'_>) -> Result<(), Error> {
    let bytes = args.at(1).len().saturating_add(args.at(2).len());
    if ctx.engine.cluster.is_some() && bytes > PUBLISHED_MAX {
        return Err(Error::text(format!("ERR a cluster carries no message of more than {PUBLISHED_MAX} bytes")));
    }
    Ok(())
}

/// Hands a message that came from another node to the clients of this one.
pub fn receive(engine: &Engine, channel: &[u8], message: &[u8], sharded: bool) {
    let mut effects = Effects::default();
    if sharded {
        let most = engine.config.load().client_output_buffer_limit.pubsub.hard_bytes;
        if let Some(topic) = engine.pubsub.topics(Kind::ShardChannel).find(channel) {
            send_to(engine, &mut effects, most, &topic, Kind::ShardChannel, message);
        }
    } else {
        send(engine, &mut effects, channel, message);
    }
}

/// Puts a message into a client's outbox; closes the client where more waits there than it may keep.
fn deliver<F: Fn(&mut Output)>(engine: &Engine, effects: &mut Effects, most: u64, client: &Shared, push: &Push<F>) {
    let waiting = client.push_as(|protocol| Some(push.encoded(protocol)));
    effects.echo |= client.id == effects.origin;
    // Its own task looks at the limits too, but the sender of many may run for long before that has its turn.
    if most != 0 && waiting as u64 + client.figures.output_bytes.load(Ordering::Relaxed) as u64 >= most {
        engine.stats.add(Counter::OutputBufferDisconnections, 1);
        warning!(
            "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
            client.id,
            client.addr
        );
        client.close();
    }
}

/// Hands a message on `channel` to all who are subscribed to it, by its name or by a pattern; returns how often.
pub fn send(engine: &Engine, effects: &mut Effects, channel: &[u8], message: &[u8]) -> usize {
    let most = engine.config.load().client_output_buffer_limit.pubsub.hard_bytes;
    engine.pubsub.publish(channel, |pattern, topic| match pattern {
        None => send_to(engine, effects, most, topic, Kind::Channel, message),
        Some(pattern) => {
            let push = Push::new(|out| {
                out.push(4);
                out.bulk(words(Kind::Pattern).message.as_bytes());
                [pattern, channel, message].iter().for_each(|part| out.bulk(part));
            });
            topic.hand_out(|client| deliver(engine, effects, most, client, &push))
        }
    })
}

fn send_to(
    engine: &Engine,
    effects: &mut Effects,
    most: u64,
    topic: &Topic<Shared>,
    kind: Kind,
    message: &[u8],
) -> usize {
    let push = Push::new(|out| {
        out.push(3);
        [words(kind).message.as_bytes(), topic.name(), message].iter().for_each(|part| out.bulk(part));
    });
    let receivers = topic.hand_out(|client| deliver(engine, effects, most, client, &push));
    if kind == Kind::ShardChannel
        && receivers > 0
        && let Some(cluster) = engine.cluster.as_ref().filter(|_| engine.config.load().cluster_slot_stats_enabled)
    {
        // Each of them is told as much as one that speaks RESP2.
        let bytes = push.encoded(Protocol::Resp2).len() * receivers;
        let cost = Cost { bytes_out: bytes as u64, ..Cost::default() };
        cluster.stats.add(key_slot(topic.name()).into(), cost);
    }
    receivers
}

/// Sends a message to all who are subscribed to a channel; replies to how many.
pub const PUBLISH: Command = Command {
    name: "PUBLISH",
    arity: Arity::Exactly(3),
    flags: &[Flag::PubSub, Flag::Loading, Flag::Stale, Flag::Fast, Flag::MayReplicate],
    usage: "channel message",
    summary: "Posts a message to a channel.",
    complexity: "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of subscribed patterns (by any client).",
    run: |ctx, args| {
        fits_the_bus(ctx, args)?;
        let receivers = send(ctx.engine, ctx.db.effects, args.at(1), args.at(2));
        spread(ctx, args, false);
        ctx.out.integer(receivers as i64);
        DONE
    },
    ..BASE
};

/// Sends a message to all who are subscribed to a shard channel; replies to how many.
pub const SPUBLISH: Command = Command {
    name: "SPUBLISH",
    since: "7.0.0",
    keys: &[Keys::NotKey { first: 1, last: 1, step: 1 }],
    usage: "shardchannel message",
    summary: "Post a message to a shard channel",
    complexity: "O(N) where N is the number of clients subscribed to the receiving shard channel.",
    run: |ctx, args| {
        fits_the_bus(ctx, args)?;
        let most = ctx.config.client_output_buffer_limit.pubsub.hard_bytes;
        let topic = ctx.engine.pubsub.topics(Kind::ShardChannel).find(args.at(1));
        let receivers =
            topic.map_or(0, |topic| send_to(ctx.engine, ctx.db.effects, most, &topic, Kind::ShardChannel, args.at(2)));
        spread(ctx, args, true);
        ctx.out.integer(receivers as i64);
        DONE
    },
    ..PUBLISH
};

/// Subscribes to channels.
pub const SUBSCRIBE: Command = Command {
    name: "SUBSCRIBE",
    usage: "channel...",
    summary: "Listens for messages published to channels.",
    complexity: "O(N) where N is the number of channels to subscribe to.",
    run: |ctx, args| subscribe(ctx, args, Kind::Channel),
    ..BASE
};

/// Subscribes to all channels that fit patterns.
pub const PSUBSCRIBE: Command = Command {
    name: "PSUBSCRIBE",
    usage: "pattern...",
    summary: "Listens for messages published to channels that match one or more patterns.",
    complexity: "O(N) where N is the number of patterns to subscribe to.",
    run: |ctx, args| subscribe(ctx, args, Kind::Pattern),
    ..BASE
};

/// Subscribes to shard channels.
pub const SSUBSCRIBE: Command = Command {
    name: "SSUBSCRIBE",
    since: "7.0.0",
    keys: &[Keys::NotKey { first: 1, last: -1, step: 1 }],
    usage: "shardchannel...",
    summary: "Listens for messages published to shard channels.",
    complexity: "O(N) where N is the number of shard channels to subscribe to.",
    run: |ctx, args| subscribe(ctx, args, Kind::ShardChannel),
    ..BASE
};

fn subscribe(ctx: &mut Context<'_>, args: &Args<'_>, kind: Kind) -> Reply {
    refuse_in_process(ctx)?;
    settle(ctx.session);
    for name in args.from(1) {
        let subscriptions = ctx.session.subscriptions.get_or_insert_default();
        let new = !names(subscriptions, kind).contains(name);
        let told = count(Some(subscriptions), kind) + usize::from(new);
        // Before the first message can come.
        confirm(ctx, words(kind).subscribed, Some(name), told);
        if new {
            add(ctx.engine, ctx.session, kind, name);
        }
    }
    tell(ctx.session);
    DONE
}

/// Subscribes a client to what it is not subscribed to.
fn add(engine: &Engine, session: &mut Session, kind: Kind, name: &[u8]) {
    let name = engine.pubsub.subscribe(kind, name, &session.shared);
    names(session.subscriptions.get_or_insert_default(), kind).insert(name);
}

/// Subscribes a client without a word, if it is not subscribed yet.
pub fn join(engine: &Engine, session: &mut Session, kind: Kind, name: &[u8]) {
    if !names(session.subscriptions.get_or_insert_default(), kind).contains(name) {
        add(engine, session, kind, name);
    }
    tell(session);
}

/// Ends a subscription of a client without a word, if there is one.
pub fn part(engine: &Engine, session: &mut Session, kind: Kind, name: &[u8]) {
    if session.subscriptions.as_deref_mut().is_some_and(|all| names(all, kind).remove(name)) {
        engine.pubsub.unsubscribe(kind, name, session.shared.id);
    }
    tell(session);
}

/// Among replies of calls in this process nobody looks for messages.
fn refuse_in_process(ctx: &Context<'_>) -> Result<(), Error> {
    if ctx.session.in_process {
        return Err(Error::text("ERR a client in this process subscribes by a Subscription of its own"));
    }
    Ok(())
}

/// Confirms that a subscription began or ended. It is a message, so that who wants no replies gets it too.
fn confirm(ctx: &mut Context<'_>, word: &str, name: Option<&[u8]>, count: usize) {
    let write = |out: &mut Output| {
        out.push(3);
        out.bulk(word.as_bytes());
        match name {
            Some(name) => out.bulk(name),
            None => out.null(),
        }
        out.integer(count as i64);
    };
    if ctx.session.reply == ReplyMode::On {
        write(ctx.out);
    } else {
        let push = Push::new(write);
        ctx.session.shared.push_as(|protocol| Some(push.encoded(protocol)));
        ctx.db.effects.echo = true;
    }
}

/// Ends subscriptions to channels, or all of them.
pub const UNSUBSCRIBE: Command = Command {
    name: "UNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    usage: "[channel...]",
    summary: "Stops listening to messages posted to channels.",
    complexity: "O(N) where N is the number of channels to unsubscribe.",
    run: |ctx, args| unsubscribe(ctx, args, Kind::Channel),
    ..BASE
};

/// Ends subscriptions to patterns, or all of them.
pub const PUNSUBSCRIBE: Command = Command {
    name: "PUNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    usage: "[pattern...]",
    summary: "Stops listening to messages published to channels that match one or more patterns.",
    complexity: "O(N) where N is the number of patterns to unsubscribe.",
    run: |ctx, args| unsubscribe(ctx, args, Kind::Pattern),
    ..BASE
};

/// Ends subscriptions to shard channels, or all of them.
pub const SUNSUBSCRIBE: Command = Command {
    name: "SUNSUBSCRIBE",
    since: "7.0.0",
    arity: Arity::AtLeast(1),
    keys: &[Keys::NotKey { first: 1, last: -1, step: 1 }],
    usage: "[shardchannel...]",
    summary: "Stops listening to messages posted to shard channels.",
    complexity: "O(N) where N is the number of shard channels to unsubscribe.",
    run: |ctx, args| unsubscribe(ctx, args, Kind::ShardChannel),
    ..BASE
};

fn unsubscribe(ctx: &mut Context<'_>, args: &Args<'_>, kind: Kind) -> Reply {
    refuse_in_process(ctx)?;
    settle(ctx.session);
    if args.len() > 1 {
        args.from(1).for_each(|name| end(ctx, kind, name));
    } else {
        let all: Vec<Arc<[u8]>> = match &mut ctx.session.subscriptions {
            Some(subscriptions) => names(subscriptions, kind).iter().cloned().collect(),
            None => Vec::new(),
        };
        all.iter().for_each(|name| end(ctx, kind, name));
        if all.is_empty() {
            let left = count(ctx.session.subscriptions.as_deref(), kind);
            confirm(ctx, words(kind).left, None, left);
        }
    }
    tell(ctx.session);
    DONE
}

/// Ends a subscription, if there is one, and confirms it.
fn end(ctx: &mut Context<'_>, kind: Kind, name: &[u8]) {
    let subscriptions = ctx.session.subscriptions.as_deref_mut();
    if subscriptions.is_some_and(|all| names(all, kind).remove(name)) {
        ctx.engine.pubsub.unsubscribe(kind, name, ctx.session.shared.id);
        // What came from there before the end is told before it; but not among the replies of EXEC.
        if ctx.session.reply == ReplyMode::On && !ctx.is_in_group() {
            ctx.session.shared.outbox.drain(ctx.out);
        }
    }
    let left = count(ctx.session.subscriptions.as_deref(), kind);
    confirm(ctx, words(kind).left, Some(name), left);
}

/// The container of questions about subscriptions.
pub const PUBSUB: Command = Command {
    name: "PUBSUB",
    since: "2.8.0",
    flags: &[],
    summary: "A container for Pub/Sub commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[CHANNELS, HELP, NUMPAT, NUMSUB, SHARDCHANNELS, SHARDNUMSUB],
    ..BASE
};

/// What its subcommands have in common.
const SUB: Command = Command { since: "2.8.0", flags: &[Flag::PubSub, Flag::Loading, Flag::Stale], ..BASE };

const CHANNELS: Command = Command {
    name: "CHANNELS",
    usage: "[pattern]",
    summary: "Returns the active channels.",
    complexity: "O(N) where N is the number of active channels, and assuming constant time pattern matching (relatively short channels and patterns)",
    run: |ctx, args| list(ctx, args, Kind::Channel),
    ..SUB
};

const SHARDCHANNELS: Command = Command {
    name: "SHARDCHANNELS",
    since: "7.0.0",
    usage: "[pattern]",
    summary: "Returns the active shard channels.",
    complexity: "O(N) where N is the number of active shard channels, and assuming constant time pattern matching (relatively short shard channels).",
    run: |ctx, args| list(ctx, args, Kind::ShardChannel),
    ..SUB
};

fn list(ctx: &mut Context<'_>, args: &Args<'_>, kind: Kind) -> Reply {
    if args.len() > 3 {
        return Err(help::wrong_form("PUBSUB", args.at(1)));
    }
    let pattern = args.opt(2);
    let head = ctx.out.defer();
    let mut listed = 0;
    ctx.engine.pubsub.topics(kind).for_each(|name, _| {
        if pattern.is_none_or(|pattern| matches(pattern, name, Case::Sensitive)) {
            ctx.out.bulk(name);
            listed += 1;
        }
    });
    ctx.out.finish_array(head, listed);
    DONE
}

const NUMSUB: Command = Command {
    name: "NUMSUB",
    usage: "[channel...]",
    summary: "Returns a count of subscribers to channels.",
    complexity: "O(N) for the NUMSUB subcommand, where N is the number of requested channels",
    run: |ctx, args| numbers(ctx, args, Kind::Channel),
    ..SUB
};

const SHARDNUMSUB: Command = Command {
    name: "SHARDNUMSUB",
    since: "7.0.0",
    usage: "[shardchannel...]",
    summary: "Returns the count of subscribers of shard channels.",
    complexity: "O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels",
    run: |ctx, args| numbers(ctx, args, Kind::ShardChannel),
    ..SUB
};

fn numbers(ctx: &mut Context<'_>, args: &Args<'_>, kind: Kind) -> Reply {
    let topics = ctx.engine.pubsub.topics(kind);
    ctx.out.array(2 * (args.len() - 2));
    for name in args.from(2) {
        ctx.out.bulk(name);
        ctx.out.integer(topics.receivers(name) as i64);
    }
    DONE
}

const NUMPAT: Command = Command {
    name: "NUMPAT",
    arity: Arity::Exactly(2),
    summary: "Returns a count of unique pattern subscriptions.",
    complexity: "O(1)",
    run: |ctx, _| {
        ctx.out.integer(ctx.engine.pubsub.topics(Kind::Pattern).len() as i64);
        DONE
    },
    ..SUB
};

const HELP: Command = Command {
    name: "HELP",
    since: "6.2.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    complexity: "O(1)",
    run: |ctx, _| {
        help::write(
            ctx.out,
            "PUBSUB",
            &[
                (
                    "CHANNELS [<pattern>]",
                    &["List the channels that have subscribers, all or those that fit <pattern>."],
                ),
                ("NUMPAT", &["Count the patterns that have subscribers."]),
                ("NUMSUB [<channel> ...]", &["Count the subscribers of channels; those by a pattern are left out."]),
                ("SHARDCHANNELS [<pattern>]", &["List the shard channels that have subscribers."]),
                ("SHARDNUMSUB [<shardchannel> ...]", &["Count the subscribers of shard channels."]),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests;
