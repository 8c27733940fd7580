//! Unmodified vppcfg plans and applies configurations, `vppcfg/*.yaml`, and finds nothing left to do.

mod common;

use common::{Daemon, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon with the interfaces that the configurations start from, which vppcfg does not make.
fn start() -> Daemon {
    let daemon = Daemon::start(None, "");
    for port in 0..5 {
        daemon.script(&format!("create packet-generator interface pg{port}"));
    }
    daemon
}

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vppcfg").join(name)
}

/// `target/papi/bin/vppcfg`, which `tools/papi.sh` makes.
fn vppcfg() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/papi/bin/vppcfg");
    assert!(program.exists(), "{} is not there: run tools/papi.sh", program.display());
    program
}

/// The commands that would make a configuration so, as a file of the daemon's.
#[track_caller]
fn plan(daemon: &Daemon, config: &Path) -> (PathBuf, String) {
    let file = daemon.file("plan.cli");
    let mut command = Command::new(vppcfg());
    command.args(["-q", "plan", "-c"]).arg(config).arg("-a").arg(daemon.file("api.sock"));
    run(command.arg("-o").arg(&file));
    let text = std::fs::read_to_string(&file).unwrap();
    (file, text)
}

#[track_caller]
fn nothing_to_do(daemon: &Daemon, config: &Path) {
    let (_, left) = plan(daemon, config);
    assert_eq!(left, "", "{}", config.display());
}

#[test]
fn what_it_plans_can_be_executed_there_and_back() {
    let daemon = start();
    for name in ["one.yaml", "two.yaml", "one.yaml", "none.yaml"] {
        let config = config(name);
        run(Command::new(vppcfg()).args(["check", "-c"]).arg(&config));
        let (file, text) = plan(&daemon, &config);
        assert!(text.lines().count() > 10, "{text}");
        daemon.ctl(&format!("exec {}", file.display())).unwrap();
        nothing_to_do(&daemon, &config);
        let addresses = daemon.ctl("show interface address").unwrap();
        match name {
            "one.yaml" => {
                let bridges = daemon.json("show bridge-domain 10 detail");
                let bridge = &bridges[0];
                assert!(bridge["mac_age"] == 10 && bridge["arp_term"] == true, "{bridge}");
                assert!(bridge["bvi"] == "loop1" && bridge["uu_flood"] == "drop", "{bridge}");
                let ports = bridge["ports"].as_array().unwrap();
                let dot1ad = ports.iter().find(|p| p["interface"] == "pg1.20").unwrap();
                assert_eq!(dot1ad["tag_rewrite"], "pop-1");
                assert!(addresses.contains("pg0.200 (up):\n  L3 203.0.113.1/24\n"), "{addresses}");
                assert!(addresses.contains("pg2 (up):\n  L2 xconnect pg3\n"), "{addresses}");
            }
            "two.yaml" => {
                assert!(addresses.contains("pg2 (up):\n  L2 xconnect pg4\n"), "{addresses}");
                assert_eq!(daemon.json("show interface pg3")[0]["mtu"], 1600);
                assert_eq!(daemon.json("show interface pg0")[0]["mac"], "02:00:00:00:01:00");
            }
            _ => assert_eq!(daemon.json("show interface").as_array().unwrap().len(), 6, "local0 and pg0..4"),
        }
    }
}

#[test]
fn what_it_dumps_is_what_is_there() {
    let daemon = start();
    let (file, _) = plan(&daemon, &config("one.yaml"));
    daemon.ctl(&format!("exec {}", file.display())).unwrap();
    let dump = daemon.file("dump.yaml");
    run(Command::new(vppcfg()).args(["dump", "-a"]).arg(daemon.file("api.sock")).arg("-o").arg(&dump));
    run(Command::new(vppcfg()).args(["check", "-c"]).arg(&dump));
    nothing_to_do(&daemon, &dump);
}

/// This version of vppcfg applies at `/run/vpp/api.sock` whatever it is told: a mount namespace has the daemon's socket there.
#[test]
fn it_applies_by_itself() {
    let daemon = start();
    for name in ["one.yaml", "two.yaml", "none.yaml"] {
        let config = config(name);
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/vpp && ln -s \"$2\" /run/vpp/api.sock && \
                      exec \"$0\" -q apply -c \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(vppcfg()).arg(&config);
        run(command.arg(daemon.file("api.sock")));
        nothing_to_do(&daemon, &config);
    }
}
