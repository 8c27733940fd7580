//! memif with an independent peer: dpdk-testpmd, in both roles.

mod common;

use std::time::{Duration, Instant};

use common::{
    Daemon, JUMBO, PATIENCE, PortStats, Testpmd, TestpmdPort, attach, connected, counter, error, has_buffers,
    memif_state, settled, transmit, wait_until,
};

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
                assert!(start.elapsed() < PATIENCE, "packets do not go round: {}", memif_state(&daemon));
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
            assert!(start.elapsed() < PATIENCE, "size {size}: packets are lost: {}", memif_state(&daemon));
            std::thread::sleep(Duration::from_millis(10));
        }
        testpmd.command("stop");
        forwarded += packets * 63;
        assert!(testpmd.stats().iter().all(|port| port.rx_errors == 0), "size {size}");
    }
    let sent: u64 = (1..=2).map(|id| counter(&daemon, &format!("memif{id}/0"), "tx packets")).sum();
    // The rest are ICMP errors, which are limited in rate.
    assert!(
        (forwarded..=forwarded + expired).contains(&sent),
        "{sent} of {forwarded}: {}",
        memif_state(&daemon)
    );
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

/// As master it is testpmd that refuses a wrong secret; wharf says so, and the right one is taken.
#[test]
fn testpmd_as_server_with_secrets() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let socket = daemon.file("1.sock");
    daemon.script(&format!("create memif socket id 1 filename {}", socket.display()));
    let port =
        TestpmdPort { more: "bsize=2048,rsize=10,secret=right", ..TestpmdPort::new("server", 0, &socket) };
    let _testpmd = Testpmd::start(&[port], 1, &[]);
    for secret in ["", "secret wrong"] {
        daemon.script(&format!("create interface memif id 0 socket-id 1 slave {secret}"));
        daemon.script("set interface state memif1/0 up");
        wait_until("it is refused", PATIENCE, || memif_state(&daemon).to_lowercase().contains("secret"));
        assert!(!connected(&daemon, "memif1/0"));
        daemon.script("delete interface memif memif1/0");
    }
    daemon.script("create interface memif id 0 socket-id 1 slave secret right");
    daemon.script("set interface state memif1/0 up");
    wait_until("it is connected", PATIENCE, || connected(&daemon, "memif1/0"));
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

/// Packets of 64 to 9000 bytes, in any order, through wharf to testpmd, which sends them back: each comes whole. testpmd
/// chains buffers of 2048 bytes, and keeps a packet in as many mbufs, or in one of `mbuf` bytes.
///
/// No more are under way than a ring holds. In a ring that is full DPDK (26.07 still) takes a slot more than it has for
/// the last chain, since `n_free` of `eth_memif_tx` counts a packet's first slot last, and then all that there are.
fn whole(theirs: &'static str, mbuf: u16) {
    const PACKETS: usize = 20_000;
    const UNDER_WAY: usize = 64;
    let ours = if theirs == "client" { "master" } else { "slave" };
    let daemon = Daemon::start(None, &format!("cpu {{ workers 1 }} {JUMBO}"));
    let [own, socket] = ["1.sock", "2.sock"].map(|name| daemon.file(name));
    for (id, ours, socket) in [(1, "master", &own), (2, ours, &socket)] {
        daemon.script(&format!(
            "create memif socket id {id} filename {}
             create interface memif id 0 socket-id {id} {ours}
             set interface state memif{id}/0 up",
            socket.display()
        ));
    }
    daemon.script(
        "set interface l2 xconnect memif1/0 memif2/0
         set interface l2 xconnect memif2/0 memif1/0",
    );
    let mbuf = format!("--mbuf-size={mbuf}");
    let arguments = ["--forward-mode=io", "--port-topology=loop", &mbuf];
    let mut testpmd = Testpmd::start(&[TestpmdPort::new(theirs, 0, &socket)], 1, &arguments);
    let mut link = attach(&own, 0, |_| ());
    wait_until("memif is connected", PATIENCE, || connected(&daemon, "memif2/0"));
    testpmd.command("start");
    wait_until("there are buffers", PATIENCE, || {
        has_buffers(&daemon, "memif1/0") && has_buffers(&daemon, "memif2/0")
    });

    let packet = |i: usize| -> Vec<u8> {
        let x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let len = match x % 4 {
            0 => 64,
            1 => 9000,
            2 => [1514, 2047, 2048, 2049, 4096, 4097][x as usize / 4 % 6],
            _ => 64 + x as usize / 4 % 8937,
        };
        (0..len).map(|at| (at.wrapping_mul(31) >> 3 ^ i) as u8).collect()
    };
    let (mut sent, mut received, mut bytes, start) = (0, 0, 0, Instant::now());
    while received < PACKETS {
        assert!(start.elapsed() < 2 * PATIENCE, "{received} of {sent} came back: {}", memif_state(&daemon));
        let more = (PACKETS - sent).min(received + UNDER_WAY - sent);
        transmit(&mut link, &(sent..sent + more).map(packet).collect::<Vec<_>>());
        sent += more;
        let got = link.rx[0].receive_with(256, |p| {
            let mut whole = vec![0; p.len()];
            p.copy_to(&mut whole);
            assert!(whole == packet(received), "packet {received} came back with {} bytes", p.len());
            received += 1;
            bytes += p.len() as u64;
        });
        if got == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    for (interface, what) in [("memif1/0", "rx"), ("memif2/0", "tx"), ("memif2/0", "rx"), ("memif1/0", "tx")]
    {
        let count = |unit| counter(&daemon, interface, &format!("{what} {unit}"));
        assert_eq!((count("packets"), count("bytes")), (PACKETS as u64, bytes), "{interface} {what}");
    }
    let testpmd = testpmd.stats()[0];
    assert_eq!((testpmd.rx_packets, testpmd.tx_packets), (PACKETS as u64, PACKETS as u64));
    assert_eq!((testpmd.rx_errors, testpmd.tx_errors), (0, 0));
    settled(&daemon);
}

#[test]
fn testpmd_as_client_returns_jumbo_frames_whole() {
    whole("client", 2176);
    whole("client", 9728);
}

#[test]
fn testpmd_as_server_returns_jumbo_frames_whole() {
    whole("server", 2176);
    whole("server", 9728);
}
