//! Messages of the memif control socket, which a container sends.

use memif::wire::{MESSAGE_SIZE, Message};

/// Reads the input as messages, one behind the other. What was read can be written, and is then read as it is: only a
/// text that fills its field loses its end to the NUL that we write.
pub fn run(data: &[u8]) {
    for bytes in data.chunks(MESSAGE_SIZE) {
        let mut raw = [0; MESSAGE_SIZE];
        raw[..bytes.len()].copy_from_slice(bytes);
        if let Ok(message) = Message::decode(&raw) {
            let written = Message::decode(&message.encode()).expect("a known type");
            assert_eq!(written.kind(), message.kind());
            let again = Message::decode(&written.encode()).expect("a known type");
            assert_eq!(again, written);
        }
    }
}
