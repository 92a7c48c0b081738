//! One node of a cluster: what it knows, and what it does about it.
//!
//! Every call says what time it is and may leave [`Action`]s behind, which are carried out in their order. What must stay
//! true: a slot has one owner, whose own set of slots has it too; whoever is referred to by a [`NodeKey`] is
//! known; what the bus brings in can change opinions, but cannot make it panic.

mod admin;
mod describe;
mod failover;
mod open;
mod ownership;
mod receive;
mod send;
mod time;

pub use time::TICK_MS;

pub use admin::{Bumped, FailoverKind, ResetKind, SetSlot};

use send::Audience;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::cluster::message::{KINDS, Kind, Message};
use crate::cluster::node::{Address, ClientIps, Flags, LinkId, Name, Node, NodeKey};
use crate::cluster::slots::SlotSet;
use crate::config::table::Config;
use crate::keyspace::shard::SLOTS;
use crate::observe::log::notice;
use crate::stdx::random::Random;

/// The port of the bus is that of clients and so much more, where nothing else is said.
pub const BUS_PORT_OFFSET: u16 = 10_000;

/// The longest timeout that is computed with: a thousand years.
const LONGEST_MS: u64 = 1 << 45;

/// How long a manual failover may take, in milliseconds.
pub const MANUAL_TIMEOUT_MS: u64 = 5000;

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// After how many milliseconds without an answer a node is suspected.
    pub node_timeout_ms: u64,
    /// Milliseconds between pings; 0 for half the timeout.
    pub ping_interval_ms: u64,
    /// How many timeouts old a replica's data may be; 0 for any age.
    pub validity_factor: u64,
    /// Milliseconds between the pings of replication.
    pub replication_ping_ms: u64,
    /// How many replicas a primary keeps when one leaves it for another.
    pub migration_barrier: usize,
    /// Whether replicas move to primaries that have none.
    pub replicas_migrate: bool,
    /// Whether the cluster is down when a slot is served by nobody.
    pub needs_all_slots: bool,
    /// Whether this replica stays one.
    pub never_fails_over: bool,
    /// For how many milliseconds a forgotten node stays forgotten.
    pub forget_ms: u64,
    /// The most bytes that may wait for one connection; 0 for any number.
    pub send_limit: u64,
    /// Where clients and nodes are told to come; no IP where it is found out.
    pub announced: Address,
    /// Where clients are told to come, where it is another address.
    pub client_ips: ClientIps,
    /// Whether nodes speak TLS: the port that clients use with it is then the one that they know each other by.
    pub bus_has_tls: bool,
    /// Whether a primary is copied over TLS.
    pub copies_with_tls: bool,
    /// The name that clients may resolve.
    pub hostname: String,
    /// The name for people.
    pub nickname: String,
}

impl Settings {
    /// What `config` says for a server that listens on `port` for clients without TLS.
    pub fn of(config: &Config, port: u16) -> Settings {
        let text =
            |value: &Option<Vec<u8>>| value.as_ref().map_or(String::new(), |v| String::from_utf8_lossy(v).into());
        let or = |port: u16, other: u16| if port != 0 { port } else { other };
        Settings {
            node_timeout_ms: config.cluster_node_timeout.min(LONGEST_MS),
            ping_interval_ms: config.cluster_ping_interval.min(LONGEST_MS),
            validity_factor: config.cluster_replica_validity_factor.into(),
            replication_ping_ms: u64::from(config.repl_ping_replica_period) * 1000,
            migration_barrier: config.cluster_migration_barrier as usize,
            replicas_migrate: config.cluster_allow_replica_migration,
            needs_all_slots: config.cluster_require_full_coverage,
            never_fails_over: config.cluster_replica_no_failover,
            forget_ms: config.cluster_blacklist_ttl.saturating_mul(1000),
            send_limit: config.cluster_link_sendbuf_limit,
            announced: Address {
                ip: text(&config.cluster_announce_ip),
                port: or(config.cluster_announce_port, port),
                tls_port: or(config.cluster_announce_tls_port, config.tls_port),
                bus_port: or(config.cluster_announce_bus_port, bus_port(config, port)),
            },
            client_ips: ClientIps {
                v4: text(&config.cluster_announce_client_ipv4),
                v6: text(&config.cluster_announce_client_ipv6),
            },
            bus_has_tls: config.tls_cluster,
            copies_with_tls: config.tls_replication,
            hostname: text(&config.cluster_announce_hostname),
            nickname: text(&config.cluster_announce_human_nodename),
        }
    }
}

/// The port of the bus of a server that listens on `port` for clients without TLS.
pub fn bus_port(config: &Config, port: u16) -> u16 {
    match config.cluster_port {
        0 => base_port(config, port).wrapping_add(BUS_PORT_OFFSET),
        port => port,
    }
}

/// The port by which nodes know a server that listens on `port` for clients without TLS.
pub fn base_port(config: &Config, port: u16) -> u16 {
    if config.tls_cluster { config.tls_port } else { port }
}

/// What is known of this node's own replication, which is somebody else's affair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replication {
    /// Grows whenever another server is followed, or none any more.
    pub turn: u64,
    /// Whether the primary's stream is followed: the data are his.
    pub linked: bool,
    /// How far it is: what this node has written, or read of its primary.
    pub offset: u64,
    /// For how many milliseconds nothing came from the primary.
    pub silent_ms: u64,
    /// Whether a primary is copied, or tried to be reached.
    pub copies: bool,
}

/// How safe `nodes.conf` has to be before others are told what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// It outlives the process: what is lost would be learned again.
    Process,
    /// It outlives the machine: votes, epochs, and who serves what.
    Machine,
}

/// What has to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this into `nodes.conf` before anything that follows.
    Save(String, Durability),
    /// Open a connection. What is sent before it stands waits for it.
    Connect {
        /// Its number.
        link: LinkId,
        /// The address.
        ip: String,
        /// The port.
        port: u16,
    },
    /// Send a message.
    Send(LinkId, Bytes),
    /// Close a connection; [`Machine::closed`] need not be called.
    Close(LinkId),
    /// Copy the primary at this address and port, whatever was done before.
    Replicate(String, u16),
    /// Copy nobody any more.
    Promote,
    /// Remove all keys.
    Empty,
    /// Remove the keys of slots that are somebody else's now.
    DropKeys(SlotSet),
    /// Remove the keys of slots that were on their way here and stay elsewhere.
    RollBack(SlotSet),
    /// End the subscriptions to shard channels in these slots.
    DropChannels(SlotSet),
    /// Hold back writes until then, in unix milliseconds.
    Pause(u64),
    /// Hold nothing back any more.
    Resume,
    /// Hand a message on a channel to the clients of this node.
    Publish {
        /// The channel.
        channel: Bytes,
        /// The message.
        message: Bytes,
        /// Whether it is a shard channel.
        sharded: bool,
    },
}

/// A connection of the bus.
#[derive(Debug, Clone)]
pub struct Link {
    /// Whose it is; an inbound one may be anybody's.
    pub node: Option<NodeKey>,
    /// Whether the other side opened it.
    pub inbound: bool,
    /// Unix milliseconds since when.
    pub created: u64,
    /// Bytes that wait to be sent.
    pub queued: usize,
    peer_ip: String,
    local_ip: String,
}

/// What is to be done once an input has been looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Todo {
    save: bool,
    /// What is saved must not be forgotten.
    sync: bool,
    state: bool,
    election: bool,
    manual: bool,
}

/// Why a replica does not take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Hindrance {
    #[default]
    None,
    DataAge,
    Delay,
    Expired,
    Votes,
}

/// An election of this replica.
#[derive(Debug, Clone, Copy, Default)]
struct Election {
    at: u64,
    rank: usize,
    sent: bool,
    votes: usize,
    epoch: u64,
    hindrance: Hindrance,
    logged_at: u64,
}

/// A failover that somebody asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Manual {
    /// When it is given up; 0 where there is none.
    until: u64,
    /// On the replica: it need wait no longer.
    can_start: bool,
    /// On the primary: who asked.
    replica: Option<NodeKey>,
    /// On the replica: where the primary stopped writing.
    primary_offset: Option<u64>,
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    replication: Replication,
    random: Random,
    now: u64,
    nodes: BTreeMap<NodeKey, Node>,
    names: BTreeMap<Name, NodeKey>,
    next_key: u32,
    me: NodeKey,
    owners: Box<[Option<NodeKey>]>,
    /// Slots whose owner has stopped to claim them.
    unclaimed: SlotSet,
    migrating: BTreeMap<usize, NodeKey>,
    importing: BTreeMap<usize, NodeKey>,
    /// The turn in which this node began to follow the primary of another shard, of which it has nothing yet.
    foreign: Option<u64>,
    /// The last slot of this replica's primary, which that one is about to give away.
    gives_last: Option<usize>,
    /// Slots of this node to which nobody writes, for another node is about to take them over.
    held: SlotSet,
    current_epoch: u64,
    last_vote_epoch: u64,
    is_down: bool,
    size: usize,
    first_look: Option<u64>,
    minority_at: Option<u64>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// Names of forgotten nodes, and until when they are.
    forgotten: BTreeMap<Name, u64>,
    election: Election,
    manual: Manual,
    ticks: u64,
    pings: u64,
    sent: [u64; KINDS],
    received: [u64; KINDS],
    over_limit: u64,
    ignored: Option<Kind>,
    closes_on_ignored: bool,
    lost_channels: SlotSet,
    actions: Vec<Action>,
    todo: Todo,
    version: u64,
}

impl Machine {
    /// A node that knows nobody, with a name of its own.
    pub fn new(settings: Settings, mut random: Random, now: u64) -> Machine {
        let (name, shard) = (random_name(&mut random), random_name(&mut random));
        let mut machine = Machine::empty(settings, random, now);
        let me = machine.add_node(Node::new(name, shard, Flags::MYSELF.with(Flags::PRIMARY), now));
        machine.me = me;
        machine.announce_myself();
        machine.todo.save = true;
        machine
    }

    /// A machine without any node, not even itself.
    pub(super) fn empty(settings: Settings, random: Random, now: u64) -> Machine {
        Machine {
            settings,
            replication: Replication::default(),
            random,
            now,
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            next_key: 1,
            me: NodeKey(0),
            owners: vec![None; SLOTS].into(),
            unclaimed: SlotSet::default(),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            foreign: None,
            gives_last: None,
            held: SlotSet::default(),
            current_epoch: 0,
            last_vote_epoch: 0,
            is_down: true,
            size: 1,
            first_look: None,
            minority_at: None,
            links: BTreeMap::new(),
            next_link: 1,
            forgotten: BTreeMap::new(),
            election: Election::default(),
            manual: Manual::default(),
            ticks: 0,
            pings: 0,
            sent: [0; KINDS],
            received: [0; KINDS],
            over_limit: 0,
            ignored: None,
            closes_on_ignored: false,
            lost_channels: SlotSet::default(),
            actions: Vec::new(),
            todo: Todo::default(),
            version: 0,
        }
    }

    /// Says what time it is and how far replication is; comes before every other call.
    pub fn enter(&mut self, now: u64, replication: Replication) {
        self.now = now;
        self.replication = replication;
        // That it copies nobody yet means nothing: what this node decides is done a little later.
        if self.foreign.is_some_and(|turn| self.me().is_primary() || replication.linked && replication.turn > turn) {
            self.foreign = None;
        }
    }

    /// How much of the data of its shard this node has: nothing, where what it has is another's.
    fn offset(&self) -> u64 {
        if self.foreign.is_some() { 0 } else { self.replication.offset }
    }

    /// Does what the last calls left to be done, and returns what is to be done outside.
    pub fn leave(&mut self) -> Vec<Action> {
        let todo = std::mem::take(&mut self.todo);
        if todo.manual && self.me().is_replica() {
            self.look_at_manual_failover();
            self.look_at_election();
        } else if todo.election {
            self.look_at_election();
        }
        if todo.state || self.todo.state {
            self.look_at_state();
        }
        if !self.lost_channels.is_empty() {
            let lost = std::mem::take(&mut self.lost_channels);
            self.actions.push(Action::DropChannels(lost));
        }
        let save = todo.save || self.todo.save;
        let mut actions = std::mem::take(&mut self.actions);
        if save {
            // Nobody is told what the file does not know: a vote that is forgotten could be given twice.
            let durability = if todo.sync || self.todo.sync { Durability::Machine } else { Durability::Process };
            actions.insert(0, Action::Save(self.to_file(), durability));
        }
        self.todo = Todo::default();
        if save || todo.state {
            self.version += 1;
        }
        actions
    }

    /// Grows with everything that commands may have to know.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// This node.
    pub fn me(&self) -> &Node {
        self.node(self.me)
    }

    /// This node's number.
    pub fn my_key(&self) -> NodeKey {
        self.me
    }

    /// A node that is known.
    pub fn node(&self, key: NodeKey) -> &Node {
        self.nodes.get(&key).expect("who is referred to is known")
    }

    fn node_mut(&mut self, key: NodeKey) -> &mut Node {
        self.nodes.get_mut(&key).expect("who is referred to is known")
    }

    fn me_mut(&mut self) -> &mut Node {
        self.node_mut(self.me)
    }

    /// The node of this name.
    pub fn find(&self, name: &[u8]) -> Option<NodeKey> {
        self.named(&Name::parse(name)?)
    }

    fn named(&self, name: &Name) -> Option<NodeKey> {
        self.names.get(name).copied()
    }

    /// All nodes, this one included.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes.iter().map(|(key, node)| (*key, node))
    }

    /// Who serves a slot.
    pub fn owner(&self, slot: usize) -> Option<NodeKey> {
        self.owners[slot]
    }

    /// The slots of this node, or of its primary, that are on their way to others.
    pub fn migrating(&self) -> &BTreeMap<usize, NodeKey> {
        &self.migrating
    }

    /// The slots that are on their way to this node, or to its primary.
    pub fn importing(&self) -> &BTreeMap<usize, NodeKey> {
        &self.importing
    }

    /// The slots to which nobody writes at the moment.
    pub fn held(&self) -> &SlotSet {
        &self.held
    }

    /// Whether the cluster, as this node sees it, serves nobody.
    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// The newest epoch.
    pub fn current_epoch(&self) -> u64 {
        self.current_epoch
    }

    /// The epoch of the last vote.
    pub fn last_vote_epoch(&self) -> u64 {
        self.last_vote_epoch
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The connections of nodes, whose they are.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// How often a connection was closed because too much waited for it.
    pub fn links_over_limit(&self) -> u64 {
        self.over_limit
    }

    /// Follows a changed configuration.
    pub fn follow(&mut self, settings: Settings) {
        if settings != self.settings {
            self.settings = settings;
            self.announce_myself();
            self.todo.save = true;
            self.todo.state = true;
        }
    }

    /// Writes what the configuration says about this node into its own entry.
    fn announce_myself(&mut self) {
        let Settings { announced, client_ips, hostname, nickname, never_fails_over, .. } = self.settings.clone();
        let me = self.me_mut();
        if !announced.ip.is_empty() {
            me.address.ip = announced.ip;
        }
        (me.address.port, me.address.tls_port) = (announced.port, announced.tls_port);
        me.address.bus_port = announced.bus_port;
        (me.client_ips, me.hostname, me.nickname) = (client_ips, hostname, nickname);
        me.flags.clear(Flags::NO_FAILOVER);
        if never_fails_over {
            me.flags.add(Flags::NO_FAILOVER);
        }
    }

    /// Says how many bytes wait to be sent over a connection.
    pub fn note_queue(&mut self, link: LinkId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&link) {
            link.queued = bytes;
        }
    }

    /// A connection that this node asked for stands.
    pub fn connected(&mut self, id: LinkId, local_ip: String) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.local_ip = local_ip;
        let Some(key) = link.node else { return };
        let (meets, waits_since) = (self.node(key).flags.has(Flags::MEET), self.node(key).ping_sent);
        self.send_ping(id, if meets { Kind::Meet } else { Kind::Ping });
        let node = self.node_mut(key);
        if waits_since != 0 {
            // The answer that is waited for is that to the first ping: it is not put off by connecting anew.
            node.ping_sent = waits_since;
        }
        // Until it has answered it may not have heard of us; but whoever forgets us later does not meet us again by this.
        if !node.is_in_handshake() {
            node.flags.clear(Flags::MEET);
        }
    }

    /// Somebody connected; returns the connection's number.
    pub fn accepted(&mut self, peer_ip: String, local_ip: String) -> LinkId {
        let link = Link { node: None, inbound: true, created: self.now, queued: 0, peer_ip, local_ip };
        self.add_link(link)
    }

    /// A connection is gone, or could not be opened.
    pub fn closed(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.unlink(id, &link);
        }
    }

    fn add_link(&mut self, link: Link) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(id, link);
        id
    }

    fn unlink(&mut self, id: LinkId, link: &Link) {
        let Some(node) = link.node.and_then(|key| self.nodes.get_mut(&key)) else { return };
        if node.link == Some(id) {
            node.link = None;
        }
        if node.inbound == Some(id) {
            node.inbound = None;
        }
    }

    /// Closes a connection from this side.
    fn close(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.unlink(id, &link);
            self.actions.push(Action::Close(id));
        }
    }

    /// Has nodes of this kind of message ignored, for tests; `close` ends connections that bring one.
    pub fn ignore(&mut self, kind: Option<Kind>) {
        self.ignored = kind;
    }

    /// Has the connection closed that brings a message which is ignored.
    pub fn close_on_ignored(&mut self, on: bool) {
        self.closes_on_ignored = on;
    }

    fn add_node(&mut self, node: Node) -> NodeKey {
        let key = NodeKey(self.next_key);
        self.next_key += 1;
        self.names.insert(node.name, key);
        self.nodes.insert(key, node);
        key
    }

    /// Forgets a node and whatever refers to it.
    fn remove_node(&mut self, key: NodeKey) {
        assert!(key != self.me, "a node does not forget itself");
        self.importing.retain(|_, from| *from != key);
        self.migrating.retain(|_, to| *to != key);
        self.take_slots_of(key);
        for node in self.nodes.values_mut() {
            node.reports.remove(&key);
            node.replicas.retain(|replica| *replica != key);
            if node.primary == Some(key) {
                node.primary = None;
            }
        }
        if self.manual.replica == Some(key) {
            self.manual.replica = None;
        }
        let Some(node) = self.nodes.remove(&key) else { return };
        if self.names.get(&node.name) == Some(&key) {
            self.names.remove(&node.name);
        }
        for id in [node.link, node.inbound].into_iter().flatten() {
            self.links.remove(&id);
            self.actions.push(Action::Close(id));
        }
        self.todo.save = true;
    }

    fn rename(&mut self, key: NodeKey, name: Name) {
        let old = std::mem::replace(&mut self.node_mut(key).name, name);
        self.names.remove(&old);
        self.names.insert(name, key);
    }

    /// Makes one node a replica of another.
    fn attach(&mut self, primary: NodeKey, replica: NodeKey) {
        self.node_mut(replica).primary = Some(primary);
        if !self.node(primary).replicas.contains(&replica) {
            let name = self.node(replica).name;
            let before = |other: &NodeKey| self.node(*other).name < name;
            let at = self.node(primary).replicas.partition_point(before);
            let primary = self.node_mut(primary);
            primary.replicas.insert(at, replica);
            primary.flags.add(Flags::MIGRATE_TO);
        }
    }

    /// Ends what [`Machine::attach`] began.
    fn detach(&mut self, replica: NodeKey) {
        let Some(primary) = self.node_mut(replica).primary.take() else { return };
        let primary = self.node_mut(primary);
        primary.replicas.retain(|other| *other != replica);
        if primary.replicas.is_empty() {
            primary.flags.clear(Flags::MIGRATE_TO);
        }
    }

    /// Says that a node is a primary from now on.
    fn make_primary(&mut self, key: NodeKey) {
        if self.node(key).is_primary() {
            return;
        }
        let had_primary = self.node(key).primary.is_some();
        self.detach(key);
        let me = self.me;
        let node = self.node_mut(key);
        if had_primary && key != me {
            node.flags.add(Flags::MIGRATE_TO);
        }
        node.flags.clear(Flags::REPLICA);
        node.flags.add(Flags::PRIMARY);
        (self.todo.save, self.todo.state) = (true, true);
    }

    /// Makes this node a replica of `primary`.
    fn become_replica(&mut self, primary: NodeKey) {
        assert!(primary != self.me, "a node does not copy itself");
        if self.me().is_primary() {
            let me = self.me_mut();
            me.flags.clear(Flags::PRIMARY.with(Flags::MIGRATE_TO));
            me.flags.add(Flags::REPLICA);
        } else {
            self.detach(self.me);
        }
        self.gives_last = None;
        let shard = self.node(primary).shard;
        if shard != self.me().shard {
            self.foreign = Some(self.replication.turn);
            // Those of our own shard go on, whoever leads it.
            self.migrating.clear();
            self.importing.clear();
        }
        self.set_shard(self.me, shard);
        self.attach(primary, self.me);
        // Shard channels are where their slot is: here only those of the new primary's slots stay.
        for slot in (0..SLOTS).filter(|slot| self.owners[*slot] != Some(primary)) {
            self.lost_channels.add(slot);
        }
        let address = &self.node(primary).address;
        let (ip, port) = (address.ip.clone(), address.port(self.settings.copies_with_tls));
        self.actions.push(Action::Replicate(ip, port));
        self.end_manual_failover();
        (self.todo.save, self.todo.sync, self.todo.state) = (true, true, true);
    }

    /// Copies whom this node's primary has begun to copy: there is one level of replicas.
    fn follow_above(&mut self, above: NodeKey) {
        let node = self.node(above);
        notice!("I'm a sub-replica! Reconfiguring myself as a replica of grandmaster {} ({})", node.name, node.nick());
        self.become_replica(above);
    }

    /// Notes the shard of a node; this node follows its primary's.
    fn set_shard(&mut self, key: NodeKey, shard: Name) {
        let me = self.me;
        let follows = self.me().primary == Some(key);
        for key in [Some(key), follows.then_some(me)].into_iter().flatten() {
            if self.node(key).shard != shard {
                self.node_mut(key).shard = shard;
                self.todo.save = true;
            }
        }
    }

    /// The primary that a node's slots and epoch are: itself, or the one that it copies.
    fn primary_of(&self, key: NodeKey) -> NodeKey {
        let node = self.node(key);
        node.primary.filter(|_| node.is_replica()).unwrap_or(key)
    }

    /// How many votes make a majority.
    fn quorum(&self) -> usize {
        self.size / 2 + 1
    }

    /// The primaries that say of a node that they do not reach it.
    pub fn count_reports(&mut self, key: NodeKey) -> usize {
        self.tidy_reports(key);
        self.node(key).reports.len()
    }

    fn tidy_reports(&mut self, key: NodeKey) {
        let oldest = self.now.saturating_sub(self.settings.node_timeout_ms * REPORT_VALID);
        self.node_mut(key).reports.retain(|_, at| *at >= oldest);
    }

    fn is_forgotten(&mut self, name: &Name) -> bool {
        let now = self.now;
        self.forgotten.retain(|_, until| *until >= now);
        self.forgotten.contains_key(name)
    }

    /// Sends what a client published to the other nodes that it concerns.
    pub fn publish(&mut self, channel: &[u8], message: &[u8], sharded: bool) {
        let shard = self.me().shard;
        let links: Vec<LinkId> = self
            .nodes
            .values()
            .filter(|node| !node.flags.has(Flags::MYSELF.with(Flags::HANDSHAKE)) && (!sharded || node.shard == shard))
            .filter_map(|node| node.link)
            .collect();
        if links.is_empty() {
            return;
        }
        let kind = if sharded { Kind::PublishShard } else { Kind::Publish };
        let body = crate::cluster::message::Body::Publish {
            channel: Bytes::copy_from_slice(channel),
            message: Bytes::copy_from_slice(message),
        };
        let bytes = Message { kind, header: self.header(), body }.encode();
        links.into_iter().for_each(|link| self.send_bytes(link, kind, bytes.clone()));
    }
}

/// For how many timeouts what others say of a node counts.
const REPORT_VALID: u64 = 2;

/// A name that nobody else has.
fn random_name(random: &mut Random) -> Name {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Name(std::array::from_fn(|_| DIGITS[random.below(16)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::file;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn of_a_shard_that_it_has_just_joined_a_node_has_nothing_until_it_was_given_it() {
        let text = format!(
            "{A} 127.0.0.1:7000@17000,,tls-port=0,shard-id={A} myself,master - 0 0 3 connected\n\
             {B} 127.0.0.1:7001@17001,,tls-port=0,shard-id={B} master - 0 0 4 connected 0-16383\n\
             vars currentEpoch 4 lastVoteEpoch 0\n"
        );
        let mut machine =
            file::load(&text, Settings::of(&Config::default(), 7000), Random::seeded(1), 0).unwrap().unwrap();
        let led = Replication { offset: 100, turn: 3, ..Replication::default() };
        machine.enter(1, led);
        assert_eq!(machine.offset(), 100);
        machine.replicate(B.as_bytes(), false).unwrap();
        assert!(machine.leave().contains(&Action::Replicate("127.0.0.1".into(), 7001)));
        // It is being done.
        machine.enter(2, led);
        assert_eq!(machine.offset(), 0);
        let follows = Replication { offset: 100, turn: 4, copies: true, ..Replication::default() };
        machine.enter(3, follows);
        assert_eq!(machine.offset(), 0);
        machine.enter(4, Replication { offset: 7, linked: true, ..follows });
        assert_eq!(machine.offset(), 7);
    }
}
