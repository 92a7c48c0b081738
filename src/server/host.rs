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

    fn relisten(&self, speech: Speech, new: &Config, old: &Config) -> Result<(), (&'static str, String)> {
        let (port, before) = (speech.port(new), speech.port(old));
        let directive = if port == before { "bind" } else { speech.directive() };
        let failed = |what: &str| (directive, what.to_owned());
        // The same port on other addresses is free only once the old listeners are closed.
        if directive == "bind" {
            self.send_listeners(speech, Listening::default());
        }
        match listener::bind(new, port) {
            Ok(listening) => {
                if speech == Speech::Plain {
                    self.port.store(listening.port, Ordering::Relaxed);
                }
                self.send_listeners(speech, listening);
                Ok(())
            }
            Err(_) => {
                if directive == "bind" {
                    if let Ok(listening) = listener::bind(old, before) {
                        self.send_listeners(speech, listening);
                    }
                    return Err(failed("Failed to bind to specified addresses."));
                }
                Err(failed("Unable to listen on this port. Check server logs."))
            }
        }
    }

    /// Reads again what TLS is made with, where that may be something else now.
    fn follow_tls(&self, new: &Config, changed: &[&'static str]) -> Result<(), (&'static str, String)> {
        let Some(directive) = changed.iter().find(|name| name.starts_with("tls-")) else { return Ok(()) };
        self.tls.follow(new).map_err(|reason| {
            warning!("{reason}");
            (*directive, "Unable to update TLS configuration. Check server logs.".to_owned())
        })
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
        self.follow_tls(new, changed)?;
        for speech in [Speech::Plain, Speech::Tls] {
            let (port, before) = (speech.port(new), speech.port(old));
            if port == before && (new.bind == old.bind || port == 0) {
                continue;
            }
            if !self.listens {
                let directive = if port == before { "bind" } else { speech.directive() };
                return Err((directive, "This server was started without a listener.".into()));
            }
            self.relisten(speech, new, old)?;
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
}
