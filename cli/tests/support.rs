//! The test support itself: without wharf, two namespaces reach each other through a veth pair.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Netns, PortStats, Testpmd, TestpmdPort, Veth, ip, iperf3, scapy};

/// Two pods, joined by one veth pair.
fn two_pods() -> (Netns, Netns, Veth) {
    let (dp, pod) = (Netns::new("dp"), Netns::new("a"));
    let veth = Veth::new(&dp, "pod1", &pod, "192.0.2.2/24", 1);
    dp.ip(&format!("addr add 192.0.2.1/24 dev {}", veth.host_if));
    (dp, pod, veth)
}

#[test]
fn namespaces_talk_and_go_away() {
    let (dp, pod, veth) = two_pods();
    let names = [dp.name().to_owned(), pod.name().to_owned()];
    assert_eq!(pod.ping("192.0.2.1", 2), 2);
    assert_eq!(pod.ping("192.0.2.77", 1), 0);
    for on in [false, true] {
        veth.set_tx_checksum(&pod, on);
        let features = pod.run("ethtool", ["-k", &veth.pod_if]);
        assert!(features.contains(&format!("tx-checksumming: {}", if on { "on" } else { "off" })));
        assert!(iperf3(&dp, "192.0.2.1", &pod, 1, &[]) > 1.0);
    }
    let child = pod.spawn("sleep", ["60"]);
    let process = format!("/proc/{}", child.0.id());
    assert!(Path::new(&process).exists());
    drop((child, dp, pod));
    assert!(!Path::new(&process).exists());
    let left = ip("netns list");
    assert!(names.iter().all(|name| !left.contains(name)), "{left}");
}

#[test]
fn scapy_runs_in_a_namespace() {
    let (_dp, pod, _veth) = two_pods();
    let snippet = "
        reply = srp1(Ether(dst='ff:ff:ff:ff:ff:ff')/ARP(pdst='192.0.2.1'), iface='eth0', timeout=5)
        print(reply.psrc)";
    assert_eq!(scapy(&pod, snippet).trim(), "192.0.2.1");
    let wrong = std::panic::catch_unwind(|| scapy(&pod, "assert 1 == 2"));
    assert!(wrong.is_err());
}

/// What a killed test binary leaves behind is removed by the next.
#[test]
fn namespaces_of_the_dead_are_removed() {
    let _ours = Netns::new("a");
    let mut dead = Command::new("true").spawn().unwrap();
    let name = format!("wh{}x0dp", dead.id());
    dead.wait().unwrap();
    ip(&format!("netns add {name}"));
    common::remove_stale_now();
    assert!(!ip("netns list").contains(&name));
}

/// Two ports of one testpmd, each other's peer.
#[test]
fn testpmd_takes_commands() {
    let dir = common::TempDir::new();
    let socket = dir.path().join("memif.sock");
    let ports = [TestpmdPort::new("server", 0, &socket), TestpmdPort::new("client", 0, &socket)];
    let mut testpmd = Testpmd::start(&ports, 1, &["--forward-mode=io"]);
    assert_eq!(testpmd.stats(), [PortStats::default(); 2]);
    testpmd.command("start tx_first");
    common::wait_until("packets go round", common::PATIENCE, || {
        let stats = testpmd.stats();
        stats.iter().map(|port| port.rx_packets).sum::<u64>() > 1000
            && stats.iter().map(|port| port.tx_packets).sum::<u64>() > 1000
    });
}
