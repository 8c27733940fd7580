//! VXLAN with the kernel, as flanneld sets it up, as Weave numbers its networks and in a multicast group; and between two wharfs.

mod common;

use common::{Daemon, Netns, PATIENCE, Veth, counter, error, iperf3, scapy, settled, wait_until};

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

/// Two pods of wharf in a bridge domain each, and the kernel as the other node, on `eth0` of its namespace.
struct Pods {
    daemon: Daemon,
    pods: [Netns; 2],
    node: Netns,
    _dp: Netns,
}

impl Pods {
    #[track_caller]
    fn new() -> Self {
        let (dp, node) = (Netns::new("dp"), Netns::new("n"));
        let pods = [1, 2].map(|n| {
            let pod = Netns::new(&format!("p{n}"));
            Veth::new(&dp, &format!("veth-{n}"), &pod, &format!("10.{n}.0.1/24"), 1);
            pod.ip("link set eth0 mtu 1450");
            pod
        });
        // A real link has no unfinished checksums on it.
        Veth::new(&dp, "veth-u", &node, "192.168.0.2/24", 1).set_tx_checksum(&node, false);
        let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
        take(&daemon, &["veth-1", "veth-2", "veth-u"]);
        daemon.script(
            "set interface ip address veth-u 192.168.0.1/24
            create bridge-domain 1
            create bridge-domain 2
            set interface l2 bridge veth-1 1
            set interface l2 bridge veth-2 2",
        );
        Self { daemon, pods, node, _dp: dp }
    }
}

/// Weave's fast datapath: port 6784, an identifier for each pair of peers and direction, and one device that sends by the identifier of each
/// packet and takes all.
#[test]
fn the_kernel_with_an_identifier_for_each_packet() {
    let lab = Pods::new();
    let node = &lab.node;
    node.ip("link add vx0 type vxlan external dstport 6784");
    node.ip("link set vx0 mtu 1450 up");
    node.ip("addr add 10.9.0.9/32 dev vx0");
    let theirs = mac(node, "vx0");
    // Of each pair: what wharf sends with, and what the kernel does. One of them has checksums.
    for (n, sent, received, checksum) in [(1, 0x00_1002, 0x00_2001, ""), (2, 0xff_fffe, 3, "udp-checksum")] {
        let pod = &lab.pods[n - 1];
        lab.daemon.script(&format!(
            "create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni {sent} dst_port 6784 decap-vni {received} instance {n} {checksum}
            set interface l2 bridge vxlan_tunnel{n} {n} 1"
        ));
        node.ip(&format!(
            "route add 10.{n}.0.0/24 encap ip id {received} dst 192.168.0.1 dev vx0 src 10.9.0.9"
        ));
        node.ip(&format!("neigh add 10.{n}.0.1 lladdr {} dev vx0 nud permanent", mac(pod, "eth0")));
        pod.ip("route add 10.9.0.9 dev eth0");
        pod.ip(&format!("neigh add 10.9.0.9 lladdr {theirs} dev eth0 nud permanent"));
    }
    let seen = lab.daemon.file("underlay.pcap").display().to_string();
    let capture = node.spawn("tcpdump", ["-Uni", "eth0", "-w", &seen, "udp", "port", "6784"]);
    wait_until("tcpdump has begun", PATIENCE, || std::fs::metadata(&seen).is_ok_and(|file| file.len() >= 24));
    for (pod, address) in lab.pods.iter().zip(["10.1.0.1", "10.2.0.1"]) {
        assert_eq!(pod.ping("10.9.0.9", 3), 3, "{}", lab.daemon.script("show errors"));
        assert_eq!(node.ping(address, 3), 3, "{}", lab.daemon.script("show errors"));
    }
    let text = || node.run("tcpdump", ["-nr", &seen, "-T", "vxlan"]);
    wait_until("tcpdump has written all", PATIENCE, || text().matches("ICMP echo reply").count() == 12);
    drop(capture);
    let text = text();
    // Three requests and three answers each way, and each direction has its own number.
    for vni in [0x00_1002, 0x00_2001, 0xff_fffe, 3] {
        assert_eq!(text.matches(&format!(" vni {vni}\n")).count(), 6, "{vni}: {text}");
    }
    let sent = |filter: &str| {
        let filter = format!("src 192.168.0.1 and udp[6:2] {filter}");
        node.run("tcpdump", ["-nr", &seen, "-T", "vxlan", &filter]).matches(" vni ").count()
    };
    assert_eq!((sent("= 0"), sent("!= 0")), (6, 6), "without a checksum, and with one");
    for (pod, direction) in [(&lab.pods[0], &[][..]), (&lab.pods[1], &["-R"])] {
        let rate = iperf3(node, "10.9.0.9", pod, 1, direction);
        assert!(rate > 1.0, "{rate} Mbit/s {direction:?}\n{}", lab.daemon.script("show errors"));
    }
    // Another number is another network; unless the tunnel takes all that its peer sends.
    let reroute = "route replace 10.1.0.0/24 encap ip id 77 dst 192.168.0.1 dev vx0 src 10.9.0.9";
    node.ip(reroute);
    let unknown = || error(&lab.daemon, "vxlan4-input", "no such tunnel packets");
    let before = unknown();
    assert_eq!(node.ping("10.1.0.1", 2), 0);
    assert_eq!(unknown(), before + 2);
    lab.daemon.script(
        "create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 4098 del
        create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 4098 dst_port 6784 decap-vni any instance 1
        set interface l2 bridge vxlan_tunnel1 1 1",
    );
    assert_eq!(node.ping("10.1.0.1", 3), 3, "{}", lab.daemon.script("show errors"));
    // The pair that has a number of its own keeps it.
    assert_eq!(node.ping("10.2.0.1", 3), 3, "{}", lab.daemon.script("show errors"));
    settled(&lab.daemon);
}

#[test]
fn the_kernel_in_a_multicast_group() {
    let lab = Pods::new();
    let node = &lab.node;
    for (n, group) in [(1, "239.1.1.1"), (2, "239.1.1.2")] {
        lab.daemon.script(&format!(
            "create vxlan tunnel src 192.168.0.1 group {group} veth-u vni 10{n} instance {n}
            set interface l2 bridge vxlan_tunnel{n} {n} 1"
        ));
        node.ip(&format!(
            "link add vx{n} type vxlan id 10{n} group {group} dev eth0 local 192.168.0.2 dstport 4789"
        ));
        node.ip(&format!("link set vx{n} mtu 1450 up"));
        node.ip(&format!("addr add 10.{n}.0.9/24 dev vx{n}"));
    }
    // Nobody knows anybody: the first of each network, once a pod and once the kernel, asks the group.
    let errors = || lab.daemon.script("show errors");
    assert_eq!(lab.pods[0].ping("10.1.0.9", 3), 3, "{}", errors());
    assert_eq!(node.ping("10.2.0.1", 3), 3, "{}", errors());
    assert_eq!(node.ping("10.1.0.1", 3), 3, "{}", errors());
    assert_eq!(lab.pods[1].ping("10.2.0.9", 3), 3, "{}", errors());
    // The kernel has learned who we are, and sends to our own address.
    for (n, pod) in (1..).zip(&lab.pods) {
        let learned = node.run("bridge", ["fdb", "show", "dev", &format!("vx{n}")]);
        assert!(learned.contains(&format!("{} dst 192.168.0.1", mac(pod, "eth0"))), "{learned}");
    }
    let rate = iperf3(node, "10.1.0.9", &lab.pods[0], 1, &[]);
    assert!(rate > 1.0, "{rate} Mbit/s\n{}", lab.daemon.script("show errors"));
    // A group is a network of its own.
    lab.pods[0].ip("addr add 10.2.0.77/24 dev eth0");
    assert_eq!(lab.pods[0].ping("10.2.0.9", 1), 0);
    settled(&lab.daemon);
}

/// A tunnelled frame cut at each byte, once with lengths that say so and once with those of the whole; and headers that lie.
#[test]
fn malformed_tunnels() {
    let lab = Pods::new();
    let node = &lab.node;
    node.ip("link add vx1 type vxlan id 101 remote 192.168.0.1 local 192.168.0.2 dev eth0 dstport 4789");
    node.ip("link set vx1 mtu 1450 up");
    node.ip("addr add 10.1.0.9/24 dev vx1");
    lab.daemon.script(
        "create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 101 instance 1
        set interface l2 bridge vxlan_tunnel1 1 1",
    );
    assert_eq!(node.ping("10.1.0.1", 2), 2);
    let ours = own_mac(&lab.daemon, "veth-u");
    let send = format!(
        "
        inner = Ether(dst='02:00:00:00:00:01', src='02:00:00:00:00:02') / IP(dst='10.1.0.1') / UDP() / (b'x' * 30)
        def outer(load, **vxlan):
            return Ether(dst='{ours}') / IP(src='192.168.0.2', dst='192.168.0.1') / UDP(sport=50000, dport=4789, chksum=0) / load
        header = bytes(VXLAN(flags=8, vni=101))
        whole = header + bytes(inner)
        frames = []
        for n in range(len(whole)):
            frames.append(bytes(outer(whole[:n])))
        full = bytes(outer(whole))
        frames += [full[:n] for n in range(14, len(full))]
        for flags in range(256):
            frames.append(bytes(outer(bytes([flags]) + whole[1:])))
        for vni in range(0, 1 << 24, 99991):
            frames.append(bytes(outer(bytes(VXLAN(flags=8, vni=vni)) + bytes(inner))))
        s = conf.L2socket(iface='eth0')
        for f in frames:
            s.send(f)
        "
    );
    let reasons =
        ["truncated vxlan packet", "packets with bad flags field in vxlan header", "no such tunnel packets"];
    // Again and again, as a busy machine does not take all.
    wait_until("each kind of lie is counted", PATIENCE, || {
        scapy(node, &send);
        reasons.iter().all(|reason| error(&lab.daemon, "vxlan4-input", reason) > 0)
    });
    assert_eq!(node.ping("10.1.0.1", 3), 3);
    settled(&lab.daemon);
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
