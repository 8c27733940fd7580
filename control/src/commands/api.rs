//! Commands about the binary API.

use crate::access::{Clients, Rights};
use crate::api::{Registry, modules};
use crate::cli::{Args, CliError, Command, Output, Row, Shown};
use crate::dataplane::Dataplane;
use rustix::fs::OFlags;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "api trace",
        "{on|off|free|status|dump|save <file:word>}",
        "Keep what API clients ask for, print it, or save it in the system's temporary directory",
        trace,
    ),
    Command::show("show api clients", "", "Show who is connected to the binary API", |dp, _, out| {
        clients(&dp.clients[0], out)
    }),
    Command::show("show cli-sessions", "", "Show who is connected to the command line", |dp, _, out| {
        clients(&dp.clients[1], out)
    }),
    Command::show("show api messages", "", "Show the messages of the binary API", messages),
];

fn trace(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let trace = &mut dp.api_trace;
    match () {
        () if args.flag("on") => trace.set(true),
        () if args.flag("off") => trace.set(false),
        () if args.flag("free") => trace.clear(),
        () if args.flag("dump") => out.text(trace.text(&Registry::new(&modules()))),
        () if args.flag("status") => {
            let (kept, wrapped) = trace.kept();
            let state = if trace.is_on() { "enabled" } else { "disabled" };
            let older = if wrapped { ", older ones are gone" } else { "" };
            out.line(format!("API trace {state}, {kept} requests{older}"));
        }
        () => {
            let name = args.text("file")?;
            let path = save(&name, &trace.save(&Registry::new(&modules())))?;
            out.line(format!("API trace saved to {path}"));
        }
    }
    Ok(())
}

/// As VPP has it: a bare name, in the temporary directory. That is everybody's, so no link is followed.
fn save(name: &str, bytes: &[u8]) -> Result<String, CliError> {
    if name.contains('/') || name.starts_with('.') {
        return Err(CliError::new(format!("`{name}' is not the name of a file")));
    }
    let path = std::env::temp_dir().join(name);
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| CliError::new(format!("cannot write {shown}: {error}"));
    let nofollow = OFlags::NOFOLLOW.bits() as i32;
    let file = File::options().write(true).create(true).truncate(true).custom_flags(nofollow).open(&path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(failed)?;
    Ok(shown)
}

#[derive(Serialize)]
struct MessageRow {
    id: u16,
    name: &'static str,
    crc: String,
    answered: bool,
}

fn messages(_: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let registry = Registry::new(&modules());
    let row = |(id, def): (u16, &'static crate::api::schema::MessageDef)| MessageRow {
        id,
        name: def.name,
        crc: format!("0x{:08x}", def.crc),
        answered: registry.is_answered(def),
    };
    let rows: Vec<MessageRow> = registry.messages().map(row).collect();
    out.show(&rows, |rows, text| {
        for row in rows {
            let _ = writeln!(text, "{:>5} {:<44} {}", row.id, row.name, row.crc);
        }
    })
}

#[derive(Serialize)]
struct ClientRow {
    name: String,
    pid: i32,
    uid: u32,
    gid: u32,
    role: Rights,
    requests: u64,
}

fn clients(clients: &Clients, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let row = |(_, record): (u64, crate::access::ClientRecord)| ClientRow {
        name: record.name,
        pid: record.peer.pid,
        uid: record.peer.uid,
        gid: record.peer.gid,
        role: record.rights,
        requests: record.requests,
    };
    let rows: Vec<ClientRow> = clients.list().into_iter().map(row).collect();
    out.show(&rows, |rows, text| {
        let header = Row::new(text).left(32, "Name").right(9, "PID").right(9, "UID").right(9, "GID");
        header.right(12, "Role").right(12, "Requests").end();
        for row in rows {
            let line = Row::new(text).left(32, &row.name).right(9, row.pid).right(9, row.uid);
            line.right(9, row.gid).right(12, row.role).right(12, row.requests).end();
        }
    })
}
