//! A connection's socket: TCP or Unix.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket that is connected.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Reads what is there.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    /// Reads what is there behind what `buf` holds, up to its capacity; returns how many bytes came.
    pub fn poll_append(&mut self, cx: &mut Context<'_>, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => pin!(stream.read_buf(buf)).poll(cx),
            Stream::Unix(stream) => pin!(stream.read_buf(buf)).poll(cx),
        }
    }

    /// Reads what is there, without the runtime: while it is kept from looking at its sockets.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; what the system says.
    pub fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket();
        (&*socket).read(buf)
    }

    /// Writes what the socket takes, without the runtime.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing; what the system says.
    pub fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket();
        (&*socket).write_vectored(slices)
    }

    /// Sends small pieces at once, or collects them for a while.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(nodelay),
            Stream::Unix(_) => Ok(()),
        }
    }

    fn socket(&self) -> SockRef<'_> {
        match self {
            Stream::Tcp(stream) => SockRef::from(stream),
            Stream::Unix(stream) => SockRef::from(stream),
        }
    }

    /// Ready once there may be something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Writes what the socket takes.
    ///
    /// It nearly always takes all, so one slice is sent at once; the runtime is asked only where that fails.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            let socket = match self {
                Stream::Tcp(stream) => SockRef::from(&*stream),
                Stream::Unix(stream) => SockRef::from(&*stream),
            };
            if let Ok(n) = socket.send_with_flags(only, libc::MSG_NOSIGNAL) {
                return Poll::Ready(Ok(n));
            }
        }
        match (self, slices) {
            (Stream::Tcp(stream), [only]) => Pin::new(stream).poll_write(cx, only),
            (Stream::Tcp(stream), slices) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Stream::Unix(stream), [only]) => Pin::new(stream).poll_write(cx, only),
            (Stream::Unix(stream), slices) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}
