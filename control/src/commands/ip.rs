//! Commands about IPv4: routes, tables, neighbours, ping.

use super::{Done, prefix4};
use crate::cli::{Args, CliError, Command, Hold, Looks, Output, Row, Shown, in_turn};
use crate::dataplane::Dataplane;
use crate::ip4::{NeighbourState, RouteSource, Via};
use serde::Serialize;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::MacAddress;
use wharf_nodes::wire::ip4::Ip4Prefix;

const ROUTE: &str =
    "[count <n>] <prefix> [table <u32>] {via {<next-hop:ip4> [<interface>]|<interface>|drop|punt|local}}";

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::long("ip route add", ROUTE, "Add a route, or `count' routes of one length in a row", route_add),
    Command::long(
        "ip route del",
        "[count <n>] <prefix> [table <u32>] [via <rest:line>]",
        "Delete a route",
        route_del,
    ),
    Command::new("ip table add", "<table:u32>", "Create an IPv4 table", table_add),
    Command::new("ip table del", "<table:u32>", "Delete an IPv4 table", table_del),
    Command::new("ip neighbor", NEIGHBOUR, "Set a neighbour's MAC address", neighbour),
    Command::new("set ip neighbor", NEIGHBOUR, "Set a neighbour's MAC address", neighbour),
    Command::new("ip neighbor del", "<interface> <ip4>", "Forget a neighbour", neighbour_del),
    Command::new("set ip neighbor del", "<interface> <ip4>", "Forget a neighbour", neighbour_del),
    Command::new(
        "set ip neighbor-config",
        "ip4 age <seconds:u32>",
        "Age at which neighbours are probed; 0 never",
        neighbour_config,
    ),
    Command::new(
        "ping",
        "[ipv4] <ip4> [source <interface>] [size <1-1400>] [repeat <1-100000>] [interval <float>] [verbose]",
        "Send ICMP echo requests",
        ping,
    ),
    Command::long_show("show ip fib", "[table <u32>] [summary] [<prefix>]", "Show routes", show_fib),
    Command::show("show ip neighbors", "[<interface>]", "Show neighbours", show_neighbours),
    Command::show("show ip table", "", "Show IPv4 tables", show_tables),
];

const NEIGHBOUR: &str = "<interface> <ip4> <mac> [static] [no-fib-entry]";

/// The `n`-th prefix after `first`, of the same length.
fn nth(first: Ip4Prefix, n: u64) -> Result<Ip4Prefix, CliError> {
    let step = 1u64 << (32 - u32::from(first.len()));
    match u32::try_from(u64::from(first.to_bits()) + n * step) {
        Ok(bits) => Ok(Ip4Prefix::clamped(Ipv4Addr::from_bits(bits), first.len())),
        Err(_) => {
            let last = (u64::from(u32::MAX) - u64::from(first.to_bits())) / step;
            let error = CliError::new(format!("there are only {} prefixes from {first} on", last + 1));
            Err(error.about("count"))
        }
    }
}

fn first_and_count(args: &Args) -> Result<(Ip4Prefix, u64), CliError> {
    let (address, len) = prefix4(args.prefix("prefix")?)?;
    let first = Ip4Prefix::clamped(address, len);
    let count = args.opt::<u64>("count")?.unwrap_or(1);
    if count == 0 || count > crate::ip4::MAX_ROUTES as u64 {
        let error = format!("count must be from 1 to {}, got {count}", crate::ip4::MAX_ROUTES);
        return Err(CliError::new(error).about("count"));
    }
    nth(first, count - 1)?;
    Ok((first, count))
}

fn via(dp: &Dataplane, table: u32, args: &Args) -> Result<Via, CliError> {
    let interface = args.opt_interface("interface")?.map(SwIfIndex);
    if let Some(next_hop) = args.opt::<Ipv4Addr>("next-hop")? {
        let found = interface.or_else(|| dp.resolve(table, next_hop));
        return match found {
            Some(interface) => Ok(Via::NextHop(next_hop, interface)),
            None => {
                let error = format!(
                    "next hop {next_hop} is in no connected subnet of table {table}; name its interface"
                );
                Err(CliError::new(error).about("next-hop"))
            }
        };
    }
    match interface {
        Some(interface) => Ok(Via::Attached(interface)),
        None if args.flag("drop") => Ok(Via::Drop),
        None if args.flag("punt") => Ok(Via::Punt),
        None => Ok(Via::Local(SwIfIndex::LOCAL)),
    }
}

/// Routes of a piece of work.
const PIECE: u64 = 1024;

/// Does something with `count` routes, a piece at a time.
fn routes(
    on: &mut dyn Hold<Dataplane>,
    args: &Args,
    out: &mut Output<'_>,
    mut work: impl FnMut(&mut Dataplane, std::ops::Range<u64>) -> Done,
) -> Done {
    let (_, count) = first_and_count(args)?;
    let mut from = 0;
    while from < count {
        let to = count.min(from + PIECE);
        in_turn(on, |dp| work(dp, from..to))?;
        from = to;
        if count > 10_000 {
            out.progress(&format!("{}% {from} of {count} routes", from * 100 / count));
        }
    }
    Ok(())
}

fn route_add(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Done {
    let (first, _) = first_and_count(args)?;
    let table = args.opt::<u32>("table")?.unwrap_or(0);
    routes(on, args, out, |dp, mut piece| {
        let via = via(dp, table, args)?;
        // It may have been deleted since the line was read.
        via.interface().map_or(Ok(()), |interface| dp.record(interface).map(drop))?;
        piece.try_for_each(|n| Ok(dp.add_route(table, nth(first, n)?, RouteSource::Cli, via)?))
    })
}

fn route_del(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Done {
    let (first, _) = first_and_count(args)?;
    let table = args.opt::<u32>("table")?.unwrap_or(0);
    routes(on, args, out, |dp, mut piece| {
        piece.try_for_each(|n| Ok(dp.delete_route(table, nth(first, n)?, RouteSource::Cli)?))
    })
}

fn table_add(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.add_table(args.u32("table")?)?)
}

fn table_del(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.delete_table(args.u32("table")?)?)
}

fn neighbour(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let (interface, address) = (SwIfIndex(args.interface("interface")?), args.ip4("ip4")?);
    let mac = MacAddress(args.mac("mac")?);
    // Behind a tunnel, or on a link of host addresses, neighbours are in no subnet: then the operator says that it is meant.
    let record = dp.record(interface)?;
    let own = record.addresses.iter().any(|(own, _)| *own == address);
    if !record.can_arp(address) && (own || !args.flag("static")) {
        let name = dp.interface_name(interface);
        let error = CliError::new(format!("{address} is not a neighbour's address on {name}"));
        return Err(error.about("ip4"));
    }
    // What is typed is meant to stay: VPP ages such entries only when asked to.
    Ok(dp.set_neighbour(interface, address, mac, true, !args.flag("no-fib-entry"), Instant::now())?)
}

fn neighbour_del(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let (interface, address) = (SwIfIndex(args.interface("interface")?), args.ip4("ip4")?);
    if dp.neighbours.get(interface, address).is_none() {
        let name = dp.interface_name(interface);
        return Err(CliError::new(format!("{name} has no neighbour {address}")).about("ip4"));
    }
    dp.forget_neighbour(interface, address);
    Ok(())
}

fn neighbour_config(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let seconds = args.u32("seconds").or_else(|_| args.u32("age"))?;
    dp.set_neighbour_age(seconds);
    Ok(())
}

fn ping(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let interval = args.opt::<f64>("interval")?.unwrap_or(1.0);
    if !(0.001..=3600.0).contains(&interval) {
        let error = CliError::new(format!("interval must be from 0.001 to 3600 seconds, got {interval}"));
        return Err(error.about("interval"));
    }
    let source = args.opt_interface("source")?.map(SwIfIndex);
    let size = args.opt::<u16>("size")?.unwrap_or(88);
    let repeat = args.opt::<u32>("repeat")?.unwrap_or(5);
    let job = dp.ping(args.ip4("ip4")?, source, size, repeat, Duration::from_secs_f64(interval))?;
    dp.jobs.push(job);
    Ok(())
}

#[derive(Serialize)]
struct FibTable {
    table: u32,
    fib_index: u32,
    routes: Vec<FibRow>,
    by_length: Vec<(usize, usize)>,
    memory_bytes: usize,
}

#[derive(Serialize)]
struct FibRow {
    prefix: String,
    via: String,
    adjacency: u32,
    packets: u64,
    bytes: u64,
}

fn via_text(dp: &Dataplane, via: Via) -> String {
    let name = |i| dp.interface_name(i);
    match via {
        Via::Drop => "dpo-drop ip4".into(),
        Via::Punt => "dpo-punt ip4".into(),
        Via::Local(i) => format!("dpo-receive: {}", name(i)),
        Via::Attached(i) => {
            let mtu = dp.record(i).map_or(0, |r| r.mtu);
            format!("ipv4-glean: {}: mtu:{mtu}", name(i))
        }
        Via::NextHop(address, i) => {
            let (mtu, own) = dp.record(i).map_or((0, MacAddress::ZERO), |r| (r.mtu, r.mac));
            let known = dp.neighbours.get(i, address).filter(|n| n.state != NeighbourState::Incomplete);
            match known {
                Some(neighbour) => {
                    let hex = |mac: MacAddress| mac.0.iter().map(|b| format!("{b:02x}")).collect::<String>();
                    let rewrite = format!("{}{}0800", hex(neighbour.mac), hex(own));
                    format!("ipv4 via {address} {}: mtu:{mtu} {rewrite}", name(i))
                }
                None => format!("arp-ipv4: via {address} {}", name(i)),
            }
        }
    }
}

/// Adds the rows of a piece of a table, behind `last`; the place to go on from, if there may be more.
fn fib_rows(
    dp: &Dataplane,
    table: u32,
    wanted: Option<(Ipv4Addr, u8)>,
    last: Option<Ip4Prefix>,
    rows: &mut Vec<FibRow>,
) -> Option<Ip4Prefix> {
    let routes = dp.fibs.get(&table)?.routes();
    let row = |(prefix, route): (Ip4Prefix, &crate::ip4::Route)| {
        let best = route.best();
        let count = dp.route_count(route);
        FibRow {
            prefix: prefix.to_string(),
            via: via_text(dp, best.via),
            adjacency: best.adjacency,
            packets: count.packets,
            bytes: count.bytes,
        }
    };
    match wanted {
        Some((address, 32)) => rows.extend(routes.lookup(address).map(row)),
        Some((address, len)) => {
            let prefix = Ip4Prefix::clamped(address, len);
            rows.extend(routes.get(prefix).map(|route| row((prefix, route))));
        }
        None => {
            let mut to = None;
            let piece = routes.iter_after(last).take(PIECE as usize);
            rows.extend(piece.inspect(|(prefix, _)| to = Some(*prefix)).map(row));
            return to;
        }
    }
    None
}

fn show_fib(looks: &mut Looks<'_, Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt::<u32>("table")?;
    let wanted = args.opt::<crate::cli::Prefix>("prefix")?.map(prefix4).transpose()?;
    let summary = args.flag("summary");
    let numbers = looks.look(|dp| Ok(dp.fibs.keys().copied().collect::<Vec<u32>>()))?;
    let mut tables = Vec::new();
    for table in numbers.into_iter().filter(|table| only.is_none_or(|only| only == *table)) {
        let mut rows = Vec::new();
        let mut last = None;
        // What comes or goes meanwhile may be shown, or not.
        let mut more = !summary;
        while more {
            last = looks.look(|dp| Ok(fib_rows(dp, table, wanted, last, &mut rows)))?;
            more = last.is_some();
        }
        let shown = looks.look(|dp| {
            let Some(fib) = dp.fibs.get(&table) else { return Ok(None) };
            let lengths = fib.routes().count_by_len().iter().copied().enumerate().filter(|(_, n)| *n != 0);
            let (compiled, rib) = fib.memory_bytes();
            let memory_bytes = compiled + rib;
            Ok(Some(FibTable {
                table,
                fib_index: fib.index,
                routes: rows,
                by_length: lengths.collect(),
                memory_bytes,
            }))
        })?;
        tables.extend(shown);
    }
    if let (Some(table), true) = (only, tables.is_empty()) {
        return Err(CliError::new(format!("there is no IPv4 table {table}")).about("table"));
    }
    out.show(&tables, |tables, text| {
        for table in tables {
            let _ = writeln!(text, "ipv4-VRF:{}, fib_index:{}", table.table, table.fib_index);
            if summary {
                Row::new(text).centre(20, "Prefix length").centre(16, "Count").end();
                for (len, count) in &table.by_length {
                    Row::new(text).right(20, len).right(16, count).end();
                }
                let _ = writeln!(text, "memory: {} bytes", table.memory_bytes);
            }
            for row in &table.routes {
                let _ = writeln!(
                    text,
                    "{}\n  unicast-ip4-chain\n  [@{}]: {}",
                    row.prefix, row.adjacency, row.via
                );
                if row.packets != 0 {
                    let _ = writeln!(text, "    to:[{}:{}]", row.packets, row.bytes);
                }
            }
        }
    })
}

#[derive(Serialize)]
struct NeighbourRow {
    age_seconds: f64,
    ip: String,
    flags: &'static str,
    mac: String,
    interface: String,
}

fn show_neighbours(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt_interface("interface")?.map(SwIfIndex);
    let now = Instant::now();
    let rows: Vec<NeighbourRow> = (dp.neighbours.iter())
        .filter(|(i, _, _)| only.is_none_or(|o| o == *i))
        .map(|(i, address, n)| NeighbourRow {
            age_seconds: now.saturating_duration_since(n.updated).as_secs_f64(),
            ip: address.to_string(),
            flags: match (n.state, n.in_fib) {
                (NeighbourState::Incomplete, _) => "P",
                (NeighbourState::Static, true) => "S",
                (NeighbourState::Static, false) => "SN",
                (NeighbourState::Dynamic, _) => "D",
                (NeighbourState::Probing, _) => "DA",
            },
            mac: n.mac.to_string(),
            interface: dp.interface_name(i),
        })
        .collect();
    out.show(&rows, |rows, text| {
        let header = Row::new(text).centre(12, "Age").centre(40, "IP").centre(6, "Flags");
        header.centre(20, "Ethernet").centre(24, "Interface").end();
        for row in rows {
            let line = Row::new(text).centre(12, format!("{:.4}", row.age_seconds)).centre(40, &row.ip);
            line.centre(6, row.flags).centre(20, &row.mac).centre(24, &row.interface).end();
        }
    })
}

#[derive(Serialize)]
struct TableRow {
    table: u32,
    routes: usize,
    memory_bytes: usize,
}

fn show_tables(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |(table, fib): (&u32, &crate::ip4::Fib)| {
        let (compiled, rib) = fib.memory_bytes();
        TableRow { table: *table, routes: fib.routes().len(), memory_bytes: compiled + rib }
    };
    let rows: Vec<TableRow> = dp.fibs.iter().map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ =
                writeln!(text, "table_id:{} routes:{} memory:{}", row.table, row.routes, row.memory_bytes);
        }
    })
}
