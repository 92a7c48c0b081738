//! Connections: that the subject answers on every kind of socket.

use crate::support::client::Client;
use crate::support::server::Server;

#[test]
fn a_unix_socket_answers_like_a_port() {
    let server = Server::subject(&["--unixsocket", "s.sock"]);
    let mut unix = Client::unix(&server.dir().join("s.sock")).expect("the socket is there once the server is ready");
    assert_eq!(unix.cmd(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(server.connect().cmd(&["GET", "k"]), b"$1\r\nv\r\n");
}

#[test]
fn replies_of_a_pipeline_come_in_order() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let commands: Vec<Vec<String>> = (0..10_000).map(|n| vec!["ECHO".to_owned(), n.to_string()]).collect();
    for (n, reply) in client.pipeline(&commands).expect("every command has a reply").into_iter().enumerate() {
        let n = n.to_string();
        assert_eq!(reply, format!("${}\r\n{n}\r\n", n.len()).into_bytes());
    }
}

#[test]
fn a_closed_pipeline_is_answered_to_its_end() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    client.send(b"PING\r\nECHO a\r\nPING\r\n").expect("the server reads");
    client.finish().expect("half of a connection can be closed");
    assert_eq!(client.rest().expect("the server closes after the last reply"), b"+PONG\r\n$1\r\na\r\n+PONG\r\n");
}
