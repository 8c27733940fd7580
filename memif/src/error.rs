//! Everything that can go wrong, each with its own name.
//!
//! Three kinds, because three parties are at fault: [`ConfigError`] (the caller), [`SocketError`] (the system)
//! and [`HandshakeError`] (the peer). What a peer does wrong *after* the handshake is a [`Violation`].

use std::io;
use std::path::PathBuf;

use crate::wire::MessageType;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration can't work; nothing was attempted.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The control socket could not be opened, bound or connected.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The peer broke the protocol, refused us, or went away before the connection was up.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// A configuration that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Ring sizes are powers of two, 2^0 to 2^14.
    #[error("ring size 2^{0} is above the protocol's limit of 2^14")]
    RingSize(u8),
    /// Buffers hold 64 to 65536 bytes.
    #[error("buffer size {0} is not within 64..=65536")]
    BufferSize(u32),
    /// 1 to 255 queues each way.
    #[error("{0} queues: each direction takes 1 to 255")]
    Queues(u16),
    /// A secret is at most 24 bytes and not empty.
    #[error("a secret of {0} bytes: 1 to 24 are allowed")]
    Secret(usize),
    /// Rings and buffers must fit one region, whose offsets are 32 bits wide, and the cap of the peer.
    #[error("rings and buffers need {needed} bytes, the limit is {limit}")]
    RegionSize {
        /// Bytes that the configured geometry needs.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// `punt-inject` is defined by the protocol but implemented by nobody.
    #[error("mode punt-inject is not supported")]
    Mode,
    /// The socket address can't be parsed or is too long.
    #[error("socket address {0:?}: {1}")]
    Address(String, &'static str),
    /// The id is registered on this listener already.
    #[error("interface id {0} is registered on this socket already")]
    DuplicateId(u32),
    /// An abstract socket has no file permissions: every process of its network namespace could attach.
    #[error("interface id {0}: an abstract socket needs a secret, or users or groups that are allowed")]
    Unprotected(u32),
}

/// A failure to open, bind or connect a control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory of the socket does not exist.
    #[error("directory {} of the memif socket does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// Another process listens on the address.
    #[error("memif socket {0} is in use by another process")]
    InUse(String),
    /// The path exists and is not a socket; it was left alone.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Nobody listens on the address (yet).
    #[error("nobody listens on memif socket {0}")]
    NoListener(String),
    /// The network namespace can't be opened or entered.
    #[error("network namespace {}: {source}", .path.display())]
    Netns {
        /// File of the namespace.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other failure of a system call.
    #[error("{call}: {source}")]
    Io {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SocketError {
    pub(crate) fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { call, source: source.into() }
    }
}

/// Why a handshake ended without a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer closed the socket.
    #[error("the peer closed the socket")]
    Closed,
    /// The peer did not finish in time.
    #[error("the peer did not finish the handshake in time")]
    Timeout,
    /// Made room for another client, while there was none: this handshake took long, or its process had others.
    #[error("evicted: too many pending connections")]
    Evicted,
    /// Turned away before the handshake: the process has started very many, or has most of those that wait.
    #[error("too many connections at once: try again later")]
    TooMany,
    /// Neither the peer's user nor its group is on the allow-lists of the listener.
    #[error("user id {0} is not allowed on this socket")]
    UserNotAllowed(u32),
    /// The peer sent DISCONNECT.
    #[error("the peer disconnected: {reason:?} (code {code})")]
    Disconnected {
        /// Code of the peer, 0 if none.
        code: u32,
        /// Text of the peer, made printable.
        reason: String,
    },
    /// Every message is 128 bytes.
    #[error("a message of {0} bytes (or with more ancillary data than allowed), not 128")]
    MessageSize(usize),
    /// The message type is not one of protocol 2.0.
    #[error("unknown message type {0}")]
    MessageType(u16),
    /// A known message at the wrong time.
    #[error("unexpected message {got:?} while waiting for {expected}")]
    Unexpected {
        /// What came.
        got: MessageType,
        /// What may come in this state.
        expected: &'static str,
    },
    /// A file descriptor where the message takes none, or more than one.
    #[error("message {0:?} came with {1} file descriptors")]
    Descriptors(MessageType, usize),
    /// The peers have no version in common; ours is 2.0.
    #[error("protocol version {}.{} is not supported", .0 >> 8, .0 & 0xff)]
    Version(u16),
    /// No interface with this id on this socket.
    #[error("no interface with id {0} on this socket")]
    UnknownId(u32),
    /// The interface has a peer already.
    #[error("interface id {0} is connected already")]
    IdInUse(u32),
    /// The peers' interface modes differ.
    #[error("interface mode {0} does not match")]
    Mode(u8),
    /// The interface wants a secret, the peer gave none.
    #[error("a secret is required")]
    SecretMissing,
    /// The peer gave another secret.
    #[error("incorrect secret")]
    SecretWrong,
    /// The peer, or another process of its user and network namespace, gave a wrong secret less than a second ago.
    #[error("a wrong secret was given less than a second ago: wait")]
    SecretPenalty,
    /// Regions are announced in order, from 0.
    #[error("region index {0} out of order")]
    RegionIndex(u16),
    /// More regions than the limit.
    #[error("too many regions: the limit is {0}")]
    TooManyRegions(u16),
    /// The region was refused.
    #[error("region {index}: {source}")]
    Region {
        /// Index of the region.
        index: u16,
        /// Why.
        source: RegionError,
    },
    /// Rings of each direction are announced in order, from 0.
    #[error("ring index {0} out of order")]
    RingIndex(u16),
    /// More rings than the limit.
    #[error("too many rings: the limit is {0} each way")]
    TooManyRings(u16),
    /// The ring's geometry is impossible.
    #[error("{direction} ring {index}: {source}")]
    Ring {
        /// `S2M` or `M2S`.
        direction: Direction,
        /// Index of the ring.
        index: u16,
        /// Why.
        source: RingError,
    },
    /// CONNECT without at least one ring each way.
    #[error("no ring in direction {0}")]
    NoRing(Direction),
    /// The peer does not read its socket.
    #[error("the peer does not read its socket")]
    SendBlocked,
    /// A system call on the socket failed.
    #[error("{call}: {source}")]
    Io {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl HandshakeError {
    /// A word for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Closed | Self::Disconnected { .. } => "gave-up",
            Self::Timeout => "timeout",
            Self::Evicted => "evicted",
            Self::TooMany => "too-many",
            Self::UserNotAllowed(_) => "user",
            Self::MessageSize(_) | Self::MessageType(_) => "bad-message",
            Self::Unexpected { .. } => "out-of-order",
            Self::Descriptors(..) => "descriptors",
            Self::Version(_) => "version",
            Self::UnknownId(_) => "unknown-id",
            Self::IdInUse(_) => "id-in-use",
            Self::Mode(_) => "mode",
            Self::SecretMissing | Self::SecretWrong | Self::SecretPenalty => "secret",
            Self::RegionIndex(_) | Self::TooManyRegions(_) | Self::Region { .. } => "region",
            Self::RingIndex(_) | Self::TooManyRings(_) | Self::Ring { .. } | Self::NoRing(_) => "ring",
            Self::SendBlocked => "not-reading",
            Self::Io { .. } => "system",
        }
    }

    pub(crate) fn io(call: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { call, source: source.into() }
    }
}

/// Direction of a ring, in the protocol's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Slave to master: packets from the client to the server.
    S2M,
    /// Master to slave: packets from the server to the client.
    M2S,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::S2M => "S2M",
            Self::M2S => "M2S",
        })
    }
}

/// Why a peer's shared memory was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// ADD_REGION without a file descriptor.
    #[error("no file descriptor")]
    NoFd,
    /// The file takes no seals, so it is not a memfd.
    #[error("not a memfd: {0}")]
    NotMemfd(io::Error),
    /// Without `F_SEAL_SHRINK` the peer could cut the file below the mapping, and an access would be a SIGBUS.
    #[error("not sealed against shrinking")]
    NotSealed,
    /// With a write seal a shared writable mapping is impossible.
    #[error("sealed against writing")]
    WriteSealed,
    /// Only tmpfs returns a zero page for a punched hole in every case; a hugetlb file may not.
    #[error("not on tmpfs (file system type {0:#x}); huge-page regions are refused")]
    NotTmpfs(u64),
    /// The announced size is zero.
    #[error("size 0")]
    Empty,
    /// The file is smaller than announced.
    #[error("announced {announced} bytes, the file has {actual}")]
    ShorterThanAnnounced {
        /// Bytes in ADD_REGION.
        announced: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// All regions of a connection together exceed the cap.
    #[error("{total} bytes of shared memory, the limit is {limit}")]
    OverCap {
        /// Bytes of all regions so far, this one included.
        total: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// This process maps as many regions as it can keep account of.
    #[error("too many shared regions in this process")]
    TooManyMappings,
    /// A system call failed.
    #[error("{call}: {source}")]
    Io {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a peer's ring was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// `log2_ring_size` above the limit.
    #[error("ring size 2^{0} is above the limit of 2^{1}")]
    Size(u8, u8),
    /// The region was not announced.
    #[error("region {0} does not exist")]
    NoRegion(u16),
    /// The ring reaches beyond its region.
    #[error("ends at byte {end} of a region of {region} bytes")]
    OutOfRegion {
        /// First byte behind the ring.
        end: u64,
        /// Bytes of the region.
        region: u64,
    },
    /// Rings start at a multiple of 8.
    #[error("offset {0} is not a multiple of 8")]
    Misaligned(u32),
    /// Private headers are reserved.
    #[error("private header of {0} bytes: must be 0")]
    PrivateHeader(u16),
    /// The ring's memory does not start with the memif cookie.
    #[error("wrong cookie {0:#x}")]
    Cookie(u32),
    /// ADD_RING without a file descriptor.
    #[error("no interrupt file descriptor")]
    NoFd,
    /// Only an eventfd is known never to run foreign code on read, write and poll.
    #[error("the interrupt file descriptor is {0:?}, not an eventfd")]
    NotEventfd(String),
}

/// What a peer did to a ring that no correct peer does. The queue is dead from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// The peer's index moved back, or past the other one by more than the ring has slots.
    #[error("{direction} ring {ring}: impossible index")]
    Index {
        /// Direction of the ring.
        direction: Direction,
        /// Index of the ring.
        ring: u8,
    },
    /// A chain of descriptors fills the whole ring and does not end.
    #[error("{direction} ring {ring}: a chain without end")]
    EndlessChain {
        /// Direction of the ring.
        direction: Direction,
        /// Index of the ring.
        ring: u8,
    },
    /// Memory of a region was gone when it was read or written, see [`crate::survive_sigbus`].
    #[error("region {region}: its memory is gone")]
    RegionLost {
        /// Index of the region.
        region: u16,
    },
}

impl Violation {
    /// A word for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Index { .. } => "index",
            Self::EndlessChain { .. } => "endless-chain",
            Self::RegionLost { .. } => "region-lost",
        }
    }
}
