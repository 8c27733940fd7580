//! Messages of VPP's module `l2`.

use super::super::{ApiError, Count, Cx, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::interface::Interface;
use wharf_engine::SwIfIndex;
use crate::l2::L2Mode;

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
    call WantL2MacsEvents = want_l2_macs_events {
        learn_limit: u32 = "1000", scan_delay: u8 = "10", max_macs_in_event: u8 = "10",
        enable_disable: bool = "true", pid: u32,
    };

    /// Asks for events about learned MAC addresses.
    call WantL2MacsEvents2 = want_l2_macs_events2 {
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
