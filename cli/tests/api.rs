//! The binary API over its socket: unmodified vpp_papi and vppcfg, and a client of our own for what those never send.

mod common;

use common::{Client, Daemon, PATIENCE, frame, message, number, run, wait_until};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// `target/papi/bin/NAME`, which `tools/papi.sh` makes.
fn papi(name: &str) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/papi/bin").join(name);
    assert!(program.exists(), "{} is not there: run tools/papi.sh", program.display());
    Command::new(program)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/papi").join(name)
}

#[test]
fn vpp_papi_finds_the_definitions_on_the_socket_and_drives_every_feature() {
    let daemon = Daemon::start(None, "");
    let sockets = [daemon.file("api.sock"), daemon.file("stats.sock")];
    run(papi("python").arg(script("core.py")).args(sockets));
}

#[test]
fn vpp_papi_finds_the_definitions_in_exported_files_and_vppcfg_dumps() {
    let daemon = Daemon::start(None, "");
    let json = daemon.file("json");
    run(Command::new(env!("CARGO_BIN_EXE_wharfctl")).args(["api", "export"]).arg(&json));
    let sockets = [daemon.file("api.sock"), daemon.file("stats.sock")];
    run(papi("python").arg(script("core.py")).args(sockets).arg(&json));

    daemon.script(
        "create loopback interface instance 3
         set interface mtu 1400 loop3
         set interface ip address loop3 192.0.2.1/24
         set interface state loop3 up",
    );
    let dump = run(papi("vppcfg").args(["dump", "-a"]).arg(daemon.file("api.sock")));
    assert!(dump.contains("loop3") && dump.contains("192.0.2.1/24") && dump.contains("1400"), "{dump}");
}

#[test]
fn vpp_papi_drives_access_lists() {
    let daemon = Daemon::start(None, "");
    run(papi("python").arg(script("acl.py")).arg(daemon.file("api.sock")));
    let mut client = Client::connect(&daemon);
    client.request(number(&daemon, "acl_plugin_use_hash_lookup_get"), &[]);
    assert_eq!(client.reply()[2..], [0, 0, 0, 7, 0]);
}

#[test]
fn vpp_papi_reads_the_stats_segment_by_vpps_names() {
    let daemon = Daemon::start(None, "cpu { workers 2 }");
    let sockets = [daemon.file("api.sock"), daemon.file("stats.sock")];
    run(papi("python").arg(script("stats.py")).args(sockets));
}

#[test]
fn vpp_papi_reads_the_packets_of_each_route() {
    let daemon = Daemon::start(None, "cpu { workers 1 } statseg { default per-route-counters on }");
    let sockets = [daemon.file("api.sock"), daemon.file("stats.sock")];
    run(papi("python").arg(script("route_counters.py")).args(sockets));
}

#[test]
fn what_vpps_test_tools_do_all_the_time_works() {
    // The daemon's arguments are theirs too.
    let words = "api-trace { on } api-segment { prefix x } cpu { workers 1 } physmem { max-size 32m } node { default { } } \
                 api-fuzz { off } plugins { plugin dpdk_plugin.so { disable } }";
    let daemon = Daemon::start(None, words);
    let name = common::unique();
    let said = run(papi("python")
        .arg(script("routine.py"))
        .arg(daemon.file("api.sock"))
        .arg(daemon.dir())
        .arg(&name));
    std::fs::remove_file(std::env::temp_dir().join(&name)).unwrap();
    // The same over the other socket.
    for line in said.lines() {
        daemon.ctl(line).unwrap();
    }
    std::fs::remove_file(std::env::temp_dir().join(&name)).unwrap();
}

#[test]
fn requests_are_traced_and_saved_under_a_name() {
    let daemon = Daemon::start(None, "api-trace { on }");
    let mut client = Client::connect(&daemon);
    client.request(23, &[]);
    client.reply();
    let name = common::unique();
    let said = daemon.ctl(&format!("api trace save {name}")).unwrap();
    let path = std::env::temp_dir().join(&name);
    let saved = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(said.contains(&name) && saved.windows(12).any(|w| w == b"control_ping"));
    let dump = daemon.ctl("api trace dump").unwrap();
    assert!(dump.contains("sockclnt_create:\n  name: test\n") && dump.contains("control_ping:\n"), "{dump}");
    assert!(daemon.ctl("api trace save ../x").is_err());
}

#[test]
fn prometheus_gets_what_was_counted() {
    let daemon = Daemon::start(None, "prometheus { listen 127.0.0.1:0 }");
    // It is logged a little later than the command line answers.
    wait_until("metrics", PATIENCE, || daemon.log().contains("/metrics\n"));
    let log = daemon.log();
    let address = log.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect(&log).to_owned();
    daemon.script(
        "create packet-generator interface pg0
         set interface state pg0 up
         packet-generator new { name x limit 50 size 64-64 interface pg0 data { IP4: 02:00:00:00:00:01 -> 02:00:00:00:00:02 UDP: 10.0.0.1 -> 10.0.0.2 UDP: 1 -> 2 incrementing 22 } }
         packet-generator enable-stream x",
    );
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let line = "wharf_interface_rx_packets_total{interface=\"pg0\"} 50";
    wait_until(line, PATIENCE, || get("/metrics").lines().any(|l| l == line));
    let answer = get("/metrics");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n")
            && answer.contains("wharf_errors_total{node=\"ethernet-input\"")
    );
    assert!(get("/other").starts_with("HTTP/1.1 404 "));
}

#[test]
fn frames_may_come_in_pieces_or_together_and_answers_come_in_order() {
    let daemon = Daemon::start(None, "");
    let mut client = Client::connect(&daemon);
    let mut bytes = Vec::new();
    for context in 0..100u32 {
        bytes.extend(frame(&message(23, context, &[])));
        // A command runs elsewhere: what comes behind it waits all the same.
        let command = [&12u32.to_be_bytes()[..], b"show version"].concat();
        bytes.extend(frame(&message(number(&daemon, "cli_inband"), 1000 + context, &command)));
        if context == 4 {
            break;
        }
    }
    let (pieces, together) = bytes.split_at(bytes.len() / 2);
    for piece in pieces.chunks(3) {
        client.send(piece);
    }
    client.send(together);
    for context in 0..5u32 {
        for wanted in [context, 1000 + context] {
            let reply = client.reply();
            assert_eq!(u32::from_be_bytes(reply[2..6].try_into().unwrap()), wanted);
        }
    }
}

#[test]
fn lies_close_the_liar_and_nobody_else() {
    let daemon = Daemon::start(None, "");
    let mut honest = Client::connect(&daemon);
    let lie = |length: u32| {
        let mut lie = frame(&[0, 23]);
        lie[8..12].copy_from_slice(&length.to_be_bytes());
        lie
    };
    let lies = [
        lie(0),
        lie(1),
        lie(u32::MAX),
        lie((1 << 20) + 1),
        frame(&[0, 0]),
        frame(&[0xff, 0xff, 0, 0]),
        // Too short for its fields; a reply; a command longer than its message; a reply's number.
        frame(&message(23, 0, &[])[..7]),
        frame(&message(24, 0, &[0; 16])),
        frame(&message(number(&daemon, "cli_inband"), 0, &u32::MAX.to_be_bytes())),
        frame(&message(8, 0, &[0xff; 15])),
    ];
    for (i, lie) in lies.iter().enumerate() {
        let mut liar = Client::connect(&daemon);
        liar.send(lie);
        assert!(liar.is_closed(), "lie {i}");
        honest.request(23, &[]);
        assert_eq!(honest.reply()[..2], [0, 24]);
    }
}

#[test]
fn one_who_does_not_read_a_large_dump_holds_nobody_up() {
    let daemon = Daemon::start(None, "");
    daemon.script("create loopback interface\nset interface ip address loop0 10.0.0.1/24\nip route add count 50000 11.0.0.0/24 via drop");
    let dump = number(&daemon, "ip_route_dump");
    let mut slow = Client::connect(&daemon);
    let table = [0; 4 + 1 + 64];
    slow.request(dump, &table);
    slow.request(23, &[]);
    let mut quick = Client::connect(&daemon);
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        let start = Instant::now();
        quick.request(23, &[]);
        quick.reply();
        worst = worst.max(start.elapsed());
    }
    // 10 ms are promised on a machine that is not shared.
    assert!(worst < Duration::from_millis(500), "{worst:?}");
    let mut routes = 0;
    while slow.reply()[..2] != [0, 24] {
        routes += 1;
    }
    assert!(routes >= 50_002, "{routes}");
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_are_given_back() {
    let daemon = Daemon::start(None, "");
    let many: Vec<Client> = (0..256).map(|_| Client::connect(&daemon)).collect();
    assert!(Client::new(&daemon).is_closed());
    drop(many);
    wait_until("a place", PATIENCE, || {
        let mut client = Client::new(&daemon);
        let _ = client.stream.write_all(&frame(&message(23, 0, &[])));
        client.try_reply().is_ok()
    });
}

#[test]
fn whoever_asks_is_told_what_happens_to_interfaces() {
    let daemon = Daemon::start(None, "");
    let mut client = Client::connect(&daemon);
    let want = number(&daemon, "want_interface_events");
    client.request(want, &[0, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(client.reply()[6..10], [0; 4]);
    let event = number(&daemon, "sw_interface_event").to_be_bytes();
    let mut expect = |flags: u8, deleted: u8| {
        let reply = client.reply();
        assert_eq!(reply[..2], event);
        assert_eq!(reply[6..], [0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, flags, deleted]);
    };
    daemon.script("create loopback interface");
    expect(0, 0);
    daemon.script("set interface state loop0 up");
    expect(3, 0);
    daemon.script("delete loopback interface intfc loop0");
    expect(0, 1);
}
