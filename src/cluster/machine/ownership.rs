//! Which node serves which slot, and whether the cluster serves anybody.

use crate::cluster::machine::{Action, Machine};
use crate::cluster::node::{Flags, NodeKey};
use crate::cluster::slots::SlotSet;
use crate::keyspace::shard::SLOTS;
use crate::observe::log::{notice, warning};

/// For how long a primary that was started serves nobody, so that it hears of what it has missed.
const WRITABLE_DELAY_MS: u64 = 2000;
/// The bounds of how long a primary serves nobody that was in a minority.
const REJOIN_DELAY_MS: std::ops::RangeInclusive<u64> = 500..=5000;

impl Machine {
    /// Gives a slot that nobody serves to a node.
    pub(super) fn give_slot(&mut self, slot: usize, to: NodeKey) {
        assert!(self.owners[slot].is_none(), "a slot has one owner");
        self.owners[slot] = Some(to);
        let replicas_exist = || self.nodes.values().any(|node| !node.is_replica() && !node.replicas.is_empty());
        let is_target = self.node(to).slots.is_empty() && replicas_exist();
        let node = self.node_mut(to);
        node.slots.add(slot);
        if is_target {
            // Where primaries have replicas at all, one with its first slot may have some of them.
            node.flags.add(Flags::MIGRATE_TO);
        }
    }

    /// Takes a slot from whoever serves it.
    pub(super) fn take_slot(&mut self, slot: usize) {
        if let Some(owner) = self.owners[slot].take() {
            self.node_mut(owner).slots.remove(slot);
            self.unclaimed.remove(slot);
            self.held.remove(slot);
            self.lost_channels.add(slot);
        }
    }

    /// Takes all slots of a node.
    pub(super) fn take_slots_of(&mut self, key: NodeKey) {
        let slots: Vec<usize> = self.node(key).slots.iter().collect();
        slots.into_iter().for_each(|slot| self.take_slot(slot));
    }

    /// Whether nobody claims a slot any more.
    pub(super) fn is_free(&self, slot: usize) -> bool {
        self.owners[slot].is_none() || self.unclaimed.has(slot)
    }

    fn epoch_of(&self, slot: usize) -> u64 {
        self.owners[slot].map_or(0, |owner| self.node(owner).config_epoch)
    }

    /// The first of these slots that somebody serves with a later epoch; `but` is not asked about.
    pub(super) fn newer_owner(&self, slots: &SlotSet, epoch: u64, but: Option<NodeKey>) -> Option<(usize, NodeKey)> {
        let newer = |slot: &usize| self.owners[*slot] != but && !self.is_free(*slot) && self.epoch_of(*slot) > epoch;
        let slot = slots.iter().find(newer)?;
        Some((slot, self.owners[slot]?))
    }

    /// Takes over what a primary says about the slots that it serves, with its epoch.
    pub(super) fn follow_claim(&mut self, claimer: NodeKey, epoch: u64, slots: &SlotSet) {
        if claimer == self.me {
            notice!("Discarding UPDATE message about myself.");
            return;
        }
        // Ourselves, or whom we copy: where that loses all its slots, so do we.
        let ours = if self.me().is_primary() { Some(self.me) } else { self.me().primary };
        let (mut lost, mut dirty) = (0, SlotSet::default());
        for slot in 0..SLOTS {
            let owner = self.owners[slot];
            if !slots.has(slot) {
                if owner == Some(claimer) && !self.claim_import(slot, claimer) {
                    // It stays with him until somebody else wants it: a redirection too many is better than an error.
                    self.unclaimed.add(slot);
                }
                continue;
            }
            if owner == Some(claimer) {
                self.unclaimed.remove(slot);
                continue;
            }
            if !self.is_free(slot) && self.epoch_of(slot) >= epoch {
                continue;
            }
            self.follow_owner(slot, claimer);
            if owner == Some(self.me) {
                dirty.add(slot);
            }
            lost += usize::from(owner.is_some() && owner == ours);
            self.take_slot(slot);
            self.give_slot(slot, claimer);
            (self.todo.save, self.todo.sync, self.todo.state) = (true, true, true);
        }
        let left = ours.map_or(0, |ours| self.node(ours).slots.len());
        let above = self.me().primary.and_then(|primary| self.node(primary).primary);
        if lost > 0 && left == 0 && (self.settings.replicas_migrate || slots.len() == lost) {
            self.follow_slots(claimer);
        } else if let Some(above) = above.filter(|above| *above != self.me) {
            self.follow_above(above);
        } else {
            if lost > 0 && left == 0 && self.me().is_primary() {
                self.tell_empty(claimer);
            }
            if !dirty.is_empty() {
                self.actions.push(Action::DropKeys(dirty));
            }
        }
    }

    /// Copies the node that has the last slots of this one, or of the one that it copies.
    pub(super) fn follow_slots(&mut self, to: NodeKey) {
        let node = self.node(to);
        notice!("Configuration change detected. Reconfiguring myself as a replica of {} ({})", node.name, node.nick());
        self.become_replica(to);
    }

    /// Says that this primary has no slots any more, the last of which is another's.
    pub(super) fn tell_empty(&self, to: NodeKey) {
        let node = self.node(to);
        notice!(
            "My last slot was migrated to node {} ({}) in shard {}. I am now an empty primary.",
            node.name,
            node.nick(),
            node.shard
        );
    }

    /// Looks whether the cluster serves clients, as far as this node can tell.
    pub(super) fn look_at_state(&mut self) {
        self.todo.state = false;
        self.version += 1;
        let first = *self.first_look.get_or_insert(self.now);
        let voters = self.nodes.values().filter(|node| node.is_primary() && !node.slots.is_empty());
        let (mut size, mut reached) = (0, 0);
        for node in voters {
            size += 1;
            reached += usize::from(!node.flags.has(Flags::FAILED.with(Flags::SUSPECTED)));
        }
        if self.me().is_primary() && self.is_down && self.now.saturating_sub(first) < WRITABLE_DELAY_MS {
            return;
        }
        self.size = size;
        let served = |owner: &Option<NodeKey>| owner.is_some_and(|owner| !self.node(owner).has_failed());
        let mut down = self.settings.needs_all_slots && !self.owners.iter().all(served);
        if reached < self.quorum() {
            down = true;
            self.minority_at = Some(self.now);
        }
        if down == self.is_down {
            return;
        }
        let delay = self.settings.node_timeout_ms.clamp(*REJOIN_DELAY_MS.start(), *REJOIN_DELAY_MS.end());
        let rejoins = self.minority_at.is_some_and(|at| self.now.saturating_sub(at) < delay);
        if !down && self.me().is_primary() && rejoins {
            return;
        }
        if down {
            warning!("Cluster state changed: fail");
        } else {
            notice!("Cluster state changed: ok");
        }
        self.is_down = down;
    }

    /// Compares the slots that have keys with those that this node serves: takes over those that nobody serves, and
    /// has the keys of others removed, which are what is left of slots that moved away, or never came here as a whole.
    pub fn account_for_keys(&mut self, filled: impl Iterator<Item = usize>) {
        if self.me().is_replica() {
            return;
        }
        let mut dirty = SlotSet::default();
        for slot in filled {
            match self.owners[slot] {
                Some(owner) if owner == self.me => {}
                _ if self.importing.contains_key(&slot) => {}
                None => {
                    notice!("I have keys for unassigned slot {slot}. Taking responsibility for it.");
                    self.give_slot(slot, self.me);
                    (self.todo.save, self.todo.state) = (true, true);
                }
                Some(_) => {
                    notice!(
                        "I have keys for slot {slot}, but the slot is assigned to another node. Deleting keys in the slot."
                    );
                    dirty.add(slot);
                }
            }
        }
        if !dirty.is_empty() {
            self.actions.push(Action::DropKeys(dirty));
        }
    }
}
