//! `wharfctl memif doctor SOCKET`: attaches to a memif as an application does, and says what is wrong if it can't. Runs
//! where the application runs, in its container; it talks to the memif socket alone.

use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use memif::wire::{self, MessageType};
use memif::{Address, Client, ClientConfig, Error, HandshakeError, Mode, Secret, SocketError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::Failure;

const USAGE: &str = "\
usage: wharfctl memif doctor SOCKET [id N] [secret WORD] [mode {ethernet|ip}] [ring-size N] [buffer-size N]
                             [rx-queues N] [tx-queues N] [--json]
Attaches to a memif interface as a client, detaches again, and says what is wrong if it can't. SOCKET is a path,
@NAME or abstract:NAME[,netns_name=PATH]. Exit code: 0 when all is well, 1 when something is wrong.";

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// One thing that was looked at.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Finding {
    /// What.
    what: &'static str,
    good: bool,
    /// What was found.
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

/// Findings in order; `Err` holds the last, which is bad.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

/// Something is wrong, and in the report.
struct Ill;

impl Report {
    fn good(&mut self, what: &'static str, found: impl Into<String>) {
        self.0.push(Finding { what, good: true, found: found.into(), advice: None });
    }

    fn bad<T>(
        &mut self,
        what: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<T, Ill> {
        self.0.push(Finding { what, good: false, found: found.into(), advice: Some(advice.into()) });
        Err(Ill)
    }
}

pub(super) fn run(words: &[String]) -> Result<(), Failure> {
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let json = words.iter().any(|word| word == "--json");
    let config =
        parse(words).map_err(|why| Failure::Command(Some(format!("memif doctor: {why}\n{USAGE}"))))?;
    let mut report = Report::default();
    let healthy = examine(&config, &mut report).is_ok();
    print(&report, json).map_err(|error| Failure::Io("standard output".into(), error))?;
    if healthy { Ok(()) } else { Err(Failure::Command(None)) }
}

fn parse(words: &[String]) -> Result<ClientConfig, String> {
    let mut words = words.iter().map(String::as_str).filter(|word| *word != "--json");
    let socket = words.next().ok_or("which socket?")?;
    let address = Address::parse(socket).map_err(|e| e.to_string())?;
    let mut config = ClientConfig::new(address, 0);
    config.name = "doctor".into();
    config.app_name = "wharfctl memif doctor".into();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}' needs a value"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{word} must be a number, got `{value}'"));
        let queues = || Ok::<_, String>(u16::try_from(number()?).unwrap_or(u16::MAX));
        match word {
            "id" => config.id = number()?,
            "secret" => config.secret = Some(Secret::new(value.as_bytes()).map_err(|e| e.to_string())?),
            "mode" => {
                config.mode = match value {
                    "ethernet" => Mode::Ethernet,
                    "ip" => Mode::Ip,
                    _ => return Err(format!("mode must be ethernet or ip, got `{value}'")),
                }
            }
            "ring-size" => {
                let size = number()?;
                if !size.is_power_of_two() {
                    return Err(format!("ring-size must be a power of two, got {size}"));
                }
                config.log2_ring_size = size.ilog2() as u8;
            }
            "buffer-size" => config.buffer_size = number()?,
            "rx-queues" => config.rx_queues = queues()?,
            "tx-queues" => config.tx_queues = queues()?,
            _ => return Err(format!("unknown word `{word}'")),
        }
    }
    Ok(config)
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(&report.0)?);
    }
    for Finding { what, good, found, advice } in &report.0 {
        writeln!(out, "{:<4} {what}: {found}", if *good { "ok" } else { "BAD" })?;
        if let Some(advice) = advice {
            writeln!(out, "     {advice}")?;
        }
    }
    Ok(())
}

fn examine(config: &ClientConfig, report: &mut Report) -> Result<(), Ill> {
    if let Address::Path(path) = &config.address {
        look_at_file(path, report)?;
    }
    let mut client = connect(config, report)?;
    shake_hands(&mut client, config, report)
}

/// What ls would show.
fn look_at_file(path: &Path, report: &mut Report) -> Result<(), Ill> {
    for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if directory.as_os_str().is_empty() {
            continue;
        }
        let shown = directory.display();
        if let Err(error) = std::fs::metadata(directory) {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => {
                    "Is the server's runtime directory mounted into this container? Mount the directory, not the \
                     socket: the socket is made anew when the server starts."
                }
                _ => "The directories above the socket must be searchable (x) for this user.",
            };
            return report.bad("directory", format!("{shown}: {error}"), advice);
        }
    }
    let shown = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            let advice = "The server makes the socket with its first interface of role master: `create memif socket', \
                          `create interface memif ... master'. If its interface is a slave, it is this application \
                          that must listen.";
            return report.bad("socket", format!("{shown}: {error}"), advice);
        }
    };
    if !meta.file_type().is_socket() {
        return report.bad("socket", format!("{shown} is not a socket"), "Is the path right?");
    }
    let mode = meta.permissions().mode() & 0o7777;
    report.good("socket", format!("{shown}, mode {mode:04o}, owner {}:{}", meta.uid(), meta.gid()));
    Ok(())
}

fn connect(config: &ClientConfig, report: &mut Report) -> Result<Client, Ill> {
    let error = match Client::connect(config.clone(), Instant::now()) {
        Ok(client) => {
            report.good("connect", config.address.to_string());
            return Ok(client);
        }
        Err(error) => error,
    };
    let said = error.to_string();
    let advice: String = match error {
        Error::Config(_) => "What was asked for cannot work with any server.".into(),
        Error::Socket(SocketError::NoListener(_)) => match &config.address {
            Address::Path(_) => "The file is there, but nobody listens (or its queue is full): the server has died, or \
                                 its interface was deleted or made a slave. Two slaves never meet."
                .into(),
            Address::Abstract { netns, .. } => format!(
                "Nobody listens on this name in {}. Abstract names belong to a network namespace: the server must \
                 listen in this one (`,netns_name='), or use a path.",
                netns.as_deref().map_or("this network namespace".into(), |n| n.display().to_string())
            ),
        },
        Error::Socket(SocketError::Netns { .. }) => "Entering a network namespace needs CAP_SYS_ADMIN.".into(),
        Error::Socket(SocketError::Io { source, .. }) => match source.raw_os_error() {
            Some(code) if code == rustix::io::Errno::ACCESS.raw_os_error() => {
                let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                format!(
                    "To connect is to write: user {uid}, group {gid} needs w on the socket. Join its group, or have \
                     the server's side change it."
                )
            }
            Some(code) if code == rustix::io::Errno::PROTOTYPE.raw_os_error() => {
                "Somebody listens there with another type of socket: it is not a memif socket (its CLI, maybe?).".into()
            }
            _ => "The kernel refuses; see connect(2) and unix(7).".into(),
        },
        _ => "See the message.".into(),
    };
    report.bad("connect", said, advice)
}

fn shake_hands(client: &mut Client, config: &ClientConfig, report: &mut Report) -> Result<(), Ill> {
    let start = Instant::now();
    let mut greeted = false;
    let result = loop {
        let progress = client.process(Instant::now());
        if let (Some(hello), false) = (client.server(), greeted) {
            greeted = true;
            let version = |v: u16| format!("{}.{}", v >> 8, v & 0xff);
            report.good(
                "server",
                format!(
                    "{:?} speaks {} to {}, takes {} regions, {} + {} rings of up to {}",
                    hello.name,
                    version(hello.min_version),
                    version(hello.max_version),
                    u32::from(hello.max_region) + 1,
                    u32::from(hello.max_s2m_ring) + 1,
                    u32::from(hello.max_m2s_ring) + 1,
                    1u64 << hello.max_log2_ring_size.min(32),
                ),
            );
        }
        match progress {
            Ok(None) if start.elapsed() < PATIENCE => {}
            Ok(None) => break Err(HandshakeError::Timeout.into()),
            Ok(Some(connection)) => break Ok(connection),
            Err(error) => break Err(error),
        }
        if let Some(fd) = client.fd() {
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&wait));
        }
    };
    match result {
        Ok(mut connection) => {
            report.good("interface", format!("id {}, {:?}", config.id, connection.info.remote_interface));
            let rings = |rings: Vec<memif::RingState>| rings.first().map_or(0, |r| r.size);
            report.good(
                "attached",
                format!(
                    "{} receive and {} transmit rings of {} slots; detached again",
                    connection.rx.len(),
                    connection.tx.len(),
                    rings(connection.control.tx_rings()),
                ),
            );
            connection.control.disconnect("memif doctor is done");
            Ok(())
        }
        Err(error) => {
            let (what, advice) = diagnose(&error, client.last_sent(), greeted, config);
            report.bad(what, error.to_string(), advice)
        }
    }
}

/// What a refusal means. Servers say why in words of their own: those of wharf, VPP, libmemif and DPDK are known here.
fn diagnose(
    error: &Error,
    last_sent: Option<MessageType>,
    greeted: bool,
    config: &ClientConfig,
) -> (&'static str, String) {
    let Error::Handshake(error) = error else { return ("attach", "See the message.".into()) };
    if let HandshakeError::Version(_) = error {
        return (
            "version",
            format!("This application speaks {}.{} only.", wire::VERSION >> 8, wire::VERSION & 0xff),
        );
    }
    let said = match error {
        HandshakeError::Disconnected { reason, .. } => reason.to_lowercase(),
        HandshakeError::Timeout | HandshakeError::Closed if !greeted => {
            return (
                "server",
                "It takes connections but does not say HELLO: the server is stuck or overloaded, or it is no memif server."
                    .into(),
            );
        }
        HandshakeError::Timeout => {
            return ("server", "It stopped answering: is the machine overloaded?".into());
        }
        _ => String::new(),
    };
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match last_sent {
        None => (
            "access",
            "Refused before a word was said: the server allows other users or groups (`allow-uid', `allow-gid')."
                .into(),
        ),
        Some(MessageType::Init) if has(&["secret"]) => (
            "secret",
            if has(&["second ago"]) {
                "Wait a second between attempts; another process of this container may be guessing.".into()
            } else if config.secret.is_some() {
                "Not the interface's secret. It is compared as 24 bytes: mind a newline at its end.".into()
            } else {
                "The interface has a secret: `secret WORD'.".to_owned()
            },
        ),
        Some(MessageType::Init) if has(&["mode"]) => {
            let other = if config.mode == Mode::Ip { "ethernet" } else { "ip" };
            ("mode", format!("The server's interface has another mode: try `mode {other}'."))
        }
        Some(MessageType::Init) if has(&["connected already", "in use", "already connected"]) => (
            "id",
            format!("Interface {} has its client already: one client per id. Who is it: `show memif' at the server.", config.id),
        ),
        Some(MessageType::Init) if has(&["id", "unmatched", "no interface"]) => (
            "id",
            format!(
                "The server has no interface with id {} on this socket (or it is down): `show memif' at the server.",
                config.id
            ),
        ),
        Some(MessageType::Init) => ("interface", "The server refuses the interface for the reason above.".into()),
        Some(MessageType::AddRegion) => (
            "region",
            "The server refuses the shared memory. A region must be a memfd on tmpfs without huge pages, sealed by \
             F_SEAL_SHRINK and not against writing, at least as long as announced; and all together must fit the \
             server's limit: fewer or smaller rings (`ring-size'), smaller buffers (`buffer-size'), fewer queues."
                .into(),
        ),
        Some(MessageType::AddRing) => (
            "ring",
            "The server refuses a ring: fewer queues (`rx-queues', `tx-queues') or a smaller `ring-size'. Each ring \
             comes with an eventfd."
                .into(),
        ),
        Some(MessageType::Connect) => ("attach", "All was announced, but the server does not say CONNECTED.".into()),
        Some(_) => ("attach", "See the message.".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments() {
        let config = parse(&words("/x id 3 secret s mode ip ring-size 256 rx-queues 2 --json")).unwrap();
        assert_eq!((config.id, config.mode, config.log2_ring_size, config.rx_queues), (3, Mode::Ip, 8, 2));
        for bad in ["", "/x id", "/x id y", "/x ring-size 100", "/x mode tap", "/x y 1"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }

    /// The words of other servers: VPP, libmemif and DPDK.
    #[test]
    fn reasons_of_other_servers() {
        let config = ClientConfig::new(Address::parse("/x").unwrap(), 3);
        let of = |reason: &str| {
            let error = HandshakeError::Disconnected { code: 0, reason: reason.into() };
            diagnose(&error.into(), Some(MessageType::Init), true, &config).0
        };
        assert_eq!(of("unmatched interface id"), "id");
        assert_eq!(of("ID not found"), "id");
        assert_eq!(of("id already in use"), "id");
        assert_eq!(of("Interface already connected"), "id");
        assert_eq!(of("incorrect secret"), "secret");
        assert_eq!(of("mode mismatch"), "mode");
        assert_eq!(of("Secret required"), "secret");
    }
}
