//! The classifier against a scan rule by rule, on random and on boundary packets.

use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Instant;
use wharf_nodes::acl::classifier::{MAX_BYTES, MAX_RULES, MAX_UNEVEN, TooComplex};
use wharf_nodes::acl::rule::{ANY_PORT, first_match};
use wharf_nodes::acl::{AclPrefix, Action, Fields, ListedRule, Lists, Rule, Tuple};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

/// Numbers that repeat, for sets that a test makes itself.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ (self.0 >> 12 & 0xffff)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn listed(rules: &[Rule]) -> Vec<ListedRule> {
    let listed = |(number, rule): (usize, &Rule)| ListedRule {
        rule: *rule,
        acl: 0,
        number: number as u32,
        counter: number as u32,
    };
    rules.iter().enumerate().map(listed).collect()
}

fn compile(rules: &[Rule]) -> Lists {
    Lists::new(listed(rules)).unwrap()
}

/// Addresses of a few neighbourhoods, so that rules overlap.
fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    let near = prop_oneof![Just(0u64), Just(u64::MAX), 0u64..8, any::<u64>()];
    (any::<bool>(), near).prop_map(move |(high, near)| match v6 {
        true => {
            let top = if high { 0xfd00u128 << 112 } else { 0x2001u128 << 112 };
            IpAddr::V6((top | u128::from(near) << 32 | u128::from(near & 3)).into())
        }
        false => IpAddr::V4(((if high { 10u32 << 24 } else { 0 }) ^ near as u32).into()),
    })
}

fn prefix(v6: bool) -> impl Strategy<Value = AclPrefix> {
    let len = prop_oneof![Just(0u8), Just(8), Just(24), Just(32), Just(64), Just(128), 0u8..=128];
    (address(v6), len).prop_map(|(address, len)| AclPrefix::new(address, len))
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    let port = prop_oneof![Just(0u16), Just(80), Just(1024), Just(u16::MAX), any::<u16>()];
    prop_oneof![
        Just(ANY_PORT),
        port.clone().prop_map(|p| (p, p)),
        (port.clone(), port).prop_map(|(a, b)| (a.min(b), a.max(b)))
    ]
}

fn protocol() -> impl Strategy<Value = IpProtocol> {
    prop_oneof![Just(0u8), Just(1), Just(6), Just(17), Just(58), Just(47), Just(255)].prop_map(IpProtocol)
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Deny), Just(Action::Permit), Just(Action::Reflect)];
    let flags = prop_oneof![3 => Just(0u8), 1 => any::<u8>()];
    any::<bool>().prop_flat_map(move |v6| {
        (action.clone(), prefix(v6), prefix(v6), protocol(), ports(), ports(), flags.clone(), any::<u8>())
            .prop_map(|(action, src, dst, protocol, sport, dport, mask, value)| Rule {
                action,
                src,
                dst,
                protocol,
                sport,
                dport,
                tcp_mask: TcpFlags(mask),
                tcp_value: TcpFlags(value & mask),
            })
    })
}

/// A packet, mostly at or beside the bounds of a rule of the set.
pub(crate) fn near(rules: &[Rule], random: &mut Random) -> Tuple {
    let one = |random: &mut Random| rules[random.below(rules.len() as u64) as usize];
    let (base, other) = (one(random), one(random));
    let v6 = base.is_v6();
    // Source and destination of two rules meet where neither alone would be tried.
    let other = if other.is_v6() == v6 { other } else { base };
    let mut address = |prefix: AclPrefix| -> IpAddr {
        let (first, last) = prefix.bounds();
        let bits = match random.below(6) {
            0 => first,
            1 => last,
            2 => first.wrapping_sub(1),
            3 => last.wrapping_add(1),
            4 => first | u128::from(random.next()) & (last - first),
            _ => u128::from(random.next()) << 64 | u128::from(random.next()),
        };
        if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) }
    };
    let (src, dst) = (address(base.src), address(other.dst));
    let mut port = |(first, last): (u16, u16)| match random.below(5) {
        0 => first,
        1 => last,
        2 => first.wrapping_sub(1),
        3 => last.wrapping_add(1),
        _ => random.next() as u16,
    };
    let (sport, dport) = (port(base.sport), port(base.dport));
    let has_ports = random.below(8) != 0;
    let protocol =
        if random.below(3) == 0 { [1, 6, 17, 58, 99][random.below(5) as usize] } else { base.protocol.0 };
    Tuple {
        src,
        dst,
        protocol: IpProtocol(protocol),
        sport: if has_ports { sport } else { 0 },
        dport: if has_ports { dport } else { 0 },
        flags: TcpFlags(if protocol == 6 && has_ports { random.next() as u8 } else { 0 }),
        has_ports,
    }
}

#[track_caller]
fn agree(rules: &[Rule], lists: &Lists, t: &Tuple) {
    let want = first_match(rules, t);
    let found = lists.lookup(&Fields::from(t)).map(|listed| listed.number as usize);
    assert_eq!(found, want, "{t}\n{:?}", want.map(|i| rules[i].to_string()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: crate::seeds(), ..ProptestConfig::default() })]

    #[test]
    fn random_rules(rules in prop::collection::vec(rule(), 1..120), seed in any::<u64>()) {
        let lists = compile(&rules);
        let mut random = Random(seed);
        for _ in 0..2000 {
            agree(&rules, &lists, &near(&rules, &mut random));
        }
    }
}

/// As policies of a cluster are: from and to small prefixes, to a port.
fn policy(count: u32, random: &mut Random) -> Vec<Rule> {
    let net = |random: &mut Random| {
        let len = [16, 20, 24, 24, 28, 32][random.below(6) as usize];
        AclPrefix::new(IpAddr::V4((10 << 24 | random.below(1 << 24) as u32).into()), len)
    };
    let rule = |_| {
        let mut rule = Rule::all(Action::Permit, false);
        (rule.src, rule.dst) = (net(random), net(random));
        rule.protocol = [IpProtocol::TCP, IpProtocol::UDP][random.below(2) as usize];
        let port = random.below(60_000) as u16;
        rule.dport = [(port, port), (port, port + 100), ANY_PORT][random.below(3) as usize];
        rule
    };
    (0..count).map(rule).collect()
}

/// Rules that each name one field alone: what hashes of masks, and trees without care, can't bear.
fn combs(count: u32, random: &mut Random) -> Vec<Rule> {
    let rule = |i: u32| {
        let mut rule = Rule::all(Action::Deny, false);
        rule.protocol = IpProtocol::UDP;
        let host = |random: &mut Random| AclPrefix::new(IpAddr::V4((random.next() as u32).into()), 32);
        let port = random.next() as u16;
        match i % 4 {
            0 => rule.src = host(random),
            1 => rule.dst = host(random),
            2 => rule.sport = (port, port),
            _ => rule.dport = (port, port),
        }
        rule
    };
    (0..count).map(rule).collect()
}

/// A mask for each combination of prefix lengths, as somebody sets it up who wants lookups to be slow.
pub(crate) fn masks(count: u32, random: &mut Random) -> Vec<Rule> {
    let rule = |i: u32| {
        let mut rule = Rule::all(Action::Permit, false);
        let address = |random: &mut Random| IpAddr::V4((random.next() as u32).into());
        rule.src = AclPrefix::new(address(random), 1 + (i % 23 + 10) as u8 % 32);
        rule.dst = AclPrefix::new(address(random), 1 + (i / 23 % 22 + 11) as u8 % 32);
        rule.protocol = IpProtocol::UDP;
        rule
    };
    (0..count).map(rule).collect()
}

/// Large boxes that overlap in all dimensions.
fn boxes(count: u32, random: &mut Random) -> Vec<Rule> {
    let rule = |_| {
        let mut rule = Rule::all(Action::Permit, false);
        let address = |random: &mut Random| IpAddr::V4((random.next() as u32).into());
        rule.src = AclPrefix::new(address(random), random.below(6) as u8);
        rule.dst = AclPrefix::new(address(random), random.below(6) as u8);
        rule.protocol = IpProtocol::TCP;
        let range = |random: &mut Random| {
            let (a, b) = (random.next() as u16, random.next() as u16);
            (a.min(b), a.max(b))
        };
        (rule.sport, rule.dport) = (range(random), range(random));
        rule
    };
    (0..count).map(rule).collect()
}

#[test]
fn what_is_too_complex_is_refused() {
    let rules = vec![Rule::all(Action::Permit, false); MAX_RULES + 1];
    let refused = Lists::new(listed(&rules)).unwrap_err();
    assert!(refused.to_string().starts_with("65537 rules, and a table holds 65536"), "{refused}");
    // Equal boxes of all flags there are: nothing tells them apart but a scan.
    let flags = |n: u32| {
        let mut rule = Rule::all(Action::Permit, false);
        (rule.protocol, rule.tcp_mask) = (IpProtocol::TCP, TcpFlags(0xff));
        (rule.tcp_value, rule.sport) = (TcpFlags(n as u8), (1, 1));
        rule
    };
    assert!(Lists::new(listed(&(0..60).map(flags).collect::<Vec<_>>())).is_ok());
    let refused = Lists::new(listed(&(0..256).map(flags).collect::<Vec<_>>())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "more than 64 rules are for the same addresses, ports and protocol, and differ in their TCP flags alone"
    );
    let start = Instant::now();
    let many = Lists::new(listed(&boxes(3000, &mut Random(1))));
    println!("3000 boxes: {:?}, {:?}", start.elapsed(), many.map(|l| l.shapes()[0]));
}

#[test]
fn large_sets_agree_and_stay_shallow() {
    let mut random = Random(5);
    type Make = fn(u32, &mut Random) -> Vec<Rule>;
    for (name, make, counts) in [
        ("policy", policy as Make, &[10, 100, 1000, 10_000][..]),
        ("combs", combs, &[100, 500, 4000]),
        ("masks", masks, &[500, 2000]),
        ("boxes", boxes, &[50, 500]),
    ] {
        for count in counts {
            let mut rules = make(*count, &mut random);
            rules.push(Rule::all(Action::Deny, false));
            let start = Instant::now();
            let lists = compile(&rules);
            let shape = lists.shapes()[0];
            println!("{name} {count}: {:?}, {shape:?}", start.elapsed());
            assert!(shape.bytes <= MAX_BYTES);
            assert!(shape.worst <= 40, "{name} {count}: {shape:?}");
            assert!(shape.worst as f64 <= MAX_UNEVEN * shape.typical, "{name} {count}: {shape:?}");
            for _ in 0..400_000 / rules.len().max(100) {
                agree(&rules, &lists, &near(&rules, &mut random));
            }
        }
    }
}

/// Rules for all addresses, with ranges of ports that overlap.
fn ranges(count: u32, random: &mut Random) -> Vec<Rule> {
    let mut range = || {
        let (a, b) = (random.next() as u16, random.next() as u16);
        (a.min(b), a.max(b))
    };
    let rule = |_| {
        let mut rule = Rule::all(Action::Permit, false);
        rule.protocol = IpProtocol::UDP;
        (rule.sport, rule.dport) = (range(), range());
        rule
    };
    (0..count).map(rule).collect()
}

/// A usual policy, and in one corner of it rules that nothing but a scan tells apart.
fn corner(count: u32, random: &mut Random) -> Vec<Rule> {
    let mut rules = policy(count - 64, random);
    rules.extend((0..64).map(|flags| {
        let host = AclPrefix::new(IpAddr::from([10, 9, 9, 9]), 32);
        let (tcp_mask, tcp_value) = (TcpFlags(0x3f), TcpFlags(flags));
        Rule { src: host, protocol: IpProtocol::TCP, tcp_mask, tcp_value, ..Rule::all(Action::Deny, false) }
    }));
    rules
}

/// Counted in steps, whoever chooses the packets; and whoever chooses the rules is refused rather than served slowly.
#[test]
fn no_packet_costs_more_than_twice_the_usual() {
    let mut random = Random(8);
    type Make = fn(u32, &mut Random) -> Vec<Rule>;
    for (name, make) in [
        ("policy", policy as Make),
        ("combs", combs),
        ("masks", masks),
        ("boxes", boxes),
        ("ranges", ranges),
        ("corner", corner),
    ] {
        for count in [500, 10_000] {
            let rules = make(count, &mut random);
            let start = Instant::now();
            let lists = match Lists::new(listed(&rules)) {
                Ok(lists) => lists,
                Err(refused) => {
                    println!("{name} {count}: {:?}, {refused}", start.elapsed());
                    assert!(count > 500 && ["boxes", "ranges"].contains(&name), "{name} {count}: {refused}");
                    assert_eq!(refused, TooComplex::Memory);
                    continue;
                }
            };
            let shape = lists.shapes()[0];
            let steps = |random: &mut Random| lists.steps(&Fields::from(&near(&rules, random)));
            let most = (0..20_000).map(|_| steps(&mut random)).max().unwrap_or(0);
            println!("{name} {count}: {:?}, {shape:?}, met {most}", start.elapsed());
            assert!(most <= shape.worst, "{name} {count}: {most} of {shape:?}");
            assert!(shape.worst as f64 <= MAX_UNEVEN * shape.typical, "{name} {count}: {shape:?}");
            assert!(shape.bytes <= MAX_BYTES);
        }
    }
}
