//! Scripts that do not end: others hear so in time, on the script's own worker and on all others, and can end them.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::client::{Client, request};
use crate::support::server::Server;

/// A patience that no healthy server needs.
const PATIENCE: Duration = Duration::from_secs(30);

fn server(workers: &str) -> Server {
    Server::subject(&["--io-threads", workers, "--busy-reply-threshold", "100"])
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().to_owned()
}

/// Sends a script that does not end, and waits until the server is busy with it.
fn spin(server: &Server, command: &[&str]) -> Client {
    let mut spinning = server.connect();
    let words: Vec<Vec<u8>> = command.iter().map(|word| word.as_bytes().to_vec()).collect();
    spinning.send(&request(&words)).unwrap();
    let mut other = server.connect();
    let until = Instant::now() + PATIENCE;
    while !text(&other.cmd(&["PING"])).starts_with("-BUSY") {
        assert!(Instant::now() < until, "nobody says that the server is busy");
    }
    spinning
}

const ENDLESS: [&str; 3] = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do redis.pcall('nosuch') redis.pcall('ping') end",
];

#[test]
fn everybody_hears_that_the_server_is_busy_and_may_end_the_script() {
    for workers in ["1", "3"] {
        let server = server(workers);
        // Clients of every worker.
        let mut before: Vec<Client> = (0..6).map(|_| server.connect()).collect();
        for script in ENDLESS {
            let mut spinning = spin(&server, &["EVAL", script, "0"]);
            let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
            for client in &mut before {
                let asked = Instant::now();
                assert_eq!(text(&client.cmd(&["GET", "a"])), busy);
                assert!(asked.elapsed() < Duration::from_secs(1));
            }
            let mut late = server.connect();
            assert_eq!(text(&late.cmd(&["SET", "a", "b"])), busy);
            assert_eq!(text(&late.cmd(&["FUNCTION", "KILL"])), busy);
            assert_eq!(text(&late.cmd(&["SHUTDOWN"])), busy);
            assert_eq!(text(&late.cmd(&["NOSUCH"])), "-ERR unknown command 'NOSUCH', with args beginning with:");
            assert_eq!(text(&late.cmd(&["SCRIPT", "KILL"])), "+OK");
            let ended = text(&spinning.reply().unwrap());
            assert!(ended.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "), "{ended}");
            for client in before.iter_mut().chain([&mut late, &mut spinning]) {
                assert_eq!(text(&client.cmd(&["PING"])), "+PONG");
            }
            assert_eq!(text(&late.cmd(&["SCRIPT", "KILL"])), "-NOTBUSY No scripts in execution right now.");
        }
    }
}

#[test]
fn time_goes_on_for_a_script_that_keeps_others_waiting() {
    let server = server("2");
    let mut client = server.connect();
    let script = "redis.call('set', 'a', 'b') local began = redis.call('time')[1] \
                  while redis.call('time')[1] - began < 2 do end return 'done'";
    assert_eq!(text(&client.cmd(&["EVAL", script, "0"])), "$4\r\ndone");
}

#[test]
fn a_script_that_has_written_ends_only_with_the_server() {
    for workers in ["1", "2"] {
        let mut server = server(workers);
        let mut spinning = spin(&server, &["EVAL", "redis.call('set','a','b') while true do end", "0"]);
        let mut other = server.connect();
        let said = text(&other.cmd(&["SCRIPT", "KILL"]));
        assert!(said.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{said}");
        assert!(text(&other.cmd(&["PING"])).starts_with("-BUSY"));
        other.send(b"SHUTDOWN NOSAVE\r\n").unwrap();
        let _ = other.rest();
        assert!(Client::tcp(server.addr()).is_err(), "who is told by the end of the connection finds nobody");
        let until = Instant::now() + PATIENCE;
        while server.alive() {
            assert!(Instant::now() < until, "it goes on although it was told to end");
            std::thread::yield_now();
        }
        let _ = spinning.rest();
    }
}

#[test]
fn functions_have_a_command_of_their_own_to_end_them() {
    let server = server("1");
    let mut client = server.connect();
    let library = "#!lua name=l\nredis.register_function('spin', function() while true do end end)";
    assert_eq!(text(&client.cmd(&["FUNCTION", "LOAD", library])), "$1\r\nl");
    let mut spinning = spin(&server, &["FCALL", "spin", "1", "k", "x"]);
    let busy = "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";
    assert_eq!(text(&client.cmd(&["PING"])), busy);
    assert_eq!(text(&client.cmd(&["SCRIPT", "KILL"])), busy);
    let stats = text(&client.cmd(&["FUNCTION", "STATS"])).replace("\r\n", "|");
    assert!(stats.starts_with("*4|$14|running_script|*6|$4|name|$4|spin|$7|command|*5|$5|FCALL|$4|spin|"), "{stats}");
    assert_eq!(text(&client.cmd(&["FUNCTION", "KILL"])), "+OK");
    let ended = text(&spinning.reply().unwrap());
    assert_eq!(ended, "-ERR Script killed by user with SCRIPT KILL... script: spin, on @user_function:2.");
    let endless = "#!lua name=e\nwhile true do end";
    let said = text(&client.cmd(&["FUNCTION", "LOAD", endless]));
    assert_eq!(said, "-ERR Error registering functions: ERR FUNCTION LOAD timeout");
}

#[test]
fn while_a_script_of_the_log_is_run_again_others_hear_that_data_is_loaded() {
    let args = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--busy-reply-threshold", "1"];
    let server = Server::subject(&args);
    let script = "redis.call('SET', KEYS[1], 'y') for i = 1, 300000 do redis.call('PING') end";
    let mut log = std::fs::OpenOptions::new();
    let mut log = log.append(true).open(server.dir().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
    log.write_all(&request(&["SELECT", "0"])).unwrap();
    log.write_all(&request(&["EVAL", script, "1", "x"])).unwrap();
    let (mut loading, mut other) = (server.connect(), server.connect());
    loading.send(&request(&["DEBUG", "LOADAOF"])).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let reply = text(&other.cmd(&["PING"]));
        if reply != "+PONG" {
            assert_eq!(reply, "-LOADING Redis is loading the dataset in memory");
            break;
        }
        assert!(Instant::now() < until, "nobody says that data is loaded");
    }
    assert_eq!(text(&loading.reply().unwrap()), "+OK");
    assert_eq!(text(&other.cmd(&["GET", "x"])), "$1\r\ny");
}
