//! Messages of VPP's module `l2`.

use super::super::{ApiError, Count, Cx, Handlers, Page, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::dataplane::Dataplane;
use crate::interface::Interface;
use crate::l2::{BridgeDomainConfig, DomainFlag, Flush, L2Mode, PortKind, TagOperation, VlanOperation};
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::ethernet::{self, EtherType};

/// The module.
pub const MODULE: Module = Module { name: "l2", version: (3, 3, 0), messages: MESSAGES };

api! {
    /// What happened to a MAC address.
    enum MacEventAction = mac_event_action: u32 {
        MAC_EVENT_ACTION_API_ADD = 0, MAC_EVENT_ACTION_API_DELETE = 1, MAC_EVENT_ACTION_API_MOVE = 2,
    }

    /// A MAC address with what happened to it.
    record MacEntry = mac_entry {
        sw_if_index: InterfaceIndex, mac_addr: MacAddress, action: MacEventAction, flags: u8,
    }

    /// A port of a bridge domain.
    record BridgeDomainSwIf = bridge_domain_sw_if { context: u32, sw_if_index: InterfaceIndex, shg: u8 }

    /// Features of a bridge domain.
    enum BdFlags = bd_flags: u32 {
        BRIDGE_API_FLAG_NONE = 0, BRIDGE_API_FLAG_LEARN = 1, BRIDGE_API_FLAG_FWD = 2,
        BRIDGE_API_FLAG_FLOOD = 4, BRIDGE_API_FLAG_UU_FLOOD = 8, BRIDGE_API_FLAG_ARP_TERM = 16,
        BRIDGE_API_FLAG_ARP_UFWD = 32,
    }

    /// What a port is to its bridge domain.
    enum L2PortType = l2_port_type: u32 {
        L2_API_PORT_TYPE_NORMAL = 0, L2_API_PORT_TYPE_BVI = 1, L2_API_PORT_TYPE_UU_FWD = 2,
    }

    /// An address that a bridge domain answers for.
    record BdIpMac = bd_ip_mac { bd_id: u32, ip: Address, mac: MacAddress }

    /// Asks for the cross-connects.
    dump L2XconnectDump = l2_xconnect_dump {}
        -> L2XconnectDetails = l2_xconnect_details { rx_sw_if_index: InterfaceIndex, tx_sw_if_index: InterfaceIndex };

    /// Asks for the MAC addresses of a bridge domain.
    dump L2FibTableDump = l2_fib_table_dump { bd_id: u32 }
        -> L2FibTableDetails = l2_fib_table_details {
        bd_id: u32, mac: MacAddress, sw_if_index: InterfaceIndex, static_mac: bool, filter_mac: bool,
        bvi_mac: bool,
    };

    /// Removes all MAC addresses.
    call L2FibClearTable = l2_fib_clear_table {};

    /// Removes all learned MAC addresses.
    call L2fibFlushAll = l2fib_flush_all {};

    /// Removes the MAC addresses learned in a bridge domain.
    call L2fibFlushBd = l2fib_flush_bd { bd_id: u32 };

    /// Removes the MAC addresses learned on an interface.
    call L2fibFlushInt = l2fib_flush_int { sw_if_index: InterfaceIndex };

    /// Adds or removes a MAC address.
    call L2fibAddDel = l2fib_add_del {
        mac: MacAddress, bd_id: u32, sw_if_index: InterfaceIndex, is_add: bool = "true", static_mac: bool,
        filter_mac: bool, bvi_mac: bool,
    };

    /// Asks for events about learned MAC addresses.
    call WantL2MacsEvents = want_l2_macs_events [read] {
        learn_limit: u32 = "1000", scan_delay: u8 = "10", max_macs_in_event: u8 = "10",
        enable_disable: bool = "true", pid: u32,
    };

    /// Asks for events about learned MAC addresses.
    call WantL2MacsEvents2 = want_l2_macs_events2 [read] {
        max_macs_in_event: u8 = "10", enable_disable: bool = "true", pid: u32,
    };

    /// Sets how often learned MAC addresses are reported.
    call L2fibSetScanDelay = l2fib_set_scan_delay { scan_delay: u16 = "10" };

    /// MAC addresses were learned, moved or forgotten.
    event L2MacsEvent = l2_macs_event {
        client_index: u32, pid: u32, n_macs: Count<u32>, mac: Vec<MacEntry>[n_macs],
    };

    /// Switches features of a bridge port.
    call L2Flags = l2_flags { sw_if_index: InterfaceIndex, is_set: bool, feature_bitmap: u32 }
        -> L2FlagsReply = l2_flags_reply { resulting_feature_bitmap: u32 };

    /// Sets when learned MAC addresses are forgotten.
    call BridgeDomainSetMacAge = bridge_domain_set_mac_age { bd_id: u32, mac_age: u8 };

    /// Sets how many MAC addresses a new bridge domain learns.
    call BridgeDomainSetDefaultLearnLimit = bridge_domain_set_default_learn_limit { learn_limit: u32 };

    /// Sets how many MAC addresses a bridge domain learns.
    call BridgeDomainSetLearnLimit = bridge_domain_set_learn_limit { bd_id: u32, learn_limit: u32 };

    /// Creates or deletes a bridge domain.
    call BridgeDomainAddDel = bridge_domain_add_del {
        bd_id: u32, flood: bool, uu_flood: bool, forward: bool, learn: bool, arp_term: bool,
        arp_ufwd: bool, mac_age: u8, bd_tag: Text<64>, is_add: bool = "true",
    };

    /// Creates or deletes a bridge domain, with a chosen number if none is given.
    call BridgeDomainAddDelV2 = bridge_domain_add_del_v2 {
        bd_id: u32, flood: bool, uu_flood: bool, forward: bool, learn: bool, arp_term: bool,
        arp_ufwd: bool, mac_age: u8, bd_tag: Text<64>, is_add: bool = "true",
    }
        -> BridgeDomainAddDelV2Reply = bridge_domain_add_del_v2_reply { bd_id: u32 };

    /// Asks for bridge domains and their ports.
    dump BridgeDomainDump = bridge_domain_dump {
        bd_id: u32 = "4294967295", sw_if_index: InterfaceIndex = "4294967295",
    }
        -> BridgeDomainDetails = bridge_domain_details {
        bd_id: u32, flood: bool, uu_flood: bool, forward: bool, learn: bool, arp_term: bool,
        arp_ufwd: bool, mac_age: u8, bd_tag: Text<64>, bvi_sw_if_index: InterfaceIndex,
        uu_fwd_sw_if_index: InterfaceIndex, n_sw_ifs: Count<u32>,
        sw_if_details: Vec<BridgeDomainSwIf>[n_sw_ifs],
    };

    /// Switches features of a bridge domain.
    call BridgeFlags = bridge_flags { bd_id: u32, is_set: bool, flags: BdFlags }
        -> BridgeFlagsReply = bridge_flags_reply { resulting_feature_bitmap: u32 };

    /// Sets what happens to an interface's VLAN tags.
    call L2InterfaceVlanTagRewrite = l2_interface_vlan_tag_rewrite {
        sw_if_index: InterfaceIndex, vtr_op: u32, push_dot1q: u32, tag1: u32, tag2: u32,
    };

    /// Sends what an interface receives out of another.
    call SwInterfaceSetL2Xconnect = sw_interface_set_l2_xconnect {
        rx_sw_if_index: InterfaceIndex, tx_sw_if_index: InterfaceIndex, enable: bool = "true",
    };

    /// Makes an interface a port of a bridge domain.
    call SwInterfaceSetL2Bridge = sw_interface_set_l2_bridge {
        rx_sw_if_index: InterfaceIndex, bd_id: u32, port_type: L2PortType, shg: u8, enable: bool = "true",
    };

    /// Adds or removes an address that a bridge domain answers for.
    call BdIpMacAddDel = bd_ip_mac_add_del { is_add: bool = "true", entry: BdIpMac };

    /// Removes all addresses that a bridge domain answers for.
    call BdIpMacFlush = bd_ip_mac_flush { bd_id: u32 };

    /// Asks for the addresses that a bridge domain answers for.
    dump BdIpMacDump = bd_ip_mac_dump { bd_id: u32 }
        -> BdIpMacDetails = bd_ip_mac_details { entry: BdIpMac };

    /// Creates a virtual interface of a bridge domain.
    call BviCreate = bvi_create { mac: MacAddress, user_instance: u32 = "4294967295" }
        -> BviCreateReply = bvi_create_reply { sw_if_index: InterfaceIndex };

    /// Deletes a virtual interface of a bridge domain.
    call BviDelete = bvi_delete { sw_if_index: InterfaceIndex };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(set_xconnect);
    list.dump(xconnect_dump);
    list.auto(|cx, m: BridgeDomainAddDel| {
        let domain = Wanted {
            id: m.bd_id,
            flags: [m.learn, m.forward, m.uu_flood, m.flood, m.arp_term],
            arp_ufwd: m.arp_ufwd,
            mac_age: m.mac_age,
            tag: m.bd_tag.0,
        };
        domain_add_del(cx, m.is_add, domain).map(|_| ())
    });
    list.call(|cx, m: BridgeDomainAddDelV2| {
        let domain = Wanted {
            id: m.bd_id,
            flags: [m.learn, m.forward, m.uu_flood, m.flood, m.arp_term],
            arp_ufwd: m.arp_ufwd,
            mac_age: m.mac_age,
            tag: m.bd_tag.0,
        };
        Ok(BridgeDomainAddDelV2Reply { bd_id: domain_add_del(cx, m.is_add, domain)? })
    });
    list.dump(domain_dump);
    list.call(bridge_flags);
    list.auto(set_bridge);
    list.auto(|cx, m: BridgeDomainSetMacAge| {
        known_domain(cx, m.bd_id)?;
        Ok(cx.dp.set_mac_age(m.bd_id, m.mac_age)?)
    });
    list.auto(|cx, m: BridgeDomainSetLearnLimit| {
        known_domain(cx, m.bd_id)?;
        Ok(cx.dp.set_domain_learn_limit(m.bd_id, m.learn_limit)?)
    });
    list.auto(mac_add_del);
    list.pages(mac_dump);
    list.auto(|cx, _: L2FibClearTable| flush(cx, Flush::Learned));
    list.auto(|cx, _: L2fibFlushAll| flush(cx, Flush::Learned));
    list.auto(|cx, m: L2fibFlushBd| {
        known_domain(cx, m.bd_id)?;
        flush(cx, Flush::LearnedIn(m.bd_id))
    });
    list.auto(|cx, m: L2fibFlushInt| {
        let index = cx.interface(m.sw_if_index.0)?;
        flush(cx, Flush::LearnedBehind(index))
    });
    list.auto(tag_rewrite);
    list.auto(arp_add_del);
    list.auto(|cx, m: BdIpMacFlush| {
        known_domain(cx, m.bd_id)?;
        Ok(cx.dp.clear_arp_entries(m.bd_id)?)
    });
    list.dump(arp_dump);
}

fn known_domain(cx: &Cx<'_>, id: u32) -> Result<(), ApiError> {
    cx.dp.bridges.contains_key(&id).then_some(()).ok_or(ApiError::NO_SUCH_ENTRY)
}

const FLAGS: [DomainFlag; 5] =
    [DomainFlag::Learn, DomainFlag::Forward, DomainFlag::UuFlood, DomainFlag::Flood, DomainFlag::ArpTerm];

/// What the versions of the request say; the flags in the order of [`FLAGS`].
struct Wanted {
    id: u32,
    flags: [bool; 5],
    arp_ufwd: bool,
    mac_age: u8,
    tag: String,
}

/// Returns the domain's number.
fn domain_add_del(cx: &mut Cx<'_>, is_add: bool, wanted: Wanted) -> Result<u32, ApiError> {
    let mut id = wanted.id;
    if !is_add {
        known_domain(cx, id)?;
        if cx.dp.interfaces.values().any(|interface| interface.mode.domain() == Some(id)) {
            return Err(ApiError::BD_IN_USE);
        }
        cx.dp.delete_bridge_domain(id)?;
        return Ok(id);
    }
    if wanted.arp_ufwd {
        return Err(ApiError::UNIMPLEMENTED);
    }
    if id == u32::MAX {
        id = (1..).find(|id| !cx.dp.bridges.contains_key(id)).ok_or(ApiError::LIMIT_EXCEEDED)?;
    }
    match id {
        0 => return Err(ApiError::BD_NOT_MODIFIABLE),
        0x0100_0000.. => return Err(ApiError::BD_ID_EXCEED_MAX),
        _ if cx.dp.bridges.contains_key(&id) => return Err(ApiError::BD_ALREADY_EXISTS),
        _ => cx.dp.create_bridge_domain(id)?,
    }
    for (flag, on) in FLAGS.into_iter().zip(wanted.flags) {
        cx.dp.set_domain_flag(id, flag, on)?;
    }
    cx.dp.set_mac_age(id, wanted.mac_age)?;
    cx.dp.set_domain_tag(id, wanted.tag)?;
    Ok(id)
}

fn domain_dump(cx: &mut Cx<'_>, message: BridgeDomainDump) -> Vec<BridgeDomainDetails> {
    let interface = cx.dp.interfaces.get(&SwIfIndex(message.sw_if_index.0)).and_then(|i| i.mode.domain());
    let by_interface = !matches!(message.sw_if_index.0, 0 | u32::MAX);
    let wanted = |id: u32| {
        (message.bd_id == u32::MAX || message.bd_id == id) && (!by_interface || interface == Some(id))
    };
    let domains = cx.dp.bridges.iter().filter(|(id, _)| wanted(**id));
    domains.map(|(id, domain)| domain_details(cx.dp, *id, domain)).collect()
}

fn domain_details(dp: &Dataplane, id: u32, domain: &BridgeDomainConfig) -> BridgeDomainDetails {
    let mut details = BridgeDomainDetails {
        bd_id: id,
        flood: domain.flood,
        uu_flood: domain.uu_flood,
        forward: domain.forward,
        learn: domain.learn,
        arp_term: domain.arp_term,
        mac_age: domain.mac_age,
        bd_tag: Text(domain.tag.clone()),
        bvi_sw_if_index: InterfaceIndex::NONE,
        uu_fwd_sw_if_index: InterfaceIndex::NONE,
        ..BridgeDomainDetails::default()
    };
    for (index, interface) in &dp.interfaces {
        if let L2Mode::Bridge { domain, kind, shg } = interface.mode
            && domain == id
        {
            match kind {
                PortKind::Bvi => details.bvi_sw_if_index = (*index).into(),
                PortKind::UuFwd => details.uu_fwd_sw_if_index = (*index).into(),
                PortKind::Normal => {}
            }
            details.sw_if_details.push(BridgeDomainSwIf { context: 0, sw_if_index: (*index).into(), shg });
        }
    }
    details
}

fn bridge_flags(cx: &mut Cx<'_>, message: BridgeFlags) -> Result<BridgeFlagsReply, ApiError> {
    known_domain(cx, message.bd_id)?;
    let bits = [
        BdFlags::BRIDGE_API_FLAG_LEARN,
        BdFlags::BRIDGE_API_FLAG_FWD,
        BdFlags::BRIDGE_API_FLAG_UU_FLOOD,
        BdFlags::BRIDGE_API_FLAG_FLOOD,
        BdFlags::BRIDGE_API_FLAG_ARP_TERM,
    ];
    if message.flags.0 & BdFlags::BRIDGE_API_FLAG_ARP_UFWD.0 != 0 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let named = FLAGS.into_iter().zip(bits).filter(|(_, bit)| message.flags.0 & bit.0 != 0);
    for (flag, _) in named {
        cx.dp.set_domain_flag(message.bd_id, flag, message.is_set)?;
    }
    let domain = cx.dp.domain(message.bd_id)?;
    let now = [domain.learn, domain.forward, domain.uu_flood, domain.flood, domain.arp_term];
    let set = now.iter().zip(bits).filter(|(on, _)| **on).fold(0, |flags, (_, bit)| flags | bit.0);
    Ok(BridgeFlagsReply { resulting_feature_bitmap: set })
}

fn set_bridge(cx: &mut Cx<'_>, message: SwInterfaceSetL2Bridge) -> Result<(), ApiError> {
    let index = cx.interface(message.rx_sw_if_index.0)?;
    if !message.enable {
        return Ok(cx.dp.set_l3(index)?);
    }
    known_domain(cx, message.bd_id)?;
    let kind = match message.port_type {
        L2PortType::L2_API_PORT_TYPE_NORMAL => PortKind::Normal,
        L2PortType::L2_API_PORT_TYPE_BVI => PortKind::Bvi,
        L2PortType::L2_API_PORT_TYPE_UU_FWD => PortKind::UuFwd,
        _ => return Err(ApiError::INVALID_VALUE),
    };
    let is_bvi = |i: &Interface| i.mode.is_bvi() && i.mode.domain() == Some(message.bd_id);
    if kind == PortKind::Bvi && cx.dp.interfaces.iter().any(|(i, interface)| *i != index && is_bvi(interface))
    {
        return Err(ApiError::BD_ALREADY_HAS_BVI);
    }
    Ok(cx.dp.set_bridge(index, message.bd_id, kind, message.shg)?)
}

fn mac_add_del(cx: &mut Cx<'_>, message: L2fibAddDel) -> Result<(), ApiError> {
    known_domain(cx, message.bd_id)?;
    let mac = ethernet::MacAddress(message.mac.0);
    if !message.is_add {
        return cx.dp.delete_mac(mac, message.bd_id).map_err(|_| ApiError::NO_SUCH_ENTRY);
    }
    if message.filter_mac {
        return Ok(cx.dp.add_mac(mac, message.bd_id, None)?);
    }
    // What is set by hand stays: there is no entry that ages and was not learned.
    if !message.static_mac && !message.bvi_mac {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let index = cx.interface(message.sw_if_index.0)?;
    Ok(cx.dp.add_mac(mac, message.bd_id, Some(index))?)
}

/// A page is a part of the table.
fn mac_dump(
    cx: &mut Cx<'_>,
    message: &L2FibTableDump,
    part: Option<usize>,
) -> Page<L2FibTableDetails, usize> {
    let part = part.unwrap_or(0);
    let rows = cx.dp.mac_rows(Some(message.bd_id).filter(|id| *id != u32::MAX), part).into_iter();
    let details = rows.map(|row| L2FibTableDetails {
        bd_id: row.domain,
        mac: row.mac.into(),
        sw_if_index: if row.entry.is_filter() { InterfaceIndex::NONE } else { row.entry.port().into() },
        static_mac: row.entry.is_static(),
        filter_mac: row.entry.is_filter(),
        bvi_mac: row.entry.is_bvi(),
    });
    Page { entries: details.collect(), next: Some(part + 1).filter(|next| *next < cx.dp.mac_parts()) }
}

fn flush(cx: &mut Cx<'_>, what: Flush) -> Result<(), ApiError> {
    cx.dp.flush_macs(what);
    Ok(())
}

/// VPP's numbers of the operations: tags to take, tags to put.
const REWRITES: [(VlanOperation, u8, u8); 8] = [
    (VlanOperation::Push, 0, 1),
    (VlanOperation::Push, 0, 2),
    (VlanOperation::Pop, 1, 0),
    (VlanOperation::Pop, 2, 0),
    (VlanOperation::Translate, 1, 1),
    (VlanOperation::Translate, 1, 2),
    (VlanOperation::Translate, 2, 1),
    (VlanOperation::Translate, 2, 2),
];

fn tag_rewrite(cx: &mut Cx<'_>, message: L2InterfaceVlanTagRewrite) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    if message.vtr_op == 0 {
        return Ok(cx.dp.set_tag_rewrite(index, None)?);
    }
    let operation = REWRITES.get(message.vtr_op as usize - 1);
    let (operation, pop, push) = *operation.ok_or(ApiError::INVALID_VALUE)?;
    let tag = |tag: u32| u16::try_from(tag).map_err(|_| ApiError::INVALID_VLAN);
    let outer_type = if message.push_dot1q != 0 { EtherType::VLAN } else { EtherType::QINQ };
    let tags = [tag(message.tag1)?, tag(message.tag2)?];
    if cx.dp.record(index)?.named_tags().len() < pop.into() {
        return Err(ApiError::INVALID_VLAN_TAG_COUNT);
    }
    Ok(cx.dp.set_tag_rewrite(index, Some(TagOperation { operation, pop, push, outer_type, tags }))?)
}

/// As [`tag_rewrite`] takes it: operation, whether the first tag is 802.1Q, and the tags.
pub(super) fn rewrite_of(interface: &Interface) -> (u32, u32, u32, u32) {
    let Some(rewrite) = interface.l2.tag_rewrite else { return (0, 0, 0, 0) };
    let number = REWRITES.iter().position(|r| *r == (rewrite.operation, rewrite.pop, rewrite.push));
    let [tag1, tag2] = rewrite.tags.map(u32::from);
    let dot1q = u32::from(rewrite.outer_type == EtherType::VLAN);
    (number.map_or(0, |number| number as u32 + 1), dot1q, tag1, tag2)
}

fn arp_add_del(cx: &mut Cx<'_>, message: BdIpMacAddDel) -> Result<(), ApiError> {
    let BdIpMac { bd_id, ip, mac } = message.entry;
    known_domain(cx, bd_id)?;
    let mac = message.is_add.then_some(ethernet::MacAddress(mac.0));
    Ok(cx.dp.set_arp_entry(bd_id, ip.ip4()?, mac)?)
}

fn arp_dump(cx: &mut Cx<'_>, message: BdIpMacDump) -> Vec<BdIpMacDetails> {
    let domains = cx.dp.bridges.iter().filter(|(id, _)| message.bd_id == u32::MAX || message.bd_id == **id);
    let entries = domains.flat_map(|(id, domain)| domain.arp.iter().map(|(ip, mac)| (*id, *ip, *mac)));
    let entry = |(bd_id, ip, mac): (u32, Ipv4Addr, ethernet::MacAddress)| BdIpMacDetails {
        entry: BdIpMac { bd_id, ip: ip.into(), mac: mac.into() },
    };
    entries.map(entry).collect()
}

fn set_xconnect(cx: &mut Cx<'_>, message: SwInterfaceSetL2Xconnect) -> Result<(), ApiError> {
    let rx = cx.interface(message.rx_sw_if_index.0)?;
    if !message.enable {
        return Ok(cx.dp.set_l3(rx)?);
    }
    let tx = cx.interface(message.tx_sw_if_index.0).map_err(|_| ApiError::INVALID_SW_IF_INDEX_2)?;
    Ok(cx.dp.set_xconnect(rx, tx)?)
}

fn xconnect_dump(cx: &mut Cx<'_>, _: L2XconnectDump) -> Vec<L2XconnectDetails> {
    let details = |(rx, interface): (&SwIfIndex, &Interface)| match interface.mode {
        L2Mode::Xconnect(tx) => {
            Some(L2XconnectDetails { rx_sw_if_index: (*rx).into(), tx_sw_if_index: tx.into() })
        }
        _ => None,
    };
    cx.dp.interfaces.iter().filter_map(details).collect()
}
