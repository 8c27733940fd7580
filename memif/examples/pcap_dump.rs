//! Writes what comes in on a memif interface to a pcap file, or to standard output for tcpdump.
//!
//! ```text
//! pcap_dump client:0:/run/wharf/memif.sock out.pcap
//! pcap_dump client:0:/run/wharf/memif.sock - | tcpdump -n -r -
//! ```

mod common;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use common::{End, Stop};
use memif::MAX_FRAME;

/// The file's header: pcap-savefile(5), times in microseconds, Ethernet.
fn header() -> Vec<u8> {
    let words = [0xa1b2_c3d4, 0, 0, 0, MAX_FRAME as u32, 1];
    words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [end, file] = &words[..] else { return Err("usage: pcap_dump ROLE:ID:SOCKET FILE|-".into()) };
    let out: Box<dyn Write> =
        if file == "-" { Box::new(io::stdout()) } else { Box::new(File::create(file)?) };
    let mut out = BufWriter::new(out);
    // The version is two 16-bit fields, major first.
    let mut start = header();
    start[4..8].copy_from_slice(&[2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat());
    out.write_all(&start)?;
    out.flush()?;

    let mut stop = Stop::new()?;
    let mut port = End::parse(end)?.open("pcap_dump")?;
    let (mut buffers, mut lengths) = (vec![[0; MAX_FRAME]; 64], [0; 64]);
    while !stop.asked() {
        // A signal ends the wait, unless it came just before.
        if let Some(event) = port.wait(Some(Duration::from_secs(1)))? {
            eprintln!("{event:?}");
        }
        let Some(link) = port.link() else { continue };
        for rx in link.rx {
            let n = rx.receive_into(&mut buffers, &mut lengths);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            for (packet, len) in buffers.iter().zip(lengths).take(n) {
                for word in [now.as_secs() as u32, now.subsec_micros(), len as u32, len as u32] {
                    out.write_all(&word.to_ne_bytes())?;
                }
                out.write_all(&packet[..len])?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
