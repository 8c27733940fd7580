//! `interface-output`: the last node before a device.
//!
//! Expects: a complete frame, and the interface to send it on.
//! Hands on: to the features of arc `interface-output`, then to the device.
//! Drops: when the interface is down.
//! Reads: [`InterfaceTables`].
//! CLI: `set interface state`, `show interface`.

use super::InterfaceTables;
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::{
    ArcStart, Cx, DeviceOutput, Disposition, FeatureArc, Node, PacketRef, SwIfIndex, TraceView, Way,
    error_counters, next_nodes,
};
use zerocopy::FromBytes;

/// Arc `interface-output`: between this node and the device.
#[derive(Debug)]
pub struct InterfaceOutputArc;

impl FeatureArc for InterfaceOutputArc {
    const NAME: &'static str = "interface-output";
    type Meta = SwIfIndex;
    const END: &'static str = "device-output";
}

/// See the module.
#[derive(Debug)]
pub struct InterfaceOutput {
    /// Where the arc starts.
    arc: ArcStart<InterfaceOutputArc>,
    /// The last packet's interface, if it is up and has no feature: forgotten at the end of the frame. As a `u64`, which has room for none:
    /// [`SwIfIndex::NONE`] is what a packet may be for.
    straight: u64,
}

impl InterfaceOutput {
    /// With the start of its arc.
    pub fn new(arc: ArcStart<InterfaceOutputArc>) -> InterfaceOutput {
        InterfaceOutput { arc, straight: u64::MAX }
    }
}

next_nodes! {
    /// Where frames go.
    pub enum Next { Device => DeviceOutput }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error { Down => "interface is down" }
}

impl Node for InterfaceOutput {
    const NAME: &'static str = "interface-output";
    type Meta = SwIfIndex;
    type Next = Next;
    type Error = Error;
    type Tables = InterfaceTables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Option<Way<Self>> {
        (u64::from(tx.0) == self.straight).then(|| Way::next(p, Next::Device(tx)))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Disposition<Self> {
        if !cx.tables().get(tx).is_some_and(|i| i.up) {
            return Disposition::Drop(Error::Down);
        }
        match self.arc.enter(cx, p, tx, tx) {
            Some(edge) => Disposition::Edge(edge),
            None => {
                self.straight = tx.0.into();
                Disposition::Next(Next::Device(tx))
            }
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, _: &Cx<'_, Self>) {
        self.straight = u64::MAX;
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} flags 0x{:04x}\n  ", view.interface(view.meta()), view.flags())?;
        // An interface in IP mode: no frame to a station starts as a packet does, 0x45 being a group address.
        match Ip4Header::ref_from_prefix(view.data()) {
            Ok((ip, _)) if ip.version() == 4 && ip.total_len.get() == view.len() => {
                crate::ip4::trace::packet(view.data(), f)
            }
            _ => crate::ethernet::trace::frame(view.data(), f),
        }
    }
}
