//! How soon replicas have what clients were told.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::client::{Client, request};
use crate::support::server::Server;
use crate::support::watch::{eventually, info};

/// Becomes a replica of whom nothing more is heard; returns its link once the stream comes over it.
fn silent_replica(primary: &Server) -> TcpStream {
    let link = TcpStream::connect(primary.addr()).unwrap();
    let mut link = BufReader::new(link);
    link.get_mut().write_all(&request(&["PSYNC", "?", "-1"])).unwrap();
    let mut line = String::new();
    while !line.starts_with('$') {
        assert!(!line.starts_with('-'), "{line}");
        line.clear();
        link.read_line(&mut line).unwrap();
    }
    let length: usize = line[1..].trim().parse().unwrap();
    link.read_exact(&mut vec![0; length]).unwrap();
    let mut client = primary.connect();
    eventually("it is online", || info(&mut client, "slave0").contains("state=online"));
    assert!(link.buffer().is_empty(), "a data set has come and no more");
    link.into_inner()
}

#[test]
fn who_is_answered_finds_the_change_on_its_way_to_replicas() {
    let primary = Server::subject(&["--repl-diskless-sync", "no", "--repl-ping-replica-period", "3600"]);
    let mut link = silent_replica(&primary);
    link.set_nonblocking(true).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| primary.connect()).collect();
    let (mut late, mut stream) = (0, Vec::new());
    let mut room = vec![0; 1 << 16];
    for n in 0..2000 {
        let value = format!("value:{n:08}");
        assert_eq!(clients[n % 4].cmd(&["SET", "key", &value]), b"+OK\r\n");
        match link.read(&mut room) {
            Ok(n) => stream.extend_from_slice(&room[..n]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        late += usize::from(!stream.windows(value.len()).any(|bytes| bytes == value.as_bytes()));
        stream.clear();
    }
    // The system may put off what a socket has taken; two of them in a row it does not.
    assert!(late < 40, "{late} of 2000 were answered before");
}
