//! A control plane with one API client, all in this process: for tests and fuzzing.

use super::modules::interface::{
    DeleteLoopback, DeleteSubif, PcapTraceOff, SwInterfaceDetails, SwInterfaceDump, WantInterfaceEvents,
};
use super::modules::ip::{IpTableAddDel, IpTableDump, IpTableFlush};
use super::modules::ip_neighbor::IpNeighborFlush;
use super::modules::l2::{BridgeDomainAddDel, BridgeDomainDetails, BridgeDomainDump};
use super::modules::memif::{
    MemifDelete, MemifSocketFilenameAddDel, MemifSocketFilenameDetails, MemifSocketFilenameDump,
};
use super::modules::pg::PgDeleteInterface;
use super::modules::types::{IfType, InterfaceIndex};
use super::modules::vxlan::{VxlanAddDelTunnelV2, VxlanTunnelV2Dump};
use super::registry::FRAME_HEADER;
use super::schema::Role;
use super::{
    ApiConfig, ApiServer, AutoReply, Call, Dump, Message, Reader, Registry, Request, Wire, Writer, modules,
    next_frame,
};
use crate::access::Rights;
use crate::cli::{Executor, Session};
use crate::dataplane::{Dataplane, engine_config};
use crate::shared::Shared;
use crate::shell::DaemonShell;
use crate::startup::{Cores, StartupConfig};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// The context of the ping that ends an exchange.
const LAST: u32 = u32::MAX;

/// The control plane with a small pool and one worker, its server, and a client.
pub struct Loopback {
    dataplane: Arc<Shared<Dataplane>>,
    shell: Arc<DaemonShell>,
    server: ApiServer,
    registry: Registry,
    client: UnixStream,
    /// Read behind the end of the last exchange: an event, perhaps not whole.
    input: Vec<u8>,
    dir: PathBuf,
}

impl std::fmt::Debug for Loopback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loopback").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Loopback {
    /// Starts all, with a directory of its own in the temporary one.
    ///
    /// # Errors
    /// What fails, as text.
    pub fn start() -> Result<Loopback, Box<dyn std::error::Error>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wharf-api-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir)?;
        let mut config = StartupConfig::default();
        config.buffers.buffers_per_numa = Some(1024);
        let dataplane = Dataplane::start(&engine_config(&config, &Cores::from_iter([0])), &dir, |_| {})?;
        let dataplane = Arc::new(Shared::new(dataplane));
        let shell = Arc::new(DaemonShell::new(Arc::clone(&dataplane))?);
        let path = dir.join("api.sock");
        let config =
            ApiConfig { path: path.clone(), access: Default::default(), clients: Default::default() };
        let server = ApiServer::start(&config, shell.clone())?;
        let client = UnixStream::connect(&path)?;
        client.set_nonblocking(true)?;
        Ok(Loopback {
            dataplane,
            shell,
            server,
            registry: Registry::new(&modules()),
            client,
            input: Vec::new(),
            dir,
        })
    }

    /// The state of the control plane.
    pub fn dataplane(&self) -> MutexGuard<'_, Dataplane> {
        self.dataplane.main()
    }

    /// All messages.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A directory that goes away with this.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What runs commands, for other threads too.
    pub fn shell(&self) -> Arc<DaemonShell> {
        Arc::clone(&self.shell)
    }

    /// What a command prints, or its error.
    pub fn command(&self, line: &str) -> Result<String, String> {
        let outcome = self.shell.execute(line, &Session::detached(Rights::ReadWrite));
        outcome.error.map_or(Ok(outcome.text), Err)
    }

    /// A message as it is sent, with a context.
    pub fn encode<M: Request>(&self, message: &M, context: u32) -> Vec<u8> {
        let mut out = Writer::default();
        self.registry.id(M::DEF).unwrap_or_default().put(&mut out);
        // The client index.
        0u32.put(&mut out);
        context.put(&mut out);
        message.put(&mut out);
        out.into_bytes()
    }

    /// Sends messages, given without frame header, and returns all that comes back.
    ///
    /// # Errors
    /// The server has closed the connection, or does not answer.
    pub fn exchange(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        self.exchange_while(requests, || {})
    }

    /// As [`Loopback::exchange`], while another client sends one ping after the other; how many of them were answered.
    ///
    /// # Errors
    /// As [`Loopback::exchange`].
    pub fn exchange_beside(&mut self, requests: &[Vec<u8>]) -> io::Result<(Vec<Vec<u8>>, usize)> {
        let mut other = UnixStream::connect(self.dir.join("api.sock"))?;
        other.set_nonblocking(true)?;
        let message = self.encode(&modules::memclnt::ControlPing {}, 0);
        let mut ping = vec![0; FRAME_HEADER];
        ping[8..12].copy_from_slice(&(message.len() as u32).to_be_bytes());
        ping.extend_from_slice(&message);
        other.write_all(&ping)?;
        let mut answered = 0;
        let answers = self.exchange_while(requests, || {
            if other.read(&mut [0; 256]).is_ok_and(|len| len > 0) && other.write_all(&ping).is_ok() {
                answered += 1;
            }
        })?;
        Ok((answers, answered))
    }

    fn exchange_while(
        &mut self,
        requests: &[Vec<u8>],
        mut meanwhile: impl FnMut(),
    ) -> io::Result<Vec<Vec<u8>>> {
        let ping = self.encode(&modules::memclnt::ControlPing {}, LAST);
        let mut output = Vec::new();
        for request in requests.iter().chain([&ping]) {
            output.extend_from_slice(&[0; 8]);
            output.extend_from_slice(&(request.len() as u32).to_be_bytes());
            output.extend_from_slice(&[0; FRAME_HEADER - 12]);
            output.extend_from_slice(request);
        }
        let (mut sent, mut answers) = (0, Vec::new());
        let mut buffer = vec![0; 64 << 10];
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let mut idle = true;
            meanwhile();
            match self.client.write(&output[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            {
                let now = Instant::now();
                let mut dataplane = self.dataplane.main();
                dataplane.process(now);
                self.server.process(&mut dataplane, now);
            }
            match self.client.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    idle = false;
                    self.input.extend_from_slice(&buffer[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            while let Ok(Some((message, len))) = next_frame(&self.input) {
                let message = message.to_vec();
                self.input.drain(..len);
                if message.get(2..6) == Some(&LAST.to_be_bytes()[..]) {
                    return Ok(answers);
                }
                answers.push(message);
            }
            if idle && sent == output.len() {
                // A job is under way on a thread of its own.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    fn one<M: Request>(&mut self, message: &M) -> Vec<Vec<u8>> {
        let request = self.encode(message, 1);
        let mut answers = self.exchange(&[request]).unwrap_or_default();
        answers.retain(|answer| !self.is_event(answer));
        answers
    }

    /// Sends a request whose reply is a retval, and returns that.
    ///
    /// # Errors
    /// The retval, unless it is 0.
    pub fn auto<M: AutoReply>(&mut self, message: &M) -> Result<(), i32> {
        let answers = self.one(message);
        let retval = answers.first().and_then(|answer| i32::take(&mut Reader::new(answer.get(6..)?)).ok());
        if retval == Some(0) { Ok(()) } else { Err(retval.unwrap_or(i32::MIN)) }
    }

    /// Sends a request, and returns its reply.
    ///
    /// # Errors
    /// The retval, unless it is 0.
    pub fn call<M: Call>(&mut self, message: &M) -> Result<M::Reply, i32> {
        let answers = self.one(message);
        let Some(answer) = answers.last().and_then(|answer| answer.get(6..)) else { return Err(i32::MIN) };
        let mut reader = Reader::new(answer);
        match i32::take(&mut reader) {
            Ok(0) => M::Reply::take(&mut reader).map_err(|_| i32::MIN),
            Ok(retval) => Err(retval),
            Err(_) => Err(i32::MIN),
        }
    }

    /// Asks for a dump.
    pub fn dump<M: Dump>(&mut self, message: &M) -> Vec<M::Details> {
        let indexed = M::Details::DEF.fields.first().is_some_and(|field| field.name == "client_index");
        let header = if indexed { 10 } else { 6 };
        let answers = self.one(message);
        let entries = answers
            .iter()
            .filter_map(|answer| M::Details::take(&mut Reader::new(answer.get(header..)?)).ok());
        entries.collect()
    }

    /// Deletes all that can be made, as a client does.
    ///
    /// # Errors
    /// What can't be deleted.
    pub fn delete_everything(&mut self) -> Result<(), String> {
        let failed = |what: String| move |retval: i32| format!("{what} can't be deleted: {retval}");
        let off = WantInterfaceEvents::default();
        self.auto(&off).map_err(failed("interest in events".into()))?;
        // There may be none.
        let _ = self.auto(&PcapTraceOff {});
        let tables = self.dump(&IpTableDump {});
        for table in tables.iter().map(|details| &details.table) {
            let flush = IpTableFlush { table: table.clone() };
            self.auto(&flush).map_err(failed(format!("table {}'s routes", table.table_id)))?;
        }
        let all = IpNeighborFlush { sw_if_index: InterfaceIndex::NONE, ..IpNeighborFlush::default() };
        self.auto(&all).map_err(failed("neighbours".into()))?;
        let every = SwInterfaceDump { sw_if_index: InterfaceIndex::NONE, ..SwInterfaceDump::default() };
        // Those that others stand on last, as most clients do; wharf takes any order.
        let mut interfaces = self.dump(&every);
        interfaces.sort_by_key(|interface| interface.r#type != IfType::IF_API_TYPE_SUB);
        for SwInterfaceDetails { sw_if_index, interface_name, interface_dev_type, r#type, .. } in interfaces {
            let deleted = match &*interface_dev_type.0 {
                // Its device is its parent's.
                _ if r#type == IfType::IF_API_TYPE_SUB => self.auto(&DeleteSubif { sw_if_index }),
                "Loopback" => self.auto(&DeleteLoopback { sw_if_index }),
                "memif" => self.auto(&MemifDelete { sw_if_index }),
                "pg" => self.auto(&PgDeleteInterface { sw_if_index }),
                "VXLAN" => {
                    let tunnels = self.dump(&VxlanTunnelV2Dump { sw_if_index });
                    tunnels.into_iter().try_for_each(|tunnel| {
                        self.call(&VxlanAddDelTunnelV2 {
                            is_add: false,
                            src_address: tunnel.src_address,
                            dst_address: tunnel.dst_address,
                            vni: tunnel.vni,
                            ..VxlanAddDelTunnelV2::default()
                        })
                        .map(drop)
                    })
                }
                _ => Ok(()),
            };
            deleted.map_err(failed(interface_name.0))?;
        }
        let domains = BridgeDomainDump { bd_id: u32::MAX, ..BridgeDomainDump::default() };
        for BridgeDomainDetails { bd_id, .. } in self.dump(&domains) {
            let delete = BridgeDomainAddDel { bd_id, is_add: false, ..BridgeDomainAddDel::default() };
            self.auto(&delete).map_err(failed(format!("bridge domain {bd_id}")))?;
        }
        for MemifSocketFilenameDetails { socket_id, .. } in self.dump(&MemifSocketFilenameDump {}) {
            if socket_id != 0 {
                let delete = MemifSocketFilenameAddDel { socket_id, ..MemifSocketFilenameAddDel::default() };
                self.auto(&delete).map_err(failed(format!("memif socket {socket_id}")))?;
            }
        }
        for table in tables.into_iter().map(|details| details.table).filter(|table| table.table_id != 0) {
            let id = table.table_id;
            self.auto(&IpTableAddDel { is_add: false, table }).map_err(failed(format!("table {id}")))?;
        }
        for kind in ["acl", "macip acl"] {
            let lists = self.command(&format!("show acl-plugin {kind} --json"))?;
            let lists: serde_json::Value = serde_json::from_str(&lists).map_err(|error| error.to_string())?;
            for index in lists.as_array().into_iter().flatten().filter_map(|list| list["index"].as_u64()) {
                self.command(&format!("delete acl-plugin {kind} index {index}"))?;
            }
        }
        Ok(())
    }

    /// All objects that there are, as commands show them, and the buffers and descriptors in use.
    ///
    /// # Errors
    /// A command that fails.
    pub fn inventory(&self) -> Result<Vec<String>, String> {
        const SHOWS: [&str; 12] = [
            "interface",
            "interface address",
            "interface span",
            "ip fib",
            "ip neighbors",
            "bridge-domain",
            "l2fib",
            "vxlan tunnel",
            "memif",
            "packet-generator",
            "acl-plugin acl",
            "acl-plugin macip acl",
        ];
        let mut all = Vec::new();
        for show in SHOWS {
            all.push(format!("{show}:\n{}", self.command(&format!("show {show}"))?));
        }
        let descriptors = std::fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
        let targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let mut targets: Vec<String> = targets.map(|target| target.display().to_string()).collect();
        // Files may be the test's own.
        targets.retain(|target| !target.starts_with('/') || target.starts_with("/memfd:"));
        targets.sort();
        all.push(format!("descriptors:\n{}", targets.join("\n")));
        Ok(all)
    }

    /// Whether the answers are those of the requests: each answered, once, in order, by what its definition says. Events may
    /// come in between. The contexts of the requests are their places.
    ///
    /// # Errors
    /// What is not so.
    pub fn check_answers(&self, requests: &[Vec<u8>], answers: &[Vec<u8>]) -> Result<(), String> {
        let name = |message: &[u8]| {
            let id = u16::take(&mut Reader::new(message)).unwrap_or_default();
            self.registry.def(id).map_or("?", |def| def.name)
        };
        let mut answers = answers.iter().filter(|answer| !self.is_event(answer)).peekable();
        for (place, request) in requests.iter().enumerate() {
            let asked = name(request);
            let role = u16::take(&mut Reader::new(request)).ok().and_then(|id| self.registry.def(id));
            let (details, reply) = match role.map(|def| def.role) {
                Some(Role::Call(reply)) => (None, Some(reply)),
                Some(Role::Dump(details)) => (Some(details), None),
                Some(Role::Get(details, reply)) => (Some(details), Some(reply)),
                Some(Role::Silent) => (None, None),
                Some(Role::Answer) | None => return Err(format!("{asked} is no request")),
            };
            let context = |answer: &[u8]| {
                let at = if self.indexed(answer) { 6 } else { 2 };
                answer.get(at..at + 4).map(<[u8]>::to_vec)
            };
            let wanted = Some((place as u32).to_be_bytes().to_vec());
            let is =
                |answer: &[u8], what: Option<&str>| what == Some(name(answer)) && context(answer) == wanted;
            while answers.next_if(|answer| is(answer, details)).is_some() {}
            if reply.is_some() && answers.next_if(|answer| is(answer, reply)).is_none() {
                let next = answers.peek().map_or("nothing", |answer| name(answer));
                return Err(format!("request {place}, {asked}: {next} in place of its reply"));
            }
        }
        answers.next().map_or(Ok(()), |more| Err(format!("{} that nobody asked for", name(more))))
    }

    fn is_event(&self, answer: &[u8]) -> bool {
        let def = u16::take(&mut Reader::new(answer)).ok().and_then(|id| self.registry.def(id));
        def.is_some_and(|def| def.name.ends_with("_event") || def.name.ends_with("_event_v2"))
    }

    fn indexed(&self, answer: &[u8]) -> bool {
        let id = u16::take(&mut Reader::new(answer)).unwrap_or_default();
        self.registry.def(id).and_then(|def| def.fields.first()).is_some_and(|f| f.name == "client_index")
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.dataplane().shut_down();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
