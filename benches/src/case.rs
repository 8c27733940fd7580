//! The paths that are measured.

use clap::ValueEnum;

use crate::traffic::{Arrives, Traffic};

/// A program and what it does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// The memif crate alone: packets are copied out of one ring and into the other
    Floor,
    /// dpdk-testpmd, frames as they are
    TestpmdIo,
    /// dpdk-testpmd, new MAC addresses
    TestpmdMac,
    /// wharf, L2 cross-connect
    Xconnect,
    /// wharf, L2 bridge, static MAC addresses
    Bridge,
    /// wharf, L2 into a VXLAN tunnel
    Vxlan,
    /// wharf, IPv4, one route
    Ip4,
    /// wharf, IPv4, a million routes, random destinations
    Ip4Million,
}

impl Case {
    /// Its name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Floor => "floor",
            Case::TestpmdIo => "testpmd-io",
            Case::TestpmdMac => "testpmd-mac",
            Case::Xconnect => "xconnect",
            Case::Bridge => "bridge",
            Case::Vxlan => "vxlan",
            Case::Ip4 => "ip4",
            Case::Ip4Million => "ip4-million",
        }
    }

    /// What is sent.
    pub(crate) fn traffic(self) -> Traffic {
        match self {
            // As many destinations as a ring can hold; smaller buffers keep the regions below 64 MiB, of which only
            // the first line of each buffer is touched anyway.
            Case::Ip4Million => Traffic { log2_ring_size: 14, buffer_size: 1024, ..Traffic::default() },
            _ => Traffic::default(),
        }
    }

    /// What comes back.
    pub(crate) fn arrives(self) -> Arrives {
        match self {
            Case::Floor | Case::TestpmdIo | Case::Xconnect | Case::Bridge => Arrives::Unchanged,
            Case::TestpmdMac => Arrives::NewMacs,
            Case::Vxlan => Arrives::Tunnelled,
            Case::Ip4 | Case::Ip4Million => Arrives::Routed,
        }
    }
}
