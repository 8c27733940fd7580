//! Commands about the packet generator.

use crate::cli::{About, Args, CliError, Command, Output, Row, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;
use wharf_drivers::pg::{CaptureConfig, PgInterface, PgMode, StreamScript};
use wharf_engine::SwIfIndex;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create packet-generator interface",
        "<name:word> [mode {ethernet|ip4}]",
        "Create a packet generator interface",
        create,
    ),
    Command::new(
        "delete packet-generator interface",
        "<interface>",
        "Delete a packet generator interface",
        delete,
    ),
    Command::new("packet-generator new", "<stream:line>", "Create a stream; it plays once enabled", new),
    Command::new("packet-generator enable-stream", "[<stream:word>]", "Play a stream, or all", enable),
    Command::new("packet-generator disable-stream", "[<stream:word>]", "Stop a stream, or all", disable),
    Command::new("packet-generator delete", "<stream:word>", "Delete a stream", remove),
    Command::new(
        "packet-generator capture",
        "<interface> [disable] [pcap <path>] [count <n>]",
        "Write what the interface sends into a file",
        capture,
    ),
    Command::show("show packet-generator", "", "Show streams and captures", show),
];

type Done = Result<(), CliError>;

fn pg(dp: &mut Dataplane, index: SwIfIndex) -> Result<&mut PgInterface, CliError> {
    let name = dp.interface_name(index);
    let error = || CliError::new(format!("{name} is not a packet generator interface")).about("interface");
    dp.pg.get_mut(&index).ok_or_else(error)
}

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let mode = if args.flag("ip4") { PgMode::Ip4 } else { PgMode::Ethernet };
    let index = dp.create_pg(&args.text("name")?, mode)?;
    out.line(dp.interface_name(index));
    Ok(())
}

fn delete(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let index = SwIfIndex(args.interface("interface")?);
    pg(dp, index)?;
    Ok(dp.delete_interface(index)?)
}

fn new(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    add_stream(dp, args).about("stream")
}

fn add_stream(dp: &mut Dataplane, args: &Args) -> Done {
    let script: StreamScript = args.text("stream")?.parse()?;
    let index = dp.find_interface(&script.interface);
    let mode = match index {
        Some(index) => pg(dp, index)?.mode(),
        None => PgMode::Ethernet,
    };
    if let Some(other) = dp.pg.values().find(|p| p.streams().iter().any(|s| s.name == script.name)) {
        return Err(CliError::new(format!("{} has a stream `{}' already", other.name(), script.name)));
    }
    let input = mode.input_node();
    if let Some(node) = script.node.as_deref().filter(|n| *n != input) {
        return Err(CliError::new(format!("streams of {} go to {input}, not to {node}", script.interface)));
    }
    let name = script.interface.clone();
    let config = script.into_config(mode)?;
    let Some(index) = index else {
        // Only a stream that can be played makes the interface that it names.
        let index = dp.create_pg(&name, mode)?;
        let added = pg(dp, index)?.add(config);
        if added.is_err() {
            dp.delete_interface(index)?;
        }
        return Ok(added?);
    };
    Ok(pg(dp, index)?.add(config)?)
}

fn each(dp: &mut Dataplane, args: &Args, on: bool) -> Done {
    match args.opt::<String>("stream")? {
        None if on => dp.pg.values_mut().for_each(PgInterface::enable_all),
        None => dp.pg.values_mut().for_each(PgInterface::disable_all),
        Some(name) => {
            let owner = owner(dp, &name)?;
            if on { owner.enable(&name) } else { owner.disable(&name) }.about("stream")?;
        }
    }
    Ok(())
}

fn owner<'a>(dp: &'a mut Dataplane, stream: &str) -> Result<&'a mut PgInterface, CliError> {
    let found = dp.pg.values_mut().find(|pg| pg.streams().iter().any(|s| s.name == stream));
    found.ok_or_else(|| CliError::new(format!("there is no stream `{stream}'")).about("stream"))
}

fn enable(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    each(dp, args, true)
}

fn disable(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    each(dp, args, false)
}

fn remove(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let name = args.text("stream")?;
    owner(dp, &name)?.delete(&name).about("stream")
}

fn capture(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let pg = pg(dp, SwIfIndex(args.interface("interface")?))?;
    if args.flag("disable") {
        // As VPP has it, also when there is none.
        if let Some(info) = pg.stop_capture() {
            out.line(format!("{} packets written to {}", info.packets, info.file.display()));
        }
        return Ok(());
    }
    let mut config = CaptureConfig::new(args.text("pcap")?);
    config.max_packets = args.opt::<u64>("count")?.unwrap_or(0);
    pg.start_capture(config).about("pcap")
}

#[derive(Serialize)]
struct StreamRow {
    interface: String,
    name: String,
    enabled: bool,
    done: bool,
    limit: u64,
    rate: f64,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct CaptureRow {
    interface: String,
    file: String,
    running: bool,
    packets: u64,
    dropped: u64,
    error: Option<String>,
}

fn show(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut streams = Vec::new();
    let mut captures = Vec::new();
    for pg in dp.pg.values() {
        let interface = pg.name().to_owned();
        streams.extend(pg.streams().into_iter().map(|s| StreamRow {
            interface: interface.clone(),
            name: s.name,
            enabled: s.enabled,
            done: s.done,
            limit: s.limit,
            rate: s.rate,
            packets: s.packets,
            bytes: s.bytes,
        }));
        captures.extend(pg.capture().map(|c| CaptureRow {
            interface,
            file: c.file.display().to_string(),
            running: c.running,
            packets: c.packets,
            dropped: c.dropped,
            error: c.error,
        }));
    }
    out.show(&(streams, captures), |(streams, captures), text| {
        let header = Row::new(text).centre(14, "Name").centre(12, "Enabled").centre(16, "Count");
        header.centre(16, "Limit").centre(16, "Interface").end();
        for row in streams {
            let enabled = if row.done {
                "Done"
            } else if row.enabled {
                "Yes"
            } else {
                "No"
            };
            let line = Row::new(text).left(14, &row.name).centre(12, enabled).right(16, row.packets);
            line.right(16, row.limit).centre(16, &row.interface).end();
        }
        for row in captures {
            let state = if row.running { "capturing" } else { "captured" };
            let _ = writeln!(
                text,
                "{}: {state} {} packets, {} dropped, {}",
                row.interface, row.packets, row.dropped, row.file
            );
            if let Some(error) = &row.error {
                let _ = writeln!(text, "{}: {error}", row.interface);
            }
        }
    })
}
