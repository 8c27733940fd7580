//! `ping`: echo requests from the control plane, and the wait for their answers, without holding anything up.

use crate::cli::Session;
use crate::dataplane::{Dataplane, EchoReply, OpError};
use crate::ip4::Via;
use crate::shared::Shared;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use wharf_engine::{SwIfIndex, WorkerIndex, clock};
use wharf_nodes::wire::checksum::{checksum, header_checksum};
use wharf_nodes::wire::icmp4::{Icmp4Header, Icmp4Type};
use wharf_nodes::wire::ip4::{Ip4Header, IpProtocol};
use wharf_nodes::wire::{U16, U32};
use zerocopy::IntoBytes;

/// How long the answer to the last request may take: the interval, but not less and not more than this.
const LINGER_MIN: Duration = Duration::from_secs(1);
const LINGER_MAX: Duration = Duration::from_secs(10);

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
        let Some((_, route)) = route else {
            return OpError::parameter("ip4", format!("no route to {to}"));
        };
        let out = match route.best().via {
            Via::NextHop(_, i) | Via::Attached(i) | Via::Local(i) => i,
            Via::Drop | Via::Punt => {
                return OpError::parameter("ip4", format!("the route to {to} leads nowhere"));
            }
        };
        let from = self.record(source.unwrap_or(out))?.addresses.first().map(|(a, _)| *a);
        let Some(from) = from else {
            let parameter = if source.is_some() { "source" } else { "ip4" };
            let name = self.interface_name(source.unwrap_or(out));
            return OpError::parameter(parameter, format!("{name} has no address"));
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

    /// Sends the requests and waits for the answers; returns what VPP prints. An answer counts whenever it comes, up to
    /// a while after the last request.
    pub fn run(self, dataplane: &Arc<Shared<Dataplane>>, session: &Session<'_>) -> String {
        let mut text = String::new();
        let mut answers = Answers::default();
        for sequence in 1..=self.repeat {
            if session.is_closed() {
                break;
            }
            let sequence = sequence as u16;
            answers.sent(sequence, clock::nanos());
            {
                let dataplane = dataplane.turn();
                if let Some(lookup) = dataplane.engine.graph().find("ip4-lookup") {
                    let request = self.request(sequence);
                    let _ = dataplane.engine.inject(WorkerIndex(0), lookup, self.rx, &request, ());
                }
            }
            let last = answers.sent == self.repeat;
            let wait = if last { self.interval.clamp(LINGER_MIN, LINGER_MAX) } else { self.interval };
            let until = Instant::now() + wait;
            while !(last && answers.waiting.is_empty()) {
                let left = until.saturating_duration_since(Instant::now());
                let Ok(reply) = self.replies.recv_timeout(left) else { break };
                if let Some(nanos) = answers.received(&reply) {
                    let _ = writeln!(
                        text,
                        "{} bytes from {}: icmp_seq={} ttl={} time={}",
                        reply.len,
                        reply.from,
                        reply.sequence,
                        reply.ttl,
                        format!("{:.4} ms", nanos as f64 / 1e6).trim_start_matches('0')
                    );
                }
            }
        }
        dataplane.turn().pings.remove(&self.id);
        let Answers { sent, received, .. } = answers;
        let loss = 100 * (sent - received) / sent.max(1);
        let _ = write!(text, "\nStatistics: {sent} sent, {received} received, {loss}% packet loss\n");
        text
    }
}

/// Which requests wait for their answer.
#[derive(Debug, Default)]
struct Answers {
    sent: u32,
    received: u32,
    /// When each was sent, by sequence number.
    waiting: HashMap<u16, u64>,
}

impl Answers {
    fn sent(&mut self, sequence: u16, now: u64) {
        self.sent += 1;
        self.waiting.insert(sequence, now);
    }

    /// The round trip in nanoseconds; `None` for a second answer, or one to a request that was never sent.
    fn received(&mut self, reply: &EchoReply) -> Option<u64> {
        let sent = self.waiting.remove(&reply.sequence)?;
        self.received += 1;
        Some(reply.received.saturating_sub(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_also_when_it_is_late() {
        let reply = |sequence, received| EchoReply {
            from: Ipv4Addr::LOCALHOST,
            sequence,
            ttl: 64,
            len: 84,
            received,
        };
        let mut answers = Answers::default();
        answers.sent(1, 100);
        answers.sent(2, 200);
        assert_eq!(answers.received(&reply(3, 250)), None);
        assert_eq!(answers.received(&reply(1, 350)), Some(250));
        assert_eq!(answers.received(&reply(1, 360)), None);
        assert_eq!(answers.received(&reply(2, 370)), Some(170));
        assert_eq!((answers.sent, answers.received, answers.waiting.len()), (2, 2, 0));
    }
}
