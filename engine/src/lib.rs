//! The packet graph engine of wharf. It knows no protocol, but for the checksums that a device may leave open ([`offload`]).
//!
//! Packets move in [`Frame`]s of up to 256 through a graph of [`Node`]s on pinned worker threads. A node's author says what happens to
//! one packet and where it goes ([`Disposition`]); the loop, prefetching, counting, tracing and enqueueing are here.
//!
//! Start reading at [`node`], then [`dispatch`], [`worker`], [`engine`].

pub mod arc;
pub mod bihash;
pub mod buffer;
pub mod capture;
pub mod clock;
pub mod counter;
pub mod device;
pub mod dispatch;
pub mod engine;
pub mod frame;
pub mod graph;
pub mod mapping;
pub mod mtrie;
pub mod node;
pub mod offload;
pub mod rcu;
pub mod ring;
pub mod stats;
mod sync;
pub mod testing;
pub mod trace;
pub mod wake;
pub mod worker;

mod index;

pub use arc::{ArcStart, ArcWay, FeatureArc, FeatureOrder};
pub use engine::{Engine, EngineConfig, EngineError};
pub use frame::{Frame, Meta, Packet, PacketRef, flags};
pub use graph::{Graph, GraphBuilder, GraphError, Seed};
pub use index::{NodeIndex, SwIfIndex, WorkerIndex};
pub use node::{
    Cx, DeviceOutput, Disposition, ErrorCounters, Held, NextIndex, NextNodes, NoError, NoNext, Node, Punt,
    Target, Way,
};
pub use trace::TraceView;

/// Asks the processor to load the line at `address`; any address will do.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
