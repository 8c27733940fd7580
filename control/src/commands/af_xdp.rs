//! Commands about AF_XDP.

use crate::cli::{About, Args, CliError, Command, Hold, Output, Shown, in_turn};
use crate::dataplane::Dataplane;
use crate::interface::delete_interface;
use serde::Serialize;
use std::fmt::Write;
use wharf_drivers::af_xdp::program::KeptPort;
use wharf_drivers::af_xdp::{CopyMode, TxInfo, XdpConfig};
use wharf_engine::SwIfIndex;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create interface af_xdp",
        "host-if <word> [name <word>] [rx-queue-size <u32>] [tx-queue-size <u32>] [num-rx-queues {all|<n>}] [netns <word>] [zero-copy|no-zero-copy] [no-syscall-lock] [mac-reuse] [keep-tcp <list>] [keep-udp <list>]",
        "Take a Linux interface over",
        create,
    )
    .arguments(&[
        ("netns", "network namespace: a name, pid:N or a path"),
        ("keep-tcp", "TCP ports that stay with the kernel, with ARP and fragments: for an uplink"),
        ("keep-udp", "UDP ports that stay with the kernel, with ARP and fragments: for an uplink"),
    ]),
    Command::long("delete interface af_xdp", "{<interface>|sw_if_index <u32>}", "Give a Linux interface back", delete),
    Command::show("show af_xdp", "[<interface>]", "Show Linux interfaces that were taken over", show),
];

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut config = XdpConfig::new(args.text("host-if")?);
    config.netns = args.opt::<String>("netns")?;
    config.rx_ring = args.opt::<u32>("rx-queue-size")?.unwrap_or(config.rx_ring);
    config.tx_ring = args.opt::<u32>("tx-queue-size")?.unwrap_or(config.tx_ring);
    for (argument, size) in [("rx-queue-size", config.rx_ring), ("tx-queue-size", config.tx_ring)] {
        if !size.is_power_of_two() || !(64..=4096).contains(&size) {
            let error = format!("a queue's size must be a power of two from 64 to 4096, got {size}");
            return Err(CliError::new(error).about(argument));
        }
    }
    config.copy = match () {
        () if args.flag("zero-copy") => CopyMode::ZeroCopy,
        () if args.flag("no-zero-copy") => CopyMode::Copy,
        () => CopyMode::Auto,
    };
    let ports = |name: &'static str| -> Result<Vec<u16>, CliError> {
        let list = args.opt::<Vec<u32>>(name)?.unwrap_or_default();
        let port =
            |p: u32| u16::try_from(p).map_err(|_| CliError::new(format!("{p} is not a port")).about(name));
        list.into_iter().map(port).collect()
    };
    let (tcp, udp) = (ports("keep-tcp")?, ports("keep-udp")?);
    if !tcp.is_empty() || !udp.is_empty() {
        let keep = tcp.into_iter().map(KeptPort::Tcp).chain(udp.into_iter().map(KeptPort::Udp));
        config.keep = Some(keep.collect());
    }
    let name = args.opt::<String>("name")?.unwrap_or_else(|| format!("{}/0", config.host_if));
    let wanted = args.opt::<u64>("n")?;
    let host_if = config.host_if.clone();
    let index = dp.create_af_xdp(name, config, args.flag("mac-reuse")).about("host-if")?;
    let queues = dp.xdp.info(index).map_or(0, |i| i.queues as u64);
    if let Some(wanted) = wanted.filter(|w| *w != queues) {
        dp.delete_interface(index)?;
        let error = CliError::new(format!(
            "{host_if} has {queues} receive queues, and all must be bound: what arrives on the others would be lost; \
             not {wanted}"
        ));
        return Err(error.about("n"));
    }
    out.line(dp.interface_name(index));
    Ok(())
}

fn delete(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let index = match args.opt_interface("interface")? {
        Some(index) => index,
        None => args.u32("sw_if_index")?,
    };
    let index = SwIfIndex(index);
    in_turn(on, |dp| {
        if dp.xdp.info(index).is_some() {
            return Ok(());
        }
        let error = CliError::new(format!("{} is not an AF_XDP interface", dp.interface_name(index)));
        Err(error.about("interface").about("sw_if_index"))
    })?;
    delete_interface(on, index).about("sw_if_index")
}

#[derive(Serialize)]
struct TxRow {
    waiting: u32,
    stalls: u64,
    no_memory: u64,
    failed: u64,
    last_failure: Option<String>,
}

fn tx_row(info: TxInfo) -> TxRow {
    TxRow {
        waiting: info.held,
        stalls: info.stalls,
        no_memory: info.no_memory,
        failed: info.failed,
        last_failure: info.last_failure,
    }
}

#[derive(Serialize)]
struct XdpRow {
    name: String,
    host_if: String,
    netns: Option<String>,
    queues: usize,
    zero_copy: bool,
    tx_checksum: bool,
    partial_checksums: bool,
    reserved_buffers: u32,
    rx_dropped: u64,
    rx_invalid: u64,
    rx_ring_full: u64,
    rx_fill_empty: u64,
    tx_invalid: u64,
    tx_queues: Vec<TxRow>,
    lost: Option<String>,
}

fn show(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt_interface("interface")?.map(SwIfIndex);
    let chosen = dp.xdp.interfaces().filter(|i| only.is_none_or(|o| o == *i));
    let rows: Vec<XdpRow> = chosen
        .filter_map(|i| Some((dp.interface_name(i), dp.xdp.info(i)?)))
        .map(|(name, info)| XdpRow {
            name,
            host_if: info.host_if,
            netns: info.netns,
            queues: info.queues,
            zero_copy: info.capabilities.zero_copy,
            tx_checksum: info.capabilities.tx_checksum,
            partial_checksums: info.partial_checksums,
            reserved_buffers: info.reserved,
            rx_dropped: info.statistics.rx_dropped,
            rx_invalid: info.statistics.rx_invalid,
            rx_ring_full: info.statistics.rx_ring_full,
            rx_fill_empty: info.statistics.rx_fill_empty,
            tx_invalid: info.statistics.tx_invalid,
            tx_queues: info.tx.into_iter().map(tx_row).collect(),
            lost: info.lost,
        })
        .collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let netns = row.netns.as_ref().map_or(String::new(), |n| format!(" netns {n}"));
            let mode = if row.zero_copy { "zero-copy" } else { "copy" };
            let _ = writeln!(
                text,
                "{}\n  host-if {}{netns} queues {} mode {mode}",
                row.name, row.host_if, row.queues
            );
            let _ = writeln!(
                text,
                "  partial checksums {} tx checksum by kernel {} reserved buffers {}",
                row.partial_checksums, row.tx_checksum, row.reserved_buffers
            );
            let _ = writeln!(
                text,
                "  rx dropped {} invalid {} ring full {} fill empty {}, tx invalid {}",
                row.rx_dropped, row.rx_invalid, row.rx_ring_full, row.rx_fill_empty, row.tx_invalid
            );
            for (queue, tx) in row.tx_queues.iter().enumerate() {
                let last = tx.last_failure.as_ref().map_or(String::new(), |last| format!(" ({last})"));
                let _ = writeln!(
                    text,
                    "  tx queue {queue} waiting {} stalls {} wake-ups without memory {} failed {}{last}",
                    tx.waiting, tx.stalls, tx.no_memory, tx.failed
                );
            }
            if let Some(lost) = &row.lost {
                let _ = writeln!(text, "  out of use: {lost}");
            }
        }
    })
}
