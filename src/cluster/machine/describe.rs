//! What this node says of the cluster, as people and clients read it.

use std::fmt::Write;

use crate::cluster::machine::{Machine, Todo};
use crate::cluster::message::Kind;
use crate::cluster::node::{Flags, Name, Node, NodeKey, Way};
use crate::cluster::slots::SlotSet;
use crate::observe::log::notice;

/// Who reads a node's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// A client that is connected so.
    Client(Way),
    /// This server, when it starts again.
    File,
}

impl Machine {
    /// A node's line in CLUSTER NODES, without its end, for a client who is connected so.
    pub fn line(&self, key: NodeKey, way: Way) -> String {
        let mut line = String::new();
        self.write_line(&mut line, key, Reader::Client(way));
        line
    }

    /// CLUSTER NODES, for a client who is connected so.
    pub fn lines(&self, way: Way) -> String {
        let mut text = String::new();
        for key in self.nodes.keys() {
            self.write_line(&mut text, *key, Reader::Client(way));
            text.push('\n');
        }
        text
    }

    pub(super) fn write_line(&self, to: &mut String, key: NodeKey, reader: Reader) {
        let node = self.node(key);
        let address = &node.address;
        let (first, other) = address.ports(self.settings.bus_has_tls);
        let (ip, port) = match reader {
            Reader::Client(way) => (node.ip(way), address.port(way.tls)),
            Reader::File => (&*address.ip, first),
        };
        // Writing into a string does not fail.
        let _ = write!(to, "{} {ip}:{}@{}", node.name, port, address.bus_port);
        if !node.hostname.is_empty() || reader == Reader::File {
            let _ = write!(to, ",{}", node.hostname);
        }
        if reader == Reader::File {
            let _ = write!(to, ",{}-port={other}", if self.settings.bus_has_tls { "tcp" } else { "tls" });
            if !node.nickname.is_empty() {
                let _ = write!(to, ",nodename={}", node.nickname);
            }
            for (name, ip) in [("client-ipv4", &node.client_ips.v4), ("client-ipv6", &node.client_ips.v6)] {
                if !ip.is_empty() {
                    let _ = write!(to, ",{name}={ip}");
                }
            }
            let _ = write!(to, ",shard-id={}", node.shard);
        }
        let _ = write!(to, " {} ", node.flags);
        match node.primary {
            Some(primary) => _ = write!(to, "{}", self.node(primary).name),
            None => to.push('-'),
        }
        let epoch = self.node(self.primary_of(key)).config_epoch;
        let stands = node.link.is_some() || key == self.me;
        let link = if stands { "connected" } else { "disconnected" };
        let _ = write!(to, " {} {} {epoch} {link}", node.ping_sent, node.pong_received);
        for (first, last) in node.slots.ranges() {
            let _ = if first == last { write!(to, " {first}") } else { write!(to, " {first}-{last}") };
        }
        if node.flags.has(Flags::MYSELF) {
            let moves = self.migrating.iter().map(|(slot, node)| (*slot, "->-", *node));
            let comes = self.importing.iter().map(|(slot, node)| (*slot, "-<-", *node));
            let mut all: Vec<_> = moves.chain(comes).collect();
            all.sort_by_key(|(slot, ..)| *slot);
            for (slot, way, node) in all {
                let _ = write!(to, " [{slot}{way}{}]", self.node(node).name);
            }
        }
    }

    /// CLUSTER INFO.
    pub fn info(&self) -> String {
        let (mut fine, mut suspected, mut failed) = (0, 0, 0);
        for owner in self.owners.iter().flatten() {
            let flags = self.node(*owner).flags;
            let count = if flags.has(Flags::FAILED) {
                &mut failed
            } else if flags.has(Flags::SUSPECTED) {
                &mut suspected
            } else {
                &mut fine
            };
            *count += 1;
        }
        let mut text = String::new();
        let mut put = |name: &str, value: u64| _ = write!(text, "{name}:{value}\r\n");
        put("cluster_slots_assigned", fine + suspected + failed);
        put("cluster_slots_ok", fine);
        put("cluster_slots_pfail", suspected);
        put("cluster_slots_fail", failed);
        put("cluster_known_nodes", self.nodes.len() as u64);
        put("cluster_size", self.size as u64);
        put("cluster_current_epoch", self.current_epoch);
        put("cluster_my_epoch", self.node(self.primary_of(self.me)).config_epoch);
        for (counts, way) in [(&self.sent, "sent"), (&self.received, "received")] {
            for (kind, count) in Kind::ALL.iter().zip(counts).filter(|(_, count)| **count > 0) {
                put(&format!("cluster_stats_messages_{}_{way}", kind.word()), *count);
            }
            put(&format!("cluster_stats_messages_{way}"), counts.iter().sum());
        }
        put("total_cluster_links_buffer_limit_exceeded", self.over_limit);
        format!("cluster_state:{}\r\n{text}", if self.is_down { "fail" } else { "ok" })
    }

    /// The nodes of each shard, in the order in which the shards were found; those that have yet to tell their name
    /// belong to none.
    pub fn shards(&self) -> Vec<Vec<NodeKey>> {
        let mut shards: Vec<Vec<NodeKey>> = Vec::new();
        for (key, node) in self.nodes.iter().filter(|(_, node)| !node.is_in_handshake()) {
            match shards.iter_mut().find(|shard| self.node(shard[0]).shard == node.shard) {
                Some(shard) => shard.push(*key),
                None => shards.push(vec![*key]),
            }
        }
        shards
    }

    /// How far a node's replication is.
    pub fn offset_of(&self, key: NodeKey) -> u64 {
        if key == self.me { self.offset() } else { self.node(key).offset }
    }
}

/// How `nodes.conf` is written, and what is read from it becomes a node again.
impl Machine {
    /// The text of `nodes.conf`.
    pub fn to_file(&self) -> String {
        let mut text = String::new();
        for (key, node) in &self.nodes {
            if !node.is_in_handshake() {
                self.write_line(&mut text, *key, Reader::File);
                text.push('\n');
            }
        }
        let _ = writeln!(text, "vars currentEpoch {} lastVoteEpoch {}", self.current_epoch, self.last_vote_epoch);
        text
    }

    /// The node of this name, which is made where a line refers to it first.
    pub(in crate::cluster) fn restore_node(&mut self, name: Name) -> NodeKey {
        if let Some(key) = self.names.get(&name) {
            return *key;
        }
        let shard = super::random_name(&mut self.random);
        self.add_node(Node::new(name, shard, Flags::default(), self.now))
    }

    pub(in crate::cluster) fn restore(&mut self, key: NodeKey, set: impl FnOnce(&mut Node, u64)) {
        let now = self.now;
        set(self.node_mut(key), now);
    }

    pub(in crate::cluster) fn restore_replica(&mut self, primary: NodeKey, replica: NodeKey) {
        self.detach(replica);
        self.attach(primary, replica);
    }

    pub(in crate::cluster) fn restore_variable(&mut self, name: &str, value: u64) {
        match name {
            "currentEpoch" => self.current_epoch = value,
            "lastVoteEpoch" => self.last_vote_epoch = value,
            _ => notice!("Skipping unknown cluster config variable '{name}'"),
        }
    }

    pub(in crate::cluster) fn restore_move(&mut self, slot: usize, other: NodeKey, leaves: bool) {
        let moves = if leaves { &mut self.migrating } else { &mut self.importing };
        moves.insert(slot, other);
    }

    pub(in crate::cluster) fn restore_slot(&mut self, slot: usize, owner: NodeKey) {
        if self.owners[slot].is_none() {
            self.give_slot(slot, owner);
        }
    }

    /// All lines are read: this is who we are.
    pub(in crate::cluster) fn restored(&mut self, me: NodeKey, with_shard: &[NodeKey]) {
        self.me = me;
        let newest = self.nodes.values().map(|node| node.config_epoch).max().unwrap_or(0);
        self.current_epoch = self.current_epoch.max(newest);
        for key in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.node(key);
            if let Some(primary) = node.primary.filter(|_| !with_shard.contains(&key)) {
                let shard = self.node(primary).shard;
                self.node_mut(key).shard = shard;
            }
            // Of one that nothing but its name is known, nobody knows where it is.
            if self.node(key).address.ip.is_empty() && key != me {
                self.node_mut(key).flags.add(Flags::NO_ADDRESS);
            }
        }
        // What only connections and orders give is not in the file.
        self.lost_channels = SlotSet::default();
        self.announce_myself();
        notice!("Node configuration loaded, I'm {}", self.me().name);
        self.todo = Todo { save: true, state: true, ..Todo::default() };
    }
}
