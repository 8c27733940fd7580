//! The cases by name; see each.

use crate::{Options, handshake, rings, serve};

/// Runs a case; what it did, or what the server did wrong.
pub(crate) fn run(options: &Options) -> Result<String, String> {
    match options.case.as_str() {
        "messages" => handshake::messages(options),
        "descriptors" => handshake::descriptors(options),
        "geometry" => handshake::geometry(options),
        "half-open" => handshake::half_open(options),
        "connect-close" => handshake::connect_close(options),
        "wrong-secrets" => handshake::wrong_secrets(options),
        "rings" => rings::rings(options),
        "holes" => rings::holes(options),
        "burst" => rings::burst(options),
        "fork" => rings::fork(options),
        "close-all" => rings::close_all(options),
        "eventfds" => rings::eventfds(options),
        "storm" => rings::storm(options),
        "churn" => rings::churn(options),
        "serve-messages" => serve::messages(options),
        "serve-rings" => serve::rings(options),
        "wrap" => rings::wrap(options),
        other => Err(format!("there is no case {other}")),
    }
}
