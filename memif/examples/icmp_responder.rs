//! Answers ARP and ICMP echo requests for one IPv4 address behind a memif interface.
//!
//! ```text
//! icmp_responder --socket /run/wharf/memif.sock --id 0 --ip 192.0.2.1
//!                [--role client|server] [--mac 02:fe:00:00:00:01] [--queues 1] [--secret TEXT]
//! ```
//!
//! Sleeps when there is nothing to do, connects again when the peer goes away, ends by SIGTERM or SIGINT.

mod common;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Instant;

use common::{End, Stop};
use memif::{Address, Link, MAX_FRAME, PortEvent, Secret, TxQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Packets per burst.
const BURST: usize = 64;

struct Options {
    end: End,
    ip: Ipv4Addr,
    mac: [u8; 6],
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
        let end = End { server, id, socket, queues, secret };
        Ok(Self { end, ip: ip.ok_or("--ip is missing")?, mac })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
    bytes?.try_into().ok()
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
    let mut stop = Stop::new()?;
    let mut port = options.end.open("icmp_responder")?;
    let mut responder = Responder::new(options);
    loop {
        // As `Port::wait`, but with the signals among what ends the sleep.
        if port.arm() {
            let time = port.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let time =
                time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
            let (fd, stop) = (port.fd(), stop.fd());
            match poll(&mut [&fd, &stop].map(|fd| PollFd::new(fd, PollFlags::IN)), time.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        port.disarm();
        while let Some(event) = port.process(Instant::now()) {
            match event {
                PortEvent::Up => println!("connected"),
                PortEvent::Down(reason) => println!("disconnected: {reason}"),
                PortEvent::Failed(reason) => println!("not connected: {reason}"),
            }
        }
        if let Some(link) = port.link() {
            responder.turn(link);
        }
        if stop.asked() {
            port.disconnect("icmp_responder ends");
            return Ok(());
        }
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

    /// One burst per queue.
    fn turn(&mut self, link: Link<'_>) {
        let queues = link.tx.len();
        for (i, rx) in link.rx.iter_mut().enumerate() {
            let received = rx.receive_into(&mut self.buffers, &mut self.lengths);
            if let Some(tx) = link.tx.get_mut(i % queues.max(1))
                && received > 0
            {
                self.answer(received, tx);
            }
        }
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
