//! How soon replicas have what clients were told.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Client, request};
use crate::support::server::Server;
use crate::support::watch::{eventually, figure, info};

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

#[test]
fn who_writes_waits_for_a_replica_that_is_slow_and_not_for_one_that_takes_nothing() {
    let primary = Server::subject(&["--repl-diskless-sync", "no", "--repl-backlog-size", "1mb"]);
    let mut client = primary.connect();
    client.cmd(&["CONFIG", "SET", "client-output-buffer-limit", "replica 8mb 0 0"]);
    let value = "v".repeat(100_000);
    // Ten times what may wait, by many at once.
    let write = |n: usize| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (primary, value) = (&primary, &value);
                scope.spawn(move || {
                    let mut client = primary.connect();
                    client.patience(Duration::from_secs(60)).unwrap();
                    for i in 0..n {
                        assert_eq!(client.cmd(&["SET", &format!("{thread}:{i}"), value]), b"+OK\r\n");
                    }
                });
            }
        });
    };
    let mut link = silent_replica(&primary);
    let came = Arc::new(AtomicUsize::new(0));
    let read = came.clone();
    let reader = std::thread::spawn(move || {
        let mut room = vec![0; 1 << 17];
        loop {
            // This is how slow it is.
            std::thread::sleep(Duration::from_millis(2));
            match link.read(&mut room).unwrap_or(0) {
                0 => return,
                n => _ = read.fetch_add(n, Ordering::Relaxed),
            }
        }
    });
    write(200);
    assert!(primary.logs("Clients that write wait for replica"));
    eventually("it has everything", || came.load(Ordering::Relaxed) > 80_000_000);
    assert!(info(&mut client, "slave0").contains("state=online"), "it was not cut off");
    client.cmd(&["CLIENT", "KILL", "TYPE", "replica"]);
    reader.join().unwrap();

    let link = silent_replica(&primary);
    let began = Instant::now();
    write(200);
    eventually("it was cut off", || figure(&mut client, "connected_slaves") == 0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(link);
}

#[test]
fn replicas_come_and_go_while_each_change_is_sent_at_once() {
    let primary = Server::subject(&["--repl-diskless-sync", "no"]);
    let written = AtomicUsize::new(0);
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = primary.connect();
                while !gone.load(Ordering::Relaxed) {
                    assert_eq!(client.cmd(&["INCR", "key"]).first(), Some(&b':'));
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let comers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..40).for_each(|_| drop(followed(&primary))))).collect();
        let came: Vec<_> = comers.into_iter().map(|comer| comer.join()).collect();
        gone.store(true, Ordering::Relaxed);
        came.into_iter().for_each(|came| came.unwrap());
    });
    let mut client = primary.connect();
    let reply = client.cmd(&["INCRBY", "key", "0"]);
    assert_eq!(reply, format!(":{}\r\n", written.load(Ordering::Relaxed)).into_bytes());
}

/// A link over which the stream has begun to come.
fn followed(primary: &Server) -> TcpStream {
    let mut link = BufReader::new(TcpStream::connect(primary.addr()).unwrap());
    link.get_mut().write_all(&request(&["PSYNC", "?", "-1"])).unwrap();
    let mut line = String::new();
    while !line.starts_with('$') {
        line.clear();
        assert_ne!(link.read_line(&mut line).unwrap(), 0);
    }
    let length: usize = line[1..].trim().parse().unwrap();
    link.read_exact(&mut vec![0; length + 1]).unwrap();
    link.into_inner()
}
