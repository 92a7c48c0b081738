//! Listening sockets, and what becomes of those who knock.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::client::shared::{Link, Shared};
use crate::command::engine::Engine;
use crate::config::table::Config;
use crate::observe::log::{notice, verbose, warning};
use crate::observe::stats::Counter;
use crate::server::process::change_group;
use crate::server::stream::Socket;
use crate::server::tls::{Layer, Tls};
use crate::server::worker::{Accepted, WorkerHandle};

/// Sockets that listen.
#[derive(Debug, Default)]
pub struct Listening {
    /// TCP.
    pub tcp: Vec<TcpListener>,
    /// The port of the TCP ones, 0 where there are none.
    pub port: u16,
}

/// What is spoken by those who come over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speech {
    /// Requests.
    Plain,
    /// Requests within TLS.
    Tls,
}

impl Speech {
    /// What its listeners are called.
    pub fn name(self) -> &'static str {
        match self {
            Speech::Plain => "tcp",
            Speech::Tls => "tls",
        }
    }

    /// The port that is configured for it.
    pub fn port(self, config: &Config) -> u16 {
        match self {
            Speech::Plain => config.port,
            Speech::Tls => config.tls_port,
        }
    }

    /// Whether its listeners are others under another configuration.
    pub fn is_changed(self, new: &Config, old: &Config) -> bool {
        self.port(new) != self.port(old) || new.bind != old.bind && self.port(new) != 0
    }

    /// The directive of that port.
    pub fn directive(self) -> &'static str {
        match self {
            Speech::Plain => "port",
            Speech::Tls => "tls-port",
        }
    }
}

/// Why nothing could be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The port.
    pub port: u16,
}

/// Listens on the addresses of `bind` and on `port`; on none where the port is 0.
///
/// # Errors
/// Where an address without a leading `-` cannot be bound, or none at all could be.
pub fn bind(config: &Config, port: u16) -> Result<Listening, BindError> {
    let mut listening = Listening { tcp: Vec::new(), port };
    if port == 0 || config.bind.0.is_empty() {
        return Ok(Listening::default());
    }
    listen(config, port, &mut listening)?;
    Ok(listening)
}

/// Listens on an ephemeral port of the first address.
///
/// # Errors
/// Where it cannot be bound.
pub fn bind_ephemeral(config: &Config) -> Result<Listening, BindError> {
    let mut listening = Listening::default();
    listen(config, 0, &mut listening)?;
    listening.port = listening.tcp.first().and_then(|l| l.local_addr().ok()).map_or(0, |addr| addr.port());
    Ok(listening)
}

fn listen(config: &Config, port: u16, listening: &mut Listening) -> Result<(), BindError> {
    for name in &config.bind.0 {
        let optional = name.starts_with('-');
        let plain = name.trim_start_matches('-');
        let result = addresses(plain, port).and_then(|all| {
            all.into_iter().try_for_each(|addr| {
                listening.tcp.push(open(addr, config)?);
                Ok(())
            })
        });
        let Err(error) = result else {
            if port == 0 {
                break;
            }
            continue;
        };
        let text = error.to_string();
        let words = text.split(" (os error").next().unwrap_or(&text);
        warning!("Warning: Could not create server TCP listening socket {plain}:{port}: {words}");
        let missing = matches!(
            error.raw_os_error(),
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT)
        ) || error.kind() == io::ErrorKind::Unsupported;
        if !(optional && missing) {
            return Err(BindError { port });
        }
    }
    if listening.tcp.is_empty() { Err(BindError { port }) } else { Ok(()) }
}

fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        "*" => Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into()]),
        "::*" => Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into()]),
        name => match name.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![(ip, port).into()]),
            Err(_) => (name, port).to_socket_addrs().map(|all| all.take(1).collect()),
        },
    }
}

fn open(addr: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if config.socket_mark_id != 0 {
        socket.set_mark(config.socket_mark_id)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(config.tcp_backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on the Unix socket of the configuration, if there is one.
///
/// # Errors
/// What the system says.
pub fn bind_unix(config: &Config) -> io::Result<Option<(UnixListener, PathBuf)>> {
    let Some(path) = &config.unixsocket else { return Ok(None) };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    // What an earlier process left behind would be in the way.
    crate::persist::disk::remove(&path);
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    if config.unixsocketperm != 0 {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(config.unixsocketperm))?;
    }
    if config.unixsocketgroup.is_some() {
        share_unix(config)?;
    }
    Ok(Some((listener, path)))
}

/// Gives the Unix socket to the group of the configuration, or back to that of the process.
///
/// # Errors
/// Where there is no such group, or the system refuses.
pub fn share_unix(config: &Config) -> io::Result<()> {
    let Some(path) = &config.unixsocket else { return Ok(()) };
    change_group(Path::new(OsStr::from_bytes(path)), config.unixsocketgroup.as_deref())
}

/// Hands accepted sockets to the workers.
#[derive(Clone)]
pub struct Reception {
    /// The server.
    pub engine: Arc<Engine>,
    /// Its workers.
    pub workers: Vec<WorkerHandle>,
    /// How TLS begins.
    pub tls: Arc<Tls>,
}

/// The text that a client from elsewhere reads while protected mode is on.
const PROTECTED: &str = "-DENIED Spinel runs in protected mode: protected mode is enabled and no password is set for \
the default user, so only connections from the loopback interface are accepted. To accept others, 1) switch it off \
with 'CONFIG SET protected-mode no' from this host, and make sure that the server cannot be reached from the internet, \
2) or switch it off in the configuration file, 3) or for tests start the server with '--protected-mode no', 4) or set \
a password for the default user.\r\n";

const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

impl Reception {
    /// Accepts TCP connections until it is dropped.
    pub async fn tcp(self, listener: TcpListener, speech: Speech) {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match stream.into_std() {
                    Ok(stream) => self.admit_tcp(stream, peer, speech),
                    Err(error) => warning!("Accepting client connection: {error}"),
                },
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Accepts connections of a Unix socket until it is dropped.
    pub async fn unix(self, listener: UnixListener, path: String) {
        let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match stream.into_std() {
                    Ok(stream) => {
                        self.admit(Socket::Unix(stream), None, Link::Unix, format!("{path}:0"), format!("{path}:0"));
                    }
                    Err(error) => warning!("Accepting client connection: {error}"),
                },
                Err(error) => pause_after(&error).await,
            }
        }
    }

    fn admit_tcp(&self, stream: std::net::TcpStream, peer: SocketAddr, speech: Speech) {
        let (link, tls) = match speech {
            Speech::Plain => (Link::Tcp, None),
            Speech::Tls => match self.tls.accept() {
                Ok(tls) => (Link::Tls, Some(tls)),
                Err(error) => return warning!("Accepting client connection: {error}"),
            },
        };
        let config = self.engine.config.load();
        let nopass = self.engine.users.default_account().rules().nopass;
        if config.protected_mode && nopass && !peer.ip().to_canonical().is_loopback() {
            if tls.is_none() {
                let _ = io::Write::write(&mut &stream, PROTECTED.as_bytes());
            }
            self.engine.stats.add(Counter::ConnectionsRejected, 1);
            return;
        }
        // A socket that is gone already shows when it is read.
        let _ = stream.set_nodelay(true);
        if config.tcp_keepalive > 0 {
            let seconds = u64::from(config.tcp_keepalive);
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)))
                .with_retries(3);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        }
        let local = stream.local_addr().map_or_else(|_| "?:0".into(), |addr| addr.to_string());
        self.admit(Socket::Tcp(stream), tls, link, peer.to_string(), local);
    }

    fn admit(&self, socket: Socket, tls: Option<Box<Layer>>, link: Link, addr: String, laddr: String) {
        let engine = &self.engine;
        let config = engine.config.load();
        let fd = match &socket {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        };
        if engine.clients.len() >= usize::try_from(config.maxclients).unwrap_or(usize::MAX) {
            // One attempt: who does not read it is none the wiser, but nobody waits for him.
            let _ = match &socket {
                // Nothing was agreed on yet in which it could be told.
                Socket::Tcp(_) if tls.is_some() => Ok(0),
                Socket::Tcp(stream) => io::Write::write(&mut &*stream, TOO_MANY.as_bytes()),
                Socket::Unix(stream) => io::Write::write(&mut &*stream, TOO_MANY.as_bytes()),
            };
            engine.stats.add(Counter::ConnectionsRejected, 1);
            return;
        }
        verbose!("Accepted {addr}");
        engine.stats.add(Counter::ConnectionsReceived, 1);
        let shared = Arc::new(Shared::new(engine.clients.next_id(), link, addr, laddr, fd, engine.clock.now_ms()));
        engine.clients.add(shared.clone());
        let least = self.workers.iter().min_by_key(|worker| worker.connections());
        if let Some(worker) = least {
            worker.give(Accepted { socket, tls, shared });
        }
    }
}

/// After an error such as "too many open files", the same error would come again at once.
async fn pause_after(error: &io::Error) {
    warning!("Accepting client connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Says that a listener is ready, in the words that supervisors wait for.
pub fn announce(kind: &str) {
    notice!("Ready to accept connections {kind}");
}
