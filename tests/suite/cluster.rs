//! Clusters of real processes: made by redis-cli, of Spinel nodes alone and of Spinel and Redis nodes side by side.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::{Server, have, scratch, tell};
use crate::support::watch::figure;

/// How long a cluster may take to agree: an overloaded machine is no failure.
const PATIENCE: Duration = Duration::from_secs(90);
const TIMEOUT_MS: &str = "5000";

/// Which program a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Spinel,
    Redis,
}

fn node(program: Program, more: &[&str]) -> Server {
    let mut args =
        vec!["node.conf", "--cluster-enabled", "yes", "--cluster-node-timeout", TIMEOUT_MS, "--appendonly", "no"];
    args.extend(more);
    match program {
        Program::Spinel => Server::subject(&args),
        Program::Redis => Server::oracle(&args).expect("there is a Redis, or the test would have ended"),
    }
}

fn have_tools() -> bool {
    static SAID: Once = Once::new();
    have("redis-cli", &SAID) && have("redis-server", &SAID)
}

/// Runs redis-cli, and says yes to what it asks; returns whether it succeeded, and all that it said.
fn cli(args: &[&str]) -> (bool, String) {
    let pipe = || Stdio::piped();
    let mut command = Command::new("redis-cli");
    let mut child = command.args(args).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("redis-cli is there");
    // One that asks nothing may have ended already.
    let _ = child.stdin.take().expect("stdin is piped").write_all(b"yes\n");
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs `redis-cli --cluster`, which has to succeed.
fn cluster(args: &[&str]) -> String {
    let all: Vec<&str> = ["--cluster"].iter().chain(args).copied().collect();
    let (ok, text) = cli(&all);
    assert!(ok, "redis-cli --cluster {args:?}: {text}");
    text
}

fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port())
}

fn text(client: &mut Client, words: &[&str]) -> String {
    let reply = Tree::parse(&client.cmd(words));
    String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned()
}

/// The number that a reply is.
fn number(reply: &[u8]) -> usize {
    let text = String::from_utf8_lossy(reply);
    text.trim_start_matches(':').trim_end().parse().expect("the reply is a number")
}

fn name(server: &Server) -> String {
    text(&mut server.connect(), &["CLUSTER", "MYID"])
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_ok(servers: &[Server]) {
    for server in servers {
        let mut client = server.connect();
        until("the cluster serves", || text(&mut client, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }
}

/// Has redis-cli make a cluster of these nodes.
fn create(servers: &[Server], replicas: &str) {
    let addresses: Vec<String> = servers.iter().map(address).collect();
    let mut args = vec!["create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", replicas, "--cluster-yes"]);
    let said = cluster(&args);
    assert!(said.contains("[OK] All 16384 slots covered."), "{said}");
    until_ok(servers);
}

/// A client that follows redirections, as far as a test needs it.
struct Router<'s> {
    servers: &'s [Server],
    clients: Vec<Option<Client>>,
}

impl<'s> Router<'s> {
    fn new(servers: &'s [Server]) -> Router<'s> {
        Router { servers, clients: servers.iter().map(|_| None).collect() }
    }

    fn cmd(&mut self, words: &[&str]) -> String {
        let began = Instant::now();
        let mut at = 0;
        loop {
            let client = self.clients[at].get_or_insert_with(|| self.servers[at].connect());
            let reply = client.ask(words).map(|reply| String::from_utf8_lossy(&reply).into_owned());
            match reply {
                Ok(reply) if reply.starts_with("-MOVED ") => {
                    let port = reply.trim_end().rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
                    at = self
                        .servers
                        .iter()
                        .position(|server| Some(server.port()) == port)
                        .expect("a node that is known");
                }
                Ok(reply) if !reply.starts_with("-CLUSTERDOWN") => return reply,
                other => {
                    assert!(began.elapsed() < PATIENCE, "{words:?}: {other:?}");
                    self.clients[at] = None;
                    at = (at + 1) % self.servers.len();
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

/// Both kinds of clusters that most is asked of.
const KINDS: [[Program; 3]; 2] =
    [[Program::Spinel, Program::Spinel, Program::Spinel], [Program::Spinel, Program::Redis, Program::Spinel]];

#[test]
fn redis_cli_makes_clusters_checks_them_and_asks_all_their_nodes() {
    if !have_tools() {
        return;
    }
    for kind in KINDS {
        let servers: Vec<Server> = kind.iter().map(|program| node(*program, &[])).collect();
        create(&servers, "0");
        let first = address(&servers[0]);
        assert!(cluster(&["check", &first]).contains("[OK] All nodes agree about slots configuration."), "{kind:?}");
        assert!(cluster(&["info", &first]).contains("[OK] 0 keys in 3 masters."));
        assert_eq!(cluster(&["call", &first, "PING"]).matches("PONG").count(), 3);
        let mut router = Router::new(&servers);
        for i in 0..200 {
            assert_eq!(router.cmd(&["SET", &format!("key:{i}"), &i.to_string()]), "+OK\r\n");
        }
        for i in 0..200 {
            let value = i.to_string();
            assert_eq!(router.cmd(&["GET", &format!("key:{i}")]), format!("${}\r\n{value}\r\n", value.len()));
        }
        let keys: usize = servers.iter().map(|server| number(&server.connect().cmd(&["DBSIZE"]))).sum();
        assert_eq!(keys, 200, "each key is on one node");
        assert!(cluster(&["info", &first]).contains("[OK] 200 keys in 3 masters."));
    }
}

#[test]
fn redis_cli_mends_clusters_fills_them_and_keeps_copies() {
    if !have_tools() {
        return;
    }
    for kind in KINDS {
        let servers: Vec<Server> = kind.iter().map(|program| node(*program, &[])).collect();
        create(&servers, "0");
        let first = address(&servers[0]);
        // Keys of a server that is no node.
        let source = Server::subject(&[]);
        let mut client = source.connect();
        for i in 0..300 {
            client.cmd(&["RPUSH", &format!("list:{i}"), "a", &i.to_string()]);
        }
        cluster(&["import", &first, "--cluster-from", &address(&source), "--cluster-copy"]);
        let mut router = Router::new(&servers);
        for i in 0..300 {
            let text = i.to_string();
            let wanted = format!("*2\r\n$1\r\na\r\n${}\r\n{text}\r\n", text.len());
            assert_eq!(router.cmd(&["LRANGE", &format!("list:{i}"), "0", "-1"]), wanted, "{kind:?}");
        }
        assert_eq!(client.cmd(&["DBSIZE"]), b":300\r\n", "the source has its own still");
        let said = cluster(&["set-timeout", &first, "7000"]);
        assert!(said.contains("3 OK, 0 ERR"), "{kind:?}: {said}");
        for server in &servers {
            let told = Tree::parse(&server.connect().cmd(&["CONFIG", "GET", "cluster-node-timeout"]));
            assert_eq!(told.items()[1].bytes(), Some(&b"7000"[..]));
        }
        // Each node's keys, and who has which slots.
        let dir = scratch();
        cluster(&["backup", &first, dir.to_str().unwrap()]);
        let files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        let copies = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "rdb"));
        assert_eq!((copies.clone().count(), files.len()), (3, 4), "{files:?}");
        for copy in copies {
            let found = Command::new("redis-check-rdb").arg(copy).output().expect("it is there with redis-server");
            assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
        }
        std::fs::remove_dir_all(&dir).unwrap();
        // A slot that nobody serves, and one that is on a way which leads nowhere.
        let owners = ["0", "8000"].map(|slot| {
            let mine = |server: &&Server| {
                let nodes = text(&mut server.connect(), &["CLUSTER", "NODES"]);
                let line = nodes.lines().find(|line| line.contains("myself")).expect("it lists itself").to_owned();
                let slot: usize = slot.parse().unwrap();
                line.split(' ').skip(8).any(|range| covers(range, slot))
            };
            servers.iter().find(mine).expect("every slot has its node")
        });
        for server in &servers {
            server.connect().cmd(&["CLUSTER", "DELSLOTS", "0"]);
        }
        let other = servers.iter().find(|server| server.port() != owners[1].port()).expect("there are three");
        let said = owners[1].connect().cmd(&["CLUSTER", "SETSLOT", "8000", "MIGRATING", &name(other)]);
        assert_eq!(said, b"+OK\r\n");
        assert!(!cli(&["--cluster", "check", &first]).0, "{kind:?}: that is an error");
        cluster(&["fix", &first]);
        until("all is well again", || cli(&["--cluster", "check", &first]).0);
        until_ok(&servers);
        assert_eq!(router.cmd(&["DEL", "list:1"]), ":1\r\n");
    }
}

/// Whether a word of CLUSTER NODES, `5` or `5-10`, holds a slot.
fn covers(range: &str, slot: usize) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    first.parse().is_ok_and(|first: usize| first <= slot) && last.parse().is_ok_and(|last: usize| slot <= last)
}

#[test]
fn messages_come_to_the_clients_of_all_nodes() {
    if !have_tools() {
        return;
    }
    for kind in KINDS {
        let servers: Vec<Server> = kind.iter().map(|program| node(*program, &[])).collect();
        create(&servers, "0");
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let mut listener = servers[to].connect();
            // A channel of its own: what was sent on another may still be on its way.
            let channel = format!("news:{from}");
            listener.cmd(&["SUBSCRIBE", &channel]);
            let message = format!("{from} to {to}");
            servers[from].connect().cmd(&["PUBLISH", &channel, &message]);
            let heard = listener.reply().expect("the message comes");
            assert!(String::from_utf8_lossy(&heard).contains(&message));
        }
    }
}

#[test]
fn a_node_is_itself_again_after_a_restart_and_nobody_else_uses_its_file() {
    if !have_tools() {
        return;
    }
    let servers = [node(Program::Spinel, &[]), node(Program::Spinel, &[]), node(Program::Spinel, &[])];
    create(&servers, "0");
    let file = servers[0].dir().join("nodes.conf");
    let written = std::fs::read_to_string(&file).expect("the node has a file");
    assert!(written.contains("myself,master") && written.contains("vars currentEpoch"), "{written}");
    let dir = servers[0].dir().to_str().expect("it has a plain name").to_owned();
    // The lock is the file's: another server in the same directory does not start.
    let (ok, said) = {
        let output = Command::new(crate::support::server::subject_program())
            .args(["--port", "0", "--dir", &dir, "--cluster-enabled", "yes", "--save", "", "--port", "20001"])
            .args(["--bind", "127.0.0.1"])
            .stdin(Stdio::null())
            .output()
            .expect("the server is there");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(!ok && said.contains("is already used by a different Redis Cluster node"), "{said}");
    let copy: PathBuf = crate::support::server::scratch();
    std::fs::copy(&file, copy.join("nodes.conf")).expect("the file is there");
    let again = node(Program::Spinel, &["--dir", copy.to_str().expect("it has a plain name")]);
    assert_eq!(name(&again), name(&servers[0]));
    let _ = std::fs::remove_dir_all(&copy);
}

#[test]
fn a_replica_goes_on_where_it_stopped_when_it_was_started_anew() {
    let dir = scratch();
    let more = ["--dir", dir.to_str().expect("it has a plain name"), "--repl-diskless-sync-delay", "0"];
    let (primary, mut replica) = (node(Program::Spinel, &more[2..]), node(Program::Spinel, &more));
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    ours.cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    ours.cmd(&["CLUSTER", "MEET", "127.0.0.1", &replica.port().to_string()]);
    let id = name(&primary);
    until("it follows", || theirs.cmd(&["CLUSTER", "REPLICATE", &id]).starts_with(b"+OK"));
    until("it has the data", || text(&mut theirs, &["INFO", "replication"]).contains("master_link_status:up"));
    until("the cluster serves", || text(&mut ours, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    ours.cmd(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    ours.cmd(&["SET", "brief", "1", "PX", "1"]);
    ours.cmd(&["SET", "a", "1"]);
    until("it has what was written", || theirs.cmd(&["DBSIZE"]) == b":2\r\n");
    let _ = theirs.ask(&["SHUTDOWN", "SAVE"]);
    until("it has ended", || !replica.alive());
    ours.cmd(&["SET", "b", "1"]);
    let mut args = vec!["node.conf", "--cluster-enabled", "yes", "--cluster-node-timeout", TIMEOUT_MS];
    args.extend(more);
    let replica = Server::subject_at(replica.port(), &args);
    let mut theirs = replica.connect();
    until("it has what came meanwhile", || theirs.cmd(&["DBSIZE"]) == b":3\r\n");
    assert_eq!((figure(&mut ours, "sync_full"), figure(&mut ours, "sync_partial_ok")), (1, 1));
    // Expired keys are for the primary to remove.
    assert_eq!(ours.cmd(&["EXISTS", "brief"]), b":0\r\n");
    until("so it does", || theirs.cmd(&["DBSIZE"]) == b":2\r\n");
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn clients_that_wait_are_sent_after_their_slot() {
    if !have_tools() {
        return;
    }
    let servers = [node(Program::Spinel, &[]), node(Program::Redis, &[]), node(Program::Spinel, &[])];
    create(&servers, "0");
    let mut client = servers[0].connect();
    let reply = text(&mut client, &["CLUSTER", "NODES"]);
    let mine = reply.lines().find(|line| line.contains("myself")).expect("it knows itself");
    let slot =
        mine.split(' ').next_back().and_then(|range| range.split('-').next()).expect("it serves slots").to_owned();
    // A key of that slot.
    let key = (0..)
        .map(|i| format!("k{i}"))
        .find(|key| Some(number(&client.cmd(&["CLUSTER", "KEYSLOT", key]))) == slot.parse().ok());
    let key = key.expect("some key has it");
    let mut waits = servers[0].connect();
    waits.send(&crate::support::client::request(&["BLPOP", &key, "0"])).expect("it is sent");
    let mut listens = servers[0].connect();
    assert!(listens.cmd(&["SSUBSCRIBE", &key]).starts_with(b"*3"));
    until("it waits", || text(&mut client, &["INFO", "clients"]).contains("blocked_clients:1"));
    let to = name(&servers[1]);
    assert_eq!(servers[1].connect().cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]), b"+OK\r\n");
    assert_eq!(client.cmd(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]), b"+OK\r\n");
    let moved = waits.reply().expect("it is told");
    let expected = format!("-MOVED {slot} 127.0.0.1:{}\r\n", servers[1].port());
    assert_eq!(String::from_utf8_lossy(&moved), expected);
    let left = listens.reply().expect("it is told, too");
    assert!(String::from_utf8_lossy(&left).contains("sunsubscribe"), "{}", left.escape_ascii());
}

/// Adds a replica of `servers[primary]` to its cluster.
fn add_replica(servers: &[Server], primary: usize, replica: &Server) {
    let (new, known, id) = (address(replica), address(&servers[primary]), name(&servers[primary]));
    let said = cluster(&["add-node", &new, &known, "--cluster-slave", "--cluster-master-id", &id]);
    assert!(said.contains("[OK] New node added correctly."), "{said}");
    let mut client = replica.connect();
    until("the replica has the data", || text(&mut client, &["INFO", "replication"]).contains("master_link_status:up"));
    // Others have to know it before they can vote for it.
    let me = name(replica);
    for server in servers {
        let mut client = server.connect();
        let knows = |line: &str| line.starts_with(&me) && line.contains("slave");
        until("all know the replica", || text(&mut client, &["CLUSTER", "NODES"]).lines().any(knows));
    }
}

fn is_primary(server: &Server) -> bool {
    let mut client = server.connect();
    let text = text(&mut client, &["CLUSTER", "NODES"]);
    text.lines().any(|line| line.contains("myself,master"))
}

/// Has a replica take the place of its primary, with that one's consent. A primary that has yet to learn that the replica
/// is its own ignores it, so it is asked again.
fn fail_over(servers: &[Server], from: usize, to: usize) {
    let mut asked: Option<Instant> = None;
    until("the replica is the primary", || {
        if asked.is_none_or(|at| at.elapsed() > Duration::from_secs(6)) && !is_primary(&servers[to]) {
            servers[to].connect().cmd(&["CLUSTER", "FAILOVER"]);
            asked = Some(Instant::now());
        }
        is_primary(&servers[to]) && !is_primary(&servers[from])
    });
}

/// Sees to it that all replicas have what was written, or nearly so: their offsets are those of their primaries.
fn until_copied(primary: &Server, replica: &Server) {
    let offset = |server: &Server, field: &str| {
        let info = text(&mut server.connect(), &["INFO", "replication"]);
        info.lines().find_map(|line| line.strip_prefix(field).map(str::to_owned))
    };
    until("the replica has read all", || {
        let theirs = offset(replica, "slave_repl_offset:");
        theirs.is_some() && theirs == offset(primary, "master_repl_offset:")
    });
}

fn write_keys(servers: &[Server], round: usize) {
    let mut router = Router::new(servers);
    for i in 0..120 {
        assert_eq!(router.cmd(&["SET", &format!("key:{round}:{i}"), &i.to_string()]), "+OK\r\n");
    }
}

fn check_keys(servers: &[Server], rounds: usize) {
    let mut router = Router::new(servers);
    for round in 0..rounds {
        for i in 0..120 {
            let value = i.to_string();
            let reply = router.cmd(&["GET", &format!("key:{round}:{i}")]);
            assert_eq!(reply, format!("${}\r\n{value}\r\n", value.len()), "key:{round}:{i}");
        }
    }
}

#[test]
fn a_spinel_replica_takes_over_from_a_redis_primary_and_gives_back() {
    if !have_tools() {
        return;
    }
    let mut servers = vec![node(Program::Spinel, &[]), node(Program::Redis, &[]), node(Program::Spinel, &[])];
    create(&servers, "0");
    write_keys(&servers, 0);
    let replica = node(Program::Spinel, &[]);
    add_replica(&servers, 1, &replica);
    servers.push(replica);
    write_keys(&servers, 1);
    fail_over(&servers, 1, 3);
    until_ok(&servers);
    write_keys(&servers, 2);
    check_keys(&servers, 3);
    until_copied(&servers[3], &servers[1]);
    fail_over(&servers, 3, 1);
    until_ok(&servers);
    write_keys(&servers, 3);
    check_keys(&servers, 4);
    // A replica reads for those who say that this is enough.
    until_copied(&servers[1], &servers[3]);
    let mut reader = servers[3].connect();
    let mine = text(&mut servers[1].connect(), &["RANDOMKEY"]);
    assert!(reader.cmd(&["GET", &mine]).starts_with(b"-MOVED "));
    assert_eq!(reader.cmd(&["READONLY"]), b"+OK\r\n");
    assert!(reader.cmd(&["GET", &mine]).starts_with(b"$"));
    assert!(reader.cmd(&["SET", &mine, "1"]).starts_with(b"-MOVED "));
}

#[test]
fn replicas_take_the_place_of_primaries_that_have_died_whatever_program_they_are() {
    if !have_tools() {
        return;
    }
    for (primary, replica) in
        [(Program::Spinel, Program::Spinel), (Program::Spinel, Program::Redis), (Program::Redis, Program::Spinel)]
    {
        let mut servers = vec![node(primary, &[]), node(Program::Spinel, &[]), node(Program::Spinel, &[])];
        create(&servers, "0");
        write_keys(&servers, 0);
        let replica = node(replica, &[]);
        add_replica(&servers, 0, &replica);
        until_copied(&servers[0], &replica);
        // It is ended by being dropped.
        servers[0] = replica;
        until("the replica is the primary", || is_primary(&servers[0]));
        until_ok(&servers);
        check_keys(&servers, 1);
        write_keys(&servers, 1);
        check_keys(&servers, 2);
    }
}

#[test]
fn a_redis_replica_is_told_nothing_of_slots_on_their_way_and_follows_all_the_same() {
    if !have_tools() {
        return;
    }
    let servers: Vec<Server> = (0..3).map(|_| node(Program::Spinel, &[])).collect();
    create(&servers, "0");
    let other = name(&servers[1]);
    let set = |slot: &str| {
        let words = ["CLUSTER", "SETSLOT", slot, "MIGRATING", &other];
        assert_eq!(servers[0].connect().cmd(&words), b"+OK\r\n", "slot {slot}");
    };
    let replica = node(Program::Redis, &[]);
    let mut client = replica.connect();
    let port = servers[0].port().to_string();
    assert_eq!(client.cmd(&["CLUSTER", "MEET", "127.0.0.1", &port]), b"+OK\r\n");
    // This one stands in the data set.
    set("0");
    let primary = name(&servers[0]);
    until("it knows its primary", || client.cmd(&["CLUSTER", "REPLICATE", &primary]) == b"+OK\r\n");
    until("it has the data", || text(&mut client, &["INFO", "replication"]).contains("master_link_status:up"));
    set("1");
    until_copied(&servers[0], &replica);
    let info = text(&mut client, &["INFO", "everything"]);
    assert!(info.contains("master_link_status:up") && info.contains("unexpected_error_replies:0"), "{info}");
    assert!(!text(&mut client, &["CLUSTER", "NODES"]).contains("->-"));
}

#[test]
fn redis_cli_moves_slots_with_their_keys_between_programs() {
    if !have_tools() {
        return;
    }
    let servers = [node(Program::Spinel, &[]), node(Program::Redis, &[]), node(Program::Spinel, &[])];
    create(&servers, "0");
    for round in 0..3 {
        write_keys(&servers, round);
    }
    let first = address(&servers[0]);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (from, to) = (name(&servers[from]), name(&servers[to]));
        cluster(&[
            "reshard",
            &first,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            "300",
            "--cluster-yes",
        ]);
        check_keys(&servers, 3);
    }
    assert!(cluster(&["check", &first]).contains("[OK] All 16384 slots covered."));
    // A node without slots gets its share, and is taken out again.
    let fourth = node(Program::Spinel, &[]);
    cluster(&["add-node", &address(&fourth), &first]);
    let mut servers = Vec::from(servers);
    servers.push(fourth);
    let new = name(&servers[3]);
    for server in &servers {
        let mut client = server.connect();
        let knows = |line: &str| line.starts_with(&new) && !line.contains("handshake");
        until("all know the new node", || text(&mut client, &["CLUSTER", "NODES"]).lines().any(knows));
    }
    until_ok(&servers);
    until("all agree", || cli(&["--cluster", "check", &first]).0);
    cluster(&["rebalance", &first, "--cluster-use-empty-masters", "--cluster-threshold", "1"]);
    until("all agree", || cli(&["--cluster", "check", &first]).0);
    check_keys(&servers, 3);
    assert!(number(&servers[3].connect().cmd(&["DBSIZE"])) > 0, "the new node has a share of the keys");
    let id = name(&servers[3]);
    cluster(&["rebalance", &first, "--cluster-weight", &format!("{id}=0"), "--cluster-threshold", "1"]);
    until("all agree", || cli(&["--cluster", "check", &first]).0);
    cluster(&["del-node", &first, &id]);
    servers.pop();
    check_keys(&servers, 3);
}

#[test]
fn a_primary_that_is_asked_to_hands_over_before_it_ends() {
    if !have_tools() {
        return;
    }
    let mut servers: Vec<Server> =
        (0..4).map(|_| node(Program::Spinel, &["--repl-diskless-sync-delay", "0"])).collect();
    create(&servers[..3], "0");
    add_replica(&servers, 0, &servers[3]);
    until_ok(&servers);
    let (mut heir, mut writer) = (servers[3].connect(), servers[0].connect());
    for n in 0..500 {
        assert_eq!(writer.cmd(&["SET", &format!("{{06S}}{n}"), "v"]), b"+OK\r\n");
    }
    let began = Instant::now();
    assert!(writer.ask(&["SHUTDOWN", "NOSAVE", "FAILOVER"]).is_err(), "the connection just closes");
    until("the primary has ended", || !servers[0].alive());
    // It has not been missed for as long as it takes to notice that a node has failed.
    assert!(text(&mut heir, &["INFO", "replication"]).contains("role:master"), "nobody has taken over");
    eprintln!("handed over and ended within {:?}", began.elapsed());
    until("the replica serves", || heir.cmd(&["SET", "{06S}new", "v"]) == b"+OK\r\n");
    assert_eq!(number(&heir.cmd(&["DBSIZE"])), 501);
}

/// Counters that redis-py and ioredis count up, with redis-benchmark beside them, while slots move and a primary hands
/// over; the output tells how long clients waited.
#[test]
fn applications_on_redis_py_and_ioredis_see_no_wrong_answer_while_the_cluster_changes() {
    static SAID: Once = Once::new();
    let python = crate::tools::clients().join("py/bin/python");
    if !have_tools() {
        return;
    }
    if !python.exists() {
        SAID.call_once(|| tell(&format!("skipped: no {}", python.display())));
        return;
    }
    let servers: Vec<Server> = (0..4).map(|_| node(Program::Spinel, &["--repl-diskless-sync-delay", "0"])).collect();
    create(&servers[..3], "0");
    let primary = name(&servers[0]);
    let (replica, known) = (address(&servers[3]), address(&servers[0]));
    cluster(&["add-node", &replica, &known, "--cluster-slave", "--cluster-master-id", &primary]);
    let mut client = servers[3].connect();
    until("the replica has all", || text(&mut client, &["INFO", "replication"]).contains("master_link_status:up"));
    until_ok(&servers);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/cluster_app.py");
    let ports = servers.iter().map(|server| server.port().to_string());
    let mut command = Command::new(python);
    let node_modules = crate::tools::clients().join("js/node_modules");
    if node_modules.join("ioredis").exists() {
        command.env("NODE_PATH", node_modules);
    }
    let output = command.args(["-W", "ignore", script]).args(ports).output().expect("python runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("everything as expected"), "{said}");
    eprint!("{said}");
}
