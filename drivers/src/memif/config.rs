//! What the operator asks for, and why it is refused.

use memif::{Address, ConfigError, Limits, Mode, Role, Secret};
use wharf_engine::SwIfIndex;

/// The socket that is always there, `<runtime-dir>/memif.sock`.
pub const DEFAULT_SOCKET: u32 = 0;
/// Greatest number of slots of a ring.
pub const MAX_RING_SIZE: u32 = 1 << 14;
/// A server takes at least so many rings each way if the client brings them, whatever is configured.
pub const MIN_SERVER_QUEUES: u16 = 16;

/// A memif interface to be made.
#[derive(Clone, Debug)]
pub struct MemifConfig {
    /// Name of the interface, told to the peer: `memif<socket>/<id>` in VPP.
    pub name: String,
    /// Id on the socket; both peers use the same.
    pub id: u32,
    /// The socket, see [`crate::memif::MemifManager::add_socket`].
    pub socket_id: u32,
    /// Server (VPP: master) or client (slave).
    pub role: Role,
    /// Slots of a ring: a power of two up to [`MAX_RING_SIZE`]. The client's word counts; a server takes as much memory
    /// as rings and buffers of these sizes need, and 64 MiB in any case.
    pub ring_size: u32,
    /// Bytes of a buffer in the rings, 64 to 65536, likewise.
    pub buffer_size: u32,
    /// Hardware address; `None` lets the control plane choose. Not told to the peer.
    pub mac: Option<[u8; 6]>,
    /// Receive rings, 1 to 255. A client asks for so many; a server takes what the client brings, up to the greater
    /// of [`MemifConfig::rx_queues`], [`MemifConfig::tx_queues`] and [`MIN_SERVER_QUEUES`].
    pub rx_queues: u16,
    /// Transmit rings, likewise.
    pub tx_queues: u16,
    /// What packets start with.
    pub mode: Mode,
    /// Secret that both peers must know, if any.
    pub secret: Option<Secret>,
}

impl MemifConfig {
    /// VPP's defaults: Ethernet, one queue each way, rings of 1024 buffers of 2048 bytes.
    pub fn new(socket_id: u32, id: u32, role: Role) -> MemifConfig {
        MemifConfig {
            name: format!("memif{socket_id}/{id}"),
            id,
            socket_id,
            role,
            ring_size: 1024,
            buffer_size: 2048,
            mac: None,
            rx_queues: 1,
            tx_queues: 1,
            mode: Mode::Ethernet,
            secret: None,
        }
    }

    /// Whether it can work, apart from what else there is.
    pub fn check(&self) -> Result<(), MemifError> {
        if !self.ring_size.is_power_of_two() || self.ring_size > MAX_RING_SIZE {
            return Err(MemifError::RingSize(self.ring_size));
        }
        if !(64..=65536).contains(&self.buffer_size) {
            return Err(MemifError::BufferSize(self.buffer_size));
        }
        for (what, queues) in [("receive", self.rx_queues), ("transmit", self.tx_queues)] {
            if !(1..=255).contains(&queues) {
                return Err(MemifError::Queues { what, queues });
            }
        }
        if let Some(mac) = self.mac
            && (mac[0] & 1 != 0 || mac == [0; 6])
        {
            return Err(MemifError::Mac(mac));
        }
        match self.mode {
            Mode::PuntInject => Err(MemifError::Mode),
            Mode::Ethernet | Mode::Ip => Ok(()),
        }
    }

    /// Rings each way that a server takes.
    pub(super) fn server_queues(&self) -> u16 {
        self.rx_queues.max(self.tx_queues).max(MIN_SERVER_QUEUES)
    }

    /// Bytes of shared memory that a server takes.
    pub(super) fn server_memory(&self) -> u64 {
        let rings = u64::from(self.rx_queues) + u64::from(self.tx_queues);
        // Some layouts put two lines between buffers.
        let slot = u64::from(self.buffer_size) + 128 + 16;
        (rings * (slot * u64::from(self.ring_size) + 4096)).max(Limits::default().max_mapped)
    }
}

/// The operator's word for a role.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Server => "server (master)",
        Role::Client => "client (slave)",
    }
}

/// Why a memif socket or interface is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemifError {
    /// Not a power of two, or too large.
    #[error("ring size {0} is not a power of two from 1 to {MAX_RING_SIZE}")]
    RingSize(u32),
    /// Out of range.
    #[error("buffer size {0} is not within 64 to 65536 bytes")]
    BufferSize(u32),
    /// Out of range.
    #[error("{queues} {what} queues: 1 to 255 are possible")]
    Queues {
        /// `receive` or `transmit`.
        what: &'static str,
        /// The number.
        queues: u16,
    },
    /// A multicast address, or none.
    #[error("{} is not the address of an interface", MacText(.0))]
    Mac([u8; 6]),
    /// Defined by the protocol, implemented by nobody.
    #[error("memif mode punt-inject is not supported")]
    Mode,
    /// No such socket.
    #[error("there is no memif socket {0}")]
    NoSocket(u32),
    /// The id stands for another address.
    #[error("memif socket {id} exists already: {address}")]
    SocketExists {
        /// The socket.
        id: u32,
        /// Its address.
        address: Address,
    },
    /// Interfaces use it.
    #[error("memif socket {id} is used by {interfaces} interface(s)")]
    SocketInUse {
        /// The socket.
        id: u32,
        /// How many.
        interfaces: usize,
    },
    /// Socket 0 stays.
    #[error("memif socket 0 is the default socket and cannot be deleted")]
    DefaultSocket,
    /// A socket is listened on or connected to, not both.
    #[error(
        "memif socket {id} is used by {} interfaces: a {} interface needs another socket id",
        role_name(*.used_by), role_name(*.wanted)
    )]
    RoleConflict {
        /// The socket.
        id: u32,
        /// Role of the interfaces that are there.
        used_by: Role,
        /// Role of the new one.
        wanted: Role,
    },
    /// Two interfaces with one id.
    #[error("memif socket {socket_id} has an interface with id {id} already")]
    DuplicateId {
        /// The socket.
        socket_id: u32,
        /// The id.
        id: u32,
    },
    /// Two interfaces with one index.
    #[error("sw_if_index {0} is a memif interface already")]
    DuplicateIndex(SwIfIndex),
    /// No such interface.
    #[error("sw_if_index {0} is not a memif interface")]
    NoInterface(SwIfIndex),
    /// The protocol crate refuses.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket can't be opened, or the geometry is impossible.
    #[error(transparent)]
    Memif(#[from] memif::Error),
    /// The handler of SIGBUS can't be installed.
    #[error("sigaction: {0}")]
    Sigbus(#[source] std::io::Error),
    /// Descriptors can't be waited for.
    #[error("epoll: {0}")]
    Epoll(#[source] std::io::Error),
}

struct MacText<'a>(&'a [u8; 6]);

impl std::fmt::Display for MacText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_configurations_are_refused_in_plain_words() {
        let good = MemifConfig::new(0, 1, Role::Client);
        good.check().unwrap();
        let says = |change: fn(&mut MemifConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(says(|c| c.ring_size = 1000), "ring size 1000 is not a power of two from 1 to 16384");
        assert_eq!(says(|c| c.ring_size = 0), "ring size 0 is not a power of two from 1 to 16384");
        assert_eq!(says(|c| c.ring_size = 32768), "ring size 32768 is not a power of two from 1 to 16384");
        assert_eq!(says(|c| c.buffer_size = 63), "buffer size 63 is not within 64 to 65536 bytes");
        assert_eq!(says(|c| c.rx_queues = 0), "0 receive queues: 1 to 255 are possible");
        assert_eq!(says(|c| c.tx_queues = 256), "256 transmit queues: 1 to 255 are possible");
        assert_eq!(
            says(|c| c.mac = Some([1, 0, 0, 0, 0, 2])),
            "01:00:00:00:00:02 is not the address of an interface"
        );
        assert_eq!(says(|c| c.mode = Mode::PuntInject), "memif mode punt-inject is not supported");
    }
}
