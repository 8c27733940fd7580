//! Messages of VPP's module `ip`.

use super::super::{ApiError, Count, Cx, Handlers, Page, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::ip4::{Fib, Route, RouteSource, Via, Way};
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::Ip4Prefix;

/// The module.
pub const MODULE: Module = Module { name: "ip", version: (3, 2, 0), messages: MESSAGES };

api! {
    /// A routing table.
    record IpTable = ip_table { table_id: u32, is_ip6: bool, name: Text<64> }

    /// A route.
    record IpRoute = ip_route {
        table_id: u32, stats_index: u32, prefix: Prefix, n_paths: Count<u8>, paths: Vec<FibPath>[n_paths],
    }

    /// A route and who added it.
    record IpRouteV2 = ip_route_v2 {
        table_id: u32, stats_index: u32, prefix: Prefix, n_paths: Count<u8>, src: u8,
        paths: Vec<FibPath>[n_paths],
    }

    /// What equal-cost paths are chosen by.
    flags IpFlowHashConfig = ip_flow_hash_config: u32 {
        IP_API_FLOW_HASH_SRC_IP = 1, IP_API_FLOW_HASH_DST_IP = 2, IP_API_FLOW_HASH_SRC_PORT = 4,
        IP_API_FLOW_HASH_DST_PORT = 8, IP_API_FLOW_HASH_PROTO = 16, IP_API_FLOW_HASH_REVERSE = 32,
        IP_API_FLOW_HASH_SYMETRIC = 64, IP_API_FLOW_HASH_FLOW_LABEL = 128,
    }

    /// What equal-cost paths are chosen by.
    flags IpFlowHashConfigV2 = ip_flow_hash_config_v2: u32 {
        IP_API_V2_FLOW_HASH_SRC_IP = 1, IP_API_V2_FLOW_HASH_DST_IP = 2, IP_API_V2_FLOW_HASH_SRC_PORT = 4,
        IP_API_V2_FLOW_HASH_DST_PORT = 8, IP_API_V2_FLOW_HASH_PROTO = 16, IP_API_V2_FLOW_HASH_REVERSE = 32,
        IP_API_V2_FLOW_HASH_SYMETRIC = 64, IP_API_V2_FLOW_HASH_FLOW_LABEL = 128,
        IP_API_V2_FLOW_HASH_GTPV1_TEID = 256,
    }

    /// Reassembly in full, or of ports only.
    enum IpReassType = ip_reass_type: u32 { IP_REASS_TYPE_FULL = 0, IP_REASS_TYPE_SHALLOW_VIRTUAL = 1 }

    /// Creates or deletes a routing table.
    call IpTableAddDel = ip_table_add_del { is_add: bool = "true", table: IpTable };

    /// Creates or deletes a routing table.
    call IpTableAddDelV2 = ip_table_add_del_v2 { table: IpTable, create_mfib: bool = "true", is_add: bool = "true" };

    /// Creates a routing table with an unused number.
    call IpTableAllocate = ip_table_allocate { table: IpTable }
        -> IpTableAllocateReply = ip_table_allocate_reply { table: IpTable };

    /// Asks for the routing tables.
    dump IpTableDump = ip_table_dump {}
        -> IpTableDetails = ip_table_details { table: IpTable };

    /// Marks all routes of a table; those not added again go at the end.
    call IpTableReplaceBegin = ip_table_replace_begin { table: IpTable };

    /// Removes routes that were not added again.
    call IpTableReplaceEnd = ip_table_replace_end { table: IpTable };

    /// Removes all routes of a table that came by the API or a command.
    call IpTableFlush = ip_table_flush { table: IpTable };

    /// Adds or removes a route.
    call IpRouteAddDel = ip_route_add_del { is_add: bool = "true", is_multipath: bool, route: IpRoute }
        -> IpRouteAddDelReply = ip_route_add_del_reply { stats_index: u32 };

    /// Adds or removes a route.
    call IpRouteAddDelV2 = ip_route_add_del_v2 { is_add: bool = "true", is_multipath: bool, route: IpRouteV2 }
        -> IpRouteAddDelV2Reply = ip_route_add_del_v2_reply { stats_index: u32 };

    /// Asks for the routes of a table.
    dump IpRouteDump = ip_route_dump { table: IpTable }
        -> IpRouteDetails = ip_route_details { route: IpRoute };

    /// Asks for the routes of a table.
    dump IpRouteV2Dump = ip_route_v2_dump { src: u8, table: IpTable }
        -> IpRouteV2Details = ip_route_v2_details { route: IpRouteV2 };

    /// Asks which route packets take.
    call IpRouteLookup = ip_route_lookup [read] { table_id: u32, exact: u8, prefix: Prefix }
        -> IpRouteLookupReply = ip_route_lookup_reply { route: IpRoute };

    /// Asks which route packets take.
    call IpRouteLookupV2 = ip_route_lookup_v2 [read] { table_id: u32, exact: u8, prefix: Prefix }
        -> IpRouteLookupV2Reply = ip_route_lookup_v2_reply { route: IpRouteV2 };

    /// Sets what equal-cost paths are chosen by.
    call SetIpFlowHash = set_ip_flow_hash {
        vrf_id: u32, is_ipv6: bool, src: bool, dst: bool, sport: bool, dport: bool, proto: bool,
        reverse: bool, symmetric: bool,
    };

    /// Sets what equal-cost paths are chosen by.
    call SetIpFlowHashV2 = set_ip_flow_hash_v2 {
        table_id: u32, af: AddressFamily, flow_hash_config: IpFlowHashConfig,
    };

    /// Sets what equal-cost paths are chosen by.
    call SetIpFlowHashV3 = set_ip_flow_hash_v3 {
        table_id: u32, af: AddressFamily, flow_hash_config: IpFlowHashConfigV2,
    };

    /// Switches IPv6 on an interface.
    call SwInterfaceIp6EnableDisable = sw_interface_ip6_enable_disable { sw_if_index: InterfaceIndex, enable: bool };

    /// Switches IPv4 on an interface without an address.
    call SwInterfaceIp4EnableDisable = sw_interface_ip4_enable_disable { sw_if_index: InterfaceIndex, enable: bool };

    /// Asks for an interface's addresses.
    dump IpAddressDump = ip_address_dump { sw_if_index: InterfaceIndex, is_ipv6: bool }
        -> IpAddressDetails = ip_address_details { sw_if_index: InterfaceIndex, prefix: AddressWithPrefix };

    /// Asks which interfaces use the address of another.
    dump IpUnnumberedDump = ip_unnumbered_dump { sw_if_index: InterfaceIndex = "4294967295" }
        -> IpUnnumberedDetails = ip_unnumbered_details { sw_if_index: InterfaceIndex, ip_sw_if_index: InterfaceIndex };

    /// Asks which interfaces have addresses of a family.
    dump IpDump = ip_dump { is_ipv6: bool }
        -> IpDetails = ip_details { sw_if_index: InterfaceIndex, is_ipv6: bool };

    /// Sets an interface's link-local address.
    call SwInterfaceIp6SetLinkLocalAddress = sw_interface_ip6_set_link_local_address { sw_if_index: InterfaceIndex, ip: Ip6Address };

    /// Asks for an interface's link-local address.
    call SwInterfaceIp6GetLinkLocalAddress = sw_interface_ip6_get_link_local_address [read] { sw_if_index: InterfaceIndex }
        -> SwInterfaceIp6GetLinkLocalAddressReply = sw_interface_ip6_get_link_local_address_reply { ip: Ip6Address };

    /// Sets the limits of reassembly.
    call IpReassemblySet = ip_reassembly_set {
        timeout_ms: u32, max_reassemblies: u32, max_reassembly_length: u32, expire_walk_interval_ms: u32,
        is_ip6: bool, r#type: IpReassType,
    };

    /// Asks for the limits of reassembly.
    call IpReassemblyGet = ip_reassembly_get [read] { is_ip6: bool, r#type: IpReassType }
        -> IpReassemblyGetReply = ip_reassembly_get_reply {
        timeout_ms: u32, max_reassemblies: u32, max_reassembly_length: u32, expire_walk_interval_ms: u32,
        is_ip6: bool,
    };

    /// Switches reassembly on an interface.
    call IpReassemblyEnableDisable = ip_reassembly_enable_disable {
        sw_if_index: InterfaceIndex, enable_ip4: bool, enable_ip6: bool, r#type: IpReassType,
    };
}

/// Routes in a piece of a dump.
const PAGE: usize = 512;

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(|cx, m: IpTableAddDel| table_add_del(cx, m.is_add, &m.table));
    list.auto(|cx, m: IpTableAddDelV2| table_add_del(cx, m.is_add, &m.table));
    list.call(table_allocate);
    list.dump(table_dump);
    list.steps(table_flush);
    list.call(|cx, m: IpRouteAddDel| {
        let stats_index =
            route_add_del(cx, (m.is_add, m.is_multipath), m.route.table_id, &m.route.prefix, &m.route.paths)?;
        Ok(IpRouteAddDelReply { stats_index })
    });
    list.call(|cx, m: IpRouteAddDelV2| {
        let stats_index =
            route_add_del(cx, (m.is_add, m.is_multipath), m.route.table_id, &m.route.prefix, &m.route.paths)?;
        Ok(IpRouteAddDelV2Reply { stats_index })
    });
    list.pages(|cx, m: &IpRouteDump, at| {
        route_page(cx, &m.table, at, |table, prefix, route| IpRouteDetails {
            route: view(cx, table, prefix, route),
        })
    });
    list.pages(|cx, m: &IpRouteV2Dump, at| {
        route_page(cx, &m.table, at, |table, prefix, route| IpRouteV2Details {
            route: view2(cx, table, prefix, route),
        })
    });
    list.call(|cx, m: IpRouteLookup| {
        lookup(cx, m.table_id, m.exact != 0, &m.prefix)
            .map(|(prefix, route)| IpRouteLookupReply { route: view(cx, m.table_id, prefix, &route) })
    });
    list.call(|cx, m: IpRouteLookupV2| {
        lookup(cx, m.table_id, m.exact != 0, &m.prefix)
            .map(|(prefix, route)| IpRouteLookupV2Reply { route: view2(cx, m.table_id, prefix, &route) })
    });
    list.dump(address_dump);
    list.dump(dump);
    // No interface uses another's address yet.
    list.dump(|_, _: IpUnnumberedDump| Vec::new());
}

fn fib<'a>(cx: &'a Cx<'_>, table: u32) -> Result<&'a Fib, ApiError> {
    cx.dp.fibs.get(&table).ok_or(ApiError::NO_SUCH_FIB)
}

fn ip4_only(table: &IpTable) -> Result<u32, ApiError> {
    if table.is_ip6 { Err(ApiError::UNIMPLEMENTED) } else { Ok(table.table_id) }
}

fn table_add_del(cx: &mut Cx<'_>, is_add: bool, table: &IpTable) -> Result<(), ApiError> {
    let table = ip4_only(table)?;
    if is_add {
        return Ok(cx.dp.add_table(table)?);
    }
    if !fib(cx, table)?.routes().is_empty() || cx.dp.interfaces.values().any(|i| i.table == table) {
        return Err(ApiError::RSRC_IN_USE);
    }
    Ok(cx.dp.delete_table(table)?)
}

fn table_allocate(cx: &mut Cx<'_>, message: IpTableAllocate) -> Result<IpTableAllocateReply, ApiError> {
    let mut table = message.table;
    ip4_only(&table)?;
    if table.table_id == u32::MAX {
        table.table_id = (1..).find(|id| !cx.dp.fibs.contains_key(id)).ok_or(ApiError::LIMIT_EXCEEDED)?;
    }
    cx.dp.add_table(table.table_id)?;
    Ok(IpTableAllocateReply { table: table_view(table.table_id) })
}

fn table_view(table_id: u32) -> IpTable {
    IpTable { table_id, is_ip6: false, name: Text(format!("ipv4-VRF:{table_id}")) }
}

fn table_dump(cx: &mut Cx<'_>, _: IpTableDump) -> Vec<IpTableDetails> {
    cx.dp.fibs.keys().map(|table| IpTableDetails { table: table_view(*table) }).collect()
}

fn table_flush(cx: &mut Cx<'_>, message: &IpTableFlush) -> Result<bool, ApiError> {
    let table = ip4_only(&message.table)?;
    let routes = fib(cx, table)?.routes().iter();
    let own = routes.filter(|(_, route)| route.ways().any(|way| way.source == RouteSource::Cli));
    let own: Vec<_> = own.map(|(prefix, _)| prefix).take(PAGE).collect();
    let done = own.len() < PAGE;
    for prefix in own {
        cx.dp.delete_route(table, prefix, RouteSource::Cli)?;
    }
    Ok(done)
}

/// Where a path leads.
fn via(cx: &Cx<'_>, table: u32, path: &FibPath) -> Result<Via, ApiError> {
    let interface = match path.sw_if_index {
        u32::MAX => None,
        index => Some(cx.interface(index)?),
    };
    match path.r#type {
        FibPathType::FIB_API_PATH_TYPE_NORMAL => {}
        FibPathType::FIB_API_PATH_TYPE_DROP => return Ok(Via::Drop),
        FibPathType::FIB_API_PATH_TYPE_LOCAL => return Ok(Via::Local(interface.unwrap_or(SwIfIndex::LOCAL))),
        _ => return Err(ApiError::UNIMPLEMENTED),
    }
    // A path may lead on in another table: not yet. Nor to what speaks something else.
    if path.proto != FibPathNhProto::FIB_API_PATH_NH_PROTO_IP4 || path.n_labels != 0 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let next_hop = path.nh.address.ip4();
    match (next_hop.is_unspecified(), interface) {
        (false, Some(interface)) => Ok(Via::NextHop(next_hop, interface)),
        (false, None) if path.table_id != 0 && path.table_id != table => Err(ApiError::UNIMPLEMENTED),
        (false, None) => {
            let interface = cx.dp.resolve(table, next_hop).ok_or(ApiError::UNIMPLEMENTED)?;
            Ok(Via::NextHop(next_hop, interface))
        }
        (true, Some(interface)) => Ok(Via::Attached(interface)),
        (true, None) => Err(ApiError::UNIMPLEMENTED),
    }
}

/// Returns the index of the route's counters.
fn route_add_del(
    cx: &mut Cx<'_>,
    (is_add, is_multipath): (bool, bool),
    table: u32,
    prefix: &Prefix,
    paths: &[FibPath],
) -> Result<u32, ApiError> {
    let (address, len) = prefix.ip4()?;
    let prefix = Ip4Prefix::clamped(address, len);
    let own = |cx: &Cx<'_>| -> Result<Option<Way>, ApiError> {
        let route = fib(cx, table)?.routes().get(prefix);
        Ok(route.and_then(|route| route.ways().find(|way| way.source == RouteSource::Cli).copied()))
    };
    let stats_index = |cx: &Cx<'_>| -> Result<u32, ApiError> {
        let route = fib(cx, table)?.routes().get(prefix);
        Ok(route.and_then(|route| cx.dp.stats_index(route)).unwrap_or(u32::MAX))
    };
    let before = own(cx)?;
    if !is_add {
        // Without a path, and with the path that it has, the route goes; what is not there is gone already.
        let Some(before) = before else { return Ok(u32::MAX) };
        if is_multipath && !paths.is_empty() && !paths.iter().any(|p| via(cx, table, p) == Ok(before.via)) {
            return stats_index(cx);
        }
        cx.dp.delete_route(table, prefix, RouteSource::Cli)?;
        return Ok(u32::MAX);
    }
    let [path] = paths else {
        return Err(if paths.is_empty() { ApiError::NO_PATHS_IN_ROUTE } else { ApiError::UNIMPLEMENTED });
    };
    let via = via(cx, table, path)?;
    // A second path beside the first: routes have one.
    if is_multipath && before.is_some_and(|way| way.via != via) {
        return Err(ApiError::UNIMPLEMENTED);
    }
    cx.dp.add_route(table, prefix, RouteSource::Cli, via)?;
    stats_index(cx)
}

fn path(way: &Way) -> FibPath {
    let (r#type, next_hop) = match way.via {
        Via::NextHop(address, _) => (FibPathType::FIB_API_PATH_TYPE_NORMAL, address),
        Via::Attached(_) => (FibPathType::FIB_API_PATH_TYPE_NORMAL, Ipv4Addr::UNSPECIFIED),
        Via::Local(_) => (FibPathType::FIB_API_PATH_TYPE_LOCAL, Ipv4Addr::UNSPECIFIED),
        Via::Drop | Via::Punt => (FibPathType::FIB_API_PATH_TYPE_DROP, Ipv4Addr::UNSPECIFIED),
    };
    FibPath {
        sw_if_index: way.via.interface().map_or(u32::MAX, |index| index.0),
        weight: 1,
        r#type,
        nh: FibPathNh { address: next_hop.into(), ..FibPathNh::default() },
        ..FibPath::default()
    }
}

fn view(cx: &Cx<'_>, table_id: u32, prefix: Ip4Prefix, route: &Route) -> IpRoute {
    let best = route.best();
    IpRoute {
        table_id,
        stats_index: cx.dp.stats_index(route).unwrap_or(u32::MAX),
        prefix: prefix.into(),
        paths: vec![path(best)],
        ..IpRoute::default()
    }
}

fn view2(cx: &Cx<'_>, table_id: u32, prefix: Ip4Prefix, route: &Route) -> IpRouteV2 {
    let IpRoute { stats_index, prefix, paths, .. } = view(cx, table_id, prefix, route);
    IpRouteV2 { table_id, stats_index, prefix, paths, ..IpRouteV2::default() }
}

/// What comes or goes meanwhile may be in the dump, or not.
fn route_page<D>(
    cx: &Cx<'_>,
    table: &IpTable,
    after: Option<Ip4Prefix>,
    details: impl Fn(u32, Ip4Prefix, &Route) -> D,
) -> Page<D, Ip4Prefix> {
    let fib = ip4_only(table).ok().and_then(|table| cx.dp.fibs.get(&table));
    let Some(fib) = fib else { return Page { entries: Vec::new(), next: None } };
    let mut last = None;
    let page = fib.routes().iter_after(after).take(PAGE).inspect(|(prefix, _)| last = Some(*prefix));
    let entries: Vec<D> = page.map(|(prefix, route)| details(table.table_id, prefix, route)).collect();
    let next = last.filter(|_| entries.len() == PAGE);
    Page { entries, next }
}

fn lookup(cx: &Cx<'_>, table: u32, exact: bool, prefix: &Prefix) -> Result<(Ip4Prefix, Route), ApiError> {
    let (address, len) = prefix.ip4()?;
    let prefix = Ip4Prefix::clamped(address, len);
    let routes = fib(cx, table)?.routes();
    let exactly = routes.get(prefix).map(|route| (prefix, route));
    let found = exactly.or_else(|| if exact { None } else { routes.covering(prefix) });
    found.map(|(prefix, route)| (prefix, route.clone())).ok_or(ApiError::NO_SUCH_ENTRY)
}

fn address_dump(cx: &mut Cx<'_>, message: IpAddressDump) -> Vec<IpAddressDetails> {
    let interface = cx.dp.interfaces.get(&SwIfIndex(message.sw_if_index.0)).filter(|_| !message.is_ipv6);
    let addresses = interface.map(|i| i.addresses.as_slice()).unwrap_or_default().iter();
    let details = addresses.map(|(address, len)| IpAddressDetails {
        sw_if_index: InterfaceIndex(message.sw_if_index.0),
        prefix: AddressWithPrefix(Prefix { address: (*address).into(), len: *len }),
    });
    details.collect()
}

fn dump(cx: &mut Cx<'_>, message: IpDump) -> Vec<IpDetails> {
    let with = cx.dp.interfaces.iter().filter(|(_, i)| !message.is_ipv6 && !i.addresses.is_empty());
    with.map(|(index, _)| IpDetails { sw_if_index: (*index).into(), is_ipv6: false }).collect()
}
