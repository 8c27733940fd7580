//! Commands about access lists, in the words of VPP's acl plugin.

use super::acl_show::{
    explain, show_acl, show_drops, show_interface, show_macip, show_macip_interface, show_sessions,
    show_tables,
};
use super::{Done, index};
use crate::acl::{SessionTimeout, compiled};
use crate::cli::{Args, CliError, Command, Hold, Output, Prefix};
use crate::dataplane::Dataplane;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::rule::ANY_PORT;
use wharf_nodes::acl::{AclPrefix, Action, Direction, MacIpRule, Rule};
use wharf_nodes::wire::ethernet::MacAddress;
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::long(
        "set acl-plugin acl",
        "[index <u32>] {{permit|deny|permit+reflect} [ipv4|ipv6] [src <prefix>] [dst <prefix>] [proto <u8>] [sport <range>] [dport <range>] [tcpflags <u8> mask <mask:u8>] [tag <word>] [,]}...",
        "Add a list of rules, or replace list `index': permit+reflect src 10.0.0.0/8 proto 6 dport 80, deny",
        set_acl,
    ),
    Command::new("delete acl-plugin acl", "index <u32>", "Delete a list", delete_acl),
    Command::long(
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

pub(super) fn direction(args: &Args) -> Direction {
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

fn set_acl(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Done {
    let turns = turns(args)?;
    let rules = (turns.iter().enumerate())
        .map(|(number, turn)| rule(turn).map_err(|e| CliError::new(format!("rule {number}: {e}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let (index, tag) = (args.opt("index")?, tag(&turns)?);
    // A new one is applied nowhere.
    let work = |dp: &Dataplane| index.map_or_else(Vec::new, |index| dp.compiles_acl(index, &rules));
    let index = compiled(on, work, |dp| Ok(dp.set_acl(index, &tag, rules.clone())?))?;
    out.line(format!("ACL index:{index}"));
    Ok(())
}

fn delete_acl(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.delete_acl(args.u32("index")?)?)
}

fn set_interface(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Done {
    let (interface, direction, acl) = (index(args)?, direction(args), args.u32("acl")?);
    let add = !args.flag("del");
    let work = |dp: &Dataplane| {
        let lists = dp.changed_acls(interface, direction, acl, add);
        lists.map_or_else(|_| Vec::new(), |acls| dp.compiles_binding(&acls))
    };
    compiled(on, work, |dp| Ok(dp.add_interface_acl(interface, direction, acl, add)?))
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
