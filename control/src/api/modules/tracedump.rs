//! Messages of VPP's module `tracedump`.

use super::super::{ApiError, Cx, Handlers, schema::Module};
use crate::api;
use crate::dataplane::OpError;
use std::fmt::Write;

/// The module.
pub const MODULE: Module = Module { name: "tracedump", version: (0, 2, 0), messages: MESSAGES };

api! {
    /// How a trace filter works.
    enum TraceFilterFlag = trace_filter_flag: u32 {
        TRACE_FF_NONE = 0, TRACE_FF_INCLUDE_NODE = 1, TRACE_FF_EXCLUDE_NODE = 2,
        TRACE_FF_INCLUDE_CLASSIFIER = 3, TRACE_FF_EXCLUDE_CLASSIFIER = 4,
    }

    /// Sets which packets are traced.
    call TraceSetFilters = trace_set_filters {
        flag: TraceFilterFlag, count: u32, node_index: u32 = "4294967295",
        classifier_table_index: u32 = "4294967295",
    };

    /// Traces packets that come from a node.
    call TraceCapturePackets = trace_capture_packets {
        node_index: u32, max_packets: u32, use_filter: bool, verbose: bool, pre_capture_clear: bool,
    };

    /// Forgets traced packets and stops tracing.
    call TraceClearCapture = trace_clear_capture {};

    /// Asks for traced packets, some at a time.
    get TraceDump = trace_dump { clear_cache: u8, thread_id: u32, position: u32, max_records: u32 }
        -> TraceDumpReply = trace_dump_reply {
        last_thread_id: u32, last_position: u32, more_this_thread: u8, more_threads: u8, flush_only: u8,
        done: u8,
    },
        TraceDetails = trace_details [client_index] {
        thread_id: u32, position: u32, more_this_thread: u8, more_threads: u8, done: u8,
        packet_number: u32, trace_data: String,
    };

    /// Forgets the packets kept for this client.
    call TraceClearCache = trace_clear_cache {};

    /// Asks for traced packets.
    dump TraceV2Dump = trace_v2_dump {
        thread_id: u32 = "4294967295", position: u32, max: u32 = "50", clear_cache: bool,
    }
        -> TraceV2Details = trace_v2_details { thread_id: u32, position: u32, more: bool, trace_data: String };

    /// Chooses how packets are filtered for tracing.
    call TraceSetFilterFunction = trace_set_filter_function { filter_function_name: String };

    /// Asks how packets can be filtered for tracing.
    dump TraceFilterFunctionDump = trace_filter_function_dump {}
        -> TraceFilterFunctionDetails = trace_filter_function_details { selected: bool, name: String };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.auto(capture);
    list.auto(clear);
    list.auto(|_, _: TraceClearCache| Ok(()));
    list.dump(dump);
}

/// Input nodes are numbered behind the graph's, as `get_node_index` says.
fn capture(cx: &mut Cx<'_>, message: TraceCapturePackets) -> Result<(), ApiError> {
    let graph = cx.dp.engine().graph();
    let input = (message.node_index as usize).checked_sub(graph.nodes.len());
    let input = input.and_then(|input| graph.inputs.get(input)).ok_or(ApiError::NO_SUCH_NODE)?.name;
    if message.use_filter {
        return Err(ApiError::UNIMPLEMENTED);
    }
    if message.pre_capture_clear {
        cx.dp.engine().trace_clear();
    }
    Ok(cx.dp.engine().trace_add(input, message.max_packets).map_err(OpError::from)?)
}

fn clear(cx: &mut Cx<'_>, _: TraceClearCapture) -> Result<(), ApiError> {
    cx.dp.engine().trace_clear();
    Ok(())
}

/// From `position` on, for each thread or one; thread 0 is main, which forwards nothing.
fn dump(cx: &mut Cx<'_>, message: TraceV2Dump) -> Vec<TraceV2Details> {
    let mut details: Vec<TraceV2Details> = Vec::new();
    let packets = cx.dp.engine().trace(&*cx.dp);
    for worker in 0..cx.dp.engine().workers() as u16 {
        let thread_id = u32::from(worker) + 1;
        if message.thread_id != u32::MAX && message.thread_id != thread_id {
            continue;
        }
        let own: Vec<_> = packets.iter().filter(|packet| packet.worker == worker).collect();
        let first = message.position as usize;
        for (position, packet) in own.iter().enumerate().skip(first).take(message.max as usize) {
            let mut trace_data = String::new();
            for (nanos, node, text) in &packet.steps {
                let _ = write!(trace_data, "{:.6}: {node}\n  {text}\n", *nanos as f64 / 1e9);
            }
            let more = position + 1 < own.len();
            details.push(TraceV2Details { thread_id, position: position as u32, more, trace_data });
        }
    }
    details
}
