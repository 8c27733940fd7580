//! `vxlan4-input`: packets from a peer lose the headers around the frame in them.
//!
//! Expects: a valid IPv4 packet to one of our addresses, or to a group that a tunnel has, with a complete UDP datagram to a port that tunnels use.
//! Hands on: the frame, as received on the tunnel's interface, to `l2-input` when that is in L2 mode, else to `ethernet-input`; the packet in it to
//! `ip4-input` when the tunnel carries no Ethernet headers.
//! Drops: what is cut short, has no valid identifier, or is of no tunnel.
//! Reads: [`VxlanTables`].
//! CLI: `create vxlan tunnel`, `show vxlan tunnel`.
//! See: RFC 7348 sections 4 and 5.

use super::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
use crate::ethernet::EthernetInput;
use crate::ip4::Ip4Input;
use crate::l2::L2Input;
use crate::wire::ethernet::EthernetHeader;
use crate::wire::ip4::Ip4Header;
use crate::wire::udp::UdpHeader;
use crate::wire::{U16, U32, VxlanHeader};
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{
    Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, Way, error_counters, flags, next_nodes,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Vxlan4Input {
    /// Frames of tunnels.
    received: Tally,
    /// Of the last packet: forgotten at the end of the frame.
    last: Last,
}

/// The addresses, port and VXLAN header of packets of a tunnel that is up, and carries frames to be bridged or cross-connected.
#[derive(Debug)]
struct Last {
    tunnel: SwIfIndex,
    addresses: [U32; 2],
    port: U16,
    vxlan: VxlanHeader,
}

impl Default for Last {
    fn default() -> Last {
        Last {
            tunnel: SwIfIndex::NONE,
            addresses: [U32::ZERO; 2],
            port: U16::ZERO,
            vxlan: VxlanHeader::default(),
        }
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next { L2 => L2Input, Ethernet => EthernetInput, Ip4 => Ip4Input }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error {
        Truncated => "truncated vxlan packet",
        BadFlags => "packets with bad flags field in vxlan header",
        NoSuchTunnel => "no such tunnel packets",
        Down => "tunnel is down",
    }
}

/// The tunnel of a packet: that of its peer. Where a tunnel listens to a group, other peers' are of that one: they send to the group, or to our address once
/// they have learned it (RFC 7348 section 4.1).
#[inline(always)]
fn find<'t>(tables: &'t VxlanTables, outer: &OuterHeader) -> Option<&'t VxlanTunnel> {
    let decap = tables.decap.as_deref()?;
    let vni = outer.vxlan.vni();
    let of = |address: U32| {
        let found = decap.get(decap_key(address.get(), Some(vni)));
        let found = match found {
            None if tables.any_vni => decap.get(decap_key(address.get(), None)),
            found => found,
        };
        let tunnel = tables.get(SwIfIndex(found? as u32));
        tunnel.filter(|tunnel| tunnel.local_port == outer.udp.dst_port.get())
    };
    let (from, to) = (outer.ip.src, outer.ip.dst);
    let peer = of(from);
    if let Some(tunnel) = peer.filter(|tunnel| tunnel.outer.ip.src == to) {
        return Some(tunnel);
    }
    if !tables.groups {
        return None;
    }
    let group = of(to)
        .filter(|tunnel| tunnel.is_group() && [tunnel.outer.ip.src, tunnel.outer.ip.dst].contains(&to))?;
    Some(peer.filter(|tunnel| tunnel.outer.ip.src == group.outer.ip.src).unwrap_or(group))
}

/// Takes the headers away: the packet is now one that the tunnel received.
#[inline(always)]
fn enter(p: &mut PacketRef<'_>, tunnel: SwIfIndex) {
    p.advance(OuterHeader::LEN as u16);
    p.set_rx(tunnel);
    p.clear_flags(flags::L4_CSUM_PARTIAL | flags::LOCALLY_ORIGINATED);
}

impl Node for Vxlan4Input {
    const NAME: &'static str = "vxlan4-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = VxlanTables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn prefetch(&self, cx: &Cx<'_, Self>, p: &PacketRef<'_>) {
        // Without options, as almost always; else it is the wrong bucket.
        let outer = p.header::<OuterHeader>();
        if outer.ip.src == self.last.addresses[0] && outer.vxlan == self.last.vxlan {
            return;
        }
        if let Some(decap) = &cx.tables().decap {
            decap.prefetch(decap.place(decap_key(outer.ip.src.get(), Some(outer.vxlan.vni()))));
        }
    }

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Option<Way<Self>> {
        let (outer, last) = (p.header::<OuterHeader>(), &self.last);
        let same = (outer.ip.src == last.addresses[0]) & (outer.ip.dst == last.addresses[1]);
        let same = same & (outer.udp.dst_port == last.port) & (outer.vxlan == last.vxlan);
        let whole = usize::from(p.len()) >= OuterHeader::LEN + EthernetHeader::LEN;
        let plain = outer.ip.version_ihl == Ip4Header::VERSION_IHL;
        if !(same & whole & plain) || last.tunnel == SwIfIndex::NONE {
            return None;
        }
        let tunnel = last.tunnel;
        enter(p, tunnel);
        self.received.count(&cx.interfaces().virtual_rx, cx.worker(), tunnel.0, p.len());
        Some(Way::next(p, Next::L2(())))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let mut outer = *p.header::<OuterHeader>();
        // Options are taken out of the way.
        let options = (outer.ip.header_len() - Ip4Header::LEN.min(outer.ip.header_len())) as u16;
        if options != 0 {
            let ip = outer.ip;
            p.advance(options);
            outer = *p.header::<OuterHeader>();
            outer.ip = ip;
        }
        if usize::from(p.len()) < OuterHeader::LEN {
            return Disposition::Drop(Error::Truncated);
        }
        if !outer.vxlan.is_valid() {
            return Disposition::Drop(Error::BadFlags);
        }
        let Some(tunnel) = find(cx.tables(), &outer) else {
            return Disposition::Drop(Error::NoSuchTunnel);
        };
        if !tunnel.up {
            return Disposition::Drop(Error::Down);
        }
        enter(p, tunnel.sw_if_index);
        self.received.count(&cx.interfaces().virtual_rx, cx.worker(), tunnel.sw_if_index.0, p.len());
        match tunnel.decap {
            Decap::Ip4 => Disposition::Next(Next::Ip4(())),
            _ if usize::from(p.len()) < EthernetHeader::LEN => Disposition::Drop(Error::Truncated),
            Decap::L2 => {
                self.last = Last {
                    tunnel: tunnel.sw_if_index,
                    addresses: [outer.ip.src, outer.ip.dst],
                    port: outer.udp.dst_port,
                    vxlan: outer.vxlan,
                };
                Disposition::Next(Next::L2(()))
            }
            Decap::Ethernet => Disposition::Next(Next::Ethernet(())),
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.received.flush(&cx.interfaces().virtual_rx, cx.worker());
        self.last.tunnel = SwIfIndex::NONE;
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Ip4Header::LEN + UdpHeader::LEN;
        let vni = view.data().get(at + 4..at + 7).unwrap_or(&[0; 3]);
        let vni = vni.iter().fold(0u32, |vni, byte| vni << 8 | u32::from(*byte));
        match view.outcome() {
            wharf_engine::trace::Outcome::Dropped(_) => {
                write!(f, "VXLAN decap vni {vni}, dropped: {}", view.next())
            }
            _ => write!(f, "VXLAN decap vni {vni} next {}", view.next()),
        }
    }
}
