//! Devices that are busy, missing, going down, going away; and what is said about it.

use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use wharf_drivers::af_xdp::{
    BusyPoll, CopyMode, Feature, RingSizes, RxKick, TxKick, XdpError, XskSocket,
    link::{Links, Promiscuous},
    netlink::{LinkChange, LinkEvent, Monitor},
    netns::NetNs,
    program::{AttachMode, XdpProgram},
    raise_memlock_limit,
};

use crate::lab::{Lab, Pool, config, eventually, ip, numbered, run, send};

/// The next change that `monitor` tells, as a loop that sleeps on its descriptor gets it.
fn change(monitor: &mut Monitor) -> LinkChange {
    eventually("a change", || {
        if let Some(event) = monitor.poll().expect("netlink") {
            return Some(event.change);
        }
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        poll(&mut [PollFd::new(monitor, PollFlags::IN)], Some(&timeout)).expect("poll");
        None
    })
}

#[test]
fn a_queue_in_use_is_named_and_free_again_at_once() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let first = lab.open(&pool, 0).expect("the first socket");
    let monitor = first.monitor.clone();
    assert!(monitor.statistics().is_some());
    let error = lab.open(&pool, 0).err().expect("the queue is taken");
    assert!(matches!(&error, XdpError::QueueBusy { interface, queue: 0 } if interface == "w0"));
    assert_eq!(error.to_string(), "queue 0 of w0 is in use by another AF_XDP socket");

    let XskSocket { rx, tx, .. } = first;
    drop(rx);
    assert!(monitor.statistics().is_some(), "half a socket is still open");
    drop(tx);
    assert!(monitor.statistics().is_none());
    for _ in 0..20 {
        drop(lab.open(&pool, 0).expect("free again"));
    }
}

#[test]
fn one_pool_serves_many_sockets() {
    let (lab, pool) = (Lab::new(4, 1500), Pool::new());
    let mut sockets: Vec<_> = (0..4).map(|queue| lab.open(&pool, queue).expect("a socket")).collect();
    let peer = lab.peer();
    for (number, socket) in sockets.iter_mut().enumerate() {
        send(socket, &pool.frame(3, &numbered(number as u32, 60)));
        assert_eq!(socket.tx.kick(drop), TxKick::Done);
        assert_eq!(peer.wait(), numbered(number as u32, 60));
    }
}

#[test]
fn settings_of_process_and_socket() {
    let granted = raise_memlock_limit();
    // None, no limit, needs CAP_SYS_RESOURCE, which containers often lack.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    assert_eq!((granted, granted), (limit.current, limit.maximum));
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let socket = lab.open(&pool, 0).expect("a socket");
    BusyPoll { microseconds: 20, budget: 64 }.apply(&socket).expect("busy polling");
    let error = BusyPoll { microseconds: 20, budget: 64 }.apply(std::io::stdin()).expect_err("no socket");
    assert!(matches!(error, XdpError::System { .. }), "{error}");
}

#[test]
fn errors_say_what_is_wrong() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let link = lab.inside(|| lab.link());
    let open = |change: &dyn Fn(&mut wharf_drivers::af_xdp::SocketConfig)| {
        let mut config = config(&link, &pool, 0);
        change(&mut config);
        let error = NetNs::open(&lab.ours).expect("our namespace").run(|| XskSocket::open(&config).err());
        error.expect("entering it").expect("refused")
    };
    let error = open(&|config| config.queue = 1);
    assert!(matches!(error, XdpError::NoQueue { queue: 1, .. }), "{error}");
    let error = open(&|config| config.ifindex = 999);
    assert!(matches!(error, XdpError::NoInterface { .. }), "{error}");
    let error = open(&|config| config.copy = CopyMode::ZeroCopy);
    assert_eq!(error.to_string(), "w0 does not support zero-copy AF_XDP");
    let error = open(&|config| config.sizes = RingSizes { rx: 100, ..config.sizes });
    assert_eq!(error.to_string(), "the rx ring's size 100 is not a power of two up to 1048576");
    let error = open(&|config| config.sizes = RingSizes { fill: 64, rx: 128, ..config.sizes });
    assert!(matches!(error, XdpError::Config(_)), "{error}");

    let missing = lab.inside(|| Links::open().and_then(|mut links| links.by_name("nosuch0"))).err();
    let missing = missing.expect("there is no such interface");
    assert_eq!(missing.to_string(), "there is no interface nosuch0 in this network namespace");
    let missing = lab.inside(|| Links::open().and_then(|mut links| links.by_name("sixteen-letters-"))).err();
    assert!(matches!(missing, Some(XdpError::NoInterface { .. })));
}

#[test]
fn without_privilege_the_missing_capability_is_named() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let link = lab.inside(|| lab.link());
    // The BPF library asks once per process what the kernel can; not without privilege, please,
    // or the other tests here would get the answer.
    lab.inside(|| XdpProgram::attach(&link, AttachMode::Native, false).map(drop)).expect("with privilege");
    let (socket, program, promiscuous) = lab.inside(|| {
        // The system call, unlike the library's function, concerns this thread alone: that of
        // `inside`, which ends here. Leaving root's id takes all capabilities with it.
        // SAFETY: takes three integers.
        let left = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(left, 0);
        (
            XskSocket::open(&config(&link, &pool, 0)).err(),
            XdpProgram::attach(&link, AttachMode::Native, false).err(),
            Promiscuous::enter(link.ifindex).err(),
        )
    });
    let text = |error: Option<XdpError>| error.expect("refused").to_string();
    assert_eq!(text(socket), "opening an AF_XDP socket needs CAP_NET_RAW");
    assert_eq!(text(program), "loading and attaching an XDP program needs CAP_BPF and CAP_NET_ADMIN");
    assert_eq!(text(promiscuous), "promiscuous mode needs CAP_NET_RAW");
}

#[test]
fn facts_of_an_interface() {
    let lab = Lab::new(2, 1400);
    ip(&format!("-n {} link set w0 address 02:11:22:33:44:55", lab.ours));
    let link = lab.inside(|| lab.link());
    assert_eq!((link.name.as_str(), link.mtu), ("w0", 1400));
    assert_eq!((link.rx_queues, link.tx_queues), (2, 2));
    assert_eq!(link.mac, [2, 0x11, 0x22, 0x33, 0x44, 0x55]);
    assert!(link.is_veth && link.admin_up && link.carrier);
    assert_eq!((link.peer, link.xdp_program), (None, None), "the peer is elsewhere");

    lab.inside(|| {
        let links = Links::open().expect("netlink");
        assert_eq!(links.driver("w0").expect("a driver"), "veth");
        for feature in
            [Feature::Tso, Feature::Gso, Feature::Gro, Feature::TxChecksum, Feature::TxVlan, Feature::RxVlan]
        {
            for on in [true, false, true] {
                links.set_feature("w0", feature, on).expect("settable");
                assert_eq!(links.feature("w0", feature).expect("a feature"), on, "{feature:?}");
            }
        }
        assert!(links.feature("nosuch0", Feature::Tso).is_err());
    });
}

#[test]
fn promiscuous_while_it_lasts() {
    let lab = Lab::new(1, 1500);
    let flags = || {
        let output =
            std::process::Command::new("ip").args(["-d", "-n", &lab.ours, "link", "show", "w0"]).output();
        let text = String::from_utf8(output.expect("ip").stdout).expect("text");
        (text.contains("promiscuity 1"), text.contains("allmulti 1"))
    };
    assert_eq!(flags(), (false, false));
    let guard = lab.inside(|| Promiscuous::enter(lab.link().ifindex)).expect("promiscuous mode");
    assert_eq!(flags(), (true, true));
    drop(guard);
    assert_eq!(flags(), (false, false));
    assert!(lab.inside(|| Promiscuous::enter(999)).is_err());
}

#[test]
fn going_down_and_up_is_told() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let (mut monitor, ifindex) = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        let ifindex = lab.link().ifindex;
        monitor.watch(ifindex).expect("w0");
        (monitor, ifindex)
    });
    let mut socket = lab.open(&pool, 0).expect("a socket");
    assert_eq!(monitor.poll().expect("netlink"), None);

    ip(&format!("-n {} link set w0 down", lab.ours));
    assert_eq!(change(&mut monitor), LinkChange::Down);
    assert_eq!(change(&mut monitor), LinkChange::Carrier(false));
    send(&mut socket, &pool.frame(0, &numbered(1, 60)));
    assert_eq!(socket.tx.kick(drop), TxKick::LinkDown);
    assert_eq!(socket.rx.kick(), RxKick::LinkDown);
    assert_eq!((socket.tx.unsent(), socket.tx.held()), (1, 1));

    ip(&format!("-n {} link set w0 up", lab.ours));
    assert_eq!(change(&mut monitor), LinkChange::Up);
    assert_eq!(change(&mut monitor), LinkChange::Carrier(true));
    let peer = lab.peer();
    assert_eq!(socket.tx.kick(drop), TxKick::Done);
    assert_eq!(peer.wait(), numbered(1, 60), "stale, but sent");

    ip(&format!("-n {} link set w0 mtu 1300", lab.ours));
    assert_eq!(change(&mut monitor), LinkChange::Mtu(1300));
    // An interface that nobody watches, and one watched no more.
    ip(&format!("-n {} link add br0 type bridge", lab.ours));
    monitor.unwatch(ifindex);
    ip(&format!("-n {} link set w0 mtu 1200", lab.ours));
    assert_eq!(monitor.poll().expect("netlink"), None);
}

#[test]
fn a_peer_that_is_down_refuses_frames_one_by_one() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let mut socket = lab.open(&pool, 0).expect("a socket");
    ip(&format!("-n {} link set p0 down", lab.theirs));
    for buffer in 0..3 {
        send(&mut socket, &pool.frame(buffer, &numbered(buffer, 60)));
    }
    assert_eq!(socket.tx.kick(drop), TxKick::Busy);
    assert_eq!(socket.tx.unsent(), 2);
}

#[test]
fn a_deleted_device_is_told_by_netlink_and_by_kicks() {
    let (lab, pool) = (Lab::new(1, 1500), Pool::new());
    let mut socket = lab.open(&pool, 0).expect("a socket");
    let mut monitor = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        monitor.watch(lab.link().ifindex).expect("w0");
        monitor
    });
    send(&mut socket, &pool.frame(0, &numbered(1, 60)));
    ip(&format!("-n {} link del w0", lab.ours));
    eventually("removal", || {
        let event = monitor.poll().expect("netlink");
        matches!(event, Some(LinkEvent { change: LinkChange::Removed, .. })).then_some(())
    });
    assert_eq!(monitor.poll().expect("netlink"), None, "told once");
    assert_eq!(socket.tx.kick(drop), TxKick::Gone);
    assert_eq!(socket.rx.kick(), RxKick::Gone);
    assert_eq!(socket.tx.held(), 1, "never completed");
    assert!(lab.inside(|| monitor.recheck()).is_ok());
}

#[test]
fn a_move_to_another_namespace_is_a_removal() {
    let lab = Lab::new(1, 1500);
    let mut monitor = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        monitor.watch(lab.link().ifindex).expect("w0");
        monitor
    });
    ip(&format!("-n {} link set w0 netns {}", lab.ours, lab.theirs));
    eventually("removal", || (change(&mut monitor) == LinkChange::Removed).then_some(()));
}

#[test]
fn leaving_a_bridge_is_no_removal() {
    let lab = Lab::new(1, 1500);
    ip(&format!("-n {} link add br0 type bridge", lab.ours));
    ip(&format!("-n {} link set w0 master br0", lab.ours));
    let mut monitor = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        monitor.watch(lab.link().ifindex).expect("w0");
        monitor
    });
    ip(&format!("-n {} link set w0 nomaster", lab.ours));
    assert_eq!(monitor.poll().expect("netlink"), None);
    ip(&format!("-n {} link set w0 mtu 1300", lab.ours));
    assert_eq!(change(&mut monitor), LinkChange::Mtu(1300));
}

#[test]
fn a_change_of_queues_is_found() {
    let lab = Lab::new(2, 1500);
    let mut monitor = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        monitor.watch(lab.link().ifindex).expect("w0");
        monitor
    });
    run("ip", &format!("netns exec {} ethtool -L w0 rx 1", lab.ours));
    monitor.recheck().expect("netlink");
    assert_eq!(change(&mut monitor), LinkChange::Queues(1));
}

#[test]
fn a_flood_of_link_messages_loses_no_change() {
    let lab = Lab::new(1, 1500);
    let mut monitor = lab.inside(|| {
        let mut monitor = Monitor::open().expect("netlink");
        monitor.watch(lab.link().ifindex).expect("w0");
        monitor
    });
    // More than the socket's buffer holds, unread, about another interface: what is told about
    // this one afterwards finds no room.
    ip(&format!("-n {} link add br0 type bridge", lab.ours));
    let mut batch = String::new();
    for round in 0..400 {
        batch.push_str(&format!("link set br0 mtu {}\n", 1400 - round % 2));
    }
    batch.push_str("link set w0 mtu 1234\n");
    let file = std::env::temp_dir().join(&lab.ours);
    std::fs::write(&file, batch).expect("a batch file");
    ip(&format!("-n {} -batch {}", lab.ours, file.display()));
    std::fs::remove_file(&file).expect("removable");
    assert_eq!(change(&mut monitor), LinkChange::Mtu(1234));
    assert_eq!(monitor.poll().expect("netlink"), None);
}

#[test]
fn namespaces_by_name_pid_and_path() {
    let lab = Lab::new(1, 1500);
    let inside = |name: &str| {
        NetNs::open(name)
            .and_then(|ns| ns.run(|| Links::open().and_then(|mut links| links.by_name("w0")).is_ok()))
    };
    assert!(inside(&lab.ours).expect("a name"));
    assert!(!inside(&lab.theirs).expect("a name"));
    assert!(inside(&format!("/run/netns/{}", lab.ours)).expect("a path"));
    assert!(!inside(&format!("pid:{}", std::process::id())).expect("a process"));
    for wrong in ["", ".", "..", "nosuch-namespace", "pid:", "pid:x", "pid:4294967295", "/proc/self/ns/mnt"] {
        let error = inside(wrong).expect_err(wrong);
        assert!(matches!(error, XdpError::NoNamespace { .. }), "{wrong}: {error}");
    }
    // Neither a result nor a panic moves the caller.
    let here = || std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
    let before = here();
    let ns = NetNs::open(&lab.ours).expect("a name");
    assert_ne!(ns.run(here).expect("entering"), before);
    let panicked = thread::scope(|scope| scope.spawn(|| ns.run(|| panic!("inside"))).join());
    assert!(panicked.is_err());
    assert_eq!(here(), before);
}
