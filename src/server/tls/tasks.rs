//! TLS on connections that tasks read and write: those of the cluster bus.

use std::io;

use tokio::io::split;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::server::tls::Halves;
use crate::server::tls::contexts::Contexts;
use crate::server::tls::outbound::name_of;

/// Agrees with whoever has connected.
///
/// # Errors
/// Why there is no agreement.
pub async fn accept(contexts: &Contexts, socket: TcpStream) -> io::Result<Halves> {
    let stream = TlsAcceptor::from(contexts.server.clone()).accept(socket).await?;
    let (reader, writer) = split(stream);
    Ok((Box::new(reader), Box::new(writer)))
}

/// Agrees with the server that was connected to.
///
/// # Errors
/// Why there is no agreement.
pub async fn connect(contexts: &Contexts, socket: TcpStream) -> io::Result<Halves> {
    let config = contexts.client.clone().ok_or_else(|| io::Error::other("no authority is configured"))?;
    let name = name_of(&socket.peer_addr()?.ip().to_string());
    let stream = TlsConnector::from(config).connect(name, socket).await?;
    let (reader, writer) = split(stream);
    Ok((Box::new(reader), Box::new(writer)))
}
