//! The nodes against a model that scans rule by rule and remembers flows in a map.

use crate::common;
use crate::guard::{Guard, Random, error, frame, packet, rule, rules};
use crate::seeds;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use wharf_nodes::acl::rule::first_match;
use wharf_nodes::acl::{Action, Direction, Rule, Tuple};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

type FlowKey = (IpAddr, IpAddr, u8, u16, u16);

/// What should happen, slowly: sessions are a map, lists are scanned.
#[derive(Default)]
struct Model {
    pub(crate) lists: [Vec<Rule>; 2],
    pub(crate) versions: [u32; 2],
    /// By the flow as received: direction, opening packet, version of the list.
    sessions: HashMap<FlowKey, (usize, Tuple, u32)>,
}

impl Model {
    fn key(t: &Tuple, output: bool) -> Option<FlowKey> {
        let v6 = t.src.is_ipv6();
        let mut ports = (t.sport, t.dport);
        if !t.has_ports && t.protocol.0 != 47 {
            return None;
        }
        if t.protocol.0 == if v6 { 58 } else { 1 } {
            if t.sport == 3 {
                return None;
            }
            ports = (9, 9);
        }
        Some(match output {
            false => (t.src, t.dst, t.protocol.0, ports.0, ports.1),
            true => (t.dst, t.src, t.protocol.0, ports.1, ports.0),
        })
    }

    /// Whether a packet passes; an ICMP error quotes another.
    fn passes(&mut self, t: &Tuple, output: bool, quoted: Option<&Tuple>) -> bool {
        let key = Self::key(t, output);
        let about = quoted.filter(|q| q.src == t.dst && t.has_ports).and_then(|q| Self::key(q, !output));
        // While no rule opens sessions, nobody looks at those that there are.
        let reflects = self.lists.iter().flatten().any(|rule| rule.action == Action::Reflect);
        if let Some(key) = key.or(about).filter(|_| reflects)
            && let Some((side, opening, version)) = self.sessions.get_mut(&key)
        {
            let list = &self.lists[*side];
            let stands = *version == self.versions[*side]
                || first_match(list, opening).is_some_and(|i| list[i].action == Action::Reflect);
            *version = self.versions[*side];
            if stands {
                return true;
            }
            self.sessions.remove(&key);
        }
        let side = usize::from(output);
        let list = &self.lists[side];
        let Some(rule) = first_match(list, t).map(|i| list[i]) else { return false };
        let is_icmp = t.protocol.0 == if t.src.is_ipv6() { 58 } else { 1 };
        let opens = !is_icmp || [8, 128].contains(&t.sport);
        if let Some(key) = key.filter(|_| rule.action == Action::Reflect && opens) {
            let flags = if t.protocol == IpProtocol::TCP { TcpFlags::SYN } else { TcpFlags(0) };
            self.sessions.insert(key, (side, Tuple { flags, ..*t }, self.versions[side]));
        }
        rule.action != Action::Deny
    }
}

/// Packets of a case, and packets that come in one frame.
const PACKETS: usize = 4000;
const BURST: usize = 16;

/// A packet and its frame; some are ICMP errors about another.
fn any_packet(random: &mut Random, output: bool) -> (Tuple, Option<Tuple>, Vec<u8>) {
    let v6 = random.below(2) == 0;
    let mut t = packet(random, v6, output);
    if random.below(8) != 0 {
        let bytes = frame(&t, t.protocol.0 != 47);
        return (t, None, bytes);
    }
    let about = packet(random, v6, !output);
    if random.below(8) != 0 {
        t.dst = about.src;
    }
    let icmp = IpProtocol(if v6 { 58 } else { 1 });
    (t.protocol, t.sport, t.dport, t.flags, t.has_ports) = (icmp, 3, 0, TcpFlags(0), true);
    let bytes = error(&t, &frame(&about, about.protocol.0 != 47)[14..]);
    (t, Some(about), bytes)
}

/// One case: lists that are replaced at times, and bursts of packets in both directions.
fn agrees(guard: &mut Guard, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed);
    let (mut model, mut passed) = (Model::default(), 0);
    guard.forget_sessions();
    for step in 0..PACKETS / BURST {
        if step % 30 == 0 {
            for (side, direction) in [Direction::Input, Direction::Output].into_iter().enumerate() {
                model.lists[side] = rules(&mut random);
                model.versions[side] += 1;
                guard.set(3, direction, &model.lists[side]);
            }
        }
        let output = random.below(2) == 0;
        let (from, to) = if output { (4, 3) } else { (3, 4) };
        let mut expected = Vec::new();
        let mut told = String::new();
        for _ in 0..BURST {
            let (t, about, bytes) = any_packet(&mut random, output);
            guard.r.h.receive(from, &bytes);
            let passes = model.passes(&t, output, about.as_ref());
            let _ = writeln!(told, "{passes}: {t} about {about:?}");
            if passes {
                expected.push(bytes);
            }
        }
        guard.r.h.run();
        passed += expected.len() as u64;
        let mut sent = guard.r.h.sent(to);
        // IPv4 and IPv6 go by nodes of their own: within each, the order stays.
        for list in [&mut sent, &mut expected] {
            list.sort_by_key(|frame| frame[12]);
        }
        if sent != expected {
            return Err(format!(
                "seed {seed} step {step} output {output}, sent {} of {}:\n{told}",
                sent.len(),
                expected.len()
            ));
        }
    }
    Ok(passed)
}

/// A million packets in all.
#[test]
fn bridged_packets_and_their_sessions_are_as_the_model_has_them() {
    let guard = RefCell::new(Guard::new(4096, 4096));
    let (passed, cases) = (Cell::new(0), 250);
    let config = ProptestConfig { cases, failure_persistence: seeds(), ..ProptestConfig::default() };
    let checked = TestRunner::new(config).run(&any::<u64>(), |seed| {
        let agreed = agrees(&mut guard.borrow_mut(), seed);
        passed.set(passed.get() + agreed.map_err(TestCaseError::fail)?);
        Ok(())
    });
    checked.unwrap();
    let all = u64::from(cases) * PACKETS as u64;
    assert!(
        all >= 1_000_000 && (all / 10..all / 10 * 9).contains(&passed.get()),
        "{} of {all}",
        passed.get()
    );
}

#[test]
fn routed_packets_are_as_the_rules_say() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut guard = Guard::new(1024, 1024);
        let mut model = Model::default();
        for (side, direction) in [Direction::Input, Direction::Output].into_iter().enumerate() {
            model.lists[side] = (0..6).map(|_| rule(&mut random, false)).collect();
            guard.set(1, direction, &model.lists[side]);
        }
        for step in 0..200 {
            let output = random.below(2) == 0;
            let mut t = packet(&mut random, false, output);
            // The one host on interface 1 that has a route.
            let host = IpAddr::from([10, 0, 1, 9]);
            *(if output { &mut t.dst } else { &mut t.src }) = host;
            let expected = model.passes(&t, output, None);
            let mut bytes = frame(&t, t.protocol.0 != 47);
            let found = match output {
                true => {
                    bytes[..6].copy_from_slice(&common::MAC[2].0);
                    guard.passes(2, &bytes, 1)
                }
                false => guard.passes(1, &bytes, 2),
            };
            assert_eq!(found, expected, "seed {seed} step {step} output {output}: {t}");
        }
    }
}
