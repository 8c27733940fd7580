//! The paths whose instructions are counted, each a piece of work on one vector of packets, without threads.
//!
//! callgrind counts inside [`counted`] and not inside [`uncounted`], and writes its sums down at the end of
//! [`sample`]: it is told to by their names, so they have to stay functions of their own (and
//! not the same, or the linker makes one of them).

use std::hint::black_box;
use std::os::fd::BorrowedFd;

use memif::TxQueue;
use serde::{Deserialize, Serialize};
use wharf_benches::loopback;
use wharf_benches::paths::{FIRST, Path, Random, packet, rig};
use wharf_benches::rig::{Rig, Sink, Source};
use wharf_drivers::memif::{MemifInput, MemifOutput};
use wharf_engine::Packet;
use wharf_engine::buffer::BufferCache;
use wharf_engine::device::{DeviceInput, DeviceOutput, RxBurst, TxBurst};
use wharf_engine::dispatch::CpuLevel;
use wharf_engine::mtrie::MtrieWriter;
use wharf_nodes::acl::Action;
use wharf_nodes::wire::checksum::{checksum, header_checksum_ok};

use crate::Result;

/// Packets of a vector.
const VECTOR: usize = 256;
/// Vectors before counting begins: caches of buffers and frames are full then, and tables published.
const WARM_UP: usize = 8;
/// Vectors that are counted, each by itself. The least of them counts: once in a while a turn looks at the clock or runs
/// the nodes' ticks, and the devices of the warm-up are in the first.
pub(super) const SAMPLES: usize = 16;
/// Different packets.
const PACKETS: u32 = 4096;
/// Stations of the bridge with many.
const STATIONS: u32 = 10_000;
/// Routes of the path with many.
const ROUTES: u32 = 100_000;

/// What checksums are made of.
static DATA: [u8; 1500] = [0x5a; 1500];

/// callgrind counts what `work` does.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(1);
}

/// Within [`counted`]: callgrind does not count what `work` does.
#[inline(never)]
fn uncounted(work: &mut dyn FnMut()) {
    work();
    black_box(2);
}

/// callgrind writes its sums down behind `work`, and begins anew.
#[inline(never)]
fn sample(work: &mut dyn FnMut()) {
    work();
    black_box(3);
}

/// Names of the functions above, as callgrind's options want them.
pub(super) fn callgrind_options() -> [String; 3] {
    let here = module_path!();
    [
        "--collect-atstart=no".into(),
        format!("--toggle-collect={here}::*counted*"),
        format!("--dump-after={here}::sample*"),
    ]
}

/// A path as the baseline has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Its name.
    pub(super) path: String,
    /// Packets, lookups or checksums of a sample.
    pub(super) packets: usize,
}

/// A device that is counted, or, as part of a graph that is, not counted.
struct Device<D> {
    device: D,
    counts: bool,
}

impl<D> Device<D> {
    #[inline(always)]
    fn call<R: Default>(&mut self, work: impl FnOnce(&mut D) -> R) -> R {
        let mut result = R::default();
        let mut work = Some(work);
        let mut call = || {
            if let Some(work) = work.take() {
                result = work(&mut self.device);
            }
        };
        if self.counts {
            counted(&mut call)
        } else {
            uncounted(&mut call)
        }
        result
    }
}

impl<D: DeviceInput> DeviceInput for Device<D> {
    fn node(&self) -> &'static str {
        self.device.node()
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        self.call(|device| device.poll(rx))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.fd()
    }

    fn arm(&mut self) -> bool {
        self.device.arm()
    }

    fn close(&mut self, cache: &mut BufferCache) {
        self.device.close(cache);
    }
}

impl<D: DeviceOutput> DeviceOutput for Device<D> {
    fn keeps_buffers(&self) -> bool {
        self.device.keeps_buffers()
    }

    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        self.call(|device| device.transmit(tx, packets))
    }

    fn flush(&mut self, tx: &mut TxBurst<'_>) -> bool {
        self.call(|device| device.flush(tx))
    }

    fn close(&mut self, cache: &mut BufferCache) {
        self.device.close(cache);
    }
}

/// Runs all paths, and says on which: once per sample, in the order in which callgrind writes them down.
pub(super) fn run() -> Result<Vec<Counted>> {
    let mut all = Vec::new();
    let mut done = |path: &str, packets| all.push(Counted { path: path.into(), packets });

    memif_receive()?;
    done("memif-input", VECTOR);
    memif_transmit()?;
    done("memif-output", VECTOR);
    for (level, name) in [(CpuLevel::Base, "base"), (CpuLevel::V3, "v3")] {
        for (path, burst, what) in [
            (Path::Xconnect, VECTOR, "xconnect"),
            (Path::Xconnect, 1, "xconnect, one packet a turn"),
            (Path::Bridge(1), VECTOR, "bridge, static"),
            (Path::Bridge(STATIONS), VECTOR, "bridge, 10k learned"),
            (Path::VxlanEncap, VECTOR, "vxlan encap"),
            (Path::VxlanDecap, VECTOR, "vxlan decap"),
            (Path::Ip4(1), VECTOR, "ip4, one route"),
            (Path::Ip4(ROUTES), VECTOR, "ip4, 100k routes"),
            (Path::Acl(Action::Permit), VECTOR, "acl, 1k rules"),
            (Path::Acl(Action::Reflect), VECTOR, "acl, sessions"),
        ] {
            graph(path, level, Source::new(path.packets(PACKETS), burst))?;
            done(&format!("{what} ({name})"), burst);
        }
    }
    lookups();
    done("mtrie lookup", VECTOR);
    for len in [20, 1500] {
        checksums(&mut || checksum(black_box(&DATA[..len])));
        done(&format!("checksum, {len} bytes"), VECTOR);
    }
    checksums(&mut || header_checksum_ok(black_box(&[0x45; 20])).into());
    done("IPv4 header checksum", VECTOR);
    Ok(all)
}

fn repeat(work: &mut dyn FnMut()) {
    for _ in 0..SAMPLES {
        sample(work);
    }
}

/// A turn of nodes between devices that don't count.
fn graph(path: Path, level: CpuLevel, source: Source) -> Result<()> {
    let source = Device { device: source, counts: false };
    let sink = Device { device: Sink, counts: false };
    let mut rig = rig(path, Some(level), Box::new(source), Box::new(sink));
    if rig.engine.level() != level {
        return Err(format!("this processor does not have what {level:?} needs"));
    }
    for _ in 0..WARM_UP {
        rig.turn();
    }
    repeat(&mut || counted(&mut || rig.turn()));
    rig.check();
    Ok(())
}

/// A client sends a vector, and a worker receives it.
fn memif_receive() -> Result<()> {
    let (mut server, mut client) = loopback::connect();
    let queue = server.rx.pop().ok_or("no ring")?;
    let input = Device { device: MemifInput::new(queue), counts: true };
    let mut rig = rig(Path::Xconnect, None, Box::new(input), Box::new(Sink));
    let vector = vec![packet(FIRST); VECTOR];
    let tx: &mut TxQueue = client.tx.first_mut().ok_or("no ring")?;
    let mut turn = |rig: &mut Rig| {
        tx.transmit(&vector[..]);
        rig.turn();
    };
    for _ in 0..WARM_UP {
        turn(&mut rig);
    }
    repeat(&mut || turn(&mut rig));
    all_came((WARM_UP + SAMPLES) * VECTOR, &rig)
}

/// A worker sends a vector, and a client receives it.
fn memif_transmit() -> Result<()> {
    let (mut server, mut client) = loopback::connect();
    let queue = server.tx.pop().ok_or("no ring")?;
    let output = Device { device: MemifOutput::new(queue, memif::Mode::Ethernet), counts: true };
    let source = Source::new(Path::Xconnect.packets(PACKETS), VECTOR);
    let mut rig = rig(Path::Xconnect, None, Box::new(source), Box::new(output));
    let rx = client.rx.first_mut().ok_or("no ring")?;
    let mut turn = |rig: &mut Rig| {
        rig.turn();
        rx.receive_with(VECTOR, |_| ());
    };
    for _ in 0..WARM_UP {
        turn(&mut rig);
    }
    repeat(&mut || turn(&mut rig));
    all_came((WARM_UP + SAMPLES) * VECTOR, &rig)
}

/// What is counted is work on all packets, none of them lost on the way.
fn all_came(packets: usize, rig: &Rig) -> Result<()> {
    let packets = packets as u64;
    if rig.counts() == (packets, packets) {
        return Ok(());
    }
    Err(format!("of {packets} packets some did not come through: {:?}", rig.engine.balance()))
}

/// Lookups that end at each of the three levels of plies alike often.
fn lookups() {
    let mut fib = MtrieWriter::new(1 << 12);
    let mut random = Random::new();
    let mut addresses = Vec::new();
    for (len, mask) in [(16, 0xffff_0000), (24, 0xffff_ff00), (32, u32::MAX)] {
        for value in 0..1000 {
            let address = random.below(u32::MAX) & mask;
            fib.insert(address, len, value + 1).expect("there is room");
            addresses.push(address);
        }
    }
    let table = fib.table();
    let mut vector = [0; VECTOR];
    vector.fill_with(|| addresses[random.below(addresses.len() as u32) as usize]);
    repeat(&mut || {
        counted(&mut || {
            black_box(black_box(&vector).iter().map(|a| table.lookup(*a)).fold(0, u32::wrapping_add));
        });
    });
}

fn checksums(one: &mut dyn FnMut() -> u16) {
    repeat(&mut || {
        counted(&mut || {
            for _ in 0..VECTOR {
                black_box(one());
            }
        });
    });
}
