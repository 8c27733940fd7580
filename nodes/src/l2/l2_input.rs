//! `l2-input`: frames received on an interface in L2 mode.
//!
//! Expects: a whole Ethernet frame of any EtherType.
//! Hands on: to the features of arc `l2-input-ip4`, `l2-input-ip6` or `l2-input-nonip`, by what the frame carries; then frames of a cross-connected
//! interface to `interface-output` of its peer, or `l2-output` where something is left to do, and frames of a bridged one to `l2-fwd`. The tags of received
//! frames are rewritten then.
//! Drops: runts, frames without the tags that are to be taken, and frames of an interface that has left L2 mode meanwhile.
//! Reads: [`L2Tables`].
//! CLI: `set interface l2 xconnect`, `set interface l2 bridge`, `set interface l2 tag-rewrite`.

use super::tables::Addresses;
use super::{
    L2Fwd, L2InputFeatArcEnd, L2Meta, L2Output, L2OutputMeta, L2Port, L2Tables, PortMode, TagRewrite, trace,
};
use crate::acl::packet::payload;
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use wharf_engine::bihash::Place;
use wharf_engine::{
    ArcStart, Cx, Disposition, FeatureArc, Node, PacketRef, Seed, SwIfIndex, Target, TraceView, Way,
    error_counters, next_nodes,
};

macro_rules! arc {
    ($arc:ident, $name:literal, $what:literal) => {
        #[doc = concat!("Arc `", $name, "`: between `l2-input` and `l2-input-feat-arc-end`, for ", $what, ".")]
        #[derive(Debug)]
        pub struct $arc;

        impl FeatureArc for $arc {
            const NAME: &'static str = $name;
            type Meta = ();
            const END: &'static str = L2InputFeatArcEnd::TARGET_NAME;
        }
    };
}

arc!(L2InputIp4Arc, "l2-input-ip4", "IPv4");
arc!(L2InputIp6Arc, "l2-input-ip6", "IPv6");
arc!(L2InputNonIpArc, "l2-input-nonip", "everything else");

/// Where the arcs start.
#[derive(Clone, Copy, Debug)]
pub struct L2InputArcs {
    ip4: ArcStart<L2InputIp4Arc>,
    ip6: ArcStart<L2InputIp6Arc>,
    nonip: ArcStart<L2InputNonIpArc>,
}

impl L2InputArcs {
    /// Those of a graph.
    pub fn new(seed: &Seed<'_>) -> L2InputArcs {
        L2InputArcs { ip4: seed.arc(), ip6: seed.arc(), nonip: seed.arc() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct L2Input {
    /// Where the arcs start.
    arcs: L2InputArcs,
    /// Of the last frame: forgotten at the end of the vector.
    last: Last,
}

/// What the last frame had, if its port has no features.
#[derive(Debug)]
struct Last {
    /// Its port, if frames go on as they are; else none.
    rx: SwIfIndex,
    /// Its port, if one tag of frames is taken, as of a VLAN's; else none.
    popping: SwIfIndex,
    /// The other end, if it is a cross-connect.
    peer: Option<SwIfIndex>,
    addresses: Addresses,
    meta: L2Meta,
}

impl L2Input {
    /// With the starts of its arcs.
    pub fn new(arcs: L2InputArcs) -> L2Input {
        let meta = L2Meta { domain: 0, shg: 0, flags: 0, dst: Place::default(), src: Place::default() };
        let none = SwIfIndex::NONE;
        let last = Last { rx: none, popping: none, peer: None, addresses: Addresses::default(), meta };
        L2Input { arcs, last }
    }

    /// Takes the tag of a frame from a port that the last one came from too, where one is taken, and says where it goes.
    #[inline(always)]
    fn popped(&self, cx: &Cx<'_, L2Input>, p: &mut PacketRef<'_>) -> Option<Next> {
        if p.rx() != self.last.popping || !TagRewrite::has_tag(p) {
            return None;
        }
        let next = match self.last.peer {
            Some(peer) => Next::Output(peer),
            None => Next::Fwd(self.last.meta.of(*p.header(), cx.tables().macs.as_deref()?)),
        };
        TagRewrite::pop_one(p);
        Some(next)
    }
}

next_nodes! {
    /// Where frames go.
    pub enum Next { Output => InterfaceOutput, L2Output => L2Output, Fwd => L2Fwd }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error {
        Truncated => "truncated frame",
        Tags => "frame has not the tags to be rewritten",
        NotL2 => "interface is not in L2 mode",
    }
}

impl Node for L2Input {
    const NAME: &'static str = "l2-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Option<Way<Self>> {
        if p.rx() != self.last.rx || usize::from(p.len()) < EthernetHeader::LEN {
            return None;
        }
        if let Some(peer) = self.last.peer {
            return Some(Way::next(p, Next::Output(peer)));
        }
        let addresses = *p.header::<Addresses>();
        if addresses != self.last.addresses {
            let macs = cx.tables().macs.as_deref()?;
            self.last.addresses = addresses;
            self.last.meta = self.last.meta.of(addresses, macs);
        }
        Some(Way::next(p, Next::Fwd(self.last.meta)))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        // Not in `straight`, where it would cost the frames without tags five instructions.
        if let Some(next) = self.popped(cx, p) {
            return Disposition::Next(next);
        }
        if usize::from(p.len()) < EthernetHeader::LEN {
            return Disposition::Drop(Error::Truncated);
        }
        let Some(port) = cx.tables().port(p.rx()) else {
            return Disposition::Drop(Error::NotL2);
        };
        if port.input_features {
            let rx = p.rx();
            let edge = match payload(p).0 {
                EtherType::IP4 => self.arcs.ip4.enter(cx, p, rx, ()),
                EtherType::IP6 => self.arcs.ip6.enter(cx, p, rx, ()),
                _ => self.arcs.nonip.enter(cx, p, rx, ()),
            };
            if let Some(edge) = edge {
                return Disposition::Edge(edge);
            }
        }
        let next = match switch(cx.tables(), port, p) {
            Ok(next) => next,
            Err(error) => return Disposition::Drop(error),
        };
        (self.last.rx, self.last.popping) = (SwIfIndex::NONE, SwIfIndex::NONE);
        let likewise = match next {
            Next::Output(peer) => {
                self.last.peer = Some(peer);
                true
            }
            Next::Fwd(meta) => {
                (self.last.peer, self.last.addresses, self.last.meta) = (None, *p.header(), meta);
                true
            }
            Next::L2Output(_) => false,
        };
        if likewise && !port.input_features {
            if port.input.is_none() {
                self.last.rx = p.rx();
            } else if port.input.is_pop_one() {
                self.last.popping = p.rx();
            }
        }
        Disposition::Next(next)
    }

    #[inline(always)]
    fn frame_done(&mut self, _: &Cx<'_, Self>) {
        (self.last.rx, self.last.popping) = (SwIfIndex::NONE, SwIfIndex::NONE);
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match view.next() {
            "l2-fwd" => "l2-learn l2-fwd l2-flood ",
            "interface-output" | "l2-output" => "l2-xconnect ",
            other => other,
        };
        write!(f, "l2-input: sw_if_index {} {} [{way}]", view.rx(), trace::addresses(view))
    }
}

/// Rewrites the tags of a frame and says where it goes from its port.
#[inline(always)]
pub(super) fn switch(tables: &L2Tables, port: &L2Port, p: &mut PacketRef<'_>) -> Result<Next, Error> {
    if !port.input.is_none() && port.input.apply(p).is_err() {
        return Err(Error::Tags);
    }
    match port.mode {
        PortMode::Xconnect => Ok(Next::Output(port.peer)),
        PortMode::Bridge => {
            let none = Place::default();
            let meta = L2Meta { domain: port.domain, shg: port.shg, flags: port.flags, dst: none, src: none };
            Ok(Next::Fwd(tables.macs.as_ref().map_or(meta, |macs| meta.of(*p.header(), macs))))
        }
        PortMode::XconnectOutput => Ok(Next::L2Output(L2OutputMeta { tx: port.peer, shg: 0 })),
        PortMode::None => Err(Error::NotL2),
    }
}
