//! memif with applications of the memif crate; `memif_testpmd.rs` has dpdk-testpmd.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{
    Background, Daemon, JUMBO, Netns, PATIENCE, Veth, attach, connected, counter, dies_with_us, has_buffers,
    memif_example, memif_state, receive, settled, transmit, wait_until,
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
        // A process may start 200 handshakes a second in the long run: not what is measured here.
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
                assert!(start.elapsed() < PATIENCE, "interface {id}: {}", memif_state(&daemon));
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
