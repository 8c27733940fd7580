//! Messages of VPP's module `vxlan`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "vxlan", version: (2, 1, 0), messages: MESSAGES };

api! {
    /// Creates or deletes a VXLAN tunnel.
    call VxlanAddDelTunnel = vxlan_add_del_tunnel {
        is_add: bool = "true", instance: u32, src_address: Address, dst_address: Address,
        mcast_sw_if_index: InterfaceIndex, encap_vrf_id: u32, decap_next_index: u32, vni: u32,
    }
        -> VxlanAddDelTunnelReply = vxlan_add_del_tunnel_reply { sw_if_index: InterfaceIndex };

    /// Creates or deletes a VXLAN tunnel.
    call VxlanAddDelTunnelV2 = vxlan_add_del_tunnel_v2 {
        is_add: bool = "true", instance: u32 = "4294967295", src_address: Address, dst_address: Address,
        src_port: u16, dst_port: u16, mcast_sw_if_index: InterfaceIndex, encap_vrf_id: u32,
        decap_next_index: u32, vni: u32,
    }
        -> VxlanAddDelTunnelV2Reply = vxlan_add_del_tunnel_v2_reply { sw_if_index: InterfaceIndex };

    /// Creates or deletes a VXLAN tunnel.
    call VxlanAddDelTunnelV3 = vxlan_add_del_tunnel_v3 {
        is_add: bool = "true", instance: u32 = "4294967295", src_address: Address, dst_address: Address,
        src_port: u16, dst_port: u16, mcast_sw_if_index: InterfaceIndex, encap_vrf_id: u32,
        decap_next_index: u32, vni: u32, is_l3: bool = "false",
    }
        -> VxlanAddDelTunnelV3Reply = vxlan_add_del_tunnel_v3_reply { sw_if_index: InterfaceIndex };

    /// Asks for the VXLAN tunnels.
    dump VxlanTunnelDump = vxlan_tunnel_dump { sw_if_index: InterfaceIndex }
        -> VxlanTunnelDetails = vxlan_tunnel_details {
        sw_if_index: InterfaceIndex, instance: u32, src_address: Address, dst_address: Address,
        mcast_sw_if_index: InterfaceIndex, encap_vrf_id: u32, decap_next_index: u32, vni: u32,
    };

    /// Asks for the VXLAN tunnels.
    dump VxlanTunnelV2Dump = vxlan_tunnel_v2_dump { sw_if_index: InterfaceIndex }
        -> VxlanTunnelV2Details = vxlan_tunnel_v2_details {
        sw_if_index: InterfaceIndex, instance: u32, src_address: Address, dst_address: Address,
        src_port: u16, dst_port: u16, mcast_sw_if_index: InterfaceIndex, encap_vrf_id: u32,
        decap_next_index: u32, vni: u32,
    };

    /// Takes VXLAN packets off an interface before they are routed.
    call SwInterfaceSetVxlanBypass = sw_interface_set_vxlan_bypass { sw_if_index: InterfaceIndex, is_ipv6: bool, enable: bool = "true" };
}

pub(super) fn handlers(_: &mut Handlers) {}
