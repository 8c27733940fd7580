//! TCP between two containers by iperf3: through wharf, cross-connected over AF_XDP, and through a kernel bridge.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::machine::Machine;
use crate::process::{Program, Stop, WorkDir, output, target_dir};
use crate::report::{Spread, unix_time, write_json};
use crate::run::Rig;
use crate::{Result, TcpOptions, wharf};

const ADDRESS: &str = "10.0.1.3";
const PATIENCE: Duration = Duration::from_secs(10);

/// Two pods with a veth pair each to a third namespace; gone when dropped.
struct Lab {
    dp: String,
    pods: [String; 2],
}

impl Lab {
    fn new() -> Result<Self> {
        // Names that `make clean-netns` knows.
        let name = |suffix: &str| format!("wh{}x{suffix}", std::process::id());
        let lab = Lab { dp: name("dp"), pods: [name("a"), name("b")] };
        let Lab { dp, pods } = &lab;
        for netns in [dp, &pods[0], &pods[1]] {
            output("ip", &["netns", "add", netns])?;
            let keys = ["all", "default"].map(|k| format!("net.ipv6.conf.{k}.disable_ipv6=1"));
            output("ip", &["netns", "exec", netns, "sysctl", "-qw", &keys[0], &keys[1]])?;
        }
        for (pod, (host_if, address)) in
            pods.iter().zip([("veth-a", "10.0.1.2/24"), ("veth-b", "10.0.1.3/24")])
        {
            let veth =
                ["-n", dp, "link", "add", host_if, "type", "veth", "peer", "name", "eth0", "netns", pod];
            output("ip", &veth)?;
            output("ip", &["-n", dp, "link", "set", host_if, "up"])?;
            output("ip", &["-n", pod, "addr", "add", address, "dev", "eth0"])?;
            output("ip", &["-n", pod, "link", "set", "eth0", "up"])?;
            output("ip", &["-n", pod, "link", "set", "lo", "up"])?;
        }
        Ok(lab)
    }

    /// Switches features of the pods' devices.
    fn features(&self, words: &[&str]) -> Result<()> {
        for pod in &self.pods {
            let all = ["netns", "exec", pod, "ethtool", "-K", "eth0"];
            output("ip", &[&all[..], words].concat())?;
        }
        Ok(())
    }

    /// Gbit/s from the first pod to the second.
    fn iperf3(&self, seconds: f64, stop: &Stop) -> Result<(f64, u64)> {
        let [client, server] = &self.pods;
        let dir = WorkDir::new()?;
        let mut listener = Command::new("ip");
        listener.args(["netns", "exec", server, "iperf3", "-s", "-1", "-B", ADDRESS]);
        let mut listener = Program::start("iperf3", &mut listener, &dir)?;
        let start = Instant::now();
        while !output("ip", &["netns", "exec", server, "ss", "-Hltn", "sport = 5201"])?.contains("5201") {
            stop.check()?;
            listener.check()?;
            if start.elapsed() > PATIENCE {
                return Err(listener.explain("it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let time = format!("{}", seconds.ceil());
        let words = [
            "netns",
            "exec",
            client,
            "iperf3",
            "-c",
            ADDRESS,
            "-t",
            &time,
            "-J",
            "--connect-timeout",
            "5000",
        ];
        let done = Command::new("ip").args(words).stdin(Stdio::null()).output();
        let done = done.map_err(|e| format!("ip: {e}"))?;
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        let number = |at: &str| report.pointer(at).and_then(serde_json::Value::as_f64);
        match number("/end/sum_received/bits_per_second") {
            Some(rate) => Ok((rate / 1e9, number("/end/sum_sent/retransmits").unwrap_or_default() as u64)),
            None => Err(format!("iperf3: {}", String::from_utf8_lossy(&done.stdout))),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in [&self.pods[0], &self.pods[1], &self.dp] {
            let _ = output("ip", &["netns", "del", netns]);
        }
    }
}

/// What connects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Wharf,
    Bridge,
    BridgeFrames,
}

impl Through {
    fn name(self) -> &'static str {
        match self {
            Through::Wharf => "wharf, AF_XDP in copy mode, cross-connected",
            Through::Bridge => "kernel bridge, segmentation offload on",
            Through::BridgeFrames => "kernel bridge, frame by frame",
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    through: &'static str,
    round: usize,
    gbit_per_second: f64,
    retransmits: u64,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    unix_time: u64,
    rounds: usize,
    seconds: f64,
    rows: Vec<Row>,
}

/// Measures, prints, and writes down.
pub(crate) fn run(options: &TcpOptions, rig: &Rig<'_>) -> Result<()> {
    let machine = Machine::here();
    print!("{}", machine.describe());
    println!(
        "TCP by iperf3, one connection, veth to veth, MTU 1500, checksum offload on in the containers, one worker; {} \
         rounds of {} s\n",
        options.rounds, options.seconds
    );
    let all = [Through::Wharf, Through::Bridge, Through::BridgeFrames];
    let mut rows: Vec<Row> = Vec::new();
    for round in 1..=options.rounds {
        for through in all {
            let (gbit_per_second, retransmits) = measure(through, options, rig)?;
            println!(
                "round {round}: {:<46}{gbit_per_second:6.2} Gbit/s, {retransmits} retransmits",
                through.name()
            );
            rows.push(Row { through: through.name(), round, gbit_per_second, retransmits });
        }
    }
    println!("\n{:<46}{:>8}  range", "median", "Gbit/s");
    for through in all {
        let rates = rows.iter().filter(|r| r.through == through.name()).map(|r| r.gbit_per_second);
        if let Some(s) = Spread::of(rates) {
            println!("{:<46}{:>8.2}  {:.2} to {:.2}", through.name(), s.median, s.min, s.max);
        }
    }
    println!("iperf3's two ends, main and the worker share {} cores", machine.cores);
    let unix_time = unix_time();
    let path = match &options.json {
        Some(path) => path.clone(),
        None => target_dir()?.join(PathBuf::from(format!("bench/tcp-{unix_time}.json"))),
    };
    let results = Results { machine, unix_time, rounds: options.rounds, seconds: options.seconds, rows };
    write_json(&path, &results)?;
    println!("results: {}", path.display());
    Ok(())
}

fn measure(through: Through, options: &TcpOptions, rig: &Rig<'_>) -> Result<(f64, u64)> {
    let lab = Lab::new()?;
    if through == Through::Wharf {
        let dir = WorkDir::new()?;
        let wharf = rig.wharf(&dir)?;
        for host_if in ["veth-a", "veth-b"] {
            wharf.run_all(&wharf::af_xdp(host_if, &lab.dp))?;
        }
        wharf.run("set interface l2 xconnect veth-a veth-b")?;
        wharf.run("set interface l2 xconnect veth-b veth-a")?;
        lab.features(&["tx", "on"])?;
        let result = lab.iperf3(options.seconds, rig.stop);
        return result.map_err(|e| wharf.program.explain(&e));
    }
    output("ip", &["-n", &lab.dp, "link", "add", "br0", "type", "bridge"])?;
    for host_if in ["veth-a", "veth-b"] {
        output("ip", &["-n", &lab.dp, "link", "set", host_if, "master", "br0"])?;
    }
    output("ip", &["-n", &lab.dp, "link", "set", "br0", "up"])?;
    if through == Through::BridgeFrames {
        lab.features(&["tso", "off", "gso", "off", "gro", "off"])?;
    }
    lab.iperf3(options.seconds, rig.stop)
}
