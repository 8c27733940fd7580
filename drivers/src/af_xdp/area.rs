//! The packet buffers as the kernel sees them: addresses, and the proof that each is ours.
//!
//! Buffer `i` of the engine's pool begins at `base + i * stride`: 64 bytes of header that the
//! kernel must never touch, then the *chunk*, headroom and data, which is what a fill ring
//! entry names. The stride is no power of two, hence XDP_UMEM_UNALIGNED_CHUNK_FLAG: an address
//! is then `chunk | offset << 48` (XSK_UNALIGNED_BUF_OFFSET_SHIFT in linux/if_xdp.h).

use super::{Descriptor, XdpError, metadata::TX_METADATA_LEN};

/// Bytes at the front of each buffer that belong to the engine alone.
pub const BUFFER_HEADER: u32 = 64;

/// Bytes the kernel leaves free before a received frame (XDP_PACKET_HEADROOM in linux/bpf.h).
pub const RX_HEADROOM: u32 = 256;

/// Smallest and largest chunk the kernel takes (XDP_UMEM_MIN_CHUNK_SIZE, and one page).
const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 2048..=4096;

/// Alignment of a UMEM: a page of the smallest size.
const PAGE: usize = 4096;

/// Bits of the chunk's address in an unaligned address; the offset sits above.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;

/// Option bit of an RX descriptor: the packet goes on in the next one.
const XDP_PKT_CONTD: u32 = libc::XDP_PKT_CONTD;
/// Option bit of a TX descriptor: metadata lies before the frame.
const XDP_TX_METADATA: u32 = libc::XDP_TX_METADATA;

/// The range of packet buffers that sockets register as their UMEM.
///
/// A copy is cheap and may outlive the memory: it holds numbers only, and never reads or writes
/// a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    base: usize,
    len: u64,
    stride: u32,
    buffers: u32,
    /// 2^64 / stride, rounded up: see [`Area::split`].
    reciprocal: u64,
}

/// A received frame, or a part of one, inside a buffer that the socket had been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxFrame {
    /// Index of the buffer.
    pub buffer: u32,
    /// First byte of the frame, counted from the start of the buffer.
    pub offset: u16,
    /// Length in bytes.
    pub len: u16,
    /// The packet goes on in the next frame (multi-buffer only).
    pub continues: bool,
}

/// A frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFrame {
    /// Index of the buffer.
    pub buffer: u32,
    /// First byte of the frame, counted from the start of the buffer.
    pub offset: u16,
    /// Length in bytes.
    pub len: u16,
    /// The packet goes on in the next frame (multi-buffer only).
    pub continues: bool,
    /// A [`TxMetadata`](super::TxMetadata) was written right before the frame.
    pub metadata: bool,
}

impl Area {
    /// Describes `len` bytes of buffers at `base`, each `stride` bytes long. Bytes behind the
    /// last whole buffer are registered but never used.
    ///
    /// # Errors
    ///
    /// [`XdpError::Config`] when the kernel would refuse the geometry: `base` not on a page, no
    /// whole buffer, a chunk (`stride` without the header) of less than 2048 bytes. Of one longer than 4096 bytes only so
    /// much is used.
    ///
    /// # Safety
    ///
    /// For as long as a socket registered with this area is open the kernel reads and writes
    /// the chunks named in its rings. The range must be mapped readable and writable now, and
    /// the caller must hand a buffer to a ring only while nothing else uses it.
    pub unsafe fn new(base: *mut u8, len: usize, stride: u32) -> Result<Area, XdpError> {
        let base = base.expose_provenance();
        let chunk = stride.saturating_sub(BUFFER_HEADER);
        if chunk < *CHUNK_SIZES.start() || stride > u32::from(u16::MAX) || !stride.is_multiple_of(8) {
            return Err(XdpError::Config(format!("a buffer stride of {stride} bytes does not suit AF_XDP")));
        }
        if !base.is_multiple_of(PAGE) {
            return Err(XdpError::Config("packet buffers must begin on a page".into()));
        }
        let buffers = len as u64 / u64::from(stride);
        let Ok(buffers) = u32::try_from(buffers) else {
            return Err(XdpError::Config(format!("{len} bytes of packet buffers are too many for AF_XDP")));
        };
        if buffers == 0 {
            return Err(XdpError::Config(format!("{len} bytes hold no packet buffer of {stride}")));
        }
        let reciprocal = u64::MAX / u64::from(stride) + 1;
        Ok(Area { base, len: len as u64, stride, buffers, reciprocal })
    }

    /// First byte of the area.
    pub fn base(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base)
    }

    /// Size of the registered range in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Number of whole buffers.
    pub fn buffers(&self) -> u32 {
        self.buffers
    }

    /// Bytes of a buffer that the kernel may use: headroom and data.
    pub fn chunk_size(&self) -> u32 {
        (self.stride - BUFFER_HEADER).min(*CHUNK_SIZES.end())
    }

    /// Largest frame that fits into one buffer on receive. The kernel drops a larger one
    /// (`rx_dropped`) unless the socket is multi-buffer.
    pub fn max_rx_frame(&self) -> u32 {
        self.chunk_size() - RX_HEADROOM
    }

    /// Whether the buffer's chunk crosses a multiple of `page` bytes. In zero-copy mode the
    /// kernel loses such a fill entry without a word when the two pages are not physically
    /// contiguous; in copy mode it does not matter.
    pub fn crosses(&self, buffer: u32, page: u64) -> bool {
        let first = u64::from(buffer) * u64::from(self.stride) + u64::from(BUFFER_HEADER);
        let last = first + u64::from(self.chunk_size()) - 1;
        page != 0 && first / page != last / page
    }

    /// The fill ring entry for a buffer; `None` beyond the end of the area.
    #[inline]
    pub fn fill_address(&self, buffer: u32) -> Option<u64> {
        (buffer < self.buffers).then(|| u64::from(buffer) * u64::from(self.stride) + u64::from(BUFFER_HEADER))
    }

    /// The TX ring entry for a frame; `None` unless frame and metadata lie inside the chunk of a
    /// buffer of this area. (The kernel counts an invalid descriptor and ends the batch there.)
    /// Room for metadata is demanded of every frame, as the kernel does once it is registered.
    #[inline]
    pub fn tx_descriptor(&self, frame: &TxFrame) -> Option<Descriptor> {
        let before = if frame.metadata { TX_METADATA_LEN } else { 0 };
        let (offset, len) = (u32::from(frame.offset), u32::from(frame.len));
        let inside = frame.buffer < self.buffers
            && len != 0
            && offset >= BUFFER_HEADER + before
            && offset + len <= self.stride
            && len + TX_METADATA_LEN <= self.chunk_size();
        let options = if frame.metadata { XDP_TX_METADATA } else { 0 }
            | if frame.continues { XDP_PKT_CONTD } else { 0 };
        inside.then(|| Descriptor {
            addr: u64::from(frame.buffer) * u64::from(self.stride) + u64::from(offset),
            len,
            options,
        })
    }

    /// The frame behind an RX descriptor; `None` unless all of it lies in one chunk.
    #[inline]
    pub fn rx_frame(&self, descriptor: Descriptor) -> Option<RxFrame> {
        let (buffer, offset) = self.locate(descriptor.addr)?;
        if u64::from(offset) + u64::from(descriptor.len) > u64::from(self.stride) {
            return None;
        }
        Some(RxFrame {
            buffer,
            offset: u16::try_from(offset).ok()?,
            len: u16::try_from(descriptor.len).ok()?,
            continues: descriptor.options & XDP_PKT_CONTD != 0,
        })
    }

    /// The buffer a completion ring entry gives back; `None` when it names none of ours.
    #[inline]
    pub fn completed(&self, address: u64) -> Option<u32> {
        self.locate(address).map(|(buffer, _)| buffer)
    }

    /// Buffer and offset in it of an address from the kernel. The chunk and the byte it points
    /// at must be in the same buffer, behind the header.
    #[inline]
    fn locate(&self, address: u64) -> Option<(u32, u32)> {
        let chunk = address & ADDRESS_MASK;
        let (buffer, start) = self.split(chunk);
        let offset = u64::from(start) + (address >> ADDRESS_BITS);
        let inside =
            buffer < u64::from(self.buffers) && start >= BUFFER_HEADER && offset < u64::from(self.stride);
        inside.then_some((buffer as u32, offset as u32))
    }

    /// `(address / stride, address % stride)`, by multiplication: the quotient is exact while
    /// `address * (reciprocal * stride - 2^64) < 2^64`, which holds for `address < 2^48` and
    /// `stride < 2^16`.
    #[inline]
    fn split(&self, address: u64) -> (u64, u32) {
        let quotient = ((u128::from(address) * u128::from(self.reciprocal)) >> 64) as u64;
        (quotient, (address - quotient * u64::from(self.stride)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRIDE: u32 = 2368;
    const BASE: usize = 1 << 20;

    fn area(buffers: u32) -> Area {
        // SAFETY: the area is never registered with a socket.
        unsafe { Area::new(BASE as *mut u8, (buffers * STRIDE) as usize, STRIDE) }.expect("geometry")
    }

    fn frame(buffer: u32, offset: u16, len: u16) -> TxFrame {
        TxFrame { buffer, offset, len, continues: false, metadata: false }
    }

    #[test]
    fn refuses_geometry_that_the_kernel_would_refuse() {
        let refused = |base: usize, len: usize, stride: u32| {
            // SAFETY: the area is never registered with a socket.
            unsafe { Area::new(base as *mut u8, len, stride) }.is_err()
        };
        assert!(refused(BASE + 64, 1 << 20, STRIDE), "base within a page");
        assert!(refused(BASE, 2367, STRIDE), "no whole buffer");
        assert!(refused(BASE, 1 << 20, 2048), "chunk below 2048");
        assert!(refused(BASE, 1 << 20, 1 << 16), "an offset in it has more than 16 bits");
        assert!(refused(BASE, 1 << 20, 0));
        assert!(refused(BASE, usize::MAX, STRIDE), "more than 2^32 buffers");
        assert!(!refused(BASE, 2368, STRIDE));
        // SAFETY: as above.
        let jumbo = unsafe { Area::new(BASE as *mut u8, 1 << 20, 149 * 64) }.expect("geometry");
        assert_eq!(jumbo.chunk_size(), 4096, "of a longer buffer the kernel gets a page");
    }

    #[test]
    fn received_frame_lies_behind_header_and_headroom() {
        let area = area(8);
        let fill = area.fill_address(3).expect("in the area");
        assert_eq!(fill, 3 * 2368 + 64);
        let descriptor = Descriptor { addr: fill | 256 << 48, len: 60, options: 0 };
        assert_eq!(
            area.rx_frame(descriptor),
            Some(RxFrame { buffer: 3, offset: 320, len: 60, continues: false })
        );
        assert_eq!(area.max_rx_frame(), 2048);
        assert!(area.rx_frame(Descriptor { len: 2048, ..descriptor }).is_some());
        assert!(area.rx_frame(Descriptor { len: 2049, ..descriptor }).is_none(), "beyond the buffer");
        assert!(area.rx_frame(Descriptor { len: u32::MAX, ..descriptor }).is_none());
        let more = area.rx_frame(Descriptor { options: XDP_PKT_CONTD, ..descriptor });
        assert!(more.is_some_and(|frame| frame.continues));
    }

    #[test]
    fn addresses_outside_the_chunks_are_nobodys() {
        let area = area(8);
        assert_eq!(area.fill_address(8), None);
        for address in [0, 63, 2368, 2368 + 63, 8 * 2368, 8 * 2368 + 64, ADDRESS_MASK, u64::MAX] {
            assert_eq!(area.completed(address), None, "{address:#x}");
        }
        assert_eq!(area.completed(64), Some(0));
        assert_eq!(area.completed(7 * 2368 + 2367), Some(7));
        let into_the_next = 64 | 2304 << 48;
        assert_eq!(area.completed(into_the_next), None);
        assert_eq!(area.completed(64 | 2303 << 48), Some(0));
    }

    #[test]
    fn sent_frame_stays_in_its_chunk() {
        let area = area(8);
        let sent = area.tx_descriptor(&frame(2, 320, 1514)).expect("an ordinary frame");
        assert_eq!(sent, Descriptor { addr: 2 * 2368 + 320, len: 1514, options: 0 });
        assert_eq!(area.tx_descriptor(&frame(8, 320, 60)), None);
        assert_eq!(area.tx_descriptor(&frame(0, 63, 60)), None, "inside the header");
        assert_eq!(area.tx_descriptor(&frame(0, 320, 0)), None);
        assert_eq!(area.tx_descriptor(&frame(0, 320, 2049)), None);
        assert_eq!(area.tx_descriptor(&frame(0, 64, 2281)), None, "no room for metadata");
        assert_eq!(area.tx_descriptor(&frame(0, u16::MAX, u16::MAX)), None);
        let with = |offset, len| TxFrame { metadata: true, ..frame(0, offset, len) };
        assert_eq!(area.tx_descriptor(&with(87, 60)), None, "metadata over the header");
        let sent = area.tx_descriptor(&with(88, 60)).expect("metadata right behind the header");
        assert_eq!(sent.options, XDP_TX_METADATA);
        assert_eq!(area.tx_descriptor(&with(88, 2280)).map(|d| d.len), Some(2280));
    }

    #[test]
    fn crossing_a_page() {
        let area = area(8);
        assert!(!area.crosses(0, 4096));
        assert!(area.crosses(1, 4096), "2432..4736");
        assert!(!area.crosses(1, 1 << 21));
        assert!(!area.crosses(1, 0));
    }

    proptest! {
        #[test]
        fn split_is_division(address in 0..=ADDRESS_MASK, stride in 264..=520u32) {
            let stride = stride * 8;
            // SAFETY: the area is never registered with a socket.
            let area = unsafe { Area::new(BASE as *mut u8, 1 << 24, stride) }.expect("geometry");
            let first = address - address % u64::from(stride);
            // An inexact quotient shows at the first and last byte of a buffer.
            for address in [address, first, first.saturating_sub(1)] {
                let expected = (address / u64::from(stride), (address % u64::from(stride)) as u32);
                prop_assert_eq!(area.split(address), expected);
            }
        }

        #[test]
        fn located_frames_are_inside(addr: u64, len: u32, options: u32) {
            let area = area(1000);
            for addr in [addr, addr % (1000 * 2368), (addr & 0xff << 48) | (addr % (1000 * 2368))] {
                if let Some(frame) = area.rx_frame(Descriptor { addr, len, options }) {
                    prop_assert!(frame.buffer < 1000);
                    prop_assert!(u32::from(frame.offset) >= BUFFER_HEADER);
                    prop_assert!(u32::from(frame.offset) + u32::from(frame.len) <= STRIDE);
                }
            }
        }
    }
}
