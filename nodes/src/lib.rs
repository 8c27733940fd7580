//! The packet nodes of wharf, a folder per protocol family, over the packet headers in [`wire`].
#![forbid(unsafe_code)]

pub mod acl;
pub mod arp;
pub mod ethernet;
pub mod event;
pub mod interface;
pub mod ip4;
pub mod l2;
mod list;
pub mod span;
pub mod vxlan;
pub mod wire;

pub use list::nodes;

// The example of CONTRIBUTING.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../CONTRIBUTING.md")]
struct Contributing;
