//! `l2-input`: frames received on an interface in L2 mode.
//!
//! Expects: a whole Ethernet frame of any EtherType.
//! Hands on: frames of a cross-connected interface to `interface-output` of its peer. The frame is not read.
//! Drops: runts, and frames of an interface that has left L2 mode meanwhile.
//! Reads: [`InterfaceTables`].
//! CLI: `set interface l2 xconnect`.

use crate::interface::{InterfaceOutput, InterfaceTables, L2Mode};
use crate::wire::ethernet::EthernetHeader;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct L2Input;

next_nodes! {
    /// Where frames go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error {
        Truncated => "truncated frame",
        NotL2 => "interface is not in L2 mode",
    }
}

impl Node for L2Input {
    const NAME: &'static str = "l2-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = InterfaceTables;

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        if usize::from(p.len()) < EthernetHeader::LEN {
            return Disposition::Drop(Error::Truncated);
        }
        match cx.tables().get(p.rx()).map(|i| i.mode) {
            Some(L2Mode::Xconnect(peer)) => Disposition::Next(Next::Output(peer)),
            _ => Disposition::Drop(Error::NotL2),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |at: usize| -> String {
            let bytes: Vec<String> =
                view.data().iter().skip(at).take(6).map(|b| format!("{b:02x}")).collect();
            bytes.join(":")
        };
        write!(f, "l2-input: sw_if_index {} dst {} src {} [l2-xconnect ]", view.rx(), mac(0), mac(6))
    }
}
