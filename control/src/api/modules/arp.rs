//! Messages of VPP's module `arp`.

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "arp", version: (1, 0, 0), messages: MESSAGES };

api! {
    /// Addresses of a table that are answered for.
    record ProxyArp = proxy_arp { table_id: u32, low: Ip4Address, hi: Ip4Address }

    /// Adds or removes addresses that are answered for.
    call ProxyArpAddDel = proxy_arp_add_del { is_add: bool, proxy: ProxyArp };

    /// Asks for the addresses that are answered for.
    dump ProxyArpDump = proxy_arp_dump {}
        -> ProxyArpDetails = proxy_arp_details { proxy: ProxyArp };

    /// Switches answering for others on an interface.
    call ProxyArpIntfcEnableDisable = proxy_arp_intfc_enable_disable { sw_if_index: InterfaceIndex, enable: bool };

    /// Asks which interfaces answer for others.
    dump ProxyArpIntfcDump = proxy_arp_intfc_dump {}
        -> ProxyArpIntfcDetails = proxy_arp_intfc_details { sw_if_index: u32 };
}

pub(super) fn handlers(_: &mut Handlers) {}
