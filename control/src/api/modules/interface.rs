//! Messages of VPP's module `interface`.

use super::super::events::flags;
use super::super::{ApiError, Count, Cx, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::capture::CaptureConfig;
use crate::interface::{Interface, InterfaceKind};
use wharf_engine::capture::points;
use wharf_engine::{SwIfIndex, device};
use wharf_nodes::ethernet::{SubMatch, VlanId};
use wharf_nodes::wire::ethernet::{self, EtherType, VlanTag};

/// The module.
pub const MODULE: Module = Module { name: "interface", version: (3, 2, 5), messages: MESSAGES };

api! {
    /// Brings an interface up or down.
    call SwInterfaceSetFlags = sw_interface_set_flags { sw_if_index: InterfaceIndex, flags: IfStatusFlags };

    /// Sets whether an interface takes frames for others.
    call SwInterfaceSetPromisc = sw_interface_set_promisc { sw_if_index: InterfaceIndex, promisc_on: bool };

    /// Sets the longest frame of a device.
    call HwInterfaceSetMtu = hw_interface_set_mtu { sw_if_index: InterfaceIndex, mtu: u16 };

    /// Sets the longest packet, for all protocols or each.
    call SwInterfaceSetMtu = sw_interface_set_mtu { sw_if_index: InterfaceIndex, mtu: [u32; 4] };

    /// Sets whether packets to the broadcast address of a subnet go there.
    call SwInterfaceSetIpDirectedBroadcast = sw_interface_set_ip_directed_broadcast { sw_if_index: InterfaceIndex, enable: bool };

    /// An interface's state has changed.
    event SwInterfaceEvent = sw_interface_event {
        client_index: u32, pid: u32, sw_if_index: InterfaceIndex, flags: IfStatusFlags, deleted: bool,
    };

    /// Asks for events about interfaces, or for no more of them.
    call WantInterfaceEvents = want_interface_events [read] { enable_disable: u32, pid: u32 };

    /// Asks for interfaces.
    dump SwInterfaceDump = sw_interface_dump {
        sw_if_index: InterfaceIndex = "4294967295", name_filter_valid: bool, name_filter: String,
    }
        -> SwInterfaceDetails = sw_interface_details {
        sw_if_index: InterfaceIndex, sup_sw_if_index: u32, l2_address: MacAddress, flags: IfStatusFlags,
        r#type: IfType, link_duplex: LinkDuplex, link_speed: u32, link_mtu: u16, mtu: [u32; 4],
        sub_id: u32, sub_number_of_tags: u8, sub_outer_vlan_id: u16, sub_inner_vlan_id: u16,
        sub_if_flags: SubIfFlags, vtr_op: u32, vtr_push_dot1q: u32, vtr_tag1: u32, vtr_tag2: u32,
        outer_tag: u16, b_dmac: MacAddress, b_smac: MacAddress, b_vlanid: u16, i_sid: u32,
        interface_name: Text<64>, interface_dev_type: Text<64>, tag: Text<64>,
    };

    /// Gives an interface an address, or takes it away.
    call SwInterfaceAddDelAddress = sw_interface_add_del_address {
        sw_if_index: InterfaceIndex, is_add: bool, del_all: bool, prefix: AddressWithPrefix,
    };

    /// Marks all addresses; those not added again go at the end.
    call SwInterfaceAddressReplaceBegin = sw_interface_address_replace_begin {};

    /// Removes addresses that were not added again.
    call SwInterfaceAddressReplaceEnd = sw_interface_address_replace_end {};

    /// Puts an interface into a routing table.
    call SwInterfaceSetTable = sw_interface_set_table { sw_if_index: InterfaceIndex, is_ipv6: bool, vrf_id: u32 };

    /// Asks for an interface's routing table.
    call SwInterfaceGetTable = sw_interface_get_table [read] { sw_if_index: InterfaceIndex, is_ipv6: bool }
        -> SwInterfaceGetTableReply = sw_interface_get_table_reply { vrf_id: u32 };

    /// Lets an interface use the address of another.
    call SwInterfaceSetUnnumbered = sw_interface_set_unnumbered {
        sw_if_index: InterfaceIndex, unnumbered_sw_if_index: InterfaceIndex, is_add: bool,
    };

    /// Counts an interface's packets from zero.
    call SwInterfaceClearStats = sw_interface_clear_stats { sw_if_index: InterfaceIndex };

    /// Attaches a text of the controller's to an interface.
    call SwInterfaceTagAddDel = sw_interface_tag_add_del { is_add: bool, sw_if_index: InterfaceIndex, tag: Text<64> };

    /// Gives an interface a further MAC address.
    call SwInterfaceAddDelMacAddress = sw_interface_add_del_mac_address { sw_if_index: u32, addr: MacAddress, is_add: u8 };

    /// Sets an interface's MAC address.
    call SwInterfaceSetMacAddress = sw_interface_set_mac_address { sw_if_index: InterfaceIndex, mac_address: MacAddress };

    /// Asks for an interface's MAC address.
    call SwInterfaceGetMacAddress = sw_interface_get_mac_address [read] { sw_if_index: InterfaceIndex }
        -> SwInterfaceGetMacAddressReply = sw_interface_get_mac_address_reply { mac_address: MacAddress };

    /// Sets when receive queues are looked at.
    call SwInterfaceSetRxMode = sw_interface_set_rx_mode {
        sw_if_index: InterfaceIndex, queue_id_valid: bool, queue_id: u32, mode: RxMode,
    };

    /// Gives a receive queue to a worker.
    call SwInterfaceSetRxPlacement = sw_interface_set_rx_placement {
        sw_if_index: InterfaceIndex, queue_id: u32, worker_id: u32, is_main: bool,
    };

    /// Gives a transmit queue to workers.
    call SwInterfaceSetTxPlacement = sw_interface_set_tx_placement {
        sw_if_index: InterfaceIndex, queue_id: u32, array_size: Count<u32>, threads: Vec<u32>[array_size],
    };

    /// Renames an interface.
    call SwInterfaceSetInterfaceName = sw_interface_set_interface_name { sw_if_index: InterfaceIndex, name: Text<64> };

    /// Asks where receive queues are.
    dump SwInterfaceRxPlacementDump = sw_interface_rx_placement_dump { sw_if_index: InterfaceIndex }
        -> SwInterfaceRxPlacementDetails = sw_interface_rx_placement_details [client_index] {
        sw_if_index: InterfaceIndex, queue_id: u32, worker_id: u32, mode: RxMode,
    };

    /// Asks where transmit queues are.
    get SwInterfaceTxPlacementGet = sw_interface_tx_placement_get { cursor: u32, sw_if_index: InterfaceIndex }
        -> SwInterfaceTxPlacementGetReply = sw_interface_tx_placement_get_reply { cursor: u32 },
        SwInterfaceTxPlacementDetails = sw_interface_tx_placement_details [client_index] {
        sw_if_index: InterfaceIndex, queue_id: u32, shared: u8, array_size: Count<u32>,
        threads: Vec<u32>[array_size],
    };

    /// Sets the instance number in an interface's name.
    call InterfaceNameRenumber = interface_name_renumber { sw_if_index: InterfaceIndex, new_show_dev_instance: u32 };

    /// Creates a sub-interface.
    call CreateSubif = create_subif {
        sw_if_index: InterfaceIndex, sub_id: u32, sub_if_flags: SubIfFlags, outer_vlan_id: u16,
        inner_vlan_id: u16,
    }
        -> CreateSubifReply = create_subif_reply { sw_if_index: InterfaceIndex };

    /// Creates a sub-interface for a VLAN.
    call CreateVlanSubif = create_vlan_subif { sw_if_index: InterfaceIndex, vlan_id: u32 }
        -> CreateVlanSubifReply = create_vlan_subif_reply { sw_if_index: InterfaceIndex };

    /// Deletes a sub-interface.
    call DeleteSubif = delete_subif { sw_if_index: InterfaceIndex };

    /// Creates a loopback interface.
    call CreateLoopback = create_loopback { mac_address: MacAddress }
        -> CreateLoopbackReply = create_loopback_reply { sw_if_index: InterfaceIndex };

    /// Creates a loopback interface with a given number.
    call CreateLoopbackInstance = create_loopback_instance { mac_address: MacAddress, is_specified: bool, user_instance: u32 }
        -> CreateLoopbackInstanceReply = create_loopback_instance_reply { sw_if_index: InterfaceIndex };

    /// Deletes a loopback interface.
    call DeleteLoopback = delete_loopback { sw_if_index: InterfaceIndex };

    /// Switches counters by kind of address.
    call CollectDetailedInterfaceStats = collect_detailed_interface_stats { sw_if_index: InterfaceIndex, enable_disable: bool };

    /// Chooses how packets are filtered for capturing.
    call PcapSetFilterFunction = pcap_set_filter_function { filter_function_name: String };

    /// Starts to capture packets into a file.
    call PcapTraceOn = pcap_trace_on {
        capture_rx: bool, capture_tx: bool, capture_drop: bool, filter: bool, preallocate_data: bool,
        free_data: bool, max_packets: u32 = "1000", max_bytes_per_packet: u32 = "512",
        sw_if_index: InterfaceIndex, error: Text<128>, filename: Text<64>,
    };

    /// Ends capturing.
    call PcapTraceOff = pcap_trace_off {};

    /// Sets when receive queues made from now on are looked at.
    call SwInterfaceSetDefaultRxMode = sw_interface_set_default_rx_mode { mode: RxMode };

    /// Asks when receive queues made from now on are looked at.
    call SwInterfaceGetDefaultRxMode = sw_interface_get_default_rx_mode [read] {}
        -> SwInterfaceGetDefaultRxModeReply = sw_interface_get_default_rx_mode_reply { mode: RxMode };

    /// Sets the speed of a link.
    call SwInterfaceSetLinkSpeed = sw_interface_set_link_speed { sw_if_index: InterfaceIndex, link_speed: u32 };

    /// Asks which speeds a link can have.
    call SwInterfaceGetSpeedCapa = sw_interface_get_speed_capa [read] { sw_if_index: InterfaceIndex }
        -> SwInterfaceGetSpeedCapaReply = sw_interface_get_speed_capa_reply { count: Count<u32>, speeds: Vec<u32>[count] };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.dump(dump);
    list.auto(set_flags);
    list.auto(set_mtu);
    list.auto(hw_set_mtu);
    list.auto(want_events);
    list.auto(set_mac);
    list.call(get_mac);
    list.auto(add_del_address);
    list.auto(set_table);
    list.call(get_table);
    list.auto(clear_stats);
    list.auto(tag);
    list.auto(set_rx_mode);
    list.auto(set_default_rx_mode);
    list.call(get_default_rx_mode);
    list.auto(set_rx_placement);
    list.dump(rx_placement);
    list.get(tx_placement);
    list.call(create_loopback);
    list.call(create_loopback_instance);
    list.steps(delete_loopback);
    list.call(create_subif);
    list.call(create_vlan_subif);
    list.steps(delete_subif);
    list.auto(pcap_on);
    list.auto(pcap_off);
}

fn dump(cx: &mut Cx<'_>, message: SwInterfaceDump) -> Vec<SwInterfaceDetails> {
    let all = message.name_filter_valid || matches!(message.sw_if_index.0, 0 | u32::MAX);
    let wanted = |index: SwIfIndex, interface: &Interface| {
        (all || index.0 == message.sw_if_index.0)
            && (!message.name_filter_valid || interface.name.contains(&message.name_filter))
    };
    let interfaces = cx.dp.interfaces.iter().filter(|(index, interface)| wanted(**index, interface));
    interfaces.map(|(index, interface)| details(cx, *index, interface)).collect()
}

fn details(cx: &Cx<'_>, index: SwIfIndex, interface: &Interface) -> SwInterfaceDetails {
    let mtu = u32::from(interface.mtu);
    let (vtr_op, vtr_push_dot1q, vtr_tag1, vtr_tag2) = super::l2::rewrite_of(interface);
    let mut details = SwInterfaceDetails {
        vtr_op,
        vtr_push_dot1q,
        vtr_tag1,
        vtr_tag2,
        sw_if_index: index.into(),
        sup_sw_if_index: index.0,
        l2_address: interface.mac.into(),
        flags: flags(interface),
        link_duplex: LinkDuplex::LINK_DUPLEX_API_FULL,
        link_mtu: interface.mtu,
        mtu: [mtu, 0, 0, 0],
        interface_name: Text(interface.name.clone()),
        interface_dev_type: interface.kind.hardware().into(),
        tag: Text(interface.tag.clone()),
        ..SwInterfaceDetails::default()
    };
    if let Some(sub) = &interface.sub {
        details.r#type = IfType::IF_API_TYPE_SUB;
        details.sup_sw_if_index = sub.parent.0;
        if let Ok(parent) = cx.dp.record(sub.parent) {
            details.interface_dev_type = parent.kind.hardware().into();
        }
        details.sub_id = sub.id;
        let (flags, outer, inner) = sub_flags(sub.which);
        details.sub_if_flags = flags;
        details.sub_number_of_tags = match sub.which {
            SubMatch::Tags { inner: Some(_), .. } => 2,
            SubMatch::Tags { .. } => 1,
            SubMatch::Untagged | SubMatch::Default => 0,
        };
        (details.sub_outer_vlan_id, details.sub_inner_vlan_id) = (outer, inner);
    }
    details
}

/// Flags and VLAN ids of what a sub-interface takes.
fn sub_flags(which: SubMatch) -> (SubIfFlags, u16, u16) {
    let mut flags = 0;
    let mut set = |on: bool, flag: SubIfFlags| flags |= if on { flag.0 } else { 0 };
    let id = |id: Option<VlanId>| if let Some(VlanId::Id(id)) = id { id } else { 0 };
    let (mut outer_id, mut inner_id) = (0, 0);
    match which {
        SubMatch::Untagged => set(true, SubIfFlags::SUB_IF_API_FLAG_NO_TAGS),
        SubMatch::Default => set(true, SubIfFlags::SUB_IF_API_FLAG_DEFAULT),
        SubMatch::Tags { outer_type, outer, inner, exact } => {
            set(inner.is_none(), SubIfFlags::SUB_IF_API_FLAG_ONE_TAG);
            set(inner.is_some(), SubIfFlags::SUB_IF_API_FLAG_TWO_TAGS);
            set(outer_type == EtherType::QINQ, SubIfFlags::SUB_IF_API_FLAG_DOT1AD);
            set(exact, SubIfFlags::SUB_IF_API_FLAG_EXACT_MATCH);
            set(outer == VlanId::Any, SubIfFlags::SUB_IF_API_FLAG_OUTER_VLAN_ID_ANY);
            set(inner == Some(VlanId::Any), SubIfFlags::SUB_IF_API_FLAG_INNER_VLAN_ID_ANY);
            (outer_id, inner_id) = (id(Some(outer)), id(inner));
        }
    }
    (SubIfFlags(flags), outer_id, inner_id)
}

fn create_subif(cx: &mut Cx<'_>, message: CreateSubif) -> Result<CreateSubifReply, ApiError> {
    let parent = cx.interface(message.sw_if_index.0)?;
    let has = |flag: SubIfFlags| message.sub_if_flags.0 & flag.0 != 0;
    let vlan = |any: SubIfFlags, id: u16| match id {
        _ if has(any) => Ok(VlanId::Any),
        0..=VlanTag::MAX_ID => Ok(VlanId::Id(id)),
        _ => Err(ApiError::INVALID_VLAN),
    };
    let two = has(SubIfFlags::SUB_IF_API_FLAG_TWO_TAGS);
    let which = match () {
        () if has(SubIfFlags::SUB_IF_API_FLAG_DEFAULT) => SubMatch::Default,
        () if has(SubIfFlags::SUB_IF_API_FLAG_NO_TAGS) => SubMatch::Untagged,
        () if two || has(SubIfFlags::SUB_IF_API_FLAG_ONE_TAG) => SubMatch::Tags {
            outer_type: match has(SubIfFlags::SUB_IF_API_FLAG_DOT1AD) {
                true => EtherType::QINQ,
                false => EtherType::VLAN,
            },
            outer: vlan(SubIfFlags::SUB_IF_API_FLAG_OUTER_VLAN_ID_ANY, message.outer_vlan_id)?,
            inner: match two {
                true => Some(vlan(SubIfFlags::SUB_IF_API_FLAG_INNER_VLAN_ID_ANY, message.inner_vlan_id)?),
                false => None,
            },
            exact: has(SubIfFlags::SUB_IF_API_FLAG_EXACT_MATCH),
        },
        () => return Err(ApiError::INVALID_VALUE),
    };
    Ok(CreateSubifReply {
        sw_if_index: add_subif(cx, parent, message.sub_id, which, ApiError::SUBIF_ALREADY_EXISTS)?,
    })
}

fn create_vlan_subif(cx: &mut Cx<'_>, message: CreateVlanSubif) -> Result<CreateVlanSubifReply, ApiError> {
    let parent = cx.interface(message.sw_if_index.0)?;
    let id = match u16::try_from(message.vlan_id) {
        Ok(id @ 1..=VlanTag::MAX_ID) => id,
        _ => return Err(ApiError::INVALID_VLAN),
    };
    let which =
        SubMatch::Tags { outer_type: EtherType::VLAN, outer: VlanId::Id(id), inner: None, exact: true };
    let sw_if_index = add_subif(cx, parent, message.vlan_id, which, ApiError::VLAN_ALREADY_EXISTS)?;
    Ok(CreateVlanSubifReply { sw_if_index })
}

fn add_subif(
    cx: &mut Cx<'_>,
    parent: SwIfIndex,
    id: u32,
    which: SubMatch,
    taken: ApiError,
) -> Result<InterfaceIndex, ApiError> {
    if cx.dp.find_interface(&format!("{}.{id}", cx.dp.interface_name(parent))).is_some() {
        return Err(taken);
    }
    Ok(cx.dp.create_sub_interface(parent, id, which)?.into())
}

fn delete_subif(cx: &mut Cx<'_>, message: &DeleteSubif) -> Result<bool, ApiError> {
    let index = cx.interface_of(message.sw_if_index.0, InterfaceKind::Sub)?;
    Ok(cx.dp.delete_interface_piece(index)?)
}

fn set_flags(cx: &mut Cx<'_>, message: SwInterfaceSetFlags) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let up = message.flags.0 & IfStatusFlags::IF_STATUS_API_FLAG_ADMIN_UP.0 != 0;
    Ok(cx.dp.set_state(index, up)?)
}

fn set_mtu(cx: &mut Cx<'_>, message: SwInterfaceSetMtu) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let [mtu, protocols @ ..] = message.mtu;
    // There is one MTU for all protocols.
    if protocols.iter().any(|own| *own != 0 && *own != mtu) {
        return Err(ApiError::UNIMPLEMENTED);
    }
    Ok(cx.dp.set_mtu(index, mtu)?)
}

fn hw_set_mtu(cx: &mut Cx<'_>, message: HwInterfaceSetMtu) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    Ok(cx.dp.set_mtu(index, message.mtu.into())?)
}

fn want_events(cx: &mut Cx<'_>, message: WantInterfaceEvents) -> Result<(), ApiError> {
    cx.client.interface_events = (message.enable_disable != 0).then_some(message.pid);
    Ok(())
}

fn set_mac(cx: &mut Cx<'_>, message: SwInterfaceSetMacAddress) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    Ok(cx.dp.set_mac(index, ethernet::MacAddress(message.mac_address.0))?)
}

fn get_mac(
    cx: &mut Cx<'_>,
    message: SwInterfaceGetMacAddress,
) -> Result<SwInterfaceGetMacAddressReply, ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    Ok(SwInterfaceGetMacAddressReply { mac_address: cx.dp.record(index)?.mac.into() })
}

fn add_del_address(cx: &mut Cx<'_>, message: SwInterfaceAddDelAddress) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let has = cx.dp.record(index)?.addresses.clone();
    if message.del_all {
        for (address, len) in has {
            cx.dp.delete_address(index, address, len)?;
        }
        return Ok(());
    }
    let (address, len) = message.prefix.0.ip4()?;
    if !message.is_add {
        if !has.contains(&(address, len)) {
            return Err(ApiError::ADDRESS_NOT_FOUND_FOR_INTERFACE);
        }
        return Ok(cx.dp.delete_address(index, address, len)?);
    }
    let table = cx.dp.table_of(index);
    let mut others = cx.dp.interfaces.iter().filter(|(_, other)| other.table == table);
    let taken = |other: &Interface| other.addresses.iter().any(|(a, _)| *a == address);
    if others.any(|(_, other)| taken(other)) {
        return Err(ApiError::DUPLICATE_IF_ADDRESS);
    }
    Ok(cx.dp.add_address(index, address, len)?)
}

fn set_table(cx: &mut Cx<'_>, message: SwInterfaceSetTable) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    if message.is_ipv6 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    if !cx.dp.fibs.contains_key(&message.vrf_id) {
        return Err(ApiError::NO_SUCH_FIB);
    }
    Ok(cx.dp.set_table(index, message.vrf_id)?)
}

fn get_table(cx: &mut Cx<'_>, message: SwInterfaceGetTable) -> Result<SwInterfaceGetTableReply, ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let vrf_id = if message.is_ipv6 { 0 } else { cx.dp.table_of(index) };
    Ok(SwInterfaceGetTableReply { vrf_id })
}

fn clear_stats(cx: &mut Cx<'_>, message: SwInterfaceClearStats) -> Result<(), ApiError> {
    if message.sw_if_index == InterfaceIndex::NONE {
        cx.dp.interfaces.keys().for_each(|index| cx.dp.engine().counters().clear(index.0));
        return Ok(());
    }
    let index = cx.interface(message.sw_if_index.0)?;
    cx.dp.engine().counters().clear(index.0);
    Ok(())
}

fn tag(cx: &mut Cx<'_>, message: SwInterfaceTagAddDel) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let tag = if message.is_add { message.tag.0 } else { String::new() };
    Ok(cx.dp.set_tag(index, tag)?)
}

fn rx_mode(mode: RxMode) -> Result<device::RxMode, ApiError> {
    match mode {
        RxMode::RX_MODE_API_POLLING => Ok(device::RxMode::Polling),
        RxMode::RX_MODE_API_INTERRUPT => Ok(device::RxMode::Interrupt),
        RxMode::RX_MODE_API_ADAPTIVE | RxMode::RX_MODE_API_DEFAULT => Ok(device::RxMode::Adaptive),
        _ => Err(ApiError::INVALID_VALUE),
    }
}

fn rx_mode_of(mode: device::RxMode) -> RxMode {
    match mode {
        device::RxMode::Polling => RxMode::RX_MODE_API_POLLING,
        device::RxMode::Interrupt => RxMode::RX_MODE_API_INTERRUPT,
        device::RxMode::Adaptive => RxMode::RX_MODE_API_ADAPTIVE,
    }
}

fn set_rx_mode(cx: &mut Cx<'_>, message: SwInterfaceSetRxMode) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let queue = message.queue_id_valid.then_some(message.queue_id);
    Ok(cx.dp.set_rx_mode(index, queue, rx_mode(message.mode)?)?)
}

fn set_default_rx_mode(cx: &mut Cx<'_>, message: SwInterfaceSetDefaultRxMode) -> Result<(), ApiError> {
    cx.dp.set_default_rx_mode(Some(rx_mode(message.mode)?));
    Ok(())
}

fn get_default_rx_mode(
    cx: &mut Cx<'_>,
    _: SwInterfaceGetDefaultRxMode,
) -> Result<SwInterfaceGetDefaultRxModeReply, ApiError> {
    Ok(SwInterfaceGetDefaultRxModeReply { mode: rx_mode_of(cx.dp.default_rx_mode) })
}

fn set_rx_placement(cx: &mut Cx<'_>, message: SwInterfaceSetRxPlacement) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    // main forwards nothing.
    if message.is_main || message.worker_id as usize >= cx.dp.engine().workers() {
        return Err(ApiError::INVALID_WORKER);
    }
    Ok(cx.dp.set_placement(index, Some(message.queue_id), message.worker_id)?)
}

fn rx_placement(cx: &mut Cx<'_>, message: SwInterfaceRxPlacementDump) -> Vec<SwInterfaceRxPlacementDetails> {
    let all = message.sw_if_index == InterfaceIndex::NONE;
    let inputs = cx.dp.engine().inputs().iter().filter(|i| all || i.interface.0 == message.sw_if_index.0);
    let details = inputs.map(|input| SwInterfaceRxPlacementDetails {
        sw_if_index: input.interface.into(),
        queue_id: input.queue.into(),
        worker_id: u32::from(input.worker.0) + 1,
        mode: rx_mode_of(input.mode),
    });
    details.collect()
}

fn tx_placement(
    cx: &mut Cx<'_>,
    message: SwInterfaceTxPlacementGet,
) -> Result<(Vec<SwInterfaceTxPlacementDetails>, SwInterfaceTxPlacementGetReply), ApiError> {
    if message.sw_if_index != InterfaceIndex::NONE {
        cx.interface(message.sw_if_index.0)?;
    }
    let mut list: Vec<SwInterfaceTxPlacementDetails> = Vec::new();
    for (interface, worker, _) in cx.dp.engine().device_nodes() {
        if message.sw_if_index != InterfaceIndex::NONE && message.sw_if_index.0 != interface.0 {
            continue;
        }
        let queue_id = list.iter().filter(|d| d.sw_if_index.0 == interface.0).count() as u32;
        list.push(SwInterfaceTxPlacementDetails {
            sw_if_index: interface.into(),
            queue_id,
            threads: vec![u32::from(worker.0) + 1],
            ..SwInterfaceTxPlacementDetails::default()
        });
    }
    Ok((list, SwInterfaceTxPlacementGetReply { cursor: u32::MAX }))
}

fn create_loopback(cx: &mut Cx<'_>, message: CreateLoopback) -> Result<CreateLoopbackReply, ApiError> {
    let mac = message.mac_address.chosen().map(ethernet::MacAddress);
    Ok(CreateLoopbackReply { sw_if_index: cx.dp.create_loopback(mac, None)?.into() })
}

fn create_loopback_instance(
    cx: &mut Cx<'_>,
    message: CreateLoopbackInstance,
) -> Result<CreateLoopbackInstanceReply, ApiError> {
    let instance = message.is_specified.then_some(message.user_instance);
    if let Some(instance) = instance
        && cx.dp.find_interface(&format!("loop{instance}")).is_some()
    {
        return Err(ApiError::INVALID_REGISTRATION);
    }
    let mac = message.mac_address.chosen().map(ethernet::MacAddress);
    Ok(CreateLoopbackInstanceReply { sw_if_index: cx.dp.create_loopback(mac, instance)?.into() })
}

fn delete_loopback(cx: &mut Cx<'_>, message: &DeleteLoopback) -> Result<bool, ApiError> {
    let index = cx.interface_of(message.sw_if_index.0, InterfaceKind::Loopback)?;
    Ok(cx.dp.delete_interface_piece(index)?)
}

fn pcap_on(cx: &mut Cx<'_>, message: PcapTraceOn) -> Result<(), ApiError> {
    if message.filter || !message.error.0.is_empty() {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let mut config = CaptureConfig::default();
    let wanted = [
        (message.capture_rx, points::RX),
        (message.capture_tx, points::TX),
        (message.capture_drop, points::DROP),
    ];
    config.points = wanted.iter().filter(|(on, _)| *on).fold(0, |all, (_, point)| all | point);
    config.max = message.max_packets as usize;
    config.snaplen = message.max_bytes_per_packet as usize;
    // 0 is any, as `local0` has no packets.
    if !matches!(message.sw_if_index.0, 0 | u32::MAX) {
        config.interface = Some(cx.interface(message.sw_if_index.0)?);
    }
    // As VPP has it: a bare name, in the temporary directory.
    match message.filename.0 {
        name if name.is_empty() => {}
        name if name.contains('/') || name.starts_with('.') => return Err(ApiError::INVALID_VALUE),
        name => config.file = std::env::temp_dir().join(name),
    }
    Ok(cx.dp.start_capture(config)?)
}

fn pcap_off(cx: &mut Cx<'_>, _: PcapTraceOff) -> Result<(), ApiError> {
    cx.dp.stop_capture()?;
    Ok(())
}
