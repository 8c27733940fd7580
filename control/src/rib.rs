//! The routes of one IPv4 table as the control plane knows them: the RIB.
//!
//! The data plane's mtrie holds only the outcome for each address. What was asked for, and which route takes over when
//! one goes, is here. Order is by address and then by length, as `show ip fib` prints it.

use prefix_trie::{Prefix, PrefixMap};
use std::net::Ipv4Addr;
use wharf_nodes::wire::Ip4Prefix;

/// The routes of one table, with a value of type `V` for each.
#[derive(Clone)]
pub struct Rib<V> {
    routes: PrefixMap<Key, V>,
    by_len: [usize; 33],
}

/// An [`Ip4Prefix`] as the key of a prefix trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(Ip4Prefix);

impl Prefix for Key {
    type R = u32;

    fn repr(&self) -> u32 {
        self.0.to_bits()
    }

    fn prefix_len(&self) -> u8 {
        self.0.len()
    }

    fn from_repr_len(repr: u32, len: u8) -> Key {
        Key(Ip4Prefix::clamped(repr.into(), len))
    }

    fn mask(&self) -> u32 {
        self.0.to_bits()
    }
}

impl<V> Default for Rib<V> {
    fn default() -> Rib<V> {
        Rib::new()
    }
}

impl<V> Rib<V> {
    /// A table without routes.
    pub fn new() -> Rib<V> {
        Rib { routes: PrefixMap::new(), by_len: [0; 33] }
    }

    /// Adds a route, or replaces its value; returns the value it had before.
    pub fn insert(&mut self, prefix: Ip4Prefix, value: V) -> Option<V> {
        let old = self.routes.insert(Key(prefix), value);
        if old.is_none() {
            self.by_len[usize::from(prefix.len())] += 1;
        }
        old
    }

    /// Removes a route; returns its value, if there was one.
    pub fn remove(&mut self, prefix: Ip4Prefix) -> Option<V> {
        let old = self.routes.remove(&Key(prefix));
        if old.is_some() {
            self.by_len[usize::from(prefix.len())] -= 1;
        }
        old
    }

    /// Removes all routes.
    pub fn clear(&mut self) {
        *self = Rib::new();
    }

    /// The value of exactly this route.
    pub fn get(&self, prefix: Ip4Prefix) -> Option<&V> {
        self.routes.get(&Key(prefix))
    }

    /// The value of exactly this route.
    pub fn get_mut(&mut self, prefix: Ip4Prefix) -> Option<&mut V> {
        self.routes.get_mut(&Key(prefix))
    }

    /// The route that packets to `address` take: the longest that contains it.
    pub fn lookup(&self, address: Ipv4Addr) -> Option<(Ip4Prefix, &V)> {
        self.longest(Ip4Prefix::host(address))
    }

    /// The longest route that contains `prefix` and is shorter: the one that takes over when `prefix` is removed. It
    /// doesn't matter whether `prefix` is a route.
    pub fn covering(&self, prefix: Ip4Prefix) -> Option<(Ip4Prefix, &V)> {
        self.longest(prefix.parent()?)
    }

    fn longest(&self, prefix: Ip4Prefix) -> Option<(Ip4Prefix, &V)> {
        self.routes.get_lpm(&Key(prefix)).map(|(key, value)| (key.0, value))
    }

    /// All routes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Ip4Prefix, &V)> {
        self.routes.iter().map(|(key, value)| (key.0, value))
    }

    /// The routes within `prefix`, itself included if it is one, in order.
    pub fn iter_within(&self, prefix: Ip4Prefix) -> impl Iterator<Item = (Ip4Prefix, &V)> {
        self.routes.children(&Key(prefix)).map(|(key, value)| (key.0, value))
    }

    /// The routes behind a prefix, which need not be one, in order; all, without one.
    pub fn iter_after(&self, prefix: Option<Ip4Prefix>) -> impl Iterator<Item = (Ip4Prefix, &V)> {
        let all = Ip4Prefix::clamped(Ipv4Addr::UNSPECIFIED, 0);
        let within = self.iter_within(prefix.unwrap_or(all)).filter(move |(found, _)| Some(*found) != prefix);
        // Then what lies right of it in the tree, from the nearest on.
        let right = prefix.into_iter().flat_map(|prefix| {
            (1..=prefix.len()).rev().filter_map(move |len| {
                let bit = 1 << (32 - u32::from(len));
                let left = prefix.to_bits() & bit == 0;
                left.then(|| Ip4Prefix::clamped(Ipv4Addr::from_bits(prefix.to_bits() | bit), len))
            })
        });
        within.chain(right.flat_map(|prefix| self.iter_within(prefix)))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True when there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes there are of each prefix length, 0 to 32, for `show ip fib summary`.
    pub fn count_by_len(&self) -> &[usize; 33] {
        &self.by_len
    }

    /// Bytes of memory that the table holds, without what the values own elsewhere.
    pub fn memory_bytes(&self) -> usize {
        self.routes.mem_size() + size_of_val(&self.by_len)
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for Rib<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn p(text: &str) -> Ip4Prefix {
        text.parse().unwrap()
    }

    fn table(prefixes: &[&str]) -> Rib<String> {
        let mut rib = Rib::new();
        for prefix in prefixes {
            assert_eq!(rib.insert(p(prefix), prefix.to_string()), None);
        }
        rib
    }

    #[test]
    fn routes_come_by_address_then_length() {
        let rib = table(&[
            "10.1.0.0/16",
            "192.168.0.0/24",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "10.0.0.0/16",
            "10.0.0.1/32",
        ]);
        let order: Vec<_> = rib.iter().map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(
            order,
            ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.1/32", "10.1.0.0/16", "192.168.0.0/24"]
        );
        let within: Vec<_> =
            rib.iter_within(p("10.0.0.0/15")).map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(within, ["10.0.0.0/16", "10.0.0.1/32", "10.1.0.0/16"]);
        assert_eq!(rib.iter_within(p("10.0.0.0/8")).count(), 4);
    }

    proptest! {
        #[test]
        fn a_walk_goes_on_behind_any_prefix(
            routes in prop::collection::vec((any::<u32>(), 0..=32u8), 0..30),
            from in (any::<u32>(), 0..=32u8),
            near: bool,
        ) {
            let prefix = |(bits, len): (u32, u8)| {
                // A few bits only, so that they meet.
                let bits = if near { bits & 0xf000_000f } else { bits };
                Ip4Prefix::clamped(Ipv4Addr::from_bits(bits), len)
            };
            let mut rib = Rib::new();
            for route in &routes {
                rib.insert(prefix(*route), ());
            }
            let order = |prefix: Ip4Prefix| (prefix.to_bits(), prefix.len());
            for after in routes.iter().chain([&from]).map(|route| prefix(*route)) {
                let found: Vec<_> = rib.iter_after(Some(after)).map(|(prefix, ())| prefix).collect();
                let wanted: Vec<_> =
                    rib.iter().map(|(prefix, ())| prefix).filter(|p| order(*p) > order(after)).collect();
                prop_assert_eq!(found, wanted);
            }
            prop_assert!(rib.iter_after(None).eq(rib.iter()));
        }
    }

    #[test]
    fn the_covering_route_is_strictly_shorter() {
        let rib = table(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]);
        let covering = |prefix: &str| rib.covering(p(prefix)).map(|(prefix, _)| prefix.to_string());
        assert_eq!(covering("10.1.2.0/24").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(covering("10.1.0.0/16").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(covering("10.0.0.0/8"), None);
        assert_eq!(covering("0.0.0.0/0"), None);
        assert_eq!(covering("10.1.2.128/25").as_deref(), Some("10.1.2.0/24"), "not a route itself");
        assert_eq!(rib.lookup([10, 1, 2, 3].into()).unwrap().0, p("10.1.2.0/24"));
        assert_eq!(rib.lookup([11, 0, 0, 0].into()), None);
    }

    #[test]
    fn counts_follow_inserts_and_removals() {
        let mut rib = table(&["0.0.0.0/0", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.1/32"]);
        assert_eq!(rib.insert(p("10.0.0.0/24"), "new".into()).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(
            (rib.len(), rib.count_by_len()[24], rib.count_by_len()[32], rib.count_by_len()[0]),
            (4, 2, 1, 1)
        );
        assert_eq!(rib.remove(p("10.0.1.0/24")).as_deref(), Some("10.0.1.0/24"));
        assert_eq!(rib.remove(p("10.0.1.0/24")), None);
        assert_eq!((rib.len(), rib.count_by_len()[24]), (3, 1));
        *rib.get_mut(p("10.0.0.0/24")).unwrap() = "newer".into();
        assert_eq!(rib.get(p("10.0.0.0/24")).map(String::as_str), Some("newer"));
        rib.clear();
        assert!(rib.is_empty() && rib.count_by_len().iter().all(|&count| count == 0));
    }

    fn prefix() -> impl Strategy<Value = Ip4Prefix> {
        let byte = || prop_oneof![Just(0u8), Just(1), Just(128), Just(255)];
        let dense = [byte(), byte(), byte(), byte()].prop_map(Ipv4Addr::from);
        let random = any::<u32>().prop_map(Ipv4Addr::from);
        (prop_oneof![4 => dense.boxed(), 1 => random.boxed()], 0u8..=32)
            .prop_map(|(address, len)| Ip4Prefix::new(address, len).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Ip4Prefix, u32),
        Remove(Ip4Prefix),
        RemoveNth(prop::sample::Index),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            3 => (prefix(), any::<u32>()).prop_map(|(prefix, value)| Op::Insert(prefix, value)),
            1 => prefix().prop_map(Op::Remove),
            1 => any::<prop::sample::Index>().prop_map(Op::RemoveNth),
        ];
        prop::collection::vec(op, 1..100)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_an_ordered_map(ops in ops(), probes in prop::collection::vec(prefix(), 20)) {
            let mut rib = Rib::new();
            let mut oracle = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(prefix, value) => {
                        prop_assert_eq!(rib.insert(prefix, value), oracle.insert(prefix, value));
                    }
                    Op::Remove(prefix) => prop_assert_eq!(rib.remove(prefix), oracle.remove(&prefix)),
                    Op::RemoveNth(_) if oracle.is_empty() => {}
                    Op::RemoveNth(n) => {
                        let (&prefix, _) = oracle.iter().nth(n.index(oracle.len())).unwrap();
                        prop_assert_eq!(rib.remove(prefix), oracle.remove(&prefix));
                    }
                }
            }
            prop_assert_eq!(rib.len(), oracle.len());
            prop_assert!(rib.iter().eq(oracle.iter().map(|(prefix, value)| (*prefix, value))));
            for len in 0..=32u8 {
                let count = oracle.keys().filter(|prefix| prefix.len() == len).count();
                prop_assert_eq!(rib.count_by_len()[usize::from(len)], count);
            }
            for probe in probes.into_iter().chain(oracle.keys().copied()) {
                prop_assert_eq!(rib.get(probe), oracle.get(&probe));
                let routes = || oracle.iter().map(|(prefix, value)| (*prefix, value));
                let longest = |matches: &dyn Fn(Ip4Prefix) -> bool| {
                    routes().filter(|route| matches(route.0)).max_by_key(|route| route.0.len())
                };
                prop_assert_eq!(rib.covering(probe), longest(&|route| route.covers(probe) && route != probe));
                for address in [probe.address(), probe.last_address()] {
                    prop_assert_eq!(rib.lookup(address), longest(&|route| route.contains(address)));
                }
                prop_assert!(rib.iter_within(probe).eq(routes().filter(|route| probe.covers(route.0))));
            }
        }
    }
}
