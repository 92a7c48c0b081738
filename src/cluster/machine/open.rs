//! Slots that move key by key, for as long as that takes: what becomes of such a move where primaries are replaced, and
//! how a replica comes to know of it.
//!
//! What must stay true: a move is from shard to shard. Whoever leads a shard is the one at its end, and the replicas of
//! both know of it, so that whichever of them comes to lead can go on with it.

use std::fmt::Write;

use crate::cluster::machine::{Bumped, Machine};
use crate::cluster::node::{Flags, NAME_BYTES, Name, NodeKey};
use crate::keyspace::shard::SLOTS;
use crate::observe::log::notice;

/// Stands between slot and node where the slot comes from there.
const COMES: u8 = b'<';
/// Stands there where the slot goes to that node.
const GOES: u8 = b'>';

impl Machine {
    fn same_shard(&self, one: NodeKey, other: NodeKey) -> bool {
        self.node(one).shard == self.node(other).shard
    }

    /// A slot is about to be `owner`'s, who was not its owner. Where that is a failover, a move goes on with the new
    /// primary; else somebody wanted the slot there, and it is over.
    pub(super) fn follow_owner(&mut self, slot: usize, owner: NodeKey) {
        if self.migrating.contains_key(&slot) && !self.same_shard(self.me, owner) {
            self.migrating.remove(&slot);
            notice!("Slot {slot} is not migrated any more: it is {}'s now.", self.node(owner).name);
        }
        let Some(from) = self.importing.get(&slot).copied().filter(|from| *from != owner) else { return };
        if self.same_shard(from, owner) {
            self.importing.insert(slot, owner);
            notice!("Failover in the shard that slot {slot} comes from: it comes from {} now.", self.node(owner).name);
        } else {
            self.importing.remove(&slot);
            notice!("Slot {slot} is not imported any more: it is {}'s now.", self.node(owner).name);
        }
    }

    /// Has slots that are on their way to a node go to the one that leads its shard now, if that is `primary`.
    pub(super) fn follow_target(&mut self, primary: NodeKey, epoch: u64) {
        if primary == self.me {
            return;
        }
        let replaced = |to: &NodeKey| {
            let node = self.node(*to);
            *to != primary && self.same_shard(*to, primary) && (node.is_replica() || node.config_epoch < epoch)
        };
        let moved: Vec<usize> = self.migrating.iter().filter(|(_, to)| replaced(to)).map(|(slot, _)| *slot).collect();
        for slot in moved {
            self.migrating.insert(slot, primary);
            notice!("Failover in the shard that slot {slot} goes to: it goes to {} now.", self.node(primary).name);
            (self.todo.save, self.todo.sync, self.todo.state) = (true, true, true);
        }
    }

    /// Takes over a slot that this node imports from its owner, who does not claim it any more: the move was ended there,
    /// and here it was not heard of. Returns whether it is ours now.
    pub(super) fn claim_import(&mut self, slot: usize, owner: NodeKey) -> bool {
        if !self.me().is_primary() || self.importing.get(&slot) != Some(&owner) {
            return false;
        }
        notice!("Slot {slot}, which is imported from {}, is not claimed there any more.", self.node(owner).name);
        self.importing.remove(&slot);
        self.take_slot(slot);
        self.give_slot(slot, self.me);
        if let Bumped::Bumped(_) = self.bump_epoch() {
            notice!("configEpoch updated after importing slot {slot}");
        }
        (self.todo.save, self.todo.sync, self.todo.state) = (true, true, true);
        true
    }

    /// Goes where the last slot of this replica's primary went, once that one has given it away, or has failed.
    pub(super) fn follow_last(&mut self, is_given: bool) {
        let Some(slot) = self.gives_last else { return };
        let primary = self.me().primary.filter(|_| self.me().is_replica());
        if primary.is_none_or(|primary| !self.node(primary).slots.is_empty()) {
            self.gives_last = None;
            return;
        }
        if !is_given {
            return;
        }
        self.gives_last = None;
        let to = self.owners[slot].filter(|to| *to != self.me && self.node(*to).is_primary());
        if let Some(to) = to.filter(|_| self.settings.replicas_migrate) {
            self.follow_slots(to);
        }
    }

    /// The slots on their way as a data set for a replica tells of them: `slot<node,` for each that comes, then
    /// `slot>node,` for each that goes; empty where there is none.
    pub fn open_slots(&self) -> String {
        let mut text = String::new();
        for (slots, way) in [(&self.importing, COMES), (&self.migrating, GOES)] {
            for (slot, node) in slots {
                // Writing into a string does not fail.
                let _ = write!(text, "{slot}{}{},", char::from(way), self.node(*node).name);
            }
        }
        text
    }

    /// Takes over what the data set of this replica's primary says of slots on their way, in place of what was known.
    /// Returns false where it cannot be understood; nothing has changed then.
    pub fn follow_open_slots(&mut self, text: &[u8]) -> bool {
        let Some(open) = parse(text) else { return false };
        if self.me().is_primary() {
            return true;
        }
        let before = (std::mem::take(&mut self.migrating), std::mem::take(&mut self.importing));
        for (slot, way, name) in open {
            if self.is_forgotten(&name) {
                continue;
            }
            let known = self.names.contains_key(&name);
            let node = self.restore_node(name);
            if !known {
                // It will tell where it is.
                self.node_mut(node).flags.add(Flags::NO_ADDRESS);
            }
            if node != self.me {
                let slots = if way == GOES { &mut self.migrating } else { &mut self.importing };
                slots.insert(slot, node);
            }
        }
        if (&self.migrating, &self.importing) != (&before.0, &before.1) {
            (self.todo.save, self.todo.state) = (true, true);
        }
        true
    }
}

/// Slots, which way each goes, and where.
fn parse(text: &[u8]) -> Option<Vec<(usize, u8, Name)>> {
    let Some(all) = text.strip_suffix(b",") else { return text.is_empty().then(Vec::new) };
    let one = |entry: &[u8]| {
        let at = entry.iter().position(|byte| [COMES, GOES].contains(byte))?;
        let slot = std::str::from_utf8(&entry[..at]).ok()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        Some((slot, entry[at], Name::parse(&entry[at + 1..])?))
    };
    // No more than one of each way for a slot.
    if text.len() > SLOTS * 2 * (NAME_BYTES + "16383<,".len()) {
        return None;
    }
    all.split(|byte| *byte == b',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::file;
    use crate::cluster::machine::{Action, Replication, SetSlot, Settings};
    use crate::cluster::node::Way;
    use crate::config::table::Config;
    use crate::stdx::random::Random;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

    /// A replica of A, which serves the lower half; B serves the other.
    fn replica(open: &str) -> Machine {
        let text = format!(
            "{A} 127.0.0.1:7000@17000,,tls-port=0,shard-id={A} master - 0 0 3 connected 0-8191\n\
             {B} 127.0.0.1:7001@17001,,tls-port=0,shard-id={B} master - 0 0 4 connected 8192-16383\n\
             {C} 127.0.0.1:7002@17002,,tls-port=0,shard-id={A} myself,slave {A} 0 0 3 connected{open}\n\
             vars currentEpoch 4 lastVoteEpoch 0\n"
        );
        let settings = Settings::of(&Config::default(), 7002);
        let mut machine = file::load(&text, settings, Random::seeded(1), 0).unwrap().unwrap();
        machine.enter(1, Replication::default());
        machine.leave();
        machine
    }

    fn node(name: &str) -> SetSlot {
        SetSlot::Node(name.into())
    }

    #[test]
    fn a_replica_keeps_what_its_primary_begins_until_that_ends_it() {
        let mut machine = replica("");
        machine.set_slot(5, &SetSlot::Migrating(B.into()), 3).unwrap();
        machine.set_slot(9000, &SetSlot::Importing(B.into()), 0).unwrap();
        let open = format!(" [5->-{B}] [9000-<-{B}]");
        assert!(machine.line(machine.my_key(), Way::PLAIN).ends_with(&open));
        let saved = machine.leave().into_iter().any(|action| match action {
            Action::Save(text, _) => text.contains(&open),
            _ => false,
        });
        assert!(saved);
        machine.set_slot(5, &node(B), 0).unwrap();
        machine.set_slot(9000, &node(A), 0).unwrap();
        assert!(machine.open_slots().is_empty());
        let owner = |slot| machine.node(machine.owner(slot).unwrap()).name.to_string();
        assert_eq!((owner(5), owner(9000)), (B.to_owned(), A.to_owned()));
        assert!(
            machine.has_given(5, &node(B))
                && !machine.has_given(9000, &node(B))
                && !machine.has_given(5, &SetSlot::Stable)
        );
        assert_eq!(
            machine.node(machine.find(A.as_bytes()).unwrap()).config_epoch,
            3,
            "that is for the primary to raise"
        );
        machine.set_slot(6, &SetSlot::Migrating(B.into()), 0).unwrap();
        machine.set_slot(6, &SetSlot::Stable, 0).unwrap();
        assert!(machine.open_slots().is_empty());
        assert_eq!(
            machine.set_slot(6, &SetSlot::Migrating(C.into()), 0),
            Err("Target node is not a master".to_owned())
        );
    }

    #[test]
    fn whoever_comes_to_lead_goes_on_with_what_its_primary_began() {
        let open = format!(" [5->-{B}] [9000-<-{B}]");
        let mut machine = replica(&open);
        machine.fail_over(crate::cluster::machine::FailoverKind::Takeover).unwrap();
        assert!(machine.me().is_primary());
        assert!(machine.line(machine.my_key(), Way::PLAIN).ends_with(&format!(" 0-8191{open}")));
        // The primary that it replaced is its replica now, and comes to lead again.
        let old = machine.find(A.as_bytes()).unwrap();
        machine.become_replica(old);
        assert!(machine.line(machine.my_key(), Way::PLAIN).ends_with(&open));
        let other = machine.find(B.as_bytes()).unwrap();
        machine.become_replica(other);
        assert!(machine.open_slots().is_empty(), "these are another shard's");
    }

    #[test]
    fn a_replica_follows_its_shard_only_when_its_primary_has_gone_there() {
        let mut machine = replica("");
        for slot in 0..8192 {
            machine.set_slot(slot, &node(B), 0).unwrap();
        }
        let (old, new) = (machine.find(A.as_bytes()), machine.find(B.as_bytes()));
        machine.follow_last(false);
        assert_eq!(machine.me().primary, old);
        machine.follow_last(true);
        assert_eq!(machine.me().primary, new);
        assert!(machine.leave().contains(&Action::Replicate("127.0.0.1".into(), 7001)));
        // One that is to stay does.
        let mut machine = replica("");
        let stays = Settings { replicas_migrate: false, ..machine.settings().clone() };
        machine.follow(stays);
        (0..8192).for_each(|slot| machine.set_slot(slot, &node(B), 0).unwrap());
        machine.follow_last(true);
        assert_eq!(machine.me().primary, machine.find(A.as_bytes()));
    }

    #[test]
    fn a_data_set_tells_of_slots_on_their_way() {
        let mut machine = replica(&format!(" [5->-{B}] [6->-{B}] [9000-<-{B}]"));
        let text = machine.open_slots();
        assert_eq!(text, format!("9000<{B},5>{B},6>{B},"));
        let mut other = replica(&format!(" [1->-{B}]"));
        assert!(other.follow_open_slots(text.as_bytes()));
        assert_eq!(other.open_slots(), text);
        for bad in ["5", "5>", "16384>", "x>", "5>b,", "5="] {
            let bad = if bad.ends_with(',') { bad.to_owned() } else { format!("{bad}{B}") };
            assert!(!other.follow_open_slots(bad.as_bytes()), "{bad}");
        }
        assert!(!other.follow_open_slots(format!("16384>{B},").as_bytes()));
        assert!(!other.follow_open_slots(format!("5>{},", &B[1..]).as_bytes()));
        assert_eq!(other.open_slots(), text);
        assert!(other.follow_open_slots(b"") && other.open_slots().is_empty());
        // Of whom nothing is known yet.
        let stranger = "d".repeat(40);
        assert!(machine.follow_open_slots(format!("7>{stranger},").as_bytes()));
        assert!(
            machine.lines(Way::PLAIN).contains(&format!("{stranger} :0@0 noaddr - ")),
            "{}",
            machine.lines(Way::PLAIN)
        );
        assert!(machine.line(machine.my_key(), Way::PLAIN).ends_with(&format!("[7->-{stranger}]")));
    }
}
