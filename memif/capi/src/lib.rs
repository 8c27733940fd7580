//! A small C interface to [`memif::Port`]. `include/wharf_memif.h` is made from this file.
//!
//! A function that gets NULL for a port does nothing and answers as one that is down. A port belongs to one thread at
//! a time. No function blocks but `wharf_memif_wait`, none calls back, and none keeps a pointer that it was given.

// The names are C's.
#![allow(clippy::missing_safety_doc)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::{Duration, Instant};

use memif::{Address, ClientConfig, InterfaceConfig, ListenerConfig, PortEvent, RxSink, Secret, TxSource};

/// Which side of the protocol.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Connects, and brings the memory (slave).
    Client = 0,
    /// Listens (master).
    Server = 1,
}

/// What packets start with; both sides must agree.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An Ethernet header.
    Ethernet = 0,
    /// An IPv4 or IPv6 header.
    Ip = 1,
}

/// What happened to a port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing, or packets have come.
    None = 0,
    /// The peer is there.
    Up = 1,
    /// The peer is gone; the port goes on trying. wharf_memif_reason says why.
    Down = 2,
    /// An attempt to connect failed, or a client was refused; the port goes on trying. wharf_memif_reason says why.
    Failed = 3,
}

/// What a port is to be. Fill it by wharf_memif_options_init, then change what is to be different.
#[repr(C)]
#[derive(Debug)]
pub struct Options {
    /// Path of the socket, or @NAME, or abstract:NAME[,netns_name=PATH]. Must be set.
    pub socket: *const c_char,
    /// Number of the interface on the socket.
    pub id: u32,
    /// A wharf_memif_role; client unless changed.
    pub role: u32,
    /// A wharf_memif_mode; Ethernet unless changed.
    pub mode: u32,
    /// Name of the application, told to the peer, or NULL.
    pub app_name: *const c_char,
    /// Secret of the interface, up to 24 bytes, or NULL.
    pub secret: *const c_char,
    /// Receive queues, 1 to 255. A server takes what the client brings, up to the greater of both numbers.
    pub rx_queues: u16,
    /// Transmit queues, likewise.
    pub tx_queues: u16,
    /// Slots of a ring as a power of two, 0 to 14. The client's word counts.
    pub log2_ring_size: u8,
    /// Bytes of a buffer in the rings, 64 to 65536. The client's word counts.
    pub buffer_size: u32,
}

/// A packet in memory of the caller.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Its bytes.
    pub data: *mut u8,
    /// To receive: bytes that fit there.
    pub size: u32,
    /// Bytes of the packet: set by wharf_memif_rx_burst, read by wharf_memif_tx_burst.
    pub len: u32,
}

/// One interface that keeps itself connected.
#[derive(Debug)]
pub struct Port {
    port: memif::Port,
    reason: CString,
}

impl Port {
    fn take(&mut self, event: Option<PortEvent>) -> Event {
        let (event, reason) = match event {
            None => return Event::None,
            Some(PortEvent::Up) => (Event::Up, String::new()),
            Some(PortEvent::Down(reason)) => (Event::Down, reason.to_string()),
            Some(PortEvent::Failed(reason)) => (Event::Failed, reason),
        };
        // What a peer says has no NUL in it: the crate made it printable.
        self.reason = CString::new(reason).unwrap_or_default();
        event
    }
}

/// The version of this library: major << 16 | minor << 8 | patch. Within one major version (within one minor version
/// while major is 0) nothing is taken away, and structs don't change.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_memif_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | part(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// Installs, once for the process, a handler of SIGBUS that keeps shared memory which goes away from ending it; every
/// other SIGBUS goes to the handler that was there before. Returns 0, or -1 if the kernel refuses.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_memif_survive_sigbus() -> c_int {
    if memif::survive_sigbus().is_ok() { 0 } else { -1 }
}

/// Fills options with what most want: a client of interface 0, Ethernet, one queue each way, rings of 1024 buffers of
/// 2048 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_options_init(options: *mut Options) {
    if options.is_null() {
        return;
    }
    let init = Options {
        socket: ptr::null(),
        id: 0,
        role: Role::Client as u32,
        mode: Mode::Ethernet as u32,
        app_name: ptr::null(),
        secret: ptr::null(),
        rx_queues: 1,
        tx_queues: 1,
        log2_ring_size: 10,
        buffer_size: 2048,
    };
    // SAFETY: not null; the caller gives memory for a struct of options, initialised or not.
    unsafe { options.write(init) }
}

/// # Safety
/// Null, or a string that ends with NUL and lives as long as the result is used.
unsafe fn text<'a>(string: *const c_char) -> Result<Option<&'a str>, String> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: passed on to the caller.
    let string = unsafe { CStr::from_ptr(string) };
    string.to_str().map(Some).map_err(|_| "a text is not UTF-8".to_owned())
}

/// # Safety
/// The strings of `options` are as [`text`] wants them.
unsafe fn open(options: &Options) -> Result<memif::Port, String> {
    // SAFETY: passed on to the caller.
    let (socket, app_name, secret) =
        unsafe { (text(options.socket)?, text(options.app_name)?, text(options.secret)?) };
    let address = Address::parse(socket.unwrap_or_default()).map_err(|e| e.to_string())?;
    const SERVER: u32 = Role::Server as u32;
    const CLIENT: u32 = Role::Client as u32;
    let mode = match options.mode {
        mode if mode == Mode::Ethernet as u32 => memif::Mode::Ethernet,
        mode if mode == Mode::Ip as u32 => memif::Mode::Ip,
        mode => return Err(format!("{mode} is not a mode")),
    };
    let secret = secret.map(|s| Secret::new(s.as_bytes())).transpose().map_err(|e| e.to_string())?;
    let app_name = app_name.unwrap_or("memif").to_owned();
    let port = match options.role {
        SERVER => {
            let max_queues = options.rx_queues.max(options.tx_queues);
            let name = format!("memif{}", options.id);
            let interface =
                InterfaceConfig { mode, secret, max_queues, ..InterfaceConfig::new(options.id, name) };
            memif::Port::server(ListenerConfig { app_name, ..ListenerConfig::new(address) }, interface)
        }
        CLIENT => memif::Port::client(ClientConfig {
            app_name,
            mode,
            secret,
            rx_queues: options.rx_queues,
            tx_queues: options.tx_queues,
            log2_ring_size: options.log2_ring_size,
            buffer_size: options.buffer_size,
            ..ClientConfig::new(address, options.id)
        }),
        role => return Err(format!("{role} is not a role")),
    };
    port.map_err(|e| e.to_string())
}

/// Opens a port; it connects by wharf_memif_process or wharf_memif_wait. Returns NULL if the options can't work, or a
/// server can't listen; then error, of error_size bytes (both may be 0), says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_open(
    options: *const Options,
    error: *mut c_char,
    error_size: usize,
) -> *mut Port {
    // SAFETY: null, or options that live through this call, with strings as `text` wants them.
    let opened = match unsafe { options.as_ref() } {
        // SAFETY: as above.
        Some(options) => unsafe { open(options) },
        None => Err("no options".to_owned()),
    };
    match opened {
        Ok(port) => Box::into_raw(Box::new(Port { port, reason: CString::default() })),
        Err(why) => {
            if !error.is_null() && error_size != 0 {
                let len = why.len().min(error_size - 1);
                // SAFETY: the caller gives `error_size` bytes at `error`; `len` and a NUL fit there.
                unsafe {
                    ptr::copy_nonoverlapping(why.as_ptr().cast(), error, len);
                    error.add(len).write(0);
                }
            }
            ptr::null_mut()
        }
    }
}

/// Disconnects and frees a port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_close(port: *mut Port) {
    if !port.is_null() {
        // SAFETY: made by `wharf_memif_open`, and not used again.
        drop(unsafe { Box::from_raw(port) });
    }
}

/// The descriptor to poll for input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_fd(port: *const Port) -> c_int {
    // SAFETY: null, or made by `wharf_memif_open` and used by this thread alone. So in all functions below.
    unsafe { port.as_ref() }.map_or(-1, |p| p.port.fd().as_raw_fd())
}

/// Milliseconds until wharf_memif_process must be called even if nothing is readable, as poll(2) takes them: -1 for
/// never.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_timeout(port: *const Port) -> c_int {
    // SAFETY: see `wharf_memif_fd`.
    let deadline = unsafe { port.as_ref() }.and_then(|p| p.port.deadline());
    deadline.map_or(-1, |at| {
        // Rounded up, so as not to wake just before it.
        let left = at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        c_int::try_from(left).unwrap_or(c_int::MAX)
    })
}

/// Asks for a wake-up by packets. False if there is something to do already: then don't sleep.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_arm(port: *mut Port) -> bool {
    // SAFETY: see `wharf_memif_fd`.
    unsafe { port.as_mut() }.is_some_and(|p| p.port.arm())
}

/// No wake-ups by packets any more: the queues are polled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_disarm(port: *mut Port) {
    // SAFETY: see `wharf_memif_fd`.
    if let Some(p) = unsafe { port.as_mut() } {
        p.port.disarm();
    }
}

/// Goes on with whatever is ready, and says what happened: call it until it says WHARF_MEMIF_EVENT_NONE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_process(port: *mut Port) -> Event {
    // SAFETY: see `wharf_memif_fd`.
    let Some(p) = (unsafe { port.as_mut() }) else { return Event::None };
    let event = p.port.process(Instant::now());
    p.take(event)
}

/// Sleeps until there are packets, something else has happened, or so many milliseconds have passed (-1: for ever), and
/// says what happened. Also returns when a signal comes. Does all that fd, timeout, arm, disarm and process do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_wait(port: *mut Port, milliseconds: c_int) -> Event {
    // SAFETY: see `wharf_memif_fd`.
    let Some(p) = (unsafe { port.as_mut() }) else { return Event::None };
    let time = u64::try_from(milliseconds).ok().map(Duration::from_millis);
    // It fails only if the kernel is out of memory for poll(2).
    let event = p.port.wait(time).unwrap_or_else(|e| Some(PortEvent::Failed(format!("poll: {e}"))));
    p.take(event)
}

/// Why the last event came, in words; empty if there is nothing to say. Valid until the next event of this port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_reason(port: *const Port) -> *const c_char {
    // SAFETY: see `wharf_memif_fd`.
    unsafe { port.as_ref() }.map_or(c"".as_ptr(), |p| p.reason.as_ptr())
}

/// Receive queues while there is a peer, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_rx_queues(port: *mut Port) -> u16 {
    // SAFETY: see `wharf_memif_fd`.
    unsafe { port.as_mut() }.and_then(|p| p.port.link()).map_or(0, |link| link.rx.len() as u16)
}

/// Transmit queues while there is a peer, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_tx_queues(port: *mut Port) -> u16 {
    // SAFETY: see `wharf_memif_fd`.
    unsafe { port.as_mut() }.and_then(|p| p.port.link()).map_or(0, |link| link.tx.len() as u16)
}

/// Where packets go: into the caller's memory, one copy.
struct Sink<'a> {
    packets: &'a mut [Packet],
    done: usize,
}

impl RxSink for Sink<'_> {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let packet = self.packets.get(self.done).filter(|p| p.size as usize >= len && !p.data.is_null())?;
        // SAFETY: the caller gives `size` bytes at `data`, for the time of the call, and to nobody else.
        Some(unsafe { std::slice::from_raw_parts_mut(packet.data, packet.size as usize) })
    }

    fn accept(&mut self, len: usize) {
        if let Some(packet) = self.packets.get_mut(self.done) {
            packet.len = len as u32;
        }
        self.done += 1;
    }
}

/// Receives up to count packets (at most 256), each into the memory of one of packets, in order, and returns how many. A
/// packet that is longer than that memory is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_rx_burst(
    port: *mut Port,
    queue: u16,
    packets: *mut Packet,
    count: u16,
) -> u16 {
    // SAFETY: see `wharf_memif_fd`.
    let Some(link) = (unsafe { port.as_mut() }).and_then(|p| p.port.link()) else { return 0 };
    let Some(rx) = link.rx.get_mut(usize::from(queue)) else { return 0 };
    if packets.is_null() {
        return 0;
    }
    // SAFETY: the caller gives `count` packets, to nobody else during the call.
    let packets = unsafe { std::slice::from_raw_parts_mut(packets, count.into()) };
    let mut sink = Sink { packets, done: 0 };
    rx.receive(count.into(), &mut sink) as u16
}

/// Packets in the caller's memory.
struct Source<'a>(&'a [Packet]);

impl TxSource for Source<'_> {
    fn packets(&self) -> usize {
        self.0.len()
    }

    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        match self.0.get(packet) {
            // SAFETY: the caller gives `len` bytes at `data` for the time of the call.
            Some(p) if !p.data.is_null() => unsafe { std::slice::from_raw_parts(p.data, p.len as usize) },
            _ => &[],
        }
    }
}

/// Sends packets from the front (at most 256), wakes the peer if it sleeps, and returns how many were dealt with. The
/// others found the ring full, and may be offered again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_memif_tx_burst(
    port: *mut Port,
    queue: u16,
    packets: *const Packet,
    count: u16,
) -> u16 {
    // SAFETY: see `wharf_memif_fd`.
    let Some(link) = (unsafe { port.as_mut() }).and_then(|p| p.port.link()) else { return 0 };
    let Some(tx) = link.tx.get_mut(usize::from(queue)) else { return 0 };
    if packets.is_null() {
        return 0;
    }
    // SAFETY: the caller gives `count` packets for the time of the call.
    let packets = unsafe { std::slice::from_raw_parts(packets, count.into()) };
    let done = tx.transmit(&Source(packets));
    tx.kick();
    done as u16
}
