//! Slots that move as a whole between real nodes, with clients that go on all the while, and what becomes of them where
//! anything goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::Server;
use crate::support::watch::eventually;

/// A key of slot 0, and one of slot 1.
const TAGS: [&str; 2] = ["{06S}", "{Qi}"];
/// What clients may wait for a reply at most while slots are handed over: an overloaded machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that serve all slots between them: the first one the lower half, the second the upper.
pub fn cluster(nodes: usize, more: &[&str]) -> Vec<Server> {
    let mut args = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "15000", "--enable-debug-command", "yes"];
    args.extend(more);
    let servers: Vec<Server> = (0..nodes).map(|_| Server::subject(&args)).collect();
    let halves = [["0", "8191"], ["8192", "16383"]];
    for (server, half) in servers.iter().zip(halves) {
        assert_eq!(server.connect().cmd(&["CLUSTER", "ADDSLOTSRANGE", half[0], half[1]]), b"+OK\r\n");
    }
    for server in &servers[1..] {
        let port = server.port().to_string();
        assert_eq!(servers[0].connect().cmd(&["CLUSTER", "MEET", "127.0.0.1", &port]), b"+OK\r\n");
    }
    for server in &servers {
        let mut client = server.connect();
        eventually("the cluster serves", || {
            let text = text(&mut client, &["CLUSTER", "INFO"]);
            let known = format!("cluster_known_nodes:{nodes}\r");
            text.contains("cluster_state:ok") && text.contains(&known)
        });
        eventually("everybody is connected", || {
            let nodes = text_of(&client.cmd(&["CLUSTER", "NODES"]));
            !nodes.contains("handshake") && !nodes.contains("disconnected")
        });
    }
    servers
}

pub fn text(client: &mut Client, words: &[&str]) -> String {
    text_of(&client.cmd(words))
}

fn text_of(reply: &[u8]) -> String {
    let tree = Tree::parse(reply);
    tree.bytes()
        .map_or_else(|| String::from_utf8_lossy(reply).into_owned(), |b| String::from_utf8_lossy(b).into_owned())
}

pub fn name(server: &Server) -> String {
    text(&mut server.connect(), &["CLUSTER", "MYID"])
}

fn count(server: &Server, slot: &str) -> String {
    text(&mut server.connect(), &["CLUSTER", "COUNTKEYSINSLOT", slot]).trim_start_matches(':').trim().to_owned()
}

/// A field of the newest migration that a node tells of.
fn told(server: &Server, field: &str) -> String {
    let reply = server.connect().cmd(&["CLUSTER", "GETSLOTMIGRATIONS"]);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let mut lines = reply.split("\r\n").filter(|line| !line.starts_with(['$', '*']));
    lines.find(|line| *line == field);
    lines.next().unwrap_or_default().trim_start_matches(':').to_owned()
}

fn move_slots(from: &Server, to: &Server) {
    let words = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "1", "NODE", &name(to)];
    eventually("the slots begin to move", || from.connect().cmd(&words) == b"+OK\r\n");
}

fn debug(server: &Server, switch: &str, on: &str) {
    assert_eq!(server.connect().cmd(&["DEBUG", "SLOTMIGRATION", switch, on]), b"+OK\r\n");
}

/// Asks whoever it is redirected to; returns the reply, which is no redirection.
fn ask(clients: &mut [Client], at: &mut usize, ports: &[u16], words: &[&str]) -> String {
    let began = Instant::now();
    loop {
        let reply = String::from_utf8_lossy(&clients[*at].cmd(words)).into_owned();
        let Some(rest) = reply.strip_prefix("-MOVED ") else { return reply };
        let port: u16 = rest.trim_end().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        *at = ports.iter().position(|known| *known == port).expect("a node that is known");
        assert!(began.elapsed() < PATIENCE, "{words:?}: sent to and fro");
    }
}

/// A client that counts keys of both slots up until it is told to stop, and knows what each must be; returns how many
/// replies it had.
fn count_up(servers: &[Server], number: usize, stop: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let ports: Vec<u16> = servers.iter().map(Server::port).collect();
    let mut clients: Vec<Client> = servers.iter().map(Server::connect).collect();
    clients.iter_mut().for_each(|client| client.patience(PATIENCE).expect("a socket has a timeout"));
    thread::spawn(move || {
        let (mut at, mut values, mut replies) = (0, [[0u64; 20]; 2], 0);
        while !stop.load(Ordering::Relaxed) {
            for key in 0..20 {
                for (values, tag) in values.iter_mut().zip(TAGS) {
                    let name = format!("{tag}:{number}:{key}");
                    values[key] += 1;
                    let reply = ask(&mut clients, &mut at, &ports, &["INCR", &name]);
                    assert_eq!(reply, format!(":{}\r\n", values[key]), "{name}");
                    // Both in one: neither is there without the other.
                    let other = format!("{tag}:{number}:{}", (key + 1) % 20);
                    let reply = ask(&mut clients, &mut at, &ports, &["MGET", &name, &other]);
                    assert!(reply.starts_with("*2\r\n$"), "{reply}");
                    replies += 2;
                }
            }
        }
        replies
    })
}

#[test]
fn clients_lose_nothing_and_are_told_nothing_wrong_while_slots_move_to_and_fro() {
    let servers = cluster(2, &[]);
    let mut filler = servers[0].connect();
    for n in 0..2000 {
        filler.cmd(&["SET", &format!("{}filler:{n}", TAGS[0]), &"x".repeat(n % 300)]);
    }
    filler.cmd(&["RPUSH", &format!("{}list", TAGS[1]), "a", "b", "c"]);
    let fields: Vec<String> = (0..3000).map(|n| format!("field:{n}")).collect();
    for some in fields.chunks(500) {
        let hash = format!("{}hash", TAGS[1]);
        let mut words = vec!["HSET", &hash];
        some.iter().for_each(|field| words.extend([field.as_str(), "v"]));
        filler.cmd(&words);
    }
    filler.cmd(&["SET", &format!("{}expires", TAGS[0]), "v", "EX", "1000"]);
    let stop = Arc::new(AtomicBool::new(false));
    for number in 0..3 {
        // The first values are there before anybody moves anything: MGET finds both keys.
        for (tag, key) in TAGS.iter().flat_map(|tag| (0..20).map(move |key| (tag, key))) {
            filler.cmd(&["SET", &format!("{tag}:{number}:{key}"), "0"]);
        }
    }
    let clients: Vec<_> = (0..3).map(|number| count_up(&servers, number, stop.clone())).collect();
    for turn in 0..4 {
        let (from, to) = (turn % 2, (turn + 1) % 2);
        if turn < 2 {
            move_slots(&servers[from], &servers[to]);
        } else {
            let reply = servers[to].connect().cmd(&["CLUSTER", "MIGRATION", "IMPORT", "0", "1"]);
            assert!(reply.starts_with(b"$40\r\n"), "{}", String::from_utf8_lossy(&reply));
        }
        for server in [&servers[to], &servers[from]] {
            eventually("the slots have moved", || {
                let state = told(server, "state");
                assert!(!["failed", "cancelled"].contains(&&*state), "{state}: {}", told(server, "message"));
                state == "success"
            });
        }
        eventually("the source has no keys left", || {
            count(&servers[from], "0") == "0" && count(&servers[from], "1") == "0"
        });
        assert_eq!(count(&servers[to], "0"), "2061");
        assert_eq!(count(&servers[to], "1"), "62");
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().expect("no client was told anything wrong") > 0);
    }
    let mut client = servers[0].connect();
    assert_eq!(
        client.cmd(&["LRANGE", &format!("{}list", TAGS[1]), "0", "-1"]),
        b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"
    );
    assert_eq!(client.cmd(&["HLEN", &format!("{}hash", TAGS[1])]), b":3000\r\n");
    let left: u64 =
        text(&mut client, &["TTL", &format!("{}expires", TAGS[0])]).trim_start_matches(':').trim().parse().unwrap();
    assert!((1..=1000).contains(&left), "{left}");
}

#[test]
fn what_is_on_its_way_is_seen_by_nobody_and_gone_when_the_move_is_cancelled() {
    let servers = cluster(2, &[]);
    let (source, target) = (&servers[0], &servers[1]);
    let (mut here, mut there) = (source.connect(), target.connect());
    for n in 0..100 {
        here.cmd(&["SET", &format!("{}k:{n}", TAGS[0]), "v"]);
    }
    debug(source, "PREVENT-PAUSE", "1");
    move_slots(source, target);
    eventually("the keys are there", || told(source, "state") == "waiting-to-pause" && count(target, "0") == "100");
    assert_eq!(there.cmd(&["DBSIZE"]), b":0\r\n");
    assert_eq!(there.cmd(&["KEYS", "*"]), b"*0\r\n");
    assert_eq!(there.cmd(&["SCAN", "0", "COUNT", "1000"]), b"*2\r\n$1\r\n0\r\n*0\r\n");
    assert_eq!(there.cmd(&["RANDOMKEY"]), b"$-1\r\n");
    let moved = format!("-MOVED 0 127.0.0.1:{}\r\n", source.port());
    assert_eq!(String::from_utf8_lossy(&there.cmd(&["GET", "{06S}k:1"])), moved);
    // What is changed meanwhile comes after.
    here.cmd(&["DEL", "{06S}k:1", "{06S}k:2"]);
    eventually("the change is there", || count(target, "0") == "98");
    let again = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "1", "1", "NODE", &name(target)];
    assert_eq!(here.cmd(&again), b"-ERR I am already migrating slot 1.\r\n");
    assert_eq!(here.cmd(&["CLUSTER", "CANCELSLOTMIGRATIONS"]), b"+OK\r\n");
    assert_eq!(told(source, "state"), "cancelled");
    eventually("the target gives up", || told(target, "state") == "failed" && count(target, "0") == "0");
    assert_eq!(told(target, "message"), "Connection lost to source");
    assert_eq!(count(source, "0"), "98");
    assert_eq!(here.cmd(&["CLUSTER", "CANCELSLOTMIGRATIONS"]), b"-ERR No migrations ongoing\r\n");
    // And then it goes all the same.
    debug(source, "PREVENT-PAUSE", "0");
    move_slots(source, target);
    eventually("the slots have moved", || told(source, "state") == "success");
    assert_eq!(there.cmd(&["DBSIZE"]), b":98\r\n");
}

#[test]
fn keys_expire_where_the_slot_is_and_nowhere_else() {
    let servers = cluster(2, &[]);
    let (source, target) = (&servers[0], &servers[1]);
    let mut here = source.connect();
    here.cmd(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    here.cmd(&["SET", "{06S}a", "v", "EX", "1000"]);
    debug(source, "PREVENT-PAUSE", "1");
    move_slots(source, target);
    eventually("the key is there", || count(target, "0") == "1");
    assert_eq!(here.cmd(&["PEXPIRE", "{06S}a", "300"]), b":1\r\n");
    eventually("its time is up", || here.cmd(&["EXISTS", "{06S}a"]) == b":0\r\n");
    // Here its time is up as well, but what if it is to live longer there?
    assert_eq!(count(target, "0"), "1");
    here.cmd(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    eventually("it has expired on both", || count(source, "0") == "0" && count(target, "0") == "0");
}

#[test]
fn a_pause_that_leads_to_nothing_ends() {
    let servers = cluster(2, &["--cluster-slot-migration-write-pause-timeout", "300"]);
    let (source, target) = (&servers[0], &servers[1]);
    debug(target, "PREVENT-FAILOVER", "1");
    let mut writer = source.connect();
    writer.cmd(&["SET", "{06S}a", "1"]);
    move_slots(source, target);
    eventually("the slots are granted", || told(source, "state") == "failover-granted");
    let began = Instant::now();
    // Reads and writes to other slots go on; this one waits.
    assert_eq!(source.connect().cmd(&["GET", "{06S}a"]), b"$1\r\n1\r\n");
    assert_eq!(source.connect().cmd(&["SET", "{bar}x", "1"]), b"+OK\r\n");
    assert_eq!(told(source, "state"), "failover-granted", "a write to another slot was held back");
    assert_eq!(writer.cmd(&["SET", "{06S}a", "2"]), b"+OK\r\n");
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(told(source, "state"), "failed");
    assert_eq!(told(source, "message"), "Unpaused before migration completed");
    eventually("the target gives up", || told(target, "state") == "failed" && count(target, "0") == "0");
    debug(target, "PREVENT-FAILOVER", "0");
    move_slots(source, target);
    eventually("the slots have moved", || told(source, "state") == "success");
    let mut there = target.connect();
    eventually("the target serves them", || there.cmd(&["GET", "{06S}a"]) == b"$1\r\n2\r\n");
}

#[test]
fn a_flush_or_a_full_memory_ends_a_move_and_leaves_the_slots_where_they_are() {
    let servers = cluster(2, &[]);
    let (source, target) = (&servers[0], &servers[1]);
    debug(source, "PREVENT-PAUSE", "1");
    let mut here = source.connect();
    for n in 0..50 {
        here.cmd(&["SET", &format!("{{06S}}{n}"), "v"]);
    }
    move_slots(source, target);
    eventually("the keys are there", || told(source, "state") == "waiting-to-pause");
    target.connect().cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    here.cmd(&["SET", "{06S}more", "v"]);
    eventually("no room ends it", || told(source, "state") == "failed" && told(target, "state") == "failed");
    assert!(told(target, "message").contains("OOM"), "{}", told(target, "message"));
    target.connect().cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("the target has nothing", || count(target, "0") == "0");
    assert_eq!(count(source, "0"), "51");
    move_slots(source, target);
    eventually("the keys are there again", || {
        told(source, "state") == "waiting-to-pause" && count(target, "0") == "51"
    });
    here.cmd(&["FLUSHALL"]);
    eventually("a flush ends it", || told(source, "state") == "failed" && told(target, "state") == "failed");
    assert_eq!(told(source, "message"), "Data was flushed");
    eventually("nobody has keys", || count(target, "0") == "0" && count(source, "0") == "0");
}

#[test]
fn a_node_that_dies_leaves_the_other_as_it_was() {
    let mut servers = cluster(2, &["--cluster-require-full-coverage", "no"]);
    debug(&servers[0], "PREVENT-PAUSE", "1");
    let mut here = servers[0].connect();
    for n in 0..50 {
        here.cmd(&["SET", &format!("{{06S}}{n}"), "v"]);
    }
    move_slots(&servers[0], &servers[1]);
    eventually("the keys are there", || told(&servers[0], "state") == "waiting-to-pause");
    let target = servers.remove(1);
    drop(target);
    eventually("the source gives up", || told(&servers[0], "state") == "failed");
    assert_eq!(told(&servers[0], "message"), "Connection lost to target");
    assert_eq!(here.cmd(&["GET", "{06S}7"]), b"$1\r\nv\r\n");
    assert_eq!(here.cmd(&["SET", "{06S}7", "w"]), b"+OK\r\n");
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let servers = cluster(2, &[]);
    let (me, other) = (name(&servers[0]), name(&servers[1]));
    let mut client = servers[0].connect();
    let nobody = "a".repeat(40);
    let cases: &[(&[&str], &str)] = &[
        (&["MIGRATESLOTS"], "ERR wrong number of arguments for 'cluster|migrateslots' command"),
        (&["MIGRATESLOTS", "INVALID", "0", "1"], "ERR syntax error"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0"], "ERR No end slot for final slot range"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "16380", "16388"], "ERR Invalid or out of range slot"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "a", "0"], "ERR No slot ranges specified"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "1", "0"], "ERR Start slot number 1 is greater than end slot number 0"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0", "16383"], "ERR Requested slots span multiple shards"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "3", "6", "0", "5"], "ERR Slot range 0-5 overlaps with previous range 3-6"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0", "0"], "ERR syntax error"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0", "0", "NODE", "blah"], "ERR Invalid node name"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0", "0", "NODE", &nobody], "ERR Unknown node name"),
        (&["MIGRATESLOTS", "SLOTSRANGE", "9000", "9000", "NODE", &me], "ERR Slots are not served by this node."),
        (&["MIGRATESLOTS", "SLOTSRANGE", "0", "0", "NODE", &me], "ERR Target node can not be this node"),
        (
            &["MIGRATESLOTS", "SLOTSRANGE", "1", "1", "NODE", &other, "SLOTSRANGE", "0", "2", "NODE", &other],
            "ERR Slot ranges in migrations overlap",
        ),
        (&["MIGRATION", "IMPORT", "0", "1"], "ERR This node is already the owner of the slot range"),
        (&["MIGRATION", "STATUS", "SOME"], "ERR syntax error"),
        (&["SYNCSLOTS", "PAUSED"], "ERR CLUSTER SYNCSLOTS PAUSED should only be used by slot migration clients"),
    ];
    for (words, error) in cases {
        let all: Vec<&str> = ["CLUSTER"].iter().chain(*words).copied().collect();
        assert_eq!(String::from_utf8_lossy(&client.cmd(&all)), format!("-{error}\r\n"), "{words:?}");
    }
    assert_eq!(client.cmd(&["CLUSTER", "GETSLOTMIGRATIONS"]), b"*0\r\n");
    assert_eq!(client.cmd(&["CLUSTER", "MIGRATION", "STATUS", "ALL"]), b"*0\r\n");
    assert_eq!(client.cmd(&["CLUSTER", "MIGRATION", "CANCEL", "ALL"]), b":0\r\n");
    client.cmd(&["CLUSTER", "SETSLOT", "0", "MIGRATING", &other]);
    let reply = client.cmd(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "5", "5", "NODE", &other]);
    assert_eq!(String::from_utf8_lossy(&reply), "-ERR Slots are being manually migrated\r\n");
}
