//! A server without sockets for the tests of commands: requests as text, replies as bytes.

use crate::client::session::Session;
use crate::client::shared::{Link, Shared};
use crate::command::blocking::Waiting;
use crate::command::dispatch::{Batch, Executor, Request, Stop};
use crate::command::engine::{Engine, Host, ShutdownRequest};
use crate::command::migrate::peer::{Answers, Break, Peer};
use crate::config::load::{Source, from_text};
use crate::config::table::Config;
use crate::keyspace::hash::Routing;
use crate::keyspace::space::Keyspace;
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::Span;
use crate::resp::value::Value;
use crate::stdx::clock::{Clock, ManualClock};
use crate::stdx::words::split_words;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A host that does nothing, and refuses a changed configuration only where it is told to.
#[derive(Default)]
pub struct NoHost {
    /// The directive that cannot be applied, and why.
    pub refuses: Option<(&'static str, &'static str)>,
}

impl Host for NoHost {
    fn shutdown(&self, _: ShutdownRequest) -> Result<(), String> {
        Ok(())
    }
    fn abort_shutdown(&self) -> Result<(), String> {
        Err("ERR No shutdown in progress.".into())
    }
    fn scheduled(&self) -> &AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        &NEVER
    }
    fn apply(&self, _: &Config, _: &Config, _: &[&'static str]) -> Result<(), (&'static str, String)> {
        self.refuses.map_or(Ok(()), |(directive, reason)| Err((directive, reason.to_owned())))
    }
    fn rewrite_config(&self, _: &Config, _: &[Vec<u8>], _: bool) -> Result<(), String> {
        Err("ERR The server is running without a config file".into())
    }
    fn config_file(&self) -> Option<String> {
        None
    }
    fn executable(&self) -> String {
        "spinel-server".into()
    }
    fn port(&self) -> u16 {
        6379
    }
    fn crash(&self) {}
    fn ask(&self, _: &Peer, _: &[u8], _: usize) -> Answers {
        Answers { broken: Some(Break::Connecting), ..Answers::default() }
    }
    fn kept_peers(&self) -> usize {
        0
    }
}

/// One server and one client of it.
pub struct Bench {
    /// The server.
    pub engine: Arc<Engine>,
    /// Its time, which begins at a billion milliseconds.
    pub clock: ManualClock,
    /// The client.
    pub session: Session,
    executor: Executor,
    out: Output,
    waiting: Option<Box<Waiting>>,
}

impl Bench {
    /// A server with default settings, but that it saves nothing by itself.
    #[allow(clippy::new_without_default, reason = "a test says that it makes a server")]
    pub fn new() -> Bench {
        Bench::with("")
    }

    /// A server with these lines of configuration.
    pub fn with(config: &str) -> Bench {
        Bench::on(config, NoHost::default())
    }

    /// A server whose host refuses every changed configuration, naming this directive and reason.
    pub fn refusing(refuses: (&'static str, &'static str)) -> Bench {
        Bench::on("", NoHost { refuses: Some(refuses) })
    }

    fn on(config: &str, host: NoHost) -> Bench {
        struct NoFiles;
        impl Source for NoFiles {
            fn read(&mut self, _: &[u8]) -> io::Result<Vec<u8>> {
                Err(io::ErrorKind::NotFound.into())
            }
            fn list(&mut self, _: &[u8]) -> io::Result<Vec<Vec<u8>>> {
                Ok(Vec::new())
            }
            fn stdin(&mut self) -> io::Result<Vec<u8>> {
                Ok(Vec::new())
            }
        }
        let config = format!("save \"\"\n{config}");
        let config = from_text(config.as_bytes(), &mut NoFiles).expect("a test knows what it asks for");
        let (clock, manual) = Clock::manual(1_000_000_000);
        let keyspace = Keyspace::new(Routing::Hash, 1).expect("a test knows what it asks for");
        let engine = Engine::shared(config, clock, Box::new(host), keyspace).expect("a test knows what it asks for");
        Bench::of(engine, manual)
    }

    /// Another client of the same server.
    pub fn another(&self) -> Bench {
        Bench::of(self.engine.clone(), self.clock.clone())
    }

    fn of(engine: Arc<Engine>, clock: ManualClock) -> Bench {
        let shared = Arc::new(Shared::new(
            engine.clients.next_id(),
            Link::Tcp,
            "1.2.3.4:5".into(),
            "1.2.3.4:6".into(),
            9,
            1_000_000_000,
        ));
        engine.clients.add(shared.clone());
        let session = Session::new(shared, engine.users.default_account().clone());
        let executor = Executor::new(&engine, None);
        Bench { executor, engine, clock, session, out: Output::new(Protocol::Resp2), waiting: None }
    }

    /// Replies in this protocol from now on.
    pub fn out_as(&mut self, protocol: Protocol) {
        self.out.set_protocol(protocol);
    }

    /// Runs one request on another connection, which is gone again then; the reply as [`Bench::run`] gives it.
    pub fn run_elsewhere(&mut self, line: &str) -> String {
        let id = self.engine.clients.next_id();
        let shared = Arc::new(Shared::new(id, Link::Tcp, "5.6.7.8:9".into(), "1.2.3.4:6".into(), 10, 1_000_000_000));
        let other = Session::new(shared, self.engine.users.default_account().clone());
        let mine = std::mem::replace(&mut self.session, other);
        let protocol = self.out.protocol();
        self.out.set_protocol(Protocol::Resp2);
        let reply = self.run(line);
        self.out.set_protocol(protocol);
        self.session = mine;
        reply
    }

    /// What others pushed to the client meanwhile.
    pub fn heard(&mut self) -> String {
        let mut out = Output::new(self.out.protocol());
        self.session.shared.outbox.drain(&mut out);
        String::from_utf8_lossy(&out.into_vec()).replace("\r\n", "|")
    }

    /// Runs one request, its words split as an inline command's; returns the bytes of its reply.
    pub fn raw(&mut self, line: &str) -> Vec<u8> {
        let words = split_words(line.as_bytes()).expect("a test knows what it asks for");
        let (mut buf, mut spans) = (Vec::new(), Vec::new());
        for word in &words {
            spans.push(Span { start: buf.len(), len: word.len() });
            buf.extend_from_slice(word);
        }
        let request = [Request { first: 0, args: spans.len(), start: 0 }];
        let (_, mut stop) = self.executor.run(
            &self.engine,
            &mut self.session,
            &mut self.out,
            Batch { buf: &buf, spans: &spans, requests: &request },
        );
        while let Stop::Pending(pending) = stop {
            stop = match self.executor.resume(&self.engine, &mut self.session, &mut self.out, pending) {
                Some(pending) => Stop::Pending(pending),
                None => Stop::Done,
            };
        }
        if let Stop::Waiting(waiting) = stop {
            self.waiting = Some(waiting);
        }
        self.taken()
    }

    fn taken(&mut self) -> Vec<u8> {
        let bytes = self.out.to_vec();
        self.out.advance(bytes.len());
        bytes
    }

    /// The reply of a command that waited, as text; `None` while it still does. It gives up when its time is up.
    pub fn woken(&mut self) -> Option<String> {
        let waiting = self.waiting.take().expect("a test knows that a command waits");
        if waiting.until_ms().is_some_and(|until| until <= self.engine.clock.now_ms()) {
            waiting.time_out();
        }
        if !waiting.is_over() {
            self.waiting = Some(waiting);
            return None;
        }
        self.executor.resume_wait(&self.engine, &mut self.session, &mut self.out, &waiting);
        Some(String::from_utf8_lossy(&self.taken()).replace("\r\n", "|"))
    }

    /// Whether the last command waits.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// What is appended to the log from now on: commands separated by `|`, their words by blanks.
    pub fn log(&self) -> impl Fn() -> String + use<> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        self.engine.log.read_with(Box::new(move |bytes| theirs.lock().extend_from_slice(bytes)));
        move || {
            let mut lines = Vec::new();
            let mut rest: &[u8] = &seen.lock();
            while let Ok(Some((value, size))) = Value::decode(rest) {
                let words = value.into_vec().unwrap_or_default().into_iter();
                let text = |word: Value| String::from_utf8_lossy(word.as_bytes().unwrap_or_default()).into_owned();
                lines.push(words.map(text).collect::<Vec<_>>().join(" "));
                rest = &rest[size..];
            }
            lines.join("|")
        }
    }

    /// Runs requests that were sent together; returns the bytes of their replies.
    pub fn pipeline(&mut self, lines: &[&str]) -> Vec<u8> {
        let (mut buf, mut spans, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            let words = split_words(line.as_bytes()).expect("a test knows what it asks for");
            requests.push(Request { first: spans.len(), args: words.len(), start: buf.len() });
            for word in &words {
                spans.push(Span { start: buf.len(), len: word.len() });
                buf.extend_from_slice(word);
            }
        }
        let (ran, _) = self.executor.run(
            &self.engine,
            &mut self.session,
            &mut self.out,
            Batch { buf: &buf, spans: &spans, requests: &requests },
        );
        assert_eq!(ran, requests.len());
        let bytes = self.out.to_vec();
        self.out.advance(bytes.len());
        bytes
    }

    /// The same as text, line ends shown as `|`.
    pub fn run(&mut self, line: &str) -> String {
        String::from_utf8_lossy(&self.raw(line)).replace("\r\n", "|")
    }

    /// Runs one request; returns the commands that the write log got of it, without those that select a database.
    pub fn logged(&mut self, line: &str) -> Vec<Vec<String>> {
        let bytes = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let theirs = bytes.clone();
        self.engine.log.read_with(Box::new(move |some| theirs.lock().extend_from_slice(some)));
        self.raw(line);
        let text = String::from_utf8_lossy(&bytes.lock()).into_owned();
        let commands = text.split('*').skip(1).map(|command| {
            let words = command.split("\r\n").skip(1).filter(|word| !word.is_empty() && !word.starts_with('$'));
            words.map(str::to_owned).collect::<Vec<_>>()
        });
        commands.filter(|command| command[0] != "SELECT").collect()
    }
}
