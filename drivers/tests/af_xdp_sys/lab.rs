//! Two network namespaces with a veth pair between them, memory for packets, raw sockets.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
};
use wharf_drivers::af_xdp::{
    Area, CopyMode, RingSizes, SocketConfig, TxFrame, XdpError, XskSocket,
    link::{Link, Links},
    netns::NetNs,
};

pub(crate) const STRIDE: usize = 2368;
const BUFFERS: usize = 512;
/// A kernel that has not done it by then never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `ip` with arguments separated by spaces.
pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect("a program to run");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for something that the kernel does soon.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// `w0` in namespace `ours`, `p0` in namespace `theirs`. Deleted with the value.
pub(crate) struct Lab {
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

impl Lab {
    /// Both ends up, with as many queues and the MTU given.
    pub(crate) fn new(queues: u32, mtu: u32) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("wh-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { ours: format!("{id}-a"), theirs: format!("{id}-b") };
        let (a, b) = (&lab.ours, &lab.theirs);
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        for ns in [a, b] {
            // No neighbour discovery of the kernel's own among the frames.
            run("ip", &format!("netns exec {ns} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
            run("ip", &format!("netns exec {ns} sysctl -qw net.ipv6.conf.default.disable_ipv6=1"));
        }
        let each = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
        ip(&format!("-n {a} link add w0 {each} type veth peer name p0 {each} netns {b}"));
        ip(&format!("-n {a} link set w0 up"));
        ip(&format!("-n {b} link set p0 up"));
        let lab_link = || lab.inside(|| lab.link()).carrier;
        eventually("carrier", || lab_link().then_some(()));
        lab
    }

    /// Runs in our namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        NetNs::open(&self.ours).expect("our namespace").run(work).expect("entering it")
    }

    /// Runs in the peer's namespace.
    pub(crate) fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        NetNs::open(&self.theirs).expect("the peer's namespace").run(work).expect("entering it")
    }

    /// `w0`; to be called inside.
    pub(crate) fn link(&self) -> Link {
        Links::open().and_then(|mut links| links.by_name("w0")).expect("w0")
    }

    /// A socket on a queue of `w0`.
    pub(crate) fn open(&self, pool: &Pool, queue: u32) -> Result<XskSocket, XdpError> {
        self.inside(|| XskSocket::open(&config(&self.link(), pool, queue)))
    }

    /// A raw socket on the peer's `p0`.
    pub(crate) fn peer(&self) -> Raw {
        self.outside(|| Raw::open("p0"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in [&self.ours, &self.theirs] {
            // Also after a failed test, where part of this may be missing.
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
    }
}

pub(crate) fn config(link: &Link, pool: &Pool, queue: u32) -> SocketConfig {
    SocketConfig {
        interface: link.name.clone(),
        ifindex: link.ifindex,
        queue,
        area: pool.area(),
        sizes: RingSizes { fill: 256, rx: 256, tx: 128, completion: 128 },
        copy: CopyMode::Auto,
        multi_buffer: false,
    }
}

/// Packet buffers.
pub(crate) struct Pool {
    memory: NonNull<u8>,
}

// SAFETY: its only users are a test's thread and those of `Lab::inside`, which it waits for.
unsafe impl Sync for Pool {}

impl Pool {
    pub(crate) fn new() -> Pool {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                STRIDE * BUFFERS,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        };
        Pool { memory: NonNull::new(memory.expect("memory").cast()).expect("not at zero") }
    }

    pub(crate) fn area(&self) -> Area {
        // SAFETY: mapped until the pool is dropped, and even then the kernel holds the pages; the
        // tests read and write only buffers that the kernel does not have.
        unsafe { Area::new(self.memory.as_ptr(), STRIDE * BUFFERS, STRIDE as u32) }.expect("geometry")
    }

    fn at(&self, buffer: u32, offset: u16, len: usize) -> NonNull<u8> {
        assert!((buffer as usize) < BUFFERS && usize::from(offset) + len <= STRIDE);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.memory.add(buffer as usize * STRIDE + usize::from(offset)) }
    }

    pub(crate) fn read(&self, buffer: u32, offset: u16, len: u16) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(len)];
        let from = self.at(buffer, offset, bytes.len());
        // SAFETY: `at` checked the range; the vector is no part of it.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len()) };
        bytes
    }

    pub(crate) fn write(&self, buffer: u32, offset: u16, bytes: &[u8]) {
        let to = self.at(buffer, offset, bytes.len());
        // SAFETY: `at` checked the range; the slice is no part of it.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Puts a frame in a buffer, as received frames are.
    pub(crate) fn frame(&self, buffer: u32, bytes: &[u8]) -> TxFrame {
        self.write(buffer, 320, bytes);
        TxFrame { buffer, offset: 320, len: bytes.len() as u16, continues: false, metadata: false }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no slice into it exists.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), STRIDE * BUFFERS) };
    }
}

/// Gives `count` buffers, from `first` on, to a socket's fill ring.
pub(crate) fn fill(socket: &mut XskSocket, first: u32, count: u32) {
    let mut slots = socket.rx.fill(count);
    for buffer in first..first + count {
        assert!(slots.push(buffer));
    }
}

/// Sends a frame and makes the kernel take it.
pub(crate) fn send(socket: &mut XskSocket, frame: &TxFrame) {
    assert!(socket.tx.send(1).push(frame));
}

/// All frames that a socket has received by now.
pub(crate) fn received(socket: &mut XskSocket, pool: &Pool) -> Vec<Vec<u8>> {
    socket.rx.receive(u32::MAX).map(|frame| pool.read(frame.buffer, frame.offset, frame.len)).collect()
}

/// An AF_PACKET socket: sees all frames the kernel gets on an interface, and sends any.
pub(crate) struct Raw {
    socket: OwnedFd,
}

impl Raw {
    /// In the namespace of the calling thread.
    pub(crate) fn open(interface: &str) -> Raw {
        let link = Links::open().and_then(|mut links| links.by_name(interface)).expect("an interface");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .expect("a packet socket");
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = link.ifindex.cast_signed();
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes at the address of `address`.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(bound, 0, "binding a packet socket");
        Raw { socket }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.socket, frame, SendFlags::empty());
        assert_eq!(sent, Ok(frame.len()));
    }

    /// The next frame, sent or received by the interface.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 1 << 16];
        match rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => {
                frame.truncate(len);
                Some(frame)
            }
            Err(Errno::AGAIN) => None,
            Err(error) => panic!("reading from a packet socket: {error}"),
        }
    }

    /// Waits for a frame of our experimental Ethertype.
    pub(crate) fn wait(&self) -> Vec<u8> {
        eventually("a frame at the peer", || {
            self.next().filter(|frame| frame.get(12..14) == Some(&EXPERIMENT))
        })
    }
}

/// Ethertype for experiments (IEEE 802).
pub(crate) const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// A frame of `len` bytes that tells its number.
pub(crate) fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(EXPERIMENT);
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|i| i as u8));
    frame
}

/// A UDP datagram over IPv4 in Ethernet, with its checksum as an offloading kernel leaves it: the
/// sum of the pseudo-header.
pub(crate) fn udp(to_mac: [u8; 6], from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    };
    let len = 8 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + len).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from);
    ip.extend(to);
    let header_sum = !sum(&ip);
    ip[10..12].copy_from_slice(&header_sum.to_be_bytes());
    let pseudo = [&from[..], &to[..], &[0, 17], &len.to_be_bytes()].concat();

    let mut frame = to_mac.to_vec();
    frame.extend([2, 0, 0, 0, 0, 9, 0x08, 0x00]);
    frame.extend(ip);
    for field in [ports.0, ports.1, len, sum(&pseudo)] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    frame
}
