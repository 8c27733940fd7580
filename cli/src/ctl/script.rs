//! Runs a file of commands.

use wharf_control::cli::statements;

use super::client::Client;
use super::{Failure, complain, execute};

/// Runs every statement, up to the first that fails unless told to go on. Failures are reported on stderr with
/// `name:line: `.
pub(crate) fn run(client: &mut Client, name: &str, text: &str, keep_going: bool) -> Result<(), Failure> {
    let mut failed = false;
    for (line, statement) in statements(text) {
        if matches!(statement.as_str(), "quit" | "q" | "exit") {
            break;
        }
        if let Some(message) = execute(client, &statement)? {
            complain(&format!("{name}:{line}: {message}"));
            failed = true;
            if !keep_going {
                break;
            }
        }
    }
    if failed { Err(Failure::Command(None)) } else { Ok(()) }
}
