//! memif with real peers: the example application of the memif crate, and dpdk-testpmd.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{
    Background, Daemon, Netns, PATIENCE, PortStats, Testpmd, TestpmdPort, Veth, connected, counter,
    dies_with_us, memif_example, settled, wait_until,
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
        for size in [64, 512, 1500] {
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

#[test]
fn testpmd_as_client() {
    round("client", 1);
}

#[test]
fn testpmd_as_client_with_two_queues() {
    round("client", 2);
}

#[test]
fn testpmd_as_server() {
    round("server", 1);
}

#[test]
fn testpmd_as_server_with_two_queues() {
    round("server", 2);
}
