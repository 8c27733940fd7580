//! The packet generator: plays streams into the graph, and records what the graph sends.
//!
//! A stream is a pcap file or a [`Template`], played once, so many times or endlessly, at a rate or as fast as the
//! graph takes it. [`PgInterface`] stays on the main thread; [`PgInput`] and [`PgOutput`] are its devices. Main and
//! worker share atomics, and two rings that are touched once per burst at most.

mod capture;
mod input;
mod interface;
mod output;
mod pcap;
pub mod script;
mod stream;
mod template;
#[cfg(test)]
mod tests;

pub use capture::{CaptureConfig, CaptureInfo};
pub use input::PgInput;
pub use interface::{PgCounters, PgError, PgInterface, PgMode};
pub use output::PgOutput;
pub use pcap::{MAX_PCAP_BYTES, MAX_PCAP_PACKETS, PcapError, Replay, write_pcap};
pub use script::{ScriptError, StreamScript};
pub use stream::{Source, StreamConfig, StreamInfo};
pub use template::{Field, L4, Layers, Size, Step, Template, TemplateError};
