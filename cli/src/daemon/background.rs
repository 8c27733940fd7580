//! Running in the background, as VPP does unless `nodaemon` is said: the process starts itself again, detached, and
//! waits until that one answers.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MARK: &str = "WHARF_BACKGROUND";

/// Whether this is the detached process.
pub(super) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the detached process, and returns when its CLI answers or it has failed.
pub(super) fn start(args: &[String], socket: &Path) -> super::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Err(format!("it did not start: {status}").into());
        }
        if UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("it does not answer on {}", socket.display()).into())
}
