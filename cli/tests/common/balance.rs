//! What must hold after every test: no packet is lost sight of, and no buffer.

use std::time::Duration;

use super::{Daemon, wait_until};

/// Waits until nothing is under way: what was received or made is sent, dropped, punted or held, and no buffer is in
/// the graph.
#[track_caller]
pub(crate) fn settled(daemon: &Daemon) {
    let (mut packets, mut buffers) = Default::default();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("nothing is in flight", Duration::from_secs(10), || {
            packets = daemon.json("show packets");
            buffers = daemon.json("show buffers");
            // Free, in the graph, with devices; the census is there in builds with checks.
            let in_graph = buffers["owners"][1].as_u64();
            let held = packets["held"].as_u64();
            packets["in_flight"] == 0 && (in_graph.is_none() || in_graph == held)
        });
    }));
    assert!(done.is_ok(), "packets {packets}\nbuffers {buffers}");
}

/// The counter of an interface, such as `rx packets` or `drops`; 0 if it has not counted.
#[track_caller]
pub(crate) fn counter(daemon: &Daemon, interface: &str, name: &str) -> u64 {
    let rows = daemon.json(&format!("show interface {interface}"));
    let counters = rows[0]["counters"].as_array().into_iter().flatten();
    counters.filter(|c| c[0] == name).filter_map(|c| c[1].as_u64()).sum()
}

/// `up` or `down`.
#[track_caller]
pub(crate) fn link(daemon: &Daemon, interface: &str) -> String {
    daemon.json(&format!("show interface {interface}"))[0]["link"].as_str().unwrap_or_default().to_owned()
}

/// How often a node counted an error, such as `ip4-rewrite` its `ip4 ttl <= 1`.
#[track_caller]
pub(crate) fn error(daemon: &Daemon, node: &str, reason: &str) -> u64 {
    let rows = daemon.json("show errors verbose");
    let row =
        rows.as_array().and_then(|rows| rows.iter().find(|r| r["node"] == node && r["reason"] == reason));
    row.unwrap_or_else(|| panic!("{node} has no error `{reason}'"))["count"].as_u64().unwrap_or(0)
}
