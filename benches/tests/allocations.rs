//! Once it is warm, a worker allocates nothing, and frees nothing, whatever vectors it is given.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use memif::{Connection, RxQueue, TxQueue};
use wharf_benches::loopback;
use wharf_benches::paths::{FIRST, Path, Random, packet, packets, rig};
use wharf_benches::rig::Rig;
use wharf_drivers::memif::{MemifInput, MemifOutput};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts its calls on each thread.
struct Counting;

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: all is passed on to the system's allocator. The counter is a constant-initialised thread local without a
// destructor, so reading it allocates nothing and works at any time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator in `work`, on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = CALLS.with(Cell::get);
    work();
    CALLS.with(Cell::get) - before
}

const VECTORS: usize = 1000;
/// So often may a worker need more frames, or longer lists of them, than ever before. It has them for good then.
const WARM_UPS: usize = 5;

/// A worker between two memif clients.
struct Lab {
    rig: Rig,
    tx: TxQueue,
    rx: RxQueue,
    /// Connections live as long as these.
    _ends: [Connection; 4],
    packets: Vec<Vec<u8>>,
    random: Random,
    received: u64,
}

impl Lab {
    fn new(path: Path, packets: Vec<Vec<u8>>) -> Lab {
        let ((mut from, mut sender), (mut to, mut receiver)) = (loopback::connect(), loopback::connect());
        let input = MemifInput::new(from.rx.pop().unwrap());
        let output = MemifOutput::new(to.tx.pop().unwrap(), memif::Mode::Ethernet);
        let (tx, rx) = (sender.tx.pop().unwrap(), receiver.rx.pop().unwrap());
        let rig = rig(path, None, Box::new(input), Box::new(output));
        let random = Random::new();
        Lab { rig, tx, rx, _ends: [from, sender, to, receiver], packets, random, received: 0 }
    }

    /// A vector of some length of some of the packets goes through.
    fn turn(&mut self) {
        let len = 1 + self.random.below(256) as usize;
        let at = self.random.below((self.packets.len() - len) as u32) as usize;
        assert_eq!(self.tx.transmit(&self.packets[at..at + len]), len);
        self.tx.kick();
        self.rig.turn();
        self.received += self.rx.receive_with(256, |packet| assert_eq!(packet.len(), 60)) as u64;
    }

    #[track_caller]
    fn allocates_nothing(mut self, everything_arrives: bool) {
        let mut turns = || allocations(|| (0..VECTORS).for_each(|_| self.turn()));
        let calls: Vec<u64> = (0..WARM_UPS).map(|_| turns()).take_while(|calls| *calls != 0).collect();
        assert!(calls.len() < WARM_UPS, "calls of the allocator in {VECTORS} vectors each: {calls:?}");
        let (received, sent) = self.rig.counts();
        assert!(received > VECTORS as u64 * 64, "{received} packets are not what was meant");
        assert!(self.received != 0 && (self.received == received) == everything_arrives, "{received} {sent}");
    }
}

#[test]
fn allocations_are_seen() {
    // One to make it, one to free it.
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 2);
    assert_eq!(allocations(|| black_box(Vec::<u8>::new()).push(1)), 2);
}

#[test]
fn cross_connect() {
    Lab::new(Path::Xconnect, packets(1000, 4096)).allocates_nothing(true);
}

#[test]
fn ip4() {
    Lab::new(Path::Ip4(1), packets(1, 4096)).allocates_nothing(true);
}

#[test]
fn ip4_many_routes() {
    Lab::new(Path::Ip4(10_000), packets(10_000, 4096)).allocates_nothing(true);
}

/// Vectors that split: forwarded, without a route (of which a few are answered), expired, and broken.
#[test]
fn ip4_and_drops_of_all_kinds() {
    let mut list = packets(10_000, 4096);
    for (i, p) in list.iter_mut().enumerate() {
        match i % 7 {
            2 => *p = packet(FIRST + 20_000),
            // A time to live of 1, the checksum as it then is; a checksum that is wrong; another EtherType.
            3 => {
                p[22] = 1;
                p[24..26].fill(0);
                let sum = wharf_nodes::wire::checksum::checksum(&p[14..34]);
                p[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            4 => p[24] ^= 1,
            5 => p[12] = 0x77,
            _ => {}
        }
    }
    Lab::new(Path::Ip4(10_000), list).allocates_nothing(false);
}
