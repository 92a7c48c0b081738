//! The hot paths of the wire format: one SET, a pipeline of GETs, the commonest replies.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use spinel::resp::reply::{Output, Protocol};
use spinel::resp::request::{Limits, Parser, Step};

const LIMITS: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

fn requests(c: &mut Criterion) {
    let set = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$32\r\n{}\r\n", "x".repeat(32));
    let gets = "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n".repeat(16);
    let mut spans = Vec::with_capacity(64);
    let mut parse = |bytes: &[u8]| {
        let (mut parser, mut at) = (Parser::new(), 0);
        spans.clear();
        while let Ok(Step::Request { consumed, .. }) = parser.next(bytes, at, &LIMITS, &mut spans) {
            at += consumed;
        }
        assert_eq!(at, bytes.len());
        spans.len()
    };
    c.bench_function("parse one SET", |b| b.iter(|| parse(black_box(set.as_bytes()))));
    c.bench_function("parse 16 GETs", |b| b.iter(|| parse(black_box(gets.as_bytes()))));
}

fn replies(c: &mut Criterion) {
    let mut output = Output::new(Protocol::Resp2);
    let value = [b'x'; 32];
    let mut write = |write: &dyn Fn(&mut Output)| {
        for _ in 0..16 {
            write(&mut output);
        }
        let len = output.len();
        output.advance(len);
        len
    };
    c.bench_function("write 16 bulks", |b| b.iter(|| write(&|output| output.bulk(black_box(&value)))));
    c.bench_function("write 16 integers", |b| b.iter(|| write(&|output| output.integer(black_box(12_345)))));
    c.bench_function("write 16 doubles", |b| b.iter(|| write(&|output| output.double(black_box(1234.567)))));
}

criterion_group!(benches, requests, replies);
criterion_main!(benches);
