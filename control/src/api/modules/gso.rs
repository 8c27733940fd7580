//! Messages of VPP's module `gso`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "gso", version: (1, 0, 0), messages: MESSAGES };

api! {
    /// Switches segmentation on an interface.
    call FeatureGsoEnableDisable = feature_gso_enable_disable { sw_if_index: InterfaceIndex, enable_disable: bool };
}

pub(super) fn handlers(_: &mut Handlers) {}
