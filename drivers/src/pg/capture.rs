//! A capture: the worker's half copies packets into a ring of pcap records, main's half writes them to a file.

use super::interface::{PgError, PgMode};
use super::pcap::{file_header, packet_header};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use wharf_engine::clock;
use wharf_engine::ring::{Consumer, Producer, ring};
use wharf_engine::wake::Waker;

/// Bursts on their way to the file, which may be of a packet each.
const RING: usize = 4096;
/// Bytes on their way to the file.
pub(super) const MAX_WAITING: u64 = 64 << 20;

/// A capture to be made.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The file; replaced if it exists.
    pub file: PathBuf,
    /// Packets to record; 0 is any number.
    pub max_packets: u64,
    /// Bytes to keep of each packet.
    pub snaplen: u32,
    /// Time stamps in nanoseconds, else microseconds.
    pub nanoseconds: bool,
}

impl CaptureConfig {
    /// Every packet whole, in nanoseconds.
    pub fn new(file: impl Into<PathBuf>) -> CaptureConfig {
        CaptureConfig { file: file.into(), max_packets: 0, snaplen: 65535, nanoseconds: true }
    }
}

/// A capture as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureInfo {
    /// The file.
    pub file: PathBuf,
    /// Whether more is recorded.
    pub running: bool,
    /// Packets in the file.
    pub packets: u64,
    /// Packets that were lost since main did not write fast enough.
    pub dropped: u64,
    /// Packets to record; 0 is any number.
    pub max_packets: u64,
    /// Why writing failed.
    pub error: Option<String>,
}

/// Records of one burst.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    packets: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// Main wants no more.
    stop: AtomicBool,
    /// The worker has recorded as many as were asked for.
    full: AtomicBool,
    dropped: AtomicU64,
    /// Bytes that main has not written yet.
    waiting: AtomicU64,
}

/// The worker's half.
#[derive(Debug)]
pub(super) struct Tap {
    shared: Arc<Shared>,
    chunks: Producer<Chunk>,
    /// Who writes.
    main: Option<Waker>,
    left: u64,
    snaplen: u32,
    nanoseconds: bool,
    /// From the worker's clock to nanoseconds since 1970.
    epoch: u64,
}

impl Tap {
    /// Records a burst. False once the capture is over.
    pub(super) fn record<'a>(&mut self, now: u64, packets: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        if self.shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        let wanted = packets.take(usize::try_from(self.left).unwrap_or(usize::MAX));
        let kept = |packet: &[u8]| packet.len().min(self.snaplen as usize);
        let room = wanted.clone().map(|p| 16 + kept(p)).sum();
        let mut chunk = Chunk { bytes: Vec::with_capacity(room), packets: 0 };
        let nanos = self.epoch.wrapping_add(now);
        for packet in wanted {
            let kept = kept(packet);
            let header = packet_header(nanos, self.nanoseconds, kept as u32, packet.len() as u32);
            chunk.bytes.extend_from_slice(&header);
            chunk.bytes.extend_from_slice(&packet[..kept]);
            chunk.packets += 1;
        }
        let packets = chunk.packets;
        if packets == 0 {
            return true;
        }
        let (waiting, len) = (&self.shared.waiting, chunk.bytes.len() as u64);
        let has_room = waiting.fetch_add(len, Ordering::Relaxed) + len <= MAX_WAITING;
        if has_room && self.chunks.push(chunk).is_ok() {
            self.left -= packets;
            self.main.iter().for_each(Waker::wake);
        } else {
            waiting.fetch_sub(len, Ordering::Relaxed);
            let dropped = &self.shared.dropped;
            dropped.store(dropped.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
        }
        if self.left == 0 {
            // After the last push: who sees this sees that.
            self.shared.full.store(true, Ordering::Release);
        }
        self.left != 0
    }
}

/// Main's half.
#[derive(Debug)]
pub(super) struct Capture {
    config: CaptureConfig,
    shared: Arc<Shared>,
    chunks: Consumer<Chunk>,
    /// While it is running.
    file: Option<File>,
    packets: u64,
    error: Option<String>,
}

impl Capture {
    /// Makes the file. `main` is woken when there is something to write.
    pub(super) fn start(
        config: CaptureConfig,
        mode: PgMode,
        main: Option<Waker>,
    ) -> Result<(Capture, Tap), PgError> {
        let fail = |source| PgError::Capture { file: config.file.clone(), source };
        let mut file = File::create(&config.file).map_err(fail)?;
        file.write_all(&file_header(config.snaplen, mode, config.nanoseconds)).map_err(fail)?;
        let (producer, chunks) = ring(RING);
        let shared = Arc::new(Shared::default());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let tap = Tap {
            shared: Arc::clone(&shared),
            chunks: producer,
            main,
            left: if config.max_packets == 0 { u64::MAX } else { config.max_packets },
            snaplen: config.snaplen,
            nanoseconds: config.nanoseconds,
            epoch: wall.wrapping_sub(clock::nanos()),
        };
        Ok((Capture { config, shared, chunks, file: Some(file), packets: 0, error: None }, tap))
    }

    /// Writes what has come.
    pub(super) fn poll(&mut self) {
        let full = self.shared.full.load(Ordering::Acquire);
        // As many as the ring holds, so that a busy worker does not keep main here.
        for _ in 0..RING {
            let Some(chunk) = self.chunks.pop() else { break };
            self.shared.waiting.fetch_sub(chunk.bytes.len() as u64, Ordering::Relaxed);
            let Some(file) = &mut self.file else { continue };
            match file.write_all(&chunk.bytes) {
                Ok(()) => self.packets += chunk.packets,
                Err(error) => {
                    self.error = Some(error.to_string());
                    self.shared.stop.store(true, Ordering::Relaxed);
                    self.file = None;
                }
            }
        }
        if full {
            self.file = None;
        }
    }

    /// Ends it: what the worker has recorded so far is written.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.poll();
        self.file = None;
    }

    pub(super) fn info(&self) -> CaptureInfo {
        CaptureInfo {
            file: self.config.file.clone(),
            running: self.file.is_some(),
            packets: self.packets,
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            max_packets: self.config.max_packets,
            error: self.error.clone(),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}
