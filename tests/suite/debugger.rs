//! The Lua debugger: the same sessions on Spinel and on a real Redis, byte by byte; what is left of one that goes on in a
//! copy of the server, and of one whose client or server goes away.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::{Client, closed, request};
use crate::support::server::{Server, have};
use crate::support::watch::{eventually, info};

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).replace("\r\n", "|")
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// The same with the places of functions in memory left out.
fn without_places(said: &str) -> String {
    let mut parts = said.split("@0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "@" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

/// Begins a session and returns what it says first.
fn begin(client: &mut Client, mode: &str, script: &str, arguments: &[&str]) -> String {
    assert_eq!(client.cmd(&["SCRIPT", "DEBUG", mode]), b"+OK\r\n");
    let eval: Vec<&str> = ["EVAL", script].into_iter().chain(arguments.iter().copied()).collect();
    text(&client.cmd(&eval))
}

/// What a server says in a session of these orders, up to the end of the connection. An order that begins with `!` is
/// sent as it is.
fn play(server: &Server, script: &str, orders: &[&str]) -> Vec<String> {
    let mut client = server.connect();
    client.cmd(&["FLUSHALL"]);
    let mut said = vec![begin(&mut client, "SYNC", script, &["2", "k1", "k2", "a1"])];
    for order in orders {
        let bytes = order.strip_prefix('!').map_or_else(|| request(&words(order)), |raw| raw.as_bytes().to_vec());
        client.send(&bytes).unwrap();
        said.push(format!(
            "{order:.60} -> {}",
            text(&client.reply().unwrap_or_else(|error| panic!("{order}: {error}")))
        ));
    }
    said.push(text(&client.rest().unwrap()));
    said.iter().map(|said| without_places(said)).collect()
}

const CALLS: &str = "local a = 1\nlocal t = {1, 'x', {y = true}}\nlocal function twice(n)\n  local m = n * 2\n  return m\nend\n\
                     local b = twice(a)\nredis.call('set', KEYS[1], b)\nfor i = 1, 2 do\n  redis.call('rpush', KEYS[2], i)\nend\n\
                     return redis.call('lrange', KEYS[2], 0, -1)\n\r\n";

const VALUES: &str = "local a = {}\na.a = a\nlocal deep = {{{{{{{{{{{{{1}}}}}}}}}}}}}\nlocal s = 'x\\n\\r\\t\\a\\b\\0\\255\"\\\\'\n\
                      local n = {1.5, 1e100, -0.1, 123456789, 2^53, 1/0, -1/0, 100000, 1e6, 1e15, 0.00001234567}\n\
                      local holes = {1, nil, 3}\nlocal null = cjson.null\nlocal long = ('abcdefghij'):rep(40)\nlocal e\n\
                      local l = {{}, {a = {}}, [5] = false}\nreturn 1";

const REPLIES: &str = "redis.call('hset', KEYS[1], 'a', 1, 'b', '\\255')\nredis.call('zadd', KEYS[2], 1.5, 'm')\nredis.setresp(3)\n\
                       redis.call('hgetall', KEYS[1])\nredis.call('zscore', KEYS[2], 'm')\nredis.call('get', 'none')\n\
                       redis.call('zrange', KEYS[2], 0, -1, 'withscores')\nredis.call('sadd', 's', 'm')\nredis.call('smembers', 's')\n\
                       redis.pcall('lpush', KEYS[1], 'x')\nredis.pcall('nosuch')\nredis.pcall('set', 'k')\nredis.pcall()\nredis.pcall({})\n\
                       redis.error_reply('foo bar')\nredis.error_reply('-BAD x')\nredis.error_reply(1)\nredis.status_reply('x')\n\
                       redis.debug('a', 1, {1}, nil, false)\nredis.debug()\nreturn redis.call('lpush', KEYS[1], 'x')";

/// Scripts, and what is ordered while they run. The last order is the one with which the session ends.
const SESSIONS: &[(&str, &[&str])] = &[
    ("return 1", &["help", "h", "c"]),
    (CALLS, &["p", "p a", "n", "s", "next", "p", "p t", "p b", "step", "t", "trace", "p", "p a", "p n", "c"]),
    (CALLS, &["l", "list 3", "l 3 1", "l 0", "l x", "l -3", "l 3 -1", "l 90", "list 2 1 9", "w", "whole", "c"]),
    (
        CALLS,
        &[
            "b", "b 8 10", "b", "b 8", "b 99", "b -8", "b -8", "b x", "b 1.5", "b 1 2", "b", "l", "b 0", "b 10",
            "b 13", "b 12", "c", "p i", "p", "c", "s", "c", "c",
        ],
    ),
    (CALLS, &["p KEYS", "p ARGV", "print none", "p a b", "c"]),
    (CALLS, &["n", "abort"]),
    (CALLS, &["b 5", "c", "a"]),
    (
        VALUES,
        &[
            "b 11",
            "c",
            "p a",
            "p deep",
            "p s",
            "p n",
            "p holes",
            "p null",
            "p e",
            "p l",
            "p long",
            "p long",
            "p",
            "m",
            "m 70",
            "p long",
            "m 5",
            "p",
            "m x",
            "p long",
            "m 1 2",
            "maxlen -1",
            "c",
        ],
    ),
    (VALUES, &["m 0", "e ('x'):rep(300)", "c"]),
    (
        REPLIES,
        &["s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s"],
    ),
    (
        "local x = 1\nreturn x",
        &[
            "e 1 + 1",
            "e return 2",
            "e x",
            "eval x y",
            "e redis.call('get', 'none')",
            "e x = 1",
            "e \"a\" .. \"b\"",
            "e",
            "e KEYS[1]",
            "e local y = 5 return y",
            "eval if true then return 3 end",
            "e error('x')",
            "e nil .. 1",
            "c",
        ],
    ),
    (
        "local x = 1\nreturn x",
        &[
            "r set k v",
            "redis get k",
            "r get none",
            "R LPUSH k x",
            "r hset h a 1",
            "r hgetall h",
            "r mget k none",
            "r nosuch",
            "r get",
            "r set a b c d e f g h i j",
            "r set a b c d e f g h i j k",
            "r multi",
            "r lrange none 0 -1",
            "r select 1",
            "r get k",
            "r",
            "redis",
            "foo",
            "foo bar",
            "restart",
            "quit",
            "S",
            "s",
        ],
    ),
    ("local a = 1\nif a then\n a = 2\nend\n\n", &["n", "n", "n", "n"]),
    ("\n\nlocal a = 1\r\nlocal b = 1\r\nreturn 1\r\n\r\n", &["w", "n", "n", "n"]),
    ("#!lua flags=no-writes\nlocal a = 1\nreturn 1", &["w", "r set a b", "s", "s"]),
    ("return {1, 2, {3, 'a', {err = 'no'}}, {ok = 'fine'}, false}", &["n"]),
    ("return {err = 'x'}", &["n"]),
    ("local a = 1\nerror('x')", &["n", "n"]),
    ("local a = 1\nerror({err = 'MY own'})", &["c"]),
    ("redis.call('nosuch')", &["n"]),
    ("redis.call('nosuch')", &["c"]),
    ("local f = function()\n return redis.call('set', 'k')\nend\nf()", &["b 2", "c", "t", "s"]),
    ("return x y", &[]),
    ("#!nothing\nreturn 1", &[]),
    ("redis.breakpoint()\nlocal a = 1\nlocal b = redis.breakpoint()\nredis.debug(b)\nreturn b", &["c", "c", "c"]),
    ("local ok, e = pcall(function()\n  local x = 1\n  return x\nend)\nreturn {ok, e}", &["b 2", "c", "abort"]),
    (
        "local co = coroutine.wrap(function(a)\n  local x = a\n  return x\nend)\nreturn co(5)",
        &["b 3", "c", "p", "t", "p ok", "c"],
    ),
    (
        "local function g(...)\n  local n = select('#', ...)\n  return n\nend\nfor i, v in ipairs({5}) do\n  g(i, v)\nend\nreturn g()",
        &["b 3", "c", "p n", "t", "c", "p", "t", "c"],
    ),
    ("local i = 0\nwhile true do\n  i = i + 1\nend", &["c", "l", "abort"]),
    ("return 1", &["!*1\r\n$4\r\ns\0ep\r\n"]),
    ("return 1", &["!*1\r\n$5\r\n\0step\r\n", "!*1\r\n$5\r\nhel\0o\r\n", "!*2\r\n$1\r\np\r\n$3\r\na\0b\r\n", "s"]),
    ("return 1", &["!abc*1\r\n$5\r\ntrace\r\n", "s"]),
    ("return 1", &["!PING\r\n"]),
    ("return 1", &["!*0\r\n"]),
    ("return 1", &["!*-1\r\n"]),
    ("return 1", &["!*1025\r\n"]),
    ("return 1", &["!*1\r\nabc\r\n"]),
    ("return 1", &["!*1\r\n$0\r\n\r\n"]),
    ("return 1", &["!*1\r\n$1025\r\n"]),
    ("return 1", &["!*1\r\n$3\r\nabcde\r\n"]),
];

#[test]
fn a_session_says_what_redis_says() {
    // The loop is stopped after this while.
    let Some((subject, oracle)) = Server::pair(&["--busy-reply-threshold", "100"]) else { return };
    for (script, orders) in SESSIONS {
        let (ours, theirs) = (play(&subject, script, orders), play(&oracle, script, orders));
        assert_eq!(ours, theirs, "{script}");
    }
}

#[test]
fn orders_with_many_and_with_long_words_are_understood_as_by_redis() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let many = |word: &str, count: usize| request(&vec![word; count]);
    let long = |len: usize| request(&["e", &format!("\"{}\"", "x".repeat(len - 2))]);
    let mut pieces = request(&["redis"]);
    pieces.splice(0..4, *b"*101\r\n");
    (0..100).for_each(|_| pieces.extend_from_slice(b"$4\r\ntest\r\n"));
    for order in [many("h", 1024), many("r", 1024), many("h", 1025), long(1024), long(1025), pieces] {
        let said = [&subject, &oracle].map(|server| {
            let mut client = server.connect();
            let first = begin(&mut client, "SYNC", "return 1", &["0"]);
            client.send(&order).unwrap();
            let answer = text(&client.reply().unwrap());
            let _ = client.send(&request(&["c"]));
            (first, answer, text(&client.rest().unwrap_or_default()))
        });
        assert_eq!(said[0].1, said[1].1);
        assert_eq!(said[0].0, said[1].0);
    }
}

#[test]
fn a_client_is_told_how_to_begin_as_by_redis() {
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let said = [&subject, &oracle].map(|server| {
        let mut client = server.connect();
        let mut said = Vec::new();
        for line in [
            "SCRIPT DEBUG",
            "SCRIPT DEBUG maybe",
            "SCRIPT DEBUG NO",
            "SCRIPT DEBUG yes",
            "SCRIPT DEBUG no",
            "MULTI",
            "SCRIPT DEBUG SYNC",
            "PING",
            "EXEC",
            "SCRIPT DEBUG sync",
            "SCRIPT LOAD return",
            "EVALSHA x 0",
            "EVAL",
            "PING",
            "FCALL none 0",
        ] {
            said.push(text(&client.cmd(&words(line))));
        }
        for command in ["EVALSHA", "EVALSHA_RO"] {
            said.push(text(&client.cmd(&[command, sha, "0"])));
        }
        said.push(text(&client.cmd(&["EVAL_RO", "return redis.call('set', 'a', 'b')", "0"])));
        said.push(text(&client.cmd(&["s"])));
        said.push(text(&client.rest().unwrap()));
        // What is wrong with the request is found out within the session.
        for request in [["EVAL", "return 1", "5"], ["EVAL", "return 1", "x"], ["EVAL", "return 1", "-1"]] {
            let mut client = server.connect();
            client.cmd(&["SCRIPT", "DEBUG", "SYNC"]);
            said.push(text(&client.cmd(&request)));
            said.push(text(&client.rest().unwrap()));
        }
        // Behind other replies it would not be known whose what is said is.
        let mut client = server.connect();
        client.send(b"PING\r\nSCRIPT DEBUG SYNC\r\n").unwrap();
        said.push(text(&client.reply().unwrap()) + &text(&client.reply().unwrap()));
        // Who asked for SYNC has it.
        let mut client = server.connect();
        for mode in ["SYNC", "YES"] {
            client.cmd(&["SCRIPT", "DEBUG", mode]);
        }
        client.cmd(&["EVAL", "redis.call('set', 'kept', 1)", "0"]);
        client.cmd(&["c"]);
        said.push(text(&client.rest().unwrap()));
        said.push(text(&server.connect().cmd(&["GET", "kept"])));
        said
    });
    assert_eq!(said[0], said[1]);
}

#[test]
fn what_is_sent_with_a_session_or_within_it_is_answered_in_its_order() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let script = "local a = 1\nlocal b = 2\nreturn a + b";
    // The session is asked for and begun at once.
    client
        .send(&[request(&["SCRIPT", "DEBUG", "SYNC"]), request(&["PING"]), request(&["EVAL", script, "0"])].concat())
        .unwrap();
    for expected in ["+OK|", "+PONG|", "*2|+* Stopped at 1, stop reason = step over|+-> 1   local a = 1|"] {
        assert_eq!(text(&client.reply().unwrap()), expected);
    }
    client.send(&[request(&["s"]), request(&["p"]), request(&["c"])].concat()).unwrap();
    for expected in
        ["*2|+* Stopped at 2, stop reason = step over|+-> 2   local b = 2|", "*1|+<value> a = 1|", "*1|+<endsession>|"]
    {
        assert_eq!(text(&client.reply().unwrap()), expected);
    }
    assert_eq!(text(&client.rest().unwrap()), ":3|");
    // Within a transaction, which is answered whole.
    let mut client = server.connect();
    client.cmd(&["SCRIPT", "DEBUG", "SYNC"]);
    client.cmd(&["MULTI"]);
    client.cmd(&["SET", "x", "1"]);
    client.cmd(&["EVAL", "return redis.call('incr', 'x')", "0"]);
    client.cmd(&["INCR", "x"]);
    assert!(text(&client.cmd(&["EXEC"])).starts_with("*2|+* Stopped at 1"));
    assert_eq!(text(&client.cmd(&["c"])), "*1|+<endsession>|");
    assert_eq!(text(&client.rest().unwrap()), "*3|+OK|:2|:3|");
}

#[test]
fn a_transaction_goes_on_in_the_server_while_its_script_is_debugged_in_a_copy() {
    let server = Server::subject(&[]);
    let mut client = server.connect();
    client.cmd(&["SCRIPT", "DEBUG", "YES"]);
    client.cmd(&["MULTI"]);
    client.cmd(&["SET", "x", "1"]);
    client.cmd(&["EVAL", "return redis.call('incrby', 'x', 10)", "0"]);
    client.cmd(&["EVAL", "return redis.call('incrby', 'x', 100)", "0"]);
    client.cmd(&["INCR", "x"]);
    assert!(text(&client.cmd(&["EXEC"])).starts_with("*2|+* Stopped at 1"));
    let mut other = server.connect();
    eventually("the transaction is done", || text(&other.cmd(&["GET", "x"])) == "$3|102|");
    assert_eq!(text(&client.cmd(&["r", "get", "x"])), "*2|+<redis> get x|+<reply> \"1\"|");
    assert_eq!(text(&client.cmd(&["c"])), "*1|+<endsession>|");
    // The copy ends with its script, and the rest of the answer is nobody's.
    assert_eq!(text(&client.rest().unwrap()), "*4|+OK|:11|");
    eventually("the copy is gone", || children(pid(&server)).is_empty());
}

const WRITES: &str = "local a = redis.call('get', 'k')\nredis.call('set', 'k', 'mine')\nredis.call('set', 'new', 1)\n\
                      redis.call('publish', 'c', 'm')\nreturn {a, redis.call('get', 'k')}";

#[test]
fn in_sync_mode_everybody_waits_and_what_was_written_stays() {
    for workers in ["1", "3"] {
        let server = Server::subject(&["--io-threads", workers, "--busy-reply-threshold", "50"]);
        let mut others: Vec<Client> = (0..6).map(|_| server.connect()).collect();
        others[0].cmd(&["SET", "k", "yours"]);
        let mut client = server.connect();
        begin(&mut client, "SYNC", WRITES, &["0"]);
        for other in &mut others {
            other.send(&request(&["GET", "k"])).unwrap();
            other.patience(Duration::from_millis(40)).unwrap();
            // Nobody is told that the server is busy, however long it takes.
            let error = other.reply().unwrap_err();
            assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
            other.patience(Duration::from_secs(30)).unwrap();
        }
        client.cmd(&["n"]);
        assert_eq!(text(&client.cmd(&["c"])), "*1|+<endsession>|");
        assert_eq!(text(&client.rest().unwrap()), "*2|$5|yours|$4|mine|");
        for other in &mut others {
            assert_eq!(text(&other.reply().unwrap()), "$4|mine|");
        }
    }
}

#[test]
fn who_goes_in_the_middle_of_a_session_leaves_the_script_to_run_to_its_end() {
    let server = Server::subject(&["--busy-reply-threshold", "100"]);
    let mut other = server.connect();
    let mut client = server.connect();
    begin(&mut client, "SYNC", WRITES, &["0"]);
    drop(client);
    assert_eq!(text(&other.cmd(&["MGET", "k", "new"])), "*2|$4|mine|$1|1|");
    // One that would never end is ended.
    let mut client = server.connect();
    begin(&mut client, "SYNC", "local a = 1\nwhile true do a = a + 1 end", &["0"]);
    client.send(&request(&["b", "2"])).unwrap();
    drop(client);
    assert_eq!(other.cmd(&["PING"]), b"+PONG\r\n");
    assert_eq!(info(&mut other, "connected_clients"), "1");
}

/// The processes that a process has started and that are not reaped.
fn children(parent: u32) -> Vec<u32> {
    let parent_of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn pid(server: &Server) -> u32 {
    info(&mut server.connect(), "process_id").parse().unwrap()
}

#[test]
fn in_forked_mode_the_server_goes_on_and_nothing_is_left_of_the_session() {
    for args in [&["--io-threads", "1"][..], &["--io-threads", "3", "--appendonly", "yes"][..]] {
        let server = Server::subject(args);
        let (mut other, mut listener) = (server.connect(), server.connect());
        other.cmd(&["SET", "k", "yours"]);
        listener.cmd(&["SUBSCRIBE", "c"]);
        let mut client = server.connect();
        assert!(begin(&mut client, "YES", WRITES, &["0"]).contains("-> 1   local a"));
        eventually("the client is the copy's", || info(&mut other, "connected_clients") == "2");
        assert_eq!(children(pid(&server)).len(), 1);
        assert_eq!(text(&other.cmd(&["SET", "k", "changed"])), "+OK|");
        client.cmd(&["b", "5"]);
        assert_eq!(text(&client.cmd(&["c"])).lines().count(), 1);
        assert_eq!(text(&other.cmd(&["GET", "k"])), "$7|changed|");
        assert_eq!(text(&client.cmd(&["r", "get", "k"])), "*2|+<redis> get k|+<reply> \"mine\"|");
        assert_eq!(text(&client.cmd(&["r", "dbsize"])), "*2|+<redis> dbsize|+<reply> 2|");
        assert_eq!(text(&client.cmd(&["c"])), "*1|+<endsession>|");
        assert_eq!(text(&client.rest().unwrap()), "*2|$5|yours|$4|mine|");
        assert_eq!(text(&other.cmd(&["MGET", "k", "new"])), "*2|$7|changed|$-1|");
        eventually("the copy is gone", || children(pid(&server)).is_empty());
        assert_eq!(text(&other.cmd(&["PUBLISH", "c", "real"])), ":1|");
        assert_eq!(text(&listener.reply().unwrap()), "*3|$7|message|$1|c|$4|real|");
        // The file knows as little of it.
        if args.contains(&"--appendonly") {
            assert_eq!(text(&other.cmd(&["DEBUG", "LOADAOF"])), "+OK|");
            assert_eq!(text(&other.cmd(&["MGET", "k", "new"])), "*2|$7|changed|$-1|");
        }
    }
}

#[test]
fn a_copy_whose_client_goes_ends_and_so_does_one_whose_server_goes() {
    let mut server = Server::subject(&[]);
    let id = pid(&server);
    let mut client = server.connect();
    begin(&mut client, "YES", WRITES, &["0"]);
    drop(client);
    eventually("the copy of a client that is gone ends", || children(id).is_empty());
    // Several at the same time, each with a client; others come and go meanwhile.
    let mut sessions: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut sessions {
        begin(client, "YES", WRITES, &["0"]);
    }
    let mut gone = server.connect();
    gone.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(text(&sessions[0].cmd(&["c"])), "*1|+<endsession>|");
    eventually("one of them has ended", || children(id).len() == 3);
    let copies = children(id);
    assert!(Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap().success());
    eventually("the server ends", || !server.alive());
    for client in &mut sessions[1..] {
        client.rest().unwrap();
    }
    let is_gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(*pid);
    eventually("no copy outlives it", || copies.iter().all(is_gone));
    // Killed hard it has no time to see to that.
    let server = Server::subject(&[]);
    let id = pid(&server);
    let mut client = server.connect();
    begin(&mut client, "YES", WRITES, &["0"]);
    let copies = children(id);
    assert_eq!(copies.len(), 1);
    drop(server);
    eventually("no copy outlives it", || copies.iter().all(is_gone));
    assert!(client.ask(&["p"]).is_err_and(|error| closed(&error)));
}

/// Whether a process has ended and only its number is left: nobody here reaps the children of a server that is gone.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_server_that_is_told_to_end_does_not_wait_for_a_session() {
    let mut server = Server::subject(&[]);
    let id = pid(&server);
    let mut client = server.connect();
    begin(&mut client, "SYNC", WRITES, &["0"]);
    assert!(Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap().success());
    eventually("the server ends", || !server.alive());
    let said = text(&client.rest().unwrap());
    assert!(said.starts_with("*1|+<endsession>|") || said.is_empty(), "{said}");
}

#[test]
fn copies_are_made_while_other_threads_work() {
    let server = Server::subject(&["--io-threads", "3", "--appendonly", "yes"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..3 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut client = server.connect();
                let key = format!("load{n}");
                let batch: Vec<Vec<&str>> =
                    (0..50).map(|_| vec!["RPUSH", &key, "some value that is not short at all"]).collect();
                while !done.load(Ordering::Relaxed) {
                    client.pipeline(&batch).unwrap();
                    client.cmd(&["DEL", &key]);
                }
            });
        }
        for _ in 0..20 {
            let mut client = server.connect();
            begin(&mut client, "YES", WRITES, &["0"]);
            client.cmd(&["n"]);
            assert_eq!(text(&client.cmd(&["r", "set", "a", "b"])), "*2|+<redis> set a b|+<reply> \"+OK\"|");
            assert_eq!(text(&client.cmd(&["c"])), "*1|+<endsession>|");
            assert_eq!(text(&client.rest().unwrap()), "*2|$-1|$4|mine|");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(text(&server.connect().cmd(&["MGET", "k", "new", "a"])), "*3|$-1|$-1|$-1|");
}

#[test]
fn redis_cli_debugs_a_script_as_with_redis() {
    static SAID: Once = Once::new();
    if !have("redis-cli", &SAID) {
        return;
    }
    let Some((subject, oracle)) = Server::pair(&[]) else { return };
    for mode in ["--ldb", "--ldb-sync-mode"] {
        let said = [&subject, &oracle].map(|server| {
            let script = server.dir().join("script.lua");
            std::fs::write(
                &script,
                "local a = 1\nredis.call('set', KEYS[1], ARGV[1])\nreturn {a, redis.call('get', KEYS[1])}\n",
            )
            .unwrap();
            let mut child = Command::new("redis-cli")
                .args(["-p", &server.port().to_string(), mode, "--eval"])
                .arg(&script)
                .args(["key", ",", "value"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let orders = b"n\np a\nb 3\nlist\nn\nprint\nnonsense\nrestart\nn\nr get key\nw\nc\nquit\n";
            io::Write::write_all(&mut child.stdin.take().unwrap(), orders).unwrap();
            let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            assert!(said.contains("Lua debugging session ended"), "{said}");
            said + &text(&server.connect().cmd(&["GETDEL", "key"]))
        });
        assert_eq!(said[0], said[1]);
    }
}
