//! Messages of VPP's module `vlib`.

use super::super::{ApiError, Count, Cx, Handlers, Text, schema::Module};
use crate::api;
use crate::cli::{Outcome, Session};
use wharf_engine::WorkerIndex;

/// The module.
pub const MODULE: Module = Module { name: "vlib", version: (1, 0, 0), messages: MESSAGES };

api! {
    /// A thread.
    record ThreadData = thread_data {
        id: u32, name: Text<64>, r#type: Text<64>, pid: u32, cpu_id: u32, core: u32, cpu_socket: u32,
    }

    /// Runs a command; its output would go to shared memory, so it is refused.
    call Cli = cli [read] { cmd_in_shmem: u64 }
        -> CliReply = cli_reply { reply_in_shmem: u64 };

    /// Runs a command and replies with its output.
    call CliInband = cli_inband [read] { cmd: String }
        -> CliInbandReply = cli_inband_reply { reply: String };

    /// Asks for the index of a graph node.
    call GetNodeIndex = get_node_index [read] { node_name: Text<64> }
        -> GetNodeIndexReply = get_node_index_reply { node_index: u32 };

    /// Makes sure that a graph node has an edge to another, and asks for the edge's index.
    call AddNodeNext = add_node_next { node_name: Text<64>, next_name: Text<64> }
        -> AddNodeNextReply = add_node_next_reply { next_index: u32 };

    /// Asks for the threads.
    call ShowThreads = show_threads [read] {}
        -> ShowThreadsReply = show_threads_reply { count: Count<u32>, thread_data: Vec<ThreadData>[count] };

    /// Asks for the graph in shared memory; refused.
    call GetNodeGraph = get_node_graph [read] {}
        -> GetNodeGraphReply = get_node_graph_reply { reply_in_shmem: u64 };

    /// Asks for the index of a graph node's edge to another.
    call GetNextIndex = get_next_index [read] { node_name: Text<64>, next_name: Text<64> }
        -> GetNextIndexReply = get_next_index_reply { next_index: u32 };
}

pub(super) fn handlers(list: &mut Handlers) {
    list.job(cli_inband);
    list.call(node_index);
    list.call(add_node_next);
    list.call(next_index);
    list.call(show_threads);
}

/// A command may wait, as `ping` does for answers, and must not hold the others up. As in VPP, one that fails has its error behind
/// what it printed.
fn cli_inband(
    cx: &mut Cx<'_>,
    message: CliInband,
) -> Box<dyn FnOnce() -> (Result<(), ApiError>, CliInbandReply) + Send> {
    let (executor, rights) = (cx.executor(), cx.client.rights);
    Box::new(move || {
        let outcome = executor.execute(message.cmd.trim(), &Session::detached(rights));
        let Outcome { text: mut reply, error } = outcome;
        let result = match error {
            None => Ok(()),
            Some(error) => {
                tracing::info!("API command refused: {error}");
                reply += &error;
                reply.push('\n');
                Err(ApiError::UNSPECIFIED)
            }
        };
        (result, CliInbandReply { reply })
    })
}

/// The number of a node: graph nodes first, then input nodes.
fn find(cx: &Cx<'_>, name: &str) -> Option<u32> {
    let graph = cx.dp.engine().graph();
    let node = graph.find(name).map(|index| u32::from(index.0));
    node.or_else(|| graph.find_input(name).map(|input| (graph.nodes.len() + input) as u32))
}

fn node_index(cx: &mut Cx<'_>, message: GetNodeIndex) -> Result<GetNodeIndexReply, ApiError> {
    let node_index = find(cx, &message.node_name.0).ok_or(ApiError::NO_SUCH_NODE)?;
    Ok(GetNodeIndexReply { node_index })
}

/// The place of `next` among the edges of `node`.
fn edge(cx: &Cx<'_>, node: &str, next: &str, missing: ApiError) -> Result<u32, ApiError> {
    let graph = cx.dp.engine().graph();
    let node = graph.find(node).ok_or(ApiError::NO_SUCH_NODE)?;
    let next = graph.find(next).ok_or(ApiError::NO_SUCH_NODE2)?;
    let edges = graph.nodes.get(node.index()).map(|n| n.edges()).unwrap_or_default();
    edges.iter().position(|edge| *edge == next).map(|place| place as u32).ok_or(missing)
}

/// Edges carry what their target needs, so none can be made at run time.
fn add_node_next(cx: &mut Cx<'_>, message: AddNodeNext) -> Result<AddNodeNextReply, ApiError> {
    let next_index = edge(cx, &message.node_name.0, &message.next_name.0, ApiError::UNIMPLEMENTED)?;
    Ok(AddNodeNextReply { next_index })
}

fn next_index(cx: &mut Cx<'_>, message: GetNextIndex) -> Result<GetNextIndexReply, ApiError> {
    let next_index = edge(cx, &message.node_name.0, &message.next_name.0, ApiError::NO_SUCH_NODE2)?;
    Ok(GetNextIndexReply { next_index })
}

fn show_threads(cx: &mut Cx<'_>, _: ShowThreads) -> Result<ShowThreadsReply, ApiError> {
    let pid = std::process::id();
    let core = |core: Option<usize>| core.and_then(|core| u32::try_from(core).ok()).unwrap_or(u32::MAX);
    let mut thread_data = vec![ThreadData {
        name: "vpp_main".into(),
        pid,
        cpu_id: u32::MAX,
        core: u32::MAX,
        ..ThreadData::default()
    }];
    for worker in 0..cx.dp.engine().workers() as u16 {
        let place = cx.dp.engine().worker_place(WorkerIndex(worker)).unwrap_or_default();
        thread_data.push(ThreadData {
            id: u32::from(worker) + 1,
            name: Text(format!("vpp_wk_{worker}")),
            r#type: "workers".into(),
            pid: place.1 as u32,
            cpu_id: core(place.0),
            core: core(place.0),
            ..ThreadData::default()
        });
    }
    Ok(ShowThreadsReply { thread_data, ..ShowThreadsReply::default() })
}
