//! Messages of VPP's module `mpls`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "mpls", version: (1, 1, 1), messages: MESSAGES };

api! {
    /// Asks for the interfaces that take MPLS.
    dump MplsInterfaceDump = mpls_interface_dump { sw_if_index: InterfaceIndex = "4294967295" }
        -> MplsInterfaceDetails = mpls_interface_details { sw_if_index: InterfaceIndex };

    /// Switches MPLS on an interface.
    call SwInterfaceSetMplsEnable = sw_interface_set_mpls_enable { sw_if_index: InterfaceIndex, enable: bool = "true" };
}

pub(super) fn handlers(_: &mut Handlers) {}
