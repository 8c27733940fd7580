//! The main thread's side of a pg interface.

use super::capture::{Capture, CaptureConfig, CaptureInfo, Tap};
use super::pcap::PcapError;
use super::stream::{Source, Stream, StreamConfig, StreamInfo};
use super::template::TemplateError;
use super::{PgInput, PgOutput};
use pcap_file::DataLink;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wharf_engine::ring::{Producer, ring};
use wharf_engine::wake::Waker;

/// Streams on their way to the worker.
const ADDED: usize = 64;
/// Captures on their way to the worker.
const TAPS: usize = 4;

/// What packets of the interface start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PgMode {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// An IPv4 header.
    Ip4,
    /// An IPv6 header.
    Ip6,
}

impl PgMode {
    /// Name of the node that received packets go to.
    pub fn input_node(self) -> &'static str {
        match self {
            PgMode::Ethernet => "ethernet-input",
            PgMode::Ip4 => "ip4-input",
            PgMode::Ip6 => "ip6-input",
        }
    }

    pub(super) fn suits(self, link: DataLink) -> bool {
        match self {
            PgMode::Ethernet => link == DataLink::ETHERNET,
            PgMode::Ip4 => link == DataLink::RAW || link == DataLink::IPV4,
            PgMode::Ip6 => link == DataLink::RAW || link == DataLink::IPV6,
        }
    }

    pub(super) fn link_type(self) -> u32 {
        let link = if self == PgMode::Ethernet { DataLink::ETHERNET } else { DataLink::RAW };
        link.into()
    }
}

impl std::fmt::Display for PgMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PgMode::Ethernet => "ethernet",
            PgMode::Ip4 => "ip4",
            PgMode::Ip6 => "ip6",
        })
    }
}

/// Why the packet generator refuses.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// No such stream.
    #[error("there is no stream `{0}'")]
    NoStream(String),
    /// Two streams with one name.
    #[error("stream `{0}' exists already")]
    StreamExists(String),
    /// Not a number of packets per second.
    #[error("rate {0} is not a number of packets per second")]
    Rate(f64),
    /// A stream without packets.
    #[error("stream `{0}' has no packets")]
    Empty(String),
    /// The stream is meant for another node.
    #[error("packets of {interface} go to {goes}, not to {wanted}")]
    Node {
        /// The interface.
        interface: String,
        /// Where they go.
        goes: &'static str,
        /// Where they were to go.
        wanted: String,
    },
    /// The template can't be played.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file can't be played.
    #[error(transparent)]
    Pcap(#[from] PcapError),
    /// The file can't be written.
    #[error("{}: {source}", file.display())]
    Capture {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A capture is running.
    #[error("a capture to {} is running", .0.display())]
    CaptureRuns(PathBuf),
    /// The worker took none of the last captures.
    #[error("the worker does not answer")]
    Busy,
    /// No descriptor to be had.
    #[error("eventfd: {0}")]
    Eventfd(#[source] std::io::Error),
}

/// What the interface has sent.
#[derive(Debug, Default)]
pub struct PgCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl PgCounters {
    /// Packets sent, and their bytes.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Called by the one worker that sends.
    pub(super) fn sent(&self, packets: u64, bytes: u64) {
        for (counter, n) in [(&self.packets, packets), (&self.bytes, bytes)] {
            counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        }
    }
}

/// A pg interface, on the main thread.
#[derive(Debug)]
pub struct PgInterface {
    name: String,
    mode: PgMode,
    streams: Vec<Arc<Stream>>,
    /// Deleted, but the worker may still hold them: they are freed here, never there.
    deleted: Vec<Arc<Stream>>,
    added: Producer<Arc<Stream>>,
    /// For `added`, when it has room.
    waiting: VecDeque<Arc<Stream>>,
    wake: Arc<OwnedFd>,
    counters: Arc<PgCounters>,
    taps: Producer<Tap>,
    /// Locked by main alone, so that also what only looks can write what has come.
    capture: Mutex<Option<Capture>>,
    main: Option<Waker>,
}

impl PgInterface {
    /// An interface without streams, and its two devices.
    pub fn new(name: &str, mode: PgMode) -> Result<(PgInterface, PgInput, PgOutput), PgError> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let wake = Arc::new(wake.map_err(|e| PgError::Eventfd(e.into()))?);
        let (added, streams) = ring(ADDED);
        let (taps, taps_out) = ring(TAPS);
        let counters = Arc::new(PgCounters::default());
        let input = PgInput::new(streams, Arc::clone(&wake));
        let output = PgOutput::new(Arc::clone(&counters), taps_out);
        let interface = PgInterface {
            name: name.into(),
            mode,
            streams: Vec::new(),
            deleted: Vec::new(),
            added,
            waiting: VecDeque::new(),
            wake,
            counters,
            taps,
            capture: Mutex::new(None),
            main: None,
        };
        Ok((interface, input, output))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its packets start with.
    pub fn mode(&self) -> PgMode {
        self.mode
    }

    /// What it has sent.
    pub fn counters(&self) -> &PgCounters {
        &self.counters
    }

    // ---------------------------------------------------------------------------------------- streams

    /// Makes a stream, which does not play yet.
    pub fn add(&mut self, config: StreamConfig) -> Result<(), PgError> {
        if self.find(&config.name).is_ok() {
            return Err(PgError::StreamExists(config.name));
        }
        if !config.rate.is_finite() || config.rate < 0.0 {
            return Err(PgError::Rate(config.rate));
        }
        match &config.source {
            Source::Template(template) => template.check()?,
            Source::Replay(replay) if replay.is_empty() => return Err(PgError::Empty(config.name)),
            Source::Replay(_) => {}
        }
        let stream = Arc::new(Stream::new(config));
        self.streams.push(Arc::clone(&stream));
        self.waiting.push_back(stream);
        self.send();
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&Arc<Stream>, PgError> {
        let found = self.streams.iter().find(|s| s.config.name == name);
        found.ok_or_else(|| PgError::NoStream(name.into()))
    }

    /// Plays a stream from its start; one that plays already goes on.
    pub fn enable(&mut self, name: &str) -> Result<(), PgError> {
        self.find(name)?.enable();
        self.wake();
        Ok(())
    }

    /// Stops a stream.
    pub fn disable(&mut self, name: &str) -> Result<(), PgError> {
        self.find(name)?.disable();
        Ok(())
    }

    /// Plays all streams.
    pub fn enable_all(&mut self) {
        self.streams.iter().for_each(|s| s.enable());
        self.wake();
    }

    /// Stops all streams.
    pub fn disable_all(&mut self) {
        self.streams.iter().for_each(|s| s.disable());
    }

    /// Stops a stream and forgets it.
    pub fn delete(&mut self, name: &str) -> Result<(), PgError> {
        self.find(name)?;
        let gone = self.streams.extract_if(.., |s| s.config.name == name);
        self.deleted.extend(gone.inspect(|s| {
            s.disable();
            s.delete();
        }));
        self.wake();
        Ok(())
    }

    /// The streams, in the order in which they were made.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.streams.iter().map(|s| s.info()).collect()
    }

    fn send(&mut self) {
        while let Some(stream) = self.waiting.pop_front() {
            if let Err(back) = self.added.push(stream) {
                self.waiting.push_front(back);
                break;
            }
        }
        self.wake();
    }

    fn wake(&self) {
        // A full counter is a wake-up too.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    // ---------------------------------------------------------------------------------------- capture

    /// Starts to record what the interface sends. The file has its header at once.
    pub fn start_capture(&mut self, config: CaptureConfig) -> Result<(), PgError> {
        if let Some(running) = self.capture().filter(|c| c.running) {
            return Err(PgError::CaptureRuns(running.file));
        }
        let (capture, tap) = Capture::start(config, self.mode, self.main.clone())?;
        self.taps.push(tap).map_err(|_| PgError::Busy)?;
        *self.capture_mut() = Some(capture);
        Ok(())
    }

    fn capture_mut(&mut self) -> &mut Option<Capture> {
        self.capture.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the capture: what was sent so far is in the file. `None` if there was none.
    pub fn stop_capture(&mut self) -> Option<CaptureInfo> {
        let capture = self.capture_mut().as_mut()?;
        capture.stop();
        Some(capture.info())
    }

    /// The capture that runs, or the last one. What was sent so far is in the file.
    pub fn capture(&self) -> Option<CaptureInfo> {
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let capture = capture.as_mut()?;
        capture.poll();
        Some(capture.info())
    }

    /// Wakes main when there is something for [`PgInterface::poll`].
    pub fn set_waker(&mut self, main: Waker) {
        self.main = Some(main);
    }

    /// What main does when it is woken, and every now and then: write what was captured, free what was deleted.
    pub fn poll(&mut self) {
        if let Some(capture) = self.capture_mut() {
            capture.poll();
        }
        if !self.waiting.is_empty() {
            self.send();
        }
        self.deleted.retain(|s| Arc::strong_count(s) > 1);
    }
}
