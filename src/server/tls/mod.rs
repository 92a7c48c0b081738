//! TLS for clients, primaries, replicas and nodes of a cluster, by rustls.
//!
//! What must stay true: connections that exist keep what they began with; new ones are made with what was read last, and
//! what cannot be read changes nothing. Versions before 1.2, and key exchange other than by elliptic curves, are not
//! spoken. A build without the feature has the same face, and refuses to begin.

#[cfg(not(feature = "tls"))]
#[path = "absent.rs"]
mod parts;
#[cfg(feature = "tls")]
mod parts {
    pub use super::contexts::Contexts;
    pub use super::layer::Layer;
    pub use super::outbound::Secured;
    pub use super::tasks::{accept, connect};
}

#[cfg(feature = "tls")]
mod contexts;
#[cfg(feature = "tls")]
mod layer;
#[cfg(feature = "tls")]
mod outbound;
#[cfg(feature = "tls")]
mod sessions;
#[cfg(feature = "tls")]
mod tasks;
#[cfg(feature = "tls")]
mod verify;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::table::Config;
pub use parts::{Contexts, Layer, Secured};

/// What one server's TLS connections are made with, as far as it has any.
#[derive(Debug, Default)]
pub struct Tls(ArcSwapOption<Contexts>);

/// A connection that a task reads and writes.
pub type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// Whether the configuration has TLS anywhere.
pub fn is_wanted(config: &Config) -> bool {
    config.tls_port != 0 || config.tls_replication || config.tls_cluster
}

impl Tls {
    /// What connections are to be made with under a configuration; none where it has no TLS.
    ///
    /// # Errors
    /// What is missing or wrong, in words for the log.
    pub fn read(config: &Config) -> Result<Option<Arc<Contexts>>, String> {
        if is_wanted(config) { Contexts::read(config).map(|contexts| Some(Arc::new(contexts))) } else { Ok(None) }
    }

    /// Makes connections with this from now on.
    pub fn use_from_now(&self, contexts: Option<Arc<Contexts>>) {
        self.0.store(contexts);
    }

    /// What they are made with now.
    pub fn current(&self) -> Option<Arc<Contexts>> {
        self.0.load_full()
    }

    fn contexts(&self) -> io::Result<Arc<Contexts>> {
        self.0.load_full().ok_or_else(|| io::Error::other("TLS is not configured"))
    }

    /// The state of a connection that a client has just opened.
    ///
    /// # Errors
    /// That TLS is not configured.
    pub fn accept(&self) -> io::Result<Box<Layer>> {
        Layer::new(&*self.contexts()?)
    }

    /// Agrees with a server that was connected to, which has so long for each of its answers.
    ///
    /// # Errors
    /// Why it is not believed, or does not believe us; what the socket says.
    pub fn connect(&self, socket: TcpStream, host: &str, patience: Duration) -> io::Result<Secured> {
        Secured::connect(&*self.contexts()?, socket, host, patience)
    }

    /// Agrees, in a task, with whoever has connected to this server.
    ///
    /// # Errors
    /// As [`Tls::connect`].
    pub async fn accept_task(&self, socket: tokio::net::TcpStream) -> io::Result<Halves> {
        parts::accept(&*self.contexts()?, socket).await
    }

    /// Agrees, in a task, with a server that was connected to.
    ///
    /// # Errors
    /// As [`Tls::connect`].
    pub async fn connect_task(&self, socket: tokio::net::TcpStream) -> io::Result<Halves> {
        parts::connect(&*self.contexts()?, socket).await
    }
}
