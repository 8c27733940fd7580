//! The XDP program that steers frames to the sockets: loaded, attached, told what to steal.
//!
//! Its source is drivers/xdp/wharf.bpf.c; the object beside it is part of this binary.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, XskMap},
    programs::{ProgramError, Xdp, XdpMode, links::FdLink},
    util::KernelVersion,
};
use rustix::io::Errno;

use super::{
    Holder, XdpError,
    ethtool::Feature,
    link::{Link, Links},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../xdp/wharf.bpf.o");

/// Queues the program can steer, the size of its socket map.
pub const MAX_QUEUES: u32 = 64;
/// Entries of its keep list and of its steal list.
pub const MAX_LIST: usize = 1024;

const LOADING: &str = "loading and attaching an XDP program";
const CAPABILITIES: &str = "CAP_BPF and CAP_NET_ADMIN";

/// Where the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes a packet of the frame.
    #[default]
    Native,
    /// In the kernel's generic hook, slower, for drivers without XDP. Refused while the interface
    /// (or its veth peer, if in the same namespace) segments in software or hardware: larger
    /// frames than a buffer holds would arrive, and vanish.
    Generic,
}

/// Which frames go to the sockets. The rest stays with the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steal {
    /// None: as if the program were not there.
    Nothing,
    /// All, as is right for a veth whose other end is a container.
    Everything,
    /// All but ARP, IPv6 neighbour discovery, IP fragments, and TCP or UDP to the ports kept, as is right for
    /// an uplink that the host itself is reached by.
    AllBut {
        /// Destination ports that stay with the kernel.
        keep: Vec<KeptPort>,
    },
    /// Only IP packets to these destination addresses.
    OnlyTo {
        /// Destination addresses.
        addresses: Vec<IpAddr>,
    },
}

/// A port of a protocol, as destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptPort {
    /// A TCP port.
    Tcp(u16),
    /// A UDP port.
    Udp(u16),
}

impl KeptPort {
    /// The key of `keep_ports`.
    fn key(self) -> u32 {
        match self {
            KeptPort::Tcp(port) => 6 << 16 | u32::from(port),
            KeptPort::Udp(port) => 17 << 16 | u32::from(port),
        }
    }
}

impl Steal {
    /// The program's `enum mode`.
    fn mode(&self) -> u32 {
        match self {
            Steal::Nothing => 0,
            Steal::Everything => 1,
            Steal::AllBut { .. } => 2,
            Steal::OnlyTo { .. } => 3,
        }
    }

    fn ports(&self) -> Result<BTreeSet<u32>, XdpError> {
        match self {
            Steal::AllBut { keep } => bounded(keep.iter().map(|port| port.key()).collect()),
            _ => Ok(BTreeSet::new()),
        }
    }

    fn addresses(&self) -> Result<BTreeSet<[u8; 16]>, XdpError> {
        match self {
            Steal::OnlyTo { addresses } => bounded(addresses.iter().map(|address| key(*address)).collect()),
            _ => Ok(BTreeSet::new()),
        }
    }
}

/// The key of `steal_addresses`.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

fn bounded<T>(list: BTreeSet<T>) -> Result<BTreeSet<T>, XdpError> {
    if list.len() > MAX_LIST {
        return Err(XdpError::Config(format!("a list of {} is too long: at most {MAX_LIST}", list.len())));
    }
    Ok(list)
}

/// The program on an interface. It is detached, and the interface the kernel's again, when this
/// value is dropped or the process ends in any way.
pub struct XdpProgram {
    // Before `ebpf`: detach first, then free the maps.
    _link: FdLink,
    ebpf: Ebpf,
    interface: String,
}

/// The program in the kernel, not attached yet.
pub struct LoadedProgram {
    ebpf: Ebpf,
    name: &'static str,
}

impl LoadedProgram {
    /// Loads the program. With `multi_buffer` it accepts packets larger than a buffer; the sockets must too.
    ///
    /// # Errors
    ///
    /// [`XdpError::Privilege`], [`XdpError::KernelLacks`], [`XdpError::Program`].
    pub fn load(multi_buffer: bool) -> Result<LoadedProgram, XdpError> {
        // Below 5.9 a program can be attached by netlink only, and stays when we are killed.
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 9, 0)) {
            return Err(XdpError::KernelLacks { feature: "bpf_link for XDP (5.9 and later)" });
        }
        let ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| loading(&error))?;
        let name = if multi_buffer { "wharf_xdp_frags" } else { "wharf_xdp" };
        let mut loaded = LoadedProgram { ebpf, name };
        loaded.program()?.load().map_err(|error| loading(&error))?;
        Ok(loaded)
    }

    fn program(&mut self) -> Result<&mut Xdp, XdpError> {
        let program = self.ebpf.program_mut(self.name);
        let program = program.ok_or_else(|| XdpError::Program(format!("there is no {} in it", self.name)))?;
        program.try_into().map_err(|error: ProgramError| loading(&error))
    }

    /// Attaches it to an interface, in the network namespace of the calling thread. It steals nothing before
    /// [`XdpProgram::steal`] says so.
    ///
    /// # Errors
    ///
    /// [`XdpError::ProgramAttached`], [`XdpError::MtuTooLarge`], [`XdpError::TooFewQueues`],
    /// [`XdpError::SegmentationOffload`], [`XdpError::Unsupported`], [`XdpError::Privilege`] and others.
    pub fn attach(mut self, link: &Link, mode: AttachMode) -> Result<XdpProgram, XdpError> {
        let native = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => {
                refuse_segmentation(link)?;
                XdpMode::Skb
            }
        };
        let program = self.program()?;
        let id = program
            .attach_to_if_index(link.ifindex, native)
            .map_err(|error| attaching(&error, link, mode))?;
        let attached = program.take_link(id).and_then(|link| {
            FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
        });
        let attached = attached.map_err(|error| attaching(&error, link, mode))?;
        Ok(XdpProgram { _link: attached, ebpf: self.ebpf, interface: link.name.clone() })
    }
}

impl XdpProgram {
    /// [`LoadedProgram::load`] and [`LoadedProgram::attach`].
    ///
    /// # Errors
    ///
    /// Theirs.
    pub fn attach(link: &Link, mode: AttachMode, multi_buffer: bool) -> Result<XdpProgram, XdpError> {
        LoadedProgram::load(multi_buffer)?.attach(link, mode)
    }

    /// Steers a queue's frames to a socket bound to it.
    ///
    /// # Errors
    ///
    /// [`XdpError::Config`] when `queue` is [`MAX_QUEUES`] or more; [`XdpError::System`].
    pub fn set_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), XdpError> {
        let fd = socket.as_fd().as_raw_fd();
        self.sockets()?.set(queue, fd, 0).map_err(|error| match error {
            MapError::OutOfBounds { .. } => XdpError::Config(format!(
                "queue {queue} is more than AF_XDP can serve here ({MAX_QUEUES} queues)"
            )),
            other => map_failed(other),
        })
    }

    /// Leaves a queue's frames to the kernel. Closing the socket does the same.
    ///
    /// # Errors
    ///
    /// As [`XdpProgram::set_socket`]; no error when there was none.
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), XdpError> {
        match self.sockets()?.unset(queue) {
            Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(map_failed(error)),
        }
    }

    /// Says what to steal from now on. No frame is judged by a half-written list: entries are
    /// added first, the mode changes next, old entries go last.
    ///
    /// # Errors
    ///
    /// [`XdpError::Config`] when a list is longer than [`MAX_LIST`]; [`XdpError::System`].
    pub fn steal(&mut self, what: &Steal) -> Result<(), XdpError> {
        let (ports, addresses) = (what.ports()?, what.addresses()?);
        self.update("keep_ports", &ports, &BTreeSet::new())?;
        self.update("steal_addresses", &addresses, &BTreeSet::new())?;
        let mut mode: Array<&mut MapData, u32> = Array::try_from(self.map("mode")?).map_err(map_failed)?;
        mode.set(0, what.mode(), 0).map_err(map_failed)?;
        let stale = self.keys::<u32>("keep_ports")?.difference(&ports).copied().collect();
        self.update("keep_ports", &BTreeSet::new(), &stale)?;
        let stale = self.keys::<[u8; 16]>("steal_addresses")?.difference(&addresses).copied().collect();
        self.update("steal_addresses", &BTreeSet::new(), &stale)
    }

    /// The interface it is attached to.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    fn sockets(&mut self) -> Result<XskMap<&mut MapData>, XdpError> {
        XskMap::try_from(self.map("xsks")?).map_err(map_failed)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map, XdpError> {
        self.ebpf.map_mut(name).ok_or_else(|| XdpError::Program(format!("there is no map {name} in it")))
    }

    fn keys<K: aya::Pod + Ord>(&mut self, name: &str) -> Result<BTreeSet<K>, XdpError> {
        let map: HashMap<&mut MapData, K, u8> = HashMap::try_from(self.map(name)?).map_err(map_failed)?;
        map.keys().collect::<Result<_, _>>().map_err(map_failed)
    }

    fn update<K: aya::Pod>(
        &mut self,
        name: &str,
        add: &BTreeSet<K>,
        remove: &BTreeSet<K>,
    ) -> Result<(), XdpError> {
        let mut map: HashMap<&mut MapData, K, u8> = HashMap::try_from(self.map(name)?).map_err(map_failed)?;
        for key in remove {
            map.remove(key).map_err(map_failed)?;
        }
        for key in add {
            map.insert(key, 1, 0).map_err(map_failed)?;
        }
        Ok(())
    }
}

fn map_failed(error: MapError) -> XdpError {
    XdpError::system("writing a map of the XDP program", io::Error::other(error))
}

/// Which offloads would send us frames too large, and how to switch them off.
fn refuse_segmentation(link: &Link) -> Result<(), XdpError> {
    let mut links = Links::open()?;
    let mut names = vec![link.name.clone()];
    if let Some(peer) = link.peer {
        names.push(links.by_index(peer)?.name);
    }
    for name in names {
        let mut features = Vec::new();
        for feature in [Feature::Tso, Feature::Gso, Feature::Lro] {
            if links.feature(&name, feature)? {
                features.push(format!("{} off", feature.name()));
            }
        }
        if !features.is_empty() {
            return Err(XdpError::SegmentationOffload { interface: name, features: features.join(" ") });
        }
    }
    Ok(())
}

/// Translates what loading failed with.
fn loading(error: &(dyn std::error::Error + 'static)) -> XdpError {
    match errno_of(error) {
        Some(Errno::PERM | Errno::ACCESS) if !matches!(verifier_log(error), Some(log) if !log.is_empty()) => {
            XdpError::Privilege { action: LOADING, capability: CAPABILITIES }
        }
        Some(Errno::NOSYS) => XdpError::KernelLacks { feature: "BPF (CONFIG_BPF_SYSCALL)" },
        _ => XdpError::Program(chain(error)),
    }
}

/// Translates what attaching failed with.
fn attaching(error: &ProgramError, link: &Link, mode: AttachMode) -> XdpError {
    let interface = link.name.clone();
    match errno_of(error) {
        Some(Errno::BUSY | Errno::EXIST) => {
            let now = Links::open().and_then(|mut links| links.by_index(link.ifindex));
            let program = now.ok().and_then(|link| link.xdp_program).unwrap_or(0);
            XdpError::ProgramAttached { interface, program, holder: Holder::of_program(program) }
        }
        Some(Errno::RANGE) => XdpError::MtuTooLarge { interface, peer: link.is_veth },
        Some(Errno::NOSPC) => XdpError::TooFewQueues { interface },
        Some(Errno::OPNOTSUPP) => {
            let feature = match mode {
                AttachMode::Native => "native XDP",
                AttachMode::Generic => "generic XDP",
            };
            XdpError::Unsupported { interface, feature }
        }
        Some(Errno::NODEV) => XdpError::NoInterface { interface },
        Some(Errno::PERM | Errno::ACCESS) => {
            XdpError::Privilege { action: LOADING, capability: CAPABILITIES }
        }
        _ => XdpError::system(
            format!("attaching the XDP program to {interface}"),
            io::Error::other(chain(error)),
        ),
    }
}

/// The kernel's answer behind an error of aya's.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(Errno::from_io_error) {
            return Some(errno);
        }
        next = error.source();
    }
    None
}

/// What the verifier had to say.
fn verifier_log(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError { verifier_log, .. }) => Some(verifier_log.to_string()),
        _ => None,
    }
}

/// An error with all its reasons, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(reason) = next {
        text = format!("{text}: {reason}");
        next = reason.source();
    }
    text
}
