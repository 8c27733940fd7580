//! Device drivers of wharf.

pub mod af_xdp;
