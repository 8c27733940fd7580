//! Messages of VPP's module `acl`.

use super::super::{ApiError, Count, Cx, Handlers, Page, Text, schema::Module};
use super::types::*;
use crate::acl::{MAX_TAG, Rules};
use crate::api;
use crate::dataplane::OpError;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::{AclPrefix, Action, Direction, MacIpRule, Rule};
use wharf_nodes::wire::ethernet;
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

/// The module.
pub const MODULE: Module = Module { name: "acl", version: (2, 0, 1), messages: MESSAGES };

api! {
    /// What a rule does.
    enum AclAction = acl_action: u8 {
        ACL_ACTION_API_DENY = 0, ACL_ACTION_API_PERMIT = 1, ACL_ACTION_API_PERMIT_REFLECT = 2,
    }

    /// A rule.
    record AclRule = acl_rule {
        is_permit: AclAction, src_prefix: Prefix, dst_prefix: Prefix, proto: IpProto,
        srcport_or_icmptype_first: u16, srcport_or_icmptype_last: u16, dstport_or_icmpcode_first: u16,
        dstport_or_icmpcode_last: u16, tcp_flags_mask: u8, tcp_flags_value: u8,
    }

    /// A rule on MAC and IP addresses.
    record MacipAclRule = macip_acl_rule {
        is_permit: AclAction, src_mac: MacAddress, src_mac_mask: MacAddress, src_prefix: Prefix,
    }

    /// Asks for the version of the messages.
    request AclPluginGetVersion = acl_plugin_get_version [read] { client_index: u32, context: u32 };

    /// The reply.
    event AclPluginGetVersionReply = acl_plugin_get_version_reply { context: u32, major: u32, minor: u32 };

    /// Asks for a reply, behind those of all earlier requests.
    call AclPluginControlPing = acl_plugin_control_ping [read] {}
        -> AclPluginControlPingReply = acl_plugin_control_ping_reply { client_index: u32, vpe_pid: u32 };

    /// Asks how many sessions there may be.
    request AclPluginGetConnTableMaxEntries = acl_plugin_get_conn_table_max_entries [read] { client_index: u32, context: u32 };

    /// The reply.
    event AclPluginGetConnTableMaxEntriesReply = acl_plugin_get_conn_table_max_entries_reply {
        context: u32, conn_table_max_entries: u64,
    };

    /// Adds or replaces an ACL.
    request AclAddReplace = acl_add_replace {
        client_index: u32, context: u32, acl_index: u32, tag: Text<64>, count: Count<u32>,
        r: Vec<AclRule>[count],
    };

    /// The reply.
    event AclAddReplaceReply = acl_add_replace_reply { context: u32, acl_index: u32, retval: i32 };

    /// Deletes an ACL.
    call AclDel = acl_del { acl_index: u32 };

    /// Adds an ACL to an interface, or takes it away.
    call AclInterfaceAddDel = acl_interface_add_del {
        is_add: bool = "true", is_input: bool, sw_if_index: InterfaceIndex, acl_index: u32,
    };

    /// Sets the ACLs of an interface.
    call AclInterfaceSetAclList = acl_interface_set_acl_list {
        sw_if_index: InterfaceIndex, count: Count<u8>, n_input: u8, acls: Vec<u32>[count],
    };

    /// Asks for ACLs.
    dump AclDump = acl_dump { acl_index: u32 }
        -> AclDetails = acl_details {
        acl_index: u32, tag: Text<64>, count: Count<u32>, r: Vec<AclRule>[count],
    };

    /// Asks which ACLs interfaces have.
    dump AclInterfaceListDump = acl_interface_list_dump { sw_if_index: InterfaceIndex = "4294967295" }
        -> AclInterfaceListDetails = acl_interface_list_details {
        sw_if_index: InterfaceIndex, count: Count<u8>, n_input: u8, acls: Vec<u32>[count],
    };

    /// Adds an ACL of MAC and IP addresses.
    request MacipAclAdd = macip_acl_add {
        client_index: u32, context: u32, tag: Text<64>, count: Count<u32>, r: Vec<MacipAclRule>[count],
    };

    /// The reply.
    event MacipAclAddReply = macip_acl_add_reply { context: u32, acl_index: u32, retval: i32 };

    /// Adds or replaces an ACL of MAC and IP addresses.
    request MacipAclAddReplace = macip_acl_add_replace {
        client_index: u32, context: u32, acl_index: u32 = "4294967295", tag: Text<64>, count: Count<u32>,
        r: Vec<MacipAclRule>[count],
    };

    /// The reply.
    event MacipAclAddReplaceReply = macip_acl_add_replace_reply { context: u32, acl_index: u32, retval: i32 };

    /// Deletes an ACL of MAC and IP addresses.
    call MacipAclDel = macip_acl_del { acl_index: u32 };

    /// Sets the ACL of MAC and IP addresses of an interface.
    call MacipAclInterfaceAddDel = macip_acl_interface_add_del {
        is_add: bool = "true", sw_if_index: InterfaceIndex, acl_index: u32,
    };

    /// Asks for ACLs of MAC and IP addresses.
    dump MacipAclDump = macip_acl_dump { acl_index: u32 = "4294967295" }
        -> MacipAclDetails = macip_acl_details {
        acl_index: u32, tag: Text<64>, count: Count<u32>, r: Vec<MacipAclRule>[count],
    };

    /// Asks which interface has which ACL of MAC and IP addresses.
    request MacipAclInterfaceGet = macip_acl_interface_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event MacipAclInterfaceGetReply = macip_acl_interface_get_reply { context: u32, count: Count<u32>, acls: Vec<u32>[count] };

    /// Asks which ACLs of MAC and IP addresses interfaces have.
    dump MacipAclInterfaceListDump = macip_acl_interface_list_dump { sw_if_index: InterfaceIndex }
        -> MacipAclInterfaceListDetails = macip_acl_interface_list_details {
        sw_if_index: InterfaceIndex, count: Count<u8>, acls: Vec<u32>[count],
    };

    /// Sets which EtherTypes pass an interface in L2 mode besides those of IP.
    call AclInterfaceSetEtypeWhitelist = acl_interface_set_etype_whitelist {
        sw_if_index: InterfaceIndex, count: Count<u8>, n_input: u8, whitelist: Vec<u16>[count],
    };

    /// Asks which EtherTypes pass interfaces.
    dump AclInterfaceEtypeWhitelistDump = acl_interface_etype_whitelist_dump { sw_if_index: InterfaceIndex }
        -> AclInterfaceEtypeWhitelistDetails = acl_interface_etype_whitelist_details {
        sw_if_index: InterfaceIndex, count: Count<u8>, n_input: u8, whitelist: Vec<u16>[count],
    };

    /// Switches counters per rule, which always count here: they can't be switched off.
    call AclStatsIntfCountersEnable = acl_stats_intf_counters_enable { enable: bool };

    /// Switches the lookup by hash, of which there is none: it can't be switched on.
    call AclPluginUseHashLookupSet = acl_plugin_use_hash_lookup_set { enable: bool };

    /// Asks whether lookups are by hash.
    request AclPluginUseHashLookupGet = acl_plugin_use_hash_lookup_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event AclPluginUseHashLookupGetReply = acl_plugin_use_hash_lookup_get_reply { context: u32, enable: bool };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.raw(|cx, m: AclPluginGetVersion| {
        // Of VPP's plugin whose messages these are.
        cx.send(&AclPluginGetVersionReply { context: m.context, major: 1, minor: 4 });
    });
    list.call(|cx, _: AclPluginControlPing| {
        Ok(AclPluginControlPingReply { client_index: cx.client.index, vpe_pid: std::process::id() })
    });
    list.raw(|cx, m: AclPluginGetConnTableMaxEntries| {
        let conn_table_max_entries = cx.dp.max_sessions() as u64;
        cx.send(&AclPluginGetConnTableMaxEntriesReply { context: m.context, conn_table_max_entries });
    });
    list.raw_compiled(replaced_lists, |cx, m: &AclAddReplace| {
        let (acl_index, retval) = outcome(add_replace(cx, m.acl_index, &m.tag, &m.r), m.acl_index);
        cx.send(&AclAddReplaceReply { context: m.context, acl_index, retval });
    });
    list.auto(del);
    list.auto_compiled(changed_lists, interface_add_del);
    list.auto_compiled(set_lists, interface_set);
    list.pages(dump);
    list.dump(interface_list);
    list.raw(|cx, m: MacipAclAdd| {
        let (acl_index, retval) = outcome(macip_add_replace(cx, u32::MAX, &m.tag, &m.r), u32::MAX);
        cx.send(&MacipAclAddReply { context: m.context, acl_index, retval });
    });
    list.raw(|cx, m: MacipAclAddReplace| {
        let (acl_index, retval) = outcome(macip_add_replace(cx, m.acl_index, &m.tag, &m.r), m.acl_index);
        cx.send(&MacipAclAddReplaceReply { context: m.context, acl_index, retval });
    });
    list.auto(macip_del);
    list.auto(macip_interface);
    list.pages(macip_dump);
    list.raw(macip_interface_get);
    list.dump(macip_interface_list);
    list.auto(set_etypes);
    list.dump(etypes);
    list.auto(|_, m: AclStatsIntfCountersEnable| only(m.enable));
    list.auto(|_, m: AclPluginUseHashLookupSet| only(!m.enable));
    list.raw(|cx, m: AclPluginUseHashLookupGet| {
        cx.send(&AclPluginUseHashLookupGetReply { context: m.context, enable: false });
    });
}

/// What is so already needs nothing to be done; the opposite is not there.
fn only(is_so: bool) -> Result<(), ApiError> {
    if is_so { Ok(()) } else { Err(ApiError::UNIMPLEMENTED) }
}

/// Index and retval of a reply: the index that was asked for when it went wrong.
fn outcome(result: Result<u32, ApiError>, asked: u32) -> (u32, i32) {
    result.map_or_else(|error| (asked, error.0), |index| (index, 0))
}

fn direction(is_input: bool) -> Direction {
    if is_input { Direction::Input } else { Direction::Output }
}

/// Checks that there is such a list.
fn acl(cx: &Cx<'_>, index: u32) -> Result<(), ApiError> {
    cx.dp.acl(index).map(drop).map_err(|_| ApiError::NO_SUCH_ENTRY)
}

/// Checks that there is such a MAC-IP list.
fn macip(cx: &Cx<'_>, index: u32) -> Result<(), ApiError> {
    cx.dp.macip(index).map(drop).map_err(|_| ApiError::NO_SUCH_ENTRY)
}

/// The list to be replaced; ~0 asks for a new one.
fn replaced(index: u32) -> Option<u32> {
    Some(index).filter(|index| *index != u32::MAX)
}

/// The prefix of a rule, if its family is known and its length possible.
fn acl_prefix(prefix: &Prefix) -> Option<AclPrefix> {
    let address = prefix.address.ip()?;
    let max = if address.is_ipv6() { 128 } else { 32 };
    (prefix.len <= max).then(|| AclPrefix::new(address, prefix.len))
}

impl From<AclPrefix> for Prefix {
    fn from(prefix: AclPrefix) -> Prefix {
        Prefix { address: prefix.address().into(), len: prefix.len() }
    }
}

fn action(action: AclAction) -> Result<Action, ApiError> {
    match action {
        AclAction::ACL_ACTION_API_DENY => Ok(Action::Deny),
        AclAction::ACL_ACTION_API_PERMIT => Ok(Action::Permit),
        AclAction::ACL_ACTION_API_PERMIT_REFLECT => Ok(Action::Reflect),
        _ => Err(ApiError::INVALID_VALUE),
    }
}

fn rule(rule: &AclRule) -> Result<Rule, ApiError> {
    let src = acl_prefix(&rule.src_prefix).ok_or(ApiError::INVALID_SRC_ADDRESS)?;
    let dst = acl_prefix(&rule.dst_prefix).ok_or(ApiError::INVALID_DST_ADDRESS)?;
    if src.is_v6() != dst.is_v6() {
        return Err(ApiError::INVALID_SRC_ADDRESS);
    }
    let sport = (rule.srcport_or_icmptype_first, rule.srcport_or_icmptype_last);
    let dport = (rule.dstport_or_icmpcode_first, rule.dstport_or_icmpcode_last);
    if sport.0 > sport.1 || dport.0 > dport.1 {
        return Err(ApiError::INVALID_VALUE_2);
    }
    Ok(Rule {
        action: action(rule.is_permit)?,
        src,
        dst,
        protocol: IpProtocol(rule.proto.0),
        sport,
        dport,
        tcp_mask: TcpFlags(rule.tcp_flags_mask),
        tcp_value: TcpFlags(rule.tcp_flags_value),
    })
}

fn rule_details(rule: &Rule) -> AclRule {
    AclRule {
        is_permit: match rule.action {
            Action::Deny => AclAction::ACL_ACTION_API_DENY,
            Action::Permit => AclAction::ACL_ACTION_API_PERMIT,
            Action::Reflect => AclAction::ACL_ACTION_API_PERMIT_REFLECT,
        },
        src_prefix: rule.src.into(),
        dst_prefix: rule.dst.into(),
        proto: IpProto(rule.protocol.0),
        srcport_or_icmptype_first: rule.sport.0,
        srcport_or_icmptype_last: rule.sport.1,
        dstport_or_icmpcode_first: rule.dport.0,
        dstport_or_icmpcode_last: rule.dport.1,
        tcp_flags_mask: rule.tcp_mask.0,
        tcp_flags_value: rule.tcp_value.0,
    }
}

/// VPP looks at the tag, then at the rules, and then for the list.
fn add_replace(cx: &mut Cx<'_>, index: u32, tag: &Text<64>, rules: &[AclRule]) -> Result<u32, ApiError> {
    if tag.0.len() > MAX_TAG {
        return Err(ApiError::INVALID_VALUE);
    }
    let rules = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    if let Some(index) = replaced(index) {
        acl(cx, index)?;
    }
    Ok(cx.dp.set_acl(replaced(index), &tag.0, rules)?)
}

/// What is compiled for a request that is good.
fn replaced_lists(cx: &Cx<'_>, message: &AclAddReplace) -> Vec<Rules> {
    let rules = message.r.iter().map(rule).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    // A new one is applied nowhere.
    replaced(message.acl_index).map_or_else(Vec::new, |index| cx.dp.compiles_acl(index, &rules))
}

fn changed_lists(cx: &Cx<'_>, message: &AclInterfaceAddDel) -> Vec<Rules> {
    let (index, direction) = (SwIfIndex(message.sw_if_index.0), direction(message.is_input));
    let lists = cx.dp.changed_acls(index, direction, message.acl_index, message.is_add);
    lists.map_or_else(|_| Vec::new(), |acls| cx.dp.compiles_binding(&acls))
}

fn set_lists(cx: &Cx<'_>, message: &AclInterfaceSetAclList) -> Vec<Rules> {
    let (input, output) = message.acls.split_at(message.acls.len().min(message.n_input.into()));
    [input, output].into_iter().flat_map(|acls| cx.dp.compiles_binding(acls)).collect()
}

fn del(cx: &mut Cx<'_>, message: AclDel) -> Result<(), ApiError> {
    acl(cx, message.acl_index)?;
    let used = |direction| !cx.dp.acls.applied(message.acl_index, direction).is_empty();
    if used(Direction::Input) {
        return Err(ApiError::ACL_IN_USE_INBOUND);
    }
    if used(Direction::Output) {
        return Err(ApiError::ACL_IN_USE_OUTBOUND);
    }
    Ok(cx.dp.delete_acl(message.acl_index)?)
}

/// The lists of an interface in one direction.
fn applied(cx: &Cx<'_>, index: SwIfIndex, direction: Direction) -> Vec<u32> {
    cx.dp.acls.bindings.get(&index).map_or_else(Vec::new, |binding| binding.lists(direction).to_vec())
}

fn interface_add_del(cx: &mut Cx<'_>, message: &AclInterfaceAddDel) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let direction = direction(message.is_input);
    let is_applied = applied(cx, index, direction).contains(&message.acl_index);
    match (message.is_add, is_applied) {
        (true, true) if message.is_input => return Err(ApiError::ACL_IN_USE_INBOUND),
        (true, true) => return Err(ApiError::ACL_IN_USE_OUTBOUND),
        (false, false) => return Err(ApiError::NO_SUCH_ENTRY),
        _ => acl(cx, message.acl_index)?,
    }
    Ok(cx.dp.add_interface_acl(index, direction, message.acl_index, message.is_add)?)
}

/// Sets both directions, or neither.
fn interface_set(cx: &mut Cx<'_>, message: &AclInterfaceSetAclList) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    message.acls.iter().try_for_each(|list| acl(cx, *list))?;
    let (input, output) = message.acls.split_at(message.acls.len().min(message.n_input.into()));
    let is_twice = |lists: &[u32]| lists.iter().enumerate().any(|(i, list)| lists[..i].contains(list));
    if is_twice(output) || is_twice(input) {
        return Err(ApiError::ENTRY_ALREADY_EXISTS);
    }
    let old = applied(cx, index, Direction::Output);
    cx.dp.set_interface_acls(index, Direction::Output, output.to_vec())?;
    if let Err(error) = cx.dp.set_interface_acls(index, Direction::Input, input.to_vec()) {
        cx.dp.set_interface_acls(index, Direction::Output, old)?;
        return Err(error.into());
    }
    Ok(())
}

/// A page of lists from `from` on, or the one that is asked for.
fn lists<'a, T, D>(
    lists: &'a std::collections::BTreeMap<u32, T>,
    asked: u32,
    from: Option<u32>,
    details: impl Fn(u32, &'a T) -> D,
) -> Page<D, u32> {
    if asked != u32::MAX {
        let entries = lists.get(&asked).map(|list| details(asked, list)).into_iter().collect();
        return Page { entries, next: None };
    }
    let mut rest = lists.range(from.unwrap_or(0)..);
    let entries = rest.next().map(|(index, list)| details(*index, list)).into_iter().collect();
    Page { entries, next: rest.next().map(|(index, _)| *index) }
}

fn dump(cx: &mut Cx<'_>, message: &AclDump, from: Option<u32>) -> Page<AclDetails, u32> {
    lists(&cx.dp.acls.lists, message.acl_index, from, |acl_index, list| AclDetails {
        acl_index,
        tag: Text(list.tag.clone()),
        r: list.rules.iter().map(rule_details).collect(),
        ..AclDetails::default()
    })
}

/// The interfaces that a dump asks for: one, or all.
fn asked(cx: &Cx<'_>, only: &InterfaceIndex) -> Vec<SwIfIndex> {
    match *only == InterfaceIndex::NONE {
        true => cx.dp.interfaces.keys().copied().collect(),
        false => cx.interface(only.0).into_iter().collect(),
    }
}

/// Input and output behind one another, and how many are input.
fn joined<T: Copy>(input: &[T], output: &[T]) -> (u8, Vec<T>) {
    (input.len().min(u8::MAX.into()) as u8, [input, output].concat())
}

fn interface_list(cx: &mut Cx<'_>, message: AclInterfaceListDump) -> Vec<AclInterfaceListDetails> {
    let details = |index: SwIfIndex| {
        let [input, output] = [Direction::Input, Direction::Output].map(|d| applied(cx, index, d));
        let (n_input, acls) = joined(&input, &output);
        AclInterfaceListDetails {
            sw_if_index: index.into(),
            n_input,
            acls,
            ..AclInterfaceListDetails::default()
        }
    };
    asked(cx, &message.sw_if_index).into_iter().map(details).collect()
}

fn macip_rule(rule: &MacipAclRule) -> Result<MacIpRule, ApiError> {
    Ok(MacIpRule {
        permit: action(rule.is_permit)? != Action::Deny,
        mac: ethernet::MacAddress(rule.src_mac.0),
        mask: ethernet::MacAddress(rule.src_mac_mask.0),
        prefix: acl_prefix(&rule.src_prefix).ok_or(ApiError::INVALID_SRC_ADDRESS)?,
    })
}

fn macip_details(rule: &MacIpRule) -> MacipAclRule {
    MacipAclRule {
        is_permit: AclAction(rule.permit.into()),
        src_mac: rule.mac.into(),
        src_mac_mask: rule.mask.into(),
        src_prefix: rule.prefix.into(),
    }
}

fn macip_add_replace(
    cx: &mut Cx<'_>,
    index: u32,
    tag: &Text<64>,
    rules: &[MacipAclRule],
) -> Result<u32, ApiError> {
    if let Some(index) = replaced(index) {
        macip(cx, index)?;
    }
    let rules = rules.iter().map(macip_rule).collect::<Result<Vec<_>, _>>()?;
    Ok(cx.dp.set_macip(replaced(index), &tag.0, rules)?)
}

/// As in VPP, the list is taken from the interfaces that have it.
fn macip_del(cx: &mut Cx<'_>, message: MacipAclDel) -> Result<(), ApiError> {
    macip(cx, message.acl_index)?;
    for (index, list) in macips(cx) {
        if list == message.acl_index {
            cx.dp.set_interface_macip(index, None)?;
        }
    }
    Ok(cx.dp.delete_macip(message.acl_index)?)
}

/// The interfaces that have a MAC-IP list, and which.
fn macips(cx: &Cx<'_>) -> Vec<(SwIfIndex, u32)> {
    let bindings = cx.dp.acls.bindings.iter();
    bindings.filter_map(|(index, binding)| Some((*index, binding.macip?))).collect()
}

fn macip_interface(cx: &mut Cx<'_>, message: MacipAclInterfaceAddDel) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let list = if message.is_add {
        macip(cx, message.acl_index)?;
        Some(message.acl_index)
    } else if macips(cx).iter().any(|(has, _)| *has == index) {
        None
    } else {
        return Err(ApiError::NO_SUCH_ENTRY);
    };
    cx.dp.set_interface_macip(index, list).map_err(|error| match error {
        // An interface that receives no Ethernet frames.
        OpError::Parameter(_) => ApiError::INVALID_INTERFACE,
        error => error.into(),
    })
}

fn macip_dump(cx: &mut Cx<'_>, message: &MacipAclDump, from: Option<u32>) -> Page<MacipAclDetails, u32> {
    lists(&cx.dp.acls.macips, message.acl_index, from, |acl_index, list| MacipAclDetails {
        acl_index,
        tag: Text(list.tag.clone()),
        r: list.rules.iter().map(macip_details).collect(),
        ..MacipAclDetails::default()
    })
}

/// By `sw_if_index`, up to the last interface that has one; ~0 stands for none.
fn macip_interface_get(cx: &mut Cx<'_>, message: MacipAclInterfaceGet) {
    let mut acls = Vec::new();
    for (index, list) in macips(cx) {
        acls.resize(index.index(), u32::MAX);
        acls.push(list);
    }
    let context = message.context;
    cx.send(&MacipAclInterfaceGetReply { context, acls, ..MacipAclInterfaceGetReply::default() });
}

fn macip_interface_list(
    cx: &mut Cx<'_>,
    message: MacipAclInterfaceListDump,
) -> Vec<MacipAclInterfaceListDetails> {
    let all = message.sw_if_index == InterfaceIndex::NONE;
    let wanted = macips(cx).into_iter().filter(|(index, _)| all || index.0 == message.sw_if_index.0);
    let details = wanted.map(|(index, list)| MacipAclInterfaceListDetails {
        sw_if_index: index.into(),
        acls: vec![list],
        ..MacipAclInterfaceListDetails::default()
    });
    details.collect()
}

fn set_etypes(cx: &mut Cx<'_>, message: AclInterfaceSetEtypeWhitelist) -> Result<(), ApiError> {
    let index = cx.interface(message.sw_if_index.0)?;
    let types = &message.whitelist;
    let (input, output) = types.split_at(types.len().min(message.n_input.into()));
    for (direction, types) in [(Direction::Input, input), (Direction::Output, output)] {
        // An empty list lets all pass.
        let types = Some(types.to_vec()).filter(|types| !types.is_empty());
        cx.dp.set_etype_whitelist(index, direction, types)?;
    }
    Ok(())
}

fn etypes(
    cx: &mut Cx<'_>,
    message: AclInterfaceEtypeWhitelistDump,
) -> Vec<AclInterfaceEtypeWhitelistDetails> {
    let details = |index: SwIfIndex| {
        let [input, output] = cx.dp.acls.bindings.get(&index)?.etypes.clone().map(Option::unwrap_or_default);
        let (n_input, whitelist) = joined(&input, &output);
        let details = AclInterfaceEtypeWhitelistDetails {
            sw_if_index: index.into(),
            n_input,
            whitelist,
            ..AclInterfaceEtypeWhitelistDetails::default()
        };
        Some(details).filter(|details| !details.whitelist.is_empty())
    };
    asked(cx, &message.sw_if_index).into_iter().filter_map(details).collect()
}
