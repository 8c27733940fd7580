//! Messages of VPP's module `span`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use super::types::*;
use crate::api;
use crate::span::Directions;

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

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(enable_disable);
    list.dump(dump);
}

fn enable_disable(cx: &mut Cx<'_>, message: SwInterfaceSpanEnableDisable) -> Result<(), ApiError> {
    // Frames are copied at the device, not where they enter a bridge domain.
    if message.is_l2 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let from = cx.interface(message.sw_if_index_from.0)?;
    let to = cx.interface(message.sw_if_index_to.0).map_err(|_| ApiError::INVALID_SW_IF_INDEX_2)?;
    let (rx, tx) = match message.state {
        SpanState::SPAN_STATE_API_DISABLED => (false, false),
        SpanState::SPAN_STATE_API_RX => (true, false),
        SpanState::SPAN_STATE_API_TX => (false, true),
        SpanState::SPAN_STATE_API_RX_TX => (true, true),
        _ => return Err(ApiError::INVALID_VALUE),
    };
    if from == to {
        return Err(ApiError::INVALID_INTERFACE);
    }
    Ok(cx.dp.set_span(from, to, Directions { rx, tx })?)
}

fn dump(cx: &mut Cx<'_>, message: SwInterfaceSpanDump) -> Vec<SwInterfaceSpanDetails> {
    let spans = cx.dp.spans.iter().filter(|_| !message.is_l2);
    let details = spans.map(|((from, to), directions)| SwInterfaceSpanDetails {
        sw_if_index_from: (*from).into(),
        sw_if_index_to: (*to).into(),
        state: SpanState(u32::from(directions.rx) | u32::from(directions.tx) << 1),
        is_l2: false,
    });
    details.collect()
}
