//! Connections: that the subject answers on every kind of socket.

use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::{OwnedFrame as Frame3, Resp3Frame as _};

use crate::support::client::Client;
use crate::support::reply::{Decoded, Protocol, decode};
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

#[test]
fn hello_says_who_the_server_is_in_both_protocols() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let names = ["server", "version", "proto", "id", "mode", "role", "modules"];
    let raw = client.cmd(&["HELLO", "2"]);
    let Ok(Decoded::Resp2(Frame2::Array(items))) = decode(&raw, Protocol::Resp2) else {
        panic!("{}", raw.escape_ascii())
    };
    assert_eq!(items.len(), 2 * names.len());
    for (pair, name) in items.chunks(2).zip(names) {
        assert_eq!(pair[0], Frame2::BulkString(name.into()));
    }
    assert_eq!(items[1], Frame2::BulkString("redis".into()));
    assert_eq!(items[5], Frame2::Integer(2));

    let raw = client.cmd(&["HELLO", "3"]);
    let Ok(Decoded::Resp3(Frame3::Map { data, .. })) = decode(&raw, Protocol::Resp3) else {
        panic!("{}", raw.escape_ascii())
    };
    // The crate does not keep the order of a map.
    let mut keys: Vec<_> = data.keys().map(|k| k.as_str().unwrap_or_default()).collect();
    let mut sorted = names;
    keys.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(keys, sorted);
    let value = |name: &str| data.iter().find(|(k, _)| k.as_str() == Some(name)).map(|(_, v)| v.clone());
    assert_eq!(value("proto"), Some(Frame3::Number { data: 3, attributes: None }));
    assert_eq!(value("modules"), Some(Frame3::Array { data: vec![], attributes: None }));
    let blob = |text: &str| Some(Frame3::BlobString { data: text.into(), attributes: None });
    assert_eq!((value("mode"), value("role")), (blob("standalone"), blob("master")));
}

#[test]
fn idle_connections_by_the_thousand_cost_nobody_a_reply() {
    let server = Server::subject(&[]);
    let mut clients: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.cmd(&["SET", &format!("k{n}"), "v"]), b"+OK\r\n");
    }
    assert_eq!(clients[500].cmd(&["DBSIZE"]), b":1000\r\n");
}
