//! Who has failed, and who takes its place.
//!
//! What must stay true: a primary gives one vote for an epoch, and has it on disk before it leaves; a replica takes
//! over only with the votes of most primaries that serve slots, or where an administrator says so.

use std::cmp::Reverse;

use crate::cluster::machine::{Action, Audience, Hindrance, Machine, Manual};
use crate::cluster::message::{Body, Header, Kind, Message};
use crate::cluster::node::{Flags, Node, NodeKey};
use crate::observe::log::{notice, warning};

/// How long the news of a failure may travel before a replica asks for votes, in milliseconds, and how much of chance
/// comes on top, so that replicas do not ask all at once.
const ELECTION_DELAY_MS: u64 = 500;
/// How much later a replica asks for each one that has more of the data, in milliseconds.
const RANK_DELAY_MS: u64 = 1000;
/// How much later it asks for each other primary that has failed and comes before its own, in milliseconds.
const FAILED_DELAY_MS: u64 = 500;
/// The least time that votes have to come in.
const ELECTION_LEAST_MS: u64 = 2000;
/// How often a replica says why it does not take over, in milliseconds.
const HINDRANCE_EVERY_MS: u64 = 10_000;
/// After how many timeouts a primary that answers again is taken back although nobody took its slots.
const UNDO_FACTOR: u64 = 2;

impl Machine {
    pub(super) fn set_failed(&mut self, key: NodeKey) {
        let now = self.now;
        let node = self.node_mut(key);
        node.flags.clear(Flags::SUSPECTED);
        node.flags.add(Flags::FAILED);
        node.failed_at = now;
        (self.todo.save, self.todo.state) = (true, true);
    }

    /// Whether a node is one of those that decide: a primary with slots.
    pub(super) fn has_a_say(&self, key: NodeKey) -> bool {
        let node = self.node(key);
        node.is_primary() && !node.slots.is_empty()
    }

    /// Takes a suspected node for failed where most primaries agree.
    pub(super) fn fail_if_agreed(&mut self, key: NodeKey) {
        let node = self.node(key);
        if !node.flags.has(Flags::SUSPECTED) || node.has_failed() {
            return;
        }
        let agree = self.count_reports(key) + usize::from(self.has_a_say(self.me));
        if agree < self.quorum() {
            return;
        }
        let node = self.node(key);
        notice!("Marking node {} ({}) as failing (quorum reached).", node.name, node.nick());
        let name = node.name;
        self.set_failed(key);
        // A replica may have been the first to count: whoever it is says so, for gossip may be too slow.
        let message = Message { kind: Kind::Fail, header: self.header(), body: Body::Fail(name) };
        self.broadcast(&message);
    }

    /// Takes back a node that answers again, where nobody is in its place.
    pub(super) fn clear_failure(&mut self, key: NodeKey) {
        let node = self.node(key);
        let since = self.now.saturating_sub(node.failed_at);
        if node.is_replica() || node.slots.is_empty() {
            let role = if node.is_replica() { "replica" } else { "master without slots" };
            notice!("Clear FAIL state for node {} ({}):{role} is reachable again.", node.name, node.nick());
        } else if since > self.settings.node_timeout_ms * UNDO_FACTOR {
            notice!(
                "Clear FAIL state for node {} ({}): is reachable again and nobody is serving its slots after some time.",
                node.name,
                node.nick()
            );
        } else {
            return;
        }
        self.node_mut(key).flags.clear(Flags::FAILED);
        (self.todo.save, self.todo.state) = (true, true);
    }

    /// A replica asks for a vote.
    pub(super) fn asked_for_vote(&mut self, replica: NodeKey, request: &Header) {
        if self.me().is_replica() || self.me().slots.is_empty() {
            return;
        }
        let Err(why) = self.may_vote(replica, request) else {
            self.last_vote_epoch = self.current_epoch;
            (self.todo.save, self.todo.sync) = (true, true);
            let now = self.now;
            if let Some(primary) = self.node(replica).primary {
                self.node_mut(primary).voted_at = now;
            }
            if let Some(link) = self.node(replica).link {
                self.send(link, Kind::AuthAck, Body::Empty);
            }
            let node = self.node(replica);
            notice!("Failover auth granted to {} ({}) for epoch {}", node.name, node.nick(), self.current_epoch);
            return;
        };
        let node = self.node(replica);
        warning!("Failover auth denied to {} ({}): {why}", node.name, node.nick());
    }

    fn may_vote(&self, replica: NodeKey, request: &Header) -> Result<(), String> {
        if request.current_epoch < self.current_epoch {
            return Err(format!("reqEpoch ({}) < curEpoch({})", request.current_epoch, self.current_epoch));
        }
        if self.last_vote_epoch == self.current_epoch {
            return Err(format!("already voted for epoch {}", self.current_epoch));
        }
        let node = self.node(replica);
        if node.is_primary() {
            return Err("it is a master node".into());
        }
        let Some(primary) = node.primary.map(|primary| self.node(primary)) else {
            return Err("I don't know its master".into());
        };
        if !primary.has_failed() && !request.forced {
            return Err("its master is up".into());
        }
        let pause = self.settings.node_timeout_ms * 2;
        let since = self.now.saturating_sub(primary.voted_at);
        if since < pause {
            return Err(format!("can't vote about this master before {} milliseconds", pause - since));
        }
        if let Some((slot, owner)) = self.newer_owner(&request.slots, request.config_epoch, None) {
            let epoch = self.node(owner).config_epoch;
            return Err(format!("slot {slot} epoch ({epoch}) > reqEpoch ({})", request.config_epoch));
        }
        Ok(())
    }

    /// How many replicas of the same primary have more of its data. Of those that have as much, names decide: two that
    /// ask for votes at the same time may both get too few.
    fn rank(&self) -> usize {
        let Some(primary) = self.me().primary else { return 0 };
        let mine = (self.offset(), Reverse(self.me().name));
        let better = |key: &&NodeKey| {
            let node = self.node(**key);
            let theirs = (node.offset, Reverse(node.name));
            **key != self.me && !node.flags.has(Flags::NO_FAILOVER) && theirs > mine
        };
        self.node(primary).replicas.iter().filter(better).count()
    }

    /// How many other primaries have failed whose replicas ask for votes before this one does: in one epoch there is one
    /// vote for all of them.
    fn failed_before(&self) -> usize {
        let shard = self.me().shard;
        let before =
            |node: &&Node| node.is_primary() && node.has_failed() && !node.slots.is_empty() && node.shard < shard;
        self.nodes.values().filter(before).count()
    }

    /// Takes over from a primary that has failed, one step at a time.
    pub(super) fn look_at_election(&mut self) {
        self.todo.election = false;
        let manual = self.manual.until != 0 && self.manual.can_start;
        let primary = self.me().primary.filter(|_| self.me().is_replica());
        let Some(primary) = primary.map(|primary| self.node(primary)).filter(|primary| {
            let may = manual || primary.has_failed() && !self.settings.never_fails_over;
            may && !primary.slots.is_empty()
        }) else {
            self.election.hindrance = Hindrance::None;
            return;
        };
        let failed_at = primary.failed_at;
        let has_failed = primary.has_failed();
        let hinder = |machine: &mut Machine, why| machine.note_hindrance(why, has_failed.then_some(failed_at));
        let Self { settings, replication, now, .. } = self;
        let now = *now;
        // That it heard nothing while the primary was down is no fault of the replica.
        let age = match replication.silent_ms {
            age if age > settings.node_timeout_ms => age - settings.node_timeout_ms,
            age => age,
        };
        let oldest = settings
            .node_timeout_ms
            .saturating_mul(settings.validity_factor)
            .saturating_add(settings.replication_ping_ms);
        if settings.validity_factor != 0 && age > oldest && !manual {
            return hinder(self, Hindrance::DataAge);
        }
        let patience = (settings.node_timeout_ms * 2).max(ELECTION_LEAST_MS);
        let since = now.saturating_sub(self.election.at);
        if since > patience * 2 {
            return self.schedule_election();
        }
        if !self.election.sent && self.manual.until == 0 {
            let rank = self.rank();
            if rank > self.election.rank {
                let added = (rank - self.election.rank) as u64 * RANK_DELAY_MS;
                self.election.at += added;
                self.election.rank = rank;
                notice!("Replica rank updated to #{rank}, added {added} milliseconds of delay.");
            }
        }
        if now < self.election.at {
            return hinder(self, Hindrance::Delay);
        }
        if since > patience {
            return hinder(self, Hindrance::Expired);
        }
        if !self.election.sent {
            self.current_epoch += 1;
            self.election.epoch = self.current_epoch;
            notice!("Starting a failover election for epoch {}.", self.current_epoch);
            let header = Header { forced: self.manual.until != 0, ..self.header() };
            self.broadcast(&Message { kind: Kind::AuthRequest, header, body: Body::Empty });
            self.election.sent = true;
            (self.todo.save, self.todo.sync, self.todo.state) = (true, true, true);
        } else if self.election.votes >= self.quorum() {
            notice!("Failover election won: I'm the new master.");
            let epoch = self.election.epoch;
            if self.me().config_epoch < epoch {
                self.me_mut().config_epoch = epoch;
                notice!("configEpoch set to {epoch} after successful failover");
            }
            self.replace_primary();
        } else {
            hinder(self, Hindrance::Votes);
        }
    }

    fn schedule_election(&mut self) {
        let rank = if self.manual.until != 0 { 0 } else { self.rank() };
        let chance = self.random.below(ELECTION_DELAY_MS as usize) as u64;
        let delay = match self.manual.until {
            0 => {
                let others = self.failed_before() as u64 * FAILED_DELAY_MS;
                ELECTION_DELAY_MS + chance + rank as u64 * RANK_DELAY_MS + others
            }
            _ => 0,
        };
        self.election.at = self.now + delay;
        (self.election.rank, self.election.votes, self.election.sent) = (rank, 0, false);
        self.todo.election = self.manual.until != 0;
        notice!("Start of election delayed for {delay} milliseconds (rank #{rank}, offset {}).", self.offset());
        // Those that have less of the data are to know it.
        self.broadcast_pong(Audience::Siblings);
        if self.todo.election {
            self.look_at_election();
        }
    }

    /// Logs why this replica does not take over, not too often.
    fn note_hindrance(&mut self, why: Hindrance, failed_at: Option<u64>) {
        let since = self.now.saturating_sub(self.election.logged_at);
        if why == self.election.hindrance && since < HINDRANCE_EVERY_MS {
            return;
        }
        self.election.hindrance = why;
        let soon = self.settings.node_timeout_ms + 5000;
        if failed_at.is_some_and(|at| self.now.saturating_sub(at) < soon) {
            return;
        }
        self.election.logged_at = self.now;
        let text = match why {
            Hindrance::None => return,
            Hindrance::DataAge => {
                "Disconnected from master for longer than allowed. Please check the 'cluster-replica-validity-factor' configuration option."
            }
            Hindrance::Delay => "Waiting the delay before I can start a new failover.",
            Hindrance::Expired => "Failover attempt expired.",
            Hindrance::Votes => "Waiting for votes, but majority still not reached.",
        };
        notice!("Currently unable to failover: {text}");
        if matches!(why, Hindrance::Votes | Hindrance::Expired) {
            notice!("Needed quorum: {}. Number of votes received so far: {}", self.quorum(), self.election.votes);
        }
    }

    /// Takes the place of the primary: its slots, and its role.
    pub(super) fn replace_primary(&mut self) {
        let Some(old) = self.me().primary.filter(|_| self.me().is_replica()) else { return };
        self.make_primary(self.me);
        self.actions.push(Action::Promote);
        let slots: Vec<usize> = self.node(old).slots.iter().collect();
        for slot in slots {
            self.take_slot(slot);
            self.give_slot(slot, self.me);
        }
        // The channels of these slots stay where they are: on this node.
        self.lost_channels = Default::default();
        self.look_at_state();
        (self.todo.save, self.todo.sync) = (true, true);
        self.tell_everybody();
        self.end_manual_failover();
    }

    /// A replica that has read what its primary wrote before it stood still need wait no longer.
    pub(super) fn look_at_manual_failover(&mut self) {
        self.todo.manual = false;
        if self.manual.until == 0 || self.manual.can_start {
            return;
        }
        if self.manual.primary_offset.is_some_and(|offset| self.offset() >= offset) {
            self.manual.can_start = true;
            self.todo.election = true;
            notice!("All master replication stream processed, manual failover can start.");
        }
    }

    /// Forgets a manual failover, be it over or given up.
    pub(super) fn end_manual_failover(&mut self) {
        if std::mem::take(&mut self.manual).replica.is_some() {
            self.actions.push(Action::Resume);
        }
        self.manual = Manual::default();
    }
}
