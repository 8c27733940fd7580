//! The control plane of wharf: operations on one [`dataplane::Dataplane`], and the command line over them.
#![forbid(unsafe_code)]

pub mod acl;
pub mod cli;
pub mod commands;
pub mod dataplane;
pub mod interface;
pub mod ip4;
pub mod l2;
pub mod ping;
pub mod refusal;
pub mod rib;
pub mod shell;
pub mod startup;
pub mod sub_interface;
pub mod vxlan;
