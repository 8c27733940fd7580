//! Messages of VPP's module `span`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "span", version: (2, 0, 0), messages: MESSAGES };

api! {
    /// Which direction is mirrored.
    enum SpanState = span_state: u32 {
        SPAN_STATE_API_DISABLED = 0, SPAN_STATE_API_RX = 1, SPAN_STATE_API_TX = 2,
        SPAN_STATE_API_RX_TX = 3,
    }

    /// Mirrors an interface's packets to another.
    call SwInterfaceSpanEnableDisable = sw_interface_span_enable_disable {
        sw_if_index_from: InterfaceIndex, sw_if_index_to: InterfaceIndex, state: SpanState, is_l2: bool,
    };

    /// Asks which interfaces are mirrored.
    dump SwInterfaceSpanDump = sw_interface_span_dump { is_l2: bool }
        -> SwInterfaceSpanDetails = sw_interface_span_details {
        sw_if_index_from: InterfaceIndex, sw_if_index_to: InterfaceIndex, state: SpanState, is_l2: bool,
    };
}

pub(super) fn handlers(_: &mut Handlers) {}
