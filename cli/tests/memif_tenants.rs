//! Tenants that share wharf, but nothing else: what one sends is found in the memory of nobody but its receivers.
//!
//! All memory that a tenant and wharf share is searched: its own that it gave to a master, and wharf's that a slave
//! gave to it, rings and buffers, used and unused.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Daemon, PATIENCE, attach, connected, error, has_buffers, memif_state, settled, wait_until};
use memif::{Address, Connection, InterfaceConfig, Listener, ListenerConfig, ServerEvent};

/// What every packet is full of: this, then who sent it and to whom.
const MARK: [u8; 6] = *b"\xa7wharf";
/// As receiver: nobody, since wharf drops it.
const NOBODY: u8 = 0xff;
/// As receiver: all of the sender's bridge domain.
const FLOOD: u8 = 0xfe;

/// Tenants 0 to 2 are bridged, 3 to 5 routed. The even ones are clients, with memory of their own; the odd ones are
/// servers, with wharf's.
const TENANTS: u8 = 6;
const BRIDGED: std::ops::Range<u8> = 0..3;

fn is_client(tenant: u8) -> bool {
    tenant.is_multiple_of(2)
}

/// Whether packets between the two pass.
fn joined(a: u8, b: u8) -> bool {
    BRIDGED.contains(&a) == BRIDGED.contains(&b)
}

/// Whether what `from` sent to `to` may be in the memory of `who`.
fn may_have(who: u8, from: u8, to: u8) -> bool {
    who == from || who == to || (to == FLOOD && joined(who, from))
}

/// Where this process has memory mapped that has no file: start and end by inode.
fn shared_memory() -> BTreeMap<u64, (u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut all = BTreeMap::new();
    for line in maps.lines().filter(|line| line.contains("/memfd:")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).unwrap());
        assert_eq!(all.insert(fields[4].parse().unwrap(), (start, end)), None, "mapped once: {line}");
    }
    all
}

struct Tenant {
    number: u8,
    link: Connection,
    /// Start and end of what it shares with wharf.
    memory: Vec<(u64, u64)>,
    /// From whom to whom packets were that it received.
    received: BTreeSet<(u8, u8)>,
    _listener: Option<Listener>,
}

impl Tenant {
    fn start(number: u8, socket: &Path) -> Self {
        let before = shared_memory();
        let (link, listener) = if is_client(number) {
            (attach(socket, 0, |c| c.log2_ring_size = 6), None)
        } else {
            let config = ListenerConfig::new(Address::Path(socket.into()));
            let mut listener = Listener::bind(config, Instant::now()).unwrap();
            listener.add(InterfaceConfig::new(0, "tenant")).unwrap();
            let start = Instant::now();
            let link = loop {
                assert!(start.elapsed() < PATIENCE, "wharf does not attach");
                match listener.process(Instant::now()).pop() {
                    Some(ServerEvent::Connected(link)) => break *link,
                    Some(other) => panic!("{other:?}"),
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            (link, Some(listener))
        };
        let memory: Vec<_> =
            shared_memory().into_iter().filter(|(k, _)| !before.contains_key(k)).map(|(_, m)| m).collect();
        let size: u64 = memory.iter().map(|(start, end)| end - start).sum();
        assert!(size >= 2 * 64 * 2048, "tenant {number} shares {memory:?}");
        Self { number, link, memory, received: BTreeSet::new(), _listener: listener }
    }

    /// A packet to `to` of `len` bytes, which end with a mark.
    fn packet(&self, to: u8, len: usize) -> Vec<u8> {
        let from = self.number;
        let mac = |host: u8, who: u8| [2, 0, 0, 0, host, who];
        let bridged = BRIDGED.contains(&from);
        let mut p = match to {
            FLOOD => [0xff; 6],
            NOBODY if bridged => mac(0, 0xdd),
            to if bridged => mac(1, to),
            // The router.
            _ => mac(0, from),
        }
        .to_vec();
        p.extend(mac(1, from));
        p.extend([8, 0]);
        let total = (len - 14) as u16;
        let address = if to == NOBODY { [192, 0, 2, 1] } else { [10, 0, to, 2] };
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, from, 2];
        ip.extend(address);
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        p.extend(ip);
        let mark: Vec<u8> = MARK.into_iter().chain([from, to]).collect();
        p.extend(mark.iter().cycle().take(len - 34));
        p
    }

    /// Takes what has come, each of which must be whole and its own.
    fn receive(&mut self) -> usize {
        let (who, received) = (self.number, &mut self.received);
        let _ = self.link.control.process();
        self.link.rx[0].receive_with(256, |p| {
            let mut packet = vec![0; p.len()];
            p.copy_to(&mut packet);
            for (from, to) in marks(&packet) {
                assert!(may_have(who, from, to), "{who} received what {from} sent to {to}");
                received.insert((from, to));
            }
        })
    }

    /// Whose packets lie in the memory that it shares with wharf.
    fn search(&self, process: &File) -> BTreeSet<(u8, u8)> {
        let mut found = BTreeSet::new();
        for (start, end) in &self.memory {
            let mut bytes = vec![0; (end - start) as usize];
            process.read_exact_at(&mut bytes, *start).unwrap();
            found.extend(marks(&bytes));
        }
        for (from, to) in &found {
            assert!(
                may_have(self.number, *from, *to),
                "what {from} sent to {to} is in the memory of {}",
                self.number
            );
        }
        found
    }
}

/// From whom to whom all the marks in `bytes` are.
fn marks(bytes: &[u8]) -> BTreeSet<(u8, u8)> {
    let mark = |w: &[u8]| (w[0] == MARK[0] && w[..6] == MARK).then(|| (w[6], w[7]));
    bytes.windows(8).filter_map(mark).collect()
}

#[test]
fn nobody_sees_what_is_not_his() {
    const ROUNDS: usize = 400;
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let (mut tenants, mut script) = (Vec::new(), String::from("create bridge-domain 10 learn 0\n"));
    let socket = |who: u8| daemon.file(&format!("{who}.sock"));
    for who in 0..TENANTS {
        let (id, role) = (who + 1, if is_client(who) { "master" } else { "slave" });
        script += &format!(
            "create memif socket id {id} filename {}
             create interface memif id 0 socket-id {id} {role} ring-size 64 hw-addr 02:00:00:00:00:0{who}
             set interface state memif{id}/0 up\n",
            socket(who).display()
        );
        script += &if BRIDGED.contains(&who) {
            format!(
                "set interface l2 bridge memif{id}/0 10
                 l2fib add 02:00:00:00:01:0{who} 10 memif{id}/0 static\n"
            )
        } else {
            format!(
                "set interface ip address memif{id}/0 10.0.{who}.1/24
                 ip neighbor memif{id}/0 10.0.{who}.2 02:00:00:00:01:0{who}\n"
            )
        };
    }
    script += "l2fib add 02:00:00:00:00:dd 10 filter\n";
    daemon.script(&script);
    for who in 0..TENANTS {
        tenants.push(Tenant::start(who, &socket(who)));
        wait_until("it is connected", PATIENCE, || connected(&daemon, &format!("memif{}/0", who + 1)));
    }
    wait_until("there are buffers", PATIENCE, || {
        (1..=TENANTS).all(|id| has_buffers(&daemon, &format!("memif{id}/0")))
    });

    let process = File::open("/proc/self/mem").unwrap();
    let mut random = 1u64;
    let mut length = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Long ones, so that buffers are full of them, and short ones behind them.
        34 + 8 * if random >> 63 == 0 {
            4 + (random >> 40) as usize % 10
        } else {
            4 + (random >> 40) as usize % 180
        }
    };
    // Who has had whose packets in its memory.
    let mut found = BTreeSet::new();
    for round in 0..ROUNDS {
        for from in 0..TENANTS {
            let mut receivers: Vec<u8> = (0..TENANTS).filter(|to| *to != from && joined(from, *to)).collect();
            receivers.push(if BRIDGED.contains(&from) && round % 2 == 0 { FLOOD } else { NOBODY });
            let tenant = &mut tenants[usize::from(from)];
            let packets: Vec<_> = receivers.iter().map(|to| tenant.packet(*to, length())).collect();
            // A full ring loses packets, which is no leak.
            tenant.link.tx[0].transmit(packets.as_slice());
            tenant.link.tx[0].kick();
        }
        for tenant in &mut tenants {
            tenant.receive();
        }
        if round % 10 == 0 {
            found.extend(tenants.iter().flat_map(|t| t.search(&process).into_iter().map(|m| (t.number, m))));
        }
    }
    while tenants.iter_mut().map(Tenant::receive).sum::<usize>() != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    found.extend(tenants.iter().flat_map(|t| t.search(&process).into_iter().map(|m| (t.number, m))));

    // The search sees what is there: each one's own packets, and those that it received.
    for who in 0..TENANTS {
        for from in 0..TENANTS {
            let to = if who == from { NOBODY } else { who };
            let has = found.contains(&(who, (from, to)));
            assert_eq!(has, joined(who, from), "{from} to {to}, {who}: {}", memif_state(&daemon));
        }
        let others = |(from, to): &&(u8, u8)| *from != who && *to == who;
        assert_eq!(tenants[usize::from(who)].received.iter().filter(others).count(), 2, "{who}");
    }
    // What nobody may see has been in wharf's buffers.
    assert!(error(&daemon, "ip4-lookup", "no route to destination") > ROUNDS as u64);
    drop(tenants);
    settled(&daemon);
}
