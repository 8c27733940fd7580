//! Messages of VPP's module `ip_neighbor`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use super::types::*;
use crate::api;
use crate::ip4::{AdjacencyKey, MAX_NEIGHBOURS, NeighbourState};
use std::time::Instant;
use wharf_nodes::wire::ethernet;

/// The module.
pub const MODULE: Module = Module { name: "ip_neighbor", version: (1, 0, 1), messages: MESSAGES };

api! {
    /// Properties of a neighbour.
    enum IpNeighborFlags = ip_neighbor_flags: u8 {
        IP_API_NEIGHBOR_FLAG_NONE = 0, IP_API_NEIGHBOR_FLAG_STATIC = 1,
        IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY = 2,
    }

    /// A neighbour.
    record IpNeighbor = ip_neighbor {
        sw_if_index: InterfaceIndex, flags: IpNeighborFlags, mac_address: MacAddress, ip_address: Address,
    }

    /// What happened to a neighbour.
    enum IpNeighborEventFlags = ip_neighbor_event_flags: u32 {
        IP_NEIGHBOR_API_EVENT_FLAG_ADDED = 1, IP_NEIGHBOR_API_EVENT_FLAG_REMOVED = 2,
    }

    /// Adds or removes a neighbour.
    call IpNeighborAddDel = ip_neighbor_add_del { is_add: bool, neighbor: IpNeighbor }
        -> IpNeighborAddDelReply = ip_neighbor_add_del_reply { stats_index: u32 };

    /// Asks for neighbours.
    dump IpNeighborDump = ip_neighbor_dump { sw_if_index: InterfaceIndex = "4294967295", af: AddressFamily }
        -> IpNeighborDetails = ip_neighbor_details { age: f64, neighbor: IpNeighbor };

    /// Sets the limits of neighbour tables.
    call IpNeighborConfig = ip_neighbor_config { af: AddressFamily, max_number: u32, max_age: u32, recycle: bool };

    /// Asks for the limits of neighbour tables.
    call IpNeighborConfigGet = ip_neighbor_config_get [read] { af: AddressFamily }
        -> IpNeighborConfigGetReply = ip_neighbor_config_get_reply { af: AddressFamily, max_number: u32, max_age: u32, recycle: bool };

    /// Marks all neighbours; those not added again go at the end.
    call IpNeighborReplaceBegin = ip_neighbor_replace_begin {};

    /// Removes neighbours that were not added again.
    call IpNeighborReplaceEnd = ip_neighbor_replace_end {};

    /// Removes neighbours.
    call IpNeighborFlush = ip_neighbor_flush { af: AddressFamily, sw_if_index: InterfaceIndex = "4294967295" };

    /// Asks for events about neighbours.
    call WantIpNeighborEvents = want_ip_neighbor_events [read] {
        enable: bool, pid: u32, ip: Address, sw_if_index: InterfaceIndex = "4294967295",
    };

    /// A neighbour has come or changed.
    event IpNeighborEvent = ip_neighbor_event { client_index: u32, pid: u32, neighbor: IpNeighbor };

    /// Asks for events about neighbours.
    call WantIpNeighborEventsV2 = want_ip_neighbor_events_v2 [read] {
        enable: bool, pid: u32, ip: Address, sw_if_index: InterfaceIndex = "4294967295",
    };

    /// A neighbour has come, changed or gone.
    event IpNeighborEventV2 = ip_neighbor_event_v2 {
        client_index: u32, pid: u32, flags: IpNeighborEventFlags, neighbor: IpNeighbor,
    };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.call(add_del);
    list.dump(dump);
    list.auto(flush);
    list.auto(config);
    list.call(config_get);
}

fn is_ip6(af: AddressFamily) -> bool {
    af == AddressFamily::ADDRESS_IP6
}

fn add_del(cx: &mut Cx<'_>, message: IpNeighborAddDel) -> Result<IpNeighborAddDelReply, ApiError> {
    let IpNeighbor { sw_if_index, flags, mac_address, ip_address } = message.neighbor;
    let index = cx.interface(sw_if_index.0)?;
    let address = ip_address.ip4()?;
    if !message.is_add {
        if cx.dp.neighbours.get(index, address).is_none() {
            return Err(ApiError::NO_SUCH_ENTRY);
        }
        cx.dp.forget_neighbour(index, address);
        return Ok(IpNeighborAddDelReply { stats_index: u32::MAX });
    }
    if !cx.dp.record(index)?.can_arp(address) {
        return Err(ApiError::INVALID_VALUE);
    }
    let fixed = flags.0 & IpNeighborFlags::IP_API_NEIGHBOR_FLAG_STATIC.0 != 0;
    let in_fib = flags.0 & IpNeighborFlags::IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY.0 == 0;
    cx.dp.set_neighbour(
        index,
        address,
        ethernet::MacAddress(mac_address.0),
        fixed,
        in_fib,
        Instant::now(),
    )?;
    let stats_index = cx.dp.adjacencies.find(AdjacencyKey::Neighbour(index, address)).unwrap_or(u32::MAX);
    Ok(IpNeighborAddDelReply { stats_index })
}

fn dump(cx: &mut Cx<'_>, message: IpNeighborDump) -> Vec<IpNeighborDetails> {
    if is_ip6(message.af) {
        return Vec::new();
    }
    let all = matches!(message.sw_if_index.0, 0 | u32::MAX);
    let known = cx.dp.neighbours.iter().filter(|(index, _, neighbour)| {
        (all || index.0 == message.sw_if_index.0) && neighbour.state != NeighbourState::Incomplete
    });
    let details = known.map(|(index, address, neighbour)| {
        let mut flags = IpNeighborFlags::default();
        if neighbour.state == NeighbourState::Static {
            flags.0 |= IpNeighborFlags::IP_API_NEIGHBOR_FLAG_STATIC.0;
        }
        if !neighbour.in_fib {
            flags.0 |= IpNeighborFlags::IP_API_NEIGHBOR_FLAG_NO_FIB_ENTRY.0;
        }
        IpNeighborDetails {
            age: neighbour.updated.elapsed().as_secs_f64(),
            neighbor: IpNeighbor {
                sw_if_index: index.into(),
                flags,
                mac_address: neighbour.mac.into(),
                ip_address: address.into(),
            },
        }
    });
    details.collect()
}

fn flush(cx: &mut Cx<'_>, message: IpNeighborFlush) -> Result<(), ApiError> {
    if is_ip6(message.af) {
        return Ok(());
    }
    let all = message.sw_if_index == InterfaceIndex::NONE;
    let gone = cx.dp.neighbours.iter().filter(|(index, _, _)| all || index.0 == message.sw_if_index.0);
    let gone: Vec<_> = gone.map(|(index, address, _)| (index, address)).collect();
    gone.into_iter().for_each(|(index, address)| cx.dp.forget_neighbour(index, address));
    Ok(())
}

/// Only the age can be set.
fn config(cx: &mut Cx<'_>, message: IpNeighborConfig) -> Result<(), ApiError> {
    if is_ip6(message.af) || message.recycle || message.max_number != MAX_NEIGHBOURS as u32 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    cx.dp.set_neighbour_age(message.max_age);
    Ok(())
}

fn config_get(cx: &mut Cx<'_>, message: IpNeighborConfigGet) -> Result<IpNeighborConfigGetReply, ApiError> {
    if is_ip6(message.af) {
        return Err(ApiError::UNIMPLEMENTED);
    }
    Ok(IpNeighborConfigGetReply {
        af: message.af,
        max_number: MAX_NEIGHBOURS as u32,
        max_age: cx.dp.neighbours.age.map_or(0, |age| age.as_secs() as u32),
        recycle: false,
    })
}
