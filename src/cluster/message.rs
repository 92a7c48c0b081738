//! Messages of the cluster bus, as bytes.
//!
//! Every message begins with a header of 2256 bytes that tells who sends it: names, epochs, slots, address, flags. All
//! numbers are in network order. What must stay true: whatever bytes come in, [`Message::decode`] returns.

use bytes::Bytes;

use crate::cluster::node::{Flags, NAME_BYTES, Name};
use crate::cluster::slots::{SLOT_BYTES, SlotSet};

/// The version of the protocol: 1.
const VERSION: u16 = 1;
/// How many bytes the header has.
pub const HEADER_BYTES: usize = 2256;
/// How many bytes what is told of another node has.
const GOSSIP_BYTES: usize = 104;
/// How many bytes an IP address as text may have, the zero behind it included.
const IP_BYTES: usize = 46;
/// The first bytes of a message: its signature and its length.
pub const PREFIX_BYTES: usize = 8;
/// The longest message that is accepted; Redis' own are as long as the client's longest message.
pub const MESSAGE_MAX: usize = 1 << 30;
/// What is published has so many bytes at most, those of its channel included.
pub const PUBLISHED_MAX: usize = MESSAGE_MAX - HEADER_BYTES - 8;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
#[allow(missing_docs, reason = "each is the message of its name")]
pub enum Kind {
    Ping = 0,
    Pong = 1,
    Meet = 2,
    Fail = 3,
    Publish = 4,
    AuthRequest = 5,
    AuthAck = 6,
    Update = 7,
    ManualStart = 8,
    Module = 9,
    PublishShard = 10,
}

/// How many kinds of messages there are.
pub const KINDS: usize = 11;

impl Kind {
    /// All of them, by their numbers.
    pub const ALL: [Kind; KINDS] = [
        Kind::Ping,
        Kind::Pong,
        Kind::Meet,
        Kind::Fail,
        Kind::Publish,
        Kind::AuthRequest,
        Kind::AuthAck,
        Kind::Update,
        Kind::ManualStart,
        Kind::Module,
        Kind::PublishShard,
    ];

    /// What CLUSTER INFO calls it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::Meet => "meet",
            Kind::Fail => "fail",
            Kind::Publish => "publish",
            Kind::AuthRequest => "auth-req",
            Kind::AuthAck => "auth-ack",
            Kind::Update => "update",
            Kind::ManualStart => "mfstart",
            Kind::Module => "module",
            Kind::PublishShard => "publishshard",
        }
    }
}

/// What the sender says of itself with every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The port for clients, of the kind that the bus uses: TLS or not.
    pub port: u16,
    /// The port for clients of the other kind; 0 for none.
    pub other_port: u16,
    /// The port of the bus.
    pub bus_port: u16,
    /// The newest epoch that it has heard of.
    pub current_epoch: u64,
    /// The epoch of its slots; a replica says its primary's.
    pub config_epoch: u64,
    /// How far its replication is.
    pub offset: u64,
    /// What it is called.
    pub sender: Name,
    /// Its slots; a replica says its primary's.
    pub slots: SlotSet,
    /// Its primary; [`Name::NONE`] where it is one.
    pub primary: Name,
    /// The address that it wants to be known by; empty where that is the one that it is seen under.
    pub ip: String,
    /// Its own flags.
    pub flags: Flags,
    /// Whether it sees the cluster as failed.
    pub down: bool,
    /// Clients of a primary wait for a manual failover.
    pub paused: bool,
    /// A vote is to be given although the primary has not failed.
    pub forced: bool,
}

/// What a message tells of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// What it is called.
    pub name: Name,
    /// Unix seconds of the ping that it has not answered; 0 for none.
    pub ping_sent: u32,
    /// Unix seconds of its last answer.
    pub pong_received: u32,
    /// Where it is.
    pub ip: String,
    /// The port for clients, of the kind that the bus uses.
    pub port: u16,
    /// The port for clients of the other kind.
    pub other_port: u16,
    /// The port of the bus.
    pub bus_port: u16,
    /// Its flags.
    pub flags: Flags,
}

/// What follows the gossip of pings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// The name that clients may resolve.
    Hostname(String),
    /// The name for people.
    Nickname(String),
    /// A node that was forgotten, and is to be for so many seconds more.
    Forgotten(Name, u64),
    /// The shard of the sender.
    Shard(Name),
    /// The IPv4 address that clients are told.
    ClientIpv4(String),
    /// The IPv6 address that clients are told.
    ClientIpv6(String),
}

/// What a message carries beside its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Ping, pong or meet.
    Ping {
        /// What is told of others.
        gossip: Vec<Gossip>,
        /// What the sender adds.
        extensions: Vec<Extension>,
    },
    /// Most primaries do not reach this node.
    Fail(Name),
    /// A message on a channel, or a shard channel.
    Publish {
        /// The channel.
        channel: Bytes,
        /// The message.
        message: Bytes,
    },
    /// Nothing.
    Empty,
    /// The newer configuration of a node.
    Update {
        /// The epoch of its slots.
        config_epoch: u64,
        /// What it is called.
        name: Name,
        /// Its slots.
        slots: SlotSet,
    },
    /// What a module of Redis sends: nothing to us.
    Module,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Who sends it.
    pub header: Header,
    /// What it says.
    pub body: Body,
}

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// It is not of this protocol at all: the connection is closed.
    Foreign,
    /// It is of another version, or of no kind that is known.
    Unknown(Option<u16>),
    /// Its length is not that of what is in it.
    Length,
}

/// Where the flags of a header are that few messages set.
const PAUSED: u8 = 1;
const FORCED: u8 = 2;
const EXTENDED: u8 = 4;

/// How long the message is that begins with these bytes; `None` where it cannot be one.
pub fn length(prefix: [u8; PREFIX_BYTES]) -> Option<usize> {
    let [r, c, m, b, rest @ ..] = prefix;
    let len = u32::from_be_bytes(rest) as usize;
    ([r, c, m, b] == *b"RCmb" && (HEADER_BYTES..=MESSAGE_MAX).contains(&len)).then_some(len)
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Invalid::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Invalid::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Invalid> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Invalid> {
        self.array().map(u64::from_be_bytes)
    }

    fn name(&mut self) -> Result<Name, Invalid> {
        self.array().map(Name)
    }

    fn slots(&mut self) -> Result<SlotSet, Invalid> {
        Ok(SlotSet::from_bytes(&self.array::<SLOT_BYTES>()?))
    }

    fn ip(&mut self) -> Result<String, Invalid> {
        self.take(IP_BYTES).map(text)
    }
}

/// The text up to the first zero; nothing where it has bytes that could not stand in `nodes.conf`.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b",=@\"'\\".contains(byte);
    let plain = bytes[..end].iter().all(is_plain);
    if plain { String::from_utf8_lossy(&bytes[..end]).into_owned() } else { String::new() }
}

impl Message {
    /// Reads a message, which is whole.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn decode(bytes: &[u8]) -> Result<Message, Invalid> {
        let mut from = Reader(bytes);
        if length(from.array()?) != Some(bytes.len()) {
            return Err(Invalid::Foreign);
        }
        if from.u16()? != VERSION {
            return Err(Invalid::Unknown(None));
        }
        let port = from.u16()?;
        let number = from.u16()?;
        let count = from.u16()?;
        let (current_epoch, config_epoch, offset) = (from.u64()?, from.u64()?, from.u64()?);
        let (sender, slots, primary) = (from.name()?, from.slots()?, from.name()?);
        let ip = from.ip()?;
        let extensions = from.u16()?;
        from.take(30)?;
        let (other_port, bus_port, flags) = (from.u16()?, from.u16()?, Flags(from.u16()?));
        let down = from.u8()? != 0;
        let marks = from.u8()?;
        from.take(2)?;
        let header = Header {
            port,
            other_port,
            bus_port,
            current_epoch,
            config_epoch,
            offset,
            sender,
            slots,
            primary,
            ip,
            flags,
            down,
            paused: marks & PAUSED != 0,
            forced: marks & FORCED != 0,
        };
        let kind = *Kind::ALL.get(usize::from(number)).ok_or(Invalid::Unknown(Some(number)))?;
        let body = match kind {
            Kind::Ping | Kind::Pong | Kind::Meet => {
                let extensions = if marks & EXTENDED != 0 { extensions } else { 0 };
                ping_body(&mut from, count, extensions)?
            }
            Kind::Fail => Body::Fail(from.name()?),
            Kind::Publish | Kind::PublishShard => {
                let (channel, message) = (from.u32()? as usize, from.u32()? as usize);
                let channel = Bytes::copy_from_slice(from.take(channel)?);
                Body::Publish { channel, message: Bytes::copy_from_slice(from.take(message)?) }
            }
            Kind::AuthRequest | Kind::AuthAck | Kind::ManualStart => Body::Empty,
            Kind::Update => Body::Update { config_epoch: from.u64()?, name: from.name()?, slots: from.slots()? },
            Kind::Module => {
                from.take(8)?;
                let len = from.u32()? as usize;
                from.take(1)?;
                from.take(len)?;
                Body::Module
            }
        };
        // Redis leaves some bytes of a union unused behind short bodies, but counts none of them.
        if from.0.is_empty() { Ok(Message { kind, header, body }) } else { Err(Invalid::Length) }
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        let mut to = Vec::with_capacity(HEADER_BYTES + 512);
        let header = &self.header;
        let (count, extensions) = match &self.body {
            Body::Ping { gossip, extensions } => (gossip.len(), extensions.len()),
            _ => (0, 0),
        };
        let small = |n: usize| u16::try_from(n).expect("a message tells of fewer than 65536 nodes");
        to.extend_from_slice(b"RCmb\0\0\0\0");
        for number in [VERSION, header.port, self.kind as u16, small(count)] {
            to.extend_from_slice(&number.to_be_bytes());
        }
        for number in [header.current_epoch, header.config_epoch, header.offset] {
            to.extend_from_slice(&number.to_be_bytes());
        }
        to.extend_from_slice(&header.sender.0);
        to.extend_from_slice(&header.slots.to_bytes());
        to.extend_from_slice(&header.primary.0);
        put_ip(&mut to, &header.ip);
        to.extend_from_slice(&small(extensions).to_be_bytes());
        to.extend_from_slice(&[0; 30]);
        for number in [header.other_port, header.bus_port, header.flags.0] {
            to.extend_from_slice(&number.to_be_bytes());
        }
        let marks = [(header.paused, PAUSED), (header.forced, FORCED), (extensions > 0, EXTENDED)];
        let marks = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).sum();
        to.extend_from_slice(&[u8::from(header.down), marks, 0, 0]);
        assert_eq!(to.len(), HEADER_BYTES, "the header has its length");
        self.encode_body(&mut to);
        let len = u32::try_from(to.len()).expect("messages are shorter than 4 GiB");
        to[4..8].copy_from_slice(&len.to_be_bytes());
        to.into()
    }

    fn encode_body(&self, to: &mut Vec<u8>) {
        match &self.body {
            Body::Ping { gossip, extensions } => {
                for node in gossip {
                    to.extend_from_slice(&node.name.0);
                    to.extend_from_slice(&node.ping_sent.to_be_bytes());
                    to.extend_from_slice(&node.pong_received.to_be_bytes());
                    put_ip(to, &node.ip);
                    for number in [node.port, node.bus_port, node.flags.0, node.other_port, 0] {
                        to.extend_from_slice(&number.to_be_bytes());
                    }
                }
                extensions.iter().for_each(|extension| put_extension(to, extension));
            }
            Body::Fail(name) => to.extend_from_slice(&name.0),
            Body::Publish { channel, message } => {
                for part in [channel, message] {
                    let len = u32::try_from(part.len()).expect("arguments are shorter than 4 GiB");
                    to.extend_from_slice(&len.to_be_bytes());
                }
                to.extend_from_slice(channel);
                to.extend_from_slice(message);
            }
            Body::Empty => {}
            Body::Update { config_epoch, name, slots } => {
                to.extend_from_slice(&config_epoch.to_be_bytes());
                to.extend_from_slice(&name.0);
                to.extend_from_slice(&slots.to_bytes());
            }
            Body::Module => to.extend_from_slice(&[0; 13]),
        }
    }
}

fn put_ip(to: &mut Vec<u8>, ip: &str) {
    let mut bytes = [0; IP_BYTES];
    let len = ip.len().min(IP_BYTES - 1);
    bytes[..len].copy_from_slice(&ip.as_bytes()[..len]);
    to.extend_from_slice(&bytes);
}

/// The numbers of extensions.
const HOSTNAME: u16 = 0;
const NICKNAME: u16 = 1;
const FORGOTTEN: u16 = 2;
const SHARD: u16 = 3;
const CLIENT_IPV4: u16 = 4;
const CLIENT_IPV6: u16 = 5;

fn put_extension(to: &mut Vec<u8>, extension: &Extension) {
    let (number, data) = match extension {
        Extension::Hostname(name) => (HOSTNAME, [name.as_bytes(), &[0]].concat()),
        Extension::Nickname(name) => (NICKNAME, [name.as_bytes(), &[0]].concat()),
        Extension::Forgotten(name, seconds) => (FORGOTTEN, [&name.0[..], &seconds.to_be_bytes()].concat()),
        Extension::Shard(name) => (SHARD, name.0.to_vec()),
        Extension::ClientIpv4(ip) => (CLIENT_IPV4, [ip.as_bytes(), &[0]].concat()),
        Extension::ClientIpv6(ip) => (CLIENT_IPV6, [ip.as_bytes(), &[0]].concat()),
    };
    let padded = data.len().next_multiple_of(8);
    let len = u32::try_from(padded + 8).expect("names are short");
    to.extend_from_slice(&len.to_be_bytes());
    to.extend_from_slice(&number.to_be_bytes());
    to.extend_from_slice(&[0, 0]);
    to.extend_from_slice(&data);
    to.resize(to.len() + padded - data.len(), 0);
}

fn ping_body(from: &mut Reader<'_>, count: u16, extended: u16) -> Result<Body, Invalid> {
    // Before anything is reserved for what is announced, it is known to be there.
    if from.0.len() < usize::from(count) * GOSSIP_BYTES {
        return Err(Invalid::Length);
    }
    let mut gossip = Vec::with_capacity(count.into());
    for _ in 0..count {
        let (name, ping_sent, pong_received, ip) = (from.name()?, from.u32()?, from.u32()?, from.ip()?);
        let (port, bus_port, flags, other_port) = (from.u16()?, from.u16()?, Flags(from.u16()?), from.u16()?);
        from.take(2)?;
        gossip.push(Gossip { name, ping_sent, pong_received, ip, port, other_port, bus_port, flags });
    }
    let mut extensions = Vec::new();
    for _ in 0..extended {
        let len = from.u32()? as usize;
        let number = from.u16()?;
        from.take(2)?;
        if len < 8 || !len.is_multiple_of(8) {
            return Err(Invalid::Length);
        }
        let mut data = Reader(from.take(len - 8)?);
        match number {
            HOSTNAME => extensions.push(Extension::Hostname(text(data.0))),
            NICKNAME => extensions.push(Extension::Nickname(text(data.0))),
            FORGOTTEN => extensions.push(Extension::Forgotten(Name(data.array::<NAME_BYTES>()?), data.u64()?)),
            SHARD => extensions.push(Extension::Shard(data.name()?)),
            CLIENT_IPV4 => extensions.push(Extension::ClientIpv4(text(data.0))),
            CLIENT_IPV6 => extensions.push(Extension::ClientIpv6(text(data.0))),
            // What newer nodes add is not for us.
            _ => {}
        }
    }
    Ok(Body::Ping { gossip, extensions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Name> {
        any::<u64>().prop_map(|n| Name::parse(format!("{n:040x}").as_bytes()).unwrap())
    }

    fn slots() -> impl Strategy<Value = SlotSet> {
        prop::collection::vec(0usize..16384, 0..20).prop_map(|slots| slots.into_iter().collect())
    }

    fn gossip() -> impl Strategy<Value = Gossip> {
        (name(), any::<[u32; 2]>(), "[0-9a-f:.]{0,45}", any::<[u16; 4]>()).prop_map(|(name, times, ip, numbers)| {
            Gossip {
                name,
                ping_sent: times[0],
                pong_received: times[1],
                ip,
                port: numbers[0],
                other_port: numbers[1],
                bus_port: numbers[2],
                flags: Flags(numbers[3]),
            }
        })
    }

    fn extension() -> impl Strategy<Value = Extension> {
        prop_oneof![
            "[a-z.]{0,40}".prop_map(Extension::Hostname),
            "[a-z.]{0,40}".prop_map(Extension::Nickname),
            (name(), any::<u64>()).prop_map(|(name, ttl)| Extension::Forgotten(name, ttl)),
            name().prop_map(Extension::Shard),
            "[0-9.]{0,15}".prop_map(Extension::ClientIpv4),
            "[0-9a-f:]{0,39}".prop_map(Extension::ClientIpv6),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let body = prop_oneof![
            (0..3usize, prop::collection::vec(gossip(), 0..5), prop::collection::vec(extension(), 0..4))
                .prop_map(|(kind, gossip, extensions)| (Kind::ALL[kind], Body::Ping { gossip, extensions })),
            name().prop_map(|name| (Kind::Fail, Body::Fail(name))),
            (any::<bool>(), bytes(), bytes()).prop_map(|(shard, channel, message)| {
                (if shard { Kind::PublishShard } else { Kind::Publish }, Body::Publish { channel, message })
            }),
            Just((Kind::AuthAck, Body::Empty)),
            Just((Kind::Module, Body::Module)),
            (any::<u64>(), name(), slots())
                .prop_map(|(config_epoch, name, slots)| (Kind::Update, Body::Update { config_epoch, name, slots })),
        ];
        (body, any::<[u16; 4]>(), any::<[u64; 3]>(), name(), slots(), name(), "[0-9.]{0,15}", any::<[bool; 3]>())
            .prop_map(|((kind, body), numbers, long, sender, slots, primary, ip, [down, paused, forced])| Message {
                kind,
                header: Header {
                    port: numbers[0],
                    other_port: numbers[1],
                    bus_port: numbers[2],
                    flags: Flags(numbers[3]),
                    current_epoch: long[0],
                    config_epoch: long[1],
                    offset: long[2],
                    sender,
                    slots,
                    primary,
                    ip,
                    down,
                    paused,
                    forced,
                },
                body,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(message in message()) {
            let bytes = message.encode();
            prop_assert_eq!(length(*bytes.first_chunk().unwrap()), Some(bytes.len()));
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn broken_messages_are_refused_not_believed(
            message in message(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let whole = message.encode();
            let mut bytes = whole[..cut.index(whole.len())].to_vec();
            prop_assert!(Message::decode(&bytes).is_err());
            if bytes.len() >= 8 {
                let len = u32::try_from(bytes.len()).unwrap();
                bytes[4..8].copy_from_slice(&len.to_be_bytes());
                let _ = Message::decode(&bytes);
            }
            let mut bytes = whole.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn a_header_is_laid_out_as_redis_has_it() {
        let header = Header {
            port: 0x0102,
            other_port: 0x0304,
            bus_port: 0x0506,
            current_epoch: 7,
            config_epoch: 8,
            offset: 9,
            sender: Name([b'a'; 40]),
            slots: [0, 9].into_iter().collect(),
            primary: Name([b'b'; 40]),
            ip: "1.2.3.4".into(),
            flags: Flags::PRIMARY.with(Flags::MYSELF),
            down: true,
            paused: false,
            forced: true,
        };
        let bytes = Message { kind: Kind::AuthRequest, header, body: Body::Empty }.encode();
        assert_eq!(bytes.len(), 2256);
        assert_eq!(&bytes[..16], b"RCmb\0\0\x08\xd0\0\x01\x01\x02\0\x05\0\0");
        assert_eq!((bytes[23], bytes[31], bytes[39], bytes[40]), (7, 8, 9, b'a'));
        assert_eq!((bytes[80], bytes[81], bytes[2128]), (1, 2, b'b'));
        assert_eq!(&bytes[2168..2176], b"1.2.3.4\0");
        assert_eq!(&bytes[2246..2256], b"\x03\x04\x05\x06\0\x11\x01\x02\0\0");
    }
}
