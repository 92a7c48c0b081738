//! Messages that others push to a connection: whole ones, sent between its own replies.

use parking_lot::Mutex;

use bytes::Bytes;

/// Messages that wait for a connection's task.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Adds a message; returns how many bytes wait now.
    pub fn push(&self, message: Bytes) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.bytes += message.len();
        waiting.messages.push(message);
        waiting.bytes
    }

    /// Takes all messages, in the order they were pushed.
    pub fn take(&self) -> Vec<Bytes> {
        let mut waiting = self.waiting.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.messages)
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().messages.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }
}
