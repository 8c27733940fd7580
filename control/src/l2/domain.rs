//! Bridge domains, as the operator set them.

use super::Flush;
use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wharf_nodes::l2::{DEFAULT_DOMAIN_LIMIT, DomainIndex, l2_flags};
use wharf_nodes::wire::MacAddress;

/// The largest number of a bridge domain: VPP's 24 bits.
const MAX_ID: u32 = (1 << 24) - 1;
/// Domains at most.
const MAX_DOMAINS: u16 = 4095;
/// Addresses that a domain answers ARP for at most.
const MAX_ARP: usize = 65_536;

/// A bridge domain.
#[derive(Clone, Debug)]
pub struct BridgeDomainConfig {
    /// Its number in the tables.
    pub index: DomainIndex,
    /// Addresses are learned.
    pub learn: bool,
    /// Frames to known addresses go there alone.
    pub forward: bool,
    /// Frames to unknown addresses are flooded.
    pub uu_flood: bool,
    /// Frames to groups are flooded.
    pub flood: bool,
    /// ARP requests are answered from `arp`.
    pub arp_term: bool,
    /// Minutes after which a learned address that was not seen is forgotten; 0 is never.
    pub mac_age: u8,
    /// Addresses that may be learned.
    pub learn_limit: u32,
    /// Who has which address.
    pub arp: BTreeMap<Ipv4Addr, MacAddress>,
    /// A text of the controller's.
    pub tag: String,
}

/// A switch of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainFlag {
    /// See [`BridgeDomainConfig::learn`].
    Learn,
    /// See [`BridgeDomainConfig::forward`].
    Forward,
    /// See [`BridgeDomainConfig::uu_flood`].
    UuFlood,
    /// See [`BridgeDomainConfig::flood`].
    Flood,
    /// See [`BridgeDomainConfig::arp_term`].
    ArpTerm,
}

impl BridgeDomainConfig {
    /// With what a new domain has: VPP's defaults, everything on but ARP termination and ageing.
    pub(crate) fn new(index: DomainIndex) -> BridgeDomainConfig {
        BridgeDomainConfig {
            index,
            learn: true,
            forward: true,
            uu_flood: true,
            flood: true,
            arp_term: false,
            mac_age: 0,
            learn_limit: DEFAULT_DOMAIN_LIMIT,
            arp: BTreeMap::new(),
            tag: String::new(),
        }
    }

    fn flag_mut(&mut self, flag: DomainFlag) -> &mut bool {
        match flag {
            DomainFlag::Learn => &mut self.learn,
            DomainFlag::Forward => &mut self.forward,
            DomainFlag::UuFlood => &mut self.uu_flood,
            DomainFlag::Flood => &mut self.flood,
            DomainFlag::ArpTerm => &mut self.arp_term,
        }
    }

    /// As the nodes see them, see [`l2_flags`].
    pub(crate) fn flags(&self) -> u8 {
        let all = [
            (self.learn, l2_flags::LEARN),
            (self.forward, l2_flags::FORWARD),
            (self.flood, l2_flags::FLOOD),
            (self.uu_flood, l2_flags::UU_FLOOD),
            (self.arp_term, l2_flags::ARP_TERM),
        ];
        all.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
    }
}

impl Dataplane {
    pub(crate) fn domain(&self, id: u32) -> Result<&BridgeDomainConfig, OpError> {
        match self.bridges.get(&id) {
            Some(domain) => Ok(domain),
            None => OpError::parameter("bd-id", format!("there is no bridge-domain {id}")),
        }
    }

    fn domain_mut(&mut self, id: u32) -> Result<&mut BridgeDomainConfig, OpError> {
        self.changes.touch(Object::Domain(id));
        match self.bridges.get_mut(&id) {
            Some(domain) => Ok(domain),
            None => OpError::parameter("bd-id", format!("there is no bridge-domain {id}")),
        }
    }

    /// Creates a domain with the defaults of [`BridgeDomainConfig`].
    pub fn create_bridge_domain(&mut self, id: u32) -> Result<(), OpError> {
        if id == 0 || id > MAX_ID {
            return OpError::parameter(
                "bd-id",
                format!("a bridge-domain's number is from 1 to {MAX_ID}, got {id}"),
            );
        }
        if self.bridges.contains_key(&id) {
            return OpError::parameter("bd-id", format!("there is a bridge-domain {id} already"));
        }
        let used = |n: &u16| self.bridges.values().any(|d| d.index == *n);
        let Some(index) = (1..=MAX_DOMAINS).find(|n| !used(n)) else {
            return OpError::refused(format!("there are {MAX_DOMAINS} bridge-domains already"));
        };
        self.macs()?;
        self.changes.touch(Object::Domain(id));
        self.bridges.insert(id, BridgeDomainConfig::new(index));
        self.publish();
        Ok(())
    }

    /// Deletes a domain without ports.
    pub fn delete_bridge_domain(&mut self, id: u32) -> Result<(), OpError> {
        self.domain(id)?;
        if let Some(port) = self.interfaces.values().find(|i| i.mode.domain() == Some(id)) {
            return OpError::parameter("bd-id", format!("bridge-domain {id} is in use by {}", port.name));
        }
        self.flush_macs(Flush::Domain(id));
        self.clear_arp_entries(id)?;
        self.bridges.remove(&id);
        self.publish();
        Ok(())
    }

    /// Turns one of a domain's switches.
    pub fn set_domain_flag(&mut self, id: u32, flag: DomainFlag, on: bool) -> Result<(), OpError> {
        *self.domain_mut(id)?.flag_mut(flag) = on;
        self.publish();
        Ok(())
    }

    /// Sets after how many minutes an unseen address is forgotten; 0 is never.
    pub fn set_mac_age(&mut self, id: u32, minutes: u8) -> Result<(), OpError> {
        self.domain_mut(id)?.mac_age = minutes;
        Ok(())
    }

    /// Attaches a text to a domain.
    pub fn set_domain_tag(&mut self, id: u32, tag: String) -> Result<(), OpError> {
        self.domain_mut(id)?.tag = tag;
        Ok(())
    }

    /// Sets how many addresses a domain may learn.
    pub fn set_domain_learn_limit(&mut self, id: u32, limit: u32) -> Result<(), OpError> {
        self.domain_mut(id)?.learn_limit = limit;
        self.publish();
        Ok(())
    }

    /// Says who has an address, or no longer does.
    pub fn set_arp_entry(
        &mut self,
        id: u32,
        address: Ipv4Addr,
        mac: Option<MacAddress>,
    ) -> Result<(), OpError> {
        if mac.is_some_and(|mac| mac.is_multicast() || mac.is_zero()) {
            return OpError::parameter("mac", "the address of a station is neither a group's nor zero");
        }
        self.changes.touch(Object::ArpEntry(id, address));
        let domain = self.domain_mut(id)?;
        match mac {
            Some(_) if domain.arp.len() >= MAX_ARP && !domain.arp.contains_key(&address) => {
                return OpError::refused(format!("bridge-domain {id} has {MAX_ARP} ARP entries already"));
            }
            Some(mac) => drop(domain.arp.insert(address, mac)),
            None if domain.arp.remove(&address).is_none() => {
                return OpError::parameter(
                    "ip4",
                    format!("bridge-domain {id} has no ARP entry for {address}"),
                );
            }
            None => {}
        }
        self.publish();
        Ok(())
    }

    /// Forgets who has which address.
    pub fn clear_arp_entries(&mut self, id: u32) -> Result<(), OpError> {
        let entries = std::mem::take(&mut self.domain_mut(id)?.arp);
        entries.into_keys().for_each(|address| self.changes.touch(Object::ArpEntry(id, address)));
        self.publish();
        Ok(())
    }
}
