//! wharfctl: talks to a running wharf over its CLI socket.

#![forbid(unsafe_code)]

#[path = "../ctl/mod.rs"]
mod ctl;

use std::process::ExitCode;

fn main() -> ExitCode {
    ctl::main()
}
