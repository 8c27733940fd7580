//! The binary API: VPP's socket transport, message names and CRCs, so that controllers and client libraries made for VPP drive
//! wharf as they are.
//!
//! A message is declared once, by [`crate::api!`]; `schema` has what follows from that without its type (CRC, JSON), `wire` the
//! codec. [`Registry`] puts the modules together with the functions that answer their requests: a file per feature. `server`
//! and `connection` are the transport, driven by the main loop. What is declared and has no function answers
//! [`ApiError::UNIMPLEMENTED`].

mod connection;
mod error;
mod events;
pub mod json;
mod macros;
pub mod modules;
mod registry;
pub mod schema;
mod server;
pub mod testing;
mod trace;
mod wire;

#[cfg(test)]
mod role_tests;
#[cfg(test)]
mod tests;

pub use connection::{MAX_MESSAGE, next_frame};
pub use error::ApiError;
pub use modules::modules;
pub use registry::{Client, Cx, FRAME_HEADER, Handlers, Page, PageFn, Registry, Served};
pub use server::{ApiConfig, ApiServer};
pub use trace::ApiTrace;
pub use wire::{Count, Malformed, Reader, Text, Wire, Writer, field};

use schema::{Field, MessageDef, Role, message_crc};

/// A message, without what the framework fills.
pub trait Message: Sized {
    /// Its definition.
    const DEF: &'static MessageDef;

    /// Appends its fields.
    fn put(&self, out: &mut Writer);

    /// Reads its fields; what a newer client appends is left.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// A message that starts with `client_index` and `context`.
pub trait Request: Message {}

/// A request that is replied to by a retval alone.
pub trait AutoReply: Request {
    /// The reply.
    const REPLY: &'static MessageDef;
}

/// A request with a reply of its own.
pub trait Call: Request {
    /// The reply, behind `context` and `retval`.
    type Reply: Message + Default;
}

/// A request that is answered by any number of entries.
pub trait Dump: Request {
    /// An entry, behind `context`.
    type Details: Message;
}

/// The fields that the framework fills.
#[doc(hidden)]
#[allow(non_upper_case_globals)]
pub mod header {
    use super::{Field, field};

    pub const client_index: Field = field::<u32>("client_index", None, None);
    pub const context: Field = field::<u32>("context", None, None);
    pub const retval: Field = field::<i32>("retval", None, None);
}

/// The reply that has a retval only.
#[doc(hidden)]
pub const fn auto_reply(name: &'static str) -> MessageDef {
    const FIELDS: &[Field] = &[header::context, header::retval];
    const CRC: u32 = message_crc(FIELDS);
    MessageDef {
        name,
        doc: " The reply.",
        fields: FIELDS,
        crc: CRC,
        role: Role::Answer,
        reads: true,
        framework: FIELDS.len(),
        check: |_| Ok(()),
    }
}

/// The name of a field: Rust's spelling of a keyword has `r#` before it.
#[doc(hidden)]
pub const fn field_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// How many there are.
#[doc(hidden)]
pub const fn count(names: &[&str]) -> usize {
    names.len()
}

/// What an optional part of a declaration says.
#[doc(hidden)]
pub const fn first(said: &[&'static str]) -> Option<&'static str> {
    match said {
        [one, ..] => Some(one),
        [] => None,
    }
}
