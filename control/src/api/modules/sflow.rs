//! Messages of VPP's module `sflow`: packets are not sampled, so settings are VPP's defaults and can't be changed.

// VPP's names of fields.
#![allow(non_snake_case)]

use super::super::{Handlers, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "sflow", version: (0, 1, 0), messages: MESSAGES };

api! {
    /// Samples packets of an interface.
    call SflowEnableDisable = sflow_enable_disable { enable_disable: bool, hw_if_index: InterfaceIndex };

    /// Asks of how many packets one is sampled.
    request SflowSamplingRateGet = sflow_sampling_rate_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event SflowSamplingRateGetReply = sflow_sampling_rate_get_reply { context: u32, sampling_N: u32 };

    /// Sets of how many packets one is sampled.
    call SflowSamplingRateSet = sflow_sampling_rate_set { sampling_N: u32 = "10000" };

    /// Sets how often counters are sent.
    call SflowPollingIntervalSet = sflow_polling_interval_set { polling_S: u32 = "20" };

    /// Asks how often counters are sent.
    request SflowPollingIntervalGet = sflow_polling_interval_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event SflowPollingIntervalGetReply = sflow_polling_interval_get_reply { context: u32, polling_S: u32 };

    /// Sets how much of a packet a sample has.
    call SflowHeaderBytesSet = sflow_header_bytes_set { header_B: u32 = "128" };

    /// Asks how much of a packet a sample has.
    request SflowHeaderBytesGet = sflow_header_bytes_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event SflowHeaderBytesGetReply = sflow_header_bytes_get_reply { context: u32, header_B: u32 };

    /// Sets which packets are sampled.
    call SflowDirectionSet = sflow_direction_set { sampling_D: u32 };

    /// Asks which packets are sampled.
    request SflowDirectionGet = sflow_direction_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event SflowDirectionGetReply = sflow_direction_get_reply { context: u32, sampling_D: u32 };

    /// Sets whether drops are reported.
    call SflowDropMonitoringSet = sflow_drop_monitoring_set { drop_M: u32 };

    /// Asks whether drops are reported.
    request SflowDropMonitoringGet = sflow_drop_monitoring_get [read] { client_index: u32, context: u32 };

    /// The reply.
    event SflowDropMonitoringGetReply = sflow_drop_monitoring_get_reply { context: u32, drop_M: u32 };

    /// Asks which interfaces have packets sampled.
    dump SflowInterfaceDump = sflow_interface_dump { hw_if_index: InterfaceIndex = "4294967295" }
        -> SflowInterfaceDetails = sflow_interface_details { hw_if_index: InterfaceIndex };
}

/// These replies have no room for an error, and vppcfg takes what they say for settings that it could write down.
pub(super) fn handlers(list: &mut Handlers) {
    list.raw(|cx, m: SflowSamplingRateGet| {
        cx.send(&SflowSamplingRateGetReply { context: m.context, sampling_N: 10_000 });
    });
    list.raw(|cx, m: SflowPollingIntervalGet| {
        cx.send(&SflowPollingIntervalGetReply { context: m.context, polling_S: 20 });
    });
    list.raw(|cx, m: SflowHeaderBytesGet| {
        cx.send(&SflowHeaderBytesGetReply { context: m.context, header_B: 128 });
    });
    list.raw(|cx, m: SflowDirectionGet| {
        // Received ones.
        cx.send(&SflowDirectionGetReply { context: m.context, sampling_D: 1 });
    });
    list.raw(|cx, m: SflowDropMonitoringGet| {
        cx.send(&SflowDropMonitoringGetReply { context: m.context, drop_M: 0 });
    });
}
