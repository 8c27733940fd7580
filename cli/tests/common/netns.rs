//! Network namespaces and the veth pairs between them.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use super::{Background, dies_with_us, ip, remove_stale, run, try_run, unique};

/// A network namespace with its loopback up; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// `suffix` (a letter or two) tells the namespaces of a test apart.
    #[track_caller]
    pub(crate) fn new(suffix: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces: run it as root");
        remove_stale();
        let name = unique() + suffix;
        ip(&format!("netns add {name}"));
        let netns = Self { name };
        netns.ip("link set lo up");
        // Nothing but what a test sends: no router solicitations, no duplicate address detection.
        for key in ["all", "default"] {
            netns.run("sysctl", ["-qw", &format!("net.ipv6.conf.{key}.disable_ipv6=1")]);
        }
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside; panics when it fails.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> String {
        run(self.command(program).args(arguments))
    }

    /// Runs a program inside; an error holds what it said.
    pub(crate) fn try_run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, String> {
        try_run(self.command(program).args(arguments))
    }

    /// `ip ARGUMENT...` inside, the arguments separated by blanks.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Starts a program inside, without input or output; killed when the guard is dropped.
    #[track_caller]
    pub(crate) fn spawn<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Background {
        let mut command = dies_with_us(Some(&self.name), program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Background(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}")))
    }

    /// `count` pings, one each 100 ms; how many were answered.
    pub(crate) fn ping(&self, address: &str, count: u32) -> u32 {
        let (count, arguments) = (count.to_string(), ["-n", "-q", "-i", "0.1", "-W", "1", "-c"]);
        let output = self.command("ping").args(arguments).args([&count, address]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let received = text.split(',').find_map(|part| part.trim().strip_suffix(" received"));
        received.and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = try_run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// A veth pair from the daemon's namespace to a pod's. Deleting either namespace deletes it.
#[derive(Debug)]
pub(crate) struct Veth {
    /// The end in the daemon's namespace.
    pub(crate) host_if: String,
    /// The end in the pod's namespace.
    pub(crate) pod_if: String,
}

impl Veth {
    /// Both ends up, with `queues` queues in each direction; the pod's end has `address` (with its prefix length).
    #[track_caller]
    pub(crate) fn new(dp: &Netns, host_if: &str, pod: &Netns, address: &str, queues: u32) -> Self {
        let (host_if, pod_if) = (host_if.to_owned(), "eth0".to_owned());
        let sizes = format!("numtxqueues {queues} numrxqueues {queues}");
        dp.ip(&format!(
            "link add {host_if} {sizes} type veth peer name {pod_if} {sizes} netns {}",
            pod.name()
        ));
        dp.ip(&format!("link set {host_if} up"));
        pod.ip(&format!("addr add {address} dev {pod_if}"));
        pod.ip(&format!("link set {pod_if} up"));
        Self { host_if, pod_if }
    }

    /// Whether the pod leaves checksums of what it sends to the device (as a container does unless told otherwise).
    #[track_caller]
    pub(crate) fn set_tx_checksum(&self, pod: &Netns, on: bool) {
        pod.run("ethtool", ["-K", &self.pod_if, "tx", if on { "on" } else { "off" }]);
    }
}
