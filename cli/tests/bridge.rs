//! Bridge domains between pods and a kernel bridge, over AF_XDP.

mod common;

use common::{Daemon, Netns, PATIENCE, Veth, counter, iperf3, scapy, settled, wait_until};

/// Pods in bridge domain 10 (10.0.1.0/24), with wharf as their router to another pod (10.0.2.0/24).
struct Lab {
    daemon: Daemon,
    a: Netns,
    b: Netns,
    /// A kernel bridge with an address of its own, 10.0.1.9.
    kernel: Netns,
    routed: Netns,
    _dp: Netns,
}

fn mac(pod: &Netns, interface: &str) -> String {
    pod.run("cat", [format!("/sys/class/net/{interface}/address")]).trim().to_owned()
}

impl Lab {
    #[track_caller]
    fn new() -> Self {
        let dp = Netns::new("dp");
        let pod = |suffix: &str, address: &str| {
            let pod = Netns::new(suffix);
            Veth::new(&dp, &format!("veth-{suffix}"), &pod, address, 1);
            pod
        };
        let (a, b) = (pod("a", "10.0.1.2/24"), pod("b", "10.0.1.3/24"));
        let (kernel, routed) = (pod("k", "10.0.1.99/24"), pod("r", "10.0.2.2/24"));
        kernel.ip("addr flush dev eth0");
        kernel.ip("link add br0 type bridge");
        kernel.ip("link set eth0 master br0");
        kernel.ip("addr add 10.0.1.9/24 dev br0");
        kernel.ip("link set br0 up");
        routed.ip("route add default via 10.0.2.1");
        for pod in [&a, &b, &kernel] {
            pod.ip("route add default via 10.0.1.1");
        }
        let daemon =
            Daemon::start(Some(&dp), "cpu { workers 1 } l2fib { table-size 4M } l2learn { limit 5000 }");
        for name in ["veth-a", "veth-b", "veth-k", "veth-r"] {
            daemon.script(&format!(
                "create interface af_xdp host-if {name} name {name}
                set interface state {name} up"
            ));
        }
        daemon.script(
            "create bridge-domain 10 mac-age 5
            set interface l2 bridge veth-a 10
            set interface l2 bridge veth-b 10
            set interface l2 bridge veth-k 10
            create loopback interface
            set interface l2 bridge loop0 10 bvi
            set interface ip address loop0 10.0.1.1/24
            set interface state loop0 up
            set interface ip address veth-r 10.0.2.1/24",
        );
        Self { daemon, a, b, kernel, routed, _dp: dp }
    }

    /// Behind which interface an address is.
    #[track_caller]
    fn behind(&self, mac: &str) -> Option<String> {
        let fib = self.daemon.json("show l2fib verbose");
        let row = fib["entries"].as_array().unwrap().iter().find(|row| row["mac"] == mac)?;
        row["interface"].as_str().map(str::to_owned)
    }
}

#[test]
fn pods_a_kernel_bridge_and_a_router() {
    let lab = Lab::new();
    for (from, to) in [
        (&lab.a, "10.0.1.3"),
        (&lab.b, "10.0.1.9"),
        (&lab.kernel, "10.0.1.2"),
        (&lab.a, "10.0.1.1"),
        (&lab.a, "10.0.2.2"),
        (&lab.routed, "10.0.1.9"),
    ] {
        assert_eq!(from.ping(to, 3), 3, "from {} to {to}\n{}", from.name(), lab.daemon.script("show errors"));
    }
    for (pod, interface, port) in
        [(&lab.a, "eth0", "veth-a"), (&lab.b, "eth0", "veth-b"), (&lab.kernel, "br0", "veth-k")]
    {
        assert_eq!(lab.behind(&mac(pod, interface)).as_deref(), Some(port));
    }
    // The router interface received what the bridge had for it, and sent what it routed into the bridge; nothing is there twice.
    let counts = || ["rx packets", "tx packets"].map(|name| counter(&lab.daemon, "loop0", name));
    let before = counts();
    assert_eq!(lab.routed.ping("10.0.1.9", 20), 20);
    for (before, after) in before.into_iter().zip(counts()) {
        assert!((20..30).contains(&(after - before)), "{before} {after}");
    }
    // The kernel's bridge has learned the pods, too.
    let learned = lab.kernel.run("bridge", ["fdb", "show", "br", "br0"]);
    assert!(learned.contains(&mac(&lab.a, "eth0")), "{learned}");
    for (server, address, client) in [
        (&lab.b, "10.0.1.3", &lab.a),
        (&lab.routed, "10.0.2.2", &lab.a),
        (&lab.kernel, "10.0.1.9", &lab.routed),
    ] {
        let rate = iperf3(server, address, client, 1, &[]);
        assert!(rate > 1.0, "{rate} Mbit/s to {address}");
    }
    // What is known is not flooded: the third pod sees none of the TCP between the others.
    assert!(counter(&lab.daemon, "veth-b", "tx packets") > 100);
    settled(&lab.daemon);
}

#[test]
fn an_address_moves_and_a_domain_answers_for_another() {
    let lab = Lab::new();
    assert_eq!(lab.b.ping("10.0.1.2", 2), 2);
    let moving = mac(&lab.a, "eth0");
    assert_eq!(lab.behind(&moving).as_deref(), Some("veth-a"));
    // The pod starts elsewhere, with its addresses.
    lab.a.ip("link set eth0 down");
    lab.kernel.ip("addr del 10.0.1.9/24 dev br0");
    lab.kernel.ip(&format!("link set br0 address {moving}"));
    lab.kernel.ip("addr add 10.0.1.2/24 dev br0");
    lab.kernel.run("arping", ["-q", "-U", "-c", "1", "-I", "br0", "10.0.1.2"]);
    wait_until("the address has moved", PATIENCE, || lab.behind(&moving).as_deref() == Some("veth-k"));
    assert_eq!(lab.b.ping("10.0.1.2", 3), 3);

    // Without flooding nobody finds anybody; with ARP termination and a static entry they do.
    lab.b.ip("neigh flush all");
    lab.daemon.script("set bridge-domain flood 10 disable");
    assert_eq!(lab.b.ping("10.0.1.2", 1), 0);
    lab.daemon.script(&format!(
        "set bridge-domain arp term 10
        set bridge-domain arp entry 10 10.0.1.2 {moving}
        l2fib flush-mac all
        l2fib add {moving} 10 veth-k static"
    ));
    lab.b.ip("neigh flush all");
    assert_eq!(lab.b.ping("10.0.1.2", 3), 3);
    let detail = lab.daemon.script("show bridge-domain 10 detail");
    let entry = detail.lines().find(|line| line.contains("=>")).unwrap_or_default();
    assert_eq!(entry.split_whitespace().collect::<Vec<_>>(), ["10.0.1.2", "=>", &moving], "{detail}");
    // A router interface takes its address along; a loopback is good for nothing else in a domain.
    assert!(lab.daemon.ctl("set interface l2 bridge loop0 20").unwrap_err().contains("can only be a BVI"));
    lab.daemon.script("set interface l2 bridge loop0 20 bvi");
    let fib = lab.daemon.json("show l2fib verbose");
    let bvi: Vec<_> = fib["entries"].as_array().unwrap().iter().filter(|row| row["bvi"] == true).collect();
    assert_eq!((bvi.len(), &bvi[0]["bd_id"]), (1, &20.into()), "{fib}");
    // The domain is in use, and then it is not.
    assert!(lab.daemon.ctl("create bridge-domain 10 del").unwrap_err().contains("is in use by"));
    for port in ["veth-a", "veth-b", "veth-k", "loop0"] {
        lab.daemon.script(&format!("set interface l3 {port}"));
    }
    lab.daemon.script(
        "create bridge-domain 10 del
        create bridge-domain 20 del",
    );
    assert_eq!(lab.daemon.script("show bridge-domain"), "no bridge-domains in use\n");
    assert_eq!(lab.daemon.script("show l2fib verbose"), "no l2fib entries\n");
    settled(&lab.daemon);
}

#[test]
fn mirrors_and_captures() {
    let lab = Lab::new();
    assert_eq!(lab.b.ping("10.0.1.9", 1), 1);
    let file = lab.daemon.file("trace.pcap");
    lab.daemon.script(&format!(
        "set interface span veth-b destination veth-r both
        pcap trace rx tx max 100 file {} host 10.0.1.3 proto 1",
        file.display()
    ));
    assert!(lab.daemon.ctl("pcap trace rx").unwrap_err().contains("a capture is active"));
    let before = counter(&lab.daemon, "veth-r", "tx packets");
    assert_eq!(lab.b.ping("10.0.1.9", 3), 3);
    lab.a.ping("10.0.1.9", 1);
    assert!(counter(&lab.daemon, "veth-r", "tx packets") >= before + 6);
    assert_eq!(
        lab.daemon
            .script("show interface span")
            .lines()
            .nth(1)
            .map(|l| l.split_whitespace().collect::<Vec<_>>()),
        Some(vec!["veth-b", "veth-r", "(", "both)", "(", "none)"])
    );
    let said = lab.daemon.script("pcap trace off");
    // Four ways: each request and each answer is received and sent; and the mirror sends both.
    assert!(said.starts_with("Write 18 packets to "), "{said}");
    let text = lab.b.run("tcpdump", ["-nr", &file.display().to_string()]);
    assert_eq!(text.matches("ICMP echo request").count(), 9, "{text}");
    // Where the bridge is: what leaves is copied behind the lists of that way, and each direction has its own switch.
    lab.daemon.script(
        "set interface span veth-b l2 destination veth-r rx
        set interface span veth-b l2 destination veth-k tx",
    );
    let table = lab.daemon.json("show interface span");
    let l2: Vec<_> = table.as_array().unwrap().iter().map(|row| (&row["destination"], &row["l2"])).collect();
    assert_eq!(l2, [(&"veth-k".into(), &"tx".into()), (&"veth-r".into(), &"rx".into())], "{table}");
    lab.daemon.script("set interface span veth-b disable");
    let before = ["veth-r", "veth-k"].map(|port| counter(&lab.daemon, port, "tx packets"));
    assert_eq!(lab.b.ping("10.0.1.2", 5), 5);
    let after = ["veth-r", "veth-k"].map(|port| counter(&lab.daemon, port, "tx packets"));
    assert!(after[0] >= before[0] + 5 && after[1] >= before[1] + 5, "{before:?} {after:?}");
    let wrong = lab.daemon.ctl("set interface span veth-b l2 destination loop0").unwrap_err();
    assert!(wrong.contains("loop0 is a loopback"), "{wrong}");
    lab.daemon.script("set interface span veth-b l2 disable");
    assert_eq!(lab.daemon.script("show interface span"), "");
    assert_eq!(lab.b.ping("10.0.1.2", 1), 1);
    settled(&lab.daemon);
}

#[test]
fn a_storm_of_broadcasts_is_bounded_and_ends() {
    let lab = Lab::new();
    assert_eq!(lab.b.ping("10.0.1.9", 2), 2);
    let before = counter(&lab.daemon, "veth-a", "rx packets");
    let storm = "
        frame = bytes(Ether(dst='ff:ff:ff:ff:ff:ff') / IP(dst='10.0.1.255') / UDP() / (b'x' * 900))
        s = conf.L2socket(iface='eth0')
        for i in range(20000):
            s.send(frame)
        ";
    scapy(&lab.a, storm);
    // What is more than wharf can take, the kernel drops.
    let taken = counter(&lab.daemon, "veth-a", "rx packets") - before;
    assert!(taken > 1000, "{taken}");
    assert_eq!(lab.b.ping("10.0.1.9", 3), 3);
    settled(&lab.daemon);
}

#[test]
fn a_flood_of_sources_stops_at_the_limits() {
    let lab = Lab::new();
    assert_eq!(lab.b.ping("10.0.1.9", 2), 2);
    let flood = |first: u32, count: u32| {
        let send = format!(
            "
            frame = bytearray(bytes(Ether(dst='02:00:00:00:00:66', src='02:00:00:00:00:00') / (b'x' * 50)))
            s = conf.L2socket(iface='eth0')
            for i in range({first}, {first} + {count}):
                frame[8:12] = i.to_bytes(4, 'big')
                s.send(bytes(frame))
            "
        );
        scapy(&lab.a, &send);
    };
    let fib = || lab.daemon.json("show l2fib");
    let (before, memory) = (fib()["learned"].as_u64().unwrap(), fib()["memory"].as_u64().unwrap());
    assert_eq!(memory, 4 << 20);
    // What an interface may teach as long as nobody says otherwise. Again and again, as a busy machine does not take all.
    wait_until("the port is at its limit", PATIENCE, || {
        flood(1, 6000);
        fib()["learned"].as_u64() >= Some(4096)
    });
    let learned = fib()["learned"].as_u64().unwrap();
    assert!(learned <= before + 4096, "{before} {learned}");
    // And what all may.
    lab.daemon.script("set interface l2 learn-limit veth-a 100000");
    wait_until("the table is at its limit", PATIENCE, || {
        flood(10_000, 3000);
        fib()["learned"].as_u64() >= Some(5000)
    });
    assert_eq!(fib()["learn_limit"], 5000);
    let domain = lab.daemon.json("show bridge-domain");
    assert_eq!(
        (&domain[0]["learn_count"], &domain[0]["learn_limit"]),
        (&5000.into(), &65_536.into()),
        "{domain}"
    );
    assert!(lab.daemon.script("show errors").contains("L2 not learned due to limit"));
    // Those that were known before still are, and nothing of theirs is flooded.
    assert_eq!(lab.behind(&mac(&lab.b, "eth0")).as_deref(), Some("veth-b"));
    assert_eq!(lab.b.ping("10.0.1.9", 5), 5);
    lab.daemon.script("clear l2fib");
    assert_eq!(lab.a.ping("10.0.1.3", 2), 2);
    settled(&lab.daemon);
}

#[test]
fn vlan_sub_interfaces() {
    let (dp, a, b) = (Netns::new("dp"), Netns::new("a"), Netns::new("b"));
    Veth::new(&dp, "veth-a", &a, "10.0.1.2/24", 1);
    Veth::new(&dp, "veth-b", &b, "10.0.1.3/24", 1);
    let daemon = Daemon::start(Some(&dp), "cpu { workers 1 }");
    daemon.script(
        "create interface af_xdp host-if veth-a name veth-a
        create interface af_xdp host-if veth-b name veth-b
        set interface state veth-a up
        set interface state veth-b up
        create sub-interfaces veth-a 100
        create sub-interfaces veth-a 7 dot1ad 5 inner-dot1q 9 exact-match
        create sub-interfaces veth-b 200 dot1q 200 exact-match
        create bridge-domain 1
        create bridge-domain 2
        set interface l2 bridge veth-a.100 1
        set interface l2 tag-rewrite veth-a.100 pop 1
        set interface l2 bridge veth-b.200 1
        set interface l2 tag-rewrite veth-b.200 translate 1-1 dot1q 77
        set interface l2 bridge veth-a.7 2
        set interface l2 tag-rewrite veth-a.7 pop 2
        set interface l2 bridge veth-b 2
        set interface state veth-a.100 up
        set interface state veth-a.7 up
        set interface state veth-b.200 up",
    );
    // Sends `frame` in one pod; what arrives in the other, without what its own kernel says.
    let pass = |from: &Netns, to: &Netns, frame: &str| -> String {
        let listen = "
            p = sniff(iface='eth0', timeout=20, count=1, lfilter=lambda p: b'needle' in bytes(p),
                      started_callback=lambda: open('/dev/shm/READY', 'w').close())
            print(p[0].summary() if p else 'nothing', [(l.type, l.vlan) for l in p[0].iterpayloads() if isinstance(l, (Dot1Q, Dot1AD))] if p else '')
            ";
        let ready = format!("/dev/shm/{}", common::unique());
        let text = std::thread::scope(|scope| {
            let sniffer = scope.spawn(|| scapy(to, &listen.replace("/dev/shm/READY", &ready)));
            wait_until("scapy listens", PATIENCE, || std::path::Path::new(&ready).exists());
            scapy(from, &format!("sendp({frame} / Raw(b'needle' * 10), iface='eth0')"));
            sniffer.join().unwrap()
        });
        let _ = std::fs::remove_file(ready);
        text
    };
    let ether = "Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02', type=0x8100)";
    // Pop 1 on the way in; on the way out 77 goes and 200 comes: the frame has no 77, so there is nothing to take.
    let single = format!("{ether} / Dot1Q(vlan=100, type=0x88b5)");
    scapy(&a, &format!("sendp({single} / Raw(b'needle' * 10), iface='eth0')"));
    wait_until("the frame without the tag is dropped", PATIENCE, || {
        daemon.script("show errors").contains("frame has not the tags to be rewritten")
    });
    daemon.script("set interface l2 tag-rewrite veth-b.200 pop 1");
    let seen = pass(&a, &b, &single);
    assert!(seen.contains("(34997, 200)"), "{seen}\n{}", daemon.script("show errors"));
    // QinQ to an interface without tags, and back.
    let double = "Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02', type=0x88a8) / Dot1AD(vlan=5, type=0x8100) / Dot1Q(vlan=9, type=0x88b5)";
    let seen = pass(&a, &b, double);
    assert!(seen.contains("02:00:00:00:00:01 > 02:00:00:00:00:02") && seen.contains("[]"), "{seen}");
    let seen = pass(&b, &a, "Ether(src='02:00:00:00:00:02', dst='02:00:00:00:00:01', type=0x88b5)");
    assert!(seen.contains("5") && seen.contains("(34997, 9)"), "{seen}");
    assert_eq!(counter(&daemon, "veth-a.100", "rx packets"), 2);
    assert_eq!(counter(&daemon, "veth-a.7", "tx packets"), 1);
    // An L3 sub-interface.
    daemon.script(
        "create sub-interfaces veth-a 300
        set interface state veth-a.300 up
        set interface ip address veth-a.300 10.3.0.1/24",
    );
    let ask = "
        p = Ether(src='02:00:00:00:00:01', dst='ff:ff:ff:ff:ff:ff') / Dot1Q(vlan=300) / ARP(psrc='10.3.0.2', hwsrc='02:00:00:00:00:01', pdst='10.3.0.1')
        r = srp1(p, iface='eth0', timeout=10)
        assert r is not None and r[Dot1Q].vlan == 300 and r[ARP].psrc == '10.3.0.1', r
        ";
    scapy(&a, ask);
    daemon.script("delete interface veth-a");
    assert!(!daemon.script("show interface").contains("veth-a"));
    settled(&daemon);
}
