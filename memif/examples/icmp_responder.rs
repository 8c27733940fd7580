//! Answers ARP and ICMP echo requests for one IPv4 address behind a memif interface.
//!
//! ```text
//! icmp_responder --socket /run/wharf/memif.sock --id 0 --ip 192.0.2.1
//!                [--role client|server] [--mac 02:fe:00:00:00:01] [--queues 1] [--secret TEXT]
//! ```
//!
//! Sleeps when there is nothing to do, connects again when the peer goes away, ends by SIGTERM or SIGINT.

use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use memif::{
    Address, Backoff, Client, ClientConfig, Connection, Error, InterfaceConfig, Listener, ListenerConfig,
    MAX_FRAME, RxQueue, Secret, ServerEvent, TxQueue,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Packets per burst.
const BURST: usize = 64;
/// Longest sleep while connected: an interrupt can get lost if the peer misbehaves.
const LOOK: Duration = Duration::from_secs(1);

struct Options {
    socket: Address,
    id: u32,
    ip: Ipv4Addr,
    mac: [u8; 6],
    server: bool,
    queues: u16,
    secret: Option<Secret>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut socket, mut ip) = (None, None);
        let (mut id, mut mac, mut server, mut queues, mut secret) =
            (0, [2, 0xfe, 0, 0, 0, 1], false, 1, None);
        while let Some(name) = args.next() {
            let value = args.next().ok_or(format!("{name} needs a value"))?;
            let bad = || format!("{name}: can't read {value:?}");
            match name.as_str() {
                "--socket" => socket = Some(Address::parse(&value).map_err(|e| e.to_string())?),
                "--id" => id = value.parse().map_err(|_| bad())?,
                "--ip" => ip = Some(value.parse().map_err(|_| bad())?),
                "--mac" => mac = parse_mac(&value).ok_or_else(bad)?,
                "--role" if value == "client" || value == "server" => server = value == "server",
                "--queues" => queues = value.parse().map_err(|_| bad())?,
                "--secret" => secret = Some(Secret::new(value.as_bytes()).map_err(|e| e.to_string())?),
                "--role" => return Err(bad()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        let socket = socket.ok_or("--socket is missing")?;
        Ok(Self { socket, id, ip: ip.ok_or("--ip is missing")?, mac, server, queues, secret })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// Our end of the interface while it is not connected.
enum Endpoint {
    Server(Listener),
    Client { config: ClientConfig, backoff: Backoff, attempt: Attempt },
}

enum Attempt {
    Running(Box<Client>),
    Next(Instant),
}

impl Endpoint {
    fn new(options: &Options, now: Instant) -> Result<Self, Error> {
        if options.server {
            let mut config = ListenerConfig::new(options.socket.clone());
            if matches!(options.socket, Address::Abstract { .. }) && options.secret.is_none() {
                // Such a socket has no permissions: only clients of our own user.
                config.allowed_uids = vec![rustix::process::geteuid().as_raw()];
            }
            let mut listener = Listener::bind(config, now)?;
            let mut interface = InterfaceConfig::new(options.id, "icmp_responder");
            interface.secret = options.secret;
            interface.max_queues = options.queues;
            listener.add(interface)?;
            Ok(Self::Server(listener))
        } else {
            let mut config = ClientConfig::new(options.socket.clone(), options.id);
            config.app_name = "icmp_responder".into();
            config.secret = options.secret;
            (config.rx_queues, config.tx_queues) = (options.queues, options.queues);
            Ok(Self::Client { config, backoff: Backoff::new(), attempt: Attempt::Next(now) })
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Server(listener) => Some(listener.fd()),
            Self::Client { attempt: Attempt::Running(client), .. } => client.fd(),
            Self::Client { .. } => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Server(listener) => listener.next_deadline(),
            Self::Client { attempt: Attempt::Running(client), .. } => Some(client.deadline()),
            Self::Client { attempt: Attempt::Next(at), .. } => Some(*at),
        }
    }

    /// Goes on with the handshake. Fails only if no attempt can ever succeed.
    fn step(&mut self, now: Instant) -> Result<Option<Connection>, Error> {
        match self {
            Self::Server(listener) => {
                let mut connection = None;
                for event in listener.process(now) {
                    match event {
                        ServerEvent::Connected(c) => connection = Some(*c),
                        ServerEvent::Failed { error, .. } => println!("refused: {error}"),
                        ServerEvent::AcceptFailed(error) => println!("{error}"),
                    }
                }
                Ok(connection)
            }
            Self::Client { config, backoff, attempt } => {
                let result = match attempt {
                    Attempt::Next(at) if now < *at => return Ok(None),
                    Attempt::Next(_) => Client::connect(config.clone(), now).map(|c| {
                        *attempt = Attempt::Running(Box::new(c));
                        None
                    }),
                    Attempt::Running(client) => client.process(now),
                };
                match result {
                    Ok(None) => {}
                    Ok(Some(connection)) => {
                        backoff.reset();
                        *attempt = Attempt::Next(now);
                        return Ok(Some(connection));
                    }
                    Err(error @ Error::Config(_)) => return Err(error),
                    Err(_) => *attempt = Attempt::Next(backoff.next_attempt(now)),
                }
                Ok(None)
            }
        }
    }

    /// The connection ended: when to try again.
    fn lost(&mut self, now: Instant) {
        if let Self::Client { backoff, attempt, .. } = self {
            *attempt = Attempt::Next(backoff.next_attempt(now));
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\nusage: icmp_responder --socket PATH|@NAME --ip A.B.C.D [--id N] [--mac M]");
            eprintln!("                      [--role client|server] [--queues N] [--secret TEXT]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (mut stop, writer) = UnixStream::pair()?;
    stop.set_nonblocking(true)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    let mut endpoint = Endpoint::new(options, Instant::now())?;
    let mut responder = Responder::new(options);
    let mut link: Option<Connection> = None;
    loop {
        let now = Instant::now();
        if let Some(connection) = &mut link
            && let Some(reason) = connection.control.process()
        {
            println!("disconnected: {reason}");
            link = None;
            endpoint.lost(now);
        }
        // A server refuses second clients while it has one; a client has nothing to do then.
        if (link.is_none() || options.server)
            && let Some(mut connection) = endpoint.step(now)?
        {
            let (app, name) = (&connection.info.remote_app, &connection.info.remote_interface);
            println!("connected to {app}, interface {name}, {} queues", connection.rx.len());
            connection.rx.iter_mut().for_each(|rx| rx.set_interrupt_mode(true));
            link = Some(connection);
        }
        let busy = link.as_mut().is_some_and(|l| responder.turn(&mut l.rx, &mut l.tx));
        let deadline = if link.is_some() && !options.server { None } else { endpoint.deadline() };
        let sleep = match deadline {
            _ if busy => Some(Duration::ZERO),
            Some(at) => Some(at.saturating_duration_since(Instant::now())),
            None => link.is_some().then_some(LOOK),
        };
        wait(&stop, &endpoint, link.as_ref(), sleep)?;
        if stop.read(&mut [0; 8]).is_ok() {
            if let Some(link) = &mut link {
                link.control.disconnect("icmp_responder ends");
            }
            return Ok(());
        }
    }
}

/// Sleeps until a descriptor is readable, or for `time` (`None`: for ever).
fn wait(
    stop: &UnixStream,
    endpoint: &Endpoint,
    link: Option<&Connection>,
    time: Option<Duration>,
) -> std::io::Result<()> {
    let mut fds = vec![stop.as_fd()];
    fds.extend(endpoint.fd());
    if let Some(link) = link {
        fds.push(link.control.fd());
        fds.extend(link.rx.iter().map(RxQueue::fd));
    }
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    // Rounded up, so as not to wake just before a deadline.
    let time = time.map(|t| t + Duration::from_millis(1)).filter(|_| time != Some(Duration::ZERO)).or(time);
    let time = time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    match poll(&mut fds, time.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Answers what comes in, in place.
struct Responder {
    ip: [u8; 4],
    mac: [u8; 6],
    buffers: Vec<[u8; MAX_FRAME]>,
    lengths: [usize; BURST],
}

impl Responder {
    fn new(options: &Options) -> Self {
        let buffers = vec![[0; MAX_FRAME]; BURST];
        Self { ip: options.ip.octets(), mac: options.mac, buffers, lengths: [0; BURST] }
    }

    /// One burst per queue. True if there may be more: don't sleep.
    fn turn(&mut self, rx: &mut [RxQueue], tx: &mut [TxQueue]) -> bool {
        let queues = tx.len();
        let mut busy = false;
        for (i, rx) in rx.iter_mut().enumerate() {
            rx.drain_fd();
            let received = rx.receive_into(&mut self.buffers, &mut self.lengths);
            if let Some(tx) = tx.get_mut(i % queues.max(1))
                && received > 0
            {
                self.answer(received, tx);
            }
            // Interrupts are on all the time, so this can't miss a packet.
            busy |= rx.has_work();
        }
        busy
    }

    fn answer(&mut self, received: usize, tx: &mut TxQueue) {
        let (ip, mac) = (self.ip, self.mac);
        let packets = self.buffers.iter_mut().zip(self.lengths).take(received);
        let answers: Vec<&[u8]> = packets
            .filter_map(|(buffer, len)| {
                let packet = buffer.get_mut(..len)?;
                answer(packet, ip, mac).then_some(&*packet)
            })
            .collect();
        // What finds the ring full is lost, as on any link.
        tx.transmit(answers.as_slice());
        tx.kick();
    }
}

/// Turns a request for us into its answer. False if there is none.
fn answer(packet: &mut [u8], ip: [u8; 4], mac: [u8; 6]) -> bool {
    let Some((ethernet, payload)) = packet.split_first_chunk_mut::<14>() else { return false };
    let answered = match [ethernet[12], ethernet[13]] {
        [0x08, 0x06] => answer_arp(payload, ip, mac),
        [0x08, 0x00] if ethernet[..6] == mac => answer_echo(payload, ip),
        _ => false,
    };
    if answered {
        ethernet.copy_within(6..12, 0);
        ethernet[6..12].copy_from_slice(&mac);
    }
    answered
}

/// ARP, RFC 826: "who has `ip`" becomes "`ip` is at `mac`".
fn answer_arp(payload: &mut [u8], ip: [u8; 4], mac: [u8; 6]) -> bool {
    let Some(arp) = payload.first_chunk_mut::<28>() else { return false };
    // Ethernet, IPv4, lengths 6 and 4, request.
    if arp[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || arp[24..28] != ip {
        return false;
    }
    arp[7] = 2;
    arp.copy_within(8..18, 18);
    arp[8..14].copy_from_slice(&mac);
    arp[14..18].copy_from_slice(&ip);
    true
}

/// ICMP echo, RFC 792, in an unfragmented IPv4 packet.
fn answer_echo(payload: &mut [u8], ip: [u8; 4]) -> bool {
    let Some(&first) = payload.first() else { return false };
    let header_len = usize::from(first & 15) * 4;
    if first >> 4 != 4 || header_len < 20 || payload.len() < header_len {
        return false;
    }
    let total = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
    let fragment = u16::from_be_bytes([payload[6], payload[7]]) & 0x3fff;
    if total < header_len + 8 || total > payload.len() || fragment != 0 {
        return false;
    }
    let (header, icmp) = payload[..total].split_at_mut(header_len);
    let for_us = header[9] == 1 && header[16..20] == ip && icmp[..2] == [8, 0];
    if !for_us || checksum(header) != 0 || checksum(icmp) != 0 {
        return false;
    }
    header.copy_within(12..16, 16);
    header[12..16].copy_from_slice(&ip);
    header[8] = 64;
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    icmp[0] = 0;
    icmp[2..4].fill(0);
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The Internet checksum, RFC 1071. Zero over data that contains its own.
fn checksum(data: &[u8]) -> u16 {
    let (words, odd) = data.as_chunks::<2>();
    let sum: u32 = words.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let mut sum = sum + odd.first().map_or(0, |b| u32::from(*b) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
