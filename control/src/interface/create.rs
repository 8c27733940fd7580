//! Creating interfaces, and the sockets of memif.

use super::{Interface, InterfaceKind, MIN_MTU};
use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use memif::Address;
use std::sync::Arc;
use std::time::Instant;
use wharf_drivers::af_xdp::{XdpConfig, XdpError};
use wharf_drivers::memif::{Access, MemifConfig, MemifError};
use wharf_drivers::pg::{PgInterface, PgMode};
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::ethernet::MacAddress;

impl Dataplane {
    /// Creates `loopN`.
    pub fn create_loopback(
        &mut self,
        mac: Option<MacAddress>,
        instance: Option<u32>,
    ) -> Result<SwIfIndex, OpError> {
        let free = || (0..).find(|n| self.find_interface(&format!("loop{n}")).is_none()).unwrap_or(0);
        let name = format!("loop{}", instance.unwrap_or_else(free));
        self.check_name(&name)?;
        let index = self.free_index()?;
        self.add(index, Interface::new(name, InterfaceKind::Loopback), mac);
        Ok(index)
    }

    /// Gives a memif socket a number. As VPP has it, a bare name is in the runtime directory.
    pub fn add_memif_socket(&mut self, id: u32, filename: &str, access: Access) -> Result<(), OpError> {
        let address = self.memif_address(filename).or_else(|why| OpError::parameter("filename", why))?;
        self.changes.touch(Object::Socket(id));
        self.memif
            .add_socket(id, address, access)
            .or_else(|error| OpError::parameter("id", error.to_string()))
    }

    /// Where a memif socket with this name is.
    pub(crate) fn memif_address(&self, filename: &str) -> Result<Address, String> {
        let whole = filename.starts_with(['/', '@']) || filename.starts_with("abstract:");
        let address = match whole {
            true => Address::parse(filename),
            false => Address::parse(&self.runtime_dir.join(filename).to_string_lossy()),
        };
        address.map_err(|error| error.to_string())
    }

    /// Forgets a memif socket that no interface uses.
    pub fn delete_memif_socket(&mut self, id: u32) -> Result<(), OpError> {
        self.changes.touch(Object::Socket(id));
        Ok(self.memif.delete_socket(id)?)
    }

    /// Creates a memif; its queues come when the peer connects.
    pub fn create_memif(&mut self, config: MemifConfig) -> Result<SwIfIndex, OpError> {
        self.check_name(&config.name)?;
        let index = self.free_index()?;
        let mut record = Interface::new(config.name.clone(), InterfaceKind::Memif);
        record.point_to_point = config.mode == memif::Mode::Ip;
        let mac = config.mac.map(MacAddress);
        if let Err(error) = self.memif.create(index, config, Instant::now()) {
            return OpError::parameter(memif_parameter(&error), error.to_string());
        }
        self.add(index, record, mac);
        Ok(index)
    }

    /// Takes a Linux interface over; with its own MAC address if `host_mac`, else with one derived from that.
    pub fn create_af_xdp(
        &mut self,
        name: String,
        config: XdpConfig,
        host_mac: bool,
    ) -> Result<SwIfIndex, OpError> {
        self.check_name(&name)?;
        let index = self.free_index()?;
        let pool = Arc::clone(self.engine.pool());
        let created = match self.xdp.create(index, config, &pool) {
            Ok(created) => created,
            Err(error) => match xdp_parameter(&error) {
                Some(parameter) => return OpError::parameter(parameter, error.to_string()),
                None => return Err(error.into()),
            },
        };
        // The same at each start, so that neighbours that remember it still reach us.
        let [_, _, a, b, c, d] = created.link.mac;
        let own = MacAddress::local(u32::from_be_bytes([a, b, c, d]));
        let mac = Some(if host_mac { MacAddress(created.link.mac) } else { own });
        let mut record = Interface::new(name, InterfaceKind::AfXdp);
        record.link_up = created.link.admin_up && created.link.carrier;
        record.mtu = (created.link.mtu.min(self.max_mtu().into()) as u16).max(MIN_MTU);
        self.add(index, record, mac);
        let started = match self.xdp.fd(index) {
            Some(fd) => self.watch(fd),
            None => Ok(()),
        };
        let started = started.and_then(|()| self.attach(index, created.inputs, created.outputs));
        self.created(index, started)
    }

    /// The end of a creation: what could not be started leaves nothing behind.
    fn created(&mut self, index: SwIfIndex, started: Result<(), OpError>) -> Result<SwIfIndex, OpError> {
        if let Err(error) = started {
            if let Err(left) = self.delete_interface(index) {
                tracing::error!("{}: {left}", self.interface_name(index));
            }
            return Err(error);
        }
        Ok(index)
    }

    /// Creates a packet generator interface.
    pub fn create_pg(&mut self, name: &str, mode: PgMode) -> Result<SwIfIndex, OpError> {
        self.check_name(name)?;
        let index = self.free_index()?;
        let (mut pg, input, output) = PgInterface::new(name, mode)?;
        pg.set_waker(self.waker.clone());
        self.pg.insert(index, pg);
        self.add(index, Interface::new(name.to_owned(), InterfaceKind::Pg), None);
        let started = self.attach(index, vec![Box::new(input)], vec![Box::new(output)]);
        self.created(index, started)
    }
}

/// Which parameter of a new memif the driver does not accept.
fn memif_parameter(error: &MemifError) -> &'static str {
    match error {
        MemifError::RingSize(_) => "ring-size",
        MemifError::BufferSize(_) => "buffer-size",
        MemifError::Queues { what: "receive", .. } => "rx-queues",
        MemifError::Queues { .. } => "tx-queues",
        MemifError::Mac(_) => "hw-addr",
        MemifError::Mode => "mode",
        MemifError::NoSocket(_) | MemifError::RoleConflict { .. } => "socket-id",
        _ => "id",
    }
}

/// Which parameter of a new AF_XDP interface is at fault; none where the system is.
fn xdp_parameter(error: &XdpError) -> Option<&'static str> {
    match error {
        XdpError::NoNamespace { .. } => Some("netns"),
        XdpError::Privilege { .. }
        | XdpError::KernelLacks { .. }
        | XdpError::LockedMemory { .. }
        | XdpError::Program(_)
        | XdpError::System { .. } => None,
        _ => Some("host-if"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_engine::EngineConfig;
    use wharf_engine::buffer::PoolConfig;

    #[test]
    fn what_cannot_be_started_leaves_nothing_behind() {
        let pool = PoolConfig::fixed(256);
        let config = EngineConfig { pool, ..Default::default() };
        let mut dataplane = Dataplane::start(&config, &std::env::temp_dir(), |_| {}).unwrap();
        dataplane.create_pg("pg0", PgMode::Ethernet).unwrap();
        dataplane.shut_down();
        assert!(dataplane.interfaces.len() == 1 && dataplane.pg.is_empty());
        // No worker is left to take the queues.
        assert!(dataplane.create_pg("pg1", PgMode::Ethernet).is_err());
        assert!(dataplane.find_interface("pg1").is_none() && dataplane.pg.is_empty());
    }
}
