//! Bytes on the wire that no client library sends: what is answered, and whether the connection stays open.
//!
//! Each case says what is expected, and a real Redis, where there is one, is held to the same words:
//! a wrong expectation fails as well. Every input is sent whole, and in pieces, because where a
//! segment ends must not matter.

use crate::support::client::{Client, request};
use crate::support::server::Server;

/// Input, output, and whether the connection is open afterwards.
struct Case {
    input: Vec<u8>,
    output: Vec<u8>,
    open: bool,
}

fn case(input: impl AsRef<[u8]>, output: impl AsRef<[u8]>, open: bool) -> Case {
    Case { input: input.as_ref().to_vec(), output: output.as_ref().to_vec(), open }
}

/// The connection stays usable.
fn open(input: impl AsRef<[u8]>, output: impl AsRef<[u8]>) -> Case {
    case(input, output, true)
}

/// `-ERR Protocol error: ...`, and the connection is closed.
fn refused(input: impl AsRef<[u8]>, why: &str) -> Case {
    case(input, format!("-ERR Protocol error: {why}\r\n"), false)
}

/// How the input is cut.
#[derive(Debug, Clone, Copy)]
enum Pieces {
    Whole,
    Of(usize),
}

fn send(client: &mut Client, input: &[u8], pieces: Pieces) {
    let size = match pieces {
        Pieces::Whole => input.len().max(1),
        Pieces::Of(size) => size,
    };
    for piece in input.chunks(size) {
        // The server may have closed in the middle of it: that is for the reading side to find.
        if client.send(piece).is_err() {
            return;
        }
    }
}

/// What a new connection answers to `input` until the server has seen its end, and whether it was reset.
fn answer(server: &Server, input: &[u8], pieces: Pieces) -> (Vec<u8>, bool) {
    let mut client = server.connect();
    send(&mut client, input, pieces);
    let _ = client.finish();
    client.last_words().unwrap_or_else(|e| panic!("no end after {}: {e}", input.escape_ascii()))
}

/// Whether a new connection still answers after `input`.
fn stays_open(server: &Server, input: &[u8]) -> bool {
    const MARK: &str = "still-there-a7c1";
    let mut client = server.connect();
    send(&mut client, input, Pieces::Whole);
    // After a refusal this may meet a closed connection, which is the answer.
    let _ = client.send(&request(&["ECHO", MARK]));
    let _ = client.finish();
    let rest = client.rest().unwrap_or_else(|e| panic!("no end after {}: {e}", input.escape_ascii()));
    rest.ends_with(format!("${}\r\n{MARK}\r\n", MARK.len()).as_bytes())
}

/// Puts every case to the subject, and to the oracle if there is one.
fn check(args: &[&str], cases: &[Case]) {
    let servers = [Some(("subject", Server::subject(args))), Server::oracle(args).map(|s| ("oracle", s))];
    let mut wrong = Vec::new();
    for (name, server) in servers.iter().flatten() {
        for case in cases {
            let sizes: &[usize] = if case.input.len() < 200 { &[1, 2, 3, 7] } else { &[1000, 16384] };
            for pieces in [Pieces::Whole].into_iter().chain(sizes.iter().map(|n| Pieces::Of(*n))) {
                let (got, reset) = answer(server, &case.input, pieces);
                // Where input arrives at a closed connection, a reset may overtake the last words.
                let one_read = matches!(pieces, Pieces::Whole) && case.input.len() <= 16 * 1024;
                let lost = reset && !case.open && !one_read && case.output.starts_with(&got);
                if got != case.output && !lost {
                    wrong.push(format!(
                        "{name}, {pieces:?}: {}\n  got:      {}\n  expected: {}",
                        short(&case.input),
                        short(&got),
                        short(&case.output)
                    ));
                    break;
                }
            }
            let open = stays_open(server, &case.input);
            if open != case.open {
                wrong.push(format!("{name}: {}\n  open: {open}, expected: {}", short(&case.input), case.open));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases fail\n{}", wrong.len(), wrong.join("\n"));
}

fn short(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 300 { format!("{}... ({} bytes)", &text[..300], bytes.len()) } else { text }
}

#[test]
fn inline_commands() {
    check(
        &[],
        &[
            open("PING\r\n", "+PONG\r\n"),
            open("PING\n", "+PONG\r\n"),
            open("  PING  \r\n", "+PONG\r\n"),
            open("PING\tx\r\n", "$1\r\nx\r\n"),
            open("PING\r\n\r\nPING\r\n", "+PONG\r\n+PONG\r\n"),
            open("\r\n", ""),
            open("\n", ""),
            open("\r\n\r\n\r\nPING\r\n", "+PONG\r\n"),
            open("   \r\nPING\r\n", "+PONG\r\n"),
            open("PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", "+PONG\r\n+PONG\r\n+PONG\r\n"),
            open("ECHO \"a b\"\r\n", "$3\r\na b\r\n"),
            open("ECHO 'a b'\r\n", "$3\r\na b\r\n"),
            open("ECHO \"\\x41\\n\\r\\t\\b\\a\\q\\\"\\\\\"\r\n", "$9\r\nA\n\r\t\x08\x07q\"\\\r\n"),
            open("ECHO \"\\x4\"\r\n", "$2\r\nx4\r\n"),
            open("ECHO \"\\xzz\"\r\n", "$3\r\nxzz\r\n"),
            open("ECHO '\\x41\\n\\''\r\n", "$7\r\n\\x41\\n'\r\n"),
            open("ECHO \"\"\r\n", "$0\r\n\r\n"),
            open("ECHO ''\r\n", "$0\r\n\r\n"),
            open("\"PING\"\r\n", "+PONG\r\n"),
            open("get|x a\r\n", "-ERR unknown command 'get|x', with args beginning with: 'a' \r\n"),
            open(b"ECHO \xff\xfe\r\n", b"$2\r\n\xff\xfe\r\n"),
            open("ECHO a\rb\r\n", "-ERR wrong number of arguments for 'echo' command\r\n"),
        ],
    );
}

#[test]
fn unbalanced_quotes_close_the_connection() {
    let why = "unbalanced quotes in request";
    check(
        &[],
        &[
            refused("\"a\r\n", why),
            refused("ECHO \"a\r\n", why),
            refused("ECHO 'a\r\n", why),
            refused("ECHO \"a\"b\r\n", why),
            refused("ECHO 'a'b\r\n", why),
            refused("ECHO \"a\\\"\r\n", why),
            case("PING\r\nECHO \"a\r\nPING\r\n", format!("+PONG\r\n-ERR Protocol error: {why}\r\n"), false),
            refused("ECHO a\"b\r\n", why),
        ],
    );
}

#[test]
fn lengths_of_requests() {
    let length = "invalid multibulk length";
    check(
        &[],
        &[
            open("*0\r\n", ""),
            open("*0\r\nPING\r\n", "+PONG\r\n"),
            open("*-1\r\nPING\r\n", "+PONG\r\n"),
            open("*-10\r\nPING\r\n", "+PONG\r\n"),
            open("*-9223372036854775808\r\nPING\r\n", "+PONG\r\n"),
            refused("*abc\r\n", length),
            refused("*\r\n", length),
            refused("* 1\r\n$4\r\nPING\r\n", length),
            refused("*1 \r\n$4\r\nPING\r\n", length),
            refused("*+1\r\n$4\r\nPING\r\n", length),
            refused("*01\r\n$4\r\nPING\r\n", length),
            refused("*1.0\r\n", length),
            refused("*2147483648\r\n", length),
            refused("*9223372036854775808\r\n", length),
            refused("*99999999999999999999999\r\n", length),
            case("PING\r\n*x\r\nPING\r\n", format!("+PONG\r\n-ERR Protocol error: {length}\r\n"), false),
            refused([b"*".as_slice(), &b"1".repeat(70_000)].concat(), "too big mbulk count string"),
            refused(b"A".repeat(70_000), "too big inline request"),
            // More is to come, and is waited for: the end of the connection is no error.
            case("*2147483647\r\n", "", false),
            case("*1048577\r\n$4\r\nPING\r\n", "", false),
            case("*2\r\n$4\r\nECHO\r\n", "", false),
        ],
    );
}

#[test]
fn lengths_of_arguments() {
    let length = "invalid bulk length";
    check(
        &[],
        &[
            open("*1\r\n$4\r\nPING\r\n", "+PONG\r\n"),
            open("*1\r\n$4\r\nping\r\n", "+PONG\r\n"),
            open("*1\r\n$0\r\n\r\n", "-ERR unknown command '', with args beginning with: \r\n"),
            open("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "$0\r\n\r\n"),
            open(b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\x00\xff\r\n", b"$4\r\n\r\n\x00\xff\r\n"),
            // The two bytes after an argument are skipped, whatever they are.
            open("*1\r\n$4\r\nPINGxxPING\r\n", "+PONG\r\n+PONG\r\n"),
            refused("*1\r\n$-1\r\n", length),
            refused("*1\r\n$-5\r\n", length),
            refused("*1\r\n$abc\r\n", length),
            refused("*1\r\n$\r\n", length),
            refused("*1\r\n$04\r\nPING\r\n", length),
            refused("*1\r\n$+4\r\nPING\r\n", length),
            refused("*1\r\n$ 4\r\nPING\r\n", length),
            refused("*1\r\n$536870913\r\n", length),
            refused("*1\r\n$9223372036854775808\r\n", length),
            refused("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$-5\r\n", length),
            refused("*1\r\n:1\r\n", "expected '$', got ':'"),
            refused("*1\r\nPING\r\n", "expected '$', got 'P'"),
            refused("*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\na\r\n", "expected '$', got '*'"),
            refused("*1\r\n\r\n", "expected '$', got ' '"),
            refused([b"*1\r\n$".as_slice(), &b"1".repeat(70_000)].concat(), "too big bulk count string"),
            case("*2\r\n$4\r\nECHO\r\n$536870912\r\nabc", "", false),
        ],
    );
}

#[test]
fn limits_follow_the_configuration() {
    let large = [b"*2\r\n$4\r\nECHO\r\n$1048576\r\n".as_slice(), &b"x".repeat(1 << 20), b"\r\n"].concat();
    let reply = [b"$1048576\r\n".as_slice(), &b"x".repeat(1 << 20), b"\r\n"].concat();
    check(
        &["--proto-max-bulk-len", "1mb"],
        &[open(large, reply), refused("*2\r\n$4\r\nECHO\r\n$1048577\r\n", "invalid bulk length")],
    );
}

#[test]
fn limits_are_those_of_the_moment_in_every_worker_and_in_a_pipeline() {
    let set = |limit: &str| request(&["CONFIG", "SET", "proto-max-bulk-len", limit]);
    let server = Server::subject(&["--io-threads", "4"]);
    let large = request(&["SET", "a", &"x".repeat(2 << 20)]);
    let mut first = server.connect();
    for _ in 0..8 {
        assert_eq!(first.cmd(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]), b"+OK\r\n");
        let mut refused = server.connect();
        // It may be cut off before it has sent all of it.
        let _ = refused.send(&large);
        assert!(refused.reply().is_ok_and(|reply| reply.starts_with(b"-ERR Protocol error: invalid bulk length")));
        assert_eq!(first.cmd(&["CONFIG", "SET", "proto-max-bulk-len", "10mb"]), b"+OK\r\n");
        let mut taken = server.connect();
        taken.send(&large).unwrap();
        assert_eq!(taken.reply().unwrap(), b"+OK\r\n");
    }
    first.send(&[set("1mb"), set("10mb"), large].concat()).unwrap();
    (0..3).for_each(|_| assert_eq!(first.reply().unwrap(), b"+OK\r\n"));
}

#[test]
fn web_browsers_are_turned_away() {
    check(
        &[],
        &[
            case("POST / HTTP/1.1\r\n", "", false),
            case("post /\r\n", "", false),
            case("Host: localhost\r\n", "", false),
            case("host: localhost\r\nPING\r\n", "", false),
            open("Host\r\n", "-ERR unknown command 'Host', with args beginning with: \r\n"),
            open("GET / HTTP/1.1\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
        ],
    );
    let server = Server::subject(&[]);
    answer(&server, b"POST / HTTP/1.1\r\n", Pieces::Whole);
    assert!(server.logs("SECURITY ATTACK"), "what looks like an attack is logged");
}

#[test]
fn strangers_may_send_only_little() {
    let denied = "-NOAUTH Authentication required.\r\n";
    let eleven = [b"*11\r\n".as_slice(), &b"$1\r\nx\r\n".repeat(11)].concat();
    let ten = [b"*10\r\n$4\r\nPING\r\n".as_slice(), &b"$1\r\nx\r\n".repeat(9)].concat();
    let large = [b"*2\r\n$4\r\nPING\r\n$16384\r\n".as_slice(), &b"x".repeat(16384), b"\r\n"].concat();
    let login = b"*2\r\n$4\r\nAUTH\r\n$6\r\nsesame\r\n".as_slice();
    check(
        &["--requirepass", "sesame"],
        &[
            // Open or not, the mark of the second connection is refused: nobody logged in.
            case("PING\r\n", denied, false),
            case(ten, denied, false),
            case(large, denied, false),
            refused(eleven.clone(), "unauthenticated multibulk length"),
            refused(b"*2\r\n$4\r\nPING\r\n$16385\r\n", "unauthenticated bulk length"),
            open([login, b"PING\r\n"].concat(), "+OK\r\n+PONG\r\n"),
            open(
                [login, &eleven].concat(),
                [
                    b"+OK\r\n-ERR unknown command 'x', with args beginning with: ".as_slice(),
                    &b"'x' ".repeat(10),
                    b"\r\n",
                ]
                .concat(),
            ),
            case("QUIT\r\nPING\r\n", "+OK\r\n", false),
        ],
    );
}

#[test]
fn quit_answers_and_closes() {
    check(
        &[],
        &[
            case("QUIT\r\n", "+OK\r\n", false),
            case("PING\r\nQUIT\r\nPING\r\n", "+PONG\r\n+OK\r\n", false),
            case("*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n", "+OK\r\n", false),
        ],
    );
}

#[test]
fn a_large_argument_arrives_in_pieces() {
    let value: Vec<u8> = (0..3_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let server = Server::subject(&[]);
    let mut client = server.connect();
    let set = request(&[b"SET".as_slice(), b"k", &value]);
    for piece in set.chunks(65_537) {
        client.send(piece).expect("the server reads");
    }
    assert_eq!(client.reply().expect("a reply"), b"+OK\r\n");
    let got = client.cmd(&["GET", "k"]);
    assert_eq!(&got[..10], b"$3000000\r\n");
    assert!(got[10..got.len() - 2] == value[..], "the value comes back as it was sent");
}

#[test]
fn a_bad_client_does_not_disturb_the_others() {
    let mut server = Server::subject(&[]);
    let mut good = server.connect();
    for input in ["*1\r\n$99999999999\r\n", "*2147483647\r\n$1\r\n", "\"", "*1\r\n*1\r\n*1\r\n*1\r\n"] {
        answer(&server, input.as_bytes(), Pieces::Whole);
        assert_eq!(good.cmd(&["PING"]), b"+PONG\r\n");
    }
    // Nested headers by the thousand, which recursive readers die of.
    answer(&server, &b"*1\r\n".repeat(20_000), Pieces::Whole);
    assert_eq!(good.cmd(&["PING"]), b"+PONG\r\n");
    assert!(server.alive());
}

#[test]
fn what_a_client_is_doing_shows() {
    let server = Server::subject(&[]);
    let (mut one, mut other) = (server.connect(), server.connect());
    let id = String::from_utf8_lossy(&one.cmd(&["CLIENT", "ID"])).trim_start_matches(':').trim_end().to_owned();
    let shown = |other: &mut Client| {
        let list = String::from_utf8_lossy(&other.cmd(&["CLIENT", "LIST", "ID", &id])).into_owned();
        let field = |name: &str| list.split(' ').find(|field| field.starts_with(name)).expect("it is told").to_owned();
        format!("{} {} {}", field("flags="), field("multi="), field("cmd="))
    };
    let steps: &[(&[&str], &str)] = &[
        (&["WATCH", "k"], "flags=N multi=-1 cmd=watch"),
        (&["MULTI"], "flags=x multi=0 cmd=multi"),
        (&["SET", "x", "1"], "flags=x multi=1 cmd=set"),
        (&["GET"], "flags=x multi=1 cmd=get"),
        (&["NOSUCH"], "flags=x multi=1 cmd=NULL"),
        (&["EXEC"], "flags=N multi=-1 cmd=exec"),
        (&["SET", "k"], "flags=N multi=-1 cmd=set"),
        (&["WATCH", "k"], "flags=N multi=-1 cmd=watch"),
    ];
    for (words, line) in steps {
        one.cmd(words);
        assert_eq!(shown(&mut other), *line, "{words:?}");
    }
    other.cmd(&["SET", "k", "1"]);
    assert_eq!(shown(&mut other), "flags=d multi=-1 cmd=watch");
    one.cmd(&["UNWATCH"]);
    assert_eq!(shown(&mut other), "flags=N multi=-1 cmd=unwatch");
    assert!(String::from_utf8_lossy(&one.cmd(&["CLIENT", "INFO"])).contains(" argv-mem=10 "));

    // An EXEC that is refused is told, and counted, as the end of its transaction.
    one.cmd(&["SUBSCRIBE", "c"]);
    assert!(one.cmd(&["EXEC"]).starts_with(b"-EXECABORT Transaction discarded because of: Can't execute 'exec'"));
    let errors = String::from_utf8_lossy(&other.cmd(&["INFO", "errorstats"])).into_owned();
    assert!(errors.contains("errorstat_EXECABORT:count=2\r\n"), "{errors}");
}
