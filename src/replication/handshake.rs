//! The handshake of a replica with its primary: what it says, and what it makes of the answers.
//!
//! A state machine without a socket: lines of the primary go in, what is to be done comes out. What must stay true: no
//! answer of a primary, however strange, leads to more than an end of the handshake; a primary that knows no PSYNC, or
//! none of the options, is followed all the same.
//!
//! Where both sides agree the data set comes by a second connection, so that the primary need not hold the stream until it
//! has come, as Valkey 8 has it:
//! ```text
//! first    PSYNC ? -1                              +DUALCHANNELSYNC
//! second   REPLCONF rdb-only 1 rdb-channel 1, SYNC $ENDOFF:<offset> <id> <db> <number>, the data set
//! first    REPLCONF set-rdb-client-id <number>     +OK
//! first    PSYNC <id> <offset + 1>                 +CONTINUE <id>, the stream
//! ```

use crate::persist::log::encode;
use crate::replication::history::is_id;
use crate::stdx::number::parse_i64;

/// What a replica can do that takes an order about slots on their way from its primary's stream: a word of our own, which
/// other programs ignore. Those of Valkey say their version instead, which for us would be a lie.
pub const FOLLOWS_SLOTS: &str = "open-slots";

/// What a replica can do that takes its data set by a second connection: the word of Valkey for it.
pub const TWO_CHANNELS: &str = "dual-channel";

/// What a replica says of itself, and asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The password, and the user where there is one.
    pub auth: Option<(Option<Vec<u8>>, Vec<u8>)>,
    /// The port that clients are to reach it at.
    pub port: u16,
    /// The address that clients are to reach it at, where the primary sees another.
    pub ip: Option<Vec<u8>>,
    /// The stream that it has followed, and how many bytes of it it has; `None` to begin anew.
    pub has: Option<(String, u64)>,
    /// It asks the other, which is its replica, to become its primary.
    pub failover: bool,
    /// It can take the data set by a second connection.
    pub two_channels: bool,
}

/// What a second connection is told before the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// How many bytes of the stream the data set is a result of.
    pub offset: u64,
    /// The stream's name.
    pub id: String,
    /// The database that the stream has selected there; `None` where it says so itself.
    pub db: Option<usize>,
    /// The number by which the first connection names the second.
    pub second: u64,
}

impl Begun {
    /// The line that says so.
    pub fn to_line(&self) -> Vec<u8> {
        let Begun { offset, id, second, .. } = self;
        let db = self.db.map_or("-1".to_owned(), |db| db.to_string());
        format!("$ENDOFF:{offset} {id} {db} {second}\r\n").into_bytes()
    }

    /// What a line says, without its end.
    fn parse(line: &[u8]) -> Option<Begun> {
        let text = std::str::from_utf8(line.strip_prefix(b"$ENDOFF:")?).ok()?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [offset, id, db, second] = words.try_into().ok()?;
        let number = |word: &str| parse_i64(word.as_bytes());
        Some(Begun {
            offset: u64::try_from(number(offset)?).ok()?,
            id: Some(id).filter(|id| is_id(id))?.to_owned(),
            db: usize::try_from(number(db)?).ok(),
            second: u64::try_from(number(second)?).ok()?,
        })
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the next line.
    Await,
    /// Send this and wait for the next line.
    Send(Vec<u8>),
    /// The data set follows: that of this stream at this offset, or of one that is not named.
    Full(Option<(String, u64)>),
    /// The same, once this is sent.
    SendForFull(Vec<u8>),
    /// The stream goes on where it stopped; it has another name now where one is given.
    Continue(Option<String>),
    /// The data set is to be asked for by a second connection.
    Second,
    /// It follows, by this second connection.
    Begun(Begun),
    /// It is to be tried again later: why.
    Later(String),
    /// It cannot go on: why.
    Failed(String),
    /// The primary takes part in nothing of two connections: what it says.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pong,
    Auth,
    Port,
    Ip,
    Capa,
    Psync,
    Channel,
    Sync,
    Attach,
    Over,
}

/// A handshake that goes on.
#[derive(Debug)]
pub struct Handshake {
    me: Introduction,
    stage: Stage,
    is_second: bool,
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    let mut bytes = Vec::new();
    encode(&mut bytes, &words);
    bytes
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// What logs a replica in, where it has to.
fn log_in(me: &Introduction) -> Vec<u8> {
    match &me.auth {
        Some((Some(user), password)) => command(&[b"AUTH", user, password]),
        Some((None, password)) => command(&[b"AUTH", password]),
        None => Vec::new(),
    }
}

impl Handshake {
    /// Begins one; returns what is to be sent first.
    pub fn begin(me: Introduction) -> (Handshake, Vec<u8>) {
        (Handshake { me, stage: Stage::Pong, is_second: false }, command(&[b"PING"]))
    }

    /// Begins that of a second connection of the same replica; returns what is to be sent first.
    pub fn second(&self) -> (Handshake, Vec<u8>) {
        let me = self.me.clone();
        let mut bytes = log_in(&me);
        let port = me.port.to_string();
        let mut words = vec![&b"REPLCONF"[..], b"capa", b"eof", b"rdb-only", b"1", b"rdb-channel", b"1"];
        words.extend([&b"listening-port"[..], port.as_bytes()]);
        if let Some(ip) = &me.ip {
            words.extend([&b"ip-address"[..], ip]);
        }
        bytes.extend(command(&words));
        let stage = if me.auth.is_some() { Stage::Auth } else { Stage::Channel };
        (Handshake { me, stage, is_second: true }, bytes)
    }

    /// Goes on at the first connection once the second knows what it will be sent; returns what is to be sent.
    pub fn attach(&mut self, begun: &Begun) -> Vec<u8> {
        self.stage = Stage::Attach;
        self.me.has = Some((begun.id.clone(), begun.offset));
        command(&[b"REPLCONF", b"set-rdb-client-id", begun.second.to_string().as_bytes()])
    }

    /// Whether the primary was asked for data already: from here on only time tells whether it is there.
    pub fn is_asking(&self) -> bool {
        matches!(self.stage, Stage::Psync | Stage::Over)
    }

    /// Takes a line of the primary, without its end; returns what is to be done.
    pub fn line(&mut self, line: &[u8]) -> Step {
        if line.is_empty() {
            // To show that it is still there.
            return Step::Await;
        }
        let refused = line.starts_with(b"-");
        match self.stage {
            Stage::Pong => {
                let may_log_in = [&b"-NOAUTH"[..], b"-NOPERM", b"-ERR operation not permitted"];
                if !line.starts_with(b"+") && !may_log_in.iter().any(|start| line.starts_with(start)) {
                    return Step::Failed(format!("Error reply to PING from master: '{}'", text(line)));
                }
                self.introduce()
            }
            // In the words of old and new: somebody may look for either.
            Stage::Auth if refused => {
                Step::Failed(format!("Unable to AUTH to MASTER: {} (Unable to AUTH to PRIMARY)", text(line)))
            }
            Stage::Auth => self.go_on(if self.is_second { Stage::Channel } else { Stage::Port }),
            // An old primary does not know these, and needs none of them.
            Stage::Port => self.go_on(if self.me.ip.is_some() { Stage::Ip } else { Stage::Capa }),
            Stage::Ip => self.go_on(Stage::Capa),
            Stage::Capa => {
                self.stage = Stage::Psync;
                Step::Send(self.psync())
            }
            Stage::Psync => self.answer(line),
            Stage::Channel | Stage::Attach if refused => {
                Step::Unknown(format!("The master takes part in no dual channel sync: {}", text(line)))
            }
            Stage::Sync if refused => Step::Later(format!("The master sends no data set at present: {}", text(line))),
            Stage::Channel => {
                self.stage = Stage::Sync;
                Step::Send(command(&[b"SYNC"]))
            }
            Stage::Sync => {
                self.stage = Stage::Over;
                let begun = Begun::parse(line);
                begun.map_or_else(
                    || Step::Unknown(format!("Received unexpected $ENDOFF response: {}", text(line))),
                    Step::Begun,
                )
            }
            Stage::Attach => {
                self.stage = Stage::Psync;
                Step::Send(self.psync())
            }
            Stage::Over => Step::Failed("An answer that nobody asked for".into()),
        }
    }

    fn go_on(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        Step::Await
    }

    /// All of the introduction at once: the answers come in the same order.
    fn introduce(&mut self) -> Step {
        let me = &self.me;
        let mut bytes = log_in(me);
        bytes.extend(command(&[b"REPLCONF", b"listening-port", me.port.to_string().as_bytes()]));
        if let Some(ip) = &me.ip {
            bytes.extend(command(&[b"REPLCONF", b"ip-address", ip]));
        }
        let mut words = vec![&b"REPLCONF"[..]];
        for can in [&b"eof"[..], b"psync2", FOLLOWS_SLOTS.as_bytes()] {
            words.extend([&b"capa"[..], can]);
        }
        if me.two_channels {
            words.extend([&b"capa"[..], TWO_CHANNELS.as_bytes()]);
        }
        bytes.extend(command(&words));
        self.stage = if me.auth.is_some() { Stage::Auth } else { Stage::Port };
        Step::Send(bytes)
    }

    fn psync(&self) -> Vec<u8> {
        let (id, offset) = match &self.me.has {
            // What is asked for is the first byte that is missing, counted from 1.
            Some((id, offset)) => (id.as_str(), (offset + 1).to_string()),
            None => ("?", "-1".to_owned()),
        };
        let mut words = vec![&b"PSYNC"[..], id.as_bytes(), offset.as_bytes()];
        if self.me.failover {
            words.push(b"FAILOVER");
        }
        command(&words)
    }

    /// What comes of the answer to PSYNC.
    fn answer(&mut self, line: &[u8]) -> Step {
        self.stage = Stage::Over;
        if let Some(rest) = line.strip_prefix(b"+FULLRESYNC") {
            let rest = text(rest);
            let mut words = rest.split_ascii_whitespace();
            let id = words.next().filter(|id| is_id(id));
            let offset = words.next().and_then(|word| parse_i64(word.as_bytes()));
            return match (id, offset.and_then(|offset| u64::try_from(offset).ok())) {
                (Some(id), Some(offset)) => Step::Full(Some((id.to_owned(), offset))),
                _ => Step::Failed(format!("Master replied with wrong +FULLRESYNC syntax: {}", text(line))),
            };
        }
        if let Some(rest) = line.strip_prefix(b"+CONTINUE") {
            if self.me.has.is_none() {
                return Step::Failed("Master continues a stream that was not asked for".into());
            }
            let rest = text(rest);
            let id = rest.trim();
            return match id {
                "" => Step::Continue(None),
                id if is_id(id) => Step::Continue(Some(id.to_owned())),
                _ => Step::Failed(format!("Master replied with wrong +CONTINUE syntax: {}", text(line))),
            };
        }
        if self.me.two_channels && line == b"+DUALCHANNELSYNC" {
            return Step::Second;
        }
        if line.starts_with(b"-NOMASTERLINK") || line.starts_with(b"-LOADING") {
            let why = text(line);
            return Step::Later(format!("Master is currently unable to PSYNC but should be in the future: {why}"));
        }
        if self.me.failover {
            return Step::Failed(format!("The target of the failover answered PSYNC with: {}", text(line)));
        }
        // It knows no PSYNC.
        Step::SendForFull(command(&[b"SYNC"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(step: &Step) -> String {
        let (Step::Send(bytes) | Step::SendForFull(bytes)) = step else { return format!("{step:?}") };
        let text = String::from_utf8_lossy(bytes);
        let words = text.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_primary_is_told_who_follows_it_and_what_it_has() {
        let id = "f".repeat(40);
        let me = Introduction {
            auth: Some((Some(b"u".to_vec()), b"p".to_vec())),
            port: 7,
            ip: Some(b"::1".to_vec()),
            has: Some((id.clone(), 41)),
            failover: false,
            two_channels: false,
        };
        let (mut handshake, ping) = Handshake::begin(me);
        assert_eq!(ping, b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            words(&handshake.line(b"-NOAUTH Authentication required.")),
            "AUTH u p REPLCONF listening-port 7 REPLCONF ip-address ::1 REPLCONF capa eof capa psync2 capa open-slots"
        );
        for line in [&b"+OK"[..], b"-ERR what", b"+OK"] {
            assert_eq!(handshake.line(line), Step::Await);
            assert!(!handshake.is_asking());
        }
        assert_eq!(words(&handshake.line(b"+OK")), format!("PSYNC {id} 42"));
        assert!(handshake.is_asking());
        assert_eq!(handshake.line(b""), Step::Await);
        assert_eq!(handshake.line(format!("+CONTINUE {id}").as_bytes()), Step::Continue(Some(id)));
    }

    fn answer(has: bool, failover: bool, line: &str) -> Step {
        let me = Introduction { has: has.then(|| ("a".repeat(40), 1)), failover, ..Introduction::default() };
        let (mut handshake, _) = Handshake::begin(me);
        handshake.line(b"+PONG");
        handshake.line(b"+OK");
        let sent = words(&handshake.line(b"+OK"));
        assert!(sent.starts_with("PSYNC ") && sent.ends_with("FAILOVER") == failover, "{sent}");
        handshake.line(line.as_bytes())
    }

    #[test]
    fn each_answer_has_its_consequence() {
        let id = "b".repeat(40);
        assert_eq!(answer(false, false, &format!("+FULLRESYNC {id} 5")), Step::Full(Some((id.clone(), 5))));
        assert_eq!(answer(true, false, "+CONTINUE"), Step::Continue(None));
        assert!(matches!(answer(false, false, "+CONTINUE"), Step::Failed(_)));
        for wrong in ["+FULLRESYNC", "+FULLRESYNC abc 5", &format!("+FULLRESYNC {id} -5"), "+CONTINUE abc"] {
            assert!(matches!(answer(true, false, wrong), Step::Failed(_)), "{wrong}");
        }
        assert!(matches!(answer(true, false, "-NOMASTERLINK Can't SYNC"), Step::Later(_)));
        assert!(matches!(answer(true, false, "-LOADING"), Step::Later(_)));
        assert_eq!(words(&answer(true, false, "-ERR unknown command")), "SYNC");
        assert!(matches!(answer(true, true, "-ERR unknown command"), Step::Failed(_)));
    }

    #[test]
    fn two_connections_are_introduced_to_each_other() {
        let id = "c".repeat(40);
        let me = Introduction {
            auth: Some((None, b"p".to_vec())),
            port: 7,
            ip: Some(b"::1".to_vec()),
            two_channels: true,
            ..Introduction::default()
        };
        let (mut first, _) = Handshake::begin(me);
        assert!(words(&first.line(b"+PONG")).ends_with("capa open-slots capa dual-channel"));
        for _ in 0..3 {
            assert_eq!(first.line(b"+OK"), Step::Await);
        }
        assert_eq!(words(&first.line(b"+OK")), "PSYNC ? -1");
        assert_eq!(first.line(b"+DUALCHANNELSYNC"), Step::Second);
        let (mut second, sent) = first.second();
        assert_eq!(
            words(&Step::Send(sent)),
            "AUTH p REPLCONF capa eof rdb-only 1 rdb-channel 1 listening-port 7 ip-address ::1"
        );
        assert_eq!(second.line(b"+OK"), Step::Await);
        assert_eq!(words(&second.line(b"+OK")), "SYNC");
        assert_eq!(second.line(b""), Step::Await);
        let begun = Begun { offset: 14, id: id.clone(), db: Some(3), second: 21 };
        let line = begun.to_line();
        assert_eq!(line, format!("$ENDOFF:14 {id} 3 21\r\n").as_bytes());
        assert_eq!(second.line(line.trim_ascii_end()), Step::Begun(begun.clone()));
        assert_eq!(words(&Step::Send(first.attach(&begun))), "REPLCONF set-rdb-client-id 21");
        assert_eq!(words(&first.line(b"+OK")), format!("PSYNC {id} 15"));
        assert_eq!(first.line(format!("+CONTINUE {id}").as_bytes()), Step::Continue(Some(id)));
    }

    #[test]
    fn a_second_connection_that_is_not_understood_is_none() {
        let ask = |lines: &[&str]| {
            let (mut second, _) = Handshake::begin(Introduction::default()).0.second();
            lines.iter().map(|line| second.line(line.as_bytes())).last()
        };
        let id = "d".repeat(40);
        assert!(matches!(ask(&["-ERR Unrecognized REPLCONF option: rdb-channel"]), Some(Step::Unknown(_))));
        assert!(matches!(ask(&["+OK", "-LOADING"]), Some(Step::Later(_))));
        for wrong in
            ["$EOF:1", "+OK", &format!("$ENDOFF:-1 {id} 0 1"), "$ENDOFF:1 abc 0 1", &format!("$ENDOFF:1 {id} 0")]
        {
            assert!(matches!(ask(&["+OK", wrong]), Some(Step::Unknown(_))), "{wrong}");
        }
        assert!(matches!(ask(&["+OK", &format!("$ENDOFF:1 {id} -1 1")]), Some(Step::Begun(Begun { db: None, .. }))));
        assert!(matches!(answer(false, false, "+DUALCHANNELSYNC"), Step::Failed(_) | Step::SendForFull(_)));
    }

    #[test]
    fn a_wrong_password_ends_it() {
        let me = Introduction { auth: Some((None, b"x".to_vec())), ..Introduction::default() };
        let (mut handshake, _) = Handshake::begin(me);
        assert!(words(&handshake.line(b"+PONG")).starts_with("AUTH x REPLCONF"));
        assert!(matches!(handshake.line(b"-WRONGPASS no"), Step::Failed(_)));
        let (mut handshake, _) = Handshake::begin(Introduction::default());
        assert!(matches!(handshake.line(b"-ERR something else"), Step::Failed(_)));
    }

    proptest! {
        #[test]
        fn any_lines_end_it_or_are_waited_behind(lines in prop::collection::vec(
            prop_oneof![Just(b"+OK".to_vec()), Just(b"+FULLRESYNC".to_vec()), prop::collection::vec(any::<u8>(), 0..60)], 0..12)) {
            let (mut handshake, _) = Handshake::begin(Introduction::default());
            for line in lines {
                match handshake.line(&line) {
                    Step::Await | Step::Send(_) => {}
                    _ => break,
                }
            }
        }
    }
}
