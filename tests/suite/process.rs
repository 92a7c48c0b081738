//! The server as a process: command line, files, signals, exit codes, the report of a crash.
//!
//! Most of these servers listen on a Unix socket in a directory of their own, so that no port can be
//! taken by somebody else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::server::{Server, subject_program, tell};

/// A patience that no healthy server needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that is gone with its test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("spinel-process-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn client(&self) -> Client {
        Client::unix(&self.path("socket")).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, in a directory, told nothing.
fn program(dir: &Dir) -> Command {
    let mut command = Command::new(subject_program());
    command.current_dir(&dir.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program told to listen on the directory's socket only.
fn server(dir: &Dir) -> Command {
    let mut command = program(dir);
    command.args(LISTEN);
    command
}

const LISTEN: &[&str] = &["--port", "0", "--unixsocket", "socket", "--save", "", "--enable-debug-command", "yes"];

/// Runs a program that ends by itself.
fn end(command: &mut Command) -> (Output, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// A process, and what it prints.
struct Process {
    child: Child,
    lines: Receiver<String>,
    log: String,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let mut process = Process::spawn(command);
        process.wait_for("Ready to accept");
        process
    }

    fn spawn(command: &mut Command) -> Process {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
        Process { child, lines, log: String::new() }
    }

    /// Waits until `text` was printed; searches what came since the start.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.log.push_str(&line),
                Err(error) => panic!("{text:?} is not printed ({error}):\n{}", self.log),
            }
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end; returns how it ended and all it printed.
    fn ended(mut self) -> (ExitStatus, String) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push_str(&line);
        }
        let status = self.child.try_wait().unwrap().or_else(|| self.child.wait().ok()).unwrap();
        (status, std::mem::take(&mut self.log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has not been waited for, or the id is known to be done with: only this child can be meant.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}

/// Tries until something is there.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8_lossy(&reply).into_owned()
}

/// The value of one directive.
fn config(client: &mut Client, name: &str) -> String {
    text(client.cmd(&["CONFIG", "GET", name])).split("\r\n").nth(4).unwrap_or_default().to_owned()
}

#[test]
fn it_tells_its_version_its_usage_and_what_the_system_is_like() {
    let dir = Dir::new();
    for (word, said) in [("--version", " v="), ("-v", " v="), ("--help", "Usage:"), ("-h", "Usage:")] {
        let (output, out, err) = end(program(&dir).arg(word));
        assert!(output.status.success() && out.contains(said) && err.is_empty(), "{word}: {out}{err}");
    }
    let (output, out, _) = end(program(&dir).arg("--check-system"));
    assert!(out.lines().all(|line| line.starts_with('[')), "{out}");
    assert_eq!(output.status.success(), !out.contains("WARNING"), "{out}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused_with_its_line() {
    let dir = Dir::new();
    let file = dir.write("bad.conf", "# one\nport 0\nmaxmemory lots\n");
    let (output, out, err) = end(program(&dir).arg(&file));
    assert_eq!(output.status.code(), Some(1));
    assert!(out.is_empty(), "{out}");
    for part in ["*** FATAL CONFIG FILE ERROR", "Reading the configuration file, at line 3", ">>> 'maxmemory lots'"] {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    for (old, new, reason) in
        [("NOSUCH", "X", "No such command in rename-command"), ("GET", "SET", "Target command name already exists")]
    {
        let file = dir.write("bad.conf", &format!("port 0\nrename-command PING PONG\nrename-command {old} {new}\n"));
        let (output, _, err) = end(program(&dir).arg(&file));
        assert_eq!(output.status.code(), Some(1));
        let told = format!("the configuration file, at line 3\n>>> 'rename-command {old} {new}'\n{reason}\n");
        assert!(err.contains(&told), "{err}");
    }
    let (output, _, err) = end(program(&dir).args(["--port", "6379", "6380"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("'port \"6379\" \"6380\"'") && err.contains("wrong number of arguments"), "{err}");
}

#[test]
fn file_included_file_standard_input_and_options_follow_each_other() {
    let dir = Dir::new();
    dir.write("more.conf", "maxmemory 3mb\ntimeout 3\n");
    let file = dir.write("a.conf", "maxmemory 2mb\ninclude more.conf\nhz 20\n");
    let mut process =
        Process::spawn(program(&dir).arg(&file).args(LISTEN).args(["--hz", "30", "-"]).stdin(Stdio::piped()));
    process.child.stdin.take().unwrap().write_all(b"tcp-keepalive 77\n").unwrap();
    process.wait_for("Ready to accept");
    let mut client = dir.client();
    for (name, value) in [("maxmemory", "3145728"), ("timeout", "3"), ("hz", "30"), ("tcp-keepalive", "77")] {
        assert_eq!(config(&mut client, name), value, "{name}");
    }
}

#[test]
fn a_port_in_use_ends_the_start() {
    let dir = Dir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (output, out, _) = end(program(&dir).args(["--port", &port, "--bind", "127.0.0.1", "--pidfile", "pid"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains(&format!("Failed listening on port {port}")), "{out}");
    assert!(!dir.path("pid").exists());
}

#[test]
fn who_could_be_reached_by_nobody_does_not_start() {
    for how in [&["--port", "0"][..], &["--port", "23099", "--bind", ""]] {
        let dir = Dir::new();
        let (output, out, _) = end(program(&dir).args(how).args(["--pidfile", "pid"]));
        assert_eq!(output.status.code(), Some(1), "{how:?}");
        assert!(out.contains("# Configured to not listen anywhere, exiting."), "{out}");
        assert!(!dir.path("pid").exists());
    }
}

#[test]
fn who_is_told_to_load_a_module_does_not_start() {
    let dir = Dir::new();
    let (output, out, _) = end(server(&dir).args(["--loadmodule", "/none.so", "argument"]));
    assert_eq!(output.status.code(), Some(1));
    let lines = ["Module /none.so failed to load: ", "Can't load module from /none.so: server aborting"];
    assert!(lines.iter().all(|line| out.contains(line)), "{out}");
}

#[test]
fn who_has_seen_enough_of_the_help_is_no_reason_to_panic() {
    let dir = Dir::new();
    let mut child = program(&dir).arg("--help").spawn().unwrap();
    // Nobody reads.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn sigterm_and_sigint_end_it_cleanly_and_sighup_does_nothing() {
    for name in ["TERM", "INT"] {
        let dir = Dir::new();
        let process = Process::start(server(&dir).args(["--pidfile", "pid", "--unixsocketperm", "700"]));
        assert_eq!(dir.read("pid").trim(), process.child.id().to_string());
        let mode = std::fs::metadata(dir.path("socket")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        process.signal("HUP");
        assert_eq!(dir.client().cmd(&["PING"]), b"+PONG\r\n");
        process.signal(name);
        let (status, log) = process.ended();
        assert!(status.success(), "{status}: {log}");
        for part in
            [&format!("Received SIG{name} scheduling shutdown..."), "Removing the pid file.", "ready to exit, bye bye"]
        {
            assert!(log.contains(part), "no {part:?} in {log}");
        }
        assert!(!dir.path("pid").exists() && !dir.path("socket").exists());
    }
}

#[test]
fn the_socket_is_given_to_a_group_by_name_or_number_and_back() {
    let dir = Dir::new();
    let _process = Process::start(&mut server(&dir));
    let group = || std::fs::metadata(dir.path("socket")).unwrap().gid();
    let mut client = dir.client();
    let own = group();
    // Who may do everything may give it to any group, others to their own.
    let other = if std::fs::metadata("/proc/self").unwrap().uid() == 0 { own + 1 } else { own };
    assert_eq!(client.cmd(&["CONFIG", "SET", "unixsocketgroup", &other.to_string()]), b"+OK\r\n");
    assert_eq!(group(), other);
    assert_eq!(
        client.cmd(&["CONFIG", "SET", "unixsocketgroup", "no such group"]),
        b"-ERR CONFIG SET failed (possibly related to argument 'unixsocketgroup') - Can't change the group of the socket: entity not found\r\n"
    );
    assert_eq!(group(), other);
    assert_eq!(client.cmd(&["CONFIG", "SET", "unixsocketgroup", ""]), b"+OK\r\n");
    assert_eq!(group(), own);
}

#[test]
fn a_shutdown_by_signal_can_be_called_off_until_the_timers_run() {
    let dir = Dir::new();
    let mut process = Process::start(&mut server(&dir));
    let mut client = dir.client();
    assert_eq!(client.cmd(&["SHUTDOWN", "ABORT"]), b"-ERR No shutdown in progress.\r\n");
    assert_eq!(client.cmd(&["DEBUG", "PAUSE-CRON", "1"]), b"+OK\r\n");
    process.signal("TERM");
    process.wait_for("Received SIGTERM");
    eventually("the shutdown is not called off", || (client.cmd(&["SHUTDOWN", "ABORT"]) == b"+OK\r\n").then_some(()));
    process.wait_for("Shutdown manually aborted");
    assert_eq!(client.cmd(&["DEBUG", "PAUSE-CRON", "0"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
    process.signal("TERM");
    assert!(process.ended().0.success());
}

#[test]
fn a_second_sigint_ends_it_at_once() {
    let dir = Dir::new();
    let mut process = Process::start(&mut server(&dir));
    assert_eq!(dir.client().cmd(&["DEBUG", "PAUSE-CRON", "1"]), b"+OK\r\n");
    process.signal("INT");
    process.wait_for("Received SIGINT scheduling shutdown...");
    process.signal("INT");
    let (status, log) = process.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("You insist... exiting now.") && !log.contains("bye bye"), "{log}");
}

#[test]
fn a_second_sigint_ends_the_last_save_and_leaves_nothing_of_it() {
    let dir = Dir::new();
    let mut process = Process::start(server(&dir).args(["--save", "900 1", "--rdb-key-save-delay", "100000000"]));
    let temporary = dir.path(&format!("temp-{}.rdb", process.child.id()));
    assert_eq!(dir.client().cmd(&["SET", "key", "value"]), b"+OK\r\n");
    process.signal("INT");
    process.wait_for("Saving the final RDB snapshot before exiting.");
    eventually("nothing is saved", || temporary.exists().then_some(()));
    process.signal("INT");
    let (status, log) = process.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("You insist... exiting now."), "{log}");
    assert!(!temporary.exists() && !dir.path("dump.rdb").exists());
}

#[test]
fn what_is_being_written_in_the_background_is_gone_with_the_server() {
    for (command, name) in [("BGSAVE", "temp-bgsave-{}.rdb"), ("BGREWRITEAOF", "temp-rewriteaof-bg-{}.aof")] {
        let dir = Dir::new();
        let process = Process::start(&mut server(&dir));
        let temporary = dir.path(&name.replace("{}", &process.child.id().to_string()));
        let mut client = dir.client();
        client.cmd(&["DEBUG", "POPULATE", "20000"]);
        client.cmd(&["CONFIG", "SET", "rdb-key-save-delay", "100000"]);
        assert!(client.cmd(&[command]).starts_with(b"+"));
        eventually("nothing is written", || temporary.exists().then_some(()));
        client.send(&crate::support::client::request(&["SHUTDOWN", "NOSAVE"])).unwrap();
        let (status, log) = process.ended();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!temporary.exists(), "{log}");
    }
}

#[test]
fn what_is_logged_follows_a_changed_loglevel() {
    let dir = Dir::new();
    let mut process = Process::start(&mut server(&dir));
    let mut client = dir.client();
    // A protocol error is told to the log where it is verbose.
    let err = |first: &[u8]| {
        let mut broken = UnixStream::connect(dir.path("socket")).unwrap();
        broken.set_read_timeout(Some(PATIENCE)).unwrap();
        broken.write_all(&[b"*1\r\n", first, b"\r\n"].concat()).unwrap();
        let mut reply = Vec::new();
        broken.read_to_end(&mut reply).unwrap();
        assert!(reply.starts_with(b"-ERR Protocol error: expected '$'"), "{}", reply.escape_ascii());
    };
    err(b"a");
    assert_eq!(client.cmd(&["CONFIG", "SET", "loglevel", "verbose"]), b"+OK\r\n");
    err(b"b");
    process.wait_for("got 'b'");
    assert_eq!(client.cmd(&["CONFIG", "SET", "loglevel", "warning"]), b"+OK\r\n");
    err(b"c");
    process.signal("TERM");
    let (status, log) = process.ended();
    assert!(status.success());
    // What is no warning is left out from there on, the farewell too; the signal is one.
    assert!(log.contains("Received SIGTERM"), "{log}");
    assert!(!log.contains("got 'a'") && !log.contains("got 'c'") && !log.contains("Removing"), "{log}");
}

/// The socket of the system's log, where the system has none and lets us have it.
struct SystemLog(UnixDatagram);

impl SystemLog {
    const PATH: &str = "/dev/log";

    fn take() -> Option<SystemLog> {
        let socket = UnixDatagram::bind(Self::PATH).ok()?;
        let log = SystemLog(socket);
        log.0.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(log)
    }
}

impl Drop for SystemLog {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Self::PATH);
    }
}

#[test]
fn syslog_gets_the_same_lines_under_its_name_and_facility() {
    let Some(log) = SystemLog::take() else {
        tell("skipped: the system has a log of its own");
        return;
    };
    let dir = Dir::new();
    let told = ["--syslog-enabled", "yes", "--syslog-ident", "spinel-suite", "--syslog-facility", "local3"];
    let process = Process::start(server(&dir).args(told));
    let ident = format!(" spinel-suite[{}]: ", process.child.id());
    let mut message = [0; 2048];
    loop {
        let n = log.0.recv(&mut message).unwrap();
        let message = String::from_utf8_lossy(&message[..n]).into_owned();
        // Others may use the system's log at the same time.
        if message.contains(&ident) && message.contains("Ready to accept") {
            // Facility local3 is 19, a notice is 5.
            assert!(message.starts_with("<157>"), "{message}");
            return;
        }
    }
}

#[test]
fn shutdown_ends_it_whatever_else_it_is_told() {
    for words in [&["SHUTDOWN"][..], &["SHUTDOWN", "NOSAVE"], &["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]] {
        let dir = Dir::new();
        let process = Process::start(&mut server(&dir));
        assert!(dir.client().ask(words).is_err());
        let (status, log) = process.ended();
        assert!(status.success() && log.contains("User requested shutdown"), "{words:?}: {status}: {log}");
    }
}

#[test]
fn a_log_file_that_is_moved_away_is_opened_anew() {
    let dir = Dir::new();
    let mut command = server(&dir);
    command.args(["--logfile", dir.path("log").to_str().unwrap()]);
    let process = Process::spawn(&mut command);
    eventually("nothing is logged", || {
        std::fs::read_to_string(dir.path("log")).ok().filter(|log| log.contains("Ready to accept"))
    });
    std::fs::rename(dir.path("log"), dir.path("log.1")).unwrap();
    process.signal("TERM");
    let (status, printed) = process.ended();
    assert!(status.success() && printed.is_empty(), "{printed}");
    assert!(dir.read("log").contains("bye bye"));
    assert!(!dir.read("log.1").contains("bye bye"));
}

#[test]
fn a_daemon_goes_on_in_the_background() {
    let dir = Dir::new();
    let status = server(&dir)
        .args(["--daemonize", "yes", "--pidfile", "pid", "--logfile", dir.path("log").to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let mut client = eventually("the daemon does not listen", || Client::unix(&dir.path("socket")).ok());
    let info = text(client.cmd(&["INFO", "server"]));
    assert!(info.contains(&format!("process_id:{}\r\n", dir.read("pid").trim())), "{info}");
    assert!(client.ask(&["SHUTDOWN", "NOSAVE"]).is_err());
    eventually("the daemon does not end", || (!dir.path("pid").exists()).then_some(()));
}

#[test]
fn systemd_is_told_that_it_is_ready() {
    let dir = Dir::new();
    let socket = UnixDatagram::bind(dir.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _process =
        Process::start(server(&dir).args(["--supervised", "systemd"]).env("NOTIFY_SOCKET", dir.path("notify")));
    let mut told = [0; 256];
    let n = socket.recv(&mut told).unwrap();
    assert!(told[..n].starts_with(b"READY=1"), "{}", told[..n].escape_ascii());
}

#[test]
fn it_keeps_to_the_cores_that_it_is_given() {
    let allowed = |server: &Server| {
        let pid = String::from_utf8_lossy(&server.connect().cmd(&["INFO", "server"])).into_owned();
        let pid = pid.split("process_id:").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap().to_owned();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .flatten()
            .filter_map(|task| {
                // One that ends meanwhile has no name any more.
                let name = std::fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
                let status = std::fs::read_to_string(task.path().join("status")).ok()?;
                let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned();
                Some((name, list))
            })
            .collect::<Vec<_>>()
    };
    let everywhere = allowed(&Server::subject(&[]));
    let first = everywhere[0].1.split(['-', ',']).next().unwrap().to_owned();
    let last = everywhere[0].1.rsplit(['-', ',']).next().unwrap().to_owned();
    let kept = Server::subject(&["--server-cpulist", &first, "--bio-cpulist", &last, "--appendonly", "yes"]);
    let is_kept = |(name, list): &(String, String)| match name.as_str() {
        "aof" => *list == last,
        // The allocator has threads of its own.
        name => name.starts_with("jemalloc") || *list == first,
    };
    // Each thread sees to it by itself when it begins.
    eventually("some thread is elsewhere", || allowed(&kept).iter().all(is_kept).then_some(()));
    let nowhere = Server::subject(&["--bgsave-cpulist", "1000"]);
    assert!(nowhere.logs("The cores of bgsave-cpulist cannot be kept to"));
    assert!(allowed(&nowhere).iter().all(|(_, list)| *list == everywhere[0].1));
}

#[test]
fn its_title_is_made_of_the_template() {
    let dir = Dir::new();
    let file = dir.write("t.conf", "proc-title-template \"TEST {title} {port} {unixsocket} {config-file}\"\n");
    let process = Process::start(program(&dir).arg(&file).args(LISTEN));
    let title = std::fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    let title = String::from_utf8_lossy(&title).trim_end_matches('\0').to_owned();
    let words: Vec<&str> = title.split(' ').collect();
    let program = subject_program().into_string().unwrap();
    assert_eq!(words, ["TEST", &program, "0", "socket", file.to_str().unwrap()]);
}

#[test]
fn a_rewritten_file_keeps_its_comments_and_what_is_not_a_parameter() {
    let dir = Dir::new();
    let file = dir.write("r.conf", "# mine\nhz 20\nrename-command FLUSHALL gone\nrename-command KEYS \"\"\n# end\n");
    let process = Process::start(program(&dir).arg(&file).args(LISTEN));
    let mut client = dir.client();
    assert!(client.cmd(&["FLUSHALL"]).starts_with(b"-ERR unknown command"));
    assert!(client.cmd(&["KEYS", "*"]).starts_with(b"-ERR unknown command"));
    assert_eq!(client.cmd(&["GONE"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["CONFIG", "SET", "hz", "25"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["CONFIG", "REWRITE"]), b"+OK\r\n");
    let text = dir.read("r.conf");
    for line in ["# mine", "hz 25", "# end"] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in {text}");
    }
    process.signal("TERM");
    assert!(process.ended().0.success());
    // What was written starts a server that is the same.
    let _process = Process::start(program(&dir).arg(&file));
    assert_eq!(dir.client().cmd(&["GONE"]), b"+OK\r\n");
    assert!(dir.client().cmd(&["KEYS", "*"]).starts_with(b"-ERR unknown command"));
}

#[test]
fn the_number_of_clients_fits_the_number_of_files() {
    let dir = Dir::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]).arg(subject_program()).args(LISTEN);
    shell.current_dir(&dir.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(&mut shell);
    process.wait_for("maxclients is reduced to 96");
    assert_eq!(config(&mut dir.client(), "maxclients"), "96");
}

/// Sends a command after which there is no server; returns how it ended and its log.
fn crash(args: &[&str], die: impl FnOnce(&Process, &mut Client)) -> (ExitStatus, String) {
    let dir = Dir::new();
    let process = Process::start(server(&dir).args(args));
    die(&process, &mut dir.client());
    process.ended()
}

#[test]
fn a_crash_is_reported_with_command_backtrace_and_info() {
    let segv = |_: &Process, client: &mut Client| {
        assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
        assert!(client.ask(&["DEBUG", "SEGFAULT"]).is_err());
    };
    let (status, log) = crash(&["--hide-user-data-from-log", "no"], segv);
    assert_eq!(status.signal(), Some(11), "{log}");
    let parts = [
        "BUG REPORT START",
        "crashed by signal: 11",
        "command: debug, argc: 2",
        "argv[1]: \"SEGFAULT\"",
        "STACK TRACE",
        "# Server",
        "run_id:",
        "used_memory:",
        "cmdstat_ping:calls=1",
        "BUG REPORT END",
    ];
    let mut rest = log.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in {log}"));
        rest = &rest[at..];
    }
    // By default the log has no data of users.
    let (_, log) = crash(&[], segv);
    assert!(log.contains("command: debug, argc: 2") && !log.contains("argv["), "{log}");
}

#[test]
fn a_fault_from_outside_and_a_panic_are_reported_too() {
    let (status, log) = crash(&[], |process, _| process.signal("SEGV"));
    assert_eq!(status.signal(), Some(11));
    assert!(log.contains("crashed by signal: 11") && log.contains("BUG REPORT END"), "{log}");
    let (status, log) = crash(&[], |_, client| assert!(client.ask(&["DEBUG", "PANIC"]).is_err()));
    assert_eq!(status.signal(), Some(6));
    assert!(log.contains("ASSERTION FAILED") && log.contains("BUG REPORT END"), "{log}");
}

#[test]
fn an_assertion_may_exit_and_the_report_has_the_context_that_was_given() {
    let args = ["--use-exit-on-panic", "yes", "--debug-context", "the fourth try"];
    let (status, log) = crash(&args, |_, client| assert!(client.ask(&["DEBUG", "PANIC"]).is_err()));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("debug-context: the fourth try") && log.contains("BUG REPORT END"), "{log}");
}

#[test]
fn an_alarm_shows_what_threads_are_doing_and_so_does_a_worker_that_is_late() {
    let dir = Dir::new();
    let mut process = Process::start(server(&dir).args(["--io-threads", "2"]));
    let (mut client, mut other) = (dir.client(), dir.client());
    process.signal("ALRM");
    process.wait_for("STACK TRACE DONE");
    let said = std::mem::take(&mut process.log);
    assert!(said.contains("Received SIGALRM") && said.contains(": worker-0") && said.contains(": worker-1"), "{said}");
    assert!(said.contains("epoll"), "{said}");
    assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
    assert_eq!(client.cmd(&["CONFIG", "SET", "watchdog-period", "200"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["DEBUG", "SLEEP", "0.6"]), b"+OK\r\n");
    process.wait_for("STACK TRACE DONE");
    let said = std::mem::take(&mut process.log);
    assert!(said.contains("WATCHDOG TIMER EXPIRED") && said.contains(", at work"), "{said}");
    assert!(said.contains("sleep") && said.contains("dispatch"), "{said}");
    assert_eq!(other.cmd(&["CONFIG", "SET", "watchdog-period", "0"]), b"+OK\r\n");
    assert_eq!(other.cmd(&["PING"]), b"+PONG\r\n");
}

#[test]
fn a_bad_directory_and_a_missing_file_end_the_start() {
    let dir = Dir::new();
    let missing = Path::new("missing.conf");
    let (output, _, err) = end(program(&dir).arg(missing));
    assert!(!output.status.success() && err.contains("missing.conf"), "{err}");
    let (output, out, err) = end(server(&dir).args(["--dir", "missing"]));
    assert!(!output.status.success() && format!("{out}{err}").contains("missing"), "{out}{err}");
}

/// What a server with this ACL file says before it ends.
fn refused_acl_file(text: &str) -> String {
    let dir = Dir::new();
    dir.write("users.acl", text);
    let (output, out, err) = end(server(&dir).args(["--aclfile", "users.acl"]));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    out
}

#[test]
fn users_are_loaded_from_their_file_and_saved_to_it() {
    let dir = Dir::new();
    let file = dir.write("users.acl", "user alice on >secret ~a* +@all -acl\nuser bob on nopass +ping (+get ~b)\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let process = Process::start(server(&dir).args(["--aclfile", "users.acl"]));
    let (mut client, mut alice, mut bob) = (dir.client(), dir.client(), dir.client());
    assert_eq!(alice.cmd(&["AUTH", "alice", "secret"]), b"+OK\r\n");
    assert_eq!(bob.cmd(&["AUTH", "bob", ""]), b"+OK\r\n");
    assert_eq!(alice.cmd(&["SET", "b", "1"]), b"-NOPERM No permissions to access a key\r\n");
    assert_eq!(bob.cmd(&["GET", "b"]), b"$-1\r\n");
    // What is set is lost by LOAD, unless it was saved.
    assert_eq!(client.cmd(&["ACL", "SETUSER", "alice", "+acl|whoami"]), b"+OK\r\n");
    assert_eq!(alice.cmd(&["ACL", "WHOAMI"]), b"$5\r\nalice\r\n");
    assert_eq!(client.cmd(&["ACL", "LOAD"]), b"+OK\r\n");
    assert!(alice.cmd(&["ACL", "WHOAMI"]).starts_with(b"-NOPERM "));
    assert_eq!(client.cmd(&["ACL", "SETUSER", "alice", "+acl|whoami"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["ACL", "SAVE"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["ACL", "LOAD"]), b"+OK\r\n");
    assert_eq!(alice.cmd(&["ACL", "WHOAMI"]), b"$5\r\nalice\r\n");
    let saved = dir.read("users.acl");
    let lines: Vec<&str> = saved.lines().collect();
    assert!(lines[0].starts_with("user alice on sanitize-payload #") && lines[0].ends_with(" +@all -acl +acl|whoami"));
    assert_eq!(lines[2], "user default on nopass sanitize-payload ~* &* +@all");
    assert!(!saved.contains("secret") && lines.len() == 3, "{saved}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 2, "only the file and the socket");
    // One bad line, and nothing of the file is taken over.
    dir.write("users.acl", "user alice on nopass +@all\nuser carol on\nuser carol nosuch\nuser dave +nosuch\n");
    assert_eq!(
        text(client.cmd(&["ACL", "LOAD"])),
        "-ERR users.acl:3: Syntax error. WARNING: Duplicate user 'carol' found on line 3. "
            .replace("users.acl:3: Syntax error. ", "")
            + "users.acl:4: Error in applying operation '+nosuch': Unknown command or category name in ACL. WARNING: ACL \
               errors detected, no change to the previously active ACL rules was performed\r\n"
    );
    assert_eq!(client.cmd(&["ACL", "USERS"]), b"*3\r\n$5\r\nalice\r\n$3\r\nbob\r\n$7\r\ndefault\r\n");
    // Who is not in the file any more is closed; the others stay.
    dir.write("users.acl", &saved.lines().filter(|line| !line.contains("bob")).collect::<Vec<_>>().join("\n"));
    assert_eq!(client.cmd(&["ACL", "LOAD"]), b"+OK\r\n");
    assert!(bob.rest().unwrap().is_empty());
    assert_eq!(alice.cmd(&["ACL", "WHOAMI"]), b"$5\r\nalice\r\n");
    // The file goes: LOAD says so, and SAVE makes it anew.
    std::fs::remove_file(&file).unwrap();
    let error = text(client.cmd(&["ACL", "LOAD"]));
    assert_eq!(error, "-ERR Error loading ACLs, opening file 'users.acl': No such file or directory\r\n");
    assert_eq!(client.cmd(&["ACL", "SAVE"]), b"+OK\r\n");
    process.signal("TERM");
    assert!(process.ended().0.success());
    let _process = Process::start(server(&dir).args(["--aclfile", "users.acl"]));
    assert_eq!(dir.client().cmd(&["AUTH", "alice", "secret"]), b"+OK\r\n");
}

#[test]
fn users_that_cannot_be_used_end_the_start() {
    for (file, reason) in [
        ("user alice on nosuch\n", "users.acl:1: Syntax error. "),
        ("# comment\n", "users.acl:1 should start with user keyword followed by the username. "),
        ("user a\nuser a\n", "WARNING: Duplicate user 'a' found on line 2. "),
    ] {
        let out = refused_acl_file(file);
        assert!(out.contains(&format!("because of ACL errors: {reason}WARNING: ACL errors detected")), "{out}");
    }
    let dir = Dir::new();
    let (output, out, _) = end(server(&dir).args(["--aclfile", "missing.acl"]));
    assert!(output.status.code() == Some(1) && out.contains("opening file 'missing.acl': No such file"), "{out}");
    dir.write("users.acl", "");
    let (output, out, _) = end(server(&dir).args(["--aclfile", "users.acl", "--user", "bob", "on"]));
    assert!(output.status.code() == Some(1) && out.contains("but not both"), "{out}");
    let (output, out, _) = end(server(&dir).args(["--user", "bob", "on", "+nosuch"]));
    assert!(output.status.code() == Some(1), "{out}");
    assert!(out.contains("Error loading ACL rule '+nosuch' for the user named 'bob': Unknown command"), "{out}");
    let (output, _, err) = end(server(&dir).args(["--user", "bob", "on", "nosuch"]));
    assert!(output.status.code() == Some(1) && err.contains("*** FATAL CONFIG FILE ERROR"), "{err}");
    assert!(err.contains("Error in user declaration 'nosuch': Syntax error"), "{err}");
}

#[test]
fn a_rewritten_file_declares_the_users_as_they_are() {
    let dir = Dir::new();
    let file = dir.write("r.conf", "user alice on >secret +@all ~*\nhz 20\n");
    let process = Process::start(program(&dir).arg(&file).args(LISTEN));
    let mut client = dir.client();
    assert_eq!(client.cmd(&["ACL", "SETUSER", "alice", "-debug", "(+get %R~x)"]), b"+OK\r\n");
    assert_eq!(client.cmd(&["ACL", "SETUSER", "bob", "on"]), b"+OK\r\n");
    let before = client.cmd(&["ACL", "LIST"]);
    assert_eq!(client.cmd(&["CONFIG", "REWRITE"]), b"+OK\r\n");
    process.signal("TERM");
    assert!(process.ended().0.success());
    let _process = Process::start(program(&dir).arg(&file));
    assert_eq!(text(dir.client().cmd(&["ACL", "LIST"])), text(before));
}
