//! CLIENT: what each subcommand answers, and to whom it happens.

use super::*;
use crate::client::session::Fate;
use crate::client::shared::Link;
use crate::command::testing::Bench;

/// Adds another client to a bench.
fn other(bench: &Bench, addr: &str) -> Arc<Shared> {
    let id = bench.engine.clients.next_id();
    let client = Arc::new(Shared::new(id, Link::Tcp, addr.into(), "1.2.3.4:6".into(), 10, bench.engine.clock.now_ms()));
    bench.engine.clients.add(client.clone());
    client
}

#[test]
fn names_are_printable_and_empty_ones_take_the_name_away() {
    let mut bench = Bench::new();
    let wrong = "-ERR Client names cannot contain spaces, newlines or special characters.|";
    assert_eq!(bench.run("CLIENT GETNAME"), "$-1|");
    assert_eq!(bench.run("client setname ~!#$%"), "+OK|");
    for name in ["\"a b\"", "\"a\\nb\"", "\"\\x01\"", "\"\\x7f\"", "\"\\xc3\\xa9\""] {
        assert_eq!(bench.run(&format!("CLIENT SETNAME {name}")), wrong);
    }
    assert_eq!(bench.run("CLIENT GETNAME"), "$5|~!#$%|");
    assert_eq!(bench.run("CLIENT SETNAME \"\""), "+OK|");
    assert_eq!(bench.run("CLIENT GETNAME"), "$-1|");
}

#[test]
fn the_library_is_told_in_the_list() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("CLIENT SETINFO lib-name redis-py"), "+OK|");
    assert_eq!(bench.run("CLIENT SETINFO LIB-VER 4.5"), "+OK|");
    assert_eq!(
        bench.run("CLIENT SETINFO lib-name \"a b\""),
        "-ERR lib-name cannot contain spaces, newlines or special characters.|"
    );
    assert_eq!(bench.run("CLIENT SETINFO nonsense x"), "-ERR Unrecognized option 'nonsense'|");
    let wrong = "-ERR wrong number of arguments for 'client|setinfo' command|";
    assert_eq!(bench.run("CLIENT SETINFO lib-name"), wrong);
    assert!(bench.run("CLIENT INFO").contains(" lib-name=redis-py lib-ver=4.5 "));
    assert_eq!(bench.run("CLIENT SETINFO lib-name \"\""), "+OK|");
    assert!(bench.run("CLIENT INFO").contains(" lib-name= lib-ver=4.5 "));
}

#[test]
fn a_request_stands_in_a_buffer_of_the_client_unless_we_are_taken_for_valkey() {
    let mut bench = Bench::new();
    assert!(bench.run("CLIENT LIST").contains(" qbuf=26 "));
    assert!(bench.run("CLIENT INFO").contains(" qbuf=26 "));
    let mut config = bench.engine.config.load().as_ref().clone();
    config.original = Original::Valkey;
    bench.engine.config.store(Arc::new(config));
    assert!(bench.another().run("CLIENT LIST").contains(" qbuf=0 "));
}

/// The ids that CLIENT LIST shows with these arguments.
fn listed(bench: &mut Bench, filters: &str) -> Vec<u64> {
    let text = bench.run(&format!("CLIENT LIST {filters}"));
    let ids = text.split(['\n', '|']).filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.map(|id| id.parse().unwrap()).collect()
}

#[test]
fn the_list_is_filtered() {
    let mut bench = Bench::new();
    bench.clock.advance(10_000);
    let (two, three) = (other(&bench, "9.9.9.9:2"), other(&bench, "9.9.9.9:3"));
    three.figures.channels.store(1, Ordering::Relaxed);
    assert_eq!(listed(&mut bench, ""), [1, 2, 3]);
    assert_eq!(listed(&mut bench, "TYPE normal"), [1, 2]);
    assert_eq!(listed(&mut bench, "type PubSub"), [3]);
    assert!(listed(&mut bench, "TYPE replica").is_empty());
    assert_eq!(listed(&mut bench, "ID 3 1 -1 99 3"), [3, 1, 3]);
    assert_eq!(listed(&mut bench, "ID 3 1 ADDR 9.9.9.9:3"), [3]);
    assert_eq!(listed(&mut bench, "SKIPME yes LADDR 1.2.3.4:6"), [2, 3]);
    assert_eq!(listed(&mut bench, "MAXAGE 10"), [1]);
    two.names.lock().user = "alice".into();
    assert_eq!(listed(&mut bench, "USER default"), [1, 3]);
    for wrong in ["TYPE", "NONSENSE", "NONSENSE x", "ID", "TYPE normal ID 1", "ID 1 TYPE normal", "SKIPME maybe"] {
        assert_eq!(bench.run(&format!("CLIENT LIST {wrong}")), "-ERR syntax error|", "{wrong}");
    }
    assert_eq!(bench.run("CLIENT LIST ID 1 abc"), "-ERR Invalid client ID|");
    assert_eq!(bench.run("CLIENT LIST ID addr x"), "-ERR Invalid client ID|");
    assert_eq!(bench.run("CLIENT LIST TYPE nonsense"), "-ERR Unknown client type 'nonsense'|");
    assert_eq!(bench.run("CLIENT LIST TYPE master"), "$0||");
}

#[test]
fn a_killed_client_is_gone_at_once() {
    let mut bench = Bench::new();
    bench.clock.advance(5_000);
    let (two, three) = (other(&bench, "9.9.9.9:2"), other(&bench, "9.9.9.9:3"));
    assert_eq!(bench.run("CLIENT KILL 9.9.9.9:2"), "+OK|");
    assert!(two.is_closing() && !three.is_closing());
    assert_eq!(bench.run("CLIENT KILL 9.9.9.9:2"), "-ERR No such client|");
    assert_eq!(bench.run("CLIENT KILL ID 2"), ":0|");
    assert_eq!(bench.run("CLIENT KILL ID 3 ADDR 9.9.9.9:2"), ":0|");
    assert_eq!(bench.run("CLIENT KILL MAXAGE 6 SKIPME yes"), ":0|");
    assert_eq!(bench.run("CLIENT KILL TYPE"), "-ERR No such client|");
    assert_eq!(bench.run("CLIENT KILL TYPE normal USER default"), ":1|");
    assert!(three.is_closing());
    assert_eq!(bench.session.fate, Fate::Stay);
    assert_eq!(bench.run("CLIENT KILL TYPE normal SKIPME no"), ":1|");
    assert_eq!(bench.session.fate, Fate::CloseAfterReply);
}

#[test]
fn by_its_address_a_client_may_end_itself() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("CLIENT KILL 1.2.3.4:5"), "+OK|");
    assert_eq!(bench.session.fate, Fate::CloseAfterReply);
}

#[test]
fn filters_that_make_no_sense_kill_nobody() {
    let mut bench = Bench::new();
    let two = other(&bench, "9.9.9.9:2");
    for (filters, error) in [
        ("ID abc", "client-id should be greater than 0"),
        ("ID 0", "client-id should be greater than 0"),
        ("ID 2 ADDR", "syntax error"),
        ("TYPE nonsense", "Unknown client type 'nonsense'"),
        ("USER nobody", "No such user 'nobody'"),
        ("USER default SKIPME maybe", "syntax error"),
        ("MAXAGE str", "maxage is not an integer or out of range"),
        ("MAXAGE -1", "maxage should be greater than 0"),
        ("ID 2 NONSENSE x", "syntax error"),
    ] {
        assert_eq!(bench.run(&format!("CLIENT KILL {filters}")), format!("-ERR {error}|"));
    }
    assert!(!two.is_closing());
}

#[test]
fn replies_are_left_out_as_long_as_the_client_wants() {
    let mut bench = Bench::new();
    let mut replies = |lines: &[&str]| lines.iter().map(|line| bench.run(line)).collect::<Vec<_>>().concat();
    assert_eq!(replies(&["CLIENT REPLY ON", "CLIENT REPLY maybe"]), "+OK|-ERR syntax error|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "PING", "ECHO a"]), "$1|a|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "NONSENSE", "PING"]), "+PONG|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "GET", "PING"]), "+PONG|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "CLIENT REPLY maybe", "PING"]), "+PONG|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING"]), "+OK|+PONG|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "ECHO a"]), "$1|a|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "RESET", "PING"]), "+PONG|");
    assert_eq!(replies(&["CLIENT REPLY OFF", "PING", "NONSENSE", "CLIENT REPLY SKIP", "PING"]), "");
    assert_eq!(replies(&["PING", "CLIENT REPLY ON", "PING"]), "+OK|+PONG|");
    assert_eq!(replies(&["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "PING", "CLIENT REPLY ON"]), "+OK|");
    assert_eq!(replies(&["CLIENT REPLY OFF", "RESET", "PING"]), "+RESET|+PONG|");
}

#[test]
fn a_command_that_works_in_pieces_is_silenced_as_a_whole() {
    let mut bench = Bench::new();
    bench.run("SET a 1");
    bench.run("CLIENT REPLY SKIP");
    assert_eq!(bench.run("KEYS *"), "");
    assert_eq!(bench.run("KEYS *"), "*1|$1|a|");
    bench.run("CLIENT REPLY OFF");
    assert_eq!(bench.run("KEYS *"), "");
    assert_eq!(bench.run("FLUSHALL"), "");
    assert_eq!(bench.run("CLIENT REPLY ON"), "+OK|");
    assert_eq!(bench.run("KEYS *"), "*0|");
}

#[test]
fn a_pause_is_never_shortened_nor_made_milder() {
    let mut bench = Bench::new();
    let active = |bench: &Bench| bench.engine.pause.active(bench.engine.clock.now_ms());
    let until = |ms: u64| 1_000_000_000 + ms;
    assert_eq!(bench.run("CLIENT PAUSE 100 WRITE"), "+OK|");
    assert_eq!(active(&bench), Some((PauseMode::Write, until(100))));
    assert_eq!(bench.run("SET a 1"), "");
    assert_eq!(bench.run("GET a"), "$-1|");
    assert_eq!(bench.run("CLIENT PAUSE 10 WRITE"), "+OK|");
    assert_eq!(active(&bench), Some((PauseMode::Write, until(100))));
    assert_eq!(bench.run("CLIENT PAUSE 200"), "+OK|");
    assert_eq!(bench.run("CLIENT UNPAUSE"), "");
    assert_eq!(bench.run("PING"), "");
    bench.engine.pause.start(until(150), PauseMode::Write, until(0));
    assert_eq!(active(&bench), Some((PauseMode::All, until(200))));
    bench.clock.advance(200);
    assert_eq!(bench.run("CLIENT PAUSE 50 WRITE"), "+OK|");
    assert_eq!(active(&bench), Some((PauseMode::Write, until(250))));
    assert_eq!(bench.run("CLIENT UNPAUSE"), "+OK|");
    assert_eq!(active(&bench), None);
}

#[test]
fn a_pause_says_what_is_wrong_with_it() {
    let mut bench = Bench::new();
    for (args, error) in [
        ("abc", "timeout is not an integer or out of range"),
        ("1.5", "timeout is not an integer or out of range"),
        ("-1", "timeout is negative"),
        ("9223372036854775807", "timeout is out of range"),
        ("1 NONSENSE", "CLIENT PAUSE mode must be WRITE or ALL"),
        ("1 WRITE ALL", "unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP."),
    ] {
        assert_eq!(bench.run(&format!("CLIENT PAUSE {args}")), format!("-ERR {error}|"));
    }
    assert_eq!(bench.run("CLIENT PAUSE 0 ALL"), "+OK|");
    assert_eq!(bench.run("PING"), "+PONG|");
}

#[test]
fn those_that_wait_are_counted_once_and_woken() {
    let bench = Bench::new();
    let two = other(&bench, "9.9.9.9:2");
    let pause = &bench.engine.pause;
    pause.start(1_000_000_500, PauseMode::All, 1_000_000_000);
    pause.wait(two.clone());
    pause.wait(two.clone());
    assert_eq!((pause.waiting(1_000_000_000), pause.waiting(1_000_000_500)), (1, 0));
    assert!(pause.holds(2, 1_000_000_000) && !pause.holds(1, 1_000_000_000));
    pause.end();
    assert!(two.take_nudge());
    pause.start(1_000_000_500, PauseMode::All, 1_000_000_000);
    assert_eq!(pause.waiting(1_000_000_000), 0);
    pause.wait(two.clone());
    pause.forget(2);
    assert_eq!(pause.waiting(1_000_000_000), 0);
}

#[test]
fn switches_show_in_the_flags() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("CLIENT NO-EVICT on"), "+OK|");
    assert_eq!(bench.run("CLIENT NO-TOUCH ON"), "+OK|");
    assert!(bench.session.no_touch);
    assert!(bench.run("CLIENT INFO").contains(" flags=eT "));
    assert_eq!(bench.run("CLIENT NO-EVICT maybe"), "-ERR syntax error|");
    assert_eq!(bench.run("CLIENT NO-TOUCH maybe"), "-ERR syntax error|");
    assert_eq!(bench.run("CLIENT NO-TOUCH off"), "+OK|");
    assert!(bench.run("CLIENT LIST ID 1").contains(" flags=e db=0 "));
    assert!(bench.run("CLIENT INFO").contains(" events=r cmd=client|info user=default redir=-1 resp=2 "));
}

#[test]
fn small_questions_are_answered() {
    let mut bench = Bench::new();
    assert_eq!(bench.run("CLIENT ID"), ":1|");
    assert_eq!(bench.run("CLIENT GETREDIR"), ":-1|");
    assert_eq!(bench.run("CLIENT TRACKINGINFO"), "*6|$5|flags|*1|$3|off|$8|redirect|:-1|$8|prefixes|*0|");
    assert_eq!(bench.run("CLIENT CAPA redirect"), "+OK|");
    assert_eq!(bench.run("CLIENT UNBLOCK 999"), ":0|");
    assert_eq!(bench.run("CLIENT UNBLOCK abc"), "-ERR value is not an integer or out of range|");
    let reason = "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR|";
    assert_eq!(bench.run("CLIENT UNBLOCK 1 nonsense"), reason);
    assert_eq!(bench.run("CLIENT NONSENSE"), "-ERR unknown subcommand 'NONSENSE'. Try CLIENT HELP.|");
    assert!(bench.run("CLIENT HELP").starts_with(&format!("*{}|+CLIENT <subcommand>", HELP_LINES.len())));
    assert_eq!(bench.run("CLIENT"), "-ERR wrong number of arguments for 'client' command|");
    bench.run("HELLO 3");
    assert_eq!(bench.run("CLIENT TRACKINGINFO"), "%3|$5|flags|~1|$3|off|$8|redirect|:-1|$8|prefixes|*0|");
    assert!(bench.run("CLIENT INFO").starts_with("="));
}
