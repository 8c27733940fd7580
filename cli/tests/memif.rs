//! memif with real peers: the example application of the memif crate, and dpdk-testpmd.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{
    Background, Daemon, Netns, PATIENCE, PortStats, Testpmd, TestpmdPort, Veth, attach, connected, counter,
    dies_with_us, error, memif_example, settled, wait_until,
};

/// A pod behind AF_XDP pings an application behind memif; wharf is the router between them, in either role.
#[test]
fn a_pod_pings_an_application() {
    let responder = memif_example("icmp_responder");
    let (dp, pod) = (Netns::new("dp"), Netns::new("a"));
    let _veth = Veth::new(&dp, "veth-a", &pod, "10.0.1.2/24", 1);
    pod.ip("route add default via 10.0.1.1");
    let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
    daemon.script(
        "create interface af_xdp host-if veth-a name veth-a
         set interface ip address veth-a 10.0.1.1/24
         set interface state veth-a up",
    );
    for (socket, ours, theirs) in [(1, "master", "client"), (2, "slave", "server")] {
        let path = daemon.file(&format!("{socket}.sock"));
        let (memif, address) = (format!("memif{socket}/0"), format!("10.0.{}.2", 10 + socket));
        daemon.script(&format!(
            "create memif socket id {socket} filename {}
             create interface memif id 0 socket-id {socket} {ours}
             set interface ip address {memif} 10.0.{}.1/24
             set interface state {memif} up",
            path.display(),
            10 + socket
        ));
        let start = || {
            let mut command = dies_with_us(None, &responder);
            command.arg("--socket").arg(&path).args(["--id", "0", "--ip", &address, "--role", theirs]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let process = Background(command.spawn().unwrap());
            wait_until("the application is connected", PATIENCE, || connected(&daemon, &memif));
            process
        };
        let application = start();
        assert_eq!(pod.ping(&address, 5), 5, "wharf is {ours}");
        drop(application);
        wait_until("wharf sees the application go", PATIENCE, || !connected(&daemon, &memif));
        assert_eq!(pod.ping(&address, 1), 0);
        let _application = start();
        assert_eq!(pod.ping(&address, 5), 5, "wharf is {ours}, the application started again");
        settled(&daemon);
    }
}

/// Whether all rings towards the client have been filled with buffers.
fn has_buffers(daemon: &Daemon, interface: &str) -> bool {
    let memif = daemon.json(&format!("show memif {interface}"));
    let mut rings = memif["interfaces"][0]["rings"].as_array().unwrap().iter();
    rings.all(|ring| ring["direction"] != "master-to-slave" || ring["head"] != ring["tail"])
}

/// What there is to see when packets do not go round.
fn state(daemon: &Daemon) -> String {
    ["show interface", "show errors", "show packets", "show interface rx-placement", "show memif"]
        .map(|show| daemon.script(show))
        .concat()
}

/// Packets go round: out of one port of testpmd, through wharf's cross-connect, into the other, and back.
fn round(theirs: &'static str, queues: u16) {
    let ours = if theirs == "client" { "master" } else { "slave" };
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let sockets = [daemon.file("1.sock"), daemon.file("2.sock")];
    for (id, socket) in (1..).zip(&sockets) {
        daemon.script(&format!(
            "create memif socket id {id} filename {}
             create interface memif id 0 socket-id {id} {ours} rx-queues {queues} tx-queues {queues}
             set interface state memif{id}/0 up",
            socket.display()
        ));
    }
    daemon.script(
        "set interface l2 xconnect memif1/0 memif2/0
         set interface l2 xconnect memif2/0 memif1/0",
    );
    // Killed by SIGKILL at the end of each turn.
    for turn in 0..2 {
        if theirs == "server" {
            // What a killed testpmd leaves behind.
            sockets.iter().for_each(|socket| drop(std::fs::remove_file(socket)));
        }
        let ports = sockets.each_ref().map(|socket| TestpmdPort::new(theirs, 0, socket));
        let mut testpmd = Testpmd::start(&ports, queues, &["--forward-mode=io"]);
        for id in 1..=2 {
            wait_until("memif is connected", PATIENCE, || connected(&daemon, &format!("memif{id}/0")));
        }
        // As client it gives buffers to receive into when it first looks for packets.
        testpmd.command("start");
        for id in 1..=2 {
            wait_until("there are buffers", PATIENCE, || has_buffers(&daemon, &format!("memif{id}/0")));
        }
        testpmd.command("stop");
        for size in [64, 512, 1500, 2034] {
            let before = testpmd.stats();
            let bytes = counter(&daemon, "memif1/0", "rx bytes");
            testpmd.command(&format!("set txpkts {size}"));
            testpmd.command("start tx_first");
            let start = Instant::now();
            let far = |now: &PortStats, before: &PortStats| now.rx_packets > before.rx_packets + 1000;
            while !testpmd.stats().iter().zip(&before).all(|(now, before)| far(now, before)) {
                assert!(start.elapsed() < PATIENCE, "packets do not go round: {}", state(&daemon));
                std::thread::sleep(Duration::from_millis(10));
            }
            testpmd.command("stop");
            assert!(counter(&daemon, "memif1/0", "rx bytes") > bytes + 1000 * 64);
            assert!(testpmd.stats().iter().all(|port| port.rx_errors == 0), "turn {turn}, size {size}");
        }
        let sent: u64 = testpmd.stats().iter().map(|port| port.tx_packets).sum();
        if turn == 0 {
            let received =
                || -> u64 { (1..=2).map(|i| counter(&daemon, &format!("memif{i}/0"), "rx packets")).sum() };
            wait_until("wharf has all that was sent", PATIENCE, || sent == received());
        }
        drop(testpmd);
        for id in 1..=2 {
            wait_until("wharf sees it go", PATIENCE, || !connected(&daemon, &format!("memif{id}/0")));
        }
        settled(&daemon);
    }
}

/// wharf routes between two ports of testpmd, which sends each packet back to where it came from (mode `5tswap`) until
/// wharf has counted its time to live down.
fn routed(theirs: &'static str, queues: u16) {
    let ours = if theirs == "client" { "master" } else { "slave" };
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let sockets = [daemon.file("1.sock"), daemon.file("2.sock")];
    for (id, socket) in (1..).zip(&sockets) {
        daemon.script(&format!(
            "create memif socket id {id} filename {}
             create interface memif id 0 socket-id {id} {ours} hw-addr 02:00:00:00:00:0{id} rx-queues {queues} \
tx-queues {queues}
             set interface ip address memif{id}/0 10.0.{id}.1/24
             set interface state memif{id}/0 up
             ip neighbor memif{id}/0 10.0.{id}.2 02:00:00:00:01:0{id}",
            socket.display()
        ));
    }
    let mut ports = sockets.each_ref().map(|socket| TestpmdPort::new(theirs, 0, socket));
    ports[0].more = "bsize=2048,rsize=10,mac=02:00:00:00:01:01";
    ports[1].more = "bsize=2048,rsize=10,mac=02:00:00:00:01:02";
    let mut testpmd = Testpmd::start(
        &ports,
        queues,
        &[
            "--forward-mode=5tswap",
            "--port-topology=loop",
            "--tx-ip=10.0.1.2,10.0.2.2",
            "--eth-peer=0,02:00:00:00:00:01",
            "--eth-peer=1,02:00:00:00:00:02",
        ],
    );
    for id in 1..=2 {
        wait_until("memif is connected", PATIENCE, || connected(&daemon, &format!("memif{id}/0")));
    }
    testpmd.command("start");
    for id in 1..=2 {
        wait_until("there are buffers", PATIENCE, || has_buffers(&daemon, &format!("memif{id}/0")));
    }
    testpmd.command("stop");
    // A burst from each queue of each port; packets of 64 hops.
    let packets = 2 * u64::from(queues) * 32;
    let (mut expired, mut forwarded) = (0, 0);
    for size in [64, 65, 512, 1500, 1514] {
        testpmd.command(&format!("set txpkts {size}"));
        testpmd.command("start tx_first");
        expired += packets;
        let start = Instant::now();
        while error(&daemon, "ip4-rewrite", "ip4 ttl <= 1") < expired {
            assert!(start.elapsed() < PATIENCE, "size {size}: packets are lost: {}", state(&daemon));
            std::thread::sleep(Duration::from_millis(10));
        }
        testpmd.command("stop");
        forwarded += packets * 63;
        assert!(testpmd.stats().iter().all(|port| port.rx_errors == 0), "size {size}");
    }
    let sent: u64 = (1..=2).map(|id| counter(&daemon, &format!("memif{id}/0"), "tx packets")).sum();
    // The rest are ICMP errors, which are limited in rate.
    assert!((forwarded..=forwarded + expired).contains(&sent), "{sent} of {forwarded}: {}", state(&daemon));
    settled(&daemon);
}

#[test]
fn testpmd_routed_as_client() {
    routed("client", 1);
}

#[test]
fn testpmd_routed_as_server_with_two_queues() {
    routed("server", 2);
}

#[test]
fn testpmd_as_client() {
    round("client", 1);
}

#[test]
fn testpmd_as_client_with_two_queues() {
    round("client", 2);
}

#[test]
fn testpmd_as_client_with_four_queues() {
    round("client", 4);
}

#[test]
fn testpmd_as_server_with_four_queues() {
    round("server", 4);
}

/// A wrong secret is refused and counted, and the right one is not.
#[test]
fn testpmd_with_secrets() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = daemon.file("1.sock");
    daemon.script(&format!("create memif socket id 1 filename {}", socket.display()));
    daemon.script("create interface memif id 0 socket-id 1 master secret right");
    let with = |more| TestpmdPort { more, ..TestpmdPort::new("client", 0, &socket) };
    let refused = || {
        let memif = daemon.json("show memif");
        let sockets = memif["sockets"].as_array().unwrap().clone();
        sockets.iter().find(|s| s["id"] == 1).and_then(|s| s["refused"]["secret"].as_u64()).unwrap_or(0)
    };
    let testpmd = Testpmd::start(&[with("bsize=2048,rsize=10,secret=wrong")], 1, &[]);
    wait_until("it is refused", PATIENCE, || refused() > 0);
    assert!(!connected(&daemon, "memif1/0"));
    drop(testpmd);
    // testpmd does not try again when it is refused, and a wrong secret costs all of its place a second.
    std::thread::sleep(Duration::from_millis(1100));
    let before = refused();
    let _testpmd = Testpmd::start(&[with("bsize=2048,rsize=10,secret=right")], 1, &[]);
    wait_until("it is connected", PATIENCE, || connected(&daemon, "memif1/0"));
    assert_eq!(refused(), before);
}

/// testpmd comes and goes two hundred times, by SIGKILL and with packets on their way; wharf holds as much at the end
/// as after the first time.
#[test]
fn testpmd_killed_two_hundred_times() {
    // So many at a time, each with a port to a master and one to a slave.
    const PROCESSES: usize = 8;
    const TURNS: usize = 25;
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = |i: usize, ours: &str| daemon.file(&format!("{i}-{ours}.sock"));
    for i in 1..=PROCESSES {
        for (id, ours) in [(10 + i, "master"), (20 + i, "slave")] {
            daemon.script(&format!(
                "create memif socket id {id} filename {}
                 create interface memif id 0 socket-id {id} {ours}
                 set interface state memif{id}/0 up",
                socket(i, ours).display()
            ));
        }
        daemon.script(&format!("set interface l2 xconnect memif{}/0 memif{}/0", 10 + i, 20 + i));
        daemon.script(&format!("set interface l2 xconnect memif{}/0 memif{}/0", 20 + i, 10 + i));
    }
    let held = || {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).unwrap().count();
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
        let buffers = daemon.json("show buffers")["used"].as_u64().unwrap();
        (count("fd"), maps.lines().filter(|line| line.contains("/memfd:")).count(), buffers)
    };
    let up = || {
        let memif = daemon.json("show memif");
        memif["interfaces"].as_array().unwrap().iter().filter(|i| i["connected"] == true).count()
    };
    let mut first = None;
    for turn in 0..TURNS {
        let mut all: Vec<Testpmd> = (1..=PROCESSES)
            .map(|i| {
                // What a killed testpmd leaves behind.
                drop(std::fs::remove_file(socket(i, "slave")));
                let ports = [("client", "master"), ("server", "slave")].map(|(theirs, ours)| {
                    let more = "bsize=2048,rsize=6";
                    TestpmdPort { more, ..TestpmdPort::new(theirs, 0, socket(i, ours)) }
                });
                Testpmd::launch(&ports, 1, &["--forward-mode=io"])
            })
            .collect();
        all.iter_mut().for_each(Testpmd::wait_ready);
        wait_until("all are connected", PATIENCE, || up() == 2 * PROCESSES);
        // As client it gives buffers to receive into when it first looks for packets.
        let mut say = |line| all.iter_mut().for_each(|testpmd| testpmd.command(line));
        say("start");
        if turn == 0 {
            wait_until("there are buffers", PATIENCE, || has_buffers(&daemon, "memif11/0"));
        }
        say("stop");
        say("start tx_first");
        if turn == 0 {
            wait_until("packets go round", PATIENCE, || counter(&daemon, "memif21/0", "rx packets") > 1000);
        }
        drop(all);
        wait_until("all are gone", PATIENCE, || up() == 0);
        if turn == 0 || turn + 1 == TURNS {
            settled(&daemon);
            let first = *first.get_or_insert_with(held);
            wait_until("all is given back", PATIENCE, || held() == first);
        }
    }
}

#[test]
fn testpmd_as_server() {
    round("server", 1);
}

#[test]
fn testpmd_as_server_with_two_queues() {
    round("server", 2);
}

/// An IPv4 packet with UDP in it.
fn udp(from: [u8; 4], to: [u8; 4], ttl: u8, payload: &[u8]) -> Vec<u8> {
    let total = 28 + payload.len() as u16;
    let mut p = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, 17, 0, 0];
    p[2..4].copy_from_slice(&total.to_be_bytes());
    p.extend([from, to].concat());
    let sum: u32 = p.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    p[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    p.extend([0x12, 0x34, 0x56, 0x78]);
    p.extend((8 + payload.len() as u16).to_be_bytes());
    p.extend([0, 0]);
    p.extend(payload);
    p
}

fn receive(link: &mut memif::Connection, count: usize) -> Vec<Vec<u8>> {
    let (start, mut got) = (Instant::now(), Vec::new());
    while got.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} packets came", got.len());
        link.rx[0].receive_with(256, |p| {
            let mut packet = vec![0; p.len()];
            p.copy_to(&mut packet);
            got.push(packet);
        });
        std::thread::sleep(Duration::from_micros(200));
    }
    got
}

fn transmit(link: &mut memif::Connection, packets: &[Vec<u8>]) {
    assert_eq!(link.tx[0].transmit(packets), packets.len());
    link.tx[0].kick();
}

/// Bare IP packets: routed between two interfaces in IP mode without ARP, answered, and kept apart from Ethernet.
#[test]
fn ip_mode() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = daemon.file("ip.sock");
    daemon.script(&format!("create memif socket id 1 filename {}", socket.display()));
    for id in [1, 2] {
        daemon.script(&format!(
            "create interface memif id {id} socket-id 1 master mode ip
             set interface ip address memif1/{id} 10.0.{id}.1/24
             set interface state memif1/{id} up"
        ));
    }
    daemon.script("create interface memif id 3 socket-id 1 master");
    daemon.script("ip route add 20.0.0.0/8 via 10.0.2.77 memif1/2");
    for (bad, why) in [
        ("set interface l2 xconnect memif1/1 memif1/3", "memif1/1 is in IP mode"),
        ("set interface l2 xconnect memif1/3 memif1/2", "memif1/2 is in IP mode"),
        ("set ip neighbor memif1/1 10.0.1.9 02:00:00:00:00:09", "is not a neighbour's address"),
    ] {
        let said = daemon.ctl(bad).unwrap_err();
        assert!(said.contains(why), "{bad}: {said}");
    }
    // The modes must agree; the client learns why they don't.
    let config = memif::ClientConfig::new(memif::Address::Path(socket.clone()), 1);
    let mut client = memif::Client::connect(config, Instant::now()).unwrap();
    let error = loop {
        match client.process(Instant::now()) {
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Ok(Some(_)) => panic!("an Ethernet client is taken in IP mode"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("mode"), "{error}");

    let [mut a, mut b] = [1, 2].map(|id| attach(&socket, id, |c| c.mode = memif::Mode::Ip));
    wait_until("there are buffers", PATIENCE, || {
        has_buffers(&daemon, "memif1/1") && has_buffers(&daemon, "memif1/2")
    });
    // To a neighbour in the subnet of the other, and by a route; 1 byte less of TTL, and nothing in front.
    let to = [[10, 0, 2, 9], [20, 1, 2, 3]];
    transmit(&mut a, &to.map(|to| udp([10, 0, 1, 9], to, 64, b"hello")));
    assert_eq!(receive(&mut b, 2), to.map(|to| udp([10, 0, 1, 9], to, 63, b"hello")));
    // Errors go back the same way: TTL expired, from the interface's own address.
    transmit(&mut a, &[udp([10, 0, 1, 9], [20, 1, 2, 3], 1, b"hello")]);
    let told = receive(&mut a, 1).remove(0);
    assert_eq!((told[0], told[9], &told[12..20], told[20]), (0x45, 1, &[10, 0, 1, 1, 10, 0, 1, 9][..], 11));
    // IPv6 and noise are dropped and counted; traces print bare packets.
    daemon.script("trace add memif-input 10");
    transmit(&mut a, &[vec![0x60; 60], vec![0; 1], udp([10, 0, 1, 9], [10, 0, 2, 9], 64, b"x")]);
    assert_eq!(receive(&mut b, 1), [udp([10, 0, 1, 9], [10, 0, 2, 9], 63, b"x")]);
    let trace = daemon.script("show trace");
    assert!(trace.contains("UDP: 10.0.1.9 -> 10.0.2.9"), "{trace}");
    assert!(daemon.script("show memif memif1/1").contains("mode ip"));
    settled(&daemon);
}

/// Abstract sockets in another namespace, wharf in both roles; without a word about who may attach, none are opened.
#[test]
fn abstract_sockets() {
    let (dp, pod) = (Netns::new("dp"), Netns::new("a"));
    let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
    let there = format!("@{}-m,netns_name=/var/run/netns/{}", pod.name(), pod.name());
    daemon.script(&format!("create memif socket id 1 filename {there}"));
    let error = daemon.ctl("create interface memif id 0 socket-id 1 master").unwrap_err();
    assert!(error.contains("an abstract socket needs a secret"), "{error}");
    daemon.script("create interface memif id 0 socket-id 1 master secret word");
    daemon.script(&format!(
        "create memif socket id 2 filename abstract:{}-n,netns_name=/var/run/netns/{} allow-uid 0 allow-gid 7",
        pod.name(),
        pod.name()
    ));
    daemon.script("create interface memif id 0 socket-id 2 master");
    let responder = memif_example("icmp_responder");
    for (socket, secret) in [("m", Some("word")), ("n", None)] {
        let name = format!("@{}-{socket}", pod.name());
        let mut command = dies_with_us(Some(pod.name()), &responder);
        command.args(["--socket", &name, "--id", "0", "--ip", "10.0.1.2", "--role", "client"]);
        command.args(secret.iter().flat_map(|s| ["--secret", s]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _responder = Background(command.spawn().unwrap());
        let interface = if socket == "m" { "memif1/0" } else { "memif2/0" };
        wait_until("it is connected", PATIENCE, || connected(&daemon, interface));
    }
}

const JUMBO: &str = "buffers { buffers-per-numa 2048 default data-size 9216 }";

/// Packets of many descriptors are one buffer's where the operator wants it so, and many descriptors' again behind it;
/// what is longer than a buffer is counted as an error.
#[test]
fn jumbo_frames() {
    let daemon = Daemon::start(None, &format!("cpu {{ workers 1 }} {JUMBO}"));
    let socket = daemon.file("jumbo.sock");
    daemon.script(&format!(
        "create memif socket id 1 filename {}
         create interface memif id 0 socket-id 1 master
         create interface memif id 1 socket-id 1 master
         set interface state memif1/0 up
         set interface state memif1/1 up
         set interface mtu 9000 memif1/1
         set interface l2 xconnect memif1/0 memif1/1",
        socket.display()
    ));
    let mut links = [0, 1].map(|id| attach(&socket, id, |_| {}));
    let packet = |len: u16| -> Vec<u8> { (0..len).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect() };
    let packets = [64, 1500, 2048, 2049, 4096, 9000, 9216].map(packet);
    wait_until("there are buffers", PATIENCE, || has_buffers(&daemon, "memif1/1"));
    transmit(&mut links[0], &packets);
    assert_eq!(receive(&mut links[1], packets.len()), packets);
    assert_eq!(counter(&daemon, "memif1/0", "rx-error"), 0);
    drop(links);
    settled(&daemon);

    // In buffers as they are by default there is no room.
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = daemon.file("small.sock");
    daemon.script(&format!(
        "create memif socket id 1 filename {}
         create interface memif id 0 socket-id 1 master
         set interface state memif1/0 up",
        socket.display()
    ));
    let mut link = attach(&socket, 0, |_| {});
    wait_until("it is connected", PATIENCE, || connected(&daemon, "memif1/0"));
    transmit(&mut link, &[packet(2049), packet(9000)]);
    wait_until("they are refused", PATIENCE, || counter(&daemon, "memif1/0", "rx-error") == 2);
    let refused = daemon.ctl("set interface mtu 9000 memif1/0").unwrap_err();
    assert!(refused.contains("the MTU must be from 68 to 2034"), "{refused}");
}

/// As many queues as there can be, and rings as long as they can be.
#[test]
fn large_interfaces() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = daemon.file("large.sock");
    daemon.script(&format!(
        "create memif socket id 1 filename {}
         create interface memif id 0 socket-id 1 master rx-queues 255 tx-queues 255
         create interface memif id 1 socket-id 1 master ring-size 16384
         set interface state memif1/0 up
         set interface state memif1/1 up
         set interface l2 xconnect memif1/0 memif1/1",
        socket.display()
    ));
    let mut wide = attach(&socket, 0, |c| {
        (c.rx_queues, c.tx_queues, c.log2_ring_size) = (255, 255, 4);
        c.handshake = PATIENCE;
    });
    let mut long = attach(&socket, 1, |c| c.log2_ring_size = 14);
    wait_until("all queues are there", PATIENCE, || {
        daemon.json("show interface rx-placement").to_string().matches("memif1/0").count() == 255
    });
    for (i, tx) in wide.tx.iter_mut().enumerate() {
        assert_eq!(tx.transmit(&[vec![i as u8; 100]][..]), 1);
        tx.kick();
    }
    let mut got: Vec<u8> = receive(&mut long, 255).into_iter().map(|packet| packet[99]).collect();
    got.sort_unstable();
    assert!(got.into_iter().eq(0..255));
    assert_eq!(long.tx[0].ring_state().size, 16384);
    settled(&daemon);
}

/// As many interfaces as a large node has pods, and each carries packets. How long it takes from the first word of a
/// client to its first packet is printed.
#[test]
fn many_interfaces() {
    const INTERFACES: u32 = 256;
    let daemon = Daemon::start(None, "cpu { workers 2 }");
    // The daemon raises its own limit.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let more = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, more).unwrap();
    let socket = daemon.file("many.sock");
    let mut script = format!("create memif socket id 1 filename {}\n", socket.display());
    for id in 0..INTERFACES {
        script += &format!("create interface memif id {id} socket-id 1 master\n");
        script += &format!("set interface state memif1/{id} up\n");
    }
    for id in 0..INTERFACES {
        script += &format!("set interface l2 xconnect memif1/{id} memif1/{}\n", id ^ 1);
    }
    let file = daemon.file("script");
    std::fs::write(&file, script).unwrap();
    daemon.script(&format!("exec {}", file.display()));
    let (mut links, mut slowest, mut all): (Vec<memif::Connection>, _, _) =
        (Vec::new(), Duration::ZERO, Duration::ZERO);
    for id in 0..INTERFACES {
        // A connection's turn comes at most 100 times a second: not what is measured here.
        std::thread::sleep(Duration::from_millis(10));
        let start = Instant::now();
        let link = attach(&socket, id, |c| c.log2_ring_size = 6);
        links.push(link);
        if id % 2 == 1 {
            let [.., a, b] = &mut links[..] else { unreachable!() };
            let packet = vec![id as u8; 100];
            // The worker may not have its queues yet; then a packet is dropped, and the next one is sent.
            let mut got = 0;
            while got == 0 {
                assert!(start.elapsed() < PATIENCE, "interface {id}: {}", state(&daemon));
                transmit(b, std::slice::from_ref(&packet));
                std::thread::sleep(Duration::from_micros(300));
                got = a.rx[0].receive_with(256, |p| assert_eq!(p.len(), 100));
            }
            slowest = slowest.max(start.elapsed());
            all += start.elapsed();
        }
    }
    eprintln!("attach to first packet: {:?} on average, {slowest:?} at most", all / (INTERFACES / 2));
    // All at once.
    for link in &mut links {
        link.rx[0].receive_with(256, |_| ());
    }
    for (id, link) in links.iter_mut().enumerate() {
        transmit(link, &[vec![id as u8; 64 + id]]);
    }
    for (id, link) in links.iter_mut().enumerate() {
        let got = receive(link, 1);
        assert_eq!(got, [vec![id as u8 ^ 1; 64 + (id ^ 1)]]);
    }
    drop(links);
    let up = || {
        let memif = daemon.json("show memif");
        memif["interfaces"].as_array().unwrap().iter().filter(|i| i["connected"] == true).count()
    };
    wait_until("all are gone", PATIENCE, || up() == 0);
    settled(&daemon);
}
