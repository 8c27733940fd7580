//! Commands about the packet generator.

use super::{Done, index};
use crate::cli::{About, Args, CliError, Command, Hold, Looks, Output, Row, Shown, in_turn};
use crate::dataplane::Dataplane;
use crate::interface::delete_interface;
use serde::Serialize;
use std::fmt::Write;
use std::time::{Duration, Instant};
use wharf_drivers::pg::{CaptureConfig, PgInterface, PgMode, StreamScript};
use wharf_engine::SwIfIndex;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create packet-generator interface",
        "<name:word> [mode {ethernet|ip4}]",
        "Create a packet generator interface",
        create,
    ),
    Command::long(
        "delete packet-generator interface",
        "<interface>",
        "Delete a packet generator interface",
        delete,
    ),
    Command::long("packet-generator new", "<stream:line>", "Create a stream; it plays once enabled", new),
    Command::new("packet-generator enable-stream", "[<stream:word>]", "Play a stream, or all", enable),
    Command::new("packet-generator disable-stream", "[<stream:word>]", "Stop a stream, or all", disable),
    Command::new("packet-generator delete", "<stream:word>", "Delete a stream", remove),
    Command::long(
        "packet-generator capture",
        "<interface> [disable] [pcap <path>] [count <n>]",
        "Write what the interface sends into a file",
        capture,
    ),
    Command::long_show("show packet-generator", "[verbose]", "Show streams and captures", show),
];

/// A worker that is slower is not waited for.
const SETTLED: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(50);

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

fn delete(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Done {
    let index = index(args)?;
    in_turn(on, |dp| pg(dp, index).map(drop))?;
    delete_interface(on, index)
}

fn new(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Done {
    add_stream(on, args).about("stream")
}

/// The file is read between two turns.
fn add_stream(on: &mut dyn Hold<Dataplane>, args: &Args) -> Done {
    let script: StreamScript = args.text("stream")?.parse()?;
    let interface = script.interface.clone();
    let mode = in_turn(on, |dp| check_stream(dp, &script))?;
    let config = script.into_config(mode)?;
    in_turn(on, |dp| {
        let Some(index) = dp.find_interface(&interface) else {
            // Only a stream that can be played makes the interface that it names.
            let index = dp.create_pg(&interface, mode)?;
            let added = pg(dp, index)?.add(config);
            if added.is_err() {
                dp.delete_interface(index)?;
            }
            return Ok(added?);
        };
        check_name(dp, &config.name)?;
        let pg = pg(dp, index)?;
        match pg.mode() == mode {
            true => Ok(pg.add(config)?),
            false => Err(CliError::new(format!("{interface} has become another one"))),
        }
    })
}

/// Streams are known by their names alone.
fn check_name(dp: &Dataplane, name: &str) -> Done {
    match dp.pg.values().find(|p| p.streams().iter().any(|s| s.name == name)) {
        Some(other) => Err(CliError::new(format!("{} has a stream `{name}' already", other.name()))),
        None => Ok(()),
    }
}

/// The mode of the interface that a stream is for, which may come with it.
fn check_stream(dp: &mut Dataplane, script: &StreamScript) -> Result<PgMode, CliError> {
    let mode = match dp.find_interface(&script.interface) {
        Some(index) => pg(dp, index)?.mode(),
        None => PgMode::Ethernet,
    };
    check_name(dp, &script.name)?;
    let input = mode.input_node();
    match script.node.as_deref().filter(|node| *node != input) {
        Some(node) => {
            let name = &script.interface;
            Err(CliError::new(format!("streams of {name} go to {input}, not to {node}")))
        }
        None => Ok(mode),
    }
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

fn capture(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Done {
    if args.flag("disable") {
        // What was sent before must be in the file.
        settle(|look| in_turn(on, |dp| Ok(look(dp))))?;
    }
    in_turn(on, |dp| set_capture(dp, args, out))
}

/// Waits until what the workers had in hand has gone its way, also from one to another. `turn` gives the dataplane.
fn settle(mut turn: impl FnMut(&dyn Fn(&Dataplane) -> bool) -> Result<bool, CliError>) -> Done {
    for _ in 0..2 {
        turn(&|dp| {
            dp.begin_to_settle();
            true
        })?;
        let until = Instant::now() + SETTLED;
        while !turn(&Dataplane::is_settled)? && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn set_capture(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let pg = pg(dp, index(args)?)?;
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

fn show(looks: &mut Looks<'_, Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut streams = Vec::new();
    let mut captures = Vec::new();
    looks.look(|dp| {
        for pg in dp.pg.values() {
            streams.extend(pg.streams().into_iter().map(|s| StreamRow {
                interface: pg.name().to_owned(),
                name: s.name,
                enabled: s.enabled,
                done: s.done,
                limit: s.limit,
                rate: s.rate,
                packets: s.packets,
                bytes: s.bytes,
            }));
        }
        Ok(())
    })?;
    // As in VPP, what a stream that is done has sent is in the files when that is said.
    settle(|look| looks.look(|dp| Ok(look(dp))))?;
    looks.look(|dp| {
        for pg in dp.pg.values() {
            captures.extend(pg.capture().map(|c| CaptureRow {
                interface: pg.name().to_owned(),
                file: c.file.display().to_string(),
                running: c.running,
                packets: c.packets,
                dropped: c.dropped,
                error: c.error,
            }));
        }
        Ok(())
    })?;
    let verbose = args.flag("verbose");
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
            if verbose {
                let _ =
                    writeln!(text, "  {} bytes, {} packets a second at most (0: any)", row.bytes, row.rate);
            }
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
