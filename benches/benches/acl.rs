//! Access lists: the classifier alone, and IPv4 forwarding with lists on the interface that receives.
//!
//! "attack" are packets made of addresses and ports that the rules name, mixed at random: they go as far down in the tables as any. "typical" are packets
//! that rules permit. A "flood" is of so many flows that no verdict is remembered.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_benches::paths::{self, FIRST, Path, packet};
use wharf_benches::rig::{FROM, Rig, Sink, Source};
use wharf_engine::counter::Combined;
use wharf_nodes::acl::rule::ANY_PORT;
use wharf_nodes::acl::sessions::SessionTable;
use wharf_nodes::acl::{AclPrefix, AclTables, Action, Fields, InterfaceAcl, ListedRule, Lists, Rule, Side};
use wharf_nodes::wire::checksum::checksum;
use wharf_nodes::wire::ip4::IpProtocol;

const RULES: [u32; 4] = [10, 100, 1_000, 10_000];
const FLOWS: u32 = 1024;
const BURST: usize = 256;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn prefix(address: u32, len: u8) -> AclPrefix {
    AclPrefix::new(IpAddr::V4(Ipv4Addr::from_bits(address)), len)
}

/// From small networks to small networks, to a port, a few ports, or all.
fn policy(count: u32, action: Action) -> Vec<Rule> {
    let mut random = Random(9);
    let rule = |_| {
        let mut rule = Rule::all(action, false);
        let len = |random: &mut Random| [20, 24, 28, 32][random.below(4) as usize];
        let src = 0xc0a8_0000 | random.below(1 << 16) as u32;
        rule.src = prefix(src, len(&mut random));
        rule.dst = prefix(FIRST + random.below(1 << 20) as u32, len(&mut random));
        rule.protocol = IpProtocol::UDP;
        let port = random.below(60_000) as u16;
        rule.dport = [(port, port), (port, port + 100), ANY_PORT][random.below(3) as usize];
        rule
    };
    (0..count).map(rule).collect()
}

fn compile(rules: &[Rule]) -> Arc<Lists> {
    let listed = |(rule, number): (&Rule, u32)| ListedRule { rule: *rule, acl: 0, number, counter: number };
    Arc::new(Lists::new(rules.iter().zip(0..).map(listed).collect()).expect("it fits"))
}

fn low(p: &AclPrefix) -> u32 {
    p.bounds().0 as u32
}

/// Fields that the rules name: all of one rule, or each of another.
fn fields(rules: &[Rule], attack: bool, count: u32) -> Vec<Fields> {
    let mut random = Random(3);
    (0..count)
        .map(|_| {
            let mut pick = || &rules[random.below(rules.len() as u64) as usize];
            let rule = pick();
            let (other, third) = if attack { (pick(), pick()) } else { (rule, rule) };
            Fields {
                src: low(&rule.src).into(),
                dst: low(&other.dst).into(),
                sport: random.below(60_000) as u16,
                dport: third.dport.0,
                protocol: 17,
                has_ports: true,
                ..Fields::default()
            }
        })
        .collect()
}

fn frame(f: &Fields) -> Vec<u8> {
    let mut p = packet(f.dst as u32);
    p[26..30].copy_from_slice(&(f.src as u32).to_be_bytes());
    p[34..36].copy_from_slice(&f.sport.to_be_bytes());
    p[36..38].copy_from_slice(&f.dport.to_be_bytes());
    p[24..26].fill(0);
    let sum = checksum(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p
}

fn classifier(c: &mut Criterion) {
    for (name, attack) in [("classifier, typical", false), ("classifier, attack", true)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(BURST as u64));
        for count in RULES {
            let rules = policy(count, Action::Permit);
            let lists = compile(&rules);
            let fields = fields(&rules, attack, 1 << 16);
            let mut vectors = fields.chunks_exact(BURST).cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| {
                    let vector = vectors.next().unwrap_or_default();
                    vector.iter().filter(|f| lists.lookup(f).is_some()).count()
                });
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for count in RULES {
        let rules = policy(count, Action::Permit);
        group.bench_function(BenchmarkId::from_parameter(count), |b| b.iter(|| compile(&rules)));
    }
    group.finish();
}

/// A router with one route.
fn router(packets: Vec<Vec<u8>>) -> Rig {
    paths::rig(Path::Ip4(1), None, Box::new(Source::new(packets, BURST)), Box::new(Sink))
}

/// A router whose receiving interface has `rules` and permits the rest.
fn guarded(rules: &[Rule], last: Action, packets: Vec<Vec<u8>>, sessions: usize) -> Rig {
    let mut rig = router(packets);
    let rules = [rules, &[Rule::all(last, false)]].concat();
    let lists = compile(&rules);
    let counters = Arc::new(Combined::new(1));
    (0..rules.len() as u32).step_by(1024).for_each(|i| counters.ensure(i));
    let reflects = lists.reflects();
    let acl = InterfaceAcl {
        input: Side { lists: Some(lists), ..Side::default() },
        reflects,
        ..InterfaceAcl::default()
    };
    let table = SessionTable::new(sessions, [1, 2, 3, 4]).expect("memory");
    rig.engine.tables::<AclTables>().publish(AclTables {
        interfaces: vec![Some(Arc::new(acl))],
        counters,
        sessions: reflects.then(|| Arc::new(table)),
        share: sessions as u32,
        ..AclTables::default()
    });
    let on = rig.engine.set_feature("ip4-unicast", "acl-plugin-in-ip4-fa", FROM, true);
    assert!(on.is_ok(), "the arc has the feature");
    rig
}

fn forwarding(c: &mut Criterion) {
    let mut group = c.benchmark_group("ip4, 256 a turn");
    group.throughput(Throughput::Elements(BURST as u64));
    let frames = |rules: &[Rule], attack, flows| fields(rules, attack, flows).iter().map(frame).collect();
    let base = policy(1_000, Action::Permit);
    let mut plain = router(frames(&base, false, FLOWS));
    group.bench_function("without lists", |b| b.iter(|| plain.turn()));
    plain.check();
    for count in RULES {
        for (name, attack) in [("typical", false), ("attack", true)] {
            let rules = policy(count, Action::Permit);
            let mut rig = guarded(&rules, Action::Permit, frames(&rules, attack, FLOWS), 1024);
            group.bench_function(format!("{count} rules, {name}"), |b| b.iter(|| rig.turn()));
            rig.check();
        }
    }
    for count in [100, 1_000, 10_000] {
        let rules = policy(count, Action::Permit);
        let mut rig = guarded(&rules, Action::Permit, frames(&rules, true, 1 << 17), 1024);
        group.bench_function(format!("{count} rules, flood of flows"), |b| b.iter(|| rig.turn()));
        rig.check();
    }
    for (name, flows) in [("1,024", 1024), ("1,000,000", 1_000_000)] {
        let rules = policy(1_000, Action::Reflect);
        let packets = frames(&rules, false, flows);
        let mut rig = guarded(&rules, Action::Reflect, packets, 1 << 21);
        (0..2 * flows as usize / BURST).for_each(|_| rig.turn());
        group.bench_function(format!("{name} sessions"), |b| b.iter(|| rig.turn()));
        rig.check();
    }
    // Each packet opens a session, which by its next turn is recycled: a million flows, and room for an eighth of them.
    let rules = policy(500, Action::Reflect);
    let known = frames(&rules, false, FLOWS);
    let mut rig = guarded(&rules, Action::Reflect, known, 1 << 17);
    group.bench_function("500 rules, sessions", |b| b.iter(|| rig.turn()));
    rig.check();
    let mut rig = guarded(&rules, Action::Reflect, frames(&rules, false, 1 << 20), 1 << 17);
    group.bench_function("500 rules, flood of sessions", |b| b.iter(|| rig.turn()));
    rig.check();
    // The same packets without sessions: what their own memory costs.
    let mut plain = router(frames(&base, false, 1_000_000));
    group.bench_function("without lists, 1,000,000 flows", |b| b.iter(|| plain.turn()));
    group.finish();
}

criterion_group!(benches, classifier, forwarding);
criterion_main!(benches);
