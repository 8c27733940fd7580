//! Who may use the control sockets, to do what, and how much: other users, a read-only role, floods and slow readers.

mod common;

use common::{Client, Daemon, PATIENCE, TempDir, frame, message, number, wait_until};
use rustix::fs::Gid;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, recv, socket};
use rustix::process::{Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use wharf_control::cli::telnet::{ACK, Decoder, Event, FAILED, WHARFCTL, terminal_type};

/// Does something as another user, whose groups are the first one and supplementary ones.
fn as_user<T: Send>(uid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let gids: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // These change this thread alone, and take its privileges.
            set_thread_groups(&gids[1..]).unwrap();
            set_thread_gid(gids[0]).unwrap();
            set_thread_uid(Uid::from_raw(uid)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// What the command line says to one line, and whether that is an error.
fn command(mut stream: UnixStream, line: &str) -> io::Result<(String, bool)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut decoder, mut said, mut failed, mut acks) = (Decoder::new(), Vec::new(), false, 0);
    // Refused already, there may be nobody to send to.
    let _ = stream.write_all(&[&terminal_type(WHARFCTL)[..], &[ACK], line.as_bytes(), &[ACK]].concat());
    let mut byte = [0];
    while acks < 2 && stream.read(&mut byte)? == 1 {
        match decoder.push(byte[0]) {
            Some(Event::Byte(ACK)) => acks += 1,
            Some(Event::Byte(FAILED)) => failed = true,
            Some(Event::Byte(byte)) => said.push(byte),
            _ => {}
        }
    }
    Ok((String::from_utf8_lossy(&said).into_owned(), failed))
}

/// Connects to the stats socket; how many bytes came with the segment.
fn stats(path: &Path) -> Result<usize, Errno> {
    let socket: OwnedFd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(recv(&socket, &mut [0; 16], rustix::net::RecvFlags::empty())?.0)
}

#[test]
fn roles_follow_from_users_and_groups() {
    let dir = TempDir::new();
    let run = dir.path().join("run");
    let daemon = Daemon::start(
        None,
        &format!(
            "unix {{ runtime-dir {} uid 7000 gid 7001 }} socksvr {{ default }} statseg {{ default }}
             access {{ read-write-gid 7001 read-only-uid 7002 read-only-gid 7003 }}",
            run.display()
        ),
    );
    let [cli, api, segment] = [daemon.file("cli.sock"), run.join("api.sock"), run.join("stats.sock")];
    for file in [&cli, &api, &segment] {
        let meta = std::fs::metadata(file).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.uid(), meta.gid()), (0o660, 7000, 7001));
    }
    let meta = std::fs::metadata(&run).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (0o750, 7000, 7001));

    // Those who may do all: the owner, and who is in the group in one way or the other.
    for (uid, groups) in [(7000, &[7009][..]), (7008, &[7001]), (7008, &[7009, 7001])] {
        let name = format!("loop{}", uid - 7000 + groups.len() as u32 * 10);
        let line = format!("create loopback interface instance {}", &name[4..]);
        let (said, failed) =
            as_user(uid, groups, || command(UnixStream::connect(&cli).unwrap(), &line)).unwrap();
        assert!(!failed, "{uid} {groups:?}: {said}");
        daemon.script(&format!("delete loopback interface intfc {name}"));
    }
    // Those who may look: a user, and a group in both ways.
    for (uid, groups) in [(7002, &[7009][..]), (7008, &[7003]), (7008, &[7009, 7003])] {
        let open = |path: &Path| as_user(uid, groups, || UnixStream::connect(path)).unwrap();
        let (said, failed) = command(open(&cli), "show interface").unwrap();
        assert!(!failed && said.contains("local0"), "{said}");
        let (said, failed) = command(open(&cli), "create loopback interface").unwrap();
        let wanted = "create loopback interface: not permitted: the role `read-only'";
        assert!(failed && said.starts_with(wanted), "{said}");
        assert_eq!(as_user(uid, groups, || stats(&segment)), Ok(1));

        let mut client = Client::over(open(&api)).introduced();
        let id = |name| number(&daemon, name);
        client.request(id("sw_interface_set_flags"), &[0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(client.reply()[6..10], (-30i32).to_be_bytes());
        client.request(id("create_loopback"), &[0; 6]);
        assert_eq!(client.reply()[6..], [(-30i32).to_be_bytes(), [0; 4]].concat());
        client.request(id("ip_table_dump"), &[]);
        client.request(23, &[]);
        assert_eq!(client.reply()[..2], id("ip_table_details").to_be_bytes());
        assert_eq!(client.reply()[..2], [0, 24]);
        for (line, retval) in [("show version", 0), ("create loopback interface", -1)] {
            let line = [&(line.len() as u32).to_be_bytes()[..], line.as_bytes()].concat();
            client.request(id("cli_inband"), &line);
            assert_eq!(client.reply()[6..10], i32::to_be_bytes(retval));
        }
        let clients = daemon.json("show api clients");
        let ours = clients.as_array().unwrap().iter().find(|c| c["uid"] == uid).unwrap();
        assert_eq!((&ours["role"], &ours["name"]), (&"read-only".into(), &"test".into()), "{clients}");
        assert_eq!(ours["pid"], std::process::id());
        assert!(ours["requests"].as_u64() >= Some(6), "{clients}");
    }
    let script = daemon.file("script");
    std::fs::write(&script, "show version\ncreate loopback interface\n").unwrap();
    let open = as_user(7002, &[7009], || UnixStream::connect(&cli)).unwrap();
    let (said, failed) = command(open, &format!("exec {}", script.display())).unwrap();
    assert!(
        failed && said.starts_with("exec: not permitted"),
        "its errors would show what is in the file: {said}"
    );

    // All others: the files keep them out, and if these did not, the lists would.
    let refused = |path: &Path| as_user(7009, &[7009], || UnixStream::connect(path));
    for path in [&cli, &api] {
        assert_eq!(refused(path).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(as_user(7009, &[7009], || stats(&segment)), Err(Errno::ACCESS));
    for path in [&cli, &api, &segment] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    }
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o755)).unwrap();
    let said = command(refused(&cli).unwrap(), "show version").unwrap().0;
    assert!(said.starts_with("not permitted: process"), "{said}");
    assert!(Client::over(refused(&api).unwrap()).is_closed());
    assert_eq!(as_user(7009, &[7009], || stats(&segment)), Ok(0));

    let interfaces = daemon.json("show interface");
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "{interfaces}");
    let sessions = daemon.json("show cli-sessions");
    assert_eq!(sessions[0]["role"], "read-write", "{sessions}");
}

#[test]
fn a_list_that_names_nobody_ends_the_start() {
    let words = ["unix", "{", "nodaemon", "}", "access", "{", "read-only-gid", "no-such-group", "}"];
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_wharf")).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("`no-such-group' is not in /etc/group"), "{said}");
}

#[test]
fn who_sends_too_much_is_slowed_down_alone_and_loses_nothing() {
    let daemon = Daemon::start(None, "access { api-rate 1000 }");
    let (mut quick, mut other) = (Client::connect(&daemon), Client::connect(&daemon));
    let start = Instant::now();
    const MANY: u32 = 2000;
    let pings: Vec<u8> = (0..MANY).flat_map(|context| frame(&message(23, context, &[]))).collect();
    quick.send(&pings);
    for _ in 0..20 {
        other.request(23, &[]);
        other.reply();
    }
    let clients = daemon.json("show api clients");
    let requests = |place: usize| clients[place]["requests"].as_u64().unwrap();
    assert!(requests(0) < MANY.into() && requests(1) == 21, "the other one has not waited: {clients}");
    for context in 0..MANY {
        assert_eq!(quick.reply()[2..6], context.to_be_bytes());
    }
    // A tenth of a second's messages come at once.
    assert!(start.elapsed() >= Duration::from_millis(1890), "{:?}", start.elapsed());
}

/// Descriptors of the daemon.
fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
fn ten_thousand_connections_harm_nobody_who_is_there() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let daemon = Daemon::start(None, "");
    let mut honest = Client::connect(&daemon);
    let before = descriptors(&daemon);
    for socket in ["api.sock", "cli.sock", "stats.sock"] {
        let path = daemon.file(socket);
        let mut held = Vec::new();
        for i in 0..10_000 {
            if socket == "stats.sock" {
                assert_eq!(stats(&path), Ok(1));
            } else {
                held.push(UnixStream::connect(&path).unwrap());
            }
            if i % 1000 == 0 {
                honest.request(23, &[]);
                assert_eq!(honest.reply()[..2], [0, 24]);
                assert!(descriptors(&daemon) < 1000);
            }
        }
    }
    wait_until("the daemon has as many descriptors as before", PATIENCE, || descriptors(&daemon) <= before);
    wait_until("there is a place", PATIENCE, || daemon.ctl("show version").is_ok());
    honest.request(23, &[]);
    assert_eq!(honest.reply()[..2], [0, 24]);
    let log = daemon.log();
    assert!(log.contains("API client refused: there are 256 already"), "{log}");
    assert!(log.contains("CLI client refused: too many CLI sessions: at most 32"), "{log}");
    // A line a second, whatever comes.
    assert!(log.matches("refused").count() < 200, "{log}");
}

#[test]
fn nobody_takes_the_places_of_operators() {
    let daemon = Daemon::start(None, "unix { gid 7001 } access { api-clients 16 }");
    let open = |socket: &str| {
        let path = daemon.file(socket);
        as_user(7008, &[7001], || UnixStream::connect(&path)).unwrap()
    };
    let _cli: Vec<_> = (0..40).map(|_| open("cli.sock")).collect();
    let _api: Vec<_> = (0..20).map(|_| Client::over(open("api.sock"))).collect();
    wait_until("the list is full", PATIENCE, || {
        let count = |show| daemon.json(show).as_array().unwrap().len();
        // Ours is one of them.
        count("show cli-sessions") == 28 + 1 && count("show api clients") == 14
    });
    let mut operator = Client::connect(&daemon);
    operator.request(23, &[]);
    assert_eq!(operator.reply()[..2], [0, 24]);
}

#[test]
fn the_length_of_requests_is_as_the_operator_says() {
    let daemon = Daemon::start(None, "access { api-request-size 8192 cli-request-size 4194304 }");
    let inband = |len: usize| [&(len as u32).to_be_bytes()[..], &vec![b' '; len]].concat();
    let mut client = Client::connect(&daemon);
    client.request(number(&daemon, "cli_inband"), &inband(8000));
    assert_eq!(client.reply()[6..10], [0; 4]);
    client.request(number(&daemon, "cli_inband"), &inband(8192));
    assert!(client.is_closed());
    let comment = |len: usize| format!("comment {}", "x".repeat(len));
    assert_eq!(daemon.ctl(&comment(100_000)), Ok(String::new()));
    let open = || UnixStream::connect(daemon.file("cli.sock")).unwrap();
    assert_eq!(command(open(), &comment(3 << 20)).unwrap(), (String::new(), false));
    let (said, failed) = command(open(), &comment(5 << 20)).unwrap();
    assert!(failed && said.contains("request longer than 4194304 bytes"), "{said}");
}

#[test]
fn half_a_request_and_binary_junk_cost_one_client() {
    let daemon = Daemon::start(None, "");
    for _ in 0..3 {
        let mut half = Client::connect(&daemon);
        half.send(&frame(&message(23, 0, &[]))[..20]);
        let mut junk = UnixStream::connect(daemon.file("cli.sock")).unwrap();
        let _ =
            junk.write_all(&(0..1 << 20).map(|i: u32| (i.wrapping_mul(i) >> 3) as u8).collect::<Vec<_>>());
        // One that goes while its answer is made.
        let mut gone = Client::connect(&daemon);
        let line = b"show node counters";
        let line = [&(line.len() as u32).to_be_bytes()[..], line].concat();
        gone.request(number(&daemon, "cli_inband"), &line);
    }
    let mut client = Client::connect(&daemon);
    client.request(23, &[]);
    assert_eq!(client.reply()[..2], [0, 24]);
    wait_until("the clients are gone", PATIENCE, || {
        daemon.json("show api clients").as_array().unwrap().len() == 1
    });
}
