//! The floor: what the memif crate alone costs, with nothing between its receive and its transmit.
//!
//! Packets are copied out of shared memory and into it, as in wharf, which never looks at a packet that its peer can
//! still change. Whatever wharf's nodes do comes on top of this.

use std::path::Path;
use std::time::{Duration, Instant};

use memif::{
    Address, Connection, InterfaceConfig, Listener, ListenerConfig, MAX_BURST, RxQueue, RxSink, ServerEvent,
    TxQueue, TxSource,
};

use crate::Result;
use crate::process::pin;

/// An odd number of cache lines, so that the packets of a burst do not compete for the same sets.
const STRIDE: usize = 33 * 64;
/// Nobody connects within this time: nobody will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Turns between two looks at the sockets.
const TURNS: u32 = 10_000;

/// One burst of packets.
struct Burst {
    buffers: Vec<[u8; STRIDE]>,
    lengths: [u16; MAX_BURST],
    packets: usize,
}

impl Burst {
    fn forward(&mut self, rx: &mut RxQueue, tx: &mut TxQueue) {
        self.packets = 0;
        if rx.receive(MAX_BURST, self) != 0 {
            tx.transmit(self);
            tx.kick();
        }
    }
}

impl RxSink for Burst {
    #[inline(always)]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(self.packets).and_then(|buffer| buffer.get_mut(..len))
    }

    #[inline(always)]
    fn accept(&mut self, len: usize) {
        if let Some(length) = self.lengths.get_mut(self.packets) {
            *length = len as u16;
        }
        self.packets += 1;
    }
}

impl TxSource for Burst {
    #[inline(always)]
    fn packets(&self) -> usize {
        self.packets
    }

    #[inline(always)]
    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        match (self.buffers.get(packet), self.lengths.get(packet)) {
            (Some(buffer), Some(len)) => buffer.get(..usize::from(*len)).unwrap_or_default(),
            _ => &[],
        }
    }
}

fn listen(socket: &Path) -> std::result::Result<Listener, Box<dyn std::error::Error>> {
    let mut listener = Listener::bind(ListenerConfig::new(Address::Path(socket.into())), Instant::now())?;
    listener.add(InterfaceConfig::new(0, "floor"))?;
    Ok(listener)
}

/// The first connection to each of the listeners.
fn accept(listeners: &mut [Listener; 2]) -> Result<[Connection; 2]> {
    let start = Instant::now();
    let mut links = [None, None];
    loop {
        for (listener, link) in listeners.iter_mut().zip(&mut links) {
            for event in listener.process(Instant::now()) {
                if let ServerEvent::Connected(connection) = event {
                    *link = Some(*connection);
                }
            }
        }
        match links {
            [Some(a), Some(b)] => return Ok([a, b]),
            other => links = other,
        }
        if start.elapsed() > PATIENCE {
            return Err("nobody connects".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Forwards both ways between `dir`/m1.sock and `dir`/m2.sock until a peer leaves.
pub(crate) fn run(dir: &Path, core: usize) -> Result<()> {
    pin(core)?;
    let bind = |name: &str| {
        let socket = dir.join(name);
        listen(&socket).map_err(|e| format!("{}: {e}", socket.display()))
    };
    let mut listeners = [bind("m1.sock")?, bind("m2.sock")?];
    let [mut a, mut b] = accept(&mut listeners)?;
    let mut burst = Burst { buffers: vec![[0; STRIDE]; MAX_BURST], lengths: [0; MAX_BURST], packets: 0 };
    while a.control.process().is_none() && b.control.process().is_none() {
        let (Some(rx_a), Some(tx_a)) = (a.rx.first_mut(), a.tx.first_mut()) else { break };
        let (Some(rx_b), Some(tx_b)) = (b.rx.first_mut(), b.tx.first_mut()) else { break };
        for _ in 0..TURNS {
            burst.forward(rx_a, tx_b);
            burst.forward(rx_b, tx_a);
        }
    }
    Ok(())
}
