//! Documents as TOML or JSON.

use super::document::Document;
use serde::Deserialize;
use std::fmt::Display;

/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 64 << 20;

/// What is wrong with a document, and at which key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", At(.path))]
pub struct DocumentError {
    /// The key, from the root: `interface.memif0/0.mtu`; empty when it is about the whole.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
}

struct At<'a>(&'a str);

impl Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl DocumentError {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>) -> DocumentError {
        DocumentError { path: path.into(), message: message.into() }
    }
}

impl Document {
    /// Reads TOML, or JSON where the text starts with a brace.
    ///
    /// # Errors
    /// What is wrong, at which key and line.
    pub fn parse(text: &str) -> Result<Document, DocumentError> {
        if text.len() > MAX_DOCUMENT {
            return Err(DocumentError::new("", format!("longer than {MAX_DOCUMENT} bytes")));
        }
        if text.trim_start().starts_with('{') {
            let mut reader = serde_json::Deserializer::from_str(text);
            let document = read(&mut reader, |error| error.to_string())?;
            return match reader.end() {
                Ok(()) => Ok(document),
                Err(error) => Err(DocumentError::new("", error.to_string())),
            };
        }
        let describe = |error: &toml::de::Error| {
            let message = error.message().trim_end();
            match error.span() {
                Some(span) => {
                    let line = text.get(..span.start).map_or(0, |before| before.matches('\n').count());
                    format!("{message} (line {})", line + 1)
                }
                None => message.to_owned(),
            }
        };
        let reader =
            toml::Deserializer::parse(text).map_err(|error| DocumentError::new("", describe(&error)))?;
        read(reader, describe)
    }

    /// The document as TOML, with a line for each route and neighbour.
    ///
    /// # Errors
    /// None that a document can cause.
    pub fn to_toml(&self) -> Result<String, DocumentError> {
        toml::to_string(self).map_err(|error| DocumentError::new("", error.to_string()))
    }
}

fn read<'de, D: serde::Deserializer<'de>>(
    reader: D,
    describe: impl FnOnce(&D::Error) -> String,
) -> Result<Document, DocumentError> {
    let mut track = serde_path_to_error::Track::new();
    let read = Document::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track));
    read.map_err(|error| {
        let path = track.path().to_string();
        DocumentError::new(if path == "." { "" } else { &path }, describe(&error))
    })
}
