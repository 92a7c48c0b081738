//! Messages that answer no request: encoded once in each protocol that a receiver speaks, and shared by all of them.

use std::cell::OnceCell;

use bytes::Bytes;

use crate::resp::reply::{Output, Protocol};

/// A message for several receivers. What `write` writes is the message, in the protocol of the output it is given.
pub struct Push<F> {
    write: F,
    resp2: OnceCell<Bytes>,
    resp3: OnceCell<Bytes>,
}

impl<F: Fn(&mut Output)> Push<F> {
    /// A message that is encoded when the first receiver asks for it.
    pub fn new(write: F) -> Push<F> {
        Push { write, resp2: OnceCell::new(), resp3: OnceCell::new() }
    }

    /// The message in this protocol.
    #[inline]
    pub fn encoded(&self, protocol: Protocol) -> &Bytes {
        let place = match protocol {
            Protocol::Resp2 => &self.resp2,
            Protocol::Resp3 => &self.resp3,
        };
        place.get_or_init(|| {
            let mut out = Output::new(protocol);
            (self.write)(&mut out);
            out.into_vec().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn each_protocol_is_encoded_once() {
        let times = Cell::new(0);
        let push = Push::new(|out| {
            times.set(times.get() + 1);
            out.push(2);
            out.bulk(b"a");
            out.null();
        });
        for _ in 0..3 {
            assert_eq!(&push.encoded(Protocol::Resp2)[..], b"*2\r\n$1\r\na\r\n$-1\r\n");
            assert_eq!(&push.encoded(Protocol::Resp3)[..], b">2\r\n$1\r\na\r\n_\r\n");
        }
        assert_eq!(times.get(), 2);
    }
}
