//! Messages of VPP's module `ip6_nd`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "ip6_nd", version: (1, 1, 0), messages: MESSAGES };

api! {
    /// Sets how an interface advertises itself as a router.
    call SwInterfaceIp6ndRaConfig = sw_interface_ip6nd_ra_config {
        sw_if_index: InterfaceIndex, suppress: u8, managed: u8, other: u8, ll_option: u8, send_unicast: u8,
        cease: u8, is_no: bool, default_router: u8, max_interval: u32, min_interval: u32, lifetime: u32,
        initial_count: u32, initial_interval: u32,
    };

    /// Sets which prefixes an interface advertises.
    call SwInterfaceIp6ndRaPrefix = sw_interface_ip6nd_ra_prefix {
        sw_if_index: InterfaceIndex, prefix: Prefix, use_default: bool, no_advertise: bool, off_link: bool,
        no_autoconfig: bool, no_onlink: bool, is_no: bool, val_lifetime: u32, pref_lifetime: u32,
    };

    /// Switches answering for others on an interface.
    call Ip6ndProxyEnableDisable = ip6nd_proxy_enable_disable { sw_if_index: InterfaceIndex, is_enable: bool };

    /// Adds or removes an address that an interface answers for.
    call Ip6ndProxyAddDel = ip6nd_proxy_add_del { sw_if_index: InterfaceIndex, is_add: bool, ip: Ip6Address };

    /// Asks for the addresses that interfaces answer for.
    dump Ip6ndProxyDump = ip6nd_proxy_dump {}
        -> Ip6ndProxyDetails = ip6nd_proxy_details { sw_if_index: InterfaceIndex, ip: Ip6Address };
}

pub(super) fn handlers(_: &mut Handlers) {}
