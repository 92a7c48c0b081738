//! CLIENT TRACKING: a connection is told when keys change that it has read, so that it may keep copies.

use crate::client::session::Session;
use crate::client::tracking::{Choice, Post, overlap};
use crate::command::args::{Args, word};
use crate::command::client::{SUB, ok};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::table::{Command, Entry};
use crate::keyspace::change::{Change, Class, Effects, Interest};
use crate::spec::{Arity, Flag, Group, keys};
use crate::stdx::number::parse_i64;

/// At most so many keys are forgotten at a time to make room: about a millisecond.
const ROOM_STEP: usize = 1000;

/// Has a connection be told of changes.
pub const TRACKING: Command = Command {
    name: "TRACKING",
    since: "6.0.0",
    arity: Arity::AtLeast(3),
    usage: "status(ON | OFF) [REDIRECT client-id:integer] [PREFIX prefix]... [BCAST=BCAST] [OPTIN=OPTIN] [OPTOUT=OPTOUT] [NOLOOP=NOLOOP]",
    summary: "Controls server-assisted client-side caching for the connection.",
    complexity: "O(1). Some options may introduce additional complexity.",
    run: tracking,
    ..SUB
};

fn tracking(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut choices: Vec<Choice> = Vec::new();
    let mut prefixes: Vec<&[u8]> = Vec::new();
    let mut redirect = 0;
    let mut i = 3;
    while i < args.len() {
        let value = args.opt(i + 1);
        match (word(args.at(i), &["REDIRECT", "BCAST", "OPTIN", "OPTOUT", "NOLOOP", "PREFIX"]), value) {
            (Some("REDIRECT"), Some(id)) => {
                redirect = redirection(ctx, redirect, id)?;
                i += 1;
            }
            (Some("BCAST"), _) => choices.push(Choice::Broadcast),
            (Some("OPTIN"), _) => choices.push(Choice::OptIn),
            (Some("OPTOUT"), _) => choices.push(Choice::OptOut),
            (Some("NOLOOP"), _) => choices.push(Choice::NoLoop),
            (Some("PREFIX"), Some(prefix)) => {
                prefixes.push(prefix);
                i += 1;
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    match word(args.at(2), &["ON", "OFF"]) {
        Some("ON") if ctx.session.in_process => {
            return Err(Error::text("ERR CLIENT TRACKING needs a connection: in this process changes can be observed"));
        }
        Some("ON") => {
            check(ctx, &choices, &prefixes)?;
            let session = &mut *ctx.session;
            ctx.engine.tracking.start(&session.shared, &choices, redirect, &prefixes);
            session.tracks_reads = !choices.contains(&Choice::Broadcast);
            ctx.engine.set_interest(Interest::TRACKING, true);
        }
        Some(_) => stop(ctx.engine, ctx.session),
        None => return Err(Error::Syntax),
    }
    ok(ctx, args)
}

/// The client with this number, which exists.
fn redirection(ctx: &Context<'_>, before: u64, id: &[u8]) -> Result<u64, Error> {
    if before != 0 {
        return Err(Error::text("ERR A client can only redirect to a single other client"));
    }
    let id = parse_i64(id).ok_or(Error::NotInteger)?;
    let known = u64::try_from(id).ok().filter(|id| ctx.engine.clients.find(*id).is_some());
    known.ok_or(Error::text("ERR The client ID you want redirect to does not exist"))
}

/// Whether choices go together, and with what was chosen before.
fn check(ctx: &Context<'_>, choices: &[Choice], prefixes: &[&[u8]]) -> Result<(), Error> {
    let now = |choice| choices.contains(&choice);
    let tracked = &ctx.session.shared.tracked;
    let wrong = |text: &'static str| Err(Error::text(text));
    if !now(Choice::Broadcast) && !prefixes.is_empty() {
        return wrong("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if tracked.has(Choice::On) && tracked.has(Choice::Broadcast) != now(Choice::Broadcast) {
        return wrong(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
        );
    }
    if now(Choice::Broadcast) && (now(Choice::OptIn) || now(Choice::OptOut)) {
        return wrong("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if now(Choice::OptIn) && now(Choice::OptOut) {
        return wrong("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if now(Choice::OptIn) && tracked.has(Choice::OptOut) || now(Choice::OptOut) && tracked.has(Choice::OptIn) {
        return wrong(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
        );
    }
    let known = ctx.engine.tracking.prefixes_of(ctx.session.shared.id);
    for (i, prefix) in prefixes.iter().enumerate() {
        let shown = |other: &[u8], what: &str| {
            let (prefix, other) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
            let text = format!(
                "ERR Prefix '{prefix}' overlaps with {what} prefix '{other}'. Prefixes for a single client must not overlap."
            );
            Err(Error::text(text.replace(['\r', '\n'], " ")))
        };
        if let Some(other) = known.iter().find(|other| overlap(prefix, other)) {
            return shown(other, "an existing");
        }
        if let Some(other) = prefixes[i + 1..].iter().find(|other| overlap(prefix, other)) {
            return shown(other, "another provided");
        }
    }
    Ok(())
}

/// Has a connection be told no more.
pub fn stop(engine: &Engine, session: &mut Session) {
    engine.tracking.stop(&session.shared);
    session.tracks_reads = false;
    session.caching = false;
    rest(engine);
}

/// Has changes cost nothing once nobody need hear of them.
fn rest(engine: &Engine) {
    if !engine.tracking.is_active() {
        engine.set_interest(Interest::TRACKING, false);
        // Somebody may have begun just now.
        if engine.tracking.is_active() {
            engine.set_interest(Interest::TRACKING, true);
        }
    }
}

/// Makes an exception for the keys of the next request.
pub const CACHING: Command = Command {
    name: "CACHING",
    since: "6.0.0",
    arity: Arity::Exactly(3),
    usage: "mode(YES | NO)",
    summary: "Instructs the server whether to track the keys in the next request.",
    run: caching,
    ..SUB
};

fn caching(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let tracked = &ctx.session.shared.tracked;
    let wrong = |text: &'static str| Err(Error::text(text));
    if !tracked.has(Choice::On) {
        return wrong(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        );
    }
    match word(args.at(2), &["YES", "NO"]) {
        Some("YES") if !tracked.has(Choice::OptIn) => {
            return wrong("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.");
        }
        Some("NO") if !tracked.has(Choice::OptOut) => {
            return wrong("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");
        }
        Some(_) => ctx.session.caching = true,
        None => return Err(Error::Syntax),
    }
    ok(ctx, args)
}

/// Tells who is told of changes instead of this connection.
pub const GETREDIR: Command = Command {
    name: "GETREDIR",
    since: "6.0.0",
    summary: "Returns the client ID to which the connection's tracking notifications are redirected.",
    run: |ctx, _| {
        ctx.out.integer(ctx.session.shared.tracked.shown_redirect());
        DONE
    },
    ..SUB
};

/// Tells how a connection is told of changes.
pub const TRACKINGINFO: Command = Command {
    name: "TRACKINGINFO",
    since: "6.2.0",
    summary: "Returns information about server-assisted client-side caching for the connection.",
    run: |ctx, _| {
        let tracked = &ctx.session.shared.tracked;
        let caching = ctx.session.caching;
        let flags = [
            ("off", !tracked.has(Choice::On)),
            ("on", tracked.has(Choice::On)),
            ("bcast", tracked.has(Choice::Broadcast)),
            ("optin", tracked.has(Choice::OptIn)),
            ("caching-yes", tracked.has(Choice::OptIn) && caching),
            ("optout", tracked.has(Choice::OptOut)),
            ("caching-no", tracked.has(Choice::OptOut) && caching),
            ("noloop", tracked.has(Choice::NoLoop)),
            ("broken_redirect", tracked.has(Choice::Broken)),
        ];
        ctx.out.map(3);
        ctx.out.bulk(b"flags");
        ctx.out.set(flags.iter().filter(|(_, on)| *on).count());
        flags.iter().filter(|(_, on)| *on).for_each(|(flag, _)| ctx.out.bulk(flag.as_bytes()));
        ctx.out.bulk(b"redirect");
        ctx.out.integer(tracked.shown_redirect());
        ctx.out.bulk(b"prefixes");
        let prefixes = ctx.engine.tracking.prefixes_of(ctx.session.shared.id);
        ctx.out.array(prefixes.len());
        prefixes.iter().for_each(|prefix| ctx.out.bulk(prefix));
        DONE
    },
    ..SUB
};

/// Remembers the keys that a request has read, whose shards are held. Called where the connection tracks them.
#[cold]
pub fn remember(ctx: &mut Context<'_>, entry: &Entry, args: &Args<'_>) {
    let tracked = &ctx.session.shared.tracked;
    let wanted = match () {
        () if tracked.has(Choice::OptIn) => ctx.session.caching,
        () if tracked.has(Choice::OptOut) => !ctx.session.caching,
        () => true,
    };
    // Of a script only what it calls counts.
    if !wanted || !entry.has(Flag::ReadOnly) || entry.command.group == Group::Scripting {
        return;
    }
    let (tracking, id) = (&ctx.engine.tracking, ctx.session.shared.id);
    // Where a count is wrong the command has read nothing.
    let _ = keys::for_each(entry.command.keys, args.len(), |i| args.at(i), |i, _| tracking.remember(args.at(i), id));
    make_room(ctx.engine, ctx.db.effects);
}

/// Ends the exception that CLIENT CACHING made, after the request that it was made for.
pub fn end_exception(session: &mut Session, entry: &Entry) {
    if session.caching && !session.is_queueing() && !entry.full_name.starts_with("client|") {
        session.caching = false;
    }
}

fn post<'a>(engine: &'a Engine, effects: &Effects) -> Post<'a> {
    Post { registry: &engine.clients, origin: effects.origin, echoed: false }
}

/// Tells those who read a key that it changed. Its shard is held.
pub fn changed(engine: &Engine, effects: &mut Effects, change: Change) {
    if !engine.tracking.is_active() || matches!(change.class, Class::Miss | Class::New) {
        return;
    }
    let mut post = post(engine, effects);
    engine.tracking.invalidate(&change.key, effects.origin, &mut post);
    effects.echo |= post.echoed;
    if engine.tracking.prefixes() > 0 {
        // That a key expires is nobody's doing.
        let origin = if change.class == Class::Expired { 0 } else { effects.origin };
        effects.broadcast.push((change.key, origin));
    }
}

/// Tells those who follow prefixes of the keys that changed.
pub fn broadcast(engine: &Engine, effects: &mut Effects) {
    if effects.broadcast.is_empty() {
        return;
    }
    let mut post = post(engine, effects);
    engine.tracking.broadcast(&effects.broadcast, &mut post);
    effects.echo |= post.echoed;
    effects.broadcast.clear();
}

/// Tells everyone that no key is valid any more.
pub fn flushed(engine: &Engine, effects: &mut Effects) {
    if !engine.tracking.is_active() {
        return;
    }
    let mut post = post(engine, effects);
    let many = engine.tracking.keys() > ROOM_STEP;
    let old = engine.tracking.invalidate_all(&mut post);
    effects.echo |= post.echoed;
    if many {
        // Freed by a thread of its own: others wait for this one.
        let _ = std::thread::Builder::new().name("forget".into()).spawn(move || drop(old));
    }
}

/// Forgets keys where more are remembered than the configuration allows.
pub fn make_room(engine: &Engine, effects: &mut Effects) {
    let most = usize::try_from(engine.config.load().tracking_table_max_keys).unwrap_or(usize::MAX);
    if most == 0 || engine.tracking.keys() <= most {
        return;
    }
    let mut post = post(engine, effects);
    engine.tracking.make_room(most, ROOM_STEP, &mut post);
    effects.echo |= post.echoed;
}

/// What the timer does: keys beyond the limit are forgotten, and those of clients that track no more.
pub fn tidy(engine: &Engine) {
    if engine.tracking.keys() == 0 {
        return;
    }
    make_room(engine, &mut Effects::default());
    if engine.tracking.clients() == 0 {
        engine.tracking.make_room(0, ROOM_STEP, &mut post(engine, &Effects::default()));
        rest(engine);
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.run("HELLO 3");
        bench
    }

    /// Another client's command.
    fn elsewhere(bench: &mut Bench, line: &str) -> String {
        bench.run_elsewhere(line)
    }

    const INVALID_A: &str = ">2|$10|invalidate|*1|$1|a|";

    #[test]
    fn a_key_that_was_read_is_told_to_be_invalid_once_after_the_reply() {
        let mut bench = bench();
        assert_eq!(bench.run("CLIENT TRACKING ON"), "+OK|");
        assert_eq!(bench.run("SET a 1"), "+OK|");
        assert_eq!(bench.run("MGET a b"), "*2|$1|1|_|");
        assert!(bench.run("INFO everything").contains("|tracking_total_keys:2|"));
        assert_eq!(bench.run("INCR a"), format!(":2|{INVALID_A}"));
        assert_eq!(bench.run("INCR a"), ":3|");
        assert_eq!(bench.run("SET b 1"), "+OK|>2|$10|invalidate|*1|$1|b|");
        bench.run("GET a");
        assert_eq!(elsewhere(&mut bench, "DEL a"), ":1|");
        assert_eq!(bench.heard(), INVALID_A);
        bench.run("GET a");
        assert_eq!(bench.run("CLIENT TRACKING OFF"), "+OK|");
        elsewhere(&mut bench, "SET a 1");
        assert_eq!(bench.heard(), "");
    }

    #[test]
    fn a_key_that_expires_is_invalid() {
        let mut bench = bench();
        bench.run("CLIENT TRACKING ON");
        bench.run("SET a 1 PX 10");
        assert_eq!(bench.run("GET a"), "$1|1|");
        bench.clock.advance(11);
        // The read that finds it gone is remembered in turn.
        assert_eq!(bench.run("GET a"), format!("_|{INVALID_A}"));
        assert_eq!(bench.run("SET a 2"), format!("+OK|{INVALID_A}"));
    }

    #[test]
    fn exceptions_hold_for_one_request() {
        let mut bench = bench();
        bench.run("CLIENT TRACKING ON OPTIN");
        bench.run("GET a");
        assert_eq!(bench.run("SET a 1"), "+OK|");
        assert_eq!(bench.run("CLIENT CACHING YES"), "+OK|");
        assert!(bench.run("CLIENT TRACKINGINFO").starts_with("%3|$5|flags|~3|$2|on|$5|optin|$11|caching-yes|"));
        bench.run("GET a");
        bench.run("GET b");
        assert_eq!(bench.run("SET a 1"), format!("+OK|{INVALID_A}"));
        assert_eq!(bench.run("SET b 1"), "+OK|");
        bench.run("CLIENT TRACKING OFF");
        bench.run("CLIENT TRACKING ON OPTOUT");
        bench.run("CLIENT CACHING NO");
        bench.run("GET b");
        bench.run("GET a");
        assert_eq!(bench.run("SET b 1"), "+OK|");
        assert_eq!(bench.run("SET a 1"), format!("+OK|{INVALID_A}"));
    }

    #[test]
    fn prefixes_are_followed_unread() {
        let mut bench = bench();
        assert_eq!(bench.run("CLIENT TRACKING ON BCAST PREFIX a PREFIX b"), "+OK|");
        assert_eq!(bench.run("MSET a 1 aa 1 c 1"), "+OK|>2|$10|invalidate|*2|$1|a|$2|aa|");
        assert_eq!(elsewhere(&mut bench, "MSET b 1 a 1"), "+OK|");
        assert_eq!(bench.heard(), format!("{INVALID_A}>2|$10|invalidate|*1|$1|b|"));
        assert!(bench.run("INFO everything").contains("|tracking_total_prefixes:2|"));
        assert!(bench.run("CLIENT INFO").contains(" flags=tB "));
        bench.run("RESET");
        assert!(bench.run("INFO everything").contains("|tracking_clients:0|"));
    }

    #[test]
    fn what_a_transaction_changes_is_told_behind_its_reply_and_by_prefix_at_once() {
        let mut bench = bench();
        bench.run("CLIENT TRACKING ON BCAST PREFIX a");
        ["MULTI", "INCR a", "INCR b", "INCR ab"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(bench.run("EXEC"), "*3|:1|:1|:1|>2|$10|invalidate|*2|$1|a|$2|ab|");
        bench.run("CLIENT TRACKING OFF");
        bench.run("CLIENT TRACKING ON OPTIN");
        bench.run("CLIENT CACHING YES");
        ["MULTI", "GET a"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(bench.run("EXEC"), "*1|$1|1|");
        bench.run("GET b");
        ["MULTI", "INCR a", "INCR b"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(bench.run("EXEC"), format!("*2|:2|:2|{INVALID_A}"));
    }

    #[test]
    fn a_flush_makes_everything_invalid() {
        let mut bench = bench();
        bench.run("CLIENT TRACKING ON");
        bench.run("GET a");
        assert_eq!(bench.run("FLUSHALL"), "+OK|>2|$10|invalidate|_|");
        elsewhere(&mut bench, "FLUSHDB");
        assert_eq!(bench.heard(), ">2|$10|invalidate|_|");
        assert_eq!(bench.run("SET a 1"), "+OK|");
    }

    #[test]
    fn beyond_the_limit_keys_are_forgotten() {
        let mut bench = bench();
        bench.run("CONFIG SET tracking-table-max-keys 2");
        bench.run("CLIENT TRACKING ON");
        assert_eq!(bench.run("MGET a b"), "*2|_|_|");
        assert!(bench.run("GET c").starts_with("_|>2|$10|invalidate|*1|$1|"));
        assert!(bench.run("CONFIG SET tracking-table-max-keys 1").starts_with("+OK|>2|$10|invalidate|*1|$1|"));
        assert!(bench.run("INFO everything").contains("|tracking_total_keys:1|"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let mut bench = bench();
        let mut refused = |line: &str, text: &str| {
            let reply = bench.run(line);
            assert!(reply.starts_with("-ERR ") && reply.contains(text), "{line}: {reply}");
        };
        refused("CLIENT TRACKING on PREFIX a", "requires BCAST");
        refused("CLIENT TRACKING on BCAST OPTIN", "not compatible with BCAST");
        refused("CLIENT TRACKING on OPTOUT OPTIN", "both OPTIN mode and OPTOUT");
        refused("CLIENT TRACKING on REDIRECT 99", "does not exist");
        refused("CLIENT TRACKING on REDIRECT 1 REDIRECT 1", "single other client");
        refused("CLIENT TRACKING on REDIRECT x", "not an integer");
        refused("CLIENT TRACKING on REDIRECT", "syntax");
        refused("CLIENT TRACKING maybe", "syntax");
        refused("CLIENT TRACKING on BCAST PREFIX ab PREFIX a", "'ab' overlaps with another provided prefix 'a'");
        refused("CLIENT CACHING YES", "can be called only");
        bench.run("CLIENT TRACKING on BCAST PREFIX ab");
        let mut refused = |line: &str, text: &str| {
            let reply = bench.run(line);
            assert!(reply.starts_with("-ERR ") && reply.contains(text), "{line}: {reply}");
        };
        refused("CLIENT TRACKING on BCAST PREFIX abc", "'abc' overlaps with an existing prefix 'ab'");
        refused("CLIENT TRACKING on", "switch BCAST mode");
        refused("CLIENT CACHING YES", "only valid when tracking is enabled in OPTIN");
    }
}
