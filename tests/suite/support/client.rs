//! A blocking client that hides no byte: what was sent and what came back are exactly what is seen.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a reply may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
            #[cfg(feature = "tls")]
            Socket::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
            #[cfg(feature = "tls")]
            Socket::Tls(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Socket::Tls(s) => s.flush(),
            _ => Ok(()),
        }
    }
}

/// One connection.
pub struct Client {
    socket: BufReader<Socket>,
}

impl Client {
    /// Connects over TCP.
    pub fn tcp(addr: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        Client::over(Socket::Tcp(socket))
    }

    /// Speaks over a connection that was accepted.
    pub fn of(socket: TcpStream) -> Client {
        Client::over(Socket::Tcp(socket)).expect("a socket that is open")
    }

    /// Connects over TCP and speaks TLS. What is wrong with it shows when something is sent or read.
    #[cfg(feature = "tls")]
    pub fn tls(addr: SocketAddr, config: std::sync::Arc<rustls::ClientConfig>) -> io::Result<Client> {
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        let name = rustls::pki_types::ServerName::from(addr.ip());
        let session = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        Client::over(Socket::Tls(Box::new(rustls::StreamOwned::new(session, socket))))
    }

    /// Connects to a unix socket.
    pub fn unix(path: &Path) -> io::Result<Client> {
        Client::over(Socket::Unix(UnixStream::connect(path)?))
    }

    fn over(socket: Socket) -> io::Result<Client> {
        let mut client = Client { socket: BufReader::new(socket) };
        client.patience(PATIENCE)?;
        Ok(client)
    }

    /// The same connection twice, so that one thread sends while another reads.
    pub fn split(self) -> io::Result<(Client, Client)> {
        let second = match self.socket.get_ref() {
            Socket::Tcp(s) => Socket::Tcp(s.try_clone()?),
            Socket::Unix(s) => Socket::Unix(s.try_clone()?),
            #[cfg(feature = "tls")]
            Socket::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok((Client::over(second)?, self))
    }

    /// The certificate that the server has shown.
    #[cfg(feature = "tls")]
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let Socket::Tls(s) = self.socket.get_ref() else { return None };
        s.conn.peer_certificates()?.first().map(|cert| cert.to_vec())
    }

    /// Whether TLS has taken up an earlier session.
    #[cfg(feature = "tls")]
    pub fn is_resumed(&self) -> bool {
        let Socket::Tls(s) = self.socket.get_ref() else { return false };
        s.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// How long a read or a write may take from now on.
    pub fn patience(&mut self, patience: Duration) -> io::Result<()> {
        let tcp = |s: &TcpStream| s.set_read_timeout(Some(patience)).and_then(|()| s.set_write_timeout(Some(patience)));
        match self.socket.get_ref() {
            Socket::Tcp(s) => tcp(s),
            #[cfg(feature = "tls")]
            Socket::Tls(s) => tcp(&s.sock),
            Socket::Unix(s) => s.set_read_timeout(Some(patience)).and_then(|()| s.set_write_timeout(Some(patience))),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes)?;
        self.socket.get_mut().flush()
    }

    /// Says that nothing more will be sent; replies can still be read.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.socket.get_ref() {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
            #[cfg(feature = "tls")]
            Socket::Tls(s) => s.sock.shutdown(Shutdown::Write),
        }
    }

    /// Sends one command and reads its reply.
    ///
    /// # Panics
    /// When there is none within [`PATIENCE`]. Where that is a result, use [`Client::ask`].
    pub fn cmd<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.ask(args).unwrap_or_else(|e| {
            let words: Vec<_> = args.iter().map(|a| String::from_utf8_lossy(a.as_ref()).into_owned()).collect();
            panic!("no reply to {words:?}: {e}")
        })
    }

    /// Sends one command and reads its reply; `UnexpectedEof` where the server closed instead.
    pub fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Vec<u8>> {
        self.send(&request(args))?;
        self.reply()
    }

    /// Sends all commands before the first reply is read.
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> io::Result<Vec<Vec<u8>>> {
        self.send(&commands.iter().flat_map(|c| request(c)).collect::<Vec<_>>())?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// The next reply (or push), byte for byte; an attribute comes with what it belongs to.
    ///
    /// # Errors
    /// `UnexpectedEof` or `ConnectionReset` where the server closed, `InvalidData` where the bytes are no RESP.
    pub fn reply(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        let mut open: u64 = 1;
        while open > 0 {
            open -= 1;
            let start = raw.len();
            self.socket.read_until(b'\n', &mut raw)?;
            let line = &raw[start..];
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(invalid(format!("a line that does not end in CRLF: {}", line.escape_ascii())));
            };
            let (kind, rest) = line.split_first().ok_or_else(|| invalid("an empty line".into()))?;
            let count = || -> io::Result<i64> {
                std::str::from_utf8(rest)
                    .ok()
                    .and_then(|s| s.parse().ok())
                    .filter(|n| *n >= -1)
                    .ok_or_else(|| invalid(format!("a bad length: {}", line.escape_ascii())))
            };
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {}
                b'$' | b'=' | b'!' => {
                    if let Ok(len) = u64::try_from(count()?) {
                        let want = len + 2;
                        let got = self.socket.by_ref().take(want).read_to_end(&mut raw)?;
                        if got as u64 != want {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        if !raw.ends_with(b"\r\n") {
                            return Err(invalid(format!("a bulk without CRLF: {}", raw.escape_ascii())));
                        }
                    }
                }
                b'*' | b'~' | b'>' => open += u64::try_from(count()?).unwrap_or(0),
                b'%' => open += 2 * u64::try_from(count()?).unwrap_or(0),
                // An attribute precedes the reply proper, which is still to come.
                b'|' => open += 2 * u64::try_from(count()?).unwrap_or(0) + 1,
                _ => return Err(invalid(format!("an unknown type: {}", line.escape_ascii()))),
            }
        }
        Ok(raw)
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.last_words().map(|(words, _)| words)
    }

    /// The same, and whether the connection was reset, which may have cost some of it.
    pub fn last_words(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut all = Vec::new();
        match self.socket.read_to_end(&mut all) {
            Ok(_) => Ok((all, false)),
            // A server that closes with input unread resets the connection: closed all the same.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok((all, true)),
            Err(e) => Err(e),
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whether an error says that the other side closed the connection.
pub fn closed(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// A command as an array of bulk strings.
pub fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}
