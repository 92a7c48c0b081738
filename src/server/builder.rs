//! Building a server inside a program: directives by name, a clock, where to listen.

use std::io;
use std::sync::Arc;

use crate::config::load::{LoadError, Source, from_text};
use crate::config::table::Config;
use crate::server::host::ServerHost;
use crate::server::running::{Listen, Parts, Server, StartError};
use crate::stdx::clock::Clock;
use crate::stdx::words::{quoted, split_words};

/// What a server is to be like. Nothing of it is global: a process may run several.
///
/// The defaults are those of a server process, but for four things: it listens on a free port of
/// the loopback interface, installs no signal handlers, never ends the process, and keeps its data in memory only:
/// files are read where `dir`, `dbfilename` or `appendonly` says which, and saved by itself where `save` says when.
///
/// ```
/// let server = spinel::Server::builder().directive("databases", "4").start()?;
/// let client = server.client();
/// client.set("greeting", "hello")?;
/// assert_eq!(client.get("greeting")?.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    lines: Vec<u8>,
    clock: Clock,
    listen: Listen,
    /// Whether it was told where to keep its data.
    keeps: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        let lines = b"bind 127.0.0.1\nsave \"\"\n".to_vec();
        Builder { lines, clock: Clock::real(), listen: Listen::Ephemeral, keeps: false }
    }
}

/// A configuration without files: what is embedded reads none.
struct NoFiles;

impl Source for NoFiles {
    fn read(&mut self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a server inside a program reads no configuration files"))
    }

    fn list(&mut self, _: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn stdin(&mut self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

impl Builder {
    /// Sets a directive, written as in redis.conf: several values are separated by blanks, a value that
    /// holds blanks stands in quotes. What is set twice counts as it was set last.
    ///
    /// `port` is redis.conf's: 0 is no TCP port. Whether name and value are right is found out by
    /// [`Builder::start`]. Files are not read: `include` is an error.
    pub fn directive(mut self, name: &str, value: &str) -> Builder {
        // Line breaks would begin another directive.
        self.lines.extend(name.split(['\n', '\r']).next().unwrap_or_default().bytes());
        match split_words(value.as_bytes()) {
            Some(words) if !words.is_empty() => words.iter().for_each(|word| {
                self.lines.push(b' ');
                self.lines.extend(quoted(word));
            }),
            // It goes in as it is, and the error says what is wrong with it.
            None => {
                self.lines.push(b' ');
                self.lines.extend(value.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
            }
            Some(_) => self.lines.extend_from_slice(b" \"\""),
        }
        self.lines.push(b'\n');
        self.keeps |= ["dir", "dbfilename", "appendonly"].iter().any(|known| name.eq_ignore_ascii_case(known));
        if name.eq_ignore_ascii_case("port") && self.listen == Listen::Ephemeral {
            self.listen = Listen::Configured;
        }
        self
    }

    /// Listens on this port; 0 takes a free one, which [`Server::addr`] tells.
    pub fn port(mut self, port: u16) -> Builder {
        self.listen = if port == 0 { Listen::Ephemeral } else { Listen::Configured };
        if port == 0 { self } else { self.directive("port", &port.to_string()) }
    }

    /// Listens nowhere: only [`Server::client`] reaches it.
    pub fn no_listener(mut self) -> Builder {
        self.listen = Listen::Nowhere;
        self
    }

    /// Takes the time from `clock`; see [`Clock::manual`].
    pub fn clock(mut self, clock: Clock) -> Builder {
        self.clock = clock;
        self
    }

    /// The configuration that results.
    ///
    /// # Errors
    /// Redis' text for a directive that does not exist or a value that it refuses.
    pub fn config(&self) -> Result<Config, StartError> {
        from_text(&self.lines, &mut NoFiles).map_err(|error| {
            StartError::Config(match error {
                // There is no file whose lines could be counted.
                LoadError::Line { place, reason } => {
                    format!("{reason} (directive: {})", String::from_utf8_lossy(&place.text))
                }
                error => error.to_string(),
            })
        })
    }

    /// Starts the server.
    ///
    /// # Errors
    /// For a bad directive, a port that is taken, or where the system refuses threads.
    pub fn start(self) -> Result<Server, StartError> {
        let config = self.config()?;
        let executable = std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string());
        let host = ServerHost::new(None, executable, None);
        let server = Server::start(Parts { config, clock: self.clock, listen: self.listen, host })?;
        if self.keeps {
            server.load()?;
        } else {
            server.announce();
        }
        Ok(server)
    }
}

impl Server {
    /// What a server inside a program is to be like.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.engine().config.load_full()
    }
}
