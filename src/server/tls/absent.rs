//! In place of TLS where it was left out of the build.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::config::table::Config;
use crate::server::tls::Halves;

/// There are none.
#[derive(Debug)]
pub enum Contexts {}

impl Contexts {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn read(_: &Config) -> Result<Contexts, String> {
        Err("This program was built without TLS: it needs the feature `tls`.".into())
    }
}

/// There is none.
#[derive(Debug)]
pub enum Layer {}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "what the real ones say, which are never called")]
impl Layer {
    pub fn new(contexts: &Contexts) -> io::Result<Box<Layer>> {
        match *contexts {}
    }

    pub fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub fn take_in(&mut self, _: &mut dyn Read) -> io::Result<()> {
        match *self {}
    }

    pub fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub fn has_unsent(&self) -> bool {
        match *self {}
    }

    pub fn give_out(&mut self, _: &mut dyn Write) -> io::Result<()> {
        match *self {}
    }

    pub fn end(&mut self) {
        match *self {}
    }
}

/// There is none.
#[derive(Debug)]
pub enum Secured {}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "what the real ones say, which are never called")]
impl Secured {
    pub fn connect(contexts: &Contexts, _: TcpStream, _: &str, _: Duration) -> io::Result<Secured> {
        match *contexts {}
    }

    pub fn socket(&self) -> &TcpStream {
        match *self {}
    }
}

impl Read for Secured {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Write for Secured {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}

/// Never called.
#[allow(clippy::unused_async, clippy::missing_errors_doc, reason = "as the real one is")]
pub async fn accept(contexts: &Contexts, _: tokio::net::TcpStream) -> io::Result<Halves> {
    match *contexts {}
}

/// Never called.
#[allow(clippy::unused_async, clippy::missing_errors_doc, reason = "as the real one is")]
pub async fn connect(contexts: &Contexts, _: tokio::net::TcpStream) -> io::Result<Halves> {
    match *contexts {}
}
