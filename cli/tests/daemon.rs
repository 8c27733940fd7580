//! The daemon as a process: start, configuration, stop, workers; and its commands, good and bad.

mod common;

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Background, Daemon, Netns, PATIENCE, TempDir, counter, run, settled, try_run, wait_until};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// A stream of UDP packets from pg0, which wharf cross-connects with pg1.
const STREAM: &str = "packet-generator new { name x limit LIMIT rate RATE size 64-512 interface pg0 \
    data { IP4: 02:00:00:00:00:11 -> 02:00:00:00:00:22 UDP: 10.0.1.2 - 10.0.1.99 -> 10.0.2.2 \
    UDP: 1000 -> 2000 incrementing 22 } }";

fn stream(limit: u64, rate: f64) -> String {
    STREAM.replace("LIMIT", &limit.to_string()).replace("RATE", &rate.to_string())
}

fn done(daemon: &Daemon) -> bool {
    daemon.json("show packet-generator")[0][0]["done"] == true
}

/// Packets that `handoffs` or `handoff_drops` of all threads count. A worker that the machine holds up for long enough
/// loses what is handed to it, and says so.
fn threads(daemon: &Daemon, name: &str) -> u64 {
    let threads = daemon.json("show threads");
    threads[0].as_array().unwrap().iter().filter_map(|thread| thread[name].as_u64()).sum()
}

/// With memif and the packet generator, wharf needs no privilege; AF_XDP says which it lacks.
#[test]
fn runs_without_privilege() {
    let dir = TempDir::new();
    // Where that user may read it.
    let program = dir.path().join("wharf");
    std::fs::copy(WHARF, &program).unwrap();
    // Another user, and an interface whose MTU is too large besides.
    let root = rustix::process::geteuid().is_root();
    let netns = root.then(|| Netns::new("dp"));
    let mut command = netns.as_ref().map_or_else(|| Command::new("setpriv"), |n| n.command("setpriv"));
    if netns.is_some() {
        chown(dir.path(), Some(65534), Some(65534)).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    }
    let socket = dir.path().join("cli.sock");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.arg(format!("unix {{ nodaemon runtime-dir {} }}", dir.path().display()));
    let _wharf = Background(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let ctl =
        |line: &str| try_run(Command::new(env!("CARGO_BIN_EXE_wharfctl")).arg("-s").arg(&socket).arg(line));
    wait_until("wharf answers", PATIENCE, || ctl("show version").is_ok());
    for line in [
        "create packet-generator interface pg0",
        "create memif socket id 1 filename one.sock",
        "create interface memif id 0 socket-id 1 master",
        "set interface l2 xconnect pg0 memif1/0",
        "set interface state pg0 up",
        "set interface state memif1/0 up",
        &stream(100, 0.0),
        "packet-generator enable-stream x",
    ] {
        ctl(line).unwrap();
    }
    assert!(dir.path().join("one.sock").exists());
    // Nobody is at the other end.
    wait_until("packets are dropped", PATIENCE, || {
        let text = ctl("show packets").unwrap();
        text.starts_with("received 100 = sent 0 + dropped 100 + punted 0 + held 0 + in flight 0")
    });
    if netns.is_some() {
        let refused = ctl("create interface af_xdp host-if lo").unwrap_err();
        assert!(refused.contains("needs CAP_"), "{refused}");
    }
}

/// The position of the word, and exit status 1.
#[test]
fn words_that_wharf_does_not_start_with() {
    let dir = TempDir::new();
    let file = dir.path().join("startup.conf");
    std::fs::write(&file, "unix {\n  nodaemon\n}\ncpu { workers\n  many }\n").unwrap();
    let file = file.to_str().unwrap();
    let at_many = format!("{file}:5:3: `workers' must be a number");
    let cases: [(&[&str], &str); 7] = [
        (&["-c", file], &at_many),
        (&["-c", "/nonexistent.conf"], "cannot read /nonexistent.conf"),
        (&["unix", "{", "nodaemon"], "1:17: expected `}' for the `{' at 1:6"),
        (&["unix", "{", "nodaemon", "}", "}"], "1:19: `}' without a `{'"),
        (&["cpu", "{", "workers", "x", "}"], "1:15: `workers' must be a number"),
        (&["unix", "{", "nodaemon", "runtime-dir", "/proc/none", "}"], "runtime directory /proc/none"),
        (&[], "usage: wharf"),
    ];
    for (arguments, says) in cases {
        let output = Command::new(WHARF).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(says), "{arguments:?}: {error}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

/// Cores are counted by what the process may use, not from 0.
#[test]
fn cores_of_a_pinned_process() {
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    let pinned = |dir: &TempDir, cpu: &str| {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &last.to_string(), "setpriv", "--pdeathsig", "KILL", "--", WHARF]);
        command.arg(format!("unix {{ nodaemon runtime-dir {} }} cpu {{ {cpu} }}", dir.path().display()));
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let dir = TempDir::new();
    let _wharf = Background(pinned(&dir, "workers 1"));
    let socket = dir.path().join("cli.sock");
    let ctl = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfctl"));
        try_run(command.arg("-s").arg(&socket).arg("show threads --json"))
    };
    wait_until("wharf answers", PATIENCE, || ctl().is_ok());
    let threads: serde_json::Value = serde_json::from_str(&ctl().unwrap()).unwrap();
    let cores: Vec<_> = threads[0].as_array().unwrap().iter().filter_map(|t| t["core"].as_u64()).collect();
    assert!(!cores.is_empty() && cores.iter().all(|core| *core == last as u64), "{threads}");

    let other = last + 1;
    for cpu in [format!("main-core {other}"), "workers 2".into()] {
        let output = pinned(&TempDir::new(), &cpu).wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(&format!(" {last}")) && !output.status.success(), "{cpu}: {error}");
    }
}

#[test]
fn runs_a_script_at_start() {
    let dir = TempDir::new();
    let script = dir.path().join("setup");
    std::fs::write(
        &script,
        "create loopback interface\n\n# up\nset interface state loop0 up\nset interface ip address loop0 192.0.2.1/32\n",
    )
    .unwrap();
    let daemon = Daemon::start(None, &format!("unix {{ exec {} }}", script.display()));
    wait_until("the script has run", PATIENCE, || {
        let rows = daemon.json("show interface address");
        let loop0 = rows.as_array().unwrap().iter().find(|r| r["name"] == "loop0");
        loop0.is_some_and(|r| r["admin"] == "up" && r["addresses"][0] == "192.0.2.1/32")
    });

    // The first line that fails ends it, with its number in the log; the daemon stays.
    std::fs::write(&script, "create loopback interface\nset interface state loop7 up\nfrob\n").unwrap();
    let daemon = Daemon::start(None, &format!("unix {{ exec {} }}", script.display()));
    let says = format!("{}:2: set interface state: unknown interface `loop7'", script.display());
    wait_until("the error is in the log", PATIENCE, || daemon.log().contains(&says));
    assert!(!daemon.log().contains("frob"), "{}", daemon.log());
    daemon.script("show interface loop0");
}

#[test]
fn stops_soon_and_removes_its_sockets() {
    let mut daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(
        "create packet-generator interface pg0
         create packet-generator interface pg1
         create memif socket id 1 filename one.sock
         create interface memif id 0 socket-id 1 master
         set interface state memif1/0 up
         set interface l2 xconnect pg0 pg1
         set interface state pg0 up
         set interface state pg1 up",
    );
    daemon.script(&stream(0, 0.0));
    daemon.script("packet-generator enable-stream x");
    assert!(daemon.file("one.sock").exists());
    let start = Instant::now();
    daemon.stop();
    eprintln!("stopped after {:?}", start.elapsed());
    assert!(!daemon.file("one.sock").exists(), "the socket of memif is left");
    daemon.restart();
    assert_eq!(daemon.json("show interface").as_array().unwrap().len(), 1, "only local0");
}

/// pg0 moves between the workers while it plays into pg1.
#[test]
fn a_queue_moves_between_workers_without_loss() {
    let daemon = Daemon::start(None, "cpu { workers 2 }");
    daemon.script(
        "create packet-generator interface pg0
         create packet-generator interface pg1
         set interface l2 xconnect pg0 pg1
         set interface state pg0 up
         set interface state pg1 up
         set interface rx-placement pg0 worker 0
         set interface rx-placement pg1 worker 1",
    );
    let placed = |worker: u32| {
        let text = daemon.script("show interface rx-placement");
        let thread = text.split("Thread ").find(|t| t.contains("pg0 queue 0")).unwrap_or_default();
        assert!(thread.starts_with(&format!("{} ", worker + 1)), "{text}");
    };
    placed(0);
    const LIMIT: u64 = 6_000;
    daemon.script(&stream(LIMIT, 3_000.0));
    daemon.script("packet-generator enable-stream x");
    let mut worker = 0;
    while !done(&daemon) {
        worker = 1 - worker;
        daemon.script(&format!("set interface rx-placement pg0 worker {worker}"));
        placed(worker);
        std::thread::sleep(Duration::from_millis(50));
    }
    settled(&daemon);
    let seen = ["show errors", "show packets", "show packet-generator"].map(|s| daemon.script(s)).concat();
    assert_eq!(counter(&daemon, "pg0", "rx packets"), LIMIT, "{seen}");
    let sent = counter(&daemon, "pg1", "tx packets");
    assert_eq!(sent + threads(&daemon, "handoff_drops"), LIMIT, "{seen}");
    let runtime = daemon.json("show runtime");
    for thread in runtime.as_array().unwrap() {
        let vectors = |n: &serde_json::Value| n["name"] == "pg-input" && n["vectors"].as_u64() > Some(0);
        assert!(thread["nodes"].as_array().unwrap().iter().any(vectors), "both workers played: {runtime}");
    }
}

/// Two wharfs, joined by a memif with one queue: packets of the worker that does not have it are handed over.
#[test]
fn packets_change_worker_without_loss() {
    let [from, to] = [(); 2].map(|()| Daemon::start(None, "cpu { workers 2 }"));
    let socket = from.file("memif.sock");
    for (daemon, pg, role) in [(&from, "pg0", "master"), (&to, "pg1", "slave")] {
        daemon.script(&format!(
            "create packet-generator interface {pg}
             create memif socket id 1 filename {}
             create interface memif id 0 socket-id 1 {role} ring-size 4096 rx-queues 1 tx-queues 1
             set interface l2 xconnect {pg} memif1/0
             set interface l2 xconnect memif1/0 {pg}
             set interface state memif1/0 up
             set interface state {pg} up",
            socket.display()
        ));
    }
    wait_until("they are connected", PATIENCE, || {
        [&from, &to].iter().all(|d| d.json("show memif")["interfaces"][0]["connected"] == true)
    });
    const LIMIT: u64 = 4_000;
    from.script(&stream(LIMIT, 4_000.0));
    for worker in 0..2 {
        from.script(&format!("set interface rx-placement pg0 worker {worker}"));
        from.script("packet-generator enable-stream x");
        wait_until("the stream is done", PATIENCE, || done(&from));
        settled(&from);
        let sent = LIMIT * (worker + 1);
        wait_until("all has come", PATIENCE, || {
            counter(&to, "memif1/0", "rx packets") + threads(&from, "handoff_drops") == sent
        });
        settled(&to);
        let lost = [&from, &to].map(|d| d.script("show errors") + &d.script("show packets")).concat();
        let out = counter(&from, "memif1/0", "tx packets");
        assert_eq!(out + threads(&from, "handoff_drops"), sent, "{lost}");
        assert_eq!(counter(&to, "pg1", "tx packets") + threads(&to, "handoff_drops"), out, "{lost}");
    }
    assert_eq!(
        threads(&from, "handoffs") + threads(&from, "handoff_drops"),
        LIMIT,
        "one of the workers has the queue"
    );
}

/// The message names the word, the status is 1, and nothing has changed.
#[test]
fn bad_commands_change_nothing() {
    let daemon = Daemon::start(None, "cpu { workers 2 }");
    daemon.script(
        "create packet-generator interface pg0
         create loopback interface
         set interface ip address pg0 10.0.1.1/24
         set interface state pg0 up
         ip neighbor pg0 10.0.1.2 02:00:00:00:00:11
         ip route add 192.0.2.0/24 via 10.0.1.2",
    );
    let shows = [
        "show interface",
        "show interface address",
        "show interface rx-placement",
        "show interface span",
        "show mode",
        "show ip fib",
        "show ip table",
        "show l2fib verbose",
        "show packet-generator",
        "show memif",
        "show af_xdp",
        "show bridge-domain",
        "show buffers",
        "show packets",
        "show trace",
    ];
    let state = || shows.map(|show| daemon.json(show));
    let before = state();
    for (command, says, word) in BAD {
        let output = Command::new(env!("CARGO_BIN_EXE_wharfctl"))
            .arg("-s")
            .arg(daemon.file("cli.sock"))
            .arg(command)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(says) && error.contains(&format!("(word {word})")), "{command}: {error}");
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        for ((show, before), after) in shows.iter().zip(&before).zip(state()) {
            assert_eq!(*before, after, "{show} after {command}");
        }
    }
}

/// A command, what it says, and the word that it is about.
const BAD: &[(&str, &str, usize)] = &[
    ("frobnicate", "unknown input `frobnicate'", 1),
    ("show frob", "unknown input `frob'", 2),
    ("show", "incomplete", 2),
    ("s i", "`s' is ambiguous", 1),
    ("help frob", "no command `frob'", 2),
    ("show interface \"", "missing closing quote", 3),
    ("show interface nosuch", "unknown interface `nosuch'", 3),
    ("set interface state nosuch up", "unknown interface `nosuch'", 4),
    ("set interface state local0 up", "local0 cannot be changed", 4),
    ("set interface state pg0 sideways", "unknown input `sideways'", 5),
    ("set interface state pg0", "missing {up|down}", 5),
    ("set interface state pg0 up up", "`up' given twice", 6),
    ("set interface mtu 70000 pg0", "got 70000", 4),
    ("set interface mtu ip4 5 pg0", "from 68", 5),
    ("set interface mtu 1400 local0", "local0 cannot be changed", 5),
    ("set interface mac address pg0 01:00:5e:00:00:01", "01:00:5e:00:00:01 is not a unicast address", 6),
    ("set interface ip address pg0 10.0.0.300/24", "`10.0.0.300/24'", 6),
    ("set interface ip address pg0 10.0.0.1/33", "`10.0.0.1/33'", 6),
    ("set interface ip address pg0 224.0.0.1/24", "not an address for an interface", 6),
    ("set interface ip address pg0 fd00::1/64", "IPv6 is not there yet", 6),
    ("set interface ip address loop0 10.0.1.9/24", "in conflict with 10.0.1.1/24 of pg0", 6),
    ("set interface ip address del pg0 10.7.7.7/24", "10.7.7.7/24", 7),
    ("set interface ip table pg0 77", "no IPv4 table 77", 6),
    ("set interface ip table pg0 0", "pg0 has IP addresses", 5),
    ("set interface l2 xconnect pg0 nosuch", "unknown interface `nosuch'", 6),
    ("set interface l2 xconnect pg0 pg0", "to itself", 6),
    ("set interface l2 xconnect pg0 local0", "local0", 6),
    ("set interface l2 xconnect pg0 loop0", "pg0 has IP addresses", 5),
    ("set interface rx-placement pg0 worker 9", "no worker 9", 6),
    ("set interface rx-placement pg0 queue 9 worker 0", "no receive queue 9", 6),
    ("set interface rx-mode pg0 queue 9 polling", "no receive queue 9", 6),
    ("set interface feature pg0 nosuch arc ip4-unicast", "`nosuch'", 5),
    ("set interface feature pg0 x arc nosuch", "`nosuch'", 7),
    ("ip route add 10.0.0.0/8", "missing {via", 5),
    ("ip route add 10.0.0.0/8 via 192.0.5.1", "192.0.5.1", 6),
    ("ip route add 10.0.0.0/8 table 77 via drop", "no IPv4 table 77", 6),
    ("ip route add count 3 255.255.255.0/24 via drop", "only 1 prefixes from 255.255.255.0/24", 5),
    ("ip route add count 0 10.0.0.0/8 via drop", "got 0", 5),
    ("ip route del 10.0.0.0/8", "10.0.0.0/8", 4),
    ("ip route del 10.0.0.0/8 table 77", "no IPv4 table 77", 6),
    ("ip table add x", "`x'", 4),
    ("ip table del 77", "no IPv4 table 77", 4),
    ("ip table del 0", "table 0 cannot be deleted", 4),
    ("ip neighbor pg0 10.0.1.3 02:00", "`02:00'", 5),
    ("ip neighbor pg0 10.0.1.3 01:00:00:00:00:01", "not the address of a neighbour", 5),
    ("ip neighbor loop0 10.0.1.3 02:00:00:00:00:01", "10.0.1.3 is not a neighbour's address on loop0", 4),
    ("ip neighbor pg0 10.0.1.255 02:00:00:00:00:01", "10.0.1.255 is not a neighbour's address", 4),
    ("ip neighbor del pg0 10.0.1.9", "no neighbour 10.0.1.9", 5),
    ("set ip neighbor-config ip4 age x", "`x'", 6),
    ("show ip fib table 9", "no IPv4 table 9", 5),
    ("ping", "missing <ip4>", 2),
    ("ping 10.0.1.2 repeat 0", "`0'", 4),
    ("ping 10.0.1.2 interval 0", "interval must be from 0.001", 4),
    ("ping 10.9.9.9 repeat 1", "no route to 10.9.9.9", 2),
    ("ping 10.0.1.2 source loop0", "loop0 has no address", 4),
    ("create interface memif", "missing id <u32>", 4),
    ("create interface memif id 0 socket-id 9", "no memif socket 9", 7),
    ("create interface memif id 0 ring-size 1000", "1000", 7),
    ("create interface memif id 0 buffer-size 7", "7", 7),
    ("create interface memif id 0 hw-addr 01:00:00:00:00:00", "01:00:00:00:00:00", 7),
    ("create interface memif id 0 secret 1234567890123456789012345", "secret", 7),
    ("create memif socket id 0 filename /x", "socket 0 exists", 5),
    ("create memif socket id 3 filename @", "@", 7),
    ("delete memif socket id 9", "no memif socket 9", 5),
    ("create loopback interface instance 0", "loop0", 5),
    ("create packet-generator interface pg0", "`pg0' already", 4),
    ("create interface af_xdp host-if x rx-queue-size 100", "got 100", 7),
    ("create interface af_xdp host-if x keep-tcp 70000", "70000 is not a port", 7),
    ("create interface af_xdp host-if nosuch0 name pg0", "`pg0' already", 7),
    ("create interface af_xdp host-if nosuch0", "nosuch0", 5),
    ("create interface af_xdp host-if x netns nosuch", "nosuch", 7),
    ("delete interface nosuch", "unknown interface `nosuch'", 3),
    ("delete interface af_xdp pg0", "pg0 is not an AF_XDP interface", 4),
    ("delete interface memif pg0", "pg0 is not a memif interface", 4),
    ("delete interface memif sw_if_index 99", "sw_if_index 99", 5),
    ("delete loopback interface intfc local0", "local0 cannot be changed", 5),
    ("delete packet-generator interface loop0", "loop0 is not a packet generator interface", 4),
    ("delete interface local0", "local0", 3),
    ("packet-generator enable-stream nosuch", "no stream `nosuch'", 3),
    ("packet-generator delete nosuch", "no stream `nosuch'", 3),
    ("packet-generator new { name x }", "`data'", 3),
    ("packet-generator new { name x interface pg0 pcap /nonexistent.pcap }", "/nonexistent.pcap", 3),
    ("packet-generator new { name x interface pg9 pcap /nonexistent.pcap }", "/nonexistent.pcap", 3),
    ("packet-generator capture pg0 pcap /nonexistent/x", "/nonexistent/x", 5),
    ("trace add nosuch 1", "unknown node `nosuch'", 3),
    ("trace add pg-input 0", "got 0", 4),
    ("trace add ip4-lookup 5", "`ip4-lookup'", 3),
    ("exec /nonexistent", "/nonexistent", 2),
];

/// Every `show` that help knows is JSON when asked, with an interface of each kind that needs no privilege.
#[test]
fn every_show_is_json() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    daemon.script(
        "create packet-generator interface pg0
         create loopback interface
         create interface memif id 0 master
         set interface l2 xconnect pg0 loop0
         set interface state pg0 up
         trace add pg-input 5",
    );
    daemon.script(&stream(5, 0.0));
    daemon.script("packet-generator enable-stream x");
    wait_until("the stream is done", PATIENCE, || done(&daemon));
    for show in [
        "show af_xdp",
        "show bridge-domain",
        "show buffers",
        "show errors",
        "show errors verbose",
        "show hardware-interfaces",
        "show interface",
        "show interface address",
        "show interface features pg0",
        "show interface rx-placement",
        "show interface span",
        "show ip fib",
        "show ip fib summary",
        "show ip neighbors",
        "show ip table",
        "show l2fib verbose",
        "show memif",
        "show mode",
        "show node counters",
        "show packet-generator",
        "show packets",
        "show runtime",
        "show runtime verbose",
        "show threads",
        "show trace",
        "show version",
        "show version verbose",
        "show vxlan tunnel",
    ] {
        let value = daemon.json(show);
        assert!(value.is_object() || value.is_array(), "{show}: {value}");
        assert!(serde_json::from_str::<serde_json::Value>(&daemon.script(show)).is_err(), "{show} as text");
    }
    settled(&daemon);
}

/// In the background, as VPP does: the command returns when wharf answers.
#[test]
fn goes_to_the_background() {
    let dir = TempDir::new();
    let path = dir.path().display();
    let pidfile = dir.path().join("pid");
    run(Command::new(WHARF)
        .arg(format!(
            "unix {{ runtime-dir {path} cli-listen {path}/cli.sock log {path}/log pidfile {path}/pid }}"
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null()));
    let pid = std::fs::read_to_string(&pidfile).unwrap();
    let process = format!("/proc/{}", pid.trim());
    assert!(Path::new(&process).exists());
    run(Command::new("kill").arg(pid.trim()));
    wait_until("it ends", PATIENCE, || !dir.path().join("cli.sock").exists() && !pidfile.exists());
}
