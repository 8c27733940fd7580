//! VLAN tag rewriting: tags are taken from the front of a frame and others put there, IEEE 802.1Q clause 9.

use crate::wire::U16;
use crate::wire::ethernet::{EtherType, EthernetHeader, VlanTag};
use wharf_engine::PacketRef;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A tag with the type that announces it, as the four bytes behind the MAC addresses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Tag {
    /// [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub ethertype: U16,
    /// Priority and VLAN id.
    pub tci: U16,
}

impl Tag {
    /// A tag of priority 0.
    pub fn new(ethertype: EtherType, id: u16) -> Tag {
        Tag { ethertype: U16::new(ethertype.0), tci: U16::new(id & VlanTag::MAX_ID) }
    }
}

/// What is done to the tags of a frame: `pop` of them go, then `push` come, the outer one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagRewrite {
    /// Tags to take away, at most 2.
    pub pop: u8,
    /// Tags to put in front, at most 2.
    pub push: u8,
    /// The tags to put.
    pub tags: [Tag; 2],
}

/// A frame that has fewer tags than are to be taken, or no room for those to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotRewrite;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Tagged {
    addresses: [u8; 12],
    tags: [Tag; 2],
    ethertype: U16,
}

const TAG: u16 = 4;

impl TagRewrite {
    /// A rewrite that takes `pop` tags and puts `tags`.
    pub fn new(pop: u8, tags: &[Tag]) -> TagRewrite {
        let mut rewrite =
            TagRewrite { pop: pop.min(2), push: tags.len().min(2) as u8, ..TagRewrite::default() };
        rewrite.tags.iter_mut().zip(tags).for_each(|(to, tag)| *to = *tag);
        rewrite
    }

    /// Whether it changes nothing.
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.pop == 0 && self.push == 0
    }

    /// Whether it takes one tag and puts none, as most do: [`TagRewrite::has_tag`] and [`TagRewrite::pop_one`] do the same.
    #[inline(always)]
    pub(super) fn is_pop_one(&self) -> bool {
        (self.pop, self.push) == (1, 0)
    }

    /// Whether a frame has a tag to be taken.
    #[inline(always)]
    pub(super) fn has_tag(p: &PacketRef<'_>) -> bool {
        let ethertype = EtherType(p.header::<Tagged>().tags[0].ethertype.get());
        ethertype.is_vlan() & (usize::from(p.len()) >= EthernetHeader::LEN + VlanTag::LEN)
    }

    /// Takes the tag that [`TagRewrite::has_tag`] found.
    #[inline(always)]
    pub(super) fn pop_one(p: &mut PacketRef<'_>) {
        let addresses = p.header::<Tagged>().addresses;
        p.advance(TAG);
        p.header_mut::<Tagged>().addresses = addresses;
    }

    /// Rewrites the tags of a whole frame. The priority of the tag taken first goes over to the one put first.
    #[inline(never)]
    pub fn apply(&self, p: &mut PacketRef<'_>) -> Result<(), CannotRewrite> {
        let (pop, push) = (u16::from(self.pop), u16::from(self.push));
        let header = *p.header::<Tagged>();
        let tags = tags(p);
        if tags < self.pop || p.headroom() < TAG * push {
            return Err(CannotRewrite);
        }
        let mut new = self.tags;
        if pop != 0 {
            let priority = header.tags[0].tci.get() & !VlanTag::MAX_ID;
            new[0].tci = U16::new(new[0].tci.get() & VlanTag::MAX_ID | priority);
        }
        p.advance(TAG * pop);
        p.retreat(TAG * push);
        let front = p.header_mut::<Tagged>();
        front.addresses = header.addresses;
        match push {
            0 => {}
            1 => front.tags[0] = new[0],
            _ => front.tags = new,
        }
        Ok(())
    }
}

/// Tags in front of a frame: 0, 1 or 2, as far as the frame is long enough to have them.
#[inline(always)]
pub fn tags(p: &PacketRef<'_>) -> u8 {
    let header = p.header::<Tagged>();
    let is_tag = |t: U16| EtherType(t.get()).is_vlan();
    let len = usize::from(p.len());
    let one = is_tag(header.tags[0].ethertype) && len >= EthernetHeader::LEN + VlanTag::LEN;
    let two = one && is_tag(header.tags[1].ethertype) && len >= EthernetHeader::LEN + 2 * VlanTag::LEN;
    u8::from(one) + u8::from(two)
}

/// The tags of a frame as numbers: how many there are, and the two tags, of which only so many mean something.
#[inline(always)]
pub fn read_tags(p: &PacketRef<'_>) -> (u8, [Tag; 2]) {
    (tags(p), p.header::<Tagged>().tags)
}
