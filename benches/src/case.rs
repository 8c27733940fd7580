//! The paths that are measured.

use clap::ValueEnum;

use crate::traffic::{Arrives, Traffic};

/// A program and what it does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// The memif crate alone: packets are copied out of one ring and into the other
    Floor,
    /// The floor with the traffic of `ip4-million`
    FloorMillion,
    /// dpdk-testpmd, frames as they are
    TestpmdIo,
    /// dpdk-testpmd, frames as they are, with the traffic of `ip4-million`
    TestpmdIoMillion,
    /// dpdk-testpmd, new MAC addresses
    TestpmdMac,
    /// wharf, L2 cross-connect
    Xconnect,
    /// wharf, L2 bridge, static MAC addresses
    Bridge,
    /// wharf, L2 bridge, ten MAC addresses behind each port, learned and set
    BridgeTen,
    /// wharf, L2 bridge, 10,000 MAC addresses behind each port, learned and set
    BridgeTenThousand,
    /// wharf, L2 bridge, a million MAC addresses, half of them behind each port, learned and set
    BridgeMillion,
    /// wharf, L2 into a VXLAN tunnel
    Vxlan,
    /// wharf, out of a VXLAN tunnel to L2
    VxlanDecap,
    /// wharf, IPv4, one route
    Ip4,
    /// wharf, IPv4, a million routes, random destinations
    Ip4Million,
    /// wharf, IPv4, 100 rules on the receiving interface
    #[value(name = "acl-100")]
    Acl100,
    /// wharf, IPv4, 1,000 rules
    #[value(name = "acl-1k")]
    Acl1k,
    /// wharf, IPv4, 10,000 rules
    #[value(name = "acl-10k")]
    Acl10k,
    /// wharf, IPv4, 1,000 rules that open sessions
    AclReflect,
    /// wharf, IPv4, a million sessions; load `packets`, whatever is asked for
    #[value(name = "acl-reflect-1m")]
    AclReflect1m,
}

impl Case {
    /// Its name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Floor => "floor",
            Case::FloorMillion => "floor-million",
            Case::TestpmdIo => "testpmd-io",
            Case::TestpmdIoMillion => "testpmd-io-million",
            Case::TestpmdMac => "testpmd-mac",
            Case::Xconnect => "xconnect",
            Case::Bridge => "bridge",
            Case::BridgeTen => "bridge-ten",
            Case::BridgeTenThousand => "bridge-ten-thousand",
            Case::BridgeMillion => "bridge-million",
            Case::Vxlan => "vxlan",
            Case::VxlanDecap => "vxlan-decap",
            Case::Ip4 => "ip4",
            Case::Ip4Million => "ip4-million",
            Case::Acl100 => "acl-100",
            Case::Acl1k => "acl-1k",
            Case::Acl10k => "acl-10k",
            Case::AclReflect => "acl-reflect",
            Case::AclReflect1m => "acl-reflect-1m",
        }
    }

    /// The floor and testpmd io with the same traffic.
    pub(crate) fn references(self) -> (Case, Case) {
        match self {
            Case::FloorMillion | Case::TestpmdIoMillion | Case::Ip4Million => {
                (Case::FloorMillion, Case::TestpmdIoMillion)
            }
            _ => (Case::Floor, Case::TestpmdIo),
        }
    }

    /// What is sent.
    pub(crate) fn traffic(self) -> Traffic {
        // As many destinations as a ring can hold; smaller buffers keep the regions below 64 MiB, of which only the
        // first line of each buffer is touched anyway.
        let many = Traffic { log2_ring_size: 14, buffer_size: 1024, ..Traffic::default() };
        match self {
            Case::FloorMillion | Case::TestpmdIoMillion | Case::Ip4Million => many,
            Case::BridgeTen => Traffic { stations: 10, ..Traffic::default() },
            Case::BridgeTenThousand => Traffic { stations: 10_000, ..many },
            Case::BridgeMillion => Traffic { stations: 500_000, ..many },
            Case::VxlanDecap => Traffic { tunnelled: true, ..Traffic::default() },
            _ => Traffic::default(),
        }
    }

    /// What comes back.
    pub(crate) fn arrives(self) -> Arrives {
        match self {
            Case::Floor | Case::FloorMillion | Case::TestpmdIo | Case::TestpmdIoMillion => Arrives::Unchanged,
            Case::Xconnect | Case::Bridge | Case::VxlanDecap => Arrives::Unchanged,
            Case::BridgeTen | Case::BridgeTenThousand | Case::BridgeMillion => Arrives::Unchanged,
            Case::TestpmdMac => Arrives::NewMacs,
            Case::Vxlan => Arrives::Tunnelled,
            Case::Ip4 | Case::Ip4Million => Arrives::Routed,
            Case::Acl100 | Case::Acl1k | Case::Acl10k | Case::AclReflect | Case::AclReflect1m => {
                Arrives::Routed
            }
        }
    }
}
