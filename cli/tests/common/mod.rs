//! What the tests with a kernel or a real peer share: network namespaces, the daemon, its peers.
//!
//! All that they make is named `wh<pid>x<n>...` and goes away when its guard is dropped, also when a test fails. Nothing
//! is made in the namespace that the tests run in: the daemon has one of its own, and so has each pod.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports)]

mod api;
mod balance;
mod daemon;
mod memif_peers;
mod netns;
mod ovs;
mod peers;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use api::{Client, frame, message, number};
pub(crate) use balance::{counter, error, link, settled};
pub(crate) use daemon::Daemon;
pub(crate) use memif_peers::{
    Bystander, CANARY, Echo, JUMBO, attach, connected, has_buffers, memif_example, memif_state, receive,
    transmit,
};
pub(crate) use netns::{Netns, Veth};
pub(crate) use ovs::Ovs;
pub(crate) use peers::{PortStats, Testpmd, TestpmdPort, iperf3, scapy};

/// Long, as the machine may be busy; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A name that nothing else on this machine has, of at most 13 characters: an interface name with room for two more.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("wh{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until `done` says true.
///
/// # Panics
/// After `timeout`, with `what` did not come.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < timeout, "{what}: not within {timeout:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program to its end; its standard output, or its standard error and exit status when it failed.
pub(crate) fn try_run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => return Err(format!("{program}: {e} (tools/install.sh installs what the tests need)")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let said =
        [&output.stdout[..], &output.stderr[..]].map(|s| String::from_utf8_lossy(s).into_owned()).concat();
    Err(format!("{program} {}: {}\n{}", arguments.join(" "), output.status, said.trim_end()))
}

/// As [`try_run`].
///
/// # Panics
/// When the program fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    try_run(command).unwrap_or_else(|e| panic!("{e}"))
}

/// `ip ARGUMENT...`, the arguments separated by blanks.
#[track_caller]
pub(crate) fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

/// A directory that goes away with its guard.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed with its guard.
#[derive(Debug)]
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that dies with the thread that started it, so that nothing is left when a test binary is killed.
/// The process keeps its number: killing the child kills the program itself.
pub(crate) fn dies_with_us(netns: Option<&str>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = match netns {
        Some(netns) => {
            let mut ip = Command::new("ip");
            ip.args(["netns", "exec", netns, "setpriv"]);
            ip
        }
        None => Command::new("setpriv"),
    };
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Removes, once, the namespaces of test binaries that were killed before they could do so.
pub(crate) fn remove_stale() {
    static STALE: Once = Once::new();
    STALE.call_once(remove_stale_now);
}

/// As [`remove_stale`], every time.
pub(crate) fn remove_stale_now() {
    for line in ip("netns list").lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let owner = name.strip_prefix("wh").and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
        let number = owner.and_then(|pid| pid.parse::<u32>().ok());
        if number.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test binary may do the same at this moment.
            let _ = try_run(Command::new("ip").args(["netns", "delete", name]));
        }
    }
}
