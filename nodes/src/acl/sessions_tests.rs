//! What sessions promise: who pays for room, when they end, and that the table is one.

use super::*;
use crate::acl::Fields;
use std::collections::HashMap;

const SEED: [u64; 4] = [11, 22, 33, 44];

fn udp(src: u32, dst: u32, sport: u16, dport: u16) -> Fields {
    Fields {
        src: src.into(),
        dst: dst.into(),
        sport,
        dport,
        protocol: 17,
        has_ports: true,
        ..Fields::default()
    }
}

fn key(interface: u32, n: u32) -> SessionKey {
    SessionKey::new(&udp(10 << 24 | n >> 16, 20, n as u16, 53), SwIfIndex(interface), false).unwrap()
}

fn opener() -> Opener {
    Opener { counter: 3, epoch: 7, output: false }
}

fn open(t: &SessionTable, key: &SessionKey, share: u32) -> Opened {
    t.open(key, 0, opener(), Ticks(1000), &Timeouts::default(), share)
}

#[test]
fn both_directions_have_one_key() {
    let there = Fields { flags: 2, protocol: 6, ..udp(1, 2, 1000, 80) };
    let back = Fields { src: 2, dst: 1, sport: 80, dport: 1000, ..there };
    let key = SessionKey::new(&there, SwIfIndex(5), false);
    assert_eq!(SessionKey::new(&back, SwIfIndex(5), true), key);
    assert_ne!(SessionKey::new(&back, SwIfIndex(5), false), key);
    assert_ne!(SessionKey::new(&there, SwIfIndex(6), false), key);
    let first = key.unwrap().opening(false);
    assert_eq!((first.src, first.dst, first.sport, first.dport, first.flags), (1, 2, 1000, 80, 2));
    // Opened on the way out, the first packet is the one sent.
    assert_eq!(SessionKey::new(&there, SwIfIndex(5), true).unwrap().opening(true).dport, 80);
    let echo = Fields { protocol: 1, icmp_id: 9, ..udp(1, 2, 8, 0) };
    let reply = Fields { protocol: 1, icmp_id: 9, ..udp(2, 1, 0, 0) };
    let key = SessionKey::new(&echo, SwIfIndex(5), false);
    assert_eq!(SessionKey::new(&reply, SwIfIndex(5), true), key);
    assert_eq!(key.unwrap().opening(false).sport, 8);
    assert_eq!(SessionKey::new(&Fields { protocol: 1, ..udp(1, 2, 3, 1) }, SwIfIndex(5), false), None);
    let v6 = Fields { is_v6: true, src: 1 << 100, dst: 2 << 100, ..there };
    let first = SessionKey::new(&v6, SwIfIndex(5), false).unwrap().opening(false);
    assert_eq!((first.src, first.dst, first.is_v6), (1 << 100, 2 << 100, true));
}

#[test]
fn a_tcp_connection_from_opening_to_end() {
    let (syn, ack, fin, rst) = (2, 16, 1, 4);
    let mut state = State::new(Ticks(0), syn, false);
    assert!(!state.is_established());
    for (flags, output) in [(syn | ack, true), (ack, false)] {
        state = state.seen(Ticks(1), flags, output);
    }
    assert!(state.is_established());
    let closing = state.seen(Ticks(2), fin | ack, false);
    assert!(closing.is_established(), "half closed");
    let closed = closing.seen(Ticks(3), fin | ack, true);
    assert!(!closed.is_established() && !state.seen(Ticks(3), rst, true).is_established());
    assert_eq!(closed.seen(Ticks(4), syn, false).tcp_flags(), [syn, 0], "a new connection");
    let times = Timeouts::default();
    let after = |state: State, seconds| state.is_expired(true, Ticks(3 + Ticks::seconds(seconds).0), &times);
    assert!(after(closed, 32) && !after(closed, 30) && !after(state, 3000) && after(state, 3700));
    assert!(!State::new(Ticks(9), 0, false).is_expired(false, Ticks(8), &times), "another worker's clock");
}

#[test]
fn a_flood_costs_its_own_interface() {
    let t = SessionTable::new(4096, SEED).unwrap();
    let share = 1024;
    let bystanders: Vec<SessionKey> = (0..500).map(|n| key(2, n)).collect();
    assert!(bystanders.iter().all(|k| open(&t, k, share) == Opened::New));
    let mut refused = 0;
    for n in 0..1_000_000 {
        refused += u32::from(open(&t, &key(1, n), share) == Opened::Full);
    }
    assert!(bystanders.iter().all(|k| t.find(k).is_some()));
    assert_eq!((t.count(SwIfIndex(2)), t.count(SwIfIndex(1)) <= share), (500, true));
    // The flooding interface too still gets sessions.
    assert!(refused < 20_000, "{refused}");
    assert!((0..100).all(|n| open(&t, &key(3, n), share) == Opened::New));
    // All of it can be given back.
    for part in 0..t.parts() {
        t.sweep(part, |_| true);
    }
    assert_eq!([1, 2, 3].map(|i| t.count(SwIfIndex(i))), [0; 3]);
    assert!(t.sets.iter().all(|s| s.bucket.tags.iter().all(|tag| tag.load(Ordering::Relaxed) == 0)));
}

#[test]
fn collisions_cost_their_own_interface() {
    let t = SessionTable::new(1024, SEED).unwrap();
    let victim = key(2, 1);
    assert_eq!(open(&t, &victim, 256), Opened::New);
    let places = t.places(t.hash(&victim));
    let crafted: Vec<SessionKey> =
        (0..).map(|n| key(1, n)).filter(|k| places.contains(&t.places(t.hash(k))[0])).take(300).collect();
    for k in &crafted {
        open(&t, k, 256);
    }
    assert!(t.find(&victim).is_some());
    let other = SessionTable::new(1024, [5, 6, 7, 8]).unwrap();
    let all = crafted.iter().filter(|k| open(&other, k, 512) == Opened::New).count();
    assert_eq!(all, crafted.len(), "crafted for one seed is nothing for another");
}

#[test]
fn half_open_sessions_go_before_established_ones() {
    let t = SessionTable::new(1024, SEED).unwrap();
    let tcp = |n: u32| {
        let f = Fields { protocol: 6, flags: 2, ..udp(n, 7, 99, 80) };
        SessionKey::new(&f, SwIfIndex(1), false).unwrap()
    };
    let kept: Vec<SessionKey> = (0..50).map(tcp).collect();
    for k in &kept {
        t.open(k, 2, opener(), Ticks(10), &Timeouts::default(), 128);
        for (flags, output) in [(0x12, true), (0x10, false)] {
            t.touch(&t.find(k).unwrap(), Ticks(10), flags, output);
        }
        assert!(t.find(k).unwrap().state.is_established());
    }
    for n in 1000..100_000 {
        t.open(&tcp(n), 2, opener(), Ticks(20), &Timeouts::default(), 128);
    }
    assert!(kept.iter().all(|k| t.find(k).is_some()));
    // Those that have been silent for long may go.
    for n in 1000..100_000 {
        t.open(
            &tcp(n),
            2,
            opener(),
            Ticks(1 << 16),
            &Timeouts { tcp_idle: Ticks(1 << 18), ..Timeouts::default() },
            128,
        );
    }
    assert!(kept.iter().any(|k| t.find(k).is_none()));
}

#[test]
fn agrees_with_a_map() {
    let t = SessionTable::new(8192, SEED).unwrap();
    let mut map = HashMap::new();
    let mut random = 1u64;
    for step in 0..200_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let n = (random >> 40) as u32 % 3000;
        let k = key(1, n);
        if random >> 20 & 3 == 0 {
            t.close(&k);
            map.remove(&n);
        } else if map.insert(n, ()).is_none() {
            assert_eq!(open(&t, &k, u32::MAX), Opened::New, "{step}");
        } else {
            assert_eq!(open(&t, &k, u32::MAX), Opened::Known);
        }
        assert_eq!(t.count(SwIfIndex(1)) as usize, map.len());
    }
    assert!((0..3000).all(|n| t.find(&key(1, n)).is_some() == map.contains_key(&n)));
    let listed: usize = (0..t.parts()).map(|part| t.list(part).len()).sum();
    assert_eq!(listed, map.len());
}

#[test]
fn readers_never_see_one_session_under_another_key() {
    let t = SessionTable::new(1024, SEED).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let counter = |n: u32| Opener { counter: n, epoch: 0, output: false };
    std::thread::scope(|scope| {
        let writers = (0..2).map(|part| {
            let (t, stop) = (&t, &stop);
            scope.spawn(move || {
                let mut n = part;
                while !stop.load(Ordering::Relaxed) {
                    n = (n + 2) % 4000;
                    t.open(&key(1, n), 0, counter(n), Ticks(n), &Timeouts::default(), 512);
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        for _ in 0..50 {
            for n in 0..4000 {
                assert!(t.find(&key(1, n)).is_none_or(|found| found.opener.counter == n));
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|w| w.join().unwrap());
    });
}

/// What was not there when it was looked for is not opened twice.
#[test]
fn a_miss_is_believed_as_long_as_nobody_was_at_the_bucket() {
    let t = SessionTable::new(1024, SEED).unwrap();
    let open = |key: &SessionKey, miss: Miss, share: u32| {
        t.open_missed(key, miss, 0, opener(), Ticks(1000), &Timeouts::default(), share)
    };
    let key = key(1, 7);
    let [early, late] = [(); 2].map(|()| t.look(&key).unwrap_err());
    assert_eq!(open(&key, early, 9), Opened::New);
    assert_eq!(open(&key, late, 9), Opened::Known);
    assert_eq!(open(&key, t.missed(&key), 9), Opened::Known);
    assert_eq!(t.count(SwIfIndex(1)), 1);
    t.close(&key);
    let (miss, [first, _]) = (t.look(&key).unwrap_err(), t.buckets(&key));
    let locked = t.lock(first).unwrap();
    let during = t.look(&key).unwrap_err();
    assert_eq!(open(&key, miss, 9), Opened::Busy);
    drop(locked);
    assert_eq!(open(&key, during, 9), Opened::New);
    assert_eq!(open(&key, miss, 9), Opened::Known);
}
