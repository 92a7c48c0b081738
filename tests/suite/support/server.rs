//! Server processes: started on a port of their own, awaited by what they log, gone when dropped.
//!
//! A process is ended by its own id only. What it logged is kept, and printed if the test fails.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::Client;

/// How long a server may take to accept connections: an overloaded machine is no failure.
const START: Duration = Duration::from_secs(30);
/// How often another port is tried when somebody else took the one that was free a moment ago.
const PORTS: usize = 8;
/// What every server under test is told, unless the test says otherwise after it.
const ALWAYS: &[&str] = &["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"];

/// A running server process.
pub struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process printed so far, and a bell for those who wait for more.
#[derive(Default)]
struct Log {
    state: Mutex<(String, usize)>,
    more: Condvar,
}

impl Log {
    fn text(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Copies `from` line by line, and counts the streams that have come to their end.
    fn follow(self: &Arc<Log>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            loop {
                line.clear();
                let n = from.read_until(b'\n', &mut line).unwrap_or(0);
                let mut state = log.state.lock().unwrap_or_else(PoisonError::into_inner);
                match n {
                    0 => state.1 += 1,
                    _ => state.0.push_str(&String::from_utf8_lossy(&line)),
                }
                log.more.notify_all();
                if n == 0 {
                    return;
                }
            }
        })
    }

    /// Whether `text` was printed before `deadline` and before the process closed its output.
    fn wait(&self, text: &str, deadline: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.0.contains(text) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.1 == 2 {
                return false;
            }
            state = self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The program under test: what cargo built, or what `SPINEL_SUBJECT` names.
pub fn subject_program() -> OsString {
    std::env::var_os("SPINEL_SUBJECT").unwrap_or_else(|| env!("CARGO_BIN_EXE_spinel-server").into())
}

/// Whether a program of this name is on the `PATH`.
pub fn on_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Whether the tests that need `program` can run; where not, says so once per program.
///
/// # Panics
/// With `SPINEL_REQUIRE_ORACLE=1` a missing program is a failure.
pub fn have(program: &str, said: &Once) -> bool {
    if on_path(program) {
        return true;
    }
    assert!(
        std::env::var_os("SPINEL_REQUIRE_ORACLE").is_none_or(|v| v != "1"),
        "SPINEL_REQUIRE_ORACLE=1, but there is no {program} on PATH"
    );
    said.call_once(|| tell(&format!("skipped: no {program} on PATH")));
    false
}

/// Says something that is seen although the test passes: the harness holds back only what is printed.
pub fn tell(line: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Server {
    /// Starts the subject with `args` after the usual ones.
    ///
    /// Where the first argument is no directive it names the configuration file, which is made and empty.
    pub fn subject(args: &[&str]) -> Server {
        Server::start(&subject_program(), args)
    }

    /// Starts the subject on a port where another server was before.
    pub fn subject_at(port: u16, args: &[&str]) -> Server {
        let server = Server::spawn(&subject_program(), args, port);
        assert!(server.logs("Ready to accept"), "port {port}: {}", server.log.text());
        server
    }

    /// Starts the subject and returns while it is loading its data.
    pub fn subject_that_loads(args: &[&str]) -> Server {
        Server::start_until(&subject_program(), args, "Loading RDB")
    }

    /// Starts a real Redis, if there is one: what `SPINEL_ORACLE` names, or the one on the `PATH`.
    pub fn oracle(args: &[&str]) -> Option<Server> {
        static SAID: Once = Once::new();
        if let Some(program) = std::env::var_os("SPINEL_ORACLE") {
            return Some(Server::start(&program, args));
        }
        have("redis-server", &SAID).then(|| Server::start(&"redis-server".into(), args))
    }

    /// Both, started with the same arguments; `None` where there is no oracle.
    pub fn pair(args: &[&str]) -> Option<(Server, Server)> {
        let oracle = Server::oracle(args)?;
        Some((Server::subject(args), oracle))
    }

    /// Starts `program` on a free port of the loopback and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not: with what it printed.
    fn start(program: &OsString, args: &[&str]) -> Server {
        Server::start_until(program, args, "Ready to accept")
    }

    fn start_until(program: &OsString, args: &[&str], line: &str) -> Server {
        let mut tried = String::new();
        for _ in 0..PORTS {
            let is_node = args.contains(&"--cluster-enabled");
            let server = Server::spawn(program, args, if is_node { free_node_port() } else { free_port() });
            if server.log.wait(line, Instant::now() + START) {
                return server;
            }
            let log = server.log.text();
            let taken = log.contains("Failed listening on port") || log.contains("Address already in use");
            let _ = writeln!(tried, "--- port {}\n{log}", server.port);
            if !taken {
                break;
            }
        }
        panic!("{program:?} {args:?} does not accept connections:\n{tried}");
    }

    fn spawn(program: &OsString, args: &[&str], port: u16) -> Server {
        let dir = scratch();
        let (file, args) = match args {
            [first, rest @ ..] if !first.starts_with("--") => (Some(first), rest),
            _ => (None, args),
        };
        let file = file.map(|name| dir.join(name));
        file.iter().for_each(|path| std::fs::write(path, "").expect("its directory is there"));
        let mut child = Command::new(program)
            .args(&file)
            .args(["--port", &port.to_string(), "--dir"])
            .arg(&dir)
            .args(ALWAYS)
            .args(args)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {program:?}: {e}"));
        let log = Arc::new(Log::default());
        let readers = vec![
            log.follow(child.stdout.take().expect("stdout is piped")),
            log.follow(child.stderr.take().expect("stderr is piped")),
        ];
        Server { child, port, dir, log, readers }
    }

    /// The TCP port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its working directory, removed with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::tcp(self.addr()).unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.addr()))
    }

    /// Whether it says that it is Redis 7.0, whose answers Redis 7.2 changed in places.
    pub fn is_redis_7_0(&self, password: Option<&str>) -> bool {
        let mut client = self.connect();
        if let Some(password) = password {
            client.cmd(&["AUTH", password]);
        }
        String::from_utf8_lossy(&client.cmd(&["INFO", "server"])).contains("redis_version:7.0.")
    }

    /// Whether it prints `text`, or did, within a patience that no healthy server needs.
    pub fn logs(&self, text: &str) -> bool {
        self.log.wait(text, Instant::now() + START)
    }

    /// Whether the process is still there.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The kill reaches this child only: it has not been waited for, so its id is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let log = self.log.text();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- log of the server on port {}", self.port);
            for line in &lines[lines.len().saturating_sub(60)..] {
                eprintln!("{line}");
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port nobody listens on; somebody may by the time it is used, so [`Server::start`] tries again.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("the loopback has a free port").port()
}

/// A port such that nobody listens there, and where the bus of a cluster's node would.
fn free_node_port() -> u16 {
    loop {
        let port = free_port() % 20_000 + 20_000;
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// A new directory for one server, or for the files of several.
pub fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("spinel-suite-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    dir
}
