//! Real peers: dpdk-testpmd over memif, iperf3 and scapy in a namespace.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Background, Netns, PATIENCE, TempDir, dies_with_us, unique, wait_until};

/// One memif port of a testpmd.
#[derive(Clone, Debug)]
pub(crate) struct TestpmdPort {
    /// `client` or `server`.
    pub(crate) role: &'static str,
    /// The interface's number on the socket.
    pub(crate) id: u32,
    pub(crate) socket: PathBuf,
    /// More device arguments, such as `rsize=9,secret=word`.
    pub(crate) more: &'static str,
}

impl TestpmdPort {
    pub(crate) fn new(role: &'static str, id: u32, socket: impl Into<PathBuf>) -> Self {
        Self { role, id, socket: socket.into(), more: "bsize=2048,rsize=10" }
    }
}

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortStats {
    pub(crate) rx_packets: u64,
    pub(crate) rx_missed: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_errors: u64,
}

/// A dpdk-testpmd that waits for commands; killed when dropped. When the test fails, it shows what it said.
#[derive(Debug)]
pub(crate) struct Testpmd {
    dir: TempDir,
    child: Background,
    ports: usize,
}

/// `target/peers/bin/dpdk-testpmd`, which `tools/testpmd.sh` makes, or the one in the path.
fn testpmd_program() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/dpdk-testpmd");
    if ours.exists() { ours } else { "dpdk-testpmd".into() }
}

impl Testpmd {
    /// Starts testpmd with `queues` queues a port, and waits for its prompt. `arguments` are testpmd's own (after
    /// `--`), such as `--forward-mode=mac`. It does not forward before [`Testpmd::command`] says `start`.
    #[track_caller]
    pub(crate) fn start(ports: &[TestpmdPort], queues: u16, arguments: &[&str]) -> Self {
        let mut testpmd = Self::launch(ports, queues, arguments);
        testpmd.wait_ready();
        testpmd
    }

    /// As [`Testpmd::start`], without waiting: for many at once.
    #[track_caller]
    pub(crate) fn launch(ports: &[TestpmdPort], queues: u16, arguments: &[&str]) -> Self {
        let dir = TempDir::new();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // Its output goes to a file: by lines, please.
        let mut command = dies_with_us(None, "stdbuf");
        command.arg("-oL").arg(testpmd_program());
        command.args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--file-prefix", &unique()]);
        let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
        command.arg(format!("--lcores=0@0,1@{last}"));
        for (i, port) in ports.iter().enumerate() {
            command.arg(format!(
                "--vdev=net_memif{i},role={},id={},socket={},socket-abstract=no,{}",
                port.role,
                port.id,
                port.socket.display(),
                port.more
            ));
        }
        command.args([
            "--",
            "-i",
            "--no-mlockall",
            "--disable-link-check",
            "--total-num-mbufs=16384",
            "--no-flush-rx",
        ]);
        command.args([format!("--rxq={queues}"), format!("--txq={queues}")]).args(arguments);
        // Where DPDK keeps its own files, which would stay behind.
        command.env("RUNTIME_DIRECTORY", dir.path());
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("dpdk-testpmd: {e}"));
        Self { dir, child: Background(child), ports: ports.len() }
    }

    /// Waits for the prompt.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        self.wait_for("testpmd's prompt", 0, |text| text.contains("Done"));
    }

    /// All that testpmd has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, from: usize, ready: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            let said = log.get(from..).unwrap_or_default();
            if ready(said) {
                return said.to_owned();
            }
            let ended = self.child.0.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: testpmd has ended, {ended:?}");
            assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives a command.
    #[track_caller]
    pub(crate) fn command(&mut self, line: &str) {
        let stdin = self.child.0.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("testpmd has ended");
    }

    /// The counters of all ports.
    #[track_caller]
    pub(crate) fn stats(&mut self) -> Vec<PortStats> {
        let (from, ports) = (self.log().len(), self.ports);
        self.command("show port stats all");
        // The last line of each port's block.
        let done = |text: &str| text.matches("Tx-pps:").count() == ports;
        parse_stats(&self.wait_for("port statistics", from, done))
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- output of testpmd\n{}---", self.log());
        }
    }
}

/// Reads the answer to `show port stats all`.
pub(crate) fn parse_stats(text: &str) -> Vec<PortStats> {
    let mut ports = Vec::new();
    for block in text.split("NIC statistics for port").skip(1) {
        let value = |name: &str| {
            let rest = block.split_once(name).map_or("", |(_, rest)| rest);
            rest.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        ports.push(PortStats {
            rx_packets: value("RX-packets:"),
            rx_missed: value("RX-missed:"),
            rx_errors: value("RX-errors:"),
            tx_packets: value("TX-packets:"),
            tx_errors: value("TX-errors:"),
        });
    }
    ports
}

/// TCP from `client` to `address` in `server` for `seconds`; Mbit/s as received. `more` are arguments of the client,
/// such as `-R`.
#[track_caller]
pub(crate) fn iperf3(server: &Netns, address: &str, client: &Netns, seconds: u32, more: &[&str]) -> f64 {
    let mut listener = server.spawn("iperf3", ["-s", "-1", "-B", address]);
    wait_until("iperf3's server listens", PATIENCE, || {
        assert!(listener.0.try_wait().unwrap().is_none(), "iperf3's server has ended: is {address} set?");
        server.run("ss", ["-Hltn", "sport = 5201"]).contains("5201")
    });
    let seconds = seconds.to_string();
    let arguments = ["-c", address, "-t", &seconds, "--json", "--connect-timeout", "5000"];
    let text = client.run("iperf3", arguments.iter().chain(more));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(|v| v.as_f64());
    bits.unwrap_or_else(|| panic!("iperf3: no result in {text}")) / 1e6
}

/// Runs Debian's Python with scapy in `netns`; what it printed. Panics when it fails: a snippet may assert.
#[track_caller]
pub(crate) fn scapy(netns: &Netns, snippet: &str) -> String {
    let mut program = String::from("from scapy.all import *\nconf.verb = 0\n");
    let indent =
        snippet.lines().filter(|l| !l.trim().is_empty()).map(|l| l.len() - l.trim_start().len()).min();
    for line in snippet.lines() {
        let _ = writeln!(program, "{}", line.get(indent.unwrap_or(0)..).unwrap_or_default());
    }
    netns.run("/usr/bin/python3", ["-c", &program])
}
