//! The command line: a tree of commands, and the socket that serves it.
//!
//! A command is one entry of a list; nothing registers itself. Its path is words, each of which the operator
//! may abbreviate as long as it stays unique, and the longest path wins. What follows is described by a
//! syntax string, compiled once at start:
//!
//! | notation | meaning |
//! |---|---|
//! | `word` | a keyword; it owns the parameters, or the braces, directly behind it |
//! | `<type>`, `<name:type>` | a parameter |
//! | `[...]` | optional |
//! | `{a\|b}` | one of these; `[a\|b]` one or none |
//! | `{...}...` | may occur again, see [`Args::turns`] |
//!
//! Options and parameters may come in any order; two parameters of one type keep theirs. Types: `n` (`u8`
//! `u16` `u32` `u64`), `64-9000` (a number with bounds), `float`, `ip` `ip4` `ip6`, `prefix` `prefix4`
//! `prefix6`, `mac`, `interface` and `node` (names that the context knows), `word`, `path`, `range`, `list`,
//! `block` (`{ ... }`, raw) and `line` (the rest). A parameter is called by its name, else as the keyword that
//! it directly follows, else as its type.
//!
//! Nothing runs when a line does not parse, and the message says what was wrong at which word. So does a command's
//! own error when it names the argument that it is about, see [`CliError::about`].

mod args;
mod complete;
mod connection;
mod editor;
mod output;
mod parse;
mod server;
mod session;
mod syntax;
mod table;
pub mod telnet;
mod token;
mod tree;
mod value;

#[cfg(test)]
mod tests;

pub use args::{About, Args, CliError};
pub use complete::{Candidate, Completion};
pub use output::{Output, Shown};
pub use server::{Server, ServerConfig};
pub use session::{Executor, MAX_DOCUMENT_REQUEST, MAX_REQUEST, Outcome, Session, Terminal};
pub use table::Row;
pub use token::{RAW, is_comment, statements};
pub(crate) use tree::Held;
pub use tree::{
    Change, Command, Hold, LongChange, LongShow, Looks, Registry, RegistryError, Show, Work, alone, in_turn,
};
pub use value::{FromValue, Known, Names, Prefix, Value};
