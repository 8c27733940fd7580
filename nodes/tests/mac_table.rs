//! The MAC table beside an obvious one: what is learned, moved, limited, set, aged and forgotten.

use proptest::prelude::*;
use std::collections::HashMap;
use wharf_engine::SwIfIndex;
use wharf_nodes::l2::{Learned, MAX_MOVES, MacEntry, MacTable, Stamp, key};
use wharf_nodes::wire::MacAddress;

const LIMITS: [u32; 2] = [12, 20];
const PORTS: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    /// A frame from a station behind a port, in a domain, at a moment.
    Frame {
        mac: u8,
        port: u32,
        domain: u16,
    },
    Set {
        mac: u8,
        port: u32,
        domain: u16,
    },
    Filter {
        mac: u8,
        domain: u16,
    },
    Remove {
        mac: u8,
        domain: u16,
    },
    /// Time goes on, and what is older than 12 goes.
    Age(u16),
    Flush {
        port: u32,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (mac, port, domain) = (1u8..40, 1..=PORTS, 1u16..3);
    let one = prop_oneof![
        12 => (mac.clone(), port.clone(), domain.clone())
            .prop_map(|(mac, port, domain)| Op::Frame { mac, port, domain }),
        1 => (mac.clone(), port.clone(), domain.clone())
            .prop_map(|(mac, port, domain)| Op::Set { mac, port, domain }),
        1 => (mac.clone(), domain.clone()).prop_map(|(mac, domain)| Op::Filter { mac, domain }),
        1 => (mac, domain).prop_map(|(mac, domain)| Op::Remove { mac, domain }),
        1 => (0u16..10).prop_map(Op::Age),
        1 => port.prop_map(|port| Op::Flush { port }),
    ];
    prop::collection::vec(one, 0..600)
}

fn address(mac: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, mac])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Learned { port: u32, at: u16, moves: u8 },
    Fixed(u32),
    Filter,
}

/// A map, and rules in words.
#[derive(Default)]
struct Oracle(HashMap<(u16, u8), Known>);

impl Oracle {
    fn learned(&self, wanted: impl Fn(u16, u32) -> bool) -> u32 {
        let one = |((domain, _), known): (&(u16, u8), &Known)| match known {
            Known::Learned { port, .. } => wanted(*domain, *port),
            _ => false,
        };
        self.0.iter().filter(|entry| one(*entry)).count() as u32
    }

    fn frame(&mut self, mac: u8, port: u32, domain: u16, now: u16) -> Learned {
        let full_port = self.learned(|_, p| p == port) >= LIMITS[0];
        let full_domain = self.learned(|d, _| d == domain) >= LIMITS[1];
        let new = Known::Learned { port, at: now, moves: 0 };
        match self.0.get(&(domain, mac)).copied() {
            Some(Known::Filter) => Learned::Filtered,
            Some(Known::Fixed(there)) if there == port => Learned::Known,
            Some(Known::Fixed(_)) => Learned::Violation,
            // A stamp that is a little old is good enough.
            Some(Known::Learned { port: there, at, .. }) if there == port && now.wrapping_sub(at) < 8 => {
                Learned::Known
            }
            Some(Known::Learned { port: there, .. }) if there == port => {
                self.0.insert((domain, mac), new);
                Learned::Known
            }
            _ if full_port => Learned::Limit,
            Some(Known::Learned { at, moves, .. }) => {
                let moves = if at == now { moves + 1 } else { 1 };
                if moves > MAX_MOVES {
                    return Learned::Damped;
                }
                self.0.insert((domain, mac), Known::Learned { port, at: now, moves });
                Learned::Moved
            }
            None if full_domain => Learned::Limit,
            None => {
                self.0.insert((domain, mac), new);
                Learned::New
            }
        }
    }
}

fn agrees(entry: Option<MacEntry>, known: Option<&Known>) -> bool {
    match (entry, known) {
        (None, None) => true,
        (Some(e), Some(Known::Filter)) => e.is_filter(),
        (Some(e), Some(Known::Fixed(port))) => e == MacEntry::fixed(SwIfIndex(*port)),
        (Some(e), Some(Known::Learned { port, at, .. })) => {
            !e.is_static() && (e.port(), e.stamp()) == (SwIfIndex(*port), Stamp(*at))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn agrees_with_the_oracle(ops in ops(), seed: [u64; 2], start: u16) {
        let table = MacTable::new(64, None, seed).unwrap();
        let mut oracle = Oracle::default();
        let mut now = start;
        for op in ops {
            match op {
                Op::Frame { mac, port, domain } => {
                    let key = key(domain, address(mac));
                    let fresh = table.get(key).is_some_and(|e| e.is_fresh(SwIfIndex(port), Stamp(now)));
                    let wanted = oracle.frame(mac, port, domain, now);
                    if fresh {
                        prop_assert_eq!(wanted, Learned::Known);
                        continue;
                    }
                    prop_assert_eq!(table.learn(key, SwIfIndex(port), Stamp(now), LIMITS), wanted);
                }
                Op::Set { mac, port, domain } => {
                    table.set(key(domain, address(mac)), MacEntry::fixed(SwIfIndex(port))).unwrap();
                    oracle.0.insert((domain, mac), Known::Fixed(port));
                }
                Op::Filter { mac, domain } => {
                    table.set(key(domain, address(mac)), MacEntry::filter()).unwrap();
                    oracle.0.insert((domain, mac), Known::Filter);
                }
                Op::Remove { mac, domain } => {
                    let gone = table.remove(key(domain, address(mac))).unwrap();
                    prop_assert!(agrees(gone, oracle.0.remove(&(domain, mac)).as_ref()));
                }
                Op::Age(by) => {
                    now = now.wrapping_add(by);
                    for part in 0..table.parts() {
                        table.sweep(part, |_, _, e| !e.is_static() && Stamp(now).since(e.stamp()) > 12);
                    }
                    oracle.0.retain(|_, known| match known {
                        Known::Learned { at, .. } => now.wrapping_sub(*at) <= 12,
                        _ => true,
                    });
                }
                Op::Flush { port } => {
                    for part in 0..table.parts() {
                        table.sweep(part, |_, _, e| !e.is_static() && e.port() == SwIfIndex(port));
                    }
                    oracle.0.retain(|_, known| !matches!(known, Known::Learned { port: p, .. } if *p == port));
                }
            }
            prop_assert_eq!(table.len(), (oracle.0.len() as u32, oracle.learned(|_, _| true)));
        }
        for (domain, mac) in (1..3).flat_map(|d| (1..40).map(move |m| (d, m))) {
            let entry = table.get(key(domain, address(mac)));
            prop_assert!(agrees(entry, oracle.0.get(&(domain, mac))), "{:?}", entry);
        }
        for port in 1..=PORTS {
            prop_assert_eq!(table.of_port(SwIfIndex(port)), oracle.learned(|_, p| p == port));
        }
        for domain in 1..3 {
            let count = table.of_domain(key(domain, MacAddress::ZERO));
            prop_assert_eq!(count, oracle.learned(|d, _| d == domain));
        }
    }
}

#[test]
fn workers_learn_side_by_side_and_every_address_is_counted_once() {
    let table = MacTable::new(1 << 10, None, [3, 9]).unwrap();
    std::thread::scope(|scope| {
        for port in 1..=3 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..20u16 {
                    for mac in 0..500u64 {
                        let key = key(1, MacAddress::from_u64(0x0200_0000_0000 + mac * 7));
                        let _ = table.learn(key, SwIfIndex(port), Stamp(round), [u32::MAX; 2]);
                        let _ = table.get(key);
                    }
                }
            });
        }
        for _ in 0..50 {
            for part in 0..table.parts() {
                table.sweep(part, |_, _, entry| entry.stamp().0 % 5 == 0);
            }
        }
    });
    let mut found = [0; 4];
    for part in 0..table.parts() {
        table.sweep(part, |_, _, entry| {
            found[entry.port().index()] += 1;
            false
        });
    }
    let total: u32 = found.iter().sum();
    assert_eq!(table.len(), (total, total));
    assert_eq!(table.of_domain(key(1, MacAddress::ZERO)), total);
    for port in 1..=3 {
        assert_eq!(table.of_port(SwIfIndex(port)), found[port as usize], "port {port}");
    }
    for part in 0..table.parts() {
        table.sweep(part, |_, _, _| true);
    }
    assert_eq!(table.len(), (0, 0));
}

#[test]
fn the_table_as_a_whole_has_a_limit() {
    let table = MacTable::new(64, Some(100), [3, 9]).unwrap();
    let mac = |n: u32| key(1, MacAddress::from_u64(0x0200_0000_0000 + u64::from(n)));
    let learn = |n, port| table.learn(mac(n), SwIfIndex(port), Stamp(0), [u32::MAX; 2]);
    for n in 0..100 {
        assert_eq!(learn(n, 1 + n % 4), Learned::New);
    }
    assert_eq!(learn(100, 9), Learned::Limit);
    // One that is known may move, one that goes makes room, and one that is set needs none.
    assert_eq!((learn(0, 9), table.len()), (Learned::Moved, (100, 100)));
    table.remove(mac(0)).unwrap();
    assert_eq!(learn(100, 9), Learned::New);
    table.set(mac(200), MacEntry::fixed(SwIfIndex(1))).unwrap();
    assert_eq!(table.len(), (101, 100));
    // Not all that there is room for: where buckets fill up, one station would cost another its place.
    for limit in [None, Some(u32::MAX)] {
        assert_eq!(MacTable::new(64, limit, [3, 9]).unwrap().limit(), 64 * 7 / 4 * 3);
    }
}
