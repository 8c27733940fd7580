//! Opening a socket: register the buffers, map the rings, bind to one queue of one interface.

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags},
    net::{
        AddressFamily, SocketFlags, SocketType, sockopt,
        xdp::{
            SocketAddrXdp, SocketAddrXdpFlags, XdpOptionsFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
        },
    },
    process::{Resource, Rlimit},
};

use super::{
    Area, CompletionRing, FillRing, RxQueue, RxRing, TxQueue, TxRing, XdpError, error,
    metadata::TX_METADATA_LEN,
    queue::{DEFAULT_TX_BUDGET, Port},
    rings::{Layout, Memory},
};

/// How often, and for how long, a queue in use is asked for again. The socket of a process that
/// was killed lets go of it a moment after.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Option of SOL_XDP (linux/if_xdp.h, since 6.17): frames sent for one system call in copy mode.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
/// One vector; but the kernel accepts 32 up to the ring's size.
const TX_BUDGET: u32 = 256;

const SO_BUSY_POLL: c_int = 46;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Entries of each ring. Powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Fill ring: at least as many as RX, so that every receive can be matched by a refill.
    pub fill: u32,
    /// RX ring.
    pub rx: u32,
    /// TX ring.
    pub tx: u32,
    /// Completion ring: at least as many as TX, or the kernel stops sending before we drain it.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> RingSizes {
        RingSizes { fill: 2048, rx: 1024, tx: 1024, completion: 1024 }
    }
}

impl RingSizes {
    fn check(&self) -> Result<(), XdpError> {
        for (name, size) in
            [("fill", self.fill), ("rx", self.rx), ("tx", self.tx), ("completion", self.completion)]
        {
            if !size.is_power_of_two() || size > 1 << 20 {
                return Err(XdpError::Config(format!(
                    "the {name} ring's size {size} is not a power of two up to {}",
                    1 << 20
                )));
            }
        }
        if self.fill < self.rx || self.completion < self.tx {
            return Err(XdpError::Config(
                "the fill ring must not be smaller than rx, nor the completion ring than tx".into(),
            ));
        }
        Ok(())
    }
}

/// Who moves the bytes between device and buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// The device if it can, else the kernel.
    #[default]
    Auto,
    /// The kernel copies.
    Copy,
    /// The device, or the bind fails. veth can't.
    ZeroCopy,
}

/// What to open. The socket belongs to the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Name of the interface, for messages.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Queue to bind to. All receive queues of an interface must be bound, or the frames of the
    /// others go to the kernel.
    pub queue: u32,
    /// The packet buffers.
    pub area: Area,
    /// Ring sizes.
    pub sizes: RingSizes,
    /// Copy mode.
    pub copy: CopyMode,
    /// Accept packets that span several buffers (XDP_USE_SG, since 6.6). The interface's program
    /// must be the multi-buffer one.
    pub multi_buffer: bool,
}

/// A bound socket.
pub struct XskSocket {
    /// Receiving half. Both halves may go to different threads; the socket is closed when both
    /// are gone.
    pub rx: RxQueue,
    /// Sending half.
    pub tx: TxQueue,
    /// What was granted.
    pub capabilities: Capabilities,
    /// For statistics, from any thread.
    pub monitor: SocketMonitor,
}

/// What kernel and device granted to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The device reads and writes the buffers itself.
    pub zero_copy: bool,
    /// [`TxMetadata`](super::TxMetadata) may ask for a checksum. False where the kernel does not
    /// know TX metadata (before 6.8), and in zero-copy mode, where a driver that does not would
    /// ignore the request silently: then finish the checksum in software.
    pub tx_checksum: bool,
}

impl XskSocket {
    /// Opens a socket, registers the area, maps the rings and binds. When the queue is in use it
    /// retries for two seconds, sleeping: not for a worker to call.
    ///
    /// # Errors
    ///
    /// Any [`XdpError`] but those about programs. Nothing stays behind.
    pub fn open(config: &SocketConfig) -> Result<XskSocket, XdpError> {
        config.sizes.check()?;
        let fd = socket()?;
        let metadata = register(fd.as_fd(), &config.area)?;
        let (fill, rx, tx, completion) = map_rings(fd.as_fd(), &config.sizes)?;
        bind(fd.as_fd(), config)?;
        raise_tx_budget(fd.as_fd(), config.sizes.tx)?;
        let zero_copy = sockopt::xdp_options(&fd)
            .map_err(|errno| XdpError::system("asking for XDP_OPTIONS", errno))?
            .contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);

        let port = Arc::new(Port::Socket(fd));
        Ok(XskSocket {
            monitor: SocketMonitor(Arc::downgrade(&port)),
            rx: RxQueue::new(fill, rx, config.area, port.clone()),
            tx: TxQueue::new(tx, completion, config.area, zero_copy, port),
            capabilities: Capabilities { zero_copy, tx_checksum: metadata && !zero_copy },
        })
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rx.as_fd()
    }
}

/// A socket that is not bound: whether the process may have one shows here.
pub(super) fn socket() -> Result<OwnedFd, XdpError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None).map_err(error::opening)
}

/// Registers the area as UMEM. Tells whether the kernel takes TX metadata.
fn register(fd: BorrowedFd<'_>, area: &Area) -> Result<bool, XdpError> {
    let mut umem = XdpUmemReg {
        addr: area.base().expose_provenance() as u64,
        len: area.bytes(),
        chunk_size: area.chunk_size(),
        headroom: 0,
        flags: XdpUmemRegFlags::from_bits_retain(
            libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG | libc::XDP_UMEM_TX_METADATA_LEN,
        ),
        tx_metadata_len: TX_METADATA_LEN,
    };
    match sockopt::set_xdp_umem_reg(fd, umem) {
        Ok(()) => return Ok(true),
        // Kernels before 6.8 refuse the flag.
        Err(Errno::INVAL) => {}
        Err(errno) => return Err(error::registering(errno, area.bytes())),
    }
    umem.flags = XdpUmemRegFlags::XDP_UMEM_UNALIGNED_CHUNK_FLAG;
    umem.tx_metadata_len = 0;
    sockopt::set_xdp_umem_reg(fd, umem).map_err(|errno| error::registering(errno, area.bytes()))?;
    Ok(false)
}

/// A mapped ring.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is only unmapped through this value; what is in it is guarded by `rings`.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are what mmap returned and was asked for; the rings keep this
        // value for as long as they use the memory.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) } {
            tracing::error!(%errno, "unmapping an AF_XDP ring");
        }
    }
}

fn map_rings(
    fd: BorrowedFd<'_>,
    sizes: &RingSizes,
) -> Result<(FillRing, RxRing, TxRing, CompletionRing), XdpError> {
    let failed = |errno| XdpError::system("creating the rings of an AF_XDP socket", errno);
    sockopt::set_xdp_umem_fill_ring_size(fd, sizes.fill).map_err(failed)?;
    sockopt::set_xdp_umem_completion_ring_size(fd, sizes.completion).map_err(failed)?;
    sockopt::set_xdp_rx_ring_size(fd, sizes.rx).map_err(failed)?;
    sockopt::set_xdp_tx_ring_size(fd, sizes.tx).map_err(failed)?;
    let offsets = sockopt::xdp_mmap_offsets(fd).map_err(failed)?;

    let (layout, memory) = map_ring(fd, &offsets.fr, sizes.fill, libc::XDP_UMEM_PGOFF_FILL_RING)?;
    // SAFETY: `map_ring` returns pointers into the mapping it returns; the socket is new, and this
    // is the only place that makes its rings, each once.
    let fill = unsafe { FillRing::new(layout, memory) };
    let (layout, memory) = map_ring(fd, &offsets.rx, sizes.rx, libc::XDP_PGOFF_RX_RING as u64)?;
    // SAFETY: as for `fill`.
    let rx = unsafe { RxRing::new(layout, memory) };
    let (layout, memory) = map_ring(fd, &offsets.tx, sizes.tx, libc::XDP_PGOFF_TX_RING as u64)?;
    // SAFETY: as for `fill`.
    let tx = unsafe { TxRing::new(layout, memory) };
    let (layout, memory) = map_ring(fd, &offsets.cr, sizes.completion, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
    // SAFETY: as for `fill`.
    let completion = unsafe { CompletionRing::new(layout, memory) };
    Ok((fill, rx, tx, completion))
}

/// Maps the ring of `size` entries at file offset `page`.
fn map_ring<T>(
    fd: BorrowedFd<'_>,
    offsets: &XdpRingOffset,
    size: u32,
    page: u64,
) -> Result<(Layout<T>, Memory), XdpError> {
    let flags =
        offsets.flags.ok_or(XdpError::KernelLacks { feature: "AF_XDP ring flags (5.4 and later)" })?;
    let len = offsets.desc as usize + size as usize * size_of::<T>();
    // Index and flag words precede the entries in all kernels; pointers are made on that ground.
    let words = [offsets.producer, offsets.consumer, flags];
    if words.iter().any(|&word| word % 4 != 0 || word + 4 > offsets.desc)
        || !offsets.desc.is_multiple_of(align_of::<T>() as u64)
    {
        return Err(XdpError::system("mapping the rings of an AF_XDP socket", Errno::PROTO));
    }
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::POPULATE,
            fd,
            page,
        )
    };
    let start = start.map_err(|errno| XdpError::system("mapping the rings of an AF_XDP socket", errno))?;
    let start = NonNull::new(start.cast::<u8>())
        .ok_or_else(|| XdpError::system("mapping the rings of an AF_XDP socket", Errno::NOMEM))?;
    let mapping = Mapping { start, len };
    // SAFETY: checked above to lie before `desc`, which is within the mapping.
    let at = |offset: u64| unsafe { start.add(offset as usize) };
    let layout = Layout {
        producer: at(offsets.producer).cast(),
        consumer: at(offsets.consumer).cast(),
        flags: at(flags).cast(),
        entries: at(offsets.desc).cast(),
        size,
    };
    Ok((layout, Arc::new(mapping)))
}

fn bind(fd: BorrowedFd<'_>, config: &SocketConfig) -> Result<(), XdpError> {
    let mut flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    match config.copy {
        CopyMode::Auto => {}
        CopyMode::Copy => flags |= SocketAddrXdpFlags::XDP_COPY,
        CopyMode::ZeroCopy => flags |= SocketAddrXdpFlags::XDP_ZEROCOPY,
    }
    if config.multi_buffer {
        flags |= SocketAddrXdpFlags::XDP_USE_SG;
    }
    let feature = match config.copy {
        CopyMode::ZeroCopy => "zero-copy AF_XDP",
        _ if config.multi_buffer => "multi-buffer AF_XDP",
        _ => "AF_XDP",
    };
    let address = SocketAddrXdp::new(flags, config.ifindex, config.queue);
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match rustix::net::bind(fd, &address) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
            Err(errno) => return Err(error::binding(errno, &config.interface, config.queue, feature)),
        }
    }
}

/// One system call then sends a whole vector instead of 32 frames. Older kernels don't know it.
fn raise_tx_budget(fd: BorrowedFd<'_>, ring: u32) -> Result<(), XdpError> {
    let budget = TX_BUDGET.min(ring);
    if budget <= DEFAULT_TX_BUDGET {
        return Ok(());
    }
    match set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget.cast_signed()) {
        Ok(()) | Err(Errno::NOPROTOOPT) => Ok(()),
        Err(errno) => Err(XdpError::system("setting XDP_MAX_TX_SKB_BUDGET", errno)),
    }
}

fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads four bytes at the address of `value`.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Busy polling: the device's receive work is done inside our system calls, on our core, instead
/// of in interrupts (Documentation/networking/napi.rst). Off unless asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call may poll, in microseconds (SO_BUSY_POLL).
    pub microseconds: u16,
    /// Frames per poll (SO_BUSY_POLL_BUDGET).
    pub budget: u16,
}

impl BusyPoll {
    /// Switches it on for a socket. Needs the interface's `napi_defer_hard_irqs` and
    /// `gro_flush_timeout` to be set to be of use.
    ///
    /// # Errors
    ///
    /// [`XdpError::Privilege`] without CAP_NET_ADMIN.
    pub fn apply(&self, socket: impl AsFd) -> Result<(), XdpError> {
        for (name, value) in [
            (SO_PREFER_BUSY_POLL, 1),
            (SO_BUSY_POLL, c_int::from(self.microseconds)),
            (SO_BUSY_POLL_BUDGET, c_int::from(self.budget)),
        ] {
            set_option(socket.as_fd(), libc::SOL_SOCKET, name, value).map_err(|errno| match errno {
                Errno::PERM => XdpError::Privilege { action: "busy polling", capability: "CAP_NET_ADMIN" },
                other => XdpError::system("setting busy polling", other),
            })?;
        }
        Ok(())
    }
}

/// The kernel's counters of a socket (XDP_STATISTICS), since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received frames dropped: too large for a buffer, or no room for another reason.
    pub rx_dropped: u64,
    /// Received frames dropped because of an invalid descriptor.
    pub rx_invalid: u64,
    /// TX descriptors refused.
    pub tx_invalid: u64,
    /// Received frames dropped because the RX ring was full: we are too slow.
    pub rx_ring_full: u64,
    /// Received frames dropped because the fill ring was empty: we refill too little.
    pub rx_fill_empty: u64,
    /// Times that the kernel found the TX ring empty; no loss.
    pub tx_ring_empty: u64,
}

/// Reads a socket's counters without keeping the socket open.
#[derive(Clone)]
pub struct SocketMonitor(Weak<Port>);

impl SocketMonitor {
    /// The counters; `None` once the socket is closed.
    pub fn statistics(&self) -> Option<Statistics> {
        let port = self.0.upgrade()?;
        let Port::Socket(fd) = &*port else {
            return Some(Statistics::default());
        };
        let counters = sockopt::xdp_statistics(fd).ok()?;
        Some(Statistics {
            rx_dropped: counters.rx_dropped,
            rx_invalid: counters.rx_invalid_descs,
            tx_invalid: counters.tx_invalid_descs,
            rx_ring_full: counters.rx_ring_full.unwrap_or(0),
            rx_fill_empty: counters.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty: counters.tx_ring_empty_descs.unwrap_or(0),
        })
    }
}

/// Raises this process's limit of locked memory as far as it may, once, at start: every socket
/// counts the whole pool against it. Returns the limit in bytes, `None` for none.
pub fn raise_memlock_limit() -> Option<u64> {
    let unlimited = Rlimit { current: None, maximum: None };
    if rustix::process::setrlimit(Resource::Memlock, unlimited).is_err() {
        let mut limit = rustix::process::getrlimit(Resource::Memlock);
        limit.current = limit.maximum;
        if let Err(errno) = rustix::process::setrlimit(Resource::Memlock, limit) {
            tracing::warn!(%errno, "raising RLIMIT_MEMLOCK");
        }
    }
    rustix::process::getrlimit(Resource::Memlock).current
}
