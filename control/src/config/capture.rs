//! The document of what there is.

use super::check::{FILTER, write_secret};
use super::document::*;
use super::words::{InterfaceAddress, NeighbourWords, RouteWords, Text};
use crate::dataplane::Dataplane;
use crate::interface::{Interface, InterfaceKind, QueueSettings};
use crate::ip4::{NeighbourState, Route, RouteSource, Via};
use crate::l2::{BridgeDomainConfig, L2Mode, PortKind};
use crate::span::SpanLayer;
use crate::vxlan::{DecapNext, VxlanConfig};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;
use wharf_drivers::af_xdp::program::KeptPort;
use wharf_drivers::af_xdp::{CopyMode, XdpConfig};
use wharf_drivers::memif::MemifConfig;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::{Ip4Prefix, MacAddress};

/// Entries of a piece.
const PIECE: usize = 1024;

/// Which piece of the document comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Singles,
    /// Behind this one.
    Interfaces(SwIfIndex),
    /// This part of the table.
    Macs(usize),
    /// From this index on.
    Acls(u32),
    MacIps(u32),
    /// Behind this one.
    Neighbours(Option<(SwIfIndex, Ipv4Addr)>),
    /// From this table on, in which behind this one.
    Routes(u32, Option<Ip4Prefix>),
    End,
}

/// The document of what there is, made in pieces. It is of one state if nothing changes between them.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    document: Document,
    next: Next,
}

impl Capture {
    /// Makes a piece. Whether all is there now.
    pub(crate) fn piece(&mut self, dp: &Dataplane) -> bool {
        let document = &mut self.document;
        self.next = match self.next {
            Next::Singles => {
                dp.capture_singles(document);
                Next::Interfaces(SwIfIndex::LOCAL)
            }
            Next::Interfaces(last) => {
                let behind = (Bound::Excluded(last), Bound::Unbounded);
                let mut to = None;
                for (index, record) in dp.interfaces.range(behind).take(PIECE) {
                    let config = dp.config_interface(*index);
                    document.interface.extend(config.map(|config| (record.name.clone(), config)));
                    to = Some(*index);
                }
                to.map_or(Next::Macs(0), Next::Interfaces)
            }
            Next::Macs(part) => {
                for (domain, mac) in dp.static_macs(part) {
                    if let Some(name) = dp.config_mac(domain, mac) {
                        document.l2fib.entry(Text(domain)).or_default().insert(Text(mac), name);
                    }
                }
                if part + 1 < dp.mac_parts() { Next::Macs(part + 1) } else { Next::Acls(0) }
            }
            Next::Acls(from) => match dp.acls.lists.range(from..).next() {
                None => Next::MacIps(0),
                Some((index, _)) => {
                    document.acl.extend(dp.config_acl(*index).map(|acl| (Text(*index), acl)));
                    index.checked_add(1).map_or(Next::MacIps(0), Next::Acls)
                }
            },
            Next::MacIps(from) => match dp.acls.macips.range(from..).next() {
                None => Next::Neighbours(None),
                Some((index, _)) => {
                    document.macip_acl.extend(dp.config_macip(*index).map(|acl| (Text(*index), acl)));
                    index.checked_add(1).map_or(Next::Neighbours(None), Next::MacIps)
                }
            },
            Next::Neighbours(last) => {
                let mut to = None;
                for (interface, address, neighbour) in dp.neighbours.iter_after(last).take(PIECE) {
                    if neighbour.state == NeighbourState::Static {
                        let entry = Text(NeighbourWords { mac: neighbour.mac, in_fib: neighbour.in_fib });
                        let name = dp.interface_name(interface);
                        document.neighbor.entry(name).or_default().insert(address, entry);
                    }
                    to = Some((interface, address));
                }
                if to.is_some() { Next::Neighbours(to) } else { Next::Routes(0, None) }
            }
            Next::Routes(table, last) => dp.capture_routes(document, table, last),
            Next::End => Next::End,
        };
        matches!(self.next, Next::End)
    }

    /// The document.
    pub(crate) fn finish(self) -> Document {
        self.document
    }
}

impl From<&BridgeDomainConfig> for BridgeDomain {
    fn from(domain: &BridgeDomainConfig) -> BridgeDomain {
        BridgeDomain {
            learn: domain.learn,
            forward: domain.forward,
            uu_flood: domain.uu_flood,
            flood: domain.flood,
            arp_term: domain.arp_term,
            mac_age: domain.mac_age,
            learn_limit: domain.learn_limit,
            tag: domain.tag.clone(),
        }
    }
}

impl Dataplane {
    /// All that is configured, with secrets.
    pub fn config(&self) -> Document {
        let mut capture = Capture::default();
        while !capture.piece(self) {}
        capture.finish()
    }

    fn capture_singles(&self, document: &mut Document) {
        document.tables = self.fibs.keys().copied().filter(|table| *table != 0).collect();
        document.settings = self.config_settings();
        for id in self.memif.sockets().into_iter().map(|socket| socket.id) {
            document.memif_socket.extend(self.config_socket(id).map(|socket| (Text(id), socket)));
        }
        for (id, domain) in &self.bridges {
            document.bridge_domain.extend(self.config_domain(*id).map(|domain| (Text(*id), domain)));
            let entries: BTreeMap<_, _> = domain.arp.iter().map(|(ip, mac)| (*ip, Text(*mac))).collect();
            if !entries.is_empty() {
                document.arp_entry.insert(Text(*id), entries);
            }
        }
    }

    fn capture_routes(&self, document: &mut Document, table: u32, last: Option<Ip4Prefix>) -> Next {
        let Some((table, fib)) = self.fibs.range(table..).next() else { return Next::End };
        let mut to = None;
        for (prefix, route) in fib.routes().iter_after(last).take(PIECE) {
            if let Some(words) = self.route_words(route) {
                document.route.entry(Text(*table)).or_default().insert(Text(prefix), Text(words));
            }
            to = Some(prefix);
        }
        match to {
            Some(_) => Next::Routes(*table, to),
            None => table.checked_add(1).map_or(Next::End, |table| Next::Routes(table, None)),
        }
    }

    pub(super) fn config_settings(&self) -> Settings {
        let timeouts = &self.acls.timeouts;
        Settings {
            neighbor_age: self.neighbours.age.map_or(0, |age| age.as_secs() as u32),
            session_udp_idle: timeouts.udp_idle.as_seconds().round() as u32,
            session_tcp_idle: timeouts.tcp_idle.as_seconds().round() as u32,
            session_tcp_transient: timeouts.tcp_transient.as_seconds().round() as u32,
            session_max_entries: self.acls.max_sessions.map(|max| max as u32),
            default_rx_mode: self.chosen_rx_mode().map(RxMode::from),
        }
    }

    pub(super) fn config_socket(&self, id: u32) -> Option<MemifSocket> {
        let (address, access) = self.memif.socket(id).filter(|_| id != 0)?;
        let (allow_uid, allow_gid) = (access.uids.clone(), access.gids.clone());
        Some(MemifSocket { filename: address.to_string(), allow_uid, allow_gid })
    }

    pub(super) fn config_domain(&self, id: u32) -> Option<BridgeDomain> {
        self.bridges.get(&id).map(BridgeDomain::from)
    }

    pub(super) fn config_acl(&self, index: u32) -> Option<Acl> {
        let acl = self.acls.lists.get(&index)?;
        Some(Acl { tag: acl.tag.clone(), rules: acl.rules.iter().copied().map(Text).collect() })
    }

    pub(super) fn config_macip(&self, index: u32) -> Option<MacIpAcl> {
        let acl = self.acls.macips.get(&index)?;
        Some(MacIpAcl { tag: acl.tag.clone(), rules: acl.rules.iter().copied().map(Text).collect() })
    }

    pub(super) fn config_route(&self, table: u32, prefix: Ip4Prefix) -> Option<RouteWords> {
        self.route_words(self.fibs.get(&table)?.routes().get(prefix)?)
    }

    fn route_words(&self, route: &Route) -> Option<RouteWords> {
        let way = route.ways().find(|way| way.source == RouteSource::Cli)?;
        Some(match way.via {
            Via::NextHop(next_hop, interface) => {
                RouteWords::NextHop(next_hop, self.interface_name(interface))
            }
            Via::Attached(interface) => RouteWords::Attached(self.interface_name(interface)),
            Via::Drop => RouteWords::Drop,
            Via::Punt => RouteWords::Punt,
            Via::Local(_) => RouteWords::Local,
        })
    }

    /// The interface that the operator put an address behind. The address of a BVI itself comes with it.
    pub(super) fn config_mac(&self, domain: u32, mac: MacAddress) -> Option<String> {
        let entry = self.static_mac(domain, mac)?;
        if entry.is_filter() {
            return Some(FILTER.to_owned());
        }
        let record = self.interfaces.get(&entry.port())?;
        let own = record.mode.is_bvi() && record.mac == mac;
        (!own).then(|| record.name.clone())
    }

    pub(super) fn config_interface(&self, index: SwIfIndex) -> Option<InterfaceConfig> {
        let record = self.interfaces.get(&index)?;
        let mut config = InterfaceConfig::new(self.interface_type(index, record)?);
        let sub = record.kind == InterfaceKind::Sub;
        let device = matches!(record.kind, InterfaceKind::Memif | InterfaceKind::Pg | InterfaceKind::AfXdp);
        config.up = record.admin_up;
        config.mac = (!sub).then_some(Text(record.mac));
        config.mtu = Some(record.mtu.into());
        config.tag = record.tag.clone();
        config.rx_mode = device.then_some(record.rx_mode.into());
        let queue = |(queue, set): (&u16, &QueueSettings)| {
            let set = RxQueue { mode: set.mode.map(RxMode::from), worker: set.worker.map(|worker| worker.0) };
            (Text(u32::from(*queue)), set)
        };
        config.rx_queue = record.queues.iter().map(queue).collect();
        config.feature.clone_from(&record.features);
        config.table = record.table;
        config.addresses = record.addresses.iter().map(|(a, len)| Text(InterfaceAddress(*a, *len))).collect();
        match record.mode {
            L2Mode::L3 => {}
            L2Mode::Xconnect(peer) => config.xconnect = Some(self.interface_name(peer)),
            L2Mode::Bridge { domain, kind, shg } => {
                let port = match kind {
                    PortKind::Normal => Port::Normal,
                    PortKind::Bvi => Port::Bvi,
                    PortKind::UuFwd => Port::UuFwd,
                };
                config.bridge = Some(Bridge { domain, port, shg });
            }
        }
        let l2 = &record.l2;
        (config.learn, config.forward, config.flood) = (l2.learn, l2.forward, l2.flood);
        (config.learn_limit, config.tag_rewrite) = (l2.learn_limit, l2.tag_rewrite.map(Text));
        if let Some(binding) = self.acls.bindings.get(&index) {
            config.acl_input = binding.input.clone();
            config.acl_output = binding.output.clone();
            [config.etype_input, config.etype_output] = binding.etypes.clone();
            config.macip_acl = binding.macip;
        }
        let from = (index, SwIfIndex(0), SpanLayer::Device);
        let to = (index, SwIfIndex(u32::MAX), SpanLayer::L2);
        for ((_, to, layer), directions) in self.spans.range(from..=to) {
            config.spans_mut(*layer).insert(self.interface_name(*to), Text(*directions));
        }
        Some(config)
    }

    fn interface_type(&self, index: SwIfIndex, record: &Interface) -> Option<InterfaceType> {
        Some(match record.kind {
            InterfaceKind::Local => return None,
            InterfaceKind::Loopback => InterfaceType::Loopback,
            InterfaceKind::Memif => InterfaceType::Memif(memif(self.memif.config(index)?)),
            InterfaceKind::Pg => InterfaceType::Pg(Pg {
                mode: match self.pg.get(&index)?.mode() {
                    wharf_drivers::pg::PgMode::Ethernet => PgMode::Ethernet,
                    wharf_drivers::pg::PgMode::Ip4 => PgMode::Ip4,
                    wharf_drivers::pg::PgMode::Ip6 => PgMode::Ip6,
                },
            }),
            InterfaceKind::AfXdp => InterfaceType::AfXdp(af_xdp(self.xdp.config(index)?)),
            InterfaceKind::Sub => InterfaceType::Sub(Text(record.sub?.which)),
            InterfaceKind::Vxlan => InterfaceType::Vxlan(self.config_vxlan(self.vxlan.list.get(&index)?)),
        })
    }
}

fn memif(config: &MemifConfig) -> Memif {
    Memif {
        role: match config.role {
            memif::Role::Server => MemifRole::Server,
            memif::Role::Client => MemifRole::Client,
        },
        mode: if config.mode == memif::Mode::Ip { MemifMode::Ip } else { MemifMode::Ethernet },
        ring_size: config.ring_size,
        buffer_size: config.buffer_size,
        rx_queues: config.rx_queues,
        tx_queues: config.tx_queues,
        secret: config.secret.as_ref().map(|secret| write_secret(secret.expose())),
    }
}

fn af_xdp(config: &XdpConfig) -> AfXdp {
    let kept = |choose: fn(&KeptPort) -> Option<u16>| {
        config.keep.iter().flatten().filter_map(choose).collect::<Vec<u16>>()
    };
    AfXdp {
        host_if: config.host_if.clone(),
        netns: config.netns.clone(),
        rx_queue_size: config.rx_ring,
        tx_queue_size: config.tx_ring,
        zero_copy: match config.copy {
            CopyMode::Auto => None,
            CopyMode::Copy => Some(false),
            CopyMode::ZeroCopy => Some(true),
        },
        partial_checksums: config.partial_checksums,
        keep_tcp: kept(|port| if let KeptPort::Tcp(port) = port { Some(*port) } else { None }),
        keep_udp: kept(|port| if let KeptPort::Udp(port) = port { Some(*port) } else { None }),
    }
}

impl Dataplane {
    fn config_vxlan(&self, config: &VxlanConfig) -> Vxlan {
        Vxlan {
            src: config.src,
            dst: config.dst,
            group_interface: config.group.map(|index| self.interface_name(index)),
            vni: config.vni,
            decap_vni: config.decap_vni.map(|vni| vni.map_or(DecapVni::Word(Any::Any), DecapVni::Vni)),
            src_port: config.src_port,
            dst_port: config.dst_port,
            encap_table: config.table,
            l3: config.decap == DecapNext::Ip4,
            udp_checksum: config.checksum,
        }
    }
}
