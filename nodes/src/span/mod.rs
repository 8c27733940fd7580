//! SPAN: copies of what an interface receives or sends, to another interface.

use std::collections::HashMap;
use wharf_engine::SwIfIndex;

mod span_input;
mod span_output;

pub use span_input::SpanInput;
pub use span_output::SpanOutput;

/// Where copies go, by the interface that is watched.
#[derive(Clone, Debug, Default)]
pub struct SpanTables {
    /// Of what it receives.
    pub rx: HashMap<SwIfIndex, Vec<SwIfIndex>>,
    /// Of what it sends.
    pub tx: HashMap<SwIfIndex, Vec<SwIfIndex>>,
}
