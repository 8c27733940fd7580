//! The XDP program: attached, refused, detached, and which frames it steals.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_drivers::af_xdp::{
    Feature, XdpError, XskSocket,
    link::Links,
    program::{AttachMode, KeptPort, MAX_LIST, Steal, XdpProgram},
};

use crate::lab::{Lab, Pool, Raw, eventually, fill, ip, received, udp};

fn attach(lab: &Lab, multi_buffer: bool) -> Result<XdpProgram, XdpError> {
    lab.inside(|| XdpProgram::attach(&lab.link(), AttachMode::Native, multi_buffer))
}

#[test]
fn detached_when_dropped() {
    let lab = Lab::new(1, 1500);
    let attached = || lab.inside(|| lab.link().xdp_program);
    assert_eq!(attached(), None);
    let program = attach(&lab, false).expect("attaching");
    assert_eq!(program.interface(), "w0");
    let id = attached().expect("a program");

    let error = attach(&lab, false).err().expect("the place is taken");
    assert!(matches!(error, XdpError::ProgramAttached { program, .. } if program == id), "{error}");
    // The test's own process.
    let holder = format!("w0 is in use by process {} (", std::process::id());
    assert!(error.to_string().starts_with(&holder), "{error}");
    assert!(error.to_string().contains(&format!("XDP program (id {id}) is attached")), "{error}");
    drop(program);
    eventually("detaching", || attached().is_none().then_some(()));
    attach(&lab, false).expect("attaching again");
}

#[test]
fn frames_too_large_for_native_mode_are_refused_beforehand() {
    let lab = Lab::new(1, 9000);
    let error = attach(&lab, false).err().expect("9000 bytes do not fit");
    assert!(matches!(error, XdpError::MtuTooLarge { .. }), "{error}");
    assert!(error.to_string().starts_with("the MTU of w0's veth peer is too large"), "{error}");
    attach(&lab, true).expect("but in pieces they do");
}

#[test]
fn fewer_queues_than_the_peer_are_refused() {
    let lab = Lab::new(1, 1500);
    ip(&format!("-n {} link del w0", lab.ours));
    let (one, two) = ("numrxqueues 1 numtxqueues 1", "numrxqueues 2 numtxqueues 2");
    let peer = format!("peer name p0 {two} netns {}", lab.theirs);
    ip(&format!("-n {} link add w0 {one} type veth {peer}", lab.ours));
    ip(&format!("-n {} link set w0 up", lab.ours));
    let error = attach(&lab, false).err().expect("one queue for two");
    assert!(matches!(error, XdpError::TooFewQueues { .. }), "{error}");
}

#[test]
fn generic_mode_wants_segmentation_off() {
    let lab = Lab::new(1, 1500);
    ip(&format!("-n {} link del w0", lab.ours));
    ip(&format!("-n {} link add w0 type veth peer name p0", lab.ours));
    ip(&format!("-n {} link set w0 up", lab.ours));
    ip(&format!("-n {} link set p0 up", lab.ours));
    let attach = || lab.inside(|| XdpProgram::attach(&lab.link(), AttachMode::Generic, false));
    assert!(lab.inside(|| lab.link()).peer.is_some());
    let off = |interface: &str, feature| {
        lab.inside(|| Links::open().and_then(|links| links.set_feature(interface, feature, false)))
            .expect("settable");
    };
    let error = attach().err().expect("offloads are on");
    assert_eq!(
        error.to_string(),
        "generic XDP on w0 needs segmentation offload off: ethtool -K w0 tso off gso off"
    );
    off("w0", Feature::Tso);
    off("w0", Feature::Gso);
    let error = attach().err().expect("the peer's are on");
    assert!(matches!(error, XdpError::SegmentationOffload { interface, .. } if interface == "p0"));
    off("p0", Feature::Tso);
    off("p0", Feature::Gso);
    let _program = attach().expect("attaching");
    assert!(lab.inside(|| lab.link()).xdp_program.is_some());
}

/// Who got a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Wharf,
    Kernel,
}
use Taker::{Kernel, Wharf};

/// `w0` with program and socket, and both ends' raw sockets.
struct Fork {
    program: XdpProgram,
    socket: XskSocket,
    pool: Pool,
    ours: Raw,
    theirs: Raw,
    sent: u8,
    _lab: Lab,
}

impl Fork {
    fn new(multi_buffer: bool) -> Fork {
        let (lab, pool) = (Lab::new(1, 1500), Pool::new());
        let mut program = attach(&lab, multi_buffer).expect("attaching");
        let mut socket = lab.open(&pool, 0).expect("a socket");
        fill(&mut socket, 0, 256);
        program.set_socket(0, &socket).expect("an entry of the socket map");
        let (ours, theirs) = (lab.inside(|| Raw::open("w0")), lab.peer());
        Fork { program, socket, pool, ours, theirs, sent: 0, _lab: lab }
    }

    /// Sends a frame with a source address of its own and sees where it turns up.
    fn taker(&mut self, mut frame: Vec<u8>) -> Taker {
        self.sent += 1;
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 1, self.sent]);
        let source = frame[6..12].to_vec();
        self.theirs.send(&frame);
        let pool = &self.pool;
        let what = format!("{:02x?}", &frame[12..]);
        eventually(&what, || {
            if received(&mut self.socket, pool).iter().any(|got| got[6..12] == source) {
                return Some(Wharf);
            }
            std::iter::from_fn(|| self.ours.next()).any(|got| got[6..12] == source).then_some(Kernel)
        })
    }
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 0], &ethertype.to_be_bytes(), payload].concat()
}

/// IPv4 with a fragment field, and what follows the header.
fn ip4(protocol: u8, fragment: u16, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len() as u16).to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let header = [0x45, 0, total[0], total[1], 0, 0, high, low, 64, protocol, 0, 0, 10, 0, 0, 2];
    [&header[..], &to, payload].concat()
}

fn ip6(next: u8, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 64][..], &[0xfe; 16], &to.octets(), payload].concat()
}

/// A TCP or UDP header as far as anyone looks here.
fn ports(destination: u16) -> Vec<u8> {
    let mut header = vec![0x30, 0x39];
    header.extend(destination.to_be_bytes());
    header.resize(20, 0);
    header
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const HERE: [u8; 4] = [10, 0, 0, 1];
const HERE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

#[test]
fn the_kernel_has_everything_until_told() {
    let mut fork = Fork::new(false);
    assert_eq!(fork.taker(ethernet(0x88b5, &[0; 46])), Kernel);
    fork.program.steal(&Steal::Everything).expect("stealing");
    assert_eq!(fork.taker(ethernet(0x88b5, &[0; 46])), Wharf);
    assert_eq!(fork.taker(ethernet(0x0806, &[0; 46])), Wharf);
    fork.program.clear_socket(0).expect("clearing");
    fork.program.clear_socket(0).expect("clearing what is clear");
    assert_eq!(fork.taker(ethernet(0x88b5, &[0; 46])), Kernel, "fails open");
    fork.program.set_socket(0, &fork.socket).expect("setting");
    assert_eq!(fork.taker(ethernet(0x88b5, &[0; 46])), Wharf);
    fork.program.steal(&Steal::Nothing).expect("stealing nothing");
    assert_eq!(fork.taker(ethernet(0x88b5, &[0; 46])), Kernel);
    let error = fork.program.set_socket(64, &fork.socket).expect_err("64 queues: 0 to 63");
    assert!(matches!(error, XdpError::Config(_)), "{error}");
}

#[test]
fn an_uplink_keeps_what_is_listed() {
    for multi_buffer in [false, true] {
        let mut fork = Fork::new(multi_buffer);
        let keep = vec![KeptPort::Tcp(22), KeptPort::Udp(53)];
        fork.program.steal(&Steal::AllBut { keep }).expect("a keep list");
        let hop_by_hop = |next: u8| [&[next, 1][..], &[0; 14], &ports(22)].concat();
        let icmp6 = |kind: u8| ip6(58, HERE6, &[&[kind][..], &[0; 23]].concat());
        let mut long = ip4(TCP, 0, HERE, &[&[1; 8][..], &ports(22)].concat());
        long[0] = 0x47;
        let cases = [
            ("ARP", 0x0806, vec![0; 28], Kernel),
            ("another protocol", 0x88b5, vec![0; 46], Wharf),
            ("tcp/22", 0x0800, ip4(TCP, 0, HERE, &ports(22)), Kernel),
            ("tcp/23", 0x0800, ip4(TCP, 0, HERE, &ports(23)), Wharf),
            ("udp/22", 0x0800, ip4(UDP, 0, HERE, &ports(22)), Wharf),
            ("udp/53", 0x0800, ip4(UDP, 0x4000, HERE, &ports(53)), Kernel),
            ("tcp/22 behind options", 0x0800, long, Kernel),
            ("ICMP", 0x0800, ip4(1, 0, HERE, &[8; 20]), Wharf),
            ("first fragment", 0x0800, ip4(UDP, 0x2000, HERE, &ports(9)), Kernel),
            ("last fragment", 0x0800, ip4(UDP, 0x0010, HERE, &[0; 20]), Kernel),
            ("no ports left", 0x0800, ip4(TCP, 0, HERE, &[0; 3]), Kernel),
            ("half an IPv4 header", 0x0800, ip4(TCP, 0, HERE, &[])[..19].to_vec(), Kernel),
            (
                "IPv4 of version 5",
                0x0800,
                [&[0x55][..], &ip4(TCP, 0, HERE, &ports(80))[1..]].concat(),
                Kernel,
            ),
            ("tcp/22 in IPv6", 0x86dd, ip6(TCP, HERE6, &ports(22)), Kernel),
            ("tcp/80 in IPv6", 0x86dd, ip6(TCP, HERE6, &ports(80)), Wharf),
            ("hop-by-hop, tcp/22", 0x86dd, ip6(0, HERE6, &hop_by_hop(TCP)), Kernel),
            ("hop-by-hop, udp/22", 0x86dd, ip6(0, HERE6, &hop_by_hop(UDP)), Wharf),
            ("IPv6 fragment", 0x86dd, ip6(44, HERE6, &[0; 28]), Kernel),
            ("half an IPv6 header", 0x86dd, ip6(TCP, HERE6, &[])[..39].to_vec(), Kernel),
            ("router advertisement", 0x86dd, icmp6(134), Kernel),
            ("neighbour solicitation", 0x86dd, icmp6(135), Kernel),
            ("echo request in IPv6", 0x86dd, icmp6(128), Wharf),
            ("tagged tcp/22", 0x8100, [&[0, 7, 8, 0][..], &ip4(TCP, 0, HERE, &ports(22))].concat(), Kernel),
            ("tagged tcp/23", 0x8100, [&[0, 7, 8, 0][..], &ip4(TCP, 0, HERE, &ports(23))].concat(), Wharf),
            ("tagged twice, ARP", 0x88a8, [&[0, 7, 0x81, 0, 0, 8, 8, 6][..], &[0; 28]].concat(), Kernel),
        ];
        for (name, ethertype, payload, taker) in cases {
            assert_eq!(fork.taker(ethernet(ethertype, &payload)), taker, "{name}");
        }
        // The kernel drops half a tag unseen; that it is not ours shows in what comes after it.
        fork.theirs.send(&ethernet(0x8100, &[0, 7]));
        fork.theirs.send(&ethernet(0x88b5, &[0; 46]));
        let got = eventually("a frame", || received(&mut fork.socket, &fork.pool).into_iter().next());
        assert_eq!(got[12..14], [0x88, 0xb5]);
    }
}

#[test]
fn only_listed_addresses_are_stolen() {
    let mut fork = Fork::new(false);
    let addresses = vec![IpAddr::V4(Ipv4Addr::from(HERE)), IpAddr::V6(HERE6)];
    fork.program.steal(&Steal::OnlyTo { addresses }).expect("a steal list");
    let other6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    for (name, ethertype, payload, taker) in [
        ("ARP", 0x0806, vec![0; 28], Kernel),
        ("another protocol", 0x88b5, vec![0; 46], Kernel),
        ("listed", 0x0800, ip4(TCP, 0, HERE, &ports(22)), Wharf),
        ("listed, a fragment", 0x0800, ip4(UDP, 0x0010, HERE, &[0; 20]), Wharf),
        ("not listed", 0x0800, ip4(TCP, 0, [10, 0, 0, 9], &ports(80)), Kernel),
        ("listed, IPv6", 0x86dd, ip6(TCP, HERE6, &ports(22)), Wharf),
        ("not listed, IPv6", 0x86dd, ip6(TCP, other6, &ports(22)), Kernel),
    ] {
        assert_eq!(fork.taker(ethernet(ethertype, &payload)), taker, "{name}");
    }
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let mut fork = Fork::new(false);
    let udp_to = |port| udp([0xff; 6], [10, 0, 0, 2], HERE, (1000, port), b"payload");
    let keep = |fork: &mut Fork, ports: &[u16]| {
        let keep = ports.iter().map(|&port| KeptPort::Udp(port)).collect();
        fork.program.steal(&Steal::AllBut { keep })
    };
    keep(&mut fork, &[1, 2]).expect("a keep list");
    assert_eq!([1, 2, 3].map(|port| fork.taker(udp_to(port))), [Kernel, Kernel, Wharf]);
    keep(&mut fork, &[2, 3]).expect("another");
    assert_eq!([1, 2, 3].map(|port| fork.taker(udp_to(port))), [Wharf, Kernel, Kernel]);
    let full: Vec<u16> = (0..MAX_LIST as u16).collect();
    keep(&mut fork, &full).expect("a full list");
    assert_eq!(fork.taker(udp_to(1023)), Kernel);
    let error = keep(&mut fork, &(0..=MAX_LIST as u16).collect::<Vec<_>>()).expect_err("one more");
    assert!(matches!(error, XdpError::Config(_)), "{error}");
    assert_eq!(fork.taker(udp_to(1023)), Kernel, "a refused list changes nothing");
    fork.program.steal(&Steal::Everything).expect("stealing");
    keep(&mut fork, &[]).expect("an empty list");
    assert_eq!(fork.taker(udp_to(1023)), Wharf, "nothing of the old lists is left");
}
