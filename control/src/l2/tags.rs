//! Tag rewriting as the operator says it, and what that means for each direction.

use std::fmt;
use wharf_nodes::l2::{Tag, TagRewrite};
use wharf_nodes::wire::ethernet::{EtherType, VlanTag};

/// What happens to the tags of received frames; the opposite happens to those that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanOperation {
    /// Tags are taken.
    Pop,
    /// Tags are put.
    Push,
    /// Tags are taken and others put.
    Translate,
}

/// A tag rewrite of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagOperation {
    /// Which.
    pub operation: VlanOperation,
    /// How many tags are taken.
    pub pop: u8,
    /// How many are put.
    pub push: u8,
    /// The type of the first that is put; a second is 802.1Q.
    pub outer_type: EtherType,
    /// Their VLAN ids.
    pub tags: [u16; 2],
}

impl TagOperation {
    fn pushed(&self) -> Vec<Tag> {
        let types = [self.outer_type, EtherType::VLAN];
        let tags = types.iter().zip(self.tags).map(|(kind, id)| Tag::new(*kind, id));
        tags.take(usize::from(self.push)).collect()
    }

    /// What is done to received frames and to sent ones. `own` are the tags that frames of the interface have in front: those of a
    /// sub-interface that names them. What is taken on the way in is put on the way out, so it must be known.
    pub fn compile(&self, own: &[Tag]) -> Result<(TagRewrite, TagRewrite), String> {
        if let Some(tag) = self.tags[..usize::from(self.push)].iter().find(|t| **t > VlanTag::MAX_ID) {
            return Err(format!("VLAN {tag} is not from 0 to {}", VlanTag::MAX_ID));
        }
        let Some(own) = own.get(..usize::from(self.pop)) else {
            let (s, it) = if self.pop == 1 { ("", "it") } else { ("s", "them") };
            return Err(format!("only a sub-interface for {} VLAN tag{s} can have {it} taken", self.pop));
        };
        Ok((TagRewrite::new(self.pop, &self.pushed()), TagRewrite::new(self.push, own)))
    }
}

/// As in VPP's `show bridge-domain detail`: `pop-1`, `push-2 dot1ad 5 7`, `trans-1-1 dot1q 9`.
impl fmt::Display for TagOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            VlanOperation::Pop => return write!(f, "pop-{}", self.pop),
            VlanOperation::Push => write!(f, "push-{}", self.push)?,
            VlanOperation::Translate => write!(f, "trans-{}-{}", self.pop, self.push)?,
        }
        write!(f, " {}", if self.outer_type == EtherType::QINQ { "dot1ad" } else { "dot1q" })?;
        self.tags[..usize::from(self.push)].iter().try_for_each(|tag| write!(f, " {tag}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_undoes_the_way_in() {
        let own = [Tag::new(EtherType::VLAN, 100)];
        let new = Tag::new(EtherType::QINQ, 7);
        let translate = TagOperation {
            operation: VlanOperation::Translate,
            pop: 1,
            push: 1,
            outer_type: EtherType::QINQ,
            tags: [7, 0],
        };
        let (input, output) = translate.compile(&own).unwrap();
        assert_eq!((input, output), (TagRewrite::new(1, &[new]), TagRewrite::new(1, &own)));
        assert_eq!(translate.to_string(), "trans-1-1 dot1ad 7");
        assert!(translate.compile(&[]).is_err());
        let pop2 = TagOperation { operation: VlanOperation::Pop, pop: 2, push: 0, ..translate };
        let error = pop2.compile(&own).unwrap_err();
        assert_eq!(error, "only a sub-interface for 2 VLAN tags can have them taken");
        let push = TagOperation { operation: VlanOperation::Push, pop: 0, push: 1, ..translate };
        assert_eq!(push.compile(&[]).unwrap().1, TagRewrite::new(1, &[]));
        assert!(TagOperation { tags: [4096, 0], ..push }.compile(&[]).is_err());
    }
}
