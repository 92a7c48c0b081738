//! What one node knows of another.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::slots::SlotSet;

/// How many bytes a node's name has.
pub const NAME_BYTES: usize = 40;

/// What a node, or a shard, is called: 40 hexadecimal digits, or none at all (zeros) where there is no node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; NAME_BYTES]);

impl Name {
    /// Stands for no node.
    pub const NONE: Name = Name([0; NAME_BYTES]);

    /// The name that these bytes spell: 40 lower-case letters and digits.
    pub fn parse(bytes: &[u8]) -> Option<Name> {
        let name = Name(bytes.try_into().ok()?);
        name.is_proper().then_some(name)
    }

    /// Whether it can be a node's: what comes over the bus may be anything.
    pub fn is_proper(&self) -> bool {
        self.0.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &self.to_string()[..8])
    }
}

/// What is known of a node's role and health: the bits that stand in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// It serves slots, or could.
    pub const PRIMARY: Flags = Flags(1);
    /// It copies a primary.
    pub const REPLICA: Flags = Flags(2);
    /// It does not answer this node.
    pub const SUSPECTED: Flags = Flags(4);
    /// It does not answer most primaries.
    pub const FAILED: Flags = Flags(8);
    /// It is this node.
    pub const MYSELF: Flags = Flags(16);
    /// It has yet to tell its name.
    pub const HANDSHAKE: Flags = Flags(32);
    /// Where it is is not known.
    pub const NO_ADDRESS: Flags = Flags(64);
    /// It is greeted as one that does not know us.
    pub const MEET: Flags = Flags(128);
    /// Replicas may move to it.
    pub const MIGRATE_TO: Flags = Flags(256);
    /// It is not to become a primary by itself.
    pub const NO_FAILOVER: Flags = Flags(512);

    /// Whether one of `other` is set.
    #[inline]
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// These and `other`.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Sets those of `other`.
    pub fn add(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    /// Clears those of `other`.
    pub fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }

    const WORDS: [(Flags, &'static str); 8] = [
        (Flags::MYSELF, "myself"),
        (Flags::PRIMARY, "master"),
        (Flags::REPLICA, "slave"),
        (Flags::SUSPECTED, "fail?"),
        (Flags::FAILED, "fail"),
        (Flags::HANDSHAKE, "handshake"),
        (Flags::NO_ADDRESS, "noaddr"),
        (Flags::NO_FAILOVER, "nofailover"),
    ];

    /// The flags that these words of CLUSTER NODES stand for.
    pub fn parse(words: &str) -> Option<Flags> {
        let mut flags = Flags::default();
        for word in words.split(',').filter(|word| *word != "noflags") {
            flags.add(Flags::WORDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(word))?.0);
        }
        Some(flags)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, word) in Flags::WORDS {
            if self.has(flag) {
                f.write_str(if first { "" } else { "," })?;
                f.write_str(word)?;
                first = false;
            }
        }
        if first { f.write_str("noflags") } else { Ok(()) }
    }
}

/// The number of a connection of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A node's number, which it keeps while this node knows it, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub u32);

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    /// Its IP address as text; empty where it is not known.
    pub ip: String,
    /// The port for clients.
    pub port: u16,
    /// The port for clients that use TLS.
    pub tls_port: u16,
    /// The port of the bus.
    pub bus_port: u16,
}

impl Address {
    /// An address with the port that was told first, which is the one for TLS where the bus `has_tls`, and the other one.
    pub fn told(ip: String, (first, other): (u16, u16), bus_port: u16, has_tls: bool) -> Address {
        let (port, tls_port) = if has_tls { (other, first) } else { (first, other) };
        Address { ip, port, tls_port, bus_port }
    }

    /// The ports for clients in the order in which they are told.
    pub fn ports(&self, has_tls: bool) -> (u16, u16) {
        if has_tls { (self.tls_port, self.port) } else { (self.port, self.tls_port) }
    }

    /// The port of those who come with TLS, or without.
    pub fn port(&self, with_tls: bool) -> u16 {
        self.ports(with_tls).0
    }
}

/// By which kind of address a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4, or none at all.
    V4,
    /// IPv6.
    V6,
}

/// How a client is connected, as far as it matters for the addresses that it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// By which kind of address.
    pub family: Family,
    /// Whether with TLS.
    pub tls: bool,
}

impl Way {
    /// By IPv4, without TLS.
    pub const PLAIN: Way = Way { family: Family::V4, tls: false };

    /// That of a client whose address is shown so.
    pub fn of(addr: &str, tls: bool) -> Way {
        Way { family: if addr.starts_with('[') { Family::V6 } else { Family::V4 }, tls }
    }
}

/// The IP addresses that clients are told of a node, where these are others than nodes use; empty where not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIps {
    /// For those connected by IPv4.
    pub v4: String,
    /// For those connected by IPv6.
    pub v6: String,
}

impl ClientIps {
    /// What a client of this family is told, where nodes use `ip`.
    pub fn pick<'n>(&'n self, family: Family, ip: &'n str) -> &'n str {
        let own = if family == Family::V6 { &self.v6 } else { &self.v4 };
        if own.is_empty() { ip } else { own }
    }
}

/// A node as this one knows it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is called.
    pub name: Name,
    /// The shard that it belongs to.
    pub shard: Name,
    /// Role and health.
    pub flags: Flags,
    /// The epoch of its slots.
    pub config_epoch: u64,
    /// The slots that it serves.
    pub slots: SlotSet,
    /// Its primary, where it is a replica.
    pub primary: Option<NodeKey>,
    /// Its replicas, by their names: all nodes list them in one order.
    pub replicas: Vec<NodeKey>,
    /// Where it is.
    pub address: Address,
    /// Where clients are told that it is.
    pub client_ips: ClientIps,
    /// A name that clients may resolve; empty for none.
    pub hostname: String,
    /// A name for people; empty for none.
    pub nickname: String,
    /// Unix milliseconds of the ping that it has yet to answer; 0 for none.
    pub ping_sent: u64,
    /// Unix milliseconds of its last answer.
    pub pong_received: u64,
    /// Unix milliseconds of the last message of any kind.
    pub data_received: u64,
    /// Unix milliseconds since when it is [`Flags::FAILED`].
    pub failed_at: u64,
    /// Unix milliseconds of our last vote for one of its replicas.
    pub voted_at: u64,
    /// Unix milliseconds since when it has no replica that works; 0 where it has.
    pub orphaned_since: u64,
    /// How far its replication is.
    pub offset: u64,
    /// The connection to it.
    pub link: Option<LinkId>,
    /// The connection from it.
    pub inbound: Option<LinkId>,
    /// Which primaries do not reach it, and when they said so, in unix milliseconds.
    pub reports: BTreeMap<NodeKey, u64>,
    /// Unix milliseconds since when it is known.
    pub created: u64,
    /// The ping that has told of it last.
    pub told_in: u64,
}

impl Node {
    /// A node that was just heard of.
    pub fn new(name: Name, shard: Name, flags: Flags, now: u64) -> Node {
        Node {
            name,
            shard,
            flags,
            config_epoch: 0,
            slots: SlotSet::default(),
            primary: None,
            replicas: Vec::new(),
            address: Address::default(),
            client_ips: ClientIps::default(),
            hostname: String::new(),
            nickname: String::new(),
            ping_sent: 0,
            pong_received: 0,
            data_received: 0,
            failed_at: if flags.has(Flags::FAILED) { now } else { 0 },
            voted_at: 0,
            orphaned_since: 0,
            offset: 0,
            link: None,
            inbound: None,
            reports: BTreeMap::new(),
            created: now,
            told_in: 0,
        }
    }

    /// Whether it is a primary.
    #[inline]
    pub fn is_primary(&self) -> bool {
        self.flags.has(Flags::PRIMARY)
    }

    /// Whether it is a replica.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.flags.has(Flags::REPLICA)
    }

    /// Whether most primaries do not reach it.
    pub fn has_failed(&self) -> bool {
        self.flags.has(Flags::FAILED)
    }

    /// Whether it has yet to tell its name.
    pub fn is_in_handshake(&self) -> bool {
        self.flags.has(Flags::HANDSHAKE)
    }

    /// The IP address that a client is told who is connected so.
    pub fn ip(&self, way: Way) -> &str {
        self.client_ips.pick(way.family, &self.address.ip)
    }

    /// What logs call it beside its name.
    pub fn nick(&self) -> &str {
        &self.nickname
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_they_are_written() {
        let flags = Flags::MYSELF.with(Flags::REPLICA).with(Flags::SUSPECTED);
        assert_eq!(flags.to_string(), "myself,slave,fail?");
        assert_eq!(Flags::parse("myself,slave,fail?"), Some(flags));
        assert_eq!((Flags::default().to_string(), Flags::parse("noflags")), ("noflags".into(), Some(Flags::default())));
        assert_eq!(Flags::parse("master,nonsense"), None);
        assert_eq!(Flags::MEET.to_string(), "noflags");
    }

    #[test]
    fn clients_are_told_the_address_of_their_family_where_there_is_one() {
        let ips = ClientIps { v4: "1.2.3.4".into(), v6: String::new() };
        let told = |addr| ips.pick(Way::of(addr, false).family, "10.0.0.1").to_owned();
        assert_eq!(["5.5.5.5:1", "/tmp/socket:0", "[::1]:1"].map(told), ["1.2.3.4", "1.2.3.4", "10.0.0.1"]);
    }

    #[test]
    fn a_name_is_forty_letters_and_digits() {
        assert!(Name::parse(&[b'a'; 40]).is_some() && Name::parse(&[b'A'; 40]).is_none());
        assert!(Name::parse(&[b'a'; 39]).is_none() && Name::parse(&[0; 40]).is_none());
    }
}
