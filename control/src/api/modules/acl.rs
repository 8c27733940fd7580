//! Messages of VPP's module `acl`.

use super::super::{Count, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;

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

    /// Asks for a reply, behind those of all earlier requests.
    call AclPluginControlPing = acl_plugin_control_ping {}
        -> AclPluginControlPingReply = acl_plugin_control_ping_reply { client_index: u32, vpe_pid: u32 };

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
    request MacipAclInterfaceGet = macip_acl_interface_get { client_index: u32, context: u32 };

    /// The reply.
    event MacipAclInterfaceGetReply = macip_acl_interface_get_reply { context: u32, count: Count<u32>, acls: Vec<u32>[count] };

    /// Asks which ACLs of MAC and IP addresses interfaces have.
    dump MacipAclInterfaceListDump = macip_acl_interface_list_dump { sw_if_index: InterfaceIndex }
        -> MacipAclInterfaceListDetails = macip_acl_interface_list_details {
        sw_if_index: InterfaceIndex, count: Count<u8>, acls: Vec<u32>[count],
    };

    /// Switches counters per rule.
    call AclStatsIntfCountersEnable = acl_stats_intf_counters_enable { enable: bool };
}

pub(super) fn handlers(_: &mut Handlers) {}
