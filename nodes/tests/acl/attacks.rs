//! Attacks on one interface while flows of another go on. They cost those no packet, and the node at most half its speed.
//!
//! Times are compared within a run, the best of many each, and with a wide margin: other programs run beside.

use crate::classifier::{Random as Numbers, masks, near};
use crate::guard::{Guard, frame, udp};
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::classifier::MAX_UNEVEN;
use wharf_nodes::acl::sessions::{SessionKey, SessionTable};
use wharf_nodes::acl::{Action, Direction, Fields, Rule, Tuple};

const BURST: usize = 255;
/// Twice as slow, and a margin.
const SLOWER: u32 = 3;

fn reversed(t: &Tuple) -> Tuple {
    Tuple { src: t.dst, dst: t.src, sport: t.dport, dport: t.sport, ..*t }
}

/// The best time of a burst out of `frames`, received on interface 1.
fn fastest(guard: &mut Guard, frames: &[Vec<u8>]) -> Duration {
    let mut burst = |frames: &[Vec<u8>]| {
        frames.iter().for_each(|frame| guard.r.h.receive(1, frame));
        let start = Instant::now();
        guard.r.h.run();
        let took = start.elapsed();
        guard.r.h.sent(2);
        took
    };
    frames.chunks_exact(BURST).map(&mut burst).min().unwrap_or_default()
}

fn repeated(frames: Vec<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    frames.into_iter().cycle().take(count).collect()
}

/// Sessions of interface 3, which interface 4 answers.
struct Bystander {
    back: Vec<Vec<u8>>,
    next: usize,
}

impl Bystander {
    fn new(guard: &mut Guard) -> Bystander {
        guard.set(3, Direction::Input, &[Rule::all(Action::Reflect, false)]);
        // Nothing may come back but what belongs to a session.
        guard.set(3, Direction::Output, &[Rule::all(Action::Deny, false)]);
        let flow = |sport: u16| {
            let there = udp(sport + 1);
            assert!(guard.passes(3, &frame(&there, true), 4));
            frame(&reversed(&there), true)
        };
        Bystander { back: (0..200).map(flow).collect(), next: 0 }
    }

    /// A packet beside those of the attack: it must pass.
    fn passes(&mut self, guard: &mut Guard) {
        self.next += 1;
        guard.r.h.receive(4, &self.back[self.next % self.back.len()]);
        guard.r.h.run();
        assert_eq!(guard.r.h.sent(3).len(), 1, "packet {}", self.next);
        guard.r.h.sent(2);
    }

    fn all_pass(&self, guard: &mut Guard) {
        assert!(self.back.iter().all(|back| guard.passes(4, back, 3)));
    }
}

/// A guard whose interface 1 has `rules`.
fn attacked(sessions: usize, share: u32, rules: &[Rule]) -> (Guard, Bystander) {
    let mut guard = Guard::new(sessions, share);
    let bystander = Bystander::new(&mut guard);
    guard.set(1, Direction::Input, rules);
    guard.set(1, Direction::Output, &[Rule::all(Action::Deny, false)]);
    (guard, bystander)
}

fn flood(n: u32) -> Vec<u8> {
    let mut t = udp(n as u16);
    t.dst = [20, 1, (n >> 16) as u8, 1].into();
    frame(&t, true)
}

#[test]
fn a_flood_of_a_million_flows() {
    let (mut guard, mut bystander) = attacked(65_536, 16_384, &[Rule::all(Action::Reflect, false)]);
    let usual = fastest(&mut guard, &repeated((0..1000).map(flood).collect(), 20_000));
    for first in (0..1_000_000).step_by(BURST) {
        (first..first + BURST as u32).for_each(|n| guard.r.h.receive(1, &flood(n)));
        bystander.passes(&mut guard);
    }
    let sessions = guard.tables.sessions.clone().unwrap();
    assert_eq!(sessions.count(SwIfIndex(3)), 200);
    assert!(sessions.count(SwIfIndex(1)) <= 16_384);
    bystander.all_pass(&mut guard);
    let flooded = fastest(&mut guard, &(2_000_000..2_020_000).map(flood).collect::<Vec<_>>());
    println!("a burst of known flows {usual:?}, of new ones {flooded:?}");
    // To open a session is more than to find one, and a flood opens one with each packet.
    assert!(flooded < usual * 2 * SLOWER, "{flooded:?} {usual:?}");
}

/// Buckets that the crafted flows are for.
const FEW: usize = 16;

/// Flows that the attacker, who knows `seed`, has sorted out: their sessions can only be in few buckets.
fn colliding(seed: [u64; 4], count: usize) -> Vec<Vec<u8>> {
    let table = SessionTable::new(2048, seed).unwrap();
    let of = |t: &Tuple| {
        let key = SessionKey::new(&Fields::from(t), SwIfIndex(1), false);
        key.is_some_and(|key| table.buckets(&key).iter().all(|bucket| *bucket < FEW))
    };
    let all = (0..).map(|n: u32| Tuple { dst: [20, (n >> 16) as u8, 7, 7].into(), ..udp(n as u16) });
    all.filter(of).take(count).map(|t| frame(&t, true)).collect()
}

#[test]
fn flows_whose_hashes_collide() {
    let rules = [Rule::all(Action::Reflect, false)];
    for (knows, seed) in [(true, [1, 2, 3, 4]), (false, [9, 9, 9, 9])] {
        let (mut guard, _) = attacked(2048, 512, &rules);
        let usual = fastest(&mut guard, &repeated((0..400).map(flood).collect(), 20_000));
        guard.forget_sessions();
        let mut bystander = Bystander::new(&mut guard);
        let crafted = colliding(seed, 400);
        for burst in repeated(crafted.clone(), 40_000).chunks(BURST) {
            burst.iter().for_each(|frame| guard.r.h.receive(1, frame));
            bystander.passes(&mut guard);
        }
        bystander.all_pass(&mut guard);
        let sessions = guard.tables.sessions.clone().unwrap();
        assert_eq!(sessions.count(SwIfIndex(3)), 200);
        // Eight in a bucket; for who does not know the seed it is as if he had not chosen.
        let count = sessions.count(SwIfIndex(1)) as usize;
        assert!(if knows { count <= 8 * FEW } else { count == 400 }, "{count}");
        let slowed = fastest(&mut guard, &repeated(crafted, 20_000));
        println!("usual {usual:?}, colliding {slowed:?}, with the seed: {knows}");
        assert!(slowed < usual * 2 * SLOWER, "{slowed:?} {usual:?}");
    }
}

#[test]
fn a_rule_for_each_combination_of_masks() {
    let mut random = Numbers(3);
    let mut rules = masks(500, &mut random);
    rules.push(Rule::all(Action::Permit, false));
    let (mut guard, mut bystander) = attacked(65_536, 16_384, &rules);
    let lists = guard.tables.interfaces[1].as_ref().and_then(|acl| acl.input.lists.clone()).unwrap();
    let typical = lists.shapes()[0].typical;
    let chosen: Vec<Tuple> = (0..50_000)
        .map(|_| Tuple { has_ports: true, protocol: udp(1).protocol, ..near(&rules, &mut random) })
        .collect();
    let most = chosen.iter().map(|t| lists.steps(&Fields::from(t))).max().unwrap();
    assert!(most as f64 <= MAX_UNEVEN * typical, "{most} steps, usual {typical}");
    let usual: Vec<Vec<u8>> =
        (0..50_000).map(|n| frame(&Tuple { dst: [20, 0, 0, 1].into(), ..udp(n as u16) }, true)).collect();
    let usual = fastest(&mut guard, &usual);
    let frames: Vec<Vec<u8>> = chosen.iter().map(|t| frame(t, true)).collect();
    for burst in frames.chunks(BURST) {
        burst.iter().for_each(|frame| guard.r.h.receive(1, frame));
        bystander.passes(&mut guard);
    }
    bystander.all_pass(&mut guard);
    let slowed = fastest(&mut guard, &frames);
    println!("usual {usual:?}, chosen {slowed:?}, at most {most} steps of usually {typical:.1}");
    assert!(slowed < usual * SLOWER, "{slowed:?} {usual:?}");
}
