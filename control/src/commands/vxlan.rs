//! Commands about VXLAN tunnels.

use crate::cli::{Args, CliError, Command, Output, Shown};
use crate::dataplane::Dataplane;
use crate::vxlan::{DecapNext, VxlanConfig};
use serde::Serialize;
use std::fmt::Write;
use std::net::Ipv4Addr;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
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

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    if args.flag("group") {
        return Err(CliError::new(
            "multicast groups are not there yet: a tunnel to each peer, all in one split-horizon group, floods to all",
        ));
    }
    let (src, dst, vni) = (address(args, "src")?, address(args, "dst")?, args.u32("vni")?);
    if args.flag("del") {
        let index = dp.find_vxlan(src, dst, vni);
        let Some(index) = index else {
            return Err(CliError::new(format!("there is no tunnel from {src} to {dst} with VNI {vni}")));
        };
        return Ok(dp.delete_interface(index)?);
    }
    let mut config = VxlanConfig::new(src, dst, vni);
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
}

fn show(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |(index, config): (&wharf_engine::SwIfIndex, &VxlanConfig)| TunnelRow {
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
            if row.udp_checksum {
                text.push_str("udp-checksum ");
            }
            text.push('\n');
        }
    })
}
