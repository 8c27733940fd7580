//! `ethernet-input`: received frames, sorted by what their interface is for and by EtherType.
//!
//! Expects: a whole Ethernet frame without FCS.
//! Hands on: frames of interfaces in L2 mode to `l2-input`, whole; the others without their header to `ip4-input` and `arp-input`. A
//! tagged frame is received on the sub-interface of its tags, if there is one; an L3 one gets it without them.
//! Drops: frames that are too short, not for this interface, or of a protocol that is not here; unicast packets in a group's frame.
//! Reads: [`InterfaceTables`].
//! CLI: `set interface l2 xconnect`, `set interface l3`, `set interface mac address`, `create sub-interfaces`.
//! See: IEEE 802.3, 802.1Q, RFC 894, RFC 1812 section 5.3.4.

use crate::arp::ArpInput;
use crate::interface::{InputMode, InterfaceTables};
use crate::ip4::Ip4Input;
use crate::l2::{L2Input, TagRewrite, read_tags};
use crate::wire::ethernet::{EtherType, EthernetHeader};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug, Default)]
pub struct EthernetInput {
    /// Frames of sub-interfaces.
    subs: Tally,
}

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
        SubInterfaceDown => "subinterface down",
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
        let Some(mut interface) = cx.tables().get(p.rx()) else {
            return Disposition::Drop(Error::NoInterface);
        };
        if interface.mode != InputMode::L3 {
            match self.not_l3(cx, p) {
                Ok(InputMode::L2 | InputMode::Trunk) => return Disposition::Next(Next::L2(())),
                Ok(InputMode::L3) => interface = cx.tables().get(p.rx()).unwrap_or(interface),
                Err(error) => return Disposition::Drop(error),
            }
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

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.subs.flush(&cx.interfaces().virtual_rx, cx.worker());
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame: {} bytes, sw-if-index {}\n  ", view.len(), view.rx())?;
        super::trace::frame(view.data(), f)
    }
}

impl EthernetInput {
    /// Finds the sub-interface of a frame received on a trunk, and says what is done with its frames. An L3 one's has lost its tags then.
    #[inline(never)]
    fn not_l3(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>) -> Result<InputMode, Error> {
        let rx = p.rx();
        let tables = cx.tables();
        let mode = tables.get(rx).map_or(InputMode::L2, |i| i.mode);
        let trunk = tables.trunks.get(rx.index()).and_then(Option::as_deref);
        let Some(trunk) = trunk.filter(|_| mode == InputMode::Trunk) else {
            return Ok(InputMode::L2);
        };
        if usize::from(p.len()) < EthernetHeader::LEN {
            return Err(Error::Truncated);
        }
        let (count, tags) = read_tags(p);
        let Some(sub) = trunk.find(count, tags) else {
            // A tag left over is an unknown EtherType to the L3 path, which says so.
            return Ok(trunk.main());
        };
        self.subs.count(&cx.interfaces().virtual_rx, cx.worker(), sub.0, p.len());
        p.set_rx(sub);
        let entry = tables.get(sub).filter(|entry| entry.up).ok_or(Error::SubInterfaceDown)?;
        if entry.mode == InputMode::L3 {
            let output = tables.outputs.get(sub.index()).and_then(Option::as_ref);
            let own = output.map_or(0, |output| output.tags.push);
            TagRewrite::new(own, &[]).apply(p).map_err(|_| Error::UnknownVlan)?;
        }
        Ok(entry.mode)
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
