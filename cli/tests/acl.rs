//! Access lists between pods, over AF_XDP: permitted, denied, reflected, and ended by a replaced list; routed and bridged.

mod common;

use common::{Background, Daemon, Netns, PATIENCE, Veth, error, scapy, settled, wait_until};
use std::process::Stdio;

/// Two pods, each behind an interface of its own.
struct Lab {
    daemon: Daemon,
    a: Netns,
    b: Netns,
    _dp: Netns,
}

impl Lab {
    /// Pods 10.0.1.2 and 10.0.2.2, with wharf as their router.
    #[track_caller]
    fn routed() -> Self {
        let lab = Self::new("10.0.1.2/24", "10.0.2.2/24");
        lab.a.ip("route add default via 10.0.1.1");
        lab.b.ip("route add default via 10.0.2.1");
        lab.daemon.script(
            "set interface ip address veth-a 10.0.1.1/24
            set interface ip address veth-b 10.0.2.1/24",
        );
        wait_until("the pods see each other", PATIENCE, || lab.a.ping("10.0.2.2", 1) == 1);
        lab
    }

    #[track_caller]
    fn new(a: &str, b: &str) -> Self {
        let dp = Netns::new("dp");
        let pod = |suffix: &str, address: &str| {
            let pod = Netns::new(suffix);
            Veth::new(&dp, &format!("veth-{suffix}"), &pod, address, 1);
            pod
        };
        let (a, b) = (pod("a", a), pod("b", b));
        let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
        for name in ["veth-a", "veth-b"] {
            daemon.script(&format!(
                "create interface af_xdp host-if {name} name {name}
                set interface state {name} up"
            ));
        }
        Self { daemon, a, b, _dp: dp }
    }

    /// `acl explain`, the verdict.
    fn verdict(&self, packet: &str) -> String {
        self.daemon.json(&format!("acl explain {packet}"))["verdict"].as_str().unwrap_or_default().to_owned()
    }
}

const ECHO: &str = "
import socket, sys, threading
kind, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', port))
def serve(c):
    while True:
        d = c.recv(65536)
        if not d: return
        c.sendall(d)
if kind == 'tcp':
    s.listen(8)
    while True:
        c, _ = s.accept()
        threading.Thread(target=serve, args=(c,), daemon=True).start()
else:
    while True:
        d, who = s.recvfrom(65536)
        s.sendto(d, who)
";

/// Asks an echo server each time a line comes on standard input, and prints `yes` or `no`.
const ASK: &str = "
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
s.settimeout(1.5)
try:
    s.connect((address, port))
except OSError:
    print('no', flush=True)
    sys.exit()
for line in sys.stdin:
    try:
        s.send(line.encode())
        print('yes' if s.recv(65536) == line.encode() else 'wrong', flush=True)
    except OSError:
        print('no', flush=True)
";

fn server(pod: &Netns, kind: &str, port: u16) -> Background {
    pod.spawn("python3", ["-c", ECHO, kind, &port.to_string()])
}

/// A connection that stays open.
struct Client(std::process::Child);

impl Client {
    fn new(pod: &Netns, kind: &str, address: &str, port: u16) -> Self {
        let mut command = pod.command("python3");
        command.args(["-c", ASK, kind, address, &port.to_string()]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Whether the server answers on the connection.
    fn asks(&mut self, what: &str) -> bool {
        use std::io::{BufRead, BufReader, Write};
        let _ = writeln!(self.0.stdin.as_mut().unwrap(), "{what}");
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_ne!(line.trim(), "wrong");
        line.trim() == "yes"
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(pod: &Netns, kind: &str, address: &str, port: u16) -> bool {
    Client::new(pod, kind, address, port).asks("hello")
}

#[test]
fn permitted_denied_reflected_and_replaced() {
    let lab = Lab::routed();
    let dp = &lab.daemon;
    let _servers = [server(&lab.b, "tcp", 80), server(&lab.b, "tcp", 81), server(&lab.b, "udp", 53)];
    let _back = server(&lab.a, "tcp", 80);
    wait_until("the servers answer", PATIENCE, || {
        ["tcp"; 2].iter().zip([80, 81]).all(|(kind, port)| answers(&lab.a, kind, "10.0.2.2", port))
            && answers(&lab.a, "udp", "10.0.2.2", 53)
            && answers(&lab.b, "tcp", "10.0.1.2", 80)
    });

    // Stateless, on the way in.
    assert_eq!(
        dp.script("set acl-plugin acl permit proto 6 dport 80 tag web, permit proto 17, permit proto 1"),
        "ACL index:0\n"
    );
    dp.script("set acl-plugin interface veth-a input acl 0");
    assert!(answers(&lab.a, "tcp", "10.0.2.2", 80) && answers(&lab.a, "udp", "10.0.2.2", 53));
    assert!(!answers(&lab.a, "tcp", "10.0.2.2", 81));
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2);
    assert!(error(dp, "acl-plugin-in-ip4-fa", "ACL deny packets, no rule matched") > 0);
    let shown = dp.script("show acl-plugin acl");
    assert!(shown.starts_with("acl-index 0 count 3 tag {web}\n          0: ipv4 permit src 0.0.0.0/0 dst 0.0.0.0/0 proto 6 sport 0-65535 dport 80 matched "), "{shown}");
    assert!(shown.contains("  applied inbound on sw_if_index: 1\n"), "{shown}");
    let drops = dp.json("show acl-plugin drops");
    let is_it = |d: &serde_json::Value| d["dport"] == 81 && d["interface"] == "veth-a" && d["rule"].is_null();
    assert!(drops.as_array().unwrap().iter().any(is_it), "{drops}");
    assert!(dp.log().contains("acl: veth-a input denied src 10.0.1.2 dst 10.0.2.2 proto 6"), "{}", dp.log());
    let packet = "veth-a input src 10.0.1.2 dst 10.0.2.2 proto 6 sport 1000 dport";
    assert_eq!([80, 81].map(|port| lab.verdict(&format!("{packet} {port}"))), ["permit", "deny"]);

    // Stateful: nobody may call pod b but whom pod b has called; and pod a may call port 80.
    dp.script(
        "set acl-plugin interface veth-a input acl 0 del
        set acl-plugin acl permit+reflect
        set acl-plugin acl permit+reflect proto 6 dport 80, permit+reflect proto 17, deny
        set acl-plugin interface veth-b input acl 1
        set acl-plugin interface veth-b output acl 2",
    );
    assert!(!answers(&lab.a, "tcp", "10.0.2.2", 81));
    assert_eq!((lab.a.ping("10.0.2.2", 2), lab.b.ping("10.0.1.2", 2)), (0, 2));
    assert!(answers(&lab.b, "tcp", "10.0.1.2", 80) && answers(&lab.a, "udp", "10.0.2.2", 53));
    let mut open = Client::new(&lab.a, "tcp", "10.0.2.2", 80);
    assert!(open.asks("one") && open.asks("two"));
    let sessions = dp.json("show acl-plugin sessions");
    let list = sessions["sessions"].as_array().unwrap();
    let is_open =
        |s: &&serde_json::Value| s["dport"] == 80 && s["established"] == true && s["direction"] == "output";
    let session = list.iter().find(is_open).unwrap_or_else(|| panic!("{sessions}"));
    assert_eq!((session["acl"].as_u64(), session["rule"].as_u64()), (Some(2), Some(0)));
    let back = format!("veth-b input src 10.0.2.2 dst 10.0.1.2 proto 6 sport 80 dport {}", session["sport"]);
    let why = dp.script(&format!("acl explain {back}"));
    assert!(why.contains("belongs to the session output") && why.contains("acl 2 rule 0"), "{why}");

    // A list that still permits it leaves the connection open; one that does not, ends it at once, in both directions.
    dp.script("set acl-plugin acl index 2 deny proto 17, permit+reflect proto 6 dport 80-90");
    assert!(open.asks("three") && !answers(&lab.a, "udp", "10.0.2.2", 53));
    dp.script("set acl-plugin acl index 2 permit+reflect proto 6 dport 81");
    assert!(!open.asks("four"));
    assert!(answers(&lab.a, "tcp", "10.0.2.2", 81) && !answers(&lab.a, "tcp", "10.0.2.2", 80));
    assert!(error(dp, "acl-plugin-out-ip4-fa", "sessions ended by a change of lists") > 0);

    dp.script("clear acl-plugin sessions");
    assert_eq!(dp.json("show acl-plugin sessions")["sessions"].as_array().map(Vec::len), Some(0));
    assert!(dp.ctl("delete acl-plugin acl index 2").unwrap_err().contains("is applied to veth-b output"));
    dp.script(
        "set acl-plugin interface veth-b input acl 1 del
        set acl-plugin interface veth-b output acl 2 del
        delete acl-plugin acl index 2",
    );
    assert!(answers(&lab.a, "tcp", "10.0.2.2", 80));
    assert_eq!(dp.script("show acl-plugin interface"), "");
    settled(dp);
}

#[test]
fn bridged_frames_of_all_kinds() {
    let lab = Lab::new("10.0.1.2/24", "10.0.1.3/24");
    let dp = &lab.daemon;
    dp.script(
        "create bridge-domain 1
        set interface l2 bridge veth-a 1
        set interface l2 bridge veth-b 1",
    );
    wait_until("the pods see each other", PATIENCE, || lab.a.ping("10.0.1.3", 1) == 1);
    let _servers = [server(&lab.b, "tcp", 80), server(&lab.b, "tcp", 81)];
    wait_until("the servers answer", PATIENCE, || {
        [80, 81].iter().all(|port| answers(&lab.a, "tcp", "10.0.1.3", *port))
    });
    dp.script(
        "set acl-plugin acl permit+reflect proto 6 dport 80, permit+reflect ipv6 proto 58
        set acl-plugin interface veth-b output acl 0",
    );
    assert!(answers(&lab.a, "tcp", "10.0.1.3", 80) && !answers(&lab.a, "tcp", "10.0.1.3", 81));
    assert_eq!(lab.a.ping("10.0.1.3", 2), 0);
    assert!(error(dp, "acl-plugin-out-ip4-l2", "ACL deny packets, no rule matched") > 0);
    dp.script("trace add af_xdp-input 10");
    lab.a.ping("10.0.1.3", 1);
    assert!(dp.script("show trace").contains("no rule matched"), "{}", dp.script("show trace"));
    // Only ARP passes besides IP; then not even that.
    dp.script("set acl-plugin etype-whitelist veth-a input 0x0806");
    let mac = lab.b.run("cat", ["/sys/class/net/eth0/address"]);
    let ether = format!("Ether(dst='{}', type=0x88b5)", mac.trim());
    scapy(&lab.a, &format!("sendp({ether} / Raw(b'x' * 60), iface='eth0')"));
    wait_until("the frame is dropped", PATIENCE, || {
        error(dp, "acl-plugin-in-nonip-l2", "ACL deny packets, ethertype not in whitelist") > 0
    });
    lab.a.ip("neigh flush all");
    assert!(answers(&lab.a, "tcp", "10.0.1.3", 80));
    // IPv6, behind an extension header.
    let six =
        format!("Ether(src='02:00:00:00:00:01', dst='{}') / IPv6(src='fd00::2', dst='fd00::3')", mac.trim());
    scapy(&lab.a, &format!("sendp({six} / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(), iface='eth0')"));
    scapy(&lab.a, &format!("sendp({six} / IPv6ExtHdrDestOpt() / UDP(dport=9), iface='eth0')"));
    for reason in ["ACL deny packets, no rule matched", "new sessions added"] {
        wait_until(reason, PATIENCE, || error(dp, "acl-plugin-out-ip6-l2", reason) == 1);
    }
    // Port security: pod a is who it is.
    let mac = lab.a.run("cat", ["/sys/class/net/eth0/address"]);
    dp.script(&format!(
        "set acl-plugin acl index 0 permit
        set acl-plugin etype-whitelist veth-a input del
        set acl-plugin macip acl permit ip 10.0.1.2/32 mac {} tag pod-a
        set acl-plugin macip interface veth-a 0",
        mac.trim()
    ));
    assert_eq!(lab.a.ping("10.0.1.3", 2), 2);
    lab.a.ip("addr add 10.0.1.7/24 dev eth0");
    let spoofed =
        lab.a.command("ping").args(["-c", "1", "-W", "1", "-I", "10.0.1.7", "10.0.1.3"]).output().unwrap();
    assert!(!spoofed.status.success());
    assert!(error(dp, "macip-acl", "MACIP ACL deny packets") > 0);
    let shown = dp.script("show acl-plugin macip acl");
    assert!(
        shown.starts_with(
            "MACIP acl_index: 0, count: 1 tag {pod-a}\n          0: ipv4 permit ip 10.0.1.2/32 mac "
        ),
        "{shown}"
    );
    dp.script("delete interface veth-a");
    settled(dp);
}

#[test]
fn what_is_wrong_is_said() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(
        "create loopback interface
        create interface memif id 0 master
        create interface memif id 1 master mode ip
        create sub-interfaces memif0/0 7",
    );
    for (line, why) in [
        ("set acl-plugin acl permit dport 80", "rule 0: ports say nothing without proto"),
        (
            "set acl-plugin acl permit proto 6 dport 80, deny proto 6 dport 70000",
            "rule 1: dport must be at most 65535",
        ),
        ("set acl-plugin acl permit, deny,", "rule 1: a comma, and no rule behind it"),
        ("set acl-plugin acl permit deny", "no comma"),
        ("set acl-plugin acl permit src 10.0.0.0/8 dst fd00::/8", "not of one family"),
        ("set acl-plugin acl index 7 permit", "there is no acl 7"),
        ("set acl-plugin interface loop0 input acl 3", "there is no acl 3 (word 7)"),
        ("delete acl-plugin acl index 3", "there is no acl 3"),
        ("set acl-plugin acl permit proto 6 tcpflags 2 mask 1", "tcpflags 2 has bits that are not in mask 1"),
        ("set acl-plugin macip interface loop0 0", "loop0 is no device that receives Ethernet frames"),
        ("set acl-plugin macip interface memif0/0.7 0", "memif0/0.7 is a part of another interface"),
        ("set acl-plugin macip interface memif0/1 0", "memif0/1 is in IP mode"),
        ("acl explain loop0 input src 10.0.0.1 dst fd00::1", "of different families"),
    ] {
        let said = daemon.ctl(line).unwrap_err();
        assert!(said.contains(why), "{line}: {said}");
    }
    // Thousands of rules on one line, as a controller writes them.
    let rules: Vec<String> =
        (0..2000).map(|n| format!("permit src 10.{}.{}.0/24 proto 6 dport {n}", n >> 8, n & 255)).collect();
    assert_eq!(daemon.script(&format!("set acl-plugin acl {}", rules.join(", "))), "ACL index:0\n");
    daemon.script("set acl-plugin interface loop0 input acl 0");
    let tables = daemon.json("show acl-plugin tables");
    assert_eq!(tables[0]["rules"], 2000, "{tables}");
    let [worst, typical] =
        ["worst_steps", "typical_steps"].map(|name| tables[0]["ip4"][name].as_f64().unwrap_or_default());
    assert!(typical >= 1.0 && worst <= 2.0 * typical, "{tables}");
    let flags: Vec<String> =
        (0..65).map(|n| format!("deny proto 6 dport 22 tcpflags {n} mask 255")).collect();
    let refused = daemon.ctl(&format!("set acl-plugin acl index 0 {}", flags.join(", "))).unwrap_err();
    assert!(refused.contains("differ in their TCP flags alone"), "{refused}");
    let explained = daemon.json("acl explain loop0 input src 10.5.1.9 dst 1.2.3.4 proto 6 dport 1281");
    assert_eq!(explained["rule"], 1281, "{explained}");
}
