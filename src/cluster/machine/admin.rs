//! What administrators order: the CLUSTER commands that change something.

use std::net::IpAddr;

use crate::cluster::machine::{Action, MANUAL_TIMEOUT_MS, Machine, random_name};
use crate::cluster::message::{Body, Kind};
use crate::cluster::node::{Address, Flags, LinkId, Name, Node, NodeKey};
use crate::cluster::slots::SlotSet;
use crate::keyspace::shard::SLOTS;
use crate::observe::log::notice;

/// What CLUSTER SETSLOT does to a slot. Nodes are named as somebody wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetSlot {
    /// It is on its way to this node.
    Migrating(Vec<u8>),
    /// It is on its way here from this node.
    Importing(Vec<u8>),
    /// It is on no way.
    Stable,
    /// It is served by this node.
    Node(Vec<u8>),
}

/// How CLUSTER FAILOVER was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailoverKind {
    /// With the primary's consent: nothing is lost.
    Agreed,
    /// Without it, but with the votes of the others.
    Forced,
    /// Without anybody's.
    Takeover,
}

/// How thorough CLUSTER RESET is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// The node keeps its name and epochs.
    Soft,
    /// It does not.
    Hard,
}

/// What CLUSTER BUMPEPOCH did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bumped {
    /// The node has this epoch now.
    Bumped(u64),
    /// It had the newest one already.
    Still(u64),
}

type Done = Result<(), String>;

fn refuse<T>(text: impl Into<String>) -> Result<T, String> {
    Err(text.into())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Machine {
    fn find_or(&self, name: &[u8], unknown: &str) -> Result<NodeKey, String> {
        self.find(name).ok_or_else(|| format!("{unknown} {}", lossy(name)))
    }

    /// CLUSTER MEET: greets the node at this address as one that does not know us.
    ///
    /// # Errors
    /// That this is no address.
    pub fn meet(&mut self, ip: &[u8], port: i64, bus_port: i64) -> Done {
        let text = lossy(ip);
        let parsed: Result<IpAddr, _> = text.parse();
        let valid = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0);
        let (Ok(address), Some(client_port), Some(bus_port)) = (parsed, valid(port), valid(bus_port)) else {
            return refuse(format!("Invalid node address specified: {text}:{port}"));
        };
        let ip = address.to_string();
        let same = |node: &&Node| {
            node.is_in_handshake() && node.address.ip.eq_ignore_ascii_case(&ip) && node.address.bus_port == bus_port
        };
        if self.nodes.values().any(|node| same(&node)) {
            return Ok(());
        }
        let (name, shard) = (random_name(&mut self.random), random_name(&mut self.random));
        let mut node = Node::new(name, shard, Flags::HANDSHAKE.with(Flags::MEET), self.now);
        node.address = Address::told(ip, (client_port, 0), bus_port, self.settings.bus_has_tls);
        self.add_node(node);
        self.version += 1;
        Ok(())
    }

    /// CLUSTER FORGET.
    ///
    /// # Errors
    /// Why it cannot be forgotten.
    pub fn forget(&mut self, name: &[u8]) -> Done {
        let Some(key) = self.find(name) else {
            // Somebody else may have told us to forget it already.
            let parsed = crate::cluster::node::Name::parse(name);
            return if parsed.is_some_and(|name| self.is_forgotten(&name)) {
                Ok(())
            } else {
                refuse(format!("Unknown node {}", lossy(name)))
            };
        };
        if key == self.me {
            return refuse("I tried hard but I can't forget myself...");
        }
        if self.me().is_replica() && self.me().primary == Some(key) {
            return refuse("Can't forget my master!");
        }
        let (name, until) = (self.node(key).name, self.now.saturating_add(self.settings.forget_ms));
        self.forgotten.insert(name, until);
        self.remove_node(key);
        self.keep();
        Ok(())
    }

    /// CLUSTER ADDSLOTS: serves slots that nobody does.
    ///
    /// # Errors
    /// The first slot that somebody serves, or that was named twice.
    pub fn add_slots(&mut self, slots: &[usize]) -> Done {
        self.check_slots(slots, |owner| owner.is_some(), "busy")?;
        for slot in slots {
            self.importing.remove(slot);
            self.give_slot(*slot, self.me);
        }
        self.keep();
        Ok(())
    }

    /// CLUSTER DELSLOTS: has nobody serve slots.
    ///
    /// # Errors
    /// The first slot that nobody serves, or that was named twice.
    pub fn delete_slots(&mut self, slots: &[usize]) -> Done {
        self.check_slots(slots, |owner| owner.is_none(), "unassigned")?;
        for slot in slots {
            self.importing.remove(slot);
            self.take_slot(*slot);
        }
        self.keep();
        Ok(())
    }

    fn check_slots(&self, slots: &[usize], wrong: impl Fn(Option<NodeKey>) -> bool, what: &str) -> Done {
        let mut seen = SlotSet::default();
        for slot in slots {
            if wrong(self.owners[*slot]) {
                return refuse(format!("Slot {slot} is already {what}"));
            }
            if !seen.add(*slot) {
                return refuse(format!("Slot {slot} specified multiple times"));
            }
        }
        Ok(())
    }

    /// CLUSTER FLUSHSLOTS: serves nothing. The node has no keys.
    pub fn flush_slots(&mut self) {
        self.take_slots_of(self.me);
        self.keep();
    }

    /// Whether CLUSTER SETSLOT can be done; `keys` is how many keys of the slot are here. Returns the node that it names.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn may_set_slot(&self, slot: usize, to: &SetSlot, keys: usize) -> Result<Option<NodeKey>, String> {
        let primary = |name: &[u8], unknown: &str| {
            let key = self.find_or(name, unknown)?;
            if self.node(key).is_replica() { refuse("Target node is not a master") } else { Ok(Some(key)) }
        };
        let is_mine = self.owners[slot] == Some(self.me);
        match to {
            // A replica is told what its primary has found right; it may hear of the owner later than of this.
            SetSlot::Migrating(_) if !is_mine && self.me().is_primary() => {
                refuse(format!("I'm not the owner of hash slot {slot}"))
            }
            SetSlot::Importing(_) if is_mine => refuse(format!("I'm already the owner of hash slot {slot}")),
            SetSlot::Migrating(name) | SetSlot::Importing(name) => primary(name, "I don't know about node"),
            SetSlot::Stable => Ok(None),
            SetSlot::Node(name) => {
                let key = primary(name, "Unknown node")?;
                if is_mine && key != Some(self.me) && keys != 0 {
                    return refuse(format!(
                        "Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
                    ));
                }
                Ok(key)
            }
        }
    }

    /// Whether a slot is to be another node's, and is.
    pub fn has_given(&self, slot: usize, to: &SetSlot) -> bool {
        let SetSlot::Node(name) = to else { return false };
        self.find(name).is_some_and(|node| node != self.me && self.owners[slot] == Some(node))
    }

    /// What has to be done to a slot, one after the other, where it may be taken for anything, to have it as it is here.
    pub fn ways_back(&self, slot: usize) -> Vec<SetSlot> {
        let name = |node: &NodeKey| self.node(*node).name.0.to_vec();
        let owner = self.owners[slot].as_ref().map(|node| SetSlot::Node(name(node)));
        let goes = self.migrating.get(&slot).map(|node| SetSlot::Migrating(name(node)));
        let comes = self.importing.get(&slot).map(|node| SetSlot::Importing(name(node)));
        [Some(SetSlot::Stable), owner, goes, comes].into_iter().flatten().collect()
    }

    /// CLUSTER SETSLOT; `keys` is how many keys of the slot are here. A replica does what its primary is about to do.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn set_slot(&mut self, slot: usize, to: &SetSlot, keys: usize) -> Done {
        let node = self.may_set_slot(slot, to, keys)?;
        match (to, node) {
            (SetSlot::Migrating(_), Some(node)) => _ = self.migrating.insert(slot, node),
            (SetSlot::Importing(_), Some(node)) => _ = self.importing.insert(slot, node),
            (SetSlot::Node(_), Some(node)) => self.assign(slot, node, keys),
            _ => {
                self.importing.remove(&slot);
                self.migrating.remove(&slot);
            }
        }
        self.keep();
        Ok(())
    }

    fn assign(&mut self, slot: usize, to: NodeKey, keys: usize) {
        let (ours, leads) = (self.primary_of(self.me), self.me().is_primary());
        let was_ours = self.owners[slot] == Some(ours);
        if keys == 0 || to != ours {
            self.migrating.remove(&slot);
        }
        if self.owners[slot] != Some(to) {
            self.take_slot(slot);
            self.give_slot(slot, to);
        }
        if was_ours && to != ours && self.node(ours).slots.is_empty() {
            match (leads, self.settings.replicas_migrate) {
                // It stays until its primary has done it: else it would never say that it has read this.
                (false, _) => self.gives_last = Some(slot),
                (true, true) => self.follow_slots(to),
                (true, false) => self.tell_empty(to),
            }
        }
        if to == ours && self.importing.remove(&slot).is_some() && leads {
            // Others have to believe it, and they believe the newest epoch. Should somebody else take the same one at
            // this moment, the collision is noticed and solved.
            if let Bumped::Bumped(_) = self.bump_epoch() {
                notice!("configEpoch updated after importing slot {slot}");
            }
            self.tell_everybody();
        }
    }

    /// Has nobody write to these slots until they are let go of or somebody else's; or lets go of them.
    pub fn hold_slots(&mut self, slots: &SlotSet, hold: bool) {
        for slot in slots.iter() {
            if hold {
                self.held.add(slot);
            } else {
                self.held.remove(slot);
            }
        }
        // Who has looked at the picture before looks again.
        self.version += 1;
    }

    /// Takes over slots that `from` has granted, with a newer epoch than anybody's.
    ///
    /// # Errors
    /// Why they cannot be taken over: nothing has changed then.
    pub fn take_over(&mut self, slots: &SlotSet, from: &[u8]) -> Done {
        let from = self.find_or(from, "Unknown node")?;
        if self.me().is_replica() {
            return refuse("A failover occurred during slot import");
        }
        if slots.iter().any(|slot| self.owners[slot] != Some(from)) {
            return refuse("Slots are no longer owned by source node");
        }
        for slot in slots.iter() {
            self.importing.remove(&slot);
            self.take_slot(slot);
            self.give_slot(slot, self.me);
        }
        // Others believe the newest epoch. Should somebody else take the same one at this moment, the collision is
        // noticed and solved.
        if let Bumped::Still(epoch) = self.bump_epoch() {
            notice!("The slots are taken over with configEpoch {epoch}");
        }
        self.keep();
        self.tell_everybody();
        Ok(())
    }

    /// CLUSTER BUMPEPOCH: takes the newest epoch without asking anybody.
    pub fn bump_epoch(&mut self) -> Bumped {
        let newest = self.nodes.values().map(|node| node.config_epoch).max().unwrap_or(0).max(self.current_epoch);
        let mine = self.me().config_epoch;
        if mine != 0 && mine == newest {
            return Bumped::Still(mine);
        }
        self.current_epoch += 1;
        let epoch = self.current_epoch;
        self.me_mut().config_epoch = epoch;
        (self.todo.save, self.todo.sync) = (true, true);
        notice!("New configEpoch set to {epoch}");
        Bumped::Bumped(epoch)
    }

    /// CLUSTER SET-CONFIG-EPOCH.
    ///
    /// # Errors
    /// Why it is too late for that.
    pub fn set_config_epoch(&mut self, epoch: i64) -> Done {
        let Ok(number) = u64::try_from(epoch) else {
            return refuse(format!("Invalid config epoch specified: {epoch}"));
        };
        if self.nodes.len() > 1 {
            return refuse("The user can assign a config epoch only when the node does not know any other node.");
        }
        if self.me().config_epoch != 0 {
            return refuse("Node config epoch is already non-zero");
        }
        self.me_mut().config_epoch = number;
        self.current_epoch = self.current_epoch.max(number);
        notice!("configEpoch set to {number} via CLUSTER SET-CONFIG-EPOCH");
        self.keep();
        Ok(())
    }

    /// CLUSTER REPLICATE; `has_keys` where there is data here.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn replicate(&mut self, name: &[u8], has_keys: bool) -> Done {
        let key = self.find_or(name, "Unknown node")?;
        if key == self.me {
            return refuse("Can't replicate myself");
        }
        if self.node(key).is_replica() {
            return refuse("I can only replicate a master, not a replica.");
        }
        if self.me().is_primary() && (!self.me().slots.is_empty() || has_keys) {
            return refuse("To set a master the node must be empty and without assigned slots.");
        }
        self.become_replica(key);
        Ok(())
    }

    /// CLUSTER FAILOVER.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub fn fail_over(&mut self, kind: FailoverKind) -> Done {
        if self.me().is_primary() {
            return refuse("You should send CLUSTER FAILOVER to a replica");
        }
        let Some(primary) = self.me().primary.map(|primary| self.node(primary)) else {
            return refuse("I'm a replica but my master is unknown to me");
        };
        let link = primary.link;
        if kind == FailoverKind::Agreed && (primary.has_failed() || link.is_none()) {
            return refuse("Master is down or failed, please use CLUSTER FAILOVER FORCE");
        }
        self.end_manual_failover();
        self.manual.until = self.now + MANUAL_TIMEOUT_MS;
        match kind {
            FailoverKind::Takeover => {
                notice!("Taking over the master (user request).");
                self.bump_epoch();
                self.replace_primary();
            }
            FailoverKind::Forced => {
                notice!("Forced failover user request accepted.");
                self.manual.can_start = true;
                // Nobody is waited for, so it need not wait for the next tick either.
                self.todo.manual = true;
            }
            FailoverKind::Agreed => {
                notice!("Manual failover user request accepted.");
                if let Some(link) = link {
                    self.send(link, Kind::ManualStart, Body::Empty);
                }
            }
        }
        Ok(())
    }

    /// The replica that is to take over from this primary: one that has not failed, with the most data.
    pub fn heir(&self) -> Option<Name> {
        if !self.has_a_say(self.me) {
            return None;
        }
        let replicas = self.me().replicas.iter().map(|key| self.node(*key));
        let can = replicas.filter(|node| !node.has_failed() && !node.flags.has(Flags::NO_FAILOVER));
        can.max_by_key(|node| node.offset).map(|node| node.name)
    }

    /// CLUSTER RESET: knows nobody and serves nothing. A primary has no keys.
    pub fn reset(&mut self, kind: ResetKind) {
        if self.me().is_replica() {
            self.make_primary(self.me);
            self.actions.push(Action::Promote);
            self.actions.push(Action::Empty);
        }
        self.migrating.clear();
        self.importing.clear();
        self.end_manual_failover();
        (0..SLOTS).for_each(|slot| self.take_slot(slot));
        let others: Vec<NodeKey> = self.nodes.keys().copied().filter(|key| *key != self.me).collect();
        others.into_iter().for_each(|key| self.remove_node(key));
        self.forgotten.clear();
        if kind == ResetKind::Hard {
            (self.current_epoch, self.last_vote_epoch) = (0, 0);
            let (name, shard) = (random_name(&mut self.random), random_name(&mut self.random));
            self.rename(self.me, name);
            let me = self.me_mut();
            (me.config_epoch, me.shard) = (0, shard);
            notice!("configEpoch set to 0 via CLUSTER RESET HARD");
            notice!("Node hard reset, now I'm {name}");
        }
        self.keep();
    }

    /// DEBUG CLUSTERLINK KILL: closes the connections of a node in these directions.
    ///
    /// # Errors
    /// That no such node is known.
    pub fn kill_links(&mut self, name: &[u8], to: bool, from: bool) -> Done {
        let key = self.find_or(name, "Unknown node")?;
        let node = self.node(key);
        let links: Vec<LinkId> =
            [node.link.filter(|_| to), node.inbound.filter(|_| from)].into_iter().flatten().collect();
        links.into_iter().for_each(|link| self.close(link));
        Ok(())
    }

    /// Writes the configuration with the next action, whatever has changed.
    pub fn save(&mut self) {
        (self.todo.save, self.todo.sync) = (true, true);
    }

    /// What an administrator ordered is not forgotten.
    fn keep(&mut self) {
        self.save();
        self.todo.state = true;
    }
}
