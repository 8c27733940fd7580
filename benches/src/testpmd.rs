//! dpdk-testpmd with two memif ports in server role, one forwarding core, no huge pages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{Program, WorkDir, find, target_dir};

const NAME: &str = "dpdk-testpmd";

/// Where it is: as told, else where `make` puts it, else in PATH.
pub(crate) fn locate(told: Option<&Path>) -> Result<PathBuf> {
    if let Some(told) = told {
        return if told.is_file() { Ok(told.into()) } else { Err(format!("there is no {}", told.display())) };
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin");
    find(NAME, &[target_dir()?.join("peers/bin"), own])
        .ok_or_else(|| format!("{NAME} is neither in target/peers/bin nor in PATH: `make bench` fetches it"))
}

/// Starts it; `mode` is one of its forwarding modes.
pub(crate) fn start(
    program: &Path,
    mode: &str,
    dut_core: usize,
    load_core: usize,
    dir: &WorkDir,
) -> Result<Program> {
    let port = |n: usize, socket: &Path| {
        format!("--vdev=net_memif{n},role=server,id=0,socket={},socket-abstract=no", socket.display())
    };
    let [first, second] = dir.sockets();
    // Names its files in shared directories.
    let prefix = dir.path().file_name().unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--file-prefix"])
        .arg(prefix)
        .args(["-l", &format!("{dut_core},{load_core}"), "--main-lcore", &load_core.to_string()])
        .args([port(0, &first), port(1, &second)])
        .args(["--", &format!("--forward-mode={mode}"), "--nb-cores=1", "--port-topology=paired"])
        .args(["--no-mlockall", "--total-num-mbufs=16384", "--disable-link-check", "--no-flush-rx"])
        .env("RUNTIME_DIRECTORY", dir.path());
    Program::start(NAME, &mut command, dir)
}
