use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

/// A route table that searches every route for every address.
#[derive(Default)]
struct Oracle(Vec<(u32, u8, u32)>);

impl Oracle {
    fn insert(&mut self, prefix: u32, len: u8, value: u32) {
        self.remove(prefix, len);
        self.0.push((mask(prefix, len), len, value));
    }

    fn remove(&mut self, prefix: u32, len: u8) {
        self.0.retain(|route| (route.0, route.1) != (mask(prefix, len), len));
    }

    fn best(&self, addr: u32, below: u8) -> Option<(u8, u32)> {
        self.0
            .iter()
            .filter(|route| route.1 < below && mask(addr, route.1) == route.0)
            .map(|route| (route.1, route.2))
            .max()
    }

    fn lookup(&self, addr: u32) -> u32 {
        self.best(addr, 33).map_or(0, |(_, value)| value)
    }
}

/// The trie and the oracle under the same updates.
struct Pair {
    writer: MtrieWriter,
    oracle: Oracle,
}

impl Pair {
    fn new(max_plies: u32) -> Pair {
        Pair { writer: MtrieWriter::new(max_plies), oracle: Oracle::default() }
    }

    fn insert(&mut self, prefix: u32, len: u8, value: u32) {
        match self.writer.insert(prefix, len, value) {
            Ok(()) => self.oracle.insert(prefix, len, value),
            Err(MtrieError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn remove(&mut self, prefix: u32, len: u8) {
        self.oracle.remove(prefix, len);
        self.writer.remove(prefix, len, self.oracle.best(prefix, len));
    }

    fn reclaim(&mut self) {
        let retired = self.writer.take_retired();
        self.writer.reclaim(retired);
    }

    fn check(&self, addrs: impl IntoIterator<Item = u32>) {
        let table = self.writer.table();
        for addr in addrs {
            let expected = self.oracle.lookup(addr);
            assert_eq!(table.lookup(addr), expected, "{addr:#010x}");
        }
    }

    /// The edges of `prefix/len`, and their neighbours outside.
    fn check_edges(&self, prefix: u32, len: u8) {
        let first = mask(prefix, len);
        let last = first | !mask(u32::MAX, len);
        self.check([first, last, first.wrapping_sub(1), last.wrapping_add(1), prefix]);
    }

    fn check_all_edges(&self) {
        for &(prefix, len, _) in &self.oracle.0 {
            self.check_edges(prefix, len);
        }
        self.check([0, u32::MAX, 0x7fff_ffff, 0x8000_0000]);
    }

    /// Recounts the plies and their occupancy from the slots.
    fn check_counts(&self) {
        fn visit(writer: &MtrieWriter, node: Node, live: &mut u32) {
            let slots = if node.ply.is_some() { PLY_SLOTS } else { ROOT_SLOTS };
            let mut specific = 0u32;
            for index in 0..slots {
                let slot = Slot { node, index };
                if let Some(child) = writer.child(slot) {
                    *live += 1;
                    specific += 1;
                    visit(writer, child, live);
                } else {
                    let len = writer.entry(slot).len;
                    assert!(len <= node.end());
                    specific += u32::from(len > node.base);
                }
            }
            if let Some(ply) = node.ply {
                assert!(specific > 0, "an empty ply is still linked");
                assert_eq!(u32::from(writer.occupancy[ply as usize]), specific);
            }
        }
        let mut live = 0;
        visit(&self.writer, Node::ROOT, &mut live);
        assert_eq!(self.writer.ply_counts().live, live);
    }

    fn check_empty(&self) {
        assert!(self.oracle.0.is_empty());
        assert!(self.writer.table.root.slots.iter().all(|slot| slot.load(Ordering::Relaxed) == 0));
        assert!(self.writer.table.root.lens.iter().all(|len| len.load(Ordering::Relaxed) == 0));
        assert_eq!(self.writer.ply_counts().live, 0);
        assert_eq!(self.writer.ply_counts().retired, 0);
        assert_eq!(self.writer.free.len(), self.writer.occupancy.len());
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u32, u8, u32),
    Remove(u32, u8),
    RemoveNth(usize),
    Reclaim,
}

/// Prefixes that collide often: bytes at the edges of a ply, lengths at the edges of a stride.
fn dense() -> impl Strategy<Value = (u32, u8)> {
    let byte = || prop_oneof![Just(0u8), Just(1), Just(127), Just(128), Just(254), Just(255)];
    let len = prop_oneof![0u8..=32, prop_oneof![Just(0u8), 7u8..=9, 15u8..=17, 23u8..=25, 31u8..=32]];
    (prop_oneof![Just(10u8), Just(0), Just(255)], Just(0u8), byte(), byte(), len)
        .prop_map(|(a, b, c, d, len)| (u32::from_be_bytes([a, b, c, d]), len))
}

fn random() -> impl Strategy<Value = (u32, u8)> {
    (any::<u32>(), 0u8..=32)
}

fn ops(prefix: impl Strategy<Value = (u32, u8)> + Clone) -> impl Strategy<Value = Vec<Op>> {
    let value = || prop_oneof![9 => 1u32..=4, 1 => Just(0u32), 1 => Just(MAX_VALUE)];
    let op = prop_oneof![
        6 => (prefix.clone(), value()).prop_map(|((prefix, len), value)| Op::Insert(prefix, len, value)),
        2 => prefix.prop_map(|(prefix, len)| Op::Remove(prefix, len)),
        3 => any::<usize>().prop_map(Op::RemoveNth),
        1 => Just(Op::Reclaim),
    ];
    prop::collection::vec(op, 1..60)
}

fn run(ops: Vec<Op>, max_plies: u32) {
    let mut pair = Pair::new(max_plies);
    for op in ops {
        match op {
            Op::Insert(prefix, len, value) => {
                pair.insert(prefix, len, value);
                pair.check_edges(prefix, len);
            }
            Op::Remove(prefix, len) => {
                pair.remove(prefix, len);
                pair.check_edges(prefix, len);
            }
            Op::RemoveNth(n) if !pair.oracle.0.is_empty() => {
                let (prefix, len, _) = pair.oracle.0[n % pair.oracle.0.len()];
                pair.remove(prefix, len);
                pair.check_edges(prefix, len);
            }
            Op::RemoveNth(_) => {}
            Op::Reclaim => pair.reclaim(),
        }
    }
    pair.check_all_edges();
    pair.check_counts();
    while let Some(&(prefix, len, _)) = pair.oracle.0.last() {
        pair.remove(prefix, len);
        pair.check_all_edges();
    }
    pair.reclaim();
    pair.check_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle_on_nested_prefixes(ops in ops(dense().boxed())) {
        run(ops, 1000);
    }

    #[test]
    fn agrees_with_the_oracle_on_random_prefixes(ops in ops(random().boxed())) {
        run(ops, 1000);
    }

    #[test]
    fn agrees_with_the_oracle_when_plies_run_out(ops in ops(dense().boxed()), max_plies in 0u32..6) {
        run(ops, max_plies);
    }
}

#[test]
fn an_empty_table_has_no_route() {
    let writer = MtrieWriter::new(0);
    assert_eq!([0, 1, 0x0a00_0001, u32::MAX].map(|addr| writer.table().lookup(addr)), [0; 4]);
    assert_eq!(writer.ply_counts(), PlyCounts { live: 0, retired: 0, max: 0 });
}

#[test]
fn the_longest_of_nested_prefixes_wins_at_every_length() {
    let mut pair = Pair::new(2);
    let addr = 0x0a0b_0c0d;
    for len in 0..=32 {
        pair.insert(addr, len, u32::from(len) + 1);
        assert_eq!(pair.writer.table().lookup(addr), u32::from(len) + 1);
    }
    pair.check_all_edges();
    for len in (0..=32).rev() {
        pair.remove(addr, len);
        assert_eq!(pair.writer.table().lookup(addr), u32::from(len));
    }
    pair.reclaim();
    pair.check_empty();
}

#[test]
fn a_refused_insert_changes_nothing() {
    let mut writer = MtrieWriter::new(1);
    writer.insert(0x0a00_0000, 8, 7).unwrap();
    let full = MtrieError::Full { max_plies: 1, retired: 0 };
    assert_eq!(writer.insert(0x0a01_0203, 32, 9), Err(full), "needs two plies");
    assert_eq!(writer.ply_counts().live, 0);
    assert_eq!(writer.table().lookup(0x0a01_0203), 7);
    writer.insert(0x0a01_0200, 24, 9).unwrap();
    assert_eq!(writer.insert(0x0a02_0200, 24, 10), Err(full));
    assert_eq!(writer.insert(0x0a01_0203, 32, 10), Err(full));
    assert_eq!(
        [0x0a01_0203, 0x0a02_0203, 0x0a01_0303, 0].map(|addr| writer.table().lookup(addr)),
        [9, 7, 7, 0]
    );
    writer.insert(0x0a02_0000, 16, 11).expect("the root has room for every short prefix");

    assert_eq!(writer.insert(0, 33, 1), Err(MtrieError::PrefixLength(33)));
    assert_eq!(writer.insert(0, 0, MAX_VALUE + 1), Err(MtrieError::Value(MAX_VALUE + 1)));
    assert_eq!(writer.table().lookup(0), 0);
}

#[test]
fn a_ply_is_used_again_only_after_it_is_reclaimed() {
    let mut writer = MtrieWriter::new(2);
    writer.insert(0x0a01_0203, 32, 1).unwrap();
    writer.remove(0x0a01_0203, 32, None);
    assert_eq!(writer.ply_counts(), PlyCounts { live: 0, retired: 2, max: 2 });
    let full = MtrieError::Full { max_plies: 2, retired: 2 };
    assert_eq!(writer.insert(0x0a01_0200, 24, 1), Err(full));
    let retired = writer.take_retired();
    assert_eq!(retired.len(), 2);
    assert_eq!(writer.insert(0x0a01_0200, 24, 1), Err(full));
    writer.reclaim(retired);
    writer.insert(0x0a01_0200, 24, 1).unwrap();
    assert!(writer.take_retired().is_empty());
}

#[test]
fn plies_of_another_table_are_not_reclaimed() {
    let mut a = MtrieWriter::new(10);
    a.insert(0x0a01_0203, 32, 1).unwrap();
    a.remove(0x0a01_0203, 32, None);
    let mut b = MtrieWriter::new(10);
    b.insert(0x0b01_0200, 24, 1).unwrap();
    b.reclaim(a.take_retired());
    b.insert(0x0c01_0200, 24, 2).unwrap();
    assert_eq!(
        [0x0b01_0201, 0x0c01_0201, 0x0b01_0301, 0x0c01_0301].map(|addr| b.table().lookup(addr)),
        [1, 2, 0, 0]
    );
    assert_eq!(b.ply_counts().live, 2);
}

#[test]
fn plies_in_several_chunks() {
    let mut writer = MtrieWriter::new(3 * CHUNK_PLIES as u32);
    let routes = 0..3 * CHUNK_PLIES as u32;
    for i in routes.clone() {
        writer.insert(i << 16, 24, i + 1).unwrap();
    }
    assert!(matches!(writer.insert(0xffff_0000, 24, 1), Err(MtrieError::Full { .. })));
    for i in routes.clone() {
        assert_eq!(
            [i << 16, i << 16 | 255, i << 16 | 256, 0xffff_0000].map(|addr| writer.table().lookup(addr)),
            [i + 1, i + 1, 0, 0]
        );
    }
    let full = writer.memory_bytes();
    assert!(full > routes.len() * 1280 && full < routes.len() * 1300 + (400 << 10), "{full}");
}

/// A reader looks up without pause while the writer adds and removes routes around its addresses, with the grace period
/// that `reclaim` asks for. Each address may only ever show the values of routes that contain it.
#[test]
fn a_reader_sees_only_values_of_routes_that_contain_the_address() {
    const ADDRS: [(u32, &[u32]); 6] = [
        (0x0a00_0001, &[1]),             // only the /8, but its slot turns into plies and back
        (0x0a01_0001, &[1, 2]),          // /16
        (0x0a00_8001, &[1, 3]),          // /17
        (0x0a00_c001, &[1, 3, 4]),       // /20
        (0x0a00_c0fe, &[1, 3, 4, 5]),    // /30
        (0x0a00_c0ff, &[1, 3, 4, 5, 6]), // /32
    ];
    const FLIPS: [(u32, u8, u32); 5] = [
        (0x0a01_0000, 16, 2),
        (0x0a00_8000, 17, 3),
        (0x0a00_c000, 20, 4),
        (0x0a00_c0fc, 30, 5),
        (0x0a00_c0ff, 32, 6),
    ];
    // A second prefix competes for the plies, so that they change their place in the tree.
    const OTHER: (u32, u8, u32) = (0x0b00_0000, 32, 9);

    let mut pair = Pair::new(4);
    pair.insert(0x0a00_0000, 8, 1);
    let table = Arc::clone(pair.writer.table());
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    // Each side ends the other, also when it panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = Stop(&stop);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    for (addr, legal) in ADDRS {
                        let value = table.lookup(addr);
                        assert!(legal.contains(&value), "{addr:#010x}: {value}");
                    }
                    for addrs in ADDRS.windows(4) {
                        let values = [0, 1, 2, 3].map(|i: usize| table.lookup(addrs[i].0));
                        for ((addr, legal), value) in addrs.iter().zip(values) {
                            assert!(legal.contains(&value), "{addr:#010x}: {value}");
                        }
                    }
                }
                turns.fetch_add(1, Ordering::Release);
            }
        });
        let _stop = Stop(&stop);
        let mut state = 1u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for _ in 0..if cfg!(miri) { 60 } else { 20_000 } {
            let flip = next() as usize % (FLIPS.len() + 1);
            let &(prefix, len, value) = FLIPS.get(flip).unwrap_or(&OTHER);
            if pair.oracle.0.iter().any(|route| (route.0, route.1) == (prefix, len)) {
                pair.remove(prefix, len);
            } else {
                pair.insert(prefix, len, value);
            }
            let retired = pair.writer.take_retired();
            if !retired.is_empty() {
                // A turn that began after the removal has to end.
                let seen = turns.load(Ordering::Acquire);
                while turns.load(Ordering::Acquire) < seen + 2 {
                    thread::yield_now();
                    assert!(!stop.load(Ordering::Relaxed), "the reader has failed");
                }
                pair.writer.reclaim(retired);
            }
        }
        pair.check_all_edges();
    });
}
