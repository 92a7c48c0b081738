//! Messages of channels in the same process, without a socket.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::session::Session;
use crate::client::shared::{Link, Shared};
use crate::command::engine::Engine;
use crate::command::pubsub;
use crate::pubsub::Kind;
use crate::resp::reply::{Output, Protocol};
use crate::resp::value::Value;
use crate::server::local::this_thread;
use crate::server::running::End;

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel that it was published on.
    pub channel: Vec<u8>,
    /// The pattern that the channel fits, where it came because of one.
    pub pattern: Option<Vec<u8>>,
    /// What was published.
    pub payload: Vec<u8>,
}

/// Receives what is published on channels, by anyone: a client in this process or one behind a socket.
///
/// It is what a connection in SUBSCRIBE is to others: CLIENT LIST shows it, PUBLISH counts it. Messages wait until
/// they are taken; one that lets more wait than `client-output-buffer-limit pubsub` allows at once is cut off, as is one that
/// CLIENT KILL ends: what had come can still be taken, and then its end is told by `None`. So is the end of the server.
///
/// As an [`Iterator`] it waits for each message.
pub struct Subscription {
    engine: Arc<Engine>,
    end: Arc<End>,
    session: Session,
    ready: VecDeque<Message>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription(id={})", self.session.shared.id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        pubsub::leave(&self.engine, &mut self.session);
        self.engine.clients.remove(self.session.shared.id);
    }
}

impl Subscription {
    /// One that is subscribed to nothing yet.
    pub(crate) fn new(engine: Arc<Engine>, end: Arc<End>) -> Subscription {
        let id = engine.clients.next_id();
        let now = engine.clock.now_ms();
        let shared = Arc::new(Shared::new(id, Link::InProcess, "in-process:0".into(), "in-process:0".into(), -1, now));
        shared.outbox.speak(Protocol::Resp3, &mut Output::new(Protocol::Resp3));
        engine.clients.add(shared.clone());
        let mut session = Session::new(shared, engine.users.owner().clone());
        session.in_process = true;
        Subscription { engine, end, session, ready: VecDeque::new() }
    }

    /// SUBSCRIBE: receives what is published on this channel from here on.
    pub fn subscribe(&mut self, channel: impl AsRef<[u8]>) {
        pubsub::join(&self.engine, &mut self.session, Kind::Channel, channel.as_ref());
    }

    /// PSUBSCRIBE: receives what is published on every channel that fits this pattern. A message comes once for each
    /// pattern that its channel fits, and once more where the channel itself is subscribed to.
    pub fn psubscribe(&mut self, pattern: impl AsRef<[u8]>) {
        pubsub::join(&self.engine, &mut self.session, Kind::Pattern, pattern.as_ref());
    }

    /// SSUBSCRIBE: receives what SPUBLISH sends on this shard channel.
    pub fn ssubscribe(&mut self, channel: impl AsRef<[u8]>) {
        pubsub::join(&self.engine, &mut self.session, Kind::ShardChannel, channel.as_ref());
    }

    /// UNSUBSCRIBE. What came before can still be taken.
    pub fn unsubscribe(&mut self, channel: impl AsRef<[u8]>) {
        pubsub::part(&self.engine, &mut self.session, Kind::Channel, channel.as_ref());
    }

    /// PUNSUBSCRIBE. What came before can still be taken.
    pub fn punsubscribe(&mut self, pattern: impl AsRef<[u8]>) {
        pubsub::part(&self.engine, &mut self.session, Kind::Pattern, pattern.as_ref());
    }

    /// SUNSUBSCRIBE. What came before can still be taken.
    pub fn sunsubscribe(&mut self, channel: impl AsRef<[u8]>) {
        pubsub::part(&self.engine, &mut self.session, Kind::ShardChannel, channel.as_ref());
    }

    /// The next message, if one has come.
    pub fn try_recv(&mut self) -> Option<Message> {
        let shared = &self.session.shared;
        if self.ready.is_empty() && shared.take_nudge() {
            let mut out = Output::new(Protocol::Resp3);
            shared.outbox.drain(&mut out);
            let bytes = out.into_vec();
            let mut rest = &bytes[..];
            while let Ok(Some((value, len))) = Value::decode(rest) {
                self.ready.extend(message(value));
                rest = &rest[len..];
            }
        }
        self.ready.pop_front()
    }

    /// Whether no message will come any more.
    fn is_over(&self) -> bool {
        self.session.shared.is_closing() || self.end.has_begun()
    }

    /// The next message, or `None` once none will come any more; wakes the task of `cx` when it is worth asking again.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.session.shared.set_waker(cx.waker());
        // Asked for first: what ended it may have come behind a message.
        let over = self.is_over();
        match self.try_recv() {
            None if !over => Poll::Pending,
            message => Poll::Ready(message),
        }
    }

    /// The next message, for a task of any runtime; `None` once none will come any more.
    pub async fn recv_async(&mut self) -> Option<Message> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Waits for the next message; `None` once none will come any more.
    pub fn recv(&mut self) -> Option<Message> {
        let waker = this_thread();
        loop {
            match self.poll_recv(&mut Context::from_waker(&waker)) {
                Poll::Ready(message) => return message,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Waits for the next message, for `patience` at most; `None` where there was none.
    pub fn recv_timeout(&mut self, patience: Duration) -> Option<Message> {
        let waker = this_thread();
        let until = Instant::now() + patience;
        loop {
            if let Poll::Ready(message) = self.poll_recv(&mut Context::from_waker(&waker)) {
                return message;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}

impl Iterator for Subscription {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.recv()
    }
}

/// A message as it was pushed.
fn message(value: Value) -> Option<Message> {
    let Value::Push(parts) = value else { return None };
    let parts: Vec<Vec<u8>> = parts.into_iter().filter_map(|part| part.as_bytes().map(<[u8]>::to_vec)).collect();
    match <[Vec<u8>; 3]>::try_from(parts) {
        Ok([_, channel, payload]) => Some(Message { channel, pattern: None, payload }),
        Err(parts) => {
            let [_, pattern, channel, payload] = <[Vec<u8>; 4]>::try_from(parts).ok()?;
            Some(Message { channel, pattern: Some(pattern), payload })
        }
    }
}
