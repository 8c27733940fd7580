//! Device drivers of wharf.

pub mod af_xdp;
pub mod memif;
pub mod pg;
