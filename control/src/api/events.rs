//! Events: what happened to interfaces.

use super::Message;
use super::modules::interface::SwInterfaceEvent;
use super::modules::types::{IfStatusFlags, InterfaceIndex};
use super::registry::{Registry, push_frame};
use crate::dataplane::Dataplane;
use crate::interface::Interface;
use std::collections::BTreeMap;
use wharf_engine::SwIfIndex;

/// An interface's state as clients see it.
pub(super) fn flags(interface: &Interface) -> IfStatusFlags {
    let bit = |on: bool, flag: IfStatusFlags| if on { flag.0 } else { 0 };
    IfStatusFlags(
        bit(interface.admin_up, IfStatusFlags::IF_STATUS_API_FLAG_ADMIN_UP)
            | bit(interface.link_up && interface.admin_up, IfStatusFlags::IF_STATUS_API_FLAG_LINK_UP),
    )
}

/// The states that clients know of.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<BTreeMap<SwIfIndex, IfStatusFlags>>);

impl Seen {
    /// Nobody wants to know: what happens until somebody does is no news.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// What has changed since the last call; the first call sees no change.
    pub(super) fn news(&mut self, dp: &Dataplane) -> Vec<SwInterfaceEvent> {
        let now: BTreeMap<_, _> = dp.interfaces.iter().map(|(index, i)| (*index, flags(i))).collect();
        let Some(before) = self.0.replace(now) else { return Vec::new() };
        let event = |index: &SwIfIndex, flags, deleted| SwInterfaceEvent {
            sw_if_index: InterfaceIndex(index.0),
            flags,
            deleted,
            ..SwInterfaceEvent::default()
        };
        let now = self.0.iter().flatten();
        let changed = now.filter(|(index, flags)| before.get(index) != Some(flags));
        let mut news: Vec<_> = changed.map(|(index, flags)| event(index, *flags, false)).collect();
        let gone = before.keys().filter(|index| !dp.interfaces.contains_key(index));
        news.extend(gone.map(|index| event(index, IfStatusFlags::default(), true)));
        news
    }
}

/// Appends an event for a client.
pub(super) fn push(registry: &Registry, to: &mut Vec<u8>, event: &SwInterfaceEvent, client: u32, pid: u32) {
    if let Some(id) = registry.id(SwInterfaceEvent::DEF) {
        let event = SwInterfaceEvent { client_index: client, pid, ..event.clone() };
        push_frame(to, id, |out| Message::put(&event, out));
    }
}
