//! Containers over AF_XDP: a Linux namespace at each end of wharf, with its kernel as the peer.

mod common;

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Daemon, Netns, PATIENCE, TempDir, Veth, counter, iperf3, link, run, settled, wait_until};

/// Two pods, each with a veth pair to wharf's namespace.
struct Lab {
    daemon: Daemon,
    a: Netns,
    b: Netns,
    dp: Netns,
    veths: [Veth; 2],
    commands: String,
}

/// With the MAC addresses of the veths, which the pods know also after a restart.
const TAKE_OVER: &str = "create interface af_xdp host-if veth-a name veth-a mac-reuse
    create interface af_xdp host-if veth-b name veth-b mac-reuse
    set interface state veth-a up
    set interface state veth-b up";

impl Lab {
    /// Veths of `queues` queues in each direction, and as many workers.
    #[track_caller]
    fn new(address_a: &str, address_b: &str, queues: u32, commands: &str) -> Self {
        let (dp, a, b) = (Netns::new("dp"), Netns::new("a"), Netns::new("b"));
        let veths = [
            Veth::new(&dp, "veth-a", &a, address_a, queues),
            Veth::new(&dp, "veth-b", &b, address_b, queues),
        ];
        let daemon = Daemon::start(Some(&dp), &format!("cpu {{ workers {queues} }}"));
        let commands = format!("{TAKE_OVER}\n{commands}");
        daemon.script(&commands);
        Self { daemon, a, b, dp, veths, commands }
    }

    /// The pods are each other's neighbours.
    #[track_caller]
    fn cross_connected() -> Self {
        let connect = "set interface l2 xconnect veth-a veth-b
            set interface l2 xconnect veth-b veth-a";
        Self::new("10.0.1.2/24", "10.0.1.3/24", 1, connect)
    }

    /// wharf is the router between the pods.
    #[track_caller]
    fn routed() -> Self {
        Self::routed_with_queues(1)
    }

    #[track_caller]
    fn routed_with_queues(queues: u32) -> Self {
        let addresses = "set interface ip address veth-a 10.0.1.1/24
            set interface ip address veth-b 10.0.2.1/24";
        let lab = Self::new("10.0.1.2/24", "10.0.2.2/24", queues, addresses);
        lab.a.ip("route add default via 10.0.1.1");
        lab.b.ip("route add default via 10.0.2.1");
        lab
    }

    /// What `ping` says, answered or not.
    fn ping(&self, arguments: &str) -> String {
        let output = self.a.command("ping").args(["-n", "-W", "2"]).args(arguments.split(' ')).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }

    /// TCP both ways, and a file whose digest is compared.
    #[track_caller]
    fn tcp(&self, address_b: &str) {
        for offload in [true, false] {
            self.veths[0].set_tx_checksum(&self.a, offload);
            self.veths[1].set_tx_checksum(&self.b, offload);
            for direction in [&[][..], &["-R"]] {
                let rate = iperf3(&self.b, address_b, &self.a, 1, direction);
                assert!(rate > 1.0, "{rate} Mbit/s, tx checksum offload {offload}, {direction:?}");
            }
            self.file(address_b);
        }
        settled(&self.daemon);
    }

    #[track_caller]
    fn file(&self, address_b: &str) {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        // Four megabytes that repeat nowhere, less one: an odd length, as checksums pad.
        let bytes: Vec<u8> =
            (0..1 << 20).flat_map(|i: u32| i.wrapping_mul(0x9e37_79b1).to_be_bytes()).skip(1).collect();
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let digest = run(Command::new("sha256sum").arg(&path));
        let directory = dir.path().to_str().unwrap();
        let arguments = ["-m", "http.server", "--bind", address_b, "--directory", directory, "8000"];
        let _server = self.b.spawn("/usr/bin/python3", arguments);
        wait_until("the HTTP server listens", PATIENCE, || {
            self.b.run("ss", ["-Hltn", "sport = 8000"]).contains("8000")
        });
        let client = format!(
            "import hashlib, http.client
c = http.client.HTTPConnection('{address_b}', 8000, timeout=20)
c.request('GET', '/file')
print(hashlib.sha256(c.getresponse().read()).hexdigest())"
        );
        let received = self.a.run("/usr/bin/python3", ["-c", &client]);
        assert_eq!(digest.split_whitespace().next(), Some(received.trim()));
    }
}

#[test]
fn tcp_cross_connected() {
    let lab = Lab::cross_connected();
    assert_eq!(lab.a.ping("10.0.1.3", 3), 3);
    assert_eq!(lab.b.ping("10.0.1.2", 3), 3);
    lab.tcp("10.0.1.3");
    assert!(counter(&lab.daemon, "veth-b", "tx packets") > 1000);
}

#[test]
fn tcp_routed() {
    let lab = Lab::routed();
    lab.tcp("10.0.2.2");
    let routes = lab.daemon.script("show ip fib 10.0.2.2/32");
    assert!(routes.contains("ipv4 via 10.0.2.2 veth-b: mtu:1500"), "{routes}");
}

#[test]
fn arp_and_ping() {
    let lab = Lab::routed();
    // wharf's own addresses, then through it; the first packet waits for ARP and is not lost.
    assert_eq!(lab.a.ping("10.0.1.1", 3), 3);
    assert_eq!(lab.a.ping("10.0.2.1", 3), 3);
    assert_eq!(lab.a.ping("10.0.2.2", 3), 3);
    assert_eq!(lab.b.ping("10.0.1.2", 3), 3);
    // Larger than one frame: the pod cuts it, wharf forwards the pieces.
    let large = lab.ping("-c 1 -s 4000 10.0.2.2");
    assert!(large.contains("1 received"), "{large}");

    let neighbours = lab.daemon.json("show ip neighbors");
    for (pod, address, interface) in [(&lab.a, "10.0.1.2", "veth-a"), (&lab.b, "10.0.2.2", "veth-b")] {
        let mac = pod.run("cat", ["/sys/class/net/eth0/address"]);
        let row = neighbours.as_array().unwrap().iter().find(|n| n["ip"] == address).unwrap();
        assert_eq!((row["mac"].as_str(), &row["interface"]), (Some(mac.trim()), &interface.into()));
    }
    let from_wharf = lab.daemon.script("ping 10.0.2.2 repeat 3 interval 0.2");
    assert!(from_wharf.contains("0% packet loss"), "{from_wharf}");
    settled(&lab.daemon);
}

/// Answers that are slower than the next request are no loss.
#[test]
fn ping_counts_late_answers() {
    let lab = Lab::routed();
    lab.b.run("sysctl", ["-qw", "net.ipv4.icmp_echo_ignore_all=1"]);
    let slow = "import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
while True:
    packet, (address, _) = s.recvfrom(2000)
    if packet[20] == 8:
        time.sleep(0.15)
        # From echo request to reply: the checksum grows by what the type has lost.
        checksum = struct.unpack('!H', packet[22:24])[0] + 0x800
        checksum = (checksum & 0xffff) + (checksum >> 16)
        s.sendto(struct.pack('!BBH', 0, packet[21], checksum) + packet[24:], (address, 0))";
    let _responder = lab.b.spawn("/usr/bin/python3", ["-c", slow]);
    wait_until("the responder listens", PATIENCE, || lab.b.run("cat", ["/proc/net/raw"]).lines().count() > 1);
    let said = lab.daemon.script("ping 10.0.2.2 repeat 3 interval 0.05");
    assert!(said.contains("3 sent, 3 received, 0% packet loss"), "{said}");
    settled(&lab.daemon);
}

/// Neighbours hear of an address when it is set, when its interface comes up, and when its MAC address changes.
#[test]
fn addresses_are_announced() {
    let lab = Lab::routed();
    // The pod learns from announcements, and at once.
    lab.a.run("sysctl", ["-qw", "net.ipv4.conf.eth0.arp_accept=1", "net.ipv4.neigh.eth0.locktime=0"]);
    let announced = |what: &str, commands: &str, mac: &str| {
        lab.a.ip("neigh flush dev eth0");
        lab.daemon.script(commands);
        wait_until(what, PATIENCE, || lab.a.ip("neigh show 10.0.1.1 dev eth0").contains(mac));
    };
    let own = lab.daemon.json("show interface veth-a")[0]["mac"].as_str().unwrap().to_owned();
    announced(
        "the address",
        "set interface ip address del veth-a 10.0.1.1/24
         set interface ip address veth-a 10.0.1.1/24",
        &own,
    );
    announced("the interface", "set interface state veth-a down\nset interface state veth-a up", &own);
    let other = "02:00:00:00:00:77";
    announced("the MAC address", &format!("set interface mac address veth-a {other}"), other);
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2);
    settled(&lab.daemon);
}

/// Nobody is at a subnet's first and last address, also when somebody says so.
#[test]
fn directed_broadcasts_go_nowhere() {
    let lab = Lab::routed();
    assert_eq!(lab.a.ping("10.0.2.2", 1), 1);
    lab.b.run("sysctl", ["-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0"]);
    for address in ["10.0.2.0", "10.0.2.255"] {
        let said = lab.ping(&format!("-b -c 1 -W 1 {address}"));
        assert!(said.contains(" 0 received"), "{said}");
        let route = lab.daemon.script(&format!("show ip fib {address}/32"));
        assert!(route.contains("dpo-drop"), "{route}");
    }
    let neighbours = lab.daemon.json("show ip neighbors");
    let known: Vec<_> =
        neighbours.as_array().into_iter().flatten().map(|n| n["ip"].as_str().unwrap()).collect();
    assert_eq!(known, ["10.0.1.2", "10.0.2.2"]);
    settled(&lab.daemon);
}

#[test]
fn icmp_errors_reach_the_sender() {
    let lab = Lab::routed();
    assert_eq!(lab.a.ping("10.0.2.2", 1), 1);

    let expired = lab.ping("-c 1 -t 1 10.0.2.2");
    assert!(expired.contains("From 10.0.1.1 icmp_seq=1 Time to live exceeded"), "{expired}");

    let unreachable = lab.ping("-c 1 10.9.9.9");
    assert!(unreachable.contains("From 10.0.1.1 icmp_seq=1 Destination Net Unreachable"), "{unreachable}");

    lab.daemon.script("set interface mtu 1400 veth-b");
    let too_long = lab.ping("-c 1 -M do -s 1472 10.0.2.2");
    assert!(too_long.contains("From 10.0.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1400)"), "{too_long}");
    let fits = lab.ping("-c 1 -M do -s 1372 10.0.2.2");
    assert!(fits.contains("1 received"), "{fits}");
    settled(&lab.daemon);
}

/// Each way to ask: hop 1 is wharf, hop 2 the other pod.
#[test]
fn traceroute_shows_wharf() {
    let lab = Lab::routed();
    for mode in ["--udp", "--icmp"] {
        let text = lab.a.run("traceroute", ["-n", "-q", "1", "-w", "2", mode, "10.0.2.2"]);
        let hops: Vec<_> = text.lines().skip(1).map(|hop| hop.split_whitespace().nth(1)).collect();
        assert_eq!(hops, [Some("10.0.1.1"), Some("10.0.2.2")], "{mode}: {text}");
    }
    settled(&lab.daemon);
}

/// What there is to see when packets do not come through.
fn state(lab: &Lab) -> String {
    ["show interface", "show errors", "show packets", "show ip neighbors", "show af_xdp"]
        .map(|show| lab.daemon.script(show))
        .concat()
}

/// Frames that the kernel gave to each receive queue's XDP program.
fn queues(lab: &Lab, interface: &str) -> Vec<u64> {
    let text = lab.dp.run("ethtool", ["-S", interface]);
    let packets = text.lines().filter_map(|line| line.trim().strip_prefix("rx_queue_"));
    packets.filter_map(|queue| queue.split_once("_xdp_packets: ")?.1.parse().ok()).collect()
}

/// Flows spread over the queues; a queue that nobody serves would hold up some of them.
#[test]
fn all_queues_are_served() {
    let lab = Lab::routed_with_queues(2);
    let placed = lab.daemon.json("show interface rx-placement");
    let on = |worker: u32| {
        let rows = placed.as_array().into_iter().flatten();
        rows.filter(|row| row["node"] == "af_xdp-input" && row["worker"] == worker).count()
    };
    assert_eq!([on(0), on(1)], [2, 2], "{placed}");
    assert_eq!(lab.a.ping("10.0.2.2", 3), 3, "{}", state(&lab));
    for direction in ["", "-R"] {
        let parallel = ["-P", "12", direction];
        let arguments = if direction.is_empty() { &parallel[..2] } else { &parallel };
        let rate = iperf3(&lab.b, "10.0.2.2", &lab.a, 1, arguments);
        assert!(rate > 1.0, "{rate} Mbit/s {direction}");
    }
    // Twenty flows of one packet and its answer: none may be lost.
    let client = "import socket
for port in range(20):
    s = socket.create_connection(('10.0.2.2', 8000), timeout=5, source_address=('10.0.1.2', 20000 + port))
    s.close()";
    let _server = lab.b.spawn("/usr/bin/python3", ["-m", "http.server", "--bind", "10.0.2.2", "8000"]);
    wait_until("the HTTP server listens", PATIENCE, || {
        lab.b.run("ss", ["-Hltn", "sport = 8000"]).contains("8000")
    });
    lab.a.run("/usr/bin/python3", ["-c", client]);
    settled(&lab.daemon);
    for interface in ["veth-a", "veth-b"] {
        let frames = queues(&lab, interface);
        assert!(frames.len() == 2 && frames.iter().all(|n| *n > 20), "{interface}: {frames:?}");
        // Some of TCP's fell to a full ring.
        wait_until("all frames are accounted for", PATIENCE, || {
            let counted = ["rx packets", "rx-miss"].map(|name| counter(&lab.daemon, interface, name));
            queues(&lab, interface).iter().sum::<u64>() == counted.iter().sum::<u64>()
        });
    }
    for thread in lab.daemon.json("show runtime").as_array().into_iter().flatten() {
        let mut nodes = thread["nodes"].as_array().into_iter().flatten();
        let input = nodes.find(|node| node["name"] == "af_xdp-input").unwrap();
        assert!(input["vectors"].as_u64() > Some(20), "{thread}");
    }
}

#[test]
fn killed_and_started_again() {
    let mut lab = Lab::routed();
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2);
    lab.daemon.kill9();
    let start = Instant::now();
    lab.daemon.restart();
    lab.daemon.script(&lab.commands);
    wait_until("wharf forwards again", Duration::from_secs(5), || lab.a.ping("10.0.2.2", 1) == 1);
    eprintln!("forwards {:?} after the start", start.elapsed());
    lab.tcp("10.0.2.2");
}

#[test]
fn an_interface_that_goes_away() {
    let lab = Lab::routed();
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2);
    assert_eq!(link(&lab.daemon, "veth-b"), "up");
    lab.dp.ip("link del veth-b");
    wait_until("the link is down", PATIENCE, || link(&lab.daemon, "veth-b") == "down");
    assert_eq!(lab.a.ping("10.0.2.2", 1), 0);
    assert_eq!(lab.a.ping("10.0.1.1", 1), 1, "the other interface goes on");
    lab.daemon.script("delete interface veth-b");
    settled(&lab.daemon);
    lab.daemon.script("delete interface veth-a");
    assert_eq!(lab.daemon.json("show buffers")["reserved"], 0);
    settled(&lab.daemon);

    // And a new one takes its place.
    let _veth = Veth::new(&lab.dp, "veth-b", &lab.b, "10.0.2.2/24", 1);
    lab.b.ip("route add default via 10.0.2.1");
    lab.daemon.script(&lab.commands);
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2);
    settled(&lab.daemon);
}

#[test]
fn a_link_that_goes_down_and_up() {
    let lab = Lab::routed();
    assert_eq!(lab.a.ping("10.0.2.2", 1), 1);
    lab.b.ip("link set eth0 down");
    wait_until("the link is down", PATIENCE, || link(&lab.daemon, "veth-b") == "down");
    lab.b.ip("link set eth0 up");
    lab.b.ip("route replace default via 10.0.2.1");
    wait_until("the link is up", PATIENCE, || link(&lab.daemon, "veth-b") == "up");
    wait_until("packets flow again", PATIENCE, || lab.a.ping("10.0.2.2", 1) == 1);
    settled(&lab.daemon);
}

/// Each says what is in the way, and leaves nothing behind.
#[test]
fn what_cannot_be_taken_over() {
    let lab = Lab::routed();
    let refused = |daemon: &Daemon, command: &str, says: &[&str]| {
        let before = daemon.json("show interface");
        let error = daemon.ctl(command).expect_err(command);
        assert!(says.iter().all(|word| error.contains(word)), "{command}: {error}");
        assert_eq!(before, daemon.json("show interface"), "{command}");
    };
    let other = Daemon::start(Some(&lab.dp), "");
    refused(&other, "create interface af_xdp host-if nosuch0", &["no interface nosuch0"]);
    refused(&other, "create interface af_xdp host-if veth-a netns nosuch", &["network namespace", "nosuch"]);
    refused(&other, "create interface af_xdp host-if veth-a", &["veth-a is in use by process", "(wharf)"]);
    assert_eq!(lab.a.ping("10.0.2.2", 2), 2, "the first daemon is not disturbed");

    let c = Netns::new("c");
    let _jumbo = Veth::new(&lab.dp, "jumbo", &c, "10.0.3.2/24", 1);
    lab.dp.ip("link set jumbo mtu 9000");
    refused(&other, "create interface af_xdp host-if jumbo", &["jumbo", "9000"]);
    lab.dp.ip("link set jumbo down mtu 1500");
    refused(&other, "create interface af_xdp host-if jumbo num-rx-queues 2", &["queue"]);
    settled(&lab.daemon);
}
