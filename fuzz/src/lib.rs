//! What the fuzz targets do with an input, as functions: libFuzzer calls them with what it makes up, and `cargo test` with
//! the files of `corpus/` and `regressions/`.
//!
//! Each must end without a panic, whatever the input.
#![forbid(unsafe_code)]

pub mod api;
pub mod api_sequence;
pub mod bridge;
pub mod cli;
pub mod config;
pub mod graph;
pub mod memif_messages;
pub mod memif_session;
pub mod pg;
pub mod startup_conf;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("api", api::run),
    ("api_sequence", api_sequence::run),
    ("startup_conf", startup_conf::run),
    ("cli", cli::run),
    ("config", config::run),
    ("memif_messages", memif_messages::run),
    ("memif_session", memif_session::run),
    ("graph", graph::run),
    ("bridge", bridge::run),
    ("pg", pg::run),
];
