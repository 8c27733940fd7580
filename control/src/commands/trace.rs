//! Commands about the packet trace.

use crate::cli::{About, Args, CliError, Command, Output, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;

/// Packets that `show trace` prints unless told otherwise.
const MAX: usize = 50;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "trace add",
        "<node> <count:n>",
        "Trace the next packets of an input node, on each worker",
        add,
    ),
    Command::new("clear trace", "", "Forget the trace, and stop tracing", clear),
    Command::show("show trace", "[max <n>]", "Show traced packets", show),
];

fn add(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let count = args.get::<u64>("count")?;
    let Some(count) = u32::try_from(count).ok().filter(|c| (1..=100_000).contains(c)) else {
        let error = CliError::new(format!("count must be from 1 to 100000, got {count}"));
        return Err(error.about("count"));
    };
    dp.engine.trace_add(&args.text("node")?, count).about("node")
}

fn clear(dp: &mut Dataplane, _: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    dp.engine.trace_clear();
    Ok(())
}

#[derive(Serialize)]
struct PacketRow {
    thread: u16,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    time: f64,
    node: String,
    text: String,
}

fn show(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let max = args.opt::<u64>("max")?.map_or(MAX, |m| m as usize);
    let mut threads: Vec<(u16, Vec<PacketRow>)> =
        (0..dp.engine.workers() as u16).map(|w| (w + 1, Vec::new())).collect();
    for packet in dp.engine.trace(dp) {
        let step = |(nanos, node, text): (u64, String, String)| Step { time: nanos as f64 / 1e9, node, text };
        let row =
            PacketRow { thread: packet.worker + 1, steps: packet.steps.into_iter().map(step).collect() };
        if let Some((_, list)) = threads.get_mut(usize::from(packet.worker)) {
            list.push(row);
        }
    }
    out.show(&threads, |threads, text| {
        for (thread, packets) in threads {
            let _ = writeln!(
                text,
                "------------------- Start of thread {thread} wharf_wk_{} -------------------",
                thread - 1
            );
            if packets.is_empty() {
                text.push_str("No packets in trace buffer\n");
            }
            for (number, packet) in packets.iter().take(max).enumerate() {
                let _ = writeln!(text, "Packet {}\n", number + 1);
                for step in &packet.steps {
                    let seconds = step.time as u64;
                    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                    let micros = ((step.time - seconds as f64) * 1e6) as u64;
                    let _ =
                        writeln!(text, "{h:02}:{m:02}:{s:02}:{micros:06}: {}\n  {}", step.node, step.text);
                }
                text.push('\n');
            }
            if packets.len() > max {
                let _ = writeln!(text, "Limiting display to {max} packets. To display more specify max.");
            }
        }
    })
}
