//! `wharf`: the packet processor. Configured by a startup.conf (`-c FILE`) or by the same words as arguments.
#![forbid(unsafe_code)]

#[path = "../daemon/mod.rs"]
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    match daemon::run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wharf: {error}");
            ExitCode::FAILURE
        }
    }
}
