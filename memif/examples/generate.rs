//! Sends packets at a rate, and counts what comes back.
//!
//! ```text
//! generate client:0:/run/wharf/memif.sock [PACKETS-PER-SECOND [BYTES [SECONDS]]]
//! ```
//!
//! Packets are UDP from 198.18.0.1 to 198.18.0.2 (RFC 2544's network), to the broadcast MAC address. Without a number of
//! seconds it goes on for ever.

mod common;

use std::error::Error;
use std::time::{Duration, Instant};

use common::End;

/// A frame of `len` bytes.
fn frame(len: usize) -> Vec<u8> {
    let len = len.clamp(42, 9000);
    let (ip_len, udp_len) = ((len - 14) as u16, (len - 34) as u16);
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0]].concat();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend(ip);
    // Port 9, discard; no checksum.
    frame.extend([0xc0, 0, 0, 9]);
    frame.extend(udp_len.to_be_bytes());
    frame.resize(len, 0);
    frame
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let end = words.next().ok_or("usage: generate ROLE:ID:SOCKET [PACKETS-PER-SECOND [BYTES [SECONDS]]]")?;
    let mut number = |default| words.next().map_or(Ok(default), |word| word.parse::<u64>());
    let (rate, bytes, seconds) = (number(1000)?, number(64)?, number(u64::MAX / 4)?);
    let mut port = End::parse(&end)?.open("generate")?;
    let frames = vec![frame(bytes as usize); 64];
    let mut start = Instant::now();
    let (mut sent, mut received) = (0u64, 0u64);
    loop {
        // Up to a thousand times a second; a faster sender would not sleep at all.
        if let Some(event) = port.wait(Some(Duration::from_millis(1)))? {
            println!("{event:?}");
            (start, sent, received) = (Instant::now(), 0, 0);
        }
        let Some(link) = port.link() else { continue };
        received += link.rx[0].receive_with(256, |_| ()) as u64;
        let elapsed = start.elapsed();
        let mut due = (elapsed.as_secs_f64() * rate as f64) as u64 - sent;
        while due > 0 {
            let burst = link.tx[0].transmit(&frames[..due.min(64) as usize]) as u64;
            if burst == 0 {
                // The ring is full: the rest is late.
                break;
            }
            sent += burst;
            due -= burst;
        }
        link.tx[0].kick();
        if elapsed.as_secs() >= seconds {
            println!("sent {sent}, received {received} in {:.3} s", elapsed.as_secs_f64());
            return Ok(());
        }
    }
}
