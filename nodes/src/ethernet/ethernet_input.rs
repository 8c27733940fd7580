//! `ethernet-input`: received frames, sorted by what their interface is for and by EtherType.
//!
//! Expects: a whole Ethernet frame without FCS.
//! Hands on: frames of interfaces in L2 mode to `l2-input`, whole; the others without their header to `ip4-input` and `arp-input`.
//! Drops: frames that are too short, not for this interface, or of a protocol that is not here; unicast packets in a group's frame.
//! Reads: [`InterfaceTables`].
//! CLI: `set interface l2 xconnect`, `set interface l3`, `set interface mac address`.
//! See: IEEE 802.3, RFC 894, RFC 1812 section 5.3.4.

use crate::arp::ArpInput;
use crate::interface::{InterfaceTables, L2Mode};
use crate::ip4::Ip4Input;
use crate::l2::L2Input;
use crate::wire::ethernet::{EtherType, EthernetHeader};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct EthernetInput;

next_nodes! {
    /// Where frames go.
    pub enum Next { Ip4 => Ip4Input, Arp => ArpInput, L2 => L2Input }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error {
        Truncated => "truncated frame",
        UnknownType => "unknown ethernet type",
        UnknownVlan => "unknown vlan",
        MacMismatch => "l3 mac mismatch",
        GroupFrame => "unicast IP4 packet in a group frame",
        Length => "bad llc length",
        NoInterface => "interface is deleted",
    }
}

impl Node for EthernetInput {
    const NAME: &'static str = "ethernet-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = InterfaceTables;

    #[inline(always)]
    fn prefetch(&self, _: &Cx<'_, Self>, p: &PacketRef<'_>) {
        p.prefetch_header();
    }

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let Some(interface) = cx.tables().get(p.rx()) else {
            return Disposition::Drop(Error::NoInterface);
        };
        if interface.mode != L2Mode::L3 {
            return Disposition::Next(Next::L2(()));
        }
        let Some(header) = p.try_header::<EthernetHeader>() else {
            return Disposition::Drop(Error::Truncated);
        };
        let (ethertype, dst) = (header.ethertype(), header.dst);
        if dst != interface.mac
            && let Err(error) = not_own(p)
        {
            return Disposition::Drop(error);
        }
        p.advance(EthernetHeader::LEN as u16);
        match ethertype {
            EtherType::IP4 => Disposition::Next(Next::Ip4(())),
            EtherType::ARP => Disposition::Next(Next::Arp(())),
            other => Disposition::Drop(unknown(other)),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame: {} bytes, sw-if-index {}\n  ", view.len(), view.rx())?;
        super::trace::frame(view.data(), f)
    }
}

/// Whether a frame that is not sent to the interface's own address is for it nevertheless.
#[cold]
fn not_own(p: &PacketRef<'_>) -> Result<(), Error> {
    let header = p.header::<EthernetHeader>();
    if !header.dst.is_multicast() {
        return Err(Error::MacMismatch);
    }
    // RFC 1812 section 5.3.4: "a router MUST NOT forward any packet that the router received as a Link Layer broadcast,
    // unless it is directed to an IP Multicast address". Class D and what is beyond is for ip4-input to judge.
    let packet = p.data().get(EthernetHeader::LEN..).unwrap_or_default();
    match Ip4Header::ref_from_prefix(packet) {
        Ok((ip, _)) if header.ethertype() == EtherType::IP4 && ip.dst.get() < 0xe000_0000 => {
            Err(Error::GroupFrame)
        }
        _ => Ok(()),
    }
}

#[cold]
fn unknown(ethertype: EtherType) -> Error {
    match ethertype {
        t if t.is_vlan() => Error::UnknownVlan,
        t if t.is_length() => Error::Length,
        _ => Error::UnknownType,
    }
}
