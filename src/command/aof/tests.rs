//! The log turned on and off, cut off, damaged and rewritten.

use std::path::PathBuf;

use super::*;
use crate::command::aof::rewrite::look_at_growth;
use crate::command::save;
use crate::command::testing::Bench;
use crate::persist::disk::faults::{self, Plan};
use std::fs;
use std::sync::atomic::AtomicU32;

/// A directory that is gone with its test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spinel-aof-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    /// A server that keeps its files here, and does not read them yet.
    fn bench(&self, rest: &str) -> Bench {
        let dir = self.0.display();
        Bench::with(&format!("dir {dir}\nappendonly yes\nenable-debug-command yes\n{rest}"))
    }

    /// A server that has read them.
    fn start(&self, rest: &str) -> Bench {
        let bench = self.bench(rest);
        save::load_at_start(&bench.engine).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("appendonlydir").join(name)
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.path("appendonly.aof.manifest")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(self.0.join("appendonlydir")).unwrap().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        faults::set(&self.0, None);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits for the rewrite that goes on.
fn finish(bench: &Bench) {
    while bench.engine.aof.is_rewriting() {
        std::thread::yield_now();
    }
}

/// Changes of every kind.
const CHANGES: &[&str] = &[
    "SET a 1 EX 1000",
    "INCR a",
    "SELECT 3",
    "RPUSH list a b c 1 70000",
    "LPOP list",
    "HSET hash a 1 b 2",
    "HINCRBYFLOAT hash a 1.5",
    "ZADD zset 1.5 a -inf b 7 c",
    "ZPOPMIN zset",
    "SELECT 0",
    "SET b x PX 5",
    "APPEND b y",
    "SETRANGE c 5 hello",
    "EXPIRE c 100",
    "PERSIST c",
    "RENAME c d",
    "COPY d e DB 3",
    "MOVE d 5",
    "MSET x 1 y 2 z 3",
    "GETEX x EX 100",
    "GETDEL y",
    "SADD set a b c 1 2",
    "SPOP set 2",
    "SADD intset 1 2 3",
    "SPOP intset",
    "XADD stream 1-1 a 1",
    "XADD stream * b 2",
    "XGROUP CREATE stream group 0",
    "XREADGROUP GROUP group alice COUNT 1 STREAMS stream >",
    "XACK stream group 1-1",
    "SWAPDB 0 3",
    "SET int 5",
    "INCRBYFLOAT int 0.25",
    "LMOVE list list LEFT RIGHT",
    "DEL z",
];

#[test]
fn what_a_transaction_asks_for_begins_when_it_is_over() {
    let dir = Dir::new();
    let mut bench = dir.start("appendonly yes");
    for words in ["MULTI", "BGREWRITEAOF", "BGSAVE"] {
        bench.run(words);
    }
    let scheduled = "*2|+Background append only file rewriting scheduled|+Background saving scheduled|";
    assert_eq!(bench.run("EXEC"), scheduled);
    let (aof, saves) = (&bench.engine.aof, &bench.engine.saves);
    assert!(aof.scheduled.load(Ordering::Relaxed) && saves.scheduled.load(Ordering::Relaxed));
    assert!(!aof.is_rewriting() && !saves.is_running());
}

#[test]
fn what_was_changed_is_there_again() {
    for preamble in ["aof-use-rdb-preamble yes", "aof-use-rdb-preamble no\naof-timestamp-enabled yes"] {
        let dir = Dir::new();
        let mut bench = dir.start(preamble);
        for change in CHANGES {
            let reply = bench.run(change);
            assert!(!reply.starts_with('-'), "{change}: {reply}");
        }
        let digest = bench.run("DEBUG DIGEST");
        assert_eq!(bench.run("DEBUG LOADAOF"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest, "{preamble}");
        assert_eq!(bench.run("BGREWRITEAOF"), "+Background append only file rewriting started|");
        bench.run("SET behind 1");
        finish(&bench);
        let digest = bench.run("DEBUG DIGEST");
        drop(bench);
        let mut bench = dir.start(preamble);
        assert_eq!(bench.run("DEBUG DIGEST"), digest, "{preamble}");
        let base = if preamble.ends_with("mble yes") { "rdb" } else { "aof" };
        assert_eq!(
            dir.manifest(),
            format!("file appendonly.aof.2.base.{base} seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n")
        );
        assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
    }
}

#[test]
fn a_cut_at_any_byte_leaves_a_state_that_was_there() {
    let dir = Dir::new();
    let mut bench = dir.start("");
    let path = dir.path("appendonly.aof.1.incr.aof");
    let mut states = vec![(0, bench.run("DEBUG DIGEST"))];
    for change in CHANGES {
        bench.run(change);
        states.push((fs::metadata(&path).unwrap().len() as usize, bench.run("DEBUG DIGEST")));
    }
    drop(bench);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), states.last().unwrap().0);
    for cut in (0..=bytes.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut bench = dir.start("");
        let digest = bench.run("DEBUG DIGEST");
        let (whole, expected) = states.iter().rev().find(|(len, _)| *len <= cut).unwrap();
        // A SELECT alone is whole, and changes nothing.
        assert_eq!(&digest, expected, "cut at {cut}, behind {whole}");
        assert!(fs::metadata(&path).unwrap().len() as usize <= cut);
    }
}

#[test]
fn a_log_that_is_turned_on_begins_with_what_is_there() {
    let dir = Dir::new();
    let mut bench = Bench::with(&format!("dir {}\nenable-debug-command yes", dir.0.display()));
    bench.run("SET a 1");
    assert!(bench.run("INFO persistence").contains("aof_enabled:0|"));
    assert_eq!(bench.run("CONFIG SET appendonly yes"), "+OK|");
    bench.run("SET b 2");
    finish(&bench);
    bench.run("SET c 3");
    let info = bench.run("INFO persistence");
    assert!(info.contains("aof_enabled:1|") && info.contains("aof_last_bgrewrite_status:ok|"), "{info}");
    assert!(info.contains("aof_current_size:"), "{info}");
    let digest = bench.run("DEBUG DIGEST");
    assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
    assert_eq!(bench.run("CONFIG SET appendonly no"), "+OK|");
    bench.run("SET d 4");
    assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
    // On again: what the log had is of no use any more.
    bench.run("CONFIG SET appendonly yes");
    finish(&bench);
    bench.run("SET e 5");
    let digest = bench.run("DEBUG DIGEST");
    assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
    assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
}

#[test]
fn a_log_of_one_file_becomes_the_base_of_a_new_one() {
    let dir = Dir::new();
    fs::write(dir.0.join("appendonly.aof"), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap();
    let mut bench = dir.start("");
    assert_eq!(bench.run("GET a"), "$1|1|");
    assert_eq!(dir.manifest(), "file appendonly.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n");
    assert!(!dir.0.join("appendonly.aof").exists());
    bench.run("BGREWRITEAOF");
    finish(&bench);
    assert_eq!(dir.start("").run("GET a"), "$1|1|");
}

#[test]
fn what_cannot_be_read_is_told() {
    let say = |manifest: Option<&str>, log: &str, rest: &str| {
        let dir = Dir::new();
        fs::create_dir_all(dir.0.join("appendonlydir")).unwrap();
        fs::write(dir.path("appendonly.aof.1.incr.aof"), log).unwrap();
        let manifest = manifest.unwrap_or("file appendonly.aof.1.incr.aof seq 1 type i\n");
        fs::write(dir.path("appendonly.aof.manifest"), manifest).unwrap();
        save::load_at_start(&dir.bench(rest).engine).err().unwrap_or_default()
    };
    assert!(say(Some(""), "", "").contains("Found an empty AOF manifest"));
    assert!(say(Some("file x seq 1 type i\n"), "", "").contains("the append only file x for reading: No such file"));
    assert!(say(None, "nonsense\r\n", "").starts_with("Bad file format reading the append only file"));
    assert!(say(None, "*1\r\n$3\r\nFOO\r\n", "").starts_with("Unknown command 'FOO' reading"));
    assert!(say(None, "*1\r\n$4\r\nPI", "aof-load-truncated no").starts_with("Unexpected end of file"));
    assert_eq!(say(None, "*1\r\n$4\r\nPI", ""), "");
}

#[test]
fn a_transaction_without_its_end_is_left_out() {
    let dir = Dir::new();
    fs::create_dir_all(dir.0.join("appendonlydir")).unwrap();
    let set = |key: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n$1\r\n1\r\n");
    let (multi, exec) = ("*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nEXEC\r\n");
    let whole = [&set("a"), multi, &set("b"), &set("c"), exec].concat();
    let log = [&whole, multi, &set("d")].concat();
    fs::write(dir.path("appendonly.aof.1.incr.aof"), log).unwrap();
    fs::write(dir.path("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
    let mut bench = dir.start("");
    assert_eq!(bench.run("EXISTS a b c d"), ":3|");
    assert_eq!(fs::read(dir.path("appendonly.aof.1.incr.aof")).unwrap(), whole.as_bytes());
}

#[test]
fn keys_live_as_long_as_the_log_needs_them() {
    let dir = Dir::new();
    let mut bench = dir.start("");
    bench.run("SET a 1 PX 100");
    bench.run("INCR a");
    bench.run("PERSIST a");
    bench.run("SET b 1 PX 100");
    drop(bench);
    let bench = dir.bench("");
    bench.clock.advance(60_000);
    save::load_at_start(&bench.engine).unwrap();
    let mut bench = bench;
    assert_eq!(bench.run("GET a"), "$1|2|");
    assert_eq!(bench.run("GET b"), "$-1|");
}

#[test]
fn a_full_disk_refuses_writes_and_is_recovered_from() {
    for policy in ["appendfsync everysec", "appendfsync always"] {
        let dir = Dir::new();
        let mut bench = dir.start(policy);
        bench.run("SET a 1");
        bench.engine.aof.appender.flush().unwrap();
        faults::set(&dir.0, Some(Plan { room: Some(10), ..Plan::default() }));
        bench.run("SET a 2");
        let _ = bench.engine.aof.appender.flush();
        bench.engine.refuse(Refusal::LogFailed, true);
        assert_eq!(
            bench.run("SET a 3"),
            "-MISCONF Errors writing to the AOF file: No space left on device|",
            "{policy}"
        );
        assert_eq!(bench.run("GET a"), "$1|2|");
        assert!(bench.run("INFO persistence").contains("aof_last_write_status:err|"));
        faults::set(&dir.0, None);
        bench.engine.aof.appender.flush().unwrap();
        assert_eq!(bench.run("SET a 4"), "+OK|");
        bench.engine.aof.appender.flush().unwrap();
        assert_eq!(dir.start("").run("GET a"), "$1|4|");
    }
}

#[test]
fn a_log_that_has_doubled_is_rewritten_by_itself() {
    let dir = Dir::new();
    let mut bench = dir.start("auto-aof-rewrite-min-size 1000");
    for _ in 0..100 {
        bench.run("INCR a");
    }
    look_at_growth(&bench.engine);
    finish(&bench);
    assert!(dir.manifest().contains("appendonly.aof.2.base.rdb"));
    assert!(bench.run("INFO persistence").contains("aof_rewrites:1|"));
    look_at_growth(&bench.engine);
    assert!(!bench.engine.aof.is_rewriting());
}

#[test]
fn a_rewrite_that_fails_leaves_what_can_be_read() {
    let dir = Dir::new();
    let mut bench = dir.start("");
    bench.run("SET a 1");
    // Something is in the way of the new base.
    fs::create_dir_all(dir.path("appendonly.aof.2.base.rdb/x")).unwrap();
    for _ in 0..2 {
        bench.run("BGREWRITEAOF");
        bench.run("INCR a");
        finish(&bench);
    }
    assert!(bench.run("INFO persistence").contains("aof_last_bgrewrite_status:err|"));
    assert_eq!(dir.manifest().lines().count(), 4);
    let mut other = dir.start("");
    assert_eq!(other.run("GET a"), "$1|3|");
    drop(other);
    fs::remove_dir_all(dir.path("appendonly.aof.2.base.rdb")).unwrap();
    bench.run("BGREWRITEAOF");
    finish(&bench);
    assert_eq!(dir.manifest().lines().count(), 2);
    assert_eq!(dir.start("").run("GET a"), "$1|3|");
}
