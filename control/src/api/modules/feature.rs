//! Messages of VPP's module `feature`.

use super::super::{ApiError, Cx, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "feature", version: (1, 0, 2), messages: MESSAGES };

api! {
    /// Switches a feature of an arc on an interface.
    call FeatureEnableDisable = feature_enable_disable {
        sw_if_index: InterfaceIndex, enable: bool, arc_name: Text<64>, feature_name: Text<64>,
    };

    /// Asks whether a feature of an arc is on.
    request FeatureIsEnabled = feature_is_enabled [read] {
        client_index: u32, context: u32, arc_name: Text<64>, feature_name: Text<64>,
        sw_if_index: InterfaceIndex,
    };

    /// The reply.
    event FeatureIsEnabledReply = feature_is_enabled_reply { client_index: u32, context: u32, retval: i32, is_enabled: bool };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(enable_disable);
    list.raw(is_enabled);
}

fn enable_disable(cx: &mut Cx<'_>, message: FeatureEnableDisable) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let (arc, feature) = (message.arc_name.0, message.feature_name.0);
    check(cx, &arc, &feature)?;
    Ok(cx.dp.set_feature(index, &arc, &feature, message.enable)?)
}

/// VPP's errors: the first value is the arc, the second the feature.
fn check(cx: &Cx<'_>, arc: &str, feature: &str) -> Result<(), ApiError> {
    let arc = cx.dp.engine().graph().arcs.iter().find(|a| a.name == arc).ok_or(ApiError::INVALID_VALUE)?;
    let known = arc.features.iter().any(|(name, _)| *name == feature);
    if known { Ok(()) } else { Err(ApiError::INVALID_VALUE_2) }
}

fn is_enabled(cx: &mut Cx<'_>, message: FeatureIsEnabled) {
    let (arc, feature) = (message.arc_name.0, message.feature_name.0);
    let answer = check(cx, &arc, &feature).and_then(|()| cx.interface(message.sw_if_index.0)).map(|index| {
        let features = cx.dp.engine().features(index);
        features.iter().any(|(name, on)| *name == arc && on.contains(&feature.as_str()))
    });
    let reply = FeatureIsEnabledReply {
        client_index: cx.client.index,
        context: message.context,
        retval: answer.err().map_or(0, |error| error.0),
        is_enabled: answer.unwrap_or(false),
    };
    cx.send(&reply);
}
