//! The server: every directive of the configuration, at its default and with values it may refuse.

use crate::support::client::Client;
use crate::support::reply::Tree;
use crate::support::server::Server;

/// Directives whose value is the machine's or the test's, or that Redis 7.2 hides.
const OWN: &[&str] =
    &["port", "dir", "bind", "pidfile", "io-threads", "enable-debug-command", "locale-collate", "aof-disable-auto-gc"];

/// Directives whose replies differ on purpose: docs/differences.md says why.
const DIFFERENT: &[&str] = &["io-threads", "io-threads-do-reads", "maxmemory-policy", "repl-diskless-load"];

/// Directives that are not tried out: they would cut the connection, start a rewrite, or change the process.
const LEFT_ALONE: &[&str] = &[
    "port",
    "bind",
    "dir",
    "requirepass",
    "appendonly",
    "activedefrag",
    "maxclients",
    "maxmemory-clients",
    "oom-score-adj",
    "oom-score-adj-values",
    "watchdog-period",
    "timeout",
    "jemalloc-bg-thread",
    "set-proc-title",
    "proc-title-template",
    "dbfilename",
    "unixsocket",
    "slave-announce-ip",
    "replica-announce-ip",
];

/// Names and values of CONFIG GET *, by name.
fn directives(client: &mut Client) -> Vec<(String, String)> {
    let tree = Tree::parse(&client.cmd(&["CONFIG", "GET", "*"]));
    let text = |t: &Tree| String::from_utf8_lossy(t.bytes().unwrap_or_default()).into_owned();
    let mut all: Vec<_> = tree.items().chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    all.sort();
    all
}

#[test]
fn every_directive_is_there_with_the_same_default() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let ours = directives(&mut subject.connect());
    let mut wrong = Vec::new();
    for (name, value) in directives(&mut oracle.connect()) {
        if OWN.contains(&name.as_str()) {
            continue;
        }
        match ours.iter().find(|(n, _)| *n == name) {
            None => wrong.push(format!("{name}: missing")),
            Some((_, our)) if *our != value => wrong.push(format!("{name}: {our:?}, oracle {value:?}")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} directives differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_directive_refuses_the_same_values_in_the_same_words() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let (mut ours, mut theirs) = (subject.connect(), oracle.connect());
    let known: Vec<String> = directives(&mut ours).into_iter().map(|(n, _)| n).collect();
    let newer = oracle.is_redis_7_0(None) && !subject.is_redis_7_0(None);
    let mut wrong = Vec::new();
    for (name, default) in directives(&mut theirs) {
        let skipped = [LEFT_ALONE, DIFFERENT].iter().any(|names| names.contains(&name.as_str()));
        if !known.contains(&name) || skipped || name.starts_with("tls-") {
            continue;
        }
        for value in ["abc", "", "-1", "0", "1", "yes", "NO", "1mb", "1.5", "101%", "100000000000000000000", "a b"] {
            for args in [["CONFIG", "SET", &name, value].as_slice(), &["CONFIG", "GET", &name]] {
                let (a, mut b) = (ours.cmd(args), theirs.cmd(args));
                if newer && name == "loglevel" && b.ends_with(b", warning\r\n") {
                    // A level that Redis 7.2 added.
                    b.splice(b.len() - 2.., *b", nothing\r\n");
                }
                if a != b {
                    let (a, b) = (a.escape_ascii(), b.escape_ascii());
                    wrong.push(format!("{args:?} (set {value:?})\n  subject: {a}\n  oracle:  {b}"));
                }
            }
            let back = ["CONFIG", "SET", &name, &default];
            ours.cmd(&back);
            theirs.cmd(&back);
        }
    }
    assert!(wrong.is_empty(), "{} replies differ\n{}", wrong.len(), wrong.join("\n"));
}
