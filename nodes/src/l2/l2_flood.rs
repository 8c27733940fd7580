//! `l2-flood`: a frame that goes to all other ports of its domain.
//!
//! Expects: a whole frame to a group or to an unknown address, and what `l2-input` knows of its port.
//! Hands on: a copy for each port but the last, which gets the frame itself: to `interface-output`, to `l2-output` where tags are rewritten, and
//! to `ethernet-input` for the domain's router interface. A frame to an unknown address goes to the `uu-fwd` port alone, if there is one.
//! Drops: frames that have nowhere to go. A port for which there is no buffer is left out, and counted.
//! Reads: [`L2Tables`].
//! CLI: `set bridge-domain flood`, `set interface l2 bridge`.

use super::{L2Meta, L2Output, L2OutputMeta, L2Tables, Member, trace};
use crate::ethernet::EthernetInput;
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::EthernetHeader;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct L2Flood;

next_nodes! {
    /// Where frames go.
    pub enum Next { Output => InterfaceOutput, L2Output => L2Output, Ethernet => EthernetInput }
}

error_counters! {
    /// What is counted, and why frames are dropped.
    pub enum Error {
        Copies => "L2 flood copies",
        Failed => "L2 replication failures",
        NoMembers => "L2 flood has no other port",
    }
}

impl Node for L2Flood {
    const NAME: &'static str = "l2-flood";
    type Meta = L2Meta;
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: L2Meta) -> Disposition<Self> {
        let Some(domain) = cx.tables().domain(meta.domain) else {
            return Disposition::Drop(Error::NoMembers);
        };
        let rx = p.rx();
        let unknown = !p.header::<EthernetHeader>().dst.is_multicast();
        let only = domain.uu_fwd.filter(|_| unknown);
        let mut last: Option<&Member> = None;
        for member in &domain.members {
            let apart = meta.shg == 0 || meta.shg != member.shg;
            if member.port == rx || !apart || only.is_some_and(|only| only != member.port) {
                continue;
            }
            // A frame to an unknown address is not for the router: its address is known.
            if member.bvi && unknown {
                continue;
            }
            if let Some(member) = last.replace(member) {
                match cx.copy(p, |copy| next(cx, copy, member, meta)) {
                    true => cx.count(Error::Copies),
                    false => cx.count(Error::Failed),
                }
            }
        }
        match last {
            Some(member) => Disposition::Next(next(cx, p, member, meta)),
            None => Disposition::Drop(Error::NoMembers),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = view.meta::<L2Meta>().domain;
        write!(f, "l2-flood: sw_if_index {} {} bd_index {domain}", view.rx(), trace::addresses(view))
    }
}

fn next(cx: &Cx<'_, L2Flood>, p: &mut PacketRef<'_>, member: &Member, meta: L2Meta) -> Next {
    if member.bvi {
        cx.interfaces().virtual_rx.add(cx.worker(), member.port.0, 1, p.len().into());
        p.set_rx(member.port);
        return Next::Ethernet(());
    }
    match member.plain {
        true => Next::Output(member.port),
        false => Next::L2Output(L2OutputMeta { tx: member.port, shg: meta.shg.into() }),
    }
}
