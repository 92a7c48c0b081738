//! Whole clusters in one process, from one seed: nodes, connections that are slow, cut or lost, clocks that jump, nodes
//! that stop and start again with an older file or none.
//!
//! A failure says the seed; the same seed does the same again. What is asked of every run: no slot has two owners of one
//! epoch, nobody takes over without the votes for it, and once the network is whole everybody agrees.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;

use crate::cluster::file;
use crate::cluster::machine::{Action, FailoverKind, Machine, Replication, SetSlot, Settings};
use crate::cluster::message::{Kind, Message};
use crate::cluster::node::{Flags, LinkId, Name, Way};
use crate::cluster::slots::SlotSet;
use crate::config::table::Config;
use crate::keyspace::shard::SLOTS;
use crate::stdx::random::Random;

const TICK_MS: u64 = 100;
const TIMEOUT_MS: u64 = 2000;
/// How many calls are made between two looks at everything.
const CHECK_EVERY: u64 = 37;
const START_MS: u64 = 1_700_000_000_000;

/// What a node has beside its machine.
struct Server {
    machine: Machine,
    runs: bool,
    /// What its disk has, newest last.
    disk: Vec<String>,
    /// How much its clock is ahead.
    skew_ms: i64,
    copies: Option<usize>,
    /// How often it began to copy somebody.
    turn: u64,
    promotions: usize,
    offset: u64,
    heard_at: u64,
    /// For each connection: which server is at the other end, and its number there, if it is known yet.
    links: BTreeMap<LinkId, (usize, Option<LinkId>)>,
    paused_until: u64,
    pauses: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    /// A connection from this server's link reaches the node.
    Open(usize, LinkId),
    /// It stands.
    Opened(LinkId, LinkId),
    Refused(LinkId),
    Bytes(LinkId, Vec<u8>),
    Closed(LinkId),
}

struct Simulation {
    servers: Vec<Server>,
    random: Random,
    now: u64,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, usize, Event)>>,
    serial: u64,
    /// Pairs between whom nothing gets through, in this direction.
    cut: BTreeSet<(usize, usize)>,
    slowest_ms: u64,
    /// Votes that left, by voter and epoch: to whom.
    votes: BTreeMap<(Name, u64), usize>,
    /// The owner of a slot and an epoch, as it says itself.
    claims: BTreeMap<(usize, u64), Name>,
    /// Last time of arrival on a way, so that a connection keeps its order.
    arrivals: BTreeMap<(usize, LinkId), u64>,
}

fn settings(port: u16) -> Settings {
    let mut settings = Settings::of(&Config::default(), port);
    settings.node_timeout_ms = TIMEOUT_MS;
    settings
}

fn ip(server: usize) -> String {
    format!("10.0.{}.{}", server / 250, server % 250 + 1)
}

impl Simulation {
    fn new(seed: u64, servers: usize) -> Simulation {
        let mut random = Random::seeded(seed);
        let mut simulation = Simulation {
            servers: Vec::new(),
            now: START_MS,
            events: BinaryHeap::new(),
            serial: 0,
            cut: BTreeSet::new(),
            slowest_ms: 5,
            votes: BTreeMap::new(),
            claims: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            random: Random::seeded(seed ^ 0x5eed),
        };
        for server in 0..servers {
            let machine = Machine::new(settings(7000), Random::seeded(random.bits()), START_MS);
            simulation.servers.push(Server {
                machine,
                runs: true,
                disk: Vec::new(),
                skew_ms: 0,
                copies: None,
                turn: 0,
                promotions: 0,
                offset: 0,
                heard_at: START_MS,
                links: BTreeMap::new(),
                paused_until: 0,
                pauses: 0,
            });
            let first = simulation.random.below(TICK_MS as usize) as u64;
            simulation.after(first, server, Event::Tick);
            simulation.call(server, Machine::save);
        }
        simulation
    }

    fn after(&mut self, ms: u64, server: usize, event: Event) {
        self.serial += 1;
        self.events.push(std::cmp::Reverse((self.now + ms, self.serial, server, event)));
    }

    /// What a server's clock shows.
    fn clock(&self, server: usize) -> u64 {
        self.now.saturating_add_signed(self.servers[server].skew_ms)
    }

    fn call<R>(&mut self, server: usize, f: impl FnOnce(&mut Machine) -> R) -> R {
        let now = self.clock(server);
        let offset = match self.servers[server].copies {
            Some(primary) => {
                let reads = self.servers[primary].runs
                    && !self.cut.contains(&(primary, server))
                    && !self.cut.contains(&(server, primary));
                if reads {
                    let offset = self.servers[primary].offset;
                    let (at, mine) = (self.now, &mut self.servers[server]);
                    (mine.offset, mine.heard_at) = (offset, at);
                }
                self.servers[server].offset
            }
            None => self.servers[server].offset,
        };
        let mine = &mut self.servers[server];
        let silent_ms = self.now.saturating_sub(mine.heard_at);
        mine.machine.enter(
            now,
            Replication {
                offset,
                silent_ms,
                copies: mine.copies.is_some(),
                linked: mine.copies.is_some(),
                turn: mine.turn,
            },
        );
        let result = f(&mut mine.machine);
        let actions = mine.machine.leave();
        actions.into_iter().for_each(|action| self.act(server, action));
        self.serial += 1;
        if self.serial.is_multiple_of(CHECK_EVERY) {
            self.check(server);
        }
        result
    }

    fn find(&self, ip_wanted: &str) -> Option<usize> {
        (0..self.servers.len()).find(|server| ip(*server) == ip_wanted)
    }

    fn act(&mut self, server: usize, action: Action) {
        match action {
            Action::Save(text, _) => {
                let disk = &mut self.servers[server].disk;
                disk.push(text);
                if disk.len() > 8 {
                    disk.remove(0);
                }
            }
            Action::Connect { link, ip, .. } => {
                let to = self.find(&ip);
                match to.filter(|to| self.servers[*to].runs && !self.cut.contains(&(server, *to))) {
                    Some(to) => {
                        self.servers[server].links.insert(link, (to, None));
                        let delay = self.delay();
                        self.after(delay, to, Event::Open(server, link));
                    }
                    None => self.after(1, server, Event::Refused(link)),
                }
            }
            Action::Send(link, bytes) => self.send(server, link, &bytes),
            Action::Close(link) => {
                if let Some((to, Some(theirs))) = self.servers[server].links.remove(&link) {
                    let delay = self.delay();
                    self.after(delay, to, Event::Closed(theirs));
                }
            }
            Action::Replicate(ip, _) => {
                let primary = self.find(&ip);
                let at = self.now;
                let mine = &mut self.servers[server];
                (mine.copies, mine.heard_at) = (primary, at);
                mine.turn += 1;
            }
            Action::Promote => {
                let mine = &mut self.servers[server];
                mine.copies = None;
                mine.promotions += 1;
            }
            Action::Pause(until) => {
                self.servers[server].paused_until = until;
                self.servers[server].pauses += 1;
            }
            Action::Resume => self.servers[server].paused_until = 0,
            Action::Empty
            | Action::DropKeys(_)
            | Action::RollBack(_)
            | Action::DropChannels(_)
            | Action::Publish { .. } => {}
        }
    }

    fn delay(&mut self) -> u64 {
        1 + self.random.below(self.slowest_ms as usize) as u64
    }

    fn send(&mut self, server: usize, link: LinkId, bytes: &Bytes) {
        let Ok(message) = Message::decode(bytes) else { panic!("a node sends what it cannot read itself") };
        if message.kind == Kind::AuthAck {
            let key = (message.header.sender, message.header.current_epoch);
            let to = self.servers[server].links.get(&link).map_or(usize::MAX, |(to, _)| *to);
            assert_eq!(*self.votes.entry(key).or_insert(to), to, "two votes in one epoch");
        }
        let Some((to, theirs)) = self.servers[server].links.get(&link).copied() else { return };
        if self.cut.contains(&(server, to)) || !self.servers[to].runs {
            return;
        }
        let Some(theirs) = theirs else {
            // It waits for the connection to stand; messages before that are few and come again.
            return;
        };
        let delay = self.delay();
        let last = self.arrivals.entry((server, link)).or_default();
        let at = (self.now + delay).max(*last);
        *last = at;
        let wait = at - self.now;
        self.after(wait, to, Event::Bytes(theirs, bytes.to_vec()));
    }

    /// What has to hold at all times.
    fn check(&mut self, server: usize) {
        let machine = &self.servers[server].machine;
        let mut owned = BTreeMap::new();
        for (key, node) in machine.nodes() {
            for slot in node.slots.iter() {
                assert!(owned.insert(slot, key).is_none(), "a slot has two owners");
                assert_eq!(machine.owner(slot), Some(key));
            }
            for replica in &node.replicas {
                assert_eq!(machine.node(*replica).primary, Some(key));
            }
            if let Some(primary) = node.primary {
                assert!(machine.node(primary).replicas.contains(&key));
            }
        }
        assert_eq!(owned.len(), (0..SLOTS).filter(|slot| machine.owner(*slot).is_some()).count());
    }

    /// No two nodes that believe to serve a slot have the same epoch for it, unless a collision is being solved.
    fn check_claims(&mut self) {
        let mut claims: BTreeMap<(usize, u64), Name> = BTreeMap::new();
        for server in self.servers.iter().filter(|server| server.runs) {
            let me = server.machine.me();
            if let Some(first) = me.slots.iter().next().filter(|_| me.is_primary()) {
                let other = claims.insert((first, me.config_epoch), me.name);
                assert!(other.is_none(), "slot {first} has two owners of epoch {}", me.config_epoch);
            }
        }
        self.claims = claims;
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(std::cmp::Reverse((at, ..))) = self.events.peek() {
            if *at > end {
                break;
            }
            let std::cmp::Reverse((at, _, server, event)) =
                self.events.pop().expect("the test asks for what can be done");
            self.now = at;
            self.happen(server, event);
        }
        self.now = end;
    }

    fn happen(&mut self, server: usize, event: Event) {
        if event == Event::Tick {
            self.after(TICK_MS, server, Event::Tick);
        }
        if !self.servers[server].runs {
            if let Event::Open(from, link) = event {
                self.after(1, from, Event::Refused(link));
            }
            return;
        }
        match event {
            Event::Tick => {
                let mine = &mut self.servers[server];
                if mine.copies.is_none() && mine.machine.me().is_primary() && mine.paused_until <= self.now {
                    mine.offset += 10;
                }
                self.call(server, Machine::tick);
            }
            Event::Open(from, link) => {
                if !self.servers[from].links.contains_key(&link) || !self.servers[from].runs {
                    return;
                }
                let theirs = self.call(server, |machine| machine.accepted(ip(from), ip(server)));
                self.servers[server].links.insert(theirs, (from, Some(link)));
                let delay = self.delay();
                self.after(delay, from, Event::Opened(link, theirs));
            }
            Event::Opened(link, theirs) => {
                if let Some((_, number)) = self.servers[server].links.get_mut(&link) {
                    *number = Some(theirs);
                    let mine = ip(server);
                    self.call(server, |machine| machine.connected(link, mine));
                }
            }
            Event::Refused(link) | Event::Closed(link) => {
                self.servers[server].links.remove(&link);
                self.call(server, |machine| machine.closed(link));
            }
            Event::Bytes(link, bytes) => {
                if self.servers[server].links.contains_key(&link) {
                    self.call(server, |machine| machine.received(link, &bytes));
                }
            }
        }
    }

    fn stop(&mut self, server: usize) {
        self.servers[server].runs = false;
        let links = std::mem::take(&mut self.servers[server].links);
        for (to, theirs) in links.into_values() {
            if let Some(theirs) = theirs {
                self.after(1, to, Event::Closed(theirs));
            }
        }
    }

    /// Starts a server again, with the file that it wrote so many times ago.
    fn start(&mut self, server: usize, ago: usize) {
        let disk = &self.servers[server].disk;
        let text = disk[disk.len().saturating_sub(1 + ago)].clone();
        let seed = self.random.bits();
        let now = self.clock(server);
        let machine = file::load(&text, settings(7000), Random::seeded(seed), now)
            .expect("the test asks for what can be done")
            .expect("the test asks for what can be done");
        let at = self.now;
        let mine = &mut self.servers[server];
        (mine.machine, mine.runs, mine.copies, mine.heard_at) = (machine, true, None, at);
    }

    /// `primaries` that share all slots, and then as many replicas each.
    fn create(seed: u64, primaries: usize, replicas: usize) -> Simulation {
        let mut all = Simulation::new(seed, primaries * (1 + replicas));
        for primary in 0..primaries {
            let slots: Vec<usize> = (0..SLOTS).filter(|slot| slot * primaries / SLOTS == primary).collect();
            all.call(primary, |machine| machine.set_config_epoch(primary as i64 + 1))
                .expect("the test asks for what can be done");
            all.call(primary, |machine| machine.add_slots(&slots)).expect("the test asks for what can be done");
        }
        for server in 1..all.servers.len() {
            all.call(server, |machine| machine.meet(ip(0).as_bytes(), 7000, 17000))
                .expect("the test asks for what can be done");
        }
        all.until(60_000, "everybody knows everybody", |all| {
            let n = all.servers.len();
            all.servers.iter().all(|server| {
                let known = server.machine.nodes().filter(|(_, node)| !node.is_in_handshake()).count();
                known == n && server.machine.nodes().count() == n
            })
        });
        for server in primaries..all.servers.len() {
            let primary = all.name(server % primaries);
            all.call(server, |machine| machine.replicate(primary.to_string().as_bytes(), false))
                .expect("the test asks for what can be done");
        }
        all.until(60_000, "the cluster serves", |all| all.agrees() && all.serves() && all.knows_replicas());
        all
    }

    /// Whether everybody knows whose replica everybody is.
    fn knows_replicas(&self) -> bool {
        let of = |machine: &Machine, name: Name| {
            let node = machine.node(machine.find(&name.0)?);
            node.primary.map(|primary| machine.node(primary).name)
        };
        self.running().all(|server| {
            self.running().all(|other| {
                let name = other.machine.me().name;
                of(&server.machine, name) == of(&other.machine, name)
            })
        })
    }

    fn name(&self, server: usize) -> Name {
        self.servers[server].machine.me().name
    }

    fn until(&mut self, most_ms: u64, what: &str, done: impl Fn(&Simulation) -> bool) -> u64 {
        let began = self.now;
        while !done(self) {
            assert!(self.now - began < most_ms, "{what}: not after {most_ms} ms\n{}", self.tell());
            self.run(50);
        }
        self.now - began
    }

    fn tell(&self) -> String {
        let lines = |server: &Server| {
            format!("runs: {}\n{}{}", server.runs, server.machine.lines(Way::PLAIN), server.machine.info())
        };
        self.servers.iter().take(8).map(lines).collect()
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.runs)
    }

    fn serves(&self) -> bool {
        self.running().all(|server| !server.machine.is_down())
    }

    /// Whether all that run have the same opinion about slots, and each replica has a primary that is one.
    fn agrees(&self) -> bool {
        let opinion = |server: &Server| -> Vec<(Name, SlotSet)> {
            let nodes = server.machine.nodes().filter(|(_, node)| !node.slots.is_empty());
            let mut all: Vec<_> = nodes.map(|(_, node)| (node.name, node.slots.clone())).collect();
            all.sort_by_key(|(name, _)| *name);
            all
        };
        let mut opinions = self.running().map(opinion);
        let Some(first) = opinions.next() else { return true };
        opinions.all(|other| other == first)
            && self.running().all(|server| {
                let me = server.machine.me();
                let primary = me.primary.map(|primary| server.machine.node(primary));
                me.is_primary() || primary.is_some_and(|primary| primary.is_primary() && !primary.slots.is_empty())
            })
    }
}

#[test]
fn nodes_that_meet_one_meet_all_and_agree() {
    let all = Simulation::create(1, 3, 1);
    assert!(all.agrees());
    let shards = all.servers[0].machine.shards();
    assert_eq!(shards.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_replica_takes_the_place_of_a_primary_that_has_died_and_that_one_comes_back_as_its_replica() {
    let mut all = Simulation::create(2, 3, 1);
    let slots = all.servers[1].machine.me().slots.clone();
    all.stop(1);
    let took =
        all.until(20_000, "the replica takes over", |all| all.servers[4].machine.me().slots.len() == slots.len());
    assert!(took >= TIMEOUT_MS / 2, "nobody is given up that soon: {took} ms");
    assert_eq!((all.servers[4].promotions, all.servers[4].copies), (1, None));
    all.until(20_000, "the cluster serves", Simulation::serves);
    all.start(1, 0);
    all.until(20_000, "the old primary becomes a replica", |all| all.servers[1].machine.me().is_replica());
    assert_eq!(all.servers[1].copies, Some(4));
    all.until(20_000, "everybody agrees", |all| all.agrees() && all.serves());
}

#[test]
fn among_two_replicas_the_one_with_more_data_takes_over() {
    for seed in 0..10 {
        let mut all = Simulation::create(100 + seed, 3, 2);
        all.stop(3);
        all.run(500);
        all.start(3, 0);
        all.run(3000);
        // What it did not read of its primary any more.
        all.cut.extend([(0, 3), (3, 0)]);
        all.run(1500);
        all.stop(0);
        all.cut.clear();
        all.until(30_000, "somebody takes over", |all| all.servers[3].promotions + all.servers[6].promotions > 0);
        assert_eq!(all.servers[6].promotions, 1, "seed {seed}");
    }
}

#[test]
fn a_minority_stops_to_serve_and_takes_nothing_over() {
    let mut all = Simulation::create(3, 3, 1);
    // A primary and the replica of another, alone.
    let few = [0, 4];
    for a in 0..6 {
        for b in 0..6 {
            if few.contains(&a) != few.contains(&b) {
                all.cut.insert((a, b));
            }
        }
    }
    all.until(20_000, "the minority is down", |all| few.iter().all(|server| all.servers[*server].machine.is_down()));
    all.until(20_000, "the majority has replaced the primary", |all| all.servers[3].machine.me().is_primary());
    assert_eq!(all.servers[4].promotions, 0);
    assert!(!all.servers[1].machine.is_down());
    all.cut.clear();
    all.until(30_000, "all is one again", |all| all.agrees() && all.serves());
    assert!(all.servers[0].machine.me().is_replica());
}

#[test]
fn a_manual_failover_loses_nothing_and_needs_no_failure() {
    let mut all = Simulation::create(4, 3, 1);
    all.run(5000);
    all.call(3, |machine| machine.fail_over(FailoverKind::Agreed)).expect("the test asks for what can be done");
    all.until(1000, "the primary holds back writes", |all| all.servers[0].pauses == 1);
    let took = all.until(5000, "it takes over", |all| all.servers[3].machine.me().is_primary());
    assert!(took < 2000, "{took} ms");
    all.until(5000, "the primary follows", |all| all.servers[0].machine.me().is_replica());
    assert_eq!(all.servers[0].paused_until, 0);
    all.until(20_000, "everybody agrees", |all| all.agrees() && all.serves());
}

#[test]
fn a_takeover_asks_nobody_and_forced_ones_ask_for_votes_only() {
    let mut all = Simulation::create(5, 3, 1);
    all.stop(0);
    all.call(3, |machine| machine.fail_over(FailoverKind::Takeover)).expect("the test asks for what can be done");
    assert!(all.servers[3].machine.me().is_primary());
    all.until(30_000, "others believe it", |all| all.agrees() && all.serves());
    all.call(4, |machine| machine.fail_over(FailoverKind::Forced)).expect("the test asks for what can be done");
    all.until(5000, "with votes", |all| all.servers[4].machine.me().is_primary());
    all.until(30_000, "others believe it", |all| all.agrees() && all.serves());
}

#[test]
fn a_replica_follows_its_primary_to_the_shard_that_has_its_last_slots() {
    let mut all = Simulation::create(8, 3, 1);
    // By itself it stays where it is.
    let mut stays = settings(7000);
    stays.replicas_migrate = false;
    all.call(3, |machine| machine.follow(stays));
    let from = all.servers[0].machine.me().slots.clone();
    let name = all.servers[0].machine.me().name.to_string();
    all.call(1, |machine| machine.take_over(&from, name.as_bytes())).expect("the test asks for what can be done");
    let to = all.servers[1].machine.my_key();
    all.until(20_000, "both copy the one who has the slots", |all| {
        let machine = &all.servers[1].machine;
        machine.nodes().filter(|(_, node)| node.primary == Some(to)).count() == 3
    });
    all.until(20_000, "everybody agrees", |all| all.agrees() && all.serves());
}

#[test]
fn a_replica_moves_to_a_primary_that_has_lost_its_own() {
    let mut all = Simulation::create(6, 3, 2);
    // Servers 3 and 6 copy the first.
    all.stop(3);
    all.stop(6);
    all.until(60_000, "a replica comes over", |all| {
        let first = all.servers[0].machine.my_key();
        let machine = &all.servers[0].machine;
        machine.nodes().any(|(_, node)| node.primary == Some(first) && !node.has_failed())
    });
    all.until(30_000, "everybody agrees", |all| all.agrees() && all.serves());
}

#[test]
fn a_slot_that_was_moved_is_believed_by_all() {
    let mut all = Simulation::create(7, 3, 1);
    let (from, to) = (all.name(0).to_string(), all.name(1).to_string());
    let slot = all.servers[0].machine.me().slots.iter().next().expect("the test asks for what can be done");
    all.call(1, |m| m.set_slot(slot, &SetSlot::Importing(from.clone().into()), 0))
        .expect("the test asks for what can be done");
    all.call(0, |m| m.set_slot(slot, &SetSlot::Migrating(to.clone().into()), 3))
        .expect("the test asks for what can be done");
    assert!(all.call(0, |m| m.set_slot(slot, &SetSlot::Node(to.clone().into()), 3)).is_err());
    all.call(1, |m| m.set_slot(slot, &SetSlot::Node(to.clone().into()), 3))
        .expect("the test asks for what can be done");
    all.call(0, |m| m.set_slot(slot, &SetSlot::Node(to.clone().into()), 0))
        .expect("the test asks for what can be done");
    all.until(20_000, "everybody knows", |all| {
        all.running().all(|s| s.machine.owner(slot).is_some_and(|owner| s.machine.node(owner).name.to_string() == to))
    });
    assert!(all.agrees());
}

/// What a server says of slots on their way.
fn open(all: &Simulation, server: usize) -> String {
    all.servers[server].machine.open_slots()
}

#[test]
fn a_slot_on_its_way_goes_on_between_those_who_come_to_lead() {
    let mut all = Simulation::create(12, 3, 1);
    let slot = all.servers[0].machine.me().slots.iter().next().expect("the test asks for what can be done");
    let names: Vec<String> = (0..6).map(|server| all.name(server).to_string()).collect();
    // As the stream of each primary tells its replica.
    for (server, to) in [(0, 1), (3, 1)] {
        let goes = SetSlot::Migrating(names[to].clone().into());
        all.call(server, |m| m.set_slot(slot, &goes, 0)).expect("the test asks for what can be done");
    }
    for (server, from) in [(1, 0), (4, 0)] {
        let comes = SetSlot::Importing(names[from].clone().into());
        all.call(server, |m| m.set_slot(slot, &comes, 0)).expect("the test asks for what can be done");
    }
    all.stop(1);
    let (goes, comes) =
        (|to: usize| format!("{slot}>{},", names[to]), |from: usize| format!("{slot}<{},", names[from]));
    all.until(30_000, "it goes to the one that took over", |all| [0, 3].iter().all(|at| open(all, *at) == goes(4)));
    assert_eq!(open(&all, 4), comes(0));
    all.start(1, 0);
    all.until(30_000, "everybody agrees", |all| all.agrees() && all.serves());
    assert_eq!(open(&all, 1), comes(0));
    all.stop(0);
    all.until(30_000, "it comes from the one that took over", |all| [1, 4].iter().all(|at| open(all, *at) == comes(3)));
    assert_eq!(open(&all, 3), goes(4));
    all.start(0, 0);
    all.until(30_000, "everybody agrees", |all| all.agrees() && all.serves());
    assert_eq!(open(&all, 0), goes(4));
    // The target never hears that it is the owner now.
    let there = SetSlot::Node(names[4].clone().into());
    all.call(3, |m| m.set_slot(slot, &there, 0)).expect("the test asks for what can be done");
    all.until(30_000, "it takes over what nobody claims", |all| {
        let owner =
            |server: &Server| server.machine.owner(slot).map(|owner| server.machine.node(owner).name.to_string());
        all.running().all(|server| owner(server).as_ref() == Some(&names[4]))
    });
    all.until(30_000, "nothing is on its way", |all| (0..6).all(|server| open(all, server).is_empty()));
    assert!(all.agrees());
}

#[test]
fn a_node_that_is_forgotten_by_one_is_forgotten_by_all() {
    let mut all = Simulation::create(8, 3, 1);
    all.stop(5);
    let gone = all.name(5).to_string();
    all.call(0, |machine| machine.forget(gone.as_bytes())).expect("the test asks for what can be done");
    all.until(20_000, "all forget it", |all| {
        all.running().all(|server| server.machine.find(gone.as_bytes()).is_none())
    });
}

#[test]
fn a_replica_of_old_data_stays_what_it_is() {
    let mut all = Simulation::create(9, 3, 1);
    all.cut.extend([(0, 3), (3, 0)]);
    all.run(TIMEOUT_MS * 11 + 10_000 + 5000);
    all.stop(0);
    all.cut.clear();
    all.run(30_000);
    assert_eq!(all.servers[3].promotions, 0);
    all.call(3, |machine| machine.fail_over(FailoverKind::Forced)).expect("the test asks for what can be done");
    all.until(20_000, "but it does what it is told", |all| all.servers[3].machine.me().is_primary());
}

/// One run of everything that can go wrong, then peace.
fn storm(seed: u64) {
    let mut all = Simulation::create(seed, 3, 1);
    let n = all.servers.len();
    let mut random = Random::seeded(seed.wrapping_mul(31));
    for _ in 0..12 {
        match random.below(7) {
            0 => {
                // Both ways, or one.
                let (a, b) = (random.below(n), random.below(n));
                all.cut.insert((a, b));
                if random.below(2) == 0 {
                    all.cut.insert((b, a));
                }
            }
            1 => all.cut.clear(),
            2 => {
                let alone = random.below(n);
                (0..n).for_each(|other| all.cut.extend([(alone, other), (other, alone)]));
            }
            3 => all.slowest_ms = 1 + random.below(300) as u64,
            4 => {
                let server = random.below(n);
                all.servers[server].skew_ms += random.below(20_000) as i64 - 10_000;
            }
            5 => {
                let server = random.below(n);
                if all.servers[server].runs {
                    all.stop(server);
                }
            }
            _ => {
                let server = random.below(n);
                if !all.servers[server].runs {
                    all.start(server, 0);
                }
            }
        }
        let ms = random.below(6000) as u64;
        all.run(ms);
    }
    all.cut.clear();
    all.slowest_ms = 5;
    for server in 0..n {
        if !all.servers[server].runs {
            all.start(server, 0);
        }
    }
    all.until(180_000, &format!("seed {seed}: all agree again"), |all| all.agrees() && all.serves());
    all.run(5000);
    all.check_claims();
}

#[test]
fn after_any_storm_all_agree_again() {
    let seeds = std::env::var("SPINEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    (0..seeds).for_each(|seed| storm(1000 + seed));
}

#[test]
fn bytes_of_no_meaning_change_nothing_that_matters() {
    let mut all = Simulation::create(10, 3, 0);
    let mut random = Random::seeded(77);
    let sample: Vec<u8> = {
        let mut bytes = vec![0; 2256];
        bytes[..8].copy_from_slice(b"RCmb\0\0\x08\xd0");
        bytes[9] = 1;
        bytes
    };
    for _ in 0..2000 {
        let mut bytes = sample.clone();
        bytes[13] = random.below(12) as u8;
        let name = all.name(random.below(3));
        bytes[40..80].copy_from_slice(&name.0);
        for _ in 0..random.below(20) {
            let at = 14 + random.below(bytes.len() - 14);
            bytes[at] = random.below(256) as u8;
        }
        let link = all.call(0, |machine| machine.accepted("10.9.9.9".into(), "10.0.0.1".into()));
        all.call(0, |machine| machine.received(link, &bytes));
        all.call(0, |machine| machine.closed(link));
    }
    assert!(all.servers[0].machine.me().flags.has(Flags::MYSELF));
}

/// How long a hundred nodes need to agree again after a partition, beside what the protocol promises: pings go to
/// everybody within half a timeout, failures are agreed on within two.
#[test]
#[ignore = "takes a minute: run by name"]
fn a_hundred_nodes_agree_again_after_a_partition() {
    let mut all = Simulation::create(11, 50, 1);
    for a in 0..100 {
        for b in 0..100 {
            if (a % 50 < 10) != (b % 50 < 10) {
                all.cut.insert((a, b));
            }
        }
    }
    all.run(TIMEOUT_MS * 6);
    all.cut.clear();
    let took = all.until(120_000, "all agree again", |all| all.agrees() && all.serves());
    println!("100 nodes agreed {took} ms after a partition; node timeout {TIMEOUT_MS} ms");
    assert!(took <= TIMEOUT_MS * 6 + 5000, "{took} ms");
}
