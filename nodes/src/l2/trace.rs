//! Printing of bridged frames in traces.

use crate::wire::ethernet::MacAddress;
use wharf_engine::TraceView;

/// `dst 01:.. src 02:..` of the frame as it came.
pub fn addresses(view: &TraceView<'_>) -> String {
    let mac = |at: usize| {
        let bytes = view.data().get(at..at + 6).and_then(|b| <[u8; 6]>::try_from(b).ok());
        MacAddress(bytes.unwrap_or_default())
    };
    format!("dst {} src {}", mac(0), mac(6))
}
