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

use super::tables::Addresses;
use super::{
    ArpTermL2bd, L2Flood, L2Meta, L2Output, L2OutputMeta, L2Tables, Learned, MacTable, PortMode, Stamp, key,
    l2_flags, trace,
};
use crate::ethernet::EthernetInput;
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, Way, error_counters, next_nodes};

/// See the module.
#[derive(Debug, Default)]
pub struct L2Fwd {
    /// Frames to router interfaces.
    to_bvi: Tally,
    last: Last,
}

/// The last frame of this vector that went from one known station to another. What has the same addresses, on the same port, goes the same way and
/// teaches nothing: the packets of a flow come together, and the table is asked once for all of them.
#[derive(Debug)]
struct Last {
    addresses: Addresses,
    /// Where it came from; none while there is no such frame.
    rx: SwIfIndex,
    tx: SwIfIndex,
    /// See [`super::L2Port::is_plain_output`].
    plain: bool,
}

impl Default for Last {
    fn default() -> Last {
        Last { addresses: Addresses::default(), rx: SwIfIndex::NONE, tx: SwIfIndex::NONE, plain: false }
    }
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

    const STRAIGHT: bool = true;

    /// From a station that is known and was seen of late, to another that is known. `l2-input` has asked for their buckets.
    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: L2Meta) -> Option<Way<Self>> {
        let addresses = *p.header::<Addresses>();
        let rx = p.rx();
        // What `meta` says is the same for all such frames of a port.
        if addresses == self.last.addresses && rx == self.last.rx {
            return Some(Way::next(p, output(self.last.tx, self.last.plain, meta)));
        }
        let tables = cx.tables();
        let macs = tables.macs.as_deref()?;
        let [dst, src] = addresses.keys(meta.domain);
        let now = Stamp::of(cx.now());
        if meta.flags & l2_flags::LEARN != 0 && !macs.get_at(src, meta.src)?.is_fresh(rx, now) {
            return None;
        }
        if meta.flags & l2_flags::FORWARD == 0 {
            return None;
        }
        let tx = macs.get_at(dst, meta.dst)?.port();
        let port = tables.port(tx)?;
        let apart = meta.shg == 0 || meta.shg != port.shg;
        if port.mode != PortMode::Bridge || port.domain != meta.domain || tx == rx || !apart {
            return None;
        }
        if port.bvi {
            let next = self.hand_to_bvi(cx, p, tx);
            return Some(Way::next(p, next));
        }
        let plain = port.is_plain_output();
        self.last = Last { addresses, rx, tx, plain };
        Some(Way::next(p, output(tx, plain, meta)))
    }

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
        Disposition::Next(match port.bvi {
            true => self.hand_to_bvi(cx, p, tx),
            false => output(tx, port.is_plain_output(), meta),
        })
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.to_bvi.flush(&cx.interfaces().virtual_rx, cx.worker());
        // By the next one, other workers or main may have changed what was looked up.
        self.last.rx = SwIfIndex::NONE;
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

impl L2Fwd {
    /// To the domain's router interface.
    #[inline(always)]
    fn hand_to_bvi(&mut self, cx: &Cx<'_, L2Fwd>, p: &mut PacketRef<'_>, bvi: SwIfIndex) -> Next {
        self.to_bvi.count(&cx.interfaces().virtual_rx, cx.worker(), bvi.0, p.len());
        p.set_rx(bvi);
        Next::Ethernet(())
    }
}

/// To a known station.
#[inline(always)]
fn output(tx: SwIfIndex, plain: bool, meta: L2Meta) -> Next {
    match plain {
        true => Next::Output(tx),
        false => Next::L2Output(L2OutputMeta { tx, shg: meta.shg.into() }),
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
