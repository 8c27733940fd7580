//! Commands about the daemon itself.

use crate::cli::{Args, CliError, Command, Output, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::show("show version", "[verbose]", "Show the version", show_version),
    Command::show("show clock", "", "Show the time since the start, and the time of day", show_clock),
    Command::show("show log", "", "Show the last lines of the log", show_log),
    Command::show("show logging", "", "Show the last lines of the log", show_log),
    Command::new("clear logging", "", "Forget the last lines of the log", clear_log),
    Command::show(
        "show memory",
        "[main-heap|api-segment|stats-segment|numa-heaps|map] [verbose]",
        "Show memory by what it is used for, whichever part of VPP's is asked for",
        show_memory,
    ),
    Command::show("show plugins", "", "Show what is built in", show_plugins),
    Command::show("show bihash", "", "Show the hash tables", show_bihash),
];

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

#[derive(Serialize)]
struct Clock {
    uptime_seconds: f64,
    unix_seconds: f64,
}

fn show_clock(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let clock = Clock { uptime_seconds: dp.engine.uptime() as f64 / 1e9, unix_seconds };
    out.show(&clock, |clock, text| {
        let _ = writeln!(text, "Time now {:.6}, {:.6}", clock.uptime_seconds, clock.unix_seconds);
    })
}

#[derive(Serialize)]
struct LogRow {
    unix_seconds: f64,
    level: String,
    class: String,
    text: String,
}

fn show_log(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |line: crate::log::LogLine| LogRow {
        unix_seconds: line.time,
        level: line.level.to_string().to_lowercase(),
        class: line.class,
        text: line.text,
    };
    let rows: Vec<LogRow> = dp.log.lines().into_iter().map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "{:.6} {:<8} {:<10} {}", row.unix_seconds, row.level, row.class, row.text);
        }
    })
}

fn clear_log(dp: &mut Dataplane, _: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    dp.log.clear();
    Ok(())
}

#[derive(Serialize)]
struct MemoryRow {
    what: &'static str,
    bytes: u64,
}

fn show_memory(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let pool = u64::from(dp.engine.pool().stats().total) * dp.engine.pool().memory().stride() as u64;
    let (mut compiled, mut routes) = (0, 0);
    for fib in dp.fibs.values() {
        let (table, rib) = fib.memory_bytes();
        compiled += table as u64;
        routes += rib as u64;
    }
    // In pages: the second number of the line is what is resident.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = statm.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let rows = [
        MemoryRow { what: "buffers", bytes: pool },
        MemoryRow { what: "IPv4 tables, compiled", bytes: compiled },
        MemoryRow { what: "IPv4 routes", bytes: routes },
        MemoryRow { what: "MAC table", bytes: dp.mac_summary().map_or(0, |table| table.memory as u64) },
        MemoryRow { what: "resident in all", bytes: resident * rustix::param::page_size() as u64 },
    ];
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "{:<24}{:>16}", row.what, row.bytes);
        }
    })
}

/// Nothing is loaded: what VPP has as plugins is built in.
const BUILT_IN: &[(&str, &str)] = &[
    ("acl", "Access Control Lists"),
    ("af_xdp", "AF_XDP interfaces"),
    ("memif", "Packet memory interfaces"),
    ("ping", "Ping"),
    ("tracedump", "Packet traces over the API"),
    ("vxlan", "VXLAN tunnels"),
];

#[derive(Serialize)]
struct PluginRow {
    name: &'static str,
    version: &'static str,
    description: &'static str,
}

fn show_plugins(_: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |(name, description): &(&'static str, &'static str)| PluginRow {
        name,
        version: env!("CARGO_PKG_VERSION"),
        description,
    };
    let rows: Vec<PluginRow> = BUILT_IN.iter().map(row).collect();
    out.show(&rows, |rows, text| {
        let _ = writeln!(text, "     {:<41}{:<33}Description", "Plugin", "Version");
        for (number, row) in rows.iter().enumerate() {
            let name = format!("{}_plugin.so", row.name);
            let _ = writeln!(text, "{:>3}. {name:<41}{:<33}{}", number + 1, row.version, row.description);
        }
    })
}

#[derive(Serialize)]
struct TableRow {
    name: &'static str,
    entries: u64,
}

fn show_bihash(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows = [
        TableRow { name: "l2fib mac table", entries: dp.mac_summary().map_or(0, |table| table.total.into()) },
        TableRow { name: "vxlan4 decap", entries: dp.vxlan.list.len() as u64 },
    ];
    out.show(&rows, |rows, text| {
        let _ = writeln!(text, "{:<30}{:>12}", "Name", "Entries");
        for row in rows {
            let _ = writeln!(text, "{:<30}{:>12}", row.name, row.entries);
        }
    })
}
