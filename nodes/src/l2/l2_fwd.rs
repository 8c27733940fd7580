//! `l2-fwd`: learns where a frame's source is, and sends the frame where its destination is, in one pass. VPP has two nodes for it,
//! `l2-learn` and this one; their counters are here.
//!
//! Expects: a whole frame, and what `l2-input` knows of its port.
//! Hands on: frames to known addresses to `interface-output`, or to `l2-output` where something is left to do; frames to the domain's router interface
//! to `ethernet-input` as received on it; groups and unknown addresses to `l2-flood`; ARP requests to `arp-term-l2bd` where it is on.
//! Drops: what the domain's flags, split horizon or a static entry forbid.
//! Reads: [`L2Tables`]. Writes: the [`MacTable`].
//! CLI: `create bridge-domain`, `l2fib add`, `show l2fib`.
//! See: IEEE 802.1Q clause 8.6 to 8.8.

use super::{
    ArpTermL2bd, L2Flood, L2Meta, L2Output, L2OutputMeta, L2Tables, Learned, MacTable, PortMode, Stamp, key,
    l2_flags, trace,
};
use crate::ethernet::EthernetInput;
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug, Default)]
pub struct L2Fwd {
    /// Frames to router interfaces.
    to_bvi: Tally,
}

next_nodes! {
    /// Where frames go.
    pub enum Next {
        Output => InterfaceOutput,
        L2Output => L2Output,
        Flood => L2Flood,
        Ethernet => EthernetInput,
        ArpTerm => ArpTermL2bd,
    }
}

error_counters! {
    /// What is counted, and why frames are dropped.
    pub enum Error {
        Learned => "L2 learn misses",
        Moved => "L2 mac moves",
        Limit => "L2 not learned due to limit",
        Damped => "L2 mac moves damped",
        Violation => "L2 mac move violations",
        FilteredSource => "L2 filter mac drops",
        Miss => "L2 forward misses",
        Filtered => "Filter Mac Drop",
        Reflection => "Reflection Drop",
        SplitHorizon => "L2 split horizon drops",
        NoFlood => "L2 flooding is off",
        Source => "source is a group address or zero",
        NoDomain => "bridge domain is gone",
    }
}

impl Node for L2Fwd {
    const NAME: &'static str = "l2-fwd";
    type Meta = L2Meta;
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    #[inline(always)]
    fn prefetch(&self, cx: &Cx<'_, Self>, p: &PacketRef<'_>) {
        if let Some(macs) = &cx.tables().macs {
            let domain = p.meta::<L2Meta>().domain;
            let header = p.header::<EthernetHeader>();
            macs.prefetch(key(domain, header.dst));
            macs.prefetch(key(domain, header.src));
        }
    }

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: L2Meta) -> Disposition<Self> {
        let Some(macs) = &cx.tables().macs else {
            return Disposition::Drop(Error::NoDomain);
        };
        let &EthernetHeader { dst, src, .. } = p.header();
        let rx = p.rx();
        if meta.flags & l2_flags::LEARN != 0 {
            let key = key(meta.domain, src);
            let fresh = macs.get(key).is_some_and(|entry| entry.is_fresh(rx, Stamp::of(cx.now())));
            if !fresh && let Err(error) = learn(cx, macs, p, meta, key) {
                return Disposition::Drop(error);
            }
        }
        if dst.is_multicast() {
            return group(p, meta);
        }
        let entry = if meta.flags & l2_flags::FORWARD != 0 { macs.get(key(meta.domain, dst)) } else { None };
        let Some(entry) = entry else { return miss(cx, meta) };
        let tx = entry.port();
        let port = cx.tables().port(tx);
        let Some(port) = port.filter(|o| o.domain == meta.domain && o.mode == PortMode::Bridge) else {
            // A filter has no port. Another entry whose port has left the domain is as good as none.
            return if entry.is_filter() { Disposition::Drop(Error::Filtered) } else { miss(cx, meta) };
        };
        if tx == rx {
            return Disposition::Drop(Error::Reflection);
        }
        if meta.shg != 0 && meta.shg == port.shg {
            return Disposition::Drop(Error::SplitHorizon);
        }
        if port.bvi {
            self.to_bvi.count(&cx.interfaces().virtual_rx, cx.worker(), tx.0, p.len());
            p.set_rx(tx);
            return Disposition::Next(Next::Ethernet(()));
        }
        match port.is_plain_output() {
            true => Disposition::Next(Next::Output(tx)),
            false => Disposition::Next(Next::L2Output(L2OutputMeta { tx, shg: meta.shg.into() })),
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.to_bvi.flush(&cx.interfaces().virtual_rx, cx.worker());
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = view.meta::<L2Meta>().domain;
        write!(f, "l2-fwd:   sw_if_index {} {} bd_index {domain}", view.rx(), trace::addresses(view))?;
        match view.outcome() {
            wharf_engine::trace::Outcome::Dropped(_) => write!(f, ", dropped: {}", view.next()),
            _ => write!(f, ", next {}", view.next()),
        }
    }
}

/// Learns the source of a frame that says something new. An error when the frame must not go on.
#[cold]
fn learn(
    cx: &Cx<'_, L2Fwd>,
    macs: &MacTable,
    p: &PacketRef<'_>,
    meta: L2Meta,
    key: u64,
) -> Result<(), Error> {
    let src = p.header::<EthernetHeader>().src;
    if src.is_multicast() || src.is_zero() {
        return Err(Error::Source);
    }
    let tables = cx.tables();
    let domain = tables.domain(meta.domain).map_or(0, |d| d.learn_limit);
    let port = tables.port(p.rx()).map_or(0, |port| port.learn_limit);
    match macs.learn(key, p.rx(), Stamp::of(cx.now()), [port, domain]) {
        Learned::Known | Learned::Busy => {}
        Learned::New => cx.count(Error::Learned),
        Learned::Moved => cx.count(Error::Moved),
        Learned::Limit => cx.count(Error::Limit),
        Learned::Damped => cx.count(Error::Damped),
        Learned::Violation => return Err(Error::Violation),
        Learned::Filtered => return Err(Error::FilteredSource),
    }
    Ok(())
}

/// A frame to a group.
#[inline(always)]
fn group(p: &PacketRef<'_>, meta: L2Meta) -> Disposition<L2Fwd> {
    let is_arp = p.header::<EthernetHeader>().ethertype() == EtherType::ARP;
    if is_arp && meta.flags & l2_flags::ARP_TERM != 0 {
        return Disposition::Next(Next::ArpTerm(meta));
    }
    match meta.flags & l2_flags::FLOOD != 0 {
        true => Disposition::Next(Next::Flood(meta)),
        false => Disposition::Drop(Error::NoFlood),
    }
}

/// A frame to nobody known.
#[inline(always)]
fn miss(cx: &Cx<'_, L2Fwd>, meta: L2Meta) -> Disposition<L2Fwd> {
    // Where it goes to one port alone, that is no flooding.
    let elsewhere = || cx.tables().domain(meta.domain).is_some_and(|d| d.uu_fwd.is_some());
    if meta.flags & l2_flags::UU_FLOOD != 0 || elsewhere() {
        cx.count(Error::Miss);
        return Disposition::Next(Next::Flood(meta));
    }
    Disposition::Drop(Error::NoFlood)
}
