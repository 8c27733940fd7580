//! What can be said of a document by itself: whether names and numbers fit, and whether what is referred to is there. The rest is
//! for the operations to refuse.

use super::document::{Document, HIDDEN, InterfaceConfig, InterfaceType, Port, RxQueue};
use super::text::DocumentError;
use super::words::Text;
use crate::interface::MIN_MTU;
use std::collections::BTreeSet;
use wharf_nodes::acl::sessions::Ticks;
use wharf_nodes::wire::Ip4Prefix;

type Checked = Result<(), DocumentError>;

fn wrong<T>(path: impl Into<String>, message: impl Into<String>) -> Result<T, DocumentError> {
    Err(DocumentError::new(path, message))
}

/// The number behind `prefix` in a name such as `loop7`.
pub(super) fn instance(name: &str, prefix: &str) -> Option<u32> {
    let number = name.strip_prefix(prefix)?;
    let read: u32 = number.parse().ok()?;
    (read.to_string() == number).then_some(read)
}

/// Socket and id of `memif<socket>/<id>`.
pub(super) fn memif_ids(name: &str) -> Option<(u32, u32)> {
    let (socket, id) = name.split_once('/')?;
    Some((instance(socket, "memif")?, instance(id, "")?))
}

/// Parent and id of `<parent>.<id>`.
pub(super) fn sub_ids(name: &str) -> Option<(&str, u32)> {
    let (parent, id) = name.rsplit_once('.')?;
    Some((parent, instance(id, "")?))
}

/// The interface without which one cannot be: the parent of a sub-interface, that of a tunnel's group.
pub(super) fn part_of<'a>(name: &'a str, kind: &'a InterfaceType) -> Option<&'a str> {
    match kind {
        InterfaceType::Sub(_) => sub_ids(name).map(|(parent, _)| parent),
        InterfaceType::Vxlan(vxlan) => vxlan.group_interface.as_deref(),
        _ => None,
    }
}

impl Document {
    /// Checks the document by itself, and writes alike what means the same.
    ///
    /// # Errors
    /// The first thing that cannot be, with its key.
    pub fn check(&mut self) -> Checked {
        self.tables.sort_unstable();
        self.tables.dedup();
        self.tables.retain(|table| *table != 0);
        let settings = &mut self.settings;
        for (key, seconds) in [
            ("session-udp-idle", &mut settings.session_udp_idle),
            ("session-tcp-idle", &mut settings.session_tcp_idle),
            ("session-tcp-transient", &mut settings.session_tcp_transient),
        ] {
            if *seconds == 0 {
                return wrong(format!("settings.{key}"), "a timeout is at least 1 second, got 0");
            }
            // The clock of sessions has its limits.
            *seconds = Ticks::seconds(*seconds).as_seconds().round() as u32;
        }
        if self.memif_socket.contains_key(&Text(0)) {
            return wrong("memif-socket.0", "socket 0 is always in the runtime directory");
        }
        for (name, interface) in &self.interface {
            self.check_interface(name, interface).map_err(|error| {
                DocumentError::new(format!("interface.{name}{}", error.path), error.message)
            })?;
        }
        self.check_bvis()?;
        self.check_entries()?;
        // Only in a connected subnet does a neighbour get a host route.
        for (name, neighbours) in &mut self.neighbor {
            let Some(interface) = self.interface.get(name) else { continue };
            let subnets = || interface.addresses.iter().map(|Text(a)| Ip4Prefix::clamped(a.0, a.1));
            for (address, entry) in neighbours {
                entry.0.in_fib &= subnets().any(|subnet| subnet.contains(*address));
            }
        }
        for interface in self.interface.values_mut() {
            interface.addresses.dedup();
            interface.rx_queue.retain(|_, queue| *queue != RxQueue::default());
            interface.feature.retain(|_, features| !features.is_empty());
        }
        self.neighbor.retain(|_, entries| !entries.is_empty());
        self.l2fib.retain(|_, entries| !entries.is_empty());
        self.arp_entry.retain(|_, entries| !entries.is_empty());
        self.route.retain(|_, entries| !entries.is_empty());
        Ok(())
    }

    fn has_table(&self, table: u32) -> bool {
        table == 0 || self.tables.contains(&table)
    }

    /// Paths of errors are within the interface, with a dot in front.
    fn check_interface(&self, name: &str, interface: &InterfaceConfig) -> Checked {
        if name.is_empty() || name == "local0" {
            return wrong("", format!("`{name}' is not a name for an interface"));
        }
        self.check_type(name, interface)?;
        if interface.mtu.is_some_and(|mtu| mtu < MIN_MTU.into()) {
            return wrong(
                ".mtu",
                format!("the MTU is at least {MIN_MTU}, got {:?}", interface.mtu.unwrap_or(0)),
            );
        }
        let device = matches!(
            interface.kind,
            InterfaceType::Memif(_) | InterfaceType::Pg(_) | InterfaceType::AfXdp(_)
        );
        if let Some(Text(queue)) = interface.rx_queue.keys().next().filter(|_| !device) {
            return wrong(
                format!(".rx-queue.{queue}"),
                format!("{name} is no device: it has no receive queues"),
            );
        }
        if let Some(Text(mac)) = interface.mac.filter(|Text(mac)| mac.is_multicast() || mac.is_zero()) {
            return wrong(".mac", format!("{mac} is not a unicast address"));
        }
        if !self.has_table(interface.table) {
            return wrong(".table", format!("table {} is not in `tables'", interface.table));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = interface.addresses.iter().find(|address| !seen.insert(**address)) {
            return wrong(".addresses", format!("{twice} stands there twice"));
        }
        if interface.bridge.is_some() && interface.xconnect.is_some() {
            return wrong(".xconnect", "an interface is bridged or cross-connected, not both");
        }
        let bvi = interface.bvi().is_some();
        if interface.is_l2() && !bvi && !interface.addresses.is_empty() {
            return wrong(".addresses", "an interface in L2 mode has no addresses, unless it is a BVI");
        }
        let mut plain = interface.clone();
        plain.reset_l2();
        if !interface.is_l2() && plain != *interface {
            let what = "learn, forward, flood, learn-limit and tag-rewrite are for an interface with `bridge' or `xconnect'";
            return wrong("", what);
        }
        if let Some(bridge) = interface.bridge.filter(|b| !self.bridge_domain.contains_key(&Text(b.domain))) {
            return wrong(".bridge.domain", format!("there is no [bridge-domain.{}]", bridge.domain));
        }
        if let Some(peer) = interface.xconnect.as_ref().filter(|peer| !self.interface.contains_key(*peer)) {
            return wrong(".xconnect", format!("there is no [interface.\"{peer}\"]"));
        }
        for (key, acls) in [(".acl-input", &interface.acl_input), (".acl-output", &interface.acl_output)] {
            if let Some(acl) = acls.iter().find(|acl| !self.acl.contains_key(&Text(**acl))) {
                return wrong(key, format!("there is no [acl.{acl}]"));
            }
        }
        if let Some(acl) = interface.macip_acl.filter(|acl| !self.macip_acl.contains_key(&Text(*acl))) {
            return wrong(".macip-acl", format!("there is no [macip-acl.{acl}]"));
        }
        for (key, spans) in [(".span", &interface.span), (".l2-span", &interface.l2_span)] {
            if let Some(to) = spans.keys().find(|to| !self.interface.contains_key(*to)) {
                return wrong(key, format!("there is no [interface.\"{to}\"]"));
            }
        }
        Ok(())
    }

    fn check_type(&self, name: &str, interface: &InterfaceConfig) -> Checked {
        let named =
            |shape: &str| wrong("", format!("the name of such an interface is {shape}, got `{name}'"));
        let ids = memif_ids(name);
        match &interface.kind {
            InterfaceType::Loopback if instance(name, "loop").is_none() => return named("loopN"),
            InterfaceType::Vxlan(vxlan) => {
                if instance(name, "vxlan_tunnel").is_none() {
                    return named("vxlan_tunnelN");
                }
                if !self.has_table(vxlan.encap_table) {
                    let why = format!("table {} is not in `tables'", vxlan.encap_table);
                    return wrong(".type.vxlan.encap-table", why);
                }
                if let Some(on) =
                    part_of(name, &interface.kind).filter(|on| !self.interface.contains_key(*on))
                {
                    return wrong(".type.vxlan.group-interface", format!("there is no [interface.\"{on}\"]"));
                }
            }
            InterfaceType::Memif(memif) => {
                let Some((socket, _)) = ids else { return named("memif<socket>/<id>") };
                if socket != 0 && !self.memif_socket.contains_key(&Text(socket)) {
                    return wrong("", format!("there is no [memif-socket.{socket}]"));
                }
                match memif.secret.as_deref() {
                    Some(HIDDEN) | None => {}
                    Some(secret) if read_secret(secret).is_none() => {
                        return wrong(
                            ".type.memif.secret",
                            "a secret is 1 to 24 bytes, or `hex:' and their digits",
                        );
                    }
                    Some(_) => {}
                }
            }
            InterfaceType::Sub(_) => {
                let Some((parent, _)) = sub_ids(name) else { return named("<parent>.<id>") };
                match self.interface.get(parent).map(|parent| &parent.kind) {
                    Some(InterfaceType::Memif(_) | InterfaceType::Pg(_) | InterfaceType::AfXdp(_)) => {}
                    Some(_) => return wrong("", format!("`{parent}' cannot have sub-interfaces")),
                    None => return wrong("", format!("there is no [interface.\"{parent}\"]")),
                }
                if interface.mac.is_some() {
                    return wrong(
                        ".mac",
                        "a sub-interface has the address of the interface that it is part of",
                    );
                }
            }
            InterfaceType::AfXdp(xdp) => {
                for (key, size) in [("rx", xdp.rx_queue_size), ("tx", xdp.tx_queue_size)] {
                    if !size.is_power_of_two() || !(64..=4096).contains(&size) {
                        let why = format!("a queue's size is a power of two from 64 to 4096, got {size}");
                        return wrong(format!(".type.af-xdp.{key}-queue-size"), why);
                    }
                }
            }
            InterfaceType::Loopback | InterfaceType::Pg(_) => {}
        }
        let device = matches!(
            interface.kind,
            InterfaceType::Memif(_) | InterfaceType::Pg(_) | InterfaceType::AfXdp(_)
        );
        if interface.rx_mode.is_some() && !device {
            return wrong(".rx-mode", "only a device has receive queues");
        }
        let loopback = matches!(interface.kind, InterfaceType::Loopback);
        match interface.bridge.map(|bridge| bridge.port) {
            Some(Port::Bvi) if !loopback => wrong(".bridge.port", "only a loopback can be a BVI"),
            Some(Port::Normal | Port::UuFwd) if loopback => {
                wrong(".bridge.port", "a loopback can only be a BVI")
            }
            _ => Ok(()),
        }
    }

    fn check_bvis(&self) -> Checked {
        let mut seen = BTreeSet::new();
        for (name, interface) in &self.interface {
            if let Some(domain) = interface.bvi().filter(|domain| !seen.insert(*domain)) {
                return wrong(
                    format!("interface.{name}.bridge"),
                    format!("bridge domain {domain} has another BVI already"),
                );
            }
        }
        Ok(())
    }

    fn check_entries(&self) -> Checked {
        for (Text(table), routes) in &self.route {
            if !self.has_table(*table) {
                return wrong(format!("route.{table}"), format!("table {table} is not in `tables'"));
            }
            for (prefix, route) in routes {
                if let Some(name) = route.0.interface().filter(|name| !self.interface.contains_key(*name)) {
                    return wrong(
                        format!("route.{table}.{prefix}"),
                        format!("there is no interface `{name}'"),
                    );
                }
            }
        }
        if let Some(name) = self.neighbor.keys().find(|name| !self.interface.contains_key(*name)) {
            return wrong(format!("neighbor.{name}"), format!("there is no interface `{name}'"));
        }
        for domain in self.l2fib.keys().chain(self.arp_entry.keys()) {
            if !self.bridge_domain.contains_key(domain) {
                let key = if self.l2fib.contains_key(domain) { "l2fib" } else { "arp-entry" };
                return wrong(format!("{key}.{domain}"), format!("there is no [bridge-domain.{domain}]"));
            }
        }
        for (Text(domain), macs) in &self.l2fib {
            for (mac, name) in macs.iter().filter(|(_, name)| *name != FILTER) {
                let port = self.interface.get(name).and_then(|interface| interface.bridge);
                if port.is_none_or(|bridge| bridge.domain != *domain) {
                    let why = format!("`{name}' is not a port of bridge domain {domain}");
                    return wrong(format!("l2fib.{domain}.{mac}"), why);
                }
            }
        }
        Ok(())
    }
}

/// In place of the interface of a MAC address: its frames are dropped.
pub(super) const FILTER: &str = "filter";

/// The bytes of a secret as a document has it.
pub(super) fn read_secret(text: &str) -> Option<Vec<u8>> {
    let bytes = match text.strip_prefix("hex:") {
        Some(digits) if digits.len() % 2 == 0 && digits.is_ascii() => {
            let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?
        }
        Some(_) => return None,
        None => text.as_bytes().to_vec(),
    };
    (1..=24).contains(&bytes.len()).then_some(bytes)
}

/// A secret as a document has it.
pub(super) fn write_secret(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text != HIDDEN && !text.starts_with("hex:") && !text.contains(char::is_control) => {
            text.to_owned()
        }
        _ => bytes.iter().fold("hex:".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}
