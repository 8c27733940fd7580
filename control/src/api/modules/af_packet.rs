//! Messages of VPP's module `af_packet`.

use super::super::{Handlers, Text, schema::Module};
use super::types::*;
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "af_packet", version: (2, 0, 0), messages: MESSAGES };

api! {
    /// What packets start with.
    enum AfPacketMode = af_packet_mode: u32 { AF_PACKET_API_MODE_ETHERNET = 1, AF_PACKET_API_MODE_IP = 2 }

    /// Options of a packet socket.
    enum AfPacketFlags = af_packet_flags: u32 {
        AF_PACKET_API_FLAG_QDISC_BYPASS = 1, AF_PACKET_API_FLAG_CKSUM_GSO = 2;
        AF_PACKET_API_FLAG_VERSION_2 = 8,
    }

    /// Takes a Linux interface over by a packet socket.
    call AfPacketCreateV3 = af_packet_create_v3 {
        mode: AfPacketMode, hw_addr: MacAddress, use_random_hw_addr: bool, host_if_name: Text<64>,
        rx_frame_size: u32, tx_frame_size: u32, rx_frames_per_block: u32, tx_frames_per_block: u32,
        flags: AfPacketFlags, num_rx_queues: u16 = "1", num_tx_queues: u16 = "1",
    }
        -> AfPacketCreateV3Reply = af_packet_create_v3_reply { sw_if_index: InterfaceIndex };

    /// Gives a Linux interface back.
    call AfPacketDelete = af_packet_delete { host_if_name: Text<64> };

    /// Asks for the Linux interfaces taken over.
    dump AfPacketDump = af_packet_dump {}
        -> AfPacketDetails = af_packet_details { sw_if_index: InterfaceIndex, host_if_name: Text<64> };
}

pub(super) fn handlers(_: &mut Handlers) {}
