//! An unmodified redis-sentinel, three of them, over a Spinel primary and two replicas: the primary is killed, a
//! replica takes its place within the time that is configured, and the old primary comes back as a replica.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::{Server, have, scratch};
use crate::support::watch::eventually;
use crate::tools;

/// A sentinel; dropped, it ends.
struct Sentinel(Child, u16);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Sentinel {
    fn start(dir: &Path, n: usize, primary: u16) -> Sentinel {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        let path = dir.join(format!("sentinel-{n}.conf"));
        let lines = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor gem 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds gem 1000\nsentinel failover-timeout gem 10000\n",
            dir.display()
        );
        std::fs::write(&path, lines).unwrap();
        let child = Command::new("redis-sentinel").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Sentinel(child.unwrap(), port)
    }

    fn ask(&self, words: &[&str]) -> Option<Tree> {
        let mut client = Client::tcp(([127, 0, 0, 1], self.1).into()).ok()?;
        Some(Tree::parse(&client.ask(words).ok()?))
    }

    /// The port of the primary, as it knows it.
    fn primary(&self) -> Option<u16> {
        let tree = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "gem"])?;
        std::str::from_utf8(tree.items().get(1)?.bytes()?).ok()?.parse().ok()
    }

    /// How many of these it knows: replicas, or other sentinels.
    fn knows(&self, what: &str) -> usize {
        self.ask(&["SENTINEL", what, "gem"]).map_or(0, |tree| tree.items().len())
    }
}

/// An application that asks the sentinels for its primary, all the while.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl App {
    /// One on redis-py, once it has begun, where that is installed.
    fn start(sentinels: &[Sentinel]) -> Option<App> {
        let python = tools::clients().join("py/bin/python");
        if !python.exists() {
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/sentinel_app.py");
        let mut command = Command::new(python);
        command.arg(script).args(sentinels.iter().map(|sentinel| sentinel.1.to_string()));
        let mut app = App(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(app.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "counting\n");
        Some(app)
    }

    /// Ends it, once it has written to the primary that there is now; returns what it says.
    fn end(mut self) -> String {
        let mut input = self.0.stdin.take().unwrap();
        input.write_all(b"go on\n").unwrap();
        drop(input);
        let mut said = String::new();
        self.0.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success() && said.contains("everything as expected"), "{said}");
        said
    }
}

/// The reply of a server to a client of its own: Sentinel ends those that are there when a server changes its part.
fn ask(server: &Server, words: &[&str]) -> Option<Vec<u8>> {
    Client::tcp(server.addr()).ok()?.ask(words).ok()
}

/// Whether INFO has these lines.
fn says(server: &Server, lines: &[&str]) -> bool {
    let info = ask(server, &["INFO", "replication"]).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    lines.iter().all(|line| info.lines().any(|told| told == *line))
}

#[test]
fn sentinels_replace_a_primary_that_was_killed() {
    static SAID: Once = Once::new();
    if !have("redis-sentinel", &SAID) {
        return;
    }
    let dir = scratch();
    let args = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "10"];
    let primary = Server::subject(&args);
    let replicas = [Server::subject(&args), Server::subject(&args)];
    replicas.iter().for_each(|replica| super::follow(&mut replica.connect(), &primary));
    let mut ours = primary.connect();
    ours.cmd(&["SET", "a", "1"]);
    assert_eq!(ours.cmd(&["WAIT", "2", "30000"]), b":2\r\n");
    let sentinels: Vec<Sentinel> = (0..3).map(|n| Sentinel::start(&dir, n, primary.port())).collect();
    eventually("the sentinels know each other and the replicas", || {
        sentinels.iter().all(|s| s.knows("REPLICAS") == 2 && s.knows("SENTINELS") == 2)
    });
    let app = App::start(&sentinels);
    let (port, home) = (primary.port(), scratch());
    // Killed, not ended.
    drop(ours);
    drop(primary);
    eventually("another leads", || sentinels.iter().all(|s| s.primary().is_some_and(|now| now != port)));
    let now = sentinels[0].primary().unwrap();
    let leader = replicas.iter().position(|replica| replica.port() == now).expect("one of the replicas leads");
    eventually("it knows that", || says(&replicas[leader], &["role:master"]));
    let follows = [format!("master_port:{now}"), "master_link_status:up".into()];
    let follows = follows.each_ref().map(String::as_str);
    eventually("the other follows it", || says(&replicas[1 - leader], &follows));
    let mut wrote = None;
    eventually("the new primary takes writes", || {
        wrote = ask(&replicas[leader], &["SET", "a", "2"]);
        wrote.is_some()
    });
    assert_eq!(wrote.as_deref(), Some(&b"+OK\r\n"[..]));
    if let Some(app) = app {
        eprint!("{}", app.end());
    }
    // The old primary comes back at its place.
    let back = Server::subject_at(port, &["--dir", home.to_str().unwrap(), "--repl-diskless-sync-delay", "0"]);
    eventually("the old primary follows the new one", || says(&back, &follows));
    eventually("it has everything", || ask(&back, &["GET", "a"]).as_deref() == Some(b"$1\r\n2\r\n"));
    drop(sentinels);
    for dir in [dir, home] {
        let _ = std::fs::remove_dir_all(dir);
    }
}
