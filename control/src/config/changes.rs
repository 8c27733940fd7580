//! What changed since the journal was written last: only names at first, so that an operation costs next to nothing; what
//! has become of them is looked up once for many.

use super::document::*;
use super::words::{NeighbourWords, RouteWords, Text};
use crate::dataplane::Dataplane;
use crate::ip4::NeighbourState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::{Ip4Prefix, MacAddress};

/// An object of the document that an operation may have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Settings,
    Socket(u32),
    Table(u32),
    Domain(u32),
    Acl(u32),
    MacIp(u32),
    /// One of this name went. Another may have come since.
    Gone(String),
    Interface(SwIfIndex),
    Neighbour(SwIfIndex, Ipv4Addr),
    L2Fib(u32, MacAddress),
    ArpEntry(u32, Ipv4Addr),
    Route(u32, Ip4Prefix),
}

/// The objects that operations touched, while anybody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    on: bool,
    touched: BTreeSet<Object>,
}

impl Changes {
    pub(crate) fn set(&mut self, on: bool) {
        self.on = on;
        self.touched.clear();
    }

    #[inline]
    pub(crate) fn touch(&mut self, object: Object) {
        if self.on {
            self.touched.insert(object);
        }
    }

    /// How long it will take to record what was touched, about: who has a slice of time is to count it in.
    pub(crate) fn debt(&self) -> Duration {
        Duration::from_nanos(600) * self.touched.len() as u32
    }

    pub(crate) fn gone(&mut self, name: &str) {
        if self.on {
            self.touched.insert(Object::Gone(name.to_owned()));
        }
    }
}

/// What has become of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// What is said once for the daemon.
    Settings(Settings),
    /// An IPv4 table is there, or not.
    Table(u32, bool),
    /// A socket of memif.
    MemifSocket(u32, Option<MemifSocket>),
    /// A bridge domain.
    BridgeDomain(u32, Option<BridgeDomain>),
    /// An access list.
    Acl(u32, Option<Acl>),
    /// A MAC-IP list.
    MacipAcl(u32, Option<MacIpAcl>),
    /// An interface; with one that goes, go its neighbours.
    Interface(String, Option<Box<InterfaceConfig>>),
    /// A neighbour of an interface.
    Neighbor(String, Ipv4Addr, Option<Text<NeighbourWords>>),
    /// A MAC address of a bridge domain.
    L2fib(u32, Text<MacAddress>, Option<String>),
    /// An address that is answered for in a bridge domain.
    ArpEntry(u32, Ipv4Addr, Option<Text<MacAddress>>),
    /// A route of a table.
    Route(u32, Text<Ip4Prefix>, Option<Text<RouteWords>>),
}

fn put<K: Ord, V>(map: &mut std::collections::BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// As [`put`], in the inner map of `outer`, which is there only while it has something in it.
fn put_in<O: Ord + Clone, K: Ord, V>(
    map: &mut std::collections::BTreeMap<O, std::collections::BTreeMap<K, V>>,
    outer: O,
    key: K,
    value: Option<V>,
) {
    let inner = map.entry(outer.clone()).or_default();
    put(inner, key, value);
    if inner.is_empty() {
        map.remove(&outer);
    }
}

impl Document {
    /// Writes down what has become of an object.
    pub fn put(&mut self, change: Change) {
        match change {
            Change::Settings(settings) => self.settings = settings,
            Change::Table(table, there) => {
                self.tables.retain(|other| *other != table);
                if there {
                    let at = self.tables.partition_point(|other| *other < table);
                    self.tables.insert(at, table);
                }
            }
            Change::MemifSocket(id, socket) => put(&mut self.memif_socket, Text(id), socket),
            Change::BridgeDomain(id, domain) => put(&mut self.bridge_domain, Text(id), domain),
            Change::Acl(index, acl) => put(&mut self.acl, Text(index), acl),
            Change::MacipAcl(index, acl) => put(&mut self.macip_acl, Text(index), acl),
            Change::Interface(name, config) => {
                if config.is_none() {
                    self.neighbor.remove(&name);
                }
                put(&mut self.interface, name, config.map(|config| *config));
            }
            Change::Neighbor(name, address, entry) => put_in(&mut self.neighbor, name, address, entry),
            Change::L2fib(domain, mac, entry) => put_in(&mut self.l2fib, Text(domain), mac, entry),
            Change::ArpEntry(domain, address, mac) => put_in(&mut self.arp_entry, Text(domain), address, mac),
            Change::Route(table, prefix, route) => put_in(&mut self.route, Text(table), prefix, route),
        }
    }
}

impl Dataplane {
    /// What has become of all that was touched since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        if self.changes.touched.is_empty() {
            return Vec::new();
        }
        let touched = std::mem::take(&mut self.changes.touched);
        touched.into_iter().filter_map(|object| self.change(object)).collect()
    }

    fn change(&self, object: Object) -> Option<Change> {
        Some(match object {
            Object::Settings => Change::Settings(self.config_settings()),
            Object::Socket(id) => Change::MemifSocket(id, self.config_socket(id)),
            Object::Table(id) => Change::Table(id, id != 0 && self.fibs.contains_key(&id)),
            Object::Domain(id) => Change::BridgeDomain(id, self.config_domain(id)),
            Object::Acl(index) => Change::Acl(index, self.config_acl(index)),
            Object::MacIp(index) => Change::MacipAcl(index, self.config_macip(index)),
            Object::Gone(name) => Change::Interface(name, None),
            Object::Interface(index) => {
                let config = self.config_interface(index)?;
                Change::Interface(self.interface_name(index), Some(Box::new(config)))
            }
            Object::Neighbour(index, address) => {
                let name = self.interfaces.get(&index)?.name.clone();
                let entry = self.neighbours.get(index, address);
                let entry = entry.filter(|entry| entry.state == NeighbourState::Static);
                let words = |n: &crate::ip4::Neighbour| Text(NeighbourWords { mac: n.mac, in_fib: n.in_fib });
                Change::Neighbor(name, address, entry.map(words))
            }
            Object::L2Fib(domain, mac) => Change::L2fib(domain, Text(mac), self.config_mac(domain, mac)),
            Object::ArpEntry(domain, address) => {
                let mac = self.bridges.get(&domain).and_then(|domain| domain.arp.get(&address));
                Change::ArpEntry(domain, address, mac.copied().map(Text))
            }
            Object::Route(table, prefix) => {
                Change::Route(table, Text(prefix), self.config_route(table, prefix).map(Text))
            }
        })
    }
}
