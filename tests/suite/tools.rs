//! The programs and libraries that users have: redis-cli, redis-benchmark, redis-py, ioredis; and small applications on
//! what stands on these: BullMQ, Celery, RQ, Redlock.
//!
//! Each test runs where its tool is installed. The libraries are looked for in `clients/` of cargo's
//! target directory, where `.ci/run` installs them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::server::{Server, have, tell};

/// How long a tool may take before it counts as stuck.
const LIMIT: Duration = Duration::from_secs(120);

/// What a tool printed, and how it ended.
struct Done {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Done {
    /// What it printed.
    ///
    /// # Panics
    /// When it failed.
    fn ok(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.out, self.err);
        self.out
    }
}

fn follow(from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = BufReader::new(from).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a tool to its end, or ends it after [`LIMIT`].
fn run(command: &mut Command, input: &[u8]) -> Done {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let out = follow(child.stdout.take().expect("stdout is piped"));
    let err = follow(child.stderr.take().expect("stderr is piped"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A tool may end without having read it all; its exit status tells.
        let _ = stdin.write_all(&input);
    });
    // The end of both outputs is the end of the tool.
    let (done, ended) = channel();
    let reader = std::thread::spawn(move || {
        let texts = (out.join().expect("a reader ends"), err.join().expect("a reader ends"));
        let _ = done.send(());
        texts
    });
    let late = matches!(ended.recv_timeout(LIMIT), Err(RecvTimeoutError::Timeout));
    if late {
        let _ = child.kill();
    }
    let status = child.wait().expect("a child can be waited for");
    let (out, err) = reader.join().expect("a reader ends");
    writer.join().expect("the writer ends");
    assert!(!late, "{what} does not come to an end\n{out}\n{err}");
    Done { status, out, err }
}

fn tool(name: &str, server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &server.port().to_string()]).args(args);
    command
}

fn cli(server: &Server, args: &[&str]) -> String {
    run(&mut tool("redis-cli", server, args), b"").ok()
}

/// A subject with a thousand keys, if there is a redis-cli.
fn filled() -> Option<Server> {
    static SAID: Once = Once::new();
    if !have("redis-cli", &SAID) {
        return None;
    }
    let server = Server::subject(&[]);
    let mut commands = String::new();
    for n in 0..999 {
        let _ = write!(commands, "SET key:{n} {n}\r\n");
    }
    let large = "x".repeat(10_000);
    let _ = write!(commands, "SET \"the large one\" {large}\r\n");
    let said = run(&mut tool("redis-cli", &server, &["--pipe"]), commands.as_bytes()).ok();
    assert!(said.contains("errors: 0, replies: 1000"), "{said}");
    Some(server)
}

/// redis-cli as a person has it before them: on a terminal, which `script` makes.
struct Terminal {
    child: Child,
    pieces: Receiver<Vec<u8>>,
    /// What was shown since the last key was pressed.
    shown: String,
}

impl Terminal {
    fn open(server: &Server) -> Terminal {
        let line = format!("stty cols 200 rows 40; exec redis-cli -h 127.0.0.1 -p {}", server.port());
        let mut child = Command::new("script")
            .args(["-qfc", &line, "/dev/null"])
            .env("TERM", "xterm")
            // What is typed here is nobody's history.
            .env("REDISCLI_HISTFILE", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("script: {e}"));
        let mut out = child.stdout.take().expect("stdout is piped");
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                if sender.send(piece[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, pieces, shown: String::new() }
    }

    fn shows(&mut self, text: &str) {
        let until = Instant::now() + LIMIT;
        while !self.shown.contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.shown.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("the terminal does not show {text:?} ({error}): {:?}", self.shown),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.shown.clear();
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("the terminal takes keys");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn redis_cli_serves_a_person_at_a_terminal() {
    static SAID: Once = Once::new();
    if !have("redis-cli", &SAID) || !have("script", &SAID) {
        return;
    }
    let server = Server::subject(&[]);
    // On a line of its own: what is typed before it has come, redis-cli throws away.
    let prompt = format!("\n127.0.0.1:{}> ", server.port());
    let third = format!("\n127.0.0.1:{}[3]> ", server.port());
    let mut terminal = Terminal::open(&server);
    terminal.shows(prompt.trim_start());
    terminal.press("get ");
    terminal.shows("key\u{1b}[0m");
    // Ctrl-U takes the line back.
    terminal.press("\u{15}SET greeting hello\r");
    terminal.shows("\nOK\r\n");
    terminal.shows(&prompt);
    terminal.press("GET greeting\r");
    terminal.shows("\"hello\"");
    terminal.shows(&prompt);
    terminal.press("SELECT 3\r");
    terminal.shows(&third);
    terminal.press("3 INCR n\r");
    terminal.shows("(integer) 3");
    terminal.shows(&third);
    terminal.press("HELP GET\r");
    terminal.shows("summary:");
    terminal.shows(&third);
    terminal.press("NOSUCH\r");
    terminal.shows("(error) ERR unknown command 'NOSUCH'");
    terminal.shows(&third);
    terminal.press("MONITOR\r");
    terminal.shows("\nOK\r\n");
    let mut other = server.connect();
    assert_eq!(other.cmd(&["SET", "seen", "1"]), b"+OK\r\n");
    terminal.shows("\"SET\" \"seen\" \"1\"");
    // Ctrl-C ends the monitor, or redis-cli with it, by its version.
    terminal.press("\u{3}");
    let until = Instant::now() + LIMIT;
    while String::from_utf8_lossy(&other.cmd(&["CLIENT", "LIST"])).contains(" flags=O ") {
        assert!(Instant::now() < until, "the monitor goes on");
        std::thread::yield_now();
    }
    assert_eq!(other.cmd(&["DBSIZE"]), b":2\r\n");
}

#[test]
fn redis_cli_prints_replies_in_every_form() {
    let Some(server) = filled() else { return };
    assert_eq!(cli(&server, &["GET", "key:7"]), "7\n");
    assert_eq!(cli(&server, &["--no-raw", "GET", "none"]), "(nil)\n");
    assert_eq!(cli(&server, &["--no-raw", "INCR", "key:7"]), "(integer) 8\n");
    assert_eq!(cli(&server, &["--csv", "MGET", "key:1", "none", "key:2"]), "\"1\",NULL,\"2\"\n");
    assert_eq!(cli(&server, &["--json", "MGET", "key:1", "none"]), "[\"1\",null]\n");
    assert_eq!(cli(&server, &["-3", "--no-raw", "GET", "none"]), "(nil)\n");
    assert!(cli(&server, &["-3", "--csv", "HELLO"]).contains("\"proto\",3"));
    assert!(cli(&server, &["-2", "--csv", "HELLO"]).contains("\"proto\",2"));
    assert_eq!(cli(&server, &["-n", "5", "DBSIZE"]), "0\n");
    assert!(cli(&server, &["INFO"]).contains("redis_version:"));
    assert!(cli(&server, &["INFO", "keyspace"]).contains("db0:keys=1000,"));
    let done = run(&mut tool("redis-cli", &server, &["-e", "NONSENSE"]), b"");
    assert!(!done.status.success() && done.err.contains("unknown command"), "{}{}", done.out, done.err);
    let done = run(&mut tool("redis-cli", &server, &["-x", "SET", "from-stdin"]), b"a\0b\r\n");
    assert_eq!(done.ok(), "OK\n");
    assert_eq!(cli(&server, &["STRLEN", "from-stdin"]), "5\n");
    assert_eq!(cli(&server, &["-r", "3", "-i", "0.01", "PING"]), "PONG\nPONG\nPONG\n");
}

#[test]
fn redis_cli_walks_the_keyspace() {
    let Some(server) = filled() else { return };
    let all = cli(&server, &["--scan"]);
    let mut names: Vec<_> = all.lines().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 1000);
    assert_eq!(cli(&server, &["--scan", "--pattern", "key:99?"]).lines().count(), 9);
    let big = cli(&server, &["--bigkeys"]);
    assert!(big.contains("Sampled 1000 keys"), "{big}");
    assert!(big.contains("\"the large one\"' has 10000 bytes"), "{big}");
    let mem = cli(&server, &["--memkeys"]);
    assert!(mem.contains("Sampled 1000 keys") && mem.contains("the large one"), "{mem}");
}

#[test]
fn redis_cli_pipes_a_generated_file() {
    let Some(server) = filled() else { return };
    let mut input = Vec::new();
    for n in 0..20_000 {
        let (key, value) = (format!("pipe:{n}"), "v".repeat(n % 300));
        input.extend(crate::support::client::request(&["SET", &key, &value]));
    }
    input.extend(crate::support::client::request(&["INCR", "pipe:1"]));
    let done = run(&mut tool("redis-cli", &server, &["--pipe"]), &input);
    assert!(done.out.contains("errors: 1, replies: 20001"), "{}{}", done.out, done.err);
    assert_eq!(cli(&server, &["DBSIZE"]), "21000\n");
    assert_eq!(cli(&server, &["STRLEN", "pipe:19999"]), "199\n");
}

#[test]
fn redis_cli_measures_latency() {
    let Some(server) = filled() else { return };
    let line = cli(&server, &["--latency", "-i", "0.1"]);
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    // Minimum, maximum, average, samples.
    assert_eq!(numbers.len(), 4, "{line}");
    assert!(numbers[3] >= 1.0, "{line}");
}

/// A child that never ends by itself.
struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn redis_cli_prints_rolling_statistics() {
    let Some(server) = filled() else { return };
    let mut command = tool("redis-cli", &server, &["--stat", "-i", "0.02"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Endless(child.expect("redis-cli starts"));
    let out = child.0.stdout.take().expect("stdout is piped");
    let (lines, seen) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    // Two lines of headings, then one of figures per interval: keys, memory, clients, ...
    let lines: Vec<String> = (0..4).map_while(|_| seen.recv_timeout(LIMIT).ok()).collect();
    drop((child, seen));
    reader.join().expect("the reader ends with the tool");
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in &lines[2..] {
        assert_eq!(line.split_whitespace().next(), Some("1000"), "{lines:?}");
    }
}

/// Runs redis-benchmark, and wants a figure for every one of its `tests`.
fn benchmark(args: &[&str], tests: &[&str]) {
    static SAID: Once = Once::new();
    if !have("redis-benchmark", &SAID) {
        return;
    }
    let mut server = Server::subject(&[]);
    let done = run(&mut tool("redis-benchmark", &server, &[&["-q"], args].concat()), b"");
    let said = done.out.replace('\r', "\n") + &done.err;
    assert!(done.status.success(), "{}\n{said}", done.status);
    assert!(!said.contains("rror"), "{said}");
    for test in tests {
        let result = said.lines().any(|l| l.starts_with(test) && l.contains("requests per second"));
        assert!(result, "no result of {test} in\n{said}");
    }
    assert!(server.alive());
}

#[test]
fn redis_benchmark_runs_pipelined() {
    benchmark(
        &["-t", "ping_inline,ping_mbulk,set,get,incr,mset", "-n", "20000", "-P", "16"],
        &["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"],
    );
}

#[test]
fn redis_benchmark_runs_with_random_keys() {
    benchmark(&["-t", "set,get", "-n", "20000", "-r", "1000", "-d", "1000"], &["SET", "GET"]);
}

#[test]
fn redis_benchmark_runs_with_threads() {
    benchmark(&["-t", "set,get", "-n", "20000", "-P", "16", "--threads", "2"], &["SET", "GET"]);
}

#[test]
fn redis_benchmark_runs_with_many_connections() {
    benchmark(&["-t", "set,get", "-n", "20000", "-c", "500"], &["SET", "GET"]);
}

/// `clients/` in cargo's target directory, where `.ci/run` installs the client libraries.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target")).join("clients")
}

/// Runs a tour against a new subject, if its libraries are there.
fn tour(needs: &Path, program: impl AsRef<OsStr>, args: &[&str], script: &str, said: &Once) {
    if !needs.exists() {
        let required = std::env::var_os("SPINEL_REQUIRE_ORACLE").is_some_and(|v| v == "1");
        assert!(!required, "SPINEL_REQUIRE_ORACLE=1, but there is no {}", needs.display());
        said.call_once(|| tell(&format!("skipped: no {}", needs.display())));
        return;
    }
    let server = Server::subject(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let mut command = Command::new(program);
    command.args(args).arg(script).arg(server.port().to_string()).env("NODE_PATH", clients().join("js/node_modules"));
    let said = run(&mut command, b"").ok();
    assert!(said.contains("everything as expected"), "{said}");
}

#[test]
fn redis_py_finds_everything_as_expected() {
    static SAID: Once = Once::new();
    let python = clients().join("py/bin/python");
    tour(&python, &python, &["-W", "ignore::DeprecationWarning"], "suite/tools/redis_py_tour.py", &SAID);
}

#[test]
fn ioredis_finds_everything_as_expected() {
    static SAID: Once = Once::new();
    tour(&clients().join("js/node_modules/ioredis"), "node", &[], "suite/tools/ioredis_tour.js", &SAID);
}

#[test]
fn an_order_desk_on_bullmq_finds_everything_as_expected() {
    static SAID: Once = Once::new();
    tour(&clients().join("js/node_modules/bullmq"), "node", &[], "interop/bullmq_app.js", &SAID);
}

/// An application in Python, with the libraries that applications stand on.
fn application(script: &str, said: &Once) {
    let python = clients().join("apps/bin/python");
    tour(&python, &python, &["-W", "ignore"], script, said);
}

#[test]
fn a_kitchen_on_celery_finds_everything_as_expected() {
    static SAID: Once = Once::new();
    application("interop/celery_app.py", &SAID);
}

#[test]
fn a_print_shop_on_rq_finds_everything_as_expected() {
    static SAID: Once = Once::new();
    application("interop/rq_app.py", &SAID);
}

#[test]
fn tills_that_share_an_account_by_redlock_find_everything_as_expected() {
    static SAID: Once = Once::new();
    application("interop/redlock_app.py", &SAID);
}
