//! pcap files: read whole when a stream is made, written as packets come
//! (draft-ietf-opsawg-pcap: a file header of 24 bytes, then a header of 16 before each packet).

use super::interface::PgMode;
use pcap_file::pcap::PcapReader;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use wharf_engine::buffer::DATA_SIZE;

/// Packets that a stream may hold.
pub const MAX_PCAP_PACKETS: usize = 1 << 20;
/// Bytes that a stream may hold.
pub const MAX_PCAP_BYTES: usize = 256 << 20;

/// Why a file can't be played.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// It can't be opened.
    #[error("{}: {source}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is none.
    #[error("{}: not a pcap file (pcapng is not read): {why}", file.display())]
    NotPcap {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        why: String,
    },
    /// Its packets start with something else.
    #[error("{}: link type {found:?} does not suit an interface in mode {mode}", file.display())]
    LinkType {
        /// The file.
        file: PathBuf,
        /// Its link type.
        found: pcap_file::DataLink,
        /// Mode of the interface.
        mode: PgMode,
    },
    /// Cut short, or damaged.
    #[error("{}: packet {packet}: {why}", file.display())]
    Packet {
        /// The file.
        file: PathBuf,
        /// Number of the packet, from 1.
        packet: usize,
        /// What is wrong.
        why: String,
    },
    /// There is nothing in it.
    #[error("{}: no packet in it", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// Packets to be played in order.
#[derive(Clone, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// End of each packet in `bytes`.
    ends: Vec<u32>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("packets", &self.len()).finish_non_exhaustive()
    }
}

impl Replay {
    /// Reads a file whole, for an interface in `mode`.
    pub fn read(file: &Path, mode: PgMode) -> Result<Replay, PcapError> {
        let path = || file.to_owned();
        let fail = |source| PcapError::Open { file: path(), source };
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(file).map_err(fail)?.is_file() {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        Replay::from_reader(file, File::open(file).map_err(fail)?, mode)
    }

    /// As [`Replay::read`], from wherever the bytes are; `file` is what errors call it.
    pub fn from_reader(file: &Path, bytes: impl Read, mode: PgMode) -> Result<Replay, PcapError> {
        let path = || file.to_owned();
        let mut reader =
            PcapReader::new(bytes).map_err(|e| PcapError::NotPcap { file: path(), why: e.to_string() })?;
        let found = reader.header().datalink;
        if !mode.suits(found) {
            return Err(PcapError::LinkType { file: path(), found, mode });
        }
        let mut replay = Replay::default();
        // The cooked form refuses packets that were longer than what was kept of them.
        while let Some(packet) = reader.next_raw_packet() {
            let number = replay.len() + 1;
            let fail = |why: String| PcapError::Packet { file: path(), packet: number, why };
            let packet = packet.map_err(|e| fail(e.to_string()))?;
            replay.push(&packet.data).map_err(fail)?;
        }
        if replay.is_empty() {
            return Err(PcapError::Empty { file: path() });
        }
        Ok(replay)
    }

    /// Appends a packet, or says why not.
    pub fn push(&mut self, packet: &[u8]) -> Result<(), String> {
        if packet.is_empty() || packet.len() > DATA_SIZE {
            return Err(format!("{} bytes: a packet has 1 to {DATA_SIZE}", packet.len()));
        }
        if self.len() == MAX_PCAP_PACKETS {
            return Err(format!("a stream has at most {MAX_PCAP_PACKETS} packets"));
        }
        if self.bytes.len() + packet.len() > MAX_PCAP_BYTES {
            return Err(format!("a stream has at most {MAX_PCAP_BYTES} bytes"));
        }
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }

    /// Packets in it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Packet `n`, counted from 0; after the last comes the first again.
    #[inline]
    pub fn get(&self, n: u64) -> &[u8] {
        if self.ends.is_empty() {
            return &[];
        }
        let at = (n % self.ends.len() as u64) as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        self.bytes.get(start..self.ends[at] as usize).unwrap_or_default()
    }
}

/// Writes a file of Ethernet frames: for each when it was seen (nanoseconds since 1970), how long it was, and what is kept of it.
pub fn write_pcap<'a>(
    file: &Path,
    snaplen: u32,
    frames: impl Iterator<Item = (u64, u32, &'a [u8])>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&file_header(snaplen, PgMode::Ethernet, true))?;
    for (nanos, len, bytes) in frames {
        out.write_all(&packet_header(nanos, true, bytes.len() as u32, len))?;
        out.write_all(bytes)?;
    }
    out.flush()
}

/// The header of a file.
pub(super) fn file_header(snaplen: u32, mode: PgMode, nanoseconds: bool) -> [u8; 24] {
    let magic: u32 = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut header = [0; 24];
    header[..4].copy_from_slice(&magic.to_ne_bytes());
    header[4..6].copy_from_slice(&2u16.to_ne_bytes());
    header[6..8].copy_from_slice(&4u16.to_ne_bytes());
    header[16..20].copy_from_slice(&snaplen.to_ne_bytes());
    header[20..].copy_from_slice(&mode.link_type().to_ne_bytes());
    header
}

/// The header of a packet of `len` bytes, `kept` of which follow, sent at `nanos` since 1970.
pub(super) fn packet_header(nanos: u64, nanoseconds: bool, kept: u32, len: u32) -> [u8; 16] {
    let fraction = (nanos % 1_000_000_000) as u32;
    let fraction = if nanoseconds { fraction } else { fraction / 1000 };
    let mut header = [0; 16];
    header[..4].copy_from_slice(&((nanos / 1_000_000_000) as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&fraction.to_ne_bytes());
    header[8..12].copy_from_slice(&kept.to_ne_bytes());
    header[12..].copy_from_slice(&len.to_ne_bytes());
    header
}
