//! What subscribers get, seen from the inside: order, protocols, limits.

use std::sync::Arc;

use super::*;
use crate::client::shared::Link;
use crate::command::testing::Bench;
use crate::resp::reply::Protocol;

/// Another client, which is subscribed to something.
fn listener(bench: &Bench, kind: Kind, name: &str) -> Arc<Shared> {
    let id = bench.engine.clients.next_id();
    let client = Arc::new(Shared::new(id, Link::Tcp, "9.9.9.9:9".into(), "1.2.3.4:6".into(), 10, 0));
    bench.engine.clients.add(client.clone());
    bench.engine.pubsub.subscribe(kind, name.as_bytes(), &client);
    client
}

fn heard(client: &Shared) -> String {
    let mut out = Output::new(Protocol::Resp2);
    client.outbox.drain(&mut out);
    String::from_utf8(out.into_vec()).unwrap().replace("\r\n", "|")
}

#[test]
fn messages_reach_those_who_are_subscribed_each_in_its_protocol() {
    let mut bench = Bench::new();
    let (two, three) = (listener(&bench, Kind::Channel, "c"), listener(&bench, Kind::Pattern, "?"));
    three.outbox.speak(Protocol::Resp3, &mut Output::new(Protocol::Resp2));
    assert_eq!(bench.run("PUBLISH c hello"), ":2|");
    assert_eq!(heard(&two), "*3|$7|message|$1|c|$5|hello|");
    assert_eq!(heard(&three), ">4|$8|pmessage|$1|?|$1|c|$5|hello|");
    assert_eq!(bench.run("PUBLISH cc hello"), ":0|");
    assert_eq!(bench.run("SPUBLISH c hello"), ":0|");
}

#[test]
fn what_is_published_to_oneself_follows_the_reply() {
    let mut bench = Bench::new();
    bench.run("HELLO 3");
    assert_eq!(bench.run("SUBSCRIBE c"), ">3|$9|subscribe|$1|c|:1|");
    assert_eq!(bench.run("PUBLISH c x"), ":1|>3|$7|message|$1|c|$1|x|");
    let replies = String::from_utf8(bench.pipeline(&["PUBLISH c 1", "PING", "PUBLISH c 2", "UNSUBSCRIBE c"])).unwrap();
    assert_eq!(
        replies.replace("\r\n", "|"),
        ":1|>3|$7|message|$1|c|$1|1|+PONG|:1|>3|$7|message|$1|c|$1|2|>3|$11|unsubscribe|$1|c|:0|"
    );
}

#[test]
fn nothing_comes_from_a_channel_behind_the_confirmation_that_it_was_left() {
    let mut bench = Bench::new();
    bench.run("SUBSCRIBE c");
    let shared = bench.session.shared.clone();
    let topic = bench.engine.pubsub.topics(Kind::Channel).find(b"c").unwrap();
    topic.hand_out(|client| _ = client.push("from another worker|".into()));
    assert!(bench.run("UNSUBSCRIBE").starts_with("from another worker|*3|$11|unsubscribe|"));
    assert_eq!(topic.hand_out(|client| _ = client.push("late".into())), 0);
    assert!(shared.outbox.is_empty());
}

#[test]
fn a_subscriber_of_resp2_may_run_but_a_few_commands() {
    let mut bench = Bench::new();
    bench.run("SUBSCRIBE c");
    assert_eq!(
        bench.run("GET a"),
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context|"
    );
    assert_eq!(bench.run("PING"), "*2|$4|pong|$0||");
    assert_eq!(bench.run("PING x"), "*2|$4|pong|$1|x|");
    assert_eq!(bench.run("SSUBSCRIBE s"), "*3|$10|ssubscribe|$1|s|:1|");
    assert_eq!(bench.run("UNSUBSCRIBE c"), "*3|$11|unsubscribe|$1|c|:0|");
    assert!(bench.run("GET a").starts_with("-ERR Can't"));
    assert_eq!(bench.run("RESET"), "+RESET|");
    assert_eq!(bench.run("GET a"), "$-1|");
    assert_eq!(bench.run("PUBSUB SHARDCHANNELS"), "*0|");
}

#[test]
fn who_wants_no_replies_gets_messages_all_the_same() {
    let mut bench = Bench::new();
    bench.run("HELLO 3");
    assert_eq!(bench.run("CLIENT REPLY OFF"), "");
    assert_eq!(bench.run("SUBSCRIBE c"), ">3|$9|subscribe|$1|c|:1|");
    assert_eq!(bench.run("PUBLISH c x"), ">3|$7|message|$1|c|$1|x|");
    assert_eq!(bench.run("PING"), "");
    assert_eq!(bench.run("UNSUBSCRIBE"), ">3|$11|unsubscribe|$1|c|:0|");
    assert_eq!(bench.run("CLIENT REPLY ON"), "+OK|");
    assert_eq!(bench.run("CLIENT REPLY SKIP"), "");
    assert_eq!(bench.run("SUBSCRIBE c"), ">3|$9|subscribe|$1|c|:1|");
    assert_eq!(bench.run("PING"), "+PONG|");
}

#[test]
fn figures_tell_how_many_subscriptions_there_are() {
    let mut bench = Bench::new();
    bench.run("HELLO 3");
    bench.run("SUBSCRIBE a b");
    bench.run("PSUBSCRIBE a* b* c*");
    bench.run("SSUBSCRIBE s");
    assert!(bench.run("CLIENT INFO").contains(" flags=P db=0 sub=2 psub=3 ssub=1 "));
    let stats = bench.run("INFO everything");
    for field in ["pubsub_channels:2", "pubsub_patterns:3", "pubsubshard_channels:1", "pubsub_clients:1"] {
        assert!(stats.contains(&format!("|{field}|")), "{field}");
    }
    let full = bench.session.shared.memory();
    bench.run("RESET");
    assert!(bench.session.shared.memory() < full);
    assert!(bench.run("INFO clients").contains("|pubsub_clients:0|"));
}

#[test]
fn who_is_sent_more_than_it_may_keep_is_closed_by_the_sender() {
    let mut bench = Bench::with("client-output-buffer-limit pubsub 1000 0 0\n");
    let slow = listener(&bench, Kind::Channel, "c");
    let line = format!("PUBLISH c {}", "x".repeat(400));
    let replies = [bench.run(&line), bench.run(&line), bench.run(&line), bench.run(&line)];
    assert_eq!(replies, [":1|", ":1|", ":1|", ":0|"]);
    assert!(slow.is_closing());
    assert!(bench.run("INFO stats").contains("|client_output_buffer_limit_disconnections:1|"));
}

#[test]
fn clients_that_lose_a_channel_are_ended() {
    let mut bench = Bench::new();
    bench.run("ACL SETUSER bob on nopass &a &b* allcommands");
    let (a, b) = (listener(&bench, Kind::Channel, "a"), listener(&bench, Kind::Pattern, "b*"));
    let other = listener(&bench, Kind::Channel, "a");
    [&a, &b].iter().for_each(|client| client.names.lock().user = b"bob".to_vec());
    bench.run("ACL SETUSER bob &c");
    assert!(!a.is_closing() && !b.is_closing());
    bench.run("ACL SETUSER bob resetchannels &a &c");
    assert!(!a.is_closing() && b.is_closing() && !other.is_closing());
    bench.run("ACL SETUSER bob resetchannels");
    assert!(a.is_closing() && !other.is_closing());
}

#[test]
fn what_exec_publishes_follows_its_reply() {
    let mut bench = Bench::new();
    bench.run("HELLO 3");
    bench.run("SUBSCRIBE c d");
    ["MULTI", "PUBLISH c 1", "PING", "UNSUBSCRIBE d", "PUBLISH c 2"].iter().for_each(|line| drop(bench.run(line)));
    assert_eq!(
        bench.run("EXEC"),
        "*4|:1|+PONG|>3|$11|unsubscribe|$1|d|:1|:1|>3|$7|message|$1|c|$1|1|>3|$7|message|$1|c|$1|2|"
    );
}
