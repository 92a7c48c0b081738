//! TLS: who is served, who is not, and what other programs make of it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Once};

use pkcs8::LineEnding;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::support::client::{Client, request};
use crate::support::server::{Server, have, scratch};
use crate::support::watch::{eventually, figure, info};

/// An authority, with its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(dir: &Path, name: &'static str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Or it would be called as those are whom it signs, and look as one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join(format!("{name}.crt")), issuer.pem()).unwrap();
        Authority { issuer, dir: dir.to_owned(), name }
    }

    fn file(&self) -> String {
        self.path(self.name, "crt")
    }

    fn path(&self, name: &str, kind: &str) -> String {
        self.dir.join(format!("{name}.{kind}")).to_string_lossy().into_owned()
    }

    /// Writes a certificate and its key.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        // A name that is nobody's address: nobody is to look at it.
        let cert = CertificateParams::new(vec!["somebody.example".into()]).unwrap().signed_by(&key, &self.issuer);
        std::fs::write(self.path(name, "crt"), cert.unwrap().pem()).unwrap();
        std::fs::write(self.path(name, "key"), key.serialize_pem()).unwrap();
    }

    /// What a client begins with that believes this authority, and shows the certificate of this name.
    fn client(&self, shows: Option<&str>) -> Arc<ClientConfig> {
        self.client_of(shows.map(|name| (self, name)))
    }

    /// The same where somebody else may have signed what it shows.
    fn client_of(&self, shows: Option<(&Authority, &str)>) -> Arc<ClientConfig> {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_file(self.file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder =
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier.build().unwrap())));
        Arc::new(match shows {
            None => builder.with_no_client_auth(),
            Some((signer, name)) => {
                let cert = CertificateDer::from_pem_file(signer.path(name, "crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(signer.path(name, "key")).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        })
    }
}

/// Believes an authority, whatever the name.
#[derive(Debug)]
struct AnyName(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        ocsp: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let name = rustls::pki_types::ServerName::try_from("somebody.example").unwrap();
        self.0.verify_server_cert(shown, between, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// An authority and what it has signed for a server.
fn authority() -> Authority {
    let dir = scratch();
    let authority = Authority::new(&dir, "ca");
    authority.sign("server");
    authority
}

/// The arguments of a server with the certificate of this authority.
fn arguments(authority: &Authority, more: &[&str]) -> Vec<String> {
    let files = [
        ("--tls-cert-file", authority.path("server", "crt")),
        ("--tls-key-file", authority.path("server", "key")),
        ("--tls-ca-cert-file", authority.file()),
    ];
    let files = files.into_iter().flat_map(|(name, path)| [name.to_owned(), path]);
    files.chain(more.iter().map(|word| (*word).to_owned())).collect()
}

fn started(authority: &Authority, more: &[&str]) -> (Server, SocketAddr) {
    let args = arguments(authority, more);
    let server = Server::subject(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let addr = open(&server);
    (server, addr)
}

/// Has a server listen for TLS; returns where.
fn open(server: &Server) -> SocketAddr {
    let mut client = server.connect();
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let reply = client.cmd(&["CONFIG", "SET", "tls-port", &port.to_string()]);
        if reply.starts_with(b"+OK") {
            return ([127, 0, 0, 1], port).into();
        }
        assert!(reply.ends_with(b"Unable to listen on this port. Check server logs.\r\n"), "{}", reply.escape_ascii());
    }
    panic!("no free port was found");
}

/// Whether somebody who begins like this is served.
fn is_served(addr: SocketAddr, config: Arc<ClientConfig>) -> bool {
    let mut client = Client::tls(addr, config).unwrap();
    match client.ask(&["PING"]) {
        Ok(reply) => reply == b"+PONG\r\n",
        Err(_) => false,
    }
}

#[test]
fn a_client_is_served_as_without_tls() {
    let authority = authority();
    let (server, addr) = started(&authority, &["--tls-auth-clients", "no"]);
    let mut client = Client::tls(addr, authority.client(None)).unwrap();
    assert_eq!(client.cmd(&["SET", "key", "value"]), b"+OK\r\n");
    assert_eq!(server.connect().cmd(&["GET", "key"]), b"$5\r\nvalue\r\n");
    let large = vec![b'x'; 5_000_000];
    assert_eq!(client.cmd(&[b"SET".as_slice(), b"large", &large]), b"+OK\r\n");
    // More than any buffer on the way holds, which nobody reads for now.
    let asked: Vec<Vec<&str>> = (0..8).map(|_| vec!["GET", "large"]).chain([vec!["PING"]]).collect();
    let told = client.pipeline(&asked).unwrap();
    assert!(told[..8].iter().all(|reply| reply.len() == large.len() + b"$5000000\r\n\r\n".len()));
    assert_eq!(told[8], b"+PONG\r\n");
    let many: Vec<Vec<String>> = (0..20_000).map(|n| vec!["INCRBY".into(), "sum".into(), n.to_string()]).collect();
    assert_eq!(client.pipeline(&many).unwrap().pop().unwrap(), b":199990000\r\n");

    let mut reader = Client::tls(addr, authority.client(None)).unwrap();
    reader.cmd(&["SUBSCRIBE", "news"]);
    assert_eq!(client.cmd(&["PUBLISH", "news", "good"]), b":1\r\n");
    assert!(reader.reply().unwrap().ends_with(b"good\r\n"));
    let mut waiting = Client::tls(addr, authority.client(None)).unwrap();
    waiting.send(&request(&["BLPOP", "list", "0"])).unwrap();
    eventually("it waits", || figure(&mut client, "blocked_clients") == 1);
    client.cmd(&["RPUSH", "list", "element"]);
    assert!(waiting.reply().unwrap().ends_with(b"element\r\n"));
    let listener = info(&mut client, "listener2");
    assert!(
        listener.starts_with("name=tls,bind=") && listener.ends_with(&format!("port={}", addr.port())),
        "{listener}"
    );
    drop(waiting);
    eventually("who has left is gone", || figure(&mut client, "connected_clients") == 2);
}

#[test]
fn while_a_script_runs_it_can_be_ended_over_tls() {
    let authority = authority();
    let (_server, addr) =
        started(&authority, &["--tls-auth-clients", "no", "--io-threads", "1", "--lua-time-limit", "10"]);
    let mut busy = Client::tls(addr, authority.client(None)).unwrap();
    let mut other = Client::tls(addr, authority.client(None)).unwrap();
    busy.cmd(&["PING"]);
    other.cmd(&["PING"]);
    busy.send(&request(&["EVAL", "while true do end", "0"])).unwrap();
    eventually("it is told", || other.cmd(&["PING"]).starts_with(b"-BUSY"));
    // Who speaks no TLS is not listened to now either.
    let mut plain = Client::tcp(addr).unwrap();
    plain.send(b"PING\r\n").unwrap();
    for _ in 0..20 {
        // Each is answered after a look at all connections.
        assert!(other.cmd(&["PING"]).starts_with(b"-BUSY"));
    }
    // It may have been let go already.
    let _ = plain.send(b"PING\r\n");
    assert_eq!(other.cmd(&["SCRIPT", "KILL"]), b"+OK\r\n");
    assert_eq!(plain.rest().unwrap(), b"");
    let killed = busy.reply().unwrap();
    assert!(killed.starts_with(b"-ERR ") && killed.ends_with(b"\r\n"), "{}", killed.escape_ascii());
    assert_eq!(busy.cmd(&["PING"]), b"+PONG\r\n");
}

#[test]
fn who_is_not_believed_is_not_served() {
    let authority = authority();
    authority.sign("client");
    let stranger = Authority::new(&authority.dir, "other-ca");
    stranger.sign("stranger");
    let (server, addr) = started(&authority, &[]);
    let mut admin = server.connect();
    for (setting, nobody, somebody, a_stranger) in
        [("yes", false, true, false), ("optional", true, true, false), ("no", true, true, true)]
    {
        assert_eq!(admin.cmd(&["CONFIG", "SET", "tls-auth-clients", setting]), b"+OK\r\n");
        assert_eq!(is_served(addr, authority.client(None)), nobody, "{setting}, no certificate");
        assert_eq!(is_served(addr, authority.client(Some("client"))), somebody, "{setting}, a certificate");
        assert_eq!(
            is_served(addr, authority.client_of(Some((&stranger, "stranger")))),
            a_stranger,
            "{setting}, somebody else's certificate"
        );
    }
    // The authority's own certificate is believed as well: for one that signed itself it is the only one.
    std::fs::write(authority.path("ca", "key"), authority.issuer.key().serialize_pem()).unwrap();
    assert_eq!(admin.cmd(&["CONFIG", "SET", "tls-auth-clients", "yes"]), b"+OK\r\n");
    assert!(is_served(addr, authority.client(Some("ca"))));
    // Who does not speak TLS is told nothing and let go.
    let mut plain = Client::tcp(addr).unwrap();
    plain.send(b"PING\r\nPING\r\n").unwrap();
    assert_eq!(plain.rest().unwrap(), b"");
    assert_eq!(admin.cmd(&["CONFIG", "SET", "tls-port", "0"]), b"+OK\r\n");
    assert!(Client::tcp(addr).is_err(), "nobody listens any more");
    assert_eq!(admin.cmd(&["PING"]), b"+PONG\r\n");
}

#[test]
fn a_certificate_is_renewed_and_one_that_is_broken_changes_nothing() {
    let authority = authority();
    let (server, addr) = started(&authority, &["--tls-auth-clients", "no"]);
    let mut admin = server.connect();
    let shown = || {
        let mut client = Client::tls(addr, authority.client(None)).unwrap();
        client.cmd(&["PING"]);
        client.certificate().unwrap()
    };
    let first = shown();
    authority.sign("server");
    assert_eq!(shown(), first, "nobody was told to read it");
    let file = authority.path("server", "crt");
    assert_eq!(admin.cmd(&["CONFIG", "SET", "tls-cert-file", &file]), b"+OK\r\n");
    let second = shown();
    assert_ne!(second, first);
    let refused = |reply: Vec<u8>| {
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!(text.ends_with("Unable to update TLS configuration. Check server logs.\r\n"), "{text}");
    };
    refused(admin.cmd(&["CONFIG", "SET", "tls-cert-file", "/nowhere.crt"]));
    assert!(server.logs("Failed to load certificate: /nowhere.crt: No such file or directory"));
    // Another's key.
    let other = authority.path("other", "key");
    authority.sign("other");
    refused(admin.cmd(&["CONFIG", "SET", "tls-key-file", &other]));
    assert!(server.logs("Failed to load private key: it is not that of the certificate"));
    refused(admin.cmd(&["CONFIG", "SET", "tls-ciphersuites", "TLS_NOT_A_CIPHER"]));
    refused(admin.cmd(&["CONFIG", "SET", "tls-protocols", "TLSv1.1"]));
    assert_eq!(shown(), second);
    let told = String::from_utf8_lossy(&admin.cmd(&["CONFIG", "GET", "tls-cert-file"])).into_owned();
    assert!(told.contains(&file), "{told}");
}

#[test]
fn what_cannot_be_listened_on_leaves_everything_as_it_was() {
    let authority = authority();
    let (server, addr) = started(&authority, &["--tls-auth-clients", "no"]);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().port().to_string();
    let mut admin = Client::tls(addr, authority.client(None)).unwrap();
    let (plain, secret) = (server.port().to_string(), addr.port().to_string());
    for wrong in [
        ["CONFIG", "SET", "tls-port", "0", "port", &taken],
        ["CONFIG", "SET", "port", &taken, "tls-port", &plain],
        ["CONFIG", "SET", "tls-port", &taken, "tls-auth-clients", "yes"],
    ] {
        let reply = admin.cmd(&wrong);
        assert!(reply.ends_with(b"Unable to listen on this port. Check server logs.\r\n"), "{}", reply.escape_ascii());
        assert!(is_served(addr, authority.client(None)), "{wrong:?}");
        assert_eq!(server.connect().cmd(&["PING"]), b"+PONG\r\n", "{wrong:?}");
    }
    // They may exchange their ports.
    assert_eq!(admin.cmd(&["CONFIG", "SET", "port", &secret, "tls-port", &plain]), b"+OK\r\n");
    assert!(is_served(server.addr(), authority.client(None)));
    assert_eq!(Client::tcp(addr).unwrap().cmd(&["PING"]), b"+PONG\r\n");
}

#[test]
fn an_encrypted_key_is_read_with_its_pass_phrase() {
    let authority = authority();
    let text = std::fs::read_to_string(authority.path("server", "key")).unwrap();
    let (_, key) = pkcs8::SecretDocument::from_pem(&text).unwrap();
    let key = pkcs8::PrivateKeyInfo::try_from(key.as_bytes()).unwrap();
    let how = pkcs8::pkcs5::pbes2::Parameters::pbkdf2_sha256_aes256cbc(10, b"salt and pepper", &[7; 16]).unwrap();
    let sealed = key.encrypt_with_params(how, "open sesame").unwrap();
    std::fs::write(
        authority.path("server", "key"),
        sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap().as_bytes(),
    )
    .unwrap();
    let (server, addr) = started(&authority, &["--tls-auth-clients", "no", "--tls-key-file-pass", "open sesame"]);
    assert!(is_served(addr, authority.client(None)));
    let reply = server.connect().cmd(&["CONFIG", "SET", "tls-key-file-pass", "wrong"]);
    assert!(reply.ends_with(b"Unable to update TLS configuration. Check server logs.\r\n"));
    assert!(server.logs("the pass phrase is wrong"));
}

#[test]
fn what_is_missing_is_said_at_the_start() {
    let program = crate::support::server::subject_program();
    let end = |args: &[&str]| {
        let dir = scratch();
        let out = Command::new(&program).args(["--port", "0", "--tls-port", "1"]).args(args).current_dir(dir).output();
        let out = out.unwrap();
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(end(&[]).contains("No tls-cert-file configured!"));
    let told = end(&["--tls-cert-file", "/a", "--tls-key-file", "/b"]);
    assert!(told.contains("Either tls-ca-cert-file or tls-ca-cert-dir must be specified"), "{told}");
    assert!(told.contains("Failed to configure TLS. Check logs for more info."), "{told}");
}

/// Two servers of which one follows the other over TLS.
fn follow(primary: &Server, secret: SocketAddr, replica: &mut Client) {
    replica.cmd(&["REPLICAOF", "127.0.0.1", &secret.port().to_string()]);
    eventually("the link is up", || info(replica, "master_link_status") == "up");
    let mut client = primary.connect();
    for n in 0..1000 {
        client.cmd(&["SET", &format!("later:{n}"), "value"]);
    }
    eventually("all has come", || figure(&mut client, "master_repl_offset") == figure(replica, "slave_repl_offset"));
    assert_eq!(client.cmd(&["DEBUG", "DIGEST"]), replica.cmd(&["DEBUG", "DIGEST"]));
}

fn filled(server: &Server) {
    let mut client = server.connect();
    client.cmd(&["DEBUG", "POPULATE", "20000", "key", "300"]);
    client.cmd(&["ZADD", "sorted", "1", "a", "2", "b"]);
}

#[test]
fn a_replica_follows_over_tls() {
    let authority = authority();
    let (primary, secret) = started(&authority, &["--repl-diskless-sync-delay", "0"]);
    filled(&primary);
    let (replica, _) = started(&authority, &["--tls-replication", "yes"]);
    let mut ours = replica.connect();
    follow(&primary, secret, &mut ours);
    // The link is cut, and what was missed comes.
    assert_eq!(ours.cmd(&["CLIENT", "KILL", "TYPE", "master"]), b":1\r\n");
    primary.connect().cmd(&["SET", "last", "value"]);
    eventually("it goes on", || ours.cmd(&["GET", "last"]) == b"$5\r\nvalue\r\n");
    assert_eq!(figure(&mut primary.connect(), "sync_full"), 1);
    // From disk.
    assert_eq!(primary.connect().cmd(&["CONFIG", "SET", "repl-diskless-sync", "no"]), b"+OK\r\n");
    let (second, _) = started(&authority, &["--tls-replication", "yes", "--repl-diskless-load", "swapdb"]);
    follow(&primary, secret, &mut second.connect());
    // One that does not believe the primary does not follow it.
    let stranger = Authority::new(&authority.dir, "strange-ca");
    let file = stranger.file();
    let (third, _) = started(&authority, &[]);
    let mut third_client = third.connect();
    third_client.cmd(&["CONFIG", "SET", "tls-auth-clients", "no", "tls-replication", "yes", "tls-ca-cert-file", &file]);
    third_client.cmd(&["REPLICAOF", "127.0.0.1", &secret.port().to_string()]);
    assert!(third.logs("Error condition on socket for SYNC: invalid peer certificate"));
}

#[test]
fn redis_follows_and_is_followed_over_tls() {
    let authority = authority();
    let args = arguments(&authority, &["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"]);
    let Some(oracle) = Server::oracle(&args.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    let theirs = open(&oracle);
    let (subject, ours) = started(&authority, &["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"]);
    filled(&subject);
    follow(&subject, ours, &mut oracle.connect());
    oracle.connect().cmd(&["REPLICAOF", "NO", "ONE"]);
    let mut client = subject.connect();
    follow(&oracle, theirs, &mut client);
}

#[test]
fn redis_cli_speaks_to_it() {
    static SAID: Once = Once::new();
    if !have("redis-cli", &SAID) {
        return;
    }
    let authority = authority();
    authority.sign("client");
    let (_server, addr) = started(&authority, &[]);
    let port = addr.port().to_string();
    let (ca, cert, key) = (authority.file(), authority.path("client", "crt"), authority.path("client", "key"));
    let cli = |more: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["--tls", "--insecure", "--cacert", &ca, "--cert", &cert, "--key", &key, "-p", &port]).args(more);
        let out = command.output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(cli(&["SET", "a", "b"]), "OK\n");
    assert_eq!(cli(&["-3", "GET", "a"]), "\"b\"\n".replace('"', ""));
    let old = cli(&["--tls-ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "GET", "a"]);
    assert_eq!(old, "b\n");
}

#[test]
fn sessions_are_taken_up_again_while_they_are_remembered() {
    let authority = authority();
    let (server, addr) = started(&authority, &["--tls-auth-clients", "no"]);
    for (setting, resumed) in [("yes", true), ("no", false)] {
        assert_eq!(server.connect().cmd(&["CONFIG", "SET", "tls-session-caching", setting]), b"+OK\r\n");
        let config = authority.client(None);
        for round in 0..2 {
            let mut client = Client::tls(addr, config.clone()).unwrap();
            assert_eq!(client.cmd(&["PING"]), b"+PONG\r\n");
            assert_eq!(client.is_resumed(), resumed && round == 1, "{setting}, {round}");
        }
    }
}

/// A node of a cluster, with a port for TLS whose bus is free, too.
fn node(authority: &Authority) -> (Server, SocketAddr) {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() % 20_000 + 20_000;
        if [port, port + 10_000].iter().any(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()) {
            continue;
        }
        let number = port.to_string();
        let args = arguments(
            authority,
            &["--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-replication", "yes", "--tls-port", &number],
        );
        let server = Server::subject(&args.iter().map(String::as_str).collect::<Vec<_>>());
        return (server, ([127, 0, 0, 1], port).into());
    }
}

#[test]
fn nodes_of_a_cluster_speak_tls_to_each_other_and_tell_clients_the_port_that_is_theirs() {
    let authority = authority();
    authority.sign("client");
    let nodes: Vec<(Server, SocketAddr)> = (0..3).map(|_| node(&authority)).collect();
    let mut plain: Vec<Client> = nodes.iter().map(|(server, _)| server.connect()).collect();
    let ok = |reply: Vec<u8>| assert_eq!(reply, b"+OK\r\n", "{}", reply.escape_ascii());
    ok(plain[0].cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]));
    ok(plain[1].cmd(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]));
    for (n, client) in plain.iter_mut().enumerate() {
        ok(client.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]));
    }
    for (_, addr) in &nodes[1..] {
        ok(plain[0].cmd(&["CLUSTER", "MEET", "127.0.0.1", &addr.port().to_string()]));
    }
    let has =
        |client: &mut Client, what: &str| String::from_utf8_lossy(&client.cmd(&["CLUSTER", "INFO"])).contains(what);
    for client in &mut plain {
        eventually("they know each other", || has(client, "cluster_state:ok") && has(client, "cluster_known_nodes:3"));
    }
    let name = plain[0].cmd(&["CLUSTER", "MYID"]);
    let name = String::from_utf8_lossy(&name).lines().nth(1).unwrap().to_owned();
    eventually("it may be copied", || plain[2].cmd(&["CLUSTER", "REPLICATE", &name]) == b"+OK\r\n");
    eventually("it is copied", || info(&mut plain[2], "master_link_status") == "up");

    // The slot of "b" is the first node's, that of "a" the second's.
    let mut secret = Client::tls(nodes[0].1, authority.client(Some("client"))).unwrap();
    let moved = |addr: SocketAddr| format!("-MOVED 15495 127.0.0.1:{}\r\n", addr.port()).into_bytes();
    assert_eq!(secret.cmd(&["GET", "a"]), moved(nodes[1].1));
    eventually("the plain port is known", || plain[0].cmd(&["GET", "a"]) == moved(nodes[1].0.addr()));
    let slots = |client: &mut Client| String::from_utf8_lossy(&client.cmd(&["CLUSTER", "SLOTS"])).into_owned();
    eventually("all nodes are known", || {
        let told = slots(&mut secret);
        nodes.iter().all(|(_, addr)| told.contains(&format!(":{}\r\n", addr.port())))
    });
    // The other ports come with what the others say themselves.
    eventually("all ports are known", || {
        let told = slots(&mut plain[0]);
        nodes.iter().all(|(server, _)| told.contains(&format!(":{}\r\n", server.port())))
    });

    // A key on its way.
    ok(secret.cmd(&["SET", "b", "value"]));
    let other = plain[1].cmd(&["CLUSTER", "MYID"]);
    let other = String::from_utf8_lossy(&other).lines().nth(1).unwrap().to_owned();
    ok(plain[1].cmd(&["CLUSTER", "SETSLOT", "3300", "IMPORTING", &name]));
    ok(plain[0].cmd(&["CLUSTER", "SETSLOT", "3300", "MIGRATING", &other]));
    let target = nodes[1].1.port().to_string();
    ok(plain[0].cmd(&["MIGRATE", "127.0.0.1", &target, "b", "0", "5000"]));
    assert_eq!(secret.cmd(&["GET", "b"]), format!("-ASK 3300 127.0.0.1:{target}\r\n").into_bytes());
    ok(plain[1].cmd(&["CLUSTER", "SETSLOT", "3300", "NODE", &other]));
    ok(plain[0].cmd(&["CLUSTER", "SETSLOT", "3300", "NODE", &other]));
    assert_eq!(plain[1].cmd(&["GET", "b"]), b"$5\r\nvalue\r\n");
    // Slots as a whole, and back.
    ok(plain[1].cmd(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "3300", "3300", "NODE", &name]));
    eventually("the key is back", || plain[0].cmd(&["GET", "b"]) == b"$5\r\nvalue\r\n");

    static SAID: Once = Once::new();
    if have("redis-cli", &SAID) {
        let (ca, cert, key) = (authority.file(), authority.path("client", "crt"), authority.path("client", "key"));
        let port = nodes[0].1.port().to_string();
        let mut command = Command::new("redis-cli");
        command.args(["--tls", "--insecure", "--cacert", &ca, "--cert", &cert, "--key", &key, "-p", &port, "-c"]);
        let out = command.args(["SET", "a", "followed"]).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).contains("OK"), "{}", String::from_utf8_lossy(&out.stdout));
        assert_eq!(plain[1].cmd(&["GET", "a"]), b"$8\r\nfollowed\r\n");
    }
}
