//! `arp-input`: received ARP packets, checked.
//!
//! Expects: an ARP packet, without the Ethernet header that precedes it in the buffer.
//! Hands on: requests and replies of IPv4 over Ethernet to `arp-reply`.
//! Drops: everything else, and what comes over an interface without an IPv4 address.
//! Reads: [`ArpTables`].
//! See: RFC 826, RFC 5227 section 2.

use super::{ArpReply, ArpTables};
use crate::wire::arp::{ArpOperation, ArpPacket};
use crate::wire::ethernet::{EthernetHeader, MacAddress};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct ArpInput;

next_nodes! {
    /// Where packets go.
    pub enum Next { Reply => ArpReply }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error {
        Truncated => "truncated ARP packet",
        NotIp4 => "ARP hw or protocol type is not Ethernet and IP4",
        Opcode => "Unknown ARP opcode",
        Disabled => "ARP Disabled on this interface",
        SenderMac => "ARP sender MAC is a group address or zero",
        MacMismatch => "Hw addr mismatch",
    }
}

impl Node for ArpInput {
    const NAME: &'static str = "arp-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ArpTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let Some(arp) = p.try_header::<ArpPacket>() else {
            return Disposition::Drop(Error::Truncated);
        };
        if !arp.is_ip4_over_ethernet() {
            return Disposition::Drop(Error::NotIp4);
        }
        let operation = arp.operation();
        if operation != ArpOperation::REQUEST && operation != ArpOperation::REPLY {
            return Disposition::Drop(Error::Opcode);
        }
        let sender = arp.sender_mac;
        if sender.is_multicast() || sender.is_zero() {
            return Disposition::Drop(Error::SenderMac);
        }
        if cx.tables().get(p.rx()).is_none() {
            return Disposition::Drop(Error::Disabled);
        }
        p.retreat(EthernetHeader::LEN as u16);
        let outer: MacAddress = p.header::<EthernetHeader>().src;
        p.advance(EthernetHeader::LEN as u16);
        if outer != sender {
            return Disposition::Drop(Error::MacMismatch);
        }
        Disposition::Next(Next::Reply(()))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        arp(view.data(), f)
    }
}

/// `request, type ethernet/IP4, address size 6/4`, and who is asked for.
pub(super) fn arp(data: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match ArpPacket::ref_from_prefix(data) {
        Ok((arp, _)) => write!(
            f,
            "{}, type {}, address size {}/{}\n  {}/{} -> {}/{}",
            arp.operation(),
            if arp.is_ip4_over_ethernet() { "ethernet/IP4" } else { "unknown" },
            arp.hardware_len,
            arp.protocol_len,
            arp.sender_mac,
            arp.sender_ip(),
            arp.target_mac,
            arp.target_ip(),
        ),
        Err(_) => write!(f, "truncated, {} bytes", data.len()),
    }
}
