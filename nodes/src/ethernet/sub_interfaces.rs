//! Sub-interfaces: the frames of an interface sorted by their VLAN tags, IEEE 802.1Q and 802.1ad.

use crate::interface::InputMode;
use crate::l2::{Tag, TagRewrite};
use crate::wire::ethernet::{EtherType, VlanTag};
use wharf_engine::SwIfIndex;

/// A VLAN id, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VlanId {
    /// This one, 0 to 4095.
    Id(u16),
    /// Whatever no other sub-interface asks for.
    Any,
}

/// Which frames a sub-interface takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubMatch {
    /// Those with these tags in front.
    Tags {
        /// [`EtherType::VLAN`] or [`EtherType::QINQ`].
        outer_type: EtherType,
        /// The outer tag.
        outer: VlanId,
        /// The inner tag, which is 802.1Q. `None` asks for no second tag if `exact`, and else for nothing.
        inner: Option<VlanId>,
        /// Whether there must be no tag beyond those named.
        exact: bool,
    },
    /// Those without a tag.
    Untagged,
    /// Those that no other takes.
    Default,
}

impl SubMatch {
    /// Tags that frames of such a sub-interface have for certain, so that an L3 one can take and put them: `None` when
    /// that is not certain.
    pub fn tags(&self) -> Option<Vec<Tag>> {
        match *self {
            SubMatch::Untagged => Some(Vec::new()),
            SubMatch::Tags { outer_type, outer: VlanId::Id(outer), inner, exact: true } => {
                let mut tags = vec![Tag::new(outer_type, outer)];
                match inner {
                    None => {}
                    Some(VlanId::Id(inner)) => tags.push(Tag::new(EtherType::VLAN, inner)),
                    Some(VlanId::Any) => return None,
                }
                Some(tags)
            }
            _ => None,
        }
    }
}

/// The way out of a sub-interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubOutput {
    /// The interface that it is part of.
    pub parent: SwIfIndex,
    /// The tags that its frames get; none in L2 mode, where they have them already.
    pub tags: TagRewrite,
}

/// Nothing is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sub-interface with sw_if_index {0} takes these frames already")]
pub struct Taken(pub SwIfIndex);

#[derive(Clone, Copy, Debug)]
struct Sub {
    index: SwIfIndex,
    exact: bool,
}

/// What there is behind one outer tag.
#[derive(Clone, Debug, Default)]
struct Outer {
    single: Option<Sub>,
    inner_any: Option<Sub>,
    /// By inner VLAN id, sorted.
    inner: Vec<(u16, Sub)>,
}

impl Outer {
    fn find(&self, count: u8, inner: u16) -> Option<SwIfIndex> {
        // A third tag is not looked for: a frame with two may have more.
        let deeper = || {
            let at = self.inner.binary_search_by_key(&inner, |(id, _)| *id);
            at.ok().map(|at| self.inner[at].1).or(self.inner_any)
        };
        let found = if count > 1 { deeper() } else { None };
        found.or(self.single.filter(|sub| count == 1 || !sub.exact)).map(|sub| sub.index)
    }
}

/// The outer tags of one type.
#[derive(Clone, Debug, Default)]
struct Outers {
    /// Number in `list` plus one, by VLAN id; empty while there is none.
    ids: Vec<u16>,
    list: Vec<Outer>,
    any: Outer,
}

impl Outers {
    fn find(&self, count: u8, tags: [Tag; 2]) -> Option<SwIfIndex> {
        let id = |tag: Tag| tag.tci.get() & VlanTag::MAX_ID;
        let at = self.ids.get(usize::from(id(tags[0]))).copied().unwrap_or(0);
        let inner = id(tags[1]);
        let named = self.list.get(usize::from(at).wrapping_sub(1)).and_then(|o| o.find(count, inner));
        named.or_else(|| self.any.find(count, inner))
    }

    fn outer(&mut self, id: VlanId) -> &mut Outer {
        let VlanId::Id(id) = id else { return &mut self.any };
        let id = usize::from(id & VlanTag::MAX_ID);
        self.ids.resize(usize::from(VlanTag::MAX_ID) + 1, 0);
        if self.ids[id] == 0 {
            self.list.push(Outer::default());
            self.ids[id] = self.list.len() as u16;
        }
        let at = usize::from(self.ids[id]) - 1;
        &mut self.list[at]
    }
}

/// The sub-interfaces of an interface.
#[derive(Clone, Debug, Default)]
pub struct SubInterfaces {
    main: InputMode,
    dot1q: Outers,
    dot1ad: Outers,
    untagged: Option<Sub>,
    default: Option<Sub>,
}

impl SubInterfaces {
    /// None yet. Frames for none of them go where `main` says.
    pub fn new(main: InputMode) -> SubInterfaces {
        SubInterfaces { main, ..SubInterfaces::default() }
    }

    /// Where frames go that no sub-interface takes.
    pub fn main(&self) -> InputMode {
        self.main
    }

    /// Adds a sub-interface.
    pub fn add(&mut self, index: SwIfIndex, which: SubMatch) -> Result<(), Taken> {
        let mut sub = Sub { index, exact: false };
        let place = match which {
            SubMatch::Untagged => &mut self.untagged,
            SubMatch::Default => &mut self.default,
            SubMatch::Tags { outer_type, outer, inner, exact } => {
                sub.exact = exact;
                let outers = if outer_type == EtherType::QINQ { &mut self.dot1ad } else { &mut self.dot1q };
                let outer = outers.outer(outer);
                match inner {
                    None => &mut outer.single,
                    Some(VlanId::Any) => &mut outer.inner_any,
                    Some(VlanId::Id(id)) => {
                        return match outer.inner.binary_search_by_key(&id, |(id, _)| *id) {
                            Ok(at) => Err(Taken(outer.inner[at].1.index)),
                            Err(at) => {
                                outer.inner.insert(at, (id, sub));
                                Ok(())
                            }
                        };
                    }
                }
            }
        };
        match place {
            Some(taken) => Err(Taken(taken.index)),
            None => {
                *place = Some(sub);
                Ok(())
            }
        }
    }

    /// The sub-interface of a frame with `count` tags (0 to 2, which are the first ones).
    #[inline]
    pub fn find(&self, count: u8, tags: [Tag; 2]) -> Option<SwIfIndex> {
        let named = match count {
            0 => self.untagged.map(|sub| sub.index),
            _ if tags[0].ethertype.get() == EtherType::QINQ.0 => self.dot1ad.find(count, tags),
            _ => self.dot1q.find(count, tags),
        };
        named.or(self.default.map(|sub| sub.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VlanId::{Any, Id};

    const Q: EtherType = EtherType::VLAN;
    const AD: EtherType = EtherType::QINQ;

    fn find(subs: &SubInterfaces, tags: &[(EtherType, u16)]) -> Option<u32> {
        let mut list = [Tag::default(); 2];
        list.iter_mut().zip(tags).for_each(|(to, (kind, id))| *to = Tag::new(*kind, *id));
        subs.find(tags.len() as u8, list).map(|i| i.0)
    }

    #[test]
    fn the_most_precise_takes_the_frame() {
        let mut subs = SubInterfaces::new(InputMode::L3);
        let tags = |outer_type, outer, inner, exact| SubMatch::Tags { outer_type, outer, inner, exact };
        for (index, which) in [
            (1, tags(Q, Id(100), None, true)),
            (2, tags(Q, Id(100), Some(Id(7)), true)),
            (3, tags(Q, Id(200), None, false)),
            (4, tags(Q, Id(200), Some(Any), true)),
            (5, tags(AD, Id(100), Some(Id(7)), true)),
            (6, tags(AD, Any, Some(Id(9)), true)),
            (7, SubMatch::Untagged),
        ] {
            subs.add(SwIfIndex(index), which).unwrap();
            assert_eq!(subs.add(SwIfIndex(99), which), Err(Taken(SwIfIndex(index))));
        }
        assert_eq!(find(&subs, &[]), Some(7));
        assert_eq!(find(&subs, &[(Q, 100)]), Some(1));
        assert_eq!(find(&subs, &[(Q, 100), (Q, 7)]), Some(2));
        assert_eq!(find(&subs, &[(Q, 100), (Q, 8)]), None, "exact-match wants one tag");
        assert_eq!(find(&subs, &[(Q, 200)]), Some(3));
        assert_eq!(find(&subs, &[(Q, 200), (Q, 1)]), Some(4));
        assert_eq!(find(&subs, &[(AD, 100)]), None);
        assert_eq!(find(&subs, &[(AD, 100), (Q, 7)]), Some(5));
        assert_eq!(find(&subs, &[(AD, 55), (Q, 9)]), Some(6));
        assert_eq!(find(&subs, &[(Q, 300)]), None);
        subs.add(SwIfIndex(8), SubMatch::Default).unwrap();
        assert_eq!(find(&subs, &[(Q, 300)]), Some(8));
        assert_eq!(find(&subs, &[]), Some(7));
    }

    #[test]
    fn tags_are_known_only_of_exact_matches() {
        let exact = SubMatch::Tags { outer_type: AD, outer: Id(5), inner: Some(Id(6)), exact: true };
        assert_eq!(exact.tags().unwrap(), [Tag::new(AD, 5), Tag::new(Q, 6)]);
        assert_eq!(SubMatch::Tags { outer_type: Q, outer: Id(5), inner: None, exact: false }.tags(), None);
        assert_eq!(
            SubMatch::Tags { outer_type: Q, outer: Id(5), inner: Some(Any), exact: true }.tags(),
            None
        );
        assert_eq!(SubMatch::Untagged.tags(), Some(vec![]));
    }
}
