//! What this node tells others.

use bytes::Bytes;

use crate::cluster::machine::{Action, Machine};
use crate::cluster::message::{Body, Extension, Gossip, Header, Kind, Message};
use crate::cluster::node::{Flags, LinkId, Name, Node, NodeKey};

/// The least number of nodes that a ping tells of.
const GOSSIP_LEAST: usize = 3;

/// Who is told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everybody.
    All,
    /// The other replicas of this node's primary, and of this node.
    Siblings,
}

impl Machine {
    /// What every message says of this node.
    pub(super) fn header(&self) -> Header {
        let me = self.me();
        let announced = &self.settings.announced;
        let (port, other_port) = announced.ports(self.settings.bus_has_tls);
        let source = self.node(self.primary_of(self.me));
        Header {
            port,
            other_port,
            bus_port: announced.bus_port,
            current_epoch: self.current_epoch,
            config_epoch: source.config_epoch,
            offset: self.offset(),
            sender: me.name,
            slots: source.slots.clone(),
            primary: me.primary.map_or(Name::NONE, |primary| self.node(primary).name),
            ip: self.settings.announced.ip.clone(),
            flags: me.flags,
            down: self.is_down,
            paused: me.is_primary() && self.manual.until != 0,
            forced: false,
        }
    }

    pub(super) fn send_bytes(&mut self, link: LinkId, kind: Kind, bytes: Bytes) {
        self.sent[kind as usize] += 1;
        self.actions.push(Action::Send(link, bytes));
    }

    pub(super) fn send(&mut self, link: LinkId, kind: Kind, body: Body) {
        let bytes = Message { kind, header: self.header(), body }.encode();
        self.send_bytes(link, kind, bytes);
    }

    /// Sends a ping, pong or meet, which tells of some other nodes too.
    pub(super) fn send_ping(&mut self, id: LinkId, kind: Kind) {
        let Some(link) = self.links.get(&id) else { return };
        if kind == Kind::Ping
            && let (false, Some(key)) = (link.inbound, link.node)
        {
            let now = self.now;
            self.node_mut(key).ping_sent = now;
        }
        let gossip = self.gossip();
        let extensions = self.extensions();
        self.send(id, kind, Body::Ping { gossip, extensions });
    }

    /// What a ping tells of others: some that were picked at random, and all that are suspected.
    fn gossip(&mut self) -> Vec<Gossip> {
        self.pings += 1;
        let keys: Vec<NodeKey> = self.nodes.keys().copied().collect();
        // Neither this node nor the one that is told.
        let mut fresh = keys.len().saturating_sub(2);
        let wanted = (keys.len() / 10).max(GOSSIP_LEAST).min(fresh);
        let has_tls = self.settings.bus_has_tls;
        let mut told = Vec::new();
        for _ in 0..wanted * 3 {
            if fresh == 0 || told.len() == wanted {
                break;
            }
            let key = keys[self.random.below(keys.len())];
            let node = self.node(key);
            if node.flags.has(Flags::MYSELF.with(Flags::SUSPECTED)) || node.told_in == self.pings {
                continue;
            }
            fresh -= 1;
            let unsure = node.flags.has(Flags::HANDSHAKE.with(Flags::NO_ADDRESS));
            if unsure || node.link.is_none() && node.slots.is_empty() {
                continue;
            }
            told.push(tell(node, has_tls));
            self.node_mut(key).told_in = self.pings;
        }
        let suspected = |node: &&Node| {
            node.flags.has(Flags::SUSPECTED) && !node.flags.has(Flags::HANDSHAKE.with(Flags::NO_ADDRESS))
        };
        // Others learn of these soon, so that they can agree on them.
        told.extend(self.nodes.values().filter(suspected).map(|node| tell(node, has_tls)));
        told
    }

    fn extensions(&self) -> Vec<Extension> {
        let me = self.me();
        let mut all = Vec::new();
        if !me.hostname.is_empty() {
            all.push(Extension::Hostname(me.hostname.clone()));
        }
        if !me.nickname.is_empty() {
            all.push(Extension::Nickname(me.nickname.clone()));
        }
        if !me.client_ips.v4.is_empty() {
            all.push(Extension::ClientIpv4(me.client_ips.v4.clone()));
        }
        if !me.client_ips.v6.is_empty() {
            all.push(Extension::ClientIpv6(me.client_ips.v6.clone()));
        }
        let forgotten = self.forgotten.iter().filter(|(_, until)| **until > self.now);
        all.extend(forgotten.map(|(name, until)| Extension::Forgotten(*name, (until - self.now).div_ceil(1000))));
        all.push(Extension::Shard(me.shard));
        all
    }

    /// Tells others what this node is now, unasked.
    pub(super) fn broadcast_pong(&mut self, to: Audience) {
        let (me, my_primary) = (self.me, self.me().primary);
        let links: Vec<LinkId> = self
            .nodes
            .iter()
            .filter(|(key, node)| {
                let sibling = node.is_replica()
                    && node.primary.is_some_and(|primary| primary == me || Some(primary) == my_primary);
                **key != me && !node.is_in_handshake() && (to == Audience::All || sibling)
            })
            .filter_map(|(_, node)| node.link)
            .collect();
        links.into_iter().for_each(|link| self.send_ping(link, Kind::Pong));
    }

    /// Sends one message to every node.
    pub(super) fn broadcast(&mut self, message: &Message) {
        let stranger = Flags::MYSELF.with(Flags::HANDSHAKE);
        let links: Vec<LinkId> =
            self.nodes.values().filter(|node| !node.flags.has(stranger)).filter_map(|node| node.link).collect();
        let bytes = message.encode();
        links.into_iter().for_each(|link| self.send_bytes(link, message.kind, bytes.clone()));
    }
}

/// What is told of a node.
fn tell(node: &Node, has_tls: bool) -> Gossip {
    let (port, other_port) = node.address.ports(has_tls);
    let seconds = |ms: u64| u32::try_from(ms / 1000).unwrap_or(u32::MAX);
    Gossip {
        name: node.name,
        ping_sent: seconds(node.ping_sent),
        pong_received: seconds(node.pong_received),
        ip: node.address.ip.clone(),
        port,
        other_port,
        bus_port: node.address.bus_port,
        flags: node.flags,
    }
}
