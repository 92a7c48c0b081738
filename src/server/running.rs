//! A running server: its threads, and the handle to them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::client::shared::Link;
use crate::cluster::machine::{BUS_PORT_OFFSET, Settings, base_port, bus_port};
use crate::cluster::shared::Cluster;
use crate::command::cluster::keys;
use crate::command::engine::{Engine, Refusal, ShutdownRequest};
use crate::command::save;
use crate::config::table::Config;
use crate::keyspace::change::Change;
use crate::keyspace::hash::Routing;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::space::Keyspace;
use crate::observe::crash;
use crate::observe::log::warning;
use crate::persist::disk;
use crate::persist::log::Reader;
use crate::server::host::{Control, ServerHost};
use crate::server::listener::{self, Listening, Reception, Speech};
use crate::server::local::Client;
use crate::server::tls::Tls;
use crate::server::{bus, replica_link, timers, worker};
use crate::stdx::clock::Clock;
use crate::stdx::memory;

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Where its configuration says.
    Configured,
    /// On a free port of the first configured address.
    Ephemeral,
    /// Nowhere: it is called in process only.
    Nowhere,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The port is taken, or the address is not there.
    Listen(u16),
    /// The same of the port for TLS.
    ListenTls(u16),
    /// The Unix socket cannot be opened.
    UnixSocket(io::Error),
    /// The configuration cannot be carried out.
    Config(String),
    /// The data set cannot be loaded.
    Load(String),
    /// The system refuses threads or sockets.
    System(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Listen(port) => write!(f, "Failed listening on port {port} (tcp), aborting."),
            StartError::ListenTls(port) => write!(f, "Failed listening on port {port} (tls), aborting."),
            StartError::UnixSocket(error) => write!(f, "Failed opening Unix socket: bind: {error}"),
            StartError::Config(reason) => f.write_str(reason),
            StartError::Load(reason) => f.write_str(reason),
            StartError::System(error) => write!(f, "The system refuses what the server needs: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::System(error)
    }
}

/// What a server is made of, beside its configuration.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Its time.
    pub clock: Clock,
    /// Where it listens.
    pub listen: Listen,
    /// What surrounds it.
    pub host: ServerHost,
}

/// The end of a server, as those see it who hold on to it: its clients, and whoever waits.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// It was asked to end: from here on clients in this process are refused.
    begun: AtomicBool,
    /// How it was asked, once its threads are gone.
    request: Mutex<Option<ShutdownRequest>>,
    bell: Condvar,
}

impl End {
    /// Whether the server was asked to end.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    fn wait(&self) -> ShutdownRequest {
        let mut request = self.request.lock();
        loop {
            if let Some(request) = *request {
                return request;
            }
            self.bell.wait(&mut request);
        }
    }

    fn has_come(&self, request: ShutdownRequest) {
        self.begun.store(true, Ordering::Release);
        self.request.lock().get_or_insert(request);
        self.bell.notify_all();
    }
}

/// Announces the end when the control thread is gone, by a panic too: nobody waits for ever.
struct Announce(Arc<End>, ShutdownRequest);

impl Drop for Announce {
    fn drop(&mut self) {
        self.0.has_come(self.1);
    }
}

/// A server that runs. Dropped, it ends; a program that has nothing else to do calls [`Server::wait`].
///
/// It can be shared between threads: every method but [`Server::shutdown`] takes `&self`.
pub struct Server {
    engine: Arc<Engine>,
    addrs: Vec<SocketAddr>,
    has_tls: bool,
    end: Arc<End>,
    control: Option<JoinHandle<()>>,
    unix_path: Option<PathBuf>,
}

impl Server {
    /// Starts a server; it serves when this returns.
    ///
    /// # Errors
    /// Where it cannot listen, or the system refuses threads.
    pub fn start(parts: Parts) -> Result<Server, StartError> {
        let Parts { mut config, clock, listen, mut host } = parts;
        // Who is told to load one needs its commands.
        if let Some(line) = config.lines.iter().find(|line| line.directive == "loadmodule") {
            let path = line.words.first().map_or_else(String::new, |path| String::from_utf8_lossy(path).into_owned());
            warning!("Module {path} failed to load: Spinel has no modules");
            return Err(StartError::Config(format!("Can't load module from {path}: server aborting")));
        }
        // Where it does not exist, nothing can be saved there, and saving says so.
        if let Ok(dir) = disk::absolute(Path::new(OsStr::from_bytes(&config.dir.0))) {
            config.dir.0 = dir.into_os_string().into_vec();
        }
        let port = config.port;
        let listening = match listen {
            Listen::Configured => listener::bind(&config, port),
            Listen::Ephemeral => listener::bind_ephemeral(&config),
            Listen::Nowhere => Ok(Listening::default()),
        };
        let listening = listening.map_err(|error| StartError::Listen(error.port))?;
        let tls = host.tls.clone();
        match Tls::read(&config) {
            Ok(contexts) => tls.use_from_now(contexts),
            Err(reason) => {
                warning!("{reason}");
                return Err(StartError::Config("Failed to configure TLS. Check logs for more info.".into()));
            }
        }
        let secured = match listen {
            Listen::Configured => listener::bind(&config, config.tls_port),
            Listen::Ephemeral | Listen::Nowhere => Ok(Listening::default()),
        };
        let secured = secured.map_err(|error| StartError::ListenTls(error.port))?;
        let unix = match listen {
            Listen::Nowhere => None,
            _ => listener::bind_unix(&config).map_err(StartError::UnixSocket)?,
        };
        match listen {
            Listen::Configured => {}
            // What CONFIG GET tells is the port that was found, so that CONFIG SET can move away from it.
            Listen::Ephemeral => config.port = listening.port,
            Listen::Nowhere => config.port = 0,
        }
        host.listens = listen != Listen::Nowhere;
        host.port.store(listening.port, Ordering::Relaxed);
        let (sender, receiver) = unbounded_channel();
        // The cell was made with the host and nobody else has it yet.
        let _ = host.control.set(sender);
        let has_tls = !secured.tcp.is_empty();
        let addrs = listening.tcp.iter().filter_map(|l| l.local_addr().ok()).collect();
        let workers = usize::try_from(config.io_threads).unwrap_or(1).max(1);
        let routing = if config.cluster_enabled { Routing::Slot } else { Routing::Hash };
        let keyspace = Keyspace::new(routing, workers)?;
        let engine = Engine::shared(config, clock, Box::new(host), keyspace).map_err(StartError::Config)?;
        let base = base_port(&engine.config.load(), listening.port);
        let bus = match &engine.cluster {
            Some(cluster) if base != 0 => Some(start_bus(&engine, cluster, tls.clone(), listening.port)?),
            _ => None,
        };
        let end = Arc::new(End::default());
        let unix_path = unix.as_ref().map(|(_, path)| path.clone());
        let control = Controller::start(
            Reception { engine: engine.clone(), workers: Vec::new(), tls },
            workers,
            [(Speech::Plain, listening), (Speech::Tls, secured)],
            unix,
            receiver,
            end.clone(),
            bus,
        )?;
        engine.replication.set_keep(engine.config.load().repl_backlog_size);
        engine.memory_startup.store(memory::used() as u64, Ordering::Relaxed);
        Ok(Server { engine, addrs, has_tls, end, control: Some(control), unix_path })
    }

    /// Reads the data set that the configuration names, if it is there, and says that the server is ready.
    ///
    /// # Errors
    /// The file cannot be read, or not to its end.
    pub(crate) fn load(&self) -> Result<(), StartError> {
        save::load_at_start(&self.engine).map_err(StartError::Load)?;
        if let Some(cluster) = &self.engine.cluster {
            let filled = keys::filled(&self.engine);
            cluster.with(self.engine.clock.now_ms(), |machine| machine.account_for_keys(filled.into_iter()));
        }
        if !self.engine.is_refusing(Refusal::Ending) {
            self.announce();
        }
        Ok(())
    }

    /// Says that connections are accepted, in the words that supervisors wait for.
    pub(crate) fn announce(&self) {
        if !self.addrs.is_empty() {
            listener::announce(Speech::Plain.name());
        }
        if self.has_tls {
            listener::announce(Speech::Tls.name());
        }
        if self.unix_path.is_some() {
            listener::announce("unix");
        }
    }

    /// The first address that it began to listen on; `None` where it listens nowhere.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addrs.first().copied()
    }

    /// All addresses that it began to listen on. CONFIG SET of `bind` or `port` may have changed them.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// A client in this process: no socket, the same commands.
    ///
    /// It may outlive the server, but is answered with an error then; see [`Client::execute`].
    pub fn client(&self) -> Client {
        Client::new(self.engine.clone(), self.end.clone())
    }

    /// Calls `observer` for every change of a key, while the key's shard is held: it must be quick and
    /// must not call the server.
    pub fn observe(&self, observer: impl Fn(&Change) + Send + Sync + 'static) {
        self.engine.observe(Box::new(observer));
    }

    /// Calls `reader` with every change as a command that can be run again, in one order; see
    /// [`Reader`].
    pub fn read_log(&self, reader: Reader) {
        self.engine.log.read_with(reader);
    }

    /// The engine, for what is built around the server.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Waits until it has ended, because a client sent SHUTDOWN or [`Server::ask_to_end`] was called;
    /// returns how it was asked. The process goes on. Several threads may wait, and once it has ended
    /// everyone is answered at once.
    pub fn wait(&self) -> ShutdownRequest {
        self.end.wait()
    }

    /// Asks it to end, without waiting: connections are closed, and [`Server::wait`] returns soon.
    pub fn ask_to_end(&self, request: ShutdownRequest) {
        self.engine.scripts.running.interrupt(|| {
            let _alone = self.engine.keyspace.gates().alone();
            // What could not be saved was logged; an error of the host means that it ends already.
            let _ = save::end(&self.engine, &mut self.engine.keyspace.hold(ShardSet::ALL), request);
        });
    }

    /// Ends it: closes listeners and connections, and waits for its threads.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.control.is_some() && !self.end.has_begun() {
            self.ask_to_end(ShutdownRequest { force: true, ..ShutdownRequest::default() });
        }
        if let Some(control) = self.control.take() {
            // A panic there was reported where it happened.
            let _ = control.join();
        }
        if let Some(path) = self.unix_path.take() {
            disk::remove(&path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Becomes the node that `nodes.conf` tells of, and opens the bus.
fn start_bus(
    engine: &Arc<Engine>,
    cluster: &Arc<Cluster>,
    tls: Arc<Tls>,
    port: u16,
) -> Result<bus::Running, StartError> {
    let config = engine.config.load();
    if config.cluster_port == 0 && base_port(&config, port) > u16::MAX - BUS_PORT_OFFSET {
        return Err(StartError::Config(format!(
            "Redis port number too high for cluster mode. The cluster bus port number is that of clients and {BUS_PORT_OFFSET} more: either take a port up to {}, or set cluster-port.",
            u16::MAX - BUS_PORT_OFFSET
        )));
    }
    let bus_port = bus_port(&config, port);
    let path = Path::new(OsStr::from_bytes(&config.dir.0)).join(OsStr::from_bytes(&config.cluster_config_file));
    let settings = Settings::of(&config, port);
    cluster.open(&path, settings, engine.clock.now_ms()).map_err(|error| StartError::Config(error.to_string()))?;
    let listening = listener::bind(&config, bus_port).map_err(|error| StartError::Listen(error.port))?;
    Ok(bus::start(engine.clone(), cluster.clone(), tls, listening.tcp)?)
}

/// The control thread: accepts connections, starts and ends the others.
struct Controller {
    reception: Reception,
    accepting: BTreeMap<Speech, Vec<tokio::task::JoinHandle<()>>>,
}

impl Controller {
    fn start(
        mut reception: Reception,
        workers: usize,
        listening: [(Speech, Listening); 2],
        unix: Option<(std::os::unix::net::UnixListener, PathBuf)>,
        receiver: UnboundedReceiver<Control>,
        end: Arc<End>,
        bus: Option<bus::Running>,
    ) -> Result<JoinHandle<()>, StartError> {
        let engine = reception.engine.clone();
        let mut threads = Vec::new();
        for number in 0..workers {
            let (handle, thread) = worker::start(engine.clone(), number)?;
            reception.workers.push(handle);
            threads.push(thread);
        }
        // Where a later step fails they end with it, as the workers do.
        let timers = timers::start(engine.clone())?;
        let link = replica_link::start(engine, reception.tls.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            crash::prepare_thread();
            let mut announce = Announce(end, ShutdownRequest::default());
            let mut controller = Controller { reception, accepting: BTreeMap::new() };
            let request = runtime.block_on(async {
                listening.into_iter().for_each(|(speech, listening)| controller.listen(speech, listening));
                if let Some((listener, path)) = unix {
                    let reception = controller.reception.clone();
                    tokio::spawn(reception.unix(listener, path.to_string_lossy().into_owned()));
                }
                controller.run(receiver).await
            });
            announce.0.begun.store(true, Ordering::Release);
            announce.1 = request;
            // Those who wait for messages in this process learn that none will come.
            controller.reception.engine.clients.for_each(|client| {
                if client.link == Link::InProcess {
                    client.wake();
                }
            });
            drop(runtime);
            drop(bus);
            // The workers end when the last way to them is gone.
            drop(controller);
            for thread in threads {
                if thread.join().is_err() {
                    warning!("A worker ended by a panic");
                }
            }
            drop(timers);
            drop(link);
        })?;
        Ok(thread)
    }

    fn listen(&mut self, speech: Speech, listening: Listening) {
        let accepting = self.accepting.entry(speech).or_default();
        for listener in listening.tcp {
            accepting.push(tokio::spawn(self.reception.clone().tcp(listener, speech)));
        }
    }

    async fn run(&mut self, mut receiver: UnboundedReceiver<Control>) -> ShutdownRequest {
        while let Some(message) = receiver.recv().await {
            match message {
                Control::Listen(speech, listening, answer) => {
                    for task in self.accepting.remove(&speech).unwrap_or_default() {
                        task.abort();
                        // It was aborted: that is what is waited for.
                        let _ = task.await;
                    }
                    self.listen(speech, listening);
                    // Who asked may have gone.
                    let _ = answer.send(());
                }
                Control::Stop(request) => return request,
            }
        }
        ShutdownRequest::default()
    }
}
