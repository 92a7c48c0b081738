//! The server as a process: command line, files, signals, the log, exit codes.

use std::ffi::OsString;
use std::fmt::Write;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::acl;
use crate::command::engine::{Engine, ShutdownRequest, check_renames};
use crate::command::replication::farewell;
use crate::command::{info, save};
use crate::config::choice::{
    LogFormat, LogLevel, LogTimestampFormat, OomScoreAdj, ShutdownOptions, Supervised, SyslogFacility,
};
use crate::config::expand_title;
use crate::config::load::{LoadError, Loaded, Source, from_args};
use crate::config::table::Config;
use crate::keyspace::hold::ShardSet;
use crate::observe::info::Selection;
use crate::observe::log::{self, notice, warning};
use crate::observe::{allocator, crash, traces};
use crate::persist::disk::{self, plain};
use crate::server::host::{ConfigFile, ServerHost};
use crate::server::running::{Listen, Parts, Server, StartError};
use crate::server::{check, process};
use crate::stdx::clock::Clock;
use crate::stdx::{affinity, memory};

/// The version of Redis whose behaviour is offered.
pub const REDIS_VERSION: &str = "7.2.4";

/// The real file system.
struct Files;

impl Source for Files {
    fn read(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        std::fs::read(path_of(path))
    }

    fn list(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        std::fs::read_dir(path_of(path))?.map(|entry| Ok(entry?.file_name().into_vec())).collect()
    }

    fn stdin(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::stdin(), &mut text)?;
        Ok(text)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Runs the server process with these arguments, the program's name first; returns its exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let program = args.first().map_or_else(|| "spinel-server".into(), |name| name.to_string_lossy().into_owned());
    let args: Vec<Vec<u8>> = args.into_iter().skip(1).map(OsStringExt::into_vec).collect();
    if let Some(code) = answer_and_leave(&program, &args) {
        return code;
    }
    process::prepare_title();
    let loaded = match from_args(Config::for_program(&program), &args, &mut Files) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = check_renames(&loaded.config).and_then(|()| acl::check_declarations(&loaded.config)) {
        return refuse(&error);
    }
    match run(&program, args.is_empty(), loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warning!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What a user reads who asks for it, or who asks for what is not here.
fn answer_and_leave(program: &str, args: &[Vec<u8>]) -> Option<ExitCode> {
    let first = args.first().map_or(&b""[..], Vec::as_slice);
    let sentinel = program.ends_with("-sentinel") || args.iter().any(|arg| arg == b"--sentinel");
    match first {
        _ if sentinel => {
            eprintln!("Sentinel mode is not part of this program: run redis-sentinel beside it.");
            return Some(ExitCode::FAILURE);
        }
        // As redis-server is redis-check-rdb and redis-check-aof by other names.
        _ if program.ends_with("-check-rdb") => return Some(check::rdb(args)),
        _ if program.ends_with("-check-aof") => return Some(check::aof(args)),
        b"-v" | b"--version" => print_line(&version_line()),
        b"-h" | b"--help" => print_line(&help(program)),
        b"--check-system" => return Some(check_system()),
        b"--check-rdb" => return Some(check::rdb(&args[1..])),
        b"--check-aof" => return Some(check::aof(&args[1..])),
        b"--test-memory" => {
            eprintln!("Memory is tested better by programs that boot without an operating system, such as memtest86.");
            return Some(ExitCode::FAILURE);
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Prints to who asked, who may have seen enough of it by now.
fn print_line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn version_line() -> String {
    let bits = usize::BITS;
    let malloc = if cfg!(feature = "jemalloc") { "jemalloc" } else { "libc" };
    format!("Spinel server v={} redis={REDIS_VERSION} malloc={malloc} bits={bits}", env!("CARGO_PKG_VERSION"))
}

fn help(program: &str) -> String {
    format!(
        "Usage: {program} [/path/to/redis.conf] [options] [-]
       {program} - (read configuration from standard input)
       {program} -v or --version
       {program} -h or --help
       {program} --check-system
       {program} --check-rdb <file>
       {program} --check-aof [--fix | --truncate-to-timestamp <seconds>] <manifest or file>

Examples:
       {program}                                  (run with the defaults)
       {program} /etc/redis/6379.conf
       {program} --port 7777
       {program} --port 7777 --save \"\" --maxmemory 100mb
       {program} /etc/redis/6379.conf --loglevel verbose -
       echo 'maxmemory 128mb' | {program} -

Every directive of redis.conf can be given as an option; redis.conf.example lists them."
    )
}

/// Tells about settings of the system that make a server slow or unsafe.
fn check_system() -> ExitCode {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut failed = false;
    let mut check = |name: &str, problem: Option<String>| match problem {
        None => println!("[{name}] OK"),
        Some(problem) => {
            failed = true;
            println!("[{name}] WARNING: {problem}");
        }
    };
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let slow = ["hpet", "acpi_pm", "xen"].contains(&clock.trim());
    check(
        "slow-clocksource",
        slow.then(|| format!("the clock source is {}, which is slow: tsc is fast", clock.trim())),
    );
    let overcommit = read("/proc/sys/vm/overcommit_memory");
    let refuses = overcommit.trim() == "2";
    check("overcommit", refuses.then(|| "vm.overcommit_memory is 2: allocations may fail early".into()));
    let backlog: u32 = read("/proc/sys/net/core/somaxconn").trim().parse().unwrap_or(u32::MAX);
    check("somaxconn", (backlog < 511).then(|| format!("net.core.somaxconn is {backlog}: tcp-backlog is cut to it")));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says why the configuration cannot be used.
fn refuse(error: &LoadError) -> ExitCode {
    match error {
        LoadError::File { .. } => eprintln!("{error}"),
        _ => {
            eprintln!("\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***\n{error}");
        }
    }
    ExitCode::FAILURE
}

fn run(program: &str, no_arguments: bool, loaded: Loaded) -> Result<(), Box<dyn std::error::Error>> {
    let Loaded { mut config, defaults, file } = loaded;
    let config_file = file.map(|path| absolute(&path_of(&path))).transpose()?;
    let executable = std::env::current_exe().unwrap_or_else(|_| program.into()).display().to_string();
    let supervised = supervisor(config.supervised);
    if config.daemonize && supervised.is_none() {
        process::daemonize()?;
    }
    // The log is opened where the process was started, as Redis does; `dir` comes after it.
    let handle = log::install(log_settings(&config))?;
    if config.replicaof.is_some() {
        handle.set_role(log::Role::Replica);
    }
    std::env::set_current_dir(path_of(&config.dir.0))
        .map_err(|error| format!("Can't chdir to '{}': {}", path_of(&config.dir.0).display(), plain(&error)))?;
    config.dir.0 = std::env::current_dir()?.into_os_string().into_vec();
    allocator::set_background_thread(config.jemalloc_bg_thread);
    process::ignore(libc::SIGHUP);
    process::ignore(libc::SIGPIPE);
    notice!("oO0OoO0OoO0Oo Spinel is starting oO0OoO0OoO0Oo");
    notice!(
        "Spinel version={}, Redis version={REDIS_VERSION}, bits=64, pid={}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    if no_arguments {
        warning!(
            "Warning: no config file specified, using the default config. In order to specify a config file use {program} /path/to/redis.conf"
        );
    } else {
        notice!("Configuration loaded");
    }
    raise_limits(&mut config);
    keep_to_cores(&config);
    set_oom_score(&config)?;
    if !is_reachable(&config) {
        return Err("Configured to not listen anywhere, exiting.".into());
    }
    let pidfile = config
        .pidfile
        .as_ref()
        .map(|path| path_of(path))
        .or_else(|| config.daemonize.then(|| PathBuf::from("/var/run/redis.pid")));
    if let Some(path) = &pidfile
        && let Err(error) = disk::write(path, format!("{}\n", std::process::id()).as_bytes())
    {
        warning!("Failed to write PID file: {}", plain(&error));
    }
    show_banner(&config);
    let title = Title { program: program.to_owned(), config_file: config_file.clone() };
    title.show(&config);
    let signals = Signals::catch()?;
    // Before anybody is told that the server is ready, as with signals that end it.
    let known = install_crash_report(config.crash_log_enabled);
    crash::exit_on_panic(config.use_exit_on_panic);
    traces::set_period(config.watchdog_period);
    let in_force = handle.clone();
    let process_settings = Box::new(move |new: &Config, old: &Config| follow(&in_force, &title, new, old));
    let config_file = config_file.map(|path| ConfigFile { path, defaults });
    let host = ServerHost::new(config_file, executable, Some(process_settings));
    let server = match Server::start(Parts { config, clock: Clock::real(), listen: Listen::Configured, host }) {
        Ok(server) => server,
        Err(error) => {
            if let Some(path) = &pidfile {
                disk::remove(path);
            }
            if let StartError::Listen(_) | StartError::ListenTls(_) = error {
                warning!("{error}");
                std::process::exit(1);
            }
            return Err(error.into());
        }
    };
    notice!("Server initialized");
    // Nobody else sets it.
    let _ = known.set(Arc::downgrade(server.engine()));
    signals.watch(server.engine().clone())?;
    if let Err(error) = server.load() {
        warning!("{error}");
        std::process::exit(1);
    }
    if let Some(Supervised::Systemd) = supervised {
        // Nobody may be listening, which is not our failure.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
    if let Some(Supervised::Upstart) = supervised {
        process::raise(libc::SIGSTOP);
    }
    server.wait();
    if let Some(path) = &pidfile {
        notice!("Removing the pid file.");
        disk::remove(path);
    }
    server.shutdown();
    process::end_copies();
    warning!("Spinel is now ready to exit, bye bye...");
    Ok(())
}

/// Whether anybody could connect: by a port, or by the socket in the file system.
fn is_reachable(config: &Config) -> bool {
    let has_port = config.port != 0 || config.tls_port != 0;
    config.unixsocket.is_some() || has_port && !config.bind.0.is_empty()
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() { Ok(path.to_owned()) } else { Ok(std::env::current_dir()?.join(path)) }
}

/// The supervisor that waits for word, if one does.
fn supervisor(configured: Supervised) -> Option<Supervised> {
    let has = |name: &str| std::env::var_os(name).is_some();
    match configured {
        Supervised::No => None,
        Supervised::Auto if has("NOTIFY_SOCKET") => Some(Supervised::Systemd),
        Supervised::Auto if has("UPSTART_JOB") => Some(Supervised::Upstart),
        Supervised::Auto => None,
        other => Some(other),
    }
}

fn log_settings(config: &Config) -> log::Settings {
    let syslog = config.syslog_enabled.then(|| log::Syslog {
        ident: String::from_utf8_lossy(&config.syslog_ident).into_owned(),
        facility: match config.syslog_facility {
            SyslogFacility::User => log::Facility::User,
            local => log::Facility::Local(local.name().trim_start_matches("local").parse().unwrap_or(0)),
        },
    });
    log::Settings {
        level: level(config.loglevel),
        file: path_of(&config.logfile),
        format: format(config.log_format),
        timestamp: timestamp(config.log_timestamp_format),
        syslog,
    }
}

fn level(level: LogLevel) -> log::Level {
    match level {
        LogLevel::Debug => log::Level::Debug,
        LogLevel::Verbose => log::Level::Verbose,
        LogLevel::Notice => log::Level::Notice,
        LogLevel::Warning => log::Level::Warning,
        LogLevel::Nothing => log::Level::Nothing,
    }
}

fn format(format: LogFormat) -> log::Format {
    match format {
        LogFormat::Legacy => log::Format::Legacy,
        LogFormat::Logfmt => log::Format::Logfmt,
    }
}

fn timestamp(timestamp: LogTimestampFormat) -> log::Timestamp {
    match timestamp {
        LogTimestampFormat::Legacy => log::Timestamp::Legacy,
        LogTimestampFormat::Iso8601 => log::Timestamp::Iso8601,
        LogTimestampFormat::Milliseconds => log::Timestamp::Milliseconds,
    }
}

/// Has every thread run where the configuration says. Those that save, rewrite and sync go elsewhere by themselves; what
/// cannot be had is said now.
fn keep_to_cores(config: &Config) {
    let others = [
        ("bio-cpulist", &config.bio_cpulist),
        ("aof-rewrite-cpulist", &config.aof_rewrite_cpulist),
        ("bgsave-cpulist", &config.bgsave_cpulist),
    ];
    let tried = others.map(|(name, list)| {
        // A thread that has nothing else to do.
        let kept = std::thread::scope(|scope| scope.spawn(|| affinity::keep_to(list.as_deref())).join());
        (name, kept.unwrap_or(false))
    });
    for (name, kept) in
        tried.into_iter().chain([("server-cpulist", affinity::keep_to(config.server_cpulist.as_deref()))])
    {
        if !kept {
            warning!("The cores of {name} cannot be kept to");
        }
    }
}

/// Descriptors that the process needs beside its clients' sockets.
const RESERVED_FILES: u64 = 32;

/// Makes sure that `maxclients` sockets can be open, or lowers it.
fn raise_limits(config: &mut Config) {
    let wanted = u64::from(config.maxclients) + RESERVED_FILES;
    let granted = process::raise_open_files(wanted);
    if granted < wanted {
        let fits = u32::try_from(granted.saturating_sub(RESERVED_FILES)).unwrap_or(u32::MAX).max(1);
        warning!(
            "You requested maxclients of {} requiring at least {wanted} max file descriptors. Only {granted} are allowed: maxclients is reduced to {fits}.",
            config.maxclients
        );
        config.maxclients = fits;
    }
}

/// Writes the score that the configuration asks for, or the one that ours replaced.
fn set_oom_score(config: &Config) -> Result<(), String> {
    /// The score that was there before ours, while ours is in force.
    static BEFORE: Mutex<Option<i32>> = Mutex::new(None);
    const PATH: &str = "/proc/self/oom_score_adj";
    let mut before = BEFORE.lock();
    let now = || std::fs::read_to_string(PATH).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let wanted = config.oom_score_adj_values.0[0];
    let (score, keep) = match config.oom_score_adj {
        // Where ours was never in force, the score is somebody else's.
        OomScoreAdj::No => match *before {
            Some(score) => (score, None),
            None => return Ok(()),
        },
        mode => {
            let start = before.unwrap_or_else(now);
            (if mode == OomScoreAdj::Relative { start + wanted } else { wanted }, Some(start))
        }
    };
    disk::write(Path::new(PATH), score.clamp(-1000, 1000).to_string().as_bytes())
        .map_err(|error| format!("Unable to write oom_score_adj: {}", plain(&error)))?;
    *before = keep;
    Ok(())
}

/// The process follows a configuration that was changed while it runs.
fn follow(log: &log::Handle, title: &Title, new: &Config, old: &Config) -> Result<(), (&'static str, String)> {
    if new.oom_score_adj != old.oom_score_adj || new.oom_score_adj_values != old.oom_score_adj_values {
        set_oom_score(new).map_err(|error| {
            warning!("{error}");
            ("oom-score-adj", "Failed to set current oom_score_adj. Check server logs.".to_owned())
        })?;
    }
    if new.replicaof.is_some() != old.replicaof.is_some() {
        log.set_role(if new.replicaof.is_some() { log::Role::Replica } else { log::Role::Primary });
    }
    if new.dir != old.dir {
        std::env::set_current_dir(path_of(&new.dir.0)).map_err(|error| ("dir", plain(&error)))?;
    }
    if new.maxclients > old.maxclients {
        let wanted = u64::from(new.maxclients) + RESERVED_FILES;
        let files = process::raise_open_files(wanted);
        if files < wanted {
            return Err((
                "maxclients",
                format!(
                    "The operating system is not able to handle the specified number of clients, try with {}",
                    files.saturating_sub(RESERVED_FILES)
                ),
            ));
        }
    }
    if new.crash_log_enabled != old.crash_log_enabled {
        if new.crash_log_enabled { crash::arm() } else { crash::disarm() }
    }
    crash::exit_on_panic(new.use_exit_on_panic);
    if new.watchdog_period != old.watchdog_period {
        traces::set_period(new.watchdog_period);
    }
    if new.jemalloc_bg_thread != old.jemalloc_bg_thread {
        allocator::set_background_thread(new.jemalloc_bg_thread);
    }
    log.set_level(level(new.loglevel));
    log.set_format(format(new.log_format));
    log.set_timestamp(timestamp(new.log_timestamp_format));
    if new.proc_title_template != old.proc_title_template {
        title.show(new);
    }
    Ok(())
}

/// What the title of the process is made of, beside the configuration.
struct Title {
    program: String,
    config_file: Option<PathBuf>,
}

impl Title {
    fn show(&self, config: &Config) {
        if !config.set_proc_title {
            return;
        }
        let text = |value: Option<&Vec<u8>>| value.cloned().unwrap_or_default();
        let bound = config.bind.0.first().map_or("*", |addr| addr.trim_start_matches('-'));
        let addr = match tcp_port(config) {
            0 if config.unixsocket.is_some() => text(config.unixsocket.as_ref()),
            port => format!("{bound}:{port}").into_bytes(),
        };
        let title = expand_title(&config.proc_title_template, |variable| match variable {
            "title" => self.program.clone().into_bytes(),
            "listen-addr" => addr.clone(),
            "server-mode" if config.cluster_enabled => b"[cluster]".to_vec(),
            "port" => config.port.to_string().into_bytes(),
            "tls-port" => config.tls_port.to_string().into_bytes(),
            "unixsocket" => text(config.unixsocket.as_ref()),
            "config-file" => {
                self.config_file.as_ref().map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default()
            }
            _ => Vec::new(),
        });
        if let Some(title) = title {
            process::set_title(&title);
        }
    }
}

/// The port that people are told: that of TLS where there is no other.
fn tcp_port(config: &Config) -> u16 {
    if config.port == 0 { config.tls_port } else { config.port }
}

/// The banner, or its one line where nobody looks at a terminal.
fn show_banner(config: &Config) {
    let mode = if config.cluster_enabled { "cluster" } else { "standalone" };
    let seen = process::stdout_is_terminal() && config.logfile.is_empty();
    if !(config.always_show_logo || seen) {
        notice!("Running mode={mode}, port={}.", tcp_port(config));
        return;
    }
    log::raw(&format!(
        "
        /\\
       /  \\        Spinel {} (Redis {REDIS_VERSION})
      /____\\       Running in {mode} mode
      \\    /       Port: {}
       \\  /        PID: {}
        \\/

",
        env!("CARGO_PKG_VERSION"),
        tcp_port(config),
        std::process::id()
    ));
}

/// Has crashes reported from now on, with what INFO says once the engine is known.
fn install_crash_report(enabled: bool) -> Arc<OnceLock<Weak<Engine>>> {
    let known = Arc::new(OnceLock::<Weak<Engine>>::new());
    let engine = known.clone();
    if let Err(error) = traces::install() {
        warning!("No traces of threads will be written: {}", plain(&error));
    }
    crash::install(move |out| {
        if let Some(engine) = engine.get().and_then(Weak::upgrade) {
            tell_state(&engine, out);
        }
    });
    if !enabled {
        crash::disarm();
    }
    known
}

/// What INFO says, for a crash report: section by section, so that one which cannot be had costs no other.
///
/// The dying thread may hold shards, so what would have to lock them is left out: the keyspace, what others have
/// of the keys that somebody waits for, and of memory all but the sum.
fn tell_state(engine: &Engine, out: &mut dyn Write) {
    let config = engine.config.load();
    if !config.debug_context.is_empty() {
        // Nothing can be done about a report that cannot be written.
        let _ = writeln!(out, "debug-context: {}", config.debug_context.escape_ascii());
    }
    let mut nothing = engine.keyspace.hold_impatiently();
    for section in
        ["server", "persistence", "stats", "replication", "cpu", "commandstats", "cluster", "clients", "errorstats"]
    {
        let _ = writeln!(out, "{}", info::text(engine, &config, &mut nothing, &Selection::parse([section])));
        if section == "server" {
            let _ = writeln!(out, "# Memory\r\nused_memory:{}\r\n", memory::used());
        }
    }
}

/// How often a shutdown that waits for the timers looks at them.
const CRON_LOOK: Duration = Duration::from_millis(10);

/// SIGTERM and SIGINT, remembered from the moment this is made: before anybody is told that the server is
/// ready, so that no signal finds it unprepared and ends it without a farewell.
struct Signals {
    runtime: tokio::runtime::Runtime,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(inside);
        Ok(Signals { runtime, term, int })
    }

    /// From now on they end the server, the second SIGINT at once.
    fn watch(self, engine: Arc<Engine>) -> io::Result<()> {
        let Signals { runtime, term, int } = self;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(follow_signals(engine, term, int)))?;
        Ok(())
    }
}

async fn follow_signals(engine: Arc<Engine>, mut term: Signal, mut int: Signal) {
    let insist = || {
        warning!("You insist... exiting now.");
        save::abandon(&engine.config.load());
        std::process::exit(1);
    };
    let mut asked = false;
    loop {
        let interrupted = tokio::select! {
            _ = term.recv() => false,
            _ = int.recv() => true,
        };
        if asked && interrupted {
            insist();
        }
        let config = engine.config.load();
        let (name, options) =
            if interrupted { ("SIGINT", config.shutdown_on_sigint) } else { ("SIGTERM", config.shutdown_on_sigterm) };
        warning!("Received {name} scheduling shutdown...");
        let scheduled = engine.host.scheduled();
        scheduled.store(true, Ordering::Release);
        // As long as timers are held back (DEBUG PAUSE-CRON) it can be called off.
        while !engine.debug.cron.load(Ordering::Relaxed) && scheduled.load(Ordering::Acquire) {
            tokio::select! {
                () = tokio::time::sleep(CRON_LOOK) => {}
                _ = int.recv() => insist(),
            }
        }
        asked = scheduled.swap(false, Ordering::AcqRel);
        if asked && engine.saves.loading.active.load(Ordering::Relaxed) {
            warning!("Received shutdown signal during loading, exiting now.");
            std::process::exit(0);
        }
        if asked {
            // Elsewhere, so that who insists is heard while it saves.
            let (engine, request) = (engine.clone(), request_of(options));
            let mut ending = tokio::task::spawn_blocking(move || end(&engine, request));
            tokio::select! {
                ended = &mut ending => {
                    if let Ok(Err(reason)) = ended {
                        warning!("{reason}");
                    }
                }
                _ = int.recv() => insist(),
            }
        }
    }
}

/// Ends the server as SHUTDOWN does.
fn end(engine: &Engine, request: ShutdownRequest) -> Result<(), String> {
    if farewell::waits(engine, request) {
        return Ok(());
    }
    engine.scripts.running.interrupt(|| {
        let _alone = engine.keyspace.gates().alone();
        save::end(engine, &mut engine.keyspace.hold(ShardSet::ALL), request)
    })
}

fn request_of(options: ShutdownOptions) -> ShutdownRequest {
    let ShutdownOptions { save, nosave, now, force, failover } = options;
    ShutdownRequest { save, nosave, now, force, failover }
}
