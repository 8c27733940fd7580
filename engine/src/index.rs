//! Index newtypes. A bare `u32` says nothing; each table has its own.

use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Software interface index, VPP's `sw_if_index`. 0 is `local0`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct SwIfIndex(pub u32);

impl SwIfIndex {
    /// `local0`: the interface of packets that no device received.
    pub const LOCAL: SwIfIndex = SwIfIndex(0);

    /// No interface: VPP's `~0`.
    pub const NONE: SwIfIndex = SwIfIndex(u32::MAX);

    /// As an index into a table.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SwIfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node of the graph. Indices 0 to 2 are the engine's own terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u16);

impl NodeIndex {
    /// `error-drop`.
    pub const DROP: NodeIndex = NodeIndex(0);
    /// `error-punt`.
    pub const PUNT: NodeIndex = NodeIndex(1);
    /// `device-output`.
    pub const DEVICE_OUTPUT: NodeIndex = NodeIndex(2);

    /// As an index into a table.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A worker thread, counted from 0. Thread numbers as VPP shows them are one more: thread 0 is main.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerIndex(pub u16);

impl WorkerIndex {
    /// As an index into a table.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
