use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

const SEED: [u64; 2] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];

fn table(buckets: usize) -> Bihash {
    Bihash::new(buckets, SEED).unwrap()
}

fn set(t: &Bihash, key: u64, value: u64) -> Put {
    t.put(key, |_| Some(value), Some)
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u64),
    Remove(u64),
    Refresh(u64, u64),
    Sweep(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // More keys than a table of 64 buckets has room for, so that all its ways to run out are gone through.
    let key = 1u64..700;
    prop::collection::vec(
        prop_oneof![
            8 => (key.clone(), 1u64..1000).prop_map(|(k, v)| Op::Put(k, v)),
            2 => key.clone().prop_map(Op::Remove),
            1 => (key, 1u64..1000).prop_map(|(k, v)| Op::Refresh(k, v)),
            1 => (1u64..1000).prop_map(Op::Sweep),
        ],
        0..2000,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_a_map(ops in ops(), seed: [u64; 2]) {
        let table = Bihash::new(64, seed).unwrap();
        let mut map = HashMap::new();
        for op in ops {
            match op {
                Op::Put(key, value) => match table.put(key, |_| Some(value), Some) {
                    Put::Added => prop_assert_eq!(map.insert(key, value), None),
                    Put::Changed(old) => prop_assert_eq!(map.insert(key, value), Some(old)),
                    Put::Evicted { key: gone, value: old } => {
                        prop_assert_eq!(map.remove(&gone), Some(old));
                        prop_assert_eq!(map.insert(key, value), None);
                    }
                    other => prop_assert!(false, "{:?}", other),
                },
                Op::Remove(key) => prop_assert_eq!(table.remove(key, |_| true).unwrap(), map.remove(&key)),
                Op::Refresh(key, new) => {
                    let old = map.get(&key).copied();
                    prop_assert!(!table.refresh(key, old.unwrap_or(0) + 1, new));
                    prop_assert_eq!(table.refresh(key, old.unwrap_or(0), new), old.is_some());
                    map.entry(key).and_modify(|v| *v = new);
                }
                Op::Sweep(limit) => {
                    for part in 0..table.parts() {
                        let gone = table.scan(part, |key, value| {
                            assert_eq!(map.get(&key), Some(&value));
                            if value < limit { Verdict::Remove } else { Verdict::Keep }
                        });
                        assert!(gone.iter().all(|(key, value)| *value < limit && map.remove(key) == Some(*value)));
                    }
                    assert!(map.values().all(|value| *value >= limit));
                }
            }
        }
        for key in 1..700 {
            prop_assert_eq!(table.get(key), map.get(&key).copied());
        }
    }
}

#[test]
fn holds_a_third_of_its_capacity_without_giving_anything_up() {
    let t = table(1024);
    let keys = t.capacity() as u64 / 3;
    for key in 1..=keys {
        assert_eq!(set(&t, key << 16 | 7, key), Put::Added, "{key} of {keys}");
    }
    assert!((1..=keys).all(|key| t.get(key << 16 | 7) == Some(key)));
}

#[test]
fn protected_entries_stay() {
    let t = table(64);
    let keep = |value: u64| (value >= 1000).then_some(value);
    (1..=1000).for_each(|key| _ = t.put(key, |_| Some(1), keep));
    let full = (1..=1000).filter(|key| t.get(*key).is_some()).count();
    assert!((1001..=2000).all(|key| matches!(t.put(key, |_| Some(1), keep), Put::Full | Put::Added)));
    assert!((1..=1000).filter(|key| t.get(*key).is_some()).count() == full);
    assert_eq!(t.put(EMPTY, |_| Some(1), keep), Put::Full);
}

#[test]
fn a_reader_never_sees_one_keys_value_under_another() {
    let t = table(64);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (t, stop) = (&t, &stop);
            scope.spawn(move || {
                let mut key = 0;
                while !stop.load(Ordering::Relaxed) {
                    key = (key + 1) % 2000;
                    let key = key * 2 + part + 1;
                    t.put(key, |_| Some(key * 3), Some);
                    t.refresh(key, key * 3, key * 3);
                    let _ = t.remove(key / 2, |_| true);
                }
            });
        }
        for _ in 0..20 {
            for key in 1..4000 {
                assert!(t.get(key).is_none_or(|value| value == key * 3));
            }
            for part in 0..t.parts() {
                t.scan(part, |key, value| {
                    assert_eq!(value, key * 3);
                    Verdict::Keep
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn crafted_for_one_seed_is_nothing_for_another() {
    let known = table(1 << 12);
    let crafted: Vec<u64> = (1u64..).filter(|k| known.first(known.place(*k)) == 5).take(200).collect();
    let other = Bihash::new(1 << 12, [77, 99]).unwrap();
    crafted.iter().for_each(|key| assert_eq!(set(&other, *key, 1), Put::Added));
    assert!(crafted.iter().all(|key| other.get(*key) == Some(1)));
}
