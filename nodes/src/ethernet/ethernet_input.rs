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
use crate::l2::{L2Input, TagRewrite, read_tags, tags};
use crate::wire::ethernet::{EtherType, EthernetHeader, MacAddress, VlanTag};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, Way, error_counters, next_nodes};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// See the module.
#[derive(Debug)]
pub struct EthernetInput {
    /// Frames of sub-interfaces.
    subs: Tally,
    /// The last frame's interface, if it is in L3 mode: forgotten at the end of the frame.
    rx: SwIfIndex,
    /// Its MAC address.
    mac: MacAddress,
    /// The last frame of a trunk, if it was for layer 2: forgotten at the end of the frame.
    tagged: Tagged,
}

/// A frame of a trunk that goes to layer 2, and so as it is. Others with the same tags go there too.
#[derive(Debug)]
struct Tagged {
    /// The trunk.
    rx: SwIfIndex,
    /// Where its frames are received.
    to: SwIfIndex,
    /// What follows the addresses, of which `mask` counts: its tags, and the type behind them.
    front: u64,
    mask: u64,
    /// As long is a frame that has them.
    len: u16,
}

impl Default for EthernetInput {
    fn default() -> EthernetInput {
        let none = SwIfIndex::NONE;
        let tagged = Tagged { rx: none, to: none, front: 0, mask: 0, len: 0 };
        EthernetInput { subs: Tally::default(), rx: none, mac: MacAddress::default(), tagged }
    }
}

/// The front of a frame: what is behind its addresses, as far as that says for which sub-interface it is.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Front {
    addresses: [u8; 12],
    rest: [u8; 8],
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

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Option<Way<Self>> {
        let header = p.header::<EthernetHeader>();
        let whole = usize::from(p.len()) >= EthernetHeader::LEN;
        if p.rx() != self.rx || !(whole & (header.ethertype() == EtherType::IP4) & same(header.dst, self.mac))
        {
            return self.tagged(cx, p);
        }
        p.advance(EthernetHeader::LEN as u16);
        Some(Way::next(p, Next::Ip4(())))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let Some(mut interface) = cx.tables().get(p.rx()) else {
            return Disposition::Drop(Error::NoInterface);
        };
        if interface.mode != InputMode::L3 {
            let trunk = p.rx();
            match self.not_l3(cx, p) {
                Ok(InputMode::L2 | InputMode::Trunk) => {
                    self.remember(trunk, p);
                    return Disposition::Next(Next::L2(()));
                }
                Ok(InputMode::L3) => interface = cx.tables().get(p.rx()).unwrap_or(interface),
                Err(error) => return Disposition::Drop(error),
            }
        } else {
            (self.rx, self.mac) = (p.rx(), interface.mac);
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
        self.rx = SwIfIndex::NONE;
        self.tagged.rx = SwIfIndex::NONE;
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame: {} bytes, sw-if-index {}\n  ", view.len(), view.rx())?;
        super::trace::frame(view.data(), f)
    }
}

impl EthernetInput {
    /// As [`Self::process`], of a frame with the tags of the last one that went to layer 2.
    #[inline(always)]
    fn tagged(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>) -> Option<Way<Self>> {
        let last = &self.tagged;
        let front = u64::from_ne_bytes(p.header::<Front>().rest);
        if p.rx() != last.rx || (front ^ last.front) & last.mask != 0 || p.len() < last.len {
            return None;
        }
        if last.to != last.rx {
            self.subs.count(&cx.interfaces().virtual_rx, cx.worker(), last.to.0, p.len());
            p.set_rx(last.to);
        }
        Some(Way::next(p, Next::L2(())))
    }

    /// Keeps what was found out about a frame of `trunk`, which goes to layer 2 untouched.
    fn remember(&mut self, trunk: SwIfIndex, p: &PacketRef<'_>) {
        let rest = p.header::<Front>().rest;
        let [a, b, _, _, c, d, _, _] = rest;
        // The type behind the tags counts: it says that there are no more of them. Where it is a tag's, the frame is cut short.
        let (ethertype, mask, len) = match tags(p) {
            0 => ([a, b], u64::from_ne_bytes([0xff, 0xff, 0, 0, 0, 0, 0, 0]), EthernetHeader::LEN),
            1 => {
                let mask = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
                ([c, d], mask, EthernetHeader::LEN + VlanTag::LEN)
            }
            _ => ([0; 2], u64::MAX, EthernetHeader::LEN + 2 * VlanTag::LEN),
        };
        if !EtherType(u16::from_be_bytes(ethertype)).is_vlan() {
            let front = u64::from_ne_bytes(rest);
            self.tagged = Tagged { rx: trunk, to: p.rx(), front, mask, len: len as u16 };
        }
    }

    /// Finds the sub-interface of a frame received on a trunk, and says what is done with its frames. An L3 one's has lost its tags then.
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

/// Whether two addresses are equal, four bytes and two at a time: an array's own comparison first makes numbers of 48 bits.
#[inline(always)]
fn same(a: MacAddress, b: MacAddress) -> bool {
    let parts = |mac: MacAddress| {
        let [a, b, c, d, e, f] = mac.0;
        (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
    };
    let ((a, b), (c, d)) = (parts(a), parts(b));
    (a ^ c) | u32::from(b ^ d) == 0
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
