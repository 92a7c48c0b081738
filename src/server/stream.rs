//! A connection's socket: TCP or Unix, with TLS or without, read and written without waiting.
//!
//! Its worker is told of changes, not of states (edge-triggered epoll), so the socket remembers here whether there may
//! be something to read, and room to write: that is known to be over only when the system says so, or when it gave less
//! than there was room for.

use std::hint::cold_path;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use rustix::buffer::{Buffer, spare_capacity};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg, sockopt};

use crate::server::tls::Layer;

/// At most so much is taken from TLS at once where room has to be made for it: what one of its records holds.
const RECORD_BYTES: usize = 16 * 1024;

/// A socket that is connected.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A socket with what is known of it.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    /// There may be something to read.
    readable: bool,
    /// There may be room to write.
    writable: bool,
    /// The peer sends no more, or is gone: the end is there to be read behind what was sent.
    ended: bool,
    tls: Option<Box<Layer>>,
    /// TLS has something that the socket did not take yet.
    unsent: bool,
    /// Nothing is sent any more: the peer speaks no TLS.
    mute: bool,
}

/// The socket, as TLS reads it.
struct Incoming<'s> {
    socket: &'s Socket,
    readable: &'s mut bool,
    ended: bool,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len();
        let came = recv(self.socket, buf, RecvFlags::empty()).map(|(_, n)| n);
        *self.readable = match came {
            Ok(n) => n == room || self.ended,
            Err(error) => error != Errno::AGAIN,
        };
        Ok(came?)
    }
}

/// The socket, as TLS writes it.
struct Outgoing<'s>(&'s Socket);

impl Write for Outgoing<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, buf, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Takes a socket over.
    ///
    /// # Errors
    /// What the system says where the socket cannot be told not to wait.
    pub fn new(socket: Socket, tls: Option<Box<Layer>>) -> io::Result<Stream> {
        match &socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true)?,
            Socket::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(Stream { socket, readable: true, writable: true, ended: false, tls, unsent: false, mute: false })
    }

    /// Notes what the system told of the socket.
    pub fn note(&mut self, flags: EventFlags) {
        self.ended |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.readable |= self.ended || flags.contains(EventFlags::IN);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// Whether there may be something to read; the worker is told when that changes.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads what is there; returns how many bytes came, 0 at the end of the stream.
    pub fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            cold_path();
            return self.receive_secured(buf);
        }
        let room = buf.len();
        self.receive(buf, room)
    }

    /// Reads what is there behind what `buf` holds, up to its capacity; returns how many bytes came.
    pub fn append(&mut self, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        if self.tls.is_some() {
            cold_path();
            let len = buf.len();
            buf.resize(len + room.min(RECORD_BYTES), 0);
            let read = self.receive_secured(&mut buf[len..]);
            buf.truncate(len + if let Poll::Ready(Ok(n)) = read { n } else { 0 });
            return read;
        }
        self.receive(spare_capacity(buf), room)
    }

    /// Reads what was said over TLS, and answers what TLS itself asks.
    fn receive_secured(&mut self, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            self.push()?;
            let Some(tls) = &mut self.tls else { return Poll::Pending };
            match tls.read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    // There may be more that has been taken in.
                    self.readable |= read.as_ref().is_ok_and(|n| *n == into.len());
                    return Poll::Ready(read);
                }
            }
            if !self.readable {
                return Poll::Pending;
            }
            let mut incoming = Incoming { socket: &self.socket, readable: &mut self.readable, ended: self.ended };
            match tls.take_in(&mut incoming) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Who speaks no TLS is told nothing: it would take that for a reply.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.mute = true;
                    return Poll::Ready(Err(error));
                }
                Err(error) => {
                    // The peer is told why, if it still listens.
                    let _ = self.push();
                    return Poll::Ready(Err(error));
                }
                Ok(()) => {}
            }
        }
    }

    /// Whether TLS has something that waits for the socket, which is to be pushed when there is room.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.unsent
    }

    /// Gives the socket what TLS has for it, as far as it takes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn push(&mut self) -> io::Result<()> {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.mute) else { return Ok(()) };
        while tls.has_unsent() {
            self.unsent = true;
            if !self.writable {
                return Ok(());
            }
            match tls.give_out(&mut Outgoing(&self.socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                given => given?,
            }
        }
        self.unsent = false;
        Ok(())
    }

    fn receive(&mut self, into: impl Buffer<u8>, room: usize) -> Poll<io::Result<usize>> {
        if !self.readable {
            return Poll::Pending;
        }
        // A socket that does not wait is not interrupted either.
        match recv(&self.socket, into, RecvFlags::empty()) {
            Ok((_, n)) => {
                self.readable = n == room || self.ended;
                Poll::Ready(Ok(n))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes what the socket takes.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            cold_path();
            return self.send_secured(slices);
        }
        if !self.writable {
            return Poll::Pending;
        }
        match self.send(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    fn send_secured(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.push()?;
        let Some(tls) = self.tls.as_mut().filter(|_| !self.unsent && !self.mute) else { return Poll::Pending };
        let written = tls.write(slices);
        self.push()?;
        Poll::Ready(written)
    }

    /// Reads what is there, whatever is known of the socket: while its worker does not get to hear of changes.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; what the system says.
    pub fn read_now(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            self.readable = true;
            return now(self.receive_secured(buf));
        }
        Ok(recv(&self.socket, buf, RecvFlags::empty()).map(|(_, n)| n)?)
    }

    /// Writes what the socket takes, whatever is known of it.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing; what the system says.
    pub fn write_now(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.tls.is_some() {
            self.writable = true;
            return now(self.send_secured(slices));
        }
        self.send(slices)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(match slices {
            [only] => send(&self.socket, only, SendFlags::NOSIGNAL)?,
            slices => sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?,
        })
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// What the system says where it has no descriptor left; that it speaks TLS, of which there is one state.
    pub fn share(&self) -> io::Result<Socket> {
        if self.tls.is_some() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "its connection has TLS"));
        }
        Ok(match &self.socket {
            Socket::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Socket::Unix(socket) => Socket::Unix(socket.try_clone()?),
        })
    }

    /// Sends small pieces at once, or collects them for a while.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(socket) => Ok(sockopt::set_tcp_nodelay(socket, nodelay)?),
            Socket::Unix(_) => Ok(()),
        }
    }
}

/// Sends what a socket takes at once.
///
/// # Errors
/// `WouldBlock` where it takes nothing; what the system says.
pub fn send_now(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// What did not wait.
fn now(done: Poll<io::Result<usize>>) -> io::Result<usize> {
    match done {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.end();
            // Whoever does not hear it sees the socket's end.
            let _ = self.push();
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
