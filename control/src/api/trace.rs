//! What clients asked for: the last requests, for the operator to look at or to save.

use super::registry::Registry;
use super::schema::{Field, Kind, Shape, TypeDef};
use super::{Reader, Wire};
use crate::config::HIDDEN;
use std::collections::VecDeque;
use std::fmt::Write;
use std::ops::Range;

/// Requests kept if nothing else is said.
const KEPT: usize = 1024;
/// Bytes kept at most.
const MAX_BYTES: usize = 16 << 20;

/// The trace of requests.
#[derive(Debug, Default)]
pub struct ApiTrace {
    on: bool,
    requests: VecDeque<Vec<u8>>,
    bytes: usize,
    wrapped: bool,
}

impl ApiTrace {
    /// Switches it; what is kept stays.
    pub fn set(&mut self, on: bool) {
        self.on = on;
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// How many requests are kept, and whether older ones are gone.
    pub fn kept(&self) -> (usize, bool) {
        (self.requests.len(), self.wrapped)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = ApiTrace { on: self.on, ..ApiTrace::default() };
    }

    /// Keeps a request, if it is on; without the secret in it, if there is one.
    pub fn record(&mut self, registry: &Registry, message: &[u8]) {
        if !self.on {
            return;
        }
        self.bytes += message.len();
        let mut message = message.to_vec();
        if let Some(secret) = secret(registry, &message).and_then(|place| message.get_mut(place)) {
            let hidden = HIDDEN.bytes().chain(std::iter::repeat(0));
            secret.iter_mut().zip(hidden).for_each(|(byte, hidden)| *byte = hidden);
        }
        self.requests.push_back(message);
        while self.requests.len() > KEPT || self.bytes > MAX_BYTES {
            self.bytes -= self.requests.pop_front().map_or(0, |old| old.len());
            self.wrapped = true;
        }
    }

    /// The trace as VPP saves it: a header (number of requests, length of the table, whether older ones are gone), the table of
    /// messages (their number, then per message its number and the length and text of `name_crc`), then each request behind
    /// its length.
    pub fn save(&self, registry: &Registry) -> Vec<u8> {
        let be = |n: usize| (n as u32).to_be_bytes();
        let mut table = be(registry.messages().count()).to_vec();
        for (id, def) in registry.messages() {
            let key = def.key();
            table.extend_from_slice(&id.to_be_bytes());
            table.extend_from_slice(&be(key.len()));
            table.extend_from_slice(key.as_bytes());
        }
        let mut out = be(self.requests.len()).to_vec();
        out.extend_from_slice(&be(table.len()));
        out.push(self.wrapped.into());
        out.extend_from_slice(&table);
        for request in &self.requests {
            out.extend_from_slice(&be(request.len()));
            out.extend_from_slice(request);
        }
        out
    }

    /// The trace as text, a paragraph per request.
    pub fn text(&self, registry: &Registry) -> String {
        let mut text = String::new();
        for request in &self.requests {
            let mut from = Reader::new(request);
            let def = u16::take(&mut from).ok().and_then(|id| registry.def(id));
            let Some(def) = def else {
                let _ = writeln!(text, "unknown message of {} bytes", request.len());
                continue;
            };
            let _ = writeln!(text, "{}:", def.name);
            let fields = def.fields.iter().filter(|f| !matches!(f.name, "client_index" | "context"));
            let skip = def.fields.iter().filter(|f| matches!(f.name, "client_index" | "context")).count();
            if from.raw(4 * skip).is_err() || put_fields(&mut text, &mut from, fields, 1).is_none() {
                let _ = writeln!(text, "  (cut short)");
            }
        }
        text
    }
}

/// Where a message has a secret that is not empty.
fn secret(registry: &Registry, message: &[u8]) -> Option<Range<usize>> {
    let def = registry.def(u16::take(&mut Reader::new(message)).ok()?)?;
    let mut at = 2;
    for field in def.fields {
        let len = super::json::field_size(field);
        let place = at..(at + len).min(message.len());
        match field.shape {
            Shape::Fixed(_) if field.name == "secret" => {
                return message.get(place.clone())?.iter().any(|byte| *byte != 0).then_some(place);
            }
            Shape::One | Shape::Fixed(_) => at += len,
            // What follows is somewhere; no secret does.
            Shape::Counted(_) | Shape::Text => return None,
        }
    }
    None
}

/// Prints fields, one a line; `None` when the message ends before them.
fn put_fields<'f>(
    text: &mut String,
    from: &mut Reader<'_>,
    fields: impl Iterator<Item = &'f Field>,
    depth: usize,
) -> Option<()> {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for field in fields {
        let indent = "  ".repeat(depth);
        let count = match field.shape {
            Shape::Counted(of) => counts.iter().find(|(name, _)| *name == of).map_or(0, |(_, n)| *n),
            Shape::Fixed(len) => len as u64,
            Shape::Text => u64::from(u32::take(from).ok()?),
            Shape::One => 1,
        };
        let _ = write!(text, "{indent}{}:", field.name);
        if field.ty.name == "string" {
            let bytes = from.raw(usize::try_from(count).ok()?).ok()?;
            let shown = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            let _ = writeln!(text, " {}", String::from_utf8_lossy(shown).escape_debug());
            continue;
        }
        for _ in 0..count {
            let number = put_value(text, from, field.ty, depth)?;
            counts.push((field.name, number));
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Some(())
}

/// Prints a value; the number that it is, if it is one.
fn put_value(text: &mut String, from: &mut Reader<'_>, ty: &'static TypeDef, depth: usize) -> Option<u64> {
    match &ty.kind {
        Kind::Base(size) => {
            let bytes = from.raw(*size).ok()?;
            let number = bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            let shown = match ty.name {
                "f64" => f64::from_ne_bytes(bytes.try_into().ok()?).to_string(),
                "i32" => (number as i32).to_string(),
                _ => number.to_string(),
            };
            let _ = write!(text, " {shown}");
            Some(number)
        }
        Kind::Alias(field) => {
            let count = if let Shape::Fixed(len) = field.shape { len } else { 1 };
            let mut last = 0;
            for _ in 0..count {
                last = put_value(text, from, field.ty, depth)?;
            }
            Some(last)
        }
        Kind::Enum(def) => put_value(text, from, def.repr, depth),
        Kind::Record(fields) => {
            text.push('\n');
            put_fields(text, from, fields.iter(), depth + 1)?;
            Some(0)
        }
        Kind::Union(_) => {
            for byte in from.raw(super::json::size(ty)).ok()? {
                let _ = write!(text, " {byte:02x}");
            }
            Some(0)
        }
    }
}
