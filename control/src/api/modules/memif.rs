//! Messages of VPP's module `memif`.

use super::super::events::flags;
use super::super::{ApiError, Cx, Handlers, Text, schema::Module};
use super::types::*;
use crate::api;
use crate::dataplane::OpError;
use crate::interface::InterfaceKind;
use memif::{Mode, Role, Secret};
use wharf_drivers::memif::{Access, MemifConfig};

/// The module.
pub const MODULE: Module = Module { name: "memif", version: (3, 1, 0), messages: MESSAGES };

api! {
    /// Which end of a memif.
    enum MemifRole = memif_role: u32 { MEMIF_ROLE_API_MASTER = 0, MEMIF_ROLE_API_SLAVE = 1 }

    /// What packets of a memif start with.
    enum MemifMode = memif_mode: u32 {
        MEMIF_MODE_API_ETHERNET = 0, MEMIF_MODE_API_IP = 1, MEMIF_MODE_API_PUNT_INJECT = 2,
    }

    /// Gives a control socket a number, or takes it away.
    call MemifSocketFilenameAddDel = memif_socket_filename_add_del { is_add: bool, socket_id: u32, socket_filename: Text<108> };

    /// Gives a control socket a number, chosen if none is given, or takes it away.
    call MemifSocketFilenameAddDelV2 = memif_socket_filename_add_del_v2 {
        is_add: bool, socket_id: u32 = "4294967295", socket_filename: String,
    }
        -> MemifSocketFilenameAddDelV2Reply = memif_socket_filename_add_del_v2_reply { socket_id: u32 };

    /// Creates a memif.
    call MemifCreate = memif_create {
        role: MemifRole, mode: MemifMode, rx_queues: u8, tx_queues: u8, id: u32, socket_id: u32,
        ring_size: u32, buffer_size: u16, no_zero_copy: bool, hw_addr: MacAddress, secret: Text<24>,
    }
        -> MemifCreateReply = memif_create_reply { sw_if_index: InterfaceIndex };

    /// Creates a memif.
    call MemifCreateV2 = memif_create_v2 {
        role: MemifRole, mode: MemifMode, rx_queues: u8, tx_queues: u8, id: u32, socket_id: u32,
        ring_size: u32, buffer_size: u16, no_zero_copy: bool, use_dma: bool, hw_addr: MacAddress,
        secret: Text<24>,
    }
        -> MemifCreateV2Reply = memif_create_v2_reply { sw_if_index: InterfaceIndex };

    /// Deletes a memif.
    call MemifDelete = memif_delete { sw_if_index: InterfaceIndex };

    /// Asks for the control sockets.
    dump MemifSocketFilenameDump = memif_socket_filename_dump {}
        -> MemifSocketFilenameDetails = memif_socket_filename_details { socket_id: u32, socket_filename: Text<108> };

    /// Asks for the memifs.
    dump MemifDump = memif_dump {}
        -> MemifDetails = memif_details {
        sw_if_index: InterfaceIndex, hw_addr: MacAddress, id: u32, role: MemifRole, mode: MemifMode,
        zero_copy: bool, socket_id: u32, ring_size: u32, buffer_size: u16, flags: IfStatusFlags,
        if_name: Text<64>,
    };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(|cx, m: MemifSocketFilenameAddDel| {
        if m.socket_id == u32::MAX {
            return Err(ApiError::INVALID_ARGUMENT);
        }
        socket_add_del(cx, m.is_add, m.socket_id, &m.socket_filename.0).map(|_| ())
    });
    list.call(|cx, m: MemifSocketFilenameAddDelV2| {
        let socket_id = socket_add_del(cx, m.is_add, m.socket_id, &m.socket_filename)?;
        Ok(MemifSocketFilenameAddDelV2Reply { socket_id })
    });
    list.dump(socket_dump);
    list.call(|cx, m: MemifCreate| Ok(MemifCreateReply { sw_if_index: create(cx, &m)? }));
    list.call(|cx, m: MemifCreateV2| {
        let v1 = MemifCreate {
            role: m.role,
            mode: m.mode,
            rx_queues: m.rx_queues,
            tx_queues: m.tx_queues,
            id: m.id,
            socket_id: m.socket_id,
            ring_size: m.ring_size,
            buffer_size: m.buffer_size,
            no_zero_copy: m.no_zero_copy,
            hw_addr: m.hw_addr,
            secret: m.secret,
        };
        Ok(MemifCreateV2Reply { sw_if_index: create(cx, &v1)? })
    });
    list.steps(delete);
    list.dump(dump);
}

/// Returns the socket's number.
fn socket_add_del(cx: &mut Cx<'_>, is_add: bool, id: u32, filename: &str) -> Result<u32, ApiError> {
    if id == 0 {
        return Err(ApiError::INVALID_ARGUMENT);
    }
    if !is_add {
        let used = cx.dp.memif.sockets().iter().any(|s| s.id == id && s.interfaces > 0);
        if used {
            return Err(ApiError::UNEXPECTED_INTF_STATE);
        }
        cx.dp.memif.delete_socket(id).map_err(OpError::from)?;
        return Ok(id);
    }
    let taken: Vec<u32> = cx.dp.memif.sockets().iter().map(|socket| socket.id).collect();
    let id = match id {
        u32::MAX => (1..).find(|id| !taken.contains(id)).ok_or(ApiError::LIMIT_EXCEEDED)?,
        id => id,
    };
    cx.dp.add_memif_socket(id, filename, Access::default())?;
    Ok(id)
}

fn socket_dump(cx: &mut Cx<'_>, _: MemifSocketFilenameDump) -> Vec<MemifSocketFilenameDetails> {
    let sockets = cx.dp.memif.sockets().into_iter();
    let details = sockets.map(|socket| MemifSocketFilenameDetails {
        socket_id: socket.id,
        socket_filename: Text(socket.filename),
    });
    details.collect()
}

fn create(cx: &mut Cx<'_>, message: &MemifCreate) -> Result<InterfaceIndex, ApiError> {
    let role = match message.role {
        MemifRole::MEMIF_ROLE_API_MASTER => Role::Server,
        MemifRole::MEMIF_ROLE_API_SLAVE => Role::Client,
        _ => return Err(ApiError::INVALID_ARGUMENT),
    };
    let mode = match message.mode {
        MemifMode::MEMIF_MODE_API_ETHERNET => Mode::Ethernet,
        MemifMode::MEMIF_MODE_API_IP => Mode::Ip,
        MemifMode::MEMIF_MODE_API_PUNT_INJECT => return Err(ApiError::UNIMPLEMENTED),
        _ => return Err(ApiError::INVALID_ARGUMENT),
    };
    let mut config = MemifConfig::new(message.socket_id, message.id, role);
    config.mode = mode;
    // 0 stands for the default.
    if message.ring_size != 0 {
        config.ring_size = message.ring_size;
    }
    if message.buffer_size != 0 {
        config.buffer_size = message.buffer_size.into();
    }
    config.rx_queues = u16::from(message.rx_queues).max(1);
    config.tx_queues = u16::from(message.tx_queues).max(1);
    config.mac = message.hw_addr.chosen();
    if !message.secret.0.is_empty() {
        let secret = Secret::new(message.secret.0.as_bytes()).map_err(|_| ApiError::INVALID_ARGUMENT)?;
        config.secret = Some(secret);
    }
    if cx.dp.memif.find(message.socket_id, message.id).is_some() {
        return Err(ApiError::SUBIF_ALREADY_EXISTS);
    }
    Ok(cx.dp.create_memif(config)?.into())
}

fn delete(cx: &mut Cx<'_>, message: &MemifDelete) -> Result<bool, ApiError> {
    let index = cx.interface_of(message.sw_if_index.0, InterfaceKind::Memif)?;
    Ok(cx.dp.delete_interface_piece(index)?)
}

fn dump(cx: &mut Cx<'_>, _: MemifDump) -> Vec<MemifDetails> {
    let details = |index| {
        let (info, interface) = (cx.dp.memif.info(index)?, cx.dp.interfaces.get(&index)?);
        Some(MemifDetails {
            sw_if_index: index.into(),
            hw_addr: interface.mac.into(),
            id: info.id,
            role: match info.role {
                Role::Server => MemifRole::MEMIF_ROLE_API_MASTER,
                Role::Client => MemifRole::MEMIF_ROLE_API_SLAVE,
            },
            mode: match info.mode {
                Mode::Ethernet => MemifMode::MEMIF_MODE_API_ETHERNET,
                Mode::Ip => MemifMode::MEMIF_MODE_API_IP,
                Mode::PuntInject => MemifMode::MEMIF_MODE_API_PUNT_INJECT,
            },
            zero_copy: false,
            socket_id: info.socket_id,
            ring_size: info.ring_size,
            buffer_size: u16::try_from(info.buffer_size).unwrap_or(u16::MAX),
            flags: flags(interface),
            if_name: Text(info.name),
        })
    };
    cx.dp.memif.interfaces().filter_map(details).collect()
}
