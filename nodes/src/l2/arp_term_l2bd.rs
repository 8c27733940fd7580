//! `arp-term-l2bd`: answers ARP requests in a bridge domain from what the operator said, so that they need not be flooded.
//!
//! Expects: a whole frame to a group with EtherType ARP, and what `l2-input` knows of its port.
//! Hands on: the answer, made in place, to the port that asked; everything that it does not know to `l2-flood`.
//! Drops: what it does not know where flooding is off.
//! Reads: [`L2Tables`].
//! CLI: `set bridge-domain arp term`, `set bridge-domain arp entry`.
//! See: RFC 826.

use super::{L2Flood, L2Meta, L2Output, L2OutputMeta, L2Tables, l2_flags};
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct ArpTermL2bd;

next_nodes! {
    /// Where frames go.
    pub enum Next { L2Output => L2Output, Flood => L2Flood }
}

error_counters! {
    /// What is counted, and why frames are dropped.
    pub enum Error {
        Replies => "ARP replies sent",
        NoFlood => "L2 flooding is off",
    }
}

impl Node for ArpTermL2bd {
    const NAME: &'static str = "arp-term-l2bd";
    type Meta = L2Meta;
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: L2Meta) -> Disposition<Self> {
        if let Some(answer) = answer(cx.tables(), p, meta) {
            let header = EthernetHeader::new(answer.target_mac, answer.sender_mac, EtherType::ARP);
            *p.header_mut() = header;
            p.advance(EthernetHeader::LEN as u16);
            *p.header_mut() = answer;
            p.retreat(EthernetHeader::LEN as u16);
            p.set_len((EthernetHeader::LEN + ArpPacket::LEN) as u16);
            cx.count(Error::Replies);
            // Back to where it came from, and so not subject to split horizon.
            return Disposition::Next(Next::L2Output(L2OutputMeta { tx: p.rx(), shg: 0 }));
        }
        match meta.flags & l2_flags::FLOOD != 0 {
            true => Disposition::Next(Next::Flood(meta)),
            false => Disposition::Drop(Error::NoFlood),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, next {}", view.len(), view.next())
    }
}

/// The reply to a request for an address that the domain knows.
fn answer(tables: &L2Tables, p: &mut PacketRef<'_>, meta: L2Meta) -> Option<ArpPacket> {
    if usize::from(p.len()) < EthernetHeader::LEN + ArpPacket::LEN {
        return None;
    }
    p.advance(EthernetHeader::LEN as u16);
    let arp = *p.header::<ArpPacket>();
    p.retreat(EthernetHeader::LEN as u16);
    let sender = arp.sender_mac;
    let sane = arp.is_ip4_over_ethernet()
        && arp.operation() == ArpOperation::REQUEST
        && !sender.is_multicast()
        && !sender.is_zero()
        && p.header::<EthernetHeader>().src == sender
        && arp.sender_ip() != arp.target_ip();
    let known = tables.domain(meta.domain)?.arp.get(&arp.target_ip()).filter(|_| sane)?;
    // A station that asks for its own address, to see whether another has it, is to hear nothing.
    (*known != sender).then(|| arp.reply(*known))
}
