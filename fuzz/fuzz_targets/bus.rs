//! Any bytes as messages of the cluster bus: what is understood is written as it was read, and a node that hears it keeps
//! its own house in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spinel::cluster::file;
use spinel::cluster::machine::{Machine, Replication, Settings};
use spinel::cluster::message::{Body, HEADER_BYTES, Message};
use spinel::config::table::Config;
use spinel::keyspace::shard::SLOTS;
use spinel::stdx::random::Random;

const NOW_MS: u64 = 1_000_000_000;
const NODES: &str = "\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 10.0.0.1:1@11 myself,master - 0 0 1 connected 0-8191\n\
    bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 10.0.0.2:2@12 master - 0 0 2 connected 8192-16383\n\
    cccccccccccccccccccccccccccccccccccccccc 10.0.0.3:3@13 slave bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 0 0 2 connected\n\
    vars currentEpoch 2 lastVoteEpoch 0\n";

/// A node that knows two others.
fn node() -> Machine {
    let settings = Settings::of(&Config::default(), 7000);
    let machine = file::load(NODES, settings, Random::seeded(1), NOW_MS);
    machine.ok().flatten().expect("the file is a good one")
}

/// The first byte says who sends and what; the rest stands behind what makes a header a header.
fn message(bytes: &[u8]) -> Vec<u8> {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut message = vec![0; HEADER_BYTES];
    message[..4].copy_from_slice(b"RCmb");
    message[9] = 1;
    message[13] = first >> 4;
    message[40..80].fill(b"abcd"[usize::from(first & 3)]);
    // Numbers of the header come first, and what follows it after them.
    let numbers = rest.len().min(256);
    message[14..40].iter_mut().zip(&rest[..numbers]).for_each(|(to, from)| *to = *from);
    message[2128..].iter_mut().zip(rest[..numbers].iter().skip(26)).for_each(|(to, from)| *to = *from);
    message.extend_from_slice(&rest[numbers..]);
    let len = u32::try_from(message.len()).expect("inputs are short");
    message[4..8].copy_from_slice(&len.to_be_bytes());
    message
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Message::decode(bytes);
    let mut machine = node();
    for part in bytes.split(|byte| *byte == 0xff) {
        let message = message(part);
        if let Ok(understood) = Message::decode(&message)
            && !matches!(understood.body, Body::Module)
        {
            assert_eq!(Message::decode(&understood.encode()).as_ref(), Ok(&understood));
        }
        machine.enter(NOW_MS, Replication::default());
        let link = machine.accepted("10.0.0.9".into(), "10.0.0.1".into());
        machine.received(link, &message);
        machine.tick();
        machine.leave();
        let owned: usize = machine.nodes().map(|(_, node)| node.slots.len()).sum();
        assert_eq!(owned, (0..SLOTS).filter(|slot| machine.owner(*slot).is_some()).count());
        for (key, node) in machine.nodes() {
            assert!(node.primary.is_none_or(|primary| machine.node(primary).replicas.contains(&key)));
        }
        // What it would find when it starts again.
        let settings = machine.settings().clone();
        assert!(file::load(&machine.to_file(), settings, Random::seeded(2), NOW_MS).is_ok());
    }
});
