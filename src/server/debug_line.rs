//! The way from the debugger to its client: the connection's socket, read and written by the worker itself.
//!
//! What must stay true: the worker waits here and nowhere else; a client that does not read is given up after some
//! seconds, one that is gone at once.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::script::debugger::{Heard, Line, Side};
use crate::server::process;
use crate::server::stream::Socket;

/// For so long it is waited for a client that does not read.
const SEND_MAX_MS: i64 = 5000;
/// How often it is asked whether to wait on.
const ASK_EVERY_MS: i64 = 50;
/// So much is read at once.
const READ_BYTES: usize = 4096;

/// A connection's socket, in the hands of the debugger.
#[derive(Debug)]
pub struct DebugLine {
    socket: Socket,
}

impl DebugLine {
    /// Takes a handle of the socket.
    pub fn new(socket: Socket) -> DebugLine {
        DebugLine { socket }
    }

    /// Whether there is news of this kind within so many milliseconds.
    fn wait(&self, flags: PollFlags, ms: i64) -> bool {
        let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        // Interrupted by a signal it was no news.
        matches!(poll(&mut fds, Some(&timeout)), Ok(n) if n > 0)
    }
}

impl Line for DebugLine {
    fn tell(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.wait(PollFlags::OUT, SEND_MAX_MS) => {}
                Err(_) => return,
            }
        }
    }

    fn hear(&mut self, into: &mut Vec<u8>, goes_on: &dyn Fn() -> bool) -> Heard {
        let mut buf = [0; READ_BYTES];
        loop {
            match recv(&self.socket, &mut buf[..], RecvFlags::empty()) {
                Ok((n, _)) if n > 0 => {
                    into.extend_from_slice(&buf[..n]);
                    return Heard::Bytes;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                _ => return Heard::Gone,
            }
            while !self.wait(PollFlags::IN, ASK_EVERY_MS) {
                if !goes_on() {
                    return Heard::Nothing;
                }
            }
        }
    }

    fn fork(&mut self) -> io::Result<Side> {
        process::copy(self.socket.as_fd())
    }

    fn end_after(&mut self, seconds: u32) {
        process::end_after(seconds);
    }

    fn end(&mut self) -> ! {
        process::leave()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn line() -> (DebugLine, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (DebugLine::new(Socket::Unix(ours)), theirs)
    }

    #[test]
    fn what_is_said_is_heard_and_so_is_that_nobody_is_left() {
        let (mut line, mut client) = line();
        let mut heard = b"a".to_vec();
        client.write_all(b"bc").unwrap();
        assert_eq!(line.hear(&mut heard, &|| false), Heard::Bytes);
        assert_eq!(heard, b"abc");
        let asked = AtomicUsize::new(0);
        let goes_on = || asked.fetch_add(1, Ordering::Relaxed) < 2;
        assert_eq!(line.hear(&mut heard, &goes_on), Heard::Nothing);
        assert_eq!(asked.into_inner(), 3);
        line.tell(b"xyz");
        let mut told = [0; 3];
        client.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"xyz");
        drop(client);
        line.tell(b"lost");
        assert_eq!(line.hear(&mut heard, &|| true), Heard::Gone);
        assert_eq!(heard, b"abc");
    }

    #[test]
    fn more_is_told_than_a_socket_holds() {
        let (mut line, mut client) = line();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all.len()
        });
        line.tell(&vec![b'x'; 3 << 20]);
        drop(line);
        assert_eq!(reader.join().unwrap(), 3 << 20);
    }
}
