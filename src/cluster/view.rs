//! What commands have to know of the cluster: a picture of it that is made anew when something changes, and read
//! without a lock.

use std::collections::BTreeMap;

use crate::cluster::machine::Machine;
use crate::cluster::node::{Address, ClientIps, Name, Node, Way};
use crate::cluster::slots::SlotSet;
use crate::config::choice::EndpointType;
use crate::keyspace::shard::SLOTS;

/// Where clients find a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What the node is called.
    pub name: Name,
    /// Where other nodes find it.
    pub address: Address,
    client_ips: ClientIps,
    /// The name that clients may resolve; empty for none.
    pub hostname: String,
}

impl Endpoint {
    fn of(node: &Node) -> Endpoint {
        Endpoint {
            name: node.name,
            address: node.address.clone(),
            client_ips: node.client_ips.clone(),
            hostname: node.hostname.clone(),
        }
    }

    /// The address that clients are told first who are connected so; empty where they are to take the one that they have.
    pub fn preferred(&self, kind: EndpointType, way: Way) -> &str {
        preferred(kind, self.client_ips.pick(way.family, &self.address.ip), &self.hostname)
    }
}

/// What clients are told of a node's address, as the configuration wants it.
pub fn preferred<'n>(kind: EndpointType, ip: &'n str, hostname: &'n str) -> &'n str {
    match kind {
        EndpointType::Ip => ip,
        EndpointType::Hostname if hostname.is_empty() => "?",
        EndpointType::Hostname => hostname,
        EndpointType::Unknown => "",
    }
}

/// A place in [`View::endpoint`]'s list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u16);

/// The cluster at one moment.
#[derive(Debug)]
pub struct View {
    /// Which picture this is.
    pub version: u64,
    /// Whether nobody is to be served.
    pub is_down: bool,
    /// Whether this node is a replica.
    pub is_replica: bool,
    /// This node's primary, if it is a replica and knows one.
    pub primary: Option<Place>,
    owners: Box<[Option<Place>]>,
    endpoints: Vec<Endpoint>,
    migrating: BTreeMap<u16, Place>,
    importing: BTreeMap<u16, Place>,
    held: SlotSet,
}

impl View {
    /// This node's own place.
    pub const MYSELF: Place = Place(0);

    /// What a node knows now.
    pub fn of(machine: &Machine) -> View {
        let mut endpoints = vec![Endpoint::of(machine.me())];
        let mut places = BTreeMap::from([(machine.my_key(), View::MYSELF)]);
        for (key, node) in machine.nodes().filter(|(key, _)| *key != machine.my_key()) {
            // A cluster has no more than some thousand nodes; those beyond are redirected to by others.
            if let Ok(place) = u16::try_from(endpoints.len()) {
                places.insert(key, Place(place));
                endpoints.push(Endpoint::of(node));
            }
        }
        let place = |key| places.get(&key).copied();
        let moves = |slots: &BTreeMap<usize, _>| {
            slots.iter().filter_map(|(slot, key)| Some((u16::try_from(*slot).ok()?, place(*key)?))).collect()
        };
        View {
            version: machine.version(),
            is_down: machine.is_down(),
            is_replica: machine.me().is_replica(),
            primary: machine.me().primary.and_then(place),
            owners: (0..SLOTS).map(|slot| machine.owner(slot).and_then(place)).collect(),
            migrating: moves(machine.migrating()),
            importing: moves(machine.importing()),
            held: machine.held().clone(),
            endpoints,
        }
    }

    /// Who serves a slot.
    #[inline]
    pub fn owner(&self, slot: u16) -> Option<Place> {
        self.owners[usize::from(slot)]
    }

    /// Where a slot of this node is on its way to.
    pub fn migrating(&self, slot: u16) -> Option<Place> {
        self.migrating.get(&slot).copied()
    }

    /// Whether a slot is on its way here.
    pub fn is_importing(&self, slot: u16) -> bool {
        self.importing.contains_key(&slot)
    }

    /// Whether any slot is on its way from here or to here.
    #[inline]
    pub fn is_in_motion(&self) -> bool {
        !self.migrating.is_empty() || !self.importing.is_empty()
    }

    /// Whether writes to any slot are held back.
    #[inline]
    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether writes to a slot are held back, for another node is about to take it over.
    #[inline]
    pub fn holds(&self, slot: u16) -> bool {
        self.held.has(slot.into())
    }

    /// Where the node of this name is; `None` where it is unknown.
    pub fn place_of(&self, name: &Name) -> Option<Place> {
        let at = self.endpoints.iter().position(|endpoint| endpoint.name == *name)?;
        u16::try_from(at).ok().map(Place)
    }

    /// Where a node is.
    pub fn endpoint(&self, place: Place) -> &Endpoint {
        &self.endpoints[usize::from(place.0)]
    }
}
