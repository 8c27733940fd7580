//! What a client of the binary API sends: frames, and the messages in them.

use std::sync::OnceLock;
use wharf_control::api::{ApiTrace, FRAME_HEADER, MAX_MESSAGE, Registry, modules, next_frame};

/// Takes the input apart as frames, in one piece and byte by byte, and prints each message by its definition.
pub fn run(data: &[u8]) {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| Registry::new(&modules()));
    let mut trace = ApiTrace::default();
    trace.set(true);
    let mut rest = data;
    while let Ok(Some((message, taken))) = next_frame(rest) {
        assert!((2..=MAX_MESSAGE).contains(&message.len()) && taken == FRAME_HEADER + message.len());
        // A frame is the same however much of it has come, and of what follows.
        assert_eq!(next_frame(&rest[..taken]), Ok(Some((message, taken))));
        assert!((0..taken).all(|cut| next_frame(&rest[..cut]) == Ok(None)));
        let _ = registry.decode(message);
        trace.record(registry, message);
        rest = &rest[taken..];
    }
    let _ = trace.text(registry);
}
