//! Sub-interfaces: parts of an interface, told apart by VLAN tags.

use crate::dataplane::{Dataplane, OpError};
use crate::interface::{Interface, InterfaceKind};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_nodes::ethernet::{SubInterfaces, SubMatch, SubOutput, VlanId};
use wharf_nodes::interface::{InputMode, InterfaceTables};
use wharf_nodes::l2::{Tag, TagRewrite};
use wharf_nodes::wire::ethernet::EtherType;

/// What makes an interface a part of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubInterface {
    /// The other.
    pub parent: SwIfIndex,
    /// Its number there, behind the dot of its name.
    pub id: u32,
    /// The frames that it takes.
    pub which: SubMatch,
}

impl Interface {
    /// Where received frames go, sub-interfaces aside. A BVI's frames go to the L3 protocols: those that the bridge hands to it.
    pub(crate) fn input_mode(&self) -> InputMode {
        if self.mode.is_l2() && !self.mode.is_bvi() { InputMode::L2 } else { InputMode::L3 }
    }

    /// The tags that all its frames have, if that is certain.
    pub(crate) fn own_tags(&self) -> Option<Vec<Tag>> {
        self.sub.and_then(|sub| sub.which.tags())
    }

    /// The tags that its frames have in front, as far as they are named: there may be more behind them.
    pub(crate) fn named_tags(&self) -> Vec<Tag> {
        let Some(SubMatch::Tags { outer_type, outer: VlanId::Id(outer), inner, .. }) =
            self.sub.map(|s| s.which)
        else {
            return Vec::new();
        };
        let inner = match inner {
            Some(VlanId::Id(inner)) => Some(Tag::new(EtherType::VLAN, inner)),
            _ => None,
        };
        std::iter::once(Tag::new(outer_type, outer)).chain(inner).collect()
    }
}

impl Dataplane {
    /// Creates `<parent>.<id>` for the frames of `parent` that `which` describes.
    pub fn create_sub_interface(
        &mut self,
        parent: SwIfIndex,
        id: u32,
        which: SubMatch,
    ) -> Result<SwIfIndex, OpError> {
        let record = self.record(parent)?;
        let can = matches!(record.kind, InterfaceKind::Memif | InterfaceKind::Pg | InterfaceKind::AfXdp);
        if !can {
            return OpError::parameter("interface", format!("{} cannot have sub-interfaces", record.name));
        }
        let (name, mac, mtu) = (format!("{}.{id}", record.name), record.mac, record.mtu);
        self.check_name(&name)?;
        let index = self.free_index()?;
        let mut taken = self.sub_interfaces(parent).unwrap_or_default();
        if let Err(taken) = taken.add(index, which) {
            return OpError::refused(format!("{} takes these frames already", self.interface_name(taken.0)));
        }
        let mut sub = Interface::new(name, InterfaceKind::Sub);
        (sub.sub, sub.mtu) = (Some(SubInterface { parent, id, which }), mtu);
        self.add(index, sub, Some(mac));
        self.apply(parent);
        Ok(index)
    }

    pub(crate) fn children(&self, parent: SwIfIndex) -> impl Iterator<Item = SwIfIndex> {
        self.interfaces
            .iter()
            .filter(move |(_, r)| r.sub.is_some_and(|s| s.parent == parent))
            .map(|(i, _)| *i)
    }

    fn sub_interfaces(&self, parent: SwIfIndex) -> Option<SubInterfaces> {
        let main = self.interfaces.get(&parent)?.input_mode();
        let mut subs = None;
        for (index, record) in &self.interfaces {
            if let Some(sub) = record.sub.filter(|s| s.parent == parent) {
                let subs = subs.get_or_insert_with(|| SubInterfaces::new(main));
                // Tried when it was created.
                let added = subs.add(*index, sub.which);
                debug_assert!(added.is_ok());
            }
        }
        subs
    }

    /// What the nodes see of the interfaces.
    pub(crate) fn interface_tables(&self) -> InterfaceTables {
        let count = self.interfaces.keys().last().map_or(0, |i| i.index() + 1);
        let mut tables = InterfaceTables {
            list: vec![Default::default(); count],
            trunks: vec![None; count],
            outputs: vec![None; count],
        };
        for (index, record) in &self.interfaces {
            let at = index.index();
            tables.list[at] = record.entry();
            if let Some(subs) = self.sub_interfaces(*index) {
                tables.list[at].mode = InputMode::Trunk;
                tables.trunks[at] = Some(Arc::new(subs));
            }
            tables.outputs[at] = record.sub.map(|sub| SubOutput {
                parent: sub.parent,
                tags: match record.input_mode() {
                    InputMode::L3 => TagRewrite::new(0, &record.own_tags().unwrap_or_default()),
                    _ => TagRewrite::default(),
                },
            });
        }
        tables
    }
}
