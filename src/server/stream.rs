//! A connection's socket: TCP or Unix, read and written without waiting.
//!
//! Its worker is told of changes, not of states (edge-triggered epoll), so the socket remembers here whether there may
//! be something to read, and room to write: that is known to be over only when the system says so, or when it gave less
//! than there was room for.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use rustix::buffer::{Buffer, spare_capacity};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg, sockopt};

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
}

impl Stream {
    /// Takes a socket over.
    ///
    /// # Errors
    /// What the system says where the socket cannot be told not to wait.
    pub fn new(socket: Socket) -> io::Result<Stream> {
        match &socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true)?,
            Socket::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(Stream { socket, readable: true, writable: true, ended: false })
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
        let room = buf.len();
        self.receive(buf, room)
    }

    /// Reads what is there behind what `buf` holds, up to its capacity; returns how many bytes came.
    pub fn append(&mut self, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let room = buf.capacity() - buf.len();
        self.receive(spare_capacity(buf), room)
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
        if !self.writable {
            return Poll::Pending;
        }
        match self.write_now(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    /// Reads what is there, whatever is known of the socket: while its worker does not get to hear of changes.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; what the system says.
    pub fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.socket, buf, RecvFlags::empty()).map(|(_, n)| n)?)
    }

    /// Writes what the socket takes, whatever is known of it.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing; what the system says.
    pub fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(match slices {
            [only] => send(&self.socket, only, SendFlags::NOSIGNAL)?,
            slices => sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?,
        })
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// What the system says where it has no descriptor left.
    pub fn share(&self) -> io::Result<Socket> {
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

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
