//! What access lists look like: lists, where they are applied, sessions, tables, and why a packet passes or not.

use super::acl::direction;
use super::index;
use crate::acl::Outcome;
use crate::cli::{Args, CliError, Output, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::classifier::Shape;
use wharf_nodes::acl::{Direction, Fields, Tuple};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

/// Sessions that are shown unless told otherwise.
const MAX_SHOWN: usize = 100;

#[derive(Serialize)]
struct AclRow {
    index: u32,
    tag: String,
    rules: Vec<RuleRow>,
    inbound: Vec<u32>,
    outbound: Vec<u32>,
}

#[derive(Serialize)]
struct RuleRow {
    text: String,
    packets: u64,
    bytes: u64,
}

/// The indices to be shown: all, or the one that was asked for.
fn chosen<T>(
    args: &Args,
    lists: &std::collections::BTreeMap<u32, T>,
    what: &str,
) -> Result<Vec<u32>, CliError> {
    match args.opt::<u32>("index")? {
        None => Ok(lists.keys().copied().collect()),
        Some(index) if lists.contains_key(&index) => Ok(vec![index]),
        Some(index) => Err(CliError::new(format!("there is no {what} {index}")).about("index")),
    }
}

fn rule_row(dp: &Dataplane, text: String, counter: u32) -> RuleRow {
    let count = dp.acls.count(counter);
    RuleRow { text, packets: count.packets, bytes: count.bytes }
}

fn write_rules(rules: &[RuleRow], text: &mut String) {
    for (number, rule) in rules.iter().enumerate() {
        let _ = write!(text, "  {number:>9}: {}", rule.text);
        match rule.packets {
            0 => text.push('\n'),
            packets => _ = writeln!(text, " matched {packets} packets {} bytes", rule.bytes),
        }
    }
}

pub(super) fn show_acl(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let applied = |acl, direction| dp.acls.applied(acl, direction).into_iter().map(|i| i.0).collect();
    let row = |index: u32| {
        let acl = dp.acls.lists.get(&index)?;
        let rules = acl.rules.iter().zip(acl.counters());
        Some(AclRow {
            index,
            tag: acl.tag.clone(),
            rules: rules.map(|(rule, counter)| rule_row(dp, rule.to_string(), counter)).collect(),
            inbound: applied(index, Direction::Input),
            outbound: applied(index, Direction::Output),
        })
    };
    let rows: Vec<AclRow> = chosen(args, &dp.acls.lists, "acl")?.into_iter().filter_map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "acl-index {} count {} tag {{{}}}", row.index, row.rules.len(), row.tag);
            write_rules(&row.rules, text);
            for (word, list) in [("inbound", &row.inbound), ("outbound", &row.outbound)] {
                if !list.is_empty() {
                    let _ = writeln!(text, "  applied {word} on sw_if_index: {}", numbers(list));
                }
            }
        }
    })
}

fn numbers(list: &[u32]) -> String {
    list.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
struct InterfaceRow {
    sw_if_index: u32,
    interface: String,
    input: Vec<u32>,
    output: Vec<u32>,
    input_etypes: Option<Vec<u16>>,
    output_etypes: Option<Vec<u16>>,
    sessions: u32,
    max_sessions: u32,
}

pub(super) fn show_interface(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt_interface("interface")?;
    let wanted = dp.acls.bindings.iter().filter(|(i, _)| only.is_none_or(|only| only == i.0));
    let rows: Vec<InterfaceRow> = wanted
        .map(|(i, binding)| InterfaceRow {
            sw_if_index: i.0,
            interface: dp.interface_name(*i),
            input: binding.input.clone(),
            output: binding.output.clone(),
            input_etypes: binding.etypes[0].clone(),
            output_etypes: binding.etypes[1].clone(),
            sessions: dp.session_count(*i),
            max_sessions: dp.session_share(),
        })
        .collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "sw_if_index {} ({}):", row.sw_if_index, row.interface);
            for (word, list) in [("input", &row.input), ("output", &row.output)] {
                if !list.is_empty() {
                    let _ = writeln!(text, "  {word} acl(s): {}", numbers(list));
                }
            }
            for (word, list) in [("input", &row.input_etypes), ("output", &row.output_etypes)] {
                if let Some(list) = list {
                    let list: Vec<String> = list.iter().map(|etype| format!("{etype:04x}")).collect();
                    let _ = writeln!(text, "  {word} etype whitelist: {}", list.join(" "));
                }
            }
            let _ = writeln!(text, "  sessions: {} of {}", row.sessions, row.max_sessions);
        }
    })
}

#[derive(Serialize)]
struct SessionView {
    sessions: Vec<SessionLine>,
    interfaces: Vec<(String, u32)>,
    share: u32,
    max: usize,
    udp_idle_seconds: f64,
    tcp_transient_seconds: f64,
    tcp_idle_seconds: f64,
}

#[derive(Serialize)]
struct SessionLine {
    interface: String,
    direction: String,
    #[serde(flatten)]
    tuple: TupleRow,
    idle_seconds: f64,
    established: bool,
    tcp_flags_rx: u8,
    tcp_flags_tx: u8,
    acl: Option<u32>,
    rule: Option<u32>,
}

#[derive(Serialize)]
struct TupleRow {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    sport: u16,
    dport: u16,
}

impl From<&Tuple> for TupleRow {
    fn from(t: &Tuple) -> TupleRow {
        TupleRow { src: t.src, dst: t.dst, proto: t.protocol.0, sport: t.sport, dport: t.dport }
    }
}

impl std::fmt::Display for TupleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "src {} dst {} proto {} sport {} dport {}",
            self.src, self.dst, self.proto, self.sport, self.dport
        )
    }
}

pub(super) fn show_sessions(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt_interface("interface")?.map(SwIfIndex);
    let max = args.opt::<usize>("max")?.unwrap_or(MAX_SHOWN);
    let line = |row: crate::acl::SessionRow| SessionLine {
        interface: dp.interface_name(row.interface),
        direction: row.direction.to_string(),
        tuple: (&row.tuple).into(),
        idle_seconds: row.idle,
        established: row.established,
        tcp_flags_rx: row.tcp_flags[0],
        tcp_flags_tx: row.tcp_flags[1],
        acl: row.rule.map(|r| r.0),
        rule: row.rule.map(|r| r.1),
    };
    let reflecting = dp.acls.bindings.iter().filter(|(_, b)| b.reflects());
    let view = SessionView {
        sessions: dp.sessions(only, max).into_iter().map(line).collect(),
        interfaces: reflecting.map(|(i, _)| (dp.interface_name(*i), dp.session_count(*i))).collect(),
        share: dp.session_share(),
        max: dp.max_sessions(),
        udp_idle_seconds: dp.acls.timeouts.udp_idle.as_seconds(),
        tcp_transient_seconds: dp.acls.timeouts.tcp_transient.as_seconds(),
        tcp_idle_seconds: dp.acls.timeouts.tcp_idle.as_seconds(),
    };
    out.show(&view, |view, text| {
        let total: u32 = view.interfaces.iter().map(|(_, count)| count).sum();
        let _ =
            writeln!(text, "Sessions total: {total} of {}, per interface at most {}", view.max, view.share);
        let _ = writeln!(
            text,
            "Timeouts: udp idle {:.0} s, tcp transient {:.0} s, tcp idle {:.0} s",
            view.udp_idle_seconds, view.tcp_transient_seconds, view.tcp_idle_seconds
        );
        for (name, count) in &view.interfaces {
            let _ = writeln!(text, "  {name}: {count}");
        }
        for s in &view.sessions {
            let _ =
                write!(text, "    {} {} {} idle {:.1} s", s.interface, s.direction, s.tuple, s.idle_seconds);
            if s.tuple.proto == IpProtocol::TCP.0 {
                let state = if s.established { "established" } else { "transient" };
                let _ = write!(text, " {state} flags rx {:02x} tx {:02x}", s.tcp_flags_rx, s.tcp_flags_tx);
            }
            match (s.acl, s.rule) {
                (Some(acl), Some(rule)) => _ = writeln!(text, " acl {acl} rule {rule}"),
                _ => text.push_str(" acl changed since\n"),
            }
        }
    })
}

#[derive(Serialize)]
struct TableRow {
    interface: String,
    direction: String,
    acls: Vec<u32>,
    rules: usize,
    ip4: ShapeRow,
    ip6: ShapeRow,
}

#[derive(Serialize)]
struct ShapeRow {
    trees: usize,
    nodes_per_lookup: usize,
    blocks_per_lookup: usize,
    worst_steps: usize,
    typical_steps: f64,
    bytes: usize,
}

impl From<Shape> for ShapeRow {
    fn from(s: Shape) -> ShapeRow {
        ShapeRow {
            trees: s.trees,
            nodes_per_lookup: s.depth,
            blocks_per_lookup: s.blocks,
            worst_steps: s.worst,
            typical_steps: s.typical,
            bytes: s.bytes,
        }
    }
}

pub(super) fn show_tables(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut rows = Vec::new();
    for (index, binding) in &dp.acls.bindings {
        for direction in [Direction::Input, Direction::Output] {
            let Some(lists) = binding.compiled(direction) else { continue };
            let [ip4, ip6] = lists.shapes().map(ShapeRow::from);
            rows.push(TableRow {
                interface: dp.interface_name(*index),
                direction: direction.to_string(),
                acls: binding.lists(direction).to_vec(),
                rules: lists.rules().len(),
                ip4,
                ip6,
            });
        }
    }
    out.show(&rows, |rows, text| {
        for row in rows {
            let acls = numbers(&row.acls);
            let _ = writeln!(text, "{} {}: acl(s) {acls}, {} rules", row.interface, row.direction, row.rules);
            for (family, s) in [("ip4", &row.ip4), ("ip6", &row.ip6)] {
                let _ = writeln!(
                    text,
                    "  {family}: {} trees, a lookup reads at most {} nodes and {} blocks, worst {} steps, typical {:.1}, {} bytes",
                    s.trees, s.nodes_per_lookup, s.blocks_per_lookup, s.worst_steps, s.typical_steps, s.bytes
                );
            }
        }
    })
}

#[derive(Serialize)]
struct DropRow {
    time: f64,
    interface: String,
    direction: String,
    #[serde(flatten)]
    tuple: TupleRow,
    acl: Option<u32>,
    rule: Option<u32>,
}

pub(super) fn show_drops(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |d: &crate::acl::Denied| DropRow {
        time: d.time as f64 / 1e9,
        interface: dp.interface_name(d.interface),
        direction: d.direction.to_string(),
        tuple: (&d.tuple).into(),
        acl: d.rule.map(|r| r.0),
        rule: d.rule.map(|r| r.1),
    };
    let rows: Vec<DropRow> = dp.acls.denied.iter().map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = write!(text, "{:.3}: {} {} {}", row.time, row.interface, row.direction, row.tuple);
            match (row.acl, row.rule) {
                (Some(acl), Some(rule)) => _ = writeln!(text, " acl {acl} rule {rule}"),
                _ => text.push_str(" no rule matched\n"),
            }
        }
    })
}

#[derive(Serialize)]
struct MacIpRow {
    index: u32,
    tag: String,
    rules: Vec<RuleRow>,
}

pub(super) fn show_macip(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |index: u32| {
        let list = dp.acls.macips.get(&index)?;
        let rules = list.rules.iter().zip(list.counter()..);
        let rules = rules.map(|(rule, counter)| rule_row(dp, rule.to_string(), counter)).collect();
        Some(MacIpRow { index, tag: list.tag.clone(), rules })
    };
    let rows: Vec<MacIpRow> =
        chosen(args, &dp.acls.macips, "macip acl")?.into_iter().filter_map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(
                text,
                "MACIP acl_index: {}, count: {} tag {{{}}}",
                row.index,
                row.rules.len(),
                row.tag
            );
            write_rules(&row.rules, text);
        }
    })
}

#[derive(Serialize)]
struct MacIpInterfaceRow {
    sw_if_index: u32,
    interface: String,
    acl: u32,
}

pub(super) fn show_macip_interface(
    dp: &Dataplane,
    _: &Args,
    out: &mut Output<'_>,
) -> Result<Shown, CliError> {
    let row = |(i, b): (&SwIfIndex, &crate::acl::AclBinding)| {
        Some(MacIpInterfaceRow { sw_if_index: i.0, interface: dp.interface_name(*i), acl: b.macip? })
    };
    let rows: Vec<MacIpInterfaceRow> = dp.acls.bindings.iter().filter_map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "  sw_if_index {} ({}): {}", row.sw_if_index, row.interface, row.acl);
        }
    })
}

#[derive(Serialize)]
struct ExplainView {
    interface: String,
    direction: String,
    packet: String,
    lists: Vec<u32>,
    verdict: &'static str,
    why: String,
    acl: Option<u32>,
    rule: Option<u32>,
}

fn fields(args: &Args) -> Result<Fields, CliError> {
    let bits = |address| match address {
        IpAddr::V4(a) => u128::from(Ipv4Addr::to_bits(a)),
        IpAddr::V6(a) => a.to_bits(),
    };
    let (src, dst) = (args.ip("src")?, args.ip("dst")?);
    if src.is_ipv6() != dst.is_ipv6() {
        return Err(CliError::new("src and dst are of different families").about("dst"));
    }
    let protocol = args.opt::<u8>("proto")?.unwrap_or(0);
    let is_later_fragment = args.flag("fragment");
    let has_ports = Fields::protocol_has_ports(protocol, src.is_ipv6()) && !is_later_fragment;
    let port = |name| Ok::<u16, CliError>(args.opt::<u16>(name)?.unwrap_or(0));
    let (sport, dport) = (port("sport")?, port("dport")?);
    if !has_ports && (args.flag("sport") || args.flag("dport")) {
        return Err(CliError::new("a packet of this kind has no ports").about("sport").about("dport"));
    }
    let flags = args.opt::<u8>("tcpflags")?.unwrap_or(TcpFlags::SYN.0);
    Ok(Fields {
        src: bits(src),
        dst: bits(dst),
        sport,
        dport,
        protocol,
        flags: if has_ports && protocol == IpProtocol::TCP.0 { flags } else { 0 },
        is_v6: src.is_ipv6(),
        has_ports,
        is_later_fragment,
        icmp_id: 0,
    })
}

pub(super) fn explain(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let (interface, direction) = (index(args)?, direction(args));
    let explained = dp.explain(interface, direction, fields(args)?)?;
    let (mut acl, mut rule) = (None, None);
    let why = match &explained.outcome {
        Outcome::NoLists => "no list is applied there".to_owned(),
        Outcome::NoRule => "no rule of these lists matches, and what matches none is dropped".to_owned(),
        Outcome::Rule(found) => {
            (acl, rule) = (Some(found.acl), Some(found.number));
            format!("the first rule that matches is acl {} rule {}: {}", found.acl, found.number, found.rule)
        }
        Outcome::Session(session) => {
            (acl, rule) = (session.rule.map(|r| r.0), session.rule.map(|r| r.1));
            let opener = match session.rule {
                Some((acl, rule)) => format!("acl {acl} rule {rule}"),
                None => "a rule that has changed since".to_owned(),
            };
            format!("it belongs to the session {} {}, opened by {opener}", session.direction, session.tuple)
        }
    };
    let view = ExplainView {
        interface: dp.interface_name(interface),
        direction: direction.to_string(),
        packet: explained.tuple.to_string(),
        lists: explained.lists,
        verdict: if explained.permit { "permit" } else { "deny" },
        why,
        acl,
        rule,
    };
    out.show(&view, |view, text| {
        let _ = writeln!(text, "{} {}: {}", view.interface, view.direction, view.packet);
        if !view.lists.is_empty() {
            let _ = writeln!(text, "  acl(s) in order: {}", numbers(&view.lists));
        }
        let _ = writeln!(text, "  {}: {}", view.verdict, view.why);
    })
}
