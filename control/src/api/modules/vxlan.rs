//! Messages of VPP's module `vxlan`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use super::types::*;
use crate::api;
use crate::vxlan::{DecapNext, VxlanConfig};

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

pub(super) fn handlers(list: &mut Handlers) {
    list.call_steps(|cx, m: &VxlanAddDelTunnel| {
        let tunnel = Wanted {
            instance: m.instance,
            ends: (m.src_address.clone(), m.dst_address.clone()),
            ports: (0, 0),
            multicast: m.mcast_sw_if_index.clone(),
            table: m.encap_vrf_id,
            decap_next: m.decap_next_index,
            vni: m.vni,
            is_l3: false,
        };
        let done = add_del(cx, m.is_add, &tunnel)?;
        Ok(done.map(|sw_if_index| VxlanAddDelTunnelReply { sw_if_index }))
    });
    list.call_steps(|cx, m: &VxlanAddDelTunnelV2| {
        let tunnel = Wanted {
            instance: m.instance,
            ends: (m.src_address.clone(), m.dst_address.clone()),
            ports: (m.src_port, m.dst_port),
            multicast: m.mcast_sw_if_index.clone(),
            table: m.encap_vrf_id,
            decap_next: m.decap_next_index,
            vni: m.vni,
            is_l3: false,
        };
        let done = add_del(cx, m.is_add, &tunnel)?;
        Ok(done.map(|sw_if_index| VxlanAddDelTunnelV2Reply { sw_if_index }))
    });
    list.call_steps(|cx, m: &VxlanAddDelTunnelV3| {
        let tunnel = Wanted {
            instance: m.instance,
            ends: (m.src_address.clone(), m.dst_address.clone()),
            ports: (m.src_port, m.dst_port),
            multicast: m.mcast_sw_if_index.clone(),
            table: m.encap_vrf_id,
            decap_next: m.decap_next_index,
            vni: m.vni,
            is_l3: m.is_l3,
        };
        let done = add_del(cx, m.is_add, &tunnel)?;
        Ok(done.map(|sw_if_index| VxlanAddDelTunnelV3Reply { sw_if_index }))
    });
    list.dump(|cx, m: VxlanTunnelDump| {
        tunnels(cx, &m.sw_if_index, |d| VxlanTunnelDetails {
            sw_if_index: d.sw_if_index,
            instance: d.instance,
            src_address: d.src_address,
            dst_address: d.dst_address,
            mcast_sw_if_index: d.mcast_sw_if_index,
            encap_vrf_id: d.encap_vrf_id,
            decap_next_index: d.decap_next_index,
            vni: d.vni,
        })
    });
    list.dump(|cx, m: VxlanTunnelV2Dump| tunnels(cx, &m.sw_if_index, |details| details));
}

/// What the versions of the request say.
struct Wanted {
    instance: u32,
    ends: (Address, Address),
    ports: (u16, u16),
    multicast: InterfaceIndex,
    table: u32,
    decap_next: u32,
    vni: u32,
    is_l3: bool,
}

/// The node that an edge of `vxlan4-input` leads to.
fn edge_name(cx: &Cx<'_>, edge: u32) -> Option<&'static str> {
    let graph = cx.dp.engine().graph();
    let input = graph.nodes.get(graph.find("vxlan4-input")?.index())?;
    input.edges().get(edge as usize).map(|node| graph.name(*node))
}

fn decap(cx: &Cx<'_>, wanted: &Wanted) -> Result<DecapNext, ApiError> {
    match wanted.decap_next {
        u32::MAX if wanted.is_l3 => Ok(DecapNext::Ip4),
        u32::MAX => Ok(DecapNext::L2),
        edge => match edge_name(cx, edge) {
            Some("ip4-input") => Ok(DecapNext::Ip4),
            Some("l2-input" | "ethernet-input") => Ok(DecapNext::L2),
            _ => Err(ApiError::INVALID_DECAP_NEXT),
        },
    }
}

/// The tunnel's interface, once all of it is gone or there.
fn add_del(cx: &mut Cx<'_>, is_add: bool, wanted: &Wanted) -> Result<Option<InterfaceIndex>, ApiError> {
    let (src, dst) = (wanted.ends.0.ip4()?, wanted.ends.1.ip4()?);
    let found = cx.dp.find_vxlan(src, dst, wanted.vni);
    if !is_add {
        let index = found.ok_or(ApiError::NO_SUCH_ENTRY)?;
        return Ok(cx.dp.delete_interface_piece(index)?.then(|| index.into()));
    }
    if found.is_some() {
        return Err(ApiError::TUNNEL_EXIST);
    }
    if src == dst {
        return Err(ApiError::SAME_SRC_DST);
    }
    let group = match dst.is_multicast() {
        true => Some(cx.interface(wanted.multicast.0)?),
        // 0 is what a client leaves that does not know of groups.
        false if matches!(wanted.multicast.0, 0 | u32::MAX) => None,
        false => return Err(ApiError::INVALID_DST_ADDRESS),
    };
    if !cx.dp.fibs.contains_key(&wanted.table) {
        return Err(ApiError::NO_SUCH_FIB);
    }
    let mut config = VxlanConfig::new(src, dst, wanted.vni);
    (config.table, config.group) = (wanted.table, group);
    config.decap = decap(cx, wanted)?;
    // 0 stands for the default.
    config.src_port = Some(wanted.ports.0).filter(|port| *port != 0);
    if wanted.ports.1 != 0 {
        config.dst_port = wanted.ports.1;
    }
    let instance = Some(wanted.instance).filter(|instance| *instance != u32::MAX);
    if let Some(instance) = instance
        && cx.dp.find_interface(&format!("vxlan_tunnel{instance}")).is_some()
    {
        return Err(ApiError::INSTANCE_IN_USE);
    }
    Ok(Some(cx.dp.create_vxlan(config, instance)?.into()))
}

fn tunnels<D>(cx: &Cx<'_>, only: &InterfaceIndex, view: fn(VxlanTunnelV2Details) -> D) -> Vec<D> {
    let all = *only == InterfaceIndex::NONE;
    let graph = cx.dp.engine().graph();
    let edges = graph.find("vxlan4-input").and_then(|node| graph.nodes.get(node.index())).map(|n| n.edges());
    let edge = |name: &str| edges.and_then(|edges| edges.iter().position(|node| graph.name(*node) == name));
    let list = cx.dp.vxlan.list.iter().filter(|(index, _)| all || index.0 == only.0);
    let details = list.map(|(index, config)| VxlanTunnelV2Details {
        sw_if_index: (*index).into(),
        instance: config.instance,
        src_address: config.src.into(),
        dst_address: config.dst.into(),
        src_port: config.src_port.unwrap_or(config.dst_port),
        dst_port: config.dst_port,
        mcast_sw_if_index: config.group.map_or(InterfaceIndex::NONE, Into::into),
        encap_vrf_id: config.table,
        decap_next_index: match config.decap {
            DecapNext::L2 => edge("l2-input"),
            DecapNext::Ip4 => edge("ip4-input"),
        }
        .map_or(u32::MAX, |edge| edge as u32),
        vni: config.vni,
    });
    details.map(view).collect()
}
