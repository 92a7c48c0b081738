//! What happens because time passes, ten times a second.

use crate::cluster::machine::{Action, Link, Machine};
use crate::cluster::message::Kind;
use crate::cluster::node::{Flags, LinkId, NodeKey};
use crate::observe::log::{debug, notice, warning};

/// How often [`Machine::tick`] is to be called, in milliseconds.
pub const TICK_MS: u64 = 100;

/// After how many ticks some node is pinged, whoever has waited longest among these.
const PING_EVERY: u64 = 10;
/// Among how many that is.
const PING_AMONG: usize = 5;
/// The least time that a node has to tell its name, in milliseconds.
const HANDSHAKE_LEAST_MS: u64 = 1000;
/// How long a primary is without replicas before one comes from elsewhere, in milliseconds.
const ORPHANED_MS: u64 = 5000;

/// What a replica may have to know about the replicas of others.
#[derive(Default)]
struct Spread {
    orphaned: usize,
    most: usize,
    mine: usize,
}

impl Machine {
    /// Does what is due: connects, pings, suspects, votes.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.close_overfull();
        self.reconnect();
        if self.ticks.is_multiple_of(PING_EVERY) {
            self.ping_one();
        }
        let (spread, suspects) = self.look_at_nodes();
        if self.manual.until != 0 && self.manual.until < self.now {
            warning!("Manual failover timed out.");
            self.end_manual_failover();
        }
        if self.me().is_replica() {
            let has_failed = self.me().primary.is_some_and(|primary| self.node(primary).has_failed());
            self.follow_last(has_failed);
            self.copy_primary();
            self.look_at_manual_failover();
            self.look_at_election();
            if spread.orphaned > 0 && spread.most >= 2 && spread.mine == spread.most && self.settings.replicas_migrate {
                self.move_to_orphaned(spread.most);
            }
        }
        self.todo.state |= suspects || self.is_down;
    }

    /// Closes connections for which more waits than may.
    fn close_overfull(&mut self) {
        let limit = self.settings.send_limit;
        let over = |link: &Link| limit != 0 && link.node.is_some() && link.queued as u64 > limit;
        let links: Vec<LinkId> = self.links.iter().filter(|(_, link)| over(link)).map(|(id, _)| *id).collect();
        for id in links {
            let link = &self.links[&id];
            warning!(
                "Freeing cluster link({} node {}, used memory: {}) due to exceeding send buffer memory limit.",
                if link.inbound { "from" } else { "to" },
                link.node.map_or(String::new(), |node| self.node(node).name.to_string()),
                link.queued
            );
            self.over_limit += 1;
            self.close(id);
        }
    }

    /// Connects to those to whom there is no connection, and gives up on those that do not tell their name.
    fn reconnect(&mut self) {
        let patience = self.settings.node_timeout_ms.max(HANDSHAKE_LEAST_MS);
        for key in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.node(key);
            if node.flags.has(Flags::MYSELF.with(Flags::NO_ADDRESS)) {
                continue;
            }
            if node.is_in_handshake() && self.now.saturating_sub(node.created) > patience {
                self.remove_node(key);
                continue;
            }
            if node.link.is_none() {
                let (ip, port) = (node.address.ip.clone(), node.address.bus_port);
                let link = Link {
                    node: Some(key),
                    inbound: false,
                    created: self.now,
                    queued: 0,
                    peer_ip: ip.clone(),
                    local_ip: String::new(),
                };
                let id = self.add_link(link);
                self.node_mut(key).link = Some(id);
                self.actions.push(Action::Connect { link: id, ip, port });
            }
        }
    }

    /// Pings the one of some nodes that has not answered for longest.
    fn ping_one(&mut self) {
        let keys: Vec<NodeKey> = self.nodes.keys().copied().collect();
        let mut oldest: Option<(u64, LinkId)> = None;
        for _ in 0..PING_AMONG {
            let key = keys[self.random.below(keys.len())];
            let node = self.node(key);
            let Some(link) = node.link.filter(|_| node.ping_sent == 0 && !node.is_in_handshake()) else { continue };
            if oldest.is_none_or(|(pong, _)| pong > node.pong_received) {
                oldest = Some((node.pong_received, link));
            }
        }
        if let Some((_, link)) = oldest {
            self.send_ping(link, Kind::Ping);
        }
    }

    /// Pings whoever was not heard of for long, suspects whoever does not answer; returns whether somebody new is.
    fn look_at_nodes(&mut self) -> (Spread, bool) {
        let (timeout, now) = (self.settings.node_timeout_ms, self.now);
        let interval = if self.settings.ping_interval_ms != 0 { self.settings.ping_interval_ms } else { timeout / 2 };
        let (mut spread, mut suspects) = (Spread::default(), false);
        for key in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.node(key);
            if node.flags.has(Flags::MYSELF.with(Flags::NO_ADDRESS).with(Flags::HANDSHAKE)) {
                continue;
            }
            if self.me().is_replica() && node.is_primary() && !node.has_failed() {
                let working = self.working_replicas(key);
                let is_target = node.flags.has(Flags::MIGRATE_TO);
                spread.orphaned += usize::from(working == 0 && !node.slots.is_empty() && is_target);
                spread.most = spread.most.max(working);
                if self.me().primary == Some(key) {
                    spread.mine = working;
                }
            }
            let silent = now.saturating_sub(node.data_received);
            let waited = now.saturating_sub(node.ping_sent);
            if let Some(link) = node.link
                && node.ping_sent != 0
                && now.saturating_sub(self.links[&link].created) > timeout
                && waited > timeout / 2
                && silent > timeout / 2
            {
                // It may be the connection that is broken and not the node.
                self.close(link);
            }
            let node = self.node(key);
            if let Some(link) = node.link {
                let due = node.ping_sent == 0 && now.saturating_sub(node.pong_received) > interval;
                let asked = self.manual.until != 0 && self.me().is_primary() && self.manual.replica == Some(key);
                if due || asked {
                    self.send_ping(link, Kind::Ping);
                    continue;
                }
            }
            // Any message shows that it lives.
            if node.ping_sent != 0
                && waited.min(silent) > timeout
                && !node.flags.has(Flags::SUSPECTED.with(Flags::FAILED))
            {
                debug!("*** NODE {} possibly failing", node.name);
                self.node_mut(key).flags.add(Flags::SUSPECTED);
                suspects = true;
                if self.has_a_say(self.me) {
                    // Where nobody else has a say nobody else will tell.
                    self.fail_if_agreed(key);
                }
            }
        }
        (spread, suspects)
    }

    /// Copies the primary where that has not begun yet: after a start, and where its address was not known.
    fn copy_primary(&mut self) {
        if let Some((ip, port)) = self.primary_address().filter(|_| !self.replication.copies) {
            self.actions.push(Action::Replicate(ip, port));
        }
    }

    /// Where the primary is that this node copies; `None` where it copies none, or that is not known.
    pub fn primary_address(&self) -> Option<(String, u16)> {
        let primary = self.node(self.me().primary?);
        let known = !primary.flags.has(Flags::NO_ADDRESS) && !primary.address.ip.is_empty();
        known.then(|| (primary.address.ip.clone(), primary.address.port(self.settings.copies_with_tls)))
    }

    /// How many replicas of a primary have not failed.
    pub(super) fn working_replicas(&self, primary: NodeKey) -> usize {
        self.node(primary).replicas.iter().filter(|replica| !self.node(**replica).has_failed()).count()
    }

    /// Moves to a primary that has lost its replicas, if this one is the replica that can best be spared.
    fn move_to_orphaned(&mut self, most: usize) {
        let Some(mine) = self.me().primary.filter(|_| !self.is_down) else { return };
        let failing = Flags::FAILED.with(Flags::SUSPECTED);
        let working =
            self.node(mine).replicas.iter().filter(|replica| !self.node(**replica).flags.has(failing)).count();
        if working <= self.settings.migration_barrier {
            return;
        }
        let (mut target, mut candidate) = (None, self.me().name);
        for key in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.node(key);
            let working = if node.is_primary() { self.working_replicas(key) } else { 0 };
            let is_target = node.flags.has(Flags::MIGRATE_TO) && !node.is_replica() && !node.has_failed();
            if working == most {
                let names = node.replicas.iter().map(|replica| self.node(*replica).name);
                candidate = names.fold(candidate, Ord::min);
            }
            let now = self.now;
            let node = self.node_mut(key);
            if is_target && working == 0 {
                if node.orphaned_since == 0 {
                    node.orphaned_since = now;
                }
                if target.is_none() && !node.slots.is_empty() {
                    target = Some((key, node.orphaned_since));
                }
            } else {
                node.orphaned_since = 0;
            }
        }
        if let Some((target, since)) = target
            && candidate == self.me().name
            && self.now.saturating_sub(since) > ORPHANED_MS
        {
            notice!("Migrating to orphaned master {}", self.node(target).name);
            self.become_replica(target);
        }
    }
}
