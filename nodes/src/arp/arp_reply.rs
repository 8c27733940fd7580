//! `arp-reply`: answers requests for our addresses, and tells the control plane about neighbours.
//!
//! Expects: a checked ARP packet, without the Ethernet header that precedes it in the buffer.
//! Hands on: the answer, made in place, to `interface-output` of the receiving interface.
//! Drops: everything else, once it was looked at.
//! Reads: [`ArpTables`].
//! CLI: `show ip neighbors`.
//! See: RFC 826; RFC 5227 section 2.4 for conflicts.

use super::{ArpTables, arp_input};
use crate::event::{Event, EventSender};
use crate::interface::InterfaceOutput;
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct ArpReply {
    /// To the control plane.
    pub events: EventSender,
}

next_nodes! {
    /// Where answers go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// What is counted, and why packets end here.
    pub enum Error {
        RepliesSent => "ARP replies sent",
        RepliesReceived => "ARP replies received",
        SourceNotLocal => "IP4 source address not local to subnet",
        DestinationNotLocal => "IP4 destination address not local",
        SourceIsOurs => "IP4 source address matches local interface",
        Gratuitous => "ARP probe or announcement learned",
        Behind => "control plane is behind, neighbour not learned",
        Disabled => "ARP Disabled on this interface",
    }
}

impl Node for ArpReply {
    const NAME: &'static str = "arp-reply";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ArpTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let rx = p.rx();
        let Some(interface) = cx.tables().get(rx) else {
            return Disposition::Drop(Error::Disabled);
        };
        let arp = *p.header::<ArpPacket>();
        if interface.is_own(arp.sender_ip()) {
            return Disposition::Drop(Error::SourceIsOurs);
        }
        let for_us = interface.is_own(arp.target_ip());
        // RFC 5227 section 1.1: a probe has the sender address 0.0.0.0; it is answered, and teaches nothing.
        let probe = arp.sender_ip().is_unspecified();
        let local = interface.is_neighbour(arp.sender_ip());
        if local && (for_us || arp.is_gratuitous()) {
            let seen =
                Event::ArpSeen { interface: rx, address: arp.sender_ip(), mac: arp.sender_mac, for_us };
            if !self.events.send(seen) {
                cx.count(Error::Behind);
            }
        }
        match arp.operation() {
            _ if !local && !probe => Disposition::Drop(Error::SourceNotLocal),
            ArpOperation::REPLY => Disposition::Drop(Error::RepliesReceived),
            _ if !for_us && arp.is_gratuitous() => Disposition::Drop(Error::Gratuitous),
            _ if !for_us => Disposition::Drop(Error::DestinationNotLocal),
            _ => {
                *p.header_mut::<ArpPacket>() = arp.reply(interface.mac);
                p.set_len(ArpPacket::LEN as u16);
                p.retreat(EthernetHeader::LEN as u16);
                *p.header_mut::<EthernetHeader>() =
                    EthernetHeader::new(arp.sender_mac, interface.mac, EtherType::ARP);
                cx.count(Error::RepliesSent);
                Disposition::Next(Next::Output(rx))
            }
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        arp_input::arp(view.data(), f)
    }
}
