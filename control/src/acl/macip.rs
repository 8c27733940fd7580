//! MAC-IP lists: which stations may send on an interface.

use super::free;
use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use crate::interface::InterfaceKind;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::{MAX_MACIP_RULES, MacIpRule};

/// A list.
#[derive(Clone, Debug)]
pub struct MacIpConfig {
    /// Free text.
    pub tag: String,
    /// The rules, in order.
    pub rules: Vec<MacIpRule>,
    counter: u32,
}

impl MacIpConfig {
    /// The first rule's counter; the others follow.
    pub(crate) fn counter(&self) -> u32 {
        self.counter
    }
}

impl Dataplane {
    /// A MAC-IP list, or an error that says that there is none.
    pub fn macip(&self, index: u32) -> Result<&MacIpConfig, OpError> {
        match self.acls.macips.get(&index) {
            Some(list) => Ok(list),
            None => OpError::parameter("acl", format!("there is no macip acl {index}")),
        }
    }

    /// Adds a MAC-IP list, or replaces list `index`. One without rules lets nothing pass. Returns its index.
    pub fn set_macip(
        &mut self,
        index: Option<u32>,
        tag: &str,
        rules: Vec<MacIpRule>,
    ) -> Result<u32, OpError> {
        if let Some(index) = index {
            self.macip(index)?;
        }
        let index = index.unwrap_or_else(|| free(&self.acls.macips));
        self.put_macip(index, tag, rules)?;
        Ok(index)
    }

    /// As [`Dataplane::set_macip`], with an index that may be free.
    pub(crate) fn put_macip(&mut self, index: u32, tag: &str, rules: Vec<MacIpRule>) -> Result<(), OpError> {
        if rules.len() > MAX_MACIP_RULES {
            return OpError::refused(format!("a macip acl has at most {MAX_MACIP_RULES} rules"));
        }
        if tag.len() > super::MAX_TAG {
            return OpError::parameter(
                "tag",
                format!("the tag is longer than {} characters", super::MAX_TAG),
            );
        }
        let workers = self.engine.workers();
        let counter = self.acls.counters(workers).take(rules.len() as u32)?;
        self.changes.touch(Object::MacIp(index));
        let old = self.acls.macips.insert(index, MacIpConfig { tag: tag.to_owned(), rules, counter });
        self.publish_acls();
        if let Some(old) = old {
            self.acls.counters(workers).give_back(old.counter);
        }
        Ok(())
    }

    /// Deletes a MAC-IP list that is not applied anywhere.
    pub fn delete_macip(&mut self, index: u32) -> Result<(), OpError> {
        let counter = self.macip(index)?.counter;
        if let Some((user, _)) = self.acls.bindings.iter().find(|(_, b)| b.macip == Some(index)) {
            let name = self.interface_name(*user);
            return OpError::parameter("acl", format!("macip acl {index} is applied to {name}"));
        }
        self.changes.touch(Object::MacIp(index));
        self.acls.macips.remove(&index);
        let workers = self.engine.workers();
        self.acls.counters(workers).give_back(counter);
        Ok(())
    }

    /// Sets the MAC-IP list of an interface. It looks at frames as a device receives them.
    pub fn set_interface_macip(&mut self, interface: SwIfIndex, acl: Option<u32>) -> Result<(), OpError> {
        let record = self.record_mut(interface)?;
        let why = match record.kind {
            InterfaceKind::Memif | InterfaceKind::AfXdp | InterfaceKind::Pg if !record.point_to_point => None,
            InterfaceKind::Memif | InterfaceKind::AfXdp | InterfaceKind::Pg => {
                Some("is in IP mode: what it receives has no MAC addresses")
            }
            InterfaceKind::Sub => {
                Some("is a part of another interface: apply the list there, where frames come in")
            }
            InterfaceKind::Local | InterfaceKind::Loopback | InterfaceKind::Vxlan => {
                Some("is no device that receives Ethernet frames")
            }
        };
        if let Some(why) = why {
            let name = record.name.clone();
            return OpError::parameter("interface", format!("{name} {why}"));
        }
        if let Some(acl) = acl {
            self.macip(acl)?;
        }
        self.acls.bindings.entry(interface).or_default().macip = acl;
        self.bound(interface)
    }
}
