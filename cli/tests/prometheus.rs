//! A real Prometheus, Debian's, scrapes the metrics.

mod common;

use common::{Daemon, Netns, PATIENCE, run, wait_until};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// `target/peers/prometheus/usr/bin/NAME`, which `tools/unpack.sh` makes.
fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/prometheus/usr/bin").join(name);
    assert!(program.exists(), "{} is not there: run make test-packages", program.display());
    program
}

#[test]
fn a_real_prometheus_scrapes_them_and_its_tool_finds_no_fault() {
    let netns = Netns::new("p");
    let daemon = Daemon::start(Some(&netns), "prometheus { listen 127.0.0.1:9482 }");
    daemon.script(
        "create packet-generator interface pg0
         create memif socket id 1 filename m.sock
         create interface memif id 0 socket-id 1 master
         set interface state pg0 up
         packet-generator new { name x limit 50 size 64-64 interface pg0 data { IP4: 02:00:00:00:00:01 -> 02:00:00:00:00:02 UDP: 10.0.0.1 -> 10.0.0.2 UDP: 1 -> 2 incrementing 22 } }
         packet-generator enable-stream x",
    );
    let config = daemon.file("prometheus.yml");
    let text = "global: { scrape_interval: 1s, scrape_timeout: 1s }
scrape_configs: [ { job_name: wharf, static_configs: [ { targets: [ '127.0.0.1:9482' ] } ] } ]
";
    std::fs::write(&config, text).unwrap();
    let _prometheus = netns.spawn(
        program("prometheus").to_str().unwrap(),
        [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", daemon.file("tsdb").display()),
            "--web.listen-address=127.0.0.1:9090".into(),
        ],
    );
    let ask = |query: &str| {
        let mut promtool = netns.command(program("promtool"));
        common::try_run(promtool.args(["query", "instant", "http://127.0.0.1:9090", query]))
    };
    let says = |query: &str, value: &str| {
        wait_until(query, PATIENCE, || ask(query).is_ok_and(|said| said.contains(&format!("=> {value} @"))));
    };
    says("up{job='wharf'}", "1");
    says("wharf_interface_rx_packets_total{interface='pg0'}", "50");
    says("wharf_interface_rx_bytes_total{interface='pg0'}", "3200");
    says("wharf_errors_total{node='ethernet-input',reason='l3 mac mismatch'}", "50");
    says("wharf_node_vectors_total{node='pg-input'}", "50");
    says("wharf_interface_tx_packets_total{interface='memif1/0'}", "0");
    says("wharf_num_worker_threads", "1");
    says("wharf_buffers{pool='default-numa-0',state='available'} > bool 1000", "1");
    says("wharf_heartbeat > bool 1", "1");

    let get = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9482/metrics').read().decode(), end='')";
    let metrics = run(netns.command("/usr/bin/python3").args(["-c", get]));
    let mut promtool = std::process::Command::new(program("promtool"));
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = promtool.spawn().unwrap();
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let found = check.wait_with_output().unwrap();
    let said = [found.stdout, found.stderr].concat();
    assert!(found.status.success() && said.is_empty(), "{}\n{metrics}", String::from_utf8_lossy(&said));
}
