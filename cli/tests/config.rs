//! The configuration as a document: shown, applied, saved, started from, and there again after SIGKILL.

mod common;

use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Client, Daemon, Netns, PATIENCE, TempDir, Veth, counter, number, settled, wait_until};

/// A router between pg0 and pg1, with a host behind pg1.
const ROUTER: &str = r#"
[interface.pg0]
type.pg = {}
up = true
mac = "02:fe:00:00:00:01"
addresses = ["10.0.1.1/24"]

[interface.pg1]
type.pg = {}
up = true
mac = "02:fe:00:00:00:02"
addresses = ["10.0.2.1/24"]

[neighbor.pg1]
"10.0.2.2" = "02:00:00:00:00:22"
"#;

const ROUTE: &str = "[route.0]\n\"192.0.2.0/24\" = \"via 10.0.2.2 pg1\"\n";

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_file_is_compared_applied_and_written() {
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    assert_eq!(daemon.script("config show"), "");
    let file = write(&daemon.file("wanted.toml"), &format!("{ROUTER}{ROUTE}"));
    let diff = daemon.script(&format!("config diff {file}"));
    assert!(diff.contains("+ create packet-generator interface pg0\n"), "{diff}");
    assert!(diff.contains("+ ip route add 192.0.2.0/24 via 10.0.2.2 pg1\n"), "{diff}");
    let rows = daemon.json(&format!("config diff {file}"));
    assert_eq!(rows.as_array().unwrap().len(), diff.lines().count());
    assert_eq!(
        (&rows[0]["sign"], &rows[0]["change"]),
        (&"+".into(), &"create packet-generator interface pg0".into())
    );
    assert_eq!(daemon.script("config show"), "", "a diff changes nothing");

    let said = daemon.script(&format!("config apply {file}"));
    assert_eq!(said, format!("{} changes\n", diff.lines().count()));
    assert_eq!(daemon.script(&format!("config diff {file}")), "");
    assert_eq!(daemon.script(&format!("config apply {file}")), "no change\n");
    assert!(daemon.script("show ip fib 192.0.2.1/32").contains("10.0.2.2"));

    // What is shown can be applied, as TOML and as JSON, from a file and inline.
    let shown = write(&daemon.file("shown.toml"), &daemon.script("config show"));
    assert_eq!(daemon.script(&format!("config apply {shown}")), "no change\n");
    let json = write(&daemon.file("shown.json"), &daemon.json("config show").to_string());
    assert_eq!(daemon.script(&format!("config apply {json}")), "no change\n");
    assert_eq!(daemon.script("config diff { acl.0.rules = [\"ipv4 permit\"] }").matches("+ ").count(), 1);

    // Into a file of ours, for us alone.
    let saved = daemon.file("saved.toml");
    daemon.script(&format!("config save {}", saved.display()));
    assert_eq!(fs::read_to_string(&saved).unwrap(), daemon.script("config show"));
    assert_eq!(fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(daemon.ctl("config save").unwrap_err().contains("name a file"));

    // What can't be says where, and changes nothing.
    let before = daemon.script("config show");
    for (text, wanted) in [
        ("[interface.pg0]\ntype.pg = {}\nmtu = \"x\"\n", "interface.pg0.mtu: invalid type: string \"x\""),
        (
            &format!("{ROUTER}{ROUTE}\"192.0.3.0/24\" = \"via 10.0.2.2 pg9\"\n"),
            "route.0.192.0.3.0/24: there is no interface `pg9'",
        ),
        (
            &format!("{ROUTER}\n[interface.loop0]\ntype = \"loopback\"\naddresses = [\"10.0.1.7/24\"]\n"),
            "is in conflict with 10.0.1.1/24 of pg0; nothing was changed",
        ),
    ] {
        let file = write(&daemon.file("bad.toml"), text);
        let error = daemon.ctl(&format!("config apply {file}")).unwrap_err();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(daemon.script("config show"), before);
    }
    assert!(daemon.ctl("config apply /nonexistent").unwrap_err().contains("/nonexistent: No such file"));
}

/// Thousands of routes, interfaces and lists come and go beside a flow, which loses nothing.
#[test]
fn a_flow_that_does_not_change_loses_nothing() {
    const PACKETS: u64 = 60_000;
    let daemon = Daemon::start(None, "cpu { workers 1 }");
    let plain = write(&daemon.file("plain.toml"), &format!("{ROUTER}{ROUTE}"));
    let mut much = format!("{ROUTER}{ROUTE}");
    for n in 0..3000 {
        let _ =
            writeln!(much, "\"10.{}.{}.0/24\" = \"via 10.0.2.{} pg1\"", 16 + n / 256, n % 256, 10 + n % 200);
    }
    for n in 0..40 {
        let _ = writeln!(
            much,
            "[interface.loop{n}]\ntype = \"loopback\"\nup = true\naddresses = [\"172.16.{n}.1/24\"]\nacl-input = [{n}]\n\
             [acl.{n}]\nrules = [\"ipv4 permit dst 10.{n}.0.0/16\", \"ipv4 deny\"]"
        );
    }
    let much = write(&daemon.file("much.toml"), &much);
    daemon.script(&format!("config apply {plain}"));
    daemon.script(&format!(
        "packet-generator new {{ name x limit {PACKETS} rate 20000 size 64-64 interface pg0 \
         data {{ IP4: 02:00:00:00:00:11 -> 02:fe:00:00:00:01 UDP: 10.0.1.2 -> 192.0.2.1 UDP: 1 -> 2 incrementing 22 }} }}
         packet-generator enable-stream x"
    ));
    let done = || daemon.json("show packet-generator")[0][0]["done"] == true;
    let mut rounds = 0;
    while !done() {
        daemon.script(&format!("config apply {much}\nconfig apply {plain}"));
        rounds += 1;
    }
    eprintln!("{rounds} rounds");
    wait_until("the stream is done", PATIENCE, done);
    settled(&daemon);
    assert!(rounds >= 1);
    assert_eq!(counter(&daemon, "pg1", "tx packets"), PACKETS, "{}", daemon.script("show errors"));
    assert_eq!(daemon.script(&format!("config apply {plain}")), "no change\n");
}

#[test]
fn starts_from_a_file_and_saves_to_it() {
    let dir = TempDir::new();
    let file = dir.path().join("node.toml");
    write(&file, &format!("{ROUTER}{ROUTE}"));
    let words = format!("cpu {{ workers 1 }} config {{ file {} }}", file.display());
    let mut daemon = Daemon::start(None, &words);
    assert!(daemon.script("show ip fib 192.0.2.1/32").contains("10.0.2.2"));
    daemon.script("create loopback interface\nset interface ip address loop0 10.7.0.1/32\nconfig save");
    let there = daemon.script("config show");
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.script("config show"), there);
    daemon.stop();
    assert_eq!(fs::read_to_string(&file).unwrap(), there, "what is given back at the end stays in the file");

    // A file that is wrong: no start, and the place.
    for (text, wanted) in [
        ("[interface.lo]\ntype = \"loopback\"\n", "interface.lo: the name of such an interface is loopN"),
        (
            "[interface.\"x/0\"]\ntype.af-xdp = { host-if = \"wharf-none\" }\n",
            "create interface af_xdp host-if wharf-none",
        ),
    ] {
        write(&file, text);
        let unix = format!("unix {{ nodaemon runtime-dir {} }} {words}", dir.path().display());
        let output =
            Command::new(env!("CARGO_BIN_EXE_wharf")).arg(unix).stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(&file.display().to_string()) && error.contains(wanted), "{error}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// What commands and documents set is there again after SIGKILL, whenever that comes; also when the end of the journal is torn.
#[test]
fn the_journal_brings_the_state_back_after_sigkill() {
    let dir = TempDir::new();
    let journal = dir.path().join("journal");
    let (dp, pod) = (Netns::new("dp"), Netns::new("a"));
    let veth = Veth::new(&dp, "pod1", &pod, "192.0.2.2/24", 1);
    let script = write(&dir.path().join("setup"), "create packet-generator interface pg7\n");
    let words =
        format!("unix {{ exec {script} }} cpu {{ workers 1 }} config {{ journal {} }}", journal.display());
    let mut daemon = Daemon::start(Some(&dp), &words);
    wait_until("the script has run", PATIENCE, || daemon.ctl("show interface pg7").is_ok());
    daemon.script(&format!(
        "create interface af_xdp host-if {0} name pod
         set interface ip address pod 192.0.2.1/24
         set interface state pod up
         create memif socket id 1 filename one.sock
         create interface memif id 0 socket-id 1 master secret s3cret
         set interface state memif1/0 up",
        veth.host_if
    ));
    assert_eq!(pod.ping("192.0.2.1", 2), 2);
    let there = daemon.script("config show");
    assert!(!there.contains("s3cret"));
    assert_eq!(fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.script("config show"), there);
    let saved = daemon.script("config save -");
    assert!(saved.contains("secret = \"s3cret\""));
    let saved = write(&dir.path().join("saved"), &saved.replace("s3cret", "guess"));
    assert_eq!(daemon.script(&format!("config diff {saved}")), "? secret of memif1/0: not compared\n");
    assert_eq!(pod.ping("192.0.2.1", 2), 2, "it forwards again");
    assert!(daemon.log().contains("is not run: the journal says what was configured last"));

    // What a message of the API did is there once it is answered.
    let mut client = Client::connect(&daemon);
    for n in 0..20u8 {
        client.request(number(&daemon, "create_loopback"), &[2, 0, 0, 0, 0, n]);
        client.reply();
    }
    daemon.kill9();
    daemon.restart();
    let loopbacks = daemon.script("config show").matches("[interface.loop").count();
    assert_eq!(loopbacks, 20);

    // Killed while changes come: the last one that was answered is there, and none is there by half.
    for round in 0..3 {
        let routes: String = (0..400)
            .map(|n| format!("ip route add 10.{round}.{}.{}/32 via drop\n", n / 256, n % 256))
            .collect();
        let file = write(&dir.path().join("routes"), &routes);
        let mut client = Command::new(env!("CARGO_BIN_EXE_wharfctl"));
        let mut client = client.arg("-s").arg(daemon.file("cli.sock")).args(["-f", &file]).spawn().unwrap();
        wait_until("routes come", PATIENCE, || daemon.script("show ip fib summary").contains("32"));
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        daemon.kill9();
        let _ = client.wait();
        // The end of the journal is torn besides.
        let bytes = fs::read(&journal).unwrap();
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        fs::write(&journal, [&bytes[..], b"0123abcd {\"changes\":[{\"route\":[0,\"10."].concat()).unwrap();
        daemon.restart();
        let routes = daemon.script("config show").matches(&format!("\"10.{round}.")).count();
        eprintln!("round {round}: {routes} routes of {lines} lines");
        assert!(daemon.log().contains("are no record: dropped"), "{}", daemon.log());
        // One record each, behind the one that the file begins with.
        assert!(routes >= 1 && routes <= lines, "{routes} of {lines}");
        daemon.script("create loopback interface instance 99\ndelete loopback interface intfc loop99");
    }

    // An interface that is no more does not keep the rest from coming back.
    let there = daemon.script("config show");
    daemon.kill9();
    dp.ip(&format!("link del {}", veth.host_if));
    daemon.restart();
    let left = daemon.script("config show");
    assert!(
        there.contains("interface.pod") && !left.contains("interface.pod") && left.contains("memif1/0"),
        "{left}"
    );
    assert!(dir.path().join("journal.refused").exists());
    // What ends well leaves the journal as it is.
    daemon.stop();
    daemon.restart();
    assert_eq!(daemon.script("config show"), left);
}

/// A file system, gone when dropped.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn new(at: &'a Path, size: &str) -> Self {
        fs::create_dir(at).unwrap();
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status();
        assert!(made.unwrap().success());
        Self(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// Without room for the journal, changes are made and answered, and the log says that they are not recorded; with room again, all is.
#[test]
fn a_full_disk_costs_no_answer() {
    let dir = TempDir::new();
    let place = dir.path().join("small");
    let small = Tmpfs::new(&place, "128k");
    let mut daemon =
        Daemon::start(None, &format!("cpu {{ workers 0 }} config {{ journal {}/journal }}", place.display()));
    daemon.script("ip route add 10.0.0.0/8 via drop");
    let filler = place.join("filler");
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&filler)
        .unwrap()
        .write_all(&[7; 4096])
        .is_ok()
    {}
    // More than what is left of the journal's last page.
    let more = (0..200).fold(String::new(), |all, n| all + &format!("ip route add 11.0.{n}.0/24 via drop\n"));
    daemon.script(&more);
    assert!(daemon.log().contains("changes are not recorded"), "{}", daemon.log());
    fs::remove_file(&filler).unwrap();
    wait_until("it is written again", PATIENCE, || daemon.log().contains("written again, all is in it"));
    daemon.script("ip route add 12.0.0.0/8 via drop");
    let there = daemon.script("config show");
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.script("config show"), there);
    assert!(
        there.contains("\"10.0.0.0/8\"")
            && there.contains("\"11.0.199.0/24\"")
            && there.contains("\"12.0.0.0/8\"")
    );
    drop((daemon, small));
}
