//! Open vSwitch with its userspace datapath, in a namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Background, Netns, PATIENCE, TempDir, dies_with_us, run, wait_until};

/// A switch; killed when dropped. When the test fails, it shows its log.
#[derive(Debug)]
pub(crate) struct Ovs {
    _switch: Background,
    _database: Background,
    dir: TempDir,
    netns: String,
}

/// `target/peers/ovs`, which `tools/ovs.sh` makes.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/ovs");
    assert!(root.exists(), "Open vSwitch is not there: run tools/ovs.sh");
    root
}

impl Ovs {
    /// Starts a switch without bridges in `netns`.
    #[track_caller]
    pub(crate) fn start(netns: &Netns) -> Self {
        let (dir, root) = (TempDir::new(), root());
        let path = |name: &str| dir.path().join(name);
        let schema = root.join("usr/share/openvswitch/vswitch.ovsschema");
        run(Command::new(root.join("usr/bin/ovsdb-tool")).arg("create").arg(path("db")).arg(schema));
        let socket = path("db.sock");
        let start = |program: &str, log: &str, arguments: &[String]| {
            let log = std::fs::File::create(path(log)).unwrap();
            let mut command = dies_with_us(Some(netns.name()), root.join(program));
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, dir.path());
            }
            command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            Background(command.spawn().unwrap())
        };
        let remote = format!("--remote=punix:{}", socket.display());
        let database = start("usr/sbin/ovsdb-server", "ovsdb", &[remote, path("db").display().to_string()]);
        wait_until("Open vSwitch's database listens", PATIENCE, || socket.exists());
        let switch = start(
            "usr/lib/openvswitch-switch/ovs-vswitchd",
            "vswitchd",
            &[format!("unix:{}", socket.display())],
        );
        let ovs = Self { _switch: switch, _database: database, dir, netns: netns.name().to_owned() };
        ovs.vsctl("--no-wait init");
        ovs
    }

    /// `ovs-vsctl ARGUMENT...`, the arguments separated by blanks; waits until the switch has done it.
    #[track_caller]
    pub(crate) fn vsctl(&self, arguments: &str) -> String {
        let database = format!("--db=unix:{}", self.dir.path().join("db.sock").display());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).arg(root().join("usr/bin/ovs-vsctl"));
        run(command.args([&database, "--timeout=20"]).args(arguments.split_whitespace()))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("vswitchd")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- log of Open vSwitch");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
            eprintln!("---");
        }
    }
}
