//! The control plane of wharf: operations on one [`dataplane::Dataplane`], and the command line over them.
#![forbid(unsafe_code)]
#![recursion_limit = "256"]

pub mod access;
pub mod acl;
pub mod api;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod dataplane;
pub mod interface;
pub mod ip4;
pub mod l2;
pub mod log;
pub mod ping;
pub mod refusal;
mod reservation;
pub mod rib;
pub mod shared;
pub mod shell;
pub mod span;
pub mod startup;
pub mod stats;
pub mod sub_interface;
pub mod vxlan;
