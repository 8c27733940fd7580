//! Messages of VPP's module `af_xdp`.

use super::super::{ApiError, Cx, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::interface::InterfaceKind;
use wharf_drivers::af_xdp::{CopyMode, XdpConfig};

/// The module.
pub const MODULE: Module = Module { name: "af_xdp", version: (1, 1, 0), messages: MESSAGES };

api! {
    /// How frames get to the rings.
    enum AfXdpMode = af_xdp_mode: u32 {
        AF_XDP_API_MODE_AUTO = 0, AF_XDP_API_MODE_COPY = 1, AF_XDP_API_MODE_ZERO_COPY = 2,
    }

    /// Options of an AF_XDP interface.
    flags AfXdpFlag = af_xdp_flag: u8 { AF_XDP_API_FLAGS_NO_SYSCALL_LOCK = 1; AF_XDP_API_FLAGS_MAC_REUSE = 2, AF_XDP_API_FLAGS_MULTI_BUFFER = 4 }

    /// Takes a Linux interface over.
    call AfXdpCreateV3 = af_xdp_create_v3 {
        host_if: Text<64>, name: Text<64>, rxq_num: u16 = "1", rxq_size: u16 = "0", txq_size: u16 = "0",
        mode: AfXdpMode = "0", flags: AfXdpFlag = "0", prog: Text<256>, netns: Text<64>,
    }
        -> AfXdpCreateV3Reply = af_xdp_create_v3_reply { sw_if_index: InterfaceIndex };

    /// Gives a Linux interface back.
    call AfXdpDelete = af_xdp_delete { sw_if_index: InterfaceIndex };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.call(create);
    list.steps(delete);
}

fn create(cx: &mut Cx<'_>, message: AfXdpCreateV3) -> Result<AfXdpCreateV3Reply, ApiError> {
    // wharf's own program only, and frames in one piece only.
    if !message.prog.0.is_empty() || message.flags.0 & AfXdpFlag::AF_XDP_API_FLAGS_MULTI_BUFFER.0 != 0 {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let mut config = XdpConfig::new(message.host_if.0.clone());
    config.netns = Some(message.netns.0).filter(|netns| !netns.is_empty());
    for (size, ring) in [(message.rxq_size, &mut config.rx_ring), (message.txq_size, &mut config.tx_ring)] {
        match size {
            // 0 stands for the default.
            0 => {}
            64..=4096 if size.is_power_of_two() => *ring = size.into(),
            _ => return Err(ApiError::INVALID_VALUE),
        }
    }
    config.copy = match message.mode {
        AfXdpMode::AF_XDP_API_MODE_AUTO => CopyMode::Auto,
        AfXdpMode::AF_XDP_API_MODE_COPY => CopyMode::Copy,
        AfXdpMode::AF_XDP_API_MODE_ZERO_COPY => CopyMode::ZeroCopy,
        _ => return Err(ApiError::INVALID_VALUE),
    };
    let name = match message.name.0 {
        name if name.is_empty() => format!("{}/0", message.host_if.0),
        name => name,
    };
    if cx.dp.find_interface(&name).is_some() {
        return Err(ApiError::IF_ALREADY_EXISTS);
    }
    let host_mac = message.flags.0 & AfXdpFlag::AF_XDP_API_FLAGS_MAC_REUSE.0 != 0;
    let index = cx.dp.create_af_xdp(name, config, host_mac)?;
    // All queues must be bound, or what arrives on the others is lost; VPP's 65535 asks for them all.
    let queues = cx.dp.xdp.info(index).map_or(0, |info| info.queues);
    if message.rxq_num != u16::MAX && usize::from(message.rxq_num) != queues {
        cx.dp.delete_interface(index)?;
        tracing::info!("{}: {queues} receive queues, not {}", message.host_if.0, message.rxq_num);
        return Err(ApiError::INVALID_QUEUE);
    }
    Ok(AfXdpCreateV3Reply { sw_if_index: index.into() })
}

fn delete(cx: &mut Cx<'_>, message: &AfXdpDelete) -> Result<bool, ApiError> {
    let index = cx.interface_of(message.sw_if_index.0, InterfaceKind::AfXdp)?;
    Ok(cx.dp.delete_interface_piece(index)?)
}
