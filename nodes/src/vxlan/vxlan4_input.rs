//! `vxlan4-input`: packets from a peer lose the headers around the frame in them.
//!
//! Expects: a valid IPv4 packet to one of our addresses, with a complete UDP datagram to a port that tunnels use.
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
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{
    Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, error_counters, flags, next_nodes,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Vxlan4Input {
    /// Frames of tunnels.
    received: Tally,
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

/// The tunnel of a packet.
#[inline(always)]
fn find(tables: &VxlanTables, outer: &OuterHeader, vni: u32) -> Option<SwIfIndex> {
    let decap = tables.decap.as_ref()?;
    let peer = outer.ip.src.get();
    let found = decap.get(decap_key(peer, Some(vni)));
    let found = found.or_else(|| if tables.any_vni { decap.get(decap_key(peer, None)) } else { None });
    found.map(|index| SwIfIndex(index as u32))
}

/// Whether the tunnel is at the address and port that the packet came to.
#[inline(always)]
fn is_for(tunnel: &VxlanTunnel, ip: &Ip4Header, udp: &UdpHeader) -> bool {
    tunnel.outer.ip.src == ip.dst && tunnel.local_port == udp.dst_port.get()
}

impl Node for Vxlan4Input {
    const NAME: &'static str = "vxlan4-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = VxlanTables;

    #[inline(always)]
    fn prefetch(&self, cx: &Cx<'_, Self>, p: &PacketRef<'_>) {
        // Without options, as almost always; else it is the wrong bucket.
        let outer = p.header::<OuterHeader>();
        if let Some(decap) = &cx.tables().decap {
            decap.prefetch(decap_key(outer.ip.src.get(), Some(outer.vxlan.vni())));
        }
    }

    #[inline(always)]
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
        let tables = cx.tables();
        let tunnel = find(tables, &outer, outer.vxlan.vni()).and_then(|index| tables.get(index));
        let Some(tunnel) = tunnel.filter(|t| is_for(t, &outer.ip, &outer.udp)) else {
            return Disposition::Drop(Error::NoSuchTunnel);
        };
        if !tunnel.up {
            return Disposition::Drop(Error::Down);
        }
        p.advance(OuterHeader::LEN as u16);
        p.set_rx(tunnel.sw_if_index);
        p.clear_flags(flags::L4_CSUM_PARTIAL | flags::LOCALLY_ORIGINATED);
        self.received.count(&cx.interfaces().virtual_rx, cx.worker(), tunnel.sw_if_index.0, p.len());
        match tunnel.decap {
            Decap::Ip4 => Disposition::Next(Next::Ip4(())),
            _ if usize::from(p.len()) < EthernetHeader::LEN => Disposition::Drop(Error::Truncated),
            Decap::L2 => Disposition::Next(Next::L2(())),
            Decap::Ethernet => Disposition::Next(Next::Ethernet(())),
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.received.flush(&cx.interfaces().virtual_rx, cx.worker());
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
