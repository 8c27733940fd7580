//! Commands about access lists, in the words of VPP's acl plugin.

use crate::acl::{Outcome, SessionTimeout};
use crate::cli::{Args, CliError, Command, Output, Prefix, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::classifier::Shape;
use wharf_nodes::acl::rule::ANY_PORT;
use wharf_nodes::acl::{AclPrefix, Action, Direction, Fields, MacIpRule, Rule, Tuple};
use wharf_nodes::wire::ethernet::MacAddress;
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

/// Sessions that are shown unless told otherwise.
const MAX_SHOWN: usize = 100;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "set acl-plugin acl",
        "[index <u32>] {{permit|deny|permit+reflect} [ipv4|ipv6] [src <prefix>] [dst <prefix>] [proto <u8>] [sport <range>] [dport <range>] [tcpflags <u8> mask <mask:u8>] [tag <word>] [,]}...",
        "Add a list of rules, or replace list `index': permit+reflect src 10.0.0.0/8 proto 6 dport 80, deny",
        set_acl,
    ),
    Command::new("delete acl-plugin acl", "index <u32>", "Delete a list", delete_acl),
    Command::new(
        "set acl-plugin interface",
        "<interface> {input|output} acl <u32> [del]",
        "Apply a list to an interface, behind those that are there, or take it away",
        set_interface,
    ),
    Command::new(
        "set acl-plugin etype-whitelist",
        "<interface> {input|output} {<ethertype:u16>|del}...",
        "Set which EtherTypes pass an interface in L2 mode besides those of IP",
        set_etypes,
    ),
    Command::new(
        "set acl-plugin macip acl",
        "[index <u32>] {{permit|deny} [ip <prefix>] [mac <mac> [mask <mac>]] [tag <word>] [,]}...",
        "Add a list of the stations that may send, or replace list `index'",
        set_macip,
    ),
    Command::new("delete acl-plugin macip acl", "index <u32>", "Delete a macip list", |dp, args, _| {
        Ok(dp.delete_macip(args.u32("index")?)?)
    }),
    Command::new(
        "set acl-plugin macip interface",
        "<interface> {<acl:u32>|del}",
        "Apply a macip list to an interface, or take it away",
        |dp, args, _| Ok(dp.set_interface_macip(index(args)?, args.opt("acl")?)?),
    ),
    Command::new(
        "set acl-plugin session timeout udp idle",
        "<seconds:u32>",
        "Set after which silence sessions of UDP end",
        |dp, args, _| timeout(dp, args, SessionTimeout::UdpIdle),
    ),
    Command::new(
        "set acl-plugin session timeout tcp idle",
        "<seconds:u32>",
        "Set after which silence established sessions of TCP end",
        |dp, args, _| timeout(dp, args, SessionTimeout::TcpIdle),
    ),
    Command::new(
        "set acl-plugin session timeout tcp transient",
        "<seconds:u32>",
        "Set after which silence sessions of TCP end that are being opened or closed",
        |dp, args, _| timeout(dp, args, SessionTimeout::TcpTransient),
    ),
    Command::new(
        "set acl-plugin session table max-entries",
        "<max-entries:u32>",
        "Set how many sessions there may be; those that there are end",
        |dp, args, _| Ok(dp.set_max_sessions(args.u32("max-entries")? as usize)?),
    ),
    Command::new("clear acl-plugin sessions", "[<interface>]", "End sessions", |dp, args, _| {
        dp.clear_sessions(args.opt_interface("interface")?.map(SwIfIndex));
        Ok(())
    }),
    Command::show(
        "show acl-plugin acl",
        "[index <u32>]",
        "Show lists, and how often rules matched",
        show_acl,
    ),
    Command::show(
        "show acl-plugin interface",
        "[<interface>]",
        "Show where lists are applied",
        show_interface,
    ),
    Command::show(
        "show acl-plugin sessions",
        "[<interface>] [max <1-100000>]",
        "Show sessions",
        show_sessions,
    ),
    Command::show("show acl-plugin tables", "", "Show what lists were compiled to", show_tables),
    Command::show("show acl-plugin drops", "", "Show some of the packets denied last", show_drops),
    Command::show("show acl-plugin macip acl", "[index <u32>]", "Show macip lists", show_macip),
    Command::show(
        "show acl-plugin macip interface",
        "",
        "Show where macip lists are applied",
        show_macip_interface,
    ),
    Command::show(
        "acl explain",
        "<interface> {input|output} src <ip> dst <ip> [proto <u8>] [sport <u16>] [dport <u16>] [tcpflags <u8>] [fragment]",
        "Tell what would happen to a packet, and why",
        explain,
    ),
];

type Done = Result<(), CliError>;

fn index(args: &Args) -> Result<SwIfIndex, CliError> {
    args.interface("interface").map(SwIfIndex)
}

fn direction(args: &Args) -> Direction {
    if args.flag("output") { Direction::Output } else { Direction::Input }
}

fn timeout(dp: &mut Dataplane, args: &Args, which: SessionTimeout) -> Done {
    Ok(dp.set_session_timeout(which, args.u32("seconds")?)?)
}

fn prefix(p: Prefix) -> AclPrefix {
    AclPrefix::new(p.addr, p.len)
}

fn port_range(args: &Args, name: &str) -> Result<(u16, u16), CliError> {
    let Some((first, last)) = args.opt::<(u64, u64)>(name)? else { return Ok(ANY_PORT) };
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(first), Ok(last)) => Ok((first, last)),
        _ => Err(CliError::new(format!("{name} must be at most 65535, got {first}-{last}"))),
    }
}

/// The arguments of the rules; each is a turn.
fn turns(args: &Args) -> Result<Vec<Args>, CliError> {
    let turns = args.turns();
    for (number, turn) in turns.iter().enumerate() {
        let is_last = number + 1 == turns.len();
        if turn.flag(",") == is_last {
            return Err(CliError::new(match is_last {
                true => format!("rule {number}: a comma, and no rule behind it"),
                false => format!("rule {number}: no comma between it and the next"),
            }));
        }
    }
    Ok(turns)
}

fn tag(turns: &[Args]) -> Result<String, CliError> {
    let tags = turns.iter().map(|turn| turn.opt::<String>("tag")).collect::<Result<Vec<_>, _>>()?;
    Ok(tags.into_iter().flatten().next().unwrap_or_default())
}

fn rule(args: &Args) -> Result<Rule, CliError> {
    let action = match () {
        () if args.flag("permit+reflect") => Action::Reflect,
        () if args.flag("permit") => Action::Permit,
        () => Action::Deny,
    };
    let [src, dst] = [args.opt::<Prefix>("src")?.map(prefix), args.opt::<Prefix>("dst")?.map(prefix)];
    let named = src.or(dst).map(|p| p.is_v6());
    let v6 = args.flag("ipv6") || named == Some(true) && !args.flag("ipv4");
    let mut rule = Rule::all(action, v6);
    (rule.src, rule.dst) = (src.unwrap_or(rule.src), dst.unwrap_or(rule.dst));
    if rule.src.is_v6() != v6 || rule.dst.is_v6() != v6 {
        return Err(CliError::new(format!("src {} and dst {} are not of one family", rule.src, rule.dst)));
    }
    rule.protocol = IpProtocol(args.opt::<u8>("proto")?.unwrap_or(0));
    (rule.sport, rule.dport) = (port_range(args, "sport")?, port_range(args, "dport")?);
    rule.tcp_value = TcpFlags(args.opt::<u8>("tcpflags")?.unwrap_or(0));
    rule.tcp_mask = TcpFlags(args.opt::<u8>("mask")?.unwrap_or(0));
    let has_ports = (rule.sport, rule.dport) != (ANY_PORT, ANY_PORT);
    if has_ports && rule.protocol.0 == 0 {
        return Err(CliError::new("ports say nothing without proto"));
    }
    if rule.tcp_mask.0 != 0 && rule.protocol != IpProtocol::TCP {
        return Err(CliError::new("tcpflags say nothing without proto 6"));
    }
    Ok(rule)
}

fn set_acl(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let turns = turns(args)?;
    let rules = (turns.iter().enumerate())
        .map(|(number, turn)| rule(turn).map_err(|e| CliError::new(format!("rule {number}: {e}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let index = dp.set_acl(args.opt("index")?, &tag(&turns)?, rules)?;
    out.line(format!("ACL index:{index}"));
    Ok(())
}

fn delete_acl(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.delete_acl(args.u32("index")?)?)
}

fn set_interface(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.add_interface_acl(index(args)?, direction(args), args.u32("acl")?, !args.flag("del"))?)
}

fn set_etypes(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let types = args.all::<u16>("ethertype")?;
    if args.flag("del") && !types.is_empty() {
        return Err(CliError::new("either EtherTypes or del"));
    }
    let types = if args.flag("del") { None } else { Some(types) };
    Ok(dp.set_etype_whitelist(index(args)?, direction(args), types)?)
}

fn set_macip(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let turns = turns(args)?;
    let rule = |args: &Args| -> Result<MacIpRule, CliError> {
        let mac = args.opt::<[u8; 6]>("mac")?.map(MacAddress);
        let mask = args.opt::<[u8; 6]>("mask")?.map(MacAddress);
        let any = if mac.is_some() { MacAddress::BROADCAST } else { MacAddress::ZERO };
        Ok(MacIpRule {
            permit: args.flag("permit"),
            mac: mac.unwrap_or(MacAddress::ZERO),
            mask: mask.unwrap_or(any),
            prefix: args.opt::<Prefix>("ip")?.map_or(AclPrefix::any(false), prefix),
        })
    };
    let rules = turns.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let index = dp.set_macip(args.opt("index")?, &tag(&turns)?, rules)?;
    out.line(format!("ACL index:{index}"));
    Ok(())
}

// ------------------------------------------------------------------------------------------------ show

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

fn show_acl(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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

fn show_interface(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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

fn show_sessions(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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
    bytes: usize,
}

impl From<Shape> for ShapeRow {
    fn from(s: Shape) -> ShapeRow {
        let (nodes_per_lookup, blocks_per_lookup) = (s.depth, s.blocks);
        ShapeRow { trees: s.trees, nodes_per_lookup, blocks_per_lookup, bytes: s.bytes }
    }
}

fn show_tables(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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
                    "  {family}: {} trees, a lookup reads at most {} nodes and {} blocks, {} bytes",
                    s.trees, s.nodes_per_lookup, s.blocks_per_lookup, s.bytes
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

fn show_drops(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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

fn show_macip(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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

fn show_macip_interface(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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

fn explain(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
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
