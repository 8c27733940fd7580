//! VXLAN with the kernel as flanneld sets it up, and between two wharfs.

mod common;

use common::{Daemon, Netns, Veth, counter, iperf3, settled};

fn mac(pod: &Netns, interface: &str) -> String {
    pod.run("cat", [format!("/sys/class/net/{interface}/address")]).trim().to_owned()
}

/// The MAC address of one of wharf's interfaces.
#[track_caller]
fn own_mac(daemon: &Daemon, interface: &str) -> String {
    let row = daemon.json(&format!("show interface {interface}"));
    row[0]["mac"].as_str().unwrap().to_owned()
}

/// Takes the Linux interfaces over, under their own names, up.
#[track_caller]
fn take(daemon: &Daemon, interfaces: &[&str]) {
    for name in interfaces {
        daemon.script(&format!(
            "create interface af_xdp host-if {name} name {name}
            set interface state {name} up"
        ));
    }
}

/// The second node is the kernel: VNI 1, port 8472, no learning, and for each other node a neighbour, an FDB entry and
/// an onlink route, as flannel's vxlan backend makes them.
#[test]
fn the_kernel_as_flanneld_sets_it_up() {
    let (dp, pod, node) = (Netns::new("dp"), Netns::new("p"), Netns::new("n"));
    Veth::new(&dp, "veth-p", &pod, "10.244.1.2/24", 1);
    let underlay = Veth::new(&dp, "veth-u", &node, "192.168.0.2/24", 1);
    // A real link has no unfinished checksums on it.
    underlay.set_tx_checksum(&node, false);
    pod.ip("route add default via 10.244.1.1");
    // What a pod on flannel has.
    pod.ip("link set eth0 mtu 1450");
    let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
    take(&daemon, &["veth-p", "veth-u"]);
    daemon.script(
        "set interface ip address veth-p 10.244.1.1/24
        set interface ip address veth-u 192.168.0.1/24",
    );
    assert_eq!(
        daemon.script("create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 1 dst_port 8472"),
        "vxlan_tunnel0\n"
    );
    node.ip("link add flannel.1 type vxlan id 1 local 192.168.0.2 dev eth0 dstport 8472 nolearning");
    node.ip("link set flannel.1 mtu 1450");
    node.ip("addr add 10.244.2.0/32 dev flannel.1");
    node.ip("link set flannel.1 up");
    let ours = own_mac(&daemon, "vxlan_tunnel0");
    node.ip(&format!("neigh add 10.244.1.0 lladdr {ours} dev flannel.1 nud permanent"));
    node.run("bridge", ["fdb", "append", &ours, "dev", "flannel.1", "dst", "192.168.0.1"]);
    node.ip("route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink");
    let theirs = mac(&node, "flannel.1");
    daemon.script(&format!(
        "set interface ip address vxlan_tunnel0 169.254.1.1/32
        set ip neighbor vxlan_tunnel0 10.244.2.0 {theirs} static
        ip route add 10.244.2.0/24 via 10.244.2.0 vxlan_tunnel0"
    ));
    assert_eq!(
        pod.ping("10.244.2.0", 3),
        3,
        "{}{}",
        daemon.script("show errors"),
        daemon.script("show interface")
    );
    assert_eq!(node.ping("10.244.1.2", 3), 3);
    for direction in [&[][..], &["-R"]] {
        let rate = iperf3(&node, "10.244.2.0", &pod, 1, direction);
        assert!(rate > 1.0, "{rate} Mbit/s {direction:?}\n{}", daemon.script("show errors"));
    }
    assert!(counter(&daemon, "vxlan_tunnel0", "rx packets") > 100);
    assert!(counter(&daemon, "vxlan_tunnel0", "tx packets") > 100);
    let tunnels = daemon.script("show vxlan tunnel");
    let expected = "[0] instance 0 src 192.168.0.1 dst 192.168.0.2 src_port 0 dst_port 8472 vni 1 fib-idx 0 sw-if-idx 3 ";
    assert_eq!(tunnels.trim_end_matches('\n'), expected);
    daemon.script("create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 1 del");
    assert_eq!(pod.ping("10.244.2.0", 1), 0);
    settled(&daemon);
}

/// A wharf with a pod in bridge domain 1 and a routed one.
struct Node {
    daemon: Daemon,
    bridged: Netns,
    routed: Netns,
    dp: Netns,
}

impl Node {
    #[track_caller]
    fn new(number: u8) -> Node {
        let n = number.to_string();
        let (dp, bridged, routed) =
            (Netns::new(&format!("d{n}")), Netns::new(&format!("b{n}")), Netns::new(&format!("r{n}")));
        Veth::new(&dp, "veth-b", &bridged, &format!("10.1.0.1{n}/24"), 1);
        Veth::new(&dp, "veth-r", &routed, &format!("10.2.{n}.2/24"), 1);
        bridged.ip("link set eth0 mtu 1450");
        bridged.ip(&format!("route add default via 10.1.0.{n}"));
        routed.ip("link set eth0 mtu 1450");
        routed.ip(&format!("route add default via 10.2.{n}.1"));
        let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
        Node { daemon, bridged, routed, dp }
    }

    /// Bridged and routed traffic each have a tunnel to the other node; the routers are `10.1.0.1` and `10.1.0.2` in the bridge domain.
    #[track_caller]
    fn configure(&self, number: u8, other: u8) {
        take(&self.daemon, &["veth-b", "veth-r", "veth-u"]);
        self.daemon.script(&format!(
            "set interface ip address veth-u 192.168.0.{number}/24
            set interface ip address veth-r 10.2.{number}.1/24
            create bridge-domain 1
            create loopback interface
            set interface state loop0 up
            set interface mtu 1450 loop0
            set interface l2 bridge loop0 1 bvi
            set interface ip address loop0 10.1.0.{number}/24
            set interface l2 bridge veth-b 1
            create vxlan tunnel src 192.168.0.{number} dst 192.168.0.{other} vni 77
            set interface l2 bridge vxlan_tunnel0 1 1
            create vxlan tunnel src 192.168.0.{number} dst 192.168.0.{other} vni {number} dst_port 6784 decap-vni any l3
            set interface ip address vxlan_tunnel1 10.9.0.{number}/32
            ip route add 10.2.{other}.0/24 via 10.9.0.{other} vxlan_tunnel1"
        ));
    }
}

#[test]
fn two_wharfs_as_two_nodes() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.dp.ip(&format!("link add veth-u type veth peer name veth-u netns {}", two.dp.name()));
    one.dp.ip("link set veth-u up");
    two.dp.ip("link set veth-u up");
    one.configure(1, 2);
    two.configure(2, 1);
    let errors = || format!("{}{}", one.daemon.script("show errors"), two.daemon.script("show errors"));
    for (what, from, to) in [
        ("bridged", &one.bridged, "10.1.0.12"),
        ("bridged back", &two.bridged, "10.1.0.11"),
        ("the other's router interface", &one.bridged, "10.1.0.2"),
        ("routed, tunnel without Ethernet", &one.routed, "10.2.2.2"),
        ("routed back", &two.routed, "10.2.1.2"),
        ("from the bridge to a routed pod", &one.bridged, "10.2.2.2"),
        ("from a routed pod to the bridge", &two.routed, "10.1.0.12"),
    ] {
        assert_eq!(from.ping(to, 3), 3, "{what}: {}", errors());
    }
    for (server, address, client) in
        [(&two.bridged, "10.1.0.12", &one.bridged), (&two.routed, "10.2.2.2", &one.routed)]
    {
        for direction in [&[][..], &["-R"]] {
            let rate = iperf3(server, address, client, 1, direction);
            assert!(rate > 1.0, "{rate} Mbit/s to {address} {direction:?}\n{}", errors());
        }
    }
    // A frame that does not fit says so.
    one.bridged.ip("link set eth0 mtu 1500");
    let arguments = ["-c", "1", "-W", "1", "-M", "do", "-s", "1472", "10.1.0.12"];
    assert!(one.bridged.try_run("ping", arguments).is_err());
    let errors = one.daemon.script("show errors");
    assert!(errors.contains("frame is longer than the tunne"), "{errors}");
    settled(&one.daemon);
    settled(&two.daemon);
}
