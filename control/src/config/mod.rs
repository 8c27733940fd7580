//! The configuration as one document: showing what there is, and changing it into what a document says.
//!
//! One mechanism serves all. [`Dataplane::config`](crate::dataplane::Dataplane::config) makes the document of what there is; [`plan`]
//! finds the steps from one document to another, in an order in which each can be done;
//! [`Dataplane::apply_config`](crate::dataplane::Dataplane::apply_config) does them, or undoes those that it did. The [`journal`] records the
//! objects of the document that changed, and makes the document of them again.

mod apply;
mod capture;
mod changes;
mod check;
mod document;
mod file;
pub mod journal;
#[cfg(test)]
mod journal_tests;
mod plan;
mod run;
mod shorten;
mod step;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod words;
mod writer;

pub(crate) use apply::apply;
pub use apply::{Applied, ApplyError};
pub(crate) use capture::Capture;
pub use changes::Change;
pub(crate) use changes::{Changes, Object};
pub use document::*;
pub use file::{read_document, replace};
pub use plan::plan;
pub use step::{Entry, Mode, Setting, Sign, Step};
pub use text::{DocumentError, MAX_DOCUMENT};
pub use words::{InterfaceAddress, NeighbourWords, RouteWords, Text, Words};
