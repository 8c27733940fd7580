//! What the control plane publishes for bridging.

use super::mac_table::{DomainIndex, MacTable, key};
use super::tag_rewrite::TagRewrite;
use crate::wire::ethernet::MacAddress;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::bihash::Place;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a port does with the frames that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortMode {
    /// It is not in L2 mode.
    #[default]
    None,
    /// They go out of [`L2Port::peer`], which sends them as they are.
    Xconnect,
    /// They go out of [`L2Port::peer`] through `l2-output`, since it is not [`L2Port::is_plain_output`].
    XconnectOutput,
    /// They are bridged in [`L2Port::domain`].
    Bridge,
}

/// Bits of [`L2Port::flags`]: what the port and its domain both allow.
pub mod l2_flags {
    /// Source addresses are learned.
    pub const LEARN: u8 = 1;
    /// Frames to known addresses are sent there alone.
    pub const FORWARD: u8 = 2;
    /// Frames to groups are flooded.
    pub const FLOOD: u8 = 4;
    /// Frames to unknown addresses are flooded.
    pub const UU_FLOOD: u8 = 8;
    /// ARP requests are answered from the domain's table.
    pub const ARP_TERM: u8 = 16;
}

/// An interface in L2 mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct L2Port {
    /// See there.
    pub mode: PortMode,
    /// See [`l2_flags`].
    pub flags: u8,
    /// Split-horizon group: no frame goes from one port of a group to another. 0 is no group.
    pub shg: u8,
    /// Whether it leads to the domain's router interface.
    pub bvi: bool,
    /// The domain, of [`PortMode::Bridge`].
    pub domain: DomainIndex,
    /// The other end of a cross-connect.
    pub peer: SwIfIndex,
    /// Addresses that it may teach.
    pub learn_limit: u32,
    /// What happens to the tags of received frames.
    pub input: TagRewrite,
    /// What happens to the tags of frames to be sent.
    pub output: TagRewrite,
    /// Whether an arc of `l2-input` has a feature here.
    pub input_features: bool,
    /// Whether an arc of `l2-output` has a feature here.
    pub output_features: bool,
}

impl L2Port {
    /// Whether frames are sent as they are: nothing is left to do in `l2-output`.
    #[inline(always)]
    pub fn is_plain_output(&self) -> bool {
        self.output.is_none() && !self.output_features
    }
}

/// A port that a domain floods to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The interface.
    pub port: SwIfIndex,
    /// Its split-horizon group.
    pub shg: u8,
    /// Whether it is the router interface.
    pub bvi: bool,
    /// See [`L2Port::is_plain_output`].
    pub plain: bool,
}

/// A bridge domain.
#[derive(Clone, Debug, Default)]
pub struct BridgeDomain {
    /// Ports that are flooded to.
    pub members: Vec<Member>,
    /// Where frames to unknown addresses go instead of everywhere.
    pub uu_fwd: Option<SwIfIndex>,
    /// Addresses that it may learn.
    pub learn_limit: u32,
    /// Who has which address, for ARP termination.
    pub arp: HashMap<Ipv4Addr, MacAddress>,
}

/// All ports and domains.
#[derive(Clone, Debug, Default)]
pub struct L2Tables {
    /// By `sw_if_index`.
    pub ports: Vec<L2Port>,
    /// By [`DomainIndex`]; number 0 is none.
    pub domains: Vec<BridgeDomain>,
    /// The MAC addresses of all domains; `None` while there is no domain.
    pub macs: Option<Arc<MacTable>>,
}

impl L2Tables {
    /// One port.
    #[inline(always)]
    pub fn port(&self, index: SwIfIndex) -> Option<&L2Port> {
        self.ports.get(index.index())
    }

    /// One domain.
    #[inline(always)]
    pub fn domain(&self, index: DomainIndex) -> Option<&BridgeDomain> {
        self.domains.get(usize::from(index))
    }
}

/// What `l2-input` found out about a frame that is to be bridged.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4))]
pub struct L2Meta {
    /// The domain.
    pub domain: DomainIndex,
    /// The split-horizon group of the port that received it.
    pub shg: u8,
    /// See [`l2_flags`].
    pub flags: u8,
    /// Where the [`MacTable`] is looked at for the destination.
    pub dst: Place,
    /// Where it is for the source.
    pub src: Place,
}

impl L2Meta {
    /// The same of a frame with these addresses, which `l2-fwd` will look up.
    #[inline(always)]
    pub(super) fn of(self, addresses: Addresses, macs: &MacTable) -> L2Meta {
        let [dst, src] = addresses.keys(self.domain).map(|key| macs.prefetch(key));
        L2Meta { dst, src, ..self }
    }
}

/// Destination and source, as a frame begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub(super) struct Addresses([u8; 12]);

impl Addresses {
    /// Both as keys of the [`MacTable`], the destination first.
    #[inline(always)]
    pub(super) fn keys(self, domain: DomainIndex) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        [key(domain, MacAddress([a, b, c, d, e, f])), key(domain, MacAddress([g, h, i, j, k, l]))]
    }
}

/// Where `l2-output` sends a frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct L2OutputMeta {
    /// The interface.
    pub tx: SwIfIndex,
    /// The split-horizon group of the port that received it.
    pub shg: u32,
}
