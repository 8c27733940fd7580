//! A router with policy, and packets for it.

use crate::common::{self, Router};
use std::net::IpAddr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::counter::Combined;
use wharf_nodes::acl::rule::ANY_PORT;
use wharf_nodes::acl::sessions::SessionTable;
use wharf_nodes::acl::{
    AclPrefix, AclTables, Action, Direction, InterfaceAcl, ListedRule, Lists, Rule, Side, Tuple,
};
use wharf_nodes::l2::{L2Tables, PortMode};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

pub(crate) const FEATURES: [(&str, &str, Direction); 8] = [
    ("ip4-unicast", "acl-plugin-in-ip4-fa", Direction::Input),
    ("ip4-output", "acl-plugin-out-ip4-fa", Direction::Output),
    ("l2-input-ip4", "acl-plugin-in-ip4-l2", Direction::Input),
    ("l2-output-ip4", "acl-plugin-out-ip4-l2", Direction::Output),
    ("l2-input-ip6", "acl-plugin-in-ip6-l2", Direction::Input),
    ("l2-output-ip6", "acl-plugin-out-ip6-l2", Direction::Output),
    ("l2-input-nonip", "acl-plugin-in-nonip-l2", Direction::Input),
    ("l2-output-nonip", "acl-plugin-out-nonip-l2", Direction::Output),
];

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    pub(crate) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A router with policy.
pub(crate) struct Guard {
    pub(crate) r: Router,
    pub(crate) tables: AclTables,
}

pub(crate) fn lists(acl: u32, rules: &[Rule]) -> Option<Arc<Lists>> {
    let listed = |(number, rule): (usize, &Rule)| ListedRule {
        rule: *rule,
        acl,
        number: number as u32,
        counter: number as u32,
    };
    Some(Arc::new(Lists::new(rules.iter().enumerate().map(listed).collect()).unwrap()))
}

impl Guard {
    /// With all features on interfaces 1 to 4, of which 3 and 4 are cross-connected.
    pub(crate) fn new(sessions: usize, share: u32) -> Guard {
        let mut r = Router::new(256);
        for interface in 1..=4 {
            for (arc, node, _) in FEATURES {
                r.h.engine.set_feature(arc, node, SwIfIndex(interface), true).unwrap();
            }
        }
        r.h.engine.tables::<L2Tables>().update(|old| {
            let mut l2 = old.clone();
            for port in &mut l2.ports[3..] {
                (port.input_features, port.output_features) = (true, true);
                port.mode = PortMode::XconnectOutput;
            }
            l2
        });
        let counters = Arc::new(Combined::new(1));
        counters.ensure(0);
        let tables = AclTables {
            interfaces: vec![None; 5],
            counters,
            sessions: Some(Arc::new(SessionTable::new(sessions, [1, 2, 3, 4]).unwrap())),
            share,
            ..AclTables::default()
        };
        Guard { r, tables }
    }

    pub(crate) fn change(&mut self, interface: usize, change: impl FnOnce(&mut InterfaceAcl)) {
        let mut acl = self.tables.interfaces[interface].as_deref().cloned().unwrap_or_default();
        change(&mut acl);
        acl.reflects =
            [&acl.input, &acl.output].iter().any(|s| s.lists.as_ref().is_some_and(|l| l.reflects()));
        self.tables.interfaces[interface] = Some(Arc::new(acl));
        self.r.h.engine.tables::<AclTables>().publish(self.tables.clone());
    }

    pub(crate) fn set(&mut self, interface: usize, direction: Direction, rules: &[Rule]) {
        self.change(interface, |acl| {
            let side = if direction == Direction::Input { &mut acl.input } else { &mut acl.output };
            *side = Side { lists: lists(7, rules), epoch: side.epoch + 1, etypes: None };
        });
    }

    /// All sessions are gone.
    pub(crate) fn forget_sessions(&mut self) {
        let limit = self.tables.sessions.as_ref().map_or(0, |sessions| sessions.limit());
        self.tables.sessions = Some(Arc::new(SessionTable::new(limit, [1, 2, 3, 4]).unwrap()));
        self.r.h.engine.tables::<AclTables>().publish(self.tables.clone());
    }

    /// Whether a frame that interface `from` receives leaves by `to`.
    pub(crate) fn passes(&mut self, from: u32, frame: &[u8], to: u32) -> bool {
        !self.r.pass(from, frame, to).is_empty()
    }
}

/// The frame of a packet, to the router if it is to be routed.
pub(crate) fn frame(t: &Tuple, more: bool) -> Vec<u8> {
    let mut l4 = [t.sport.to_be_bytes(), t.dport.to_be_bytes()].concat();
    match t.protocol {
        IpProtocol::TCP => {
            l4.extend([0; 9]);
            l4.extend([t.flags.0, 0, 0, 0, 0, 0]);
            l4.push(0);
            l4[12] = 0x50;
            l4[13] = t.flags.0;
        }
        IpProtocol::ICMP | IpProtocol::ICMP6 => l4 = vec![t.sport as u8, t.dport as u8, 0, 0, 0, 9, 0, 1],
        _ => l4.extend([0, 8, 0, 0]),
    }
    let mut frame = [common::MAC[1].0, common::HOST.0].concat();
    match (t.src, t.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let fragment = if t.has_ports || !more { [0, 0] } else { [0, 4] };
            let len = (20 + l4.len()) as u16;
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([0, 1, fragment[0], fragment[1], 64, t.protocol.0, 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
            frame.extend(l4);
            common::with_header(frame, |_| {})
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let later = more && !t.has_ports;
            let extension = [t.protocol.0, 0, 0, 16, 0, 0, 0, 1];
            let len = l4.len() + if later { 8 } else { 0 };
            frame.extend([
                0x86,
                0xdd,
                0x60,
                0,
                0,
                0,
                0,
                len as u8,
                if later { 44 } else { t.protocol.0 },
                64,
            ]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
            frame.extend(if later { &extension[..] } else { &[] });
            frame.extend(l4);
            frame
        }
        _ => unreachable!("one family"),
    }
}

pub(crate) fn rule(random: &mut Random, v6: bool) -> Rule {
    let mut rule = Rule::all(random.of(&[Action::Deny, Action::Permit, Action::Reflect]), v6);
    let prefix = |random: &mut Random, side: u8| {
        let len = random.of(&[0, 0, 8, 31, 32]);
        let host = side + random.below(3) as u8;
        match v6 {
            true => AclPrefix::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host.into()]), len * 4),
            false => AclPrefix::new(IpAddr::from([if side == 1 { 10 } else { 20 }, 0, 1, host]), len),
        }
    };
    let sides = random.of(&[(1, 9), (9, 1)]);
    (rule.src, rule.dst) = (prefix(random, sides.0), prefix(random, sides.1));
    rule.protocol = IpProtocol(random.of(&[0, 1, 6, 17, 58]));
    if rule.protocol.0 != 0 {
        rule.sport = random.of(&[ANY_PORT, ANY_PORT, (8, 8), (100, 101)]);
        rule.dport = random.of(&[ANY_PORT, ANY_PORT, (0, 80), (80, 80)]);
    }
    if rule.protocol == IpProtocol::TCP && random.below(4) == 0 {
        (rule.tcp_mask, rule.tcp_value) = (TcpFlags(18), TcpFlags(2));
    }
    rule
}

pub(crate) fn rules(random: &mut Random) -> Vec<Rule> {
    (0..1 + random.below(8)).map(|i| rule(random, i % 2 == 1)).collect()
}

/// A packet from side 1 to side 9, or back when `output`.
pub(crate) fn packet(random: &mut Random, v6: bool, output: bool) -> Tuple {
    let address = |random: &mut Random, side: u8| match v6 {
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(side) + random.below(3) as u16]),
        false => IpAddr::from([if side == 1 { 10 } else { 20 }, 0, 1, side + random.below(3) as u8]),
    };
    let icmp = if v6 { 58 } else { 1 };
    let protocol = IpProtocol(random.of(&[6, 17, 17, icmp, 47]));
    let mut ports = [random.of(&[8, 100, 101, 102]), random.of(&[0, 80, 81])];
    let has_ports = protocol.0 != 47 && random.below(10) != 0;
    if protocol.0 == icmp {
        let request = [8, 128][usize::from(v6)];
        let reply = [0, 129][usize::from(v6)];
        ports = [random.of(&[if output { reply } else { request }, request, 3]), 0];
    } else if output {
        ports.swap(0, 1);
    }
    let (src, dst) = (address(random, 1), address(random, 9));
    let (src, dst) = if output { (dst, src) } else { (src, dst) };
    let [sport, dport] = if has_ports { ports } else { [0, 0] };
    let flags = if protocol.0 == 6 && has_ports { random.of(&[2, 16, 18]) } else { 0 };
    Tuple { src, dst, protocol, sport, dport, flags: TcpFlags(flags), has_ports }
}

pub(crate) fn udp(sport: u16) -> Tuple {
    Tuple {
        src: [10, 0, 1, 9].into(),
        dst: [20, 0, 0, 1].into(),
        protocol: IpProtocol::UDP,
        sport,
        dport: 53,
        flags: TcpFlags(0),
        has_ports: true,
    }
}

/// The frame of an ICMP error, of `t`'s addresses, type and code, that quotes `quote`.
pub(crate) fn error(t: &Tuple, quote: &[u8]) -> Vec<u8> {
    let mut frame = frame(t, true);
    frame.extend(quote);
    let is_v6 = t.src.is_ipv6();
    let (at, headers) = if is_v6 { (18, 54) } else { (16, 14) };
    let len = (frame.len() - headers) as u16;
    frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
    if is_v6 { frame } else { common::with_header(frame, |_| {}) }
}
