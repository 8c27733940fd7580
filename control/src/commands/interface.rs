//! Commands about interfaces.

use super::{Done, index, prefix4};
use crate::cli::{About, Args, CliError, Command, Hold, Output, Row, Shown};
use crate::dataplane::{Dataplane, OpError};
use crate::interface::{Interface, delete_interface};
use crate::l2::L2Mode;
use serde::Serialize;
use std::fmt::Write;
use wharf_engine::device::RxMode;
use wharf_engine::{EngineError, SwIfIndex};
use wharf_nodes::wire::MacAddress;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create loopback interface",
        "[mac <mac>] [instance <u32>]",
        "Create a loopback interface",
        create_loopback,
    ),
    Command::long(
        "delete loopback interface",
        "intfc <interface:interface>",
        "Delete a loopback interface",
        delete,
    ),
    Command::long("delete interface", "<interface>", "Delete an interface of any kind", delete),
    Command::new("set interface state", "<interface> {up|down}", "Bring an interface up or down", state),
    Command::new("set interface mtu", "[packet|ip4] <mtu:n> <interface>", "Set the longest IP packet", mtu),
    Command::new("set interface mac address", "<interface> <mac>", "Set the MAC address", mac),
    Command::new(
        "set interface ip address",
        "[del] <interface> <prefix>",
        "Add or delete an IP address",
        address,
    ),
    Command::new(
        "set interface ip table",
        "<interface> <table:u32>",
        "Put an interface into an IPv4 table",
        table,
    ),
    Command::new(
        "set interface tag",
        "<interface> <tag:word>",
        "Attach a text to an interface, for controllers",
        |dp, args, _| {
            let tag = super::tag(args.text("tag")?).about("tag")?;
            Ok(dp.set_tag(index(args)?, tag)?)
        },
    ),
    // VPP's word has no `s'; two words would make `clear int' ambiguous.
    Command::new("clear interfaces tag", "<interface>", "Take an interface's text away", |dp, args, _| {
        Ok(dp.set_tag(index(args)?, String::new())?)
    }),
    Command::new(
        "set interface rx-mode",
        "<interface> [queue <u32>] {polling|interrupt|adaptive}",
        "Set when receive queues are looked at",
        rx_mode,
    ),
    Command::new(
        "set interface rx-placement",
        "<interface> [queue <u32>] worker <u32>",
        "Move receive queues to a worker",
        placement,
    ),
    Command::new(
        "set interface feature",
        "<interface> <feature:word> arc <arc:word> [disable]",
        "Switch a feature on or off",
        feature,
    ),
    Command::new("clear interfaces", "", "Count interfaces from zero", clear),
    Command::show("show interface", "[<interface>]", "Show interfaces and their counters", show),
    Command::show("show interface address", "[<interface>]", "Show addresses and L2 modes", show_address),
    Command::show(
        "show interface rx-placement",
        "",
        "Show which worker has which receive queue",
        show_placement,
    ),
    Command::show(
        "show interface features",
        "<interface>",
        "Show the features of an interface, arc by arc",
        show_features,
    ),
    Command::show(
        "show hardware-interfaces",
        "[<interface>] [brief|verbose|detail]",
        "Show devices and their queues",
        show_hardware,
    ),
    Command::show("show mode", "[<interface>]", "Show the L2 or L3 mode of interfaces", show_mode),
];

fn create_loopback(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let mac = args.opt::<[u8; 6]>("mac")?.map(MacAddress);
    let index = dp.create_loopback(mac, args.opt::<u32>("instance")?).about("instance")?;
    out.line(dp.interface_name(index));
    Ok(())
}

fn delete(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Done {
    delete_interface(on, index(args)?)
}

fn state(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_state(index(args)?, args.flag("up"))?)
}

fn mtu(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_mtu(index(args)?, args.get::<u32>("mtu")?)?)
}

fn mac(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_mac(index(args)?, MacAddress(args.mac("mac")?))?)
}

fn address(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let (address, len) = prefix4(args.prefix("prefix")?)?;
    match args.flag("del") {
        true => Ok(dp.delete_address(index(args)?, address, len)?),
        false => Ok(dp.add_address(index(args)?, address, len)?),
    }
}

fn table(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_table(index(args)?, args.u32("table")?)?)
}

fn rx_mode(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let mode = match () {
        () if args.flag("polling") => RxMode::Polling,
        () if args.flag("interrupt") => RxMode::Interrupt,
        () => RxMode::Adaptive,
    };
    Ok(dp.set_rx_mode(index(args)?, args.opt::<u32>("queue")?, mode)?)
}

fn placement(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_placement(index(args)?, args.opt::<u32>("queue")?, args.u32("worker")?)?)
}

fn feature(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let (arc, feature, on) = (args.text("arc")?, args.text("feature")?, !args.flag("disable"));
    let result = dp.set_feature(index(args)?, &arc, &feature, on);
    let unknown_arc = matches!(result, Err(OpError::Engine(EngineError::UnknownArc(_))));
    let about = if unknown_arc { "arc" } else { "feature" };
    result.about(about)
}

fn clear(dp: &mut Dataplane, _: &Args, _: &mut Output<'_>) -> Done {
    dp.interfaces.keys().for_each(|i| dp.engine.counters().clear(i.0));
    Ok(())
}

fn chosen(dp: &Dataplane, args: &Args) -> Result<Vec<(SwIfIndex, Interface)>, CliError> {
    let only = args.opt_interface("interface")?.map(SwIfIndex);
    let all = dp.interfaces.iter().filter(|(i, _)| only.is_none_or(|o| o == **i));
    let mut list: Vec<_> = all.map(|(i, r)| (*i, r.clone())).collect();
    list.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    Ok(list)
}

fn up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

#[derive(Serialize)]
struct InterfaceRow {
    name: String,
    sw_if_index: u32,
    admin: &'static str,
    link: &'static str,
    mtu: u16,
    mac: String,
    counters: Vec<(String, u64)>,
}

fn show(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows: Vec<InterfaceRow> = chosen(dp, args)?.into_iter().map(|(i, r)| row(dp, i, r)).collect();
    out.show(&rows, |rows, text| {
        let header = Row::new(text).centre(32, "Name").centre(5, "Idx").centre(10, "State");
        header.centre(21, "MTU (L3/IP4/IP6/MPLS)").centre(16, "Counter").centre(16, "Count").end();
        for row in rows {
            let mut line =
                Row::new(text).left(32, &row.name).centre(5, row.sw_if_index).centre(10, row.admin);
            line = line.centre(21, format!("{}/0/0/0", row.mtu));
            for (i, (name, count)) in row.counters.iter().enumerate() {
                if i != 0 {
                    line.end();
                    line = Row::new(text).text(" ".repeat(68));
                }
                line = line.left(16, name).right(16, count);
            }
            line.end();
        }
    })
}

fn row(dp: &Dataplane, index: SwIfIndex, record: Interface) -> InterfaceRow {
    let mut counters: Vec<(String, u64)> = Vec::new();
    let mut add = |name: String, count| match counters.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum += count,
        None => counters.push((name, count)),
    };
    for (name, counter) in dp.engine.counters().all() {
        let count = counter.get(index.0);
        match name {
            "rx" | "tx" => {
                add(format!("{name} packets"), count.packets);
                add(format!("{name} bytes"), count.bytes);
            }
            _ => add(name.to_owned(), count.packets),
        }
    }
    counters.retain(|(_, count)| *count != 0);
    InterfaceRow {
        name: record.name,
        sw_if_index: index.0,
        admin: up(record.admin_up),
        link: up(record.link_up),
        mtu: record.mtu,
        mac: record.mac.to_string(),
        counters,
    }
}

#[derive(Serialize)]
struct AddressRow {
    name: String,
    admin: &'static str,
    l2: Option<String>,
    table: u32,
    addresses: Vec<String>,
}

fn show_address(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows: Vec<AddressRow> = (chosen(dp, args)?.into_iter())
        .map(|(_, r)| AddressRow {
            name: r.name,
            admin: if r.admin_up { "up" } else { "dn" },
            l2: match r.mode {
                L2Mode::Xconnect(peer) => Some(format!("xconnect {}", dp.interface_name(peer))),
                L2Mode::Bridge { domain, shg, .. } => {
                    let index = dp.bridges.get(&domain).map_or(0, |d| d.index);
                    let bvi = if r.mode.is_bvi() { " bvi" } else { "" };
                    Some(format!("bridge bd-id {domain} idx {index} shg {shg}{bvi}"))
                }
                L2Mode::L3 => None,
            },
            table: r.table,
            addresses: r.addresses.iter().map(|(a, len)| format!("{a}/{len}")).collect(),
        })
        .collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "{} ({}):", row.name, row.admin);
            if let Some(l2) = &row.l2 {
                let _ = writeln!(text, "  L2 {l2}");
            }
            for address in &row.addresses {
                let table =
                    if row.table == 0 { String::new() } else { format!(" ip4 table-id {}", row.table) };
                let _ = writeln!(text, "  L3 {address}{table}");
            }
        }
    })
}

#[derive(Serialize)]
struct PlacementRow {
    worker: u16,
    node: &'static str,
    interface: String,
    queue: u16,
    mode: String,
}

fn placements(dp: &Dataplane) -> Vec<PlacementRow> {
    let row = |i: &wharf_engine::engine::InputRecord| PlacementRow {
        worker: i.worker.0,
        node: i.node,
        interface: dp.interface_name(i.interface),
        queue: i.queue,
        mode: i.mode.to_string(),
    };
    let mut rows: Vec<_> = dp.engine.inputs().iter().map(row).collect();
    rows.sort_by(|a, b| {
        (a.worker, a.node, &a.interface, a.queue).cmp(&(b.worker, b.node, &b.interface, b.queue))
    });
    rows
}

fn show_placement(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    out.show(&placements(dp), |rows, text| {
        let mut last = None;
        for row in rows {
            if last.map(|(w, _)| w) != Some(row.worker) {
                let _ = writeln!(text, "Thread {} (wharf_wk_{}):", row.worker + 1, row.worker);
            }
            if last != Some((row.worker, row.node)) {
                let _ = writeln!(text, " node {}:", row.node);
            }
            last = Some((row.worker, row.node));
            let _ = writeln!(text, "    {} queue {} ({})", row.interface, row.queue, row.mode);
        }
    })
}

#[derive(Serialize)]
struct ArcRow {
    arc: &'static str,
    features: Vec<&'static str>,
}

fn show_features(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows: Vec<ArcRow> = dp
        .engine
        .features(index(args)?)
        .into_iter()
        .map(|(arc, features)| ArcRow { arc, features })
        .collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "{}:", row.arc);
            match row.features.is_empty() {
                true => text.push_str("  none configured\n"),
                false => row.features.iter().for_each(|f| {
                    let _ = writeln!(text, "  {f}");
                }),
            }
        }
    })
}

#[derive(Serialize)]
struct HardwareRow {
    name: String,
    sw_if_index: u32,
    link: &'static str,
    hardware: &'static str,
    mac: String,
    rx_queues: Vec<PlacementRow>,
    tx_workers: Vec<u16>,
}

fn show_hardware(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows: Vec<HardwareRow> = (chosen(dp, args)?.into_iter())
        .map(|(i, r)| HardwareRow {
            sw_if_index: i.0,
            link: up(r.link_up),
            hardware: r.kind.hardware(),
            mac: r.mac.to_string(),
            rx_queues: placements(dp).into_iter().filter(|p| p.interface == r.name).collect(),
            tx_workers: dp.engine.device_nodes().filter(|d| d.0 == i).map(|d| d.1.0).collect(),
            name: r.name,
        })
        .collect();
    out.show(&rows, |rows, text| {
        Row::new(text).centre(32, "Name").centre(6, "Idx").centre(8, "Link").text("Hardware").end();
        for row in rows {
            let line = Row::new(text).left(32, &row.name).centre(6, row.sw_if_index).centre(8, row.link);
            line.text(row.hardware).end();
            let _ = writeln!(text, "  Ethernet address {}", row.mac);
            if !row.rx_queues.is_empty() {
                text.push_str("  RX Queues:\n    queue thread         mode      \n");
            }
            for queue in &row.rx_queues {
                let _ = writeln!(
                    text,
                    "    {:<6}{:<15}{}",
                    queue.queue,
                    format!("wk_{} ({})", queue.worker, queue.worker + 1),
                    queue.mode
                );
            }
            if !row.tx_workers.is_empty() {
                text.push_str("  TX Queues:\n    queue shared thread(s)\n");
            }
            for (queue, worker) in row.tx_workers.iter().enumerate() {
                let _ = writeln!(text, "    {queue:<6}no     {}", worker + 1);
            }
        }
    })
}

#[derive(Serialize)]
struct ModeRow {
    name: String,
    mode: &'static str,
    peer: Option<String>,
    bd_id: Option<u32>,
    bvi: bool,
    shg: u8,
}

fn show_mode(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let rows: Vec<ModeRow> = (chosen(dp, args)?.into_iter())
        .map(|(_, r)| ModeRow {
            mode: match r.mode {
                L2Mode::L3 => "l3",
                L2Mode::Xconnect(_) => "l2 xconnect",
                L2Mode::Bridge { .. } => "l2 bridge",
            },
            peer: match r.mode {
                L2Mode::Xconnect(peer) => Some(dp.interface_name(peer)),
                _ => None,
            },
            bd_id: r.mode.domain(),
            bvi: r.mode.is_bvi(),
            shg: if let L2Mode::Bridge { shg, .. } = r.mode { shg } else { 0 },
            name: r.name,
        })
        .collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = write!(text, "{} {}", row.mode, row.name);
            if let Some(peer) = &row.peer {
                let _ = write!(text, " {peer}");
            }
            if let Some(domain) = row.bd_id {
                let bvi = if row.bvi { " bvi" } else { "" };
                let _ = write!(text, " bd_id {domain}{bvi} shg {}", row.shg);
            }
            text.push('\n');
        }
    })
}
