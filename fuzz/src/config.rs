//! The configuration document, which an operator writes, and the journal, whose end a crash may tear.

use wharf_control::config::journal::{line_of, replay};
use wharf_control::config::{Document, plan};

/// Reads the input as a document, as a journal, and its lines as records whose sums are right.
pub fn run(data: &[u8]) {
    document(&String::from_utf8_lossy(data));
    journal(data);
    let records: Vec<u8> = data.split(|byte| *byte == b'\n').flat_map(line_of).collect();
    journal(&records);
}

/// What is written is read back, and leads there and away again.
fn document(text: &str) {
    let mut document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if document.check().is_err() {
        return;
    }
    let toml = document.to_toml().expect("a document can be written");
    let mut again = Document::parse(&toml).expect("what is written can be read");
    again.check().expect("what was right stays right");
    assert_eq!(document, again);
    assert!(plan(&document, &again).is_empty());
    let nothing = Document::default();
    for steps in [plan(&nothing, &document), plan(&document, &nothing)] {
        assert_eq!(steps.is_empty(), document == nothing);
        steps.iter().for_each(|step| assert!(!step.to_string().is_empty()));
    }
}

fn journal(bytes: &[u8]) {
    let replayed = replay(bytes);
    assert!(replayed.len <= bytes.len());
    let whole = replay(&bytes[..replayed.len]);
    assert_eq!((whole.len, whole.damaged), (replayed.len, false));
    assert_eq!(whole.document, replayed.document);
}
