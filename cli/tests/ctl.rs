//! The wharfctl binary against a CLI server with a small executor behind it.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wharf_control::cli::{Candidate, Completion, Executor, Outcome, Server, ServerConfig, Session};

#[derive(Default)]
struct Double {
    lines: Mutex<Vec<String>>,
}

impl Executor for Double {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        self.lines.lock().unwrap().push(line.into());
        let ok = |text: &str| Outcome { text: text.into(), error: None };
        match line {
            "show interface" => ok("local0 down\n"),
            "show interface --json" => ok("[]\n"),
            "fail" => Outcome { text: "half\n".into(), error: Some("fail: no luck".into()) },
            "big" => ok(&"0123456789abcdef\n".repeat(1 << 18)),
            "long" => {
                session.progress("50%");
                ok("done\n")
            }
            _ if line.starts_with("pg new {") => ok("pg\n"),
            _ => Outcome { text: String::new(), error: Some(format!("unknown input `{line}' (word 1)")) },
        }
    }

    fn complete(&self, _: &str, _: usize) -> Completion {
        let show = Candidate { text: "show".into(), help: "show".into(), literal: true };
        Completion { start: 0, candidates: vec![show] }
    }
}

struct Lab {
    dir: PathBuf,
    double: Arc<Double>,
    server: Server,
}

static LABS: AtomicUsize = AtomicUsize::new(0);

fn directory() -> PathBuf {
    let number = LABS.fetch_add(1, Ordering::SeqCst);
    let dir = std::env::temp_dir().join(format!("wharf-ctl-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl Lab {
    fn new() -> Lab {
        let dir = directory();
        let double = Arc::new(Double::default());
        let server = Server::start(ServerConfig::new(dir.join("cli.sock")), double.clone()).unwrap();
        Lab { dir, double, server }
    }

    fn ctl(&self, arguments: &[&str], input: &str) -> Run {
        let socket = self.server.path().to_str().unwrap();
        run(&self.dir, &[&["-s", socket], arguments].concat(), &[], input)
    }

    fn lines(&self) -> Vec<String> {
        self.double.lines.lock().unwrap().clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[derive(Debug, PartialEq)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(dir: &Path, arguments: &[&str], environment: &[(&str, &Path)], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wharfctl"))
        .args(arguments)
        .env_remove("WHARF_CLI_SOCKET")
        .envs(environment.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that was given a command does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: status.code().expect("killed by a signal"), stdout: text(stdout), stderr: text(stderr) }
}

fn expect(run: &Run, code: i32, stdout: &str, stderr: &str) {
    let expected = Run { code, stdout: stdout.into(), stderr: stderr.into() };
    assert_eq!(run, &expected);
}

#[test]
fn one_command() {
    let lab = Lab::new();
    expect(&lab.ctl(&["show", "interface"], ""), 0, "local0 down\n", "");
    expect(&lab.ctl(&["show interface"], ""), 0, "local0 down\n", "");
    expect(&lab.ctl(&["show", "interface", "--json"], ""), 0, "[]\n", "");
    expect(&lab.ctl(&["fail"], ""), 1, "half\n", "wharfctl: fail: no luck\n");
    expect(&lab.ctl(&["foo", "bar"], ""), 1, "", "wharfctl: unknown input `foo bar' (word 1)\n");
    // Progress is for terminals.
    expect(&lab.ctl(&["long"], ""), 0, "done\n", "");
    assert_eq!(lab.ctl(&["big"], "").stdout.len(), 17 << 18);
}

#[test]
fn a_script_stops_at_the_first_failure() {
    let lab = Lab::new();
    let script = "# two\nshow interface\n\npg new {\n  name x\n}\nfail\nshow interface\n";
    let stopped = lab.ctl(&[], script);
    expect(&stopped, 1, "local0 down\npg\nhalf\n", "wharfctl: stdin:7: fail: no luck\n");
    assert_eq!(lab.lines(), ["show interface", "pg new {\n  name x\n}", "fail"]);

    let file = lab.dir.join("script");
    std::fs::write(&file, "fail\nfoo\nshow interface\nquit\nshow interface\n").unwrap();
    let file = file.to_str().unwrap();
    let went_on = lab.ctl(&["--keep-going", "-f", file], "");
    let complaints =
        format!("wharfctl: {file}:1: fail: no luck\nwharfctl: {file}:2: unknown input `foo' (word 1)\n");
    expect(&went_on, 1, "half\nlocal0 down\n", &complaints);
    expect(&lab.ctl(&["-f", "-"], "show interface"), 0, "local0 down\n", "");
    expect(&lab.ctl(&[], ""), 0, "", "");

    let missing = lab.ctl(&["-f", "missing"], "");
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.starts_with("wharfctl: missing: "), "{}", missing.stderr);
}

#[test]
fn where_to_connect() {
    let lab = Lab::new();
    let environment = run(&lab.dir, &["show", "interface"], &[("WHARF_CLI_SOCKET", lab.server.path())], "");
    expect(&environment, 0, "local0 down\n", "");
    // An address that was given is the only one, even where a usual one would answer.
    let nowhere = run(&lab.dir, &["show", "interface"], &[("WHARF_CLI_SOCKET", Path::new("./nowhere"))], "");
    let message = "wharfctl: can't reach wharf: is it running? Tried ./nowhere (no such file)\n";
    expect(&nowhere, 2, "", message);

    let stale = lab.dir.join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let stale = stale.to_str().unwrap();
    let message = format!("wharfctl: can't reach wharf: is it running? Tried {stale} (nobody listens)\n");
    expect(&run(&lab.dir, &["-s", stale, "show"], &[], ""), 2, "", &message);
}

#[test]
fn the_other_end_is_not_wharf() {
    let dir = directory();
    let path = dir.join("other");
    let listener = UnixListener::bind(&path).unwrap();
    let answers = [
        // As VPP greets a terminal type that it does not know.
        [&wharf_control::cli::telnet::OPTIONS[..], b"\rvpp# "].concat(),
        b"too many CLI sessions\n".to_vec(),
        Vec::new(),
    ];
    let serving = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&answer).unwrap();
            if answer.len() > 30 {
                // Stays, so that the client has to decide by what it got.
                std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
            }
        }
    });
    let path = path.to_str().unwrap();
    for why in [
        "this is not wharf; if it is VPP, use vppctl",
        "too many CLI sessions",
        "wharf closed the connection",
    ] {
        let message = format!("wharfctl: {path}: {why}\n");
        expect(&run(&dir, &["-s", path, "show"], &[], ""), 2, "", &message);
    }
    serving.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn options_of_its_own() {
    let dir = directory();
    assert_eq!(run(&dir, &["--bogus"], &[], "").code, 2);
    let help = run(&dir, &["--help"], &[], "");
    assert!(help.code == 0 && help.stdout.contains("WHARF_CLI_SOCKET"), "{}", help.stdout);
    std::fs::remove_dir_all(&dir).unwrap();
}
