//! Messages that others push to a connection: whole ones, sent between its own replies.
//!
//! What must stay true: messages leave in the order in which they came, each in the protocol that the client
//! speaks when it is sent. So the protocol stands here too, and changes together with what waits being sent.

use bytes::Bytes;
use parking_lot::Mutex;

use crate::resp::reply::{Output, Protocol, SHARED_BULK};

/// Messages that wait for a connection's task.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
}

/// An idle outbox keeps a buffer of so many bytes at most.
const KEPT_BYTES: usize = 512;

#[derive(Debug, Default)]
struct Waiting {
    protocol: Protocol,
    /// Messages one behind the other: to copy a small one costs less than to count references to it.
    small: Vec<u8>,
    /// Large messages are shared by all who get them; each stands before the byte of `small` at this position.
    large: Vec<(usize, Bytes)>,
    messages: usize,
    large_bytes: usize,
}

impl Outbox {
    /// Adds a message, which `encoded` gives in the protocol that the client speaks, if it has that form; returns how
    /// many bytes wait now.
    #[inline]
    pub fn push_as<'a>(&self, encoded: impl FnOnce(Protocol) -> Option<&'a Bytes>) -> usize {
        let mut waiting = self.waiting.lock();
        let Some(message) = encoded(waiting.protocol) else { return waiting.small.len() + waiting.large_bytes };
        if message.len() < SHARED_BULK {
            waiting.small.extend_from_slice(message);
        } else {
            let at = waiting.small.len();
            waiting.large.push((at, message.clone()));
            waiting.large_bytes += message.len();
        }
        waiting.messages += 1;
        waiting.small.len() + waiting.large_bytes
    }

    /// Adds a message that is the same in every protocol; returns how many bytes wait now.
    pub fn push(&self, message: &Bytes) -> usize {
        self.push_as(|_| Some(message))
    }

    /// Moves all messages to the end of `out`.
    pub fn drain(&self, out: &mut Output) {
        self.waiting.lock().drain(out);
    }

    /// Has messages be in another protocol from here on; those that wait go to the end of `out` before.
    pub fn speak(&self, protocol: Protocol, out: &mut Output) {
        let mut waiting = self.waiting.lock();
        waiting.drain(out);
        waiting.protocol = protocol;
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().messages
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.small.len() + waiting.large_bytes
    }
}

impl Waiting {
    fn drain(&mut self, out: &mut Output) {
        let mut at = 0;
        for (place, message) in self.large.drain(..) {
            out.raw(&self.small[at..place]);
            out.raw_bytes(message);
            at = place;
        }
        out.raw(&self.small[at..]);
        self.small.clear();
        if self.small.capacity() > KEPT_BYTES {
            self.small = Vec::new();
        }
        self.large = Vec::new();
        self.messages = 0;
        self.large_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_messages_leave_in_the_order_they_came() {
        let outbox = Outbox::default();
        let large: Vec<Bytes> = (0..3u8).map(|n| vec![b'a' + n; SHARED_BULK + usize::from(n)].into()).collect();
        let small: Vec<Bytes> = ["x", "yy", "zzz"].into_iter().map(Bytes::from).collect();
        let order = [&large[0], &small[0], &small[1], &large[1], &large[2], &small[2]];
        let mut all = Vec::new();
        for message in order {
            all.extend_from_slice(message);
            assert_eq!(outbox.push(message), all.len());
        }
        assert_eq!((outbox.len(), outbox.bytes()), (6, all.len()));
        let mut out = Output::new(Protocol::Resp2);
        out.raw(b"before ");
        outbox.drain(&mut out);
        assert_eq!(out.to_vec(), [b"before ", all.as_slice()].concat());
        assert!(outbox.is_empty() && outbox.bytes() == 0);
        outbox.drain(&mut out);
        assert_eq!(out.len(), all.len() + 7);
    }

    #[test]
    fn messages_are_in_the_protocol_of_their_time() {
        let (two, three) = (Bytes::from("2"), Bytes::from("3"));
        let outbox = Outbox::default();
        let mut out = Output::new(Protocol::Resp2);
        let push = || outbox.push_as(|protocol| Some(if protocol == Protocol::Resp2 { &two } else { &three }));
        push();
        outbox.speak(Protocol::Resp3, &mut out);
        assert_eq!(out.to_vec(), b"2");
        push();
        outbox.drain(&mut out);
        assert_eq!(out.to_vec(), b"23");
    }
}
