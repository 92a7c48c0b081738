//! `nodes.conf`: what a node knows of its cluster when it starts again.
//!
//! The format is that of Redis 7.2, and files of 7.0 are read too: a line like those of CLUSTER NODES for each node, with
//! fields behind the host's name, and a line of variables.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::cluster::machine::{Machine, Settings};
use crate::cluster::node::{Address, ClientIps, Flags, Name, NodeKey};
use crate::keyspace::shard::SLOTS;
use crate::stdx::random::Random;

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine(pub String);

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unrecoverable error: corrupted cluster config file \"{}\".", self.0)
    }
}

/// Who a node was, from the text of its file; `None` where there is nothing in it.
///
/// # Errors
/// The line that is wrong.
pub fn load(text: &str, settings: Settings, random: Random, now: u64) -> Result<Option<Machine>, BadLine> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut loader = Loader { machine: Machine::empty(settings, random, now), me: None, with_shard: Vec::new() };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        loader.line(line).ok_or_else(|| BadLine(line.into()))?;
    }
    loader.finish().map(Some).ok_or_else(|| BadLine(text.lines().last().unwrap_or_default().into()))
}

struct Loader {
    machine: Machine,
    me: Option<NodeKey>,
    /// Nodes whose line said to which shard they belong.
    with_shard: Vec<NodeKey>,
}

/// Where a node is, as its line has it: `ip:port@busport`, the host's name, and more with names of their own.
struct Place {
    address: Address,
    hostname: String,
    nickname: String,
    client_ips: ClientIps,
    shard: Option<Name>,
}

impl Place {
    fn parse(text: &str, has_tls: bool) -> Option<Place> {
        let mut parts = text.split(',');
        let (ip, ports) = parts.next()?.rsplit_once(':')?;
        let hostname = parts.next().unwrap_or_default().to_owned();
        let (port, bus_port) = match ports.split_once('@') {
            Some((port, bus)) => (port.parse().ok()?, bus.parse().ok()?),
            None => {
                let port: u16 = ports.parse().ok()?;
                (port, port.wrapping_add(crate::cluster::machine::BUS_PORT_OFFSET))
            }
        };
        let address = Address::told(ip.into(), (port, 0), bus_port, has_tls);
        let mut place =
            Place { address, hostname, nickname: String::new(), client_ips: ClientIps::default(), shard: None };
        for part in parts {
            match part.split_once('=')? {
                ("shard-id", name) => place.shard = Some(Name::parse(name.as_bytes())?),
                ("nodename", name) => place.nickname = name.into(),
                ("tcp-port", port) => place.address.port = port.parse().ok()?,
                ("tls-port", port) => place.address.tls_port = port.parse().ok()?,
                ("client-ipv4", ip) => place.client_ips.v4 = ip.parse::<Ipv4Addr>().ok()?.to_string(),
                ("client-ipv6", ip) => place.client_ips.v6 = ip.parse::<Ipv6Addr>().ok().map(|_| ip.to_owned())?,
                // Newer servers write more, which is their own business.
                ("availability-zone" | "client-tls-port" | "client-tcp-port", _) => {}
                _ => return None,
            }
        }
        Some(place)
    }
}

impl Loader {
    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].eq_ignore_ascii_case("vars") {
            return self.variables(&words[1..]);
        }
        if words.len() < 8 {
            return None;
        }
        let key = self.known(Name::parse(words[0].as_bytes())?);
        let (place, flags) = (Place::parse(words[1], self.machine.settings().bus_has_tls)?, Flags::parse(words[2])?);
        if flags.has(Flags::MYSELF) && self.me.replace(key).is_some() {
            return None;
        }
        let primary = match words[3] {
            "-" => None,
            name => Some(self.known(Name::parse(name.as_bytes())?)).filter(|primary| *primary != key),
        };
        let (pinged, answered, epoch): (u64, u64, u64) =
            (words[4].parse().ok()?, words[5].parse().ok()?, words[6].parse().ok()?);
        if place.shard.is_some() {
            self.with_shard.push(key);
        }
        let is_replica = flags.has(Flags::REPLICA) && primary.is_some();
        self.machine.restore(key, |node, now| {
            (node.address, node.hostname, node.nickname) = (place.address, place.hostname, place.nickname);
            node.client_ips = place.client_ips;
            if let Some(shard) = place.shard {
                node.shard = shard;
            }
            node.flags.add(flags);
            node.ping_sent = if pinged != 0 { now } else { 0 };
            node.pong_received = if answered != 0 { now } else { 0 };
            node.failed_at = if flags.has(Flags::FAILED) { now } else { 0 };
            node.config_epoch = if is_replica { 0 } else { epoch };
        });
        if let Some(primary) = primary {
            self.machine.restore_replica(primary, key);
        }
        words[8..].iter().try_for_each(|word| self.slots(key, word))
    }

    fn known(&mut self, name: Name) -> NodeKey {
        self.machine.restore_node(name)
    }

    fn variables(&mut self, words: &[&str]) -> Option<()> {
        if !words.len().is_multiple_of(2) {
            return None;
        }
        for pair in words.chunks_exact(2) {
            self.machine.restore_variable(pair[0], pair[1].parse().ok()?);
        }
        Some(())
    }

    /// Slots of a node: `7`, `7-9`, or one on its way, `[7->-name]` and `[7-<-name]`.
    fn slots(&mut self, key: NodeKey, word: &str) -> Option<()> {
        let slot = |text: &str| text.parse().ok().filter(|slot| *slot < SLOTS);
        if let Some(inside) = word.strip_prefix('[') {
            let (number, rest) = inside.split_once('-')?;
            let name = rest.get(2..)?.strip_suffix(']')?;
            let other = self.known(Name::parse(name.as_bytes())?);
            self.machine.restore_move(slot(number)?, other, rest.starts_with('>'));
            return Some(());
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        for slot in slot(first)?..=slot(last)? {
            self.machine.restore_slot(slot, key);
        }
        Some(())
    }

    fn finish(mut self) -> Option<Machine> {
        self.machine.restored(self.me?, &self.with_shard);
        Some(self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::Config;

    fn settings() -> Settings {
        Settings::of(&Config::default(), 7000)
    }

    fn again(text: &str) -> Result<String, BadLine> {
        load(text, settings(), Random::seeded(1), 5).map(|machine| machine.unwrap().to_file())
    }

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

    #[test]
    fn a_file_is_written_as_it_was_read() {
        let text = format!(
            "{A} 127.0.0.1:7000@17000,,tls-port=0,shard-id={C} myself,master - 0 0 3 connected 0-5 7 9-10 [7->-{B}] [8-<-{B}]\n\
             {B} 127.0.0.1:7001@17001,host.x,tls-port=7,nodename=nick,client-ipv4=1.2.3.4,client-ipv6=cafe:1234::0,shard-id={B} master,fail? - 5 5 4 disconnected 16383\n\
             {C} ::1:7002@17002,,tls-port=0,shard-id={C} slave {A} 0 5 3 disconnected\n\
             vars currentEpoch 8 lastVoteEpoch 7\n"
        );
        assert_eq!(again(&text), Ok(text));
    }

    #[test]
    fn where_nodes_speak_tls_they_know_each_other_by_that_port() {
        let text = format!(
            "{A} 127.0.0.1:7000@17000,,tcp-port=0,shard-id={A} myself,master - 0 0 3 connected 0-16383\n\
             {B} 127.0.0.1:7001@17001,,tcp-port=6001,shard-id={A} slave {A} 5 5 3 disconnected\n\
             vars currentEpoch 8 lastVoteEpoch 7\n"
        );
        let announced = Address { port: 0, tls_port: 7000, ..settings().announced };
        let settings = Settings { bus_has_tls: true, announced, ..settings() };
        let machine = load(&text, settings, Random::seeded(1), 5).unwrap().unwrap();
        assert_eq!(machine.to_file(), text);
        let address = &machine.node(machine.find(B.as_bytes()).unwrap()).address;
        assert_eq!((address.port(true), address.port(false)), (7001, 6001));
    }

    #[test]
    fn files_of_older_versions_are_read() {
        let text = format!(
            "{A} 127.0.0.1:7000@17000 myself,slave {B} 0 0 0 connected\n\
             {B} 127.0.0.1:7001@17001,host master - 0 1 4 connected 0-16383\n\
             vars currentEpoch 2 lastVoteEpoch 0\n"
        );
        let written = again(&text).unwrap();
        let shard =
            |line: usize| written.lines().nth(line).unwrap().split_once("shard-id=").unwrap().1[..40].to_owned();
        assert_eq!(shard(0), shard(1), "a replica belongs to its primary's shard");
        assert!(
            written.ends_with("vars currentEpoch 4 lastVoteEpoch 0\n"),
            "no epoch is newer than the newest: {written}"
        );
    }

    #[test]
    fn a_broken_file_is_refused_with_the_line_that_is_wrong() {
        let good = format!("{A} 127.0.0.1:7000@17000 myself,master - 0 0 3 connected");
        assert!(again(&good).is_ok());
        for bad in [
            good.replace(A, "short"),
            good.replace("myself,", ""),
            good.replace("17000", "x"),
            good.replace(" 3 connected", ""),
            format!("{good} 16384"),
            format!("{good} [1->-{A}"),
            format!("{good} [1-"),
            format!("{good}\nvars currentEpoch"),
            format!("{good}\n{}", good.replace(A, B)),
            good.replace("@17000", "@17000,,unknown=1"),
            good.replace("@17000", "@17000,,client-ipv4=::1"),
        ] {
            let error = again(&bad).unwrap_err();
            assert_eq!(error.0, bad.lines().last().unwrap());
        }
    }

    #[test]
    fn there_is_no_node_in_an_empty_file() {
        assert!(load("", settings(), Random::seeded(1), 5).unwrap().is_none());
    }
}
