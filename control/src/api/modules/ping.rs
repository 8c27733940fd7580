//! Messages of VPP's module `ping`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "ping", version: (0, 1, 0), messages: MESSAGES };

api! {
    /// Pings, and asks for an event when that is over.
    call WantPingFinishedEvents = want_ping_finished_events [read] { address: Address, repeat: u32 = "1", interval: f64 = "1.0" };

    /// A ping is over.
    event PingFinishedEvent = ping_finished_event { client_index: u32, request_count: u32, reply_count: u32 };
}

pub(super) fn handlers(_: &mut Handlers) {}
