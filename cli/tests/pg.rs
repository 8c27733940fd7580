//! Packets of known bytes through the packet generator; what comes out is compared with what scapy makes of it.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Daemon, PATIENCE, counter, run, settled, wait_until};

/// A router between pg0 and pg1, with a host behind pg1.
const ROUTER: &str = "create packet-generator interface pg0
    create packet-generator interface pg1
    set interface mac address pg0 02:fe:00:00:00:01
    set interface mac address pg1 02:fe:00:00:00:02
    set interface ip address pg0 10.0.1.1/24
    set interface ip address pg1 10.0.2.1/24
    set interface state pg0 up
    set interface state pg1 up
    ip neighbor pg0 10.0.1.2 02:00:00:00:00:11
    ip neighbor pg1 10.0.2.2 02:00:00:00:00:22
    ip route add 192.0.2.0/24 via 10.0.2.2";

/// Runs scapy, with the directory `d` to write into.
fn scapy(dir: &Path, snippet: &str) {
    let program = format!("from scapy.all import *\nd = '{}/'\n{snippet}", dir.display());
    run(Command::new("/usr/bin/python3").args(["-c", &program]));
}

/// The frames of a pcap file in this machine's byte order.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[24..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// Plays `in.pcap` into pg0 to its end.
#[track_caller]
fn play(daemon: &Daemon) {
    let file = daemon.file("in.pcap");
    daemon.script(&format!(
        "packet-generator new {{ name x interface pg0 pcap {} }}
         packet-generator enable-stream x",
        file.display()
    ));
    wait_until("the stream is done", PATIENCE, || daemon.json("show packet-generator")[0][0]["done"] == true);
    settled(daemon);
}

#[track_caller]
fn compare(got: &Path, wanted: &Path) {
    let (got, wanted) = (frames(got), frames(wanted));
    assert_eq!(got.len(), wanted.len());
    for (number, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        assert_eq!(got, wanted, "frame {number}");
    }
}

#[test]
fn routed_packets_byte_for_byte() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(ROUTER);
    scapy(
        daemon.dir(),
        "
def ip(**more): return IP(src='10.0.1.2', dst='192.0.2.7', **more)
packets = [ip(ttl=t, id=t)/UDP(sport=t, dport=9)/Raw(bytes(range(t))) for t in range(18, 256)]
packets += [ip(tos=0xb8, flags='DF')/TCP(sport=1, dport=2, flags='S')/Raw(b'x' * n) for n in range(6, 1461, 97)]
packets += [ip(options=IPOption(b'\\x94\\x04\\x00\\x00'))/ICMP()/Raw(b'options' * 9)]
packets += [ip(flags='MF', frag=0)/UDP()/Raw(b'f' * 64), ip(frag=9, proto=17)/Raw(b'f' * 64)]
packets += [ip(proto=253)/Raw(b'unknown protocol' * 4)]
# The checksum's own corners: 0x0000 and around it, by the identification.
packets += [ip(ttl=64, id=n)/UDP()/Raw(b'c' * 32) for n in range(0, 65536, 257)]
wrpcap(d + 'in.pcap', [Ether(src='02:00:00:00:00:11', dst='02:fe:00:00:00:01')/p for p in packets])
wanted = []
for p in packets:
    p = IP(bytes(p))
    p.ttl -= 1
    del p.chksum
    wanted.append(Ether(src='02:fe:00:00:00:02', dst='02:00:00:00:00:22')/p)
wrpcap(d + 'wanted.pcap', wanted)",
    );
    let captured = daemon.file("out.pcap");
    daemon.script(&format!("packet-generator capture pg1 pcap {}", captured.display()));
    play(&daemon);
    let said = daemon.script("packet-generator capture pg1 disable");
    let wanted = daemon.file("wanted.pcap");
    assert!(said.starts_with(&format!("{} packets written", frames(&wanted).len())), "{said}");
    compare(&captured, &wanted);
    assert_eq!(daemon.json("show packets")["dropped"], 0);
}

/// What may not be forwarded: each packet is dropped, and counted under its name.
#[test]
fn malformed_packets_are_dropped_and_counted() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(ROUTER);
    scapy(
        daemon.dir(),
        "
def ip(**more): return IP(src='10.0.1.2', dst='192.0.2.7', **more)
payload = UDP()/Raw(b'p' * 64)
packets = [ip(chksum=1)/payload, ip(version=5)/payload, ip(ihl=4)/payload, ip(len=19)/payload, ip(len=1400)/payload,
           ip(ihl=15)/Raw(b'')]
wrpcap(d + 'in.pcap', [Ether(src='02:00:00:00:00:11', dst='02:fe:00:00:00:01')/p for p in packets])",
    );
    play(&daemon);
    assert_eq!(daemon.json("show packets")["dropped"], 6);
    assert_eq!(counter(&daemon, "pg1", "tx packets"), 0);
    let errors = daemon.json("show errors");
    let rows = errors.as_array().unwrap().iter();
    let counted: u64 = rows.filter(|r| r["node"] == "ip4-input").map(|r| r["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 6, "{errors}");
}

/// RFC 1812 4.3.2.3: the error holds the header of the packet that it is about.
#[test]
fn time_exceeded_byte_for_byte() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(ROUTER);
    scapy(
        daemon.dir(),
        "
packet = IP(src='10.0.1.2', dst='192.0.2.7', ttl=1, id=77)/UDP(sport=33434, dport=33434)/Raw(b'traceroute' * 4)
wrpcap(d + 'in.pcap', [Ether(src='02:00:00:00:00:11', dst='02:fe:00:00:00:01')/packet])
open(d + 'quoted', 'wb').write(bytes(packet))",
    );
    let captured = daemon.file("out.pcap");
    daemon.script(&format!("packet-generator capture pg0 pcap {}", captured.display()));
    play(&daemon);
    wait_until("the error is sent", PATIENCE, || counter(&daemon, "pg0", "tx packets") == 1);
    daemon.script("packet-generator capture pg0 disable");
    let (frames, quoted) = (frames(&captured), std::fs::read(daemon.file("quoted")).unwrap());
    let frame = &frames[0];
    assert_eq!(frame[..12], [2, 0, 0, 0, 0, 0x11, 2, 0xfe, 0, 0, 0, 1]);
    assert_eq!(frame[26..34], [10, 0, 1, 1, 10, 0, 1, 2], "from the interface that received it");
    assert_eq!(frame[34..36], [11, 0], "type and code");
    assert!(frame[42..].starts_with(&quoted[..28]), "{frame:x?}");
    settled(&daemon);
}
