//! The log: Redis' lines, from `tracing` events.
//!
//! Everywhere in the crate, what happens is told with [`warning!`], [`notice!`], [`verbose!`] and
//! [`debug!`]. They are tracing's own macros under the names that Redis' levels have:
//!
//! | macro | tracing level | Redis | sign |
//! | --- | --- | --- | --- |
//! | `warning!` | WARN (and ERROR) | warning | `#` |
//! | `notice!` | INFO | notice | `*` |
//! | `verbose!` | DEBUG | verbose | `-` |
//! | `debug!` | TRACE | debug | `.` |
//!
//! So a program that embeds the library gets ordinary events in its own subscriber. The server
//! binary calls [`install`], whose subscriber writes
//! `PID:ROLE DD Mon YYYY HH:MM:SS.mmm LEVEL message`, each line with one write, to standard output, a
//! file, and syslog. A file that was renamed or removed is opened anew with the next line, so log
//! rotation needs no signal; it is only ever appended to.
//!
//! The log file is the one file outside `persist` that is opened by the server: lines must be
//! written before that module is up and after it is gone.
//!
//! Events of other crates appear from WARN on.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
pub use tracing::{debug as verbose, info as notice, trace as debug, warn as warning};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::observe::system;

/// How much is logged, `loglevel`; a level includes all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Everything.
    Debug,
    /// What rarely interests.
    Verbose,
    /// What one wants in production.
    Notice,
    /// What is important or wrong.
    Warning,
    /// No line at all.
    Nothing,
}

impl Level {
    const ALL: [Level; 5] = [Level::Debug, Level::Verbose, Level::Notice, Level::Warning, Level::Nothing];

    fn of(level: &tracing::Level) -> Level {
        match *level {
            tracing::Level::TRACE => Level::Debug,
            tracing::Level::DEBUG => Level::Verbose,
            tracing::Level::INFO => Level::Notice,
            _ => Level::Warning,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Level::Debug => LevelFilter::TRACE,
            Level::Verbose => LevelFilter::DEBUG,
            Level::Notice => LevelFilter::INFO,
            Level::Warning => LevelFilter::WARN,
            Level::Nothing => LevelFilter::OFF,
        }
    }
}

/// How a line looks, `log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// `PID:ROLE TIME LEVEL message`.
    Legacy,
    /// `pid=.. role=.. timestamp=".." level=.. message=".."`.
    Logfmt,
}

/// How a line says when, `log-timestamp-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Timestamp {
    /// `21 Nov 2026 00:32:54.024`, local time.
    Legacy,
    /// `2026-11-21T00:32:54.024+01:00`, local time.
    Iso8601,
    /// Unix time in milliseconds.
    Milliseconds,
}

/// Who the process is, for the letter behind its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// `M`.
    Primary,
    /// `S`.
    Replica,
    /// `C`: a helper that writes a file.
    Child,
    /// `X`.
    Sentinel,
}

impl Role {
    const ALL: [Role; 4] = [Role::Primary, Role::Replica, Role::Child, Role::Sentinel];

    fn letter(self) -> char {
        match self {
            Role::Primary => 'M',
            Role::Replica => 'S',
            Role::Child => 'C',
            Role::Sentinel => 'X',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Child => "RDB/AOF",
            Role::Sentinel => "sentinel",
        }
    }
}

/// To whom syslog says that the lines belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// `syslog-ident`.
    pub ident: String,
    /// `syslog-facility`.
    pub facility: Facility,
}

/// `syslog-facility`: `user`, or `local0` to `local7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facility {
    /// `user`.
    User,
    /// `local0` to `local7`; a larger number counts as 7.
    Local(u8),
}

/// What and where to log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `loglevel`.
    pub level: Level,
    /// `logfile`; empty for standard output.
    pub file: PathBuf,
    /// `log-format`.
    pub format: Format,
    /// `log-timestamp-format`.
    pub timestamp: Timestamp,
    /// The same to syslog as well.
    pub syslog: Option<Syslog>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            level: Level::Notice,
            file: PathBuf::new(),
            format: Format::Legacy,
            timestamp: Timestamp::Legacy,
            syslog: None,
        }
    }
}

/// Why there is no log.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be opened for appending.
    Open(PathBuf, io::Error),
    /// The process has a subscriber already.
    Taken,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open(_, error) => write!(f, "Can't open the log file: {}", system::plain(error)),
            Error::Taken => f.write_str("the process has a tracing subscriber already"),
        }
    }
}

impl std::error::Error for Error {}

/// The events of this target are written as they are: no time, no level, no line end.
const RAW: &str = "spinel::raw";

/// Tells `text` as it is, at the level of notices: the banner.
pub fn raw(text: &str) {
    tracing::info!(target: RAW, "{text}");
}

/// Makes this process write its events as Redis' lines. For the server binary: there is one log per
/// process, and a program that embeds the library has a subscriber of its own.
///
/// # Errors
/// If the log file cannot be opened, or there is a subscriber already.
pub fn install(settings: Settings) -> Result<Handle, Error> {
    let shared = Arc::new(Shared::open(settings)?);
    let lines = Lines(Arc::clone(&shared));
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Taken)?;
    // Cannot have been set: the line above succeeds once in a process.
    let _ = INSTALLED.set(Arc::clone(&shared));
    Ok(Handle(shared))
}

static INSTALLED: OnceLock<Arc<Shared>> = OnceLock::new();

/// The descriptor that lines go to, for someone who must not wait for a lock; standard output if
/// there is no log.
pub(super) fn descriptor() -> i32 {
    INSTALLED.get().map_or(libc::STDOUT_FILENO, |shared| shared.fd.load(Ordering::Relaxed))
}

/// Changes the log while it runs. Clones change the same log.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// CONFIG SET loglevel.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        // Call sites remember whether anybody listens.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Continues in another file; empty for standard output.
    ///
    /// # Errors
    /// If it cannot be opened: then the log goes on where it was.
    pub fn set_file(&self, file: &Path) -> Result<(), Error> {
        let output = Output::open(file)?;
        self.0.fd.store(output.descriptor(), Ordering::Relaxed);
        *self.0.output.lock() = output;
        Ok(())
    }

    /// CONFIG SET log-format.
    pub fn set_format(&self, format: Format) {
        self.0.logfmt.store(format as u8, Ordering::Relaxed);
    }

    /// CONFIG SET log-timestamp-format.
    pub fn set_timestamp(&self, timestamp: Timestamp) {
        self.0.timestamp.store(timestamp as u8, Ordering::Relaxed);
    }

    /// From now on this is what the process is.
    pub fn set_role(&self, role: Role) {
        self.0.role.store(role as u8, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    logfmt: AtomicU8,
    timestamp: AtomicU8,
    role: AtomicU8,
    fd: AtomicI32,
    syslog: bool,
    output: Mutex<Output>,
}

impl Shared {
    fn open(settings: Settings) -> Result<Shared, Error> {
        let output = Output::open(&settings.file)?;
        if let Some(syslog) = &settings.syslog {
            let facility = match syslog.facility {
                Facility::User => libc::LOG_USER,
                // The eight facilities follow each other, in units of eight.
                Facility::Local(n) => libc::LOG_LOCAL0 + (i32::from(n.min(7)) << 3),
            };
            system::open_syslog(&syslog.ident, facility);
        }
        Ok(Shared {
            level: AtomicU8::new(settings.level as u8),
            logfmt: AtomicU8::new(settings.format as u8),
            timestamp: AtomicU8::new(settings.timestamp as u8),
            role: AtomicU8::new(Role::Primary as u8),
            fd: AtomicI32::new(output.descriptor()),
            syslog: settings.syslog.is_some(),
            output: Mutex::new(output),
        })
    }

    fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    fn line(&self, unix_ms: u64, level: Level, message: &str) -> String {
        let role = Role::ALL[usize::from(self.role.load(Ordering::Relaxed))];
        let mut line = String::with_capacity(48 + message.len());
        let pid = std::process::id();
        let timestamp = match self.timestamp.load(Ordering::Relaxed) {
            n if n == Timestamp::Iso8601 as u8 => Timestamp::Iso8601,
            n if n == Timestamp::Milliseconds as u8 => Timestamp::Milliseconds,
            _ => Timestamp::Legacy,
        };
        // Writing to a string cannot fail.
        if self.logfmt.load(Ordering::Relaxed) == Format::Logfmt as u8 {
            let word = match level {
                Level::Debug => "debug",
                Level::Verbose => "info",
                Level::Notice => "notice",
                Level::Warning | Level::Nothing => "warning",
            };
            let _ = write!(line, "pid={pid} role={} timestamp=\"", role.word());
            write_time(&mut line, unix_ms, timestamp);
            let _ = write!(line, "\" level={word} message=\"");
            line.extend(message.chars().map(|c| match c {
                '"' => '\'',
                '\r' | '\n' => ' ',
                other => other,
            }));
            line.push_str("\"\n");
        } else {
            let sign = match level {
                Level::Debug => '.',
                Level::Verbose => '-',
                Level::Notice => '*',
                Level::Warning | Level::Nothing => '#',
            };
            let _ = write!(line, "{pid}:{} ", role.letter());
            write_time(&mut line, unix_ms, timestamp);
            let _ = writeln!(line, " {sign} {message}");
        }
        line
    }

    fn write(&self, level: Level, message: &str, is_raw: bool) {
        let mut output = self.output.lock();
        // The time is taken under the lock, so that the lines of a file are in its order.
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64);
        let line = if is_raw { message.to_owned() } else { self.line(now_ms, level, message) };
        output.write(line.as_bytes());
        self.fd.store(output.descriptor(), Ordering::Relaxed);
        drop(output);
        if self.syslog {
            let priority = match level {
                Level::Debug => libc::LOG_DEBUG,
                Level::Verbose => libc::LOG_INFO,
                Level::Notice => libc::LOG_NOTICE,
                Level::Warning | Level::Nothing => libc::LOG_WARNING,
            };
            system::write_syslog(priority, message);
        }
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn write_time(line: &mut String, unix_ms: u64, timestamp: Timestamp) {
    let ms = unix_ms % 1000;
    if timestamp == Timestamp::Milliseconds {
        let _ = write!(line, "{unix_ms}");
        return;
    }
    let system::LocalTime { year, month, day, hour, minute, second, offset_s } = system::local_time(unix_ms / 1000);
    let _ = match timestamp {
        Timestamp::Iso8601 => {
            let sign = if offset_s < 0 { '-' } else { '+' };
            let minutes = offset_s.unsigned_abs() / 60;
            let month = month + 1;
            let zone = format_args!("{sign}{:02}:{:02}", minutes / 60, minutes % 60);
            write!(line, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}{zone}")
        }
        _ => write!(line, "{day:02} {} {year} {hour:02}:{minute:02}:{second:02}.{ms:03}", MONTHS[month]),
    };
}

/// Where lines go.
#[derive(Debug)]
enum Output {
    Stdout,
    File { path: PathBuf, file: File, id: (u64, u64) },
}

impl Output {
    fn open(path: &Path) -> Result<Output, Error> {
        if path.as_os_str().is_empty() {
            return Ok(Output::Stdout);
        }
        let failed = |error| Error::Open(path.to_owned(), error);
        // The server changes its directory later; the log stays where it was asked for.
        let path = std::path::absolute(path).map_err(failed)?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        Ok(Output::File { path, file, id: (meta.dev(), meta.ino()) })
    }

    /// Writes a line, in one piece. There is nobody to tell if it fails: a log that cannot be
    /// written (a full disk) must not stop the server.
    fn write(&mut self, line: &[u8]) {
        self.follow();
        match self {
            Output::Stdout => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(line).and_then(|()| out.flush());
            }
            Output::File { file, .. } => {
                let _ = file.write_all(line);
            }
        }
    }

    /// Opens the file anew if another one, or none, has its name by now. While that fails, lines go
    /// on to the file that is open.
    fn follow(&mut self) {
        if let Output::File { path, id, .. } = self {
            let same = std::fs::metadata(&*path).is_ok_and(|meta| (meta.dev(), meta.ino()) == *id);
            if !same && let Ok(fresh) = Output::open(path) {
                *self = fresh;
            }
        }
    }

    fn descriptor(&self) -> i32 {
        match self {
            Output::Stdout => libc::STDOUT_FILENO,
            Output::File { file, .. } => file.as_raw_fd(),
        }
    }
}

/// The layer under `tracing`.
struct Lines(Arc<Shared>);

impl Lines {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::of(metadata.level());
        metadata.is_event()
            && level >= self.0.level()
            && (level == Level::Warning || metadata.target().starts_with("spinel"))
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level().filter())
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        message.text.push_str(&message.fields);
        self.0.write(Level::of(metadata.level()), &message.text, metadata.target() == RAW);
    }
}

/// An event's words, then its fields as ` name=value`.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::random;

    /// A directory that goes when the test ends.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Dir {
            let name = format!("spinel-log-{:016x}", random::seed());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn log_to(path: &Path, level: Level) -> (Handle, impl Subscriber) {
        let settings = Settings { level, file: path.to_owned(), ..Settings::default() };
        let shared = Arc::new(Shared::open(settings).unwrap());
        (Handle(Arc::clone(&shared)), tracing_subscriber::registry().with(Lines(shared)))
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_line_has_process_role_time_sign_and_message() {
        let dir = Dir::new();
        let path = dir.0.join("log");
        let (handle, subscriber) = log_to(&path, Level::Debug);
        tracing::subscriber::with_default(subscriber, || {
            warning!("one {}", 1);
            notice!("two");
            verbose!("three");
            handle.set_role(Role::Replica);
            debug!(port = 6379, name = "x", "four");
            raw("as it is\n");
        });
        let text = read(&path);
        let pid = std::process::id();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(&format!("{pid}:M ")) && lines[0].ends_with(" # one 1"), "{text}");
        assert!(lines[1].ends_with(" * two") && lines[2].ends_with(" - three"));
        assert!(lines[3].starts_with(&format!("{pid}:S ")) && lines[3].ends_with(" . four port=6379 name=x"));
        assert_eq!(lines[4..], ["as it is"]);
        // 21 Nov 2026 00:32:54.024
        let time: Vec<&str> = lines[0].split(' ').skip(1).take(4).collect();
        assert!(time[0].len() == 2 && MONTHS.contains(&time[1]) && time[2].len() == 4 && time[3].len() == 12);
    }

    #[test]
    fn the_level_can_be_changed_while_call_sites_are_in_use() {
        let dir = Dir::new();
        let path = dir.0.join("log");
        let (handle, subscriber) = log_to(&path, Level::Warning);
        tracing::subscriber::with_default(subscriber, || {
            for (level, n) in [(Level::Notice, 1), (Level::Nothing, 2), (Level::Verbose, 3), (Level::Warning, 4)] {
                handle.set_level(level);
                notice!("notice {n}");
            }
            warning!("kept");
            tracing::info!(target: "tokio", "of another crate");
            tracing::warn!(target: "tokio", "important");
        });
        let said: Vec<_> = read(&path).lines().map(|line| line.split_once(['*', '#']).unwrap().1.to_owned()).collect();
        assert_eq!(said, [" notice 1", " notice 3", " kept", " important"]);
    }

    #[test]
    fn a_renamed_or_removed_file_is_opened_anew() {
        let dir = Dir::new();
        let (path, rotated) = (dir.0.join("log"), dir.0.join("log.1"));
        let (_, subscriber) = log_to(&path, Level::Notice);
        tracing::subscriber::with_default(subscriber, || {
            notice!("first");
            std::fs::rename(&path, &rotated).unwrap();
            notice!("second");
            std::fs::remove_file(&path).unwrap();
            notice!("third");
        });
        assert!(read(&rotated).ends_with("first\n"));
        let text = read(&path);
        assert!(text.ends_with("third\n") && !text.contains("second"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_and_the_old_one_goes_on() {
        let dir = Dir::new();
        let path = dir.0.join("log");
        let (handle, subscriber) = log_to(&path, Level::Notice);
        let error = handle.set_file(&dir.0.join("none/log")).unwrap_err();
        assert_eq!(error.to_string(), "Can't open the log file: No such file or directory");
        tracing::subscriber::with_default(subscriber, || notice!("still here"));
        assert!(read(&path).ends_with("still here\n"));
    }

    #[test]
    fn logfmt_replaces_what_would_break_a_line() {
        let settings = Settings { format: Format::Logfmt, timestamp: Timestamp::Milliseconds, ..Settings::default() };
        let shared = Shared::open(settings).unwrap();
        let pid = std::process::id();
        assert_eq!(
            shared.line(1_700_000_000_123, Level::Verbose, "say \"x\"\r\ny"),
            format!("pid={pid} role=primary timestamp=\"1700000000123\" level=info message=\"say 'x'  y\"\n")
        );
    }

    #[test]
    fn an_iso_timestamp_ends_with_the_zone() {
        let mut line = String::new();
        write_time(&mut line, 1_700_000_000_123, Timestamp::Iso8601);
        assert_eq!(line.len(), "2026-11-21T00:32:54.024+01:00".len());
        assert!(line.starts_with("2023-11-1") && &line[19..23] == ".123", "{line}");
        assert!(["+", "-"].contains(&&line[23..24]) && &line[26..27] == ":");
    }
}
