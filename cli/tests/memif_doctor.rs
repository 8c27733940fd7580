//! `wharfctl memif doctor` against the ills that it knows.

mod common;

use std::process::Command;

use common::{Daemon, attach};

/// What it says, and whether it finds all well.
fn doctor(words: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharfctl"));
    let output = command.args(["memif", "doctor"]).args(words.split_whitespace()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(output.status.code().is_some_and(|code| code < 2), "{text}");
    (output.status.success(), text)
}

#[track_caller]
fn ill(words: &str, what: &str, says: &str) {
    let (healthy, text) = doctor(words);
    assert!(!healthy && text.contains(&format!("BAD  {what}: ")) && text.contains(says), "{words}: {text}");
    let (_, json) = doctor(&format!("{words} --json"));
    let findings: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    let last = findings.as_array().unwrap().last().unwrap();
    assert_eq!((last["what"].as_str(), last["good"].as_bool()), (Some(what), Some(false)), "{json}");
}

#[test]
fn every_ill() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let path = daemon.file("m.sock");
    let socket = path.display().to_string();
    ill("/nowhere/m.sock", "directory", "mounted into this container");
    ill(&socket, "socket", "role master");
    std::fs::write(&path, "").unwrap();
    ill(&socket, "socket", "is not a socket");
    std::fs::remove_file(&path).unwrap();
    ill(&daemon.file("cli.sock").display().to_string(), "connect", "not a memif socket");
    ill("@nobody-listens-here", "connect", "network namespace");

    daemon.script(&format!("create memif socket id 1 filename {socket}"));
    daemon.script("create interface memif id 0 socket-id 1 master");
    daemon.script("create interface memif id 1 socket-id 1 master secret word");
    daemon.script("create interface memif id 2 socket-id 1 master mode ip");
    let (healthy, text) = doctor(&socket);
    assert!(healthy && text.contains("memif1/0") && text.contains("\"wharf\" speaks 2.0"), "{text}");
    assert!(doctor(&format!("{socket} id 2 mode ip")).0);
    assert!(doctor(&format!("{socket} id 1 secret word rx-queues 4 tx-queues 4 ring-size 64")).0);

    ill(&format!("{socket} id 9"), "id", "no interface with id 9");
    ill(&format!("{socket} id 1"), "secret", "has a secret");
    ill(&format!("{socket} id 2"), "mode", "mode ip");
    ill(&format!("{socket} mode ip"), "mode", "mode ethernet");
    ill(&format!("{socket} ring-size 16384 buffer-size 2048"), "region", "the limit is 67108864");
    ill(&format!("{socket} rx-queues 200 ring-size 1"), "ring", "fewer queues");
    ill(&format!("{socket} rx-queues 0"), "connect", "1 to 255");
    // Somebody who may not write to the socket; the program where he may read it.
    let program = daemon.file("wharfctl");
    std::fs::copy(env!("CARGO_BIN_EXE_wharfctl"), &program).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
    let output = nobody.args(["memif", "doctor", &socket]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("BAD  connect: ") && text.contains("user 65534, group 65534 needs w"), "{text}");
    let link = attach(&path, 0, |_| ());
    ill(&socket, "id", "has its client already");
    drop(link);
    // A wrong secret is not to be tried again at once.
    let (_, text) = doctor(&format!("{socket} id 1 secret wrong"));
    assert!(text.contains("BAD  secret: ") && text.contains("Not the interface's secret"), "{text}");
    let (_, text) = doctor(&format!("{socket} id 1 secret word"));
    assert!(text.contains("BAD  secret: ") && text.contains("Wait a second"), "{text}");

    // A slave does not listen; a stale file is no listener.
    daemon.script(
        "delete interface memif memif1/0\ndelete interface memif memif1/1\ndelete interface memif memif1/2",
    );
    let stale = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(stale);
    ill(&socket, "connect", "nobody listens");
}
