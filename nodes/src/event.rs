//! What nodes tell the control plane: rare things, over a bounded ring per node and worker.

use crate::acl::{Direction, Tuple};
use crate::wire::ethernet::MacAddress;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf_engine::SwIfIndex;
use wharf_engine::ring::{Consumer, Producer, ring};
use wharf_engine::wake::Waker;

/// Events that wait for the control plane at most, per node and worker.
const RING: usize = 1024;

/// Something that the control plane should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An ARP packet told where a neighbour is.
    ArpSeen {
        /// The interface that received it.
        interface: SwIfIndex,
        /// The neighbour's address.
        address: Ipv4Addr,
        /// The neighbour's MAC address.
        mac: MacAddress,
        /// Whether the packet was meant for us: only then is a new neighbour learned.
        for_us: bool,
    },
    /// Packets wait for the MAC address of a neighbour.
    Resolve {
        /// The interface on which it is.
        interface: SwIfIndex,
        /// Its address.
        address: Ipv4Addr,
    },
    /// An answer to a ping.
    EchoReply {
        /// Who answered.
        from: Ipv4Addr,
        /// Identifier of the request.
        id: u16,
        /// Sequence number of the request.
        sequence: u16,
        /// Time to live that is left.
        ttl: u8,
        /// Bytes of the IP packet.
        len: u16,
        /// When it was received, nanoseconds of the engine's clock.
        received: u64,
    },
    /// An access list dropped a packet: one of a few a second.
    AclDenied {
        /// The interface whose lists they are.
        interface: SwIfIndex,
        /// Whether it received the packet, or was to send it.
        direction: Direction,
        /// The packet.
        tuple: Tuple,
        /// List and number of the rule; `None` when none matched.
        rule: Option<(u32, u32)>,
    },
}

/// The node's end.
#[derive(Debug)]
pub struct EventSender {
    ring: Producer<Event>,
    waker: Waker,
}

impl EventSender {
    /// Tells the control plane; false when it is too far behind.
    pub fn send(&mut self, event: Event) -> bool {
        let sent = self.ring.push(event).is_ok();
        if sent {
            self.waker.wake();
        }
        sent
    }
}

/// The control plane's ends of all rings. Clones see the same rings.
#[derive(Clone, Debug)]
pub struct Events {
    consumers: Arc<Mutex<Vec<Consumer<Event>>>>,
    waker: Waker,
}

impl Events {
    /// No rings yet; those who send will wake `waker`.
    pub fn new(waker: Waker) -> Events {
        Events { consumers: Arc::default(), waker }
    }

    fn consumers(&self) -> MutexGuard<'_, Vec<Consumer<Event>>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ring for one more node instance.
    pub fn sender(&self) -> EventSender {
        let (producer, consumer) = ring(RING);
        self.consumers().push(consumer);
        EventSender { ring: producer, waker: self.waker.clone() }
    }

    /// Takes up to `limit` events.
    pub fn take(&self, limit: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for consumer in self.consumers().iter_mut() {
            while events.len() < limit
                && let Some(event) = consumer.pop()
            {
                events.push(event);
            }
        }
        events
    }
}
