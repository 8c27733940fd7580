//! Commands about bridge domains, cross-connects, MAC addresses and VLAN tags.

use super::{Done, index};
use crate::cli::{About, Args, CliError, Command, Looks, Output, Row, Shown};
use crate::dataplane::Dataplane;
use crate::l2::{DomainFlag, Flush, L2Mode, L2Switch, MacRow, PortKind, TagOperation, VlanOperation};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::MacAddress;
use wharf_nodes::wire::ethernet::EtherType;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create bridge-domain",
        "<bd-id:u32> [learn <0-1>] [forward <0-1>] [uu-flood <0-1>] [flood <0-1>] [arp-term <0-1>] [arp-ufwd <0-1>] [mac-age <0-255>] [bd-tag <word>] [del]",
        "Create or delete a bridge domain",
        create,
    ),
    Command::new(
        "set bridge-domain learn",
        "<bd-id:u32> [disable]",
        "Whether addresses are learned",
        |dp, args, _| flag(dp, args, DomainFlag::Learn),
    ),
    Command::new(
        "set bridge-domain forward",
        "<bd-id:u32> [disable]",
        "Whether frames go to known addresses alone",
        |dp, args, _| flag(dp, args, DomainFlag::Forward),
    ),
    Command::new(
        "set bridge-domain flood",
        "<bd-id:u32> [disable]",
        "Whether frames to groups are flooded",
        |dp, args, _| flag(dp, args, DomainFlag::Flood),
    ),
    Command::new(
        "set bridge-domain uu-flood",
        "<bd-id:u32> [disable]",
        "Whether frames to unknown addresses are flooded",
        |dp, args, _| flag(dp, args, DomainFlag::UuFlood),
    ),
    Command::new(
        "set bridge-domain arp term",
        "<bd-id:u32> [disable]",
        "Whether ARP requests are answered from the domain's table",
        |dp, args, _| flag(dp, args, DomainFlag::ArpTerm),
    ),
    Command::new(
        "set bridge-domain arp-ufwd",
        "<bd-id:u32> [disable]",
        "Whether unicast ARP goes to the port for unknown addresses: it never does",
        |dp, args, _| {
            dp.domain(args.u32("bd-id")?)?;
            arp_ufwd(!args.flag("disable"))
        },
    ),
    Command::new(
        "set bridge-domain arp entry",
        "<bd-id:u32> {<ip4> <mac> [del]|del-all}",
        "Say who has an address, for ARP termination",
        arp_entry,
    ),
    Command::new(
        "set bridge-domain mac-age",
        "<bd-id:u32> <minutes:0-255>",
        "Forget addresses not seen for so long; 0 never",
        mac_age,
    ),
    Command::new(
        "set bridge-domain learn-limit",
        "<bd-id:u32> <limit:u32>",
        "Set how many addresses a domain may learn",
        learn_limit,
    ),
    Command::new(
        "set interface l2 bridge",
        "<interface> <bd-id:u32> [bvi|uu-fwd] [<shg:0-255>]",
        "Put an interface into a bridge domain",
        bridge,
    ),
    Command::new(
        "set interface l2 xconnect",
        "<interface> <peer:interface>",
        "Send what is received out of the peer",
        xconnect,
    ),
    Command::new("set interface l3", "<interface>", "Give an interface back to the L3 protocols", l3),
    Command::new(
        "set interface l2 learn",
        "<interface> [disable]",
        "Whether addresses are learned from an interface",
        |dp, args, _| switch(dp, args, L2Switch::Learn),
    ),
    Command::new(
        "set interface l2 forward",
        "<interface> [disable]",
        "Whether an interface's frames go to known addresses alone",
        |dp, args, _| switch(dp, args, L2Switch::Forward),
    ),
    Command::new(
        "set interface l2 flood",
        "<interface> [disable]",
        "Whether an interface's frames are flooded",
        |dp, args, _| switch(dp, args, L2Switch::Flood),
    ),
    Command::new(
        "set interface l2 learn-limit",
        "<interface> <limit:u32>",
        "Set how many addresses an interface may teach",
        port_learn_limit,
    ),
    Command::new(
        "set interface l2 tag-rewrite",
        "<interface> {disable|pop <pop:1-2>|push {dot1q|dot1ad} <tag1:0-4095> [<tag2:0-4095>]|translate {1-1|1-2|2-1|2-2} {dot1q|dot1ad} <tag1:0-4095> [<tag2:0-4095>]}",
        "Rewrite the VLAN tags of received frames, and undo it for sent ones",
        tag_rewrite,
    ),
    Command::new(
        "l2fib add",
        "[count <n>] <mac> <bd-id:u32> {filter|<interface> [static|bvi]}",
        "Set where an address, or so many in a row, is, or that its frames are dropped",
        add,
    ),
    Command::new("l2fib del", "<mac> <bd-id:u32>", "Forget an address", del),
    Command::new("l2fib flush-mac all", "", "Forget all learned addresses", |dp, _, _| {
        dp.flush_macs(Flush::Learned);
        Ok(())
    }),
    Command::new(
        "l2fib flush-mac interface",
        "<interface>",
        "Forget addresses learned behind an interface",
        flush_interface,
    ),
    Command::new(
        "l2fib flush-mac bridge-domain",
        "<bd-id:u32>",
        "Forget addresses learned in a domain",
        flush_domain,
    ),
    Command::new("clear l2fib", "", "Forget all learned addresses", |dp, _, _| {
        dp.flush_macs(Flush::Learned);
        Ok(())
    }),
    Command::show("show bridge-domain", "[<bd-id:u32>] [detail]", "Show bridge domains", show_domain),
    Command::long_show("show l2fib", "[verbose|all] [bd_id <u32>]", "Show MAC addresses", show_fib),
];

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Done {
    let id = args.u32("bd-id")?;
    if args.flag("del") {
        return Ok(dp.delete_bridge_domain(id)?);
    }
    arp_ufwd(args.opt::<u32>("arp-ufwd")?.unwrap_or(0) != 0)?;
    let tag = args.opt::<String>("bd-tag")?.map(super::tag).transpose().about("bd-tag")?;
    dp.create_bridge_domain(id)?;
    let flags = [
        ("learn", DomainFlag::Learn),
        ("forward", DomainFlag::Forward),
        ("uu-flood", DomainFlag::UuFlood),
        ("flood", DomainFlag::Flood),
        ("arp-term", DomainFlag::ArpTerm),
    ];
    for (word, flag) in flags {
        if let Some(on) = args.opt::<u32>(word)? {
            dp.set_domain_flag(id, flag, on != 0)?;
        }
    }
    if let Some(minutes) = args.opt::<u16>("mac-age")? {
        dp.set_mac_age(id, minutes as u8)?;
    }
    if let Some(tag) = tag {
        dp.set_domain_tag(id, tag)?;
    }
    out.line(format!("bridge-domain {id}"));
    Ok(())
}

/// VPP's switch for it is there, so that it can be off.
fn arp_ufwd(on: bool) -> Done {
    match on {
        true => Err(CliError::new("arp-ufwd is not there yet: unicast ARP goes where its address is")),
        false => Ok(()),
    }
}

fn flag(dp: &mut Dataplane, args: &Args, flag: DomainFlag) -> Done {
    Ok(dp.set_domain_flag(args.u32("bd-id")?, flag, !args.flag("disable"))?)
}

fn arp_entry(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let id = args.u32("bd-id")?;
    if args.flag("del-all") {
        return Ok(dp.clear_arp_entries(id)?);
    }
    let mac = MacAddress(args.mac("mac")?);
    Ok(dp.set_arp_entry(id, args.ip4("ip4")?, (!args.flag("del")).then_some(mac))?)
}

fn mac_age(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_mac_age(args.u32("bd-id")?, args.u16("minutes")? as u8)?)
}

fn learn_limit(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_domain_learn_limit(args.u32("bd-id")?, args.u32("limit")?)?)
}

fn bridge(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let kind = match () {
        () if args.flag("bvi") => PortKind::Bvi,
        () if args.flag("uu-fwd") => PortKind::UuFwd,
        () => PortKind::Normal,
    };
    let shg = args.opt::<u16>("shg")?.unwrap_or(0) as u8;
    Ok(dp.set_bridge(index(args)?, args.u32("bd-id")?, kind, shg)?)
}

fn xconnect(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_xconnect(index(args)?, SwIfIndex(args.interface("peer")?))?)
}

fn l3(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_l3(index(args)?)?)
}

fn switch(dp: &mut Dataplane, args: &Args, switch: L2Switch) -> Done {
    Ok(dp.set_l2_switch(index(args)?, switch, !args.flag("disable"))?)
}

fn port_learn_limit(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.set_port_learn_limit(index(args)?, args.u32("limit")?)?)
}

fn tag_rewrite(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    if args.flag("disable") {
        return Ok(dp.set_tag_rewrite(index(args)?, None)?);
    }
    let tags = [args.opt::<u16>("tag1")?, args.opt::<u16>("tag2")?];
    let given = tags.iter().flatten().count() as u8;
    let ways = [("1-1", 1, 1), ("1-2", 1, 2), ("2-1", 2, 1), ("2-2", 2, 2)];
    let (operation, pop, push) = match ways.iter().find(|(word, ..)| args.flag(word)) {
        Some((_, pop, push)) => (VlanOperation::Translate, *pop, *push),
        None if args.flag("push") => (VlanOperation::Push, 0, given),
        None => (VlanOperation::Pop, args.u16("pop")? as u8, 0),
    };
    if push != given {
        return Err(CliError::new(format!("{push} tags are to be put, and {given} are given")));
    }
    let outer_type = if args.flag("dot1ad") { EtherType::QINQ } else { EtherType::VLAN };
    let tags = tags.map(|tag| tag.unwrap_or(0));
    Ok(dp.set_tag_rewrite(index(args)?, Some(TagOperation { operation, pop, push, outer_type, tags }))?)
}

fn add(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let interface = args.opt_interface("interface")?.map(SwIfIndex);
    if args.flag("bvi") && !interface.and_then(|i| dp.interfaces.get(&i)).is_some_and(|r| r.mode.is_bvi()) {
        return Err(CliError::new("the interface is not the BVI of its bridge-domain"));
    }
    let (first, domain) = (MacAddress(args.mac("mac")?).to_u64(), args.u32("bd-id")?);
    for n in 0..args.opt::<u32>("count")?.unwrap_or(1) {
        dp.add_mac(MacAddress::from_u64(first + u64::from(n)), domain, interface)?;
    }
    Ok(())
}

fn del(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    Ok(dp.delete_mac(MacAddress(args.mac("mac")?), args.u32("bd-id")?)?)
}

fn flush_interface(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let index = index(args)?;
    dp.flush_macs(Flush::LearnedBehind(index));
    Ok(())
}

fn flush_domain(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let id = args.u32("bd-id")?;
    dp.domain(id)?;
    dp.flush_macs(Flush::LearnedIn(id));
    Ok(())
}

#[derive(Serialize)]
struct DomainRow {
    bd_id: u32,
    index: u16,
    mac_age: u8,
    learn: bool,
    forward: bool,
    uu_flood: String,
    flood: bool,
    arp_term: bool,
    learn_count: u32,
    learn_limit: u32,
    bvi: Option<String>,
    ports: Vec<PortRow>,
    arp: Vec<(String, String)>,
}

#[derive(Serialize)]
struct PortRow {
    interface: String,
    sw_if_index: u32,
    shg: u8,
    bvi: bool,
    tag_rewrite: String,
}

fn domain_row(dp: &Dataplane, id: u32) -> Option<DomainRow> {
    let domain = dp.bridges.get(&id)?;
    let mut ports = Vec::new();
    let (mut bvi, mut uu_flood) = (None, if domain.uu_flood { "flood" } else { "drop" }.to_owned());
    for (index, record) in &dp.interfaces {
        let L2Mode::Bridge { domain: of, kind, shg } = record.mode else { continue };
        if of != id {
            continue;
        }
        match kind {
            PortKind::Bvi => bvi = Some(record.name.clone()),
            PortKind::UuFwd => uu_flood = record.name.clone(),
            PortKind::Normal => {}
        }
        ports.push(PortRow {
            interface: record.name.clone(),
            sw_if_index: index.0,
            shg,
            bvi: kind == PortKind::Bvi,
            tag_rewrite: record.l2.tag_rewrite.map_or_else(|| "none".to_owned(), |t| t.to_string()),
        });
    }
    let count = |table: &std::sync::Arc<wharf_nodes::l2::MacTable>| {
        table.of_domain(wharf_nodes::l2::key(domain.index, MacAddress::ZERO))
    };
    Some(DomainRow {
        bd_id: id,
        index: domain.index,
        mac_age: domain.mac_age,
        learn: domain.learn,
        forward: domain.forward,
        uu_flood,
        flood: domain.flood,
        arp_term: domain.arp_term,
        learn_count: dp.macs.table().map_or(0, count),
        learn_limit: domain.learn_limit,
        bvi,
        ports,
        arp: domain.arp.iter().map(|(ip, mac)| (ip.to_string(), mac.to_string())).collect(),
    })
}

fn show_domain(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt::<u32>("bd-id")?;
    if let Some(id) = only {
        dp.domain(id)?;
    }
    let detail = args.flag("detail");
    let chosen = dp.bridges.keys().filter(|id| only.is_none_or(|o| o == **id));
    let rows: Vec<DomainRow> = chosen.filter_map(|id| domain_row(dp, *id)).collect();
    out.show(&rows, |rows, text| {
        if rows.is_empty() {
            text.push_str("no bridge-domains in use\n");
        }
        for (i, row) in rows.iter().enumerate() {
            // With the ports of each, every one has its own header.
            if i == 0 || detail {
                domain_header(text);
            }
            domain_line(row, text);
            if detail {
                domain_detail(row, text);
            }
        }
    })
}

fn domain_header(text: &mut String) {
    let row = Row::new(text).centre(8, "BD-ID").text(" ").centre(7, "Index").text(" ").centre(4, "BSN");
    let row = row.text(" ").centre(9, "Age(min)").text(" ").centre(9, "Learning").text(" ");
    let row = row.centre(9, "U-Forwrd").text(" ").centre(11, "UU-Flood").text(" ").centre(9, "Flooding");
    let row = row.text(" ").centre(9, "ARP-Term").text(" ").centre(9, "arp-ufwd").text(" ");
    let row = row.centre(8, "Learn-count").text(" ").centre(8, "Learn-limit").text(" ");
    row.centre(11, "BVI-Intf").end();
}

fn domain_line(row: &DomainRow, text: &mut String) {
    let on = |flag: bool| if flag { "on" } else { "off" };
    let age = if row.mac_age == 0 { "off".to_owned() } else { row.mac_age.to_string() };
    let line = Row::new(text).centre(8, row.bd_id).text(" ").centre(7, row.index).text(" ").centre(4, 0);
    let line = line.text(" ").centre(9, age).text(" ").centre(9, on(row.learn)).text(" ");
    let line = line.centre(9, on(row.forward)).text(" ").centre(11, &row.uu_flood).text(" ");
    let line = line.centre(9, on(row.flood)).text(" ").centre(9, on(row.arp_term)).text(" ");
    let line = line.centre(9, "off").text(" ").centre(8, row.learn_count).text(" ");
    let line = line.centre(8, row.learn_limit).text(" ");
    line.centre(11, row.bvi.as_deref().unwrap_or("N/A")).end();
}

fn domain_detail(row: &DomainRow, text: &mut String) {
    if !row.ports.is_empty() {
        text.push('\n');
        let header = Row::new(text).centre(30, "Interface").centre(7, "If-idx").centre(5, "ISN");
        header.centre(5, "SHG").centre(5, "BVI").centre(9, "TxFlood").centre(30, "VLAN-Tag-Rewrite").end();
    }
    for port in &row.ports {
        let line = Row::new(text).centre(30, &port.interface).centre(7, port.sw_if_index).centre(5, 0);
        let line = line.centre(5, port.shg).centre(5, if port.bvi { "*" } else { "-" });
        line.centre(9, "*").centre(30, &port.tag_rewrite).end();
    }
    if row.arp_term {
        text.push_str("\n  IP4/IP6 to MAC table for ARP Termination\n");
        for (ip, mac) in &row.arp {
            Row::new(text).centre(40, ip).text(" => ").centre(20, mac).end();
        }
    }
}

#[derive(Serialize)]
struct FibView {
    entries: Vec<FibRow>,
    total: u32,
    learned: u32,
    last_scan_seconds: f64,
    learn_limit: u32,
    /// Addresses that there is room for.
    capacity: usize,
    /// Bytes of the table.
    memory: usize,
}

#[derive(Serialize)]
struct FibRow {
    mac: String,
    bd_id: u32,
    bd_index: u16,
    sw_if_index: Option<u32>,
    age_minutes: Option<u16>,
    #[serde(rename = "static")]
    fixed: bool,
    filter: bool,
    bvi: bool,
    interface: String,
}

/// What a turn takes of the others' time.
const SLICE: Duration = Duration::from_millis(1);

/// The addresses of a domain, or all, by domain and address. What comes or goes meanwhile may be there, or not.
fn mac_rows(looks: &mut Looks<'_, Dataplane>, only: Option<u32>) -> Result<Vec<MacRow>, CliError> {
    let (mut rows, mut part) = (Vec::new(), 0);
    let mut piece = |dp: &Dataplane| {
        let until = Instant::now() + SLICE;
        while part < dp.mac_parts() && Instant::now() < until {
            rows.extend(dp.mac_rows(only, part));
            part += 1;
        }
        Ok(part < dp.mac_parts())
    };
    while looks.look(&mut piece)? {}
    rows.sort_by_key(|row| (row.domain, row.mac));
    Ok(rows)
}

fn show_fib(looks: &mut Looks<'_, Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt::<u32>("bd_id")?;
    looks.look(|dp| Ok(only.map_or(Ok(()), |id| dp.domain(id).map(drop))?))?;
    let wanted = only.is_some() || args.flag("verbose") || args.flag("all");
    let rows = if wanted { mac_rows(looks, only)? } else { Vec::new() };
    let (summary, names) = looks.look(|dp| {
        let names: BTreeMap<_, _> = dp.interfaces.iter().map(|(index, i)| (*index, i.name.clone())).collect();
        Ok((dp.mac_summary(), names))
    })?;
    let name =
        |index: SwIfIndex| names.get(&index).cloned().unwrap_or_else(|| format!("sw_if_index {index}"));
    let view = FibView {
        entries: rows
            .into_iter()
            .map(|row| FibRow {
                mac: row.mac.to_string(),
                bd_id: row.domain,
                bd_index: row.index,
                sw_if_index: (!row.entry.is_filter()).then_some(row.entry.port().0),
                age_minutes: row.age,
                fixed: row.entry.is_static(),
                filter: row.entry.is_filter(),
                bvi: row.entry.is_bvi(),
                interface: match row.entry.is_filter() {
                    true => "N/A".to_owned(),
                    false => name(row.entry.port()),
                },
            })
            .collect(),
        total: summary.map_or(0, |s| s.total),
        learned: summary.map_or(0, |s| s.learned),
        last_scan_seconds: summary.map_or(0.0, |s| s.last_scan.as_secs_f64()),
        learn_limit: summary.map_or(0, |s| s.limit),
        capacity: summary.map_or(0, |s| s.capacity),
        memory: summary.map_or(0, |s| s.memory),
    };
    out.show(&view, |view, text| {
        if view.total == 0 {
            text.push_str("no l2fib entries\n");
            return;
        }
        if !view.entries.is_empty() {
            let header = Row::new(text).centre(19, "Mac-Address").centre(7, "BD-Idx").centre(7, "If-Idx");
            let header = header.centre(8, "BSN-ISN").centre(9, "Age(min)").centre(7, "static");
            header.centre(7, "filter").centre(5, "bvi").centre(30, "Interface-Name").end();
        }
        view.entries.iter().for_each(|row| fib_line(row, text));
        let _ = writeln!(
            text,
            "L2FIB total/learned entries: {}/{}  Last scan time: {}sec  Learn limit: {} ",
            view.total,
            view.learned,
            exponent(view.last_scan_seconds),
            view.learn_limit
        );
    })
}

fn fib_line(row: &FibRow, text: &mut String) {
    let mark = |on: bool| if on { "*" } else { "-" };
    let port = row.sw_if_index.map_or_else(|| "-1".to_owned(), |i| i.to_string());
    let age = match row.age_minutes {
        _ if row.fixed => "no".to_owned(),
        Some(age) => age.to_string(),
        None => "-".to_owned(),
    };
    let line = Row::new(text).centre(19, &row.mac).centre(7, row.bd_index).centre(7, port);
    let line = line.centre(8, "  0/0  ").centre(9, age).centre(7, mark(row.fixed));
    line.centre(7, mark(row.filter)).centre(5, mark(row.bvi)).centre(30, &row.interface).end();
}

/// C's `%.4e`.
fn exponent(value: f64) -> String {
    let text = format!("{value:.4e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_as_c_writes_them() {
        assert_eq!(super::exponent(0.00123), "1.2300e-03");
        assert_eq!(super::exponent(0.0), "0.0000e+00");
    }
}
