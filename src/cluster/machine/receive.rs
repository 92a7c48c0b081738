//! What others tell this node.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::cluster::machine::{Action, Audience, MANUAL_TIMEOUT_MS, Machine};
use crate::cluster::message::{Body, Extension, Gossip, Header, Invalid, Kind, Message};
use crate::cluster::node::{Address, ClientIps, Flags, LinkId, Name, Node, NodeKey};
use crate::cluster::slots::SlotSet;
use crate::observe::log::{debug, notice, verbose, warning};

/// How far in the future another node's clock may be, in milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 500;
/// How much longer writes are held back than a manual failover may take.
const PAUSE_FACTOR: u64 = 2;

impl Machine {
    /// A whole message came over a connection.
    pub fn received(&mut self, id: LinkId, bytes: &[u8]) {
        if !self.links.contains_key(&id) {
            return;
        }
        match Message::decode(bytes) {
            Ok(message) => {
                self.received[message.kind as usize] += 1;
                if self.ignored == Some(message.kind) {
                    warning!("Dropping packet that matches debug drop filter");
                    if self.closes_on_ignored {
                        self.close(id);
                    }
                    return;
                }
                self.process(id, message);
            }
            Err(Invalid::Foreign) => {
                warning!("Bad message length or signature received on the Cluster bus.");
                self.close(id);
            }
            Err(Invalid::Unknown(Some(kind))) => warning!("Received unknown packet type: {kind}"),
            Err(Invalid::Unknown(None)) => {}
            Err(Invalid::Length) => warning!("Received invalid packet of length {}", bytes.len()),
        }
    }

    fn process(&mut self, id: LinkId, message: Message) {
        let Message { kind, header, body } = message;
        let sender = self.sender(id, &header);
        if let Some(sender) = sender {
            let now = self.now;
            self.node_mut(sender).data_received = now;
            if !self.node(sender).is_in_handshake() {
                self.note_header(sender, &header);
            }
        }
        match body {
            Body::Ping { gossip, extensions } => self.pinged(id, kind, sender, &header, &gossip, extensions),
            Body::Fail(about) => self.told_of_failure(sender, &header, about),
            Body::Publish { channel, message } => {
                if sender.is_some() {
                    self.actions.push(Action::Publish { channel, message, sharded: kind == Kind::PublishShard });
                }
            }
            Body::Empty => {
                let Some(sender) = sender else { return };
                match kind {
                    Kind::AuthRequest => self.asked_for_vote(sender, &header),
                    Kind::AuthAck => {
                        let node = self.node(sender);
                        let counts = node.is_primary() && !node.slots.is_empty();
                        if counts && header.current_epoch >= self.election.epoch {
                            self.election.votes += 1;
                            self.todo.election = true;
                        }
                    }
                    _ => {
                        // It may be ours since a moment ago, and say so here first.
                        if header.primary == self.me().name && sender != self.me {
                            self.note_role(sender, &header);
                        }
                        self.asked_to_pause(id, sender);
                    }
                }
            }
            Body::Update { config_epoch, name, slots } => {
                if sender.is_some() {
                    self.updated(&name, config_epoch, &slots);
                }
            }
            Body::Module => {}
        }
    }

    /// Who sent a message, if that is a node that is known.
    fn sender(&mut self, id: LinkId, header: &Header) -> Option<NodeKey> {
        let of_link = self.links[&id].node;
        if let Some(key) = of_link.filter(|key| !self.node(*key).is_in_handshake()) {
            return Some(key);
        }
        let key = self.named(&header.sender)?;
        if of_link.is_none() && key != self.me {
            // A node that connects again may do so before the end of its last connection is noticed.
            if let Some(old) = self.node(key).inbound {
                self.close(old);
            }
            self.node_mut(key).inbound = Some(id);
            if let Some(link) = self.links.get_mut(&id) {
                link.node = Some(key);
            }
        }
        Some(key)
    }

    /// Takes over what every message says.
    fn note_header(&mut self, sender: NodeKey, header: &Header) {
        self.current_epoch = self.current_epoch.max(header.current_epoch);
        let is_newer = header.config_epoch > self.node(sender).config_epoch;
        let node = self.node_mut(sender);
        if is_newer {
            node.config_epoch = header.config_epoch;
        }
        node.offset = header.offset;
        self.todo.save |= is_newer;
        self.todo.sync |= is_newer;
        if self.manual.until != 0
            && self.me().is_replica()
            && self.me().primary == Some(sender)
            && header.paused
            && self.manual.primary_offset.is_none()
        {
            self.manual.primary_offset = Some(header.offset);
            self.todo.manual = true;
            notice!("Received replication offset for paused master manual failover: {}", header.offset);
        }
    }

    fn pinged(
        &mut self,
        id: LinkId,
        kind: Kind,
        sender: Option<NodeKey>,
        header: &Header,
        gossip: &[Gossip],
        extensions: Vec<Extension>,
    ) {
        if kind != Kind::Pong {
            self.learn_my_address(id, kind);
            if sender.is_none() && kind == Kind::Meet {
                self.meet_stranger(id, header);
                // Whoever has us meet him is trusted.
                self.heard_gossip(None, gossip);
            }
            self.send_ping(id, Kind::Pong);
        }
        let Some(link) = self.links.get(&id) else { return };
        if !link.inbound
            && let Some(key) = link.node
            && !self.identify(id, key, sender, header)
        {
            return;
        }
        // Its name is known from here on, where that was a handshake; what is told of the sender is not taken
        // over before the next message, though.
        let Some(sender) = sender else {
            self.answered(id, kind);
            return;
        };
        let node = self.node_mut(sender);
        node.flags.clear(Flags::NO_FAILOVER);
        node.flags.add(Flags(header.flags.0 & Flags::NO_FAILOVER.0));
        if kind == Kind::Ping && !self.node(sender).is_in_handshake() {
            self.update_address(sender, id, header);
        }
        self.answered(id, kind);
        if sender == self.me {
            return;
        }
        self.note_role(sender, header);
        self.note_slots(sender, header);
        if self.me().is_primary() && self.node(sender).is_primary() && header.config_epoch == self.me().config_epoch {
            self.solve_collision(sender);
        }
        self.heard_gossip(Some(sender), gossip);
        if self.nodes.contains_key(&sender) {
            self.heard_extensions(sender, extensions);
        }
    }

    /// Learns under which address others see this node: from the connection over which one came.
    fn learn_my_address(&mut self, id: LinkId, kind: Kind) {
        if kind != Kind::Meet && !self.me().address.ip.is_empty() || !self.settings.announced.ip.is_empty() {
            return;
        }
        let ip = self.links[&id].local_ip.clone();
        if !ip.is_empty() && ip != self.me().address.ip {
            notice!("IP address for this node updated to {ip}");
            self.me_mut().address.ip = ip;
            self.todo.save = true;
        }
    }

    /// Begins a handshake with a node that was told to meet us.
    fn meet_stranger(&mut self, id: LinkId, header: &Header) {
        let Some(address) = self.seen_address(id, header) else { return };
        let name = super::random_name(&mut self.random);
        let shard = super::random_name(&mut self.random);
        let mut node = Node::new(name, shard, Flags::HANDSHAKE, self.now);
        node.address = address;
        self.add_node(node);
        self.todo.save = true;
    }

    /// Where the sender of a message is, by what it says and by where it is seen.
    fn seen_address(&self, id: LinkId, header: &Header) -> Option<Address> {
        let ip = if header.ip.is_empty() { self.links.get(&id)?.peer_ip.clone() } else { header.ip.clone() };
        let Header { port, other_port, bus_port, .. } = *header;
        (!ip.is_empty()).then(|| Address::told(ip, (port, other_port), bus_port, self.settings.bus_has_tls))
    }

    /// Follows a node that has moved; returns whether it has.
    fn update_address(&mut self, key: NodeKey, id: LinkId, header: &Header) -> bool {
        if self.node(key).link == Some(id) || key == self.me {
            return false;
        }
        let Some(address) = self.seen_address(id, header) else { return false };
        if self.node(key).address == address {
            return false;
        }
        let node = self.node_mut(key);
        node.address = address.clone();
        node.flags.clear(Flags::NO_ADDRESS);
        let node = self.node(key);
        notice!(
            "Address updated for node {} ({}), now {}:{}",
            node.name,
            node.nick(),
            address.ip,
            address.port(self.settings.bus_has_tls)
        );
        if let Some(link) = node.link {
            self.close(link);
        }
        if self.me().is_replica() && self.me().primary == Some(key) {
            let port = address.port(self.settings.copies_with_tls);
            self.actions.push(Action::Replicate(address.ip, port));
        }
        (self.todo.save, self.todo.state) = (true, true);
        true
    }

    /// Looks whether at the other end of our connection is who should be; returns whether the connection stays.
    fn identify(&mut self, id: LinkId, key: NodeKey, sender: Option<NodeKey>, header: &Header) -> bool {
        if self.node(key).is_in_handshake() {
            if let Some(sender) = sender {
                verbose!(
                    "Handshake: we already know node {} ({}), updating the address if needed.",
                    self.node(sender).name,
                    self.node(sender).nick()
                );
                self.update_address(sender, id, header);
                self.remove_node(key);
                return false;
            }
            if !header.sender.is_proper() {
                self.remove_node(key);
                return false;
            }
            debug!("Handshake with node {} completed.", header.sender);
            self.rename(key, header.sender);
            let role = if header.flags.has(Flags::REPLICA) { Flags::REPLICA } else { Flags::PRIMARY };
            let node = self.node_mut(key);
            node.flags.clear(Flags::HANDSHAKE.with(Flags::MEET));
            node.flags.add(role);
            self.todo.save = true;
        } else if self.node(key).name != header.sender {
            debug!("PONG contains mismatching sender ID. About node {}", self.node(key).name);
            let node = self.node_mut(key);
            node.flags.add(Flags::NO_ADDRESS);
            node.address = Address::default();
            self.close(id);
            self.todo.save = true;
            return false;
        }
        true
    }

    /// A node has answered a ping.
    fn answered(&mut self, id: LinkId, kind: Kind) {
        let Some(link) = self.links.get(&id) else { return };
        let Some(key) = link.node.filter(|_| !link.inbound && kind == Kind::Pong) else { return };
        let now = self.now;
        let node = self.node_mut(key);
        (node.pong_received, node.ping_sent) = (now, 0);
        if node.flags.has(Flags::SUSPECTED) {
            node.flags.clear(Flags::SUSPECTED);
            (self.todo.save, self.todo.state) = (true, true);
        } else if node.has_failed() {
            self.clear_failure(key);
        }
    }

    /// Takes over whether a node is a primary or whose replica it is.
    fn note_role(&mut self, sender: NodeKey, header: &Header) {
        if header.primary == Name::NONE {
            self.make_primary(sender);
            return;
        }
        let primary = self.named(&header.primary).filter(|primary| *primary != sender);
        if self.node(sender).is_primary() {
            self.take_slots_of(sender);
            let node = self.node_mut(sender);
            node.flags.clear(Flags::PRIMARY.with(Flags::MIGRATE_TO));
            node.flags.add(Flags::REPLICA);
            (self.todo.save, self.todo.state) = (true, true);
        } else if !self.node(sender).is_replica() {
            // Heard of by gossip that said nothing of its role.
            self.node_mut(sender).flags.add(Flags::REPLICA);
        }
        if let Some(primary) = primary.filter(|primary| self.node(sender).primary != Some(*primary)) {
            self.detach(sender);
            self.attach(primary, sender);
            // Before the sender's shard, and with it ours, is another: so it is seen that we have nothing of that.
            if self.me().is_replica() && self.me().primary == Some(sender) && primary != self.me {
                self.follow_above(primary);
            }
            let shard = self.node(primary).shard;
            self.set_shard(sender, shard);
            self.todo.save = true;
        }
    }

    /// Takes over which slots a primary serves, or tells it who does.
    fn note_slots(&mut self, sender: NodeKey, header: &Header) {
        let source = self.primary_of(sender);
        if self.node(sender).is_primary() {
            self.follow_target(sender, header.config_epoch);
            if self.me().primary == Some(sender) {
                self.follow_last(header.slots.is_empty());
            }
        }
        if self.node(source).slots == header.slots || source == sender && !self.node(sender).is_primary() {
            return;
        }
        if self.node(sender).is_primary() {
            self.follow_claim(sender, header.config_epoch, &header.slots);
        }
        if let Some((_, owner)) = self.newer_owner(&header.slots, header.config_epoch, Some(sender)) {
            verbose!(
                "Node {} has old slots configuration, sending an UPDATE message about {}",
                self.node(sender).name,
                self.node(owner).name
            );
            if let Some(link) = self.node(sender).link {
                let node = self.node(owner);
                let body = Body::Update { config_epoch: node.config_epoch, name: node.name, slots: node.slots.clone() };
                self.send(link, Kind::Update, body);
            }
        }
    }

    /// Two primaries have one epoch: the one with the lesser name takes another.
    fn solve_collision(&mut self, sender: NodeKey) {
        let (mine, theirs) = (self.me(), self.node(sender));
        if theirs.config_epoch != mine.config_epoch || theirs.name <= mine.name {
            return;
        }
        self.current_epoch += 1;
        let epoch = self.current_epoch;
        self.me_mut().config_epoch = epoch;
        (self.todo.save, self.todo.sync) = (true, true);
        let node = self.node(sender);
        verbose!(
            "WARNING: configEpoch collision with node {} ({}). configEpoch set to {epoch}",
            node.name,
            node.nick()
        );
    }

    /// What somebody tells of others; `None` for a stranger that meets us, whose words are not taken for reports.
    fn heard_gossip(&mut self, sender: Option<NodeKey>, gossip: &[Gossip]) {
        for told in gossip {
            let Some(key) = self.named(&told.name) else {
                self.heard_of_stranger(sender, told);
                continue;
            };
            let fails = told.flags.has(Flags::FAILED.with(Flags::SUSPECTED));
            if let Some(sender) = sender.filter(|sender| self.has_a_say(*sender) && key != self.me) {
                self.note_report(sender, key, fails);
            }
            let now = self.now;
            if !fails && self.node(key).ping_sent == 0 && self.count_reports(key) == 0 {
                // Others ping it too: what they have heard is as good as what we would.
                let pong = u64::from(told.pong_received) * 1000;
                let node = self.node_mut(key);
                if pong <= now + CLOCK_TOLERANCE_MS && pong > node.pong_received {
                    node.pong_received = pong;
                }
            }
            let address = address_of(told, self.settings.bus_has_tls);
            let node = self.node(key);
            if node.flags.has(Flags::FAILED.with(Flags::SUSPECTED))
                && !fails
                && key != self.me
                && !told.flags.has(Flags::NO_ADDRESS)
                && node.address != address
            {
                if let Some(link) = node.link {
                    self.close(link);
                }
                let node = self.node_mut(key);
                node.address = address;
                node.flags.clear(Flags::NO_ADDRESS);
            }
        }
    }

    fn heard_of_stranger(&mut self, sender: Option<NodeKey>, told: &Gossip) {
        if sender.is_none()
            || told.flags.has(Flags::NO_ADDRESS.with(Flags::HANDSHAKE))
            || told.ip.is_empty()
            || !told.name.is_proper()
            || self.is_forgotten(&told.name)
        {
            return;
        }
        let known = Flags::PRIMARY
            .with(Flags::REPLICA)
            .with(Flags::SUSPECTED)
            .with(Flags::FAILED)
            .with(Flags::MIGRATE_TO)
            .with(Flags::NO_FAILOVER);
        let shard = super::random_name(&mut self.random);
        let mut node = Node::new(told.name, shard, Flags(told.flags.0 & known.0), self.now);
        if node.flags.has(Flags::REPLICA) {
            node.flags.clear(Flags::PRIMARY);
        }
        node.address = address_of(told, self.settings.bus_has_tls);
        self.add_node(node);
        (self.todo.save, self.todo.state) = (true, true);
    }

    /// Notes whether a primary reaches a node.
    fn note_report(&mut self, reporter: NodeKey, about: NodeKey, fails: bool) {
        let now = self.now;
        let reports = &mut self.node_mut(about).reports;
        let changed = match fails {
            true => reports.insert(reporter, now).is_none(),
            false => reports.remove(&reporter).is_some(),
        };
        if changed {
            let (reporter, about) = (self.node(reporter), self.node(about));
            let (by, of) = (format_args!("{} ({})", reporter.name, reporter.nick()), about.name);
            let nick = about.nick();
            if fails {
                verbose!("Node {by} reported node {of} ({nick}) as not reachable.");
            } else {
                verbose!("Node {by} reported node {of} ({nick}) is back online.");
            }
        }
        if fails {
            self.fail_if_agreed(about);
        }
    }

    fn heard_extensions(&mut self, sender: NodeKey, extensions: Vec<Extension>) {
        let (mut hostname, mut nickname, mut shard) = (String::new(), String::new(), None);
        let mut ips = ClientIps::default();
        for extension in extensions {
            match extension {
                Extension::Hostname(name) => hostname = name,
                Extension::Nickname(name) => nickname = name,
                Extension::Shard(name) if name.is_proper() => shard = Some(name),
                Extension::Shard(_) => {}
                // Clients are sent there: what is no address is not passed on.
                Extension::ClientIpv4(ip) if ip.parse::<Ipv4Addr>().is_ok() => ips.v4 = ip,
                Extension::ClientIpv6(ip) if ip.parse::<Ipv6Addr>().is_ok() => ips.v6 = ip,
                Extension::ClientIpv4(_) | Extension::ClientIpv6(_) => {}
                Extension::Forgotten(name, seconds) => {
                    let Some(key) = self.named(&name) else { continue };
                    if key != self.me && self.me().primary != Some(key) {
                        let until = self.now.saturating_add(seconds.saturating_mul(1000));
                        self.forgotten.insert(name, until);
                        self.remove_node(key);
                        self.todo.state = true;
                    }
                }
            }
        }
        if !self.nodes.contains_key(&sender) {
            return;
        }
        // A node that says nothing of its shard is an older one: it belongs to its primary's.
        let shard = shard.unwrap_or_else(|| self.node(self.primary_of(sender)).shard);
        let node = self.node_mut(sender);
        if node.hostname != hostname || node.nickname != nickname || node.client_ips != ips {
            (node.hostname, node.nickname, node.client_ips) = (hostname, nickname, ips);
            self.todo.save = true;
        }
        self.set_shard(sender, shard);
    }

    fn told_of_failure(&mut self, sender: Option<NodeKey>, header: &Header, about: Name) {
        let Some(sender) = sender else {
            notice!("Ignoring FAIL message from unknown node {} about {about}", header.sender);
            return;
        };
        let Some(key) = self.named(&about) else { return };
        if self.node(key).flags.has(Flags::FAILED.with(Flags::MYSELF)) {
            return;
        }
        notice!(
            "FAIL message received from {} ({}) about {about} ({})",
            header.sender,
            self.node(sender).nick(),
            self.node(key).nick()
        );
        self.set_failed(key);
    }

    /// A replica of ours wants to take over and needs us to stand still.
    fn asked_to_pause(&mut self, id: LinkId, sender: NodeKey) {
        if self.node(sender).primary != Some(self.me) {
            return;
        }
        self.end_manual_failover();
        self.manual.until = self.now + MANUAL_TIMEOUT_MS;
        self.manual.replica = Some(sender);
        self.actions.push(Action::Pause(self.now + MANUAL_TIMEOUT_MS * PAUSE_FACTOR));
        let node = self.node(sender);
        notice!("Manual failover requested by replica {} ({}).", node.name, node.nick());
        self.send_ping(id, Kind::Ping);
    }

    /// A node was told, or tells, of another's newer configuration.
    fn updated(&mut self, name: &Name, epoch: u64, slots: &SlotSet) {
        let Some(key) = self.named(name) else { return };
        if self.node(key).config_epoch >= epoch {
            return;
        }
        if self.node(key).is_replica() && key != self.me {
            self.make_primary(key);
        }
        self.node_mut(key).config_epoch = epoch;
        (self.todo.save, self.todo.sync) = (true, true);
        self.follow_target(key, epoch);
        self.follow_claim(key, epoch, slots);
    }

    /// Tells everybody at once what this node is now.
    pub(super) fn tell_everybody(&mut self) {
        self.broadcast_pong(Audience::All);
    }
}

fn address_of(told: &Gossip, has_tls: bool) -> Address {
    Address::told(told.ip.clone(), (told.port, told.other_port), told.bus_port, has_tls)
}
