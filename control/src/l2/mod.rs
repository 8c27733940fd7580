//! Layer 2: bridge domains, their ports and MAC addresses, tag rewriting.

mod domain;
mod fib;
mod tags;

pub use domain::{BridgeDomainConfig, DomainFlag};
pub(crate) use fib::Macs;
pub use fib::{Flush, MacRow, MacSummary};
pub use tags::{TagOperation, VlanOperation};

use crate::dataplane::{Dataplane, OpError};
use crate::interface::InterfaceKind;
use std::collections::BTreeMap;
use wharf_engine::SwIfIndex;
use wharf_nodes::l2::{
    BridgeDomain, DEFAULT_PORT_LIMIT, L2Port, L2Tables, MAX_PORTS, MacEntry, Member, PortMode, TagRewrite,
    key, l2_flags,
};
use wharf_nodes::wire::MacAddress;

/// What a port is to its bridge domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortKind {
    /// One of many.
    #[default]
    Normal,
    /// The way to the router: a loopback.
    Bvi,
    /// Where frames to unknown addresses go.
    UuFwd,
}

/// What an interface does with the frames that it receives, as the operator set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum L2Mode {
    /// They go to the protocol of their EtherType.
    #[default]
    L3,
    /// They go out of another interface.
    Xconnect(SwIfIndex),
    /// They are bridged.
    Bridge {
        /// The domain's number, as the operator calls it.
        domain: u32,
        /// What the port is there.
        kind: PortKind,
        /// Its split-horizon group; 0 is none.
        shg: u8,
    },
}

impl L2Mode {
    /// Whether received frames are bridged or cross-connected. A BVI's are: those that it sends come back as received.
    pub fn is_l2(self) -> bool {
        self != L2Mode::L3
    }

    /// The router interface of a domain.
    pub fn is_bvi(self) -> bool {
        matches!(self, L2Mode::Bridge { kind: PortKind::Bvi, .. })
    }

    /// The bridge domain.
    pub fn domain(self) -> Option<u32> {
        match self {
            L2Mode::Bridge { domain, .. } => Some(domain),
            _ => None,
        }
    }
}

/// What an interface does in L2 mode, whichever mode it is in now.
#[derive(Clone, Copy, Debug)]
pub struct L2Settings {
    /// Addresses are learned from it.
    pub learn: bool,
    /// Its frames are forwarded to known addresses.
    pub forward: bool,
    /// Its frames are flooded.
    pub flood: bool,
    /// Addresses that it may teach.
    pub learn_limit: u32,
    /// What happens to VLAN tags.
    pub tag_rewrite: Option<TagOperation>,
}

impl Default for L2Settings {
    fn default() -> Self {
        L2Settings {
            learn: true,
            forward: true,
            flood: true,
            learn_limit: DEFAULT_PORT_LIMIT,
            tag_rewrite: None,
        }
    }
}

/// A switch of an interface in L2 mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2Switch {
    /// See [`L2Settings::learn`].
    Learn,
    /// See [`L2Settings::forward`].
    Forward,
    /// See [`L2Settings::flood`].
    Flood,
}

impl Dataplane {
    /// Sends what one interface receives out of another.
    pub fn set_xconnect(&mut self, index: SwIfIndex, peer: SwIfIndex) -> Result<(), OpError> {
        if index == peer {
            return OpError::parameter("peer", "an interface cannot be cross-connected to itself");
        }
        if self.record(peer)?.kind == InterfaceKind::Local {
            return OpError::parameter("peer", "local0 cannot be cross-connected");
        }
        for (end, parameter) in [(index, "interface"), (peer, "peer")] {
            if self.record(end)?.point_to_point {
                let name = self.interface_name(end);
                let why = format!("{name} is in IP mode: it has no frames to cross-connect");
                return OpError::parameter(parameter, why);
            }
        }
        self.check_no_addresses(index)?;
        self.set_mode(index, L2Mode::Xconnect(peer))
    }

    /// Gives an interface back to the L3 protocols.
    pub fn set_l3(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        self.set_mode(index, L2Mode::L3)
    }

    /// Puts an interface into a bridge domain, which is made if it is not there.
    pub fn set_bridge(
        &mut self,
        index: SwIfIndex,
        domain: u32,
        kind: PortKind,
        shg: u8,
    ) -> Result<(), OpError> {
        let record = self.record(index)?;
        let name = record.name.clone();
        if record.point_to_point {
            return OpError::parameter("interface", format!("{name} has no Ethernet frames to bridge"));
        }
        if record.kind == InterfaceKind::Loopback && kind != PortKind::Bvi {
            // What a loopback sends, it receives: a flooded frame would never end.
            return OpError::parameter("interface", format!("{name} is a loopback: it can only be a BVI"));
        }
        match kind {
            PortKind::Bvi if record.kind != InterfaceKind::Loopback => {
                return OpError::parameter(
                    "interface",
                    format!("{name} is not a loopback: it cannot be a BVI"),
                );
            }
            PortKind::Bvi => {
                let bvi = |m: L2Mode| m.is_bvi() && m.domain() == Some(domain);
                if let Some((_, other)) = self.interfaces.iter().find(|(i, r)| **i != index && bvi(r.mode)) {
                    return OpError::parameter(
                        "bd-id",
                        format!("bridge-domain {domain} has {} for a BVI", other.name),
                    );
                }
            }
            PortKind::Normal | PortKind::UuFwd => self.check_no_addresses(index)?,
        }
        if !self.bridges.contains_key(&domain) {
            self.create_bridge_domain(domain)?;
        }
        self.set_mode(index, L2Mode::Bridge { domain, kind, shg })
    }

    fn set_mode(&mut self, index: SwIfIndex, mode: L2Mode) -> Result<(), OpError> {
        let record = self.record_mut(index)?;
        let (old, mac) = (record.mode, record.mac);
        if old == mode {
            return Ok(());
        }
        // What is refused must come before anything changes.
        if let L2Mode::Bridge { domain, kind: PortKind::Bvi, .. } = mode {
            let number = self.domain(domain)?.index;
            self.macs()?
                .set(key(number, mac), MacEntry::bvi(index))
                .map_err(|e| OpError::Refused(e.to_string()))?;
        }
        self.record_mut(index)?.mode = mode;
        self.apply(index);
        if old.domain().is_some() && old.domain() != mode.domain() {
            self.flush_macs(Flush::Interface(index));
            if let (true, Some(domain)) = (mode.is_bvi(), mode.domain()) {
                self.add_mac(mac, domain, Some(index))?;
            }
        } else if old.is_bvi() && !mode.is_bvi() {
            self.forget_bvi(old, mac);
        }
        if !mode.is_l2() {
            self.record_mut(index)?.l2 = L2Settings::default();
            self.publish();
        }
        Ok(())
    }

    fn forget_bvi(&mut self, mode: L2Mode, mac: MacAddress) {
        if let Some(number) = mode.domain().and_then(|d| self.bridges.get(&d)).map(|d| d.index)
            && let Some(macs) = self.macs.table()
        {
            let _ = macs.remove(key(number, mac));
        }
    }

    /// The router interface of a domain has another MAC address.
    pub(crate) fn move_bvi(
        &mut self,
        index: SwIfIndex,
        mode: L2Mode,
        old: MacAddress,
        new: MacAddress,
    ) -> Result<(), OpError> {
        self.forget_bvi(mode, old);
        match mode.domain() {
            Some(domain) => self.add_mac(new, domain, Some(index)),
            None => Ok(()),
        }
    }

    /// Turns one of an interface's switches.
    pub fn set_l2_switch(&mut self, index: SwIfIndex, switch: L2Switch, on: bool) -> Result<(), OpError> {
        let settings = self.l2_settings(index)?;
        match switch {
            L2Switch::Learn => settings.learn = on,
            L2Switch::Forward => settings.forward = on,
            L2Switch::Flood => settings.flood = on,
        }
        self.publish();
        Ok(())
    }

    /// Sets how many addresses may be learned behind an interface.
    pub fn set_port_learn_limit(&mut self, index: SwIfIndex, limit: u32) -> Result<(), OpError> {
        self.l2_settings(index)?.learn_limit = limit;
        self.publish();
        Ok(())
    }

    /// Sets what happens to the VLAN tags of frames.
    pub fn set_tag_rewrite(
        &mut self,
        index: SwIfIndex,
        operation: Option<TagOperation>,
    ) -> Result<(), OpError> {
        let record = self.record(index)?;
        if let Some(operation) = operation {
            operation
                .compile(&record.named_tags())
                .map_err(|why| OpError::Refused(format!("{}: {why}", record.name)))?;
        }
        self.l2_settings(index)?.tag_rewrite = operation;
        self.publish();
        Ok(())
    }

    fn l2_settings(&mut self, index: SwIfIndex) -> Result<&mut L2Settings, OpError> {
        let record = self.record_mut(index)?;
        if !record.mode.is_l2() {
            let name = record.name.clone();
            return OpError::parameter("interface", format!("{name} is not in L2 mode"));
        }
        Ok(&mut record.l2)
    }

    /// What the nodes see of all this.
    pub(crate) fn l2_tables(&self) -> L2Tables {
        let count = self.interfaces.keys().last().map_or(0, |i| i.index() + 1);
        let mut tables = L2Tables {
            ports: vec![L2Port::default(); count],
            domains: Vec::new(),
            macs: self.macs.table().cloned(),
        };
        let mut numbers = BTreeMap::new();
        for (id, domain) in &self.bridges {
            let number = usize::from(domain.index);
            if tables.domains.len() <= number {
                tables.domains.resize(number + 1, BridgeDomain::default());
            }
            tables.domains[number].learn_limit = domain.learn_limit;
            tables.domains[number].arp = domain.arp.iter().map(|(ip, mac)| (*ip, *mac)).collect();
            numbers.insert(*id, (domain.index, domain.flags()));
        }
        for (index, record) in &self.interfaces {
            let (input, output) = match record.l2.tag_rewrite {
                Some(operation) => operation.compile(&record.named_tags()).unwrap_or_default(),
                None => (TagRewrite::default(), TagRewrite::default()),
            };
            let (acl, span) = (self.acl_features(*index), self.span_features(*index));
            let [input_features, output_features] = [acl[0] | span[0], acl[1] | span[1]];
            let learn_limit = record.l2.learn_limit;
            let mut port =
                L2Port { input, output, learn_limit, input_features, output_features, ..L2Port::default() };
            match record.mode {
                L2Mode::L3 => continue,
                L2Mode::Xconnect(peer) => (port.mode, port.peer) = (PortMode::Xconnect, peer),
                L2Mode::Bridge { domain, kind, shg } => {
                    let Some((number, flags)) = numbers.get(&domain) else { continue };
                    let allowed = [
                        (record.l2.learn && kind != PortKind::Bvi, l2_flags::LEARN),
                        (record.l2.forward, l2_flags::FORWARD),
                        (record.l2.flood, l2_flags::FLOOD | l2_flags::UU_FLOOD),
                        (true, l2_flags::ARP_TERM),
                    ];
                    let allowed = allowed.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
                    port.mode = PortMode::Bridge;
                    port.flags = flags & allowed;
                    (port.domain, port.shg, port.bvi) = (*number, shg, kind == PortKind::Bvi);
                    let there = &mut tables.domains[usize::from(*number)];
                    if kind == PortKind::UuFwd {
                        there.uu_fwd = Some(*index);
                    }
                    let bvi = kind == PortKind::Bvi;
                    there.members.push(Member { port: *index, shg, bvi, plain: port.is_plain_output() });
                }
            }
            tables.ports[index.index()] = port;
        }
        // Known at last is which ends do not send frames as they are.
        let rewrites: Vec<bool> = tables.ports.iter().map(|port| !port.is_plain_output()).collect();
        for port in &mut tables.ports {
            if port.mode == PortMode::Xconnect && rewrites.get(port.peer.index()) == Some(&true) {
                port.mode = PortMode::XconnectOutput;
            }
        }
        tables
    }
}

const _: () = assert!(MAX_PORTS >= crate::interface::MAX_INTERFACES as usize);
