//! Commands about VXLAN tunnels.

use crate::cli::{Args, CliError, Command, Hold, Output, Shown, in_turn};
use crate::dataplane::Dataplane;
use crate::interface::delete_interface;
use crate::vxlan::{DecapNext, VxlanConfig};
use serde::Serialize;
use std::fmt::Write;
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::long(
        "create vxlan tunnel",
        "src <ip> {dst <ip>|group <ip> [<interface>]} vni <u32> [instance <u32>] [encap-vrf-id <u32>] [decap-next {l2|node <node>}] [l3] [src_port <1-65535>] [dst_port <1-65535>] [decap-vni {any|<decap-vni:u32>}] [udp-checksum] [del]",
        "Create or delete a VXLAN tunnel",
        create,
    ),
    Command::show("show vxlan tunnel", "", "Show VXLAN tunnels", show),
];

fn address(args: &Args, name: &str) -> Result<Ipv4Addr, CliError> {
    match args.ip(name)? {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(address) => {
            Err(CliError::new(format!("IPv6 is not there yet: {name} {address}")))
        }
    }
}

fn create(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    if !args.flag("del") {
        return in_turn(on, |dp| add(dp, args, out));
    }
    let (src, dst, vni) = key(args)?;
    let missing = || CliError::new(format!("there is no tunnel from {src} to {dst} with VNI {vni}"));
    let index = in_turn(on, |dp| dp.find_vxlan(src, dst, vni).ok_or_else(missing))?;
    delete_interface(on, index)
}

/// What tells a tunnel from others: its ends and its VNI.
fn key(args: &Args) -> Result<(Ipv4Addr, Ipv4Addr, u32), CliError> {
    let dst = if args.flag("group") { "group" } else { "dst" };
    Ok((address(args, "src")?, address(args, dst)?, args.u32("vni")?))
}

fn add(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let group = args.flag("group");
    let (src, dst, vni) = key(args)?;
    let mut config = VxlanConfig::new(src, dst, vni);
    if group {
        let Some(interface) = args.opt_interface("interface")? else {
            return Err(CliError::new("a group needs the interface that it is on"));
        };
        config.group = Some(SwIfIndex(interface));
    }
    config.table = args.opt::<u32>("encap-vrf-id")?.unwrap_or(0);
    config.src_port = args.opt::<u16>("src_port")?;
    config.dst_port = args.opt::<u16>("dst_port")?.unwrap_or(config.dst_port);
    config.checksum = args.flag("udp-checksum");
    config.decap_vni = match args.flag("any") {
        true => Some(None),
        false => args.opt::<u32>("decap-vni")?.map(Some),
    };
    config.decap = match args.opt::<String>("node")?.as_deref() {
        Some("ip4-input") => DecapNext::Ip4,
        Some("l2-input" | "ethernet-input") => DecapNext::L2,
        Some(other) => {
            return Err(CliError::new(format!(
                "decap-next node {other}: l2-input, ethernet-input or ip4-input"
            )));
        }
        None if args.flag("l3") => DecapNext::Ip4,
        None => DecapNext::L2,
    };
    let index = dp.create_vxlan(config, args.opt::<u32>("instance")?)?;
    out.line(dp.interface_name(index));
    Ok(())
}

#[derive(Serialize)]
struct TunnelRow {
    instance: u32,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
    vni: u32,
    decap_vni: Option<String>,
    fib_idx: u32,
    sw_if_index: u32,
    l3: bool,
    udp_checksum: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_interface: Option<String>,
}

fn show(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |(index, config): (&SwIfIndex, &VxlanConfig)| TunnelRow {
        instance: config.instance,
        src: config.src,
        dst: config.dst,
        src_port: config.src_port.unwrap_or(0),
        dst_port: config.dst_port,
        vni: config.vni,
        decap_vni: config.decap_vni.map(|vni| vni.map_or_else(|| "any".to_owned(), |vni| vni.to_string())),
        fib_idx: dp.fibs.get(&config.table).map_or(0, |fib| fib.index),
        sw_if_index: index.0,
        l3: config.decap == DecapNext::Ip4,
        udp_checksum: config.checksum,
        group_interface: config.group.map(|index| dp.interface_name(index)),
    };
    let rows: Vec<TunnelRow> = dp.vxlan.list.iter().map(row).collect();
    out.show(&rows, |rows, text| {
        if rows.is_empty() {
            text.push_str("No vxlan tunnels configured...\n");
        }
        for (number, row) in rows.iter().enumerate() {
            let _ = write!(
                text,
                "[{number}] instance {} src {} dst {} src_port {} dst_port {} vni {} fib-idx {} sw-if-idx {} ",
                row.instance, row.src, row.dst, row.src_port, row.dst_port, row.vni, row.fib_idx, row.sw_if_index
            );
            if let Some(vni) = &row.decap_vni {
                let _ = write!(text, "decap-vni {vni} ");
            }
            if row.l3 {
                text.push_str("l3 ");
            }
            if let Some(interface) = &row.group_interface {
                let _ = write!(text, "group on {interface} ");
            }
            if row.udp_checksum {
                text.push_str("udp-checksum ");
            }
            text.push('\n');
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::Output;
    use wharf_nodes::wire::ip4::Ip4Prefix;

    #[test]
    fn a_group_has_one_interface_and_goes_with_it() {
        let mut dp = crate::config::tests::dataplane();
        let registry = crate::commands::registry().unwrap();
        let mut run = |line: &str| {
            let mut out = Output::new();
            registry.execute(&mut dp, line, &mut out).map_err(|error| error.to_string())?;
            let group = Ip4Prefix::host([239, 1, 1, 1].into());
            let routes = dp.fibs[&0].routes().iter().filter(|(prefix, _)| *prefix == group).count();
            Ok::<_, String>((dp.vxlan.list.len(), routes, dp.vxlan_groups().len()))
        };
        for name in ["pg0", "pg1"] {
            run(&format!("create packet-generator interface {name}")).unwrap();
        }
        let tunnel = "create vxlan tunnel src 10.0.0.1 group 239.1.1.1";
        assert!(run(&format!("{tunnel} vni 1")).is_err(), "on which interface?");
        assert!(run("create vxlan tunnel src 10.0.0.1 group 10.0.0.2 pg0 vni 1").is_err());
        assert!(run("create vxlan tunnel src 10.0.0.1 dst 239.1.1.1 vni 1").is_err());
        assert_eq!(run(&format!("{tunnel} pg0 vni 1")).unwrap(), (1, 1, 1));
        assert!(run(&format!("{tunnel} pg0 vni 1")).is_err(), "there is one");
        assert!(run(&format!("{tunnel} pg1 vni 2")).is_err(), "the group is on pg0");
        assert_eq!(run(&format!("{tunnel} pg0 vni 2")).unwrap(), (2, 1, 1));
        assert_eq!(run(&format!("{tunnel} pg0 vni 1 del")).unwrap(), (1, 1, 1));
        assert_eq!(run("delete packet-generator interface pg0").unwrap(), (0, 0, 0));
        dp.shut_down();
    }
}
