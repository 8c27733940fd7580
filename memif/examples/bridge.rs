//! Joins two memif interfaces: what comes in on one goes out of the other.
//!
//! ```text
//! bridge client:0:/run/wharf/memif.sock server:0:/run/other.sock
//! ```
//!
//! Packets are copied once, from one peer's memory into ours, and once more into the other's. Sleeps while there are none.

mod common;

use std::error::Error;
use std::time::Instant;

use common::End;
use memif::{MAX_FRAME, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let ends: Vec<String> = std::env::args().skip(1).collect();
    let [a, b] = &ends[..] else {
        return Err("usage: bridge ROLE:ID:SOCKET ROLE:ID:SOCKET".into());
    };
    let mut ports = [End::parse(a)?.open("bridge")?, End::parse(b)?.open("bridge")?];
    let mut buffers = vec![[0; MAX_FRAME]; 64];
    loop {
        sleep(&mut ports)?;
        for (name, port) in [a, b].into_iter().zip(&mut ports) {
            while let Some(event) = port.process(Instant::now()) {
                println!("{name}: {event:?}");
            }
        }
        let [a, b] = &mut ports;
        forward(a, b, &mut buffers);
        forward(b, a, &mut buffers);
    }
}

/// Sleeps until one of the ports has something to do.
fn sleep(ports: &mut [Port; 2]) -> Result<(), Box<dyn Error>> {
    // Both, also if the first has work already.
    let armed = ports.each_mut().map(Port::arm);
    if armed == [true, true] {
        let next = ports.iter().filter_map(Port::deadline).min();
        let time = next.map(|at| at.saturating_duration_since(Instant::now()));
        let time = time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let fds = ports.each_ref().map(Port::fd);
        match poll(&mut fds.each_ref().map(|fd| PollFd::new(fd, PollFlags::IN)), time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ports.iter_mut().for_each(Port::disarm);
    Ok(())
}

/// One burst from each queue of `from`. What does not fit `to` is lost, as on any link.
fn forward(from: &mut Port, to: &mut Port, buffers: &mut [[u8; MAX_FRAME]]) {
    let Some(from) = from.link() else { return };
    let mut to = to.link();
    let mut lengths = [0; 64];
    for (i, rx) in from.rx.iter_mut().enumerate() {
        let n = rx.receive_into(buffers, &mut lengths);
        let packets: Vec<&[u8]> = buffers.iter().zip(lengths).take(n).map(|(b, len)| &b[..len]).collect();
        if let Some(to) = &mut to {
            let queue = i % to.tx.len();
            to.tx[queue].transmit(packets.as_slice());
            to.tx[queue].kick();
        }
    }
}
