//! What commands ask of the server around them: listeners, the log, files, the end of the process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use crate::cluster::node::Name;
use crate::command::engine::{Engine, Host, ShutdownRequest};
use crate::command::migrate::peer::{Answers, Peer};
use crate::config::rewrite::{Extent, rewrite};
use crate::config::table::Config;
use crate::observe::log::{notice, warning};
use crate::persist::disk;
use crate::server::listener::{self, Listening, Speech};
use crate::server::peers::Peers;
use crate::server::process;
use crate::server::slot_export;
use crate::server::tls::Tls;
use crate::server::worker;

/// Messages to the control thread.
pub enum Control {
    /// Listen on these sockets for this speech instead of those before; answered when the old ones are closed.
    Listen(Speech, Listening, mpsc::Sender<()>),
    /// End the server.
    Stop(ShutdownRequest),
}

/// What changes with the configuration and belongs to the process, not to a server: the binary's log,
/// title, OOM score. A library changes none of them.
pub type ProcessSettings = Box<dyn Fn(&Config, &Config) -> Result<(), (&'static str, String)> + Send + Sync>;

/// For so long it is waited at most until nobody listens any more.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// A configuration file.
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// What holds where it says nothing.
    pub defaults: Config,
}

/// The host of one server.
pub struct ServerHost {
    /// The way to the control thread, once it runs.
    pub control: OnceLock<UnboundedSender<Control>>,
    /// The port that is listened on.
    pub port: AtomicU16,
    /// What TLS connections are made with.
    pub tls: Arc<Tls>,
    /// The configuration file.
    pub config_file: Option<ConfigFile>,
    /// The program.
    pub executable: String,
    /// What the process does with a changed configuration.
    pub process: Option<ProcessSettings>,
    /// Whether the process is the server's own: it may be ended by DEBUG, and copied by SCRIPT DEBUG.
    pub may_crash: bool,
    /// Whether the server listens at all.
    pub listens: bool,
    rewriting: Mutex<()>,
    scheduled: AtomicBool,
    peers: Peers,
}

impl ServerHost {
    /// The host of a server that does not run yet.
    pub fn new(config_file: Option<ConfigFile>, executable: String, process: Option<ProcessSettings>) -> ServerHost {
        ServerHost {
            control: OnceLock::new(),
            port: AtomicU16::new(0),
            tls: Arc::default(),
            config_file,
            executable,
            may_crash: process.is_some(),
            process,
            listens: true,
            rewriting: Mutex::new(()),
            scheduled: AtomicBool::new(false),
            peers: Peers::default(),
        }
    }

    /// Listens as the new configuration says. Everything that can fail comes first; where something does, the old
    /// listeners go on, or are opened again.
    fn relisten(&self, new: &Config, old: &Config) -> Result<(), (&'static str, String)> {
        let mut closed = Vec::new();
        let mut opened = Vec::new();
        let changed: Vec<Speech> =
            [Speech::Plain, Speech::Tls].into_iter().filter(|it| it.is_changed(new, old)).collect();
        for speech in &changed {
            // The same port is free only once the old listeners are closed, those on other addresses as well as the other
            // speech's.
            let port = speech.port(new);
            let holders =
                [Speech::Plain, Speech::Tls].into_iter().filter(|holder| port != 0 && holder.port(old) == port);
            for holder in holders.filter(|holder| changed.contains(holder)) {
                if !closed.contains(&holder) {
                    self.send_listeners(holder, Listening::default());
                    closed.push(holder);
                }
            }
            match listener::bind(new, port) {
                Ok(listening) => opened.push((*speech, listening)),
                Err(_) => {
                    drop(opened);
                    for speech in closed {
                        if let Ok(listening) = listener::bind(old, speech.port(old)) {
                            self.send_listeners(speech, listening);
                        }
                    }
                    return Err(match port == speech.port(old) {
                        true => ("bind", "Failed to bind to specified addresses.".into()),
                        false => (speech.directive(), "Unable to listen on this port. Check server logs.".into()),
                    });
                }
            }
        }
        for (speech, listening) in opened {
            if speech == Speech::Plain {
                self.port.store(listening.port, Ordering::Relaxed);
            }
            self.send_listeners(speech, listening);
        }
        Ok(())
    }

    fn send_listeners(&self, speech: Speech, listening: Listening) {
        let (sender, receiver) = mpsc::channel();
        if let Some(control) = self.control.get()
            && control.send(Control::Listen(speech, listening, sender)).is_ok()
        {
            // An error means that the control thread has ended, and its listeners with it.
            let _ = receiver.recv();
        }
    }
}

impl Host for ServerHost {
    fn shutdown(&self, request: ShutdownRequest) -> Result<(), String> {
        let control = self.control.get().ok_or("ERR The server is still starting")?;
        // Whose connection ends because the server does, and who connects again, finds nobody who listens.
        for speech in [Speech::Plain, Speech::Tls] {
            let (sender, receiver) = mpsc::channel();
            if control.send(Control::Listen(speech, Listening::default(), sender)).is_ok() {
                // Should that take long, it ends with everything else.
                let _ = receiver.recv_timeout(CLOSING_MAX);
            }
        }
        control.send(Control::Stop(request)).map_err(|_| "ERR The server is stopping already".to_owned())
    }

    fn abort_shutdown(&self) -> Result<(), String> {
        if self.scheduled.swap(false, Ordering::AcqRel) {
            notice!("Shutdown manually aborted.");
            return Ok(());
        }
        Err("ERR No shutdown in progress.".into())
    }

    fn scheduled(&self) -> &AtomicBool {
        &self.scheduled
    }

    fn apply(&self, new: &Config, old: &Config, changed: &[&'static str]) -> Result<(), (&'static str, String)> {
        let tls_directive = changed.iter().find(|name| name.starts_with("tls-"));
        let contexts = tls_directive.map(|directive| {
            Tls::read(new).map_err(|reason| {
                warning!("{reason}");
                (*directive, "Unable to update TLS configuration. Check server logs.".to_owned())
            })
        });
        let contexts = contexts.transpose()?;
        if let Some(speech) = [Speech::Plain, Speech::Tls].into_iter().find(|speech| speech.is_changed(new, old)) {
            if !self.listens {
                let directive = if speech.port(new) == speech.port(old) { "bind" } else { speech.directive() };
                return Err((directive, "This server was started without a listener.".into()));
            }
            // Who comes to a listener that has just been opened needs it.
            let before = self.tls.current();
            if let Some(contexts) = &contexts {
                self.tls.use_from_now(contexts.clone());
            }
            self.relisten(new, old).inspect_err(|_| self.tls.use_from_now(before))?;
        } else if let Some(contexts) = contexts {
            self.tls.use_from_now(contexts);
        }
        if changed.contains(&"unixsocketgroup") {
            listener::share_unix(new)
                .map_err(|error| ("unixsocketgroup", format!("Can't change the group of the socket: {error}")))?;
        }
        match &self.process {
            Some(process) => process(new, old),
            None => Ok(()),
        }
    }

    fn rewrite_config(&self, config: &Config, users: &[Vec<u8>], all: bool) -> Result<(), String> {
        let ConfigFile { path, defaults } =
            self.config_file.as_ref().ok_or("ERR The server is running without a config file")?;
        let _one_at_a_time = self.rewriting.lock();
        let failed = |error: std::io::Error| {
            tracing::warn!("CONFIG REWRITE failed: {error}");
            let text = error.to_string();
            format!("ERR Rewriting config file: {}", text.split(" (os error").next().unwrap_or(&text))
        };
        let old = disk::read_or_empty(path).map_err(failed)?;
        let extent = if all { Extent::All } else { Extent::Changed };
        disk::replace(path, &rewrite(&old, config, defaults, users, extent)).map_err(failed)?;
        tracing::info!("CONFIG REWRITE executed with success.");
        Ok(())
    }

    fn config_file(&self) -> Option<String> {
        self.config_file.as_ref().map(|file| file.path.to_string_lossy().into_owned())
    }

    fn executable(&self) -> String {
        self.executable.clone()
    }

    fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    fn ask(&self, peer: &Peer, requests: &[u8], count: usize) -> Answers {
        self.peers.ask(peer, &self.tls, requests, count)
    }

    fn export_slots(&self, engine: &Arc<Engine>, name: [u8; 40]) {
        slot_export::start(engine, Name(name), self.tls.clone());
    }

    fn kept_peers(&self) -> usize {
        self.peers.kept()
    }

    fn tidy_peers(&self) {
        self.peers.tidy();
    }

    fn serve_while_busy(&self) {
        worker::serve_while_busy();
    }

    fn may_fork(&self) -> bool {
        self.may_crash
    }

    fn crash(&self) {
        if self.may_crash {
            process::raise(libc::SIGSEGV);
        }
    }

    fn stand_still(&self) {
        if self.may_crash {
            process::raise(libc::SIGSTOP);
        }
    }
}
