//! Commands about memif.

use super::Done;
use crate::cli::{About, Args, CliError, Command, Hold, Output, Shown, in_turn};
use crate::dataplane::Dataplane;
use crate::interface::delete_interface;
use memif::{Mode, Role, Secret};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use wharf_drivers::memif::{Access, MemifConfig, MemifInfo};
use wharf_engine::SwIfIndex;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create memif socket",
        "id <u32> filename <path> [{allow-uid <u32>|allow-gid <u32>}...]",
        "Name a socket for memif interfaces",
        socket_create,
    ),
    Command::new("delete memif socket", "id <u32>", "Forget a socket without interfaces", socket_delete),
    Command::new(
        "create interface memif",
        "id <u32> [socket-id <u32>] [master|slave] [ring-size <u32>] [buffer-size <u32>] [hw-addr <mac>] [rx-queues <1-255>] [tx-queues <1-255>] [mode {ethernet|ip}] [secret <word>] [no-zero-copy]",
        "Create a memif interface",
        create,
    ),
    Command::long(
        "delete interface memif",
        "{<interface>|sw_if_index <u32>}",
        "Delete a memif interface",
        delete,
    ),
    Command::show("show memif", "[<interface>]", "Show memif sockets and interfaces", show),
];

fn socket_create(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let access = Access { uids: args.all("allow-uid")?, gids: args.all("allow-gid")? };
    dp.add_memif_socket(args.u32("id")?, &args.text("filename")?, access).about("id")
}

fn socket_delete(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    dp.delete_memif_socket(args.u32("id")?).about("id")
}

fn create(dp: &mut Dataplane, args: &Args, _: &mut Output<'_>) -> Done {
    let role = if args.flag("master") { Role::Server } else { Role::Client };
    let mut config = MemifConfig::new(args.opt::<u32>("socket-id")?.unwrap_or(0), args.u32("id")?, role);
    config.mode = if args.flag("ip") { Mode::Ip } else { Mode::Ethernet };
    config.ring_size = args.opt::<u32>("ring-size")?.unwrap_or(config.ring_size);
    config.buffer_size = args.opt::<u32>("buffer-size")?.unwrap_or(config.buffer_size);
    config.mac = args.opt::<[u8; 6]>("hw-addr")?;
    config.rx_queues = args.opt::<u16>("rx-queues")?.unwrap_or(config.rx_queues);
    config.tx_queues = args.opt::<u16>("tx-queues")?.unwrap_or(config.tx_queues);
    config.secret =
        args.opt::<String>("secret")?.map(|s| Secret::new(s.as_bytes())).transpose().about("secret")?;
    dp.create_memif(config).about("id")?;
    Ok(())
}

fn delete(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Done {
    let index = match args.opt_interface("interface")? {
        Some(index) => index,
        None => args.u32("sw_if_index")?,
    };
    let index = SwIfIndex(index);
    in_turn(on, |dp| {
        if dp.memif.info(index).is_some() {
            return Ok(());
        }
        let error = CliError::new(format!("{} is not a memif interface", dp.interface_name(index)));
        Err(error.about("interface").about("sw_if_index"))
    })?;
    delete_interface(on, index).about("sw_if_index")
}

#[derive(Serialize)]
struct View {
    sockets: Vec<Socket>,
    interfaces: Vec<Row>,
}

#[derive(Serialize)]
struct Socket {
    id: u32,
    listener: bool,
    interfaces: usize,
    filename: String,
    refused: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    remote_name: String,
    remote_interface: String,
    socket_id: u32,
    id: u32,
    role: &'static str,
    mode: &'static str,
    admin_up: bool,
    connected: bool,
    listener_fd: Option<i32>,
    conn_fd: Option<i32>,
    num_s2m_rings: usize,
    num_m2s_rings: usize,
    buffer_size: u32,
    regions: Vec<(usize, u64)>,
    rings: Vec<Ring>,
    local_disc_reason: Option<String>,
    remote_disc_reason: Option<String>,
    last_error: Option<String>,
    violations: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Ring {
    direction: &'static str,
    index: u8,
    region: u16,
    offset: u32,
    size: u16,
    int_fd: i32,
    head: u16,
    tail: u16,
    flags: u16,
    interrupts: u64,
    packets: u64,
    bytes: u64,
    lost: u64,
    ring_full: u64,
}

fn row(info: MemifInfo) -> Row {
    let ring = |r: &wharf_drivers::memif::RingInfo| Ring {
        direction: match r.direction {
            memif::Direction::M2S => "master-to-slave",
            memif::Direction::S2M => "slave-to-master",
        },
        index: r.index,
        region: r.region,
        offset: r.offset,
        size: r.ring_size,
        int_fd: r.int_fd.unwrap_or(-1),
        head: r.head,
        tail: r.tail,
        flags: r.flags,
        interrupts: r.interrupts,
        packets: r.packets,
        bytes: r.bytes,
        lost: r.lost,
        ring_full: r.ring_full,
    };
    Row {
        rings: info.rings.iter().map(ring).collect(),
        regions: info.regions.iter().map(|r| (r.index, r.size)).collect(),
        name: info.name,
        remote_name: info.remote_name,
        remote_interface: info.remote_interface,
        socket_id: info.socket_id,
        id: info.id,
        role: if info.role == Role::Server { "master" } else { "slave" },
        mode: if info.mode == Mode::Ip { "ip" } else { "ethernet" },
        admin_up: info.admin_up,
        connected: info.connected,
        listener_fd: info.listener_fd,
        conn_fd: info.conn_fd,
        num_s2m_rings: info.num_s2m_rings,
        num_m2s_rings: info.num_m2s_rings,
        buffer_size: info.buffer_size,
        local_disc_reason: info.local_disc_reason,
        remote_disc_reason: info.remote_disc_reason,
        last_error: info.last_error,
        violations: info.violations.into_iter().collect(),
    }
}

fn show(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let only = args.opt_interface("interface")?.map(SwIfIndex);
    let chosen = dp.memif.interfaces().filter(|i| only.is_none_or(|o| o == *i));
    let view = View {
        sockets: dp
            .memif
            .sockets()
            .into_iter()
            .map(|s| Socket {
                id: s.id,
                listener: s.listener,
                interfaces: s.interfaces,
                filename: s.filename,
                refused: s.refused.into_iter().collect(),
            })
            .collect(),
        interfaces: chosen.filter_map(|i| dp.memif.info(i)).map(row).collect(),
    };
    out.show(&view, |view, text| {
        text.push_str("sockets\n  id  listener    filename\n");
        for Socket { id, listener, interfaces, filename, refused } in &view.sockets {
            let listener = format!("{} ({interfaces})", if *listener { "yes" } else { "no" });
            let _ = writeln!(text, "  {id:<3} {listener:<11} {filename}");
            counts("      refused", refused, text);
        }
        view.interfaces.iter().for_each(|row| interface(row, text));
    })
}

/// What was counted by kind, if anything was; VPP has no such line.
fn counts(what: &str, kinds: &BTreeMap<String, u64>, text: &mut String) {
    if !kinds.is_empty() {
        let list: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        let _ = writeln!(text, "{what}: {}", list.join(", "));
    }
}

fn interface(row: &Row, text: &mut String) {
    let _ = writeln!(text, "\ninterface {}", row.name);
    let _ = writeln!(
        text,
        "  remote-name \"{}\"\n  remote-interface \"{}\"",
        row.remote_name, row.remote_interface
    );
    let _ = writeln!(text, "  socket-id {} id {} mode {}", row.socket_id, row.id, row.mode);
    let slave = if row.role == "slave" { " slave" } else { "" };
    let admin = if row.admin_up { " admin-up" } else { "" };
    let connected = if row.connected { " connected" } else { "" };
    let _ = writeln!(text, "  flags{admin}{slave}{connected}");
    let fd = |fd: Option<i32>| fd.unwrap_or(-1);
    let _ = writeln!(text, "  listener-fd {} conn-fd {}", fd(row.listener_fd), fd(row.conn_fd));
    let _ = writeln!(
        text,
        "  num-s2m-rings {} num-m2s-rings {} buffer-size {} num-regions {}",
        row.num_s2m_rings,
        row.num_m2s_rings,
        row.buffer_size,
        row.regions.len()
    );
    let reasons =
        [("local-disc-reason", &row.local_disc_reason), ("remote-disc-reason", &row.remote_disc_reason)];
    for (what, reason) in reasons.into_iter().chain([("last-error", &row.last_error)]) {
        if let Some(reason) = reason {
            let _ = writeln!(text, "  {what} \"{reason}\"");
        }
    }
    counts("  violations", &row.violations, text);
    for (index, size) in &row.regions {
        let _ = writeln!(text, "  region {index} size {size} fd -1");
    }
    for ring in &row.rings {
        let _ = writeln!(text, "    {} ring {}:", ring.direction, ring.index);
        let _ = writeln!(
            text,
            "      region {} offset {} ring-size {} int-fd {}",
            ring.region, ring.offset, ring.size, ring.int_fd
        );
        let _ = writeln!(
            text,
            "      head {} tail {} flags 0x{:04x} interrupts {}",
            ring.head, ring.tail, ring.flags, ring.interrupts
        );
    }
}
