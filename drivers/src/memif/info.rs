//! What `show memif` prints.

use memif::{Counters, Direction, Mode, RingState, Role};

/// A control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its id.
    pub id: u32,
    /// Whether it is listened on.
    pub listener: bool,
    /// Interfaces that use it.
    pub interfaces: usize,
    /// Its address, as written.
    pub filename: String,
    /// Clients that were refused, by kind.
    pub refused: Vec<(String, u64)>,
}

/// A memif interface. What only a connection has is empty or `None` while there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemifInfo {
    /// Name of the interface.
    pub name: String,
    /// Name of the peer's application, as it says.
    pub remote_name: String,
    /// Name of the peer's interface, as it says.
    pub remote_interface: String,
    /// The socket.
    pub socket_id: u32,
    /// Id on the socket.
    pub id: u32,
    /// Our role.
    pub role: Role,
    /// What packets start with.
    pub mode: Mode,
    /// Hardware address, if it was configured.
    pub mac: Option<[u8; 6]>,
    /// Whether the interface is administratively up.
    pub admin_up: bool,
    /// Whether a client is shaking hands.
    pub connecting: bool,
    /// Whether there is a connection.
    pub connected: bool,
    /// Descriptor of the listening socket; of a server.
    pub listener_fd: Option<i32>,
    /// Descriptor of the connection's socket.
    pub conn_fd: Option<i32>,
    /// Process, user and group of the peer, as the kernel says.
    pub peer: Option<(i32, u32, u32)>,
    /// Rings from the client to the server.
    pub num_s2m_rings: usize,
    /// Rings from the server to the client.
    pub num_m2s_rings: usize,
    /// Slots of a ring, as configured.
    pub ring_size: u32,
    /// Bytes of a buffer, as configured for a client; 0 for a server, where the client chooses.
    pub buffer_size: u32,
    /// Shared regions.
    pub regions: Vec<RegionInfo>,
    /// Rings, those from the server to the client first.
    pub rings: Vec<RingInfo>,
    /// Why we ended the last connection.
    pub local_disc_reason: Option<String>,
    /// Why the peer ended the last connection.
    pub remote_disc_reason: Option<String>,
    /// Why the last attempt to connect failed, if none succeeded since.
    pub last_error: Option<String>,
    /// What peers did against the protocol once connected, by kind, since the interface was made.
    pub violations: Vec<(String, u64)>,
}

/// A shared region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its number.
    pub index: usize,
    /// Its bytes.
    pub size: u64,
    /// Its descriptor; `None`, since it is closed once the region is mapped.
    pub fd: Option<i32>,
}

/// A ring, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingInfo {
    /// Direction: `S2M` slave-to-master, `M2S` master-to-slave.
    pub direction: Direction,
    /// Number among the rings of its direction.
    pub index: u8,
    /// Region it lies in.
    pub region: u16,
    /// Offset there.
    pub offset: u32,
    /// Slots.
    pub ring_size: u16,
    /// Its eventfd.
    pub int_fd: Option<i32>,
    /// Index that the client writes.
    pub head: u16,
    /// Index that the server writes.
    pub tail: u16,
    /// Flags: bit 0 says that the receiver polls.
    pub flags: u16,
    /// Interrupts taken or sent by us.
    pub interrupts: u64,
    /// Packets received or sent by us.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets lost: no buffer, malformed descriptor, bad length.
    pub lost: u64,
    /// Transmit: packets that found the ring full.
    pub ring_full: u64,
}

impl RingInfo {
    /// As it is now; `fd` is the number of its eventfd.
    pub(super) fn new(ring: &RingState, count: &Counters, fd: i32) -> RingInfo {
        RingInfo {
            direction: ring.direction,
            index: ring.index,
            region: ring.region,
            offset: ring.offset,
            ring_size: ring.size,
            int_fd: Some(fd),
            head: ring.head,
            tail: ring.tail,
            flags: ring.flags,
            interrupts: ring.interrupts,
            packets: count.packets,
            bytes: count.bytes,
            lost: count.no_buffer + count.bad_descriptor + count.bad_length,
            ring_full: count.ring_full,
        }
    }
}
