//! TLS on the socket of a client: what goes over the socket on one side, what is said on the other.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::{Error as TlsError, ServerConnection};

use crate::server::tls::contexts::Contexts;

/// The state of one connection.
#[derive(Debug)]
pub struct Layer(ServerConnection);

impl Layer {
    /// Awaits a client's greeting.
    ///
    /// # Errors
    /// What the library says of its configuration.
    pub fn new(contexts: &Contexts) -> io::Result<Box<Layer>> {
        let session = ServerConnection::new(contexts.server.clone()).map_err(io::Error::other)?;
        Ok(Box::new(Layer(session)))
    }

    /// Reads what was said and has come already; `WouldBlock` where more has to come, 0 at the end.
    ///
    /// # Errors
    /// As said.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.reader().read(buf) {
            // Who leaves without a farewell has left as well: requests say themselves where they end.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }

    /// Takes in what the socket has.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` where the peer is not to be believed, `InvalidInput` where it speaks no TLS.
    pub fn take_in(&mut self, socket: &mut dyn Read) -> io::Result<()> {
        self.0.read_tls(socket)?;
        self.0.process_new_packets().map(|_| ()).map_err(|error| match error {
            TlsError::InvalidMessage(_) => io::Error::new(ErrorKind::InvalidInput, error),
            _ => io::Error::new(ErrorKind::InvalidData, error),
        })
    }

    /// Takes what is to be said, as much as there is room for; returns how many bytes.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.writer().write_vectored(slices)
    }

    /// Whether something waits to go over the socket.
    pub fn has_unsent(&self) -> bool {
        self.0.wants_write()
    }

    /// Gives the socket what waits for it, once.
    ///
    /// # Errors
    /// What the socket says.
    pub fn give_out(&mut self, socket: &mut dyn Write) -> io::Result<()> {
        self.0.write_tls(socket).map(|_| ())
    }

    /// Says farewell.
    pub fn end(&mut self) {
        self.0.send_close_notify();
    }
}
