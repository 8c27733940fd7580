//! VXLAN: what is sent on a tunnel, what comes out of one, and packets that are none.

mod common;

use common::{MAC, NEIGHBOUR, Router, udp, with_header, with_options};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::bihash::Bihash;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::mtrie::MtrieWriter;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{AdjacencyKind, UdpTables};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};
use wharf_nodes::vxlan::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
use wharf_nodes::wire::checksum::{add, ones_complement_sum, pseudo_header_sum};
use wharf_nodes::wire::ip4::IpProtocol;

const TUNNEL: u32 = 7;
const PORT: u16 = 8472;
const VNI: u32 = 0x12_3456;
const US: [u8; 4] = [10, 0, 2, 1];
const PEER: [u8; 4] = [10, 0, 2, 9];

/// The router of the other tests; port 3 is cross-connected with a tunnel over eth2 to 10.0.2.9.
struct Lab {
    r: Router,
    tunnel: VxlanTunnel,
    any_vni: bool,
}

impl Lab {
    fn new() -> Lab {
        let mut r = Router::new(256);
        let entry = |i: usize, mode| InterfaceEntry {
            up: true,
            mode,
            mac: MAC.get(i).copied().unwrap_or_default(),
            ip4: true,
        };
        let modes =
            [InputMode::L3, InputMode::L3, InputMode::L3, InputMode::L2, InputMode::L2, InputMode::L3];
        let mut list: Vec<_> = modes.into_iter().enumerate().map(|(i, mode)| entry(i, mode)).collect();
        list.resize(TUNNEL as usize, InterfaceEntry::default());
        list.push(entry(TUNNEL as usize, InputMode::L2));
        r.h.engine
            .tables::<InterfaceTables>()
            .publish(InterfaceTables { list, ..InterfaceTables::default() });
        let mut ports = vec![L2Port::default(); 8];
        for (from, to) in [(3, TUNNEL), (TUNNEL, 3)] {
            ports[from as usize] =
                L2Port { mode: PortMode::Xconnect, peer: SwIfIndex(to), ..L2Port::default() };
        }
        r.h.engine.tables::<L2Tables>().publish(L2Tables { ports, ..L2Tables::default() });
        let node = r.h.engine.graph().find("vxlan4-encap").unwrap();
        let setup = InterfaceSetup { name: "vxlan_tunnel0".into(), up: true, input: None, loopback: None };
        r.h.engine.set_interface(SwIfIndex(TUNNEL), Some(setup));
        r.h.engine.set_output_node(SwIfIndex(TUNNEL), node);
        let input = r.h.engine.graph().find("vxlan4-input").unwrap();
        r.h.engine.tables::<UdpTables>().publish(UdpTables { nodes: vec![(PORT, input)] });
        let tunnel = VxlanTunnel {
            outer: OuterHeader::new(US.into(), PEER.into(), [0, PORT], VNI),
            sw_if_index: SwIfIndex(TUNNEL),
            fib_index: 0,
            max_frame: 1464,
            src_port: 0,
            checksum: false,
            decap: Decap::L2,
            local_port: PORT,
            up: true,
        };
        let mut lab = Lab { r, tunnel, any_vni: false };
        lab.publish();
        lab
    }

    fn publish(&mut self) {
        let decap = Bihash::new(64, [5, 7]).unwrap();
        let (dst, group) = (self.tunnel.outer.ip.dst.get(), self.tunnel.is_group());
        let own = group.then_some(u32::from_be_bytes(US));
        for address in own.into_iter().chain([dst]) {
            let key = decap_key(address, (!self.any_vni).then_some(VNI));
            decap.put(key, |_| Some(TUNNEL.into()), |_| None);
        }
        let mut fib = MtrieWriter::new(16);
        fib.insert(dst, 32, 1).unwrap();
        let mut tunnels = vec![None; TUNNEL as usize];
        tunnels.push(Some(Arc::new(self.tunnel.clone())));
        self.r.h.engine.tables::<VxlanTables>().publish(VxlanTables {
            tunnels,
            decap: Some(Arc::new(decap)),
            any_vni: self.any_vni,
            groups: group,
            fibs: vec![Arc::clone(fib.table())],
        });
    }

    /// A packet from the peer with `payload` behind the UDP header, as eth2 receives it.
    fn from_peer(payload: &[u8]) -> Vec<u8> {
        Lab::packet(PEER, US, MAC[2].0, payload)
    }

    fn packet(from: [u8; 4], to: [u8; 4], mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ethernet2(NEIGHBOUR.0, mac)
            .ipv4(from, to, 64)
            .udp(50000, PORT)
            .write(&mut packet, payload)
            .unwrap();
        packet[40..42].fill(0);
        packet
    }

    fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
        [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], frame].concat()
    }

    #[track_caller]
    fn drops(&mut self, from: u32, packet: &[u8], node: &str, reason: &str) {
        let before = (self.r.h.error(node, reason), self.r.h.engine.balance().dropped);
        self.r.h.receive(from, packet);
        assert_eq!(self.r.all_sent(), [], "{reason}");
        let after = (self.r.h.error(node, reason), self.r.h.engine.balance().dropped);
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{reason}: {:?}", self.r.h.errors());
    }
}

#[test]
fn frames_go_out_in_packets() {
    let mut lab = Lab::new();
    let frame = udp([20, 0, 0, 1], 64, 18);
    let sent = lab.r.pass(3, &frame, 2);
    assert_eq!(sent.len(), 1, "{:?}", lab.r.h.errors());
    let packet = etherparse::PacketHeaders::from_ethernet_slice(&sent[0]).unwrap();
    let etherparse::NetHeaders::Ipv4(ip, _) = packet.net.unwrap() else { panic!("not IPv4") };
    assert_eq!((ip.source, ip.destination, ip.time_to_live), (US, PEER, 254));
    assert!(ip.dont_fragment);
    assert_eq!(usize::from(ip.total_len), sent[0].len() - 14);
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    let etherparse::TransportHeader::Udp(header) = packet.transport.unwrap() else { panic!("not UDP") };
    assert_eq!((header.destination_port, header.checksum), (PORT, 0));
    assert_eq!(usize::from(header.length), sent[0].len() - 34);
    assert!(header.source_port >= 0xc000);
    assert_eq!(packet.payload.slice(), Lab::vxlan(VNI, &frame));
    // A flow keeps its port, and another one has another.
    let port = |sent: &[Vec<u8>]| u16::from_be_bytes([sent[0][34], sent[0][35]]);
    let longer = lab.r.pass(3, &udp([20, 0, 0, 1], 64, 100), 2);
    assert_eq!(port(&longer), port(&sent));
    let other = lab.r.pass(3, &udp([20, 0, 0, 2], 64, 18), 2);
    assert_ne!(port(&other), port(&sent));
    let counters = lab.r.h.engine.counters();
    assert_eq!(counters.virtual_tx.get(TUNNEL).packets, 3);

    lab.tunnel.checksum = true;
    lab.tunnel.src_port = 1234;
    lab.publish();
    for len in [18, 19] {
        let sent = lab.r.pass(3, &udp([20, 0, 0, 1], 64, len), 2);
        assert_eq!(port(&sent), 1234);
        let datagram = &sent[0][34..];
        let pseudo = pseudo_header_sum(US.into(), PEER.into(), IpProtocol::UDP, datagram.len() as u16);
        assert_eq!(add(pseudo, ones_complement_sum(datagram)), 0xffff);
    }
}

#[test]
fn frames_that_do_not_fit_say_so() {
    let mut lab = Lab::new();
    let frame = |len: usize| udp([20, 0, 0, 1], 64, len - 42);
    assert_eq!(lab.r.pass(3, &frame(1464), 2)[0].len(), 1464 + 50);
    lab.drops(3, &frame(1465), "vxlan4-encap", "frame is longer than the tunnel's MTU");
    // Longer than the way to the peer takes, though the tunnel would.
    lab.tunnel.max_frame = 1600;
    lab.publish();
    lab.r.h.receive(3, &frame(1465));
    assert_eq!(lab.r.all_sent(), []);
    assert_eq!(lab.r.h.error("ip4-rewrite", "ip4 MTU exceeded and DF set"), 1);
}

#[test]
fn frames_come_out_of_packets() {
    let mut lab = Lab::new();
    let frame = udp([20, 0, 0, 1], 64, 18);
    let packet = Lab::from_peer(&Lab::vxlan(VNI, &frame));
    assert_eq!(lab.r.pass(2, &packet, 3), std::slice::from_ref(&frame), "{:?}", lab.r.h.errors());
    assert_eq!(lab.r.pass(2, &with_options(packet.clone(), 3), 3), std::slice::from_ref(&frame));
    // Reserved bits are ignored, padding is cut off.
    let mut odd = packet.clone();
    odd[43] = 0xff;
    odd[49] = 0xff;
    odd.extend([0; 7]);
    assert_eq!(lab.r.pass(2, &odd, 3), std::slice::from_ref(&frame));
    let counters = lab.r.h.engine.counters();
    assert_eq!(counters.virtual_rx.get(TUNNEL).packets, 3);

    lab.drops(2, &Lab::from_peer(&Lab::vxlan(1, &frame)), "vxlan4-input", "no such tunnel packets");
    let stranger = with_header(packet.clone(), |ip| ip[15] = 8);
    lab.drops(2, &stranger, "vxlan4-input", "no such tunnel packets");
    let mut invalid = packet.clone();
    invalid[42] = 0xf7;
    lab.drops(2, &invalid, "vxlan4-input", "packets with bad flags field in vxlan header");
    let mut wrong = packet.clone();
    wrong[40] = 1;
    lab.drops(2, &wrong, "ip4-udp-lookup", "UDP checksum error");
    let mut long = packet.clone();
    long[39] += 1;
    lab.drops(2, &long, "ip4-udp-lookup", "UDP length error");
    lab.tunnel.up = false;
    lab.publish();
    lab.drops(2, &packet, "vxlan4-input", "tunnel is down");

    lab.tunnel.up = true;
    lab.any_vni = true;
    lab.publish();
    assert_eq!(lab.r.pass(2, &Lab::from_peer(&Lab::vxlan(99, &frame)), 3), std::slice::from_ref(&frame));
    // To another of our addresses, and to another port.
    lab.tunnel.local_port = 4789;
    lab.publish();
    lab.drops(2, &packet, "vxlan4-input", "no such tunnel packets");
}

#[test]
fn a_tunnel_without_ethernet_carries_packets() {
    let mut lab = Lab::new();
    lab.tunnel.decap = Decap::Ip4;
    lab.publish();
    lab.r.change(|tables| {
        let mut interface = tables.interfaces[2];
        interface.enabled = true;
        tables.interfaces.resize(TUNNEL as usize, Default::default());
        tables.interfaces.push(interface);
    });
    let inner = &udp([10, 0, 1, 9], 64, 18)[14..];
    let sent = lab.r.pass(2, &Lab::from_peer(&Lab::vxlan(VNI, inner)), 1);
    assert_eq!(sent.len(), 1, "{:?}", lab.r.h.errors());
    assert_eq!(sent[0][22], 63, "forwarded");
    // And out: what is routed to the tunnel is sent without an Ethernet header.
    lab.r.change(|tables| {
        tables.adjacencies[7].kind = AdjacencyKind::PointToPoint;
        tables.adjacencies[7].tx = SwIfIndex(TUNNEL);
    });
    let sent = lab.r.pass(1, &udp([20, 7, 0, 1], 64, 18), 2);
    let routed = with_header(udp([20, 7, 0, 1], 63, 18), |_| {});
    assert_eq!(sent[0][14 + 20 + 8..], Lab::vxlan(VNI, &routed[14..]));
}

#[test]
fn packets_cut_at_every_byte() {
    let mut lab = Lab::new();
    let frame = udp([20, 0, 0, 1], 64, 18);
    let whole = Lab::from_peer(&Lab::vxlan(VNI, &frame));
    for len in 0..whole.len() {
        // Cut by the wire, which the lengths contradict.
        lab.r.h.receive(2, &whole[..len]);
        assert_eq!(lab.r.all_sent(), [], "{len}");
    }
    for len in 0..frame.len() + 8 {
        // Cut inside, with right lengths all around.
        let packet = Lab::from_peer(&Lab::vxlan(VNI, &frame)[..len]);
        lab.r.h.receive(2, &packet);
        let sent = lab.r.all_sent();
        if len < 8 + 14 {
            assert_eq!(sent, [], "{len}");
        } else {
            assert_eq!(sent, [(3, frame[..len - 8].to_vec())], "{len}");
        }
    }
    let truncated = lab.r.h.error("vxlan4-input", "truncated vxlan packet");
    assert_eq!(truncated, 8 + 14);
    // The UDP length says less than there is.
    for len in 0..=frame.len() + 16 {
        let mut packet = whole.clone();
        packet[38..40].copy_from_slice(&(len as u16).to_be_bytes());
        lab.r.h.receive(2, &packet);
        let sent = lab.r.all_sent();
        assert_eq!(sent.len(), usize::from(len >= 16 + 14), "{len}");
    }
}

#[test]
fn a_tunnel_in_itself_ends() {
    let mut lab = Lab::new();
    // The way to the peer leads into the tunnel.
    lab.r.change(|tables| {
        tables.adjacencies[1].tx = SwIfIndex(TUNNEL);
        tables.adjacencies[1].mtu = u16::MAX;
    });
    lab.tunnel.max_frame = u16::MAX;
    lab.publish();
    lab.drops(3, &udp([20, 0, 0, 1], 64, 18), "vxlan4-encap", "no room for the tunnel's headers");
}

#[test]
fn a_group_and_all_that_listen_to_it() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];
    const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
    const STRANGER: [u8; 4] = [10, 0, 2, 77];
    let mut lab = Lab::new();
    lab.tunnel.outer = OuterHeader::new(US.into(), GROUP.into(), [0, PORT], VNI);
    lab.publish();
    let frame = udp([20, 0, 0, 1], 64, 18);
    let sent = lab.r.pass(3, &frame, 2);
    assert_eq!(sent[0][30..34], GROUP);
    let payload = Lab::vxlan(VNI, &frame);
    let to_group = Lab::packet(STRANGER, GROUP, GROUP_MAC, &payload);
    lab.drops(2, &to_group, "ip4-input", "ip4 multicast is not forwarded");
    lab.r.change(|tables| tables.groups = vec![(u32::from_be_bytes(GROUP), SwIfIndex(2))]);
    assert_eq!(lab.r.pass(2, &to_group, 3), std::slice::from_ref(&frame), "{:?}", lab.r.h.errors());
    // Who has learned our address sends to it.
    assert_eq!(
        lab.r.pass(2, &Lab::packet(STRANGER, US, MAC[2].0, &payload), 3),
        std::slice::from_ref(&frame)
    );
    let other = Lab::packet(STRANGER, GROUP, GROUP_MAC, &Lab::vxlan(1, &frame));
    lab.drops(2, &other, "vxlan4-input", "no such tunnel packets");
    // Listened to on another interface, and another group.
    lab.drops(1, &to_group, "ip4-input", "ip4 multicast is not forwarded");
    let other = Lab::packet(STRANGER, [239, 1, 2, 4], [1, 0, 0x5e, 1, 2, 4], &payload);
    lab.drops(2, &other, "ip4-input", "ip4 multicast is not forwarded");
}

#[test]
fn packets_of_one_vector_are_as_they_are_alone() {
    let mut lab = Lab::new();
    let inner = |n: u8| udp([20, 0, 0, n], 64, 18);
    let good = |n: u8| Lab::from_peer(&Lab::vxlan(VNI, &inner(n)));
    let mut cut = good(3);
    cut.truncate(40);
    let in_order = [
        (good(1), true),
        (good(2), true),
        (cut, false),
        (Lab::from_peer(&Lab::vxlan(VNI + 1, &inner(4))), false),
        (with_options(good(5), 2), true),
        (Lab::from_peer(&Lab::vxlan(VNI, &inner(6)[..13])), false),
        (with_header(good(7), |ip| ip[15] = 8), false),
        (good(8), true),
        (good(9), true),
    ];
    in_order.iter().for_each(|(packet, _)| lab.r.h.receive(2, packet));
    let wanted: Vec<_> = [1, 2, 5, 8, 9].map(|n| (3, inner(n))).into();
    assert_eq!(lab.r.all_sent(), wanted, "{:?}", lab.r.h.errors());
    assert_eq!(lab.r.h.engine.counters().virtual_rx.get(TUNNEL).packets, 6, "the short one too");

    // The other way: of different lengths, and one that does not fit.
    let lengths = [60, 61, 1465, 62, 1464, 60];
    lengths.iter().for_each(|len| lab.r.h.receive(3, &udp([20, 0, 0, 1], 64, len - 42)));
    let sent: Vec<usize> = lab.r.all_sent().into_iter().map(|(_, packet)| packet.len() - 50).collect();
    assert_eq!(sent, [60, 61, 62, 1464, 60]);
    assert_eq!(lab.r.h.error("vxlan4-encap", "frame is longer than the tunnel's MTU"), 1);
}
