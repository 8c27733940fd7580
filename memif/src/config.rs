//! What a caller decides: interfaces, secrets, limits.

use std::fmt;
use std::time::Duration;

use crate::error::ConfigError;
use crate::socket::{Address, PeerCredentials};
use crate::wire::{MAX_LOG2_RING_SIZE, SECRET_SIZE};

/// Greatest length of a packet, in bytes, either way.
pub const MAX_FRAME: usize = 9216;

/// Whether indices and descriptors of a peer are checked. Always, but in a build that measures what that costs:
/// `make bench-checks`, with a load of ours as the peer.
pub(crate) const CHECKED: bool = cfg!(not(memif_unchecked));

#[cfg(all(memif_unchecked, not(feature = "raw")))]
compile_error!("memif_unchecked is for benchmarks: build wharf-benches in the same command");
/// Greatest number of descriptors of one packet.
pub const MAX_SEGMENTS: usize = 16;
/// Greatest number of packets that one call moves.
pub const MAX_BURST: usize = 256;
/// Greatest number of descriptors that one call reads.
pub const MAX_DESCRIPTORS: usize = 512;

/// Which side of the protocol. VPP and libmemif say *master* and *slave*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Listens, maps the client's memory, trusts nothing in it. VPP: *master*.
    Server,
    /// Connects, allocates the memory. VPP: *slave*.
    Client,
}

/// What the packets start with. Both peers must agree; the data path is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// An IPv4 or IPv6 header, told apart by the first nibble.
    Ip,
    /// Defined by the protocol, implemented by nobody: refused as configuration.
    PuntInject,
}

impl Mode {
    pub(crate) fn wire(self) -> u8 {
        match self {
            Self::Ethernet => 0,
            Self::Ip => 1,
            Self::PuntInject => 2,
        }
    }

    pub(crate) fn check(self) -> Result<(), ConfigError> {
        if self == Self::PuntInject { Err(ConfigError::Mode) } else { Ok(()) }
    }
}

/// Up to 24 bytes that client and server share. Compared in constant time, never printed.
#[derive(Clone, Copy)]
pub struct Secret([u8; SECRET_SIZE]);

impl Secret {
    /// A secret of 1 to 24 bytes, padded with zeros as the wire has it.
    pub fn new(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.is_empty() || bytes.len() > SECRET_SIZE {
            return Err(ConfigError::Secret(bytes.len()));
        }
        let mut secret = [0; SECRET_SIZE];
        for (to, from) in secret.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Self(secret))
    }

    /// The secret itself, without the padding: for a configuration that is kept.
    pub fn expose(&self) -> &[u8] {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.0[..end]
    }

    pub(crate) fn bytes(&self) -> [u8; SECRET_SIZE] {
        self.0
    }

    /// Whether `other` is the same secret; takes the same time for every `other`.
    pub(crate) fn matches(&self, other: &[u8; SECRET_SIZE]) -> bool {
        let difference = self.0.iter().zip(other).fold(0u8, |acc, (a, b)| acc | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a server grants to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Regions, 1 to 256.
    pub max_regions: u16,
    /// Rings each way, 1 to 255.
    pub max_rings: u16,
    /// Ring size, as a power of two, up to 14.
    pub max_log2_ring_size: u8,
    /// Bytes of all regions together. A client's pages are charged to whoever touches them first.
    pub max_mapped: u64,
    /// Time from accept to CONNECTED.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_regions: 4,
            max_rings: 255,
            max_log2_ring_size: MAX_LOG2_RING_SIZE,
            max_mapped: 64 << 20,
            handshake: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The same limits, within what the protocol can express.
    pub(crate) fn clamped(mut self) -> Self {
        self.max_regions = self.max_regions.clamp(1, 256);
        self.max_rings = self.max_rings.clamp(1, 255);
        self.max_log2_ring_size = self.max_log2_ring_size.min(MAX_LOG2_RING_SIZE);
        self
    }
}

/// A server's control socket.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Where to listen.
    pub address: Address,
    /// Name of this application, told to the clients.
    pub app_name: String,
    /// Permission bits of a socket file. Ignored for abstract addresses, which have none.
    pub file_mode: u32,
    /// Users that may connect (`SO_PEERCRED`). With no user and no group allowed, everybody may whom the socket
    /// file's permissions let; an abstract socket has none, so that its interfaces then need secrets.
    pub allowed_uids: Vec<u32>,
    /// Groups that may connect, by the peer's effective group.
    pub allowed_gids: Vec<u32>,
    /// Handshakes in progress at a time, 16 by default.
    pub max_pending: usize,
    /// Limits of each connection.
    pub limits: Limits,
}

impl ListenerConfig {
    /// A listener on `address`; all else as by default.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            app_name: "memif".into(),
            file_mode: 0o660,
            allowed_uids: Vec::new(),
            allowed_gids: Vec::new(),
            max_pending: 16,
            limits: Limits::default(),
        }
    }

    /// Whether a peer may connect.
    pub(crate) fn admits(&self, peer: Option<PeerCredentials>) -> bool {
        let Self { allowed_uids: uids, allowed_gids: gids, .. } = self;
        uids.is_empty() && gids.is_empty()
            || peer.is_some_and(|p| uids.contains(&p.uid) || gids.contains(&p.gid))
    }

    /// Whether something keeps strangers out even without a secret.
    pub(crate) fn is_protected(&self) -> bool {
        matches!(self.address, Address::Path(_))
            || !(self.allowed_uids.is_empty() && self.allowed_gids.is_empty())
    }
}

/// An interface that a listener offers to one client.
#[derive(Debug, Clone)]
pub struct InterfaceConfig {
    /// Id, unique on the socket.
    pub id: u32,
    /// Name, told to the client.
    pub name: String,
    /// Mode, which the client must share.
    pub mode: Mode,
    /// Secret, which the client must know, if any.
    pub secret: Option<Secret>,
    /// Rings each way that the client may bring, within [`Limits::max_rings`].
    pub max_queues: u16,
    /// Bytes of shared memory that the client may bring, if not [`Limits::max_mapped`].
    pub max_mapped: Option<u64>,
}

impl InterfaceConfig {
    /// Interface `id` in Ethernet mode without secret.
    pub fn new(id: u32, name: impl Into<String>) -> Self {
        let mode = Mode::Ethernet;
        Self { id, name: name.into(), mode, secret: None, max_queues: 255, max_mapped: None }
    }
}

/// A client's interface.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where the server listens.
    pub address: Address,
    /// Id of the interface on that socket.
    pub id: u32,
    /// Name of the interface, told to the server.
    pub name: String,
    /// Name of this application, told to the server.
    pub app_name: String,
    /// Mode, which the server must share.
    pub mode: Mode,
    /// Secret of the interface, if it has one.
    pub secret: Option<Secret>,
    /// Receive queues (M2S rings), 1 to 255; fewer if the server grants fewer.
    pub rx_queues: u16,
    /// Transmit queues (S2M rings), likewise.
    pub tx_queues: u16,
    /// Ring size, as a power of two, 0 to 14; smaller if the server grants less.
    pub log2_ring_size: u8,
    /// Bytes of each buffer, 64 to 65536. Longer packets take several.
    pub buffer_size: u32,
    /// Time from connect to CONNECTED.
    pub handshake: Duration,
}

impl ClientConfig {
    /// Interface `id` behind `address`: Ethernet, one queue each way, 1024 buffers of 2048 bytes per queue.
    pub fn new(address: Address, id: u32) -> Self {
        Self {
            address,
            id,
            name: format!("memif{id}"),
            app_name: "memif".into(),
            mode: Mode::Ethernet,
            secret: None,
            rx_queues: 1,
            tx_queues: 1,
            log2_ring_size: 10,
            buffer_size: 2048,
            handshake: Duration::from_secs(1),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.mode.check()?;
        if self.log2_ring_size > MAX_LOG2_RING_SIZE {
            return Err(ConfigError::RingSize(self.log2_ring_size));
        }
        if !(64..=65536).contains(&self.buffer_size) {
            return Err(ConfigError::BufferSize(self.buffer_size));
        }
        for queues in [self.rx_queues, self.tx_queues] {
            if !(1..=255).contains(&queues) {
                return Err(ConfigError::Queues(queues));
            }
        }
        crate::region::Layout::new(self.tx_queues, self.rx_queues, self.log2_ring_size, self.buffer_size)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        assert!(Secret::new(b"").is_err());
        assert!(Secret::new(&[1; 25]).is_err());
        let a = Secret::new(b"abc").unwrap();
        assert!(a.matches(&Secret::new(b"abc").unwrap().bytes()));
        assert!(!a.matches(&Secret::new(b"abd").unwrap().bytes()));
        assert!(!a.matches(&Secret::new(b"abcd").unwrap().bytes()));
        assert!(!format!("{a:?}").contains("97"));
    }

    #[test]
    fn impossible_client_configurations() {
        let good = ClientConfig::new(Address::parse("@x").unwrap(), 0);
        assert_eq!(good.check(), Ok(()));
        let bad = |change: fn(&mut ClientConfig)| {
            let mut c = good.clone();
            change(&mut c);
            c.check().unwrap_err()
        };
        assert_eq!(bad(|c| c.log2_ring_size = 15), ConfigError::RingSize(15));
        assert_eq!(bad(|c| c.buffer_size = 63), ConfigError::BufferSize(63));
        assert_eq!(bad(|c| c.rx_queues = 0), ConfigError::Queues(0));
        assert_eq!(bad(|c| c.tx_queues = 256), ConfigError::Queues(256));
        assert_eq!(bad(|c| c.mode = Mode::PuntInject), ConfigError::Mode);
        assert!(matches!(
            bad(|c| {
                c.rx_queues = 255;
                c.log2_ring_size = 14;
            }),
            ConfigError::RegionSize { .. }
        ));
    }
}
