//! Slots that move key by key between nodes that have replicas: who knows of that, who waits for whom, and what clients
//! are told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::slot_migration::{cluster, name, text};
use crate::support::client::request;
use crate::support::reply::Tree;
use crate::support::server::Server;
use crate::support::watch::{eventually, info};

/// A key of slot 0.
const KEY: &str = "{06S}";

/// What a node says of slots on their way.
fn open(server: &Server) -> String {
    let lines = text(&mut server.connect(), &["CLUSTER", "NODES"]);
    let mine = lines.lines().find(|line| line.contains("myself")).expect("it knows itself").to_owned();
    mine.find('[').map_or(String::new(), |at| mine[at..].to_owned())
}

fn order(server: &Server, words: &[&str]) -> String {
    let words: Vec<&str> = ["CLUSTER"].iter().chain(words).copied().collect();
    String::from_utf8_lossy(&server.connect().cmd(&words)).trim_end().to_owned()
}

fn replicate(replica: &Server, primary: &Server) {
    let id = name(primary);
    eventually("the primary is known", || order(replica, &["REPLICATE", &id]) == "+OK");
    let mut client = replica.connect();
    eventually("the replica has the data", || info(&mut client, "master_link_status") == "up");
    let (mut theirs, me) = (primary.connect(), name(replica));
    eventually("the primary knows it", || {
        let lines = text(&mut theirs, &["CLUSTER", "NODES"]);
        lines.lines().any(|line| line.starts_with(&me) && line.contains("slave"))
    });
}

/// Becomes a replica that says no more than this of itself, and nothing of how far it is; returns its link.
fn silent_replica(primary: &Server, says: &[&str]) -> BufReader<TcpStream> {
    let mut link = TcpStream::connect(primary.addr()).expect("it listens");
    link.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has a timeout");
    let words: Vec<&str> = ["REPLCONF"].iter().chain(says).copied().collect();
    link.write_all(&request(&words)).expect("it is sent");
    let mut link = BufReader::new(link);
    let mut line = String::new();
    link.read_line(&mut line).expect("it is answered");
    assert_eq!(line, "+OK\r\n");
    link.get_mut().write_all(&request(&["PSYNC", "?", "-1"])).expect("it is sent");
    while !line.starts_with('$') {
        assert!(!line.starts_with('-'), "{line}");
        line.clear();
        link.read_line(&mut line).expect("the data set comes");
    }
    let length: usize = line[1..].trim().parse().expect("its length comes first");
    link.read_exact(&mut vec![0; length]).expect("the data set comes");
    let mut client = primary.connect();
    eventually("it is online", || info(&mut client, "slave0").contains("state=online"));
    link
}

/// The words of the stream up to this one.
fn stream_until(link: &mut BufReader<TcpStream>, word: &str) -> Vec<String> {
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != word) {
        let mut line = String::new();
        assert_ne!(link.read_line(&mut line).expect("the stream goes on"), 0, "the link goes on");
        if !line.starts_with(['*', '$']) {
            words.push(line.trim_end().to_owned());
        }
    }
    words
}

#[test]
fn a_slot_is_set_once_all_replicas_that_understand_it_know_and_at_once_where_one_does_not() {
    let servers = cluster(2, &["--repl-diskless-sync-delay", "0"]);
    let (primary, other) = (&servers[0], name(&servers[1]));
    let goes = format!("[0->-{other}]");
    let mut client = primary.connect();
    for says in [["capa", "psync2"], ["version", "7.2.255"]] {
        let mut link = silent_replica(primary, &says);
        assert_eq!(order(primary, &["SETSLOT", "0", "MIGRATING", &other]), "+OK");
        assert_eq!(open(primary), goes);
        assert_eq!(order(primary, &["SETSLOT", "0", "STABLE", "TIMEOUT", "5"]), "+OK");
        client.cmd(&["SET", KEY, "1"]);
        let words = stream_until(&mut link, "SET");
        assert!(!words.iter().any(|word| word == "SETSLOT"), "{words:?}");
        drop(link);
        eventually("it is gone", || info(&mut client, "connected_slaves") == "0");
    }
    for says in [["capa", "open-slots"], ["version", "8.0.0"]] {
        let mut link = silent_replica(primary, &says);
        let refused = "-NOREPLICAS Not enough good replicas to write.";
        assert_eq!(order(primary, &["SETSLOT", "0", "MIGRATING", &other, "TIMEOUT", "50"]), refused);
        assert_eq!(open(primary), "", "nothing has changed");
        let words = stream_until(&mut link, "GETACK");
        let told = ["CLUSTER", "SETSLOT", "0", "MIGRATING", &other, "REPLCONF", "GETACK"];
        assert!(words.ends_with(&told.map(str::to_owned)), "{words:?}");
        // Nor will it.
        let takes_back = ["CLUSTER", "SETSLOT", "0", "STABLE"].map(str::to_owned);
        assert!(stream_until(&mut link, "STABLE").ends_with(&takes_back));
        // What is wrong is not told to anybody.
        let wrong = order(primary, &["SETSLOT", "0", "MIGRATING", &other, "TIMEOUT", "-1"]);
        assert_eq!(wrong, "-ERR timeout is negative");
        let forever = ["CLUSTER", "SETSLOT", "0", "MIGRATING", &other, "TIMEOUT", "0"];
        // Who asked for it may be gone.
        let mut leaves = primary.connect();
        leaves.send(&request(&forever)).expect("it is sent");
        stream_until(&mut link, "GETACK");
        drop(leaves);
        assert!(stream_until(&mut link, "STABLE").ends_with(&takes_back));
        assert_eq!(open(primary), "");
        let mut waits = primary.connect();
        waits.send(&request(&forever)).expect("it is sent");
        let words = stream_until(&mut link, "GETACK");
        assert_eq!(words.iter().filter(|word| *word == "SETSLOT").count(), 1, "{words:?}");
        assert_eq!(open(primary), "");
        link.get_mut().write_all(&request(&["REPLCONF", "ACK", "1000000"])).expect("it is sent");
        assert_eq!(waits.reply().expect("it is answered"), b"+OK\r\n");
        assert_eq!(open(primary), goes);
        drop(link);
        eventually("it is gone", || info(&mut client, "connected_slaves") == "0");
        assert_eq!(order(primary, &["SETSLOT", "0", "STABLE"]), "+OK");
    }
    assert_eq!(client.cmd(&["REPLCONF", "version", "8.0"]), b"-ERR Unrecognized version format: 8.0\r\n");
}

#[test]
fn a_timeout_comes_last_and_is_a_number() {
    let servers = cluster(2, &[]);
    let other = name(&servers[1]);
    let form = "-ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP";
    let number = "-ERR timeout is not an integer or out of range";
    let cases: &[(&[&str], &str)] = &[
        (&["MIGRATING", &other, "TIMEOUT"], "-ERR Missing timeout value"),
        (&["MIGRATING", &other, "TIMEOUT", "-1"], "-ERR timeout is negative"),
        (&["MIGRATING", &other, "TIMEOUT", "99999999999999999999"], number),
        (&["MIGRATING", &other, "TIMEOUT", "abc"], number),
        (&["TIMEOUT", "100", "MIGRATING", &other], form),
        (&["STABLE", "TIMEOUT", "1", "2"], form),
        (&["STABLE", "timeout", "1"], "+OK"),
    ];
    for (words, reply) in cases {
        let words: Vec<&str> = ["SETSLOT", "0"].iter().chain(*words).copied().collect();
        assert_eq!(order(&servers[0], &words), *reply, "{words:?}");
    }
    assert_eq!(open(&servers[0]), "");
}

#[test]
fn replicas_know_of_slots_on_their_way_answer_as_their_primaries_do_and_go_on_in_their_place() {
    let servers = cluster(4, &["--repl-diskless-sync-delay", "0"]);
    let names: Vec<String> = servers.iter().map(name).collect();
    replicate(&servers[2], &servers[0]);
    replicate(&servers[3], &servers[1]);
    servers[0].connect().cmd(&["SET", &format!("{KEY}here"), "1"]);
    assert_eq!(order(&servers[0], &["SETSLOT", "0", "MIGRATING", &names[1]]), "+OK");
    assert_eq!(order(&servers[1], &["SETSLOT", "0", "IMPORTING", &names[0]]), "+OK");
    let (goes, comes) = (|to: usize| format!("[0->-{}]", names[to]), |from: usize| format!("[0-<-{}]", names[from]));
    // They knew it first.
    assert_eq!((open(&servers[2]), open(&servers[3])), (goes(1), comes(0)));
    let refused = "-ERR Please use SETSLOT only with masters.";
    assert_eq!(order(&servers[2], &["SETSLOT", "0", "STABLE"]), refused);

    let mut reader = servers[2].connect();
    let mut ask = |words: &[&str]| String::from_utf8_lossy(&reader.cmd(words)).trim_end().to_owned();
    let (here, gone) = (format!("{KEY}here"), format!("{KEY}gone"));
    let [home, away] = [0, 1].map(|server: usize| format!("127.0.0.1:{}", servers[server].port()));
    assert_eq!(ask(&["GET", &gone]), format!("-MOVED 0 {home}"));
    assert_eq!(ask(&["READONLY"]), "+OK");
    eventually("it has the key", || ask(&["GET", &here]) == "$1\r\n1");
    assert_eq!(ask(&["GET", &gone]), format!("-ASK 0 {away}"));
    assert_eq!(ask(&["MGET", &here, &gone]), "-TRYAGAIN Multiple keys request during rehashing of slot");
    assert_eq!(ask(&["SET", &here, "2"]), format!("-MOVED 0 {home}"));
    let mut reader = servers[3].connect();
    let mut ask = |words: &[&str]| String::from_utf8_lossy(&reader.cmd(words)).trim_end().to_owned();
    assert_eq!((ask(&["ASKING"]), ask(&["GET", &gone])), ("+OK".into(), format!("-MOVED 0 {home}")));
    assert_eq!(ask(&["READONLY"]), "+OK");
    assert_eq!(ask(&["GET", &gone]), format!("-MOVED 0 {home}"));
    assert_eq!((ask(&["ASKING"]), ask(&["GET", &gone])), ("+OK".into(), "$-1".into()));
    let several = (ask(&["ASKING"]), ask(&["MGET", &here, &gone]));
    assert_eq!(several, ("+OK".into(), "-TRYAGAIN Multiple keys request during rehashing of slot".into()));

    // The replica of the target takes its place, once those who vote know that it is one.
    eventually("everybody knows it as a replica", || {
        servers.iter().all(|server| {
            let nodes = text(&mut server.connect(), &["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.starts_with(&names[3]) && line.contains("slave "))
        })
    });
    assert_eq!(order(&servers[3], &["FAILOVER"]), "+OK");
    eventually("it leads", || text(&mut servers[3].connect(), &["CLUSTER", "NODES"]).contains("myself,master"));
    for (server, expected) in [(0, goes(3)), (2, goes(3)), (3, comes(0)), (1, comes(0))] {
        eventually("it goes to the one that leads there", || open(&servers[server]) == expected);
    }
    // A new one is told with its data set, and knows nobody else yet.
    assert_eq!(order(&servers[2], &["RESET"]), "+OK");
    assert_eq!(open(&servers[2]), "");
    assert_eq!(order(&servers[2], &["MEET", "127.0.0.1", &servers[0].port().to_string()]), "+OK");
    replicate(&servers[2], &servers[0]);
    eventually("it knows", || open(&servers[2]) == goes(3));
    // At the end nothing is on its way any more.
    let mut old = servers[1].connect();
    eventually("the old target follows", || info(&mut old, "master_link_status") == "up");
    assert_eq!(order(&servers[3], &["SETSLOT", "0", "NODE", &names[3], "TIMEOUT", "60000"]), "+OK");
    assert_eq!((open(&servers[3]), open(&servers[1])), (String::new(), String::new()));
    for server in [0, 2] {
        eventually("the source has heard of it", || open(&servers[server]).is_empty());
    }
    let moved = format!("-MOVED 0 127.0.0.1:{}\r\n", servers[3].port());
    assert_eq!(String::from_utf8_lossy(&servers[0].connect().cmd(&["GET", &gone])), moved);
}

#[test]
fn clients_are_told_addresses_of_their_own_family() {
    let servers = cluster(2, &[]);
    for (server, ip) in servers.iter().zip(["1.1.1.1", "2.2.2.2"]) {
        assert_eq!(server.connect().cmd(&["CONFIG", "SET", "cluster-announce-client-ipv4", ip]), b"+OK\r\n");
    }
    let mut client = servers[0].connect();
    eventually("it is told", || text(&mut client, &["CLUSTER", "NODES"]).contains(" 2.2.2.2:"));
    assert!(text(&mut client, &["CLUSTER", "NODES"]).contains(" 1.1.1.1:"));
    for words in [["CLUSTER", "SLOTS"], ["CLUSTER", "SHARDS"]] {
        let reply = client.cmd(&words);
        let told = format!("{:?}", Tree::parse(&reply));
        let said = String::from_utf8_lossy(&reply);
        assert!(said.contains("1.1.1.1") && said.contains("2.2.2.2") && !said.contains("127.0.0.1"), "{told}");
    }
    // A slot of the other.
    let moved = |to: &str| format!("-MOVED 12182 {to}:{}\r\n", servers[1].port());
    assert_eq!(String::from_utf8_lossy(&client.cmd(&["GET", "foo"])), moved("2.2.2.2"));
    for server in &servers {
        let empty = ["CONFIG", "SET", "cluster-announce-client-ipv4", ""];
        assert_eq!(server.connect().cmd(&empty), b"+OK\r\n");
    }
    eventually("it is told", || !text(&mut client, &["CLUSTER", "NODES"]).contains("2.2.2.2"));
    assert_eq!(String::from_utf8_lossy(&client.cmd(&["GET", "foo"])), moved("127.0.0.1"));
}
