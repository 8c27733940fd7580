//! What benchmarks, the gate and their tests share: a worker that is turned by hand, and the paths through wharf's own
//! nodes.
#![forbid(unsafe_code)]

pub mod loopback;
pub mod paths;
pub mod rig;
