//! Messages of VPP's module `lcp`.

use super::super::{Handlers, Text, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "lcp", version: (1, 0, 0), messages: MESSAGES };

api! {
    /// What the mirror of an interface is.
    enum LcpItfHostType = lcp_itf_host_type: u8 { LCP_API_ITF_HOST_TAP = 0, LCP_API_ITF_HOST_TUN = 1 }

    /// Mirrors an interface into Linux.
    call LcpItfPairAddDelV2 = lcp_itf_pair_add_del_v2 {
        is_add: bool, sw_if_index: InterfaceIndex, host_if_name: Text<16>, host_if_type: LcpItfHostType,
        netns: Text<32>,
    }
        -> LcpItfPairAddDelV2Reply = lcp_itf_pair_add_del_v2_reply { host_sw_if_index: InterfaceIndex };

    /// Asks for the interfaces mirrored into Linux.
    get LcpItfPairGet = lcp_itf_pair_get { cursor: u32 }
        -> LcpItfPairGetReply = lcp_itf_pair_get_reply { cursor: u32 },
        LcpItfPairDetails = lcp_itf_pair_details {
        phy_sw_if_index: InterfaceIndex, host_sw_if_index: InterfaceIndex, vif_index: u32,
        host_if_name: Text<16>, host_if_type: LcpItfHostType, netns: Text<32>,
    };
}

pub(super) fn handlers(_: &mut Handlers) {}
