//! `ping`: echo requests from the control plane, and the wait for their answers, without holding anything up.

use crate::cli::Session;
use crate::dataplane::{Dataplane, EchoReply, OpError};
use crate::ip4::Via;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wharf_engine::{SwIfIndex, WorkerIndex, clock};
use wharf_nodes::wire::checksum::{checksum, header_checksum};
use wharf_nodes::wire::icmp4::{Icmp4Header, Icmp4Type};
use wharf_nodes::wire::ip4::{Ip4Header, IpProtocol};
use wharf_nodes::wire::{U16, U32};
use zerocopy::IntoBytes;

/// A ping that was asked for.
#[derive(Debug)]
pub struct Ping {
    /// Who is pinged.
    pub to: Ipv4Addr,
    /// The address that it comes from.
    pub from: Ipv4Addr,
    /// The interface whose table is used.
    pub rx: SwIfIndex,
    /// Bytes of data behind the ICMP header.
    pub size: u16,
    /// How many requests.
    pub repeat: u32,
    /// Time between two of them.
    pub interval: Duration,
    id: u16,
    replies: Receiver<EchoReply>,
}

fn lock(dataplane: &Mutex<Dataplane>) -> MutexGuard<'_, Dataplane> {
    dataplane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dataplane {
    /// Prepares a ping; [`Ping::run`] does it, once the lock on this value is given up.
    pub fn ping(
        &mut self,
        to: Ipv4Addr,
        source: Option<SwIfIndex>,
        size: u16,
        repeat: u32,
        interval: Duration,
    ) -> Result<Ping, OpError> {
        let table = source.map_or(0, |s| self.table_of(s));
        let route = self.fibs.get(&table).and_then(|f| f.routes().lookup(to));
        let Some((_, route)) = route else { return OpError::refused(format!("no route to {to}")) };
        let out = match route.best().via {
            Via::NextHop(_, i) | Via::Attached(i) | Via::Local(i) => i,
            Via::Drop | Via::Punt => return OpError::refused(format!("the route to {to} leads nowhere")),
        };
        let from = self.record(source.unwrap_or(out))?.addresses.first().map(|(a, _)| *a);
        let Some(from) = from else {
            return OpError::refused(format!(
                "{} has no address",
                self.interface_name(source.unwrap_or(out))
            ));
        };
        let id = self.next_ping;
        self.next_ping = self.next_ping.wrapping_add(1).max(1);
        let (sender, replies) = channel();
        self.pings.insert(id, sender);
        Ok(Ping { to, from, rx: source.unwrap_or(out), size, repeat, interval, id, replies })
    }
}

impl Ping {
    fn request(&self, sequence: u16) -> Vec<u8> {
        let len = (Ip4Header::LEN + Icmp4Header::LEN) as u16 + self.size;
        let mut ip = Ip4Header {
            version_ihl: Ip4Header::VERSION_IHL,
            tos: 0,
            total_len: U16::new(len),
            id: U16::new(sequence),
            flags_fragment: U16::new(0),
            ttl: 64,
            protocol: IpProtocol::ICMP,
            checksum: U16::new(0),
            src: U32::new(self.from.to_bits()),
            dst: U32::new(self.to.to_bits()),
        };
        ip.checksum = U16::new(header_checksum(&ip));
        let mut icmp = Icmp4Header {
            kind: Icmp4Type::ECHO_REQUEST,
            code: 0,
            checksum: U16::new(0),
            id: U16::new(self.id),
            sequence: U16::new(sequence),
        };
        let data: Vec<u8> = (0..self.size).map(|i| i as u8).collect();
        icmp.checksum = U16::new(checksum(&[icmp.as_bytes(), &data].concat()));
        [ip.as_bytes(), icmp.as_bytes(), &data].concat()
    }

    /// Sends the requests and waits for the answers; returns what VPP prints.
    pub fn run(self, dataplane: &Arc<Mutex<Dataplane>>, session: &Session<'_>) -> String {
        let mut text = String::new();
        let (mut sent, mut received) = (0u32, 0u32);
        while sent < self.repeat && !session.is_closed() {
            sent += 1;
            let sequence = sent as u16;
            let start = clock::nanos();
            {
                let dataplane = lock(dataplane);
                if let Some(lookup) = dataplane.engine.graph().find("ip4-lookup") {
                    let request = self.request(sequence);
                    let _ = dataplane.engine.inject(WorkerIndex(0), lookup, self.rx, &request, ());
                }
            }
            let until = Instant::now() + self.interval;
            let mut answered = false;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                match self.replies.recv_timeout(left) {
                    Ok(reply) if reply.sequence == sequence && !answered => {
                        answered = true;
                        received += 1;
                        let millis = reply.received.saturating_sub(start) as f64 / 1e6;
                        let _ = writeln!(
                            text,
                            "{} bytes from {}: icmp_seq={} ttl={} time={}",
                            reply.len,
                            reply.from,
                            sequence,
                            reply.ttl,
                            format!("{millis:.4} ms").trim_start_matches('0')
                        );
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
                if answered && sent == self.repeat {
                    break;
                }
            }
        }
        lock(dataplane).pings.remove(&self.id);
        let loss = 100 * (sent - received) / sent.max(1);
        let _ = write!(text, "\nStatistics: {sent} sent, {received} received, {loss}% packet loss\n");
        text
    }
}
