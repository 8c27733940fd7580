//! What the segment shows, for Prometheus: its text format over HTTP.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `wharf_interface_rx_packets_total`, `..._bytes_total`, and `tx` likewise | `interface` | received and sent |
//! | `wharf_interface_NAME_total`: `drops`, `punt`, `ip4`, `rx_no_buf`, `rx_miss`, `rx_error`, `tx_error` | `interface` | packets |
//! | `wharf_node_calls_total`, `vectors`, `clocks`, `suspends` | `node` | what a node did |
//! | `wharf_errors_total` | `node`, `reason` | why packets were dropped, and what else nodes count |
//! | `wharf_buffers` | `pool`, `state` | buffers `cached`, `used`, `available` |
//! | `wharf_boottime` | | when the daemon started, seconds since 1970 |
//! | `wharf_heartbeat` | | grows each second while the daemon lives |
//! | `wharf_input_rate` | | packets received a second |
//! | `wharf_vector_rate` | | packets that a node processes at a time |
//! | `wharf_num_worker_threads` | | workers |
//! | `wharf_last_update`, `wharf_last_stats_clear` | | as in VPP |
//!
//! Counters are sums over all threads since the start: `clear` commands don't touch them.

use super::{ABSENT, UNCOUNTED};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use wharf_engine::stats::{Stats, Value};

/// The longest request that is read.
const MAX_REQUEST: usize = 8192;
/// How long a client may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(5);
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The endpoint: a thread of its own, which asks nothing of main or the workers.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prometheus {
    /// Listens at a TCP address; port 0 lets the system choose.
    pub fn start(address: SocketAddr, stats: Arc<Stats>) -> io::Result<Prometheus> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("prometheus".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) if !stop.load(Ordering::Relaxed) => {
                        if let Err(error) = serve(client, &stats) {
                            tracing::debug!("Prometheus: {error}");
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!("Prometheus: {error}");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        })?;
        Ok(Prometheus { address, stopping, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut client: TcpStream, stats: &Stats) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = client.read(&mut chunk)?;
        if len == 0 || request.len() + len > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        request.extend_from_slice(chunk.get(..len).unwrap_or_default());
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (status, body) = match line {
        b"GET /metrics HTTP/1.1" | b"GET /metrics HTTP/1.0" => ("200 OK", metrics(stats)),
        _ => ("404 Not Found", "try GET /metrics\n".to_owned()),
    };
    let header = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(header.as_bytes())?;
    client.write_all(body.as_bytes())
}

/// As a label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn total(threads: &[Vec<u64>], number: usize) -> u64 {
    threads.iter().filter_map(|row| row.get(number)).fold(0, |sum, n| sum.wrapping_add(*n))
}

fn interface_help(counter: &str) -> &'static str {
    match counter {
        "drops" => "Packets received there that were dropped.",
        "punt" => "Packets received there that went to the host.",
        "ip4" => "IPv4 packets received there.",
        "rx-no-buf" => "Packets not received for want of a buffer.",
        "rx-miss" => "Packets that the device lost.",
        "rx-error" => "Packets that the driver refused.",
        "tx-error" => "Packets not sent.",
        _ => "Packets.",
    }
}

fn node_help(counter: &str) -> &'static str {
    match counter {
        "calls" => "Times that the node ran.",
        "vectors" => "Packets that the node processed.",
        "clocks" => "Clock ticks that the node took.",
        _ => "Times that the node waited.",
    }
}

fn sys_help(gauge: &str) -> &'static str {
    match gauge {
        "boottime" => "When the daemon started, in seconds since 1970.",
        "heartbeat" => "Grows each second while the daemon lives.",
        "input_rate" => "Packets received a second.",
        "last_stats_clear" => "When counters were cleared: never.",
        "last_update" => "When these numbers were set, in seconds since the start.",
        "num_worker_threads" => "Workers.",
        "vector_rate" => "Packets that a node processes at a time, on average.",
        _ => "A number of the daemon.",
    }
}

/// All metrics, in the text format.
pub fn metrics(stats: &Stats) -> String {
    let entries = stats.read();
    let names = |of: &str| match entries.iter().find(|(name, _)| name == of) {
        Some((_, Value::Names(names))) => names.clone(),
        _ => Vec::new(),
    };
    let (interfaces, nodes) = (names("/if/names"), names("/sys/node/names"));
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, u64)>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let table = |label: &str, names: &[Option<String>], threads: &[Vec<u64>], width: usize, at: usize| {
        let named = names.iter().enumerate().filter_map(|(i, name)| name.as_ref().map(|name| (i, name)));
        let sample = |(i, name): (usize, &String)| {
            (format!("{{{label}=\"{}\"}}", escape(name)), total(threads, i * width + at))
        };
        named.map(sample).collect::<Vec<_>>()
    };
    let mut errors = Vec::new();
    let mut buffers = Vec::new();
    for (name, value) in &entries {
        let parts: Vec<&str> = name.split('/').skip(1).collect();
        match (parts.as_slice(), value) {
            // What VPP's clients look for, and nothing counts.
            (["if", counter], _) if ABSENT.contains(counter) || UNCOUNTED.contains(counter) => {}
            (["if", counter], Value::Combined(threads)) => {
                let did = if *counter == "rx" { "received from" } else { "sent to" };
                for (at, what) in [(0, "packets"), (1, "bytes")] {
                    let samples = table("interface", &interfaces, threads, 2, at);
                    let name = format!("wharf_interface_{counter}_{what}_total");
                    let help = format!("{} {did} the interface.", if at == 0 { "Packets" } else { "Bytes" });
                    family(&name, "counter", &help, samples);
                }
            }
            (["if", counter], Value::Simple(threads)) => {
                let samples = table("interface", &interfaces, threads, 1, 0);
                let name = format!("wharf_interface_{}_total", counter.replace('-', "_"));
                family(&name, "counter", interface_help(counter), samples);
            }
            (["sys", "node", counter], Value::Simple(threads)) => {
                let samples = table("node", &nodes, threads, 1, 0);
                family(&format!("wharf_node_{counter}_total"), "counter", node_help(counter), samples);
            }
            (["err", node, ..], Value::Element(count)) => {
                let reason = parts.get(2..).unwrap_or_default().join("/");
                let labels = format!("{{node=\"{}\",reason=\"{}\"}}", escape(node), escape(&reason));
                errors.push((labels, *count));
            }
            (["buffer-pools", pool, state], Value::Gauge(count)) => {
                buffers.push((format!("{{pool=\"{}\",state=\"{state}\"}}", escape(pool)), *count));
            }
            (["sys", gauge], Value::Gauge(value)) => {
                family(&format!("wharf_{gauge}"), "gauge", sys_help(gauge), vec![(String::new(), *value)]);
            }
            _ => {}
        }
    }
    family("wharf_errors_total", "counter", "Packets that nodes dropped, and what else they count.", errors);
    family("wharf_buffers", "gauge", "Buffers of packets.", buffers);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_engine::stats::Table;

    #[test]
    fn every_kind_of_entry_becomes_a_metric() {
        let stats = Stats::new(1 << 20).unwrap();
        let rx = Table::new(stats.segment(), 1, 4, 2).unwrap();
        rx.grow(2);
        stats.table("/if/rx", &rx);
        rx.row(0)[2].store(3, Ordering::Relaxed);
        rx.row(1)[2].store(4, Ordering::Relaxed);
        rx.row(1)[3].store(400, Ordering::Relaxed);
        let errors = Table::new(stats.segment(), 1, 4, 1).unwrap();
        errors.grow(1);
        let entry = stats.table("/node/errors", &errors).unwrap();
        errors.row(1)[0].store(5, Ordering::Relaxed);
        stats.symlink("/err/ip4-input/a \"reason\"", entry, 0);
        let names = stats.names("/if/names", 4).unwrap();
        stats.set_name(&names, 1, Some("pg0"));
        stats.set(stats.gauge("/sys/heartbeat").unwrap(), 9);
        stats.set(stats.gauge("/buffer-pools/x/used").unwrap(), 11);
        let text = metrics(&stats);
        for line in [
            "# TYPE wharf_interface_rx_packets_total counter",
            "wharf_interface_rx_packets_total{interface=\"pg0\"} 7",
            "wharf_interface_rx_bytes_total{interface=\"pg0\"} 400",
            "wharf_errors_total{node=\"ip4-input\",reason=\"a \\\"reason\\\"\"} 5",
            "wharf_buffers{pool=\"x\",state=\"used\"} 11",
            "wharf_heartbeat 9",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
