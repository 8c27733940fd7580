//! What the packet generator reads: the block of `packet-generator new`, and pcap files.

use std::path::Path;

use wharf_drivers::pg::script::ScriptSource;
use wharf_drivers::pg::{PgMode, Replay, StreamScript};
use wharf_engine::buffer::DATA_SIZE;

/// Reads the input as a pcap file if it could be one, else as a block; what is accepted can be played.
pub fn run(data: &[u8]) {
    match std::str::from_utf8(data) {
        Ok(text) => script(text),
        // One of them: the reader's buffer is what an input costs.
        Err(_) => pcap(data, [PgMode::Ethernet, PgMode::Ip4, PgMode::Ip6][data.len() % 3]),
    }
}

fn pcap(data: &[u8], mode: PgMode) {
    match Replay::from_reader(Path::new("input"), data, mode) {
        Ok(replay) => {
            assert!(!replay.is_empty());
            let packets = (0..=replay.len() as u64).map(|n| replay.get(n).len());
            packets.for_each(|len| assert!((1..=DATA_SIZE).contains(&len)));
        }
        Err(error) => assert!(error.to_string().starts_with("input: ")),
    }
}

fn script(text: &str) {
    let script: StreamScript = match text.parse() {
        Ok(script) => script,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(text.parse().as_ref(), Ok(&script));
    let ScriptSource::Data(template) = &script.source else { return };
    if template.check().is_err() {
        return;
    }
    let mut packet = [0; DATA_SIZE];
    for n in [0, 1, 2, 1000, u64::MAX] {
        let len = template.build(n, &mut packet);
        let size = usize::from(template.size.min)..=usize::from(template.size.max);
        assert!(size.contains(&len), "{len} bytes, not {size:?}");
    }
}
