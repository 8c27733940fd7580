//! An established connection: queues for the workers, and a control side for the main thread.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::config::{Mode, Role};
use crate::error::{Direction, HandshakeError, RingError, Violation};
use crate::index::{Cursor, End, Indices};
use crate::queue::{Counters, Link, RingState, Shared};
use crate::region::{Buffers, Layout, Regions};
use crate::ring::Ring;
use crate::rx::RxQueue;
use crate::socket::{Channel, PeerCredentials};
use crate::tx::TxQueue;
use crate::wire::Message;

/// What both peers agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Our role.
    pub role: Role,
    /// Interface id.
    pub id: u32,
    /// Interface mode.
    pub mode: Mode,
    /// Name of the peer's interface, as it says.
    pub remote_interface: String,
    /// Name of the peer's application, as it says.
    pub remote_app: String,
    /// Who the peer is, as the kernel says.
    pub peer: Option<PeerCredentials>,
    /// Bytes of each shared region.
    pub region_sizes: Vec<u64>,
}

/// A connection that is up. Its three parts go separate ways: `control` stays where sockets are polled, the
/// queues move to their workers. Shared memory is unmapped when the last part is dropped.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub control: Control,
    /// Queues to receive from, in the order of their rings.
    pub rx: Vec<RxQueue>,
    /// Queues to transmit to, in the order of their rings.
    pub tx: Vec<TxQueue>,
    /// What both peers agreed on.
    pub info: ConnectionInfo,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer said so.
    #[error("the peer disconnected: {reason:?} (code {code})")]
    Remote {
        /// Code of the peer, 0 if none.
        code: u32,
        /// Text of the peer, made printable.
        reason: String,
    },
    /// The peer closed the socket without a word, or died.
    #[error("the peer closed the socket")]
    RemoteClosed,
    /// We said so, by [`Control::disconnect`].
    #[error("disconnected: {reason:?}")]
    Local {
        /// Our text.
        reason: String,
    },
    /// The peer sent what no peer sends on a connection that is up.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The peer broke the rules of a ring.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// The control side of a connection. Dropping it ends the connection.
#[derive(Debug)]
pub struct Control {
    channel: Channel,
    link: Arc<Link>,
    rx: Vec<Shared>,
    tx: Vec<Shared>,
    /// Holds the interface id on the listener.
    seat: Option<Arc<()>>,
    closed: Option<CloseReason>,
}

impl Control {
    /// The socket: poll it for input and hang-up, then call [`Control::process`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Reads the socket and looks for violations. `Some` once the connection has ended: then drop it, and have
    /// the workers drop the queues. Never blocks.
    pub fn process(&mut self) -> Option<&CloseReason> {
        if self.closed.is_none() {
            if let Some(violation) = self.violation() {
                self.end(CloseReason::Violation(violation));
            } else if let Some(reason) = self.read() {
                self.end(reason);
            }
        }
        self.closed.as_ref()
    }

    fn read(&mut self) -> Option<CloseReason> {
        let received = match self.channel.receive() {
            Ok(received) => received?,
            Err(HandshakeError::Closed) => return Some(CloseReason::RemoteClosed),
            Err(e) => return Some(CloseReason::Protocol(e.to_string())),
        };
        Some(match Message::decode(&received.bytes) {
            Ok(Message::Disconnect { code, reason }) => CloseReason::Remote { code, reason },
            Ok(other) => CloseReason::Protocol(format!("unexpected message {:?}", other.kind())),
            Err(e) => CloseReason::Protocol(e.to_string()),
        })
    }

    /// Ends the connection and tells the peer why. The first reason stays.
    pub fn disconnect(&mut self, reason: &str) {
        if self.closed.is_none() {
            self.end(CloseReason::Local { reason: reason.into() });
        }
    }

    fn end(&mut self, reason: CloseReason) {
        self.link.close();
        self.seat = None;
        let tell = match &reason {
            CloseReason::Remote { .. } | CloseReason::RemoteClosed => None,
            CloseReason::Local { reason } => Some(reason.clone()),
            other => Some(other.to_string()),
        };
        if let Some(reason) = tell {
            // Nothing is lost if the peer no longer listens.
            let _ = self.channel.send(&Message::Disconnect { code: 0, reason }.encode(), None);
        }
        self.channel.discard_unread();
        self.closed = Some(reason);
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// What a queue found the peer doing, if anything. [`Control::process`] turns it into the end.
    pub fn violation(&self) -> Option<Violation> {
        if let Some(region) = self.rx.first().and_then(|q| q.ring.regions().lost()) {
            let lost = Violation::RegionLost { region };
            self.link.violate(lost);
            // Queues may have found the zeros in its place wrong before.
            return Some(lost);
        }
        self.link.violation()
    }

    /// Rings that we receive from, wherever their queues are.
    pub fn rx_rings(&self) -> Vec<RingState> {
        self.rx.iter().map(Shared::state).collect()
    }

    /// Rings that we transmit to, wherever their queues are.
    pub fn tx_rings(&self) -> Vec<RingState> {
        self.tx.iter().map(Shared::state).collect()
    }

    /// Counters of the receive queues.
    pub fn rx_counters(&self) -> Vec<Counters> {
        self.rx.iter().map(|q| q.counters.read()).collect()
    }

    /// Counters of the transmit queues.
    pub fn tx_counters(&self) -> Vec<Counters> {
        self.tx.iter().map(|q| q.counters.read()).collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.disconnect("interface closed");
    }
}

/// A ring that the handshake agreed on.
#[derive(Debug)]
pub(crate) struct RingSpec {
    pub(crate) region: u16,
    pub(crate) offset: u32,
    pub(crate) log2_size: u8,
    pub(crate) event: OwnedFd,
}

/// What the handshake collected. Ring `i` of each direction has index `i`, below 255.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) regions: Arc<Regions>,
    pub(crate) s2m: Vec<RingSpec>,
    pub(crate) m2s: Vec<RingSpec>,
}

/// The queues of a connection, and the control side's views of them.
pub(crate) struct Queues {
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    rx_views: Vec<Shared>,
    tx_views: Vec<Shared>,
}

impl Queues {
    /// A server's queues: checks the cookies, and takes over the tails as they are.
    pub(crate) fn server(parts: Parts, link: &Arc<Link>) -> Result<Self, HandshakeError> {
        Self::build(parts, link, Direction::S2M, |ring, _, _| {
            ring.check_cookie()?;
            Ok((Cursor::new(End::Server, ring.log2_size(), ring.tail()), None))
        })
    }

    /// A client's queues, over memory that it laid out itself; all indices start at `start`.
    pub(crate) fn client(
        parts: Parts,
        link: &Arc<Link>,
        layout: &Layout,
        start: u16,
    ) -> Result<Self, HandshakeError> {
        Self::build(parts, link, Direction::M2S, |ring, direction, index| {
            let end = if direction == Direction::S2M { End::ClientTx } else { End::ClientRx };
            Ok((Cursor::new(end, ring.log2_size(), start), Some(layout.buffers(direction, index.into()))))
        })
    }

    fn build(
        parts: Parts,
        link: &Arc<Link>,
        receive: Direction,
        start: impl Fn(&Ring, Direction, u8) -> Result<(Cursor, Option<Buffers>), RingError>,
    ) -> Result<Self, HandshakeError> {
        let mut queues = Self { rx: Vec::new(), tx: Vec::new(), rx_views: Vec::new(), tx_views: Vec::new() };
        for (direction, specs) in [(Direction::S2M, parts.s2m), (Direction::M2S, parts.m2s)] {
            for (index, spec) in (0..=u8::MAX).zip(specs) {
                let fail =
                    |source: RingError| HandshakeError::Ring { direction, index: index.into(), source };
                let ring = Ring::new(parts.regions.clone(), spec.region, spec.offset, spec.log2_size)
                    .map_err(fail)?;
                let (cursor, buffers) = start(&ring, direction, index).map_err(fail)?;
                let shared = Shared::new(ring, direction, index, link.clone(), spec.event);
                if direction == receive {
                    queues.rx_views.push(shared.clone());
                    queues.rx.push(RxQueue::new(shared, cursor, buffers));
                } else {
                    queues.tx_views.push(shared.clone());
                    queues.tx.push(TxQueue::new(shared, cursor, buffers));
                }
            }
        }
        Ok(queues)
    }
}

impl Connection {
    pub(crate) fn new(
        channel: Channel,
        link: Arc<Link>,
        queues: Queues,
        seat: Option<Arc<()>>,
        info: ConnectionInfo,
    ) -> Self {
        let Queues { rx, tx, rx_views, tx_views } = queues;
        let control = Control { channel, link, rx: rx_views, tx: tx_views, seat, closed: None };
        Self { control, rx, tx, info }
    }
}
