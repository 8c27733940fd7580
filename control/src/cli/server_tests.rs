//! The server on a real socket, against clients that speak the bytes of vppctl, wharfctl and worse.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;
use crate::access::Limits;
use crate::cli::telnet::{ACK, FAILED, OPTIONS, PROGRESS_END, PROGRESS_START, terminal_type};
use crate::cli::{Candidate, Completion, MAX_REQUEST, Outcome, Session};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers like a small daemon, and remembers what it was asked.
#[derive(Default)]
struct Double {
    lines: Mutex<Vec<String>>,
    gate: (Mutex<bool>, Condvar),
    waiting: AtomicUsize,
}

impl Double {
    fn open_gate(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Executor for Double {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        self.lines.lock().unwrap().push(line.into());
        let ok = |text: &str| Outcome { text: text.into(), error: None };
        match line {
            "show version" => ok("wharf v0\n"),
            "silent" => ok(""),
            "fail" => Outcome { text: "half".into(), error: Some("fail: no luck".into()) },
            "marks" => ok("a\0b\x01c\x02d\x03e"),
            "big" => ok(&"x".repeat(8 << 20)),
            "long" => {
                session.progress("10%");
                session.progress("9\x03\x009%");
                ok("done")
            }
            "wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let open = self.gate.0.lock().unwrap();
                drop(self.gate.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
                ok("waited")
            }
            "closed?" => {
                let start = Instant::now();
                while !session.is_closed() && start.elapsed() < PATIENCE {
                    thread::yield_now();
                }
                self.lines.lock().unwrap().push(format!("closed {}", session.is_closed()));
                ok("")
            }
            _ => Outcome { text: String::new(), error: Some(format!("unknown input `{}'", line.len())) },
        }
    }

    fn complete(&self, line: &str, cursor: usize) -> Completion {
        let typed = line.get(..cursor).unwrap_or_default();
        let start = typed.rfind(' ').map_or(0, |at| at + 1);
        let words = ["show", "shutdown", "version"];
        let matching = words.iter().filter(|word| word.starts_with(typed.get(start..).unwrap_or_default()));
        let candidate =
            |word: &&str| Candidate { text: word.to_string(), help: "a word".into(), literal: true };
        Completion { start, candidates: matching.map(candidate).collect() }
    }
}

struct Lab {
    server: Server,
    double: Arc<Double>,
    dir: PathBuf,
}

static LABS: AtomicUsize = AtomicUsize::new(0);

impl Lab {
    fn new() -> Lab {
        let number = LABS.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("wharf-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let double = Arc::new(Double::default());
        let server = Server::start(ServerConfig::new(dir.join("cli.sock")), double.clone()).unwrap();
        Lab { server, double, dir }
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.server.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    fn client_of_type(&self, name: &str) -> Client {
        let mut client = self.client();
        client.expect(&OPTIONS);
        client.send(&terminal_type(name));
        client
    }

    fn lines(&self) -> Vec<String> {
        self.double.lines.lock().unwrap().clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.double.open_gate();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.stream.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
    }

    fn until(&mut self, end: &[u8]) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&read));
            });
            read.push(byte[0]);
        }
        String::from_utf8(read).unwrap()
    }

    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            // What we sent and nobody read makes a reset of the end.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it never happened");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn vppctl_runs_one_command() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("vppctl");
    client.send(b"show version\n\0");
    client.expect(b"wharf v0\n\0");
    client.send(b"quit\n");
    client.expect_end();
    assert_eq!(lab.lines(), ["show version"]);
}

#[test]
fn vppctl_sees_failures_as_text_and_no_mark() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("vppctl");
    client.send(b"fail\n\0silent\n\0long\n");
    client.expect(b"half\nfail: no luck\n\0\0done\n\0");
}

#[test]
fn vppctl_passes_a_script_with_a_block_and_without_a_last_newline() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("vppctl");
    client.send(b"show version\r\n\ncomment {\npg {\n x\n}\nshow version");
    // The acknowledgements wait until the last line is known to be whole, or vppctl's quit would join it.
    client.expect(b"wharf v0\n");
    client.expect(b"unknown input `9'\n");
    client.expect(b"unknown input `9'\n");
    client.expect(b"wharf v0\n\0\0\0\0\0");
    assert_eq!(lab.lines(), ["show version", "comment {", "pg {\n x\n}", "show version"]);
    // A block that stays open ends with the NUL of the command.
    client.send(b"pg {\n\0show version\n\0");
    client.expect(b"unknown input `4'\nwharf v0\n\0\0");
    // One that half-closes has said all.
    client.send(b"show version");
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    client.expect(b"wharf v0\n\0");
    client.expect_end();
}

#[test]
fn wharfctl_learns_of_failure_and_progress() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("wharfctl");
    client.send(b"fail\0show version\0\0");
    let failed = ["half\n".as_bytes(), &[FAILED], b"fail: no luck\n", &[ACK]].concat();
    client.expect(&failed);
    client.expect(b"wharf v0\n\0\0");
    client.send(b"long\0");
    let (start, end) = (PROGRESS_START, PROGRESS_END);
    client.expect(&[&[start], &b"10%"[..], &[end, start], b"99%", &[end], b"done\n", &[ACK]].concat());
    client.send(b"marks\0");
    client.expect(b"abcde\n\0");
    client.send(b"__complete 2 sh\0");
    let found: Completion = serde_json::from_str(client.until(b"\0").trim_end_matches('\0')).unwrap();
    assert_eq!(found.words().collect::<Vec<_>>(), ["show", "shutdown"]);
    client.send(b"__complete 5 show \0");
    let found: Completion = serde_json::from_str(client.until(b"\0").trim_end_matches('\0')).unwrap();
    assert_eq!((found.start, found.candidates.len()), (5, 3));
    client.send(b"__complete x\0");
    client.expect(&[&[FAILED], &b"no cursor\n"[..], &[ACK]].concat());
    assert_eq!(lab.lines(), ["fail", "show version", "long", "marks"]);
}

#[test]
fn a_person_gets_banner_prompt_echo_completion_and_help() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("xterm");
    let banner = client.until(b"wharf# ");
    assert!(banner.starts_with("wharf ") && banner.contains("\r\n"), "{banner}");
    client.send(b"sh\tx\x7f\t");
    client.expect(b"sh\r\nshow  shutdown\r\nwharf# sh");
    client.expect(b"x\x08 \x08\r\nshow  shutdown\r\nwharf# sh");
    client.send(b"o\tver\t\r");
    client.expect(b"ow ver");
    client.expect(b"sion \r\nwharf v0\r\nwharf# ");
    client.send(b"?");
    let help = client.until(b"wharf# ");
    assert!(help.contains("show                     a word\r\n"), "{help}");
    client.send(b"fail\n\x1b[A\x04quit\r");
    client.expect(b"fail\r\nhalf\r\nfail: no luck\r\nwharf# fail");
    client.send(b"\x15exit\n");
    client.until(b"exit\r\n");
    client.expect_end();
}

#[test]
fn a_client_without_telnet_gets_a_prompt_when_it_types_or_waits() {
    let lab = Lab::new();
    let mut client = lab.client();
    client.expect(&OPTIONS);
    client.send(b"show version\n");
    client.until(b"wharf# ");
    client.expect(b"show version\r\nwharf v0\r\nwharf# ");
    let mut silent = lab.client();
    silent.expect(&OPTIONS);
    silent.until(b"wharf# ");
    silent.send(b"\x04");
    silent.expect(b"quit\r\n");
    silent.expect_end();
}

#[test]
fn too_many_clients_are_refused_in_words() {
    let lab = Lab::new();
    let most = Limits::default().cli_clients;
    let mut clients: Vec<Client> = (0..most).map(|_| lab.client_of_type("wharfctl")).collect();
    let mut refused = lab.client();
    refused.expect(b"too many CLI sessions: at most 32\n");
    refused.expect_end();
    for client in &mut clients {
        client.send(b"show version\0");
    }
    for client in &mut clients {
        client.expect(b"wharf v0\n\0");
    }
    drop(clients.pop());
    wait_for(|| lab.server.clients() < most);
    let mut next = lab.client_of_type("vppctl");
    next.send(b"show version\n");
    next.expect(b"wharf v0\n\0");
}

#[test]
fn one_that_does_not_read_stops_nobody() {
    let lab = Lab::new();
    let mut lazy = lab.client_of_type("wharfctl");
    lazy.send(b"big\0");
    wait_for(|| lab.lines() == ["big"]);
    let mut client = lab.client_of_type("vppctl");
    client.send(b"show version\n");
    client.expect(b"wharf v0\n\0");
    // Killed in the middle of its reply.
    drop(lazy);
    wait_for(|| lab.server.clients() == 1);
    client.send(b"show version\n");
    client.expect(b"wharf v0\n\0");
}

#[test]
fn a_long_command_learns_that_its_client_left() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("wharfctl");
    client.send(b"closed?\0");
    wait_for(|| lab.lines() == ["closed?"]);
    drop(client);
    wait_for(|| lab.lines().len() == 2);
    assert_eq!(lab.lines()[1], "closed true");
}

#[test]
fn an_oversize_request_is_refused() {
    let lab = Lab::new();
    let mut client = lab.client_of_type("wharfctl");
    let sent = client.stream.get_mut().write_all(&vec![b'x'; MAX_REQUEST + 1]);
    sent.unwrap();
    assert_eq!(client.until(b"\0"), "\u{1}request longer than 1048576 bytes\n\0");
    client.expect_end();
    assert_eq!(lab.lines(), Vec::<String>::new());
    // The longest that is allowed.
    let mut client = lab.client_of_type("wharfctl");
    client.send(&[&vec![b'x'; MAX_REQUEST - 1][..], b"\0"].concat());
    assert_eq!(client.until(b"\0"), "\u{1}unknown input `1048575'\n\0");
}

#[test]
fn binary_junk_is_only_unknown_input() {
    let lab = Lab::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20 {
        let mut client = if round % 2 == 0 { lab.client() } else { lab.client_of_type("vppctl") };
        let junk: Vec<u8> = (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        // The server may close in the middle: a line of the junk can be an end of input.
        let _ = client.stream.get_mut().write_all(&junk);
    }
    wait_for(|| lab.server.clients() == 0);
    let mut client = lab.client_of_type("vppctl");
    client.send(b"show version\n");
    client.expect(b"wharf v0\n\0");
}

#[test]
fn the_socket_is_private_and_not_taken_from_another() {
    let lab = Lab::new();
    let path = lab.server.path().to_path_buf();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let second = Server::start(ServerConfig::new(&path), lab.double.clone()).err().unwrap();
    assert_eq!(second.kind(), ErrorKind::AddrInUse);
    assert!(second.to_string().contains(path.to_str().unwrap()), "{second}");

    // Stale: bound once, and nobody listens any more.
    let stale = lab.dir.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let server = Server::start(ServerConfig::new(&stale), lab.double.clone()).unwrap();
    server.stop();
    assert!(!stale.exists());

    let file = lab.dir.join("file");
    fs::write(&file, "precious").unwrap();
    let refused = Server::start(ServerConfig::new(&file), lab.double.clone()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn stop_ends_every_thread_and_waits_for_the_running_command() {
    let mut lab = Lab::new();
    let mut waiting = lab.client_of_type("wharfctl");
    waiting.send(b"wait\0");
    let mut lazy = lab.client_of_type("wharfctl");
    lazy.send(b"big\0");
    let mut idle = lab.client_of_type("xterm");
    idle.until(b"wharf# ");
    wait_for(|| lab.double.waiting.load(Ordering::SeqCst) == 1 && lab.lines().len() == 2);

    let other = Server::start(ServerConfig::new(lab.dir.join("other.sock")), lab.double.clone()).unwrap();
    let server = std::mem::replace(&mut lab.server, other);
    let path = server.path().to_path_buf();
    let stopping = thread::spawn(move || server.stop());
    wait_for(|| !path.exists());
    let mut rest = String::new();
    idle.stream.read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(!stopping.is_finished(), "a command still runs");
    lab.double.open_gate();
    stopping.join().unwrap();
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn another_process_s_socket_is_not_removed() {
    let mut lab = Lab::new();
    let other = Server::start(ServerConfig::new(lab.dir.join("other.sock")), lab.double.clone()).unwrap();
    let server = std::mem::replace(&mut lab.server, other);
    let path = server.path().to_path_buf();
    fs::remove_file(&path).unwrap();
    let successor = UnixListener::bind(&path).unwrap();
    server.stop();
    assert!(path.exists());
    drop(successor);
}
