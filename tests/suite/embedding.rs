//! A server inside a program: what the library promises to whoever embeds it.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spinel::{Client, Clock, Server, StartError, Value};

use crate::support::client::Client as Remote;

#[allow(dead_code, reason = "it is a program; its `main` is what is run")]
#[path = "../../examples/embedded.rs"]
mod example;

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn error_of(value: &Value) -> String {
    match value {
        Value::Error(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("not an error: {other:?}"),
    }
}

fn refusal(server: Result<Server, StartError>) -> String {
    match server {
        Ok(_) => panic!("the server started"),
        Err(error) => error.to_string(),
    }
}

/// Waits for something that another thread does soon.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn the_example_works() {
    example::main().unwrap();
}

#[test]
fn servers_of_one_program_share_neither_keys_nor_settings_nor_time() {
    let (clock, hands) = Clock::manual(5_000_000);
    let one = Server::builder().directive("databases", "3").directive("maxclients", "7").start().unwrap();
    let two = Server::builder().directive("hz", "50").clock(clock).start().unwrap();
    let (a, b) = (one.client(), two.client());
    a.set("key", "one").unwrap();
    b.set("key", "two").unwrap();
    assert_eq!(a.get("key").unwrap().unwrap(), b"one");
    assert_eq!(b.get("key").unwrap().unwrap(), b"two");
    assert!(a.select(3).is_err() && b.select(3).is_ok());
    assert_eq!((one.config().maxclients, two.config().maxclients), (7, 10000));
    a.execute(&["CONFIG", "SET", "hz", "20"]);
    assert_eq!((one.config().hz, two.config().hz), (20, 50));
    b.execute(&["CONFIG", "RESETSTAT"]);
    hands.set(9_000_000);
    assert_eq!(b.execute(&["TIME"]), Value::Array(vec![bulk("9000"), bulk("0")]));
    assert_ne!(a.execute(&["TIME"]), b.execute(&["TIME"]));
    // The end of one is not the end of the other.
    one.shutdown();
    assert_eq!(b.execute(&["PING"]), Value::Simple(b"PONG".to_vec()));
}

#[test]
fn scripts_are_debugged_over_a_connection_and_never_in_a_copy_of_the_program() {
    let server = Server::builder().start().unwrap();
    let within = server.client();
    for mode in ["YES", "SYNC"] {
        let refused = error_of(&within.execute(&["SCRIPT", "DEBUG", mode]));
        assert!(refused.starts_with("ERR SCRIPT DEBUG needs a connection"), "{refused}");
    }
    let mut remote = Remote::tcp(server.addr().unwrap()).unwrap();
    let refused = String::from_utf8(remote.cmd(&["SCRIPT", "DEBUG", "YES"])).unwrap();
    assert!(refused.starts_with("-ERR SCRIPT DEBUG YES copies the server's process"), "{refused}");
    assert_eq!(remote.cmd(&["EVAL", "return 1", "0"]), b":1\r\n");
    assert_eq!(remote.cmd(&["SCRIPT", "DEBUG", "SYNC"]), b"+OK\r\n");
    assert!(remote.cmd(&["EVAL", "redis.call('set', 'a', 1)\nreturn 1", "0"]).starts_with(b"*2\r\n+* Stopped at 1"));
    // The program does not wait for the client.
    server.shutdown();
    assert_eq!(within.execute(&["GET", "a"]), Value::Error(b"ERR the server was shut down".to_vec()));
}

#[test]
fn a_free_port_is_told_and_can_be_left() {
    let server = Server::builder().start().unwrap();
    let addr = server.addr().unwrap();
    assert!(addr.ip().is_loopback() && addr.port() != 0);
    assert_eq!(server.config().port, addr.port());
    let mut remote = Remote::tcp(addr).unwrap();
    assert_eq!(remote.cmd(&["SET", "a", "1"]), b"+OK\r\n");
    assert_eq!(server.client().get("a").unwrap().unwrap(), b"1");
    // Another free one, found and given back.
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let moved = server.client().execute(&["CONFIG", "SET", "port", &other.port().to_string()]);
    assert_eq!(moved, Value::Simple(b"OK".to_vec()));
    assert_eq!(Remote::tcp(other).unwrap().cmd(&["GET", "a"]), b"$1\r\n1\r\n");
}

#[test]
fn a_port_given_as_a_directive_is_listened_on() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::builder().directive("port", &free.port().to_string()).start().unwrap();
    assert_eq!(server.addr(), Some(free));
    assert_eq!(Server::builder().directive("port", "0").start().unwrap().addr(), None);
}

#[test]
fn without_a_listener_there_is_none_and_none_can_be_opened() {
    let server = Server::builder().no_listener().start().unwrap();
    assert_eq!((server.addr(), server.addrs().len()), (None, 0));
    let client = server.client();
    assert_eq!(client.execute(&["CONFIG", "GET", "port"]), Value::Map(vec![(bulk("port"), bulk("0"))]));
    let refused = error_of(&client.execute(&["CONFIG", "SET", "port", "7000"]));
    assert!(refused.contains("without a listener"), "{refused}");
}

#[test]
fn keys_expire_by_the_clock_that_was_given_whether_they_are_touched_or_not() {
    let (clock, hands) = Clock::manual(1_000_000);
    let server = Server::builder().clock(clock).no_listener().start().unwrap();
    let client = server.client();
    client.set_for("touched", "x", Duration::from_millis(100)).unwrap();
    hands.advance(100);
    assert!(client.exists("touched").unwrap(), "at its deadline a key is still there");
    hands.advance(1);
    assert!(!client.exists("touched").unwrap());
    client.set_for("left alone", "x", Duration::from_secs(3600)).unwrap();
    hands.advance(3_600_001);
    // DBSIZE counts what is there, expired or not: only the timer can have taken it away.
    eventually("the timer's removal", || client.len().unwrap() == 0);
}

#[test]
fn shutdown_by_a_client_ends_the_server_and_not_the_program() {
    let server = Arc::new(Server::builder().start().unwrap());
    let addr = server.addr().unwrap();
    let client = server.client();
    client.set("a", "1").unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let server = server.clone();
            std::thread::spawn(move || server.wait())
        })
        .collect();
    let mut idle = Remote::tcp(addr).unwrap();
    assert_eq!(idle.cmd(&["PING"]), b"+PONG\r\n");
    let mut asking = Remote::tcp(addr).unwrap();
    assert!(asking.ask(&["SHUTDOWN", "NOSAVE"]).is_err(), "no reply, the connection just closes");
    for thread in waiting {
        assert!(thread.join().unwrap().nosave);
    }
    assert!(server.wait().nosave, "whoever comes late is told as well");
    assert!(idle.ask(&["PING"]).is_err());
    assert!(Remote::tcp(addr).is_err());
    assert_eq!(error_of(&client.execute(&["GET", "a"])), "ERR the server was shut down");
    assert!(client.get("a").is_err() && server.client().get("a").is_err());
}

#[test]
fn shutdown_in_process_does_the_same() {
    let server = Server::builder().start().unwrap();
    let client = server.client();
    assert_eq!(client.execute(&["SHUTDOWN", "NONSENSE"]), Value::Error(b"ERR syntax error".to_vec()));
    assert_eq!(client.execute(&["SHUTDOWN", "NOW"]), Value::Nil);
    assert!(server.wait().now);
    server.shutdown();
    assert!(error_of(&client.execute(&["PING"])).contains("shut down"));
}

#[test]
fn a_killed_client_is_told_once_and_begins_anew() {
    let server = Server::builder().no_listener().start().unwrap();
    let (client, other) = (server.client(), server.client());
    client.select(3).unwrap();
    client.set("a", "1").unwrap();
    let id = client.execute(&["CLIENT", "ID"]).as_integer().unwrap();
    assert_eq!(other.execute(&["CLIENT", "KILL", "ID", &id.to_string()]), Value::Integer(1));
    assert_eq!(error_of(&client.execute(&["GET", "a"])), "ERR the client was killed");
    assert_eq!(client.get("a").unwrap(), None, "it is in database 0 again");
    assert!(client.execute(&["CLIENT", "ID"]).as_integer().unwrap() > id);
    let list = other.execute(&["CLIENT", "LIST"]);
    let list = String::from_utf8_lossy(list.as_bytes().unwrap()).into_owned();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(!list.contains(&format!("id={id} ")), "{list}");
}

#[test]
fn words_of_a_browser_are_unknown_commands_where_no_browser_can_be() {
    let server = Server::builder().no_listener().start().unwrap();
    let reply = error_of(&server.client().execute(&["POST", "/"]));
    assert_eq!(reply, "ERR unknown command 'POST', with args beginning with: '/' ");
}

/// The masks of signals that the process catches and ignores.
fn signals() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    status.lines().filter(|l| l.starts_with("SigCgt") || l.starts_with("SigIgn")).map(str::to_owned).collect()
}

#[test]
fn signals_panics_and_the_directory_stay_the_programs_own() {
    let (before, dir) = (signals(), std::env::current_dir().unwrap());
    let server = Server::builder().directive("dir", "/").directive("loglevel", "debug").start().unwrap();
    let mut remote = Remote::tcp(server.addr().unwrap()).unwrap();
    remote.cmd(&["SET", "a", "1"]);
    remote.cmd(&["CONFIG", "SET", "loglevel", "warning", "maxclients", "20000"]);
    // With a real process this is a crash.
    server.client().execute(&["DEBUG", "SEGFAULT"]);
    assert_eq!(signals(), before);
    assert_eq!(std::env::current_dir().unwrap(), dir);
    assert_eq!(before.len(), 2);
}

#[test]
fn one_client_serves_many_threads_and_so_do_its_clones() {
    let server = Server::builder().no_listener().directive("io-threads", "2").start().unwrap();
    let shared = server.client();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (shared, own) = (&shared, shared.clone());
            scope.spawn(move || {
                for i in 0..500 {
                    shared.add("shared", 1).unwrap();
                    own.mset(&[(format!("{thread}:{i}"), "x"), ("last".into(), "x")]).unwrap();
                    if i % 100 == 0 {
                        // Runs alone, against all the others.
                        own.execute(&["SWAPDB", "2", "3"]);
                    }
                }
            });
        }
    });
    assert_eq!(shared.add("shared", 0).unwrap(), 8 * 500);
    assert_eq!(shared.len().unwrap(), 8 * 500 + 2);
}

#[test]
fn a_clone_has_a_database_of_its_own() {
    let server = Server::builder().no_listener().start().unwrap();
    let one = server.client();
    one.select(5).unwrap();
    one.set("a", "1").unwrap();
    let two = one.clone();
    assert_eq!((one.len().unwrap(), two.len().unwrap()), (1, 0));
}

#[test]
fn errors_are_values_and_carry_redis_text() {
    let server = Server::builder().no_listener().start().unwrap();
    let client = server.client();
    let ask = |line: &str| error_of(&client.execute(&line.split(' ').collect::<Vec<_>>()));
    assert_eq!(ask("NOSUCH x"), "ERR unknown command 'NOSUCH', with args beginning with: 'x' ");
    assert_eq!(ask("GET"), "ERR wrong number of arguments for 'get' command");
    client.execute(&["RPUSH", "list", "x"]);
    assert!(ask("GET list").starts_with("WRONGTYPE "));
    assert!(client.get("list").unwrap_err().to_string().starts_with("WRONGTYPE "));
    assert!(client.rename("missing", "x").is_err());
    assert!(client.set_for("a", "x", Duration::ZERO).is_err());
    assert_eq!(error_of(&client.execute::<&str>(&[])), "ERR no command");
    assert!(ask("MONITOR").contains("needs a connection"));
    assert_eq!(client.execute(&["PING"]), Value::Simple(b"PONG".to_vec()), "it goes on after errors");
}

#[test]
fn what_a_client_says_to_its_connection_does_not_end_it() {
    let server = Server::builder().no_listener().directive("requirepass", "sesame").start().unwrap();
    let client = server.client();
    assert_eq!(client.execute(&["QUIT"]), Value::Simple(b"OK".to_vec()));
    client.set("a", "1").unwrap();
    client.execute(&["HELLO", "2"]);
    assert_eq!(client.get("missing").unwrap(), None);
    assert_eq!(client.scan(0, "*", 10).unwrap(), (0, vec![b"a".to_vec()]));
    let listed = client.execute(&["CLIENT", "LIST"]);
    assert!(listed.as_str().unwrap().contains("cmd=client|list"), "{listed:?}");
}

#[test]
fn keys_over_a_large_keyspace_run_to_their_end() {
    let server = Server::builder().no_listener().start().unwrap();
    let client = server.client();
    const KEYS: usize = 30_000;
    let pairs: Vec<(String, &str)> = (0..KEYS).map(|i| (format!("key:{i}"), "x")).collect();
    pairs.chunks(1000).for_each(|some| client.mset(some).unwrap());
    let all = client.keys("*").unwrap();
    assert_eq!((all.len(), client.len().unwrap()), (KEYS, KEYS as i64));
    assert_eq!(client.keys("key:2999?").unwrap().len(), 10);
    let (mut cursor, mut seen) = (0, 0);
    loop {
        let (next, some) = client.scan(cursor, "*", 100).unwrap();
        (cursor, seen) = (next, seen + some.len());
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen, KEYS);
    client.clear().unwrap();
    assert!(client.is_empty().unwrap());
}

#[test]
fn clients_may_outlive_their_server() {
    let server = Server::builder().start().unwrap();
    let addr = server.addr().unwrap();
    let clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    clients[0].set("a", "1").unwrap();
    drop(server);
    assert!(clients.iter().all(|client| client.get("a").is_err()));
    assert!(clients[0].clone().get("a").is_err());
    // The port is free again, for the next one.
    let again = Server::builder().port(addr.port()).start().unwrap();
    assert_eq!(again.client().get("a").unwrap(), None);
}

#[test]
fn a_taken_port_is_a_start_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    match Server::builder().port(port).start() {
        Err(StartError::Listen(number)) => assert_eq!(number, port),
        other => panic!("{:?}", other.map(|_| "it started").map_err(|e| e.to_string())),
    }
    let words = refusal(Server::builder().port(port).start());
    assert_eq!(words, format!("Failed listening on port {port} (tcp), aborting."));
}

#[test]
fn directives_are_refused_in_redis_words() {
    let refused = |name: &str, value: &str| refusal(Server::builder().directive(name, value).start());
    let words = refused("nosuchdirective", "1");
    assert!(words.starts_with("Bad directive or wrong number of arguments"), "{words}");
    assert!(words.contains("nosuchdirective"), "{words}");
    let words = refused("databases", "0");
    assert!(words.starts_with("argument must be between 1 and "), "{words}");
    let words = refused("appendonly", "perhaps");
    assert!(words.starts_with("argument must be 'yes' or 'no'"), "{words}");
    assert!(refused("maxmemory", "\"unbalanced").contains("maxmemory"));
    assert!(refused("include", "/etc/redis/redis.conf").contains("no configuration files"));
    let words = refused("rename-command", "nosuch x");
    assert!(words.starts_with("No such command in rename-command"), "{words}");
    assert!(matches!(Server::builder().directive("hz", "x").config(), Err(StartError::Config(_))));
}

#[test]
fn values_with_blanks_stand_in_quotes_and_line_breaks_begin_nothing() {
    let server = Server::builder().no_listener().directive("requirepass", r#""two words""#).start().unwrap();
    assert_eq!(server.config().requirepass.as_deref(), Some(&b"two words"[..]));
    let builder = Server::builder().no_listener().directive("requirepass", "\"a\nhz 50\"");
    let server = builder.start().unwrap();
    assert_eq!((server.config().requirepass.as_deref(), server.config().hz), (Some(&b"a\nhz 50"[..]), 10));
}

#[test]
fn changes_are_observed_and_the_log_repeats_them() {
    let (clock, hands) = Clock::manual(1_000_000);
    let server = Server::builder().no_listener().clock(clock).start().unwrap();
    let (events, log) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (theirs, bytes) = (events.clone(), log.clone());
    server.observe(move |change| theirs.lock().unwrap().push((change.db, change.event, change.key.clone())));
    server.read_log(Box::new(move |command| bytes.lock().unwrap().extend_from_slice(command)));
    let client = server.client();
    client.set("a", "1").unwrap();
    client.get("a").unwrap();
    client.set_for("b", "2", Duration::from_secs(1)).unwrap();
    client.add("a", 4).unwrap();
    hands.advance(1001);
    eventually("the end of b", || events.lock().unwrap().iter().any(|(_, event, _)| *event == "expired"));
    let events: Vec<(usize, &str, String)> =
        events.lock().unwrap().iter().map(|(db, e, k)| (*db, *e, String::from_utf8_lossy(k).into_owned())).collect();
    let expected =
        [("new", "a"), ("set", "a"), ("new", "b"), ("set", "b"), ("expire", "b"), ("incrby", "a"), ("expired", "b")];
    assert_eq!(events, expected.map(|(event, key)| (0, event, key.to_owned())));

    // Sent to another server, the log makes the same keys.
    let other = Server::builder().start().unwrap();
    let mut remote = Remote::tcp(other.addr().unwrap()).unwrap();
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    remote.send(log.as_bytes()).unwrap();
    for _ in 0..log.matches('*').count() {
        assert!(!remote.reply().unwrap().starts_with(b"-"), "{log}");
    }
    assert_eq!(remote.cmd(&["GET", "a"]), b"$1\r\n5\r\n");
    assert_eq!(other.client().len().unwrap(), 1);
}

#[test]
fn a_server_and_its_clients_go_from_thread_to_thread() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Server>();
    is_shared::<Client>();
}

#[test]
fn a_subscription_receives_what_anyone_publishes() {
    let server = Server::builder().start().unwrap();
    let client = server.client();
    let mut subscription = client.subscribe(&["a", "b"]);
    subscription.psubscribe("a*");
    assert_eq!(subscription.try_recv(), None);
    let mut remote = Remote::tcp(server.addr().unwrap()).unwrap();
    assert_eq!(remote.cmd(&["PUBLISH", "a", "1"]), b":2\r\n");
    assert_eq!(client.publish("b", "2").unwrap(), 1);
    subscription.unsubscribe("b");
    assert_eq!(client.publish("b", "3").unwrap(), 0);
    let message = |channel: &str, pattern: Option<&str>, payload: &str| {
        let pattern = pattern.map(|pattern| pattern.as_bytes().to_vec());
        Some(spinel::Message { channel: channel.into(), pattern, payload: payload.into() })
    };
    assert_eq!(subscription.recv(), message("a", None, "1"));
    assert_eq!(subscription.recv(), message("a", Some("a*"), "1"));
    assert_eq!(subscription.recv(), message("b", None, "2"));
    assert_eq!(subscription.recv_timeout(Duration::from_millis(1)), None);
    let large = "x".repeat(100_000);
    assert_eq!(client.publish("ab", &large).unwrap(), 1);
    assert_eq!(subscription.recv(), message("ab", Some("a*"), &large));
    assert!(error_of(&client.execute(&["SUBSCRIBE", "a"])).contains("Subscription"));
    drop(subscription);
    assert_eq!(client.publish("a", "4").unwrap(), 0);
    assert_eq!(remote.cmd(&["PUBSUB", "CHANNELS"]), b"*0\r\n");
}

#[test]
fn who_waits_for_a_message_learns_that_none_will_come() {
    let server = Server::builder().no_listener().start().unwrap();
    let client = server.client();
    let killed = client.subscribe(&["a"]);
    let waits = client.subscribe(&["a"]);
    let threads = [killed, waits].map(|subscription| std::thread::spawn(move || subscription.count()));
    assert_eq!(client.publish("a", "1").unwrap(), 2);
    assert_eq!(client.execute(&["CLIENT", "KILL", "ID", "2"]), Value::Integer(1));
    let [killed, waits] = threads;
    assert_eq!(killed.join().unwrap(), 1);
    assert_eq!(client.publish("a", "2").unwrap(), 1);
    server.shutdown();
    assert_eq!(waits.join().unwrap(), 2);
}

#[test]
fn a_subscription_that_lets_too_much_wait_is_cut_off() {
    let limit = "normal 0 0 0 pubsub 10000 0 0";
    let server = Server::builder().directive("client-output-buffer-limit", limit).no_listener().start().unwrap();
    let client = server.client();
    let mut slow = client.subscribe(&["a"]);
    let sent = (0..100).take_while(|_| client.publish("a", "x".repeat(1000)).unwrap() == 1).count();
    assert_eq!(sent, 10);
    assert_eq!(slow.by_ref().count(), sent);
}
