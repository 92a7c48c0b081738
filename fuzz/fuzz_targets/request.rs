//! Any bytes, in one piece and in many, before and after login: the same requests, and spans that are in bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spinel::resp::request::{Limits, Parser, ProtocolError, Step};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds pieces of `size` bytes (of 1, 2 ... bytes if that is 0) and drops what is consumed.
fn feed(mut bytes: &[u8], size: usize, limits: &Limits) -> Outcome {
    let (mut parser, mut buf, mut spans, mut requests) = (Parser::new(), Vec::new(), Vec::new(), Vec::new());
    let mut next = 1;
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(if size == 0 { next } else { size }.min(bytes.len()));
        next += 1;
        bytes = rest;
        buf.extend_from_slice(piece);
        let mut at = 0;
        loop {
            spans.clear();
            match parser.next(&buf, at, limits, &mut spans) {
                Ok(Step::Request { args, consumed }) => {
                    assert_eq!(args, spans.len());
                    assert!(consumed > 0 && at + consumed <= buf.len());
                    for span in &spans {
                        assert!(span.start >= at && span.start + span.len < at + consumed);
                    }
                    requests.push(spans.iter().map(|span| span.of(&buf).to_vec()).collect());
                    at += consumed;
                }
                Ok(Step::Inline { words, consumed }) => {
                    assert!(spans.is_empty());
                    assert!(consumed > 0 && at + consumed <= buf.len());
                    requests.push(words);
                    at += consumed;
                }
                Ok(Step::Incomplete) => {
                    assert!(spans.is_empty());
                    assert_eq!(parser.is_mid_request(), at < buf.len());
                    let _ = parser.missing(buf.len() - at);
                    break;
                }
                Err(error) => {
                    assert!(error.to_string().starts_with("Protocol error: "));
                    return (requests, Some(error));
                }
            }
        }
        buf.drain(..at);
    }
    (requests, None)
}

fuzz_target!(|bytes: &[u8]| {
    for authenticated in [true, false] {
        let limits = Limits { max_bulk: 100_000, authenticated };
        let whole = feed(bytes, bytes.len().max(1), &limits);
        // Whether a line is too long depends on how much of it arrives before its end, as in Redis.
        if bytes.len() < 64 * 1024 {
            for size in [0, 1, 5] {
                assert_eq!(feed(bytes, size, &limits), whole);
            }
        }
    }
});
