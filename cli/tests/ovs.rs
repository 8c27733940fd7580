//! Open vSwitch's userspace datapath as the peer: VXLAN, and a VLAN trunk with an access port behind it.

mod common;

use common::{Daemon, Netns, Ovs, PATIENCE, Veth, iperf3, settled, wait_until};

/// wharf with a pod in bridge domain 1, and a namespace for the switch.
struct Lab {
    daemon: Daemon,
    pod: Netns,
    switch: Netns,
    ovs: Ovs,
    _dp: Netns,
}

impl Lab {
    /// The pod has `pod`; the link to the switch is `veth-u` here and `eth0` there.
    #[track_caller]
    fn new(pod_address: &str) -> Self {
        let (dp, pod, switch) = (Netns::new("dp"), Netns::new("p"), Netns::new("s"));
        let inside = Veth::new(&dp, "veth-p", &pod, pod_address, 1);
        let link = Veth::new(&dp, "veth-u", &switch, "192.0.2.1/32", 1);
        // The switch reads frames as they are on the veth, with checksums that a kernel has left to a device: nobody leaves any.
        inside.set_tx_checksum(&pod, false);
        link.set_tx_checksum(&switch, false);
        switch.ip("addr flush dev eth0");
        let ovs = Ovs::start(&switch);
        let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
        daemon.script(
            "create interface af_xdp host-if veth-p name veth-p
            create interface af_xdp host-if veth-u name veth-u
            set interface state veth-p up
            set interface state veth-u up
            create bridge-domain 1
            set interface l2 bridge veth-p 1",
        );
        Self { daemon, pod, switch, ovs, _dp: dp }
    }

    #[track_caller]
    fn talks(&self, from: &Netns, to: &str) {
        wait_until(&format!("{to} answers"), PATIENCE, || from.ping(to, 1) == 1);
        assert_eq!(from.ping(to, 5), 5, "{}", self.daemon.script("show errors"));
    }
}

#[test]
fn vxlan() {
    let lab = Lab::new("10.5.0.3/24");
    lab.daemon.script(
        "set interface ip address veth-u 192.168.0.1/24
        create vxlan tunnel src 192.168.0.1 dst 192.168.0.2 vni 42
        set interface l2 bridge vxlan_tunnel0 1 1",
    );
    let ovs = &lab.ovs;
    ovs.vsctl("add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy eth0");
    lab.switch.ip("addr add 192.168.0.2/24 dev br-phy");
    lab.switch.ip("link set br-phy up");
    ovs.vsctl(
        "add-br br-int -- set bridge br-int datapath_type=netdev -- add-port br-int vx0 -- set interface vx0 type=vxlan options:remote_ip=192.168.0.1 options:key=42",
    );
    lab.switch.ip("addr add 10.5.0.2/24 dev br-int");
    lab.switch.ip("link set br-int mtu 1450 up");
    lab.pod.ip("link set eth0 mtu 1450");
    lab.talks(&lab.pod, "10.5.0.2");
    lab.talks(&lab.switch, "10.5.0.3");
    let rate = iperf3(&lab.switch, "10.5.0.2", &lab.pod, 1, &[]);
    assert!(rate > 0.5, "{rate} Mbit/s");
    settled(&lab.daemon);
}

#[test]
fn vlan_trunk() {
    let lab = Lab::new("10.6.0.3/24");
    lab.daemon.script(
        "create sub-interfaces veth-u 100
        set interface state veth-u.100 up
        set interface l2 bridge veth-u.100 1
        set interface l2 tag-rewrite veth-u.100 pop 1
        create sub-interfaces veth-u 200
        set interface state veth-u.200 up
        set interface ip address veth-u.200 10.7.0.1/24",
    );
    let (access, other) = (Netns::new("a"), Netns::new("b"));
    for (name, pod, address) in [("acc", &access, "10.6.0.2/24"), ("oth", &other, "10.7.0.2/24")] {
        Veth::new(&lab.switch, name, pod, address, 1).set_tx_checksum(pod, false);
    }
    lab.ovs.vsctl(
        "add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 eth0 trunks=100,200 -- add-port br0 acc tag=100 -- add-port br0 oth tag=200",
    );
    // Bridged in VLAN 100, routed in VLAN 200, and apart from each other.
    lab.talks(&lab.pod, "10.6.0.2");
    lab.talks(&access, "10.6.0.3");
    lab.talks(&other, "10.7.0.1");
    let rate = iperf3(&access, "10.6.0.2", &lab.pod, 1, &[]);
    assert!(rate > 0.5, "{rate} Mbit/s");
    other.ip("addr add 10.6.0.9/24 dev eth0");
    assert_eq!(lab.pod.ping("10.6.0.9", 1), 0, "VLANs leak");
    settled(&lab.daemon);
}
