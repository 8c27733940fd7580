//! Messages of VPP's module `span`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use super::types::*;
use crate::api;
use crate::span::{Directions, SpanLayer};

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

fn layer(is_l2: bool) -> SpanLayer {
    if is_l2 { SpanLayer::L2 } else { SpanLayer::Device }
}

fn enable_disable(cx: &mut Cx<'_>, message: SwInterfaceSpanEnableDisable) -> Result<(), ApiError> {
    let layer = layer(message.is_l2);
    let from = cx.interface(message.sw_if_index_from.0)?;
    let directions = match message.state {
        SpanState::SPAN_STATE_API_DISABLED => Directions::NONE,
        SpanState::SPAN_STATE_API_RX => Directions { rx: true, tx: false },
        SpanState::SPAN_STATE_API_TX => Directions { rx: false, tx: true },
        SpanState::SPAN_STATE_API_RX_TX => Directions { rx: true, tx: true },
        _ => return Err(ApiError::INVALID_VALUE),
    };
    // As in VPP: to nowhere, all of an interface's copies end.
    if directions == Directions::NONE && message.sw_if_index_to.0 == u32::MAX {
        return Ok(cx.dp.end_spans(from, layer)?);
    }
    let to = cx.interface(message.sw_if_index_to.0).map_err(|_| ApiError::INVALID_SW_IF_INDEX_2)?;
    if from == to {
        return Err(ApiError::INVALID_INTERFACE);
    }
    Ok(cx.dp.set_span(from, to, layer, directions)?)
}

fn dump(cx: &mut Cx<'_>, message: SwInterfaceSpanDump) -> Vec<SwInterfaceSpanDetails> {
    let wanted = layer(message.is_l2);
    let spans = cx.dp.spans.iter().filter(|((.., layer), _)| *layer == wanted);
    let details = spans.map(|((from, to, _), directions)| SwInterfaceSpanDetails {
        sw_if_index_from: (*from).into(),
        sw_if_index_to: (*to).into(),
        state: SpanState(u32::from(directions.rx) | u32::from(directions.tx) << 1),
        is_l2: message.is_l2,
    });
    details.collect()
}
