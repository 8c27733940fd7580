//! Commands about the daemon itself.

use crate::cli::{Args, CliError, Command, Output, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;

pub(super) const COMMANDS: &[Command<Dataplane>] =
    &[Command::show("show version", "[verbose]", "Show the version", show_version)];

#[derive(Serialize)]
struct Version {
    program: &'static str,
    version: &'static str,
    pid: u32,
    uptime_seconds: f64,
}

fn show_version(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let version = Version {
        program: "wharf",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime_seconds: dp.engine.uptime() as f64 / 1e9,
    };
    let verbose = args.flag("verbose");
    out.show(&version, |v, text| {
        let _ = writeln!(text, "{} v{}", v.program, v.version);
        if verbose {
            let _ = writeln!(text, "PID {}\nuptime {:.0} s", v.pid, v.uptime_seconds);
        }
    })
}
