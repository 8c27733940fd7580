//! The packet nodes of wharf, a folder per protocol family, over the packet headers in [`wire`].
#![forbid(unsafe_code)]

pub mod wire;
