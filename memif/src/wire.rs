//! The wire format of memif 2.0: control messages, ring header, descriptor.
//!
//! A control message is exactly 128 bytes, packed, in the byte order of the machine: a `u16` type, then the
//! fields of that type. The layout is the one of VPP's `src/plugins/memif/memif.h`, which libmemif and DPDK
//! share.

use crate::error::HandshakeError;

/// Marks the start of every ring.
pub const COOKIE: u32 = 0x03E3_1F20;
/// Protocol version 2.0: major in the high byte, minor in the low one.
pub const VERSION: u16 = 0x0200;
/// Bytes of every control message.
pub const MESSAGE_SIZE: usize = 128;
/// Greatest ring size, as a power of two.
pub const MAX_LOG2_RING_SIZE: u8 = 14;
/// Bytes of a secret.
pub const SECRET_SIZE: usize = 24;
/// Bytes of a name, its closing NUL included.
pub const NAME_SIZE: usize = 32;
/// Bytes of the text in DISCONNECT, its closing NUL included.
pub const REASON_SIZE: usize = 96;

/// Byte offsets within a ring: a line that the client writes (but for the flags), one that the server writes,
/// then the descriptors.
pub mod ring {
    /// `u32`, [`super::COOKIE`].
    pub const COOKIE: usize = 0;
    /// `u16`, see [`super::RING_FLAG_MASK_INT`]; written by the consumer of packets.
    pub const FLAGS: usize = 4;
    /// `u16`, written by the client.
    pub const HEAD: usize = 6;
    /// `u16`, written by the server.
    pub const TAIL: usize = 64;
    /// First descriptor.
    pub const DESCRIPTORS: usize = 128;
}
/// Ring flag: the consumer polls and wants no interrupts.
pub const RING_FLAG_MASK_INT: u16 = 1;
/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: usize = 16;
/// Descriptor flag: the packet goes on in the next descriptor.
pub const DESC_FLAG_NEXT: u16 = 1;
/// Flag in ADD_RING: the ring carries packets from client to server.
pub const ADD_RING_FLAG_S2M: u16 = 1;

/// Bytes of a ring with `1 << log2_size` descriptors.
pub const fn ring_bytes(log2_size: u8) -> u64 {
    ring::DESCRIPTORS as u64 + ((DESCRIPTOR_SIZE as u64) << log2_size)
}

/// A descriptor, as two 64-bit words in memory: `flags:16 region:16 length:32` and `offset:32 metadata:32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// [`DESC_FLAG_NEXT`] or 0.
    pub flags: u16,
    /// Region that holds the bytes.
    pub region: u16,
    /// Bytes of the packet (or of the empty buffer).
    pub length: u32,
    /// Where they start within the region.
    pub offset: u32,
}

impl Descriptor {
    /// From the two words, in the byte order of the machine.
    #[inline(always)]
    pub const fn from_words(w0: u64, w1: u64) -> Self {
        if cfg!(target_endian = "little") {
            Self { flags: w0 as u16, region: (w0 >> 16) as u16, length: (w0 >> 32) as u32, offset: w1 as u32 }
        } else {
            Self {
                flags: (w0 >> 48) as u16,
                region: (w0 >> 32) as u16,
                length: w0 as u32,
                offset: (w1 >> 32) as u32,
            }
        }
    }

    /// Back to the two words; the metadata is 0, as the protocol uses none.
    #[inline(always)]
    pub const fn to_words(self) -> (u64, u64) {
        let (f, r, l, o) = (self.flags as u64, self.region as u64, self.length as u64, self.offset as u64);
        if cfg!(target_endian = "little") {
            (f | r << 16 | l << 32, o)
        } else {
            (f << 48 | r << 32 | l, o << 32)
        }
    }
}

/// The type field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum MessageType {
    /// Server to client: go on.
    Ack = 1,
    /// Server to client, first of all: what the server can do.
    Hello = 2,
    /// Client to server: who I am, which interface I want.
    Init = 3,
    /// Client to server, with a memfd.
    AddRegion = 4,
    /// Client to server, with an eventfd.
    AddRing = 5,
    /// Client to server: all rings are announced.
    Connect = 6,
    /// Server to client: the link is up.
    Connected = 7,
    /// Either way: the link is down.
    Disconnect = 8,
}

/// HELLO. The `max_*` fields are the greatest *index*, one less than the count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Name of the server's application.
    pub name: String,
    /// Oldest version spoken.
    pub min_version: u16,
    /// Newest version spoken.
    pub max_version: u16,
    /// Greatest region index.
    pub max_region: u16,
    /// Greatest index of a server-to-client ring.
    pub max_m2s_ring: u16,
    /// Greatest index of a client-to-server ring.
    pub max_s2m_ring: u16,
    /// Greatest ring size, as a power of two.
    pub max_log2_ring_size: u8,
}

/// INIT.
#[derive(Clone, PartialEq, Eq)]
pub struct Init {
    /// Version chosen by the client.
    pub version: u16,
    /// Interface id.
    pub id: u32,
    /// 0 Ethernet, 1 IP, 2 punt-inject.
    pub mode: u8,
    /// All zero when there is none.
    pub secret: [u8; SECRET_SIZE],
    /// Name of the client's application.
    pub name: String,
}

impl std::fmt::Debug for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, id, mode, name, .. } = self;
        write!(f, "Init {{ version: {version:#x}, id: {id}, mode: {mode}, name: {name:?}, .. }}")
    }
}

/// ADD_RING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddRing {
    /// [`ADD_RING_FLAG_S2M`] or 0.
    pub flags: u16,
    /// Index among the rings of its direction.
    pub index: u16,
    /// Region that holds it.
    pub region: u16,
    /// Where it starts within the region.
    pub offset: u32,
    /// Ring size, as a power of two.
    pub log2_ring_size: u8,
    /// Reserved, 0.
    pub private_hdr_size: u16,
}

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// See [`MessageType::Ack`].
    Ack,
    /// See [`MessageType::Hello`].
    Hello(Hello),
    /// See [`MessageType::Init`].
    Init(Init),
    /// See [`MessageType::AddRegion`].
    AddRegion {
        /// Index of the region.
        index: u16,
        /// Bytes of the region.
        size: u64,
    },
    /// See [`MessageType::AddRing`].
    AddRing(AddRing),
    /// See [`MessageType::Connect`].
    Connect {
        /// Name of the client's interface.
        if_name: String,
    },
    /// See [`MessageType::Connected`].
    Connected {
        /// Name of the server's interface.
        if_name: String,
    },
    /// See [`MessageType::Disconnect`].
    Disconnect {
        /// Free to use; 0 means nothing in particular.
        code: u32,
        /// For people.
        reason: String,
    },
}

/// Byte offsets of the fields of each message.
mod at {
    pub(super) const BODY: usize = 2;

    pub(super) const HELLO_NAME: usize = BODY;
    pub(super) const HELLO_MIN_VERSION: usize = 34;
    pub(super) const HELLO_MAX_VERSION: usize = 36;
    pub(super) const HELLO_MAX_REGION: usize = 38;
    pub(super) const HELLO_MAX_M2S: usize = 40;
    pub(super) const HELLO_MAX_S2M: usize = 42;
    pub(super) const HELLO_MAX_LOG2: usize = 44;

    pub(super) const INIT_VERSION: usize = BODY;
    pub(super) const INIT_ID: usize = 4;
    pub(super) const INIT_MODE: usize = 8;
    pub(super) const INIT_SECRET: usize = 9;
    pub(super) const INIT_NAME: usize = 33;

    pub(super) const REGION_INDEX: usize = BODY;
    pub(super) const REGION_SIZE: usize = 4;

    pub(super) const RING_FLAGS: usize = BODY;
    pub(super) const RING_INDEX: usize = 4;
    pub(super) const RING_REGION: usize = 6;
    pub(super) const RING_OFFSET: usize = 8;
    pub(super) const RING_LOG2: usize = 12;
    pub(super) const RING_PRIVATE: usize = 13;

    pub(super) const NAME: usize = BODY;

    pub(super) const DISCONNECT_CODE: usize = BODY;
    pub(super) const DISCONNECT_REASON: usize = 6;
}

/// The raw bytes of one message.
pub type RawMessage = [u8; MESSAGE_SIZE];

/// `N` bytes at a constant offset; the offsets above all lie within a message.
#[inline]
fn get<const N: usize>(m: &RawMessage, offset: usize) -> [u8; N] {
    std::array::from_fn(|i| m.get(offset + i).copied().unwrap_or(0))
}

fn put(m: &mut RawMessage, offset: usize, bytes: &[u8]) {
    for (to, from) in m.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

fn get_u16(m: &RawMessage, offset: usize) -> u16 {
    u16::from_ne_bytes(get(m, offset))
}

/// Text up to the first NUL. Peers choose it, so what could upset a terminal or a log is replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (text, _) = bytes.split_at(end);
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Puts text of at most `size - 1` bytes, cut between characters; the rest of the message is zero already.
fn put_text(m: &mut RawMessage, offset: usize, size: usize, text: &str) {
    let mut end = text.len().min(size - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put(m, offset, text.as_bytes().split_at(end).0);
}

impl Message {
    /// The type of this message.
    pub fn kind(&self) -> MessageType {
        match self {
            Self::Ack => MessageType::Ack,
            Self::Hello(_) => MessageType::Hello,
            Self::Init(_) => MessageType::Init,
            Self::AddRegion { .. } => MessageType::AddRegion,
            Self::AddRing(_) => MessageType::AddRing,
            Self::Connect { .. } => MessageType::Connect,
            Self::Connected { .. } => MessageType::Connected,
            Self::Disconnect { .. } => MessageType::Disconnect,
        }
    }

    /// The bytes on the wire. Texts too long for their field are cut.
    pub fn encode(&self) -> RawMessage {
        let mut m = [0; MESSAGE_SIZE];
        put(&mut m, 0, &(self.kind() as u16).to_ne_bytes());
        match self {
            Self::Ack => {}
            Self::Hello(h) => {
                put_text(&mut m, at::HELLO_NAME, NAME_SIZE, &h.name);
                put(&mut m, at::HELLO_MIN_VERSION, &h.min_version.to_ne_bytes());
                put(&mut m, at::HELLO_MAX_VERSION, &h.max_version.to_ne_bytes());
                put(&mut m, at::HELLO_MAX_REGION, &h.max_region.to_ne_bytes());
                put(&mut m, at::HELLO_MAX_M2S, &h.max_m2s_ring.to_ne_bytes());
                put(&mut m, at::HELLO_MAX_S2M, &h.max_s2m_ring.to_ne_bytes());
                put(&mut m, at::HELLO_MAX_LOG2, &[h.max_log2_ring_size]);
            }
            Self::Init(i) => {
                put(&mut m, at::INIT_VERSION, &i.version.to_ne_bytes());
                put(&mut m, at::INIT_ID, &i.id.to_ne_bytes());
                put(&mut m, at::INIT_MODE, &[i.mode]);
                put(&mut m, at::INIT_SECRET, &i.secret);
                put_text(&mut m, at::INIT_NAME, NAME_SIZE, &i.name);
            }
            Self::AddRegion { index, size } => {
                put(&mut m, at::REGION_INDEX, &index.to_ne_bytes());
                put(&mut m, at::REGION_SIZE, &size.to_ne_bytes());
            }
            Self::AddRing(r) => {
                put(&mut m, at::RING_FLAGS, &r.flags.to_ne_bytes());
                put(&mut m, at::RING_INDEX, &r.index.to_ne_bytes());
                put(&mut m, at::RING_REGION, &r.region.to_ne_bytes());
                put(&mut m, at::RING_OFFSET, &r.offset.to_ne_bytes());
                put(&mut m, at::RING_LOG2, &[r.log2_ring_size]);
                put(&mut m, at::RING_PRIVATE, &r.private_hdr_size.to_ne_bytes());
            }
            Self::Connect { if_name } | Self::Connected { if_name } => {
                put_text(&mut m, at::NAME, NAME_SIZE, if_name);
            }
            Self::Disconnect { code, reason } => {
                put(&mut m, at::DISCONNECT_CODE, &code.to_ne_bytes());
                put_text(&mut m, at::DISCONNECT_REASON, REASON_SIZE, reason);
            }
        }
        m
    }

    /// Reads a message; fails with [`HandshakeError::MessageType`] only, since every field takes every value.
    pub fn decode(m: &RawMessage) -> Result<Self, HandshakeError> {
        Ok(match get_u16(m, 0) {
            1 => Self::Ack,
            2 => Self::Hello(Hello {
                name: text(&get::<NAME_SIZE>(m, at::HELLO_NAME)),
                min_version: get_u16(m, at::HELLO_MIN_VERSION),
                max_version: get_u16(m, at::HELLO_MAX_VERSION),
                max_region: get_u16(m, at::HELLO_MAX_REGION),
                max_m2s_ring: get_u16(m, at::HELLO_MAX_M2S),
                max_s2m_ring: get_u16(m, at::HELLO_MAX_S2M),
                max_log2_ring_size: u8::from_ne_bytes(get(m, at::HELLO_MAX_LOG2)),
            }),
            3 => Self::Init(Init {
                version: get_u16(m, at::INIT_VERSION),
                id: u32::from_ne_bytes(get(m, at::INIT_ID)),
                mode: u8::from_ne_bytes(get(m, at::INIT_MODE)),
                secret: get(m, at::INIT_SECRET),
                name: text(&get::<NAME_SIZE>(m, at::INIT_NAME)),
            }),
            4 => Self::AddRegion {
                index: get_u16(m, at::REGION_INDEX),
                size: u64::from_ne_bytes(get(m, at::REGION_SIZE)),
            },
            5 => Self::AddRing(AddRing {
                flags: get_u16(m, at::RING_FLAGS),
                index: get_u16(m, at::RING_INDEX),
                region: get_u16(m, at::RING_REGION),
                offset: u32::from_ne_bytes(get(m, at::RING_OFFSET)),
                log2_ring_size: u8::from_ne_bytes(get(m, at::RING_LOG2)),
                private_hdr_size: get_u16(m, at::RING_PRIVATE),
            }),
            6 => Self::Connect { if_name: text(&get::<NAME_SIZE>(m, at::NAME)) },
            7 => Self::Connected { if_name: text(&get::<NAME_SIZE>(m, at::NAME)) },
            8 => Self::Disconnect {
                code: u32::from_ne_bytes(get(m, at::DISCONNECT_CODE)),
                reason: text(&get::<REASON_SIZE>(m, at::DISCONNECT_REASON)),
            },
            other => return Err(HandshakeError::MessageType(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The layout, written as a C compiler lays out the packed structs of `memif.h`.
    #[repr(C, packed)]
    struct CHello {
        kind: u16,
        name: [u8; 32],
        min_version: u16,
        max_version: u16,
        max_region: u16,
        max_m2s_ring: u16,
        max_s2m_ring: u16,
        max_log2_ring_size: u8,
    }
    #[repr(C, packed)]
    struct CInit {
        kind: u16,
        version: u16,
        id: u32,
        mode: u8,
        secret: [u8; 24],
        name: [u8; 32],
    }
    #[repr(C, packed)]
    struct CAddRing {
        kind: u16,
        flags: u16,
        index: u16,
        region: u16,
        offset: u32,
        log2_ring_size: u8,
        private_hdr_size: u16,
    }
    #[repr(C)]
    struct CDesc {
        flags: u16,
        region: u16,
        length: u32,
        offset: u32,
        metadata: u32,
    }

    #[test]
    fn offsets_are_those_of_the_c_structs() {
        use std::mem::{offset_of, size_of};
        assert_eq!(at::HELLO_NAME, offset_of!(CHello, name));
        assert_eq!(at::HELLO_MIN_VERSION, offset_of!(CHello, min_version));
        assert_eq!(at::HELLO_MAX_VERSION, offset_of!(CHello, max_version));
        assert_eq!(at::HELLO_MAX_REGION, offset_of!(CHello, max_region));
        assert_eq!(at::HELLO_MAX_M2S, offset_of!(CHello, max_m2s_ring));
        assert_eq!(at::HELLO_MAX_S2M, offset_of!(CHello, max_s2m_ring));
        assert_eq!(at::HELLO_MAX_LOG2, offset_of!(CHello, max_log2_ring_size));
        assert_eq!(at::INIT_VERSION, offset_of!(CInit, version));
        assert_eq!(at::INIT_ID, offset_of!(CInit, id));
        assert_eq!(at::INIT_MODE, offset_of!(CInit, mode));
        assert_eq!(at::INIT_SECRET, offset_of!(CInit, secret));
        assert_eq!(at::INIT_NAME, offset_of!(CInit, name));
        assert_eq!(at::RING_FLAGS, offset_of!(CAddRing, flags));
        assert_eq!(at::RING_INDEX, offset_of!(CAddRing, index));
        assert_eq!(at::RING_REGION, offset_of!(CAddRing, region));
        assert_eq!(at::RING_OFFSET, offset_of!(CAddRing, offset));
        assert_eq!(at::RING_LOG2, offset_of!(CAddRing, log2_ring_size));
        assert_eq!(at::RING_PRIVATE, offset_of!(CAddRing, private_hdr_size));
        assert_eq!(DESCRIPTOR_SIZE, size_of::<CDesc>());
        assert_eq!(offset_of!(CDesc, length), 4);
        assert_eq!(offset_of!(CDesc, offset), 8);
        assert_eq!(offset_of!(CDesc, metadata), 12);
    }

    #[test]
    fn init_bytes() {
        let mut secret = [0; SECRET_SIZE];
        secret[0] = 0x73;
        let m = Message::Init(Init { version: VERSION, id: 7, mode: 1, secret, name: "app".into() }).encode();
        let mut want = [0u8; 128];
        want[0..2].copy_from_slice(&3u16.to_ne_bytes());
        want[2..4].copy_from_slice(&0x0200u16.to_ne_bytes());
        want[4..8].copy_from_slice(&7u32.to_ne_bytes());
        want[8] = 1;
        want[9] = 0x73;
        want[33..36].copy_from_slice(b"app");
        assert_eq!(m, want);
    }

    #[test]
    fn descriptor_words_are_the_bytes_in_memory() {
        let d = Descriptor { flags: 1, region: 0x0203, length: 0x0405_0607, offset: 0x0809_0a0b };
        let (w0, w1) = d.to_words();
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&w0.to_ne_bytes());
        bytes[8..].copy_from_slice(&w1.to_ne_bytes());
        assert_eq!(bytes[0..2], 1u16.to_ne_bytes());
        assert_eq!(bytes[2..4], 0x0203u16.to_ne_bytes());
        assert_eq!(bytes[4..8], 0x0405_0607u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 0x0809_0a0bu32.to_ne_bytes());
        assert_eq!(bytes[12..], [0; 4]);
        assert_eq!(Descriptor::from_words(w0, w1), d);
    }

    #[test]
    fn texts_are_cut_and_made_printable() {
        let long = "é".repeat(40);
        let Message::Connect { if_name } =
            Message::decode(&Message::Connect { if_name: long }.encode()).unwrap()
        else {
            panic!("type changed");
        };
        assert_eq!(if_name, "é".repeat(15));
        let mut m = Message::Connect { if_name: String::new() }.encode();
        m[2..2 + NAME_SIZE].copy_from_slice(&[b'x'; NAME_SIZE]);
        m[3] = 0x1b;
        m[4] = 0xff;
        let Message::Connect { if_name } = Message::decode(&m).unwrap() else { panic!("type changed") };
        assert_eq!(if_name.chars().take(4).collect::<String>(), "x\u{fffd}\u{fffd}x");
        assert_eq!(if_name.chars().count(), NAME_SIZE);
    }

    proptest! {
        /// Any 128 bytes either name an unknown type or decode to a message that survives a round trip.
        #[test]
        fn decode_is_total(kind in 0u16..12, body in proptest::collection::vec(any::<u8>(), 126)) {
            let mut m = [0; MESSAGE_SIZE];
            m[..2].copy_from_slice(&kind.to_ne_bytes());
            m[2..].copy_from_slice(&body);
            match Message::decode(&m) {
                Ok(message) => {
                    prop_assert_eq!(message.kind() as u16, kind);
                    let again = Message::decode(&message.encode()).unwrap();
                    prop_assert_eq!(again.kind(), message.kind());
                }
                Err(e) => prop_assert!(matches!(e, HandshakeError::MessageType(k) if k == kind && !(1..=8).contains(&k))),
            }
        }
    }
}
