//! The daemon, set up by its own command line client. All commands that the benchmarks need are here, in VPP's words.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::process::{Program, Stop, WorkDir, output, sibling};
use crate::traffic::{DESTINATIONS, DUT_MAC, FIRST_DESTINATION, NEXT_HOP_MAC, SOURCE_MAC};

/// Time for the daemon to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two programs.
#[derive(Debug)]
pub(crate) struct Binaries {
    wharf: PathBuf,
    wharfctl: PathBuf,
}

impl Binaries {
    /// Where they are: as told, else beside this program.
    pub(crate) fn locate(told: Option<&Path>) -> Result<Self> {
        let Some(told) = told else {
            return Ok(Self { wharf: sibling("wharf")?, wharfctl: sibling("wharfctl")? });
        };
        let (wharf, wharfctl) = (told.to_path_buf(), told.with_file_name("wharfctl"));
        if let Some(missing) = [&wharf, &wharfctl].into_iter().find(|p| !p.is_file()) {
            return Err(format!("there is no {}", missing.display()));
        }
        Ok(Self { wharf, wharfctl })
    }
}

/// What the nodes say of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runtime {
    /// Clocks of all nodes for each packet that was received. Polls that found nothing are in it.
    pub(crate) clocks_per_packet: f64,
    /// Packets of a vector, where they are sent.
    pub(crate) vector: f64,
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Wharf {
    /// Its process.
    pub(crate) program: Program,
    wharfctl: PathBuf,
    socket: PathBuf,
}

impl Wharf {
    /// Starts it with one worker, and waits until it answers.
    pub(crate) fn start(
        binaries: &Binaries,
        dut_core: usize,
        load_core: usize,
        dir: &WorkDir,
        stop: &Stop,
    ) -> Result<Self> {
        Self::start_with(binaries, (dut_core, load_core), dir, stop, "")
    }

    /// As [`Wharf::start`], with more stanzas of startup.conf.
    pub(crate) fn start_with(
        binaries: &Binaries,
        (dut_core, load_core): (usize, usize),
        dir: &WorkDir,
        stop: &Stop,
        more: &str,
    ) -> Result<Self> {
        let socket = dir.path().join("cli.sock");
        let words = format!(
            "unix {{ nodaemon runtime-dir {} cli-listen {} }} cpu {{ main-core {load_core} corelist-workers {dut_core} }}",
            dir.path().display(),
            socket.display()
        );
        let mut command = Command::new(&binaries.wharf);
        command.args(words.split(' ')).args(more.split_whitespace());
        let program = Program::start("wharf", &mut command, dir)?;
        let mut wharf = Self { program, wharfctl: binaries.wharfctl.clone(), socket };
        let start = Instant::now();
        loop {
            wharf.program.check()?;
            stop.check()?;
            match wharf.run("show version") {
                Ok(_) => return Ok(wharf),
                Err(e) if start.elapsed() > PATIENCE => return Err(wharf.program.explain(&e)),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Runs one command and returns what it prints.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        output(&self.wharfctl, &["--socket".as_ref(), self.socket.as_os_str(), command.as_ref()])
    }

    /// Runs commands, one a line, in one session, up to the first that fails.
    pub(crate) fn script(&self, commands: &str) -> Result<()> {
        let file = self.socket.with_file_name("script");
        std::fs::write(&file, commands).map_err(|e| format!("{}: {e}", file.display()))?;
        let words = ["--socket".as_ref(), self.socket.as_os_str(), "--file".as_ref(), file.as_os_str()];
        output(&self.wharfctl, &words).map(drop)
    }

    /// Runs a show command and returns what it shows.
    pub(crate) fn show(&self, command: &str) -> Result<serde_json::Value> {
        let text = self.run(&format!("show {command} --json"))?;
        serde_json::from_str(&text).map_err(|e| format!("show {command}: {e}"))
    }

    /// The account of its worker's nodes since `clear runtime`.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        let threads = self.show("runtime")?;
        let nodes = threads.pointer("/0/nodes").and_then(|n| n.as_array()).cloned().unwrap_or_default();
        let number = |node: &serde_json::Value, field: &str| node[field].as_f64().unwrap_or_default();
        let named = |name: &str| nodes.iter().find(|n| n["name"].as_str() == Some(name));
        let clocks: f64 = nodes.iter().map(|n| number(n, "clocks") * number(n, "vectors")).sum();
        match (named("memif-input"), named("memif2/0-tx")) {
            (Some(input), Some(output)) if number(input, "vectors") > 0.0 => Ok(Runtime {
                clocks_per_packet: clocks / number(input, "vectors"),
                vector: number(output, "vectors_per_call"),
            }),
            _ => Err(format!("no packets in show runtime: {threads}")),
        }
    }

    /// The longest turn of its worker so far, microseconds.
    pub(crate) fn longest_turn(&self) -> Result<f64> {
        let threads = self.show("threads")?;
        let rows = threads.pointer("/0").and_then(|rows| rows.as_array());
        let gaps = rows.into_iter().flatten().filter_map(|t| t["max_gap_us"].as_f64());
        gaps.reduce(f64::max).ok_or_else(|| "no thread has a longest turn".into())
    }

    /// Runs commands, up to the first that fails.
    pub(crate) fn run_all(&self, commands: &[String]) -> Result<()> {
        commands.iter().try_for_each(|command| self.run(command).map(drop))
    }
}

/// Two memif interfaces, up: memif1/0 is sent to, memif2/0 is received from.
pub(crate) fn interfaces(sockets: &[PathBuf; 2]) -> Vec<String> {
    let [first, second] = sockets.each_ref().map(|s| s.display());
    vec![
        format!("create memif socket id 1 filename {first}"),
        format!("create memif socket id 2 filename {second}"),
        format!("create interface memif id 0 socket-id 1 master hw-addr {DUT_MAC}"),
        "create interface memif id 0 socket-id 2 master".into(),
        "set interface state memif1/0 up".into(),
        "set interface state memif2/0 up".into(),
    ]
}

/// IPv4 on both interfaces, and `route` (a prefix, or several) to a neighbour on the second, by the last command.
pub(crate) fn routed(route: String) -> Vec<String> {
    vec![
        "set interface ip address memif1/0 192.168.1.1/24".into(),
        "set interface ip address memif2/0 192.168.2.1/24".into(),
        format!("set ip neighbor memif2/0 192.168.2.2 {NEXT_HOP_MAC} static"),
        format!("ip route add {route} via 192.168.2.2 memif2/0"),
    ]
}

/// A script that makes further interfaces, `ids` of the first socket, up.
pub(crate) fn silent(ids: Range<u32>) -> String {
    ids.map(|id| {
        format!("create interface memif id {id} socket-id 1 master\nset interface state memif1/{id} up\n")
    })
    .collect()
}

/// A script that makes `count` interfaces of one socket, up, cross-connected two by two, in interrupt mode.
pub(crate) fn pairs(socket: &Path, count: u32) -> String {
    let mut script = format!("create memif socket id 1 filename {}\n", socket.display());
    for id in 0..count {
        script += &format!(
            "create interface memif id {id} socket-id 1 master\nset interface rx-mode memif1/{id} interrupt\n\
             set interface state memif1/{id} up\n"
        );
    }
    for id in 0..count {
        script += &format!("set interface l2 xconnect memif1/{id} memif1/{}\n", id ^ 1);
    }
    script
}

/// What a path needs beyond its interfaces.
pub(crate) fn forwarding(case: Case) -> Vec<String> {
    match case {
        Case::Floor | Case::FloorMillion | Case::TestpmdIo | Case::TestpmdIoMillion | Case::TestpmdMac => {
            Vec::new()
        }
        Case::Xconnect => vec![
            "set interface l2 xconnect memif1/0 memif2/0".into(),
            "set interface l2 xconnect memif2/0 memif1/0".into(),
        ],
        Case::Bridge => vec![
            "create bridge-domain 1".into(),
            "set interface l2 bridge memif1/0 1".into(),
            "set interface l2 bridge memif2/0 1".into(),
            format!("l2fib add {SOURCE_MAC} 1 memif1/0 static"),
            format!("l2fib add {DUT_MAC} 1 memif2/0 static"),
        ],
        Case::BridgeTen | Case::BridgeTenThousand | Case::BridgeMillion => {
            let stations = case.traffic().stations;
            vec![
                "create bridge-domain 1".into(),
                format!("set bridge-domain learn-limit 1 {stations}"),
                "set interface l2 bridge memif1/0 1".into(),
                "set interface l2 bridge memif2/0 1".into(),
                format!("set interface l2 learn-limit memif1/0 {stations}"),
                format!("l2fib add count {stations} {DUT_MAC} 1 memif2/0 static"),
            ]
        }
        Case::VxlanDecap => vec![
            "set interface ip address memif1/0 192.168.1.1/24".into(),
            "create vxlan tunnel src 192.168.1.1 dst 192.168.1.2 vni 7".into(),
            "set interface l2 xconnect vxlan_tunnel0 memif2/0".into(),
            "set interface l2 xconnect memif2/0 vxlan_tunnel0".into(),
        ],
        Case::Vxlan => vec![
            "set interface ip address memif2/0 192.168.2.1/24".into(),
            format!("set ip neighbor memif2/0 192.168.2.2 {NEXT_HOP_MAC} static"),
            "create vxlan tunnel src 192.168.2.1 dst 192.168.2.2 vni 7".into(),
            "set interface l2 xconnect memif1/0 vxlan_tunnel0".into(),
            "set interface l2 xconnect vxlan_tunnel0 memif1/0".into(),
        ],
        Case::Ip4 => routed(format!("{FIRST_DESTINATION}/8")),
        Case::Ip4Million => routed(format!("count {DESTINATIONS} {FIRST_DESTINATION}/32")),
        Case::Acl100 => guarded(100, "permit"),
        Case::Acl1k => guarded(1000, "permit"),
        Case::Acl10k => guarded(10_000, "permit"),
        Case::AclReflect => guarded(1000, "permit+reflect"),
        Case::AclReflect1m => {
            // An interface may have a quarter of the sessions.
            let sessions = format!("set acl-plugin session table max-entries {}", 5 * DESTINATIONS);
            [vec![sessions], guarded(1000, "permit+reflect")].concat()
        }
    }
}

/// IPv4, and so many rules on the interface that is sent to: from and to small networks, to a few ports. What matches none is permitted
/// by one more.
fn guarded(rules: u32, action: &str) -> Vec<String> {
    /// Rules of a list, and of a command.
    const LIST: u32 = 1000;
    let mut commands = routed(format!("{FIRST_DESTINATION}/8"));
    let numbers: Vec<u32> = (0..rules).collect();
    let rule = |n: &u32| {
        let (src, len) = [("192.168.0.0", 16), ("192.168.1.0", 24), ("192.168.1.2", 32), ("192.168.7.0", 24)]
            [(n % 4) as usize];
        let dst = Ipv4Addr::from_bits(FIRST_DESTINATION.to_bits() + n * (DESTINATIONS / rules));
        let to = [20, 24, 28][(n / 4 % 3) as usize];
        let ports = ["0-65535", "9", "1-100", "80-180"][(n / 12 % 4) as usize];
        format!("{action} src {src}/{len} dst {dst}/{to} proto 17 dport {ports}")
    };
    let mut lists: Vec<String> = numbers
        .chunks(LIST as usize)
        .map(|part| part.iter().map(rule).collect::<Vec<_>>().join(", "))
        .collect();
    lists.push(action.into());
    for (index, list) in lists.iter().enumerate() {
        commands.push(format!("set acl-plugin acl {list}"));
        commands.push(format!("set acl-plugin interface memif1/0 input acl {index}"));
    }
    commands
}

/// An AF_XDP interface on `host_if`, a device of network namespace `netns`, up.
pub(crate) fn af_xdp(host_if: &str, netns: &str) -> Vec<String> {
    vec![
        format!("create interface af_xdp host-if {host_if} name {host_if} netns {netns}"),
        format!("set interface state {host_if} up"),
    ]
}
