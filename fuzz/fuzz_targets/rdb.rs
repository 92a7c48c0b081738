//! Any bytes as a data set, on one thread and on several: an error or keys that can be used, never a panic; and the
//! same bytes as a payload and as a listpack.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spinel::config::table::Config;
use spinel::keyspace::hash::Routing;
use spinel::keyspace::hold::ShardSet;
use spinel::keyspace::moment::{AccessPolicy, Moment};
use spinel::keyspace::space::Keyspace;
use spinel::persist::rdb::load::{self, Manner, Overdue, Progress, Twice};
use spinel::persist::rdb::reader::Reader;
use spinel::persist::rdb::save::{self, Audience, Head};
use spinel::persist::rdb::value::Limits;
use spinel::persist::rdb::{Dialect, payload};
use spinel::types::listpack::Listpack;

fuzz_target!(|bytes: &[u8]| {
    let config = Config { rdbchecksum: false, ..Config::default() };
    let moment = Moment { now_ms: 1_000_000_000_000, policy: AccessPolicy::Lru };
    let manner = Manner { config: &config, moment, overdue: Overdue::Drop, twice: Twice::Refuse, behind: false };
    for threads in [1, 2] {
        let keyspace = Keyspace::new(Routing::Hash, 1).expect("threads can be started");
        let mut source = bytes;
        let loaded = load::load(&keyspace, &mut Reader::new(&mut source), manner, threads, &Progress::default());
        // Whatever was loaded can be written, and is then what it was.
        let mut hold = keyspace.hold(ShardSet::ALL);
        let mut again = Vec::new();
        let encoder = save::encoder(&config, moment, Audience::File);
        let to = save::Manner::of(&config);
        save::write_held(&keyspace, &mut hold, &*encoder, &Head::default(), to, &mut again).expect("a vector takes all");
        drop(hold);
        let other = Keyspace::new(Routing::Hash, 1).expect("threads can be started");
        let mut source = &again[..];
        let copy = load::load(&other, &mut Reader::new(&mut source), manner, 1, &Progress::default());
        let copy = copy.expect("what was written can be read");
        if let Ok(loaded) = loaded {
            assert_eq!(loaded.keys, copy.keys);
        }
    }
    for dialect in [Dialect::Redis, Dialect::Valkey] {
        let _ = payload::read(bytes, Limits { config: &config, dialect, now_ms: None });
    }
    if let Some(pack) = Listpack::from_bytes(bytes.to_vec()) {
        assert_eq!(pack.iter().count(), pack.len());
    }
});
