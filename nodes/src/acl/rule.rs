//! What an access list says, and the obvious way to ask it: rule by rule.
//!
//! Fragments, and packets without ports: a fragment behind the first has no header of the layer above, and protocols other than TCP, UDP, SCTP and
//! ICMP have no ports that could be read. Such a packet matches by addresses and protocol alone; what a rule says of ports, ICMP types and TCP
//! flags is taken as said of any. That is VPP's rule for fragments (`l4-match-nonfirst-fragment`).

use crate::wire::ip4::IpProtocol;
use crate::wire::tcp::TcpFlags;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is dropped.
    #[default]
    Deny,
    /// It goes on.
    Permit,
    /// It goes on, and so do the packets of its flow in both directions.
    Reflect,
}

/// VPP's words.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Deny => "deny",
            Action::Permit => "permit",
            Action::Reflect => "permit+reflect",
        })
    }
}

/// First and last address of a prefix; both of one family. The host bits are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclPrefix {
    address: IpAddr,
    len: u8,
}

impl AclPrefix {
    /// The first `len` bits of `address`; a length that is too great counts as that of a host.
    pub fn new(address: IpAddr, len: u8) -> AclPrefix {
        match address {
            IpAddr::V4(a) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                AclPrefix { address: Ipv4Addr::from_bits(a.to_bits() & mask).into(), len }
            }
            IpAddr::V6(a) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                AclPrefix { address: Ipv6Addr::from_bits(a.to_bits() & mask).into(), len }
            }
        }
    }

    /// All addresses of a family.
    pub fn any(v6: bool) -> AclPrefix {
        match v6 {
            true => AclPrefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            false => AclPrefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// Whether it is of IPv6.
    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that are fixed.
    #[expect(clippy::len_without_is_empty, reason = "a length in bits, not of a collection")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// First and last address as numbers, IPv4's in the low 32 bits.
    pub fn bounds(&self) -> (u128, u128) {
        match self.address {
            IpAddr::V4(a) => {
                let first = u128::from(a.to_bits());
                (first, first | u128::from(u32::MAX.checked_shr(self.len.into()).unwrap_or(0)))
            }
            IpAddr::V6(a) => (a.to_bits(), a.to_bits() | u128::MAX.checked_shr(self.len.into()).unwrap_or(0)),
        }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.bounds();
        let bits = match address {
            IpAddr::V4(a) => u128::from(a.to_bits()),
            IpAddr::V6(a) => a.to_bits(),
        };
        address.is_ipv6() == self.is_v6() && (first..=last).contains(&bits)
    }
}

impl fmt::Display for AclPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A rule. All its conditions must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The source, which also says of which family the rule is.
    pub src: AclPrefix,
    /// The destination, of the same family.
    pub dst: AclPrefix,
    /// The protocol; 0 is any.
    pub protocol: IpProtocol,
    /// Source ports, or ICMP types. Says nothing while the protocol is any.
    pub sport: (u16, u16),
    /// Destination ports, or ICMP codes. Says nothing while the protocol is any.
    pub dport: (u16, u16),
    /// The bits of a TCP segment's flags that must be as in `tcp_value`. Says nothing of other protocols.
    pub tcp_mask: TcpFlags,
    /// See there.
    pub tcp_value: TcpFlags,
}

/// All ports.
pub const ANY_PORT: (u16, u16) = (0, u16::MAX);

impl Rule {
    /// A rule for all packets of a family.
    pub fn all(action: Action, v6: bool) -> Rule {
        Rule {
            action,
            src: AclPrefix::any(v6),
            dst: AclPrefix::any(v6),
            protocol: IpProtocol(0),
            sport: ANY_PORT,
            dport: ANY_PORT,
            tcp_mask: TcpFlags(0),
            tcp_value: TcpFlags(0),
        }
    }

    /// Whether it is of IPv6.
    pub fn is_v6(&self) -> bool {
        self.src.is_v6()
    }

    /// The rule as packets without ports see it.
    pub fn without_ports(&self) -> Rule {
        let (tcp_mask, tcp_value) = (TcpFlags(0), TcpFlags(0));
        Rule { sport: ANY_PORT, dport: ANY_PORT, tcp_mask, tcp_value, ..self.canonical() }
    }

    /// With the parts that say nothing taken out.
    pub fn canonical(&self) -> Rule {
        let mut rule = *self;
        if rule.protocol.0 == 0 {
            (rule.sport, rule.dport) = (ANY_PORT, ANY_PORT);
        }
        if rule.protocol != IpProtocol::TCP {
            rule.tcp_mask = TcpFlags(0);
        }
        rule.tcp_value = TcpFlags(rule.tcp_value.0 & rule.tcp_mask.0);
        rule
    }

    /// Whether a packet matches.
    pub fn matches(&self, t: &Tuple) -> bool {
        let rule = if t.has_ports { self.canonical() } else { self.without_ports() };
        let within = |(first, last): (u16, u16), port: u16| (first..=last).contains(&port);
        rule.src.contains(t.src)
            && rule.dst.contains(t.dst)
            && (rule.protocol.0 == 0 || rule.protocol == t.protocol)
            && within(rule.sport, t.sport)
            && within(rule.dport, t.dport)
            && t.flags.0 & rule.tcp_mask.0 == rule.tcp_value.0
    }
}

/// As VPP's `show acl-plugin acl` has it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v6() { "ipv6" } else { "ipv4" };
        write!(f, "{family} {} src {} dst {} proto {}", self.action, self.src, self.dst, self.protocol.0)?;
        for (word, (first, last)) in [("sport", self.sport), ("dport", self.dport)] {
            match first == last {
                true => write!(f, " {word} {first}")?,
                false => write!(f, " {word} {first}-{last}")?,
            }
        }
        if self.tcp_mask.0 != 0 {
            write!(f, " tcpflags {} mask {}", self.tcp_value.0, self.tcp_mask.0)?;
        }
        Ok(())
    }
}

/// What of a packet rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// From whom.
    pub src: IpAddr,
    /// To whom, of the same family.
    pub dst: IpAddr,
    /// What it carries, behind extension headers.
    pub protocol: IpProtocol,
    /// Source port, or ICMP type; 0 without ports.
    pub sport: u16,
    /// Destination port, or ICMP code; 0 without ports.
    pub dport: u16,
    /// Flags of a TCP segment.
    pub flags: TcpFlags,
    /// Whether the ports were there to be read.
    pub has_ports: bool,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src {} dst {} proto {}", self.src, self.dst, self.protocol.0)?;
        if !self.has_ports {
            return f.write_str(" without ports");
        }
        write!(f, " sport {} dport {}", self.sport, self.dport)?;
        match self.protocol {
            IpProtocol::TCP => write!(f, " tcpflags {}", self.flags.0),
            _ => Ok(()),
        }
    }
}

/// The first rule that a packet matches. Slow and obvious: for explanations, and to hold the classifier against.
pub fn first_match(rules: &[Rule], t: &Tuple) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_in_vpps_words() {
        let mut rule = Rule::all(Action::Reflect, false);
        rule.src = AclPrefix::new([10, 1, 2, 3].into(), 8);
        (rule.protocol, rule.dport) = (IpProtocol::TCP, (80, 80));
        (rule.tcp_mask, rule.tcp_value) = (TcpFlags(18), TcpFlags(2));
        assert_eq!(
            rule.to_string(),
            "ipv4 permit+reflect src 10.0.0.0/8 dst 0.0.0.0/0 proto 6 sport 0-65535 dport 80 tcpflags 2 mask 18"
        );
    }

    #[test]
    fn without_ports_only_addresses_and_protocol_count() {
        let mut rule = Rule::all(Action::Permit, false);
        (rule.protocol, rule.dport, rule.tcp_mask) = (IpProtocol::TCP, (80, 80), TcpFlags::ACK);
        let mut t = Tuple {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            protocol: IpProtocol::TCP,
            sport: 0,
            dport: 0,
            flags: TcpFlags::ACK,
            has_ports: false,
        };
        assert!(rule.matches(&t));
        t.has_ports = true;
        assert!(!rule.matches(&t));
        t.dport = 80;
        assert!(!rule.matches(&t), "the mask wants ACK clear");
        t.flags = TcpFlags::SYN;
        assert!(rule.matches(&t));
        t.src = Ipv6Addr::LOCALHOST.into();
        assert!(!rule.matches(&t));
    }

    #[test]
    fn prefixes_of_all_lengths() {
        assert_eq!(AclPrefix::any(true).bounds(), (0, u128::MAX));
        assert_eq!(AclPrefix::any(false).bounds(), (0, u32::MAX.into()));
        assert_eq!(AclPrefix::new([1, 2, 3, 4].into(), 99).bounds(), (0x0102_0304, 0x0102_0304));
        let six = AclPrefix::new("fd00::5".parse().unwrap(), 64);
        assert!(six.contains("fd00::9".parse().unwrap()) && !six.contains("fd01::".parse().unwrap()));
    }
}
