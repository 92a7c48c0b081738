//! MONITOR: the connection hears of every command that runs.

use crate::client::shared::Mark;
use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[MONITOR];

/// Sends every command that any client runs to this one, until RESET or the end of the connection.
///
/// Administrators' commands are not shown, nor what was refused before it ran; passwords are hidden. A
/// client that monitors may not touch keys.
pub const MONITOR: Command = Command {
    name: "MONITOR",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "Listens for all requests received by the server in real-time.",
    complexity: "",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: monitor,
};

fn monitor(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    if ctx.session.in_process {
        // Its outbox would fill for ever: nobody sends it on.
        return Err(Error::text("ERR MONITOR needs a connection"));
    }
    if ctx.is_inside() {
        return Err(Error::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    // Asked for twice it is not even answered: a reply would stand among the lines.
    if ctx.session.monitor {
        return DONE;
    }
    ctx.session.monitor = true;
    ctx.session.shared.mark(Mark::Monitor, true);
    ctx.engine.monitors.add(ctx.session.shared.clone());
    ctx.out.ok();
    DONE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::client::shared::{Link, Mark, Shared};
    use crate::command::testing::Bench;
    use crate::resp::reply::{Output, Protocol};

    /// A client that monitors a bench.
    fn watcher(bench: &Bench) -> Arc<Shared> {
        let id = bench.engine.clients.next_id();
        let client = Arc::new(Shared::new(id, Link::Tcp, "9.9.9.9:9".into(), "1.2.3.4:6".into(), 10, 0));
        bench.engine.monitors.add(client.clone());
        client
    }

    fn heard(watcher: &Shared) -> String {
        let mut out = Output::new(Protocol::Resp2);
        watcher.outbox.drain(&mut out);
        String::from_utf8(out.into_vec()).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn what_runs_is_shown_with_time_database_and_address() {
        let mut bench = Bench::new();
        let watcher = watcher(&bench);
        bench.clock.advance_us(5);
        bench.session.db = 3;
        bench.run(r#"SET a "x\x00\n\"'""#);
        assert_eq!(heard(&watcher), r#"+1000000.000005 [3 1.2.3.4:5] "SET" "a" "x\x00\n\"'"|"#);
        bench.run("SELECT 4");
        assert!(heard(&watcher).ends_with(r#" [4 1.2.3.4:5] "SELECT" "4"|"#));
        bench.run("KEYS *");
        assert!(heard(&watcher).ends_with(r#" "KEYS" "*"|"#));
    }

    #[test]
    fn administration_and_what_was_refused_is_not_shown() {
        let mut bench = Bench::new();
        let watcher = watcher(&bench);
        ["CLIENT LIST", "MONITOR", "NONSENSE a", "GET", "SHUTDOWN ABORT"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(heard(&watcher), "");
        bench.run("CLIENT ID");
        assert!(heard(&watcher).ends_with(r#" "CLIENT" "ID"|"#));
    }

    #[test]
    fn a_script_is_shown_that_cannot_be_run() {
        let mut bench = Bench::new();
        let watcher = watcher(&bench);
        let missing = format!("EVALSHA {} 0", "f".repeat(40));
        for line in [&missing, "EVAL x 0", "EVAL \"return 1\" 5", "EVAL_RO x 0", "FCALL nope 0"] {
            assert!(bench.run(line).starts_with('-'), "{line}");
            let name = line.split(' ').next().unwrap();
            assert!(heard(&watcher).contains(&format!(r#" "{name}" "#)), "{line}");
        }
        bench.run("EVAL \"return redis.call('GET','a')\" 0");
        let lines = heard(&watcher);
        assert!(lines.find("\"EVAL\"") < lines.find("lua] \"GET\"") && lines.matches("EVAL").count() == 1, "{lines}");
    }

    #[test]
    fn passwords_are_not_shown() {
        let mut bench = Bench::new();
        let watcher = watcher(&bench);
        bench.run("AUTH secret");
        assert!(heard(&watcher).ends_with(r#" "AUTH" "(redacted)"|"#));
        bench.run("AUTH default secret");
        assert!(heard(&watcher).ends_with(r#" "AUTH" "(redacted)" "(redacted)"|"#));
        bench.run("HELLO 2 AUTH default secret SETNAME q");
        let line = heard(&watcher);
        assert!(line.ends_with(r#" "HELLO" "2" "AUTH" "(redacted)" "(redacted)" "SETNAME" "q"|"#), "{line}");
        bench.run("PING");
        assert!(heard(&watcher).ends_with(r#" "PING"|"#));
    }

    #[test]
    fn who_monitors_may_not_touch_keys_until_reset() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("MONITOR"), "+OK|");
        assert_eq!(bench.run("MONITOR"), "");
        assert!(bench.session.shared.has(Mark::Monitor));
        assert_eq!(bench.run("GET a"), "-ERR Replica can't interact with the keyspace|");
        assert_eq!(bench.run("PING"), "+PONG|");
        assert!(bench.run("CLIENT INFO").contains(" flags=O "));
        assert!(heard(&bench.session.shared).contains(r#" "PING"|"#));
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert!(!bench.engine.monitors.any());
        assert_eq!(bench.run("GET a"), "$-1|");
        assert_eq!(heard(&bench.session.shared), "");
    }
}
