//! TLS on a connection that this server has opened, read and written by a thread that may wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::server::tls::contexts::Contexts;

/// A connection on which both sides have agreed.
#[derive(Debug)]
pub struct Secured(Box<StreamOwned<ClientConnection, TcpStream>>);

/// What a server is asked for by; nobody compares it with its certificate.
pub fn name_of(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| IpAddr::from(Ipv4Addr::LOCALHOST).into())
}

impl Secured {
    /// Agrees with the server at the other end.
    ///
    /// # Errors
    /// Why it is not believed; what the socket says.
    pub fn connect(contexts: &Contexts, mut socket: TcpStream, host: &str, patience: Duration) -> io::Result<Secured> {
        let config = contexts.client.clone().ok_or_else(|| io::Error::other("no authority is configured"))?;
        let mut session = ClientConnection::new(config, name_of(host)).map_err(io::Error::other)?;
        let (reading, writing) = (socket.read_timeout()?, socket.write_timeout()?);
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
                _ => error,
            })?;
        }
        socket.set_read_timeout(reading)?;
        socket.set_write_timeout(writing)?;
        Ok(Secured(Box::new(StreamOwned::new(session, socket))))
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

impl Read for Secured {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for Secured {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.0.write(buf)?;
        // Else what did not fit into the socket would wait for the next reading. Interrupted, it must not be begun anew: what
        // was written is.
        loop {
            match self.0.flush() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                flushed => return flushed.map(|()| written),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
