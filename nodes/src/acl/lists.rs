//! The access lists of an interface in one direction, compiled: one list behind the other, for both families, with and without ports.

use super::classifier::{Classifier, DIMENSIONS, Key, RuleBox, Shape, TooComplex};
use super::rule::{Action, Rule, Tuple};
use crate::wire::ip4::IpProtocol;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A rule, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// The rule.
    pub rule: Rule,
    /// Number of its list.
    pub acl: u32,
    /// Its number in the list.
    pub number: u32,
    /// Its counter.
    pub counter: u32,
}

/// A family's rules. Addresses of IPv6 are looked up by their rank among the bounds that the rules name, so that both families have the same
/// trees.
#[derive(Clone, Debug, Default)]
struct Family {
    src_ranks: Vec<u128>,
    dst_ranks: Vec<u128>,
    ports: Classifier,
    /// As packets without ports see the rules. `None` if that makes no difference.
    no_ports: Option<Classifier>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    rules: Vec<ListedRule>,
    ip4: Family,
    ip6: Family,
    reflects: bool,
    tcp_flags: u8,
    id: u64,
}

/// The next number of [`Lists::id`].
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What rules look at, as numbers. Cheaper than a [`Tuple`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields {
    /// Source address; IPv4's in the low 32 bits.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port or ICMP type.
    pub sport: u16,
    /// Destination port or ICMP code.
    pub dport: u16,
    /// The protocol.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Whether the ports were there to be read.
    pub has_ports: bool,
    /// Whether it is a fragment behind the first.
    pub is_later_fragment: bool,
    /// Identifier of an ICMP echo.
    pub icmp_id: u16,
}

impl Fields {
    /// Whether packets of a protocol start with two ports, or an ICMP type and code.
    #[inline(always)]
    pub fn protocol_has_ports(protocol: u8, is_v6: bool) -> bool {
        let protocol = IpProtocol(protocol);
        let icmp = if is_v6 { IpProtocol::ICMP6 } else { IpProtocol::ICMP };
        [IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP, icmp].contains(&protocol)
    }

    /// Whether it is ICMP of its family.
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.is_v6 { IpProtocol::ICMP6.0 } else { IpProtocol::ICMP.0 }
    }

    /// Whether it is an ICMP echo, request or reply.
    #[inline(always)]
    pub fn is_echo(&self) -> bool {
        let types = if self.is_v6 { [128, 129] } else { [8, 0] };
        self.is_icmp() && types.contains(&self.sport)
    }

    /// Whether it is an ICMP error that quotes a packet: destination unreachable, time exceeded, parameter problem (RFC 792, RFC 4443
    /// section 3), and IPv6's packet too big. A redirect is no error, and a source quench (RFC 6633) is not to be sent.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        let is_error =
            if self.is_v6 { (1..=4).contains(&self.sport) } else { [3, 11, 12].contains(&self.sport) };
        self.is_icmp() && self.has_ports && is_error
    }

    /// Whether it is an ICMP echo request.
    #[inline(always)]
    pub fn is_echo_request(&self) -> bool {
        self.is_icmp() && self.sport == if self.is_v6 { 128 } else { 8 }
    }
}

impl From<&Tuple> for Fields {
    fn from(t: &Tuple) -> Fields {
        let bits = |address| match address {
            IpAddr::V4(a) => u128::from(std::net::Ipv4Addr::to_bits(a)),
            IpAddr::V6(a) => a.to_bits(),
        };
        Fields {
            src: bits(t.src),
            dst: bits(t.dst),
            sport: t.sport,
            dport: t.dport,
            protocol: t.protocol.0,
            flags: t.flags.0,
            is_v6: t.src.is_ipv6(),
            has_ports: t.has_ports,
            ..Fields::default()
        }
    }
}

impl From<&Fields> for Tuple {
    fn from(f: &Fields) -> Tuple {
        let address = |bits: u128| match f.is_v6 {
            true => IpAddr::V6(bits.into()),
            false => IpAddr::V4((bits as u32).into()),
        };
        Tuple {
            src: address(f.src),
            dst: address(f.dst),
            protocol: IpProtocol(f.protocol),
            sport: f.sport,
            dport: f.dport,
            flags: crate::wire::tcp::TcpFlags(f.flags),
            has_ports: f.has_ports,
        }
    }
}

/// How many of the sorted `bounds` are at most `value`.
#[inline(always)]
fn rank(bounds: &[u128], value: u128) -> u32 {
    bounds.partition_point(|bound| *bound <= value) as u32
}

impl Family {
    fn new(rules: &[ListedRule], v6: bool) -> Result<Family, TooComplex> {
        let own: Vec<(u32, Rule)> = (rules.iter().enumerate())
            .filter(|(_, listed)| listed.rule.is_v6() == v6)
            .map(|(i, listed)| (i as u32, listed.rule.canonical()))
            .collect();
        let mut family = Family::default();
        if v6 {
            family.src_ranks = ranks(own.iter().map(|(_, rule)| rule.src.bounds()));
            family.dst_ranks = ranks(own.iter().map(|(_, rule)| rule.dst.bounds()));
        }
        let limit = |ranks: &[u128]| if v6 { ranks.len() as u32 } else { u32::MAX };
        let limits =
            [limit(&family.src_ranks), limit(&family.dst_ranks), u16::MAX.into(), u16::MAX.into(), 0xff];
        let compile = |rules: &[(u32, Rule)], others| {
            let boxes: Vec<RuleBox> = rules.iter().map(|(i, rule)| family.to_box(*i, rule)).collect();
            Classifier::new(&boxes, limits, others)
        };
        let bare: Vec<(u32, Rule)> = own.iter().map(|(i, rule)| (*i, rule.without_ports())).collect();
        let no_ports = if bare == own { None } else { Some(compile(&bare, 0)?) };
        // A fragment too takes at most twice the steps of a usual packet.
        let ports = compile(&own, no_ports.as_ref().map_or(0, |c| c.shape().worst))?;
        Ok(Family { ports, no_ports, ..family })
    }

    fn to_box(&self, number: u32, rule: &Rule) -> RuleBox {
        let protocol = u32::from(rule.protocol.0);
        let [src, dst] = [(rule.src, &self.src_ranks), (rule.dst, &self.dst_ranks)].map(|(prefix, ranks)| {
            let (first, last) = prefix.bounds();
            match prefix.is_v6() {
                true => (rank(ranks, first), rank(ranks, last)),
                false => (first as u32, last as u32),
            }
        });
        let protocols = if protocol == 0 { (0, 0xff) } else { (protocol, protocol) };
        let [sport, dport] = [rule.sport, rule.dport].map(|(first, last)| (first.into(), last.into()));
        let ranges: [(u32, u32); DIMENSIONS] = [src, dst, sport, dport, protocols];
        RuleBox {
            first: ranges.map(|r| r.0),
            last: ranges.map(|r| r.1),
            flags_mask: rule.tcp_mask.0,
            flags_value: rule.tcp_value.0,
            rule: number,
        }
    }

    /// The table that knows a packet's kind, and what it is looked up by there.
    #[inline(always)]
    fn table(&self, mut key: Key, f: &Fields) -> (&Classifier, Key) {
        match &self.no_ports {
            Some(no_ports) if !f.has_ports => {
                (key.values[2], key.values[3], key.flags) = (0, 0, 0);
                (no_ports, key)
            }
            _ => (&self.ports, key),
        }
    }
}

/// The sorted points at which a range begins, or has just ended.
fn ranks(ranges: impl Iterator<Item = (u128, u128)>) -> Vec<u128> {
    let ends = ranges.flat_map(|(first, last)| [Some(first), last.checked_add(1)]);
    let mut ranks: Vec<u128> = ends.flatten().filter(|end| *end != 0).collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

impl Lists {
    /// Compiles the rules of an interface's lists, in their order.
    ///
    /// # Errors
    /// When they are too many, or their compiled form is too large.
    pub fn new(rules: Vec<ListedRule>) -> Result<Lists, TooComplex> {
        if rules.len() > super::classifier::MAX_RULES {
            return Err(TooComplex::Rules(rules.len()));
        }
        let (ip4, ip6) = (Family::new(&rules, false)?, Family::new(&rules, true)?);
        let reflects = rules.iter().any(|listed| listed.rule.action == Action::Reflect);
        let tcp_flags = rules.iter().fold(0, |all, listed| all | listed.rule.canonical().tcp_mask.0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Lists { rules, ip4, ip6, reflects, tcp_flags, id })
    }

    /// A number that no other lists have, unless they are a copy.
    #[inline(always)]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The TCP flags that some rule looks at.
    #[inline(always)]
    pub(super) fn tcp_flags(&self) -> u8 {
        self.tcp_flags
    }

    /// The first rule that a packet matches.
    #[inline(always)]
    pub fn lookup(&self, f: &Fields) -> Option<&ListedRule> {
        self.rules.get(self.find(f) as usize)
    }

    #[inline(always)]
    fn table(&self, f: &Fields) -> (&Classifier, Key) {
        let [sport, dport, protocol] = [f.sport.into(), f.dport.into(), f.protocol.into()];
        let family = if f.is_v6 { &self.ip6 } else { &self.ip4 };
        let (src, dst) = match f.is_v6 {
            true => (rank(&family.src_ranks, f.src), rank(&family.dst_ranks, f.dst)),
            false => (f.src as u32, f.dst as u32),
        };
        let key = Key { values: [src, dst, sport, dport, protocol, 0, 0, 0], flags: f.flags };
        family.table(key, f)
    }

    /// The number of the first rule that a packet matches among [`Lists::rules`], or [`super::classifier::NONE`].
    #[inline(always)]
    pub(super) fn find(&self, f: &Fields) -> u32 {
        let (table, key) = self.table(f);
        table.lookup(&key)
    }

    /// Steps that the lookup of a packet takes, see [`Shape`].
    pub fn steps(&self, f: &Fields) -> usize {
        let (table, key) = self.table(f);
        table.steps(&key)
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[ListedRule] {
        &self.rules
    }

    /// Whether a rule opens sessions.
    pub fn reflects(&self) -> bool {
        self.reflects
    }

    /// The shape of the tables of IPv4 and IPv6: of packets with ports, but `worst` and `bytes` of all.
    pub fn shapes(&self) -> [Shape; 2] {
        [&self.ip4, &self.ip6].map(|family| {
            let mut shape = family.ports.shape();
            let no_ports = family.no_ports.as_ref().map(Classifier::shape).unwrap_or_default();
            shape.worst = shape.worst.max(no_ports.worst);
            shape.bytes +=
                no_ports.bytes + (family.src_ranks.len() + family.dst_ranks.len()) * size_of::<u128>();
            shape
        })
    }
}
