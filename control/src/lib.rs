//! (filled below)
#![forbid(unsafe_code)]

pub mod cli;
pub mod rib;
pub mod startup;
