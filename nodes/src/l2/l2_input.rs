//! `l2-input`: frames received on an interface in L2 mode.
//!
//! Expects: a whole Ethernet frame of any EtherType.
//! Hands on: frames of a cross-connected interface to `interface-output` of its peer, or `l2-output` where tags are rewritten; frames of
//! a bridged one to `l2-fwd`. The tags of received frames are rewritten here.
//! Drops: runts, frames without the tags that are to be taken, and frames of an interface that has left L2 mode meanwhile.
//! Reads: [`L2Tables`].
//! CLI: `set interface l2 xconnect`, `set interface l2 bridge`, `set interface l2 tag-rewrite`.

use super::{L2Fwd, L2Meta, L2Output, L2OutputMeta, L2Tables, PortMode, trace};
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::EthernetHeader;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct L2Input;

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

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        if usize::from(p.len()) < EthernetHeader::LEN {
            return Disposition::Drop(Error::Truncated);
        }
        let Some(port) = cx.tables().port(p.rx()) else {
            return Disposition::Drop(Error::NotL2);
        };
        if !port.input.is_none() && port.input.apply(p).is_err() {
            return Disposition::Drop(Error::Tags);
        }
        match port.mode {
            PortMode::Xconnect => Disposition::Next(Next::Output(port.peer)),
            PortMode::Bridge => {
                Disposition::Next(Next::Fwd(L2Meta { domain: port.domain, shg: port.shg, flags: port.flags }))
            }
            PortMode::XconnectRewrite => {
                Disposition::Next(Next::L2Output(L2OutputMeta { tx: port.peer, shg: 0 }))
            }
            PortMode::None => Disposition::Drop(Error::NotL2),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match view.next() {
            "l2-fwd" => "l2-learn l2-fwd l2-flood ",
            _ => "l2-xconnect ",
        };
        write!(f, "l2-input: sw_if_index {} {} [{way}]", view.rx(), trace::addresses(view))
    }
}
