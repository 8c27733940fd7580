//! Messages of VPP's module `pg`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use super::types::*;
use crate::api;
use crate::dataplane::OpError;
use crate::interface::InterfaceKind;
use wharf_drivers::pg::{CaptureConfig, PgMode};

/// The module.
pub const MODULE: Module = Module { name: "pg", version: (2, 1, 0), messages: MESSAGES };

api! {
    /// What packets of a packet generator start with.
    enum PgInterfaceMode = pg_interface_mode: u8 {
        PG_API_MODE_ETHERNET = 0, PG_API_MODE_IP4 = 1, PG_API_MODE_IP6 = 2,
    }

    /// Options of a packet generator interface.
    enum PgInterfaceFlags = pg_interface_flags: u32 {
        PG_API_FLAG_NONE = 0, PG_API_FLAG_CSUM_OFFLOAD = 1, PG_API_FLAG_GSO = 2,
        PG_API_FLAG_GRO_COALESCE = 4,
    }

    /// Creates a packet generator interface.
    call PgCreateInterface = pg_create_interface { interface_id: InterfaceIndex, gso_enabled: bool, gso_size: u32 }
        -> PgCreateInterfaceReply = pg_create_interface_reply { sw_if_index: InterfaceIndex };

    /// Creates a packet generator interface.
    call PgCreateInterfaceV2 = pg_create_interface_v2 {
        interface_id: InterfaceIndex, gso_enabled: bool, gso_size: u32, mode: PgInterfaceMode,
    }
        -> PgCreateInterfaceV2Reply = pg_create_interface_v2_reply { sw_if_index: InterfaceIndex };

    /// Creates a packet generator interface.
    call PgCreateInterfaceV3 = pg_create_interface_v3 {
        interface_id: InterfaceIndex, pg_flags: PgInterfaceFlags, gso_size: u32, mode: PgInterfaceMode,
    }
        -> PgCreateInterfaceV3Reply = pg_create_interface_v3_reply { sw_if_index: InterfaceIndex };

    /// Deletes a packet generator interface.
    call PgDeleteInterface = pg_delete_interface { sw_if_index: InterfaceIndex };

    /// Switches joining of TCP segments on a packet generator interface.
    call PgInterfaceEnableDisableCoalesce = pg_interface_enable_disable_coalesce { sw_if_index: InterfaceIndex, coalesce_enabled: bool };

    /// Starts or ends writing what a packet generator interface sends into a file.
    call PgCapture = pg_capture {
        interface_id: InterfaceIndex, is_enabled: bool = "true", count: u32, pcap_file_name: String,
    };

    /// Plays streams, or stops them.
    call PgEnableDisable = pg_enable_disable { is_enabled: bool = "true", stream_name: String };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.call(|cx, m: PgCreateInterface| {
        let sw_if_index = create(cx, m.interface_id.0, m.gso_enabled, PgInterfaceMode::PG_API_MODE_ETHERNET)?;
        Ok(PgCreateInterfaceReply { sw_if_index })
    });
    list.call(|cx, m: PgCreateInterfaceV2| {
        Ok(PgCreateInterfaceV2Reply { sw_if_index: create(cx, m.interface_id.0, m.gso_enabled, m.mode)? })
    });
    list.call(|cx, m: PgCreateInterfaceV3| {
        let offload = m.pg_flags != PgInterfaceFlags::PG_API_FLAG_NONE;
        Ok(PgCreateInterfaceV3Reply { sw_if_index: create(cx, m.interface_id.0, offload, m.mode)? })
    });
    list.steps(delete);
    list.auto(capture);
    list.auto(enable_disable);
}

/// Creates `pgN`, or finds it.
fn create(
    cx: &mut Cx<'_>,
    id: u32,
    offload: bool,
    mode: PgInterfaceMode,
) -> Result<InterfaceIndex, ApiError> {
    if offload {
        return Err(ApiError::UNIMPLEMENTED);
    }
    let mode = match mode {
        PgInterfaceMode::PG_API_MODE_ETHERNET => PgMode::Ethernet,
        PgInterfaceMode::PG_API_MODE_IP4 => PgMode::Ip4,
        PgInterfaceMode::PG_API_MODE_IP6 => return Err(ApiError::UNIMPLEMENTED),
        _ => return Err(ApiError::INVALID_VALUE),
    };
    let name = format!("pg{id}");
    match cx.dp.find_interface(&name) {
        Some(index) => Ok(index.into()),
        None => Ok(cx.dp.create_pg(&name, mode)?.into()),
    }
}

fn delete(cx: &mut Cx<'_>, message: &PgDeleteInterface) -> Result<bool, ApiError> {
    let index = cx.interface_of(message.sw_if_index.0, InterfaceKind::Pg)?;
    Ok(cx.dp.delete_interface_piece(index)?)
}

fn capture(cx: &mut Cx<'_>, message: PgCapture) -> Result<(), ApiError> {
    let index = cx.dp.find_interface(&format!("pg{}", message.interface_id.0));
    let pg = index.and_then(|index| cx.dp.pg.get_mut(&index)).ok_or(ApiError::INVALID_INTERFACE)?;
    if !message.is_enabled {
        pg.stop_capture();
        return Ok(());
    }
    let mut config = CaptureConfig::new(message.pcap_file_name);
    // VPP's ~0 asks for any number.
    config.max_packets = if message.count == u32::MAX { 0 } else { message.count.into() };
    Ok(pg.start_capture(config).map_err(OpError::from)?)
}

fn enable_disable(cx: &mut Cx<'_>, message: PgEnableDisable) -> Result<(), ApiError> {
    let (name, on) = (message.stream_name, message.is_enabled);
    if name.is_empty() {
        let all = cx.dp.pg.values_mut();
        all.for_each(|pg| if on { pg.enable_all() } else { pg.disable_all() });
        return Ok(());
    }
    let mut all = cx.dp.pg.values_mut();
    let pg = all.find(|pg| pg.streams().iter().any(|s| s.name == name)).ok_or(ApiError::NO_SUCH_ENTRY)?;
    let done = if on { pg.enable(&name) } else { pg.disable(&name) };
    Ok(done.map_err(OpError::from)?)
}
