//! What a server says about itself, and waiting for it to say something else.

use std::time::{Duration, Instant};

use crate::support::client::Client;

/// How long a condition may take to come true: an overloaded machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// One field of INFO as text; empty where there is none of this name.
pub fn info(client: &mut Client, name: &str) -> String {
    let reply = client.cmd(&["INFO", "everything"]);
    let text = String::from_utf8_lossy(&reply);
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
    found.unwrap_or_default()
}

/// One field of INFO that is a number.
///
/// # Panics
/// Where it is none.
pub fn figure(client: &mut Client, name: &str) -> i64 {
    let text = info(client, name);
    text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}"))
}

/// Bytes that the server has allocated.
pub fn used_memory(client: &mut Client) -> i64 {
    figure(client, "used_memory")
}

/// Bytes of the server's memory that are resident, as the system counts them now.
pub fn rss_bytes(client: &mut Client) -> i64 {
    let path = format!("/proc/{}/status", figure(client, "process_id"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let kb = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    kb.expect("the system says how much is resident") * 1024
}

/// Looks until `condition` is true.
///
/// # Panics
/// When it is not after a patience that no healthy server needs.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
