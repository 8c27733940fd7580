//! Messages of VPP's module `memclnt`.

use super::super::schema::{MessageDef, Module};
use super::super::{ApiError, Count, Cx, Handlers, Text};
use crate::api;

/// The module.
pub const MODULE: Module = Module { name: "memclnt", version: (2, 1, 0), messages: MESSAGES };

api! {
    /// The version of a module.
    record ModuleVersion = module_version { major: u32, minor: u32, patch: u32, name: Text<64> }

    /// A message with its number.
    record MessageTableEntry = message_table_entry { index: u16, name: Text<64> }

    /// Connects by shared memory, which is not offered.
    request MemclntCreate = memclnt_create [read] {
        context: u32, ctx_quota: i32, input_queue: u64, name: Text<64>, api_versions: [u32; 8],
    };

    /// The reply.
    event MemclntCreateReply = memclnt_create_reply {
        context: u32, response: i32, handle: u64, index: u32, message_table: u64,
    };

    /// Disconnects shared memory.
    request MemclntDelete = memclnt_delete [read] { index: u32, handle: u64, do_cleanup: bool };

    /// The reply.
    event MemclntDeleteReply = memclnt_delete_reply { response: i32, handle: u64 };

    /// Ends a client's receiving thread; clients send it to themselves.
    silent RxThreadExit = rx_thread_exit { dummy: u8 };

    /// Pauses a client's receiving thread; clients send it to themselves.
    silent MemclntRxThreadSuspend = memclnt_rx_thread_suspend { dummy: u8 };

    /// Wakes a client's receiving thread; clients send it to themselves.
    silent MemclntReadTimeout = memclnt_read_timeout { dummy: u8 };

    /// Runs a function of the daemon's; refused.
    call RpcCall = rpc_call {
        function: u64, multicast: u8, need_barrier_sync: u8, send_reply: u8, data_len: Count<u32>,
        data: Vec<u8>[data_len],
    };

    /// Asks for the number of a module's first message.
    call GetFirstMsgId = get_first_msg_id [read] { name: Text<64> }
        -> GetFirstMsgIdReply = get_first_msg_id_reply { first_msg_id: u16 };

    /// Asks for the versions of the modules.
    call ApiVersions = api_versions [read] {}
        -> ApiVersionsReply = api_versions_reply { count: Count<u32>, api_versions: Vec<ModuleVersion>[count] };

    /// A mark in API traces.
    silent TracePluginMsgIds = trace_plugin_msg_ids {
        client_index: u32, context: u32, plugin_name: Text<128>, first_msg_id: u16, last_msg_id: u16,
    };

    /// Introduces a client, which gets the table of messages.
    request SockclntCreate = sockclnt_create [read] { context: u32, name: Text<64> };

    /// The reply.
    event SockclntCreateReply = sockclnt_create_reply {
        client_index: u32, context: u32, response: i32, index: u32, count: Count<u16>,
        message_table: Vec<MessageTableEntry>[count],
    };

    /// Says farewell.
    request SockclntDelete = sockclnt_delete [read] { client_index: u32, context: u32, index: u32 };

    /// The reply.
    event SockclntDeleteReply = sockclnt_delete_reply { context: u32, response: i32 };

    /// Asks to go on by shared memory; refused.
    call SockInitShm = sock_init_shm [read] { requested_size: u32, nitems: Count<u8>, configs: Vec<u64>[nitems] };

    /// Asks a client of shared memory whether it lives.
    call MemclntKeepalive = memclnt_keepalive [read] {};

    /// Asks for a reply, behind those of all earlier requests.
    call ControlPing = control_ping [read] {}
        -> ControlPingReply = control_ping_reply { client_index: u32, vpe_pid: u32 };

    /// Connects by shared memory, which is not offered.
    request MemclntCreateV2 = memclnt_create_v2 [read] {
        context: u32, ctx_quota: i32, input_queue: u64, name: Text<64>, api_versions: [u32; 8],
        keepalive: bool = "true",
    };

    /// The reply.
    event MemclntCreateV2Reply = memclnt_create_v2_reply {
        context: u32, response: i32, handle: u64, index: u32, message_table: u64,
    };

    /// Asks for the definitions of all messages, as JSON.
    call GetApiJson = get_api_json [read] {}
        -> GetApiJsonReply = get_api_json_reply { json: String };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.raw(sockclnt_create);
    list.raw(sockclnt_delete);
    list.call(control_ping);
    list.call(first_msg_id);
    list.call(api_versions);
    list.call(api_json);
    list.auto(|_, _: MemclntKeepalive| Ok(()));
}

fn sockclnt_create(cx: &mut Cx<'_>, message: SockclntCreate) {
    cx.client.name = message.name.0;
    let entry = |(index, def): (u16, &MessageDef)| MessageTableEntry { index, name: Text(def.key()) };
    let reply = SockclntCreateReply {
        client_index: cx.client.index,
        context: message.context,
        index: cx.client.index,
        message_table: cx.registry.messages().map(entry).collect(),
        ..SockclntCreateReply::default()
    };
    cx.send(&reply);
}

fn sockclnt_delete(cx: &mut Cx<'_>, message: SockclntDelete) {
    cx.client.leaving = true;
    // VPP's way of saying that it went well.
    cx.send(&SockclntDeleteReply { context: message.context, response: 1 });
}

fn control_ping(cx: &mut Cx<'_>, _: ControlPing) -> Result<ControlPingReply, ApiError> {
    Ok(ControlPingReply { client_index: cx.client.index, vpe_pid: std::process::id() })
}

/// VPP's names are those of modules with the CRC of the file behind them, which says nothing about messages.
fn first_msg_id(cx: &mut Cx<'_>, message: GetFirstMsgId) -> Result<GetFirstMsgIdReply, ApiError> {
    let name = message.name.0;
    let module = name.rsplit_once('_').filter(|(_, crc)| crc.len() == 8).map_or(&*name, |(module, _)| module);
    let found = cx.registry.modules().iter().find(|(m, _)| m.name == module || m.name == name);
    match found {
        Some((_, first)) => Ok(GetFirstMsgIdReply { first_msg_id: *first }),
        None => Err(ApiError::INVALID_VALUE),
    }
}

fn api_versions(cx: &mut Cx<'_>, _: ApiVersions) -> Result<ApiVersionsReply, ApiError> {
    let version = |module: &Module| {
        let (major, minor, patch) = module.version;
        ModuleVersion { major, minor, patch, name: Text(format!("{}.api", module.name)) }
    };
    let api_versions = cx.registry.modules().iter().map(|(module, _)| version(module)).collect();
    Ok(ApiVersionsReply { api_versions, ..ApiVersionsReply::default() })
}

fn api_json(cx: &mut Cx<'_>, _: GetApiJson) -> Result<GetApiJsonReply, ApiError> {
    Ok(GetApiJsonReply { json: cx.registry.json().to_owned() })
}
