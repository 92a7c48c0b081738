//! A node of a cluster, whose other half only its file knows of: what it answers, and where it sends its clients.

use std::fs;

use crate::interop::runner::run_on;
use crate::support::reply::Protocol;
use crate::support::server::{Server, scratch};

const TABLE: &str = include_str!("cluster.table");

const NODES: &str = "\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 127.0.0.1:0@0 myself,master - 0 0 1 connected 0-8191\n\
    bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 127.0.0.1:1@1 master - 0 0 2 connected 8192-16383\n\
    vars currentEpoch 2 lastVoteEpoch 0\n";

fn as_strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn compare(protocol: Protocol) {
    let dirs = [scratch(), scratch()];
    for dir in &dirs {
        fs::write(dir.join("nodes.conf"), NODES).expect("the directory was made for it");
    }
    let args = |dir: usize| {
        let dir = dirs[dir].to_str().expect("it has a plain name").to_owned();
        // Nobody is there whose silence could be taken for a failure.
        let announced = ["--cluster-announce-port", "7777", "--cluster-announce-bus-port", "17777"];
        let args = ["--dir", &dir, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000000"];
        args.iter().chain(&announced).map(|arg| (*arg).to_owned()).collect::<Vec<String>>()
    };
    let (ours, theirs) = (args(0), args(1));
    let oracle = Server::oracle(&as_strs(&theirs));
    if let Some(oracle) = oracle {
        let subject = Server::subject(&as_strs(&ours));
        run_on("cluster", TABLE, protocol, &[], (subject, oracle));
    }
    for dir in &dirs {
        let _ = fs::remove_dir_all(dir);
    }
}

#[test]
fn in_resp2() {
    compare(Protocol::Resp2);
}

#[test]
fn in_resp3() {
    compare(Protocol::Resp3);
}
