//! Connections that the server opens itself, with TLS or without, for threads that may wait.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::tls::{Secured, Tls};

/// A connection to another server.
#[derive(Debug)]
pub enum Outbound {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Secured(Secured),
}

impl Outbound {
    /// What is spoken over a socket that has just been connected to `host`: with `tls`, that is agreed on first, for which
    /// the other side has `patience`.
    ///
    /// # Errors
    /// Why there is no agreement.
    pub fn begin(socket: TcpStream, host: &str, tls: Option<&Tls>, patience: Duration) -> io::Result<Outbound> {
        match tls {
            None => Ok(Outbound::Plain(socket)),
            Some(tls) => tls.connect(socket, host, patience).map(Outbound::Secured),
        }
    }

    /// Whether it has TLS.
    pub fn is_secured(&self) -> bool {
        matches!(self, Outbound::Secured(_))
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Outbound::Plain(socket) => socket,
            Outbound::Secured(secured) => secured.socket(),
        }
    }
}

impl Read for Outbound {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Outbound::Plain(socket) => socket.read(buf),
            Outbound::Secured(secured) => secured.read(buf),
        }
    }
}

impl Write for Outbound {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Outbound::Plain(socket) => socket.write(buf),
            Outbound::Secured(secured) => secured.write(buf),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Outbound::Plain(socket) => socket.write_vectored(slices),
            Outbound::Secured(secured) => secured.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Outbound::Plain(socket) => socket.flush(),
            Outbound::Secured(secured) => secured.flush(),
        }
    }
}
