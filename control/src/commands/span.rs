//! Commands that show packets elsewhere: SPAN, and captures into pcap files.

use super::{Done, index};
use crate::capture::{CaptureConfig, PacketFilter};
use crate::cli::{Args, CliError, Command, Output, Shown};
use crate::dataplane::Dataplane;
use crate::span::{Directions, SpanLayer};
use serde::Serialize;
use std::fmt::Write;
use wharf_engine::SwIfIndex;
use wharf_engine::capture::points;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "set interface span",
        "<interface> [l2] {disable|destination <destination:interface> [both|rx|tx|disable]}",
        "Copy what an interface receives or sends to another; l2: where it is bridged or cross-connected",
        span,
    ),
    Command::show("show interface span", "", "Show which interfaces get copies", show_span),
    Command::new(
        "pcap trace",
        "{off|[rx] [tx] [drop] [max <u32>] [file <path>] [intfc {any|<interface>}] [max-bytes-per-pkt <32-2048>] [ethertype <u16>] [host <ip4>] [proto <u8>] [port <u16>]}",
        "Capture packets into a pcap file, which `off' writes",
        trace,
    ),
    Command::show("show pcap trace", "", "Show whether packets are captured", show_trace),
];

fn span(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let source = index(args)?;
    let layer = if args.flag("l2") { SpanLayer::L2 } else { SpanLayer::Device };
    let Some(destination) = args.opt_interface("destination")?.map(SwIfIndex) else {
        return Ok(dp.end_spans(source, layer)?);
    };
    let none = args.flag("disable");
    let directions = Directions { rx: !none && !args.flag("tx"), tx: !none && !args.flag("rx") };
    Ok(dp.set_span(source, destination, layer, directions)?)
}

#[derive(Serialize)]
struct SpanRow {
    source: String,
    destination: String,
    device: &'static str,
    l2: &'static str,
}

fn show_span(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut pairs: Vec<_> = dp.spans.keys().map(|(from, to, _)| (*from, *to)).collect();
    pairs.dedup();
    let rows: Vec<SpanRow> = (pairs.into_iter())
        .map(|(from, to)| {
            let word = |layer| dp.spans.get(&(from, to, layer)).map_or("none", |d| d.word());
            SpanRow {
                source: dp.interface_name(from),
                destination: dp.interface_name(to),
                device: word(SpanLayer::Device),
                l2: word(SpanLayer::L2),
            }
        })
        .collect();
    out.show(&rows, |rows, text| {
        if !rows.is_empty() {
            let _ = writeln!(text, "{:<32} {:<32}  {:>6} {:>6}", "Source", "Destination", "Device", "L2");
        }
        for SpanRow { source, destination, device, l2 } in rows {
            let _ = writeln!(text, "{source:<32} {destination:<32} ({device:>6}) ({l2:>6})");
        }
    })
}

fn trace(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    if args.flag("off") {
        let (packets, file) = dp.stop_capture()?;
        out.line(format!("Write {packets} packets to {}, and stop capture...", file.display()));
        return Ok(());
    }
    let mut config = CaptureConfig::default();
    for (word, point) in [("rx", points::RX), ("tx", points::TX), ("drop", points::DROP)] {
        if args.flag(word) {
            config.points |= point;
        }
    }
    config.max = args.opt::<u32>("max")?.map_or(config.max, |max| max as usize);
    if let Some(file) = args.opt::<String>("file")? {
        config.file = file.into();
    }
    config.interface = args.opt_interface("interface")?.map(SwIfIndex);
    config.snaplen = args.opt::<u16>("max-bytes-per-pkt")?.map_or(config.snaplen, usize::from);
    config.filter = PacketFilter {
        ethertype: args.opt::<u16>("ethertype")?,
        host: args.flag("host").then(|| args.ip4("host")).transpose()?,
        protocol: args.opt::<u16>("proto")?.map(|p| p as u8),
        port: args.opt::<u16>("port")?,
    };
    dp.start_capture(config)?;
    Ok(())
}

#[derive(Serialize)]
struct TraceView {
    rx: bool,
    tx: bool,
    drop: bool,
    captured: usize,
    max: usize,
    file: String,
}

fn show_trace(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let view = dp.capture.as_ref().and_then(|config| {
        let (at, captured) = dp.engine.capture().status()?;
        let is = |point: u8| at & point != 0;
        Some(TraceView {
            rx: is(points::RX),
            tx: is(points::TX),
            drop: is(points::DROP),
            captured,
            max: config.max,
            file: config.file.display().to_string(),
        })
    });
    out.show(&view, |view, text| match view {
        None => text.push_str("No pcap capture active...\n"),
        Some(view) => {
            let on = |on: bool| if on { "on" } else { "off" };
            let _ = writeln!(
                text,
                "pcap capture: rx {} tx {} drop {}, {} of {} packets, file {}",
                on(view.rx),
                on(view.tx),
                on(view.drop),
                view.captured,
                view.max,
                view.file
            );
        }
    })
}
