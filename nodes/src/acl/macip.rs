//! `macip-acl`: who may send from which MAC and IP address (port security).
//!
//! Expects: a frame as the device received it, on arc `device-input`.
//! Hands on: to the next feature of the arc.
//! Drops: what no permit rule of the interface's list names. An ARP packet (RFC 826) is judged by its sender's addresses, which must be those of the
//! frame; of other protocols than IP and ARP, by the MAC address alone.
//! Reads: [`AclTables`].
//! CLI: `set acl-plugin macip acl`, `set acl-plugin macip interface`.

use super::rule::AclPrefix;
use super::tables::AclTables;
use crate::wire::arp::ArpPacket;
use crate::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use std::net::IpAddr;
use wharf_engine::counter::Combined;
use wharf_engine::{Cx, Disposition, NoNext, Node, PacketRef, TraceView, error_counters};
use zerocopy::FromBytes;

/// Rules of a list at most: they are asked one by one.
pub const MAX_MACIP_RULES: usize = 256;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacIpRule {
    /// Whether it lets frames pass.
    pub permit: bool,
    /// The source MAC address, in the bits of `mask`.
    pub mac: MacAddress,
    /// The bits that count.
    pub mask: MacAddress,
    /// The source IP address.
    pub prefix: AclPrefix,
}

/// As VPP prints it.
impl fmt::Display for MacIpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.permit { "permit" } else { "deny" };
        let family = if self.prefix.is_v6() { "ipv6" } else { "ipv4" };
        write!(f, "{family} {action} ip {} mac {} mask {}", self.prefix, self.mac, self.mask)
    }
}

impl MacIpRule {
    fn has_mac(&self, mac: MacAddress) -> bool {
        let mask = self.mask.to_u64();
        (mac.to_u64() ^ self.mac.to_u64()) & mask == 0
    }
}

/// A list, with the number of its first counter.
#[derive(Clone, Debug, Default)]
pub struct MacIpList {
    /// The rules, of which the first that matches counts.
    pub rules: Vec<MacIpRule>,
    /// The rules' counters follow one another from here.
    pub counter: u32,
}

impl MacIpList {
    /// Whether a frame from `mac` and `address` may pass, and the rule that says so.
    pub fn judge(&self, mac: MacAddress, address: Option<IpAddr>) -> (bool, Option<usize>) {
        let has_ip = |rule: &MacIpRule| address.is_none_or(|ip| rule.prefix.contains(ip));
        // A frame without an IP address passes if the MAC address is one of a permitted host.
        let counts = |rule: &MacIpRule| address.is_some() || rule.permit;
        let found = self.rules.iter().position(|r| counts(r) && r.has_mac(mac) && has_ip(r));
        (found.and_then(|i| self.rules.get(i)).is_some_and(|rule| rule.permit), found)
    }
}

/// See the module.
#[derive(Debug)]
pub struct MacIpAcl;

error_counters! {
    /// Why frames are dropped.
    pub enum Error {
        Denied => "MACIP ACL deny packets",
        Malformed => "malformed frame",
    }
}

impl Node for MacIpAcl {
    const NAME: &'static str = "macip-acl";
    type Meta = ();
    type Next = NoNext;
    type Error = Error;
    type Tables = AclTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let tables = cx.tables();
        let Some(list) = tables.interface(p.rx()).and_then(|i| i.macip.as_deref()) else {
            return Disposition::NextFeature;
        };
        let Some(&EthernetHeader { src, .. }) = p.try_header() else {
            return Disposition::Drop(Error::Malformed);
        };
        let Ok(address) = sender(p, src) else { return Disposition::Drop(Error::Malformed) };
        let (permit, rule) = list.judge(src, address);
        if let Some(rule) = rule {
            count(&tables.counters, cx, list.counter + rule as u32, p.len());
        }
        p.note(rule.map_or(0, |rule| rule as u64 + 1));
        match permit {
            true => Disposition::NextFeature,
            false => Disposition::Drop(Error::Denied),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match view.note() {
            0 => write!(f, "macip: no rule, next {}", view.next()),
            rule => write!(f, "macip: rule {}, next {}", rule - 1, view.next()),
        }
    }
}

fn count(counters: &Combined, cx: &Cx<'_, MacIpAcl>, index: u32, bytes: u16) {
    counters.add(cx.worker(), index, 1, bytes.into());
}

/// The IP address that a frame claims to be from, if it claims one.
fn sender(p: &PacketRef<'_>, src: MacAddress) -> Result<Option<IpAddr>, ()> {
    let (ethertype, at) = super::packet::payload(p);
    let data = p.data().get(at..).unwrap_or_default();
    match ethertype {
        EtherType::IP4 => {
            let (ip, _) = Ip4Header::ref_from_prefix(data).map_err(|_| ())?;
            Ok(Some(ip.src().into()))
        }
        EtherType::IP6 => {
            let bytes: [u8; 16] = data.get(8..24).and_then(|b| b.try_into().ok()).ok_or(())?;
            Ok(Some(IpAddr::from(bytes)))
        }
        EtherType::ARP => {
            let (arp, _) = ArpPacket::ref_from_prefix(data).map_err(|_| ())?;
            if arp.sender_mac != src {
                return Err(());
            }
            // RFC 5227 section 1.1: a probe has no sender address yet.
            Ok(Some(arp.sender_ip().into()).filter(|ip: &IpAddr| !ip.is_unspecified()))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_names_both_addresses() {
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let rule = |permit, address: [u8; 4], len| MacIpRule {
            permit,
            mac,
            mask: MacAddress::BROADCAST,
            prefix: AclPrefix::new(address.into(), len),
        };
        let list = MacIpList {
            rules: vec![rule(false, [10, 0, 0, 9], 32), rule(true, [10, 0, 0, 0], 24)],
            counter: 0,
        };
        let ip = |last| Some(IpAddr::from([10, 0, 0, last]));
        assert_eq!(list.judge(mac, ip(1)), (true, Some(1)));
        assert_eq!(list.judge(mac, ip(9)), (false, Some(0)));
        assert_eq!(list.judge(MacAddress::BROADCAST, ip(1)), (false, None));
        assert_eq!(list.judge(mac, Some([10, 0, 1, 1].into())), (false, None));
        assert_eq!(list.judge(mac, None), (true, Some(1)));
    }
}
