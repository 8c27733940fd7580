//! One change of state: what it says, and the operation that it is.

mod words;

use super::check::{FILTER, instance, memif_ids, read_secret, sub_ids};
use super::document::*;
use super::words::{InterfaceAddress, NeighbourWords, RouteWords, Text};
use crate::acl::{Rules, SessionTimeout};
use crate::dataplane::{Dataplane, OpError};
use crate::interface::QueueSettings;
use crate::ip4::{RouteSource, Via};
use crate::l2::{DomainFlag, L2Switch, PortKind, TagOperation};
use crate::span::{Directions, SpanLayer};
use crate::vxlan::{DecapNext, VxlanConfig};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;
use wharf_drivers::af_xdp::program::KeptPort;
use wharf_drivers::af_xdp::{CopyMode, XdpConfig};
use wharf_drivers::memif::{Access, MemifConfig};
use wharf_engine::{SwIfIndex, WorkerIndex};
use wharf_nodes::acl::Direction;
use wharf_nodes::wire::{Ip4Prefix, MacAddress};

/// What a step does to what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something comes.
    Add,
    /// Something goes.
    Remove,
    /// Something is set.
    Change,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sign::Add => "+",
            Sign::Remove => "-",
            Sign::Change => "~",
        })
    }
}

/// What becomes of an entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<T> {
    /// It comes.
    New(T),
    /// It is another one.
    Other(T),
    /// It goes.
    Gone,
}

impl<T> Entry<T> {
    fn value(&self) -> Option<&T> {
        match self {
            Entry::New(value) | Entry::Other(value) => Some(value),
            Entry::Gone => None,
        }
    }

    fn sign(&self) -> Sign {
        match self {
            Entry::New(_) => Sign::Add,
            Entry::Other(_) => Sign::Change,
            Entry::Gone => Sign::Remove,
        }
    }
}

/// A place in L2 mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The protocols of their EtherTypes.
    L3,
    /// Out of another interface.
    Xconnect(String),
    /// A bridge domain.
    Bridge(Bridge),
}

/// What is set about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Its administrative state.
    Up(bool),
    /// Its MAC address.
    Mac(MacAddress),
    /// Its MTU.
    Mtu(u32),
    /// Its tag.
    Tag(String),
    /// The mode of its receive queues.
    RxMode(RxMode),
    /// What is said of one of its receive queues.
    RxQueue(u32, RxQueue),
    /// Whether a feature, behind its arc, is on by the operator's will.
    Feature(String, String, bool),
    /// Its IPv4 table.
    Table(u32),
    /// Its L2 mode.
    Mode(Mode),
    /// Whether addresses are learned.
    Learn(bool),
    /// Whether frames go to known addresses.
    Forward(bool),
    /// Whether frames are flooded.
    Flood(bool),
    /// How many addresses it may teach.
    LearnLimit(u32),
    /// What happens to VLAN tags.
    TagRewrite(Option<TagOperation>),
    /// Its access lists.
    Acls(Direction, Vec<u32>),
    /// Its EtherTypes.
    Etypes(Direction, Option<Vec<u16>>),
    /// Its MAC-IP list.
    MacIp(Option<u32>),
}

/// One change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is said once for the daemon.
    Settings(Settings),
    /// A socket of memif comes, or goes.
    Socket(u32, Option<MemifSocket>),
    /// An IPv4 table comes, or goes.
    Table(u32, bool),
    /// A bridge domain comes.
    NewDomain(u32, BridgeDomain),
    /// A bridge domain is set.
    Domain(u32, BridgeDomain),
    /// A bridge domain goes.
    NoDomain(u32),
    /// An access list comes.
    NewAcl(u32, Acl),
    /// An access list is set.
    Acl(u32, Acl),
    /// An access list goes.
    NoAcl(u32),
    /// A MAC-IP list comes.
    NewMacIp(u32, MacIpAcl),
    /// A MAC-IP list is set.
    MacIp(u32, MacIpAcl),
    /// A MAC-IP list goes.
    NoMacIp(u32),
    /// An interface comes.
    Create(String, InterfaceType),
    /// An interface goes.
    Delete(String),
    /// An interface is set.
    Set(String, Setting),
    /// An address comes to an interface, or goes.
    Address(String, InterfaceAddress, bool),
    /// Packets of the first are copied to the second, or no longer.
    Span(String, String, SpanLayer, Entry<Directions>),
    /// A neighbour is set, or goes.
    Neighbour(String, Ipv4Addr, Entry<NeighbourWords>),
    /// A MAC address is set in a domain, or goes.
    L2Fib(u32, MacAddress, Entry<String>),
    /// An address is answered for in a domain, or no longer.
    ArpEntry(u32, Ipv4Addr, Entry<MacAddress>),
    /// A route is set, or goes.
    Route(u32, Ip4Prefix, Entry<RouteWords>),
}

impl Step {
    /// What it does to what there is.
    pub fn sign(&self) -> Sign {
        use Step::*;
        let sign = |there: bool| if there { Sign::Add } else { Sign::Remove };
        match self {
            Settings(_) | Domain(..) | Acl(..) | MacIp(..) | Set(..) => Sign::Change,
            NewDomain(..) | NewAcl(..) | NewMacIp(..) | Create(..) => Sign::Add,
            NoDomain(_) | NoAcl(_) | NoMacIp(_) | Delete(_) => Sign::Remove,
            Socket(_, socket) => sign(socket.is_some()),
            Table(_, there) | Address(_, _, there) => sign(*there),
            Span(.., entry) => entry.sign(),
            Neighbour(_, _, entry) => entry.sign(),
            L2Fib(_, _, entry) => entry.sign(),
            ArpEntry(_, _, entry) => entry.sign(),
            Route(_, _, entry) => entry.sign(),
        }
    }

    /// The interface without which it cannot be.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Step::Create(name, _)
            | Step::Set(name, _)
            | Step::Address(name, ..)
            | Step::Span(name, ..)
            | Step::Neighbour(name, ..) => Some(name),
            _ => None,
        }
    }

    /// Whether the workers may see it together with those behind it, and not at once.
    pub(super) fn can_wait(&self) -> bool {
        use Step::*;
        match self {
            NewDomain(..) | Domain(..) | Address(..) | Neighbour(..) | ArpEntry(..) | Route(..) => true,
            Set(_, setting) => !matches!(setting, Setting::Up(_) | Setting::Mode(_)),
            _ => false,
        }
    }

    /// The lists that it compiles.
    pub(super) fn compiles(&self, dp: &Dataplane) -> Vec<Rules> {
        match self {
            Step::NewAcl(index, acl) | Step::Acl(index, acl) => {
                dp.compiles_acl(*index, &acl.rules.iter().map(|rule| rule.0).collect::<Vec<_>>())
            }
            Step::Set(_, Setting::Acls(_, acls)) => dp.compiles_binding(acls),
            _ => Vec::new(),
        }
    }

    /// Does it, or a piece of it; whether all of it is done.
    pub(super) fn run(&self, dp: &mut Dataplane) -> Result<bool, OpError> {
        if let Step::Delete(name) = self {
            return dp.delete_interface_piece(find(dp, name)?);
        }
        self.run_whole(dp).map(|()| true)
    }

    fn run_whole(&self, dp: &mut Dataplane) -> Result<(), OpError> {
        match self {
            Step::Settings(settings) => set_settings(dp, settings),
            Step::Socket(id, Some(socket)) => {
                let access = Access { uids: socket.allow_uid.clone(), gids: socket.allow_gid.clone() };
                dp.add_memif_socket(*id, &socket.filename, access)
            }
            Step::Socket(id, None) => dp.delete_memif_socket(*id),
            Step::Table(id, true) => dp.add_table(*id),
            Step::Table(id, false) => dp.delete_table(*id),
            Step::NewDomain(id, domain) => {
                dp.create_bridge_domain(*id)?;
                set_domain(dp, *id, domain)
            }
            Step::Domain(id, domain) => set_domain(dp, *id, domain),
            Step::NoDomain(id) => dp.delete_bridge_domain(*id),
            Step::NewAcl(index, acl) | Step::Acl(index, acl) => {
                dp.put_acl(*index, &acl.tag, acl.rules.iter().map(|rule| rule.0).collect())
            }
            Step::NoAcl(index) => dp.delete_acl(*index),
            Step::NewMacIp(index, acl) | Step::MacIp(index, acl) => {
                dp.put_macip(*index, &acl.tag, acl.rules.iter().map(|rule| rule.0).collect())
            }
            Step::NoMacIp(index) => dp.delete_macip(*index),
            Step::Create(name, kind) => create(dp, name, kind),
            Step::Delete(name) => dp.delete_interface(find(dp, name)?),
            Step::Set(name, setting) => set(dp, find(dp, name)?, setting),
            Step::Address(name, InterfaceAddress(address, len), true) => {
                dp.add_address(find(dp, name)?, *address, *len)
            }
            Step::Address(name, InterfaceAddress(address, len), false) => {
                dp.delete_address(find(dp, name)?, *address, *len)
            }
            Step::Span(from, to, layer, span) => {
                let directions = span.value().copied().unwrap_or(Directions::NONE);
                dp.set_span(find(dp, from)?, find(dp, to)?, *layer, directions)
            }
            Step::Neighbour(name, address, entry) => {
                let index = find(dp, name)?;
                match entry.value() {
                    Some(NeighbourWords { mac, in_fib }) => {
                        dp.set_neighbour(index, *address, *mac, true, *in_fib, Instant::now())
                    }
                    None => {
                        dp.forget_neighbour(index, *address);
                        Ok(())
                    }
                }
            }
            Step::L2Fib(domain, mac, entry) => match entry.value() {
                Some(name) if name == FILTER => dp.add_mac(*mac, *domain, None),
                Some(name) => dp.add_mac(*mac, *domain, Some(find(dp, name)?)),
                None => dp.delete_mac(*mac, *domain),
            },
            Step::ArpEntry(domain, address, entry) => {
                dp.set_arp_entry(*domain, *address, entry.value().copied())
            }
            Step::Route(table, prefix, entry) => match entry.value() {
                Some(route) => {
                    let via = via(dp, route)?;
                    dp.add_route(*table, *prefix, RouteSource::Cli, via)
                }
                None => dp.delete_route(*table, *prefix, RouteSource::Cli),
            },
        }
    }
}

fn find(dp: &Dataplane, name: &str) -> Result<SwIfIndex, OpError> {
    match dp.find_interface(name) {
        Some(index) => Ok(index),
        None => OpError::refused(format!("there is no interface `{name}'")),
    }
}

pub(super) fn via(dp: &Dataplane, route: &RouteWords) -> Result<Via, OpError> {
    Ok(match route {
        RouteWords::NextHop(next_hop, name) => Via::NextHop(*next_hop, find(dp, name)?),
        RouteWords::Attached(name) => Via::Attached(find(dp, name)?),
        RouteWords::Drop => Via::Drop,
        RouteWords::Punt => Via::Punt,
        RouteWords::Local => Via::Local(SwIfIndex::LOCAL),
    })
}

fn set_settings(dp: &mut Dataplane, new: &Settings) -> Result<(), OpError> {
    let old = dp.config_settings();
    dp.set_neighbour_age(new.neighbor_age);
    dp.set_default_rx_mode(new.default_rx_mode.map(Into::into));
    for (which, old, new) in [
        (SessionTimeout::UdpIdle, old.session_udp_idle, new.session_udp_idle),
        (SessionTimeout::TcpIdle, old.session_tcp_idle, new.session_tcp_idle),
        (SessionTimeout::TcpTransient, old.session_tcp_transient, new.session_tcp_transient),
    ] {
        if old != new {
            dp.set_session_timeout(which, new)?;
        }
    }
    match new.session_max_entries {
        same if same == old.session_max_entries => Ok(()),
        max => dp.put_max_sessions(max.map(|max| max as usize)),
    }
}

fn set_domain(dp: &mut Dataplane, id: u32, new: &BridgeDomain) -> Result<(), OpError> {
    let old = dp.config_domain(id).unwrap_or_default();
    for (flag, old, new) in [
        (DomainFlag::Learn, old.learn, new.learn),
        (DomainFlag::Forward, old.forward, new.forward),
        (DomainFlag::UuFlood, old.uu_flood, new.uu_flood),
        (DomainFlag::Flood, old.flood, new.flood),
        (DomainFlag::ArpTerm, old.arp_term, new.arp_term),
    ] {
        if old != new {
            dp.set_domain_flag(id, flag, new)?;
        }
    }
    if old.mac_age != new.mac_age {
        dp.set_mac_age(id, new.mac_age)?;
    }
    if old.learn_limit != new.learn_limit {
        dp.set_domain_learn_limit(id, new.learn_limit)?;
    }
    dp.set_domain_tag(id, new.tag.clone())
}

fn set(dp: &mut Dataplane, index: SwIfIndex, setting: &Setting) -> Result<(), OpError> {
    match setting {
        Setting::Up(up) => dp.set_state(index, *up),
        Setting::Mac(mac) => dp.set_mac(index, *mac),
        Setting::Mtu(mtu) => dp.set_mtu(index, *mtu),
        Setting::Tag(tag) => dp.set_tag(index, tag.clone()),
        Setting::RxMode(mode) => dp.set_rx_mode(index, None, (*mode).into()),
        Setting::RxQueue(queue, RxQueue { mode, worker }) => {
            let settings = QueueSettings { mode: mode.map(Into::into), worker: worker.map(WorkerIndex) };
            match u16::try_from(*queue) {
                Ok(queue) => dp.set_queue(index, queue, settings),
                Err(_) => OpError::refused(format!("there is never a receive queue {queue}")),
            }
        }
        Setting::Feature(arc, feature, on) => dp.set_feature(index, arc, feature, *on),
        Setting::Table(table) => dp.set_table(index, *table),
        Setting::Mode(Mode::L3) => dp.set_l3(index),
        Setting::Mode(Mode::Xconnect(peer)) => dp.set_xconnect(index, find(dp, peer)?),
        Setting::Mode(Mode::Bridge(bridge)) => {
            let kind = match bridge.port {
                Port::Normal => PortKind::Normal,
                Port::Bvi => PortKind::Bvi,
                Port::UuFwd => PortKind::UuFwd,
            };
            dp.set_bridge(index, bridge.domain, kind, bridge.shg)
        }
        Setting::Learn(on) => dp.set_l2_switch(index, L2Switch::Learn, *on),
        Setting::Forward(on) => dp.set_l2_switch(index, L2Switch::Forward, *on),
        Setting::Flood(on) => dp.set_l2_switch(index, L2Switch::Flood, *on),
        Setting::LearnLimit(limit) => dp.set_port_learn_limit(index, *limit),
        Setting::TagRewrite(operation) => dp.set_tag_rewrite(index, *operation),
        Setting::Acls(direction, acls) => dp.set_interface_acls(index, *direction, acls.clone()),
        Setting::Etypes(direction, etypes) => dp.set_etype_whitelist(index, *direction, etypes.clone()),
        Setting::MacIp(acl) => dp.set_interface_macip(index, *acl),
    }
}

fn create(dp: &mut Dataplane, name: &str, kind: &InterfaceType) -> Result<(), OpError> {
    let shape = || OpError::Refused(format!("`{name}' is not the name of such an interface"));
    match kind {
        InterfaceType::Loopback => {
            dp.create_loopback(None, Some(instance(name, "loop").ok_or_else(shape)?))?;
        }
        InterfaceType::Memif(memif) => {
            let (socket, id) = memif_ids(name).ok_or_else(shape)?;
            let role = match memif.role {
                MemifRole::Server => memif::Role::Server,
                MemifRole::Client => memif::Role::Client,
            };
            let secret = match memif.secret.as_deref().map(|secret| read_secret(secret).unwrap_or_default()) {
                Some(bytes) => match memif::Secret::new(&bytes) {
                    Ok(secret) => Some(secret),
                    Err(error) => return OpError::refused(error.to_string()),
                },
                None => None,
            };
            dp.create_memif(MemifConfig {
                mode: match memif.mode {
                    MemifMode::Ethernet => memif::Mode::Ethernet,
                    MemifMode::Ip => memif::Mode::Ip,
                },
                ring_size: memif.ring_size,
                buffer_size: memif.buffer_size,
                rx_queues: memif.rx_queues,
                tx_queues: memif.tx_queues,
                secret,
                ..MemifConfig::new(socket, id, role)
            })?;
        }
        InterfaceType::Pg(pg) => {
            let mode = match pg.mode {
                PgMode::Ethernet => wharf_drivers::pg::PgMode::Ethernet,
                PgMode::Ip4 => wharf_drivers::pg::PgMode::Ip4,
                PgMode::Ip6 => wharf_drivers::pg::PgMode::Ip6,
            };
            dp.create_pg(name, mode)?;
        }
        InterfaceType::AfXdp(xdp) => {
            let tcp = xdp.keep_tcp.iter().copied().map(KeptPort::Tcp);
            let keep: Vec<_> = tcp.chain(xdp.keep_udp.iter().copied().map(KeptPort::Udp)).collect();
            let config = XdpConfig {
                netns: xdp.netns.clone(),
                rx_ring: xdp.rx_queue_size,
                tx_ring: xdp.tx_queue_size,
                copy: match xdp.zero_copy {
                    None => CopyMode::Auto,
                    Some(false) => CopyMode::Copy,
                    Some(true) => CopyMode::ZeroCopy,
                },
                partial_checksums: xdp.partial_checksums,
                keep: (!keep.is_empty()).then_some(keep),
                ..XdpConfig::new(&xdp.host_if)
            };
            dp.create_af_xdp(name.to_owned(), config, false)?;
        }
        InterfaceType::Sub(Text(which)) => {
            let (parent, id) = sub_ids(name).ok_or_else(shape)?;
            dp.create_sub_interface(find(dp, parent)?, id, *which)?;
        }
        InterfaceType::Vxlan(vxlan) => {
            let group = vxlan.group_interface.as_deref().map(|on| find(dp, on)).transpose()?;
            let config = VxlanConfig {
                group,
                decap_vni: vxlan.decap_vni.map(|vni| match vni {
                    DecapVni::Vni(vni) => Some(vni),
                    DecapVni::Word(Any::Any) => None,
                }),
                src_port: vxlan.src_port,
                dst_port: vxlan.dst_port,
                table: vxlan.encap_table,
                decap: if vxlan.l3 { DecapNext::Ip4 } else { DecapNext::L2 },
                checksum: vxlan.udp_checksum,
                ..VxlanConfig::new(vxlan.src, vxlan.dst, vxlan.vni)
            };
            dp.create_vxlan(config, Some(instance(name, "vxlan_tunnel").ok_or_else(shape)?))?;
        }
    }
    Ok(())
}
