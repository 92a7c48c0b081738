//! Spinel inside a program: no process to start, no port to agree on, no socket on the way.
//!
//! Run it with `cargo run --example embedded`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spinel::{Clock, Server, Value};

/// Shows one thing after the other.
pub fn main() -> Result<(), Box<dyn Error>> {
    a_cache()?;
    beside_other_programs()?;
    time_that_a_test_moves()?;
    what_changes()?;
    messages_for_whoever_listens()?;
    two_that_share_nothing()?;
    println!("all of it worked");
    Ok(())
}

/// A cache that only this program sees: no listener, calls with Rust's types.
fn a_cache() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().directive("databases", "1").no_listener().start()?;
    let cache = server.client();

    cache.set("user:1", "Ada")?;
    assert_eq!(cache.get("user:1")?.as_deref(), Some(&b"Ada"[..]));
    cache.set_for("session:7", "open", Duration::from_secs(60))?;
    assert!(cache.ttl("session:7")?.flatten().is_some());
    assert_eq!(cache.add("visits", 2)?, 2);

    // Every other command, with the reply as the protocol has it. An error is a value, too.
    cache.execute(&["RPUSH", "jobs", "wash", "dry"]);
    assert_eq!(cache.execute(&["LPOP", "jobs"]), Value::Bulk(b"wash".to_vec()));
    let refused = cache.execute(&["INCR", "user:1"]);
    assert_eq!(refused, Value::Error(b"ERR value is not an integer or out of range".to_vec()));
    // The calls with types return it as an error of theirs.
    let refused = cache.add("jobs", 1).expect_err("a list is no number");
    println!("refused: {refused}");

    // A clone is a client of its own: one for each thread.
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mine = cache.clone();
            std::thread::spawn(move || (0..1000).try_for_each(|_| mine.add("counter", 1).map(drop)))
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends")?;
    }
    assert_eq!(cache.add("counter", 0)?, 4000);

    server.shutdown();
    Ok(())
}

/// A server for tests: on a free port of the loopback interface, for any Redis client.
fn beside_other_programs() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().directive("maxclients", "100").start()?;
    let addr = server.addr().expect("it listens");
    println!("try it: redis-cli -p {}", addr.port());

    let mut socket = TcpStream::connect(addr)?;
    socket.write_all(b"SET over sockets\r\n")?;
    let mut reply = [0; 5];
    socket.read_exact(&mut reply)?;
    assert_eq!(&reply, b"+OK\r\n");
    // The same keys, without the socket.
    assert_eq!(server.client().get("over")?.as_deref(), Some(&b"sockets"[..]));

    // A client ends the server; the program goes on.
    socket.write_all(b"SHUTDOWN NOSAVE\r\n")?;
    server.wait();
    Ok(())
}

/// Time that a test moves instead of sleeping.
fn time_that_a_test_moves() -> Result<(), Box<dyn Error>> {
    let (clock, hands) = Clock::manual(1_700_000_000_000);
    let server = Server::builder().clock(clock).no_listener().start()?;
    let client = server.client();
    client.set_for("ticket", "valid", Duration::from_secs(3600))?;
    hands.advance(3_599_999);
    assert!(client.exists("ticket")?);
    hands.advance(2);
    assert!(!client.exists("ticket")?);
    Ok(())
}

/// Who wants to know what happens to keys, and what would repeat it elsewhere.
fn what_changes() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().no_listener().start()?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (theirs, bytes) = (events.clone(), log.clone());
    // Both are called while the key is held: they must be quick, and must not call the server.
    server.observe(move |change| theirs.lock().expect("nobody panics").push(format!("{change:?}")));
    server.read_log(Box::new(move |command| bytes.lock().expect("nobody panics").extend_from_slice(command)));

    let client = server.client();
    client.set("a", "1")?;
    client.rename("a", "b")?;
    client.delete(&["b"])?;
    println!("events: {}", events.lock().expect("nobody panics").join(", "));
    println!("log: {}", String::from_utf8_lossy(&log.lock().expect("nobody panics")).replace("\r\n", " "));
    Ok(())
}

/// Channels between the parts of a program, and with programs behind sockets.
fn messages_for_whoever_listens() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().no_listener().start()?;
    let client = server.client();
    let mut news = client.subscribe(&["news"]);
    news.psubscribe("weather:*");
    let listener = std::thread::spawn(move || news.by_ref().take(2).collect::<Vec<_>>());
    assert_eq!(client.publish("news", "it works")?, 1);
    assert_eq!(client.publish("weather:oslo", "rain")?, 1);
    let heard = listener.join().expect("the thread ends");
    assert_eq!(heard[0].payload, b"it works");
    assert_eq!((&heard[1].channel[..], heard[1].pattern.as_deref()), (&b"weather:oslo"[..], Some(&b"weather:*"[..])));
    Ok(())
}

/// Nothing of a server is global: a program may have several, each with directives of its own.
fn two_that_share_nothing() -> Result<(), Box<dyn Error>> {
    let one = Server::builder().directive("databases", "1").start()?;
    let two = Server::builder().directive("databases", "2").directive("requirepass", "sesame").start()?;
    one.client().set("where", "one")?;
    assert!(two.client().is_empty()?);
    assert!(one.client().select(1).is_err());
    assert!(two.client().select(1).is_ok());
    assert_ne!(one.addr(), two.addr());
    Ok(())
}
